//! The store as a stream of model updates: a whole snapshot, then every change.
//!
//! Promises: after [`SyncEvent::InSync`] the updates so far, applied in order, are what a
//! fresh snapshot would give, whatever outages, compactions and relists lay between; what
//! vanished meanwhile is retracted; an object that cannot be used is named and absent.
//!
//! Never: ends, skips a change, or holds the values that it has passed on.

mod known;
mod nodes;

use crate::{Entry, Event, Pages, Revision, Store, StoreError, Watch};
use api::Conversion;
use known::Known;
use model::Update;
use nodes::Nodes;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// What calculation is fed from.
pub const PREFIXES: [&str; 3] = [
    "/calico/resources/v3/",
    "/calico/ipam/v2/assignment/",
    "/registry/",
];

/// What the store tells.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum SyncEvent {
    /// New states, in order.
    Updates(Vec<Update>),
    /// Everything that was stored has been told: first after the snapshot, again after
    /// each [`SyncEvent::Lost`].
    InSync,
    /// The store is out of reach; what was told stays the best that is known. Once
    /// an outage, and again when its cause changes.
    Lost(String),
    /// An object cannot be used and counts as absent until it is mended.
    BadObject {
        /// Where it is stored.
        key: String,
        /// What is wrong with it, naming it.
        error: String,
    },
    /// An object that was bad is good, or gone.
    Mended {
        /// Where it is, or was, stored.
        key: String,
    },
}

/// How long to wait between attempts: doubled from the first to the last.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    /// After the first failure.
    pub first: Duration,
    /// At most.
    pub last: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(50),
            last: Duration::from_secs(5),
        }
    }
}

/// Where the stream is.
#[derive(Debug)]
enum Phase {
    /// A snapshot is due.
    List,
    /// Reading one. The second holds what was known before and has not come up again.
    Listing(Box<dyn Pages>, Known),
    /// A watch from here is due.
    Watch(Revision),
    /// Watching; everything up to here has been told.
    Watching(Box<dyn Watch>, Revision),
}

/// The stream. One consumer calls [`Syncer::next`] for ever.
#[derive(Debug)]
pub struct Syncer {
    store: Arc<dyn Store>,
    prefixes: Vec<String>,
    backoff: Backoff,
    phase: Phase,
    known: Known,
    nodes: Nodes,
    queue: VecDeque<SyncEvent>,
    /// What nobody stores, until it is told with the first page of a snapshot.
    built_in: Vec<Update>,
    conversion: Conversion,
    /// The state that was told last was complete and in reach.
    in_sync: bool,
    failures: u32,
    retry_at: Option<Instant>,
    lost: Option<String>,
}

