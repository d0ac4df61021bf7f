//! Reading records: from the write-block cache, else from the device.
//!
//! What comes back from the device is checked: checksum, digest and version. A record that was
//! rewritten meanwhile, its block perhaps reused, fails that check honestly; the index then says
//! where it is now and the read is repeated. A check that fails with the index unchanged is damage:
//! counted, logged with device and offset, answered as an error for this record alone.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
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

/// Device reads one DC may have under way on a shard.
const READS_PER_DC_MAX: usize = 64;
/// Device reads clients may have under way on a shard.
const CLIENT_READS_MAX: usize = 256;
/// How often a read follows a record that keeps moving.
const MOVES_MAX: usize = 16;

/// Why a record could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Too many reads under way, or no memory for one more (result 18).
    #[error("too many reads under way")]
    Overloaded,
    /// The device failed, or what it gave is not what was written; already counted and logged.
    #[error("the record cannot be read")]
    Failed,
}

/// A record with the memory it was read into.
pub struct StoredRecord {
    buffer: Buffer,
    start: usize,
}

impl OwnedRecord for StoredRecord {
    fn view(&self) -> RecordView<'_> {
        flat::view(&self.buffer[self.start..]).expect("checked when it was read")
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

    /// Whether `buffer` holds the record that was asked for.
    fn is_in(&self, buffer: &Buffer) -> bool {
        let end = self.skip + self.entry.location.extent as usize;
        flat::decode(&buffer[self.skip..end]).is_ok_and(|flat| {
            let record = flat.record;
            record.digest == self.entry.digest && record.version == self.entry.version
        })
    }
}

/// What came of one attempt.
enum Attempt {
    Record(StoredRecord),
    Gone,
    /// The record is somewhere else by now.
    Moved,
    Failed,
}

/// A device read for shipping.
#[derive(Clone, Copy)]
struct Tagged {
    request: ReadRequest,
    plan: Plan,
    moves: usize,
}

/// The device reads under way.
#[derive(Default)]
pub(super) struct Reads {
    client_count: Rc<Cell<usize>>,
    dcs: Vec<DcReads>,
    tagged: Vec<Option<Tagged>>,
    vacant: Vec<u32>,
    scratch: Vec<Done>,
}

struct DcReads {
    completions: Rc<Completions>,
    /// Begun, not yet drained.
    count: usize,
    /// Finished without the device.
    ready: Vec<ReadDone<StoredRecord>>,
}

impl Reads {
    fn dc(&mut self, dc: DcIndex) -> &mut DcReads {
        let index = usize::from(dc.0);
        while self.dcs.len() <= index {
            let completions = Completions::new();
            self.dcs.push(DcReads { completions, count: 0, ready: Vec::new() });
        }
        &mut self.dcs[index]
    }

    fn enter(&mut self, read: Tagged) -> u32 {
        match self.vacant.pop() {
            Some(slot) => {
                self.tagged[slot as usize] = Some(read);
                slot
            }
            None => {
                self.tagged.push(Some(read));
                (self.tagged.len() - 1) as u32
            }
        }
    }
}

/// Reads a record as it is now; `None` when there is none. A tombstone is a record.
pub async fn read(
    store: &RefCell<Store>,
    namespace: NamespaceId,
    digest: &Digest,
) -> Result<Option<StoredRecord>, ReadError> {
    for _ in 0..MOVES_MAX {
        let (op, plan, under_way) = {
            let mut store = store.borrow_mut();
            match store.in_memory(namespace, digest)? {
                Poll::Ready(found) => return Ok(found),
                Poll::Pending => {}
            }
            let space = store.space(namespace);
            let Some(entry) = space.lookup(digest) else { return Ok(None) };
            let plan = Plan::of(space, entry);
            let under_way = ClientRead::begin(&store.reads).ok_or(ReadError::Overloaded)?;
            let buffer = store.arena.take(plan.len).ok_or(ReadError::Overloaded)?;
            (store.ring.read(plan.file, plan.offset, buffer, plan.len), plan, under_way)
        };
        let (buffer, result) = op.await;
        drop(under_way);
        match store.borrow_mut().judge(namespace, &plan, buffer, result) {
            Attempt::Record(record) => return Ok(Some(record)),
            Attempt::Gone => return Ok(None),
            Attempt::Failed => return Err(ReadError::Failed),
            Attempt::Moved => {}
        }
    }
    Err(ReadError::Failed)
}

