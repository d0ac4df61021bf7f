//! How the changes of one namespace take turns: its lanes among each other, and live changes,
//! walked ones and those whose wait is over.
//!
//! A namespace has all of this for itself, so that what keeps one from shipping (a throttle, a
//! refusal, a lane that never ends) keeps nobody else.

use std::ops::{Index, IndexMut, Range};

use super::bitmap::Bitmap;
use super::dc::{DcShard, Now};
use super::horizon::Horizon;
use super::lane::RETRY_ONLY;
use super::mutation::{Mutation, planted};
use super::queue::{Entry, PackedLut, Pool, Ring};
use super::ready::{NO_NODE_MS, Ready};
use super::schedule::{Dispatch, Room, Routes};
use super::shares::{Kind, Shares};
use super::slots::{Slots, State, flag};
use super::stats::LimitedBy;
use super::timers::ms_of;
use crate::model::{Lut, Tick};

/// State of one call of [`DcShard::dispatch`].
pub(super) struct Lap<'a, R> {
    pub(super) now: Now,
    pub(super) routes: &'a mut R,
    pub(super) out: &'a mut Vec<Dispatch>,
    pub(super) budget: u32,
    pub(super) next_due: Tick,
    pub(super) limited_by: LimitedBy,
}

impl<R> Lap<'_, R> {
    /// Notes what stopped something, and when it is worth another look.
    #[inline]
    pub(super) fn stopped(&mut self, by: LimitedBy, next_due: Tick) {
        if self.limited_by == LimitedBy::Nothing {
            self.limited_by = by;
        }
        self.next_due = self.next_due.min(next_due);
    }

    /// Counts a change that merged into another. False when the budget is used up.
    pub(super) fn spend_on_merge(&mut self) -> bool {
        self.budget -= 1;
        if self.budget == 0 {
            // Nothing may have been dispatched, and so nothing else comes back to this.
            self.stopped(LimitedBy::Reads, self.now.tick);
        }
        self.budget > 0
    }
}

/// Which queue of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Live,
    Walked,
}

impl Class {
    const fn kind(self) -> Kind {
        match self {
            Self::Live => Kind::Live,
            Self::Walked => Kind::Walked,
        }
    }
}

/// Why shipping of a namespace, or a part of it, stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// Nothing more can go until something happens, or until what was noted.
    Dry,
    /// It had its share.
    Spent,
    /// No slot is free: what waits in one can go on.
    NoSlot,
    /// The namespace may not ship.
    Barred,
    /// Nobody can go on: budget or window are used up.
    Halt,
}

/// Why a lane's turn ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// It has nothing more to ship now.
    Over,
    /// It had its share.
    Spent,
    /// Its destination node has no room, or it has none.
    NoRoom,
    /// No slot is free.
    NoSlot,
    /// The namespace may not ship.
    Barred,
    Halt,
}

/// Where the laps over the lanes of a namespace stand, for one class. In a lap each lane with something
/// to ship, whose node has room, has one turn.
#[derive(Clone, Copy, Debug)]
struct Rounds {
    /// The lane whose turn it is, and what is left of it.
    cursor: u32,
    turn_left: u32,
    /// No lane has had its turn since the lap began, nor counts as if it had.
    is_whole: bool,
    /// How far into what has to be read from the device the present lap reaches.
    horizon: Horizon,
    /// The last lap shipped nothing, and none will before this time, unless something happens
    /// that resets it.
    stalled_until: Tick,
    stalled_by: LimitedBy,
}

impl Rounds {
    fn new(lanes: &Range<u32>, lane_turn: u32) -> Self {
        Self {
            cursor: lanes.start,
            turn_left: lane_turn,
            is_whole: true,
            horizon: Horizon::of_lanes(lanes.len() as u32, lane_turn),
            stalled_until: Tick(0),
            stalled_by: LimitedBy::Nothing,
        }
    }

