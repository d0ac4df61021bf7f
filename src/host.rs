//! The contract with a storage server: what it implements to have its changes shipped, and the
//! types it hands over.
//!
//! A host lives on one shard and is only ever called there. No call blocks or waits; what takes
//! time is begun and later drained. The node's storage is one host; the simulator's model store and
//! an embedding server's engine are others.

use std::task::{Context, Poll};

use crate::config::ItemError;
use crate::model::{DcIndex, Digest, LaneId, Lut, NamespaceId, PartitionId, RecordView, SetId};

pub use crate::model::{StoreRun, Walked};

/// What a host knows about a record without touching its device.
#[derive(Debug)]
pub enum Peek<'a> {
    /// In memory: encode straight from here.
    Here(RecordView<'a>),
    /// Deleted with no trace, or never there.
    Gone,
    /// On the device: ask with [`RecordSource::begin`].
    OnDevice,
}

/// A read to begin.
#[derive(Clone, Copy, Debug)]
pub struct ReadRequest {
    /// Given back unchanged in [`ReadDone`].
    pub tag: u64,
    /// On whose behalf; hosts keep a read quota per DC.
    pub dc: DcIndex,
    /// Namespace of the record.
    pub namespace: NamespaceId,
    /// Digest of the record.
    pub digest: Digest,
}

/// A finished read. Dropping the record gives its buffer back to the host.
#[derive(Debug)]
pub struct ReadDone<R> {
    /// From the [`ReadRequest`].
    pub tag: u64,
    /// The record, or why there is none.
    pub outcome: ReadOutcome<R>,
}

/// What came of a read.
#[derive(Debug)]
pub enum ReadOutcome<R> {
    /// The newest version at the time of reading.
    Record(R),
    /// Deleted with no trace, or never there.
    Gone,
    /// The device or a checksum failed; the host has counted and logged it.
    Failed,
    /// Memory was short: it was not read, and another try may succeed.
    NoMemory,
}

/// A record that owns the memory it was read into.
pub trait OwnedRecord {
    /// Borrows it.
    fn view(&self) -> RecordView<'_>;
}

/// Reads records as they are now.
pub trait RecordSource {
    /// The record type of finished reads.
    type Record: OwnedRecord;

    /// Looks without I/O. Tombstones are records: `Here` with the flag set. [`Peek::OnDevice`] is
    /// always right, and costs a read.
    fn peek(&self, _namespace: NamespaceId, _digest: &Digest) -> Peek<'_> {
        Peek::OnDevice
    }

    /// A hint that these will be peeked at next: what a host does here for many at once, such as
    /// fetching memory, need not be waited for one by one.
    fn prefetch(&self, _namespace: NamespaceId, _digests: &[Digest]) {}

    /// Begins a read. Returns false, with nothing begun, when the DC's read quota is used up; it is
    /// called again after the next drain.
    fn begin(&mut self, read: ReadRequest) -> bool;

    /// Moves the DC's finished reads into `done`, in any order. `Pending` (with the waker kept)
    /// when there are none.
    fn poll_drain(
        &mut self,
        dc: DcIndex,
        cx: &mut Context<'_>,
        done: &mut Vec<ReadDone<Self::Record>>,
    ) -> Poll<()>;
}

/// Names an open walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WalkId(pub u32);

/// Progress of a walk after one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalkStep {
    /// Call again. Every record of the scope whose version or `local_lut` lies below
    /// `complete_below` has been given.
    More {
        /// Exclusive; [`Lut::ZERO`] from hosts that do not walk in LUT order.
        complete_below: Lut,
    },
    /// The whole scope has been given.
    Done,
}

/// What walks would find, as far as a host can tell without looking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// How many records there may be: an estimate, for reports.
    pub records: u64,
    /// None of them changed before this. Of no records at all: nothing will have.
    pub oldest: Lut,
}

/// Finds the records changed since a time, tombstones included, in steps of bounded work.
///
/// A record rewritten during the walk is given all the same, with its newer version. Its own
/// submission does not make up for it: an expiry, or a change that was shipped in, may not be
/// shipped itself and still hide one that is owed.
pub trait IndexWalk {
    /// Opens one pass over `lanes` (partition and lowest LUT wanted, inclusive) of a namespace.
    fn open(&mut self, namespace: NamespaceId, lanes: &[(PartitionId, Lut)]) -> WalkId;

