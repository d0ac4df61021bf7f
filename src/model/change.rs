//! What a writer tells the shipper.

use super::{Digest, Lut, NamespaceId, SetId, SrcId, Version};

/// What kind of write a change was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// Bins or metadata were written.
    Write,
    /// A client deleted the record without asking for durability (an "expunge").
    Delete,
    /// A durable delete.
    DurableDelete,
    /// Expiry or eviction.
    NsupDelete,
}

impl ChangeKind {
    /// Whether the record is gone after it.
    #[inline]
    pub const fn is_delete(self) -> bool {
        !matches!(self, Self::Write)
    }
}

/// One write, as submitted to shipping: identity and circumstances, never data.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    /// Namespace of the record.
    pub namespace: NamespaceId,
    /// The record.
    pub digest: Digest,
    /// The version this write created.
    pub version: Version,
    /// LUT of the version before it; `None` when the record did not exist.
    pub previous_lut: Option<Lut>,
    /// Set of the record.
    pub set: SetId,
    /// What was done.
    pub kind: ChangeKind,
    /// The write came from a shipper (subject to the forward rule).
    pub shipped: bool,
    /// Cluster of origin of a shipped write; never shipped back there.
    pub src_id: SrcId,
}
