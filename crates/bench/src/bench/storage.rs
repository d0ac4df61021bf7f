//! The node's storage by itself: shards with a store each, nothing in front of them, over one file.

use std::collections::VecDeque;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use longship::host::RecordSource as _;
use longship::model::{
    Digest, Generation, Lut, NamespaceId, RecordFlags, ShardIndex, SrcId, VoidTime,
};
use longship::wire::{ParticleType, bins};
use longship_node::config::{NamespaceConfig, StorageConfig};
use longship_node::storage::cold_start::{ColdStartReport, Peer, peers};
use longship_node::storage::device::DeviceError;
use longship_node::storage::flush;
use longship_node::storage::space::{SpaceStats, WriteRecord, WriteRefused};
use longship_node::storage::start::{OpenError, StoreParts, arena_bytes, start_tasks};
use longship_node::storage::store::{SharedStore, Store};
use longship_node::storage::volume::Volume;
use longship_rt::affinity::allowed_cpus;
use longship_rt::arena::{Arena, ArenaError};
use longship_rt::clock::Clock;
use longship_rt::disk_ring::file::{allocate, open_direct};
use longship_rt::disk_ring::{DiskRing, RingError, worker_switches};
use longship_rt::event::Event;
use longship_rt::shard::{
    Queue, ShardError, ShardSpec, need_preempt, spawn, spawn_shard, yield_now,
};

use crate::content::finalize;

const NS: NamespaceId = NamespaceId(0);
pub(super) const BLOCK_BYTES: u32 = 1 << 20;
/// Wait of a writer that is ahead of the device: much less than what it is ahead.
const AHEAD_PAUSE_US: u64 = 500;
/// Bytes encoded between two questions whether others wait.
const ASK_BYTES: usize = 32 << 10;
/// Records written that are looked for in memory together.
const BATCH_RECORDS: usize = 32;
/// Bytes written at a time when a file is prepared.
const PREPARE_BYTES: usize = 4 << 20;

