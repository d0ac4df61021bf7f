//! A model of a host's storage: an index over blocks of records, of which the last is still filled
//! and not yet on the device; defragmentation, expiry, tombstones; a crash that loses the tail.

use std::collections::BTreeMap;

use crate::op::wire_bins;
use crate::trace::tell;
use crate::walk::Walks;
use longship::model::{ChangeKind, Lut, RecordFlags, SrcId, Version, VoidTime};

/// Bins of a record: a, b and c.
pub(crate) type Bins = [Option<u64>; 3];
/// Number of a key in its world.
pub(crate) type Key = u16;

/// Records of a block.
const BLOCK_RECORDS: usize = 6;

/// A record, or what is left of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rec {
    pub(crate) version: Version,
    /// LUT of the last change not made by a shipper, expiry aside.
    pub(crate) local_lut: Lut,
    pub(crate) void: VoidTime,
    pub(crate) flags: RecordFlags,
    pub(crate) src_id: SrcId,
    pub(crate) bins: Bins,
    /// For the oracles: the link that shipped it in, and the version it had there.
    pub(crate) source: Option<(usize, Version)>,
}

impl Rec {
    pub(crate) fn kind(&self) -> ChangeKind {
        if !self.flags.has(RecordFlags::TOMBSTONE) {
            ChangeKind::Write
        } else if self.flags.has(RecordFlags::NSUP) {
            ChangeKind::NsupDelete
        } else if self.flags.has(RecordFlags::DURABLE) {
            ChangeKind::DurableDelete
        } else {
            ChangeKind::Delete
        }
    }

    pub(crate) fn is_live(&self, now: Lut) -> bool {
        !self.flags.has(RecordFlags::TOMBSTONE) && !self.void.is_past(now)
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) id: u64,
    pub(crate) copies: Vec<(Key, Rec)>,
    /// Copies from the front that are on the device.
    flushed: usize,
    /// Emptied by defragmentation; goes with the next flush, which makes its records' new copies
    /// durable.
    emptied: bool,
}

impl Block {
    pub(crate) fn is_sealed(&self) -> bool {
        self.copies.len() >= BLOCK_RECORDS
    }

    pub(crate) fn highest(&self) -> Lut {
        self.copies.iter().map(|(_, rec)| rec.version.lut()).max().unwrap_or(Lut::ZERO)
    }

    /// The lowest LUT of any kind: what is below it a walk that still has this block has given.
    pub(crate) fn lowest(&self) -> Lut {
        let local = |rec: &Rec| match rec.local_lut {
            Lut::ZERO => rec.version.lut(),
            lut => lut.min(rec.version.lut()),
        };
        self.copies.iter().map(|(_, rec)| local(rec)).min().unwrap_or(Lut::MAX)
    }
}

/// A record, and its bins as the wire has them.
type Held = (Rec, (Vec<u8>, u16));

fn held(rec: Rec) -> Held {
    let bins = wire_bins(rec.bins);
    (rec, bins)
}

/// The storage of one site.
#[derive(Debug, Default)]
pub(crate) struct Store {
    index: BTreeMap<Key, Held>,
    /// The block in which the newest version of each key lies.
    homes: BTreeMap<Key, u64>,
    pub(crate) blocks: Vec<Block>,
    next_block: u64,
    pub(crate) walks: Walks,
    /// The highest version a crash took from each key.
    pub(crate) lost: BTreeMap<Key, Version>,
    /// Keys whose tombstone is gone, and its version.
    pub(crate) raided: BTreeMap<Key, Version>,
    /// What has expired of each key, and nothing was put there since.
    pub(crate) expired: BTreeMap<Key, Rec>,
    /// What clients wrote and shippers brought of each key, in this order, and no crash took.
    events: BTreeMap<Key, Vec<Rec>>,
}

impl Store {
    /// The record as it is now, tombstones included.
    pub(crate) fn get(&self, key: Key) -> Option<&Rec> {
        self.index.get(&key).map(|(rec, _)| rec)
    }

    /// The same; if nothing but its expiry stands there, the record that expired.
    pub(crate) fn before_expiry(&self, key: Key) -> Option<&Rec> {
        let rec = self.get(key);
        let has_expired = rec.is_none_or(|rec| rec.kind() == ChangeKind::NsupDelete);
        self.expired.get(&key).filter(|_| has_expired).or(rec)
    }

