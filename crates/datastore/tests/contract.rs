//! What every store promises, asked of each backend by the same functions.

use bytes::Bytes;
use datastore::{Event, Precondition, Revision, Store, StoreError, Watch, embedded, memory};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(10);

/// History long enough for the tests, short enough to be overrun by them.
const HISTORY: u64 = 200;

struct Backend {
    store: Arc<dyn Store>,
    /// Another handle on the same data, as another process would have.
    other: Arc<dyn Store>,
    _dir: tempfile::TempDir,
}

fn backends() -> Vec<(&'static str, Backend)> {
    let dir = || tempfile::tempdir().expect("a temporary directory");
    let in_memory = memory::Store::with_history(usize::try_from(HISTORY).expect("small"));
    let files = dir();
    let open = || {
        let options = embedded::Options {
            history: HISTORY,
            ..embedded::Options::default()
        };
        embedded::Store::open_with(files.path().join("deep/store.db"), options).expect("opens")
    };
    let (one, two) = (open(), open());
    vec![
        (
            "memory",
            Backend {
                store: Arc::new(in_memory.clone()),
                other: Arc::new(in_memory),
                _dir: dir(),
            },
        ),
        (
            "embedded",
            Backend {
                store: Arc::new(one),
                other: Arc::new(two),
                _dir: files,
            },
        ),
    ]
}

async fn put(s: &Arc<dyn Store>, key: &str, value: &str) -> Revision {
    s.put(
        key,
        Bytes::copy_from_slice(value.as_bytes()),
        Precondition::Any,
    )
    .await
    .expect("put")
}

/// `key=value@revision`, or `-key@revision`.
fn show(e: &Event) -> String {
    match e {
        Event::Put(e) => format!(
            "{}={}@{}",
            e.key,
            String::from_utf8_lossy(&e.value),
            e.revision
        ),
        Event::Delete { key, revision } => format!("-{key}@{revision}"),
    }
}

async fn take(watch: &mut Box<dyn Watch>, count: usize) -> Vec<String> {
    let mut all = Vec::new();
    while all.len() < count {
        let batch = timeout(SOON, watch.next()).await.expect("in time");
        let batch = batch.expect("no error");
        assert!(!batch.is_empty(), "an empty batch says nothing");
        all.extend(batch.iter().map(show));
    }
    all
}

#[tokio::test]
async fn writes_are_read_back_with_growing_revisions() {
    for (name, b) in backends() {
        assert_eq!(b.store.get("/a").await, Ok(None), "{name}");
        let first = put(&b.store, "/a", "1").await;
        let second = put(&b.other, "/b", "2").await;
        let third = put(&b.store, "/a", "3").await;
        assert!(
            Revision(0) < first && first < second && second < third,
            "{name}"
        );
        let a = b.other.get("/a").await.expect("get").expect("there");
        assert_eq!((&a.value[..], a.revision), (&b"3"[..], third), "{name}");
        let gone = b
            .other
            .delete("/a", Precondition::Any)
            .await
            .expect("delete");
        assert!(gone > third, "{name}");
        assert_eq!(b.store.get("/a").await, Ok(None), "{name}");
        let empty = put(&b.store, "/empty", "").await;
        let e = b.other.get("/empty").await.expect("get").expect("there");
        assert_eq!((e.value.len(), e.revision), (0, empty), "{name}");
    }
}

#[tokio::test]
async fn preconditions_hold_or_nothing_happens() {
    for (name, b) in backends() {
        let s = &b.store;
        let v = || Bytes::from_static(b"x");
        let first = s.put("/a", v(), Precondition::Absent).await.expect("new");
        let again = s.put("/a", v(), Precondition::Absent).await;
        let conflict = |operation| StoreError::Conflict {
            operation,
            key: "/a".to_owned(),
            current: Some(first),
        };
        assert_eq!(again, Err(conflict("put")), "{name}");
        let stale = Precondition::Revision(Revision(first.0 + 7));
        assert_eq!(
            s.put("/a", v(), stale).await,
            Err(conflict("put")),
            "{name}"
        );
        assert_eq!(
            s.delete("/a", stale).await,
            Err(conflict("delete")),
            "{name}"
        );
        let absent = s.put("/b", v(), Precondition::Revision(first)).await;
        assert!(absent.is_err_and(|e| e.is_not_found()), "{name}");
        let absent = s.delete("/b", Precondition::Any).await;
        assert!(absent.is_err_and(|e| e.is_not_found()), "{name}");
        let listing = s.list("").await.expect("list");
        assert_eq!(
            (listing.entries.len(), listing.revision),
            (1, first),
            "{name}"
        );
        let second = s.put("/a", v(), Precondition::Revision(first)).await;
        let second = second.expect("current revision");
        s.delete("/a", Precondition::Revision(second))
            .await
            .expect("current revision");
    }
}

