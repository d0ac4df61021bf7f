//! The head of the log: the block being filled, the pieces of it on their way to the device, and
//! how far the log is durable.
//!
//! A *position* counts the bytes of the log as if its blocks lay one behind the other in the order
//! they were opened; it only grows, and ends with the process. Pieces go out in that order, several
//! at a time; `written` is the position up to which all of them have arrived, `durable` the one up
//! to which they would survive a power failure.
//!
//! Everything here is synchronous and takes the time as an argument; [`super::flush`] carries the
//! pieces to the ring.

use std::collections::VecDeque;
use std::ops::{Range, RangeInclusive};
use std::rc::Rc;

use super::block::{
    BLOCK_HEADER_BYTES, BLOCK_TRAILER_BYTES, BlockHeader, BlockTrailer, Former, LutRange,
    WRITE_ALIGN,
};
use super::flat;
use super::index::{BlockId, Location};
use super::log::{Log, LogPositions, Purpose};
use longship::model::{Lut, RecordView, Tick, Version};
use longship_rt::arena::{AppendBuffer, Arena};

/// Largest piece handed to the ring at once.
pub const PIECE_BYTES_MAX: usize = 512 << 10;

/// The end of a block that stays unwritten is at least so long.
const UNWRITTEN_GAP_MIN: usize = 64 << 10;

/// Pieces on their way at a time: enough to keep a device streaming, few enough that reads get
/// through.
pub const PIECES_IN_FLIGHT_MAX: usize = 8;

/// Bytes of a namespace's writes under way at a time, at most: as much as a slow device does in the
/// time that a stop may take, less a second. What is under way when a process ends holds that up
/// until the device has done it, and a fast one may have become slow just before.
pub(super) const WRITING_BYTES: RangeInclusive<u64> = 1 << 20..=8 << 20;

/// Bounds and habits of the head.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    /// Longest a record waits in memory for its flush.
    pub flush_max_ms: u64,
    /// Flush at once: writes wait for the device.
    pub commit: bool,
    /// Bytes not yet written above which appends are refused.
    pub unwritten_bytes_max: u64,
    /// Age of the oldest record that would not survive a power failure above which appends are
    /// refused; 0 for no bound.
    pub loss_window_ms: u64,
}

/// Why a record cannot be appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendRefused {
    /// No block to be had for this purpose.
    Full,
    /// The device does not keep up, or there is no memory for a block.
    Overloaded,
    /// It fits in no block.
    TooBig,
}

/// Circumstances of an append.
#[derive(Clone, Copy, Debug)]
pub struct Appending {
    /// What for.
    pub purpose: Purpose,
    /// The version clock: names the block, should this open one.
    pub clock: Version,
    /// The time.
    pub now: Tick,
}

/// Bytes to write, and where.
#[derive(Clone, Debug)]
pub struct Piece {
    /// The block.
    pub block: BlockId,
    /// Its content.
    pub memory: Rc<AppendBuffer>,
    /// Which bytes of it.
    pub range: Range<usize>,
    /// Position of the log behind these bytes.
    pub end: u64,
    /// Nothing of the block comes after.
    pub is_last: bool,
}

/// The block being filled.
struct Open {
    id: BlockId,
    header: BlockHeader,
    seal: u32,
    memory: Rc<AppendBuffer>,
    records: u32,
    /// The version clock at the last append.
    clock: Version,
    /// Bytes already cut into pieces.
    cut: usize,
    /// Position of the block's first byte.
    start: u64,
    /// When the oldest record not yet cut was appended.
    waiting_since: Option<Tick>,
}

/// The head of one shard's log.
pub struct Head {
    limits: HeadLimits,
    block_bytes: usize,
    open: Option<Open>,
    /// Cut, not yet handed to the ring.
    pieces: VecDeque<Piece>,
    /// Handed to the ring, in order: end, block if it was its last piece, arrived.
    flying: VecDeque<Flying>,
    /// Blocks of which everything has arrived.
    filled: VecDeque<BlockId>,
    appended: u64,
    /// Position behind the last byte cut.
    cut: u64,
    next_start: u64,
    /// The block filled before: the next one names it.
    former: Former,
    /// Blocks that have not arrived as a whole: the position of their end, and their sequence.
    under_way: VecDeque<(u64, Version)>,
    /// What has been cut and would not survive a power failure, in order: the position behind it,
    /// and when its oldest record was appended, or earlier.
    at_risk: VecDeque<(u64, Tick)>,
    written: u64,
    durable: u64,
    /// Whoever carries pieces has something new to look at.
    has_news: bool,
}

