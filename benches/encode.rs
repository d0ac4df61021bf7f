//! What does it cost to turn a record into the frame that ships it? Unit: ns per record.
//!
//! `judge and encode` is what a service task does for each record: the filter's verdict, both
//! headers, the fields, one copy of the bins into the batch. Baseline: the same number of bytes
//! copied from a frame made before. Expected: 30 to 60 ns above the copy, the same for every size,
//! when all bins ship; withholding a bin adds a walk over them.

#[path = "support/record.rs"]
mod support;

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use longship::config::DcNamespaceConfig;
use longship::model::{Lut, RecordView, SrcId};
use longship::ship::{Policy, Target, encode, judge};

const TARGET: Target = Target { takes_origin: true, source: SrcId(1), plain_deletes: false };

fn whole(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode");
    group.throughput(Throughput::Elements(1));
    let now = Lut::from_ms(1_000_000);
    let policy = Policy::new(&DcNamespaceConfig::named("test"), 0, 1);
    for value_bytes in [10, 100, 1000, 10_000] {
        let at_rest = support::one_bin(value_bytes);
        let record = support::record(&at_rest);
        let mut out = vec![0; 64 << 10];
        let mut ship = |record: &RecordView<'_>| {
            let judgement = judge(record, &policy, SrcId::NONE, now);
            let encoded = encode(record, judgement, &policy, TARGET, now, &mut out);
            encoded.expect("it ships").expect("it fits").bytes
        };
        let frame_bytes = ship(&record);
        group.bench_function(BenchmarkId::new("judge and encode", value_bytes), |b| {
            b.iter(|| ship(black_box(&record)));
        });
        let (frame, mut out) = (vec![7; frame_bytes], vec![0; 64 << 10]);
        group.bench_function(BenchmarkId::new("bare copy", value_bytes), |b| {
            b.iter(|| {
                out[..frame_bytes].copy_from_slice(black_box(&frame));
                black_box(&mut out);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, whole);
criterion_main!(benches);
