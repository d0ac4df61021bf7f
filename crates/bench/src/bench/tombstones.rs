//! `longship bench tombstones`: do tombstones stay bounded while records expire all day?
//!
//! One shard's store, its expiry and its raider as configured by default. Records are written at a
//! steady rate, each with a life of some seconds; every one leaves a tombstone, which no DC needs.
//! The figure is the most tombstones the index held in the last half of the time, over those that
//! came in between two looks of the raider. Expected: a few; without a bound it grows with the time.

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use longship::host::Host as _;
use longship::model::{
    Digest, Generation, Lut, NamespaceId, PartitionId, RecordFlags, ShardIndex, SrcId, Tick,
    VoidTime,
};
use longship::wire::{ParticleType, bins};
use longship_node::config::{NamespaceConfig, StorageConfig};
use longship_node::storage::cold_start::peers;
use longship_node::storage::flush;
use longship_node::storage::space::{SpaceStats, WriteRecord, WriteRefused};
use longship_node::storage::start::{StoreParts, arena_bytes, start_tasks};
use longship_node::storage::store::{SharedStore, Store};
use longship_node::storage::volume::Volume;
use longship_rt::arena::Arena;
use longship_rt::clock::Clock;
use longship_rt::disk_ring::DiskRing;
use longship_rt::event::Event;
use longship_rt::shard::{Queue, ShardSpec, spawn, spawn_shard};

use crate::content::finalize;
use crate::report::{self, Table};
use crate::stage::Stage;

const NS: NamespaceId = NamespaceId(0);
/// A record lives so long, in seconds.
const LIFE_S: u32 = 5;
/// Records are written in steps of so many milliseconds.
const STEP_MS: u64 = 10;

/// Expires records at a steady rate and watches the tombstones.
#[derive(clap::Args)]
pub(crate) struct TombstonesArgs {
    /// Records written, and so expired, each second.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(100..=1_000_000))]
    rate: u64,
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// MiB of the file.
    #[arg(long, default_value_t = 4096, value_parser = clap::value_parser!(u64).range(64..=1_048_576))]
    mib: u64,
    /// Bytes of each record's value.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(..=65_536))]
    value_bytes: u64,
    /// Print the result as one line of JSON.
    #[arg(long)]
    json: bool,
}

/// What the store held at one moment.
struct Look {
    at: Duration,
    stats: SpaceStats,
}

