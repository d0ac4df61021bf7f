//! How much may be in flight towards one node now: what the node was seen to answer in a few
//! seconds, between a floor and the window.
//!
//! Every batch that is answered tells a rate: what was in flight when it was begun was answered in
//! the time it took. A batch that came back soon lets the allowance grow by what it held, one that
//! took long takes as much away, until what is in flight is what the node answers in
//! [`LATE_MS`]. So a destination slower than the backlog is never owed more than it will soon
//! answer, and over a long link the round trip is filled after a few of them.

use crate::limits::LATE_MS;

/// Batches answered within this let the allowance grow fast: a long link is no longer than that.
const PROMPT_MS: u64 = 250;
/// Within this they let it grow.
const SOON_MS: u64 = 1000;
/// For each answered record that was prompt, others that may be in flight besides.
const PROMPT_GROWTH: usize = 3;
/// What a new connection begins with.
const START: Amount = Amount { records: 4096, bytes: 1 << 20 };
/// What is always allowed: a few batches.
const FLOOR: Amount = Amount { records: 256, bytes: 128 << 10 };

/// Records and their bytes on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) records: usize,
    pub(super) bytes: usize,
}

/// A batch whose last reply has come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Landed {
    /// Records and bytes of the batch.
    pub(super) held: Amount,
    /// What was in flight when it was begun, itself included.
    pub(super) ahead: Amount,
    /// What was given and not answered then, waiting batches included.
    pub(super) given: Amount,
    /// From the beginning of its send to its last reply.
    pub(super) took_us: u64,
}

/// What may be in flight to one node now.
#[derive(Debug)]
pub(super) struct Allowance {
    now: Amount,
    window: Amount,
}

impl Allowance {
    /// Never above `window`.
    pub(super) fn new(window: Amount) -> Self {
        Self { now: START.min(window), window }
    }

    /// Whether more may be given when so much is in flight or waits for the socket.
    #[inline]
    pub(super) fn admits(&self, given: Amount) -> bool {
        given.records < self.now.records && given.bytes < self.now.bytes
    }

    /// A new connection begins small.
    pub(super) fn start_over(&mut self) {
        self.now = START.min(self.window);
    }

    /// Nothing was in flight for this long: what the node did before says less and less.
    pub(super) fn rested(&mut self, us: u64) {
        let halvings = u32::try_from(us / (SOON_MS * 1000)).unwrap_or(u32::MAX).min(63);
        let halve = |now: usize, start: usize| (now >> halvings).max(start.min(now));
        self.now.records = halve(self.now.records, START.records);
        self.now.bytes = halve(self.now.bytes, START.bytes);
    }

    /// Takes what a batch's round trip tells.
    #[inline]
    pub(super) fn landed(&mut self, landed: &Landed) {
        let Landed { held, ahead, given, took_us } = landed;
        let next = |now, held, ahead, given, floor: usize, window: usize| {
            let next = if *took_us > LATE_MS * 1000 {
                let in_time = (ahead as u64 * (LATE_MS * 1000) / took_us) as usize;
                // No faster than answers come, and so no more is given meanwhile.
                in_time.max(usize::saturating_sub(now, held)).min(now)
            } else if given * 2 < now || *took_us > SOON_MS * 1000 {
                // What it did not need says nothing about more.
                now
            } else if *took_us > PROMPT_MS * 1000 {
                now + held
            } else {
                now + held * PROMPT_GROWTH
            };
            next.max(floor).min(window)
        };
        let (now, window) = (self.now, self.window);
        self.now.records = next(
            now.records,
            held.records,
            ahead.records,
            given.records,
            FLOOR.records,
            window.records,
        );
        self.now.bytes =
            next(now.bytes, held.bytes, ahead.bytes, given.bytes, FLOOR.bytes, window.bytes);
    }
}

