//! What a crash can cost, in time.

use crate::config::{NamespaceConfig, StorageConfig};

/// Longest a write and a flush of the device are expected to take together, in ms.
const SYNC_MS_MAX: u64 = 1000;

/// How far back of the last acknowledged write a crash may cost acknowledged writes, in ms.
///
/// A record waits up to `flush-max-ms` to be written, and is written; then it waits for the flush
/// of the device before, or until `flush-max-ms` after that one began, whichever is later; then for
/// its own. A device slower than that is kept within the window by refusing writes.
pub(super) fn loss_window_ms(storage: &StorageConfig) -> u64 {
    match storage.commit_to_device {
        true => 0,
        false => reorder_window_ms(storage),
    }
}

/// The same of all of a node's namespaces together.
pub fn loss_window_of(namespaces: &[NamespaceConfig]) -> u64 {
    namespaces.iter().map(|namespace| loss_window_ms(&namespace.storage)).max().unwrap_or(0)
}

/// How far back of the last write a power failure may take writes and leave later ones, in ms.
pub(super) fn reorder_window_ms(storage: &StorageConfig) -> u64 {
    2 * (u64::from(storage.flush_max_ms) + SYNC_MS_MAX)
}
