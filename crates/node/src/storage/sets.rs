//! The sets of a namespace. Which there are is the same for all shards; each shard has its own
//! table from name to number, and counts what it holds of each.
//!
//! Clients choose the names, and there is room for [`SET_ID_MAX`] of them. So a set in which nothing
//! lies any more, not even a tombstone, gives its name and its number back when they run out. Who
//! remembers something by a set's number must forget it then: see [`Sets::take_given_back`].

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::index::{IndexEntry, SET_ID_MAX};
use longship::model::SetId;

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

/// The names of a namespace's sets, over all shards: at most [`SET_ID_MAX`], each with the number of
/// shards that have it. Locked when a shard meets a name for the first time, and when it gives some
/// back.
#[derive(Debug, Default)]
pub struct SetNames {
    names: Mutex<HashMap<Box<str>, u32>>,
    /// How often a name was refused: the shards are to give back what they do not need.
    refused: AtomicU64,
}

impl SetNames {
    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, u32>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether one more shard may have a name, and now has it.
    fn admit(&self, name: &str) -> bool {
        let mut names = self.lock();
        if let Some(shards) = names.get_mut(name) {
            *shards += 1;
            return true;
        }
        let has_room = names.len() < usize::from(SET_ID_MAX);
        if has_room {
            names.insert(name.into(), 1);
        } else {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        has_room
    }

    /// Adds the name of a set that has records already, however many there are.
    fn note(&self, name: &str) {
        *self.lock().entry(name.into()).or_default() += 1;
    }

    /// One shard does not have the name any more.
    fn give_back(&self, name: &str) {
        let mut names = self.lock();
        if let Some(shards) = names.get_mut(name) {
            *shards -= 1;
            if *shards == 0 {
                names.remove(name);
            }
        }
    }
}

/// Names, numbers and counts on one shard. Number 0 is "no set", always there.
#[derive(Debug)]
pub struct Sets {
    all: Arc<SetNames>,
    names: Vec<Box<str>>,
    numbers: HashMap<Box<str>, SetId>,
    counts: Vec<SetCounts>,
    /// Numbers without a set; their name is empty.
    free: Vec<SetId>,
    /// A number was given back since somebody asked.
    given_back: bool,
    /// [`SetNames::refused`] when this shard gave back last.
    refused: u64,
    /// What was asked for last is most likely asked for next.
    last: SetId,
}

impl Sets {
    /// None so far; `all` are those of every shard.
    pub fn new(all: Arc<SetNames>) -> Self {
        let (names, counts) = (vec!["".into()], vec![SetCounts::default()]);
        Self {
            all,
            names,
            numbers: HashMap::new(),
            counts,
            free: Vec::new(),
            given_back: false,
            refused: 0,
            last: SetId::NONE,
        }
    }

    /// Gives back the sets in which nothing lies, if any shard lacked a name since the last time.
    /// `is_pending` tells of records that are about to be counted.
    pub(super) fn give_back(&mut self, is_pending: impl Fn(SetId) -> bool) {
        let refused = self.all.refused.load(Ordering::Relaxed);
        if std::mem::replace(&mut self.refused, refused) != refused {
            self.give_back_now(is_pending);
        }
    }

    /// Gives back the sets in which nothing lies, whether a name was lacking or not.
    pub(super) fn give_back_now(&mut self, is_pending: impl Fn(SetId) -> bool) {
        for number in 1..self.names.len() {
            let (set, counts) = (SetId(number as u16), &self.counts[number]);
            let is_empty = counts.objects + counts.tombstones == 0 && !is_pending(set);
            if is_empty && !self.names[number].is_empty() {
                let name = std::mem::take(&mut self.names[number]);
                self.numbers.remove(&name);
                self.all.give_back(&name);
                self.free.push(set);
                self.given_back = true;
            }
        }
        self.last = SetId::NONE;
    }

    /// Whether nothing lies in a set but tombstones.
    pub(super) fn holds_tombstones_alone(&self, set: SetId) -> bool {
        let counts = &self.counts[usize::from(set.0)];
        set != SetId::NONE && counts.objects == 0
    }

    /// Whether numbers were given back since the last call: what is known by number is void.
    #[inline]
    pub fn take_given_back(&mut self) -> bool {
        std::mem::take(&mut self.given_back)
    }

