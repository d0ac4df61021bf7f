//! Invariant 14: what has to be read from the device leaves in the order of time. How far a lap may
//! reach nobody is asked: it is worked out from what left, what waits, and what the host has in memory.
//!
//! Promised is this, for each namespace, its live changes and its finds each by themselves. A lap
//! reaches from the oldest change that the lap before found too young, over a span. That is a
//! millisecond to begin with, and doubles at most once for each change that leaves: the one that a
//! lap reached for leaves in the next, if nothing keeps it. A lane that has used up its turn, or was
//! empty when it had it, is waited for from the next lap on. No lap reaches less far than the one
//! before, but those of a new walk begin anew.

use std::collections::BTreeMap;

use crate::turns::{Look, Origin};
use crate::world::{LANES, World, lane_of};
use longship::host::Host;
use longship::model::{Digest, Lut, NamespaceId};
use longship::ship::{Dispatch, Queue};

/// A span that may have doubled so often is longer than most of what waits in these worlds.
const DOUBLINGS_MAX: u32 = 16;

/// How far laps over the live changes of a namespace, or over its finds, may reach at most.
#[derive(Clone, Debug)]
pub(crate) struct Reach {
    until: Lut,
    /// How often the span may have doubled.
    doublings: u32,
    clock_steps: u32,
    /// Lanes that wait for nothing but their time.
    lanes: BTreeMap<usize, Lane>,
}

/// By namespace, and whether walks found it.
pub(crate) type Reaches = BTreeMap<(usize, bool), Reach>;

#[derive(Clone, Debug)]
struct Lane {
    /// What it leaves to the next decision; `None` if that is nothing from the device.
    left: Option<(Digest, Lut)>,
    /// A lap has ended since it waits: it counts in every one from now on.
    counts: bool,
    /// Changes that left since then: with a whole turn of them, a lap may end without it.
    turn: u32,
    /// What is at its head after the present one, the last first.
    heads: Vec<Lut>,
    /// The youngest that has been there.
    youngest: Lut,
    is_empty: bool,
}

/// A DC begins, or a namespace of it, or a walk of that.
pub(crate) fn begins(world: &mut World, link: usize, n: usize, is_find: bool) {
    if world.plan.memory_ms.is_some() {
        let clock_steps = world.sites[world.links[link].from].clock_steps;
        let doublings = u32::from(world.plan.limits.lane_turn > 1);
        let reach = Reach { until: Lut::ZERO, doublings, clock_steps, lanes: BTreeMap::new() };
        world.links[link].reaches.insert((n, is_find), reach);
    }
}

/// Whether it is known of anything of a link how long it has to wait.
pub(crate) fn is_watched(reaches: &Reaches) -> bool {
    reaches.values().any(|reach| reach.doublings < DOUBLINGS_MAX)
}

/// Looks at what a link has decided, after `settled` others had ended.
pub(crate) fn the_oldest_leaves_first(
    world: &mut World,
    link: usize,
    [before, after]: [&Look; 2],
    out: &[Dispatch],
    settled: usize,
) {
    let lane_turn = world.plan.limits.lane_turn;
    let mut reaches = std::mem::take(&mut world.links[link].reaches);
    let place = &world.links[link];
    let (Some(rules), site) = (place.rules(), &world.sites[place.from]) else { return };
    for (&(n, is_find), reach) in &mut reaches {
        if reach.clock_steps != site.clock_steps {
            reach.doublings = DOUBLINGS_MAX;
        }
        if reach.doublings >= DOUBLINGS_MAX {
            continue;
        }
        let device = site.in_memory_above(NamespaceId(n as u8));
        let (from, to): (Vec<&Queue>, Vec<&Queue>) =
            (before.of(n, is_find).collect(), after.of(n, is_find).collect());
        let heads = from.iter().chain(&to).map(|queue| queue.head.1);
        let left = out.iter().filter(|of| of.namespace.index() == n).map(|of| of.lut);
        if reach.lanes.is_empty() && heads.chain(left).all(|lut| lut > device) {
            continue;
        }
        let is_own =
            |of: &&Dispatch| of.namespace.index() == n && rules.is_find(of.slot) == is_find;
        let own = || out.iter().filter(is_own).map(|of| (*of, before.origin(of)));
        let came_from = |from| own().filter(move |&(_, origin)| origin == from).map(|(of, _)| of);
        let out: Vec<Dispatch> = came_from(Origin::Queue).collect();
        // Of lanes that something came back to nobody can tell whether it was queued in between.
        let unclear: Vec<usize> =
            came_from(Origin::Either).map(|of| lane_of(of.partition)).collect();
        if let Err((of, waits)) =
            reach.follow([&from, &to], &out, &unclear, device, settled as u32, lane_turn)
        {
            let (key, lut) = (world.key(of.namespace, &of.digest), of.lut);
            panic!(
                "invariant 14: DC {link} ships key {key} @{lut} from the device though @{waits} \
                 waits, its span having doubled {} times at most",
                reach.doublings
            );
        }
    }
    world.links[link].reaches = reaches;
}

