//! How a namespace is detached from a DC, and how long it waits when it is attached again.
//!
//! Something that was sent for the namespace before may still arrive. It would undo what the
//! namespace ships when it is back, and the lane that would have repaired that is gone. So a
//! namespace that is back ships nothing until all that was sent is answered, or need not be feared
//! any more. The DC's other namespaces do not wait.

use super::dc::{DcShard, Now};
use super::settle::Outcome;
use super::slots::{NOBODY, Slot, State, flag};
use super::timers::tick_of;
use crate::model::{NamespaceId, Tick};

/// What a namespace left under way when it was detached.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Remains {
    /// Changes that were sent and are not settled.
    sent: u32,
    /// Stragglers may arrive until then.
    feared_until: Tick,
}

/// The remains of all namespaces, by number.
#[derive(Debug, Default)]
pub(super) struct AllRemains(Vec<Remains>);

impl AllRemains {
    fn of(&mut self, namespace: NamespaceId) -> &mut Remains {
        if self.0.len() <= namespace.index() {
            self.0.resize_with(namespace.index() + 1, Remains::default);
        }
        &mut self.0[namespace.index()]
    }

    /// The destination has the fence.
    pub(super) fn fear_nothing(&mut self) {
        self.0.iter_mut().for_each(|remains| remains.feared_until = Tick(0));
    }
}

impl Remains {
    fn fear(&mut self, until: Tick) {
        self.feared_until = self.feared_until.max(until);
    }
}

impl DcShard {
    /// Stops shipping a namespace; what is not settled counts as discarded. Changes still with
    /// service tasks, and dead letters, are to be settled as usual. `is_unsent` tells for which
    /// slots nothing was sent since they were dispatched; for those nothing is sent any more.
    pub fn detach(&mut self, namespace: NamespaceId, now: Now, is_unsent: impl Fn(u32) -> bool) {
        let Some(ns) = self.attached(namespace) else { return };
        let (block, mut counters, gauges) = (ns.block, ns.counters, ns.gauges);
        counters.discarded += gauges.in_queue + gauges.in_progress + gauges.retrying;
        self.retired.add(&counters);
        for lane in self.lanes_of_block(block) {
            self.leave_walk(lane);
            self.lanes.empty(lane);
            self.lanes.close_gap(lane);
            self.sweep.forget(lane);
        }
        self.release_held();
        self.ahead.forget();
        if let Some(ms) = self.forget_hold(block) {
            self.remains.of(namespace).fear(tick_of(ms, now.tick));
        }
        self.discard_slots(namespace, block, now, is_unsent);
        self.acks.forget(self.lanes_of_block(block));
        self.spaces.remove(namespace);
    }

    /// Frees a block's waiting slots, and marks those that somebody else will still settle.
    fn discard_slots(
        &mut self,
        namespace: NamespaceId,
        block: u32,
        now: Now,
        is_unsent: impl Fn(u32) -> bool,
    ) {
        let mut remains = *self.remains.of(namespace);
        let mut waiting = self.take_waiting(block);
        while let Some(slot) = waiting.pop(&self.slots) {
            remains.fear(self.slots.at(slot).feared_until(now.tick));
            self.release(slot);
        }
        for slot in 0..self.slots.high() {
            let place = self.slots.at(slot);
            let (state, lane, flags) = (place.state(), place.lane, place.flags);
            let discarded = flags & flag::DISCARDED != 0;
            if state != State::Free && !discarded && self.block_of(lane) == block {
                debug_assert!(matches!(state, State::Dispatched | State::Dead));
                let is_sent = state == State::Dispatched && !is_unsent(slot);
                if state == State::Dispatched {
                    self.slots.unlist(slot);
                }
                remains.sent += u32::from(is_sent);
                let place = self.slots.at_mut(slot);
                remains.fear(place.feared_until(now.tick));
                place.flags = flag::DISCARDED;
                place.lane = if is_sent { namespace.index() as u32 } else { NOBODY };
            }
        }
        *self.remains.of(namespace) = remains;
    }

