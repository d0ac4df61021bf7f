//! What is dispatched or waits for another try: one cache line each, and a table that finds them by
//! digest, so that one version of a record is on its way to a DC at any time.

use crate::model::{Digest, Lut, Tick};
use longship_rt::random::random_u64;
// The rule that ship/ knows nothing of longship-rt is broken for a hint that decides nothing.
use longship_rt::prefetch::prefetch;

use super::queue::PackedLut;
use super::verdict::Sent;

/// No slot.
pub(super) const NO_SLOT: u32 = u32::MAX;
/// No namespace waits for a discarded change.
pub(super) const NOBODY: u32 = u32::MAX;

/// Where a slot's change stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum State {
    Free,
    /// Being read, sent or answered.
    Dispatched,
    /// Waits for another try.
    Retry,
    /// Waits for a moment, not for a cause to pass: until its key is old enough, or for its turn
    /// after the older version or the dead connection.
    Due,
    /// Answered, but an unread copy on a dead connection may still undo it: ships once more.
    /// Not found by digest.
    Grace,
    /// Given up; waits until its dead letter is kept. Not found by digest.
    Dead,
}

/// Facts about a slot, one bit each.
pub(super) mod flag {
    /// Found by a recovery walk.
    pub(in crate::ship) const WALKED: u8 = 0x01;
    /// To be sent as a plain delete.
    pub(in crate::ship) const PLAIN: u8 = 0x02;
    /// Was left unanswered on a dead connection without a fence.
    pub(in crate::ship) const OWES_GRACE: u8 = 0x04;
    /// Probes a parked namespace.
    pub(in crate::ship) const PROBE: u8 = 0x08;
    /// Its namespace was detached, and the slot's lane tells which that was.
    pub(in crate::ship) const DISCARDED: u8 = 0x10;
    /// A newer change of the record waits for this one's verdict.
    pub(in crate::ship) const AGAIN: u8 = 0x20;
    /// Sent as a delete.
    pub(in crate::ship) const DELETE: u8 = 0x40;
    /// Sent as a durable delete, with [`DELETE`].
    pub(in crate::ship) const DURABLE: u8 = 0x80;
}

/// One change on its way.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Slot {
    pub(super) digest: Digest,
    /// With [`flag::DISCARDED`]: the number of its namespace, or [`NOBODY`] if nothing was sent.
    pub(super) lane: u32,
    /// When it was dispatched last: the low 32 bits of that microsecond. After 71 minutes on its way
    /// it counts as dispatched later; by then nothing is feared of what went before.
    pub(super) dispatched_us: u32,
    /// How much older than `lut` the oldest write is that it stands for and that has not shipped, in
    /// ms. A merge passes a write on; it does not make what is to ship any younger.
    older_ms: u32,
    /// Millisecond it waits for, or its successor will wait for.
    pub(super) due_ms: u32,
    /// With [`flag::OWES_GRACE`]: an answer to a dispatch before this millisecond settles nothing.
    /// Without it, in a change that was refused: what its node had taken until then.
    pub(super) grace_ms: u32,
    /// Next in the list it waits in, or in the free list.
    pub(super) next: u32,
    /// The change. Never above the LUT of the record as it is now.
    pub(super) lut: PackedLut,
    /// The newer change, with [`flag::AGAIN`].
    pub(super) again: PackedLut,
    /// The record as it was read for sending holds all its changes below this. Before it is read:
    /// as it will be read, at least.
    pub(super) covers: PackedLut,
    state: State,
    pub(super) flags: u8,
    /// Tries that the destination did not take, for whatever reason.
    pub(super) attempts: u8,
    pub(super) strikes: Strikes,
    /// Where it was dispatched to last.
    pub(super) node: u8,
}

/// What counts against a change itself, each kind apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Strikes(u8);

impl Strikes {
    const READS: u8 = 0x0F;
    const REFUSAL: u8 = 0x10;
    const REFUSALS: u8 = 0x30;
    const OWN: u8 = 0x40;

    /// Reads of its record that failed: 15 stand for more.
    pub(super) const fn failed_reads(self) -> u8 {
        self.0 & Self::READS
    }

    pub(super) const fn read_failed(&mut self) {
        if self.failed_reads() < Self::READS {
            self.0 += 1;
        }
    }

