//! A listing of the file: one thread reads one snapshot, a few pages ahead at most.

use super::{Inner, sql};
use crate::{Entry, Pages, Revision, StoreError};
use async_trait::async_trait;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// How many entries a page has.
const PAGE: usize = 128;

#[derive(Debug)]
struct FilePages {
    revision: Revision,
    pages: mpsc::Receiver<Result<Vec<Entry>, StoreError>>,
    reading: tokio::task::JoinHandle<()>,
    named: String,
    ended: bool,
}

/// Begins to read; returns as soon as the snapshot is taken.
pub(super) async fn start(
    inner: &Arc<Inner>,
    prefixes: &[&str],
) -> Result<Box<dyn Pages>, StoreError> {
    let (out, pages) = mpsc::channel(2);
    let (taken, revision) = oneshot::channel();
    let inner = Arc::clone(inner);
    let wanted: Vec<String> = prefixes.iter().map(|p| (*p).to_owned()).collect();
    let reading = tokio::task::spawn_blocking(move || read(&inner, &wanted, taken, &out));
    let named = prefixes.join(" ");
    let revision = match revision.await {
        Ok(r) => r?,
        Err(_) => return Err(cut_short(&named, reading.await)),
    };
    Ok(Box::new(FilePages {
        revision,
        pages,
        reading,
        named,
        ended: false,
    }))
}

fn cut_short(named: &str, end: Result<(), tokio::task::JoinError>) -> StoreError {
    let cause = match end {
        Ok(()) => "the listing ended early".to_owned(),
        Err(e) => format!("the listing was cut short: {e}"),
    };
    StoreError::Unavailable {
        operation: "list",
        key: named.to_owned(),
        cause,
    }
}

/// Whoever listed may have lost interest at any time: then nobody hears the end.
fn read(
    inner: &Inner,
    prefixes: &[String],
    taken: oneshot::Sender<Result<Revision, StoreError>>,
    out: &mpsc::Sender<Result<Vec<Entry>, StoreError>>,
) {
    let named = prefixes.first().map_or("", String::as_str);
    let mut taken = Some(taken);
    let mut page = Vec::new();
    let result = inner.read("list", named, |c| {
        let begin = |revision| {
            if let Some(t) = taken.take() {
                let _ = t.send(Ok(revision));
            }
        };
        sql::list(c, prefixes, begin, |entry| {
            page.push(entry);
            page.len() < PAGE || out.blocking_send(Ok(std::mem::take(&mut page))).is_ok()
        })
    });
    match (result, taken) {
        (Ok(()), _) if page.is_empty() => {}
        (Ok(()), _) => {
            let _ = out.blocking_send(Ok(page));
        }
        (Err(e), Some(t)) => {
            let _ = t.send(Err(e));
        }
        (Err(e), None) => {
            let _ = out.blocking_send(Err(e));
        }
    }
}

#[async_trait]
impl Pages for FilePages {
    fn revision(&self) -> Revision {
        self.revision
    }

    async fn next(&mut self) -> Result<Option<Vec<Entry>>, StoreError> {
        if let Some(page) = self.pages.recv().await {
            return page.map(Some);
        }
        // The end of the channel is the end of the list, unless the thread panicked.
        if self.ended {
            return Ok(None);
        }
        match (&mut self.reading).await {
            Ok(()) => {
                self.ended = true;
                Ok(None)
            }
            Err(e) => Err(cut_short(&self.named, Err(e))),
        }
    }
}
