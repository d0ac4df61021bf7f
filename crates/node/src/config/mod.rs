//! What a node is told: text to configuration. The grammar and shipping's own context are
//! [`longship::config`]'s; here are the items of the process, its listeners, its log and its
//! namespaces. Pure, but for [`Config::load`].
//!
//! | file | what it does |
//! |---|---|
//! | `node` | the plain structures everybody else sees, and every default |
//! | `table`, `value` | the items: name, range, field, sentence; values of types that only a node has |
//! | `parse` | a file to structures, with all errors |
//! | `rules` | what items must be to each other |
//! | `live`, `show` | `set-config` and `get-config` of namespaces |
//! | `links` | several clusters' files seen together |
//! | `names` | what to say about a name that is not in the table |
//! | `log_modules` | what a `context` of a log sink stands for |
//!
//! What has no meaning here is ignored where that is safe, each with a note; anything else that is
//! not understood stops the start.
//!
#![doc = include_str!("items.md")]

pub mod links;
mod live;
mod log_modules;
mod names;
mod node;
mod parse;
#[cfg(test)]
mod reference;
mod rules;
mod show;
mod table;
#[cfg(test)]
mod tests;
mod value;

use longship::config::{ConfigNote, ItemError, XdrConfig, grammar};

pub use live::{LiveNamespace, LiveNamespaces};
pub use log_modules::{ANY, log_targets};
pub use node::{
    CpuSet, LogLevel, LogSink, LoggingConfig, NamespaceConfig, Network, NetworkConfig, Networks,
    NodeId, ServiceConfig, StorageConfig,
};
pub use parse::LoadError;

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

/// What is said of a name that is no item of shipping's.
pub(crate) fn explain(name: &str) -> Option<ItemError> {
    match grammar::names::explain(names::VOCABULARY, name, std::iter::empty()) {
        ItemError::Unknown { .. } => None,
        known => Some(known),
    }
}
