//! Invariant 13: who waits for its turn has it after a bounded number of others' turns. However long a
//! lane's node is full, and for whom, a lane that may ship is passed over by no other lane of its
//! namespace for that node more than a few turns, nor its namespace by another.

use std::collections::BTreeMap;

use crate::link::Link;
use crate::world::lane_of;
use longship::model::{Digest, Lut};
use longship::ship::{DcShard, Dispatch, Limits, Now, Queue};

/// Turns of another lane that a lane waits for at most: one in its lap, and one in the next.
const LANE_TURNS_MAX: u32 = 2;
/// Turns of another namespace that one waits for at most: its own may come when the node is full, and
/// then whoever waits for longest is the first at every second or fourth time that it has room again.
const NAMESPACE_TURNS_MAX: u32 = 5;

/// A lane of a namespace.
type Lane = (usize, usize);

/// What has gone by while a lane could have shipped.
#[derive(Clone, Debug)]
pub(crate) struct Passed {
    /// Its queue: the oldest change, which another may be equal to, and how many there are.
    head: (Digest, Lut),
    len: u32,
    /// Its node, and how often the engine has been told of nodes.
    way: (u16, u64),
    /// Queued changes to its node, by lane of its namespace.
    lanes: BTreeMap<Lane, u32>,
    /// Any changes to its node since its own namespace had a turn, by other namespace.
    namespaces: BTreeMap<usize, u32>,
}

/// What waits, and what is on its way, as it stands.
pub(crate) struct Look {
    queues: Vec<Queue>,
    finds: Vec<Queue>,
    slots: Vec<(u32, Digest, bool)>,
}

/// Where what is dispatched has waited.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    Queue,
    /// It had a slot, and goes in pieces with what is queued.
    Slot,
    /// It was under way and came back just now: to its queue, or it kept its slot.
    Either,
}

impl Look {
    /// Looks at a DC before it decides, at what walks have found if that is wanted.
    pub(crate) fn before(rules: &DcShard, now: Now, finds: bool) -> Self {
        Self { slots: rules.slots(), ..Self::after(rules, now, finds) }
    }

    /// The same when it has decided.
    pub(crate) fn after(rules: &DcShard, now: Now, finds: bool) -> Self {
        let finds = if finds { rules.finds(now) } else { Vec::new() };
        Self { queues: rules.queues(now), finds, slots: Vec::new() }
    }

    /// Where this has waited, by how it stood before.
    pub(crate) fn origin(&self, of: &Dispatch) -> Origin {
        let is_it = |known: &&(u32, Digest, bool)| (known.0, known.1) == (of.slot, of.digest);
        match self.slots.iter().find(is_it) {
            None => Origin::Queue,
            Some((_, _, false)) => Origin::Slot,
            Some((_, _, true)) => Origin::Either,
        }
    }

    /// What is queued of a namespace, or what walks have found.
    pub(crate) fn of(&self, n: usize, is_find: bool) -> impl Iterator<Item = &Queue> {
        let queues = if is_find { &self.finds } else { &self.queues };
        queues.iter().filter(move |queue| queue.namespace.index() == n)
    }
}

/// Whether turns are so short that a seed sees two of them.
pub(crate) fn are_watched(limits: Limits) -> bool {
    limits.lane_turn.min(limits.namespace_turn) < 50
}

/// Looks at what a link has decided since.
pub(crate) fn nobody_is_passed_over(
    place: &mut Link,
    limits: Limits,
    [before, after]: [&Look; 2],
    out: &[Dispatch],
) {
    let Some(rules) = place.rules() else { return };
    let left = &after.queues;
    // Finds have turns of their own.
    let origin = |of: &Dispatch| (!rules.is_find(of.slot)).then(|| before.origin(of));
    let origins: Vec<Option<Origin>> = out.iter().map(origin).collect();
    let was = std::mem::take(&mut place.passed);
    for queue in before.queues.iter().filter(|queue| queue.may_ship) {
        let own = lane(queue);
        let Some(after) = left.iter().find(|queue| lane(queue) == own) else { continue };
        let Some(way) = way(place, own) else { continue };
        let has_shipped = out.iter().zip(&origins).any(|(of, origin)| {
            source(of) == own && matches!(origin, Some(Origin::Queue | Origin::Either))
        });
        let Queue { head, len, .. } = *queue;
        if has_shipped || !after.is_in_memory || (after.head, after.len) != (head, len) {
            continue;
        }
        let (lanes, namespaces) = Default::default();
        let is_same = |was: &&Passed| was.head == head && was.len <= len && was.way == way;
        let waits = was.get(&own).filter(is_same).cloned();
        let mut waits =
            Passed { len, ..waits.unwrap_or(Passed { head, len, way, lanes, namespaces }) };
        // Whose changes ship or merge has turns.
        let len = |queue: &Queue| if lane(queue).0 == own.0 { queue.len } else { 0 };
        let has_turns = before.queues.iter().map(len).sum::<u32>() > left.iter().map(len).sum()
            || out.iter().any(|dispatch| source(dispatch).0 == own.0);
        if has_turns {
            waits.namespaces.clear();
        }
        for (dispatch, &origin) in out.iter().zip(&origins) {
            let other = source(dispatch);
            let is_queued = origin == Some(Origin::Queue);
            // Tokens of its namespace may have been used up meanwhile.
            let counts = if other.0 == own.0 { is_queued } else { after.may_ship && !has_turns };
            if dispatch.node != way.0 || !counts {
                continue;
            }
            let (count, most) = if other.0 == own.0 {
                (waits.lanes.entry(other).or_default(), LANE_TURNS_MAX * limits.lane_turn)
            } else {
                let most = NAMESPACE_TURNS_MAX * limits.namespace_turn;
                (waits.namespaces.entry(other.0).or_default(), most)
            };
            *count += 1;
            assert!(
                *count <= most,
                "invariant 13: DC {:?} passes lane {own:?} over: {other:?} has shipped {count} \
                 changes to its node meanwhile, and not {most} at most",
                place.index
            );
        }
        place.passed.insert(own, waits);
    }
}

fn lane(queue: &Queue) -> Lane {
    (queue.namespace.index(), lane_of(queue.partition))
}

fn source(dispatch: &Dispatch) -> Lane {
    (dispatch.namespace.index(), lane_of(dispatch.partition))
}

/// The node to which a lane ships, if it is connected, and how often the engine has been told of nodes.
fn way(place: &Link, (_, lane): Lane) -> Option<(u16, u64)> {
    let wire = place.wire()?;
    let node = wire.owner[lane]?;
    wire.nodes[usize::from(node)].up.then_some((node, wire.tellings))
}
