//! Lanes that wait for their destination node. Laps pass over them until the node may have room
//! again, so that changes for a sick destination cost the core nothing while they wait.
//!
//! Whether a node has room is asked once per dispatch, not once per lane: a lane that met a full
//! node is remembered as one of that node's, and all of them are held and released together. So are
//! the lanes that have no node: now and then one of them is tried.

use std::ops::Range;

use super::bitmap::Bitmap;
use crate::model::Tick;

/// The lanes that shipped to one node or met it full, or had none, since the map last changed.
#[derive(Clone, Debug, Default)]
struct Group {
    lanes: Bitmap,
    is_held: bool,
    /// Some of them have not had their turn while others had theirs.
    is_owed_turns: bool,
    /// They were held when the last dispatch began, and no more since.
    is_released: bool,
    /// By block, the last release at which its namespace went first.
    firsts: Vec<u64>,
    /// At the last release one went first.
    has_favoured: bool,
}

impl Group {
    fn hold(&mut self, lane: u32, held: &mut Bitmap) {
        self.lanes.insert(lane);
        held.insert(lane);
        if !std::mem::replace(&mut self.is_held, true) {
            held.insert_all(&self.lanes);
        }
    }

    fn release(&mut self, held: &mut Bitmap) {
        (self.is_held, self.is_released) = (false, true);
        held.remove_all(&self.lanes);
    }

    fn forget(&mut self) {
        self.is_held = false;
        self.lanes.clear();
    }
}

/// The lanes of a DC that laps pass over.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// All lanes that laps pass over: those of full nodes, and the stranded ones.
    lanes: Bitmap,
    nodes: Vec<Group>,
    /// Lanes for which no node is known.
    stranded: Group,
    /// When one of them is tried again, unless the map changes before.
    stranded_until: Tick,
    /// How often nodes had room again.
    releases: u64,
    bits: usize,
}

impl Held {
    /// Makes room for `lanes` lanes.
    pub(super) fn grow(&mut self, lanes: usize) {
        self.bits = lanes;
        self.lanes.grow(lanes);
        self.stranded.lanes.grow(lanes);
        self.nodes.iter_mut().for_each(|node| node.lanes.grow(lanes));
    }

    /// Lanes that laps pass over, whatever node they wait for.
    #[inline]
    pub(super) fn lanes(&self) -> &Bitmap {
        &self.lanes
    }

    /// Holds a lane that met a full node, and with it all that are known to go there.
    pub(super) fn fill(&mut self, node: u16, lane: u32) {
        self.know(node, lane);
        self.nodes[usize::from(node)].hold(lane, &mut self.lanes);
    }

    /// Notes that a lane goes to that node.
    #[inline]
    pub(super) fn know(&mut self, node: u16, lane: u32) {
        let index = usize::from(node);
        while self.nodes.len() <= index {
            let mut node = Group::default();
            node.lanes.grow(self.bits);
            self.nodes.push(node);
        }
        self.nodes[index].lanes.insert(lane);
    }

    /// Holds a lane that has no node, and with it all that are known to have none, until `until` if
    /// it is the first. True when it was not known to have none.
    pub(super) fn strand(&mut self, lane: u32, until: Tick) -> bool {
        let is_new = !self.stranded.lanes.contains(lane);
        if !self.stranded.is_held {
            self.stranded_until = until;
        }
        self.stranded.hold(lane, &mut self.lanes);
        is_new
    }

    /// Releases the lanes of nodes that are not full any more, and stranded ones when it is time to
    /// try one. True if there are any.
    pub(super) fn release(&mut self, now: Tick, is_full: impl Fn(u16) -> bool) -> bool {
        let mut released = false;
        for (index, node) in self.nodes.iter_mut().enumerate() {
            node.is_released = false;
            if node.is_held && !is_full(index as u16) {
                node.release(&mut self.lanes);
                released = true;
            }
        }
        if self.stranded_until() <= now {
            self.stranded.release(&mut self.lanes);
            released = true;
        }
        released
    }

    /// Nodes that were full when the last dispatch began, and have room now.
    pub(super) fn released(&self) -> impl Iterator<Item = u16> {
        let nodes = (0_u16..).zip(&self.nodes);
        nodes.filter(|(_, node)| node.is_released).map(|(index, _)| index)
    }

