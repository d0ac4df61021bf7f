//! Replies: written by a node, read in bulk by whoever pipelines requests.
//!
//! A reply without bins is one 30-byte frame: the frame header, then the message header of
//! [`super::message`]. The ttl slot holds the absolute void time, 0 = never.

use crate::model::{Generation, RecordView, VoidTime};

use super::bits::info3;
use super::frame::{FRAME_HEADER_BYTES, Frame, FrameError, FrameHeader, FrameType, next_frame};
use super::header::{Header, MESSAGE_HEADER_BYTES};
use super::ops::{self, OP_HEADER_BYTES, OpCode, Ops};
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

/// Appends the one answer to a request whose client reads on until it is told that there is no
/// more: a reply that says `code`, and that it is the last. Clients of single records do not look
/// at that. Source: `docs/wire.md` section 9.3.
#[cold]
pub fn push_last(out: &mut Vec<u8>, code: ResultCode) {
    let start = out.len();
    push_code(out, code);
    out[start + FRAME_HEADER_BYTES + 3] |= info3::LAST;
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
///
/// It has a bound: what would go beyond is left out, and [`OpReply::is_too_long`] says so from then
/// on. A request of a few bytes per operation can ask for the same large bin thousands of times.
#[derive(Debug)]
pub struct OpReply<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    /// Where `out` must end at the latest.
    end_max: usize,
    op_count: u16,
    is_too_long: bool,
    finished: bool,
}

impl<'a> OpReply<'a> {
    /// Begins a reply at the end of `out` that holds `results_bytes_max` of results at most.
    pub fn begin(out: &'a mut Vec<u8>, results_bytes_max: usize) -> Self {
        let start = out.len();
        out.extend_from_slice(&[0; REPLY_BYTES]);
        let end_max = out.len().saturating_add(results_bytes_max);
        Self { out, start, end_max, op_count: 0, is_too_long: false, finished: false }
    }

    /// Whether results had to be left out: refuse the request.
    pub const fn is_too_long(&self) -> bool {
        self.is_too_long
    }

    fn has_room(&mut self, bytes: usize) -> bool {
        self.is_too_long |= self.out.len() + bytes > self.end_max;
        !self.is_too_long
    }

    /// Adds a result: the request's op code, the bin's name and a value.
    #[inline]
    pub fn push(&mut self, code: OpCode, name: &[u8], particle: ParticleType, value: &[u8]) {
        if self.has_room(OP_HEADER_BYTES + name.len() + value.len()) {
            ops::push(self.out, code, particle, name, value);
            self.op_count += 1;
        }
    }

    /// Adds a result without a value.
    #[inline]
    pub fn push_null(&mut self, code: OpCode, name: &[u8]) {
        self.push(code, name, ParticleType::NULL, &[]);
    }

