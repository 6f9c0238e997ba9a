//! Changes that take themselves back: when, what, and who wins, with a clock that the test sets.

use api::{Resource, ResourceKind, parse_documents};
use datastore::pending::{Intent, Outcome, PREFIX, Pending, PendingError, Pendings, State, Told};
use datastore::{Client, Delete, Precondition, Revision, Store, embedded, memory};
use jiff::{SignedDuration, Timestamp};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const MINUTE: SignedDuration = SignedDuration::from_mins(1);

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).expect("a time")
}

fn stores() -> (tempfile::TempDir, Vec<Arc<dyn Store>>) {
    let dir = tempfile::tempdir().expect("dir");
    let file = embedded::Store::open(dir.path().join("store.db")).expect("opens");
    (dir, vec![Arc::new(memory::Store::new()), Arc::new(file)])
}

fn gnp(name: &str, selector: &str) -> Resource {
    let text = format!(
        "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {{name: {name}}}\nspec: {{selector: \"{selector}\"}}\n"
    );
    parse_documents(&text, "test")
        .remove(0)
        .expect("a resource")
        .0
}

/// A store with the policies `kept` and `old`, of which one is about to be changed, the other to be deleted,
/// and `new` to be created.
struct World {
    client: Client,
    pendings: Pendings,
    before: (Resource, Resource),
}

impl World {
    async fn new(store: &Arc<dyn Store>) -> Self {
        datastore::init(store, &[]).await.expect("init");
        let client = Client::new(Arc::clone(store));
        let kept = client.create(gnp("kept", "has(a)")).await.expect("created");
        let old = client.create(gnp("old", "has(b)")).await.expect("created");
        Self {
            client,
            pendings: Pendings::new(Arc::clone(store)),
            before: (kept, old),
        }
    }

    async fn arm(&self, id: &str) -> Pending {
        let intents = vec![
            Intent::Write(gnp("kept", "has(changed)")),
            Intent::Write(gnp("new", "all()")),
            Intent::Delete(gnp("old", "")),
        ];
        self.pendings
            .arm(id, "apply", intents, at(0), MINUTE)
            .await
            .expect("armed")
    }

    async fn change(&self) -> Vec<Option<Revision>> {
        let revision = |r: Resource| r.meta().resource_version.parse().map(Revision).ok();
        let kept = self.client.apply(gnp("kept", "has(changed)")).await;
        let new = self.client.apply(gnp("new", "all()")).await;
        let kind = ResourceKind::GlobalNetworkPolicy;
        let old = self
            .client
            .delete(kind, None, "old", Delete::default())
            .await;
        old.expect("deleted");
        vec![
            revision(kept.expect("applied")),
            revision(new.expect("applied")),
            None,
        ]
    }

    async fn settle(&self, id: &str, revisions: &[Option<Revision>]) -> Option<Pending> {
        let names = ["kept", "new", "old"];
        let done = |c: &datastore::pending::Change| {
            let i = names.iter().position(|n| *n == c.name)?;
            revisions.get(i).copied()
        };
        self.pendings
            .settle(id, at(5), MINUTE, done)
            .await
            .expect("settled")
    }

    async fn get(&self, name: &str) -> Option<Resource> {
        let kind = ResourceKind::GlobalNetworkPolicy;
        self.client.get(kind, None, name).await.ok()
    }

    /// Whether everything is as it was, identities included.
    async fn is_as_before(&self) -> bool {
        let plain = |r: Option<Resource>| {
            r.map(|mut r| {
                r.meta_mut().resource_version.clear();
                r
            })
        };
        let (kept, old) = self.before.clone();
        plain(self.get("kept").await) == plain(Some(kept))
            && plain(self.get("old").await) == plain(Some(old))
            && self.get("new").await.is_none()
    }

    async fn is_changed(&self) -> bool {
        self.get("new").await.is_some() && self.get("old").await.is_none()
    }
}

