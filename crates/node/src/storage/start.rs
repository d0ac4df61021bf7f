//! From the devices of a shard to a store that is served: opened, and its tasks started.
//!
//! Above the store and all its tasks: [`super::store`] knows none of them.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::cold_start::{self, ColdStartError, ColdStartReport, Peer};
use super::pieces::PIECES_BYTES_MAX;
use super::space::Space;
use super::store::{SharedStore, Store, StoreSeed};
use super::volume::{Device, Volume};
use super::{defrag, expire, flush, raid};
use longship::model::{Lut, NamespaceId, ShardIndex, Version};
use longship_rt::arena::Arena;
use longship_rt::clock::Clock;
use longship_rt::disk_ring::{DiskRing, FileId, RingError};
use longship_rt::shard::{Queue, spawn};

use crate::config::{LiveNamespaces, NamespaceConfig};
use crate::limits::READ_ARENA_BYTES;

/// What a store is made of.
pub struct StoreParts {
    /// The shard.
    pub shard: ShardIndex,
    /// The namespaces, in configuration order, with the volume of each.
    pub namespaces: Vec<(NamespaceConfig, Arc<Volume>)>,
    /// The shard's disk ring, driven by its task.
    pub ring: DiskRing,
    /// The arena registered with it, of at least [`arena_bytes`].
    pub arena: Arena,
    /// The shard's end of the exchange at cold start.
    pub peer: Peer,
    /// Where the time comes from.
    pub clock: Clock,
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A device could not be handed to the ring.
    #[error("cannot use {device}: {source}")]
    Ring {
        /// The device.
        device: String,
        /// The ring's answer.
        source: RingError,
    },
    /// A device could not be opened a second time.
    #[error("cannot use {device}: {source}")]
    Io {
        /// The device.
        device: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The log could not be read.
    #[error(transparent)]
    ColdStart(#[from] ColdStartError),
    /// The versions found end where no more can be counted.
    #[error(
        "shard {shard}: the newest version found is of {}, and none after 2043 can be counted: it was \
         written under a wrong clock; remove these devices' files and the work directory and fill the \
         node again from another cluster", newest.utc()
    )]
    FromTheFuture {
        /// The shard.
        shard: u16,
        /// Of the newest record or mark.
        newest: Lut,
    },
}

/// A store with newer versions does not open: a year beyond what is believed of a clock.
const VERSIONS_END: Lut = Lut::CLOCK_MAX.plus_ms(365 * 86_400_000);

/// Arena bytes a shard's store wants: open and cached blocks, reads, and room to start cold.
pub fn arena_bytes(namespaces: &[NamespaceConfig], shard_count: u16) -> usize {
    let of = |config: &NamespaceConfig| {
        let storage = &config.storage;
        let devices = storage.files.len().max(storage.devices.len()).max(1) as u64;
        let shards = u64::from(shard_count);
        let block = u64::from(storage.write_block_size);
        let unwritten = (storage.max_write_cache * devices / shards).max(2 * block);
        storage.post_write_cache / shards + unwritten + 4 * block + READ_ARENA_BYTES as u64
    };
    namespaces.iter().map(of).sum::<u64>() as usize + PIECES_BYTES_MAX
}

impl Store {
    /// Opens a shard's part of every namespace: from the checkpoint of a clean stop, or by reading
    /// its blocks. Records of other shards may lie there and are handed to their shards. So all
    /// shards must do this at the same time, and it returns when all of them are done.
    ///
    /// Versions issued from now on are above every one found, and above `floor`.
    pub async fn open(
        parts: StoreParts,
        floor: Lut,
    ) -> Result<(SharedStore, ColdStartReport), OpenError> {
        let StoreParts { shard, namespaces, ring, arena, mut peer, clock } = parts;
        let shard_count = namespaces.first().map_or(1, |(_, volume)| volume.shard_count);
        let mut spaces = Vec::with_capacity(namespaces.len());
        for (index, (config, volume)) in namespaces.iter().enumerate() {
            let id = NamespaceId(index as u8);
            let files = register(&ring, id, volume)?;
            spaces.push(Space::new(id, config, volume, shard, files));
        }
        let reader = cold_start::Reader { ring: &ring, arena: &arena };
        let volumes: Vec<&Volume> = namespaces.iter().map(|(_, volume)| &**volume).collect();
        let report = cold_start::run(reader, &mut spaces, &volumes, &mut peer).await?;
        // Every shard goes on above the highest version that any shard has met, so that new
        // versions cannot be taken for old ones.
        let met = volumes.iter().map(|volume| volume.claims.clock()).max();
        let version = Version::first_of(floor).max(met.unwrap_or_default());
        if version.lut() > VERSIONS_END {
            return Err(OpenError::FromTheFuture { shard: shard.0, newest: version.lut() });
        }
        spaces.iter_mut().for_each(|space| space.log.in_memory_above = version.lut());
        let (rules, volumes): (Vec<_>, Vec<_>) = namespaces.into_iter().unzip();
        let rules = LiveNamespaces::new(&rules);
        let seed =
            StoreSeed { shard, shard_count, ring, arena, clock, spaces, volumes, rules, version };
        Ok((Rc::new(RefCell::new(Store::new(seed))), report))
    }
}

/// Starts the tasks that serve a store: flushing, defragmentation, expiry and the raider of each
/// namespace. They end with [`flush::stop`].
pub fn start_tasks(store: &SharedStore) {
    #[cfg(feature = "sim")]
    super::audit::note(store);
    let count = store.borrow().namespace_count();
    for namespace in (0..count).map(|index| NamespaceId(index as u8)) {
        spawn(Queue::Disk, cold_start::heal(Rc::clone(store), namespace));
        spawn(Queue::Disk, flush::run(Rc::clone(store), namespace));
        spawn(Queue::Disk, defrag::run(Rc::clone(store), namespace));
        spawn(Queue::Background, expire::run(Rc::clone(store), namespace));
        spawn(Queue::Background, raid::run(Rc::clone(store), namespace));
    }
}

/// Each namespace has a lane of its own, as far as there are any.
fn register(
    ring: &DiskRing,
    namespace: NamespaceId,
    volume: &Volume,
) -> Result<Vec<FileId>, OpenError> {
    let register = |device: &Device| {
        let name = || device.path.display().to_string();
        let file = device.file().try_clone();
        let file = file.map_err(|source| OpenError::Io { device: name(), source })?;
        ring.add_file_to(namespace.index(), file)
            .map_err(|source| OpenError::Ring { device: name(), source })
    };
    volume.devices.iter().map(register).collect()
}
