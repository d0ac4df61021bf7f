//! What came of a dispatched change, and what is done about it.

use super::dc::{DcShard, Now};
use super::mutation::{Mutation, planted};
use super::queue::PackedLut;
use super::slots::{State, Strikes, flag};
use super::timers::ms_of;
use super::verdict::{Pace, Sent, Verdict, verdict};
use crate::model::{Digest, Lut, NamespaceId, Tick, Version};
use crate::wire::ResultCode;

/// Failed reads of one change before it is given up.
const READS_MAX: u8 = 8;

/// From this many tries of one change on, errors that should pass by themselves last.
const LASTING_ATTEMPTS: u8 = 5;
/// How long a lane rests whose dead letter could not be kept.
const LETTERS_FULL_MS: u64 = 5000;
/// How long a refusal is remembered as recent: longer than any change waits for its next try.
const REFUSED_MS: u64 = 10_000;

/// What came of a dispatched change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The destination answered.
    Reply(ResultCode),
    /// The source has no such record any more, nor a tombstone of it.
    NotFound,
    /// A filter or projection left nothing to send.
    FilteredOut,
    /// The record could not be read: the device or a checksum failed.
    ReadFailed,
    /// The record was not read: memory was short. Nothing is counted against the change.
    NotRead,
    /// It was not sent: the connection was gone before.
    Unsent,
    /// It was sent and not answered before the connection was lost or given up.
    Unanswered {
        /// The destination drops what is unread on older connections before it serves a new one.
        fenced: bool,
    },
}

/// Why a change was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The destination will never take it.
    Refused(ResultCode),
    /// The source cannot read the record.
    Unreadable,
}

/// A change given up, to be kept as a dead letter. Until [`DcShard::letter_kept`] or
/// [`DcShard::letter_refused`] is called with its slot, its lane's LST stays behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abandoned {
    /// Names it.
    pub slot: u32,
    /// Namespace at the source.
    pub namespace: NamespaceId,
    /// Digest of the record.
    pub digest: Digest,
    /// LUT of the change.
    pub lut: Lut,
    /// Why.
    pub cause: Cause,
}

/// What [`DcShard::settle`] leaves to its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// Nothing: settled, or waiting for another try.
    Done,
    /// To keep a dead letter.
    Abandoned(Abandoned),
}

/// How a change ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Success,
    NotFound,
    FilteredOut,
}

impl DcShard {
    /// A hint that these slots are settled next.
    #[inline]
    pub fn prefetch(&self, slots: impl Iterator<Item = u32> + Clone) {
        self.slots.prefetch_listed(slots);
    }

    /// Tells which version of a dispatched change's record was read, and what is sent for it in how
    /// many bytes. Comes before its reply.
    #[inline]
    pub fn sent(&mut self, slot: u32, version: Version, sent: Sent, bytes: usize) {
        let place = self.slots.at_mut(slot);
        debug_assert_eq!(place.state(), State::Dispatched);
        let read = version.lut();
        // No change of that millisecond can have come since, once the clock was past it.
        let is_over = read < place.covers.get();
        place.covers = PackedLut::of(if is_over { read.plus_ms(1) } else { read });
        place.flags &= !(flag::DELETE | flag::DURABLE);
        place.flags |= match sent {
            Sent::Write => 0,
            Sent::Delete => flag::DELETE,
            Sent::DurableDelete => flag::DELETE | flag::DURABLE,
        };
        if !place.has(flag::DISCARDED) {
            let lane = place.lane;
            let ns = self.ns_of(lane);
            ns.counters.bytes_shipped += bytes as u64;
            ns.averages.note_frame(bytes as u64);
        }
    }

    /// Takes what came of a dispatched change. Exactly one call per [`super::Dispatch`].
    ///
    /// A connection given up returns its changes newest first, so that their lanes keep the order.
    ///
    /// # Panics
    ///
    /// If the slot is not dispatched.
    #[inline]
    pub fn settle(&mut self, slot: u32, outcome: Outcome, now: Now) -> Settled {
        assert_eq!(self.slots.at(slot).state(), State::Dispatched, "slot {slot} settled twice");
        let place = self.slots.at(slot);
        if place.flags & (flag::DISCARDED | flag::PROBE) != 0 {
            if place.has(flag::DISCARDED) {
                self.settle_discarded(slot, outcome, now);
                return Settled::Done;
            }
            self.settle_probe(slot, outcome, now);
        }
        let lane = self.slots.at(slot).lane;
        self.turns_of(lane).wake();
        match outcome {
            Outcome::Reply(code) => return self.settle_reply(slot, code, now),
            Outcome::NotFound => self.complete(slot, End::NotFound, now),
            Outcome::FilteredOut => self.complete(slot, End::FilteredOut, now),
            Outcome::ReadFailed if self.slots.at(slot).strikes.failed_reads() >= READS_MAX => {
                return self.abandon(slot, Cause::Unreadable, now);
            }
            Outcome::ReadFailed => {
                self.ns_of(lane).counters.retry_read += 1;
                self.slots.at_mut(slot).strikes.read_failed();
                self.retry(slot, Pace::Quick, now);
            }
            Outcome::NotRead => self.retry(slot, Pace::Quick, now),
            Outcome::Unsent | Outcome::Unanswered { fenced: true } => {
                self.ns_of(lane).counters.retry_conn_reset += 1;
                // A queue knows one time of a change, and would forget how long others wait with it.
                if self.slots.at(slot).is_merged() {
                    self.retry_at_once(slot);
                } else {
                    self.requeue(slot);
                }
            }
            Outcome::Unanswered { fenced: false } => {
                self.ns_of(lane).counters.retry_conn_reset += 1;
                let place = self.slots.at_mut(slot);
                place.flags |= if planted(Mutation::NoGrace) { 0 } else { flag::OWES_GRACE };
                place.grace_ms = ms_of(now.tick.plus_ms(u64::from(self.limits.grace_ms))) as u32;
                self.retry_at_once(slot);
            }
        }
        Settled::Done
    }

