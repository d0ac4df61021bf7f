//! Records per second, by token bucket.

use super::mutation::{Mutation, planted};
use crate::model::Tick;

/// A bucket that holds a tenth of a second's worth.
#[derive(Clone, Copy, Debug)]
pub(super) struct Throttle {
    per_s: u32,
    /// Millionths of a record.
    credit: u64,
    filled: Tick,
}

const RECORD: u64 = 1_000_000;

impl Throttle {
    /// A full bucket: a tenth of a second's records may go at once, and one at least.
    pub(super) fn new(per_s: u32, now: Tick) -> Self {
        Self { per_s, credit: Self::full(per_s), filled: now }
    }

    /// Changes the rate and keeps the credit.
    pub(super) fn set_rate(&mut self, per_s: u32) {
        self.per_s = per_s;
        self.credit = self.credit.min(Self::full(per_s));
    }

    fn full(per_s: u32) -> u64 {
        (u64::from(per_s) * RECORD / 10).max(RECORD)
    }

    /// Adds what has come in since the last call.
    #[inline]
    pub(super) fn refill(&mut self, now: Tick) {
        let gained = now.us_since(self.filled).saturating_mul(u64::from(self.per_s));
        self.credit = self.credit.saturating_add(gained).min(Self::full(self.per_s));
        self.filled = self.filled.max(now);
    }

    #[inline]
    pub(super) const fn has_token(&self) -> bool {
        self.credit >= RECORD
    }

    /// Whether it would have a token then. Who waits for one is told of a millisecond's worth.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn has_token_at(mut self, now: Tick) -> bool {
        let has = self.has_token();
        self.refill(now);
        let worth = (u64::from(self.per_s) * 1000).clamp(RECORD, Self::full(self.per_s));
        has || self.credit >= worth
    }

    #[inline]
    pub(super) const fn take(&mut self) {
        self.credit = self.credit.saturating_sub(RECORD);
    }

    /// When it is worth asking again: a millisecond's worth, but at least one record.
    pub(super) fn next_due(&self) -> Tick {
        if self.per_s == 0 || planted(Mutation::TokenUntold) {
            return Tick::NEVER;
        }
        let wanted = (u64::from(self.per_s) * 1000).clamp(RECORD, Self::full(self.per_s));
        let missing = wanted.saturating_sub(self.credit);
        self.filled.plus_us(missing.div_ceil(u64::from(self.per_s)).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken_in_a_second(per_s: u32, step_us: u64) -> u64 {
        let mut throttle = Throttle::new(per_s, Tick(0));
        while throttle.has_token() {
            throttle.take();
        }
        let mut taken = 0;
        for now in (0..=1_000_000).step_by(step_us as usize) {
            throttle.refill(Tick(now));
            while throttle.has_token() {
                throttle.take();
                taken += 1;
            }
        }
        taken
    }

    #[test]
    fn the_rate_holds_however_often_it_is_asked() {
        for per_s in [1, 100, 12_300, 5_000_000] {
            for step_us in [10, 1000, 50_000] {
                assert_eq!(taken_in_a_second(per_s, step_us), u64::from(per_s));
            }
        }
    }

    #[test]
    fn a_rate_of_zero_is_never_due() {
        let mut throttle = Throttle::new(0, Tick(0));
        throttle.take();
        throttle.refill(Tick(u64::MAX / 2));
        assert!(!throttle.has_token());
        assert_eq!(throttle.next_due(), Tick::NEVER);
    }

    #[test]
    fn due_is_when_a_token_is_there() {
        for per_s in [1, 100, 100_000] {
            let mut throttle = Throttle::new(per_s, Tick(0));
            while throttle.has_token() {
                throttle.take();
            }
            let due = throttle.next_due();
            throttle.refill(due);
            assert!(throttle.has_token() && due.0 <= 1_000_000);
        }
    }
}