impl Amount {
    fn min(self, other: Self) -> Self {
        Self { records: self.records.min(other.records), bytes: self.bytes.min(other.bytes) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::limits::{WINDOW_BYTES, WINDOW_RECORDS};

    const RECORD_BYTES: usize = 250;
    const BATCH: usize = 64;
    const WINDOW: Amount = Amount { records: WINDOW_RECORDS as usize, bytes: WINDOW_BYTES };

    /// A node that answers `burst` records at the end of each `period_ms`, `link_ms` away, and a
    /// source that always has more.
    struct Link {
        allowance: Allowance,
        link_ms: u64,
        period_ms: u64,
        burst: usize,
        now_ms: u64,
        /// When each was begun, and what was in flight then; oldest first.
        flights: VecDeque<(u64, Amount)>,
        /// When its replies arrive.
        answered: VecDeque<u64>,
    }

    impl Link {
        fn new(link_ms: u64, period_ms: u64, burst: usize) -> Self {
            Self {
                allowance: Allowance::new(WINDOW),
                link_ms,
                period_ms,
                burst,
                now_ms: 0,
                flights: VecDeque::new(),
                answered: VecDeque::new(),
            }
        }

        fn in_flight(&self) -> usize {
            self.flights.len() * BATCH
        }

        /// Gives how many were answered.
        fn run(&mut self, ms: u64) -> usize {
            let mut count = 0;
            for _ in 0..ms {
                self.now_ms += 1;
                while self.answered.front().is_some_and(|at| *at <= self.now_ms) {
                    self.answered.pop_front();
                    let (begun, ahead) = self.flights.pop_front().unwrap();
                    let held = Amount { records: BATCH, bytes: BATCH * RECORD_BYTES };
                    let took_us = (self.now_ms - begun) * 1000;
                    self.allowance.landed(&Landed { held, ahead, given: ahead, took_us });
                    count += BATCH;
                }
                loop {
                    let records = self.in_flight();
                    let given = Amount { records, bytes: records * RECORD_BYTES };
                    if !self.allowance.admits(given) {
                        break;
                    }
                    let records = records + BATCH;
                    let ahead = Amount { records, bytes: records * RECORD_BYTES };
                    self.flights.push_back((self.now_ms, ahead));
                }
                if self.now_ms.is_multiple_of(self.period_ms) {
                    // Whatever has arrived by now, as much as it does at a time.
                    let arrived = self.flights.iter().skip(self.answered.len());
                    let here = |at: &&(u64, Amount)| at.0 + self.link_ms <= self.now_ms;
                    let batches = arrived.take_while(here).count().min(self.burst / BATCH);
                    let at = self.now_ms + self.link_ms;
                    self.answered.extend(std::iter::repeat_n(at, batches));
                }
            }
            count
        }
    }

    #[test]
    fn what_is_in_flight_follows_a_slow_destination() {
        for (rate, period_ms) in [(4600, 250), (2000, 500), (4600, 500), (20_000, 250)] {
            let mut link = Link::new(0, period_ms, rate * period_ms as usize / 1000);
            link.run(5000);
            for _ in 0..20 {
                let answered = link.run(1000);
                assert!(answered * 10 >= rate * 9, "{answered} of {rate}");
                let most = rate * 3;
                assert!(link.in_flight() <= most, "{} in flight at {rate}/s", link.in_flight());
            }
        }
    }

    #[test]
    fn a_long_link_is_filled_within_a_second() {
        let mut link = Link::new(78, 1, 800);
        link.run(1000);
        let answered = link.run(1000);
        assert!(answered > 730_000, "{answered} of 768,000 in the second second");
    }

    #[test]
    fn a_destination_that_becomes_slow_is_followed_down_and_up_again() {
        let mut link = Link::new(5, 1, 100 * BATCH);
        link.run(1000);
        let before = link.in_flight();
        assert!(before > 64_000);
        (link.period_ms, link.burst) = (100, 50 * BATCH);
        link.run(15_000);
        assert!(link.in_flight() <= 32_000 * 3, "{}", link.in_flight());
        (link.period_ms, link.burst) = (1, 100 * BATCH);
        link.run(5000);
        assert!(link.run(1000) > 5_000_000);
    }

    #[test]
    fn large_records_are_bounded_by_their_bytes_and_one_may_always_go() {
        let mut allowance = Allowance::new(WINDOW);
        let large = Amount { records: 1, bytes: 1 << 20 };
        assert!(allowance.admits(Amount::default()) && !allowance.admits(large));
        let slow = Landed { held: large, ahead: large, given: large, took_us: 99_000_000 };
        (0..5000).for_each(|_| allowance.landed(&slow));
        assert_eq!(allowance.now, FLOOR);
        let prompt = Landed { took_us: 1000, ..slow };
        (0..100).for_each(|_| allowance.landed(&prompt));
        assert!(allowance.admits(Amount { records: 2, bytes: 2 << 20 }));
    }

    #[test]
    fn rest_takes_back_what_was_allowed_down_to_the_start() {
        let mut link = Link::new(78, 1, 800);
        link.run(3000);
        let full = link.allowance.now.records;
        link.allowance.rested(999_999);
        assert_eq!(link.allowance.now.records, full);
        link.allowance.rested(2_000_000);
        assert_eq!(link.allowance.now.records, full / 4);
        link.allowance.rested(60_000_000);
        assert_eq!(link.allowance.now, START);
    }
}
