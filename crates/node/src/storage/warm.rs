//! Warm start: what a shard knew of a namespace when it was stopped cleanly, in a mapped file, so
//! that the next start does not have to read the log.
//!
//! A checkpoint is good for one start: it is taken away, durably, before it is looked at, so that
//! no later crash finds it. It counts only if it is whole, and was made for the same volume, shard
//! and number of shards. A device may have been restored from a copy since: so it must be of the
//! run before this one, and the header of every block on the device must be the one it remembers.
//! Otherwise the start of that namespace is a cold one, on every shard: each reads its blocks. What
//! other namespaces have left does not matter to it.
//!
//! | offset | size | header |
//! |---:|---:|---|
//! | 0 | 8 | magic `LSWARM03` |
//! | 8 | 4 | CRC32C of bytes 16..4096 |
//! | 12 | 4 | CRC32C of the body |
//! | 16 | 8 | bytes of the body |
//! | 24 | 8 | id of the volume |
//! | 32 | 2 + 2 | shard, number of shards |
//! | 36 | 4 | number of own blocks |
//! | 40 | 8 | version clock |
//! | 48 | 8 | tombstone horizon |
//! | 56 | 4 | number of sets |
//! | 60 | 4 | number of foreign blocks |
//! | 64 | 4 | slots of the index |
//! | 68 | 4 | first free slot |
//! | 72 | 8 | key of the index |
//! | 80 | 8 | records |
//! | 88 | 1 | whether the volume is mixed |
//! | 96 | 8 | epoch of the volume before that run was closed |
//! | 104 | .. | zeros up to 4096 |
//!
//! Body: per set, length (1), name, objects, tombstones, bytes (8 each); per own block, flags (1:
//! written, 2: bad), sequence (8), live bytes (4), lowest and highest LUT (5 each); per foreign
//! block, number and live bytes (4 each), lowest and highest LUT (5 each); the slots as they are in
//! memory (56 each); per partition, buckets and records (4 each) and the bucket heads (4 each).
//!
//! # Safety argument
//!
//! Both mappings are of the node's own file in its work directory: made with all its space
//! allocated, or taken away under another name before it is read; nobody truncates it meanwhile. A
//! device that cannot read it back ends the start with a signal, and the next one is cold.
#![expect(unsafe_code, reason = "maps the index checkpoint")]

use std::cell::Cell;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use memmap2::{Mmap, MmapMut};

use super::block::{BlockHeader, LutRange};
use super::index::{BlockId, Index};
use super::log::{BlockState, Foreign};
use super::progress::Progress;
use super::sets::SetCounts;
use super::space::Space;
use super::volume::{Claims, Volume};
use longship::model::{Lut, ShardIndex, Version};
use longship_rt::bytes::{In, Out, put, sync_folder, u16_at, u32_at, u64_at};
use longship_rt::disk_ring::file::allocate;

const MAGIC: [u8; 8] = *b"LSWARM03";
const HEADER_BYTES: usize = 4096;
/// Bytes checked between two looks of those who watch the start.
const CHECK_BYTES: usize = 1 << 20;
/// Bytes of a checkpoint made durable at a time, fewest and most, and how long that should take.
const FLUSH_BYTES_MIN: usize = 1 << 20;
const FLUSH_BYTES_MAX: usize = 64 << 20;
const FLUSH_TIME: Duration = Duration::from_millis(50);
const BLOCK_BYTES: usize = 1 + 8 + 4 + 5 + 5;
const FOREIGN_BYTES: usize = 4 + 4 + 5 + 5;
const WRITTEN: u8 = 1;
const BAD: u8 = 2;

/// Where the checkpoint of a shard's part of a namespace lies.
fn path_of(volume: &Volume, shard: ShardIndex) -> Option<PathBuf> {
    let name = format!("index-{}-{}", volume.namespace, shard.0);
    Some(volume.checkpoints.as_ref()?.join(name))
}

/// Writes the checkpoint of a namespace on a shard that has stopped with everything durable.
/// Blocks.
pub(super) fn save(
    space: &Space,
    volume: &Volume,
    shard: ShardIndex,
    clock: Version,
    is_late: &dyn Fn() -> bool,
) -> io::Result<()> {
    let Some(path) = path_of(volume, shard) else { return Ok(()) };
    let new = path.with_extension("new");
    let saved = write_new(space, volume, (shard, clock), &new, is_late);
    if saved.is_err() {
        let _ = fs::remove_file(&new);
    }
    saved?;
    fs::rename(&new, &path)?;
    sync_folder(&path)
}

