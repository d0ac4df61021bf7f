//! The storage as a whole, on real files through the real ring.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::future::poll_fn;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_lite::future::poll_once;

use super::cold_start::{self, ColdStartReport, peers};
use super::index::IndexEntry;
use super::space::{Author, Space, WriteRecord, WriteRefused};
use super::store::{self, FlushEnd, SharedStore, Store, StoreParts, arena_bytes, committed, read};
use super::volume::Volume;
use super::zero::Zeroing;
use super::{expire, flush, loss, raid};
use longship::config::{NamespaceConfig, StorageConfig};
use longship::host::{
    Host, IndexWalk, OwnedRecord, Peek, ReadOutcome, ReadRequest, RecordSource, WalkId, WalkStep,
};
use longship::model::{
    ChangeKind, DcIndex, Digest, Generation, Lut, NamespaceId, PartitionId, RecordFlags,
    ShardIndex, SrcId, Tick, VoidTime,
};
use longship_rt::arena::Arena;
use longship_rt::clock::Clock;
use longship_rt::disk_ring::file::disk_folder;
use longship_rt::disk_ring::{DiskRing, Fault};
use longship_rt::shard::{Queue, ShardSpec, spawn, spawn_shard, yield_now};

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
    let (configs, volumes): (Vec<_>, Vec<_>) = namespaces.into_iter().unzip();
    let shard_count = volumes[0].shard_count;
    let _zeroing = Zeroing::start(&volumes, Arc::default(), Duration::MAX);
    let start = |(index, peer)| {
        let (configs, volumes, body) = (configs.clone(), volumes.clone(), body.clone());
        let spec = ShardSpec { index, core: None, name: format!("shard-{index}") };
        let run = move || async move {
            let arena = Arena::new(arena_bytes(&configs, shard_count), None).unwrap();
            let ring = DiskRing::with_lanes(configs.len() as u32, 64, &arena).unwrap();
            spawn(Queue::Disk, ring.clone().drive());
            let shard = ShardIndex(index);
            let namespaces = configs.into_iter().zip(volumes).collect();
            let clock = Clock::real();
            let parts = StoreParts { shard, namespaces, ring: ring.clone(), arena, peer, clock };
            let (store, report) = Store::open(parts, Lut::ZERO).await.unwrap();
            store::start(&store);
            let running = Running { shard, shard_count, store, report };
            let result = body(&running).await;
            if end == End::Clean {
                flush::stop(&running.store, Tick::NEVER).await;
            }
            result
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
        digest: digest(key),
        set: set_of(key),
        key: &[],
        bin_count: u16::from(!bins.is_empty()),
        bins: &bins,
        generation: former.next(),
        void_time: VoidTime::NEVER,
        flags,
        src_id: SrcId::NONE,
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

#[test]
fn records_survive_restarts_with_other_numbers_of_shards() {
    let folder = disk_folder();
    let config = config(folder.path(), 256);
    let mut model: BTreeMap<i64, Content> = BTreeMap::new();
    for (round, shard_count) in [1, 2, 3, 2, 1, 3].into_iter().enumerate() {
        let expected = model.clone();
        let work = changes(round as u64);
        model.extend(work.iter().copied());
        let after = model.clone();
        let reports = on_shards(&config, shard_count, End::Clean, async move |running| {
            check(running, &expected).await;
            for (key, content) in &work {
                if is_own(running, *key) {
                    put_patiently(&running.store, *key, *content).await;
                }
            }
            check(running, &after).await;
            running.report
        });
        for report in reports {
            let ColdStartReport { open_blocks, damaged_blocks, .. } = report;
            assert_eq!((open_blocks, damaged_blocks, report.damaged_records), (0, 0, 0));
        }
    }
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

#[test]
fn a_crash_loses_nothing_that_was_flushed() {
    let folder = disk_folder();
    let config = config(folder.path(), 64);
    on_shards(&config, 1, End::Crash, async |running| {
        for key in 0..500 {
            put(&running.store, key, Content::Bins(key as u64 % 200, 100)).unwrap();
        }
        settle(&running.store).await;
        for key in 0..500 {
            put(&running.store, key, Content::Bins(201, 50)).unwrap();
        }
    });
    on_shards(&config, 1, End::Clean, async |running| {
        assert_eq!((running.report.damaged_blocks, running.report.damaged_records), (0, 0));
        assert_eq!(running.report.open_blocks, 1);
        for key in 0..500 {
            let content = content(&running.store, key).await;
            let expected = [Content::Bins(key as u64 % 200, 100), Content::Bins(201, 50)];
            assert!(content.is_some_and(|content| expected.contains(&content)), "{content:?}");
        }
    });
}

#[test]
fn versions_grow_over_a_restart_whatever_the_clock_says() {
    let folder = disk_folder();
    let config = config(folder.path(), 16);
    let record = |key: i64| WriteRecord {
        digest: digest(key),
        set: set_of(key),
        key: &[],
        bin_count: 1,
        bins: &[1; 20],
        generation: Generation(1),
        void_time: VoidTime::NEVER,
        flags: RecordFlags::default(),
        src_id: SrcId::NONE,
    };
    let write = async move |running: &Running, key, now: u64| {
        let mut store = running.store.borrow_mut();
        store.note_time();
        store.write(NS, &record(key), Lut::from_ms(now)).unwrap().change.version
    };
    let first = on_shards(&config, 1, End::Clean, async move |running| {
        write(running, 1, 900_000_000_000).await
    });
    let second = on_shards(&config, 1, End::Clean, async move |running| write(running, 2, 5).await);
    assert!(second[0] > first[0]);
}

#[test]
fn a_full_device_refuses_writes_and_takes_deletes() {
    let folder = disk_folder();
    let config = config(folder.path(), 12);
    on_shards(&config, 1, End::Clean, async |running| {
        let store = &running.store;
        let mut key = 0;
        loop {
            match put(store, key, Content::Bins(1, 4000)) {
                Ok(()) => key += 1,
                Err(WriteRefused::Overloaded) => yield_now().await,
                Err(WriteRefused::Full) => break,
                Err(refused) => panic!("{refused}"),
            }
        }
        assert!(key > 200, "{key}");
        for gone in 0..key {
            put_patiently(store, gone, Content::Tombstone).await;
        }
        put_patiently(store, key, Content::Bins(1, 4000)).await;
        let too_big = put(store, 9, Content::Bins(1, BLOCK_BYTES as usize));
        assert_eq!(too_big, Err(WriteRefused::TooBig));
    });
}

#[test]
fn overwriting_for_long_reuses_blocks() {
    let folder = disk_folder();
    let config = config(folder.path(), 16);
    on_shards(&config, 1, End::Clean, async |running| {
        for round in 0..100_u64 {
            for key in 0..50 {
                let content = Content::Bins((round + key) % 200, 2000);
                put_patiently(&running.store, key as i64, content).await;
            }
        }
        for key in 0..50 {
            let expected = Content::Bins((99 + key) % 200, 2000);
            assert_eq!(content(&running.store, key as i64).await, Some(expected));
        }
    });
}

#[test]
fn a_device_four_fifths_full_can_be_overwritten_for_ever() {
    let folder = disk_folder();
    let config = config(folder.path(), 40);
    let keys = 39 * u64::from(BLOCK_BYTES) * 8 / 10 / 1088;
    on_shards(&config, 1, End::Clean, async move |running| {
        let mut dice = Dice(5);
        let mut seeds = vec![0; keys as usize];
        for (key, seed) in seeds.iter_mut().enumerate() {
            *seed = dice.roll(200);
            put_patiently(&running.store, key as i64, Content::Bins(*seed, 1018)).await;
        }
        for _ in 0..2 * keys {
            let (key, seed) = (dice.roll(keys), dice.roll(200));
            seeds[key as usize] = seed;
            put_patiently(&running.store, key as i64, Content::Bins(seed, 1018)).await;
        }
        for (key, seed) in seeds.iter().enumerate() {
            let expected = Some(Content::Bins(*seed, 1018));
            assert_eq!(content(&running.store, key as i64).await, expected);
        }
        let stats = running.store.borrow().stats(NS);
        assert!(stats.moved_records > 0);
    });
    on_shards(&config, 1, End::Clean, async move |running| {
        assert_eq!(running.store.borrow().stats(NS).objects, keys);
    });
}

#[test]
fn blocks_shared_after_a_change_of_shards_become_one_shards_again() {
    let folder = disk_folder();
    let config = config(folder.path(), 64);
    on_shards(&config, 2, End::Clean, async |running| {
        for key in (0..1000).filter(|key| is_own(running, *key)) {
            put_patiently(&running.store, key, Content::Bins(7, 1000)).await;
        }
    });
    on_shards(&config, 3, End::Clean, async |running| {
        let has_foreign = || running.store.borrow().space(NS).log.foreign_count() > 0;
        assert!(has_foreign());
        for key in (0..1000).filter(|key| is_own(running, *key)) {
            put_patiently(&running.store, key, Content::Bins(8, 10)).await;
        }
        while has_foreign() {
            yield_now().await;
        }
        for key in (0..1000).filter(|key| is_own(running, *key)) {
            assert_eq!(content(&running.store, key).await, Some(Content::Bins(8, 10)));
        }
    });
}

#[test]
fn with_commit_a_write_is_visible_when_it_is_durable_and_not_before() {
    let folder = disk_folder();
    let mut config = config(folder.path(), 16);
    config.storage.commit_to_device = true;
    on_shards(&config, 1, End::Crash, async |running| {
        let store = &running.store;
        spawn(Queue::Disk, publish(store.clone()));
        for key in 0..20 {
            put(store, key, Content::Bins(key as u64, 100)).unwrap();
            put(store, key, Content::Bins(key as u64 + 1, 100)).unwrap();
            assert_eq!(store.borrow().lookup(NS, &digest(key)), None);
            let latest = store.borrow().latest(NS, &digest(key));
            assert_eq!(latest.map(|e: IndexEntry| e.generation), Some(Generation(2)));
        }
        let position = store.borrow().space(NS).head.appended();
        committed(store, NS, position).await.unwrap();
        for key in 0..20 {
            let expected = Some(Content::Bins(key as u64 + 1, 100));
            assert_eq!(content(store, key).await, expected);
        }
    });
    on_shards(&config, 1, End::Clean, async |running| {
        for key in 0..20 {
            let expected = Some(Content::Bins(key as u64 + 1, 100));
            assert_eq!(content(&running.store, key).await, expected);
        }
    });
}

#[test]
fn a_wait_for_a_commit_is_registered_once_however_often_it_is_polled() {
    let folder = disk_folder();
    let mut config = config(folder.path(), 16);
    config.storage.commit_to_device = true;
    on_shards(&config, 1, End::Crash, async |running| {
        let store = &running.store;
        put(store, 1, Content::Bins(1, 100)).unwrap();
        let position = store.borrow().space(NS).head.appended();
        let mut waits = [0, 1].map(|_| Box::pin(committed(store, NS, position)));
        for _ in 0..10 {
            for wait in &mut waits {
                assert!(poll_once(wait).await.is_none(), "nobody publishes yet");
            }
        }
        assert_eq!(store.borrow().commit_waiter_count(), 2);
        spawn(Queue::Disk, publish(store.clone()));
        for wait in waits {
            wait.await.unwrap();
        }
        assert_eq!(store.borrow().commit_waiter_count(), 0);
    });
}

#[test]
fn writes_are_refused_while_one_older_than_the_loss_window_may_be_lost() {
    let folder = disk_folder();
    let config = config(folder.path(), 16);
    let window_ms = loss::loss_window_ms(&config.storage);
    assert_eq!(window_ms, 2 * (20 + 1000));
    on_shards(&config, 1, End::Clean, async move |running| {
        let began = Tick(Clock::real().now());
        let write = |ms| {
            let mut store = running.store.borrow_mut();
            let version = store.next_version();
            let record = WriteRecord {
                digest: digest(1),
                set: set_of(1),
                key: &[],
                bin_count: 1,
                bins: &[7; 100],
                generation: Generation(1),
                void_time: VoidTime::NEVER,
                flags: RecordFlags::default(),
                src_id: SrcId::NONE,
            };
            let Store { arena, spaces, .. } = &mut *store;
            let space = &mut spaces[0];
            let (place, now) = (space.index.find(&record.digest), began.plus_ms(ms));
            let written = space.write(arena, &place, &record, Author::Caller, version, now);
            // Cut and not carried yet, it is as much at risk.
            space.head.cut_all(&mut space.log);
            store.flush_wakes[0].set();
            written.map(drop)
        };
        assert_eq!(write(0), Ok(()));
        assert_eq!(write(window_ms), Ok(()));
        assert_eq!(write(window_ms + 1), Err(WriteRefused::Overloaded));
        while !is_durable(&running.store) {
            yield_now().await;
        }
        assert_eq!(write(window_ms + 1), Ok(()));
        assert_eq!(write(2 * window_ms + 1), Ok(()));
        assert_eq!(write(2 * window_ms + 2), Err(WriteRefused::Overloaded));
    });
}

async fn publish(store: SharedStore) {
    let publishable = store.borrow().publishable();
    let mut changes = Vec::new();
    loop {
        publishable.wait().await;
        store.borrow_mut().publish(&mut changes);
    }
}

#[test]
fn a_shipper_reads_and_walks() {
    let folder = disk_folder();
    let mut config = config(folder.path(), 64);
    config.storage.post_write_cache = 0;
    let expected: HashMap<i64, Content> =
        (0..1000).map(|key| (key, Content::Bins(key as u64 % 200, 150))).collect();
    on_shards(&config, 2, End::Clean, async move |running| {
        let store = &running.store;
        let own: Vec<i64> = (0..1000).filter(|key| is_own(running, *key)).collect();
        for key in &own {
            put_patiently(store, *key, expected[key]).await;
        }
        flush::stop(store, Tick::NEVER).await;
        let peeked = matches!(store.borrow().peek(NS, &digest(own[0])), Peek::Here(_));
        assert!(!peeked, "without a cache only the device has it");
        assert_eq!(ship_reads(store, &own).await, own.len());

        let partitions = PartitionId::of_shard(running.shard, running.shard_count);
        let lanes: Vec<_> = partitions.map(|partition| (partition, Lut::ZERO)).collect();
        let mut walked = Vec::new();
        let walk = IndexWalk::open(&mut *store.borrow_mut(), NS, &lanes);
        let mut step = |cx: &mut std::task::Context<'_>| {
            let mut store = store.borrow_mut();
            store.poll_step(walk, cx, &mut walked)
        };
        while std::future::poll_fn(&mut step).await != WalkStep::Done {}
        assert_eq!(walked.len(), own.len());
    });
}

#[test]
fn a_shipper_reads_neighbours_together() {
    let folder = disk_folder();
    let mut config = config(folder.path(), 64);
    config.storage.post_write_cache = 0;
    on_shards(&config, 1, End::Clean, async move |running| {
        let store = &running.store;
        // Large ones in between: beyond the gap that is read over.
        let size = |key: i64| if key % 50 == 0 { 30_000 } else { 150 };
        for key in 0..1000 {
            put_patiently(store, key, Content::Bins(key as u64 % 200, size(key))).await;
        }
        flush::stop(store, Tick::NEVER).await;
        let small: Vec<i64> = (0..1000).filter(|key| key % 50 != 0).collect();
        // In an order that is not the device's.
        let keys: Vec<i64> = small.iter().rev().copied().collect();
        assert_eq!(ship_reads(store, &keys).await, keys.len());
        let stats = store.borrow().stats(NS);
        let device_reads = stats.device_reads - stats.merged_reads;
        assert!(device_reads < keys.len() as u64 / 10, "{device_reads} reads");
    });
}

#[test]
fn a_piece_of_a_block_is_read_once_and_not_believed_when_the_block_is_filled_anew() {
    let folder = disk_folder();
    let mut config = config(folder.path(), 16);
    config.storage.post_write_cache = 0;
    on_shards(&config, 1, End::Clean, async move |running| {
        let store = &running.store;
        let keys: Vec<i64> = (0..400).collect();
        for round in 0..40 {
            for key in &keys {
                put_patiently(store, *key, Content::Bins(*key as u64 % 200, 150)).await;
            }
            // Enough to go over all blocks now and then.
            for key in 1000..1050 {
                put_patiently(store, key, Content::Bins(round, 10_000)).await;
            }
            settle(store).await;
            assert_eq!(ship_reads(store, &keys).await, keys.len());
        }
        let stats = store.borrow().stats(NS);
        assert_eq!(stats.read_errors, 0);
        let pieces = stats.device_reads - stats.merged_reads;
        assert!(pieces < 400 * 40 / 20, "{pieces} reads");
    });
}

#[test]
fn the_tombstone_horizon_survives_a_crash() {
    let folder = disk_folder();
    let config = config(folder.path(), 24);
    let before = on_shards(&config, 2, End::Crash, async move |running| {
        let store = &running.store;
        let own: Vec<i64> = (0..60).filter(|key| is_own(running, *key)).collect();
        for key in &own {
            put_patiently(store, *key, Content::Bins(1, 1000)).await;
            put_patiently(store, *key, Content::Tombstone).await;
        }
        for partition in PartitionId::all() {
            store.borrow_mut().settled_below(NS, partition, None);
        }
        let mut round = 0;
        let other = (1000..).find(|key| is_own(running, *key)).unwrap();
        while store.borrow().stats(NS).tombstones > 0 {
            for _ in 0..200 {
                put_patiently(store, other, Content::Bins(round % 200, 4000)).await;
            }
            round += 1;
            raid::pass(store, NS).await;
        }
        // The next block to be opened knows, and is on the device before anything else is gone.
        for _ in 0..200 {
            put_patiently(store, other, Content::Bins(round % 200, 4000)).await;
        }
        settle(store).await;
        store.borrow().tombstone_horizon(NS)
    });
    let highest = before.into_iter().max().unwrap();
    assert!(highest > Lut::ZERO);
    for shard_count in [1, 3] {
        on_shards(&config, shard_count, End::Clean, async move |running| {
            assert_eq!(running.store.borrow().tombstone_horizon(NS), highest);
        });
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

#[test]
fn a_page_that_cannot_be_read_costs_the_records_on_it_and_no_others() {
    let folder = disk_folder();
    let mut config = config(folder.path(), 64);
    config.storage.post_write_cache = 0;
    on_shards(&config, 1, End::Crash, async |running| {
        let store = &running.store;
        fill_device(store, 100).await;
        let page = place_of(store, 50).start / 4096 * 4096;
        let bad = page..page + 4096;
        store.borrow().ring.break_device(vec![Fault::Read(bad.clone())]);
        let is_hit = |key| {
            let place = place_of(store, key);
            place.start < bad.end && bad.start < place.end
        };
        let hit: Vec<i64> = (0..100).filter(|key| is_hit(*key)).collect();
        assert!(!hit.is_empty() && hit.len() < 4, "{hit:?}");
        for key in 0..100 {
            let found = read(store, NS, &digest(key)).await;
            assert_eq!(found.is_err(), hit.contains(&key), "key {key}");
        }
        assert_eq!(store.borrow().stats(NS).read_errors, hit.len() as u64);
        // Reads that were joined are repeated one by one.
        let keys: Vec<i64> = (0..100).collect();
        let failed = ship_reads_some_failing(store, &keys).await;
        assert_eq!(failed, hit);
        assert_eq!(store.borrow().stats(NS).read_errors, 2 * hit.len() as u64);
        store.borrow().ring.break_device(Vec::new());
        for key in 0..100 {
            let expected = Some(Content::Bins(key as u64 % 200, 3000));
            assert_eq!(content(store, key).await, expected);
        }
    });
}

#[test]
fn a_record_whose_checksum_is_wrong_is_an_error_and_its_neighbours_are_not() {
    let folder = disk_folder();
    let mut config = config(folder.path(), 64);
    config.storage.post_write_cache = 0;
    let path = config.storage.files[0].clone();
    on_shards(&config, 1, End::Crash, async move |running| {
        let store = &running.store;
        fill_device(store, 100).await;
        let log = File::options().read(true).write(true).open(&path).unwrap();
        let at = place_of(store, 50).end - 100;
        let mut byte = [0];
        log.read_exact_at(&mut byte, at).unwrap();
        log.write_all_at(&[byte[0] ^ 1], at).unwrap();
        for key in 0..100 {
            let found = read(store, NS, &digest(key)).await;
            assert_eq!(found.is_err(), key == 50, "key {key}");
        }
        let keys: Vec<i64> = (0..100).collect();
        assert_eq!(ship_reads_some_failing(store, &keys).await, [50]);
        assert_eq!(store.borrow().stats(NS).read_errors, 2);
    });
}

#[test]
fn after_a_write_or_a_flush_has_failed_nothing_is_acknowledged() {
    let everywhere = 0..u64::MAX;
    for (fault, commit) in [
        (Fault::Write(everywhere.clone()), true),
        (Fault::Write(everywhere), false),
        (Fault::Flush, true),
        (Fault::Flush, false),
    ] {
        let folder = disk_folder();
        let mut config = config(folder.path(), 16);
        config.storage.commit_to_device = commit;
        let mut volume = Volume::open(&config, 1).unwrap();
        volume.has_cheap_durable_writes = false;
        on_shards_of(volume, &config, End::Crash, async move |running| {
            let store = &running.store;
            spawn(Queue::Disk, publish(store.clone()));
            put(store, 1, Content::Bins(1, 100)).unwrap();
            let position = store.borrow().space(NS).head.appended();
            settle(store).await;
            committed(store, NS, position).await.unwrap();
            let durable = store.borrow().space(NS).durable();
            store.borrow().ring.break_device(vec![fault.clone()]);
            put(store, 1, Content::Bins(2, 100)).unwrap();
            let position = store.borrow().space(NS).head.appended();
            if commit {
                assert_eq!(committed(store, NS, position).await, Err(WriteRefused::Poisoned));
                assert_eq!(content(store, 1).await, Some(Content::Bins(1, 100)));
            }
            while !store.borrow().stats(NS).is_poisoned {
                yield_now().await;
            }
            // A device that recovers does not make good what it may have lost.
            store.borrow().ring.break_device(Vec::new());
            for key in 0..10 {
                let refused = put(store, key, Content::Bins(3, 100));
                assert_eq!(refused, Err(WriteRefused::Poisoned));
            }
            assert_eq!(store.borrow().space(NS).durable(), durable);
            assert_eq!(
                flush::stop(store, Tick::NEVER).await,
                [NS],
                "a stop says that not all is durable"
            );
        });
        on_shards(&config, 1, End::Clean, async |running| {
            let found = content(&running.store, 1).await;
            let may_be = [Content::Bins(1, 100), Content::Bins(2, 100)];
            assert!(found.is_some_and(|found| may_be.contains(&found)), "{found:?}");
        });
    }
}

#[test]
fn writes_are_taken_again_when_every_shard_has_room() {
    let folder = disk_folder();
    let volume = Volume::open(&config(folder.path(), 32), 2).unwrap();
    let [full, other] = [ShardIndex(0), ShardIndex(1)];
    let look =
        |shard, has_room, second: u64| volume.look_for_room(shard, has_room, second * 1_000_000);
    assert!(volume.raise_full(full, 1_000_000) && !volume.raise_full(full, 2_000_000));
    for second in 3..20 {
        assert!(!look(other, true, second), "nobody writes there, but there is no room either");
        assert!(!look(full, false, second));
    }
    assert!(look(full, true, 20) && !look(other, true, 21), "told once");
}

#[test]
fn a_flush_that_fails_for_one_shard_has_failed_for_all() {
    let folder = disk_folder();
    let config = config(folder.path(), 32);
    let mut volume = Volume::open(&config, 2).unwrap();
    volume.has_cheap_durable_writes = false;
    let gate = Arc::new(std::sync::Barrier::new(2));
    on_shards_of(volume, &config, End::Crash, async move |running| {
        let store = &running.store;
        let own: Vec<i64> = (0..100).filter(|key| is_own(running, *key)).collect();
        put(store, own[0], Content::Bins(1, 100)).unwrap();
        settle(store).await;
        gate.wait();
        if running.shard.0 == 0 {
            store.borrow().ring.break_device(vec![Fault::Flush]);
            put(store, own[1], Content::Bins(2, 100)).unwrap();
            while !store.borrow().stats(NS).is_poisoned {
                yield_now().await;
            }
        }
        gate.wait();
        if running.shard.0 == 1 {
            let durable = store.borrow().space(NS).durable();
            put(store, own[1], Content::Bins(2, 100)).unwrap();
            while !store.borrow().stats(NS).is_poisoned {
                assert_eq!(store.borrow().space(NS).durable(), durable);
                yield_now().await;
            }
        }
    });
}

#[test]
fn a_stop_does_not_wait_for_a_device_beyond_its_deadline_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), 64);
    on_shards(&config, 1, End::Crash, async |running| {
        let store = &running.store;
        for key in 0..100 {
            put(store, key, Content::Bins(1, 100)).unwrap();
        }
        assert!(!is_durable(store));
        assert_eq!(flush::stop(store, Tick(0)).await, [NS], "nothing was flushed");
    });
    let index = std::fs::read_dir(folder.path()).unwrap().flatten();
    let left = index.filter(|entry| entry.file_name().to_string_lossy().starts_with("index-"));
    assert_eq!(left.count(), 0, "no checkpoint");
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

#[test]
fn every_flipped_byte_of_a_small_log_is_noticed() {
    let folder = disk_folder();
    let config = config(folder.path(), 5);
    let block = u64::from(BLOCK_BYTES);
    on_shards(&config, 1, End::Clean, async |running| {
        for key in 0..4 {
            put(&running.store, key, Content::Bins(key as u64, 100)).unwrap();
        }
    });
    let spec = ShardSpec { index: 0, core: None, name: "flips".into() };
    let path = config.storage.files[0].clone();
    let run = move || async move {
        let volume = Volume::open(&config, 1).unwrap();
        let arena = Arena::new(8 << 20, None).unwrap();
        let ring = DiskRing::new(64, &arena).unwrap();
        spawn(Queue::Disk, ring.clone().drive());
        let files = vec![ring.add_file(volume.devices[0].file().try_clone().unwrap()).unwrap()];
        let log = File::options().read(true).write(true).open(path).unwrap();
        let scan = async || {
            let mut peer = peers(1).remove(0);
            let files = files.clone();
            let mut spaces = [Space::new(NS, &config, &volume, ShardIndex(0), files)];
            let reader = cold_start::Reader { ring: &ring, arena: &arena };
            let report = cold_start::run(reader, &mut spaces, &[&volume], &mut peer).await;
            (report.unwrap(), spaces[0].stats().objects)
        };
        // Each record is 64 + 100 bytes and a set name of at most 6, rounded up to 16.
        let records_end = 64 + 4 * 176;
        let (whole, objects) = scan().await;
        assert_eq!((whole.damaged_blocks, whole.damaged_records, objects), (0, 0, 4));
        for at in (0..records_end).chain(block - 64..block) {
            let mut byte = [0];
            log.read_exact_at(&mut byte, block + at).unwrap();
            let flipped = [byte[0] ^ 0x04];
            log.write_all_at(&flipped, block + at).unwrap();
            let (report, objects) = scan().await;
            let noticed = report.damaged_blocks + report.damaged_records > 0;
            assert!(noticed, "byte {at}: {report:?}");
            assert!(objects >= 3, "byte {at}: {objects} records left");
            log.write_all_at(&byte, block + at).unwrap();
        }
    };
    spawn_shard(spec, run).unwrap().join();
}

#[test]
fn an_expired_record_becomes_a_tombstone_that_keeps_set_and_key() {
    let folder = disk_folder();
    let config = config(folder.path(), 16);
    on_shards(&config, 1, End::Clean, async |running| {
        let store = &running.store;
        let past = VoidTime(now().seconds() - 10);
        let expiring = WriteRecord {
            digest: digest(1),
            set: set_of(1),
            key: b"\x03me",
            bin_count: 1,
            bins: &[1; 20],
            generation: Generation(1),
            void_time: past,
            flags: RecordFlags::HAS_KEY,
            src_id: SrcId(3),
        };
        let written = store.borrow_mut().write(NS, &expiring, now()).unwrap().change.version.lut();
        put(store, 2, Content::Bins(1, 10)).unwrap();
        assert_eq!(expire::pass(store, NS).await, 1);
        assert_eq!(store.borrow().lookup(NS, &digest(1)).unwrap().generation, Generation(1));
        let mut changes = Vec::new();
        store.borrow_mut().publish(&mut changes);
        assert_eq!(changes.len(), 1);
        assert_eq!(changes[0].kind, ChangeKind::NsupDelete);
        assert!(!changes[0].shipped);
        let tombstone = read(store, NS, &digest(1)).await.unwrap().unwrap();
        let view = tombstone.view();
        assert!(view.is_tombstone() && view.flags.has(RecordFlags::NSUP));
        assert_eq!(
            (view.set, view.key, view.generation),
            (set_of(1), &b"\x03me"[..], Generation(2))
        );
        assert_eq!(view.local_lut, written, "an expiry is not a change of its own");
        assert_eq!(expire::pass(store, NS).await, 0);
        assert_eq!(content(store, 2).await, Some(Content::Bins(1, 10)));
    });
}

#[test]
fn what_was_written_is_flushed_when_it_is_durable_and_not_before() {
    let folder = disk_folder();
    let config = config(folder.path(), 16);
    on_shards(&config, 1, End::Clean, async |running| {
        let store = &running.store;
        store.borrow_mut().watch_flush(NS);
        assert!(store.borrow().is_flushed(NS), "nothing was written");
        put(store, 1, Content::Bins(1, 10)).unwrap();
        assert!(store.borrow().is_flushed(NS), "nobody asked again");
        store.borrow_mut().watch_flush(NS);
        assert!(!store.borrow().is_flushed(NS));
        settle(store).await;
        assert!(store.borrow().is_flushed(NS));
        put(store, 2, Content::Bins(1, 10)).unwrap();
        assert!(store.borrow().is_flushed(NS), "what was written later is not waited for");
    });
}

#[test]
fn the_expiry_of_a_record_shipped_in_says_so() {
    let folder = disk_folder();
    let config = config(folder.path(), 16);
    on_shards(&config, 1, End::Clean, async |running| {
        let store = &running.store;
        let expiring = WriteRecord {
            digest: digest(1),
            set: set_of(1),
            key: &[],
            bin_count: 1,
            bins: &[1; 20],
            generation: Generation(1),
            void_time: VoidTime(now().seconds() - 10),
            flags: RecordFlags::SHIPPED,
            src_id: SrcId(3),
        };
        store.borrow_mut().write(NS, &expiring, now()).unwrap();
        assert_eq!(expire::pass(store, NS).await, 1);
        let mut changes = Vec::new();
        store.borrow_mut().publish(&mut changes);
        assert_eq!((changes[0].kind, changes[0].src_id), (ChangeKind::NsupDelete, SrcId(3)));
        assert!(changes[0].shipped, "or it would go back to where the record came from");
        let tombstone = read(store, NS, &digest(1)).await.unwrap().unwrap();
        assert_eq!(tombstone.view().local_lut, Lut::ZERO);
    });
}

#[test]
fn a_write_overtakes_the_expiry_of_its_record() {
    let folder = disk_folder();
    let config = config(folder.path(), 16);
    on_shards(&config, 1, End::Clean, async |running| {
        let store = &running.store;
        let past = VoidTime(now().seconds() - 10);
        let mut record = WriteRecord {
            digest: digest(1),
            set: set_of(1),
            key: &[],
            bin_count: 1,
            bins: &bins(1, 20),
            generation: Generation(1),
            void_time: past,
            flags: RecordFlags::default(),
            src_id: SrcId::NONE,
        };
        store.borrow_mut().write(NS, &record, now()).unwrap();
        assert_eq!(expire::pass(store, NS).await, 1);
        record.void_time = VoidTime::NEVER;
        assert!(store.borrow_mut().write(NS, &record, now()).unwrap().is_published);
        let mut changes = Vec::new();
        store.borrow_mut().publish(&mut changes);
        assert!(changes.is_empty(), "the write's own change covers it");
        assert_eq!(content(store, 1).await, Some(Content::Bins(1, 20)));
    });
    on_shards(&config, 1, End::Clean, async |running| {
        assert_eq!(content(&running.store, 1).await, Some(Content::Bins(1, 20)));
    });
}

#[test]
fn a_tombstone_stays_while_an_older_version_could_come_back() {
    let folder = disk_folder();
    let config = config(folder.path(), 24);
    let gone = 0..50_i64;
    let others = 100..130_i64;
    on_shards(&config, 1, End::Clean, async move |running| {
        let store = &running.store;
        for key in gone.clone().chain(others.clone()) {
            put_patiently(store, key, Content::Bins(1, 1000)).await;
        }
        for key in gone.clone() {
            put_patiently(store, key, Content::Tombstone).await;
        }
        assert_eq!(raid::pass(store, NS).await, 0, "nobody has said that they are settled");
        for partition in PartitionId::all() {
            store.borrow_mut().settled_below(NS, partition, None);
        }
        assert_eq!(raid::pass(store, NS).await, 0, "the older versions lie in the same block");
        // Every block is filled again before long, and the old versions with it.
        let mut round = 0;
        while store.borrow().stats(NS).tombstones > 0 {
            for _ in 0..20 {
                for key in others.clone() {
                    put_patiently(store, key, Content::Bins(round % 200, 4000)).await;
                }
                round += 1;
            }
            raid::pass(store, NS).await;
        }
        assert_eq!(store.borrow().stats(NS).raided_tombstones, 50);
        assert!(store.borrow().tombstone_horizon(NS) > Lut::ZERO);
    });
    on_shards(&config, 1, End::Clean, async |running| {
        for key in 0..50 {
            let content = content(&running.store, key).await;
            assert!(matches!(content, None | Some(Content::Tombstone)), "key {key}: {content:?}");
        }
    });
}

fn open_warm(config: &NamespaceConfig, shard_count: u16) -> Volume {
    let folder = config.storage.files[0].parent().unwrap();
    Volume::open(config, shard_count).unwrap().with_checkpoints(folder.to_owned())
}

#[test]
fn a_clean_stop_is_followed_by_a_warm_start_and_a_crash_by_a_cold_one() {
    let folder = disk_folder();
    let config = config(folder.path(), 256);
    let mut model: BTreeMap<i64, Content> = BTreeMap::new();
    let rounds = [
        (2, End::Clean, false),
        (2, End::Clean, true),
        (2, End::Crash, true),
        (2, End::Clean, false),
        (3, End::Clean, false),
        (3, End::Clean, true),
        (3, End::Clean, true),
    ];
    for (round, (shard_count, end, is_warm)) in rounds.into_iter().enumerate() {
        let expected = model.clone();
        let work = changes(round as u64);
        model.extend(work.iter().copied());
        let volume = open_warm(&config, shard_count);
        on_shards_of(volume, &config, end, async move |running| {
            assert_eq!(running.report.warm > 0, is_warm, "round {round}");
            check(running, &expected).await;
            for (key, content) in &work {
                if is_own(running, *key) {
                    put_patiently(&running.store, *key, *content).await;
                }
            }
            settle(&running.store).await;
        });
    }
}

#[test]
fn a_namespace_without_its_checkpoint_does_not_make_others_start_cold() {
    const SHARDS: u16 = 2;
    const RECORDS: i64 = 200;
    let folder = disk_folder();
    let configs = ["hung", "sound"].map(|name| NamespaceConfig {
        name: name.into(),
        storage: StorageConfig {
            files: vec![folder.path().join(name)],
            // Nothing but the test is to write.
            defrag_lwm_pct: 0,
            ..config(folder.path(), 64).storage
        },
        ..NamespaceConfig::named(name)
    });
    let run = |end, round: u64, (warm, cold): (u32, u32)| {
        let open = |config: &NamespaceConfig| (config.clone(), Arc::new(open_warm(config, SHARDS)));
        on_shards_with(configs.iter().map(open).collect(), end, async move |running| {
            let Running { report, store, .. } = running;
            assert_eq!((report.warm, report.cold), (warm, cold), "round {round}");
            for namespace in [NamespaceId(0), NamespaceId(1)] {
                for key in (0..RECORDS).filter(|key| is_own(running, *key)) {
                    let found = read(store, namespace, &digest(key)).await.unwrap();
                    let found = found.map(|record| record.view().bins.to_vec());
                    let expected = (round > 0).then(|| bins(round - 1, 50));
                    assert_eq!(found, expected, "round {round}, key {key}");
                    let bytes = bins(round, 50);
                    let record = WriteRecord {
                        digest: digest(key),
                        set: set_of(key),
                        key: &[],
                        bin_count: 1,
                        bins: &bytes,
                        generation: Generation(1),
                        void_time: VoidTime::NEVER,
                        flags: RecordFlags::default(),
                        src_id: SrcId::NONE,
                    };
                    store.borrow().note_time();
                    while store.borrow_mut().write(namespace, &record, now()).is_err() {
                        yield_now().await;
                    }
                }
            }
        });
    };
    run(End::Clean, 0, (0, 2));
    run(End::Clean, 1, (2, 0));
    // What a stop leaves where one device takes nothing on one shard.
    std::fs::remove_file(folder.path().join("index-hung-1")).unwrap();
    run(End::Clean, 2, (1, 1));
    run(End::Clean, 3, (2, 0));
}

#[test]
fn a_checkpoint_that_is_damaged_or_of_another_time_is_not_used() {
    let folder = disk_folder();
    let mut config = config(folder.path(), 16);
    // Nothing but the test is to write.
    config.storage.defrag_lwm_pct = 0;
    let path = folder.path().join("index-demo-0");
    let put_then_stop = |seed: u64| {
        on_shards_of(open_warm(&config, 1), &config, End::Clean, async move |running| {
            for key in 0..20 {
                put(&running.store, key, Content::Bins(seed, 100)).unwrap();
            }
        });
        std::fs::read(&path).unwrap()
    };
    let is_warm_with = |checkpoint: &[u8], seed: u64| {
        std::fs::write(&path, checkpoint).unwrap();
        on_shards_of(open_warm(&config, 1), &config, End::Crash, async move |running| {
            for key in 0..20 {
                assert_eq!(content(&running.store, key).await, Some(Content::Bins(seed, 100)));
            }
            running.report.warm > 0
        })[0]
    };
    let old = put_then_stop(1);
    let new = put_then_stop(2);
    assert!(is_warm_with(&new, 2));
    assert!(!path.exists(), "it is good for one start");
    assert!(!is_warm_with(&new, 2), "a run has been since, of which it cannot know");
    put_then_stop(3);
    assert!(!is_warm_with(&old, 3), "blocks were written since");
    let new = put_then_stop(4);
    assert!(!is_warm_with(&new[..new.len() - 1], 4));
    for part in 0..12 {
        let seed = 5 + part as u64;
        let mut damaged = put_then_stop(seed);
        let at = damaged.len() / 12 * part;
        damaged[at] ^= 1;
        assert!(!is_warm_with(&damaged, seed), "byte {at}");
    }
}

/// Walks from `from` over every lane, a step at a time, with `between` in between; gives what was
/// found and checks each promise on the way.
async fn walk_through(
    running: &Running,
    from: Lut,
    must_come: &BTreeMap<i64, Lut>,
    mut between: impl AsyncFnMut(),
) -> (BTreeMap<Digest, Lut>, usize) {
    let store = &running.store;
    let partitions = PartitionId::of_shard(running.shard, running.shard_count);
    let lanes: Vec<_> = partitions.map(|partition| (partition, from)).collect();
    let walk = IndexWalk::open(&mut *store.borrow_mut(), NS, &lanes);
    let (mut found, mut steps, mut given) = (BTreeMap::new(), 0, Vec::new());
    loop {
        let step = poll_fn(|cx| store.borrow_mut().poll_step(walk, cx, &mut given)).await;
        steps += 1;
        for walked in given.drain(..) {
            assert!(walked.version.lut() >= from);
            let lut = found.entry(walked.digest.0).or_insert(Lut::ZERO);
            *lut = walked.version.lut().max(*lut);
        }
        let complete_below = match step {
            WalkStep::Done => Lut::MAX,
            WalkStep::More { complete_below } => complete_below,
        };
        for (key, lut) in must_come {
            let given = found.get(&digest(*key).0);
            let version = store.borrow().lookup(NS, &digest(*key)).unwrap().version.lut();
            if version < complete_below {
                // What was rewritten meanwhile may come with its newer version, and comes.
                assert!(given >= Some(lut), "key {key}, step {steps}: {given:?}, not {lut:?}");
            }
            assert!(version != *lut || given.is_none_or(|given| given == lut));
        }
        if step == WalkStep::Done {
            break;
        }
        between().await;
    }
    store.borrow_mut().close(walk);
    (found.into_iter().map(|(digest, lut)| (Digest(digest), lut)).collect(), steps)
}

#[test]
fn a_walk_by_block_finds_what_changed_while_blocks_move_under_it() {
    let folder = disk_folder();
    let mut config = config(folder.path(), 256);
    config.storage.post_write_cache = 0;
    for seed in 0..4 {
        on_shards(&config, 1, End::Clean, async move |running| {
            walk_while_blocks_move(running, seed).await;
        });
    }
}

/// Fills half of the device, rewrites most of it, and walks over the last part of the changes while
/// defragmentation and writes go on.
async fn walk_while_blocks_move(running: &Running, seed: u64) {
    let store = &running.store;
    let mut dice = Dice(seed * 7919 + 1);
    let base = store.borrow().version_clock(NS).ms() + 1000;
    let mut luts: BTreeMap<i64, Lut> = BTreeMap::new();
    for step in 0..6000 {
        let key = dice.roll(3000) as i64;
        let lut = Lut::from_ms(base + step);
        while put_at(store, key, Content::Bins(step % 200, 1000), lut).is_err() {
            yield_now().await;
        }
        luts.insert(key, lut);
    }
    settle(store).await;
    let from = Lut::from_ms(base + 5000);
    let mut must_come = luts.clone();
    must_come.retain(|_, lut| *lut >= from);
    assert!(!must_come.is_empty());
    let rewritten: Vec<i64> = (0..2000).map(|_| dice.roll(3000) as i64).collect();
    let mut rest = rewritten.into_iter();
    let (found, steps) = walk_through(running, from, &must_come, async || {
        for key in rest.by_ref().take(40) {
            put_patiently(store, key, Content::Bins(1, 1000)).await;
        }
        yield_now().await;
    })
    .await;
    assert!(steps > 3, "{steps}");
    assert!(found.len() >= must_come.len());
}

#[test]
fn a_walk_by_block_follows_records_that_were_moved() {
    let folder = disk_folder();
    let mut config = config(folder.path(), 256);
    config.storage.post_write_cache = 0;
    on_shards(&config, 1, End::Clean, async |running| {
        let store = &running.store;
        let base = store.borrow().version_clock(NS).ms() + 1000;
        let lut = |step: i64| Lut::from_ms(base + step as u64);
        for key in 0..3000 {
            while put_at(store, key, Content::Bins(1, 1000), lut(key)).is_err() {
                yield_now().await;
            }
        }
        settle(store).await;
        let from = lut(2400);
        let stay: BTreeMap<i64, Lut> =
            (2400..3000).filter(|key| key % 5 == 0).map(|key| (key, lut(key))).collect();
        let mut is_first = true;
        walk_through(running, from, &stay, async || {
            if !std::mem::take(&mut is_first) {
                return;
            }
            // The first step has begun a read of one block; the others are emptied now.
            for key in (2400..3000).filter(|key| key % 5 != 0) {
                put_patiently(store, key, Content::Bins(2, 1000)).await;
            }
            while store.borrow().stats(NS).moved_records < stay.len() as u64 * 3 / 4 {
                yield_now().await;
            }
        })
        .await;
    });
}

/// Writes a record as a shipper does that has it from elsewhere: no change of its own.
fn put_shipped(store: &SharedStore, key: i64) -> Result<(), WriteRefused> {
    let bins = bins(3, 1000);
    let mut store = store.borrow_mut();
    let former = store.latest(NS, &digest(key)).map_or(Generation(0), |e| e.generation);
    let record = WriteRecord {
        digest: digest(key),
        set: set_of(key),
        key: &[],
        bin_count: 1,
        bins: &bins,
        generation: former.next(),
        void_time: VoidTime::NEVER,
        flags: RecordFlags::SHIPPED,
        src_id: SrcId(9),
    };
    store.note_time();
    store.write(NS, &record, now()).map(|_| ())
}

/// Opens a walk over every lane of the shard.
fn open_walk(running: &Running, from: Lut) -> WalkId {
    let partitions = PartitionId::of_shard(running.shard, running.shard_count);
    let lanes: Vec<_> = partitions.map(|partition| (partition, from)).collect();
    IndexWalk::open(&mut *running.store.borrow_mut(), NS, &lanes)
}

#[test]
fn a_walk_gives_what_a_change_that_is_not_submitted_has_hidden() {
    let folder = disk_folder();
    let mut by_block = config(folder.path(), 256);
    by_block.storage.post_write_cache = 0;
    let mut by_index = by_block.clone();
    by_index.storage.post_write_cache = 64 << 20;
    // Of the last fifth, in blocks; and of everything, through the index.
    for (config, first) in [(by_block, 2400), (by_index, 0)] {
        on_shards(&config, 1, End::Clean, async move |running| {
            let store = &running.store;
            let base = store.borrow().version_clock(NS).ms() + 1000;
            let lut = |step: i64| Lut::from_ms(base + step as u64);
            for key in 0..3000 {
                while put_at(store, key, Content::Bins(1, 1000), lut(key)).is_err() {
                    yield_now().await;
                }
            }
            settle(store).await;
            let walk = open_walk(running, lut(first));
            let (mut given, mut found) = (Vec::new(), BTreeMap::new());
            let mut rewritten = (2500..2900).collect::<Vec<i64>>().into_iter();
            loop {
                let step = poll_fn(|cx| store.borrow_mut().poll_step(walk, cx, &mut given)).await;
                for walked in given.drain(..) {
                    found.insert(walked.digest.0, walked.local_lut);
                }
                let complete_below = match step {
                    WalkStep::Done => Lut::MAX,
                    WalkStep::More { complete_below } => complete_below,
                };
                // What is owed stays owed, however often it is hidden.
                for key in (first..3000).filter(|key| lut(*key) < complete_below) {
                    assert_eq!(found.get(&digest(key).0), Some(&lut(key)), "key {key}");
                }
                if step == WalkStep::Done {
                    break;
                }
                for key in rewritten.by_ref().take(200) {
                    while put_shipped(store, key).is_err() {
                        yield_now().await;
                    }
                }
            }
            store.borrow_mut().close(walk);
        });
    }
}

#[test]
fn a_walk_gives_what_lies_where_something_is_damaged() {
    let folder = disk_folder();
    let mut config = config(folder.path(), 64);
    config.storage.post_write_cache = 0;
    config.storage.defrag_lwm_pct = 0;
    let path = config.storage.files[0].clone();
    on_shards(&config, 1, End::Clean, async move |running| {
        let store = &running.store;
        for key in 0..600 {
            put_patiently(store, key, Content::Bins(key as u64 % 200, 1000)).await;
        }
        settle(store).await;
        let log = File::options().read(true).write(true).open(&path).unwrap();
        let flip = |at: u64| {
            let mut byte = [0];
            log.read_exact_at(&mut byte, at).unwrap();
            log.write_all_at(&[byte[0] ^ 1], at).unwrap();
        };
        let block_of = |key| place_of(store, key).start / u64::from(BLOCK_BYTES);
        // A header, a record, the magic of a record, and a page: each in a block of its own.
        let (header, record, magic, page) = (0, 150, 300, 450);
        let blocks = [header, record, magic, page].map(block_of);
        assert!(blocks.windows(2).all(|pair| pair[0] < pair[1]), "{blocks:?}");
        flip(blocks[0] * u64::from(BLOCK_BYTES) + 10);
        flip(place_of(store, record).end - 50);
        flip(place_of(store, magic).start);
        let hole = place_of(store, page).start / 4096 * 4096;
        store.borrow().ring.break_device(vec![Fault::Read(hole..hole + 4096)]);
        let walk = open_walk(running, Lut::ZERO);
        let (mut given, mut most) = (Vec::new(), 0);
        let mut found: BTreeMap<[u8; 20], Lut> = BTreeMap::new();
        while poll_fn(|cx| store.borrow_mut().poll_step(walk, cx, &mut given)).await
            != WalkStep::Done
        {
            most = most.max(given.len());
            found.extend(given.drain(..).map(|walked| (walked.digest.0, walked.local_lut)));
        }
        found.extend(given.drain(..).map(|walked| (walked.digest.0, walked.local_lut)));
        assert_eq!(found.len(), 600, "records given before the walk said Done");
        assert!(most <= 512, "{most} records in one step");
    });
}

/// Opens the store of one shard over a device of which parts cannot be read, and gives what `look`
/// makes of it.
fn start_broken<T: Send + 'static>(
    config: &NamespaceConfig,
    faults: Vec<Fault>,
    look: impl FnOnce(&Volume, &Space, ColdStartReport) -> T + Send + 'static,
) -> T {
    let config = config.clone();
    let spec = ShardSpec { index: 0, core: None, name: "broken".into() };
    let run = move || async move {
        let volume = Volume::open(&config, 1).unwrap();
        let arena = Arena::new(8 << 20, None).unwrap();
        let ring = DiskRing::new(64, &arena).unwrap();
        spawn(Queue::Disk, ring.clone().drive());
        let files = vec![ring.add_file(volume.devices[0].file().try_clone().unwrap()).unwrap()];
        ring.break_device(faults);
        let mut peer = peers(1).remove(0);
        let mut spaces = [Space::new(NS, &config, &volume, ShardIndex(0), files)];
        let reader = cold_start::Reader { ring: &ring, arena: &arena };
        let report = cold_start::run(reader, &mut spaces, &[&volume], &mut peer).await.unwrap();
        look(&volume, &spaces[0], report)
    };
    spawn_shard(spec, run).unwrap().join()
}

#[test]
fn an_unreadable_page_at_a_cold_start_costs_what_lies_on_it_and_is_counted() {
    let folder = disk_folder();
    let mut config = config(folder.path(), 64);
    config.storage.post_write_cache = 0;
    config.storage.defrag_lwm_pct = 0;
    let (places, newest) = on_shards(&config, 1, End::Clean, async |running| {
        let store = &running.store;
        for round in [1, 2] {
            for key in 0..100 {
                put_patiently(store, key, Content::Bins(round, 3000)).await;
            }
            settle(store).await;
        }
        let version = |key| store.borrow().lookup(NS, &digest(key)).unwrap().version;
        let places: Vec<_> = (0..100).map(|key| place_of(store, key)).collect();
        (places, (0..100).map(version).collect::<Vec<_>>())
    })
    .remove(0);
    let block = u64::from(BLOCK_BYTES);
    let page_of = |at: u64| at / 4096 * 4096..at / 4096 * 4096 + 4096;
    let end_of_block = places[50].start / block * block + block - 1;
    let start_of_block = places[50].start / block * block;
    // In the middle of a block; its header, and its trailer, with what else is on their pages.
    for page in [places[50].start, start_of_block, end_of_block].map(page_of) {
        let hit = |place: &std::ops::Range<u64>| place.start < page.end && page.start < place.end;
        let hits: Vec<bool> = places.iter().map(hit).collect();
        let hit_count = hits.iter().filter(|hit| **hit).count() as u64;
        let newest = newest.clone();
        let is_trailer = page.end % block == 0;
        start_broken(&config, vec![Fault::Read(page)], move |volume, space, report| {
            for key in 0..100 {
                let found = space.lookup(&digest(key)).map(|entry| entry.version);
                let is_current = found == Some(newest[key as usize]);
                assert_eq!(is_current, !hits[key as usize], "key {key}");
            }
            let damage = volume.damage();
            assert_eq!((damage.blocks, damage.unreadable_bytes), (1, 4096));
            assert_eq!(report.unreadable_blocks, 1);
            match is_trailer {
                // Nothing else tells how many there were.
                true => assert!(damage.records_maybe_lost >= hit_count && damage.may_be_old()),
                // Superseded versions count, too: the log cannot tell.
                false => {
                    assert_eq!((damage.records_lost, damage.records_maybe_lost), (hit_count, 0));
                }
            }
        });
    }
    start_broken(&config, Vec::new(), |volume, _, _| assert!(volume.damage().is_none()));
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

#[test]
fn a_dc_attached_while_the_raider_reads_finds_the_tombstones_it_needs() {
    let folder = disk_folder();
    let config = config(folder.path(), 24);
    on_shards(&config, 1, End::Clean, async |running| {
        let store = &running.store;
        for key in 0..50 {
            put_patiently(store, key, Content::Bins(1, 1000)).await;
        }
        settle_all(store);
        for key in 0..50 {
            put_patiently(store, key, Content::Tombstone).await;
        }
        turn_over(store, 24).await;
        // The pass has begun to read; then a DC wants everything from before.
        let mut pass = Box::pin(raid::pass(store, NS));
        while store.borrow().space(NS).index.marked_count() < 50 {
            assert!(poll_once(&mut pass).await.is_none(), "it is not through yet");
            yield_now().await;
        }
        let from = store.borrow().lookup(NS, &digest(20)).unwrap().version.lut();
        for partition in PartitionId::all() {
            store.borrow_mut().needed_from(NS, partition, from);
        }
        pass.await;
        for key in 20..50 {
            assert_eq!(content(store, key).await, Some(Content::Tombstone), "key {key}");
        }
        assert!(store.borrow().tombstone_horizon(NS) < from);
        // Nobody can say otherwise by what was known before.
        let partition = digest(20).partition();
        store.borrow_mut().needed_from(NS, partition, Lut::MAX);
        assert_eq!(store.borrow().settled_at(NS, partition), Some(from));
    });
}

#[test]
fn a_page_that_cannot_be_read_does_not_stop_the_raider() {
    let folder = disk_folder();
    let mut config = config(folder.path(), 48);
    config.storage.post_write_cache = 0;
    on_shards(&config, 1, End::Clean, async |running| {
        let store = &running.store;
        let tombstones = |store: &SharedStore| store.borrow().stats(NS).tombstones;
        settle_all(store);
        for key in 0..50 {
            put_patiently(store, key, Content::Bins(1, 1000)).await;
            put_patiently(store, key, Content::Tombstone).await;
        }
        turn_over(store, 48).await;
        // Younger than all of these, and its block stays: most of it is alive.
        for key in 1000..1200 {
            put_patiently(store, key, Content::Bins(1, 3000)).await;
        }
        settle(store).await;
        let hole = place_of(store, 1050).start / 4096 * 4096;
        store.borrow().ring.break_device(vec![Fault::Read(hole..hole + 4096)]);
        put_patiently(store, 1000, Content::Tombstone).await;
        let mut passes = 0;
        while tombstones(store) > 1 {
            raid::pass(store, NS).await;
            turn_over(store, 8).await;
            passes += 1;
            assert!(passes < 50, "{} tombstones left", tombstones(store));
        }
        // What may lie on that page may be an older version of this one.
        assert_eq!(content(store, 1000).await, Some(Content::Tombstone));
    });
}

#[test]
fn a_first_page_of_zeros_hides_no_block() {
    let folder = disk_folder();
    let mut config = config(folder.path(), 64);
    config.storage.post_write_cache = 0;
    config.storage.defrag_lwm_pct = 0;
    let path = config.storage.files[0].clone();
    let block = on_shards(&config, 1, End::Clean, async |running| {
        for key in 0..600 {
            put_patiently(&running.store, key, Content::Bins(key as u64 % 200, 1000)).await;
        }
        place_of(&running.store, 300).start / u64::from(BLOCK_BYTES) * u64::from(BLOCK_BYTES)
    })[0];
    let log = File::options().write(true).open(&path).unwrap();
    log.write_all_at(&[0; 4096], block).unwrap();
    start_broken(&config, Vec::new(), |volume, space, report| {
        let found = (0..600).filter(|key| space.lookup(&digest(*key)).is_some()).count() as u64;
        assert!(found >= 595, "{found} of 600");
        let damage = volume.damage();
        assert_eq!((damage.records_lost, damage.records_maybe_lost), (600 - found, 0));
        assert_eq!((damage.blocks, report.damaged_blocks), (1, 1));
    });
}

#[test]
fn a_damaged_header_does_not_make_a_warm_start_a_cold_one() {
    let folder = disk_folder();
    let mut config = config(folder.path(), 64);
    config.storage.post_write_cache = 0;
    config.storage.defrag_lwm_pct = 0;
    let path = config.storage.files[0].clone();
    on_shards_of(open_warm(&config, 1), &config, End::Clean, async |running| {
        for key in 0..600 {
            put_patiently(&running.store, key, Content::Bins(key as u64 % 200, 1000)).await;
        }
    });
    let log = File::options().write(true).open(&path).unwrap();
    log.write_all_at(&[9], u64::from(BLOCK_BYTES) + 10).unwrap();
    let volume = open_warm(&config, 1);
    on_shards_of(volume, &config, End::Clean, async |running| {
        assert!(running.report.warm > 0);
        assert_eq!(running.report.damaged_blocks, 1);
        for key in 0..600 {
            let expected = Some(Content::Bins(key as u64 % 200, 1000));
            assert_eq!(content(&running.store, key).await, expected);
        }
        // Known by heart: such a block can be emptied, too.
        running.store.borrow_mut().spaces[0].defrag_lwm_pct = 99;
        let first = running.store.borrow().space(NS).log.geometry().own_blocks().next().unwrap();
        while running.store.borrow().space(NS).log.live_bytes(first) > 0 {
            yield_now().await;
        }
    });
}

#[test]
fn a_damaged_record_in_a_foreign_block_does_not_keep_the_others() {
    let folder = disk_folder();
    let mut config = config(folder.path(), 64);
    config.storage.post_write_cache = 0;
    let path = config.storage.files[0].clone();
    let places = on_shards(&config, 2, End::Clean, async |running| {
        let own: Vec<i64> = (0..1000).filter(|key| is_own(running, *key)).collect();
        for key in &own {
            put_patiently(&running.store, *key, Content::Bins(7, 1000)).await;
        }
        own.iter().map(|key| (*key, place_of(&running.store, *key))).collect::<Vec<_>>()
    });
    // A record that the third of three shards finds in a block of the first.
    let moves = |key: i64| digest(key).partition().shard(3) == ShardIndex(2);
    let (_, place) = places[0].iter().find(|(key, _)| moves(*key)).unwrap();
    let log = Arc::new(File::options().write(true).open(&path).unwrap());
    let at = place.end - 100;
    let volume = Volume::open(&config, 3).unwrap();
    on_shards_of(volume, &config, End::Clean, async move |running| {
        let store = &running.store;
        let foreign = || store.borrow().space(NS).log.foreign_count();
        assert!(foreign() > 1);
        log.write_all_at(&[0xFF; 8], at).unwrap();
        // Everything but what cannot be read leaves: the others are wanted back one by one.
        for key in (0..1000).filter(|key| is_own(running, *key) && key % 2 == 0) {
            put_patiently(store, key, Content::Bins(8, 10)).await;
        }
        let expected = usize::from(running.shard == ShardIndex(2));
        while foreign() > expected {
            yield_now().await;
        }
    });
}

#[test]
fn a_header_page_that_could_not_be_read_hides_nothing_at_the_start_after() {
    let folder = disk_folder();
    let mut config = config(folder.path(), 64);
    config.storage.post_write_cache = 0;
    config.storage.defrag_lwm_pct = 0;
    // The last block is open when the process dies: it has no trailer.
    let block = on_shards(&config, 1, End::Crash, async |running| {
        for key in 0..150 {
            put_patiently(&running.store, key, Content::Bins(key as u64 % 200, 1000)).await;
        }
        settle(&running.store).await;
        place_of(&running.store, 149).start / u64::from(BLOCK_BYTES) * u64::from(BLOCK_BYTES)
    })[0];
    let faults = vec![Fault::Read(block..block + 4096)];
    let (found, holes) = start_broken(&config, faults, |volume, space, _| {
        assert!(volume.damage().may_be_old());
        let found = (0..150).filter(|key| space.lookup(&digest(*key)).is_some());
        (found.collect::<Vec<i64>>(), space.holes.clone())
    });
    assert!((140..150).contains(&found.len()), "{found:?}");
    let ends: Vec<_> = holes.iter().map(|(_, hole)| (hole.start, hole.end)).collect();
    assert_eq!(ends, [(0, 4096)]);
    // What healing leaves there.
    let (volume, mark) = (File::options().write(true).open(&config.storage.files[0]), b"LSB lost");
    let page = [&mark[..], &[0; 4088]].concat();
    volume.unwrap().write_all_at(&page, block).unwrap();
    start_broken(&config, Vec::new(), move |_, space, _| {
        let again = (0..150).filter(|key| space.lookup(&digest(*key)).is_some());
        assert_eq!(again.collect::<Vec<i64>>(), found);
    });
}

#[test]
fn what_a_cold_start_could_not_read_does_not_come_back() {
    let folder = disk_folder();
    let mut config = config(folder.path(), 64);
    config.storage.post_write_cache = 0;
    config.storage.defrag_lwm_pct = 0;
    let page = on_shards(&config, 1, End::Clean, async |running| {
        for key in 0..100 {
            put_patiently(&running.store, key, Content::Bins(1, 3000)).await;
        }
        settle(&running.store).await;
        place_of(&running.store, 50).start / 4096 * 4096
    })[0];
    let gone = on_shards(&config, 1, End::Crash, async move |running| {
        let store = &running.store;
        // As if the device had not given the page at the start.
        let id = store.borrow().lookup(NS, &digest(50)).unwrap().location.block;
        let at = (page % u64::from(BLOCK_BYTES)) as usize;
        let hit = |key: &i64| {
            let place = place_of(store, *key);
            place.start < page + 4096 && page < place.end
        };
        let gone: Vec<i64> = (0..100).filter(hit).collect();
        let begin = |space: &mut Space| {
            space.log.begin_healing(id);
            space.holes.push((id, at..at + 4096));
        };
        begin(&mut store.borrow_mut().spaces[0]);
        cold_start::heal(store.clone(), NS).await;
        gone
    });
    on_shards(&config, 1, End::Clean, async move |running| {
        for key in 0..100 {
            let found = content(&running.store, key).await;
            assert_eq!(found.is_none(), gone[0].contains(&key), "key {key}");
        }
    });
}

#[test]
fn a_block_that_has_lost_its_filling_is_missed_whatever_it_looks_like() {
    let folder = disk_folder();
    let mut config = config(folder.path(), 64);
    config.storage.post_write_cache = 0;
    config.storage.defrag_lwm_pct = 0;
    let path = config.storage.files[0].clone();
    let places = on_shards(&config, 1, End::Clean, async |running| {
        for key in 0..600 {
            put_patiently(&running.store, key, Content::Bins(key as u64 % 200, 1000)).await;
        }
        (0..600).map(|key| place_of(&running.store, key)).collect::<Vec<_>>()
    })
    .remove(0);
    let size = BLOCK_BYTES as usize;
    let block = places[300].start / size as u64 * size as u64;
    let lies_in = |place: &std::ops::Range<u64>, from: u64| {
        place.start >= from && place.start < block + size as u64
    };
    let log = File::options().read(true).write(true).open(&path).unwrap();
    let read = |at: u64| {
        let mut bytes = vec![0; size];
        log.read_exact_at(&mut bytes, at).unwrap();
        bytes
    };
    let whole = read(block);
    let next = read(block + size as u64);
    let mut alien = next.clone();
    super::block::BlockHeader { device_id: 9, ..Default::default() }.encode(&mut alien);
    let half = [whole[..size / 2].to_vec(), vec![0; size / 2]].concat();
    let mut middle = whole.clone();
    middle[..4096].fill(0);
    middle[size - 4096..].fill(0);
    let noise: Vec<u8> = (0..size as u64).map(|at| (at * at * 7 + at / 3) as u8 | 1).collect();
    for (what, bytes) in [
        ("zeros", vec![0; size]),
        ("noise", noise),
        ("the next block", next),
        ("another device's block", alien),
        ("its first half", half),
        ("neither header nor trailer", middle),
    ] {
        log.write_all_at(&bytes, block).unwrap();
        let kept = places.clone().into_iter().map(|place| match what {
            "its first half" => !lies_in(&place, block + size as u64 / 2 - 1100),
            "neither header nor trailer" => {
                place.start >= block + 4096 && place.end <= block + size as u64 - 4096
            }
            _ => !lies_in(&place, block),
        });
        let kept: Vec<bool> = kept.collect();
        let lost = places.iter().filter(|place| lies_in(place, block)).count() as u64;
        start_broken(&config, Vec::new(), move |volume, space, _| {
            let found = (0..600).filter(|key| space.lookup(&digest(*key)).is_some()).count();
            let missing = 600 - found as u64;
            for key in (0..600).filter(|key| kept[*key as usize]) {
                assert!(space.lookup(&digest(key)).is_some(), "{what}: key {key}");
            }
            let damage = volume.damage();
            assert!(missing > 0 && missing <= lost, "{what}: {missing}");
            assert_eq!(damage.blocks, 1, "{what}: {damage}");
            assert!(damage.records_lost + damage.records_maybe_lost >= missing, "{what}: {damage}");
        });
        log.write_all_at(&whole, block).unwrap();
    }
    start_broken(&config, Vec::new(), |volume, _, _| assert!(volume.damage().is_none()));
}

#[test]
fn a_block_that_came_back_as_it_was_before_is_missed() {
    let folder = disk_folder();
    let mut config = config(folder.path(), 32);
    config.storage.post_write_cache = 0;
    let path = config.storage.files[0].clone();
    let log =
        File::options().read(true).write(true).create(true).truncate(false).open(&path).unwrap();
    let former = Arc::new(std::sync::Mutex::new(Vec::new()));
    let (kept, copy) = (Arc::clone(&former), Arc::new(log.try_clone().unwrap()));
    let last = on_shards(&config, 1, End::Clean, async move |running| {
        let store = &running.store;
        for round in 0..12 {
            for key in 0..300 {
                put_patiently(store, key, Content::Bins(round, 3000)).await;
            }
            if round == 6 {
                settle(store).await;
                let mut bytes = vec![0; 32 * BLOCK_BYTES as usize];
                copy.read_exact_at(&mut bytes, 0).unwrap();
                *kept.lock().unwrap() = bytes;
            }
        }
        settle(store).await;
        // Not the last block: nobody vouches for that one yet.
        place_of(store, 200).start / u64::from(BLOCK_BYTES)
    })[0];
    let size = BLOCK_BYTES as usize;
    let at = last as usize * size;
    let old = former.lock().unwrap()[at..at + size].to_vec();
    log.write_all_at(&old, at as u64).unwrap();
    start_broken(&config, Vec::new(), |volume, _, _| {
        let damage = volume.damage();
        assert_eq!(damage.blocks, 1, "{damage}");
        assert!(damage.may_be_old(), "{damage}");
    });
}

#[test]
fn wiped_blocks_are_counted_where_none_vouches_for_them() {
    let folder = disk_folder();
    let mut config = config(folder.path(), 24);
    config.storage.post_write_cache = 0;
    let path = config.storage.files[0].clone();
    on_shards(&config, 1, End::Clean, async |running| {
        for round in 0..12 {
            for key in 0..300 {
                put_patiently(&running.store, key, Content::Bins(round, 3000)).await;
            }
        }
        // Blocks opened from now on know of all those before them that they are on the device.
        for key in 0..300 {
            settle(&running.store).await;
            put_patiently(&running.store, key, Content::Bins(99, 3000)).await;
        }
        settle(&running.store).await;
    });
    let log = File::options().write(true).open(&path).unwrap();
    for count in [1, 4] {
        for number in 5..5 + count {
            log.write_all_at(&vec![0; BLOCK_BYTES as usize], number * u64::from(BLOCK_BYTES))
                .unwrap();
        }
        start_broken(&config, Vec::new(), move |volume, _, _| {
            assert_eq!(volume.damage().blocks, count, "{}", volume.damage());
        });
    }
}

#[test]
fn a_damaged_block_is_sound_at_the_start_after_it_was_emptied() {
    let folder = disk_folder();
    let mut config = config(folder.path(), 64);
    config.storage.post_write_cache = 0;
    let path = config.storage.files[0].clone();
    let blocks = on_shards(&config, 1, End::Clean, async |running| {
        for key in 0..200 {
            put_patiently(&running.store, key, Content::Bins(7, 3000)).await;
        }
        let block_of = |key| place_of(&running.store, key).start / u64::from(BLOCK_BYTES);
        [block_of(20), block_of(100)]
    })[0];
    let log = File::options().write(true).open(&path).unwrap();
    // All of one, and a page of another.
    log.write_all_at(&vec![0; BLOCK_BYTES as usize], blocks[0] * u64::from(BLOCK_BYTES)).unwrap();
    log.write_all_at(&[0; 4096], blocks[1] * u64::from(BLOCK_BYTES) + 40_960).unwrap();
    let found = on_shards(&config, 1, End::Crash, async |running| {
        let log_of =
            |look: fn(&super::log::Log) -> bool| look(&running.store.borrow().space(NS).log);
        while !log_of(|log| log.is_sound()) {
            yield_now().await;
        }
        running.store.borrow().stats(NS).objects
    })[0];
    assert!(found < 200);
    on_shards(&config, 1, End::Clean, async move |running| {
        assert_eq!(running.store.borrow().stats(NS).objects, found);
        let damage = running.report;
        assert_eq!((damage.damaged_blocks, damage.damaged_records), (0, 0), "{damage:?}");
    });
    start_broken(&config, Vec::new(), |volume, _, _| assert!(volume.damage().is_none()));
}

#[test]
fn a_namespace_whose_device_hangs_holds_up_nobody_elses_reads_and_no_stop() {
    const RECORDS: i64 = 2000;
    let folder = disk_folder();
    let configs = ["hangs", "sound"].map(|name| {
        let mut config = config(folder.path(), 64);
        config.name = name.into();
        config.storage.files = vec![folder.path().join(name)];
        config.storage.post_write_cache = 0;
        config
    });
    let run = move || async move {
        let namespaces = configs.map(|config| {
            let volume = Arc::new(Volume::open(&config, 1).unwrap());
            (config, volume)
        });
        let volumes = namespaces.clone().map(|(_, volume)| volume);
        let _zeroing = Zeroing::start(&volumes, Arc::default(), Duration::MAX);
        let configs = namespaces.clone().map(|(config, _)| config);
        let arena = Arena::new(arena_bytes(&configs, 1), None).unwrap();
        let ring = DiskRing::with_lanes(2, 64, &arena).unwrap();
        spawn(Queue::Disk, ring.clone().drive());
        let peer = cold_start::peers(1).pop().unwrap();
        let parts = StoreParts {
            shard: ShardIndex(0),
            namespaces: namespaces.into(),
            ring: ring.clone(),
            arena,
            peer,
            clock: Clock::real(),
        };
        let (store, _) = Store::open(parts, Lut::ZERO).await.unwrap();
        store::start(&store);
        let (hangs, sound) = (NamespaceId(0), NamespaceId(1));
        let bytes = bins(1, 500);
        let record = |key| WriteRecord {
            digest: digest(key),
            set: set_of(key),
            key: &[],
            bin_count: 1,
            bins: &bytes,
            generation: Generation(1),
            void_time: VoidTime::NEVER,
            flags: RecordFlags::default(),
            src_id: SrcId::NONE,
        };
        for key in 0..RECORDS {
            for namespace in [hangs, sound] {
                store.borrow().note_time();
                while store.borrow_mut().write(namespace, &record(key), now()).is_err() {
                    yield_now().await;
                }
            }
        }
        let is_cold =
            |namespace, key| matches!(store.borrow().peek(namespace, &digest(key)), Peek::OnDevice);
        while !(is_cold(hangs, RECORDS / 2) && is_cold(sound, RECORDS / 2)) {
            yield_now().await;
        }
        ring.break_device(vec![Fault::Hang(0)]);
        // More clients than the ring has operations, and a DC that asks for all it may.
        for key in 0..100 {
            let store = Rc::clone(&store);
            spawn(Queue::Work, async move { drop(read(&store, hangs, &digest(key)).await) });
        }
        let dc = DcIndex(3);
        let begin = |namespace, key| {
            let read = ReadRequest { tag: key as u64, dc, namespace, digest: digest(key) };
            store.borrow_mut().begin(read)
        };
        let begun = (0..RECORDS).take_while(|key| begin(hangs, *key)).count();
        assert!((100..=300).contains(&begun), "{begun}");
        let mut left: Vec<i64> = (0..RECORDS / 2).rev().collect();
        let (mut waiting, mut done) = (0, Vec::new());
        while waiting > 0 || !left.is_empty() {
            while left.last().is_some_and(|key| begin(sound, *key)) {
                waiting += 1;
                left.pop();
            }
            assert!(waiting > 0, "a DC that hangs with one namespace reads the other");
            poll_fn(|cx| store.borrow_mut().poll_drain(dc, cx, &mut done)).await;
            waiting -= done.len();
            done.drain(..).for_each(|read| assert!(matches!(read.outcome, ReadOutcome::Record(_))));
        }
        for key in 0..50 {
            assert!(read(&store, sound, &digest(key)).await.unwrap().is_some());
        }
        // Nor does it take from others what a stop leaves them.
        let write = |namespace| store.borrow_mut().write(namespace, &record(7777), now()).is_ok();
        assert!(write(hangs) && write(sound));
        let deadline = Tick(Clock::real().now()).plus_ms(600);
        assert_eq!(flush::stop(&store, deadline).await, [hangs]);
        assert_eq!(store.borrow().flush_ends, [FlushEnd::Runs, FlushEnd::Saved]);
        ring.break_device(vec![]);
        while ring.in_flight() > 0 {
            yield_now().await;
        }
    };
    spawn_shard(ShardSpec { index: 0, core: None, name: "shard-0".into() }, run).unwrap().join();
}
