//! A shard's storage: all namespaces, their versions, and the face that the rest of the node and
//! the shipper see.
//!
//! One per shard, shared between the shard's tasks as [`SharedStore`]. Nothing here waits: what
//! takes time is begun under a short borrow and awaited outside of it ([`super::read`],
//! [`super::flush`]).

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tracing::{info, warn};

use super::index::{EntryPlace, IndexEntry, Location, SET_ID_MAX};
use super::log::LogPositions;
use super::read::{Reads, StoredRecord};
use super::sets::SetCounts;
use super::space::{Author, Space, SpaceStats, WriteRecord, WriteRefused, Written};
use super::volume::Volume;
use super::warm;
use super::write::WRITING_BYTES;
use longship::host::{
    Expected, Host, IndexWalk, Peek, ReadDone, ReadRequest, RecordSource, WalkId, WalkStep, Walked,
};
use longship::model::{
    Change, DcIndex, Digest, Lut, NamespaceId, PARTITION_COUNT, PartitionId, RecordFlags, SetId,
    ShardIndex, Tick, Version,
};
use longship::ship::mutation::{Mutation, planted};
use longship_rt::arena::Arena;
use longship_rt::clock::Clock;
use longship_rt::disk_ring::{DiskRing, Waits};
use longship_rt::event::Event;
use longship_rt::metrics::LogLimit;

use crate::config::LiveNamespaces;

/// A store as the tasks of its shard share it.
pub type SharedStore = Rc<RefCell<Store>>;

/// Lines about writes of sets that there is no number for.
static TOO_MANY_SETS: LogLimit = LogLimit::every_s(10);

/// Bits of a walk's id that number it within its namespace.
const WALK_NUMBER_BITS: u32 = 24;

/// A device that has not done an operation for so many seconds hangs, or is far too slow.
const HANGS_S: u32 = 2;

/// The storage of one shard.
pub struct Store {
    pub(super) shard: ShardIndex,
    pub(super) shard_count: u16,
    pub(super) ring: DiskRing,
    pub(super) arena: Arena,
    pub(super) clock: Clock,
    /// The time of the writes that come now.
    noted: Cell<Tick>,
    pub(super) spaces: Vec<Space>,
    /// How far each namespace's logs were filled at the last [`Host::watch_flush`].
    watched: Vec<LogPositions>,
    pub(super) reads: Reads,
    /// For each namespace: its flush task has something to look at.
    pub(super) flush_wakes: Vec<Event>,
    /// For each namespace: its defragmentation should look again.
    pub(super) defrag_wakes: Vec<Event>,
    /// For each namespace: its expiry and its raider have something new to look at.
    pub(super) expire_wakes: Vec<Event>,
    pub(super) raid_wakes: Vec<Event>,
    pub(super) is_stopping: bool,
    /// When a stop gives up what is not on the devices by then.
    pub(super) stop_deadline: Tick,
    /// By namespace: whether its flush task has come to its end, and the event of one more.
    pub(super) flush_ends: Vec<FlushEnd>,
    /// Of each namespace; see [`Store::stop_within`].
    pub(super) writing_bytes_max: u64,
    pub(super) flushed: Event,
    pub(super) version: Cell<Version>,
    publishable: Event,
    /// Who waits in [`committed`], by the number of the wait.
    commit_waiters: BTreeMap<u64, (NamespaceId, u64, Waker)>,
    commit_waits: u64,
    settled: Vec<Box<[Settled]>>,
    pub(super) volumes: Vec<Arc<Volume>>,
    rules: LiveNamespaces,
}

/// What a store begins with, once its namespaces have been opened.
pub(super) struct StoreSeed {
    pub(super) shard: ShardIndex,
    pub(super) shard_count: u16,
    pub(super) ring: DiskRing,
    pub(super) arena: Arena,
    pub(super) clock: Clock,
    pub(super) spaces: Vec<Space>,
    pub(super) volumes: Vec<Arc<Volume>>,
    pub(super) rules: LiveNamespaces,
    /// All versions to be issued are above it.
    pub(super) version: Version,
}

