//! Everything one shard knows about shipping to one DC, and how namespaces come and go.

use super::ahead::Ahead;
use super::bitmap::Bitmap;
use super::checkpoint::Sweep;
use super::detach::Remains;
use super::durable::NodeAcks;
use super::held::Held;
use super::lane::Lane;
use super::letters::Lettered;
use super::mutation::{Mutation, planted};
use super::queue::{CHUNK_BYTES, PackedLut, Pool};
use super::recovery::Walks;
use super::refusals::Refusals;
use super::rounds::Turns;
use super::slots::Slots;
use super::stats::{Averages, Counters, Gauges, LimitedBy, Stats};
use super::throttle::Throttle;
use super::timers::{List, Wheel};
use super::{Parked, Policy};
use crate::limits;
use crate::model::{Digest, Lut, NamespaceId, PARTITION_COUNT, PartitionId, SrcId, Tick};
use crate::wire::ResultCode;

/// One reading of both clocks, taken once per turn of a loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Monotonic.
    pub tick: Tick,
    /// Wall clock, as LUTs count.
    pub wall: Lut,
}

/// Bounds of one DC on one shard, fixed when it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Changes being read, sent or answered.
    pub window: u32,
    /// Changes waiting for a retry, a hot key's time, a grace re-ship or a dead letter.
    pub waiting: u32,
    /// Of these, entries made because a key is hot.
    pub hot_keys: u32,
    /// Bytes of queue chunks.
    pub queue_bytes: usize,
    /// Bytes of chunks for what recovery walks found, for each namespace.
    pub walked_bytes: usize,
    /// Partitions of each namespace recovered at the same time; 0 is no limit.
    pub recoveries_interleaved: u32,
    /// How long a straggler is feared after its connection died.
    pub grace_ms: u32,
    /// Changes a lane may ship before the next lane has its turn.
    pub lane_turn: u32,
    /// Changes a namespace may ship before the next namespace has its turn.
    pub namespace_turn: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            window: limits::WINDOW_RECORDS,
            waiting: limits::WAITING_MAX,
            hot_keys: limits::HOT_KEYS_MAX,
            queue_bytes: limits::QUEUE_BYTES,
            walked_bytes: limits::WALKED_BYTES,
            recoveries_interleaved: 0,
            grace_ms: limits::GRACE_MS,
            lane_turn: limits::LANE_TURN,
            namespace_turn: limits::NAMESPACE_TURN,
        }
    }
}

/// Where a lane starts when its namespace is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the next change: the lane was never seen before.
    Now,
    /// With every change from this LUT on: its mark, or where an operator rewinds it to.
    From(Lut),
}

/// One namespace of a DC.
pub(super) struct Attached {
    pub(super) policy: Policy,
    /// Which block of lanes.
    pub(super) block: u32,
    /// Whether each set is shipped, by [`SetId`](crate::model::SetId), as far as asked.
    pub(super) sets: Vec<Option<bool>>,
    pub(super) throttle: Throttle,
    pub(super) parked: Option<Parked>,
    pub(super) paused: bool,
    /// Highest LUT submitted, or the version clock when attached.
    pub(super) newest: Lut,
    /// Changes up to here are to be read from the device.
    pub(super) in_memory_above: Lut,
    /// No change submitted after the last dispatch began has a lower LUT.
    pub(super) clock: Lut,
    pub(super) counters: Counters,
    pub(super) gauges: Gauges,
    pub(super) averages: Averages,
    pub(super) letters: Lettered,
    pub(super) refusals: Refusals,
    /// The last temporary error worth telling of, and when it came.
    pub(super) refused: Option<(ResultCode, Tick)>,
    /// What kept it from shipping more in the last dispatch.
    pub(super) limited_by: LimitedBy,
}

impl Attached {
    /// Bytes that a change of the namespace takes on average, by those sent of late.
    pub(super) fn change_bytes(&self) -> u64 {
        self.averages.record_bytes().max(1)
    }
}

