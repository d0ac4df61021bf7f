//! A shipper's start and end. What it ships is seen to by `examples/embed.rs`, run by a test of the
//! whole.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use longship_rt::event::Event;
use longship_rt::shard::{Queue, spawn};

use super::*;
use crate::config::DcConfig;
use crate::host::{Marks, OwnedRecord, Walked};
use crate::model::{ChangeKind, Digest, NamespaceId, PartitionId, RecordView};

struct Nothing;

struct Never;

impl OwnedRecord for Never {
    fn view(&self) -> RecordView<'_> {
        unreachable!("there is no record")
    }
}

impl MemoryStore for Nothing {
    type Record = Never;

    fn get(&self, _: NamespaceId, _: &Digest) -> Option<Never> {
        None
    }

    fn changed(&self, _: NamespaceId, _: &[(PartitionId, Lut)]) -> Vec<Walked> {
        Vec::new()
    }
}

fn config(folder: &Path, shards: usize) -> ShipperConfig {
    let mut config = ShipperConfig::new(folder);
    let store = StoreFacts { id: 1, is_empty: true, ..StoreFacts::default() };
    config.namespaces.push(Namespace { name: "test".to_owned(), store });
    config.shards = vec![None; shards];
    config
}

fn started(config: ShipperConfig) -> Result<Shipper, ShipperError> {
    Shipper::start(config, |seed| Ok::<_, String>(MemoryHost::new(Nothing, seed)))
}

#[test]
fn commands_act_on_all_shards_and_outlive_a_stop_no_longer_than_they_should() {
    let folder = tempfile::tempdir().unwrap();
    let shipper = started(config(folder.path(), 2)).unwrap();
    let ask = |shard, text: &str| shipper.info(ShardIndex(shard), text).unwrap();
    assert_eq!(ask(1, "set-config:context=xdr;dc=west;action=create"), "ok");
    assert_eq!(ask(0, "set-config:context=xdr;dc=west;namespace=test;action=add"), "ok");
    assert!(ask(0, "get-config:context=xdr;dc=west").contains("namespaces=test"));
    assert!(ask(0, "get-config:context=service").starts_with("ERROR"), "not shipping's to tell");
    assert!(ask(0, "set-config:context=xdr;dc=east;action=delete").starts_with("ERROR"));
    assert_eq!(shipper.report("west").unwrap().len(), 2);
    assert!(shipper.report("east").unwrap().is_empty());
    let writer = shipper.writer();
    shipper.stop(Duration::from_secs(1)).unwrap();
    drop(writer);
}

#[test]
fn what_is_written_on_a_shard_is_submitted_there_once_every_dc_is_in_place() {
    const WRITES: i64 = 100;
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path(), 2);
    let mut west = DcConfig::named("west");
    west.seeds.push(("192.0.2.1".to_owned(), 3000));
    west.add_namespace("test").unwrap();
    config.xdr.dcs.push(west);
    let shipper = Shipper::start(config, |seed| {
        let (on_shard, shard, shards) = (seed.on_shard.clone(), seed.shard, seed.shard_count);
        let write = move |key: i64| {
            let digest = Digest::of_integer("s", key);
            digest.partition().shard(shards) != shard
                || on_shard.change(NamespaceId(0), digest, "s", |change| {
                    change.kind = ChangeKind::Write;
                })
        };
        assert!(!(0..WRITES).all(&write), "nobody takes it while the host is made");
        spawn(Queue::Work, async move {
            for key in 0..WRITES {
                while !write(key) {
                    Event::new().wait_until(Clock::real().now() + 1000).await;
                }
            }
        });
        Ok::<_, String>(MemoryHost::new(Nothing, seed))
    });
    let shipper = shipper.unwrap();
    let submitted = || {
        let reports = shipper.report("west").unwrap();
        reports.iter().map(|report| report.total.counters.submitted).sum::<u64>()
    };
    let deadline = Instant::now() + Duration::from_secs(10);
    while submitted() < WRITES as u64 && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(submitted(), WRITES as u64);
    let none = shipper.info(ShardIndex(2), "get-config:context=xdr");
    assert!(matches!(none, Err(ShipperError::NoShard { shard: 2 })));
    shipper.stop(Duration::ZERO).unwrap();
}

#[test]
fn positions_may_be_kept_elsewhere() {
    struct Elsewhere(Arc<Mutex<Option<Marks>>>);

    impl CheckpointStore for Elsewhere {
        fn load(&mut self) -> Result<Option<Marks>, StoreError> {
            Ok(self.0.lock().unwrap().clone())
        }

        fn store(&mut self, marks: &Marks) -> Result<(), StoreError> {
            *self.0.lock().unwrap() = Some(marks.clone());
            Ok(())
        }
    }

    let (folder, kept) = (tempfile::tempdir().unwrap(), Arc::default());
    let store = Box::new(Elsewhere(Arc::clone(&kept)));
    let host = |seed| Ok::<_, String>(MemoryHost::new(Nothing, seed));
    let shipper = Shipper::start_with(config(folder.path(), 1), store, host).unwrap();
    let create = "set-config:context=xdr;dc=west;action=create";
    assert_eq!(shipper.info(ShardIndex(0), create).unwrap(), "ok");
    shipper.stop(Duration::ZERO).unwrap();
    assert!(kept.lock().unwrap().is_some());
    assert!(!folder.path().join("marks").exists());
}

#[test]
fn a_folder_has_one_shipper_at_a_time_and_a_process_may_have_several() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [one, other] = folders.each_ref().map(|at| started(config(at.path(), 1)).unwrap());
    let refused = started(config(folders[0].path(), 1));
    assert!(matches!(refused, Err(ShipperError::InUse { .. })));
    one.stop(Duration::ZERO).unwrap();
    started(config(folders[0].path(), 1)).unwrap().stop(Duration::ZERO).unwrap();
    other.stop(Duration::ZERO).unwrap();
}

#[test]
fn a_host_that_hangs_holds_up_no_start_that_has_failed() {
    let folder = tempfile::tempdir().unwrap();
    let (let_go, hangs) = mpsc::channel::<()>();
    let hangs = Mutex::new(hangs);
    let failed = Shipper::start(config(folder.path(), 2), move |seed| {
        if seed.shard == ShardIndex(0) {
            let _ = hangs.lock().unwrap().recv();
            return Ok(MemoryHost::new(Nothing, seed));
        }
        Err("no such device".to_owned())
    });
    // It hangs still: nobody has let it go.
    assert!(matches!(failed, Err(ShipperError::Host { shard: 1, .. })));
    drop(let_go);
}

#[test]
fn a_host_that_does_not_start_ends_the_others_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let alive = Arc::new(());
    let held = Arc::clone(&alive);
    let failed = Shipper::start(config(folder.path(), 3), move |seed| {
        let _held = &held;
        match seed.shard {
            ShardIndex(1) => Err("its disk is gone"),
            _ => Ok(MemoryHost::new(Nothing, seed)),
        }
    });
    let error = failed.err().unwrap().to_string();
    assert_eq!(error, "the host of shard 1 did not start: its disk is gone");
    assert_eq!(Arc::strong_count(&alive), 1, "no shard is left that could make a host");
    started(config(folder.path(), 1)).unwrap().stop(Duration::ZERO).unwrap();
}