/// How far a stop is with a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FlushEnd {
    /// Something may be on its way to the device.
    Runs,
    /// It is all there, or never will be.
    Flushed,
    /// And the next start need not read the log, if that could be helped.
    Saved,
}

/// How far the changes of a partition are settled at every DC.
#[derive(Clone, Copy, Debug)]
enum Settled {
    /// Not heard yet.
    Unknown,
    /// No DC is attached.
    All,
    Below(Lut),
}

impl Store {
    /// A store whose index is there, with no task yet.
    pub(super) fn new(seed: StoreSeed) -> Self {
        let StoreSeed { shard, shard_count, ring, arena, clock, spaces, volumes, rules, version } =
            seed;
        let events = || spaces.iter().map(|_| Event::new()).collect();
        let unknown = || vec![Settled::Unknown; PARTITION_COUNT].into();
        Self {
            shard,
            shard_count,
            flush_wakes: events(),
            defrag_wakes: events(),
            expire_wakes: events(),
            raid_wakes: events(),
            settled: spaces.iter().map(|_| unknown()).collect(),
            watched: spaces.iter().map(|_| LogPositions::default()).collect(),
            flush_ends: spaces.iter().map(|_| FlushEnd::Runs).collect(),
            ring,
            arena,
            noted: Cell::new(Tick(clock.now())),
            clock,
            spaces,
            reads: Reads::default(),
            is_stopping: false,
            stop_deadline: Tick::NEVER,
            writing_bytes_max: *WRITING_BYTES.end(),
            flushed: Event::new(),
            version: Cell::new(version),
            publishable: Event::new(),
            commit_waiters: BTreeMap::new(),
            commit_waits: 0,
            volumes,
            rules,
        }
    }

    /// Number of namespaces.
    pub fn namespace_count(&self) -> usize {
        self.spaces.len()
    }

    /// The index entry of a record as readers see it.
    #[inline]
    pub fn lookup(&self, namespace: NamespaceId, digest: &Digest) -> Option<IndexEntry> {
        self.space(namespace).lookup(digest)
    }

    /// Where a record is in the index, or would be.
    #[inline]
    pub fn find(&self, namespace: NamespaceId, digest: &Digest) -> EntryPlace {
        self.space(namespace).index.find(digest)
    }

    /// [`Store::lookup`] of a record found at `place`.
    #[inline]
    pub fn lookup_at(
        &self,
        namespace: NamespaceId,
        place: &EntryPlace,
        digest: &Digest,
    ) -> Option<IndexEntry> {
        self.space(namespace).index.at(place, digest)
    }

    /// The index entry of a record as the next write finds it. Differs from [`Store::lookup`] only
    /// under `commit-to-device`, while a write is on its way to the device.
    #[inline]
    pub fn latest(&self, namespace: NamespaceId, digest: &Digest) -> Option<IndexEntry> {
        self.space(namespace).latest(digest)
    }

    /// [`Store::latest`] of a record found at `place`.
    #[inline]
    pub fn latest_at(
        &self,
        namespace: NamespaceId,
        place: &EntryPlace,
        digest: &Digest,
    ) -> Option<IndexEntry> {
        self.space(namespace).latest_at(place, digest)
    }

