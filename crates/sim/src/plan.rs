//! What a seed decides before the first step: who ships to whom and how, how large everything is,
//! and which faults happen.

use crate::rng::Rng;
use longship::config::{BinPolicy, DcNamespaceConfig, WritePolicy};
use longship::model::Version;
use longship::ship::Limits;

/// A kind of fault. Each seed has a random subset of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Fault {
    /// A connection is reset; what was not applied may be dropped.
    Reset,
    /// A connection is reset after requests were applied: their replies are lost.
    LostReply,
    /// What was under way on a dead connection is applied later.
    Straggler,
    /// Requests or replies stand still for a while.
    Slow,
    /// Nothing answers for longer than a reply may take.
    Timeout,
    /// The destination is not reachable.
    DestinationDown,
    /// The destination's process dies, and its unflushed tail with it.
    DestinationRestart,
    /// The destination answers with temporary errors.
    Temporary,
    /// The destination answers with permanent errors.
    Permanent,
    /// The destination forbids all writes.
    Forbidden,
    /// Durable deletes are refused, as by a Community Edition node.
    Community,
    /// Partitions change hands, or have no owner.
    MapChange,
    /// Reads take long.
    SlowRead,
    /// Reads fail, or find torn records.
    FailedRead,
    /// Queues and windows are small.
    SmallQueues,
    /// The mailbox of a shard is full.
    MailboxFull,
    /// A host thread sleeps between taking its LUT and submitting.
    SleepyHost,
    /// Settings change that say how fast to ship.
    Retune,
    /// Settings change that say what to ship.
    Refilter,
    /// A DC is deleted, and made again.
    DcRecreated,
    /// A namespace is removed from a DC, and added again.
    Detach,
    /// A DC is paused and resumed.
    Pause,
    /// A DC is rewound.
    Rewind,
    /// The source's process dies.
    SourceCrash,
    /// The source's process stops and starts in good order.
    SourceRestart,
    /// A wall clock steps back.
    ClockBack,
    /// A wall clock steps forward.
    ClockForward,
    /// Many writes within one millisecond.
    Burst,
    /// Tombstones are dropped as soon as it is allowed.
    Raid,
    /// Blocks are rewritten and reclaimed.
    Defrag,
    /// Dead letters cannot be kept.
    LettersFull,
    /// Records expire.
    Expiry,
    /// Deletes.
    Delete,
}

impl Fault {
    /// All kinds.
    pub const ALL: [Self; 33] = [
        Self::Reset,
        Self::LostReply,
        Self::Straggler,
        Self::Slow,
        Self::Timeout,
        Self::DestinationDown,
        Self::DestinationRestart,
        Self::Temporary,
        Self::Permanent,
        Self::Forbidden,
        Self::Community,
        Self::MapChange,
        Self::SlowRead,
        Self::FailedRead,
        Self::SmallQueues,
        Self::MailboxFull,
        Self::SleepyHost,
        Self::Retune,
        Self::Refilter,
        Self::DcRecreated,
        Self::Detach,
        Self::Pause,
        Self::Rewind,
        Self::SourceCrash,
        Self::SourceRestart,
        Self::ClockBack,
        Self::ClockForward,
        Self::Burst,
        Self::Raid,
        Self::Defrag,
        Self::LettersFull,
        Self::Expiry,
        Self::Delete,
    ];

    /// Its bit in a set of faults.
    pub(crate) const fn bit(self) -> u64 {
        1 << self as u8
    }
}

/// Where a link ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dest {
    /// Another cluster of Longship nodes.
    Site(usize),
    /// A cluster that knows neither fence nor boot id.
    Foreign(usize),
}

/// One DC of a site.
#[derive(Clone, Debug)]
pub(crate) struct LinkPlan {
    pub(crate) from: usize,
    pub(crate) to: Dest,
    /// One entry for each namespace; `None` is not shipped.
    pub(crate) namespaces: Vec<Option<DcNamespaceConfig>>,
}

/// A seed's decisions.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(crate) seed: u64,
    /// Steps before faults stop.
    pub steps: u64,
    pub(crate) faults: u64,
    pub(crate) sites: usize,
    pub(crate) foreigns: usize,
    pub(crate) namespaces: usize,
    /// Keys of each namespace.
    pub(crate) keys: u16,
    pub(crate) links: Vec<LinkPlan>,
    pub(crate) limits: Limits,
    /// Records that may be under way to a node.
    pub(crate) node_records: usize,
    /// Which sites commit to their device.
    pub(crate) commit: Vec<bool>,
    /// How many walks of a hundred go by the index.
    pub(crate) index_walks: u64,
    /// Sites keep records changed within this in memory; all of them without.
    pub(crate) memory_ms: Option<u64>,
    /// This DC is given little time to work.
    pub(crate) sluggish: Option<usize>,
    /// Loss window of the others, in ms.
    pub(crate) window_ms: u64,
    pub(crate) start_tick_us: u64,
    /// Who ships to whom, in a few words.
    pub topology: &'static str,
    /// How many versions of a hundred destinations refuse, each for what is in it.
    pub(crate) refused: u64,
    /// Weight of time in the choice of steps.
    pub(crate) haste: u64,
    /// How many keys of a hundred clients of every writing site write.
    pub(crate) contested: u64,
}

