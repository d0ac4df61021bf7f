//! The sets of a namespace: which there are, the same for all shards; and on each shard name to
//! number, and what is in each.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use super::index::{IndexEntry, SET_ID_MAX};
use crate::model::SetId;

/// What a set, or records without one, hold on this shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetCounts {
    /// Records that are not deleted.
    pub objects: u64,
    /// Deleted records still remembered.
    pub tombstones: u64,
    /// Bytes of both on the device.
    pub bytes: u64,
}

/// The names of a namespace's sets, over all shards: at most [`SET_ID_MAX`]. Locked when a shard
/// meets a name for the first time.
#[derive(Debug, Default)]
pub struct SetNames(Mutex<HashSet<Box<str>>>);

impl SetNames {
    /// Whether a name is known, or may still be added and now is.
    fn admit(&self, name: &str) -> bool {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        names.contains(name) || (names.len() < usize::from(SET_ID_MAX) && names.insert(name.into()))
    }

    /// Adds the name of a set that has records already, however many there are.
    fn note(&self, name: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name.into());
    }
}

/// Names, numbers and counts on one shard. Number 0 is "no set", always there.
#[derive(Debug)]
pub struct Sets {
    all: Arc<SetNames>,
    names: Vec<Box<str>>,
    numbers: HashMap<Box<str>, SetId>,
    counts: Vec<SetCounts>,
    /// What was asked for last is most likely asked for next.
    last: SetId,
}

impl Sets {
    /// None so far; `all` are those of every shard.
    pub fn new(all: Arc<SetNames>) -> Self {
        let (names, counts) = (vec!["".into()], vec![SetCounts::default()]);
        Self { all, names, numbers: HashMap::new(), counts, last: SetId::NONE }
    }

    /// The number of a set, if it was ever used.
    pub fn find(&self, name: &str) -> Option<SetId> {
        if name.is_empty() { Some(SetId::NONE) } else { self.numbers.get(name).copied() }
    }

    /// The number of a set, given now if need be; `None` when the namespace has 4095 already.
    pub fn intern(&mut self, name: &str) -> Option<SetId> {
        if self.name(self.last) == name {
            return Some(self.last);
        }
        if let Some(number) = self.find(name) {
            self.last = number;
            return Some(number);
        }
        if self.all.admit(name) { self.add_name(name) } else { None }
    }

    /// The same for a record found at a start: what is there is served.
    pub(super) fn intern_found(&mut self, name: &str) -> Option<SetId> {
        self.find(name).or_else(|| {
            self.all.note(name);
            self.add_name(name)
        })
    }

    fn add_name(&mut self, name: &str) -> Option<SetId> {
        let number = u16::try_from(self.names.len()).ok().filter(|n| *n <= SET_ID_MAX)?;
        self.names.push(name.into());
        self.counts.push(SetCounts::default());
        self.numbers.insert(name.into(), SetId(number));
        Some(SetId(number))
    }

    /// Puts back a set of a checkpoint; they come by number. `None` when that is not so.
    pub(super) fn restore(&mut self, number: u32, name: &str, counts: SetCounts) -> Option<()> {
        let set = self.intern_found(name).filter(|set| u32::from(set.0) == number)?;
        self.counts[usize::from(set.0)] = counts;
        Some(())
    }

    /// The name of a set; empty for none.
    pub fn name(&self, set: SetId) -> &str {
        self.names.get(usize::from(set.0)).map_or("", |name| name)
    }

    /// Counts a record in.
    pub fn add(&mut self, entry: &IndexEntry) {
        let counts = &mut self.counts[usize::from(entry.set.0)];
        *kind(counts, entry) += 1;
        counts.bytes += u64::from(entry.location.extent);
    }

    /// Counts a record out that was counted in before.
    pub fn subtract(&mut self, entry: &IndexEntry) {
        let counts = &mut self.counts[usize::from(entry.set.0)];
        *kind(counts, entry) -= 1;
        counts.bytes -= u64::from(entry.location.extent);
    }

    /// Name and counts of each set ever used; first what lies in none, under an empty name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, SetCounts)> {
        self.names.iter().map(|name| &**name).zip(self.counts.iter().copied())
    }

    /// Everything together.
    pub fn total(&self) -> SetCounts {
        self.counts.iter().fold(SetCounts::default(), |sum, counts| SetCounts {
            objects: sum.objects + counts.objects,
            tombstones: sum.tombstones + counts.tombstones,
            bytes: sum.bytes + counts.bytes,
        })
    }
}

fn kind<'a>(counts: &'a mut SetCounts, entry: &IndexEntry) -> &'a mut u64 {
    if entry.is_tombstone() { &mut counts.tombstones } else { &mut counts.objects }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_share_the_bound_and_what_is_found_at_a_start_is_served_above_it() {
        let all = Arc::<SetNames>::default();
        let [mut one, mut other] = [Sets::new(Arc::clone(&all)), Sets::new(all)];
        for number in 0..SET_ID_MAX {
            let sets = if number % 2 == 0 { &mut one } else { &mut other };
            assert!(sets.intern(&format!("s{number}")).is_some());
        }
        assert_eq!((one.intern("one too many"), other.intern("one too many")), (None, None));
        assert_eq!(one.intern("s1"), Some(SetId(2049)), "the other's");
        assert_eq!(one.intern_found("found"), Some(SetId(2050)));
        assert_eq!(other.intern("found"), Some(SetId(2048)));
    }

    #[test]
    fn a_set_keeps_its_number_and_there_are_at_most_4095() {
        let mut sets = Sets::new(Arc::default());
        assert_eq!(sets.intern(""), Some(SetId::NONE));
        for number in 1..=SET_ID_MAX {
            assert_eq!(sets.intern(&format!("s{number}")), Some(SetId(number)));
        }
        assert_eq!(sets.intern("one too many"), None);
        assert_eq!(sets.intern("s4095"), Some(SetId(4095)));
        assert_eq!(sets.name(SetId(7)), "s7");
        assert_eq!(sets.name(SetId::NONE), "");
    }
}
