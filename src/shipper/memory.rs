//! The host of a store that is held in memory: reads end when they are begun, and a walk is gathered
//! when it is opened.

use std::collections::HashMap;
use std::task::{Context, Poll, Waker};

use super::shard::HostSeed;
use super::ticket::Versions;
use crate::host::{
    Host, IndexWalk, OwnedRecord, ReadDone, ReadOutcome, ReadRequest, RecordSource, WalkId,
    WalkStep, Walked,
};
use crate::model::{DcIndex, Digest, Lut, NamespaceId, PartitionId, SetId};

/// Records of a walk given in one step.
const STEP_RECORDS: usize = 1024;

/// A store that answers from memory. Called on a shard, so its locks are held for moments only.
pub trait MemoryStore: 'static {
    /// A record, kept for as long as it is being sent.
    type Record: OwnedRecord + 'static;

    /// The record as it is now; a tombstone where one was deleted.
    fn get(&self, namespace: NamespaceId, digest: &Digest) -> Option<Self::Record>;

    /// All records and tombstones of these partitions with the LUT given for theirs, or a higher one.
    /// Allocates 48 bytes for each; stores of which that is too much implement [`Host`] itself.
    fn changed(&self, namespace: NamespaceId, lanes: &[(PartitionId, Lut)]) -> Vec<Walked>;

    /// The name of a set; empty for [`SetId::NONE`].
    fn set_name(&self, _namespace: NamespaceId, _set: SetId) -> &str {
        ""
    }
}

/// The host of a [`MemoryStore`], one for each shard. What is in the store counts as durable: nothing
/// outlives the memory that it is in. It keeps all tombstones.
pub struct MemoryHost<S: MemoryStore> {
    store: S,
    versions: Versions,
    reads: HashMap<DcIndex, Reads<S::Record>>,
    walks: HashMap<WalkId, Vec<Walked>>,
    walk_next: u32,
}

struct Reads<R> {
    done: Vec<ReadDone<R>>,
    waker: Option<Waker>,
}

impl<R> Default for Reads<R> {
    fn default() -> Self {
        Self { done: Vec::new(), waker: None }
    }
}

impl<S: MemoryStore> MemoryHost<S> {
    /// Over a store, for the shard that the seed names.
    pub fn new(store: S, seed: HostSeed) -> Self {
        let (reads, walks) = Default::default();
        Self { store, versions: seed.versions, reads, walks, walk_next: 0 }
    }
}

impl<S: MemoryStore> RecordSource for MemoryHost<S> {
    type Record = S::Record;

    fn begin(&mut self, read: ReadRequest) -> bool {
        let found = self.store.get(read.namespace, &read.digest);
        let outcome = found.map_or(ReadOutcome::Gone, ReadOutcome::Record);
        let reads = self.reads.entry(read.dc).or_default();
        reads.done.push(ReadDone { tag: read.tag, outcome });
        reads.waker.take().into_iter().for_each(Waker::wake);
        true
    }

    fn poll_drain(
        &mut self,
        dc: DcIndex,
        cx: &mut Context<'_>,
        done: &mut Vec<ReadDone<S::Record>>,
    ) -> Poll<()> {
        let reads = self.reads.entry(dc).or_default();
        if reads.done.is_empty() {
            reads.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        done.append(&mut reads.done);
        Poll::Ready(())
    }
}

impl<S: MemoryStore> IndexWalk for MemoryHost<S> {
    fn open(&mut self, namespace: NamespaceId, lanes: &[(PartitionId, Lut)]) -> WalkId {
        let id = WalkId(self.walk_next);
        self.walk_next += 1;
        self.walks.insert(id, self.store.changed(namespace, lanes));
        id
    }

    fn poll_step(
        &mut self,
        walk: WalkId,
        _: &mut Context<'_>,
        out: &mut Vec<Walked>,
    ) -> Poll<WalkStep> {
        let Some(left) = self.walks.get_mut(&walk) else { return Poll::Ready(WalkStep::Done) };
        out.extend(left.drain(left.len().saturating_sub(STEP_RECORDS)..));
        let more = WalkStep::More { complete_below: Lut::ZERO };
        Poll::Ready(if left.is_empty() { WalkStep::Done } else { more })
    }

    fn close(&mut self, walk: WalkId) {
        self.walks.remove(&walk);
    }
}

impl<S: MemoryStore> Host for MemoryHost<S> {
    fn version_clock(&self, _: NamespaceId) -> Lut {
        self.versions.clock()
    }

    fn issued(&self, _: NamespaceId) -> Lut {
        self.versions.issued()
    }

    fn watch_flush(&mut self, _: NamespaceId) {}

    fn is_flushed(&self, _: NamespaceId) -> bool {
        true
    }

    fn set_name(&self, namespace: NamespaceId, set: SetId) -> &str {
        self.store.set_name(namespace, set)
    }
}
