//! Queue entries of 25 bytes in rings of chunks, and the pool that bounds them.
//!
//! A ring is a chain of chunks of 16 entries (404 bytes, so 25.25 bytes an entry when full); an
//! empty ring owns none. Entries come nearly in LUT order; a ring knows how far from it they are,
//! which makes its lowest LUT a matter of looking at its head.

use crate::model::{Digest, Lut};
// The rule that ship/ knows nothing of longship-rt is broken for a hint that decides nothing.
use longship_rt::prefetch::prefetch;

/// Entries of a chunk. Sixteen waste little on short lanes and little on links.
pub(super) const CHUNK_ENTRIES: usize = 16;
/// Bytes of a chunk.
pub(super) const CHUNK_BYTES: usize = size_of::<Chunk>();
/// Chunks allocated together.
const SEGMENT_CHUNKS: usize = 256;
/// Segments kept when the pool runs empty, so that ordinary ups and downs never allocate.
const SEGMENTS_KEPT: usize = 16;
const NO_CHUNK: u32 = u32::MAX;

/// A LUT in the five bytes it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PackedLut([u8; 5]);

impl PackedLut {
    pub(super) const ZERO: Self = Self::of(Lut::ZERO);
    pub(super) const MAX: Self = Self::of(Lut::MAX);

    #[inline]
    pub(super) const fn of(lut: Lut) -> Self {
        Self(lut.to_bytes())
    }

    #[inline]
    pub(super) const fn get(self) -> Lut {
        Lut::from_bytes(self.0)
    }

    /// Lowers it to `lut` if that is lower.
    #[inline]
    pub(super) fn lower_to(&mut self, lut: Lut) {
        if lut < self.get() {
            *self = Self::of(lut);
        }
    }
}

/// A queued change: 20 bytes of digest, 5 of LUT. Never data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Entry {
    pub(super) digest: Digest,
    pub(super) lut: PackedLut,
}

const _: () = assert!(size_of::<Entry>() == 25 && align_of::<Entry>() == 1);

impl Entry {
    const BLANK: Self = Self { digest: Digest([0; 20]), lut: PackedLut::ZERO };

    #[inline]
    pub(super) const fn new(digest: Digest, lut: Lut) -> Self {
        Self { digest, lut: PackedLut::of(lut) }
    }
}

#[derive(Clone, Copy)]
struct Chunk {
    entries: [Entry; CHUNK_ENTRIES],
    /// Next chunk of the ring, or of the free list.
    next: u32,
}

/// The pool's bound is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exhausted;

/// Chunks of one DC, at most `chunks_max` of them.
pub(super) struct Pool {
    segments: Vec<Box<[Chunk]>>,
    free: u32,
    /// Chunks below this index have been in use before.
    fresh: u32,
    used: u32,
    chunks_max: u32,
}

impl Pool {
    pub(super) fn new(chunks_max: u32) -> Self {
        Self { segments: Vec::new(), free: NO_CHUNK, fresh: 0, used: 0, chunks_max }
    }

    /// Chunks in use.
    pub(super) const fn used(&self) -> u32 {
        self.used
    }

    /// Bytes allocated.
    pub(super) fn bytes(&self) -> usize {
        self.segments.len() * SEGMENT_CHUNKS * CHUNK_BYTES
    }

    #[inline]
    fn at(&self, chunk: u32) -> &Chunk {
        &self.segments[chunk as usize / SEGMENT_CHUNKS][chunk as usize % SEGMENT_CHUNKS]
    }

    #[inline]
    fn at_mut(&mut self, chunk: u32) -> &mut Chunk {
        &mut self.segments[chunk as usize / SEGMENT_CHUNKS][chunk as usize % SEGMENT_CHUNKS]
    }

