//! The one way: store -> updates -> calculation -> delta -> dataplane.
//!
//! Promises: nothing reaches the dataplane before the snapshot is complete; from then on
//! each batch of changes is one delta; the configuration that counts for this node is found anew when
//! any layer of it changes.
//!
//! Never: touches the kernel, waits for it, or loses a change because one object is bad.

use crate::bgp::Feed;
use crate::config::Configuration;
use crate::domains::Learned;
use calc::{Calc, Settings};
use daemon::FelixParams;
use dataplane::Handle as Dataplane;
use datastore::{SyncEvent, Syncer};
use desired::Delta;
use model::{FelixConfig, IpPool, Node, PolicyKey, Update, WorkloadKey};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use tokio::sync::watch;

/// What the rest of the agent wants to know of the cluster.
#[derive(Debug, Clone, Default)]
pub(crate) struct World {
    /// The snapshot is complete.
    pub in_sync: bool,
    /// Pools by name.
    pub pools: Arc<BTreeMap<Arc<str>, IpPool>>,
    /// This node as stored.
    pub node: Option<Arc<Node>>,
    /// Why the store cannot be read, while it cannot.
    pub lost: Option<String>,
}

/// Told when the parameters of the process itself may have changed.
pub(crate) type OnParameters = Box<dyn Fn(&FelixParams) + Send + Sync>;

/// The loop.
pub(crate) struct Engine {
    calc: Calc,
    dataplane: Dataplane,
    /// Where BGP is spoken.
    bgp: Option<Feed>,
    felix: BTreeMap<Arc<str>, FelixConfig>,
    configuration: Configuration,
    on_parameters: OnParameters,
    world: watch::Sender<World>,
    metrics: crate::metrics::Metrics,
    endpoints: HashSet<WorkloadKey>,
    policies: HashSet<PolicyKey>,
    learned: Learned,
}

impl Engine {
    /// For a node. The watch receives what others want to know.
    pub(crate) fn new(
        node: Arc<str>,
        dataplane: Dataplane,
        bgp: Option<Feed>,
        configuration: Configuration,
        on_parameters: OnParameters,
        world: watch::Sender<World>,
        metrics: crate::metrics::Metrics,
        learned: Learned,
    ) -> Self {
        let calc = Calc::new(Settings { node });
        Self {
            calc,
            dataplane,
            bgp,
            felix: BTreeMap::new(),
            configuration,
            on_parameters,
            world,
            metrics,
            endpoints: HashSet::new(),
            policies: HashSet::new(),
            learned,
        }
    }

    /// Runs until the dataplane ends.
    pub(crate) async fn run(mut self, mut syncer: Syncer) {
        self.configure();
        // Nobody stores it, and every cluster has it.
        match api::updates(&api::default_allow_profile().into()) {
            Ok(updates) => updates.into_iter().for_each(|u| self.calc.update(u)),
            Err(e) => tracing::error!(error = %e, "the built-in profile does not convert"),
        }
        // Before the first state: what rules already let through stays open.
        let known = std::mem::take(&mut self.learned.known);
        known.into_iter().for_each(|u| self.calc.update(u));
        loop {
            // Not dropped for what is learned meanwhile: a page that is being read would be lost.
            let mut next = std::pin::pin!(syncer.next());
            let event = loop {
                tokio::select! {
                    event = &mut next => break event,
                    Some(updates) = self.learned.updates.recv() => if !self.learn(updates) {
                        return;
                    },
                }
            };
            if !self.take(event) {
                return;
            }
        }
    }

    /// Takes what domain names resolved to; false when the dataplane has ended.
    fn learn(&mut self, updates: Vec<Update>) -> bool {
        updates.into_iter().for_each(|u| self.calc.update(u));
        !self.world.borrow().in_sync || self.flush()
    }

