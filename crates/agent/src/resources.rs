//! The few objects that the agent itself reads and writes, typed.
//!
//! Promises: every change is a compare-and-swap on what was read; conflicts are tried
//! again on the newer state, a bounded number of times.

use api::{Resource, ResourceKey, ResourceKind, decode, encode, key};
use bytes::Bytes;
use datastore::{Precondition, Revision, Store, StoreError};
use std::sync::Arc;

/// How often a change is tried again on newer state.
const RETRIES: usize = 10;

/// Why an object could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResourceError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is stored is no such object.
    #[error("stored object is bad: {0}")]
    Bad(#[from] api::BadObject),
    /// Others changed it each time.
    #[error("{0} keeps being changed by others")]
    Contended(String),
}

/// Typed access to a store.
#[derive(Debug, Clone)]
pub(crate) struct Resources {
    store: Arc<dyn Store>,
}

/// What to do with an object that was read.
pub(crate) enum Change {
    /// Write this instead.
    Write(Resource),
    /// Remove it.
    Delete,
    /// Leave it.
    Nothing,
}

impl Resources {
    /// Over a store.
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// The store.
    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// One object with its revision; `None` when it does not exist.
    ///
    /// # Errors
    /// When the store fails or what it holds is no such object.
    pub(crate) async fn get(
        &self,
        kind: ResourceKind,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Option<(Resource, Revision)>, ResourceError> {
        let Some(e) = self.store.get(&key(kind, namespace, name)).await? else {
            return Ok(None);
        };
        let at = ResourceKey {
            kind,
            namespace,
            name,
        };
        let revision = e.revision.to_string();
        Ok(Some((decode(&at, &e.value, Some(&revision))?, e.revision)))
    }

    /// Every object of a kind that decodes; those that do not are named to `bad`.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn list(
        &self,
        kind: ResourceKind,
        mut bad: impl FnMut(api::BadObject),
    ) -> Result<Vec<Resource>, ResourceError> {
        let listing = self.store.list(kind.prefix()).await?;
        let mut out = Vec::with_capacity(listing.entries.len());
        for e in &listing.entries {
            let Some(at) = api::parse_key(&e.key) else {
                continue;
            };
            match decode(&at, &e.value, Some(&e.revision.to_string())) {
                Ok(r) => out.push(r),
                Err(e) => bad(e),
            }
        }
        Ok(out)
    }

    /// Changes one object, on its newest state.
    ///
    /// # Errors
    /// When the store fails, or others win each time.
    pub(crate) async fn change(
        &self,
        kind: ResourceKind,
        namespace: Option<&str>,
        name: &str,
        mut change: impl FnMut(Option<Resource>) -> Change + Send,
    ) -> Result<Option<Revision>, ResourceError> {
        let at = key(kind, namespace, name);
        for _ in 0..RETRIES {
            let found = self.get(kind, namespace, name).await?;
            let (old, precondition) = match found {
                Some((r, rev)) => (Some(r), Precondition::Revision(rev)),
                None => (None, Precondition::Absent),
            };
            let existed = old.is_some();
            let done = match change(old) {
                Change::Nothing => return Ok(None),
                Change::Delete if !existed => return Ok(None),
                Change::Delete => self.store.delete(&at, precondition).await,
                Change::Write(r) => {
                    self.store
                        .put(&at, Bytes::from(encode(&r)?), precondition)
                        .await
                }
            };
            match done {
                Ok(revision) => return Ok(Some(revision)),
                Err(e) if e.is_conflict() || e.is_not_found() => {}
                Err(e) => return Err(e.into()),
            }
        }
        Err(ResourceError::Contended(at))
    }
}
