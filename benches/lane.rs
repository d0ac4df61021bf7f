//! What does the bookkeeping of one shipped record cost? Submit, dispatch, tell what is sent, settle:
//! everything `ship` does for a record, and nothing else. Unit: ns per record.
//!
//! `in_flight` records are dispatched before the oldest is settled, as on a link of that length;
//! `lanes` partitions are written in turn. Baseline: the same with a bare `VecDeque` of entries and
//! a `HashMap` of digests in flight, without rules, counters or positions. Expected from the sketch:
//! one push, one pop, a cache line and two table operations: below 100 ns while the slots fit into
//! the cache.

use std::collections::VecDeque;
use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use longship::config::DcNamespaceConfig;
use longship::model::{
    Change, ChangeKind, Digest, DigestMap, Lut, NamespaceId, PartitionId, SetId, SrcId, Tick,
    Version,
};
use longship::ship::{DcShard, Limits, Now, Outcome, Policy, Room, Routes, Sent, Start};
use longship::wire::ResultCode;

struct OneNode;

impl Routes for OneNode {
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

const BATCH: usize = 256;

/// Changes of distinct records, their partitions taking turns over `lanes`.
fn changes(lanes: u16) -> Vec<Change> {
    let digest = |n: u64| {
        let mut digest = Digest::of_integer("bench", n as i64);
        digest.0[..2].copy_from_slice(&((n % u64::from(lanes)) as u16).to_le_bytes());
        digest
    };
    let change = |n: u64| Change {
        namespace: NamespaceId(0),
        digest: digest(n),
        version: Version::first_of(Lut::from_ms(1_000_000)),
        previous_lut: None,
        set: SetId::NONE,
        kind: ChangeKind::Write,
        shipped: false,
        src_id: SrcId::NONE,
    };
    (0..1 << 20).map(change).collect()
}

fn whole(c: &mut Criterion) {
    let mut group = c.benchmark_group("lane");
    group.throughput(Throughput::Elements(BATCH as u64));
    let now = Now { tick: Tick(1_000_000), wall: Lut::from_ms(2_000_000) };
    for (lanes, in_flight) in [(16, 1024), (4096, 1024), (4096, 16_384), (4096, 131_072)] {
        let changes = changes(lanes);
        let name = format!("{lanes}_lanes_{in_flight}_in_flight");
        group.bench_function(BenchmarkId::new("ship", &name), |b| {
            let config =
                DcNamespaceConfig { max_throughput: u32::MAX, ..DcNamespaceConfig::named("test") };
            let mut dc = DcShard::new(Limits::default(), 0, 1);
            let policy = Policy::new(&config, 0, 1);
            dc.attach(NamespaceId(0), policy, Lut::ZERO, now, |_| Start::Now);
            let (mut next, mut flying, mut out) = (0, VecDeque::new(), Vec::new());
            let mut tick = 1_000_000;
            b.iter(|| {
                tick += 200;
                let now = Now { tick: Tick(tick), ..now };
                for _ in 0..BATCH {
                    dc.submit(&changes[next], "", now);
                    next = (next + 1) % changes.len();
                }
                out.clear();
                dc.dispatch(now, &mut OneNode, &mut out, BATCH as u32);
                for dispatch in &out {
                    dc.sent(dispatch.slot, Version::ZERO, Sent::Write, 200);
                    flying.push_back(dispatch.slot);
                }
                while flying.len() > in_flight {
                    let Some(slot) = flying.pop_front() else { break };
                    black_box(dc.settle(slot, Outcome::Reply(ResultCode::OK), now));
                }
            });
        });
        group.bench_function(BenchmarkId::new("bare", &name), |b| {
            let mut queue: VecDeque<Digest> = VecDeque::new();
            let mut in_flight_set: DigestMap<u64> = DigestMap::default();
            let (mut next, mut flying) = (0, VecDeque::new());
            b.iter(|| {
                for _ in 0..BATCH {
                    queue.push_back(changes[next].digest);
                    next = (next + 1) % changes.len();
                }
                while let Some(digest) = queue.pop_front() {
                    in_flight_set.insert(digest, 1);
                    flying.push_back(digest);
                }
                while flying.len() > in_flight {
                    let Some(digest) = flying.pop_front() else { break };
                    black_box(in_flight_set.remove(&digest));
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, whole);
criterion_main!(benches);
