//! One shard of a [`Shipper`](super::Shipper): its host, its seat, and what comes in from other
//! threads.

use std::cell::RefCell;
use std::error::Error;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};

use futures_lite::future;
use longship_rt::arena::Arena;
use longship_rt::clock::Clock;
use longship_rt::event::Event;
use longship_rt::mailbox::{Inbox, Receiver};
use longship_rt::shard::{Queue, spawn, yield_now};

use super::on_shard::OnShard;
use super::seat::{Seat, SeatSpec};
use super::ticket::Versions;
use super::{ShipperError, SourceIdentity};
use crate::engine::{DcReport, Phase, ShardEngine};
use crate::host::Host;
use crate::info::{Admin, Answer};
use crate::limits::BATCH_ARENA_BYTES;
use crate::model::{Change, Lut, ShardIndex, SrcId, Tick};
use crate::wire::ResultCode;
use crate::wire::info::{Command, error};

/// Changes taken up between two looks at what else there is to do.
const CHANGES_AT_ONCE: usize = 256;
/// How often a shard that nobody writes to moves its version clock along.
const IDLE_MS: u64 = 50;
/// How often a stop looks whether the host has everything on its device: a host is asked, it tells
/// nobody.
const FLUSH_LOOK_MS: u64 = 10;

/// What a host is made with, on its shard.
#[derive(Debug)]
pub struct HostSeed {
    /// Its shard: partitions that are this modulo [`Self::shard_count`] are its.
    pub shard: ShardIndex,
    /// Shards of the shipper.
    pub shard_count: u16,
    /// Versions of this shard, and the clock that its host answers
    /// [`version_clock`](crate::host::Host::version_clock) with.
    pub versions: Versions,
    /// Makes changes on this shard, once it has its seat.
    pub on_shard: OnShard,
}

/// Asked of one shard from another thread.
pub(super) enum Question {
    Info(String, mpsc::Sender<String>),
    Report(String, mpsc::Sender<Option<DcReport>>),
}

/// What a shard is made from.
pub(super) struct Parts {
    pub(super) seat: Seat,
    pub(super) versions: Versions,
    pub(super) from_writers: Receiver<Change>,
    pub(super) asked: Receiver<Question>,
    /// Closed when the shard is to give up.
    pub(super) told_to_go: Receiver<()>,
    pub(super) source: SourceIdentity,
    pub(super) src_id: SrcId,
    pub(super) namespaces: Vec<String>,
    pub(super) deadline: Arc<AtomicU64>,
}

/// A shard from its start to its end. It tells how the start went.
pub(super) async fn run<H: Host, E: Into<Box<dyn Error + Send + Sync>> + 'static>(
    parts: Parts,
    host: impl FnOnce(HostSeed) -> Result<H, E>,
    started: mpsc::Sender<Result<(), ShipperError>>,
) {
    match Running::start(parts, host) {
        Ok((running, mut told_to_go)) => {
            let _ = started.send(Ok(()));
            drop(started);
            // Serves as long as it is ordered to, or gives up when nobody may order it any more.
            future::or(running.serve(), async { while told_to_go.wait().await.is_ok() {} }).await;
        }
        Err(error) => drop(started.send(Err(error))),
    }
}

struct Running<H: Host> {
    engine: ShardEngine<H>,
    host: Rc<RefCell<H>>,
    shard: ShardIndex,
    versions: Versions,
    changes: Inbox<Change>,
    questions: Inbox<Question>,
    clock: Clock,
    deadline: Arc<AtomicU64>,
    on_shard: OnShard,
}

