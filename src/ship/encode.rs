//! A judged record becomes one request frame, written where it will be sent from.

use crate::model::{Lut, RecordFlags, RecordView, SrcId, TtlSpec, VoidTime};
use crate::wire::bins;
use crate::wire::request::{Address, Head};

use super::filter::{Judgement, REMOVAL_BYTES};
use super::policy::{BinRule, Policy};
use super::verdict::Sent;
use crate::config::WritePolicy;

/// The destination, as far as frames differ for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// It understands the origin of a forwarded record (a Longship node).
    pub takes_origin: bool,
    /// `src-id` given in the hello: the origin of records that name none.
    pub source: SrcId,
    /// Deletions are to be sent as plain ones.
    pub plain_deletes: bool,
}

/// A frame that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Bytes of the whole frame.
    pub bytes: usize,
    /// Kind of request, by which its reply is judged.
    pub sent: Sent,
}

/// The frame does not fit into the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom {
    /// Bytes of the whole frame, for which a buffer of this size does.
    pub bytes: usize,
}

/// Writes the whole frame of a record, both headers included, to the start of `out`. One copy of
/// the bins when none is withheld. `None` when there is nothing to send.
///
/// Source: `docs/wire.md` section 11.2 and frames E and G of section 13; `docs/destinations.md`
/// section 1.
#[inline]
pub fn encode(
    record: &RecordView<'_>,
    judgement: Judgement,
    policy: &Policy,
    target: Target,
    now: Lut,
    out: &mut [u8],
) -> Option<Result<Encoded, NoRoom>> {
    let address =
        Address { namespace: &policy.remote_namespace, set: record.set, digest: record.digest };
    let (head, op_count, ops_bytes, sent) = match judgement {
        Judgement::FilteredOut => return None,
        Judgement::Write { op_count, ops_bytes, replace, .. } => {
            let head = Head { ttl: ttl_s(record.void_time, now), ..address.shipped_write(replace) };
            (head, op_count, ops_bytes, Sent::Write)
        }
        Judgement::Delete { durable } => {
            let durable = durable && !target.plain_deletes;
            let sent = if durable { Sent::DurableDelete } else { Sent::Delete };
            (address.shipped_delete(durable), 0, 0, sent)
        }
    };
    let head = Head { key: record.key, src_id: origin(record, target), ..head };
    let Some(head_bytes) = head.encode(op_count, ops_bytes, out) else {
        return Some(Err(NoRoom { bytes: head.bytes() + ops_bytes }));
    };
    let bytes = head_bytes + ops_bytes;
    if let Judgement::Write { whole, .. } = judgement {
        let ops = &mut out[head_bytes..bytes];
        if whole {
            ops.copy_from_slice(record.bins);
        } else {
            write_projection(record, policy, ops);
        }
    }
    Some(Ok(Encoded { bytes, sent }))
}

/// The origin to name, if the hello does not name it already.
#[inline]
fn origin(record: &RecordView<'_>, target: Target) -> SrcId {
    let shipped = record.flags.has(RecordFlags::SHIPPED);
    if target.takes_origin && shipped && record.src_id != target.source {
        record.src_id
    } else {
        SrcId::NONE
    }
}

/// A ttl is relative and never 0, which would mean the destination's default.
#[inline]
fn ttl_s(void_time: VoidTime, now: Lut) -> u32 {
    if void_time == VoidTime::NEVER {
        return u32::MAX;
    }
    void_time.0.saturating_sub(now.seconds()).clamp(1, TtlSpec::SECONDS_MAX)
}

/// Writes the bins kept, then, unless they replace all, the removal of those listed that the record
/// lacks. `out` is exactly as long as the judgement said.
fn write_projection(record: &RecordView<'_>, policy: &Policy, out: &mut [u8]) {
    let mut rest = out;
    for bin in bins::iter(record.bins).filter(|bin| policy.bins.keeps(bin.name)) {
        let (op, more) = rest.split_at_mut(bin.whole.len());
        op.copy_from_slice(bin.whole);
        rest = more;
    }
    let BinRule::Only(names) = &policy.bins else { return };
    if policy.write == WritePolicy::Replace {
        return;
    }
    for name in names.iter().filter(|name| bins::find(record.bins, name).is_none()) {
        let (op, more) = rest.split_at_mut(REMOVAL_BYTES + name.len());
        op[..4].copy_from_slice(&(4 + name.len() as u32).to_be_bytes());
        // WRITE, particle NULL, no flags.
        op[4..8].copy_from_slice(&[2, 0, 0, name.len() as u8]);
        op[8..].copy_from_slice(name);
        rest = more;
    }
}

