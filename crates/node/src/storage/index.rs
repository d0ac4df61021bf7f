//! Where each record is, without touching the device: at most 64 bytes a record, all in; up to 72
//! after a cold start from a log of which most was superseded ([`Index::expect`]).
//!
//! One index per (namespace, shard), with a linear hash table for each of the shard's partitions:
//! an insert that finds its table too full splits a few buckets of it, whose chains are fetched from
//! memory side by side, so it grows without a pause.
//! Slots of 56 bytes live in chunks that all tables share and are chained by 32-bit ids.
//!
//! | bytes | what |
//! |---:|---|
//! | 52 | digest 20, version 8, block 4 + offset 3 + src-id 1, local LUT 5 + generation 2 + flags 1, void time 4, extent and set 4 |
//! | 4 | next slot of the chain |
//! | 4 | bucket head, one per record |
//!
//! Buckets are prefixes of a record's *rank*, taken in bit-reversed order. Hence the records of a
//! partition have one walking order, by rank, that neither inserts nor splits disturb: a walk can
//! stop at any record and go on from its digest. The rank is a hash of the whole digest under a key
//! drawn at random: clients choose digests, and chains stay short whatever they choose.
//! Cost of a lookup: two cache misses (head, slot) and a compare; no allocation.

use super::flat::RECORD_ALIGN;
use longship::model::{
    Digest, Generation, Lut, PARTITION_COUNT, PartitionId, RecordFlags, SetId, SrcId, Version,
    VoidTime,
};
use longship_rt::bytes::{In, Out, put, u32_at, u64_at};
use longship_rt::prefetch::{self, prefetch};
use longship_rt::random::random_u64;

/// A write block of a namespace, numbered through all of its devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockId(pub u32);

/// Where a record lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Location {
    /// The block.
    pub block: BlockId,
    /// Bytes from the start of the block; a multiple of 16.
    pub offset: u32,
    /// Bytes it takes; a multiple of 16.
    pub extent: u32,
}

/// What the index knows about a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// Identity.
    pub digest: Digest,
    /// The version the location holds.
    pub version: Version,
    /// LUT of its last change not made by a shipper.
    pub local_lut: Lut,
    /// Where it lies.
    pub location: Location,
    /// Write count.
    pub generation: Generation,
    /// Expiry.
    pub void_time: VoidTime,
    /// Its set.
    pub set: SetId,
    /// Facts about its last write.
    pub flags: RecordFlags,
    /// Cluster of origin of a shipped write.
    pub src_id: SrcId,
}

impl IndexEntry {
    /// Whether only the identity is left.
    #[inline]
    pub fn is_tombstone(&self) -> bool {
        self.flags.has(RecordFlags::TOMBSTONE)
    }
}

/// Sets of a namespace fit in the slot's 12 bits.
pub const SET_ID_MAX: u16 = 4095;

const NONE: u32 = u32::MAX;
const CHUNK_SLOTS: usize = 4096;
/// Bucket heads are kept in pieces of this many, so that adding one never copies many.
const SEGMENT_HEADS: usize = 256;
/// Heads added when a segment is not full.
const HEADS_STEP: usize = 16;
/// Buckets split together: so many heads lie side by side in a line of the cache.
const SPLIT_BUCKETS: usize = 16;

/// Set among a slot's flags while the raider takes its tombstone for one that may go. Of no interest
/// to anybody else: entries are handed out without it, and whatever is put has none.
const MARK: u64 = 0x80;

/// An entry, packed.
#[repr(C)]
#[derive(Clone, Copy)]
struct Slot {
    digest: [u8; 20],
    next: u32,
    version: u64,
    /// Block 32, offset in 16-byte units 24, src-id 8.
    place: u64,
    /// Local LUT 40, generation 16, flags 8.
    stamps: u64,
    void_time: u32,
    /// Extent in 16-byte units 20, set 12.
    extent_set: u32,
}

const _: () = assert!(size_of::<Slot>() == 56);

impl Slot {
    const EMPTY: Self = Self {
        digest: [0; 20],
        next: NONE,
        version: 0,
        place: 0,
        stamps: 0,
        void_time: 0,
        extent_set: 0,
    };

