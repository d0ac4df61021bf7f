//! Expiry: turns records whose time has come into tombstones.
//!
//! A pass over the index every `nsup-period`. A record is not just forgotten: an older version of
//! it with a later expiry may still lie on the device, and DCs that ship such deletes have to find
//! them. Until its turn comes an expired record is already gone for readers, who look at its void
//! time.
//!
//! The changes are published like writes that had to become durable first: visible and submitted in
//! one step by the task that calls [`Store::publish`].

use super::index::IndexEntry;
use super::read::read;
use super::space::{Author, WriteRecord, WriteRefused};
use super::store::{SharedStore, Store};
use longship::host::OwnedRecord;
use longship::model::{Lut, NamespaceId, PartitionId, RecordFlags, Tick, VoidTime};
use longship_rt::event::Event;
use longship_rt::shard::yield_now;

/// Buckets looked into under one borrow.
const STEP_BUCKETS: usize = 256;
/// Wait for the device, us.
const WAIT_US: u64 = 1000;

/// Expires the records of a namespace until the store stops. One task per namespace, in the
/// background queue.
pub async fn run(store: SharedStore, namespace: NamespaceId) {
    loop {
        let (period_s, wake, now) = {
            let store = store.borrow();
            let period_s = store.space(namespace).nsup_period_s;
            (period_s, store.expire_wakes[namespace.index()].clone(), store.clock.now())
        };
        let due = if period_s == 0 { Tick::NEVER } else { Tick(now).plus_ms(period_s * 1000) };
        let is_woken = wake.wait_until(due.0).await;
        if store.borrow().is_stopping {
            return;
        }
        // Woken by a change of the period: wait anew.
        if !is_woken {
            pass(&store, namespace).await;
        }
    }
}

/// Expires what is due now; gives how many records that were.
pub async fn pass(store: &SharedStore, namespace: NamespaceId) -> u64 {
    let mut expired = 0;
    let mut due = Vec::new();
    let partitions: Vec<PartitionId> = store.borrow().partitions().collect();
    for partition in partitions {
        let mut cursor = store.borrow().space(namespace).index.start();
        loop {
            let next = {
                let store = store.borrow();
                if store.is_stopping {
                    return expired;
                }
                let now = store.wall();
                let index = &store.space(namespace).index;
                index.walk(partition, cursor, STEP_BUCKETS, &mut |entry| {
                    if !entry.is_tombstone() && entry.void_time.is_past(now) {
                        due.push(*entry);
                    }
                })
            };
            for entry in due.drain(..) {
                expired += u64::from(expire(store, namespace, &entry).await);
            }
            yield_now().await;
            let Some(next) = next else { break };
            cursor = next;
        }
    }
    expired
}

/// Expires one record, unless it has changed meanwhile.
async fn expire(store: &SharedStore, namespace: NamespaceId, entry: &IndexEntry) -> bool {
    // The tombstone keeps the user key. One that cannot be read is not worth keeping the record.
    let record = match entry.flags.has(RecordFlags::HAS_KEY) {
        true => read(store, namespace, &entry.digest).await.ok().flatten(),
        false => None,
    };
    let key = record.as_ref().map_or(&[][..], |record| record.view().key);
    loop {
        match store.borrow_mut().expire(namespace, entry, key) {
            Err(WriteRefused::Overloaded) => {}
            other => return other == Ok(true),
        }
        let soon = store.borrow().clock.now() + WAIT_US;
        Event::new().wait_until(soon).await;
    }
}

impl Store {
    /// Writes the tombstone of an expired record; false when it is not that record any more.
    fn expire(
        &mut self,
        namespace: NamespaceId,
        entry: &IndexEntry,
        key: &[u8],
    ) -> Result<bool, WriteRefused> {
        let place = self.find(namespace, &entry.digest);
        if self.latest_at(namespace, &place, &entry.digest) != Some(*entry) {
            return Ok(false);
        }
        // Half of what may wait for the device is left to clients.
        if self.space(namespace).head.is_half_full() {
            return Err(WriteRefused::Overloaded);
        }
        let set: Box<str> = self.space(namespace).sets.name(entry.set).into();
        // It goes no further than the record went, and not back to where that came from.
        let flags = RecordFlags::TOMBSTONE
            .with(RecordFlags::NSUP, true)
            .with(RecordFlags::SHIPPED, entry.flags.has(RecordFlags::SHIPPED));
        let record = WriteRecord {
            digest: entry.digest,
            set: &set,
            key,
            bin_count: 0,
            bins: &[],
            generation: entry.generation.next(),
            void_time: VoidTime::NEVER,
            flags: flags.with(RecordFlags::HAS_KEY, !key.is_empty()),
            src_id: entry.src_id,
        };
        let now = self.wall();
        self.note_time();
        self.write_as(Author::Background, namespace, &place, &record, now)?;
        self.spaces[namespace.index()].counters.expired += 1;
        Ok(true)
    }

    /// The wall clock; while that is too far off to be believed, the time of the last version.
    pub fn wall(&self) -> Lut {
        match Lut::of_clock(self.clock.wall_ms()) {
            Lut::ZERO => self.version.get().lut(),
            wall => wall,
        }
    }
}
