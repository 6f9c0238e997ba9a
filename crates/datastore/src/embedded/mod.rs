//! A store in one SQLite file, shared by the processes of one machine.
//!
//! Promises: several processes read, write and watch one file at once; a write
//! is one transaction, whole or not at all, whatever crashes; what was reported
//! as written survives the death of any process (a power cut may take the last
//! moments, never the consistency); an unusable file is reported and left as it is.
//!
//! Never: holds more than a few hundred kilobytes of the file in memory, creates an
//! empty store in place of one that vanished while in use, or keeps history without bound.

mod file;
mod pages;
mod sql;
mod tail;
mod watch;

use crate::{Entry, Pages, Precondition, Revision, StoreError, Watch};
use async_trait::async_trait;
use bytes::Bytes;
use file::{FileId, Handle};
use rusqlite::Connection;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How many idle read connections are kept.
const IDLE_READERS: usize = 2;

/// How an embedded store behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many changes are kept for watches. At least one.
    pub history: u64,
    /// How long an operation waits for other processes' writes.
    pub busy_timeout: Duration,
    /// How often the file is looked at although nobody announced a change.
    pub poll: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            history: 20_000,
            busy_timeout: Duration::from_secs(5),
            poll: Duration::from_secs(1),
        }
    }
}

/// A store in a file. Clones are the same store; the last one closes it.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

impl Store {
    /// Opens the store in `path`; makes the file, and directories above it, when
    /// they do not exist. Blocks for a few milliseconds.
    ///
    /// # Errors
    /// `Unusable`, `Corrupt`, `TooNew`, `Full` or `Unavailable`, each naming the
    /// file; nothing on disk has been changed then.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, StoreError> {
        Self::open_with(path, Options::default())
    }

    /// As [`Store::open`], with options.
    ///
    /// # Errors
    /// The same.
    pub fn open_with(path: impl Into<PathBuf>, options: Options) -> Result<Self, StoreError> {
        let path = path.into();
        let handle = Handle::open(&path, &options)?;
        Ok(Self {
            inner: Arc::new(Inner {
                path,
                options,
                writer: Mutex::new(Some(handle)),
                readers: Mutex::new(Vec::new()),
                latest: tokio::sync::watch::Sender::new(Latest::default()),
                tail_started: Mutex::new(false),
            }),
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Runs `work` where blocking is allowed.
    async fn blocking<T: Send + 'static>(
        &self,
        operation: &'static str,
        key: &str,
        work: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(&self.inner);
        match tokio::task::spawn_blocking(move || work(&inner)).await {
            Ok(result) => result,
            Err(e) => Err(StoreError::Unavailable {
                operation,
                key: key.to_owned(),
                cause: format!("the operation was cut short: {e}"),
            }),
        }
    }
}

/// What watches need to know without asking the file.
#[derive(Debug, Clone, Copy, Default)]
struct Latest {
    /// The newest revision seen.
    revision: Revision,
    /// Grows whenever watches should look at the file for trouble.
    disturbances: u64,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    options: Options,
    /// The one connection that writes; `None` after the file vanished.
    writer: Mutex<Option<Handle>>,
    /// Idle connections that read, with the file that they are of.
    readers: Mutex<Vec<(FileId, Connection)>>,
    latest: tokio::sync::watch::Sender<Latest>,
    tail_started: Mutex<bool>,
}

/// A panic of another holder leaves no half state behind: SQLite rolls back.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    /// Which file is at the path now. Writing to one that was removed or
    /// replaced would be lost, so each operation asks: one system call.
    fn current_file(&self, operation: &'static str, key: &str) -> Result<FileId, StoreError> {
        file::identify(&self.path).map_err(|e| StoreError::Unavailable {
            operation,
            key: key.to_owned(),
            cause: format!("store file {}: {e}", self.path.display()),
        })
    }

    fn write<T>(
        &self,
        operation: &'static str,
        key: &str,
        work: impl FnOnce(&mut Connection) -> Result<T, sql::Failure>,
    ) -> Result<T, StoreError> {
        let id = self.current_file(operation, key)?;
        let mut slot = lock(&self.writer);
        if slot.as_ref().is_none_or(|h| h.id != id) {
            *slot = None;
            *slot = Some(Handle::open(&self.path, &self.options)?);
            self.disturb(true);
        }
        let handle = slot.as_mut().expect("opened just above");
        let result = work(&mut handle.connection).map_err(|f| f.named(operation, key, &self.path));
        if result.is_ok() {
            handle.announce();
        }
        result
    }

    fn read<T>(
        &self,
        operation: &'static str,
        key: &str,
        work: impl FnOnce(&mut Connection) -> Result<T, sql::Failure>,
    ) -> Result<T, StoreError> {
        let id = self.current_file(operation, key)?;
        let idle = {
            let mut readers = lock(&self.readers);
            readers.retain(|(of, _)| *of == id);
            readers.pop()
        };
        let mut connection = match idle {
            Some((_, c)) => c,
            None => file::connect(&self.path, &self.options)?,
        };
        let result = work(&mut connection).map_err(|f| f.named(operation, key, &self.path));
        if result.is_ok() {
            let mut readers = lock(&self.readers);
            if readers.len() < IDLE_READERS {
                readers.push((id, connection));
            }
        }
        result
    }

    /// Wakes watches up to look at the file themselves.
    fn disturb(&self, replaced: bool) {
        self.latest.send_modify(|l| {
            l.disturbances += 1;
            if replaced {
                l.revision = Revision(0);
            }
        });
    }

    fn wrote(&self, revision: Revision) {
        self.latest.send_if_modified(|l| {
            let newer = revision > l.revision;
            if newer {
                l.revision = revision;
            }
            newer
        });
    }
}

#[async_trait]
impl crate::Store for Store {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        let wanted = key.to_owned();
        self.blocking("get", key, move |s| {
            s.read("get", &wanted, |c| sql::get(c, &wanted))
        })
        .await
    }

    async fn pages(&self, prefixes: &[&str]) -> Result<Box<dyn Pages>, StoreError> {
        pages::start(&self.inner, prefixes).await
    }

    async fn put(
        &self,
        key: &str,
        value: Bytes,
        precondition: Precondition,
    ) -> Result<Revision, StoreError> {
        let wanted = key.to_owned();
        self.blocking("put", key, move |s| {
            let history = s.options.history;
            let revision = s.write("put", &wanted, |c| {
                sql::put(c, &wanted, &value, precondition, history)
            })?;
            s.wrote(revision);
            Ok(revision)
        })
        .await
    }

    async fn delete(&self, key: &str, precondition: Precondition) -> Result<Revision, StoreError> {
        let wanted = key.to_owned();
        self.blocking("delete", key, move |s| {
            let history = s.options.history;
            let revision = s.write("delete", &wanted, |c| {
                sql::delete(c, &wanted, precondition, history)
            })?;
            s.wrote(revision);
            Ok(revision)
        })
        .await
    }

    async fn watch(&self, prefixes: &[&str], from: Revision) -> Result<Box<dyn Watch>, StoreError> {
        tail::start(&self.inner)?;
        let watch = watch::FileWatch::new(self.clone(), prefixes, from);
        watch.check_start().await?;
        Ok(Box::new(watch))
    }
}
