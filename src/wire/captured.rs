//! The frames of `docs/wire.md` section 13: captured between a real client and a real server, or
//! accepted by one. Each is read, and where Longship writes such a frame, written.

use crate::model::{Digest, Generation, Lut, VoidTime};

use super::bits::info3;
use super::message::Kind;
use super::particle::Value;
use super::reply::{self, REPLY_BYTES};
use super::request::{Address, Head};
use super::{
    Action, FrameType, OpCode, ParticleType, Request, ResultCode, bins, next_frame, ops, replies,
};

const NAMESPACE_AND_SET: &str = "00000005 00 74657374 00000005 01 64656d6f";
const DIGEST: &str = "00000015 04 03161f352c8ab85448952c896ecdaa122b3c4e71";
const KEY: &str = "00000007 02 03 7573657231";
const INTEGER: &str = "0000000d 02 01 00 01 69 0000000000000007";
const STRING: &str = "00000007 02 03 00 01 73 6869";

fn hex(parts: &[&str]) -> Vec<u8> {
    let digits: Vec<u32> = parts.concat().chars().filter_map(|c| c.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}

fn address() -> Address<'static> {
    Address { namespace: "test", set: "demo", digest: Digest::of_string("demo", "user1") }
}

fn bins() -> Vec<u8> {
    let mut out = Vec::new();
    bins::push(&mut out, b"i", ParticleType::INTEGER, &7_i64.to_be_bytes());
    bins::push(&mut out, b"s", ParticleType::STRING, b"hi");
    out
}

fn written(head: Head<'_>, op_count: u16, ops: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    head.push(op_count, ops, &mut out);
    out
}

fn read(frame: &[u8]) -> Request<'_> {
    let whole = next_frame(frame).unwrap().unwrap();
    assert_eq!((whole.kind, whole.bytes()), (FrameType::Message, frame.len()));
    let request = Request::parse(whole.body).unwrap();
    assert_eq!(request.target(), Ok(address().digest));
    assert_eq!((request.namespace, request.set), ("test", "demo"));
    request
}

fn check_bare(frame: &[u8], code: ResultCode, generation: u16, void_time: u32) {
    let (generation, void_time) = (Generation(generation), VoidTime(void_time));
    assert_eq!(reply::bare(code, generation, void_time)[..], *frame);
    let read = replies(frame).next().unwrap().unwrap();
    assert_eq!((read.code(), read.generation(), read.void_time()), (code, generation, void_time));
}

#[test]
fn frame_b_puts_two_bins() {
    let frame = hex(&[
        "0203000000000068 160001000000 00000000 00000064 000003e8 0004 0002",
        NAMESPACE_AND_SET,
        DIGEST,
        KEY,
        INTEGER,
        STRING,
    ]);
    let request = read(&frame);
    assert_eq!(request.action(), Ok(Action::Write));
    assert_eq!((request.header.ttl, request.header.timeout_ms), (100, 1000));
    assert_eq!(request.key, Some(&b"\x03user1"[..]));
    assert_eq!(request.verbatim_bins(), Ok(Some(&bins()[..])));
    let key = Value::String("user1").to_key();
    let head = Head { ttl: 100, timeout_ms: 1000, key: &key, ..address().put() };
    assert_eq!(written(head, 2, &bins()), frame);
    let answer = hex(&["0203000000000016 160000000000 00000001 1fc4fd77 00000000 0000 0000"]);
    check_bare(&answer, ResultCode::OK, 1, 0x1fc4_fd77);
}

#[test]
fn frame_c_gets_all_bins() {
    let frame = hex(&[
        "0203000000000041 160300000000 00000000 00000000 000003e8 0003 0000",
        NAMESPACE_AND_SET,
        DIGEST,
    ]);
    assert_eq!(read(&frame).action(), Ok(Action::ReadAll));
    assert_eq!(written(Head { timeout_ms: 1000, ..address().get() }, 0, &[]), frame);

    let answer = hex(&[
        "0203000000000032 160000000000 00000001 1fc4fd77 00000000 0000 0002",
        "0000000d 01 01 00 01 69 0000000000000007 00000007 01 03 00 01 73 6869",
    ]);
    let read = replies(&answer).next().unwrap().unwrap();
    let values: Vec<_> = read.ops.map(|op| Value::decode(op.particle, op.value)).collect();
    assert_eq!(values, [Some(Value::Integer(7)), Some(Value::String("hi"))]);
    let mut out = Vec::new();
    let mut reply = reply::OpReply::begin(&mut out, usize::MAX);
    reply.push_all(&bins(), 2);
    reply.finish(ResultCode::OK, Generation(1), VoidTime(0x1fc4_fd77));
    assert_eq!(out, answer);
}

#[test]
fn frame_d_removes_a_record() {
    let frame = hex(&[
        "0203000000000041 160003000000 00000000 00000000 000003e8 0003 0000",
        NAMESPACE_AND_SET,
        DIGEST,
    ]);
    assert_eq!(read(&frame).action(), Ok(Action::Delete));
    assert_eq!(written(Head { timeout_ms: 1000, ..address().remove() }, 0, &[]), frame);
    let answer = hex(&["0203000000000016 160000000000 00000000 00000000 00000000 0000 0000"]);
    check_bare(&answer, ResultCode::OK, 0, 0);
}

