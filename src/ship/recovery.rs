//! The gap between LST and queue: found again by walking the index, and shipped beside the live
//! changes at a lower share.
//!
//! A lane with a gap queues nothing: whatever is submitted extends the gap. When a walk opens, the
//! gap becomes its task and the lane queues again, so that the walk has an end: changes made after
//! it opened are covered by their own submissions.

use super::bitmap::Bitmap;
use super::dc::{DcShard, Now};
use super::mutation::{Mutation, planted};
use super::policy::Policy;
use super::queue::{Entry, Pool, Ring};
use super::schedule::Routes;
use super::timers::ms_of;
use crate::model::{ChangeKind, Lut, NamespaceId, PartitionId, SetId, Tick, Walked};

/// Walks of a namespace open at the same time.
const WALKS_MAX: usize = 4;
/// A namespace with a walk open gathers lanes this long before it opens another.
const GATHER_MS: u64 = 1000;
/// How long a fruitless search for lanes to recover holds.
const SEARCH_MS: u64 = 20;

/// An open walk of this DC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WalkIndex(pub u8);

/// A walk to open at the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalkRequest {
    /// Names it towards [`DcShard`].
    pub walk: WalkIndex,
    /// Of this namespace.
    pub namespace: NamespaceId,
    /// Partitions, and the lowest LUT wanted of each.
    pub lanes: Vec<(PartitionId, Lut)>,
}

/// What is to be done with an open walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalkDemand {
    /// There is room: do a step.
    Step,
    /// What it found has to ship first.
    Wait,
    /// Nobody wants it any more: close it.
    Close,
}

/// A lane that is walked, or whose finds have not all been shipped.
#[derive(Clone, Copy, Debug)]
struct WalkingLane {
    ring: Ring,
    /// `None` once the walk has given everything.
    walk: Option<u8>,
    from: Lut,
}

/// How far the recoveries of a namespace have come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecoveryProgress {
    /// Lanes that wait for a walk.
    pub lanes_waiting: u64,
    /// Lanes being walked.
    pub lanes_walking: u64,
    /// Records looked at by open walks.
    pub examined: u64,
    /// Of these, records taken to be shipped.
    pub taken: u64,
    /// Below this LUT all walks have given everything; [`Lut::ZERO`] from hosts that do not walk in
    /// LUT order.
    pub position: Lut,
    /// The walk that reaches furthest ends at this LUT.
    pub until: Lut,
    /// The walk that began lowest began at this LUT.
    pub from: Lut,
    /// Changes left to recovery that no walk looks for yet, as far as they are known.
    pub missed: u64,
    /// Records that open walks will still take, as far as one can tell.
    pub to_come: u64,
    /// Records found that wait to be shipped.
    pub queued: u64,
    /// Records found since the recovery began.
    pub found: u64,
    /// When it began.
    pub since: Option<Tick>,
}

impl RecoveryProgress {
    /// Adds another namespace's progress.
    pub(super) fn add(&mut self, other: &Self) {
        self.lanes_waiting += other.lanes_waiting;
        self.examined += other.examined;
        self.taken += other.taken;
        if other.lanes_walking > 0 {
            let is_first = self.lanes_walking == 0;
            let first = |a: Lut, b: Lut| if is_first { b } else { a.min(b) };
            self.position = first(self.position, other.position);
            self.from = first(self.from, other.from);
            self.until = self.until.max(other.until);
        }
        self.lanes_walking += other.lanes_walking;
        self.missed += other.missed;
        self.to_come += other.to_come;
        self.queued += other.queued;
        self.found += other.found;
        self.since = self.since.min(other.since).or(self.since).or(other.since);
    }

    /// Changes that recovery has still to find.
    pub const fn unfound(&self) -> u64 {
        self.missed + self.to_come
    }

    /// Seconds until everything is found and shipped, as fast as that went so far; `None` while
    /// nothing can be said.
    pub fn left_s(&self, now: Tick) -> Option<u64> {
        if self.lanes_walking + self.lanes_waiting + self.queued == 0 {
            return Some(0);
        }
        let shipped = self.found.checked_sub(self.queued).filter(|&shipped| shipped > 0)?;
        let spent_us = u128::from(now.us_since(self.since?));
        let left_us = spent_us * u128::from(self.unfound() + self.queued) / u128::from(shipped);
        u64::try_from(left_us.div_ceil(1_000_000)).ok()
    }
}

#[derive(Clone, Copy, Debug)]
struct Walk {
    namespace: NamespaceId,
    opened: Tick,
    /// Later changes have been submitted themselves.
    until: Lut,
    /// Everything below has been given.
    complete_below: Lut,
    /// Lowest LUT wanted.
    from: Lut,
    lanes: u32,
    lanes_opened: u32,
    examined: u64,
    taken: u64,
    /// How much of it is done and how much it is in all, in the host's unit.
    work: (u64, u64),
    /// Changes known to be missed when it opened.
    expected: u64,
}

impl Walk {
    /// Records it will still take, estimated: once a tenth is done, the rest is taken to yield as
    /// much as that.
    fn still_owes(&self) -> u64 {
        let (done, total) = (u128::from(self.work.0), u128::from(self.work.1));
        let to_come = match done * 10 >= total && done > 0 {
            true => u128::from(self.taken) * total.saturating_sub(done) / done,
            false => u128::from(self.expected.saturating_sub(self.taken)),
        };
        (to_come * u128::from(self.lanes) / u128::from(self.lanes_opened.max(1))) as u64
    }
}

