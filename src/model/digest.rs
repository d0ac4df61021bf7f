//! Record identity: the 20-byte digest and the partition it falls into.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher};

use longship_rt::random::random_u64;

use ripemd::{Digest as _, Ripemd160};

use super::PartitionId;

/// RIPEMD-160 of `set name || particle type || key bytes`; the namespace is not hashed.
///
/// Source: `docs/wire.md` section 7.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Digest(pub [u8; 20]);

impl Digest {
    /// Hashes a key. `set` is empty for records without a set; `key_type` is the particle type (1
    /// integer, 3 string, 4 blob) and `key` its wire form (integers as 8 bytes big-endian).
    pub fn of_key(set: &str, key_type: u8, key: &[u8]) -> Self {
        let mut hash = Ripemd160::new();
        hash.update(set.as_bytes());
        hash.update([key_type]);
        hash.update(key);
        Self(hash.finalize().into())
    }

    /// Hashes an integer key.
    pub fn of_integer(set: &str, key: i64) -> Self {
        Self::of_key(set, 1, &key.to_be_bytes())
    }

    /// Hashes a string key.
    pub fn of_string(set: &str, key: &str) -> Self {
        Self::of_key(set, 3, key.as_bytes())
    }

    /// The partition this record belongs to: the low 12 bits of the first two bytes, little-endian.
    #[inline]
    pub fn partition(&self) -> PartitionId {
        PartitionId::new((u16::from(self.0[0]) | u16::from(self.0[1]) << 8) & 0x0FFF)
    }

    /// Eight bytes that the partition does not depend on, for sampling. Clients choose them: a hash
    /// table takes [`Digest::hash_under`].
    #[inline]
    pub fn mixed(&self) -> u64 {
        self.u64_at(8)
    }

    /// A hash of all of it, under a key from [`random_u64`] that clients do not know: what they
    /// choose as digests does not fall together in a table.
    #[inline]
    pub fn hash_under(&self, key: u64) -> u64 {
        let last = u32::from_le_bytes([self.0[16], self.0[17], self.0[18], self.0[19]]);
        let inner = fold(self.u64_at(0) ^ key, self.u64_at(8) ^ key.rotate_left(29));
        fold(inner ^ u64::from(last) ^ key.rotate_left(47), 0x9E37_79B9_7F4A_7C15)
    }

    #[inline]
    fn u64_at(&self, at: usize) -> u64 {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.0[at..at + 8]);
        u64::from_le_bytes(bytes)
    }
}

/// Each bit of the product of two numbers, in half as many.
#[inline]
pub(crate) fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

impl Hash for Digest {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&self.0);
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Hashes digests under a random key; see [`Digest::hash_under`].
#[derive(Clone, Copy, Debug)]
pub struct DigestHash {
    key: u64,
}

impl Default for DigestHash {
    fn default() -> Self {
        Self { key: random_u64() }
    }
}

impl BuildHasher for DigestHash {
    type Hasher = DigestHasher;

    #[inline]
    fn build_hasher(&self) -> DigestHasher {
        DigestHasher { key: self.key, hash: 0 }
    }
}

/// State of hashing one digest with the map's key.
#[derive(Debug)]
pub struct DigestHasher {
    key: u64,
    hash: u64,
}

impl Hasher for DigestHasher {
    #[inline]
    fn finish(&self) -> u64 {
        self.hash
    }

    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        debug_assert_eq!(bytes.len(), 20, "digests are all that this hashes");
        let mut digest = Digest([0; 20]);
        digest.0.copy_from_slice(&bytes[..20]);
        self.hash = digest.hash_under(self.key);
    }
}

/// A hash map keyed by digest: fast, and as good whatever digests clients choose.
pub type DigestMap<V> = HashMap<Digest, V, DigestHash>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_that_share_any_eight_bytes_spread_over_a_table() {
        let digest = |number: u64, at: usize| {
            let mut bytes = [0x11; 20];
            bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
            Digest(bytes)
        };
        let hash = DigestHash::default();
        for at in [0, 4, 8, 12] {
            let mut buckets = vec![0_u32; 1 << 12];
            for number in 0..1 << 12 {
                let digest = digest(number, at);
                buckets[hash.hash_one(digest) as usize % (1 << 12)] += 1;
                buckets[digest.hash_under(7) as usize % (1 << 12)] += 1;
            }
            // Two on average; of 4096 buckets filled at random the fullest has about ten.
            assert!(buckets.iter().max() < Some(&24), "bytes {at}..: {:?}", buckets.iter().max());
        }
    }

    /// Vectors of `docs/wire.md` section 7.
    #[test]
    fn digests_match_the_reference_vectors() {
        let check = |digest: Digest, hex: &str, partition: u16| {
            assert_eq!(digest.to_string(), hex);
            assert_eq!(digest.partition(), PartitionId::new(partition));
        };
        let long_set = "s".repeat(63);
        check(Digest::of_string("demo", "user1"), "03161f352c8ab85448952c896ecdaa122b3c4e71", 1539);
        check(Digest::of_string("", "user1"), "7699c4e28cc94ef437160ec6d89724127f73886d", 2422);
        check(Digest::of_string("demo", ""), "6253653507ba82c3f57c87af2f86d39033149e0c", 866);
        check(Digest::of_string("demo", "héllo"), "e676821c268030a4bf3bee11ffc92838ef566975", 1766);
        check(Digest::of_integer("demo", 0), "ceded27492b392e0232514bb54a8ec2076acef37", 3790);
        check(Digest::of_integer("demo", 1), "b7f4b83889e2da67de683e1df6919a1eacc446c8", 1207);
        check(Digest::of_integer("", 42), "7a7e97c9928be59ec21e441643031a7d48f2ccc6", 3706);
        check(Digest::of_integer("demo", -1), "e9d49a24c3debdc5a6d551d3e7087999a263bb97", 1257);
        check(
            Digest::of_integer("demo", i64::MIN),
            "ed1e7c46ae5e7ece2d07934101b63291bf9a3606",
            3821,
        );
        check(
            Digest::of_key("demo", 4, &[0xde, 0xad, 0xbe, 0xef]),
            "ed8f2f28c00caeb945d416497d73f81d41314db3",
            4077,
        );
        check(Digest::of_string(&long_set, "k"), "2d32f599cfbdc25d4ceaf6ea14185b96e8726243", 557);
    }
}
