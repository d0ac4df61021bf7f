//! A node from its configuration to its end: folders and devices, shards, ports, the control loop,
//! and the way down.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use futures_lite::future;

use tracing::{error, info, warn};

use crate::config::Config;
use crate::storage::admit::Words;
use crate::storage::cold_start::{self, ColdStartError, ColdStartReport, Peer};
use crate::storage::device::DeviceError;
use crate::storage::keeper::Keeper;
use crate::storage::progress::ProgressFigures;
use crate::storage::start::{OpenError, StoreParts, arena_bytes, start_tasks};
use crate::storage::store::{SharedStore, Store};
use crate::storage::volume::Volume;
use crate::storage::zero::Zeroing;
use crate::storage::{accept, flush, known, loss};
use longship::engine::{Phase, ShardEngine};
use longship::host::StoreError;
use longship::model::{CLIENT_EPOCH_UNIX_MS, Lut, NamespaceId, ShardIndex, SrcId, Tick};
use longship::shipper::{
    BATCH_ARENA_BYTES, ControlSeed, IdentityError, MarksFile, Seat, SeatSpec, Shipping,
    SourceIdentity,
};
use longship_rt::arena::{Arena, ArenaError};
use longship_rt::clock::Clock;
use longship_rt::disk_ring::{DiskRing, RingError};
use longship_rt::mailbox::{Receiver, Sender, mailbox};
use longship_rt::net::{BoundPort, Listener};
use longship_rt::placement::{Plan, ShardPlace};
use longship_rt::random::random_u64;
use longship_rt::shard::{
    Queue, ShardError, ShardSpec, ShardThread, join_all_within, spawn, spawn_shard,
};

use crate::admin::answers::NodeAdmin;
use crate::admin::info::NodeIdentity;
use crate::admin::report::Node;
use crate::admin::settings::Settings;
use crate::process::descriptors::{self, DescriptorError};
use crate::process::ground::Ground;
use crate::process::home::{Home, HomeError};
use crate::process::log_files::LogFileTaken;
use crate::process::opened::{Opened, positions_start, told_stores};
use crate::process::own_files::DataFileTaken;
use crate::process::stop::{Deadlines, Step, StopOrders, Stopper, stop_time};
use crate::server::guard::Guard;
use crate::server::handover::{self, Doors};
use crate::server::hello::Fence;
use crate::server::memory::Memory;
use crate::server::{Connections, Greeting, Limits, Server};
use crate::service::execute::Records;

/// Operations that each namespace may have in a disk ring.
const DISK_RING_DEPTH: u32 = 512;

