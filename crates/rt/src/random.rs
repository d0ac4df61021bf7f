//! Numbers that nobody can guess.

use std::hash::{BuildHasher, Hasher, RandomState};

/// From the system's entropy, through a keyed hash: for names, epochs and challenges, not for keys.
pub fn random_u64() -> u64 {
    #[cfg(any(test, feature = "testing"))]
    if let Some(shard) = crate::virtual_shard::current() {
        return shard.roll(u64::MAX);
    }
    RandomState::new().build_hasher().finish()
}