    /// Gives another lane a whole turn.
    fn pass_to(&mut self, lane: u32, lane_turn: u32) {
        (self.cursor, self.turn_left) = (lane, lane_turn);
    }
}

/// All turns of one namespace of a DC.
pub(super) struct Turns {
    pub(super) ready: Ready,
    pub(super) shares: Shares,
    live: Rounds,
    walked: Rounds,
}

impl Turns {
    /// Of a namespace with these lanes.
    pub(super) fn new(lanes: &Range<u32>, lane_turn: u32) -> Self {
        Self {
            ready: Ready::new(),
            shares: Shares::new(),
            live: Rounds::new(lanes, lane_turn),
            walked: Rounds::new(lanes, lane_turn),
        }
    }

    /// Something happened that may let changes go.
    #[inline]
    pub(super) fn wake(&mut self) {
        self.live.stalled_until = Tick(0);
        self.walked.stalled_until = Tick(0);
    }

    /// A queued change may go from `due` on.
    #[inline]
    pub(super) fn wake_at(&mut self, due: Tick) {
        self.live.stalled_until = self.live.stalled_until.min(due);
    }

    /// A walk begins, maybe far below where the one before has ended.
    pub(super) fn walk_begins(&mut self) {
        if !planted(Mutation::WalkGoesOnFar) {
            self.walked.horizon.restart();
        }
    }

    #[cfg(test)]
    pub(super) fn set_lap(&mut self, records: u32) {
        self.live.horizon = Horizon::new(records);
    }

    #[cfg(test)]
    pub(super) fn set_cursor(&mut self, lane: u32) {
        let lane_turn = crate::limits::LANE_TURN;
        self.live.pass_to(lane, lane_turn);
    }

    #[inline]
    const fn rounds(&mut self, class: Class) -> &mut Rounds {
        match class {
            Class::Live => &mut self.live,
            Class::Walked => &mut self.walked,
        }
    }
}

/// The turns of all namespaces of a DC, by block, and the lanes that have had theirs in the present
/// laps.
#[derive(Default)]
pub(super) struct Laps {
    turns: Vec<Turns>,
    gone: [Bitmap; 2],
}

impl Laps {
    /// Makes room for one more block, `lanes` lanes in all.
    pub(super) fn grow(&mut self, lanes: usize) {
        self.turns.push(Turns::new(&(0..0), 0));
        self.gone.iter_mut().for_each(|gone| gone.grow(lanes));
    }

    /// A namespace begins, with these lanes.
    pub(super) fn begin(&mut self, block: u32, lanes: Range<u32>, lane_turn: u32) {
        self[block] = Turns::new(&lanes, lane_turn);
        self.gone.iter_mut().for_each(|gone| gone.clear_in(lanes.clone()));
    }

    /// Something happened that may let changes of any namespace go.
    pub(super) fn wake_all(&mut self) {
        self.turns.iter_mut().for_each(Turns::wake);
    }

    /// Those that waited for nodes may go elsewhere.
    pub(super) fn map_changed(&mut self, slots: &mut Slots) {
        self.turns.iter_mut().for_each(|turns| turns.ready.map_changed(slots));
    }

    #[inline]
    const fn gone(&self, class: Class) -> &Bitmap {
        &self.gone[class as usize]
    }

    #[inline]
    const fn gone_mut(&mut self, class: Class) -> &mut Bitmap {
        &mut self.gone[class as usize]
    }
}

impl Index<u32> for Laps {
    type Output = Turns;

    #[inline]
    fn index(&self, block: u32) -> &Turns {
        &self.turns[block as usize]
    }
}

impl IndexMut<u32> for Laps {
    #[inline]
    fn index_mut(&mut self, block: u32) -> &mut Turns {
        &mut self.turns[block as usize]
    }
}

