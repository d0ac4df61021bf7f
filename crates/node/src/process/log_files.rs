//! Log files that are something else as well: lines appended to a namespace's data, or to what the
//! node keeps in its work directory, would damage it.

use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::process::own_files;
use crate::storage::device::DeviceKey;

/// A log file that the node uses otherwise.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[error(
    "the log file {} is {use_of_it}, which log lines would damage: give the log a file of its own",
    path.display()
)]
pub struct LogFileTaken {
    path: PathBuf,
    use_of_it: String,
}

/// Looks where the log files of the configuration are, before any is opened.
///
/// # Errors
/// One of them is a data file or device of a namespace, or a file of the work directory that is not
/// a log, by whatever path.
pub fn refuse_taken(config: &Config) -> Result<(), LogFileTaken> {
    let mut logs = config.logging.sinks.iter().filter_map(|sink| sink.file.as_ref());
    logs.try_for_each(|path| refuse_one(path, config))
}

/// Looks where one log file is now: its path may lead elsewhere than at the start.
///
/// # Errors
/// As those of [`refuse_taken`].
pub fn refuse_one(path: &Path, config: &Config) -> Result<(), LogFileTaken> {
    match use_of(path, config) {
        Some(use_of_it) => Err(LogFileTaken { path: path.to_owned(), use_of_it }),
        None => Ok(()),
    }
}

fn use_of(log: &Path, config: &Config) -> Option<String> {
    let place = DeviceKey::of(log);
    for namespace in &config.namespaces {
        let storage = &namespace.storage;
        let mut data = storage.files.iter().chain(&storage.devices);
        if data.any(|path| DeviceKey::of(path) == place) {
            return Some(format!("also where namespace {} keeps its data", namespace.name));
        }
    }
    if matches!(place, DeviceKey::Device(_)) {
        return Some("a block device".to_owned());
    }
    own_files::is_own(log, config).then(|| "a file that the node keeps for itself".to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::config::{LogSink, NamespaceConfig};

    #[test]
    fn a_log_is_not_where_anything_else_is_kept_by_whatever_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("work")).unwrap();
        fs::write(path("there.dat"), "data").unwrap();
        fs::write(path("other"), "").unwrap();
        symlink("there.dat", path("link")).unwrap();
        fs::hard_link(path("there.dat"), path("hard")).unwrap();
        symlink("to-come.dat", path("dangling")).unwrap();
        let check = |log: &str, expected: &str| {
            let mut config = Config::default();
            config.service.work_directory = path("work");
            let mut namespace = NamespaceConfig::named("test");
            namespace.storage.files = vec![path("there.dat"), path("to-come.dat")];
            config.namespaces.push(namespace);
            config.logging.sinks = vec![LogSink { file: Some(path(log)), contexts: Vec::new() }];
            let said = refuse_taken(&config).err().map(|error| error.to_string());
            let said = said.unwrap_or_default();
            assert!(said.contains(expected) && said.is_empty() == expected.is_empty(), "{said}");
        };
        let data = "also where namespace test keeps its data";
        for taken in ["there.dat", "link", "hard", "work/../there.dat", "to-come.dat", "dangling"] {
            check(taken, data);
        }
        check("work/marks", "keeps for itself");
        check("work/index-test-0", "keeps for itself");
        for free in ["other", "own.log", "work/own.log", "no/such/folder/own.log"] {
            check(free, "");
        }
    }
}