    #[inline]
    fn settle_reply(&mut self, slot: u32, code: ResultCode, now: Now) -> Settled {
        let place = self.slots.at(slot);
        let (lane, sent, walked) = (place.lane, place.sent_as(), place.has(flag::WALKED));
        let attempts = place.attempts;
        let latency_us = u64::from(place.flight_us(now.tick));
        let ns = self.ns_of(lane);
        match verdict(code, sent) {
            Verdict::Success => {
                ns.averages.note_latency(latency_us);
                ns.counters.recovered += u64::from(walked);
                if !ns.refusals.is_empty() {
                    self.note_taken(slot);
                }
                self.note_ack(slot, now.tick);
                self.complete(slot, End::Success, now);
            }
            Verdict::Retry(pace) => {
                ns.counters.retry_dest += 1;
                // Somebody has to make room, or it has not passed by itself.
                if pace == Pace::Slow || attempts >= LASTING_ATTEMPTS {
                    ns.refused = Some((code, now.tick));
                }
                self.retry(slot, pace, now);
            }
            Verdict::PlainDelete => {
                self.peer.refuse_durable_deletes();
                self.slots.at_mut(slot).flags |= flag::PLAIN;
                self.retry_at_once(slot);
            }
            Verdict::Refuse => return self.refuse(slot, code, now),
            Verdict::Abandon => return self.abandon(slot, Cause::Refused(code), now),
        }
        Settled::Done
    }

    /// The temporary error that keeps changes of a namespace waiting, if one does.
    pub fn refused(&self, namespace: NamespaceId, now: Now) -> Option<ResultCode> {
        let ns = self.attached(namespace)?;
        let (code, at) = ns.refused.filter(|_| ns.gauges.retrying > 0)?;
        (now.tick < at.plus_ms(REFUSED_MS)).then_some(code)
    }

    /// A change is done; a newer one of its record that waited for it goes next.
    #[inline]
    fn complete(&mut self, slot: u32, end: End, now: Now) {
        let place = self.slots.at(slot);
        let lane = place.lane;
        if place.flags & (flag::AGAIN | flag::OWES_GRACE) != 0 {
            let (covers, again) = (place.covers.get(), place.again.get());
            let covered =
                again < covers || planted(Mutation::CoversItsMillisecond) && again == covers;
            if place.has(flag::AGAIN) && end == End::Success && covered {
                // What was sent already held the newer change.
                self.merge_again(slot);
            }
            if self.slots.at(slot).has(flag::AGAIN) {
                return self.go_again(slot, end, now);
            }
            if self.owes_grace(slot, now.tick) {
                return self.await_grace(slot, now);
            }
        }
        if end == End::Success {
            self.note_ahead(slot);
        }
        let place = self.slots.at(slot);
        let (digest, lut, covers) = (place.digest, place.lut.get(), place.covers.get());
        let ns = self.ns_of(lane);
        ns.counters.count(end);
        if !ns.letters.is_empty() {
            // What was not found, or is not shipped any more, leaves nothing to be replayed; of what
            // is written later nothing is known. A replay of the letter itself has its own end.
            let least = if end == End::Success { lut } else { lut.plus_ms(1) };
            let below = covers.max(least);
            let is_replay = self.is_replay(self.slots.at(slot));
            if end != End::Success || !is_replay {
                self.ns_of(lane).letters.settled(&digest, below);
            }
        }
        self.release(slot);
    }

    /// Remembers that a newer version shipped in place of this change, if the newer version's own
    /// change may still be queued, or the walk that found this one may find it again.
    #[inline]
    fn note_ahead(&mut self, slot: u32) {
        let place = self.slots.at(slot);
        let (lut, below) = (place.lut.get(), place.covers.get());
        if below > lut.plus_ms(1) {
            let (digest, lane) = (place.digest, place.lane);
            let (queue, pool) = self.lanes.queue(lane);
            let may_be_queued = queue.may_hold(below.minus_ms(1), pool);
            let is_find = place.has(flag::WALKED);
            if may_be_queued || is_find && self.is_walked_since(lane, below) {
                self.ahead.note(digest, lane, below);
            }
        }
    }

    fn go_again(&mut self, slot: u32, end: End, now: Now) {
        let place = self.slots.at_mut(slot);
        let (lane, due_ms) = (place.lane, place.due_ms);
        place.flags &= flag::OWES_GRACE;
        // What joined came after it was dispatched; the first may have come right then.
        let (newest, flight_ms) = (place.again.get(), u64::from(place.flight_us(now.tick)) / 1000);
        place.stand_for(newest.minus_ms(flight_ms), newest);
        place.attempts = 0;
        place.strikes = Strikes::default();
        let ns = self.ns_of(lane);
        ns.counters.count(end);
        // It was counted as queued since it joined, and is so as the slot's own change from now on.
        ns.gauges.in_queue -= 1;
        if self.ns_of(lane).paused {
            return self.requeue(slot);
        }
        self.set_state(slot, State::Due);
        let now_ms = ms_of(now.tick);
        let wait_ms = due_ms.wrapping_sub(now_ms as u32) as i32;
        if wait_ms > 0 && !planted(Mutation::HotKeyAtOnce) {
            self.wheel.insert(slot, now_ms + u64::from(wait_ms.unsigned_abs()), &mut self.slots);
        } else {
            self.make_ready(slot);
        }
    }

