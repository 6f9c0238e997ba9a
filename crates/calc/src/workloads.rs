//! Local workload endpoints: which of them are active, and what governs them.
//!
//! Promises: of several that claim one interface, the lowest key is active and the
//! others wait; one without an interface or an address is not active. What is said of an
//! endpoint is said only when it differs from what was said before.
//!
//! Never: sees an endpoint of another node.

use crate::labels::LabelSetId;
use crate::members::Members;
use crate::policies::{Policies, Resolved};
use crate::routes::Network;
use desired::{Delta, TierPolicies, WorkloadPolicy};
use model::{ProfileId, WorkloadEndpoint, WorkloadKey};
use net::IfName;
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// An endpoint, and the label set that it has joined while it is active.
#[derive(Debug)]
struct Local {
    endpoint: Arc<WorkloadEndpoint>,
    labels: Option<LabelSetId>,
}

/// All local workload endpoints.
#[derive(Debug, Default)]
pub(crate) struct Workloads {
    locals: BTreeMap<WorkloadKey, Local>,
    by_interface: FxHashMap<IfName, BTreeSet<WorkloadKey>>,
    by_labels: BTreeSet<(LabelSetId, WorkloadKey)>,
    emitted: BTreeMap<WorkloadKey, Arc<WorkloadPolicy>>,
    dirty: BTreeSet<WorkloadKey>,
}

/// The interface of one that can be active.
fn interface(endpoint: &WorkloadEndpoint) -> Option<IfName> {
    endpoint.interface.filter(|_| !endpoint.nets.is_empty())
}

impl Workloads {
    /// Takes the new state of an endpoint.
    pub(crate) fn update(
        &mut self,
        key: WorkloadKey,
        endpoint: Option<WorkloadEndpoint>,
        policies: &mut Policies,
        members: &Members,
        network: &mut Network,
    ) {
        let known = self.locals.get(&key).map(|l| &*l.endpoint);
        if known == endpoint.as_ref() {
            return;
        }
        let old = self.locals.remove(&key);
        let mut touched = Vec::new();
        if let Some(name) = old.as_ref().and_then(|l| interface(&l.endpoint)) {
            touched.push(name);
            if let Some(keys) = self.by_interface.get_mut(&name) {
                keys.remove(&key);
                if keys.is_empty() {
                    self.by_interface.remove(&name);
                }
            }
        }
        if let Some(endpoint) = endpoint {
            if let Some(name) = interface(&endpoint) {
                touched.push(name);
                let keys = self.by_interface.entry(name).or_default();
                keys.insert(key.clone());
            }
            let local = Local {
                endpoint: Arc::new(endpoint),
                labels: None,
            };
            self.locals.insert(key.clone(), local);
        }
        // Who comes joins before who goes leaves, so that what both need stays.
        touched.dedup();
        for name in touched {
            self.elect(name, policies, members, network);
        }
        if let Some(old) = old {
            self.deactivate(&key, &old, policies, network);
            if let Some(local) = self.locals.get(&key).filter(|l| l.labels.is_some()) {
                // Addresses that the old and the new one share were just taken away.
                add_routes(&key, &local.endpoint, network);
            }
        }
    }

    /// Makes the lowest of an interface's endpoints active, and no other.
    fn elect(
        &mut self,
        name: IfName,
        policies: &mut Policies,
        members: &Members,
        network: &mut Network,
    ) {
        let Some(keys) = self.by_interface.get(&name) else {
            return;
        };
        let winner = keys.first().cloned();
        // At most one was active before this.
        let loser = keys.iter().skip(1).find(|k| {
            let local = self.locals.get(*k);
            local.is_some_and(|l| l.labels.is_some())
        });
        let loser = loser.cloned();
        if let Some(key) = winner {
            self.activate(&key, policies, members, network);
        }
        if let Some(key) = loser
            && let Some(local) = self.locals.get_mut(&key)
        {
            let was = Local {
                endpoint: local.endpoint.clone(),
                labels: local.labels.take(),
            };
            self.deactivate(&key, &was, policies, network);
        }
    }

