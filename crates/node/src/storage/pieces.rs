//! Pieces of write blocks read back from the device and kept for a while: what catches up wants the
//! records of a piece one after the other, and they come with one read.
//!
//! A piece is never believed: its block may have been filled anew meanwhile, so a record found in
//! it counts only if checksum, digest and version are what the index says.

use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;

use super::flat;
use super::index::{IndexEntry, Location};
use longship::model::{DcIndex, NamespaceId, RecordView};
use longship_rt::arena::Buffer;

/// Bytes of a piece. The smallest write block is one.
pub(super) const PIECE_BYTES: usize = 128 << 10;
/// Pieces kept for all DCs of a shard together ...
const PIECES_MAX: usize = 256;
/// ... and for one of them: 8 MB, several laps of the shipper over small records.
const PIECES_PER_DC_MAX: usize = 64;
/// Their bytes.
pub(super) const PIECES_BYTES_MAX: usize = PIECES_MAX * PIECE_BYTES;

/// Names a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PieceId(u64);

impl PieceId {
    /// The piece in which all of a record lies; `None` if it lies in two.
    #[inline]
    pub(super) fn of(namespace: NamespaceId, location: Location) -> Option<Self> {
        let number = |at: u32| u64::from(at) / PIECE_BYTES as u64;
        let piece = number(location.offset);
        let is_whole = number(location.offset + location.extent - 1) == piece;
        let block = u64::from(namespace.0) << 56 | u64::from(location.block.0) << 16;
        is_whole.then_some(Self(block | piece))
    }

    /// Where in the piece a record of its block lies.
    #[inline]
    pub(super) fn place(self, location: Location) -> Range<usize> {
        let start = location.offset as usize % PIECE_BYTES;
        start..start + location.extent as usize
    }
}

/// The record an entry speaks of, if these bytes are it.
pub(super) fn record_of<'a>(entry: &IndexEntry, bytes: &'a [u8]) -> Option<RecordView<'a>> {
    let record = flat::decode(bytes).ok()?.record;
    (record.digest == entry.digest && record.version == entry.version).then_some(record)
}

struct KeptPiece {
    id: PieceId,
    /// For whom it was read.
    dc: DcIndex,
    state: PieceState,
}

enum PieceState {
    /// On its way, as this group of reads.
    Reading(usize),
    Here(Rc<Buffer>),
}

/// All pieces of a shard.
#[derive(Default)]
pub(super) struct Pieces {
    /// Ascending.
    pieces: Vec<KeptPiece>,
    /// Oldest first.
    order: VecDeque<PieceId>,
}

impl Pieces {
    #[inline]
    fn find(&self, id: PieceId) -> Option<&KeptPiece> {
        let at = self.pieces.binary_search_by_key(&id, |piece| piece.id).ok()?;
        Some(&self.pieces[at])
    }

    /// A piece that is here.
    #[inline]
    pub(super) fn get(&self, id: PieceId) -> Option<&Rc<Buffer>> {
        match &self.find(id)?.state {
            PieceState::Here(buffer) => Some(buffer),
            PieceState::Reading(_) => None,
        }
    }

    /// The bytes at a location, if its piece is here.
    #[inline]
    pub(super) fn bytes(&self, namespace: NamespaceId, location: Location) -> Option<&[u8]> {
        let id = PieceId::of(namespace, location)?;
        self.get(id)?.get(id.place(location))
    }

