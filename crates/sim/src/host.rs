//! A site as a [`Host`]: what engines ask of it, answered from the model store, and a book of what
//! it showed them.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll};

use crate::op::{view, wire_bins};
use crate::site::Site;
use crate::store::{Key, Rec, shown};
use crate::trace::tell;
use crate::world::{LANES, SETS, lane_of};
use longship::host::{
    Host, IndexWalk, OwnedRecord, Peek, ReadDone, ReadOutcome, ReadRequest, RecordSource, WalkId,
    WalkStep, Walked,
};
use longship::model::{
    DcIndex, Digest, Lut, NamespaceId, PartitionId, RecordFlags, RecordView, SetId, Version,
};
use longship::ship::mutation::{Mutation, planted};

/// Reads of one DC under way at a time.
const READS_MAX: usize = 8;

/// What an engine was shown while it served, in order.
#[derive(Clone, Debug)]
pub(crate) enum Shown {
    /// A record as it was then.
    Record(Key, Box<Rec>),
    /// Nothing is there.
    Gone(Key),
    /// There was no memory for the batch of what was shown last.
    NoMemory,
}

/// What was shown, in order; clones are the same book.
#[derive(Clone, Debug, Default)]
pub(crate) struct Book(Rc<RefCell<Vec<Shown>>>);

impl Book {
    pub(crate) fn note(&self, shown: Shown) {
        self.0.borrow_mut().push(shown);
    }

    pub(crate) fn take(&self) -> Vec<Shown> {
        std::mem::take(&mut self.0.borrow_mut())
    }
}

/// A read that was begun.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    pub(crate) dc: DcIndex,
    pub(crate) tag: u64,
    pub(crate) key: Key,
    /// For a dead letter, not to be shipped.
    pub(crate) for_letter: bool,
}

/// A record that was read.
#[derive(Debug)]
pub(crate) struct ReadRecord {
    key: Key,
    digest: Digest,
    rec: Rec,
    bins: (Vec<u8>, u16),
    /// Where its use is noted, if it is to be shipped.
    book: Option<Book>,
}

impl OwnedRecord for ReadRecord {
    fn view(&self) -> RecordView<'_> {
        if let Some(book) = &self.book {
            book.note(Shown::Record(self.key, Box::new(self.rec.clone())));
        }
        view(self.digest, &self.rec, set_of(self.key), &self.bins)
    }
}

fn set_of(key: Key) -> &'static str {
    SETS[usize::from(key) % SETS.len()]
}

impl Site {
    /// Finishes a read well: the record is as it is now.
    pub(crate) fn finish_read(&mut self, reading: Reading) {
        let Reading { dc, tag, key, for_letter } = reading;
        let outcome = match self.store.get(key) {
            None => ReadOutcome::Gone,
            Some(rec) => ReadOutcome::Record(ReadRecord {
                key,
                digest: self.keys.digest(key),
                bins: wire_bins(rec.bins),
                rec: rec.clone(),
                book: (!for_letter).then(|| self.book.clone()),
            }),
        };
        self.read.push((dc, ReadDone { tag, outcome }));
    }

    /// Finishes a read badly.
    pub(crate) fn fail_read(&mut self, reading: Reading, outcome: ReadOutcome<ReadRecord>) {
        self.read.push((reading.dc, ReadDone { tag: reading.tag, outcome }));
    }

    /// Whether a change's record is being read, or was and is not taken yet.
    pub(crate) fn reads(&self, of: DcIndex, slot: u32) -> bool {
        let is_it = |dc: DcIndex, tag: u64| dc == of && tag == u64::from(slot);
        self.reading.iter().any(|reading| is_it(reading.dc, reading.tag))
            || self.read.iter().any(|(dc, done)| is_it(*dc, done.tag))
    }

    /// The slots whose records were read and are not taken yet.
    pub(crate) fn read_for(&self, of: DcIndex) -> impl Iterator<Item = u32> {
        let records = self
            .read
            .iter()
            .filter(move |(dc, done)| *dc == of && matches!(done.outcome, ReadOutcome::Record(_)));
        records.map(|(_, done)| done.tag as u32)
    }

    fn wall_now(&self) -> Lut {
        self.wall(self.now_us)
    }
}

impl RecordSource for Site {
    type Record = ReadRecord;

