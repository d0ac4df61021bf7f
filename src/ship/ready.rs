//! Changes of one namespace whose wait is over: retries, hot keys, grace re-ships.
//!
//! Those that met a full node, or none, are set aside as that node's: they cost nothing and hide
//! nobody until it has room again.

use super::dc::DcShard;
use super::rounds::{Lap, Stop};
use super::schedule::{Room, Routes};
use super::shares::Kind;
use super::slots::{Slots, State, flag};
use super::stats::LimitedBy;
use super::timers::List;
use crate::model::Tick;

/// How long what has no destination node is left alone, unless the map changes.
pub(super) const NO_NODE_MS: u64 = 100;
/// Changes set aside in one turn; there may be as many as the DC has slots.
const SET_ASIDE_MAX: u32 = 256;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Ready {
    /// Not known where they go.
    fresh: List,
    /// Slots set aside because their node was full, by index of the node.
    nodes: Vec<List>,
    /// The node whose slots are tried next.
    next_node: usize,
    /// Slots for whose partition no node is known.
    stranded: List,
    /// When one of these is tried again.
    stranded_until: Tick,
}

impl Ready {
    pub(super) const fn new() -> Self {
        Self {
            fresh: List::EMPTY,
            nodes: Vec::new(),
            next_node: 0,
            stranded: List::EMPTY,
            stranded_until: Tick(0),
        }
    }

    #[inline]
    pub(super) fn push(&mut self, slot: u32, slots: &mut Slots) {
        self.fresh.push(slot, slots);
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.fresh.is_empty()
            && self.stranded.is_empty()
            && self.nodes.iter().all(|waiting| waiting.is_empty())
    }

    /// The next to try, and whether it had no node before. Who waited for a node goes first.
    fn pop(
        &mut self,
        now: Tick,
        slots: &Slots,
        is_full: impl Fn(u16) -> bool,
    ) -> Option<(u32, bool)> {
        if self.stranded_until <= now
            && let Some(slot) = self.stranded.pop(slots)
        {
            return Some((slot, true));
        }
        for _ in 0..self.nodes.len() {
            let node = self.next_node % self.nodes.len();
            self.next_node = node + 1;
            if !self.nodes[node].is_empty() && !is_full(node as u16) {
                return self.nodes[node].pop(slots).map(|slot| (slot, false));
            }
        }
        self.fresh.pop(slots).map(|slot| (slot, false))
    }

    /// Sets one aside until a node has room.
    fn await_room(&mut self, node: u16, slot: u32, slots: &mut Slots) {
        let index = usize::from(node);
        if self.nodes.len() <= index {
            self.nodes.resize_with(index + 1, || List::EMPTY);
        }
        self.nodes[index].push(slot, slots);
    }

    /// Sets one aside that has no node.
    fn strand(&mut self, slot: u32, now: Tick, slots: &mut Slots) {
        if self.stranded_until <= now {
            self.stranded_until = now.plus_ms(NO_NODE_MS);
        }
        self.stranded.push(slot, slots);
    }

    /// A change that had no node has one now, so the others may have one, too.
    fn rescue(&mut self, slots: &mut Slots) {
        self.fresh.append(&mut self.stranded, slots);
    }

    /// All may go elsewhere than they did.
    pub(super) fn map_changed(&mut self, slots: &mut Slots) {
        self.rescue(slots);
        for waiting in &mut self.nodes {
            self.fresh.append(waiting, slots);
        }
    }

    /// Moves all to `out`.
    pub(super) fn drain(&mut self, slots: &mut Slots, out: &mut List) {
        self.map_changed(slots);
        out.append(&mut self.fresh, slots);
    }

    /// When what was set aside is worth another look, if no node gets room before.
    fn next_due(&self) -> Tick {
        if self.stranded.is_empty() { Tick::NEVER } else { self.stranded_until }
    }
}

impl DcShard {
    /// Lets a waiting slot go as soon as it may.
    #[inline]
    pub(super) fn make_ready(&mut self, slot: u32) {
        let block = self.block_of(self.slots.at(slot).lane);
        self.laps[block].ready.push(slot, &mut self.slots);
    }

    /// Ships up to `most` changes of a namespace whose wait is over.
    pub(super) fn ship_ready<R: Routes>(
        &mut self,
        block: u32,
        most: u32,
        lap: &mut Lap<'_, R>,
    ) -> Stop {
        let mut left = most;
        let mut looks = SET_ASIDE_MAX;
        while left > 0 {
            if self.laps[block].ready.is_empty() {
                return Stop::Dry;
            }
            if !self.can_go_on(lap) {
                return Stop::Halt;
            }
            if !self.may_ship(block, lap) {
                return Stop::Barred;
            }
            let ready = &mut self.laps[block].ready;
            let full = |node| lap.routes.is_full(node);
            let Some((slot, was_stranded)) = ready.pop(lap.now.tick, &self.slots, full) else {
                let next_due = ready.next_due();
                lap.stopped(LimitedBy::Destination, next_due);
                return Stop::Dry;
            };
            if self.slots.at(slot).state() == State::Grace && !self.resume_grace(slot) {
                // Its slot is free for others, who were maybe passed over for want of one.
                left -= 1;
                if !lap.spend_on_merge() {
                    return Stop::Halt;
                }
                continue;
            }
            let lane = self.slots.at(slot).lane;
            let room = lap.routes.room(self.namespace_of(lane), self.partition_of(lane));
            let ready = &mut self.laps[block].ready;
            if was_stranded && room != Room::NoNode {
                ready.rescue(&mut self.slots);
            }
            match room {
                Room::Yes(node) => {
                    left -= 1;
                    self.ship_waiting(slot, node, lap);
                    continue;
                }
                Room::Full(node) => ready.await_room(node, slot, &mut self.slots),
                Room::NoNode => {
                    ready.strand(slot, lap.now.tick, &mut self.slots);
                    self.ns_of(lane).counters.retry_no_node += u64::from(!was_stranded);
                }
            }
            looks -= 1;
            if looks == 0 {
                lap.stopped(LimitedBy::Reads, lap.now.tick);
                return Stop::Dry;
            }
        }
        Stop::Spent
    }

    fn ship_waiting<R: Routes>(&mut self, slot: u32, node: u16, lap: &mut Lap<'_, R>) {
        self.set_state(slot, State::Dispatched);
        self.launch(slot, node, lap);
        let place = self.slots.at(slot);
        let (lane, is_walked) = (place.lane, place.has(flag::WALKED));
        let turns = self.turns_of(lane);
        turns.shares.count(u32::from(!is_walked), u32::from(is_walked));
        turns.shares.serve(node, Kind::Ready);
        // Its lane may have been kept to retries only.
        turns.wake();
    }
}
