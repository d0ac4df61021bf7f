//! The work directory of a node: its identity, its lock, and the file that tells its ports while it
//! serves.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use longship_rt::file_lock::{LockError, lock};
use longship_rt::makes_files::makes_files;
use longship_rt::random::random_u64;
use longship_rt::remedy::remedy;

use crate::config::NodeId;

/// Why a work directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HomeError {
    /// The system refused to make, read or write something there.
    #[error(
        "cannot {action} {}, where `work-directory` leads: {source}{}", path.display(),
        remedy(source)
    )]
    Unusable {
        /// What was tried, as a verb for the message.
        action: &'static str,
        /// The file or folder that it was tried on.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file that keeps the node's identity holds something else.
    #[error(
        "{path} holds no node id: restore it, or remove it if no client and no destination \
             needs to know this node again"
    )]
    NodeId {
        /// Path of the file that should hold the id.
        path: PathBuf,
    },
    /// Another node runs on this work directory.
    #[error(
        "{} belongs to a node that is running{}: stop it, or give this one its own \
         `work-directory`", path.display(), named(*process)
    )]
    InUse {
        /// Path of the work directory.
        path: PathBuf,
        /// The node's process, where it is known.
        process: Option<u32>,
    },
}

/// The work directory of a running node.
pub(crate) struct Home {
    folder: PathBuf,
    pub(crate) node_id: u64,
    /// Locked for as long as the node runs.
    _lock: File,
}

impl Home {
    /// Makes the folder if need be, and takes it: one node at a time. `configured` is the node id to
    /// use; without it the one of an earlier start, or a new one.
    pub(crate) fn open(folder: &Path, configured: NodeId) -> Result<Self, HomeError> {
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |source| HomeError::Unusable { action, path, source }
        };
        fs::create_dir_all(folder).map_err(failed("create", folder))?;
        let path = folder.join("node-id");
        // A file that is there and empty has lost the id it held.
        let is_first = !path.exists();
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(&path).map_err(failed("open", &path))?;
        lock(&file).map_err(|error| match error {
            LockError::Held(process) => HomeError::InUse { path: folder.to_owned(), process },
            LockError::Io(error) => failed("lock", &path)(error),
        })?;
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(failed("read", &path))?;
        let kept = match text.trim() {
            "" if is_first => None,
            id => Some(
                u64::from_str_radix(id, 16)
                    .map_err(|_| HomeError::NodeId { path: path.clone() })?,
            ),
        };
        let node_id = configured.0.or(kept).unwrap_or_else(new_node_id);
        if kept.is_none() {
            let written = write!(file, "{node_id:X}").and_then(|()| file.sync_all());
            written.map_err(|error| {
                let _ = fs::remove_file(&path);
                failed("write", &path)(error)
            })?;
        }
        let home = Self { folder: folder.to_owned(), node_id, _lock: file };
        home.withdraw_ports();
        Ok(home)
    }

    /// Whether files can be made there: a start makes some, and replaces others as a whole.
    pub(crate) fn look(&self) -> Result<(), HomeError> {
        let path = self.folder.clone();
        let refused = |source| HomeError::Unusable { action: "make files in", path, source };
        makes_files(&self.folder).map_err(refused)
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Why a file of the folder could not be used.
    pub(crate) fn failed(
        &self,
        action: &'static str,
        name: &str,
    ) -> impl FnOnce(io::Error) -> HomeError + use<> {
        let path = self.path(name);
        move |source| HomeError::Unusable { action, path, source }
    }

    /// Tells whoever started the node that clients are served, and where.
    pub(crate) fn publish_ports(&self, ports: &[u16]) -> Result<(), HomeError> {
        let (path, draft) = (self.path("ports"), self.path("ports.new"));
        let text = ports.iter().map(u16::to_string).collect::<Vec<_>>().join(" ");
        let written = fs::write(&draft, text + "\n").and_then(|()| fs::rename(&draft, &path));
        written.map_err(|source| HomeError::Unusable { action: "write", path, source })
    }

    pub(crate) fn withdraw_ports(&self) {
        let _ = fs::remove_file(self.path("ports"));
    }
}

fn named(process: Option<u32>) -> String {
    process.map(|process| format!(" (process {process})")).unwrap_or_default()
}

/// Leaves room for the shards to count on, in the range real nodes use.
fn new_node_id() -> u64 {
    0xBB00_0000_0000_0000 | (random_u64() & 0x00FF_FFFF_FFFF_0000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_work_directory_keeps_its_identity_and_serves_one_node_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(folder.path(), NodeId(None)).unwrap();
        let first = home.node_id;
        assert!(first & 0xFFFF == 0, "{first:X} leaves room for the shards");
        home.publish_ports(&[3000, 3001]).unwrap();
        assert_eq!(fs::read_to_string(home.path("ports")).unwrap(), "3000 3001\n");
        let second = Home::open(folder.path(), NodeId(None));
        assert!(matches!(second, Err(HomeError::InUse { .. })));
        drop(home);
        let again = Home::open(folder.path(), NodeId(None)).unwrap();
        assert_eq!(again.node_id, first);
        assert!(!again.path("ports").exists(), "nobody serves yet");
    }

    #[test]
    fn what_is_wrong_with_a_work_directory_is_told_with_its_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let said = |name: &str| match Home::open(&path(name), NodeId(None)) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        };
        fs::write(path("file"), "").unwrap();
        std::os::unix::fs::symlink("nowhere", path("link")).unwrap();
        for name in ["file", "link"] {
            let said = said(name);
            assert!(said.contains("`work-directory`") && said.contains("leads nowhere"), "{said}");
        }
        fs::create_dir(path("emptied")).unwrap();
        fs::write(path("emptied/node-id"), "").unwrap();
        assert!(said("emptied").contains("holds no node id"), "{}", said("emptied"));
        assert_eq!(said("new"), "");
    }
}
