//! The loop's outer face: feed, ask, wait, stop.
//!
//! Promises: no call blocks; a delta handed in shows in the reports at once, as pending,
//! so that nobody who waits after it takes an older answer for the new one.
//! Never: touches the kernel.

use crate::{Metrics, Report, State, report::Pending};
use desired::{Delta, WorkloadPolicy};
use model::WorkloadKey;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout_at};

/// What comes in from above.
#[derive(Debug)]
pub(crate) enum Command {
    /// A step of the desired state.
    Delta(Delta),
    /// All deltas so far make a complete state.
    InSync,
    /// End, and leave the kernel as it is.
    Stop,
}

/// Why a wait ended without what was waited for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WaitError {
    /// The deadline passed.
    #[error("{key} is not programmed in time: {}", last.as_ref().map_or("unknown here".to_owned(), State::to_string))]
    Deadline {
        /// The endpoint.
        key: WorkloadKey,
        /// How far it was.
        last: Option<State>,
    },
    /// The loop ended.
    #[error("the dataplane ended")]
    Stopped,
}

#[derive(Debug)]
struct Shared {
    reports: Mutex<BTreeMap<WorkloadKey, Report>>,
    /// Counts changes of `reports`.
    version: watch::Sender<u64>,
    metrics: Metrics,
}

/// A clone refers to the same loop.
#[derive(Debug, Clone)]
pub struct Handle {
    commands: mpsc::UnboundedSender<Command>,
    shared: Arc<Shared>,
}

impl Handle {
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<Command>) {
        let (commands, inbox) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            reports: Mutex::default(),
            version: watch::Sender::new(0),
            metrics: Metrics::default(),
        });
        (Self { commands, shared }, inbox)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<WorkloadKey, Report>> {
        // A panic elsewhere leaves the map whole: every change is one insert or remove.
        self.shared
            .reports
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Hands in a step. Nothing is written before [`Handle::in_sync`].
    ///
    /// # Errors
    /// When the loop has ended.
    pub fn apply(&self, delta: Delta) -> Result<(), WaitError> {
        if !delta.workloads.is_empty() {
            self.update(|reports| {
                for (key, change) in &delta.workloads {
                    match (change, reports.get_mut(key)) {
                        (Some(w), _) => {
                            let state = State::Pending(Pending::Apply);
                            reports.insert(
                                key.clone(),
                                Report {
                                    workload: w.clone(),
                                    state,
                                },
                            );
                        }
                        (None, Some(r)) => r.state = State::Removing,
                        (None, None) => {}
                    }
                }
            });
        }
        self.commands
            .send(Command::Delta(delta))
            .map_err(|_| WaitError::Stopped)
    }

    /// Says that the deltas so far make a complete state. Once is enough.
    ///
    /// # Errors
    /// When the loop has ended.
    pub fn in_sync(&self) -> Result<(), WaitError> {
        self.commands
            .send(Command::InSync)
            .map_err(|_| WaitError::Stopped)
    }

    /// Ends the loop; the kernel keeps what it holds.
    pub fn stop(&self) {
        // An error means that it has ended already.
        let _ = self.commands.send(Command::Stop);
    }

    /// How far an endpoint is; `None` when it is unknown or removed.
    pub fn report(&self, key: &WorkloadKey) -> Option<Report> {
        self.lock().get(key).cloned()
    }

    /// All reports.
    pub fn reports(&self) -> BTreeMap<WorkloadKey, Report> {
        self.lock().clone()
    }

    /// Changes whenever a report does.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.shared.version.subscribe()
    }

    /// Counters and gauges of the loop.
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// Waits until `enough` holds for the endpoint's report (`None`: unknown, or removed).
    ///
    /// # Errors
    /// [`WaitError`].
    pub async fn wait_for(
        &self,
        key: &WorkloadKey,
        deadline: Instant,
        mut enough: impl FnMut(Option<&Report>) -> bool,
    ) -> Result<(), WaitError> {
        let mut version = self.watch();
        loop {
            version.borrow_and_update();
            let last = {
                let reports = self.lock();
                let report = reports.get(key);
                if enough(report) {
                    return Ok(());
                }
                report.map(|r| r.state.clone())
            };
            if self.commands.is_closed() {
                return Err(WaitError::Stopped);
            }
            tokio::select! {
                changed = timeout_at(deadline, version.changed()) => {
                    if changed.is_err() {
                        return Err(WaitError::Deadline { key: key.clone(), last });
                    }
                }
                () = self.commands.closed() => {}
            }
        }
    }

    /// Waits until the endpoint as last handed in is in the kernel. Give a condition on
    /// [`Report::workload`] to [`Handle::wait_for`] where an older one may be programmed.
    ///
    /// # Errors
    /// [`WaitError`].
    pub async fn wait_programmed(
        &self,
        key: &WorkloadKey,
        deadline: Instant,
    ) -> Result<(), WaitError> {
        self.wait_for(key, deadline, |r| {
            r.is_some_and(|r| r.state == State::Programmed)
        })
        .await
    }

    /// Waits until nothing of the endpoint is left in the kernel.
    ///
    /// # Errors
    /// [`WaitError`].
    pub async fn wait_removed(
        &self,
        key: &WorkloadKey,
        deadline: Instant,
    ) -> Result<(), WaitError> {
        self.wait_for(key, deadline, |r| r.is_none()).await
    }

    /// Changes reports and tells everybody who waits.
    pub(crate) fn update<R>(
        &self,
        change: impl FnOnce(&mut BTreeMap<WorkloadKey, Report>) -> R,
    ) -> R {
        let out = change(&mut self.lock());
        self.shared.version.send_modify(|v| *v += 1);
        out
    }

    /// Of all workloads with a report.
    pub(crate) fn keys(&self) -> Vec<WorkloadKey> {
        self.lock().keys().cloned().collect()
    }

    /// Of all workloads that are not programmed.
    pub(crate) fn unprogrammed(&self) -> Vec<WorkloadKey> {
        let reports = self.lock();
        let open = reports.iter().filter(|(_, r)| r.state != State::Programmed);
        open.map(|(k, _)| k.clone()).collect()
    }

    /// Sets states; `None` ends a report. A report that turned while they were computed
    /// keeps its newer state.
    pub(crate) fn settle(&self, news: BTreeMap<WorkloadKey, Option<(Arc<WorkloadPolicy>, State)>>) {
        self.update(|reports| {
            for (key, new) in news {
                match new {
                    None => {
                        if reports
                            .get(&key)
                            .is_some_and(|r| r.state == State::Removing)
                        {
                            reports.remove(&key);
                        }
                    }
                    Some((of, state)) => {
                        if let Some(r) = reports.get_mut(&key)
                            && r.state != State::Removing
                            && Arc::ptr_eq(&r.workload, &of)
                        {
                            r.state = state;
                        }
                    }
                }
            }
            let programmed = reports
                .values()
                .filter(|r| r.state == State::Programmed)
                .count();
            let count = |n| i64::try_from(n).unwrap_or(i64::MAX);
            let m = &self.shared.metrics;
            m.endpoints_programmed.set(count(programmed));
            m.endpoints_pending.set(count(reports.len() - programmed));
        });
    }
}
