//! Nobody starves: namespaces of a DC, and the kinds of changes of a namespace, get their share
//! whatever keeps the others.

use std::collections::{BTreeMap, VecDeque};

use super::testing::{Desk, NS, OneNode, START_MS, digest, policy, walked};
use super::{
    DcShard, Dispatch, Idle, Limits, Now, Outcome, Policy, Room, Routes, Sent, Start, WalkDemand,
};
use crate::model::{
    Change, ChangeKind, Digest, Lut, NamespaceId, PartitionId, SetId, SrcId, Tick, Version,
};
use crate::wire::ResultCode;

const A: NamespaceId = NamespaceId(0);
const B: NamespaceId = NamespaceId(1);

fn at(ms: u64) -> Now {
    Now { tick: Tick(ms * 1000), wall: Lut::from_ms(START_MS + ms) }
}

fn version(ms: u64) -> Version {
    Version::first_of(Lut::from_ms(START_MS + ms))
}

fn change(namespace: NamespaceId, digest: Digest, ms: u64) -> Change {
    Change {
        namespace,
        digest,
        version: version(ms),
        previous_lut: None,
        set: SetId::NONE,
        kind: ChangeKind::Write,
        shipped: false,
        src_id: SrcId::NONE,
    }
}

/// Two namespaces of one DC.
fn two(limits: Limits, start: Start) -> (DcShard, OneNode) {
    let mut dc = DcShard::new(limits, 0, 1);
    for namespace in [A, B] {
        dc.attach(namespace, policy(), at(0).wall, at(0), |_| start);
    }
    (dc, OneNode { room: Room::Yes(0), asked: 0 })
}

fn go(dc: &mut DcShard, node: &mut impl Routes, ms: u64, budget: u32) -> (Vec<Dispatch>, Idle) {
    let mut out = Vec::new();
    let idle = dc.dispatch(at(ms), node, &mut out, budget);
    dc.audit();
    (out, idle)
}

/// Answers as a destination that lacks namespace A. Gives how many of B there were.
fn answer_all_but_a(dc: &mut DcShard, out: Vec<Dispatch>, ms: u64) -> usize {
    let is_b = |dispatch: &&Dispatch| dispatch.namespace == B;
    let of_b = out.iter().filter(is_b).count();
    for Dispatch { slot, namespace, .. } in out {
        dc.sent(slot, version(0), Sent::Write, 1);
        let code = if namespace == A { ResultCode::NAMESPACE } else { ResultCode::OK };
        dc.settle(slot, Outcome::Reply(code), at(ms));
    }
    of_b
}

#[test]
fn a_parked_namespace_leaves_its_neighbour_room_for_finds_and_a_turn() {
    let limits = Limits { walked_bytes: 404 * 64, ..Limits::default() };
    let (mut dc, mut node) = two(limits, Start::From(Lut::ZERO));
    let walk = dc.begin_walk(at(10), &node, |_| at(5).wall).expect("A walks");
    assert_eq!(walk.namespace, A);
    let found: Vec<_> = (0..512).map(|n| walked(digest(n as u16 % 32, n), version(0))).collect();
    dc.walked(walk.walk, &found, |_| "");
    dc.walk_done(walk.walk);
    dc.foresee(A, Some(ResultCode::NAMESPACE), at(11));
    let walk = dc.begin_walk(at(12), &node, |_| at(5).wall).expect("B walks at once");
    assert_eq!(walk.namespace, B);
    for ms in (60..20_000).step_by(20) {
        let (out, _) = go(&mut dc, &mut node, ms, 512);
        answer_all_but_a(&mut dc, out, ms);
        assert_eq!(dc.walk_demand(walk.walk), WalkDemand::Step);
    }
}

