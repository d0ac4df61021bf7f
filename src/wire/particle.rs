//! Values: their types, what the wire form of each must look like, and user keys.
//!
//! Source: `docs/wire.md` section 5.3.

use crate::model::Digest;

use super::{ResultCode, geojson, msgpack};

/// Type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ParticleType(pub u8);

impl ParticleType {
    /// No value; writing it removes the bin.
    pub const NULL: Self = Self(0);
    /// 8 bytes, big-endian two's complement.
    pub const INTEGER: Self = Self(1);
    /// 8 bytes, IEEE 754 big-endian.
    pub const FLOAT: Self = Self(2);
    /// Text; not validated.
    pub const STRING: Self = Self(3);
    /// Bytes.
    pub const BLOB: Self = Self(4);
    /// One byte, 0 or 1.
    pub const BOOL: Self = Self(17);
    /// HyperLogLog sketch.
    pub const HLL: Self = Self(18);
    /// A map, msgpack.
    pub const MAP: Self = Self(19);
    /// A list, msgpack.
    pub const LIST: Self = Self(20);
    /// GeoJSON with cell ids in front.
    pub const GEOJSON: Self = Self(23);

    /// Bytes whose content nobody checks: blobs and those of foreign languages.
    #[inline]
    pub const fn is_blob(self) -> bool {
        matches!(self.0, 4 | 7..=12 | 16)
    }
}

/// How a checked value goes to rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Canonical {
    /// As it was sent.
    AsSent,
    /// A short integer, zero-extended to 8 bytes.
    Widened([u8; 8]),
    /// It removes the bin.
    Null,
}

/// Checks a value from the wire.
///
/// Lists and maps are checked for being one well-formed msgpack value of their kind; the order and
/// uniqueness of map keys is not checked, and bytes are kept as sent, where the real server
/// rewrites them.
///
/// # Errors
/// PARAMETER for a bad length, content or type; SERVER for a malformed list or map;
/// GEO_INVALID_GEOJSON for text that is not GeoJSON of a supported kind.
#[inline]
pub fn check(particle: ParticleType, value: &[u8]) -> Result<Canonical, ResultCode> {
    let valid = match particle {
        ParticleType::STRING => true,
        ParticleType::INTEGER => return widen(value),
        ParticleType::FLOAT => value.len() == 8,
        ParticleType::BOOL => matches!(value, [0 | 1]),
        ParticleType::NULL => return Ok(Canonical::Null),
        ParticleType::LIST => return check_msgpack(msgpack::is_list(value)),
        ParticleType::MAP => return check_msgpack(msgpack::is_map(value)),
        ParticleType::GEOJSON => return check_geojson(value),
        ParticleType::HLL => is_hll(value),
        other => other.is_blob(),
    };
    if valid { Ok(Canonical::AsSent) } else { Err(ResultCode::PARAMETER) }
}

fn widen(value: &[u8]) -> Result<Canonical, ResultCode> {
    if value.len() == 8 {
        return Ok(Canonical::AsSent);
    }
    if !matches!(value.len(), 1 | 2 | 4) {
        return Err(ResultCode::PARAMETER);
    }
    let mut wide = [0; 8];
    wide[8 - value.len()..].copy_from_slice(value);
    Ok(Canonical::Widened(wide))
}

fn check_msgpack(well_formed: bool) -> Result<Canonical, ResultCode> {
    if well_formed { Ok(Canonical::AsSent) } else { Err(ResultCode::SERVER) }
}

/// `u8 flags = 0, u8 index bits 4..=16, u8 minhash bits 0 or 4..=51, u64 cache`, then
/// `2^index bits` registers of `6 + minhash bits` bits, packed.
fn is_hll(value: &[u8]) -> bool {
    let [0, index_bits @ 4..=16, minhash_bits @ (0 | 4..=51), ..] = *value else { return false };
    let register_bits = (6 + usize::from(minhash_bits)) << index_bits;
    index_bits + minhash_bits <= 64 && value.len() == 11 + register_bits.div_ceil(8)
}

/// `u8 flags, u16 cell count, count * u64 cells`, then GeoJSON.
fn check_geojson(value: &[u8]) -> Result<Canonical, ResultCode> {
    let &[_, high, low, ref rest @ ..] = value else { return Err(ResultCode::PARAMETER) };
    let cells = 8 * usize::from(u16::from_be_bytes([high, low]));
    let json = rest.get(cells..).ok_or(ResultCode::PARAMETER)?;
    match geojson::is_geojson(json) {
        true => Ok(Canonical::AsSent),
        false => Err(ResultCode::GEO_INVALID_GEOJSON),
    }
}

