//! Who waits for a turn, and who goes meanwhile.

use std::collections::BTreeMap;

use crate::link::{Link, Stage};
use crate::world::{World, lane_of};
use longship::host::Host;
use longship::model::{Digest, Lut, NamespaceId};
use longship::ship::{Dispatch, Waiting};

/// Turns that a neighbour may have while somebody waits: the one that had begun and its own. Full nodes
/// and maps that change add to that: seeds have shown three.
const TURNS_MAX: u32 = 4;

/// What is queued.
type Entry = (Digest, Lut);
/// A queue: its namespace, its lane, and whether it is that of finds.
type Queue = (usize, usize, bool);

/// How many changes of each neighbour have gone while somebody waited.
type Passed = BTreeMap<usize, u32>;

/// Who waits at a link.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    /// Each lane's queues as they were, and changes of the other lanes.
    lanes: BTreeMap<Queue, (Vec<Entry>, Passed)>,
    /// Namespaces, each for a node, and changes of the other namespaces towards it.
    namespaces: BTreeMap<(usize, u16), Passed>,
}

/// What is queued, by namespace.
pub(crate) type Queues = Vec<Vec<Waiting>>;

/// A change that has left a queue.
struct Left<'a> {
    queue: Queue,
    dispatch: &'a Dispatch,
}

impl Turns {
    /// A walk begins: what it finds may be what was found before, and was dropped.
    pub(crate) fn walk_begins(&mut self) {
        self.lanes.retain(|(_, _, is_found), _| !*is_found);
        self.namespaces.clear();
    }
}

impl World {
    /// What a link has queued.
    pub(crate) fn queues(&self, link: usize) -> Queues {
        let place = &self.links[link];
        let now = self.now(place.from);
        let all = |n| place.rules().map(|rules| rules.waiting(NamespaceId(n as u8), now));
        (0..place.configs.len()).map(|n| all(n).unwrap_or_default()).collect()
    }
}

/// Invariant 13: who has something that could go waits for no more than a few laps. While the head
/// of a queue waits for its turn, no other lane of its namespace has more than [`TURNS_MAX`] towards
/// its node; and while a namespace waits, no other of its DC has.
///
/// Neither throttle nor window nor the room of a node matters between lanes: whoever goes, all of
/// them could. What has to be read from the device goes in the order of time, whichever lane it is of:
/// only what is younger goes before its turn, and what is in memory does not wait for it.
pub(crate) fn everybody_has_a_turn(
    world: &mut World,
    link: usize,
    before: Queues,
    out: &[Dispatch],
    waiting_max: usize,
) {
    let after = world.queues(link);
    let left = left(before.clone(), out);
    let mut turns = Turns::default();
    let place = &world.links[link];
    for (n, queues) in after.iter().enumerate() {
        let waits = queues.iter().filter(|of| is_waiting(world, link, n, of, &before[n]));
        for waits in waits {
            let lane = lane_of(waits.partition);
            let (queue, head) = ((n, lane, waits.is_found), waits.entries[0]);
            let known = place.turns.lanes.get(&queue);
            let known = known.filter(|(known, _)| waits.entries.starts_with(known));
            let mut passed = known.map(|(_, passed)| passed.clone()).unwrap_or_default();
            for left in left.iter().filter(|left| goes_before(world, link, left, queue, head)) {
                *passed.entry(left.queue.1).or_default() += 1;
            }
            let most = TURNS_MAX * world.plan.limits.lane_turn;
            for (other, passed) in &passed {
                assert!(
                    *passed <= most,
                    "invariant 13: lane {lane} of namespace {n} of DC {link} waits with @{} \
                     while lane {other} ships {passed}, finds {}",
                    head.1,
                    waits.is_found
                );
            }
            turns.lanes.insert(queue, (waits.entries.clone(), passed));
            let has_gone = out.iter().any(|dispatch| dispatch.namespace.index() == n);
            if let Some(node) = node_of(place, lane).filter(|_| !has_gone)
                && may_go(world, link, n, waiting_max)
            {
                let passed = passed_by(world, link, (n, node), &left);
                turns.namespaces.insert((n, node), passed);
            }
        }
    }
    world.links[link].turns = turns;
}

