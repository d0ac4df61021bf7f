//! Walks for recovery: which records have changed since a time?
//!
//! **By block**, when little was missed, or what was missed is no longer in memory: every block
//! knows the range of its LUTs, so only blocks that can hold something are read, whole, those with
//! the lowest highest LUT first. What a block gives is what the index says lies there now. After
//! each block it is known below which LUT nothing is left to come. The blocks being filled take
//! part, last.
//!
//! A block of the walk may be reclaimed before its turn. What was alive in it has been rewritten,
//! which its own submission covers, or moved: then the block it went to is put on the list of every
//! open walk ([`Walks::moved`]). Such a record may be given twice.
//!
//! **By index**, partition by partition, when most of what there is was missed and is in memory: no
//! order of blocks is worth anything then.
//!
//! Both in steps of bounded work.

use std::collections::{HashSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::block::{BLOCK_HEADER_BYTES, BLOCK_TRAILER_BYTES, BlockHeader, Records};
use super::defrag::Content;
use super::index::{BlockId, IndexEntry, Location, WalkCursor};
use super::space::{Space, kind_of};
use super::store::Store;
use crate::host::{WalkId, WalkStep, Walked};
use crate::model::{Lut, NamespaceId, PARTITION_COUNT, PartitionId, RecordFlags, Version};
use crate::rt::arena::Buffer;
use crate::rt::disk_ring::DiskOp;

/// Buckets looked into in one step: some tens of microseconds of cache misses.
const STEP_BUCKETS: usize = 512;
/// Records of a block looked at in one step.
const STEP_RECORDS: usize = 512;

/// The open walks of a store.
#[derive(Default)]
pub(super) struct Walks {
    open: Vec<Option<Walk>>,
}

struct Walk {
    namespace: NamespaceId,
    way: Way,
}

enum Way {
    Index(ByIndex),
    Blocks(Box<ByBlock>),
}

struct ByIndex {
    lanes: Vec<(PartitionId, Lut)>,
    /// The lane being walked, and where in it.
    lane: usize,
    cursor: Option<WalkCursor>,
}

struct ByBlock {
    /// The lowest LUT wanted of each partition; above every LUT where none is.
    wanted: Box<[Lut]>,
    /// Still to be read, in order.
    list: VecDeque<Listed>,
    /// The same and the one being looked at.
    to_come: HashSet<BlockId>,
    now: Now,
}

/// A block on a walk's list.
#[derive(Clone, Copy, Debug)]
struct Listed {
    id: BlockId,
    /// The filling that was meant; `None` for another shard's block, which does not change.
    sequence: Option<Version>,
    /// Nothing in this block or in those behind it lies below. [`Lut::MAX`] for blocks that may
    /// still be getting records: of those the log knows the lowest LUT.
    rest_lowest: Lut,
}

/// What a walk by block is at.
enum Now {
    Next,
    Reading(Listed, DiskOp<Buffer>),
    /// The content, and where in it to go on.
    Looking(Listed, Content, usize),
}

impl Walks {
    pub(super) fn close(&mut self, id: WalkId) {
        if let Some(walk) = self.open.get_mut(id.0 as usize) {
            *walk = None;
        }
    }

    fn enter(&mut self, walk: Walk) -> WalkId {
        let vacant = self.open.iter().position(Option::is_none);
        let id = vacant.unwrap_or_else(|| {
            self.open.push(None);
            self.open.len() - 1
        });
        self.open[id] = Some(walk);
        WalkId(id as u32)
    }

    /// Defragmentation has moved records from one block to another, whose filling is `sequence`.
    pub(super) fn moved(
        &mut self,
        namespace: NamespaceId,
        from: BlockId,
        to: BlockId,
        sequence: Version,
    ) {
        for walk in self.open.iter_mut().flatten().filter(|walk| walk.namespace == namespace) {
            if let Way::Blocks(walk) = &mut walk.way
                && walk.to_come.contains(&from)
                && walk.to_come.insert(to)
            {
                let (sequence, rest_lowest) = (Some(sequence), Lut::MAX);
                walk.list.push_back(Listed { id: to, sequence, rest_lowest });
            }
        }
    }
}

impl Store {
    pub(super) fn open_walk(
        &mut self,
        namespace: NamespaceId,
        lanes: &[(PartitionId, Lut)],
    ) -> WalkId {
        let space = &self.spaces[namespace.index()];
        let way = match ByBlock::open(space, lanes) {
            Some(walk) => Way::Blocks(Box::new(walk)),
            None => Way::Index(ByIndex { lanes: lanes.to_vec(), lane: 0, cursor: None }),
        };
        self.walks.enter(Walk { namespace, way })
    }

    pub(super) fn step_walk(
        &mut self,
        id: WalkId,
        cx: &mut Context<'_>,
        out: &mut Vec<Walked>,
    ) -> Poll<WalkStep> {
        let slot = self.walks.open.get_mut(id.0 as usize);
        let Some(mut walk) = slot.and_then(Option::take) else {
            return Poll::Ready(WalkStep::Done);
        };
        let space = &self.spaces[walk.namespace.index()];
        let step = match &mut walk.way {
            Way::Index(walk) => Poll::Ready(walk.step(space, out)),
            Way::Blocks(walk) => walk.step(self, space, cx, out),
        };
        self.walks.open[id.0 as usize] = Some(walk);
        step
    }
}

impl ByIndex {
    fn step(&mut self, space: &Space, out: &mut Vec<Walked>) -> WalkStep {
        let Some(&(partition, from)) = self.lanes.get(self.lane) else { return WalkStep::Done };
        let index = &space.index;
        let cursor = self.cursor.unwrap_or_else(|| index.start());
        self.cursor = index.walk(partition, cursor, STEP_BUCKETS, &mut |entry| {
            if entry.version.lut() >= from {
                out.push(walked(entry));
            }
        });
        if self.cursor.is_none() {
            self.lane += 1;
        }
        match self.lane < self.lanes.len() {
            true => WalkStep::More { complete_below: Lut::ZERO },
            false => WalkStep::Done,
        }
    }
}

impl ByBlock {
    /// A walk over the blocks that can hold something wanted; `None` when those are most of them and
    /// in memory.
    fn open(space: &Space, lanes: &[(PartitionId, Lut)]) -> Option<Self> {
        let from = lanes.iter().map(|(_, from)| *from).min()?;
        let mut blocks = space.log.changed_since(from);
        let is_here = |id| space.log.block(id).is_some_and(|block| block.memory.is_some());
        let here = blocks.iter().filter(|block| is_here(block.id)).count();
        if blocks.len() * 2 > space.log.used_count() && here * 2 >= blocks.len() {
            return None;
        }
        blocks.sort_unstable_by_key(|block| (block.is_open, block.luts.highest));
        let mut rest_lowest = Lut::MAX;
        let mut list: VecDeque<Listed> = VecDeque::with_capacity(blocks.len());
        for block in blocks.iter().rev() {
            if !block.is_open {
                rest_lowest = rest_lowest.min(block.luts.lowest);
            }
            list.push_front(Listed { id: block.id, sequence: block.sequence, rest_lowest });
        }
        let mut wanted = vec![Lut::MAX; PARTITION_COUNT].into_boxed_slice();
        lanes.iter().for_each(|(partition, from)| wanted[partition.index()] = *from);
        let to_come = list.iter().map(|listed| listed.id).collect();
        Some(Self { wanted, list, to_come, now: Now::Next })
    }

    fn step(
        &mut self,
        store: &Store,
        space: &Space,
        cx: &mut Context<'_>,
        out: &mut Vec<Walked>,
    ) -> Poll<WalkStep> {
        self.now = match std::mem::replace(&mut self.now, Now::Next) {
            Now::Next => match self.next(store, space) {
                Some(now) => now,
                None if self.list.is_empty() => return Poll::Ready(WalkStep::Done),
                None => Now::Next,
            },
            Now::Reading(listed, mut read) => match Pin::new(&mut read).poll(cx) {
                Poll::Pending => {
                    self.now = Now::Reading(listed, read);
                    return Poll::Pending;
                }
                Poll::Ready((buffer, Ok(_))) => {
                    Now::Looking(listed, Content::Read(buffer), BLOCK_HEADER_BYTES)
                }
                // The records' own reads will fail, too, and say so: nothing is skipped silently.
                Poll::Ready((_, Err(error))) => {
                    tracing::error!("block {} cannot be read for a recovery: {error}", listed.id.0);
                    self.give_all_of(space, listed.id, out);
                    self.to_come.remove(&listed.id);
                    Now::Next
                }
            },
            Now::Looking(listed, content, at) => {
                match self.look(space, listed, content.bytes(), at, out) {
                    Some(at) => Now::Looking(listed, content, at),
                    None => {
                        self.to_come.remove(&listed.id);
                        Now::Next
                    }
                }
            }
        };
        Poll::Ready(WalkStep::More { complete_below: self.complete_below(space) })
    }

    /// Begins the next block of the list that is still what was meant; `None` when there is none,
    /// or no memory to read it into.
    fn next(&mut self, store: &Store, space: &Space) -> Option<Now> {
        while let Some(&listed) = self.list.front() {
            let block = space.log.block(listed.id);
            let is_meant = block.is_none_or(|block| Some(block.sequence) == listed.sequence);
            if !is_meant {
                self.list.pop_front();
                self.to_come.remove(&listed.id);
                continue;
            }
            if let Some(memory) = block.and_then(|block| block.memory.clone()) {
                self.list.pop_front();
                return Some(Now::Looking(listed, Content::Cached(memory), BLOCK_HEADER_BYTES));
            }
            let block_bytes = space.log.geometry().block_bytes as usize;
            let buffer = store.arena.take(block_bytes)?;
            self.list.pop_front();
            let (device, offset) = space.log.geometry().offset(listed.id);
            let read = store.ring.read(space.files[device], offset, buffer, block_bytes);
            return Some(Now::Reading(listed, read));
        }
        None
    }

    /// Looks at some of a block's records from `at` on; gives where to go on.
    fn look(
        &self,
        space: &Space,
        listed: Listed,
        block: &[u8],
        at: usize,
        out: &mut Vec<Walked>,
    ) -> Option<usize> {
        let header = BlockHeader::decode(block)?;
        if listed.sequence.is_some_and(|sequence| sequence != header.sequence) {
            return None;
        }
        // A block still being filled ends where it is filled to.
        let whole = space.log.geometry().block_bytes as usize - BLOCK_TRAILER_BYTES;
        let mut records = Records::new(block, at..block.len().min(whole), header.seal());
        for _ in 0..STEP_RECORDS {
            let (offset, flat) = records.next()?;
            let record = &flat.record;
            if record.version.lut() < self.wanted[record.digest.partition().index()] {
                continue;
            }
            let extent = flat.extent as u32;
            let here = Location { block: listed.id, offset, extent };
            if let Some(entry) = space.index.get(&record.digest)
                && entry.location == here
            {
                out.push(walked(&entry));
            }
        }
        Some(records.position())
    }

    /// Gives what the index has in a block that cannot be read.
    fn give_all_of(&self, space: &Space, id: BlockId, out: &mut Vec<Walked>) {
        for (partition, from) in self.wanted.iter().enumerate() {
            if *from == Lut::MAX {
                continue;
            }
            let partition = PartitionId::new(partition as u16);
            let start = space.index.start();
            space.index.walk(partition, start, usize::MAX, &mut |entry| {
                if entry.location.block == id && entry.version.lut() >= *from {
                    out.push(walked(entry));
                }
            });
        }
    }

    /// Nothing below is still to come.
    fn complete_below(&self, space: &Space) -> Lut {
        let current = match &self.now {
            Now::Next => None,
            Now::Reading(listed, _) | Now::Looking(listed, ..) => Some(listed),
        };
        let lowest = |listed: &Listed| match listed.rest_lowest {
            Lut::MAX => space.log.block(listed.id).map_or(Lut::ZERO, |block| block.luts.lowest),
            known => known,
        };
        // Of the blocks whose range is known the first one speaks for all.
        let is_known = |listed: &&Listed| listed.rest_lowest != Lut::MAX;
        let known = self.list.iter().next().filter(is_known);
        let others = self.list.iter().rev().take_while(|listed| !is_known(listed));
        let to_come = current.into_iter().chain(known).chain(others);
        to_come.map(lowest).min().unwrap_or(Lut::MAX)
    }
}

fn walked(entry: &IndexEntry) -> Walked {
    Walked {
        digest: entry.digest,
        version: entry.version,
        local_lut: entry.local_lut,
        set: entry.set,
        kind: kind_of(entry.flags),
        shipped: entry.flags.has(RecordFlags::SHIPPED),
        src_id: entry.src_id,
    }
}
