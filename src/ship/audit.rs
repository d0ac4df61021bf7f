//! Everything a DC believes about itself, counted again from scratch. For tests and the simulator.

use super::dc::{DcShard, Now};
use super::lane::{RETRY_MAX_IN_RECOVERY, RETRY_ONLY};
use super::queue::{Entry, Pool, Ring};
use super::slots::{State, flag};
use super::stats::{CheckSum, Counters, Gauges};
use super::timers::ms_of;
use crate::model::{Digest, Lut, NamespaceId, PartitionId};

/// A queue of a lane that is not empty.
#[derive(Clone, Debug)]
pub struct Queue {
    /// Namespace at the source.
    pub namespace: NamespaceId,
    /// Partition whose lane it is.
    pub partition: PartitionId,
    /// The oldest change may go as soon as its node has room: a node is known, it is old enough, and
    /// nothing is the matter with lane or namespace.
    pub may_ship: bool,
    /// The host has it in memory: it waits for no lap that reaches as far.
    pub is_in_memory: bool,
    /// Laps pass the lane over: its node had no room, or it had none.
    pub is_held: bool,
    /// Digest and LUT of the oldest change.
    pub head: (Digest, Lut),
    /// Changes in it.
    pub len: u32,
}

impl DcShard {
    /// Counts queues, slots and bits again and compares; also checks every bound.
    ///
    /// # Panics
    ///
    /// If anything differs or a bound is passed.
    pub fn audit(&self) {
        let mut gauges: Vec<Gauges> = vec![Gauges::default(); self.spaces.blocks() as usize];
        let mut retries = vec![0u16; self.lanes.len()];
        let (mut dispatched, mut due) = (0, 0);
        for slot in (0..self.slots.high()).map(|slot| self.slots.at(slot)) {
            if slot.state() == State::Free {
                continue;
            }
            dispatched += u32::from(slot.state() == State::Dispatched);
            due += u32::from(slot.state() == State::Due);
            if slot.has(flag::DISCARDED) {
                continue;
            }
            let gauges = &mut gauges[self.block_of(slot.lane) as usize];
            match slot.state() {
                State::Free => {}
                State::Dispatched => gauges.in_progress += 1,
                State::Due => gauges.in_queue += 1,
                State::Retry | State::Grace | State::Dead => gauges.retrying += 1,
            }
            gauges.in_queue += u64::from(slot.has(flag::AGAIN));
            retries[slot.lane as usize] += u16::from(slot.state() == State::Retry);
            assert!(!slot.has(flag::AGAIN) || slot.state() == State::Dispatched);
        }
        assert_eq!((dispatched, due), (self.slots.dispatched(), self.slots.due()));
        assert!(dispatched <= self.limits.window, "window");
        assert!(self.slots.used() <= self.limits.window + self.limits.waiting, "slots");
        for (block, gauges) in gauges.iter_mut().enumerate() {
            self.audit_block(block as u32, gauges, &retries);
        }
        for block in 0..self.spaces.blocks() {
            if let Some(ns) = self.attached_in(block) {
                assert_eq!(ns.gauges, gauges[block as usize], "gauges of block {block}");
            }
        }
        self.audit_sums();
    }

    fn audit_block(&self, block: u32, gauges: &mut Gauges, retries: &[u16]) {
        let attached = self.attached_in(block);
        for index in self.lanes_of_block(block) {
            let lane = &self.lanes[index];
            let walked = self.walks.queue_of(block, lane.walking()).0.len();
            gauges.in_queue += u64::from(lane.queued() + walked);
            assert_eq!(self.lanes.queued().contains(index), lane.queued() > 0, "lane {index}");
            assert_eq!(self.walks.queued().contains(index), walked > 0, "lane {index}");
            assert_eq!(self.lanes.gaps().contains(index), lane.has_gap());
            assert!(attached.is_some() || !lane.has_gap(), "a gap of nobody");
            let Some(ns) = attached else { continue };
            let limit = ns.policy.queue_entries_max.saturating_add(self.limits.window);
            assert!(lane.queued() <= limit, "queue of lane {index}");
            assert!(!lane.has_gap() || lane.queued() == 0, "a gap and a queue");
            assert!(!lane.has_gap() || !lane.is_walking(), "a gap and a walk");
            assert!(!ns.paused || lane.has_gap(), "a paused lane that is not a gap");
            assert_eq!(lane.retries, retries[index as usize], "retries of lane {index}");
            assert!(lane.retries <= RETRY_MAX_IN_RECOVERY + RETRY_ONLY, "retries");
            assert!(lane.mark.get() <= lane.lst.get(), "a mark ahead of its LST");
        }
    }

    /// Compares what was taken with where it went.
    ///
    /// # Panics
    ///
    /// If they differ.
    pub fn audit_sums(&self) {
        for ns in self.attached_ids().filter_map(|namespace| self.attached(namespace)) {
            let sum = CheckSum::of(&ns.counters, &ns.gauges);
            assert!(sum.taken == sum.accounted, "{sum:?}");
        }
        let (counters, gauges) = self.counted();
        let sum = CheckSum::of(&counters, &gauges);
        assert_eq!(sum.taken, sum.accounted, "of the DC");
    }

    /// What [`Self::dc_stats`] counts, without what it looks for.
    pub fn counted(&self) -> (Counters, Gauges) {
        let (mut counters, mut gauges) = (self.retired, Gauges::default());
        for ns in self.attached_ids().filter_map(|namespace| self.attached(namespace)) {
            counters.add(&ns.counters);
            gauges.add(&ns.gauges);
        }
        (counters, gauges)
    }

