//! A record as it lies on the device: one header of 64 bytes, set, key, bins, zeros up to the next
//! 16. Encoding is one copy into the open write block; decoding borrows.
//!
//! | offset | size | field |
//! |---:|---:|---|
//! | 0 | 4 | magic `LSR1` |
//! | 4 | 4 | CRC32C of every byte after this word, the closing zeros included |
//! | 8 | 4 | length in bytes without the closing zeros |
//! | 12 | 4 | seal of the block's present filling: a leftover of an earlier filling has another |
//! | 16 | 8 | version |
//! | 24 | 20 | digest |
//! | 44 | 4 | void time |
//! | 48 | 5 | local LUT |
//! | 53 | 1 | flags |
//! | 54 | 2 | generation |
//! | 56 | 1 | src-id |
//! | 57 | 1 | length of the set name |
//! | 58 | 2 | number of bins |
//! | 60 | 4 | length of the user key, particle type included |
//! | 64 | .. | set name, user key, bins as WRITE operations in wire form |
//!
//! Numbers are little-endian, except inside the bins. The version orders copies of a record; the
//! seal says which of the bytes in a block belong to it at all.

use longship::model::{Digest, Generation, Lut, RecordFlags, RecordView, SrcId, Version, VoidTime};
use longship::ship::mutation::{Mutation, planted};
use longship_rt::bytes::{put, u16_at, u32_at, u64_at};

/// Records start and end at multiples of this.
pub const RECORD_ALIGN: usize = 16;
/// Bytes in front of the set name.
pub const RECORD_HEADER_BYTES: usize = 64;

const MAGIC: [u8; 4] = *b"LSR1";

const CHECKSUM: usize = 4;
const LENGTH: usize = 8;
const SEAL: usize = 12;
const VERSION: usize = 16;
const DIGEST: usize = 24;
const VOID_TIME: usize = 44;
const LOCAL_LUT: usize = 48;
const FLAGS: usize = 53;
const GENERATION: usize = 54;
const SRC_ID: usize = 56;
const SET_LENGTH: usize = 57;
const BIN_COUNT: usize = 58;
const KEY_LENGTH: usize = 60;

const _: () = {
    assert!(CHECKSUM == size_of_val(&MAGIC) && LENGTH == CHECKSUM + size_of::<u32>());
    assert!(SEAL == LENGTH + size_of::<u32>() && VERSION == SEAL + size_of::<u32>());
    assert!(VERSION.is_multiple_of(8) && DIGEST == VERSION + size_of::<u64>());
    assert!(VOID_TIME == DIGEST + size_of::<Digest>() && LOCAL_LUT == VOID_TIME + size_of::<u32>());
    assert!(FLAGS == LOCAL_LUT + 5 && GENERATION == FLAGS + 1 && SRC_ID == GENERATION + 2);
    assert!(SET_LENGTH == SRC_ID + 1 && BIN_COUNT == SET_LENGTH + 1 && KEY_LENGTH == BIN_COUNT + 2);
    assert!(KEY_LENGTH + size_of::<u32>() == RECORD_HEADER_BYTES);
    assert!(RECORD_HEADER_BYTES.is_multiple_of(RECORD_ALIGN));
};

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlatError {
    /// No record starts here.
    #[error("no record starts here")]
    NotARecord,
    /// It claims to be longer than what is left, or shorter than its parts.
    #[error("a record of {length} bytes cannot lie in {available}")]
    Length {
        /// What its header says.
        length: usize,
        /// Bytes from its start to the end of what was read.
        available: usize,
    },
    /// Some byte is not what was written.
    #[error("checksum {found:#010x} instead of {expected:#010x}")]
    Checksum {
        /// As stored.
        expected: u32,
        /// As computed.
        found: u32,
    },
    /// The set name is not UTF-8; no writer of ours does that.
    #[error("the set name is not text")]
    SetName,
}

/// Bytes the record takes on the device.
pub fn extent(record: &RecordView<'_>) -> usize {
    length(record).next_multiple_of(RECORD_ALIGN)
}

fn length(record: &RecordView<'_>) -> usize {
    RECORD_HEADER_BYTES + record.set.len() + record.key.len() + record.bins.len()
}

