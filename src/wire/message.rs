//! A single-record request as a node reads it: fields, operations, and the rules they must keep.
//!
//! Source: `docs/wire.md` sections 2 to 5 and 9.1. A real server checks in a fixed order, and the
//! first failure wins, so a request is taken in four steps, between which the node puts its own
//! checks: [`Request::parse`] (body, namespace present), *is the namespace known*,
//! [`Request::target`] (digest, read or write), *may it write now*, [`Request::action`] (operation
//! list), *record located and applied*.

use crate::model::{Digest, Lut, SET_NAME_BYTES_MAX, SrcId};

use super::bits::{info1, info2, info3, info4};
use super::header::Header;
use super::ops::{OP_COUNT_MAX, Op, OpCode, Ops};
use super::{ParticleType, ResultCode, bins, fields};

/// What shape a request has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    /// One record. Holds the digest field's data, of any length until [`Request::target`].
    Single(&'a [u8]),
    /// A batch; holds its rows, empty when they are not sent.
    Batch(&'a [u8]),
    /// A scan or query: no digest.
    Scan,
}

/// What a single-record request wants, its operation list checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Generation and void time only.
    ReadMetadata,
    /// Every bin.
    ReadAll,
    /// The READ operations' bins.
    ReadBins,
    /// Apply the operations in order.
    Write,
    /// Delete the record.
    Delete,
}

/// The generation a write expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GenerationRule {
    /// Any.
    Any,
    /// Exactly this; a missing record counts as 0.
    Equal(u32),
    /// The record's must be lower than this.
    Above(u32),
}

/// A request, borrowed from its body.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The message header.
    pub header: Header,
    /// Its shape.
    pub kind: Kind<'a>,
    /// Namespace name, not looked up yet.
    pub namespace: &'a str,
    /// Set name; empty for none.
    pub set: &'a str,
    /// User key as sent (particle type byte and value), valid or not: see [`Request::check_key`].
    pub key: Option<&'a [u8]>,
    /// LUT of a shipped record.
    pub lut: Option<Lut>,
    /// Cluster of origin, from the field [`fields::SRC_ID`]; NONE when not sent.
    pub src_id: SrcId,
    /// A filter expression or clause is present: a node that cannot evaluate it must refuse.
    pub has_filter: bool,
    /// Why the fields make the request something this implementation does not do, if they do.
    pub refusal: Option<ResultCode>,
    /// The operations.
    pub ops: Ops<'a>,
}

impl Kind<'_> {
    /// The client reads replies until one that says it is the last.
    #[inline]
    pub const fn is_answered_by_many(&self) -> bool {
        matches!(self, Self::Batch(_) | Self::Scan)
    }
}

impl<'a> Request<'a> {
    /// Reads a data message. The layout of all fields and operations is checked here.
    ///
    /// # Errors
    /// PARAMETER when the body is malformed: short header, a field of length 0, items past the end,
    /// bytes left over. NAMESPACE when that field is missing.
    pub fn parse(body: &'a [u8]) -> Result<Self, ResultCode> {
        let (header, mut rest) = Header::parse(body).ok_or(ResultCode::PARAMETER)?;
        let mut seen = Seen::default();
        for _ in 0..header.field_count {
            let (field, after) = fields::split(rest).ok_or(ResultCode::PARAMETER)?;
            seen.take(field);
            rest = after;
        }
        let ops = Ops::parse(rest, header.op_count).ok_or(ResultCode::PARAMETER)?;
        let kind = if header.info[0] & info1::BATCH != 0 {
            Kind::Batch(seen.batch.unwrap_or_default())
        } else {
            seen.digest.map_or(Kind::Scan, Kind::Single)
        };
        let namespace = match (seen.namespace, kind) {
            (Some(name), _) => str::from_utf8(name).map_err(|_| ResultCode::NAMESPACE)?,
            (None, Kind::Batch(_)) => "",
            (None, _) => return Err(ResultCode::NAMESPACE),
        };
        let set = str::from_utf8(seen.set.unwrap_or_default());
        let lut = match seen.lut {
            Some(ms) if header.info[0] & info1::XDR != 0 => Some(read_lut(ms)?),
            _ => None,
        };
        Ok(Self {
            header,
            kind,
            namespace,
            set: set.map_err(|_| ResultCode::PARAMETER)?,
            key: seen.key,
            lut,
            src_id: seen.src_id,
            has_filter: seen.has_filter,
            refusal: seen.refusal,
            ops,
        })
    }