impl DcShard {
    #[inline]
    pub(super) fn turns_of(&mut self, lane: u32) -> &mut Turns {
        let block = self.block_of(lane);
        &mut self.laps[block]
    }

    /// Ships up to `most` changes of a namespace, and remembers what stopped it apart from what
    /// stopped others.
    pub(super) fn ship_namespace<R: Routes>(
        &mut self,
        block: u32,
        most: u32,
        lap: &mut Lap<'_, R>,
    ) -> Stop {
        let others = std::mem::take(&mut lap.limited_by);
        let stop = self.ship_kinds(block, most, lap);
        let own = std::mem::replace(&mut lap.limited_by, others);
        self.limit(block, own);
        lap.stopped(own, Tick::NEVER);
        stop
    }

    /// This is what keeps a block's namespace from shipping more.
    pub(super) fn limit(&mut self, block: u32, by: LimitedBy) {
        let namespace = self.spaces.in_block(block);
        if let Some(ns) = namespace.and_then(|namespace| self.attached_mut(namespace)) {
            ns.limited_by = by;
        }
    }

    /// Whom nothing stopped in a turn of its own may wait for a node, or had no turn: window or
    /// budget were used up.
    pub(super) fn limit_the_rest(&mut self, budget: u32) {
        for block in 0..self.spaces.blocks() {
            let lanes = self.lanes_of_block(block);
            let waits_for_node = |class| self.waits_for_node(class, &lanes);
            let by = match self.attached_in(block) {
                Some(ns) if ns.limited_by != LimitedBy::Nothing => continue,
                _ if waits_for_node(Class::Live) || waits_for_node(Class::Walked) => {
                    LimitedBy::Destination
                }
                _ if self.slots.dispatched() >= self.limits.window => LimitedBy::Window,
                _ if budget == 0 => LimitedBy::Reads,
                _ => continue,
            };
            self.limit(block, by);
        }
    }

    /// Ships up to `most` changes of a namespace.
    ///
    /// Kinds take turns, as [`shares`](super::shares) tells; finds of a recovery get all of it when
    /// nothing else can go.
    fn ship_kinds<R: Routes>(&mut self, block: u32, most: u32, lap: &mut Lap<'_, R>) -> Stop {
        let floor = lap.budget.saturating_sub(most);
        let order = self.laps[block].shares.order(self.held.released());
        loop {
            let before = lap.budget;
            let mut all_are_dry = true;
            for kind in order {
                let stop = match kind {
                    Kind::Ready => self.ship_ready_piece(block, floor, lap),
                    Kind::Live => self.ship_live_piece(block, floor, lap),
                    Kind::Walked => self.ship_owed(block, floor, lap),
                };
                // What waits in a slot needs no other, and may be all that gives one back.
                if matches!(stop, Stop::Halt | Stop::Barred) {
                    return stop;
                }
                if lap.budget == floor {
                    return Stop::Spent;
                }
                all_are_dry &= stop != Stop::Spent;
            }
            if lap.budget == before && all_are_dry {
                return self.ship_round(block, Class::Walked, lap.budget - floor, lap);
            }
            self.laps[block].shares.renew();
        }
    }

    /// Ships what recovery may claim of what has shipped.
    fn ship_owed<R: Routes>(&mut self, block: u32, floor: u32, lap: &mut Lap<'_, R>) -> Stop {
        let shares = &mut self.laps[block].shares;
        if !self.walks.has_finds(block) {
            shares.forget_walked();
            return Stop::Dry;
        }
        let owed = shares.owed().min(lap.budget - floor);
        if owed == 0 { Stop::Dry } else { self.ship_round(block, Class::Walked, owed, lap) }
    }

    fn ship_ready_piece<R: Routes>(
        &mut self,
        block: u32,
        floor: u32,
        lap: &mut Lap<'_, R>,
    ) -> Stop {
        let (left, had) = (self.laps[block].shares.ready_left, lap.budget);
        let stop = self.ship_ready(block, left.min(had - floor), lap);
        self.laps[block].shares.ready_left = left - (had - lap.budget);
        stop
    }

