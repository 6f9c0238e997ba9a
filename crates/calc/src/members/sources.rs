//! What sets are filled from besides things with labels of their own: services' endpoints,
//! nodes, and domain names.
//!
//! Promises: a change reaches the sets that name the service, the pattern of the domain, or a
//! selector of nodes, and no other; the names that sets ask for are said whole when they change.
//!
//! Never: asks a name server, or looks at whether an endpoint is ready.

use super::{Members, SetIndex};
use crate::set::{Group, SetSpec, SetState};
use model::{EndpointSlice, Labels, Node, Selector, ServiceRef, SliceKey};
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

#[derive(Debug, PartialEq, Eq)]
struct Slice {
    service: ServiceRef,
    group: Group,
}

#[derive(Debug, PartialEq, Eq)]
struct LabelledNode {
    labels: Labels,
    group: Group,
}

/// Services' endpoints, nodes and domain names, and the sets that are of them.
#[derive(Debug, Default)]
pub(super) struct Sources {
    slices: FxHashMap<SliceKey, Slice>,
    by_service: FxHashMap<ServiceRef, BTreeSet<SliceKey>>,
    of_service: FxHashMap<ServiceRef, Vec<SetIndex>>,
    nodes: FxHashMap<Arc<str>, LabelledNode>,
    /// Few: no index, each is asked on a node's change.
    of_nodes: Vec<(Selector, SetIndex)>,
    resolved: BTreeMap<Arc<str>, Group>,
    /// By name or pattern.
    of_domain: BTreeMap<Arc<str>, Vec<SetIndex>>,
    names: Arc<[Arc<str>]>,
    names_dirty: bool,
}

/// Addresses in order, each once.
fn addresses(all: impl Iterator<Item = IpAddr>) -> Box<[IpAddr]> {
    let unique: BTreeSet<IpAddr> = all.collect();
    unique.into_iter().collect()
}

impl From<EndpointSlice> for Slice {
    fn from(slice: EndpointSlice) -> Self {
        // A port without a number says nothing that a packet could match.
        let ports: BTreeSet<_> = slice
            .ports
            .iter()
            .filter_map(|p| Some((p.protocol, p.port?)))
            .collect();
        let all = slice.endpoints.iter().flat_map(|e| &e.addresses).copied();
        Self {
            service: slice.service,
            group: Group {
                addresses: addresses(all),
                ports: ports.into_iter().collect(),
            },
        }
    }
}

impl From<&Node> for LabelledNode {
    fn from(n: &Node) -> Self {
        let own = [n.ipv4, n.ipv6].into_iter().flatten().map(|a| a.addr);
        let tunnels = [n.vxlan_v4, n.vxlan_v6, n.ipip_v4].into_iter().flatten();
        let all = own.chain(tunnels).chain(n.addresses.iter().copied());
        Self {
            labels: n.labels.clone(),
            group: Group {
                addresses: addresses(all),
                ports: Box::default(),
            },
        }
    }
}

/// The patterns that a name matches: itself, and `*.` with each of its parents.
fn patterns(name: &str) -> impl Iterator<Item = String> {
    let parents = name
        .match_indices('.')
        .map(|(i, _)| format!("*{}", &name[i..]));
    std::iter::once(name.to_owned()).chain(parents)
}

impl Sources {
    /// Fills a new set with what is known.
    pub(super) fn fill(&self, state: &mut SetState) {
        match state.spec.clone() {
            SetSpec::ServiceNets(s) | SetSpec::ServicePorts(s) => {
                for key in self.by_service.get(&s).into_iter().flatten() {
                    if let Some(slice) = self.slices.get(key) {
                        state.contribute_group(&slice.group, true);
                    }
                }
            }
            SetSpec::Nodes(selector) => {
                for node in self.nodes.values() {
                    if selector.matches(&node.labels) {
                        state.contribute_group(&node.group, true);
                    }
                }
            }
            SetSpec::Domains(names) => {
                for (name, group) in &self.resolved {
                    if patterns(name).any(|p| names.binary_search_by(|n| (**n).cmp(&*p)).is_ok()) {
                        state.contribute_group(group, true);
                    }
                }
            }
            SetSpec::Selector(_) | SetSpec::NamedPort { .. } => {}
        }
    }

    /// A set is there from now on.
    pub(super) fn register(&mut self, spec: &SetSpec, set: SetIndex) {
        match spec {
            SetSpec::ServiceNets(s) | SetSpec::ServicePorts(s) => {
                self.of_service.entry(s.clone()).or_default().push(set);
            }
            SetSpec::Nodes(selector) => self.of_nodes.push((selector.clone(), set)),
            SetSpec::Domains(names) => {
                for name in &**names {
                    self.of_domain.entry(name.clone()).or_default().push(set);
                }
                self.names_dirty = true;
            }
            SetSpec::Selector(_) | SetSpec::NamedPort { .. } => {}
        }
    }