    /// Does a bounded piece of work, appending what it finds to `out`. `Pending` while it waits for
    /// the device.
    fn poll_step(
        &mut self,
        walk: WalkId,
        cx: &mut Context<'_>,
        out: &mut Vec<Walked>,
    ) -> Poll<WalkStep>;

    /// How much of a walk is done, and how much it is in all, in whatever unit advances evenly; from
    /// it people learn how long a recovery takes. `None` from hosts that cannot tell.
    fn work(&self, _walk: WalkId) -> Option<(u64, u64)> {
        None
    }

    /// What a walk over these lanes would find: from it people learn how much there is to ship, and
    /// since when, before a walk has looked. `None` from hosts that cannot tell. May cost a look at
    /// what is known of every block.
    fn expected(&self, _namespace: NamespaceId, _lanes: &[(PartitionId, Lut)]) -> Option<Expected> {
        None
    }

    /// Ends a walk, finished or not.
    fn close(&mut self, walk: WalkId);
}

/// Everything a shard's engine asks of its host.
pub trait Host: RecordSource + IndexWalk + 'static {
    /// No change submitted from now on will have a LUT below this: the version clock less what is
    /// still unpublished. Lanes with nothing outstanding take it as their LST.
    fn version_clock(&self, namespace: NamespaceId) -> Lut;

    /// No version issued so far has a LUT above this. A walk that opens now leaves what is newer to
    /// its own submission; [`Lut::MAX`] is always right, and costs shipping some records twice.
    fn issued(&self, namespace: NamespaceId) -> Lut;

    /// Records changed after this are in memory; others are to be read from the device, and ship in
    /// the order of time. A hint: [`Lut::ZERO`] leaves every order as good as another.
    fn in_memory_above(&self, _namespace: NamespaceId) -> Lut {
        Lut::ZERO
    }

    /// Bytes of a record, on average; 0 from hosts that do not know. Until something has shipped,
    /// people are told by it how much there is to ship.
    fn record_bytes(&self, _namespace: NamespaceId) -> u64 {
        0
    }

    /// Why a namespace's records are not read at present, in words for people; `None` when they are, and
    /// from hosts that do not know.
    fn reads_hang(&self, _namespace: NamespaceId) -> Option<String> {
        None
    }

    /// Remembers what of a namespace has been published so far, for [`Self::is_flushed`].
    fn watch_flush(&mut self, namespace: NamespaceId);

    /// Whether everything published up to the namespace's last [`Self::watch_flush`] survives a crash.
    /// Positions become durable after that: they count on versions that took the place of older ones,
    /// which a crash must not bring back.
    fn is_flushed(&self, namespace: NamespaceId) -> bool;

    /// Highest LUT of a tombstone ever dropped, or more. A walk from below it may miss deletes;
    /// [`Lut::ZERO`] from hosts that never drop any.
    fn tombstone_horizon(&self, _namespace: NamespaceId) -> Lut {
        Lut::ZERO
    }

    /// The name of a set, for filters and dead letters; empty for [`SetId::NONE`].
    fn set_name(&self, _namespace: NamespaceId, _set: SetId) -> &str {
        ""
    }

    /// An item of a namespace was set, as [`NamespaceSettings`] allowed. For hosts that have items.
    fn set(&mut self, _namespace: NamespaceId, _key: &str, _value: &str) {}

    /// Tells the host that a DC needs every change of the namespace's partition from `from` on: it
    /// was attached or rewound. Holds at once, whatever the host is about: no tombstone with that
    /// LUT or a higher one may be dropped any more, until [`Host::settled_below`] says so anew.
    /// For hosts that drop tombstones.
    fn needed_from(&mut self, _namespace: NamespaceId, _partition: PartitionId, _from: Lut) {}

    /// Tells the host that every change of the namespace's partition below `lst` is settled at
    /// every DC, so that it may drop tombstones older than that. `None` when no DC is attached.
    /// For hosts that drop tombstones.
    fn settled_below(
        &mut self,
        _namespace: NamespaceId,
        _partition: PartitionId,
        _lst: Option<Lut>,
    ) {
    }
}

