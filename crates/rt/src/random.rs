//! Numbers that nobody can guess.

use std::hash::{BuildHasher, Hasher, RandomState};

/// From the system's entropy, through a keyed hash: for names, epochs and challenges, not for keys.
pub fn random_u64() -> u64 {
    RandomState::new().build_hasher().finish()
}
