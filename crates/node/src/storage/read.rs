//! Reading records: from the write-block cache, else from the device.
//!
//! What comes back from the device is checked: checksum, digest and version. A record that was
//! rewritten meanwhile, its block perhaps reused, fails that check honestly; the index then says
//! where it is now and the read is repeated. A check that fails with the index unchanged is damage:
//! counted, logged with device and offset, answered as an error for this record alone.
//!
//! What a DC asks for in one go is read in the order of the device. What catches up asks for
//! records as they were written, and those lie side by side: where many are wanted of one piece of
//! a block, the piece is read and kept for those that come next (see [`super::pieces`]); elsewhere
//! neighbours are read together. Clients' reads are begun one by one; the memory they may have is
//! shared out by the node.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::mem;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::block::WRITE_ALIGN;
use super::flat;
use super::index::{BlockId, IndexEntry};
use super::pieces::{PIECE_BYTES, PieceId, Pieces, record_of};
use super::space::Space;
use super::store::{SharedStore, Store};
use super::whole::{self, BlockContent};
use longship::config::DC_COUNT_MAX;
use longship::host::{OwnedRecord, ReadDone, ReadOutcome, ReadRequest};
use longship::model::{DcIndex, Digest, NamespaceId, RecordView};
use longship::ship::mutation::{Mutation, planted};
use longship_rt::arena::Buffer;
use longship_rt::disk_ring::{Completions, Done, FileId};
use longship_rt::event::Event;

use crate::limits::{READ_BYTES_OF_DCS_MAX, READ_BYTES_PER_DC_MAX, READS_PER_DC_MAX};

/// So many records wanted at once of one piece of a block are worth reading it whole: alone they
/// would take the device longer.
const DENSE_RECORDS: usize = 4;
/// Neighbours are at most so far apart ...
const GAP_BYTES_MAX: u64 = 4 << 10;
/// ... and read up to this together.
const MERGED_BYTES_MAX: u64 = 128 << 10;
/// Whoever reads a whole block waits so long before it asks for memory again, in microseconds.
const MEMORY_WAIT_US: u64 = 1000;
/// How often a read follows a record that keeps moving.
const MOVES_MAX: usize = 16;

/// DCs that have reads, or had some lately: twice as many as there can be.
const DCS_MAX: usize = 2 * DC_COUNT_MAX;

/// Why a record could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// No memory for one more (result 18).
    #[error("too many reads under way")]
    Overloaded,
    /// The device failed, or what it gave is not what was written; already counted and logged.
    #[error("the record cannot be read")]
    Failed,
}

/// A record with the memory it was read into.
pub struct StoredRecord {
    memory: Memory,
    start: usize,
}

enum Memory {
    Own(Buffer),
    /// Records that were read together.
    Shared(Rc<Buffer>),
}

impl Memory {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Own(buffer) => buffer,
            Self::Shared(buffer) => buffer,
        }
    }
}

impl OwnedRecord for StoredRecord {
    fn view(&self) -> RecordView<'_> {
        flat::view(&self.memory.bytes()[self.start..]).expect("checked when it was read")
    }
}

impl fmt::Debug for StoredRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.view().fmt(f)
    }
}

/// What to read for a record, and what must come back.
#[derive(Clone, Copy, Debug)]
struct ReadPlan {
    entry: IndexEntry,
    file: FileId,
    /// Where the read starts on the device, 4 KiB aligned.
    offset: u64,
    /// Bytes of it before the record.
    skip: usize,
    /// Bytes to read.
    len: usize,
}

impl ReadPlan {
    fn of(space: &Space, entry: IndexEntry) -> Self {
        let (device, block_offset) = space.log.geometry().offset(entry.location.block);
        let device = if planted(Mutation::WrongDevice) { 0 } else { device };
        let at = block_offset + u64::from(entry.location.offset);
        let skip = at as usize % WRITE_ALIGN;
        let len = (skip + entry.location.extent as usize).next_multiple_of(WRITE_ALIGN);
        Self { entry, file: space.files[device], offset: at - skip as u64, skip, len }
    }

