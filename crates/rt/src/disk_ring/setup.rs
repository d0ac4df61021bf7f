//! Opening the ring: which features are asked for, what is registered, and what a refusal means.
#![expect(unsafe_code, reason = "registers memory with the kernel")]

use std::io;
use std::sync::Once;

use io_uring::{IoUring, Probe, opcode};

use crate::arena::Arena;
use crate::eventfd::EventFd;

/// Files a ring can know.
pub const FILES_MAX: u32 = 256;

/// Kernel threads a ring may use for what cannot be done without blocking (flushes above all), while
/// no device is slow.
pub(super) const WORKERS_MAX: u32 = 4;

/// Why there is no disk ring, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RingError {
    /// The kernel was built without it, or a sandbox hides it.
    #[error(
        "this system has no io_uring (kernel {release}): Longship needs a kernel of 6.1 or newer, \
         6.12 recommended, and no sandbox that hides it"
    )]
    Missing {
        /// `uname -r`.
        release: String,
    },
    /// It exists and may not be used.
    #[error("io_uring is forbidden here: {}", remedy(.disabled))]
    Forbidden {
        /// The sysctl's value; "unknown" on kernels before 6.6.
        disabled: String,
    },
    /// The kernel lacks a feature the ring is built on.
    #[error("kernel {release} is too old: Longship needs 6.1 or newer, 6.12 recommended")]
    TooOld {
        /// `uname -r`.
        release: String,
    },
    /// The kernel has what the ring is built on, and refuses it all the same.
    #[error(
        "io_uring cannot be set up ({source}), although kernel {release} is new enough and \
         kernel.io_uring_disabled is not in the way: look for a seccomp filter or a sandbox that \
         answers so, or refuses mmap or madvise"
    )]
    Hindered {
        /// `uname -r`.
        release: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The file table of the ring is full.
    #[error("a shard uses at most {FILES_MAX} files and devices")]
    TooManyFiles,
    /// Another refusal.
    #[error("cannot {action}: {source}")]
    System {
        /// What was tried.
        action: &'static str,
        /// The system's answer. ENOMEM: raise RLIMIT_MEMLOCK; EMFILE: raise RLIMIT_NOFILE.
        source: io::Error,
    },
}

/// Opens a ring for the calling thread.
///
/// Completion work runs only in our own `enter` (DEFER_TASKRUN, one issuer), and a flag tells when
/// there is some, so that a pass with nothing to do costs no system call.
pub(super) fn open(depth: u32) -> Result<IoUring, RingError> {
    let depth = depth.clamp(1, 4096).next_power_of_two();
    let build = |without_array: bool| {
        let mut builder = IoUring::builder();
        builder
            .dontfork()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_clamp()
            .setup_cqsize(depth * 2);
        if without_array {
            builder.setup_no_sqarray(); // 6.6
        }
        builder.build(depth)
    };
    let ring = build(true).or_else(|error| match error.raw_os_error() {
        Some(libc::EINVAL) => build(false),
        _ => Err(error),
    });
    let ring = ring.map_err(|source| match (check(), source.raw_os_error()) {
        // A plain ring is not refused: it is not io_uring that is forbidden.
        (Ok(()), Some(libc::EPERM | libc::EACCES)) => {
            RingError::Hindered { release: release(), source }
        }
        _ => explain(source, release()),
    })?;
    let submitter = ring.submitter();
    let system = |action| move |source| RingError::System { action, source };
    submitter.register_files_sparse(FILES_MAX).map_err(system("register the ring's file table"))?;
    submitter
        .register_iowq_max_workers(&mut [WORKERS_MAX, WORKERS_MAX])
        .map_err(system("cap the ring's worker threads"))?;
    Ok(ring)
}

/// Whether this process may use io_uring at all. Before anything is built on it: the executor's own
/// words for a refusal are a panic.
///
/// # Errors
///
/// Why not, and what to do about it.
pub fn check() -> Result<(), RingError> {
    let explain = |source| explain(source, release());
    let mut ring = IoUring::new(1).map_err(explain)?;
    ring.submitter().register_probe(&mut Probe::new()).map_err(explain)?;
    // SAFETY: the operation refers to no memory.
    let pushed = unsafe { ring.submission().push(&opcode::Nop::new().build()) };
    debug_assert!(pushed.is_ok(), "the ring has room for one");
    ring.submit_and_wait(1).map(drop).map_err(explain)
}

