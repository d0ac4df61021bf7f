//! One DC on one shard, as its tasks and the control loop have it: its engine, what wakes whom, and
//! what is told of it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::{Rc, Weak};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll};

use crate::config::{DcConfig, DcNamespaceConfig};
use crate::dest::{
    Cluster, Identity, NodeIndex, Patience, Resolver, Setup, Source, TendSpec, Window,
};
use crate::host::{Hole, Host, Mark};
use crate::model::{
    Change, DcIndex, Digest, Lut, NamespaceId, PartitionId, ShardIndex, SrcId, Tick,
};
use crate::ship::{self, Admission, LimitedBy, Now, Stats};
use longship_rt::clock::Clock;
use longship_rt::event::Event;
use longship_rt::metrics::HistogramSnapshot;

use super::batch_memory::{BatchBuffer, BatchMemory, Share};
use super::control::{Notice, Start};
use super::drain::Outlook;
use super::letters::Letter;
use super::steps::{Budget, DcEngine, DcSeed, Look, Next};
use super::trouble::Trouble;

/// How long a DC that was deleted waits for what it is owed.
pub(super) const DRAIN_MS: u64 = 5000;

/// A refused letter is asked for again sooner.
const LETTERS_REFUSED_MS: u64 = 8000;
/// Nothing being settled for so long is told, if nothing else tells why.
const STANDSTILL_S: u64 = 3;

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
    /// Why positions cannot be stored.
    pub(crate) marks_refused: RefCell<Option<String>>,
    /// Connections of sources without a `src-id`: the first node id of each one's process.
    pub(crate) nameless: RefCell<Vec<Weak<u64>>>,
}

impl<H> DcContext<H> {
    /// Both clocks, read once per turn of a loop.
    pub(crate) fn now(&self) -> Now {
        Now { tick: Tick(self.clock.now()), wall: Lut::of_clock(self.clock.wall_ms()) }
    }

    /// Node ids of the sources without a `src-id` that ship here now.
    fn nameless(&self) -> BTreeSet<u64> {
        self.nameless.borrow().iter().filter_map(Weak::upgrade).map(|node| *node).collect()
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
    /// What the control loop was told of last.
    troubles: RefCell<Vec<Trouble>>,
    /// How much was settled when it last grew, and when that was seen.
    settled: Cell<(u64, Tick)>,
    /// Answers of the destination when last looked at, and how many there were in the second before.
    answers: Cell<(u64, u64)>,
    /// When letters were last refused, and why.
    letters_refused: RefCell<Option<(Tick, String)>>,
    /// What the destination lacks, as its stores told.
    holes: RefCell<Arc<[(NamespaceId, Hole)]>>,
    /// Namespaces whose positions were lost, until they have recovered.
    lost: RefCell<Vec<NamespaceId>>,
    /// Whether a write wakes the DC task at once.
    doorbell: Cell<bool>,
    /// Duration of the last lap that shipped something, in microseconds.
    lap_us: Cell<u64>,
    /// Its tasks end when they see it.
    ended: Cell<bool>,
}

/// One DC on one shard, as statistics show it.
#[derive(Clone, Debug)]
pub struct DcReport {
    /// Counters and gauges, all namespaces together.
    pub total: Stats,
    /// The same for each attached namespace.
    pub namespaces: Vec<(String, Stats)>,
    /// Destination nodes that take batches.
    pub nodes: usize,
    /// Duration of the last lap that shipped something.
    pub lap_us: u64,
    /// What keeps it from shipping more.
    pub limited_by: LimitedBy,
    /// Answers of the destination in the last second, whatever they said.
    pub answers_per_s: u64,
    /// Why the destination is not reached, or a namespace is parked; for people.
    pub problem: Option<String>,
    /// From submission to acknowledgement, sampled, in microseconds.
    pub lag_us: HistogramSnapshot,
    /// When all this was so.
    pub now: Tick,
}

impl<H: Host> Dc<H> {
    pub(crate) fn new(
        index: DcIndex,
        config: Arc<DcConfig>,
        src_id: SrcId,
        context: Rc<DcContext<H>>,
        (held_until, held_anyway_until): (Tick, Tick),
    ) -> Rc<Self> {
        let bell = Event::new();
        let limits = ship::Limits {
            recoveries_interleaved: config.max_recoveries_interleaved,
            ..ship::Limits::default()
        };
        let cluster = Cluster::start(Setup {
            spec: spec(&context, &config),
            identity: Identity {
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
            held_until,
            held_anyway_until,
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
            troubles: RefCell::default(),
            settled: Cell::new((0, Tick(0))),
            answers: Cell::default(),
            letters_refused: RefCell::default(),
            holes: RefCell::new(Arc::new([])),
            lost: RefCell::default(),
            doorbell: Cell::new(config.doorbell),
            lap_us: Cell::new(0),
            ended: Cell::new(false),
            config: RefCell::new(config),
            context,
        })
    }

    /// Takes a changed configuration: attaches, detaches and changes namespaces.
    pub(crate) fn configure(&self, config: Arc<DcConfig>, starts: &[(NamespaceId, Start)]) {
        self.cluster.configure(spec(&self.context, &config));
        self.doorbell.set(config.doorbell);
        let mut engine = self.engine.borrow_mut();
        let is_lost = |(id, start): &&(NamespaceId, Start)| {
            matches!(start, Start::Oldest) && !engine.rules().is_attached(*id)
        };
        self.lost.borrow_mut().extend(starts.iter().filter(is_lost).map(|(id, _)| *id));
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
        if decided.is_second {
            self.look_for_trouble(now);
        }
        if self.engine.borrow().rules().has_gaps() {
            self.recovery_bell.set();
        }
        // There is work, or a socket became free.
        self.service_bell.set();
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
            self.context.notices.send(notice).expect("the control loop outlives the shards");
        }
    }

