//! One (DC, namespace, partition), and all of a DC with their queues.

use std::ops::{Index, IndexMut};

use super::bitmap::Bitmap;
use super::queue::{Entry, Exhausted, PackedLut, Pool, Ring};
use crate::model::Lut;

/// Changes of a lane that may wait for another try.
pub(super) const RETRY_MAX: u16 = 50;
/// Changes of a lane, found by a recovery walk, that may wait for another try.
pub(super) const RETRY_MAX_IN_RECOVERY: u16 = 1000;
/// From this many on, a lane ships nothing new until tries succeed.
pub(super) const RETRY_ONLY: u16 = 10;

/// Rests are counted in this many milliseconds: 32 bits of them last for years, for which a lane may
/// have nothing to ship after a rest.
const REST_UNIT_MS: u64 = 64;
/// No entry in the list of walking lanes.
const NOT_WALKING: u32 = u32::MAX;

/// What is kept for a lane however idle it is: at most 64 bytes with its share of the bitmaps.
///
/// A lane is in one of three states. *Live*: changes are queued. *Gap*: changes from `gap` on are
/// left to recovery, nothing is queued. *Walking*: a walk finds what the gap missed, and new
/// changes are queued again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lane {
    ring: Ring,
    /// Settled below this, as of the last sweep.
    pub(super) lst: PackedLut,
    /// The part of `lst` that no restart of the destination can take back: safe to persist.
    pub(super) mark: PackedLut,
    /// Changes from here on may be missing from the queue; [`PackedLut::MAX`] when none are.
    gap: PackedLut,
    /// Lowest LUT met by the running sweep.
    pub(super) sweep: PackedLut,
    /// Place in the list of walking lanes.
    walking: u32,
    /// The end of its last rest, in units; 0 if it has not rested since it was woken.
    rests_until: u32,
    /// Slots in [`super::slots::State::Retry`].
    pub(super) retries: u16,
}

const _: () = assert!(size_of::<Lane>() <= 60);

impl Lane {
    const fn new(lst: Lut) -> Self {
        Self {
            ring: Ring::EMPTY,
            lst: PackedLut::of(lst),
            mark: PackedLut::of(lst),
            gap: PackedLut::MAX,
            sweep: PackedLut::MAX,
            walking: NOT_WALKING,
            rests_until: 0,
            retries: 0,
        }
    }

    #[inline]
    pub(super) fn has_gap(&self) -> bool {
        self.gap != PackedLut::MAX
    }

    /// The gap, [`Lut::MAX`] if there is none.
    #[inline]
    pub(super) fn gap(&self) -> Lut {
        self.gap.get()
    }

    /// Changes queued.
    #[inline]
    pub(super) const fn queued(&self) -> u32 {
        self.ring.len()
    }

    #[inline]
    pub(super) const fn is_walking(&self) -> bool {
        self.walking != NOT_WALKING
    }

    /// Lets it rest until then, in milliseconds: there is no room for dead letters, or its node refuses
    /// whatever it is sent.
    pub(super) fn rest(&mut self, until_ms: u64) {
        self.rests_until = (until_ms.div_ceil(REST_UNIT_MS) as u32).max(1);
    }

    /// Its rest, if it had one, is over and forgotten.
    pub(super) const fn wake(&mut self) {
        self.rests_until = 0;
    }

    /// Whether it has rested, or does so, since it was woken.
    #[inline]
    pub(super) const fn has_rested(&self) -> bool {
        self.rests_until != 0
    }

    /// When its rest ends, in milliseconds, if it does not end before `now_ms`.
    pub(super) fn rests_until_ms(&self, now_ms: u64) -> Option<u64> {
        let now = now_ms / REST_UNIT_MS;
        let left = self.rests_until.wrapping_sub(now as u32) as i32;
        (self.has_rested() && left > 0)
            .then(|| (now + u64::from(left.unsigned_abs())) * REST_UNIT_MS)
    }

    /// Its place in the list of walking lanes, or one that no lane has.
    #[inline]
    pub(super) const fn walking(&self) -> u32 {
        self.walking
    }

    pub(super) const fn enter_walk(&mut self, place: u32) {
        self.walking = place;
    }

    /// Gives back the place that it had.
    pub(super) fn leave_walk(&mut self) -> Option<u32> {
        let place = std::mem::replace(&mut self.walking, NOT_WALKING);
        (place != NOT_WALKING).then_some(place)
    }
}

