//! One namespace on one shard: index, sets, log and head, moved together.
//!
//! A write is one step: it is appended to the open block and entered in the index without anything
//! in between. Where writes must be durable first (`commit-to-device`) the entry in the index
//! waits, in the order of the writes. Until then [`Space::latest`] alone finds the record as it
//! will be: writes build on it, and reads do not see it yet.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use super::flat;
use super::index::{BlockId, EntryPlace, Index, IndexEntry, Location};
use super::log::{Log, LogPositions, Purpose};
use super::loss::loss_window_ms;
use super::sets::Sets;
use super::volume::Volume;
use super::walk::Walks;
use super::whole::Source;
use super::write::{AppendRefused, Appending, Head, HeadLimits};
use longship::host::Peek;
use longship::model::{
    Change, ChangeKind, Digest, DigestMap, Generation, Lut, NamespaceId, RecordFlags, RecordView,
    SetId, ShardIndex, SrcId, Tick, Version, VoidTime,
};
use longship::ship::mutation::{Mutation, planted};
use longship_rt::arena::Arena;
use longship_rt::disk_ring::{DiskRing, FileId};
use longship_rt::metrics::LogLimit;
use longship_rt::prefetch::prefetch_bytes;

use crate::config::{NamespaceConfig, StorageConfig};

/// Most of a record that is fetched ahead: the processor goes on with a long one by itself.
const PREFETCH_BYTES_MAX: usize = 512;

/// A record to write. Set and key are the record's for good, so a later write repeats them; a
/// tombstone has them and no bins.
#[derive(Clone, Copy, Debug)]
pub struct WriteRecord<'a> {
    /// Identity.
    pub digest: Digest,
    /// Set name; empty for none.
    pub set: &'a str,
    /// User key with its particle type in front; empty when there is none to store.
    pub key: &'a [u8],
    /// Number of bins.
    pub bin_count: u16,
    /// Bins as WRITE operations in wire form.
    pub bins: &'a [u8],
    /// Write count of the record with this write.
    pub generation: Generation,
    /// Expiry.
    pub void_time: VoidTime,
    /// Facts about this write.
    pub flags: RecordFlags,
    /// Cluster of origin of a shipped write.
    pub src_id: SrcId,
}

/// Who writes, and so who submits the change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Author {
    /// A client or a shipper: the caller submits, unless the write must be durable first.
    Caller,
    /// The store itself: published, and given for submission, by [`super::store::Store::publish`].
    Background,
}

/// A write that was taken.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    /// What to submit for shipping.
    pub change: Change,
    /// Names the write towards [`super::store::committed`].
    pub position: u64,
    /// Visible now: submit the change in the same step. Otherwise it is given by
    /// [`super::store::Store::publish`] once it is durable.
    pub is_published: bool,
}

/// Why a write was not taken. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteRefused {
    /// The device does not keep up (result 18).
    #[error("the device does not keep up")]
    Overloaded,
    /// No space, or the used share is above `stop-writes-used-pct` (result 8).
    #[error("no space left")]
    Full,
    /// It fits in no block (result 13).
    #[error("the record is too big")]
    TooBig,
    /// The namespace has 4095 sets already.
    #[error("too many sets")]
    TooManySets,
    /// A write to the device failed earlier: nothing can be promised any more.
    #[error("an earlier write to the device failed")]
    Poisoned,
    /// The store is being closed.
    #[error("the store is being closed")]
    Stopping,
}

impl From<AppendRefused> for WriteRefused {
    fn from(refused: AppendRefused) -> Self {
        match refused {
            AppendRefused::Full => Self::Full,
            AppendRefused::Overloaded => Self::Overloaded,
            AppendRefused::TooBig => Self::TooBig,
        }
    }
}

