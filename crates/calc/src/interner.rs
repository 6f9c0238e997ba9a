//! Words as small numbers.
//!
//! Promises: one number a text while anything refers to it; a text that nothing refers
//! to any more is forgotten; a word costs its text and some 35 bytes.
//!
//! Never: orders words; numbers say nothing of texts.

use crate::slab::Slab;
use rustc_hash::{FxBuildHasher, FxHashMap};
use std::hash::BuildHasher as _;

/// A word. Only meaningful to the interner that gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Word(pub(crate) u32);

#[derive(Debug)]
struct Entry {
    text: Box<str>,
    refs: u32,
    /// Another one of the same hash.
    next: Option<std::num::NonZeroU32>,
}

/// Reference-counted words.
#[derive(Debug, Default)]
pub(crate) struct Interner {
    /// The first word of each hash; few hashes have more.
    by_hash: FxHashMap<u32, Word>,
    entries: Slab<Entry>,
}

fn hash(text: &str) -> u32 {
    let h = FxBuildHasher.hash_one(text);
    // Both halves: the lower alone says little of the first letters.
    (h ^ (h >> 32)) as u32
}

/// A word as what comes next: one more, so that zero is none.
fn link(word: Word) -> Option<std::num::NonZeroU32> {
    std::num::NonZeroU32::new(word.0.wrapping_add(1))
}

impl Interner {
    /// The word of a text, with one more reference to it.
    pub(crate) fn acquire(&mut self, text: &str) -> Word {
        if let Some(word) = self.find(text) {
            if let Some(entry) = self.entries.get_mut(word.0) {
                entry.refs += 1;
            }
            return word;
        }
        let hash = hash(text);
        let word = Word(self.entries.insert(Entry {
            text: text.into(),
            refs: 1,
            next: self.by_hash.get(&hash).copied().and_then(link),
        }));
        self.by_hash.insert(hash, word);
        word
    }

    fn chain(&self, hash: u32) -> impl Iterator<Item = (Word, &Entry)> {
        let entry = |w: Word| Some((w, self.entries.get(w.0)?));
        let first = self.by_hash.get(&hash).copied().and_then(entry);
        std::iter::successors(first, move |(_, e)| entry(Word(e.next?.get() - 1)))
    }

    /// The word of a text, if anything refers to it.
    pub(crate) fn find(&self, text: &str) -> Option<Word> {
        let mut same = self.chain(hash(text));
        same.find(|(_, e)| *e.text == *text).map(|(w, _)| w)
    }

    /// The text of a word.
    pub(crate) fn text(&self, word: Word) -> &str {
        self.entries.get(word.0).map_or("", |e| &e.text)
    }

    /// Gives one reference back.
    pub(crate) fn release(&mut self, word: Word) {
        let Some(entry) = self.entries.get_mut(word.0) else {
            return;
        };
        entry.refs -= 1;
        if entry.refs > 0 {
            return;
        }
        let hash = hash(&entry.text);
        let before = self.chain(hash).find(|(_, e)| e.next == link(word));
        let before = before.map(|(w, _)| w);
        let Some(gone) = self.entries.remove(word.0) else {
            return;
        };
        match (before.and_then(|w| self.entries.get_mut(w.0)), gone.next) {
            (Some(before), next) => before.next = next,
            (None, Some(next)) => drop(self.by_hash.insert(hash, Word(next.get() - 1))),
            (None, None) => drop(self.by_hash.remove(&hash)),
        }
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.by_hash.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_one_hash_stay_apart() {
        // Some of 300,000 texts have a hash in common.
        let mut words = Interner::default();
        let text = |i: u32| format!("text-{i}");
        let all: Vec<Word> = (0..300_000).map(|i| words.acquire(&text(i))).collect();
        assert!(
            words.by_hash.len() < all.len(),
            "no two hashes are the same"
        );
        for (i, w) in (0..).zip(&all) {
            assert_eq!(
                (words.find(&text(i)), words.text(*w)),
                (Some(*w), &*text(i))
            );
        }
        for (i, w) in (0..).zip(&all).filter(|(i, _)| i % 2 == 0) {
            words.release(*w);
            assert_eq!(words.find(&text(i)), None);
        }
        for (i, w) in (0..).zip(&all).filter(|(i, _)| i % 2 == 1) {
            assert_eq!(words.find(&text(i)), Some(*w));
            words.release(*w);
        }
        assert!(words.is_empty());
    }
}
