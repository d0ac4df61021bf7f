//! The memory a shard does its I/O in: one mapping, mapped once, bound to the shard's NUMA node and
//! carved into buffers.
//!
//! A record is read into a buffer from here, a log block is filled in one, a batch is encoded into
//! one; the disk ring registers the whole mapping with the kernel, so that no operation has to pin
//! pages. Taking and returning a buffer touches no memory but a few words of bookkeeping. An arena
//! never grows: `take` answers `None` when it is used up, and callers wait, shed or fail with their
//! own name for it.
//!
//! # Safety argument
//!
//! - The mapping lives in [`Inner`], is never moved or remapped, and is unmapped only when the last
//!   `Rc<Inner>` goes. Every [`Buffer`] holds one, so its bytes outlive it.
//! - [`Carver`] gives out ranges that are disjoint until given back (proptest
//!   `spans_never_overlap`), so a `Buffer` is the only owner of its bytes and may lend `&mut`.
//! - The mapping is anonymous: zeroed by the kernel, so every byte is initialised from the start.
//! - All of it is `!Send` through `Rc`; the bookkeeping needs no atomics.
#![expect(unsafe_code, reason = "maps anonymous memory and lends slices of it")]

use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::io;
use std::ops::{Deref, DerefMut, Range};
use std::ptr::{self, NonNull};
use std::rc::Rc;
use std::sync::Once;

use crate::remedy::remedy;

/// Alignment of every buffer, and the smallest one there is.
pub const PAGE_BYTES: usize = 4096;

/// The largest buffer there is, and so the largest write block.
pub const BUFFER_BYTES_MAX: usize = 8 << 20;

/// Small classes share a chunk; larger buffers take a run of whole ones.
const CHUNK_BYTES: usize = 1 << 20;
/// 4 KiB, 8 KiB, .. 512 KiB.
const SMALL_CLASSES: usize = 8;
const HUGE_PAGE_BYTES: usize = 2 << 20;
/// The kernel refuses to register more than this as one buffer.
pub(crate) const REGISTERED_BYTES_MAX: usize = 1 << 30;

/// What the pages of an arena are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backing {
    /// Reserved huge pages (`vm.nr_hugepages`).
    HugePages,
    /// Transparent huge pages, asked for by madvise.
    TransparentHugePages,
    /// Ordinary 4 KiB pages: large transfers cost up to twice as much.
    SmallPages,
}

/// Why there is no arena.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArenaError {
    /// The system has not this much memory to give.
    #[error("cannot map {bytes} bytes of buffer memory: {source}{}", remedy(source))]
    Map {
        /// What was asked for, rounded up.
        bytes: usize,
        /// The system's answer.
        source: io::Error,
    },
}

/// What an arena holds at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArenaUse {
    /// Size of the arena.
    pub total_bytes: usize,
    /// In buffers now taken.
    pub taken_bytes: usize,
    /// Of these, what nobody asked for: the rounding up to size classes.
    pub rounding_bytes: usize,
    /// Free, but in chunks already cut up for a size class in use: no good for other sizes.
    pub stranded_bytes: usize,
}

/// A shard's buffer memory. Clones share it; `!Send`.
#[derive(Clone)]
pub struct Arena(Rc<Inner>);

struct Inner {
    region: Region,
    carver: RefCell<Carver>,
}

impl Arena {
    /// Maps at least `bytes` (rounded up to 2 MiB) on huge pages if any are reserved, else on
    /// transparent huge pages, else on plain ones, preferring memory of `memory_node`.
    ///
    /// Costs one mapping; pages are filled in by the kernel when first touched, or all at once when
    /// the disk ring registers the arena.
    ///
    /// # Errors
    ///
    /// [`ArenaError::Map`] when the system refuses the mapping.
    pub fn new(bytes: usize, memory_node: Option<u32>) -> Result<Self, ArenaError> {
        let region = Region::map(bytes.max(1).next_multiple_of(HUGE_PAGE_BYTES))?;
        if let Some(node) = memory_node {
            region.prefer_node(node);
        }
        let carver = RefCell::new(Carver::new(region.bytes));
        Ok(Self(Rc::new(Inner { region, carver })))
    }