/// Why the storage could not be measured.
#[derive(Debug, thiserror::Error)]
pub(super) enum StorageError {
    #[error("cannot prepare {path}")]
    Prepare { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error(transparent)]
    Shard(#[from] ShardError),
    #[error(transparent)]
    Arena(#[from] ArenaError),
    #[error(transparent)]
    Ring(#[from] RingError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("cannot write")]
    Write(#[source] WriteRefused),
}

/// A file and the shards that share it.
pub(super) struct Bed {
    config: NamespaceConfig,
    cpus: Vec<usize>,
}

/// What one shard did.
pub(super) struct Ran {
    pub(super) opened_in: Duration,
    pub(super) report: ColdStartReport,
    /// From the first write until the last is durable.
    pub(super) written_in: Duration,
    pub(super) stats: SpaceStats,
    /// Context switches of kernel I/O workers from the first write until the last is durable.
    pub(super) worker_switches: u64,
}

/// Records to write: numbers from zero, each with one bin.
#[derive(Clone, Copy, Debug)]
pub(super) struct Records {
    pub(super) count: u64,
    pub(super) value_bytes: usize,
}

impl Records {
    pub(super) const NONE: Self = Self { count: 0, value_bytes: 0 };

    /// Bytes of all of them on the device, generously.
    pub(super) const fn bytes_max(self) -> u64 {
        self.count * (self.value_bytes as u64 + 128)
    }

    /// Digests as good as hashed ones, at no cost.
    fn digest(number: u64) -> Digest {
        let (first, second) = (finalize(number), finalize(!number));
        let mut digest = [0; 20];
        digest[..8].copy_from_slice(&first.to_le_bytes());
        digest[8..16].copy_from_slice(&second.to_le_bytes());
        Digest(digest)
    }
}

impl Bed {
    /// A namespace in `folder` with room for `bytes`, on so many shards; 0 = one per CPU.
    pub(super) fn new(folder: &Path, bytes: u64, shards: usize) -> Self {
        let blocks = bytes.div_ceil(BLOCK_BYTES.into());
        let storage = StorageConfig {
            files: vec![folder.join("storage.log")],
            filesize: (blocks + blocks / 8 + 32) * u64::from(BLOCK_BYTES),
            write_block_size: BLOCK_BYTES,
            post_write_cache: 16 << 20,
            stop_writes_used_pct: 0,
            ..StorageConfig::default()
        };
        let mut cpus = allowed_cpus();
        let wanted = if shards == 0 { cpus.len() } else { shards };
        cpus = cpus.iter().copied().cycle().take(wanted).collect();
        Self { config: NamespaceConfig { storage, ..NamespaceConfig::named("bench") }, cpus }
    }

    pub(super) fn path(&self) -> &Path {
        &self.config.storage.files[0]
    }

    pub(super) const fn bytes(&self) -> u64 {
        self.config.storage.filesize
    }

    pub(super) fn shard_count(&self) -> u16 {
        self.cpus.len() as u16
    }

    /// Writes the whole file once, with zeros, so that no later write extends or converts anything,
    /// and what it held is gone.
    pub(super) fn prepare(&self) -> Result<(), StorageError> {
        let path = self.path().to_owned();
        prepare(&path, self.bytes()).map_err(|source| StorageError::Prepare { path, source })
    }

    /// Opens the storage on all shards at once, writes the records, and closes it durably. With
    /// `checkpoints` it starts from those of the last such run, and leaves some.
    pub(super) fn run(
        &self,
        records: Records,
        checkpoints: bool,
    ) -> Result<Vec<Ran>, StorageError> {
        let volume = Volume::open(&self.config, self.shard_count())?;
        let folder = self.path().parent().filter(|_| checkpoints).map(Path::to_owned);
        let volume = Arc::new(match folder {
            Some(folder) => volume.with_checkpoints(folder),
            None => volume,
        });
        let mut threads = Vec::new();
        for (index, peer) in peers(self.shard_count()).into_iter().enumerate() {
            let (config, volume) = (self.config.clone(), Arc::clone(&volume));
            let index = index as u16;
            let core = Some(self.cpus[usize::from(index)]);
            let spec = ShardSpec { index, core, name: format!("shard-{index}") };
            let body = move || run_shard(ShardIndex(index), peer, config, volume, records);
            threads.push(spawn_shard(spec, body)?);
        }
        threads.into_iter().map(|thread| thread.join()).collect()
    }
}

/// Writes a file over once.
pub(super) fn prepare(path: &Path, bytes: u64) -> io::Result<()> {
    let file = open_direct(path, true)?;
    allocate(&file, bytes)?;
    let no_memory = || io::Error::from(io::ErrorKind::OutOfMemory);
    let arena = Arena::new(2 * PREPARE_BYTES, None).map_err(|_| no_memory())?;
    let zeros = arena.take(PREPARE_BYTES).ok_or_else(no_memory)?;
    let mut at = 0;
    while at < bytes {
        let len = (bytes - at).min(PREPARE_BYTES as u64);
        file.write_all_at(&zeros[..len as usize], at)?;
        at += len;
    }
    file.sync_all()
}

async fn run_shard(
    shard: ShardIndex,
    peer: Peer,
    config: NamespaceConfig,
    volume: Arc<Volume>,
    records: Records,
) -> Result<Ran, StorageError> {
    let shard_count = volume.shard_count;
    let arena = Arena::new(arena_bytes(std::slice::from_ref(&config), shard_count), None)?;
    let ring = DiskRing::new(128, &arena)?;
    spawn(Queue::Disk, ring.clone().drive());
    let parts = StoreParts {
        shard,
        namespaces: vec![(config, volume)],
        ring,
        arena,
        peer,
        clock: Clock::real(),
    };
    let begin = Instant::now();
    let (store, report) = Store::open(parts, Lut::ZERO).await?;
    let opened_in = begin.elapsed();
    start_tasks(&store);
    let switches = worker_switches();
    let begin = Instant::now();
    let written = write(&store, shard, shard_count, records).await;
    flush::stop(&store, longship::model::Tick::NEVER).await;
    let written_in = begin.elapsed();
    // Now: the workers end with the ring.
    let worker_switches = worker_switches().saturating_sub(switches);
    written.map_err(StorageError::Write)?;
    let stats = store.borrow().stats(NS);
    Ok(Ran { opened_in, report, written_in, stats, worker_switches })
}

/// Writes the shard's share of the records, as fast as the device takes them.
async fn write(
    store: &SharedStore,
    shard: ShardIndex,
    shard_count: u16,
    records: Records,
) -> Result<(), WriteRefused> {
    let clock = Clock::real();
    let mut value = vec![0; records.value_bytes];
    for (number, byte) in value.iter_mut().enumerate() {
        *byte = finalize(number as u64) as u8;
    }
    let mut bins = Vec::new();
    bins::push(&mut bins, b"data", ParticleType::BLOB, &value);
    let mut now = Lut::from_unix_ms(clock.wall_ms());
    let mut unasked = 0;
    let own = |digest: &Digest| digest.partition().shard(shard_count) == shard;
    let mut digests = (0..records.count).map(Records::digest).filter(own);
    let mut batch: VecDeque<Digest> = VecDeque::with_capacity(BATCH_RECORDS);
    loop {
        // A node has its pipelined requests before it, too.
        if batch.is_empty() {
            batch.extend(digests.by_ref().take(BATCH_RECORDS));
            store.borrow().prefetch(NS, batch.make_contiguous());
        }
        let Some(digest) = batch.pop_front() else { break };
        let record = WriteRecord {
            digest,
            set: "",
            key: &[],
            bin_count: 1,
            bins: &bins,
            generation: Generation(1),
            void_time: VoidTime::NEVER,
            flags: RecordFlags::default(),
            src_id: SrcId::NONE,
        };
        loop {
            let written = store.borrow_mut().write(NS, &record, now);
            match written {
                Ok(_) => break,
                Err(WriteRefused::Overloaded) => {
                    Event::new().wait_until(clock.now() + AHEAD_PAUSE_US).await;
                }
                Err(refused) => return Err(refused),
            }
        }
        unasked += records.value_bytes + 1024;
        if unasked >= ASK_BYTES && need_preempt() {
            unasked = 0;
            yield_now().await;
            now = Lut::from_unix_ms(clock.wall_ms());
        }
    }
    Ok(())
}