struct Flying {
    end: u64,
    last_of: Option<BlockId>,
    arrived: bool,
}

impl Head {
    /// A head with no open block.
    pub fn new(limits: HeadLimits, block_bytes: u32) -> Self {
        Self {
            limits,
            block_bytes: block_bytes as usize,
            open: None,
            pieces: VecDeque::new(),
            flying: VecDeque::with_capacity(PIECES_IN_FLIGHT_MAX),
            filled: VecDeque::new(),
            appended: 0,
            cut: 0,
            next_start: 0,
            former: Former::default(),
            under_way: VecDeque::new(),
            at_risk: VecDeque::new(),
            written: 0,
            durable: 0,
            has_news: false,
        }
    }

    /// Takes over how long records wait and how many may. What a crash may cost stays as it was
    /// told to shippers at the start.
    pub fn set_bounds(&mut self, limits: &HeadLimits) {
        self.limits.flush_max_ms = limits.flush_max_ms;
        self.limits.unwritten_bytes_max = limits.unwritten_bytes_max;
    }

    /// Goes on behind a block that an earlier process has filled and closed, the newest of those
    /// that are told.
    pub fn go_on_behind(&mut self, former: Former) {
        if former.sequence > self.former.sequence {
            self.former = former;
        }
    }

    /// Whether there is something new to cut or carry since the last question.
    #[inline]
    pub fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.has_news)
    }

    /// Position behind the last record appended.
    pub fn appended(&self) -> u64 {
        self.appended
    }

    /// Position up to which everything would survive a power failure.
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// Position up to which everything is on the device, if perhaps in its volatile cache.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Bytes appended and not yet written.
    pub fn unwritten_bytes(&self) -> u64 {
        self.appended - self.written.min(self.appended)
    }

    /// Whether so many bytes more are too many for the device.
    #[inline]
    pub fn is_overloaded(&self, more: u64) -> bool {
        self.unwritten_bytes() + more > self.limits.unwritten_bytes_max
    }

    /// Whether half of what may wait for the device is taken.
    pub fn is_half_full(&self) -> bool {
        self.is_overloaded(self.limits.unwritten_bytes_max / 2)
    }

    /// Appends a record, opening a block if need be, and tells where it lies; the log then ends
    /// behind it.
    pub fn append(
        &mut self,
        log: &mut Log,
        arena: &Arena,
        record: &RecordView<'_>,
        how: &Appending,
    ) -> Result<Location, AppendRefused> {
        let extent = flat::extent(record);
        if extent > self.block_bytes - BLOCK_HEADER_BYTES - BLOCK_TRAILER_BYTES {
            return Err(AppendRefused::TooBig);
        }
        if how.purpose == Purpose::Write && self.is_overloaded(extent as u64) {
            return Err(AppendRefused::Overloaded);
        }
        if self.is_overdue(how.now) {
            return Err(AppendRefused::Overloaded);
        }
        let encode = |seal, out: &mut [u8]| {
            flat::encode(record, seal, out);
        };
        let stamps = (record.version, record.local_lut);
        self.append_bytes(log, arena, extent, stamps, how, encode)
    }

    /// Appends a record of that version and local LUT that lies encoded in another block.
    pub fn append_copy(
        &mut self,
        log: &mut Log,
        arena: &Arena,
        copy: &[u8],
        stamps: (Version, Lut),
        how: &Appending,
    ) -> Result<Location, AppendRefused> {
        let reseal = |seal, out: &mut [u8]| {
            out.copy_from_slice(copy);
            flat::reseal(out, seal);
        };
        self.append_bytes(log, arena, copy.len(), stamps, how, reseal)
    }

    fn append_bytes(
        &mut self,
        log: &mut Log,
        arena: &Arena,
        extent: usize,
        (version, local_lut): (Version, Lut),
        how: &Appending,
        fill: impl FnOnce(u32, &mut [u8]),
    ) -> Result<Location, AppendRefused> {
        if !self.open.as_ref().is_some_and(|open| open.has_room(extent)) {
            self.open_block(log, arena, how)?;
        }
        let open = self.open.as_mut().ok_or(AppendRefused::Overloaded)?;
        let range = open.memory.append(extent, |out| fill(open.seal, out));
        let range = range.ok_or(AppendRefused::TooBig)?;
        open.records += 1;
        open.clock = how.clock;
        if open.waiting_since.is_none() {
            open.waiting_since = Some(how.now);
            self.has_news = true;
        }
        self.appended = open.start + range.end as u64;
        let location =
            Location { block: open.id, offset: range.start as u32, extent: extent as u32 };
        log.add_live(location, version, local_lut);
        self.cut_whole_pieces();
        Ok(location)
    }

    fn open_block(
        &mut self,
        log: &mut Log,
        arena: &Arena,
        how: &Appending,
    ) -> Result<(), AppendRefused> {
        let buffer = arena.take(self.block_bytes).or_else(|| {
            log.evict();
            arena.take(self.block_bytes)
        });
        let buffer = buffer.ok_or(AppendRefused::Overloaded)?;
        let header_end = self.next_start + BLOCK_HEADER_BYTES as u64;
        let begun = match how.purpose {
            Purpose::Defrag => LogPositions { moves: header_end, ..LogPositions::default() },
            Purpose::Write | Purpose::Delete => {
                LogPositions { writes: header_end, ..LogPositions::default() }
            }
        };
        let id = match log.take(how.purpose, how.clock, begun) {
            Some(id) => id,
            // What is on its way may leave blocks without anything alive.
            None if log.may_get_free() || !self.is_quiet() => {
                return Err(AppendRefused::Overloaded);
            }
            None => return Err(AppendRefused::Full),
        };
        if let Some(open) = &mut self.open {
            // It may have stood open for long, and its end is on its way from now on only.
            open.clock = how.clock;
        }
        self.close_block(log);
        let arrived = self.under_way.front().map_or(how.clock, |(_, sequence)| *sequence);
        let header = log.header(id, how.purpose, how.clock, (self.former, arrived));
        self.former = Former::new(log.name(id), how.clock);
        let memory = AppendBuffer::new(buffer);
        memory.append(BLOCK_HEADER_BYTES, |out| header.encode(out));
        if let Some(block) = log.block_mut(id) {
            block.memory = Some(Rc::clone(&memory));
        }
        let start = self.next_start;
        self.next_start += self.block_bytes as u64;
        self.under_way.push_back((self.next_start, how.clock));
        self.open = Some(Open {
            id,
            header,
            seal: header.seal(),
            memory,
            records: 0,
            clock: how.clock,
            cut: 0,
            start,
            waiting_since: None,
        });
        Ok(())
    }

    /// Closes the open block, if there is one: writes its trailer and cuts what is left of it.
    pub fn close_block(&mut self, log: &mut Log) {
        let Some(mut open) = self.open.take() else { return };
        let used_bytes = open.memory.filled();
        let trailer = BlockTrailer {
            sequence: open.header.sequence,
            luts: log.block(open.id).map_or(LutRange::EMPTY, |block| block.luts),
            used_bytes: used_bytes as u32,
            records: open.records,
            written: open.clock,
        };
        let rest = self.block_bytes - used_bytes;
        open.memory.append(rest, |out| {
            out.fill(0);
            trailer.encode(out);
        });
        // What lies between the last record and the trailer's own 4 KiB is not written, unless it
        // is so little that another write costs more.
        let records_end = used_bytes.next_multiple_of(WRITE_ALIGN);
        let trailer_start = (self.block_bytes - WRITE_ALIGN).max(open.cut);
        if records_end + UNWRITTEN_GAP_MIN < trailer_start {
            self.cut(&mut open, records_end, false);
            open.cut = trailer_start;
        }
        self.cut(&mut open, self.block_bytes, true);
        self.appended = open.start + self.block_bytes as u64;
    }

    /// Cuts what a flush now due takes with it: everything appended, zeros up to the next 4 KiB.
    /// Returns when to come again; an arrival is a reason to come sooner.
    pub fn cut_due(&mut self, log: &mut Log, now: Tick) -> Option<Tick> {
        let since = self.open.as_ref()?.waiting_since?;
        if self.limits.commit {
            // What comes in while a flush is on its way makes up the next one.
            if self.is_quiet() {
                self.cut_all(log);
            }
            return None;
        }
        let due = since.plus_ms(self.limits.flush_max_ms);
        if now < due {
            return Some(due);
        }
        self.cut_all(log);
        None
    }

    /// Cuts at least everything before `position`.
    pub fn cut_to(&mut self, position: u64, log: &mut Log) {
        if self.cut < position {
            self.cut_all(log);
        }
    }

    /// Cuts everything appended, whether due or not.
    pub fn cut_all(&mut self, log: &mut Log) {
        let Some(mut open) = self.open.take() else { return };
        // Padding would run into the trailer's own 4 KiB: the block is as good as full.
        if open.memory.filled() > self.block_bytes - WRITE_ALIGN {
            self.open = Some(open);
            return self.close_block(log);
        }
        if open.cut < open.memory.filled() {
            let end = open.pad();
            self.cut(&mut open, end, false);
            self.appended = open.start + end as u64;
        }
        self.open = Some(open);
    }

    /// Streams: whole pieces go out as soon as they are full, cut at any 4 KiB.
    fn cut_whole_pieces(&mut self) {
        let Some(mut open) = self.open.take() else { return };
        while open.memory.filled() - open.cut >= PIECE_BYTES_MAX {
            let end = open.cut + PIECE_BYTES_MAX;
            self.cut(&mut open, end, false);
        }
        self.open = Some(open);
    }

    /// Cuts the block's bytes up to `end` into pieces.
    fn cut(&mut self, open: &mut Open, end: usize, closes: bool) {
        debug_assert!(open.cut.is_multiple_of(WRITE_ALIGN) && end.is_multiple_of(WRITE_ALIGN));
        if let Some(since) = open.waiting_since {
            self.at_risk.pop_back_if(|(_, last)| *last == since);
            self.at_risk.push_back((open.start + end as u64, since));
        }
        while open.cut < end {
            let piece_end = end.min(open.cut + PIECE_BYTES_MAX);
            self.pieces.push_back(Piece {
                block: open.id,
                memory: Rc::clone(&open.memory),
                range: open.cut..piece_end,
                end: open.start + piece_end as u64,
                is_last: closes && piece_end == end,
            });
            open.cut = piece_end;
            self.cut = open.start + piece_end as u64;
            self.has_news = true;
        }
        if open.cut >= open.memory.filled() {
            open.waiting_since = None;
        }
    }

    /// The next piece to hand to the ring, in order, while there is room for it.
    pub fn next_piece(&mut self) -> Option<Piece> {
        if self.flying.len() >= PIECES_IN_FLIGHT_MAX {
            return None;
        }
        let piece = self.pieces.pop_front()?;
        let last_of = piece.is_last.then_some(piece.block);
        self.flying.push_back(Flying { end: piece.end, last_of, arrived: false });
        Some(piece)
    }

    /// A piece has arrived on the device.
    pub fn arrived(&mut self, end: u64) {
        for flying in &mut self.flying {
            flying.arrived |= flying.end == end;
        }
        while let Some(flying) = self.flying.pop_front_if(|flying| flying.arrived) {
            self.written = flying.end;
            self.filled.extend(flying.last_of);
        }
        while self.under_way.pop_front_if(|(end, _)| *end <= self.written).is_some() {}
    }

    /// The next block of which everything has arrived.
    pub fn next_filled(&mut self) -> Option<BlockId> {
        self.filled.pop_front()
    }

    /// Everything up to `position` would survive a power failure.
    pub fn made_durable(&mut self, position: u64) {
        self.durable = self.durable.max(position);
        while self.at_risk.pop_front_if(|(end, _)| *end <= position).is_some() {}
    }

    /// Whether a record was appended a whole loss window ago and would still be lost.
    pub fn is_overdue(&self, now: Tick) -> bool {
        let waiting = || self.open.as_ref().and_then(|open| open.waiting_since);
        let oldest = self.at_risk.front().map(|(_, since)| *since).or_else(waiting);
        let window_ms = self.limits.loss_window_ms;
        window_ms > 0 && oldest.is_some_and(|since| since.plus_ms(window_ms) < now)
    }

    /// Whether nothing is waiting for the ring or on its way.
    pub fn is_quiet(&self) -> bool {
        self.pieces.is_empty() && self.flying.is_empty()
    }
}

impl Open {
    fn has_room(&self, extent: usize) -> bool {
        self.memory.room() >= extent + BLOCK_TRAILER_BYTES
    }

    /// Fills up to the next 4 KiB with zeros and tells where that is.
    fn pad(&mut self) -> usize {
        let filled = self.memory.filled();
        let end = filled.next_multiple_of(WRITE_ALIGN);
        self.memory.append(end - filled, |out| out.fill(0));
        end
    }
}