    /// The record [`Store::latest`] speaks of, when it is in memory.
    pub fn peek_latest(&self, namespace: NamespaceId, digest: &Digest) -> Peek<'_> {
        let space = self.space(namespace);
        space.peek(space.latest(digest).as_ref())
    }

    /// Whether the namespace takes writes now, or deletes: the checks that come before anything is
    /// known about the record. What passes may still be refused by [`Store::write`].
    #[inline]
    pub fn gate(&mut self, namespace: NamespaceId, is_delete: bool) -> Result<(), WriteRefused> {
        if self.is_stopping {
            return Err(WriteRefused::Stopping);
        }
        let gate = self.spaces[namespace.index()].gate(is_delete);
        gate.inspect_err(|refused| self.note_refusal(namespace, *refused))
    }

    #[cold]
    fn note_refusal(&self, namespace: NamespaceId, refused: WriteRefused) {
        self.wake_for_room(namespace);
        let (space, volume) = (self.space(namespace), &self.volumes[namespace.index()]);
        let now = self.clock.now();
        if refused == WriteRefused::TooManySets
            && let Some(more) = TOO_MANY_SETS.pass(now)
        {
            warn!(
                shard = self.shard.0,
                "namespace {}: a write is refused with result 4, since {SET_ID_MAX} sets are there and \
                 its own is not among them; what is shipped here is given up by its source for that: \
                 use fewer sets, or empty some: a name comes back once no record and no tombstone has \
                 it ({more} more refused since the last such line)",
                volume.namespace,
            );
        }
        if refused == WriteRefused::Overloaded && volume.overloaded.raise(now) {
            warn!(
                shard = self.shard.0,
                "namespace {}: writes are refused with result 18, device overload: {}",
                volume.namespace,
                space.why_overloaded(Tick(now)),
            );
        }
        if refused == WriteRefused::Full && volume.full.raise(now) {
            let used_pct = space.used_pct();
            let shard = self.shard.0;
            warn!(
                shard,
                used_pct,
                "namespace {}: writes are refused with result 8, out of space, until records are \
                 deleted or expire; add devices, or look at stop-writes-used-pct ({})",
                volume.namespace,
                space.stop_writes_used_pct,
            );
        }
    }

    /// Whether numbers of sets were given back since the last call: what is remembered by them is
    /// void.
    #[inline]
    pub fn take_sets_given_back(&mut self, namespace: NamespaceId) -> bool {
        self.spaces[namespace.index()].sets.take_given_back()
    }

    /// Gives back sets in which nothing lies, where they have run out. Once in some seconds.
    pub fn give_back_sets(&mut self) {
        self.spaces.iter_mut().for_each(Space::give_back_sets);
    }

    /// Looks whether namespaces that refused writes take them again, and whether their devices answer,
    /// and says so. Once a second.
    pub fn look_at_devices(&self) {
        let now = self.clock.now();
        for (id, (space, volume)) in
            (0..).map(NamespaceId).zip(self.spaces.iter().zip(&self.volumes))
        {
            let is_full = volume.full.look(space.refuses_writes(), now);
            let is_overloaded = volume.overloaded.look(space.is_overloaded(Tick(now)), now);
            if is_full || is_overloaded {
                info!("namespace {}: writes are taken again", volume.namespace);
            }
            match self.unwritten(id).or_else(|| self.unread(id)) {
                Some(what) if volume.hangs.raise(now) => {
                    warn!(shard = self.shard.0, "{what}: look at that device (dmesg, iostat -x)");
                }
                Some(_) => {}
                None if volume.hangs.lapse(now) => {
                    info!("namespace {}: its devices answer again", volume.namespace);
                }
                None => {}
            }
        }
    }

    /// That a device has not done a write for long, in words.
    fn unwritten(&self, namespace: NamespaceId) -> Option<String> {
        let (path, wait_s) = self.hanging(namespace, |waits| waits.write_s)?;
        Some(format!(
            "{path}: its oldest write or flush has been under way for over {wait_s} s: writes are \
             refused with result 18 when max-write-cache is full"
        ))
    }

    /// What to say of a read that hangs, for people.
    fn unread(&self, namespace: NamespaceId) -> Option<String> {
        let (path, wait_s) = self.hanging(namespace, |waits| waits.read_s)?;
        Some(format!(
            "{path}: its oldest read has been under way for over {wait_s} s: records that are not in \
             memory are neither read nor shipped"
        ))
    }

    /// The device of a namespace that has not answered for longest, and for how many seconds; `None`
    /// when all answer.
    fn hanging(
        &self,
        namespace: NamespaceId,
        wait_s: impl Fn(Waits) -> u32,
    ) -> Option<(String, u32)> {
        let volume = &self.volumes[namespace.index()];
        let waits = self.waits(namespace).map(wait_s).zip(&volume.devices);
        let (wait_s, device) = waits.max_by_key(|(wait_s, _)| *wait_s)?;
        let path = || format!("namespace {}: {}", volume.namespace, device.path.display());
        (wait_s >= HANGS_S).then(|| (path(), wait_s))
    }

    /// How long each device of a namespace has kept this shard waiting.
    fn waits(&self, namespace: NamespaceId) -> impl Iterator<Item = Waits> {
        self.space(namespace).files.iter().map(|file| self.ring.waits(*file))
    }

    /// Has room made, on the device and in memory, as far as that may help.
    fn wake_for_room(&self, namespace: NamespaceId) {
        self.flush_wakes[namespace.index()].set();
        if self.space(namespace).log.shortage_pct() > 0 {
            self.defrag_wakes[namespace.index()].set();
        }
    }

    /// Reads the clock for the writes that follow; once per batch.
    pub fn note_time(&self) {
        self.noted.set(Tick(self.clock.now()));
    }

    /// Takes a write or, with the tombstone flag and no bins, a delete: one step, no waiting.
    /// Submit the change at once if the answer says so.
    ///
    /// The caller has judged generation, set and key against [`Store::latest`]. `now` is the wall
    /// clock; versions grow even when it steps back.
    pub fn write(
        &mut self,
        namespace: NamespaceId,
        record: &WriteRecord<'_>,
        now: Lut,
    ) -> Result<Written, WriteRefused> {
        self.gate(namespace, record.flags.has(RecordFlags::TOMBSTONE))?;
        self.write_at(&self.find(namespace, &record.digest), namespace, record, now)
    }

    /// [`Store::write`] of a record found at `place`, once [`Store::gate`] has let it pass.
    pub fn write_at(
        &mut self,
        place: &EntryPlace,
        namespace: NamespaceId,
        record: &WriteRecord<'_>,
        now: Lut,
    ) -> Result<Written, WriteRefused> {
        self.write_as(Author::Caller, namespace, place, record, now)
    }

    pub(super) fn write_as(
        &mut self,
        author: Author,
        namespace: NamespaceId,
        place: &EntryPlace,
        record: &WriteRecord<'_>,
        now: Lut,
    ) -> Result<Written, WriteRefused> {
        debug_assert_eq!(record.digest.partition().shard(self.shard_count), self.shard);
        if self.is_stopping {
            return Err(WriteRefused::Stopping);
        }
        let version = self.version.get().next(now);
        let tick = self.noted.get();
        let space = &mut self.spaces[namespace.index()];
        let written = space.write(&self.arena, place, record, author, version, tick);
        let has_news = space.head.take_news();
        match &written {
            Err(refused) => self.note_refusal(namespace, *refused),
            Ok(_) if has_news => self.wake_for_room(namespace),
            Ok(_) => {}
        }
        let written = written?;
        self.version.set(version);
        if self.space(namespace).has_publishable() {
            self.publishable.set();
        }
        Ok(written)
    }

    /// Issues a version that no record gets: a name for something else.
    pub(super) fn next_version(&self) -> Version {
        let wall = Lut::of_clock(self.clock.wall_ms());
        self.version.set(self.version.get().next(wall));
        self.version.get()
    }

    /// Set when [`Store::publish`] has something to do (`commit-to-device` only).
    pub fn publishable(&self) -> Event {
        self.publishable.clone()
    }

    /// Makes visible what has become durable, and gives the changes to submit in the same step.
    /// One task per shard does this whenever [`Store::publishable`] is set.
    pub fn publish(&mut self, out: &mut Vec<Change>) {
        self.spaces.iter_mut().for_each(|space| space.publish(out));
        let spaces = &self.spaces;
        self.commit_waiters.retain(|_, (namespace, position, waker)| {
            let waits = spaces[namespace.index()].published_position() < *position;
            if !waits {
                waker.wake_by_ref();
            }
            waits
        });
        if self.is_stopping {
            self.flushed.set();
        }
    }

    /// A stop has something to wait for: what is not durable yet, or not visible.
    pub(super) fn is_under_way(&self) -> bool {
        self.flush_ends.contains(&FlushEnd::Runs) || self.spaces.iter().any(Space::has_publishable)
    }

    /// What the flush task calls when the log has become durable further, or has failed.
    pub(super) fn durability_changed(&mut self, namespace: NamespaceId) {
        let space = &self.spaces[namespace.index()];
        if space.has_publishable() {
            self.publishable.set();
        }
        if space.is_poisoned {
            let all = std::mem::take(&mut self.commit_waiters);
            all.into_values().for_each(|(_, _, waker)| waker.wake());
        }
    }

    /// One wait keeps one waker, the last it was polled with. `wait` is its number, given to it by
    /// its first poll.
    fn poll_committed(
        &mut self,
        namespace: NamespaceId,
        position: u64,
        wait: &mut Option<u64>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), WriteRefused>> {
        let space = self.space(namespace);
        if !space.commit
            || space.published_position() >= position
            || planted(Mutation::CommitsEarly)
        {
            return Poll::Ready(Ok(()));
        }
        if space.is_poisoned {
            return Poll::Ready(Err(WriteRefused::Poisoned));
        }
        let number = *wait.get_or_insert_with(|| {
            self.commit_waits += 1;
            self.commit_waits
        });
        self.commit_waiters.insert(number, (namespace, position, cx.waker().clone()));
        Poll::Pending
    }

    /// The rules of its namespaces, as they are now.
    pub const fn rules(&self) -> &LiveNamespaces {
        &self.rules
    }

    /// Takes over what of a namespace's configuration may change at run time.
    fn configure(&mut self, namespace: NamespaceId) {
        let index = namespace.index();
        self.spaces[index].configure(&self.rules.get(namespace), &self.volumes[index]);
        let tasks = [&self.flush_wakes, &self.defrag_wakes, &self.expire_wakes, &self.raid_wakes];
        tasks.into_iter().for_each(|wakes| wakes[index].set());
    }

    /// The LUT below which everything in a partition is settled; `None` when nobody has said.
    pub(super) fn settled_at(&self, namespace: NamespaceId, partition: PartitionId) -> Option<Lut> {
        match self.settled[namespace.index()][partition.index()] {
            _ if planted(Mutation::RaidUnasked) => Some(Lut::MAX),
            Settled::Unknown => None,
            Settled::All => Some(Lut::MAX),
            Settled::Below(lst) => Some(lst),
        }
    }

    /// The shard's partitions.
    pub(super) fn partitions(&self) -> impl Iterator<Item = PartitionId> + use<> {
        PartitionId::of_shard(self.shard, self.shard_count)
    }

    /// The store has stopped: leaves a checkpoint for a warm start of every namespace of which all
    /// has become durable and visible since the last call. The last shard to do so ends the run of
    /// the volume. Blocks, and gives up a checkpoint at `deadline`: without one the next start
    /// reads the log.
    pub(super) fn save_checkpoints(&mut self, deadline: Tick) {
        let spaces = self.spaces.iter().zip(&self.volumes).zip(&mut self.flush_ends);
        for ((space, volume), end) in spaces {
            if *end != FlushEnd::Flushed || space.is_poisoned || space.has_publishable() {
                continue;
            }
            *end = FlushEnd::Saved;
            let is_late = || self.clock.now() >= deadline.0;
            if let Err(error) = warm::save(space, volume, self.shard, self.version.get(), &is_late)
            {
                let namespace = &volume.namespace;
                tracing::warn!(
                    "namespace {namespace}: no checkpoint of the index, so the next start reads \
                     the log: {error}"
                );
            }
            volume.claims.note_clock(self.version.get());
            volume.shard_stopped();
        }
    }

    /// Says of each namespace what its device has not taken by the end of a stop.
    pub(super) fn tell_unflushed(&self) {
        for (space, volume) in self.spaces.iter().zip(&self.volumes) {
            if space.is_poisoned || space.written().are_within(space.durable()) && space.is_quiet()
            {
                continue;
            }
            let bytes = space.head.unwritten_bytes();
            tracing::error!(
                "namespace {}, shard {}: the device is too slow for this stop: {bytes} acknowledged \
                 bytes are not written, and what was written last may not be durable; a higher \
                 stop-deadline-ms gives it more time",
                volume.namespace,
                self.shard.0,
            );
        }
    }

    #[cfg(test)]
    pub(super) fn commit_waiter_count(&self) -> usize {
        self.commit_waiters.len()
    }

    /// The devices of a namespace.
    pub(super) fn volume(&self, namespace: NamespaceId) -> &Volume {
        &self.volumes[namespace.index()]
    }

    /// Device and offset of what lies at a location, for people.
    pub(super) fn place(&self, namespace: NamespaceId, location: Location) -> String {
        let volume = &self.volumes[namespace.index()];
        let geometry = self.space(namespace).log.geometry();
        let (device, offset) = geometry.offset(location.block);
        let path = volume.devices[device].path.display();
        let at = offset + u64::from(location.offset);
        format!("namespace {}: {path}, byte {at}", volume.namespace)
    }

    /// Statistics of a namespace on this shard.
    pub fn stats(&self, namespace: NamespaceId) -> SpaceStats {
        let (read_wait_s, write_wait_s) =
            self.waits(namespace).fold((0, 0), |(read, write), one| {
                (read.max(one.read_s.into()), write.max(one.write_s.into()))
            });
        SpaceStats { read_wait_s, write_wait_s, ..self.space(namespace).stats() }
    }

    /// The sets of a namespace on this shard, with what they hold. The first has an empty name: it
    /// counts records without a set.
    pub fn sets(&self, namespace: NamespaceId) -> impl Iterator<Item = (&str, SetCounts)> {
        self.space(namespace).sets.iter()
    }

    /// Largest record a namespace can hold, in bytes on the device.
    pub fn record_extent_max(&self, namespace: NamespaceId) -> usize {
        let block_bytes = self.space(namespace).log.geometry().block_bytes;
        super::block::record_extent_max(block_bytes)
    }

    #[inline]
    pub(super) fn space(&self, namespace: NamespaceId) -> &Space {
        &self.spaces[namespace.index()]
    }
}