/// One DC on one shard. See the [module](super) for who calls what.
pub struct DcShard {
    pub(super) shard: u16,
    pub(super) shard_count: u16,
    /// Partitions of this shard.
    pub(super) lanes_per_block: u32,
    pub(super) limits: Limits,
    /// `src-id` of the destination cluster, once its hello told it.
    pub(super) destination: SrcId,
    /// Nothing ships before this.
    pub(super) held_until: Tick,
    /// Nothing ships before this even when the destination has the fence: what is feared came from
    /// another origin, which the fence does not end.
    held_anyway_until: Tick,
    /// By namespace: what was under way when it was detached. While that may still arrive, the
    /// namespace ships nothing if it is attached again.
    pub(super) remains: Vec<Remains>,
    /// An operator paused the whole DC.
    pub(super) paused: bool,
    /// The destination refuses durable deletes.
    pub(super) plain_deletes: bool,
    pub(super) namespaces: Vec<Option<Attached>>,
    /// Which namespace has which block of lanes.
    pub(super) blocks: Vec<Option<NamespaceId>>,
    pub(super) lanes: Vec<Lane>,
    /// Lanes with something queued.
    pub(super) queued: Bitmap,
    /// Lanes whose live changes have had their turn in the present lap.
    pub(super) gone: Bitmap,
    /// Lanes with a gap.
    pub(super) gaps: Bitmap,
    /// Lanes that laps pass over.
    pub(super) held: Held,
    pub(super) pool: Pool,
    pub(super) slots: Slots,
    pub(super) ahead: Ahead,
    /// Records whose replays, if any, have come to nothing.
    pub(super) dropped_replays: Vec<(NamespaceId, Digest)>,
    pub(super) wheel: Wheel,
    /// The turns within each block's namespace.
    pub(super) turns: Vec<Turns>,
    /// The block whose turn it is, and what is left of it.
    pub(super) turn: u32,
    pub(super) turn_left: u32,
    /// In the last dispatch a namespace went first for which nodes had been full.
    pub(super) has_favoured: bool,
    pub(super) dispatched: u32,
    /// Slots in `State::Due`.
    pub(super) due_slots: u32,
    pub(super) walks: Walks,
    pub(super) acks: Vec<NodeAcks>,
    pub(super) sweep: Sweep,
    pub(super) limited_by: LimitedBy,
    /// What was counted for namespaces detached meanwhile.
    pub(super) retired: Counters,
}

impl DcShard {
    /// A DC without namespaces, on shard `shard` of `shard_count`.
    pub fn new(limits: Limits, shard: u16, shard_count: u16) -> Self {
        let chunks = |bytes: usize| u32::try_from(bytes / CHUNK_BYTES).unwrap_or(u32::MAX).max(1);
        Self {
            shard,
            shard_count,
            lanes_per_block: (PARTITION_COUNT as u32 - u32::from(shard))
                .div_ceil(u32::from(shard_count)),
            limits,
            destination: SrcId::NONE,
            held_until: Tick(0),
            held_anyway_until: Tick(0),
            remains: Vec::new(),
            paused: false,
            plain_deletes: false,
            namespaces: Vec::new(),
            blocks: Vec::new(),
            lanes: Vec::new(),
            queued: Bitmap::default(),
            gone: Bitmap::default(),
            gaps: Bitmap::default(),
            held: Held::default(),
            pool: Pool::new(chunks(limits.queue_bytes)),
            slots: Slots::new(limits.window.saturating_add(limits.waiting)),
            ahead: Ahead::default(),
            dropped_replays: Vec::new(),
            wheel: Wheel::new(),
            turns: Vec::new(),
            turn: 0,
            turn_left: 0,
            has_favoured: false,
            dispatched: 0,
            due_slots: 0,
            walks: Walks::new(chunks(limits.walked_bytes)),
            acks: Vec::new(),
            sweep: Sweep::default(),
            limited_by: LimitedBy::Nothing,
            retired: Counters::default(),
        }
    }