    /// Adds every bin of a record, as READ results.
    pub fn push_all(&mut self, at_rest: &[u8], bin_count: u16) {
        if self.has_room(at_rest.len()) {
            push_as_reads(self.out, at_rest);
            self.op_count += bin_count;
        }
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
/// # Errors
/// RECORD_TOO_BIG when that is more than `results_bytes_max`; nothing is appended then.
pub fn push_selected(
    out: &mut Vec<u8>,
    record: &RecordView<'_>,
    (wanted, wanted_count): (Ops<'_>, u16),
    respond_to_all: bool,
    results_bytes_max: usize,
) -> Result<(), ResultCode> {
    let wanted = (wanted, wanted_count);
    let mut selection = Selection::begin(out, record, wanted, respond_to_all, results_bytes_max);
    while !selection.go_on(usize::MAX)? {}
    selection.finish();
    Ok(())
}

/// Such a reply under construction, some bins at a time: a request may ask for 32,768 of a record of
/// as many, and others wait meanwhile. Dropped without [`Selection::finish`], it takes back what it
/// wrote.
///
/// Absent bins are left out, or given as NULL when `respond_to_all`. Operations other than READ do
/// not occur (see [`super::Action::ReadBins`]) and are passed over.
#[derive(Debug)]
pub struct Selection<'a> {
    reply: OpReply<'a>,
    bins: bins::Lookup<'a>,
    wanted: Ops<'a>,
    respond_to_all: bool,
    generation: Generation,
    void_time: VoidTime,
}

impl<'a> Selection<'a> {
    /// Begins the reply at the end of `out`. `wanted_count` is how many operations there are.
    pub fn begin(
        out: &'a mut Vec<u8>,
        record: &RecordView<'a>,
        (wanted, wanted_count): (Ops<'a>, u16),
        respond_to_all: bool,
        results_bytes_max: usize,
    ) -> Self {
        Self {
            reply: OpReply::begin(out, results_bytes_max),
            bins: bins::Lookup::new(record.bins, record.bin_count, wanted_count),
            wanted,
            respond_to_all,
            generation: record.generation,
            void_time: record.void_time,
        }
    }

    /// Looks at up to `count` bins; true when the reply has all it is to have.
    ///
    /// # Errors
    /// RECORD_TOO_BIG when that is more than it may hold.
    pub fn go_on(&mut self, count: usize) -> Result<bool, ResultCode> {
        if !self.bins.fill(count) {
            return Ok(false);
        }
        for _ in 0..count {
            let Some(op) = self.wanted.next() else { return Ok(true) };
            if op.code != OpCode::READ {
                continue;
            }
            match self.bins.find(op.name) {
                Some(bin) => self.reply.push(OpCode::READ, bin.name, bin.particle, bin.value),
                None if self.respond_to_all => self.reply.push_null(OpCode::READ, op.name),
                None => {}
            }
            if self.reply.is_too_long() {
                return Err(ResultCode::RECORD_TOO_BIG);
            }
        }
        Ok(false)
    }

    /// Completes the reply.
    pub fn finish(self) {
        self.reply.finish(ResultCode::OK, self.generation, self.void_time);
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Digest, Lut, RecordFlags, SrcId, Version};
    use crate::wire::request::Address;

    fn record(bins: &[u8], bin_count: u16) -> RecordView<'_> {
        RecordView {
            digest: Digest([0; 20]),
            version: Version::ZERO,
            local_lut: Lut::ZERO,
            generation: Generation(3),
            void_time: VoidTime(77),
            flags: RecordFlags::default(),
            src_id: SrcId::NONE,
            set: "",
            key: &[],
            bin_count,
            bins,
        }
    }

    fn two_bins() -> Vec<u8> {
        let mut out = Vec::new();
        bins::push(&mut out, b"i", ParticleType::INTEGER, &7_i64.to_be_bytes());
        bins::push(&mut out, b"s", ParticleType::STRING, b"hi");
        out
    }

    type Result3 = (u8, String, u8, Vec<u8>);

    fn results(reply: &Reply<'_>) -> Vec<Result3> {
        let text = |name: &[u8]| String::from_utf8(name.to_vec()).unwrap();
        reply.ops.map(|op| (op.code.0, text(op.name), op.particle.0, op.value.to_vec())).collect()
    }

    fn only(frames: &[u8]) -> Reply<'_> {
        let mut stream = replies(frames);
        let reply = stream.next().unwrap().unwrap();
        assert_eq!(stream.consumed(), frames.len());
        assert!(stream.next().is_none());
        reply
    }

    #[test]
    fn a_record_is_answered_with_all_its_bins_as_reads() {
        let bins = two_bins();
        let mut out = Vec::new();
        push_record(&mut out, &record(&bins, 2));
        let reply = only(&out);
        assert_eq!((reply.code(), reply.generation()), (ResultCode::OK, Generation(3)));
        assert_eq!(reply.void_time(), VoidTime(77));
        let expected = [
            (1, "i".to_owned(), 1, 7_i64.to_be_bytes().to_vec()),
            (1, "s".to_owned(), 3, b"hi".to_vec()),
        ];
        assert_eq!(results(&reply), expected);
    }

    #[test]
    fn selected_bins_come_in_the_order_asked() {
        let at_rest = two_bins();
        let mut asked = Vec::new();
        for name in [&b"s"[..], b"none", b"i"] {
            ops::push(&mut asked, OpCode::READ, ParticleType::NULL, name, b"");
        }
        let answer = |respond_to_all| {
            let mut out = Vec::new();
            let ops = Ops::parse(&asked, 3).unwrap();
            let record = record(&at_rest, 2);
            push_selected(&mut out, &record, (ops, 3), respond_to_all, usize::MAX).unwrap();
            results(&only(&out)).into_iter().map(|(_, name, kind, _)| (name, kind)).collect()
        };
        let names = |list: &[(&str, u8)]| -> Vec<(String, u8)> {
            list.iter().map(|&(name, kind)| (name.to_owned(), kind)).collect()
        };
        let plain: Vec<_> = answer(false);
        assert_eq!(plain, names(&[("s", 3), ("i", 1)]));
        assert_eq!(answer(true), names(&[("s", 3), ("none", 0), ("i", 1)]));
    }

    #[test]
    fn an_operation_reply_counts_what_it_holds_or_leaves_nothing() {
        let mut out = vec![9];
        let mut reply = OpReply::begin(&mut out, 100);
        reply.push(OpCode::INCR, b"i", ParticleType::INTEGER, &8_i64.to_be_bytes());
        reply.push_null(OpCode::WRITE, b"s");
        reply.push_all(&two_bins(), 2);
        reply.finish(ResultCode::OK, Generation(4), VoidTime::NEVER);
        let codes: Vec<_> = only(&out[1..]).ops.map(|op| (op.code.0, op.particle.0)).collect();
        assert_eq!(codes, [(5, 1), (2, 0), (1, 1), (1, 3)]);

        let before = out.clone();
        let mut reply = OpReply::begin(&mut out, 100);
        reply.push_null(OpCode::READ, b"x");
        drop(reply);
        assert_eq!(out, before);
    }

    #[test]
    fn a_reply_has_a_bound_however_often_a_large_bin_is_asked_for() {
        const COUNT: u16 = 2000;
        let value = vec![b'x'; 900 << 10];
        let mut at_rest = Vec::new();
        bins::push(&mut at_rest, b"b", ParticleType::BLOB, &value);
        let mut asked = Vec::new();
        for _ in 0..COUNT {
            ops::push(&mut asked, OpCode::READ, ParticleType::NULL, b"b", b"");
        }
        let ops = Ops::parse(&asked, COUNT).unwrap();
        let mut out = vec![7];
        let record = record(&at_rest, 1);
        let refused = push_selected(&mut out, &record, (ops, COUNT), false, 2 << 20);
        assert_eq!((refused, &out[..]), (Err(ResultCode::RECORD_TOO_BIG), &[7][..]));
        assert!(out.capacity() <= 4 << 20, "{} bytes were taken", out.capacity());
        let two = Ops::parse(&asked[..asked.len() / 1000], 2).unwrap();
        push_selected(&mut out, &record, (two, 2), false, 2 << 20).unwrap();
        assert_eq!(only(&out[1..]).ops.count(), 2);
    }

    #[test]
    fn a_last_reply_says_so_and_is_alone_in_its_frame() {
        let mut out = Vec::new();
        push_last(&mut out, ResultCode::UNSUPPORTED_FEATURE);
        assert_eq!(out.len(), REPLY_BYTES);
        let reply = only(&out);
        assert_eq!((reply.code(), reply.header.info[2]), (ResultCode::UNSUPPORTED_FEATURE, 1));
    }

    #[test]
    fn pipelined_replies_are_taken_until_the_first_incomplete() {
        let mut stream = Vec::new();
        push_code(&mut stream, ResultCode::NOT_FOUND);
        push_record(&mut stream, &record(&two_bins(), 2));
        push(&mut stream, ResultCode::OK, Generation(9), VoidTime(5));
        let ends = [30, stream.len() - 30, stream.len()];
        for cut in 0..=stream.len() {
            let mut taken = replies(&stream[..cut]);
            let count = taken.by_ref().inspect(|reply| assert!(reply.is_ok())).count();
            assert_eq!(count, ends.iter().filter(|&&end| end <= cut).count(), "{cut}");
            let expected = ends.iter().filter(|&&end| end <= cut).max().copied().unwrap_or(0);
            assert_eq!(taken.consumed(), expected, "{cut}");
        }
        let codes: Vec<_> = replies(&stream).map(|reply| reply.unwrap().generation().0).collect();
        assert_eq!(codes, [0, 3, 9]);
    }

    #[test]
    fn a_stream_that_goes_wrong_says_how() {
        let mut good = Vec::new();
        push_code(&mut good, ResultCode::OK);
        let address = Address { namespace: "t", set: "", digest: Digest([0; 20]) };
        let mut cut_body = Vec::new();
        address.get().push(1, &[], &mut cut_body);
        let info = [2, 1, 0, 0, 0, 0, 0, 2, b'a', b'\n'];
        let check = |tail: &[u8], expected: ReplyError| {
            let stream = [&good, tail].concat();
            let mut taken = replies(&stream);
            assert!(taken.next().unwrap().is_ok());
            for _ in 0..2 {
                assert_eq!(taken.next().unwrap().map(|_| ()), Err(expected));
                assert_eq!(taken.consumed(), REPLY_BYTES);
            }
        };
        check(b"HTTP/1.1", ReplyError::Frame(FrameError::Version(b'H')));
        check(&info, ReplyError::NotData(FrameType::Info));
        check(&cut_body, ReplyError::Malformed);
    }
}