/// Why a node did not start, or did not end cleanly.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The work directory cannot be used.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The key this node ships under cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The process may not open enough files.
    #[error(transparent)]
    Descriptors(#[from] DescriptorError),
    /// A log file is something else as well.
    #[error(transparent)]
    LogFile(#[from] LogFileTaken),
    /// A data file is something else as well.
    #[error(transparent)]
    DataFile(#[from] DataFileTaken),
    /// A device is not usable.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A port is not to be had.
    #[error("cannot listen on {address}: {source}{}", listen_remedy(source))]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's answer.
        source: io::Error,
    },
    /// The system's clock is too far off.
    #[error(
        "the system clock says {}, and times after 2042 cannot be told apart: set it (timedatectl), \
         then start again", now.utc()
    )]
    Clock {
        /// What it says.
        now: Lut,
    },
    /// The last shards would listen behind the last port there is.
    #[error(
        "port {port} and {shards} shards: each shard listens on a port of its own, and there is none \
         above 65535; choose a lower `port`, or fewer `shards`"
    )]
    PortsRunOut {
        /// Of shard 0.
        port: u16,
        /// How many shards there are.
        shards: u16,
    },
    /// A shard did not start.
    #[error(transparent)]
    Shard(#[from] ShardError),
    /// A shard could not get its memory.
    #[error(transparent)]
    Arena(#[from] ArenaError),
    /// A shard could not get its disk ring.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// A shard could not open its storage.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A mailbox between threads could not be made.
    #[error("cannot make a mailbox between threads: {0}; is the limit of open files too low?")]
    Mailbox(io::Error),
    /// The marks are not to be had.
    #[error(transparent)]
    Marks(#[from] StoreError),
    /// A log had failed before the stop, or was too slow for it.
    #[error("stopped, but what was acknowledged last is not all on its device: the log says why")]
    NotDurable,
}

/// What to do where a port cannot be listened on.
fn listen_remedy(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::AddrInUse => {
            "; another process has the port (ss -ltnp tells which): stop it, or choose another `port`"
        }
        io::ErrorKind::AddrNotAvailable => {
            "; this machine has no such address: see `ip address`, or write `address any`"
        }
        _ => "",
    }
}

impl NodeError {
    /// Whether a shard failed only because another one had.
    const fn is_consequence(&self) -> bool {
        matches!(self, Self::Open(OpenError::ColdStart(ColdStartError::PeerGone)))
    }
}

/// How often whoever waits for the start hears of it.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);
/// How often a start looks whether it should stop.
const STOP_LOOK: Duration = Duration::from_millis(20);

/// How long shards may take to end that were told to give up their start, or have nothing left to do
/// after a stop. A thread that a device holds up is left to the end of the process.
const END_PATIENCE: Duration = Duration::from_millis(500);

/// Runs a node until its [`Stopper`] stops it; during a start too, at once. While storage is being
/// opened, `on_progress` hears ten times a second how far that has got, and `None` when it is done.
///
/// # Errors
/// It did not start, its last marks could not be stored, or something acknowledged did not reach its
/// device.
pub fn run(
    config: Config,
    plan: &Plan,
    orders: StopOrders,
    on_progress: &mut dyn FnMut(Option<&ProgressFigures>),
) -> Result<(), NodeError> {
    let StopOrders { stopper, mut shipping } = orders;
    plan.warnings.iter().for_each(|warning| warn!("placement: {warning}"));
    let prepared = Prepared::from(config, plan.shards.len() as u16, &stopper)?;
    let Prepared { home, marks, bound, shared } = prepared;
    let mut shards = Shards::start(&shared, plan, bound, &mut shipping);
    plan.keep_off_shards();
    let time = stop_time(shared.config.service.stop_deadline_ms);
    let _zeroing = Zeroing::start(&shared.volumes, stopper.flag(), time);
    let started = shards.await_start(&shared, on_progress);
    let Some(found) = started.inspect_err(|error| keep_refusals(&home, error))? else {
        info!("stopped during the start: nothing was served");
        return Ok(());
    };
    on_progress(None);
    if let Err(error) = take_words(&home, &shared) {
        return Err(shards.give_up(Some(error)).expect("it had one"));
    }

    let seed = shared.control_seed(&home, &found, marks);
    stopper.enter(Step::Serving);
    let home = Rc::new(home);
    let publisher = Rc::clone(&home);
    let keeper = Rc::new(Cell::new(None));
    let (keeping, volumes) = (Rc::clone(&keeper), shared.volumes.clone());
    let ports = shared.ports.clone();
    let on_serving = move || {
        let (id, words) = (publisher.node_id, in_words(&ports));
        info!("serving clients: node {id:X}, {words}");
        if let Err(error) = publisher.publish_ports(&ports) {
            error!("{error}: whoever waits for that file waits in vain");
        }
        keeping.set(Some(Keeper::start(&volumes)));
    };
    let ended = shipping.run(seed, on_serving);
    home.withdraw_ports();
    if !ended? {
        // Their rings still wait for the device, which this process need not.
        return Err(NodeError::NotDurable);
    }
    shards.await_end();
    info!("stopped");
    Ok(())
}

/// What a node is made from, when nothing is in the way of its start.
pub(super) struct Prepared {
    pub(super) home: Home,
    pub(super) marks: Box<MarksFile>,
    pub(super) bound: Vec<BoundPort>,
    pub(super) shared: Arc<Shared>,
}

impl Prepared {
    pub(super) fn from(
        config: Config,
        shard_count: u16,
        stopper: &Stopper,
    ) -> Result<Self, NodeError> {
        let home = Home::open(&config.service.work_directory, config.service.node_id)?;
        let connections_max = descriptors::for_clients(&config, shard_count)?;
        // Before anything is made or changed on a device.
        let ground = Ground::look(&config, shard_count, &home);
        let Ground { words, marks, version_floor, bound } =
            ground.map_err(|mut refused| refused.remove(0))?;
        let volumes = open_volumes(&config, shard_count, &words)?;
        let wall_ms = Clock::real().wall_ms();
        let identity = SourceIdentity::take(home.folder(), home.node_id, wall_ms)?;
        let shared = Arc::new(Shared {
            node_id: home.node_id,
            identity,
            identity_told: AtomicBool::new(false),
            boot: random_u64(),
            version_floor,
            ports: bound.iter().map(|port| port.local_addr().port()).collect(),
            connections_max,
            config,
            volumes,
            words,
            shard_count,
            stopper: stopper.clone(),
            clock_told: AtomicBool::new(false),
        });
        Ok(Self { home, marks, bound, shared })
    }
}

/// Leaves what shards found in the way for `longship accept` to show.
pub(super) fn keep_refusals(home: &Home, error: &NodeError) {
    if let NodeError::Device(DeviceError::Refused { refusals }) = error
        && let Err(error) = known::keep_refusals(home.folder(), refusals)
    {
        let error = home.failed("write", "refused")(error);
        warn!("{error}: `longship accept` does not show why this start is refused");
    }
}

/// The start has done what the operator allowed it; the next one may not.
pub(super) fn take_words(home: &Home, shared: &Shared) -> Result<(), NodeError> {
    for volume in &shared.volumes {
        accept::tell_accepted_damage(volume);
    }
    known::forget_words(home.folder()).map_err(home.failed("remove", "accepted"))?;
    Ok(())
}

/// The threads of the shards, and the ways to them.
struct Shards {
    threads: Vec<ShardThread>,
    /// One item makes a shard give up its start.
    give_up: Vec<Sender<()>>,
    /// How the start of each went. Each shard holds its sender until it ends.
    starts: mpsc::Receiver<Result<Opened, NodeError>>,
}

impl Shards {
    /// Starts them all. One that cannot be started is told of as one whose start failed.
    fn start(
        shared: &Arc<Shared>,
        plan: &Plan,
        bound: Vec<BoundPort>,
        shipping: &mut Shipping,
    ) -> Self {
        let (started, starts) = mpsc::channel();
        let (threads, give_up) = Default::default();
        let mut shards = Self { threads, give_up, starts };
        if let Err(error) = shards.start_each(shared, plan, bound, shipping, &started) {
            let _ = started.send(Err(error));
        }
        shards
    }

    fn start_each(
        &mut self,
        shared: &Arc<Shared>,
        plan: &Plan,
        bound: Vec<BoundPort>,
        shipping: &mut Shipping,
        started: &mpsc::Sender<Result<Opened, NodeError>>,
    ) -> Result<(), NodeError> {
        let places = plan.shards.iter().map(|place| place.memory_node);
        let parts = ShardParts::of_all(shared, bound, places, shipping)?;
        for (parts, place) in parts.into_iter().zip(&plan.shards) {
            let (sender, give_up) = mailbox(1).map_err(NodeError::Mailbox)?;
            self.give_up.push(sender);
            let shard = parts.shard;
            let ShardPlace { cpu, cpu_reason, node_reason, .. } = place;
            info!("shard {} runs on CPU {cpu}: {cpu_reason}; {node_reason}", shard.0);
            let name = format!("shard-{}", shard.0);
            let spec = ShardSpec { index: shard.0, core: Some(*cpu), name };
            let started = started.clone();
            let thread = spawn_shard(spec, move || run_shard(parts, started, give_up))?;
            self.threads.push(thread);
        }
        Ok(())
    }

    /// Waits until every shard has started; gives what they found. `None` when a stop was ordered
    /// meanwhile: all have given up then, as they have after an error.
    fn await_start(
        &mut self,
        shared: &Shared,
        on_progress: &mut dyn FnMut(Option<&ProgressFigures>),
    ) -> Result<Option<Opened>, NodeError> {
        let mut found = Opened::default();
        let mut waited = usize::from(shared.shard_count);
        let mut looked = Instant::now();
        while waited > 0 {
            if shared.stopper.is_ordered() {
                self.give_up(None);
                return Ok(None);
            }
            match self.starts.recv_timeout(STOP_LOOK) {
                Ok(Ok(opened)) => {
                    found.add(&opened);
                    waited -= 1;
                }
                Ok(Err(error)) => return Err(self.give_up(Some(error)).expect("it had one")),
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    unreachable!("each shard says how its start went")
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
            }
            if looked.elapsed() >= PROGRESS_EVERY {
                looked = Instant::now();
                let figures = shared.volumes.iter().map(|volume| volume.progress.figures());
                let figures = figures.fold(ProgressFigures::default(), ProgressFigures::plus);
                on_progress(Some(&figures));
            }
        }
        Ok(Some(found))
    }

    /// Has every shard give up its start, and waits for that, but not long. Of the errors they
    /// leave gives the one that is the cause of the others.
    fn give_up(&mut self, first: Option<NodeError>) -> Option<NodeError> {
        for shard in &self.give_up {
            // A full one was told already.
            let _ = shard.push(());
        }
        let mut cause = first;
        let deadline = Instant::now() + END_PATIENCE;
        while let Ok(start) =
            self.starts.recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            if let Err(error) = start
                && cause.as_ref().is_none_or(NodeError::is_consequence)
            {
                cause = Some(error);
            }
        }
        self.await_end();
        cause
    }

    /// Waits until they have ended, but not long: all that they had to do is done.
    fn await_end(&mut self) {
        join_all_within(self.threads.drain(..), END_PATIENCE);
    }
}

