//! What a restarted destination may have forgotten.
//!
//! A destination announces how far back a crash may cost acknowledged changes (its *loss window*).
//! What it acknowledged within the last window of its life is remembered here, per node: the lanes,
//! and the lowest LUT. That is what ships again when the node restarts, and what no mark passes:
//! a time of acknowledgement says nothing about the LUT of what was acknowledged.

use std::ops::Range;

use super::bitmap::Bitmap;
use super::dc::DcShard;
use super::mutation::{Mutation, planted};
use crate::model::{Lut, Tick};

/// Acknowledgements of a span of time.
#[derive(Clone, Debug)]
struct Acks {
    lanes: Bitmap,
    lowest: Lut,
    first: Tick,
    last: Tick,
}

impl Acks {
    fn none(lanes: usize) -> Self {
        let mut bitmap = Bitmap::default();
        bitmap.grow(lanes);
        Self { lanes: bitmap, lowest: Lut::MAX, first: Tick(0), last: Tick(0) }
    }

    fn clear(&mut self) {
        self.lanes.clear();
        self.lowest = Lut::MAX;
    }
}

/// What one destination node acknowledged lately: everything within its last window and at most
/// one more.
#[derive(Clone, Debug)]
struct NodeAcks {
    window_ms: u64,
    now: Acks,
    before: Acks,
}

impl NodeAcks {
    fn new(lanes: usize) -> Self {
        Self { window_ms: 0, now: Acks::none(lanes), before: Acks::none(lanes) }
    }

    fn grow(&mut self, lanes: usize) {
        self.now.lanes.grow(lanes);
        self.before.lanes.grow(lanes);
    }

    fn forget(&mut self, lanes: Range<u32>) {
        for lane in lanes {
            self.now.lanes.remove(lane);
            self.before.lanes.remove(lane);
        }
    }

    #[inline]
    fn note(&mut self, lane: u32, lut: Lut, acked: Tick) {
        if self.now.lanes.is_empty() {
            self.now.first = acked;
        }
        self.now.last = acked;
        self.now.lanes.insert(lane);
        self.now.lowest = self.now.lowest.min(lut);
    }

    /// The node was alive at `alive`: what it acknowledged a window before that is durable.
    #[inline]
    fn survived(&mut self, alive: Tick) {
        if !self.before.lanes.is_empty() && self.before.last.plus_ms(self.window_ms) <= alive {
            self.before.clear();
        }
        if self.before.lanes.is_empty()
            && !self.now.lanes.is_empty()
            && self.now.first.plus_ms(self.window_ms) <= alive
        {
            std::mem::swap(&mut self.now, &mut self.before);
        }
    }

    /// The lowest LUT of the lane that may be forgotten.
    fn at_risk(&self, lane: u32) -> Lut {
        let of = |acks: &Acks| if acks.lanes.contains(lane) { acks.lowest } else { Lut::MAX };
        of(&self.now).min(of(&self.before))
    }
}

/// The same of all nodes of a destination.
#[derive(Debug, Default)]
pub(super) struct AllAcks(Vec<NodeAcks>);

impl AllAcks {
    /// Makes room for `lanes` lanes.
    pub(super) fn grow(&mut self, lanes: usize) {
        self.0.iter_mut().for_each(|node| node.grow(lanes));
    }

    /// These lanes ship nothing more.
    pub(super) fn forget(&mut self, lanes: Range<u32>) {
        self.0.iter_mut().for_each(|node| node.forget(lanes.clone()));
    }
}

impl DcShard {
    /// Takes what a node's hello told: how far back a crash may cost it acknowledged changes, in
    /// ms; 0 for none.
    pub fn node_window(&mut self, node: u16, window_ms: u64) {
        let lanes = self.lanes.len();
        if self.acks.0.len() <= usize::from(node) {
            self.acks.0.resize_with(usize::from(node) + 1, || NodeAcks::new(lanes));
        }
        let acks = &mut self.acks.0[usize::from(node)];
        // A window that shrinks says nothing about what was acknowledged under the wider one.
        acks.window_ms = if acks.now.lanes.is_empty() && acks.before.lanes.is_empty() {
            window_ms
        } else {
            acks.window_ms.max(window_ms)
        };
    }

    /// A node answered, as the same process as before, something it was asked at `asked`.
    pub fn node_answered(&mut self, node: u16, asked: Tick) {
        if let Some(acks) = self.acks.0.get_mut(usize::from(node)) {
            acks.survived(asked);
        }
    }