    /// Starts shipping a namespace. `clock` is its version clock; `start` tells each of this
    /// shard's lanes where to begin.
    ///
    /// # Panics
    ///
    /// If the namespace is attached already.
    pub fn attach(
        &mut self,
        namespace: NamespaceId,
        policy: Policy,
        clock: Lut,
        now: Now,
        mut start: impl FnMut(PartitionId) -> Start,
    ) {
        assert!(self.attached(namespace).is_none(), "namespace {} attached twice", namespace.0);
        let block = self.take_block(namespace);
        let lanes = self.lanes_of_block(block);
        self.gone.clear_in(lanes.clone());
        self.walks.gone.clear_in(lanes.clone());
        self.turns[block as usize] = Turns::new(&lanes, self.limits.lane_turn);
        let paused = self.paused || policy.records_per_s == 0;
        if self.namespaces.len() <= namespace.index() {
            self.namespaces.resize_with(namespace.index() + 1, || None);
            self.remains.resize_with(self.namespaces.len(), Remains::default);
        }
        self.namespaces[namespace.index()] = Some(Attached {
            throttle: Throttle::new(policy.records_per_s, now.tick),
            policy,
            block,
            sets: Vec::new(),
            parked: None,
            paused,
            newest: clock,
            in_memory_above: Lut::ZERO,
            clock: Lut::ZERO,
            counters: Counters::default(),
            gauges: Gauges::default(),
            averages: Averages::default(),
            letters: Lettered::default(),
            refusals: Refusals::default(),
            refused: None,
            limited_by: LimitedBy::Nothing,
        });
        for lane in self.lanes_of_block(block) {
            let start = start(self.partition_of(lane));
            let lst = if let Start::From(lut) = start { lut.min(clock) } else { clock };
            self.lanes[lane as usize] = Lane::new(lst);
            if paused || start != Start::Now {
                self.open_gap(lane, lst);
            }
        }
    }

    /// What waited for room somewhere tries again: nobody will tell it to.
    pub(super) fn release_held(&mut self) {
        self.held.forget();
        self.wake_all();
    }

    /// The host has what changed after `above` in memory, and reads what is older from its device:
    /// that ships in the order of time, as it lies there.
    pub fn note_in_memory(&mut self, above: impl Fn(NamespaceId) -> Lut) {
        for (id, ns) in self.namespaces.iter_mut().enumerate() {
            if let Some(ns) = ns {
                ns.in_memory_above = above(NamespaceId(id as u8));
            }
        }
    }

    /// Takes the host's version clocks, see `version_clock` there. A record read from now on
    /// includes every change below its clock.
    pub fn note_clock(&mut self, clock: impl Fn(NamespaceId) -> Lut) {
        for (id, ns) in self.namespaces.iter_mut().enumerate() {
            if let Some(ns) = ns {
                ns.clock = clock(NamespaceId(id as u8));
            }
        }
    }

    /// Changes what is shipped of a namespace, from the next record on. `clock` is its version
    /// clock, which a pause (a throughput of 0) takes as the position of idle lanes.
    pub fn set_policy(&mut self, namespace: NamespaceId, policy: Policy, clock: Lut) {
        let Some(ns) = self.attached_mut(namespace) else { return };
        ns.throttle.set_rate(policy.records_per_s);
        ns.sets.clear();
        ns.policy = policy;
        let block = ns.block;
        self.turns[block as usize].wake();
        self.ahead.forget();
        self.drop_long_queues(namespace);
        self.apply_pause(namespace, clock);
    }

    /// Queues longer than the limit, which was just lowered, go to recovery.
    fn drop_long_queues(&mut self, namespace: NamespaceId) {
        let Some(ns) = self.attached(namespace) else { return };
        let limit = ns.policy.queue_entries_max;
        for lane in self.lanes_of_block(ns.block) {
            if self.lanes[lane as usize].ring.len() > limit {
                self.open_gap(lane, Lut::MAX);
            }
        }
    }