/// The ports, for people: a row of them by its ends.
fn in_words(ports: &[u16]) -> String {
    let runs = ports.chunk_by(|port, next| port.checked_add(1) == Some(*next));
    let runs: Vec<String> = runs
        .map(|run| match run {
            [one] => one.to_string(),
            [first, .., last] => format!("{first} to {last}"),
            [] => String::new(),
        })
        .collect();
    let word = if ports.len() == 1 { "port" } else { "ports" };
    format!("{word} {}", runs.join(", "))
}

fn wall() -> Lut {
    Lut::of_clock(Clock::real().wall_ms())
}

/// What all shards are made from.
pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) volumes: Vec<Arc<Volume>>,
    /// What the operator lets this start do.
    words: Words,
    shard_count: u16,
    node_id: u64,
    identity: SourceIdentity,
    identity_told: AtomicBool,
    boot: u64,
    /// Versions issued from now on are above it.
    version_floor: Lut,
    ports: Vec<u16>,
    /// Client connections of all shards together.
    connections_max: u32,
    stopper: Stopper,
    /// That the clock is wrong has been said.
    clock_told: AtomicBool,
}

impl Shared {
    /// What the control loop is started with, given what the shards found.
    pub(super) fn control_seed(
        &self,
        home: &Home,
        found: &Opened,
        marks: Box<MarksFile>,
    ) -> ControlSeed {
        ControlSeed {
            xdr: self.config.xdr.clone(),
            namespaces: self.config.namespace_names(),
            settings: Box::new(Settings::of(&self.config.namespaces)),
            stores: found.stores(&self.volumes),
            lost_start: self.words.positions().map(|positions| positions_start(positions, wall())),
            store: marks,
            letters: home.path("letters"),
            wall,
        }
    }

