//! One DC on one shard, as its tasks and the control loop have it: its engine, what wakes whom, and
//! what is told of it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll};

use crate::config::{DcConfig, DcNamespaceConfig};
use crate::dest::{Cluster, Patience, Resolver, Setup, ShipperIdentity, Source, TendSpec, Window};
use crate::host::{Hole, Host, Mark};
use crate::limits::DRAIN_MS;
use crate::model::{Change, DcIndex, Digest, Lut, NamespaceId, PartitionId, SrcId, Tick};
use crate::ship::mutation::{Mutation, planted};
use crate::ship::{self, Admission, Now};
use longship_rt::clock::Clock;
use longship_rt::event::Event;

use super::batch_memory::{BatchBuffer, BatchMemory, Share};
use super::control::{Left, Notice};
use super::drain::Outlook;
use super::follow::Hold;
use super::letters::Letter;
use super::positions::Beginning;
use super::steps::{Budget, DcEngine, DcReport, DcSeed, Look, Next, Shippers};

/// What every DC of a shard is made from.
pub(crate) struct DcContext<H> {
    pub(crate) host: Rc<RefCell<H>>,
    pub(crate) memory: BatchMemory,
    pub(crate) clock: Clock,
    pub(crate) resolver: Rc<dyn Resolver>,
    /// To the control loop.
    pub(crate) notices: mpsc::Sender<Notice>,
    pub(crate) shard: u16,
    pub(crate) shard_count: u16,
    /// Names of the namespaces, indexed by [`NamespaceId`].
    pub(crate) namespaces: Rc<[String]>,
    /// This shard, as hellos say it.
    pub(crate) source: Rc<Source>,
    /// Who ships here.
    pub(crate) shippers: Rc<Shippers>,
    /// Set when letters leave: they are gone with the next checkpoint.
    pub(crate) letters_leave: Event,
    /// A stop waits for what is left to ship.
    pub(crate) drains: Cell<bool>,
    /// Set then, when a DC has nothing left.
    pub(crate) all_shipped: Event,
}

impl<H> DcContext<H> {
    /// Both clocks, read once per turn of a loop.
    pub(crate) fn now(&self) -> Now {
        Now { tick: Tick(self.clock.now()), wall: Lut::of_clock(self.clock.wall_ms()) }
    }

    fn namespace_id(&self, name: &str) -> Option<NamespaceId> {
        let index = self.namespaces.iter().position(|known| known == name)?;
        Some(NamespaceId(u8::try_from(index).expect("config bounds namespaces to 32")))
    }
}

/// One DC on one shard.
pub(crate) struct Dc<H: Host> {
    pub(crate) index: DcIndex,
    context: Rc<DcContext<H>>,
    pub(crate) config: RefCell<Arc<DcConfig>>,
    /// All that moves a change.
    engine: RefCell<DcEngine<H, Cluster<BatchBuffer>>>,
    /// Where it ships to; the engine has the same one.
    pub(crate) cluster: Cluster<BatchBuffer>,
    /// Memory for its batches.
    memory: Rc<Share>,
    /// Wakes the DC task.
    pub(super) bell: Event,
    /// Wakes the service task.
    pub(super) service_bell: Event,
    /// Wakes the recovery task.
    pub(super) recovery_bell: Event,
    /// Whether a write wakes the DC task at once.
    doorbell: Cell<bool>,
    /// Duration of the last lap that shipped something, in microseconds.
    lap_us: Cell<u64>,
    /// Its tasks end when they see it.
    ended: Cell<bool>,
}

impl<H: Host> Dc<H> {
    pub(crate) fn new(
        index: DcIndex,
        config: Arc<DcConfig>,
        src_id: SrcId,
        context: Rc<DcContext<H>>,
        hold: Hold,
    ) -> Rc<Self> {
        let bell = Event::new();
        let limits = ship::Limits {
            recoveries_interleaved: config.max_recoveries_interleaved,
            ..ship::Limits::default()
        };
        let cluster = Cluster::start(Setup {
            spec: spec(&context, &config),
            identity: ShipperIdentity {
                source: Rc::clone(&context.source),
                src_id,
                dc: config.name.clone(),
            },
            window: Window::default(),
            patience: Patience::default(),
            resolver: Rc::clone(&context.resolver),
            wake: bell.clone(),
        });
        let engine = DcEngine::new(DcSeed {
            index,
            name: config.name.clone(),
            namespaces: context.namespaces.clone(),
            shard: context.shard,
            shard_count: context.shard_count,
            limits,
            src_id,
            hold,
            shippers: Rc::clone(&context.shippers),
            destination: cluster.clone(),
        });
        Rc::new(Self {
            index,
            engine: RefCell::new(engine),
            cluster,
            memory: context.memory.share(),
            bell,
            service_bell: Event::new(),
            recovery_bell: Event::new(),
            doorbell: Cell::new(config.doorbell),
            lap_us: Cell::new(0),
            ended: Cell::new(false),
            config: RefCell::new(config),
            context,
        })
    }

