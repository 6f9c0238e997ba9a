//! The store as a writer from outside sees it: an API server, or `manx apply`.
//!
//! Promises: a write has happened when the call returns.
//!
//! Never: validates; what is written here is known to be good.

use anyhow::{Context, Result};
use api::ResourceKind;
use bytes::Bytes;
use datastore::{Precondition, Store as _, embedded};
use serde_json::Value;
use std::path::Path;

/// An open store file.
#[derive(Debug)]
pub(crate) struct Store {
    runtime: tokio::runtime::Runtime,
    store: embedded::Store,
}

impl Store {
    /// Opens or makes the file.
    ///
    /// # Errors
    /// As the store says.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let store = runtime.block_on(async { embedded::Store::open(path) })?;
        Ok(Self { runtime, store })
    }

    /// Writes an object, whatever was there.
    ///
    /// # Errors
    /// As the store says.
    pub(crate) fn put(&self, kind: ResourceKind, object: &Value) -> Result<()> {
        let meta = &object["metadata"];
        let name = meta["name"].as_str().context("an object has a name")?;
        let key = api::key(kind, meta["namespace"].as_str(), name);
        self.put_raw(&key, object)
    }

    /// Writes a value under a key.
    ///
    /// # Errors
    /// As the store says.
    pub(crate) fn put_raw(&self, key: &str, value: &Value) -> Result<()> {
        let text = Bytes::from(serde_json::to_vec(value)?);
        self.runtime
            .block_on(self.store.put(key, text, Precondition::Any))?;
        Ok(())
    }

    /// Removes an object.
    ///
    /// # Errors
    /// Also when it is not there.
    pub(crate) fn delete(
        &self,
        kind: ResourceKind,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<()> {
        let key = api::key(kind, namespace, name);
        self.runtime
            .block_on(self.store.delete(&key, Precondition::Any))?;
        Ok(())
    }

    /// Reads an object.
    ///
    /// # Errors
    /// Also when it is not there.
    pub(crate) fn get(
        &self,
        kind: ResourceKind,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Value> {
        let key = api::key(kind, namespace, name);
        let entry = self.runtime.block_on(self.store.get(&key))?;
        let entry = entry.with_context(|| format!("{key} does not exist"))?;
        Ok(serde_json::from_slice(&entry.value)?)
    }
}
