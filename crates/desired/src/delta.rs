//! A state, and the difference between two.

use crate::{
    Globals, HostPolicy, Member, Members, PolicyRules, ProfileRules, RouteTarget, SetId, SetKind,
    Vtep, WorkloadPolicy,
};
use model::{PolicyKey, ProfileId, WorkloadKey};
use net::{Cidr, Family};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The NFLOG group that copies of name servers' answers to workloads go to, while
/// [`Delta::domains`] names any. Nothing of Calico uses it.
pub const ANSWERS_GROUP: u16 = 5353;

/// What becomes of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetChange {
    /// It is new, or replaced whole.
    Create {
        /// What its members are.
        kind: SetKind,
        /// All of them.
        members: Vec<Member>,
    },
    /// Its members change. No member is in both lists.
    Update {
        /// New members.
        added: Vec<Member>,
        /// Members that went; they were there.
        removed: Vec<Member>,
    },
    /// No rule needs it any more.
    Remove,
}

/// One step from state to state. `None` is "gone". In everything but sets, the value is the
/// whole new value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delta {
    /// Sets.
    pub sets: BTreeMap<SetId, SetChange>,
    /// Policies.
    pub policies: BTreeMap<PolicyKey, Option<Arc<PolicyRules>>>,
    /// Profiles.
    pub profiles: BTreeMap<ProfileId, Option<Arc<ProfileRules>>>,
    /// Local workload endpoints.
    pub workloads: BTreeMap<WorkloadKey, Option<Arc<WorkloadPolicy>>>,
    /// Host endpoints of this node, by name.
    pub hosts: BTreeMap<Arc<str>, Option<Arc<HostPolicy>>>,
    /// Domain names, `*.` patterns among them, whose addresses rules here ask for; the whole
    /// list when it changed, sorted.
    pub domains: Option<Arc<[Arc<str>]>>,
    /// Routes, one a destination.
    pub routes: BTreeMap<Cidr, Option<RouteTarget>>,
    /// Tunnel ends, by node and family.
    pub vteps: BTreeMap<(Arc<str>, Family), Option<Vtep>>,
    /// Settings, when any changed.
    pub globals: Option<Arc<Globals>>,
}

impl Delta {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.sets.is_empty()
            && self.policies.is_empty()
            && self.profiles.is_empty()
            && self.workloads.is_empty()
            && self.hosts.is_empty()
            && self.domains.is_none()
            && self.routes.is_empty()
            && self.vteps.is_empty()
            && self.globals.is_none()
    }
}

/// A whole state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Desired {
    /// Sets with their members.
    pub sets: BTreeMap<SetId, Members>,
    /// Policies.
    pub policies: BTreeMap<PolicyKey, Arc<PolicyRules>>,
    /// Profiles.
    pub profiles: BTreeMap<ProfileId, Arc<ProfileRules>>,
    /// Local workload endpoints.
    pub workloads: BTreeMap<WorkloadKey, Arc<WorkloadPolicy>>,
    /// Host endpoints of this node, by name.
    pub hosts: BTreeMap<Arc<str>, Arc<HostPolicy>>,
    /// Domain names to learn the addresses of, sorted.
    pub domains: Arc<[Arc<str>]>,
    /// Routes.
    pub routes: BTreeMap<Cidr, RouteTarget>,
    /// Tunnel ends.
    pub vteps: BTreeMap<(Arc<str>, Family), Vtep>,
    /// Settings; `None` before the first delta.
    pub globals: Option<Arc<Globals>>,
}

fn put<K: Ord + Clone, V: Clone>(map: &mut BTreeMap<K, V>, change: &BTreeMap<K, Option<V>>) {
    for (k, v) in change {
        match v {
            Some(v) => drop(map.insert(k.clone(), v.clone())),
            None => drop(map.remove(k)),
        }
    }
}

