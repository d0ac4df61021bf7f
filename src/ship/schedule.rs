//! What may ship now: changes whose wait is over first, then the lanes in turn, and between them,
//! at a lower share, what recovery walks found.

use super::dc::{DcShard, Now};
use super::horizon::Horizon;
use super::lane::{QUANTUM, RETRY_ONLY};
use super::mutation::{Mutation, planted};
use super::queue::{Entry, PackedLut, Pool, Ring};
use super::slots::{State, flag};
use super::stats::LimitedBy;
use super::timers::ms_of;
use crate::model::{Digest, Lut, NamespaceId, PartitionId, Tick};

/// Live changes shipped for each walked one while both wait: recovery gets a quarter.
pub(super) const LIVE_PER_WALKED: u32 = 3;
/// How long a lane without a destination node is left alone, unless the map changes.
const NO_NODE_MS: u64 = 100;
/// Ready changes looked at in one dispatch while none of them can go.
const READY_LOOKS_MAX: u32 = 256;

/// Where a change may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// To this destination node.
    Yes(u16),
    /// This node has as much in flight as it may.
    Full(u16),
    /// No node is known for the partition.
    NoNode,
}

/// The way to the destination's nodes.
pub trait Routes {
    /// Asked right before a change of the partition is dispatched. [`Room::Yes`] takes one place in
    /// that node's window, which whoever settles the change gives back.
    fn room(&mut self, namespace: NamespaceId, partition: PartitionId) -> Room;

    /// Whether a node that answered [`Room::Full`] has as much in flight as it may. False if it is
    /// not known or not connected any more.
    fn is_full(&self, node: u16) -> bool;

    /// Whether a node is known for the partition.
    fn has_node(&self, namespace: NamespaceId, partition: PartitionId) -> bool;
}

/// A change to be read, encoded and sent. Each is settled exactly once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dispatch {
    /// Names it in [`DcShard::sent`] and [`DcShard::settle`].
    pub slot: u32,
    /// The destination node.
    pub node: u16,
    /// A deletion is to be sent as a plain one.
    pub plain_delete: bool,
    /// Its namespace.
    pub namespace: NamespaceId,
    /// Its partition.
    pub partition: PartitionId,
    /// The record.
    pub digest: Digest,
    /// The change; the record itself may be newer.
    pub lut: Lut,
}

/// Why a dispatch ended, and when the next one makes sense if nothing else happens before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idle {
    /// The next moment something waits for.
    pub next_due: Tick,
    /// What kept it from shipping more.
    pub limited_by: LimitedBy,
}

/// State of one call of [`DcShard::dispatch`].
struct Lap<'a, R> {
    now: Now,
    routes: &'a mut R,
    out: &'a mut Vec<Dispatch>,
    budget: u32,
    next_due: Tick,
    limited_by: LimitedBy,
}

impl<R> Lap<'_, R> {
    /// Notes what stopped something, and when it is worth another look.
    fn stopped(&mut self, by: LimitedBy, next_due: Tick) {
        if self.limited_by == LimitedBy::Nothing {
            self.limited_by = by;
        }
        self.next_due = self.next_due.min(next_due);
    }
}

/// Which queue of a lane.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Live,
    Walked,
}

/// Why a lane's turn ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// It is the next lane's turn.
    Over,
    /// The same, since the destination node has no room.
    NoRoom,
    /// Nothing of the namespace can go on.
    Cut,
    /// Nobody can go on: budget or window are used up.
    Halt,
}

