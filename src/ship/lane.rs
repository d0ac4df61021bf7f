//! One (DC, namespace, partition).

use super::queue::{PackedLut, Ring};
use crate::model::Lut;

/// Changes of a lane that may wait for another try.
pub(super) const RETRY_MAX: u16 = 50;
/// Changes of a lane, found by a recovery walk, that may wait for another try.
pub(super) const RETRY_MAX_IN_RECOVERY: u16 = 1000;
/// From this many on, a lane ships nothing new until tries succeed.
pub(super) const RETRY_ONLY: u16 = 10;

/// No entry in the list of walking lanes.
pub(super) const NOT_WALKING: u32 = u32::MAX;

/// What is kept for a lane however idle it is: at most 64 bytes with its share of the bitmaps.
///
/// A lane is in one of three states. *Live*: changes are queued. *Gap*: changes from `gap` on are
/// left to recovery, nothing is queued. *Walking*: a walk finds what the gap missed, and new
/// changes are queued again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lane {
    pub(super) ring: Ring,
    /// Settled below this, as of the last sweep.
    pub(super) lst: PackedLut,
    /// The part of `lst` that no restart of the destination can take back: safe to persist.
    pub(super) mark: PackedLut,
    /// Changes from here on may be missing from the queue; [`PackedLut::MAX`] when none are.
    pub(super) gap: PackedLut,
    /// Lowest LUT met by the running sweep.
    pub(super) sweep: PackedLut,
    /// Place in the list of walking lanes.
    pub(super) walking: u32,
    /// Nothing is tried before this millisecond (the low 32 bits): there is no room for dead letters,
    /// or the node refuses whatever it is sent.
    pub(super) rests_until_ms: u32,
    /// Slots in [`super::slots::State::Retry`].
    pub(super) retries: u16,
}

const _: () = assert!(size_of::<Lane>() <= 60);

impl Lane {
    pub(super) const fn new(lst: Lut) -> Self {
        Self {
            ring: Ring::EMPTY,
            lst: PackedLut::of(lst),
            mark: PackedLut::of(lst),
            gap: PackedLut::MAX,
            sweep: PackedLut::MAX,
            walking: NOT_WALKING,
            rests_until_ms: 0,
            retries: 0,
        }
    }

    #[inline]
    pub(super) fn has_gap(&self) -> bool {
        self.gap != PackedLut::MAX
    }

    #[inline]
    pub(super) const fn is_walking(&self) -> bool {
        self.walking != NOT_WALKING
    }
}