    /// The block that goes first where a node has room again, if there is to be one. Of the blocks
    /// that wait for such a node it is the one that went first there longest ago; at every second
    /// release of a node none does. `waits` tells whether any of these lanes belongs to a block and
    /// has something queued.
    pub(super) fn take_first(
        &mut self,
        blocks: u32,
        may_favour: bool,
        waits: impl Fn(u32, &Bitmap) -> bool,
    ) -> Option<u32> {
        self.releases += 1;
        let mut longest: Option<(u64, u32)> = None;
        for node in self.nodes.iter_mut().filter(|node| node.is_released) {
            if std::mem::replace(&mut node.has_favoured, false) || !may_favour {
                continue;
            }
            // For now: below it shows whether the one that goes first waits here.
            node.has_favoured = true;
            node.firsts.resize(blocks as usize, 0);
            let at = |block: u32| (node.firsts[block as usize], block);
            let waiting = (0..blocks).filter(|&block| waits(block, &node.lanes)).map(at);
            longest = longest.into_iter().chain(waiting).min();
        }
        let first = longest.map(|(_, block)| block);
        for node in self.nodes.iter_mut().filter(|node| node.is_released && node.has_favoured) {
            node.has_favoured = first.is_some_and(|block| waits(block, &node.lanes));
            if let Some(block) = first.filter(|_| node.has_favoured) {
                node.firsts[block as usize] = self.releases;
            }
        }
        first
    }

    /// Begins a new lap among the lanes of `range` that have something queued: lanes that have gone
    /// may go again. There is an exception for a full node: its lanes that have gone wait until its
    /// other lanes have had their turns. Such a node has few places at a time, and laps end on
    /// account of other nodes meanwhile, so its first lanes would get all of its places. False if
    /// there is such a node.
    pub(super) fn begin_lap(
        &mut self,
        gone: &mut Bitmap,
        queued: &Bitmap,
        range: Range<u32>,
    ) -> bool {
        if self.lanes.is_empty() {
            gone.clear_in(range);
            return true;
        }
        for node in &mut self.nodes {
            node.is_owed_turns = node.is_held && queued.meets_but(&node.lanes, gone, range.clone());
        }
        let nodes = || self.nodes.iter().filter(|node| node.is_owed_turns);
        gone.keep_in(range, |index| nodes().fold(0, |all, node| all | node.lanes.word(index)));
        nodes().next().is_none()
    }

    /// Whether a lane waits for a node to be known.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn is_stranded(&self, lane: u32) -> bool {
        self.stranded.is_held && self.stranded.lanes.contains(lane)
    }

    /// When stranded lanes are looked at again.
    pub(super) fn stranded_until(&self) -> Tick {
        if self.stranded.is_held { self.stranded_until } else { Tick::NEVER }
    }

    /// Releases all: lanes may go elsewhere than they did.
    pub(super) fn forget(&mut self) {
        self.lanes.clear();
        self.stranded.forget();
        self.nodes.iter_mut().for_each(Group::forget);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held() -> Held {
        let mut held = Held::default();
        held.grow(100);
        held
    }

    fn lanes(held: &Held) -> Vec<u32> {
        held.lanes().iter().collect()
    }

    #[test]
    fn lanes_of_a_node_are_held_and_released_together() {
        let mut held = held();
        held.fill(2, 7);
        held.fill(2, 70);
        held.fill(0, 8);
        assert_eq!(lanes(&held), [7, 8, 70]);
        assert!(!held.release(Tick(0), |_| true));
        assert!(held.release(Tick(0), |node| node == 0));
        assert_eq!(lanes(&held), [8]);
        held.fill(2, 70);
        assert_eq!(lanes(&held), [7, 8, 70], "7 goes there too, as it did");
        held.forget();
        held.fill(2, 70);
        assert_eq!(lanes(&held), [70]);
    }

    #[test]
    fn stranded_lanes_wait_for_their_time() {
        let mut held = held();
        assert_eq!(held.stranded_until(), Tick::NEVER);
        held.strand(3, Tick(100));
        held.strand(4, Tick(150));
        held.fill(1, 4);
        assert_eq!(held.stranded_until(), Tick(100));
        assert!(!held.release(Tick(99), |_| true));
        assert!(held.release(Tick(100), |_| true));
        assert!(lanes(&held).is_empty() && held.stranded_until() == Tick::NEVER);
        held.strand(3, Tick(200));
        assert_eq!(lanes(&held), [3, 4], "one was tried for both");
        assert_eq!(held.stranded_until(), Tick(200));
        held.forget();
        assert!(lanes(&held).is_empty() && held.stranded_until() == Tick::NEVER);
    }
}
