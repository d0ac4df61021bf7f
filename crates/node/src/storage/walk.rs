//! Walks for recovery: which records have changed since a time?
//!
//! **By block**, when little was missed, or what was missed is no longer in memory: every block
//! knows the lowest and the highest LUT in it. So only blocks that can hold something are read.
//! Each is read whole, and blocks go in the order of their highest LUTs. What a block gives is what
//! the index says lies there now. After each block it is known below which LUT nothing is left to
//! come. The blocks being filled take part, last.
//!
//! A block of the walk may be reclaimed before its turn. Whatever leaves it before that is
//! followed: the block it went to is put on the list of every open walk that has not seen it yet
//! ([`Walks::departed`], which the one place where entries change calls). A record is not passed
//! over because it was rewritten meanwhile. The rewrite may be an expiry or a change that was
//! shipped in: such a change may not be shipped itself, and yet hides one that is owed. Such a
//! record may be given twice.
//!
//! The unreadable part of a block is not passed over either. A walk has seen a block when it has
//! seen every byte alive in it. If damage kept it from that in some blocks, it looks through the
//! index once, at its end, for the records that lie there. When those are read one by one, the
//! reads will fail, too, and say so.
//!
//! **By index**, partition by partition, when most of what there is was missed and is in memory: no
//! order of blocks is worth anything then.
//!
//! Both in steps of bounded work.