    /// A store that is not empty may have shipped under an identity that is lost. Said once.
    fn warn_of_new_identity(&self, store: &SharedStore) {
        let mut ids = (0..self.config.namespaces.len()).map(|id| NamespaceId(id as u8));
        let is_used = ids.any(|id| store.borrow().stats(id).objects > 0);
        if self.identity.is_new && is_used && !self.identity_told.swap(true, Ordering::Relaxed) {
            warn!(
                "the work directory {} has no file `identity`, yet there are records: destinations \
                 take this node for a new source, and do not hold back what the former one may \
                 still have on its way, so nothing ships for 15 s. Restore that file from a copy \
                 if there is one",
                self.config.service.work_directory.display()
            );
        }
    }
}

/// What one shard is made from.
pub(super) struct ShardParts {
    shard: ShardIndex,
    memory_node: Option<u32>,
    shared: Arc<Shared>,
    bound: BoundPort,
    doors: Doors,
    peer: Peer,
    seat: Seat,
}

impl ShardParts {
    /// Of each shard, with the ways between them.
    pub(super) fn of_all(
        shared: &Arc<Shared>,
        bound: Vec<BoundPort>,
        memory_nodes: impl Iterator<Item = Option<u32>>,
        shipping: &mut Shipping,
    ) -> Result<Vec<Self>, NodeError> {
        let doors = handover::doors(shared.shard_count).map_err(NodeError::Mailbox)?;
        let peers = cold_start::peers(shared.shard_count);
        let seats = shipping.seats(shared.shard_count).map_err(NodeError::Mailbox)?;
        let parts = bound.into_iter().zip(doors).zip(peers).zip(seats).zip(memory_nodes);
        let parts = parts.map(|((((bound, doors), peer), seat), memory_node)| Self {
            shard: seat.shard(),
            memory_node,
            shared: Arc::clone(shared),
            bound,
            doors,
            peer,
            seat,
        });
        Ok(parts.collect())
    }
}

