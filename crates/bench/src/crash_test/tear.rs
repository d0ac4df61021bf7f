//! Tears what a node had on its way to the device when it was killed.
//!
//! SIGKILL leaves whole what the kernel was given; a power failure does not. So before the node is
//! started again, every block that was open is treated as a power failure may: records at its end
//! that nobody was promised are cut somewhere in the middle, and behind its end lies the first part
//! of a record that was just being written. What was acknowledged is left alone, and so is every
//! record before it in its block.
//!
//! Records are cut in rounds with `commit-to-device` only: without, nobody outside can tell what the
//! device had been told to keep, and an older version may be gone for one that was.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use longship::model::{Digest, RecordView};
use longship::wire::bins;
use longship_node::storage::block::{BLOCK_TRAILER_BYTES, BlockHeader, BlockTrailer, Records};

use super::model::State;
use super::writer::Writer;
use crate::content::finalize;

/// Flushes end at multiples of this.
const PAGE_BYTES: usize = 4096;
/// Of a torn record at least this much has arrived: enough to be recognised as one.
const PREFIX_BYTES: usize = 48;

/// What writers know of records.
pub(super) struct Promises<'a> {
    owners: HashMap<Digest, (&'a Writer, u64)>,
}

impl<'a> Promises<'a> {
    pub(super) fn of(writers: &'a [Writer]) -> Self {
        let mut owners = HashMap::new();
        for writer in writers {
            writer.digests().for_each(|(record, digest)| {
                owners.insert(digest, (writer, record));
            });
        }
        Self { owners }
    }

    /// Whether a record on the device may be what an acknowledgement promised.
    fn covers(&self, record: &RecordView<'_>) -> bool {
        let Some((writer, number)) = self.owners.get(&record.digest) else { return true };
        !writer.is_unanswered(*number, state_of(record))
    }
}

/// The state a record leaves its key in.
fn state_of(record: &RecordView<'_>) -> State {
    let revision = bins::find(record.bins, b"rev")?.value.try_into().ok()?;
    Some(u64::from_be_bytes(revision))
}

/// Tears the open blocks of a log; `promises` when records may be cut. Gives how many tears there
/// are.
pub(super) fn tear(
    log: &Path,
    block_bytes: usize,
    promises: Option<&Promises<'_>>,
    random: u64,
) -> io::Result<u64> {
    let file = File::options().read(true).write(true).open(log)?;
    let blocks = file.metadata()?.len() / block_bytes as u64;
    let mut block = vec![0; block_bytes];
    let mut torn = 0;
    for number in 1..blocks {
        let offset = number * block_bytes as u64;
        file.read_exact_at(&mut block, offset)?;
        for range in tear_block(&mut block, promises, finalize(random ^ number)) {
            file.write_all_at(&block[range.clone()], offset + range.start as u64)?;
            torn += 1;
        }
    }
    file.sync_all()?;
    Ok(torn)
}

/// Tears a block, if it is open; gives the bytes it has changed, tear by tear.
fn tear_block(block: &mut [u8], promises: Option<&Promises<'_>>, random: u64) -> Vec<Range<usize>> {
    let Some(header) = BlockHeader::decode(block) else { return Vec::new() };
    if BlockTrailer::decode(block).is_some_and(|trailer| trailer.sequence == header.sequence) {
        return Vec::new();
    }
    let mut places = Vec::new();
    let mut promised = 0;
    for (offset, flat) in Records::of_block(block, header.seal()) {
        places.push(offset as usize..offset as usize + flat.extent);
        if promises.is_none_or(|promises| promises.covers(&flat.record)) {
            promised = places.len();
        }
    }
    let Some(last) = places.last().cloned() else { return Vec::new() };
    let mut changed = Vec::new();
    // First: it begins as a whole record of this block does.
    let next = last.end.next_multiple_of(PAGE_BYTES);
    let half = last.len() / 2;
    if half >= PREFIX_BYTES && next + half <= block.len() - BLOCK_TRAILER_BYTES {
        block.copy_within(last.start..last.start + half, next);
        changed.push(next..next + half);
    }
    let unpromised = &places[promised..];
    if let Some(place) = unpromised.get(random as usize % unpromised.len().max(1)) {
        let cut = place.start + PREFIX_BYTES;
        let cut = cut + (random >> 32) as usize % (place.end - cut).max(1) / 2;
        block[cut..last.end].fill(0);
        changed.push(cut..last.end);
    }
    changed
}

#[cfg(test)]
mod tests {
    use longship::model::Lut;
    use longship::model::Version;
    use longship_node::storage::flat;

    use super::*;
    use crate::content::BIN_COUNT;
    use longship_node::storage::block::BLOCK_HEADER_BYTES;

    const BLOCK_BYTES: usize = 64 << 10;

    fn header() -> BlockHeader {
        let sequence = Version::first_of(Lut::from_ms(5));
        BlockHeader { sequence, device_id: 1, number: 3, shard: 3, ..BlockHeader::default() }
    }

    /// An open block with the records of a writer that got answers to the first `answered` only.
    fn block(writer: &mut Writer, answered: u64) -> Vec<u8> {
        let mut block = vec![0; BLOCK_BYTES];
        header().encode(&mut block);
        let mut at = BLOCK_HEADER_BYTES;
        for number in 0..10 {
            let (digest, bins) = writer.submit_for_test(number, number < answered);
            let record = RecordView {
                digest,
                version: Version::first_of(Lut::from_ms(6 + number)),
                local_lut: Lut::ZERO,
                generation: Default::default(),
                void_time: Default::default(),
                flags: Default::default(),
                src_id: Default::default(),
                set: "keys",
                key: &[],
                bin_count: BIN_COUNT,
                bins: &bins,
            };
            at += flat::encode(&record, header().seal(), &mut block[at..]);
        }
        block
    }

    fn found(block: &[u8]) -> (usize, u32) {
        let mut records = Records::of_block(block, header().seal());
        (records.by_ref().count(), records.damaged())
    }

    #[test]
    fn only_what_nobody_was_promised_is_torn() {
        for (answered, seed) in (0..=10).flat_map(|n| (0..20).map(move |seed| (n, finalize(seed))))
        {
            let mut writer = Writer::new(9);
            let mut block = block(&mut writer, answered);
            let writers = [writer];
            let changed = tear_block(&mut block, Some(&Promises::of(&writers)), seed);
            let (whole, torn) = found(&block);
            assert!(whole as u64 >= answered, "{whole} of {answered} answered");
            assert_eq!(changed.len() as u32, torn);
            assert_eq!(whole == 10, answered == 10);
        }
    }

    #[test]
    fn without_promises_and_in_closed_blocks_no_record_is_touched() {
        let mut block = block(&mut Writer::new(9), 0);
        tear_block(&mut block, None, 1);
        assert_eq!(found(&block), (10, 1));
        let luts = longship_node::storage::block::LutRange::EMPTY;
        let sequence = header().sequence;
        BlockTrailer { sequence, luts, used_bytes: 0, records: 10, written: sequence }
            .encode(&mut block);
        assert!(tear_block(&mut block, None, 1).is_empty());
    }
}