    /// Whether the record that was asked for lies at `start`.
    fn is_in(&self, bytes: &[u8], start: usize) -> bool {
        let end = start + self.entry.location.extent as usize;
        record_of(&self.entry, &bytes[start..end]).is_some()
    }

    /// Where the read ends on the device.
    fn end(&self) -> u64 {
        self.offset + self.len as u64
    }
}

/// Memory a client's read of a record of so many bytes takes.
pub fn read_bytes(extent: usize) -> usize {
    (extent + WRITE_ALIGN).next_power_of_two()
}

/// What a device read brought of a record.
enum Found {
    /// It.
    Whole,
    /// Nothing: it was deleted for good meanwhile.
    Gone,
    /// The record is somewhere else by now.
    Moved,
    Failed,
}

/// A record being read for shipping.
#[derive(Clone, Copy)]
struct Tagged {
    request: ReadRequest,
    plan: ReadPlan,
    moves: usize,
}

impl Tagged {
    fn piece(&self) -> Option<PieceId> {
        PieceId::of(self.request.namespace, self.plan.entry.location)
    }
}

/// A device read under way: where it starts, and the records it is for.
struct Group {
    offset: u64,
    /// It reads this piece, which is kept.
    piece: Option<PieceId>,
    members: Vec<Tagged>,
}

/// The device reads under way for DCs.
#[derive(Default)]
pub(super) struct Reads {
    /// By index; those without reads go now and then.
    dcs: Vec<(DcIndex, DcReads)>,
    /// Memory of what is under way for all DCs, by namespace.
    bytes: Vec<usize>,
    groups: Vec<Group>,
    vacant: Vec<u32>,
    scratch: Vec<Done>,
    pub(super) pieces: Pieces,
}

struct DcReads {
    completions: Rc<Completions>,
    /// By namespace.
    shares: Vec<Share>,
    /// Begun, not yet submitted, with memory of their own.
    gathered: Vec<(Tagged, Buffer)>,
    /// Finished.
    ready: Vec<(NamespaceId, ReadDone<StoredRecord>)>,
}

/// What a DC has under way of one namespace.
#[derive(Clone, Copy, Default)]
struct Share {
    /// Begun, not yet drained.
    count: usize,
    /// Memory of those on their way to the device or back.
    bytes: usize,
}

impl DcReads {
    fn share(&mut self, namespace: NamespaceId) -> &mut Share {
        if self.shares.len() <= namespace.index() {
            self.shares.resize(namespace.index() + 1, Share::default());
        }
        &mut self.shares[namespace.index()]
    }
}

impl Reads {
    fn dc(&mut self, dc: DcIndex) -> &mut DcReads {
        let at = self.dcs.binary_search_by_key(&dc, |(index, _)| *index);
        let at = at.unwrap_or_else(|_| self.enter_dc(dc));
        &mut self.dcs[at].1
    }

    /// An index is never given out twice: DCs that are gone must not stay.
    #[cold]
    fn enter_dc(&mut self, dc: DcIndex) -> usize {
        if self.dcs.len() >= DCS_MAX {
            self.dcs.retain(|(_, reads)| reads.shares.iter().any(|share| share.count > 0));
        }
        let at = self.dcs.partition_point(|(index, _)| *index < dc);
        let reads = DcReads {
            completions: Completions::new(),
            shares: Vec::new(),
            gathered: Vec::new(),
            ready: Vec::new(),
        };
        self.dcs.insert(at, (dc, reads));
        at
    }

    /// Memory of a read is taken.
    fn take(&mut self, Tagged { request, plan, .. }: &Tagged) {
        let at = request.namespace.index();
        self.dc(request.dc).share(request.namespace).bytes += plan.len;
        if self.bytes.len() <= at {
            self.bytes.resize(at + 1, 0);
        }
        self.bytes[at] += plan.len;
    }

