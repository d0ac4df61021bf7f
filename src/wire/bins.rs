//! A record's bins at rest: WRITE operations in wire form, canonical and back to back.
//!
//! Canonical means: op code WRITE, no bin LUT, integers 8 bytes long, no NULL, valid values,
//! distinct names of at most 15 bytes. Everything that writes bins goes through here, so whoever
//! reads them (replies, shipping) copies without looking. Layout: [`crate::model::RecordView`].

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};

use crate::model::{BIN_NAME_BYTES_MAX, fold};
use longship_rt::random::random_u64;

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
    /// Where each bin begins.
    by_name: Option<HashMap<&'a [u8], u32, NameHash>>,
    /// Bins that are not in the table yet.
    rest: Bins<'a>,
}

impl<'a> Lookup<'a> {
    /// For about `lookups` lookups among `bin_count` bins. The table, if one is worth it, is to be
    /// filled: see [`Lookup::fill`].
    pub fn new(bins: &'a [u8], bin_count: u16, lookups: u16) -> Self {
        let is_large = usize::from(bin_count) * usize::from(lookups) > SCAN_MAX;
        let by_name = is_large
            .then(|| HashMap::with_capacity_and_hasher(bin_count.into(), NameHash::default()));
        Self { bins, rest: iter(if is_large { bins } else { &[] }), by_name }
    }

    /// Puts up to `count` more bins into the table; true when all are there.
    pub fn fill(&mut self, count: usize) -> bool {
        let Some(by_name) = &mut self.by_name else { return true };
        for _ in 0..count {
            let at = self.bins.len() - self.rest.rest().len();
            let Some(bin) = self.rest.next() else { return true };
            by_name.insert(bin.name, at as u32);
        }
        false
    }

    /// The bin of that name.
    #[inline]
    pub fn find(&self, name: &[u8]) -> Option<Bin<'a>> {
        match &self.by_name {
            None => find(self.bins, name),
            Some(by_name) => iter(&self.bins[*by_name.get(name)? as usize..]).next(),
        }
    }
}

/// Hashes bin names, which clients choose, under a random key: a few instructions each, where the
/// standard library's hash takes longer than what else is done with a bin.
#[derive(Clone, Copy, Debug)]
pub struct NameHash {
    key: u64,
}

impl Default for NameHash {
    /// Under a key of its own.
    fn default() -> Self {
        Self { key: random_u64() }
    }
}

impl BuildHasher for NameHash {
    type Hasher = NameHasher;

    #[inline]
    fn build_hasher(&self) -> NameHasher {
        NameHasher(self.key)
    }
}

/// The hash of one name.
#[derive(Clone, Copy, Debug)]
pub struct NameHasher(u64);

impl NameHasher {
    /// Any odd number without a pattern: the golden ratio's.
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

    #[inline]
    fn mix(&mut self, low: u64, high: u64) {
        let (low, high) = (low ^ self.0, high ^ self.0.rotate_left(32) ^ Self::STEP);
        self.0 = self.0.wrapping_mul(Self::STEP) ^ fold(low, high);
    }
}

impl Hasher for NameHasher {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(16) {
            let mut name = [0; 16];
            name[..piece.len()].copy_from_slice(piece);
            let name = u128::from_le_bytes(name);
            self.mix(name as u64, (name >> 64) as u64);
        }
    }

    /// The length, which stands before a name.
    #[inline]
    fn write_usize(&mut self, number: usize) {
        self.0 = self.0.wrapping_add(number as u64);
    }

    /// Mixed once more: under some keys names that are alike differ in few bits before.
    #[inline]
    fn finish(&self) -> u64 {
        fold(self.0, Self::STEP)
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
        let (scan, mut table) = (Lookup::new(&bytes, 100, 1), Lookup::new(&bytes, 100, 1000));
        while !table.fill(7) {}
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
        let mut bins = Lookup::new(&bytes, 32_767, 32_768);
        assert!(bins.fill(usize::MAX));
        let begin = std::time::Instant::now();
        assert!((0..32_768_u32).all(|_| bins.find(b"absent").is_none()));
        assert!(begin.elapsed().as_secs() < 20, "a scan for each takes minutes here");
    }

    #[test]
    fn names_are_spread_whatever_they_have_in_common_and_otherwise_under_another_key() {
        let hash = NameHash::default();
        let hashes: Vec<NameHash> = (0..9).map(|_| NameHash::default()).collect();
        let names: Vec<String> = (0..10_000).map(|n| format!("{n:x}")).collect();
        let spread = |bits: u64, hash: NameHash| {
            let of = |name: &String| hash.hash_one(name.as_bytes()) >> bits & 0x7fff;
            names.iter().map(of).collect::<std::collections::HashSet<_>>().len()
        };
        for bits in [0, 17, 49] {
            // 10,000 balls in 32,768 boxes leave 8,619 boxes that are not empty.
            let spreads: Vec<usize> = hashes.iter().map(|hash| spread(bits, *hash)).collect();
            assert!(spreads.iter().all(|&spread| spread > 8000), "{spreads:?}");
        }
        assert_ne!(hash.hash_one(&b"a"[..]), NameHash::default().hash_one(&b"a"[..]));
        assert_ne!(hash.hash_one(&b"a"[..]), hash.hash_one(&b"a\0"[..]));
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