#[cfg(test)]
mod tests {
    use super::super::policy::SetRule;
    use super::super::{judge, policy};
    use super::*;
    use crate::config::DcNamespaceConfig;
    use crate::model::{Digest, Generation, Version};
    use crate::wire::ParticleType;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        let digit = |d: u8| (d as char).to_digit(16).expect("a hex digit") as u8;
        digits.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
    }

    fn two_bins() -> Vec<u8> {
        let mut out = Vec::new();
        bins::push(&mut out, b"i", ParticleType::INTEGER, &7u64.to_be_bytes());
        bins::push(&mut out, b"s", ParticleType::STRING, b"hi");
        out
    }

    /// The record of the frames in `docs/wire.md` section 13: set demo, key "user1".
    fn record(bins: &[u8], bin_count: u16) -> RecordView<'_> {
        RecordView {
            digest: Digest::of_string("demo", "user1"),
            version: Version::first_of(Lut::from_ms(500)),
            local_lut: Lut::from_ms(500),
            generation: Generation(3),
            void_time: VoidTime::NEVER,
            flags: RecordFlags::default(),
            src_id: SrcId::NONE,
            set: "demo",
            key: b"\x03user1",
            bin_count,
            bins,
        }
    }

    fn policy() -> Policy {
        Policy::new(&DcNamespaceConfig::named("test"), 0, 1)
    }

    const TARGET: Target = Target { takes_origin: false, source: SrcId(1), plain_deletes: false };

    fn frame(record: &RecordView<'_>, policy: &Policy, target: Target) -> Option<(Vec<u8>, Sent)> {
        let now = Lut::from_ms(1_000_000);
        let judgement = judge(record, policy, SrcId(9), now);
        let mut out = [0xAA; 512];
        let encoded = encode(record, judgement, policy, target, now, &mut out)?.expect("room");
        assert!(out[encoded.bytes..].iter().all(|&byte| byte == 0xAA));
        // One byte less has no room, and says how much it takes.
        let short = encode(record, judgement, policy, target, now, &mut out[..encoded.bytes - 1]);
        assert_eq!(short, Some(Err(NoRoom { bytes: encoded.bytes })));
        Some((out[..encoded.bytes].to_vec(), encoded.sent))
    }

    #[test]
    fn a_whole_record_is_the_reference_frame_e() {
        let bins = two_bins();
        let (bytes, sent) = frame(&record(&bins, 2), &policy(), TARGET).expect("shipped");
        let expected = hex("0203000000000068 161001100000 00000000 ffffffff 00000000 0004 0002
            00000005 00 74657374 00000005 01 64656d6f
            00000015 04 03161f352c8ab85448952c896ecdaa122b3c4e71
            00000007 02 03 7573657231
            0000000d 02 01 00 01 69 0000000000000007
            00000007 02 03 00 01 73 6869");
        assert_eq!((bytes, sent), (expected, Sent::Write));
    }

    #[test]
    fn a_tombstone_is_the_reference_frame_g() {
        let flags = RecordFlags::TOMBSTONE;
        let gone = RecordView { flags, key: &[], bins: &[], bin_count: 0, ..record(&[], 0) };
        let (bytes, sent) = frame(&gone, &policy(), TARGET).expect("shipped");
        let expected = hex("0203000000000041 161003000000 00000000 00000000 00000000 0003 0000
            00000005 00 74657374 00000005 01 64656d6f
            00000015 04 03161f352c8ab85448952c896ecdaa122b3c4e71");
        assert_eq!((bytes, sent), (expected, Sent::Delete));
    }

    #[test]
    fn deletes_are_durable_where_the_destination_can() {
        let flags = RecordFlags::TOMBSTONE.with(RecordFlags::DURABLE, true);
        let gone = RecordView { flags, ..record(&[], 0) };
        let plain = Target { plain_deletes: true, ..TARGET };
        for (target, info2, expected) in
            [(TARGET, 0x13, Sent::DurableDelete), (plain, 0x03, Sent::Delete)]
        {
            let (bytes, sent) = frame(&gone, &policy(), target).expect("shipped");
            assert_eq!((bytes[10], sent), (info2, expected));
        }
    }

    #[test]
    fn a_ttl_is_what_is_left_and_at_least_a_second() {
        let now = Lut::from_ms(100_500);
        let check = |void_time: u32, expected: u32| {
            assert_eq!(ttl_s(VoidTime(void_time), now), expected, "{void_time}");
        };
        check(0, u32::MAX);
        check(150, 50);
        check(101, 1);
        check(100, 1);
        check(u32::MAX, TtlSpec::SECONDS_MAX);
    }

    #[test]
    fn what_expired_before_it_shipped_ships_as_a_delete() {
        let bins = two_bins();
        let expired = RecordView { void_time: VoidTime(999), ..record(&bins, 2) };
        let sent = frame(&expired, &policy(), TARGET).map(|(_, sent)| sent);
        assert_eq!(sent, Some(Sent::Delete));
    }

    #[test]
    fn only_forwarded_records_name_their_origin() {
        let bins = two_bins();
        let local = frame(&record(&bins, 2), &policy(), TARGET).expect("shipped").0;
        let check = |shipped: bool, src_id: u8, takes_origin: bool, named: bool| {
            let flags = RecordFlags::default().with(RecordFlags::SHIPPED, shipped);
            let record = RecordView { flags, src_id: SrcId(src_id), ..record(&bins, 2) };
            let target = Target { takes_origin, ..TARGET };
            let (bytes, _) = frame(&record, &policy(), target).expect("shipped");
            assert_eq!(bytes.len() > local.len(), named, "{shipped} {src_id} {takes_origin}");
        };
        check(true, 5, true, true);
        check(true, 5, false, false);
        check(true, 1, true, false);
        check(true, 0, true, false);
        check(false, 0, true, false);
    }

    /// What of bins i and s ships under a rule: info3, and the operations.
    fn projected(rule: BinRule, write: WritePolicy) -> Option<(u8, Vec<String>)> {
        let bins = two_bins();
        let policy = Policy { bins: rule, write, ..policy() };
        let (bytes, _) = frame(&record(&bins, 2), &policy, TARGET)?;
        let whole = frame(&record(&bins, 2), &super::tests::policy(), TARGET)?.0;
        let head_bytes = whole.len() - bins.len();
        let ops = bins::iter(&bytes[head_bytes..]).map(|bin| {
            let name = String::from_utf8_lossy(bin.name);
            format!("{name}{}", if bin.value.is_empty() { "-" } else { "" })
        });
        Some((bytes[11], ops.collect()))
    }

    #[test]
    fn bin_rules_project_and_the_write_policy_follows() {
        let but =
            |names: &[&str]| BinRule::AllBut(names.iter().map(|n| n.as_bytes().into()).collect());
        let only =
            |names: &[&str]| BinRule::Only(names.iter().map(|n| n.as_bytes().into()).collect());
        let check = |rule: BinRule, write: WritePolicy, expected: Option<(u8, &str)>| {
            let shown = format!("{rule:?} {write:?}");
            let got = projected(rule, write).map(|(info3, ops)| (info3, ops.join(",")));
            assert_eq!(got, expected.map(|(info3, ops)| (info3, ops.to_owned())), "{shown}");
        };
        use WritePolicy::{Auto, Replace, Update};
        check(but(&[]), Auto, Some((0x10, "i,s")));
        check(but(&[]), Update, Some((0, "i,s")));
        check(but(&["x"]), Auto, Some((0x10, "i,s")));
        check(but(&["s"]), Auto, Some((0, "i")));
        check(but(&["s"]), Replace, Some((0x10, "i")));
        check(but(&["i", "s"]), Auto, None);
        check(only(&["s"]), Auto, Some((0, "s")));
        check(only(&["i", "s"]), Auto, Some((0, "i,s")));
        check(only(&["s", "gone"]), Auto, Some((0, "s,gone-")));
        check(only(&["s", "gone"]), Replace, Some((0x10, "s")));
        check(only(&[]), Auto, None);
        // Nothing in place of what was there.
        for rule in [but(&["i", "s"]), only(&["gone"])] {
            let (bins, policy) = (two_bins(), Policy { bins: rule, write: Replace, ..policy() });
            let sent = frame(&record(&bins, 2), &policy, TARGET).map(|(_, sent)| sent);
            assert_eq!(sent, Some(Sent::Delete));
        }
    }

    #[test]
    fn sets_echoes_and_expunges_are_held_back_after_the_read_too() {
        let bins = two_bins();
        let live = record(&bins, 2);
        let shipped = RecordFlags::SHIPPED;
        let echo = RecordView { flags: shipped, src_id: SrcId(9), ..live };
        assert_eq!(frame(&echo, &policy(), TARGET), None);
        let other = RecordView { flags: shipped, src_id: SrcId(8), ..live };
        assert!(frame(&other, &policy(), TARGET).is_some());
        let sets = SetRule { ignore: vec!["demo".to_owned()], ..SetRule::default() };
        assert_eq!(frame(&live, &Policy { sets, ..policy() }, TARGET), None);
        let ignoring = Policy { ignore_expunges: true, ..policy() };
        let tombstone = |more: RecordFlags| RecordView {
            flags: RecordFlags::TOMBSTONE.with(more, true),
            ..record(&[], 0)
        };
        assert_eq!(frame(&tombstone(RecordFlags::default()), &ignoring, TARGET), None);
        assert!(frame(&tombstone(RecordFlags::DURABLE), &ignoring, TARGET).is_some());
        assert!(frame(&tombstone(RecordFlags::NSUP), &ignoring, TARGET).is_some());
        assert!(policy::Policy::is_echo(true, SrcId(9), SrcId(9)));
    }
}
