//! What a crash can cost, in time.

use crate::config::{NamespaceConfig, StorageConfig};

/// What a crash of a run may cost. Each device keeps that of its volume's last run: how a node is
/// configured now does not tell what one before it has left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CrashCost {
    /// How far back of the last acknowledged write acknowledged writes may be missing, in ms.
    pub loss_ms: u32,
    /// How far back of the last write others may be missing after a power failure, in ms.
    pub reorder_ms: u32,
}

impl CrashCost {
    pub(super) fn of(storage: &StorageConfig) -> Self {
        let (loss_ms, reorder_ms) = (loss_window_ms(storage), reorder_window_ms(storage));
        Self { loss_ms: loss_ms as u32, reorder_ms: reorder_ms as u32 }
    }

    /// What covers both.
    pub(super) fn max(self, other: Self) -> Self {
        Self {
            loss_ms: self.loss_ms.max(other.loss_ms),
            reorder_ms: self.reorder_ms.max(other.reorder_ms),
        }
    }
}

/// Longest a write and a flush of the device are expected to take together, in ms.
const SYNC_MS_MAX: u64 = 1000;

/// How far back of the last acknowledged write a crash may cost acknowledged writes, in ms.
///
/// A record waits up to `flush-max-ms` to be written, and is written. Then it waits for its flush
/// to begin: that is when the flush before has ended, but not sooner than `flush-max-ms` after that
/// one began. Then it waits for its own flush to end. A device slower than that is kept within the
/// window by refusing writes.
pub(super) fn loss_window_ms(storage: &StorageConfig) -> u64 {
    match storage.commit_to_device {
        true => 0,
        false => reorder_window_ms(storage),
    }
}

/// The longest loss window of a node's namespaces, in ms.
pub fn loss_window_of(namespaces: &[NamespaceConfig]) -> u64 {
    namespaces.iter().map(|namespace| loss_window_ms(&namespace.storage)).max().unwrap_or(0)
}

/// How far back of the last write a power failure may take writes and leave later ones, in ms.
fn reorder_window_ms(storage: &StorageConfig) -> u64 {
    2 * (u64::from(storage.flush_max_ms) + SYNC_MS_MAX)
}