/// Waits until a write is durable and visible, under `commit-to-device`; at once otherwise. Any
/// number of tasks may wait. An error means that the log has failed and the write is in doubt.
pub async fn committed(
    store: &RefCell<Store>,
    namespace: NamespaceId,
    position: u64,
) -> Result<(), WriteRefused> {
    let mut wait = None;
    poll_fn(|cx| store.borrow_mut().poll_committed(namespace, position, &mut wait, cx)).await
}

impl RecordSource for Store {
    type Record = StoredRecord;

    fn peek(&self, namespace: NamespaceId, digest: &Digest) -> Peek<'_> {
        let space = self.space(namespace);
        let entry = space.lookup(digest);
        match (space.peek(entry.as_ref()), entry) {
            (Peek::OnDevice, Some(entry)) => {
                let record = self.reads.pieces.record(namespace, &entry);
                record.map_or(Peek::OnDevice, Peek::Here)
            }
            (found, _) => found,
        }
    }

    fn prefetch(&self, namespace: NamespaceId, digests: &[Digest]) {
        let kept = |location| self.reads.pieces.bytes(namespace, location);
        self.space(namespace).prefetch(digests, kept);
    }

    fn begin(&mut self, read: ReadRequest) -> bool {
        self.begin_tagged(read)
    }

    fn poll_drain(
        &mut self,
        dc: DcIndex,
        cx: &mut Context<'_>,
        done: &mut Vec<ReadDone<StoredRecord>>,
    ) -> Poll<()> {
        self.poll_tagged(dc, cx, done)
    }
}