    /// Whether the answer just taken came too early to rule stragglers out.
    fn owes_grace(&self, slot: u32, now: Tick) -> bool {
        let place = self.slots.at(slot);
        let dispatched = Tick(now.0.saturating_sub(u64::from(place.flight_us(now))));
        let early_ms = place.grace_ms.wrapping_sub(ms_of(dispatched) as u32) as i32;
        place.has(flag::OWES_GRACE) && early_ms > 0
    }

    /// Keeps an answered change until a straggler can no longer undo what comes of it, or of newer
    /// versions meanwhile; then it ships again.
    fn await_grace(&mut self, slot: u32, now: Now) {
        let lane = self.slots.at(slot).lane;
        if self.ns_of(lane).paused {
            return self.requeue(slot);
        }
        self.slots.unlist(slot);
        self.set_state(slot, State::Grace);
        let now_ms = ms_of(now.tick);
        let wait_ms = self.slots.at(slot).grace_ms.wrapping_sub(now_ms as u32) as i32;
        let due_ms = now_ms + u64::from(wait_ms.max(0).unsigned_abs());
        self.wheel.insert(slot, due_ms, &mut self.slots);
    }

    /// The time of a grace re-ship has come. False when another slot of the record takes it over.
    pub(super) fn resume_grace(&mut self, slot: u32) -> bool {
        let place = *self.slots.at(slot);
        let Some(other) = self.slots.find(&place.digest, place.lane) else {
            self.slots.enlist(slot);
            self.set_state(slot, State::Due);
            self.ns_of(place.lane).counters.grace_reships += 1;
            return true;
        };
        let heir = self.slots.at_mut(other);
        if heir.has(flag::OWES_GRACE) {
            let later_ms = heir.grace_ms.wrapping_sub(place.grace_ms) as i32;
            heir.grace_ms = if later_ms > 0 { heir.grace_ms } else { place.grace_ms };
        } else {
            heir.flags |= flag::OWES_GRACE;
            heir.grace_ms = place.grace_ms;
        }
        let heir_lut = heir.lut.get().min(place.lut.get());
        heir.stand_for(heir.oldest(), heir_lut);
        self.note_floor(place.lane, heir_lut);
        self.ns_of(place.lane).counters.merged += 1;
        self.release(slot);
        false
    }

    pub(super) fn abandon(&mut self, slot: u32, cause: Cause, now: Now) -> Settled {
        if self.slots.at(slot).has(flag::AGAIN) {
            // A newer version is to be tried anyway; this one is superseded.
            self.merge_again(slot);
            let place = self.slots.at_mut(slot);
            (place.attempts, place.strikes) = (0, Strikes::default());
            self.retry_at_once(slot);
            return Settled::Done;
        }
        if self.owes_grace(slot, now.tick) {
            self.await_grace(slot, now);
            return Settled::Done;
        }
        self.slots.unlist(slot);
        self.set_state(slot, State::Dead);
        let place = *self.slots.at(slot);
        self.ns_of(place.lane).letters.expect(place.digest);
        Settled::Abandoned(Abandoned {
            slot,
            namespace: self.namespace_of(place.lane),
            digest: place.digest,
            lut: place.lut.get(),
            cause,
        })
    }

    /// The dead letter of an abandoned change is durable.
    pub fn letter_kept(&mut self, slot: u32) {
        if self.free_if_discarded(slot) {
            return;
        }
        let place = self.slots.at(slot);
        let (lane, digest, lut) = (place.lane, place.digest, place.lut.get());
        // If a replay of the record's former letter was under way, this one is not its to take along.
        self.dropped_replays.push((self.namespace_of(lane), digest));
        let ns = self.ns_of(lane);
        ns.counters.abandoned += 1;
        let settled = ns.letters.arrive(digest);
        ns.letters.keep(digest, lut);
        ns.letters.settled(&digest, settled);
        self.release(slot);
    }

    /// The dead letter of an abandoned change could not be kept: the change goes back to its lane,
    /// which rests for a while.
    pub fn letter_refused(&mut self, slot: u32, now: Now) {
        if self.free_if_discarded(slot) {
            return;
        }
        if planted(Mutation::LetterLost) {
            return self.letter_kept(slot);
        }
        let place = *self.slots.at(slot);
        self.ns_of(place.lane).letters.arrive(place.digest);
        self.rest_lane(place.lane, LETTERS_FULL_MS, now);
        if let Some(other) = self.slots.find(&place.digest, place.lane) {
            self.release(slot);
            self.join(other, place.lut.get(), ms_of(now.tick));
        } else {
            self.slots.enlist(slot);
            self.set_state(slot, State::Dispatched);
            self.requeue(slot);
        }
    }

    fn free_if_discarded(&mut self, slot: u32) -> bool {
        let discarded = self.slots.at(slot).has(flag::DISCARDED);
        if discarded {
            self.slots.free_unlisted(slot);
        }
        discarded
    }

