//! The namespaces of a DC on one shard, and which lanes each has: a block of lanes, one for each
//! partition of the shard. A block outlives its namespace, and the next one takes it.

use std::ops::Range;

use super::letters::Lettered;
use super::refusals::Refusals;
use super::stats::{Averages, Counters, Gauges, LimitedBy};
use super::throttle::Throttle;
use super::{Parked, Policy};
use crate::model::{Lut, NamespaceId, PARTITION_COUNT, PartitionId, Tick};
use crate::wire::ResultCode;

/// One namespace of a DC.
pub(super) struct Attached {
    pub(super) policy: Policy,
    /// Which block of lanes.
    pub(super) block: u32,
    /// Whether each set is shipped, by [`SetId`](crate::model::SetId), as far as asked.
    pub(super) sets: Vec<Option<bool>>,
    pub(super) throttle: Throttle,
    pub(super) parked: Option<Parked>,
    pub(super) paused: bool,
    /// Highest LUT submitted, or the version clock when attached.
    pub(super) newest: Lut,
    /// Changes up to here are to be read from the device.
    pub(super) in_memory_above: Lut,
    /// No change submitted after the last dispatch began has a lower LUT.
    pub(super) clock: Lut,
    pub(super) counters: Counters,
    pub(super) gauges: Gauges,
    pub(super) averages: Averages,
    pub(super) letters: Lettered,
    pub(super) refusals: Refusals,
    /// The last temporary error worth telling of, and when it came.
    pub(super) refused: Option<(ResultCode, Tick)>,
    /// What kept it from shipping more in the last dispatch.
    pub(super) limited_by: LimitedBy,
}

impl Attached {
    /// With nothing counted yet.
    pub(super) fn new(policy: Policy, block: u32, paused: bool, clock: Lut, now: Tick) -> Self {
        Self {
            throttle: Throttle::new(policy.records_per_s, now),
            policy,
            block,
            sets: Vec::new(),
            parked: None,
            paused,
            newest: clock,
            in_memory_above: Lut::ZERO,
            clock: Lut::ZERO,
            counters: Counters::default(),
            gauges: Gauges::default(),
            averages: Averages::default(),
            letters: Lettered::default(),
            refusals: Refusals::default(),
            refused: None,
            limited_by: LimitedBy::Nothing,
        }
    }

    /// Bytes that a change of the namespace takes on average, by those sent of late.
    pub(super) fn change_bytes(&self) -> u64 {
        self.averages.record_bytes().max(1)
    }
}

/// See the [module](self).
pub(super) struct Namespaces {
    shard: u16,
    shard_count: u16,
    /// Partitions of this shard.
    lanes_per_block: u32,
    /// By [`NamespaceId`].
    all: Vec<Option<Attached>>,
    /// Whose each block of lanes is.
    blocks: Vec<Option<NamespaceId>>,
}

impl Namespaces {
    pub(super) fn new(shard: u16, shard_count: u16) -> Self {
        let partitions = PARTITION_COUNT as u32 - u32::from(shard);
        Self {
            shard,
            shard_count,
            lanes_per_block: partitions.div_ceil(u32::from(shard_count)),
            all: Vec::new(),
            blocks: Vec::new(),
        }
    }

    /// Takes a block for a namespace that has none. True if it is a new one.
    pub(super) fn take_block(&mut self, namespace: NamespaceId) -> (u32, bool) {
        if let Some(free) = self.blocks.iter().position(Option::is_none) {
            self.blocks[free] = Some(namespace);
            return (free as u32, false);
        }
        self.blocks.push(Some(namespace));
        (self.blocks.len() as u32 - 1, true)
    }

    /// Adds a namespace that has taken its block.
    pub(super) fn add(&mut self, namespace: NamespaceId, attached: Attached) {
        debug_assert_eq!(self.blocks[attached.block as usize], Some(namespace));
        if self.all.len() <= namespace.index() {
            self.all.resize_with(namespace.index() + 1, || None);
        }
        self.all[namespace.index()] = Some(attached);
    }

    /// Takes a namespace out; its block is free.
    pub(super) fn remove(&mut self, namespace: NamespaceId) {
        if let Some(gone) = self.all[namespace.index()].take() {
            self.blocks[gone.block as usize] = None;
        }
    }

    #[inline]
    pub(super) fn get(&self, namespace: NamespaceId) -> Option<&Attached> {
        self.all.get(namespace.index())?.as_ref()
    }

    #[inline]
    pub(super) fn get_mut(&mut self, namespace: NamespaceId) -> Option<&mut Attached> {
        self.all.get_mut(namespace.index())?.as_mut()
    }

    /// The namespace of a lane in use.
    #[inline]
    pub(super) fn of_lane(&mut self, lane: u32) -> &mut Attached {
        let namespace = self.id_of(lane);
        self.all[namespace.index()].as_mut().expect("a block in use belongs to a namespace")
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Attached> {
        self.all.iter().flatten()
    }

    /// All of them, with their numbers.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (NamespaceId, &mut Attached)> {
        let all = self.all.iter_mut().enumerate();
        all.filter_map(|(id, ns)| Some((NamespaceId(id as u8), ns.as_mut()?)))
    }

    /// Their numbers, in the order of their blocks.
    pub(super) fn ids(&self) -> impl Iterator<Item = NamespaceId> + '_ {
        self.blocks.iter().flatten().copied()
    }

    /// Blocks there are, in use or not.
    #[inline]
    pub(super) const fn blocks(&self) -> u32 {
        self.blocks.len() as u32
    }

    /// Lanes of all blocks.
    pub(super) const fn lanes(&self) -> usize {
        self.blocks.len() * self.lanes_per_block as usize
    }

    /// Whose a block is.
    #[inline]
    pub(super) fn in_block(&self, block: u32) -> Option<NamespaceId> {
        self.blocks[block as usize]
    }

    #[inline]
    pub(super) const fn block_of(&self, lane: u32) -> u32 {
        // A predicted branch instead of a division: most DCs ship one namespace.
        if self.blocks.len() == 1 { 0 } else { lane / self.lanes_per_block }
    }

    /// Whose a lane in use is.
    #[inline]
    pub(super) fn id_of(&self, lane: u32) -> NamespaceId {
        self.in_block(self.block_of(lane)).expect("a lane in use belongs to a namespace")
    }

    #[inline]
    pub(super) fn partition_of(&self, lane: u32) -> PartitionId {
        let index = lane % self.lanes_per_block;
        PartitionId::new(self.shard + index as u16 * self.shard_count)
    }

    /// The lane of a partition of this shard; `None` if the namespace is not attached.
    #[inline]
    pub(super) fn lane_of(&self, namespace: NamespaceId, partition: PartitionId) -> Option<u32> {
        debug_assert!(self.has(partition));
        let block = self.get(namespace)?.block;
        Some(block * self.lanes_per_block + partition.index() as u32 / u32::from(self.shard_count))
    }

    /// Whether a partition is of this shard.
    #[inline]
    pub(super) fn has(&self, partition: PartitionId) -> bool {
        partition.shard(self.shard_count).0 == self.shard
    }

    #[inline]
    pub(super) const fn lanes_of(&self, block: u32) -> Range<u32> {
        block * self.lanes_per_block..(block + 1) * self.lanes_per_block
    }
}
