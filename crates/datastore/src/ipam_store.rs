//! Address management's view of a store.

use crate::{Precondition, Revision, Store, StoreError};
use bytes::Bytes;
use ipam::{Storage, StorageError, Stored};
use std::sync::Arc;

/// A store, as the ipam crate needs it.
#[derive(Debug, Clone)]
pub struct IpamStore {
    store: Arc<dyn Store>,
}

impl IpamStore {
    /// Over a store.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }
}

fn failed(operation: &'static str, key: &str, e: StoreError) -> StorageError {
    match e {
        StoreError::Conflict { .. } => StorageError::Conflict,
        StoreError::NotFound { .. } => StorageError::NotFound,
        e => StorageError::Other {
            operation,
            key: key.to_owned(),
            message: e.to_string(),
        },
    }
}

fn stored(e: crate::Entry) -> Stored {
    Stored {
        key: e.key,
        value: e.value.into(),
        rev: e.revision.0,
    }
}

impl Storage for IpamStore {
    async fn get(&self, key: &str) -> Result<Option<Stored>, StorageError> {
        let found = self.store.get(key).await;
        Ok(found.map_err(|e| failed("get", key, e))?.map(stored))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Stored>, StorageError> {
        let mut all = Vec::new();
        let listed = self
            .store
            .list_each(&[prefix], &mut |e| all.push(stored(e)))
            .await;
        listed.map_err(|e| failed("list", prefix, e))?;
        Ok(all)
    }

    async fn create(&self, key: &str, value: &[u8]) -> Result<u64, StorageError> {
        let value = Bytes::copy_from_slice(value);
        let written = self.store.put(key, value, Precondition::Absent).await;
        written.map(|r| r.0).map_err(|e| failed("create", key, e))
    }

    async fn update(&self, key: &str, value: &[u8], rev: u64) -> Result<u64, StorageError> {
        let value = Bytes::copy_from_slice(value);
        let at = Precondition::Revision(Revision(rev));
        let written = self.store.put(key, value, at).await;
        written.map(|r| r.0).map_err(|e| failed("update", key, e))
    }

    async fn delete(&self, key: &str, rev: u64) -> Result<(), StorageError> {
        let at = Precondition::Revision(Revision(rev));
        let gone = self.store.delete(key, at).await;
        gone.map(drop).map_err(|e| failed("delete", key, e))
    }
}
