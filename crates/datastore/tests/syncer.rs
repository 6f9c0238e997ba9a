//! The stream of updates against the state that they should add up to.

use async_trait::async_trait;
use bytes::Bytes;
use datastore::{
    Backoff, Entry, PREFIXES, Pages, Precondition, Revision, Store, StoreError, SyncEvent, Syncer,
    Watch, embedded, memory,
};
use model::Update;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(20);

/// What the updates so far add up to: by model key, printed.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct State(BTreeMap<String, String>);

impl State {
    /// What is built in is in every snapshot, and not counted among what is stored.
    fn apply(&mut self, update: &Update) {
        if api::builtin_updates().contains(update) {
            return;
        }
        let gone = api::absent(update);
        let key = match update {
            Update::Ready(_) => "ready".to_owned(),
            _ => format!("{gone:?}"),
        };
        if *update == gone {
            self.0.remove(&key);
        } else {
            self.0.insert(key, format!("{update:?}"));
        }
    }
}

/// A consumer of the stream.
struct Follower {
    syncer: Syncer,
    state: State,
    /// Keys of objects that are bad now.
    bad: BTreeMap<String, String>,
    lost: usize,
}

fn fast() -> Backoff {
    Backoff {
        first: Duration::from_millis(1),
        last: Duration::from_millis(5),
    }
}

impl Follower {
    fn new(store: &Arc<dyn Store>) -> Self {
        Self {
            syncer: Syncer::with_prefixes(Arc::clone(store), &PREFIXES, fast()),
            state: State::default(),
            bad: BTreeMap::new(),
            lost: 0,
        }
    }

    /// Takes one event; true when it is `InSync`.
    async fn one(&mut self) -> bool {
        match timeout(SOON, self.syncer.next()).await.expect("in time") {
            SyncEvent::Updates(updates) => {
                assert!(!updates.is_empty());
                updates.iter().for_each(|u| self.state.apply(u));
            }
            SyncEvent::InSync => return true,
            SyncEvent::Lost(_) => self.lost += 1,
            SyncEvent::BadObject { key, error } => {
                self.bad.insert(key, error);
            }
            SyncEvent::Mended { key } => {
                assert!(self.bad.remove(&key).is_some(), "{key} was not bad");
            }
            other => panic!("{other:?}"),
        }
        false
    }

    async fn until_in_sync(&mut self) {
        while !self.one().await {}
    }

    async fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let wait = async {
            while !done(self) {
                self.one().await;
            }
        };
        let reached = timeout(SOON, wait).await;
        assert!(reached.is_ok(), "{what}");
    }
}

async fn fresh(store: &Arc<dyn Store>) -> (State, Vec<String>) {
    let mut f = Follower::new(store);
    f.until_in_sync().await;
    (f.state, f.bad.into_keys().collect())
}

async fn put(store: &Arc<dyn Store>, key: &str, value: &serde_json::Value) {
    let bytes = Bytes::from(value.to_string());
    store.put(key, bytes, Precondition::Any).await.expect("put");
}

fn pod(name: &str, node: &str, ip: &str, app: &str) -> serde_json::Value {
    json!({
        "kind": "Pod", "apiVersion": "v1",
        "metadata": { "name": name, "namespace": "prod", "labels": { "app": app } },
        "spec": { "nodeName": node, "serviceAccountName": "sa" },
        "status": { "podIP": ip },
    })
}

fn policy(selector: &str) -> serde_json::Value {
    json!({
        "kind": "GlobalNetworkPolicy", "apiVersion": "projectcalico.org/v3",
        "metadata": { "name": "p" },
        "spec": { "selector": selector, "types": ["Ingress"] },
    })
}

const GNP: &str = "/calico/resources/v3/projectcalico.org/globalnetworkpolicies/p";