    /// Pauses the DC: it keeps no queue, only the position of each lane.
    pub fn pause(&mut self, clock: impl Fn(NamespaceId) -> Lut) {
        self.paused = true;
        self.each_attached(|dc, namespace| dc.apply_pause(namespace, clock(namespace)));
    }

    /// Ends a pause: what was missed is recovered.
    pub fn resume(&mut self, clock: impl Fn(NamespaceId) -> Lut) {
        self.paused = false;
        self.each_attached(|dc, namespace| dc.apply_pause(namespace, clock(namespace)));
    }

    fn apply_pause(&mut self, namespace: NamespaceId, clock: Lut) {
        let paused = self.paused;
        let Some(ns) = self.attached_mut(namespace) else { return };
        let was = std::mem::replace(&mut ns.paused, paused || ns.policy.records_per_s == 0);
        let (is, block) = (ns.paused, ns.block);
        if was || !is {
            return;
        }
        for lane in self.lanes_of_block(block) {
            if planted(Mutation::PauseForgets) {
                let left = self.lanes[lane as usize].ring.clear(&mut self.pool);
                let ns = self.ns_of(lane);
                ns.gauges.in_queue -= u64::from(left);
                ns.counters.dropped_to_recovery += u64::from(left);
            }
            self.open_gap(lane, clock);
        }
        let mut waiting = self.take_waiting(block);
        while let Some(slot) = waiting.pop(&self.slots) {
            self.requeue(slot);
        }
    }

    /// Takes all waiting slots of a block out of the wheel and the lists of ready ones.
    pub(super) fn take_waiting(&mut self, block: u32) -> List {
        let mut waiting = List::EMPTY;
        self.turns[block as usize].ready.drain(&mut self.slots, &mut waiting);
        let lanes = self.lanes_of_block(block);
        self.wheel.take(&mut self.slots, &mut waiting, |slot| lanes.contains(&slot.lane));
        waiting
    }

    /// Moves every lane of a namespace back to `from`, if it is ahead of it: what changed since is
    /// shipped again.
    pub fn rewind(&mut self, namespace: NamespaceId, from: Lut) {
        let Some(block) = self.attached(namespace).map(|ns| ns.block) else { return };
        for lane in self.lanes_of_block(block) {
            self.move_back(lane, from);
        }
    }

    /// Lanes of a namespace that wait for a walk, and since when each wants everything.
    pub fn to_walk(&self, namespace: NamespaceId) -> Vec<(PartitionId, Lut)> {
        let Some(ns) = self.attached(namespace) else { return Vec::new() };
        let waiting = self.lanes_of_block(ns.block).filter(|&lane| self.gaps.contains(lane));
        waiting.map(|lane| (self.partition_of(lane), self.walk_from(lane))).collect()
    }

    /// Takes how many records the host expects walks of all waiting lanes to find, and before when
    /// none of them changed. For one that was attached or rewound: what was left to gaps since is
    /// counted as it comes.
    pub fn expect(&mut self, namespace: NamespaceId, records: u64, oldest: Lut) {
        if let Some(ns) = self.attached_mut(namespace) {
            ns.averages.oldest = oldest;
            let block = ns.block;
            self.expect_missed(block, records);
        }
    }

    /// Takes the average size of a record, until frames tell better.
    pub fn note_record_bytes(&mut self, bytes: impl Fn(NamespaceId) -> u64) {
        for (id, ns) in self.namespaces.iter_mut().enumerate() {
            if let Some(ns) = ns {
                ns.averages.expect(bytes(NamespaceId(id as u8)));
            }
        }
    }

    /// Moves a lane back to `from`.
    pub(super) fn move_back(&mut self, lane: u32, from: Lut) {
        let place = &mut self.lanes[lane as usize];
        self.ahead.forget();
        place.lst.lower_to(from);
        place.mark.lower_to(from);
        self.open_gap(lane, from);
        if planted(Mutation::RewindShortens) {
            self.lanes[lane as usize].gap = PackedLut::of(from);
        }
    }

