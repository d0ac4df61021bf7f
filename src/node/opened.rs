//! What the shards found when they opened their storage, for whoever decides where DCs start.

use std::sync::Arc;

use tracing::warn;

use crate::engine::{Start, StoreFacts};
use crate::model::{Lut, NamespaceId, PARTITION_COUNT, Version};
use crate::storage::admit::Positions;
use crate::storage::cold_start::ColdStartReport;
use crate::storage::store::Store;
use crate::storage::volume::Volume;

/// What a shard found in its storage, or all of them did.
#[derive(Debug, Default)]
pub(super) struct Opened {
    highest: Version,
    /// Records of each namespace, tombstones too.
    records: Vec<u64>,
}

impl Opened {
    pub(super) fn of(store: &Store, report: &ColdStartReport) -> Self {
        let ids = (0..store.namespace_count()).map(|index| NamespaceId(index as u8));
        let stats = ids.map(|id| store.stats(id));
        let records = stats.map(|stats| stats.objects + stats.tombstones).collect();
        Self { highest: report.highest_version, records }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.highest = self.highest.max(other.highest);
        self.records.resize(other.records.len(), 0);
        self.records.iter_mut().zip(&other.records).for_each(|(all, more)| *all += more);
    }

    /// Positions above everything the devices have ever held are of a store that was newer.
    pub(super) fn warn_if_behind(&self, highest_mark: Lut) {
        if self.records.iter().any(|records| *records > 0) && self.highest.lut() < highest_mark {
            warn!(
                "the shipping positions reach to {highest_mark}, the devices only to {}: what was \
                 written between them is not here, though a DC may have it",
                self.highest.lut()
            );
        }
    }

    pub(super) fn stores(&self, volumes: &[Arc<Volume>]) -> Vec<StoreFacts> {
        let facts = |(volume, records): (&Arc<Volume>, &u64)| StoreFacts {
            id: volume.id.max(1),
            is_empty: *records == 0,
        };
        volumes.iter().zip(&self.records).map(facts).collect()
    }
}

/// Where DCs start whose positions are lost, as the operator wants it.
pub(super) fn positions_start(positions: Positions, wall: Lut) -> Start {
    match positions {
        Positions::Now => Start::Now,
        Positions::SecondsAgo(seconds) => {
            let from = wall.ms().saturating_sub(seconds.saturating_mul(1000));
            Start::At(vec![Some(Lut::from_ms(from)); PARTITION_COUNT].into())
        }
    }
}
