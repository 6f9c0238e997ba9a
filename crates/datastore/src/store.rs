//! The face that every backend shows.

use crate::StoreError;
use async_trait::async_trait;
use bytes::Bytes;
use std::fmt;

/// A point in the history of a store; 0 is before the first write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key, such as `/registry/pods/default/web`.
    pub key: String,
    /// The value as it was written.
    pub value: Bytes,
    /// The write that gave it this value.
    pub revision: Revision,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The key has this value from this revision on.
    Put(Entry),
    /// The key is gone.
    Delete {
        /// Which.
        key: String,
        /// The revision of its deletion.
        revision: Revision,
    },
}

impl Event {
    /// The key that changed.
    pub fn key(&self) -> &str {
        match self {
            Self::Put(e) => &e.key,
            Self::Delete { key, .. } => key,
        }
    }

    /// When it changed.
    pub fn revision(&self) -> Revision {
        match self {
            Self::Put(e) => e.revision,
            Self::Delete { revision, .. } => *revision,
        }
    }
}

/// What must hold for a write to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing.
    Any,
    /// The key does not exist.
    Absent,
    /// The key was last written at this revision.
    Revision(Revision),
}

/// All that was below a prefix at one moment, by key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// The entries.
    pub entries: Vec<Entry>,
    /// The moment: a watch from here continues without a gap.
    pub revision: Revision,
}

/// A store of keys and values with a history.
///
/// A prefix is compared as text: end it with `/` to mean what is below a
/// directory. Dropping the future of a write leaves open whether the write happens.
#[async_trait]
pub trait Store: Send + Sync + fmt::Debug {
    /// One key; `None` when it does not exist.
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError>;

    /// Every entry below the prefixes, ordered within each prefix, a page at a
    /// time, all as of one revision. However long the pages are read, writes go on.
    async fn pages(&self, prefixes: &[&str]) -> Result<Box<dyn Pages>, StoreError>;

    /// Hands every entry below the prefixes to `each`, as [`Store::pages`] has them.
    ///
    /// After an error `each` may have seen part of them.
    async fn list_each(
        &self,
        prefixes: &[&str],
        each: &mut (dyn FnMut(Entry) + Send),
    ) -> Result<Revision, StoreError> {
        let mut pages = self.pages(prefixes).await?;
        while let Some(page) = pages.next().await? {
            page.into_iter().for_each(&mut *each);
        }
        Ok(pages.revision())
    }

    /// Every entry below a prefix, by key.
    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        let mut entries = Vec::new();
        let revision = self.list_each(&[prefix], &mut |e| entries.push(e)).await?;
        Ok(Listing { entries, revision })
    }

    /// Writes a value and gives the revision of the write.
    ///
    /// # Errors
    /// `Conflict` when the precondition does not hold, `NotFound` when it names a
    /// revision of a key that does not exist.
    async fn put(
        &self,
        key: &str,
        value: Bytes,
        precondition: Precondition,
    ) -> Result<Revision, StoreError>;

    /// Removes a key and gives the revision of the removal.
    ///
    /// # Errors
    /// `NotFound` when it does not exist, `Conflict` when the precondition does not hold.
    async fn delete(&self, key: &str, precondition: Precondition) -> Result<Revision, StoreError>;

    /// Changes below the prefixes that are newer than `from`, as they happen.
    ///
    /// # Errors
    /// `Compacted` when those changes are no longer kept, or `from` lies in the
    /// future (the store was replaced): the caller lists again.
    async fn watch(&self, prefixes: &[&str], from: Revision) -> Result<Box<dyn Watch>, StoreError>;
}

/// A listing in progress. Dropping it ends it.
#[async_trait]
pub trait Pages: Send + fmt::Debug {
    /// The moment that is listed: a watch from here continues without a gap.
    fn revision(&self) -> Revision;

    /// The next entries: at least one, or `None` at the end.
    ///
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    /// After an error the listing is over, and incomplete.
    async fn next(&mut self) -> Result<Option<Vec<Entry>>, StoreError>;
}

/// A running watch. Dropping it ends it.
#[async_trait]
pub trait Watch: Send + fmt::Debug {
    /// Waits for the next changes: at least one, in order of revision.
    ///
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    /// `Compacted`: list again. `Disconnected`: watch again from the last revision seen.
    /// After an error the watch is over.
    async fn next(&mut self) -> Result<Vec<Event>, StoreError>;
}
