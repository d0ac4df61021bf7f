//! A node from its configuration to its end: folders and devices, shards, ports, the control loop,
//! and the way down.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use tracing::{error, info, warn};

use crate::config::{Config, LiveNamespaces};
use crate::engine::{Control, ControlSeed, EngineSeed, Notice, Order, Phase, ShardEngine};
use crate::host::{CheckpointStore, StoreError};
use crate::info::Admin;
use crate::model::{Lut, ShardIndex, SrcId, Tick};
use crate::rt::arena::{Arena, ArenaError};
use crate::rt::clock::Clock;
use crate::rt::disk_ring::{DiskRing, RingError};
use crate::rt::mailbox::{Full, Receiver, Sender, mailbox};
use crate::rt::net::Listener;
use crate::rt::placement::{Plan, ShardPlace};
use crate::rt::shard::{Queue, ShardError, ShardSpec, ShardThread, spawn, spawn_shard};
use crate::storage::admit::Words;
use crate::storage::cold_start::{self, Peer};
use crate::storage::device::DeviceError;
use crate::storage::marks::MarksFile;
use crate::storage::progress::ProgressFigures;
use crate::storage::store::{self, OpenError, SharedStore, Store, StoreParts, arena_bytes};
use crate::storage::volume::Volume;
use crate::storage::zero::Zeroing;
use crate::storage::{flush, known};

use super::execute::Records;
use super::handover::{self, Doors};
use super::hello::Fence;
use super::home::{Home, HomeError, random_u64};
use super::info::Identity;
use super::server::{Connections, Greeting, Limits, Server};

/// Orders of the control loop that may wait at one shard.
const ORDERS_MAX: usize = 1024;
/// Memory for batches on one shard; touched only as far as it is used.
const BATCH_ARENA_BYTES: usize = 256 << 20;
/// Operations in a disk ring.
const DISK_RING_DEPTH: u32 = 512;

/// Why a node did not start, or did not end cleanly.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The work directory cannot be used.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// A device is not usable.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A port is not to be had.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's answer.
        source: io::Error,
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
    /// A log had failed before the stop.
    #[error("stopped, but a log had failed: what it acknowledged last is not on its device")]
    NotDurable,
}

/// How often whoever waits for the start hears of it.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// Runs a node until `notices` brings [`Notice::Stop`]. While storage is being opened,
/// `on_progress` hears ten times a second how far that has got, and `None` when it is done.
///
/// # Errors
/// It did not start, its last marks could not be stored, or something acknowledged did not reach its
/// device.
pub fn run(
    config: Config,
    plan: &Plan,
    (notices, inbox): (mpsc::Sender<Notice>, mpsc::Receiver<Notice>),
    on_progress: &mut dyn FnMut(Option<&ProgressFigures>),
) -> Result<(), NodeError> {
    let shard_count = plan.shards.len() as u16;
    plan.warnings.iter().for_each(|warning| warn!("placement: {warning}"));
    let home = Home::open(&config.service.work_directory, config.service.node_id)?;
    let mut store = Box::new(MarksFile::new(home.path("marks")));
    let version_floor = highest_mark(&mut *store)?;
    let words = known::words(home.folder()).map_err(home.failed("read", "accepted"))?;
    let volumes = open_volumes(&config, shard_count, &words)?;
    let listeners = listen(&config, shard_count)?;
    let ports: Vec<u16> = listeners.iter().map(|(_, address)| address.port()).collect();
    let shared = Arc::new(Shared {
        node_id: home.node_id,
        boot: random_u64(),
        version_floor,
        ports: ports.clone(),
        config,
        volumes,
        shard_count,
    });

    let (started, starts) = mpsc::channel();
    let mut order_senders = Vec::new();
    let mut threads: Vec<ShardThread> = Vec::new();
    let doors = handover::doors(shard_count).map_err(NodeError::Mailbox)?;
    let peers = cold_start::peers(shard_count);
    let parts = listeners.into_iter().zip(doors).zip(peers).zip(&plan.shards).enumerate();
    for (index, ((((listener, _), doors), peer), place)) in parts {
        let (sender, orders) = mailbox(ORDERS_MAX).map_err(NodeError::Mailbox)?;
        order_senders.push(sender);
        let shard = ShardIndex(index as u16);
        let parts = ShardParts {
            shard,
            memory_node: place.memory_node,
            shared: Arc::clone(&shared),
            listener,
            doors,
            peer,
            orders,
            notices: notices.clone(),
            started: started.clone(),
        };
        let ShardPlace { cpu, cpu_reason, node_reason, .. } = place;
        info!(shard = shard.0, cpu, "placed: {cpu_reason}; {node_reason}");
        let spec = ShardSpec { index: shard.0, core: Some(*cpu), name: format!("shard-{index}") };
        threads.push(spawn_shard(spec, move || run_shard(parts))?);
    }
    drop(started);
    plan.keep_off_shards();
    let _zeroing = Zeroing::start(&shared.volumes);
    for _ in 0..shard_count {
        // A shard that fails to start says why; the others wait for it, so end here.
        await_start(&starts, &shared.volumes, on_progress)?;
    }
    on_progress(None);
    known::forget_words(home.folder()).map_err(home.failed("remove", "accepted"))?;

    let seed = ControlSeed {
        xdr: shared.config.xdr.clone(),
        namespaces: shared.config.namespaces.clone(),
        store,
        letters: home.path("letters"),
        wall,
    };
    let tell = Arc::new(move |shard: ShardIndex, order| {
        push(&order_senders[usize::from(shard.0)], order);
    });
    let control = Control::start(seed, usize::from(shard_count), tell)?;
    let home = Rc::new(home);
    let publisher = Rc::clone(&home);
    let on_serving = move || {
        info!(node_id = %format_args!("{:X}", publisher.node_id), ?ports, "serving clients");
        if let Err(error) = publisher.publish_ports(&ports) {
            error!("{error}: whoever waits for that file waits in vain");
        }
    };
    let ended = control.run(&inbox, on_serving);
    threads.into_iter().for_each(ShardThread::join);
    home.withdraw_ports();
    if !ended? {
        return Err(NodeError::NotDurable);
    }
    info!("stopped");
    Ok(())
}

