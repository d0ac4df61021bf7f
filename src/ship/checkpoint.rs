//! The low-water mark of each lane: LST, and the mark that is safe to persist.
//!
//! An LST is the lowest LUT of everything not settled in its lane: queued, found by a walk, on its
//! way, waiting, or missed and left to recovery; or the version clock when there is nothing. It is
//! found by a sweep over the slots in pieces, and held between sweeps: that costs less than
//! keeping changes in order while they fly.

use super::bitmap::Bitmap;
use super::dc::DcShard;
use super::mutation::{Mutation, planted};
use super::queue::PackedLut;
use super::slots::{State, flag};
use crate::model::{Lut, NamespaceId, PartitionId};

/// Progress of a sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SweepStep {
    /// Call again.
    More,
    /// LSTs and marks are those of now.
    Done,
}

/// A running sweep.
#[derive(Clone, Debug, Default)]
pub(super) struct Sweep {
    running: bool,
    /// The next slot to look at, from 0.
    at: u32,
    /// By block: the oldest write in a slot that the destination does not have yet, live and under
    /// recovery. One that merged is settled, and still waits with the newer one. What only waits to
    /// be shipped once more holds the LST, but is no lag.
    missing: Vec<[PackedLut; 2]>,
    /// Lanes in which something was not settled when the last sweep ended.
    owed: Bitmap,
}

impl Sweep {
    /// Makes room for `lanes` lanes.
    pub(super) fn grow(&mut self, lanes: usize) {
        self.owed.grow(lanes);
    }

    /// A lane ships nothing more.
    pub(super) fn forget(&mut self, lane: u32) {
        self.owed.remove(lane);
    }
}

impl DcShard {
    /// Looks at up to `slots_max` slots, starting a sweep if none is running. The last step moves
    /// LSTs and marks. `clock` is a namespace's version clock: no change submitted from now on has
    /// a lower LUT.
    pub fn sweep(&mut self, slots_max: u32, clock: impl Fn(NamespaceId) -> Lut) -> SweepStep {
        if !self.sweep.running {
            (self.sweep.running, self.sweep.at) = (true, 0);
            self.sweep.missing.clear();
            self.sweep.missing.resize(self.spaces.blocks() as usize, [PackedLut::MAX; 2]);
            for lane in self.lanes.iter_mut() {
                lane.sweep = PackedLut::MAX;
            }
        }
        let end = self.slots.high().min(self.sweep.at.saturating_add(slots_max));
        for slot in self.sweep.at..end {
            let slot = *self.slots.at(slot);
            let passed = planted(Mutation::LstPassesInFlight) && slot.state() == State::Dispatched;
            if slot.state() != State::Free && !slot.has(flag::DISCARDED) && !passed {
                let lowest = slot.lowest();
                let place = &mut self.lanes[slot.lane];
                place.sweep.lower_to(lowest);
                if slot.state() != State::Grace {
                    let is_recovered = place.has_gap() || place.is_walking();
                    let block = self.block_of(slot.lane) as usize;
                    let missing = self.sweep.missing.get_mut(block);
                    let oldest = slot.oldest().min(lowest);
                    missing
                        .into_iter()
                        .for_each(|of| of[usize::from(is_recovered)].lower_to(oldest));
                }
            }
        }
        self.sweep.at = end;
        if end < self.slots.high() {
            return SweepStep::More;
        }
        self.sweep.running = false;
        for block in 0..self.spaces.blocks() {
            if let Some(namespace) = self.spaces.in_block(block) {
                self.move_lsts(namespace, block, clock(namespace));
            }
        }
        SweepStep::Done
    }

    /// Tells a running sweep of a LUT that a slot takes on after the sweep may have passed it.
    #[inline]
    pub(super) fn note_floor(&mut self, lane: u32, lut: Lut) {
        if self.sweep.running && !planted(Mutation::LstPassesInFlight) {
            self.lanes[lane].sweep.lower_to(lut);
        }
    }

    fn move_lsts(&mut self, namespace: NamespaceId, block: u32, clock: Lut) {
        let missing = self.sweep.missing.get(block as usize);
        let missing = missing.map_or([None; 2], |of| of.map(found));
        let [mut live, mut recovery] = missing;
        for lane in self.lanes_of_block(block) {
            let queued = self.lowest_queued(lane);
            let swept = found(self.lanes[lane].sweep);
            let owed = swept.into_iter().chain(queued).min();
            if owed.is_some() {
                self.sweep.owed.insert(lane)
            } else {
                self.sweep.owed.remove(lane)
            }
            let lowest = owed.unwrap_or(clock).min(clock);
            let at_risk = if planted(Mutation::MarkIsLst) { Lut::MAX } else { self.at_risk(lane) };
            let place = &mut self.lanes[lane];
            let lst = lowest.max(place.lst.get());
            place.lst = PackedLut::of(lst);
            place.mark = PackedLut::of(lst.min(at_risk).max(place.mark.get()));
            let worst =
                if place.has_gap() || place.is_walking() { &mut recovery } else { &mut live };
            let missed = queued.unwrap_or(clock).min(clock);
            *worst = Some(worst.map_or(missed, |worst| worst.min(missed)));
        }
        if let Some(ns) = self.attached_mut(namespace) {
            ns.averages.note_lag(clock, live, recovery);
        }
    }

