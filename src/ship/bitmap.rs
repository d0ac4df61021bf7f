//! One bit per lane.

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

    #[inline]
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
    }
}
