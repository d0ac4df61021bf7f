//! The record that is encoded and decoded.

use longship::model::{Digest, Generation, Lut, RecordFlags, RecordView, SrcId, Version, VoidTime};
use longship::wire::{ParticleType, bins};

/// One bin at rest.
pub(crate) fn one_bin(value_bytes: usize) -> Vec<u8> {
    let mut at_rest = Vec::new();
    bins::push(&mut at_rest, b"bin", ParticleType::BLOB, &vec![7; value_bytes]);
    at_rest
}

/// A record with the one bin in `at_rest`.
pub(crate) fn record(at_rest: &[u8]) -> RecordView<'_> {
    RecordView {
        digest: Digest::of_integer("bench", 1),
        version: Version::first_of(Lut::from_ms(500)),
        local_lut: Lut::from_ms(500),
        generation: Generation(3),
        void_time: VoidTime::NEVER,
        flags: RecordFlags::default(),
        src_id: SrcId::NONE,
        set: "bench",
        key: &[],
        bin_count: 1,
        bins: at_rest,
    }
}
