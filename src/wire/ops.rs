//! The operations of a message.
//!
//! | off | size | content |
//! |---|---|---|
//! | 0 | 4 | size: bytes after this word, big-endian |
//! | 4 | 1 | op code |
//! | 5 | 1 | particle type |
//! | 6 | 1 | flags, bit 0 = a bin LUT follows the name |
//! | 7 | 1 | length of the bin name |
//! | 8 | n | bin name |
//! | 8+n | 0 or 8 | bin LUT, big-endian |
//! | … | rest | value |
//!
//! Source: `docs/wire.md` section 5.

use super::ParticleType;

/// Bytes of an operation before its name.
pub const OP_HEADER_BYTES: usize = 8;
/// Most operations in one request.
pub const OP_COUNT_MAX: u16 = 32_768;

const HAS_LUT: u8 = 0x01;

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OpCode(pub u8);

impl OpCode {
    /// Returns a bin; with an empty name and GET_ALL, all bins.
    pub const READ: Self = Self(1);
    /// Sets a bin; particle type NULL removes it.
    pub const WRITE: Self = Self(2);
    /// Changes a list or map.
    pub const CDT_MODIFY: Self = Self(4);
    /// Adds to a number.
    pub const INCR: Self = Self(5);
    /// Appends to a string or blob.
    pub const APPEND: Self = Self(9);
    /// Prepends to a string or blob.
    pub const PREPEND: Self = Self(10);
    /// Counts as a write and applies the ttl; no bin, no reply op.
    pub const TOUCH: Self = Self(11);
    /// Removes all bins at that point of the list.
    pub const DELETE_ALL: Self = Self(14);

    /// A code the protocol defines but this implementation does not carry out: list, map,
    /// expression, bit, HyperLogLog and string operations.
    #[inline]
    pub const fn is_refused(self) -> bool {
        matches!(self.0, 3 | 4 | 7 | 8 | 12 | 13 | 15..=19)
    }
}

/// One operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Op<'a> {
    /// What it does.
    pub code: OpCode,
    /// Type of the value.
    pub particle: ParticleType,
    /// Bin name, any length the layout allows.
    pub name: &'a [u8],
    /// Bin LUT, if sent.
    pub lut: Option<u64>,
    /// The value in wire form.
    pub value: &'a [u8],
    /// The operation's bytes, size word included.
    pub whole: &'a [u8],
}

/// Takes the operation at the start of `bytes` and gives what follows it; `None` if malformed.
#[inline]
pub fn split(bytes: &[u8]) -> Option<(Op<'_>, &[u8])> {
    let size = u32::from_be_bytes(*bytes.first_chunk()?) as usize;
    let (whole, rest) = bytes.split_at_checked(size.checked_add(4)?)?;
    let (&[code, particle, flags, name_bytes], body) = whole.get(4..)?.split_first_chunk()?;
    let (name, body) = body.split_at_checked(usize::from(name_bytes))?;
    let (lut, value) = if flags & HAS_LUT == 0 {
        (None, body)
    } else {
        let (lut, value) = body.split_first_chunk()?;
        (Some(u64::from_be_bytes(*lut)), value)
    };
    let (code, particle) = (OpCode(code), ParticleType(particle));
    Some((Op { code, particle, name, lut, value, whole }, rest))
}

/// The operations of a request or reply whose layout has been checked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ops<'a> {
    bytes: &'a [u8],
}

impl<'a> Ops<'a> {
    /// Checks that `bytes` are exactly `count` operations.
    pub fn parse(bytes: &'a [u8], count: u16) -> Option<Self> {
        let mut rest = bytes;
        for _ in 0..count {
            rest = split(rest)?.1;
        }
        rest.is_empty().then_some(Self { bytes })
    }

    /// The operations not yet taken, as they came.
    #[inline]
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

impl<'a> Iterator for Ops<'a> {
    type Item = Op<'a>;

    #[inline]
    fn next(&mut self) -> Option<Op<'a>> {
        let (op, rest) = split(self.bytes)?;
        self.bytes = rest;
        Some(op)
    }
}

/// Appends an operation without a bin LUT.
///
/// The name must be shorter than 256 bytes and the value than 4 GiB; longer ones are cut, which no
/// caller relies on: names are at most 15 bytes, values at most a frame.
#[inline]
pub fn push(out: &mut Vec<u8>, code: OpCode, particle: ParticleType, name: &[u8], value: &[u8]) {
    let name_bytes = name.len().min(255);
    let size = 4 + name_bytes + value.len();
    out.reserve(4 + size);
    let [a, b, c, d] = (size as u32).to_be_bytes();
    out.extend_from_slice(&[a, b, c, d, code.0, particle.0, 0, name_bytes as u8]);
    out.extend_from_slice(&name[..name_bytes]);
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_with_a_bin_lut_is_split_between_name_and_value() {
        let bytes = [0, 0, 0, 14, 2, 3, 1, 1, b's', 0, 0, 0, 0x7c, 0x19, 0x7a, 0x23, 0x84, b'x', 9];
        let (op, rest) = split(&bytes).unwrap();
        assert_eq!((op.code, op.particle, op.name), (OpCode::WRITE, ParticleType(3), &b"s"[..]));
        assert_eq!((op.lut, op.value, rest), (Some(0x7c_197a_2384), &b"x"[..], &[9][..]));
        assert_eq!(op.whole, &bytes[..18]);
    }

    #[test]
    fn malformed_operations_are_refused() {
        let cases: [&[u8]; 6] = [
            &[],
            &[0, 0, 0],
            &[0, 0, 0, 3, 1, 0, 0],
            &[0, 0, 0, 4, 1, 0, 0, 1],
            &[0, 0, 0, 5, 1, 0, 0, 0],
            &[0, 0, 0, 11, 2, 1, 1, 0, 1, 2, 3, 4, 5, 6, 7],
        ];
        for bytes in cases {
            assert_eq!(split(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn a_list_of_operations_must_fill_its_bytes() {
        let mut bytes = Vec::new();
        push(&mut bytes, OpCode::READ, ParticleType::NULL, b"a", b"");
        push(&mut bytes, OpCode::WRITE, ParticleType::STRING, b"b", b"xyz");
        assert!(Ops::parse(&bytes, 1).is_none());
        assert!(Ops::parse(&bytes, 3).is_none());
        let ops = Ops::parse(&bytes, 2).unwrap();
        let names: Vec<_> = ops.map(|op| (op.name, op.value)).collect();
        assert_eq!(names, [(&b"a"[..], &b""[..]), (b"b", b"xyz")]);
    }
}
