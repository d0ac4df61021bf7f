//! In which order changes leave whose records have to be read from the device.
//!
//! Lanes go by partition, a log goes by time: the 50 changes of one lane's turn lie scattered among
//! those of all other lanes. So each lap has a horizon, and ships changes that the host no longer
//! has in memory only if they are older. All lanes then advance together, and what ships in one lap
//! lies side by side on the device, where the host reads it in a few large pieces. A change that is
//! in memory waits only for changes of its own lane that are not. What a recovery found has a
//! horizon of its own.

use super::mutation::{Mutation, planted};
use crate::model::Lut;

/// Changes from the device that one lap should bring: two of each lane, and 2 MB of log if records
/// are small.
const LAP_RECORDS: u32 = 8192;

/// How far into the backlog on the device the present lap reaches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Horizon {
    lap_records: u32,
    /// Later changes wait for another lap.
    until: Lut,
    /// Milliseconds of LUTs that one lap is to span.
    span_ms: u64,
    /// The oldest change that waited in this lap; [`Lut::MAX`] if none did.
    held: Lut,
    /// Changes from the device shipped in this lap.
    shipped: u32,
}

impl Horizon {
    pub(super) const fn new(lap_records: u32) -> Self {
        Self { lap_records, until: Lut::ZERO, span_ms: 1, held: Lut::MAX, shipped: 0 }
    }

    /// For so many lanes that ship `lane_turn` changes in a turn. A lap aims at a quarter of what their
    /// turns allow: if it aimed at more than they can ship, every lap would seem to fall short.
    pub(super) fn of_lanes(lanes: u32, lane_turn: u32) -> Self {
        Self::new(LAP_RECORDS.min(lanes * lane_turn / 4).max(1))
    }

    /// Forgets how far it reaches.
    pub(super) const fn restart(&mut self) {
        *self = Self::new(self.lap_records);
    }

    /// Whether a change that is not in memory has to wait for another lap.
    #[inline]
    pub(super) fn is_beyond(&self, lut: Lut) -> bool {
        lut > self.until && !planted(Mutation::DeviceUnordered)
    }

    /// Notes that a change beyond the horizon waits for another lap.
    #[inline]
    pub(super) fn hold(&mut self, lut: Lut) {
        self.held = self.held.min(lut);
    }

    /// Notes that a change that is read from the device has shipped.
    #[inline]
    pub(super) fn ship(&mut self) {
        self.shipped += 1;
    }

