//! Moving averages: of samples, and of a counter's speed.

use std::cell::Cell;

/// Exponentially weighted moving average of samples, each weighing the same share.
#[derive(Debug)]
pub struct Ewma {
    value: Cell<f64>,
    weight: f64,
    empty: Cell<bool>,
}

impl Ewma {
    /// An average in which the newest sample weighs `weight`, above 0 and up to 1. The last
    /// `1 / weight` samples make up about two thirds of it.
    pub const fn new(weight: f64) -> Self {
        Self { value: Cell::new(0.0), weight, empty: Cell::new(true) }
    }

    /// Takes a sample in; the first one is the average by itself.
    #[inline]
    pub fn observe(&self, sample: f64) {
        let value = self.value.get();
        let weight = if self.empty.replace(false) { 1.0 } else { self.weight };
        self.value.set(value + (sample - value) * weight);
    }

    /// The average; 0 before the first sample.
    #[inline]
    pub fn value(&self) -> f64 {
        self.value.get()
    }
}

/// Speed of a count per second, averaged over about `window_us`. Fed with the count's value from
/// time to time, at any pace.
#[derive(Debug)]
pub struct Rate {
    per_second: Cell<f64>,
    last_count: Cell<u64>,
    last_us: Cell<Option<u64>>,
    window_us: u64,
}

impl Rate {
    /// A speed of zero. `window_us` must not be 0.
    pub const fn new(window_us: u64) -> Self {
        assert!(window_us > 0, "a speed needs a span of time");
        Self {
            per_second: Cell::new(0.0),
            last_count: Cell::new(0),
            last_us: Cell::new(None),
            window_us,
        }
    }

    /// Takes in what the count was at `now_us` (monotonic). The first call only sets the start.
    pub fn observe(&self, count: u64, now_us: u64) {
        let grown = count.saturating_sub(self.last_count.get());
        let elapsed_us = match self.last_us.get() {
            Some(last_us) if now_us <= last_us => return,
            Some(last_us) => now_us - last_us,
            None => 0,
        };
        self.last_us.set(Some(now_us));
        self.last_count.set(count);
        if elapsed_us == 0 {
            return;
        }
        let speed = grown as f64 * 1e6 / elapsed_us as f64;
        let keep = (-(elapsed_us as f64) / self.window_us as f64).exp();
        self.per_second.set(self.per_second.get() * keep + speed * (1.0 - keep));
    }

    /// Counts per second.
    pub fn per_second(&self) -> f64 {
        self.per_second.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_near(value: f64, expected: f64) {
        assert!((value - expected).abs() <= expected.abs() * 0.01, "{value} is not {expected}");
    }

    #[test]
    fn an_average_starts_at_its_first_sample_and_follows() {
        let average = Ewma::new(0.5);
        assert_eq!(average.value(), 0.0);
        for (sample, expected) in [(8.0, 8.0), (16.0, 12.0), (16.0, 14.0), (0.0, 7.0)] {
            average.observe(sample);
            assert_eq!(average.value(), expected);
        }
    }

    #[test]
    fn a_rate_is_the_same_at_any_pace_of_looking() {
        for step_us in [1_000, 100_000, 1_000_000] {
            let rate = Rate::new(1_000_000);
            for now_us in (5..).step_by(step_us).take(10_000_000 / step_us + 1) {
                rate.observe(now_us as u64 / 100, now_us as u64);
            }
            assert_near(rate.per_second(), 10_000.0);
        }
    }

    #[test]
    fn a_rate_forgets_when_nothing_happens_and_ignores_time_standing_still() {
        let rate = Rate::new(1_000_000);
        rate.observe(0, 0);
        rate.observe(1000, 1_000_000);
        let busy = rate.per_second();
        rate.observe(5000, 1_000_000);
        assert_eq!(rate.per_second(), busy);
        rate.observe(1000, 11_000_000);
        assert!(rate.per_second() < busy / 1000.0);
    }
}