    /// Takes what became of letters.
    pub(crate) fn buried(&self, slots: &[(u32, bool)], refusal: Option<String>) {
        let now = self.context.now();
        if let Some(refusal) = refusal {
            self.letters_refused.replace(Some((now.tick, refusal)));
        }
        self.engine.borrow_mut().buried(slots, now);
        self.bell.set();
    }

    /// Takes what the destination lacks.
    pub(crate) fn set_holes(&self, holes: Arc<[(NamespaceId, Hole)]>) {
        self.holes.replace(holes);
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

    /// What a stop would wait for.
    pub(super) fn outlook(&self) -> Outlook {
        let engine = self.engine.borrow();
        let rules = engine.rules();
        let stats = rules.attached_ids().filter_map(|id| rules.stats(id));
        Outlook::new(stats, rules.limited_by(), self.cluster.nodes())
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
    pub(super) fn held_until(&self) -> Tick {
        self.engine.borrow().rules().held_until()
    }

    /// Whether its tasks are to end.
    pub(super) fn is_ended(&self) -> bool {
        self.ended.get()
    }

    pub(crate) fn report(&self) -> DcReport {
        let engine = self.engine.borrow();
        let rules = engine.rules();
        let name = |id: NamespaceId| self.context.namespaces[id.index()].clone();
        let namespaces = rules
            .attached_ids()
            .filter_map(|id| Some((name(id), rules.stats(id)?)))
            .collect::<Vec<_>>();
        let (now, total) = (self.context.now(), rules.dc_stats());
        let mut lost = self.lost.borrow_mut();
        lost.retain(|id| rules.stats(*id).is_some_and(|stats| stats.recoveries_pending > 0));
        let lost = lost.first().map(|id| {
            let name = name(*id);
            format!("the positions of namespace {name} were lost: everything ships again")
        });
        let hangs = rules.attached_ids().find_map(|id| self.context.host.borrow().reads_hang(id));
        let held_us = self.held_until().us_since(now.tick);
        let held = (held_us > 0 && self.cluster.nodes() > 0).then(|| {
            let left_s = held_us.div_ceil(1_000_000);
            format!(
                "ships nothing for {left_s} s: what an earlier process or DC left on its \
                 connections may still arrive"
            )
        });
        drop(engine);
        let troubles = self.troubles_now(now);
        let trouble = troubles.first().map(ToString::to_string);
        let (found, is_timed) = {
            let engine = self.engine.borrow();
            (engine.rules().limited_by(), engine.rules().holds_for_time())
        };
        let refuses = troubles
            .iter()
            .any(|trouble| !matches!(trouble, Trouble::Hole { .. } | Trouble::Echoes { .. }));
        let takes = self.cluster.nodes() > 0 && !refuses;
        let limited_by = limited_by(found, &total, takes, is_timed);
        let clock = Lut::from_unix_ms(self.context.clock.wall_ms());
        let far_off = (clock > Lut::CLOCK_MAX)
            .then(|| format!("the system clock says {}: it is not believed; set it", clock.utc()));
        let problem =
            far_off.or(hangs).or(trouble).or(held).or_else(|| self.cluster.problem()).or(lost);
        let (nodes, (_, settled_at)) = (self.cluster.nodes(), self.settled.get());
        let still_s = now.tick.us_since(settled_at) / 1_000_000;
        let marks_refused = || {
            let why = self.context.marks_refused.borrow();
            let why = why.as_ref()?;
            Some(format!("{why}; until that is done a restart ships again from the former marks"))
        };
        let problem = problem
            .or_else(|| standstill(&total, limited_by, nodes, still_s))
            .or_else(marks_refused)
            .or_else(|| given_up(&namespaces));
        DcReport {
            problem,
            total,
            namespaces,
            nodes,
            answers_per_s: self.answers.get().1,
            lap_us: self.lap_us.get(),
            limited_by,
            lag_us: self.engine.borrow().lag_us(),
            now: now.tick,
        }
    }

    /// What is wrong now, the worst first.
    fn troubles_now(&self, now: Now) -> Vec<Trouble> {
        let engine = self.engine.borrow();
        let rules = engine.rules();
        let name = |id: NamespaceId| self.context.namespaces[id.index()].clone();
        let parked = rules.attached_ids().filter_map(|id| {
            let code = rules.parked(id)?.code.0;
            Some(Trouble::Parked { namespace: name(id), code })
        });
        let parked_at = rules.attached_ids().flat_map(|id| {
            rules.refusing(id).map(move |(node, code)| (id, NodeIndex(node), code.0))
        });
        let parked_at = parked_at.map(|(id, node, code)| {
            let node = self.cluster.name(node).unwrap_or_else(|| node.0.to_string());
            Trouble::ParkedAt { namespace: name(id), node, code }
        });
        let refused = rules.attached_ids().filter_map(|id| {
            let code = rules.refused(id, now)?.0;
            Some(Trouble::Refused { namespace: name(id), code })
        });
        let letters = self.letters_refused.borrow();
        let letters =
            letters.as_ref().and_then(|told| letters_wait(told, &rules.dc_stats(), now.tick));
        let holes = Arc::clone(&self.holes.borrow());
        let holes = holes.iter().filter(|(id, _)| rules.is_attached(*id));
        let holes = holes.map(|&(id, hole)| Trouble::Hole { namespace: name(id), hole });
        let config = self.config.borrow();
        let has_no_seeds = config.seeds.is_empty() && !config.namespaces.is_empty();
        let no_seeds = has_no_seeds.then_some(Trouble::NoSeeds);
        let first = no_seeds.into_iter().chain(parked).chain(parked_at);
        let forwards = config.namespaces.iter().any(|namespace| namespace.forward);
        let nameless = if forwards { self.context.nameless() } else { BTreeSet::new() };
        let nameless = nameless.into_iter().map(|node| format!("{node:X}"));
        let echoes = nameless.filter(|node| self.cluster.knows(node));
        let echoes = echoes.map(|node| Trouble::Echoes { node });
        first.chain(holes).chain(letters).chain(refused).chain(echoes).collect()
    }

    /// Once a second: what is wrong now, for the log, and whether anything is settled.
    fn look_for_trouble(&self, now: Now) {
        let (replies, (before, _)) = (self.cluster.traffic().replies, self.answers.get());
        self.answers.set((replies, replies - before));
        let total = self.engine.borrow().rules().dc_stats();
        let settled = total.check_sum().accounted - total.backlog();
        if settled != self.settled.get().0 || total.backlog() + total.recoveries_pending == 0 {
            self.settled.set((settled, now.tick));
        }
        let troubles = self.troubles_now(now);
        if *self.troubles.borrow() != troubles {
            self.troubles.replace(troubles.clone());
            let (shard, dc) = (ShardIndex(self.context.shard), self.config.borrow().name.clone());
            let notice = Notice::Troubles { shard, dc, troubles };
            self.context.notices.send(notice).expect("the control loop outlives the shards");
        }
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

/// What is said when something waits, nothing has been settled for `still_s` seconds at `nodes`
/// connected nodes, and nobody else has said why.
fn standstill(total: &Stats, limited_by: LimitedBy, nodes: usize, still_s: u64) -> Option<String> {
    let (waiting, lanes) = (total.backlog(), total.recoveries_pending);
    if waiting + lanes == 0 || total.paused || limited_by == LimitedBy::Throttle {
        return None;
    }
    if nodes == 0 {
        return Some("no node of the destination is connected yet".to_owned());
    }
    (still_s >= STANDSTILL_S).then(|| {
        format!(
            "nothing was settled for {still_s} s, while {waiting} changes wait and {lanes} partitions \
             are to be recovered"
        )
    })
}

/// What was given up for good waits for somebody to look at it.
fn given_up(namespaces: &[(String, Stats)]) -> Option<String> {
    let (name, stats) = namespaces.iter().find(|(_, stats)| stats.dead_letters > 0)?;
    let count = stats.dead_letters;
    Some(format!("{count} changes of namespace {name} were given up: see xdr-dead-letters"))
}

/// The trouble that letters were refused, when and why, while something waits.
fn letters_wait((at, why): &(Tick, String), total: &Stats, now: Tick) -> Option<Trouble> {
    let waits = total.backlog() + total.recoveries_pending > 0;
    let is_so = waits && now < at.plus_ms(LETTERS_REFUSED_MS);
    is_so.then(|| Trouble::LettersRefused { why: why.clone() })
}

/// What limits a DC, given what its rules have `found`, whether its destination is there and refuses
/// nothing (`takes`), and whether changes wait for their time (`is_timed`). While something waits this
/// is never "nothing": what has just been queued waits for the shard's turn.
fn limited_by(found: LimitedBy, total: &Stats, takes: bool, is_timed: bool) -> LimitedBy {
    let gauges = &total.gauges;
    let waits = total.backlog() + total.recoveries_pending > 0;
    match found {
        LimitedBy::Nothing if waits && total.paused => LimitedBy::Throttle,
        LimitedBy::Nothing if waits && (!takes || gauges.in_progress + gauges.retrying > 0) => {
            LimitedBy::Destination
        }
        LimitedBy::Nothing if gauges.in_queue > 0 && is_timed => LimitedBy::Throttle,
        LimitedBy::Nothing if waits => LimitedBy::Reads,
        found => found,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ship::Gauges;

    #[test]
    fn refused_letters_are_told_of_while_something_waits() {
        let refused = (Tick(5_000_000), "10000 are kept".to_owned());
        let waits = Gauges { in_queue: 1, ..Gauges::default() };
        let waiting = Stats { gauges: waits, ..Stats::default() };
        let in_recovery = Stats { recoveries_pending: 1, ..Stats::default() };
        let check = |total: &Stats, ms: u64, is_told: bool| {
            let now = refused.0.plus_ms(ms);
            assert_eq!(letters_wait(&refused, total, now).is_some(), is_told, "{ms}");
        };
        check(&waiting, 7999, true);
        check(&in_recovery, 7999, true);
        check(&waiting, 8000, false);
        check(&Stats::default(), 1, false);
    }

    #[test]
    fn what_was_given_up_is_told_while_it_is_kept() {
        let of = |dead_letters| Stats { dead_letters, ..Stats::default() };
        let namespaces = |counts: [u64; 2]| {
            ["demo", "test"].map(str::to_owned).into_iter().zip(counts.map(of)).collect::<Vec<_>>()
        };
        assert_eq!(given_up(&namespaces([0, 0])), None);
        let told = given_up(&namespaces([0, 7])).unwrap();
        assert_eq!(told, "7 changes of namespace test were given up: see xdr-dead-letters");
    }

    #[test]
    fn something_that_waits_is_limited_by_what_it_waits_for() {
        let check = |(in_queue, in_progress, recoveries_pending), paused, takes, expected| {
            let is_timed = in_queue > 5;
            let gauges = Gauges { in_queue, in_progress, retrying: 0 };
            let total = Stats { gauges, recoveries_pending, paused, ..Stats::default() };
            let limited_by = |found| limited_by(found, &total, takes, is_timed);
            assert_eq!(limited_by(LimitedBy::Nothing), expected, "{total:?}");
            assert_eq!(limited_by(LimitedBy::Window), LimitedBy::Window);
        };
        check((0, 0, 0), false, true, LimitedBy::Nothing);
        check((0, 0, 0), false, false, LimitedBy::Nothing);
        check((5, 0, 0), false, false, LimitedBy::Destination);
        check((5, 1, 0), false, true, LimitedBy::Destination);
        check((5, 0, 0), false, true, LimitedBy::Reads);
        check((6, 0, 0), false, true, LimitedBy::Throttle);
        check((5, 0, 9), true, true, LimitedBy::Throttle);
        check((0, 0, 9), true, false, LimitedBy::Throttle);
        check((0, 0, 9), false, true, LimitedBy::Reads);
        check((0, 0, 9), false, false, LimitedBy::Destination);
    }

    #[test]
    fn a_standstill_is_told_while_something_waits_that_nobody_holds_back() {
        let gauges = Gauges { in_queue: 5, in_progress: 0, retrying: 0 };
        let waits = Stats { gauges, ..Stats::default() };
        let stands = |total: &Stats, nodes, still_s| {
            standstill(total, LimitedBy::Destination, nodes, still_s)
        };
        assert_eq!(stands(&waits, 1, 2), None, "not for long");
        let words = |waiting, lanes| {
            format!(
                "nothing was settled for 3 s, while {waiting} changes wait and {lanes} partitions \
                 are to be recovered"
            )
        };
        assert_eq!(stands(&waits, 1, 3), Some(words(5, 0)));
        let recovers = Stats { recoveries_pending: 9, ..Stats::default() };
        assert_eq!(stands(&recovers, 1, 3), Some(words(0, 9)));
        let unconnected = "no node of the destination is connected yet".to_owned();
        assert_eq!(stands(&waits, 0, 0), Some(unconnected));
        assert_eq!(stands(&Stats::default(), 0, 1000), None, "nothing waits");
        assert_eq!(stands(&Stats { paused: true, ..waits }, 1, 1000), None);
        assert_eq!(standstill(&waits, LimitedBy::Throttle, 1, 1000), None);
    }
}