    #[inline]
    fn take(&mut self) -> Result<u32, Exhausted> {
        if self.used == self.chunks_max {
            return Err(Exhausted);
        }
        self.used += 1;
        if self.free != NO_CHUNK {
            let chunk = self.free;
            self.free = self.at(chunk).next;
            return Ok(chunk);
        }
        Ok(self.take_fresh())
    }

    #[cold]
    fn take_fresh(&mut self) -> u32 {
        if self.fresh as usize == self.segments.len() * SEGMENT_CHUNKS {
            let blank = Chunk { entries: [Entry::BLANK; CHUNK_ENTRIES], next: NO_CHUNK };
            self.segments.push(vec![blank; SEGMENT_CHUNKS].into_boxed_slice());
        }
        self.fresh += 1;
        self.fresh - 1
    }

    /// Takes back the chain `first..=last` of `count` chunks.
    #[inline]
    fn give(&mut self, first: u32, last: u32, count: u32) {
        let free = self.free;
        self.at_mut(last).next = free;
        self.free = first;
        self.used -= count;
        if self.used == 0 && self.segments.len() > SEGMENTS_KEPT {
            self.segments.truncate(SEGMENTS_KEPT);
            self.free = NO_CHUNK;
            self.fresh = 0;
        }
    }
}

/// A first-in-first-out queue of entries that also takes back at its head.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ring {
    first: u32,
    last: u32,
    len: u32,
    /// No entry's LUT is lower than the head's by more than this; `u32::MAX` bounds nothing.
    disorder_ms: u32,
    /// Entries that have to leave until the rest is in order.
    disordered: u32,
    /// Highest LUT pushed since the ring was last empty.
    newest: PackedLut,
    /// Index of the head entry in the first chunk.
    head: u8,
    /// Index after the last entry in the last chunk.
    tail: u8,
}

impl Ring {
    pub(super) const EMPTY: Self = Self {
        first: NO_CHUNK,
        last: NO_CHUNK,
        len: 0,
        disorder_ms: 0,
        disordered: 0,
        newest: PackedLut::ZERO,
        head: 0,
        tail: 0,
    };

    #[inline]
    pub(super) const fn len(&self) -> u32 {
        self.len
    }

    #[inline]
    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The entry to leave next.
    #[inline]
    pub(super) fn peek(&self, pool: &Pool) -> Option<Entry> {
        (self.len > 0).then(|| pool.at(self.first).entries[usize::from(self.head)])
    }

