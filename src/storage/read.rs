//! Reading records: from the write-block cache, else from the device.
//!
//! What comes back from the device is checked: checksum, digest and version. A record that was
//! rewritten meanwhile, its block perhaps reused, fails that check honestly; the index then says
//! where it is now and the read is repeated. A check that fails with the index unchanged is damage:
//! counted, logged with device and offset, answered as an error for this record alone.

//! What a DC asks for in one go is read in the order of the device, neighbours in one read: what
//! catches up asks for records as they were written, and those lie side by side. Clients' reads are
//! begun one by one; the memory they may have is shared out by the node.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::mem;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::block::WRITE_ALIGN;
use super::flat;
use super::index::IndexEntry;
use super::space::Space;
use super::store::Store;
use crate::host::{OwnedRecord, ReadDone, ReadOutcome, ReadRequest};
use crate::model::{DcIndex, Digest, NamespaceId, RecordView};
use crate::rt::arena::Buffer;
use crate::rt::disk_ring::{Completions, Done, FileId};

/// Records one DC may have under way on a shard.
const READS_PER_DC_MAX: usize = 256;
/// Bytes of memory they may take, but for the last one's.
const READ_BYTES_PER_DC_MAX: usize = 1 << 20;
/// Reads gathered before they are submitted without being asked for.
const GATHERED_MAX: usize = 64;
/// Neighbours are at most so far apart ...
const GAP_BYTES_MAX: u64 = 4 << 10;
/// ... and read up to this together.
const MERGED_BYTES_MAX: u64 = 128 << 10;
/// How often a read follows a record that keeps moving.
const MOVES_MAX: usize = 16;

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
struct Plan {
    entry: IndexEntry,
    file: FileId,
    /// Where the read starts on the device, 4 KiB aligned.
    offset: u64,
    /// Bytes of it before the record.
    skip: usize,
    /// Bytes to read.
    len: usize,
}

impl Plan {
    fn of(space: &Space, entry: IndexEntry) -> Self {
        let (device, block_offset) = space.log.geometry().offset(entry.location.block);
        let at = block_offset + u64::from(entry.location.offset);
        let skip = at as usize % WRITE_ALIGN;
        let len = (skip + entry.location.extent as usize).next_multiple_of(WRITE_ALIGN);
        Self { entry, file: space.files[device], offset: at - skip as u64, skip, len }
    }

    /// Whether the record that was asked for lies at `start`.
    fn is_in(&self, bytes: &[u8], start: usize) -> bool {
        let end = start + self.entry.location.extent as usize;
        flat::decode(&bytes[start..end]).is_ok_and(|flat| {
            let record = flat.record;
            record.digest == self.entry.digest && record.version == self.entry.version
        })
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
    plan: Plan,
    moves: usize,
}

/// A device read under way: where it starts, and the records it is for.
struct Group {
    offset: u64,
    members: Vec<Tagged>,
}

/// The device reads under way for DCs.
#[derive(Default)]
pub(super) struct Reads {
    dcs: Vec<DcReads>,
    groups: Vec<Group>,
    vacant: Vec<u32>,
    scratch: Vec<Done>,
}

struct DcReads {
    completions: Rc<Completions>,
    /// Begun, not yet drained.
    count: usize,
    /// Memory of those on their way to the device or back.
    bytes: usize,
    /// Begun, not yet submitted, with memory of their own.
    gathered: Vec<(Tagged, Buffer)>,
    /// Finished.
    ready: Vec<ReadDone<StoredRecord>>,
}

impl Reads {
    fn dc(&mut self, dc: DcIndex) -> &mut DcReads {
        let index = usize::from(dc.0);
        while self.dcs.len() <= index {
            self.dcs.push(DcReads {
                completions: Completions::new(),
                count: 0,
                bytes: 0,
                gathered: Vec::new(),
                ready: Vec::new(),
            });
        }
        &mut self.dcs[index]
    }

    /// A group's number; its vector is an old one, empty.
    fn enter(&mut self, offset: u64) -> usize {
        let number = self.vacant.pop().map_or(self.groups.len(), |number| number as usize);
        match self.groups.get_mut(number) {
            Some(group) => group.offset = offset,
            None => self.groups.push(Group { offset, members: Vec::new() }),
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
            let plan = Plan::of(space, entry);
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
        plan: &Plan,
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
                let reason = match result {
                    Ok(_) => "its checksum is wrong".to_owned(),
                    Err(error) => error.to_string(),
                };
                let place = self.place(namespace, entry.location);
                tracing::error!("{place}: record {} cannot be read: {reason}", entry.digest);
                Found::Failed
            }
        }
    }