    fn activate(
        &mut self,
        key: &WorkloadKey,
        policies: &mut Policies,
        members: &Members,
        network: &mut Network,
    ) {
        let Some(local) = self.locals.get_mut(key) else {
            return;
        };
        if local.labels.is_some() {
            return;
        }
        let endpoint = local.endpoint.clone();
        let labels = policies.join(&endpoint.labels, &endpoint.profiles, members);
        local.labels = Some(labels);
        self.by_labels.insert((labels, key.clone()));
        add_routes(key, &endpoint, network);
        self.dirty.insert(key.clone());
    }

    fn deactivate(
        &mut self,
        key: &WorkloadKey,
        local: &Local,
        policies: &mut Policies,
        network: &mut Network,
    ) {
        let Some(labels) = local.labels else {
            return;
        };
        let now = self.locals.get(key).and_then(|l| l.labels);
        if now != Some(labels) {
            self.by_labels.remove(&(labels, key.clone()));
        }
        policies.leave(labels, &local.endpoint.profiles);
        for net in &local.endpoint.nets {
            network.remove_local(*net, key);
        }
        self.dirty.insert(key.clone());
    }

    /// Says which endpoints came, changed and went.
    pub(crate) fn flush(
        &mut self,
        labels: &BTreeSet<LabelSetId>,
        policies: &Policies,
        delta: &mut Delta,
    ) {
        for labels in labels {
            self.dirty.extend(keys_of(&self.by_labels, *labels));
        }
        let mut known = Resolved::default();
        for key in std::mem::take(&mut self.dirty) {
            let active = self.locals.get(&key).and_then(|l| {
                let labels = l.labels?;
                let interface = interface(&l.endpoint)?;
                let tiers = policies.resolve(labels, &mut known);
                Some(policy(&l.endpoint, interface, tiers))
            });
            let Some(active) = active else {
                if self.emitted.remove(&key).is_some() {
                    delta.workloads.insert(key, None);
                }
                continue;
            };
            if self.emitted.get(&key).is_some_and(|e| **e == active) {
                continue;
            }
            let active = Arc::new(active);
            self.emitted.insert(key.clone(), active.clone());
            delta.workloads.insert(key, Some(active));
        }
    }
}

fn add_routes(key: &WorkloadKey, endpoint: &WorkloadEndpoint, network: &mut Network) {
    for net in &endpoint.nets {
        if let Some(interface) = endpoint.interface {
            network.add_local(*net, key, interface);
        }
    }
}

fn keys_of(
    by_labels: &BTreeSet<(LabelSetId, WorkloadKey)>,
    labels: LabelSetId,
) -> impl Iterator<Item = WorkloadKey> {
    let empty: Arc<str> = "".into();
    let first = WorkloadKey {
        node: empty.clone(),
        orchestrator: empty.clone(),
        workload: empty.clone(),
        endpoint: empty,
    };
    by_labels
        .range((labels, first)..)
        .take_while(move |(l, _)| *l == labels)
        .map(|(_, k)| k.clone())
}

/// Profiles in order; one that is listed again decides nothing new.
pub(crate) fn each_once(profiles: &[ProfileId]) -> Vec<ProfileId> {
    let mut out: Vec<ProfileId> = Vec::with_capacity(profiles.len());
    for p in profiles {
        if !out.contains(p) {
            out.push(p.clone());
        }
    }
    out
}

fn policy(
    endpoint: &WorkloadEndpoint,
    interface: IfName,
    tiers: Vec<TierPolicies>,
) -> WorkloadPolicy {
    WorkloadPolicy {
        interface,
        mac: endpoint.mac,
        nets: endpoint.nets.clone(),
        nats: endpoint.nats.clone(),
        allowed_sources: endpoint.allowed_sources.clone(),
        tiers,
        profiles: each_once(&endpoint.profiles),
        qos: endpoint.qos.clone(),
    }
}