    fn ship_live_piece<R: Routes>(&mut self, block: u32, floor: u32, lap: &mut Lap<'_, R>) -> Stop {
        let turns = &self.laps[block];
        let (left, had) = (turns.shares.live_left, lap.budget);
        let is_alone = turns.ready.is_empty() && !self.walks.has_finds(block);
        let most = if is_alone { had - floor } else { left.min(had - floor) };
        let stop = self.ship_round(block, Class::Live, most, lap);
        self.laps[block].shares.live_left = left.saturating_sub(had - lap.budget);
        stop
    }

    /// Goes on with the round over the lanes of a class, for at most `most` changes.
    fn ship_round<R: Routes>(
        &mut self,
        block: u32,
        class: Class,
        most: u32,
        lap: &mut Lap<'_, R>,
    ) -> Stop {
        let mut rounds = *self.laps[block].rounds(class);
        if lap.now.tick < rounds.stalled_until {
            lap.stopped(rounds.stalled_by, rounds.stalled_until);
            return Stop::Dry;
        }
        let had = lap.budget;
        // What stops these lanes is remembered apart from what stopped others.
        let others = (lap.limited_by, lap.next_due);
        (lap.limited_by, lap.next_due) = (LimitedBy::Nothing, Tick::NEVER);
        let stop = self.go_round(block, class, &mut rounds, most, lap);
        if stop == Stop::Dry {
            rounds.stalled_until = lap.next_due.min(self.held.stranded_until());
            rounds.stalled_by = lap.limited_by;
        }
        let own = (lap.limited_by, lap.next_due);
        (lap.limited_by, lap.next_due) = others;
        lap.stopped(own.0, own.1);
        let shipped = had - lap.budget;
        let turns = &mut self.laps[block];
        *turns.rounds(class) = rounds;
        match class {
            Class::Live => turns.shares.count(shipped, 0),
            Class::Walked => turns.shares.count(0, shipped),
        }
        stop
    }

    fn go_round<R: Routes>(
        &mut self,
        block: u32,
        class: Class,
        rounds: &mut Rounds,
        most: u32,
        lap: &mut Lap<'_, R>,
    ) -> Stop {
        let lanes = self.lanes_of_block(block);
        let floor = lap.budget - most;
        // A lap that brings nothing counts only from its beginning on.
        let mut is_whole = rounds.is_whole;
        let mut before = lap.budget;
        loop {
            let next = self.next_lane(class, rounds.cursor..lanes.end);
            let Some(lane) = next.or_else(|| self.next_lane(class, lanes.start..rounds.cursor))
            else {
                if !self.has_lane(class, &lanes) {
                    // All wait for their nodes, and go on from here; or there are none.
                    return Stop::Dry;
                }
                self.end_turn(class, rounds);
                let all_had_their_turn = !self.waits_for_node(class, &lanes);
                let goes_on = rounds.horizon.end_lap(all_had_their_turn) || lap.budget < before;
                rounds.is_whole = self.begin_lap(class, &lanes);
                rounds.pass_to(lanes.start, self.limits.lane_turn);
                if is_whole && !goes_on {
                    return Stop::Dry;
                }
                (is_whole, before) = (true, lap.budget);
                continue;
            };
            if lap.budget == floor {
                return Stop::Spent;
            }
            if !self.can_go_on(lap) {
                return Stop::Halt;
            }
            if !self.has_slot(lap) {
                return Stop::NoSlot;
            }
            if !self.may_ship(block, lap) {
                return Stop::Barred;
            }
            if lane != rounds.cursor {
                self.end_turn(class, rounds);
                rounds.pass_to(lane, self.limits.lane_turn);
            }
            let had = lap.budget;
            let most = rounds.turn_left.min(had - floor);
            let turn = self.ship_lane(lane, class, most, &mut rounds.horizon, lap);
            let shipped = had - lap.budget;
            rounds.turn_left -= shipped;
            // A turn that is used up is over, whatever else stopped the lane: nothing of it is left to
            // be gone on with. Who met a full node has had what room there was, or no turn yet.
            let had_its_turn = turn == Turn::Over
                || turn == Turn::NoRoom && (shipped > 0 || planted(Mutation::FullNodeTakesTurns));
            if rounds.turn_left == 0 && planted(Mutation::LaneKeepsTurn) {
                rounds.turn_left = self.limits.lane_turn;
            }
            if had_its_turn || rounds.turn_left == 0 {
                self.laps.gone_mut(class).insert(lane);
                rounds.is_whole = false;
                rounds.pass_to(lane + 1, self.limits.lane_turn);
            }
            match turn {
                Turn::NoSlot => return Stop::NoSlot,
                Turn::Barred => return Stop::Barred,
                Turn::Halt => return Stop::Halt,
                Turn::Over | Turn::Spent | Turn::NoRoom => {}
            }
        }
    }