    /// The lowest LUT not settled in a lane, slots left out.
    fn lowest_queued(&self, lane: u32) -> Option<Lut> {
        let place = &self.lanes[lane];
        let (queue, pool) = self.lanes.queue(lane);
        let queued = queue.lowest(pool);
        let walked = self.walks.lowest(self.block_of(lane), place.walking());
        [place.has_gap().then(|| place.gap()), queued, walked].into_iter().flatten().min()
    }

    /// The last ship time of a lane, as of the last sweep: every change below it is settled.
    pub fn lst(&self, namespace: NamespaceId, partition: PartitionId) -> Option<Lut> {
        self.lane_of(namespace, partition).map(|lane| self.lanes[lane].lst.get())
    }

    /// The position of a lane that is safe to persist and to drop tombstones below, as of the last
    /// sweep: its LST, less what a restart of the destination could take back.
    pub fn mark(&self, namespace: NamespaceId, partition: PartitionId) -> Option<Lut> {
        self.lane_of(namespace, partition).map(|lane| self.lanes[lane].mark.get())
    }

    /// Partitions of a namespace in which something is not settled, as of the last sweep.
    pub fn owed(&self, namespace: NamespaceId) -> impl Iterator<Item = PartitionId> + '_ {
        let lanes = self.attached(namespace).map(|ns| self.lanes_of_block(ns.block));
        let owed = lanes.into_iter().flatten().filter(|&lane| self.sweep.owed.contains(lane));
        owed.map(|lane| self.partition_of(lane))
    }

    /// The marks of all lanes of a namespace.
    pub fn marks(&self, namespace: NamespaceId) -> impl Iterator<Item = (PartitionId, Lut)> + '_ {
        let block = self.attached(namespace).map(|ns| ns.block);
        block.into_iter().flat_map(|block| {
            self.lanes_of_block(block)
                .map(|lane| (self.partition_of(lane), self.lanes[lane].mark.get()))
        })
    }
}

