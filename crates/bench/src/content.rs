//! What the load generator writes, so that anybody can recompute what must be there.
//!
//! A seed, a number of records, the bytes of a value and two percentages decide everything. With
//! `mix(salt)` a 64-bit hash of (seed, i, salt) as in [`Content::mix`], record i of `0..records` has
//!
//! | | |
//! |---|---|
//! | key | the text `<seed in hex>-<i>`, stored with the record |
//! | updates | `1 + (mix(1) >> 32) % 3` if `mix(1) % 100 < update percent`, else 0 |
//! | deleted | in the end, if `mix(2) % 100 < delete percent` |
//! | bins | `i`: integer i; `rev`: integer, 0 when created and one more per update; `data`: bytes |
//!
//! `data` is the little-endian words `mix(16 + rev)`, each next word hashed from the one before, cut
//! to the bytes of a value. Steps come in one fixed order, in which a record's own steps lie
//! [`GAP`] records apart: close enough to meet its earlier ones still in the shipping queues, far
//! enough that a pipelining client has the earlier answers.

use std::io::Write as _;

use longship::model::Digest;
use longship::wire::{Ops, ParticleType, bins};

/// Distance between two steps of one record, in records created meanwhile.
pub(crate) const GAP: u64 = 16_384;
/// Most updates a record gets.
const UPDATES_MAX: u64 = 3;
/// Bins of a record.
pub(crate) const BIN_COUNT: u16 = 3;

/// What a load consists of.
#[derive(Clone, Debug)]
pub(crate) struct Content {
    pub(crate) namespace: String,
    pub(crate) set: String,
    pub(crate) records: u64,
    pub(crate) value_bytes: usize,
    pub(crate) update_percent: u64,
    pub(crate) delete_percent: u64,
    pub(crate) seed: u64,
}

/// Where to find which content.
#[derive(clap::Args)]
pub(crate) struct ContentArgs {
    /// Any node of the cluster.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) host: String,
    #[arg(long)]
    namespace: String,
    /// Set of the records; empty for none.
    #[arg(long, default_value = "")]
    set: String,
    #[arg(long, default_value_t = 100_000)]
    records: u64,
    /// Bytes of each record's `data` bin.
    #[arg(long, default_value_t = 100)]
    value_bytes: usize,
    /// Percentage of records that are updated, 1 to 3 times.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=100))]
    updates: u64,
    /// Percentage of records that are deleted in the end.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=100))]
    deletes: u64,
    /// Decides keys, values, and which records are updated and deleted.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl ContentArgs {
    pub(crate) fn content(&self) -> Content {
        Content {
            namespace: self.namespace.clone(),
            set: self.set.clone(),
            records: self.records,
            value_bytes: self.value_bytes,
            update_percent: self.updates,
            delete_percent: self.deletes,
            seed: self.seed,
        }
    }
}

/// One operation of a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Create a record (revision 0) or write its next revision.
    Write { record: u64, revision: u64 },
    /// Delete a record.
    Delete { record: u64 },
}

impl Step {
    pub(crate) const fn record(self) -> u64 {
        match self {
            Self::Write { record, .. } | Self::Delete { record } => record,
        }
    }
}

impl Content {
    /// The splitmix64 finaliser over the three numbers.
    const fn mix(&self, record: u64, salt: u64) -> u64 {
        finalize(
            self.seed
                .wrapping_add(record.wrapping_mul(0x9E37_79B9_7F4A_7C15))
                .wrapping_add(salt.wrapping_mul(0xD1B5_4A32_D192_ED03)),
        )
    }

    /// Writes the record's key field, particle type byte and text, into `out`.
    pub(crate) fn key(&self, record: u64, out: &mut Vec<u8>) {
        out.clear();
        out.push(ParticleType::STRING.0);
        write!(out, "{:x}-{record}", self.seed).expect("writing to a vector cannot fail");
    }

    /// The record's digest, from its key field.
    pub(crate) fn digest(&self, key: &[u8]) -> Digest {
        Digest::of_key(&self.set, key[0], &key[1..])
    }

    /// Index of the record's partition.
    pub(crate) fn partition(&self, record: u64) -> usize {
        let mut key = Vec::new();
        self.key(record, &mut key);
        self.digest(&key).partition().index()
    }

    /// How many times the record is updated.
    pub(crate) const fn updates(&self, record: u64) -> u64 {
        let draw = self.mix(record, 1);
        if draw % 100 < self.update_percent { 1 + (draw >> 32) % UPDATES_MAX } else { 0 }
    }

    /// Whether the record is deleted in the end.
    pub(crate) const fn is_deleted(&self, record: u64) -> bool {
        self.mix(record, 2) % 100 < self.delete_percent
    }

    /// Appends the record's bins at a revision, as WRITE operations.
    pub(crate) fn push_bins(&self, record: u64, revision: u64, out: &mut Vec<u8>) {
        bins::push(out, b"i", ParticleType::INTEGER, &record.to_be_bytes());
        bins::push(out, b"rev", ParticleType::INTEGER, &revision.to_be_bytes());
        let value = out.len() + 8 + b"data".len();
        bins::push(out, b"data", ParticleType::BLOB, &[]);
        let size = (4 + b"data".len() + self.value_bytes) as u32;
        out[value - 12..value - 8].copy_from_slice(&size.to_be_bytes());
        self.push_value(record, revision, out);
    }

    /// Appends the bytes of the record's `data` bin at a revision.
    pub(crate) fn push_value(&self, record: u64, revision: u64, out: &mut Vec<u8>) {
        let end = out.len() + self.value_bytes;
        let mut word = self.mix(record, 16 + revision);
        while out.len() < end {
            out.extend_from_slice(&word.to_le_bytes());
            word = finalize(word);
        }
        out.truncate(end);
    }