    /// Lets nothing ship before `until`, unless the destination turns out to have the fence. A
    /// process that starts again, or a DC made again, waits out what its predecessor left on dead
    /// connections: [`Limits::grace_ms`] from then on. Comes right after the DC is made.
    pub fn hold(&mut self, until: Tick) {
        if !planted(Mutation::NoHold) {
            self.held_until = self.held_until.max(until);
        }
    }

    /// Lets nothing ship before `until`, fence or not: this origin is new, and a former one, which
    /// the destination does not know for the same, may have left something on its way.
    pub fn hold_anyway(&mut self, until: Tick) {
        self.held_anyway_until = self.held_anyway_until.max(until);
        self.hold(until);
    }

    /// When a hold ends; in the past when there is none.
    pub fn held_until(&self) -> Tick {
        self.held_until
    }

    /// Takes what the destination's hello told: its cluster's `src-id`. Records that came from
    /// there are not shipped back. Who says hello has the fence, so that nothing of this origin need
    /// be waited out.
    pub fn set_destination(&mut self, src_id: SrcId) {
        self.destination = src_id;
        self.held_until = self.held_until.min(self.held_anyway_until);
        self.remains.iter_mut().for_each(Remains::fear_nothing);
    }

    /// The destination's `src-id`, as far as it was told.
    pub fn destination(&self) -> SrcId {
        self.destination
    }

    /// The destination's partition map changed, or a node came up: what had no node or no room
    /// tries again at once.
    pub fn map_changed(&mut self) {
        self.release_held();
        for turns in &mut self.turns {
            turns.ready.map_changed(&mut self.slots);
        }
        for lane in &mut self.lanes {
            lane.rests_until_ms = 0;
        }
        self.plain_deletes = false;
        for ns in self.namespaces.iter_mut().flatten() {
            ns.refusals.forget();
        }
    }

    /// Changes the bound on partitions recovered at the same time; 0 is none.
    pub fn set_recoveries_interleaved(&mut self, lanes: u32) {
        self.limits.recoveries_interleaved = lanes;
    }

    /// Whether a namespace is attached.
    pub fn is_attached(&self, namespace: NamespaceId) -> bool {
        self.attached(namespace).is_some()
    }

    /// Whether a namespace ships nothing until an operator says so.
    pub fn is_paused(&self, namespace: NamespaceId) -> bool {
        self.attached(namespace).is_some_and(|ns| ns.paused)
    }

    /// What is shipped of a namespace.
    pub fn policy(&self, namespace: NamespaceId) -> Option<&Policy> {
        self.attached(namespace).map(|ns| &ns.policy)
    }

    /// Why a namespace is parked.
    pub fn parked(&self, namespace: NamespaceId) -> Option<Parked> {
        self.attached(namespace).and_then(|ns| ns.parked)
    }

    /// What first kept one of its namespaces from shipping more in the last dispatch.
    pub fn limited_by(&self) -> LimitedBy {
        self.limited_by
    }

    /// What kept a namespace from shipping more in the last dispatch.
    pub fn namespace_limited_by(&self, namespace: NamespaceId) -> LimitedBy {
        self.attached(namespace).map_or(LimitedBy::Nothing, |ns| ns.limited_by)
    }

    /// Whether changes wait in their slots for a time to come, as hot keys do.
    pub fn holds_for_time(&self) -> bool {
        self.due_slots > 0
    }

    /// Whether nothing waits to be shipped or answered, and nothing is to be recovered.
    pub fn has_shipped_all(&self) -> bool {
        let is_empty =
            |ns: &Attached| ns.gauges.in_queue + ns.gauges.in_progress + ns.gauges.retrying == 0;
        !self.has_gaps() && !self.walks.any() && self.namespaces.iter().flatten().all(is_empty)
    }

