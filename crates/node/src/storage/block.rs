//! A write block on the device: opened by a header, filled with records, closed by a trailer.
//!
//! Nothing that may already be durable is ever written again while the block is in use, so a torn
//! write can hurt only what it was writing. A flush of a partly filled block ends at a multiple of
//! 4 KiB: zeros fill the gap, and the next flush begins there. What is known only at the end, such
//! as the LUT range, goes into a trailer of its own.
//!
//! | offset | size | header |
//! |---:|---:|---|
//! | 0 | 4 | magic `LSBH` |
//! | 4 | 4 | CRC32C of the rest of the header |
//! | 8 | 8 | sequence: the version clock when it was opened; later openings have higher ones |
//! | 16 | 8 | id of the device |
//! | 24 | 4 | block number on the device |
//! | 28 | 2 | shard that fills it |
//! | 30 | 2 | 1: its records are in the order in which they were written; 0: or not |
//! | 32 | 8 | tombstone horizon when it was opened |
//! | 40 | 8 | sequence of the filling before it in the same log; 0 for none |
//! | 48 | 4 | CRC32C of the id of that one's device |
//! | 52 | 4 | its block number there |
//! | 56 | 4 | other blocks of the shard that may be blank |
//! | 60 | 4 | CRC32C of how blocks were shared out then |
//! | 64 | 8 | sequence of the filling that moved records went to; 0 for none |
//! | 72 | 4 | CRC32C of the id of its device |
//! | 76 | 4 | its block number there |
//! | 80 | 4 | so many bytes of it were durable |
//! | 84 | 8 | what was begun before this in the same log had arrived as a whole |
//! | 92 | 4 | zeros |
//! | 96 | .. | records, and zeros between them where a flush ended |
//!
//! | from the end | size | trailer |
//! |---:|---:|---|
//! | -64 | 4 | magic `LSBT` |
//! | -60 | 4 | CRC32C of the rest of the trailer |
//! | -56 | 8 | sequence, as in the header |
//! | -48 | 8 | lowest LUT |
//! | -40 | 8 | highest LUT |
//! | -32 | 4 | end of the last record |
//! | -28 | 4 | number of records |
//! | -24 | 8 | the version clock when it was closed, or when the last record was written |
//! | -16 | 16 | zeros |
//!
//! A block without a trailer of its sequence was open when the process died. Which bytes belong to
//! the present filling is told by the *seal* each record carries, made from device, number and
//! sequence: leftovers of an earlier filling, valid as they may be, have another.
//!
//! A header names the filling before it in its log, and tells how far that log had arrived on the
//! device when the header was made: writes end in any order, and a process that dies leaves those
//! that had ended. The header *vouches* for what had arrived: a block that holds neither that filling
//! nor a newer one has lost it, whatever it looks like. A header vouches for moved records, too,
//! once their old places may be filled anew: for those before a certain place in the block that
//! they went to, which may still be open. Where the block that would vouch has been filled anew,
//! the number of blank blocks still tells of those that were wiped.

use std::ops::Range;

use super::flat::{self, Flat, RECORD_ALIGN};
use longship::model::{Lut, Version};
use longship_rt::bytes::{put, u16_at, u32_at, u64_at};

/// Bytes of the header, and where the first record starts.
pub const BLOCK_HEADER_BYTES: usize = 96;
/// Bytes of the trailer.
pub const BLOCK_TRAILER_BYTES: usize = 64;
/// Writes to the device start and end at multiples of this.
pub const WRITE_ALIGN: usize = 4096;

/// Takes the place, in memory and on the device, of a header that the device has lost: it says that
/// there was a header, and no more. Zeros would say that the block was never written.
pub const LOST_HEADER: [u8; 8] = *b"LSB lost";

/// Puts [`LOST_HEADER`] in the place of the header of a block, or of its first page.
pub fn lose_header(block: &mut [u8]) {
    block[..LOST_HEADER.len()].copy_from_slice(&LOST_HEADER);
}

const HEADER_MAGIC: [u8; 4] = *b"LSBH";
const TRAILER_MAGIC: [u8; 4] = *b"LSBT";

