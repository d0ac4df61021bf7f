//! Expiry, and the tombstones that nobody needs any more.

use super::*;

#[test]
fn an_expired_record_becomes_a_tombstone_that_keeps_set_and_key() {
    let folder = disk_folder();
    let config = config(folder.path(), 16);
    on_shards(&config, 1, End::Clean, async |running| {
        let store = &running.store;
        let past = VoidTime(now().seconds() - 10);
        let expiring = WriteRecord {
            key: b"\x03me",
            void_time: past,
            flags: RecordFlags::HAS_KEY,
            src_id: SrcId(3),
            ..record(1, &[1; 20])
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
fn the_expiry_of_a_record_shipped_in_says_so() {
    let folder = disk_folder();
    let config = config(folder.path(), 16);
    on_shards(&config, 1, End::Clean, async |running| {
        let store = &running.store;
        let expiring = WriteRecord {
            void_time: VoidTime(now().seconds() - 10),
            flags: RecordFlags::SHIPPED,
            src_id: SrcId(3),
            ..record(1, &[1; 20])
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
        let bytes = bins(1, 20);
        let mut record = WriteRecord { void_time: past, ..record(1, &bytes) };
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
fn a_tombstone_stays_while_a_record_it_may_hide_cannot_be_made_out() {
    let folder = disk_folder();
    let mut config = config(folder.path(), 48);
    config.storage.post_write_cache = 0;
    let path = config.storage.files[0].clone();
    on_shards(&config, 1, End::Clean, async move |running| {
        let store = &running.store;
        settle_all(store);
        for key in 1000..1200 {
            put_patiently(store, key, Content::Bins(1, 3000)).await;
        }
        settle(store).await;
        let log = File::options().read(true).write(true).open(&path).unwrap();
        let old = place_of(store, 1000);
        for key in [1000, 1001] {
            put_patiently(store, key, Content::Tombstone).await;
        }
        turn_over(store, 2).await;
        let (mut byte, at) = ([0], old.end - 100);
        log.read_exact_at(&mut byte, at).unwrap();
        log.write_all_at(&[byte[0] ^ 1], at).unwrap();
        assert_eq!(raid::pass(store, NS).await, 0);
        assert_eq!(content(store, 1000).await, Some(Content::Tombstone));
        // Its block is written anew, without what cannot be made out.
        let mut passes = 0;
        while store.borrow().stats(NS).tombstones > 0 {
            turn_over(store, 8).await;
            raid::pass(store, NS).await;
            passes += 1;
            assert!(passes < 50);
        }
    });
}

#[test]
fn the_raider_reads_no_block_that_is_younger_than_every_tombstone() {
    let folder = disk_folder();
    let config = config(folder.path(), 48);
    on_shards(&config, 1, End::Clean, async |running| {
        let store = &running.store;
        settle_all(store);
        for key in 0..50 {
            put_patiently(store, key, Content::Bins(1, 1000)).await;
            put_patiently(store, key, Content::Tombstone).await;
        }
        for key in 1000..1800 {
            put_patiently(store, key, Content::Bins(1, 3000)).await;
        }
        settle(store).await;
        assert!(store.borrow().space(NS).log.used_count() > 15);
        for pass in 1..=3 {
            raid::pass(store, NS).await;
            let read = store.borrow().stats(NS).raided_blocks;
            assert!((1..=2 * pass).contains(&read), "{read} blocks read in {pass} passes");
        }
    });
}

#[test]
fn expiry_leaves_half_of_what_may_wait_for_the_device_to_clients() {
    let folder = disk_folder();
    let mut config = config(folder.path(), 64);
    config.storage.commit_to_device = true;
    config.storage.max_write_cache = 1 << 20;
    on_shards(&config, 1, End::Crash, async |running| {
        let store = &running.store;
        spawn(Queue::Sockets, publish(Rc::clone(store)));
        let past = VoidTime(now().seconds() - 10);
        for key in 0..20_000 {
            let expiring = WriteRecord { void_time: past, ..record(key, &[1; 20]) };
            while store.borrow_mut().write(NS, &expiring, now()).is_err() {
                yield_now().await;
            }
        }
        settle(store).await;
        let ring = store.borrow().ring.clone();
        ring.break_device(vec![Fault::Hang(0)]);
        let theirs = Rc::clone(store);
        spawn(Queue::Background, async move { _ = expire::pass(&theirs, NS).await });
        let waiting = || store.borrow().stats(NS).write_cache_bytes;
        while waiting() < 500 << 10 {
            yield_now().await;
        }
        let deadline = Clock::real().now() + 100_000;
        while Clock::real().now() < deadline {
            yield_now().await;
        }
        assert!(waiting() <= 513 << 10, "{}", waiting());
        put(store, 50_000, Content::Bins(1, 1000)).unwrap();
        ring.break_device(Vec::new());
    });
}