fn found(lut: PackedLut) -> Option<Lut> {
    (lut != PackedLut::MAX).then(|| lut.get())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Desk, NS, digest};
    use super::*;
    use crate::ship::Outcome;
    use crate::wire::ResultCode;

    #[test]
    fn an_lst_waits_for_the_oldest_whatever_order_answers_come_in() {
        let mut desk = Desk::plain();
        for n in 0..5 {
            desk.wait(10).write(digest(1, n));
        }
        let out = desk.dispatch_idle(3).0;
        assert_eq!(desk.lst(1), 10);
        desk.ok(out[2].slot);
        desk.ok(out[1].slot);
        assert_eq!(desk.lst(1), 10);
        desk.reply(out[0].slot, ResultCode::TIMEOUT);
        assert_eq!(desk.lst(1), 10);
        let retry = desk.wait(10).dispatch_idle(1).0;
        desk.ok(retry[0].slot);
        assert_eq!(desk.lst(1), 40);
        desk.ship_all();
        assert_eq!(desk.lst(1), 60, "an idle lane takes the clock");
        assert_eq!(desk.wait(10).lst(2), 70);
    }

    #[test]
    fn a_change_that_comes_late_from_a_ticket_holds_the_lst() {
        let mut desk = Desk::plain();
        let slow = desk.wait(10).change(digest(1, 1));
        desk.wait(10).write(digest(1, 2));
        desk.wait(10).submit(&slow);
        let clock = slow.version.lut();
        while desk.dc.sweep(1, |_| clock) == SweepStep::More {}
        let out = desk.dispatch();
        assert_eq!(desk.lst(1), 10);
        desk.ok(out[0].slot);
        assert_eq!(desk.lst(1), 10);
        desk.ok(out[1].slot);
        assert_eq!(desk.lst(1), 30);
    }

    #[test]
    fn a_lane_is_owed_while_something_of_it_waits_wherever_that_is() {
        let mut desk = Desk::plain();
        let owed = |desk: &mut Desk| -> Vec<usize> {
            desk.sweep();
            desk.dc.owed(NS).map(PartitionId::index).collect()
        };
        assert!(owed(&mut desk).is_empty());
        (1..=3).for_each(|partition| _ = desk.write(digest(partition, 1)));
        assert_eq!(owed(&mut desk), [1, 2, 3], "queued");
        let out = desk.dispatch();
        assert_eq!(owed(&mut desk), [1, 2, 3], "on its way");
        let at = |partition| out.iter().find(|one| one.partition.index() == partition).unwrap();
        desk.ok(at(1).slot);
        desk.reply(at(2).slot, ResultCode::KEY_BUSY);
        desk.ok(at(3).slot);
        assert_eq!(owed(&mut desk), [2], "tried again");
        desk.dc.move_back(5, Lut::ZERO);
        assert_eq!(owed(&mut desk), [2, 5], "left to recovery");
        desk.detach();
        assert!(owed(&mut desk).is_empty());
    }

    #[test]
    fn what_is_only_to_be_shipped_once_more_holds_the_lst_but_is_no_lag() {
        let mut desk = Desk::plain();
        desk.wait(10).write(digest(1, 1));
        let out = desk.dispatch();
        desk.settle(out[0].slot, Outcome::Unanswered { fenced: false });
        desk.wait(100);
        assert_eq!((desk.lst(1), desk.dc.dc_stats().lag_ms), (10, 100), "the answer is missing");
        let again = desk.dispatch();
        desk.ok(again[0].slot);
        desk.wait(1000);
        assert_eq!((desk.lst(1), desk.dc.dc_stats().lag_ms), (10, 0));
    }

    /// One key written every 50 ms, of which nothing arrives, for whatever reason.
    #[test]
    fn the_lag_of_a_hot_key_is_that_of_its_first_write_that_has_not_shipped() {
        type Answer = fn(&mut Desk, u32);
        let check = |answer: Answer| {
            let mut desk = Desk::plain();
            let key = digest(1, 1);
            for _ in 0..200 {
                desk.wait(40).write(key);
                for dispatch in desk.dispatch() {
                    desk.send(&dispatch);
                    // Some come meanwhile.
                    desk.wait(3).write(key);
                    desk.wait(7);
                    answer(&mut desk, dispatch.slot);
                }
            }
            desk.sweep();
            assert_eq!(desk.dc.dc_stats().lag_ms, desk.ms - 40);
            assert!(desk.lst(1) + 100 > desk.ms, "what is merged is settled");
            desk.wait(10_000).ship_all();
            desk.sweep();
            assert_eq!(desk.dc.dc_stats().lag_ms, 0);
        };
        check(|desk, slot| _ = desk.reply(slot, ResultCode::KEY_BUSY));
        check(|desk, slot| _ = desk.reply(slot, ResultCode::OUT_OF_SPACE));
        check(|desk, slot| _ = desk.settle(slot, Outcome::Unsent));
        check(|desk, slot| _ = desk.settle(slot, Outcome::Unanswered { fenced: true }));
        check(|desk, slot| _ = desk.settle(slot, Outcome::Unanswered { fenced: false }));
    }

    #[test]
    fn the_lag_of_a_key_that_ships_slowly_is_no_less_than_what_a_reader_sees() {
        let mut desk = Desk::plain();
        let key = digest(1, 1);
        desk.wait(10).write(key);
        for round in 0..10 {
            let out = desk.dispatch();
            desk.send(&out[0]);
            for _ in 0..160 {
                desk.wait(50).write(key);
            }
            desk.sweep();
            let lag_ms = desk.dc.dc_stats().lag_ms;
            assert!((8000..=16_200).contains(&lag_ms), "{lag_ms}");
            assert!(round == 0 || lag_ms > 15_900, "{lag_ms}");
            desk.ok(out[0].slot);
            desk.sweep();
            let lag_ms = desk.dc.dc_stats().lag_ms;
            assert!((7900..=8000).contains(&lag_ms), "{lag_ms}");
            desk.wait(100);
        }
    }

    #[test]
    fn the_lag_of_a_recovery_from_the_beginning_is_that_of_the_oldest_record() {
        let mut desk = Desk::plain();
        desk.wait(1000).write(digest(1, 1));
        let oldest = desk.now().wall;
        desk.wait(1000).ship_all();
        let lags = |desk: &mut Desk| {
            desk.sweep();
            let stats = desk.dc.dc_stats();
            (stats.lag_ms, stats.recovery_lag_ms)
        };
        desk.dc.rewind(NS, Lut::ZERO);
        desk.dc.expect(NS, 1, oldest);
        assert_eq!(lags(desk.wait(4000)), (0, 5000));
        let walk = desk.begin_walk().expect("lanes to recover");
        assert_eq!(lags(desk.wait(1000)), (0, 6000), "the walk has given nothing yet");
        desk.walk_all(walk.walk);
        desk.ship_all();
        assert_eq!(lags(&mut desk), (0, 0));
    }

    #[test]
    fn changes_that_move_during_a_sweep_are_seen() {
        let mut desk = Desk::plain();
        for n in 0..4 {
            desk.wait(10).write(digest(1, n));
        }
        let out = desk.dispatch_idle(3).0;
        desk.ok(out[0].slot);
        let clock = desk.now().wall;
        // The sweep passes the freed slot 0, which then takes the change that was queued.
        assert_eq!(desk.dc.sweep(1, |_| clock), SweepStep::More);
        assert_eq!(desk.dispatch()[0].slot, 0);
        desk.ok(out[1].slot);
        desk.ok(out[2].slot);
        desk.wait(100);
        let clock = desk.now().wall;
        while desk.dc.sweep(1, |_| clock) == SweepStep::More {}
        assert!(desk.dc.lst(NS, PartitionId::new(1)).is_some_and(|lst| lst < clock));
        assert_eq!(desk.lst(1), 40);
    }
}
