//! What is known of the destination as a whole, and how long nothing ships to it.

use super::dc::DcShard;
use super::mutation::{Mutation, planted};
use crate::model::{SrcId, Tick};

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Peer {
    /// `src-id` of its cluster, once its hello told it.
    src_id: SrcId,
    /// Nothing ships before this.
    held_until: Tick,
    /// Nothing ships before this even when the destination has the fence: what is feared came from
    /// another origin, which the fence does not end.
    held_anyway_until: Tick,
    /// It refuses durable deletes.
    plain_deletes: bool,
}

impl Peer {
    /// Whether durable deletes are sent as plain ones.
    #[inline]
    pub(super) const fn takes_plain_deletes(&self) -> bool {
        self.plain_deletes
    }

    /// It has refused a durable delete.
    pub(super) const fn refuse_durable_deletes(&mut self) {
        self.plain_deletes = true;
    }

    /// It may take durable deletes: it has changed.
    pub(super) const fn offer_durable_deletes(&mut self) {
        self.plain_deletes = false;
    }
}

impl DcShard {
    /// Lets nothing ship before `until`, unless the destination turns out to have the fence. A
    /// process that starts again, or a DC made again, waits out what its predecessor left on dead
    /// connections: [`grace_ms`](super::Limits::grace_ms) from then on. Comes right after the DC is made.
    pub fn hold(&mut self, until: Tick) {
        if !planted(Mutation::NoHold) {
            self.peer.held_until = self.peer.held_until.max(until);
        }
    }

    /// Lets nothing ship before `until`, fence or not: this origin is new, and a former one, which
    /// the destination does not know for the same, may have left something on its way.
    pub fn hold_anyway(&mut self, until: Tick) {
        self.peer.held_anyway_until = self.peer.held_anyway_until.max(until);
        self.hold(until);
    }

    /// When a hold ends; in the past when there is none.
    pub fn held_until(&self) -> Tick {
        self.peer.held_until
    }

    /// Takes what the destination's hello told: its cluster's `src-id`. Records that came from
    /// there are not shipped back. Who says hello has the fence, so that nothing of this origin need
    /// be waited out.
    pub fn set_destination(&mut self, src_id: SrcId) {
        self.peer.src_id = src_id;
        self.peer.held_until = self.peer.held_until.min(self.peer.held_anyway_until);
        self.remains.fear_nothing();
    }

    /// The destination's `src-id`, as far as it was told.
    pub fn destination(&self) -> SrcId {
        self.peer.src_id
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Desk, digest};
    use crate::model::SrcId;

    #[test]
    fn a_hold_ends_with_its_time_or_with_a_hello() {
        let held = || {
            let mut desk = Desk::plain();
            let until = desk.now().tick.plus_ms(15_000);
            desk.dc.hold(until);
            desk.write(digest(1, 1));
            assert!(desk.dispatch().is_empty());
            desk
        };
        let mut desk = held();
        assert!(desk.wait(14_999).dispatch().is_empty());
        assert_eq!(desk.wait(1).dispatch().len(), 1);
        let mut desk = held();
        desk.dc.set_destination(SrcId(2));
        assert_eq!(desk.dispatch().len(), 1);
    }

    #[test]
    fn a_new_origin_waits_out_what_a_former_one_left_though_it_is_greeted() {
        let mut desk = Desk::plain();
        desk.dc.hold_anyway(desk.now().tick.plus_ms(15_000));
        desk.write(digest(1, 1));
        desk.dc.set_destination(SrcId(2));
        assert!(desk.wait(14_999).dispatch().is_empty());
        assert_eq!(desk.wait(1).dispatch().len(), 1);
    }
}
