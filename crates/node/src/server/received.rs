//! What a connection has received and not yet handled: one buffer, cut into frames where they lie.
//!
//! The buffer starts small, since most connections idle. It grows as bytes come, never because a
//! header announces them: by doubling, while a client keeps it full or the frame that fills it has
//! more to come, and only when its owner has the memory for it. A frame larger than any request that
//! could succeed is never gathered: it is refused from its header and its body thrown away as it
//! comes.

use std::ops::Range;

use longship::wire::frame::{FRAME_HEADER_BYTES, next_header};
use longship::wire::{FrameError, FrameHeader, FrameType};

use crate::limits::{INFO_BYTES_MAX, RECEIVED_BYTES_BURST, RECEIVED_BYTES_MIN};

/// What comes next in the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// A whole frame; its body lies there, see [`Received::body`].
    Frame(FrameType, Range<usize>),
    /// A frame nobody looks into, of a kind not served or too large; its body is being dropped.
    Unread(FrameType),
    /// Nothing whole: read more.
    More,
}

/// What the buffer could do with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Growth {
    /// A larger buffer would save calls; this size is next.
    Helpful(usize),
    /// Nothing more can be received before the buffer has size `next`; the frame takes `whole`.
    Needed {
        /// The next size.
        next: usize,
        /// The size in the end.
        whole: usize,
    },
}

/// A receive buffer. Bytes are consumed in order and stay where they are until the next
/// [`Received::room`].
#[derive(Debug)]
pub struct Received {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes of an unread body still to come.
    skip: usize,
    message_bytes_max: usize,
    /// Room the next frame needs, when it is known.
    wanted: usize,
    /// What was received last filled it.
    was_full: bool,
}

impl Received {
    /// An empty one that takes data messages up to a size.
    pub fn new(message_bytes_max: usize) -> Self {
        let bytes = vec![0; RECEIVED_BYTES_MIN];
        let (skip, wanted, was_full) = (0, 0, false);
        Self { bytes, start: 0, end: 0, skip, message_bytes_max, wanted, was_full }
    }

    /// Size of the buffer.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes received and not taken.
    pub fn unread(&self) -> usize {
        self.end - self.start
    }

    /// What the buffer could do with, after [`Received::take`] gave [`Next::More`].
    pub fn growth(&self) -> Option<Growth> {
        let size = self.bytes.len();
        if self.unread() == size {
            let next = (2 * size).min(self.wanted).max(size + 1);
            return Some(Growth::Needed { next, whole: self.wanted.max(next) });
        }
        (self.was_full && size < RECEIVED_BYTES_BURST).then_some(Growth::Helpful(2 * size))
    }

    /// Makes the buffer that large, or small if what is unread fits.
    pub fn resize(&mut self, size: usize) {
        self.compact();
        let size = size.max(self.end);
        if size > self.bytes.len() {
            self.bytes.resize(size, 0);
        } else {
            self.bytes.truncate(size);
            self.bytes.shrink_to_fit();
        }
        self.was_full = false;
    }

    fn compact(&mut self) {
        self.bytes.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
    }

    /// Where to read into; empty only while [`Received::growth`] is needed. Whatever has been consumed
    /// is gone with this call.
    pub fn room(&mut self) -> &mut [u8] {
        self.compact();
        &mut self.bytes[self.end..]
    }

    /// So many bytes have been read into the room.
    pub fn filled(&mut self, count: usize) {
        self.end += count;
        self.was_full = self.end == self.bytes.len();
        self.skip_some();
    }

    fn skip_some(&mut self) {
        let skipped = self.skip.min(self.end - self.start);
        self.start += skipped;
        self.skip -= skipped;
    }