impl DcShard {
    /// Picks what may ship now, at most `budget` changes, and appends it to `out`.
    ///
    /// Order: changes whose wait is over (retries, hot keys), then live lanes in turn, 50 changes
    /// each; while both wait, every fourth change is one that a recovery walk found.
    pub fn dispatch(
        &mut self,
        now: Now,
        routes: &mut impl Routes,
        out: &mut Vec<Dispatch>,
        budget: u32,
    ) -> Idle {
        if now.tick < self.held_until || self.awaits_discarded {
            self.limited_by = LimitedBy::Destination;
            let next_due = if self.awaits_discarded { Tick::NEVER } else { self.held_until };
            return Idle { next_due, limited_by: self.limited_by };
        }
        for ns in self.namespaces.iter_mut().flatten() {
            ns.throttle.refill(now.tick);
        }
        self.wheel.advance(ms_of(now.tick), &mut self.slots, &mut self.ready);
        if self.held.release(now.tick, |node| routes.is_full(node)) {
            self.stalled_until = Tick(0);
        }
        let mut lap =
            Lap { now, routes, out, budget, next_due: Tick::NEVER, limited_by: LimitedBy::Nothing };
        self.ship_ready(&mut lap);
        if now.tick < self.stalled_until {
            lap.stopped(self.limited_by, self.stalled_until);
        } else {
            while self.lap_live(&mut lap) {}
        }
        while self.lap_walked(&mut lap, u32::MAX) {}
        let waiting = !self.queued.is_empty() || !self.walks.queued.is_empty();
        if waiting && !self.held.lanes().is_empty() {
            lap.stopped(LimitedBy::Destination, self.held.stranded_until());
        }
        self.limited_by = lap.limited_by;
        Idle { next_due: lap.next_due.min(self.wheel.next_due()), limited_by: lap.limited_by }
    }

    /// Whether anything can go at all; notes why not.
    #[inline]
    fn can_go_on<R>(&self, lap: &mut Lap<'_, R>) -> bool {
        if self.dispatched >= self.limits.window || !self.slots.has_free() {
            lap.stopped(LimitedBy::Window, Tick::NEVER);
            return false;
        }
        if lap.budget == 0 {
            lap.stopped(LimitedBy::Reads, Tick::NEVER);
            return false;
        }
        true
    }

    /// Whether a namespace may ship one more; notes why not.
    #[inline]
    fn may_ship<R>(&mut self, lane: u32, lap: &mut Lap<'_, R>) -> bool {
        let ns = self.ns_of(lane);
        if let Some(parked) = &ns.parked
            && !parked.may_probe(lap.now.tick)
        {
            lap.stopped(LimitedBy::Destination, parked.probe_at);
            return false;
        }
        if !ns.throttle.has_token() {
            lap.stopped(LimitedBy::Throttle, ns.throttle.next_due());
            return false;
        }
        true
    }

    fn ship_ready<R: Routes>(&mut self, lap: &mut Lap<'_, R>) {
        let mut looks = self.ready.len().min(READY_LOOKS_MAX);
        while looks > 0 && self.dispatched < self.limits.window && lap.budget > 0 {
            let Some(slot) = self.ready.pop(&self.slots) else { return };
            looks -= 1;
            if self.slots.at(slot).state == State::Grace && !self.resume_grace(slot) {
                continue;
            }
            let lane = self.slots.at(slot).lane;
            if !self.may_ship(lane, lap) {
                self.ready.push(slot, &mut self.slots);
                continue;
            }
            match lap.routes.room(self.namespace_of(lane), self.partition_of(lane)) {
                Room::Yes(node) => {
                    self.set_state(slot, State::Dispatched);
                    // Its lane may have been kept to retries only.
                    self.stalled_until = Tick(0);
                    self.launch(slot, node, lap);
                }
                Room::Full(_) => {
                    lap.stopped(LimitedBy::Destination, Tick::NEVER);
                    self.ready.push(slot, &mut self.slots);
                }
                Room::NoNode => {
                    lap.stopped(LimitedBy::Destination, Tick::NEVER);
                    self.ns_of(lane).counters.retry_no_node += 1;
                    let due_ms = ms_of(lap.now.tick) + NO_NODE_MS;
                    self.wheel.insert(slot, due_ms, &mut self.slots);
                }
            }
        }
        if self.ready.len() > 0 {
            self.can_go_on(lap);
        }
    }

