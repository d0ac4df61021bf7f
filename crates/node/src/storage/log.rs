//! The blocks of one shard's part of a namespace: which are free, how much in each is alive, and
//! when one may be written again.
//!
//! A block is reused only when nothing in it is alive *and* what replaced its records is durable:
//! until then a crash would need it. Such blocks cool down first, together with the position of the
//! log that must become durable before.
//!
//! Blocks never written are taken last, in order, so that a fresh file is written once ahead of the
//! log's head (see [`super::volume`]).

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use super::block::{
    BLOCK_HEADER_BYTES, BlockHeader, BlockName, Former, LutRange, MovedTo, device_tag,
    record_extent_max,
};
use super::geometry::Geometry;
use super::index::{BlockId, Location};
use super::volume::{Claims, Volume};
use longship::model::{Lut, ShardIndex, Version};
use longship::ship::mutation::{Mutation, planted};
use longship_rt::arena::AppendBuffer;

/// What a block is taken from the free ones for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A write: leaves the reserve alone.
    Write,
    /// A delete: may use half of the reserve.
    Delete,
    /// Defragmentation: may use it all, since it gives back more.
    Defrag,
}

/// How far a shard's two logs have got: that of writes, and that of records moved by
/// defragmentation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogPositions {
    /// In the log of writes.
    pub writes: u64,
    /// In the log of moves.
    pub moves: u64,
}

impl LogPositions {
    /// Whether both logs have got as far as `durable` says.
    pub fn are_within(self, durable: Self) -> bool {
        self.writes <= durable.writes && self.moves <= durable.moves
    }
}

/// Victims of defragmentation are sorted by how full they are, in so many classes.
const CLASSES: u8 = 32;

/// Moving the records of a block fuller than this gains nothing worth having.
pub const VICTIM_PCT_MAX: u32 = 97;

/// Life of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockState {
    /// May be written.
    Free,
    /// Being filled, or not all on the device yet.
    Filling,
    /// On the device, with records alive in it.
    Full,
    /// Its records are being moved elsewhere.
    Moving,
    /// Nothing alive in it, but what replaced it is not durable yet, or another shard claims it.
    Cooling,
    /// The device can neither read nor write some of it: never filled again.
    Bad,
}

/// What a shard knows about a block of its own.
#[derive(Clone, Debug)]
pub struct Block {
    /// Where it stands.
    pub state: BlockState,
    /// Its present filling, or the last one of a free block.
    pub sequence: Version,
    /// Bytes of this shard's records alive in it.
    pub live_bytes: u32,
    /// LUTs of the records written to it.
    pub luts: LutRange,
    /// Its content, while it is in memory.
    pub memory: Option<Rc<AppendBuffer>>,
    /// The list of victims it was last put on.
    class: u8,
}

impl Block {
    /// Whether it is never filled again.
    pub fn is_bad(&self) -> bool {
        self.state == BlockState::Bad
    }

    const FREE: Self = Self {
        state: BlockState::Free,
        sequence: Version::ZERO,
        live_bytes: 0,
        luts: LutRange::EMPTY,
        memory: None,
        class: CLASSES,
    };
}

/// What a shard knows about another shard's block in which its records lie.
#[derive(Clone, Copy, Debug)]
pub struct Foreign {
    /// Bytes of this shard's records alive in it.
    pub live_bytes: u32,
    /// Their LUTs, and perhaps those of records that were alive before.
    pub luts: LutRange,
}

/// How far the records of a block were moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// All that can be read.
    All,
    /// There is no room for them, or the store stops.
    NoRoom,
    /// The block cannot be read.
    Unread,
}

impl Foreign {
    /// So much of it alive.
    pub fn new(live_bytes: u32, luts: LutRange) -> Self {
        Self { live_bytes, luts }
    }
}