const _: () = {
    assert!(BLOCK_HEADER_BYTES.is_multiple_of(RECORD_ALIGN));
    assert!(84 + 8 + 4 == BLOCK_HEADER_BYTES && 40 + 24 == BLOCK_TRAILER_BYTES);
};

/// Longest record a block of `block_bytes` takes.
pub fn record_extent_max(block_bytes: u32) -> usize {
    block_bytes as usize - BLOCK_HEADER_BYTES - BLOCK_TRAILER_BYTES
}

/// A filling of a block, as the one that follows it in its log names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Former {
    /// Its sequence; zero for none.
    pub sequence: Version,
    /// CRC32C of the id of its device.
    pub device: u32,
    /// Block number on the device.
    pub number: u32,
}

impl Former {
    /// The filling of a block.
    pub fn new(name: BlockName, sequence: Version) -> Self {
        Self { sequence, device: device_tag(name.device_id), number: name.number }
    }

    fn put(&self, out: &mut [u8], at: usize) {
        put(out, at, &self.sequence.raw().to_le_bytes());
        put(out, at + 8, &self.device.to_le_bytes());
        put(out, at + 12, &self.number.to_le_bytes());
    }

    fn at(bytes: &[u8], at: usize) -> Self {
        Self {
            sequence: Version::from_raw(u64_at(bytes, at)),
            device: u32_at(bytes, at + 8),
            number: u32_at(bytes, at + 12),
        }
    }
}

/// How far the filling is durable that moved records went to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MovedTo {
    /// The filling; none when its sequence is zero.
    pub filling: Former,
    /// Bytes of it: a record ends there, the zeros behind a flush, or the block.
    pub bytes: u32,
}

/// What a device is called by where its id has no room.
pub fn device_tag(device_id: u64) -> u32 {
    crc32c::crc32c(&device_id.to_le_bytes())
}

/// What a block's header says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockHeader {
    /// Names this filling of the block and orders it among all.
    pub sequence: Version,
    /// The device's own id.
    pub device_id: u64,
    /// Block number on the device.
    pub number: u32,
    /// The shard that fills it, for people with a hex dump.
    pub shard: u16,
    /// Its records are in the order in which they were written, each as old as its version says.
    pub is_in_order: bool,
    /// Highest LUT of a tombstone forgotten before. A forgotten tombstone is gone from the device
    /// only when its block is opened anew, so the highest of all headers is never too low.
    pub horizon: Lut,
    /// The filling before it in the same log: on the device when this one is, if it had arrived.
    pub former: Former,
    /// Fillings of this log that were begun before this had arrived as a whole when it was made. Zero
    /// in blocks of earlier builds.
    pub arrived: Version,
    /// Where records went that were moved before this.
    pub moved_to: MovedTo,
    /// How many blocks of the shard may be blank beside this one.
    pub blank_max: u32,
    /// How blocks were shared out among which shards and devices: `blank_max` counts only there.
    pub layout: u32,
}

impl BlockHeader {
    /// Writes it to the start of a block.
    pub fn encode(&self, block: &mut [u8]) {
        let out = &mut block[..BLOCK_HEADER_BYTES];
        out.fill(0);
        put(out, 0, &HEADER_MAGIC);
        put(out, 8, &self.sequence.raw().to_le_bytes());
        put(out, 16, &self.device_id.to_le_bytes());
        put(out, 24, &self.number.to_le_bytes());
        put(out, 28, &self.shard.to_le_bytes());
        put(out, 30, &u16::from(self.is_in_order).to_le_bytes());
        put(out, 32, &self.horizon.ms().to_le_bytes());
        self.former.put(out, 40);
        put(out, 56, &self.blank_max.to_le_bytes());
        put(out, 60, &self.layout.to_le_bytes());
        self.moved_to.filling.put(out, 64);
        put(out, 80, &self.moved_to.bytes.to_le_bytes());
        put(out, 84, &self.arrived.raw().to_le_bytes());
        put_checksum(out);
    }