    /// Another lane is next. The last one, if it has begun its turn and has something left, is held
    /// up by a full node, and has had it: lanes of two nodes that have room alternately would
    /// otherwise begin one turn after another, and the others would never have theirs.
    fn end_turn(&mut self, class: Class, rounds: &mut Rounds) {
        if rounds.turn_left < self.limits.lane_turn && !planted(Mutation::TurnBeginsAnew) {
            self.laps.gone_mut(class).insert(rounds.cursor);
            rounds.is_whole = false;
        }
    }

    /// The lanes with something queued, and those that have had their turn.
    #[inline]
    const fn lanes_of_class(&self, class: Class) -> (&Bitmap, &Bitmap) {
        match class {
            Class::Live => (self.lanes.queued(), self.laps.gone(class)),
            Class::Walked => (self.walks.queued(), self.laps.gone(class)),
        }
    }

    /// The first lane with something to ship that no node holds up and that has not had its turn.
    #[inline]
    fn next_lane(&self, class: Class, lanes: Range<u32>) -> Option<u32> {
        let (queued, gone) = self.lanes_of_class(class);
        queued.next_in_but([self.held.lanes(), gone], lanes)
    }

    /// Whether there is a lane with something to ship that no node holds up.
    fn has_lane(&self, class: Class, lanes: &Range<u32>) -> bool {
        let (queued, _) = self.lanes_of_class(class);
        queued.next_in_but([self.held.lanes()], lanes.clone()).is_some()
    }

    /// Begins a new lap. False if some of the lanes, whose nodes are full, are not in it yet.
    fn begin_lap(&mut self, class: Class, lanes: &Range<u32>) -> bool {
        let queued = match class {
            Class::Live => self.lanes.queued(),
            Class::Walked => self.walks.queued(),
        };
        self.held.begin_lap(self.laps.gone_mut(class), queued, lanes.clone())
    }

    fn waits_for_node(&self, class: Class, lanes: &Range<u32>) -> bool {
        let (queued, _) = self.lanes_of_class(class);
        !self.held.lanes().is_empty() && queued.meets(self.held.lanes(), lanes.clone())
    }