impl Desired {
    /// Goes one step on.
    ///
    /// # Errors
    /// Says what breaks the contract: a set updated that is not there, a member
    /// added twice or removed without being there.
    pub fn apply(&mut self, delta: &Delta) -> Result<(), String> {
        for (id, change) in &delta.sets {
            self.apply_set(id, change)?;
        }
        put(&mut self.policies, &delta.policies);
        put(&mut self.profiles, &delta.profiles);
        put(&mut self.workloads, &delta.workloads);
        put(&mut self.hosts, &delta.hosts);
        if let Some(d) = &delta.domains {
            self.domains = d.clone();
        }
        put(&mut self.routes, &delta.routes);
        put(&mut self.vteps, &delta.vteps);
        if let Some(g) = &delta.globals {
            self.globals = Some(g.clone());
        }
        Ok(())
    }

    fn apply_set(&mut self, id: &SetId, change: &SetChange) -> Result<(), String> {
        match change {
            SetChange::Create { kind, members } => {
                let set = Members {
                    kind: *kind,
                    members: members.iter().copied().collect(),
                };
                if set.members.len() != members.len() {
                    return Err(format!("set {id} is created with a member twice"));
                }
                self.sets.insert(id.clone(), set);
            }
            SetChange::Remove => {
                self.sets
                    .remove(id)
                    .ok_or_else(|| format!("set {id} is removed but not there"))?;
            }
            SetChange::Update { added, removed } => {
                let set = self
                    .sets
                    .get_mut(id)
                    .ok_or_else(|| format!("set {id} is updated but not there"))?;
                for m in removed {
                    if !set.members.remove(m) {
                        return Err(format!("set {id} loses {m:?}, which it does not have"));
                    }
                }
                for m in added {
                    if !set.members.insert(*m) {
                        return Err(format!("set {id} gains {m:?} twice"));
                    }
                }
            }
        }
        Ok(())
    }

    fn host_faults(&self, out: &mut Vec<String>) {
        for (name, h) in &self.hosts {
            let lists = [&h.tiers, &h.forward, &h.untracked, &h.pre_dnat];
            for p in lists
                .into_iter()
                .flatten()
                .flat_map(|t| t.ingress.iter().chain(&t.egress))
            {
                if !self.policies.contains_key(p) {
                    out.push(format!("HostEndpoint({name}) needs {p}"));
                }
            }
            out.extend(
                h.profiles
                    .iter()
                    .filter(|p| !self.profiles.contains_key(*p))
                    .map(|p| format!("HostEndpoint({name}) needs Profile({p})")),
            );
        }
    }

    /// What dangles or overlaps; empty when the state keeps its promises.
    pub fn faults(&self) -> Vec<String> {
        let mut out = Vec::new();
        let rules = self
            .policies
            .iter()
            .map(|(k, p)| (k.to_string(), &p.ingress, &p.egress))
            .chain(
                self.profiles
                    .iter()
                    .map(|(k, p)| (format!("Profile({k})"), &p.ingress, &p.egress)),
            );
        for (name, ingress, egress) in rules {
            for e in ingress
                .iter()
                .chain(egress)
                .flat_map(|r| [&r.source, &r.destination])
            {
                let nets = e.sets.iter().chain(&e.not_sets).map(|s| (s, SetKind::Nets));
                let ports = e
                    .port_sets
                    .iter()
                    .chain(&e.not_port_sets)
                    .map(|s| (s, SetKind::Ports));
                for (id, kind) in nets.chain(ports) {
                    if self.sets.get(id).is_none_or(|s| s.kind != kind) {
                        out.push(format!("{name} needs set {id} of {kind:?}"));
                    }
                }
            }
        }
        for (key, w) in &self.workloads {
            for p in w
                .tiers
                .iter()
                .flat_map(|t| t.ingress.iter().chain(&t.egress))
            {
                if !self.policies.contains_key(p) {
                    out.push(format!("{key} needs {p}"));
                }
            }
            out.extend(
                w.profiles
                    .iter()
                    .filter(|p| !self.profiles.contains_key(*p))
                    .map(|p| format!("{key} needs Profile({p})")),
            );
        }
        self.host_faults(&mut out);
        for (id, set) in &self.sets {
            let nets: Vec<Cidr> = set
                .members
                .iter()
                .filter_map(|m| {
                    if let Member::Net(c) = m {
                        Some(*c)
                    } else {
                        None
                    }
                })
                .collect();
            out.extend(
                nets.windows(2)
                    .filter(|w| w[0].overlaps(w[1]))
                    .map(|w| format!("set {id}: {} overlaps {}", w[0], w[1])),
            );
        }
        out
    }
}