    /// Takes a buffer of the smallest size class that holds `len` bytes: a power of two from 4 KiB
    /// to 8 MiB, all of it the caller's. `None` when there is none left, or `len` is over
    /// [`BUFFER_BYTES_MAX`]. The content is whatever the last user left.
    pub fn take(&self, len: usize) -> Option<Buffer> {
        let span = self.0.carver.borrow_mut().take(len)?;
        // SAFETY: the carver gives out offsets below `region.bytes` only, so the sum stays within
        // the mapping and cannot be null.
        let start = unsafe { self.0.region.start.add(span.start) };
        Some(Buffer {
            start,
            bytes: span.len() as u32,
            asked: len as u32,
            inner: Rc::clone(&self.0),
        })
    }

    /// What the pages are.
    pub fn backing(&self) -> Backing {
        self.0.region.backing
    }

    /// How full it is. Walks the bookkeeping of every chunk: for statistics, not for hot paths.
    pub fn usage(&self) -> ArenaUse {
        self.0.carver.borrow().usage()
    }

    /// The mapping in pieces the kernel will register, in order: piece `i` starts at byte
    /// `i * REGISTERED_BYTES_MAX`.
    pub(crate) fn registration(&self) -> Vec<libc::iovec> {
        let Region { start, bytes, .. } = self.0.region;
        (0..bytes)
            .step_by(REGISTERED_BYTES_MAX)
            .map(|at| libc::iovec {
                iov_base: start.as_ptr().wrapping_add(at).cast(),
                iov_len: REGISTERED_BYTES_MAX.min(bytes - at),
            })
            .collect()
    }

    /// Whether `buffer` was taken from this arena.
    pub(crate) fn owns(&self, buffer: &Buffer) -> bool {
        Rc::ptr_eq(&self.0, &buffer.inner)
    }
}

impl std::fmt::Debug for Arena {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Arena").field("backing", &self.backing()).finish_non_exhaustive()
    }
}

/// A block of the arena: 4 KiB aligned, at a fixed address, owned, given back on drop. `!Send`.
///
/// Its length is the whole size class, at least what was asked for.
pub struct Buffer {
    start: NonNull<u8>,
    bytes: u32,
    asked: u32,
    inner: Rc<Inner>,
}

impl Buffer {
    /// Which registered piece of the arena it lies in (see [`Arena::registration`]). A buffer never
    /// straddles two: its size is a power of two, and it starts at a multiple of it.
    pub(crate) fn registered_index(&self) -> u16 {
        (self.offset() / REGISTERED_BYTES_MAX) as u16
    }

    /// Where it starts, for the kernel.
    pub(crate) fn address(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    fn offset(&self) -> usize {
        self.start.as_ptr() as usize - self.inner.region.start.as_ptr() as usize
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `start..start + bytes` lies in the mapping, which `inner` keeps mapped, holds
        // initialised bytes, and belongs to this Buffer alone while it lives; nobody writes it
        // while `&self` is borrowed, since writing takes `&mut self` or (kernel) ownership.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.bytes as usize) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` makes this the only borrow.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.bytes as usize) }
    }
}

impl AsMut<[u8]> for Buffer {
    fn as_mut(&mut self) -> &mut [u8] {
        self
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let start = self.offset();
        let span = start..start + self.bytes as usize;
        self.inner.carver.borrow_mut().give_back(span, self.asked as usize);
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Buffer").field("offset", &self.offset()).field("len", &self.len()).finish()
    }
}

/// A buffer that is filled from front to back while others read, or the kernel writes out, what is
/// there already. What was appended never changes. Shared by `Rc`; `!Send`.
#[derive(Debug)]
pub struct AppendBuffer {
    buffer: Buffer,
    filled: Cell<usize>,
    filling: Cell<bool>,
}

impl AppendBuffer {
    /// Starts with nothing filled.
    pub fn new(buffer: Buffer) -> Rc<Self> {
        Rc::new(Self { buffer, filled: Cell::new(0), filling: Cell::new(false) })
    }

    /// How many bytes are filled.
    pub fn filled(&self) -> usize {
        self.filled.get()
    }

    /// How many more fit.
    pub fn room(&self) -> usize {
        self.buffer.len() - self.filled.get()
    }