/// Waits for the next shard to have started.
fn await_start(
    starts: &mpsc::Receiver<Result<(), NodeError>>,
    volumes: &[Arc<Volume>],
    on_progress: &mut dyn FnMut(Option<&ProgressFigures>),
) -> Result<(), NodeError> {
    loop {
        match starts.recv_timeout(PROGRESS_EVERY) {
            Ok(started) => return started,
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                unreachable!("each shard says how its start went")
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                let figures = volumes.iter().map(|volume| volume.progress.figures());
                let figures = figures.fold(ProgressFigures::default(), ProgressFigures::plus);
                on_progress(Some(&figures));
            }
        }
    }
}

/// Orders are few and a mailbox is large: a full one means a shard that is busy. Wait for it. A
/// shard that has ended needs no orders.
fn push(shard: &Sender<Order>, order: Order) {
    let mut order = order;
    while let Err(Full(back)) = shard.push(order) {
        if shard.is_closed() {
            return;
        }
        order = back;
        std::thread::yield_now();
    }
}

/// The highest position a lane was told to be settled below: a write with a lower LUT, by a clock
/// that was set back, would never ship. Damaged marks say nothing; the control loop reports them.
fn highest_mark(store: &mut impl CheckpointStore) -> Result<Lut, StoreError> {
    match store.load() {
        Ok(marks) => {
            let lanes = marks.unwrap_or_default().lanes;
            Ok(lanes.iter().map(|mark| mark.lst).max().unwrap_or(Lut::ZERO))
        }
        Err(StoreError::Corrupt { .. }) => Ok(Lut::ZERO),
        Err(error) => Err(error),
    }
}

fn wall() -> Lut {
    Lut::from_unix_ms(Clock::real().wall_ms())
}

/// What all shards are made from.
struct Shared {
    config: Config,
    volumes: Vec<Arc<Volume>>,
    shard_count: u16,
    node_id: u64,
    boot: u64,
    /// Versions issued from now on are above it.
    version_floor: Lut,
    ports: Vec<u16>,
}

/// What one shard is made from.
struct ShardParts {
    shard: ShardIndex,
    memory_node: Option<u32>,
    shared: Arc<Shared>,
    listener: TcpListener,
    doors: Doors,
    peer: Peer,
    orders: Receiver<Order>,
    notices: mpsc::Sender<Notice>,
    started: mpsc::Sender<Result<(), NodeError>>,
}

async fn run_shard(parts: ShardParts) {
    let started = parts.started.clone();
    let deadline_ms = u64::from(parts.shared.config.service.stop_deadline_ms);
    let shard = match Running::start(parts).await {
        Ok(running) => running,
        Err(error) => {
            let _ = started.send(Err(error));
            return;
        }
    };
    let _ = started.send(Ok(()));
    drop(started);
    shard.serve(deadline_ms).await;
}

