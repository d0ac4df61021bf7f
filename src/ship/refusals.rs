//! Whom a refusal concerns: judged by what others got at the same time, never by its code alone.
//!
//! One code may mean two things. The destination will never take this record: it has a time to live
//! where records must not expire, or its set is outside our role. Or the destination takes no
//! record: shipped writes are off, or the namespace is missing. Each of its nodes decides for
//! itself. So:
//!
//! - A refused change is tried again. A node answers in order: if it has taken something after it
//!   refused the change, and refuses it again, the refusal is the record's own, and the change
//!   becomes a dead letter.
//! - As long as the node takes nothing else, nothing is given up. Once it has refused many changes in
//!   a row it is *refusing*: each lane that it refuses goes back to its queue and rests, then tries
//!   one change. Lanes of other nodes go on, and the first change that the node takes wakes all.
//!
//! A namespace is parked as a whole only by what the destination says of itself
//! ([`DcShard::foresee`]).

use super::dc::{DcShard, Now};
use super::settle::{Cause, Settled};
use super::slots::flag;
use super::verdict::Pace;
use crate::model::{NamespaceId, Tick};
use crate::wire::ResultCode;

/// A node that has refused so many changes in a row, each for the first time, is refusing.
const REFUSING: u32 = 64;
/// Refusals of a change before it can be given up.
const REFUSALS_MIN: u8 = 3;
/// With no other change to compare with, a change is given up after so many tries, if the namespace
/// has shipped well shortly before and the node is not refusing. The tries take longer than it
/// takes to learn what the destination says of itself.
const LONELY_TRIES: u8 = 6;
const SHORTLY_MS: u64 = 300_000;
/// How long a lane rests whose node is refusing, at first and at last.
const REST_MS: (u64, u64) = (1000, 16_000);
/// How long a lane that tries one change waits for its answer.
const TRY_MS: u64 = 1000;

/// What one node did with changes of a namespace.
#[derive(Clone, Copy, Debug)]
struct Node {
    /// Changes it took, counted since it first refused one.
    taken: u32,
    /// Changes it refused since it last took one.
    refused: u32,
    code: ResultCode,
    rest_ms: u64,
    rest_grows_at: Tick,
}

/// What the nodes did with changes of a namespace.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// By index; empty until something is refused.
    nodes: Vec<Node>,
    /// When something was last known to have been taken.
    took_at: Option<Tick>,
}

impl Refusals {
    /// Whether anything was ever refused.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Whether a node is refusing, so that each of its lanes tries one change at a time.
    fn is_refusing(&self, node: u16) -> bool {
        self.nodes.get(usize::from(node)).is_some_and(Node::is_refusing)
    }

    /// Some changes were acknowledged lately.
    pub(super) fn note_success(&mut self, now: Tick) {
        self.took_at = Some(now);
    }

    /// Nothing that was seen holds any more: the destination says so, or its map has changed.
    pub(super) fn forget(&mut self) {
        self.nodes.clear();
    }

    fn refuse(&mut self, node: u8, is_first: bool, code: ResultCode, now: Tick) -> &Node {
        let at = usize::from(node);
        let (rest_ms, rest_grows_at) = (REST_MS.0, Tick(0));
        let fresh = Node { taken: 0, refused: 0, code, rest_ms, rest_grows_at };
        if self.nodes.len() <= at {
            self.nodes.resize(at + 1, fresh);
        }
        let node = &mut self.nodes[at];
        node.code = code;
        let was_refusing = node.is_refusing();
        node.refused = node.refused.saturating_add(u32::from(is_first));
        if !was_refusing && node.is_refusing() {
            node.rest_grows_at = now.plus_ms(node.rest_ms);
        }
        if node.is_refusing() && node.rest_grows_at <= now {
            node.rest_ms = (node.rest_ms * 2).min(REST_MS.1);
            node.rest_grows_at = now.plus_ms(node.rest_ms);
        }
        node
    }

    /// A node took a change. True when it was refusing.
    fn take(&mut self, node: u8) -> bool {
        let Some(node) = self.nodes.get_mut(usize::from(node)) else { return false };
        node.taken = node.taken.wrapping_add(1);
        let was_refusing = node.is_refusing();
        (node.refused, node.rest_ms) = (0, REST_MS.0);
        was_refusing
    }
}

impl Node {
    /// Whether it refuses whatever it is sent.
    const fn is_refusing(&self) -> bool {
        self.refused >= REFUSING
    }

    /// Changes whenever the node takes something; tells nodes apart.
    fn token(&self, node: u8) -> u32 {
        u32::from(node) << 24 | self.taken & 0x00FF_FFFF
    }
}