    /// Handles one event; false when the dataplane has ended.
    fn take(&mut self, event: SyncEvent) -> bool {
        match event {
            SyncEvent::Updates(updates) => {
                let started = std::time::Instant::now();
                self.metrics.updates.inc_by(updates.len() as u64);
                updates.into_iter().for_each(|u| self.update(u));
                let open = !self.world.borrow().in_sync || self.flush();
                self.metrics
                    .update_seconds
                    .observe(started.elapsed().as_secs_f64());
                open
            }
            SyncEvent::InSync => {
                let first = !self.world.borrow().in_sync;
                self.world.send_modify(|w| {
                    w.in_sync = true;
                    w.lost = None;
                });
                if first {
                    tracing::info!("the datastore's snapshot is complete");
                    if let Some(bgp) = &self.bgp {
                        bgp.in_sync();
                    }
                }
                let open = self.flush();
                // Nothing changed if no rule ever asked for a name.
                self.learned
                    .watched
                    .send_if_modified(|w| w.is_none() && w.replace(Arc::default()).is_none());
                open && (!first || self.dataplane.in_sync().is_ok())
            }
            SyncEvent::Lost(why) => {
                tracing::warn!(error = %why, "the datastore is out of reach; what is programmed stays in force");
                self.world.send_modify(|w| w.lost = Some(why.to_string()));
                true
            }
            SyncEvent::BadObject { key, error } => {
                tracing::warn!(%key, %error, "a stored object is bad and counts as absent until it is mended");
                self.metrics.bad_objects.inc();
                true
            }
            SyncEvent::Mended { key } => {
                tracing::info!(%key, "a stored object that was bad is mended or gone");
                true
            }
            // The enum may grow; what this engine does not know changes no state.
            _ => true,
        }
    }

    fn flush(&mut self) -> bool {
        let delta = self.calc.flush();
        if delta.is_empty() {
            return true;
        }
        tracing::debug!(
            sets = delta.sets.len(),
            policies = delta.policies.len(),
            profiles = delta.profiles.len(),
            endpoints = delta.workloads.len(),
            routes = delta.routes.len(),
            vteps = delta.vteps.len(),
            globals = delta.globals.is_some(),
            "the desired state changes"
        );
        self.metrics.deltas.inc();
        self.count(&delta);
        if let Some(names) = &delta.domains {
            self.learned.watched.send_replace(Some(names.clone()));
        }
        self.dataplane.apply(delta).is_ok()
    }

    /// What is active is what deltas gave and did not take back.
    fn count(&mut self, delta: &Delta) {
        for (key, change) in &delta.workloads {
            match change {
                Some(_) => drop(self.endpoints.insert(key.clone())),
                None => drop(self.endpoints.remove(key)),
            }
        }
        for (key, change) in &delta.policies {
            match change {
                Some(_) => drop(self.policies.insert(key.clone())),
                None => drop(self.policies.remove(key)),
            }
        }
        let number = |n| i64::try_from(n).unwrap_or(i64::MAX);
        self.metrics.endpoints.set(number(self.endpoints.len()));
        self.metrics.policies.set(number(self.policies.len()));
    }

    fn update(&mut self, update: Update) {
        if let Some(bgp) = &self.bgp {
            bgp.update(&update);
        }
        match &update {
            Update::Felix(name, config) => {
                match config {
                    Some(c) => drop(self.felix.insert(name.clone(), c.clone())),
                    None => drop(self.felix.remove(name)),
                }
                self.configure();
            }
            Update::Pool(name, pool) => self.world.send_modify(|w| {
                let pools = Arc::make_mut(&mut w.pools);
                match pool {
                    Some(p) => drop(pools.insert(name.clone(), p.clone())),
                    None => drop(pools.remove(name)),
                }
            }),
            Update::Node(name, node) if name == self.calc.node() => {
                self.world
                    .send_modify(|w| w.node = node.clone().map(Arc::new));
                self.configure();
            }
            _ => {}
        }
        self.calc.update(update);
    }

    fn configure(&mut self) {
        let node = self.world.borrow().node.clone();
        self.configuration.resolve(&self.felix, node.as_deref());
        (self.on_parameters)(self.configuration.params());
        self.calc.set_config(self.configuration.node_config());
    }
}