    fn pack(entry: &IndexEntry, next: u32) -> Self {
        let units = |bytes: u32| bytes / RECORD_ALIGN as u32;
        let Location { block, offset, extent } = entry.location;
        debug_assert!(units(offset) < 1 << 24 && units(extent) < 1 << 20);
        debug_assert!(entry.set.0 <= SET_ID_MAX && u64::from(entry.flags.0) & MARK == 0);
        Self {
            digest: entry.digest.0,
            next,
            version: entry.version.raw(),
            place: u64::from(block.0) << 32
                | u64::from(units(offset)) << 8
                | u64::from(entry.src_id.0),
            stamps: entry.local_lut.ms() << 24
                | u64::from(entry.generation.0) << 8
                | u64::from(entry.flags.0),
            void_time: entry.void_time.0,
            extent_set: units(extent) << 12 | u32::from(entry.set.0),
        }
    }

    fn to_bytes(self) -> [u8; size_of::<Self>()] {
        let mut bytes = [0; size_of::<Self>()];
        put(&mut bytes, 0, &self.digest);
        put(&mut bytes, 20, &self.next.to_le_bytes());
        put(&mut bytes, 24, &self.version.to_le_bytes());
        put(&mut bytes, 32, &self.place.to_le_bytes());
        put(&mut bytes, 40, &self.stamps.to_le_bytes());
        put(&mut bytes, 48, &self.void_time.to_le_bytes());
        put(&mut bytes, 52, &self.extent_set.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Self {
        let mut digest = [0; 20];
        digest.copy_from_slice(&bytes[..20]);
        Self {
            digest,
            next: u32_at(bytes, 20),
            version: u64_at(bytes, 24),
            place: u64_at(bytes, 32),
            stamps: u64_at(bytes, 40) & !MARK,
            void_time: u32_at(bytes, 48),
            extent_set: u32_at(bytes, 52),
        }
    }

    fn unpack(&self) -> IndexEntry {
        const UNIT: u32 = RECORD_ALIGN as u32;
        IndexEntry {
            digest: Digest(self.digest),
            version: Version::from_raw(self.version),
            local_lut: Lut::from_ms(self.stamps >> 24),
            location: Location {
                block: BlockId((self.place >> 32) as u32),
                offset: ((self.place >> 8) as u32 & 0xFF_FFFF) * UNIT,
                extent: (self.extent_set >> 12) * UNIT,
            },
            generation: Generation((self.stamps >> 8) as u16),
            void_time: VoidTime(self.void_time),
            set: SetId((self.extent_set & 0xFFF) as u16),
            flags: RecordFlags((self.stamps & !MARK) as u8),
            src_id: SrcId(self.place as u8),
        }
    }
}

/// Sizes of an index, as a checkpoint keeps them, and the key of its ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) used: u32,
    pub(super) free: u32,
    pub(super) records: u64,
    pub(super) key: u64,
}

/// Position of a walk over one partition: what ranks below it has been given; of what ranks equal,
/// the digests up to and with `given`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WalkCursor {
    rank: u64,
    given: Option<Digest>,
}

/// Where a digest is in an index, or would be. Good until the index next changes, and looked for
/// again after that.
#[derive(Clone, Copy, Debug)]
pub struct EntryPlace {
    rank: u64,
    /// Its slot, or none.
    id: u32,
    /// What the index had been through.
    changes: u64,
}

/// The rank of a digest, under a key nobody outside knows.
#[inline]
fn rank(key: u64, digest: &Digest) -> u64 {
    digest.hash_under(key)
}

/// The buckets of one partition.
#[derive(Clone, Default)]
struct Table {
    heads: Vec<Vec<u32>>,
    buckets: u32,
    len: u32,
}

impl Table {
    /// The bucket a rank falls into: as many of its leading bits as there are buckets for.
    #[inline]
    fn bucket(&self, rank: u64) -> u32 {
        let bits = rank.reverse_bits();
        let level = self.buckets.max(1).ilog2();
        let wide = bits & ((2 << level) - 1);
        let narrow = bits & ((1 << level) - 1);
        if wide < u64::from(self.buckets) { wide as u32 } else { narrow as u32 }
    }

    /// The highest rank that falls into a bucket.
    fn last_rank(&self, bucket: u32) -> u64 {
        let level = self.buckets.max(1).ilog2();
        let split = bucket >= 1 << level || bucket < self.buckets.saturating_sub(1 << level);
        let depth = level + u32::from(split);
        u64::from(bucket).reverse_bits() | u64::MAX >> depth
    }

    /// The first slot of a bucket's chain.
    #[inline]
    fn head(&self, bucket: u32) -> u32 {
        let (segment, place) = Self::place(bucket);
        self.heads.get(segment).map_or(NONE, |segment| segment[place])
    }

    #[inline]
    fn prefetch_head(&self, bucket: u32) {
        let (segment, place) = Self::place(bucket);
        if let Some(segment) = self.heads.get(segment) {
            prefetch(&segment[place]);
        }
    }

