//! What may ship now: the namespaces of a DC in turn, each by its own order.

use super::dc::{DcShard, Now};
use super::mutation::{Mutation, planted};
use super::namespaces::Attached;
use super::rounds::{Lap, Stop};
use super::stats::LimitedBy;
use super::timers::{List, ms_of};
use crate::model::{Digest, Lut, NamespaceId, PartitionId, Tick};

/// Where a change may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// To this destination node.
    Yes(u16),
    /// This node has as much in flight as it may.
    Full(u16),
    /// No node is known for the partition.
    NoNode,
}

/// The way to the destination's nodes.
pub trait Routes {
    /// Asked right before a change of the partition is dispatched. [`Room::Yes`] takes one place in
    /// that node's window, which whoever settles the change gives back.
    fn room(&mut self, namespace: NamespaceId, partition: PartitionId) -> Room;

    /// Whether a node that answered [`Room::Full`] has as much in flight as it may. False if it is
    /// not known or not connected any more.
    fn is_full(&self, node: u16) -> bool;

    /// Whether a node is known for the partition.
    fn has_node(&self, namespace: NamespaceId, partition: PartitionId) -> bool;

    /// Whether changes of the namespace are taken at all now. Those of one whose device answers
    /// slowly, or not, are not: they would only wait, and take what others need.
    fn takes(&self, _namespace: NamespaceId) -> bool {
        true
    }
}

/// A change to be read, encoded and sent. Each is settled exactly once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dispatch {
    /// Names it in [`DcShard::sent`] and [`DcShard::settle`].
    pub slot: u32,
    /// Index of the node to send it to, as [`Routes`] numbers them.
    pub node: u16,
    /// A deletion is to be sent as a plain one.
    pub plain_delete: bool,
    /// Namespace at the source.
    pub namespace: NamespaceId,
    /// Partition of the record, which decides the lane.
    pub partition: PartitionId,
    /// Digest of the record to read.
    pub digest: Digest,
    /// The change; the record itself may be newer.
    pub lut: Lut,
}

/// Why a dispatch ended, and when the next one makes sense if nothing else happens before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idle {
    /// The next moment something waits for.
    pub next_due: Tick,
    /// What kept it from shipping more.
    pub limited_by: LimitedBy,
}

/// Bytes a namespace may ship before the next namespace of its DC has its turn, by what a change of it
/// takes on average.
const TURN_BYTES: u64 = 1 << 20;
/// Bytes of all that is picked at once, by the same averages: what is picked has its place before
/// whatever comes later.
const PICKED_BYTES: u64 = 2 << 20;

/// How namespaces take turns.
#[derive(Debug, Default)]
pub(super) struct Cycle {
    /// The block whose turn it is, and what is left of it.
    turn: u32,
    left: u32,
    /// In the last dispatch a namespace went first for which nodes had been full.
    has_favoured: bool,
}

impl DcShard {
    /// Picks what may ship now, at most `budget` changes, and appends it to `out`.
    ///
    /// Namespaces take turns; [`rounds`](super::rounds) tells in which order the changes of one go.
    pub fn dispatch(
        &mut self,
        now: Now,
        routes: &mut impl Routes,
        out: &mut Vec<Dispatch>,
        budget: u32,
    ) -> Idle {
        for (_, ns) in self.spaces.iter_mut() {
            ns.limited_by = LimitedBy::Nothing;
            ns.throttle.refill(now.tick);
        }
        if now.tick < self.held_until() {
            self.limited_by = LimitedBy::Destination;
            return Idle { next_due: self.held_until(), limited_by: self.limited_by };
        }
        let mut due = List::EMPTY;
        self.wheel.advance(ms_of(now.tick), &mut self.slots, &mut due);
        while let Some(slot) = due.pop(&self.slots) {
            self.make_ready(slot);
        }
        if self.held.release(now.tick, |node| routes.is_full(node)) {
            self.laps.wake_all();
        }
        let mut lap =
            Lap { now, routes, out, budget, next_due: Tick::NEVER, limited_by: LimitedBy::Nothing };
        self.ship_in_turns(&mut lap);
        self.limit_the_rest(lap.budget);
        let waiting = !self.lanes.queued().is_empty() || !self.walks.queued().is_empty();
        if waiting && !self.held.lanes().is_empty() {
            lap.stopped(LimitedBy::Destination, self.held.stranded_until());
        }
        self.limited_by = lap.limited_by;
        // Who used the budget up may have left something, whatever stopped others before.
        let is_over = lap.budget == 0;
        let later = lap.next_due.min(self.wheel.next_due());
        Idle { next_due: if is_over { now.tick } else { later }, limited_by: lap.limited_by }
    }