    /// It is given back, or belongs to a record that was read.
    fn give_back(&mut self, Tagged { request, plan, .. }: &Tagged) {
        self.dc(request.dc).share(request.namespace).bytes -= plan.len;
        self.bytes[request.namespace.index()] -= plan.len;
    }

    /// Whether a DC may begin another read.
    fn may_begin(&mut self, ReadRequest { dc, namespace, .. }: &ReadRequest) -> bool {
        let of_all = self.bytes.get(namespace.index()).copied().unwrap_or(0);
        let Share { count, bytes } = *self.dc(*dc).share(*namespace);
        let has_own = count < READS_PER_DC_MAX && bytes < READ_BYTES_PER_DC_MAX;
        has_own && (of_all < READ_BYTES_OF_DCS_MAX || count == 0)
    }

    /// A read is finished.
    fn finished(&mut self, dc: DcIndex, namespace: NamespaceId, done: ReadDone<StoredRecord>) {
        self.dc(dc).ready.push((namespace, done));
    }

    /// A group's number; its vector is an old one, empty.
    fn enter(&mut self, offset: u64, piece: Option<PieceId>) -> usize {
        let number = self.vacant.pop().map_or(self.groups.len(), |number| number as usize);
        match self.groups.get_mut(number) {
            Some(group) => (group.offset, group.piece) = (offset, piece),
            None => self.groups.push(Group { offset, piece, members: Vec::new() }),
        }
        number
    }
}

/// Reads a record as it is now; `None` when there is none. A tombstone is a record.
pub async fn read(
    store: &RefCell<Store>,
    namespace: NamespaceId,
    digest: &Digest,
) -> Result<Option<StoredRecord>, ReadError> {
    for _ in 0..MOVES_MAX {
        let (op, plan) = {
            let mut store = store.borrow_mut();
            match store.in_memory(namespace, digest)? {
                Poll::Ready(found) => return Ok(found),
                Poll::Pending => {}
            }
            let space = store.space(namespace);
            let Some(entry) = space.lookup(digest) else { return Ok(None) };
            let plan = ReadPlan::of(space, entry);
            let buffer = store.arena.take(plan.len).ok_or(ReadError::Overloaded)?;
            (store.ring.read(plan.file, plan.offset, buffer, plan.len), plan)
        };
        let (buffer, result) = op.await;
        let found = store.borrow_mut().judge(namespace, &plan, &buffer, plan.skip, &result);
        match found {
            Found::Whole => {
                let (memory, start) = (Memory::Own(buffer), plan.skip);
                return Ok(Some(StoredRecord { memory, start }));
            }
            Found::Gone => return Ok(None),
            Found::Failed => return Err(ReadError::Failed),
            Found::Moved => {}
        }
    }
    Err(ReadError::Failed)
}

/// A block as it is now, from memory or from the device; waits for the memory to read it into.
/// `None` when the store stops meanwhile.
pub(super) async fn read_block(
    store: &SharedStore,
    namespace: NamespaceId,
    id: BlockId,
) -> Option<BlockContent> {
    loop {
        let begun = {
            let store = store.borrow();
            if store.is_stopping {
                return None;
            }
            let space = store.space(namespace);
            if let Some(memory) = space.log.block(id).and_then(|block| block.memory.clone()) {
                return Some(BlockContent::Cached(memory));
            }
            let source = space.source(&store.ring, &store.arena, id);
            let buffer = store.arena.take(source.bytes);
            buffer.ok_or_else(|| store.clock.now() + MEMORY_WAIT_US).map(|buffer| (source, buffer))
        };
        match begun {
            Ok((source, buffer)) => return Some(whole::read(source, buffer).await),
            Err(soon) => {
                Event::new().wait_until(soon).await;
            }
        }
    }
}

