//! Whole blocks read back from the device, for everybody who needs all that lies in one: cold start,
//! the raider, defragmentation and walks.
//!
//! What the device cannot read is found page by page: one bad page costs what lies on it and nothing
//! else. Such *holes* are zeros in the bytes handed out (a lost header is not: that would say that
//! the block was never written), and told beside them. Which filling of the
//! block the bytes belong to, and what of them is damaged, is judged in one place:
//! [`super::block::Filling`].

use std::io;
use std::ops::Range;
use std::rc::Rc;

use super::block::{WRITE_ALIGN, lose_header};
use longship_rt::arena::{AppendBuffer, Arena, Buffer};
use longship_rt::disk_ring::{DiskRing, FileId};
use longship_rt::shard::yield_now;

/// What a failed read of a block is repeated in first; pieces that fail again, in pages.
const CHUNK_BYTES: usize = 64 << 10;

/// Where a block is read from. Owns what it needs: no borrow of a store is held meanwhile.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) ring: DiskRing,
    pub(super) arena: Arena,
    pub(super) file: FileId,
    pub(super) offset: u64,
    pub(super) bytes: usize,
}

/// A block's bytes, wherever they came from.
pub(super) enum BlockContent {
    /// It is in memory: as far as it is filled, and whole.
    Cached(Rc<AppendBuffer>),
    /// As the device has it, but for the holes.
    Read(Buffer, Vec<Range<usize>>),
}

impl BlockContent {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Cached(memory) => memory.as_slice(),
            Self::Read(buffer, _) => buffer,
        }
    }

    /// What the device could not read, in order: whole pages.
    pub(super) fn holes(&self) -> &[Range<usize>] {
        match self {
            Self::Cached(_) => &[],
            Self::Read(_, holes) => holes,
        }
    }

    pub(super) fn is_cached(&self) -> bool {
        matches!(self, Self::Cached(_))
    }
}

/// Reads a block into `buffer`, which is large enough, page by page where the device fails.
pub(super) async fn read(source: Source, buffer: Buffer) -> BlockContent {
    let (buffer, result) = source.ring.read(source.file, source.offset, buffer, source.bytes).await;
    match result {
        Ok(_) => BlockContent::Read(buffer, Vec::new()),
        Err(error) => read_in_pages(source, buffer, &error).await,
    }
}

/// Reads a block again, of which a read has failed with `error`.
pub(super) async fn read_in_pages(
    source: Source,
    mut buffer: Buffer,
    error: &io::Error,
) -> BlockContent {
    let mut holes: Vec<Range<usize>> = Vec::new();
    let mut pages = take_patiently(&source.arena, CHUNK_BYTES.min(source.bytes)).await;
    for start in (0..source.bytes).step_by(CHUNK_BYTES) {
        let chunk = start..source.bytes.min(start + CHUNK_BYTES);
        let is_read;
        (pages, is_read) = read_part(&source, &mut buffer, pages, chunk.clone()).await;
        if is_read {
            continue;
        }
        for start in chunk.step_by(WRITE_ALIGN) {
            let page = start..start + WRITE_ALIGN;
            let is_read;
            (pages, is_read) = read_part(&source, &mut buffer, pages, page.clone()).await;
            if is_read {
                continue;
            }
            buffer[page.clone()].fill(0);
            if page.start == 0 {
                lose_header(&mut buffer);
            }
            match holes.last_mut() {
                Some(last) if last.end == page.start => last.end = page.end,
                _ => holes.push(page),
            }
        }
    }
    if let Some(first) = holes.first() {
        let unreadable: usize = holes.iter().map(Range::len).sum();
        let at = source.offset + first.start as u64;
        tracing::error!("device read at byte {at}: {unreadable} bytes cannot be read: {error}");
    }
    BlockContent::Read(buffer, holes)
}

async fn read_part(
    source: &Source,
    buffer: &mut Buffer,
    pages: Buffer,
    part: Range<usize>,
) -> (Buffer, bool) {
    let offset = source.offset + part.start as u64;
    let (pages, result) = source.ring.read(source.file, offset, pages, part.len()).await;
    if result.is_ok() {
        buffer[part.clone()].copy_from_slice(&pages[..part.len()]);
    }
    (pages, result.is_ok())
}

async fn take_patiently(arena: &Arena, bytes: usize) -> Buffer {
    loop {
        match arena.take(bytes) {
            Some(buffer) => return buffer,
            None => yield_now().await,
        }
    }
}
