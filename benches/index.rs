//! What does it cost to look up and to change a record in the index? Unit: ns per operation.
//!
//! Half of the digests of a seeded set are in the index; operations visit them in another order, so
//! that with a million records every one is a cache miss. Baseline: hashbrown's map from digest to
//! the same entry, hashed by the digest's own bytes, which pays for its speed with up to twice the
//! memory and with a pause when it grows. Expected: two dependent misses (bucket, then slot) where
//! hashbrown has one or two: 100 to 200 ns with a million records, below 50 ns in the cache.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use hashbrown::HashMap;
use longship::model::{
    Digest, DigestHash, Generation, Lut, RecordFlags, SetId, SrcId, Version, VoidTime,
};
use longship_node::storage::index::{BlockId, Index, IndexEntry, Location};

type Map = HashMap<Digest, IndexEntry, DigestHash>;

fn entry(digest: Digest) -> IndexEntry {
    IndexEntry {
        digest,
        version: Version::first_of(Lut::from_ms(1_000)),
        local_lut: Lut::from_ms(1_000),
        location: Location { block: BlockId(7), offset: 4096, extent: 160 },
        generation: Generation(1),
        void_time: VoidTime::NEVER,
        set: SetId::NONE,
        flags: RecordFlags::default(),
        src_id: SrcId::NONE,
    }
}

/// Visits all of them, in an order no cache likes.
fn scattered(digests: &[Digest]) -> impl Iterator<Item = &Digest> {
    const STRIDE: usize = 611_953;
    (0..).map(move |n: usize| &digests[n.wrapping_mul(STRIDE) % digests.len()])
}

fn whole(c: &mut Criterion) {
    let mut group = c.benchmark_group("index");
    group.throughput(Throughput::Elements(1));
    for records in [1 << 12, 1 << 20] {
        let digest = |n| Digest::of_integer("bench", n);
        let there: Vec<_> = (0..records).map(digest).collect();
        let absent: Vec<_> = (records..2 * records).map(digest).collect();
        let (mut index, mut map) = (Index::new(1), Map::default());
        for digest in &there {
            index.put(&entry(*digest));
            map.insert(*digest, entry(*digest));
        }
        assert_eq!(index.len(), map.len());
        for (what, digests) in [("get", &there), ("get absent", &absent)] {
            let mut next = scattered(digests);
            group.bench_function(BenchmarkId::new(format!("{what}, longship"), records), |b| {
                b.iter(|| next.next().map(|digest| black_box(index.get(digest))));
            });
            let mut next = scattered(digests);
            group.bench_function(BenchmarkId::new(format!("{what}, hashbrown"), records), |b| {
                b.iter(|| next.next().map(|digest| black_box(map.get(digest).copied())));
            });
        }
        let mut next = scattered(&there);
        group.bench_function(BenchmarkId::new("replace, longship", records), |b| {
            b.iter(|| next.next().map(|digest| black_box(index.put(&entry(*digest)))));
        });
        let mut next = scattered(&there);
        group.bench_function(BenchmarkId::new("replace, hashbrown", records), |b| {
            b.iter(|| next.next().map(|digest| black_box(map.insert(*digest, entry(*digest)))));
        });
        let mut next = scattered(&absent);
        group.bench_function(BenchmarkId::new("add and remove, longship", records), |b| {
            b.iter(|| {
                let digest = next.next().expect("it is endless");
                index.put(&entry(*digest));
                black_box(index.remove(digest))
            });
        });
        let mut next = scattered(&absent);
        group.bench_function(BenchmarkId::new("add and remove, hashbrown", records), |b| {
            b.iter(|| {
                let digest = next.next().expect("it is endless");
                map.insert(*digest, entry(*digest));
                black_box(map.remove(digest))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, whole);
criterion_main!(benches);