    /// One round over the live lanes, each for at most its quantum. False when it brought nothing
    /// or nothing more can go.
    fn lap_live<R: Routes>(&mut self, lap: &mut Lap<'_, R>) -> bool {
        let lanes = self.lanes.len() as u32;
        let (mut travelled, before) = (0, lap.budget);
        let (mut goes_on, mut visited, mut is_cut) = (false, false, false);
        while let Some(lane) = self.queued.next_round_but(self.held.lanes(), self.cursor) {
            if !self.can_go_on(lap) {
                return false;
            }
            travelled += (lane + lanes - self.cursor) % lanes;
            if lane != self.cursor {
                if lane < self.cursor {
                    goes_on |= self.horizon.end_lap();
                }
                self.turn_left = QUANTUM;
                self.cursor = lane;
            }
            if travelled >= lanes {
                break;
            }
            if !self.may_ship(lane, lap) {
                travelled += self.pass_over_block(lane);
                continue;
            }
            if let Some((further, turn_left)) = self.ns_of(lane).goes_on_at.take()
                && further >= lane
            {
                self.turn_left = turn_left;
                if further > lane {
                    // The lanes in between are for the next round.
                    travelled += further - lane;
                    goes_on = true;
                    self.cursor = further;
                    continue;
                }
            }
            visited = true;
            let had = lap.budget;
            let turn = self.ship_lane(lane, Class::Live, self.turn_left, lap);
            self.turn_left = self.turn_left.saturating_sub(had - lap.budget);
            let owed = self.walks.earn(had - lap.budget);
            is_cut |= turn == Turn::NoRoom;
            let is_over = matches!(turn, Turn::Over | Turn::NoRoom);
            if is_over || self.turn_left == 0 {
                travelled += 1;
                goes_on |= self.end_turn(lane + 1);
            }
            if owed > 0 {
                self.lap_walked(lap, owed);
            }
            if turn == Turn::Halt {
                return false;
            }
        }
        // A round that brought nothing may have begun in the middle of a lap.
        goes_on |= lap.budget < before || (visited && !is_cut && self.horizon.end_lap());
        if !goes_on && !self.queued.is_empty() {
            self.stalled_until = lap.next_due.min(self.held.stranded_until());
        }
        goes_on
    }

    /// True when this ended the lap, and more is to ship from the device.
    fn end_turn(&mut self, next: u32) -> bool {
        self.turn_left = QUANTUM;
        if next < self.lanes.len() as u32 {
            self.cursor = next;
            return false;
        }
        self.cursor = 0;
        self.horizon.end_lap()
    }

    /// The namespace of `lane` can ship nothing now: on to the next one, without an end of the lap
    /// over this one's lanes, which goes on at `lane` when it can. Gives how many are passed over.
    fn pass_over_block(&mut self, lane: u32) -> u32 {
        let next = (self.block_of(lane) + 1) * self.lanes_per_block;
        let here = (lane, self.turn_left);
        self.ns_of(lane).goes_on_at.get_or_insert(here);
        self.cursor = if next < self.lanes.len() as u32 { next } else { 0 };
        self.turn_left = QUANTUM;
        next - lane
    }

    /// One round over the lanes with walked changes, at most `most` changes.
    fn lap_walked<R: Routes>(&mut self, lap: &mut Lap<'_, R>, most: u32) -> bool {
        let before = lap.budget;
        let mut looks = self.walks.queued.len();
        let (mut goes_on, mut is_cut, mut cut_at) = (false, false, None);
        while looks > 0 && before - lap.budget < most {
            let Some(lane) = self.next_walked() else { break };
            if !self.can_go_on(lap) {
                return false;
            }
            looks -= 1;
            if lane < self.walks.cursor && cut_at.is_none() {
                goes_on |= self.walks.horizon.end_lap();
            }
            self.walks.cursor = lane + 1;
            if !self.may_ship(lane, lap) {
                cut_at.get_or_insert(lane);
                continue;
            }
            let quantum = QUANTUM.min(most - (before - lap.budget));
            let had = lap.budget;
            let turn = self.ship_lane(lane, Class::Walked, quantum, lap);
            self.walks.spend(had - lap.budget);
            match turn {
                Turn::Halt => return false,
                Turn::Cut => _ = cut_at.get_or_insert(lane + 1),
                Turn::NoRoom => is_cut = true,
                Turn::Over => {}
            }
        }
        if let Some(lane) = cut_at {
            self.walks.cursor = lane;
            return goes_on || lap.budget < before;
        }
        // A round that brought nothing may have begun in the middle of a lap.
        goes_on |= lap.budget < before;
        goes_on || (looks == 0 && !is_cut && self.walks.horizon.end_lap())
    }