    #[inline]
    fn head_mut(&mut self, bucket: u32) -> &mut u32 {
        let (segment, place) = Self::place(bucket);
        &mut self.heads[segment][place]
    }

    const fn place(bucket: u32) -> (usize, usize) {
        (bucket as usize / SEGMENT_HEADS, bucket as usize % SEGMENT_HEADS)
    }

    /// Adds a bucket at the end.
    fn push(&mut self, head: u32) {
        let (segment, place) = Self::place(self.buckets);
        if place == 0 {
            let is_first = segment == 0;
            self.heads.reserve_exact(usize::from(is_first));
            let capacity = if is_first { HEADS_STEP } else { SEGMENT_HEADS };
            self.heads.push(Vec::with_capacity(capacity));
        }
        let heads = &mut self.heads[segment];
        if heads.len() == heads.capacity() {
            heads.reserve_exact(HEADS_STEP);
        }
        heads.push(head);
        self.buckets += 1;
    }

    fn heads(&self) -> impl Iterator<Item = u32> {
        self.heads.iter().flatten().copied()
    }

    fn memory_bytes(&self) -> usize {
        let heads: usize = self.heads.iter().map(|segment| segment.capacity() * 4).sum();
        size_of::<Self>() + self.heads.capacity() * size_of::<Vec<u32>>() + heads
    }
}

/// The index of one shard's part of a namespace.
pub struct Index {
    shard_count: u16,
    key: u64,
    chunks: Vec<Box<[Slot]>>,
    /// Slots ever used; those after it are fresh.
    used: u32,
    /// First of the slots given back.
    free: u32,
    /// One for each of the shard's partitions.
    tables: Box<[Table]>,
    len: usize,
    /// Entries put and removed, ever.
    changes: u64,
}

impl Index {
    /// An empty index for a shard of `shard_count`.
    pub fn new(shard_count: u16) -> Self {
        Self {
            shard_count,
            key: random_u64(),
            chunks: Vec::new(),
            used: 0,
            free: NONE,
            tables: vec![Table::default(); table_count(shard_count)].into(),
            len: 0,
            changes: 0,
        }
    }

    /// Records in it, tombstones included.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether one more record fits: ids have 32 bits.
    pub fn has_room(&self) -> bool {
        self.free != NONE || self.used < NONE
    }

    /// Memory it occupies.
    pub fn memory_bytes(&self) -> usize {
        self.chunks.len() * CHUNK_SLOTS * size_of::<Slot>()
            + self.chunks.capacity() * size_of::<Box<[Slot]>>()
            + self.tables.iter().map(Table::memory_bytes).sum::<usize>()
    }

    /// Brings what lookups of these digests touch into the cache, for all of them at once. Tells
    /// `found` where their records lie, but for the few that are far down their chains.
    pub fn prefetch(&self, digests: &[Digest], mut found: impl FnMut(Location)) {
        for digests in digests.chunks(prefetch::WIDTH) {
            let mut places = [(0, 0); prefetch::WIDTH];
            for (place, digest) in places.iter_mut().zip(digests) {
                let number = self.table_of(digest.partition());
                let table = &self.tables[number];
                *place = (number, table.bucket(rank(self.key, digest)));
                table.prefetch_head(place.1);
            }
            let mut ids = [NONE; prefetch::WIDTH];
            for (id, (number, bucket)) in ids.iter_mut().zip(places).take(digests.len()) {
                *id = self.tables[number].head(bucket);
                self.prefetch_slot(*id);
            }
            for _ in 0..2 {
                for (id, digest) in ids.iter_mut().zip(digests) {
                    if *id != NONE && self.slot(*id).digest != digest.0 {
                        *id = self.slot(*id).next;
                        self.prefetch_slot(*id);
                    }
                }
            }
            for (id, digest) in ids.into_iter().zip(digests) {
                if id != NONE && self.slot(id).digest == digest.0 {
                    found(self.slot(id).unpack().location);
                }
            }
        }
    }

    #[inline]
    fn prefetch_slot(&self, id: u32) {
        if id != NONE {
            prefetch(self.slot(id));
        }
    }

    /// The entry of a digest.
    #[inline]
    pub fn get(&self, digest: &Digest) -> Option<IndexEntry> {
        self.at(&self.find(digest), digest)
    }

    /// Where a digest is or would be.
    pub fn find(&self, digest: &Digest) -> EntryPlace {
        let table = &self.tables[self.table_of(digest.partition())];
        let rank = rank(self.key, digest);
        let mut id = table.head(table.bucket(rank));
        while id != NONE && self.slot(id).digest != digest.0 {
            id = self.slot(id).next;
        }
        EntryPlace { rank, id, changes: self.changes }
    }