/// What is kept of a namespace's recoveries beside the walks themselves.
struct Finds {
    /// Chunks for what walks of the namespace found.
    pool: Pool,
    /// No walk opens before this millisecond: a straggler may still undo what it would ship.
    hold_until_ms: Option<u32>,
    search_at: Tick,
    /// `max-recoveries-interleaved` lets no walk open for more of its lanes now.
    is_cut: bool,
    /// Changes left to gaps, as far as they are known.
    missed: u64,
    /// When the present recovery began, and how many records had been found before.
    since: Option<(Tick, u64)>,
}

/// All recovery state of a DC.
pub(super) struct Walks {
    /// By block of lanes.
    finds: Vec<Finds>,
    /// Lanes with finds queued.
    queued: Bitmap,
    lanes: Vec<WalkingLane>,
    free: Vec<u32>,
    /// [`WALKS_MAX`] for each block. They outlive the namespace until they are closed at the host.
    open: Vec<Option<Walk>>,
    /// The block that opens the next walk, if it wants one.
    turn: usize,
    chunks_max: u32,
}

impl Walks {
    pub(super) fn new(chunks_max: u32) -> Self {
        Self {
            finds: Vec::new(),
            queued: Bitmap::default(),
            lanes: Vec::new(),
            free: Vec::new(),
            open: Vec::new(),
            turn: 0,
            chunks_max,
        }
    }

    pub(super) fn grow(&mut self, blocks: usize, lanes: usize) {
        self.queued.grow(lanes);
        self.open.resize(blocks * WALKS_MAX, None);
        let pool = || Pool::new(self.chunks_max);
        let finds = || Finds {
            pool: pool(),
            hold_until_ms: None,
            search_at: Tick(0),
            is_cut: false,
            missed: 0,
            since: None,
        };
        self.finds.resize_with(blocks, finds);
    }

    pub(super) fn bytes(&self) -> usize {
        self.finds.iter().map(|finds| finds.pool.bytes()).sum::<usize>()
            + self.lanes.capacity() * size_of::<WalkingLane>()
    }

    #[inline]
    pub(super) fn queue_of(&self, block: u32, walking: u32) -> (&Ring, &Pool) {
        static NOTHING: Ring = Ring::EMPTY;
        let ring = self.lanes.get(walking as usize).map_or(&NOTHING, |lane| &lane.ring);
        (ring, &self.finds[block as usize].pool)
    }

    /// Lanes with finds queued.
    #[inline]
    pub(super) const fn queued(&self) -> &Bitmap {
        &self.queued
    }

    /// Whether any walk is open.
    pub(super) fn any(&self) -> bool {
        self.open.iter().any(Option::is_some)
    }

    /// Whether finds of a block's namespace are queued.
    #[inline]
    pub(super) fn has_finds(&self, block: u32) -> bool {
        self.finds[block as usize].pool.used() > 0
    }

    /// The lowest LUT a walking lane still owes.
    pub(super) fn lowest(&self, block: u32, walking: u32) -> Option<Lut> {
        let lane = self.lanes.get(walking as usize)?;
        let walk = lane.walk.and_then(|walk| self.open[usize::from(walk)].as_ref());
        let to_come = walk.map(|walk| match planted(Mutation::RecoveryTakesItsEnd) {
            true => walk.until,
            false => walk.complete_below.max(lane.from),
        });
        to_come.into_iter().chain(lane.ring.lowest(&self.finds[block as usize].pool)).min()
    }
}

impl Finds {
    fn is_held(&mut self, now: Tick) -> bool {
        let held = self.hold_until_ms.is_some_and(|ms| {
            let wait_ms = ms.wrapping_sub(ms_of(now) as u32) as i32;
            wait_ms > 0
        });
        if !held {
            self.hold_until_ms = None;
        }
        held
    }
}

impl DcShard {
    /// Whether any lane waits for recovery.
    pub fn has_gaps(&self) -> bool {
        !self.lanes.gaps().is_empty()
    }

    /// Lanes to recover now, as a walk to open at the host; from then on they queue again.
    /// Namespaces take turns. `issued`: no version of a namespace issued so far has a LUT above it.
    pub fn begin_walk(
        &mut self,
        now: Now,
        routes: &impl Routes,
        issued: impl Fn(NamespaceId) -> Lut,
    ) -> Option<WalkRequest> {
        if self.lanes.gaps().is_empty() || now.tick < self.held_until() {
            return None;
        }
        let blocks = self.spaces.blocks() as usize;
        let turn = self.walks.turn;
        for block in (0..blocks).map(|step| (turn + step) % blocks) {
            let request = self.begin_walk_in(block as u32, now, routes, &issued);
            if request.is_some() {
                self.walks.turn = (block + 1) % blocks;
                return request;
            }
        }
        None
    }

