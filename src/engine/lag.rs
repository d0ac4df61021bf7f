//! How long changes take from submission to acknowledgement, sampled so that the hot path pays one
//! branch.
//!
//! LUTs count milliseconds, too coarse for a lag of tens of microseconds. So one digest in
//! [`SAMPLE_ONE_IN`] has its submission noted in a small table and looked up when it settles. A
//! change merged into a newer one of the same record counts from the older submission: that is the
//! age a reader would see.

use crate::model::{Digest, Tick};
use longship_rt::metrics::Histogram;

/// One digest in this many is followed; a power of two.
pub(crate) const SAMPLE_ONE_IN: u64 = 64;
/// Samples followed at once; more are not taken. A power of two.
const SLOT_COUNT: usize = 1024;

/// Follows sampled changes of one DC on one shard.
pub(crate) struct LagSampler {
    slots: Box<[Option<(Digest, Tick)>]>,
    lag_us: Histogram,
}

impl LagSampler {
    pub(crate) fn new() -> Self {
        Self { slots: vec![None; SLOT_COUNT].into_boxed_slice(), lag_us: Histogram::default() }
    }

    /// Whether `digest` belongs to the sample.
    #[inline]
    pub(crate) fn wants(digest: &Digest) -> bool {
        digest.mixed() & (SAMPLE_ONE_IN - 1) == 0
    }

    /// Notes the submission of a sampled digest, unless an older one is still out or the slot is
    /// taken.
    pub(crate) fn submitted(&mut self, digest: &Digest, now: Tick) {
        let slot = self.slot_of(digest);
        self.slots[slot].get_or_insert((*digest, now));
    }

    /// Notes that a sampled digest was acknowledged.
    pub(crate) fn acknowledged(&mut self, digest: &Digest, now: Tick) {
        if let Some(since) = self.take(digest) {
            self.lag_us.record(now.us_since(since));
        }
    }

    /// Forgets a sampled digest that ended otherwise.
    pub(crate) fn forgotten(&mut self, digest: &Digest) {
        self.take(digest);
    }

    /// The lags seen since the start, in microseconds.
    pub(crate) fn histogram(&self) -> &Histogram {
        &self.lag_us
    }

    fn take(&mut self, digest: &Digest) -> Option<Tick> {
        let slot = self.slot_of(digest);
        self.slots[slot].take_if(|(followed, _)| followed == digest).map(|(_, since)| since)
    }

    fn slot_of(&self, digest: &Digest) -> usize {
        (digest.mixed() / SAMPLE_ONE_IN) as usize & (SLOT_COUNT - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampled(seed: u8) -> Digest {
        let mut bytes = [seed; 20];
        bytes[8] = 0;
        Digest(bytes)
    }

    #[test]
    fn a_merged_change_counts_from_its_first_submission() {
        let mut lag = LagSampler::new();
        let digest = sampled(1);
        assert!(LagSampler::wants(&digest));
        lag.submitted(&digest, Tick(100));
        lag.submitted(&digest, Tick(150));
        lag.acknowledged(&digest, Tick(200));
        lag.acknowledged(&digest, Tick(900));
        assert_eq!(lag.histogram().snapshot().count(), 1);
        assert!((99..=101).contains(&lag.histogram().snapshot().quantile(0.5)));
    }

    #[test]
    fn a_change_that_was_dropped_leaves_no_sample() {
        let mut lag = LagSampler::new();
        lag.submitted(&sampled(2), Tick(100));
        lag.forgotten(&sampled(2));
        lag.acknowledged(&sampled(2), Tick(200));
        assert_eq!(lag.histogram().snapshot().count(), 0);
    }
}
