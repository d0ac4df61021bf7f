//! What the shards found when they opened their storage, for whoever decides where DCs start.

use std::sync::Arc;

use crate::storage::accept;
use crate::storage::admit::{LostStart, Words};
use crate::storage::store::Store;
use crate::storage::volume::Volume;
use longship::engine::{Beginning, StoreFacts};
use longship::model::{Lut, NamespaceId, PARTITION_COUNT, StoreRun};
use longship::wire::hello::NamespaceStore;

/// What a shard found in its storage, or all of them did.
#[derive(Debug, Default)]
pub(crate) struct Opened {
    /// Records of each namespace, tombstones too.
    records: Vec<u64>,
}

impl Opened {
    pub(crate) fn of(store: &Store) -> Self {
        let ids = (0..store.namespace_count()).map(|index| NamespaceId(index as u8));
        let stats = ids.map(|id| store.stats(id));
        Self { records: stats.map(|stats| stats.objects + stats.tombstones).collect() }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.records.resize(other.records.len(), 0);
        self.records.iter_mut().zip(&other.records).for_each(|(all, more)| *all += more);
    }

    pub(crate) fn stores(&self, volumes: &[Arc<Volume>]) -> Vec<StoreFacts> {
        let facts = |(volume, records): (&Arc<Volume>, &u64)| StoreFacts {
            id: volume.id.max(1),
            is_empty: *records == 0,
            run: volume.runs().0,
            last_run: volume.runs().1,
            may_have_lost: volume.crash_cost.loss_ms > 0,
        };
        volumes.iter().zip(&self.records).map(facts).collect()
    }
}

/// What sources are told of the stores, in answer to their hellos.
pub(crate) fn told_stores(volumes: &[Arc<Volume>], words: &Words) -> Vec<NamespaceStore> {
    let told = |volume: &Arc<Volume>| NamespaceStore {
        namespace: volume.namespace.clone(),
        store: StoreRun { id: volume.id.max(1), run: volume.runs().0 },
        is_whole: accept::is_whole(volume, words),
    };
    volumes.iter().map(told).collect()
}

/// Where DCs start whose positions are lost, as the operator wants it.
pub(crate) fn positions_start(positions: LostStart, wall: Lut) -> Beginning {
    match positions {
        LostStart::Now => Beginning::Now,
        LostStart::SecondsAgo(seconds) => {
            let from = wall.ms().saturating_sub(seconds.saturating_mul(1000));
            Beginning::At(vec![Some(Lut::from_ms(from)); PARTITION_COUNT].into())
        }
    }
}
