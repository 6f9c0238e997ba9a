//! Counters of the agent, under Calico's names where the meaning is the same.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// Shared by clones.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    /// Updates from the datastore.
    pub updates: Counter,
    /// Deltas to the dataplane.
    pub deltas: Counter,
    /// Seconds from a batch of updates to its delta.
    pub update_seconds: Histogram,
    /// Stored objects that could not be used.
    pub bad_objects: Counter,
    /// Endpoints of this node.
    pub endpoints: Gauge,
    /// Policies that apply to one of them.
    pub policies: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            updates: Counter::default(),
            deltas: Counter::default(),
            update_seconds: Histogram::new(exponential_buckets(0.000_01, 4.0, 10)),
            bad_objects: Counter::default(),
            endpoints: Gauge::default(),
            policies: Gauge::default(),
        }
    }
}

impl Metrics {
    /// Adds them to a registry.
    pub(crate) fn register(&self, to: &mut Registry) {
        to.register(
            "felix_calc_graph_updates_processed",
            "Updates that the calculation took",
            self.updates.clone(),
        );
        to.register(
            "felix_calc_graph_output_events",
            "Deltas that the calculation gave",
            self.deltas.clone(),
        );
        to.register(
            "felix_calc_graph_update_time_seconds",
            "Seconds to calculate one batch of updates",
            self.update_seconds.clone(),
        );
        to.register(
            "felix_active_local_endpoints",
            "Endpoints of this node",
            self.endpoints.clone(),
        );
        to.register(
            "felix_active_local_policies",
            "Policies that apply to an endpoint of this node",
            self.policies.clone(),
        );
        to.register(
            "manx_bad_objects",
            "Stored objects that could not be used",
            self.bad_objects.clone(),
        );
    }
}