/// A shard from its start to its end. It may be told to give up until it serves, also when its own
/// start is done: that of another may have failed. It holds `started` until it ends.
pub(super) async fn run_shard(
    parts: ShardParts,
    started: mpsc::Sender<Result<Opened, NodeError>>,
    give_up: Receiver<()>,
) {
    let shared = Arc::clone(&parts.shared);
    let given_up = async {
        match give_up.open() {
            Ok(mut told) => match told.wait().await {
                Ok(()) => None,
                // Nobody can tell any more: the start goes on.
                Err(_) => future::pending().await,
            },
            Err(error) => {
                let _ = started.send(Err(NodeError::Mailbox(error)));
                None
            }
        }
    };
    let start = async {
        let (shard, opened) = match Running::start(parts).await {
            Ok(running) => running,
            Err(error) => {
                let _ = started.send(Err(error));
                return None;
            }
        };
        let _ = started.send(Ok(opened));
        shard.engine.reached(Phase::Serving).await;
        Some(shard)
    };
    if let Some(shard) = future::or(given_up, start).await {
        shard.serve(&shared).await;
    }
}

/// One shard that serves.
struct Running {
    engine: ShardEngine<Store>,
    server: Rc<Server<Records<ShardEngine<Store>>>>,
    listener: Listener,
    store: SharedStore,
    clock: Clock,
}

impl Running {
    async fn start(parts: ShardParts) -> Result<(Self, Opened), NodeError> {
        let ShardParts { shard, memory_node, shared, bound, doors, peer, seat } = parts;
        let clock = Clock::real();
        let (store, opened) = open_store((shard, memory_node), &shared, peer, &clock).await?;
        shared.warn_of_new_identity(&store);
        store.borrow_mut().stop_within(stop_time(shared.config.service.stop_deadline_ms));
        let engine = seat.take(SeatSpec {
            host: Rc::clone(&store),
            arena: Arena::new(BATCH_ARENA_BYTES, memory_node)?,
            clock: clock.clone(),
            namespaces: shared.config.namespace_names().into(),
            source: shared.identity.source.clone(),
            is_new_source: shared.identity.is_new,
            src_id: SrcId(shared.config.xdr.src_id),
        });
        let engine = engine.map_err(NodeError::Mailbox)?;
        let config = &shared.config;
        let records =
            Rc::new(Records::new((shard, shared.shard_count), Rc::clone(&store), engine.clone()));
        spawn(Queue::Disk, Rc::clone(&records).publish());
        let desk = handover::open(shard, doors, &records).map_err(NodeError::Mailbox)?;
        let limits = Limits::of(config, shared.connections_max, shared.shard_count);
        let memory = Memory::new(limits.message_bytes_max, desk.replies_held());
        let identity = NodeIdentity::of(config, shared.node_id, shard, shared.ports.clone());
        let server = Rc::new(Server {
            node: identity.node(shard),
            ask: Box::new(NodeAdmin::new(
                Node::new(identity, Rc::clone(&records), config.clone()),
                engine.clone(),
            )),
            desk,
            service: records,
            guard: Guard::of(config),
            fence: Rc::new(Fence::of(shared.identity.source.key.origin())),
            greeting: Greeting {
                boot: shared.boot,
                loss_window_ms: loss::loss_window_of(&config.namespaces),
                stores: told_stores(&shared.volumes, &shared.words),
            },
            limits,
            connections: Connections::new(memory),
        });
        let address = bound.local_addr();
        let listener = bound.listen().map_err(|source| NodeError::Listen { address, source })?;
        Ok((Self { engine, server, listener, store, clock }, opened))
    }

    /// Takes requests until it is ordered to stop; then answers what was asked, ships what is left,
    /// and makes everything durable. Other shards hand requests over until none takes any more.
    async fn serve(self, shared: &Shared) {
        let Self { engine, server, listener, store, clock } = self;
        // Not before: it writes to the devices, and the start may yet be refused.
        start_tasks(&store);
        spawn(Queue::Sockets, Rc::clone(&server).listen(listener));
        engine.reached(Phase::Stopping).await;
        let stopper = &shared.stopper;
        stopper.enter(Step::Answering);
        let deadlines = Deadlines::new(Tick(clock.now()), shared.config.service.stop_deadline_ms);
        server.connections.stop(deadlines.clients).await;
        engine.quiet();
        engine.reached(Phase::Finishing).await;
        stopper.enter(Step::Draining);
        // Side by side: a slow destination takes nothing of the time that a slow device needs.
        let (last, unflushed) =
            future::zip(engine.drain(deadlines.ship), flush::stop(&store, deadlines.flush)).await;
        stopper.enter(Step::Ending);
        engine.stopped(last, &unflushed);
    }
}