/// What has left the queues, as far as it was there before, and in one of them only.
fn left(mut before: Queues, out: &[Dispatch]) -> Vec<Left<'_>> {
    let mut all = Vec::new();
    for dispatch in out {
        let n = dispatch.namespace.index();
        let is_it = |of: &Entry| *of == (dispatch.digest, dispatch.lut);
        let queues = before[n].iter_mut().filter(|of| of.partition == dispatch.partition);
        let mut queues = queues.filter(|of| of.entries.iter().any(is_it));
        if let (Some(queue), None) = (queues.next(), queues.next()) {
            let at = queue.entries.iter().position(is_it);
            at.into_iter().for_each(|at| _ = queue.entries.remove(at));
            let queue = (n, lane_of(dispatch.partition), queue.is_found);
            all.push(Left { queue, dispatch });
        }
    }
    all
}

/// Whether nothing has left a queue, though its head could go but for what keeps all of its namespace.
fn is_waiting(world: &World, link: usize, n: usize, of: &Waiting, before: &[Waiting]) -> bool {
    let place = &world.links[link];
    let Some(config) = &place.configs[n] else { return false };
    let same = |other: &&Waiting| (other.partition, other.is_found) == (of.partition, of.is_found);
    let was = before.iter().find(same);
    let wall = world.sites[place.from].wall(world.now_us);
    was.is_some_and(|was| was.is_free && was.entries == of.entries)
        && of.is_free
        && of.entries[0].1.ms().abs_diff(wall.ms()) >= config.delay_ms.into()
}

fn node_of(link: &Link, lane: usize) -> Option<u16> {
    link.wire().and_then(|wire| wire.owner[lane])
}

/// Whether what has left went towards the node of a queue of the same kind, where it is not its turn.
fn goes_before(world: &World, link: usize, left: &Left<'_>, queue: Queue, head: Entry) -> bool {
    let place = &world.links[link];
    let on_device = world.sites[place.from].in_memory_above(NamespaceId(queue.0 as u8));
    let is_older = left.dispatch.lut <= on_device && left.dispatch.lut < head.1;
    let waits_for_device = head.1 <= on_device && left.dispatch.lut > on_device;
    (left.queue.0, left.queue.2) == (queue.0, queue.2)
        && left.queue.1 != queue.1
        && node_of(place, queue.1) == Some(left.dispatch.node)
        && !is_older
        && !waits_for_device
}

/// Whether a namespace has a token, and room for what is decided.
fn may_go(world: &World, link: usize, n: usize, waiting_max: usize) -> bool {
    let place = &world.links[link];
    let is_its = |key| world.namespace(key).index() == n;
    let decided = place.flights.values().filter(|of| of.stage == Stage::Dispatched);
    let has_room = decided.filter(|of| is_its(of.key)).count() < waiting_max;
    let now = world.now(place.from);
    has_room && place.rules().is_some_and(|rules| rules.may_go(NamespaceId(n as u8), now))
}

/// What others have shipped to a node since a namespace waits for its turn.
fn passed_by(world: &World, link: usize, waits: (usize, u16), left: &[Left<'_>]) -> Passed {
    let mut passed = world.links[link].turns.namespaces.get(&waits).cloned().unwrap_or_default();
    for left in left.iter().filter(|left| left.dispatch.node == waits.1) {
        *passed.entry(left.queue.0).or_default() += 1;
    }
    let (n, most) = (waits.0, TURNS_MAX * world.plan.limits.namespace_turn);
    for (other, passed) in &passed {
        assert!(
            *passed <= most,
            "invariant 13: namespace {n} of DC {link} waits while namespace {other} ships {passed}"
        );
    }
    passed
}