    /// Reads it from the start of a block; `None` when there is none, or a damaged one.
    pub fn decode(block: &[u8]) -> Option<Self> {
        let bytes = whole(block.get(..BLOCK_HEADER_BYTES)?, HEADER_MAGIC)?;
        Some(Self {
            sequence: Version::from_raw(u64_at(bytes, 8)),
            device_id: u64_at(bytes, 16),
            number: u32_at(bytes, 24),
            shard: u16_at(bytes, 28),
            is_in_order: u16_at(bytes, 30) == 1,
            horizon: Lut::from_ms(u64_at(bytes, 32)),
            former: Former::at(bytes, 40),
            blank_max: u32_at(bytes, 56),
            layout: u32_at(bytes, 60),
            moved_to: MovedTo { filling: Former::at(bytes, 64), bytes: u32_at(bytes, 80) },
            arrived: Version::from_raw(u64_at(bytes, 84)),
        })
    }

    /// The seal of the records of this filling.
    pub fn seal(&self) -> u32 {
        BlockName { device_id: self.device_id, number: self.number }.seal(self.sequence)
    }
}

/// Which block of which device bytes are meant to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockName {
    /// The device's own id.
    pub device_id: u64,
    /// Block number on the device.
    pub number: u32,
}

impl BlockName {
    /// The seal of the records of a filling.
    pub fn seal(&self, sequence: Version) -> u32 {
        let seal = crc32c::crc32c(&sequence.raw().to_le_bytes());
        let seal = crc32c::crc32c_append(seal, &self.device_id.to_le_bytes());
        crc32c::crc32c_append(seal, &self.number.to_le_bytes())
    }
}

/// What the header of a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderFound {
    /// Zeros: never written, or wiped.
    Blank,
    /// Of another device: left from before this one was formatted.
    Alien,
    /// As it was written.
    Whole(BlockHeader),
    /// As another block's was written: what lies here is not this block's.
    Misplaced,
    /// Anything else.
    Damaged,
}

impl HeaderFound {
    /// Judges the first bytes of a block, at least a page of them.
    pub fn judge(block: &[u8], name: BlockName) -> Self {
        match BlockHeader::decode(block) {
            Some(header) if header.device_id != name.device_id => Self::Alien,
            Some(header) if header.number == name.number => Self::Whole(header),
            Some(_) => Self::Misplaced,
            None if block.iter().take(WRITE_ALIGN).all(|byte| *byte == 0) => Self::Blank,
            _ => Self::Damaged,
        }
    }
}

/// The present filling of a block, as everybody judges it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filling {
    /// What its records are sealed with.
    pub seal: u32,
    /// Its sequence, if anything whole tells it.
    pub sequence: Option<Version>,
    /// Its trailer, if it was closed and the trailer is whole.
    pub trailer: Option<BlockTrailer>,
    /// The header is as it was written.
    pub has_header: bool,
}

impl Filling {
    /// Judges a whole block. `known` is the sequence of its filling, if the log knows it. If not,
    /// the header tells it. Where the header is damaged, the first record does; where that is, too,
    /// the trailer, if there are records that carry its sequence. `None` when the block holds no
    /// filling of this device, or nothing of it can be made out.
    pub fn judge(block: &[u8], name: BlockName, known: Option<Version>) -> Option<Self> {
        let trailer = BlockTrailer::decode(block);
        let header = HeaderFound::judge(block, name);
        let header_says = match header {
            HeaderFound::Whole(header) => Some(header.sequence),
            _ => None,
        };
        if let Some(sequence) = known.or(header_says) {
            return Some(Self {
                seal: name.seal(sequence),
                sequence: Some(sequence),
                trailer: trailer.filter(|trailer| trailer.sequence == sequence),
                has_header: header_says == Some(sequence),
            });
        }
        let closed = trailer.map(|trailer| (name.seal(trailer.sequence), trailer));
        let is_borne_out = |seal| Records::of_block(block, seal).next().is_some();
        let of_trailer = closed.filter(|(seal, _)| is_borne_out(*seal));
        let seal = match header {
            HeaderFound::Alien | HeaderFound::Misplaced => return None,
            // The page that a device wiped may be of a block that was never this volume's.
            HeaderFound::Blank => of_trailer?.0,
            // It is filled from the front: what comes first is of the present filling.
            _ => Self::first_seal(block).or(of_trailer.map(|(seal, _)| seal))?,
        };
        let trailer = of_trailer.filter(|(of, _)| *of == seal).map(|(_, trailer)| trailer);
        let sequence = trailer.map(|trailer| trailer.sequence);
        Some(Self { seal, sequence, trailer, has_header: false })
    }

