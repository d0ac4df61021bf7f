//! A few clusters, what ships between them, and one clock. Every step changes one thing.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use crate::control::Loop;
use crate::keys::Keys;
use crate::link::{Link, Straggler};
use crate::oracle;
use crate::plan::{Fault, Plan};
use crate::rng::Rng;
use crate::site::{Foreign, LinkMarks, Site};
use crate::store::{Bins, Key};
use crate::trace::tell;
use longship::dest::Window;
use longship::engine::{Follower, FollowerSeed};
use longship::host::{Host, Mark};
use longship::model::{
    Change, ChangeKind, Digest, LaneId, Lut, NamespaceId, PartitionId, ShardIndex, SrcId, Tick,
};
use longship::ship::{Admission, Now};

/// Shards of every process; the world lives on the first. That leaves it few lanes, so that looking
/// at all of them is cheap.
pub(crate) const SHARDS: u16 = 1024;
/// Lanes of a namespace.
pub(crate) const LANES: usize = 4;
/// Names of the sets.
pub(crate) const SETS: [&str; 3] = ["", "s1", "s2"];

/// Which of the world's lanes a partition is.
pub(crate) fn lane_of(partition: PartitionId) -> usize {
    partition.index() / usize::from(SHARDS)
}

/// What a run did, for the report.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Writes of clients.
    pub written: u64,
    /// Changes shipped and acknowledged.
    pub shipped: u64,
    /// Records that walks found and that were taken.
    pub recovered: u64,
    /// How often each fault happened.
    pub faults: BTreeMap<Fault, u64>,
}

/// Everything there is.
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) now_us: u64,
    /// When a clock was set last.
    pub(crate) clock_stepped_us: u64,
    pub(crate) sites: Vec<Site>,
    pub(crate) foreigns: Vec<Foreign>,
    pub(crate) links: Vec<Link>,
    pub(crate) stragglers: Vec<Straggler>,
    /// By site; away while it follows an order.
    pub(crate) followers: Vec<Option<Follower>>,
    /// By site, while its process is there.
    pub(crate) loops: Vec<Option<Loop>>,
    pub(crate) tally: Tally,
    pub(crate) epoch: u64,
    pub(crate) values: u64,
    /// What clients wrote of contested keys.
    pub(crate) written: BTreeMap<Key, BTreeSet<Bins>>,
    /// A digest of everything that happened.
    pub(crate) fingerprint: u64,
    /// No more faults.
    pub(crate) calm: bool,
    keys: Rc<Keys>,
    writers: Vec<usize>,
}

impl World {
    /// The world as a plan has it, every DC created.
    pub(crate) fn new(plan: Plan) -> Self {
        let keys = Rc::new(Keys::new(plan.keys, plan.namespaces));
        let mut writers: Vec<usize> = plan.links.iter().map(|link| link.from).collect();
        writers.sort_unstable();
        writers.dedup();
        let site = |site: usize| {
            let mut made = Site::new(site, plan.commit[site], plan.window_ms, Rc::clone(&keys));
            (made.now_us, made.memory_ms) = (plan.start_tick_us, plan.memory_ms);
            made
        };
        let sites: Vec<Site> = (0..plan.sites).map(site).collect();
        let now = Tick(plan.start_tick_us);
        let first = |site: &Site| Some(follower(&plan, site.src_id, false, now));
        let mut world = Self {
            now_us: plan.start_tick_us,
            clock_stepped_us: 0,
            followers: sites.iter().map(first).collect(),
            sites,
            foreigns: (0..plan.foreigns).map(|_| Foreign::new(2, LANES)).collect(),
            links: plan.links.iter().map(|link| Link::new(link, now)).collect(),
            stragglers: Vec::new(),
            loops: (0..plan.sites).map(|_| None).collect(),
            tally: Tally::default(),
            epoch: 0,
            values: 0,
            written: BTreeMap::new(),
            fingerprint: 0,
            calm: false,
            keys,
            writers,
            plan,
        };
        (0..world.sites.len()).for_each(|site| world.start_control(site));
        if world.plan.has(Fault::SmallQueues) {
            world.happened(Fault::SmallQueues);
        }
        world
    }

