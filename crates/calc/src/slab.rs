//! A vector whose places are used again.
//!
//! Promises: an index stays valid until it is removed; removing gives the place to a
//! later insertion.
//!
//! Never: moves what it holds.

/// Values by small index.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    places: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self {
            places: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T> Slab<T> {
    /// Puts a value in and says where.
    pub(crate) fn insert(&mut self, value: T) -> u32 {
        if let Some(i) = self.free.pop() {
            self.places[i as usize] = Some(value);
            return i;
        }
        let i = u32::try_from(self.places.len()).expect("fewer than 2^32 things of a kind");
        self.places.push(Some(value));
        i
    }

    /// Takes a value out.
    pub(crate) fn remove(&mut self, i: u32) -> Option<T> {
        let value = self.places.get_mut(i as usize)?.take();
        if value.is_some() {
            self.free.push(i);
        }
        value
    }

    /// The value there.
    pub(crate) fn get(&self, i: u32) -> Option<&T> {
        self.places.get(i as usize)?.as_ref()
    }

    /// The same, to change.
    pub(crate) fn get_mut(&mut self, i: u32) -> Option<&mut T> {
        self.places.get_mut(i as usize)?.as_mut()
    }

    /// All indexes in use, in order.
    pub(crate) fn indexes(&self) -> impl Iterator<Item = u32> {
        (0u32..)
            .zip(&self.places)
            .filter(|(_, p)| p.is_some())
            .map(|(i, _)| i)
    }
}
