//! Frames for one destination node, gathered in a buffer that goes out in one send.

use super::encode::{Encoded, NoRoom};

pub use crate::limits::BATCH_BYTES;

/// An open batch over a buffer of the caller's: whole frames, and the slot of each, in order.
#[derive(Debug)]
pub struct Batch<B> {
    buffer: B,
    bytes: usize,
    slots: Vec<u32>,
}

impl<B: AsMut<[u8]>> Batch<B> {
    /// An empty batch. `slots` keeps its capacity.
    pub fn new(buffer: B, mut slots: Vec<u32>) -> Self {
        slots.clear();
        Self { buffer, bytes: 0, slots }
    }

    /// Lets `write` write a frame at the end, in place. When it has no room the batch is as before:
    /// it is to leave, or, if it was empty, the record needs a buffer of its own.
    #[inline]
    pub fn push(
        &mut self,
        slot: u32,
        write: impl FnOnce(&mut [u8]) -> Option<Result<Encoded, NoRoom>>,
    ) -> Option<Result<Encoded, NoRoom>> {
        let written = write(&mut self.buffer.as_mut()[self.bytes..])?;
        if let Ok(encoded) = written {
            self.bytes += encoded.bytes;
            self.slots.push(slot);
        }
        Some(written)
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Bytes of its frames.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The slots of its frames, in order.
    pub fn slots(&self) -> &[u32] {
        &self.slots
    }

    /// Its buffer, the bytes to send from its start, and the slots of the frames in them.
    pub fn into_parts(self) -> (B, usize, Vec<u32>) {
        (self.buffer, self.bytes, self.slots)
    }
}

#[cfg(test)]
mod tests {
    use super::super::verdict::Sent;
    use super::*;

    fn frame(bytes: usize) -> impl FnOnce(&mut [u8]) -> Option<Result<Encoded, NoRoom>> {
        move |out| {
            if bytes > out.len() {
                return Some(Err(NoRoom { bytes }));
            }
            out[..bytes].fill(bytes as u8);
            Some(Ok(Encoded { bytes, sent: Sent::Write }))
        }
    }

    #[test]
    fn frames_follow_each_other_until_the_buffer_is_full() {
        let mut batch = Batch::new(vec![0; 10], Vec::new());
        assert!(batch.is_empty());
        assert!(matches!(batch.push(1, frame(4)), Some(Ok(_))));
        assert!(batch.push(2, |_| None).is_none());
        assert!(matches!(batch.push(3, frame(5)), Some(Ok(_))));
        assert_eq!(batch.push(4, frame(2)), Some(Err(NoRoom { bytes: 2 })));
        assert!(matches!(batch.push(5, frame(1)), Some(Ok(_))));
        let (buffer, bytes, slots) = batch.into_parts();
        assert_eq!(&buffer[..bytes], [4, 4, 4, 4, 5, 5, 5, 5, 5, 1]);
        assert_eq!(slots, [1, 3, 5]);
    }
}
