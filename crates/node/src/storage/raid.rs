//! The tombstone raider: forgets tombstones that nobody needs any more.
//!
//! A tombstone may go when every DC has settled the delete *and* no older version of the record can
//! still be on the device: otherwise the next cold start would bring that one back. The first is
//! what the shipper reports ([`longship::host::Host::settled_below`]), and it is asked again in the
//! very step in which a tombstone goes: a DC may have been attached or rewound since. For the
//! second the raider reads the log. It marks the settled tombstones in the index and goes through
//! the blocks that may hold something older; where it meets an older version of a tombstone's
//! record, it takes the mark away. Dead versions are never moved, so what is still marked after one
//! pass may go. Marks cost no memory, so a pass deals with as many as there are.
//!
//! A block of which every record is newer than the newest candidate is not read. What cannot be read
//! of a block may hold anything of its time: tombstones as young as its oldest record stay, the
//! others go, and the block is emptied soon, to be written anew.
//!
//! Reading the whole log is not cheap. A pass reads only when there is enough to gain, or after a
//! day. It reads at a fifth of the pace the device would allow, or at half of it when most of the
//! index is tombstones.

use super::block::{BLOCK_HEADER_BYTES, Filling};
use super::index::{BlockId, IndexEntry};
use super::read::read_block;
use super::space::Space;
use super::store::{SharedStore, Store};
use longship::model::{Digest, Lut, NamespaceId, PartitionId, Tick, Version};
use longship_rt::event::Event;
use longship_rt::prefetch;
use longship_rt::shard::{need_preempt, yield_now};

/// Buckets looked into under one borrow.
const STEP_BUCKETS: usize = 256;
/// Log that is read whenever there is a single candidate.
const SMALL_LOG_BYTES: u64 = 64 << 20;
/// Read at least this often while there are candidates, ms.
const READ_EVERY_MS: u64 = 24 * 3600 * 1000;
/// Of so many records, one must be a candidate for the log to be read.
const RECORDS_PER_CANDIDATE: usize = 16;
/// Pause after reading has taken a while: so many times as long ...
const PAUSE_FACTOR: u64 = 4;
/// ... or no longer than it, when most of the index is tombstones that may go.
const PAUSE_FACTOR_LATE: u64 = 1;

/// The tombstones that one pass deals with: marked in the index.
#[derive(Clone, Copy, Debug, Default)]
struct Candidates {
    count: usize,
    /// The newest of them.
    newest: Version,
}

/// Raids a namespace until the store stops. One task per namespace, in the background queue.
pub async fn run(store: SharedStore, namespace: NamespaceId) {
    let mut last_read = Tick(store.borrow().clock.now());
    loop {
        let (wake, period_s, now) = {
            let store = store.borrow();
            let period_s = store.space(namespace).raider_period_s;
            (store.raid_wakes[namespace.index()].clone(), period_s, Tick(store.clock.now()))
        };
        let due = if period_s == 0 { Tick::NEVER } else { now.plus_ms(period_s * 1000) };
        let is_woken = wake.wait_until(due.0).await;
        if store.borrow().is_stopping {
            return;
        }
        if is_woken {
            continue;
        }
        let candidates = mark(&store, namespace).await;
        let now = Tick(store.borrow().clock.now());
        let is_late = last_read.plus_ms(READ_EVERY_MS) <= now;
        if is_late || is_worth_reading(store.borrow().space(namespace), candidates.count) {
            last_read = now;
            drop_unneeded(&store, namespace, candidates).await;
        }
    }
}

fn is_worth_reading(space: &Space, candidates: usize) -> bool {
    let is_small = space.log.used_count() as u64 * u64::from(space.log.geometry().block_bytes)
        <= SMALL_LOG_BYTES;
    candidates > 0 && (is_small || candidates * RECORDS_PER_CANDIDATE >= space.index.len())
}

/// One pass, whatever it gains; gives how many tombstones went.
pub async fn pass(store: &SharedStore, namespace: NamespaceId) -> u64 {
    let candidates = mark(store, namespace).await;
    drop_unneeded(store, namespace, candidates).await
}

/// Goes through the index in bounded steps: entries that `look` picks are given to `change` in the
/// same step. False when the store stops meanwhile.
async fn go_through(
    store: &SharedStore,
    namespace: NamespaceId,
    mut look: impl FnMut(&Store, PartitionId, &IndexEntry) -> bool,
    mut change: impl FnMut(&mut Store, &IndexEntry),
) -> bool {
    let mut found: Vec<IndexEntry> = Vec::new();
    let partitions: Vec<PartitionId> = store.borrow().partitions().collect();
    for partition in partitions {
        let mut cursor = Some(store.borrow().space(namespace).index.start());
        while let Some(from) = cursor {
            {
                let mut guard = store.borrow_mut();
                let store = &mut *guard;
                if store.is_stopping {
                    return false;
                }
                let index = &store.space(namespace).index;
                cursor = index.walk(partition, from, STEP_BUCKETS, &mut |entry| {
                    if entry.is_tombstone() && look(store, partition, entry) {
                        found.push(*entry);
                    }
                });
                found.drain(..).for_each(|entry| change(store, &entry));
            }
            yield_now().await;
        }
    }
    true
}

