//! The files that the node keeps for itself in its work directory: nothing else may be kept there.

use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::storage::device::end_of;

/// A file of a namespace that the node uses otherwise.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[error(
    "namespace {namespace}: {} is a file that the node keeps for itself: give the data a file of its own",
    path.display()
)]
pub struct DataFileTaken {
    namespace: String,
    path: PathBuf,
}

/// Files of the work directory, and how the names of others there begin.
const OWN: [&str; 9] = [
    "node-id",
    "identity",
    "marks",
    "marks.new",
    "letters",
    "letters.new",
    "accepted",
    "refused",
    "ports",
];
const OWN_BEGINNINGS: [&str; 3] = ["volume-", "damage-", "index-"];

/// Whether a path, of whatever spelling, leads to one of them.
pub(super) fn is_own(path: &Path, config: &Config) -> bool {
    let work = &config.service.work_directory;
    let (end, work) = (end_of(path), work.canonicalize().unwrap_or_else(|_| work.clone()));
    let name = end.file_name().and_then(|name| name.to_str());
    let is_own =
        |name: &str| OWN.contains(&name) || OWN_BEGINNINGS.iter().any(|own| name.starts_with(own));
    end.parent() == Some(&work) && name.is_some_and(is_own)
}

/// Looks where the namespaces of the configuration keep their data.
///
/// # Errors
/// In one of those files.
pub(super) fn refuse_taken(config: &Config) -> Result<(), DataFileTaken> {
    for namespace in &config.namespaces {
        if let Some(path) = namespace.storage.files.iter().find(|path| is_own(path, config)) {
            let (namespace, path) = (namespace.name.clone(), path.clone());
            return Err(DataFileTaken { namespace, path });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::NamespaceConfig;

    #[test]
    fn data_is_not_kept_in_a_file_of_the_node_s_own() {
        let folder = tempfile::tempdir().unwrap();
        let check = |work: &str, file: &str, is_taken: bool| {
            let mut config = Config::default();
            config.service.work_directory = folder.path().join(work);
            let mut namespace = NamespaceConfig::named("test");
            namespace.storage.files = vec![folder.path().join("a.dat"), folder.path().join(file)];
            config.namespaces.push(namespace);
            let refused = refuse_taken(&config).err();
            assert_eq!(refused.is_some(), is_taken, "{file}: {refused:?}");
        };
        std::fs::create_dir(folder.path().join("work")).unwrap();
        for taken in ["marks", "index-test-0", "volume-test", "ports", "../work/letters.new"] {
            check("work", &format!("work/{taken}"), true);
            check("to-come", &format!("to-come/{}", taken.replace("../work/", "")), true);
        }
        for free in ["work/test.dat", "marks", "work/deeper/marks"] {
            check("work", free, false);
        }
    }
}
