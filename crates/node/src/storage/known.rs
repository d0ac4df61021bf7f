//! Files of the work directory about the devices of namespaces:
//!
//! - `volume-NAME`, one for each namespace: which devices it has;
//! - `refused`: why the last start was refused, where that is more than the devices' headers tell;
//! - `accepted`: the words that the operator has left for the next start.
//!
//! The first is text for people, one item a line, closed by a checksum:
//!
//! ```text
//! longship-volume 2
//! volume 5A17C0DE5A17C0DE
//! epoch 12
//! write-block-size 1048576
//! device 00C0FFEE00C0FFEE 4096 /data/first.dat
//! crc32c 1B2C3D4E
//! ```
//!
//! It is replaced as a whole, durably, in each epoch of the volume (see [`super::device`]). By it a
//! start notices that all devices together are blank, lost or older.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::admit::{Roster, Words};
use super::device::{DeviceError, Member};
use super::loss::CrashCost;
use super::refusal::Refusal;
use longship::model::Version;
use longship_rt::bytes::sync_folder;

const TITLE: &str = "longship-volume 2";
const WORDS: &str = "accepted";
const REFUSED: &str = "refused";

fn path_of(work: &Path, namespace: &str) -> PathBuf {
    work.join(format!("volume-{namespace}"))
}

/// Reads what is known of a namespace's devices; `None` when nothing ever was.
pub(super) fn load(work: &Path, namespace: &str) -> Result<Option<Roster>, DeviceError> {
    let path = path_of(work, namespace);
    match fs::read_to_string(&path) {
        Ok(text) => decode(&text).map(Some).ok_or(DeviceError::Record { path }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(DeviceError::Record { path })
        }
        Err(source) => Err(DeviceError::Io { action: "read", path, source }),
    }
}

/// Replaces it, durably.
pub(super) fn store(work: &Path, namespace: &str, roster: &Roster) -> io::Result<()> {
    replace(&path_of(work, namespace), &encode(roster))
}

pub(super) fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let mut file = File::create(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    sync_folder(path)
}

fn encode(roster: &Roster) -> String {
    let Roster { volume_id, epoch, block_bytes, members, paths, .. } = roster;
    let device = |(member, path): (&Member, &Option<PathBuf>)| {
        let path = path.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
        format!("device {:016X} {} {path}\n", member.id, member.blocks)
    };
    let devices: String = members.iter().zip(paths).map(device).collect();
    let text = format!(
        "{TITLE}\nvolume {volume_id:016X}\nepoch {epoch}\nwrite-block-size {block_bytes}\n\
         {devices}"
    );
    format!("{text}crc32c {:08X}\n", crc32c::crc32c(text.as_bytes()))
}

fn decode(text: &str) -> Option<Roster> {
    let (body, checksum) = text.rsplit_once("crc32c ")?;
    let is_whole =
        u32::from_str_radix(checksum.trim_end(), 16).ok()? == crc32c::crc32c(body.as_bytes());
    let mut lines = body.lines();
    (is_whole && lines.next()? == TITLE).then_some(())?;
    let mut item = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
    let volume_id = u64::from_str_radix(item("volume")?, 16).ok()?;
    let epoch = item("epoch")?.parse().ok()?;
    let block_bytes = item("write-block-size")?.parse().ok()?;
    let (mut members, mut paths) = (Vec::new(), Vec::new());
    for line in lines {
        let mut words = line.strip_prefix("device ")?.splitn(3, ' ');
        let id = u64::from_str_radix(words.next()?, 16).ok()?;
        let blocks = words.next()?.parse().ok()?;
        members.push(Member { id, blocks });
        paths.push(words.next().filter(|path| !path.is_empty()).map(PathBuf::from));
    }
    Some(Roster {
        volume_id,
        epoch,
        block_bytes,
        run: 0,
        crash_cost: CrashCost::default(),
        whole_below: Version::ZERO,
        members,
        paths,
    })
}

/// The words left for the next start.
pub fn words(work: &Path) -> io::Result<Words> {
    match fs::read_to_string(work.join(WORDS)) {
        Ok(text) => Ok(Words::in_text(&text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Words::default()),
        Err(error) => Err(error),
    }
}

/// Leaves one more word for the next start, durably.
pub fn leave_word(work: &Path, word: &str) -> io::Result<()> {
    let known = words(work)?;
    let text: String = known
        .iter()
        .filter(|known| *known != word)
        .chain([word])
        .fold(String::new(), |text, word| text + word + "\n");
    replace(&work.join(WORDS), &text)
}

/// Keeps why a start was refused that had found more than headers tell, in place of what an earlier
/// one was refused for: the word and the refusal, a line each.
pub fn keep_refusals(work: &Path, refusals: &[Refusal]) -> io::Result<()> {
    let line = |refusal: &Refusal| Some(format!("{} {refusal}\n", refusal.accept.as_ref()?));
    replace(&work.join(REFUSED), &refusals.iter().filter_map(line).collect::<String>())
}

/// What the last start was refused for, beyond what headers tell: each word, and the refusal.
pub fn kept_refusals(work: &Path) -> io::Result<Vec<(String, String)>> {
    let text = match fs::read_to_string(work.join(REFUSED)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let split = |line: &str| {
        let (word, refusal) = line.split_once(' ')?;
        Some((word.to_owned(), refusal.to_owned()))
    };
    Ok(text.lines().filter_map(split).collect())
}

/// A start has done what the words allowed it, and nothing is in its way: they are gone, and so is
/// what an earlier one was refused for, durably.
pub fn forget_words(work: &Path) -> io::Result<()> {
    for path in [work.join(WORDS), work.join(REFUSED)] {
        match fs::remove_file(&path) {
            Ok(()) => sync_folder(&path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roster(epoch: u64) -> Roster {
        Roster {
            volume_id: 0x5A17_C0DE,
            epoch,
            block_bytes: 1 << 20,
            run: 0,
            crash_cost: CrashCost::default(),
            whole_below: Version::ZERO,
            members: vec![Member { id: 7, blocks: 64 }, Member { id: 9, blocks: 128 }],
            paths: vec![Some("/data/with space.dat".into()), None],
        }
    }

    #[test]
    fn what_is_known_comes_back_and_every_damage_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(load(folder.path(), "demo").unwrap(), None);
        for epoch in [1, 2, 30] {
            store(folder.path(), "demo", &roster(epoch)).unwrap();
            assert_eq!(load(folder.path(), "demo").unwrap(), Some(roster(epoch)));
        }
        assert_eq!(load(folder.path(), "other").unwrap(), None);
        let path = path_of(folder.path(), "demo");
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() - 1 {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x10;
            fs::write(&path, damaged).unwrap();
            let error = load(folder.path(), "demo").unwrap_err();
            assert!(matches!(error, DeviceError::Record { .. }), "byte {at}: {error}");
        }
        fs::write(&path, "").unwrap();
        assert!(matches!(load(folder.path(), "demo"), Err(DeviceError::Record { .. })));
    }

    #[test]
    fn words_wait_for_one_start() {
        let folder = tempfile::tempdir().unwrap();
        forget_words(folder.path()).unwrap();
        assert_eq!(words(folder.path()).unwrap(), Words::default());
        for word in ["lost-1", "older-2", "lost-1"] {
            leave_word(folder.path(), word).unwrap();
        }
        let left = words(folder.path()).unwrap();
        assert_eq!(left.iter().collect::<Vec<_>>(), ["lost-1", "older-2"]);
        forget_words(folder.path()).unwrap();
        assert_eq!(words(folder.path()).unwrap(), Words::default());
    }
}
