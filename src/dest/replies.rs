//! Replies as they come off a connection: in pieces of any size, matched once they are whole.

use crate::model::Tick;
use crate::wire::ResultCode;
use crate::wire::reply::{REPLY_BYTES, replies};

use super::fault::Fault;
use super::pipeline::{Pipeline, Reply, RoundTrips};

/// The receiving end of one connection: one buffer, from its opening to its end.
#[derive(Debug)]
pub struct Replies {
    buffer: Box<[u8]>,
    filled: usize,
    codes: Vec<ResultCode>,
}

/// What a read brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Bytes of whole replies.
    pub bytes: usize,
    /// Whole replies, each matched with its tag.
    pub replies: usize,
    /// Round trips that ended with them.
    pub ended: RoundTrips,
}

impl Replies {
    /// Takes replies of up to `bytes` each.
    pub fn new(bytes: usize) -> Self {
        let codes = Vec::with_capacity(bytes / REPLY_BYTES + 1);
        Self { buffer: vec![0; bytes].into(), filled: 0, codes }
    }

    /// Where the next bytes go: never empty.
    pub fn room(&mut self) -> &mut [u8] {
        &mut self.buffer[self.filled..]
    }

    /// Takes `came` bytes that were read into [`Self::room`]: matches the replies that are whole by
    /// now, and keeps the beginning of the next. After a fault the connection is to be ended; what
    /// was whole before it has been matched, unless there was more of it than was asked for.
    pub fn take<B>(
        &mut self,
        came: usize,
        now: Tick,
        pipeline: &mut Pipeline<B>,
        out: &mut Vec<Reply>,
    ) -> (Taken, Result<(), Fault>) {
        self.filled += came;
        self.codes.clear();
        let mut stream = replies(&self.buffer[..self.filled]);
        let mut result = Ok(());
        for reply in &mut stream {
            match reply {
                Ok(reply) => self.codes.push(reply.code()),
                Err(error) => {
                    result = Err(Fault::Reply(error));
                    break;
                }
            }
        }
        let bytes = stream.consumed();
        let mut taken = Taken::default();
        if !self.codes.is_empty() {
            match pipeline.settle(&self.codes, now, out) {
                Ok(ended) => taken = Taken { bytes, replies: self.codes.len(), ended },
                Err(surplus) => return (taken, Err(Fault::Surplus(surplus))),
            }
        }
        self.buffer.copy_within(bytes..self.filled, 0);
        self.filled -= bytes;
        if result.is_ok() && self.filled == self.buffer.len() {
            result = Err(Fault::ReplyTooLong { bytes: self.buffer.len() });
        }
        (taken, result)
    }
}

#[cfg(test)]
mod tests {
    use super::super::pipeline::{Outgoing, Window};
    use super::*;
    use crate::wire::reply::push_code;

    const CODES: [u8; 4] = [0, 2, 0, 14];

    /// What so many pieces of some bytes come to, with four requests unanswered.
    fn taken(bytes: &[u8], piece: usize) -> (Vec<(u32, u8)>, Result<(), Fault>) {
        let mut line = Pipeline::new(Window { records: 100, bytes: 1000, batches_waiting: 4 });
        line.push(Outgoing { buffer: (), bytes: 10 }, &[7, 8, 9, 5]).unwrap();
        line.begin(Tick(0));
        let (mut answers, mut out) = (Replies::new(4 * REPLY_BYTES), Vec::new());
        let mut result = Ok(());
        for piece in bytes.chunks(piece) {
            answers.room()[..piece.len()].copy_from_slice(piece);
            result = answers.take(piece.len(), Tick(1), &mut line, &mut out).1;
            if result.is_err() {
                break;
            }
        }
        (out.iter().map(|reply| (reply.tag, reply.code.0)).collect(), result)
    }

    fn replies_of(codes: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        codes.iter().for_each(|&code| push_code(&mut bytes, ResultCode(code)));
        bytes
    }

    #[test]
    fn replies_are_matched_once_they_are_whole_however_they_come() {
        let bytes = replies_of(&CODES);
        for piece in 1..=bytes.len() {
            let (got, result) = taken(&bytes, piece);
            assert_eq!(got, [(7, 0), (8, 2), (9, 0), (5, 14)], "pieces of {piece}");
            assert!(result.is_ok());
            assert_eq!(taken(&bytes[..bytes.len() - 1], piece).0.len(), 3);
        }
    }

    #[test]
    fn one_reply_too_many_ends_the_connection_and_matches_nobody_it_came_with() {
        let bytes = replies_of(&[&CODES[..], &[0]].concat());
        let (got, result) = taken(&bytes, 2 * REPLY_BYTES);
        assert_eq!((got.len(), result.is_ok()), (4, false));
        let (got, result) = taken(&bytes[REPLY_BYTES..], REPLY_BYTES * 4);
        assert_eq!((got.len(), result.is_ok()), (4, true));
    }

    #[test]
    fn what_is_no_reply_ends_the_connection_and_what_came_before_it_counts() {
        for (broken, whole) in [(0, 0), (1, 0), (REPLY_BYTES, 1), (3 * REPLY_BYTES + 1, 3)] {
            let mut bytes = replies_of(&CODES);
            bytes[broken] = 0xFF;
            let (got, result) = taken(&bytes, bytes.len());
            assert!(matches!(result, Err(Fault::Reply(_))), "{broken}: {result:?}");
            assert_eq!(got.len(), whole);
        }
    }

    #[test]
    fn a_reply_that_the_buffer_cannot_hold_ends_the_connection() {
        use crate::wire::FrameType;
        use crate::wire::frame::FrameHeader;
        let header = FrameHeader { kind: FrameType::Message, body_bytes: 5000 }.to_bytes();
        let bytes = [&header[..], &[0; 5000]].concat();
        let (got, result) = taken(&bytes, 1);
        assert!(got.is_empty() && matches!(result, Err(Fault::ReplyTooLong { bytes: 120 })));
    }
}