async fn open_store(
    (shard, memory_node): (ShardIndex, Option<u32>),
    shared: &Shared,
    peer: Peer,
    clock: &Clock,
) -> Result<(SharedStore, Opened), NodeError> {
    let namespaces = &shared.config.namespaces;
    let arena = Arena::new(arena_bytes(namespaces, shared.shard_count), memory_node)?;
    let ring = DiskRing::with_lanes(namespaces.len() as u32, DISK_RING_DEPTH, &arena)?;
    spawn(Queue::Disk, ring.clone().drive());
    spawn(Queue::Disk, ring.clone().watch());
    let parts = StoreParts {
        shard,
        namespaces: namespaces.iter().cloned().zip(shared.volumes.iter().cloned()).collect(),
        ring,
        arena,
        peer,
        clock: clock.clone(),
    };
    let (store, report) = Store::open(parts, shared.version_floor).await?;
    info!("shard {}: storage is open, {}", shard.0, told(&report));
    let newest = report.highest_version.lut().max(shared.version_floor);
    if let Some(trouble) = clock_trouble(clock.wall_ms(), newest)
        && !shared.clock_told.swap(true, Ordering::Relaxed)
    {
        warn!("{trouble}");
    }
    let opened = Opened::of(&store.borrow());
    // Every shard knows of all damage by now.
    judge_damage(shared)?;
    Ok((store, opened))
}

/// Nothing is served that could be older than what was acknowledged, unless the operator has said
/// so, of this damage.
fn judge_damage(shared: &Shared) -> Result<(), DeviceError> {
    let judge = |volume: &Arc<Volume>| accept::judge_damage(volume, &shared.words).transpose();
    let refusals = shared.volumes.iter().filter_map(judge).collect::<Result<Vec<_>, _>>()?;
    if refusals.is_empty() { Ok(()) } else { Err(DeviceError::Refused { refusals }) }
}

/// What a start found, for people: what is usual first, then what is not.
fn told(report: &ColdStartReport) -> String {
    let ColdStartReport { blocks, records, warm, cold, .. } = *report;
    let mut text = match (warm, cold) {
        (_, 0) => format!("from its checkpoint: {records} records"),
        (0, _) => format!("from the log: {records} versions of records read in {blocks} blocks"),
        _ => format!(
            "{warm} namespaces from checkpoints, {cold} from the log: {records} records and \
             versions of them, {blocks} blocks read"
        ),
    };
    let unusual = [
        (report.open_blocks, "blocks were open when the last run ended"),
        (report.torn_records, "records were torn then, none acknowledged as durable"),
        (report.damaged_blocks, "blocks are damaged"),
        (report.damaged_records, "records are lost to damage"),
        (report.unreadable_blocks, "blocks cannot be read"),
    ];
    for (count, what) in unusual.into_iter().filter(|(count, _)| *count > 0) {
        text += &format!("; {count} {what}");
    }
    text
}

/// How far a clock may be behind the newest change before that is worth a word.
const CLOCK_BEHIND_MS: u64 = 60_000;

/// What is wrong with a system clock that says `wall_ms` (Unix time), where the newest change is of
/// `newest`; for people.
fn clock_trouble(wall_ms: u64, newest: Lut) -> Option<String> {
    let behind_ms = newest.unix_ms().saturating_sub(wall_ms);
    if wall_ms >= Lut::MAX.unix_ms() {
        return Some(
            "the system clock says a time after 2044, which the version of a record cannot hold: set \
             it right"
                .to_owned(),
        );
    }
    if newest > Lut::ZERO && behind_ms > CLOCK_BEHIND_MS {
        return Some(format!(
            "the system clock is {} s behind the newest change there is: set it right; until it has \
             caught up, changes get the time of that one, and lag, delays and lives of records are \
             judged by a clock that is wrong",
            behind_ms / 1000
        ));
    }
    (wall_ms < CLIENT_EPOCH_UNIX_MS)
        .then(|| "the system clock says a time before 2010: set it right".to_owned())
}

