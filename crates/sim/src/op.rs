//! A shipped frame as a destination understands it: decoded with the real parser, applied by a few
//! lines of its own.

use crate::store::Bins;
use longship::model::Generation;
use longship::model::{Digest, Lut, RecordFlags, RecordView, SrcId, TtlSpec, VoidTime};
use longship::wire::frame::FRAME_HEADER_BYTES;
use longship::wire::message::{Action, Request};
use longship::wire::{ParticleType, bins};

const NAMES: [&[u8]; 3] = [b"a", b"b", b"c"];

/// What a frame asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// Sets bins (`Some(Some)`), removes them (`Some(None)`), leaves the others or, with `replace`,
    /// drops them.
    Write {
        bins: [Option<Option<u64>>; 3],
        replace: bool,
        ttl: u32,
    },
    Delete {
        durable: bool,
    },
}

/// A decoded frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) digest: Digest,
    pub(crate) op: Op,
    /// Origin, when the frame names one.
    pub(crate) src_id: SrcId,
}

/// Reads a shipped frame.
///
/// # Panics
///
/// If it is not one: the encoder is at fault.
pub(crate) fn decode(frame: &[u8]) -> Asked {
    let request = Request::parse(&frame[FRAME_HEADER_BYTES..]).expect("a well-formed frame");
    assert!(request.is_shipped() && request.is_write(), "a shipped write or delete");
    let digest = request.target().expect("a digest");
    let op = match request.action().expect("operations that may be combined") {
        Action::Delete => Op::Delete { durable: request.is_durable_delete() },
        _ => Op::Write {
            bins: decode_bins(request.ops.as_bytes()),
            replace: request.is_replace(),
            ttl: request.header.ttl,
        },
    };
    Asked { digest, op, src_id: request.src_id }
}

fn decode_bins(ops: &[u8]) -> [Option<Option<u64>>; 3] {
    let mut out = [None; 3];
    for bin in bins::iter(ops) {
        let at = NAMES.iter().position(|name| *name == bin.name).expect("a bin of this world");
        out[at] = Some(match bin.particle {
            ParticleType::INTEGER => {
                Some(u64::from_be_bytes(bin.value.try_into().expect("eight bytes")))
            }
            _ => None,
        });
    }
    out
}

/// What the bins are after a write.
pub(crate) fn written(old: Option<Bins>, bins: [Option<Option<u64>>; 3], replace: bool) -> Bins {
    let mut out = if replace { [None; 3] } else { old.unwrap_or_default() };
    for (bin, value) in out.iter_mut().zip(bins) {
        if let Some(value) = value {
            *bin = value;
        }
    }
    out
}

/// Expiry of a write applied now.
pub(crate) fn void_time(ttl: u32, now: Lut) -> VoidTime {
    match TtlSpec::from_wire(ttl) {
        Some(TtlSpec::Seconds(seconds)) => VoidTime(now.seconds() + seconds),
        _ => VoidTime::NEVER,
    }
}

/// Bins in wire form, and how many.
pub(crate) fn wire_bins(bins: Bins) -> (Vec<u8>, u16) {
    let (mut out, mut count) = (Vec::new(), 0);
    for (name, value) in NAMES.iter().zip(bins) {
        if let Some(value) = value {
            bins::push(&mut out, name, ParticleType::INTEGER, &value.to_be_bytes());
            count += 1;
        }
    }
    (out, count)
}

/// A view with everything given.
pub(crate) fn view<'a>(
    digest: Digest,
    rec: &crate::store::Rec,
    set: &'a str,
    bins: &'a (Vec<u8>, u16),
) -> RecordView<'a> {
    RecordView {
        digest,
        version: rec.version,
        local_lut: rec.local_lut,
        generation: Generation(1),
        void_time: rec.void,
        flags: rec.flags,
        src_id: rec.src_id,
        set,
        key: &[],
        bin_count: bins.1,
        bins: &bins.0,
    }
}

/// Flags of a tombstone.
pub(crate) fn tombstone(durable: bool, shipped: bool) -> RecordFlags {
    RecordFlags::TOMBSTONE.with(RecordFlags::DURABLE, durable).with(RecordFlags::SHIPPED, shipped)
}
