//! The embedded store against what happens to files: other processes, crashes,
//! full disks, damage, newer formats.

use bytes::Bytes;
use datastore::{Event, Precondition, Revision, Store, StoreError, embedded};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(20);

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn open(path: &Path) -> embedded::Store {
    embedded::Store::open(path).expect("opens")
}

/// This test program again, running only `child`, which does `job` on the store.
fn start(job: &str, path: &Path) -> Child {
    Command::new(std::env::current_exe().expect("own path"))
        .args(["--exact", "child", "--nocapture"])
        .env("STORE_JOB", job)
        .env("STORE_PATH", path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts")
}

/// The other process of the tests below; nothing when run as a test by itself.
#[tokio::test]
async fn child() {
    let Ok(job) = std::env::var("STORE_JOB") else {
        return;
    };
    let path = PathBuf::from(std::env::var_os("STORE_PATH").expect("set by the parent"));
    match job.as_str() {
        "count" => {
            let s = open(&path);
            for i in 0..200 {
                let key = format!("/child/{i}");
                s.put(&key, Bytes::from_static(b"c"), Precondition::Absent)
                    .await
                    .expect("put");
            }
        }
        "hang in a transaction" => {
            let c = rusqlite::Connection::open(&path).expect("opens");
            c.execute_batch(
                "BEGIN IMMEDIATE;
                 INSERT INTO log (key, val) VALUES ('/half', x'00');
                 INSERT INTO kv (key, val, rev) VALUES ('/half', x'00', 999);",
            )
            .expect("half a write");
            println!("\nready");
            std::io::stdout().flush().expect("flush");
            let mut line = String::new();
            std::io::stdin()
                .read_line(&mut line)
                .expect("the parent is there");
        }
        "write as it is told" => {
            let s = open(&path);
            for line in std::io::stdin().lines() {
                let line = line.expect("text");
                s.put("/told", Bytes::from(line), Precondition::Any)
                    .await
                    .expect("put");
            }
        }
        other => panic!("unknown job {other}"),
    }
}

#[tokio::test]
async fn two_processes_write_and_each_sees_all() {
    let d = dir();
    let path = d.path().join("store.db");
    let s = open(&path);
    let mut w = s.watch(&["/"], Revision(0)).await.expect("watch");
    let mut other = start("count", &path);
    for i in 0..200 {
        let key = format!("/parent/{i}");
        s.put(&key, Bytes::from_static(b"p"), Precondition::Absent)
            .await
            .expect("put");
    }
    let mut seen = Vec::new();
    while seen.len() < 400 {
        let batch = timeout(SOON, w.next()).await.expect("in time");
        seen.extend(batch.expect("no error").iter().map(|e| e.revision().0));
    }
    assert!(other.wait().expect("ends").success());
    assert_eq!(seen, (1..=400).collect::<Vec<_>>());
    assert_eq!(s.list("/").await.expect("list").entries.len(), 400);
}

#[tokio::test]
async fn changes_of_another_process_arrive_at_once() {
    let d = dir();
    let path = d.path().join("store.db");
    let s = open(&path);
    let mut w = s.watch(&["/"], Revision(0)).await.expect("watch");
    let mut other = start("write as it is told", &path);
    let mut tell = other.stdin.take().expect("piped");
    let mut delays = Vec::new();
    for i in 0..100 {
        let asked = Instant::now();
        writeln!(tell, "{i}").expect("told");
        let batch = timeout(SOON, w.next())
            .await
            .expect("in time")
            .expect("no error");
        assert!(
            matches!(&batch[..], [Event::Put(e)] if e.value == i.to_string()),
            "{batch:?}"
        );
        delays.push(asked.elapsed());
    }
    drop(tell);
    assert!(other.wait().expect("ends").success());
    delays.sort();
    let (median, worst) = (delays[50], delays[98]);
    println!("median {median:?}, 99 of 100 within {worst:?}");
    // Far below the poll interval of a second: the announcement was heard.
    assert!(median < Duration::from_millis(50), "median {median:?}");
}

#[tokio::test]
async fn a_writer_that_dies_halfway_leaves_nothing() {
    let d = dir();
    let path = d.path().join("store.db");
    let s = open(&path);
    let first = s
        .put("/a", Bytes::from_static(b"1"), Precondition::Any)
        .await
        .expect("put");
    let mut other = start("hang in a transaction", &path);
    let out = BufReader::new(other.stdout.take().expect("piped"));
    let ready = out.lines().map_while(Result::ok).any(|l| l == "ready");
    assert!(ready);
    // Readers do not wait for the writer that hangs.
    assert!(s.get("/half").await.expect("get").is_none());
    // A writer does: it goes on as soon as the other is dead.
    let waiting = tokio::spawn({
        let s = s.clone();
        async move {
            s.put("/b", Bytes::from_static(b"2"), Precondition::Any)
                .await
        }
    });
    other.kill().expect("killed");
    other.wait().expect("ends");
    let second = timeout(SOON, waiting)
        .await
        .expect("in time")
        .expect("no panic")
        .expect("put");
    assert_eq!(second.0, first.0 + 1);
    assert!(s.get("/half").await.expect("get").is_none());
}

#[tokio::test]
async fn a_lock_that_is_never_released_is_reported() {
    let d = dir();
    let path = d.path().join("store.db");
    let options = embedded::Options {
        busy_timeout: Duration::from_millis(50),
        ..embedded::Options::default()
    };
    let s = embedded::Store::open_with(&path, options).expect("opens");
    let c = rusqlite::Connection::open(&path).expect("opens");
    c.execute_batch("BEGIN IMMEDIATE").expect("locks");
    let e = s
        .put("/a", Bytes::new(), Precondition::Any)
        .await
        .expect_err("locked");
    assert!(e.is_retryable(), "{e:?}");
    assert!(
        e.to_string().contains("another process holds the lock"),
        "{e}"
    );
    c.execute_batch("ROLLBACK").expect("unlocks");
    s.put("/a", Bytes::new(), Precondition::Any)
        .await
        .expect("put");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn any_number_may_open_a_new_file_at_once() {
    for _ in 0..10 {
        let d = dir();
        let path = d.path().join("new/store.db");
        let tasks: Vec<_> = (0..8)
            .map(|i| {
                let path = path.clone();
                tokio::spawn(async move {
                    let s = open(&path);
                    let key = format!("/{i}");
                    s.put(&key, Bytes::new(), Precondition::Absent).await
                })
            })
            .collect();
        for t in tasks {
            t.await.expect("no panic").expect("put");
        }
        let listing = open(&path).list("/").await.expect("list");
        assert_eq!((listing.entries.len(), listing.revision.0), (8, 8));
    }
}

/// Run by hand, in release mode: what a small write costs.
#[tokio::test]
#[ignore = "a measurement"]
async fn cost_of_a_small_write() {
    let d = dir();
    let s = open(&d.path().join("store.db"));
    let value = || Bytes::from(vec![b'v'; 200]);
    let mut times = Vec::new();
    for i in 0..5000 {
        let begun = Instant::now();
        let key = format!("/k/{}", i % 500);
        s.put(&key, value(), Precondition::Any).await.expect("put");
        times.push(begun.elapsed());
    }
    times.sort();
    println!(
        "median {:?}, 99 of 100 {:?}, worst {:?}",
        times[2500], times[4950], times[4999]
    );
}

#[tokio::test]
async fn what_was_written_is_there_after_reopening() {
    let d = dir();
    let path = d.path().join("store.db");
    let last = {
        let s = open(&path);
        s.put("/a", Bytes::from_static(b"1"), Precondition::Any)
            .await
            .expect("put");
        s.put("/b", Bytes::from_static(b"2"), Precondition::Any)
            .await
            .expect("put");
        s.delete("/b", Precondition::Any).await.expect("delete")
    };
    let s = open(&path);
    let listing = s.list("/").await.expect("list");
    assert_eq!((listing.entries.len(), listing.revision), (1, last));
    let next = s
        .put("/c", Bytes::new(), Precondition::Any)
        .await
        .expect("put");
    assert_eq!(next.0, last.0 + 1, "revisions go on where they were");
    let mut w = s.watch(&["/"], Revision(1)).await.expect("watch");
    assert_eq!(
        timeout(SOON, w.next())
            .await
            .expect("in time")
            .expect("kept")
            .len(),
        3
    );
}

#[test]
fn what_is_no_store_is_refused_and_left_alone() {
    let d = dir();
    let at = |n: &str| d.path().join(n);
    let refused = |p: &Path| embedded::Store::open(p).expect_err("refused");

    let e = refused(d.path());
    assert!(matches!(e, StoreError::Unusable { .. }), "{e:?}");
    assert!(e.to_string().contains("directory"), "{e}");

    fs::write(
        at("text"),
        "this is certainly no database, whatever its name may say",
    )
    .expect("w");
    let before = fs::read(at("text")).expect("read");
    let e = refused(&at("text"));
    assert!(matches!(e, StoreError::Corrupt { .. }), "{e:?}");
    assert!(e.to_string().contains("restore it from a copy"), "{e}");
    assert_eq!(fs::read(at("text")).expect("read"), before);

    let c = rusqlite::Connection::open(at("foreign")).expect("opens");
    c.execute_batch("CREATE TABLE t (x)").expect("table");
    drop(c);
    let before = fs::read(at("foreign")).expect("read");
    let e = refused(&at("foreign"));
    assert!(e.to_string().contains("another program"), "{e}");
    assert_eq!(fs::read(at("foreign")).expect("read"), before);

    drop(open(&at("newer")));
    let c = rusqlite::Connection::open(at("newer")).expect("opens");
    c.pragma_update(None, "user_version", 7).expect("pragma");
    drop(c);
    let before = fs::read(at("newer")).expect("read");
    let e = refused(&at("newer"));
    assert!(
        matches!(
            e,
            StoreError::TooNew {
                found: 7,
                known: 1,
                ..
            }
        ),
        "{e:?}"
    );
    assert!(
        e.to_string().contains("version 7") && e.to_string().contains("up to 1"),
        "{e}"
    );
    assert_eq!(fs::read(at("newer")).expect("read"), before);

    fs::write(at("file"), "").expect("write");
    let e = refused(&at("file/store.db"));
    assert!(matches!(e, StoreError::Unusable { .. }), "{e:?}");
}

#[tokio::test]
async fn damage_is_reported_with_file_and_remedy() {
    let d = dir();
    let path = d.path().join("store.db");
    {
        let s = open(&path);
        for i in 0..500 {
            let key = format!("/k/{i:04}");
            s.put(&key, Bytes::from(vec![b'v'; 200]), Precondition::Any)
                .await
                .expect("put");
        }
    }
    let mut bytes = fs::read(&path).expect("read");
    let len = bytes.len();
    bytes[4096..len].fill(0xa5);
    fs::write(&path, bytes).expect("write");
    let e = match embedded::Store::open(&path) {
        Ok(s) => s.list("/k/").await.expect_err("damaged"),
        Err(e) => e,
    };
    assert!(matches!(e, StoreError::Corrupt { .. }), "{e:?}");
    assert!(e.to_string().contains(path.to_str().expect("text")), "{e}");
}

#[tokio::test]
async fn a_store_that_vanished_is_not_written_nor_made_anew() {
    let d = dir();
    let path = d.path().join("store.db");
    let options = embedded::Options {
        poll: Duration::from_millis(20),
        ..embedded::Options::default()
    };
    let s = embedded::Store::open_with(&path, options).expect("opens");
    s.put("/a", Bytes::new(), Precondition::Any)
        .await
        .expect("put");
    s.put("/a", Bytes::new(), Precondition::Any)
        .await
        .expect("put");
    let mut w = s.watch(&["/"], Revision(2)).await.expect("watch");
    let aside = d.path().join("aside");
    fs::create_dir(&aside).expect("dir");
    for end in ["", "-wal", "-shm"] {
        let name = format!("store.db{end}");
        fs::rename(d.path().join(&name), aside.join(&name)).expect("moved");
    }
    let e = timeout(SOON, w.next())
        .await
        .expect("in time")
        .expect_err("gone");
    assert!(matches!(e, StoreError::Disconnected { .. }), "{e:?}");
    let e = s
        .put("/b", Bytes::new(), Precondition::Any)
        .await
        .expect_err("gone");
    assert!(e.is_retryable(), "{e:?}");
    assert!(!path.exists());

    // Another store in its place has another history.
    let fresh = open(&path);
    fresh
        .put("/x", Bytes::new(), Precondition::Any)
        .await
        .expect("put");
    let e = s.watch(&["/"], Revision(2)).await.expect_err("future");
    assert!(matches!(e, StoreError::Compacted { .. }), "{e:?}");
    assert!(s.get("/a").await.expect("get").is_none());
    let r = s
        .put("/y", Bytes::new(), Precondition::Any)
        .await
        .expect("put");
    assert_eq!(r, Revision(2));
    assert!(fresh.get("/y").await.expect("get").is_some());
}

/// A thread with a mount namespace of its own, where `path` is a small tmpfs.
fn on_a_small_disk(path: PathBuf, test: impl FnOnce() + Send + 'static) {
    use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
    use rustix::thread::{UnshareFlags, unshare_unsafe};
    std::thread::spawn(move || {
        // SAFETY: only this thread's view of mounts changes; it is new and ends here.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) }.expect("unshare");
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", private).expect("private mounts");
        let size = Some(c"size=512k");
        mount("tmpfs", &path, "tmpfs", MountFlags::empty(), size).expect("tmpfs");
        test();
    })
    .join()
    .expect("the test on the small disk");
}

#[test]
fn a_full_disk_is_reported_and_recovered_from() {
    let d = dir();
    let path = d.path().to_owned();
    on_a_small_disk(path.clone(), move || {
        // One thread only: the others do not see the small disk.
        let file = path.join("store.db");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("runtime");
        runtime.block_on(async {
            let s = open(&file);
            let value = || Bytes::from(vec![7; 10_000]);
            let mut written = 0;
            let e = loop {
                match s
                    .put(&format!("/{written}"), value(), Precondition::Any)
                    .await
                {
                    Ok(_) => written += 1,
                    Err(e) => break e,
                }
                assert!(written < 1000, "the disk never fills");
            };
            assert!(matches!(e, StoreError::Full { .. }), "{e:?}");
            let text = e.to_string();
            assert!(text.contains("database or disk is full"), "{text}");
            assert!(text.contains(file.to_str().expect("text")), "{text}");
            assert!(written > 3, "{written}");
            let listing = s.list("/").await.expect("reads go on");
            assert_eq!(listing.entries.len(), written);
            assert_eq!(listing.revision.0, written as u64);
            // Room again: it goes on by itself.
            rustix::mount::mount_remount(&path, rustix::mount::MountFlags::empty(), "size=8m")
                .expect("more room");
            s.put("/more", value(), Precondition::Any)
                .await
                .expect("put");
            assert_eq!(s.list("/").await.expect("list").entries.len(), written + 1);
        });
    });
}

#[test]
fn a_read_only_file_system_is_reported() {
    let d = dir();
    let path = d.path().to_owned();
    on_a_small_disk(path.clone(), move || {
        let file = path.join("store.db");
        drop(open(&file));
        let flags = rustix::mount::MountFlags::RDONLY;
        rustix::mount::mount_remount(&path, flags, "").expect("read-only");
        for p in [file, path.join("new.db")] {
            let e = embedded::Store::open(p).expect_err("read-only");
            assert!(matches!(e, StoreError::Unusable { .. }), "{e:?}");
            assert!(e.to_string().to_lowercase().contains("read-only"), "{e}");
        }
    });
}