/// One shard that serves.
struct Running {
    engine: ShardEngine<Store>,
    server: Rc<Server<ShardEngine<Store>>>,
    listener: Listener,
    store: SharedStore,
    clock: Clock,
}

impl Running {
    async fn start(parts: ShardParts) -> Result<Self, NodeError> {
        let ShardParts {
            shard, memory_node, shared, listener, doors, peer, orders, notices, ..
        } = parts;
        let clock = Clock::real();
        let store = open_store((shard, memory_node), &shared, peer, &clock).await?;
        let namespaces = LiveNamespaces::new(&shared.config.namespaces);
        let engine = ShardEngine::start(EngineSeed {
            host: Rc::clone(&store),
            arena: Arena::new(BATCH_ARENA_BYTES, memory_node)?,
            clock: clock.clone(),
            shard,
            shard_count: shared.shard_count,
            namespaces: namespaces.clone(),
            configure: Store::configure,
            origin: shared.node_id,
            src_id: SrcId(shared.config.xdr.src_id),
            orders,
            notices,
        });
        let engine = engine.map_err(NodeError::Mailbox)?;
        let config = &shared.config;
        let records = Rc::new(Records::new(
            (shard, shared.shard_count),
            namespaces,
            Rc::clone(&store),
            engine.clone(),
            clock.clone(),
        ));
        spawn(Queue::Disk, Rc::clone(&records).publish());
        let server = Rc::new(Server {
            identity: Identity::of(config, shared.node_id, shard, shared.ports.clone()),
            desk: handover::open(shard, doors, &records).map_err(NodeError::Mailbox)?,
            records,
            fence: Rc::new(Fence::default()),
            greeting: Greeting::of(config, shared.boot),
            ask: Box::new(Admin::new(engine.clone(), config.clone())),
            limits: Limits::of(config, shared.shard_count),
            connections: Connections::default(),
        });
        let listener = Listener::adopt(listener).map_err(|source| NodeError::Listen {
            address: SocketAddr::new(config.network.address, shared.ports[usize::from(shard.0)]),
            source,
        })?;
        Ok(Self { engine, server, listener, store, clock })
    }

    /// Takes requests until it is ordered to stop; then answers what was asked, ships what is left,
    /// and makes everything durable. Other shards hand requests over until none takes any more.
    async fn serve(self, deadline_ms: u64) {
        let Self { engine, server, listener, store, clock } = self;
        engine.reached(Phase::Serving).await;
        spawn(Queue::Sockets, Rc::clone(&server).listen(listener));
        engine.reached(Phase::Stopping).await;
        let deadline = Tick(clock.now()).plus_ms(deadline_ms);
        server.connections.stop(deadline).await;
        engine.quiet();
        engine.reached(Phase::Finishing).await;
        let marks = engine.drain(deadline).await;
        let durable = flush::stop(&store).await;
        engine.stopped(marks, durable);
    }
}

async fn open_store(
    (shard, memory_node): (ShardIndex, Option<u32>),
    shared: &Shared,
    peer: Peer,
    clock: &Clock,
) -> Result<SharedStore, NodeError> {
    let namespaces = &shared.config.namespaces;
    let arena = Arena::new(arena_bytes(namespaces, shared.shard_count), memory_node)?;
    let ring = DiskRing::new(DISK_RING_DEPTH, &arena)?;
    spawn(Queue::Disk, ring.clone().drive());
    let parts = StoreParts {
        shard,
        namespaces: namespaces.iter().cloned().zip(shared.volumes.iter().cloned()).collect(),
        ring,
        arena,
        peer,
        clock: clock.clone(),
    };
    let (store, report) = Store::open(parts, shared.version_floor).await?;
    info!(shard = shard.0, ?report, "storage is open");
    store::start(&store);
    Ok(store)
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

/// One listener per shard: `port + shard`, or whatever is free when the port is 0.
fn listen(config: &Config, shard_count: u16) -> Result<Vec<(TcpListener, SocketAddr)>, NodeError> {
    let network = &config.network;
    let bind = |shard: u16| {
        let port = if network.port == 0 { 0 } else { network.port + shard };
        let address = SocketAddr::new(network.address, port);
        let bound = TcpListener::bind(address).and_then(|listener| {
            let bound = listener.local_addr()?;
            Ok((listener, bound))
        });
        bound.map_err(|source| NodeError::Listen { address, source })
    };
    (0..shard_count).map(bind).collect()
}
