//! Many hosts at once, every interleaving of storage calls, crashes and faults at any of
//! them: the invariants hold at every write, and after clean-up nothing is left.
//!
//! A run is a function of its seed. `IPAM_SEED=<n>` runs one, `IPAM_RUNS=<n>` that many.

#[allow(dead_code, reason = "each test uses its part")]
mod memory;

use ipam::{
    Affinity, AssignIp, Assigned, Assignment, AutoAssign, Config, Error, IntendedUse, Ipam, Owner,
    Pool, ReleaseArgs, ReleaseOption, Reservations,
};
use jiff::Timestamp;
use memory::{Memory, Rng};
use net::{Cidr, Family};
use std::collections::BTreeMap;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

const HOSTS: usize = 4;
const CONCURRENT: usize = 6;

fn c(s: &str) -> Cidr {
    s.parse().expect("test CIDR")
}

/// What tests know of handles, outside the store.
#[derive(Default)]
struct Users {
    /// Per handle: releases begun, releases running.
    releases: BTreeMap<String, (usize, usize)>,
    /// Assignments that ended: stale knowledge.
    past: Vec<(Assigned, String)>,
}

struct World {
    /// One handle and one block.
    duel: bool,
    /// Few hosts, handles and blocks, so that everybody meets.
    hot: bool,
    store: Arc<Memory>,
    users: Mutex<Users>,
    pools: Vec<Pool>,
    reserved: Reservations,
    config: Config,
}

type Task = Pin<Box<dyn Future<Output = ()>>>;

fn world(seed: u64, rng: &mut Rng, duel: bool) -> Arc<World> {
    let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("time");
    let mut store = Memory::new(seed ^ 0x55, now);
    store.quiet_writes = rng.one_in(2);
    let strict = rng.one_in(3);
    let config = Config {
        strict_affinity: strict,
        auto_allocate_blocks: true,
        max_blocks_per_host: if strict { rng.below(3) as u32 } else { 0 },
        ip_cooldown_seconds: [0, 40][rng.below(2)],
        ..Config::default()
    };
    store.lock().cooldown = i64::from(config.ip_cooldown_seconds);
    store.lock().faults = [0, 10][rng.below(2)];
    store.put(
        &ipam::config_key(),
        &String::from_utf8(config.encode()).expect("UTF-8"),
    );
    let hot = duel || rng.one_in(2);
    if hot {
        let pool = Pool {
            block_size: 30,
            ..Pool::new("a", c("10.0.0.0/29"))
        };
        let reserved = Reservations::default();
        return Arc::new(World {
            duel,
            hot,
            store: Arc::new(store),
            users: Mutex::default(),
            pools: vec![pool],
            reserved,
            config,
        });
    }
    let pools = vec![
        Pool {
            block_size: 30,
            ..Pool::new("a", c("10.0.0.0/28"))
        },
        Pool {
            block_size: 32,
            ..Pool::new("b", c("10.0.1.0/30"))
        },
        Pool {
            block_size: 28,
            disabled: true,
            ..Pool::new("c", c("10.0.2.0/24"))
        },
        Pool {
            block_size: 126,
            ..Pool::new("v6", c("fd00::/124"))
        },
    ];
    let reserved = Reservations::new([c("10.0.0.5"), c("10.0.0.12/30"), c("fd00::1")]);
    Arc::new(World {
        duel,
        hot,
        store: Arc::new(store),
        users: Mutex::default(),
        pools,
        reserved,
        config,
    })
}

impl World {
    fn users(&self) -> std::sync::MutexGuard<'_, Users> {
        self.users
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn ipam(&self) -> Ipam<Arc<Memory>> {
        Ipam::new(self.store.clone())
    }

    /// Time passes, at least enough to tell two operations apart.
    fn tick(&self, rng: &mut Rng) -> Timestamp {
        let mut s = self.store.lock();
        let millis = if rng.one_in(10) {
            70_000
        } else {
            1 + rng.below(4000) as i64
        };
        s.now += jiff::SignedDuration::from_millis(millis);
        s.now
    }

    /// The user of `ips` begins to rely on them, unless its handle was being released.
    fn believe(&self, handle: &str, ips: &[Assigned], before: (usize, usize)) {
        if before.1 > 0
            || self
                .users()
                .releases
                .get(handle)
                .copied()
                .unwrap_or_default()
                != before
        {
            return;
        }
        let mut s = self.store.lock();
        for a in ips {
            let old = s
                .beliefs
                .insert(a.address.to_string(), (handle.to_owned(), a.sequence));
            assert_eq!(old, None, "{} handed out twice", a.address);
            let b = s
                .map
                .get(&ipam::Block::key(a.block))
                .expect("an assigned address has a block");
            let b = ipam::Block::decode(&b.0).expect("valid");
            assert_eq!(
                b.attribute(a.address).and_then(ipam::Attribute::handle),
                Some(handle)
            );
        }
    }

