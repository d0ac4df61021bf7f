//! What a writer tells the shipper, and what a walk finds of it later.

use super::{Digest, Lut, NamespaceId, SetId, SrcId, Version};

/// What kind of write a change was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// Bins or metadata were written.
    Write,
    /// A client deleted the record without asking for durability (an "expunge").
    Delete,
    /// A client deleted the record and asked for durability: a tombstone stays.
    DurableDelete,
    /// Expiry or eviction. It keeps whether and from where the record was shipped in, so that it
    /// goes no further than the record went.
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
    /// Digest of the record.
    pub digest: Digest,
    /// The version this write created.
    pub version: Version,
    /// LUT of the version before it; `None` when the record did not exist.
    pub previous_lut: Option<Lut>,
    /// Set of the record.
    pub set: SetId,
    /// What kind of write it was.
    pub kind: ChangeKind,
    /// The write came from a shipper (subject to the forward rule).
    pub shipped: bool,
    /// Cluster of origin of a shipped write; never shipped back there.
    pub src_id: SrcId,
}

impl Change {
    /// A client's write of a record that was not there, in no set.
    pub const fn new(namespace: NamespaceId, digest: Digest, version: Version) -> Self {
        Self {
            namespace,
            digest,
            version,
            previous_lut: None,
            set: SetId::NONE,
            kind: ChangeKind::Write,
            shipped: false,
            src_id: SrcId::NONE,
        }
    }
}

/// One record found by a walk.
#[derive(Clone, Copy, Debug)]
pub struct Walked {
    /// Digest of the record.
    pub digest: Digest,
    /// Version of the record now, which may be newer than the walk.
    pub version: Version,
    /// LUT of its last change not made by a shipper. An expiry or eviction is not one here: it
    /// leaves the LUT of the change before it.
    pub local_lut: Lut,
    /// Set of the record.
    pub set: SetId,
    /// Kind of its last write: what would ship.
    pub kind: ChangeKind,
    /// The last write came from a shipper.
    pub shipped: bool,
    /// Cluster of origin of a shipped write.
    pub src_id: SrcId,
}

impl Walked {
    /// A record in no set, last changed here.
    pub const fn new(digest: Digest, version: Version, kind: ChangeKind) -> Self {
        let (set, local_lut) = (SetId::NONE, version.lut());
        Self { digest, version, local_lut, set, kind, shipped: false, src_id: SrcId::NONE }
    }
}