    /// Lets `fill` write the next `len` bytes and then publishes them; gives back where they are.
    /// `None`, with `fill` not called, when they do not fit. The bytes `fill` finds are whatever
    /// was there before.
    ///
    /// # Panics
    ///
    /// When `fill` appends to the same buffer.
    pub fn append(&self, len: usize, fill: impl FnOnce(&mut [u8])) -> Option<Range<usize>> {
        if len > self.room() {
            return None;
        }
        assert!(!self.filling.replace(true), "append called from within append");
        let start = self.filled.get();
        // SAFETY: `start + len` is within the buffer (checked above), so the pointer stays inside.
        let next = unsafe { self.buffer.start.add(start) };
        // SAFETY: the bytes are mapped and initialised (see `Buffer::deref`). `as_slice` and the
        // kernel see only `0..filled`, which ends where this begins; a second `&mut` would need a
        // nested append, which the flag forbids; nothing else hands out this buffer's memory.
        fill(unsafe { std::slice::from_raw_parts_mut(next.as_ptr(), len) });
        self.filled.set(start + len);
        self.filling.set(false);
        Some(start..start + len)
    }

    /// What is filled.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: `0..filled` lies in the buffer, is initialised, and is never written again:
        // `append` writes only from `filled` on, and `filled` never goes back.
        unsafe { std::slice::from_raw_parts(self.buffer.start.as_ptr(), self.filled.get()) }
    }

    /// The memory, for the kernel, which only reads it.
    pub(crate) fn buffer(&self) -> &Buffer {
        &self.buffer
    }
}

/// An anonymous mapping.
struct Region {
    start: NonNull<u8>,
    bytes: usize,
    backing: Backing,
}

/// What Miri has instead of a mapping: it knows neither huge pages nor cutting the ends off one.
#[cfg(miri)]
fn miri_layout(bytes: usize) -> std::alloc::Layout {
    std::alloc::Layout::from_size_align(bytes, HUGE_PAGE_BYTES).expect("tests ask for little")
}

impl Region {
    #[cfg(miri)]
    fn map(bytes: usize) -> Result<Self, ArenaError> {
        // SAFETY: arenas have at least one chunk, so the layout is not of size zero.
        let start = NonNull::new(unsafe { std::alloc::alloc_zeroed(miri_layout(bytes)) });
        let start = start.expect("Miri has memory for tests");
        Ok(Self { start, bytes, backing: Backing::SmallPages })
    }

    #[cfg(not(miri))]
    fn map(bytes: usize) -> Result<Self, ArenaError> {
        if let Ok(start) = map_anonymous(bytes, libc::MAP_HUGETLB) {
            return Ok(Self { start, bytes, backing: Backing::HugePages });
        }
        let failed = |source| ArenaError::Map { bytes, source };
        let start = map_aligned(bytes).map_err(failed)?;
        // SAFETY: the range was just mapped by us with exactly this length; MADV_HUGEPAGE changes
        // no content.
        let advised = unsafe { libc::madvise(start.as_ptr().cast(), bytes, libc::MADV_HUGEPAGE) };
        let backing = match advised {
            0 if transparent_huge_pages_allowed() => Backing::TransparentHugePages,
            _ => Backing::SmallPages,
        };
        Ok(Self { start, bytes, backing })
    }

    /// Asks for memory of `node`. Preferred rather than bound: a node that runs out gives slower
    /// memory, where binding would kill the process.
    fn prefer_node(&self, node: u32) {
        const MASK_WORDS: usize = 16;
        let mut mask = [0u64; MASK_WORDS];
        let Some(word) = mask.get_mut(node as usize / 64) else { return };
        *word = 1 << (node % 64);
        // SAFETY: mbind reads `maxnode - 1` = 1024 bits from `mask`, which has them, and changes
        // only the placement of pages of our own mapping.
        let refused = unsafe {
            libc::syscall(
                libc::SYS_mbind,
                self.start.as_ptr(),
                self.bytes,
                libc::MPOL_PREFERRED,
                mask.as_ptr(),
                MASK_WORDS * 64 + 1,
                0,
            )
        } != 0;
        static ONCE: Once = Once::new();
        if refused {
            let error = io::Error::last_os_error();
            ONCE.call_once(|| tracing::warn!("buffer memory is not bound to node {node}: {error}"));
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        #[cfg(miri)]
        // SAFETY: allocated by `map` with this layout, and given back once, as below.
        unsafe {
            std::alloc::dealloc(self.start.as_ptr(), miri_layout(self.bytes));
        }
        #[cfg(not(miri))]
        // SAFETY: the range was mapped by `map` with this length and is unmapped once, here; the
        // last `Rc<Inner>` is going, so no Buffer points into it.
        unsafe {
            libc::munmap(self.start.as_ptr().cast::<c_void>(), self.bytes)
        };
    }
}

#[cfg(not(miri))]
fn map_anonymous(bytes: usize, extra_flags: i32) -> io::Result<NonNull<u8>> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | extra_flags;
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a fresh anonymous mapping at an address of the kernel's choice touches no other
    // memory.
    let start = unsafe { libc::mmap(ptr::null_mut(), bytes, access, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(start.cast()).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))
}

