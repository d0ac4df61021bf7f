//! A bounded lock-free ring: many producers, one consumer, and a way to learn whether the consumer
//! sleeps. Nothing here waits or makes a system call; `mailbox` adds that.
//!
//! # Safety argument
//!
//! Every slot has a *turn*. Positions count up for ever, position p uses slot p mod N (N slots, a
//! power of two of at least 2):
//!
//! | turn of slot p mod N | meaning |
//! |---|---|
//! | p | free; whoever moves `tail` from p to p + 1 may write it |
//! | p + 1 | filled; the consumer, at position p, may read it |
//! | p + N | free for the next lap |
//!
//! So at any time a slot's value belongs to one thread: the producer that moved `tail` over it
//! until it stores turn p + 1, then the consumer until it stores turn p + N. Each of these stores
//! is a Release that the next owner's load of the turn (Acquire) pairs with. Values still in slots
//! when the last handle goes are dropped by [`Ring::drop`], which finds them by their turn.
//! `tests/loom.rs` models all of it; Miri runs the tests below.
#![expect(unsafe_code, reason = "values are handed over through shared slots")]

use std::mem::MaybeUninit;

use crossbeam_utils::CachePadded;

use super::sync::{Arc, AtomicUsize, Ordering, UnsafeCell, fence};

/// Makes a ring of at least `capacity` slots (rounded up to a power of two, 2 at least).
pub fn ring<T>(capacity: usize) -> (Producer<T>, Consumer<T>) {
    let slot_count = capacity.max(2).next_power_of_two();
    let slots = (0..slot_count).map(|turn| Slot {
        turn: AtomicUsize::new(turn),
        value: UnsafeCell::new(MaybeUninit::uninit()),
    });
    let ring = Arc::new(Ring {
        slots: slots.collect(),
        tail: CachePadded::new(AtomicUsize::new(0)),
        consumer: CachePadded::new(AtomicUsize::new(AWAKE)),
        producers: AtomicUsize::new(1),
    });
    (Producer { ring: Arc::clone(&ring) }, Consumer { ring, head: 0 })
}

struct Ring<T> {
    slots: Box<[Slot<T>]>,
    /// The next position to fill. Only producers touch it.
    tail: CachePadded<AtomicUsize>,
    /// [`AWAKE`], [`ASLEEP`] or [`GONE`]. Producers read it on each push; it changes only when the
    /// consumer runs dry.
    consumer: CachePadded<AtomicUsize>,
    producers: AtomicUsize,
}

const AWAKE: usize = 0;
const ASLEEP: usize = 1;
const GONE: usize = 2;

struct Slot<T> {
    turn: AtomicUsize,
    value: UnsafeCell<MaybeUninit<T>>,
}

// SAFETY: the ring moves values between threads (hence T: Send) and never lends one: a slot's value
// is touched only by its owner at the time, see the safety argument above.
unsafe impl<T: Send> Sync for Ring<T> {}
// SAFETY: as above; nothing in the ring is tied to a thread.
unsafe impl<T: Send> Send for Ring<T> {}

impl<T> Ring<T> {
    fn slot(&self, position: usize) -> &Slot<T> {
        &self.slots[position & (self.slots.len() - 1)]
    }

    /// After something was published: whether the consumer sleeps and this call is the one to wake
    /// it.
    fn claim_wake(&self) -> Wake {
        // Pairs with the fence in `fall_asleep`. Of two threads that each store (a turn here,
        // ASLEEP there), pass their fence and load what the other stores, one at least sees the
        // other's store: the consumer sees the value, or we see that it sleeps.
        fence(Ordering::SeqCst);
        if self.consumer.load(Ordering::Relaxed) != ASLEEP {
            return Wake::No;
        }
        match self.consumer.compare_exchange(ASLEEP, AWAKE, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => Wake::Needed,
            Err(_) => Wake::No,
        }
    }
}

impl<T> Drop for Ring<T> {
    fn drop(&mut self) {
        let mask = self.slots.len() - 1;
        for (index, slot) in self.slots.iter().enumerate() {
            // No handle is left, so no push is under way, and the last handle's drop happened
            // after all of theirs (the `Arc` sees to that).
            if slot.turn.load(Ordering::Relaxed) & mask == (index + 1) & mask {
                // SAFETY: by its turn the slot holds a value that nobody took, and nobody else
                // looks any more.
                slot.value.with_mut(|value| unsafe { (*value).assume_init_drop() });
            }
        }
    }
}

/// Whether the caller has to wake the consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a consumer that is not woken sleeps for ever"]
pub enum Wake {
    /// This call found the consumer asleep: wake it. No other call is told so.
    Needed,
    /// It is awake, or another call was told to wake it.
    No,
}

/// The pushing side; one handle per clone.
pub struct Producer<T> {
    ring: Arc<Ring<T>>,
}