    fn begin_walk_in(
        &mut self,
        block: u32,
        now: Now,
        routes: &impl Routes,
        issued: impl Fn(NamespaceId) -> Lut,
    ) -> Option<WalkRequest> {
        let namespace = self.spaces.in_block(block)?;
        if now.tick < self.returns_at(namespace) || !self.may_walk(block, now.tick) {
            return None;
        }
        self.walks.finds[block as usize].search_at = now.tick.plus_ms(SEARCH_MS);
        let own = block as usize * WALKS_MAX..(block as usize + 1) * WALKS_MAX;
        let walk = own.clone().find(|&walk| self.walks.open[walk].is_none())?;
        let was_cut = self.walks.finds[block as usize].is_cut;
        let (lanes, is_cut) = self.lanes_to_walk(block, routes);
        let finds = &mut self.walks.finds[block as usize];
        finds.is_cut = is_cut;
        if is_cut {
            // Nothing fruitless about it: the next may open when this one ends.
            finds.search_at = now.tick;
        }
        let from = lanes.iter().map(|&lane| self.walk_from(lane)).min()?;
        self.laps[block].walk_begins();
        let expected = self.take_missed(block, lanes.len() as u64, !was_cut, now.tick);
        let ns = self.attached(namespace)?;
        self.walks.open[walk] = Some(Walk {
            namespace,
            opened: now.tick,
            until: match planted(Mutation::OverflowForgetsNewest) {
                true => ns.newest.minus_ms(1),
                false => ns.newest.max(issued(namespace)),
            },
            complete_below: Lut::ZERO,
            from,
            lanes: lanes.len() as u32,
            lanes_opened: lanes.len() as u32,
            examined: 0,
            taken: 0,
            work: (0, 0),
            expected,
        });
        let start = |dc: &mut Self, &lane: &u32| dc.start_walking(lane, walk as u8);
        let lanes = lanes.iter().map(|lane| start(self, lane)).collect();
        Some(WalkRequest { walk: WalkIndex(walk as u8), namespace, lanes })
    }

    /// Whether a block's namespace has lanes to recover and may open a walk.
    fn may_walk(&mut self, block: u32, now: Tick) -> bool {
        let finds = &mut self.walks.finds[block as usize];
        if now < finds.search_at || finds.is_held(now) {
            return false;
        }
        let Some(ns) = self.attached_in(block) else { return false };
        let lanes = self.lanes_of_block(block);
        let gathered = |walk: &Walk| walk.opened.plus_ms(GATHER_MS) <= now;
        !ns.paused
            // A parked namespace needs something to probe with.
            && ns.parked.is_none_or(|parked| parked.may_probe(now))
            && self.lanes.gaps().next_at(lanes.start).is_some_and(|lane| lane < lanes.end)
            && self
                .spaces
                .in_block(block)
                .is_some_and(|namespace| self.open_walks(namespace).all(gathered))
    }

    /// Holds a namespace's walks back until a millisecond given by its low 32 bits.
    pub(super) fn hold_walks(&mut self, lane: u32, ms: u32) {
        let block = self.block_of(lane);
        let finds = &mut self.walks.finds[block as usize];
        let later = finds.hold_until_ms.is_none_or(|held| (ms.wrapping_sub(held) as i32) > 0);
        if later {
            finds.hold_until_ms = Some(ms);
        }
    }

    /// Changes are left to the recovery of a lane.
    #[inline]
    pub(super) fn note_missed(&mut self, lane: u32, changes: u64) {
        let block = self.block_of(lane);
        self.walks.finds[block as usize].missed += changes;
    }

    /// So many changes are what gaps of a block hold.
    pub(super) fn expect_missed(&mut self, block: u32, changes: u64) {
        self.walks.finds[block as usize].missed = changes;
    }

    /// A walk begins for so many lanes with a gap: gives its part of what is known to be missed.
    fn take_missed(&mut self, block: u32, lanes: u64, is_new: bool, now: Tick) -> u64 {
        let range = self.lanes_of_block(block);
        let gaps = range.clone().filter(|&lane| self.lanes.gaps().contains(lane)).count() as u64;
        let is_first = is_new && !range.clone().any(|lane| self.lanes[lane].is_walking());
        let found = self.attached_in(block).map_or(0, |ns| ns.counters.walked);
        let finds = &mut self.walks.finds[block as usize];
        if is_first {
            finds.since = Some((now, found));
        }
        let part = finds.missed * lanes / gaps.max(1);
        finds.missed -= part;
        part
    }

    /// Whether lanes of a namespace wait for `max-recoveries-interleaved`.
    pub fn walks_are_cut(&self, namespace: NamespaceId) -> bool {
        let block = self.attached(namespace).map(|ns| ns.block);
        block.is_some_and(|block| self.walks.finds[block as usize].is_cut)
    }

    /// Takes how much of a walk is done, and how much it is in all, in any unit.
    pub fn walk_work(&mut self, walk: WalkIndex, done: u64, total: u64) {
        if let Some(open) = &mut self.walks.open[usize::from(walk.0)] {
            open.work = (done, total);
        }
    }

    /// Forgets what a block's walks know, and until which millisecond they were held back for
    /// stragglers, if they were.
    pub(super) fn forget_hold(&mut self, block: u32) -> Option<u32> {
        let finds = &mut self.walks.finds[block as usize];
        (finds.missed, finds.since, finds.is_cut) = (0, None, false);
        finds.hold_until_ms.take()
    }

    fn open_walks(&self, namespace: NamespaceId) -> impl Iterator<Item = &Walk> {
        self.walks.open.iter().flatten().filter(move |walk| walk.namespace == namespace)
    }

