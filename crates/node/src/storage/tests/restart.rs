//! Restarts, with other numbers of shards, after crashes, and from checkpoints.

use super::*;

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

#[test]
fn a_crash_loses_nothing_that_was_flushed() {
    let folder = disk_folder();
    let config = config(folder.path(), 64);
    on_shards(&config, 1, End::Crash, async |running| {
        for key in 0..500 {
            put(&running.store, key, Content::Bins(key as u64 % 200, 100)).unwrap();
        }
        settle(&running.store).await;
        // Not as many as would fill the block, which is open then whatever the crash interrupts.
        for key in 0..200 {
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
    let record = |key: i64| record(key, &[1; 20]);
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
                    let record = record(key, &bytes);
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

#[test]
fn a_store_whose_versions_are_beyond_every_clock_is_refused_with_the_words() {
    let folder = disk_folder();
    let config = config(folder.path(), 16);
    let record = record(1, &[1; 20]);
    let year_ms = 365 * 86_400_000;
    let write = async move |running: &Running, wall: Lut| {
        running.store.borrow_mut().write(NS, &record, wall).unwrap();
    };
    on_shards(&config, 1, End::Clean, async move |running| {
        write(running, Lut::CLOCK_MAX.plus_ms(year_ms)).await;
    });
    // The last that opens.
    on_shards(&config, 1, End::Clean, async move |running| {
        write(running, Lut::CLOCK_MAX.plus_ms(year_ms + 1)).await;
    });
    let volume = Volume::open(&config, 1).unwrap();
    let open = async |parts| Store::open(parts, Lut::ZERO).await.err().unwrap().to_string();
    let refusal = on_shards_opening(vec![(config, Arc::new(volume))], open);
    let words = "shard 0: the newest version found is of 2044-01-01T00h00m00.001s, and none after \
                 2043 can be counted: it was written under a wrong clock; remove these devices' \
                 files and the work directory and fill the node again from another cluster";
    assert_eq!(refusal, [words]);
}