    /// The entry of a digest, which was found at `place`.
    #[inline]
    pub fn at(&self, place: &EntryPlace, digest: &Digest) -> Option<IndexEntry> {
        let id = self.now(place, digest).id;
        (id != NONE).then(|| self.slot(id).unpack())
    }

    /// The place, found again if need be.
    #[inline]
    fn now(&self, place: &EntryPlace, digest: &Digest) -> EntryPlace {
        if place.changes == self.changes { *place } else { self.find(digest) }
    }

    /// Enters a record, in place of its former entry if there is one, which is returned.
    ///
    /// # Panics
    /// When full; see [`Index::has_room`].
    pub fn put(&mut self, entry: &IndexEntry) -> Option<IndexEntry> {
        self.put_at(&self.find(&entry.digest), entry)
    }

    /// [`Index::put`] of a record whose digest was found at `place`.
    pub fn put_at(&mut self, place: &EntryPlace, entry: &IndexEntry) -> Option<IndexEntry> {
        let place = self.now(place, &entry.digest);
        self.changes += 1;
        if place.id != NONE {
            let slot = self.slot_mut(place.id);
            debug_assert_eq!(slot.digest, entry.digest.0);
            let former = slot.unpack();
            *slot = Slot::pack(entry, slot.next);
            return Some(former);
        }
        let id = self.take_slot();
        let number = self.table_of(entry.digest.partition());
        let table = &mut self.tables[number];
        if table.buckets == 0 {
            (0..SPLIT_BUCKETS).for_each(|_| table.push(NONE));
        }
        let head = table.head_mut(table.bucket(place.rank));
        let next = std::mem::replace(head, id);
        table.len += 1;
        self.len += 1;
        let is_crowded = table.len as usize >= table.buckets as usize + SPLIT_BUCKETS;
        *self.slot_mut(id) = Slot::pack(entry, next);
        if is_crowded {
            self.split(number);
        }
        None
    }

    /// Notes that a record, found at `place`, lies somewhere else now, the same as it was.
    pub(super) fn relocate_at(&mut self, place: &EntryPlace, digest: &Digest, to: Location) {
        let id = self.now(place, digest).id;
        if id != NONE {
            let slot = self.slot_mut(id);
            let mark = slot.stamps & MARK;
            *slot = Slot::pack(&IndexEntry { location: to, ..slot.unpack() }, slot.next);
            slot.stamps |= mark;
        }
    }

    /// Marks an entry, if it is still the same version.
    pub(super) fn mark(&mut self, entry: &IndexEntry) {
        let id = self.find(&entry.digest).id;
        if id != NONE && self.slot(id).version == entry.version.raw() {
            self.slot_mut(id).stamps |= MARK;
        }
    }

    /// Whether the entry of a digest is marked.
    pub(super) fn is_marked(&self, digest: &Digest) -> bool {
        let id = self.find(digest).id;
        id != NONE && self.slot(id).stamps & MARK != 0
    }

    /// Number of marked entries; looks at all of them.
    #[cfg(test)]
    pub(super) fn marked_count(&self) -> usize {
        let slots = self.chunks.iter().flat_map(|chunk| &**chunk);
        slots.filter(|slot| slot.stamps & MARK != 0).count()
    }

    /// Takes the mark from the entry of a digest, if it is newer than `version`.
    pub(super) fn unmark_newer(&mut self, digest: &Digest, version: Version) {
        let id = self.find(digest).id;
        if id != NONE && self.slot(id).stamps & MARK != 0 && version.raw() < self.slot(id).version {
            self.slot_mut(id).stamps &= !MARK;
        }
    }

    /// Makes buckets for so many records at once, as spread as those that are there: the fewer
    /// records there are, the less it costs. Takes a while: for a start, not for a shard at work.
    pub fn expect(&mut self, records: usize) {
        let buckets = records.div_ceil(self.tables.len());
        for number in 0..self.tables.len() {
            let has_any = self.tables[number].buckets > 0;
            while has_any && (self.tables[number].buckets as usize) < buckets {
                self.split(number);
            }
        }
    }

    /// Takes a record out.
    pub fn remove(&mut self, digest: &Digest) -> Option<IndexEntry> {
        let number = self.table_of(digest.partition());
        let bucket = self.tables[number].bucket(rank(self.key, digest));
        let mut previous = NONE;
        let mut id = self.tables[number].head(bucket);
        while id != NONE {
            let slot = *self.slot(id);
            if slot.digest == digest.0 {
                match previous {
                    NONE => *self.tables[number].head_mut(bucket) = slot.next,
                    before => self.slot_mut(before).next = slot.next,
                }
                self.slot_mut(id).next = self.free;
                self.free = id;
                self.tables[number].len -= 1;
                self.len -= 1;
                self.changes += 1;
                return Some(slot.unpack());
            }
            previous = id;
            id = slot.next;
        }
        None
    }

