//! The statements: each function is one transaction.

use crate::memory::check;
use crate::{Entry, Event, Precondition, Revision, StoreError};
use bytes::Bytes;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, TransactionBehavior};
use std::path::Path;

/// Old log rows are removed once in so many writes, as many at a time.
const COMPACT_EVERY: u64 = 64;
/// A batch of changes ends at so many rows or bytes.
const BATCH_ROWS: usize = 512;
const BATCH_BYTES: usize = 1 << 20;

/// A failed statement, or an answer that is an error of the store's own.
#[derive(Debug)]
pub(super) enum Failure {
    Sqlite(rusqlite::Error),
    Store(StoreError),
}

impl From<rusqlite::Error> for Failure {
    fn from(e: rusqlite::Error) -> Self {
        Self::Sqlite(e)
    }
}

impl From<StoreError> for Failure {
    fn from(e: StoreError) -> Self {
        Self::Store(e)
    }
}

impl Failure {
    /// Says it in the terms of the store.
    pub(super) fn named(self, operation: &'static str, key: &str, path: &Path) -> StoreError {
        let e = match self {
            Self::Store(e) => return e,
            Self::Sqlite(e) => e,
        };
        let cause = e.to_string();
        let (key, path) = (key.to_owned(), path.to_owned());
        match e.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => StoreError::Full {
                operation,
                key,
                path,
                cause,
            },
            // File size limits and full quotas come as failures to write.
            Some(ErrorCode::SystemIoFailure) if is_write(&e) && !has_room(&path) => {
                StoreError::Full {
                    operation,
                    key,
                    path,
                    cause,
                }
            }
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::Unavailable {
                operation,
                key,
                cause: format!("another process holds the lock of {}", path.display()),
            },
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreError::Corrupt {
                operation,
                path,
                cause,
            },
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => {
                StoreError::Unusable {
                    operation,
                    path,
                    cause,
                    remedy: "make the file and its directory writable",
                }
            }
            Some(_) => StoreError::Unavailable {
                operation,
                key,
                cause,
            },
            // A column of the wrong type, a row that must be there and is not.
            None => StoreError::Corrupt {
                operation,
                path,
                cause,
            },
        }
    }
}

fn is_write(e: &rusqlite::Error) -> bool {
    use rusqlite::ffi;
    let code = e.sqlite_error().map(|f| f.extended_code);
    matches!(
        code,
        Some(ffi::SQLITE_IOERR_WRITE | ffi::SQLITE_IOERR_SHMSIZE | ffi::SQLITE_IOERR_TRUNCATE)
    )
}

/// Whether a small write could succeed in the file system of `path` and under
/// this process's limit of file sizes.
fn has_room(path: &Path) -> bool {
    const SMALL: u64 = 64 << 10;
    let free = rustix::fs::statvfs(path).is_ok_and(|s| s.f_bavail * s.f_frsize >= SMALL);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Fsize).current;
    let largest = [path.to_owned(), wal_path(path)]
        .iter()
        .filter_map(|p| std::fs::metadata(p).ok())
        .map(|m| m.len())
        .max()
        .unwrap_or(0);
    free && limit.is_none_or(|l| l > largest + SMALL)
}

fn wal_path(path: &Path) -> std::path::PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

fn revision_of(row: &Row<'_>, column: usize) -> rusqlite::Result<Revision> {
    row.get::<_, i64>(column)
        .map(|r| Revision(r.cast_unsigned()))
}

fn bytes_of(value: ValueRef<'_>, column: usize) -> rusqlite::Result<Bytes> {
    match value.as_blob() {
        Ok(b) => Ok(Bytes::copy_from_slice(b)),
        Err(e) => Err(rusqlite::Error::FromSqlConversionFailure(
            column,
            value.data_type(),
            Box::new(e),
        )),
    }
}

pub(super) fn get(c: &mut Connection, key: &str) -> Result<Option<Entry>, Failure> {
    let mut statement = c.prepare_cached("SELECT val, rev FROM kv WHERE key = ?1")?;
    let entry = statement
        .query_row([key], |r| {
            Ok(Entry {
                key: key.to_owned(),
                value: bytes_of(r.get_ref(0)?, 0)?,
                revision: revision_of(r, 1)?,
            })
        })
        .optional()?;
    Ok(entry)
}

/// Oldest and newest revision in the log; (0, 0) when nothing was ever written.
fn bounds(c: &Connection) -> rusqlite::Result<(Revision, Revision)> {
    // Two statements: SQLite answers each from one end of the index, both
    // aggregates in one would read the whole table.
    let one = |sql| -> rusqlite::Result<Revision> {
        let r: Option<i64> = c.prepare_cached(sql)?.query_row([], |r| r.get(0))?;
        Ok(Revision(r.unwrap_or(0).cast_unsigned()))
    };
    Ok((
        one("SELECT min(rev) FROM log")?,
        one("SELECT max(rev) FROM log")?,
    ))
}

/// The newest revision.
pub(super) fn latest(c: &mut Connection) -> Result<Revision, Failure> {
    Ok(bounds(c)?.1)
}

