//! Lanes that wait for their destination node: laps pass over them until that may have changed, so
//! that what waits for a sick destination costs its core nothing.
//!
//! Whether a node has room is asked once per dispatch, not once per lane: a lane that met a full
//! node is remembered as one of that node's, and all of them are held and released together.

use super::bitmap::Bitmap;
use crate::model::Tick;

/// The lanes that met one node full, since the map last changed.
#[derive(Clone, Debug, Default)]
struct NodeLanes {
    lanes: Bitmap,
    is_full: bool,
}

/// The lanes of a DC that laps pass over.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// Those of the full nodes, and the stranded ones.
    lanes: Bitmap,
    nodes: Vec<NodeLanes>,
    /// No node is known for them.
    stranded: Bitmap,
    /// When they are looked at again, unless the map changes before.
    stranded_until: Tick,
    bits: usize,
}

impl Held {
    /// Makes room for `lanes` lanes.
    pub(super) fn grow(&mut self, lanes: usize) {
        self.bits = lanes;
        self.lanes.grow(lanes);
        self.stranded.grow(lanes);
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
            let mut node = NodeLanes::default();
            node.lanes.grow(self.bits);
            self.nodes.push(node);
        }
        let node = &mut self.nodes[index];
        node.lanes.insert(lane);
        self.lanes.insert(lane);
        if !std::mem::replace(&mut node.is_full, true) {
            self.lanes.insert_all(&node.lanes);
        }
    }

    /// Holds a lane that has no node, until `until` if it is the first.
    pub(super) fn strand(&mut self, lane: u32, until: Tick) {
        if self.stranded.is_empty() {
            self.stranded_until = until;
        }
        self.stranded.insert(lane);
        self.lanes.insert(lane);
    }

    /// Releases the lanes of nodes that are not full any more, and stranded ones whose time has
    /// come. True if there are any.
    pub(super) fn release(&mut self, now: Tick, is_full: impl Fn(u16) -> bool) -> bool {
        let mut released = false;
        for (index, node) in self.nodes.iter_mut().enumerate() {
            if node.is_full && !is_full(index as u16) {
                node.is_full = false;
                self.lanes.remove_all(&node.lanes);
                released = true;
            }
        }
        if self.stranded_until() <= now {
            self.lanes.remove_all(&self.stranded);
            self.stranded.clear();
            released = true;
        }
        released
    }

    /// When stranded lanes are looked at again.
    pub(super) fn stranded_until(&self) -> Tick {
        if self.stranded.is_empty() { Tick::NEVER } else { self.stranded_until }
    }

    /// Releases all: lanes may go elsewhere than they did.
    pub(super) fn forget(&mut self) {
        self.lanes.clear();
        self.stranded.clear();
        self.nodes.iter_mut().for_each(|node| {
            node.lanes.clear();
            node.is_full = false;
        });
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
        held.fill(1, 4);
        assert_eq!(lanes(&held), [4]);
    }
}