/// All lanes of a DC, and the memory of their queues.
pub(super) struct Lanes {
    lanes: Vec<Lane>,
    /// Lanes with something queued.
    queued: Bitmap,
    /// Lanes with a gap.
    gaps: Bitmap,
    pool: Pool,
}

impl Lanes {
    pub(super) fn new(chunks_max: u32) -> Self {
        Self {
            lanes: Vec::new(),
            queued: Bitmap::default(),
            gaps: Bitmap::default(),
            pool: Pool::new(chunks_max),
        }
    }

    /// Makes room for `lanes` lanes.
    pub(super) fn grow(&mut self, lanes: usize) {
        self.lanes.resize(lanes, Lane::new(Lut::ZERO));
        self.queued.grow(lanes);
        self.gaps.grow(lanes);
    }

    pub(super) const fn len(&self) -> usize {
        self.lanes.len()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Lane> {
        self.lanes.iter_mut()
    }

    /// Bytes of queue chunks, and of the lanes themselves.
    pub(super) fn bytes(&self) -> (usize, usize) {
        (self.pool.bytes(), self.lanes.len() * size_of::<Lane>())
    }

    /// Lanes with something queued.
    #[inline]
    pub(super) const fn queued(&self) -> &Bitmap {
        &self.queued
    }

    /// Lanes with a gap.
    #[inline]
    pub(super) const fn gaps(&self) -> &Bitmap {
        &self.gaps
    }

    /// The queue of a lane, to look at.
    #[inline]
    pub(super) fn queue(&self, lane: u32) -> (&Ring, &Pool) {
        (&self[lane].ring, &self.pool)
    }

    /// The lane begins anew, with nothing queued and nothing missed.
    pub(super) fn begin(&mut self, lane: u32, lst: Lut) {
        self.empty(lane);
        self.gaps.remove(lane);
        self[lane] = Lane::new(lst);
    }

    #[inline]
    pub(super) fn push_back(&mut self, lane: u32, entry: Entry) -> Result<(), Exhausted> {
        self.lanes[lane as usize].ring.push_back(entry, &mut self.pool)?;
        self.queued.insert(lane);
        Ok(())
    }

    pub(super) fn push_front(&mut self, lane: u32, entry: Entry) -> Result<(), Exhausted> {
        self.lanes[lane as usize].ring.push_front(entry, &mut self.pool)?;
        self.queued.insert(lane);
        Ok(())
    }

    #[inline]
    pub(super) fn pop(&mut self, lane: u32) {
        let ring = &mut self.lanes[lane as usize].ring;
        ring.pop(&mut self.pool);
        if ring.is_empty() {
            self.queued.remove(lane);
        }
    }

    /// Drops what is queued: so many changes.
    pub(super) fn empty(&mut self, lane: u32) -> u32 {
        self.queued.remove(lane);
        self.lanes[lane as usize].ring.clear(&mut self.pool)
    }

    /// Changes from `from` on may be missing from the queue, which keeps what it has.
    /// [`Lut::MAX`]: nothing is missing.
    #[inline]
    pub(super) fn miss(&mut self, lane: u32, from: Lut) {
        let place = &mut self.lanes[lane as usize];
        place.gap.lower_to(from);
        if place.has_gap() {
            self.gaps.insert(lane);
        }
    }

    /// Leaves what is queued to the gap, and changes from `from` on. So many were queued.
    pub(super) fn leave(&mut self, lane: u32, from: Lut) -> u32 {
        let lowest = self[lane].ring.lowest(&self.pool);
        self.miss(lane, lowest.map_or(from, |lowest| lowest.min(from)));
        self.empty(lane)
    }

    /// Nothing is missing any more.
    pub(super) fn close_gap(&mut self, lane: u32) {
        self[lane].gap = PackedLut::MAX;
        self.gaps.remove(lane);
    }
}

impl Index<u32> for Lanes {
    type Output = Lane;

    #[inline]
    fn index(&self, lane: u32) -> &Lane {
        &self.lanes[lane as usize]
    }
}

impl IndexMut<u32> for Lanes {
    #[inline]
    fn index_mut(&mut self, lane: u32) -> &mut Lane {
        &mut self.lanes[lane as usize]
    }
}