/// Writes `record` to the start of `out`, sealed for its block, and returns its extent.
///
/// # Panics
/// If `out` is shorter than [`extent`], or the set name longer than 255 bytes: the writer has
/// checked both.
pub fn encode(record: &RecordView<'_>, seal: u32, out: &mut [u8]) -> usize {
    let length = length(record);
    let extent = length.next_multiple_of(RECORD_ALIGN);
    let out = &mut out[..extent];
    assert!(record.set.len() <= usize::from(u8::MAX), "set names are at most 63 bytes");
    put(out, 0, &MAGIC);
    put(out, LENGTH, &(length as u32).to_le_bytes());
    put(out, SEAL, &seal.to_le_bytes());
    put(out, VERSION, &record.version.raw().to_le_bytes());
    put(out, DIGEST, &record.digest.0);
    put(out, VOID_TIME, &record.void_time.0.to_le_bytes());
    put(out, LOCAL_LUT, &record.local_lut.to_bytes());
    out[FLAGS] = record.flags.0;
    put(out, GENERATION, &record.generation.0.to_le_bytes());
    out[SRC_ID] = record.src_id.0;
    out[SET_LENGTH] = record.set.len() as u8;
    put(out, BIN_COUNT, &record.bin_count.to_le_bytes());
    put(out, KEY_LENGTH, &(record.key.len() as u32).to_le_bytes());
    let mut at = RECORD_HEADER_BYTES;
    for part in [record.set.as_bytes(), record.key, record.bins] {
        put(out, at, part);
        at += part.len();
    }
    out[at..].fill(0);
    put_checksum(out);
    extent
}

/// Seals a copy of a whole record for the block it now lies in, as defragmentation needs.
pub fn reseal(copy: &mut [u8], seal: u32) {
    put(copy, SEAL, &seal.to_le_bytes());
    put_checksum(copy);
}

fn put_checksum(record: &mut [u8]) {
    let checksum = crc32c::crc32c(&record[LENGTH..]);
    put(record, CHECKSUM, &checksum.to_le_bytes());
}

/// A record found in bytes from a device, checked.
#[derive(Clone, Copy, Debug)]
pub struct Flat<'a> {
    /// The record.
    pub record: RecordView<'a>,
    /// Bytes it takes, closing zeros included.
    pub extent: usize,
    /// The filling of the block it was written for.
    pub seal: u32,
}

/// Reads the record at the start of `bytes`, checking everything. Bytes after it are ignored.
pub fn decode(bytes: &[u8]) -> Result<Flat<'_>, FlatError> {
    let (extent, seal) = frame(bytes)?;
    let expected = u32_at(bytes, CHECKSUM);
    let found = crc32c::crc32c(&bytes[LENGTH..extent]);
    if expected != found && !planted(Mutation::ChecksumIgnored) {
        return Err(FlatError::Checksum { expected, found });
    }
    Ok(Flat { record: view(bytes)?, extent, seal })
}

/// Whether a record of this block's filling seems to start here; nothing but its first 16 bytes
/// has been looked at.
#[inline]
pub fn starts_here(bytes: &[u8], seal: u32) -> bool {
    bytes.len() >= RECORD_HEADER_BYTES && bytes[..4] == MAGIC && u32_at(bytes, SEAL) == seal
}

/// Extent and seal, when they are plausible.
fn frame(bytes: &[u8]) -> Result<(usize, u32), FlatError> {
    if bytes.len() < RECORD_HEADER_BYTES || bytes[..4] != MAGIC {
        return Err(FlatError::NotARecord);
    }
    let length = u32_at(bytes, LENGTH) as usize;
    let extent = length.next_multiple_of(RECORD_ALIGN);
    if length < RECORD_HEADER_BYTES || extent > bytes.len() {
        return Err(FlatError::Length { length, available: bytes.len() });
    }
    Ok((extent, u32_at(bytes, SEAL)))
}

