//! Locks of whole files between processes, patient with a holder that is ending.
//!
//! A killed process keeps its locks until its last disk writes have ended, which takes as long as
//! the disk does. So a lock is waited for while its holder dies, or is not known; one that is alive
//! keeps it, and is named. Everything here may block: for starts.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::thread;
use std::time::{Duration, Instant};

/// Pause between two attempts.
const PAUSE: Duration = Duration::from_millis(10);
/// How long a holder may look alive: a kill takes a moment to be noticed.
const ALIVE: Duration = Duration::from_millis(500);
/// How long a holder that cannot be found out is waited for.
const UNKNOWN: Duration = Duration::from_secs(2);
/// How long a dying holder is waited for.
const DYING: Duration = Duration::from_secs(30);

/// Why a file is not locked.
#[derive(Debug)]
pub enum LockError {
    /// Another process has it, this one if it could be found out.
    Held(Option<u32>),
    /// The system refused.
    Io(io::Error),
}

/// Takes the exclusive lock of a file; it goes when the file is closed.
///
/// # Errors
///
/// Somebody else keeps it, or the system refused.
pub fn lock(file: &File) -> Result<(), LockError> {
    when_free(|| match file.try_lock() {
        Ok(()) => Ok(Ok(())),
        Err(TryLockError::WouldBlock) => Err(holder_of(file)),
        Err(TryLockError::Error(error)) => Ok(Err(LockError::Io(error))),
    })
    .unwrap_or_else(|holder| Err(LockError::Held(holder)))
}

/// Attempts until it is not refused any more, for as long as that makes sense. A refusal names the
/// process that is in the way, where it is known.
///
/// # Errors
///
/// The last refusal.
pub fn when_free<T>(mut attempt: impl FnMut() -> Result<T, Option<u32>>) -> Result<T, Option<u32>> {
    let begin = Instant::now();
    loop {
        let holder = match attempt() {
            Ok(done) => return Ok(done),
            Err(holder) => holder,
        };
        let patience = match holder {
            None => UNKNOWN,
            Some(process) if is_alive(process) => ALIVE,
            Some(_) => DYING,
        };
        if begin.elapsed() >= patience {
            return Err(holder);
        }
        thread::sleep(PAUSE);
    }
}

/// The process that took the lock of a file, as the system lists it.
fn holder_of(file: &File) -> Option<u32> {
    let meta = file.metadata().ok()?;
    let (major, minor) = (libc::major(meta.dev()), libc::minor(meta.dev()));
    let place = format!("{major:02x}:{minor:02x}:{}", meta.ino());
    let locks = fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        // `1: FLOCK  ADVISORY  WRITE 712 fe:00:4718733 0 EOF`
        let mut words = line.split_whitespace().skip(1);
        let is_lock = words.next() == Some("FLOCK");
        let process = words.nth(2)?.parse().ok()?;
        (is_lock && words.next() == Some(&place) && process > 0).then_some(process)
    })
}

/// Whether a process is there and will stay for all that is known.
fn is_alive(process: u32) -> bool {
    const EXITING: u64 = 4;
    let Ok(stat) = fs::read_to_string(format!("/proc/{process}/stat")) else { return false };
    // The name before the state may hold anything, but ends in the last bracket.
    let Some((_, rest)) = stat.rsplit_once(") ") else { return true };
    let mut words = rest.split_whitespace();
    let state = words.next().unwrap_or_default();
    let flags = words.nth(5).and_then(|flags| flags.parse().ok()).unwrap_or(0_u64);
    !matches!(state, "Z" | "X") && flags & EXITING == 0
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_living_holder_is_named_and_not_waited_for_long() {
        let file = tempfile::NamedTempFile::new().unwrap();
        lock(file.as_file()).unwrap();
        let begin = Instant::now();
        let other = File::open(file.path()).unwrap();
        let refused = lock(&other).unwrap_err();
        // Not every system lists its locks.
        assert!(matches!(refused, LockError::Held(None)) || begin.elapsed() < UNKNOWN);
        if let LockError::Held(Some(process)) = refused {
            assert_eq!(process, std::process::id());
        }
        drop(file);
        lock(&other).unwrap();
    }

    #[test]
    fn a_dying_process_is_told_from_a_living_one() {
        let mut child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
        assert!(is_alive(child.id()));
        child.kill().unwrap();
        // Not waited for: it stays as a zombie, which holds nothing for long.
        let begin = Instant::now();
        while is_alive(child.id()) {
            assert!(begin.elapsed() < Duration::from_secs(10));
            thread::yield_now();
        }
        child.wait().unwrap();
        assert!(!is_alive(child.id()));
    }

    #[test]
    fn what_is_given_up_meanwhile_is_got() {
        let mut refusals = 3;
        let got = when_free(|| {
            refusals -= 1;
            if refusals == 0 { Ok("got") } else { Err(None) }
        });
        assert_eq!(got, Ok("got"));
    }
}