    fn next_walked(&self) -> Option<u32> {
        self.walks.queued.next_round_but(self.held.lanes(), self.walks.cursor)
    }

    /// Ships up to `quantum` changes of a lane.
    fn ship_lane<R: Routes>(
        &mut self,
        lane: u32,
        class: Class,
        quantum: u32,
        lap: &mut Lap<'_, R>,
    ) -> Turn {
        if !self.lane_is_free(lane, lap) {
            return Turn::Over;
        }
        let (namespace, partition) = (self.namespace_of(lane), self.partition_of(lane));
        let from_device = self.ns_of(lane).in_memory_above;
        self.prefetch_lane_after(lane, class);
        for shipped in 0..quantum {
            self.prefetch_entries(lane, class, shipped == 0);
            let Some(entry) = self.queue_of(lane, class).0.peek(self.queue_of(lane, class).1)
            else {
                break;
            };
            let lut = entry.lut.get();
            if class == Class::Live && !self.is_old_enough(lane, lut, lap) {
                break;
            }
            let is_on_device = lut <= from_device;
            if is_on_device && self.horizon_of(class).is_beyond(lut) {
                self.horizon_of(class).hold(lut);
                break;
            }
            if let Some(slot) = self.slots.find(&entry.digest, lane)
                && !planted(Mutation::TwoVersionsInFlight)
            {
                self.pop(lane, class);
                lap.budget -= 1;
                self.ns_of(lane).gauges.in_queue -= 1;
                self.join(slot, lut, ms_of(lap.now.tick));
                if lap.budget == 0 {
                    // Nothing may have been dispatched, and so nothing else comes back to this.
                    lap.stopped(LimitedBy::Reads, lap.now.tick);
                    return Turn::Halt;
                }
                continue;
            }
            if !self.may_ship(lane, lap) {
                return Turn::Cut;
            }
            match lap.routes.room(namespace, partition) {
                Room::Yes(node) => {
                    self.pop(lane, class);
                    self.launch_entry(entry, lane, class, node, lap);
                    if is_on_device {
                        self.horizon_of(class).ship();
                    }
                }
                Room::Full(node) => {
                    self.held.fill(node, lane);
                    return Turn::NoRoom;
                }
                Room::NoNode => {
                    self.ns_of(lane).counters.retry_no_node += 1;
                    self.held.strand(lane, lap.now.tick.plus_ms(NO_NODE_MS));
                    break;
                }
            }
            if !self.can_go_on(lap) {
                return Turn::Halt;
            }
        }
        Turn::Over
    }

    fn horizon_of(&mut self, class: Class) -> &mut Horizon {
        match class {
            Class::Live => &mut self.horizon,
            Class::Walked => &mut self.walks.horizon,
        }
    }

    /// Whether a lane may ship anything new; notes why not.
    fn lane_is_free<R>(&mut self, lane: u32, lap: &mut Lap<'_, R>) -> bool {
        let place = &self.lanes[lane as usize];
        if place.retries >= RETRY_ONLY {
            lap.stopped(LimitedBy::Destination, Tick::NEVER);
            return false;
        }
        let now_ms = ms_of(lap.now.tick);
        let wait_ms = place.rests_until_ms.wrapping_sub(now_ms as u32) as i32;
        if place.rests_until_ms != 0 && wait_ms > 0 {
            let until = Tick((now_ms + u64::from(wait_ms.unsigned_abs())) * 1000);
            lap.stopped(LimitedBy::Destination, until);
            return false;
        }
        true
    }

    /// The `delay-ms` rule, by the change's own time. A change from the future counts as old
    /// enough: the clock was set back, and its age is not known.
    #[inline]
    fn is_old_enough<R>(&mut self, lane: u32, lut: Lut, lap: &mut Lap<'_, R>) -> bool {
        let delay_ms = u64::from(self.ns_of(lane).policy.delay_ms);
        if delay_ms == 0 {
            return true;
        }
        let (lut, wall) = (lut.ms(), lap.now.wall.ms());
        if lut + delay_ms <= wall || lut >= wall + delay_ms {
            return true;
        }
        lap.stopped(LimitedBy::Throttle, lap.now.tick.plus_ms(lut + delay_ms - wall));
        false
    }