    pub(crate) fn digest(&self, key: Key) -> Digest {
        self.keys.digest(key)
    }

    pub(crate) fn key(&self, namespace: NamespaceId, digest: &Digest) -> Key {
        self.keys.key(namespace, digest)
    }

    pub(crate) fn namespace(&self, key: Key) -> NamespaceId {
        self.keys.namespace(key)
    }

    pub(crate) fn keys_of(&self, namespace: NamespaceId) -> std::ops::Range<Key> {
        self.keys.of(namespace)
    }

    pub(crate) fn key_count(&self) -> Key {
        self.keys.count()
    }

    pub(crate) fn lane(&self, key: Key) -> usize {
        self.keys.lane(key)
    }

    /// The site whose clients write a key, this time.
    pub(crate) fn writer(&self, key: Key, rng: &mut Rng) -> usize {
        match self.plan.is_contested(key) {
            true => rng.pick(&self.writers),
            false => self.writers[usize::from(key) % self.writers.len()],
        }
    }

    pub(crate) fn now(&self, site: usize) -> Now {
        Now { tick: Tick(self.now_us), wall: self.sites[site].wall(self.now_us) }
    }

    pub(crate) fn happened(&mut self, fault: Fault) {
        *self.tally.faults.entry(fault).or_default() += 1;
        tell(None, || format!("-- {fault:?}"));
    }

    /// Mixes something that happened into the fingerprint.
    pub(crate) fn mark(&mut self, what: u64) {
        self.fingerprint = (self.fingerprint ^ what).wrapping_mul(0x0100_0000_01B3).rotate_left(17);
    }

    /// The links of a site, with a DC.
    pub(crate) fn links_from(&self, site: usize) -> Vec<usize> {
        let of =
            |link: &usize| self.links[*link].from == site && self.links[*link].engine.is_some();
        (0..self.links.len()).filter(of).collect()
    }

    /// What may be under way to a destination node.
    pub(crate) fn node_window(&self) -> Window {
        let batches_waiting = if self.plan.has(Fault::SmallQueues) { 1 } else { 4 };
        Window { records: self.plan.node_records, bytes: 64 << 20, batches_waiting }
    }

    /// The version clock of a site.
    pub(crate) fn clock(&self, site: usize) -> Lut {
        self.sites[site].version_clock(NamespaceId(0))
    }

    /// Submits a change to every DC of its site.
    pub(crate) fn submit(&mut self, site: usize, key: Key, change: &Change, mailbox_full: bool) {
        let now = self.now(site);
        let set = SETS[usize::from(change.set.0)];
        for link in self.links_from(site) {
            let admitted = oracle::admits(&self.links[link], change, set);
            oracle::note_quiet(&mut self.links[link]);
            let held_until = oracle::held_until(self, link, change);
            let Some(dc) = &mut self.links[link].engine else { continue };
            if mailbox_full {
                let lut = change.version.lut();
                dc.missed(change.namespace, change.digest.partition(), lut, lut);
                self.links[link].woken = true;
                tell(Some(key), || format!("DC {link} misses {}", shown(change)));
                oracle::note_wait(self, link, key, change, None, false);
            } else {
                let admission = dc.submit(change, set, now, || now.tick);
                tell(Some(key), || format!("DC {link} takes {}: {admission:?}", shown(change)));
                assert_eq!(
                    admission != Admission::NotShipped,
                    admitted,
                    "rules of submission: DC {link}, {change:?}"
                );
                // What is left to recovery is nobody's hot key.
                let is_kept = !matches!(
                    admission,
                    Admission::NotShipped | Admission::LeftToRecovery | Admission::Overflowed
                );
                let held_until = held_until.filter(|_| is_kept);
                let is_queued = matches!(admission, Admission::Queued | Admission::Behind);
                oracle::note_wait(self, link, key, change, held_until, is_queued);
                let wakes = matches!(admission, Admission::Queued | Admission::Overflowed);
                self.links[link].woken |= wakes;
                self.links[link].counted.submitted += u64::from(admitted);
                self.mark(admission as u64);
            }
            // An echo may be taken while the destination is not known yet; it is not owed.
            let echo = change.shipped && change.src_id == oracle::destination_of(&self.links[link]);
            if admitted && !echo {
                oracle::no_change_comes_below_its_lst(&self.links[link], change);
                // Nobody needed the tombstone of what was deleted before, though told only now.
                let is_gone = self.sites[site].store.get(key).is_none();
                let ledger = &mut self.links[link].ledger;
                if !is_gone || change.version > ledger.begun {
                    ledger.take(key, change.version);
                }
            }
            // A delete that is ignored hides what was owed, also when the other site writes over it.
            let ledger = &mut self.links[link].ledger;
            let hides = !admitted && !change.shipped && change.kind == ChangeKind::Delete;
            if hides && self.plan.is_contested(key) && ledger.owed(key).is_some() {
                ledger.withhold(key, change.version);
            }
        }
    }

