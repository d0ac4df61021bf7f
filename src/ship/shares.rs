//! What each kind of change of a namespace gets of what ships: changes whose wait is over, queued
//! ones, and what walks have found.
//!
//! While all nodes have room, shares are of the namespace: ready and queued changes take turns, a
//! piece each, and every fourth that ships is one that a walk found. A node with few places at a
//! time is given away before all kinds had their pieces, so there the kinds go first in turns.

/// Live changes shipped for each walked one while both wait: recovery gets a quarter.
const LIVE_PER_WALKED: u32 = 3;
/// Walked changes that are owed a turn, at most, however many live ones went before them.
const CREDIT_MAX: u32 = 64;
/// Changes that ship in one piece while others wait for their share.
const PIECE: u32 = 48;

/// Where a change comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A slot: its wait is over.
    Ready,
    /// The live queue of its lane.
    Live,
    /// A walk has found it.
    Walked,
}

/// Who goes first while all nodes have room.
const ORDER: [Kind; 3] = [Kind::Walked, Kind::Ready, Kind::Live];

/// The kinds at one node.
#[derive(Clone, Copy, Debug)]
struct AtNode {
    /// The one that it served longest ago is the first.
    order: [Kind; 3],
    /// When it was the one to decide who goes first.
    led: u64,
}

/// What each kind of change of a namespace has shipped of its share.
#[derive(Clone, Debug)]
pub(super) struct Shares {
    /// Walked changes that may go before others.
    credit: u32,
    /// Others shipped since the last credit.
    earned: u32,
    /// What is left of the pieces of the ready changes and of the live ones.
    pub(super) ready_left: u32,
    pub(super) live_left: u32,
    /// By index of the node.
    nodes: Vec<AtNode>,
    /// How often a node decided who goes first.
    led: u64,
}

impl Shares {
    pub(super) const fn new() -> Self {
        let (ready_left, live_left) = (PIECE, PIECE);
        Self { credit: 0, earned: 0, ready_left, live_left, nodes: Vec::new(), led: 0 }
    }

    /// Counts what has shipped.
    #[inline]
    pub(super) fn count(&mut self, live: u32, walked: u32) {
        self.earned += live;
        self.credit = (self.credit + self.earned / LIVE_PER_WALKED).min(CREDIT_MAX);
        self.earned %= LIVE_PER_WALKED;
        self.credit = self.credit.saturating_sub(walked);
    }

    /// Begins new pieces: each kind has used its own up, or has nothing to ship.
    pub(super) const fn renew(&mut self) {
        (self.ready_left, self.live_left) = (PIECE, PIECE);
    }

    /// Walked changes that may go now.
    pub(super) const fn owed(&self) -> u32 {
        self.credit
    }

    /// Nothing walked waits: it has no claim on what ships meanwhile.
    pub(super) const fn forget_walked(&mut self) {
        (self.credit, self.earned) = (0, 0);
    }

    /// A change of a kind ships to a node.
    #[inline]
    pub(super) fn serve(&mut self, node: u16, kind: Kind) {
        let at = usize::from(node);
        if self.nodes.len() <= at {
            self.nodes.resize(at + 1, AtNode { order: ORDER, led: 0 });
        }
        let order = &mut self.nodes[at].order;
        if order[2] != kind {
            let from = usize::from(order[1] == kind);
            order[from..].rotate_left(1);
        }
    }

    /// Who goes first, in which order, where these nodes were full and have room again. Of several
    /// the one decides that did so longest ago.
    pub(super) fn order(&mut self, released: impl Iterator<Item = u16>) -> [Kind; 3] {
        let known = released.map(usize::from).filter(|&node| node < self.nodes.len());
        let Some(leads) = known.min_by_key(|&node| self.nodes[node].led) else { return ORDER };
        self.led += 1;
        self.nodes[leads].led = self.led;
        self.nodes[leads].order
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Desk, NS, digest};
    use super::*;
    use crate::model::{Digest, Lut, PartitionId};
    use crate::wire::ResultCode;