#[test]
fn walks_of_a_parked_namespace_take_nothing_from_the_bound_of_its_neighbour() {
    let limits = Limits { recoveries_interleaved: 3, ..Limits::default() };
    let (mut dc, node) = two(limits, Start::From(Lut::ZERO));
    let first = dc.begin_walk(at(10), &node, |_| at(5).wall).expect("A walks");
    dc.walked(first.walk, &[walked(digest(1, 1), version(0))], |_| "");
    dc.foresee(A, Some(ResultCode::NAMESPACE), at(11));
    let next = dc.begin_walk(at(12), &node, |_| at(5).wall).expect("B walks beside it");
    assert_eq!((first.namespace, next.namespace), (A, B));
    assert_eq!((first.lanes.len(), next.lanes.len()), (3, 3));
    for ms in (20..20_000).step_by(20) {
        assert!(dc.begin_walk(at(ms), &node, |_| at(5).wall).is_none(), "each has its bound");
    }
}

#[test]
fn finds_on_the_device_do_not_wait_for_those_of_a_parked_namespace() {
    let (mut dc, mut node) = two(Limits::default(), Start::From(Lut::ZERO));
    for (namespace, lanes) in [(A, 100), (B, 400)] {
        let walk = dc.begin_walk(at(5010), &node, |_| at(5000).wall).expect("both walk");
        assert_eq!(walk.namespace, namespace);
        let find = |n| walked(digest(n as u16 % lanes, n), version(u64::from(n)));
        dc.walked(walk.walk, &(0..4000).map(find).collect::<Vec<_>>(), |_| "");
        dc.walk_done(walk.walk);
    }
    dc.foresee(A, Some(ResultCode::NAMESPACE), at(5051));
    dc.note_in_memory(|_| Lut::MAX);
    let mut shipped = 0;
    for ms in 5060..5200 {
        let (out, _) = go(&mut dc, &mut node, ms, 512);
        shipped += answer_all_but_a(&mut dc, out, ms);
    }
    assert_eq!(shipped, 4000);
}

#[test]
fn namespaces_share_a_window_however_many_lanes_they_have() {
    let limits = Limits { window: 64, ..Limits::default() };
    let (mut dc, mut node) = two(limits, Start::Now);
    for n in 0..20_000 {
        dc.submit(&change(A, digest(n as u16 % 1000, n), 1), "", at(1));
    }
    for n in 0..4000 {
        dc.submit(&change(B, digest(7, n), 1), "", at(1));
    }
    let (mut flying, mut shipped) = (VecDeque::new(), [0_u32, 0]);
    for ms in 2..400 {
        for dispatch in go(&mut dc, &mut node, ms, 512).0 {
            shipped[dispatch.namespace.index()] += 1;
            flying.push_back(dispatch.slot);
        }
        for slot in flying.drain(..16) {
            dc.settle(slot, Outcome::NotFound, at(ms));
        }
    }
    let [a, b] = shipped;
    assert!(a + b > 6000 && a.abs_diff(b) <= 512, "{shipped:?}");
}

#[test]
fn namespaces_take_turns_by_bytes_and_little_is_picked_before_who_comes_next() {
    let (mut dc, mut node) = two(Limits::default(), Start::Now);
    for n in 0..3000 {
        dc.submit(&change(A, digest(n as u16 % 100, n), 1), "", at(1));
        dc.submit(&change(B, digest(n as u16 % 100, n), 1), "", at(1));
    }
    // As the engine does, one after the other.
    let mut shipped = [0_u64, 0];
    for ms in 2..42 {
        let (out, idle) = go(&mut dc, &mut node, ms, if ms == 2 { 10 } else { 512 });
        assert!(idle.next_due <= at(ms).tick, "there is more: {idle:?}");
        let picked = |namespace| out.iter().filter(|of| of.namespace == namespace).count();
        let is_shared = picked(A) <= 3 && (picked(B) >= 256 || shipped[1] > 3000 - 256);
        assert!(ms < 4 || is_shared, "{} and {}, {shipped:?}", picked(A), picked(B));
        for Dispatch { slot, namespace, .. } in out {
            let bytes = [900_000, 100][namespace.index()];
            shipped[namespace.index()] += 1;
            dc.sent(slot, version(0), Sent::Write, bytes);
            dc.settle(slot, Outcome::Reply(ResultCode::OK), at(ms));
        }
    }
    assert!(shipped[0] > 40 && shipped[1] == 3000, "{shipped:?}");
}

