//! Replies: written by a node, read in bulk by whoever pipelines requests.
//!
//! A reply without bins is one 30-byte frame: the frame header, then the message header of
//! [`super::message`]. The ttl slot holds the absolute void time, 0 = never.

use crate::model::{Generation, RecordView, VoidTime};

use super::frame::{FRAME_HEADER_BYTES, Frame, FrameError, FrameHeader, FrameType, next_frame};
use super::header::{Header, MESSAGE_HEADER_BYTES};
use super::ops::{self, OpCode, Ops};
use super::{ParticleType, ResultCode, bins, fields};

/// Length of a reply without bins.
pub const REPLY_BYTES: usize = FRAME_HEADER_BYTES + MESSAGE_HEADER_BYTES;

/// A reply without bins.
#[inline]
pub fn bare(code: ResultCode, generation: Generation, void_time: VoidTime) -> [u8; REPLY_BYTES] {
    head(code, generation, void_time, 0, MESSAGE_HEADER_BYTES)
}

/// Appends a reply without bins. Replies to deletions and most refusals carry zeros.
#[inline]
pub fn push(out: &mut Vec<u8>, code: ResultCode, generation: Generation, void_time: VoidTime) {
    out.extend_from_slice(&bare(code, generation, void_time));
}

/// Appends a reply that says only `code`.
#[inline]
pub fn push_code(out: &mut Vec<u8>, code: ResultCode) {
    push(out, code, Generation(0), VoidTime::NEVER);
}

/// Appends a good reply with every bin of the record: one copy, and one byte per bin patched.
#[inline]
pub fn push_record(out: &mut Vec<u8>, record: &RecordView<'_>) {
    let body_bytes = MESSAGE_HEADER_BYTES + record.bins.len();
    out.reserve(FRAME_HEADER_BYTES + body_bytes);
    let (generation, void_time) = (record.generation, record.void_time);
    out.extend_from_slice(&head(
        ResultCode::OK,
        generation,
        void_time,
        record.bin_count,
        body_bytes,
    ));
    push_as_reads(out, record.bins);
}

/// Appends bins at rest as READ operations.
fn push_as_reads(out: &mut Vec<u8>, at_rest: &[u8]) {
    let mut at = out.len();
    out.extend_from_slice(at_rest);
    for bin in bins::iter(at_rest) {
        out[at + 4] = OpCode::READ.0;
        at += bin.whole.len();
    }
}

fn head(
    code: ResultCode,
    generation: Generation,
    void_time: VoidTime,
    op_count: u16,
    body_bytes: usize,
) -> [u8; REPLY_BYTES] {
    let header = Header {
        info: [0; 4],
        code,
        generation: u32::from(generation.0),
        ttl: void_time.0,
        timeout_ms: 0,
        field_count: 0,
        op_count,
    };
    let mut out = [0; REPLY_BYTES];
    let (frame, message) = out.split_at_mut(FRAME_HEADER_BYTES);
    frame.copy_from_slice(&FrameHeader { kind: FrameType::Message, body_bytes }.to_bytes());
    message.copy_from_slice(&header.to_bytes());
    out
}

/// A reply under construction, operation by operation: selected bins, or the results of a mixed
/// request. Dropped without [`OpReply::finish`], it takes back what it wrote.
#[derive(Debug)]
pub struct OpReply<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    op_count: u16,
    finished: bool,
}

impl<'a> OpReply<'a> {
    /// Begins a reply at the end of `out`.
    pub fn begin(out: &'a mut Vec<u8>) -> Self {
        let start = out.len();
        out.extend_from_slice(&[0; REPLY_BYTES]);
        Self { out, start, op_count: 0, finished: false }
    }

    /// Adds a result: the request's op code, the bin's name and a value.
    #[inline]
    pub fn push(&mut self, code: OpCode, name: &[u8], particle: ParticleType, value: &[u8]) {
        ops::push(self.out, code, particle, name, value);
        self.op_count += 1;
    }

    /// Adds a result without a value.
    #[inline]
    pub fn push_null(&mut self, code: OpCode, name: &[u8]) {
        self.push(code, name, ParticleType::NULL, &[]);
    }

    /// Adds every bin of a record, as READ results.
    pub fn push_all(&mut self, at_rest: &[u8], bin_count: u16) {
        push_as_reads(self.out, at_rest);
        self.op_count += bin_count;
    }

    /// Completes the reply.
    pub fn finish(mut self, code: ResultCode, generation: Generation, void_time: VoidTime) {
        let body_bytes = self.out.len() - self.start - FRAME_HEADER_BYTES;
        let head = head(code, generation, void_time, self.op_count, body_bytes);
        self.out[self.start..self.start + REPLY_BYTES].copy_from_slice(&head);
        self.finished = true;
    }
}

