//! Text to configuration: one table of items with unit, range, default and whether it may change at
//! run time. Pure, but for [`Config::load`].
//!
//! | file | what it does |
//! |---|---|
//! | `node`, `dc` | the plain structures everybody else sees, and every default |
//! | `table` | the items: name, range, field, sentence |
//! | `kind`, `value` | ranges, units and names; reading and showing a value of each type |
//! | `text`, `parse` | a file to a tree, the tree to structures, with all errors |
//! | `rules` | what items must be to each other |
//! | `live`, `show` | `set-config` and `get-config` |
//! | `links` | several clusters' files seen together |
//! | `names` | what to say about a name that is not in the table |
//! | `log_modules` | what a `context` of a log sink stands for |
//!
//! Strict by intent: an item that is unknown, out of range, of an older release or not built yet
//! stops the start with file, line, item and what would be right. What has no meaning here is ignored
//! where that is safe, each with a note.
//!
#![doc = include_str!("items.md")]

mod dc;
mod error;
mod kind;
pub mod links;
mod live;
mod log_modules;
mod names;
mod node;
mod parse;
mod reference;
mod rules;
mod show;
mod table;
#[cfg(test)]
mod tests;
mod text;
mod value;

pub use dc::{BinPolicy, DcConfig, DcNamespaceConfig, WritePolicy, XdrConfig};
pub use error::{
    ConfigError, ConfigErrors, ConfigNote, FileError, ItemError, LoadError, RuleError,
};
pub use live::{LiveNamespace, LiveNamespaces};
pub use log_modules::{ANY, log_targets};
pub use node::{
    CpuSet, LogLevel, LogSink, LoggingConfig, NamespaceConfig, Network, NetworkConfig,
    ServiceConfig, StorageConfig,
};

pub use reference::reference;

/// Seconds written as an operator writes them: a number, with s, m, h or d behind it in either case.
/// `None` for anything else, and for more than can be counted.
pub fn read_seconds(text: &str) -> Option<u64> {
    kind::Unit::Seconds.read(text)
}

pub(crate) use names::nearest as nearest_name;

/// Destinations at most.
pub const DC_COUNT_MAX: usize = 64;
/// Seeds of a DC at most.
pub const SEED_COUNT_MAX: usize = 64;
/// Entries of any other list at most.
pub const LIST_ENTRIES_MAX: usize = 1024;
/// Namespaces at most.
pub const NAMESPACE_COUNT_MAX: usize = 32;
/// Bytes of a DC's or a namespace's name at most.
pub const NAME_BYTES_MAX: usize = 31;

/// Everything a node is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// The process.
    pub service: ServiceConfig,
    /// Its listeners.
    pub network: NetworkConfig,
    /// Its log.
    pub logging: LoggingConfig,
    /// What it stores, in the order given.
    pub namespaces: Vec<NamespaceConfig>,
    /// What it ships.
    pub xdr: XdrConfig,
    /// What was read over, and why that is safe.
    pub notes: Vec<ConfigNote>,
}

impl Config {
    /// Names of the namespaces, in order of their ids.
    pub fn namespace_names(&self) -> Vec<String> {
        self.namespaces.iter().map(|namespace| namespace.name.clone()).collect()
    }
}
