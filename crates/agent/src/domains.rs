//! Learns the addresses of domain names that rules ask for, from the answers that this node's
//! workloads receive.
//!
//! Promises: an answer that the kernel copies is in the calculation as soon as it is read; an
//! address is forgotten when no answer allows its use any more; what was known is known again
//! after a restart, before the first write to the kernel.
//! Never: asks a name server, or holds an answer up: the kernel's copy comes beside it, so that the
//! first packet to a new address can be faster than its rule.

mod answer;
mod book;

use answer::Malformed;
use book::{Book, Limits};
use desired::ANSWERS_GROUP;
use model::Update;
use netlink::Received;
use nftables::nflog::Nflog;
use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// In the agent's directory.
const FILE: &str = "domains.json";
/// From a new address to the file; a crash loses as much.
const SAVE_NEW: Duration = Duration::from_secs(1);
/// The same for times that became longer.
const SAVE_LATER: Duration = Duration::from_secs(20);
/// Between attempts to take the group.
const AGAIN: Duration = Duration::from_secs(5);
/// At least so long between two looks for what expired.
const LOOK: Duration = Duration::from_secs(1);
/// Datagrams taken into one change.
const GATHER: usize = 64;

/// Names that rules ask for; `None` until the first state is complete.
type Watched = Option<Arc<[Arc<str>]>>;

/// The engine's end.
#[derive(Debug)]
pub(crate) struct Learned {
    /// What was known when the agent started.
    pub known: Vec<Update>,
    /// What is learned and forgotten.
    pub updates: mpsc::Receiver<Vec<Update>>,
    /// Told which names rules ask for.
    pub watched: watch::Sender<Watched>,
}

/// Counters.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics {
    answers: Counter,
    malformed: Counter,
    lost: Counter,
    names: Gauge,
    addresses: Gauge,
}

impl Metrics {
    /// Adds them to a registry.
    pub(crate) fn register(&self, to: &mut Registry) {
        to.register(
            "manx_domain_answers",
            "Answers of name servers with addresses that were read",
            self.answers.clone(),
        );
        to.register(
            "manx_domain_answers_malformed",
            "Packets from name servers that could not be read",
            self.malformed.clone(),
        );
        to.register(
            "manx_domain_answers_overruns",
            "Times that the kernel had more answers than were read in time, and dropped some",
            self.lost.clone(),
        );
        to.register(
            "manx_domain_names",
            "Domain names whose addresses are known",
            self.names.clone(),
        );
        to.register(
            "manx_domain_addresses",
            "Addresses known of domain names",
            self.addresses.clone(),
        );
    }
}

/// The loop.
#[derive(Debug)]
pub(crate) struct Learner {
    book: Book,
    dir: PathBuf,
    watched: watch::Receiver<Watched>,
    updates: mpsc::Sender<Vec<Update>>,
    metrics: Metrics,
    /// While names are watched.
    log: Option<Nflog>,
    retry_at: Option<Instant>,
    save_at: Option<Instant>,
    saving: Option<JoinHandle<()>>,
    looked: Instant,
}

impl Learner {
    /// With what an earlier agent left in this directory.
    pub(crate) fn load(dir: PathBuf, metrics: Metrics) -> (Self, Learned) {
        Self::with_limits(dir, metrics, Limits::default())
    }

    fn with_limits(dir: PathBuf, metrics: Metrics, limits: Limits) -> (Self, Learned) {
        let now = Instant::now();
        let mut book = Book::new(limits);
        let known = match std::fs::read_to_string(dir.join(FILE)) {
            Ok(text) => restore(&mut book, &text, now, SystemTime::now()).unwrap_or_else(|| {
                tracing::warn!(
                    file = FILE,
                    "known domain names cannot be read; learning anew"
                );
                Vec::new()
            }),
            Err(_) => Vec::new(),
        };
        let (updates, receiver) = mpsc::channel(16);
        let (sender, watched) = watch::channel(None);
        let learner = Self {
            book,
            dir,
            watched,
            updates,
            metrics,
            log: None,
            retry_at: None,
            save_at: None,
            saving: None,
            looked: now,
        };
        let learned = Learned {
            known,
            updates: receiver,
            watched: sender,
        };
        (learner, learned)
    }