    /// Lanes that the next walk may take, and whether the limit keeps it from taking more.
    fn lanes_to_walk(&self, block: u32, routes: &impl Routes) -> (Vec<u32>, bool) {
        let Some(namespace) = self.spaces.in_block(block) else { return (Vec::new(), false) };
        let block = self.lanes_of_block(block);
        let most = match self.limits.recoveries_interleaved {
            0 => u32::MAX,
            // Of this namespace alone: walks of a slow or parked one stand for as long as it does.
            most => most.saturating_sub(self.open_walks(namespace).map(|walk| walk.lanes).sum()),
        };
        let mut from = block.start;
        let gaps = std::iter::from_fn(|| {
            let lane = self.lanes.gaps().next_at(from).filter(|&lane| lane < block.end)?;
            from = lane + 1;
            Some(lane)
        });
        let mut lanes = gaps.filter(|&lane| routes.has_node(namespace, self.partition_of(lane)));
        let taken = lanes.by_ref().take(most as usize).collect();
        (taken, lanes.next().is_some())
    }

    /// Where the walk of a lane with a gap begins. Queues know only a lower bound of what they left
    /// to the gap; below the LST all is settled.
    pub(super) fn walk_from(&self, lane: u32) -> Lut {
        let lane = &self.lanes[lane];
        let settled = lane.lst.get();
        let settled = if planted(Mutation::WalksEverything) { Lut::ZERO } else { settled };
        lane.gap().max(settled)
    }

    fn start_walking(&mut self, lane: u32, walk: u8) -> (PartitionId, Lut) {
        self.leave_walk(lane);
        let from = self.walk_from(lane);
        self.lanes.close_gap(lane);
        let walking = WalkingLane { ring: Ring::EMPTY, walk: Some(walk), from };
        let place = match self.walks.free.pop() {
            Some(free) => {
                self.walks.lanes[free as usize] = walking;
                free
            }
            None => {
                self.walks.lanes.push(walking);
                self.walks.lanes.len() as u32 - 1
            }
        };
        self.lanes[lane].enter_walk(place);
        (self.partition_of(lane), from)
    }

    /// What is to be done with an open walk.
    pub fn walk_demand(&self, walk: WalkIndex) -> WalkDemand {
        let pool = &self.walks.finds[usize::from(walk.0) / WALKS_MAX].pool;
        match &self.walks.open[usize::from(walk.0)] {
            None => WalkDemand::Close,
            Some(walk) if walk.lanes == 0 => WalkDemand::Close,
            // The other half takes what one step may bring.
            Some(_) if pool.used() * 2 < self.walks.chunks_max => WalkDemand::Step,
            Some(_) => WalkDemand::Wait,
        }
    }

