//! The items of namespaces, as operators change them while the node runs.

use longship::config::ItemError;
use longship::host::NamespaceSettings;
use longship::model::NamespaceId;

use crate::config::{LiveNamespace, NamespaceConfig, explain};

/// What the control loop judges changes by. Each shard's store follows with its own copy.
#[derive(Debug)]
pub struct Settings(Vec<LiveNamespace>);

impl Settings {
    /// Of namespaces as they are started, in order of their ids.
    pub fn of(namespaces: &[NamespaceConfig]) -> Self {
        Self(namespaces.iter().cloned().map(LiveNamespace::from).collect())
    }
}

impl NamespaceSettings for Settings {
    fn set(&mut self, namespace: NamespaceId, key: &str, value: &str) -> Result<bool, ItemError> {
        self.0[namespace.index()].set(key, value)
    }

    fn explain(&self, key: &str) -> Option<ItemError> {
        explain(key)
    }
}