    /// Runs until the engine ends.
    pub(crate) async fn run(mut self) {
        loop {
            self.follow();
            let wake = self.wake();
            let updates = tokio::select! {
                changed = self.watched.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let names = self.watched.borrow_and_update().clone().unwrap_or_default();
                    self.save_within(SAVE_NEW);
                    self.book.watch(&names)
                }
                ready = readable(&mut self.log) => match ready {
                    Ok(()) => self.read(),
                    Err(e) => {
                        self.give_up(&e);
                        Vec::new()
                    }
                },
                () = sleep_until(wake) => self.tick(),
            };
            if updates.is_empty() {
                continue;
            }
            self.save_within(SAVE_NEW);
            if self.updates.send(updates).await.is_err() {
                return;
            }
        }
    }

    /// Takes the group while there is something to learn, and shows how much is known.
    fn follow(&mut self) {
        let number = |n| i64::try_from(n).unwrap_or(i64::MAX);
        let (names, addresses) = self.book.size();
        self.metrics.names.set(number(names));
        self.metrics.addresses.set(number(addresses));
        if self.book.watched().next().is_none() {
            (self.log, self.retry_at) = (None, None);
        } else if self.log.is_none() && self.retry_at.is_none_or(|at| at <= Instant::now()) {
            match Nflog::open(ANSWERS_GROUP) {
                Ok(log) => (self.log, self.retry_at) = (Some(log), None),
                Err(e) => self.give_up(&e),
            }
        }
    }

    fn give_up(&mut self, why: &netlink::NetlinkError) {
        tracing::warn!(error = %why, "cannot learn the addresses of domain names; trying again");
        self.log = None;
        self.retry_at = Some(Instant::now() + AGAIN);
    }

    fn wake(&self) -> Option<Instant> {
        let expiry = self.book.next().map(|at| at.max(self.looked + LOOK));
        [expiry, self.save_at, self.retry_at]
            .into_iter()
            .flatten()
            .min()
    }

    fn save_within(&mut self, limit: Duration) {
        let at = Instant::now() + limit;
        self.save_at = Some(self.save_at.map_or(at, |s| s.min(at)));
    }

    /// Takes what waits.
    fn read(&mut self) -> Vec<Update> {
        let now = Instant::now();
        let mut out = Vec::new();
        let mut heard = false;
        for _ in 0..GATHER {
            let Some(log) = &mut self.log else { break };
            let (book, metrics) = (&mut self.book, &self.metrics);
            let received = log.try_next(|p| match answer::read(p.bytes) {
                Ok(Some(answer)) => {
                    metrics.answers.inc();
                    heard = true;
                    out.extend(book.learn(&answer, now));
                }
                Ok(None) => {}
                Err(Malformed) => drop(metrics.malformed.inc()),
            });
            match received {
                Ok(Received::Some) => {}
                Ok(Received::Nothing) => break,
                Ok(Received::Overrun) => drop(self.metrics.lost.inc()),
                Err(e) => {
                    self.give_up(&e);
                    break;
                }
            }
        }
        if heard {
            self.save_within(SAVE_LATER);
        }
        out
    }

    fn tick(&mut self) -> Vec<Update> {
        let now = Instant::now();
        if self.save_at.is_some_and(|at| at <= now) {
            self.save(now);
        }
        self.looked = now;
        self.book.expire(now)
    }

    fn save(&mut self, now: Instant) {
        if self.saving.as_ref().is_some_and(|s| !s.is_finished()) {
            self.save_at = Some(now + SAVE_NEW);
            return;
        }
        self.save_at = None;
        let (dir, text) = (self.dir.clone(), keep(&self.book, now, SystemTime::now()));
        // The disk may hang; the agent must not.
        self.saving = Some(tokio::task::spawn_blocking(move || {
            if let Err(e) = crate::write_file(&dir, FILE, &text) {
                tracing::warn!(error = %e, "known domain names are not kept for the next start");
            }
        }));
    }
}

async fn readable(log: &mut Option<Nflog>) -> Result<(), netlink::NetlinkError> {
    match log {
        Some(log) => log.readable().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// What is watched and known as text; times as seconds of the wall clock, the only one that
/// both this process and the next have.
fn keep(book: &Book, now: Instant, wall: SystemTime) -> String {
    let wall = wall
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let names: BTreeMap<&str, BTreeMap<String, u64>> = book
        .all()
        .map(|(name, addresses)| {
            let end = |at: &Instant| wall + at.saturating_duration_since(now).as_secs();
            let ends = addresses.iter().map(|(a, at)| (a.to_string(), end(at)));
            (&**name, ends.collect())
        })
        .collect();
    let watched: Vec<&str> = book.watched().map(|n| &**n).collect();
    json!({ "watched": watched, "names": names }).to_string()
}

/// Reads that; `None` if it is something else.
fn restore(book: &mut Book, text: &str, now: Instant, wall: SystemTime) -> Option<Vec<Update>> {
    /// Beyond what any answer gives: the clock was wrong, then or now.
    const MOST: u64 = 90_000;
    let wall = wall.duration_since(UNIX_EPOCH).ok()?.as_secs();
    let all: Value = serde_json::from_str(text).ok()?;
    let names = all.get("names")?.as_object()?;
    let watched: Option<Vec<Arc<str>>> = all
        .get("watched")?
        .as_array()?
        .iter()
        .map(|n| n.as_str().map(Arc::from))
        .collect();
    drop(book.watch(&watched?));
    let mut out = Vec::new();
    for (name, ends) in names {
        let ends = ends.as_object()?.iter().filter_map(|(address, end)| {
            let left = end.as_u64()?.checked_sub(wall)?.min(MOST);
            let end = now + Duration::from_secs(left);
            Some((address.parse::<IpAddr>().ok()?, end)).filter(|_| left > 0)
        });
        out.extend(book.hear(name, ends));
    }
    Some(out)
}

#[cfg(test)]
#[path = "domains/tests.rs"]
mod tests;

#[cfg(test)]
#[path = "domains/packet_tests.rs"]
mod packet_tests;