    /// The lane that has its turn next: fetches its first entries into the cache.
    #[inline]
    fn prefetch_lane_after(&self, lane: u32, class: Class) {
        if class == Class::Live
            && let Some(next) = self.queued.next_round_but(self.held.lanes(), lane + 1)
        {
            self.lanes[next as usize].ring.prefetch_head(&self.pool);
        }
    }

    /// Once for each chunk of entries: fetches what looking for them touches into the cache.
    #[inline]
    fn prefetch_entries(&self, lane: u32, class: Class, is_first: bool) {
        let (ring, pool) = self.queue_of(lane, class);
        if is_first || ring.is_at_chunk() {
            ring.ahead(pool).iter().for_each(|entry| self.slots.prefetch(&entry.digest, lane));
        }
    }

    #[inline]
    fn queue_of(&self, lane: u32, class: Class) -> (&Ring, &Pool) {
        match class {
            Class::Live => (&self.lanes[lane as usize].ring, &self.pool),
            Class::Walked => self.walks.queue_of(self.lanes[lane as usize].walking),
        }
    }

    #[inline]
    fn pop(&mut self, lane: u32, class: Class) {
        match class {
            Class::Live => {
                let ring = &mut self.lanes[lane as usize].ring;
                ring.pop(&mut self.pool);
                if ring.is_empty() {
                    self.queued.remove(lane);
                }
            }
            Class::Walked => self.pop_walked(lane),
        }
    }

    #[inline]
    fn launch_entry<R: Routes>(
        &mut self,
        entry: Entry,
        lane: u32,
        class: Class,
        node: u16,
        lap: &mut Lap<'_, R>,
    ) {
        let slot = self.slots.take(entry.digest, lane, entry.lut, State::Dispatched);
        if class == Class::Walked {
            self.slots.at_mut(slot).flags = flag::WALKED;
        }
        self.dispatched += 1;
        self.note_floor(lane, entry.lut.get());
        let gauges = &mut self.ns_of(lane).gauges;
        gauges.in_queue -= 1;
        gauges.in_progress += 1;
        self.launch(slot, node, lap);
    }

    /// Sends a slot that counts as dispatched on its way.
    #[inline]
    fn launch<R>(&mut self, slot: u32, node: u16, lap: &mut Lap<'_, R>) {
        lap.budget -= 1;
        let plain_deletes = self.plain_deletes;
        let place = self.slots.at_mut(slot);
        place.dispatched = lap.now.tick;
        place.node = node;
        place.sent = PackedLut::ZERO;
        let (lane, digest, lut) = (place.lane, place.digest, place.lut.get());
        let plain_delete = plain_deletes || place.has(flag::PLAIN);
        let (namespace, partition) = (self.namespace_of(lane), self.partition_of(lane));
        let ns = self.ns_of(lane);
        ns.throttle.take();
        if let Some(parked) = &mut ns.parked {
            parked.probe = Some(slot);
            self.slots.at_mut(slot).flags |= flag::PROBE;
        }
        lap.out.push(Dispatch { slot, node, plain_delete, namespace, partition, digest, lut });
    }

    /// Moves a slot from one state to another, in the gauges too.
    #[inline]
    pub(super) fn set_state(&mut self, slot: u32, state: State) {
        let place = self.slots.at_mut(slot);
        let lane = place.lane;
        let was = std::mem::replace(&mut place.state, state);
        self.count_state(lane, was, false);
        self.count_state(lane, state, true);
    }

    #[inline]
    pub(super) fn count_state(&mut self, lane: u32, state: State, more: bool) {
        let by = if more { 1u64 } else { 1u64.wrapping_neg() };
        match state {
            State::Dispatched => self.dispatched = self.dispatched.wrapping_add(by as u32),
            State::Due => self.due_slots = self.due_slots.wrapping_add(by as u32),
            State::Retry => {
                let retries = &mut self.lanes[lane as usize].retries;
                *retries = retries.wrapping_add(by as u16);
            }
            State::Free | State::Grace | State::Dead => {}
        }
        let gauges = &mut self.ns_of(lane).gauges;
        let gauge = match state {
            State::Free => return,
            State::Dispatched => &mut gauges.in_progress,
            State::Due => &mut gauges.in_queue,
            State::Retry | State::Grace | State::Dead => &mut gauges.retrying,
        };
        *gauge = gauge.wrapping_add(by);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Desk, NS, digest, policy};
    use super::super::{Admission, Limits, Outcome, Policy};
    use super::*;
    use crate::wire::ResultCode;