impl<T> Producer<T> {
    /// Puts `value` at the end; gives it back when the ring is full or the consumer gone.
    ///
    /// Never waits for anybody: a compare-and-swap, repeated only when another push succeeded.
    pub fn push(&self, value: T) -> Result<Wake, T> {
        let ring = &*self.ring;
        if ring.consumer.load(Ordering::Relaxed) == GONE {
            return Err(value);
        }
        let mut position = ring.tail.load(Ordering::Relaxed);
        let slot = loop {
            let slot = ring.slot(position);
            // Pairs with the consumer's store of p + N: its read of the former value is over.
            let ahead = slot.turn.load(Ordering::Acquire).wrapping_sub(position) as isize;
            if ahead < 0 {
                return Err(value);
            }
            if ahead > 0 {
                position = ring.tail.load(Ordering::Relaxed);
                continue;
            }
            let next = position.wrapping_add(1);
            match ring.tail.compare_exchange_weak(
                position,
                next,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => break slot,
                Err(now) => position = now,
            }
        };
        // SAFETY: the slot was free at `position` and this thread moved `tail` over it, so it is
        // this thread's until the store below.
        slot.value.with_mut(|place| unsafe { (*place).write(value) });
        // Publishes the value to the consumer's Acquire load in `pop`.
        slot.turn.store(position.wrapping_add(1), Ordering::Release);
        Ok(ring.claim_wake())
    }

    /// Whether the consumer is gone: nothing pushed is ever popped.
    pub fn is_closed(&self) -> bool {
        self.ring.consumer.load(Ordering::Relaxed) == GONE
    }

    /// Gives this handle up. Called once, before dropping it; the last one of all wakes the
    /// consumer so that it sees the end.
    pub fn leave(&self) -> Wake {
        // Release: what this producer pushed is visible to whoever sees the count at zero.
        match self.ring.producers.fetch_sub(1, Ordering::Release) {
            1 => self.ring.claim_wake(),
            _ => Wake::No,
        }
    }
}

impl<T> Clone for Producer<T> {
    fn clone(&self) -> Self {
        // Relaxed: the handle cloned keeps the count above zero.
        self.ring.producers.fetch_add(1, Ordering::Relaxed);
        Self { ring: Arc::clone(&self.ring) }
    }
}

/// The popping side; there is one.
pub struct Consumer<T> {
    ring: Arc<Ring<T>>,
    head: usize,
}

impl<T> Consumer<T> {
    /// Takes the value at the front. `None` also while the push of the front value is under way;
    /// that push will ask for a wake-up if need be.
    pub fn pop(&mut self) -> Option<T> {
        if !self.has_value() {
            return None;
        }
        let slot = self.ring.slot(self.head);
        // SAFETY: the slot is filled at `head` (`has_value`, whose Acquire load pairs with the
        // Release in `push`), so it holds a value and is ours until the store below; this reads the
        // value out once, since `head` moves on.
        let value = slot.value.with(|place| unsafe { (*place).assume_init_read() });
        // Gives the slot to the producers of the next lap.
        slot.turn.store(self.head.wrapping_add(self.ring.slots.len()), Ordering::Release);
        self.head = self.head.wrapping_add(1);
        Some(value)
    }

    /// Whether `pop` would give a value.
    pub fn has_value(&self) -> bool {
        let turn = self.ring.slot(self.head).turn.load(Ordering::Acquire);
        turn == self.head.wrapping_add(1)
    }

    /// How many pushes have begun so far. One that is under way hides those behind it from
    /// [`Self::pop`], though they have ended.
    pub fn begun(&self) -> usize {
        // Relaxed: whoever learned of a push from its producer learned of this with it.
        self.ring.tail.load(Ordering::Relaxed)
    }

    /// Whether as many have been popped.
    pub fn has_popped(&self, begun: usize) -> bool {
        self.head.wrapping_sub(begun) as isize >= 0
    }

    /// Whether every producer is gone; values may be left.
    pub fn is_abandoned(&self) -> bool {
        // Pairs with the Release in `leave`.
        self.ring.producers.load(Ordering::Acquire) == 0
    }

    /// Says that the consumer is about to sleep. True: it may; a push or the end will be told to
    /// wake it. False: there is something to see first.
    pub fn fall_asleep(&mut self) -> bool {
        self.ring.consumer.store(ASLEEP, Ordering::Relaxed);
        // Pairs with the fence in `claim_wake`.
        fence(Ordering::SeqCst);
        if self.has_value() || self.is_abandoned() {
            self.wake_up();
            return false;
        }
        true
    }

    /// Says that the consumer is awake, for whatever reason: pushes need not wake it.
    pub fn wake_up(&mut self) {
        self.ring.consumer.store(AWAKE, Ordering::Relaxed);
    }
}