/// The items of namespaces that may be changed while all shards run, with
/// `set-config:context=namespace`. One for the process: what it allows, [`Host::set`] of every shard
/// takes over.
pub trait NamespaceSettings: std::fmt::Debug + Send {
    /// Sets an item. False if it was so before.
    ///
    /// # Errors
    /// There is no such item, or the value is not allowed.
    fn set(&mut self, namespace: NamespaceId, key: &str, value: &str) -> Result<bool, ItemError>;

    /// What there is to say of a name that is no item of shipping's, where the host's own
    /// configuration knows it.
    fn explain(&self, _key: &str) -> Option<ItemError> {
        None
    }
}

/// Of namespaces without items.
#[derive(Clone, Copy, Debug)]
pub struct NoSettings;

impl NamespaceSettings for NoSettings {
    fn set(&mut self, _: NamespaceId, _: &str, _: &str) -> Result<bool, ItemError> {
        Err(ItemError::Unknown { nearest: None })
    }
}

/// The persisted position of one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The lane; DC indexes are those of [`Marks::dcs`].
    pub lane: LaneId,
    /// Exclusive: every change with a LUT below it is settled.
    pub lst: Lut,
}

/// A consistent set of marks, by name so that they survive a change of configuration order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// Name of each DC, indexed by [`DcIndex`].
    pub dcs: Vec<String>,
    /// Name of each namespace, indexed by [`NamespaceId`].
    pub namespaces: Vec<String>,
    /// The store that each of them had, in the same order: positions count beside that one only.
    pub stores: Vec<StoreRun>,
    /// One row per lane that has ever had a position. A lane without a row was never seen.
    pub lanes: Vec<Mark>,
    /// What is known of who took what was shipped.
    pub holders: Vec<Holder>,
    /// What there was of dead letters.
    pub letters: LettersMark,
}

/// What the file of dead letters held when marks were made that pass the changes they stand for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LettersMark {
    /// How often the file has been written anew.
    pub generation: u32,
    /// Letters appended to it since, with those it was made with.
    pub frames: u32,
    /// Whose letters they are, by DC and namespace; indexes of [`Marks::dcs`] and
    /// [`Marks::namespaces`].
    pub owners: Vec<(DcIndex, NamespaceId)>,
}

/// Who took what a DC ships of a namespace, and what is missing there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The DC; an index of [`Marks::dcs`].
    pub dc: DcIndex,
    /// The namespace at the source; an index of [`Marks::namespaces`].
    pub namespace: NamespaceId,
    /// The store at a Longship destination, as told last, and the boot id of the process that told it.
    pub store: Option<(StoreRun, u64)>,
    /// Why the destination lacks something, until the operator has rewound the DC.
    pub hole: Option<Hole>,
}

/// Why a destination lacks what the positions say it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hole {
    /// Another store answers there.
    OtherStore,
    /// The store is an older copy of itself.
    OlderCopy,
    /// Its operator has let it start without a part of what it held.
    Incomplete,
    /// Changes were given up, and their dead letters are lost.
    LettersLost,
}

/// Why marks could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The system refused to read or write the file.
    #[error("cannot {action} the shipping marks in {path}: {source}{remedy}")]
    Io {
        /// What was tried, as a verb for the message.
        action: &'static str,
        /// Path of the marks file.
        path: std::path::PathBuf,
        /// The system's error.
        source: std::io::Error,
        /// What to do about it: begins with "; ", or is empty where nothing is known.
        remedy: &'static str,
    },
    /// The file is there and neither copy in it is whole: recover from the oldest record, loudly.
    #[error("the shipping marks in {path} are unreadable: both copies fail their checksum")]
    Corrupt {
        /// Path of the marks file.
        path: std::path::PathBuf,
    },
}

/// Keeps marks durable. Called from a thread outside the shards, since it may block.
pub trait CheckpointStore: Send {
    /// The marks of the last store that completed; `None` when there never was one.
    fn load(&mut self) -> Result<Option<Marks>, StoreError>;

    /// Makes `marks` durable before it returns; a crash during it leaves the former ones.
    fn store(&mut self, marks: &Marks) -> Result<(), StoreError>;
}
