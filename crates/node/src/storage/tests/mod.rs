//! The storage as a whole, on real files through the real ring.

mod damage;
mod durable;
mod power;
mod restart;
mod ship;
mod space;
mod tombstones;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::future::poll_fn;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_lite::future::poll_once;

use super::accept;
use super::admit::Words;
use super::cold_start::{self, ColdStartReport, peers};
use super::index::IndexEntry;
use super::read::{ReadError, StoredRecord, read};
use super::space::{Author, Space, WriteRecord, WriteRefused};
use super::start::{StoreParts, arena_bytes, start_tasks};
use super::store::{FlushEnd, SharedStore, Store, committed};
use super::volume::Volume;
use super::zero::Zeroing;
use super::{expire, flush, loss, raid};
use longship::host::{
    Host, IndexWalk, OwnedRecord, Peek, ReadOutcome, ReadRequest, RecordSource, WalkId, WalkStep,
};
use longship::model::{
    ChangeKind, DcIndex, Digest, Generation, Lut, NamespaceId, PartitionId, RecordFlags,
    ShardIndex, SrcId, Tick, VoidTime,
};
use longship_rt::arena::{Arena, Buffer};
use longship_rt::clock::Clock;
use longship_rt::disk_ring::file::disk_folder;
use longship_rt::disk_ring::{DiskRing, Fault};
use longship_rt::shard::{Queue, ShardSpec, spawn, spawn_shard, yield_now};

use crate::config::{NamespaceConfig, StorageConfig};

const NS: NamespaceId = NamespaceId(0);
const BLOCK_BYTES: u32 = 128 << 10;

fn config(folder: &Path, blocks: u64) -> NamespaceConfig {
    let storage = StorageConfig {
        files: vec![folder.join("log")],
        filesize: blocks * u64::from(BLOCK_BYTES),
        write_block_size: BLOCK_BYTES,
        post_write_cache: 1 << 20,
        max_write_cache: 4 << 20,
        flush_max_ms: 20,
        stop_writes_used_pct: 0,
        ..StorageConfig::default()
    };
    NamespaceConfig { storage, ..NamespaceConfig::named("demo") }
}

/// What a shard's body gets.
struct Running {
    shard: ShardIndex,
    shard_count: u16,
    store: SharedStore,
    report: ColdStartReport,
}

/// How the shards end.
#[derive(Clone, Copy, PartialEq)]
enum End {
    Clean,
    Crash,
}

/// Opens the namespace on so many shards, runs `body` on each, and gives what they return.
fn on_shards<T: Send + 'static>(
    config: &NamespaceConfig,
    shard_count: u16,
    end: End,
    body: impl AsyncFn(&Running) -> T + Send + Clone + 'static,
) -> Vec<T> {
    on_shards_of(Volume::open(config, shard_count).unwrap(), config, end, body)
}

fn on_shards_of<T: Send + 'static>(
    volume: Volume,
    config: &NamespaceConfig,
    end: End,
    body: impl AsyncFn(&Running) -> T + Send + Clone + 'static,
) -> Vec<T> {
    on_shards_with(vec![(config.clone(), Arc::new(volume))], end, body)
}

/// The same with several namespaces.
fn on_shards_with<T: Send + 'static>(
    namespaces: Vec<(NamespaceConfig, Arc<Volume>)>,
    end: End,
    body: impl AsyncFn(&Running) -> T + Send + Clone + 'static,
) -> Vec<T> {
    on_shards_opening(namespaces, async move |parts| {
        let (shard, shard_count) = (parts.shard, parts.namespaces[0].1.shard_count);
        let (store, report) = Store::open(parts, Lut::ZERO).await.unwrap();
        start_tasks(&store);
        let running = Running { shard, shard_count, store, report };
        let result = body(&running).await;
        if end == End::Clean {
            flush::stop(&running.store, Tick::NEVER).await;
        }
        result
    })
}