    /// A probe came back: the namespace goes on, or waits longer.
    fn settle_probe(&mut self, slot: u32, outcome: Outcome, now: Now) {
        let (lane, sent) = (self.slots.at(slot).lane, self.slots.at(slot).sent_as());
        self.slots.at_mut(slot).flags &= !flag::PROBE;
        let ns = self.ns_of(lane);
        let Some(parked) = &mut ns.parked else { return };
        parked.probe = None;
        // What passes by itself is nothing to be parked for.
        let refusal = match outcome {
            Outcome::Reply(code) => match verdict(code, sent) {
                Verdict::Refuse => Some(code),
                Verdict::Retry(_) => parked.is_said.then_some(parked.code),
                Verdict::Success | Verdict::Abandon | Verdict::PlainDelete => None,
            },
            Outcome::Unsent | Outcome::Unanswered { .. } => parked.is_said.then_some(parked.code),
            // The record decided nothing: the next one probes.
            Outcome::NotFound | Outcome::FilteredOut | Outcome::ReadFailed | Outcome::NotRead => {
                return;
            }
        };
        match refusal {
            Some(code) => parked.wait_longer(code, now.tick),
            None => ns.parked = None,
        }
    }
}

impl super::stats::Counters {
    #[inline]
    const fn count(&mut self, end: End) {
        match end {
            End::Success => self.success += 1,
            End::NotFound => self.not_found += 1,
            End::FilteredOut => self.filtered_out += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Desk, NS, digest, policy, walked};
    use super::super::{Admission, Limits, Policy, Room};
    use super::*;
    use crate::model::{Tick, Version};

    #[test]
    fn temporary_errors_back_off() {
        let mut desk = Desk::plain();
        desk.write(digest(1, 1));
        let mut waits = Vec::new();
        for _ in 0..10 {
            let out = desk.dispatch();
            assert_eq!(out.len(), 1);
            desk.reply(out[0].slot, ResultCode::TIMEOUT);
            let from = desk.ms;
            let (_, idle) = desk.dispatch_idle(10);
            desk.ms = idle.next_due.0 / 1000;
            waits.push(desk.ms - from);
        }
        assert_eq!(waits, [10, 20, 40, 80, 160, 320, 640, 1280, 1280, 1280]);
        assert_eq!(desk.lst(1), 0);
        assert_eq!(desk.dc.dc_stats().counters.retry_dest, 10);
    }

    #[test]
    fn nothing_ends_while_a_straggler_is_feared_whatever_the_answer() {
        let limits = Limits { grace_ms: 1000, ..Limits::default() };
        for end in [Outcome::Reply(ResultCode(13)), Outcome::FilteredOut, Outcome::NotFound] {
            let mut desk = Desk::new(policy(), limits);
            desk.write(digest(1, 1));
            let out = desk.dispatch();
            desk.send(&out[0]);
            desk.settle(out[0].slot, Outcome::Unanswered { fenced: false });
            let out = desk.dispatch();
            desk.send(&out[0]);
            assert_eq!(desk.settle(out[0].slot, end), Settled::Done, "{end:?}");
            assert_eq!(desk.wait(500).lst(1), 0);
            desk.write(digest(1, 1));
            let newer = desk.dispatch();
            desk.send(&newer[0]);
            desk.ok(newer[0].slot);
            // The straggler may have come in between.
            let again = desk.wait(500).dispatch();
            assert_eq!(again.len(), 1, "{end:?}");
            desk.send(&again[0]);
            desk.ok(again[0].slot);
            assert_eq!(desk.lst(1), 1000);
        }
    }

    #[test]
    fn a_temporary_error_that_lasts_is_told_until_nothing_waits_for_it() {
        let mut desk = Desk::plain();
        desk.write(digest(1, 1));
        for tries in 0..=LASTING_ATTEMPTS {
            assert_eq!(desk.dc.refused(NS, desk.now()), None, "try {tries}");
            let out = desk.wait(1000).dispatch();
            desk.reply(out[0].slot, ResultCode::KEY_BUSY);
        }
        assert_eq!(desk.dc.refused(NS, desk.now()), Some(ResultCode::KEY_BUSY));
        let out = desk.wait(2000).dispatch();
        desk.reply(out[0].slot, ResultCode::OUT_OF_SPACE);
        assert_eq!(desk.dc.refused(NS, desk.now()), Some(ResultCode::OUT_OF_SPACE), "at once");
        desk.wait(8000).ship_all();
        assert_eq!(desk.dc.refused(NS, desk.now()), None);
    }

    #[test]
    fn more_retries_than_a_lane_may_have_return_to_it() {
        let mut desk = Desk::new(Policy { queue_entries_max: 400, ..policy() }, Limits::default());
        for n in 0..300 {
            desk.wait(1).write(digest(1, n));
        }
        for dispatch in desk.dispatch() {
            desk.reply(dispatch.slot, ResultCode::DEVICE_OVERLOAD);
        }
        let stats = desk.dc.dc_stats();
        assert_eq!((stats.gauges.retrying, stats.gauges.in_queue), (50, 250));
        assert_eq!((stats.recoveries_pending, stats.counters.dropped_to_recovery), (0, 0));
        assert_eq!(desk.lst(1), 1);
        assert_eq!(desk.dispatch().len(), 0, "nothing new until the first go through");
        assert_eq!(desk.wait(10).ship_all().len(), 300);
        assert_eq!(desk.lst(1), desk.ms);
    }

    /// However often: the order that the lane keeps does not suffer for good.
    #[test]
    fn what_returned_to_a_lane_holds_its_lst_only_until_it_has_shipped() {
        let mut desk = Desk::plain();
        for n in 0..200 {
            desk.wait(1).write(digest(1, n));
        }
        for dispatch in desk.dispatch_idle(150).0 {
            desk.reply(dispatch.slot, ResultCode::DEVICE_OVERLOAD);
        }
        desk.wait(10);
        let mut shipped = 0;
        while shipped < 150 {
            let out = desk.dispatch_idle(10).0;
            shipped += out.len();
            for dispatch in out {
                desk.send(&dispatch);
                desk.ok(dispatch.slot);
            }
        }
        assert_eq!(desk.lst(1), 151, "though the queue was never empty");
    }

    #[test]
    fn a_lost_connection_with_more_than_may_wait_sends_no_lane_to_recovery() {
        let limits = Limits { window: 60, waiting: 15, ..Limits::default() };
        for fenced in [false, true] {
            let mut desk = Desk::new(policy(), limits);
            for n in 0..60 {
                desk.write(digest(n as u16 % 16, n));
            }
            let out = desk.dispatch();
            assert_eq!(out.len(), 60);
            for dispatch in out.iter().rev() {
                desk.settle(dispatch.slot, Outcome::Unanswered { fenced });
            }
            assert_eq!(desk.dc.dc_stats().recoveries_pending, 0);
            assert_eq!(desk.ship_all().len(), 60);
            assert_eq!(desk.wait(15_000).ship_all().len(), if fenced { 0 } else { 60 });
        }
    }

    #[test]
    fn changes_of_one_record_in_a_backlog_ship_once() {
        let mut desk = Desk::new(Policy { hot_key_ms: 0, ..policy() }, Limits::default());
        for round in 0..3 {
            for n in 0..100 {
                desk.write(digest(n as u16 % 16, n));
            }
            desk.wait(if round < 2 { 300 } else { 0 });
        }
        // The last writes are of this very millisecond: there may be more to come in it.
        desk.write(digest(0, 0));
        let mut shipped = 0;
        loop {
            let clock = desk.wait(1).now().wall;
            desk.dc.note_clock(|_| clock);
            let out = desk.ship_all();
            if out.is_empty() {
                break;
            }
            shipped += out.len();
        }
        assert_eq!(shipped, 100);
        assert_eq!(desk.dc.dc_stats().counters.merged, 201);
        assert_eq!(desk.lst(0), desk.ms);
    }

    #[test]
    fn a_version_that_shipped_ahead_covers_nothing_that_may_be_newer_or_lost() {
        let backlog = || {
            let mut desk = Desk::new(Policy { hot_key_ms: 0, ..policy() }, Limits::default());
            desk.write(digest(1, 1));
            desk.write(digest(1, 2));
            desk.wait(10).write(digest(1, 1));
            desk
        };
        let mut desk = backlog();
        let now = desk.now().wall;
        desk.dc.note_clock(|_| now);
        assert_eq!(desk.ship_all().len(), 3, "there may be another change of that millisecond");
        let mut desk = backlog();
        desk.dc.node_window(0, 60_000);
        let clock = desk.wait(1).now().wall;
        desk.dc.note_clock(|_| clock);
        let out = desk.dispatch_idle(2).0;
        for dispatch in &out {
            desk.send(dispatch);
            desk.ok(dispatch.slot);
        }
        desk.dc.node_restarted(0);
        let walk = desk.wait(1000).begin_walk().expect("what may be lost");
        desk.walk_all(walk.walk);
        assert_eq!(desk.ship_all().len(), 2, "both again");
    }

    #[test]
    fn a_replay_widens_no_recovery() {
        const DAY_MS: u64 = 86_400_000;
        let policy = Policy { queue_entries_max: 8, hot_key_ms: 0, ..policy() };
        for trouble in [None, Some(Outcome::Unsent), Some(Outcome::Reply(ResultCode::KEY_BUSY))] {
            let mut desk = Desk::new(policy.clone(), Limits::default());
            desk.wait(90 * DAY_MS).write(digest(1, 5));
            assert_eq!(desk.lst(1), 90 * DAY_MS);
            desk.write(digest(1, 6));
            let now = desk.now();
            let old = Lut::from_ms(super::super::testing::START_MS + 1);
            assert_eq!(desk.dc.resubmit(NS, digest(1, 9), old, now), Admission::Queued);
            desk.check();
            if let Some(outcome) = trouble {
                let out = desk.dispatch();
                let replay = out.iter().find(|d| d.digest == digest(1, 9)).expect("shipped first");
                desk.settle(replay.slot, outcome);
                out.iter().filter(|d| d.digest != digest(1, 9)).for_each(|d| desk.ok(d.slot));
            }
            for n in 10..30 {
                desk.wait(1).write(digest(1, n));
            }
            let walk = desk.wait(1000).begin_walk().expect("overflowed");
            let from = walk.lanes[0].1.ms() - super::super::testing::START_MS;
            assert!(from >= 90 * DAY_MS, "{} days again", 90 - from / DAY_MS);
            let out = desk.wait(1000).dispatch();
            assert!(out.iter().any(|d| d.digest == digest(1, 9)), "it ships all the same");
        }
    }

    #[test]
    fn a_replay_of_what_the_source_has_lost_moves_no_position_past_what_is_left() {
        // What is left, older, is found by a walk before or after the letter is taken up.
        for is_first in [true, false] {
            let mut desk = Desk::plain();
            desk.wait(20);
            desk.dc.rewind(NS, Lut::from_ms(super::super::testing::START_MS + 5));
            let now = desk.wait(10).now();
            let lost = Lut::from_ms(super::super::testing::START_MS + 15);
            let left = walked(digest(1, 1), Version::first_of(lost.minus_ms(5)));
            let walk = desk.begin_walk().expect("a rewind");
            if is_first {
                desk.dc.walked(walk.walk, &[left], |_| "");
                assert_eq!(desk.dispatch().len(), 1);
            }
            desk.dc.resubmit(NS, digest(1, 1), lost, now);
            if !is_first {
                desk.dc.walked(walk.walk, &[left], |_| "");
                assert_eq!(desk.dispatch().len(), 1);
            }
            desk.dc.walk_done(walk.walk);
            let slot = desk.dc.slots.find(&digest(1, 1), 1).expect("on its way");
            desk.settle(slot, Outcome::Unsent);
            assert!(desk.wait(10).lst(1) <= 10, "{}: what is left has not shipped", desk.lst(1));
            desk.ship_all();
            assert!(desk.wait(10).lst(1) > 15);
        }
    }

    #[test]
    fn a_replay_that_cannot_wait_stays_a_letter() {
        let mut desk = Desk::plain();
        let clock = desk.wait(1000).now().wall;
        desk.sweep();
        let now = desk.now();
        let old = Lut::from_ms(super::super::testing::START_MS + 1);
        assert_eq!(desk.dc.resubmit(NS, digest(1, 9), old, now), Admission::Queued);
        desk.dc.pause(|_| clock);
        desk.check();
        assert_eq!(desk.dc.take_dropped_replays(), [(NS, digest(1, 9))]);
        assert_eq!(desk.dc.resubmit(NS, digest(1, 9), old, now), Admission::NoRoom);
        desk.dc.resume(|_| clock);
        let walk = desk.wait(100).begin_walk().expect("a pause ended");
        assert!(walk.lanes.iter().all(|(_, from)| *from >= clock));
    }

    #[test]
    fn a_lost_connection_gives_its_changes_back_in_order() {
        let mut desk = Desk::plain();
        for n in 0..100 {
            desk.write(digest(1, n));
        }
        let out = desk.dispatch_idle(70).0;
        for dispatch in out.iter().rev() {
            desk.settle(dispatch.slot, Outcome::Unanswered { fenced: true });
        }
        assert_eq!(desk.dc.dc_stats().gauges.in_queue, 100);
        let digests: Vec<Digest> = desk.dispatch().iter().map(|d| d.digest).collect();
        assert_eq!(digests, (0..100).map(|n| digest(1, n)).collect::<Vec<_>>());
        assert_eq!(desk.dc.dc_stats().counters.retry_conn_reset, 70);
    }

    #[test]
    fn without_a_fence_an_unanswered_change_ships_once_more_after_its_grace() {
        let mut desk = Desk::plain();
        desk.write(digest(1, 1));
        let out = desk.dispatch();
        desk.send(&out[0]);
        desk.settle(out[0].slot, Outcome::Unanswered { fenced: false });
        assert_eq!(desk.ship_all().len(), 1, "at once");
        assert_eq!(desk.wait(14_999).ship_all().len(), 0);
        assert_eq!(desk.lst(1), 0, "a straggler may still undo it");
        assert_eq!(desk.wait(1).ship_all().len(), 1, "and after the grace");
        assert_eq!(desk.lst(1), desk.ms);
        let counters = desk.dc.dc_stats().counters;
        assert_eq!((counters.success, counters.grace_reships), (1, 1));
    }

    #[test]
    fn a_newer_write_takes_the_grace_over() {
        let mut desk = Desk::plain();
        desk.write(digest(1, 1));
        let out = desk.dispatch();
        desk.settle(out[0].slot, Outcome::Unanswered { fenced: false });
        desk.ship_all();
        desk.wait(14_950).write(digest(1, 1));
        let newer = desk.dispatch();
        assert_eq!(newer.len(), 1);
        desk.wait(60);
        assert_eq!(desk.dispatch().len(), 0, "the grace waits behind the one in flight");
        desk.send(&newer[0]);
        desk.ok(newer[0].slot);
        assert_eq!(desk.wait(1).ship_all().len(), 1, "sent before the grace ended: once more");
        assert_eq!(desk.wait(60_000).ship_all().len(), 0);
        assert_eq!(desk.dc.dc_stats().backlog(), 0);
    }

    #[test]
    fn a_durable_delete_falls_back_to_a_plain_one() {
        let mut desk = Desk::plain();
        desk.write(digest(1, 1));
        let out = desk.dispatch();
        assert!(!out[0].plain_delete);
        desk.dc.sent(out[0].slot, Version::ZERO, Sent::DurableDelete, 60);
        desk.reply(out[0].slot, ResultCode::ENTERPRISE_ONLY);
        let out = desk.dispatch();
        assert!(out[0].plain_delete);
        desk.dc.sent(out[0].slot, Version::ZERO, Sent::Delete, 60);
        desk.reply(out[0].slot, ResultCode::NOT_FOUND);
        assert_eq!(desk.dc.dc_stats().counters.success, 1);
        desk.write(digest(2, 1));
        assert!(desk.dispatch()[0].plain_delete, "the destination is known by now");
    }

    #[test]
    fn a_permanent_error_becomes_a_dead_letter_that_holds_the_lst() {
        let mut desk = Desk::plain();
        desk.wait(5).write(digest(1, 1));
        let out = desk.dispatch();
        let Settled::Abandoned(letter) = desk.reply(out[0].slot, ResultCode::RECORD_TOO_BIG) else {
            panic!("abandoned");
        };
        assert_eq!(letter.cause, Cause::Refused(ResultCode::RECORD_TOO_BIG));
        assert_eq!(desk.wait(10).lst(1), 5);
        assert_eq!(desk.write(digest(1, 1)), Admission::Queued);
        desk.wait(100);
        assert_eq!(desk.ship_all().len(), 1, "a newer version is tried");
        assert_eq!(desk.lst(1), 5);
        desk.dc.letter_kept(letter.slot);
        desk.check();
        assert_eq!(desk.lst(1), desk.ms);
        assert_eq!(desk.dc.dc_stats().counters.abandoned, 1);
    }

    #[test]
    fn a_letter_that_cannot_be_kept_rests_its_lane() {
        let mut desk = Desk::plain();
        desk.write(digest(1, 1));
        let out = desk.dispatch();
        let Settled::Abandoned(letter) = desk.reply(out[0].slot, ResultCode::PARAMETER) else {
            panic!("abandoned");
        };
        let now = desk.now();
        desk.dc.letter_refused(letter.slot, now);
        desk.check();
        // Rests are counted in units.
        let until_ms = (desk.ms + LETTERS_FULL_MS).next_multiple_of(64);
        assert_eq!(desk.wait(until_ms - desk.ms - 1).dispatch().len(), 0);
        assert_eq!(desk.wait(1).dispatch().len(), 1);
        assert_eq!(desk.dc.dc_stats().counters.abandoned, 0);
    }

    #[test]
    fn a_newer_version_supersedes_a_refused_one() {
        let mut desk = Desk::plain();
        desk.write(digest(1, 1));
        let out = desk.dispatch();
        desk.send(&out[0]);
        desk.wait(1).write(digest(1, 1));
        assert_eq!(desk.reply(out[0].slot, ResultCode::RECORD_TOO_BIG), Settled::Done);
        assert_eq!(desk.ship_all().len(), 1);
        assert_eq!(desk.dc.dc_stats().counters.merged, 1);
    }

    #[test]
    fn failed_reads_are_tried_again_and_then_given_up() {
        let mut desk = Desk::plain();
        desk.write(digest(1, 1));
        for _ in 0..READS_MAX {
            let out = desk.wait(5000).dispatch();
            assert_eq!(desk.settle(out[0].slot, Outcome::ReadFailed), Settled::Done);
        }
        let out = desk.wait(5000).dispatch();
        let settled = desk.settle(out[0].slot, Outcome::ReadFailed);
        assert!(matches!(settled, Settled::Abandoned(a) if a.cause == Cause::Unreadable));
    }

    #[test]
    fn neither_busy_answers_nor_lack_of_memory_count_as_failed_reads() {
        let mut desk = Desk::plain();
        desk.write(digest(1, 1));
        for n in 0..40 {
            let out = desk.wait(5000).dispatch();
            let outcome = match n % 2 {
                0 => Outcome::Reply(ResultCode::DEVICE_OVERLOAD),
                _ => Outcome::NotRead,
            };
            assert_eq!(desk.settle(out[0].slot, outcome), Settled::Done);
        }
        for _ in 0..READS_MAX {
            let out = desk.wait(5000).dispatch();
            assert_eq!(desk.settle(out[0].slot, Outcome::ReadFailed), Settled::Done);
        }
        assert_eq!(desk.dc.dc_stats().counters.retry_read, u64::from(READS_MAX));
    }

    #[test]
    fn a_parked_namespace_probes_until_a_probe_succeeds() {
        let mut desk = Desk::plain();
        let now = desk.now();
        desk.dc.foresee(NS, Some(ResultCode::FORBIDDEN), now);
        for n in 0..5 {
            desk.write(digest(n as u16, n));
        }
        assert_eq!(desk.dc.parked(NS).map(|parked| parked.code), Some(ResultCode::FORBIDDEN));
        assert_eq!(desk.dc.dc_stats().gauges.in_queue, 5, "nothing is given up");
        let (out, idle) = desk.wait(999).dispatch_idle(10);
        assert_eq!((out.len(), idle.next_due), (0, Tick(1_000_000)));
        let probe = desk.wait(1).dispatch();
        assert_eq!(probe.len(), 1, "one probe");
        assert!(desk.wait(5000).dispatch().is_empty(), "and one only");
        desk.reply(probe[0].slot, ResultCode::FORBIDDEN);
        assert!(desk.wait(1999).dispatch().is_empty());
        let probe = desk.wait(1).dispatch();
        assert_eq!(desk.settle(probe[0].slot, Outcome::NotFound), Settled::Done);
        let probe = desk.dispatch();
        assert_eq!(probe.len(), 1, "what was gone decided nothing");
        desk.ok(probe[0].slot);
        assert_eq!(desk.dc.parked(NS), None);
        assert_eq!(desk.ship_all().len(), 3);
    }

    #[test]
    fn what_the_destination_says_parks_before_anything_is_tried() {
        let mut desk = Desk::plain();
        let now = desk.now();
        desk.dc.foresee(NS, Some(ResultCode::NAMESPACE), now);
        desk.write(digest(1, 1));
        assert!(desk.dispatch().is_empty());
        assert_eq!(desk.dc.parked(NS).map(|parked| parked.code), Some(ResultCode::NAMESPACE));
        let now = desk.wait(10).now();
        desk.dc.foresee(NS, None, now);
        let probe = desk.dispatch();
        assert_eq!(probe.len(), 1, "tried at once");
        desk.ok(probe[0].slot);
        assert_eq!(desk.dc.parked(NS), None);
    }

    #[test]
    fn one_change_that_fails_keeps_no_namespace_parked_that_the_destination_takes() {
        for outcome in [Outcome::Reply(ResultCode::DEVICE_OVERLOAD), Outcome::Unsent] {
            let mut desk = Desk::plain();
            desk.dc.foresee(NS, Some(ResultCode::FORBIDDEN), desk.now());
            (0..10).for_each(|n| _ = desk.write(digest(n, u32::from(n))));
            let probe = desk.wait(1000).dispatch();
            desk.settle(probe[0].slot, outcome);
            assert!(desk.dispatch().is_empty(), "the destination says that it refuses");
            desk.dc.foresee(NS, None, desk.now());
            let probe = desk.dispatch();
            assert_eq!(probe.len(), 1);
            desk.settle(probe[0].slot, outcome);
            assert_eq!(desk.dc.parked(NS), None);
            assert!(desk.dispatch().len() >= 8, "all but those that were tried");
        }
    }

    #[test]
    fn a_namespace_in_which_nothing_waits_is_parked_no_longer_than_the_destination_refuses() {
        let mut desk = Desk::plain();
        let now = desk.now();
        desk.dc.foresee(NS, Some(ResultCode::NAMESPACE), now);
        desk.dc.foresee(NS, None, now);
        assert_eq!(desk.dc.parked(NS), None, "nothing would ever probe");
    }

    #[test]
    fn a_change_given_up_ships_when_it_is_replayed() {
        let mut desk = Desk::plain();
        desk.wait(10).write(digest(1, 1));
        let out = desk.dispatch();
        let refused = Outcome::Reply(ResultCode::RECORD_TOO_BIG);
        let Settled::Abandoned(letter) = desk.dc.settle(out[0].slot, refused, desk.now()) else {
            panic!("given up");
        };
        assert_eq!(desk.wait(10).lst(1), 10, "its letter is not durable");
        desk.dc.letter_kept(letter.slot);
        assert_eq!(desk.wait(10).lst(1), 30);
        let now = desk.now();
        let taken = desk.dc.resubmit(NS, letter.digest, letter.lut, now);
        assert_eq!(taken, Admission::Queued);
        assert_eq!(desk.wait(10).lst(1), 30, "holds until the replay has settled");
        assert_eq!(desk.ship_all().len(), 1);
        assert_eq!(desk.lst(1), 40);
    }

    #[test]
    fn a_pause_keeps_no_queue_only_positions() {
        let mut desk = Desk::plain();
        for n in 0..10 {
            desk.wait(1).write(digest(1, n));
        }
        let out = desk.dispatch_idle(3).0;
        desk.reply(out[0].slot, ResultCode::TIMEOUT);
        let clock = desk.wait(10).now().wall;
        desk.dc.pause(|_| clock);
        desk.check();
        desk.settle(out[1].slot, Outcome::Unanswered { fenced: true });
        desk.ok(out[2].slot);
        assert_eq!(desk.write(digest(2, 1)), Admission::LeftToRecovery);
        assert_eq!(desk.dc.dc_stats().backlog(), 0);
        assert_eq!((desk.wait(100).lst(1), desk.lst(2)), (1, 20));
        assert!(desk.begin_walk().is_none(), "paused");
        desk.dc.resume(|_| clock);
        let walk = desk.wait(100).begin_walk().expect("lanes to recover");
        assert_eq!(walk.lanes.len(), 4096);
        desk.walk_all(walk.walk);
        assert_eq!(desk.ship_all().len(), 11, "what was acknowledged early ships again");
        assert_eq!(desk.lst(1), desk.ms);
    }

    #[test]
    fn a_throughput_of_zero_is_a_pause() {
        let mut desk = Desk::plain();
        let clock = desk.now().wall;
        desk.dc.set_policy(NS, Policy { records_per_s: 0, ..policy() }, clock);
        assert_eq!(desk.write(digest(1, 1)), Admission::LeftToRecovery);
        desk.dc.set_policy(NS, policy(), clock);
        let walk = desk.wait(100).begin_walk().expect("lanes to recover");
        desk.walk_all(walk.walk);
        assert_eq!(desk.ship_all().len(), 1);
    }

    #[test]
    fn unsent_changes_wait_for_a_node() {
        let mut desk = Desk::plain();
        desk.write(digest(1, 1));
        let out = desk.dispatch();
        desk.settle(out[0].slot, Outcome::Unsent);
        desk.node.room = Room::NoNode;
        assert!(desk.dispatch().is_empty());
        assert_eq!(desk.dc.dc_stats().gauges.in_queue, 1);
    }
}