/// Maps `bytes` at a multiple of the huge page size, by mapping more and cutting off both ends.
#[cfg(not(miri))]
fn map_aligned(bytes: usize) -> io::Result<NonNull<u8>> {
    let wide = map_anonymous(bytes + HUGE_PAGE_BYTES, 0)?;
    let before = wide.as_ptr().align_offset(HUGE_PAGE_BYTES);
    let after = HUGE_PAGE_BYTES - before;
    // SAFETY: `before` is below HUGE_PAGE_BYTES, so the sum stays in the mapping.
    let start = unsafe { wide.add(before) };
    // SAFETY: `before + bytes` is at most the length of the mapping.
    let end = unsafe { start.add(bytes) };
    for (cut, len) in [(wide, before), (end, after)] {
        if len > 0 {
            // SAFETY: both cuts lie inside the mapping just made and outside `start..end`; no
            // pointer into them exists.
            unsafe { libc::munmap(cut.as_ptr().cast(), len) };
        }
    }
    Ok(start)
}

#[cfg(not(miri))]
fn transparent_huge_pages_allowed() -> bool {
    std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled")
        .is_ok_and(|modes| !modes.contains("[never]"))
}

/// Cuts a range of bytes into buffers, knowing offsets only.
///
/// The range is divided into chunks of 1 MiB. A chunk is free, part of a run (buffers of 1 MiB and
/// more), or cut up for one small class. Small classes take the lowest free chunk and runs the
/// highest, so that they stay apart. A cut-up chunk whose buffers all came back stays with its
/// class, ready for the next, until somebody finds no free chunk: then all such are reclaimed.
struct Carver {
    chunks: Vec<Chunk>,
    /// One bit per chunk, set when free.
    free: Vec<u64>,
    /// Per small class, its chunks that have room, last one used first.
    roomy: [Vec<u32>; SMALL_CLASSES],
    /// How many cut-up chunks have no buffer taken.
    idle: usize,
    taken_bytes: usize,
    asked_bytes: usize,
}

#[derive(Clone, Copy)]
struct Chunk {
    part: Part,
    taken: u16,
    /// One bit per block, set when taken. A 4 KiB class has 256 blocks.
    blocks: [u64; 4],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Free,
    Run,
    Small(u8),
}

const EMPTY: Chunk = Chunk { part: Part::Free, taken: 0, blocks: [0; 4] };

fn block_bytes(class: usize) -> usize {
    PAGE_BYTES << class
}

fn blocks_per_chunk(class: usize) -> usize {
    CHUNK_BYTES >> (PAGE_BYTES.trailing_zeros() as usize + class)
}

fn class_of(size: usize) -> usize {
    (size / PAGE_BYTES).trailing_zeros() as usize
}

impl Carver {
    fn new(bytes: usize) -> Self {
        let count = bytes / CHUNK_BYTES;
        let mut free = vec![0u64; count.div_ceil(64)];
        (0..count).for_each(|chunk| free[chunk / 64] |= 1 << (chunk % 64));
        Self {
            chunks: vec![EMPTY; count],
            free,
            roomy: std::array::from_fn(|_| Vec::with_capacity(count)),
            idle: 0,
            taken_bytes: 0,
            asked_bytes: 0,
        }
    }

    fn take(&mut self, len: usize) -> Option<Range<usize>> {
        if len > BUFFER_BYTES_MAX {
            return None;
        }
        let size = len.next_power_of_two().max(PAGE_BYTES);
        let start = if size < CHUNK_BYTES {
            self.take_block(class_of(size))?
        } else {
            self.take_run(size / CHUNK_BYTES)?
        };
        self.taken_bytes += size;
        self.asked_bytes += len;
        Some(start..start + size)
    }