impl IndexWalk for Store {
    fn open(&mut self, namespace: NamespaceId, lanes: &[(PartitionId, Lut)]) -> WalkId {
        let number = self.spaces[namespace.index()].open_walk(lanes);
        WalkId(u32::from(namespace.0) << WALK_NUMBER_BITS | number)
    }

    fn poll_step(
        &mut self,
        walk: WalkId,
        cx: &mut Context<'_>,
        out: &mut Vec<Walked>,
    ) -> Poll<WalkStep> {
        let (namespace, number) = parts_of(walk);
        self.spaces[namespace].step_walk(number, (&self.ring, &self.arena), cx, out)
    }

    fn work(&self, walk: WalkId) -> Option<(u64, u64)> {
        let (namespace, number) = parts_of(walk);
        self.spaces[namespace].work_of_walk(number)
    }

    fn expected(&self, namespace: NamespaceId, lanes: &[(PartitionId, Lut)]) -> Option<Expected> {
        let (partitions, newest) = (self.partitions().count(), self.issued(namespace));
        Some(self.space(namespace).expected_of_walk(lanes, partitions, newest))
    }

    fn close(&mut self, walk: WalkId) {
        let (namespace, number) = parts_of(walk);
        self.spaces[namespace].close_walk(number);
    }
}

