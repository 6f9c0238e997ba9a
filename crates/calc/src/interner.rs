//! Words as small numbers.
//!
//! Promises: one number a text while anything refers to it; a text that nothing refers
//! to any more is forgotten.
//!
//! Never: orders words; numbers say nothing of texts.

use crate::slab::Slab;
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// A word. Only meaningful to the interner that gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Word(pub(crate) u32);

/// Reference-counted words.
#[derive(Debug, Default)]
pub(crate) struct Interner {
    ids: FxHashMap<Arc<str>, Word>,
    texts: Slab<(Arc<str>, u32)>,
}

impl Interner {
    /// The word of a text, with one more reference to it.
    pub(crate) fn acquire(&mut self, text: &str) -> Word {
        if let Some(&word) = self.ids.get(text) {
            if let Some((_, refs)) = self.texts.get_mut(word.0) {
                *refs += 1;
            }
            return word;
        }
        let text: Arc<str> = text.into();
        let word = Word(self.texts.insert((text.clone(), 1)));
        self.ids.insert(text, word);
        word
    }

    /// The word of a text, if anything refers to it.
    pub(crate) fn find(&self, text: &str) -> Option<Word> {
        self.ids.get(text).copied()
    }

    /// The text of a word.
    pub(crate) fn text(&self, word: Word) -> &str {
        self.texts.get(word.0).map_or("", |(t, _)| t)
    }

    /// Gives one reference back.
    pub(crate) fn release(&mut self, word: Word) {
        let Some((_, refs)) = self.texts.get_mut(word.0) else {
            return;
        };
        *refs -= 1;
        if *refs == 0
            && let Some((text, _)) = self.texts.remove(word.0)
        {
            self.ids.remove(&text);
        }
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}
