//! Changes that wait for another try: how long, how many, and where the overflow goes.

use super::dc::{DcShard, Now};
use super::lane::{RETRY_MAX, RETRY_MAX_IN_RECOVERY};
use super::mutation::{Mutation, planted};
use super::queue::Entry;
use super::slots::{Slot, State, flag};
use super::stats::Stats;
use super::timers::ms_of;
use super::verdict::Pace;
use crate::model::{Digest, NamespaceId, Tick};
use crate::wire::ResultCode;

/// First wait after an error that passes by itself, and the longest.
const QUICK_MS: (u64, u64) = (10, 1280);
/// First wait after an error that somebody has to act on, and the longest.
const SLOW_MS: (u64, u64) = (500, 8000);
/// How often a parked namespace is probed, at first and at last.
const PROBE_MS: (u64, u64) = (1000, 8000);

/// A namespace towards which no write would be taken: nothing ships but a probe now and then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parked {
    /// What the destination answered last.
    pub code: ResultCode,
    /// Since when.
    pub since: Tick,
    /// When it is tried next.
    pub probe_at: Tick,
    pub(super) wait_ms: u64,
    /// The destination says so of itself; if not any more, only a refusal keeps it parked.
    pub(super) is_said: bool,
    /// Slot of the change that is tried, while it is under way.
    pub(super) probe: Option<u32>,
}

impl Parked {
    pub(super) const fn new(code: ResultCode, now: Tick) -> Self {
        let wait_ms = PROBE_MS.0;
        Self {
            code,
            since: now,
            probe_at: now.plus_ms(wait_ms),
            wait_ms,
            is_said: true,
            probe: None,
        }
    }

    pub(super) fn wait_longer(&mut self, code: ResultCode, now: Tick) {
        self.code = code;
        self.wait_ms = (self.wait_ms * 2).min(PROBE_MS.1);
        self.probe_at = now.plus_ms(self.wait_ms);
    }

    pub(super) fn may_probe(&self, now: Tick) -> bool {
        self.probe.is_none() && self.probe_at <= now
    }

    /// When something may go again: with a probe on its way, once that has come back.
    pub(super) const fn next_due(&self) -> Tick {
        if self.probe.is_some() { Tick::NEVER } else { self.probe_at }
    }
}

/// Wait before try number `attempts + 1`.
const fn wait_ms(pace: Pace, attempts: u8) -> u64 {
    let (first, last) = match pace {
        Pace::Quick => QUICK_MS,
        Pace::Slow => SLOW_MS,
    };
    let shift = if attempts > 20 { 20 } else { attempts };
    let wait = first << shift;
    if wait < last { wait } else { last }
}

impl DcShard {
    /// Takes what the destination says of itself before anything is tried: the code it would refuse
    /// every write of the namespace with, or none. With a refusal the namespace is parked; without
    /// one a parked namespace is probed at once, or where nothing waits that could be a probe, it is
    /// parked no more.
    pub fn foresee(&mut self, namespace: NamespaceId, refusal: Option<ResultCode>, now: Now) {
        let waits = |stats: Stats| stats.backlog() + stats.recoveries_pending > 0;
        let is_over = refusal.is_none() && self.parked(namespace).is_some();
        let may_probe = is_over && self.stats(namespace).is_some_and(waits);
        let Some(ns) = self.attached_mut(namespace) else { return };
        match (&mut ns.parked, refusal) {
            (None, Some(code)) => ns.parked = Some(Parked::new(code, now.tick)),
            (Some(_), None) if !may_probe => ns.parked = None,
            (Some(parked), None) => (parked.is_said, parked.probe_at) = (false, now.tick),
            (Some(parked), Some(code)) => (parked.is_said, parked.code) = (true, code),
            (None, None) => {}
        }
        if refusal.is_none() {
            ns.refusals.forget();
        }
        let block = ns.block;
        self.wake_resting(block);
    }

    /// Lets a dispatched change wait for another try. When the lane has as many waiting as it may,
    /// the change returns to the lane, which ships nothing new until tries succeed. When there is no
    /// room to wait, the lane waits as long.
    pub(super) fn retry(&mut self, slot: u32, pace: Pace, now: Now) {
        let place = self.slots.at_mut(slot);
        let wait_ms = wait_ms(pace, place.attempts);
        place.attempts = place.attempts.saturating_add(1);
        let lane = place.lane;
        let max = if place.has(flag::WALKED) { RETRY_MAX_IN_RECOVERY } else { RETRY_MAX };
        let may_return = !self.is_bound_to_slot(slot);
        if self.ns_of(lane).paused || may_return && self.lanes[lane].retries >= max {
            return self.requeue(slot);
        }
        if may_return && !self.has_room_to_wait(lane) {
            self.rest_lane(lane, wait_ms, now);
            return self.requeue(slot);
        }
        if planted(Mutation::LostRetry) {
            self.merge_again(slot);
            self.ns_of(lane).counters.success += 1;
            return self.release(slot);
        }
        self.merge_again(slot);
        self.set_state(slot, State::Retry);
        self.wheel.insert(slot, ms_of(now.tick) + wait_ms, &mut self.slots);
    }

    /// Sends a dispatched change again as soon as there is room. It keeps its slot, and so needs no
    /// room to wait in.
    pub(super) fn retry_at_once(&mut self, slot: u32) {
        let lane = self.slots.at(slot).lane;
        if self.ns_of(lane).paused {
            return self.leave_slot(slot);
        }
        self.merge_again(slot);
        self.set_state(slot, State::Due);
        self.make_ready(slot);
    }

    /// Records of which a replay, if there is one, has come to nothing since the last call: it was
    /// given up before it had shipped, or a change of the record has a letter since. Their letters
    /// stay.
    pub fn take_dropped_replays(&mut self) -> Vec<(NamespaceId, Digest)> {
        std::mem::take(&mut self.dropped_replays)
    }