/// Borrows the record at the start of `bytes` without its checksum: for bytes that [`encode`] put
/// there or [`decode`] has checked before.
pub fn view(bytes: &[u8]) -> Result<RecordView<'_>, FlatError> {
    let (_, _) = frame(bytes)?;
    let length = u32_at(bytes, LENGTH) as usize;
    let available = length - RECORD_HEADER_BYTES;
    let set_length = usize::from(bytes[SET_LENGTH]);
    let key_length = u32_at(bytes, KEY_LENGTH) as usize;
    if set_length + key_length > available {
        return Err(FlatError::Length { length, available: bytes.len() });
    }
    let (set, rest) = bytes[RECORD_HEADER_BYTES..length].split_at(set_length);
    let (key, bins) = rest.split_at(key_length);
    let mut digest = [0; 20];
    digest.copy_from_slice(&bytes[DIGEST..DIGEST + 20]);
    let mut local_lut = [0; 5];
    local_lut.copy_from_slice(&bytes[LOCAL_LUT..LOCAL_LUT + 5]);
    Ok(RecordView {
        digest: Digest(digest),
        version: Version::from_raw(u64_at(bytes, VERSION)),
        local_lut: Lut::from_bytes(local_lut),
        generation: Generation(u16_at(bytes, GENERATION)),
        void_time: VoidTime(u32_at(bytes, VOID_TIME)),
        flags: RecordFlags(bytes[FLAGS]),
        src_id: SrcId(bytes[SRC_ID]),
        set: std::str::from_utf8(set).map_err(|_| FlatError::SetName)?,
        key,
        bin_count: u16_at(bytes, BIN_COUNT),
        bins,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record<'a>(set: &'a str, key: &'a [u8], bins: &'a [u8]) -> RecordView<'a> {
        RecordView {
            digest: Digest::of_string(set, "k"),
            version: Version::from_raw(0x0123_4567_89AB_CDEF),
            local_lut: Lut::from_ms(0x12_3456_789A),
            generation: Generation(513),
            void_time: VoidTime(0x3FFF_FFFE),
            flags: RecordFlags::HAS_KEY.with(RecordFlags::SHIPPED, true),
            src_id: SrcId(7),
            set,
            key,
            bin_count: 3,
            bins,
        }
    }

    fn encoded(record: &RecordView<'_>) -> Vec<u8> {
        let mut out = vec![0xEE; extent(record)];
        assert_eq!(encode(record, 0x5EA1, &mut out), out.len());
        out
    }

    fn same(a: &RecordView<'_>, b: &RecordView<'_>) {
        assert_eq!(format!("{a:?}"), format!("{b:?}"));
    }

    #[test]
    fn a_record_starts_and_ends_at_sixteen() {
        for (bins, expected) in [(0, 64), (1, 80), (15, 80), (16, 80), (17, 96)] {
            let bins = vec![9; bins];
            assert_eq!(encoded(&record("", &[], &bins)).len(), expected);
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = encoded(&record("users", b"\x03key", &[1; 37]));
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                assert!(decode(&flipped).is_err(), "byte {at} bit {bit}");
            }
        }
    }

    #[test]
    fn a_copy_can_be_sealed_for_another_block() {
        let original = record("users", b"\x03key", &[1; 37]);
        let mut copy = encoded(&original);
        reseal(&mut copy, 77);
        let flat = decode(&copy).expect("sealed again");
        assert_eq!(flat.seal, 77);
        same(&flat.record, &original);
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            set in "[a-z]{0,63}",
            key in proptest::collection::vec(any::<u8>(), 0..40),
            bins in proptest::collection::vec(any::<u8>(), 0..500),
            behind in 0_usize..40,
        ) {
            let original = record(&set, &key, &bins);
            let mut bytes = encoded(&original);
            let extent = bytes.len();
            bytes.resize(extent + behind, 0xAB);
            let flat = decode(&bytes).expect("just encoded");
            prop_assert_eq!((flat.extent, flat.seal), (extent, 0x5EA1));
            same(&flat.record, &original);
            same(&view(&bytes).expect("just encoded"), &original);
        }

        #[test]
        fn any_bytes_are_survived(mut bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(decode(&bytes).is_err());
            if bytes.len() >= 4 {
                bytes[..4].copy_from_slice(&MAGIC);
                prop_assert!(decode(&bytes).is_err());
                let _ = view(&bytes);
            }
        }
    }
}
