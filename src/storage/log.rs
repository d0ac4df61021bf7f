//! The blocks of one shard's part of a namespace: which are free, how much in each is alive, and
//! when one may be written again.
//!
//! A block is reused only when nothing in it is alive *and* what replaced its records is durable:
//! until then a crash would need it. Such blocks cool down first, together with the position of the
//! log that must become durable before.
//!
//! Blocks never written are taken last, in order, so that a fresh file is written once ahead of the
//! log's head (see [`super::volume`]).

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use super::block::{BlockHeader, LutRange};
use super::geometry::Geometry;
use super::index::{BlockId, Location};
use super::volume::{Claims, Volume};
use crate::model::{ShardIndex, Version};
use crate::rt::arena::AppendBuffer;

/// What a block takes from the free ones for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A write: leaves the reserve alone.
    Write,
    /// A delete: may use half of the reserve.
    Delete,
    /// Defragmentation: may use it all, since it gives back more.
    Defrag,
}

/// Life of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockState {
    /// May be written.
    Free,
    /// Being filled, or not all on the device yet.
    Filling,
    /// On the device, with records alive in it.
    Full,
    /// Nothing alive in it, but what replaced it is not durable yet, or another shard claims it.
    Cooling,
    /// The device cannot read it: left alone.
    Bad,
}

/// What a shard knows about a block of its own.
#[derive(Clone, Debug)]
pub struct Block {
    /// Where it stands.
    pub state: BlockState,
    /// Its present filling.
    pub sequence: Version,
    /// Bytes of this shard's records alive in it.
    pub live_bytes: u32,
    /// LUTs of the records written to it.
    pub luts: LutRange,
    /// Its content, while it is in memory.
    pub memory: Option<Rc<AppendBuffer>>,
}

impl Block {
    const FREE: Self = Self {
        state: BlockState::Free,
        sequence: Version::ZERO,
        live_bytes: 0,
        luts: LutRange::EMPTY,
        memory: None,
    };
}

/// The blocks of one shard's part of a namespace.
pub struct Log {
    geometry: Geometry,
    rows: Vec<Block>,
    own_count: usize,
    /// Free and written before.
    recycled: VecDeque<BlockId>,
    /// Free and never written.
    fresh: VecDeque<BlockId>,
    /// With the position that must be durable before they are free.
    cooling: VecDeque<(u64, BlockId)>,
    /// Empty of ours, waiting for other shards.
    claimed: Vec<BlockId>,
    /// Bytes alive in other shards' blocks.
    foreign: HashMap<BlockId, u32>,
    /// Claims to give up, with the position that must be durable before.
    leaving: VecDeque<(u64, BlockId)>,
    claims: Arc<Claims>,
    device_ids: Vec<u64>,
}

impl Log {
    /// A log with all of the shard's blocks fresh.
    pub fn new(volume: &Volume, shard: ShardIndex) -> Self {
        let geometry = volume.geometry(shard);
        let fresh: VecDeque<BlockId> = geometry.own_blocks().collect();
        Self {
            rows: vec![Block::FREE; geometry.own_len()],
            own_count: fresh.len(),
            recycled: VecDeque::new(),
            fresh,
            cooling: VecDeque::new(),
            claimed: Vec::new(),
            foreign: HashMap::new(),
            leaving: VecDeque::new(),
            claims: Arc::clone(&volume.claims),
            device_ids: volume.devices.iter().map(|device| device.id).collect(),
            geometry,
        }
    }

    /// The numbering.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Own blocks, whatever their state.
    pub fn own_count(&self) -> usize {
        self.own_count
    }

    /// Blocks that may be written now.
    pub fn free_count(&self) -> usize {
        self.recycled.len() + self.fresh.len()
    }

    /// Blocks that will be free once what is being written is durable.
    pub fn cooling_count(&self) -> usize {
        self.cooling.len()
    }

    /// Free blocks that writes leave alone.
    pub fn reserve(&self) -> usize {
        (self.own_count / 64).clamp(2, 64)
    }

    /// An own block.
    pub fn block(&self, id: BlockId) -> Option<&Block> {
        Some(&self.rows[self.geometry.own_index(id)?])
    }

    /// An own block, to change.
    pub fn block_mut(&mut self, id: BlockId) -> Option<&mut Block> {
        let row = self.geometry.own_index(id)?;
        Some(&mut self.rows[row])
    }

    /// The header of a block's filling.
    pub fn header(&self, id: BlockId, sequence: Version) -> BlockHeader {
        let (device, number) = self.geometry.on_device(id);
        let stripe = self.geometry.stripe(id);
        BlockHeader { sequence, device_id: self.device_ids[device], number, stripe }
    }

