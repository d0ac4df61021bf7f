//! What does it cost to understand a request that shipped a record? Unit: ns per frame.
//!
//! `frame to action` is what a destination does before it touches its storage: cut the frame, parse
//! fields and operations, find the digest, name the action, check the bins. Replies are what a
//! source reads for each record it shipped. Baseline: the same bytes copied. Expected: below
//! 100 ns for a request and 10 ns for a reply, whatever the value's size.

#[path = "support/record.rs"]
mod support;

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use longship::config::DcNamespaceConfig;
use longship::model::{Generation, Lut, SrcId, VoidTime};
use longship::ship::{Policy, Target, encode, judge};
use longship::wire::{Header, Request, ResultCode, next_frame, reply};

/// The frame of a record with one bin.
fn request(value_bytes: usize) -> Vec<u8> {
    let at_rest = support::one_bin(value_bytes);
    let record = support::record(&at_rest);
    let policy = Policy::new(&DcNamespaceConfig::named("test"), 0, 1);
    let target = Target { takes_origin: true, source: SrcId(1), plain_deletes: false };
    let now = Lut::from_ms(1_000_000);
    let mut out = vec![0; value_bytes + 1024];
    let judgement = judge(&record, &policy, SrcId::NONE, now);
    let encoded = encode(&record, judgement, &policy, target, now, &mut out);
    out.truncate(encoded.expect("it ships").expect("it fits").bytes);
    out
}

fn whole(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode");
    group.throughput(Throughput::Elements(1));
    for value_bytes in [10, 100, 1000, 10_000] {
        let request = request(value_bytes);
        group.bench_function(BenchmarkId::new("frame to action", value_bytes), |b| {
            b.iter(|| {
                let frame = next_frame(black_box(&request)).expect("valid").expect("whole");
                let message = Request::parse(frame.body).expect("valid");
                message.check_key().expect("no key");
                black_box(message.target().expect("a digest"));
                black_box(message.action().expect("a write"));
                black_box(message.verbatim_bins().expect("plain bins").is_some())
            });
        });
        let mut out = vec![0; request.len()];
        group.bench_function(BenchmarkId::new("bare copy", value_bytes), |b| {
            b.iter(|| {
                out.copy_from_slice(black_box(&request));
                black_box(&mut out);
            });
        });
    }
    let answer = reply::bare(ResultCode::OK, Generation(3), VoidTime::NEVER);
    group.bench_function("reply", |b| {
        b.iter(|| {
            let frame = next_frame(black_box(&answer)).expect("valid").expect("whole");
            Header::parse(frame.body).expect("a header").0
        });
    });
    group.finish();
}

criterion_group!(benches, whole);
criterion_main!(benches);