/// Runs `open` on as many shards as the volumes are for, with what a store is made of.
fn on_shards_opening<T: Send + 'static>(
    namespaces: Vec<(NamespaceConfig, Arc<Volume>)>,
    open: impl AsyncFn(StoreParts) -> T + Send + Clone + 'static,
) -> Vec<T> {
    let (configs, volumes): (Vec<_>, Vec<_>) = namespaces.into_iter().unzip();
    let shard_count = volumes[0].shard_count;
    let _zeroing = Zeroing::start(&volumes, Arc::default(), Duration::MAX);
    let start = |(index, peer)| {
        let (configs, volumes, open) = (configs.clone(), volumes.clone(), open.clone());
        let spec = ShardSpec { index, core: None, name: format!("shard-{index}") };
        let run = move || async move {
            let arena = Arena::new(arena_bytes(&configs, shard_count), None).unwrap();
            let ring = DiskRing::with_lanes(configs.len() as u32, 64, &arena).unwrap();
            spawn(Queue::Disk, ring.clone().drive());
            let shard = ShardIndex(index);
            let namespaces = configs.into_iter().zip(volumes).collect();
            let clock = Clock::real();
            open(StoreParts { shard, namespaces, ring, arena, peer, clock }).await
        };
        spawn_shard(spec, run).unwrap()
    };
    let shards: Vec<_> = (0..).zip(cold_start::peers(shard_count)).map(start).collect();
    shards.into_iter().map(|shard| shard.join()).collect()
}

/// Waits until everything written so far is durable.
async fn settle(store: &SharedStore) {
    while !is_durable(store) {
        yield_now().await;
    }
}

fn is_durable(store: &SharedStore) -> bool {
    let store = store.borrow();
    let space = store.space(NS);
    space.appended().are_within(space.durable())
}

fn now() -> Lut {
    Lut::from_unix_ms(Clock::real().wall_ms())
}

/// A record's content as the tests choose it: version number and size of the bins.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Content {
    Bins(u64, usize),
    Tombstone,
}

fn bins(seed: u64, size: usize) -> Vec<u8> {
    (0..size as u64).map(|at| (seed + at * at) as u8).collect()
}

fn set_of(key: i64) -> &'static str {
    ["", "users", "orders"][key as usize % 3]
}

fn digest(key: i64) -> Digest {
    Digest::of_integer(set_of(key), key)
}

/// A record as the tests write it, unless they say otherwise.
fn record(key: i64, bins: &[u8]) -> WriteRecord<'_> {
    WriteRecord {
        digest: digest(key),
        set: set_of(key),
        key: &[],
        bin_count: 1,
        bins,
        generation: Generation(1),
        void_time: VoidTime::NEVER,
        flags: RecordFlags::default(),
        src_id: SrcId::NONE,
    }
}

fn put(store: &SharedStore, key: i64, content: Content) -> Result<(), WriteRefused> {
    put_at(store, key, content, now())
}

fn put_at(store: &SharedStore, key: i64, content: Content, now: Lut) -> Result<(), WriteRefused> {
    let (bins, flags) = match content {
        Content::Bins(seed, size) => (bins(seed, size), RecordFlags::default()),
        Content::Tombstone => (Vec::new(), RecordFlags::TOMBSTONE),
    };
    let mut store = store.borrow_mut();
    let former = store.latest(NS, &digest(key)).map_or(Generation(0), |e| e.generation);
    let record = WriteRecord {
        bin_count: u16::from(!bins.is_empty()),
        generation: former.next(),
        flags,
        ..record(key, &bins)
    };
    store.note_time();
    store.write(NS, &record, now).map(|_| ())
}

/// Writes, and waits where the device does not keep up.
async fn put_patiently(store: &SharedStore, key: i64, content: Content) {
    loop {
        match put(store, key, content) {
            Ok(()) => return,
            Err(WriteRefused::Overloaded) => yield_now().await,
            Err(refused) => panic!("{refused}"),
        }
    }
}

async fn content(store: &SharedStore, key: i64) -> Option<Content> {
    let record = read(store, NS, &digest(key)).await.unwrap()?;
    let view = record.view();
    assert_eq!((view.digest, view.set), (digest(key), set_of(key)));
    if view.is_tombstone() {
        return Some(Content::Tombstone);
    }
    let (seed, size) = (view.bins[0].into(), view.bins.len());
    assert!(view.bins == bins(seed, size), "key {key}");
    Some(Content::Bins(seed, size))
}

/// A small pseudo-random sequence.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

const KEYS: i64 = 600;

/// What happens to the keys from one restart to the next, and what must be there after it.
fn changes(round: u64) -> Vec<(i64, Content)> {
    let mut dice = Dice(round + 77);
    let change = |_| {
        let key = dice.roll(KEYS as u64) as i64;
        let content = match dice.roll(8) {
            0 => Content::Tombstone,
            1 => Content::Bins(dice.roll(200), 1 + dice.roll(20_000) as usize),
            _ => Content::Bins(dice.roll(200), 1 + dice.roll(300) as usize),
        };
        (key, content)
    };
    (0..1500).map(change).collect()
}

fn is_own(running: &Running, key: i64) -> bool {
    digest(key).partition().shard(running.shard_count) == running.shard
}