/// A block that may hold something a walk wants.
#[derive(Clone, Copy, Debug)]
pub struct Changed {
    /// The block.
    pub id: BlockId,
    /// Its filling; `None` for another shard's block.
    pub sequence: Option<Version>,
    /// LUTs of what lies there.
    pub luts: LutRange,
    /// It may still be getting records.
    pub is_open: bool,
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
    /// With the positions that must be durable before they are free.
    cooling: VecDeque<(LogPositions, BlockId)>,
    /// Empty of ours, waiting for other shards.
    claimed: Vec<BlockId>,
    /// Blocks kept in memory although they are on the device, oldest first.
    cached: VecDeque<(BlockId, Version)>,
    cached_max: usize,
    /// Highest LUT of a block that is no longer in memory.
    pub in_memory_above: Lut,
    /// Blocks to defragment, by class; an entry counts only if the block still says the same.
    victims: [VecDeque<BlockId>; CLASSES as usize],
    /// Victims being moved.
    moving: usize,
    /// Bytes alive in other shards' blocks.
    foreign: BTreeMap<BlockId, Foreign>,
    /// Blocks that hold records of this shard and of others, in the order in which all shards empty
    /// them: whoever is behind gets back at least as many as it needs, however full the device is.
    /// `None` until the first is asked for.
    shared: Option<VecDeque<BlockId>>,
    /// The last of them could not be emptied.
    shared_waits: bool,
    /// The last two fillings that moved records went to, the newest first, each with the position of
    /// its first byte in the log of moves.
    moved_to: [(Former, u64); 2],
    /// What was moved out of blocks that are free again ended by this position of that log.
    moves_relied_on: u64,
    /// Claims to give up, with the positions that must be durable before.
    leaving: VecDeque<(LogPositions, BlockId)>,
    claims: Arc<Claims>,
    device_ids: Vec<u64>,
    /// How blocks are shared out, for their headers.
    layout: u32,
    /// Blocks taken when they were fresh that may be blank on the device yet, each with the
    /// positions that must be durable before it is not.
    unproven: Vec<(BlockId, LogPositions)>,
    /// Blocks that a start found damaged: they are made sound before they are filled again.
    unsound: HashSet<BlockId>,
    /// Those of them in which nothing is alive any more.
    to_seal: Vec<BlockId>,
    /// Highest LUT of a tombstone ever forgotten: what asks for changes from before may miss
    /// deletes. Goes into every block opened from now on.
    pub tombstone_horizon: Lut,
}

