//! Defragmentation: moves what is alive in mostly dead blocks elsewhere, so that they can be
//! written again.
//!
//! After a change of the number of shards, blocks that hold records of several come first, in one
//! order on all shards. Then the emptiest block does. As long as enough blocks are free, one that
//! is fuller than `defrag-lwm-pct` is left alone. When free ones run short that limit rises, in the
//! end to nearly full blocks: a device stays usable however full it may get. Records go to a log of
//! their own: old records and new ones do not share blocks, which keeps old blocks full and the LUT
//! ranges of new ones narrow.
//!
//! A moved record keeps its version. Its old block is free when its new place is durable, so a
//! crash finds it in one place or in both.

use std::sync::Arc;
use std::thread;

use super::block::{
    BLOCK_HEADER_BYTES, BlockName, BlockTrailer, Filling, LutRange, Records, WRITE_ALIGN,
};
use super::index::{BlockId, Location};
use super::log::{Moved, Purpose, VICTIM_PCT_MAX};
use super::read::read_block;
use super::store::{SharedStore, Store};
use super::whole::Source;
use super::write::{AppendRefused, Appending};
use longship::model::{NamespaceId, Tick};
use longship_rt::arena::AppendBuffer;
use longship_rt::event::Event;
use longship_rt::shard::{need_preempt, yield_now};

/// Look for victims when nobody asks, ms: one is made by many overwrites, none of which tells of it.
const IDLE_MS: u64 = 100;
/// Wait for the device or for memory, ms.
const WAIT_MS: u64 = 1;
/// Records looked at between two questions whether others wait.
const STEP_RECORDS: usize = 64;
/// Moved and not yet on the device at most, in blocks.
const UNWRITTEN_BLOCKS_MAX: u64 = 4;

/// Less alive than this makes a block a victim.
fn limit_pct(lwm_pct: u32, shortage_pct: u32) -> u32 {
    lwm_pct + VICTIM_PCT_MAX.saturating_sub(lwm_pct) * shortage_pct / 100
}

/// Microseconds to pause after moving has taken `spent`.
fn pause_us(shortage_pct: u32, spent_us: u64) -> u64 {
    if shortage_pct > 0 { 0 } else { spent_us * 4 }
}

/// Defragments a namespace until the store stops. One task per namespace, in the queue for disk
/// work: it pauses by itself, and when blocks run short writers depend on it.
pub async fn run(store: SharedStore, namespace: NamespaceId) {
    let wake = store.borrow().defrag_wakes[namespace.index()].clone();
    let clock = store.borrow().clock.clone();
    loop {
        seal_damaged(&store, namespace).await;
        let begin = clock.now();
        let moved = match next_victim(&store, namespace) {
            Some(id) => move_block(&store, namespace, id).await,
            None => false,
        };
        let (is_over, shortage) = {
            let store = store.borrow();
            let space = store.space(namespace);
            (store.is_stopping || space.is_poisoned, space.log.shortage_pct())
        };
        if is_over {
            break;
        }
        let now = clock.now();
        let pause = if moved { pause_us(shortage, now - begin) } else { IDLE_MS * 1000 };
        if pause > 0 {
            wake.wait_until(now + pause).await;
        }
    }
}

/// Writes over the damaged blocks in which nothing is alive any more: an empty filling, so that the
/// next start finds nothing wrong with them.
async fn seal_damaged(store: &SharedStore, namespace: NamespaceId) {
    let mut sealed = Vec::new();
    while let Some(id) = seal_one(store, namespace).await {
        sealed.extend(id);
    }
    if !sealed.is_empty() {
        forget_accepted(store, namespace, sealed).await;
    }
}