    /// Ships up to `most` changes of a lane.
    fn ship_lane<R: Routes>(
        &mut self,
        lane: u32,
        class: Class,
        most: u32,
        horizon: &mut Horizon,
        lap: &mut Lap<'_, R>,
    ) -> Turn {
        if !self.lane_is_free(lane, lap) {
            return Turn::Over;
        }
        let (namespace, partition) = (self.namespace_of(lane), self.partition_of(lane));
        let block = self.block_of(lane);
        let from_device = self.ns_of(lane).in_memory_above;
        self.prefetch_lane_after(lane, class);
        let mut is_known = false;
        for shipped in 0..most {
            self.prefetch_entries(lane, class, shipped == 0);
            let Some(entry) = self.queue_of(lane, class).0.peek(self.queue_of(lane, class).1)
            else {
                return Turn::Over;
            };
            let lut = entry.lut.get();
            let at_once = class == Class::Walked && planted(Mutation::FindsAtOnce);
            if !at_once && !self.is_old_enough(lane, lut, lap) {
                return Turn::Over;
            }
            let is_on_device = lut <= from_device;
            if is_on_device && horizon.is_beyond(lut) {
                horizon.hold(lut);
                return Turn::Over;
            }
            if let Some(slot) = self.slots.find(&entry.digest, lane)
                && !planted(Mutation::TwoVersionsInFlight)
            {
                self.pop(lane, class);
                self.ns_of(lane).gauges.in_queue -= 1;
                self.join(slot, lut, ms_of(lap.now.tick));
                if !lap.spend_on_merge() {
                    return Turn::Halt;
                }
                continue;
            }
            if class == Class::Live && self.ahead.covers(&entry, lane) {
                self.pop(lane, class);
                let ns = self.ns_of(lane);
                ns.gauges.in_queue -= 1;
                ns.counters.merged += 1;
                if !lap.spend_on_merge() {
                    return Turn::Halt;
                }
                continue;
            }
            if !self.may_ship(block, lap) {
                return Turn::Barred;
            }
            match lap.routes.room(namespace, partition) {
                Room::Yes(node) => {
                    if !is_known {
                        is_known = true;
                        self.held.know(node, lane);
                        self.laps[block].shares.serve(node, class.kind());
                    }
                    self.pop(lane, class);
                    self.launch_entry(entry, lane, class, node, lap);
                    if is_on_device {
                        horizon.ship();
                    }
                    if self.lanes[lane].has_rested() && self.tries_after_rest(lane, node, lap.now) {
                        return Turn::Over;
                    }
                }
                Room::Full(node) => {
                    self.held.fill(node, lane);
                    return Turn::NoRoom;
                }
                Room::NoNode => {
                    if self.held.strand(lane, lap.now.tick.plus_ms(NO_NODE_MS)) {
                        self.ns_of(lane).counters.retry_no_node += 1;
                    }
                    return Turn::NoRoom;
                }
            }
            if !self.can_go_on(lap) {
                return Turn::Halt;
            }
            if !self.has_slot(lap) {
                return Turn::NoSlot;
            }
        }
        Turn::Spent
    }

    /// Whether anything can go at all; notes why not.
    #[inline]
    pub(super) fn can_go_on<R>(&self, lap: &mut Lap<'_, R>) -> bool {
        if self.slots.dispatched() >= self.limits.window {
            lap.stopped(LimitedBy::Window, Tick::NEVER);
            return false;
        }
        if lap.budget == 0 {
            lap.stopped(LimitedBy::Reads, Tick::NEVER);
            return false;
        }
        true
    }

    /// Whether a queued change finds a slot; notes if not. Those that wait have theirs.
    #[inline]
    fn has_slot<R>(&self, lap: &mut Lap<'_, R>) -> bool {
        if !self.slots.has_free() {
            lap.stopped(LimitedBy::Window, Tick::NEVER);
        }
        self.slots.has_free()
    }

    /// Whether a namespace may ship one more; notes why not.
    #[inline]
    pub(super) fn may_ship<R>(&mut self, block: u32, lap: &mut Lap<'_, R>) -> bool {
        let Some(ns) = self.attached_in(block) else { return false };
        if let Some(parked) = &ns.parked
            && !parked.may_probe(lap.now.tick)
        {
            lap.stopped(LimitedBy::Destination, parked.next_due());
            return false;
        }
        if !ns.throttle.has_token() {
            lap.stopped(LimitedBy::Throttle, ns.throttle.next_due());
            return false;
        }
        true
    }