    /// What could ship now, in a few words, found by looking at everything there is. `takes` tells
    /// whether a partition's node has room. Who was told to come later must find nothing here until
    /// then, unless something happens; and a dispatch that was not full leaves nothing.
    pub fn could_ship(
        &self,
        now: Now,
        takes: impl Fn(NamespaceId, PartitionId) -> bool,
    ) -> Option<String> {
        if now.tick < self.held_until() || self.slots.dispatched() >= self.limits.window {
            return None;
        }
        let may = |lane: u32| {
            self.may_ship_lane(lane, now) && takes(self.namespace_of(lane), self.partition_of(lane))
        };
        let waits = (0..self.slots.high()).find(|&slot| {
            let slot = self.slots.at(slot);
            matches!(slot.state(), State::Retry | State::Due | State::Grace)
                && !slot.has(flag::DISCARDED)
                && slot.due_ms.wrapping_sub(ms_of(now.tick) as u32) as i32 <= 0
                && may(slot.lane)
        });
        if let Some(slot) = waits {
            return Some(format!("slot {slot}, {:?}", self.slots.at(slot).state()));
        }
        if !self.slots.has_free() {
            return None;
        }
        (0..self.lanes.len() as u32).find_map(|index| {
            let lane = &self.lanes[index];
            let (queue, pool) = self.lanes.queue(index);
            let live = queue.peek(pool).is_some_and(|head| self.is_due(index, head, now));
            let (finds, pool) = self.walks.queue_of(self.block_of(index), lane.walking());
            let walked = finds.peek(pool).is_some_and(|head| self.is_due(index, head, now));
            let open = self.is_open(index, now) && (live || walked) && may(index);
            open.then(|| format!("lane {index}, live {live}, walked {walked}"))
        })
    }

    /// The live queues of all lanes, as they stand.
    pub fn queues(&self, now: Now) -> Vec<Queue> {
        self.queues_among(now, |lane| self.lanes.queue(lane))
    }

    /// The same of what walks have found.
    pub fn finds(&self, now: Now) -> Vec<Queue> {
        if self.walks.queued().is_empty() {
            return Vec::new();
        }
        self.queues_among(now, |lane| {
            self.walks.queue_of(self.block_of(lane), self.lanes[lane].walking())
        })
    }

    fn queues_among<'a>(
        &'a self,
        now: Now,
        ring: impl Fn(u32) -> (&'a Ring, &'a Pool),
    ) -> Vec<Queue> {
        let queue = |lane: u32| {
            let (ring, pool) = ring(lane);
            let head = ring.peek(pool)?;
            let ns = self.attached(self.namespace_of(lane))?;
            let may_ship = !self.held.is_stranded(lane)
                && self.is_due(lane, head, now)
                && self.is_open(lane, now)
                && self.may_ship_lane(lane, now);
            Some(Queue {
                namespace: self.namespace_of(lane),
                partition: self.partition_of(lane),
                may_ship,
                is_in_memory: head.lut.get() > ns.in_memory_above,
                is_held: self.held.lanes().contains(lane),
                head: (head.digest, head.lut.get()),
                len: ring.len(),
            })
        };
        (0..self.lanes.len() as u32).filter_map(queue).collect()
    }

    /// The LUT at the head of a lane's queue of live changes.
    pub fn oldest_queued(&self, namespace: NamespaceId, partition: PartitionId) -> Option<Lut> {
        let (queue, pool) = self.lanes.queue(self.lane_of(namespace, partition)?);
        queue.peek(pool).map(|head| head.lut.get())
    }

    /// Whether a dispatched change was found by a walk.
    pub fn is_find(&self, slot: u32) -> bool {
        self.slots.at(slot).has(flag::WALKED)
    }

    /// Slots in use, the records they are of, and whether those are dispatched.
    pub fn slots(&self) -> Vec<(u32, Digest, bool)> {
        let used = (0..self.slots.high()).map(|slot| (slot, self.slots.at(slot)));
        let used = used.filter(|(_, place)| place.state() != State::Free);
        used.map(|(slot, place)| (slot, place.digest, place.state() == State::Dispatched)).collect()
    }

    /// Whether a lane's namespace may ship.
    fn may_ship_lane(&self, lane: u32, now: Now) -> bool {
        self.attached_in(self.block_of(lane)).is_some_and(|ns| {
            now.tick >= self.returns_at(self.namespace_of(lane))
                && ns.parked.is_none_or(|parked| parked.may_probe(now.tick))
                && ns.throttle.has_token_at(now.tick)
        })
    }

    /// Whether a lane may ship anything new.
    fn is_open(&self, lane: u32, now: Now) -> bool {
        let lane = &self.lanes[lane];
        lane.rests_until_ms(ms_of(now.tick)).is_none() && lane.retries < RETRY_ONLY
    }

    /// Whether a queued change is old enough to ship, and not only by part of a millisecond.
    fn is_due(&self, lane: u32, head: Entry, now: Now) -> bool {
        let Some(ns) = self.attached_in(self.block_of(lane)) else { return false };
        let (delay_ms, lut, wall) =
            (u64::from(ns.policy.delay_ms), head.lut.get().ms(), now.wall.ms());
        delay_ms == 0 || lut + delay_ms < wall || lut >= wall + delay_ms
    }
}