#[tokio::test]
async fn a_snapshot_then_every_change() {
    let store: Arc<dyn Store> = Arc::new(memory::Store::new());
    for i in 0..1000 {
        let key = format!("/registry/pods/prod/w{i}");
        put(
            &store,
            &key,
            &pod(&format!("w{i}"), "n1", "10.0.0.1", "web"),
        )
        .await;
    }
    let mut f = Follower::new(&store);
    f.until_in_sync().await;
    assert_eq!(f.state.0.len(), 1000);
    let mut first = Syncer::new(Arc::clone(&store));
    let mut built_in = 0;
    loop {
        match timeout(SOON, first.next()).await.expect("in time") {
            SyncEvent::Updates(u) => {
                built_in += u
                    .iter()
                    .filter(|u| api::builtin_updates().contains(u))
                    .count();
            }
            SyncEvent::InSync => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(built_in, 1, "the profile that nobody stores");
    put(&store, GNP, &policy("all()")).await;
    f.until("the policy", |f| f.state.0.len() == 1001).await;
    // A pod that moves is one endpoint, not two.
    put(
        &store,
        "/registry/pods/prod/w5",
        &pod("w5", "n2", "10.0.0.2", "web"),
    )
    .await;
    f.until("the move", |f| {
        f.state.0.keys().any(|k| k.contains("\"n2\""))
    })
    .await;
    assert_eq!(f.state.0.len(), 1001);
    // One that loses its address is none.
    put(
        &store,
        "/registry/pods/prod/w5",
        &pod("w5", "n2", "", "web"),
    )
    .await;
    store
        .delete("/registry/pods/prod/w6", Precondition::Any)
        .await
        .expect("delete");
    f.until("both gone", |f| f.state.0.len() == 999).await;
    assert_eq!((f.state.clone(), Vec::new()), fresh(&store).await);
    assert_eq!(f.lost, 0);
}

#[tokio::test]
async fn a_bad_object_is_named_absent_and_mended() {
    let store: Arc<dyn Store> = Arc::new(memory::Store::new());
    put(&store, GNP, &policy("has(x)")).await;
    let mut f = Follower::new(&store);
    f.until_in_sync().await;
    assert_eq!(f.state.0.len(), 1);
    put(&store, GNP, &policy("has(x")).await;
    f.until("named", |f| f.bad.contains_key(GNP)).await;
    f.until("its good version is retracted", |f| f.state.0.is_empty())
        .await;
    assert!(
        f.bad[GNP].contains("GlobalNetworkPolicy(p)"),
        "{}",
        f.bad[GNP]
    );
    let other = "/registry/pods/prod/w";
    store
        .put(other, Bytes::from_static(b"{]"), Precondition::Any)
        .await
        .expect("put");
    f.until("the other one too", |f| f.bad.contains_key(other))
        .await;
    put(&store, GNP, &policy("has(y)")).await;
    f.until("mended", |f| f.bad.len() == 1 && f.state.0.len() == 1)
        .await;
    store
        .delete(other, Precondition::Any)
        .await
        .expect("delete");
    f.until("gone is as good as mended", |f| f.bad.is_empty())
        .await;
}

#[tokio::test]
async fn a_node_that_is_stored_twice_does_not_depend_on_the_order() {
    let calico = "/calico/resources/v3/projectcalico.org/nodes/n1";
    let kube = "/registry/minions/n1";
    let calico_node = json!({
        "kind": "Node", "apiVersion": "projectcalico.org/v3", "metadata": { "name": "n1" },
        "spec": { "bgp": { "ipv4Address": "10.9.0.1/24" } },
    });
    let kube_node = json!({
        "kind": "Node", "apiVersion": "v1",
        "metadata": { "name": "n1", "labels": { "rack": "a" } },
        "spec": { "podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24"] },
    });
    let mut seen = Vec::new();
    for kube_first in [true, false] {
        let store: Arc<dyn Store> = Arc::new(memory::Store::new());
        let mut f = Follower::new(&store);
        f.until_in_sync().await;
        let mut order = [(kube, &kube_node), (calico, &calico_node)];
        if !kube_first {
            order.reverse();
        }
        for (key, value) in order {
            put(&store, key, value).await;
        }
        let whole = |f: &Follower| {
            let text = format!("{:?}", f.state);
            text.contains("10.9.0.1") && text.contains("rack") && text.contains("10.244.1.0")
        };
        f.until("both sources are in it", whole).await;
        assert_eq!(f.state, fresh(&store).await.0);
        seen.push(f.state.clone());
        store
            .delete(calico, Precondition::Any)
            .await
            .expect("delete");
        f.until("Kubernetes' alone", |f| {
            !format!("{:?}", f.state).contains("10.9.0.1")
        })
        .await;
        assert_eq!(f.state, fresh(&store).await.0);
    }
    assert_eq!(seen[0], seen[1]);
}

/// A store that fails when told to: calls, listings halfway, watches that run.
#[derive(Debug)]
struct Flaky {
    inner: Arc<dyn Store>,
    down: Arc<AtomicBool>,
    /// Every so many calls fail by themselves; 0 is none.
    every: AtomicU64,
    calls: AtomicU64,
    broken: tokio::sync::watch::Sender<u64>,
}

impl Flaky {
    fn new(inner: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            down: Arc::default(),
            every: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            broken: tokio::sync::watch::Sender::new(0),
        })
    }

    fn fails(&self) -> Result<(), StoreError> {
        let n = self.calls.fetch_add(1, Ordering::SeqCst);
        let every = self.every.load(Ordering::SeqCst);
        if self.down.load(Ordering::SeqCst) || every > 0 && n.is_multiple_of(every) {
            return Err(StoreError::Unavailable {
                operation: "test",
                key: String::new(),
                cause: "told to".to_owned(),
            });
        }
        Ok(())
    }

    fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
        self.break_watches();
    }

    fn break_watches(&self) {
        self.broken.send_modify(|n| *n += 1);
    }
}

