//! A record's bins at rest: WRITE operations in wire form, canonical and back to back.
//!
//! Canonical means: op code WRITE, no bin LUT, integers 8 bytes long, no NULL, valid values,
//! distinct names of at most 15 bytes. Everything that writes bins goes through here, so whoever
//! reads them (replies, shipping) copies without looking. Layout: [`crate::model::RecordView`].

use std::collections::HashMap;

use crate::model::BIN_NAME_BYTES_MAX;

use super::particle::{self, Canonical};
use super::{OpCode, Ops, ParticleType, ResultCode, ops};

/// Up to this many operations their names are compared pair by pair.
const VERBATIM_OPS_MAX: usize = 32;

/// One bin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bin<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// Type of its value.
    pub particle: ParticleType,
    /// Its value in wire form.
    pub value: &'a [u8],
    /// The whole operation that holds it.
    pub whole: &'a [u8],
}

/// The bins of a record, in stored order.
#[derive(Clone, Debug)]
pub struct Bins<'a> {
    rest: &'a [u8],
}

impl<'a> Bins<'a> {
    /// What has not been given yet. Not empty after the last bin: the bytes are damaged from here.
    #[inline]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Bins<'a> {
    type Item = Bin<'a>;

    #[inline]
    fn next(&mut self) -> Option<Bin<'a>> {
        let (op, rest) = ops::split(self.rest)?;
        self.rest = rest;
        Some(Bin { name: op.name, particle: op.particle, value: op.value, whole: op.whole })
    }
}

/// Goes through the bins of a record; ends early at damaged bytes.
#[inline]
pub const fn iter(bins: &[u8]) -> Bins<'_> {
    Bins { rest: bins }
}

/// The bin of that name.
pub fn find<'a>(bins: &'a [u8], name: &[u8]) -> Option<Bin<'a>> {
    iter(bins).find(|bin| bin.name == name)
}

/// Bins times lookups up to which they are scanned once for each lookup.
const SCAN_MAX: usize = 4096;

/// The bins of a record, to be found by name again and again: with a table once a scan for each
/// would cost more. Requests choose both numbers; 32,767 bins scanned 32,768 times take seconds.
#[derive(Debug)]
pub struct Lookup<'a> {
    bins: &'a [u8],
    by_name: Option<HashMap<&'a [u8], Bin<'a>>>,
}

impl<'a> Lookup<'a> {
    /// For about `lookups` lookups among `bin_count` bins.
    pub fn new(bins: &'a [u8], bin_count: u16, lookups: u16) -> Self {
        let is_large = usize::from(bin_count) * usize::from(lookups) > SCAN_MAX;
        let by_name = is_large.then(|| iter(bins).map(|bin| (bin.name, bin)).collect());
        Self { bins, by_name }
    }

    /// The bin of that name.
    #[inline]
    pub fn find(&self, name: &[u8]) -> Option<Bin<'a>> {
        match &self.by_name {
            None => find(self.bins, name),
            Some(by_name) => by_name.get(name).copied(),
        }
    }
}

/// Whether a bin may have this name: at most 15 bytes, none of them NUL.
#[inline]
pub fn name_is_valid(name: &[u8]) -> bool {
    name.len() <= BIN_NAME_BYTES_MAX && !name.contains(&0)
}

/// Appends a bin whose value is known to be valid and canonical.
#[inline]
pub fn push(out: &mut Vec<u8>, name: &[u8], particle: ParticleType, value: &[u8]) {
    ops::push(out, OpCode::WRITE, particle, name, value);
}

/// Checks a client's value and appends it as a bin in canonical form.
///
/// # Errors
/// As [`particle::check`]; nothing is appended then. NULL is no value: PARAMETER.
pub fn push_checked(
    out: &mut Vec<u8>,
    name: &[u8],
    particle: ParticleType,
    value: &[u8],
) -> Result<(), ResultCode> {
    match particle::check(particle, value)? {
        Canonical::AsSent => push(out, name, particle, value),
        Canonical::Widened(value) => push(out, name, particle, &value),
        Canonical::Null => return Err(ResultCode::PARAMETER),
    }
    Ok(())
}