    fn disbelieve(&self, of: impl Fn(&str, &str) -> bool) -> Vec<(Assigned, String)> {
        let mut s = self.store.lock();
        let gone: Vec<(String, (String, u64))> = s
            .beliefs
            .iter()
            .filter(|(a, (h, _))| of(a, h))
            .map(|(a, b)| (a.clone(), b.clone()))
            .collect();
        let mut out = Vec::new();
        for (addr, (handle, sequence)) in gone {
            s.beliefs.remove(&addr);
            let address: IpAddr = addr.parse().expect("address");
            out.push((
                Assigned {
                    address,
                    block: Cidr::host(address),
                    sequence,
                },
                handle,
            ));
        }
        out
    }

    fn owner(&self, rng: &mut Rng) -> Owner {
        Owner::host(format!(
            "node-{}",
            rng.below(if self.hot { 2 } else { HOSTS })
        ))
    }

    fn pools_for(&self, rng: &mut Rng) -> Vec<Pool> {
        let mut pools = self.pools.clone();
        for p in &mut pools {
            p.node_selected = !rng.one_in(12);
        }
        pools
    }
}

/// No operation may end like this.
fn acceptable(e: &Error) {
    assert!(
        !matches!(e, Error::Contended { .. } | Error::BadObject { .. }),
        "{e}"
    );
}

fn assign(w: Arc<World>, rng: &mut Rng, handle: String) -> Task {
    let now = w.tick(rng);
    let pools = w.pools_for(rng);
    let owner = w.owner(rng);
    let (count_v4, count_v6, seed) = (
        rng.below(3),
        if w.hot { 0 } else { rng.below(3) },
        rng.next(),
    );
    let exact = rng
        .one_in(6)
        .then(|| IpAddr::from([10, 0, 0, rng.below(16) as u8]));
    let undo = rng.one_in(4);
    let explicit =
        (!w.hot && rng.one_in(5)).then(|| vec!["b".to_owned(), "10.0.0.0/28".to_owned()]);
    let blocks = [c("10.0.0.0/30"), c("10.0.0.8/30"), c("fd00::4/126")];
    let known: Vec<Cidr> = blocks.into_iter().filter(|_| rng.one_in(3)).collect();
    Box::pin(async move {
        let before = w.users().releases.get(&handle).copied().unwrap_or_default();
        let attrs = BTreeMap::from([("node".to_owned(), owner.name.clone())]);
        let common = Assignment {
            handle: &handle,
            attrs: &attrs,
            owner: &owner,
            pools: &pools,
            reservations: &w.reserved,
            config: None,
            now,
        };
        if let Some(address) = exact {
            match w
                .ipam()
                .assign_ip(&AssignIp {
                    common,
                    address,
                    intended_use: None,
                })
                .await
            {
                Ok(a) => w.believe(&handle, &[a], before),
                Err(e) => acceptable(&e),
            }
            return;
        }
        let req = AutoAssign {
            common,
            count_v4,
            count_v6,
            pools_v4: explicit.as_deref(),
            pools_v6: None,
            intended_use: IntendedUse::Workload,
            max_blocks: None,
            known_blocks: &known,
            seed,
        };
        let got = w.ipam().auto_assign(&req).await;
        for g in [&got.v4, &got.v6] {
            assert!(g.ips.len() <= g.requested);
            assert_eq!(g.error.is_none(), g.is_complete(), "{g:?}");
            g.error.iter().for_each(acceptable);
        }
        let ips: Vec<Assigned> = got.ips().collect();
        for a in &ips {
            assert!(
                !w.reserved.contains(a.address),
                "I9: {} is reserved",
                a.address
            );
            assert!(
                !c("10.0.2.0/24").contains(a.address),
                "I9: {} is of a disabled pool",
                a.address
            );
        }
        w.believe(&handle, &ips, before);
        if undo && !got.is_complete() {
            w.disbelieve(|a, _| ips.iter().any(|i| i.address.to_string() == a));
            let args = ReleaseArgs {
                pools: &w.pools,
                config: None,
                now,
            };
            match w.ipam().undo(&got, &handle, &args).await {
                Ok(out) => out.failed.iter().for_each(|(_, e)| match e {
                    Error::BadHandle { .. } | Error::BadSequenceNumber { .. } => {}
                    e => acceptable(e),
                }),
                Err(e) => acceptable(&e),
            }
        }
    })
}

/// Counts a release as running until it is done or dropped.
struct Running(Arc<World>, String);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(r) = self.0.users().releases.get_mut(&self.1) {
            r.1 -= 1;
        }
    }
}