/// What a namespace holds and what became of it, on this shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpaceStats {
    /// Records that are not deleted.
    pub objects: u64,
    /// Deleted records still remembered.
    pub tombstones: u64,
    /// Bytes of both on the device.
    pub used_bytes: u64,
    /// Bytes of the shard's blocks.
    pub total_bytes: u64,
    /// Blocks that may be written now.
    pub free_blocks: u64,
    /// The shard's blocks.
    pub total_blocks: u64,
    /// Bytes taken and not yet on the device.
    pub write_cache_bytes: u64,
    /// Memory of the index.
    pub index_bytes: u64,
    /// Reads answered from memory.
    pub cache_hits: u64,
    /// Records read from the device.
    pub device_reads: u64,
    /// Of these, such as came with a neighbour.
    pub merged_reads: u64,
    /// Reads that failed, by the device or by a checksum.
    pub read_errors: u64,
    /// Writes refused because the device does not keep up.
    pub refused_overload: u64,
    /// Writes refused for want of space.
    pub refused_full: u64,
    /// Writes refused since there are as many sets as there can be.
    pub refused_sets: u64,
    /// Records moved by defragmentation.
    pub moved_records: u64,
    /// Bytes moved by defragmentation.
    pub moved_bytes: u64,
    /// Records expired.
    pub expired_records: u64,
    /// Tombstones dropped.
    pub raided_tombstones: u64,
    /// LUT of the newest of them, over restarts; zero when there never was one.
    pub tombstone_horizon: Lut,
    /// Blocks read to find tombstones that may go.
    pub raided_blocks: u64,
    /// For how many seconds the oldest read under way has been.
    pub read_wait_s: u64,
    /// For how many seconds the oldest write or flush under way has been.
    pub write_wait_s: u64,
    /// Nothing more is taken: a write to the device failed.
    pub is_poisoned: bool,
    /// Writes of new data are refused at present: for want of room, or since a device failed.
    pub refuses_writes: bool,
}

/// Events counted as they happen.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counters {
    pub(super) cache_hits: u64,
    pub(super) device_reads: u64,
    pub(super) merged_reads: u64,
    pub(super) read_errors: u64,
    pub(super) refused_overload: u64,
    pub(super) refused_full: u64,
    pub(super) refused_sets: u64,
    pub(super) moved_records: u64,
    pub(super) moved_bytes: u64,
    pub(super) expired: u64,
    pub(super) raided: u64,
    pub(super) raided_blocks: u64,
}

/// The two logs of a shard's part of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Writes,
    Moves,
}

/// A write that is in the log and not yet visible.
struct Pending {
    position: u64,
    entry: IndexEntry,
    change: Change,
}

/// One namespace on one shard.
pub struct Space {
    pub(super) id: NamespaceId,
    pub(super) index: Index,
    pub(super) sets: Sets,
    pub(super) log: Log,
    /// Where writes are appended.
    pub(super) head: Head,
    /// Where defragmentation appends, so that old records and new ones do not share blocks.
    pub(super) mover: Head,
    pub(super) files: Vec<FileId>,
    /// Open recovery walks.
    pub(super) walks: Walks,
    /// What of its blocks the device could not read at a cold start.
    pub(super) holes: Vec<(BlockId, Range<usize>)>,
    /// Blocks that a start found damaged.
    pub(super) damaged: Vec<BlockId>,
    pub(super) counters: Counters,
    pub(super) read_errors_log: LogLimit,
    pub(super) is_poisoned: bool,
    pub(super) commit: bool,
    pub(super) flush_max_ms: u64,
    /// Each write is made to survive a power failure by itself: it costs no more.
    pub(super) durable_writes: bool,
    pub(super) defrag_lwm_pct: u32,
    pub(super) nsup_period_s: u64,
    pub(super) raider_period_s: u64,
    pub(super) stop_writes_used_pct: u8,
    /// A write found no block to fill, and none has come back for writes since. A delete that finds one
    /// is no sign of that: some are kept for deletes.
    lacks_blocks: bool,
    used_bytes: u64,
    /// In the order of the log, like `arrived`.
    pending: VecDeque<Pending>,
    /// Blocks of writes that are on the device, of which some may be pending.
    arrived: VecDeque<BlockId>,
    /// The newest pending version of a record.
    unpublished: DigestMap<IndexEntry>,
}