    /// Whether one more change of a lane may wait. Each namespace has its share of the places, so that
    /// none takes pace and letters from another.
    pub(super) fn has_room_to_wait(&self, lane: u32) -> bool {
        let namespaces = self.attached_ids().count() as u64;
        let waiting = self.attached_in(self.block_of(lane)).map_or(0, |ns| ns.gauges.retrying);
        waiting * namespaces < u64::from(self.limits.waiting)
            && self.slots.used() - self.slots.dispatched() < self.limits.waiting
    }

    /// Whether a queue cannot take the change back: it owes a grace, or is a replay.
    pub(super) fn is_bound_to_slot(&self, slot: u32) -> bool {
        let place = self.slots.at(slot);
        place.has(flag::OWES_GRACE) || self.is_replay(place)
    }

    /// Returns a change to the head of its lane; nothing is counted against it. A lane that is left
    /// to recovery covers it.
    ///
    /// A change that owes a grace re-ship keeps its slot. So does a replayed letter: it is older
    /// than what its lane owes.
    pub(super) fn requeue(&mut self, slot: u32) {
        let place = *self.slots.at(slot);
        if self.ns_of(place.lane).paused {
            return self.leave_slot(slot);
        }
        if self.is_bound_to_slot(slot) {
            return self.retry_at_once(slot);
        }
        let entry = Entry::new(place.digest, place.highest());
        if self.lanes[place.lane].has_gap() || !self.push_front(place.lane, entry) {
            return self.leave_slot(slot);
        }
        self.merge_again(slot);
        self.ns_of(place.lane).gauges.in_queue += 1;
        self.release(slot);
    }

    /// Puts an entry in front of its lane's queue. What returns may pass the queue's limit, by no
    /// more than the window.
    fn push_front(&mut self, lane: u32, entry: Entry) -> bool {
        // Walks would bring ever more that returns.
        let limit = self.ns_of(lane).policy.queue_entries_max.saturating_add(self.limits.window);
        if self.lanes[lane].queued() >= limit {
            return false;
        }
        if self.lanes.push_front(lane, entry).is_err() {
            self.drop_longest_lane();
            if self.lanes[lane].has_gap() || self.lanes.push_front(lane, entry).is_err() {
                return false;
            }
        }
        true
    }

    /// Whether a slot stands for an old change taken up again: its lane owes nothing so old.
    pub(super) fn is_replay(&self, slot: &Slot) -> bool {
        slot.lowest() < self.lanes[slot.lane].lst.get()
    }

    /// Leaves a slot's changes to the recovery of their lane. A replay goes back to its letter.
    fn leave_slot(&mut self, slot: u32) {
        let place = *self.slots.at(slot);
        let lst = self.lanes[place.lane].lst.get();
        let ns = self.ns_of(place.lane);
        ns.counters.dropped_to_recovery += 1;
        if place.has(flag::AGAIN) {
            ns.counters.dropped_to_recovery += 1;
            ns.gauges.in_queue -= 1;
        }
        if place.has(flag::OWES_GRACE) {
            self.hold_walks(place.lane, place.grace_ms);
        }
        if self.is_replay(&place) {
            self.dropped_replays.push((self.namespace_of(place.lane), place.digest));
        }
        self.release(slot);
        self.note_missed(place.lane, 1);
        self.open_gap(place.lane, place.lowest().max(lst));
    }

    /// The older of a slot's two changes is superseded by the newer.
    pub(super) fn merge_again(&mut self, slot: u32) {
        let place = self.slots.at_mut(slot);
        if place.has(flag::AGAIN) {
            place.stand_for(place.oldest().min(place.again.get()), place.highest());
            place.flags &= !flag::AGAIN;
            let ns = self.ns_of(self.slots.at(slot).lane);
            ns.counters.merged += 1;
            ns.gauges.in_queue -= 1;
        }
    }

    /// A lane rests: the list of dead letters has no room for what it would give up, or its node
    /// refuses whatever it is sent.
    pub(super) fn rest_lane(&mut self, lane: u32, for_ms: u64, now: Now) {
        self.lanes[lane].rest(ms_of(now.tick) + for_ms);
    }

    /// Frees a slot whose changes have been accounted for.
    pub(super) fn release(&mut self, slot: u32) {
        let (lane, state) = (self.slots.at(slot).lane, self.slots.at(slot).state());
        self.count_state(lane, state, false);
        self.turns_of(lane).wake();
        if matches!(state, State::Grace | State::Dead) {
            self.slots.free_unlisted(slot);
        } else {
            self.slots.free(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Desk, NS, digest, policy};
    use super::super::{Limits, Outcome, Policy};
    use crate::model::{Lut, PartitionId};

    #[test]
    fn what_walks_bring_and_the_way_returns_does_not_outgrow_its_lane() {
        let limits = Limits { window: 8, ..Limits::default() };
        let mut desk = Desk::new(Policy { queue_entries_max: 4, ..policy() }, limits);
        let first = desk.now().wall;
        (0..64).for_each(|n| _ = desk.wait(1).write(digest(1, n)));
        desk.dc.missed(NS, PartitionId::new(1), first, Lut::ZERO);
        let walk = desk.wait(1000).begin_walk().expect("a lane to recover");
        desk.walk_all(walk.walk);
        for _ in 0..64 {
            // After each step the desk looks whether the bound is kept.
            for dispatch in desk.dispatch().iter().rev() {
                desk.settle(dispatch.slot, Outcome::Unsent);
            }
        }
        assert!(desk.wait(1000).begin_walk().is_some(), "what had no room is left to recovery");
    }
}
