//! The front door: cross-datacenter shipping for a storage server that has records of its own.
//!
//! A server implements [`Host`] over its store, starts a [`Shipper`] with one host
//! per shard, and tells it of each change: from the shard itself through an [`OnShard`], in the step
//! that publishes the change, or from any thread through a [`Writer`]. Everything else happens here: positions, batches,
//! connections, retries, recovery. Nothing is kept outside the `Shipper`: a process may run several,
//! each with a folder of its own.
//!
//! | file | holds |
//! |---|---|
//! | `mod` | start, commands, stop |
//! | `ticket` | changes made by any thread |
//! | `on_shard` | changes made on the shard itself |
//! | `shard` | what a shard does besides shipping: changes and questions come in |
//! | `memory` | the host of a store that is in memory |
//! | `identity`, `marks` | the files of the folder |
//! | `seat` | the same on shards that somebody else runs, as the node does |

mod identity;
mod marks;
mod memory;
mod on_shard;
mod seat;
mod shard;
#[cfg(test)]
mod tests;
mod ticket;

use std::error::Error;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use longship_rt::arena::ArenaError;
use longship_rt::clock::Clock;
use longship_rt::file_lock::{LockError, lock};
use longship_rt::mailbox::{Full, Sender, mailbox};
use longship_rt::shard::{ShardError, ShardSpec, ShardThread, join_all_within, spawn_shard};

use crate::config::XdrConfig;
pub use crate::engine::{Beginning, ControlSeed, DcReport, NamespaceReport, SourceId, StoreFacts};
use crate::host::{CheckpointStore, Host, NoSettings, StoreError};
pub use crate::limits::BATCH_ARENA_BYTES;
use crate::limits::{CHANGES_WAITING_MAX, QUESTIONS_MAX};
use crate::model::{Lut, ShardIndex, SrcId, Version};
pub use crate::ship::{Counters, LimitedBy, Stats};

pub use identity::{IdentityError, SourceIdentity};
pub use marks::MarksFile;
pub use memory::{MemoryHost, MemoryStore};
pub use on_shard::OnShard;
pub use seat::{Seat, SeatSpec, Shipping, Stop};
pub use shard::HostSeed;
use shard::{Parts, Question};
use ticket::Lane;
pub use ticket::{Stopped, Ticket, Versions, Writer};

/// What a shipper is started with.
#[derive(Clone, Debug)]
pub struct ShipperConfig {
    /// A folder of its own, made if need be: identity, positions, dead letters. To lose it is to ship
    /// everything again.
    pub folder: PathBuf,
    /// What ships where, at the start; info commands change it.
    pub xdr: XdrConfig,
    /// The namespaces, in order of their ids.
    pub namespaces: Vec<Namespace>,
    /// A shard each: the CPU it is pinned to, or `None` to leave it to the scheduler. Partition p
    /// belongs to shard p modulo their number.
    pub shards: Vec<Option<usize>>,
    /// The highest version of any record there is.
    pub highest: Version,
}

impl ShipperConfig {
    /// Of one shard that the scheduler places, with nothing to ship yet.
    pub fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            xdr: XdrConfig::default(),
            namespaces: Vec::new(),
            shards: vec![None],
            highest: Version::ZERO,
        }
    }
}

/// A namespace, and what is in it at the start.
#[derive(Clone, Debug)]
pub struct Namespace {
    /// Its name.
    pub name: String,
    /// Its store: positions count beside the store only that they were made beside.
    pub store: StoreFacts,
}

