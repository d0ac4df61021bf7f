//! The steps of one DC on one shard, over a host and a destination: settle what came back, dispatch,
//! read and encode, send, walk, give up and take up again, keep the time.
//!
//! All that moves a change is here, and nothing here waits: each step takes `&mut self`, the host
//! and the time, does a bounded piece and says when the next one makes sense. The tasks of a shard
//! call them in loops of a few lines; the simulator calls the same ones in any order, with model
//! host and model destination.
//!
//! | file | step |
//! |---|---|
//! | `decide` | settle replies, losses and outcomes; dispatch; once a second look and sweep |
//! | `serve` | read each dispatched record as it is now, encode it, hand batches over |
//! | `walk` | find again what a lane missed |
//! | `given_up` | dead letters: written, kept or refused, outdated, replayed |
//! | `watch` | what is wrong with it, what limits it, what it shows of itself |

mod decide;
mod given_up;
mod serve;
mod walk;
mod watch;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::rc::Rc;

use crate::config::{DcConfig, DcNamespaceConfig};
use crate::dest::{Destination, NodeIndex, Route};
use crate::host::{Expected, Host, Mark, Walked};
use crate::limits::{LOG_LINES_MAX, UNREAD_MAX};
use crate::model::{
    Change, DcIndex, Digest, LaneId, Lut, NamespaceId, PARTITION_COUNT, PartitionId, SrcId, Tick,
};
use crate::ship::{
    self, Admission, DcShard, Dispatch, Limits, Now, Outcome, Policy, Room, Routes, SweepStep,
};
use longship_rt::metrics::{HistogramSnapshot, LogBudget};

use super::follow::Hold;
use super::lag::LagSampler;
use super::positions::Beginning;
use decide::Incoming;
use given_up::GivenUp;
use serve::Service;
use walk::OpenWalk;
use watch::Watch;

pub use decide::{Decided, Next};
pub use serve::Served;
pub use walk::Look;
pub use watch::{DcReport, NamespaceReport, Shipper, Shippers};

/// How much one call of a step does, so that other tasks get their turn.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Replies and returned changes settled: a lost connection gives back as many as a window holds.
    pub settled: usize,
    /// Changes dispatched.
    pub dispatched: u32,
    /// Decided changes of a namespace that may wait to be served.
    pub waiting: usize,
    /// Slots a sweep looks at.
    pub swept: u32,
    /// Records served.
    pub served: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { settled: 4096, dispatched: 512, waiting: UNREAD_MAX, swept: 8192, served: 256 }
    }
}

/// What a [`DcEngine`] is made from.
pub struct DcSeed<D> {
    /// Index of the DC.
    pub index: DcIndex,
    /// Name of the DC, for log lines and reports.
    pub name: String,
    /// Names of the namespaces, indexed by [`NamespaceId`].
    pub namespaces: Rc<[String]>,
    /// This shard.
    pub shard: u16,
    /// Shards of the process.
    pub shard_count: u16,
    /// Bounds.
    pub limits: Limits,
    /// This cluster's identity.
    pub src_id: SrcId,
    /// When it may begin.
    pub hold: Hold,
    /// Who ships to this cluster through this shard.
    pub shippers: Rc<Shippers>,
    /// Where to.
    pub destination: D,
}

/// One DC on one shard: its rules, what is under way, and the steps that move it.
pub struct DcEngine<H: Host, D: Destination> {
    index: DcIndex,
    name: String,
    namespaces: Rc<[String]>,
    shard: u16,
    shard_count: u16,
    src_id: SrcId,
    rules: DcShard,
    destination: D,
    /// What of the configuration decides which records ship, and how and where they arrive; nothing
    /// before the first.
    scope: Option<Vec<DcNamespaceConfig>>,
    /// Between two laps at most, if writes do not wake the DC.
    lap_ms: Option<u32>,
    lag: LagSampler,
    incoming: Incoming,
    /// By the last [`DcEngine::decide`].
    dispatched: Vec<Dispatch>,
    /// Decided, not yet served, by namespace: none waits for the device of another.
    work: Vec<VecDeque<Dispatch>>,
    /// Found out while serving, to be settled.
    outcomes: Vec<(u32, Outcome)>,
    service: Service<H, D::Buffer>,
    walks: Vec<OpenWalk>,
    /// Empty between two calls.
    found: Vec<Walked>,
    given_up: GivenUp,
    /// By namespace: it is known to be refused records with a time to live, and the log says so.
    told_of_ttl: Vec<bool>,
    watch: Watch,
    /// Of the log, for each walk that begins.
    walk_lines: LogBudget,
}