    #[test]
    fn lanes_take_turns_of_fifty() {
        let mut desk = Desk::plain();
        for n in 0..120 {
            for partition in [3, 1000, 4095] {
                desk.write(digest(partition, n));
            }
        }
        let mut turns: Vec<(u16, usize)> = Vec::new();
        // In odd portions, so that turns are interrupted.
        loop {
            let (out, _) = desk.dispatch_idle(37);
            if out.is_empty() {
                break;
            }
            for dispatch in out {
                let partition = dispatch.partition.index() as u16;
                match turns.last_mut() {
                    Some((last, count)) if *last == partition => *count += 1,
                    _ => turns.push((partition, 1)),
                }
            }
        }
        let lap = [3, 1000, 4095];
        let expected: Vec<(u16, usize)> =
            [50, 50, 20].into_iter().flat_map(|count| lap.map(|p| (p, count))).collect();
        assert_eq!(turns, expected);
    }

    #[test]
    fn retries_go_first() {
        let mut desk = Desk::plain();
        desk.write(digest(7, 1));
        let first = desk.dispatch();
        desk.reply(first[0].slot, ResultCode::KEY_BUSY);
        desk.write(digest(1, 1));
        desk.write(digest(9, 1));
        let order: Vec<usize> =
            desk.wait(50).dispatch().iter().map(|d| d.partition.index()).collect();
        assert_eq!(order, [7, 9, 1], "then lanes from where the last lap ended");
    }

    #[test]
    fn a_delay_lets_entries_grow_old() {
        let mut desk = Desk::new(Policy { delay_ms: 50, ..policy() }, Limits::default());
        desk.write(digest(1, 1));
        desk.wait(20).write(digest(2, 1));
        let (out, idle) = desk.dispatch_idle(10);
        assert_eq!((out.len(), idle.next_due), (0, Tick(50_000)));
        assert_eq!(idle.limited_by, LimitedBy::Throttle);
        desk.write(digest(1, 2));
        assert_eq!(desk.wait(29).dispatch().len(), 0);
        assert_eq!(desk.wait(1).dispatch().len(), 1);
        assert_eq!(desk.wait(20).dispatch().len(), 2);
    }

    #[test]
    fn a_clock_set_back_does_not_hold_entries() {
        let mut desk = Desk::new(Policy { delay_ms: 50, ..policy() }, Limits::default());
        desk.wait(60_000).write(digest(1, 1));
        let mut out = Vec::new();
        let now = Now { wall: Lut::from_ms(1_000_000), ..desk.now() };
        desk.dc.dispatch(now, &mut desk.node, &mut out, 10);
        assert_eq!(out.len(), 1);
    }

    #[test]
    fn the_throttle_holds_over_time() {
        let mut desk = Desk::new(Policy { records_per_s: 1000, ..policy() }, Limits::default());
        for n in 0..2000 {
            desk.write(digest((n % 64) as u16, n));
        }
        let mut shipped = 0;
        for _ in 0..100 {
            let (out, idle) = desk.dispatch_idle(10_000);
            shipped += out.len();
            assert_eq!(idle.limited_by, LimitedBy::Throttle);
            assert!(idle.next_due > desk.now().tick);
            desk.wait(10);
        }
        // A second's worth and what the bucket held.
        assert_eq!(shipped, 1000 + 100 - 10);
    }

    #[test]
    fn the_window_bounds_what_is_dispatched() {
        let mut desk = Desk::new(policy(), Limits { window: 10, ..Limits::default() });
        for n in 0..30 {
            desk.write(digest(n as u16, n));
        }
        let (out, idle) = desk.dispatch_idle(1000);
        assert_eq!((out.len(), idle.limited_by), (10, LimitedBy::Window));
        desk.ok(out[3].slot);
        desk.ok(out[7].slot);
        assert_eq!(desk.dispatch().len(), 2);
    }