    /// Takes a block to fill. `None` when the purpose may not have what is left.
    pub fn take(&mut self, purpose: Purpose, sequence: Version) -> Option<BlockId> {
        let keep = match purpose {
            Purpose::Write => self.reserve(),
            Purpose::Delete => self.reserve() / 2,
            Purpose::Defrag => 0,
        };
        if self.free_count() <= keep {
            return None;
        }
        let id = match self.recycled.pop_front() {
            Some(id) => id,
            None => self.take_fresh()?,
        };
        let block = self.block_mut(id)?;
        *block = Block { state: BlockState::Filling, sequence, ..Block::FREE };
        Some(id)
    }

    /// The next block never written. One that is being zeroed at this moment is passed over: it
    /// will be ready at the next turn.
    fn take_fresh(&mut self) -> Option<BlockId> {
        for _ in 0..self.fresh.len() {
            let id = self.fresh.pop_front()?;
            if self.claims.take_fresh(id) {
                return Some(id);
            }
            self.fresh.push_back(id);
        }
        None
    }

    /// A filled block is on the device, all of it.
    pub fn filled(&mut self, id: BlockId, appended: u64) {
        if let Some(block) = self.block_mut(id) {
            block.state = BlockState::Full;
            self.free_when_empty(id, appended);
        }
    }

    /// A record lies at `location` now.
    #[inline]
    pub fn add_live(&mut self, location: Location) {
        match self.block_mut(location.block) {
            Some(block) => block.live_bytes += location.extent,
            None => *self.foreign.entry(location.block).or_default() += location.extent,
        }
    }

    /// What lies at `location` is replaced by something at or before position `appended`.
    #[inline]
    pub fn drop_live(&mut self, location: Location, appended: u64) {
        if let Some(block) = self.block_mut(location.block) {
            debug_assert!(block.live_bytes >= location.extent);
            block.live_bytes -= location.extent;
            if block.live_bytes == 0 {
                self.free_when_empty(location.block, appended);
            }
        } else if let Some(live_bytes) = self.foreign.get_mut(&location.block) {
            *live_bytes -= location.extent;
            if *live_bytes == 0 {
                self.foreign.remove(&location.block);
                self.leaving.push_back((appended, location.block));
            }
        }
    }

    fn free_when_empty(&mut self, id: BlockId, appended: u64) {
        let Some(block) = self.block_mut(id) else { return };
        if block.state == BlockState::Full && block.live_bytes == 0 {
            block.state = BlockState::Cooling;
            self.cooling.push_back((appended, id));
        }
    }

    /// Everything before position `durable` is: blocks and claims that waited for it are released.
    pub fn settle(&mut self, durable: u64) {
        while let Some((_, id)) = self.leaving.pop_front_if(|(needed, _)| *needed <= durable) {
            self.claims.release(id);
        }
        while let Some((_, id)) = self.cooling.pop_front_if(|(needed, _)| *needed <= durable) {
            self.claimed.push(id);
        }
        let mut waiting = std::mem::take(&mut self.claimed);
        waiting.retain(|id| {
            let keep = self.claims.is_claimed(*id);
            if !keep {
                self.set_free(*id);
            }
            keep
        });
        self.claimed = waiting;
    }

    fn set_free(&mut self, id: BlockId) {
        if let Some(block) = self.block_mut(id) {
            *block = Block::FREE;
            self.recycled.push_back(id);
        }
    }

    /// Cold start has found what every own block holds: sorts them into free ones and others.
    /// `written` tells which were ever written.
    pub fn sort_after_start(&mut self, mut written: impl FnMut(BlockId) -> bool) {
        let ids: Vec<BlockId> = self.geometry.own_blocks().collect();
        self.fresh.clear();
        self.recycled.clear();
        for id in ids {
            let claimed = self.claims.is_claimed(id);
            let Some(block) = self.block_mut(id) else { continue };
            match block.state {
                BlockState::Bad => {}
                _ if block.live_bytes > 0 => block.state = BlockState::Full,
                _ if claimed => {
                    block.state = BlockState::Cooling;
                    self.claimed.push(id);
                }
                _ => {
                    *block = Block::FREE;
                    let list = if written(id) { &mut self.recycled } else { &mut self.fresh };
                    list.push_back(id);
                }
            }
        }
    }

    /// Cold start has read everything: claims the other shards' blocks in which records of this
    /// shard lie.
    pub fn claim_foreign(&mut self) {
        self.leaving.clear();
        self.foreign.keys().for_each(|id| self.claims.claim(*id));
    }

    /// Own blocks with their state, by number.
    pub fn blocks(&self) -> impl Iterator<Item = (BlockId, &Block)> {
        self.geometry.own_blocks().filter_map(|id| Some((id, self.block(id)?)))
    }
}