    /// The entries that leave next, to the end of their chunk; the chunk behind it is fetched into
    /// the cache meanwhile.
    #[inline]
    pub(super) fn ahead<'a>(&self, pool: &'a Pool) -> &'a [Entry] {
        if self.len == 0 {
            return &[];
        }
        let chunk = pool.at(self.first);
        if self.first == self.last {
            return &chunk.entries[usize::from(self.head)..usize::from(self.tail)];
        }
        prefetch(pool.at(chunk.next));
        &chunk.entries[usize::from(self.head)..]
    }

    /// Whether the entry to leave next is the first of its chunk.
    #[inline]
    pub(super) const fn is_at_chunk(&self) -> bool {
        self.head == 0
    }

    /// Fetches the entries that leave next into the cache.
    #[inline]
    pub(super) fn prefetch_head(&self, pool: &Pool) {
        if self.len > 0 {
            prefetch(pool.at(self.first));
        }
    }

    /// Fetches the place of the entry pushed next into the cache.
    #[inline]
    pub(super) fn prefetch_tail(&self, pool: &Pool) {
        if self.len > 0
            && let Some(place) = pool.at(self.last).entries.get(usize::from(self.tail))
        {
            prefetch(place);
        }
    }

    /// Whether an entry with this LUT may be among them.
    pub(super) fn may_hold(&self, lut: Lut, pool: &Pool) -> bool {
        lut <= self.newest.get() && self.lowest(pool).is_some_and(|lowest| lowest <= lut)
    }

    /// A lower bound of the LUTs of all entries; exact when they came in order.
    #[inline]
    pub(super) fn lowest(&self, pool: &Pool) -> Option<Lut> {
        let head = self.peek(pool)?;
        Some(match self.disorder_ms {
            u32::MAX => Lut::ZERO,
            ms => head.lut.get().minus_ms(u64::from(ms)),
        })
    }

    #[inline]
    pub(super) fn push_back(&mut self, entry: Entry, pool: &mut Pool) -> Result<(), Exhausted> {
        let lut = entry.lut.get();
        if self.len == 0 {
            return self.start(entry, pool);
        }
        if usize::from(self.tail) == CHUNK_ENTRIES {
            let chunk = pool.take()?;
            pool.at_mut(self.last).next = chunk;
            self.last = chunk;
            self.tail = 0;
        }
        pool.at_mut(self.last).entries[usize::from(self.tail)] = entry;
        self.tail += 1;
        self.len += 1;
        let newest = self.newest.get();
        if lut < newest {
            self.note_disorder(newest.ms() - lut.ms());
            self.disordered = self.len;
        } else {
            self.newest = entry.lut;
        }
        Ok(())
    }

    /// Puts an entry in front of all others.
    #[inline]
    pub(super) fn push_front(&mut self, entry: Entry, pool: &mut Pool) -> Result<(), Exhausted> {
        if self.len == 0 {
            return self.start(entry, pool);
        }
        let lut = entry.lut.get();
        let head = pool.at(self.first).entries[usize::from(self.head)].lut.get();
        if self.head == 0 {
            let chunk = pool.take()?;
            pool.at_mut(chunk).next = self.first;
            self.first = chunk;
            self.head = CHUNK_ENTRIES as u8;
        }
        self.head -= 1;
        pool.at_mut(self.first).entries[usize::from(self.head)] = entry;
        self.len += 1;
        if self.disordered > 0 || lut > head {
            self.disordered += 1;
        }
        if lut > head {
            self.note_disorder(u64::from(self.disorder_ms) + lut.ms() - head.ms());
        }
        if lut > self.newest.get() {
            self.newest = entry.lut;
        }
        Ok(())
    }

    #[inline]
    fn start(&mut self, entry: Entry, pool: &mut Pool) -> Result<(), Exhausted> {
        let chunk = pool.take()?;
        pool.at_mut(chunk).entries[0] = entry;
        *self = Self {
            first: chunk,
            last: chunk,
            len: 1,
            disorder_ms: 0,
            disordered: 0,
            newest: entry.lut,
            head: 0,
            tail: 1,
        };
        Ok(())
    }

    fn note_disorder(&mut self, ms: u64) {
        let ms = u32::try_from(ms).unwrap_or(u32::MAX);
        self.disorder_ms = self.disorder_ms.max(ms);
    }

    #[inline]
    pub(super) fn pop(&mut self, pool: &mut Pool) -> Option<Entry> {
        if self.len == 0 {
            return None;
        }
        let chunk = pool.at(self.first);
        let entry = chunk.entries[usize::from(self.head)];
        let next = chunk.next;
        self.head += 1;
        self.len -= 1;
        if self.disordered > 0 {
            self.disordered -= 1;
            if self.disordered == 0 {
                self.disorder_ms = 0;
            }
        }
        if self.len == 0 {
            pool.give(self.first, self.first, 1);
            *self = Self::EMPTY;
        } else if usize::from(self.head) == CHUNK_ENTRIES {
            pool.give(self.first, self.first, 1);
            self.first = next;
            self.head = 0;
        }
        Some(entry)
    }

    /// Drops everything and returns how many entries that were.
    pub(super) fn clear(&mut self, pool: &mut Pool) -> u32 {
        let len = self.len;
        if len > 0 {
            let unused = CHUNK_ENTRIES as u32 - u32::from(self.tail);
            let chunks = (u32::from(self.head) + len + unused) / CHUNK_ENTRIES as u32;
            pool.give(self.first, self.last, chunks);
            *self = Self::EMPTY;
        }
        len
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    fn entry(n: u64) -> Entry {
        let mut digest = [0; 20];
        digest[..8].copy_from_slice(&n.to_le_bytes());
        Entry::new(Digest(digest), Lut::from_ms(n))
    }

    #[derive(Clone, Debug)]
    enum Op {
        Back(u64),
        Front(u64),
        Pop,
        Clear,
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            6 => (0u64..1000).prop_map(Op::Back),
            3 => (0u64..1000).prop_map(Op::Front),
            6 => Just(Op::Pop),
            1 => Just(Op::Clear),
        ]
    }

    proptest! {
        #[test]
        fn rings_sharing_a_pool_behave_like_deques(
            ops in prop::collection::vec((0usize..3, op()), 0..400)
        ) {
            let mut pool = Pool::new(8);
            let mut rings = [Ring::EMPTY; 3];
            let mut models: [VecDeque<u64>; 3] = Default::default();
            for (which, op) in ops {
                let (ring, model) = (&mut rings[which], &mut models[which]);
                match op {
                    Op::Back(n) => {
                        if ring.push_back(entry(n), &mut pool).is_ok() {
                            model.push_back(n);
                        }
                    }
                    Op::Front(n) => {
                        if ring.push_front(entry(n), &mut pool).is_ok() {
                            model.push_front(n);
                        }
                    }
                    Op::Pop => {
                        prop_assert_eq!(ring.pop(&mut pool), model.pop_front().map(entry));
                    }
                    Op::Clear => {
                        prop_assert_eq!(ring.clear(&mut pool) as usize, model.len());
                        model.clear();
                    }
                }
                prop_assert_eq!(ring.len() as usize, model.len());
                prop_assert_eq!(ring.peek(&pool), model.front().map(|&n| entry(n)));
                if let Some(&lowest) = model.iter().min() {
                    prop_assert!(ring.lowest(&pool).is_some_and(|lut| lut.ms() <= lowest));
                }
                prop_assert!(pool.used() <= 8);
            }
            for ring in &mut rings {
                ring.clear(&mut pool);
            }
            prop_assert_eq!(pool.used(), 0);
        }
    }

    #[test]
    fn the_lowest_lut_of_an_ordered_ring_is_exact() {
        let (mut pool, mut ring) = (Pool::new(64), Ring::EMPTY);
        for n in 10..100 {
            ring.push_back(entry(n), &mut pool).expect("room");
        }
        for n in (0..10).rev() {
            ring.push_front(entry(n), &mut pool).expect("room");
        }
        for n in 0..100 {
            assert_eq!(ring.lowest(&pool), Some(Lut::from_ms(n)));
            assert_eq!(ring.pop(&mut pool), Some(entry(n)));
        }
        assert_eq!(pool.used(), 0);
    }

    #[test]
    fn sixteen_entries_take_one_chunk_and_full_chunks_25_25_bytes_each() {
        let (mut pool, mut ring) = (Pool::new(64), Ring::EMPTY);
        for n in 0..16 {
            ring.push_back(entry(n), &mut pool).expect("room");
        }
        assert_eq!((pool.used(), CHUNK_BYTES), (1, 404));
    }

    #[test]
    fn a_burst_gives_its_memory_back() {
        let (mut pool, mut ring) = (Pool::new(1 << 20), Ring::EMPTY);
        for n in 0..200_000 {
            ring.push_back(entry(n), &mut pool).expect("room");
        }
        let burst = pool.bytes();
        ring.clear(&mut pool);
        assert!(pool.bytes() <= burst / 2);
        for n in 0..100 {
            ring.push_back(entry(n), &mut pool).expect("room");
        }
        assert_eq!((0..100).map(|_| ring.pop(&mut pool)).filter(Option::is_some).count(), 100);
    }
}