/// The namespace of a walk, and its number there.
fn parts_of(id: WalkId) -> (usize, usize) {
    ((id.0 >> WALK_NUMBER_BITS) as usize, (id.0 & ((1 << WALK_NUMBER_BITS) - 1)) as usize)
}

impl Host for Store {
    fn version_clock(&self, namespace: NamespaceId) -> Lut {
        if let Some(oldest) = self.space(namespace).oldest_unpublished() {
            return oldest;
        }
        // Moves the clock along, so that no later write can go below the answer.
        let wall = Version::first_of(Lut::of_clock(self.clock.wall_ms()));
        self.version.set(self.version.get().max(wall));
        self.version.get().lut()
    }

    fn issued(&self, _: NamespaceId) -> Lut {
        self.version.get().lut()
    }

    fn in_memory_above(&self, namespace: NamespaceId) -> Lut {
        self.space(namespace).log.in_memory_above
    }

    fn record_bytes(&self, namespace: NamespaceId) -> u64 {
        self.space(namespace).record_bytes()
    }

    fn reads_hang(&self, namespace: NamespaceId) -> Option<String> {
        self.unread(namespace)
    }

    fn watch_flush(&mut self, namespace: NamespaceId) {
        self.watched[namespace.index()] = self.space(namespace).appended();
    }

