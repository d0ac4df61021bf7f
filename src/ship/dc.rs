//! Everything one shard knows about shipping to one DC, and how namespaces come and go.

use super::ahead::Ahead;
use super::checkpoint::Sweep;
use super::detach::AllRemains;
use super::durable::AllAcks;
use super::held::Held;
use super::lane::{Lane, Lanes};
use super::mutation::{Mutation, planted};
use super::namespaces::{Attached, Namespaces};
use super::peer::Peer;
use super::queue::CHUNK_BYTES;
use super::recovery::Walks;
use super::rounds::Laps;
use super::schedule::Cycle;
use super::slots::Slots;
use super::stats::{Counters, LimitedBy, Stats};
use super::timers::{List, Wheel};
use super::{Parked, Policy};
use crate::limits;
use crate::model::{Digest, Lut, NamespaceId, PartitionId, Tick};

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

/// One DC on one shard. See the [module](super) for who calls what.
pub struct DcShard {
    pub(super) limits: Limits,
    pub(super) spaces: Namespaces,
    pub(super) peer: Peer,
    /// By namespace: what was under way when it was detached. While that may still arrive, the
    /// namespace ships nothing if it is attached again.
    pub(super) remains: AllRemains,
    /// An operator paused the whole DC.
    pub(super) paused: bool,
    pub(super) lanes: Lanes,
    /// Lanes that laps pass over.
    pub(super) held: Held,
    pub(super) slots: Slots,
    pub(super) ahead: Ahead,
    /// Records whose replays, if any, have come to nothing.
    pub(super) dropped_replays: Vec<(NamespaceId, Digest)>,
    pub(super) wheel: Wheel,
    /// Turns within each namespace.
    pub(super) laps: Laps,
    /// Turns of the namespaces.
    pub(super) cycle: Cycle,
    pub(super) walks: Walks,
    pub(super) acks: AllAcks,
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
            limits,
            spaces: Namespaces::new(shard, shard_count),
            peer: Peer::default(),
            remains: AllRemains::default(),
            paused: false,
            lanes: Lanes::new(chunks(limits.queue_bytes)),
            held: Held::default(),
            slots: Slots::new(limits.window.saturating_add(limits.waiting)),
            ahead: Ahead::default(),
            dropped_replays: Vec::new(),
            wheel: Wheel::new(),
            laps: Laps::default(),
            cycle: Cycle::default(),
            walks: Walks::new(chunks(limits.walked_bytes)),
            acks: AllAcks::default(),
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
        self.laps.begin(block, lanes, self.limits.lane_turn);
        let paused = self.paused || policy.records_per_s == 0;
        let attached = Attached::new(policy, block, paused, clock, now.tick);
        self.spaces.add(namespace, attached);
        for lane in self.lanes_of_block(block) {
            let start = start(self.partition_of(lane));
            let lst = if let Start::From(lut) = start { lut.min(clock) } else { clock };
            self.lanes.begin(lane, lst);
            if paused || start != Start::Now {
                self.open_gap(lane, lst);
            }
        }
    }

    /// What waited for room somewhere tries again: nobody will tell it to.
    pub(super) fn release_held(&mut self) {
        self.held.forget();
        self.laps.wake_all();
    }

    /// The host has what changed after `above` in memory, and reads what is older from its device:
    /// that ships in the order of time, as it lies there.
    pub fn note_in_memory(&mut self, above: impl Fn(NamespaceId) -> Lut) {
        self.spaces.iter_mut().for_each(|(id, ns)| ns.in_memory_above = above(id));
    }

    /// Takes the host's version clocks, see `version_clock` there. A record read from now on
    /// includes every change below its clock.
    pub fn note_clock(&mut self, clock: impl Fn(NamespaceId) -> Lut) {
        self.spaces.iter_mut().for_each(|(id, ns)| ns.clock = clock(id));
    }

    /// Changes what is shipped of a namespace, from the next record on. `clock` is its version
    /// clock, which a pause (a throughput of 0) takes as the position of idle lanes.
    pub fn set_policy(&mut self, namespace: NamespaceId, policy: Policy, clock: Lut) {
        let Some(ns) = self.attached_mut(namespace) else { return };
        ns.throttle.set_rate(policy.records_per_s);
        ns.sets.clear();
        ns.policy = policy;
        let block = ns.block;
        self.laps[block].wake();
        self.ahead.forget();
        self.drop_long_queues(namespace);
        self.apply_pause(namespace, clock);
    }

    /// Queues longer than the limit, which was just lowered, go to recovery.
    fn drop_long_queues(&mut self, namespace: NamespaceId) {
        let Some(ns) = self.attached(namespace) else { return };
        let limit = ns.policy.queue_entries_max;
        for lane in self.lanes_of_block(ns.block) {
            if self.lanes[lane].queued() > limit {
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
                let left = self.lanes.empty(lane);
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
        self.laps[block].ready.drain(&mut self.slots, &mut waiting);
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
        let waiting =
            self.lanes_of_block(ns.block).filter(|&lane| self.lanes.gaps().contains(lane));
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
        self.spaces.iter_mut().for_each(|(id, ns)| ns.averages.expect(bytes(id)));
    }

    /// Moves a lane back to `from`.
    pub(super) fn move_back(&mut self, lane: u32, from: Lut) {
        let place = &mut self.lanes[lane];
        self.ahead.forget();
        place.lst.lower_to(from);
        place.mark.lower_to(from);
        self.open_gap(lane, from);
        if planted(Mutation::RewindShortens) {
            self.lanes.close_gap(lane);
            self.lanes.miss(lane, from);
        }
    }

    /// The destination's partition map changed, or a node came up: what had no node or no room
    /// tries again at once.
    pub fn map_changed(&mut self) {
        self.release_held();
        self.laps.map_changed(&mut self.slots);
        self.lanes.iter_mut().for_each(Lane::wake);
        self.peer.offer_durable_deletes();
        self.spaces.iter_mut().for_each(|(_, ns)| ns.refusals.forget());
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
        self.slots.due() > 0
    }

    /// Whether nothing waits to be shipped or answered, and nothing is to be recovered.
    pub fn has_shipped_all(&self) -> bool {
        let is_empty =
            |ns: &Attached| ns.gauges.in_queue + ns.gauges.in_progress + ns.gauges.retrying == 0;
        !self.has_gaps() && !self.walks.any() && self.spaces.iter().all(is_empty)
    }

    /// Figures of a namespace.
    pub fn stats(&self, namespace: NamespaceId) -> Option<Stats> {
        let ns = self.attached(namespace)?;
        let recovery = self.recovery_progress(namespace);
        let here = ns.gauges.in_queue + ns.gauges.in_progress + ns.gauges.retrying;
        let pending = self
            .lanes_of_block(ns.block)
            .filter(|&lane| self.lanes.gaps().contains(lane) || self.lanes[lane].is_walking());
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
        let attached = || self.spaces.iter();
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
        for (_, ns) in self.spaces.iter_mut() {
            let is_idle = ns.gauges.in_progress == 0;
            if ns.averages.has_grown(ns.counters.success) {
                ns.refusals.note_success(now.tick);
            }
            ns.averages.measure(ns.counters.success, is_idle, now.tick.0);
        }
    }

    /// Bytes held for queues, for slots and the digest table, and for lanes.
    pub fn memory(&self) -> Memory {
        let (queue_bytes, lane_bytes) = self.lanes.bytes();
        Memory {
            queue_bytes: queue_bytes + self.walks.bytes() + self.ahead.bytes(),
            slot_bytes: self.slots.bytes(),
            lane_bytes,
        }
    }

    #[inline]
    pub(super) fn attached(&self, namespace: NamespaceId) -> Option<&Attached> {
        self.spaces.get(namespace)
    }

    #[inline]
    pub(super) fn attached_mut(&mut self, namespace: NamespaceId) -> Option<&mut Attached> {
        self.spaces.get_mut(namespace)
    }

    /// The namespace of a lane in use.
    #[inline]
    pub(super) fn ns_of(&mut self, lane: u32) -> &mut Attached {
        self.spaces.of_lane(lane)
    }

    /// The namespace that has a block of lanes.
    #[inline]
    pub(super) fn attached_in(&self, block: u32) -> Option<&Attached> {
        self.attached(self.spaces.in_block(block)?)
    }

    /// Namespaces shipped.
    pub fn attached_ids(&self) -> impl Iterator<Item = NamespaceId> + '_ {
        self.spaces.ids()
    }

    fn each_attached(&mut self, mut act: impl FnMut(&mut Self, NamespaceId)) {
        for block in 0..self.spaces.blocks() {
            if let Some(namespace) = self.spaces.in_block(block) {
                act(self, namespace);
            }
        }
    }

    #[inline]
    pub(super) fn block_of(&self, lane: u32) -> u32 {
        self.spaces.block_of(lane)
    }

    #[inline]
    pub(super) fn namespace_of(&self, lane: u32) -> NamespaceId {
        self.spaces.id_of(lane)
    }

    #[inline]
    pub(super) fn partition_of(&self, lane: u32) -> PartitionId {
        self.spaces.partition_of(lane)
    }

    /// The lane of a partition of this shard; `None` if the namespace is not attached.
    #[inline]
    pub(super) fn lane_of(&self, namespace: NamespaceId, partition: PartitionId) -> Option<u32> {
        self.spaces.lane_of(namespace, partition)
    }

    pub(super) fn lanes_of_block(&self, block: u32) -> std::ops::Range<u32> {
        self.spaces.lanes_of(block)
    }

    fn take_block(&mut self, namespace: NamespaceId) -> u32 {
        let (block, is_new) = self.spaces.take_block(namespace);
        if is_new {
            let lanes = self.spaces.lanes();
            self.lanes.grow(lanes);
            self.laps.grow(lanes);
            self.held.grow(lanes);
            self.sweep.grow(lanes);
            self.walks.grow(self.spaces.blocks() as usize, lanes);
            self.acks.grow(lanes);
        }
        block
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
    use crate::model::Lut;

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
}