/// Runs the command.
pub(super) fn command(args: &TombstonesArgs) -> Result<ExitCode, Box<dyn Error>> {
    let stage = Stage::open(std::env::current_exe()?, false)?;
    stage.guard()?;
    let storage = StorageConfig {
        files: vec![stage.folder().join("storage.log")],
        filesize: args.mib << 20,
        ..StorageConfig::default()
    };
    let config = NamespaceConfig { storage, nsup_period_s: 1, ..NamespaceConfig::named("bench") };
    let period_s = u64::from(config.xdr_tomb_raider_period_s);
    let looks = run(config, args).map_err(|error| error as Box<dyn Error>)?;
    let second_half = looks.iter().filter(|look| look.at.as_secs() * 2 >= args.seconds);
    let most = second_half.map(|look| look.stats.tombstones).max().unwrap_or(0);
    let ratio = most as f64 / (args.rate * period_s) as f64;
    let last = looks.last().map(|look| look.stats).unwrap_or_default();
    if args.json {
        let json = serde_json::json!({
            "rate": args.rate,
            "seconds": args.seconds,
            "raider_period_s": period_s,
            "expired": last.expired_records,
            "raided": last.raided_tombstones,
            "tombstones_most": most,
            "tombstones_last": last.tombstones,
            "periods_held": ratio,
        });
        report::print(&json.to_string());
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::default();
    for look in &looks {
        let SpaceStats { objects, tombstones, raided_tombstones, free_blocks, .. } = look.stats;
        let text = format!(
            "{} records, {} tombstones, {} gone, {free_blocks} blocks free",
            report::count(objects),
            report::count(tombstones),
            report::count(raided_tombstones),
        );
        table = table.row(format!("after {}", report::seconds(look.at)), text);
    }
    let text = format!("{} at most, {ratio:.1} periods of the raider", report::count(most));
    report::print(&table.row("second half", text).to_string());
    Ok(ExitCode::SUCCESS)
}

fn run(config: NamespaceConfig, args: &TombstonesArgs) -> Result<Vec<Look>, super::Failure> {
    let volume = Arc::new(Volume::open(&config, 1)?);
    let peer = peers(1).remove(0);
    let spec = ShardSpec { index: 0, core: None, name: "shard-0".into() };
    let (rate, seconds, value_bytes) = (args.rate, args.seconds, args.value_bytes as usize);
    let body = move || async move {
        let arena = Arena::new(arena_bytes(std::slice::from_ref(&config), 1), None)?;
        let ring = DiskRing::new(128, &arena)?;
        spawn(Queue::Disk, ring.clone().drive());
        let (namespaces, clock) = (vec![(config, volume)], Clock::real());
        let parts = StoreParts { shard: ShardIndex(0), namespaces, ring, arena, peer, clock };
        let (store, _) = Store::open(parts, Lut::ZERO).await?;
        start_tasks(&store);
        spawn(Queue::Disk, publish(store.clone()));
        for partition in PartitionId::all() {
            store.borrow_mut().settled_below(NS, partition, None);
        }
        let looks = expire_steadily(&store, rate, seconds, value_bytes).await?;
        flush::stop(&store, Tick::NEVER).await;
        Ok::<_, super::Failure>(looks)
    };
    spawn_shard(spec, body)?.join()
}

/// What a node does with what its storage publishes, but for shipping.
async fn publish(store: SharedStore) {
    let publishable = store.borrow().publishable();
    let mut changes = Vec::new();
    loop {
        publishable.wait().await;
        store.borrow_mut().publish(&mut changes);
        changes.clear();
    }
}

async fn expire_steadily(
    store: &SharedStore,
    rate: u64,
    seconds: u64,
    value_bytes: usize,
) -> Result<Vec<Look>, WriteRefused> {
    let (clock, begin) = (Clock::real(), Instant::now());
    let mut bins = Vec::new();
    bins::push(&mut bins, b"data", ParticleType::BLOB, &vec![7; value_bytes]);
    let (mut looks, mut written) = (Vec::new(), 0);
    while begin.elapsed().as_secs() < seconds {
        let due = begin.elapsed().as_millis() as u64 * rate / 1000;
        let now = Lut::from_unix_ms(clock.wall_ms());
        let void_time = VoidTime(now.seconds() + LIFE_S);
        while written < due {
            match put(store, written, &bins, void_time, now) {
                Ok(()) => written += 1,
                Err(WriteRefused::Overloaded) => break,
                Err(refused) => return Err(refused),
            }
        }
        let every = (seconds / 20).max(1);
        if looks.len() as u64 * every <= begin.elapsed().as_secs() {
            looks.push(Look { at: begin.elapsed(), stats: store.borrow().stats(NS) });
        }
        Event::new().wait_until(clock.now() + STEP_MS * 1000).await;
    }
    looks.push(Look { at: begin.elapsed(), stats: store.borrow().stats(NS) });
    Ok(looks)
}

fn put(
    store: &SharedStore,
    number: u64,
    bins: &[u8],
    void_time: VoidTime,
    now: Lut,
) -> Result<(), WriteRefused> {
    let mut digest = [0; 20];
    digest[..8].copy_from_slice(&finalize(number).to_le_bytes());
    digest[8..16].copy_from_slice(&number.to_le_bytes());
    let record = WriteRecord {
        digest: Digest(digest),
        set: "",
        key: &[],
        bin_count: 1,
        bins,
        generation: Generation(1),
        void_time,
        flags: RecordFlags::default(),
        src_id: SrcId::NONE,
    };
    let mut store = store.borrow_mut();
    store.note_time();
    store.write(NS, &record, now).map(drop)
}
