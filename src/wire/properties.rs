//! Properties of the whole module: what is written is read back, and reading any bytes returns.

use proptest::collection::vec;
use proptest::prelude::*;

use crate::model::{Digest, Generation, Lut, SrcId, VoidTime};

use super::info;
use super::peers::Peers;
use super::reply::{self, Reply};
use super::request::{Address, Head};
use super::{
    Action, ParticleType, Request, ResultCode, bins, geojson, hello, msgpack, next_frame, particle,
    replicas, replies,
};

/// Names and values of up to 20 bins; names are distinct.
fn bin_list() -> impl Strategy<Value = Vec<(Vec<u8>, Vec<u8>)>> {
    let name = vec(1_u8.., 0..=15);
    vec((name, vec(any::<u8>(), 0..40)), 1..20).prop_map(|mut list| {
        list.sort();
        list.dedup_by(|a, b| a.0 == b.0);
        list
    })
}

fn at_rest(list: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in list {
        bins::push_checked(&mut out, name, ParticleType::BLOB, value).unwrap();
    }
    out
}

proptest! {
    #[test]
    fn a_request_is_read_as_it_was_written(
        digest in any::<[u8; 20]>(),
        set in "[a-z]{0,63}",
        key in vec(any::<u8>(), 0..30),
        (generation, ttl, timeout_ms) in any::<(u32, u32, u32)>(),
        lut in proptest::option::of(0..1_u64 << 40),
        src_id in any::<u8>(),
        list in bin_list(),
    ) {
        let address = Address { namespace: "test", set: &set, digest: Digest(digest) };
        let head = Head {
            generation,
            ttl,
            timeout_ms,
            key: &key,
            lut: lut.map(Lut::from_ms),
            src_id: SrcId(src_id),
            ..address.shipped_write(true)
        };
        let ops = at_rest(&list);
        let mut frame = Vec::new();
        head.push(list.len() as u16, &ops, &mut frame);
        let mut slice = vec![0; frame.len()];
        let head_bytes = head.encode(list.len() as u16, ops.len(), &mut slice).unwrap();
        prop_assert_eq!(&slice[..head_bytes], &frame[..head_bytes]);

        let read = Request::parse(next_frame(&frame).unwrap().unwrap().body).unwrap();
        prop_assert_eq!(read.target(), Ok(address.digest));
        prop_assert_eq!(read.action(), Ok(Action::Write));
        prop_assert_eq!((read.namespace, read.set), (address.namespace, address.set));
        prop_assert_eq!(read.key.unwrap_or_default(), &key);
        prop_assert_eq!((read.lut, read.src_id), (head.lut, head.src_id));
        prop_assert_eq!((read.header.generation, read.header.ttl), (generation, ttl));
        prop_assert_eq!(read.header.timeout_ms, timeout_ms);
        prop_assert_eq!(read.verbatim_bins(), Ok(Some(&ops[..])));
    }

    #[test]
    fn a_reply_is_read_as_it_was_written(
        (code, generation, void_time) in any::<(u8, u16, u32)>(),
        list in bin_list(),
    ) {
        let (generation, void_time) = (Generation(generation), VoidTime(void_time));
        let mut out = Vec::new();
        reply::push(&mut out, ResultCode(code), generation, void_time);
        let mut with_bins = reply::OpReply::begin(&mut out, usize::MAX);
        with_bins.push_all(&at_rest(&list), list.len() as u16);
        with_bins.finish(ResultCode(code), generation, void_time);
        let read: Vec<_> = replies(&out).map(Result::unwrap).collect();
        for reply in &read {
            prop_assert_eq!((reply.code(), reply.generation()), (ResultCode(code), generation));
            prop_assert_eq!(reply.void_time(), void_time);
        }
        let bins: Vec<_> = read[1].ops.map(|op| (op.name.to_vec(), op.value.to_vec())).collect();
        prop_assert_eq!((read.len(), read[0].ops.count(), bins), (2, 0, list));
    }

    #[test]
    fn any_bytes_are_read_without_harm(bytes in vec(any::<u8>(), 0..200)) {
        let _ = next_frame(&bytes);
        let _ = judge(&bytes);
        let _ = Reply::parse(&bytes);
        let _ = replies(&bytes).take(3).count();
        let _ = bins::iter(&bytes).count();
        let _ = msgpack::is_one_value(&bytes);
        let _ = geojson::is_geojson(&bytes);
        for kind in 0..25 {
            let _ = particle::check(ParticleType(kind), &bytes);
            let _ = particle::Value::decode(ParticleType(kind), &bytes);
        }
        for line in info::lines(&bytes) {
            let _ = hello::Hello::verify(line, "A1", &hello::Challenge([7; 16]));
        }
    }

    #[test]
    fn a_damaged_request_is_read_without_harm(
        list in bin_list(),
        cut in any::<u16>(),
        flips in vec((any::<u16>(), any::<u8>()), 1..4),
    ) {
        let address = Address { namespace: "test", set: "demo", digest: Digest([1; 20]) };
        let mut frame = Vec::new();
        address.operate().push(list.len() as u16, &at_rest(&list), &mut frame);
        let mut body = frame.split_off(8);
        let length = body.len();
        prop_assert!(judge(&body[..usize::from(cut) % length]).is_err());
        for (at, value) in flips {
            body[usize::from(at) % length] ^= value;
        }
        let _ = judge(&body);
    }

    #[test]
    fn any_text_is_read_without_harm(text in "[\\[\\],:;=0-9A-Za-z/+.\u{e9}\n]{0,60}") {
        let _ = Peers::parse(&text);
        let _ = replicas::parse(&text);
        let _ = hello::HelloAnswer::parse(&text);
        let _ = info::failure(&text);
        let _ = info::pairs(&text).count();
        let _ = info::answers(text.as_bytes()).count();
    }

    #[test]
    fn nested_msgpack_is_well_formed_until_it_is_cut(
        depth in 0_usize..50,
        cut in any::<prop::sample::Index>(),
    ) {
        let mut value = [0x92, 0xa2, 0x03, b'x'].repeat(depth);
        value.push(0xc0);
        prop_assert!(msgpack::is_one_value(&value));
        prop_assert!(!msgpack::is_one_value(&value[..cut.index(value.len())]));
    }
}

/// All the steps a node takes before it looks at the record.
fn judge(body: &[u8]) -> Result<Action, ResultCode> {
    let request = Request::parse(body)?;
    request.check_key()?;
    request.verbatim_bins()?;
    request.target()?;
    request.action()
}