#[async_trait]
impl Store for Flaky {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        self.fails()?;
        self.inner.get(key).await
    }
    async fn pages(&self, prefixes: &[&str]) -> Result<Box<dyn Pages>, StoreError> {
        self.fails()?;
        let inner = self.inner.pages(prefixes).await?;
        let fail_at = self.calls.load(Ordering::SeqCst) % 5;
        let fails = self.every.load(Ordering::SeqCst) > 0 && fail_at < 2;
        Ok(Box::new(FlakyPages {
            inner,
            left: if fails { Some(fail_at) } else { None },
        }))
    }
    async fn put(&self, k: &str, v: Bytes, p: Precondition) -> Result<Revision, StoreError> {
        self.fails()?;
        self.inner.put(k, v, p).await
    }
    async fn delete(&self, k: &str, p: Precondition) -> Result<Revision, StoreError> {
        self.fails()?;
        self.inner.delete(k, p).await
    }
    async fn watch(&self, prefixes: &[&str], from: Revision) -> Result<Box<dyn Watch>, StoreError> {
        self.fails()?;
        let inner = self.inner.watch(prefixes, from).await?;
        let mut broken = self.broken.subscribe();
        broken.mark_unchanged();
        Ok(Box::new(FlakyWatch { inner, broken }))
    }
}

#[derive(Debug)]
struct FlakyPages {
    inner: Box<dyn Pages>,
    left: Option<u64>,
}

#[async_trait]
impl Pages for FlakyPages {
    fn revision(&self) -> Revision {
        self.inner.revision()
    }
    async fn next(&mut self) -> Result<Option<Vec<Entry>>, StoreError> {
        match &mut self.left {
            Some(0) => Err(StoreError::Unavailable {
                operation: "list",
                key: String::new(),
                cause: "broke off".to_owned(),
            }),
            left => {
                *left = left.map(|n| n - 1);
                self.inner.next().await
            }
        }
    }
}

#[derive(Debug)]
struct FlakyWatch {
    inner: Box<dyn Watch>,
    broken: tokio::sync::watch::Receiver<u64>,
}

#[async_trait]
impl Watch for FlakyWatch {
    async fn next(&mut self) -> Result<Vec<datastore::Event>, StoreError> {
        tokio::select! {
            biased;
            _ = self.broken.changed() => Err(StoreError::Disconnected { cause: "broke off".into() }),
            e = self.inner.next() => e,
        }
    }
}