    #[test]
    fn a_lane_without_a_node_waits_and_is_counted_once_a_round() {
        let mut desk = Desk::plain();
        desk.write(digest(1, 1));
        desk.write(digest(1, 2));
        desk.node.room = Room::NoNode;
        for _ in 0..50 {
            let (out, idle) = desk.dispatch_idle(10);
            assert_eq!((out.len(), idle.limited_by), (0, LimitedBy::Destination));
            assert!(idle.next_due <= Tick(100_000));
        }
        assert_eq!(desk.dc.dc_stats().counters.retry_no_node, 1);
        desk.node.room = Room::Yes(1);
        assert_eq!(desk.dispatch().len(), 0);
        desk.dc.map_changed();
        assert_eq!(desk.dispatch().len(), 2);
    }

    #[test]
    fn a_full_node_is_tried_again_when_something_settles() {
        let mut desk = Desk::plain();
        desk.write(digest(1, 1));
        let out = desk.dispatch();
        desk.write(digest(2, 1));
        desk.node.room = Room::Full(0);
        assert_eq!(desk.dispatch().len(), 0);
        desk.node.room = Room::Yes(0);
        desk.ok(out[0].slot);
        assert_eq!(desk.dispatch().len(), 1);
    }

    #[test]
    fn lanes_of_a_full_node_cost_nothing_until_it_has_room() {
        let mut desk = Desk::plain();
        desk.node.room = Room::Full(3);
        for partition in 0..4 {
            assert_eq!(desk.write(digest(partition, 1)), Admission::Queued);
            assert_eq!(desk.write(digest(partition, 2)), Admission::Behind);
        }
        let (out, idle) = desk.dispatch_idle(10);
        assert_eq!((out.len(), idle.next_due), (0, Tick::NEVER));
        assert_eq!(idle.limited_by, LimitedBy::Destination);
        assert_eq!(desk.write(digest(9, 1)), Admission::Queued, "not known to go there too");
        assert_eq!(desk.dispatch().len(), 0);
        desk.node.asked = 0;
        assert_eq!(desk.dispatch().len(), 0);
        assert_eq!(desk.node.asked, 0);
        desk.node.room = Room::Yes(3);
        assert_eq!(desk.dispatch().len(), 9, "without anything having been settled");
        desk.node.room = Room::Full(3);
        desk.write(digest(0, 3));
        desk.dispatch();
        assert_eq!(desk.write(digest(2, 3)), Admission::Behind, "held with the other");
        desk.dc.map_changed();
        desk.node.room = Room::Yes(4);
        assert_eq!(desk.dispatch().len(), 2);
    }

    #[test]
    fn a_lane_with_ten_errors_ships_only_retries() {
        let mut desk = Desk::plain();
        for n in 0..12 {
            desk.write(digest(1, n));
        }
        let out = desk.dispatch();
        for dispatch in &out[..10] {
            desk.reply(dispatch.slot, ResultCode::DEVICE_OVERLOAD);
        }
        desk.write(digest(1, 100));
        desk.write(digest(2, 100));
        let other: Vec<usize> = desk.dispatch().iter().map(|d| d.partition.index()).collect();
        assert_eq!(other, [2]);
        assert_eq!(desk.wait(20).ship_all().len(), 11);
    }

    #[test]
    fn recovery_gets_a_quarter_while_live_changes_wait_and_all_of_it_otherwise() {
        let mut desk = Desk::new(policy(), Limits { window: 400, ..Limits::default() });
        for n in 0..500 {
            desk.write(digest(n as u16 % 8, n));
        }
        desk.dc.rewind(NS, Lut::ZERO);
        desk.wait(10);
        let walk = desk.begin_walk().expect("lanes to recover");
        desk.walk_all(walk.walk);
        for n in 0..500 {
            desk.write(digest(100 + n as u16 % 8, n));
        }
        let of_walk = |out: &[Dispatch]| out.iter().filter(|d| d.partition.index() < 8).count();
        let out = desk.dispatch_idle(200).0;
        assert!((45..=55).contains(&of_walk(&out)), "{}", of_walk(&out));
        let mut all = out.len();
        for dispatch in out {
            desk.settle(dispatch.slot, Outcome::NotFound);
        }
        let out = desk.ship_all();
        all += out.len();
        assert_eq!(all, 1000);
    }
}
