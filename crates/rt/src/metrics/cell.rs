//! Counts that grow, and levels that come and go.

use std::cell::Cell;

/// How often something happened. Wraps after 2^64.
#[derive(Debug, Default)]
pub struct Counter(Cell<u64>);

impl Counter {
    /// Counts one.
    #[inline]
    pub fn increment(&self) {
        self.add(1);
    }

    /// Counts `count` at once.
    #[inline]
    pub fn add(&self, count: u64) {
        self.0.set(self.0.get().wrapping_add(count));
    }

    /// The count so far.
    #[inline]
    pub fn value(&self) -> u64 {
        self.0.get()
    }
}

/// How much there is of something now.
#[derive(Debug, Default)]
pub struct Gauge(Cell<u64>);

impl Gauge {
    /// Makes it `value`.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.set(value);
    }

    /// Makes it `count` more.
    #[inline]
    pub fn add(&self, count: u64) {
        self.0.set(self.0.get().saturating_add(count));
    }

    /// Makes it `count` less; taking away more than there is would be a fault of the caller.
    #[inline]
    pub fn subtract(&self, count: u64) {
        debug_assert!(count <= self.0.get(), "a gauge went below zero");
        self.0.set(self.0.get().saturating_sub(count));
    }

    /// The level now.
    #[inline]
    pub fn value(&self) -> u64 {
        self.0.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_grow_and_gauges_move() {
        let counter = Counter::default();
        counter.increment();
        counter.add(41);
        assert_eq!(counter.value(), 42);
        let gauge = Gauge::default();
        gauge.set(10);
        gauge.add(5);
        gauge.subtract(12);
        assert_eq!(gauge.value(), 3);
    }
}
