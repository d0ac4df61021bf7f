//! Shipping on one shard: every DC there is, fed by the shard's writers and told by the control
//! loop.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, mpsc};

use tracing::info;

use crate::config::DcConfig;
use crate::dest::{Resolver, Resolving, Source, SourceId};
use crate::host::{Hole, Host, Mark};
use crate::limits::DRAIN_MS;
use crate::model::{
    Change, DcIndex, Digest, Lut, NamespaceId, PartitionId, ShardIndex, SrcId, Tick,
};
use crate::ship::{Limits, Now};
use longship_rt::arena::Arena;
use longship_rt::clock::Clock;
use longship_rt::event::Event;
use longship_rt::mailbox::{Inbox, Receiver};
use longship_rt::shard::{Queue, spawn};

use super::batch_memory::BatchMemory;
use super::command::Command;
use super::control::{Left, Notice, Order};
use super::dc::{Dc, DcContext};
use super::drain::Drain;
use super::files::{FileWait, SilenceLog};
use super::follow::{Dcs, Follower, FollowerSeed, Hold, LastWords, Phase, Piece};
use super::letters::Letter;
use super::positions::Beginning;
use super::steps::{DcReport, Shipper};
use super::{tasks, ticker};

/// Positions whose devices have followed wait so long for others.
const FLUSH_PATIENCE_MS: u64 = 2000;
/// How often marks are made durable. Source: `docs/behaviour.md` section 5.7.
const CHECKPOINT_MS: u64 = 30_000;
/// Letters that leave bring the next checkpoint forward: so long after the first of them.
const LETTERS_LEAVE_MS: u64 = 1000;
/// How often a checkpoint looks whether what it relies on is on the device. Asked and not told: of
/// a host that forgot to wake whoever waits, no position would ever be kept.
const FLUSH_LOOK_MS: u64 = 100;
/// How often the log gets its lines about shipping.
const TICKER_MS: u64 = 10_000;
/// How often the process looks whether the files that positions and letters go to answer.
const FILES_LOOK_MS: u64 = 1000;
/// How often a draining shard looks whether what is left still moves. That all is shipped it is told.
const DRAIN_LOOK_MS: u64 = 50;

/// What a shard's engine is started with.
pub struct EngineSeed<H> {
    /// The storage server, on this shard.
    pub host: Rc<RefCell<H>>,
    /// Memory for batches.
    pub arena: Arena,
    /// Time.
    pub clock: Clock,
    /// This shard.
    pub shard: ShardIndex,
    /// Shards of the process.
    pub shard_count: u16,
    /// Names of the namespaces, in order of their ids.
    pub namespaces: Rc<[String]>,
    /// This process, as a source.
    pub source: SourceId,
    /// Destinations have never seen it: what a former one has left on its way they would take.
    pub is_new_source: bool,
    /// This cluster's identity at the start.
    pub src_id: SrcId,
    /// From the control loop.
    pub orders: Receiver<Order>,
    /// To the control loop.
    pub notices: mpsc::Sender<Notice>,
    /// What that one waits for.
    pub files: FileWait,
}

/// A handle; clones are the same engine.
pub struct ShardEngine<H: Host>(Rc<Inner<H>>);

impl<H: Host> Clone for ShardEngine<H> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

struct Inner<H: Host> {
    context: Rc<DcContext<H>>,
    shard: ShardIndex,
    /// The DCs there are, in order of creation. Every write passes all of them.
    dcs: RefCell<Vec<Rc<Dc<H>>>>,
    line: ControlLine,
    now: Cell<Now>,
    follower: RefCell<Follower>,
    files: FileWait,
    phase_changed: Event,
}