/// That a shard holds what the model says of its keys, and counts it right.
async fn check(running: &Running, model: &BTreeMap<i64, Content>) {
    let store = &running.store;
    let (mut objects, mut tombstones) = (0, 0);
    for key in (0..KEYS).filter(|key| is_own(running, *key)) {
        let expected = model.get(&key).copied();
        assert_eq!(content(store, key).await, expected, "key {key}");
        match expected {
            Some(Content::Bins(..)) => objects += 1,
            Some(Content::Tombstone) => tombstones += 1,
            None => {}
        }
    }
    let stats = store.borrow().stats(NS);
    assert_eq!((stats.objects, stats.tombstones), (objects, tombstones));
    let live: u64 = store.borrow().sets(NS).map(|(_, counts)| counts.bytes).sum();
    assert_eq!(stats.used_bytes, live);
}

async fn publish(store: SharedStore) {
    let publishable = store.borrow().publishable();
    let mut changes = Vec::new();
    loop {
        publishable.wait().await;
        store.borrow_mut().publish(&mut changes);
    }
}

/// Where a record lies on its device, all bytes of it.
fn place_of(store: &SharedStore, key: i64) -> std::ops::Range<u64> {
    let store = store.borrow();
    let location = store.lookup(NS, &digest(key)).unwrap().location;
    let (_, block) = store.space(NS).log.geometry().offset(location.block);
    let start = block + u64::from(location.offset);
    start..start + u64::from(location.extent)
}

/// Writes keys of 3000 bytes each, all on the device and none in memory.
async fn fill_device(store: &SharedStore, keys: i64) {
    for key in 0..keys {
        put_patiently(store, key, Content::Bins(key as u64 % 200, 3000)).await;
    }
    flush::stop(store, Tick::NEVER).await;
}

/// Reads keys as [`ship_reads`] does; gives those that failed, in order.
async fn ship_reads_some_failing(store: &SharedStore, keys: &[i64]) -> Vec<i64> {
    let dc = DcIndex(1);
    for key in keys {
        let (tag, digest) = (*key as u64, digest(*key));
        assert!(store.borrow_mut().begin(ReadRequest { tag, dc, namespace: NS, digest }));
    }
    let mut done = Vec::new();
    while done.len() < keys.len() {
        poll_fn(|cx| store.borrow_mut().poll_drain(dc, cx, &mut done)).await;
    }
    let failed = done.iter().filter(|read| matches!(read.outcome, ReadOutcome::Failed));
    let mut failed: Vec<i64> = failed.map(|read| read.tag as i64).collect();
    failed.sort_unstable();
    failed
}

/// Reads keys the way a service task does: a few hundred begun, then drained.
async fn ship_reads(store: &SharedStore, keys: &[i64]) -> usize {
    let dc = DcIndex(3);
    let (mut next, mut finished) = (0, 0);
    while finished < keys.len() {
        while next < keys.len() {
            let digest = digest(keys[next]);
            let read = ReadRequest { tag: next as u64, dc, namespace: NS, digest };
            if !store.borrow_mut().begin(read) {
                break;
            }
            next += 1;
        }
        let mut done = Vec::new();
        poll_fn(|cx| store.borrow_mut().poll_drain(dc, cx, &mut done)).await;
        for read in done {
            let ReadOutcome::Record(record) = read.outcome else { panic!("it is there") };
            let key = keys[read.tag as usize];
            assert_eq!(record.view().bins, bins(key as u64 % 200, 150), "key {key}");
            finished += 1;
        }
    }
    finished
}

/// Tells the store that every delete is settled at every DC.
fn settle_all(store: &SharedStore) {
    for partition in PartitionId::all() {
        store.borrow_mut().settled_below(NS, partition, None);
    }
}

/// Fills blocks until every one has been filled anew, and what was dead in them is gone.
async fn turn_over(store: &SharedStore, blocks: u64) {
    for key in 0..blocks as i64 * 40 {
        put_patiently(store, 10_000 + key % 30, Content::Bins(key as u64 % 200, 4000)).await;
    }
    settle(store).await;
}

/// Opens the namespace with a work directory, in which starts leave what they have met.
fn open_known(config: &NamespaceConfig) -> Volume {
    let work = config.storage.files[0].parent().unwrap().join("work");
    std::fs::create_dir_all(&work).unwrap();
    let all = std::slice::from_ref(config);
    Volume::open_all(all, 1, Some(&work), &Words::default()).unwrap().remove(0)
}

fn open_warm(config: &NamespaceConfig, shard_count: u16) -> Volume {
    let folder = config.storage.files[0].parent().unwrap();
    Volume::open(config, shard_count).unwrap().with_checkpoints(folder.to_owned())
}