    fn first_seal(block: &[u8]) -> Option<u32> {
        let places = (BLOCK_HEADER_BYTES..block.len()).step_by(RECORD_ALIGN);
        places.filter_map(|at| flat::decode(&block[at..]).ok()).map(|flat| flat.seal).next()
    }

    /// Its records from `from` on, over gaps and damage. A block still being filled ends where it is
    /// filled to.
    pub fn records<'a>(&self, block: &'a [u8], from: usize, block_bytes: u32) -> Records<'a> {
        let end = block.len().min(block_bytes as usize - BLOCK_TRAILER_BYTES);
        Records::new(block, from..end.max(from), self.seal)
    }

    /// Whether all of its records up to a place are there, where one ended or the zeros behind a
    /// flush.
    pub fn is_whole_to(&self, block: &[u8], place: u32) -> bool {
        let place = (place as usize).min(block.len());
        let mut records = Records::new(block, BLOCK_HEADER_BYTES.min(place)..place, self.seal);
        while records.next().is_some() {}
        let is_padded =
            place.is_multiple_of(WRITE_ALIGN) && records.end.next_multiple_of(WRITE_ALIGN) == place;
        (records.end == place || is_padded) && records.damaged == 0
    }

    /// Whether all of its records are there, `found` by [`Filling::records`] with so many damaged.
    pub fn is_whole(&self, found: u32, damaged: u32) -> bool {
        damaged == 0 && self.trailer.is_none_or(|trailer| trailer.records == found)
    }
}

/// What a block's trailer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockTrailer {
    /// The filling it closes.
    pub sequence: Version,
    /// Lowest and highest LUT of its records, as they were written here.
    pub luts: LutRange,
    /// Where the last record ends.
    pub used_bytes: u32,
    /// Number of records.
    pub records: u32,
    /// The version clock when it was closed by the next block, else when the last record was written
    /// here: what is on the device of it was not on its way before. Zero in blocks of earlier builds.
    pub written: Version,
}

impl BlockTrailer {
    /// Writes it to the end of a block.
    pub fn encode(&self, block: &mut [u8]) {
        let start = block.len() - BLOCK_TRAILER_BYTES;
        let out = &mut block[start..];
        out.fill(0);
        put(out, 0, &TRAILER_MAGIC);
        put(out, 8, &self.sequence.raw().to_le_bytes());
        put(out, 16, &self.luts.lowest.ms().to_le_bytes());
        put(out, 24, &self.luts.highest.ms().to_le_bytes());
        put(out, 32, &self.used_bytes.to_le_bytes());
        put(out, 36, &self.records.to_le_bytes());
        put(out, 40, &self.written.raw().to_le_bytes());
        put_checksum(out);
    }

    /// Reads it from the end of a whole block; `None` when there is none, or a damaged one.
    pub fn decode(block: &[u8]) -> Option<Self> {
        let start = block.len().checked_sub(BLOCK_TRAILER_BYTES)?;
        let bytes = whole(&block[start..], TRAILER_MAGIC)?;
        Some(Self {
            sequence: Version::from_raw(u64_at(bytes, 8)),
            luts: LutRange {
                lowest: Lut::from_ms(u64_at(bytes, 16)),
                highest: Lut::from_ms(u64_at(bytes, 24)),
            },
            used_bytes: u32_at(bytes, 32),
            records: u32_at(bytes, 36),
            written: Version::from_raw(u64_at(bytes, 40)),
        })
    }
}

fn put_checksum(frame: &mut [u8]) {
    let checksum = crc32c::crc32c(&frame[8..]);
    put(frame, 4, &checksum.to_le_bytes());
}

fn whole(frame: &[u8], magic: [u8; 4]) -> Option<&[u8]> {
    (frame[..4] == magic && u32_at(frame, 4) == crc32c::crc32c(&frame[8..])).then_some(frame)
}