fn open_volumes(
    config: &Config,
    shard_count: u16,
    words: &Words,
) -> Result<Vec<Arc<Volume>>, NodeError> {
    let work = &config.service.work_directory;
    let opened = Volume::open_all(&config.namespaces, shard_count, Some(work), words)?;
    Ok(opened.into_iter().map(Arc::new).collect())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::process::ground::bind;
    use crate::process::place::place;
    use crate::process::stop::stopper;

    fn config(folder: &Path, shards: u16, port: u16) -> Config {
        let folder = folder.display();
        let text = format!(
            "service {{\n work-directory {folder}/work\n shards {shards}\n}}\n\
             network {{ service {{\n address 127.0.0.1\n port {port}\n}} }}\n\
             namespace test {{\n storage-engine device {{\n file {folder}/test.dat\n\
             filesize 64M\n post-write-cache 8M\n}}\n}}\n"
        );
        Config::parse(&text, "test").unwrap_or_else(|errors| panic!("{errors}"))
    }

    /// A plan that gives every shard whatever CPU the first allowed one is.
    fn plan(config: &Config, shards: usize) -> Plan {
        let (_, mut plan) = place(config).unwrap();
        let first = plan.shards[0].clone();
        plan.shards.resize(shards, first);
        plan
    }

    #[test]
    fn a_stop_during_a_start_ends_it_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path(), 1, 0);
        let plan = plan(&config, 3);
        let (stopper, orders) = stopper();
        assert!(stopper.stop());
        let begun = Instant::now();
        run(config, &plan, orders, &mut |_| {}).unwrap();
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        assert_eq!(stopper.step(), Step::Starting);
        assert!(!folder.path().join("work/ports").exists());
    }

    /// What shards of a node in `folder` are made from, and their ports.
    fn shared(folder: &Path, shard_count: u16, stopper: Stopper) -> (Arc<Shared>, Vec<BoundPort>) {
        let config = config(folder, shard_count, 0);
        let work = &config.service.work_directory;
        let home = Home::open(work, crate::config::NodeId(None)).unwrap();
        let words = known::words(home.folder()).unwrap();
        let bound = bind(&config, shard_count).unwrap();
        let shared = Shared {
            volumes: open_volumes(&config, shard_count, &words).unwrap(),
            words,
            shard_count,
            node_id: home.node_id,
            identity: SourceIdentity::take(work, home.node_id, Clock::real().wall_ms()).unwrap(),
            identity_told: AtomicBool::new(false),
            boot: 1,
            version_floor: Lut::ZERO,
            ports: bound.iter().map(|port| port.local_addr().port()).collect(),
            connections_max: 10,
            config,
            stopper,
            clock_told: AtomicBool::new(false),
        };
        (Arc::new(shared), bound)
    }

    #[test]
    fn a_stop_in_the_middle_of_a_cold_start_ends_it_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let (stop, StopOrders { stopper, mut shipping }) = stopper();
        let (shared, mut bound) = shared(folder.path(), 2, stopper);
        let mut peers = cold_start::peers(2);
        let (started, starts) = mpsc::channel();
        let (sender, give_up) = mailbox(1).unwrap();
        // The other shard is there and has read nothing yet: this one waits for it.
        let parts = ShardParts {
            shard: ShardIndex(0),
            memory_node: None,
            shared: Arc::clone(&shared),
            bound: bound.remove(0),
            doors: handover::doors(2).unwrap().remove(0),
            peer: peers.remove(0),
            seat: shipping.seats(2).unwrap().remove(0),
        };
        let spec = ShardSpec { index: 0, core: None, name: "shard-0".to_owned() };
        let thread = spawn_shard(spec, move || run_shard(parts, started, give_up)).unwrap();
        let mut shards = Shards { threads: vec![thread], give_up: vec![sender], starts };
        let mut read_all = |figures: Option<&ProgressFigures>| {
            let figures = figures.unwrap();
            if figures.blocks_wanted > 0 && figures.blocks_seen == figures.blocks_wanted {
                stop.stop();
            }
        };
        assert!(shards.await_start(&shared, &mut read_all).unwrap().is_none());
        let ended = shards.starts.recv_timeout(Duration::from_secs(20)).err();
        assert_eq!(ended, Some(mpsc::RecvTimeoutError::Disconnected), "its shard has ended");
        drop(peers);
    }

    #[test]
    fn shards_that_have_started_give_up_too_as_long_as_they_do_not_serve() {
        const SHARDS: u16 = 3;
        let folder = tempfile::tempdir().unwrap();
        let (_, StopOrders { stopper, mut shipping }) = stopper();
        let (shared, bound) = shared(folder.path(), SHARDS, stopper);
        let plan = plan(&shared.config, SHARDS.into());
        let shards = Shards::start(&shared, &plan, bound, &mut shipping);
        for _ in 0..SHARDS {
            shards.starts.recv().unwrap().unwrap();
        }
        for shard in &shards.give_up {
            shard.push(()).unwrap();
        }
        for thread in shards.threads {
            assert!(thread.join_within(Duration::from_secs(20)).is_some());
        }
    }

    #[test]
    fn a_shard_that_cannot_start_ends_the_others_and_is_the_one_blamed() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path(), 1, 0);
        let mut plan = plan(&config, 3);
        plan.shards[1].cpu = 100_000;
        let (_, orders) = stopper();
        let error = run(config, &plan, orders, &mut |_| {}).unwrap_err().to_string();
        assert!(error.contains("shard 1") && error.contains("100000"), "{error}");
        let is_left = |name: &str| {
            let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
            let names = tasks.flat_map(|task| std::fs::read_to_string(task.path().join("comm")));
            names.into_iter().any(|found| found.trim() == name)
        };
        // Another test of this process may run a shard of another number.
        assert!(!is_left("shard-2"), "no thread is left waiting");
    }

    #[test]
    fn a_clock_far_off_is_told_and_a_good_one_is_not() {
        let check = |wall_ms: u64, newest_ms: u64, words: Option<&str>| {
            let found = clock_trouble(wall_ms, Lut::from_unix_ms(newest_ms));
            match words {
                None => assert_eq!(found, None),
                Some(words) => assert!(found.is_some_and(|found| found.contains(words)), "{words}"),
            }
        };
        let today = 1_790_000_000_000;
        check(today, today - 1000, None);
        check(today, 0, None);
        check(today, today + 59_000, None);
        check(today - 3_600_000, today, Some("3600 s behind"));
        check(0, today, Some("behind the newest change"));
        check(0, 0, Some("before 2010"));
        check(2_400_000_000_000, today, Some("after 2044"));
    }

    #[test]
    fn what_a_start_found_is_told_in_words() {
        let report =
            ColdStartReport { blocks: 3, records: 40, cold: 1, ..ColdStartReport::default() };
        assert_eq!(told(&report), "from the log: 40 versions of records read in 3 blocks");
        let warm = ColdStartReport { warm: 1, cold: 0, ..report };
        assert_eq!(told(&warm), "from its checkpoint: 40 records");
        let both = ColdStartReport { warm: 2, ..report };
        let text = told(&both);
        assert!(text.starts_with("2 namespaces from checkpoints, 1 from the log: 40"), "{text}");
        let torn = ColdStartReport { open_blocks: 1, torn_records: 2, ..report };
        let text = told(&torn);
        assert!(text.contains("; 1 blocks were open") && text.contains("; 2 records were torn"));
    }

    #[test]
    fn a_port_that_is_taken_stops_the_start_and_says_what_to_do() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path(), 1, taken.local_addr().unwrap().port());
        let plan = plan(&config, 1);
        let (_, orders) = stopper();
        let error = run(config, &plan, orders, &mut |_| {}).unwrap_err().to_string();
        assert!(error.contains("ss -ltnp") && error.contains("another `port`"), "{error}");
        assert!(!folder.path().join("test.dat").exists(), "nothing was formatted");
    }

    #[test]
    fn ports_behind_the_last_one_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path(), 0, 65_534);
        let plan = plan(&config, 3);
        let (_, orders) = stopper();
        let error = run(config, &plan, orders, &mut |_| {}).unwrap_err().to_string();
        assert!(error.contains("port 65534 and 3 shards"), "{error}");
    }

    #[test]
    fn ports_are_told_by_the_ends_of_each_row() {
        assert_eq!(in_words(&[3000]), "port 3000");
        assert_eq!(in_words(&[3000, 3001, 3002]), "ports 3000 to 3002");
        assert_eq!(in_words(&[4001, 4000, 65_535]), "ports 4001, 4000, 65535");
    }
}