    /// What a client wrote or a shipper brought last, whatever has become of it here.
    pub(crate) fn last_event(&self, key: Key) -> Option<&Rec> {
        self.events.get(&key)?.last()
    }

    /// The same as it is now, with its bins in wire form.
    pub(crate) fn held(&self, key: Key) -> Option<&(Rec, (Vec<u8>, u16))> {
        self.index.get(&key)
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = (Key, &Rec)> {
        self.index.iter().map(|(&key, (rec, _))| (key, rec))
    }

    /// Publishes a record and appends it to the open block.
    pub(crate) fn put(&mut self, key: Key, rec: Rec) {
        if let Some(old) = self.get(key) {
            assert!(old.version < rec.version, "versions of key {key} go back");
        }
        // Nothing knows of a deletion that is gone: after a clock was set back, a new record may be
        // older than that was.
        if self.raided.get(&key).is_some_and(|raided| rec.version < *raided) {
            self.raided.remove(&key);
        }
        self.expired.remove(&key);
        if rec.kind() != ChangeKind::NsupDelete {
            self.events.entry(key).or_default().push(rec.clone());
        }
        self.index.insert(key, held(rec.clone()));
        self.append(key, rec, true);
    }

    /// Appends the newest version of a key, or moves it.
    fn append(&mut self, key: Key, rec: Rec, is_rewrite: bool) {
        if self.blocks.last().is_none_or(Block::is_sealed) {
            let id = self.next_block;
            self.next_block += 1;
            self.blocks.push(Block { id, copies: Vec::new(), flushed: 0, emptied: false });
        }
        let Some(block) = self.blocks.last_mut() else { return };
        block.copies.push((key, rec));
        let to = block.id;
        let from = self.homes.insert(key, to);
        self.tell_walks(from, to, is_rewrite);
    }

    pub(crate) fn block(&self, id: u64) -> Option<&Block> {
        self.blocks.iter().find(|block| block.id == id)
    }

    pub(crate) fn home(&self, key: Key) -> Option<u64> {
        self.homes.get(&key).copied()
    }

    pub(crate) fn is_newest(&self, key: Key, copy: &Rec) -> bool {
        self.get(key).is_some_and(|rec| rec.version == copy.version)
    }

    /// Everything appended so far is on the device.
    pub(crate) fn flush(&mut self) {
        for block in &mut self.blocks {
            block.flushed = block.copies.len();
        }
        self.blocks.retain(|block| !block.emptied);
    }

    fn durable_copies(&self, key: Key) -> impl Iterator<Item = &Rec> {
        let durable = self.blocks.iter().flat_map(|block| &block.copies[..block.flushed]);
        durable.filter(move |(k, _)| *k == key).map(|(_, copy)| copy)
    }

    /// The newest version of a key on the device.
    pub(crate) fn durable(&self, key: Key) -> Option<&Rec> {
        self.durable_copies(key).max_by_key(|copy| copy.version)
    }

    /// Where it came from, or what has expired there.
    pub(crate) fn durable_source(&self, key: Key) -> Option<(usize, Version)> {
        let copies = self.durable_copies(key).filter(|copy| copy.kind() != ChangeKind::NsupDelete);
        copies.max_by_key(|copy| copy.version)?.source
    }

    /// Whether that version of a link's, or a newer one, was on the device, and with it all that came
    /// over it since.
    pub(crate) fn had_on_device(&self, key: Key, link: usize, version: Version) -> bool {
        let upto = self.durable(key).map(|copy| copy.version);
        let is_it = |rec: &Rec| {
            Some(rec.version) <= upto
                && rec.source.is_some_and(|(from, kept)| from == link && kept >= version)
        };
        self.events.get(&key).is_some_and(|events| events.iter().any(is_it))
    }

    pub(crate) fn has_unflushed(&self) -> bool {
        self.blocks.iter().any(|block| block.flushed < block.copies.len())
    }

    /// Rewrites what lives in one block, so that the block can go. False: there is none to rewrite.
    pub(crate) fn defrag(&mut self, which: usize) -> bool {
        let full = |block: &&mut Block| {
            block.is_sealed() && block.flushed == block.copies.len() && !block.emptied
        };
        let candidates = self.blocks.iter().filter(|block| block.is_sealed()).count();
        if candidates < 2 {
            return false;
        }
        let Some(block) = self.blocks.iter_mut().filter(full).nth(which % candidates) else {
            return false;
        };
        block.emptied = true;
        let (id, copies) = (block.id, block.copies.clone());
        for (key, copy) in copies {
            if self.is_newest(key, &copy) && self.home(key) == Some(id) {
                tell(Some(key), || format!("storage moves {} to another block", shown(&copy)));
                self.append(key, copy, false);
            }
        }
        true
    }

    /// Tombstones that may go as far as DCs are concerned.
    pub(crate) fn tombstones(&self, settled: impl Fn(Key) -> Lut) -> Vec<(Key, Version)> {
        let tombstones = self.keys().filter(|(_, rec)| rec.flags.has(RecordFlags::TOMBSTONE));
        tombstones
            .filter(|(key, rec)| rec.version.lut() < settled(*key))
            .map(|(key, rec)| (key, rec.version))
            .collect()
    }

    /// Drops a tombstone, if that is what is there, and gives it.
    pub(crate) fn drop_tombstone(&mut self, key: Key, version: Version) -> Option<Rec> {
        let rec = self.get(key).filter(|rec| rec.version == version)?.clone();
        tell(Some(key), || format!("storage drops the tombstone {}", shown(&rec)));
        self.index.remove(&key);
        self.homes.remove(&key);
        self.raided.insert(key, version);
        Some(rec)
    }

    pub(crate) fn has_older_copy(&self, key: Key, version: Version) -> bool {
        let copies = self.blocks.iter().flat_map(|block| &block.copies);
        copies.into_iter().any(|(k, copy)| *k == key && copy.version < version)
    }

    /// Keys whose records have expired and still stand.
    pub(crate) fn over(&self, now: Lut) -> Vec<Key> {
        let over = |rec: &Rec| !rec.flags.has(RecordFlags::TOMBSTONE) && rec.void.is_past(now);
        self.keys().filter(|(_, rec)| over(rec)).map(|(key, _)| key).collect()
    }

    /// The process dies: what was not on the device is gone. The index is rebuilt from what is,
    /// the newest version of each key winning.
    pub(crate) fn crash(&mut self) {
        for block in &mut self.blocks {
            block.copies.truncate(block.flushed);
            block.emptied = false;
        }
        self.blocks.retain(|block| !block.copies.is_empty());
        self.walks.clear();
        self.homes.clear();
        let before = std::mem::take(&mut self.index);
        for block in &self.blocks {
            for (key, copy) in &block.copies {
                if self.index.get(key).is_none_or(|(rec, _)| rec.version < copy.version) {
                    self.index.insert(*key, held(copy.clone()));
                    self.homes.insert(*key, block.id);
                }
            }
        }
        for (key, (rec, _)) in before {
            if self.get(key).is_none_or(|now| now.version < rec.version) {
                tell(Some(key), || format!("the crash takes {}", shown(&rec)));
                let lost = self.lost.entry(key).or_default();
                *lost = rec.version.max(*lost);
            }
        }
        for (key, events) in &mut self.events {
            let kept = self.index.get(key).map(|(rec, _)| rec.version);
            let kept = kept.max(self.raided.get(key).copied());
            events.retain(|rec| Some(rec.version) <= kept);
        }
        for (&key, &raided) in &self.raided {
            if let Some(rec) = self.get(key).filter(|rec| rec.version < raided) {
                let rec = shown(rec);
                panic!("invariant 1: a deleted record of key {key} is back from the device: {rec}");
            }
        }
    }

    /// The highest version found on the device.
    pub(crate) fn highest(&self) -> Version {
        let copies = self.blocks.iter().flat_map(|block| &block.copies);
        copies.map(|(_, copy)| copy.version).max().unwrap_or_default()
    }
}

/// A record in a line.
pub(crate) fn shown(rec: &Rec) -> String {
    let bins: Vec<String> = ["a", "b", "c"]
        .iter()
        .zip(rec.bins)
        .filter_map(|(name, value)| Some(format!("{name}={}", value?)))
        .collect();
    let lut = rec.version.lut();
    let what = match rec.kind() {
        ChangeKind::Write => bins.join(" "),
        kind => format!("{kind:?}"),
    };
    let origin = if rec.flags.has(RecordFlags::SHIPPED) { " (shipped in)" } else { "" };
    let void = if rec.void == VoidTime::NEVER { String::new() } else { format!(" {:?}", rec.void) };
    format!("[{what}{void} @{lut}.{}{origin}]", rec.version.raw() & 0xFF_FFFF)
}