impl Store {
    /// A copy of the record, when no device is needed for it.
    fn in_memory(
        &mut self,
        namespace: NamespaceId,
        digest: &Digest,
    ) -> Result<Poll<Option<StoredRecord>>, ReadError> {
        let space = &mut self.spaces[namespace.index()];
        let Some(entry) = space.lookup(digest) else { return Ok(Poll::Ready(None)) };
        let Some(bytes) = space.bytes_in_memory(entry.location) else { return Ok(Poll::Pending) };
        let mut buffer = self.arena.take(bytes.len()).ok_or(ReadError::Overloaded)?;
        buffer[..bytes.len()].copy_from_slice(bytes);
        space.counters.cache_hits += 1;
        Ok(Poll::Ready(Some(StoredRecord { memory: Memory::Own(buffer), start: 0 })))
    }

    /// Judges what a device read brought of a record, which should lie at `start`.
    fn judge(
        &mut self,
        namespace: NamespaceId,
        plan: &ReadPlan,
        bytes: &[u8],
        start: usize,
        result: &io::Result<usize>,
    ) -> Found {
        let space = &mut self.spaces[namespace.index()];
        space.counters.device_reads += 1;
        if result.is_ok() && plan.is_in(bytes, start) {
            return Found::Whole;
        }
        match space.lookup(&plan.entry.digest) {
            None => Found::Gone,
            Some(entry) if entry.location != plan.entry.location => Found::Moved,
            Some(entry) => {
                space.counters.read_errors += 1;
                if let Some(held_back) = space.read_errors_log.pass(self.clock.now()) {
                    let reason = match result {
                        Ok(_) => "its checksum is wrong".to_owned(),
                        Err(error) => error.to_string(),
                    };
                    let place = self.place(namespace, entry.location);
                    tracing::error!(
                        "{place}: record {} cannot be read: {reason} ({held_back} lines like this \
                         held back)",
                        entry.digest
                    );
                }
                Found::Failed
            }
        }
    }

    /// Begins a read for a DC; see [`longship::host::RecordSource::begin`].
    pub(super) fn begin_tagged(&mut self, request: ReadRequest) -> bool {
        if !self.reads.may_begin(&request) {
            return false;
        }
        let is_begun = self.gather(request, 0);
        self.reads.dc(request.dc).share(request.namespace).count += usize::from(is_begun);
        is_begun
    }

    /// Finds a record in memory, or puts it among what is to be read from the device.
    fn gather(&mut self, request: ReadRequest, moves: usize) -> bool {
        let ReadRequest { tag, dc, namespace, digest } = request;
        let outcome = match self.in_memory(namespace, &digest) {
            Err(_) => return false,
            Ok(Poll::Ready(Some(record))) => ReadOutcome::Record(record),
            Ok(Poll::Ready(None)) => ReadOutcome::Gone,
            Ok(Poll::Pending) => {
                let space = self.space(namespace);
                let Some(entry) = space.lookup(&digest) else { return false };
                let read = Tagged { request, plan: ReadPlan::of(space, entry), moves };
                let Some(record) = self.in_piece(&read) else { return self.plan_read(read) };
                ReadOutcome::Record(record)
            }
        };
        self.reads.finished(dc, namespace, ReadDone { tag, outcome });
        true
    }

    /// The record, if the piece of a block it lies in is kept and still is what is on the device.
    fn in_piece(&mut self, read: &Tagged) -> Option<StoredRecord> {
        let id = read.piece()?;
        let buffer = Rc::clone(self.reads.pieces.get(id)?);
        let start = id.place(read.plan.entry.location).start;
        if read.plan.is_in(&buffer, start) {
            return Some(StoredRecord { memory: Memory::Shared(buffer), start });
        }
        self.reads.pieces.forget(id);
        None
    }