/// Bounds of a shard's head.
fn head_limits(storage: &StorageConfig, volume: &Volume) -> HeadLimits {
    let write_cache = storage.max_write_cache * volume.devices.len() as u64;
    HeadLimits {
        flush_max_ms: storage.flush_max_ms.into(),
        commit: storage.commit_to_device,
        unwritten_bytes_max: (write_cache / u64::from(volume.shard_count))
            .max(2 * u64::from(volume.block_bytes)),
        loss_window_ms: loss_window_ms(storage),
    }
}

/// Blocks a shard keeps in memory once they are written.
fn cached_max(storage: &StorageConfig, volume: &Volume) -> usize {
    let of_shard = storage.post_write_cache / u64::from(volume.shard_count);
    (of_shard / u64::from(volume.block_bytes)) as usize
}

impl Space {
    /// An empty one. `files` are the volume's devices as the shard's ring knows them.
    pub fn new(
        id: NamespaceId,
        config: &NamespaceConfig,
        volume: &Volume,
        shard: ShardIndex,
        files: Vec<FileId>,
    ) -> Self {
        let storage = &config.storage;
        let limits = head_limits(storage, volume);
        Self {
            id,
            index: Index::new(volume.shard_count),
            sets: Sets::new(Arc::clone(&volume.sets)),
            log: Log::new(volume, shard, cached_max(storage, volume)),
            head: Head::new(limits, volume.block_bytes),
            mover: Head::new(HeadLimits { commit: false, ..limits }, volume.block_bytes),
            files,
            walks: Walks::default(),
            holes: Vec::new(),
            damaged: Vec::new(),
            counters: Counters::default(),
            read_errors_log: LogLimit::every_s(5),
            is_poisoned: false,
            commit: limits.commit,
            flush_max_ms: limits.flush_max_ms,
            durable_writes: volume.has_cheap_durable_writes,
            defrag_lwm_pct: storage.defrag_lwm_pct.into(),
            nsup_period_s: config.nsup_period_s.into(),
            raider_period_s: config.xdr_tomb_raider_period_s.into(),
            stop_writes_used_pct: storage.stop_writes_used_pct,
            lacks_blocks: false,
            used_bytes: 0,
            pending: VecDeque::new(),
            arrived: VecDeque::new(),
            unpublished: DigestMap::default(),
        }
    }

    /// Takes over what may change at run time.
    pub fn configure(&mut self, config: &NamespaceConfig, volume: &Volume) {
        let storage = &config.storage;
        let limits = head_limits(storage, volume);
        self.flush_max_ms = limits.flush_max_ms;
        self.head.set_bounds(&limits);
        self.mover.set_bounds(&limits);
        self.log.set_cached_max(cached_max(storage, volume));
        self.defrag_lwm_pct = storage.defrag_lwm_pct.into();
        self.stop_writes_used_pct = storage.stop_writes_used_pct;
        self.nsup_period_s = config.nsup_period_s.into();
        self.raider_period_s = config.xdr_tomb_raider_period_s.into();
    }

    /// The entry of a record as readers see it.
    #[inline]
    pub fn lookup(&self, digest: &Digest) -> Option<IndexEntry> {
        self.index.get(digest)
    }

    /// The entry of a record as the next write finds it: with writes not yet published.
    #[inline]
    pub fn latest(&self, digest: &Digest) -> Option<IndexEntry> {
        self.latest_at(&self.index.find(digest), digest)
    }

    /// [`Space::latest`] of a record whose digest was found at `place` of the index.
    #[inline]
    pub fn latest_at(&self, place: &EntryPlace, digest: &Digest) -> Option<IndexEntry> {
        let pending = if self.unpublished.is_empty() { None } else { self.unpublished.get(digest) };
        pending.copied().or_else(|| self.index.at(place, digest))
    }

