//! Histogram of durations or sizes in fixed memory.
//!
//! Log-linear: values below 32 have a bucket each; every power of two above is cut into 32 equal
//! buckets, so that a quantile is at most 1/32 (3.2 %) too high and never too low. 1184 buckets,
//! 9.5 KB.

use std::cell::Cell;

/// Buckets per power of two: 2^5.
const SPLIT_BITS: u32 = 5;
const SPLIT: usize = 1 << SPLIT_BITS;
/// Values from 2^41 on share the last bucket: 25 days in microseconds.
const VALUE_BITS: u32 = 41;
const BUCKETS: usize = (VALUE_BITS - SPLIT_BITS + 1) as usize * SPLIT;

/// The bucket of a value.
#[inline]
const fn bucket_of(value: u64) -> usize {
    if value < SPLIT as u64 {
        return value as usize;
    }
    if value >> VALUE_BITS != 0 {
        return BUCKETS - 1;
    }
    // How far the leading `SPLIT_BITS + 1` bits are shifted up: 0 for 32..64, 1 for 64..128.
    let shift = 63 - value.leading_zeros() - SPLIT_BITS;
    shift as usize * SPLIT + (value >> shift) as usize
}

/// The largest value of a bucket.
const fn highest_in(bucket: usize) -> u64 {
    if bucket < 2 * SPLIT {
        return bucket as u64;
    }
    let shift = bucket / SPLIT - 1;
    let leading = (bucket - shift * SPLIT) as u64;
    ((leading + 1) << shift) - 1
}

/// Counts values by size. One writer; see the module for its precision.
#[derive(Debug)]
pub struct Histogram {
    buckets: Box<[Cell<u64>; BUCKETS]>,
    sum: Cell<u64>,
    max: Cell<u64>,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: Box::new([const { Cell::new(0) }; BUCKETS]),
            sum: Cell::new(0),
            max: Cell::new(0),
        }
    }
}

impl Histogram {
    /// Counts a value. Cost: a few instructions and one cache line of the table.
    #[inline]
    pub fn record(&self, value: u64) {
        self.record_many(value, 1);
    }

    /// Counts a value that occurred `times` times.
    #[inline]
    pub fn record_many(&self, value: u64, times: u64) {
        let bucket = &self.buckets[bucket_of(value)];
        bucket.set(bucket.get() + times);
        self.sum.set(self.sum.get().wrapping_add(value.wrapping_mul(times)));
        self.max.set(self.max.get().max(value));
    }

    /// A copy to read from, to send and to merge. Cost: a scan of the table.
    pub fn snapshot(&self) -> HistogramSnapshot {
        let counts: Vec<u64> = self.buckets.iter().map(Cell::get).collect();
        let count = counts.iter().sum();
        HistogramSnapshot { counts, count, sum: self.sum.get(), max: self.max.get() }
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.buckets.iter().for_each(|bucket| bucket.set(0));
        self.sum.set(0);
        self.max.set(0);
    }
}

/// What one histogram, or several merged, had counted when they were looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistogramSnapshot {
    counts: Vec<u64>,
    count: u64,
    sum: u64,
    max: u64,
}

impl Default for HistogramSnapshot {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], count: 0, sum: 0, max: 0 }
    }
}

impl HistogramSnapshot {
    /// Adds what another one counted.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.count += other.count;
        self.sum = self.sum.wrapping_add(other.sum);
        self.max = self.max.max(other.max);
    }

    /// Values counted.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The largest value, exactly.
    pub const fn max(&self) -> u64 {
        self.max
    }

    /// The mean; 0 when nothing was counted.
    pub fn mean(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum as f64 / self.count as f64 }
    }

    /// The value that `fraction` (0..=1) of the values do not exceed: 0.5 for the median, 0.999 for
    /// p99.9. At most 1/32 too high, never too low; 0 when nothing was counted.
    pub fn quantile(&self, fraction: f64) -> u64 {
        let rank = ((self.count as f64 * fraction).ceil() as u64).clamp(1, self.count.max(1));
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                // The last bucket has no upper end of its own.
                let highest = if bucket == BUCKETS - 1 { self.max } else { highest_in(bucket) };
                return highest.min(self.max);
            }
        }
        self.max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_join_without_gaps_and_stay_narrow() {
        for bucket in 1..BUCKETS {
            let lowest = highest_in(bucket - 1) + 1;
            assert_eq!(bucket_of(lowest), bucket);
            assert_eq!(bucket_of(highest_in(bucket)), bucket);
            assert!(highest_in(bucket) - lowest <= lowest / SPLIT as u64);
        }
        assert_eq!(highest_in(BUCKETS - 1), (1 << VALUE_BITS) - 1);
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_of_known_values() {
        let histogram = Histogram::default();
        assert_eq!(histogram.snapshot(), HistogramSnapshot::default());
        assert_eq!(histogram.snapshot().quantile(0.5), 0);
        (1..=30).for_each(|value| histogram.record(value));
        let snapshot = histogram.snapshot();
        for (fraction, expected) in [(0.0, 1), (0.5, 15), (0.9, 27), (0.99, 30), (1.0, 30)] {
            assert_eq!(snapshot.quantile(fraction), expected, "{fraction}");
        }
        assert_eq!((snapshot.count(), snapshot.max(), snapshot.mean()), (30, 30, 15.5));
        histogram.record(u64::MAX);
        assert_eq!(histogram.snapshot().quantile(1.0), u64::MAX);
        histogram.clear();
        assert_eq!(histogram.snapshot(), HistogramSnapshot::default());
    }

    proptest::proptest! {
        #[test]
        fn quantiles_are_never_low_and_at_most_a_bucket_high(
            mut values in proptest::collection::vec(0u64..1 << 40, 1..200),
            fraction in 0.0f64..=1.0,
        ) {
            let (left, right) = (Histogram::default(), Histogram::default());
            for (index, &value) in values.iter().enumerate() {
                if index % 2 == 0 { left.record(value) } else { right.record(value) }
            }
            let mut merged = left.snapshot();
            merged.merge(&right.snapshot());
            values.sort_unstable();
            let rank = ((values.len() as f64 * fraction).ceil() as usize).max(1);
            let exact = values[rank - 1];
            let got = merged.quantile(fraction);
            assert!(got >= exact && got <= exact + exact / SPLIT as u64, "{got} for {exact}");
            assert_eq!(merged.max(), values[values.len() - 1]);
        }
    }
}