    /// The record that an entry speaks of, if its piece is here and still holds it.
    pub(super) fn record(
        &self,
        namespace: NamespaceId,
        entry: &IndexEntry,
    ) -> Option<RecordView<'_>> {
        record_of(entry, self.bytes(namespace, entry.location)?)
    }

    /// The group of reads that brings a piece for this DC.
    pub(super) fn reading(&self, id: PieceId, dc: DcIndex) -> Option<usize> {
        match self.find(id)? {
            &KeptPiece { dc: of, state: PieceState::Reading(group), .. } if of == dc => Some(group),
            _ => None,
        }
    }

    /// Makes room for one more piece of a DC: the oldest of its own goes when it has its share, and
    /// the oldest of all when there is no room at all. False when those are on their way.
    pub(super) fn make_room(&mut self, dc: DcIndex) -> bool {
        let own = self.pieces.iter().filter(|piece| piece.dc == dc).count();
        let is_over = own >= PIECES_PER_DC_MAX;
        if !is_over && self.pieces.len() < PIECES_MAX {
            return true;
        }
        let goes = |id: &PieceId| {
            self.find(*id).is_some_and(|piece| {
                matches!(piece.state, PieceState::Here(_)) && (!is_over || piece.dc == dc)
            })
        };
        let oldest = self.order.iter().copied().find(goes);
        oldest.inspect(|id| self.forget(*id)).is_some()
    }

    /// A piece is on its way for a DC, for which there is room; if another DC waits for it, too, it
    /// does so by itself.
    pub(super) fn enter(&mut self, id: PieceId, dc: DcIndex, group: usize) {
        self.forget(id);
        let at = self.pieces.partition_point(|piece| piece.id < id);
        self.pieces.insert(at, KeptPiece { id, dc, state: PieceState::Reading(group) });
        self.order.push_back(id);
    }

    /// A group of reads has brought a piece, or could not.
    pub(super) fn arrived(&mut self, id: PieceId, group: usize, content: Option<Rc<Buffer>>) {
        let Ok(at) = self.pieces.binary_search_by_key(&id, |piece| piece.id) else { return };
        let piece = &mut self.pieces[at];
        match (&piece.state, content) {
            (PieceState::Reading(number), Some(buffer)) if *number == group => {
                piece.state = PieceState::Here(buffer);
            }
            (PieceState::Reading(number), None) if *number == group => self.forget(id),
            _ => {}
        }
    }

    /// Drops a piece.
    pub(super) fn forget(&mut self, id: PieceId) {
        if let Ok(at) = self.pieces.binary_search_by_key(&id, |piece| piece.id) {
            self.pieces.remove(at);
            self.order.retain(|other| *other != id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::index::BlockId;
    use super::*;
    use longship_rt::arena::Arena;

    fn location(block: u32, offset: usize, extent: usize) -> Location {
        Location { block: BlockId(block), offset: offset as u32, extent: extent as u32 }
    }

    fn id(number: u32) -> PieceId {
        PieceId::of(NamespaceId(0), location(number, 0, 16)).unwrap()
    }

    #[test]
    fn a_record_lies_in_one_piece_or_in_none() {
        let piece = |namespace, block, offset, extent| {
            PieceId::of(NamespaceId(namespace), location(block, offset, extent))
        };
        let first = piece(0, 3, 0, 16);
        assert_eq!(piece(0, 3, PIECE_BYTES - 16, 16), first);
        assert_eq!(piece(0, 3, PIECE_BYTES - 16, 32), None);
        for other in [(1, 3, 0), (0, 4, 0), (0, 3, PIECE_BYTES)] {
            assert_ne!(piece(other.0, other.1, other.2, 16), first);
        }
        let place = first.unwrap().place(location(3, PIECE_BYTES + 32, 64));
        assert_eq!(place, 32..96);
    }

    #[test]
    fn a_dc_over_its_share_loses_its_own_oldest() {
        let arena = Arena::new(4096, None).unwrap();
        let buffer = Rc::new(arena.take(4096).unwrap());
        let mut pieces = Pieces::default();
        pieces.enter(id(9999), DcIndex(1), 0);
        pieces.arrived(id(9999), 0, Some(Rc::clone(&buffer)));
        for number in 0..200 {
            assert!(pieces.make_room(DcIndex(0)));
            pieces.enter(id(number), DcIndex(0), 7);
            pieces.arrived(id(number), 7, Some(Rc::clone(&buffer)));
        }
        let kept = (0..200).filter(|number| pieces.get(id(*number)).is_some());
        assert!(kept.eq(200 - PIECES_PER_DC_MAX as u32..200));
        assert!(pieces.get(id(9999)).is_some());
        assert_eq!(pieces.order.len(), pieces.pieces.len());
    }

    #[test]
    fn what_is_on_its_way_is_not_dropped_and_a_failed_read_leaves_nothing() {
        let mut pieces = Pieces::default();
        for number in 0..PIECES_PER_DC_MAX as u32 {
            assert!(pieces.make_room(DcIndex(0)));
            pieces.enter(id(number), DcIndex(0), number as usize);
        }
        assert!(!pieces.make_room(DcIndex(0)));
        assert_eq!(pieces.reading(id(5), DcIndex(0)), Some(5));
        assert_eq!(pieces.reading(id(5), DcIndex(1)), None);
        pieces.arrived(id(5), 5, None);
        assert_eq!(pieces.reading(id(5), DcIndex(0)), None);
        assert!(pieces.make_room(DcIndex(0)));
    }
}
