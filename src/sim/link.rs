//! One DC of a site: the rules of `ship`, and around them what an engine would do: connections,
//! reads, walks, dead letters.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use super::plan::{Dest, LinkPlan};
use super::store::Key;
use crate::config::DcNamespaceConfig;
use crate::model::{Lut, NamespaceId, PartitionId, SrcId, Tick, Version};
use crate::ship::{Abandoned, DcShard, Dispatch, Room, Routes, Sent, WalkIndex};

/// A request under way.
#[derive(Clone, Debug)]
pub struct Request {
    pub slot: u32,
    pub key: Key,
    /// The version it carries.
    pub version: Version,
    pub frame: Rc<[u8]>,
}

/// A connection to a destination node.
#[derive(Clone, Debug, Default)]
pub struct Conn {
    pub up: bool,
    pub epoch: u64,
    /// Sent, not applied.
    pub requests: VecDeque<Request>,
    /// Applied; replies on their way.
    pub replies: VecDeque<(Request, u8)>,
    /// Changes dispatched towards the node and not settled.
    pub taken: u32,
    /// When the oldest of the present requests was sent.
    pub owing_since_us: Option<u64>,
}

impl Conn {
    pub fn is_idle(&self) -> bool {
        self.requests.is_empty() && self.replies.is_empty()
    }
}

/// A request left on a dead connection that the destination may still apply.
#[derive(Clone, Debug)]
pub struct Straggler {
    pub link: usize,
    pub node: u16,
    pub epoch: u64,
    pub request: Request,
    /// After this nobody has to fear it.
    pub dies_us: u64,
}

/// A dispatched change.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flight {
    pub key: Key,
    pub node: u16,
    /// The version read for it.
    pub read: Option<Version>,
    /// What was sent for it.
    pub sent: Option<Sent>,
    /// Its namespace was detached meanwhile.
    pub discarded: bool,
}

/// What a link owes, kept independently of the rules under test.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Changes of each key that were taken.
    pub taken: BTreeMap<Key, BTreeSet<Version>>,
    /// The version up to which each key is settled.
    pub settled: BTreeMap<Key, Version>,
    /// Of this, what was acknowledged or has a dead letter. The rest is settled only as long as the
    /// source keeps the version that had nothing to ship.
    pub sent: BTreeMap<Key, Version>,
    /// The versions that had nothing to ship, or were sent: what each was settled by.
    pub settled_by: BTreeMap<Key, BTreeSet<Version>>,
    /// Acknowledged by the destination's process, and lost by it since.
    pub lost: BTreeMap<Key, Version>,
    /// Given up, with a dead letter, at this version.
    pub dead: BTreeMap<Key, Version>,
    /// Keys whose last answer was not a success (filtered out, gone), and the version.
    pub not_sent: BTreeMap<Key, Version>,
    /// Version clock when what is shipped changed last.
    pub refiltered: Option<Version>,
}

impl Ledger {
    /// The newest change of a key that was taken.
    pub fn newest(&self, key: Key) -> Option<Version> {
        self.taken.get(&key)?.last().copied()
    }

    /// The newest change of a key, if it is not settled.
    pub fn owed(&self, key: Key) -> Option<Version> {
        let newest = self.newest(key)?;
        let settled = self.settled.get(&key).copied().unwrap_or_default();
        (settled < newest).then_some(newest)
    }

    pub fn take(&mut self, key: Key, version: Version) {
        self.taken.entry(key).or_default().insert(version);
    }

    /// The source is back at `left`, nothing newer is left of the key.
    pub fn lose(&mut self, key: Key, left: Version) {
        if let Some(taken) = self.taken.get_mut(&key) {
            taken.retain(|version| *version <= left);
            if taken.is_empty() {
                self.taken.remove(&key);
            }
        }
        if self.settled.get(&key).is_some_and(|&settled| settled > left) {
            let sent = self.sent.get(&key).copied().unwrap_or_default();
            let by = self.settled_by.entry(key).or_default();
            by.retain(|version| *version <= left);
            let kept = by.last().copied().unwrap_or_default();
            self.settled.insert(key, sent.max(kept));
            self.not_sent.remove(&key);
        }
    }

    /// A key is owed again from a LUT on. What was settled of it before stays so: should the source
    /// lose the rest, nobody asks for that again.
    pub fn rewind(&mut self, key: Key, from: Lut) {
        let taken = self.taken.get(&key).into_iter().flatten();
        let before = taken.take_while(|version| version.lut() < from).last().copied();
        for versions in [&mut self.settled, &mut self.sent] {
            let left = versions.remove(&key).zip(before).map(|(last, before)| last.min(before));
            versions.extend(left.map(|version| (key, version)));
        }
        if let Some(by) = self.settled_by.get_mut(&key) {
            by.retain(|version| before.is_some_and(|before| *version <= before));
        }
    }

    /// Nothing is owed of some keys any more.
    pub fn forget(&mut self, keep: impl Fn(Key) -> bool) {
        self.taken.retain(|&key, _| keep(key));
        let Self { settled, sent, lost, dead, not_sent, .. } = self;
        for versions in [settled, sent, lost, dead, not_sent] {
            versions.retain(|&key, _| keep(key));
        }
        self.settled_by.retain(|&key, _| keep(key));
    }

