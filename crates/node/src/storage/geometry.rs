//! How the blocks of a namespace's devices are numbered and who owns them.
//!
//! Block 0 of a device holds its header; the others hold records. Block `b` of a device belongs to
//! shard `b mod shards`, so that every shard has the same share of it, however many there are.
//! **Blocks divide space, partitions divide records**: a shard appends its partitions' records to
//! blocks of its own, and only the owner of a block ever writes it. Reading needs no ownership.
//!
//! After a restart with another number of shards a block may hold records of several shards. Cold
//! start reads each block once, on the shard that owns it, and hands every record found to the
//! shard of its partition. A shard whose records lie in somebody else's block holds a *claim* on
//! that block and counts its own live bytes there. When all of them have been rewritten it gives
//! the claim up. The owner reuses the block when nothing of its own is alive in it and nobody
//! claims it. All shards empty the blocks they share in one order: by number, and of one number
//! those of each device in turn. So a block that the last shard empties is free at once, since the
//! others have left it, and that shard gets back at least the room it needs.

use super::index::BlockId;
use longship::model::ShardIndex;

/// One device's place in the numbering.
#[derive(Clone, Copy, Debug)]
struct Span {
    /// Number of its block 0.
    first: u32,
    /// Its blocks, block 0 included.
    blocks: u32,
    /// Position of its first own block in a table of own blocks.
    own_first: usize,
}

/// The numbering of blocks as one shard sees it.
#[derive(Clone, Debug)]
pub struct Geometry {
    /// Bytes of a write block.
    pub block_bytes: u32,
    shard: u32,
    shard_count: u32,
    spans: Vec<Span>,
    own_len: usize,
}

impl Geometry {
    /// Numbers devices of `device_blocks` blocks each, in this order.
    pub fn new(
        block_bytes: u32,
        device_blocks: &[u32],
        shard: ShardIndex,
        shard_count: u16,
    ) -> Self {
        let (shard, shard_count) = (u32::from(shard.0), u32::from(shard_count));
        let (mut first, mut own_len) = (0, 0);
        let spans = device_blocks.iter().map(|&blocks| {
            let span = Span { first, blocks, own_first: own_len };
            first += blocks;
            own_len += blocks.div_ceil(shard_count) as usize;
            span
        });
        let spans = spans.collect();
        Self { block_bytes, shard, shard_count, spans, own_len }
    }

    /// Number of blocks of all devices.
    pub fn block_count(&self) -> u32 {
        self.spans.last().map_or(0, |span| span.first + span.blocks)
    }

    /// The device of a block, and the block's number there.
    #[inline]
    pub fn on_device(&self, id: BlockId) -> (usize, u32) {
        let device = self.spans.partition_point(|span| span.first <= id.0) - 1;
        (device, id.0 - self.spans[device].first)
    }

    /// The block of that number on a device, if there is one.
    pub fn at(&self, device: usize, number: u32) -> Option<BlockId> {
        let span = self.spans.get(device).filter(|span| number < span.blocks)?;
        Some(BlockId(span.first + number))
    }

    /// The device of a block, and the byte it starts at.
    #[inline]
    pub fn offset(&self, id: BlockId) -> (usize, u64) {
        let (device, number) = self.on_device(id);
        (device, u64::from(number) * u64::from(self.block_bytes))
    }

    /// The only shard that may write a block.
    #[inline]
    pub fn owner(&self, id: BlockId) -> ShardIndex {
        ShardIndex((self.on_device(id).1 % self.shard_count) as u16)
    }

    /// Tells one way of sharing out blocks from another.
    pub fn layout(&self, device_ids: &[u64]) -> u32 {
        let of = self.shard_count.to_le_bytes();
        self.spans.iter().zip(device_ids).fold(crc32c::crc32c(&of), |layout, (span, id)| {
            let layout = crc32c::crc32c_append(layout, &id.to_le_bytes());
            crc32c::crc32c_append(layout, &span.blocks.to_le_bytes())
        })
    }

    /// Size of a table with a row for each own block (and a few for blocks that do not exist).
    pub fn own_len(&self) -> usize {
        self.own_len
    }

    /// The row of a block in such a table; `None` for another shard's block.
    #[inline]
    pub fn own_index(&self, id: BlockId) -> Option<usize> {
        let (device, number) = self.on_device(id);
        (number % self.shard_count == self.shard)
            .then(|| self.spans[device].own_first + (number / self.shard_count) as usize)
    }

    /// The blocks that hold records: by number, devices taking turns.
    pub fn record_blocks(&self) -> impl Iterator<Item = BlockId> + '_ {
        let longest = self.spans.iter().map(|span| span.blocks).max().unwrap_or(0);
        (1..longest).flat_map(|number| {
            let there = self.spans.iter().filter(move |span| number < span.blocks);
            there.map(move |span| BlockId(span.first + number))
        })
    }

    /// The own ones among them.
    pub fn own_blocks(&self) -> impl Iterator<Item = BlockId> + '_ {
        self.record_blocks().filter(|id| u32::from(self.owner(*id).0) == self.shard)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_block_has_one_owner_and_one_row() {
        for (shards, devices) in [
            (1, vec![16]),
            (2, vec![200, 130]),
            (3, vec![1000]),
            (33, vec![500]),
            (6, vec![7, 50, 1]),
        ] {
            let mut seen = HashSet::new();
            for shard in 0..shards {
                let shard = ShardIndex(shard);
                let geometry = Geometry::new(1 << 20, &devices, shard, shards);
                let mut rows = HashSet::new();
                for id in geometry.own_blocks() {
                    assert_eq!(geometry.owner(id), shard);
                    let row = geometry.own_index(id).expect("own");
                    assert!(row < geometry.own_len() && rows.insert(row));
                    assert!(seen.insert(id) && geometry.on_device(id).1 > 0);
                }
            }
            let expected: u32 = devices.iter().map(|blocks| blocks - 1).sum();
            assert_eq!(seen.len(), expected as usize, "{shards} {devices:?}");
        }
    }

    #[test]
    fn a_block_starts_where_its_device_has_it() {
        let geometry = Geometry::new(1 << 20, &[10, 20], ShardIndex(0), 1);
        assert_eq!(geometry.offset(BlockId(9)), (0, 9 << 20));
        assert_eq!(geometry.offset(BlockId(10)), (1, 0));
        assert_eq!(geometry.offset(BlockId(29)), (1, 19 << 20));
        assert_eq!(geometry.block_count(), 30);
    }

    #[test]
    fn every_shard_has_the_same_share_however_many_there_are() {
        for shards in [1, 2, 3, 33, 48, 64, 65, 100] {
            let own = (0..shards).map(|shard| {
                Geometry::new(1 << 20, &[10_000], ShardIndex(shard), shards).own_blocks().count()
            });
            let (least, most) = own.fold((usize::MAX, 0), |(a, b), n| (a.min(n), b.max(n)));
            assert!(most - least <= 1, "{shards} shards: {least} to {most} blocks");
        }
    }
}
