//! A record's bins while a request's operations are applied to them, in order.
//!
//! Bins are borrowed from the old record and from the request; only values that exist in neither
//! (sums, concatenations, widened integers) are made, in a buffer kept between requests. Nothing
//! else is copied until the new record is written out, once. Rules: `docs/wire.md` section 5.2, and
//! step 6 of section 9.1.

use std::collections::HashMap;

use longship::wire::bins::{self, NameHash};
use longship::wire::particle::{self, Canonical};
use longship::wire::reply::OpReply;
use longship::wire::{Op, OpCode, ParticleType, Request, ResultCode};

use crate::limits::MADE_BYTES_MAX;

/// Most bins in a record. Source: `docs/wire.md` section 10.
pub const BIN_COUNT_MAX: usize = 32_767;

/// Above this many bins names are found through a map instead of one by one, so that one request of
/// thousands of operations cannot hold the shard for seconds.
const SCAN_COUNT_MAX: usize = 32;

/// Bytes of made values for which memory is kept between requests.
const MADE_BYTES_KEPT: usize = 256 << 10;

/// Memory kept between requests, so that applying one allocates nothing.
#[derive(Debug, Default)]
pub struct Workspace {
    slots: Vec<Bin<'static>>,
    made: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Bin<'a> {
    name: &'a [u8],
    /// NULL once removed; the slot is kept for the bin's return.
    particle: ParticleType,
    value: Value<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Value<'a> {
    Found(&'a [u8]),
    Made { start: usize, len: usize },
}

/// The bins of one record, being changed.
#[derive(Debug)]
pub struct Bins<'a> {
    slots: Vec<Bin<'a>>,
    live: usize,
    made: Vec<u8>,
    by_name: HashMap<&'a [u8], usize, NameHash>,
}

impl<'a> Bins<'a> {
    /// Starts from the bins of the old record, as it keeps them; none when it is created or
    /// replaced.
    pub fn new(workspace: &mut Workspace, old: &'a [u8]) -> Self {
        let mut made = std::mem::take(&mut workspace.made);
        made.clear();
        let slots = recycle(std::mem::take(&mut workspace.slots));
        let mut all = Self { slots, live: 0, made, by_name: HashMap::default() };
        for bin in bins::iter(old) {
            all.insert(bin.name, bin.particle, Value::Found(bin.value));
        }
        all
    }

    /// Gives the memory back.
    pub fn end(self, workspace: &mut Workspace) {
        workspace.slots = recycle(self.slots);
        workspace.made = self.made;
        workspace.made.clear();
        workspace.made.shrink_to(MADE_BYTES_KEPT);
    }

    /// Bins present now.
    pub const fn count(&self) -> usize {
        self.live
    }