impl Drop for OpReply<'_> {
    fn drop(&mut self) {
        if !self.finished {
            self.out.truncate(self.start);
        }
    }
}

/// Appends a good reply with the bins a read asks for, in the order it asks.
///
/// Absent bins are left out, or given as NULL when `respond_to_all`. Operations other than READ do
/// not occur (see [`super::Action::ReadBins`]) and are passed over.
pub fn push_selected(
    out: &mut Vec<u8>,
    record: &RecordView<'_>,
    wanted: Ops<'_>,
    respond_to_all: bool,
) {
    let mut reply = OpReply::begin(out);
    for op in wanted.filter(|op| op.code == OpCode::READ) {
        match bins::find(record.bins, op.name) {
            Some(bin) => reply.push(OpCode::READ, bin.name, bin.particle, bin.value),
            None if respond_to_all => reply.push_null(OpCode::READ, op.name),
            None => {}
        }
    }
    reply.finish(ResultCode::OK, record.generation, record.void_time);
}

/// One reply, borrowed from its frame.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'a> {
    /// The message header; `ttl` is the void time.
    pub header: Header,
    /// Returned bins or operation results.
    pub ops: Ops<'a>,
}

impl<'a> Reply<'a> {
    /// Reads the body of a data frame that holds one reply; `None` if it is malformed.
    #[inline]
    pub fn parse(body: &'a [u8]) -> Option<Self> {
        let (header, mut rest) = Header::parse(body)?;
        for _ in 0..header.field_count {
            rest = fields::split(rest)?.1;
        }
        Some(Self { header, ops: Ops::parse(rest, header.op_count)? })
    }

    /// The result code.
    #[inline]
    pub const fn code(&self) -> ResultCode {
        self.header.code
    }

    /// The record's generation; 0 for deletions and early refusals.
    #[inline]
    pub const fn generation(&self) -> Generation {
        Generation(self.header.generation as u16)
    }

    /// The record's void time.
    #[inline]
    pub const fn void_time(&self) -> VoidTime {
        VoidTime(self.header.ttl)
    }
}

/// Why a stream of replies cannot be followed further: close the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplyError {
    /// The bytes are no frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A frame that is no data reply.
    #[error("a {0:?} frame where a data reply was due")]
    NotData(FrameType),
    /// The body of a data frame is malformed.
    #[error("a malformed data reply")]
    Malformed,
}

/// The whole replies at the start of a receive buffer; see [`replies`].
#[derive(Clone, Debug)]
pub struct Replies<'a> {
    bytes: &'a [u8],
    consumed: usize,
}

/// Takes replies off a receive buffer one by one, until the first that is not complete.
///
/// Afterwards [`Replies::consumed`] says how many bytes may be discarded. An error repeats until
/// the caller stops: nothing behind it can be trusted. Costs a few nanoseconds per bare reply.
#[inline]
pub const fn replies(bytes: &[u8]) -> Replies<'_> {
    Replies { bytes, consumed: 0 }
}

/// The frame header of a bare reply.
const BARE_FRAME: [u8; FRAME_HEADER_BYTES] =
    FrameHeader { kind: FrameType::Message, body_bytes: MESSAGE_HEADER_BYTES }.to_bytes();

impl<'a> Replies<'a> {
    /// Bytes taken by the replies given so far.
    #[inline]
    pub const fn consumed(&self) -> usize {
        self.consumed
    }

    #[inline]
    fn next_bare(&mut self) -> Option<Reply<'a>> {
        let frame: &[u8; REPLY_BYTES] = self.bytes.get(self.consumed..)?.first_chunk()?;
        let body = frame.strip_prefix(&BARE_FRAME)?;
        let (header, _) = Header::parse(body)?;
        if header.op_count | header.field_count != 0 {
            return None;
        }
        self.consumed += REPLY_BYTES;
        Some(Reply { header, ops: Ops::default() })
    }

    fn next_any(&mut self) -> Result<Option<Reply<'a>>, ReplyError> {
        let Some(frame) = next_frame(&self.bytes[self.consumed..])? else { return Ok(None) };
        let Frame { kind: FrameType::Message, body } = frame else {
            return Err(ReplyError::NotData(frame.kind));
        };
        let reply = Reply::parse(body).ok_or(ReplyError::Malformed)?;
        self.consumed += frame.bytes();
        Ok(Some(reply))
    }
}

impl<'a> Iterator for Replies<'a> {
    type Item = Result<Reply<'a>, ReplyError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        match self.next_bare() {
            Some(reply) => Some(Ok(reply)),
            None => self.next_any().transpose(),
        }
    }
}
