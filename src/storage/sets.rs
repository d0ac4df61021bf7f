//! The sets of a namespace on one shard: name to number, and what is in each.

use std::collections::HashMap;

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

/// Names, numbers and counts. Number 0 is "no set", always there.
#[derive(Debug)]
pub struct Sets {
    names: Vec<Box<str>>,
    numbers: HashMap<Box<str>, SetId>,
    counts: Vec<SetCounts>,
    /// What was asked for last is most likely asked for next.
    last: SetId,
}

impl Default for Sets {
    fn default() -> Self {
        Self {
            names: vec!["".into()],
            numbers: HashMap::new(),
            counts: vec![SetCounts::default()],
            last: SetId::NONE,
        }
    }
}

impl Sets {
    /// The number of a set, if it was ever used.
    pub fn find(&self, name: &str) -> Option<SetId> {
        if name.is_empty() { Some(SetId::NONE) } else { self.numbers.get(name).copied() }
    }

    /// The number of a set, given now if need be; `None` when 4095 are there already.
    pub fn intern(&mut self, name: &str) -> Option<SetId> {
        if self.name(self.last) == name {
            return Some(self.last);
        }
        if let Some(number) = self.find(name) {
            self.last = number;
            return Some(number);
        }
        let number = u16::try_from(self.names.len()).ok().filter(|n| *n <= SET_ID_MAX)?;
        self.names.push(name.into());
        self.counts.push(SetCounts::default());
        self.numbers.insert(name.into(), SetId(number));
        Some(SetId(number))
    }

    /// Puts back a set of a checkpoint; they come by number. `None` when that is not so.
    pub(super) fn restore(&mut self, number: u32, name: &str, counts: SetCounts) -> Option<()> {
        let set = self.intern(name).filter(|set| u32::from(set.0) == number)?;
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
    fn a_set_keeps_its_number_and_there_are_at_most_4095() {
        let mut sets = Sets::default();
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