    /// Appends every bin to `out` as a record keeps it: WRITE operations without bin LUTs.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        for bin in self.present() {
            bins::push(out, bin.name, bin.particle, self.value(bin.value));
        }
    }

    /// Applies one operation of `request`, whose operation list has been checked.
    ///
    /// # Errors
    /// What the client is told; RECORD_TOO_BIG also when it asks for more results than the reply
    /// may hold, or makes more bytes than a request may.
    pub fn apply(
        &mut self,
        op: &Op<'a>,
        request: &Request<'_>,
        reply: &mut OpReply<'_>,
    ) -> Result<(), ResultCode> {
        let mut answers = false;
        match op.code {
            OpCode::READ if request.reads_all() && op.name.is_empty() => {
                for bin in self.present() {
                    reply.push(OpCode::READ, bin.name, bin.particle, self.value(bin.value));
                }
                answers = true;
            }
            OpCode::READ => {
                if let Some((particle, value)) = self.get(op.name) {
                    reply.push(OpCode::READ, op.name, particle, value);
                    answers = true;
                }
            }
            OpCode::TOUCH => answers = true, // by being the one that never answers
            OpCode::DELETE_ALL => {
                self.slots.clear();
                self.by_name.clear();
                self.live = 0;
            }
            OpCode::WRITE | OpCode::INCR | OpCode::APPEND | OpCode::PREPEND => {
                let (particle, value) = match op.code {
                    OpCode::WRITE => self.written(op)?,
                    OpCode::INCR => self.increased(op)?,
                    _ => self.extended(op)?,
                };
                self.set(op.name, particle, value);
            }
            other if other.is_refused() => return Err(ResultCode::UNSUPPORTED_FEATURE),
            _ => return Err(ResultCode::PARAMETER),
        }
        if request.responds_to_all() && !answers {
            reply.push_null(op.code, op.name);
        }
        if reply.is_too_long() { Err(ResultCode::RECORD_TOO_BIG) } else { Ok(()) }
    }

    fn written(&mut self, op: &Op<'a>) -> Result<(ParticleType, Value<'a>), ResultCode> {
        let value = match particle::check(op.particle, op.value)? {
            Canonical::AsSent | Canonical::Null => Value::Found(op.value),
            Canonical::Widened(wide) => self.make(&wide)?,
        };
        Ok((op.particle, value))
    }

    /// Old number plus operand; types must be the same. A missing bin becomes the operand.
    fn increased(&mut self, op: &Op<'a>) -> Result<(ParticleType, Value<'a>), ResultCode> {
        let old = self.get(op.name);
        let sum = match op.particle {
            ParticleType::INTEGER => {
                let old = match old {
                    None => 0,
                    Some((ParticleType::INTEGER, value)) => integer(value)?,
                    Some(_) => return Err(ResultCode::INCOMPATIBLE_TYPE),
                };
                old.wrapping_add(integer(op.value)?).to_be_bytes()
            }
            ParticleType::FLOAT => {
                let old = match old {
                    None => None,
                    Some((ParticleType::FLOAT, value)) => Some(float(value)?),
                    Some(_) => return Err(ResultCode::INCOMPATIBLE_TYPE),
                };
                let operand = float(op.value)?;
                old.map_or(operand, |old| old + operand).to_be_bytes()
            }
            _ => return Err(ResultCode::INCOMPATIBLE_TYPE),
        };
        Ok((op.particle, self.make(&sum)?))
    }

    /// Operand after (APPEND) or before (PREPEND) the old value; types must be the same.
    fn extended(&mut self, op: &Op<'a>) -> Result<(ParticleType, Value<'a>), ResultCode> {
        if op.particle != ParticleType::STRING && !op.particle.is_blob() {
            return Err(ResultCode::INCOMPATIBLE_TYPE);
        }
        let Some(slot) = self.find(op.name) else {
            return Ok((op.particle, Value::Found(op.value)));
        };
        let Bin { particle, value, .. } = self.slots[slot];
        if particle == ParticleType::NULL {
            return Ok((op.particle, Value::Found(op.value)));
        }
        if particle != op.particle {
            return Err(ResultCode::INCOMPATIBLE_TYPE);
        }
        let operand = Value::Found(op.value);
        let (first, second) =
            if op.code == OpCode::APPEND { (value, operand) } else { (operand, value) };
        Ok((particle, self.join(first, second)?))
    }

    fn get(&self, name: &[u8]) -> Option<(ParticleType, &[u8])> {
        let bin = &self.slots[self.find(name)?];
        (bin.particle != ParticleType::NULL).then(|| (bin.particle, self.value(bin.value)))
    }

    fn set(&mut self, name: &'a [u8], particle: ParticleType, value: Value<'a>) {
        match self.find(name) {
            Some(slot) => {
                let bin = &mut self.slots[slot];
                self.live -= usize::from(bin.particle != ParticleType::NULL);
                self.live += usize::from(particle != ParticleType::NULL);
                (bin.particle, bin.value) = (particle, value);
            }
            None if particle != ParticleType::NULL => self.insert(name, particle, value),
            None => {}
        }
    }

    fn insert(&mut self, name: &'a [u8], particle: ParticleType, value: Value<'a>) {
        self.slots.push(Bin { name, particle, value });
        self.live += 1;
        match self.slots.len() {
            count if count == SCAN_COUNT_MAX + 1 => {
                self.by_name.extend(self.slots.iter().enumerate().map(|(at, bin)| (bin.name, at)));
            }
            count if count > SCAN_COUNT_MAX => {
                self.by_name.insert(name, count - 1);
            }
            _ => {}
        }
    }

    fn find(&self, name: &[u8]) -> Option<usize> {
        if self.slots.len() > SCAN_COUNT_MAX {
            self.by_name.get(name).copied()
        } else {
            self.slots.iter().position(|bin| bin.name == name)
        }
    }

    fn present(&self) -> impl Iterator<Item = &Bin<'a>> {
        self.slots.iter().filter(|bin| bin.particle != ParticleType::NULL)
    }

    fn value<'s>(&'s self, value: Value<'s>) -> &'s [u8] {
        match value {
            Value::Found(bytes) => bytes,
            Value::Made { start, len } => &self.made[start..start + len],
        }
    }

    fn make(&mut self, bytes: &[u8]) -> Result<Value<'a>, ResultCode> {
        let start = self.made.len();
        self.room_for(bytes.len())?;
        self.made.extend_from_slice(bytes);
        Ok(Value::Made { start, len: bytes.len() })
    }

    fn join(&mut self, first: Value<'a>, second: Value<'a>) -> Result<Value<'a>, ResultCode> {
        // What was made last can grow where it is: a thousand appends copy no old byte twice.
        let grows = match first {
            Value::Made { start, len } if start + len == self.made.len() => Some(start),
            _ => None,
        };
        let start = grows.unwrap_or(self.made.len());
        let copied = if grows.is_some() { 0 } else { self.value(first).len() };
        self.room_for(copied + self.value(second).len())?;
        let parts = [first, second];
        for &part in &parts[usize::from(grows.is_some())..] {
            match part {
                Value::Found(bytes) => self.made.extend_from_slice(bytes),
                Value::Made { start, len } => self.made.extend_from_within(start..start + len),
            }
        }
        Ok(Value::Made { start, len: self.made.len() - start })
    }

    fn room_for(&self, len: usize) -> Result<(), ResultCode> {
        if self.made.len() + len > MADE_BYTES_MAX {
            return Err(ResultCode::RECORD_TOO_BIG);
        }
        Ok(())
    }
}