    /// The record a single-record request is about.
    ///
    /// # Errors
    /// PARAMETER when the digest is not 20 bytes long, or the request neither reads nor writes.
    /// What this implementation does not do is refused here too: UNSUPPORTED_FEATURE for batches,
    /// scans, functions and transactions, INDEX_NOT_FOUND for secondary-index queries.
    pub fn target(&self) -> Result<Digest, ResultCode> {
        if let Some(code) = self.refusal {
            return Err(code);
        }
        let Kind::Single(digest) = self.kind else { return Err(ResultCode::UNSUPPORTED_FEATURE) };
        let digest = digest.try_into().map_err(|_| ResultCode::PARAMETER)?;
        if self.header.info[0] & info1::READ == 0 && !self.is_write() {
            return Err(ResultCode::PARAMETER);
        }
        if self.header.info[3] & info4::TRANSACTION != 0 {
            return Err(ResultCode::UNSUPPORTED_FEATURE);
        }
        Ok(Digest(digest))
    }

    /// Checks the operation list.
    ///
    /// # Errors
    /// BIN_NAME for a name over 15 bytes or with NUL; UNSUPPORTED_FEATURE for list, map, bit,
    /// HyperLogLog, expression and string operations; PARAMETER for unknown codes and for every
    /// violation of the mixing rules (`docs/wire.md` sections 3 and 5.2).
    pub fn action(&self) -> Result<Action, ResultCode> {
        match (self.is_write(), self.is_delete()) {
            (true, true) if self.header.op_count == 0 => Ok(Action::Delete),
            (true, true) => Err(ResultCode::PARAMETER),
            (true, false) => self.check_write_ops().map(|()| Action::Write),
            (false, _) => self.check_read_ops(),
        }
    }

    fn check_read_ops(&self) -> Result<Action, ResultCode> {
        if self.header.info[0] & info1::NO_BINS != 0 {
            return Ok(Action::ReadMetadata); // one client adds an empty READ: it means nothing
        }
        if self.header.info[0] & info1::GET_ALL != 0 {
            return Ok(Action::ReadAll);
        }
        self.check_op_count()?;
        for op in self.ops {
            check_name(&op)?;
            match op.code {
                OpCode::READ => {}
                code if code.is_refused() => return Err(ResultCode::UNSUPPORTED_FEATURE),
                _ => return Err(ResultCode::PARAMETER),
            }
        }
        Ok(Action::ReadBins)
    }

    fn check_write_ops(&self) -> Result<(), ResultCode> {
        self.check_op_count()?;
        if self.set.len() > SET_NAME_BYTES_MAX {
            return Err(ResultCode::PARAMETER);
        }
        let reads_allowed = self.header.info[0] & info1::READ != 0;
        let get_all = self.header.info[0] & info1::GET_ALL != 0;
        let (mut reads, mut read_alls) = (0_u32, 0_u32);
        for op in self.ops {
            check_name(&op)?;
            let fits_replace = match op.code {
                OpCode::READ if !reads_allowed => return Err(ResultCode::PARAMETER),
                OpCode::READ => {
                    reads += 1;
                    read_alls += u32::from(get_all && op.name.is_empty());
                    true
                }
                OpCode::WRITE => op.particle != ParticleType::NULL,
                OpCode::INCR | OpCode::APPEND | OpCode::PREPEND => false,
                OpCode::TOUCH | OpCode::DELETE_ALL => false,
                code if code.is_refused() => return Err(ResultCode::UNSUPPORTED_FEATURE),
                _ => return Err(ResultCode::PARAMETER),
            };
            if self.is_replace() && !fits_replace {
                return Err(ResultCode::PARAMETER);
            }
        }
        // With GET_ALL, exactly one read-all, nothing else that answers, and no reply per op.
        if get_all && (read_alls != 1 || reads != 1 || self.responds_to_all()) {
            return Err(ResultCode::PARAMETER);
        }
        Ok(())
    }

