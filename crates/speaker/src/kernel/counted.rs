//! Values that many share, each there once and numbered.
//!
//! Promises: a number means the same while anybody uses it; 0 is never one.

use rustc_hash::FxHashMap;
use std::hash::Hash;

/// Values with how many use each.
#[derive(Debug)]
pub(super) struct Counted<T> {
    slots: Vec<Option<(T, u32)>>,
    free: Vec<u32>,
    index: FxHashMap<T, u32>,
}

impl<T: Clone + Eq + Hash> Counted<T> {
    pub(super) fn new() -> Self {
        Self {
            // Number 0 is nobody's.
            slots: vec![None],
            free: Vec::new(),
            index: FxHashMap::default(),
        }
    }

    /// The number of a value, with one more user; and whether it is new.
    pub(super) fn acquire(&mut self, value: T) -> (u32, bool) {
        if let Some(&id) = self.index.get(&value) {
            self.again(id);
            return (id, false);
        }
        let slot = Some((value.clone(), 1));
        let id = match self.free.pop() {
            Some(id) => {
                self.slots[id as usize] = slot;
                id
            }
            None => {
                self.slots.push(slot);
                u32::try_from(self.slots.len() - 1).expect("fewer than routes")
            }
        };
        self.index.insert(value, id);
        (id, true)
    }

    /// One more user; of 0 nothing.
    pub(super) fn again(&mut self, id: u32) {
        if let Some((_, users)) = &mut self.slots[id as usize] {
            *users += 1;
        }
    }

    /// One user less; of 0 nothing. Whether it was the last.
    pub(super) fn release(&mut self, id: u32) -> bool {
        let slot = &mut self.slots[id as usize];
        let Some((value, users)) = slot else {
            return false;
        };
        *users -= 1;
        if *users > 0 {
            return false;
        }
        self.index.remove(value);
        *slot = None;
        self.free.push(id);
        true
    }

    /// The value; nothing has 0.
    pub(super) fn get(&self, id: u32) -> Option<&T> {
        self.slots[id as usize].as_ref().map(|(value, _)| value)
    }

    /// All values with their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let there = |(id, slot): (u32, &'_ Option<(T, u32)>)| slot.as_ref().map(|_| id);
        let ids = (0..).zip(&self.slots).filter_map(there);
        ids.filter_map(|id| Some((id, self.get(id)?)))
    }
}
