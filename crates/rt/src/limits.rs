//! The limit of locked memory that a process was given.
#![expect(unsafe_code, reason = "reads and raises a limit of this process")]

use std::mem::MaybeUninit;

/// Locked memory that a shard's executor wants to be allowed, in bytes.
pub(crate) const MEMLOCK_BYTES_MIN: u64 = 512 << 10;

/// Raises the limit of locked memory as far as this process may, and gives it, in bytes.
pub(crate) fn memlock_bytes() -> u64 {
    raise(libc::RLIMIT_MEMLOCK)
}

/// The limit, after the soft one was set to the hard one. A limit that cannot be read is none.
fn raise(resource: libc::__rlimit_resource_t) -> u64 {
    let mut limit = MaybeUninit::<libc::rlimit>::uninit();
    // SAFETY: the kernel writes one rlimit at the pointer, which is good for that.
    if unsafe { libc::getrlimit(resource, limit.as_mut_ptr()) } != 0 {
        return u64::MAX;
    }
    // SAFETY: the call above has succeeded, so it has filled it in.
    let limit = unsafe { limit.assume_init() };
    let raised = libc::rlimit { rlim_cur: limit.rlim_max, rlim_max: limit.rlim_max };
    // SAFETY: the kernel reads one rlimit from this stack.
    let is_raised = unsafe { libc::setrlimit(resource, &raised) } == 0;
    if is_raised { limit.rlim_max } else { limit.rlim_cur }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_once_and_for_all() {
        let first = memlock_bytes();
        assert!(first > 0);
        assert_eq!(memlock_bytes(), first);
    }
}