/// Live changes and finds that shipped while both waited, of so many records a second with such a
/// window. With `retries`, every tenth answer asks for another try.
fn shares(records_per_s: u32, window: u32, retries: bool) -> (u32, u32) {
    let policy = Policy { records_per_s, hot_key_ms: 0, ..policy() };
    let mut desk = Desk::new(policy, Limits { window, ..Limits::default() });
    for n in 0..5000 {
        let change = desk.change(digest(n as u16 % 64, n));
        desk.dc.submit(&change, "", desk.now());
    }
    desk.dc.rewind(NS, Lut::ZERO);
    desk.wait(10);
    let walk = desk.begin_walk().expect("lanes to recover");
    desk.walk_all(walk.walk);
    for n in 0..40_000 {
        let change = desk.change(digest(100 + n as u16 % 64, n));
        desk.dc.submit(&change, "", desk.now());
    }
    let (mut live, mut found, mut settled) = (0, 0, 0);
    let mut flying = VecDeque::new();
    while live + found < 8000 {
        desk.ms += 1;
        let mut out = Vec::new();
        desk.dc.dispatch(desk.now(), &mut desk.node, &mut out, 512);
        for dispatch in out {
            *(if dispatch.partition.index() < 64 { &mut found } else { &mut live }) += 1;
            flying.push_back(dispatch.slot);
        }
        for _ in 0..if window < 1000 { 8 } else { 1000 } {
            let Some(slot) = flying.pop_front() else { break };
            settled += 1;
            let outcome = match retries && settled % 10 == 0 {
                true => Outcome::Reply(ResultCode::KEY_BUSY),
                false => Outcome::NotFound,
            };
            desk.dc.settle(slot, outcome, desk.now());
        }
        assert!(desk.ms < 60_000, "live {live}, walked {found}");
    }
    (live, found)
}

#[test]
fn recovery_gets_a_quarter_under_every_limit() {
    let check = |records_per_s, window, retries| {
        let (live, found) = shares(records_per_s, window, retries);
        let percent = 100 * found / (live + found);
        assert!((22..=28).contains(&percent), "{records_per_s}/s, {window}: {live} and {found}");
    };
    for records_per_s in [500, 1000, 6000, 20_000] {
        check(records_per_s, 196_608, false);
        check(records_per_s, 196_608, true);
    }
    check(1_000_000, 400, false);
    check(1_000_000, 400, true);
}

#[test]
fn queued_changes_and_those_whose_wait_is_over_take_turns() {
    let policy = Policy { records_per_s: 1000, hot_key_ms: 100, ..policy() };
    let mut desk = Desk::new(policy, Limits::default());
    for n in 0..2000 {
        let change = desk.change(digest(n as u16 % 50, n));
        desk.dc.submit(&change, "", desk.now());
    }
    // As many hot keys as the throttle lets through, each written again and again.
    let (mut hot, mut queued) = (0, 0);
    for ms in 0..3000_u32 {
        desk.wait(1);
        let change = desk.change(digest(100, 10_000 + ms % 90));
        desk.dc.submit(&change, "", desk.now());
        for dispatch in desk.dispatch() {
            *(if dispatch.partition.index() == 100 { &mut hot } else { &mut queued }) += 1;
            desk.send(&dispatch);
            desk.dc.settle(dispatch.slot, Outcome::Reply(ResultCode::OK), desk.now());
        }
    }
    assert!(queued >= 1300, "{queued} queued ones beside {hot} hot keys");
}

/// The engine's way: again when told, at the latest each second.
fn ticks_until(
    dc: &mut DcShard,
    node: &mut impl Routes,
    mut us: u64,
    done: impl Fn(&Dispatch) -> bool,
) -> (u64, u32) {
    for turns in 1.. {
        let mut out = Vec::new();
        let now = Now { tick: Tick(us), wall: Lut::from_ms(START_MS + us / 1000) };
        let idle = dc.dispatch(now, node, &mut out, 512);
        if out.iter().any(&done) {
            return (us, turns);
        }
        us = idle.next_due.0.max(us + 1).min(us + 1_000_000);
        assert!(us < 120_000_000, "never");
    }
    unreachable!("turns do not end")
}

