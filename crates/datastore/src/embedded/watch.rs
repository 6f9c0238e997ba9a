//! A watch over the log in the file.

use super::{Latest, Store, sql};
use crate::{Event, Revision, StoreError, Watch};
use async_trait::async_trait;
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct FileWatch {
    store: Store,
    latest: tokio::sync::watch::Receiver<Latest>,
    prefixes: Arc<[String]>,
    position: Revision,
    disturbances: u64,
}

impl FileWatch {
    pub(super) fn new(store: Store, prefixes: &[&str], from: Revision) -> Self {
        let latest = store.inner.latest.subscribe();
        let disturbances = latest.borrow().disturbances;
        Self {
            store,
            latest,
            prefixes: prefixes.iter().map(|p| (*p).to_owned()).collect(),
            position: from,
            disturbances,
        }
    }

    /// Whether there is still everything after the starting point.
    pub(super) async fn check_start(&self) -> Result<(), StoreError> {
        let from = self.position;
        self.store
            .blocking("watch", "", move |s| {
                s.read("watch", "", |c| sql::startable(c, from))
            })
            .await
    }

    async fn read(&self) -> Result<(Vec<Event>, Revision), StoreError> {
        let (prefixes, from) = (Arc::clone(&self.prefixes), self.position);
        let named = self.prefixes.first().cloned().unwrap_or_default();
        self.store
            .blocking("watch", &named.clone(), move |s| {
                s.read("watch", &named, |c| sql::changes(c, &prefixes, from))
            })
            .await
    }
}

#[async_trait]
impl Watch for FileWatch {
    async fn next(&mut self) -> Result<Vec<Event>, StoreError> {
        loop {
            let (events, position) = self.read().await.map_err(|e| match e {
                StoreError::Unavailable { .. } => StoreError::Disconnected {
                    cause: e.to_string(),
                },
                other => other,
            })?;
            // Nothing is awaited between reading and moving on: a dropped
            // future reads the same changes again.
            self.position = position;
            if !events.is_empty() {
                return Ok(events);
            }
            let seen = self.disturbances;
            let news = self
                .latest
                .wait_for(|l| l.revision > position || l.disturbances != seen)
                .await;
            match news {
                Ok(l) => self.disturbances = l.disturbances,
                Err(_) => {
                    return Err(StoreError::Disconnected {
                        cause: "the store was closed".to_owned(),
                    });
                }
            }
        }
    }
}