    pub fn send(&mut self, key: Key, version: Version) {
        let sent = self.sent.entry(key).or_default();
        *sent = version.max(*sent);
        self.settle(key, version);
    }

    pub fn settle(&mut self, key: Key, version: Version) {
        let settled = self.settled.entry(key).or_default();
        *settled = version.max(*settled);
        self.settled_by.entry(key).or_default().insert(version);
        if self.lost.get(&key).is_some_and(|&lost| lost <= version) {
            self.lost.remove(&key);
        }
    }
}

/// A change given up, whose dead letter is not kept yet.
#[derive(Clone, Copy, Debug)]
pub struct Letter {
    pub abandoned: Abandoned,
    /// The version up to which it gives up.
    pub upto: Version,
    /// Its namespace was detached meanwhile.
    pub discarded: bool,
}

/// What a DC's counters have to say, counted by whoever did it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    pub submitted: u64,
    pub acknowledged: u64,
    pub not_found: u64,
    pub filtered_out: u64,
    pub letters: u64,
}

/// An open walk.
#[derive(Clone, Copy, Debug)]
pub struct OpenWalk {
    pub index: WalkIndex,
    pub namespace: NamespaceId,
    /// Names it at the host.
    pub id: u32,
}

/// One DC.
pub struct Link {
    pub from: usize,
    pub to: Dest,
    /// Configuration, which outlives the process.
    pub configs: Vec<Option<DcNamespaceConfig>>,
    /// What a namespace comes back with when it is added again.
    pub detached: Vec<Option<DcNamespaceConfig>>,
    pub exists: bool,
    pub paused: bool,
    pub counted: Counted,
    pub dc: Option<DcShard>,
    pub conns: Vec<Conn>,
    pub reads: Vec<Dispatch>,
    pub flights: BTreeMap<u32, Flight>,
    pub letters: VecDeque<Letter>,
    pub walks: Vec<OpenWalk>,
    pub ledger: Ledger,
    pub known_boot: Option<u64>,
    pub destination: SrcId,
    /// LSTs and marks at the last look, by namespace and lane; empty when they may move back.
    pub seen: BTreeMap<(usize, u16), (Lut, Lut)>,
    /// Nothing moves on its connections before this.
    pub slow_until_us: u64,
    /// Its connections cannot be opened before this.
    pub blocked_until_us: u64,
    pub next_due_us: u64,
    /// Something happened that wakes an engine before that.
    pub woken: bool,
    /// Turns without a change since, though each asked for the next at once.
    pub spins: u32,
    /// When the last question of the tending was asked.
    pub asked: Option<Tick>,
}

impl Link {
    pub fn new(plan: &LinkPlan, nodes: usize) -> Self {
        Self {
            from: plan.from,
            to: plan.to,
            configs: plan.namespaces.clone(),
            detached: vec![None; plan.namespaces.len()],
            exists: true,
            paused: false,
            counted: Counted::default(),
            dc: None,
            conns: vec![Conn::default(); nodes],
            reads: Vec::new(),
            flights: BTreeMap::new(),
            letters: VecDeque::new(),
            walks: Vec::new(),
            ledger: Ledger::default(),
            known_boot: None,
            destination: SrcId::NONE,
            seen: BTreeMap::new(),
            slow_until_us: 0,
            blocked_until_us: 0,
            next_due_us: 0,
            woken: true,
            spins: 0,
            asked: None,
        }
    }

    pub fn is_fenced(&self) -> bool {
        matches!(self.to, Dest::Site(_))
    }

    /// Whether nothing is under way anywhere.
    pub fn is_quiet(&self) -> bool {
        self.reads.is_empty()
            && self.flights.is_empty()
            && self.letters.is_empty()
            && self.walks.is_empty()
            && self.conns.iter().all(Conn::is_idle)
            && self.dc.as_ref().is_none_or(|dc| {
                dc.dc_stats().backlog() == 0 && dc.dc_stats().recoveries_pending == 0
            })
    }
}

/// The way to the destination's nodes.
pub struct Ways<'a> {
    pub conns: &'a mut [Conn],
    /// Owner of each lane.
    pub owner: Vec<Option<u16>>,
    pub window: u32,
    pub lane_of: fn(PartitionId) -> usize,
}

impl Ways<'_> {
    /// Whether a partition's node has room.
    pub fn takes(&self, partition: PartitionId) -> bool {
        let node = self.node(partition);
        node.is_some_and(|node| self.conns[usize::from(node)].taken < self.window)
    }

    fn node(&self, partition: PartitionId) -> Option<u16> {
        let node = self.owner[(self.lane_of)(partition)]?;
        self.conns[usize::from(node)].up.then_some(node)
    }
}

impl Routes for Ways<'_> {
    fn room(&mut self, _: NamespaceId, partition: PartitionId) -> Room {
        let Some(node) = self.node(partition) else { return Room::NoNode };
        let conn = &mut self.conns[usize::from(node)];
        if conn.taken >= self.window {
            return Room::Full(node);
        }
        conn.taken += 1;
        Room::Yes(node)
    }

    fn is_full(&self, node: u16) -> bool {
        let conn = &self.conns[usize::from(node)];
        conn.up && conn.taken >= self.window
    }

    fn has_node(&self, _: NamespaceId, partition: PartitionId) -> bool {
        self.node(partition).is_some()
    }
}