    /// The number of a set, if it was ever used.
    pub fn find(&self, name: &str) -> Option<SetId> {
        if name.is_empty() { Some(SetId::NONE) } else { self.numbers.get(name).copied() }
    }

    /// The number of a set, given now if need be; `None` when the namespace has [`SET_ID_MAX`]
    /// already.
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

    /// As [`Self::intern`], for a record found at a start: its set has a number, however many sets
    /// all shards have.
    pub(super) fn intern_found(&mut self, name: &str) -> Option<SetId> {
        self.find(name).or_else(|| {
            self.all.note(name);
            self.add_name(name)
        })
    }

    fn add_name(&mut self, name: &str) -> Option<SetId> {
        let set = match self.free.pop() {
            Some(set) => set,
            None => self.add_number()?,
        };
        self.names[usize::from(set.0)] = name.into();
        self.numbers.insert(name.into(), set);
        Some(set)
    }

    fn add_number(&mut self) -> Option<SetId> {
        let number = u16::try_from(self.names.len()).ok().filter(|n| *n <= SET_ID_MAX)?;
        self.names.push("".into());
        self.counts.push(SetCounts::default());
        Some(SetId(number))
    }

    /// Puts back a set of a checkpoint; they come by number, those given back without a name. `None`
    /// when that is not so.
    pub(super) fn restore(&mut self, number: u32, name: &str, counts: SetCounts) -> Option<()> {
        if number > 0 && name.is_empty() {
            let set = self.add_number().filter(|set| u32::from(set.0) == number)?;
            self.free.push(set);
            return (counts == SetCounts::default()).then_some(());
        }
        let set = if number == 0 { SetId::NONE } else { self.add_number()? };
        if u32::from(set.0) != number || self.find(name).is_some_and(|known| known != set) {
            return None;
        }
        if number > 0 {
            self.all.note(name);
            self.names[usize::from(set.0)] = name.into();
            self.numbers.insert(name.into(), set);
        }
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

    /// Name and counts by number; first what lies in no set, under an empty name, as sets given back
    /// are.
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
    use super::super::index::{BlockId, Location};
    use super::*;
    use longship::model::{Digest, Generation, Lut, RecordFlags, SrcId, Version, VoidTime};

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

    fn entry(set: SetId) -> IndexEntry {
        IndexEntry {
            digest: Digest([0; 20]),
            version: Version::ZERO,
            local_lut: Lut::ZERO,
            location: Location { block: BlockId(0), offset: 0, extent: 100 },
            generation: Generation(1),
            void_time: VoidTime::NEVER,
            set,
            flags: RecordFlags::default(),
            src_id: SrcId::NONE,
        }
    }

    #[test]
    fn names_that_nobody_needs_are_given_back_when_they_run_out() {
        let all = Arc::<SetNames>::default();
        let [mut one, mut other] = [Sets::new(Arc::clone(&all)), Sets::new(all)];
        let kept = one.intern("kept").unwrap();
        one.add(&entry(kept));
        let pending = one.intern("pending").unwrap();
        one.intern("shared").unwrap();
        other.intern("shared").unwrap();
        let passing = one.intern("passing").unwrap();
        one.add(&entry(passing));
        one.subtract(&entry(passing));
        for number in 4..SET_ID_MAX {
            one.intern(&format!("s{number}")).unwrap();
        }
        one.give_back(|_| false);
        assert!(!one.take_given_back(), "nobody lacks a name");
        assert_eq!(other.intern("new"), None);
        one.give_back(|set| set == pending);
        assert!(one.take_given_back() && !one.take_given_back());
        assert_eq!((one.find("kept"), one.find("pending")), (Some(kept), Some(pending)));
        assert_eq!((one.find("passing"), one.find("shared")), (None, None));
        assert!(other.intern("new").is_some());
        assert!(other.find("shared").is_some());
        let again: Vec<_> = (0..3).filter_map(|n| one.intern(&format!("again{n}"))).collect();
        assert_eq!(again.len(), 3);
        assert!(again.iter().all(|set| set.0 <= SET_ID_MAX && ![kept, pending].contains(set)));
        // A checkpoint keeps the numbers, holes included.
        let mut restored = Sets::new(Arc::default());
        for (number, (name, counts)) in one.iter().enumerate() {
            restored.restore(number as u32, name, counts).unwrap();
        }
        assert_eq!((restored.find("kept"), restored.name(pending)), (Some(kept), "pending"));
        assert_eq!(restored.free.len(), one.free.len());
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
