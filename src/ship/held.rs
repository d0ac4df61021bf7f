//! Lanes that wait for their destination node: laps pass over them until that may have changed, so
//! that what waits for a sick destination costs its core nothing.
//!
//! Whether a node has room is asked once per dispatch, not once per lane: a lane that met a full
//! node is remembered as one of that node's, and all of them are held and released together. So are
//! the lanes that have no node: now and then one of them is tried.

use super::bitmap::Bitmap;
use crate::model::Tick;

/// The lanes that met one node full, or none, since the map last changed.
#[derive(Clone, Debug, Default)]
struct Group {
    lanes: Bitmap,
    is_held: bool,
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
        self.is_held = false;
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

    /// What laps pass over.
    #[inline]
    pub(super) fn lanes(&self) -> &Bitmap {
        &self.lanes
    }

    /// Holds a lane that met a full node, and with it all that are known to go there.
    pub(super) fn fill(&mut self, node: u16, lane: u32) {
        let index = usize::from(node);
        while self.nodes.len() <= index {
            let mut node = Group::default();
            node.lanes.grow(self.bits);
            self.nodes.push(node);
        }
        self.nodes[index].hold(lane, &mut self.lanes);
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
