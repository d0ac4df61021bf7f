//! The model host's walks for recovery, by the means of the real one and no kinder: a walk has a
//! list of blocks, gives what the index says lies in a block when it looks there, and is told when
//! an entry leaves a block that it has still to look at. Or it goes by the index, lane by lane.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::store::{Block, Key, Rec, Store};
use longship::model::Lut;
use longship::ship::mutation::{Mutation, planted};

/// Records looked at in one step: a block takes two.
const STEP_RECORDS: usize = 3;

/// The lowest LUT wanted of each key's lane; keys of other lanes are not wanted.
pub(crate) type Wanted = BTreeMap<Key, Lut>;

/// An open walk.
#[derive(Clone, Debug)]
struct Walk {
    id: u32,
    wanted: Wanted,
    way: Way,
}

#[derive(Clone, Debug)]
enum Way {
    /// Keys from here on are still to be given.
    Index(Key),
    Blocks(ByBlock),
}

#[derive(Clone, Debug)]
struct ByBlock {
    /// Still to be looked at, in order.
    list: VecDeque<u64>,
    /// The same, and the one being looked at.
    to_come: BTreeSet<u64>,
    /// The block being looked at, and where in it to go on.
    at: Option<(u64, usize)>,
}

/// All open walks of a host.
#[derive(Debug, Default)]
pub(crate) struct Walks {
    open: Vec<Walk>,
    next: u32,
}

impl Walks {
    /// The newest version of a key, last in block `from`, is in block `to` now. The one place that
    /// tells walks so, whatever the reason.
    pub(crate) fn moved(&mut self, from: u64, to: u64) {
        for walk in &mut self.open {
            if let Way::Blocks(way) = &mut walk.way
                && way.to_come.contains(&from)
                && way.to_come.insert(to)
            {
                way.list.push_back(to);
            }
        }
    }

    /// The process died.
    pub(crate) fn clear(&mut self) {
        self.open.clear();
    }
}

impl Store {
    /// Opens a walk; `by_index` when that is how this host would go.
    pub(crate) fn open_walk(&mut self, wanted: Wanted, by_index: bool) -> u32 {
        let way = if by_index { Way::Index(0) } else { Way::Blocks(self.blocks_since(&wanted)) };
        self.walks.next += 1;
        let id = self.walks.next;
        self.walks.open.push(Walk { id, wanted, way });
        id
    }

    fn blocks_since(&self, wanted: &Wanted) -> ByBlock {
        let from = wanted.values().min().copied().unwrap_or(Lut::MAX);
        let changed = self.blocks.iter().filter(|block| block.highest() >= from);
        let mut blocks: Vec<&Block> = changed.collect();
        // The one that is still filled comes last.
        blocks.sort_by_key(|block| (!block.is_sealed(), block.highest()));
        let list: VecDeque<u64> = blocks.iter().map(|block| block.id).collect();
        ByBlock { to_come: list.iter().copied().collect(), list, at: None }
    }

    pub(crate) fn close_walk(&mut self, id: u32) {
        self.walks.open.retain(|walk| walk.id != id);
    }

    /// Gives some of what is left; then how far the walk has come, `None` at its end.
    pub(crate) fn step_walk(&mut self, id: u32, give: &mut Vec<(Key, Rec)>) -> Option<Lut> {
        let at = self.walks.open.iter().position(|walk| walk.id == id)?;
        let mut walk = self.walks.open.swap_remove(at);
        let progress = match &mut walk.way {
            Way::Index(from) => self.step_index(&walk.wanted, from, give),
            Way::Blocks(way) => self.step_blocks(&walk.wanted, way, give),
        };
        self.walks.open.push(walk);
        progress
    }

    fn step_index(
        &self,
        wanted: &Wanted,
        from: &mut Key,
        give: &mut Vec<(Key, Rec)>,
    ) -> Option<Lut> {
        let mut left = wanted.range(*from..);
        for (&key, &lut) in left.by_ref().take(STEP_RECORDS) {
            *from = key + 1;
            give.extend(
                self.get(key).filter(|rec| rec.version.lut() >= lut).map(|rec| (key, rec.clone())),
            );
        }
        left.next().map(|_| Lut::ZERO)
    }

    fn step_blocks(
        &self,
        wanted: &Wanted,
        way: &mut ByBlock,
        give: &mut Vec<(Key, Rec)>,
    ) -> Option<Lut> {
        if way.at.is_none() {
            way.at = Some((way.list.pop_front()?, 0));
        }
        if let Some((id, from)) = way.at {
            let copies = self.block(id).map_or(&[][..], |block| &block.copies);
            let until = copies.len().min(from + STEP_RECORDS);
            for (key, copy) in &copies[from.min(until)..until] {
                let is_wanted = wanted.get(key).is_some_and(|&lut| copy.version.lut() >= lut);
                if is_wanted && self.home(*key) == Some(id) && self.is_newest(*key, copy) {
                    give.push((*key, copy.clone()));
                }
            }
            way.at = Some((id, until));
            if until == copies.len() {
                way.at = None;
                way.to_come.remove(&id);
            }
        }
        let to_come = way.to_come.iter().filter_map(|&id| self.block(id));
        let lowest = to_come.map(Block::lowest).min().unwrap_or(Lut::MAX);
        (!way.to_come.is_empty()).then_some(lowest)
    }

    /// Tells open walks that the newest version of a key has gone from one block to another.
    pub(crate) fn tell_walks(&mut self, from: Option<u64>, to: u64, is_rewrite: bool) {
        let untold = planted(Mutation::RewriteUntold) && is_rewrite
            || planted(Mutation::MoveUntold) && !is_rewrite;
        if let Some(from) = from.filter(|&from| from != to && !untold) {
            self.walks.moved(from, to);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Bins;
    use longship::model::{RecordFlags, SrcId, Version, VoidTime};
    use longship::ship::mutation::plant;

    fn put(store: &mut Store, key: Key, ms: u64) {
        let version = Version::first_of(Lut::from_ms(ms));
        let (void, flags, bins) = (VoidTime::NEVER, RecordFlags::default(), Bins::default());
        let local_lut = version.lut();
        let rec = Rec { version, local_lut, void, flags, src_id: SrcId::NONE, bins, source: None };
        store.put(key, rec);
    }

    /// Which keys a walk gives when something happens to a block that it has still to look at.
    fn given(act: impl Fn(&mut Store)) -> Vec<Key> {
        let mut store = Store::default();
        (0..18).for_each(|key| put(&mut store, key, 100 + u64::from(key)));
        let walk = store.open_walk((0..18).map(|key| (key, Lut::ZERO)).collect(), false);
        let mut given = Vec::new();
        store.step_walk(walk, &mut given);
        store.flush();
        act(&mut store);
        store.flush();
        while store.step_walk(walk, &mut given).is_some() {}
        given.into_iter().map(|(key, _)| key).collect()
    }

    #[test]
    fn a_walk_gives_what_was_rewritten_and_what_was_moved() {
        let check = |act: fn(&mut Store), broken| {
            let found = given(act);
            assert!((0..18).all(|key| found.contains(&key)), "{found:?}");
            plant(Some(broken));
            let found = given(act);
            plant(None);
            assert!(!found.contains(&11), "{broken:?}: {found:?}");
        };
        check(|store| put(store, 11, 500), Mutation::RewriteUntold);
        check(|store| _ = store.defrag(1), Mutation::MoveUntold);
    }
}