    /// Lets namespaces ship in turns until none of them can.
    fn ship_in_turns<R: Routes>(&mut self, lap: &mut Lap<'_, R>) {
        let blocks = self.spaces.blocks();
        let (mut fruitless, mut bytes_left) = (0, PICKED_BYTES);
        let mut favoured = self.favoured();
        while fruitless < blocks {
            if self.cycle.left == 0 && fruitless == 0 && planted(Mutation::NamespaceKeepsTurn) {
                self.cycle.left = self.limits.namespace_turn;
            }
            if self.cycle.left == 0 {
                self.cycle.turn = (self.cycle.turn + 1) % blocks;
                self.cycle.left = self.limits.namespace_turn;
            }
            // A turn that is given beside the others' takes nothing of theirs.
            let is_extra = favoured.is_some();
            let block = favoured.take().unwrap_or(self.cycle.turn);
            let left = if is_extra { self.limits.namespace_turn } else { self.cycle.left };
            let change_bytes = self.attached_in(block).map_or(1, Attached::change_bytes);
            let most = (TURN_BYTES / change_bytes).clamp(1, left.into()) as u32;
            let had = lap.budget;
            let stop = self.ship_turn(block, most.min(had), lap);
            let shipped = had - lap.budget;
            bytes_left = bytes_left.saturating_sub(u64::from(shipped) * change_bytes);
            if bytes_left == 0 {
                lap.budget = 0;
            }
            let is_over = stop == Stop::Halt || lap.budget == 0;
            if !is_extra {
                fruitless = if shipped > 0 { 0 } else { fruitless + 1 };
                self.cycle.left = if is_over { most - shipped } else { 0 };
            }
            if is_over {
                self.can_go_on(lap);
                return;
            }
        }
    }

    /// The block that goes first, out of turn, because a node that was full has room again. Turns
    /// alone would not do: if two nodes had room alternately, one namespace could get all the
    /// places of the first node, and another namespace all those of the second. No two dispatches in
    /// a row begin so, since the window is everybody's, nor two releases of a node, since others
    /// may have room in a rhythm of their own.
    fn favoured(&mut self) -> Option<u32> {
        let blocks = self.spaces.blocks();
        if blocks == 1 {
            return None;
        }
        let (spaces, live, walked) = (&self.spaces, self.lanes.queued(), self.walks.queued());
        let first = self.held.take_first(blocks, !self.cycle.has_favoured, |block, lanes| {
            let own = spaces.lanes_of(block);
            live.meets(lanes, own.clone()) || walked.meets(lanes, own)
        });
        self.cycle.has_favoured = first.is_some();
        first
    }

    /// Lets a namespace ship up to `most` changes, if its destination and the host take any of it.
    fn ship_turn<R: Routes>(&mut self, block: u32, most: u32, lap: &mut Lap<'_, R>) -> Stop {
        let Some(namespace) = self.spaces.in_block(block) else { return Stop::Dry };
        let (by, until) = if lap.now.tick < self.returns_at(namespace) {
            (LimitedBy::Destination, self.returns_at(namespace))
        } else if !lap.routes.takes(namespace) {
            (LimitedBy::Reads, Tick::NEVER)
        } else {
            return self.ship_namespace(block, most, lap);
        };
        self.limit(block, by);
        lap.stopped(by, until);
        Stop::Dry
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Desk, NS, digest, policy};
    use super::super::{Admission, Limits, Outcome, Policy};
    use super::*;
    use crate::model::Change;
    use crate::wire::ResultCode;

    #[test]
    fn lanes_take_turns_of_fifty() {
        let mut desk = Desk::plain();
        for n in 0..120 {
            for partition in [3, 1000, 4095] {
                desk.write(digest(partition, n));
            }
        }
        let mut turns: Vec<(u16, usize)> = Vec::new();
        // In odd portions, so that turns are interrupted.
        loop {
            let (out, _) = desk.dispatch_idle(37);
            if out.is_empty() {
                break;
            }
            for dispatch in out {
                let partition = dispatch.partition.index() as u16;
                match turns.last_mut() {
                    Some((last, count)) if *last == partition => *count += 1,
                    _ => turns.push((partition, 1)),
                }
            }
        }
        let lap = [3, 1000, 4095];
        let expected: Vec<(u16, usize)> =
            [50, 50, 20].into_iter().flat_map(|count| lap.map(|p| (p, count))).collect();
        assert_eq!(turns, expected);
    }

