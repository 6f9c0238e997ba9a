//! How a speaker does, for the probes of its process and for its log.
//!
//! Promises: a session that comes up or goes down shows within moments; what stands in the way of
//! speaking is said once when it comes up. Never: holds up the speaker for longer than one look.

use crate::handle::Handle;
use daemon::Health;
use daemon::health::Report;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// It is looked at so often when nothing happens.
const EVERY: Duration = Duration::from_secs(1);
/// Sessions come up in crowds: one look for so much of a crowd.
const CROWD: Duration = Duration::from_millis(20);

/// Reports as component `bgp` what [`crate::readiness`] says, and logs the faults of resources and
/// what else stands in the way, until the speaker ends.
pub async fn report_health(handle: Handle, health: Health) {
    let started = Instant::now();
    let reporter = health.register("bgp", Some(EVERY * 30), started);
    let news = Arc::new(Notify::new());
    let teller = Arc::downgrade(&news);
    let watched = handle.watch(move |_, _| teller.upgrade().map(|n| n.notify_one()).is_some());
    let mut known = BTreeSet::new();
    while watched.is_ok() {
        let speaker = handle.clone();
        let looked = tokio::task::spawn_blocking(move || {
            speaker.look(move |v| {
                let ready = crate::readiness(v, started.elapsed());
                (ready, [&v.plan.faults[..], v.troubles].concat())
            })
        });
        let Ok(Ok((ready, troubles))) = looked.await else {
            break;
        };
        let report = ready.map_or_else(Report::not_ready, |()| Report::ready());
        reporter.report(Instant::now(), report);
        let troubles = troubles.into_iter().collect::<BTreeSet<_>>();
        for new in troubles.difference(&known) {
            tracing::warn!("{new}");
        }
        for gone in known.difference(&troubles) {
            tracing::info!("no longer: {gone}");
        }
        known = troubles;
        if tokio::time::timeout(EVERY, news.notified()).await.is_ok() {
            tokio::time::sleep(CROWD).await;
        }
    }
    reporter.report(Instant::now(), Report::dead("the speaker has ended"));
    // The reporter goes with the process: dropped, it would take the bad news off the list.
    std::future::pending::<()>().await;
}
