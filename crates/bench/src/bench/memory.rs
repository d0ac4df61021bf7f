//! `longship bench memory`: what shipping costs in memory, by what the allocator has given out and
//! by what the process then occupies.
//!
//! - `bytes_per_queued_entry`: a changed record waiting in a full queue. Sketch: 25 bytes in chunks
//!   of 16 with a link of 4, so 25.25. Target: 28.
//! - the same with 16 entries a lane: a chunk each, no better and no worse.
//! - `bytes_per_empty_lane`: a (DC, namespace, partition) that has nothing to ship. Sketch: 60 and
//!   its bits in the bitmaps. Target: 64.
//! - what a DC takes for the changes in flight and for hot keys: a slot of one cache line, and its
//!   place in the table that finds it. Slots are reserved at the start and occupied when used.
//! - eight idle DCs with 4096 partitions each.

use std::error::Error;
use std::process::ExitCode;

use longship::config::DcNamespaceConfig;
use longship::model::{
    Change, ChangeKind, Digest, Lut, NamespaceId, PARTITION_COUNT, PartitionId, SetId, SrcId, Tick,
    Version,
};
use longship::ship::{DcShard, Limits, Now, Policy, Room, Routes, Start};
use longship_rt::heap::Held;

use crate::report::{self, Table, bytes, count};

const NS: NamespaceId = NamespaceId(0);
/// A destination whose restart may cost acknowledged changes is remembered per lane.
const LOSS_WINDOW_MS: u64 = 4000;
const IDLE_DCS: u64 = 8;
/// Of a change in flight or waiting.
const SLOT_BYTES: u64 = 64;

/// Measures what queues, lanes and changes in flight take.
#[derive(clap::Args)]
pub(crate) struct MemoryArgs {
    /// Entries of each of the 4096 full queues: `transaction-queue-limit`.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(16..=2048))]
    entries: u32,
    /// Print the result as one line of JSON.
    #[arg(long)]
    json: bool,
}

/// More of the heap, and more resident.
#[derive(Clone, Copy)]
struct Taken {
    heap: u64,
    resident: u64,
}

struct MemoryReport {
    entries: u32,
    full: Taken,
    sixteen: Taken,
    lanes: Taken,
    in_flight: (u64, Taken),
    hot_keys: (u64, Taken),
    idle: Taken,
}

/// Runs the command.
pub(super) fn command(args: &MemoryArgs) -> Result<ExitCode, Box<dyn Error>> {
    let report = run(args.entries);
    match args.json {
        true => report::print(&report.to_json().to_string()),
        false => report::print(&report.to_table().to_string()),
    }
    Ok(ExitCode::SUCCESS)
}

/// Nothing is given back before the end, so that what is measured never lies in old memory.
fn run(entries: u32) -> MemoryReport {
    let limits = Limits::default();
    let mut queues = Bed::new(limits, entries);
    let bare = Held::now();
    queues.attach();
    let lanes = since(bare);
    let bare = Held::now();
    queues.fill(16);
    let sixteen = since(bare);
    queues.fill(entries - 16);
    let full = since(bare);

    let bare = Held::now();
    let idle: Vec<Bed> = (0..IDLE_DCS).map(|_| Bed::attached(limits)).collect();
    let idle_taken = since(bare);

    // The heap has reserved their slots already.
    let used = |records: u64, taken: Taken| {
        (records, Taken { heap: taken.heap + records * SLOT_BYTES, ..taken })
    };
    let mut flying = Bed::attached(limits);
    let bare = Held::now();
    let records = flying.fly(limits.window);
    let in_flight = used(records.into(), since(bare));
    let mut hot = Bed::attached(limits);
    let bare = Held::now();
    hot.heat(limits.hot_keys);
    let hot_keys = used(limits.hot_keys.into(), since(bare));
    drop((queues, idle, flying, hot));
    MemoryReport { entries, full, sixteen, lanes, in_flight, hot_keys, idle: idle_taken }
}

fn since(before: Held) -> Taken {
    let now = Held::now();
    Taken {
        heap: now.heap_bytes.saturating_sub(before.heap_bytes),
        resident: now.resident_bytes.saturating_sub(before.resident_bytes),
    }
}

/// One DC, on a process of one shard.
struct Bed {
    dc: DcShard,
    policy: Policy,
    next: u64,
}

impl Bed {
    fn new(limits: Limits, entries: u32) -> Self {
        let config = DcNamespaceConfig {
            transaction_queue_limit: entries.next_power_of_two(),
            max_throughput: u32::MAX / 100 * 100,
            ..DcNamespaceConfig::named("memory")
        };
        let dc = DcShard::new(limits, 0, 1);
        Self { dc, policy: Policy::new(&config, 0, 1), next: 0 }
    }

    fn attached(limits: Limits) -> Self {
        let mut bed = Self::new(limits, 1024);
        bed.attach();
        bed
    }

    fn attach(&mut self) {
        let start = |_: PartitionId| Start::Now;
        self.dc.attach(NS, self.policy.clone(), Lut::from_ms(1), now(0), start);
        self.dc.node_window(0, LOSS_WINDOW_MS);
    }