/// Writes the file, whole and durable, or gives up when it is late.
fn write_new(
    space: &Space,
    volume: &Volume,
    (shard, clock): (ShardIndex, Version),
    new: &Path,
    is_late: &dyn Fn() -> bool,
) -> io::Result<()> {
    let late = || io::Error::new(io::ErrorKind::TimedOut, "stop-deadline-ms is over");
    if is_late() {
        return Err(late());
    }
    let body_bytes = body_bytes(space);
    let file = File::options().read(true).write(true).create(true).truncate(true).open(new)?;
    allocate(&file, (HEADER_BYTES + body_bytes) as u64)?;
    // SAFETY: the file was made above and has all its space; see the safety argument.
    let mut map = unsafe { MmapMut::map_mut(&file)? };
    let (header, body) = map.split_at_mut(HEADER_BYTES);
    if !encode_body(space, &mut Out::new(body), is_late) {
        return Err(late());
    }
    encode_header(space, volume, shard, clock, header);
    put(header, 12, &crc32c::crc32c(body).to_le_bytes());
    put(header, 16, &(body_bytes as u64).to_le_bytes());
    let checksum = crc32c::crc32c(&header[16..]);
    put(header, 8, &checksum.to_le_bytes());
    let mut written = 0;
    let mut piece = FLUSH_BYTES_MIN;
    while written < map.len() {
        if is_late() {
            return Err(late());
        }
        let begun = Instant::now();
        let bytes = piece.min(map.len() - written);
        map.flush_range(written, bytes)?;
        written += bytes;
        if begun.elapsed() < FLUSH_TIME {
            piece = (2 * piece).min(FLUSH_BYTES_MAX);
        }
    }
    file.sync_all()
}

fn body_bytes(space: &Space) -> usize {
    let sets: usize = space.sets.iter().map(|(name, _)| 1 + name.len() + 24).sum();
    let blocks = space.log.own_count() * BLOCK_BYTES + space.log.foreign_count() * FOREIGN_BYTES;
    sets + blocks + space.index.saved_bytes()
}

fn encode_header(
    space: &Space,
    volume: &Volume,
    shard: ShardIndex,
    clock: Version,
    out: &mut [u8],
) {
    put(out, 0, &MAGIC);
    put(out, 24, &volume.id.to_le_bytes());
    put(out, 32, &shard.0.to_le_bytes());
    put(out, 34, &volume.shard_count.to_le_bytes());
    put(out, 36, &(space.log.own_count() as u32).to_le_bytes());
    put(out, 40, &clock.raw().to_le_bytes());
    put(out, 48, &space.log.tombstone_horizon.ms().to_le_bytes());
    put(out, 56, &(space.sets.iter().count() as u32).to_le_bytes());
    put(out, 60, &(space.log.foreign_count() as u32).to_le_bytes());
    let shape = space.index.shape();
    put(out, 64, &shape.used.to_le_bytes());
    put(out, 68, &shape.free.to_le_bytes());
    put(out, 72, &shape.key.to_le_bytes());
    put(out, 80, &shape.records.to_le_bytes());
    out[88] = u8::from(volume.claims.is_mixed());
    put(out, 96, &volume.last_epoch().to_le_bytes());
}

/// False when it is late and has not come to the end.
fn encode_body(space: &Space, out: &mut Out<'_>, is_late: &dyn Fn() -> bool) -> bool {
    for (name, counts) in space.sets.iter() {
        out.put(&[name.len() as u8]);
        out.put(name.as_bytes());
        for count in [counts.objects, counts.tombstones, counts.bytes] {
            out.put(&count.to_le_bytes());
        }
    }
    let fresh = space.log.fresh_blocks();
    for (id, block) in space.log.blocks() {
        let written = if fresh.contains(&id) { 0 } else { WRITTEN };
        out.put(&[written | if block.is_bad() { BAD } else { 0 }]);
        out.put(&block.sequence.raw().to_le_bytes());
        out.put(&block.live_bytes.to_le_bytes());
        out.put(&block.luts.lowest.to_bytes());
        out.put(&block.luts.highest.to_bytes());
    }
    for (id, block) in space.log.foreign_blocks() {
        out.put(&id.0.to_le_bytes());
        out.put(&block.live_bytes.to_le_bytes());
        out.put(&block.luts.lowest.to_bytes());
        out.put(&block.luts.highest.to_bytes());
    }
    space.index.save(out, is_late)
}

