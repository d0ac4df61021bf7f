//! A change is taken from its writer. Never waits, never fails: what cannot be queued is left to
//! recovery.

use super::dc::{DcShard, Now};
use super::lane::Lane;
use super::policy::Policy;
use super::queue::{Entry, PackedLut};
use super::slots::{State, flag};
use super::timers::ms_at_or_after;
use crate::model::{Change, ChangeKind, Lut, SetId};

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It waits in its lane, or in the table of hot keys. The DC task may have something to do.
    Queued,
    /// A waiting or in-flight change of the same record will ship it.
    Merged,
    /// The rules of this DC do not ship it.
    NotShipped,
    /// The lane is paused or waits for recovery, which covers it.
    LeftToRecovery,
    /// It did not fit: the lane dropped its queue, and recovery covers all of it.
    Overflowed,
}

impl DcShard {
    /// Takes one change. `set_name` is the name of its set.
    #[inline]
    pub fn submit(&mut self, change: &Change, set_name: &str, now: Now) -> Admission {
        let destination = self.destination;
        let Some(lane) = self.lane_of(change.namespace, change.digest.partition()) else {
            return Admission::NotShipped;
        };
        let Some(ns) = self.attached_mut(change.namespace) else { return Admission::NotShipped };
        let policy = &ns.policy;
        if change.shipped && !policy.forward
            || Policy::is_echo(change.shipped, change.src_id, destination)
            || !policy.ships_kind(change.kind)
            || !ns.ships_set(change.set, set_name)
        {
            return Admission::NotShipped;
        }
        let lut = change.version.lut();
        ns.counters.submitted += 1;
        ns.newest = ns.newest.max(lut);
        if self.lanes[lane as usize].has_gap() {
            return self.leave_to_recovery(lane, lut);
        }
        if let Some(admission) = self.submit_hot(lane, change, now) {
            return admission;
        }
        self.enqueue(lane, Entry::new(change.digest, lut), now)
    }

    fn leave_to_recovery(&mut self, lane: u32, lut: Lut) -> Admission {
        self.lanes[lane as usize].gap.lower_to(lut);
        self.ns_of(lane).counters.dropped_to_recovery += 1;
        Admission::LeftToRecovery
    }

    /// The hot-key rule: a key written again within `hot-key-ms` ships once for all writes until
    /// its last one is that old. Merges only into what has not been dispatched; a write while one
    /// is in flight waits for that one's verdict. `None`: not hot, or no room to treat it as such.
    fn submit_hot(&mut self, lane: u32, change: &Change, now: Now) -> Option<Admission> {
        let lut = change.version.lut();
        let hot_key_ms = u64::from(self.ns_of(lane).policy.hot_key_ms);
        let age_ms = lut.ms().saturating_sub(change.previous_lut?.ms());
        if age_ms >= hot_key_ms {
            return None;
        }
        let due_ms = ms_at_or_after(now.tick) + hot_key_ms - age_ms;
        if let Some(slot) = self.slots.find(&change.digest, lane) {
            let admission = self.join(slot, lut, due_ms);
            self.ns_of(lane).counters.hot_keys += u64::from(admission == Admission::Merged);
            return Some(admission);
        }
        if self.due_slots >= self.limits.hot_keys || !self.slots.has_free() {
            return None;
        }
        let slot = self.slots.take(change.digest, lane, PackedLut::of(lut), State::Due);
        self.due_slots += 1;
        self.ns_of(lane).gauges.in_queue += 1;
        self.note_floor(lane, lut);
        self.wheel.insert(slot, due_ms, &mut self.slots);
        Some(Admission::Queued)
    }

    /// Adds a newer change to the slot of its record. The caller holds the change as its own; the
    /// slot takes it over, as queued if it has to ship separately.
    pub(super) fn join(&mut self, slot: u32, lut: Lut, due_ms: u64) -> Admission {
        let place = self.slots.at_mut(slot);
        let lane = place.lane;
        let separate = place.state == State::Dispatched;
        if separate && !place.has(flag::AGAIN) {
            place.flags |= flag::AGAIN;
            place.again = PackedLut::of(lut);
            place.due_ms = due_ms as u32;
            self.ns_of(lane).gauges.in_queue += 1;
            self.note_floor(lane, lut);
            return Admission::Queued;
        }
        // The older of the two is superseded: the slot now stands for the newer one.
        let held = if separate { &mut place.again } else { &mut place.lut };
        *held = PackedLut::of(lut.max(held.get()));
        self.ns_of(lane).counters.merged += 1;
        Admission::Merged
    }

    #[inline]
    fn enqueue(&mut self, lane: u32, entry: Entry, now: Now) -> Admission {
        let Policy { queue_entries_max: limit, delay_ms, .. } = self.ns_of(lane).policy;
        self.young_until = self.young_until.min(now.tick.plus_ms(u64::from(delay_ms)));
        if self.lanes[lane as usize].ring.len() >= limit {
            return self.overflow(lane, entry.lut.get());
        }
        if self.lanes[lane as usize].ring.push_back(entry, &mut self.pool).is_err() {
            self.drop_longest_lane();
            let Lane { ring, gap, .. } = &mut self.lanes[lane as usize];
            if *gap != PackedLut::MAX || ring.push_back(entry, &mut self.pool).is_err() {
                return self.overflow(lane, entry.lut.get());
            }
        }
        self.queued.insert(lane);
        self.ns_of(lane).gauges.in_queue += 1;
        Admission::Queued
    }

    /// The lane keeps nothing, the newest change included; recovery covers all of it.
    fn overflow(&mut self, lane: u32, lut: Lut) -> Admission {
        self.open_gap(lane, lut);
        self.ns_of(lane).counters.dropped_to_recovery += 1;
        Admission::Overflowed
    }

    /// The DC's share of memory is used up: its longest queue goes to recovery.
    #[cold]
    pub(super) fn drop_longest_lane(&mut self) {
        let longest = self.queued.iter().max_by_key(|&lane| self.lanes[lane as usize].ring.len());
        if let Some(lane) = longest {
            self.open_gap(lane, Lut::MAX);
        }
    }
}

impl Policy {
    /// Whether a kind of change is shipped.
    #[inline]
    pub const fn ships_kind(&self, kind: ChangeKind) -> bool {
        match kind {
            ChangeKind::Write | ChangeKind::DurableDelete => true,
            ChangeKind::Delete => !self.ignore_expunges,
            ChangeKind::NsupDelete => self.ship_nsup_deletes,
        }
    }
}

impl super::dc::Attached {
    /// Whether a set is shipped; asks its name once.
    #[inline]
    pub(super) fn ships_set(&mut self, set: SetId, name: &str) -> bool {
        if let Some(Some(known)) = self.sets.get(usize::from(set.0)) {
            return *known;
        }
        let ships = self.policy.sets.admits(name);
        if self.sets.len() <= usize::from(set.0) {
            self.sets.resize(usize::from(set.0) + 1, None);
        }
        self.sets[usize::from(set.0)] = Some(ships);
        ships
    }
}