impl<H: Host> ShardEngine<H> {
    /// Starts on the current shard: from now on it follows orders.
    ///
    /// # Errors
    /// The mailbox of orders could not be opened: no descriptor is left.
    pub fn start(seed: EngineSeed<H>) -> io::Result<Self> {
        let EngineSeed { host, arena, clock, shard, shard_count, namespaces, .. } = seed;
        let orders = seed.orders.open()?;
        let line = ControlLine::new(shard, seed.notices.clone());
        let context = Rc::new(DcContext {
            host,
            memory: BatchMemory::new(arena),
            clock,
            resolver: Rc::new(line.clone()),
            notices: seed.notices,
            shard: shard.0,
            shard_count,
            namespaces,
            source: Source::new(seed.source, shard.0),
            shippers: Rc::default(),
            letters_leave: Event::new(),
            drains: Cell::new(false),
            all_shipped: Event::new(),
        });
        let now = context.now();
        // Where nothing was ever written, nothing was ever shipped.
        let is_first = (0..context.namespaces.len())
            .all(|id| context.host.borrow().issued(NamespaceId(id as u8)) == Lut::ZERO);
        let follower = Follower::new(
            FollowerSeed {
                shard,
                shard_count,
                namespaces: context.namespaces.len(),
                src_id: seed.src_id,
                grace_ms: Limits::default().grace_ms.into(),
                closes_ms: DRAIN_MS,
                has_past: !is_first,
                is_new_source: seed.is_new_source,
            },
            now.tick,
        );
        let engine = Self(Rc::new(Inner {
            now: Cell::new(now),
            context,
            shard,
            dcs: RefCell::default(),
            line,
            follower: RefCell::new(follower),
            files: seed.files,
            phase_changed: Event::new(),
        }));
        spawn(Queue::Sockets, engine.clone().follow(orders));
        spawn(Queue::Background, engine.clone().checkpoint_for_ever());
        spawn(Queue::Background, engine.clone().tick_for_ever());
        if shard == ShardIndex(0) {
            spawn(Queue::Background, engine.clone().watch_files_for_ever());
        }
        Ok(engine)
    }

    /// Reads the clocks for the submissions that follow. Once per batch of writes.
    #[inline]
    pub fn note_time(&self) {
        self.0.now.set(self.0.context.now());
    }

    /// Takes one change, in the same step as its publication in the host's index.
    #[inline]
    pub fn submit(&self, change: &Change, set: &str) {
        let now = self.0.now.get();
        for dc in self.0.dcs.borrow().iter() {
            dc.submit(change, set, now);
        }
    }

    /// Changes of a lane with LUTs `from..=to` were made but could not be submitted: they are left to
    /// its recovery.
    pub fn missed(&self, namespace: NamespaceId, partition: PartitionId, from: Lut, to: Lut) {
        self.0.dcs.borrow().iter().for_each(|dc| dc.missed(namespace, partition, from, to));
    }

    /// Numbers of sets of a namespace will name other sets from the next change on.
    pub fn forget_sets(&self, namespace: NamespaceId) {
        self.0.dcs.borrow().iter().for_each(|dc| dc.forget_sets(namespace));
    }

    /// A hint that changes of these records are submitted soon: what that touches comes to the
    /// cache, of all of them and for all DCs at once.
    pub fn prefetch(&self, namespace: NamespaceId, digests: &[Digest]) {
        let dcs = self.0.dcs.borrow();
        dcs.iter().for_each(|dc| dc.prefetch_lanes(namespace, digests));
        dcs.iter().for_each(|dc| dc.prefetch_tails(namespace, digests));
    }