    fn change(&mut self, partition: usize, previous_lut: Option<Lut>) -> Change {
        self.next += 1;
        let mut digest = [0; 20];
        digest[..2].copy_from_slice(&(partition as u16).to_le_bytes());
        digest[8..16].copy_from_slice(&self.next.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes());
        Change {
            namespace: NS,
            digest: Digest(digest),
            version: Version::first_of(Lut::from_ms(1000)),
            previous_lut,
            set: SetId(0),
            kind: ChangeKind::Write,
            shipped: false,
            src_id: SrcId::NONE,
        }
    }

    /// Puts so many entries more into every queue.
    fn fill(&mut self, entries: u32) {
        for _ in 0..entries {
            for partition in 0..PARTITION_COUNT {
                let change = self.change(partition, None);
                self.dc.submit(&change, "", now(1000));
            }
        }
    }

    /// Puts changes in flight, as many as may be. Gives how many.
    fn fly(&mut self, window: u32) -> u32 {
        let (mut in_flight, mut out) = (0, Vec::with_capacity(1024));
        while in_flight < window {
            for partition in 0..PARTITION_COUNT.min((window - in_flight) as usize) {
                let change = self.change(partition, None);
                self.dc.submit(&change, "", now(1000));
            }
            let before = in_flight;
            loop {
                self.dc.dispatch(now(1000 + u64::from(in_flight)), &mut Anywhere, &mut out, 1024);
                in_flight += out.len() as u32;
                if out.is_empty() {
                    break;
                }
                out.clear();
            }
            if in_flight == before {
                break;
            }
        }
        in_flight
    }

    /// Writes keys again so soon that they wait as hot ones.
    fn heat(&mut self, keys: u32) {
        for key in 0..keys as usize {
            let change = self.change(key % PARTITION_COUNT, Some(Lut::from_ms(999)));
            self.dc.submit(&change, "", now(1000));
        }
    }
}

fn now(ms: u64) -> Now {
    Now { tick: Tick(ms * 1000), wall: Lut::from_ms(ms) }
}

/// A destination that takes everything.
struct Anywhere;

impl Routes for Anywhere {
    fn room(&mut self, _: NamespaceId, _: PartitionId) -> Room {
        Room::Yes(0)
    }

    fn is_full(&self, _: u16) -> bool {
        false
    }

    fn has_node(&self, _: NamespaceId, _: PartitionId) -> bool {
        true
    }
}

fn each(taken: u64, of: u64) -> f64 {
    (taken as f64 / of as f64 * 100.0).round() / 100.0
}

impl MemoryReport {
    fn queued(&self, entries: u32) -> u64 {
        u64::from(entries) * PARTITION_COUNT as u64
    }

    /// Bytes of address space that a DC reserves for slots when it is made.
    fn slots_reserved(&self) -> u64 {
        let limits = Limits::default();
        SLOT_BYTES * u64::from(limits.window + limits.waiting)
    }

    fn to_json(&self) -> serde_json::Value {
        let part = |(records, taken): (u64, Taken)| {
            serde_json::json!({
                "records": records,
                "heap_bytes": taken.heap,
                "resident_bytes": taken.resident,
                "bytes_each": each(taken.heap, records),
            })
        };
        let full = self.queued(self.entries);
        serde_json::json!({
            "bytes_per_queued_entry": each(self.full.heap, full),
            "resident_bytes_per_queued_entry": each(self.full.resident, full),
            "bytes_per_queued_entry_16_a_lane": each(self.sixteen.heap, self.queued(16)),
            "bytes_per_empty_lane": each(self.lanes.heap, PARTITION_COUNT as u64),
            "entries_per_lane": self.entries,
            "in_flight": part(self.in_flight),
            "hot_keys": part(self.hot_keys),
            "idle": {
                "dcs": IDLE_DCS,
                "partitions": PARTITION_COUNT,
                "heap_bytes": self.idle.heap,
                "slots_reserved_bytes": IDLE_DCS * self.slots_reserved(),
                "resident_bytes": self.idle.resident,
            },
        })
    }

    fn to_table(&self) -> Table {
        let part = |(records, taken): (u64, Taken)| {
            let (heap, resident) = (bytes(taken.heap), bytes(taken.resident));
            let (records, each) = (count(records), each(taken.heap, records));
            format!("{records}, {each} bytes each, {heap} of heap, {resident} resident")
        };
        let full = self.queued(self.entries);
        let queued = each(self.full.heap, full);
        let resident = each(self.full.resident, full);
        let (idle, idle_resident) = (bytes(self.idle.heap), bytes(self.idle.resident));
        Table::default()
            .row("queued entry", format!("{queued} bytes, {resident} resident"))
            .row("with 16 a lane", format!("{} bytes", each(self.sixteen.heap, self.queued(16))))
            .row("empty lane", format!("{} bytes", each(self.lanes.heap, PARTITION_COUNT as u64)))
            .row("in flight", part(self.in_flight))
            .row("hot keys", part(self.hot_keys))
            .row(
                "8 idle DCs",
                format!("{idle} of heap, slots reserved included, {idle_resident} resident"),
            )
    }
}
