//! Rules that join several items, checked after a file is read and after each change at run time.

use std::path::{Path, PathBuf};

use longship::config::grammar::set;
use longship::config::{ItemError, Rule};

use super::{Config, NamespaceConfig, NetworkConfig};

/// A rule that joins items of a node.
#[derive(Debug, thiserror::Error)]
pub(super) enum NodeRule {
    /// Records never span write blocks.
    #[error("must not be above `write-block-size`, which is {write_block_size}")]
    RecordOverBlock {
        /// Value of `write-block-size`, in bytes.
        write_block_size: u32,
    },
    /// Records would get a life that nothing ends.
    #[error("needs a `nsup-period` above 0, or `allow-ttl-without-nsup true`")]
    TtlWithoutNsup,
    /// What was set aside or promised at the start bounds it until the next one.
    #[error("must not be above {limit}, its value at the start: {reason}")]
    AboveStart {
        /// The value at the start.
        limit: u64,
        /// What was set aside or promised.
        reason: &'static str,
    },
    /// Neither files nor devices.
    #[error("needs at least one `file` or `device`")]
    NoStorage,
    /// Files and devices.
    #[error("holds both `file` and `device`: choose one kind")]
    FilesAndDevices,
    /// Files of no size.
    #[error("must be given with `file`")]
    NoFilesize,
    /// Two logs in one place would overwrite each other.
    #[error("`{path}` is already used by namespace `{namespace}`")]
    SharedStorage {
        /// Path of the file or device.
        path: PathBuf,
        /// Namespace that has it.
        namespace: String,
    },
    /// The last shard's port would lie above 65535.
    #[error("leaves no ports for {shards} shards")]
    PortsRunOut {
        /// How many shards are asked for.
        shards: u16,
    },
}

impl From<NodeRule> for ItemError {
    fn from(rule: NodeRule) -> Self {
        Self::Host { problem: rule.to_string() }
    }
}

impl Rule for NodeRule {
    fn rests_on(&self) -> &'static [&'static str] {
        match self {
            Self::RecordOverBlock { .. } => &["max-record-size", "write-block-size"],
            Self::TtlWithoutNsup => &["default-ttl", "nsup-period", "allow-ttl-without-nsup"],
            Self::NoStorage => &["file", "device", "storage-engine"],
            Self::NoFilesize => &["filesize"],
            Self::AboveStart { .. }
            | Self::FilesAndDevices
            | Self::SharedStorage { .. }
            | Self::PortsRunOut { .. } => &[],
        }
    }
}

/// A broken rule and the item to point at.
type Broken = set::Broken<NodeRule>;

/// The rules inside one namespace.
pub(super) fn namespace(config: &NamespaceConfig) -> Vec<Broken> {
    let mut broken = Vec::new();
    let storage = &config.storage;
    let write_block_size = storage.write_block_size;
    if config.max_record_size > write_block_size {
        broken.push(("max-record-size", NodeRule::RecordOverBlock { write_block_size }));
    }
    if config.default_ttl_s > 0 && config.nsup_period_s == 0 && !config.allow_ttl_without_nsup {
        broken.push(("default-ttl", NodeRule::TtlWithoutNsup));
    }
    match (storage.files.is_empty(), storage.devices.is_empty()) {
        (true, true) => broken.push(("storage-engine", NodeRule::NoStorage)),
        (false, false) => broken.push(("storage-engine", NodeRule::FilesAndDevices)),
        (false, true) if storage.filesize == 0 => {
            broken.push(("filesize", NodeRule::NoFilesize));
        }
        _ => {}
    }
    broken
}

/// The rules between a namespace changed at run time and the same as it was started.
pub(super) fn since_start(now: &NamespaceConfig, started: &NamespaceConfig) -> Vec<Broken> {
    const MEMORY: &str = "its memory was set aside then";
    let bounded = |config: &NamespaceConfig| {
        let storage = &config.storage;
        let told = "shippers were told then how much a crash may cost";
        [
            ("flush-max-ms", u64::from(storage.flush_max_ms), told),
            ("max-record-size", u64::from(config.max_record_size), MEMORY),
            ("max-write-cache", storage.max_write_cache, MEMORY),
            ("post-write-cache", storage.post_write_cache, MEMORY),
        ]
    };
    let pairs = bounded(now).into_iter().zip(bounded(started));
    let above = pairs.filter(|((_, now, _), (_, limit, _))| now > limit);
    above.map(|(_, (item, limit, reason))| (item, NodeRule::AboveStart { limit, reason })).collect()
}

/// The rules between service and network.
pub(super) fn ports(network: &NetworkConfig, shards: u16) -> Vec<Broken> {
    let fit = network.port == 0 || network.port.checked_add(shards.max(1) - 1).is_some();
    if fit { Vec::new() } else { vec![("port", NodeRule::PortsRunOut { shards })] }
}

/// Finds files or devices that two namespaces, or one namespace twice, would write to. Gives the
/// name of the namespace to blame with each.
pub(super) fn shared_storage(config: &Config) -> Vec<(&str, Broken)> {
    let mut broken = Vec::new();
    let mut users: Vec<(&Path, &str)> = Vec::new();
    for namespace in &config.namespaces {
        let storage = &namespace.storage;
        for path in storage.files.iter().chain(&storage.devices) {
            match users.iter().find(|(used, _)| used == path) {
                Some((_, user)) => {
                    let (path, user) = (path.clone(), (*user).to_owned());
                    let rule = NodeRule::SharedStorage { path, namespace: user };
                    broken.push((namespace.name.as_str(), ("storage-engine", rule)));
                }
                None => users.push((path, &namespace.name)),
            }
        }
    }
    broken
}