    fn take_block(&mut self, class: usize) -> Option<usize> {
        if self.roomy[class].is_empty() {
            let index = self.find_free(1, Side::Low)?;
            self.mark(index..index + 1, Part::Small(class as u8));
            self.roomy[class].push(index as u32);
            self.idle += 1;
        }
        let index = *self.roomy[class].last()? as usize;
        let chunk = &mut self.chunks[index];
        let word = chunk.blocks.iter().position(|word| *word != u64::MAX)?;
        let block = word * 64 + chunk.blocks[word].trailing_ones() as usize;
        debug_assert!(block < blocks_per_chunk(class), "a chunk in `roomy` has room");
        chunk.blocks[word] |= 1 << (block % 64);
        self.idle -= usize::from(chunk.taken == 0);
        chunk.taken += 1;
        if usize::from(chunk.taken) == blocks_per_chunk(class) {
            self.roomy[class].pop();
        }
        Some(index * CHUNK_BYTES + block * block_bytes(class))
    }

    fn take_run(&mut self, count: usize) -> Option<usize> {
        let index = self.find_free(count, Side::High)?;
        self.mark(index..index + count, Part::Run);
        Some(index * CHUNK_BYTES)
    }

    fn give_back(&mut self, span: Range<usize>, asked: usize) {
        self.taken_bytes -= span.len();
        self.asked_bytes -= asked;
        let index = span.start / CHUNK_BYTES;
        let Part::Small(class) = self.chunks[index].part else {
            debug_assert_eq!(self.chunks[index].part, Part::Run);
            return self.mark(index..index + span.len() / CHUNK_BYTES, Part::Free);
        };
        let class = usize::from(class);
        let block = span.start % CHUNK_BYTES / block_bytes(class);
        let chunk = &mut self.chunks[index];
        debug_assert!(chunk.blocks[block / 64] & 1 << (block % 64) != 0, "given back twice");
        if usize::from(chunk.taken) == blocks_per_chunk(class) {
            self.roomy[class].push(index as u32);
        }
        chunk.blocks[block / 64] &= !(1 << (block % 64));
        chunk.taken -= 1;
        self.idle += usize::from(chunk.taken == 0);
    }

    /// The first of `count` (1, 2, 4 or 8) free chunks, aligned to `count`.
    fn find_free(&mut self, count: usize, side: Side) -> Option<usize> {
        let found = self.scan_free(count, side);
        if found.is_some() || self.idle == 0 {
            return found;
        }
        self.reclaim_idle();
        self.scan_free(count, side)
    }

    fn scan_free(&self, count: usize, side: Side) -> Option<usize> {
        let fits = |group: &usize| {
            let first = group * count;
            let mask = ((1u64 << count) - 1) << (first % 64);
            self.free[first / 64] & mask == mask
        };
        let groups = 0..self.chunks.len() / count;
        let group = match side {
            Side::Low => groups.into_iter().find(fits),
            Side::High => groups.rev().find(fits),
        };
        group.map(|group| group * count)
    }

    fn reclaim_idle(&mut self) {
        for class in 0..SMALL_CLASSES {
            let mut list = std::mem::take(&mut self.roomy[class]);
            list.retain(|&index| {
                let index = index as usize;
                let keep = self.chunks[index].taken > 0;
                if !keep {
                    self.mark(index..index + 1, Part::Free);
                }
                keep
            });
            self.roomy[class] = list;
        }
        self.idle = 0;
    }

    fn mark(&mut self, chunks: Range<usize>, part: Part) {
        for index in chunks {
            let bit = 1 << (index % 64);
            match part {
                Part::Free => self.free[index / 64] |= bit,
                Part::Run | Part::Small(_) => self.free[index / 64] &= !bit,
            }
            self.chunks[index] = Chunk { part, ..EMPTY };
            if let Part::Small(class) = part {
                // Blocks a chunk of this class does not have count as taken.
                let count = blocks_per_chunk(class.into());
                for (word, blocks) in self.chunks[index].blocks.iter_mut().enumerate() {
                    let real = count.saturating_sub(word * 64).min(64);
                    *blocks = if real == 64 { 0 } else { u64::MAX << real };
                }
            }
        }
    }

    fn usage(&self) -> ArenaUse {
        let stranded = self.chunks.iter().map(|chunk| match chunk.part {
            Part::Small(class) if chunk.taken > 0 => {
                CHUNK_BYTES - usize::from(chunk.taken) * block_bytes(class.into())
            }
            _ => 0,
        });
        ArenaUse {
            total_bytes: self.chunks.len() * CHUNK_BYTES,
            taken_bytes: self.taken_bytes,
            rounding_bytes: self.taken_bytes - self.asked_bytes,
            stranded_bytes: stranded.sum(),
        }
    }
}

