//! A single-record request as a node reads it: fields, operations, and the rules they must keep.
//!
//! Source: wire reference sections 2 to 5 and 9.1. A real server checks in a fixed order, and the
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
    /// A batch; holds its rows.
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
            Kind::Batch(seen.batch.ok_or(ResultCode::PARAMETER)?)
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
    /// violation of the mixing rules (wire reference sections 3 and 5.2).
    pub fn action(&self) -> Result<Action, ResultCode> {
        match (self.is_write(), self.header.info[1] & info2::DELETE != 0) {
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

    /// The request takes the write path.
    #[inline]
    pub const fn is_write(&self) -> bool {
        self.header.info[1] & info2::WRITE != 0
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