    /// Refusals that may be its own: 3 stand for more.
    pub(super) const fn refusals(self) -> u8 {
        (self.0 & Self::REFUSALS) / Self::REFUSAL
    }

    /// Whether others got through between two of them.
    pub(super) const fn is_own(self) -> bool {
        self.0 & Self::OWN != 0
    }

    pub(super) const fn refused(&mut self, is_own: bool) {
        if self.0 & Self::REFUSALS != Self::REFUSALS {
            self.0 += Self::REFUSAL;
        }
        if is_own {
            self.0 |= Self::OWN;
        }
    }
}

const _: () = assert!(size_of::<Slot>() == 64);

impl Slot {
    #[inline]
    pub(super) const fn state(&self) -> State {
        self.state
    }

    #[inline]
    pub(super) const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Kind of request that was last sent for it, by which a reply is judged.
    #[inline]
    pub(super) const fn sent_as(&self) -> Sent {
        match (self.has(flag::DELETE), self.has(flag::DURABLE)) {
            (false, _) => Sent::Write,
            (true, false) => Sent::Delete,
            (true, true) => Sent::DurableDelete,
        }
    }

    /// How long it has been on its way, in microseconds.
    #[inline]
    pub(super) const fn flight_us(&self, now: Tick) -> u32 {
        (now.0 as u32).wrapping_sub(self.dispatched_us)
    }

    /// Lets it stand for changes from `oldest` to `lut`.
    #[inline]
    pub(super) fn stand_for(&mut self, oldest: Lut, lut: Lut) {
        self.lut = PackedLut::of(lut);
        self.older_ms = lut.ms().saturating_sub(oldest.ms()).try_into().unwrap_or(u32::MAX);
    }

    /// Whether it stands for several writes.
    #[inline]
    pub(super) const fn is_merged(&self) -> bool {
        self.has(flag::AGAIN) || self.older_ms > 0
    }

    /// The oldest write it stands for, however many have superseded it.
    #[inline]
    pub(super) fn oldest(&self) -> Lut {
        self.lut.get().minus_ms(u64::from(self.older_ms))
    }

    /// The highest LUT it stands for.
    #[inline]
    pub(super) fn highest(&self) -> Lut {
        if self.has(flag::AGAIN) { self.lut.get().max(self.again.get()) } else { self.lut.get() }
    }

    /// The lowest LUT it stands for.
    #[inline]
    pub(super) fn lowest(&self) -> Lut {
        if self.has(flag::AGAIN) { self.lut.get().min(self.again.get()) } else { self.lut.get() }
    }
}

/// All slots of a DC, at most `capacity`.
pub(super) struct Slots {
    slots: Vec<Slot>,
    free: u32,
    used: u32,
    /// Of these, in [`State::Dispatched`] and in [`State::Due`].
    dispatched: u32,
    due: u32,
    capacity: u32,
    table: Table,
    /// Of the table's hash: clients choose digests.
    key: u64,
}

impl Slots {
    pub(super) fn new(capacity: u32) -> Self {
        Self {
            slots: Vec::with_capacity(capacity as usize),
            free: NO_SLOT,
            used: 0,
            dispatched: 0,
            due: 0,
            capacity,
            table: Table::new(),
            key: random_u64(),
        }
    }

    /// The lane only keeps namespaces apart.
    #[inline]
    fn hash(&self, digest: &Digest, lane: u32) -> u32 {
        digest.hash_under(self.key) as u32 ^ lane
    }

    /// Slots in use.
    pub(super) const fn used(&self) -> u32 {
        self.used
    }

    /// Slots in [`State::Dispatched`].
    #[inline]
    pub(super) const fn dispatched(&self) -> u32 {
        self.dispatched
    }

    /// Slots in [`State::Due`].
    #[inline]
    pub(super) const fn due(&self) -> u32 {
        self.due
    }

    /// Moves a slot to another state; gives the one it was in.
    #[inline]
    pub(super) fn set_state(&mut self, slot: u32, state: State) -> State {
        let was = std::mem::replace(&mut self.slots[slot as usize].state, state);
        self.count(was, u32::MAX);
        self.count(state, 1);
        was
    }