    /// Takes what a step of a walk found.
    pub fn walked<'a>(
        &mut self,
        walk: WalkIndex,
        found: &[Walked],
        set_name: impl Fn(SetId) -> &'a str,
    ) {
        let Some(open) = self.walks.open[usize::from(walk.0)] else { return };
        let destination = self.destination();
        let mut taken = 0;
        for record in found {
            let Some(lane) = self.lane_of(open.namespace, record.digest.partition()) else {
                return;
            };
            let walking = self.lanes[lane].walking();
            let Some(scope) = self.walks.lanes.get(walking as usize) else { continue };
            let (in_walk, from) = (scope.walk == Some(walk.0), scope.from);
            let ns = self.ns_of(lane);
            let owed = ns.policy.owed(record, open.until);
            let from = from.plus_ms(u64::from(planted(Mutation::LstInclusive)));
            let skipped = planted(Mutation::RecoverySkipsTombstones) && record.kind.is_delete();
            if in_walk
                && !skipped
                && (from..=open.until).contains(&owed)
                && owed != Lut::ZERO
                && !Policy::is_echo(record.shipped, record.src_id, destination)
                && ns.ships_set(record.set, set_name(record.set))
            {
                let entry = Entry::new(record.digest, owed);
                // What it stands for has shipped, and came back over another cluster: so it would
                // go round for as long as the walk is open.
                let has_come_back = record.shipped
                    && record.version.lut() >= open.until
                    && self.ahead.covers(&entry, lane);
                if !has_come_back {
                    taken += 1;
                    self.queue_walked(lane, entry);
                }
            }
        }
        if let Some(open) = &mut self.walks.open[usize::from(walk.0)] {
            open.examined += found.len() as u64;
            open.taken += taken;
        }
    }

    /// How far the recoveries of a namespace have come.
    pub fn recovery_progress(&self, namespace: NamespaceId) -> RecoveryProgress {
        let Some(ns) = self.attached(namespace) else { return RecoveryProgress::default() };
        let waiting =
            self.lanes_of_block(ns.block).filter(|&lane| self.lanes.gaps().contains(lane));
        let mut sum = RecoveryProgress {
            lanes_waiting: waiting.count() as u64,
            position: self
                .open_walks(namespace)
                .map(|w| w.complete_below)
                .min()
                .unwrap_or_default(),
            ..RecoveryProgress::default()
        };
        for walk in self.open_walks(namespace) {
            sum.lanes_walking += u64::from(walk.lanes);
            sum.examined += walk.examined;
            sum.taken += walk.taken;
            sum.until = sum.until.max(walk.until);
        }
        sum.from = self.open_walks(namespace).map(|walk| walk.from).min().unwrap_or_default();
        let finds = &self.walks.finds[ns.block as usize];
        sum.missed = finds.missed;
        sum.to_come = self.open_walks(namespace).map(Walk::still_owes).sum();
        let queued = |lane: u32| self.walks.queue_of(ns.block, self.lanes[lane].walking()).0;
        sum.queued = self.lanes_of_block(ns.block).map(|lane| u64::from(queued(lane).len())).sum();
        if let Some((since, found)) = finds.since {
            sum.since = Some(since);
            sum.found = ns.counters.walked.saturating_sub(found);
        }
        sum
    }

    fn queue_walked(&mut self, lane: u32, entry: Entry) {
        let walking = self.lanes[lane].walking() as usize;
        self.ns_of(lane).counters.walked += 1;
        let block = self.block_of(lane);
        let pool = &mut self.walks.finds[block as usize].pool;
        if self.walks.lanes[walking].ring.push_back(entry, pool).is_err() {
            self.ns_of(lane).counters.dropped_to_recovery += 1;
            self.note_missed(lane, 1);
            return self.open_gap(lane, entry.lut.get());
        }
        self.turns_of(lane).wake();
        self.ns_of(lane).gauges.in_queue += 1;
        self.walks.queued.insert(lane);
    }

    /// Whether a lane is in a walk that began at `lut` at the latest.
    pub(super) fn is_walked_since(&self, lane: u32, lut: Lut) -> bool {
        let walking = self.lanes[lane].walking() as usize;
        let walk = self.walks.lanes.get(walking).and_then(|lane| lane.walk);
        let open = walk.and_then(|walk| self.walks.open[usize::from(walk)]);
        open.is_some_and(|open| lut >= open.until)
    }

    /// Takes how far a walk has come: every record of its lanes with a version or `local_lut` below
    /// `complete_below` has been given.
    pub fn walk_progress(&mut self, walk: WalkIndex, complete_below: Lut) {
        if let Some(open) = &mut self.walks.open[usize::from(walk.0)] {
            open.complete_below = open.complete_below.max(complete_below);
        }
    }

    /// Takes a walk as done: everything has been given, and it is closed at the host.
    pub fn walk_done(&mut self, walk: WalkIndex) {
        let Some(open) = self.walks.open[usize::from(walk.0)] else { return };
        let Some(block) = self.attached(open.namespace).map(|ns| ns.block) else { return };
        for lane in self.lanes_of_block(block) {
            let walking = self.lanes[lane].walking() as usize;
            if self.walks.lanes.get(walking).is_some_and(|lane| lane.walk == Some(walk.0)) {
                self.walks.lanes[walking].walk = None;
                self.ns_of(lane).counters.recoveries += 1;
                self.stop_walking_if_done(lane);
            }
        }
        self.walks.open[usize::from(walk.0)] = None;
    }

    /// Takes a walk as closed early at the host: what it had not given stays a gap.
    pub fn walk_closed(&mut self, walk: WalkIndex) {
        let Some(open) = self.walks.open[usize::from(walk.0)] else { return };
        if let Some(block) = self.attached(open.namespace).map(|ns| ns.block) {
            for lane in self.lanes_of_block(block) {
                let walking = self.lanes[lane].walking() as usize;
                if self.walks.lanes.get(walking).is_some_and(|lane| lane.walk == Some(walk.0)) {
                    self.open_gap(lane, Lut::MAX);
                }
            }
        }
        self.walks.open[usize::from(walk.0)] = None;
    }

    fn stop_walking_if_done(&mut self, lane: u32) {
        let walking = &self.walks.lanes[self.lanes[lane].walking() as usize];
        if walking.walk.is_none() && walking.ring.is_empty() {
            self.walks.free.extend(self.lanes[lane].leave_walk());
        }
    }

    /// Takes the next walked change of a lane out of its queue.
    #[inline]
    pub(super) fn pop_walked(&mut self, lane: u32) {
        let walking = self.lanes[lane].walking() as usize;
        let block = self.block_of(lane);
        let pool = &mut self.walks.finds[block as usize].pool;
        let ring = &mut self.walks.lanes[walking].ring;
        ring.pop(pool);
        if ring.is_empty() {
            self.walks.queued.remove(lane);
            self.stop_walking_if_done(lane);
        }
    }

    /// Takes a lane out of its walk; what it had not shipped stays a gap.
    pub(super) fn leave_walk(&mut self, lane: u32) {
        let block = self.block_of(lane);
        let Some(place) = self.lanes[lane].leave_walk() else { return };
        if let Some(owed) = self.walks.lowest(block, place) {
            self.lanes.miss(lane, owed);
        }
        let walking = &mut self.walks.lanes[place as usize];
        let finds = &mut self.walks.finds[block as usize];
        let left = walking.ring.clear(&mut finds.pool);
        finds.missed += u64::from(left);
        if let Some(walk) = walking.walk.take()
            && let Some(open) = &mut self.walks.open[usize::from(walk)]
        {
            finds.missed += open.still_owes() / u64::from(open.lanes);
            open.lanes -= 1;
        }
        self.walks.free.push(place);
        self.walks.queued.remove(lane);
        let ns = self.ns_of(lane);
        ns.gauges.in_queue -= u64::from(left);
        ns.counters.dropped_to_recovery += u64::from(left);
    }

    /// Changes with LUTs `from..=to` were made but could not be submitted, a mailbox being full:
    /// their lane is left to recovery.
    pub fn missed(&mut self, namespace: NamespaceId, partition: PartitionId, from: Lut, to: Lut) {
        let Some(lane) = self.lane_of(namespace, partition) else { return };
        let ns = self.ns_of(lane);
        ns.newest = ns.newest.max(to);
        self.open_gap(lane, from);
    }

    /// Leaves a lane to recovery: from `lut` on, and everything it has queued.
    pub(super) fn open_gap(&mut self, lane: u32, lut: Lut) {
        let from = if planted(Mutation::WalksEverything) { Lut::ZERO } else { lut };
        let left = self.lanes.leave(lane, from);
        self.note_missed(lane, u64::from(left));
        self.leave_walk(lane);
        let ns = self.ns_of(lane);
        ns.gauges.in_queue -= u64::from(left);
        ns.counters.dropped_to_recovery += u64::from(left);
    }
}