    /// Where a walk of a partition begins.
    pub fn start(&self) -> WalkCursor {
        WalkCursor { rank: 0, given: None }
    }

    /// Where a walk goes on that was given `digest` last.
    pub fn after(&self, digest: &Digest) -> WalkCursor {
        WalkCursor { rank: rank(self.key, digest), given: Some(*digest) }
    }

    /// Gives the records of `partition` that come after `from` to `give`, looking into at most
    /// `buckets_max` buckets. Returns where to go on, `None` at the partition's end.
    ///
    /// A record that stays in the index for the whole walk is given exactly once.
    pub fn walk(
        &self,
        partition: PartitionId,
        from: WalkCursor,
        buckets_max: usize,
        give: &mut impl FnMut(&IndexEntry),
    ) -> Option<WalkCursor> {
        let table = &self.tables[self.table_of(partition)];
        let (mut rank, mut left) = (from.rank, buckets_max.max(1));
        while left > 0 {
            let mut buckets = [0; SPLIT_BUCKETS];
            let (mut next, mut count) = (Some(rank), 0);
            while let Some(rank) = next.filter(|_| count < left.min(buckets.len())) {
                buckets[count] = table.bucket(rank);
                next = table.last_rank(buckets[count]).checked_add(1);
                count += 1;
            }
            let buckets = &buckets[..count];
            self.prefetch_chains(table, buckets);
            buckets.iter().for_each(|bucket| self.give_in_order(table.head(*bucket), from, give));
            rank = next?;
            left -= count;
        }
        Some(WalkCursor { rank, given: None })
    }

    /// Brings the chains of some buckets, all but their far ends, into the cache.
    fn prefetch_chains(&self, table: &Table, buckets: &[u32]) {
        buckets.iter().for_each(|bucket| table.prefetch_head(*bucket));
        let mut ids = [NONE; SPLIT_BUCKETS];
        for (id, bucket) in ids.iter_mut().zip(buckets) {
            *id = table.head(*bucket);
            self.prefetch_slot(*id);
        }
        for id in ids.iter_mut().filter(|id| **id != NONE) {
            *id = self.slot(*id).next;
            self.prefetch_slot(*id);
        }
    }

    /// Gives a chain's records after `from`, by rank. Chains are so short that picking the least
    /// each time is the cheapest sort.
    fn give_in_order(&self, head: u32, from: WalkCursor, give: &mut impl FnMut(&IndexEntry)) {
        let mut reached = from;
        loop {
            let mut least: Option<(WalkCursor, u32)> = None;
            let mut id = head;
            while id != NONE {
                let slot = self.slot(id);
                let here = self.after(&Digest(slot.digest));
                if here > reached && least.is_none_or(|(least, _)| here < least) {
                    least = Some((here, id));
                }
                id = slot.next;
            }
            let Some((here, id)) = least else { return };
            give(&self.slot(id).unpack());
            reached = here;
        }
    }

    /// Its sizes.
    pub(super) fn shape(&self) -> Shape {
        Shape { used: self.used, free: self.free, records: self.len as u64, key: self.key }
    }

    /// Bytes that [`Index::save`] writes.
    pub(super) fn saved_bytes(&self) -> usize {
        let heads: usize = self.tables.iter().map(|table| table.buckets as usize * 4).sum();
        self.used as usize * size_of::<Slot>() + self.tables.len() * 8 + heads
    }

    /// Writes the slots as they are, then each partition's buckets and records, 4 bytes each, and
    /// its bucket heads. Gives up, and says so with false, when `is_late` is true on the way.
    pub(super) fn save(&self, out: &mut Out<'_>, is_late: &dyn Fn() -> bool) -> bool {
        let mut left = self.used as usize;
        for chunk in &self.chunks {
            if is_late() {
                return false;
            }
            chunk.iter().take(left).for_each(|slot| out.put(&slot.to_bytes()));
            left -= left.min(chunk.len());
        }
        for table in &self.tables {
            out.put(&table.buckets.to_le_bytes());
            out.put(&table.len.to_le_bytes());
            table.heads().for_each(|head| out.put(&head.to_le_bytes()));
        }
        true
    }