impl<T> Drop for Consumer<T> {
    fn drop(&mut self) {
        self.ring.consumer.store(GONE, Ordering::Relaxed);
        while self.pop().is_some() {}
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::mem::ManuallyDrop;
    use std::rc::Rc;
    use std::thread;

    use super::*;

    #[test]
    fn a_push_that_is_under_way_hides_those_that_have_ended_behind_it() {
        let (producer, mut consumer) = ring(4);
        // A push that has its slot and has not filled it.
        let position = producer.ring.tail.fetch_add(1, Ordering::Relaxed);
        assert_eq!(producer.push(2).map_err(|_| ()), Ok(Wake::No));
        let begun = consumer.begun();
        assert_eq!((begun, consumer.pop()), (2, None));
        assert!(!consumer.has_popped(begun));
        let slot = producer.ring.slot(position);
        // SAFETY: the slot is this thread's: it moved `tail` over it.
        slot.value.with_mut(|place| unsafe { (*place).write(1) });
        slot.turn.store(position + 1, Ordering::Release);
        assert_eq!((consumer.pop(), consumer.pop()), (Some(1), Some(2)));
        assert!(consumer.has_popped(begun));
    }

    #[test]
    fn values_come_out_in_order_lap_after_lap_and_full_is_full() {
        for (asked, slots) in [(0, 2), (1, 2), (2, 2), (3, 4), (8, 8)] {
            let (producer, mut consumer) = ring(asked);
            for lap in 0..5 {
                for n in 0..slots {
                    assert_eq!(producer.push((lap, n)), Ok(Wake::No));
                }
                assert_eq!(producer.push((9, 9)), Err((9, 9)));
                for n in 0..slots {
                    assert_eq!(consumer.pop(), Some((lap, n)));
                }
                assert_eq!(consumer.pop(), None);
            }
        }
    }

    #[test]
    fn one_push_is_told_to_wake_a_sleeping_consumer() {
        let (producer, mut consumer) = ring(4);
        assert!(consumer.fall_asleep());
        assert_eq!(producer.push(1), Ok(Wake::Needed));
        assert_eq!(producer.push(2), Ok(Wake::No));
        assert!(!consumer.fall_asleep(), "values wait");
        assert_eq!(producer.push(3), Ok(Wake::No));
        while consumer.pop().is_some() {}
        assert!(consumer.fall_asleep());
        consumer.wake_up();
        assert_eq!(producer.push(4), Ok(Wake::No));
    }

    #[test]
    fn the_last_producer_to_leave_wakes_the_consumer() {
        let (producer, mut consumer) = ring::<u8>(4);
        let other = producer.clone();
        assert!(consumer.fall_asleep());
        assert_eq!(producer.leave(), Wake::No);
        assert!(!consumer.is_abandoned());
        assert_eq!(other.leave(), Wake::Needed);
        assert!(consumer.is_abandoned());
        assert!(!consumer.fall_asleep());
    }

    #[test]
    fn values_left_behind_are_dropped_once_on_either_side() {
        let counted = Rc::new(());
        let (producer, mut consumer) = ring(4);
        for _ in 0..3 {
            let _ = producer.push(Rc::clone(&counted)).unwrap();
        }
        drop(consumer.pop());
        assert_eq!(Rc::strong_count(&counted), 3);
        drop(consumer);
        assert_eq!(Rc::strong_count(&counted), 1, "the consumer takes along what it never read");
        assert!(producer.push(Rc::clone(&counted)).is_err(), "nobody will read");
        drop(producer);

        let (producer, consumer) = ring(4);
        // Stands for a push that began before the consumer went and ended after: the consumer saw
        // nothing, the slot is filled.
        let _ = producer.push(Rc::clone(&counted)).unwrap();
        let consumer = ManuallyDrop::new(consumer);
        // SAFETY: the consumer is not used or dropped any more, so its handle is this one's.
        let ring = unsafe { std::ptr::read(&consumer.ring) };
        drop(producer);
        drop(ring);
        assert_eq!(Rc::strong_count(&counted), 1);
    }

    #[test]
    fn threads_lose_and_repeat_nothing_and_each_keeps_its_order() {
        const THREADS: usize = 3;
        let each = if cfg!(miri) { 40 } else { 20_000 };
        let (producer, mut consumer) = ring(8);
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let producer = producer.clone();
                thread::spawn(move || {
                    for n in 0..each {
                        let mut value = (thread, n);
                        while let Err(back) = producer.push(value) {
                            value = back;
                            thread::yield_now();
                        }
                    }
                    let _ = producer.leave();
                })
            })
            .collect();
        let _ = producer.leave();
        let mut next = [0; THREADS];
        loop {
            let abandoned = consumer.is_abandoned();
            while let Some((thread, n)) = consumer.pop() {
                assert_eq!(n, next[thread]);
                next[thread] += 1;
            }
            if abandoned {
                break;
            }
            thread::yield_now();
        }
        assert_eq!(next, [each; THREADS]);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}