#[tokio::test]
async fn lists_are_ordered_and_keep_to_their_prefix() {
    for (name, b) in backends() {
        for k in [
            "/r/b",
            "/r/a/2",
            "/r/a/10",
            "/r/a",
            "/r",
            "/s/é",
            "/r/a\u{ffff}",
        ] {
            put(&b.store, k, k).await;
        }
        let listing = b.other.list("/r/a").await.expect("list");
        let keys: Vec<_> = listing.entries.iter().map(|e| e.key.as_str()).collect();
        assert_eq!(
            keys,
            ["/r/a", "/r/a/10", "/r/a/2", "/r/a\u{ffff}"],
            "{name}"
        );
        let mut many = Vec::new();
        let revision = b
            .other
            .list_each(&["/s/", "/r/a/"], &mut |e| many.push(e.key))
            .await;
        assert_eq!(many, ["/s/é", "/r/a/10", "/r/a/2"], "{name}");
        assert_eq!(revision, Ok(listing.revision), "{name}");
        assert_eq!(
            b.other.list("").await.expect("all").entries.len(),
            7,
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_watch_continues_a_list_without_gap() {
    for (name, b) in backends() {
        put(&b.store, "/r/1", "a").await;
        let from = b.store.list("/r/").await.expect("list").revision;
        put(&b.other, "/r/2", "b").await;
        put(&b.other, "/elsewhere", "x").await;
        let mut w = b.store.watch(&["/r/", "/q/"], from).await.expect("watch");
        assert_eq!(take(&mut w, 1).await, ["/r/2=b@2"], "{name}");
        put(&b.store, "/q/1", "own").await;
        put(&b.other, "/elsewhere", "y").await;
        b.other
            .delete("/r/1", Precondition::Any)
            .await
            .expect("delete");
        assert_eq!(take(&mut w, 2).await, ["/q/1=own@4", "-/r/1@6"], "{name}");
        // Resumes from any revision that is still kept.
        let mut w = b.other.watch(&["/"], Revision(2)).await.expect("watch");
        let all = ["/elsewhere=x@3", "/q/1=own@4", "/elsewhere=y@5", "-/r/1@6"];
        assert_eq!(take(&mut w, 4).await, all, "{name}");
        let idle = timeout(Duration::from_millis(50), w.next()).await;
        assert!(idle.is_err(), "{name}: nothing happened, nothing is told");
    }
}

#[tokio::test]
async fn a_dropped_wait_loses_nothing() {
    for (name, b) in backends() {
        let mut w = b.store.watch(&["/"], Revision(0)).await.expect("watch");
        let mut seen = Vec::new();
        for i in 0..100 {
            put(&b.other, &format!("/k{i}"), "").await;
            // Given up at all kinds of moments.
            let patience = Duration::from_micros(i * 7 % 300);
            if let Ok(batch) = timeout(patience, w.next()).await {
                seen.extend(batch.expect("no error").iter().map(|e| e.revision().0));
            }
        }
        while seen.len() < 100 {
            let batch = timeout(SOON, w.next()).await.expect("in time");
            seen.extend(batch.expect("no error").iter().map(|e| e.revision().0));
        }
        assert_eq!(seen, (1..=100).collect::<Vec<_>>(), "{name}");
    }
}

#[tokio::test]
async fn history_is_bounded_and_says_so() {
    for (name, b) in backends() {
        let mut lagging = b.store.watch(&["/"], Revision(0)).await.expect("watch");
        for _ in 0..HISTORY * 2 {
            put(&b.other, "/k", "v").await;
        }
        let compacted = |e: &StoreError| matches!(e, StoreError::Compacted { .. });
        let early = b.store.watch(&["/"], Revision(1)).await;
        assert!(early.is_err_and(|e| compacted(&e)), "{name}");
        let lost = timeout(SOON, lagging.next()).await.expect("in time");
        assert!(lost.is_err_and(|e| compacted(&e)), "{name}");
        let future = b.store.watch(&["/"], Revision(HISTORY * 2 + 1)).await;
        assert!(future.is_err_and(|e| compacted(&e)), "{name}");
        let recent = Revision(HISTORY + HISTORY / 2);
        let mut w = b.store.watch(&["/"], recent).await.expect("still kept");
        assert_eq!(
            take(&mut w, 1).await[0],
            format!("/k=v@{}", recent.0 + 1),
            "{name}"
        );
        let kept = b.store.get("/k").await.expect("get").expect("there");
        assert_eq!(kept.revision, Revision(HISTORY * 2), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_racing_writers_each_revision_has_one_winner() {
    for (name, b) in backends() {
        put(&b.store, "/count", "0").await;
        let mut tasks = Vec::new();
        for s in [&b.store, &b.other, &b.store, &b.other] {
            let s = Arc::clone(s);
            tasks.push(tokio::spawn(async move {
                let mut done = 0;
                while done < 25 {
                    let e = s.get("/count").await.expect("get").expect("there");
                    let n: u32 = String::from_utf8_lossy(&e.value).parse().expect("number");
                    let next = Bytes::from((n + 1).to_string());
                    match s
                        .put("/count", next, Precondition::Revision(e.revision))
                        .await
                    {
                        Ok(_) => done += 1,
                        Err(e) => assert!(e.is_conflict(), "{e}"),
                    }
                }
            }));
        }
        for t in tasks {
            t.await.expect("no panic");
        }
        let e = b.store.get("/count").await.expect("get").expect("there");
        assert_eq!(&e.value[..], b"100", "{name}");
    }
}