    /// Takes the next frame.
    ///
    /// # Errors
    /// When the bytes are no frame, or info commands go on without end: close the connection.
    pub fn take(&mut self) -> Result<Next, FrameError> {
        let unread = &self.bytes[self.start..self.end];
        self.wanted = 0;
        let Some(header) = next_header(unread)? else { return Ok(Next::More) };
        let FrameHeader { kind, body_bytes } = header;
        let gathered = match kind {
            FrameType::Message => body_bytes <= self.message_bytes_max,
            FrameType::Info if body_bytes > INFO_BYTES_MAX => {
                return Err(FrameError::TooLong(body_bytes as u64));
            }
            FrameType::Info => true,
            FrameType::Security | FrameType::Compressed | FrameType::Internal => false,
        };
        if !gathered {
            self.start += FRAME_HEADER_BYTES;
            self.skip = body_bytes;
            self.skip_some();
            return Ok(Next::Unread(kind));
        }
        if unread.len() < header.frame_bytes() {
            self.wanted = header.frame_bytes();
            return Ok(Next::More);
        }
        let body = self.start + FRAME_HEADER_BYTES..self.start + header.frame_bytes();
        self.start = body.end;
        Ok(Next::Frame(kind, body))
    }

    /// The bodies of the whole messages that come next.
    pub fn ahead(&self) -> impl Iterator<Item = &[u8]> {
        let mut unread = &self.bytes[self.start..self.end];
        std::iter::from_fn(move || {
            let header = next_header(unread).ok()??;
            let (frame, rest) = unread.split_at_checked(header.frame_bytes())?;
            unread = rest;
            (header.kind == FrameType::Message).then(|| &frame[FRAME_HEADER_BYTES..])
        })
    }