impl Log {
    /// A log with all of the shard's blocks fresh, that keeps so many of those written in memory.
    pub fn new(volume: &Volume, shard: ShardIndex, cached_max: usize) -> Self {
        let geometry = volume.geometry(shard);
        let fresh: VecDeque<BlockId> = geometry.own_blocks().collect();
        let device_ids: Vec<u64> = volume.devices.iter().map(|device| device.id).collect();
        Self {
            layout: geometry.layout(&device_ids),
            unproven: Vec::new(),
            unsound: HashSet::new(),
            to_seal: Vec::new(),
            rows: vec![Block::FREE; geometry.own_len()],
            own_count: fresh.len(),
            recycled: VecDeque::new(),
            fresh,
            cooling: VecDeque::new(),
            claimed: Vec::new(),
            cached: VecDeque::new(),
            cached_max,
            in_memory_above: Lut::ZERO,
            victims: Default::default(),
            moving: 0,
            foreign: BTreeMap::new(),
            shared: None,
            shared_waits: false,
            moved_to: Default::default(),
            moves_relied_on: 0,
            leaving: VecDeque::new(),
            claims: Arc::clone(&volume.claims),
            device_ids,
            tombstone_horizon: Lut::ZERO,
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

    /// Own blocks that were ever written.
    pub fn used_count(&self) -> usize {
        self.own_count - self.fresh.len()
    }

    /// Every block in which versions of this shard's records with a LUT of at most `newest` may lie,
    /// alive or dead. Of other shards' blocks it is not known what is dead in them.
    pub fn written_before(&self, newest: Lut) -> Vec<BlockId> {
        let fresh = self.fresh_blocks();
        let mut ids: Vec<BlockId> = match self.claims.is_mixed() {
            true => self.geometry.record_blocks().collect(),
            false => self.geometry.own_blocks().collect(),
        };
        let may_hold = |id: &BlockId| {
            let block = self.block(*id);
            block.is_none_or(|block| block.luts.lowest <= newest) && !fresh.contains(id)
        };
        ids.retain(may_hold);
        ids
    }

    /// Has a block emptied before others, since part of it cannot be read: it is sound again once it
    /// is written anew.
    pub fn empty_soon(&mut self, id: BlockId) {
        if let Some(block) = self.block_mut(id)
            && block.state == BlockState::Full
            && block.class > 0
        {
            block.class = 0;
            self.victims[0].push_back(id);
        }
    }

    /// Blocks that may be written now.
    pub fn free_count(&self) -> usize {
        self.recycled.len() + self.fresh.len()
    }

    /// What must become durable soon, since blocks are short and one waits for it.
    pub fn urgently_needed(&self) -> Option<LogPositions> {
        let is_short = self.free_count() <= 2 * self.reserve();
        self.cooling.front().filter(|_| is_short).map(|(needed, _)| *needed)
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

    /// Which block of which device it is.
    pub fn name(&self, id: BlockId) -> BlockName {
        let (device, number) = self.geometry.on_device(id);
        BlockName { device_id: self.device_ids[device], number }
    }

    /// The sequence of a block's present filling, as far as this shard knows: of its own blocks.
    pub fn sequence(&self, id: BlockId) -> Option<Version> {
        let sequence = self.block(id)?.sequence;
        (sequence != Version::ZERO).then_some(sequence)
    }

    /// Bytes of this shard's records alive in a block.
    pub fn live_bytes(&self, id: BlockId) -> u32 {
        match self.block(id) {
            Some(block) => block.live_bytes,
            None => self.foreign.get(&id).map_or(0, |block| block.live_bytes),
        }
    }

    /// The lowest LUT of this shard's records in a block.
    pub fn lowest(&self, id: BlockId) -> Lut {
        match self.block(id) {
            Some(block) => block.luts.lowest,
            None => self.foreign.get(&id).map_or(Lut::MAX, |block| block.luts.lowest),
        }
    }

    /// The block that a header vouches for, if it is there yet.
    pub fn find(&self, former: &Former) -> Option<BlockId> {
        let is_it = |id: &u64| device_tag(*id) == former.device;
        let device = self.device_ids.iter().position(is_it)?;
        self.geometry.at(device, former.number).filter(|_| former.sequence != Version::ZERO)
    }

    /// How blocks are shared out.
    pub fn layout(&self) -> u32 {
        self.layout
    }

    /// The header of a block's filling, after `former` in its log, of which had `arrived` what was
    /// begun before that.
    pub fn header(
        &self,
        id: BlockId,
        purpose: Purpose,
        sequence: Version,
        (former, arrived): (Former, Version),
    ) -> BlockHeader {
        let BlockName { device_id, number } = self.name(id);
        let (shard, horizon) = (self.geometry.owner(id).0, self.tombstone_horizon);
        let is_in_order = purpose != Purpose::Defrag;
        let unproven = self.unproven.iter().filter(|(other, _)| *other != id).count();
        let blank_max = (self.fresh.len() + unproven) as u32;
        let layout = self.layout;
        BlockHeader {
            sequence,
            device_id,
            number,
            shard,
            is_in_order,
            horizon,
            former,
            arrived,
            moved_to: self.moved_to(),
            blank_max,
            layout,
        }
    }

    /// How far the filling has got to which moved records went, of those whose old places may be
    /// filled anew.
    fn moved_to(&self) -> MovedTo {
        let relied_on = self.moves_relied_on;
        let of = |&(filling, start): &(Former, u64)| {
            let bytes = relied_on.saturating_sub(start).min(self.geometry.block_bytes.into());
            MovedTo { filling, bytes: bytes as u32 }
        };
        self.moved_to.iter().map(of).find(|moved_to| moved_to.bytes > 0).unwrap_or_default()
    }

    /// Takes a block to fill, whose header is on the device once the positions `begun` are durable.
    /// `None` when the purpose may not have what is left.
    pub fn take(
        &mut self,
        purpose: Purpose,
        sequence: Version,
        begun: LogPositions,
    ) -> Option<BlockId> {
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
            None => self.take_fresh(begun)?,
        };
        let block = self.block_mut(id)?;
        *block = Block { state: BlockState::Filling, sequence, ..Block::FREE };
        if purpose == Purpose::Defrag {
            let start = begun.moves - BLOCK_HEADER_BYTES as u64;
            self.moved_to = [(Former::new(self.name(id), sequence), start), self.moved_to[0]];
        }
        Some(id)
    }

    /// The next block never written. One that is being zeroed at this moment is passed over: it
    /// will be ready at the next turn.
    fn take_fresh(&mut self, begun: LogPositions) -> Option<BlockId> {
        for _ in 0..self.fresh.len() {
            let id = self.fresh.pop_front()?;
            if self.claims.take_fresh(id) {
                self.unproven.push((id, begun));
                return Some(id);
            }
            self.fresh.push_back(id);
        }
        None
    }

    /// A block is on the device, all of it; `keep` says whether it stays in memory, too, in place
    /// of the oldest there. What is dead in it was replaced before the positions `needed`.
    pub fn filled(&mut self, id: BlockId, needed: LogPositions, keep: bool) {
        let block_bytes = self.geometry.block_bytes;
        let Some(block) = self.block_mut(id) else { return };
        block.state = BlockState::Full;
        let sequence = block.sequence;
        if keep {
            self.cached.push_back((id, sequence));
            while self.cached.len() > self.cached_max {
                self.evict();
            }
        } else {
            block.memory = None;
            // It has just been packed; packing it again as it is would gain nothing.
            block.class = class_of(block.live_bytes, block_bytes);
        }
        self.look_at(id, needed);
    }

    /// Keeps so many blocks in memory from now on.
    pub fn set_cached_max(&mut self, cached_max: usize) {
        self.cached_max = cached_max;
        while self.cached.len() > cached_max {
            self.evict();
        }
    }

    /// Forgets the memory of the oldest block kept.
    pub fn evict(&mut self) {
        while let Some((id, sequence)) = self.cached.pop_front() {
            if let Some(block) = self.block_mut(id)
                && block.sequence == sequence
                && block.memory.take().is_some()
            {
                let highest = block.luts.highest;
                self.in_memory_above = self.in_memory_above.max(highest);
                return;
            }
        }
    }

    /// A record of that version and local LUT lies at `location` now.
    #[inline]
    pub fn add_live(&mut self, location: Location, version: Version, local_lut: Lut) {
        if let Some(block) = self.block_mut(location.block) {
            block.live_bytes += location.extent;
            block.luts.add(version.lut(), local_lut);
        } else {
            let fresh = Foreign::new(0, LutRange::EMPTY);
            let block = self.foreign.entry(location.block).or_insert(fresh);
            block.live_bytes += location.extent;
            block.luts.add(version.lut(), local_lut);
        }
    }

    /// What lies at `location` is replaced by something before the positions `needed`.
    #[inline]
    pub fn drop_live(&mut self, location: Location, needed: LogPositions) {
        if let Some(block) = self.block_mut(location.block) {
            debug_assert!(block.live_bytes >= location.extent);
            block.live_bytes -= location.extent;
            self.look_at(location.block, needed);
        } else if let Some(block) = self.foreign.get_mut(&location.block) {
            block.live_bytes -= location.extent;
            if block.live_bytes == 0 {
                self.foreign.remove(&location.block);
                self.leaving.push_back((needed, location.block));
            }
        }
    }

    /// Less is alive in a block, or it has just become full: it may be a better victim now, or free
    /// before long.
    fn look_at(&mut self, id: BlockId, needed: LogPositions) {
        let block_bytes = self.geometry.block_bytes;
        let Some(block) = self.block_mut(id) else { return };
        if block.state != BlockState::Full {
            return;
        }
        if block.live_bytes == 0 {
            block.state = BlockState::Cooling;
            self.cooling.push_back((needed, id));
            return;
        }
        let class = class_of(block.live_bytes, block_bytes);
        if class < block.class {
            block.class = class;
            self.victims[usize::from(class)].push_back(id);
        }
    }

    /// Takes the next block to move this shard's records out of: one shared with others, or the
    /// emptiest of which less than `limit_pct` is alive.
    pub fn take_to_empty(&mut self, limit_pct: u32) -> Option<BlockId> {
        let taken = match self.shared_waits {
            false => self.take_shared().or_else(|| self.take_victim(limit_pct)),
            true => self.take_victim(limit_pct).or_else(|| self.take_shared()),
        };
        taken.or_else(|| {
            let is_short = limit_pct >= VICTIM_PCT_MAX && self.free_count() <= self.reserve();
            (is_short && self.offer_pair()).then(|| self.take_victim(limit_pct)).flatten()
        })
    }

    /// Makes victims of two blocks that had been packed, if what is alive in both fits into one: the
    /// records that came next were too large for what was left of them. It gains a block for certain,
    /// so this comes to an end.
    fn offer_pair(&mut self) -> bool {
        let is_packed = |(_, block): &(BlockId, &Block)| block.state == BlockState::Full;
        let packed = self.blocks().filter(is_packed).filter(|(id, _)| !self.claims.is_claimed(*id));
        let mut by_live: Vec<(u32, BlockId)> =
            packed.map(|(id, block)| (block.live_bytes, id)).collect();
        if by_live.len() < 2 {
            return false;
        }
        let (first, second, _) = by_live.select_nth_unstable(1);
        let pair = [first[0], *second];
        let block_bytes = self.geometry.block_bytes;
        if pair.iter().map(|(live, _)| *live as usize).sum::<usize>()
            > record_extent_max(block_bytes)
        {
            return false;
        }
        for (live_bytes, id) in pair {
            let class = class_of(live_bytes, block_bytes);
            if let Some(block) = self.block_mut(id) {
                block.class = class;
                self.victims[usize::from(class)].push_back(id);
            }
        }
        true
    }

    fn take_shared(&mut self) -> Option<BlockId> {
        if self.shared.is_none() {
            self.shared = Some(self.find_shared());
        }
        loop {
            let id = *self.shared.as_ref()?.front()?;
            if self.holds_own(id) {
                if let Some(block) = self.block_mut(id) {
                    block.state = BlockState::Moving;
                    self.moving += 1;
                }
                return Some(id);
            }
            self.shared.as_mut()?.pop_front();
        }
    }

    fn find_shared(&self) -> VecDeque<BlockId> {
        if !self.claims.is_mixed() {
            return VecDeque::new();
        }
        let is_shared = |id: &BlockId| self.claims.is_claimed(*id) && self.holds_own(*id);
        let own = self.geometry.own_blocks().filter(is_shared);
        let mut shared: Vec<BlockId> = own.chain(self.foreign.keys().copied()).collect();
        shared.sort_unstable_by_key(|id| {
            let (device, number) = self.geometry.on_device(*id);
            (number, device)
        });
        shared.into()
    }

    /// Whether records of this shard are to be moved out of a shared block.
    fn holds_own(&self, id: BlockId) -> bool {
        match self.block(id) {
            Some(block) => block.state == BlockState::Full && block.live_bytes > 0,
            None => self.foreign.contains_key(&id),
        }
    }

    /// Takes the emptiest block of which less than `limit_pct` is alive, to move its records.
    fn take_victim(&mut self, limit_pct: u32) -> Option<BlockId> {
        for class in 0..CLASSES {
            if u32::from(class) * 100 >= limit_pct * u32::from(CLASSES) {
                return None;
            }
            let (mut victim, mut shared) = (None, Vec::new());
            while let Some(id) = self.victims[usize::from(class)].pop_front() {
                let is_claimed = self.claims.is_claimed(id);
                let Some(block) = self.block_mut(id) else { continue };
                if block.state != BlockState::Full || block.class != class {
                    continue;
                }
                // Those that others still need have an order of their own.
                if is_claimed {
                    shared.push(id);
                    continue;
                }
                block.state = BlockState::Moving;
                self.moving += 1;
                victim = Some(id);
                break;
            }
            self.victims[usize::from(class)].extend(shared);
            if victim.is_some() {
                return victim;
            }
        }
        None
    }

    /// Whether defragmentation, what is on its way to the device, or another shard may yet free a
    /// block.
    pub fn may_get_free(&self) -> bool {
        let classes = VICTIM_PCT_MAX as usize * usize::from(CLASSES) / 100;
        self.moving > 0
            || !self.cooling.is_empty()
            || self.shared.as_ref().is_some_and(|shared| !shared.is_empty())
            || self.victims[..=classes].iter().any(|victims| !victims.is_empty())
    }

    /// A block's records have been moved, as far as that was possible. Where there was no room for
    /// them it is tried again; one of its own that cannot be read is not.
    pub fn end_moving(&mut self, id: BlockId, needed: LogPositions, moved: Moved) {
        let mut was_shared = false;
        if let Some(shared) = &mut self.shared
            && shared.front() == Some(&id)
        {
            was_shared = true;
            self.shared_waits = moved != Moved::All;
            match moved {
                Moved::NoRoom => {}
                // What cannot be read of it stays.
                Moved::All => _ = shared.pop_front(),
                Moved::Unread => shared.rotate_left(1),
            }
        }
        if let Some(block) = self.block_mut(id) {
            block.state = BlockState::Full;
            block.class = match moved {
                Moved::NoRoom if was_shared => block.class,
                Moved::NoRoom => CLASSES,
                Moved::All | Moved::Unread => 0,
            };
            self.moving -= 1;
            self.look_at(id, needed);
        }
    }

    /// Leaves a block alone until [`Log::end_healing`].
    pub fn begin_healing(&mut self, id: BlockId) {
        if let Some(block) = self.block_mut(id) {
            block.state = BlockState::Moving;
            self.moving += 1;
        }
    }

    /// What could not be read of a block at the start has been written over, or cannot be.
    pub fn end_healing(&mut self, id: BlockId, needed: LogPositions, is_sound: bool) {
        self.end_moving(id, needed, Moved::All);
        if let Some(block) = self.block_mut(id) {
            block.class = CLASSES;
            if !is_sound {
                block.state = BlockState::Bad;
                self.cooling.retain(|(_, other)| *other != id);
            }
        }
        self.empty_soon(id);
    }

    /// Own blocks never written.
    pub fn fresh_blocks(&self) -> HashSet<BlockId> {
        self.fresh.iter().copied().collect()
    }

    /// Other shards' blocks in which records of this shard lie.
    pub fn foreign_blocks(&self) -> impl Iterator<Item = (BlockId, Foreign)> {
        self.foreign.iter().map(|(id, block)| (*id, *block))
    }

    /// Puts back what a checkpoint says of another shard's block.
    pub fn restore_foreign(&mut self, id: BlockId, block: Foreign) {
        self.foreign.insert(id, block);
    }

    /// The blocks in which records with a LUT of at least `from` may be alive, in no order.
    pub fn changed_since(&self, from: Lut) -> Vec<Changed> {
        let holds = |block: &Block| match block.state {
            BlockState::Filling | BlockState::Full | BlockState::Moving => true,
            BlockState::Bad => block.live_bytes > 0,
            BlockState::Free | BlockState::Cooling => false,
        };
        let own = self.blocks().filter(|(_, block)| holds(block));
        let own = own.map(|(id, block)| Changed {
            id,
            sequence: Some(block.sequence),
            luts: block.luts,
            is_open: block.state == BlockState::Filling,
        });
        let foreign = self.foreign_blocks().map(|(id, block)| Changed {
            id,
            sequence: None,
            luts: block.luts,
            is_open: false,
        });
        own.chain(foreign).filter(|block| block.luts.highest >= from || block.is_open).collect()
    }

    /// Number of other shards' blocks in which records of this shard lie.
    pub fn foreign_count(&self) -> usize {
        self.foreign.len()
    }

    /// Everything before the positions `durable` is: what waited for it is released.
    pub fn settle(&mut self, durable: LogPositions) {
        if !self.unproven.is_empty() {
            self.unproven.retain(|(_, begun)| !begun.are_within(durable));
        }
        while let Some((_, id)) = self.leaving.pop_front_if(|(p, _)| p.are_within(durable)) {
            self.claims.release(id);
        }
        while let Some((p, id)) = self.cooling.pop_front_if(|(p, _)| p.are_within(durable)) {
            self.moves_relied_on = self.moves_relied_on.max(p.moves);
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
            // What lies there until it is filled anew is as old as before.
            *block = Block { sequence: block.sequence, luts: block.luts, ..Block::FREE };
            self.set_aside(id);
        }
    }

    /// A block without anything alive is free, or becomes so when it is sound again.
    fn set_aside(&mut self, id: BlockId) {
        match self.unsound.contains(&id) {
            true => self.to_seal.push(id),
            false => self.recycled.push_back(id),
        }
    }

    /// A start has found these damaged.
    pub fn note_unsound(&mut self, ids: &[BlockId]) {
        self.unsound.extend(ids);
    }

    /// Whether another shard claims a block.
    #[cfg(feature = "sim")]
    pub fn is_claimed(&self, id: BlockId) -> bool {
        self.claims.is_claimed(id)
    }

    /// Every own block is on the list of its state, once, and on no other.
    #[cfg(feature = "sim")]
    pub(super) fn check_lists(&self) -> Result<(), String> {
        let free: Vec<BlockId> =
            self.recycled.iter().chain(&self.fresh).chain(&self.to_seal).copied().collect();
        let cooling: Vec<BlockId> =
            self.cooling.iter().map(|(_, id)| *id).chain(self.claimed.iter().copied()).collect();
        let mut moving = 0;
        for (id, block) in self.blocks() {
            let on = |list: &[BlockId]| list.iter().filter(|other| **other == id).count();
            let (free, cooling) = (on(&free), on(&cooling));
            // One that is being sealed is on no list meanwhile.
            let is_sealing = block.state == BlockState::Free && self.unsound.contains(&id);
            if !is_sealing && !super::audit::fits(block.state, free, cooling) {
                let state = block.state;
                return Err(format!("block {} is {state:?}, {free} free, {cooling} cooling", id.0));
            }
            moving += usize::from(block.state == BlockState::Moving);
        }
        match moving == self.moving {
            true => Ok(()),
            false => Err(format!("{} blocks count as moving, {moving} are", self.moving)),
        }
    }

    /// Whether no block is left that a start has found damaged.
    #[cfg(test)]
    pub fn is_sound(&self) -> bool {
        self.unsound.is_empty()
    }

    /// A damaged block without anything alive, to be written over as one without records.
    pub fn take_to_seal(&mut self) -> Option<BlockId> {
        self.to_seal.pop()
    }

    /// A sealed block may be filled.
    pub fn may_fill(&mut self, id: BlockId) {
        self.unsound.remove(&id);
        self.recycled.push_back(id);
    }

    /// It was written over by a filling of that sequence, and [`Log::may_fill`] comes next, or cannot be.
    pub fn end_sealing(&mut self, id: BlockId, sealed: Option<Version>) {
        let Some(block) = self.block_mut(id) else { return };
        match sealed {
            Some(sequence) => {
                (block.sequence, block.luts) = (sequence, LutRange::EMPTY);
            }
            None => {
                block.state = BlockState::Bad;
                self.unsound.remove(&id);
            }
        }
    }

    /// Cold start has found what every own block holds: sorts them into free ones and others.
    /// `written` tells which were ever written. Those with `holes` are left alone until
    /// [`Log::end_healing`].
    pub fn sort_after_start(
        &mut self,
        mut written: impl FnMut(BlockId) -> bool,
        holes: &HashSet<BlockId>,
    ) {
        let ids: Vec<BlockId> = self.geometry.own_blocks().collect();
        self.fresh.clear();
        self.recycled.clear();
        self.to_seal.clear();
        for id in ids {
            let claimed = self.claims.is_claimed(id);
            let Some(block) = self.block_mut(id) else { continue };
            match block.state {
                BlockState::Bad => {}
                _ if holes.contains(&id) => self.begin_healing(id),
                _ if block.live_bytes > 0 => {
                    block.state = BlockState::Full;
                    self.look_at(id, LogPositions::default());
                }
                _ if claimed => {
                    block.state = BlockState::Cooling;
                    self.claimed.push(id);
                }
                _ => {
                    *block = Block { sequence: block.sequence, luts: block.luts, ..Block::FREE };
                    if written(id) {
                        self.set_aside(id);
                    } else {
                        self.fresh.push_back(id);
                        self.claims.offer_fresh(id);
                    }
                }
            }
        }
        self.claims.shard_started();
    }

    /// Cold start has read everything: claims the other shards' blocks in which records of this
    /// shard lie.
    pub fn claim_foreign(&mut self) {
        self.leaving.clear();
        self.shared = None;
        if !planted(Mutation::ForeignUnclaimed) {
            self.foreign.keys().for_each(|id| self.claims.claim(*id));
        }
    }

    /// How short of free blocks the log is: 0 while a tenth of them is free, 100 when only the
    /// reserve is.
    pub fn shortage_pct(&self) -> u32 {
        let reserve = self.reserve();
        let comfort = (self.own_count / 10).max(2 * reserve + 2);
        let missing = comfort.saturating_sub(self.free_count().max(reserve));
        (missing * 100 / (comfort - reserve)) as u32
    }

    /// Own blocks with their state, by number.
    pub fn blocks(&self) -> impl Iterator<Item = (BlockId, &Block)> {
        self.geometry.own_blocks().filter_map(|id| Some((id, self.block(id)?)))
    }
}

fn class_of(live_bytes: u32, block_bytes: u32) -> u8 {
    (u64::from(live_bytes) * u64::from(CLASSES) / u64::from(block_bytes)) as u8
}