    /// The lap is over: decides how far the next one reaches. True when there is more to ship from
    /// the device. Lanes that wait for a node hold nobody up, but what they did not ship is no sign
    /// of a lap too short.
    pub(super) fn end_lap(&mut self, all_had_their_turn: bool) -> bool {
        let Self { held, shipped, .. } = *self;
        (self.held, self.shipped) = (Lut::MAX, 0);
        if held == Lut::MAX {
            return false;
        }
        if shipped > self.lap_records {
            let span_ms = self.span_ms * u64::from(self.lap_records) / u64::from(shipped);
            self.span_ms = span_ms.max(1);
        } else if all_had_their_turn && shipped < self.lap_records / 2 {
            self.span_ms = (self.span_ms * 2).min(Lut::MAX.ms());
        }
        self.until = held.plus_ms(self.span_ms - 1);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::dc::Limits;
    use super::super::policy::Policy;
    use super::super::testing::{Desk, NS, digest, policy};
    use super::super::{Dispatch, Room};
    use super::*;

    const LAP: u32 = 128;

    /// Changes of so many lanes in turns, one every millisecond.
    fn backlog(lanes: u16, changes: u32) -> Desk {
        let mut desk = Desk::plain();
        desk.dc.laps[0].set_lap(LAP);
        for n in 0..changes {
            let change = desk.change(digest(n as u16 % lanes, n));
            desk.dc.submit(&change, "", desk.now());
            desk.wait(1);
        }
        desk
    }

    /// By how many milliseconds a change left later than a younger one.
    fn disorder_ms(out: &[Dispatch]) -> u64 {
        let mut newest = Lut::ZERO;
        let late = |dispatch: &Dispatch| {
            newest = newest.max(dispatch.lut);
            newest.ms() - dispatch.lut.ms()
        };
        out.iter().map(late).max().unwrap_or(0)
    }

    #[test]
    fn what_is_on_the_device_leaves_in_the_order_of_time() {
        for (in_memory_above, disorder) in
            [(Lut::ZERO, 1500..u64::MAX), (Lut::MAX, 0..2 * u64::from(LAP))]
        {
            let mut desk = backlog(32, 2000);
            desk.dc.note_in_memory(|_| in_memory_above);
            let out = desk.ship_all();
            assert_eq!(out.len(), 2000);
            assert!(disorder.contains(&disorder_ms(&out)), "{}", disorder_ms(&out));
        }
    }

    #[test]
    fn a_lap_that_is_cut_short_goes_on_where_it_was() {
        let mut desk = backlog(32, 2000);
        let policy = Policy { records_per_s: 5000, ..policy() };
        desk.dc.set_policy(NS, policy, Lut::ZERO);
        desk.dc.note_in_memory(|_| Lut::MAX);
        let mut out = Vec::new();
        for round in 0.. {
            // Now and then the node has no room either.
            desk.node.room = if round % 7 == 0 { Room::Full(0) } else { Room::Yes(0) };
            let some = desk.wait(1).ship_all();
            out.extend(some);
            if out.len() == 2000 {
                break;
            }
            assert!(round < 2000, "{} have left", out.len());
        }
        assert!(disorder_ms(&out) < 8 * u64::from(LAP), "{}", disorder_ms(&out));
    }

    #[test]
    fn under_a_throttle_no_lane_goes_before_the_others() {
        let mut desk = Desk::new(Policy { records_per_s: 1000, ..policy() }, Limits::default());
        for n in 0..3200 {
            desk.write(digest(n as u16 % 32, n));
        }
        let mut shipped = [0_u32; 32];
        for _ in 0..1600 {
            for change in desk.wait(1).ship_all() {
                shipped[change.partition.index()] += 1;
            }
        }
        let (least, most) = (shipped.iter().min().unwrap(), shipped.iter().max().unwrap());
        assert!(*most > 0 && most - least <= crate::limits::LANE_TURN, "{shipped:?}");
    }

    #[test]
    fn what_is_in_memory_does_not_wait_for_the_device() {
        let mut desk = backlog(32, 2000);
        let above = desk.now().wall;
        desk.dc.note_in_memory(|_| above);
        desk.wait(1).write(digest(100, 1));
        let place = desk.ship_all().iter().position(|change| change.partition.index() == 100);
        assert!(place.is_some_and(|place| place < 200), "{place:?}");
    }

    #[test]
    fn bursts_and_pauses_between_changes_are_both_got_over() {
        let mut desk = backlog(32, 500);
        for n in 0..1500 {
            desk.write(digest(n as u16 % 32, 1000 + n));
            desk.wait(if n.is_multiple_of(500) { 3_600_000 } else { 0 });
        }
        desk.dc.note_in_memory(|_| Lut::MAX);
        assert_eq!(desk.ship_all().len(), 2000);
    }

    #[test]
    fn what_waits_behind_the_middle_of_a_lap_is_not_forgotten() {
        let mut desk = backlog(4, 40);
        desk.dc.note_in_memory(|_| Lut::MAX);
        let mut shipped = 0;
        // Ends between the lanes, so that the next round begins there, with nothing behind.
        for budget in (1..=7).cycle() {
            let out = desk.dispatch_idle(budget).0;
            if out.is_empty() {
                break;
            }
            shipped += out.len();
            desk.dc.laps[0].set_cursor(3);
        }
        assert_eq!(shipped, 40);
    }

    #[test]
    fn a_node_without_room_is_waited_for_and_then_goes_on() {
        let mut desk = backlog(32, 640);
        desk.dc.note_in_memory(|_| Lut::MAX);
        let some = desk.dispatch_idle(100).0;
        desk.node.room = Room::Full(0);
        for _ in 0..10 {
            assert_eq!(desk.dispatch().len(), 0);
        }
        desk.node.room = Room::Yes(0);
        for dispatch in &some {
            desk.send(dispatch);
            desk.ok(dispatch.slot);
        }
        assert_eq!(some.len() + desk.ship_all().len(), 640);
    }
}