/// Lowest and highest LUT of some records: the lowest of their versions and local LUTs, which a walk
/// owes both, the highest of their versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LutRange {
    /// Lowest; above `highest` when there is no record.
    pub lowest: Lut,
    /// Highest.
    pub highest: Lut,
}

impl LutRange {
    /// The range of no record.
    pub const EMPTY: Self = Self { lowest: Lut::MAX, highest: Lut::ZERO };

    /// Widens the range by one record: by the LUT of its version, and by `local_lut`, that of its
    /// last change which no shipper made. [`Lut::ZERO`] means that there was none.
    #[inline]
    pub fn add(&mut self, lut: Lut, local_lut: Lut) {
        let local_lut = if local_lut == Lut::ZERO { lut } else { local_lut };
        self.lowest = self.lowest.min(lut).min(local_lut);
        self.highest = self.highest.max(lut);
    }
}

/// Goes through the records of one filling of a block, over gaps and damage.
///
/// A step of 16 bytes at which no whole record of this seal begins is passed over. Two things are
/// counted as damage: what looks like a record and fails its checks, and what lies between two
/// records and is not the zeros behind a flush, which end with the page.
pub struct Records<'a> {
    bytes: &'a [u8],
    seal: u32,
    at: usize,
    damaged: u32,
    found: u32,
    /// Where the last one ended.
    end: usize,
    /// Something that is no record has been passed over since then.
    has_passed: bool,
}

impl<'a> Records<'a> {
    /// Over `range` of a block, which starts at a multiple of 16.
    pub fn new(block: &'a [u8], range: Range<usize>, seal: u32) -> Self {
        let (at, bytes) = (range.start, &block[..range.end]);
        Self { bytes, seal, at, damaged: 0, found: 0, end: at, has_passed: false }
    }

    /// Over everything between header and trailer.
    pub fn of_block(block: &'a [u8], seal: u32) -> Self {
        Self::new(block, BLOCK_HEADER_BYTES..block.len() - BLOCK_TRAILER_BYTES, seal)
    }

    /// Where it goes on.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Records so far that are not what was written: those that begin like one, and stretches
    /// between records that are not the zeros a flush leaves.
    pub fn damaged(&self) -> u32 {
        self.damaged
    }

