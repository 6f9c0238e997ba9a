//! Host endpoints of this node and what governs them.
//!
//! Promises: each hook has its own list of tiers, and a policy that matches only a host endpoint
//! is active. What is said of an endpoint is said only when it differs from what was said before.
//! One that names neither an interface nor an address can match nothing, and is left out.
//!
//! Never: knows which interfaces there are, and so which of several endpoints has one: that is
//! the programmer's to see. Says anything of another node's.

use crate::labels::LabelSetId;
use crate::members::Members;
use crate::policies::{Hook, Policies};
use crate::workloads::each_once;
use desired::{Delta, HostMatch, HostPolicy};
use model::HostEndpoint;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

#[derive(Debug)]
struct Local {
    endpoint: HostEndpoint,
    interface: HostMatch,
    labels: LabelSetId,
}

/// All host endpoints of this node, by name.
#[derive(Debug, Default)]
pub(crate) struct Hosts {
    locals: BTreeMap<Arc<str>, Local>,
    by_labels: BTreeSet<(LabelSetId, Arc<str>)>,
    emitted: BTreeMap<Arc<str>, Arc<HostPolicy>>,
    dirty: BTreeSet<Arc<str>>,
}

/// Where it applies: a name goes before addresses.
fn interface(endpoint: &HostEndpoint) -> Option<HostMatch> {
    match endpoint.interface.as_deref() {
        Some("*") => Some(HostMatch::Any),
        Some(name) => name.parse().ok().map(HostMatch::Interface),
        None if endpoint.expected_ips.is_empty() => None,
        None => {
            let unique: BTreeSet<_> = endpoint.expected_ips.iter().copied().collect();
            Some(HostMatch::Addresses(unique.into_iter().collect()))
        }
    }
}

impl Hosts {
    /// Takes the new state of an endpoint; `None` when it is gone or another node's.
    pub(crate) fn update(
        &mut self,
        name: &Arc<str>,
        endpoint: Option<&HostEndpoint>,
        policies: &mut Policies,
        members: &Members,
    ) {
        if self.locals.get(name).map(|l| &l.endpoint) == endpoint {
            return;
        }
        let new = endpoint.and_then(|e| Some((interface(e)?, e)));
        let new = new.map(|(interface, e)| Local {
            endpoint: e.clone(),
            interface,
            labels: policies.join(&e.labels, &e.profiles, members),
        });
        let now = new.as_ref().map(|l| l.labels);
        // The new one joined first, so that what both need stays.
        let old = match new {
            Some(new) => self.locals.insert(name.clone(), new),
            None => self.locals.remove(name),
        };
        if let Some(old) = old {
            if now != Some(old.labels) {
                self.by_labels.remove(&(old.labels, name.clone()));
            }
            policies.leave(old.labels, &old.endpoint.profiles);
        }
        if let Some(labels) = now {
            self.by_labels.insert((labels, name.clone()));
        }
        self.dirty.insert(name.clone());
    }

    /// Says which endpoints came, changed and went.
    pub(crate) fn flush(
        &mut self,
        labels: &BTreeSet<LabelSetId>,
        policies: &Policies,
        delta: &mut Delta,
    ) {
        for labels in labels {
            let first = (*labels, Arc::from(""));
            let with = self.by_labels.range(first..);
            let with = with.take_while(|(l, _)| l == labels);
            self.dirty.extend(with.map(|(_, name)| name.clone()));
        }
        for name in std::mem::take(&mut self.dirty) {
            let Some(local) = self.locals.get(&name) else {
                if self.emitted.remove(&name).is_some() {
                    delta.hosts.insert(name, None);
                }
                continue;
            };
            let policy = policy(local, policies);
            if self.emitted.get(&name).is_some_and(|e| **e == policy) {
                continue;
            }
            let policy = Arc::new(policy);
            self.emitted.insert(name.clone(), policy.clone());
            delta.hosts.insert(name, Some(policy));
        }
    }
}

fn policy(local: &Local, policies: &Policies) -> HostPolicy {
    let at = |hook| policies.resolve_at(local.labels, hook);
    HostPolicy {
        tiers: at(Hook::Normal),
        forward: at(Hook::Forward),
        // Calico has none of these on all interfaces together: among them are workloads', and what
        // is not tracked there would never see its answers allowed.
        untracked: match local.interface {
            HostMatch::Any => Vec::new(),
            HostMatch::Interface(_) | HostMatch::Addresses(_) => at(Hook::Untracked),
        },
        pre_dnat: at(Hook::PreDnat),
        interface: local.interface.clone(),
        profiles: each_once(&local.endpoint.profiles),
        dscp: local.endpoint.dscp,
    }
}
