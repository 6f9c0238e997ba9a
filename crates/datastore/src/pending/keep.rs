//! The keeping of promises: what each agent runs for as long as it lives.

use super::{PREFIX, Pending, PendingError, Pendings, State};
use crate::StoreError;
use jiff::Timestamp;
use std::time::Duration;
use tokio::time::sleep;

/// Between attempts while the store is out of reach: doubled from the first to the last.
const FIRST: Duration = Duration::from_secs(1);
const LAST: Duration = Duration::from_secs(30);

/// Behind a watch that would tell of every change, and against clocks that are set.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// What the keeper tells of.
#[derive(Debug)]
#[non_exhaustive]
pub enum Told {
    /// Changes were taken back.
    RolledBack(Pending),
    /// The store or a record is no good; it is tried again.
    Failed(PendingError),
}

impl Pendings {
    /// Takes back what nobody confirms in time, for as long as it is polled. `clock` is the time of
    /// day, `by` who this is, `stagger` how much later than the deadline to act, so that not every
    /// agent of a cluster does it at once.
    pub async fn keep(
        &self,
        by: &str,
        stagger: Duration,
        clock: impl Fn() -> Timestamp,
        mut told: impl FnMut(Told),
    ) {
        let mut wait = FIRST;
        loop {
            match self.round(by, stagger, &clock, &mut told).await {
                Ok(()) => wait = FIRST,
                // What is no longer kept is listed again.
                Err(PendingError::Store(StoreError::Compacted { .. })) => {}
                Err(e) => {
                    told(Told::Failed(e));
                    sleep(wait).await;
                    wait = wait.saturating_mul(2).min(LAST);
                }
            }
        }
    }

    /// Does what is due, and waits until something may be.
    async fn round(
        &self,
        by: &str,
        stagger: Duration,
        clock: &impl Fn() -> Timestamp,
        told: &mut impl FnMut(Told),
    ) -> Result<(), PendingError> {
        let (all, bad, revision) = self.listed().await?;
        bad.into_iter().for_each(|e| told(Told::Failed(e)));
        let now = clock();
        let acts_at = |p: &Pending| p.deadline.saturating_add(stagger).unwrap_or(Timestamp::MAX);
        for p in all.iter().filter(|p| p.is_due(now) && acts_at(p) <= now) {
            match self.roll_back(&p.id, clock(), by).await {
                // Told by whoever did it.
                Ok(done) if done.by.as_deref() == Some(by) => told(Told::RolledBack(done)),
                // Confirmed at the last moment.
                Ok(_) | Err(PendingError::NotFound(_)) => {}
                Err(e) => return Err(e),
            }
        }
        if all.iter().any(|p| p.ended.is_some()) {
            self.sweep(now).await?;
        }
        let waiting = all.iter().filter(|p| p.state != State::RolledBack);
        let next = waiting.map(acts_at).filter(|at| *at > now).min();
        let pause = next.map_or(LOOK_AGAIN, |at| {
            Duration::try_from(at.duration_since(now)).map_or(LOOK_AGAIN, |d| d.min(LOOK_AGAIN))
        });
        let mut watch = self.store().watch(&[PREFIX], revision).await?;
        tokio::select! {
            changed = watch.next() => drop(changed?),
            () = sleep(pause) => {}
        }
        Ok(())
    }
}
