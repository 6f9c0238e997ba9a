//! The file: made, recognised, opened, or refused with a reason.
//!
//! Never: changes a file that is not a store, or is a store of a newer format.

use super::Options;
use super::sql::Failure;
use crate::StoreError;
use rusqlite::{Connection, OpenFlags};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// In the file's header: "Manx".
const APPLICATION_ID: i64 = 0x4d61_6e78;
/// The format that this program reads and writes, in `user_version`.
pub(super) const FORMAT: i64 = 1;

/// The tables of format 1. `log` needs no AUTOINCREMENT: its newest row is never
/// deleted, so that a new row is always one above every earlier one.
const SCHEMA: &str = "
CREATE TABLE kv (key TEXT NOT NULL UNIQUE, val BLOB NOT NULL, rev INTEGER NOT NULL);
CREATE TABLE log (rev INTEGER PRIMARY KEY, key TEXT NOT NULL, val BLOB);
";

/// Which file: device and inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileId(u64, u64);

pub(super) fn identify(path: &Path) -> io::Result<FileId> {
    fs::metadata(path).map(|m| FileId(m.dev(), m.ino()))
}

/// The writing end of an open store.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) connection: Connection,
    pub(super) id: FileId,
    notify: File,
}

/// The file whose modification tells other processes of a commit.
pub(super) fn notify_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-notify");
    name.into()
}

impl Handle {
    pub(super) fn open(path: &Path, options: &Options) -> Result<Self, StoreError> {
        make_file(path)?;
        let connection = connect(path, options)?;
        let id = identify(path).map_err(|e| unusable(path, &e))?;
        let notify = notify_path(path);
        let notify = create(&notify).map_err(|e| unusable(&notify, &e))?;
        Ok(Self {
            connection,
            id,
            notify,
        })
    }

    /// Tells watches of other processes that something was committed.
    pub(super) fn announce(&self) {
        // A lost announcement costs a watch one poll interval, no more.
        if let Err(e) = self.notify.write_at(b"\n", 0) {
            tracing::debug!(error = %e, "cannot announce a commit");
        }
    }
}

/// Owner only: what a cluster stores is not for everybody on the machine.
fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

fn make_file(path: &Path) -> Result<(), StoreError> {
    if let Ok(m) = fs::metadata(path) {
        if m.is_dir() {
            return Err(StoreError::Unusable {
                operation: "open",
                path: path.to_owned(),
                cause: "it is a directory".to_owned(),
                remedy: "name a file (MANX_STORE)",
            });
        }
    } else if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|e| unusable(parent, &e))?;
    }
    create(path).map(drop).map_err(|e| unusable(path, &e))
}

fn unusable(path: &Path, error: &io::Error) -> StoreError {
    let remedy = match error.kind() {
        io::ErrorKind::StorageFull => {
            return StoreError::Full {
                operation: "open",
                key: path.display().to_string(),
                path: path.to_owned(),
                cause: error.to_string(),
            };
        }
        io::ErrorKind::PermissionDenied => "run as the owner of the store, usually root",
        io::ErrorKind::ReadOnlyFilesystem => "put the store on a writable file system (MANX_STORE)",
        _ => "check the path of the store (MANX_STORE)",
    };
    StoreError::Unusable {
        operation: "open",
        path: path.to_owned(),
        cause: error.to_string(),
        remedy,
    }
}

/// Opens a connection to an existing file and makes the tables if it is empty.
pub(super) fn connect(path: &Path, options: &Options) -> Result<Connection, StoreError> {
    let named = |f: Failure| f.named("open", &path.display().to_string(), path);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut c = Connection::open_with_flags(path, flags).map_err(|e| named(e.into()))?;
    c.busy_timeout(options.busy_timeout)
        .map_err(|e| named(e.into()))?;
    if c.is_readonly("main").map_err(|e| named(e.into()))? {
        return Err(StoreError::Unusable {
            operation: "open",
            path: path.to_owned(),
            cause: "it is read-only".to_owned(),
            remedy: "make it writable, or name another file (MANX_STORE)",
        });
    }
    if recognise(&mut c, path).map_err(named)?? == State::Empty {
        format(&mut c, options).map_err(named)?;
        recognise(&mut c, path).map_err(named)??;
    }
    settings(&c).map_err(|e| named(e.into()))?;
    Ok(c)
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Empty,
    Ours,
}

/// Reads what the file says of itself, at one moment: another process may be making
/// it a store right now.
fn recognise(c: &mut Connection, path: &Path) -> Result<Result<State, StoreError>, Failure> {
    let tx = c.transaction()?;
    let application: i64 = tx.pragma_query_value(None, "application_id", |r| r.get(0))?;
    let version: i64 = tx.pragma_query_value(None, "user_version", |r| r.get(0))?;
    let tables: i64 = tx.query_row("SELECT count(*) FROM sqlite_master", [], |r| r.get(0))?;
    tx.commit()?;
    Ok(match (application, version, tables) {
        (0, 0, 0) => Ok(State::Empty),
        (APPLICATION_ID, FORMAT, _) => Ok(State::Ours),
        (APPLICATION_ID, newer, _) if newer > FORMAT => Err(StoreError::TooNew {
            path: path.to_owned(),
            found: newer,
            known: FORMAT,
        }),
        _ => Err(StoreError::Corrupt {
            operation: "open",
            path: path.to_owned(),
            cause: "it is an SQLite database of another program".to_owned(),
        }),
    })
}

/// Makes an empty file a store. Safe against others that do the same now.
#[expect(
    clippy::disallowed_methods,
    reason = "SQLite tells nobody when the journal mode can be changed; milliseconds, once a file"
)]
fn format(c: &mut Connection, options: &Options) -> Result<(), Failure> {
    let deadline = Instant::now() + options.busy_timeout;
    // SQLite does not wait for others while it changes the journal mode.
    while let Err(e) = c.pragma_update(None, "journal_mode", "WAL") {
        let busy = e.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy);
        if !busy || Instant::now() >= deadline {
            return Err(e.into());
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let tx = c.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let tables: i64 = tx.query_row("SELECT count(*) FROM sqlite_master", [], |r| r.get(0))?;
    if tables == 0 {
        tx.execute_batch(SCHEMA)?;
        tx.pragma_update(None, "application_id", APPLICATION_ID)?;
        tx.pragma_update(None, "user_version", FORMAT)?;
    }
    tx.commit()?;
    Ok(())
}

fn settings(c: &Connection) -> rusqlite::Result<()> {
    // The write-ahead log is flushed at checkpoints only: a write costs
    // microseconds, and a power cut loses moments, not consistency.
    c.pragma_update(None, "synchronous", "NORMAL")?;
    // In KiB: this process shares a node with everything else.
    c.pragma_update(None, "cache_size", -512)?;
    c.pragma_update(None, "temp_store", "MEMORY")?;
    // In pages, and in bytes: what the log may grow to between checkpoints.
    c.pragma_update(None, "wal_autocheckpoint", 1000)?;
    c.pragma_update(None, "journal_size_limit", 8 << 20)?;
    Ok(())
}
