//! Pages that cannot be read, flipped bytes, blocks that are not what they should be.

use super::*;
use crate::storage::block::BLOCK_HEADER_BYTES;
use crate::storage::damage::Harm;
use crate::storage::index::BlockId;
use crate::storage::log::Purpose;
use crate::storage::loss::CrashCost;
use longship::model::Version;

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
        let records_end = BLOCK_HEADER_BYTES as u64 + 4 * 176;
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

/// Opens the store of one shard over a device of which parts cannot be read, and gives what `look`
/// makes of it.
fn start_broken<T: Send + 'static>(
    config: &NamespaceConfig,
    faults: Vec<Fault>,
    look: impl FnOnce(&Volume, &Space, ColdStartReport) -> T + Send + 'static,
) -> T {
    start_on(Volume::open(config, 1).unwrap(), config, faults, look)
}

fn start_on<T: Send + 'static>(
    volume: Volume,
    config: &NamespaceConfig,
    faults: Vec<Fault>,
    look: impl FnOnce(&Volume, &Space, ColdStartReport) -> T + Send + 'static,
) -> T {
    let config = config.clone();
    let spec = ShardSpec { index: 0, core: None, name: "broken".into() };
    let run = move || async move {
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
fn a_first_page_of_zeros_hides_no_block_that_was_open() {
    let folder = disk_folder();
    let config = config(folder.path(), 64);
    let path = config.storage.files[0].clone();
    on_shards(&config, 1, End::Crash, async |running| {
        for key in 0..50 {
            put(&running.store, key, Content::Bins(key as u64, 1000)).unwrap();
        }
        settle(&running.store).await;
    });
    let log = File::options().write(true).open(&path).unwrap();
    log.write_all_at(&[0; 4096], BLOCK_BYTES.into()).unwrap();
    // As it would be after a kill, and after a power failure that had time to take none of it.
    for had_power in [true, false] {
        let mut volume = Volume::open(&config, 1).unwrap();
        volume.had_power = had_power;
        volume.crash_cost.reorder_ms = 0;
        start_on(volume, &config, Vec::new(), |volume, space, report| {
            let found = (0..50).filter(|key| space.lookup(&digest(*key)).is_some()).count() as u64;
            assert!((40..50).contains(&found), "{found} of 50");
            let damage = volume.damage();
            assert!(damage.records_maybe_lost >= 50 - found && damage.may_be_old(), "{damage}");
            assert_eq!((damage.blocks, report.damaged_blocks), (1, 1));
        });
    }
}

#[test]
fn what_a_power_failure_took_as_a_whole_is_no_damage_to_later_starts() {
    let folder = disk_folder();
    let mut config = config(folder.path(), 64);
    config.storage.post_write_cache = 0;
    let path = config.storage.files[0].clone();
    let blocks = on_shards_of(open_known(&config), &config, End::Crash, async |running| {
        for key in 0..400 {
            put_patiently(&running.store, key, Content::Bins(key as u64 % 200, 1000)).await;
        }
        settle(&running.store).await;
        // The block before the last one, which names it.
        let store = running.store.borrow();
        let block_of = |key| store.lookup(NS, &digest(key)).unwrap().location.block;
        let before = (0..400).rev().map(block_of).find(|block| *block != block_of(399));
        store.space(NS).log.geometry().offset(before.unwrap()).1
    });
    let log = File::options().write(true).open(&path).unwrap();
    log.write_all_at(&[0; BLOCK_BYTES as usize], blocks[0]).unwrap();
    let mut found = Vec::new();
    for had_power in [false, true, true] {
        let mut volume = open_known(&config);
        volume.had_power = had_power;
        found.push(start_on(volume, &config, Vec::new(), move |volume, space, _| {
            let refused = accept::judge_damage(volume, &Words::default()).unwrap();
            assert!(refused.is_none(), "{}", volume.damage());
            (0..400).filter(|key| space.lookup(&digest(*key)).is_some()).count()
        }));
    }
    assert!(found[0] < 400 && found == [found[0]; 3], "{found:?}");
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
    super::super::block::BlockHeader { device_id: 9, ..Default::default() }.encode(&mut alien);
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

/// Fills a volume of 32 blocks again and again and stops it in order. Then the block in which `key`
/// lies is put back as it was half way.
fn put_back(volume: Volume, config: &NamespaceConfig, key: i64) {
    let path = &config.storage.files[0];
    let log = File::options().read(true).write(true).open(path).unwrap();
    let former = Arc::new(std::sync::Mutex::new(Vec::new()));
    let (kept, copy) = (Arc::clone(&former), Arc::new(log.try_clone().unwrap()));
    let block = on_shards_of(volume, config, End::Clean, async move |running| {
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
        place_of(store, key).start / u64::from(BLOCK_BYTES)
    })[0];
    let size = BLOCK_BYTES as usize;
    let at = block as usize * size;
    let old = former.lock().unwrap()[at..at + size].to_vec();
    log.write_all_at(&old, at as u64).unwrap();
}

#[test]
fn a_block_that_came_back_as_it_was_before_is_missed() {
    let folder = disk_folder();
    let mut config = config(folder.path(), 32);
    config.storage.post_write_cache = 0;
    // Not the last block: nobody vouches for that one yet.
    put_back(Volume::open(&config, 1).unwrap(), &config, 200);
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
    let written = on_shards(&config, 1, End::Clean, async |running| {
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
        // One that was being zeroed when its turn came may be blank to the end.
        let store = running.store.borrow();
        let fresh = store.space(NS).log.fresh_blocks();
        (5..24).filter(|number| !fresh.contains(&BlockId(*number))).collect::<Vec<u32>>()
    })
    .remove(0);
    let log = File::options().write(true).open(&path).unwrap();
    for count in [1, 4] {
        for number in &written[..count] {
            let at = u64::from(*number) * u64::from(BLOCK_BYTES);
            log.write_all_at(&vec![0; BLOCK_BYTES as usize], at).unwrap();
        }
        start_broken(&config, Vec::new(), move |volume, _, _| {
            assert_eq!(volume.damage().blocks, count as u64, "{}", volume.damage());
        });
    }
}

#[test]
fn a_block_that_is_begun_on_the_device_does_not_excuse_one_that_was_wiped() {
    let folder = disk_folder();
    on_shards(&config(folder.path(), 24), 1, End::Crash, async |running| {
        put(&running.store, 1, Content::Bins(1, 100)).unwrap();
        let blank_max = || {
            let store = running.store.borrow();
            let log = &store.space(NS).log;
            let next = log.header(BlockId(23), Purpose::Write, Version::ZERO, Default::default());
            (next.blank_max as usize, log.own_count() - log.used_count())
        };
        assert_eq!(blank_max(), (23, 22), "its header may not have got there");
        settle(&running.store).await;
        assert_eq!(blank_max(), (22, 22));
    });
}

#[test]
fn what_a_power_failure_tore_out_of_a_block_closed_just_before_is_no_damage() {
    let folder = disk_folder();
    let config = config(folder.path(), 64);
    let first = on_shards(&config, 1, End::Crash, async |running| {
        for key in 0..60 {
            put(&running.store, key, Content::Bins(7, 3000)).unwrap();
        }
        settle(&running.store).await;
        assert_eq!(running.store.borrow().space(NS).log.used_count(), 2);
        // The third block tells that the first had arrived.
        for key in 60..90 {
            put(&running.store, key, Content::Bins(7, 3000)).unwrap();
        }
        settle(&running.store).await;
        // Whichever block that is: one that is being zeroed is passed over.
        place_of(&running.store, 0).start / u64::from(BLOCK_BYTES)
    })[0];
    let log = File::options().write(true).open(&config.storage.files[0]).unwrap();
    log.write_all_at(&[0; 4096], first * u64::from(BLOCK_BYTES) + 40_960).unwrap();
    for had_power in [false, true] {
        let mut volume = Volume::open(&config, 1).unwrap();
        volume.had_power = had_power;
        start_on(volume, &config, Vec::new(), move |volume, _, report| {
            assert_eq!(volume.damage().may_be_old(), had_power, "{}", volume.damage());
            assert!(report.damaged_records > 0 || report.torn_records > 0, "{report:?}");
        });
    }
}

#[test]
fn what_a_crash_may_have_cost_is_known_from_the_run_that_crashed() {
    let folder = disk_folder();
    let config = config(folder.path(), 64);
    let mut later = config.clone();
    later.storage.commit_to_device = true;
    later.storage.flush_max_ms = 1;
    let found = || Volume::open(&later, 1).unwrap().crash_cost;
    on_shards(&config, 1, End::Crash, async |running| {
        put(&running.store, 1, Content::Bins(7, 3000)).unwrap();
    });
    let cost = CrashCost::of(&config.storage);
    assert_eq!((cost.loss_ms, cost.reorder_ms), (2040, 2040));
    for start in ["the first", "one after a start that came to nothing"] {
        assert_eq!(found(), cost, "{start}");
    }
    on_shards(&later, 1, End::Clean, async |_| ());
    assert_eq!(found(), CrashCost::default());
    assert_eq!(found(), CrashCost { loss_ms: 0, reorder_ms: 2002 });
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
            |look: fn(&super::super::log::Log) -> bool| look(&running.store.borrow().space(NS).log);
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
fn a_block_that_was_left_open_is_missed_when_it_loses_something_later() {
    let folder = disk_folder();
    let config = config(folder.path(), 64);
    let path = config.storage.files[0].clone();
    let start = |keys: std::ops::Range<i64>| {
        on_shards_of(open_known(&config), &config, End::Crash, async move |running| {
            let volume = Arc::clone(&running.store.borrow().volumes[0]);
            assert!(accept::judge_damage(&volume, &Words::default()).unwrap().is_none());
            assert!(volume.damage().is_none(), "{}", volume.damage());
            for key in keys.clone() {
                put_patiently(&running.store, key, Content::Bins(7, 3000)).await;
            }
            settle(&running.store).await;
            place_of(&running.store, 0)
        })
        .remove(0)
    };
    let first = start(0..36);
    start(100..136);
    start(200..210);
    let log = File::options().read(true).write(true).open(&path).unwrap();
    let block = first.start / u64::from(BLOCK_BYTES) * u64::from(BLOCK_BYTES);
    // A record; the header's page, another page beside a flipped header; all of it.
    let harms =
        [(first.end - 100, 1), (block, 4096), (block + 8192, 4096), (block, BLOCK_BYTES as usize)];
    for (at, bytes) in harms {
        let mut header = [0; BLOCK_HEADER_BYTES];
        log.read_exact_at(&mut header, block).unwrap();
        if at > block && bytes > 1 {
            let flipped = header.map(|byte| byte ^ 1);
            log.write_all_at(&flipped, block).unwrap();
        }
        let mut whole = vec![0; bytes];
        log.read_exact_at(&mut whole, at).unwrap();
        let harmed = if bytes == 1 { vec![whole[0] ^ 1] } else { vec![0; bytes] };
        log.write_all_at(&harmed, at).unwrap();
        start_on(open_known(&config), &config, Vec::new(), move |volume, _, _| {
            assert!(volume.damage().may_be_old(), "{bytes} bytes at {at}: {}", volume.damage());
        });
        log.write_all_at(&whole, at).unwrap();
        log.write_all_at(&header, block).unwrap();
    }
    start_on(open_known(&config), &config, Vec::new(), |volume, _, _| {
        assert!(volume.damage().is_none(), "{}", volume.damage());
    });
}

#[test]
fn a_checkpoint_that_is_contradicted_says_what_the_blocks_held() {
    let folder = disk_folder();
    let mut config = config(folder.path(), 32);
    config.storage.post_write_cache = 0;
    // The last block: no header vouches for it.
    put_back(open_warm(&config, 1), &config, 299);
    start_on(open_warm(&config, 1), &config, Vec::new(), |volume, _, report| {
        assert_eq!(report.cold, 1);
        assert!(volume.damage().may_be_old(), "{}", volume.damage());
    });
}

#[test]
fn another_blocks_content_in_the_place_of_a_block_is_none_of_its_own() {
    let folder = disk_folder();
    let config = config(folder.path(), 64);
    let path = config.storage.files[0].clone();
    let [first, last] = on_shards(&config, 1, End::Clean, async |running| {
        for key in 0..200 {
            put_patiently(&running.store, key, Content::Bins(7, 3000)).await;
        }
        let block_of = |key| place_of(&running.store, key).start / u64::from(BLOCK_BYTES);
        [block_of(20), block_of(199)]
    })[0];
    let log = File::options().read(true).write(true).open(&path).unwrap();
    let size = u64::from(BLOCK_BYTES);
    let mut copy = vec![0; BLOCK_BYTES as usize];
    log.read_exact_at(&mut copy, first * size).unwrap();
    log.write_all_at(&copy, last * size).unwrap();
    start_broken(&config, Vec::new(), |volume, _, _| {
        let damage = volume.damage();
        assert_eq!((damage.blocks, damage.places[0].harm), (1, Harm::Missing), "{damage}");
        assert!(damage.may_be_old(), "{damage}");
    });
}