    /// What each of four lanes of each namespace ships of what is queued, in rounds in which one node
    /// of `N` has room for `room` more, and `budget` may go at once.
    fn shipped_by_nodes_in_turn<const N: usize>(
        namespaces: u8,
        partitions: [u16; 4],
        [room, budget]: [u32; 2],
        rounds: usize,
    ) -> Vec<[usize; 4]> {
        let mut desk = Desk::plain();
        (1..namespaces).for_each(|id| desk.attach_beside(NamespaceId(id), policy()));
        let mut shipped = vec![[0; 4]; usize::from(namespaces)];
        for n in 0..640 {
            for id in 0..namespaces {
                let of = digest(partitions[n % 4], n as u32 + 640 * u32::from(id));
                let change = Change { namespace: NamespaceId(id), ..desk.change(of) };
                desk.dc.submit(&change, "", desk.now());
            }
        }
        for round in 0..rounds {
            let mut places = [0; N];
            places[round % N] = room;
            for dispatch in desk.send_to(places, budget) {
                let is_it = |of: &u16| usize::from(*of) == dispatch.partition.index();
                let lane = partitions.iter().position(is_it).expect("one of the four");
                shipped[dispatch.namespace.index()][lane] += 1;
                desk.ok(dispatch.slot);
            }
        }
        shipped
    }

    /// Of two nodes, to which the first and the last of the lanes go, and those between.
    fn shipped_by_two_nodes(namespaces: u8, most: [u32; 2], rounds: usize) -> Vec<[usize; 4]> {
        shipped_by_nodes_in_turn::<2>(namespaces, [0, 1, 3, 4], most, rounds)
    }

    #[test]
    fn lanes_whose_nodes_have_room_in_turns_all_ship() {
        assert_eq!(shipped_by_two_nodes(1, [1, 1000], 80), [[20, 20, 20, 20]]);
        assert_eq!(shipped_by_two_nodes(1, [7, 1000], 80), [[140, 140, 140, 140]]);
        // Whose turn a full node cuts short has had it.
        assert_eq!(shipped_by_two_nodes(1, [75, 1000], 4), [[100, 100, 50, 50]]);
    }

    #[test]
    fn a_turn_is_not_begun_again_in_its_lap() {
        // The budget ends before the node is found full.
        assert_eq!(shipped_by_two_nodes(1, [1, 1], 80), [[20, 20, 20, 20]]);
    }

    #[test]
    fn namespaces_whose_nodes_have_room_in_turns_all_ship() {
        assert_eq!(shipped_by_two_nodes(2, [1, 1000], 160), [[20; 4]; 2]);
        let shipped = shipped_by_two_nodes(3, [7, 1000], 240);
        assert!(shipped.iter().flatten().all(|count| count.abs_diff(140) <= 7), "{shipped:?}");
    }

    #[test]
    fn no_rhythm_of_nodes_keeps_a_namespace_from_one() {
        let shipped = shipped_by_nodes_in_turn::<4>(2, [0, 1, 2, 3], [1, 1000], 400);
        let least = shipped.iter().flatten().min();
        assert!(least >= Some(&25), "a quarter of each node: {shipped:?}");
    }

    #[test]
    fn retries_go_first() {
        let mut desk = Desk::plain();
        desk.write(digest(7, 1));
        let first = desk.dispatch();
        desk.reply(first[0].slot, ResultCode::KEY_BUSY);
        desk.write(digest(1, 1));
        desk.write(digest(9, 1));
        let order: Vec<usize> =
            desk.wait(50).dispatch().iter().map(|d| d.partition.index()).collect();
        assert_eq!(order, [7, 9, 1], "then lanes from where the last lap ended");
    }

