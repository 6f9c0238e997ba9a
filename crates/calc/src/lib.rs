//! Resources in, one node's desired state out, by increments.
//!
//! Promises: what the flushed [`Delta`]s add up to is a function of the resources and
//! the configuration as they are, never of the order, batching or repetition of the
//! updates that led there; nothing dangles in it; and the work of a change is in proportion
//! to what it changes.
//!
//! Never: does I/O, reads a clock, takes a lock, keeps what no local endpoint needs in more than
//! its compact form.

mod globals;

use desired::{Delta, Globals};
use model::Update;
use std::sync::Arc;

pub use globals::{NatExclusions, NodeConfig};

/// For whom to calculate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The name of this node.
    pub node: Arc<str>,
}

/// The calculation of one node.
#[derive(Debug)]
pub struct Calc {
    settings: Settings,
    config: NodeConfig,
    globals: Option<Arc<Globals>>,
}

impl Calc {
    /// Nothing known yet, and Calico's default configuration.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            config: NodeConfig::default(),
            globals: None,
        }
    }

    /// The name of the node that this is for.
    pub fn node(&self) -> &Arc<str> {
        &self.settings.node
    }

    /// Takes the new state of one thing. Any order and repetition is legal.
    /// FelixConfigurations and readiness are the agent's part and ignored here.
    pub fn update(&mut self, update: Update) {
        drop(update);
    }

    /// Takes the resolved configuration of this node.
    pub fn set_config(&mut self, config: NodeConfig) {
        self.config = config;
    }

    /// What changed since the last flush. The first one always carries the settings.
    pub fn flush(&mut self) -> Delta {
        let globals = self.config.globals([None, None], Vec::new(), Vec::new());
        let mut delta = Delta::default();
        if self.globals.as_deref() != Some(&globals) {
            let globals = Arc::new(globals);
            self.globals = Some(globals.clone());
            delta.globals = Some(globals);
        }
        delta
    }
}