impl Plan {
    /// The decisions of a seed.
    pub fn of(seed: u64) -> Self {
        let mut rng = Rng::at(seed, u64::MAX);
        let quiet = rng.percent(4);
        let density = rng.pick(&[10, 25, 40, 60]);
        let faults = Fault::ALL
            .iter()
            .filter(|fault| !quiet && rng.percent(density) || **fault == Fault::Delete)
            .fold(0, |set, fault| set | fault.bit());
        // Stragglers need dead connections.
        let resets = if faults & Fault::Straggler.bit() != 0 { Fault::Reset.bit() } else { 0 };
        let mut plan = Self {
            seed,
            steps: 2200 + rng.below(2600),
            faults: faults | resets,
            sites: 1,
            foreigns: 0,
            namespaces: 1 + usize::from(rng.percent(25)),
            keys: rng.pick(&[1, 3, 6, 12, 24]),
            links: Vec::new(),
            limits: Limits::default(),
            node_records: 0,
            commit: Vec::new(),
            index_walks: 0,
            memory_ms: None,
            sluggish: None,
            window_ms: rng.pick(&[20, 200, 1000]),
            start_tick_us: rng.pick(&[0, 7_000, (u64::from(u32::MAX) - 3000) * 1000]),
            topology: "",
            refused: 0,
            haste: rng.pick(&[3, 8, 20]),
            contested: 0,
        };
        plan.choose_topology(&mut rng);
        plan.commit = (0..plan.sites).map(|_| rng.percent(30)).collect();
        plan.limits = plan.choose_limits(&mut rng);
        // What came later draws from a stream of its own: what seeds decided before stays.
        let mut rng = Rng::at(seed, u64::MAX - 2);
        plan.index_walks = rng.pick(&[0, 0, 20, 100]);
        plan.sluggish = rng.index(plan.links.len()).filter(|_| plan.links.len() > 1);
        plan.memory_ms = rng.pick(&[None, Some(0), Some(20), Some(1000)]);
        let mut rng = Rng::at(seed, u64::MAX - 3);
        let namespaces =
            plan.links.iter_mut().flat_map(|link| link.namespaces.iter_mut().flatten());
        for config in namespaces.filter(|config| config.forward) {
            if rng.percent(40) {
                choose_filter(config, &mut rng);
            }
        }
        plan.refused = Rng::at(seed, u64::MAX - 4).pick(&[0, 0, 0, 0, 0, 0, 0, 20, 60]);
        let mut rng = Rng::at(seed, u64::MAX - 7);
        plan.limits.lane_turn = rng.pick(&[1, 2, 50]);
        plan.limits.namespace_turn = rng.pick(&[1, 3, 256]);
        plan.node_records = if plan.has(Fault::SmallQueues) { rng.pick(&[1, 2, 5]) } else { 1000 };
        if plan.has_two_ways() {
            plan.contested = Rng::at(seed, u64::MAX - 5).pick(&[0, 0, 0, 40, 100]);
        }
        plan
    }

    /// Whether two sites ship to each other: then all sites that write do so with another.
    fn has_two_ways(&self) -> bool {
        let ships =
            |from, to| self.links.iter().any(|link| link.from == from && link.to == Dest::Site(to));
        (0..self.sites).any(|a| (0..a).any(|b| ships(a, b) && ships(b, a)))
    }

    /// Whether clients of every site write a key, and not those of one.
    pub(crate) fn is_contested(&self, key: u16) -> bool {
        Rng::at(self.seed, u64::MAX - 6 - u64::from(key)).percent(self.contested)
    }

    /// Whether destinations refuse this version of a record for what is in it.
    pub(crate) fn refuses(&self, key: u16, version: Version) -> bool {
        Rng::at(self.seed ^ u64::from(key) << 40, version.raw()).percent(self.refused)
    }

    /// Whether a kind of fault may happen.
    pub fn has(&self, fault: Fault) -> bool {
        self.faults & fault.bit() != 0
    }

