//! How many descriptors the process may open.
#![expect(unsafe_code, reason = "two calls about limits")]

use std::io;

/// Raises the limit of open descriptors towards `wanted`, as far as the hard limit allows, and tells
/// what it is then. Never lowers it.
///
/// # Errors
/// The system does not tell its limits.
pub fn raise_limit(wanted: u64) -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one `rlimit`, to `limit`, which lives until the call returns.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let raised = wanted.min(limit.rlim_max);
    if raised > limit.rlim_cur {
        let more = libc::rlimit { rlim_cur: raised, ..limit };
        // SAFETY: the kernel reads one `rlimit`, from `more`, which lives until the call returns.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const more) } == 0 {
            return Ok(raised);
        }
    }
    Ok(limit.rlim_cur)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_and_never_lowered() {
        let limit = raise_limit(0).unwrap();
        assert!(limit > 0);
        assert!(raise_limit(limit + 1).unwrap() >= limit);
        assert!(raise_limit(1).unwrap() >= limit);
    }
}
