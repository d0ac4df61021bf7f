//! What a start has found and later starts must know, in `damage-NAME` in the work directory. That
//! is the damage an operator has accepted, of which nobody is asked again, and the blocks that were
//! torn when the process died.
//!
//! It is text, closed by a checksum. A filling of a block is a line: the device, the block's number there,
//! the filling that it should hold, and which records of that are left. A bad sector comes back in the
//! same place, so a line of accepted damage is taken away, durably, before its block is filled anew.
//! Whatever else is found in that place is other damage. A file that is not whole accepts nothing.
//!
//! A line before those tells the highest version that the start met. Every block that was begun
//! before that version was read then, so it is on the device and whole. The exceptions are blocks
//! that were open or that a power failure tore: each has a line that begins with `open`. Any other
//! block that looks torn later has lost something since that start.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use super::block::BlockName;
use super::damage::{FILLINGS_MAX, FillingLeft};
use super::device::DeviceError;
use super::known::replace;
use longship::model::Version;
use longship_rt::clock::Clock;
use longship_rt::metrics::LogLimit;

const TITLE: &str = "longship-accepted 2";

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
    kept: Kept,
    /// What this start has found is among it.
    is_kept: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Kept {
    met: Met,
    fillings: Vec<FillingLeft>,
}

/// What a start has met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Met {
    /// The volume.
    pub(super) volume_id: u64,
    /// What was begun below this was there.
    pub(super) began: Version,
    /// Blocks that were open when a process died, or torn then; `None` where the log was not read.
    pub(super) open: Option<Vec<FillingLeft>>,
}