#[test]
fn frame_e_ships_a_whole_record() {
    let frame = hex(&[
        "0203000000000068 161001100000 00000000 ffffffff 00000000 0004 0002",
        NAMESPACE_AND_SET,
        DIGEST,
        KEY,
        INTEGER,
        STRING,
    ]);
    let request = read(&frame);
    assert_eq!(request.action(), Ok(Action::Write));
    assert!(request.is_shipped() && request.is_replace() && !request.is_update_only());
    assert_eq!(request.verbatim_bins(), Ok(Some(&bins()[..])));
    let key = Value::String("user1").to_key();
    let head = Head { ttl: u32::MAX, key: &key, ..address().shipped_write(true) };
    assert_eq!(written(head, 2, &bins()), frame);
    let answer = hex(&["0203000000000016 160000000000 00000002 00000000 00000000 0000 0000"]);
    check_bare(&answer, ResultCode::OK, 2, 0);
}

#[test]
fn frame_f_ships_luts_and_a_bin_tombstone() {
    let frame = hex(&[
        "0203000000000083 161001000000 00000000 ffffffff 00000000 0005 0002",
        NAMESPACE_AND_SET,
        DIGEST,
        KEY,
        "00000009 0e 0000007c197a2384",
        "00000015 02 01 01 01 69 0000007c197a2384 0000000000000007",
        "0000000d 02 00 01 01 73 0000007c197a2384",
    ]);
    let request = read(&frame);
    assert_eq!(request.action(), Ok(Action::Write));
    assert_eq!(request.lut, Some(Lut::from_ms(533_003_379_588)));
    let luts: Vec<_> = request.ops.map(|op| (op.code, op.particle, op.lut)).collect();
    let lut = Some(533_003_379_588);
    assert_eq!(luts[0], (OpCode::WRITE, ParticleType::INTEGER, lut));
    assert_eq!(luts[1], (OpCode::WRITE, ParticleType::NULL, lut));
    assert_eq!(request.verbatim_bins(), Ok(None));
    let answer = hex(&["0203000000000016 160000000000 00000001 00000000 00000000 0000 0000"]);
    check_bare(&answer, ResultCode::OK, 1, 0);
}

#[test]
fn frame_g_ships_a_delete() {
    let frame = hex(&[
        "0203000000000041 161003000000 00000000 00000000 00000000 0003 0000",
        NAMESPACE_AND_SET,
        DIGEST,
    ]);
    let request = read(&frame);
    assert_eq!(request.action(), Ok(Action::Delete));
    assert!(request.is_shipped() && !request.is_durable_delete());
    assert_eq!(written(address().shipped_delete(false), 0, &[]), frame);
    let missing = hex(&["0203000000000016 160000000002 00000000 00000000 00000000 0000 0000"]);
    check_bare(&missing, ResultCode::NOT_FOUND, 0, 0);
}

#[test]
fn frame_h_ends_a_stream_and_marks_a_partition() {
    let frames = hex(&[
        "0203000000000016 160000010000 00000000 00000000 00000000 0000 0000",
        "0203000000000016 16000004000b 00000007 00000000 00000000 0000 0000",
    ]);
    let read: Vec<_> = replies(&frames).map(Result::unwrap).collect();
    assert_eq!(read[0].header.info[2], info3::LAST);
    assert_eq!(read[1].header.info[2], info3::PARTITION_DONE);
    assert_eq!((read[1].code(), read[1].header.generation), (ResultCode::UNAVAILABLE, 7));
    assert_eq!(frames.len(), 2 * REPLY_BYTES);
}

#[test]
fn frame_i_is_compressed() {
    let head = hex(&["0204000000000056 000000000000017e 78016362660002c6"]);
    let frame = [head, vec![0; 70]].concat();
    let whole = next_frame(&frame).unwrap().unwrap();
    assert_eq!((whole.kind, whole.body.len()), (FrameType::Compressed, 86));
}

/// The remaining calls of `docs/wire.md` section 9.2, with the bits seen on the wire for each
/// (section 3).
#[test]
fn the_other_calls_carry_the_bits_seen_on_the_wire() {
    let check = |head: Head<'_>, op: Option<(OpCode, &[u8])>, info: [u8; 4], expected: Action| {
        let mut list = Vec::new();
        if let Some((code, name)) = op {
            ops::push(&mut list, code, ParticleType::NULL, name, b"");
        }
        let frame = written(head, u16::from(op.is_some()), &list);
        let request = read(&frame);
        assert_eq!((request.header.info, request.action()), (info, Ok(expected)));
        assert!(matches!(request.kind, Kind::Single(_)));
    };
    check(address().exists(), None, [0x21, 0, 0, 0], Action::ReadMetadata);
    check(address().exists(), Some((OpCode::READ, b"")), [0x21, 0, 0, 0], Action::ReadMetadata);
    check(address().select(), Some((OpCode::READ, b"i")), [1, 0, 0, 0], Action::ReadBins);
    check(address().operate(), Some((OpCode::TOUCH, b"")), [1, 1, 0, 0], Action::Write);
    check(address().put(), Some((OpCode::WRITE, b"i")), [0, 1, 0, 0], Action::Write);
    check(address().shipped_delete(true), None, [0x10, 0x13, 0, 0], Action::Delete);
}