    /// A body given by [`Received::take`] since the last [`Received::room`].
    pub fn body(&self, body: &Range<usize>) -> &[u8] {
        &self.bytes[body.clone()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: FrameType, body: &[u8]) -> Vec<u8> {
        let header = FrameHeader { kind, body_bytes: body.len() };
        [&header.to_bytes(), body].concat()
    }

    /// Feeds `stream` in pieces of at most `piece` bytes and lists what comes out.
    fn taken(
        received: &mut Received,
        mut stream: &[u8],
        piece: usize,
    ) -> Vec<(FrameType, Option<Vec<u8>>)> {
        let mut all = Vec::new();
        while !stream.is_empty() {
            match received.growth() {
                Some(Growth::Helpful(next) | Growth::Needed { next, .. }) => received.resize(next),
                None => {}
            }
            let room = received.room();
            let count = room.len().min(piece).min(stream.len());
            room[..count].copy_from_slice(&stream[..count]);
            received.filled(count);
            stream = &stream[count..];
            loop {
                match received.take().unwrap() {
                    Next::Frame(kind, body) => {
                        all.push((kind, Some(received.body(&body).to_vec())))
                    }
                    Next::Unread(kind) => all.push((kind, None)),
                    Next::More => break,
                }
            }
        }
        all
    }

    #[test]
    fn frames_come_out_whole_whatever_the_pieces() {
        let big = vec![7; 50_000];
        let stream = [
            frame(FrameType::Info, b"node\n"),
            frame(FrameType::Message, &big),
            frame(FrameType::Message, b""),
            frame(FrameType::Message, b"xyz"),
        ]
        .concat();
        let expected = [
            (FrameType::Info, Some(b"node\n".to_vec())),
            (FrameType::Message, Some(big)),
            (FrameType::Message, Some(vec![])),
            (FrameType::Message, Some(b"xyz".to_vec())),
        ];
        for piece in [1, 7, 8, 9, 1000, 1 << 20] {
            assert_eq!(taken(&mut Received::new(100_000), &stream, piece), expected, "{piece}");
        }
    }

    #[test]
    fn a_look_ahead_sees_whole_messages_up_to_anything_else_and_takes_none() {
        let messages = [frame(FrameType::Message, b"one"), frame(FrameType::Message, b"two")];
        let info = frame(FrameType::Info, b"node\n");
        let stream = [&messages.concat()[..], &info, &messages[0]].concat();
        for (cut, seen) in [(stream.len(), 2), (messages[0].len() + 10, 1), (5, 0)] {
            let mut received = Received::new(1000);
            received.room()[..cut].copy_from_slice(&stream[..cut]);
            received.filled(cut);
            for _ in 0..2 {
                assert!(received.ahead().eq([&b"one"[..], b"two"].into_iter().take(seen)), "{cut}");
            }
        }
    }

    #[test]
    fn bodies_nobody_reads_are_dropped_as_they_come() {
        let stream = [
            frame(FrameType::Message, &vec![0; 1_000_000]),
            frame(FrameType::Compressed, &[1; 100]),
            frame(FrameType::Security, &[2; 16]),
            frame(FrameType::Internal, &[3; 9]),
            frame(FrameType::Message, b"after"),
        ]
        .concat();
        let expected = [
            (FrameType::Message, None),
            (FrameType::Compressed, None),
            (FrameType::Security, None),
            (FrameType::Internal, None),
            (FrameType::Message, Some(b"after".to_vec())),
        ];
        for piece in [1, 13, 4096, 1 << 20] {
            let mut received = Received::new(10_000);
            assert_eq!(taken(&mut received, &stream, piece), expected, "{piece}");
            assert!(received.bytes.len() <= RECEIVED_BYTES_BURST);
        }
    }

    #[test]
    fn the_buffer_follows_the_client_and_can_be_given_back() {
        let mut received = Received::new(8 << 20);
        assert_eq!(received.room().len(), RECEIVED_BYTES_MIN);
        let small = frame(FrameType::Message, &[0; 100]).repeat(20_000);
        taken(&mut received, &small, usize::MAX);
        assert_eq!(received.size(), RECEIVED_BYTES_BURST, "grown by a client that keeps it full");
        let large = frame(FrameType::Message, &vec![0; 1 << 20]);
        taken(&mut received, &large, usize::MAX);
        assert_eq!((received.size(), received.unread()), (large.len(), 0));
        received.resize(RECEIVED_BYTES_MIN);
        assert_eq!(
            (received.size(), received.room().len()),
            (RECEIVED_BYTES_MIN, RECEIVED_BYTES_MIN)
        );
    }

    #[test]
    fn what_a_header_announces_takes_no_room_before_it_comes() {
        let mut received = Received::new(8 << 20);
        let large = frame(FrameType::Message, &vec![7; 1 << 20]);
        let mut come = 0;
        while come < large.len() {
            let count = (large.len() - come).min(1000).min(received.room().len());
            received.room()[..count].copy_from_slice(&large[come..come + count]);
            received.filled(count);
            come += count;
            if received.take().unwrap() == Next::More {
                if let Some(Growth::Needed { next, whole }) = received.growth() {
                    assert_eq!(whole, large.len());
                    received.resize(next);
                }
                assert!(
                    received.size() <= RECEIVED_BYTES_MIN.max(2 * come),
                    "{} after {come}",
                    received.size()
                );
            }
        }
        assert_eq!(received.unread(), 0, "the frame was taken");
    }

    #[test]
    fn what_is_unread_survives_a_change_of_size() {
        let mut received = Received::new(8 << 20);
        let stream = [frame(FrameType::Message, b"gone"), vec![2, 3, 0, 0]].concat();
        received.room()[..stream.len()].copy_from_slice(&stream);
        received.filled(stream.len());
        assert!(matches!(received.take().unwrap(), Next::Frame(..)));
        for size in [100_000, 1, RECEIVED_BYTES_MIN] {
            received.resize(size);
            assert_eq!((received.unread(), &received.bytes[..4]), (4, &[2, 3, 0, 0][..]), "{size}");
        }
    }

    #[test]
    fn other_protocols_and_endless_commands_end_the_connection() {
        for bytes in
            [&b"GET / HTTP/1.1\r\n"[..], &[2, 1, 0, 0, 0, 16, 0, 1], &[2, 9, 0, 0, 0, 0, 0, 0]]
        {
            let mut received = Received::new(1000);
            received.room()[..bytes.len()].copy_from_slice(bytes);
            received.filled(bytes.len());
            assert!(received.take().is_err(), "{bytes:?}");
        }
    }
}