#[tokio::test]
async fn what_nobody_confirms_is_taken_back_at_the_deadline() {
    let (_dir, stores) = stores();
    for store in stores {
        let w = World::new(&store).await;
        w.arm("x").await;
        let revisions = w.change().await;
        let settled = w.settle("x", &revisions).await.expect("something to do");
        assert_eq!(settled.deadline, at(65), "counted from the last change");
        assert!(w.pendings.due(at(64)).await.expect("due").is_empty());
        let due = w.pendings.due(at(65)).await.expect("due");
        assert_eq!(due, [settled]);
        let done = w
            .pendings
            .roll_back("x", at(66), "node-1")
            .await
            .expect("taken back");
        assert!(w.is_as_before().await);
        assert_eq!(
            done.outcomes,
            [
                ("GlobalNetworkPolicy(old)".to_owned(), Outcome::Restored),
                ("GlobalNetworkPolicy(new)".to_owned(), Outcome::Restored),
                ("GlobalNetworkPolicy(kept)".to_owned(), Outcome::Restored),
            ]
        );
        assert_eq!(
            (done.by.as_deref(), done.ended),
            (Some("node-1"), Some(at(66)))
        );
        // Whoever comes later finds it done, and it is not done again.
        w.client
            .apply(gnp("new", "has(again)"))
            .await
            .expect("applied");
        let again = w.pendings.roll_back("x", at(70), "node-2").await;
        assert_eq!(again, Ok(done));
        assert!(w.get("new").await.is_some());
        assert!(w.pendings.due(at(70)).await.expect("due").is_empty());
        let late = w.pendings.confirm("x").await;
        assert_eq!(late, Err(PendingError::TooLate { id: "x".into() }));
        // A day later nobody asks any more.
        w.pendings.sweep(at(86_000)).await.expect("swept");
        assert_eq!(w.pendings.list().await.expect("list").0.len(), 1);
        w.pendings.sweep(at(86_500)).await.expect("swept");
        assert!(w.pendings.list().await.expect("list").0.is_empty());
    }
}

#[tokio::test]
async fn what_is_confirmed_stays() {
    let (_dir, stores) = stores();
    for store in stores {
        let w = World::new(&store).await;
        w.arm("x").await;
        let revisions = w.change().await;
        w.settle("x", &revisions).await;
        w.pendings.confirm("x").await.expect("confirmed");
        assert!(w.pendings.due(at(9999)).await.expect("due").is_empty());
        let gone = PendingError::NotFound("x".into());
        assert_eq!(
            w.pendings.roll_back("x", at(99), "n").await,
            Err(gone.clone())
        );
        assert_eq!(w.pendings.confirm("x").await, Err(gone));
        assert!(w.is_changed().await);
    }
}

#[tokio::test]
async fn what_others_changed_since_is_left_and_named() {
    let (_dir, stores) = stores();
    for store in stores {
        let w = World::new(&store).await;
        w.arm("x").await;
        let revisions = w.change().await;
        w.settle("x", &revisions).await;
        // To the same content: somebody wanted it so.
        let touched = w.client.apply(gnp("kept", "has(changed)")).await;
        touched.expect("applied");
        w.client.apply(gnp("old", "all()")).await.expect("applied");
        let done = w
            .pendings
            .roll_back("x", at(66), "n")
            .await
            .expect("taken back");
        let left = |why: &str| Outcome::Left(why.to_owned());
        let outcomes: Vec<_> = done.outcomes.into_iter().map(|(_, o)| o).collect();
        assert_eq!(
            outcomes,
            [
                left("somebody has created it anew since"),
                Outcome::Restored,
                left("somebody has changed it since")
            ]
        );
        assert!(w.get("new").await.is_none());
        let Some(Resource::GlobalNetworkPolicy(kept)) = w.get("kept").await else {
            panic!("gone")
        };
        assert_eq!(kept.spec.selector, "has(changed)");
    }
}

