//! Metrics: one registry a process, printed in the OpenMetrics format.

use crate::http::{Answer, Handler};
use prometheus_client::registry::Registry;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// The metrics of a process. Clones are the same.
#[derive(Clone, Default)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// Registers metrics: `register` gets the registry.
    pub fn register<T>(&self, register: impl FnOnce(&mut Registry) -> T) -> T {
        register(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// All of them as text.
    pub fn text(&self) -> String {
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let mut out = String::new();
        match prometheus_client::encoding::text::encode(&mut out, &registry) {
            Ok(()) => out,
            // A String takes everything; a broken metric must not break the others' page.
            Err(fmt::Error) => "# a metric has no text form\n# EOF\n".to_owned(),
        }
    }

    /// Answers `/metrics`.
    pub fn handler(&self) -> Handler {
        let metrics = self.clone();
        Arc::new(move |path| {
            (path == "/metrics").then(|| Answer {
                status: 200,
                content_type: "application/openmetrics-text; version=1.0.0; charset=utf-8",
                body: metrics.text(),
            })
        })
    }
}
