//! Deletes that a start from the past cannot find again: their tombstones are gone.
//!
//! The tombstone raider forgets a tombstone once every attached DC has its delete. A lane may begin
//! below what has been forgotten: it was rewound, or its DC was not configured for a while. It
//! ships every record there is, but a delete that has left no trace it does not ship. That cannot
//! be helped, so the span of time is named. Source: `docs/design.md`, D14.

use std::fmt;

use super::positions::Beginning;
use crate::model::{Lut, NamespaceId, PartitionId};

/// A span of which deletes may be missing at a DC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteGap {
    /// Name of the DC.
    pub dc: String,
    /// The namespace at the source.
    pub namespace: NamespaceId,
    /// Where the lowest lane began.
    pub from: Lut,
    /// The last delete that may be forgotten.
    pub to: Lut,
}

impl DeleteGap {
    /// What a start misses of `partitions`, of which deletes up to `horizon` may be forgotten.
    pub(crate) fn of(
        (dc, namespace): (&str, NamespaceId),
        start: &Beginning,
        partitions: impl Iterator<Item = PartitionId>,
        horizon: Lut,
    ) -> Option<Self> {
        let from = match start {
            Beginning::Now => return None,
            Beginning::At(lanes) => partitions.filter_map(|at| lanes[at.index()]).min()?,
            Beginning::Oldest => Lut::ZERO,
        };
        let is_missed = horizon > Lut::ZERO && from <= horizon;
        is_missed.then(|| Self { dc: dc.to_owned(), namespace, from, to: horizon })
    }

    /// Adds what another shard misses, to the gap of the same DC and namespace if there is one.
    pub(crate) fn join(gaps: &mut Vec<Self>, more: Self) {
        let is_same = |gap: &&mut Self| (&gap.dc, gap.namespace) == (&more.dc, more.namespace);
        match gaps.iter_mut().find(is_same) {
            Some(gap) => (gap.from, gap.to) = (gap.from.min(more.from), gap.to.max(more.to)),
            None => gaps.push(more),
        }
    }
}

/// The span, without `:` and `;`, which separate fields of info answers: from the first to the last
/// millisecond.
impl fmt::Display for DeleteGap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.from.utc(), self.to.utc())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::PARTITION_COUNT;

    #[test]
    fn a_start_misses_deletes_from_its_lowest_lane_to_the_horizon() {
        let check = |start: &[(usize, u64)], horizon, expected: Option<(u64, u64)>| {
            let mut lanes = vec![None; PARTITION_COUNT];
            start.iter().for_each(|(index, lut)| lanes[*index] = Some(Lut::from_ms(*lut)));
            let partitions = [0, 2, 4].map(PartitionId::new).into_iter();
            let place = ("west", NamespaceId(0));
            let start = Beginning::At(lanes.into());
            let gap = DeleteGap::of(place, &start, partitions, Lut::from_ms(horizon));
            assert_eq!(gap.map(|gap| (gap.from.ms(), gap.to.ms())), expected);
        };
        check(&[(0, 50), (2, 40), (4, 60)], 100, Some((40, 100)));
        check(&[(0, 100), (2, 200)], 100, Some((100, 100)));
        check(&[(0, 101), (2, 200)], 100, None);
        check(&[(0, 0)], 0, None);
        check(&[(1, 50), (3, 50)], 100, None);
        check(&[], 100, None);
    }

    #[test]
    fn gaps_of_shards_become_one_for_each_namespace_of_a_dc() {
        let gap = |dc: &str, namespace, from, to| {
            let (from, to) = (Lut::from_ms(from), Lut::from_ms(to));
            DeleteGap { dc: dc.to_owned(), namespace: NamespaceId(namespace), from, to }
        };
        let mut gaps = Vec::new();
        for more in [gap("a", 0, 5, 9), gap("b", 0, 1, 2), gap("a", 0, 4, 8), gap("a", 1, 1, 1)] {
            DeleteGap::join(&mut gaps, more);
        }
        assert_eq!(gaps, [gap("a", 0, 4, 9), gap("b", 0, 1, 2), gap("a", 1, 1, 1)]);
    }
}