use std::collections::{HashMap, HashSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::block::{BLOCK_HEADER_BYTES, Filling};
use super::index::{BlockId, IndexEntry, Location, WalkCursor};
use super::log::Log;
use super::space::{Space, kind_of};
use super::whole::{self, BlockContent};
use longship::host::{Expected, WalkStep, Walked};
use longship::model::{Lut, PARTITION_COUNT, PartitionId, RecordFlags, Version};
use longship_rt::arena::Arena;
use longship_rt::disk_ring::DiskRing;

/// Buckets looked into in one step: some tens of microseconds of cache misses.
const STEP_BUCKETS: usize = 512;
/// Records of a block looked at in one step.
const STEP_RECORDS: usize = 512;

/// The open walks of a namespace.
#[derive(Default)]
pub(super) struct Walks {
    open: Vec<Option<Way>>,
    count: usize,
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
    /// Blocks that have been on the list.
    listed: usize,
    /// Blocks still to be read, the one being looked at and the blind ones, each with the filling
    /// that is meant.
    to_come: HashMap<BlockId, Option<Version>>,
    /// Blocks read, in which something alive was not to be seen.
    blind: HashSet<BlockId>,
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
    Reading(Listed, Pin<Box<dyn Future<Output = BlockContent>>>),
    Looking(Looking),
    /// Through the index, for what lies in blind blocks: the partition, and where in it.
    Searching(usize, Option<WalkCursor>),
}

/// A block being looked at.
struct Looking {
    listed: Listed,
    content: BlockContent,
    filling: Filling,
    /// Where in the content to go on.
    at: usize,
    /// Whole records so far, and damaged ones.
    found: u32,
    damaged: u32,
    /// The second time, because something was damaged: bytes alive before `at`. What is missing of
    /// the block's is alive and was not to be seen.
    counted: Option<u32>,
}

impl Looking {
    /// Whether something alive may not have been to be seen: some of it is damaged, or nothing says
    /// how many records there were.
    fn is_doubtful(&self) -> bool {
        let is_whole = self.content.holes().is_empty()
            && self.filling.trailer.is_some()
            && self.filling.is_whole(self.found, self.damaged);
        !self.content.is_cached() && !is_whole
    }
}

impl Walks {
    /// Whether any is open.
    #[inline]
    pub(super) fn any(&self) -> bool {
        self.count > 0
    }

    fn close(&mut self, number: usize) {
        if let Some(walk) = self.open.get_mut(number) {
            self.count -= usize::from(walk.take().is_some());
        }
    }

    fn enter(&mut self, walk: Way) -> usize {
        let vacant = self.open.iter().position(Option::is_none);
        let number = vacant.unwrap_or_else(|| {
            self.open.push(None);
            self.open.len() - 1
        });
        self.open[number] = Some(walk);
        self.count += 1;
        number
    }

    /// An entry of the index has left its block, for `to` or for good.
    pub(super) fn departed(&mut self, log: &Log, former: &IndexEntry, to: Option<Location>) {
        for walk in self.open.iter_mut().flatten() {
            // A walk by index goes by digest: wherever the record lies, it comes.
            if let Way::Blocks(walk) = walk {
                walk.departed(log, former, to);
            }
        }
    }
}

impl Space {
    /// Opens a walk, and gives its number.
    pub(super) fn open_walk(&mut self, lanes: &[(PartitionId, Lut)]) -> u32 {
        let way = match ByBlock::open(self, lanes) {
            Some(walk) => Way::Blocks(Box::new(walk)),
            None => Way::Index(ByIndex { lanes: lanes.to_vec(), lane: 0, cursor: None }),
        };
        self.walks.enter(way) as u32
    }

    pub(super) fn step_walk(
        &mut self,
        number: usize,
        device: (&DiskRing, &Arena),
        cx: &mut Context<'_>,
        out: &mut Vec<Walked>,
    ) -> Poll<WalkStep> {
        let slot = self.walks.open.get_mut(number);
        let Some(mut walk) = slot.and_then(Option::take) else {
            return Poll::Ready(WalkStep::Done);
        };
        let step = match &mut walk {
            Way::Index(walk) => Poll::Ready(walk.step(self, out)),
            Way::Blocks(walk) => walk.step(self, device, cx, out),
        };
        self.walks.open[number] = Some(walk);
        step
    }

    /// Lanes or blocks done, and all of them.
    pub(super) fn work_of_walk(&self, number: usize) -> Option<(u64, u64)> {
        let walk = self.walks.open.get(number)?.as_ref()?;
        let (done, total) = match walk {
            Way::Index(walk) => (walk.lane, walk.lanes.len()),
            Way::Blocks(walk) => (walk.listed - walk.list.len(), walk.listed),
        };
        Some((done as u64, total as u64))
    }

    /// What a walk over some lanes would find, by the bytes alive in each block and the times of its
    /// records, taken as evenly spread over them and over the shard's `partitions`. Nothing is newer
    /// than `newest`.
    pub(super) fn expected_of_walk(
        &self,
        lanes: &[(PartitionId, Lut)],
        partitions: usize,
        newest: Lut,
    ) -> Expected {
        let since = Since::new(lanes.iter().map(|(_, from)| from.ms()));
        let lowest = lanes.iter().map(|(_, from)| *from).min().unwrap_or(Lut::MAX);
        let (mut bytes, mut oldest) = (0.0, newest);
        for block in self.log.changed_since(lowest) {
            let (first, last) = (block.luts.lowest, block.luts.highest);
            let live_bytes = self.log.live_bytes(block.id);
            if first <= last && live_bytes > 0 {
                bytes += f64::from(live_bytes) * since.share_of(first.ms(), last.ms());
                oldest = oldest.min(first);
            }
        }
        let records = bytes / partitions.max(1) as f64 / self.record_bytes().max(1) as f64;
        Expected { records: records.round() as u64, oldest }
    }

    pub(super) fn close_walk(&mut self, number: usize) {
        self.walks.close(number);
    }
}

/// Times since which lanes want everything.
#[derive(Debug)]
struct Since {
    /// In order.
    times: Vec<u64>,
    /// The sum of all before each.
    sums: Vec<u64>,
}

impl Since {
    fn new(times: impl Iterator<Item = u64>) -> Self {
        let mut times: Vec<u64> = times.collect();
        times.sort_unstable();
        let mut sums = vec![0];
        sums.extend(times.iter().scan(0, |sum, time| {
            *sum += time;
            Some(*sum)
        }));
        Self { times, sums }
    }

    /// The parts that lie since those times of a span evenly filled, summed over the lanes.
    fn share_of(&self, lowest: u64, highest: u64) -> f64 {
        let whole = self.times.partition_point(|time| *time <= lowest);
        let until = self.times.partition_point(|time| *time <= highest);
        let count = (until - whole) as u64;
        let covered = count * (highest + 1) - (self.sums[until] - self.sums[whole]);
        whole as f64 + covered as f64 / (highest + 1 - lowest) as f64
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
            let sequence = space.log.sequence(block.id);
            list.push_front(Listed { id: block.id, sequence, rest_lowest });
        }
        let mut wanted = vec![Lut::MAX; PARTITION_COUNT].into_boxed_slice();
        lanes.iter().for_each(|(partition, from)| wanted[partition.index()] = *from);
        let to_come = list.iter().map(|listed| (listed.id, listed.sequence)).collect();
        let listed = list.len();
        Some(Self { wanted, list, listed, to_come, blind: HashSet::new(), now: Now::Next })
    }

    /// Follows an entry that has left its block before this walk has seen it there.
    fn departed(&mut self, log: &Log, former: &IndexEntry, to: Option<Location>) {
        let Location { block, offset, extent } = former.location;
        let sequence = log.sequence(block);
        if former.version.lut() < self.wanted[former.digest.partition().index()]
            || self.to_come.get(&block) != Some(&sequence)
        {
            return;
        }
        if let Now::Looking(now) = &mut self.now
            && (now.listed.id, now.listed.sequence) == (block, sequence)
            && (offset as usize) < now.at
        {
            if now.content.is_cached() {
                // It has been given.
                return;
            }
            now.counted = now.counted.map(|counted| counted.saturating_sub(extent));
        }
        let Some(to) = to.map(|to| to.block) else { return };
        let sequence = log.sequence(to);
        if self.to_come.insert(to, sequence) != Some(sequence) {
            self.blind.remove(&to);
            self.list.push_back(Listed { id: to, sequence, rest_lowest: Lut::MAX });
            self.listed += 1;
        }
    }

    fn step(
        &mut self,
        space: &Space,
        device: (&DiskRing, &Arena),
        cx: &mut Context<'_>,
        out: &mut Vec<Walked>,
    ) -> Poll<WalkStep> {
        self.now = match std::mem::replace(&mut self.now, Now::Next) {
            Now::Next => match self.next(space, device) {
                Some(now) => now,
                None if !self.list.is_empty() => Now::Next,
                None if self.blind.is_empty() => return Poll::Ready(WalkStep::Done),
                None => Now::Searching(0, None),
            },
            Now::Reading(listed, mut read) => match read.as_mut().poll(cx) {
                Poll::Pending => {
                    self.now = Now::Reading(listed, read);
                    return Poll::Pending;
                }
                Poll::Ready(content) => self.look_at(space, listed, content),
            },
            Now::Looking(mut looking) => match self.look(space, &mut looking, out) {
                true => Now::Looking(looking),
                false => self.looked(space, looking),
            },
            Now::Searching(partition, cursor) => self.search(space, (partition, cursor), out),
        };
        Poll::Ready(WalkStep::More { complete_below: self.complete_below(space) })
    }

    /// Begins the next block of the list that is still what was meant; `None` when there is none,
    /// or no memory to read it into.
    fn next(&mut self, space: &Space, (ring, arena): (&DiskRing, &Arena)) -> Option<Now> {
        while let Some(&listed) = self.list.front() {
            // Filled anew since: everything has departed, and was followed.
            let is_meant = self.to_come.get(&listed.id) == Some(&listed.sequence);
            if !is_meant || space.log.sequence(listed.id) != listed.sequence {
                self.list.pop_front();
                if is_meant {
                    self.to_come.remove(&listed.id);
                }
                continue;
            }
            let block = space.log.block(listed.id);
            if let Some(memory) = block.and_then(|block| block.memory.clone()) {
                self.list.pop_front();
                return Some(self.look_at(space, listed, BlockContent::Cached(memory)));
            }
            let source = space.source(ring, arena, listed.id);
            let buffer = arena.take(source.bytes)?;
            self.list.pop_front();
            return Some(Now::Reading(listed, Box::pin(whole::read(source, buffer))));
        }
        None
    }

    /// Begins to look at a block's content.
    fn look_at(&mut self, space: &Space, listed: Listed, content: BlockContent) -> Now {
        let name = space.log.name(listed.id);
        match Filling::judge(content.bytes(), name, listed.sequence) {
            Some(filling) => Now::Looking(Looking {
                listed,
                content,
                filling,
                at: BLOCK_HEADER_BYTES,
                found: 0,
                damaged: 0,
                counted: None,
            }),
            None => {
                self.blind.insert(listed.id);
                Now::Next
            }
        }
    }

    /// Looks at some of a block's records; false when there are no more.
    fn look(&self, space: &Space, now: &mut Looking, out: &mut Vec<Walked>) -> bool {
        let block_bytes = space.log.geometry().block_bytes;
        let mut records = now.filling.records(now.content.bytes(), now.at, block_bytes);
        let mut is_through = false;
        for _ in 0..STEP_RECORDS {
            let Some((offset, flat)) = records.next() else {
                is_through = true;
                break;
            };
            let record = &flat.record;
            let wanted = self.wanted[record.digest.partition().index()];
            if now.counted.is_none() && record.version.lut() < wanted {
                continue;
            }
            let here = Location { block: now.listed.id, offset, extent: flat.extent as u32 };
            if let Some(entry) = space.index.get(&record.digest)
                && entry.location == here
            {
                match &mut now.counted {
                    Some(counted) => *counted += here.extent,
                    None => out.push(walked(&entry)),
                }
            }
        }
        now.at = records.position();
        now.found += records.found();
        now.damaged += records.damaged();
        !is_through
    }

    /// A block has been looked at, to its end.
    fn looked(&mut self, space: &Space, now: Looking) -> Now {
        let Listed { id, sequence, .. } = now.listed;
        if self.to_come.get(&id) != Some(&sequence) {
            return Now::Next;
        }
        let is_present = space.log.sequence(id) == sequence;
        match now.counted {
            None if is_present && now.is_doubtful() => {
                let (at, counted) = (BLOCK_HEADER_BYTES, Some(0));
                return Now::Looking(Looking { at, counted, ..now });
            }
            Some(seen) if is_present && seen < space.log.live_bytes(id) => {
                self.blind.insert(id);
            }
            _ => {
                self.to_come.remove(&id);
            }
        }
        Now::Next
    }

    /// Looks for some of what lies in blind blocks.
    fn search(
        &mut self,
        space: &Space,
        (partition, cursor): (usize, Option<WalkCursor>),
        out: &mut Vec<Walked>,
    ) -> Now {
        let next = (partition..PARTITION_COUNT).find(|index| self.wanted[*index] != Lut::MAX);
        let Some(next) = next else {
            for id in self.blind.drain() {
                self.to_come.remove(&id);
            }
            return Now::Next;
        };
        let cursor = cursor.filter(|_| next == partition).unwrap_or_else(|| space.index.start());
        let number = PartitionId::new(next as u16);
        let reached = space.index.walk(number, cursor, STEP_BUCKETS, &mut |entry| {
            let is_blind = self.blind.contains(&entry.location.block);
            if is_blind && entry.version.lut() >= self.wanted[next] {
                out.push(walked(entry));
            }
        });
        match reached {
            Some(cursor) => Now::Searching(next, Some(cursor)),
            None => Now::Searching(next + 1, None),
        }
    }

    /// Nothing below is still to come.
    fn complete_below(&self, space: &Space) -> Lut {
        let current = match &self.now {
            Now::Next | Now::Searching(..) => None,
            Now::Reading(listed, _) | Now::Looking(Looking { listed, .. }) => Some(listed),
        };
        let lowest = |listed: &Listed| match listed.rest_lowest {
            Lut::MAX => space.log.lowest(listed.id),
            known => known,
        };
        // `rest_lowest` covers the blocks behind, too: of those whose range is known the first
        // tells all.
        let is_known = |listed: &&Listed| listed.rest_lowest != Lut::MAX;
        let known = self.list.iter().next().filter(is_known);
        let others = self.list.iter().rev().take_while(|listed| !is_known(listed));
        let to_come = current.into_iter().chain(known).chain(others).map(lowest);
        let blind = self.blind.iter().map(|id| space.log.lowest(*id));
        to_come.chain(blind).min().unwrap_or(Lut::MAX)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_what_lies_since_each_time() {
        let check = |times: &[u64], (lowest, highest), expected: f64| {
            let share = Since::new(times.iter().copied()).share_of(lowest, highest);
            assert!((share - expected).abs() < 1e-9, "{times:?} {lowest}..{highest}: {share}");
        };
        check(&[], (10, 19), 0.0);
        check(&[0, 10], (10, 19), 2.0);
        check(&[15], (10, 19), 0.5);
        check(&[19, 20], (10, 19), 0.1);
        check(&[5, 15, 12, 30], (10, 19), 1.0 + 0.5 + 0.8);
        check(&[7], (7, 7), 1.0);
    }
}