    fn check_op_count(&self) -> Result<(), ResultCode> {
        match self.header.op_count {
            1..=OP_COUNT_MAX => Ok(()),
            _ => Err(ResultCode::PARAMETER),
        }
    }

    /// Checks the user key's form; an absent key is fine.
    ///
    /// # Errors
    /// UNSUPPORTED_FEATURE when the field is empty, or an integer key is not 8 bytes long. A real
    /// server finds this out only after it located the record.
    pub fn check_key(&self) -> Result<(), ResultCode> {
        match self.key {
            Some([] | [1]) => Err(ResultCode::UNSUPPORTED_FEATURE),
            Some([1, value @ ..]) if value.len() != 8 => Err(ResultCode::UNSUPPORTED_FEATURE),
            _ => Ok(()),
        }
    }

    /// The whole operation list when it can be stored as a record's bins just as it is: WRITEs of
    /// valid values in canonical form under distinct names. `None` when it must be rebuilt.
    ///
    /// This is the path of shipped and of ordinary whole-record writes: no per-bin copy.
    ///
    /// # Errors
    /// As [`super::particle::check`] for the first bad value.
    pub fn verbatim_bins(&self) -> Result<Option<&'a [u8]>, ResultCode> {
        bins::verbatim(self.ops)
    }

    /// The request wants something back.
    #[inline]
    pub const fn reads(&self) -> bool {
        self.header.info[0] & info1::READ != 0
    }

    /// The request takes the write path.
    #[inline]
    pub const fn is_write(&self) -> bool {
        self.header.info[1] & info2::WRITE != 0
    }

    /// The write is the deletion of the record.
    #[inline]
    pub const fn is_delete(&self) -> bool {
        self.header.info[1] & info2::DELETE != 0
    }

    /// The write comes from a shipper.
    #[inline]
    pub const fn is_shipped(&self) -> bool {
        self.header.info[0] & info1::XDR != 0
    }

    /// All old bins are dropped first.
    #[inline]
    pub const fn is_replace(&self) -> bool {
        self.header.info[2] & (info3::CREATE_OR_REPLACE | info3::REPLACE_ONLY) != 0
    }

    /// The record must exist.
    #[inline]
    pub const fn is_update_only(&self) -> bool {
        self.header.info[2] & (info3::UPDATE_ONLY | info3::REPLACE_ONLY) != 0
    }

    /// The record must not exist.
    #[inline]
    pub const fn is_create_only(&self) -> bool {
        self.header.info[1] & info2::CREATE_ONLY != 0
    }

    /// A deletion leaves a tombstone.
    #[inline]
    pub const fn is_durable_delete(&self) -> bool {
        self.header.info[1] & info2::DURABLE_DELETE != 0
    }

    /// Every operation but TOUCH yields one reply operation.
    #[inline]
    pub const fn responds_to_all(&self) -> bool {
        self.header.info[1] & info2::RESPOND_ALL_OPS != 0
    }

    /// A write that also wants every bin back where its empty READ stands.
    #[inline]
    pub const fn reads_all(&self) -> bool {
        self.header.info[0] & info1::GET_ALL != 0
    }

    /// The generation the record must have.
    #[inline]
    pub const fn generation_rule(&self) -> GenerationRule {
        match self.header.info[1] & (info2::GENERATION | info2::GENERATION_GT) {
            0 => GenerationRule::Any,
            info2::GENERATION_GT => GenerationRule::Above(self.header.generation),
            _ => GenerationRule::Equal(self.header.generation),
        }
    }
}

