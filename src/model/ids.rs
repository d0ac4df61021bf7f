//! Small identifiers. All are dense indexes fixed at start (or at DC creation), never reused inside
//! a process.

use std::fmt;

/// Number of partitions of a namespace.
pub const PARTITION_COUNT: usize = 4096;

/// One of the 4096 slices of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartitionId(u16);

impl PartitionId {
    /// Wraps an index.
    ///
    /// # Panics
    /// If `index` is not below [`PARTITION_COUNT`].
    #[inline]
    pub const fn new(index: u16) -> Self {
        assert!((index as usize) < PARTITION_COUNT, "partition ids are 0..4096");
        Self(index)
    }

    /// The index, 0..4096.
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The shard that owns this partition in a process of `shard_count` shards: `partition mod
    /// shards`.
    #[inline]
    pub const fn shard(self, shard_count: u16) -> ShardIndex {
        ShardIndex(self.0 % shard_count)
    }

    /// All partitions, in order.
    pub fn all() -> impl ExactSizeIterator<Item = Self> + Clone {
        (0..PARTITION_COUNT as u16).map(Self)
    }

    /// The partitions one shard owns, in order.
    pub fn of_shard(shard: ShardIndex, shard_count: u16) -> impl Iterator<Item = Self> + Clone {
        (shard.0..PARTITION_COUNT as u16).step_by(usize::from(shard_count)).map(Self)
    }
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One pinned thread with one executor on one core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardIndex(pub u16);

/// A store, and how far it had come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreRun {
    /// Names the store for good; 0 where there was none to know.
    pub id: u64,
    /// Number of the run of it; later runs have higher ones.
    pub run: u32,
}

/// A namespace of this process, in configuration order (at most 32).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NamespaceId(pub u8);

impl NamespaceId {
    /// The id as an index into arrays by namespace.
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A destination datacenter of this process. A deleted DC's index is not given out again: what was
/// on its way for it, in whatever queue, can never be taken for another's. So it grows, and what is
/// kept by it is a map or a short list, never an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DcIndex(pub u32);

impl DcIndex {
    /// The index as an array index: of names beside a set of marks.
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// One (DC, namespace, partition).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LaneId {
    /// The DC that is shipped to.
    pub dc: DcIndex,
    /// The namespace at the source.
    pub namespace: NamespaceId,
    /// The partition, the same at source and destination.
    pub partition: PartitionId,
}

/// A set of a namespace, numbered in order of first use by each shard; 0 is "no set".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SetId(pub u16);

impl SetId {
    /// Records without a set.
    pub const NONE: Self = Self(0);
}

/// Identity of a cluster (`src-id`), 1..=255; 0 is "not given".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SrcId(pub u8);

impl SrcId {
    /// No identity configured, or the record's origin is this cluster.
    pub const NONE: Self = Self(0);
}