/// The operations' bytes if they are canonical bins as they stand; `None` if they must be rebuilt.
///
/// # Errors
/// As [`particle::check`] for the first bad value.
pub fn verbatim(ops: Ops<'_>) -> Result<Option<&[u8]>, ResultCode> {
    for (index, op) in ops.enumerate() {
        let plain = op.code == OpCode::WRITE && op.whole[6] == 0;
        if !plain || index >= VERBATIM_OPS_MAX {
            return Ok(None);
        }
        if particle::check(op.particle, op.value)? != Canonical::AsSent {
            return Ok(None);
        }
        if ops.take(index).any(|earlier| earlier.name == op.name) {
            return Ok(None);
        }
    }
    Ok(Some(ops.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(code: OpCode, particle: ParticleType, name: &str, value: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        ops::push(&mut out, code, particle, name.as_bytes(), value);
        out
    }

    #[test]
    fn bins_are_given_in_order_and_damage_shows() {
        let mut bytes = Vec::new();
        push(&mut bytes, b"i", ParticleType::INTEGER, &7_i64.to_be_bytes());
        push(&mut bytes, b"s", ParticleType::STRING, b"hi");
        let names: Vec<_> = iter(&bytes).map(|bin| (bin.name, bin.value.len())).collect();
        assert_eq!(names, [(&b"i"[..], 8), (b"s", 2)]);
        assert_eq!(find(&bytes, b"s").unwrap().value, b"hi");
        assert_eq!(find(&bytes, b"x"), None);
        let mut cut = iter(&bytes[..bytes.len() - 1]);
        assert_eq!(cut.by_ref().count(), 1);
        assert_eq!(cut.rest().len(), 10);
    }

    #[test]
    fn a_table_finds_what_a_scan_finds() {
        let mut bytes = Vec::new();
        let name = |n: u32| n.to_be_bytes();
        (0..100).for_each(|n| push(&mut bytes, &name(n), ParticleType::BLOB, &name(n)));
        let (scan, table) = (Lookup::new(&bytes, 100, 1), Lookup::new(&bytes, 100, 1000));
        assert!(scan.by_name.is_none() && table.by_name.is_some());
        for n in 0..101 {
            assert_eq!(scan.find(&name(n)), table.find(&name(n)));
            assert_eq!(table.find(&name(n)).is_some(), n < 100);
        }
    }

    #[test]
    fn the_largest_read_of_the_largest_record_looks_at_each_bin_a_few_times() {
        let mut bytes = Vec::new();
        let name = |n: u16| n.to_be_bytes();
        (0..32_767).for_each(|n| push(&mut bytes, &name(n), ParticleType::BLOB, &[]));
        let bins = Lookup::new(&bytes, 32_767, 32_768);
        let begin = std::time::Instant::now();
        assert!((0..32_768_u32).all(|_| bins.find(b"absent").is_none()));
        assert!(begin.elapsed().as_millis() < 2000, "a scan for each takes minutes here");
    }

    #[test]
    fn only_plain_canonical_writes_are_kept_verbatim() {
        let write = |particle, name, value: &[u8]| op(OpCode::WRITE, particle, name, value);
        let seven = 7_i64.to_be_bytes();
        let string = write(ParticleType::STRING, "s", b"hi");
        let mut flagged = string.clone();
        flagged[6] = 2;
        let check = |parts: &[&[u8]], expected: Result<bool, ResultCode>| {
            let bytes = parts.concat();
            let ops = Ops::parse(&bytes, parts.len() as u16).unwrap();
            let kept = verbatim(ops).map(|kept| kept.map(<[u8]>::len));
            assert_eq!(kept, expected.map(|kept| kept.then_some(bytes.len())), "{parts:02x?}");
        };
        check(&[&string], Ok(true));
        check(&[&write(ParticleType::INTEGER, "i", &seven), &string], Ok(true));
        check(&[&string, &string], Ok(false));
        check(&[&flagged], Ok(false));
        check(&[&write(ParticleType::INTEGER, "i", &[7])], Ok(false));
        check(&[&write(ParticleType::NULL, "s", b"")], Ok(false));
        check(&[&op(OpCode::APPEND, ParticleType::STRING, "s", b"x")], Ok(false));
        check(&[&op(OpCode::READ, ParticleType::NULL, "s", b"")], Ok(false));
        check(&[&write(ParticleType::BOOL, "b", &[2])], Err(ResultCode::PARAMETER));
        check(&[&write(ParticleType::LIST, "l", &[0x92, 1])], Err(ResultCode::SERVER));
    }

    #[test]
    fn a_checked_bin_is_written_in_canonical_form() {
        let mut out = Vec::new();
        push_checked(&mut out, b"i", ParticleType::INTEGER, &[0xff]).unwrap();
        assert_eq!(find(&out, b"i").unwrap().value, 255_i64.to_be_bytes());
        let before = out.clone();
        let bad = push_checked(&mut out, b"f", ParticleType::FLOAT, &[1, 2]);
        assert_eq!((bad, &out), (Err(ResultCode::PARAMETER), &before));
        let null = push_checked(&mut out, b"n", ParticleType::NULL, b"");
        assert_eq!((null, &out), (Err(ResultCode::PARAMETER), &before));
    }

    #[test]
    fn bin_names_have_fifteen_bytes_and_no_nul() {
        let check = |name: &[u8], valid: bool| assert_eq!(name_is_valid(name), valid, "{name:?}");
        check(b"", true);
        check(b"fifteen-bytes-x", true);
        check(b"sixteen-bytes-xx", false);
        check(b"a\0b", false);
    }
}