/// Whether a code can be about one record: the others are about all that a node is sent.
const fn can_be_of_a_record(code: ResultCode) -> bool {
    matches!(code, ResultCode::FORBIDDEN | ResultCode::ROLE_VIOLATION)
}

impl DcShard {
    /// The nodes that refuse whatever they are sent of a namespace, each with its last answer.
    pub fn refusing(&self, namespace: NamespaceId) -> impl Iterator<Item = (u16, ResultCode)> + '_ {
        let nodes = self.attached(namespace).map(|ns| ns.refusals.nodes.as_slice());
        let nodes = nodes.unwrap_or_default().iter().enumerate();
        let refusing = nodes.filter(|(_, node)| node.is_refusing());
        refusing.map(|(index, node)| (index as u16, node.code))
    }

    /// Takes a refusal of a dispatched change.
    #[cold]
    pub(super) fn refuse(&mut self, slot: u32, code: ResultCode, now: Now) -> Settled {
        let place = *self.slots.at(slot);
        let is_first = place.strikes.refusals() == 0;
        let ns = self.ns_of(place.lane);
        let shipped_well = ns.refusals.took_at.is_some_and(|at| now.tick < at.plus_ms(SHORTLY_MS));
        let seen = *ns.refusals.refuse(place.node, is_first, code, now.tick);
        ns.counters.retry_dest += 1;
        ns.refused = Some((code, now.tick));
        let is_refusing = seen.is_refusing();
        let token = seen.token(place.node);
        // The grace of a change that owes one lies where the token would.
        let has_token = !is_first && !place.has(flag::OWES_GRACE);
        let others_got_through =
            has_token && place.grace_ms >> 24 == u32::from(place.node) && place.grace_ms != token;
        let slot_now = self.slots.at_mut(slot);
        slot_now.strikes.refused(others_got_through);
        let (refusals, is_own) = (slot_now.strikes.refusals(), slot_now.strikes.is_own());
        if !place.has(flag::OWES_GRACE) {
            slot_now.grace_ms = token;
        }
        if can_be_of_a_record(code) {
            let is_lonely = place.attempts >= LONELY_TRIES && shipped_well && !is_refusing;
            if is_own && refusals >= REFUSALS_MIN || is_lonely {
                return self.abandon(slot, Cause::Refused(code), now);
            }
        }
        if is_refusing && !is_own && !self.is_bound_to_slot(slot) {
            // Spread, so that one lane or another tries all the time.
            let spread_ms = u64::from(place.lane % 64) * seen.rest_ms / 64;
            self.rest_lane(place.lane, seen.rest_ms + spread_ms, now);
            self.requeue(slot);
        } else {
            self.retry(slot, Pace::Slow, now);
        }
        Settled::Done
    }

    /// A node took a change of a namespace in which something was refused before.
    #[cold]
    pub(super) fn note_taken(&mut self, slot: u32) {
        let place = self.slots.at(slot);
        let (lane, node) = (place.lane, place.node);
        if self.ns_of(lane).refusals.take(node) {
            self.wake_resting(self.block_of(lane));
        }
    }

    /// A lane that has rested ships to a node. While that refuses whatever it is sent, this is a try: the
    /// lane rests until it is answered. True if so.
    #[cold]
    pub(super) fn tries_after_rest(&mut self, lane: u32, node: u16, now: Now) -> bool {
        let is_try = self.ns_of(lane).refusals.is_refusing(node);
        if is_try {
            self.rest_lane(lane, TRY_MS, now);
        } else {
            self.lanes[lane].wake();
        }
        is_try
    }

    /// Lets the resting lanes of a namespace go on.
    pub(super) fn wake_resting(&mut self, block: u32) {
        for lane in self.lanes_of_block(block) {
            self.lanes[lane].wake();
        }
        self.laps[block].wake();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashSet, VecDeque};

    use super::super::testing::{Desk, NS, digest, policy};
    use super::super::timers::ms_of;
    use super::super::{Dispatch, Limits, Outcome, Policy, Room, Routes};
    use super::*;
    use crate::limits::LANE_TURN;
    use crate::model::{Change, Digest, Lut, PartitionId};

    /// Ships for so many ms with answers that come a millisecond later. Gives what was taken and
    /// given up.
    fn run(
        desk: &mut Desk,
        ms: u64,
        answer: impl Fn(&Dispatch) -> ResultCode,
    ) -> (usize, Vec<Digest>, usize) {
        let (mut taken, mut letters, mut asked) = (0, Vec::new(), 0);
        let mut wire: VecDeque<(u64, Dispatch)> = VecDeque::new();
        for _ in 0..ms {
            desk.ms += 1;
            let now = desk.now();
            while wire.front().is_some_and(|(ms, _)| *ms < desk.ms) {
                let (_, dispatch) = wire.pop_front().unwrap();
                let code = answer(&dispatch);
                asked += 1;
                taken += usize::from(code == ResultCode::OK);
                match desk.dc.settle(dispatch.slot, Outcome::Reply(code), now) {
                    Settled::Done => {}
                    Settled::Abandoned(letter) => {
                        letters.push(letter.digest);
                        desk.dc.letter_kept(letter.slot);
                    }
                }
            }
            let mut out = Vec::new();
            desk.dc.dispatch(now, &mut desk.node, &mut out, 512);
            for dispatch in out {
                desk.send(&dispatch);
                wire.push_back((desk.ms, dispatch));
            }
        }
        for (_, dispatch) in wire {
            desk.settle(dispatch.slot, Outcome::Unsent);
        }
        (taken, letters, asked)
    }

    /// The lower fifty partitions have a node of their own.
    struct TwoNodes;

    impl Routes for TwoNodes {
        fn room(&mut self, _: NamespaceId, partition: PartitionId) -> Room {
            Room::Yes(u16::from(partition.index() >= 50))
        }

        fn is_full(&self, _: u16) -> bool {
            false
        }

        fn has_node(&self, _: NamespaceId, _: PartitionId) -> bool {
            true
        }
    }

    fn full_of(records: u32, partitions: u32) -> Desk {
        let mut desk = Desk::new(Policy { hot_key_ms: 0, ..policy() }, Limits::default());
        for n in 0..records {
            let change = desk.change(digest((n % partitions) as u16, n));
            desk.dc.submit(&change, "", desk.now());
        }
        desk
    }

    #[test]
    fn records_that_are_refused_while_others_get_through_are_given_up_and_nobody_waits() {
        let mut desk = full_of(100_000, 64);
        let poison: HashSet<Digest> =
            (0..8).map(|n| n * 12_007).map(|n| digest((n % 64) as u16, n)).collect();
        let answer = |dispatch: &Dispatch| {
            if poison.contains(&dispatch.digest) { ResultCode::FORBIDDEN } else { ResultCode::OK }
        };
        let (taken, letters, asked) = run(&mut desk, 5000, answer);
        assert_eq!((taken, letters.len()), (99_992, 8));
        assert!(asked <= 100_000 + 3 * 8, "{asked} sent");
        assert_eq!(desk.dc.dc_stats().backlog(), 0);
    }

    #[test]
    fn a_set_that_a_role_does_not_cover_keeps_no_other_set_waiting() {
        let mut desk = full_of(4000, 1000);
        // The first half of what is queued.
        let answer = |dispatch: &Dispatch| {
            let covered = dispatch.digest.0[12..16].try_into().map(u32::from_le_bytes).unwrap();
            if covered < 2000 { ResultCode::ROLE_VIOLATION } else { ResultCode::OK }
        };
        let (taken, letters, _) = run(&mut desk, 30_000, answer);
        assert_eq!(taken, 2000);
        for n in 0..10 {
            desk.write(digest(5, 10_000 + n));
        }
        let (taken, more, _) = run(&mut desk, 60_000, answer);
        assert_eq!((taken, letters.len() + more.len()), (10, 2000));
    }

    #[test]
    fn what_a_node_refuses_of_all_is_given_up_nowhere_and_tried_ever_less() {
        let mut desk = full_of(4000, 400);
        let refuses = |_: &Dispatch| ResultCode::ROLE_VIOLATION;
        run(&mut desk, 30_000, refuses);
        assert_eq!(desk.dc.refusing(NS).collect::<Vec<_>>(), [(0, ResultCode::ROLE_VIOLATION)]);
        let (taken, letters, asked) = run(&mut desk, 60_000, refuses);
        assert_eq!((taken, letters.len()), (0, 0));
        // Each lane once a rest, and the few that were refused at first.
        assert!(asked < 60 * 70, "{asked} tries in a minute");
        let (taken, letters, asked) = run(&mut desk, 20_000, |_| ResultCode::OK);
        assert_eq!((taken, letters.len(), asked), (4000, 0, 4000));
        assert_eq!(desk.dc.refusing(NS).count(), 0);
    }

    #[test]
    fn a_lane_whose_turn_was_used_up_before_it_rested_tries_one_change_and_passes_its_turn() {
        let mut desk = Desk::new(Policy { hot_key_ms: 0, ..policy() }, Limits::default());
        (0..3 * LANE_TURN).for_each(|n| _ = desk.write(digest(1, n)));
        // Its second turn and what may be read end together.
        let out = desk.dispatch_idle(2 * LANE_TURN).0;
        out.iter().for_each(|dispatch| desk.send(dispatch));
        for dispatch in &out[..REFUSING as usize] {
            desk.reply(dispatch.slot, ResultCode::NAMESPACE);
        }
        assert_eq!((out.len(), desk.dc.refusing(NS).count()), (2 * LANE_TURN as usize, 1));
        // Nobody looks at it while it rests.
        desk.dc.hold(desk.now().tick.plus_ms(5000));
        desk.wait(5000);
        (0..3 * LANE_TURN).for_each(|n| _ = desk.write(digest(2, n)));
        // The last went back to its queue; the others wait by themselves.
        let others = &out[..REFUSING as usize - 1];
        let waited: HashSet<Digest> = others.iter().map(|dispatch| dispatch.digest).collect();
        let out = desk.dispatch();
        let lane_of = |dispatch: &&Dispatch| dispatch.partition.index();
        let tried = out.iter().filter(|dispatch| !waited.contains(&dispatch.digest));
        assert_eq!(tried.filter(|dispatch| lane_of(dispatch) == 1).count(), 1);
        let others = out.iter().filter(|dispatch| lane_of(dispatch) == 2).count();
        assert_eq!(others, 3 * LANE_TURN as usize);
    }

    #[test]
    fn one_refusing_node_of_several_parks_none_of_the_others() {
        let mut desk = Desk::new(Policy { hot_key_ms: 0, ..policy() }, Limits::default());
        let mut late = 0;
        for round in 0..100 {
            for partition in 0..100 {
                let change = desk.change(digest(partition, round));
                desk.dc.submit(&change, "", desk.now());
            }
            let mut out = Vec::new();
            desk.dc.dispatch(desk.now(), &mut TwoNodes, &mut out, 10_000);
            for dispatch in &out {
                desk.send(dispatch);
                let code = if dispatch.node == 0 { ResultCode::NAMESPACE } else { ResultCode::OK };
                let settled = desk.dc.settle(dispatch.slot, Outcome::Reply(code), desk.now());
                assert_eq!(settled, Settled::Done);
            }
            desk.check();
            late += usize::from(out.iter().filter(|dispatch| dispatch.node == 1).count() < 50);
            desk.wait(100);
        }
        assert_eq!((late, desk.dc.dc_stats().counters.success), (0, 100 * 50));
        let refusing: Vec<_> = desk.dc.refusing(NS).collect();
        assert_eq!((desk.dc.parked(NS), refusing), (None, vec![(0, ResultCode::NAMESPACE)]));
    }

    #[test]
    fn a_destination_that_begins_to_refuse_all_gets_no_letters_for_what_was_on_its_way() {
        let mut desk = full_of(3000, 300);
        let (taken, _, _) = run(&mut desk, 3, |_| ResultCode::OK);
        assert!(taken > 500 && taken < 2000, "{taken}");
        let (taken, letters, _) = run(&mut desk, 60_000, |_| ResultCode::FORBIDDEN);
        assert_eq!((taken, letters.len()), (0, 0));
    }

    #[test]
    fn a_single_record_refused_when_nothing_else_ships_is_given_up_in_the_end() {
        let mut desk = full_of(100, 10);
        run(&mut desk, 100, |_| ResultCode::OK);
        let now = desk.now();
        desk.dc.measure(now);
        desk.write(digest(3, 9999));
        let (_, letters, _) = run(&mut desk, 10_000, |_| ResultCode::FORBIDDEN);
        assert_eq!(letters.len(), 0);
        let (_, letters, asked) = run(&mut desk, 30_000, |_| ResultCode::FORBIDDEN);
        assert_eq!(letters, [digest(3, 9999)]);
        assert!(asked < 15, "{asked}");
    }

    #[test]
    fn a_namespace_that_has_all_that_may_wait_leaves_another_its_pace_and_its_letters() {
        let other = NamespaceId(1);
        let policy = Policy { hot_key_ms: 0, ..policy() };
        let limits = Limits { window: 400, waiting: 40, ..Limits::default() };
        let mut desk = Desk::new(policy.clone(), limits);
        // The first is full at the destination: forty changes wait, each of a lane of its own.
        (0..40).for_each(|n| _ = desk.write(digest(n as u16, n)));
        let out = desk.dispatch();
        out.iter().for_each(|dispatch| _ = desk.reply(dispatch.slot, ResultCode::OUT_OF_SPACE));
        assert_eq!(desk.dc.dc_stats().gauges.retrying, 40);
        desk.attach_beside(other, policy);
        // One record of the other is refused, all else of it is taken.
        let poison = digest(50, 1000);
        let change = desk.change(poison);
        desk.submit(&Change { namespace: other, ..change });
        let (mut full_tries, mut tries, mut letters) = (0, 0, 0);
        for n in 0..400 {
            let change = desk.change(digest(51, n));
            desk.submit(&Change { namespace: other, ..change });
            for dispatch in desk.wait(20).dispatch() {
                desk.send(&dispatch);
                let code = match dispatch {
                    Dispatch { namespace: NS, .. } => ResultCode::OUT_OF_SPACE,
                    Dispatch { digest, .. } if digest == poison => ResultCode::FORBIDDEN,
                    _ => ResultCode::OK,
                };
                full_tries += u32::from(code == ResultCode::OUT_OF_SPACE);
                tries += u32::from(code == ResultCode::FORBIDDEN);
                if let Settled::Abandoned(letter) = desk.reply(dispatch.slot, code) {
                    letters += 1;
                    desk.dc.letter_kept(letter.slot);
                }
            }
        }
        assert!(tries < 20, "{tries} tries");
        assert_eq!(letters, 1);
        assert!(full_tries < 40 * 20, "{full_tries} tries");
    }

    /// A desk of which a lane of node 0 has rested, and of which node 1 refuses all it is sent.
    fn rested_beside_a_refusing_node() -> Desk {
        let mut desk = Desk::plain();
        desk.write(digest(0, 1));
        let out = desk.send_to([1, 1], 1000);
        let Settled::Abandoned(letter) = desk.reply(out[0].slot, ResultCode(13)) else {
            panic!("nothing is given up")
        };
        desk.dc.letter_refused(letter.slot, desk.now());
        (0..64).for_each(|n| _ = desk.write(digest(1, 100 + n)));
        for dispatch in desk.send_to([0, 1000], 1000) {
            desk.reply(dispatch.slot, ResultCode::FORBIDDEN);
        }
        assert_eq!(desk.dc.refusing(NS).count(), 1);
        desk
    }

    #[test]
    fn a_lane_of_a_healthy_node_does_not_try_for_another_that_refuses() {
        let mut desk = rested_beside_a_refusing_node();
        (0..500).for_each(|n| _ = desk.write(digest(0, 1000 + n)));
        let mut shipped = 0;
        for _ in 0..10_000 {
            for dispatch in desk.wait(1).send_to([1000, 1000], 1000) {
                let is_healthy = dispatch.node == 0;
                shipped += usize::from(is_healthy);
                let code = if is_healthy { ResultCode::OK } else { ResultCode::FORBIDDEN };
                desk.reply(dispatch.slot, code);
            }
        }
        assert_eq!(shipped, 501);
    }

    #[test]
    fn a_try_that_meets_a_full_node_is_not_spent() {
        let mut desk = rested_beside_a_refusing_node();
        desk.write(digest(3, 1));
        let of_lane = |out: Vec<Dispatch>| -> Vec<Dispatch> {
            out.into_iter().filter(|dispatch| dispatch.partition.index() == 3).collect()
        };
        let out = of_lane(desk.send_to([0, 1000], 1000));
        desk.reply(out[0].slot, ResultCode::FORBIDDEN);
        while desk.dc.lanes[3].rests_until_ms(ms_of(desk.now().tick)).is_some() {
            desk.wait(1);
        }
        assert!(desk.send_to([0, 0], 1000).is_empty(), "its node is full when it wakes");
        assert_eq!(of_lane(desk.wait(1).send_to([0, 1000], 1000)).len(), 1);
        desk.write(digest(3, 2));
        assert_eq!(of_lane(desk.wait(1).send_to([0, 1000], 1000)), [], "that is tried alone");
    }

    #[test]
    fn a_rest_is_over_however_long_nothing_is_to_ship_after_it() {
        let mut desk = Desk::plain();
        desk.write(digest(0, 1));
        let out = desk.send_to([1, 1], 1000);
        desk.reply(out[0].slot, ResultCode(13));
        desk.dc.letter_refused(out[0].slot, desk.now());
        // Its lane is left to recovery, and has nothing to ship.
        desk.dc.missed(NS, PartitionId::new(0), Lut::ZERO, Lut::ZERO);
        let day_ms = 24 * 3600 * 1000;
        for days in [25, 24, 50, 300] {
            desk.wait(days * day_ms);
            let now_ms = ms_of(desk.now().tick);
            assert_eq!(desk.dc.lanes[0].rests_until_ms(now_ms), None, "after {days} days more");
        }
    }
}