#[derive(Clone, Copy)]
enum Side {
    Low,
    High,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn a_buffer_is_aligned_and_as_large_as_its_class() {
        let arena = Arena::new(32 * MIB, None).unwrap();
        for (asked, given) in [
            (0, 4096),
            (1, 4096),
            (4096, 4096),
            (4097, 8192),
            (600_000, MIB),
            (MIB, MIB),
            (MIB + 1, 2 * MIB),
            (8 * MIB, 8 * MIB),
        ] {
            let mut buffer = arena.take(asked).unwrap();
            assert_eq!(buffer.len(), given, "asked for {asked}");
            assert_eq!(buffer.address() as usize % PAGE_BYTES, 0);
            buffer.fill(7);
            assert_eq!(arena.usage().rounding_bytes, given - asked);
        }
        assert!(arena.take(8 * MIB + 1).is_none());
        assert_eq!(arena.usage().taken_bytes, 0);
    }

    #[test]
    fn an_arena_ends_and_begins_again_when_buffers_come_back() {
        let arena = Arena::new(2 * MIB, None).unwrap();
        let mut all: Vec<_> = std::iter::from_fn(|| arena.take(4096)).collect();
        assert_eq!(all.len(), 512);
        assert!(arena.take(1).is_none());
        all.pop();
        assert!(arena.take(1).is_some());
    }

    #[test]
    fn memory_cut_for_one_size_serves_another_once_it_came_back() {
        let arena = Arena::new(8 * MIB, None).unwrap();
        let small: Vec<_> = std::iter::from_fn(|| arena.take(16 << 10)).collect();
        assert!(arena.take(8 * MIB).is_none());
        drop(small);
        let whole = arena.take(8 * MIB).unwrap();
        assert!(arena.take(1).is_none());
        drop(whole);
        assert!(arena.take(4096).is_some());
    }

    #[test]
    fn a_buffer_keeps_its_memory_mapped_after_the_arena_is_gone() {
        let mut buffer = Arena::new(2 * MIB, None).unwrap().take(9000).unwrap();
        buffer.fill(3);
        assert!(buffer.iter().all(|byte| *byte == 3));
    }

    #[test]
    fn appending_publishes_in_order_and_leaves_earlier_bytes_readable() {
        let arena = Arena::new(2 * MIB, None).unwrap();
        let block = AppendBuffer::new(arena.take(4096).unwrap());
        assert_eq!(block.append(3, |bytes| bytes.copy_from_slice(b"abc")), Some(0..3));
        let early = block.as_slice();
        assert_eq!(block.append(2, |bytes| bytes.copy_from_slice(b"de")), Some(3..5));
        assert_eq!((early, block.as_slice()), (&b"abc"[..], &b"abcde"[..]));
        assert_eq!(block.append(4096, |_| unreachable!()), None);
        assert_eq!(block.room(), 4091);
    }

    #[test]
    fn registration_covers_the_arena_in_pieces_the_kernel_takes() {
        let arena = Arena::new((1 << 30) + 4 * MIB, None).unwrap();
        let lens: Vec<_> = arena.registration().iter().map(|piece| piece.iov_len).collect();
        assert_eq!(lens, [1 << 30, 4 * MIB]);
        let high = arena.take(4 * MIB).unwrap();
        assert_eq!(high.registered_index(), 1);
    }

    proptest! {
        #[test]
        fn spans_never_overlap(
            steps in prop::collection::vec((0usize..12, any::<prop::sample::Index>(), 0..3), 1..400)
        ) {
            let mut carver = Carver::new(24 * MIB);
            let mut held: Vec<(Range<usize>, usize)> = Vec::new();
            for (class, pick, kind) in steps {
                if kind == 0 && !held.is_empty() {
                    let (span, asked) = held.swap_remove(pick.index(held.len()));
                    carver.give_back(span, asked);
                } else if let Some(span) = carver.take((PAGE_BYTES << class) - class) {
                    prop_assert!(span.end <= 24 * MIB && span.start % span.len() == 0);
                    for (other, _) in &held {
                        prop_assert!(span.end <= other.start || other.end <= span.start);
                    }
                    held.push((span, (PAGE_BYTES << class) - class));
                }
                let taken: usize = held.iter().map(|(span, _)| span.len()).sum();
                prop_assert_eq!(carver.usage().taken_bytes, taken);
            }
            for (span, asked) in held.drain(..) {
                carver.give_back(span, asked);
            }
            for _ in 0..3 {
                prop_assert!(carver.take(8 * MIB).is_some(), "all of it can be had again");
            }
        }
    }
}
