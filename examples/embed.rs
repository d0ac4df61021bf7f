//! A storage server that ships: its store is a map, its threads are its own. It writes 100 000
//! records, changes half of them, stops in the middle of shipping that and starts again, deletes a
//! quarter, and looks whether all arrived. Run it with `cargo run --release --example embed`.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "an example shows what it does")]

mod support;
use std::collections::HashMap;
use std::sync::{Arc, RwLock};
use std::time::Duration;
use std::{error::Error, path::Path, thread};

use longship::config::DcConfig;
use longship::host::{OwnedRecord, Walked};
use longship::model::{ChangeKind, Digest, Lut, NamespaceId, PartitionId, RecordView, Version};
use longship::shipper::{MemoryHost, MemoryStore, Namespace, Shipper, ShipperConfig};
use longship::shipper::{Stats, StoreFacts};

const RECORDS: u32 = 100_000;
/// The server's store. A record has its bins in wire form: one number `n`, or none once deleted.
#[derive(Clone, Default)]
struct Map(Arc<RwLock<HashMap<Digest, Arc<Stored>>>>);
struct Stored(Digest, Version, Vec<u8>);
struct Held(Arc<Stored>);

impl OwnedRecord for Held {
    fn view(&self) -> RecordView<'_> {
        let Stored(digest, version, bins) = &*self.0;
        RecordView::new(*digest, *version, u16::from(!bins.is_empty()), bins)
    }
}

impl MemoryStore for Map {
    type Record = Held;

    fn get(&self, _: NamespaceId, digest: &Digest) -> Option<Held> {
        self.0.read().unwrap().get(digest).cloned().map(Held)
    }

    fn changed(&self, _: NamespaceId, lanes: &[(PartitionId, Lut)]) -> Vec<Walked> {
        let from: HashMap<PartitionId, Lut> = lanes.iter().copied().collect();
        let walked = |Stored(digest, version, bins): &Stored| {
            let is_wanted = version.lut() >= *from.get(&digest.partition())?;
            is_wanted.then(|| Walked::new(*digest, *version, kind(bins)))
        };
        self.0.read().unwrap().values().filter_map(|stored| walked(stored)).collect()
    }
}

fn kind(bins: &[u8]) -> ChangeKind {
    if bins.is_empty() { ChangeKind::DurableDelete } else { ChangeKind::Write }
}

fn start(map: &Map, folder: &Path, port: u16) -> Result<Shipper, Box<dyn Error>> {
    let mut config = ShipperConfig::new(folder);
    config.highest =
        map.0.read().unwrap().values().map(|stored| stored.1).max().unwrap_or_default();
    let store =
        StoreFacts { id: 1, is_empty: config.highest == Version::ZERO, ..StoreFacts::default() };
    config.namespaces.push(Namespace { name: "test".to_owned(), store });
    let mut west = DcConfig::named("west");
    west.seeds.push(("127.0.0.1".to_owned(), port));
    west.add_namespace("test")?;
    config.xdr.dcs.push(west);
    let map = map.clone();
    Ok(Shipper::start(config, move |seed| Ok::<_, String>(MemoryHost::new(map.clone(), seed)))?)
}

/// Writes from four threads what `value` gives for each record; `Some(None)` deletes it.
fn write(shipper: &Shipper, map: &Map, value: impl Fn(u64) -> Option<Option<u64>> + Sync) {
    let write_some = |first: u32| {
        let mut writer = shipper.writer();
        for n in (first..RECORDS).step_by(4) {
            let Some(value) = value(u64::from(n)) else { continue };
            let bin = |n: u64| [&[0, 0, 0, 13, 2, 1, 0, 1, b'n'][..], &n.to_be_bytes()].concat();
            let bins = value.map(bin).unwrap_or_default();
            let (digest, kind) = (digest(n), kind(&bins));
            let ticket = writer.begin(NamespaceId(0), digest).expect("it runs");
            let stored = Arc::new(Stored(digest, ticket.version(), bins));
            let before = map.0.write().unwrap().insert(digest, stored);
            ticket.submit(|change| {
                (change.kind, change.previous_lut) = (kind, before.map(|before| before.1.lut()));
            });
        }
    };
    thread::scope(|scope| (0..4).for_each(|n| drop(scope.spawn(move || write_some(n)))));
}

fn digest(n: u32) -> Digest {
    Digest::of_string("", &n.to_string())
}

fn main() -> Result<(), Box<dyn Error>> {
    let (map, folder) = (Map::default(), tempfile::tempdir()?);
    let destination = support::Node::start(folder.path(), "")?;
    let shipping = folder.path().join("shipping");
    let shipper = start(&map, &shipping, destination.port())?;
    write(&shipper, &map, |n| Some(Some(n)));
    write(&shipper, &map, |n| (n % 2 == 0).then_some(Some(n + 1)));
    println!("shipped when it stopped:  {}", shipper.report("west")?[0].total.counters.success);
    shipper.stop(Duration::ZERO)?;

    let shipper = start(&map, &shipping, destination.port())?;
    write(&shipper, &map, |n| (n % 4 == 3).then_some(None));
    let left = |west: &Stats| west.backlog_records() + west.recoveries_pending;
    while left(&shipper.report("west")?[0].total) > 0 {
        thread::sleep(Duration::from_millis(10));
    }
    println!("shipped after that:       {}", shipper.report("west")?[0].total.counters.success);
    shipper.stop(Duration::from_secs(1))?;
    let digests: Vec<Digest> = (0..RECORDS).map(digest).collect();
    let expected = (0..u64::from(RECORDS)).map(|n| [n + 1, n][n as usize % 2]).zip(0..);
    let expected = expected.map(|(value, n)| (n % 4 != 3).then_some(value));
    let pairs = destination.values(&digests)?.into_iter().zip(expected);
    let wrong = pairs.filter(|(there, expected)| there != expected).count();
    println!("different there:          {wrong} of {RECORDS}");
    assert_eq!(wrong, 0, "a record was lost");
    destination.stop();
    Ok(())
}
