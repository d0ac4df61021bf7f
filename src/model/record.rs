//! A record as every module sees it: borrowed, read-only, its bins still in wire form.

use super::{Digest, Lut, SrcId, Version, VoidTime};

/// Longest set name, in bytes.
pub const SET_NAME_BYTES_MAX: usize = 63;
/// Longest bin name, in bytes.
pub const BIN_NAME_BYTES_MAX: usize = 15;

/// Write count of a record: 1 on create, 65535 wraps to 1; 0 means "no record".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Generation(pub u16);

impl Generation {
    /// The generation after one more write.
    #[inline]
    #[must_use]
    pub const fn next(self) -> Self {
        match self.0 {
            u16::MAX => Self(1),
            n => Self(n + 1),
        }
    }
}

/// Facts about a record's last write, one bit each; stored in the log and in the index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordFlags(pub u8);

impl RecordFlags {
    /// The last write came from a shipper.
    pub const SHIPPED: Self = Self(0x01);
    /// The record is deleted; only its identity is left.
    pub const TOMBSTONE: Self = Self(0x02);
    /// The deletion was asked to be durable.
    pub const DURABLE: Self = Self(0x04);
    /// The deletion was an expiry or eviction.
    pub const NSUP: Self = Self(0x08);
    /// A user key is stored.
    pub const HAS_KEY: Self = Self(0x10);

    /// Whether every bit of `other` is set.
    #[inline]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// With the bits of `other` set or cleared.
    #[inline]
    #[must_use]
    pub const fn with(self, other: Self, on: bool) -> Self {
        if on { Self(self.0 | other.0) } else { Self(self.0 & !other.0) }
    }
}

/// A record borrowed from wherever it lies: a write block in memory, a read slot, or an embedding
/// server's buffer.
#[derive(Clone, Copy, Debug)]
pub struct RecordView<'a> {
    /// Identity.
    pub digest: Digest,
    /// Orders copies of the record.
    pub version: Version,
    /// LUT of the last change not made by a shipper; zero when there was none.
    pub local_lut: Lut,
    /// Write count.
    pub generation: Generation,
    /// Expiry.
    pub void_time: VoidTime,
    /// Facts about the last write.
    pub flags: RecordFlags,
    /// Cluster of origin for a record shipped in, as that cluster's hello named it.
    pub src_id: SrcId,
    /// Set name; empty for none.
    pub set: &'a str,
    /// User key: particle type byte, then the value in wire form; empty when not stored.
    pub key: &'a [u8],
    /// Number of bins in `bins`.
    pub bin_count: u16,
    /// The bins, each as a whole WRITE operation of the client protocol: `u32 size` (big-endian,
    /// bytes after this word), `u8 op = 2`, `u8 particle type`, `u8 flags = 0`, `u8 name length`,
    /// name, value. Records keep their bins in this form at rest, so that shipping all bins is one
    /// copy. Empty for a tombstone.
    pub bins: &'a [u8],
}

impl<'a> RecordView<'a> {
    /// A record in no set, last changed here, that never expires; a tombstone when it has no bins.
    pub fn new(digest: Digest, version: Version, bin_count: u16, bins: &'a [u8]) -> Self {
        Self {
            digest,
            version,
            local_lut: version.lut(),
            generation: Generation(1),
            void_time: VoidTime::NEVER,
            flags: RecordFlags::default().with(RecordFlags::TOMBSTONE, bin_count == 0),
            src_id: SrcId::NONE,
            set: "",
            key: &[],
            bin_count,
            bins,
        }
    }

    /// Whether only the identity is left.
    #[inline]
    pub fn is_tombstone(&self) -> bool {
        self.flags.has(RecordFlags::TOMBSTONE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_skip_zero() {
        assert_eq!(Generation(0).next(), Generation(1));
        assert_eq!(Generation(65534).next(), Generation(65535));
        assert_eq!(Generation(65535).next(), Generation(1));
    }

    #[test]
    fn flags_are_independent() {
        let flags = RecordFlags::default().with(RecordFlags::SHIPPED, true);
        let flags = flags.with(RecordFlags::HAS_KEY, true).with(RecordFlags::SHIPPED, false);
        assert!(flags.has(RecordFlags::HAS_KEY) && !flags.has(RecordFlags::SHIPPED));
    }
}
