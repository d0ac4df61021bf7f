//! One bit per lane.

use std::ops::Range;

/// A growable set of small integers that is walked in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Bitmap {
    words: Vec<u64>,
    count: u32,
}

impl Bitmap {
    /// Makes room for `bits` members.
    pub(super) fn grow(&mut self, bits: usize) {
        self.words.resize(bits.div_ceil(64).max(self.words.len()), 0);
    }

    #[inline]
    pub(super) fn insert(&mut self, bit: u32) {
        let word = &mut self.words[bit as usize / 64];
        self.count += u32::from(*word >> (bit % 64) & 1 == 0);
        *word |= 1 << (bit % 64);
    }

    #[inline]
    pub(super) fn remove(&mut self, bit: u32) {
        let word = &mut self.words[bit as usize / 64];
        self.count -= u32::from(*word >> (bit % 64) & 1 == 1);
        *word &= !(1 << (bit % 64));
    }

    #[inline]
    pub(super) fn contains(&self, bit: u32) -> bool {
        self.words.get(bit as usize / 64).is_some_and(|word| word >> (bit % 64) & 1 == 1)
    }

    #[inline]
    pub(super) const fn is_empty(&self) -> bool {
        self.count == 0
    }

    #[cfg(test)]
    pub(super) const fn len(&self) -> u32 {
        self.count
    }

    pub(super) fn clear(&mut self) {
        if self.count > 0 {
            self.words.fill(0);
            self.count = 0;
        }
    }

    /// The lowest member that is at least `from`.
    #[inline]
    pub(super) fn next_at(&self, from: u32) -> Option<u32> {
        let mut index = from as usize / 64;
        let mut word = self.words.get(index)? & (u64::MAX << (from % 64));
        while word == 0 {
            index += 1;
            word = *self.words.get(index)?;
        }
        Some(index as u32 * 64 + word.trailing_zeros())
    }

    /// The next member at or after `from`, going round once.
    #[inline]
    pub(super) fn next_round(&self, from: u32) -> Option<u32> {
        if self.count == 0 {
            return None;
        }
        self.next_at(from).or_else(|| self.next_at(0))
    }

    /// The lowest member within `range` that is in none of `but`. All have room for the same bits.
    #[inline]
    pub(super) fn next_in_but<const N: usize>(
        &self,
        but: [&Self; N],
        range: Range<u32>,
    ) -> Option<u32> {
        if self.count == 0 || range.is_empty() {
            return None;
        }
        self.next_in(range, |index, word| {
            but.iter().fold(word, |word, but| word & !but.word(index))
        })
    }

    /// Whether the two have a member within `range` in common.
    pub(super) fn meets(&self, other: &Self, range: Range<u32>) -> bool {
        let common = |index, word: u64| word & other.word(index);
        self.next_in(range, common).is_some()
    }

    /// Whether both have a bit of `range` in common that `but` has not.
    pub(super) fn meets_but(&self, other: &Self, but: &Self, range: Range<u32>) -> bool {
        let common = |index, word: u64| word & other.word(index) & !but.word(index);
        self.next_in(range, common).is_some()
    }

    #[inline]
    fn next_in(&self, range: Range<u32>, of_word: impl Fn(usize, u64) -> u64) -> Option<u32> {
        let first = range.start as usize / 64;
        let end = (range.end as usize).div_ceil(64).min(self.words.len());
        for index in first..end {
            let mut word = of_word(index, self.words[index]);
            if index == first {
                word &= u64::MAX << (range.start % 64);
            }
            if word != 0 {
                let bit = index as u32 * 64 + word.trailing_zeros();
                return (bit < range.end).then_some(bit);
            }
        }
        None
    }