    /// Carries out a change of what ships where, in the whole process. Resolves once every shard
    /// has followed and what must be durable is, with `ok` and what the operator should know.
    ///
    /// # Errors
    ///
    /// What was wrong with it, for people; nothing has changed then.
    pub fn command(
        &self,
        command: Command,
    ) -> impl Future<Output = Result<String, String>> + 'static {
        self.0.line.clone().command(command)
    }

    /// The dead letters of this shard's partitions behind digest `after`, in order of their
    /// digests, at most `count`; and how many there are behind those.
    pub fn letters(
        &self,
        dc: &str,
        namespace: &str,
        after: Option<Digest>,
        count: usize,
    ) -> impl Future<Output = (Vec<Letter>, usize)> + 'static {
        let (dc, namespace) = (dc.to_owned(), namespace.to_owned());
        let line = self.0.line.clone();
        async move {
            let question =
                |shard, ticket| Notice::Letters { shard, ticket, dc, namespace, after, count };
            match line.ask(question).await {
                Answer::Letters(letters, more) => (letters, more),
                _ => unreachable!("letters are answered with letters"),
            }
        }
    }

    /// Figures of the DC of that name on this shard.
    pub fn report(&self, dc: &str) -> Option<DcReport> {
        let dcs = self.0.dcs.borrow();
        let found = dcs.iter().find(|known| known.config.borrow().name == dc)?;
        Some(self.report_of(found))
    }

    fn report_of(&self, dc: &Dc<H>) -> DcReport {
        let mut report = dc.report(self.0.follower.borrow().marks_refused());
        if let Some(silence) = self.0.files.silence(Tick(self.0.context.clock.now())) {
            let namespaces = report.namespaces.iter_mut().map(|namespace| &mut namespace.problem);
            let problems = namespaces.chain([&mut report.problem]);
            problems.for_each(|problem| *problem = Some(silence.to_string()));
        }
        report
    }

    /// The configuration of every DC, in order of creation.
    pub fn configs(&self) -> Vec<Arc<DcConfig>> {
        self.0.dcs.borrow().iter().map(|dc| dc.config.borrow().clone()).collect()
    }

    /// Names of the namespaces, in order of their ids.
    pub fn namespaces(&self) -> &[String] {
        &self.0.context.namespaces
    }

    /// This cluster's identity, as the control loop last told it.
    pub fn src_id(&self) -> SrcId {
        self.0.follower.borrow().src_id()
    }

    /// Another cluster ships here, as long as what this gives is kept.
    pub fn note_shipper(&self, shipper: Shipper) -> Rc<Shipper> {
        self.0.context.shippers.note(shipper)
    }

    /// Resolves when the control loop has ordered `phase` or a later one. One task waits.
    pub async fn reached(&self, phase: Phase) {
        while self.0.follower.borrow().phase() < phase {
            self.0.phase_changed.wait().await;
        }
    }

    /// Tells the control loop that this shard takes no more requests and has answered all it took.
    pub fn quiet(&self) {
        self.0.line.tell(Notice::Quiet);
    }

    /// Ships what is left and can move, until `deadline`, then ends every DC.
    pub async fn drain(&self, deadline: Tick) -> LastWords {
        let DcContext { clock, drains: is_draining, all_shipped, .. } = &*self.0.context;
        is_draining.set(true);
        let mut drains: HashMap<DcIndex, Drain> = HashMap::new();
        loop {
            let now = Tick(clock.now());
            let mut goes_on = false;
            for dc in self.0.dcs.borrow().iter() {
                let outlook = dc.outlook();
                let drain = drains.entry(dc.index).or_insert_with(|| Drain::begin(now, &outlook));
                goes_on |= drain.goes_on(now, &outlook);
            }
            if !goes_on || now >= deadline {
                break;
            }
            all_shipped.wait_until(clock.now() + DRAIN_LOOK_MS * 1000).await;
        }
        for dc in self.0.dcs.borrow().iter() {
            if let Some(left) = dc.outlook().left_in_words() {
                let name = &dc.config.borrow().name;
                let shard = self.0.shard.0;
                info!("DC {name}, shard {shard}: {left} are left to the next start");
            }
        }
        let last = self.0.follower.borrow().last_words(&mut Running(&self.0));
        self.0.dcs.borrow().iter().for_each(|dc| dc.end());
        last
    }

    /// All namespaces.
    pub fn namespace_ids(&self) -> Vec<NamespaceId> {
        (0..self.0.context.namespaces.len()).map(|index| NamespaceId(index as u8)).collect()
    }

    /// Tells the control loop that this shard has ended. Not all that was acknowledged of the
    /// `unflushed` namespaces is on their devices: their positions count no more, others' do.
    pub fn stopped(&self, last: LastWords, unflushed: &[NamespaceId]) {
        self.0.line.tell(last.notice(unflushed));
    }

    async fn follow(self, mut orders: Inbox<Order>) {
        let mut batch = Vec::new();
        while orders.wait().await.is_ok() {
            orders.drain(&mut batch, usize::MAX);
            for order in batch.drain(..) {
                self.obey(order);
            }
        }
    }

    fn obey(&self, order: Order) {
        let line = &self.0.line;
        let order = match order {
            Order::Answer { ticket, result } => {
                return line.answered(ticket, Answer::Command(result));
            }
            Order::Resolved { ticket, addresses } => {
                return line.answered(ticket, Answer::Addresses(addresses));
            }
            Order::Letters { ticket, letters, more } => {
                return line.answered(ticket, Answer::Letters(letters, more));
            }
            order => order,
        };
        let (mut follower, now) = (self.0.follower.borrow_mut(), self.0.context.now());
        let phase = follower.phase();
        let notice = follower.obey(order, &mut Running(&self.0), now);
        if follower.phase() > phase {
            self.0.phase_changed.set();
        }
        notice.into_iter().for_each(|notice| line.tell(notice));
    }

    #[cfg(test)]
    fn dc(&self, index: DcIndex) -> Option<Rc<Dc<H>>> {
        self.0.dc(index)
    }

    async fn checkpoint_for_ever(self) {
        let pause = Event::new();
        loop {
            let clock = &self.0.context.clock;
            if self.0.context.letters_leave.wait_until(clock.now() + CHECKPOINT_MS * 1000).await {
                pause.wait_until(clock.now() + LETTERS_LEAVE_MS * 1000).await;
            }
            if self.0.follower.borrow().awaits_answer() {
                continue;
            }
            let told = self.flushed_marks(&pause).await;
            self.0.line.tell(told);
        }
    }

    async fn watch_files_for_ever(self) {
        let (pause, mut log) = (Event::new(), SilenceLog::default());
        loop {
            let now = self.0.context.clock.now();
            log.look(self.0.files.silence(Tick(now)));
            pause.wait_until(now + FILES_LOOK_MS * 1000).await;
        }
    }

    /// Positions, once everything is on the devices that they rely on; those of namespaces whose device
    /// is slow come later.
    async fn flushed_marks(&self, pause: &Event) -> Notice {
        let late = self.0.context.clock.now() + FLUSH_PATIENCE_MS * 1000;
        loop {
            let is_late = self.0.context.clock.now() >= late;
            let mut running = Running(&self.0);
            let piece = self.0.follower.borrow_mut().checkpoint(&mut running, is_late);
            match piece {
                Piece::Told(notice) => return notice,
                Piece::Taken => {}
                Piece::Waits => {
                    let look = self.0.context.clock.now() + FLUSH_LOOK_MS * 1000;
                    pause.wait_until(look).await;
                }
            }
        }
    }

    async fn tick_for_ever(self) {
        let pause = Event::new();
        loop {
            pause.wait_until(self.0.context.clock.now() + TICKER_MS * 1000).await;
            for dc in self.0.dcs.borrow().iter() {
                let report = self.report_of(dc);
                let lines = ticker::lines(&dc.config.borrow().name, &report);
                lines.iter().for_each(|line| info!("{line}"));
            }
        }
    }
}