    /// Takes a changed configuration: attaches, detaches and changes namespaces.
    pub(crate) fn configure(&self, config: Arc<DcConfig>, starts: &[(NamespaceId, Beginning)]) {
        self.cluster.configure(spec(&self.context, &config));
        self.doorbell.set(config.doorbell);
        let mut engine = self.engine.borrow_mut();
        engine.configure(&*self.context.host.borrow(), &config, starts, self.context.now());
        *self.config.borrow_mut() = config;
        self.bell.set();
    }

    /// Takes a changed identity of this cluster: connections are opened anew to say it.
    pub(crate) fn set_src_id(&self, src_id: SrcId) {
        self.engine.borrow_mut().set_src_id(src_id);
    }

    /// Takes one change of a record.
    #[inline]
    pub(crate) fn submit(&self, change: &Change, set: &str, now: Now) {
        let clock = || Tick(self.context.clock.now());
        let admission = self.engine.borrow_mut().submit(change, set, now, clock);
        let is_news = matches!(admission, Admission::Queued | Admission::Overflowed);
        if is_news && self.doorbell.get() {
            self.bell.set();
        }
    }

    /// Changes of a lane with LUTs `from..=to` were made but could not be submitted: they are left to
    /// its recovery.
    pub(crate) fn missed(
        &self,
        namespace: NamespaceId,
        partition: PartitionId,
        from: Lut,
        to: Lut,
    ) {
        self.engine.borrow_mut().missed(namespace, partition, from, to);
        self.recovery_bell.set();
    }

    /// Numbers of sets will name other sets from the next change on.
    pub(crate) fn forget_sets(&self, namespace: NamespaceId) {
        self.engine.borrow_mut().forget_sets(namespace);
    }

    /// A hint that changes of these records are submitted soon.
    pub(crate) fn prefetch_lanes(&self, namespace: NamespaceId, digests: &[Digest]) {
        self.engine.borrow().prefetch_lanes(namespace, digests);
    }

    /// The second half of [`Self::prefetch_lanes`], once the lanes have come.
    pub(crate) fn prefetch_tails(&self, namespace: NamespaceId, digests: &[Digest]) {
        self.engine.borrow().prefetch_tails(namespace, digests);
    }

    /// One step of the DC task.
    pub(super) fn decide(&self) -> Next {
        let now = self.context.now();
        let host = self.context.host.borrow();
        let decided = self.engine.borrow_mut().decide(&*host, now, &Budget::default());
        drop(host);
        if decided.dispatched > 0 {
            self.lap_us.set(self.context.clock.now().saturating_sub(now.tick.0));
        }
        self.tell_news();
        if self.engine.borrow().rules().has_gaps() {
            self.recovery_bell.set();
        }
        if self.context.drains.get() && self.engine.borrow().rules().has_shipped_all() {
            self.context.all_shipped.set();
        }
        // There is work, or a socket became free.
        if !planted(Mutation::BellUnrung) {
            self.service_bell.set();
        }
        decided.next
    }

    /// One step of the service task. True when there is more to do at once.
    pub(super) fn serve(&self) -> bool {
        let now = self.context.now();
        let memory = |bytes| self.memory.take(bytes);
        let mut host = self.context.host.borrow_mut();
        let mut engine = self.engine.borrow_mut();
        let served = engine.serve(&mut *host, &memory, now, &Budget::default());
        if served.news {
            self.bell.set();
        }
        served.more
    }

    /// Takes in finished reads, and has begun ones submitted.
    pub(super) fn poll_reads(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut host = self.context.host.borrow_mut();
        self.engine.borrow_mut().poll_reads(&mut *host, cx)
    }

    /// Gives up what has been read. True while more is on its way.
    pub(super) fn drop_reads(&self) -> bool {
        self.engine.borrow_mut().drop_reads()
    }

    /// Opens a walk where lanes have gaps.
    pub(super) fn begin_walk(&self) {
        let mut host = self.context.host.borrow_mut();
        self.engine.borrow_mut().begin_walk(&mut *host, self.context.now());
    }

