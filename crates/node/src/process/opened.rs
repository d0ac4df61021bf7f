//! What the shards found when they opened their storage, for whoever decides where DCs start.

use std::sync::Arc;

use crate::storage::admit::Positions;
use crate::storage::store::Store;
use crate::storage::volume::Volume;
use longship::engine::{Start, StoreFacts};
use longship::model::{Lut, NamespaceId, PARTITION_COUNT, Version};

/// What a shard found in its storage, or all of them did.
#[derive(Debug, Default)]
pub(crate) struct Opened {
    /// The highest version met of each namespace.
    highest: Vec<Version>,
    /// Records of each namespace, tombstones too.
    records: Vec<u64>,
}

impl Opened {
    pub(crate) fn of(store: &Store) -> Self {
        let ids = (0..store.namespace_count()).map(|index| NamespaceId(index as u8));
        let stats = ids.clone().map(|id| store.stats(id));
        let records = stats.map(|stats| stats.objects + stats.tombstones).collect();
        Self { highest: ids.map(|id| store.newest_found(id)).collect(), records }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.highest.resize(other.highest.len(), Version::ZERO);
        self.highest.iter_mut().zip(&other.highest).for_each(|(all, more)| *all = *more.max(all));
        self.records.resize(other.records.len(), 0);
        self.records.iter_mut().zip(&other.records).for_each(|(all, more)| *all += more);
    }

    /// Positions above everything that a namespace's devices have ever held are of a store that was
    /// newer; for people.
    pub(crate) fn behind(&self, namespace: usize, highest_mark: Lut) -> Option<String> {
        let held = self.highest[namespace].lut();
        let is_behind = self.records[namespace] > 0 && held < highest_mark;
        is_behind.then(|| {
            format!(
                "the shipping positions reach to {} (UTC), the devices only to {}: what was written \
                 between them is not here, though a DC may have it. Restore the devices as they were \
                 then, or take what a DC has as newer",
                highest_mark.utc(),
                held.utc()
            )
        })
    }

    pub(crate) fn stores(&self, volumes: &[Arc<Volume>]) -> Vec<StoreFacts> {
        let facts = |(volume, records): (&Arc<Volume>, &u64)| StoreFacts {
            id: volume.id.max(1),
            is_empty: *records == 0,
            run: volume.runs().0,
            last_run: volume.runs().1,
        };
        volumes.iter().zip(&self.records).map(facts).collect()
    }
}

/// Where DCs start whose positions are lost, as the operator wants it.
pub(crate) fn positions_start(positions: Positions, wall: Lut) -> Start {
    match positions {
        Positions::Now => Start::Now,
        Positions::SecondsAgo(seconds) => {
            let from = wall.ms().saturating_sub(seconds.saturating_mul(1000));
            Start::At(vec![Some(Lut::from_ms(from)); PARTITION_COUNT].into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_above_all_that_a_store_ever_held_are_told_in_dates() {
        let ms = |ms| Lut::from_ms(ms);
        let check = |records, held_ms, mark_ms, expected: Option<&str>| {
            // What another namespace holds says nothing.
            let highest = [held_ms, 50_000].map(|held_ms| Version::first_of(ms(held_ms)));
            let found = Opened { highest: highest.to_vec(), records: vec![records, 9] };
            let found = found.behind(0, ms(mark_ms));
            match expected {
                None => assert_eq!(found, None),
                Some(words) => {
                    assert!(found.as_ref().is_some_and(|t| t.contains(words)), "{found:?}")
                }
            }
        };
        check(1, 5000, 5000, None);
        check(1, 5000, 4000, None);
        check(0, 5000, 9000, None);
        check(7, 5000, 9000, Some("reach to 2010-01-01T00h00m09.000s (UTC), the devices"));
        check(7, 5000, 9000, Some("only to 2010-01-01T00h00m05.000s: "));
    }
}