    /// The inverse of [`Index::save`]; `None` when something points outside. Tells `entered` now
    /// and then of slots put back, and the bytes they came from.
    pub(super) fn restore(
        shard_count: u16,
        shape: Shape,
        input: &mut In<'_>,
        entered: &mut impl FnMut(usize, usize),
    ) -> Option<Self> {
        let Shape { used, free, records, key } = shape;
        let is_inside = |id: u32| id < used || id == NONE;
        let slots = input.take((used as usize).checked_mul(size_of::<Slot>())?)?;
        let chunk = |bytes: &[u8]| {
            entered(bytes.len() / size_of::<Slot>(), bytes.len());
            let mut chunk = vec![Slot::EMPTY; CHUNK_SLOTS].into_boxed_slice();
            for (slot, bytes) in chunk.iter_mut().zip(bytes.chunks_exact(size_of::<Slot>())) {
                *slot = Slot::from_bytes(bytes);
            }
            chunk.iter().all(|slot| is_inside(slot.next)).then_some(chunk)
        };
        let chunks = slots.chunks(CHUNK_SLOTS * size_of::<Slot>()).map(chunk);
        let chunks = chunks.collect::<Option<_>>()?;
        let mut tables = vec![Table::default(); table_count(shard_count)];
        for table in &mut tables {
            let counts = input.take(8)?;
            let heads = input.take((u32_at(counts, 0) as usize).checked_mul(4)?)?;
            table.len = u32_at(counts, 4);
            for head in heads.chunks_exact(4).map(|head| u32_at(head, 0)) {
                is_inside(head).then(|| table.push(head))?;
            }
        }
        let len = tables.iter().map(|table| u64::from(table.len)).sum::<u64>();
        Some(Self {
            shard_count,
            key,
            chunks,
            used,
            free: is_inside(free).then_some(free)?,
            tables: tables.into(),
            len: (len == records).then(|| usize::try_from(records).ok())??,
            changes: 0,
        })
    }

    /// The number of a partition's table.
    #[inline]
    fn table_of(&self, partition: PartitionId) -> usize {
        partition.index() / usize::from(self.shard_count)
    }

    /// Makes more buckets of a table, out of those that have gone longest without.
    fn split(&mut self, number: usize) {
        let Self { tables, chunks, key, .. } = self;
        let table = &mut tables[number];
        let level = table.buckets.ilog2();
        let first = table.buckets - (1 << level);
        let mut chains = [NONE; SPLIT_BUCKETS];
        for (chain, source) in chains.iter_mut().zip(first..1 << level) {
            *chain = std::mem::replace(table.head_mut(source), NONE);
            table.push(NONE);
        }
        while chains.iter().any(|id| *id != NONE) {
            let rest = || chains.iter().copied().filter(|id| *id != NONE);
            rest().for_each(|id| prefetch(&slot_in(chunks, id).digest));
            for id in chains.iter_mut().filter(|id| **id != NONE) {
                let slot = slot_in_mut(chunks, *id);
                let bucket = table.bucket(rank(*key, &Digest(slot.digest)));
                let head = table.head_mut(bucket);
                let next = std::mem::replace(&mut slot.next, *head);
                *head = std::mem::replace(id, next);
            }
        }
    }

    fn take_slot(&mut self) -> u32 {
        if self.free != NONE {
            let id = self.free;
            self.free = self.slot(id).next;
            return id;
        }
        assert!(self.used < NONE, "the caller has asked has_room");
        let id = self.used;
        if (id as usize).is_multiple_of(CHUNK_SLOTS) {
            self.chunks.push(vec![Slot::EMPTY; CHUNK_SLOTS].into_boxed_slice());
        }
        self.used += 1;
        id
    }

    #[inline]
    fn slot(&self, id: u32) -> &Slot {
        slot_in(&self.chunks, id)
    }

    #[inline]
    fn slot_mut(&mut self, id: u32) -> &mut Slot {
        slot_in_mut(&mut self.chunks, id)
    }
}

#[inline]
fn slot_in(chunks: &[Box<[Slot]>], id: u32) -> &Slot {
    &chunks[id as usize / CHUNK_SLOTS][id as usize % CHUNK_SLOTS]
}

#[inline]
fn slot_in_mut(chunks: &mut [Box<[Slot]>], id: u32) -> &mut Slot {
    &mut chunks[id as usize / CHUNK_SLOTS][id as usize % CHUNK_SLOTS]
}