#[tokio::test]
async fn an_outage_is_told_once_and_made_up_for() {
    let inner: Arc<dyn Store> = Arc::new(memory::Store::new());
    put(&inner, GNP, &policy("all()")).await;
    let flaky = Flaky::new(Arc::clone(&inner));
    let store: Arc<dyn Store> = Arc::clone(&flaky) as _;
    flaky.set_down(true);
    let mut f = Follower::new(&store);
    f.until("told before the first snapshot", |f| f.lost == 1)
        .await;
    flaky.set_down(false);
    f.until_in_sync().await;
    assert_eq!((f.state.0.len(), f.lost), (1, 1));
    flaky.set_down(true);
    let lost_again = |f: &Follower| f.lost >= 2;
    f.until("told again", lost_again).await;
    assert_eq!(f.state.0.len(), 1, "what was known stays");
    put(
        &inner,
        "/registry/pods/prod/w",
        &pod("w", "n1", "10.0.0.1", "x"),
    )
    .await;
    inner.delete(GNP, Precondition::Any).await.expect("delete");
    flaky.set_down(false);
    f.until_in_sync().await;
    f.until("caught up", |f| {
        f.state.0.keys().all(|k| k.contains("prod/w"))
    })
    .await;
    assert_eq!(f.state, fresh(&inner).await.0);
}

#[tokio::test]
async fn waits_between_attempts_grow_to_their_limit() {
    tokio::time::pause();
    let flaky = Flaky::new(Arc::new(memory::Store::new()));
    let store: Arc<dyn Store> = Arc::clone(&flaky) as _;
    flaky.set_down(true);
    let mut syncer = Syncer::new(store);
    assert!(matches!(syncer.next().await, SyncEvent::Lost(_)));
    // Virtual time: 50, 100, 200, 400, 800, 1600, 3200 ms, then each 5 s.
    let minute = timeout(Duration::from_secs(60), syncer.next()).await;
    assert!(minute.is_err(), "one outage is told once");
    let calls = flaky.calls.load(Ordering::SeqCst);
    assert!((17..=20).contains(&calls), "{calls} attempts in a minute");
}

/// A small generator, so that a failure names its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// One random change of a small world, good and bad objects mixed.
async fn mutate(store: &Arc<dyn Store>, r: &mut Random) {
    let name = format!("x{}", r.below(12));
    let v3 = "/calico/resources/v3/projectcalico.org";
    let node = format!("n{}", r.below(3));
    let (key, value) = match r.below(9) {
        0..=2 => {
            let ip = ["", "10.0.0.1", "fd00::1"][usize::try_from(r.below(3)).expect("small")];
            (
                format!("/registry/pods/prod/{name}"),
                pod(&name, &node, ip, "a"),
            )
        }
        3 => {
            let selector = ["all()", "has(a)", "has("][usize::try_from(r.below(3)).expect("small")];
            let mut p = policy(selector);
            p["metadata"]["name"] = json!(name);
            (format!("{v3}/globalnetworkpolicies/{name}"), p)
        }
        4 => (
            format!("/registry/namespaces/{name}"),
            json!({"metadata": {"name": name, "labels": {"v": node}}}),
        ),
        5 => (
            format!("/registry/minions/{node}"),
            json!({"metadata": {"name": node, "labels": {"rack": name}}}),
        ),
        6 => (
            format!("{v3}/nodes/{node}"),
            json!({"metadata": {"name": node},
                   "spec": {"bgp": {"ipv4Address": format!("10.9.0.{}/24", r.below(200) + 1)}}}),
        ),
        7 => (
            format!(
                "/calico/ipam/v2/assignment/ipv4/block/10.0.{}.0-26",
                r.below(4)
            ),
            json!({"cidr": "10.0.0.0/26", "affinity": format!("host:{node}"),
                   "allocations": [], "unallocated": [], "attributes": []}),
        ),
        _ => (
            format!("{v3}/clusterinformations/default"),
            json!({"metadata": {"name": "default"}, "spec": {"datastoreReady": r.below(2) == 0}}),
        ),
    };
    if r.below(4) == 0 {
        // It may not be there, which is as good.
        let _ = store.delete(&key, Precondition::Any).await;
    } else {
        put(store, &key, &value).await;
    }
}

