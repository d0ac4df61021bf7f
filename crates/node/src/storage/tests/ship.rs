//! What a shipper reads and walks.

use super::*;

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
    let expected = store.borrow().expected(NS, &lanes).expect("a store can tell");
    let walk = IndexWalk::open(&mut *store.borrow_mut(), NS, &lanes);
    let (mut found, mut steps, mut given) = (BTreeMap::new(), 0, Vec::new());
    loop {
        let step = poll_fn(|cx| store.borrow_mut().poll_step(walk, cx, &mut given)).await;
        steps += 1;
        for walked in given.drain(..) {
            assert!(walked.version.lut() >= from.max(expected.oldest));
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
        generation: former.next(),
        flags: RecordFlags::SHIPPED,
        src_id: SrcId(9),
        ..record(key, &bins)
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

/// Takes all memory there is, until it is dropped.
fn exhaust(store: &SharedStore) -> Vec<Buffer> {
    let arena = store.borrow().arena.clone();
    let sizes = (0..23).rev().map(|power| 1 << power);
    sizes.flat_map(|bytes| std::iter::from_fn(|| arena.take(bytes)).collect::<Vec<_>>()).collect()
}

/// Begins reads, takes all memory once they are on their way and calls `meanwhile`; gives what they
/// bring.
async fn ship_reads_without_memory(
    store: &SharedStore,
    keys: &[i64],
    meanwhile: impl FnOnce(),
) -> Vec<ReadOutcome<StoredRecord>> {
    let (dc, mut done) = (DcIndex(1), Vec::new());
    for key in keys {
        let (tag, digest) = (*key as u64, digest(*key));
        assert!(store.borrow_mut().begin(ReadRequest { tag, dc, namespace: NS, digest }));
    }
    let submit = poll_fn(|cx| store.borrow_mut().poll_drain(dc, cx, &mut done));
    assert!(poll_once(submit).await.is_none(), "they are on the device");
    meanwhile();
    let _taken = exhaust(store);
    while done.len() < keys.len() {
        poll_fn(|cx| store.borrow_mut().poll_drain(dc, cx, &mut done)).await;
    }
    done.into_iter().map(|read| read.outcome).collect()
}

#[test]
fn without_memory_nothing_is_said_of_a_record() {
    let folder = disk_folder();
    let mut config = config(folder.path(), 64);
    config.storage.post_write_cache = 0;
    on_shards(&config, 1, End::Crash, async |running| {
        let store = &running.store;
        for key in 0..100 {
            put_patiently(store, key, Content::Bins(1, 3000)).await;
        }
        // The blocks of these stay in memory for a while.
        for key in 1000..1100 {
            put_patiently(store, key, Content::Bins(1, 3000)).await;
        }
        settle(store).await;
        let break_at = |key| {
            let page = place_of(store, key).start / 4096 * 4096;
            store.borrow().ring.break_device(vec![Fault::Read(page..page + 4096)]);
        };
        // Read together, which fails: each would have to be read alone.
        break_at(1);
        let read = ship_reads_without_memory(store, &[0, 1, 2, 3, 4, 5], || {}).await;
        assert!(read.iter().all(|outcome| matches!(outcome, ReadOutcome::NoMemory)));
        // Moved meanwhile: it would have to be read where it is now.
        break_at(7);
        let rewrite = || put(store, 7, Content::Bins(2, 3000)).unwrap();
        let read = ship_reads_without_memory(store, &[7], rewrite).await;
        assert!(matches!(read.as_slice(), [ReadOutcome::NoMemory]));
        store.borrow().ring.break_device(Vec::new());
        let taken = exhaust(store);
        let found = super::read(store, NS, &digest(20)).await;
        assert_eq!(found.err(), Some(ReadError::Overloaded));
        drop(taken);
        assert_eq!(store.borrow().stats(NS).read_errors, 0);
        let failed = ship_reads_some_failing(store, &[0, 1, 2, 3, 4, 5, 7]).await;
        assert!(failed.is_empty(), "{failed:?}");
    });
}