impl Reach {
    /// Goes on over a decision, from these queues to those. Fails with what should have waited, and
    /// for which change.
    fn follow(
        &mut self,
        queues: [&[&Queue]; 2],
        out: &[Dispatch],
        unclear: &[usize],
        device: Lut,
        settled: u32,
        lane_turn: u32,
    ) -> Result<(), (Dispatch, Lut)> {
        let doubles = u32::from(lane_turn > 1);
        let was = std::mem::take(&mut self.lanes);
        // Of some lanes nobody can tell in which laps they count.
        let mut youngest = Lut::ZERO;
        for n in 0..LANES {
            let course = Course::of(n, queues, out, !unclear.contains(&n));
            let was = was.get(&n).filter(|was| was.left.is_some());
            let goes_on = was.filter(|was| course.before.map(|queue| queue.head) == was.left);
            self.doublings += u32::from(was.is_some() && goes_on.is_none()) * doubles;
            if let Some(lane) = course.lane(goes_on, device) {
                self.lanes.insert(n, lane);
            } else if let Some(of_lane) = course.youngest(device) {
                youngest = youngest.max(of_lane);
                let unseen = if course.is_whole() { 0 } else { course.unseen() + settled };
                self.doublings += (1 + unseen) * doubles;
            }
        }
        for of in out {
            if of.lut <= device {
                if of.lut > self.until {
                    if let Some(waits) = self.reach_on(youngest).filter(|_| of.lut > self.until) {
                        return Err((*of, waits));
                    }
                    self.lanes.values_mut().for_each(|lane| lane.counts = true);
                }
                self.doublings += doubles;
            }
            let n = lane_of(of.partition);
            let Some(lane) = self.lanes.get_mut(&n) else { continue };
            lane.leave();
            if lane.turn >= lane_turn {
                youngest = lane.heads.iter().fold(youngest.max(lane.youngest), |a, &b| a.max(b));
                self.lanes.remove(&n);
            }
        }
        self.reach_on(youngest);
        Ok(())
    }

    /// A lap may have ended. Gives the change that it waits for, if there is one for certain.
    fn reach_on(&mut self, youngest: Lut) -> Option<Lut> {
        let waits = self.lanes.values().filter(|lane| lane.counts && !lane.is_empty);
        let oldest = waits.map(|lane| lane.youngest).min();
        let youngest = self.lanes.values().fold(youngest, |a, lane| a.max(lane.youngest));
        let span_ms = 1 << self.doublings.min(DOUBLINGS_MAX * 2);
        let from = oldest.unwrap_or(youngest);
        if from > Lut::ZERO {
            self.until = self.until.max(from.plus_ms(span_ms - 1));
        }
        oldest
    }
}

impl Lane {
    /// The change at its head leaves.
    fn leave(&mut self) {
        self.turn += 1;
        let next = self.heads.pop();
        self.is_empty = next.is_none();
        self.youngest = self.youngest.max(next.unwrap_or_default());
    }
}

/// What became of a lane's queue in a decision.
struct Course<'a> {
    before: Option<&'a Queue>,
    after: Option<&'a Queue>,
    out: Vec<&'a Dispatch>,
    is_clear: bool,
}

impl<'a> Course<'a> {
    fn of(n: usize, queues: [&[&'a Queue]; 2], out: &'a [Dispatch], is_clear: bool) -> Self {
        let [before, after] =
            queues.map(|all| all.iter().copied().find(|queue| lane_of(queue.partition) == n));
        let out = out.iter().filter(|of| lane_of(of.partition) == n).collect();
        Self { before, after, out, is_clear }
    }

    /// The youngest that is known to have been in it and on the device.
    fn youngest(&self, device: Lut) -> Option<Lut> {
        let heads = self.before.iter().chain(&self.after).map(|queue| queue.head.1);
        heads.chain(self.out.iter().map(|of| of.lut)).filter(|&lut| lut <= device).max()
    }

    /// By how many it became longer or shorter, but for those that left.
    fn unseen(&self) -> u32 {
        let len = |queue: Option<&Queue>| queue.map_or(0, |queue| queue.len);
        len(self.before).abs_diff(self.out.len() as u32 + len(self.after))
    }

    /// Whether nothing joined another change, or returned, as far as one can see.
    fn is_whole(&self) -> bool {
        let first = self.out.first().map(|of| (of.digest, of.lut));
        let first = first.or(self.after.map(|queue| queue.head));
        self.is_clear && self.unseen() == 0 && self.before.map(|queue| queue.head) == first
    }

    /// The lane, if all of its course is known, and nothing but its time kept it from leaving.
    fn lane(&self, was: Option<&Lane>, device: Lut) -> Option<Lane> {
        let before = self.before.filter(|queue| queue.may_ship && queue.head.1 <= device)?;
        if !self.is_whole() || self.after.is_some_and(|queue| !queue.may_ship || queue.is_held) {
            return None;
        }
        let left = self.after.map(|queue| queue.head).filter(|head| head.1 <= device);
        let heads = self.out.iter().map(|of| of.lut).chain(left.map(|head| head.1));
        let mut heads: Vec<Lut> = heads.skip(1).collect();
        heads.reverse();
        let (counts, turn) = was.map_or((false, 0), |was| (was.counts, was.turn));
        Some(Lane { left, counts, turn, heads, youngest: before.head.1, is_empty: false })
    }
}