impl Policy {
    /// LUT of the change that is owed of a record found by a walk; [`Lut::ZERO`] for none.
    ///
    /// Without `forward` only the source's own changes are owed, whatever came on top.
    ///
    /// Without `ship-nsup-deletes` an expiry is not owed for its own sake. But it may have hidden a
    /// write that was to ship: then the destination may hold an older version, and gets the delete.
    /// The time of that write is `local_lut` if the source itself made it. With `forward` a shipper
    /// may have made it, and its time is not known: every expiry since the gap counts.
    fn owed(&self, record: &Walked, until: Lut) -> Lut {
        let expiry = record.kind == ChangeKind::NsupDelete;
        let any = self.forward || planted(Mutation::RecoveryByLut);
        if expiry && !self.ship_nsup_deletes {
            return if any { record.version.lut().min(until) } else { record.local_lut };
        }
        if !self.ships_kind(record.kind) {
            return Lut::ZERO;
        }
        if any || expiry && !record.shipped { record.version.lut() } else { record.local_lut }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Desk, NS, START_MS, digest, policy, walked};
    use super::super::{Admission, Limits, Room, Start};
    use super::*;
    use crate::model::{SrcId, Version};

    fn version(ms: u64) -> Version {
        Version::first_of(Lut::from_ms(START_MS + ms))
    }

    /// A desk whose partition 1 was last settled at 100 ms and is attached at 200 ms.
    fn restarted(policy: Policy) -> (Desk, WalkRequest) {
        let mut desk = Desk::without_namespace(Limits::default());
        desk.wait(200).attach(policy, |partition| match partition.index() {
            1 => Start::From(Lut::from_ms(START_MS + 100)),
            _ => Start::Now,
        });
        let walk = desk.begin_walk().expect("a lane to recover");
        (desk, walk)
    }

    #[test]
    fn a_walk_looks_for_nothing_below_the_lst_though_queues_know_only_a_bound() {
        let mut desk = Desk::plain();
        assert_eq!(desk.wait(100).lst(1), 100);
        let early = desk.wait(1).change(digest(1, 1));
        let late = desk.wait(49).change(digest(1, 2));
        for change in [late, early] {
            desk.submit(&change);
        }
        let (out, _) = desk.dispatch_idle(1);
        assert_eq!(out[0].lut, late.version.lut(), "the head and the rest are out of order");
        desk.dc.missed(NS, PartitionId::new(1), late.version.lut(), late.version.lut());
        let walk = desk.begin_walk().expect("a lane to recover");
        assert_eq!(walk.lanes, [(PartitionId::new(1), Lut::from_ms(START_MS + 100))]);
        assert_eq!(desk.dc.recovery_progress(NS).from, Lut::from_ms(START_MS + 100));
    }

    #[test]
    fn what_is_left_of_a_recovery_is_told_by_how_fast_it_went() {
        let progress = |found, queued, to_come, walking| RecoveryProgress {
            lanes_walking: walking,
            found,
            queued,
            to_come,
            since: Some(Tick(1_000_000)),
            ..RecoveryProgress::default()
        };
        let check = |progress: RecoveryProgress, expected| {
            assert_eq!(progress.left_s(Tick(11_000_000)), expected, "{progress:?}");
        };
        check(progress(0, 0, 0, 0), Some(0));
        check(progress(100, 100, 900, 5), None);
        check(progress(300, 100, 500, 5), Some(30));
        check(progress(1000, 20, 0, 5), Some(1));
        let mut sum = progress(300, 100, 500, 5);
        sum.add(&progress(300, 100, 500, 5));
        check(sum, Some(30));
        assert_eq!(sum.lanes_walking, 10);
    }

    /// Ten tenths of a recovery; from the second on everything told is close to the truth.
    #[test]
    fn a_recovery_tells_how_much_is_left_of_it() {
        let mut desk = Desk::plain();
        let clock = desk.now().wall;
        desk.dc.pause(|_| clock);
        for n in 0..500 {
            let change = desk.change(digest(n as u16 % 64, n));
            desk.dc.submit(&change, "", desk.now());
        }
        let backlog = |desk: &Desk| desk.dc.dc_stats().backlog_records();
        assert_eq!(backlog(&desk), 500, "what is paused counts");
        desk.dc.resume(|_| clock);
        let walk = desk.wait(10).begin_walk().expect("lanes to recover").walk;
        assert_eq!(backlog(&desk), 500, "so does what a walk is to find");
        let begun = desk.now().tick;
        for tenth in 0..10 {
            let finds: Vec<Walked> = (50 * tenth..50 * (tenth + 1))
                .map(|n| walked(digest(n as u16 % 64, n), version(0)))
                .collect();
            desk.dc.walked(walk, &finds, |_| "");
            desk.dc.walk_work(walk, u64::from(tenth) + 1, 10);
            desk.wait(1000);
            assert_eq!(desk.ship_all().len(), 50);
            let (left, spent_s) = (500 - 50 * (u64::from(tenth) + 1), u64::from(tenth) + 1);
            assert_eq!(desk.now().tick.us_since(begun), spent_s * 1_000_000);
            if tenth > 0 {
                assert_eq!(backlog(&desk), left);
                let recovery = desk.dc.dc_stats().recovery;
                assert_eq!(recovery.left_s(desk.now().tick), Some(10 - spent_s));
            }
        }
        desk.dc.walk_done(walk);
        assert_eq!((backlog(&desk), desk.dc.dc_stats().recoveries_pending), (0, 0));
    }