impl Accepted {
    /// What earlier starts have left.
    pub(super) fn load(work: Option<&Path>, namespace: &str) -> Result<Self, DeviceError> {
        let Some(work) = work else { return Ok(Self::default()) };
        let path = work.join(format!("damage-{namespace}"));
        let kept = match fs::read(&path) {
            Ok(bytes) => str::from_utf8(&bytes).ok().and_then(decode).unwrap_or_else(|| {
                let path = path.display();
                tracing::warn!("{path}: not whole: damage accepted before is asked for again");
                Kept::default()
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Kept::default(),
            Err(source) => return Err(DeviceError::Io { action: "read", path, source }),
        };
        let state = Mutex::new(State { kept, is_kept: false });
        Ok(Self { path: Some(path), state })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics that holds it")
    }

    /// The blocks of which something was accepted.
    pub(super) fn blocks(&self) -> HashSet<BlockName> {
        self.state().kept.fillings.iter().map(|filling| filling.block).collect()
    }

    /// Whether something was accepted of what a block should hold.
    pub(super) fn has(&self, block: BlockName) -> bool {
        self.state().kept.fillings.iter().any(|filling| filling.block == block)
    }

    /// Whether just this was accepted before.
    pub(super) fn knows(&self, filling: &FillingLeft) -> bool {
        self.state().kept.fillings.contains(filling)
    }

    /// Where the last start of that volume has begun: it has met what was begun below.
    pub(super) fn began(&self, volume_id: u64) -> Version {
        let met = &self.state().kept.met;
        if met.volume_id == volume_id { met.began } else { Version::ZERO }
    }

    /// The filling of a block that was open or torn when a process died, as the last start has met it.
    pub(super) fn open(&self, block: BlockName) -> Option<FillingLeft> {
        let state = self.state();
        let mut open = state.kept.met.open.iter().flatten();
        open.find(|filling| filling.block == block).copied()
    }

    /// Keeps what is accepted now and was met, durably: once in a start, before anything of it can be
    /// forgotten.
    pub(super) fn keep(&self, accepted: &[FillingLeft], met: Met) -> io::Result<()> {
        let mut state = self.state();
        if state.is_kept {
            return Ok(());
        }
        let mut fillings = accepted.to_vec();
        let is_found = |old: &FillingLeft| accepted.iter().any(|new| new.block == old.block);
        fillings.extend(state.kept.fillings.iter().filter(|old| !is_found(old)));
        fillings.truncate(FILLINGS_MAX);
        let open = met.open.or_else(|| state.kept.met.open.clone());
        self.set(&mut state, Kept { met: Met { open, ..met }, fillings })?;
        state.is_kept = true;
        Ok(())
    }

    /// Forgets what was accepted of these blocks, durably; false, with a line in the log, when that
    /// cannot be. Blocks.
    pub(super) fn forget(&self, blocks: &[BlockName]) -> bool {
        let mut state = self.state();
        let is_other = |old: &&FillingLeft| !blocks.contains(&old.block);
        let fillings = state.kept.fillings.iter().filter(is_other).copied().collect();
        let met = state.kept.met.clone();
        let done = self.set(&mut state, Kept { met, fillings });
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

    fn set(&self, state: &mut State, kept: Kept) -> io::Result<()> {
        if let Some(path) = self.path.as_ref().filter(|_| kept != state.kept) {
            replace(path, &encode(&kept))?;
        }
        state.kept = kept;
        Ok(())
    }
}

fn encode(Kept { met, fillings }: &Kept) -> String {
    let line = |filling: &FillingLeft| {
        let FillingLeft { block: BlockName { device_id, number }, sequence, found } = filling;
        format!("{device_id:016X} {number} {:016X} {found:016X}\n", sequence.raw())
    };
    let Met { volume_id, began, open } = met;
    let head = format!("{TITLE}\nmet {volume_id:016X} {:016X}\n", began.raw());
    let open = open.iter().flatten().map(|filling| format!("open {}", line(filling)));
    let text: String = [head].into_iter().chain(open).chain(fillings.iter().map(line)).collect();
    format!("{text}crc32c {:08X}\n", crc32c::crc32c(text.as_bytes()))
}

fn decode(text: &str) -> Option<Kept> {
    let (body, checksum) = text.rsplit_once("crc32c ")?;
    let is_whole =
        u32::from_str_radix(checksum.trim_end(), 16).ok()? == crc32c::crc32c(body.as_bytes());
    let mut lines = body.lines();
    (is_whole && lines.next()? == TITLE).then_some(())?;
    let hex = |word: Option<&str>| u64::from_str_radix(word?, 16).ok();
    let mut words = lines.next()?.strip_prefix("met ")?.split(' ');
    let (volume_id, began) = (hex(words.next())?, Version::from_raw(hex(words.next())?));
    let filling = |line: &str| {
        let mut words = line.split(' ');
        let device_id = hex(words.next())?;
        let number = words.next()?.parse().ok()?;
        let sequence = Version::from_raw(hex(words.next())?);
        let found = hex(words.next())?;
        Some(FillingLeft { block: BlockName { device_id, number }, sequence, found })
    };
    let (mut open, mut fillings) = (Vec::new(), Vec::new());
    for line in lines {
        match line.strip_prefix("open ") {
            Some(line) => open.push(filling(line)?),
            None => fillings.push(filling(line)?),
        }
    }
    Some(Kept { met: Met { volume_id, began, open: Some(open) }, fillings })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filling(number: u32, sequence: u64, found: u64) -> FillingLeft {
        let block = BlockName { device_id: 7, number };
        FillingLeft { block, sequence: Version::from_raw(sequence), found }
    }

    #[test]
    fn what_was_accepted_holds_for_that_filling_until_its_block_is_filled_anew() {
        let folder = tempfile::tempdir().unwrap();
        let load = || Accepted::load(Some(folder.path()), "demo").unwrap();
        let found = [filling(1, 50, 3), filling(2, 51, 0), filling(3, 0, 0)];
        load().keep(&found, Met::default()).unwrap();
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
        accepted.keep(&found, Met::default()).unwrap();
        assert!(accepted.forget(&[filling(2, 0, 0).block]));
        accepted.keep(&found, Met::default()).unwrap();
        assert!(!accepted.has(filling(2, 0, 0).block));
    }

    #[test]
    fn what_a_start_has_met_holds_for_its_volume_and_stays_where_the_log_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let load = || Accepted::load(Some(folder.path()), "demo").unwrap();
        let version = Version::from_raw;
        let met = |began, open| Met { volume_id: 3, began: version(began), open };
        load().keep(&[], met(90, Some(vec![filling(1, 50, 3)]))).unwrap();
        let warm = load();
        assert_eq!((warm.began(3), warm.began(4)), (version(90), Version::ZERO));
        warm.keep(&[filling(2, 60, 1)], met(120, None)).unwrap();
        let again = load();
        assert!(again.began(3) == version(120) && again.knows(&filling(2, 60, 1)));
        assert_eq!(again.open(filling(1, 0, 0).block), Some(filling(1, 50, 3)));
        again.keep(&[], met(140, Some(Vec::new()))).unwrap();
        assert_eq!(load().open(filling(1, 0, 0).block), None);
    }

    #[test]
    fn a_damaged_or_older_file_accepts_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let load = || Accepted::load(Some(folder.path()), "demo").unwrap();
        let found = filling(1, 50, 3);
        load().keep(&[found], Met::default()).unwrap();
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