/// Why a shipper did not start, or did not end cleanly.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShipperError {
    /// The system refused a file or folder.
    #[error("cannot {action} {path}: {source}")]
    Folder {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Another shipper has the folder.
    #[error(
        "{path} belongs to a shipper that is running: stop it, or give this one its own folder"
    )]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// The key this process ships under cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Positions could not be read or stored.
    #[error(transparent)]
    Positions(#[from] StoreError),
    /// A shard did not start.
    #[error(transparent)]
    Shard(#[from] ShardError),
    /// A shard's memory for batches is not to be had.
    #[error(transparent)]
    Arena(#[from] ArenaError),
    /// A mailbox or thread is not to be had.
    #[error("cannot make a {what}: {source}; is a limit of the process too low?")]
    Resource {
        /// Which.
        what: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// A host did not start.
    #[error("the host of shard {shard} did not start: {source}")]
    Host {
        /// The shard.
        shard: u16,
        /// Its own words.
        source: Box<dyn Error + Send + Sync>,
    },
    /// There is no such shard.
    #[error("there is no shard {shard}: they are counted from 0")]
    NoShard {
        /// What was asked for.
        shard: u16,
    },
    /// It has ended.
    #[error("the shipper has stopped")]
    Stopped,
    /// Hosts could not make everything durable before the deadline.
    #[error("stopped, but not all that the hosts published is on their devices")]
    NotDurable,
}

/// How long threads of shards may take to end that have nothing left to do.
const END_PATIENCE: Duration = Duration::from_secs(1);

/// A running shipper. Dropped, it stops as [`Self::stop`] does with no time to ship what is left.
pub struct Shipper {
    lanes: Arc<[Lane]>,
    questions: Vec<Sender<Question>>,
    stop: Stop,
    /// When a stop must have ended, in microseconds of the clock; far away until one is ordered.
    deadline: Arc<AtomicU64>,
    control: Option<JoinHandle<Result<bool, StoreError>>>,
    shards: Vec<ShardThread<()>>,
    /// Shards give up when these are gone.
    _go: Vec<Sender<()>>,
    clock: Clock,
    /// Locked for as long as this runs.
    _lock: File,
}

impl Shipper {
    /// Starts a thread for each shard, makes its host there with `host`, and returns once every
    /// configured DC is in place with durable positions: what is submitted from then on ships, and so
    /// does what was changed since the positions of the last run. Positions are kept in the folder, in
    /// a [`MarksFile`]. Takes some milliseconds, and as long as the hosts take. A panic on a shard, in
    /// a host too, ends the process: what else it holds cannot be trusted then.
    ///
    /// # Errors
    /// [`ShipperError`]; nothing was shipped then. Its threads have ended, but for those whose host
    /// has not come back within a second: the log names them, and they end when it does.
    pub fn start<H, E>(
        config: ShipperConfig,
        host: impl Fn(HostSeed) -> Result<H, E> + Send + Sync + 'static,
    ) -> Result<Self, ShipperError>
    where
        H: Host,
        E: Into<Box<dyn Error + Send + Sync>> + 'static,
    {
        let marks = Box::new(MarksFile::new(config.folder.join("marks")));
        Self::start_with(config, marks, host)
    }

    /// The same with positions kept elsewhere, beside the server's own records for instance. Identity
    /// and dead letters stay in the folder.
    ///
    /// # Errors
    /// As of [`Self::start`].
    pub fn start_with<H, E>(
        config: ShipperConfig,
        mut store: Box<dyn CheckpointStore>,
        host: impl Fn(HostSeed) -> Result<H, E> + Send + Sync + 'static,
    ) -> Result<Self, ShipperError>
    where
        H: Host,
        E: Into<Box<dyn Error + Send + Sync>> + 'static,
    {
        let clock = Clock::real();
        let lock = take_folder(&config.folder)?;
        let identity = SourceIdentity::take(&config.folder, 0, clock.wall_ms())?;
        let floor = config.highest.max(Version::first_of(highest_mark(&mut *store)?));
        let (mut shipping, stop) = Shipping::new();
        let deadline = Arc::new(AtomicU64::new(u64::MAX));
        let crew = Crew::start(&config, (floor, identity), &deadline, &mut shipping, host)?;
        let seed = ControlSeed {
            xdr: config.xdr,
            namespaces: names(&config.namespaces),
            // The items of its namespaces are its host's own.
            settings: Box::new(NoSettings),
            stores: config.namespaces.iter().map(|namespace| namespace.store).collect(),
            lost_start: None,
            store,
            letters: config.folder.join("letters"),
            wall: || Lut::of_clock(Clock::real().wall_ms()),
        };
        let (say_serving, serving) = mpsc::channel();
        let run = move || {
            shipping.run(seed, move || {
                let _ = say_serving.send(());
            })
        };
        let control = thread::Builder::new().name("ship-control".into()).spawn(run);
        let control = match control.map_err(no("thread")) {
            Ok(control) => control,
            Err(error) => {
                crew.give_up();
                return Err(error);
            }
        };
        if serving.recv().is_err() {
            crew.give_up();
            let ended = control.join().expect("the control loop does not panic");
            return Err(ended.map_or_else(Into::into, |_| ShipperError::Stopped));
        }
        let Crew { lanes, questions, shards, go } = crew;
        Ok(Self {
            lanes: lanes.into(),
            questions,
            stop,
            deadline,
            control: Some(control),
            shards,
            _go: go,
            clock,
            _lock: lock,
        })
    }

    /// For one thread that writes. Each has its own: 64 bytes for each shard.
    pub fn writer(&self) -> Writer {
        Writer::new(Arc::clone(&self.lanes), self.clock.clone())
    }

    /// Answers an info command of the `xdr` context, such as `set-config:context=xdr;dc=west;
    /// action=create`, as an administration port would: `ok`, what was asked for, or `ERROR:code:text`.
    /// Statistics are those of `shard`; changes act on all. Waits until a change is in place and
    /// durable, which takes as long as the folder's disk does; a question takes a turn of the shard.
    ///
    /// # Errors
    /// [`ShipperError::Stopped`], and [`ShipperError::NoShard`].
    pub fn info(&self, shard: ShardIndex, command: &str) -> Result<String, ShipperError> {
        self.ask(shard, |answer| Question::Info(command.to_owned(), answer))
    }

    /// Figures of a DC, of each shard; empty when there is no DC of that name. Takes a turn of each.
    ///
    /// # Errors
    /// [`ShipperError::Stopped`].
    pub fn report(&self, dc: &str) -> Result<Vec<DcReport>, ShipperError> {
        let of = |shard| self.ask(ShardIndex(shard), |answer| Question::Report(dc.into(), answer));
        let shards = 0..self.questions.len() as u16;
        shards.map(of).filter_map(Result::transpose).collect()
    }

    fn ask<T>(
        &self,
        shard: ShardIndex,
        question: impl FnOnce(mpsc::Sender<T>) -> Question,
    ) -> Result<T, ShipperError> {
        let (answer, answered) = mpsc::channel();
        let mut question = question(answer);
        let asked = self.questions.get(usize::from(shard.0));
        let asked = asked.ok_or(ShipperError::NoShard { shard: shard.0 })?;
        while let Err(Full(back)) = asked.push(question) {
            if asked.is_closed() {
                return Err(ShipperError::Stopped);
            }
            question = back;
            thread::yield_now();
        }
        answered.recv().map_err(|_| ShipperError::Stopped)
    }

    /// Takes up what was submitted, ships what is left and can move, for at most `patience`, and
    /// makes the last positions durable. Writers get no more tickets. What is left ships at the next
    /// start; so does what is submitted with tickets that are open.
    ///
    /// # Errors
    /// Positions could not be stored: the next start goes on from the former ones. Or a host had not
    /// everything on its device in time.
    pub fn stop(mut self, patience: Duration) -> Result<(), ShipperError> {
        self.end(patience)
    }

    fn end(&mut self, patience: Duration) -> Result<(), ShipperError> {
        let Some(control) = self.control.take() else { return Ok(()) };
        let patience_us = u64::try_from(patience.as_micros()).unwrap_or(u64::MAX);
        let deadline_us = self.clock.now().saturating_add(patience_us);
        self.deadline.store(deadline_us, Ordering::SeqCst);
        self.lanes.iter().for_each(|lane| lane.versions.close());
        self.stop.stop();
        let ended = control.join().expect("the control loop does not panic");
        end(self.shards.drain(..));
        if ended? { Ok(()) } else { Err(ShipperError::NotDurable) }
    }
}

impl Drop for Shipper {
    fn drop(&mut self) {
        if let Err(error) = self.end(Duration::ZERO) {
            tracing::error!("{error}");
        }
    }
}

/// The threads of the shards, and the ways to them.
struct Crew {
    lanes: Vec<Lane>,
    questions: Vec<Sender<Question>>,
    shards: Vec<ShardThread<()>>,
    /// A shard whose way is gone gives up.
    go: Vec<Sender<()>>,
}

impl Crew {
    /// Starts them all, and waits until each has its host and its seat.
    fn start<H, E>(
        config: &ShipperConfig,
        (floor, source): (Version, SourceIdentity),
        deadline: &Arc<AtomicU64>,
        shipping: &mut Shipping,
        host: impl Fn(HostSeed) -> Result<H, E> + Send + Sync + 'static,
    ) -> Result<Self, ShipperError>
    where
        H: Host,
        E: Into<Box<dyn Error + Send + Sync>> + 'static,
    {
        let shard_count = config.shards.len() as u16;
        let seats = shipping.seats(shard_count).map_err(no("mailbox"))?;
        let host = Arc::new(host);
        let (started, starts) = mpsc::channel();
        let (lanes, questions, shards, go) = Default::default();
        let mut crew = Self { lanes, questions, shards, go };
        let start_each = || {
            for (seat, core) in seats.into_iter().zip(&config.shards) {
                let parts = crew.parts(seat, config, (floor, source.clone()), deadline)?;
                let (host, started) = (Arc::clone(&host), started.clone());
                let shard = parts.seat.shard().0;
                let spec = ShardSpec { index: shard, core: *core, name: format!("ship-{shard}") };
                let body = move || shard::run(parts, move |seed| host(seed), started);
                crew.shards.push(spawn_shard(spec, body)?);
            }
            Ok(())
        };
        let begun: Result<(), ShipperError> = start_each();
        drop(started);
        let seated = begun.and_then(|()| starts.iter().take(config.shards.len()).collect());
        match seated {
            Ok(()) => Ok(crew),
            Err(error) => {
                crew.give_up();
                Err(error)
            }
        }
    }

    fn parts(
        &mut self,
        seat: Seat,
        config: &ShipperConfig,
        (floor, source): (Version, SourceIdentity),
        deadline: &Arc<AtomicU64>,
    ) -> Result<Parts, ShipperError> {
        let versions = Versions::new(floor, config.namespaces.len(), seat.shard_count());
        let (changes, from_writers) = mailbox(CHANGES_WAITING_MAX).map_err(no("mailbox"))?;
        let (ask, asked) = mailbox(QUESTIONS_MAX).map_err(no("mailbox"))?;
        let (say_go, told_to_go) = mailbox(1).map_err(no("mailbox"))?;
        self.lanes.push(Lane { versions: versions.clone(), changes });
        self.questions.push(ask);
        self.go.push(say_go);
        Ok(Parts {
            seat,
            versions,
            from_writers,
            asked,
            told_to_go,
            source,
            src_id: SrcId(config.xdr.src_id),
            namespaces: names(&config.namespaces),
            deadline: Arc::clone(deadline),
        })
    }

    /// Ends the shards, none of which has shipped anything.
    fn give_up(self) {
        drop(self.go);
        end(self.shards);
    }
}

/// Waits until shards have ended that have nothing left to do, but not long: what a host does on its
/// shard may hang.
fn end(shards: impl IntoIterator<Item = ShardThread<()>>) {
    let left = join_all_within(shards, END_PATIENCE);
    if !left.is_empty() {
        tracing::error!(
            "{} still wait for their host after {} s, and end when it lets them: look at what its \
             store waits for, a device for instance",
            left.join(", "),
            END_PATIENCE.as_secs()
        );
    }
}

/// A folder of its own, locked.
fn take_folder(folder: &Path) -> Result<File, ShipperError> {
    let failed = |action, path: &Path| {
        let path = path.to_owned();
        move |source| ShipperError::Folder { action, path, source }
    };
    fs::create_dir_all(folder).map_err(failed("create", folder))?;
    let path = folder.join("lock");
    let file = File::create(&path).map_err(failed("create", &path))?;
    match lock(&file) {
        Ok(()) => Ok(file),
        Err(LockError::Held(_)) => Err(ShipperError::InUse { path: folder.to_owned() }),
        Err(LockError::Io(error)) => Err(failed("lock", &path)(error)),
    }
}

/// The highest position there is: a change with a lower LUT, by a clock that was set back, would never
/// ship. Damaged positions say nothing; the start reports them.
pub fn highest_mark(store: &mut dyn CheckpointStore) -> Result<Lut, StoreError> {
    match store.load() {
        Ok(marks) => {
            let lanes = marks.into_iter().flat_map(|marks| marks.lanes);
            Ok(lanes.map(|mark| mark.lst).max().unwrap_or(Lut::ZERO))
        }
        Err(StoreError::Corrupt { .. }) => Ok(Lut::ZERO),
        Err(error) => Err(error),
    }
}

fn names(namespaces: &[Namespace]) -> Vec<String> {
    namespaces.iter().map(|namespace| namespace.name.clone()).collect()
}

fn no(what: &'static str) -> impl Fn(io::Error) -> ShipperError {
    move |source| ShipperError::Resource { what, source }
}