    /// Adds to the number of slots in a state, without a carry.
    #[inline]
    const fn count(&mut self, state: State, by: u32) {
        match state {
            State::Dispatched => self.dispatched = self.dispatched.wrapping_add(by),
            State::Due => self.due = self.due.wrapping_add(by),
            State::Free | State::Retry | State::Grace | State::Dead => {}
        }
    }

    /// One above the highest slot ever used.
    pub(super) const fn high(&self) -> u32 {
        self.slots.len() as u32
    }

    /// Bytes of slots ever used and of the digest table.
    pub(super) fn bytes(&self) -> usize {
        self.slots.len() * size_of::<Slot>() + self.table.bytes()
    }

    #[inline]
    pub(super) const fn has_free(&self) -> bool {
        self.used < self.capacity
    }

    #[inline]
    pub(super) fn at(&self, slot: u32) -> &Slot {
        &self.slots[slot as usize]
    }

    #[inline]
    pub(super) fn at_mut(&mut self, slot: u32) -> &mut Slot {
        &mut self.slots[slot as usize]
    }

    /// The slot of a digest of a lane (and so of a namespace).
    #[inline]
    pub(super) fn find(&self, digest: &Digest, lane: u32) -> Option<u32> {
        self.table.find(self.hash(digest, lane), |slot| {
            let slot = &self.slots[slot as usize];
            slot.lane == lane && slot.digest == *digest
        })
    }

    /// Fetches what [`Slots::find`] and [`Slots::take`] of a digest touch into the cache.
    #[inline]
    pub(super) fn prefetch(&self, digest: &Digest, lane: u32) {
        self.table.prefetch(self.hash(digest, lane));
    }

    /// Fetches what settling these slots touches into the cache.
    #[inline]
    pub(super) fn prefetch_listed(&self, slots: impl Iterator<Item = u32> + Clone) {
        slots.clone().for_each(|slot| prefetch(self.at(slot)));
        slots.for_each(|slot| self.prefetch(&self.at(slot).digest, self.at(slot).lane));
    }

    /// Takes a slot for a digest that has none. The caller has seen [`Slots::has_free`].
    #[inline]
    pub(super) fn take(&mut self, digest: Digest, lane: u32, lut: PackedLut, state: State) -> u32 {
        debug_assert!(self.has_free());
        let fresh = Slot {
            digest,
            lane,
            dispatched_us: 0,
            older_ms: 0,
            due_ms: 0,
            grace_ms: 0,
            next: NO_SLOT,
            lut,
            again: PackedLut::ZERO,
            covers: PackedLut::ZERO,
            state,
            flags: 0,
            attempts: 0,
            strikes: Strikes::default(),
            node: 0,
        };
        let slot = if self.free == NO_SLOT {
            self.slots.push(fresh);
            self.slots.len() as u32 - 1
        } else {
            let slot = self.free;
            let place = &mut self.slots[slot as usize];
            self.free = place.next;
            *place = fresh;
            slot
        };
        self.used += 1;
        self.count(state, 1);
        let hash = self.hash(&digest, lane);
        self.table.insert(hash, slot);
        slot
    }

    /// Makes a slot findable again.
    pub(super) fn enlist(&mut self, slot: u32) {
        let (digest, lane) = (self.at(slot).digest, self.at(slot).lane);
        let hash = self.hash(&digest, lane);
        self.table.insert(hash, slot);
    }

    /// Keeps a slot but makes it unfindable.
    #[inline]
    pub(super) fn unlist(&mut self, slot: u32) {
        let (digest, lane) = (self.at(slot).digest, self.at(slot).lane);
        let hash = self.hash(&digest, lane);
        self.table.remove(hash, slot);
    }

    /// Frees a slot that is not findable any more.
    #[inline]
    pub(super) fn free_unlisted(&mut self, slot: u32) {
        let was = self.set_state(slot, State::Free);
        debug_assert!(was != State::Free);
        self.slots[slot as usize].next = self.free;
        self.free = slot;
        self.used -= 1;
    }

    /// Frees a findable slot.
    #[inline]
    pub(super) fn free(&mut self, slot: u32) {
        self.unlist(slot);
        self.free_unlisted(slot);
    }
}

/// Open addressing with linear probing: hash in the high half, slot in the low half of a word.
/// Grows by doubling and never shrinks, so that the steady state does not allocate.
struct Table {
    words: Vec<u64>,
    used: usize,
}