    fn peek(&self, namespace: NamespaceId, digest: &Digest) -> Peek<'_> {
        let key = self.keys.key(namespace, digest);
        self.peeked.set(Some(key));
        let Some((rec, bins)) = self.store.held(key) else {
            self.book.note(Shown::Gone(key));
            return Peek::Gone;
        };
        if rec.version.lut() <= self.in_memory_above(namespace) {
            return Peek::OnDevice;
        }
        self.book.note(Shown::Record(key, Box::new(rec.clone())));
        Peek::Here(view(*digest, rec, set_of(key), bins))
    }

    fn begin(&mut self, read: ReadRequest) -> bool {
        let ReadRequest { tag, dc, namespace, digest } = read;
        let key = self.keys.key(namespace, &digest);
        // Who reads to ship has just looked; who writes a letter has not.
        let for_letter = self.peeked.take() != Some(key);
        if self.reading.iter().filter(|reading| reading.dc == dc).count() >= READS_MAX {
            return false;
        }
        self.reading.push(Reading { dc, tag, key, for_letter });
        true
    }

    fn poll_drain(
        &mut self,
        dc: DcIndex,
        _: &mut Context<'_>,
        done: &mut Vec<ReadDone<ReadRecord>>,
    ) -> Poll<()> {
        let before = done.len();
        done.extend(self.read.extract_if(.., |(of, _)| *of == dc).map(|(_, read)| read));
        if done.len() > before { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl IndexWalk for Site {
    fn open(&mut self, namespace: NamespaceId, lanes: &[(PartitionId, Lut)]) -> WalkId {
        let wanted = self
            .keys
            .of(namespace)
            .filter_map(|key| {
                let partition = self.keys.digest(key).partition();
                let (_, lut) = lanes.iter().find(|(lane, _)| *lane == partition)?;
                Some((key, *lut))
            })
            .collect();
        WalkId(self.store.open_walk(wanted, self.walks_index))
    }

    fn poll_step(
        &mut self,
        walk: WalkId,
        _: &mut Context<'_>,
        out: &mut Vec<Walked>,
    ) -> Poll<WalkStep> {
        if self.walks_stall {
            return Poll::Pending;
        }
        let mut give = Vec::new();
        let complete_below = self.store.step_walk(walk.0, &mut give);
        out.extend(give.iter().map(|(key, rec)| {
            let key = *key;
            tell(Some(key), || format!("a walk gives {}", shown(rec)));
            Walked {
                digest: self.keys.digest(key),
                version: rec.version,
                local_lut: rec.local_lut,
                set: self.keys.set(key),
                kind: rec.kind(),
                shipped: rec.flags.has(RecordFlags::SHIPPED),
                src_id: rec.src_id,
            }
        }));
        self.walked.extend(give);
        Poll::Ready(match complete_below {
            Some(complete_below) => WalkStep::More { complete_below },
            None => WalkStep::Done,
        })
    }

    fn close(&mut self, walk: WalkId) {
        self.store.close_walk(walk.0);
    }
}

impl Host for Site {
    fn version_clock(&self, _: NamespaceId) -> Lut {
        // Moves the clock along, so that a wall clock set back cannot undo the promise.
        self.last.set(self.last.get().max(Version::first_of(self.wall_now())));
        let open = self.tickets.iter().map(|ticket| ticket.change.version.lut()).min();
        let open = open.filter(|_| !planted(Mutation::TicketIgnored));
        open.unwrap_or(Lut::MAX).min(self.last.get().lut())
    }

    fn issued(&self, _: NamespaceId) -> Lut {
        self.last.get().lut()
    }

    fn in_memory_above(&self, _: NamespaceId) -> Lut {
        self.memory_ms.map_or(Lut::ZERO, |ms| self.wall_now().minus_ms(ms))
    }

    fn watch_flush(&mut self, _: NamespaceId) {
        self.is_watched = self.store.has_unflushed();
    }

    fn is_flushed(&self, _: NamespaceId) -> bool {
        !self.is_watched
    }

    fn tombstone_horizon(&self, namespace: NamespaceId) -> Lut {
        let of = |key: &&Key| self.keys.namespace(**key) == namespace;
        let raided = self.store.raided.iter().filter(|(key, _)| of(key));
        raided.map(|(_, version)| version.lut()).max().unwrap_or(Lut::ZERO)
    }

    fn set_name(&self, _: NamespaceId, set: SetId) -> &str {
        SETS[usize::from(set.0)]
    }

    fn needed_from(&mut self, namespace: NamespaceId, partition: PartitionId, from: Lut) {
        let lane = (namespace.index(), lane_of(partition) as u16);
        if let Some(below) = self.settled.get_mut(&lane) {
            *below = from.min(*below);
        }
    }

    fn settled_below(&mut self, namespace: NamespaceId, partition: PartitionId, lst: Option<Lut>) {
        debug_assert!(lane_of(partition) < LANES);
        let lane = (namespace.index(), lane_of(partition) as u16);
        self.settled.insert(lane, lst.unwrap_or(Lut::MAX));
    }
}
