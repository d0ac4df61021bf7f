//! Slots that wait for a moment: a wheel of one-millisecond buckets, and the list of those whose
//! moment has come. Both are chained through the slots themselves and own no memory per member.

use super::bitmap::Bitmap;
use super::slots::{NO_SLOT, Slot, Slots};
use crate::model::Tick;

/// Buckets: later moments wait in the last one and are looked at again from there.
const BUCKETS: u64 = 4096;

/// The millisecond a tick falls into.
#[inline]
pub(super) const fn ms_of(tick: Tick) -> u64 {
    tick.0 / 1000
}

/// The tick of a millisecond given by its low 32 bits, or `now` if that is over.
pub(super) const fn tick_of(ms: u32, now: Tick) -> Tick {
    let wait_ms = ms.wrapping_sub(ms_of(now) as u32) as i32;
    if wait_ms > 0 { Tick((ms_of(now) + wait_ms as u64) * 1000) } else { now }
}

/// The first whole millisecond at or after a tick.
#[inline]
pub(super) const fn ms_at_or_after(tick: Tick) -> u64 {
    tick.0.div_ceil(1000)
}

/// A first-in-first-out list of slots.
#[derive(Debug)]
pub(super) struct List {
    head: u32,
    tail: u32,
    len: u32,
}

impl List {
    pub(super) const EMPTY: Self = Self { head: NO_SLOT, tail: NO_SLOT, len: 0 };

    #[cfg(test)]
    pub(super) const fn len(&self) -> u32 {
        self.len
    }

    #[inline]
    pub(super) const fn is_empty(&self) -> bool {
        self.head == NO_SLOT
    }

    /// Moves all of `other` to the end.
    pub(super) fn append(&mut self, other: &mut Self, slots: &mut Slots) {
        let other = std::mem::replace(other, Self::EMPTY);
        if other.is_empty() {
            return;
        }
        if self.is_empty() {
            *self = other;
            return;
        }
        slots.at_mut(self.tail).next = other.head;
        (self.tail, self.len) = (other.tail, self.len + other.len);
    }

    #[inline]
    pub(super) fn push(&mut self, slot: u32, slots: &mut Slots) {
        slots.at_mut(slot).next = NO_SLOT;
        if self.tail == NO_SLOT {
            self.head = slot;
        } else {
            slots.at_mut(self.tail).next = slot;
        }
        self.tail = slot;
        self.len += 1;
    }

    #[inline]
    pub(super) fn pop(&mut self, slots: &Slots) -> Option<u32> {
        if self.head == NO_SLOT {
            return None;
        }
        let slot = self.head;
        self.head = slots.at(slot).next;
        if self.head == NO_SLOT {
            self.tail = NO_SLOT;
        }
        self.len -= 1;
        Some(slot)
    }
}

/// Slots ordered by the millisecond they are due.
pub(super) struct Wheel {
    heads: Box<[u32]>,
    occupied: Bitmap,
    /// Everything due up to this millisecond has been given out.
    now_ms: u64,
    len: u32,
}

impl Wheel {
    pub(super) fn new() -> Self {
        let mut occupied = Bitmap::default();
        occupied.grow(BUCKETS as usize);
        Self {
            heads: vec![NO_SLOT; BUCKETS as usize].into_boxed_slice(),
            occupied,
            now_ms: 0,
            len: 0,
        }
    }

    /// Slots waiting.
    #[cfg(test)]
    pub(super) const fn len(&self) -> u32 {
        self.len
    }

    /// Lets a slot wait until `due_ms`, or until the next millisecond if that has passed.
    pub(super) fn insert(&mut self, slot: u32, due_ms: u64, slots: &mut Slots) {
        let due_ms = due_ms.max(self.now_ms + 1);
        slots.at_mut(slot).due_ms = due_ms as u32;
        self.chain(slot, due_ms.min(self.now_ms + BUCKETS - 1), slots);
        self.len += 1;
    }

    fn chain(&mut self, slot: u32, ms: u64, slots: &mut Slots) {
        let bucket = (ms % BUCKETS) as usize;
        slots.at_mut(slot).next = self.heads[bucket];
        self.heads[bucket] = slot;
        self.occupied.insert(bucket as u32);
    }

    /// Moves what is due at `now_ms` to `due`.
    pub(super) fn advance(&mut self, now_ms: u64, slots: &mut Slots, due: &mut List) {
        if self.len == 0 {
            self.now_ms = self.now_ms.max(now_ms);
            return;
        }
        // However long nobody looked, each bucket is looked at once.
        self.now_ms = self.now_ms.max(now_ms.saturating_sub(BUCKETS));
        while self.now_ms < now_ms {
            let Some(next_ms) = self.next_ms().filter(|&ms| ms <= now_ms) else {
                self.now_ms = now_ms;
                return;
            };
            self.now_ms = next_ms;
            self.empty_bucket(now_ms, slots, due);
        }
    }