const VACANT: u64 = u64::MAX;

impl Table {
    fn new() -> Self {
        Self { words: vec![VACANT; 1024], used: 0 }
    }

    fn bytes(&self) -> usize {
        self.words.len() * size_of::<u64>()
    }

    #[inline]
    fn find(&self, hash: u32, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let mask = self.words.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let word = self.words[at];
            if word == VACANT {
                return None;
            }
            if (word >> 32) as u32 == hash && is_it(word as u32) {
                return Some(word as u32);
            }
            at = (at + 1) & mask;
        }
    }

    #[inline]
    fn prefetch(&self, hash: u32) {
        prefetch(&self.words[hash as usize & (self.words.len() - 1)]);
    }

    #[inline]
    fn insert(&mut self, hash: u32, slot: u32) {
        if self.used * 2 >= self.words.len() {
            self.grow();
        }
        self.used += 1;
        Self::place(&mut self.words, u64::from(hash) << 32 | u64::from(slot));
    }

    #[inline]
    fn place(words: &mut [u64], word: u64) {
        let mask = words.len() - 1;
        let mut at = (word >> 32) as usize & mask;
        while words[at] != VACANT {
            at = (at + 1) & mask;
        }
        words[at] = word;
    }

    #[cold]
    fn grow(&mut self) {
        let mut words = vec![VACANT; self.words.len() * 2];
        for &word in self.words.iter().filter(|&&word| word != VACANT) {
            Self::place(&mut words, word);
        }
        self.words = words;
    }

    /// Removes by shifting followers back, so that no tombstones slow later probes.
    #[inline]
    fn remove(&mut self, hash: u32, slot: u32) {
        let mask = self.words.len() - 1;
        let sought = u64::from(hash) << 32 | u64::from(slot);
        let mut hole = hash as usize & mask;
        while self.words[hole] != sought {
            assert!(self.words[hole] != VACANT, "slot {slot} is not in the digest table");
            hole = (hole + 1) & mask;
        }
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let word = self.words[at];
            if word == VACANT {
                break;
            }
            let home = (word >> 32) as usize & mask;
            if at.wrapping_sub(home) & mask >= at.wrapping_sub(hole) & mask {
                self.words[hole] = word;
                hole = at;
            }
        }
        self.words[hole] = VACANT;
        self.used -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn digest(n: u16) -> Digest {
        // Few distinct hashes, so that probes collide and wrap.
        let mut bytes = [0; 20];
        bytes[8] = (n % 7) as u8;
        bytes[9] = 0xFF;
        bytes[18..].copy_from_slice(&n.to_le_bytes());
        Digest(bytes)
    }

    proptest! {
        #[test]
        fn slots_are_found_by_digest_until_freed(
            ops in prop::collection::vec((0u16..60, 0u32..3, any::<bool>()), 0..300)
        ) {
            let mut slots = Slots::new(100);
            let mut model: HashMap<(u16, u32), u32> = HashMap::new();
            for (n, lane, add) in ops {
                match (slots.find(&digest(n), lane), add) {
                    (None, true) if slots.has_free() => {
                        let slot = slots.take(digest(n), lane, PackedLut::ZERO, State::Dispatched);
                        model.insert((n, lane), slot);
                    }
                    (Some(slot), false) => {
                        prop_assert_eq!(model.remove(&(n, lane)), Some(slot));
                        slots.free(slot);
                    }
                    _ => {}
                }
                for (&(n, lane), &slot) in &model {
                    prop_assert_eq!(slots.find(&digest(n), lane), Some(slot));
                }
                prop_assert_eq!(slots.used() as usize, model.len());
            }
        }
    }

    #[test]
    fn the_table_grows_and_keeps_what_it_holds() {
        let mut slots = Slots::new(10_000);
        let taken: Vec<u32> = (0..10_000)
            .map(|n| slots.take(Digest::of_integer("", n), 0, PackedLut::ZERO, State::Retry))
            .collect();
        assert!(!slots.has_free());
        for (n, &slot) in taken.iter().enumerate() {
            assert_eq!(slots.find(&Digest::of_integer("", n as i64), 0), Some(slot));
            assert_eq!(slots.find(&Digest::of_integer("", n as i64), 1), None);
        }
    }
}