impl<H: Host> Inner<H> {
    fn dc(&self, index: DcIndex) -> Option<Rc<Dc<H>>> {
        self.dcs.borrow().iter().find(|dc| dc.index == index).cloned()
    }
}

/// The DCs of a shard, with their tasks.
struct Running<'a, H: Host>(&'a Inner<H>);

impl<H: Host> Running<'_, H> {
    /// Does something with a DC that there is.
    fn with<R>(&self, index: DcIndex, f: impl FnOnce(&Dc<H>) -> R) -> R {
        f(&self.0.dc(index).expect("asked of those there are"))
    }
}

impl<H: Host> Dcs for Running<'_, H> {
    type Host = H;

    fn with_host<R>(&mut self, f: impl FnOnce(&mut H) -> R) -> R {
        f(&mut self.0.context.host.borrow_mut())
    }

    fn all(&self) -> Vec<DcIndex> {
        self.0.dcs.borrow().iter().map(|dc| dc.index).collect()
    }

    fn has(&self, dc: DcIndex) -> bool {
        self.0.dc(dc).is_some()
    }

    fn make(&mut self, index: DcIndex, config: &Arc<DcConfig>, src_id: SrcId, hold: Hold) {
        let dc = Dc::new(index, Arc::clone(config), src_id, Rc::clone(&self.0.context), hold);
        spawn(Queue::Work, tasks::decide(Rc::clone(&dc)));
        spawn(Queue::Work, tasks::serve(Rc::clone(&dc)));
        spawn(Queue::Background, tasks::walk(Rc::clone(&dc)));
        self.0.dcs.borrow_mut().push(dc);
    }

    fn configure(
        &mut self,
        dc: DcIndex,
        config: Arc<DcConfig>,
        src_id: SrcId,
        starts: &[(NamespaceId, Beginning)],
    ) {
        self.with(dc, |dc| {
            dc.set_src_id(src_id);
            dc.configure(config, starts);
        });
    }

    fn sweep(&mut self, dc: DcIndex) {
        self.with(dc, |dc| dc.sweep_now());
    }

    fn marks(&self, dc: DcIndex, out: &mut Vec<Mark>) {
        self.with(dc, |dc| dc.marks(out));
    }

    fn take_left(&mut self, dc: DcIndex, namespace: NamespaceId) {
        self.with(dc, |dc| dc.take_left(namespace));
    }

    fn left(&self, dc: DcIndex, namespace: NamespaceId) -> Option<Left> {
        self.with(dc, |dc| dc.left(namespace))
    }

    fn end(&mut self, dc: DcIndex) {
        let mut dcs = self.0.dcs.borrow_mut();
        let place = dcs.iter().position(|known| known.index == dc);
        let gone = dcs.remove(place.expect("asked of those there are"));
        dcs.iter().for_each(|dc| dc.cluster.fence_off(&gone.cluster));
        gone.end();
    }

    fn buried(&mut self, dc: DcIndex, slots: &[(u32, bool)], refusal: Option<String>) {
        self.with(dc, |dc| dc.buried(slots, refusal));
    }

    fn letters_kept(&mut self, dc: DcIndex, namespace: NamespaceId, records: &[(Digest, Lut)]) {
        self.with(dc, |dc| dc.letters_kept(namespace, records));
    }

    fn replay(&mut self, dc: DcIndex, namespace: NamespaceId, letters: &[Letter]) {
        self.with(dc, |dc| dc.replay(namespace, letters));
    }

    fn set_holes(&mut self, dc: DcIndex, holes: Arc<[(NamespaceId, Hole)]>) {
        self.with(dc, |dc| dc.set_holes(holes));
    }
}