impl<H: Host, D: Destination> DcEngine<H, D> {
    /// Makes the DC on this shard; namespaces are attached afterwards.
    pub fn new(seed: DcSeed<D>) -> Self {
        let DcSeed { index, name, namespaces, shard, shard_count, limits, src_id, .. } = seed;
        let mut rules = DcShard::new(limits, shard, shard_count);
        rules.hold(seed.hold.until);
        rules.hold_anyway(seed.hold.anyway_until);
        let work = namespaces.iter().map(|_| VecDeque::new()).collect();
        let told_of_ttl = vec![false; namespaces.len()];
        Self {
            index,
            name,
            namespaces,
            shard,
            shard_count,
            src_id,
            rules,
            destination: seed.destination,
            scope: None,
            lap_ms: None,
            lag: LagSampler::new(),
            incoming: Incoming::default(),
            dispatched: Vec::new(),
            work,
            outcomes: Vec::new(),
            service: Service::new(),
            walks: Vec::new(),
            found: Vec::new(),
            given_up: GivenUp::default(),
            told_of_ttl,
            watch: Watch::new(seed.shippers),
            walk_lines: LogBudget::of_lines(LOG_LINES_MAX),
        }
    }

    /// Takes a changed configuration: attaches, detaches and changes namespaces. `starts` tells
    /// where those begin that are new, and where others are rewound to.
    pub fn configure(
        &mut self,
        host: &H,
        config: &DcConfig,
        starts: &[(NamespaceId, Beginning)],
        now: Now,
    ) {
        self.watch.configure(config, starts, &self.rules);
        let scope = Some(scope(config));
        if self.scope.is_some() && self.scope != scope {
            self.give_back_all();
            self.destination.begin_stream();
        }
        self.scope = scope;
        self.lap_ms = (!config.doorbell).then_some(config.period_ms);
        let wanted: Vec<(NamespaceId, &DcNamespaceConfig)> = config
            .namespaces
            .iter()
            .filter_map(|ns| Some((self.namespace_id(&ns.name)?, ns)))
            .collect();
        let rules = &mut self.rules;
        rules.set_recoveries_interleaved(config.max_recoveries_interleaved);
        let clock = |id| host.version_clock(id);
        if config.paused {
            rules.pause(clock);
        } else {
            rules.resume(clock);
        }
        let attached: Vec<NamespaceId> = rules.attached_ids().collect();
        for gone in attached.iter().filter(|id| !wanted.iter().any(|(other, _)| other == *id)) {
            self.detach(*gone, now);
        }
        let rules = &mut self.rules;
        for (id, namespace) in wanted {
            let policy = Policy::new(namespace, self.shard, self.shard_count);
            let clock = clock(id);
            let start = starts.iter().find(|(of, _)| *of == id).map(|(_, start)| start);
            if rules.is_attached(id) {
                rules.set_policy(id, policy, clock);
                if let Some(Beginning::At(lanes)) = start {
                    let oldest = lanes.iter().flatten().min();
                    oldest.into_iter().for_each(|from| rules.rewind(id, *from));
                }
            } else {
                rules.attach(id, policy, clock, now, |partition| start_of(start, partition));
            }
            if start.is_some()
                && let Some(Expected { records, oldest }) = host.expected(id, &rules.to_walk(id))
            {
                rules.expect(id, records, oldest);
            }
        }
    }

    /// What is decided of a namespace and not sent yet goes no further.
    fn detach(&mut self, namespace: NamespaceId, now: Now) {
        for dispatch in std::mem::take(&mut self.work[namespace.index()]) {
            self.end(&dispatch, Outcome::Unsent);
        }
        let service = &self.service;
        self.rules.detach(namespace, now, |slot| service.reads(slot));
    }

    fn namespace_id(&self, name: &str) -> Option<NamespaceId> {
        let index = self.namespaces.iter().position(|known| known == name)?;
        Some(NamespaceId(u8::try_from(index).expect("config bounds namespaces to 32")))
    }

    /// Takes a changed identity of this cluster: connections are opened anew to say it.
    pub fn set_src_id(&mut self, src_id: SrcId) {
        if self.src_id != src_id {
            self.src_id = src_id;
            self.give_back_all();
            self.destination.set_src_id(src_id);
        }
    }

    /// Takes one change of a record. `clock` is read for those whose lag is measured.
    #[inline]
    pub fn submit(
        &mut self,
        change: &Change,
        set: &str,
        now: Now,
        clock: impl FnOnce() -> Tick,
    ) -> Admission {
        let admission = self.rules.submit(change, set, now);
        let is_queued = matches!(admission, Admission::Queued | Admission::Behind);
        if is_queued && LagSampler::wants(&change.digest) {
            self.lag.submitted(&change.digest, clock());
        }
        admission
    }

