//! A host for tests, which only notes what it is told.

use std::collections::HashMap;
use std::task::{Context, Poll};

use crate::host::{
    Host, IndexWalk, OwnedRecord, Peek, ReadDone, ReadOutcome, ReadRequest, RecordSource, WalkId,
    WalkStep, Walked,
};
use crate::model::{
    DcIndex, Digest, Lut, NamespaceId, PartitionId, RecordFlags, RecordView, SrcId, Version,
};

/// The version clock.
pub(super) const CLOCK: Lut = Lut::from_ms(1_000_000);

/// A host whose every record is a tombstone of the version clock's time.
#[derive(Default)]
pub(super) struct Tombstones {
    /// The cluster they were shipped from, if they were.
    pub origin: SrcId,
    /// Nothing was ever written.
    pub is_blank: bool,
    /// Every record has expired, without a trace.
    pub is_empty: bool,
    /// Their devices answer nothing.
    pub hanging: Vec<NamespaceId>,
    /// Their records are on the device.
    pub on_device: Vec<NamespaceId>,
    /// How long ago the oldest change was made that its writer has not submitted.
    pub late_ms: u64,
    /// Reads that are under way, two at most.
    pub reading: Vec<ReadRequest>,
    /// Reads that are done.
    pub read: Vec<ReadDone<Tombstone>>,
    /// What [`Host::needed_from`] was told.
    pub needed: Vec<(PartitionId, Lut)>,
    /// What [`Host::settled_below`] was told last.
    pub settled: HashMap<(NamespaceId, PartitionId), Option<Lut>>,
}

pub(super) struct Tombstone(Digest);

impl OwnedRecord for Tombstone {
    fn view(&self) -> RecordView<'_> {
        RecordView::new(self.0, Version::first_of(CLOCK), 0, &[])
    }
}

impl Tombstones {
    /// The device answers all that was asked.
    pub(super) fn finish_reads(&mut self) {
        let record = |digest| ReadOutcome::Record(Tombstone(digest));
        let done = self.reading.drain(..);
        self.read.extend(done.map(|read| ReadDone { tag: read.tag, outcome: record(read.digest) }));
    }
}

impl RecordSource for Tombstones {
    type Record = Tombstone;

    fn peek(&self, namespace: NamespaceId, digest: &Digest) -> Peek<'_> {
        if self.is_empty {
            return Peek::Gone;
        }
        if self.on_device.contains(&namespace) {
            return Peek::OnDevice;
        }
        let record = RecordView::new(*digest, Version::first_of(CLOCK), 0, &[]);
        let flags = record.flags.with(RecordFlags::SHIPPED, self.origin != SrcId::NONE);
        Peek::Here(RecordView { flags, src_id: self.origin, ..record })
    }

    fn begin(&mut self, read: ReadRequest) -> bool {
        let is_taken = self.reading.len() < 2;
        self.reading.extend(is_taken.then_some(read));
        is_taken
    }

    fn poll_drain(
        &mut self,
        _: DcIndex,
        _: &mut Context<'_>,
        done: &mut Vec<ReadDone<Tombstone>>,
    ) -> Poll<()> {
        done.append(&mut self.read);
        if done.is_empty() { Poll::Pending } else { Poll::Ready(()) }
    }
}

impl IndexWalk for Tombstones {
    fn open(&mut self, _: NamespaceId, _: &[(PartitionId, Lut)]) -> WalkId {
        WalkId(0)
    }

    fn poll_step(&mut self, _: WalkId, _: &mut Context<'_>, _: &mut Vec<Walked>) -> Poll<WalkStep> {
        Poll::Ready(WalkStep::Done)
    }

    fn close(&mut self, _: WalkId) {}
}

impl Host for Tombstones {
    fn version_clock(&self, _: NamespaceId) -> Lut {
        CLOCK.minus_ms(self.late_ms)
    }

    fn issued(&self, _: NamespaceId) -> Lut {
        if self.is_blank { Lut::ZERO } else { CLOCK }
    }

    fn reads_hang(&self, namespace: NamespaceId) -> Option<String> {
        self.hanging.contains(&namespace).then(|| "its device hangs".to_owned())
    }

    fn watch_flush(&mut self, _: NamespaceId) {}

    fn is_flushed(&self, namespace: NamespaceId) -> bool {
        !self.hanging.contains(&namespace)
    }

    fn needed_from(&mut self, _: NamespaceId, partition: PartitionId, from: Lut) {
        self.needed.push((partition, from));
    }

    fn settled_below(&mut self, ns: NamespaceId, partition: PartitionId, lst: Option<Lut>) {
        self.settled.insert((ns, partition), lst);
    }
}