    /// The marks of a link's DC, as it knows them.
    pub(crate) fn marks(&self, link: usize) -> LinkMarks {
        self.positions(link).into_iter().map(|Mark { lane, lst }| (place_of(&lane), lst)).collect()
    }

    /// The LUT below which the host knows that no DC owes anything of a key: tombstones older than
    /// that may go.
    pub(crate) fn settled_below(&self, site: usize, key: Key) -> Lut {
        let lane = (self.namespace(key).index(), self.lane(key) as u16);
        self.sites[site].settled.get(&lane).copied().unwrap_or(Lut::ZERO)
    }

    /// Positions of a link's DC, as a shard tells them.
    pub(crate) fn positions(&self, link: usize) -> Vec<Mark> {
        let mut marks = Vec::new();
        self.links[link].engine.iter().for_each(|engine| engine.marks(&mut marks));
        marks
    }

    /// A clock that steps makes changes older or younger: that is noticed within a second.
    pub(crate) fn has_just_stepped(&self) -> bool {
        self.now_us < self.clock_stepped_us + 1_000_000
    }

    /// Lets time pass. Flushing keeps to its window, replies to their deadline.
    pub(crate) fn pass(&mut self, us: u64) {
        self.now_us += us;
        for site in 0..self.sites.len() {
            self.sites[site].now_us = self.now_us;
            let due = self.sites[site].unflushed_since_us;
            let window_us = self.sites[site].window_ms * 1000;
            if due.is_some_and(|since| since + window_us <= self.now_us) && self.sites[site].up {
                self.sites[site].flush();
            }
        }
        while let Some(at) =
            self.stragglers.iter().position(|straggler| straggler.dies_us <= self.now_us)
        {
            if self.stragglers[at].is_late() {
                let mut rng = Rng::at(self.plan.seed, self.now_us);
                self.straggle(at, &mut rng);
            } else {
                self.stragglers.swap_remove(at);
            }
        }
    }

    /// A change of a record of this site's.
    pub(crate) fn change(
        &self,
        key: Key,
        rec: &crate::store::Rec,
        previous: Option<Lut>,
    ) -> Change {
        Change {
            namespace: self.namespace(key),
            digest: self.digest(key),
            version: rec.version,
            previous_lut: previous,
            set: self.keys.set(key),
            kind: rec.kind(),
            shipped: rec.flags.has(longship::model::RecordFlags::SHIPPED),
            src_id: rec.src_id,
        }
    }
}

/// The shard of a process that begins, perhaps after others.
pub(crate) fn follower(plan: &Plan, src_id: SrcId, has_past: bool, now: Tick) -> Follower {
    let seed = FollowerSeed {
        shard: ShardIndex(0),
        shard_count: SHARDS,
        namespaces: plan.namespaces,
        src_id,
        grace_ms: plan.limits.grace_ms.into(),
        // Here they are closed at once.
        closes_ms: 0,
        has_past,
        is_new_source: false,
    };
    Follower::new(seed, now)
}

/// A lane among those of its link.
pub(crate) fn place_of(lane: &LaneId) -> (usize, u16) {
    (lane.namespace.index(), lane_of(lane.partition) as u16)
}

/// A change in a few words.
pub(crate) fn shown(change: &Change) -> String {
    let version = change.version;
    format!("{:?} @{}.{}", change.kind, version.lut(), version.raw() & 0xFF_FFFF)
}
