//! The key by which destinations know this node again, and the number of its process.
//!
//! In a file of the work directory, `identity`:
//!
//! ```text
//! longship identity 1
//! key <hex64>
//! process <n>
//! ```
//!
//! Written anew at each start, before anything ships. The number is above that of every earlier
//! process, by the file or by the clock, whichever is higher: a work directory that was restored
//! from an old copy goes on above what it was, too. Its low bits are random, so that two processes
//! from copies of one directory differ even when they start in the same millisecond.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use longship_rt::random::random_u64;

use crate::engine::SourceId;
use crate::wire::hello::Key;

const HEAD: &str = "longship identity 1";
/// Bits of a process's number that are random; the others are milliseconds of the wall clock.
const RANDOM_BITS: u32 = 20;

/// Why the file of the identity cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The system refused to make, read or write it.
    #[error(
        "cannot {action} {}: {source}{}", path.display(), longship_rt::remedy::remedy(source)
    )]
    Unusable {
        /// What was tried, as a verb for the message.
        action: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file holds something else than an identity.
    #[error(
        "{path} is damaged: restore it from a copy. Or remove it: destinations then take this node \
         for a new source, and nothing ships for the first 15 s"
    )]
    Damaged {
        /// Path of the file.
        path: PathBuf,
    },
}

/// An identity, ready to ship under.
#[derive(Clone)]
pub struct SourceIdentity {
    /// Who destinations know this process as.
    pub source: SourceId,
    /// There was none: destinations have never seen it.
    pub is_new: bool,
}

impl SourceIdentity {
    /// Looks whether the identity in `folder` can be taken. Changes nothing.
    ///
    /// # Errors
    ///
    /// It is there, and no identity or not to be read.
    pub fn look(folder: &Path) -> Result<(), IdentityError> {
        read(&folder.join("identity")).map(drop)
    }

    /// Reads the identity in `folder`, which no other process uses, or makes one; begins its next
    /// process.
    ///
    /// # Errors
    ///
    /// Those of [`SourceIdentity::look`], or it cannot be written.
    pub fn take(folder: &Path, node: u64, wall_ms: u64) -> Result<Self, IdentityError> {
        let path = folder.join("identity");
        let failed = |action| {
            let path = path.clone();
            move |source| IdentityError::Unusable { action, path, source }
        };
        let (seed, last, is_new) = match read(&path)? {
            Some((seed, last)) => (seed, last, false),
            None => {
                let mut seed = [0; 32];
                let random = File::open("/dev/urandom");
                let filled = random.and_then(|mut random| random.read_exact(&mut seed));
                filled.map_err(failed("read random bytes for"))?;
                (seed, 0, true)
            }
        };
        let key = Key::from_seed(seed).ok_or(IdentityError::Damaged { path: path.clone() })?;
        let by_clock = wall_ms << RANDOM_BITS | random_u64() >> (64 - RANDOM_BITS);
        let process = by_clock.max(last.saturating_add(1));
        write(folder, &path, &seed, process).map_err(failed("write"))?;
        Ok(Self { source: SourceId { key, process, node }, is_new })
    }
}

/// Seed and last process on file; `None` when there is no file.
fn read(path: &Path) -> Result<Option<([u8; 32], u64)>, IdentityError> {
    let damaged = || IdentityError::Damaged { path: path.to_owned() };
    let (seed, last) = match fs::read_to_string(path) {
        Ok(text) => parse(&text).ok_or_else(damaged)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(damaged()),
        Err(source) => {
            let path = path.to_owned();
            return Err(IdentityError::Unusable { action: "read", path, source });
        }
    };
    match Key::from_seed(seed) {
        Some(_) => Ok(Some((seed, last))),
        None => Err(damaged()),
    }
}

fn parse(text: &str) -> Option<([u8; 32], u64)> {
    let mut lines = text.lines();
    let head = lines.next()?;
    let key = lines.next()?.strip_prefix("key ")?;
    let process = lines.next()?.strip_prefix("process ")?.parse().ok()?;
    let is_ours = head == HEAD && key.len() == 64 && key.is_ascii() && lines.next().is_none();
    let mut seed = [0; 32];
    for (byte, at) in seed.iter_mut().zip((0..64).step_by(2)).filter(|_| is_ours) {
        *byte = u8::from_str_radix(&key[at..at + 2], 16).ok()?;
    }
    is_ours.then_some((seed, process))
}

/// For its owner's eyes only, and whole or not at all.
fn write(folder: &Path, path: &Path, seed: &[u8; 32], process: u64) -> io::Result<()> {
    let draft = folder.join("identity.new");
    let key: String = seed.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut file =
        File::options().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    write!(file, "{HEAD}\nkey {key}\nprocess {process}\n")?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_kept_and_each_process_of_it_has_a_higher_number() {
        let folder = tempfile::tempdir().unwrap();
        let first = SourceIdentity::take(folder.path(), 7, 1000).unwrap();
        assert!(first.is_new);
        // The clock was set back; then the directory is restored from a copy.
        let copy = fs::read(folder.path().join("identity")).unwrap();
        let second = SourceIdentity::take(folder.path(), 8, 10).unwrap();
        fs::write(folder.path().join("identity"), copy).unwrap();
        let third = SourceIdentity::take(folder.path(), 8, 2000).unwrap();
        assert!(!second.is_new && !third.is_new);
        let ids = [first, second, third].map(|identity| identity.source);
        assert!(ids.is_sorted_by(|a, b| a.process < b.process), "{ids:?}");
        assert!(ids.iter().all(|id| id.key.origin() == ids[0].key.origin()));
        let elsewhere = tempfile::tempdir().unwrap();
        let other = SourceIdentity::take(elsewhere.path(), 7, 1000).unwrap().source;
        assert_ne!(other.key.origin(), ids[0].key.origin());
    }

    #[test]
    fn a_damaged_identity_is_refused_with_the_remedy_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity");
        let whole = format!("{HEAD}\nkey {}\nprocess 5\n", "0a".repeat(32));
        assert_eq!(parse(&whole), Some(([10; 32], 5)));
        let damaged = [
            "".to_owned(),
            whole.replace("identity 1", "identity 2"),
            whole.replace("0a0a0a", "0a0a"),
            whole.replacen("0a", "é", 1),
            whole.replace("process 5", "process -5"),
            whole.replace("0a", "00"),
            whole.clone() + "more\n",
        ];
        for text in damaged {
            fs::write(&path, &text).unwrap();
            let error = SourceIdentity::take(folder.path(), 7, 1000).err().unwrap().to_string();
            assert!(error.contains("is damaged: restore it"), "{error}");
            let looked = SourceIdentity::look(folder.path()).unwrap_err().to_string();
            assert_eq!(looked, error);
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }
}