fn release_handle(w: Arc<World>, rng: &mut Rng, handle: String) -> Task {
    let now = w.tick(rng);
    Box::pin(async move {
        {
            let mut u = w.users();
            let r = u.releases.entry(handle.clone()).or_default();
            *r = (r.0 + 1, r.1 + 1);
        }
        let _running = Running(w.clone(), handle.clone());
        let past = w.disbelieve(|_, h| h == handle);
        w.users().past.extend(past);
        let args = ReleaseArgs {
            pools: &w.pools,
            config: None,
            now,
        };
        match w.ipam().release_by_handle(&handle, &args).await {
            Ok(_) | Err(Error::UnknownHandle(_)) => {}
            Err(e) => acceptable(&e),
        }
    })
}

fn release_some(w: Arc<World>, rng: &mut Rng) -> Task {
    let now = w.tick(rng);
    let pick = rng.next() as usize;
    let stale = rng.one_in(2);
    let with_pools = rng.one_in(2);
    Box::pin(async move {
        let (chosen, handle) = if stale {
            let u = w.users();
            let Some(p) = u.past.get(pick % u.past.len().max(1)).cloned() else {
                return;
            };
            p
        } else {
            let all: Vec<String> = w.store.lock().beliefs.keys().cloned().collect();
            let Some(addr) = all.get(pick % all.len().max(1)) else {
                return;
            };
            let Some(p) = w.disbelieve(|a, _| a == addr).pop() else {
                return;
            };
            w.users().past.push(p.clone());
            p
        };
        let option = ReleaseOption {
            address: chosen.address,
            handle: Some(handle),
            sequence: Some(chosen.sequence),
        };
        let pools = if with_pools { w.pools.as_slice() } else { &[] };
        let args = ReleaseArgs {
            pools,
            config: Some(&w.config),
            now,
        };
        match w.ipam().release_ips(&[option], &args).await {
            Ok(out) => out.failed.iter().for_each(|(_, e)| match e {
                // Somebody may release the handle at the same time, and it be used again.
                Error::BadHandle { .. } | Error::BadSequenceNumber { .. } => {}
                e => acceptable(e),
            }),
            Err(e) => acceptable(&e),
        }
    })
}

fn affinities(w: Arc<World>, rng: &mut Rng) -> Task {
    let now = w.tick(rng);
    let owner = w.owner(rng);
    let kind = rng.below(4);
    let blocks = [
        c("10.0.0.0/30"),
        c("10.0.0.4/30"),
        c("10.0.1.1/32"),
        c("fd00::8/126"),
    ];
    let cidr = blocks[rng.below(if w.hot { 2 } else { 4 })];
    let empty = rng.one_in(2);
    Box::pin(async move {
        let ipam = w.ipam();
        let result = match kind {
            0 => ipam.release_host_affinities(&owner, now).await.map(|all| {
                all.iter()
                    .filter_map(|(_, r)| r.as_ref().err())
                    .for_each(acceptable);
            }),
            1 => ipam
                .release_affinity(&owner, cidr, empty, now)
                .await
                .map(|_| ()),
            2 => ipam.claim_affinity(&owner, cidr, now).await.map(|_| ()),
            _ => ipam.collect_ownerless(now).await.map(|_| ()),
        };
        if let Err(e) = result {
            acceptable(&e);
        }
    })
}

fn any_task(w: &Arc<World>, rng: &mut Rng, fresh: &mut usize) -> Task {
    // A few handles that everybody shares, and many that are used once.
    let often = |rng: &mut Rng| {
        if w.duel {
            true
        } else if w.hot {
            !rng.one_in(3)
        } else {
            rng.one_in(3)
        }
    };
    let shared = format!("net.shared-{}", rng.below(if w.duel { 1 } else { 3 }));
    // A duel begins with an address to fight about.
    let kind = if w.duel && *fresh == 1 {
        0
    } else {
        rng.below(20)
    };
    *fresh += usize::from(w.duel);
    match kind {
        0..=9 => {
            let handle = if often(rng) {
                shared
            } else {
                *fresh += 1;
                format!("net.{fresh}")
            };
            assign(w.clone(), rng, handle)
        }
        10..=13 => {
            let handle = if often(rng) {
                shared
            } else {
                format!("net.{}", 1 + rng.below(*fresh))
            };
            release_handle(w.clone(), rng, handle)
        }
        14..=16 => release_some(w.clone(), rng),
        _ => affinities(w.clone(), rng),
    }
}

fn poll(task: &mut Task) -> bool {
    matches!(
        task.as_mut().poll(&mut Context::from_waker(Waker::noop())),
        Poll::Ready(())
    )
}

fn finish<T>(f: impl Future<Output = T>) -> T {
    memory::finish(f)
}