/// Empties a vector and gives its allocation another lifetime: collecting an emptied vector into
/// one of the same layout reuses its memory.
fn recycle<'b>(mut slots: Vec<Bin<'_>>) -> Vec<Bin<'b>> {
    slots.clear();
    slots.into_iter().map(|_| -> Bin<'b> { unreachable!("cleared above") }).collect()
}

/// An integer operand: 8, 4, 2 or 1 bytes big-endian, the shorter ones without sign.
fn integer(value: &[u8]) -> Result<i64, ResultCode> {
    if !matches!(value.len(), 1 | 2 | 4 | 8) {
        return Err(ResultCode::PARAMETER);
    }
    Ok(value.iter().fold(0, |sum, &byte| sum << 8 | i64::from(byte)))
}

fn float(value: &[u8]) -> Result<f64, ResultCode> {
    value.try_into().map(f64::from_be_bytes).map_err(|_| ResultCode::PARAMETER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use longship::model::{Digest, Generation, VoidTime};
    use longship::wire::reply::{REPLY_BYTES, Reply};
    use longship::wire::request::Address;
    use longship::wire::{Ops, bits, frame, ops};

    type Step<'a> = (OpCode, ParticleType, &'a str, &'a [u8]);

    const INT: ParticleType = ParticleType::INTEGER;
    const FLT: ParticleType = ParticleType::FLOAT;
    const STR: ParticleType = ParticleType::STRING;
    const BLB: ParticleType = ParticleType::BLOB;
    const NUL: ParticleType = ParticleType::NULL;

    fn encode(steps: &[Step<'_>]) -> Vec<u8> {
        let mut out = Vec::new();
        for (code, particle, name, value) in steps {
            ops::push(&mut out, *code, *particle, name.as_bytes(), value);
        }
        out
    }

    fn listed(bytes: &[u8], count: usize) -> Vec<(u8, u8, String, Vec<u8>)> {
        let ops = Ops::parse(bytes, count as u16).expect("whole operations");
        let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
        ops.map(|op| (op.code.0, op.particle.0, text(op.name), op.value.to_vec())).collect()
    }

    /// Bins and reply operations after `steps` over `old`, or the result code.
    fn run(
        old: &[Step<'_>],
        steps: &[Step<'_>],
        info: [u8; 4],
    ) -> Result<(Vec<u8>, Vec<u8>), ResultCode> {
        let digest = Digest::of_string("", "k");
        let mut head = Address { namespace: "test", set: "", digest }.operate();
        head.info = info;
        let mut bytes = Vec::new();
        head.push(steps.len() as u16, &encode(steps), &mut bytes);
        let request = Request::parse(&bytes[frame::FRAME_HEADER_BYTES..])?;
        let mut workspace = Workspace::default();
        let mut out = Vec::new();
        let mut reply = OpReply::begin(&mut out, RESULTS_BYTES_MAX);
        let old = encode(old);
        let mut bins = Bins::new(&mut workspace, &old);
        for op in request.ops {
            bins.apply(&op, &request, &mut reply)?;
        }
        reply.finish(ResultCode::OK, Generation(1), VoidTime::NEVER);
        let mut image = Vec::new();
        bins.write_to(&mut image);
        assert_eq!(listed(&image, bins.count()).len(), bins.count());
        bins.end(&mut workspace);
        assert!(Reply::parse(&out[frame::FRAME_HEADER_BYTES..]).is_some());
        Ok((image, out.split_off(REPLY_BYTES)))
    }

    const PLAIN: [u8; 4] = [bits::info1::READ, bits::info2::WRITE, 0, 0];
    const RESPOND_ALL: [u8; 4] = [PLAIN[0], PLAIN[1] | bits::info2::RESPOND_ALL_OPS, 0, 0];
    const RESULTS_BYTES_MAX: usize = 1 << 20;
    const GET_ALL: [u8; 4] = [PLAIN[0] | bits::info1::GET_ALL, PLAIN[1], 0, 0];

    fn check_as(
        info: [u8; 4],
        old: &[Step<'_>],
        steps: &[Step<'_>],
        bins: &[Step<'_>],
        replies: &[Step<'_>],
    ) {
        let (image, out) = run(old, steps, info).unwrap();
        assert_eq!(image, encode(bins), "bins after {steps:?}");
        assert_eq!(out, encode(replies), "replies to {steps:?}");
    }

    fn check(old: &[Step<'_>], steps: &[Step<'_>], bins: &[Step<'_>]) {
        check_as(PLAIN, old, steps, bins, &[]);
    }

    fn write<'a>(particle: ParticleType, name: &'a str, value: &'a [u8]) -> Step<'a> {
        (OpCode::WRITE, particle, name, value)
    }

    fn read<'a>(particle: ParticleType, name: &'a str, value: &'a [u8]) -> Step<'a> {
        (OpCode::READ, particle, name, value)
    }

    #[test]
    fn writes_set_replace_and_remove_bins() {
        let old = [write(INT, "i", &[0, 0, 0, 0, 0, 0, 0, 7]), write(STR, "s", b"hi")];
        check(&old, &[write(STR, "t", b"x")], &[old[0], old[1], write(STR, "t", b"x")]);
        check(&old, &[write(BLB, "i", b"x")], &[write(BLB, "i", b"x"), old[1]]);
        check(&old, &[write(NUL, "i", b"")], &[old[1]]);
        check(&old, &[write(NUL, "absent", b"")], &old);
        check(&old, &[write(NUL, "i", b""), write(NUL, "s", b"")], &[]);
        check(&old, &[write(NUL, "i", b""), write(NUL, "i", b"")], &[old[1]]);
        let back = [write(NUL, "i", b""), write(STR, "i", b"again")];
        check(&old, &back, &[back[1], old[1]]);
        let twice = [write(STR, "t", b"1"), write(STR, "t", b"2")];
        check(&[], &twice, &[twice[1]]);
        check(&[], &[write(INT, "n", &[0xff])], &[write(INT, "n", &255i64.to_be_bytes())]);
    }

    #[test]
    fn delete_all_removes_what_is_there_at_that_point() {
        let old = [write(STR, "s", b"hi")];
        let all = (OpCode::DELETE_ALL, NUL, "", &b""[..]);
        check(&old, &[all], &[]);
        let (a, b) = (write(STR, "a", b"1"), write(STR, "b", b"2"));
        check(&old, &[a, all, b], &[b]);
    }

    #[test]
    fn reads_see_the_operations_before_them() {
        let old = [write(STR, "s", b"hi")];
        let steps = [read(NUL, "s", b""), write(STR, "s", b"yo"), read(NUL, "s", b"")];
        let replies = [read(STR, "s", b"hi"), read(STR, "s", b"yo")];
        check_as(PLAIN, &old, &steps, &[write(STR, "s", b"yo")], &replies);
        check_as(PLAIN, &old, &[read(NUL, "absent", b"")], &old, &[]);
        let steps = [write(STR, "t", b"1"), read(NUL, "", b""), write(STR, "u", b"2")];
        let bins = [old[0], steps[0], steps[2]];
        check_as(GET_ALL, &old, &steps, &bins, &[read(STR, "s", b"hi"), read(STR, "t", b"1")]);
    }

    #[test]
    fn respond_all_answers_every_operation_but_touch() {
        let steps = [
            write(STR, "s", b"hi"),
            read(NUL, "absent", b""),
            (OpCode::TOUCH, NUL, "", b""),
            (OpCode::APPEND, STR, "s", b"!"),
            read(NUL, "s", b""),
            (OpCode::DELETE_ALL, NUL, "", b""),
        ];
        let replies = [
            write(NUL, "s", b""),
            read(NUL, "absent", b""),
            (OpCode::APPEND, NUL, "s", b""),
            read(STR, "s", b"hi!"),
            (OpCode::DELETE_ALL, NUL, "", b""),
        ];
        check_as(RESPOND_ALL, &[], &steps, &[], &replies);
    }

    #[test]
    fn numbers_are_added_to_their_own_type() {
        fn add(particle: ParticleType, value: &[u8]) -> Step<'_> {
            (OpCode::INCR, particle, "n", value)
        }
        let int = |value: i64| value.to_be_bytes();
        let (seven, eight, max, min) = (int(7), int(8), int(i64::MAX), int(i64::MIN));
        check(&[write(INT, "n", &seven)], &[add(INT, &[1])], &[write(INT, "n", &eight)]);
        check(&[], &[add(INT, &seven)], &[write(INT, "n", &seven)]);
        check(&[write(INT, "n", &max)], &[add(INT, &[1])], &[write(INT, "n", &min)]);
        let (half, two, sum) = (0.5f64.to_be_bytes(), 2f64.to_be_bytes(), 2.5f64.to_be_bytes());
        check(&[write(FLT, "n", &half)], &[add(FLT, &two)], &[write(FLT, "n", &sum)]);
        let removed = [write(NUL, "n", b""), add(INT, &seven)];
        check(&[write(STR, "n", b"x")], &removed, &[write(INT, "n", &seven)]);
    }

    #[test]
    fn texts_and_blobs_are_extended_at_both_ends() {
        let old = [write(STR, "s", b"mid")];
        let steps = [(OpCode::APPEND, STR, "s", &b"end"[..]), (OpCode::PREPEND, STR, "s", b"beg")];
        check(&old, &steps, &[write(STR, "s", b"begmidend")]);
        check(&[], &steps, &[write(STR, "s", b"begend")]);
        let removed = [write(NUL, "s", b""), (OpCode::APPEND, BLB, "s", b"x")];
        check(&old, &removed, &[write(BLB, "s", b"x")]);
    }

    #[test]
    fn operations_that_do_not_fit_are_refused() {
        let old = [write(STR, "s", b"hi"), write(INT, "i", &[0; 8]), write(FLT, "f", &[0; 8])];
        let cases = [
            ((OpCode::INCR, INT, "s", &[0; 8][..]), ResultCode::INCOMPATIBLE_TYPE),
            ((OpCode::INCR, INT, "f", &[0; 8]), ResultCode::INCOMPATIBLE_TYPE),
            ((OpCode::INCR, FLT, "i", &[0; 8]), ResultCode::INCOMPATIBLE_TYPE),
            ((OpCode::INCR, STR, "s", b"x"), ResultCode::INCOMPATIBLE_TYPE),
            ((OpCode::INCR, INT, "i", &[0; 3]), ResultCode::PARAMETER),
            ((OpCode::INCR, FLT, "f", &[0; 4]), ResultCode::PARAMETER),
            ((OpCode::APPEND, STR, "i", b"x"), ResultCode::INCOMPATIBLE_TYPE),
            ((OpCode::APPEND, BLB, "s", b"x"), ResultCode::INCOMPATIBLE_TYPE),
            ((OpCode::PREPEND, INT, "i", &[0; 8]), ResultCode::INCOMPATIBLE_TYPE),
            (write(INT, "i", &[0; 3]), ResultCode::PARAMETER),
            (write(FLT, "f", &[0; 4]), ResultCode::PARAMETER),
            ((OpCode(6), NUL, "x", b""), ResultCode::PARAMETER),
            ((OpCode::CDT_MODIFY, BLB, "x", b""), ResultCode::UNSUPPORTED_FEATURE),
        ];
        for (step, code) in cases {
            assert_eq!(run(&old, &[step], PLAIN).unwrap_err(), code, "{step:?}");
        }
    }

    #[test]
    fn what_one_request_may_make_is_bounded() {
        let big = vec![0; 1 << 20];
        let steps = vec![(OpCode::PREPEND, BLB, "b", &big[..]); 20];
        assert_eq!(run(&[], &steps, PLAIN).unwrap_err(), ResultCode::RECORD_TOO_BIG);
    }

    #[test]
    fn appending_again_and_again_copies_no_old_byte() {
        let old = [write(BLB, "b", &[1; 1000])];
        let steps = vec![(OpCode::APPEND, BLB, "b", &[2; 1000][..]); 20_000];
        let (image, _) = run(&old, &steps, PLAIN).unwrap();
        assert_eq!(listed(&image, 1)[0].3.len(), 20_001_000);
        let two = [write(BLB, "a", b"1"), write(BLB, "b", b"2")];
        let append = |name, value: &'static [u8]| (OpCode::APPEND, BLB, name, value);
        let steps = [append("a", b"x"), append("b", b"y"), append("b", b"z"), append("a", b"w")];
        check(&two, &steps, &[write(BLB, "a", b"1xw"), write(BLB, "b", b"2yz")]);
        let own = [append("b", b"y"), (OpCode::PREPEND, BLB, "b", b"w"), append("b", b"z")];
        check(&two, &own, &[two[0], write(BLB, "b", b"w2yz")]);
    }

    #[test]
    fn what_one_request_may_be_answered_has_a_bound() {
        let old = [write(BLB, "b", &[0; 1000])];
        let reads = |count| vec![read(NUL, "b", b""); count];
        assert!(run(&old, &reads(1000), PLAIN).is_ok());
        let refused = Err(ResultCode::RECORD_TOO_BIG);
        assert_eq!(run(&old, &reads(1100), PLAIN).map(|_| ()), refused);
    }

    #[test]
    fn many_bins_behave_like_few() {
        let names: Vec<String> = (0..200).map(|n| format!("b{n}")).collect();
        let steps: Vec<_> = names.iter().map(|name| write(STR, name, b"x")).collect();
        check(&[], &steps, &steps);
        let again: Vec<_> = names.iter().map(|name| write(STR, name, b"yy")).collect();
        check(&steps, &again, &again);
        let one = [read(NUL, "b150", b"")];
        check_as(PLAIN, &steps, &one, &steps, &[read(STR, "b150", b"x")]);
    }

    #[test]
    fn the_workspace_is_used_again() {
        let old = encode(&[write(STR, "s", b"hi")]);
        let mut workspace = Workspace::default();
        Bins::new(&mut workspace, &old).end(&mut workspace);
        let memory = (workspace.slots.as_ptr(), workspace.slots.capacity());
        Bins::new(&mut workspace, &old).end(&mut workspace);
        assert_eq!((workspace.slots.as_ptr(), workspace.slots.capacity()), memory);
        assert!(workspace.slots.is_empty());
    }
}
