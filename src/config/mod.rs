//! Text to configuration: one table of keys with unit, range, default and whether it may change at
//! run time. Pure.

mod dc;
mod node;

pub use dc::{BinPolicy, DcConfig, DcNamespaceConfig, WritePolicy, XdrConfig};
pub use node::{
    CpuSet, LogLevel, LogSink, LoggingConfig, NamespaceConfig, NetworkConfig, ServiceConfig,
    StorageConfig,
};

/// Destinations at most.
pub const DC_COUNT_MAX: usize = 64;
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
}