    #[test]
    fn a_delay_lets_entries_grow_old() {
        let mut desk = Desk::new(Policy { delay_ms: 50, ..policy() }, Limits::default());
        desk.write(digest(1, 1));
        desk.wait(20).write(digest(2, 1));
        let (out, idle) = desk.dispatch_idle(10);
        assert_eq!((out.len(), idle.next_due), (0, Tick(50_000)));
        assert_eq!(idle.limited_by, LimitedBy::Throttle);
        desk.write(digest(1, 2));
        assert_eq!(desk.wait(29).dispatch().len(), 0);
        assert_eq!(desk.wait(1).dispatch().len(), 1);
        assert_eq!(desk.wait(20).dispatch().len(), 2);
    }

    #[test]
    fn a_delay_counts_from_when_a_change_was_made() {
        let mut desk = Desk::new(Policy { delay_ms: 50, ..policy() }, Limits::default());
        let change = desk.change(digest(1, 1));
        assert_eq!(desk.wait(30).dispatch_idle(10).1.next_due, Tick::NEVER);
        assert_eq!(desk.submit(&change), Admission::Queued);
        assert_eq!(desk.dispatch_idle(10).1.next_due, Tick(50_000));
        assert_eq!(desk.wait(20).dispatch().len(), 1);
    }

    #[test]
    fn a_delay_holds_for_what_a_walk_finds() {
        let mut desk = Desk::new(Policy { delay_ms: 50, ..policy() }, Limits::default());
        let lut = desk.now().wall;
        desk.write(digest(1, 1));
        desk.dc.missed(NS, PartitionId::new(1), lut, lut);
        let walk = desk.begin_walk().expect("a lane to recover");
        desk.walk_all(walk.walk);
        let (out, idle) = desk.dispatch_idle(10);
        assert_eq!((out.len(), idle.next_due), (0, Tick(50_000)));
        assert_eq!(desk.wait(49).dispatch().len(), 0);
        assert_eq!(desk.wait(1).dispatch().len(), 1);
    }

    #[test]
    fn who_used_the_budget_up_comes_back_at_once_whatever_stopped_others() {
        let mut desk =
            Desk::new(Policy { delay_ms: 50, hot_key_ms: 0, ..policy() }, Limits::default());
        for partition in [2, 3] {
            desk.write(digest(partition, 1));
        }
        assert_eq!(desk.wait(50).dispatch().len(), 2);
        // The first joins the change in flight, which uses up budget too.
        for n in 1..=3 {
            desk.write(digest(2, n));
        }
        desk.wait(40).write(digest(4, 1));
        desk.wait(10);
        let (out, idle) = desk.dispatch_idle(2);
        assert_eq!((out.len(), idle.limited_by), (1, LimitedBy::Throttle));
        assert!(idle.next_due <= desk.now().tick, "{idle:?}");
    }

    #[test]
    fn what_waits_in_slots_goes_though_none_is_left_for_what_recovery_is_owed() {
        let limits = Limits { window: 2, waiting: 2, ..Limits::default() };
        let mut desk = Desk::new(policy(), limits);
        (0..64).for_each(|n| _ = desk.write(digest(1, n)));
        desk.dc.rewind(NS, Lut::ZERO);
        let walk = desk.wait(10).begin_walk().expect("lanes to recover");
        desk.walk_all(walk.walk);
        // Every change that ships adds to what recovery is owed, one from a slot as well.
        (0..64).for_each(|n| _ = desk.write(digest(2, n)));
        for dispatch in desk.dispatch() {
            desk.send(&dispatch);
            desk.reply(dispatch.slot, ResultCode::KEY_BUSY);
        }
        for _ in 0..16 {
            let out = desk.dispatch();
            assert_eq!(out.len(), 2);
            for dispatch in out {
                desk.settle(dispatch.slot, Outcome::Unanswered { fenced: false });
            }
        }
    }

