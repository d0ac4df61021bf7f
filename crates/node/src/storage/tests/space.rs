//! A device that fills: defragmentation, foreign blocks, room for deletes.

use super::*;

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
        let refuses = || store.borrow().space(NS).refuses_writes();
        assert!(refuses());
        for gone in 0..key {
            put_patiently(store, gone, Content::Tombstone).await;
            assert!(gone > 3 || refuses(), "a delete has blocks of its own");
        }
        put_patiently(store, key, Content::Bins(1, 4000)).await;
        while refuses() {
            yield_now().await;
        }
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
fn a_block_is_emptied_only_when_its_last_records_are_visible() {
    let folder = disk_folder();
    let mut config = config(folder.path(), 16);
    config.storage.commit_to_device = true;
    on_shards(&config, 1, End::Crash, async |running| {
        let store = &running.store;
        for key in 0..200 {
            // Every second one is written over.
            put_patiently(store, key * (key % 2), Content::Bins(1, 1000)).await;
        }
        settle(store).await;
        let victim = || store.borrow_mut().spaces[NS.index()].log.take_to_empty(100);
        assert_eq!(victim(), None, "all is durable and nothing visible");
        store.borrow_mut().publish(&mut Vec::new());
        assert!(victim().is_some());
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
fn a_device_that_hangs_is_told_once_with_what_it_holds_up_until_it_answers() {
    let folder = disk_folder();
    let mut config = config(folder.path(), 64);
    config.storage.post_write_cache = 0;
    let volume = Arc::new(Volume::open(&config, 1).unwrap());
    let alarms = Arc::clone(&volume);
    on_shards_with(vec![(config, volume)], End::Clean, async move |running| {
        let store = &running.store;
        let ring = store.borrow().ring.clone();
        for key in 0..100 {
            put_patiently(store, key, Content::Bins(1, 4000)).await;
        }
        settle(store).await;
        let look = || {
            ring.look();
            store.borrow().look_at_devices();
            let stats = store.borrow().stats(NS);
            let is_told = store.borrow().reads_hang(NS).is_some();
            (stats.read_wait_s, stats.write_wait_s, alarms.hangs.is_raised(), is_told)
        };
        assert_eq!([look(), look(), look()], [(0, 0, false, false); 3]);
        ring.break_device(vec![Fault::Hang(0)]);
        assert!(!alarms.overloaded.is_raised());
        let refused = (100..2000).find_map(|key| put(store, key, Content::Bins(1, 4000)).err());
        assert_eq!(refused, Some(WriteRefused::Overloaded));
        assert!(alarms.overloaded.is_raised() && !alarms.full.is_raised());
        assert!(store.borrow().space(NS).why_overloaded(Tick(0)).contains("max-write-cache"));
        while ring.in_flight() == 0 {
            yield_now().await;
        }
        assert_eq!([look(), look()], [(0, 0, false, false), (0, 1, false, false)]);
        let digest = digest(1);
        let mut read = std::pin::pin!(super::read(store, NS, &digest));
        assert!(poll_once(read.as_mut()).await.is_none(), "it is on the device");
        assert_eq!(look(), (0, 2, true, false));
        assert_eq!([look(), look()], [(1, 3, true, false), (2, 4, true, true)]);
        ring.break_device(Vec::new());
        read.await.unwrap();
        settle(store).await;
        assert_eq!(look(), (0, 0, true, false), "it may come again");
        let later = Clock::real().now() + 10_000_000;
        assert!(alarms.hangs.lapse(later) && alarms.overloaded.lapse(later));
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
        // Everything but what cannot be read leaves: the others leave block by block.
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
fn deletes_are_refused_too_while_the_device_does_not_keep_up() {
    let folder = disk_folder();
    let config = config(folder.path(), 64);
    on_shards(&config, 1, End::Clean, async |running| {
        let store = &running.store;
        store.borrow().ring.break_device(vec![Fault::Hang(0)]);
        let refused = (0..2000).find_map(|key| put(store, key, Content::Bins(1, 4000)).err());
        assert_eq!(refused, Some(WriteRefused::Overloaded));
        let refused = (0..100).find_map(|key| put(store, key, Content::Tombstone).err());
        assert_eq!(
            refused,
            Some(WriteRefused::Overloaded),
            "there was room for less than a record"
        );
        store.borrow().ring.break_device(Vec::new());
        put_patiently(store, 1, Content::Tombstone).await;
    });
}

#[test]
fn a_set_in_which_nothing_lies_gives_its_name_to_another() {
    let folder = disk_folder();
    let config = config(folder.path(), 16);
    on_shards(&config, 1, End::Clean, async |running| {
        let store = &running.store;
        let write = |set: &str, flags| {
            let record = WriteRecord {
                digest: Digest::of_integer(set, 1),
                set,
                key: &[],
                bin_count: 0,
                bins: &[],
                generation: Generation(1),
                void_time: VoidTime::NEVER,
                flags,
                src_id: SrcId::NONE,
            };
            store.borrow_mut().write(NS, &record, now()).map(|_| ())
        };
        let is_there = |name| store.borrow().sets(NS).any(|(known, _)| known == name);
        settle_all(store);
        write("gone", RecordFlags::TOMBSTONE).unwrap();
        for number in 1..4095 {
            write(&format!("s{number}"), RecordFlags::default()).unwrap();
        }
        let new = || write("new", RecordFlags::default());
        assert_eq!(new(), Err(WriteRefused::TooManySets), "a tombstone needs its name");
        assert_eq!(raid::pass(store, NS).await, 1);
        new().unwrap();
        assert!(is_there("new") && is_there("s1") && !is_there("gone"));
        assert_eq!(write("gone", RecordFlags::default()), Err(WriteRefused::TooManySets));
    });
}

#[test]
fn names_of_sets_that_were_given_back_do_not_stop_a_start() {
    let folder = disk_folder();
    let config = config(folder.path(), 32);
    let write = |store: &SharedStore, set: &str, flags| {
        let record = WriteRecord {
            digest: Digest::of_integer(set, 1),
            set,
            bin_count: 0,
            bins: &[],
            flags,
            ..record(1, &[])
        };
        store.borrow_mut().write(NS, &record, now()).map(|_| ())
    };
    on_shards(&config, 1, End::Crash, async move |running| {
        let store = &running.store;
        for number in 0..4095 {
            write(store, &format!("a{number}"), RecordFlags::TOMBSTONE).unwrap();
        }
        settle_all(store);
        assert_eq!(raid::pass(store, NS).await, 4095);
        for number in 0..4000 {
            write(store, &format!("b{number}"), RecordFlags::default()).unwrap();
        }
        for number in 0..95 {
            write(store, &format!("c{number}"), RecordFlags::TOMBSTONE).unwrap();
        }
        settle(store).await;
    });
    on_shards(&config, 1, End::Clean, async |running| {
        let store = &running.store.borrow();
        let counts: HashMap<&str, _> = store.sets(NS).collect();
        assert!((0..4000).all(|number| counts[&*format!("b{number}")].objects == 1));
        assert!((0..95).all(|number| counts[&*format!("c{number}")].tombstones == 1));
        // What still lies on the device of those that were forgotten is to be forgotten again.
        assert_eq!(counts[""].tombstones, store.stats(NS).tombstones - 95);
    });
}

#[test]
fn more_shards_get_their_blocks_to_themselves_on_a_store_four_fifths_full() {
    let folder = disk_folder();
    let config = config(folder.path(), 256);
    const RECORDS: i64 = 9800;
    on_shards(&config, 1, End::Clean, async |running| {
        for key in 0..RECORDS {
            put_patiently(&running.store, key, Content::Bins(7, 2600)).await;
        }
    });
    for (shards, end) in [(4, End::Crash), (4, End::Clean), (1, End::Clean)] {
        on_shards(&config, shards, end, async move |running| {
            let store = &running.store;
            let used = store.borrow().space(NS).used_pct();
            assert!(used > 70, "{used} %");
            let has_foreign = || store.borrow().space(NS).log.foreign_count() > 0;
            // Cut off in the middle at first.
            let patience_us = if end == End::Crash { 300_000 } else { 100_000_000 };
            let deadline = Clock::real().now() + patience_us;
            while has_foreign() && shards > 1 && Clock::real().now() < deadline {
                yield_now().await;
            }
            assert!(shards == 1 || end == End::Crash || !has_foreign());
            for key in (0..RECORDS).filter(|key| is_own(running, *key)) {
                assert_eq!(content(store, key).await, Some(Content::Bins(7, 2600)));
            }
            if end == End::Clean {
                for key in (0..RECORDS / 20).filter(|key| is_own(running, *key)) {
                    put_patiently(store, key, Content::Bins(7, 2600)).await;
                }
            }
        });
    }
}
