//! A set of small numbers.
//!
//! Promises: one bit a number up to the greatest that was ever in it, and finding the next
//! member skips 4096 absent ones at a step. Never: shrinks, except by [`Bits::clear`].

/// A set of `u32`, dense.
#[derive(Debug, Clone, Default)]
pub struct Bits {
    words: Vec<u64>,
    /// One bit for each word that has any.
    summary: Vec<u64>,
    count: usize,
}

impl Bits {
    /// How many members it has.
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether it has none.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether `n` is in it.
    pub fn contains(&self, n: u32) -> bool {
        self.words
            .get(n as usize / 64)
            .is_some_and(|w| w >> (n % 64) & 1 == 1)
    }

    /// Adds `n`; says whether it is new.
    pub fn insert(&mut self, n: u32) -> bool {
        let word = n as usize / 64;
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
            self.summary.resize(word / 64 + 1, 0);
        }
        let bit = 1 << (n % 64);
        if self.words[word] & bit != 0 {
            return false;
        }
        self.words[word] |= bit;
        self.summary[word / 64] |= 1 << (word % 64);
        self.count += 1;
        true
    }

    /// Adds all numbers below `end`.
    pub fn fill(&mut self, end: u32) {
        let words = end.div_ceil(64) as usize;
        if words > self.words.len() {
            self.words.resize(words, 0);
            self.summary.resize(words.div_ceil(64), 0);
        }
        for (i, word) in self.words[..words].iter_mut().enumerate() {
            let all = match end as usize - i * 64 {
                n @ ..64 => (1 << n) - 1,
                _ => u64::MAX,
            };
            self.count += (all & !*word).count_ones() as usize;
            *word |= all;
            self.summary[i / 64] |= 1 << (i % 64);
        }
    }

    /// Takes `n` out; says whether it was there.
    pub fn remove(&mut self, n: u32) -> bool {
        let word = n as usize / 64;
        let bit = 1 << (n % 64);
        match self.words.get_mut(word) {
            Some(w) if *w & bit != 0 => {
                *w &= !bit;
                if *w == 0 {
                    self.summary[word / 64] &= !(1 << (word % 64));
                }
                self.count -= 1;
                true
            }
            _ => false,
        }
    }

    /// The least member that is at least `from`.
    pub fn next(&self, from: u32) -> Option<u32> {
        let mut word = from as usize / 64;
        let first = self.words.get(word)? & (u64::MAX << (from % 64));
        if first != 0 {
            return Some(number(word, first));
        }
        word += 1;
        let mut group = word / 64;
        let mut groups = self.summary.get(group)? & u64::MAX.checked_shl((word % 64) as u32)?;
        while groups == 0 {
            group += 1;
            groups = *self.summary.get(group)?;
        }
        word = group * 64 + groups.trailing_zeros() as usize;
        Some(number(word, self.words[word]))
    }

    /// All members, in order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        let mut from = Some(0);
        std::iter::from_fn(move || {
            let n = self.next(from?)?;
            from = n.checked_add(1);
            Some(n)
        })
    }

    /// Takes everything out and gives the memory back.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// The octets that it holds.
    pub fn heap_size(&self) -> usize {
        (self.words.capacity() + self.summary.capacity()) * 8
    }
}

#[expect(clippy::cast_possible_truncation, reason = "made from u32")]
const fn number(word: usize, bits: u64) -> u32 {
    word as u32 * 64 + bits.trailing_zeros()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_is_a_set(steps in prop::collection::vec((any::<bool>(), 0u32..20_000), 0..200)) {
            let (mut bits, mut set) = (Bits::default(), BTreeSet::new());
            for (add, n) in steps {
                if n % 97 == 0 {
                    bits.fill(n / 8);
                    set.extend(0..n / 8);
                } else if add {
                    prop_assert_eq!(bits.insert(n), set.insert(n));
                } else {
                    prop_assert_eq!(bits.remove(n), set.remove(&n));
                }
                prop_assert_eq!(bits.len(), set.len());
                prop_assert_eq!(bits.next(n), set.range(n..).next().copied());
            }
            prop_assert_eq!(bits.iter().collect::<Vec<_>>(), set.into_iter().collect::<Vec<_>>());
        }
    }
}