/// Follows a store through random changes, outages and compactions; at the end what
/// was told adds up to a fresh snapshot.
async fn follow(inner: Arc<dyn Store>, seed: u64, steps: u64) {
    let mut r = Random(seed);
    for _ in 0..300 {
        mutate(&inner, &mut r).await;
    }
    let flaky = Flaky::new(Arc::clone(&inner));
    let store: Arc<dyn Store> = Arc::clone(&flaky) as _;
    flaky.every.store(3, Ordering::SeqCst);
    let follower = Arc::new(Mutex::new(None));
    let mut f = Follower::new(&store);
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let following = tokio::spawn({
        let follower = Arc::clone(&follower);
        async move {
            loop {
                tokio::select! {
                    _ = &mut stopped => break,
                    _ = f.one() => {}
                }
            }
            *follower.lock().expect("lock") = Some(f);
        }
    });
    for step in 0..steps {
        mutate(&inner, &mut r).await;
        match r.below(25) {
            0 => flaky.break_watches(),
            1 => flaky.set_down(true),
            2 | 3 => flaky.set_down(false),
            4 => tokio::task::yield_now().await,
            _ => {}
        }
        if step % 50 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    flaky.every.store(0, Ordering::SeqCst);
    flaky.set_down(false);
    let _ = stop.send(());
    following.await.expect("no panic");
    let mut f = follower.lock().expect("lock").take().expect("left there");
    let (state, bad) = fresh(&inner).await;
    let same = |f: &Follower| f.state == state && f.bad.keys().cloned().collect::<Vec<_>>() == bad;
    f.until(
        &format!("seed {seed}: what was told is what is stored"),
        same,
    )
    .await;
    // And it stays so.
    let more = timeout(Duration::from_millis(20), f.syncer.next()).await;
    assert!(
        !matches!(more, Ok(SyncEvent::Updates(_))),
        "seed {seed}: {more:?}"
    );
}

#[tokio::test]
async fn whatever_happens_the_sum_is_what_is_stored() {
    for seed in 1..=30 {
        follow(Arc::new(memory::Store::with_history(40)), seed * 7919, 600).await;
    }
}

#[tokio::test]
async fn whatever_happens_to_a_file_the_sum_is_what_is_stored() {
    for seed in 1..=5 {
        let dir = tempfile::tempdir().expect("dir");
        let options = embedded::Options {
            history: 40,
            ..embedded::Options::default()
        };
        let store = embedded::Store::open_with(dir.path().join("s.db"), options).expect("opens");
        follow(Arc::new(store), seed * 104_729, 400).await;
    }
}

#[tokio::test]
async fn fifty_thousand_pods_are_remembered_in_a_few_megabytes() {
    let store: Arc<dyn Store> = Arc::new(memory::Store::new());
    for i in 0..50_000 {
        let name = format!("deployment-{:x}-{i:05}", i / 10);
        let key = format!("/registry/pods/prod/{name}");
        let node = format!("node-{}", i % 500);
        let pod = pod(&name, &node, "10.0.0.1", "web").to_string();
        store
            .put(&key, Bytes::from(pod), Precondition::Any)
            .await
            .expect("put");
    }
    let mut syncer = Syncer::new(store);
    let mut endpoints = 0;
    loop {
        match syncer.next().await {
            SyncEvent::Updates(u) => endpoints += u.len(),
            SyncEvent::InSync => break,
            other => panic!("{other:?}"),
        }
    }
    // And the profile that is built in.
    assert_eq!(endpoints, 50_001);
    let mib = syncer.memory() >> 20;
    assert!(mib <= 6, "{mib} MiB");
}
