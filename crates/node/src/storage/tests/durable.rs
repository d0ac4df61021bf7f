//! What is acknowledged when, and what a failed or hanging device does to that.

use super::*;

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
fn a_stop_waits_until_what_it_has_made_durable_is_visible_and_in_the_checkpoint() {
    let folder = disk_folder();
    let mut config = config(folder.path(), 16);
    config.storage.commit_to_device = true;
    let live = |end: Content, found: Option<Content>| {
        let volume = open_warm(&config, 1);
        on_shards_of(volume, &config, End::Clean, async move |running| {
            assert_eq!(running.report.warm, u32::from(found.is_some()));
            assert_eq!(content(&running.store, 1).await, found);
            put(&running.store, 1, end).unwrap();
            let store = running.store.clone();
            let publishable = store.borrow().publishable();
            spawn(Queue::Sockets, async move {
                publishable.wait().await;
                // Others have their turns first.
                for _ in 0..100 {
                    yield_now().await;
                }
                store.borrow_mut().publish(&mut Vec::new());
            });
        });
    };
    let [first, second] = [Content::Bins(1, 100), Content::Bins(2, 100)];
    live(first, None);
    live(second, Some(first));
    live(first, Some(second));
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
            let record = record(1, &[7; 100]);
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
        start_tasks(&store);
        let (hangs, sound) = (NamespaceId(0), NamespaceId(1));
        let bytes = bins(1, 500);
        let record = |key| record(key, &bytes);
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