    /// Namespaces take turns, and who is passed over for want of a slot may come before who frees one.
    #[test]
    fn a_slot_that_a_grace_frees_serves_whichever_namespace_waits_for_one() {
        let other = NamespaceId(1);
        for (feared, waits) in [(NS, other), (other, NS)] {
            let limits = Limits { window: 1, waiting: 1, grace_ms: 1000, ..Limits::default() };
            let mut desk = Desk::new(policy(), limits);
            desk.attach_beside(other, policy());
            let write = |desk: &mut Desk, namespace| {
                let change = desk.change(digest(1, 1));
                desk.submit(&Change { namespace, ..change })
            };
            write(&mut desk, feared);
            let out = desk.dispatch();
            desk.send(&out[0]);
            desk.settle(out[0].slot, Outcome::Unanswered { fenced: false });
            assert_eq!(desk.ship_all().len(), 1, "its grace takes one of two slots");
            desk.wait(995);
            write(&mut desk, feared);
            for outcome in
                [Outcome::Unanswered { fenced: false }, Outcome::Reply(ResultCode::KEY_BUSY)]
            {
                let out = desk.dispatch();
                desk.send(&out[0]);
                desk.settle(out[0].slot, outcome);
            }
            write(&mut desk, waits);
            assert!(desk.dispatch().is_empty(), "and the newer version the other");
            let out = desk.wait(5).dispatch();
            assert_eq!(out.iter().map(|d| d.namespace).collect::<Vec<_>>(), [waits]);
        }
    }

    #[test]
    fn what_stops_a_namespace_is_told_of_it_and_of_no_other() {
        let other = NamespaceId(1);
        let desk = |records_per_s, window| {
            let throttled = Policy { records_per_s, ..policy() };
            let mut desk = Desk::new(throttled, Limits { window, ..Limits::default() });
            desk.attach_beside(other, policy());
            for (namespace, count) in [(NS, 500), (other, 5)] {
                for n in 0..count {
                    let change = desk.change(digest(n as u16, n));
                    desk.submit(&Change { namespace, ..change });
                }
            }
            desk
        };
        let limits = |desk: &Desk| [NS, other].map(|id| desk.dc.namespace_limited_by(id));
        let mut throttled = desk(10, 1000);
        assert!(!throttled.dispatch().is_empty());
        assert_eq!(limits(&throttled), [LimitedBy::Throttle, LimitedBy::Nothing]);
        throttled.node.room = Room::Full(0);
        let change = throttled.change(digest(77, 1));
        throttled.submit(&Change { namespace: other, ..change });
        for _ in 0..2 {
            assert!(throttled.dispatch().is_empty());
            assert_eq!(limits(&throttled), [LimitedBy::Throttle, LimitedBy::Destination]);
        }
        let mut full = desk(100_000, 100);
        assert_eq!(full.dispatch().len(), 100);
        assert_eq!(limits(&full), [LimitedBy::Window; 2]);
        let mut at_its_budget = desk(100_000, 1000);
        assert_eq!(at_its_budget.dispatch_idle(100).0.len(), 100);
        assert_eq!(limits(&at_its_budget), [LimitedBy::Reads; 2]);
        at_its_budget.dc.hold(at_its_budget.now().tick.plus_ms(1000));
        assert!(at_its_budget.dispatch().is_empty());
        assert_eq!(limits(&at_its_budget), [LimitedBy::Nothing; 2], "the hold stops all");
    }

    #[test]
    fn a_clock_set_back_does_not_hold_entries() {
        let mut desk = Desk::new(Policy { delay_ms: 50, ..policy() }, Limits::default());
        desk.wait(60_000).write(digest(1, 1));
        let mut out = Vec::new();
        let now = Now { wall: Lut::from_ms(1_000_000), ..desk.now() };
        desk.dc.dispatch(now, &mut desk.node, &mut out, 10);
        assert_eq!(out.len(), 1);
    }

    #[test]
    fn the_throttle_holds_over_time() {
        let mut desk = Desk::new(Policy { records_per_s: 1000, ..policy() }, Limits::default());
        for n in 0..2000 {
            desk.write(digest((n % 64) as u16, n));
        }
        let mut shipped = 0;
        for _ in 0..100 {
            let (out, idle) = desk.dispatch_idle(10_000);
            shipped += out.len();
            assert_eq!(idle.limited_by, LimitedBy::Throttle);
            assert!(idle.next_due > desk.now().tick);
            desk.wait(10);
        }
        // A second's worth and what the bucket held.
        assert_eq!(shipped, 1000 + 100 - 10);
    }

    #[test]
    fn the_window_bounds_what_is_dispatched() {
        let mut desk = Desk::new(policy(), Limits { window: 10, ..Limits::default() });
        for n in 0..30 {
            desk.write(digest(n as u16, n));
        }
        let (out, idle) = desk.dispatch_idle(1000);
        assert_eq!((out.len(), idle.limited_by), (10, LimitedBy::Window));
        desk.ok(out[3].slot);
        desk.ok(out[7].slot);
        assert_eq!(desk.dispatch().len(), 2);
    }

