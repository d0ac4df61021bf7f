//! Memory of a shard's batches, shared out to its DCs.
//!
//! Each DC may take its share and no more, whatever it is doing: a destination that takes nothing, or
//! has many nodes, or gets large records, leaves the others theirs. With a DC more the shares become
//! smaller; who holds more than that gives it back as its batches leave.

use std::cell::Cell;
use std::ops::Deref;
use std::rc::Rc;

use longship_rt::arena::{Arena, BUFFER_BYTES_MAX, Buffer};

/// All of it; clones are the same memory.
#[derive(Clone)]
pub(crate) struct BatchMemory(Rc<Memory>);

struct Memory {
    arena: Arena,
    bytes: usize,
    /// Shares there are.
    shares: Cell<usize>,
}

impl BatchMemory {
    pub(crate) fn new(arena: Arena) -> Self {
        let bytes = arena.usage().total_bytes;
        Self(Rc::new(Memory { arena, bytes, shares: Cell::new(0) }))
    }

    /// A share more, until it is dropped.
    pub(crate) fn share(&self) -> Rc<Share> {
        self.0.shares.set(self.0.shares.get() + 1);
        Rc::new(Share { memory: Rc::clone(&self.0), taken: Cell::new(0) })
    }
}

/// What one DC may take.
pub(crate) struct Share {
    memory: Rc<Memory>,
    taken: Cell<usize>,
}

impl Share {
    /// Its bytes now; the largest buffer there is always fits.
    fn bytes(&self) -> usize {
        (self.memory.bytes / self.memory.shares.get().max(1)).max(BUFFER_BYTES_MAX)
    }

    /// A buffer of at least `bytes`; `None` when the share is used up, or all memory is.
    pub(crate) fn take(self: &Rc<Self>, bytes: usize) -> Option<BatchBuffer> {
        if self.taken.get() + bytes > self.bytes() {
            return None;
        }
        let buffer = self.memory.arena.take(bytes)?;
        self.taken.set(self.taken.get() + buffer.len());
        Some(BatchBuffer { buffer, share: Rc::clone(self) })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.memory.shares.set(self.memory.shares.get() - 1);
    }
}

/// A batch's buffer: gives its bytes back to its share when it is dropped.
pub(crate) struct BatchBuffer {
    buffer: Buffer,
    share: Rc<Share>,
}

impl Deref for BatchBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.buffer
    }
}

impl AsMut<[u8]> for BatchBuffer {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.buffer
    }
}

impl Drop for BatchBuffer {
    fn drop(&mut self) {
        self.share.taken.set(self.share.taken.get() - self.buffer.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_dc_has_its_share_and_gives_back_what_is_above_it() {
        let memory = BatchMemory::new(Arena::new(64 << 20, None).unwrap());
        let one = memory.share();
        let take_all = |share: &Rc<Share>| -> Vec<BatchBuffer> {
            std::iter::from_fn(|| share.take(1 << 20)).collect()
        };
        let mut held = take_all(&one);
        assert_eq!(held.len(), 64, "a single DC has everything");
        let other = memory.share();
        assert!(other.take(1 << 20).is_none(), "nothing is left for now");
        held.truncate(40);
        assert!(one.take(1 << 20).is_none(), "it is above its share");
        assert_eq!(take_all(&other).len(), 24, "the other one gets what was given back");
        held.clear();
        assert_eq!((take_all(&one).len(), take_all(&other).len()), (32, 32));
        drop(other);
        assert_eq!(take_all(&one).len(), 64);
    }

    #[test]
    fn the_largest_buffer_fits_whatever_the_number_of_dcs() {
        let memory = BatchMemory::new(Arena::new(64 << 20, None).unwrap());
        let shares: Vec<_> = (0..64).map(|_| memory.share()).collect();
        assert!(shares[63].take(BUFFER_BYTES_MAX).is_some());
    }
}
