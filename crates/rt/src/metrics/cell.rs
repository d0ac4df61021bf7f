//! Counts that grow.

use std::cell::Cell;

/// How often something happened. Wraps after 2^64. A clone stays at what was counted so far.
#[derive(Clone, Debug, Default)]
pub struct Counter(Cell<u64>);

impl Counter {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_grows_and_wraps() {
        let counter = Counter::default();
        counter.add(41);
        counter.add(1);
        assert_eq!(counter.value(), 42);
        counter.add(u64::MAX);
        assert_eq!(counter.value(), 41);
    }
}
