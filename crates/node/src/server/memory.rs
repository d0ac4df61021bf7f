//! The memory of a shard's client connections: what all of them together may hold beyond the little
//! that each has for itself, and which of them is closed when that runs short.
//!
//! Two pools. The request pool holds requests that are coming in, the reply pool replies that are
//! going out. A frame too large for the buffer a connection has for itself waits in line for all of
//! its memory before it is received further; a request whose reply may be large waits for room
//! before it is carried out. Small requests of others never wait. A larger buffer for a burst is
//! something a connection can do without. It comes out of the first half of a pool only, and goes
//! back when the pool gets tight or the connection idle.
//!
//! Connections cannot wait for each other in a circle. One that holds memory of the reply pool
//! never waits for the request pool, and one in line for a pool holds nothing that those before it
//! need. So each wait ends with a client: it sends the rest of its request, or reads its reply. A
//! client that does neither while a pool is tight is closed, see [`PATIENCE_US`].

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use crate::limits::{PATIENCE_US, PATIENCE_US_PER_MB, REPLY_POOL_BYTES, REQUEST_POOL_BYTES};
use crate::server::turnstile::Turnstile;
use longship_rt::shard::{need_preempt, yield_now};

/// Between two looks at who holds memory.
pub const LOOK_EVERY_US: u64 = 250_000;
/// What an idle connection still holds after this goes back.
const IDLE_US: u64 = 500_000;

/// The pools of a shard.
#[derive(Debug)]
pub struct Memory {
    /// Requests coming in.
    pub requests: Turnstile,
    /// Replies going out.
    pub replies: Turnstile,
    /// Not memory but time: see [`Memory::turn`].
    turns: Turnstile,
}

impl Memory {
    /// For messages of so many bytes at most; `replies_told` hears how much of the reply pool is in
    /// use.
    pub fn new(message_bytes_max: usize, replies_told: Arc<AtomicUsize>) -> Self {
        let requests = Turnstile::new(REQUEST_POOL_BYTES.max(2 * message_bytes_max));
        let turns = Turnstile::new(1);
        Self { requests, replies: Turnstile::telling(REPLY_POOL_BYTES, replies_told), turns }
    }

    /// Waits for one's turn to do much at once: to make or send large replies, or to close a
    /// connection that holds many bytes. One does so at a time, and between two of them everybody
    /// else goes on: whoever asks little waits for one of them, and not for the hundreds in line.
    pub async fn turn(&self) {
        if !self.turns.is_full() && !need_preempt() {
            return;
        }
        let turn = self.turns.enter(1).await;
        yield_now().await;
        drop(turn);
    }

    /// Whether slow clients are to be closed.
    pub fn is_tight(&self) -> bool {
        self.requests.is_tight() || self.replies.is_tight()
    }
}

/// What one connection holds, for whoever looks after the pools.
#[derive(Debug, Default)]
pub struct Holding {
    /// Of both pools.
    bytes: Cell<usize>,
    /// It waits for its client to send or to read.
    waits: Cell<bool>,
    /// Has got a whole request or sent a whole reply since the last look.
    moved: Cell<bool>,
    /// Last look at which it had, or held nothing, or did not wait for its client.
    since_us: Cell<u64>,
    /// It is to give back what it does not need now.
    give_back: Cell<bool>,
}

/// What is to be done about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Care {
    /// Nothing.
    Leave,
    /// It is told to give back what it does not need; see [`Holding::is_told_to_give_back`].
    Nudge,
    /// It is too slow.
    Close,
}

impl Holding {
    /// Whether it holds anything.
    pub fn holds(&self) -> bool {
        self.bytes.get() > 0
    }

    /// It holds so much now.
    #[inline]
    pub fn set(&self, bytes: usize) {
        self.bytes.set(bytes);
    }

    /// It begins to wait for its client, or waits no more.
    #[inline]
    pub fn waits_for_client(&self, waits: bool) {
        self.waits.set(waits);
    }

