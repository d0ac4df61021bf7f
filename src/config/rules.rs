//! Rules that join several items, checked after a file is read and after each change at run time.

use std::path::Path;

use super::error::RuleError;
use super::{Config, DcNamespaceConfig, NamespaceConfig, NetworkConfig};

/// A broken rule and the item to point at.
pub(super) type Broken = (&'static str, RuleError);

/// The rules inside one namespace of a DC.
pub(super) fn dc_namespace(config: &DcNamespaceConfig) -> Vec<Broken> {
    let mut broken = Vec::new();
    let DcNamespaceConfig { delay_ms, hot_key_ms, .. } = *config;
    if delay_ms > hot_key_ms {
        broken.push(("delay-ms", RuleError::DelayOverHotKey { hot_key_ms }));
    }
    let mut disjoint = |list: &[String], item, opposite: &[String], other| {
        for name in list.iter().filter(|name| opposite.contains(name)) {
            broken.push((item, RuleError::InBothLists { name: name.clone(), other }));
        }
    };
    disjoint(&config.shipped_bins, "ship-bin", &config.ignored_bins, "ignore-bin");
    disjoint(&config.shipped_sets, "ship-set", &config.ignored_sets, "ignore-set");
    broken
}

/// The rules inside one namespace.
pub(super) fn namespace(config: &NamespaceConfig) -> Vec<Broken> {
    let mut broken = Vec::new();
    let storage = &config.storage;
    let write_block_size = storage.write_block_size;
    if config.max_record_size > write_block_size {
        broken.push(("max-record-size", RuleError::RecordOverBlock { write_block_size }));
    }
    if config.default_ttl_s > 0 && config.nsup_period_s == 0 && !config.allow_ttl_without_nsup {
        broken.push(("default-ttl", RuleError::TtlWithoutNsup));
    }
    match (storage.files.is_empty(), storage.devices.is_empty()) {
        (true, true) => broken.push(("storage-engine", RuleError::NoStorage)),
        (false, false) => broken.push(("storage-engine", RuleError::FilesAndDevices)),
        (false, true) if storage.filesize == 0 => {
            broken.push(("filesize", RuleError::NoFilesize));
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
    above
        .map(|(_, (item, limit, reason))| (item, RuleError::AboveStart { limit, reason }))
        .collect()
}

/// The rules between service and network.
pub(super) fn ports(network: &NetworkConfig, shards: u16) -> Vec<Broken> {
    let fit = network.port == 0 || network.port.checked_add(shards.max(1) - 1).is_some();
    if fit { Vec::new() } else { vec![("port", RuleError::PortsRunOut { shards })] }
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
                    let rule = RuleError::SharedStorage { path, namespace: user };
                    broken.push((namespace.name.as_str(), ("storage-engine", rule)));
                }
                None => users.push((path, &namespace.name)),
            }
        }
    }
    broken
}