/// Questions to the control loop that wait for their answers. Clones ask for the same shard.
#[derive(Clone)]
struct ControlLine(Rc<Line>);

struct Line {
    shard: ShardIndex,
    notices: mpsc::Sender<Notice>,
    ticket_next: Cell<u64>,
    waiting: RefCell<HashMap<u64, Waiting>>,
}

#[derive(Default)]
struct Waiting {
    answered: Event,
    answer: Option<Answer>,
}

/// What a question is answered with.
enum Answer {
    Command(Result<String, String>),
    Addresses(Result<Vec<SocketAddr>, String>),
    Letters(Vec<Letter>, usize),
}

impl ControlLine {
    fn new(shard: ShardIndex, notices: mpsc::Sender<Notice>) -> Self {
        Self(Rc::new(Line {
            shard,
            notices,
            ticket_next: Cell::new(0),
            waiting: RefCell::default(),
        }))
    }

    fn tell(&self, notice: Notice) {
        self.0.notices.send(notice).expect("the control loop outlives the shards");
    }

    async fn ask(self, question: impl FnOnce(ShardIndex, u64) -> Notice) -> Answer {
        let ticket = self.0.ticket_next.get();
        self.0.ticket_next.set(ticket + 1);
        let waiting = Waiting::default();
        let answered = waiting.answered.clone();
        self.0.waiting.borrow_mut().insert(ticket, waiting);
        self.tell(question(self.0.shard, ticket));
        answered.wait().await;
        let waiting = self.0.waiting.borrow_mut().remove(&ticket);
        waiting.and_then(|waiting| waiting.answer).expect("the event is set with the answer")
    }

    fn answered(&self, ticket: u64, answer: Answer) {
        if let Some(waiting) = self.0.waiting.borrow_mut().get_mut(&ticket) {
            waiting.answer = Some(answer);
            waiting.answered.set();
        }
    }