/// The namespace and digest a message names, if it names both: a glance ahead that judges nothing.
#[inline]
pub fn glance(body: &[u8]) -> Option<(&[u8], Digest)> {
    let (header, mut rest) = Header::parse(body)?;
    let mut namespace = None;
    for _ in 0..header.field_count {
        let (field, after) = fields::split(rest)?;
        match field.id {
            fields::NAMESPACE => namespace = Some(field.data),
            fields::DIGEST if namespace.is_some() => {
                return Some((namespace?, Digest(field.data.try_into().ok()?)));
            }
            _ => {}
        }
        rest = after;
    }
    None
}

/// The fields of a request; of repeated ones the first counts.
#[derive(Default)]
struct Seen<'a> {
    namespace: Option<&'a [u8]>,
    set: Option<&'a [u8]>,
    key: Option<&'a [u8]>,
    digest: Option<&'a [u8]>,
    batch: Option<&'a [u8]>,
    lut: Option<&'a [u8]>,
    src_id: SrcId,
    has_filter: bool,
    refusal: Option<ResultCode>,
}

impl<'a> Seen<'a> {
    #[inline]
    fn take(&mut self, field: fields::Field<'a>) {
        let slot = match field.id {
            fields::NAMESPACE => &mut self.namespace,
            fields::SET => &mut self.set,
            fields::KEY => &mut self.key,
            fields::DIGEST => &mut self.digest,
            fields::BATCH | fields::BATCH_WITH_SET => &mut self.batch,
            fields::LUT => &mut self.lut,
            fields::SRC_ID => {
                self.src_id = SrcId(field.data.first().copied().unwrap_or_default());
                return;
            }
            fields::FILTER | fields::WHERE => {
                self.has_filter = true;
                return;
            }
            fields::INDEX_NAME => return self.refuse(ResultCode::INDEX_NOT_FOUND),
            fields::TRANSACTION | fields::UDF_FILE..=fields::UDF_OP => {
                return self.refuse(ResultCode::UNSUPPORTED_FEATURE);
            }
            _ => return,
        };
        slot.get_or_insert(field.data);
    }

    fn refuse(&mut self, code: ResultCode) {
        self.refusal.get_or_insert(code);
    }
}

fn read_lut(data: &[u8]) -> Result<Lut, ResultCode> {
    let ms = data.try_into().map_err(|_| ResultCode::PARAMETER)?;
    Ok(Lut::from_ms(u64::from_be_bytes(ms)))
}