    /// It has got a whole request, or sent replies.
    #[inline]
    pub fn moves(&self) {
        self.moved.set(true);
    }

    /// Whether it is to give back what it can; once.
    pub fn is_told_to_give_back(&self) -> bool {
        self.give_back.take()
    }

    /// A look at it, every [`LOOK_EVERY_US`].
    pub fn look(&self, now_us: u64, is_tight: bool) -> Care {
        let is_busy = self.moved.take() || !self.waits.get();
        if is_busy || self.bytes.get() == 0 || self.since_us.get() == 0 {
            self.since_us.set(now_us);
            return Care::Leave;
        }
        let still_us = now_us.saturating_sub(self.since_us.get());
        let patience_us = PATIENCE_US + ((self.bytes.get() as u64 * PATIENCE_US_PER_MB) >> 20);
        if is_tight && still_us >= patience_us {
            return Care::Close;
        }
        if still_us >= IDLE_US {
            self.give_back.set(true);
            return Care::Nudge;
        }
        Care::Leave
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::time::{Duration, Instant};

    use longship_rt::shard::{Queue, ShardSpec, spawn, spawn_shard};

    use super::*;

    const SECOND: u64 = 1_000_000;

    #[test]
    fn who_asks_little_waits_for_few_of_many_that_do_much() {
        const CROWD: usize = 200;
        let spec = ShardSpec { index: 0, core: None, name: "shard-0".into() };
        let shard = spawn_shard(spec, || async {
            let memory = Rc::new(Memory::new(1 << 20, Arc::default()));
            let done = Rc::new(Cell::new(0_usize));
            for _ in 0..CROWD {
                let (memory, done) = (Rc::clone(&memory), Rc::clone(&done));
                spawn(Queue::Sockets, async move {
                    for _ in 0..5 {
                        memory.turn().await;
                        let begin = Instant::now();
                        while begin.elapsed() < Duration::from_micros(50) {}
                        done.set(done.get() + 1);
                    }
                });
            }
            let mut between = Vec::new();
            while done.get() < 5 * CROWD {
                let before = done.get();
                yield_now().await;
                between.push(done.get() - before);
            }
            between.sort_unstable();
            between
        });
        let between = shard.unwrap().join();
        let [.., worst] = between[..] else { panic!("it never ran") };
        assert!(worst < CROWD / 10, "{worst} of {CROWD} before one that asks little");
    }

    #[test]
    fn who_holds_memory_and_does_not_move_is_closed_while_it_is_tight() {
        let holding = Holding::default();
        holding.set(1 << 20);
        assert_eq!(holding.look(SECOND, true), Care::Leave);
        assert_eq!(holding.look(99 * SECOND, true), Care::Leave, "it does not wait for its client");
        holding.waits_for_client(true);
        holding.moves();
        assert_eq!(holding.look(SECOND, true), Care::Leave);
        assert_eq!(holding.look(2 * SECOND, true), Care::Nudge);
        assert!(holding.is_told_to_give_back() && !holding.is_told_to_give_back());
        assert_eq!(holding.look(3 * SECOND, false), Care::Nudge, "others have enough");
        assert_eq!(holding.look(5 * SECOND / 2 - 1, true), Care::Nudge);
        assert_eq!(holding.look(5 * SECOND / 2, true), Care::Close, "1 s, and more for its MB");
    }

    #[test]
    fn who_moves_or_holds_nothing_is_left_alone() {
        let holding = Holding::default();
        for second in 1..100 {
            assert_eq!(holding.look(second * SECOND, true), Care::Leave, "it holds nothing");
        }
        holding.set(100_000);
        holding.waits_for_client(true);
        for second in 100..200 {
            holding.moves();
            assert_eq!(holding.look(second * SECOND, true), Care::Leave);
        }
        assert_eq!(holding.look(202 * SECOND, true), Care::Close);
    }
}