/// What to do where io_uring is forbidden, given the value of `kernel.io_uring_disabled`.
fn remedy(disabled: &str) -> String {
    match disabled {
        "1" | "2" => format!(
            "kernel.io_uring_disabled is {disabled}; set it to 0 with sysctl, or, where it is 1, run as \
             a member of kernel.io_uring_group"
        ),
        _ => "a seccomp filter refuses it; allow io_uring_setup, io_uring_enter and io_uring_register \
              in the container's seccomp profile or in SystemCallFilter= of the systemd unit (a \
              container may also lack what kernel.io_uring_disabled asks for)"
            .to_owned(),
    }
}

fn release() -> String {
    read_trimmed("/proc/sys/kernel/osrelease")
}

/// Whether a kernel of that release has all that the ring is built on.
fn is_new_enough(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let mut next = || numbers.next().and_then(Result::ok).unwrap_or(0);
    (next(), next()) >= (6, 1)
}

fn explain(source: io::Error, release: String) -> RingError {
    match source.raw_os_error() {
        Some(libc::ENOSYS) => RingError::Missing { release },
        Some(libc::EPERM | libc::EACCES) => {
            RingError::Forbidden { disabled: read_trimmed("/proc/sys/kernel/io_uring_disabled") }
        }
        Some(libc::EINVAL) if is_new_enough(&release) => RingError::Hindered { release, source },
        Some(libc::EINVAL) => RingError::TooOld { release },
        _ => RingError::System { action: "set up an io_uring", source },
    }
}

fn read_trimmed(path: &str) -> String {
    std::fs::read_to_string(path).map_or_else(|_| "unknown".into(), |text| text.trim().into())
}

/// Registers an eventfd for the kernel to count completions on; to begin with it does not.
pub(super) fn register_event_fd(ring: &mut IoUring) -> Result<EventFd, RingError> {
    let registered = EventFd::new().and_then(|event_fd| {
        ring.submitter().register_eventfd(event_fd.as_raw_fd())?;
        Ok(event_fd)
    });
    let failed = |source| RingError::System { action: "give the ring an eventfd", source };
    let event_fd = registered.map_err(failed)?;
    ring.completion().disable_eventfd();
    Ok(event_fd)
}

/// Registers the whole arena. A refusal costs speed only: it is logged once and false comes back.
pub(super) fn register_arena(ring: &IoUring, arena: &Arena) -> bool {
    let pieces = arena.registration();
    // SAFETY: the pieces are one live mapping; the ring's owner keeps the arena, and so the
    // mapping, until after the ring is gone (field order of `Ops`).
    let Err(error) = (unsafe { ring.submitter().register_buffers(&pieces) }) else { return true };
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let needed: usize = pieces.iter().map(|piece| piece.iov_len).sum();
        tracing::warn!(
            "disk buffers are not registered with the kernel ({error}): reads cost up to 20 % \
             more. Raise RLIMIT_MEMLOCK (LimitMEMLOCK=, ulimit -l) to {} KiB per shard or more",
            needed / 1024
        );
    });
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_forbids_it_is_told_apart() {
        check().unwrap();
        let check = |disabled, words| assert!(remedy(disabled).contains(words), "{disabled}");
        check("2", "set it to 0");
        check("0", "seccomp");
        check("unknown", "seccomp");
    }

    #[test]
    fn a_refusal_names_its_cause_and_remedy() {
        for (errno, words) in [
            (libc::ENOSYS, "6.1 or newer"),
            (libc::EPERM, "io_uring is forbidden here: "),
            (libc::EINVAL, "too old"),
            (libc::EMFILE, "set up an io_uring"),
        ] {
            let error = io::Error::from_raw_os_error(errno);
            let text = explain(error, "5.15.0-91-generic".to_owned()).to_string();
            assert!(text.contains(words), "{errno}: {text}");
        }
        for release in ["6.1", "6.18.5+deb14", "10.0.1"] {
            let error = io::Error::from_raw_os_error(libc::EINVAL);
            let text = explain(error, release.to_owned()).to_string();
            assert!(text.contains("is new enough") && text.contains("seccomp"), "{text}");
        }
    }
}
