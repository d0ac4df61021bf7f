//! Changes that wait for another try: how long, how many, and where the overflow goes.

use super::dc::{DcShard, Now};
use super::lane::{RETRY_MAX, RETRY_MAX_IN_RECOVERY};
use super::mutation::{Mutation, planted};
use super::queue::{Entry, PackedLut};
use super::slots::{State, flag};
use super::timers::ms_of;
use super::verdict::Pace;
use crate::model::{NamespaceId, Tick};
use crate::wire::ResultCode;

/// First wait after an error that passes by itself, and the longest.
const QUICK_MS: (u64, u64) = (10, 1280);
/// The same after one that somebody has to act on.
const SLOW_MS: (u64, u64) = (500, 8000);
/// How often a parked namespace is probed, at first and at last.
const PROBE_MS: (u64, u64) = (1000, 8000);
/// How long a lane rests whose dead letter could not be kept.
const LETTERS_FULL_MS: u64 = 5000;

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
    /// The change that tries.
    pub(super) probe: Option<u32>,
}

impl Parked {
    pub(super) const fn new(code: ResultCode, now: Tick) -> Self {
        let wait_ms = PROBE_MS.0;
        Self { code, since: now, probe_at: now.plus_ms(wait_ms), wait_ms, probe: None }
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
    /// one a parked namespace is probed at once.
    pub fn foresee(&mut self, namespace: NamespaceId, refusal: Option<ResultCode>, now: Now) {
        let Some(ns) = self.attached_mut(namespace) else { return };
        match (&mut ns.parked, refusal) {
            (None, Some(code)) => ns.parked = Some(Parked::new(code, now.tick)),
            (Some(parked), None) => parked.probe_at = now.tick,
            (Some(parked), Some(code)) => parked.code = code,
            (None, None) => {}
        }
        let block = ns.block;
        self.turns[block as usize].wake();
    }

    /// Lets a dispatched change wait for another try; beyond the lane's bound it is left to
    /// recovery.
    pub(super) fn retry(&mut self, slot: u32, pace: Pace, now: Now) {
        let place = self.slots.at_mut(slot);
        let wait_ms = wait_ms(pace, place.attempts);
        place.attempts = place.attempts.saturating_add(1);
        let lane = place.lane;
        let max = if place.has(flag::WALKED) { RETRY_MAX_IN_RECOVERY } else { RETRY_MAX };
        if self.must_not_wait(lane) || self.lanes[lane as usize].retries >= max {
            return self.drop_to_recovery(slot);
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

    /// Sends a dispatched change again as soon as there is room.
    pub(super) fn retry_at_once(&mut self, slot: u32) {
        if self.must_not_wait(self.slots.at(slot).lane) {
            return self.drop_to_recovery(slot);
        }
        self.merge_again(slot);
        self.set_state(slot, State::Due);
        self.make_ready(slot);
    }

    /// Nothing waits in a paused namespace, nor beyond the bound.
    pub(super) fn must_not_wait(&mut self, lane: u32) -> bool {
        self.ns_of(lane).paused || self.slots.used() - self.dispatched >= self.limits.waiting
    }

    /// Puts a dispatched change back at the head of its lane. Nothing is counted against it.
    pub(super) fn requeue(&mut self, slot: u32) {
        let place = *self.slots.at(slot);
        if place.has(flag::OWES_GRACE) {
            return self.retry_at_once(slot);
        }
        let limit = self.ns_of(place.lane).policy.queue_entries_max;
        let lane = &mut self.lanes[place.lane as usize];
        let lut = self.slots.at(slot).highest();
        if lane.has_gap()
            || lane.ring.len() >= limit
            || lane.ring.push_front(Entry::new(place.digest, lut), &mut self.pool).is_err()
        {
            return self.drop_to_recovery(slot);
        }
        self.queued.insert(place.lane);
        self.merge_again(slot);
        self.ns_of(place.lane).gauges.in_queue += 1;
        self.release(slot);
    }

    /// Leaves a slot's changes to recovery.
    pub(super) fn drop_to_recovery(&mut self, slot: u32) {
        let place = *self.slots.at(slot);
        let ns = self.ns_of(place.lane);
        ns.counters.dropped_to_recovery += 1;
        if place.has(flag::AGAIN) {
            ns.counters.dropped_to_recovery += 1;
            ns.gauges.in_queue -= 1;
        }
        if place.has(flag::OWES_GRACE) {
            self.hold_walks(place.lane, place.grace_ms);
        }
        self.release(slot);
        self.open_gap(place.lane, place.lowest());
    }

    /// The older of a slot's two changes is superseded by the newer.
    pub(super) fn merge_again(&mut self, slot: u32) {
        let highest = PackedLut::of(self.slots.at(slot).highest());
        let place = self.slots.at_mut(slot);
        if place.has(flag::AGAIN) {
            place.flags &= !flag::AGAIN;
            place.lut = highest;
            let ns = self.ns_of(self.slots.at(slot).lane);
            ns.counters.merged += 1;
            ns.gauges.in_queue -= 1;
        }
    }

    /// A lane rests: the list of dead letters has no room for what it would give up.
    pub(super) fn rest_lane(&mut self, lane: u32, now: Now) {
        let until_ms = ms_of(now.tick) + LETTERS_FULL_MS;
        self.lanes[lane as usize].rests_until_ms = (until_ms as u32).max(1);
    }

    /// Frees a slot whose changes have been accounted for.
    pub(super) fn release(&mut self, slot: u32) {
        let (lane, state) = (self.slots.at(slot).lane, self.slots.at(slot).state);
        self.count_state(lane, state, false);
        self.turns_of(lane).wake();
        if matches!(state, State::Grace | State::Dead) {
            self.slots.free_unlisted(slot);
        } else {
            self.slots.free(slot);
        }
    }
}