#[test]
fn due_changes_of_a_parked_namespace_hide_nobody() {
    let (mut dc, mut node) = two(Limits::default(), Start::Now);
    for n in 0..2000 {
        dc.submit(&change(A, digest(n as u16 % 100, n), 1), "", at(1));
    }
    let all: Vec<Dispatch> = (0..8).flat_map(|_| go(&mut dc, &mut node, 1, 512).0).collect();
    for dispatch in &all[..800] {
        dc.settle(dispatch.slot, Outcome::Reply(ResultCode::KEY_BUSY), at(2));
    }
    dc.foresee(A, Some(ResultCode::NAMESPACE), at(2));
    dc.submit(&change(B, digest(7, 1), 2), "", at(2));
    let out = go(&mut dc, &mut node, 3, 512).0;
    dc.settle(out[0].slot, Outcome::Reply(ResultCode::KEY_BUSY), at(3));
    let (us, turns) = ticks_until(&mut dc, &mut node, 4000, |dispatch| dispatch.namespace == B);
    assert!(us <= 14_000 && turns <= 10, "due at 13 ms, left at {us} us after {turns} turns");
}

/// Several nodes: partitions go by their number.
struct Nodes {
    rooms: Vec<Room>,
    asked: u32,
}

impl Routes for Nodes {
    fn room(&mut self, _: NamespaceId, partition: PartitionId) -> Room {
        self.asked += 1;
        self.rooms[partition.index() % self.rooms.len()]
    }

    fn is_full(&self, node: u16) -> bool {
        self.rooms[usize::from(node)] == Room::Full(node)
    }

    fn has_node(&self, _: NamespaceId, partition: PartitionId) -> bool {
        self.rooms[partition.index() % self.rooms.len()] != Room::NoNode
    }
}

#[test]
fn due_changes_for_a_full_or_lost_node_hide_nobody_and_cost_nothing() {
    for trouble in [Room::Full(0), Room::NoNode] {
        let mut dc = DcShard::new(Limits::default(), 0, 1);
        dc.attach(A, policy(), at(0).wall, at(0), |_| Start::Now);
        let mut nodes = Nodes { rooms: vec![Room::Yes(0), Room::Yes(1)], asked: 0 };
        for n in 0..2000 {
            dc.submit(&change(A, digest(2 * (n as u16 % 100), n), 1), "", at(1));
        }
        dc.submit(&change(A, digest(1, 1), 1), "", at(1));
        let all: Vec<Dispatch> = (0..8).flat_map(|_| go(&mut dc, &mut nodes, 1, 512).0).collect();
        assert_eq!(all.len(), 2001);
        let busy = |dc: &mut DcShard, dispatch: &Dispatch| {
            dc.settle(dispatch.slot, Outcome::Reply(ResultCode::KEY_BUSY), at(2))
        };
        let of_one = |dispatch: &Dispatch| dispatch.partition.index() == 1;
        all.iter()
            .filter(|dispatch| !of_one(dispatch))
            .take(1500)
            .for_each(|d| _ = busy(&mut dc, d));
        nodes.rooms[0] = trouble;
        all.iter().filter(|dispatch| of_one(dispatch)).for_each(|d| _ = busy(&mut dc, d));
        let (us, turns) = ticks_until(&mut dc, &mut nodes, 4000, of_one);
        assert!(us <= 13_000 && turns <= 10, "due at 12 ms, left at {us} us after {turns} turns");
        for ms in 20..60 {
            go(&mut dc, &mut nodes, ms, 512);
        }
        nodes.asked = 0;
        for ms in 60..260 {
            assert_eq!(go(&mut dc, &mut nodes, ms, 512).0.len(), 0);
        }
        assert!(nodes.asked <= 8, "{} asked", nodes.asked);
        assert!(dc.dc_stats().counters.retry_no_node < 2000);
        nodes.rooms[0] = Room::Yes(0);
        dc.map_changed();
        let out: Vec<Dispatch> = (0..8).flat_map(|_| go(&mut dc, &mut nodes, 261, 512).0).collect();
        assert!(out.len() >= 1000, "{} of them go at once", out.len());
    }
}