    /// Whether a slot's namespace was detached since it was dispatched: it is not to be sent.
    pub fn is_discarded(&self, slot: u32) -> bool {
        self.slots.at(slot).has(flag::DISCARDED)
    }

    #[cold]
    pub(super) fn settle_discarded(&mut self, slot: u32, outcome: Outcome, now: Now) {
        let namespace = self.slots.at(slot).lane;
        self.slots.free_unlisted(slot);
        let Some(remains) = self.remains.0.get_mut(namespace as usize) else { return };
        remains.sent -= 1;
        if outcome == (Outcome::Unanswered { fenced: false }) {
            remains.fear(now.tick.plus_ms(u64::from(self.limits.grace_ms)));
        }
    }

    /// When an attached namespace may ship what was detached before: in the past if nothing is left
    /// of that time, and [`Tick::NEVER`] while something that was sent then is not settled.
    pub fn returns_at(&self, namespace: NamespaceId) -> Tick {
        let remains = self.remains.0.get(namespace.index()).copied();
        let Remains { sent, feared_until } = remains.unwrap_or_default();
        if sent > 0 { Tick::NEVER } else { feared_until }
    }
}

impl Slot {
    /// Until when an unread copy of it on a dead connection is feared; in the past when none is.
    fn feared_until(&self, now: Tick) -> Tick {
        if self.has(flag::OWES_GRACE) { tick_of(self.grace_ms, now) } else { Tick(0) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Desk, NS, digest, policy};
    use super::super::{Admission, Limits, Outcome, Room, Settled, Start};
    use crate::model::{Change, NamespaceId, SrcId, Tick};
    use crate::wire::ResultCode;

    const OTHER: NamespaceId = NamespaceId(1);

    /// With a namespace beside the one that goes.
    fn two() -> Desk {
        let mut desk = Desk::plain();
        desk.attach_beside(OTHER, policy());
        desk
    }

    fn write_other(desk: &mut Desk, n: u32) {
        let change = desk.change(digest(2, n));
        desk.submit(&Change { namespace: OTHER, ..change });
    }

    #[test]
    fn a_detached_namespace_counts_what_it_leaves_and_its_slots_are_still_settled() {
        let mut desk = Desk::new(policy(), Limits { window: 3, ..Limits::default() });
        for n in 0..10 {
            desk.write(digest(n as u16, n));
        }
        let out = desk.dispatch();
        desk.reply(out[0].slot, ResultCode::TIMEOUT);
        let Settled::Abandoned(letter) = desk.reply(out[1].slot, ResultCode::PARAMETER) else {
            panic!("abandoned");
        };
        desk.detach();
        desk.check();
        assert_eq!(desk.dc.dc_stats().counters.discarded, 10);
        desk.attach(policy(), |_| Start::Now);
        assert_eq!(desk.write(digest(2, 100)), Admission::Queued);
        assert!(desk.dispatch().is_empty(), "waits for what is in flight");
        desk.ok(out[2].slot);
        assert_eq!(desk.dispatch().len(), 1, "of which nothing is left");
        desk.dc.letter_kept(letter.slot);
        desk.check();
        desk.sweep();
    }

    #[test]
    fn a_detached_namespace_leaves_nobody_waiting_for_room_that_there_is() {
        let mut desk = two();
        desk.node.room = Room::Full(0);
        write_other(&mut desk, 1);
        let (out, idle) = desk.dispatch_idle(10);
        assert_eq!((out.len(), idle.next_due), (0, Tick::NEVER), "until somebody makes room");
        desk.detach();
        desk.node.room = Room::Yes(0);
        assert_eq!(desk.dispatch().len(), 1);
    }

    #[test]
    fn a_namespace_that_comes_back_waits_for_what_it_left_in_flight() {
        let mut desk = Desk::plain();
        desk.write(digest(1, 1));
        let out = desk.dispatch();
        desk.send(&out[0]);
        desk.detach();
        desk.attach(policy(), |_| Start::Now);
        desk.wait(10).write(digest(1, 1));
        assert!(desk.dispatch().is_empty(), "the older version is still on its way");
        desk.settle(out[0].slot, Outcome::Unanswered { fenced: false });
        assert!(desk.wait(14_999).dispatch().is_empty(), "and may come late");
        assert_eq!(desk.wait(1).ship_all().len(), 1);

        desk.write(digest(2, 2));
        let out = desk.wait(200).dispatch();
        desk.send(&out[0]);
        desk.settle(out[0].slot, Outcome::Unanswered { fenced: false });
        desk.ship_all();
        desk.detach();
        desk.attach(policy(), |_| Start::Now);
        desk.wait(10).write(digest(2, 2));
        assert!(desk.dispatch().is_empty(), "nobody else ships it once more after its grace");
        assert_eq!(desk.wait(15_000).ship_all().len(), 1);
    }

    #[test]
    fn what_was_never_sent_of_a_namespace_that_comes_back_holds_nobody() {
        let mut desk = two();
        desk.write(digest(1, 1));
        let read = desk.dispatch();
        let now = desk.now();
        desk.dc.detach(NS, now, |slot| slot == read[0].slot);
        desk.attach(policy(), |_| Start::Now);
        desk.wait(200).write(digest(1, 1));
        write_other(&mut desk, 1);
        assert_eq!(desk.dispatch().len(), 2, "though the device has not answered");
        assert!(desk.dc.is_discarded(read[0].slot));
        desk.settle(read[0].slot, Outcome::Unsent);
    }

    #[test]
    fn what_a_namespace_left_in_flight_holds_nobody_else() {
        let mut desk = two();
        desk.write(digest(1, 1));
        let out = desk.dispatch();
        desk.send(&out[0]);
        desk.detach();
        desk.attach(policy(), |_| Start::Now);
        desk.write(digest(1, 2));
        write_other(&mut desk, 1);
        let shipped = |desk: &mut Desk| -> Vec<NamespaceId> {
            desk.ship_all().iter().map(|dispatch| dispatch.namespace).collect()
        };
        assert_eq!(shipped(&mut desk), [OTHER]);
        desk.settle(out[0].slot, Outcome::Unanswered { fenced: false });
        write_other(&mut desk, 2);
        assert_eq!(shipped(&mut desk), [OTHER], "nor does its straggler");
        assert!(desk.wait(14_999).begin_walk().is_none());
        assert_eq!(desk.dispatch_idle(10).1.next_due, Tick(15_000_000));
        assert_eq!(shipped(desk.wait(1)), [NS]);
    }

    #[test]
    fn a_straggler_is_feared_from_when_its_connection_died_however_late_its_namespace_returns() {
        let mut desk = Desk::plain();
        desk.write(digest(1, 1));
        let out = desk.dispatch();
        desk.send(&out[0]);
        desk.detach();
        desk.settle(out[0].slot, Outcome::Unanswered { fenced: false });
        desk.wait(5000).attach(policy(), |_| Start::Now);
        desk.write(digest(1, 1));
        assert!(desk.wait(9999).dispatch().is_empty());
        assert_eq!(desk.wait(1).ship_all().len(), 1);
    }

    #[test]
    fn a_hello_ends_the_fear_of_what_a_namespace_left() {
        let mut desk = Desk::plain();
        desk.write(digest(1, 1));
        let out = desk.dispatch();
        desk.send(&out[0]);
        desk.detach();
        desk.attach(policy(), |_| Start::Now);
        desk.wait(200).write(digest(1, 1));
        desk.dc.set_destination(SrcId(2));
        assert!(desk.dispatch().is_empty(), "it is not settled yet");
        desk.settle(out[0].slot, Outcome::Unanswered { fenced: false });
        assert!(desk.dispatch().is_empty());
        desk.dc.set_destination(SrcId(2));
        assert_eq!(desk.dispatch().len(), 1);
    }
}
