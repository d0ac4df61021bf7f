//! The tombstone raider: forgets tombstones that nobody needs any more.
//!
//! A tombstone may go when every DC has settled the delete *and* no older version of the record can
//! still be on the device: otherwise the next cold start would bring that one back. The first is
//! what the shipper reports ([`crate::host::Host::settled_below`]). For the second the raider reads
//! the log: it gathers the tombstones that are settled, goes through every block ever written, and
//! keeps those of which it meets an older version. Dead versions are never moved, so one pass that
//! finds none is proof.
//!
//! Reading the whole log is not cheap. A pass reads only when there is enough to gain, or after a
//! day, and then at a fifth of the pace the device would allow.

use std::io;

use super::block::{BLOCK_HEADER_BYTES, Records, seal_of};
use super::defrag::read_block;
use super::index::BlockId;
use super::space::Space;
use super::store::{SharedStore, Store};
use crate::model::{Digest, DigestMap, NamespaceId, PartitionId, Tick, Version};
use crate::rt::event::Event;
use crate::rt::shard::yield_now;

/// Buckets looked into under one borrow.
const STEP_BUCKETS: usize = 256;
/// Tombstones one pass deals with.
const CANDIDATES_MAX: usize = 1 << 18;
/// Log that is read whenever there is a single candidate.
const SMALL_LOG_BYTES: u64 = 64 << 20;
/// Read at least this often while there are candidates, ms.
const READ_EVERY_MS: u64 = 24 * 3600 * 1000;
/// Of so many records, one must be a candidate for the log to be read.
const RECORDS_PER_CANDIDATE: usize = 16;
/// Pause after reading has taken a while: so many times as long.
const PAUSE_FACTOR: u64 = 4;

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
        let candidates = gather(&store, namespace).await;
        let now = Tick(store.borrow().clock.now());
        let is_late = last_read.plus_ms(READ_EVERY_MS) <= now;
        if is_late || is_worth_reading(store.borrow().space(namespace), candidates.len()) {
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
    let candidates = gather(store, namespace).await;
    drop_unneeded(store, namespace, candidates).await
}

/// The tombstones that every DC has settled.
async fn gather(store: &SharedStore, namespace: NamespaceId) -> DigestMap<Version> {
    let mut candidates = DigestMap::default();
    let partitions: Vec<PartitionId> = store.borrow().partitions().collect();
    for partition in partitions {
        let mut cursor = store.borrow().space(namespace).index.start();
        loop {
            let next = {
                let store = store.borrow();
                let Some(below) = store.settled_at(namespace, partition) else { break };
                let index = &store.space(namespace).index;
                index.walk(partition, cursor, STEP_BUCKETS, &mut |entry| {
                    let is_settled = entry.is_tombstone() && entry.version.lut() < below;
                    if is_settled && candidates.len() < CANDIDATES_MAX {
                        candidates.insert(entry.digest, entry.version);
                    }
                })
            };
            yield_now().await;
            let Some(next) = next else { break };
            cursor = next;
        }
    }
    candidates
}

/// Reads the log and forgets the candidates of which it holds no older version.
async fn drop_unneeded(
    store: &SharedStore,
    namespace: NamespaceId,
    mut candidates: DigestMap<Version>,
) -> u64 {
    if candidates.is_empty() {
        return 0;
    }
    let blocks = store.borrow().space(namespace).log.ever_written();
    for id in blocks {
        if candidates.is_empty() || store.borrow().is_stopping {
            return 0;
        }
        let begin = store.borrow().clock.now();
        match keep_needed(store, namespace, id, &mut candidates).await {
            Ok(()) => {}
            // What it holds is unknown: nothing is proven.
            Err(error) => {
                tracing::warn!("namespace {}: the raider gives up: {error}", namespace.0);
                return 0;
            }
        }
        let now = store.borrow().clock.now();
        Event::new().wait_until(now + (now - begin) * PAUSE_FACTOR).await;
    }
    let mut store = store.borrow_mut();
    candidates.iter().filter(|(digest, version)| store.forget(namespace, digest, **version)).count()
        as u64
}

/// Takes the candidates of which a block holds an older version off the list.
async fn keep_needed(
    store: &SharedStore,
    namespace: NamespaceId,
    id: BlockId,
    candidates: &mut DigestMap<Version>,
) -> io::Result<()> {
    let content = loop {
        match read_block(store, namespace, id).await? {
            Some(content) => break content,
            None => {
                let soon = store.borrow().clock.now() + 1000;
                Event::new().wait_until(soon).await;
            }
        }
    };
    let block = content.bytes();
    let Some(seal) = seal_of(block) else { return Ok(()) };
    let records = Records::new(block, BLOCK_HEADER_BYTES..block.len(), seal);
    for (_, flat) in records {
        let digest = flat.record.digest;
        if candidates.get(&digest).is_some_and(|version| flat.record.version < *version) {
            candidates.remove(&digest);
        }
    }
    Ok(())
}

impl Store {
    /// Forgets a tombstone, unless the record was written again.
    fn forget(&mut self, namespace: NamespaceId, digest: &Digest, version: Version) -> bool {
        let space = &mut self.spaces[namespace.index()];
        match space.index.get(digest) {
            Some(entry) if entry.version == version => {
                space.index.remove(digest);
                space.leave(&entry);
                space.counters.raided += 1;
                space.log.tombstone_horizon = space.log.tombstone_horizon.max(version.lut());
                true
            }
            _ => false,
        }
    }
}