    /// Figures of a namespace.
    pub fn stats(&self, namespace: NamespaceId) -> Option<Stats> {
        let ns = self.attached(namespace)?;
        let recovery = self.recovery_progress(namespace);
        let here = ns.gauges.in_queue + ns.gauges.in_progress + ns.gauges.retrying;
        let pending = self
            .lanes_of_block(ns.block)
            .filter(|&lane| self.gaps.contains(lane) || self.lanes[lane as usize].is_walking());
        Some(Stats {
            counters: ns.counters,
            gauges: ns.gauges,
            paused: ns.paused,
            recoveries_pending: pending.count() as u64,
            throughput: ns.averages.throughput(),
            latency_us: ns.averages.latency_us(),
            lag_ms: ns.averages.lag_ms,
            recovery_lag_ms: ns.averages.recovery_lag_ms,
            recovery,
            paused_records: 0,
            backlog_bytes: (here + recovery.unfound()) * ns.averages.record_bytes(),
            dead_letters: ns.letters.len() as u64,
        })
    }

    /// Figures of the DC, namespaces detached meanwhile included. It is paused when the whole of it
    /// is.
    pub fn dc_stats(&self) -> Stats {
        let attached = || self.namespaces.iter().flatten();
        let all_paused = attached().next().is_some() && attached().all(|ns| ns.paused);
        let paused = self.paused || all_paused;
        let mut sum = Stats { counters: self.retired, paused, ..Stats::default() };
        for stats in self.attached_ids().filter_map(|namespace| self.stats(namespace)) {
            sum.add(&stats);
        }
        sum
    }

    /// Takes measurements of rates; call it about once a second.
    pub fn measure(&mut self, now: Now) {
        for ns in self.namespaces.iter_mut().flatten() {
            let is_idle = ns.gauges.in_progress == 0;
            if ns.averages.has_grown(ns.counters.success) {
                ns.refusals.note_success(now.tick);
            }
            ns.averages.measure(ns.counters.success, is_idle, now.tick.0);
        }
    }

    /// Bytes held for queues, for slots and the digest table, and for lanes.
    pub fn memory(&self) -> Memory {
        Memory {
            queue_bytes: self.pool.bytes() + self.walks.bytes() + self.ahead.bytes(),
            slot_bytes: self.slots.bytes(),
            lane_bytes: self.lanes.len() * size_of::<Lane>(),
        }
    }

    #[inline]
    pub(super) fn attached(&self, namespace: NamespaceId) -> Option<&Attached> {
        self.namespaces.get(namespace.index())?.as_ref()
    }

    #[inline]
    pub(super) fn attached_mut(&mut self, namespace: NamespaceId) -> Option<&mut Attached> {
        self.namespaces.get_mut(namespace.index())?.as_mut()
    }

    /// The namespace of a lane in use.
    #[inline]
    pub(super) fn ns_of(&mut self, lane: u32) -> &mut Attached {
        let namespace = self.namespace_of(lane);
        self.namespaces[namespace.index()].as_mut().expect("a block in use belongs to a namespace")
    }

    /// The namespace that has a block of lanes.
    #[inline]
    pub(super) fn attached_in(&self, block: u32) -> Option<&Attached> {
        self.attached(self.blocks[block as usize]?)
    }