    /// Puts a read among those to be submitted, with memory of its own, or adds it to that of its
    /// piece, which is under way.
    fn plan_read(&mut self, read: Tagged) -> bool {
        let dc = read.request.dc;
        if let Some(group) = read.piece().and_then(|id| self.reads.pieces.reading(id, dc)) {
            self.reads.take(&read);
            self.reads.groups[group].members.push(read);
            return true;
        }
        let Some(buffer) = self.arena.take(read.plan.len) else { return false };
        self.reads.take(&read);
        self.reads.dc(dc).gathered.push((read, buffer));
        true
    }

    /// Submits whole pieces of blocks, where many of the gathered reads want something of one.
    fn submit_pieces(&mut self, dc: DcIndex, gathered: &mut Vec<(Tagged, Buffer)>) {
        let mut at = 0;
        while let Some((first, _)) = gathered.get(at) {
            let piece = first.piece();
            let run = gathered[at..].iter().take_while(|(read, _)| read.piece() == piece).count();
            match piece {
                Some(id) if run >= DENSE_RECORDS && self.submit_piece(dc, id, first.plan) => {
                    let members = gathered.drain(at..at + run).map(|(read, _)| read);
                    if let Some(group) = self.reads.pieces.reading(id, dc) {
                        self.reads.groups[group].members.extend(members);
                    }
                }
                _ => at += run,
            }
        }
    }

    /// Submits the piece in which the record of `plan` lies. False when there is no memory.
    fn submit_piece(&mut self, dc: DcIndex, id: PieceId, plan: ReadPlan) -> bool {
        if !self.reads.pieces.make_room(dc) {
            return false;
        }
        let Some(buffer) = self.arena.take(PIECE_BYTES) else { return false };
        let offset = plan.offset + plan.skip as u64 - id.place(plan.entry.location).start as u64;
        let group = self.reads.enter(offset, Some(id));
        self.reads.pieces.enter(id, dc, group);
        let op = self.ring.read(plan.file, offset, buffer, PIECE_BYTES);
        self.ring.submit_tagged(op, group as u64, &self.reads.dc(dc).completions);
        true
    }

    /// Submits what a DC has gathered, neighbours in one read.
    fn submit_gathered(&mut self, dc: DcIndex) {
        let mut gathered = mem::take(&mut self.reads.dc(dc).gathered);
        gathered.sort_unstable_by_key(|(read, _)| {
            (read.request.namespace, read.plan.entry.location.block, read.plan.offset)
        });
        self.submit_pieces(dc, &mut gathered);
        let mut rest = gathered.drain(..).peekable();
        while let Some((first, mut buffer)) = rest.next() {
            let group = self.reads.enter(first.plan.offset, None);
            let (file, offset, mut end) = (first.plan.file, first.plan.offset, first.plan.end());
            self.reads.groups[group].members.push(first);
            while let Some((next, _)) = rest.peek()
                && next.plan.file == file
                && next.plan.offset <= end + GAP_BYTES_MAX
                && next.plan.end().max(end) - offset <= MERGED_BYTES_MAX
            {
                let wanted = (next.plan.end().max(end) - offset) as usize;
                if wanted > buffer.len() {
                    let Some(larger) = self.arena.take(wanted) else { break };
                    buffer = larger;
                }
                end = next.plan.end().max(end);
                let joined = rest.next().map(|(read, _)| read);
                self.reads.groups[group].members.extend(joined);
            }
            let op = self.ring.read(file, offset, buffer, (end - offset) as usize);
            let sink = &self.reads.dc(dc).completions;
            self.ring.submit_tagged(op, group as u64, &Rc::clone(sink));
        }
        drop(rest);
        self.reads.dc(dc).gathered = gathered;
    }