    fn choose_limits(&self, rng: &mut Rng) -> Limits {
        let small = self.has(Fault::SmallQueues);
        Limits {
            window: if small { rng.pick(&[1, 3, 8]) } else { 64 },
            waiting: if small { rng.pick(&[4, 16]) } else { 200 },
            hot_keys: if small { rng.pick(&[0, 1, 3]) } else { 50 },
            queue_bytes: if small { 404 * rng.pick(&[1, 2, 4, 50]) } else { 1 << 20 },
            walked_bytes: if small { 404 * rng.pick(&[1, 2, 8]) } else { 1 << 20 },
            recoveries_interleaved: rng.pick(&[0, 0, 1, 2]),
            grace_ms: 2000,
            ..Limits::default()
        }
    }

    fn choose_topology(&mut self, rng: &mut Rng) {
        use Dest::{Foreign, Site};
        let (name, sites, foreigns, links): (_, _, _, &[(usize, Dest, bool)]) = match rng.below(10)
        {
            0 => ("one foreign", 1, 1, &[(0, Foreign(0), false)]),
            1 => ("active-passive", 2, 0, &[(0, Site(1), false)]),
            2 => ("two foreign", 1, 2, &[(0, Foreign(0), false), (0, Foreign(1), false)]),
            3 => {
                let links = &[(0, Site(1), false), (0, Foreign(0), false), (0, Site(2), false)];
                ("three at once", 3, 1, links)
            }
            4 | 5 => ("active-active", 2, 0, &[(0, Site(1), false), (1, Site(0), false)]),
            6 => {
                let links = &[
                    (0, Site(1), false),
                    (0, Site(2), false),
                    (1, Site(0), false),
                    (1, Site(2), false),
                    (2, Site(0), false),
                    (2, Site(1), false),
                ];
                ("mesh of three", 3, 0, links)
            }
            7 => ("chain", 2, 1, &[(0, Site(1), false), (1, Foreign(0), true)]),
            8 => {
                let links = &[
                    (1, Site(0), false),
                    (2, Site(0), false),
                    (0, Site(1), true),
                    (0, Site(2), true),
                ];
                ("star", 3, 0, links)
            }
            _ => {
                let links = &[(0, Site(1), false), (1, Site(0), false), (0, Foreign(0), true)];
                ("mesh with fan-out", 2, 1, links)
            }
        };
        (self.topology, self.sites, self.foreigns) = (name, sites, foreigns);
        self.links = links
            .iter()
            .map(|&(from, to, forward)| LinkPlan {
                from,
                to,
                namespaces: self.choose_namespaces(forward, rng),
            })
            .collect();
    }

    fn choose_namespaces(&self, forward: bool, rng: &mut Rng) -> Vec<Option<DcNamespaceConfig>> {
        let mut all: Vec<Option<DcNamespaceConfig>> = (0..self.namespaces)
            .map(|n| rng.percent(85).then(|| self.choose_namespace(n, forward, rng)))
            .collect();
        if all.iter().all(Option::is_none) {
            all[0] = Some(self.choose_namespace(0, forward, rng));
        }
        all
    }

    fn choose_namespace(&self, n: usize, forward: bool, rng: &mut Rng) -> DcNamespaceConfig {
        let mut config = DcNamespaceConfig::named(&format!("ns{n}"));
        config.forward = forward;
        config.hot_key_ms = rng.pick(&[0, 50, 100, 1000]);
        config.delay_ms = rng.pick(&[0, 0, 0, 30]).min(config.hot_key_ms);
        config.max_throughput = rng.pick(&[100_000, 100_000, 500]);
        config.transaction_queue_limit =
            if self.has(Fault::SmallQueues) { rng.pick(&[2, 4, 16]) } else { 16_384 };
        config.ship_nsup_deletes = self.has(Fault::Expiry) && rng.percent(30);
        // Forwarding links draw theirs later.
        if !forward && rng.percent(25) {
            choose_filter(&mut config, rng);
        }
        config
    }
}

/// A random filter.
pub(crate) fn choose_filter(config: &mut DcNamespaceConfig, rng: &mut Rng) {
    let clean = DcNamespaceConfig::named(&config.name);
    config.bin_policy = clean.bin_policy;
    config.ignored_bins.clear();
    config.shipped_bins.clear();
    config.ignored_sets.clear();
    config.ignore_expunges = false;
    config.write_policy = rng.pick(&[WritePolicy::Auto, WritePolicy::Update, WritePolicy::Replace]);
    match rng.below(5) {
        0 => config.ignored_bins = vec!["b".to_owned()],
        1 => {
            config.bin_policy = BinPolicy::OnlySpecified;
            config.shipped_bins = vec!["a".to_owned(), "c".to_owned()];
        }
        2 => config.ignored_sets = vec!["s1".to_owned()],
        3 => config.ignore_expunges = true,
        _ => {}
    }
}
