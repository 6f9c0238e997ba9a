//! The store, as this crate needs it: five verbs, each write conditional.
//!
//! Never: knows a backend. Revisions are opaque and never used twice for one key, also
//! across deletion (etcd's `mod_revision` and Kubernetes' `resourceVersion` are such).

use std::future::Future;
use std::sync::Arc;

/// One stored object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its key, such as `/calico/ipam/v2/handle/x`.
    pub key: String,
    /// The JSON text.
    pub value: Vec<u8>,
    /// The revision of its last write.
    pub rev: u64,
}

/// Why a storage call did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StorageError {
    /// Created what exists, or updated or deleted what has changed since it was read.
    #[error("update conflict")]
    Conflict,
    /// Updated or deleted what is not there.
    #[error("resource does not exist")]
    NotFound,
    /// The store did not answer. A write may or may not have happened.
    #[error("{operation} {key}: {message}")]
    Other {
        /// The verb: get, list, create, update or delete.
        operation: &'static str,
        /// Key or prefix.
        key: String,
        /// What the backend said.
        message: String,
    },
}

/// A store with compare-and-swap. Each read sees all writes that returned before it began.
pub trait Storage: Send + Sync {
    /// The object under `key`, or `None`.
    fn get(&self, key: &str) -> impl Future<Output = Result<Option<Stored>, StorageError>> + Send;

    /// All objects whose key begins with `prefix`.
    fn list(&self, prefix: &str) -> impl Future<Output = Result<Vec<Stored>, StorageError>> + Send;

    /// Writes a new object and gives its revision; [`StorageError::Conflict`] if it exists.
    fn create(
        &self,
        key: &str,
        value: &[u8],
    ) -> impl Future<Output = Result<u64, StorageError>> + Send;

    /// Replaces the object if it is still at `rev` and gives the new revision;
    /// [`StorageError::Conflict`] if it changed, [`StorageError::NotFound`] if it is gone.
    fn update(
        &self,
        key: &str,
        value: &[u8],
        rev: u64,
    ) -> impl Future<Output = Result<u64, StorageError>> + Send;

    /// Deletes the object if it is still at `rev`; errors as [`Storage::update`].
    fn delete(&self, key: &str, rev: u64) -> impl Future<Output = Result<(), StorageError>> + Send;
}

impl<T: Storage> Storage for &T {
    fn get(&self, key: &str) -> impl Future<Output = Result<Option<Stored>, StorageError>> + Send {
        (**self).get(key)
    }
    fn list(&self, prefix: &str) -> impl Future<Output = Result<Vec<Stored>, StorageError>> + Send {
        (**self).list(prefix)
    }
    fn create(
        &self,
        key: &str,
        value: &[u8],
    ) -> impl Future<Output = Result<u64, StorageError>> + Send {
        (**self).create(key, value)
    }
    fn update(
        &self,
        key: &str,
        value: &[u8],
        rev: u64,
    ) -> impl Future<Output = Result<u64, StorageError>> + Send {
        (**self).update(key, value, rev)
    }
    fn delete(&self, key: &str, rev: u64) -> impl Future<Output = Result<(), StorageError>> + Send {
        (**self).delete(key, rev)
    }
}

impl<T: Storage> Storage for Arc<T> {
    fn get(&self, key: &str) -> impl Future<Output = Result<Option<Stored>, StorageError>> + Send {
        (**self).get(key)
    }
    fn list(&self, prefix: &str) -> impl Future<Output = Result<Vec<Stored>, StorageError>> + Send {
        (**self).list(prefix)
    }
    fn create(
        &self,
        key: &str,
        value: &[u8],
    ) -> impl Future<Output = Result<u64, StorageError>> + Send {
        (**self).create(key, value)
    }
    fn update(
        &self,
        key: &str,
        value: &[u8],
        rev: u64,
    ) -> impl Future<Output = Result<u64, StorageError>> + Send {
        (**self).update(key, value, rev)
    }
    fn delete(&self, key: &str, rev: u64) -> impl Future<Output = Result<(), StorageError>> + Send {
        (**self).delete(key, rev)
    }
}