    /// Namespaces shipped.
    pub fn attached_ids(&self) -> impl Iterator<Item = NamespaceId> + '_ {
        self.blocks.iter().flatten().copied()
    }

    fn each_attached(&mut self, mut act: impl FnMut(&mut Self, NamespaceId)) {
        for block in 0..self.blocks.len() {
            if let Some(namespace) = self.blocks[block] {
                act(self, namespace);
            }
        }
    }

    #[inline]
    pub(super) fn block_of(&self, lane: u32) -> u32 {
        // A predicted branch instead of a division: most DCs ship one namespace.
        if self.blocks.len() == 1 { 0 } else { lane / self.lanes_per_block }
    }

    #[inline]
    pub(super) fn namespace_of(&self, lane: u32) -> NamespaceId {
        self.blocks[self.block_of(lane) as usize].expect("a lane in use belongs to a namespace")
    }

    #[inline]
    pub(super) fn partition_of(&self, lane: u32) -> PartitionId {
        let index = lane % self.lanes_per_block;
        PartitionId::new(self.shard + index as u16 * self.shard_count)
    }

    /// The lane of a partition of this shard; `None` if the namespace is not attached.
    #[inline]
    pub(super) fn lane_of(&self, namespace: NamespaceId, partition: PartitionId) -> Option<u32> {
        debug_assert_eq!(partition.shard(self.shard_count).0, self.shard);
        let block = self.attached(namespace)?.block;
        Some(block * self.lanes_per_block + partition.index() as u32 / u32::from(self.shard_count))
    }

    pub(super) fn lanes_of_block(&self, block: u32) -> std::ops::Range<u32> {
        block * self.lanes_per_block..(block + 1) * self.lanes_per_block
    }

    fn take_block(&mut self, namespace: NamespaceId) -> u32 {
        if let Some(block) = self.blocks.iter().position(Option::is_none) {
            self.blocks[block] = Some(namespace);
            return block as u32;
        }
        self.blocks.push(Some(namespace));
        self.turns.push(Turns::new(&(0..0), self.limits.lane_turn));
        let lanes = self.blocks.len() * self.lanes_per_block as usize;
        self.lanes.resize(lanes, Lane::new(Lut::ZERO));
        self.queued.grow(lanes);
        self.gone.grow(lanes);
        self.gaps.grow(lanes);
        self.held.grow(lanes);
        self.sweep.grow(lanes);
        self.walks.grow(self.blocks.len(), lanes);
        for node in &mut self.acks {
            node.grow(lanes);
        }
        self.blocks.len() as u32 - 1
    }
}

/// Bytes held by one DC on one shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Chunks of queue entries, in use or kept.
    pub queue_bytes: usize,
    /// Slots of changes in flight or waiting, and the digest table.
    pub slot_bytes: usize,
    /// Lanes, however idle.
    pub lane_bytes: usize,
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Desk, NS, digest};
    use crate::model::{Lut, SrcId};

    #[test]
    fn all_is_shipped_when_nothing_is_queued_unanswered_or_to_be_found() {
        let mut desk = Desk::plain();
        assert!(desk.dc.has_shipped_all());
        desk.write(digest(1, 1));
        assert!(!desk.dc.has_shipped_all(), "queued");
        let out = desk.dispatch();
        desk.send(&out[0]);
        assert!(!desk.dc.has_shipped_all(), "unanswered");
        desk.ok(out[0].slot);
        assert!(desk.dc.has_shipped_all());
        desk.dc.rewind(NS, Lut::ZERO);
        assert!(!desk.dc.has_shipped_all(), "to be found");
        let walk = desk.wait(10).begin_walk().expect("lanes have gaps").walk;
        assert!(!desk.dc.has_shipped_all(), "a walk is open");
        desk.walk_all(walk);
        assert!(!desk.dc.has_shipped_all(), "found");
        desk.ship_all();
        assert!(desk.dc.has_shipped_all());
    }

    #[test]
    fn a_hold_ends_with_its_time_or_with_a_hello() {
        let held = || {
            let mut desk = Desk::plain();
            let until = desk.now().tick.plus_ms(15_000);
            desk.dc.hold(until);
            desk.write(digest(1, 1));
            assert!(desk.dispatch().is_empty());
            desk
        };
        let mut desk = held();
        assert!(desk.wait(14_999).dispatch().is_empty());
        assert_eq!(desk.wait(1).dispatch().len(), 1);
        let mut desk = held();
        desk.dc.set_destination(SrcId(2));
        assert_eq!(desk.dispatch().len(), 1);
    }

    #[test]
    fn a_new_origin_waits_out_what_a_former_one_left_though_it_is_greeted() {
        let mut desk = Desk::plain();
        desk.dc.hold_anyway(desk.now().tick.plus_ms(15_000));
        desk.write(digest(1, 1));
        desk.dc.set_destination(SrcId(2));
        assert!(desk.wait(14_999).dispatch().is_empty());
        assert_eq!(desk.wait(1).dispatch().len(), 1);
    }
}