    #[test]
    fn a_lane_without_a_node_waits_and_is_counted_once_a_round() {
        let mut desk = Desk::plain();
        desk.write(digest(1, 1));
        desk.write(digest(1, 2));
        desk.node.room = Room::NoNode;
        for _ in 0..50 {
            let (out, idle) = desk.dispatch_idle(10);
            assert_eq!((out.len(), idle.limited_by), (0, LimitedBy::Destination));
            assert!(idle.next_due <= Tick(100_000));
        }
        assert_eq!(desk.dc.dc_stats().counters.retry_no_node, 1);
        desk.node.room = Room::Yes(1);
        assert_eq!(desk.dispatch().len(), 0);
        desk.dc.map_changed();
        assert_eq!(desk.dispatch().len(), 2);
    }

    #[test]
    fn a_full_node_is_tried_again_when_something_settles() {
        let mut desk = Desk::plain();
        desk.write(digest(1, 1));
        let out = desk.dispatch();
        desk.write(digest(2, 1));
        desk.node.room = Room::Full(0);
        assert_eq!(desk.dispatch().len(), 0);
        desk.node.room = Room::Yes(0);
        desk.ok(out[0].slot);
        assert_eq!(desk.dispatch().len(), 1);
    }

    #[test]
    fn lanes_of_a_full_node_cost_nothing_until_it_has_room() {
        let mut desk = Desk::plain();
        desk.node.room = Room::Full(3);
        for partition in 0..4 {
            assert_eq!(desk.write(digest(partition, 1)), Admission::Queued);
            assert_eq!(desk.write(digest(partition, 2)), Admission::Behind);
        }
        let (out, idle) = desk.dispatch_idle(10);
        assert_eq!((out.len(), idle.next_due), (0, Tick::NEVER));
        assert_eq!(idle.limited_by, LimitedBy::Destination);
        assert_eq!(desk.write(digest(9, 1)), Admission::Queued, "not known to go there too");
        assert_eq!(desk.dispatch().len(), 0);
        desk.node.asked = 0;
        assert_eq!(desk.dispatch().len(), 0);
        assert_eq!(desk.node.asked, 0);
        desk.node.room = Room::Yes(3);
        assert_eq!(desk.dispatch().len(), 9, "without anything having been settled");
        desk.node.room = Room::Full(3);
        desk.write(digest(0, 3));
        desk.dispatch();
        assert_eq!(desk.write(digest(2, 3)), Admission::Behind, "held with the other");
        desk.dc.map_changed();
        desk.node.room = Room::Yes(4);
        assert_eq!(desk.dispatch().len(), 2);
    }

    #[test]
    fn a_lane_with_ten_errors_ships_only_retries() {
        let mut desk = Desk::plain();
        for n in 0..12 {
            desk.write(digest(1, n));
        }
        let out = desk.dispatch();
        for dispatch in &out[..10] {
            desk.reply(dispatch.slot, ResultCode::DEVICE_OVERLOAD);
        }
        desk.write(digest(1, 100));
        desk.write(digest(2, 100));
        let other: Vec<usize> = desk.dispatch().iter().map(|d| d.partition.index()).collect();
        assert_eq!(other, [2]);
        assert_eq!(desk.wait(20).ship_all().len(), 11);
    }

    #[test]
    fn recovery_gets_a_quarter_while_live_changes_wait_and_all_of_it_otherwise() {
        let mut desk = Desk::new(policy(), Limits { window: 400, ..Limits::default() });
        for n in 0..500 {
            desk.write(digest(n as u16 % 8, n));
        }
        desk.dc.rewind(NS, Lut::ZERO);
        desk.wait(10);
        let walk = desk.begin_walk().expect("lanes to recover");
        desk.walk_all(walk.walk);
        for n in 0..500 {
            desk.write(digest(100 + n as u16 % 8, n));
        }
        let of_walk = |out: &[Dispatch]| out.iter().filter(|d| d.partition.index() < 8).count();
        let out = desk.dispatch_idle(200).0;
        assert!((45..=55).contains(&of_walk(&out)), "{}", of_walk(&out));
        let mut all = out.len();
        for dispatch in out {
            desk.settle(dispatch.slot, Outcome::NotFound);
        }
        let out = desk.ship_all();
        all += out.len();
        assert_eq!(all, 1000);
    }
}