    /// One step of each open walk.
    pub(super) fn step_walks(&self, cx: &mut Context<'_>) -> Look {
        let mut host = self.context.host.borrow_mut();
        self.engine.borrow_mut().step_walks(&mut *host, cx)
    }

    /// Closes the walks that are open.
    pub(super) fn close_walks(&self) {
        let mut host = self.context.host.borrow_mut();
        self.engine.borrow_mut().close_walks(&mut *host);
    }

    /// Whether lanes have gaps.
    pub(super) fn has_gaps(&self) -> bool {
        self.engine.borrow().rules().has_gaps()
    }

    /// So many milliseconds from now, in microseconds of the clock.
    pub(super) fn in_ms(&self, ms: u64) -> u64 {
        self.context.clock.now() + ms * 1000
    }

    /// Passes on what the control loop, which keeps the letters, is to be told.
    pub(crate) fn tell_news(&self) {
        let all = self.engine.borrow_mut().take_news();
        for notice in all {
            if matches!(notice, Notice::LettersOutdated { .. } | Notice::ReplaySettled { .. }) {
                self.context.letters_leave.set();
            }
            self.context.notices.send(notice).expect("the control loop outlives the shards");
        }
    }

    /// Takes what became of letters.
    pub(crate) fn buried(&self, slots: &[(u32, bool)], refusal: Option<String>) {
        self.engine.borrow_mut().buried(slots, refusal, self.context.now());
        self.bell.set();
    }

    /// Takes what the destination lacks.
    pub(crate) fn set_holes(&self, holes: Arc<[(NamespaceId, Hole)]>) {
        self.engine.borrow_mut().set_holes(holes);
    }

    /// Takes letters of this DC that were kept before.
    pub(crate) fn letters_kept(&self, namespace: NamespaceId, records: &[(Digest, Lut)]) {
        self.engine.borrow_mut().letters_kept(namespace, records);
    }

    /// Takes up changes that were given up.
    pub(crate) fn replay(&self, namespace: NamespaceId, letters: &[Letter]) {
        let (host, now) = (self.context.host.borrow(), self.context.now());
        self.engine.borrow_mut().replay(&*host, namespace, letters, now);
        drop(host);
        self.tell_news();
        self.bell.set();
    }

    /// Positions of this shard's lanes that are safe to persist.
    pub(crate) fn marks(&self, out: &mut Vec<Mark>) {
        self.engine.borrow().marks(out);
    }

    /// Brings LSTs and marks up to date, all at once, and tells what that settles.
    pub(crate) fn sweep_now(&self) {
        self.engine.borrow_mut().sweep_now(&*self.context.host.borrow());
        self.tell_news();
    }

    /// Letters leave by the positions of a namespace that are taken now.
    pub(super) fn take_left(&self, namespace: NamespaceId) {
        self.engine.borrow_mut().take_left(namespace);
        self.tell_news();
    }

    /// Letters that leave with the positions taken last.
    pub(super) fn left(&self, namespace: NamespaceId) -> Option<Left> {
        self.engine.borrow().left(namespace)
    }

    /// What a stop would wait for.
    pub(super) fn outlook(&self) -> Outlook {
        self.engine.borrow().outlook()
    }

    /// Ends its tasks and closes the connections, one that owes answers after [`DRAIN_MS`].
    pub(crate) fn end(&self) {
        self.ended.set(true);
        self.cluster.stop(DRAIN_MS);
        self.bell.set();
        self.service_bell.set();
        self.recovery_bell.set();
    }

    /// Until when it ships nothing for what may still arrive from dead connections.
    #[cfg(test)]
    pub(super) fn held_until(&self) -> Tick {
        self.engine.borrow().rules().held_until()
    }

    /// Whether its tasks are to end.
    pub(super) fn is_ended(&self) -> bool {
        self.ended.get()
    }

    /// What it shows of itself.
    pub(crate) fn report(&self, marks_refused: &Option<String>) -> DcReport {
        let now = self.context.now();
        let clock = Lut::from_unix_ms(self.context.clock.wall_ms());
        let host = self.context.host.borrow();
        let report = self.engine.borrow().report(&*host, now, clock, marks_refused);
        DcReport { lap_us: self.lap_us.get(), ..report }
    }
}

fn spec<H>(context: &DcContext<H>, config: &DcConfig) -> TendSpec {
    let remote = |ns: &DcNamespaceConfig| {
        let id = context.namespace_id(&ns.name)?;
        Some((id, ns.remote_name().to_owned()))
    };
    TendSpec {
        seeds: config.seeds.clone(),
        alternate_addresses: false,
        namespaces: config.namespaces.iter().filter_map(remote).collect(),
    }
}