    /// Gives a DC its finished reads; see [`longship::host::RecordSource::poll_drain`].
    pub(super) fn poll_tagged(
        &mut self,
        dc: DcIndex,
        cx: &mut Context<'_>,
        done: &mut Vec<ReadDone<StoredRecord>>,
    ) -> Poll<()> {
        let before = done.len();
        loop {
            let mut scratch = mem::take(&mut self.reads.scratch);
            self.reads.dc(dc).completions.drain(&mut scratch);
            scratch.drain(..).for_each(|read| self.finish_group(dc, read));
            self.reads.scratch = scratch;
            self.submit_gathered(dc);
            let DcReads { ready, shares, completions, .. } = self.reads.dc(dc);
            done.extend(ready.drain(..).map(|(namespace, read)| {
                shares[namespace.index()].count -= 1;
                read
            }));
            if done.len() > before {
                return Poll::Ready(());
            }
            if completions.poll_ready(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Takes in a device read, for each of its records.
    fn finish_group(&mut self, dc: DcIndex, read: Done) {
        let Done { tag: number, buffer, result } = read;
        let group = &mut self.reads.groups[number as usize];
        let (offset, mut members) = (group.offset, mem::take(&mut group.members));
        let piece = group.piece.take();
        let is_alone = members.len() == 1 && piece.is_none();
        let mut memory = Some(match (is_alone, piece) {
            (true, _) => Memory::Own(buffer),
            (false, None) => Memory::Shared(Rc::new(buffer)),
            (false, Some(id)) => {
                let buffer = Rc::new(buffer);
                let kept = result.is_ok().then(|| Rc::clone(&buffer));
                self.reads.pieces.arrived(id, number as usize, kept);
                Memory::Shared(buffer)
            }
        });
        if !is_alone && let Some(first) = members.first() {
            let namespace = first.request.namespace;
            self.spaces[namespace.index()].counters.merged_reads += members.len() as u64 - 1;
        }
        for member in members.drain(..) {
            let Tagged { request, plan, moves } = member;
            self.reads.give_back(&member);
            let start = (plan.offset + plan.skip as u64 - offset) as usize;
            let bytes = memory.as_ref().map_or(&[][..], Memory::bytes);
            // A piece may be on its way since before the record was written.
            let in_doubt = result.is_err() || piece.is_some() && !plan.is_in(bytes, start);
            if in_doubt && !is_alone && self.read_alone(member) {
                continue;
            }
            if in_doubt && !is_alone {
                // No memory to look again: nothing is known of this record.
                let done = ReadDone { tag: request.tag, outcome: ReadOutcome::NoMemory };
                self.reads.finished(dc, request.namespace, done);
                continue;
            }
            let outcome = match self.judge(request.namespace, &plan, bytes, start, &result) {
                Found::Whole => match share(&mut memory) {
                    Some(memory) => ReadOutcome::Record(StoredRecord { memory, start }),
                    None => ReadOutcome::Failed,
                },
                Found::Gone => ReadOutcome::Gone,
                Found::Moved if moves < MOVES_MAX && self.gather(request, moves + 1) => continue,
                // No memory, or it moves faster than it is read.
                Found::Moved => ReadOutcome::NoMemory,
                Found::Failed => ReadOutcome::Failed,
            };
            self.reads.finished(dc, request.namespace, ReadDone { tag: request.tag, outcome });
        }
        self.reads.groups[number as usize].members = members;
        self.reads.vacant.push(number as u32);
    }

    /// Reads again by itself what could not be read together with others: an error may be about
    /// one of them only. False when there is no memory.
    fn read_alone(&mut self, read: Tagged) -> bool {
        let ReadPlan { file, offset, len, .. } = read.plan;
        let Some(buffer) = self.arena.take(len) else { return false };
        let group = self.reads.enter(offset, None);
        self.reads.groups[group].members.push(read);
        let op = self.ring.read(file, offset, buffer, len);
        self.reads.take(&read);
        let completions = &self.reads.dc(read.request.dc).completions;
        self.ring.submit_tagged(op, group as u64, completions);
        true
    }
}

/// Memory for one more of the records in it.
fn share(memory: &mut Option<Memory>) -> Option<Memory> {
    if let Some(Memory::Shared(buffer)) = memory {
        return Some(Memory::Shared(Rc::clone(buffer)));
    }
    memory.take()
}
