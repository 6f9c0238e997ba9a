//! Keeps the promise to take back what nobody confirms in time (`manx apply --confirm`).
//!
//! Any agent of the cluster does it, on the store alone, so that neither the operator's connection
//! nor the node that is cut off has to be there.

use datastore::Store;
use datastore::pending::{Outcome, Pending, Pendings, Told};
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;

/// Runs for as long as it is polled.
pub(crate) async fn keep(store: Arc<dyn Store>, node: Arc<str>) {
    Pendings::new(store)
        .keep(&node, stagger(&node), Timestamp::now, tell)
        .await;
}

/// Up to a second, by the node's name: one agent does it, the others find it done.
fn stagger(node: &str) -> Duration {
    let sum = node
        .bytes()
        .fold(0u64, |sum, b| sum.wrapping_mul(31).wrapping_add(b.into()));
    Duration::from_millis(sum % 1000)
}

fn tell(told: Told) {
    match told {
        Told::RolledBack(p) => tell_rolled_back(&p),
        Told::Failed(e) => tracing::warn!(error = %e, "cannot look after unconfirmed changes"),
        other => tracing::debug!(?other),
    }
}

fn tell_rolled_back(p: &Pending) {
    tracing::warn!(id = %p.id, command = %p.command, "nobody confirmed it in time: taken back");
    for (object, outcome) in &p.outcomes {
        match outcome {
            Outcome::Left(_) => tracing::warn!(id = %p.id, %object, "{outcome}"),
            _ => tracing::info!(id = %p.id, %object, "{outcome}"),
        }
    }
}