impl Syncer {
    /// Of everything that calculation is fed from.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self::with_prefixes(store, &PREFIXES, Backoff::default())
    }

    /// Of some prefixes, waiting so long between attempts.
    pub fn with_prefixes(store: Arc<dyn Store>, prefixes: &[&str], backoff: Backoff) -> Self {
        Self {
            store,
            prefixes: prefixes.iter().map(|p| (*p).to_owned()).collect(),
            backoff,
            phase: Phase::List,
            known: Known::default(),
            nodes: Nodes::default(),
            queue: VecDeque::new(),
            built_in: api::builtin_updates(),
            conversion: Conversion::default(),
            in_sync: false,
            failures: 0,
            retry_at: None,
            lost: None,
        }
    }

    /// Converts objects so; to be said before the first [`Syncer::next`].
    #[must_use]
    pub fn converting(mut self, conversion: Conversion) -> Self {
        self.conversion = conversion;
        self
    }

    /// What is known of the store: an estimate of the memory for it, in bytes.
    pub fn memory(&self) -> usize {
        self.known.memory()
    }

    /// Waits for what comes next. Dropping the future loses nothing.
    pub async fn next(&mut self) -> SyncEvent {
        loop {
            if let Some(event) = self.queue.pop_front() {
                return event;
            }
            if let Some(at) = self.retry_at {
                sleep_until(at).await;
                self.retry_at = None;
            }
            if let Err(e) = self.step().await {
                self.fail(&e);
            }
        }
    }

    /// One step; everything after its last await happens at once.
    async fn step(&mut self) -> Result<(), StoreError> {
        match &mut self.phase {
            Phase::List => {
                let prefixes: Vec<&str> = self.prefixes.iter().map(String::as_str).collect();
                let pages = self.store.pages(&prefixes).await?;
                let before = std::mem::take(&mut self.known);
                self.phase = Phase::Listing(pages, before);
            }
            Phase::Listing(pages, _) => match pages.next().await? {
                Some(page) => self.take_page(page),
                None => self.end_of_list(),
            },
            Phase::Watch(from) => {
                let from = *from;
                let prefixes: Vec<&str> = self.prefixes.iter().map(String::as_str).collect();
                let watch = self.store.watch(&prefixes, from).await?;
                self.phase = Phase::Watching(watch, from);
                self.reached();
            }
            Phase::Watching(watch, _) => {
                let events = watch.next().await?;
                self.take_events(events);
            }
        }
        Ok(())
    }

    fn fail(&mut self, error: &StoreError) {
        let phase = std::mem::replace(&mut self.phase, Phase::List);
        let compacted = matches!(error, StoreError::Compacted { .. });
        self.phase = match phase {
            Phase::Listing(_, before) => {
                // What came up again is newer than what was known before.
                self.known.add_missing(before);
                Phase::List
            }
            Phase::Watch(from) | Phase::Watching(_, from) if !compacted => Phase::Watch(from),
            _ => Phase::List,
        };
        if compacted && self.failures == 0 {
            // Not an outage: the store answers, and a snapshot follows at once.
            self.failures = 1;
            return;
        }
        let doubled = self
            .backoff
            .first
            .saturating_mul(1 << self.failures.min(16));
        self.retry_at = Some(Instant::now() + doubled.min(self.backoff.last));
        self.failures = self.failures.saturating_add(1);
        let text = error.to_string();
        if self.lost.as_ref() != Some(&text) {
            self.lost = Some(text.clone());
            self.in_sync = false;
            self.queue.push_back(SyncEvent::Lost(text));
        }
    }

    /// The store answers, and all it had to say has been told.
    fn reached(&mut self) {
        self.failures = 0;
        self.lost = None;
        if !self.in_sync {
            self.in_sync = true;
            self.queue.push_back(SyncEvent::InSync);
        }
    }

    fn take_page(&mut self, page: Vec<Entry>) {
        let mut batch = Batch::default();
        for entry in page {
            if let Phase::Listing(_, before) = &mut self.phase {
                self.known.move_from(before, &entry.key);
            }
            self.take(&entry.key, Some(&entry.value), &mut batch);
        }
        self.tell(batch);
    }

    fn end_of_list(&mut self) {
        let Phase::Listing(pages, before) = std::mem::replace(&mut self.phase, Phase::List) else {
            return;
        };
        let revision = pages.revision();
        let vanished = before.keys();
        self.known.add_missing(before);
        let mut batch = Batch::default();
        for key in vanished {
            self.take(&key, None, &mut batch);
        }
        self.tell(batch);
        self.known.shrink();
        self.phase = Phase::Watch(revision);
    }

    fn take_events(&mut self, events: Vec<Event>) {
        let mut batch = Batch::default();
        for event in &events {
            let value = match event {
                Event::Put(e) => Some(&e.value[..]),
                Event::Delete { .. } => None,
            };
            self.take(event.key(), value, &mut batch);
        }
        if let (Phase::Watching(_, position), Some(last)) = (&mut self.phase, events.last()) {
            *position = last.revision();
        }
        self.tell(batch);
    }

    /// One entry: what it means, less what it meant before.
    fn take(&mut self, key: &str, value: Option<&[u8]>, batch: &mut Batch) {
        let converted = match value {
            Some(v) => self.conversion.updates_for_key(key, Some(v)),
            None => Ok(Vec::new()),
        };
        let (updates, error) = match converted {
            Ok(updates) => (updates, None),
            Err(e) => (Vec::new(), Some(e.to_string())),
        };
        let was_bad = self.known.is_bad(key);
        let is_bad = error.is_some();
        if let Some(error) = error {
            let key = key.to_owned();
            batch.news.push(SyncEvent::BadObject { key, error });
        } else if was_bad {
            batch.news.push(SyncEvent::Mended {
                key: key.to_owned(),
            });
        }
        let retracted = self.known.replace(key, value.is_some(), &updates, is_bad);
        for update in retracted.into_iter().chain(updates) {
            match update {
                Update::Node(name, node) => {
                    let (name, node) = self.nodes.set(key, name, node);
                    batch.updates.push(Update::Node(name, node));
                }
                other => batch.updates.push(other),
            }
        }
    }

    fn tell(&mut self, mut batch: Batch) {
        batch.updates.append(&mut self.built_in);
        self.queue.extend(batch.news);
        if !batch.updates.is_empty() {
            self.queue.push_back(SyncEvent::Updates(batch.updates));
        }
    }
}

/// What follows from some entries.
#[derive(Default)]
struct Batch {
    news: Vec<SyncEvent>,
    updates: Vec<Update>,
}