    /// Adds the members of another set with room for the same bits.
    pub(super) fn insert_all(&mut self, other: &Self) {
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word |= other);
        self.recount();
    }

    /// Takes the members of another set out.
    pub(super) fn remove_all(&mut self, other: &Self) {
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word &= !other);
        self.recount();
    }

    /// Takes the members within `range` out.
    pub(super) fn clear_in(&mut self, range: Range<u32>) {
        self.keep_in(range, |_| 0);
    }

    /// Takes out the members within `range` of which `kept`, asked for each word, has no bit.
    pub(super) fn keep_in(&mut self, range: Range<u32>, kept: impl Fn(usize) -> u64) {
        if self.count == 0 {
            return;
        }
        let end = (range.end as usize).div_ceil(64).min(self.words.len());
        for index in range.start as usize / 64..end {
            let first = (index as u32 * 64).max(range.start) % 64;
            let beyond = (index as u32 * 64 + 64).saturating_sub(range.end);
            let within = u64::MAX << first & u64::MAX >> beyond;
            let word = &mut self.words[index];
            let was = word.count_ones();
            *word &= !within | kept(index);
            self.count -= was - word.count_ones();
        }
    }

    /// The members among those of one word.
    #[inline]
    pub(super) fn word(&self, index: usize) -> u64 {
        self.words.get(index).copied().unwrap_or(0)
    }

    fn recount(&mut self) {
        self.count = self.words.iter().map(|word| word.count_ones()).sum();
    }

    /// All members, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        let mut from = 0;
        std::iter::from_fn(move || {
            let bit = self.next_at(from)?;
            from = bit + 1;
            Some(bit)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_like_a_set(ops in prop::collection::vec((0u32..300, any::<bool>()), 0..200)) {
            let (mut bitmap, mut model) = (Bitmap::default(), BTreeSet::new());
            bitmap.grow(300);
            for (bit, add) in ops {
                if add {
                    bitmap.insert(bit);
                    model.insert(bit);
                } else {
                    bitmap.remove(bit);
                    model.remove(&bit);
                }
                prop_assert_eq!(bitmap.len() as usize, model.len());
                prop_assert_eq!(bitmap.contains(bit), model.contains(&bit));
                prop_assert_eq!(bitmap.next_at(bit), model.range(bit..).next().copied());
                let round = model.range(bit..).next().or_else(|| model.iter().next()).copied();
                prop_assert_eq!(bitmap.next_round(bit), round);
            }
            prop_assert!(bitmap.iter().eq(model.iter().copied()));
        }

        #[test]
        fn behaves_like_two_sets(
            own in prop::collection::btree_set(0u32..300, 0..80),
            other in prop::collection::btree_set(0u32..300, 0..80),
            from in 0u32..300,
            to in 0u32..300,
        ) {
            let set = |members: &BTreeSet<u32>| {
                let mut bitmap = Bitmap::default();
                bitmap.grow(300);
                members.iter().for_each(|&bit| bitmap.insert(bit));
                bitmap
            };
            let (mut all, but) = (set(&own), set(&other));
            let left: BTreeSet<u32> = own.difference(&other).copied().collect();
            let next = (from..to).find(|bit| left.contains(bit));
            prop_assert_eq!(all.next_in_but([&but], from..to), next);
            prop_assert_eq!(all.next_in_but([&but, &all], from..to), None);
            let common = (from..to).any(|bit| own.contains(&bit) && other.contains(&bit));
            prop_assert_eq!(all.meets(&but, from..to), common);
            prop_assert!(!all.meets_but(&but, &all, from..to));
            let rest = (from..to).any(|bit| other.contains(&bit) && !own.contains(&bit));
            prop_assert_eq!(but.meets_but(&but, &all, from..to), rest);
            let mut some = all.clone();
            some.keep_in(from..to, |index| but.word(index));
            let stays = |bit: &u32| !(from..to).contains(bit) || other.contains(bit);
            prop_assert!(some.iter().eq(own.iter().copied().filter(stays)));
            prop_assert_eq!(some.len() as usize, some.iter().count());
            all.insert_all(&but);
            prop_assert!(all.iter().eq(own.union(&other).copied()));
            prop_assert_eq!(all.len() as usize, own.union(&other).count());
            all.remove_all(&but);
            prop_assert!(all.iter().eq(left.iter().copied()));
            prop_assert_eq!(all.is_empty(), left.is_empty());
        }
    }
}