    fn empty_bucket(&mut self, now_ms: u64, slots: &mut Slots, due: &mut List) {
        let bucket = (self.now_ms % BUCKETS) as usize;
        let mut slot = std::mem::replace(&mut self.heads[bucket], NO_SLOT);
        self.occupied.remove(bucket as u32);
        while slot != NO_SLOT {
            let next = slots.at(slot).next;
            // The stored 32 bits wrap after 49 days; the distance to now is always short.
            let wait_ms = slots.at(slot).due_ms.wrapping_sub(now_ms as u32) as i32;
            if wait_ms <= 0 {
                self.len -= 1;
                due.push(slot, slots);
            } else {
                let due_ms = now_ms + u64::from(wait_ms.unsigned_abs());
                self.chain(slot, due_ms.min(self.now_ms + BUCKETS - 1), slots);
            }
            slot = next;
        }
    }

    /// The first millisecond after now with a bucket to look at.
    fn next_ms(&self) -> Option<u64> {
        let from = ((self.now_ms + 1) % BUCKETS) as u32;
        let bucket = self.occupied.next_round(from)?;
        let ahead = (u64::from(bucket) + BUCKETS - u64::from(from)) % BUCKETS;
        Some(self.now_ms + 1 + ahead)
    }

    /// When to look again.
    pub(super) fn next_due(&self) -> Tick {
        self.next_ms().map_or(Tick::NEVER, |ms| Tick(ms * 1000))
    }

    /// Moves those that are `wanted` to `out`, due or not.
    pub(super) fn take(
        &mut self,
        slots: &mut Slots,
        out: &mut List,
        wanted: impl Fn(&Slot) -> bool,
    ) {
        let mut from = 0;
        while let Some(bucket) = self.occupied.next_at(from) {
            from = bucket + 1;
            let mut slot = std::mem::replace(&mut self.heads[bucket as usize], NO_SLOT);
            while slot != NO_SLOT {
                let next = slots.at(slot).next;
                if wanted(slots.at(slot)) {
                    out.push(slot, slots);
                    self.len -= 1;
                } else {
                    slots.at_mut(slot).next = self.heads[bucket as usize];
                    self.heads[bucket as usize] = slot;
                }
                slot = next;
            }
            if self.heads[bucket as usize] == NO_SLOT {
                self.occupied.remove(bucket);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::queue::PackedLut;
    use super::super::slots::State;
    use super::*;
    use crate::model::Digest;

    fn slots(count: u32) -> Slots {
        let mut slots = Slots::new(count);
        for n in 0..i64::from(count) {
            slots.take(Digest::of_integer("", n), 0, PackedLut::ZERO, State::Retry);
        }
        slots
    }

    proptest! {
        #[test]
        fn slots_come_out_once_and_never_early(
            start in 0u64..u64::from(u32::MAX) * 2,
            dues in prop::collection::vec(0u64..20_000, 1..50),
            steps in prop::collection::vec(prop_oneof![0u64..6000, 0u64..30_000], 1..60),
        ) {
            let mut slots = slots(50);
            let (mut wheel, mut due) = (Wheel::new(), List::EMPTY);
            wheel.advance(start, &mut slots, &mut due);
            for (slot, wait) in dues.iter().enumerate() {
                wheel.insert(slot as u32, start + wait, &mut slots);
            }
            let (mut now, mut out) = (start, Vec::new());
            for step in steps {
                now += step;
                wheel.advance(now, &mut slots, &mut due);
                while let Some(slot) = due.pop(&slots) {
                    prop_assert!(start + dues[slot as usize] <= now);
                    out.push(slot);
                }
                let expected = dues.iter().filter(|&&wait| (start + wait.max(1)) <= now).count();
                prop_assert_eq!(out.len(), expected);
                prop_assert_eq!(wheel.len() as usize, dues.len() - expected);
                let next = wheel.next_due();
                let first = dues.iter().map(|wait| start + wait.max(&1)).filter(|&ms| ms > now);
                prop_assert!(next.0 / 1000 <= first.min().unwrap_or(u64::MAX / 1000));
                prop_assert!(next.0 / 1000 > now);
            }
        }
    }

    #[test]
    fn some_are_taken_and_the_others_keep_their_time() {
        let mut slots = slots(6);
        let (mut wheel, mut out) = (Wheel::new(), List::EMPTY);
        for slot in 0..6 {
            wheel.insert(slot, 1 + u64::from(slot / 2) * 3000, &mut slots);
            slots.at_mut(slot).lane = slot % 2;
        }
        wheel.take(&mut slots, &mut out, |slot| slot.lane == 1);
        assert_eq!((wheel.len(), out.len(), wheel.next_due()), (3, 3, Tick(1000)));
        let mut due = List::EMPTY;
        wheel.advance(2999, &mut slots, &mut due);
        assert_eq!(due.len(), 1);
        wheel.take(&mut slots, &mut out, |_| true);
        assert_eq!((wheel.len(), out.len(), wheel.next_due()), (0, 5, Tick::NEVER));
        out.append(&mut due, &mut slots);
        let order: Vec<u32> = std::iter::from_fn(|| out.pop(&slots)).collect();
        assert_eq!((order.len(), order.last(), due.is_empty()), (6, Some(&0), true));
    }
}