#[test]
fn a_probe_on_its_way_makes_nobody_spin() {
    let mut desk = Desk::plain();
    for n in 0..5 {
        desk.write(digest(n as u16, n));
    }
    let now = desk.now();
    desk.dc.foresee(NS, Some(ResultCode::FORBIDDEN), now);
    assert_eq!(desk.wait(1000).dispatch().len(), 1);
    for _ in 0..3 {
        let (out, idle) = desk.wait(1000).dispatch_idle(512);
        assert_eq!((out.len(), idle.next_due), (0, Tick::NEVER));
    }
}

/// 64 shards: what the lanes of one may ship in a lap is less than a lap of 4096 lanes brings.
#[test]
fn what_is_on_the_device_leaves_in_the_order_of_time_on_many_shards_too() {
    let mut dc = DcShard::new(Limits::default(), 0, 64);
    let policy = Policy { hot_key_ms: 0, records_per_s: 1 << 30, ..policy() };
    dc.attach(A, policy, at(0).wall, at(0), |_| Start::Now);
    let mut node = OneNode { room: Room::Yes(0), asked: 0 };
    for n in 0..40_000_u32 {
        // Half of the changes are those of one lane, a turn of which reaches less far than others'.
        let lane = if n % 2 == 0 { 0 } else { n as u16 / 2 % 64 };
        dc.submit(&change(A, digest(lane * 64, n), u64::from(n)), "", at(u64::from(n)));
    }
    dc.note_in_memory(|_| Lut::MAX);
    let (mut newest, mut behind_ms, mut shipped) = (0, 0, 0);
    while shipped < 16_000 {
        let (out, idle) = go(&mut dc, &mut node, 50_000, 512);
        assert!(!out.is_empty() || idle.next_due <= at(50_000).tick, "{shipped}: {idle:?}");
        shipped += out.len();
        for Dispatch { slot, lut, partition, .. } in out {
            if partition.index() != 0 {
                newest = newest.max(lut.ms());
                behind_ms = behind_ms.max(newest - lut.ms());
            }
            dc.settle(slot, Outcome::NotFound, at(50_000));
        }
    }
    assert!(behind_ms < 10_000, "{behind_ms} ms");
}

#[test]
fn with_every_slot_taken_those_that_wait_go_on() {
    let mut desk = Desk::new(policy(), Limits { window: 2, waiting: 3, ..Limits::default() });
    for n in 0..8 {
        desk.write(digest(n as u16, n));
    }
    for _ in 0..3 {
        for dispatch in desk.dispatch() {
            desk.settle(dispatch.slot, Outcome::Unanswered { fenced: false });
        }
    }
    assert_eq!(desk.ship_all().len(), 8);
}

#[test]
fn a_namespace_that_overflows_all_the_time_leaves_walks_to_its_neighbour() {
    let (mut dc, node) = two(Limits::default(), Start::From(Lut::ZERO));
    let (mut walks, mut of) = (VecDeque::new(), BTreeMap::<NamespaceId, u32>::new());
    for ms in (0..30_000).step_by(20) {
        if ms == 10_000 {
            of.clear();
            dc.missed(B, PartitionId::new(9), at(ms).wall, at(ms).wall);
        }
        dc.missed(A, PartitionId::new((ms / 20 % 64) as u16), at(ms).wall, at(ms).wall);
        if let Some(walk) = dc.begin_walk(at(ms), &node, |_| at(5).wall) {
            *of.entry(walk.namespace).or_default() += 1;
            walks.push_back((ms + 5000, walk.walk));
        }
        while walks.front().is_some_and(|(end, _)| *end <= ms) {
            walks.pop_front().into_iter().for_each(|(_, walk)| dc.walk_done(walk));
        }
    }
    assert!(of.contains_key(&B), "B's lane has waited for a walk for 20 s: {of:?}");
}