    /// A node restarted, or left the cluster and with it its index: what it may have forgotten is
    /// recovered, and the LSTs of those lanes move back to it.
    pub fn node_restarted(&mut self, node: u16) {
        let Some(acks) = self.acks.0.get(usize::from(node)) else { return };
        if planted(Mutation::DestinationRestartBelieved) {
            return;
        }
        let lost: Vec<(u32, Lut)> = acks
            .now
            .lanes
            .iter()
            .chain(acks.before.lanes.iter())
            .map(|lane| (lane, acks.at_risk(lane)))
            .collect();
        for (lane, lut) in lost {
            let durable = self.lanes[lane].mark.get();
            self.move_back(lane, lut.max(durable));
        }
        let acks = &mut self.acks.0[usize::from(node)];
        acks.now.clear();
        acks.before.clear();
        acks.window_ms = 0;
        self.peer.offer_durable_deletes();
    }

    /// Notes an acknowledged slot. It does not follow that the node still has what it acknowledged
    /// before: this answer may come from the node's next process, since answers are taken before
    /// the notice of a restart.
    #[inline]
    pub(super) fn note_ack(&mut self, slot: u32, acked: Tick) {
        let place = self.slots.at(slot);
        if let Some(acks) = self.acks.0.get_mut(usize::from(place.node))
            && acks.window_ms > 0
        {
            acks.note(place.lane, place.lut.get(), acked);
        }
    }

    /// The lowest LUT of a lane that a restart of some node could take back.
    pub(super) fn at_risk(&self, lane: u32) -> Lut {
        self.acks.0.iter().map(|acks| acks.at_risk(lane)).min().unwrap_or(Lut::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Desk, digest};

    /// Ships one change of a partition at once.
    fn ship(desk: &mut Desk, partition: u16, n: u32) {
        desk.write(digest(partition, n));
        assert_eq!(desk.ship_all().len(), 1);
    }

    #[test]
    fn a_mark_stays_behind_what_the_destination_may_forget() {
        let mut desk = Desk::plain();
        desk.dc.node_window(0, 1000);
        ship(&mut desk, 1, 1);
        desk.wait(500);
        assert_eq!((desk.lst(1), desk.mark(1), desk.mark(2)), (500, 0, 500));
        let asked = desk.now().tick;
        desk.wait(5000);
        desk.dc.node_answered(0, asked);
        assert_eq!(desk.mark(1), 0, "time alone makes nothing durable");
        let asked = desk.now().tick;
        desk.dc.node_answered(0, asked);
        desk.dc.node_answered(0, asked);
        assert_eq!(desk.mark(1), 5500, "an answer a window later does");
    }

    #[test]
    fn a_restarted_node_gets_back_what_it_may_have_forgotten() {
        let mut desk = Desk::plain();
        desk.dc.node_window(0, 1000);
        for n in 0..30 {
            ship(&mut desk, 1, n);
            desk.wait(100);
            let asked = desk.now().tick;
            desk.dc.node_answered(0, asked);
        }
        ship(&mut desk, 2, 1);
        assert_eq!(desk.lst(1), 3000);
        desk.dc.node_restarted(0);
        let from = desk.lst(1);
        assert!((1000..=2000).contains(&from), "{from}");
        assert!(desk.lst(2) >= from);
        assert_eq!(desk.lst(3), 3000, "a lane without recent changes");
        let walk = desk.begin_walk().expect("lanes to recover");
        assert_eq!(walk.lanes.len(), 2);
        desk.walk_all(walk.walk);
        assert!((11..=21).contains(&desk.ship_all().len()));
        assert_eq!(desk.lst(1), 3000);
    }

    #[test]
    fn an_answer_of_the_next_process_vouches_for_nothing_of_the_former() {
        let mut desk = Desk::plain();
        desk.dc.node_window(0, 1000);
        desk.wait(100);
        ship(&mut desk, 1, 1);
        // The process dies. What was dispatched later leaves on the connection to the next one, and
        // its answer is there before anybody knows of the restart.
        desk.wait(1100);
        ship(&mut desk, 2, 1);
        desk.dc.node_restarted(0);
        let walk = desk.wait(100).begin_walk().expect("lanes to recover");
        let lanes: Vec<usize> = walk.lanes.iter().map(|(lane, _)| lane.index()).collect();
        assert_eq!(lanes, [1, 2]);
    }

    #[test]
    fn a_destination_that_commits_forgets_nothing() {
        let mut desk = Desk::plain();
        desk.dc.node_window(0, 0);
        ship(&mut desk, 1, 1);
        desk.wait(10);
        assert_eq!(desk.mark(1), 10);
        desk.dc.node_restarted(0);
        assert!(!desk.dc.has_gaps());
    }

    #[test]
    fn a_mark_never_moves_back_for_a_neighbour() {
        let mut desk = Desk::plain();
        desk.dc.node_window(0, 1000);
        desk.write(digest(1, 1));
        let old = desk.dispatch();
        desk.wait(100);
        assert_eq!(desk.mark(2), 100);
        ship(&mut desk, 2, 1);
        desk.ok(old[0].slot);
        assert_eq!(desk.mark(2), 100);
        desk.dc.node_restarted(0);
        assert_eq!((desk.lst(1), desk.lst(2)), (0, 100));
    }
}