/// One client's read under way; counted out when its future is dropped, too.
struct ClientRead(Rc<Cell<usize>>);

impl ClientRead {
    fn begin(reads: &Reads) -> Option<Self> {
        let count = &reads.client_count;
        if count.get() >= CLIENT_READS_MAX {
            return None;
        }
        count.set(count.get() + 1);
        Some(Self(Rc::clone(count)))
    }
}

impl Drop for ClientRead {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
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
        Ok(Poll::Ready(Some(StoredRecord { buffer, start: 0 })))
    }

    /// Judges what a device read brought.
    fn judge(
        &mut self,
        namespace: NamespaceId,
        plan: &Plan,
        buffer: Buffer,
        result: io::Result<usize>,
    ) -> Attempt {
        let space = &mut self.spaces[namespace.index()];
        space.counters.device_reads += 1;
        if result.is_ok() && plan.is_in(&buffer) {
            return Attempt::Record(StoredRecord { buffer, start: plan.skip });
        }
        match space.lookup(&plan.entry.digest) {
            None => Attempt::Gone,
            Some(entry) if entry.location != plan.entry.location => Attempt::Moved,
            Some(entry) => {
                space.counters.read_errors += 1;
                let (device, _) = space.log.geometry().offset(entry.location.block);
                let offset = plan.offset + plan.skip as u64;
                let reason = result.err().map_or("checksum".to_owned(), |error| error.to_string());
                tracing::error!(
                    "namespace {}: record {} at byte {offset} of device {device} cannot be read: \
                     {reason}",
                    space.id.0,
                    entry.digest,
                );
                Attempt::Failed
            }
        }
    }

    /// Begins a read for a DC; see [`crate::host::RecordSource::begin`].
    pub(super) fn begin_tagged(&mut self, request: ReadRequest) -> bool {
        if self.reads.dc(request.dc).count >= READS_PER_DC_MAX {
            return false;
        }
        let is_begun = self.start_tagged(request, 0);
        if is_begun {
            self.reads.dc(request.dc).count += 1;
        }
        is_begun
    }

    fn start_tagged(&mut self, request: ReadRequest, moves: usize) -> bool {
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
                let op = self.ring.read(plan.file, plan.offset, buffer, plan.len);
                let slot = self.reads.enter(Tagged { request, plan, moves });
                let sink = Rc::clone(&self.reads.dc(dc).completions);
                self.ring.submit_tagged(op, slot.into(), &sink);
                return true;
            }
        };
        self.reads.dc(dc).ready.push(ReadDone { tag, outcome });
        true
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
            let mut scratch = std::mem::take(&mut self.reads.scratch);
            self.reads.dc(dc).completions.drain(&mut scratch);
            scratch.drain(..).for_each(|read| self.finish_tagged(read, done));
            self.reads.scratch = scratch;
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

    fn finish_tagged(&mut self, read: Done, done: &mut Vec<ReadDone<StoredRecord>>) {
        let slot = read.tag as usize;
        let Some(Tagged { request, plan, moves }) = self.reads.tagged[slot].take() else { return };
        self.reads.vacant.push(slot as u32);
        let outcome = match self.judge(request.namespace, &plan, read.buffer, read.result) {
            Attempt::Record(record) => ReadOutcome::Record(record),
            Attempt::Gone => ReadOutcome::Gone,
            Attempt::Moved if moves < MOVES_MAX && self.start_tagged(request, moves + 1) => return,
            Attempt::Moved | Attempt::Failed => ReadOutcome::Failed,
        };
        done.push(ReadDone { tag: request.tag, outcome });
    }
}