    /// Whether these are the record's bins after its last update, in any order. `scratch` is
    /// overwritten.
    pub(crate) fn matches(&self, record: u64, found: Ops<'_>, scratch: &mut Vec<u8>) -> bool {
        self.matches_revision(record, self.updates(record), found, scratch)
    }

    /// Whether these are the record's bins at a revision, in any order. `scratch` is overwritten.
    pub(crate) fn matches_revision(
        &self,
        record: u64,
        revision: u64,
        found: Ops<'_>,
        scratch: &mut Vec<u8>,
    ) -> bool {
        scratch.clear();
        self.push_bins(record, revision, scratch);
        let same = |name: &[u8], particle, value: &[u8]| {
            bins::find(scratch, name)
                .is_some_and(|bin| bin.particle == particle && bin.value == value)
        };
        found.count() == usize::from(BIN_COUNT)
            && bins::iter(scratch).all(|bin| found.into_iter().any(|op| op.name == bin.name))
            && found.into_iter().all(|op| same(op.name, op.particle, op.value))
    }

    /// Every operation of the load, in order.
    pub(crate) fn steps(&self) -> impl Iterator<Item = Step> {
        (0..self.records + (UPDATES_MAX + 1) * GAP).flat_map(|turn| self.turn(turn))
    }

    /// The steps of one turn: a record is created, older ones are updated, a still older one
    /// deleted.
    fn turn(&self, turn: u64) -> impl Iterator<Item = Step> {
        let records = self.records;
        let back = move |gaps: u64| turn.checked_sub(gaps * GAP).filter(|&at| at < records);
        let writes = (0..=UPDATES_MAX).filter_map(move |revision| {
            let record = back(revision).filter(|&record| revision <= self.updates(record))?;
            Some(Step::Write { record, revision })
        });
        let deletes = back(UPDATES_MAX + 1).filter(|&record| self.is_deleted(record));
        writes.chain(deletes.map(|record| Step::Delete { record }))
    }

    /// Number of operations of the load: (updates, deletes), besides one creation per record.
    pub(crate) fn later_steps(&self) -> (u64, u64) {
        let all = 0..self.records;
        let updates = all.clone().map(|record| self.updates(record)).sum();
        (updates, all.filter(|&record| self.is_deleted(record)).count() as u64)
    }
}

/// The step of a splitmix64 sequence, and its finaliser: well mixed.
pub(crate) const fn finalize(value: u64) -> u64 {
    let value = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::HashMap;

    use super::*;

    pub(crate) fn small(records: u64) -> Content {
        Content {
            namespace: "demo".into(),
            set: "users".into(),
            records,
            value_bytes: 20,
            update_percent: 10,
            delete_percent: 5,
            seed: 7,
        }
    }

    #[test]
    fn steps_replayed_in_order_give_the_promised_end() {
        let content = small(3 * GAP);
        let mut state = HashMap::new();
        for step in content.steps() {
            match step {
                Step::Write { record, revision } => {
                    let before = state.insert(record, revision);
                    assert_eq!(before, revision.checked_sub(1), "{step:?}");
                }
                Step::Delete { record } => assert!(state.remove(&record).is_some()),
            }
        }
        for record in 0..content.records {
            let expected = (!content.is_deleted(record)).then(|| content.updates(record));
            assert_eq!(state.get(&record).copied(), expected, "{record}");
        }
        let (updates, deletes) = content.later_steps();
        assert_eq!(state.len() as u64, content.records - deletes);
        assert_eq!(content.steps().count() as u64, content.records + updates + deletes);
        let percent = |part: u64| part * 100 / content.records;
        assert!((18..=22).contains(&percent(updates)), "a tenth, twice on average: {updates}");
        assert!((4..=5).contains(&percent(deletes)), "{deletes}");
    }

    #[test]
    fn content_recognises_itself_in_any_order() {
        let content = small(10);
        let mut scratch = Vec::new();
        let mut bins = Vec::new();
        content.push_bins(3, content.updates(3), &mut bins);
        let list: Vec<_> = bins::iter(&bins).map(|bin| bin.whole.to_vec()).collect();
        let mut check = |parts: &[&[u8]], record: u64, expected: bool| {
            let bytes = parts.concat();
            let ops = Ops::parse(&bytes, parts.len() as u16).unwrap();
            assert_eq!(content.matches(record, ops, &mut scratch), expected);
        };
        check(&[&list[0], &list[1], &list[2]], 3, true);
        check(&[&list[2], &list[0], &list[1]], 3, true);
        check(&[&list[0], &list[1], &list[2]], 4, false);
        check(&[&list[0], &list[1]], 3, false);
        check(&[&list[0], &list[0], &list[0]], 3, false);
        let mut changed = list[2].clone();
        *changed.last_mut().unwrap() ^= 1;
        check(&[&list[0], &list[1], &changed], 3, false);
    }

    #[test]
    fn seeds_share_neither_keys_nor_values() {
        let (one, two) = (small(10), Content { seed: 8, ..small(10) });
        let (mut key_one, mut key_two) = (Vec::new(), Vec::new());
        one.key(5, &mut key_one);
        two.key(5, &mut key_two);
        assert_eq!((&key_one[..], &key_two[..]), (&b"\x037-5"[..], &b"\x038-5"[..]));
        assert_eq!(one.digest(&key_one), Digest::of_string("users", "7-5"));
        for bytes in [0, 1, 7, 8, 9, 100] {
            let content = Content { value_bytes: bytes, ..small(10) };
            let mut bins = Vec::new();
            content.push_bins(5, 0, &mut bins);
            let data = bins::find(&bins, b"data").unwrap();
            assert_eq!((data.value.len(), bins::iter(&bins).count()), (bytes, 3));
        }
    }
}