    #[test]
    fn a_restart_walks_from_the_marks() {
        let (desk, walk) = restarted(policy());
        let partition = PartitionId::new(1);
        assert_eq!(walk.lanes, [(partition, Lut::from_ms(START_MS + 100))]);
        assert_eq!(desk.dc.stats(NS).map(|stats| stats.recoveries_pending), Some(1));
    }

    #[test]
    fn a_walk_takes_what_its_lane_owes() {
        let check = |forward: bool, lut: u64, local: u64, src_id: Option<u8>, taken: bool| {
            let (mut desk, walk) = restarted(Policy { forward, ..policy() });
            desk.dc.set_destination(SrcId(7));
            let local_lut = if local == 0 { Lut::ZERO } else { version(local).lut() };
            let src = src_id.map_or(SrcId::NONE, SrcId);
            let base = walked(digest(1, 1), version(lut));
            let record = Walked { local_lut, shipped: src_id.is_some(), src_id: src, ..base };
            desk.dc.walked(walk.walk, &[record], |_| "");
            assert_eq!(desk.dc.dc_stats().counters.walked, u64::from(taken), "{record:?}");
        };
        check(false, 150, 150, None, true);
        check(false, 100, 100, None, true);
        check(false, 200, 200, None, true);
        check(false, 99, 99, None, false);
        check(false, 201, 201, None, false);
        // Shipped in on top of an own change: that one is still owed.
        check(false, 300, 150, Some(3), true);
        check(false, 150, 99, Some(3), false);
        check(false, 150, 0, Some(3), false);
        check(true, 150, 0, Some(3), true);
        check(true, 150, 0, Some(7), false);
        check(true, 150, 150, Some(7), false);
    }

    #[test]
    fn other_lanes_and_closed_walks_take_nothing() {
        let (mut desk, walk) = restarted(policy());
        desk.dc.walked(walk.walk, &[walked(digest(2, 1), version(150))], |_| "");
        desk.dc.walk_closed(walk.walk);
        desk.dc.walked(walk.walk, &[walked(digest(1, 1), version(150))], |_| "");
        assert_eq!(desk.dc.dc_stats().counters.walked, 0);
        assert_eq!(desk.dc.walk_demand(walk.walk), WalkDemand::Close);
        desk.wait(2000);
        assert!(desk.begin_walk().is_some(), "what was not given is still owed");
    }

    #[test]
    fn the_lst_follows_the_walk_and_what_it_found() {
        let (mut desk, walk) = restarted(policy());
        assert_eq!(desk.wait(100).lst(1), 100);
        assert_eq!(desk.lst(2), 300);
        desk.dc.walked(walk.walk, &[walked(digest(1, 1), version(120))], |_| "");
        desk.dc.walk_progress(walk.walk, version(150).lut());
        assert_eq!(desk.lst(1), 120);
        desk.ship_all();
        assert_eq!(desk.lst(1), 150);
        desk.dc.walk_done(walk.walk);
        assert_eq!(desk.lst(1), 300);
        assert_eq!(desk.dc.dc_stats().counters.recoveries, 1);
    }

    #[test]
    fn an_overflow_while_walking_starts_over_from_where_the_walk_was() {
        let (mut desk, walk) = restarted(Policy { queue_entries_max: 2, ..policy() });
        desk.dc.walk_progress(walk.walk, version(150).lut());
        desk.dc.walked(walk.walk, &[walked(digest(1, 9), version(160))], |_| "");
        for (n, admission) in [(0, Admission::Queued), (1, Admission::Behind)] {
            assert_eq!(desk.wait(10).write(digest(1, n)), admission);
        }
        assert_eq!(desk.wait(10).write(digest(1, 2)), Admission::Overflowed);
        assert_eq!(desk.dc.walk_demand(walk.walk), WalkDemand::Close);
        assert_eq!(desk.lst(1), 150);
        desk.dc.walk_closed(walk.walk);
        let next = desk.wait(1000).begin_walk().expect("again");
        assert_eq!(next.lanes, [(PartitionId::new(1), version(150).lut())]);
        assert_eq!(desk.dc.dc_stats().counters.dropped_to_recovery, 4);
    }

    #[test]
    fn recoveries_at_the_same_time_are_bounded() {
        let limits = Limits { recoveries_interleaved: 3, ..Limits::default() };
        let mut desk = Desk::without_namespace(limits);
        desk.wait(10).attach(policy(), |_| Start::From(Lut::ZERO));
        let first = desk.begin_walk().expect("lanes to recover");
        assert_eq!(first.lanes.len(), 3);
        assert!(desk.wait(2000).begin_walk().is_none());
        assert!(desk.dc.walks_are_cut(NS));
        let since = desk.dc.recovery_progress(NS).since;
        desk.dc.walk_done(first.walk);
        let second = desk.begin_walk().expect("the next ones, at once");
        assert_eq!(desk.dc.recovery_progress(NS).since, since, "one recovery");
        let partitions: Vec<usize> = second.lanes.iter().map(|(p, _)| p.index()).collect();
        assert_eq!(partitions, [3, 4, 5]);
    }

