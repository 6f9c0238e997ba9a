//! Counters and gauges, under Calico's names where they mean the same.
//!
//! Promises: cheap to count, safe to read at any time.
//! Never: serves them.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;

/// Metrics of the loop. A clone counts into the same.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Time of one apply, in seconds.
    pub apply_time: Histogram,
    /// Applies that left something dirty.
    pub apply_failures: Counter,
    /// Deltas handed in.
    pub deltas: Counter,
    /// Endpoints that are programmed.
    pub endpoints_programmed: Gauge,
    /// Endpoints that are not, for whatever reason.
    pub endpoints_pending: Gauge,
    /// nftables transactions committed.
    pub nft_commits: Counter,
    /// nftables transactions refused.
    pub nft_failures: Counter,
    /// Times that somebody else changed our table and it was repaired.
    pub nft_repairs: Counter,
    /// Time of one nftables transaction, in seconds.
    pub nft_time: Histogram,
    /// Routes that could not be set or removed.
    pub route_failures: Counter,
    /// Whether the first complete state is in the kernel: 1 or 0.
    pub in_sync: Gauge<i64, std::sync::atomic::AtomicI64>,
    /// Objects that the kernel refused and that are tried again.
    pub dirty: Gauge<i64, std::sync::atomic::AtomicI64>,
    /// Full reads of the kernel.
    pub resyncs: Counter<u64, AtomicU64>,
}

/// From 100 microseconds to 26 seconds.
fn times() -> Histogram {
    Histogram::new((0..10).map(|i| 1e-4 * 4f64.powi(i)))
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            apply_time: times(),
            apply_failures: Counter::default(),
            deltas: Counter::default(),
            endpoints_programmed: Gauge::default(),
            endpoints_pending: Gauge::default(),
            nft_commits: Counter::default(),
            nft_failures: Counter::default(),
            nft_repairs: Counter::default(),
            nft_time: times(),
            route_failures: Counter::default(),
            in_sync: Gauge::default(),
            dirty: Gauge::default(),
            resyncs: Counter::default(),
        }
    }
}

impl Metrics {
    /// Makes them part of what is served.
    pub fn register(&self, to: &mut Registry) {
        let r = to.sub_registry_with_prefix("felix");
        r.register(
            "int_dataplane_apply_time_seconds",
            "Time to apply one step to the kernel",
            self.apply_time.clone(),
        );
        r.register(
            "int_dataplane_failures",
            "Applies that failed in part and are tried again",
            self.apply_failures.clone(),
        );
        r.register(
            "int_dataplane_messages",
            "Steps of the desired state handed in",
            self.deltas.clone(),
        );
        let m = to.sub_registry_with_prefix("manx");
        m.register(
            "endpoints_programmed",
            "Endpoints in the kernel",
            self.endpoints_programmed.clone(),
        );
        m.register(
            "endpoints_pending",
            "Endpoints not in the kernel yet",
            self.endpoints_pending.clone(),
        );
        m.register(
            "nft_commits",
            "nftables transactions committed",
            self.nft_commits.clone(),
        );
        m.register(
            "nft_failures",
            "nftables transactions refused",
            self.nft_failures.clone(),
        );
        m.register(
            "nft_repairs",
            "Repairs of our table after a change by others",
            self.nft_repairs.clone(),
        );
        m.register(
            "nft_seconds",
            "Time of one nftables transaction",
            self.nft_time.clone(),
        );
        m.register(
            "route_failures",
            "Route operations refused",
            self.route_failures.clone(),
        );
        m.register(
            "dataplane_in_sync",
            "First complete state programmed",
            self.in_sync.clone(),
        );
        m.register(
            "dataplane_dirty",
            "Objects to be tried again",
            self.dirty.clone(),
        );
        m.register(
            "dataplane_resyncs",
            "Full reads of the kernel",
            self.resyncs.clone(),
        );
    }
}
