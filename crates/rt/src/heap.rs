//! How much memory the process holds: for measurements, never on a path that anybody waits for.
//!
//! Safety: one call into the C library that fills a structure of its own and reads no memory of
//! ours; `bench memory` would notice nonsense, since it compares with what structures say they hold.
#![expect(unsafe_code, reason = "asks the allocator")]

use std::fs;

/// A reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Bytes given out by the allocator and not given back.
    pub heap_bytes: u64,
    /// Bytes of the process that are in memory.
    pub resident_bytes: u64,
}

impl Held {
    /// Reads both figures. One that the system does not tell is 0.
    pub fn now() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|text| text.trim().trim_end_matches(" kB").parse::<u64>().ok());
        Self { heap_bytes: heap_bytes(), resident_bytes: kib.unwrap_or(0) * 1024 }
    }
}

#[cfg(target_env = "gnu")]
fn heap_bytes() -> u64 {
    // SAFETY: takes nothing and gives a structure of numbers by value.
    let info = unsafe { libc::mallinfo2() };
    (info.uordblks + info.hblkhd) as u64
}

#[cfg(not(target_env = "gnu"))]
fn heap_bytes() -> u64 {
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_env = "gnu")]
    fn what_is_taken_is_held_until_it_is_given_back() {
        // Larger than anything else that tests of this process take or give meanwhile.
        const BYTES: u64 = 1 << 30;
        let before = Held::now().heap_bytes;
        let taken = Vec::<u8>::with_capacity(BYTES as usize);
        let between = Held::now().heap_bytes;
        drop(taken);
        assert!(between >= before + BYTES / 2, "{before} {between}");
        assert!(Held::now().heap_bytes < before + BYTES / 2);
    }
}