/// The program that changes things may die after each of its writes.
#[tokio::test]
async fn a_crash_on_the_way_is_taken_back_too() {
    let (_dir, stores) = stores();
    for store in stores {
        // Before the first change.
        let w = World::new(&store).await;
        w.arm("a").await;
        let done = w
            .pendings
            .roll_back("a", at(60), "n")
            .await
            .expect("taken back");
        assert!(done.outcomes.iter().all(|(_, o)| *o == Outcome::Unchanged));
        assert!(w.is_as_before().await);
        // After one of three, and after all, the versions not noted.
        w.arm("b").await;
        w.client
            .apply(gnp("kept", "has(changed)"))
            .await
            .expect("applied");
        w.pendings
            .roll_back("b", at(60), "n")
            .await
            .expect("taken back");
        assert!(w.is_as_before().await);
        w.arm("c").await;
        w.change().await;
        w.pendings
            .roll_back("c", at(60), "n")
            .await
            .expect("taken back");
        assert!(w.is_as_before().await);
        // One that refused everything leaves nothing behind.
        w.arm("d").await;
        assert_eq!(w.settle("d", &[]).await, None);
        assert_eq!(
            w.pendings.confirm("d").await,
            Err(PendingError::NotFound("d".into()))
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_confirming_and_taking_back_one_wins() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("store.db");
    let (mut confirmed, mut taken_back) = (0, 0);
    for round in 0..24 {
        let open = || -> Arc<dyn Store> { Arc::new(embedded::Store::open(&path).expect("opens")) };
        let store = open();
        let w = World::new(&store).await;
        let id = format!("r{round}");
        w.arm(&id).await;
        let revisions = w.change().await;
        w.settle(&id, &revisions).await;
        let agents: Vec<_> = (0..3)
            .map(|n| {
                let (pendings, id) = (Pendings::new(open()), id.clone());
                tokio::spawn(async move {
                    for _ in 0..n {
                        tokio::task::yield_now().await;
                    }
                    pendings.roll_back(&id, at(66), &format!("node-{n}")).await
                })
            })
            .collect();
        for _ in 0..round {
            tokio::task::yield_now().await;
        }
        let confirmation = w.pendings.confirm(&id).await;
        for agent in agents {
            let done = agent.await.expect("no panic");
            match (&confirmation, done) {
                (Ok(_), Err(PendingError::NotFound(_))) => {}
                (Err(PendingError::TooLate { .. }), Ok(p)) => {
                    assert_eq!(p.state, State::RolledBack);
                    assert!(p.by.is_some());
                }
                other => panic!("{other:?}"),
            }
        }
        if confirmation.is_ok() {
            assert!(w.is_changed().await, "round {round}");
            confirmed += 1;
        } else {
            assert!(w.is_as_before().await, "round {round}");
            taken_back += 1;
        }
        for name in ["kept", "old", "new"] {
            let kind = ResourceKind::GlobalNetworkPolicy;
            let _ = w.client.delete(kind, None, name, Delete::default()).await;
        }
        if w.pendings
            .list()
            .await
            .expect("list")
            .0
            .iter()
            .any(|p| p.id == id)
        {
            let key = format!("{PREFIX}{id}");
            store
                .delete(&key, Precondition::Any)
                .await
                .expect("deleted");
        }
    }
    assert_eq!(confirmed + taken_back, 24);
}

#[tokio::test]
async fn agents_keep_the_promise() {
    tokio::time::pause();
    let store: Arc<dyn Store> = Arc::new(memory::Store::new());
    let w = World::new(&store).await;
    let clock = Arc::new(AtomicI64::new(0));
    let told = Arc::new(Mutex::new(Vec::new()));
    let keepers: Vec<_> = (0..2)
        .map(|n| {
            let (pendings, clock, told) = (
                Pendings::new(Arc::clone(&store)),
                Arc::clone(&clock),
                Arc::clone(&told),
            );
            tokio::spawn(async move {
                let now = || at(clock.load(Ordering::SeqCst));
                let tell = |t: Told| told.lock().expect("lock").push(format!("{t:?}"));
                let stagger = Duration::from_millis(200 * n);
                pendings
                    .keep(&format!("node-{n}"), stagger, now, tell)
                    .await;
            })
        })
        .collect();
    w.arm("x").await;
    let revisions = w.change().await;
    w.settle("x", &revisions).await;
    // A record that is none stops nobody.
    let bad = format!("{PREFIX}bad");
    let value = bytes::Bytes::from_static(b"{");
    store
        .put(&bad, value, Precondition::Any)
        .await
        .expect("put");
    clock.store(64, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert!(w.is_changed().await, "not before its time");
    clock.store(70, Ordering::SeqCst);
    let soon = async {
        while !w.is_as_before().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(120), soon).await;
    assert!(waited.is_ok(), "{:?}", told.lock().expect("lock"));
    keepers.iter().for_each(tokio::task::JoinHandle::abort);
    let told = told.lock().expect("lock");
    let rolled_back = told.iter().filter(|t| t.starts_with("RolledBack")).count();
    assert_eq!(rolled_back, 1, "{told:?}");
    assert!(told.iter().any(|t| t.contains("pending/bad")), "{told:?}");
}