/// Marks the tombstones that every DC has settled.
async fn mark(store: &SharedStore, namespace: NamespaceId) -> Candidates {
    let mut candidates = Candidates::default();
    let is_settled = |store: &Store, partition, entry: &IndexEntry| {
        store.settled_at(namespace, partition).is_some_and(|below| entry.version.lut() < below)
    };
    let is_through = go_through(store, namespace, is_settled, |store, entry| {
        store.spaces[namespace.index()].index.mark(entry);
        candidates.count += 1;
        candidates.newest = candidates.newest.max(entry.version);
    });
    if is_through.await { candidates } else { Candidates::default() }
}

/// Reads the log and forgets the candidates that have no older version in it.
async fn drop_unneeded(
    store: &SharedStore,
    namespace: NamespaceId,
    Candidates { count, newest }: Candidates,
) -> u64 {
    if count == 0 {
        return 0;
    }
    let (blocks, is_late) = {
        let store = store.borrow();
        let Space { log, index, .. } = store.space(namespace);
        (log.written_before(newest.lut()), count * 2 > index.len())
    };
    let pause_factor = if is_late { PAUSE_FACTOR_LATE } else { PAUSE_FACTOR };
    // What is not older stays.
    let mut below = Lut::MAX;
    let mut unread = 0;
    for id in blocks {
        let begin = store.borrow().clock.now();
        let Some(found) = unmark_needed(store, namespace, id).await else { return 0 };
        store.borrow_mut().spaces[namespace.index()].counters.raided_blocks += 1;
        below = below.min(found);
        unread += u32::from(found < Lut::MAX);
        let now = store.borrow().clock.now();
        Event::new().wait_until(now + (now - begin) * pause_factor).await;
    }
    if below < Lut::MAX {
        tracing::warn!(
            "namespace {}: {unread} blocks cannot be read whole: tombstones since {} stay until those \
             are emptied",
            store.borrow().volumes[namespace.index()].namespace,
            below.utc()
        );
    }
    let mut gone = 0;
    let may_go = |store: &Store, _, entry: &IndexEntry| {
        let is_proven = entry.version <= newest && entry.version.lut() < below;
        is_proven && store.space(namespace).index.is_marked(&entry.digest)
    };
    let forget = |store: &mut Store, entry: &IndexEntry| {
        gone += u64::from(store.forget(namespace, &entry.digest, entry.version));
    };
    go_through(store, namespace, may_go, forget).await;
    gone
}

/// Unmarks the candidates that have an older version in this block. Versions of the time it gives and
/// later may lie where it cannot be read. `None` when the store stops meanwhile.
async fn unmark_needed(store: &SharedStore, namespace: NamespaceId, id: BlockId) -> Option<Lut> {
    let content = read_block(store, namespace, id).await?;
    let block = content.bytes();
    let (filling, block_bytes) = {
        let store = store.borrow();
        let log = &store.space(namespace).log;
        let known = log.sequence(id).filter(|_| content.is_cached());
        (Filling::judge(block, log.name(id), known), log.geometry().block_bytes)
    };
    // What cannot be made out may be the older version that a tombstone hides, and come back.
    let hide = || {
        let log = &mut store.borrow_mut().spaces[namespace.index()].log;
        log.empty_soon(id);
        log.block(id).map_or(Lut::ZERO, |block| block.luts.lowest)
    };
    let is_other = |filling: &Filling| {
        let sequence = store.borrow().space(namespace).log.sequence(id);
        filling.sequence.is_some_and(|there| sequence.is_some_and(|known| known != there))
    };
    let Some(filling) = filling.filter(|filling| !is_other(filling)) else {
        return Some(hide());
    };
    let unknown_from = if content.holes().is_empty() { Lut::MAX } else { hide() };
    let mut records = filling.records(block, BLOCK_HEADER_BYTES, block_bytes);
    let mut batch: Vec<(Digest, Version)> = Vec::with_capacity(prefetch::WIDTH);
    let mut digests: Vec<Digest> = Vec::with_capacity(prefetch::WIDTH);
    loop {
        let next = records.by_ref().take(prefetch::WIDTH);
        batch.extend(next.map(|(_, flat)| (flat.record.digest, flat.record.version)));
        if batch.is_empty() {
            return Some(if records.damaged() > 0 { hide() } else { unknown_from });
        }
        digests.extend(batch.iter().map(|(digest, _)| *digest));
        {
            let index = &mut store.borrow_mut().spaces[namespace.index()].index;
            index.prefetch(&digests, |_| {});
            batch.drain(..).for_each(|(digest, version)| index.unmark_newer(&digest, version));
        }
        digests.clear();
        if need_preempt() {
            yield_now().await;
        }
    }
}

impl Store {
    /// Forgets a tombstone, unless the record was written again, or a DC needs it after all.
    fn forget(&mut self, namespace: NamespaceId, digest: &Digest, version: Version) -> bool {
        let settled = self.settled_at(namespace, digest.partition());
        let space = &mut self.spaces[namespace.index()];
        match space.index.get(digest) {
            Some(entry)
                if entry.version == version && settled.is_some_and(|lut| version.lut() < lut) =>
            {
                space.forget(&entry);
                true
            }
            _ => false,
        }
    }
}