    /// Changes with LUTs `from..=to` were made and could not be submitted.
    pub fn missed(&mut self, namespace: NamespaceId, partition: PartitionId, from: Lut, to: Lut) {
        self.rules.missed(namespace, partition, from, to);
    }

    /// Numbers of sets will name other sets from the next change on.
    pub fn forget_sets(&mut self, namespace: NamespaceId) {
        self.rules.forget_sets(namespace);
    }

    /// A hint that changes of these records are submitted soon.
    pub fn prefetch_lanes(&self, namespace: NamespaceId, digests: &[Digest]) {
        self.rules.prefetch_lanes(namespace, digests);
    }

    /// Asks for the ends of the lanes' queues, once what [`Self::prefetch_lanes`] asked for is
    /// there.
    pub fn prefetch_tails(&self, namespace: NamespaceId, digests: &[Digest]) {
        self.rules.prefetch_tails(namespace, digests);
    }

    /// Positions of this shard's lanes that are safe to persist.
    pub fn marks(&self, out: &mut Vec<Mark>) {
        for namespace in self.rules.attached_ids() {
            out.extend(self.rules.marks(namespace).map(|(partition, lst)| Mark {
                lane: LaneId { dc: self.index, namespace, partition },
                lst,
            }));
        }
    }

    /// Brings LSTs and marks up to date, all at once.
    pub fn sweep_now(&mut self, host: &H) {
        while self.rules.sweep(u32::MAX, |id| host.version_clock(id)) == SweepStep::More {}
        self.note_settled_replays();
        self.note_outdated_letters(host);
    }

    /// Figures and state, for reports and those who check them.
    pub fn rules(&self) -> &DcShard {
        &self.rules
    }

    /// Where it ships to.
    pub fn destination(&self) -> &D {
        &self.destination
    }

    /// The destination, to be changed: for the simulator, which moves it.
    pub fn destination_mut(&mut self) -> &mut D {
        &mut self.destination
    }

    /// What the last [`Self::decide`] has dispatched, in order.
    pub fn dispatched(&self) -> &[Dispatch] {
        &self.dispatched
    }

    /// What could be dispatched now, in a few words, where so many may wait to be served; see
    /// [`DcShard::could_ship`].
    #[cfg(any(test, feature = "sim"))]
    pub fn could_ship(&self, now: Now, waiting_max: usize) -> Option<String> {
        let Self { destination, service, work, .. } = self;
        let ways = Ways { destination, service, work, waiting_max };
        let takes = |namespace, partition| {
            ways.takes(namespace) && matches!(ways.way(namespace, partition), Room::Yes(_))
        };
        self.rules.could_ship(now, takes)
    }

    /// From submission to acknowledgement, sampled, in microseconds.
    pub fn lag_us(&self) -> HistogramSnapshot {
        self.lag.histogram().snapshot()
    }
}

/// The way to the destination's nodes.
struct Ways<'a, H: Host, D: Destination> {
    destination: &'a D,
    service: &'a Service<H, D::Buffer>,
    work: &'a [VecDeque<Dispatch>],
    waiting_max: usize,
}

impl<H: Host, D: Destination> Ways<'_, H, D> {
    #[inline]
    fn way(&self, namespace: NamespaceId, partition: PartitionId) -> Room {
        match self.destination.route(namespace, partition) {
            Route::Open(node) if self.service.has_room(node) => Room::Yes(node.0),
            Route::Open(node) | Route::Full(node) => Room::Full(node.0),
            Route::Down(_) | Route::NoNode => Room::NoNode,
        }
    }
}

impl<H: Host, D: Destination> Routes for Ways<'_, H, D> {
    #[inline]
    fn room(&mut self, namespace: NamespaceId, partition: PartitionId) -> Room {
        self.way(namespace, partition)
    }

    fn is_full(&self, node: u16) -> bool {
        let node = NodeIndex(node);
        !self.service.has_room(node) || self.destination.is_full(node)
    }

    fn has_node(&self, namespace: NamespaceId, partition: PartitionId) -> bool {
        matches!(self.destination.route(namespace, partition), Route::Open(_) | Route::Full(_))
    }

    fn takes(&self, namespace: NamespaceId) -> bool {
        self.work[namespace.index()].len() < self.waiting_max
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

fn start_of(start: Option<&Beginning>, partition: PartitionId) -> ship::Start {
    debug_assert!(partition.index() < PARTITION_COUNT);
    match start {
        Some(Beginning::At(lanes)) => {
            lanes[partition.index()].map_or(ship::Start::Now, ship::Start::From)
        }
        Some(Beginning::Oldest) => ship::Start::From(Lut::ZERO),
        Some(Beginning::Now) | None => ship::Start::Now,
    }
}