    /// Begins a read for a DC; see [`crate::host::RecordSource::begin`].
    pub(super) fn begin_tagged(&mut self, request: ReadRequest) -> bool {
        let reads = self.reads.dc(request.dc);
        if reads.count >= READS_PER_DC_MAX || reads.bytes >= READ_BYTES_PER_DC_MAX {
            return false;
        }
        let is_begun = self.gather(request, 0);
        let reads = self.reads.dc(request.dc);
        reads.count += usize::from(is_begun);
        if reads.gathered.len() >= GATHERED_MAX {
            self.submit_gathered(request.dc);
        }
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
                let plan = Plan::of(space, entry);
                let Some(buffer) = self.arena.take(plan.len) else { return false };
                let reads = self.reads.dc(dc);
                reads.bytes += plan.len;
                reads.gathered.push((Tagged { request, plan, moves }, buffer));
                return true;
            }
        };
        self.reads.dc(dc).ready.push(ReadDone { tag, outcome });
        true
    }

    /// Submits what a DC has gathered, neighbours in one read.
    fn submit_gathered(&mut self, dc: DcIndex) {
        let mut gathered = mem::take(&mut self.reads.dc(dc).gathered);
        gathered.sort_unstable_by_key(|(read, _)| {
            (read.request.namespace, read.plan.entry.location.block, read.plan.offset)
        });
        let mut rest = gathered.drain(..).peekable();
        while let Some((first, mut buffer)) = rest.next() {
            let group = self.reads.enter(first.plan.offset);
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
                let namespace = next.request.namespace;
                self.spaces[namespace.index()].counters.merged_reads += 1;
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

    /// Gives a DC its finished reads; see [`crate::host::RecordSource::poll_drain`].
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
            let reads = self.reads.dc(dc);
            done.append(&mut reads.ready);
            reads.count -= done.len() - before;
            if done.len() > before {
                return Poll::Ready(());
            }
            if reads.completions.poll_ready(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Takes in a device read, for each of its records.
    fn finish_group(&mut self, dc: DcIndex, read: Done) {
        let Done { tag: number, buffer, result } = read;
        let group = &mut self.reads.groups[number as usize];
        let (offset, mut members) = (group.offset, mem::take(&mut group.members));
        let is_alone = members.len() == 1;
        let mut memory =
            Some(if is_alone { Memory::Own(buffer) } else { Memory::Shared(Rc::new(buffer)) });
        for member in members.drain(..) {
            let Tagged { request, plan, moves } = member;
            self.reads.dc(dc).bytes -= plan.len;
            if result.is_err() && !is_alone && self.read_alone(member) {
                continue;
            }
            let start = (plan.offset - offset) as usize + plan.skip;
            let bytes = memory.as_ref().map_or(&[][..], Memory::bytes);
            let outcome = match self.judge(request.namespace, &plan, bytes, start, &result) {
                Found::Whole => match share(&mut memory) {
                    Some(memory) => ReadOutcome::Record(StoredRecord { memory, start }),
                    None => ReadOutcome::Failed,
                },
                Found::Gone => ReadOutcome::Gone,
                Found::Moved if moves < MOVES_MAX && self.gather(request, moves + 1) => continue,
                Found::Moved | Found::Failed => ReadOutcome::Failed,
            };
            self.reads.dc(dc).ready.push(ReadDone { tag: request.tag, outcome });
        }
        self.reads.groups[number as usize].members = members;
        self.reads.vacant.push(number as u32);
    }

    /// Reads again by itself what could not be read together with others: an error may be about
    /// one of them only. False when there is no memory.
    fn read_alone(&mut self, read: Tagged) -> bool {
        let Plan { file, offset, len, .. } = read.plan;
        let Some(buffer) = self.arena.take(len) else { return false };
        let group = self.reads.enter(offset);
        self.reads.groups[group].members.push(read);
        let op = self.ring.read(file, offset, buffer, len);
        let reads = self.reads.dc(read.request.dc);
        reads.bytes += len;
        self.ring.submit_tagged(op, group as u64, &reads.completions);
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