/// A value of the plain types.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// An integer.
    Integer(i64),
    /// A float.
    Float(f64),
    /// A text.
    String(&'a str),
    /// Bytes.
    Blob(&'a [u8]),
    /// A truth value.
    Bool(bool),
}

impl<'a> Value<'a> {
    /// Reads a wire value; `None` for other types and for values that fail [`check`] or are not
    /// UTF-8.
    pub fn decode(particle: ParticleType, value: &'a [u8]) -> Option<Self> {
        let word = || <[u8; 8]>::try_from(value).ok();
        match particle {
            ParticleType::INTEGER => word().map(i64::from_be_bytes).map(Self::Integer),
            ParticleType::FLOAT => word().map(f64::from_be_bytes).map(Self::Float),
            ParticleType::STRING => str::from_utf8(value).ok().map(Self::String),
            ParticleType::BLOB => Some(Self::Blob(value)),
            ParticleType::BOOL => match value {
                [0] => Some(Self::Bool(false)),
                [1] => Some(Self::Bool(true)),
                _ => None,
            },
            _ => None,
        }
    }

    /// Hands its type and wire form to `with`.
    pub fn encode<R>(self, with: impl FnOnce(ParticleType, &[u8]) -> R) -> R {
        match self {
            Self::Integer(value) => with(ParticleType::INTEGER, &value.to_be_bytes()),
            Self::Float(value) => with(ParticleType::FLOAT, &value.to_be_bytes()),
            Self::String(value) => with(ParticleType::STRING, value.as_bytes()),
            Self::Blob(value) => with(ParticleType::BLOB, value),
            Self::Bool(value) => with(ParticleType::BOOL, &[u8::from(value)]),
        }
    }

    /// The key field's data for this value used as a user key: particle type byte, then the value.
    pub fn to_key(self) -> Vec<u8> {
        self.encode(|particle, value| [&[particle.0], value].concat())
    }

    /// The digest of the record with this user key.
    pub fn digest(self, set: &str) -> Digest {
        self.encode(|particle, value| Digest::of_key(set, particle.0, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_checked_by_type() {
        let check = |particle: u8, value: &[u8], expected: Result<Canonical, ResultCode>| {
            assert_eq!(check(ParticleType(particle), value), expected, "{particle} {value:02x?}");
        };
        let kept = Ok(Canonical::AsSent);
        let bad = Err(ResultCode::PARAMETER);
        check(0, b"", Ok(Canonical::Null));
        check(1, &[0xff; 8], kept);
        check(1, &[0xff], Ok(Canonical::Widened([0, 0, 0, 0, 0, 0, 0, 0xff])));
        check(1, &[1, 2], Ok(Canonical::Widened([0, 0, 0, 0, 0, 0, 1, 2])));
        check(1, &[1, 2, 3, 4], Ok(Canonical::Widened([0, 0, 0, 0, 1, 2, 3, 4])));
        for length in [0, 3, 5, 6, 7, 9] {
            check(1, &vec![0; length], bad);
        }
        check(2, &[0; 8], kept);
        check(2, &[0; 4], bad);
        check(3, b"", kept);
        check(3, &[0xff, 0xfe], kept);
        for blob in [4, 7, 8, 9, 10, 11, 12, 16] {
            check(blob, &[0, 1, 2], kept);
        }
        for unknown in [5, 6, 13, 14, 15, 21, 22, 24, 255] {
            check(unknown, b"", bad);
        }
        check(17, &[0], kept);
        check(17, &[1], kept);
        check(17, &[2], bad);
        check(17, &[], bad);
        check(17, &[0, 0], bad);
        check(20, &[0x91, 0x05], kept);
        check(20, &[0x80], Err(ResultCode::SERVER));
        check(20, &[0x91], Err(ResultCode::SERVER));
        check(19, &[0x81, 0x05, 0xa2, 0x03, 0x61], kept);
        check(19, &[0x91, 0x05], Err(ResultCode::SERVER));
        check(19, &[0x80, 0x00], Err(ResultCode::SERVER));
    }

    #[test]
    fn sketches_have_the_size_their_bits_ask_for() {
        let check = |index: u8, minhash: u8, registers: usize, valid: bool| {
            let value = [&[0, index, minhash][..], &vec![0; 8 + registers]].concat();
            assert_eq!(is_hll(&value), valid, "{index} {minhash} {registers}");
        };
        check(4, 0, 12, true);
        check(4, 0, 13, false);
        check(12, 4, 5120, true);
        check(13, 51, (57 << 13) / 8, true);
        check(14, 51, (57 << 14) / 8, false);
        check(3, 0, 6, false);
        check(17, 0, (6 << 17) / 8, false);
        check(4, 3, 18, false);
        check(4, 52, 116, false);
        assert!(!is_hll(&[]) && !is_hll(&[0, 4]) && !is_hll(&[1, 4, 0, 0]));
    }

    #[test]
    fn geojson_is_an_object_behind_its_cells() {
        let check = |value: &[u8], expected: Result<(), ResultCode>| {
            assert_eq!(check_geojson(value).map(|_| ()), expected, "{value:?}");
        };
        let point = br#"{"type":"Point","coordinates":[1,2]}"#;
        check(&[b"\0\0\0", &point[..]].concat(), Ok(()));
        check(&[b"\0\0\x01cellcell", &point[..]].concat(), Ok(()));
        check(b"\0\0\0{\"type\":\"Point\"}", Err(ResultCode::GEO_INVALID_GEOJSON));
        check(b"\0\0\x02cellcell{}", Err(ResultCode::PARAMETER));
        check(b"\0\0", Err(ResultCode::PARAMETER));
        check(b"\0\0\0[1]", Err(ResultCode::GEO_INVALID_GEOJSON));
        check(b"\0\0\0", Err(ResultCode::GEO_INVALID_GEOJSON));
    }

    #[test]
    fn plain_values_survive_their_wire_form() {
        let values = [
            Value::Integer(-5),
            Value::Float(0.25),
            Value::String("héllo"),
            Value::Blob(&[0, 255]),
            Value::Bool(true),
            Value::Bool(false),
        ];
        for value in values {
            value.encode(|particle, wire| {
                assert!(check(particle, wire).is_ok());
                assert_eq!(Value::decode(particle, wire), Some(value));
            });
        }
        assert_eq!(Value::String("user1").to_key(), b"\x03user1");
        assert_eq!(Value::Integer(42).digest("demo"), Digest::of_integer("demo", 42));
    }
}