    fn is_flushed(&self, namespace: NamespaceId) -> bool {
        self.watched[namespace.index()].are_within(self.space(namespace).durable())
    }

    fn tombstone_horizon(&self, namespace: NamespaceId) -> Lut {
        self.space(namespace).log.tombstone_horizon
    }

    fn set_name(&self, namespace: NamespaceId, set: SetId) -> &str {
        self.space(namespace).sets.name(set)
    }

    fn set(&mut self, namespace: NamespaceId, key: &str, value: &str) {
        let set = self.rules.set(namespace, key, value);
        debug_assert!(set.is_ok(), "{key}={value} was judged by the same rules before");
        self.configure(namespace);
    }

    fn needed_from(&mut self, namespace: NamespaceId, partition: PartitionId, from: Lut) {
        let settled = &mut self.settled[namespace.index()][partition.index()];
        *settled = match *settled {
            Settled::Unknown => Settled::Unknown,
            Settled::All => Settled::Below(from),
            Settled::Below(lst) => Settled::Below(lst.min(from)),
        };
    }

    fn settled_below(&mut self, namespace: NamespaceId, partition: PartitionId, lst: Option<Lut>) {
        self.settled[namespace.index()][partition.index()] =
            lst.map_or(Settled::All, Settled::Below);
    }
}