    /// Whole records so far.
    pub fn found(&self) -> u32 {
        self.found
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = (u32, Flat<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let damaged_before = self.damaged;
        while self.at < self.bytes.len() {
            let here = &self.bytes[self.at..];
            if flat::starts_here(here, self.seal) {
                match flat::decode(here) {
                    Ok(found) => {
                        let (offset, gap) = (self.at as u32, self.at - self.end);
                        let is_padding =
                            gap < WRITE_ALIGN && (gap == 0 || self.at.is_multiple_of(WRITE_ALIGN));
                        self.at += found.extent;
                        self.end = self.at;
                        self.found += 1;
                        let is_odd = std::mem::take(&mut self.has_passed) || !is_padding;
                        self.damaged += u32::from(is_odd && self.damaged == damaged_before);
                        return Some((offset, found));
                    }
                    Err(_) => self.damaged += 1,
                }
            }
            self.has_passed |= here.iter().take(RECORD_ALIGN).any(|byte| *byte != 0);
            self.at += RECORD_ALIGN;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use longship::model::{Digest, RecordView};

    const BLOCK_BYTES: usize = 16 * 1024;

    fn header() -> BlockHeader {
        BlockHeader {
            sequence: Version::from_raw(77 << 24),
            device_id: 5,
            number: 9,
            shard: 9,
            is_in_order: true,
            horizon: Lut::from_ms(8),
            former: Former { sequence: Version::from_raw(76 << 24), device: 3, number: 8 },
            arrived: Version::from_raw(74 << 24),
            moved_to: MovedTo {
                filling: Former { sequence: Version::from_raw(75 << 24), device: 4, number: 6 },
                bytes: 176,
            },
            blank_max: 12,
            layout: 13,
        }
    }

    fn record(version: u64) -> RecordView<'static> {
        RecordView {
            digest: Digest::of_integer("", version as i64),
            version: Version::from_raw(version),
            local_lut: Lut::ZERO,
            generation: Default::default(),
            void_time: Default::default(),
            flags: Default::default(),
            src_id: Default::default(),
            set: "demo",
            key: &[],
            bin_count: 1,
            bins: &[1; 100],
        }
    }

    /// A closed block of ten records, with a gap after the fifth as a flush leaves it.
    fn block() -> (Vec<u8>, Vec<Range<usize>>) {
        let mut block = vec![0; BLOCK_BYTES];
        header().encode(&mut block);
        let mut at = BLOCK_HEADER_BYTES;
        let mut places = Vec::new();
        for version in 0..10 {
            if version == 5 {
                at = at.next_multiple_of(WRITE_ALIGN);
            }
            let end = at + flat::encode(&record(version), header().seal(), &mut block[at..]);
            places.push(at..end);
            at = end;
        }
        trailer(at as u32).encode(&mut block);
        (block, places)
    }

    fn trailer(used_bytes: u32) -> BlockTrailer {
        let luts = LutRange { lowest: Lut::from_ms(3), highest: Lut::from_ms(4) };
        let written = Version::from_raw(78 << 24);
        BlockTrailer { sequence: header().sequence, luts, used_bytes, records: 10, written }
    }

    fn found(block: &[u8]) -> (Vec<u64>, u32) {
        let mut records = Records::of_block(block, header().seal());
        let versions = records.by_ref().map(|(_, flat)| flat.record.version.raw()).collect();
        (versions, records.damaged())
    }

    #[test]
    fn a_block_gives_back_its_records_over_the_gaps() {
        let (block, _) = block();
        assert_eq!(BlockHeader::decode(&block), Some(header()));
        assert_eq!(found(&block), ((0..10).collect(), 0));
    }

    #[test]
    fn a_damaged_record_costs_only_itself() {
        let (block, places) = block();
        for (index, place) in places.iter().enumerate() {
            for at in place.clone() {
                let mut block = block.clone();
                block[at] ^= 0x10;
                let (versions, _) = found(&block);
                let expected: Vec<u64> = (0..10).filter(|v| *v != index as u64).collect();
                assert_eq!(versions, expected, "byte {at}");
            }
        }
    }

    #[test]
    fn a_flipped_byte_of_header_or_trailer_is_noticed() {
        let (block, places) = block();
        let used = places[9].end as u32;
        assert_eq!(BlockTrailer::decode(&block), Some(trailer(used)));
        for at in 0..BLOCK_HEADER_BYTES {
            let mut block = block.clone();
            block[at] ^= 1;
            block[BLOCK_BYTES - 64 + at % 64] ^= 1;
            assert_eq!(BlockHeader::decode(&block), None, "byte {at}");
            assert_eq!(BlockTrailer::decode(&block), None, "byte {at}");
        }
    }

    #[test]
    fn what_is_there_up_to_a_place_is_told_from_what_is_not() {
        let (block, places) = block();
        let filling = Filling::judge(&block, BlockName { device_id: 5, number: 9 }, None).unwrap();
        for (number, place) in places.iter().enumerate() {
            assert!(filling.is_whole_to(&block, place.end as u32), "{number}");
            let mut lost = block.clone();
            lost[place.clone()].fill(0);
            assert!(!filling.is_whole_to(&lost, place.end as u32), "{number}");
            assert!(filling.is_whole_to(&lost, place.start as u32), "{number}");
        }
        // The zeros behind the flush after the fifth.
        assert!(filling.is_whole_to(&block, WRITE_ALIGN as u32));
        assert!(!filling.is_whole_to(&block, WRITE_ALIGN as u32 - 16));
    }

    #[test]
    fn leftovers_of_an_earlier_filling_are_not_seen() {
        let (mut block, _) = block();
        let next = BlockHeader { sequence: Version::from_raw(78 << 24), ..header() };
        next.encode(&mut block);
        flat::encode(&record(50), next.seal(), &mut block[BLOCK_HEADER_BYTES..]);
        let versions: Vec<u64> = Records::of_block(&block, next.seal())
            .map(|(_, flat)| flat.record.version.raw())
            .collect();
        assert_eq!(versions, [50]);
        assert_ne!(BlockTrailer::decode(&block).map(|t| t.sequence), Some(next.sequence));
    }
}
