//! A store in memory, for tests and for what need not outlive the process.
//!
//! Promises: the same behaviour as the stores that keep their data.

use crate::{Entry, Event, Pages, Precondition, Revision, StoreError, Watch};
use async_trait::async_trait;
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// How many changes are kept for watches, when not said otherwise.
pub const DEFAULT_HISTORY: usize = 20_000;

#[derive(Debug)]
struct State {
    entries: BTreeMap<String, (Bytes, Revision)>,
    log: VecDeque<Event>,
    revision: Revision,
    history: usize,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    latest: watch::Sender<Revision>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic of another holder cannot leave half a write: each is one step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A store in memory. Clones are the same store.
#[derive(Debug, Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

impl Default for Store {
    fn default() -> Self {
        Self::new()
    }
}

impl Store {
    /// An empty store.
    pub fn new() -> Self {
        Self::with_history(DEFAULT_HISTORY)
    }

    /// An empty store that keeps the last `history` changes for watches.
    pub fn with_history(history: usize) -> Self {
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(State {
                    entries: BTreeMap::new(),
                    log: VecDeque::new(),
                    revision: Revision(0),
                    history: history.max(1),
                }),
                latest: watch::Sender::new(Revision(0)),
            }),
        }
    }
}

impl State {
    fn check(
        &self,
        operation: &'static str,
        key: &str,
        precondition: Precondition,
    ) -> Result<(), StoreError> {
        let current = self.entries.get(key).map(|(_, r)| *r);
        check(operation, key, precondition, current)
    }

    fn commit(&mut self, event: Event) {
        self.revision = event.revision();
        self.log.push_back(event);
        while self.log.len() > self.history {
            self.log.pop_front();
        }
    }

    /// The oldest revision that a watch can start from.
    fn oldest(&self) -> Revision {
        Revision(self.revision.0 - self.log.len() as u64)
    }
}

/// Whether a write may go on, given the key's current revision.
pub(crate) fn check(
    operation: &'static str,
    key: &str,
    precondition: Precondition,
    current: Option<Revision>,
) -> Result<(), StoreError> {
    match (precondition, current) {
        (Precondition::Any, _) | (Precondition::Absent, None) => Ok(()),
        (Precondition::Revision(wanted), Some(is)) if wanted == is => Ok(()),
        (Precondition::Revision(_), None) => Err(StoreError::NotFound {
            operation,
            key: key.to_owned(),
        }),
        (Precondition::Absent | Precondition::Revision(_), Some(is)) => Err(StoreError::Conflict {
            operation,
            key: key.to_owned(),
            current: Some(is),
        }),
    }
}

#[async_trait]
impl crate::Store for Store {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        let state = self.shared.lock();
        Ok(state.entries.get(key).map(|(value, revision)| Entry {
            key: key.to_owned(),
            value: value.clone(),
            revision: *revision,
        }))
    }

    async fn pages(&self, prefixes: &[&str]) -> Result<Box<dyn Pages>, StoreError> {
        let state = self.shared.lock();
        let mut entries = Vec::new();
        for prefix in prefixes {
            let below = state
                .entries
                .range::<str, _>((Bound::Included(*prefix), Bound::Unbounded))
                .take_while(|(k, _)| k.starts_with(prefix));
            entries.extend(below.map(|(key, (value, revision))| Entry {
                key: key.clone(),
                value: value.clone(),
                revision: *revision,
            }));
        }
        Ok(Box::new(MemoryPages {
            entries: entries.into(),
            revision: state.revision,
        }))
    }

    async fn put(
        &self,
        key: &str,
        value: Bytes,
        precondition: Precondition,
    ) -> Result<Revision, StoreError> {
        let mut state = self.shared.lock();
        state.check("put", key, precondition)?;
        let revision = Revision(state.revision.0 + 1);
        state
            .entries
            .insert(key.to_owned(), (value.clone(), revision));
        state.commit(Event::Put(Entry {
            key: key.to_owned(),
            value,
            revision,
        }));
        self.shared.latest.send_replace(revision);
        Ok(revision)
    }

    async fn delete(&self, key: &str, precondition: Precondition) -> Result<Revision, StoreError> {
        let mut state = self.shared.lock();
        if !state.entries.contains_key(key) {
            return Err(StoreError::NotFound {
                operation: "delete",
                key: key.to_owned(),
            });
        }
        state.check("delete", key, precondition)?;
        let revision = Revision(state.revision.0 + 1);
        state.entries.remove(key);
        state.commit(Event::Delete {
            key: key.to_owned(),
            revision,
        });
        self.shared.latest.send_replace(revision);
        Ok(revision)
    }

    async fn watch(&self, prefixes: &[&str], from: Revision) -> Result<Box<dyn Watch>, StoreError> {
        let state = self.shared.lock();
        if from < state.oldest() || from > state.revision {
            return Err(StoreError::Compacted {
                from,
                oldest: state.oldest(),
            });
        }
        Ok(Box::new(MemoryWatch {
            shared: Arc::clone(&self.shared),
            latest: self.shared.latest.subscribe(),
            prefixes: prefixes.iter().map(|p| (*p).to_owned()).collect(),
            position: from,
        }))
    }
}

/// How many entries a page has.
const PAGE: usize = 128;

#[derive(Debug)]
struct MemoryPages {
    entries: VecDeque<Entry>,
    revision: Revision,
}

#[async_trait]
impl Pages for MemoryPages {
    fn revision(&self) -> Revision {
        self.revision
    }

    async fn next(&mut self) -> Result<Option<Vec<Entry>>, StoreError> {
        let size = self.entries.len().min(PAGE);
        let page: Vec<_> = self.entries.drain(..size).collect();
        Ok((!page.is_empty()).then_some(page))
    }
}

#[derive(Debug)]
struct MemoryWatch {
    shared: Arc<Shared>,
    latest: watch::Receiver<Revision>,
    prefixes: Vec<String>,
    position: Revision,
}

impl MemoryWatch {
    fn collect(&mut self) -> Result<Vec<Event>, StoreError> {
        let state = self.shared.lock();
        let oldest = state.oldest();
        if self.position < oldest {
            return Err(StoreError::Compacted {
                from: self.position,
                oldest,
            });
        }
        let skip = usize::try_from(self.position.0 - oldest.0).unwrap_or(usize::MAX);
        let events = state
            .log
            .iter()
            .skip(skip)
            .filter(|e| self.prefixes.iter().any(|p| e.key().starts_with(p)))
            .cloned()
            .collect();
        self.position = state.revision;
        Ok(events)
    }
}

#[async_trait]
impl Watch for MemoryWatch {
    async fn next(&mut self) -> Result<Vec<Event>, StoreError> {
        loop {
            let events = self.collect()?;
            if !events.is_empty() {
                return Ok(events);
            }
            let position = self.position;
            if self.latest.wait_for(|r| *r > position).await.is_err() {
                return Err(StoreError::Disconnected {
                    cause: "the store was closed".to_owned(),
                });
            }
        }
    }
}
