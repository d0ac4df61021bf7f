//! Changes that still wait in their lanes and have nothing left to do: an earlier change of the
//! same record has shipped their version already.
//!
//! A change ships its record as it is when it is read. So of several changes of a record in a
//! backlog the first ships for all of them, and the others are settled when their turn comes. This
//! table remembers which, as far as it has room: what it forgets ships once more.

use super::queue::{Entry, PackedLut};
use crate::model::{Digest, Lut};

/// Places of the table: 2 MB from the first time that something ships ahead.
const PLACES: usize = 1 << 16;

#[derive(Clone, Copy)]
struct Shipped {
    digest: Digest,
    lane: u32,
    /// Changes of the record below this have been shipped.
    below: PackedLut,
}

const VACANT: Shipped = Shipped { digest: Digest([0; 20]), lane: u32::MAX, below: PackedLut::ZERO };

const _: () = assert!(size_of::<Shipped>() <= 32);

/// See the [module](self).
#[derive(Default)]
pub(super) struct Ahead {
    /// Each record has one place, which the last to come takes.
    places: Vec<Shipped>,
    taken: u32,
}

impl Ahead {
    /// Remembers that changes of a record below `below` have been shipped.
    #[cold]
    pub(super) fn note(&mut self, digest: Digest, lane: u32, below: Lut) {
        if self.places.is_empty() {
            self.places = vec![VACANT; PLACES];
        }
        let place = &mut self.places[place_of(&digest, lane)];
        self.taken += u32::from(place.lane == VACANT.lane);
        *place = Shipped { digest, lane, below: PackedLut::of(below) };
    }

    /// Whether what a queued change stands for has been shipped.
    #[inline]
    pub(super) fn covers(&mut self, entry: &Entry, lane: u32) -> bool {
        self.taken > 0 && self.find(entry, lane)
    }

    fn find(&mut self, entry: &Entry, lane: u32) -> bool {
        let place = &mut self.places[place_of(&entry.digest, lane)];
        let is_of_record = place.lane == lane && place.digest == entry.digest;
        let covers = is_of_record && entry.lut.get() < place.below.get();
        if is_of_record && !covers {
            *place = VACANT;
            self.taken -= 1;
        }
        covers
    }

    /// Forgets everything: what has shipped may have to ship again.
    pub(super) fn forget(&mut self) {
        if self.taken > 0 {
            self.places.fill(VACANT);
            self.taken = 0;
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.places.len() * size_of::<Shipped>()
    }
}

/// Clients may choose digests that share a place: that costs them another frame.
fn place_of(digest: &Digest, lane: u32) -> usize {
    (digest.mixed() as usize ^ lane as usize) % PLACES
}