    #[test]
    fn what_a_walk_finds_is_bounded_and_the_rest_is_walked_again() {
        let mut desk =
            Desk::without_namespace(Limits { walked_bytes: 404 * 4, ..Limits::default() });
        desk.wait(10).attach(policy(), |_| Start::From(Lut::ZERO));
        let walk = desk.begin_walk().expect("lanes to recover").walk;
        assert_eq!(desk.dc.walk_demand(walk), WalkDemand::Step);
        for n in 0..100 {
            desk.dc.walked(walk, &[walked(digest(1 + n % 2, u32::from(n)), version(5))], |_| "");
            desk.check();
        }
        assert_eq!(desk.dc.walk_demand(walk), WalkDemand::Wait);
        assert_eq!(desk.dc.dc_stats().counters.dropped_to_recovery, 33, "one lane left it");
        desk.dc.walk_done(walk);
        assert_eq!(desk.ship_all().len(), 50);
        let next = desk.wait(2000).begin_walk().expect("again");
        assert_eq!(next.lanes, [(PartitionId::new(1), Lut::ZERO)]);
    }

    #[test]
    fn lanes_without_a_node_wait_for_one() {
        let mut desk = Desk::without_namespace(Limits::default());
        desk.node.room = Room::NoNode;
        desk.wait(10).attach(policy(), |_| Start::From(Lut::ZERO));
        assert!(desk.begin_walk().is_none());
        desk.node.room = Room::Full(0);
        assert!(desk.wait(100).begin_walk().is_some());
    }

    #[test]
    fn a_rewind_never_shortens_what_is_owed() {
        let (mut desk, walk) = restarted(policy());
        desk.dc.rewind(NS, version(150).lut());
        assert_eq!((desk.lst(1), desk.lst(2)), (100, 150));
        desk.dc.walk_closed(walk.walk);
        let next = desk.wait(2000).begin_walk().expect("all lanes");
        assert_eq!(next.lanes.len(), 4096);
        assert_eq!(next.lanes[1].1, version(100).lut());
    }

    /// An open ticket holds the version clock back, not the versions issued since.
    #[test]
    fn a_walk_takes_what_was_missed_while_a_ticket_was_open() {
        let mut desk = Desk::plain();
        let at = |ms: u64| version(ms).lut();
        desk.wait(10).dc.missed(NS, PartitionId::new(1), at(5), at(10));
        let open = |desk: &mut Desk, issued: u64| {
            let now = desk.now();
            let (node, dc) = (&desk.node, &mut desk.dc);
            dc.begin_walk(now, node, |_| at(issued)).expect("a lane to recover").walk
        };
        let walk = open(&mut desk, 3);
        let found = [5, 10].map(|ms| walked(digest(1, ms as u32), version(ms)));
        desk.dc.walked(walk, &found, |_| "");
        assert_eq!(desk.dc.dc_stats().counters.walked, 2, "what was missed is known to exist");
        desk.dc.walk_done(walk);
        desk.wait(2000).dc.missed(NS, PartitionId::new(2), at(20), at(20));
        let walk = open(&mut desk, 40);
        let hidden = Walked { local_lut: at(20), ..walked(digest(2, 1), version(40)) };
        desk.dc.walked(walk, &[hidden], |_| "");
        assert_eq!(desk.dc.dc_stats().counters.walked, 3, "a newer version that stands there");
    }

    #[test]
    fn what_comes_back_while_its_walk_is_open_does_not_go_round_for_ever() {
        let (mut desk, walk) = restarted(policy());
        let key = digest(1, 1);
        // Over a write of a client here lies what another cluster wrote, and comes from it again
        // whenever it was shipped there.
        let mut trips = 0;
        for ms in [150, 210, 220, 230] {
            let own = version(120).lut();
            let record = Walked { local_lut: own, shipped: true, ..walked(key, version(ms)) };
            desk.records.insert(key, record.version);
            desk.wait(10).dc.walked(walk.walk, &[record], |_| "");
            trips += desk.ship_all().len();
        }
        assert_eq!(trips, 2, "one of what was there, and one of what came since");
        // What the destination has lost ships again.
        desk.dc.rewind(NS, version(100).lut());
        let walk = desk.wait(2000).begin_walk().expect("lanes to recover");
        let lost = Walked { local_lut: version(120).lut(), ..walked(key, version(230)) };
        desk.dc.walked(walk.walk, &[Walked { shipped: true, ..lost }], |_| "");
        assert_eq!(desk.ship_all().len(), 1);
    }

    #[test]
    fn an_expiry_is_recovered_as_far_as_the_record_went() {
        let check = |ship_nsup_deletes: bool, local: u64, shipped: bool, taken: bool| {
            let (mut desk, walk) = restarted(Policy { ship_nsup_deletes, ..policy() });
            let record = Walked {
                kind: ChangeKind::NsupDelete,
                local_lut: if local == 0 { Lut::ZERO } else { version(local).lut() },
                shipped,
                ..walked(digest(1, 1), version(150))
            };
            desk.dc.walked(walk.walk, &[record], |_| "");
            assert_eq!(desk.dc.dc_stats().counters.walked, u64::from(taken), "{record:?}");
        };
        check(true, 50, false, true);
        check(true, 50, true, false);
        check(true, 120, true, true);
        check(false, 50, false, false);
        check(false, 120, false, true);
        check(false, 0, true, false);
    }
}