    async fn command(self, command: Command) -> Result<String, String> {
        match self.ask(|shard, ticket| Notice::Command { shard, ticket, command }).await {
            Answer::Command(result) => result,
            _ => unreachable!("a command is answered with its result"),
        }
    }
}

impl Resolver for ControlLine {
    fn resolve(&self, host: &str, port: u16) -> Resolving {
        let (line, host) = (self.clone(), host.to_owned());
        Box::pin(async move {
            let question = |shard, ticket| Notice::Resolve { shard, ticket, host, port };
            match line.ask(question).await {
                Answer::Addresses(addresses) => addresses.map_err(io::Error::other),
                _ => unreachable!("a name is answered with its addresses"),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Tombstones;
    use super::*;
    use crate::config::DcNamespaceConfig;
    use crate::wire::hello::Key;
    use longship_rt::clock::ManualClock;
    use longship_rt::mailbox::mailbox;
    use longship_rt::shard::{ShardSpec, spawn_shard};

    const START_US: u64 = 7_000_000;
    const SECOND_US: u64 = 1_000_000;

    struct Bed {
        engine: ShardEngine<Tombstones>,
        host: Rc<RefCell<Tombstones>>,
        clock: ManualClock,
        notices: &'static mpsc::Receiver<Notice>,
        files: FileWait,
    }

    impl Bed {
        /// The control loop makes DCs, or with no name deletes them; gives how long each is held.
        fn make(&self, dc: u32, name: Option<&str>) -> Tick {
            let config = name.map(|name| (Arc::new(DcConfig::named(name)), SrcId::NONE));
            let dc = DcIndex(dc);
            self.engine.obey(Order::Dc { serial: 1, dc, config, starts: Vec::new() });
            assert!(matches!(self.notices.try_recv(), Ok(Notice::Followed { .. })));
            self.engine.dc(dc).map_or(Tick(0), |dc| dc.held_until())
        }
    }

    /// Runs `body` beside an engine on a shard of its own.
    fn on_a_shard(
        is_blank: bool,
        is_new_source: bool,
        body: impl AsyncFnOnce(Bed) + Send + 'static,
    ) {
        let spec = ShardSpec { index: 0, core: None, name: "engine".to_owned() };
        let run = move || async move {
            let clock = ManualClock::new(START_US, 0);
            let (_orders, orders) = mailbox(16).unwrap();
            let (told, notices) = mpsc::channel();
            // It outlives the shard, as the control loop does.
            let notices = Box::leak(Box::new(notices));
            let host = Tombstones { is_blank, ..Tombstones::default() };
            let host = Rc::new(RefCell::new(host));
            let key = Key::from_seed([7; 32]).unwrap();
            let files = FileWait::default();
            let engine = ShardEngine::start(EngineSeed {
                host: Rc::clone(&host),
                arena: Arena::new(4 << 20, None).unwrap(),
                clock: clock.clock(),
                shard: ShardIndex(0),
                shard_count: 1,
                namespaces: vec!["demo".to_owned()].into(),
                source: SourceId { key, process: 1, node: 1 },
                is_new_source,
                src_id: SrcId::NONE,
                orders,
                notices: told,
                files: files.clone(),
            });
            body(Bed { engine: engine.unwrap(), host, clock, notices, files }).await;
        };
        spawn_shard(spec, run).unwrap().join();
    }

    #[test]
    fn dcs_are_held_after_a_start_for_what_an_earlier_process_may_have_left_on_its_way() {
        let until = Tick(START_US + 15 * SECOND_US);
        for is_new_source in [false, true] {
            on_a_shard(false, is_new_source, async move |running| {
                let anyway = if is_new_source { until } else { Tick(0) };
                assert_eq!(
                    running.engine.0.follower.borrow().hold().anyway_until,
                    anyway,
                    "hello or not"
                );
                assert_eq!(running.make(0, Some("west")), until);
                running.clock.advance_us(5 * SECOND_US);
                assert_eq!(running.make(1, Some("east")), until, "no longer for being made later");
            });
        }
        on_a_shard(true, true, async |running| {
            assert_eq!(running.make(0, Some("west")), Tick(0), "nothing was ever written");
        });
    }

    #[test]
    fn dcs_are_held_after_one_was_deleted_for_what_it_may_have_left_on_its_way() {
        on_a_shard(true, false, async |running| {
            running.make(0, Some("west"));
            assert_eq!(running.make(1, Some("east")), Tick(0));
            running.clock.advance_us(100 * SECOND_US);
            running.make(0, None);
            // Its connections are cut at last after 5 s.
            let until = Tick(START_US + (100 + 5 + 15) * SECOND_US);
            running.clock.advance_us(SECOND_US);
            assert_eq!(running.make(2, Some("west")), until);
        });
    }

    #[test]
    fn a_clock_far_off_is_told_until_it_is_set() {
        on_a_shard(true, false, async |running| {
            running.make(0, Some("west"));
            let problem = || running.engine.report("west").unwrap().problem.unwrap();
            running.clock.set_wall_ms(Lut::CLOCK_MAX.plus_ms(1).unix_ms());
            let words =
                "the system clock says 2043-01-01T00h00m00.001s: it is not believed; set it";
            assert_eq!(problem(), words);
            running.clock.set_wall_ms(Lut::CLOCK_MAX.unix_ms());
            assert_eq!(problem(), "it has no node-address-port");
        });
    }

    #[test]
    fn reads_that_a_device_does_not_answer_are_a_problem_of_the_dcs_that_ship_them() {
        on_a_shard(true, false, async |running| {
            let [demo, none] = [vec![DcNamespaceConfig::named("demo")], Vec::new()];
            for (dc, namespaces) in [(0, demo), (1, none)] {
                let config = DcConfig { namespaces, ..DcConfig::named(&dc.to_string()) };
                let config = Some((Arc::new(config), SrcId::NONE));
                let (dc, starts) = (DcIndex(dc), Vec::new());
                running.engine.obey(Order::Dc { serial: 1, dc, config, starts });
            }
            let problems =
                || ["0", "1"].map(|dc| running.engine.report(dc).unwrap().problem.unwrap());
            let before = problems();
            running.host.borrow_mut().hanging.push(NamespaceId(0));
            assert_eq!(problems(), ["its device hangs", &before[1]]);
            running.host.borrow_mut().hanging.clear();
            assert_eq!(problems(), before);
        });
    }

    #[test]
    fn positions_that_cannot_be_stored_are_a_problem_until_they_are() {
        on_a_shard(true, false, async |running| {
            let seeds = vec![("127.0.0.1".to_owned(), 1)];
            let config = Arc::new(DcConfig { seeds, ..DcConfig::named("west") });
            let config = Some((config, SrcId::NONE));
            let dc = DcIndex(0);
            running.engine.obey(Order::Dc { serial: 1, dc, config, starts: Vec::new() });
            let problem = || running.engine.report("west").unwrap().problem;
            assert_eq!(problem(), None);
            let why = "cannot write marks; make room there".to_owned();
            running.engine.obey(Order::MarksRefused(Some(why)));
            let words = "cannot write marks; make room there; until they are stored";
            assert!(problem().unwrap().starts_with(words));
            running.engine.obey(Order::MarksRefused(None));
            assert_eq!(problem(), None);
        });
    }

    #[test]
    fn a_work_directory_that_does_not_answer_is_a_problem_of_every_dc_until_it_does() {
        on_a_shard(true, false, async |running| {
            running.make(0, Some("west"));
            let problem = || running.engine.report("west").unwrap().problem.unwrap();
            let before = problem();
            running.files.begin(Tick(START_US));
            running.clock.advance_us(4 * SECOND_US);
            assert_eq!(problem(), before);
            running.clock.advance_us(SECOND_US);
            let words = "the work directory has not answered for 5 s";
            assert!(problem().starts_with(words), "{}", problem());
            running.files.end();
            assert_eq!(problem(), before);
        });
    }

    #[test]
    fn a_dc_that_was_deleted_costs_writes_nothing_more() {
        on_a_shard(true, false, async |running| {
            for dc in 0..100 {
                running.make(dc, Some("west"));
                running.make(dc, None);
            }
            running.make(100, Some("west"));
            assert_eq!(running.engine.0.dcs.borrow().len(), 1, "every write passes all of them");
        });
    }
}