/// Seals the next one; `None` when there is none, and none inside where it cannot be written.
async fn seal_one(store: &SharedStore, namespace: NamespaceId) -> Option<Option<BlockId>> {
    let begun = {
        let mut store = store.borrow_mut();
        if store.is_stopping || store.space(namespace).is_poisoned {
            return None;
        }
        let (Some(head), Some(tail)) =
            (store.arena.take(WRITE_ALIGN), store.arena.take(WRITE_ALIGN))
        else {
            return None;
        };
        let id = store.spaces[namespace.index()].log.take_to_seal()?;
        let sequence = store.next_version();
        let space = store.space(namespace);
        let header = space.log.header(id, Purpose::Defrag, sequence, Default::default());
        let trailer = BlockTrailer {
            sequence,
            luts: LutRange::EMPTY,
            used_bytes: BLOCK_HEADER_BYTES as u32,
            records: 0,
            written: sequence,
        };
        let (head, tail) = (AppendBuffer::new(head), AppendBuffer::new(tail));
        head.append(WRITE_ALIGN, |out| {
            out.fill(0);
            header.encode(out);
        });
        tail.append(WRITE_ALIGN, |out| {
            out.fill(0);
            trailer.encode(out);
        });
        let Source { ring, file, offset, bytes, .. } = space.source(&store.ring, &store.arena, id);
        let last = offset + (bytes - WRITE_ALIGN) as u64;
        // The header last: it makes the block sound.
        let tail = ring.write(file, last, tail, 0..WRITE_ALIGN, true);
        (id, sequence, tail, move || ring.write(file, offset, head, 0..WRITE_ALIGN, true))
    };
    let (id, sequence, tail, write_head) = begun;
    let mut is_written = tail.await.1.is_ok();
    is_written = is_written && write_head().await.1.is_ok();
    let mut store = store.borrow_mut();
    let place = store.place(namespace, Location { block: id, ..Location::default() });
    if !is_written {
        tracing::error!("{place}: cannot be written: the block is left alone; replace the device");
    }
    let log = &mut store.spaces[namespace.index()].log;
    log.end_sealing(id, is_written.then_some(sequence));
    Some(is_written.then_some(id))
}

/// Forgets, durably, the damage that was accepted in blocks which are sealed by now: what is
/// damaged there later is other damage. Only then may these blocks be filled. A start before that
/// seals them again.
async fn forget_accepted(store: &SharedStore, namespace: NamespaceId, sealed: Vec<BlockId>) {
    let (volume, blocks) = {
        let store = store.borrow();
        let log = &store.space(namespace).log;
        let blocks: Vec<BlockName> = sealed.iter().map(|id| log.name(*id)).collect();
        (Arc::clone(&store.volumes[namespace.index()]), blocks)
    };
    let mut is_forgotten = !blocks.iter().any(|block| volume.accepted.has(*block));
    // A thread would outlive its process there.
    #[cfg(feature = "sim")]
    let is_virtual = longship_rt::virtual_shard::is_here();
    #[cfg(not(feature = "sim"))]
    let is_virtual = false;
    if !is_forgotten && is_virtual {
        is_forgotten = volume.accepted.forget(&blocks);
    } else if !is_forgotten {
        // The work directory may be slow.
        let forget = move || volume.accepted.forget(&blocks);
        if let Ok(thread) = thread::Builder::new().name("forget-damage".into()).spawn(forget) {
            while !thread.is_finished() && !store.borrow().is_stopping {
                wait(store).await;
            }
            is_forgotten = thread.is_finished() && thread.join().unwrap_or(false);
        }
    }
    if is_forgotten {
        let log = &mut store.borrow_mut().spaces[namespace.index()].log;
        sealed.into_iter().for_each(|id| log.may_fill(id));
    }
}

fn next_victim(store: &SharedStore, namespace: NamespaceId) -> Option<BlockId> {
    let mut store = store.borrow_mut();
    if store.is_stopping {
        return None;
    }
    let space = &mut store.spaces[namespace.index()];
    space.settle();
    let limit = limit_pct(space.defrag_lwm_pct, space.log.shortage_pct());
    space.log.take_to_empty(limit)
}