    /// Brings what lookups of these digests touch, and the records that are in memory or `kept`
    /// otherwise, into the cache.
    pub fn prefetch<'a>(&'a self, digests: &[Digest], kept: impl Fn(Location) -> Option<&'a [u8]>) {
        self.index.prefetch(digests, |location| {
            if let Some(bytes) = self.bytes_in_memory(location).or_else(|| kept(location)) {
                prefetch_bytes(&bytes[..bytes.len().min(PREFETCH_BYTES_MAX)]);
            }
        });
    }

    /// Looks for a record in memory.
    pub fn peek(&self, entry: Option<&IndexEntry>) -> Peek<'_> {
        let Some(entry) = entry else { return Peek::Gone };
        match self.in_memory(entry.location) {
            Some(record) => Peek::Here(record),
            None => Peek::OnDevice,
        }
    }

    /// The record at a location, when its block is in memory.
    fn in_memory(&self, location: Location) -> Option<RecordView<'_>> {
        flat::view(self.bytes_in_memory(location)?).ok()
    }

    /// The bytes of a record, when its block is in memory.
    pub(super) fn bytes_in_memory(&self, location: Location) -> Option<&[u8]> {
        let memory = self.log.block(location.block)?.memory.as_ref()?;
        let (start, extent) = (location.offset as usize, location.extent as usize);
        memory.as_slice().get(start..start + extent)
    }

    /// Takes a write as `version`, appends it, and unless it must be durable first enters it in the
    /// index, where its digest was found at `place`.
    pub fn write(
        &mut self,
        arena: &Arena,
        place: &EntryPlace,
        record: &WriteRecord<'_>,
        author: Author,
        version: Version,
        now: Tick,
    ) -> Result<Written, WriteRefused> {
        let former = self.latest_at(place, &record.digest);
        let (set, purpose) = self.admit(record, former.is_some())?;
        let shipped = record.flags.has(RecordFlags::SHIPPED);
        // Neither is an own change: what is owed of the record is older, if there is anything.
        let local_lut = match former {
            _ if !shipped && !record.flags.has(RecordFlags::NSUP) => version.lut(),
            Some(former) => former.local_lut,
            None => Lut::ZERO,
        };
        let how = Appending { purpose, clock: version, now };
        let view = record.view(version, local_lut);
        let location = self.head.append(&mut self.log, arena, &view, &how);
        let location = location.inspect_err(|refused| self.count_refusal(*refused))?;
        self.lacks_blocks &= self.log.free_count() <= self.log.reserve();
        let entry = IndexEntry {
            digest: record.digest,
            version,
            local_lut,
            location,
            generation: record.generation,
            void_time: record.void_time,
            set,
            flags: record.flags,
            src_id: record.src_id,
        };
        let change = Change {
            namespace: self.id,
            digest: record.digest,
            version,
            previous_lut: former.map(|former| former.version.lut()),
            set,
            kind: kind_of(record.flags),
            shipped,
            src_id: record.src_id,
        };
        let position = self.head.appended();
        let is_published = !self.commit && author == Author::Caller;
        if is_published {
            if !self.unpublished.is_empty() {
                self.unpublished.remove(&entry.digest);
            }
            self.enter_at(place, &entry);
        } else {
            self.unpublished.insert(entry.digest, entry);
            self.pending.push_back(Pending { position, entry, change });
        }
        Ok(Written { change, position, is_published })
    }

    /// Whether a write may go on, as what, and in which set.
    fn admit(
        &mut self,
        record: &WriteRecord<'_>,
        exists: bool,
    ) -> Result<(SetId, Purpose), WriteRefused> {
        let is_delete = record.flags.has(RecordFlags::TOMBSTONE);
        if self.is_poisoned {
            return Err(WriteRefused::Poisoned);
        }
        if !exists && !self.index.has_room() {
            self.counters.refused_full += 1;
            return Err(WriteRefused::Full);
        }
        let set = match self.sets.intern(record.set) {
            Some(set) => set,
            None => {
                self.give_back_sets();
                let set = self.sets.intern(record.set);
                self.counters.refused_sets += u64::from(set.is_none());
                set.ok_or(WriteRefused::TooManySets)?
            }
        };
        Ok((set, if is_delete { Purpose::Delete } else { Purpose::Write }))
    }

    /// Whether a client's write or delete may go on, as far as that does not depend on the record.
    /// Deletes are taken when there is no room for writes: they make room.
    #[inline]
    pub(super) fn gate(&mut self, is_delete: bool) -> Result<(), WriteRefused> {
        if self.is_poisoned {
            self.counters.refused_overload += 1;
            return Err(WriteRefused::Poisoned);
        }
        if self.head.is_overloaded(1) {
            self.counters.refused_overload += 1;
            return Err(WriteRefused::Overloaded);
        }
        if !is_delete && self.is_above_stop_writes() {
            self.counters.refused_full += 1;
            return Err(WriteRefused::Full);
        }
        Ok(())
    }

    /// Why a write was refused as too much for the device, in words, and what to do about it.
    pub(super) fn why_overloaded(&self, now: Tick) -> String {
        let waiting = self.head.unwritten_bytes();
        if self.head.is_overdue(now) {
            return "a write that was taken longer ago than a crash may cost is not durable yet: see \
                    what its devices need for a flush (iostat -x), or raise flush-max-ms"
                .to_owned();
        }
        let has_block = self.log.free_count() > self.log.reserve();
        if has_block || self.head.is_overloaded(u64::from(self.log.geometry().block_bytes)) {
            return format!(
                "{waiting} bytes wait to be written by this shard: look at its devices (iostat -x), \
                 or raise max-write-cache"
            );
        }
        "no block is free until one more is defragmented: add devices, or raise defrag-lwm-pct"
            .to_owned()
    }

    /// Whether clients' writes are refused at present as too much for the device.
    pub(super) fn is_overloaded(&self, now: Tick) -> bool {
        self.head.is_overloaded(1) || self.head.is_overdue(now)
    }

    pub(super) fn used_pct(&self) -> u64 {
        (self.used_bytes * 100).checked_div(self.total_bytes()).unwrap_or(0)
    }

    fn is_above_stop_writes(&self) -> bool {
        let limit = u64::from(self.stop_writes_used_pct);
        limit > 0 && self.used_bytes * 100 >= self.total_bytes() * limit
    }

    pub(super) fn give_back_sets(&mut self) {
        let Self { sets, pending, .. } = self;
        sets.give_back(|set| pending.iter().any(|pending| pending.entry.set == set));
    }

    /// Whether writes of new data are refused at present.
    pub(super) fn refuses_writes(&self) -> bool {
        let lacks_blocks = self.lacks_blocks && self.log.free_count() <= self.log.reserve();
        let is_full = self.is_above_stop_writes() || lacks_blocks || !self.index.has_room();
        self.is_poisoned || is_full
    }

    fn count_refusal(&mut self, refused: AppendRefused) {
        match refused {
            AppendRefused::Full => {
                self.counters.refused_full += 1;
                self.lacks_blocks = true;
            }
            AppendRefused::Overloaded => self.counters.refused_overload += 1,
            AppendRefused::TooBig => {}
        }
    }

    /// Makes a record in the log the record, in place of its former version.
    pub(super) fn enter(&mut self, entry: &IndexEntry) {
        self.enter_at(&self.index.find(&entry.digest), entry);
    }

    /// [`Space::enter`] of a record whose digest was found at `place` of the index.
    pub(super) fn enter_at(&mut self, place: &EntryPlace, entry: &IndexEntry) {
        self.sets.add(entry);
        self.used_bytes += u64::from(entry.location.extent);
        if let Some(former) = self.index.put_at(place, entry) {
            self.uncount(&former);
            self.departed(&former, Some(entry.location));
        }
    }

    /// Counts a record as one of another set from now on.
    pub(super) fn put_in_set(&mut self, entry: &IndexEntry, set: SetId) {
        self.sets.subtract(entry);
        let entry = IndexEntry { set, ..*entry };
        self.sets.add(&entry);
        self.index.put(&entry);
    }

    /// Takes a tombstone that nobody needs out of the index.
    pub(super) fn forget(&mut self, entry: &IndexEntry) {
        self.index.remove(&entry.digest);
        self.uncount(entry);
        self.departed(entry, None);
        self.log.tombstone_horizon = self.log.tombstone_horizon.max(entry.version.lut());
        self.counters.raided += 1;
    }

    /// Moves a record, if it still lies at `from`, to the end of the log of moves; false when it
    /// does not. `copy` is the record as it lies there.
    pub(super) fn relocate(
        &mut self,
        arena: &Arena,
        from: Location,
        copy: &[u8],
        digest: &Digest,
        how: &Appending,
    ) -> Result<bool, AppendRefused> {
        let place = self.index.find(digest);
        let entry = self.index.at(&place, digest).filter(|entry| entry.location == from);
        let Some(entry) = entry else { return Ok(false) };
        let stamps = (entry.version, entry.local_lut);
        let location = self.mover.append_copy(&mut self.log, arena, copy, stamps, how)?;
        self.index.relocate_at(&place, digest, location);
        self.departed(&entry, Some(location));
        self.counters.moved_records += 1;
        self.counters.moved_bytes += u64::from(from.extent);
        Ok(true)
    }

    fn uncount(&mut self, former: &IndexEntry) {
        if !planted(Mutation::ReplacedCounted) {
            self.sets.subtract(former);
        }
        self.used_bytes -= u64::from(former.location.extent);
    }

    /// An entry of the index has left its block: for one at `to`, or for good. Every way in which
    /// entries change ends here. Open walks follow it, and what it occupied is given up once
    /// everything appended so far is durable.
    fn departed(&mut self, former: &IndexEntry, to: Option<Location>) {
        if self.walks.any() && !planted(Mutation::WalksUntold) {
            self.walks.departed(&self.log, former, to);
        }
        self.log.drop_live(former.location, self.appended());
    }

    /// Where one of the namespace's blocks is read from.
    pub(super) fn source(&self, ring: &DiskRing, arena: &Arena, id: BlockId) -> Source {
        let (device, offset) = self.log.geometry().offset(id);
        let bytes = self.log.geometry().block_bytes as usize;
        Source { ring: ring.clone(), arena: arena.clone(), file: self.files[device], offset, bytes }
    }

    /// Where both logs end.
    pub(super) fn appended(&self) -> LogPositions {
        LogPositions { writes: self.head.appended(), moves: self.mover.appended() }
    }

    /// How far both logs are on the device, if perhaps in its volatile cache.
    pub(super) fn written(&self) -> LogPositions {
        LogPositions { writes: self.head.written(), moves: self.mover.written() }
    }

    /// How far both logs would survive a power failure.
    pub(super) fn durable(&self) -> LogPositions {
        LogPositions { writes: self.head.durable(), moves: self.mover.durable() }
    }

    /// A piece of one of the logs has arrived on the device.
    pub(super) fn piece_arrived(&mut self, stream: Stream, end: u64) {
        self.stream(stream).arrived(end);
        let needed = self.appended();
        while let Some(id) = self.mover.next_filled() {
            self.log.filled(id, needed, false);
        }
        self.release_filled();
        if self.durable_writes {
            self.made_durable(self.written());
        }
    }

    /// Blocks that are on the device as a whole, and in which every record is visible or replaced, are
    /// full: what is visible of them may be moved away.
    fn release_filled(&mut self) {
        while let Some(id) = self.head.next_filled() {
            self.arrived.push_back(id);
        }
        let (needed, waiting) = (self.appended(), self.pending.front());
        let waiting = waiting.map(|pending| pending.entry.location.block);
        while let Some(id) = self.arrived.pop_front_if(|id| Some(*id) != waiting) {
            self.log.filled(id, needed, true);
        }
    }

    /// Everything before `positions` would survive a power failure.
    pub(super) fn made_durable(&mut self, positions: LogPositions) {
        self.head.made_durable(positions.writes);
        self.mover.made_durable(positions.moves);
        self.settle();
    }

    /// Releases what has become durable, and takes what other shards have left meanwhile.
    pub(super) fn settle(&mut self) {
        self.log.settle(self.durable());
    }

    pub(super) fn stream(&mut self, stream: Stream) -> &mut Head {
        match stream {
            Stream::Writes => &mut self.head,
            Stream::Moves => &mut self.mover,
        }
    }

    /// Publishes what has become durable, in order; gives the changes to submit in the same step.
    pub(super) fn publish(&mut self, out: &mut Vec<Change>) {
        let durable = self.publishable_position();
        while let Some(pending) = self.pending.pop_front_if(|p| p.position <= durable) {
            let Pending { entry, change, .. } = pending;
            let known = self.index.get(&entry.digest);
            if known.is_some_and(|known| known.version > entry.version) {
                // Written again while it waited: that write was submitted and covers this one.
                self.log.drop_live(entry.location, self.appended());
                continue;
            }
            self.enter(&entry);
            if self.unpublished.get(&entry.digest).is_some_and(|e| e.version == entry.version) {
                self.unpublished.remove(&entry.digest);
            }
            out.push(change);
        }
        self.release_filled();
    }

    /// Whether [`Space::publish`] has something to do.
    pub(super) fn has_publishable(&self) -> bool {
        let durable = self.publishable_position();
        self.pending.front().is_some_and(|pending| pending.position <= durable)
    }

    fn publishable_position(&self) -> u64 {
        let waits = self.commit && !planted(Mutation::ShownEarly);
        if waits { self.head.durable() } else { u64::MAX }
    }

    /// LUT of the oldest write not yet visible.
    pub(super) fn oldest_unpublished(&self) -> Option<Lut> {
        self.pending.front().map(|pending| pending.change.version.lut())
    }

    /// Position up to which every write is visible.
    pub(super) fn published_position(&self) -> u64 {
        match self.pending.front() {
            Some(pending) => pending.position - 1,
            None => u64::MAX,
        }
    }

    /// Index, sets and blocks were put back from a checkpoint.
    pub(super) fn restored(&mut self) {
        self.used_bytes = self.sets.total().bytes;
    }

    /// Whether nothing waits to be shown.
    #[cfg(feature = "sim")]
    pub(super) fn is_at_rest(&self) -> bool {
        self.pending.is_empty()
    }

    fn total_bytes(&self) -> u64 {
        self.log.own_count() as u64 * u64::from(self.log.geometry().block_bytes)
    }

    /// What a record takes in the log, on average.
    pub fn record_bytes(&self) -> u64 {
        self.used_bytes / (self.index.len() as u64).max(1)
    }

    /// Statistics but for those of the ring; walks the list of sets.
    pub(super) fn stats(&self) -> SpaceStats {
        let total = self.sets.total();
        SpaceStats {
            objects: total.objects,
            tombstones: total.tombstones,
            used_bytes: self.used_bytes,
            total_bytes: self.total_bytes(),
            free_blocks: self.log.free_count() as u64,
            total_blocks: self.log.own_count() as u64,
            write_cache_bytes: self.head.unwritten_bytes() + self.mover.unwritten_bytes(),
            index_bytes: self.index.memory_bytes() as u64,
            cache_hits: self.counters.cache_hits,
            device_reads: self.counters.device_reads,
            merged_reads: self.counters.merged_reads,
            read_errors: self.counters.read_errors,
            refused_overload: self.counters.refused_overload,
            refused_full: self.counters.refused_full,
            refused_sets: self.counters.refused_sets,
            moved_records: self.counters.moved_records,
            moved_bytes: self.counters.moved_bytes,
            expired_records: self.counters.expired,
            raided_tombstones: self.counters.raided,
            raided_blocks: self.counters.raided_blocks,
            tombstone_horizon: self.log.tombstone_horizon,
            read_wait_s: 0,
            write_wait_s: 0,
            is_poisoned: self.is_poisoned,
            refuses_writes: self.refuses_writes(),
        }
    }
}

impl<'a> WriteRecord<'a> {
    fn view(&self, version: Version, local_lut: Lut) -> RecordView<'a> {
        RecordView {
            digest: self.digest,
            version,
            local_lut,
            generation: self.generation,
            void_time: self.void_time,
            flags: self.flags,
            src_id: self.src_id,
            set: self.set,
            key: self.key,
            bin_count: self.bin_count,
            bins: self.bins,
        }
    }
}

/// What kind of change left a record with these flags.
pub fn kind_of(flags: RecordFlags) -> ChangeKind {
    match flags {
        _ if !flags.has(RecordFlags::TOMBSTONE) => ChangeKind::Write,
        _ if flags.has(RecordFlags::NSUP) => ChangeKind::NsupDelete,
        _ if flags.has(RecordFlags::DURABLE) => ChangeKind::DurableDelete,
        _ => ChangeKind::Delete,
    }
}