/// After all crashes: every handle is released, then every claim; nothing may be left.
fn clean_up(w: &Arc<World>, rng: &mut Rng, fresh: usize) {
    w.store.lock().faults = 0;
    w.store.lock().beliefs.clear();
    let ipam = w.ipam();
    let names = (0..3)
        .map(|i| format!("net.shared-{i}"))
        .chain((1..=fresh).map(|i| format!("net.{i}")));
    for handle in names {
        let args = ReleaseArgs {
            pools: &w.pools,
            config: None,
            now: w.tick(rng),
        };
        match finish(ipam.release_by_handle(&handle, &args)) {
            Ok(_) | Err(Error::UnknownHandle(_)) => {}
            Err(e) => panic!("{e}"),
        }
    }
    let now = {
        let mut s = w.store.lock();
        s.now += jiff::SignedDuration::from_secs(100);
        s.now
    };
    let all = finish(ipam.snapshot(now)).expect("snapshot");
    assert!(all.handles.is_empty(), "handles left: {:?}", all.handles);
    for b in &all.blocks {
        assert_eq!(
            b.free(&Reservations::default()),
            b.size(),
            "addresses lost in {}",
            b.cidr()
        );
    }
    for u in all.usage(&w.pools, &Reservations::default()) {
        assert_eq!((u.free, u.in_use), (u.total, 0), "{u:?}");
    }
    for i in 0..HOSTS {
        let owner = Owner::host(format!("node-{i}"));
        for (cidr, r) in finish(ipam.release_host_affinities(&owner, now)).expect("listing") {
            assert!(r.is_ok(), "{cidr}: {r:?}");
        }
        for family in Family::BOTH {
            assert_eq!(finish(ipam.affinities(&owner, family)), Ok(vec![]));
        }
    }
    finish(ipam.collect_ownerless(now)).expect("collecting");
    assert_eq!(w.store.keys(), vec![ipam::config_key()]);
}

fn run(seed: u64, operations: usize, duel: bool) -> (usize, usize) {
    let mut rng = Rng(seed);
    let w = world(seed, &mut rng, duel);
    let mut tasks: Vec<Task> = Vec::new();
    let (mut started, mut crashed, mut fresh) = (0, 0, 1);
    // How long one task runs before another does: stalls at one call, bursts of many.
    let burst = [1, 3, 12][rng.below(3)];
    let mut i = 0;
    while started < operations || !tasks.is_empty() {
        if started < operations
            && tasks.len() < CONCURRENT
            && (tasks.is_empty() || if duel { started > 1 } else { rng.one_in(6) })
        {
            tasks.push(any_task(&w, &mut rng, &mut fresh));
            started += 1;
        }
        if i >= tasks.len() || rng.one_in(burst) {
            i = rng.below(tasks.len());
        }
        if poll(&mut tasks[i]) {
            drop(tasks.swap_remove(i));
        } else if rng.one_in(if duel { 200 } else { 60 }) {
            crashed += 1;
            drop(tasks.swap_remove(i));
        }
    }
    clean_up(&w, &mut rng, fresh);
    (started, crashed)
}

#[test]
fn nothing_is_lost_or_given_twice_under_crashes_and_races() {
    let env = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    if let Some(seed) = env("IPAM_SEED") {
        run(seed, 300, false);
        return;
    }
    let (mut operations, mut crashes) = (0, 0);
    for seed in 0..env("IPAM_RUNS").unwrap_or(40) {
        let outcome = std::panic::catch_unwind(|| run(seed, 300, false));
        match outcome {
            Ok((o, c)) => {
                operations += o;
                crashes += c;
            }
            Err(e) => {
                eprintln!("IPAM_SEED={seed}");
                std::panic::resume_unwind(e);
            }
        }
    }
    eprintln!("{operations} operations, {crashes} crashes");
    assert!(
        crashes > operations / 50,
        "the test no longer crashes anything"
    );
}

/// Very many very short runs, in which a few operations on one handle and one block start
/// together: the interleavings that long runs rarely reach.
#[test]
fn few_operations_meet_on_one_handle() {
    let runs = std::env::var("IPAM_DUELS")
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(3000);
    let first = std::env::var("IPAM_DUEL")
        .ok()
        .and_then(|v| v.parse::<u64>().ok());
    for seed in first.map_or(0..runs, |s| s..s + 1) {
        let outcome = std::panic::catch_unwind(|| run(seed, 5, true));
        if let Err(e) = outcome {
            eprintln!("IPAM_DUEL={seed}");
            std::panic::resume_unwind(e);
        }
    }
}

#[test]
fn the_store_sees_what_the_model_asserts() {
    // A write that breaks an invariant must not pass unseen.
    let w = world(1, &mut Rng(2), false);
    let affinity = Affinity::key(&Owner::host("node-0"), c("10.0.0.0/30"));
    let write = ipam::Storage::create(&w.store, &affinity, br#"{"state":"confirmed"}"#);
    w.store.lock().faults = 0;
    let seen = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| finish(write)));
    assert!(seen.is_err());
}