    /// Whether a lane may ship anything new; notes why not.
    fn lane_is_free<R>(&mut self, lane: u32, lap: &mut Lap<'_, R>) -> bool {
        let place = &self.lanes[lane];
        if place.retries >= RETRY_ONLY {
            lap.stopped(LimitedBy::Destination, Tick::NEVER);
            return false;
        }
        if let Some(until_ms) = place.rests_until_ms(ms_of(lap.now.tick)) {
            lap.stopped(LimitedBy::Destination, Tick(until_ms * 1000));
            return false;
        }
        true
    }

    /// The `delay-ms` rule; notes until when it holds the lane up.
    #[inline]
    fn is_old_enough<R>(&mut self, lane: u32, lut: Lut, lap: &mut Lap<'_, R>) -> bool {
        let left_ms = self.ns_of(lane).policy.delay_left_ms(lut, lap.now.wall);
        if left_ms > 0 {
            lap.stopped(LimitedBy::Throttle, lap.now.tick.plus_ms(left_ms));
        }
        left_ms == 0
    }

    /// The lane that has its turn next: fetches its first entries into the cache.
    #[inline]
    fn prefetch_lane_after(&self, lane: u32, class: Class) {
        let block = self.lanes_of_block(self.block_of(lane));
        if class == Class::Live
            && let Some(next) = self.next_lane(class, lane + 1..block.end)
        {
            let (queue, pool) = self.lanes.queue(next);
            queue.prefetch_head(pool);
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
            Class::Live => self.lanes.queue(lane),
            Class::Walked => self.walks.queue_of(self.block_of(lane), self.lanes[lane].walking()),
        }
    }

    #[inline]
    fn pop(&mut self, lane: u32, class: Class) {
        match class {
            Class::Live => self.lanes.pop(lane),
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
        self.note_floor(lane, entry.lut.get());
        let gauges = &mut self.ns_of(lane).gauges;
        gauges.in_queue -= 1;
        gauges.in_progress += 1;
        self.launch(slot, node, lap);
    }

    /// Sends a slot that counts as dispatched on its way.
    #[inline]
    pub(super) fn launch<R>(&mut self, slot: u32, node: u16, lap: &mut Lap<'_, R>) {
        lap.budget -= 1;
        let plain_deletes = self.peer.takes_plain_deletes();
        let place = self.slots.at_mut(slot);
        place.dispatched_us = lap.now.tick.0 as u32;
        place.node = u8::try_from(node).expect("a destination has 256 nodes at most");
        let (lane, digest, lut) = (place.lane, place.digest, place.lut.get());
        let plain_delete = plain_deletes || place.has(flag::PLAIN);
        let (namespace, partition) = (self.namespace_of(lane), self.partition_of(lane));
        let ns = self.ns_of(lane);
        let clock = ns.clock;
        ns.throttle.take();
        if let Some(parked) = &mut ns.parked {
            parked.probe = Some(slot);
            self.slots.at_mut(slot).flags |= flag::PROBE;
        }
        // The record is no older than the change, and so holds all that came before.
        self.slots.at_mut(slot).covers = PackedLut::of(clock.max(lut));
        lap.out.push(Dispatch { slot, node, plain_delete, namespace, partition, digest, lut });
    }

    /// Moves a slot from one state to another, in the gauges too.
    #[inline]
    pub(super) fn set_state(&mut self, slot: u32, state: State) {
        let lane = self.slots.at(slot).lane;
        let was = self.slots.set_state(slot, state);
        self.count_state(lane, was, false);
        self.count_state(lane, state, true);
    }

    #[inline]
    pub(super) fn count_state(&mut self, lane: u32, state: State, more: bool) {
        let by = if more { 1u64 } else { 1u64.wrapping_neg() };
        if state == State::Retry {
            let retries = &mut self.lanes[lane].retries;
            *retries = retries.wrapping_add(by as u16);
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