/// Says which revision is listed, then hands out entries in order until `each`
/// wants no more.
pub(super) fn list(
    c: &mut Connection,
    prefixes: &[String],
    begin: impl FnOnce(Revision),
    mut each: impl FnMut(Entry) -> bool,
) -> Result<(), Failure> {
    let tx = c.transaction_with_behavior(TransactionBehavior::Deferred)?;
    begin(bounds(&tx)?.1);
    {
        let mut statement = tx.prepare_cached(
            "SELECT key, val, rev FROM kv WHERE key >= ?1 AND key < ?2 ORDER BY key",
        )?;
        'all: for prefix in prefixes {
            // No key contains the last code point, so this is the end of the prefix.
            let end = format!("{prefix}\u{10ffff}");
            let mut rows = statement.query([prefix.as_str(), &end])?;
            while let Some(row) = rows.next()? {
                let entry = Entry {
                    key: row.get(0)?,
                    value: bytes_of(row.get_ref(1)?, 1)?,
                    revision: revision_of(row, 2)?,
                };
                if !each(entry) {
                    break 'all;
                }
            }
        }
    }
    tx.commit()?;
    Ok(())
}

fn current(c: &Connection, key: &str) -> rusqlite::Result<Option<Revision>> {
    c.prepare_cached("SELECT rev FROM kv WHERE key = ?1")?
        .query_row([key], |r| revision_of(r, 0))
        .optional()
}

fn append(c: &Connection, key: &str, value: Option<&[u8]>, history: u64) -> rusqlite::Result<i64> {
    c.prepare_cached("INSERT INTO log (key, val) VALUES (?1, ?2)")?
        .execute((key, value))?;
    let revision = c.last_insert_rowid();
    let now = revision.cast_unsigned();
    if now.is_multiple_of(COMPACT_EVERY) && now > history.max(1) {
        let gone = (now - history.max(1)).cast_signed();
        c.prepare_cached("DELETE FROM log WHERE rev <= ?1")?
            .execute([gone])?;
    }
    Ok(revision)
}

pub(super) fn put(
    c: &mut Connection,
    key: &str,
    value: &[u8],
    precondition: Precondition,
    history: u64,
) -> Result<Revision, Failure> {
    let tx = c.transaction_with_behavior(TransactionBehavior::Immediate)?;
    check("put", key, precondition, current(&tx, key)?)?;
    let revision = append(&tx, key, Some(value), history)?;
    tx.prepare_cached(
        "INSERT INTO kv (key, val, rev) VALUES (?1, ?2, ?3)
         ON CONFLICT (key) DO UPDATE SET val = excluded.val, rev = excluded.rev",
    )?
    .execute((key, value, revision))?;
    tx.commit()?;
    Ok(Revision(revision.cast_unsigned()))
}

pub(super) fn delete(
    c: &mut Connection,
    key: &str,
    precondition: Precondition,
    history: u64,
) -> Result<Revision, Failure> {
    let tx = c.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let Some(is) = current(&tx, key)? else {
        return Err(StoreError::NotFound {
            operation: "delete",
            key: key.to_owned(),
        }
        .into());
    };
    check("delete", key, precondition, Some(is))?;
    let revision = append(&tx, key, None, history)?;
    tx.prepare_cached("DELETE FROM kv WHERE key = ?1")?
        .execute([key])?;
    tx.commit()?;
    Ok(Revision(revision.cast_unsigned()))
}

/// Whether every change after `from` is still there.
pub(super) fn startable(c: &Connection, from: Revision) -> Result<(), Failure> {
    let (first, newest) = bounds(c)?;
    let oldest = Revision(first.0.saturating_sub(1));
    if from < oldest || from > newest {
        return Err(StoreError::Compacted { from, oldest }.into());
    }
    Ok(())
}

/// Changes after `from` below the prefixes, and up to where the log was read.
pub(super) fn changes(
    c: &mut Connection,
    prefixes: &[String],
    from: Revision,
) -> Result<(Vec<Event>, Revision), Failure> {
    let tx = c.transaction_with_behavior(TransactionBehavior::Deferred)?;
    startable(&tx, from)?;
    let mut events = Vec::new();
    let mut position = from;
    {
        let mut statement =
            tx.prepare_cached("SELECT rev, key, val FROM log WHERE rev > ?1 ORDER BY rev")?;
        let mut rows = statement.query([from.0.cast_signed()])?;
        let mut size = 0;
        while events.len() < BATCH_ROWS && size < BATCH_BYTES {
            let Some(row) = rows.next()? else { break };
            position = revision_of(row, 0)?;
            let key = row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?;
            if !prefixes.iter().any(|p| key.starts_with(p.as_str())) {
                continue;
            }
            let (key, revision) = (key.to_owned(), position);
            events.push(match row.get_ref(2)? {
                ValueRef::Null => Event::Delete { key, revision },
                value => {
                    let value = bytes_of(value, 2)?;
                    size += value.len();
                    Event::Put(Entry {
                        key,
                        value,
                        revision,
                    })
                }
            });
        }
    }
    tx.commit()?;
    Ok((events, position))
}