    /// It is there no more.
    pub(super) fn forget(&mut self, spec: &SetSpec, set: SetIndex) {
        match spec {
            SetSpec::ServiceNets(s) | SetSpec::ServicePorts(s) => {
                if let Some(sets) = self.of_service.get_mut(s) {
                    sets.retain(|x| *x != set);
                    if sets.is_empty() {
                        self.of_service.remove(s);
                    }
                }
            }
            SetSpec::Nodes(_) => self.of_nodes.retain(|(_, x)| *x != set),
            SetSpec::Domains(names) => {
                for name in &**names {
                    if let Some(sets) = self.of_domain.get_mut(name) {
                        sets.retain(|x| *x != set);
                        if sets.is_empty() {
                            self.of_domain.remove(name);
                        }
                    }
                }
                self.names_dirty = true;
            }
            SetSpec::Selector(_) | SetSpec::NamedPort { .. } => {}
        }
    }

    /// All names that sets ask for, when they changed since this was last asked.
    pub(super) fn take_domains(&mut self) -> Option<Arc<[Arc<str>]>> {
        if !std::mem::take(&mut self.names_dirty) {
            return None;
        }
        if self.of_domain.keys().eq(self.names.iter()) {
            return None;
        }
        self.names = self.of_domain.keys().cloned().collect();
        Some(self.names.clone())
    }

    fn put_slice(&mut self, key: SliceKey, new: Option<Slice>) -> Option<Slice> {
        let Some(new) = new else {
            let old = self.slices.remove(&key)?;
            self.unlist(&old.service, &key);
            return Some(old);
        };
        let of = self.by_service.entry(new.service.clone()).or_default();
        of.insert(key.clone());
        let service = new.service.clone();
        let old = self.slices.insert(key.clone(), new)?;
        if old.service != service {
            self.unlist(&old.service, &key);
        }
        Some(old)
    }

    fn unlist(&mut self, service: &ServiceRef, key: &SliceKey) {
        if let Some(keys) = self.by_service.get_mut(service) {
            keys.remove(key);
            if keys.is_empty() {
                self.by_service.remove(service);
            }
        }
    }
}

impl Members {
    /// Takes the new state of an EndpointSlice.
    pub(crate) fn update_slice(&mut self, key: SliceKey, slice: Option<EndpointSlice>) {
        let new = slice.map(Slice::from);
        if self.sources.slices.get(&key) == new.as_ref() {
            return;
        }
        let of = |s: &Sources, slice: Option<&Slice>| {
            slice.map_or_else(Vec::new, |x| {
                s.of_service.get(&x.service).cloned().unwrap_or_default()
            })
        };
        // What comes is added before what goes is taken away.
        if let Some(new) = &new {
            let sets = of(&self.sources, Some(new));
            self.contribute_group(&sets, &new.group, true);
        }
        let old = self.sources.put_slice(key, new);
        if let Some(old) = old {
            let sets = of(&self.sources, Some(&old));
            self.contribute_group(&sets, &old.group, false);
        }
    }

    /// Takes the new state of a node.
    pub(crate) fn update_node(&mut self, name: &Arc<str>, node: Option<&Node>) {
        let new = node.map(LabelledNode::from);
        if self.sources.nodes.get(name) == new.as_ref() {
            return;
        }
        let of = |s: &Sources, node: &LabelledNode| -> Vec<SetIndex> {
            let matching = s.of_nodes.iter().filter(|(s, _)| s.matches(&node.labels));
            matching.map(|(_, set)| *set).collect()
        };
        if let Some(new) = &new {
            let sets = of(&self.sources, new);
            self.contribute_group(&sets, &new.group, true);
        }
        let old = match new {
            Some(new) => self.sources.nodes.insert(name.clone(), new),
            None => self.sources.nodes.remove(name),
        };
        if let Some(old) = old {
            let sets = of(&self.sources, &old);
            self.contribute_group(&sets, &old.group, false);
        }
    }

    /// Takes what a domain name resolved to.
    pub(crate) fn update_domain(&mut self, name: Arc<str>, found: Option<&[IpAddr]>) {
        let new = found.map(|a| Group {
            addresses: addresses(a.iter().copied()),
            ports: Box::default(),
        });
        if self.sources.resolved.get(&name) == new.as_ref() {
            return;
        }
        // A set that lists a name and its pattern has the name's addresses once.
        let sets: BTreeSet<SetIndex> = patterns(&name)
            .filter_map(|p| self.sources.of_domain.get(&*p))
            .flatten()
            .copied()
            .collect();
        let sets: Vec<SetIndex> = sets.into_iter().collect();
        if let Some(new) = &new {
            self.contribute_group(&sets, new, true);
        }
        let old = match new {
            Some(new) => self.sources.resolved.insert(name, new),
            None => self.sources.resolved.remove(&name),
        };
        if let Some(old) = old {
            self.contribute_group(&sets, &old, false);
        }
    }

    fn contribute_group(&mut self, sets: &[SetIndex], group: &Group, add: bool) {
        for set in sets {
            if let Some(state) = self.sets.get_mut(set.0)
                && state.contribute_group(group, add)
            {
                self.dirty.insert(*set);
            }
        }
    }
}
