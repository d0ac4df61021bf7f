//! What must hold of a store at any time between two steps of its tasks, for the simulator: every block
//! is in one state and on the list of that state, and what is counted is what is there.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::rc::{Rc, Weak};

use super::index::{BlockId, IndexEntry};
use super::log::BlockState;
use super::space::Space;
use super::store::{SharedStore, Store};

thread_local! {
    static STORES: RefCell<Vec<Weak<RefCell<Store>>>> = const { RefCell::new(Vec::new()) };
}

/// A store of this thread serves from now on.
pub(super) fn note(store: &SharedStore) {
    STORES.with_borrow_mut(|stores| {
        stores.retain(|store| store.strong_count() > 0);
        stores.push(Rc::downgrade(store));
    });
}

/// Looks at the stores of this thread that serve. Gives the state of their blocks, for whoever wonders
/// where the room is.
///
/// # Errors
///
/// What does not hold, and where.
pub fn audit() -> Result<String, String> {
    let stores = STORES.with_borrow(|stores| stores.clone());
    let mut text = String::new();
    for store in stores.iter().filter_map(Weak::upgrade) {
        let store = store.borrow();
        for space in &store.spaces {
            let at = format!("shard {} of {}, {:?}", store.shard.0, store.shard_count, space.id);
            let _ = writeln!(text, "{at}: {}", states(space));
            check(&store, space).map_err(|error| format!("{at}: {error}\n{text}"))?;
        }
    }
    Ok(text)
}

fn states(space: &Space) -> String {
    let mut text = String::new();
    for (id, block) in space.log.blocks() {
        let claimed = if space.log.is_claimed(id) { " claimed" } else { "" };
        let _ = write!(text, "{}: {:?} {}{claimed}; ", id.0, block.state, block.live_bytes);
    }
    for (id, block) in space.log.foreign_blocks() {
        let _ = write!(text, "{} of another: {}; ", id.0, block.live_bytes);
    }
    text
}

fn check(store: &Store, space: &Space) -> Result<(), String> {
    space.log.check_lists()?;
    // What waits to be shown counts as alive, and what it replaces still does.
    if !space.is_at_rest() {
        return Ok(());
    }
    let (mut alive, mut used) = (BTreeMap::<BlockId, u32>::new(), 0);
    for partition in store.partitions() {
        let mut next = Some(space.index.start());
        while let Some(cursor) = next {
            next = space.index.walk(partition, cursor, usize::MAX, &mut |entry: &IndexEntry| {
                *alive.entry(entry.location.block).or_default() += entry.location.extent;
                used += u64::from(entry.location.extent);
            });
        }
    }
    if used != space.stats().used_bytes {
        return Err(format!("{} bytes counted as used, {used} are", space.stats().used_bytes));
    }
    let foreign = space.log.foreign_blocks().map(|(id, block)| (id, block.live_bytes));
    let own = space.log.blocks().map(|(id, block)| (id, block.live_bytes));
    for (id, counted) in own.chain(foreign) {
        let there = alive.remove(&id).unwrap_or_default();
        if counted != there {
            return Err(format!("block {}: {counted} bytes counted as alive, {there} are", id.0));
        }
    }
    match alive.pop_first() {
        Some((id, bytes)) => Err(format!("block {} holds {bytes} bytes, and is not known", id.0)),
        None => Ok(()),
    }
}

/// Whether a block may be in that state and on those lists at once.
pub(super) fn fits(state: BlockState, free: usize, cooling: usize) -> bool {
    match state {
        BlockState::Free => (free, cooling) == (1, 0),
        BlockState::Cooling => (free, cooling) == (0, 1),
        BlockState::Filling | BlockState::Full | BlockState::Moving | BlockState::Bad => {
            (free, cooling) == (0, 0)
        }
    }
}