#[inline]
fn check_name(op: &Op<'_>) -> Result<(), ResultCode> {
    if bins::name_is_valid(op.name) { Ok(()) } else { Err(ResultCode::BIN_NAME) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ops;
    use crate::wire::request::Address;

    const KEY: [u8; 20] = [7; 20];

    /// A message body from its parts; every field as (id, data).
    fn body(info: [u8; 4], fields: &[(u8, &[u8])], ops: &[Vec<u8>]) -> Vec<u8> {
        let mut header = [0; 22];
        header[0] = 22;
        header[1..5].copy_from_slice(&info);
        header[19] = fields.len() as u8;
        header[20..22].copy_from_slice(&(ops.len() as u16).to_be_bytes());
        let mut out = header.to_vec();
        fields.iter().for_each(|(id, data)| fields::push(&mut out, *id, data));
        ops.iter().for_each(|op| out.extend_from_slice(op));
        out
    }

    fn op(code: u8, particle: u8, name: &str, value: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        ops::push(&mut out, OpCode(code), ParticleType(particle), name.as_bytes(), value);
        out
    }

    /// What a node would answer before it looks at the record, or what it would go on to do.
    fn judge(body: &[u8]) -> Result<Action, ResultCode> {
        let request = Request::parse(body)?;
        request.target()?;
        request.action()
    }

    #[test]
    fn malformed_bodies_get_a_parameter_error() {
        let good = body([1, 0, 0, 0], &[(0, b"test"), (4, &KEY)], &[op(1, 0, "a", b"")]);
        assert_eq!(judge(&good), Ok(Action::ReadBins));
        for cut in 0..good.len() {
            assert_eq!(judge(&good[..cut]), Err(ResultCode::PARAMETER), "cut to {cut}");
        }
        let longer = [&good[..], &[0]].concat();
        assert_eq!(judge(&longer), Err(ResultCode::PARAMETER));
        let mut empty_field = good.clone();
        empty_field[25] = 0;
        assert_eq!(judge(&empty_field), Err(ResultCode::PARAMETER));
        let mut other_size = good;
        other_size[0] = 30;
        assert_eq!(judge(&other_size), Ok(Action::ReadBins));
    }

    #[test]
    fn fields_decide_what_a_request_is() {
        let check =
            |info: [u8; 4], fields: &[(u8, &[u8])], expected: Result<Action, ResultCode>| {
                assert_eq!(judge(&body(info, fields, &[])), expected, "{info:x?} {fields:x?}");
            };
        let get = [3, 0, 0, 0];
        let refused = Err(ResultCode::UNSUPPORTED_FEATURE);
        check(get, &[(0, b"test"), (4, &KEY)], Ok(Action::ReadAll));
        check(get, &[(4, &KEY)], Err(ResultCode::NAMESPACE));
        check(get, &[(0, b"\xff"), (4, &KEY)], Err(ResultCode::NAMESPACE));
        check(get, &[(0, b"test"), (1, b"\xff"), (4, &KEY)], Err(ResultCode::PARAMETER));
        check(get, &[(0, b"test"), (4, &KEY[..19])], Err(ResultCode::PARAMETER));
        check(get, &[(0, b"test"), (4, &[0; 21])], Err(ResultCode::PARAMETER));
        check(get, &[(0, b"test"), (4, b"")], Err(ResultCode::PARAMETER));
        for unknown in [3, 44 + 1, 200, 255] {
            check(get, &[(unknown, b"x"), (4, &KEY), (0, b"test")], Ok(Action::ReadAll));
        }
        check([0; 4], &[(0, b"test"), (4, &KEY)], Err(ResultCode::PARAMETER));
        check([0, 2, 0, 0], &[(0, b"test"), (4, &KEY)], Err(ResultCode::PARAMETER));
        check(get, &[(0, b"test")], refused);
        check(get, &[(0, b"test"), (22, b"i")], Err(ResultCode::INDEX_NOT_FOUND));
        check([0, 1, 0, 0], &[(0, b"test"), (4, &KEY), (30, b"f")], refused);
        check(get, &[(0, b"test"), (4, &KEY), (5, &[0; 8])], refused);
        check([3, 0, 0, 1], &[(0, b"test"), (4, &KEY)], refused);
        check([3, 0, 0, 0x60], &[(0, b"test"), (4, &KEY)], Ok(Action::ReadAll));
        check([8, 0, 0, 0], &[(41, b"rows")], refused);
        check([8, 0, 0, 0], &[(0, b"test")], refused);
    }

    #[test]
    fn fields_reach_the_request() {
        let fields: &[(u8, &[u8])] = &[
            (0, b"test"),
            (1, b"demo"),
            (4, &KEY),
            (2, b"\x03user1"),
            (14, &[0, 0, 0, 0x7c, 0x19, 0x7a, 0x23, 0x84]),
            (fields::SRC_ID, &[9]),
            (43, b"\x93\x01"),
            (0, b"later"),
        ];
        let shipped = body([0x10, 3, 0, 0], fields, &[]);
        let request = Request::parse(&shipped).unwrap();
        assert_eq!((request.namespace, request.set), ("test", "demo"));
        assert_eq!((request.key, request.src_id), (Some(&b"\x03user1"[..]), SrcId(9)));
        assert_eq!(request.lut, Some(Lut::from_ms(533_003_379_588)));
        assert!(request.has_filter && request.is_shipped() && request.is_write());
        assert_eq!(request.target(), Ok(Digest(KEY)));
        let own = body([0, 3, 0, 0], fields, &[]);
        assert_eq!(
            Request::parse(&own).unwrap().lut,
            None,
            "the LUT counts on shipped writes only"
        );
        let batch = body([8, 0, 0, 0], &[(42, b"rows")], &[]);
        assert_eq!(Request::parse(&batch).unwrap().kind, Kind::Batch(b"rows"));
    }

    #[test]
    fn a_glance_names_the_record_of_whole_and_of_cut_messages() {
        let good = body([0, 3, 0, 0], &[(0, b"test"), (1, b"set"), (4, &KEY)], &[]);
        assert_eq!(glance(&good), Some((&b"test"[..], Digest(KEY))));
        for cut in 0..good.len() {
            assert_eq!(glance(&good[..cut]), None, "cut to {cut}");
        }
        assert_eq!(glance(&body([0, 3, 0, 0], &[(0, b"test")], &[])), None);
        assert_eq!(glance(&body([0, 3, 0, 0], &[(0, b"test"), (4, &KEY[1..])], &[])), None);
    }

    #[test]
    fn operation_lists_keep_the_mixing_rules() {
        let check = |info: [u8; 3], ops: &[Vec<u8>], expected: Result<Action, ResultCode>| {
            let info = [info[0], info[1], info[2], 0];
            let body = body(info, &[(0, b"test"), (4, &KEY)], ops);
            assert_eq!(judge(&body), expected, "{info:x?} {ops:x?}");
        };
        let bad = Err(ResultCode::PARAMETER);
        let (read, write) = (op(1, 0, "a", b""), op(2, 3, "a", b"x"));
        let (read_all, null) = (op(1, 0, "", b""), op(2, 0, "a", b""));
        let (incr, append) = (op(5, 1, "a", &[0; 8]), op(9, 3, "a", b"x"));
        let (prepend, touch) = (op(10, 3, "a", b"x"), op(11, 0, "", b""));
        let delete_all = op(14, 0, "", b"");

        // Reads.
        check([0x01, 0, 0], std::slice::from_ref(&read), Ok(Action::ReadBins));
        check([0x01, 0, 0], &[], bad);
        check([0x03, 0, 0], std::slice::from_ref(&read_all), Ok(Action::ReadAll));
        check([0x21, 0, 0], &[], Ok(Action::ReadMetadata));
        check([0x21, 0, 0], std::slice::from_ref(&read_all), Ok(Action::ReadMetadata));
        check([0x01, 0, 0], std::slice::from_ref(&write), bad);
        check([0x01, 0, 0], &[op(3, 4, "a", b"\x91\x01")], Err(ResultCode::UNSUPPORTED_FEATURE));
        check([0x01, 0, 0], &[op(1, 0, "sixteen-bytes-xx", b"")], Err(ResultCode::BIN_NAME));

        // Writes: each code alone, with and without replace.
        let each = [(&write, true), (&null, false), (&incr, false), (&append, false)];
        let others = [(&prepend, false), (&touch, false), (&delete_all, false)];
        for (op, fits_replace) in each.into_iter().chain(others) {
            check([0, 1, 0], std::slice::from_ref(op), Ok(Action::Write));
            let expected = if fits_replace { Ok(Action::Write) } else { bad };
            check([0, 1, 0x10], std::slice::from_ref(op), expected);
            check([0x10, 1, 0x20], std::slice::from_ref(op), expected);
        }
        check([0, 1, 0], &[], bad);
        check([0, 1, 0], &[op(2, 3, "a\0b", b"")], Err(ResultCode::BIN_NAME));
        for unknown in [0, 6, 20, 255] {
            check([0, 1, 0], &[op(unknown, 3, "a", b"")], bad);
        }
        for refused in [3, 4, 7, 8, 12, 13, 15, 16, 17, 18, 19] {
            let expected = Err(ResultCode::UNSUPPORTED_FEATURE);
            check([1, 1, 0], &[op(refused, 4, "a", b"")], expected);
        }

        // Reads inside writes.
        check([0x00, 1, 0], &[write.clone(), read.clone()], bad);
        check([0x01, 1, 0], &[write.clone(), read.clone()], Ok(Action::Write));
        check([0x01, 0x81, 0], &[write.clone(), read.clone(), touch], Ok(Action::Write));
        check([0x03, 1, 0], &[write.clone(), read_all.clone()], Ok(Action::Write));
        check([0x03, 0x81, 0], &[write.clone(), read_all.clone()], bad);
        check([0x03, 1, 0], &[read_all.clone(), write.clone(), read_all.clone()], bad);
        check([0x03, 1, 0], &[write.clone(), read_all.clone(), read], bad);
        check([0x03, 1, 0], std::slice::from_ref(&write), bad);
        check([0x01, 1, 0], &[write.clone(), read_all], Ok(Action::Write));

        // Deletes.
        check([0, 3, 0], &[], Ok(Action::Delete));
        check([0x10, 0x13, 0], &[], Ok(Action::Delete));
        check([0, 3, 0], &[write], bad);
    }

    #[test]
    fn too_many_operations_are_refused() {
        let op = op(2, 0, "a", b"");
        let with =
            |count: usize| body([0, 1, 0, 0], &[(0, b"t"), (4, &KEY)], &vec![op.clone(); count]);
        assert_eq!(judge(&with(32_768)), Ok(Action::Write));
        assert_eq!(judge(&with(32_769)), Err(ResultCode::PARAMETER));
    }

    #[test]
    fn a_long_set_is_refused_on_writes_only() {
        let check = |info1: u8, info2: u8, bytes: usize, expected: Result<Action, ResultCode>| {
            let set = "s".repeat(bytes);
            let fields: &[(u8, &[u8])] = &[(0, b"test"), (1, set.as_bytes()), (4, &KEY)];
            let ops = [op(if info2 == 0 { 1 } else { 2 }, 3, "a", b"")];
            assert_eq!(judge(&body([info1, info2, 0, 0], fields, &ops)), expected);
        };
        check(0, 1, 63, Ok(Action::Write));
        check(0, 1, 64, Err(ResultCode::PARAMETER));
        check(1, 0, 64, Ok(Action::ReadBins));
    }

    #[test]
    fn user_keys_have_a_type_and_a_fitting_length() {
        let check = |key: Option<&[u8]>, expected: Result<(), ResultCode>| {
            let mut fields: Vec<(u8, &[u8])> = vec![(0, b"test"), (4, &KEY)];
            fields.extend(key.map(|key| (2, key)));
            let body = body([3, 0, 0, 0], &fields, &[]);
            assert_eq!(Request::parse(&body).unwrap().check_key(), expected, "{key:?}");
        };
        let bad = Err(ResultCode::UNSUPPORTED_FEATURE);
        check(None, Ok(()));
        check(Some(b"\x03user1"), Ok(()));
        check(Some(b"\x03"), Ok(()));
        check(Some(&[1, 0, 0, 0, 0, 0, 0, 0, 42]), Ok(()));
        check(Some(b""), bad);
        check(Some(&[1]), bad);
        check(Some(&[1, 0, 0, 0, 42]), bad);
    }

    #[test]
    fn header_bits_become_rules() {
        let address = Address { namespace: "test", set: "", digest: Digest(KEY) };
        let with = |info2: u8, info3: u8| {
            let mut head = address.put();
            (head.info[1], head.info[2], head.generation) = (info2, info3, 5);
            let mut frame = Vec::new();
            head.push(0, &[], &mut frame);
            let request = Request::parse(&frame[8..]).unwrap();
            let exists = (request.is_create_only(), request.is_update_only(), request.is_replace());
            (request.generation_rule(), exists)
        };
        let none = (false, false, false);
        assert_eq!(with(0x01, 0x00), (GenerationRule::Any, none));
        assert_eq!(with(0x05, 0x00), (GenerationRule::Equal(5), none));
        assert_eq!(with(0x09, 0x00), (GenerationRule::Above(5), none));
        assert_eq!(with(0x0d, 0x00), (GenerationRule::Equal(5), none));
        assert_eq!(with(0x21, 0x00), (GenerationRule::Any, (true, false, false)));
        assert_eq!(with(0x01, 0x08), (GenerationRule::Any, (false, true, false)));
        assert_eq!(with(0x01, 0x10), (GenerationRule::Any, (false, false, true)));
        assert_eq!(with(0x01, 0x20), (GenerationRule::Any, (false, true, true)));
    }
}