    #[test]
    fn hot_keys_leave_queued_changes_half_of_a_slow_node() {
        let mut desk = Desk::plain();
        let hot: Vec<Digest> = (0..200).map(|n| digest(0, n)).collect();
        hot.iter().for_each(|&key| _ = desk.write(key));
        desk.ship_all();
        desk.wait(1);
        hot.iter().for_each(|&key| _ = desk.write(key));
        (0..100).for_each(|n| _ = desk.write(digest(1, 1000 + n)));
        let mut queued = 0;
        for ms in 0..500 {
            if ms % 20 == 0 {
                hot.iter().for_each(|&key| _ = desk.write(key));
            }
            for dispatch in desk.wait(1).send_to([u32::from(ms >= 200)], 1000) {
                queued += usize::from(dispatch.partition.index() == 1);
                desk.ok(dispatch.slot);
            }
        }
        assert_eq!(queued, 100);
    }

    #[test]
    fn retries_leave_queued_changes_half_of_a_slow_node() {
        let mut desk = Desk::plain();
        (0..400).for_each(|n| _ = desk.write(digest(n as u16 % 40, n)));
        for dispatch in desk.dispatch() {
            desk.send(&dispatch);
            desk.reply(dispatch.slot, ResultCode::DEVICE_OVERLOAD);
        }
        (0..20).for_each(|n| _ = desk.write(digest(41, 1000 + n)));
        let mut queued = 0;
        for _ in 0..100 {
            for dispatch in desk.wait(5).send_to([1], 1000) {
                let is_queued = dispatch.partition.index() == 41;
                queued += usize::from(is_queued);
                let code = if is_queued { ResultCode::OK } else { ResultCode::DEVICE_OVERLOAD };
                desk.reply(dispatch.slot, code);
            }
        }
        assert_eq!(queued, 20);
    }

    #[test]
    fn what_ships_to_one_node_earns_finds_no_more_than_half_of_another() {
        let mut desk = Desk::plain();
        let first = desk.now().wall;
        (0..2000).for_each(|n| _ = desk.write(digest(0, n)));
        desk.ship_all();
        desk.dc.missed(NS, PartitionId::new(0), first, Lut::ZERO);
        let walk = desk.wait(1000).begin_walk().expect("a lane").walk;
        desk.walk_all(walk);
        let mut of_slow = [0; 2];
        for round in 0..1000 {
            desk.write(digest(0, 10_000 + round));
            (0..10).for_each(|n| _ = desk.write(digest(1, 20_000 + 10 * round + n)));
            for dispatch in desk.wait(1).send_to([1, 1000], 1000) {
                if dispatch.partition.index() == 0 {
                    of_slow[usize::from(desk.dc.is_find(dispatch.slot))] += 1;
                }
                desk.ok(dispatch.slot);
            }
        }
        assert!(of_slow.iter().all(|&count| count >= 490), "live and walked {of_slow:?}");
    }

    #[test]
    fn at_a_node_whom_it_served_longest_ago_goes_first() {
        let mut shares = Shares::new();
        assert_eq!(shares.order([3].into_iter()), ORDER, "nothing is known of it");
        shares.serve(3, Kind::Ready);
        shares.serve(3, Kind::Ready);
        let order = [Kind::Walked, Kind::Live, Kind::Ready];
        assert_eq!(shares.order([3].into_iter()), order);
        shares.serve(3, Kind::Walked);
        assert_eq!(shares.order([3].into_iter()), [Kind::Live, Kind::Ready, Kind::Walked]);
        assert_eq!(shares.order(std::iter::empty()), ORDER, "all have room");
    }

    #[test]
    fn nodes_that_have_room_together_decide_in_turns() {
        let mut shares = Shares::new();
        shares.serve(0, Kind::Ready);
        shares.serve(1, Kind::Live);
        let last: Vec<Kind> = (0..4).map(|_| shares.order([0, 1].into_iter())[2]).collect();
        assert_eq!(last, [Kind::Ready, Kind::Live, Kind::Ready, Kind::Live]);
    }
}
