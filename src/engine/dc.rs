//! One DC on one shard: what its two tasks share, and how it is made, changed and ended.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::{Arc, mpsc};

use crate::config::{DcConfig, DcNamespaceConfig};
use crate::dest::{
    Cluster, Identity, NodeIndex, Patience, Resolver, Setup, Source, TendSpec, Window,
};
use crate::host::{Host, Mark, Peek};
use crate::metrics::HistogramSnapshot;
use crate::model::{
    Change, DcIndex, Digest, LaneId, Lut, NamespaceId, PARTITION_COUNT, PartitionId, ShardIndex,
    SrcId, Tick,
};
use crate::rt::clock::Clock;
use crate::rt::event::Event;
use crate::ship::{self, Admission, DcShard, Dispatch, LimitedBy, Now, Outcome, Policy, Stats};

use super::batch_memory::{BatchBuffer, BatchMemory, Share};
use super::control::{Notice, Start};
use super::drain::Outlook;
use super::lag::LagSampler;
use super::letters::Letter;
use super::service_task::Service;
use super::trouble::Trouble;

/// How long a DC that was deleted waits for what it is owed.
pub(super) const DRAIN_MS: u64 = 5000;

/// Records with a dead letter that are looked for in a second.
const LETTER_LOOKS: usize = 64;
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
    pub(crate) namespaces: Vec<String>,
    /// This shard, as hellos say it.
    pub(crate) source: Rc<Source>,
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
    pub(crate) context: Rc<DcContext<H>>,
    pub(crate) config: RefCell<Arc<DcConfig>>,
    pub(crate) rules: RefCell<DcShard>,
    pub(crate) cluster: Cluster<BatchBuffer>,
    /// Memory for its batches.
    pub(crate) memory: Rc<Share>,
    pub(crate) lag: RefCell<LagSampler>,
    /// Wakes the DC task.
    pub(crate) bell: Event,
    /// Decided by the DC task, not yet read by the service task.
    pub(crate) work: RefCell<VecDeque<Dispatch>>,
    /// What the service task found out, for the DC task to settle.
    pub(crate) outcomes: RefCell<Vec<(u32, Outcome)>>,
    /// Given up, not yet told to the control loop.
    pub(crate) letters: RefCell<Vec<(u32, Letter)>>,
    /// Given up, whose record has to be read to tell its set and key.
    pub(crate) unread_letters: RefCell<Vec<(u32, NamespaceId, Letter)>>,
    /// What the control loop was told of last.
    troubles: RefCell<Vec<Trouble>>,
    /// How much was settled when it last grew, and when that was seen.
    settled: Cell<(u64, Tick)>,
    /// Answers of the destination when last looked at, and how many there were in the second before.
    answers: Cell<(u64, u64)>,
    /// When letters were last refused, and why.
    letters_refused: RefCell<Option<(Tick, String)>>,
    /// Letters replayed, each at a version clock: a mark above it says that it is settled.
    replays: RefCell<Vec<(NamespaceId, Digest, Lut)>>,
    /// Namespaces whose positions were lost, until they have recovered.
    lost: RefCell<Vec<NamespaceId>>,
    /// Wakes the service task.
    pub(crate) service_bell: Event,
    /// Wakes the recovery task.
    pub(crate) recovery_bell: Event,
    /// This cluster's identity.
    pub(crate) src_id: Cell<SrcId>,
    pub(crate) service: RefCell<Service<H>>,
    /// Whether a write wakes the DC task at once.
    doorbell: Cell<bool>,
    /// Duration of the last lap that shipped something, in microseconds.
    pub(crate) lap_us: Cell<u64>,
    /// Both tasks end when they see it.
    pub(crate) ended: Cell<bool>,
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
        feared_until: Tick,
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
        let mut rules = DcShard::new(limits, context.shard, context.shard_count);
        rules.hold(feared_until);
        Rc::new(Self {
            index,
            rules: RefCell::new(rules),
            cluster,
            memory: context.memory.share(),
            lag: RefCell::new(LagSampler::new()),
            bell,
            work: RefCell::default(),
            outcomes: RefCell::default(),
            letters: RefCell::default(),
            unread_letters: RefCell::default(),
            troubles: RefCell::default(),
            settled: Cell::new((0, Tick(0))),
            answers: Cell::default(),
            letters_refused: RefCell::default(),
            replays: RefCell::default(),
            lost: RefCell::default(),
            service_bell: Event::new(),
            recovery_bell: Event::new(),
            src_id: Cell::new(src_id),
            service: RefCell::new(Service::new()),
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
        if scope(&config) != scope(&self.config.borrow()) {
            self.cluster.begin_stream();
        }
        self.doorbell.set(config.doorbell);
        let wanted: Vec<(NamespaceId, &DcNamespaceConfig)> = config
            .namespaces
            .iter()
            .filter_map(|ns| Some((self.context.namespace_id(&ns.name)?, ns)))
            .collect();
        let rules = &mut *self.rules.borrow_mut();
        rules.set_recoveries_interleaved(config.max_recoveries_interleaved);
        let clock = |id| self.context.host.borrow().version_clock(id);
        if config.paused {
            rules.pause(clock);
        } else {
            rules.resume(clock);
        }
        let attached: Vec<NamespaceId> = rules.attached_ids().collect();
        for gone in attached.iter().filter(|id| !wanted.iter().any(|(other, _)| other == *id)) {
            rules.detach(*gone);
        }
        for (id, namespace) in wanted {
            let policy = Policy::new(namespace, self.context.shard, self.context.shard_count);
            let clock = clock(id);
            let start = starts.iter().find(|(of, _)| *of == id).map(|(_, start)| start);
            if rules.is_attached(id) {
                rules.set_policy(id, policy, clock);
                if let Some(Start::At(lanes)) = start {
                    let oldest = lanes.iter().flatten().min();
                    oldest.into_iter().for_each(|from| rules.rewind(id, *from));
                }
                continue;
            }
            let now = self.context.now();
            rules.attach(id, policy, clock, now, |partition| start_of(start, partition));
            if matches!(start, Some(Start::Oldest)) {
                self.lost.borrow_mut().push(id);
            }
        }
        *self.config.borrow_mut() = config;
        self.bell.set();
    }

    /// Takes a changed identity of this cluster: connections are opened anew to say it.
    pub(crate) fn set_src_id(&self, src_id: SrcId) {
        self.src_id.set(src_id);
        self.cluster.set_src_id(src_id);
    }

    /// Takes one change of a record.
    #[inline]
    pub(crate) fn submit(&self, change: &Change, set: &str, now: Now) {
        let admission = self.rules.borrow_mut().submit(change, set, now);
        let is_queued = matches!(admission, Admission::Queued | Admission::Behind);
        if is_queued && LagSampler::wants(&change.digest) {
            let submitted = Tick(self.context.clock.now());
            self.lag.borrow_mut().submitted(&change.digest, submitted);
        }
        let is_news = matches!(admission, Admission::Queued | Admission::Overflowed);
        if is_news && self.doorbell.get() {
            self.bell.set();
        }
    }

    /// Numbers of sets will name other sets from the next change on.
    pub(crate) fn forget_sets(&self, namespace: NamespaceId) {
        self.rules.borrow_mut().forget_sets(namespace);
    }

    /// A hint that changes of these records are submitted soon.
    pub(crate) fn prefetch_lanes(&self, namespace: NamespaceId, digests: &[Digest]) {
        self.rules.borrow().prefetch_lanes(namespace, digests);
    }

    /// The same once more, once what it asked for is there.
    pub(crate) fn prefetch_tails(&self, namespace: NamespaceId, digests: &[Digest]) {
        self.rules.borrow().prefetch_tails(namespace, digests);
    }

    /// Sends letters about changes given up to the control loop, which keeps them.
    pub(crate) fn post_letters(&self) {
        let letters = std::mem::take(&mut *self.letters.borrow_mut());
        if !letters.is_empty() {
            let shard = ShardIndex(self.context.shard);
            let notice = Notice::Abandoned { shard, dc: self.index, letters };
            self.context.notices.send(notice).expect("the control loop outlives the shards");
        }
    }

    /// Takes what became of letters.
    pub(crate) fn buried(&self, slots: Vec<(u32, bool)>, refusal: Option<String>) {
        let now = self.context.now();
        if let Some(refusal) = refusal {
            self.letters_refused.replace(Some((now.tick, refusal)));
        }
        let mut rules = self.rules.borrow_mut();
        for (slot, is_kept) in slots {
            if is_kept {
                rules.letter_kept(slot);
            } else {
                rules.letter_refused(slot, now);
            }
        }
        self.bell.set();
    }

    /// Takes letters of this DC that were kept before.
    pub(crate) fn letters_kept(&self, namespace: NamespaceId, records: &[(Digest, Lut)]) {
        let mine = |digest: &Digest| {
            digest.partition().shard(self.context.shard_count).0 == self.context.shard
        };
        let mine = records.iter().copied().filter(|(digest, _)| mine(digest));
        self.rules.borrow_mut().letters_known(namespace, mine);
    }

    /// Tells the control loop of letters whose records have changed since.
    pub(crate) fn post_outdated_letters(&self) {
        let mut rules = self.rules.borrow_mut();
        let host = self.context.host.borrow();
        let attached: Vec<NamespaceId> = rules.attached_ids().collect();
        for id in attached {
            rules.look_for_gone(id, LETTER_LOOKS, |digest| {
                matches!(host.peek(id, digest), Peek::Gone)
            });
            let records = rules.letters_outdated(id);
            if !records.is_empty() {
                let dc = self.config.borrow().name.clone();
                let namespace = self.context.namespaces[id.index()].clone();
                let notice = Notice::LettersOutdated { dc, namespace, records };
                self.context.notices.send(notice).expect("the control loop outlives the shards");
            }
        }
    }

    /// Takes up changes that were given up. Tells which its lanes took.
    pub(crate) fn replay(&self, namespace: NamespaceId, letters: &[Letter]) -> Vec<Digest> {
        let now = self.context.now();
        let clock = self.context.host.borrow().version_clock(namespace);
        let mut rules = self.rules.borrow_mut();
        let mine = |letter: &&Letter| {
            letter.digest.partition().shard(self.context.shard_count).0 == self.context.shard
        };
        let mut taken = Vec::new();
        for Letter { digest, lut, set, .. } in letters.iter().filter(mine) {
            match rules.resubmit(namespace, *digest, *lut, set, now) {
                // Its letter stays as it is, to be replayed later.
                Admission::NotShipped | Admission::NoRoom => {}
                _ => taken.push(*digest),
            }
        }
        self.replays.borrow_mut().extend(taken.iter().map(|digest| (namespace, *digest, clock)));
        self.bell.set();
        taken
    }

    /// Tells the control loop of replayed letters that are settled for good: their marks are past
    /// the replay, which no restart of the destination takes back.
    pub(crate) fn post_settled_replays(&self) {
        let mut replays = self.replays.borrow_mut();
        if replays.is_empty() {
            return;
        }
        let mut rules = self.rules.borrow_mut();
        let mut settled: BTreeMap<NamespaceId, Vec<Digest>> = BTreeMap::new();
        let mut dropped: BTreeMap<NamespaceId, Vec<Digest>> = BTreeMap::new();
        for (namespace, digest) in rules.take_dropped_replays() {
            dropped.entry(namespace).or_default().push(digest);
        }
        replays.retain(|(namespace, digest, clock)| {
            if dropped.get(namespace).is_some_and(|dropped| dropped.contains(digest)) {
                return false;
            }
            let mark = rules.mark(*namespace, digest.partition());
            match mark {
                Some(mark) if mark <= *clock => return true,
                Some(_) => settled.entry(*namespace).or_default().push(*digest),
                // The namespace was detached.
                None => dropped.entry(*namespace).or_default().push(*digest),
            }
            false
        });
        for (namespace, letters) in dropped {
            let dc = self.config.borrow().name.clone();
            let namespace = self.context.namespaces[namespace.index()].clone();
            let notice = Notice::ReplayDropped { dc, namespace, letters };
            self.context.notices.send(notice).expect("the control loop outlives the shards");
        }
        for (namespace, letters) in settled {
            rules.letters_gone(namespace, &letters);
            let dc = self.config.borrow().name.clone();
            let namespace = self.context.namespaces[namespace.index()].clone();
            let notice = Notice::ReplaySettled { dc, namespace, letters };
            self.context.notices.send(notice).expect("the control loop outlives the shards");
        }
    }

    /// Positions of this shard's lanes that are safe to persist.
    pub(crate) fn marks(&self, out: &mut Vec<Mark>) {
        let rules = self.rules.borrow();
        for namespace in rules.attached_ids() {
            out.extend(rules.marks(namespace).map(|(partition, lst)| Mark {
                lane: LaneId { dc: self.index, namespace, partition },
                lst,
            }));
        }
    }

    /// Brings LSTs and marks up to date, all at once.
    pub(crate) fn sweep_now(&self) {
        let mut rules = self.rules.borrow_mut();
        let host = self.context.host.borrow();
        while rules.sweep(u32::MAX, |id| host.version_clock(id)) == ship::SweepStep::More {}
    }

    /// What a stop would wait for.
    pub(super) fn outlook(&self) -> Outlook {
        let rules = self.rules.borrow();
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

    pub(crate) fn report(&self) -> DcReport {
        let rules = self.rules.borrow();
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
        let held_us = rules.held_until().us_since(now.tick);
        let held = (held_us > 0 && self.cluster.nodes() > 0).then(|| {
            let left_s = held_us.div_ceil(1_000_000);
            format!(
                "ships nothing for {left_s} s: what an earlier process or DC left on its \
                 connections may still arrive"
            )
        });
        drop(rules);
        let limited_by = self.limited_by(&total);
        let trouble = self.troubles_now(now).first().map(ToString::to_string);
        let clock = Lut::from_unix_ms(self.context.clock.wall_ms());
        let far_off = (clock > Lut::CLOCK_MAX)
            .then(|| format!("the system clock says {}: it is not believed; set it", clock.utc()));
        let problem = far_off.or(trouble).or(held).or_else(|| self.cluster.problem()).or(lost);
        DcReport {
            problem: problem.or_else(|| self.standstill(&total, limited_by, now.tick)),
            total,
            namespaces,
            nodes: self.cluster.nodes(),
            answers_per_s: self.answers.get().1,
            lap_us: self.lap_us.get(),
            limited_by,
            lag_us: self.lag.borrow().histogram().snapshot(),
            now: now.tick,
        }
    }

    /// Never nothing while something waits.
    fn limited_by(&self, total: &Stats) -> LimitedBy {
        let found = self.rules.borrow().limited_by();
        let waits = total.backlog() + total.recoveries_pending > 0;
        match found {
            LimitedBy::Nothing if waits && total.paused => LimitedBy::Throttle,
            LimitedBy::Nothing if waits => {
                let gauges = &total.gauges;
                let is_out = gauges.in_progress + gauges.retrying > 0;
                if is_out || self.cluster.nodes() == 0 {
                    LimitedBy::Destination
                } else {
                    LimitedBy::Reads
                }
            }
            found => found,
        }
    }

    /// What is said when something waits, nothing is settled and nobody else has said why.
    fn standstill(&self, total: &Stats, limited_by: LimitedBy, now: Tick) -> Option<String> {
        let (waiting, lanes) = (total.backlog(), total.recoveries_pending);
        if waiting + lanes == 0 || total.paused || limited_by == LimitedBy::Throttle {
            return None;
        }
        if self.cluster.nodes() == 0 {
            return Some("no node of the destination is connected yet".to_owned());
        }
        let (_, since) = self.settled.get();
        let seconds = now.us_since(since) / 1_000_000;
        (seconds >= STANDSTILL_S).then(|| {
            format!(
                "nothing was settled for {seconds} s, while {waiting} changes wait and {lanes} \
                 partitions are to be recovered"
            )
        })
    }

    /// What is wrong now, the worst first.
    fn troubles_now(&self, now: Now) -> Vec<Trouble> {
        let rules = self.rules.borrow();
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
        let letters = letters.iter().filter_map(|(at, why)| {
            let is_so = now.tick < at.plus_ms(LETTERS_REFUSED_MS);
            is_so.then(|| Trouble::LettersRefused { why: why.clone() })
        });
        parked.chain(parked_at).chain(letters).chain(refused).collect()
    }

    /// Once a second: what is wrong now, for the log, and whether anything is settled.
    pub(crate) fn look_for_trouble(&self, now: Now) {
        let (replies, (before, _)) = (self.cluster.traffic().replies, self.answers.get());
        self.answers.set((replies, replies - before));
        let total = self.rules.borrow().dc_stats();
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

/// What of a DC's configuration decides which records it ships, and how and where they arrive.
fn scope(config: &DcConfig) -> Vec<DcNamespaceConfig> {
    let paceless = |namespace: &DcNamespaceConfig| DcNamespaceConfig {
        delay_ms: 0,
        hot_key_ms: 0,
        max_throughput: 0,
        sc_replication_wait_ms: 0,
        transaction_queue_limit: 0,
        ..namespace.clone()
    };
    config.namespaces.iter().map(paceless).collect()
}

fn start_of(start: Option<&Start>, partition: PartitionId) -> ship::Start {
    debug_assert!(partition.index() < PARTITION_COUNT);
    match start {
        Some(Start::At(lanes)) => {
            lanes[partition.index()].map_or(ship::Start::Now, ship::Start::From)
        }
        Some(Start::Oldest) => ship::Start::From(Lut::ZERO),
        Some(Start::Now) | None => ship::Start::Now,
    }
}

fn spec<H>(context: &DcContext<H>, config: &DcConfig) -> TendSpec {
    let remote = |ns: &DcNamespaceConfig| {
        let id = context.namespace_id(&ns.name)?;
        Some((id, ns.remote_namespace.clone().unwrap_or_else(|| ns.name.clone())))
    };
    TendSpec {
        seeds: config.seeds.clone(),
        alternate_addresses: false,
        namespaces: config.namespaces.iter().filter_map(remote).collect(),
    }
}