/// Moves what is alive in a block; false when it could not be emptied.
async fn move_block(store: &SharedStore, namespace: NamespaceId, id: BlockId) -> bool {
    let moved = match read_block(store, namespace, id).await {
        Some(content) => {
            let space_of = |store: &Store| {
                let log = &store.space(namespace).log;
                (log.name(id), log.sequence(id))
            };
            let (name, sequence) = space_of(&store.borrow());
            match Filling::judge(content.bytes(), name, sequence) {
                Some(filling) => {
                    move_records(store, namespace, id, content.bytes(), &filling).await
                }
                None => Moved::All,
            }
        }
        None => Moved::Unread,
    };
    let mut store = store.borrow_mut();
    let space = &mut store.spaces[namespace.index()];
    let needed = space.appended();
    let left = space.log.live_bytes(id);
    let is_stuck = moved == Moved::All && left > 0;
    space.log.end_moving(id, needed, moved);
    store.flush_wakes[namespace.index()].set();
    if is_stuck {
        let place = store.place(namespace, Location { block: id, ..Location::default() });
        tracing::error!("{place}: {left} bytes alive in this block cannot be read: it stays");
    }
    moved == Moved::All && left == 0
}

async fn move_records(
    store: &SharedStore,
    namespace: NamespaceId,
    id: BlockId,
    block: &[u8],
    filling: &Filling,
) -> Moved {
    let block_bytes = store.borrow().space(namespace).log.geometry().block_bytes;
    let mut records = filling.records(block, BLOCK_HEADER_BYTES, block_bytes).peekable();
    while records.peek().is_some() {
        let step = store.borrow_mut().move_step(namespace, id, block, &mut records);
        match step {
            Ok(()) if need_preempt() => yield_now().await,
            Ok(()) => {}
            Err(AppendRefused::Full | AppendRefused::TooBig) => return Moved::NoRoom,
            Err(AppendRefused::Overloaded) => {
                wait(store).await;
                store.borrow_mut().spaces[namespace.index()].settle();
            }
        }
    }
    Moved::All
}

async fn wait(store: &SharedStore) {
    let deadline = store.borrow().clock.now() + WAIT_MS * 1000;
    Event::new().wait_until(deadline).await;
}

impl Store {
    /// Moves some of a block's records; `records` stands behind them afterwards.
    fn move_step<'a>(
        &mut self,
        namespace: NamespaceId,
        id: BlockId,
        block: &[u8],
        records: &mut std::iter::Peekable<Records<'a>>,
    ) -> Result<(), AppendRefused> {
        let how = Appending {
            purpose: Purpose::Defrag,
            clock: self.next_version(),
            now: Tick(self.clock.now()),
        };
        let space = &mut self.spaces[namespace.index()];
        let unwritten_max = UNWRITTEN_BLOCKS_MAX * u64::from(space.log.geometry().block_bytes);
        if self.is_stopping {
            return Err(AppendRefused::Full);
        }
        if space.is_poisoned || space.mover.unwritten_bytes() > unwritten_max {
            return Err(AppendRefused::Overloaded);
        }
        for _ in 0..STEP_RECORDS {
            let Some((offset, flat)) = records.peek() else { break };
            let (start, extent) = (*offset as usize, flat.extent);
            let from = Location { block: id, offset: *offset, extent: extent as u32 };
            let copy = &block[start..start + extent];
            space.relocate(&self.arena, from, copy, &flat.record.digest, &how)?;
            records.next();
        }
        if space.mover.take_news() {
            self.flush_wakes[namespace.index()].set();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_rises_as_blocks_run_short() {
        assert_eq!((limit_pct(50, 0), limit_pct(50, 100)), (50, VICTIM_PCT_MAX));
        assert_eq!((limit_pct(99, 0), limit_pct(99, 100)), (99, 99));
        assert!((0..100).all(|shortage| limit_pct(50, shortage) <= limit_pct(50, shortage + 1)));
        assert_eq!((pause_us(0, 1000), pause_us(1, 1000)), (4000, 0));
    }
}