/// Partitions of a shard, at most.
const fn table_count(shard_count: u16) -> usize {
    PARTITION_COUNT.div_ceil(shard_count as usize)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashMap};

    use proptest::prelude::*;

    use super::*;
    use longship::model::ShardIndex;

    /// As uniform as a real one, and quicker to make.
    fn digest(key: u64) -> Digest {
        let mut bytes = [0; 20];
        let mut state = key;
        for chunk in bytes.chunks_mut(8) {
            state = (state ^ state >> 31).wrapping_add(0x9E37_79B9_7F4A_7C15);
            state = (state ^ state >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            chunk.copy_from_slice(&(state ^ state >> 32).to_le_bytes()[..chunk.len()]);
        }
        Digest(bytes)
    }

    fn entry(key: u64, version: u64) -> IndexEntry {
        IndexEntry {
            digest: digest(key),
            version: Version::from_raw(version),
            local_lut: Lut::from_ms(version ^ 0xAA),
            location: Location {
                block: BlockId(version as u32),
                offset: (version as u32 % 1000) * 16,
                extent: 8 * 1024 * 1024,
            },
            generation: Generation(version as u16),
            void_time: VoidTime(version as u32 & 0x3FFF_FFFF),
            set: SetId((version % 4096) as u16),
            flags: RecordFlags(version as u8 & 0x7F),
            src_id: SrcId(!version as u8),
        }
    }

    /// Every record of the shard's partitions, walked `step` buckets at a time.
    fn walked(index: &Index, shard: u16, shard_count: u16, step: usize) -> Vec<IndexEntry> {
        let mut all = Vec::new();
        for partition in PartitionId::of_shard(ShardIndex(shard), shard_count) {
            let mut cursor = index.start();
            while let Some(next) =
                index.walk(partition, cursor, step, &mut |entry| all.push(*entry))
            {
                assert!(cursor < next, "each step gets further");
                cursor = next;
            }
        }
        all
    }

    #[test]
    fn a_slot_keeps_every_field() {
        for version in [0, 1, 77, 0x00AB_CDEF_0123_4567] {
            let entry = entry(5, version);
            assert_eq!(Slot::pack(&entry, NONE).unpack(), entry);
        }
    }

    #[test]
    fn room_made_ahead_loses_nothing_and_keeps_the_order() {
        let mut index = Index::new(1);
        index.expect(1_000_000);
        for key in 0..20_000 {
            index.put(&entry(key, key));
        }
        let before = walked(&index, 0, 1, 3);
        let (held, expected) = (index.memory_bytes(), 80_000);
        index.expect(expected);
        assert!(walked(&index, 0, 1, 5) == before, "walks go on as they were");
        let made = index.memory_bytes() - held;
        assert!((4 * (expected - 20_000)..6 * expected).contains(&made), "{made} bytes");
        (0..20_000).for_each(|key| assert_eq!(index.get(&digest(key)), Some(entry(key, key))));
        let held = index.memory_bytes();
        index.expect(expected / 2);
        assert_eq!(index.memory_bytes(), held, "never smaller");
    }

    #[test]
    fn a_prefetch_finds_nearly_every_record_and_no_other() {
        let mut index = Index::new(1);
        for key in 0..20_000 {
            index.put(&entry(key, key));
        }
        let asked: Vec<Digest> = (0..30_000).map(digest).collect();
        let mut found = Vec::new();
        index.prefetch(&asked, |location| found.push(location.block.0));
        assert!(found.len() >= 19_000, "{} of 20,000: the rest are deep in chains", found.len());
        assert!(found.is_sorted() && found.iter().all(|key| *key < 20_000));
    }

    #[test]
    fn a_record_costs_at_most_64_bytes() {
        for (shard_count, records) in [(1_u16, 200_000_u64), (3, 300_000), (2, 400_000)] {
            let mut index = Index::new(shard_count);
            for entry in (0..records).map(|key| entry(key, key)) {
                if entry.digest.partition().shard(shard_count) == ShardIndex(0) {
                    index.put(&entry);
                }
            }
            let per_record = index.memory_bytes() as f64 / index.len() as f64;
            assert!(per_record <= 64.0, "{per_record} bytes for {} records", index.len());
        }
    }

    /// The longest chain, over all partitions.
    fn longest_chain(index: &Index) -> usize {
        let is_slot = |id: &u32| *id != NONE;
        let length = |head: u32| {
            let next = |id: &u32| Some(index.slot(*id).next).filter(is_slot);
            std::iter::successors(Some(head).filter(is_slot), next).count()
        };
        index.tables.iter().flat_map(|table| table.heads().map(length)).max().unwrap()
    }

    #[test]
    fn chains_stay_short_whatever_digests_clients_choose() {
        let crowded = |key: u64| {
            let mut digest = digest(key).0;
            digest[..2].copy_from_slice(&[key as u8 % 8, 0]);
            digest
        };
        let counting = |at: usize| {
            move |key: u64| {
                let mut digest = [7; 20];
                digest[at..at + 4].copy_from_slice(&(key as u32).to_le_bytes());
                digest
            }
        };
        let check = |name: &str, digest_of: &dyn Fn(u64) -> [u8; 20]| {
            let mut index = Index::new(1);
            for key in 0..100_000 {
                index.put(&IndexEntry { digest: Digest(digest_of(key)), ..entry(key, key) });
            }
            assert_eq!(index.len(), 100_000);
            let longest = longest_chain(&index);
            assert!(longest <= 16, "{name}: a chain of {longest}");
        };
        check("eight partitions", &crowded);
        for at in [0, 2, 8, 12, 16] {
            check(&format!("differing in 4 bytes from {at}"), &counting(at));
        }
    }

    #[test]
    fn a_walk_gives_each_record_once_and_can_stop_anywhere() {
        for (shard_count, shard, records) in [(1, 0, 10), (1, 0, 30_000), (3, 2, 30_000)] {
            let mut index = Index::new(shard_count);
            let mut expected = BTreeSet::new();
            for key in 0..records {
                let entry = entry(key, key);
                if entry.digest.partition().shard(shard_count) == ShardIndex(shard) {
                    index.put(&entry);
                    expected.insert(entry.digest);
                }
            }
            for step in [1, 7, usize::MAX] {
                let given = walked(&index, shard, shard_count, step);
                assert_eq!(given.len(), expected.len());
                assert_eq!(given.iter().map(|e| e.digest).collect::<BTreeSet<_>>(), expected);
            }
        }
    }

    #[test]
    fn a_walk_survives_the_growth_of_the_table() {
        let mut index = Index::new(1);
        let old: BTreeSet<Digest> = (0..1000)
            .map(|key| {
                index.put(&entry(key, key));
                entry(key, key).digest
            })
            .collect();
        let mut given = Vec::new();
        let mut key = 1000;
        for partition in PartitionId::all() {
            let mut cursor = index.start();
            loop {
                let mut last = None;
                let next = index.walk(partition, cursor, 1, &mut |entry| {
                    given.push(entry.digest);
                    last = Some(entry.digest);
                });
                for _ in 0..3 {
                    index.put(&entry(key, key));
                    key += 1;
                }
                // Going on from the last digest given is as good as the cursor.
                let Some(next) = next else { break };
                cursor = last.map_or(next, |last| index.after(&last));
            }
        }
        let distinct: BTreeSet<Digest> = given.iter().copied().collect();
        assert_eq!(distinct.len(), given.len(), "nothing is given twice");
        assert!(old.is_subset(&distinct), "what was there throughout is given");
    }

    #[test]
    fn a_saved_index_goes_on_where_it_was() {
        for records in [0, 1, 5000, 40_000] {
            let mut index = Index::new(2);
            for key in 0..records {
                index.put(&entry(key, key));
            }
            for key in (0..records).step_by(3) {
                index.remove(&digest(key));
            }
            let mut bytes = vec![0; index.saved_bytes()];
            assert!(index.save(&mut Out::new(&mut bytes), &|| false));
            let mut back =
                Index::restore(2, index.shape(), &mut In::new(&bytes), &mut |_, _| {}).unwrap();
            assert_eq!(back.len(), index.len());
            for key in 0..records + 2000 {
                assert_eq!(back.get(&digest(key)), index.get(&digest(key)));
                assert_eq!(back.put(&entry(key, 7)), index.put(&entry(key, 7)));
            }
            let short = &bytes[..bytes.len() - 1];
            assert!(
                Index::restore(2, index.shape(), &mut In::new(short), &mut |_, _| {}).is_none()
            );
        }
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_hash_map(
            steps in proptest::collection::vec((0_u64..400, 0_u8..4, 1_u64..1 << 40), 0..2000),
        ) {
            let mut index = Index::new(1);
            let mut model: HashMap<Digest, IndexEntry> = HashMap::new();
            for (key, action, version) in steps {
                let entry = entry(key, version);
                match action {
                    0 => prop_assert_eq!(index.remove(&entry.digest), model.remove(&entry.digest)),
                    1 => prop_assert_eq!(index.get(&entry.digest), model.get(&entry.digest).copied()),
                    _ => prop_assert_eq!(index.put(&entry), model.insert(entry.digest, entry)),
                }
                prop_assert_eq!(index.len(), model.len());
            }
            let given = walked(&index, 0, 1, 3);
            prop_assert_eq!(given.len(), model.len());
            for entry in given {
                prop_assert_eq!(Some(&entry), model.get(&entry.digest));
            }
        }
    }
}