/// A checkpoint that is whole and meant for this shard.
pub(super) struct Saved<'a> {
    map: Mmap,
    taken: PathBuf,
    progress: &'a Progress,
    /// Bytes of the body counted as read: half when they are checked, half when they are entered.
    counted: Cell<u64>,
}

/// Takes the checkpoint away and checks it. `None` when there is none, or none that counts.
pub(super) fn take(volume: &Volume, shard: ShardIndex) -> Option<Saved<'_>> {
    let path = path_of(volume, shard)?;
    let taken = path.with_extension("taken");
    match take_away(&path, &taken) {
        Ok(map) => {
            let progress = &volume.progress;
            let saved = Saved { map, taken, progress, counted: Cell::new(0) };
            progress.want(saved.body_bytes());
            let is_good = saved.is_whole() && saved.is_for(volume, shard);
            if !is_good {
                let path = path.display();
                tracing::warn!("{path} is not a checkpoint of this shard: reading the log");
            }
            is_good.then_some(saved)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            tracing::warn!("{}: {error}: reading the log", path.display());
            None
        }
    }
}

fn take_away(path: &Path, taken: &Path) -> io::Result<Mmap> {
    fs::rename(path, taken)?;
    sync_folder(path)?;
    let file = File::open(taken)?;
    // SAFETY: nobody else knows the file under this name; see the safety argument.
    unsafe { Mmap::map(&file) }
}

impl Drop for Saved<'_> {
    fn drop(&mut self) {
        if self.counted.get() < self.body_bytes() {
            self.progress.take_back(self.body_bytes(), self.counted.get());
        }
        let _ = fs::remove_file(&self.taken);
    }
}