impl<H: Host> Running<H> {
    fn start<E: Into<Box<dyn Error + Send + Sync>> + 'static>(
        parts: Parts,
        host: impl FnOnce(HostSeed) -> Result<H, E>,
    ) -> Result<(Self, Inbox<()>), ShipperError> {
        let Parts { seat, versions, namespaces, deadline, source, src_id, .. } = parts;
        let (shard, shard_count) = (seat.shard(), seat.shard_count());
        let clock = Clock::real();
        let on_shard = OnShard::new(versions.clone(), clock.clone());
        let seed =
            HostSeed { shard, shard_count, versions: versions.clone(), on_shard: on_shard.clone() };
        let host = host(seed).map_err(|source| {
            let source = source.into();
            ShipperError::Host { shard: shard.0, source }
        })?;
        let host = Rc::new(RefCell::new(host));
        let no_mailbox = super::no("mailbox");
        let changes = parts.from_writers.open().map_err(&no_mailbox)?;
        let questions = parts.asked.open().map_err(&no_mailbox)?;
        let told_to_go = parts.told_to_go.open().map_err(&no_mailbox)?;
        let engine = seat.take(SeatSpec {
            host: Rc::clone(&host),
            arena: Arena::new(BATCH_ARENA_BYTES, None)?,
            clock: clock.clone(),
            namespaces: namespaces.into(),
            source: source.source,
            is_new_source: source.is_new,
            src_id,
        });
        let engine = engine.map_err(&no_mailbox)?;
        let running =
            Self { engine, host, shard, versions, changes, questions, clock, deadline, on_shard };
        Ok((running, told_to_go))
    }

    async fn serve(self) {
        let Self { engine, host, shard, versions, changes, questions, clock, deadline, on_shard } =
            self;
        let (of_intake, batch) = (Rc::clone(&host), Vec::new());
        let mut intake =
            Intake { engine: engine.clone(), host: of_intake, shard, versions, changes, batch };
        let stopping = Event::new();
        let answering = answer(engine.clone(), questions);
        spawn(Queue::Sockets, answering);
        let serving = async {
            engine.reached(Phase::Serving).await;
            let submits = engine.clone();
            on_shard.seat(move |change, set| {
                submits.note_time();
                submits.submit(change, set);
            });
            engine.reached(Phase::Stopping).await;
        };
        future::or(intake.take_for_ever(&clock), serving).await;
        intake.take_some(&clock).await;
        engine.quiet();
        engine.reached(Phase::Finishing).await;
        let deadline = Tick(deadline.load(Ordering::SeqCst));
        let flushed = async {
            let mut unflushed = engine.namespace_ids();
            unflushed.iter().for_each(|namespace| host.borrow_mut().watch_flush(*namespace));
            loop {
                unflushed.retain(|namespace| !host.borrow().is_flushed(*namespace));
                if unflushed.is_empty() || clock.now() >= deadline.0 {
                    return unflushed;
                }
                stopping.wait_until(clock.now() + FLUSH_LOOK_MS * 1000).await;
            }
        };
        let (last, unflushed) = future::zip(engine.drain(deadline), flushed).await;
        engine.stopped(last, &unflushed);
    }
}

/// Takes up what other threads submit.
struct Intake<H: Host> {
    engine: ShardEngine<H>,
    host: Rc<RefCell<H>>,
    shard: ShardIndex,
    versions: Versions,
    changes: Inbox<Change>,
    /// Kept from one handful to the next.
    batch: Vec<Change>,
}

impl<H: Host> Intake<H> {
    async fn take_for_ever(&mut self, clock: &Clock) {
        let pause = Event::new();
        loop {
            let idle = async {
                pause.wait_until(clock.now() + IDLE_MS * 1000).await;
            };
            let news = async {
                if self.changes.wait().await.is_err() {
                    future::pending().await
                }
            };
            future::or(news, idle).await;
            self.take_some(clock).await;
        }
    }

    /// All that is there by now, in handfuls, and no more, or writers that are quicker than the shard
    /// would never let it end; then the clock may be shown.
    async fn take_some(&mut self, clock: &Clock) {
        let horizon = self.versions.horizon(Lut::of_clock(clock.wall_ms()));
        let begun = self.changes.begun();
        while self.take(CHANGES_AT_ONCE) == CHANGES_AT_ONCE && !self.changes.has_drained(begun) {
            yield_now().await;
        }
        self.take_missed();
        // A push that is under way hides others, whose writers have cleared their floors.
        if self.changes.has_drained(begun) {
            self.versions.show(horizon);
        }
    }

    fn take(&mut self, count: usize) -> usize {
        self.changes.drain(&mut self.batch, count);
        self.engine.note_time();
        let host = self.host.borrow();
        for change in &self.batch {
            self.engine.submit(change, host.set_name(change.namespace, change.set));
        }
        let taken = self.batch.len();
        self.batch.clear();
        taken
    }

    fn take_missed(&self) {
        self.versions.take_missed(self.shard, |namespace, partition, from, to| {
            self.engine.missed(namespace, partition, from, to);
        });
    }
}

/// Answers questions, one after the other.
async fn answer<H: Host>(engine: ShardEngine<H>, mut questions: Inbox<Question>) {
    let admin = Admin::new(engine.clone());
    let mut batch = Vec::new();
    while questions.wait().await.is_ok() {
        questions.drain(&mut batch, usize::MAX);
        for question in batch.drain(..) {
            match question {
                Question::Report(dc, to) => drop(to.send(engine.report(&dc))),
                Question::Info(text, to) => drop(to.send(answer_info(&admin, &text).await)),
            }
        }
    }
}

async fn answer_info<H: Host>(admin: &Admin<H>, text: &str) -> String {
    let command = Command::parse(text.as_bytes());
    match command.and_then(|command| admin.answer(&command)) {
        Some(Answer::Now(text)) => text,
        Some(Answer::Later(text)) => text.await,
        None => error(ResultCode::PARAMETER, "not a command of shipping"),
    }
}
