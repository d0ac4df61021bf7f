//! The damage that an operator has accepted, in `damage-NAME` in the work directory: a later start that
//! finds the same does not ask again.
//!
//! It is text, a filling of a block a line, closed by a checksum: the device, the block's number there,
//! the filling that it should hold, and which records of that are left. A bad sector comes back in the
//! same place, so a line is taken away, durably, before its block is filled anew. Whatever else is found
//! in that place is other damage. A file that is not whole accepts nothing.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use super::block::BlockName;
use super::damage::{DamagedFilling, FILLINGS_MAX};
use super::device::DeviceError;
use super::known::replace;
use longship::model::Version;
use longship_rt::clock::Clock;
use longship_rt::metrics::LogLimit;

const TITLE: &str = "longship-accepted 1";

static FORGET_LIMIT: LogLimit = LogLimit::every_s(60);

/// What was accepted for one namespace.
#[derive(Debug, Default)]
pub(super) struct Accepted {
    /// `None` without a work directory: nothing is kept.
    path: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    fillings: Vec<DamagedFilling>,
    /// What this start has found is among them.
    is_kept: bool,
}

impl Accepted {
    /// What earlier starts have left.
    pub(super) fn load(work: Option<&Path>, namespace: &str) -> Result<Self, DeviceError> {
        let Some(work) = work else { return Ok(Self::default()) };
        let path = work.join(format!("damage-{namespace}"));
        let fillings = match fs::read(&path) {
            Ok(bytes) => str::from_utf8(&bytes).ok().and_then(decode).unwrap_or_else(|| {
                let path = path.display();
                tracing::warn!("{path}: not whole: damage accepted before is asked for again");
                Vec::new()
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(DeviceError::Io { action: "read", path, source }),
        };
        let state = Mutex::new(State { fillings, is_kept: false });
        Ok(Self { path: Some(path), state })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics that holds it")
    }

    /// The blocks of which something was accepted.
    pub(super) fn blocks(&self) -> HashSet<BlockName> {
        self.state().fillings.iter().map(|filling| filling.block).collect()
    }

    /// Whether something was accepted of what a block should hold.
    pub(super) fn has(&self, block: BlockName) -> bool {
        self.state().fillings.iter().any(|filling| filling.block == block)
    }

    /// Whether just this was accepted before.
    pub(super) fn knows(&self, filling: &DamagedFilling) -> bool {
        self.state().fillings.contains(filling)
    }

    /// Keeps what is accepted now, durably: once in a start, before anything of it can be forgotten.
    pub(super) fn keep(&self, accepted: &[DamagedFilling]) -> io::Result<()> {
        let mut state = self.state();
        if state.is_kept {
            return Ok(());
        }
        let mut fillings = accepted.to_vec();
        let is_found = |old: &DamagedFilling| accepted.iter().any(|new| new.block == old.block);
        fillings.extend(state.fillings.iter().filter(|old| !is_found(old)));
        fillings.truncate(FILLINGS_MAX);
        self.set(&mut state, fillings)?;
        state.is_kept = true;
        Ok(())
    }

    /// Forgets what was accepted of these blocks, durably; false, with a line in the log, when that
    /// cannot be. Blocks.
    pub(super) fn forget(&self, blocks: &[BlockName]) -> bool {
        let mut state = self.state();
        let is_other = |old: &&DamagedFilling| !blocks.contains(&old.block);
        let fillings = state.fillings.iter().filter(is_other).copied().collect();
        let done = self.set(&mut state, fillings);
        if let (Err(error), Some(path)) = (&done, &self.path) {
            let path = path.display();
            let now_us = Clock::real().now();
            if let Some(more) = FORGET_LIMIT.pass(now_us) {
                tracing::error!(
                    "{path}: cannot be written: {error}: damaged blocks are not used again before \
                     the next start ({more} more such errors)"
                );
            }
        }
        done.is_ok()
    }

    fn set(&self, state: &mut State, fillings: Vec<DamagedFilling>) -> io::Result<()> {
        if let Some(path) = self.path.as_ref().filter(|_| fillings != state.fillings) {
            replace(path, &encode(&fillings))?;
        }
        state.fillings = fillings;
        Ok(())
    }
}

fn encode(fillings: &[DamagedFilling]) -> String {
    let line = |filling: &DamagedFilling| {
        let DamagedFilling { block: BlockName { device_id, number }, sequence, found } = filling;
        format!("{device_id:016X} {number} {:016X} {found:016X}\n", sequence.raw())
    };
    let text: String =
        [format!("{TITLE}\n")].into_iter().chain(fillings.iter().map(line)).collect();
    format!("{text}crc32c {:08X}\n", crc32c::crc32c(text.as_bytes()))
}

fn decode(text: &str) -> Option<Vec<DamagedFilling>> {
    let (body, checksum) = text.rsplit_once("crc32c ")?;
    let is_whole =
        u32::from_str_radix(checksum.trim_end(), 16).ok()? == crc32c::crc32c(body.as_bytes());
    let mut lines = body.lines();
    (is_whole && lines.next()? == TITLE).then_some(())?;
    let filling = |line: &str| {
        let mut words = line.split(' ');
        let hex = |word: Option<&str>| u64::from_str_radix(word?, 16).ok();
        let device_id = hex(words.next())?;
        let number = words.next()?.parse().ok()?;
        let sequence = Version::from_raw(hex(words.next())?);
        let found = hex(words.next())?;
        Some(DamagedFilling { block: BlockName { device_id, number }, sequence, found })
    };
    lines.map(filling).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filling(number: u32, sequence: u64, found: u64) -> DamagedFilling {
        let block = BlockName { device_id: 7, number };
        DamagedFilling { block, sequence: Version::from_raw(sequence), found }
    }

    #[test]
    fn what_was_accepted_holds_for_that_filling_until_its_block_is_filled_anew() {
        let folder = tempfile::tempdir().unwrap();
        let load = || Accepted::load(Some(folder.path()), "demo").unwrap();
        let found = [filling(1, 50, 3), filling(2, 51, 0), filling(3, 0, 0)];
        load().keep(&found).unwrap();
        let again = load();
        assert!(again.knows(&found[0]) && again.knows(&found[1]));
        for other in [filling(1, 60, 3), filling(1, 50, 2), filling(4, 50, 3), filling(3, 0, 1)] {
            assert!(!again.knows(&other), "{other:?}");
        }
        assert!(again.forget(&[filling(1, 0, 0).block]));
        for known in [&again, &load()] {
            assert!(!known.has(filling(1, 0, 0).block) && known.has(filling(2, 0, 0).block));
        }
        // Shards judge one after the other: what the first has forgotten since stays forgotten.
        let accepted = load();
        accepted.keep(&found).unwrap();
        assert!(accepted.forget(&[filling(2, 0, 0).block]));
        accepted.keep(&found).unwrap();
        assert!(!accepted.has(filling(2, 0, 0).block));
    }

    #[test]
    fn a_damaged_or_older_file_accepts_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let load = || Accepted::load(Some(folder.path()), "demo").unwrap();
        let found = filling(1, 50, 3);
        load().keep(&[found]).unwrap();
        let path = folder.path().join("damage-demo");
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() - 1 {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x10;
            fs::write(&path, damaged).unwrap();
            assert!(!load().knows(&found), "byte {at}");
        }
        fs::write(&path, "/data/log at byte 131072, 131072 bytes: records damaged\n").unwrap();
        assert!(!load().knows(&found));
    }
}