impl Saved<'_> {
    fn header(&self) -> &[u8] {
        &self.map[..HEADER_BYTES]
    }

    fn body(&self) -> &[u8] {
        &self.map[HEADER_BYTES..]
    }

    fn body_bytes(&self) -> u64 {
        self.map.len().saturating_sub(HEADER_BYTES) as u64
    }

    fn count(&self, bytes: u64, records: u64) {
        self.counted.update(|counted| counted + bytes);
        self.progress.have(bytes, records);
    }

    fn is_whole(&self) -> bool {
        self.map.len() >= HEADER_BYTES
            && self.header()[..8] == MAGIC
            && u32_at(self.header(), 8) == crc32c::crc32c(&self.header()[16..])
            && u64_at(self.header(), 16) == self.body().len() as u64
            && u32_at(self.header(), 12) == self.body_checksum()
    }

    fn body_checksum(&self) -> u32 {
        self.body().chunks(CHECK_BYTES).fold(0, |checksum, bytes| {
            self.count(bytes.len() as u64 / 2, 0);
            crc32c::crc32c_append(checksum, bytes)
        })
    }

    fn is_for(&self, volume: &Volume, shard: ShardIndex) -> bool {
        let header = self.header();
        u64_at(header, 24) == volume.id
            // The last shard to stop closed that run's epoch.
            && volume.found_epoch == u64_at(header, 96).checked_add(1)
            && u16_at(header, 32) == shard.0
            && u16_at(header, 34) == volume.shard_count
            && u32_at(header, 36) as usize == volume.geometry(shard).own_blocks().count()
    }

    /// Highest version issued before the stop.
    pub(super) fn clock(&self) -> Version {
        Version::from_raw(u64_at(self.header(), 40))
    }

    /// Whether the blocks on the device are the ones remembered. `found` gives the header of a
    /// block there, `Some(None)` for a damaged one, `None` for one never written. A damaged header
    /// does not speak against what is remembered of its block, as long as others speak for it.
    pub(super) fn agrees_with(
        &self,
        space: &Space,
        found: impl Fn(BlockId) -> Option<Option<BlockHeader>>,
    ) -> bool {
        let (mut whole, mut damaged) = (0, 0);
        self.rows(space).is_some_and(|mut rows| {
            rows.all(|(id, row)| {
                let Some(row) = row else { return false };
                let is_written = row.flags & WRITTEN != 0;
                match found(id) {
                    None => return !is_written,
                    Some(None) => damaged += 1,
                    Some(Some(header)) if is_written && row.sequence == header.sequence => {
                        whole += 1;
                    }
                    Some(Some(_)) => return false,
                }
                true
            })
        }) && damaged <= whole
    }

    /// Says of each block which filling it held when the shard stopped.
    pub(super) fn vouch(&self, space: &Space, claims: &Claims) {
        let rows = self.rows(space).into_iter().flatten();
        for (id, row) in rows.map_while(|(id, row)| Some((id, row?))) {
            if row.flags & WRITTEN != 0 {
                claims.vouch(id, row.sequence);
            }
        }
    }

    /// What is remembered of each own block; `None` from where the body is too short.
    fn rows(&self, space: &Space) -> Option<impl Iterator<Item = (BlockId, Option<Row>)>> {
        let mut input = In::new(self.body());
        for _ in 0..u32_at(self.header(), 56) {
            let length = usize::from(input.take(1)?[0]);
            input.take(length + 24)?;
        }
        Some(space.log.blocks().map(move |(id, _)| (id, Row::read(&mut input))))
    }

    /// Puts everything back. `None`, with the space in pieces, when the content contradicts itself.
    pub(super) fn restore(&self, space: &mut Space, volume: &Volume) -> Option<()> {
        let mut input = In::new(self.body());
        for number in 0..u32_at(self.header(), 56) {
            let length = usize::from(input.take(1)?[0]);
            let name = std::str::from_utf8(input.take(length)?).ok()?;
            let objects = u64_at(input.take(8)?, 0);
            let tombstones = u64_at(input.take(8)?, 0);
            let bytes = u64_at(input.take(8)?, 0);
            let counts = SetCounts { objects, tombstones, bytes };
            space.sets.restore(number, name, counts)?;
        }
        let ids: Vec<BlockId> = space.log.geometry().own_blocks().collect();
        for id in ids {
            let row = Row::read(&mut input)?;
            let block = space.log.block_mut(id)?;
            (block.sequence, block.live_bytes, block.luts) =
                (row.sequence, row.live_bytes, row.luts);
            if row.flags & BAD != 0 {
                block.state = BlockState::Bad;
            }
        }
        for _ in 0..u32_at(self.header(), 60) {
            let row = input.take(FOREIGN_BYTES)?;
            let block = Foreign::new(u32_at(row, 4), luts_at(row, 8));
            let id = BlockId(u32_at(row, 0));
            let is_there = id.0 < space.log.geometry().block_count();
            is_there.then(|| space.log.restore_foreign(id, block))?;
        }
        let header = self.header();
        let shape = super::index::Shape {
            used: u32_at(header, 64),
            free: u32_at(header, 68),
            records: u64_at(header, 80),
            key: u64_at(header, 72),
        };
        let mut entered = |records: usize, bytes: usize| {
            self.count(bytes as u64 / 2, records as u64);
        };
        space.index = Index::restore(volume.shard_count, shape, &mut input, &mut entered)?;
        self.count(self.body_bytes().saturating_sub(self.counted.get()), 0);
        space.log.tombstone_horizon = Lut::from_ms(u64_at(header, 48));
        space.restored();
        if header[88] != 0 {
            volume.claims.note_mixed();
        }
        input.is_empty().then_some(())
    }
}

/// What is remembered of an own block.
struct Row {
    flags: u8,
    sequence: Version,
    live_bytes: u32,
    luts: LutRange,
}

impl Row {
    fn read(input: &mut In<'_>) -> Option<Self> {
        let row = input.take(BLOCK_BYTES)?;
        Some(Self {
            flags: row[0],
            sequence: Version::from_raw(u64_at(row, 1)),
            live_bytes: u32_at(row, 9),
            luts: luts_at(row, 13),
        })
    }
}

fn luts_at(row: &[u8], at: usize) -> LutRange {
    let lut =
        |at: usize| Lut::from_bytes([row[at], row[at + 1], row[at + 2], row[at + 3], row[at + 4]]);
    LutRange { lowest: lut(at), highest: lut(at + 5) }
}
