//! Ends that no rule tells apart, as one: so that a thousand pods are a handful of questions.
//!
//! Promises: two pods are of one class only if they are of one namespace and every selector,
//! prefix, service and named port of both worlds sees them alike.

use model::selector::Expr;
use model::{
    LabelSource, Labels, NamedPort, Policy, ProfileId, Rule, Selector, WorkloadEndpoint,
    WorkloadKey,
};
use net::{Cidr, Family};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use verdict::{End, World};

/// Most classes of addresses outside.
const MOST_OUTSIDE: usize = 100;

/// Addresses that stand for the rest of the world.
const ELSEWHERE: [&str; 2] = ["192.0.2.77", "2001:db8:ffff::77"];

/// Some ends that are alike.
#[derive(Debug, Clone)]
pub(super) struct Class {
    /// For people; each has its own.
    pub name: String,
    /// Of pods.
    pub namespace: Option<String>,
    /// All of them, by name; of outside none.
    pub members: Vec<String>,
    /// Labels that all of them have, of those that selectors look at.
    common: BTreeSet<String>,
    /// Up to three that are asked for all: two of one node and one of another, if there are.
    pub samples: Vec<Sample>,
    pub own: Labels,
    pub profiles: Vec<ProfileId>,
    pub ports: Vec<NamedPort>,
}

/// One end with its addresses.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    pub end: End,
    pub addresses: Vec<IpAddr>,
}

impl Sample {
    /// The node that it is, or is on.
    pub(super) fn node(&self) -> Option<&Arc<str>> {
        match &self.end {
            End::Workload(k) => Some(&k.node),
            End::Node(n) => Some(n),
            End::Outside => None,
        }
    }
}

impl Class {
    /// Takes it in if it adds something.
    fn sample(&mut self, new: Sample) {
        let near = |s: &&Sample| s.node() == new.node();
        let like = self.samples.iter().filter(near).count();
        let others = self.samples.len() - like;
        if (like == 0 && others < 3) || (like == 1 && others < 2) {
            self.samples.push(new);
        }
    }

    pub(super) fn is_outside(&self) -> bool {
        self.samples.iter().all(|s| s.end == End::Outside)
    }

    pub(super) fn is_node(&self) -> bool {
        self.samples.iter().any(|s| matches!(s.end, End::Node(_)))
    }
}

/// What rules of two worlds look at.
#[derive(Default)]
struct Seen {
    /// By their text, each once.
    selectors: BTreeMap<String, Selector>,
    /// What these look at, for names.
    labels: BTreeSet<String>,
    nets: Vec<Cidr>,
    /// Names of ports.
    ports: BTreeSet<Arc<str>>,
}

/// All classes: pods, nodes, outside.
pub(super) fn of(before: &World, after: &World) -> Vec<Class> {
    let mut seen = Seen::default();
    for w in [before, after] {
        seen.look(w);
    }
    seen.nets.sort_unstable();
    seen.nets.dedup();
    let mut out = seen.pods(before, after);
    out.extend(seen.nodes(before, after));
    out.extend(seen.outside(before, after));
    let mut names: BTreeMap<String, usize> = BTreeMap::new();
    for c in &out {
        *names.entry(c.name.clone()).or_default() += 1;
    }
    for c in out.iter_mut().filter(|c| names[&c.name] > 1) {
        if let Some(first) = c.members.first() {
            c.name = format!("{}, such as {first}", c.name);
        }
    }
    out
}

impl Seen {
    fn look(&mut self, world: &World) {
        for (_, p) in world.policies() {
            self.selector(&p.selector);
            p.ingress.iter().chain(&p.egress).for_each(|r| self.rule(r));
        }
        for (_, p) in world.profiles() {
            p.ingress.iter().chain(&p.egress).for_each(|r| self.rule(r));
        }
        for (_, s) in world.network_sets() {
            self.nets.extend(&s.nets);
        }
    }

    fn rule(&mut self, rule: &Rule) {
        for e in [&rule.source, &rule.destination] {
            self.nets.extend(e.nets.iter().chain(&e.not_nets));
            self.ports
                .extend(e.named_ports.iter().chain(&e.not_named_ports).cloned());
            for s in [&e.selector, &e.not_selector, &e.nodes]
                .into_iter()
                .flatten()
            {
                self.selector(s);
            }
        }
    }

    fn selector(&mut self, s: &Selector) {
        labels_of(s.expr(), &mut self.labels);
        self.selectors
            .entry(s.as_str().to_owned())
            .or_insert_with(|| s.clone());
    }

    /// Which prefixes an address lies in.
    fn within(&self, at: IpAddr) -> Vec<usize> {
        let nets = self.nets.iter().enumerate();
        nets.filter(|(_, n)| n.contains(at))
            .map(|(i, _)| i)
            .collect()
    }

    /// Which selectors match.
    fn matched(&self, labels: &impl LabelSource) -> String {
        let all = self.selectors.values();
        all.map(|s| if s.matches(labels) { '1' } else { '0' })
            .collect()
    }

    /// How host endpoints look to selectors, by node.
    fn hosts(&self, world: &World) -> BTreeMap<Arc<str>, String> {
        let mut out: BTreeMap<Arc<str>, String> = BTreeMap::new();
        for (_, h) in world.hosts() {
            let matched = self.matched(&world.labels(&h.labels, &h.profiles));
            let look = format!("{:?} {matched} {:?};", h.interface, h.profiles);
            out.entry(h.node.clone()).or_default().push_str(&look);
        }
        out
    }

    fn pods(&self, before: &World, after: &World) -> Vec<Class> {
        let keys: BTreeSet<_> = [before, after]
            .into_iter()
            .flat_map(World::workloads)
            .map(|(k, _)| k)
            .collect();
        let worlds = [before, after].map(|w| Lookup::new(w, self.hosts(w)));
        let mut found: BTreeMap<String, Class> = BTreeMap::new();
        for key in keys {
            let looks = worlds.each_ref().map(|l| {
                let w = *l.workloads.get(key)?;
                let addresses: Vec<IpAddr> = w.nets.iter().map(|n| n.addr()).collect();
                let within: Vec<_> = addresses.iter().map(|a| self.within(*a)).collect();
                let labels = l.world.labels(&w.labels, &w.profiles);
                let families: Vec<Family> = addresses.iter().map(|a| Family::of(*a)).collect();
                let ports = w.ports.iter().filter(|p| self.ports.contains(&p.name));
                let ports: Vec<&NamedPort> = ports.collect();
                let look = (
                    (self.matched(&labels), &w.profiles, ports),
                    (
                        within,
                        families,
                        l.behind(&addresses),
                        l.hosts.get(&key.node),
                    ),
                );
                Some((format!("{look:?}"), w, addresses))
            });
            let Some((_, w, addresses)) = looks.iter().flatten().last() else {
                continue;
            };
            let namespace = key.workload.split_once('/').map_or("", |(ns, _)| ns);
            let look: Vec<_> = looks
                .iter()
                .map(|l| l.as_ref().map(|(text, ..)| text))
                .collect();
            let class = found
                .entry(format!("{namespace} {look:?}"))
                .or_insert_with(|| Class {
                    name: namespace.to_owned(),
                    namespace: Some(namespace.to_owned()),
                    members: Vec::new(),
                    common: BTreeSet::new(),
                    samples: Vec::new(),
                    own: w.labels.clone(),
                    profiles: w.profiles.clone(),
                    ports: w.ports.clone(),
                });
            class.members.push(key.workload.to_string());
            class.common = match class.members.len() {
                1 => self.shown(&w.labels),
                _ => &class.common & &self.shown(&w.labels),
            };
            let end = End::Workload(key.clone());
            class.sample(Sample {
                end,
                addresses: addresses.clone(),
            });
        }
        let mut out: Vec<Class> = found.into_values().collect();
        for c in &mut out {
            match c.members.as_slice() {
                [one] => c.name.clone_from(one),
                all => {
                    let labels: Vec<&str> = c.common.iter().map(String::as_str).collect();
                    let labels = if labels.is_empty() {
                        String::new()
                    } else {
                        format!(" {}", labels.join(","))
                    };
                    c.name = format!("{}/*{labels} ({} pods)", c.name, all.len());
                }
            }
        }
        out.sort_by(|a, b| (&a.name, &a.members).cmp(&(&b.name, &b.members)));
        out
    }

    /// Those of its labels that selectors look at.
    fn shown(&self, own: &Labels) -> BTreeSet<String> {
        let shown = own
            .iter()
            .filter(|(k, _)| self.labels.contains(*k) && !k.starts_with("projectcalico.org/"));
        shown.map(|(k, v)| format!("{k}={v}")).collect()
    }

    fn nodes(&self, before: &World, after: &World) -> Vec<Class> {
        let mut found: BTreeMap<String, Class> = BTreeMap::new();
        let hosts = [before, after].map(|w| self.hosts(w));
        for (name, node) in after.nodes() {
            let end = End::Node(name.clone());
            let own = |f: Family| after.address(&end, f);
            let addresses: Vec<IpAddr> = Family::BOTH.into_iter().filter_map(own).collect();
            if addresses.is_empty() {
                continue;
            }
            let within: Vec<_> = addresses.iter().map(|a| self.within(*a)).collect();
            let hosts = hosts.each_ref().map(|h| h.get(name));
            let look = format!("{:?}", (self.matched(&node.labels), within, hosts));
            let class = found.entry(look).or_insert_with(|| Class {
                name: format!("node/{name}"),
                namespace: None,
                members: Vec::new(),
                common: BTreeSet::new(),
                samples: Vec::new(),
                own: Labels::default(),
                profiles: Vec::new(),
                ports: Vec::new(),
            });
            class.members.push(name.to_string());
            class.sample(Sample { end, addresses });
        }
        let mut out: Vec<Class> = found.into_values().collect();
        for c in out.iter_mut().filter(|c| c.members.len() > 1) {
            c.name = format!("{} nodes ({}, ...)", c.members.len(), c.members[0]);
        }
        out
    }

    /// An address of each stretch that prefixes do not divide and that nobody in the cluster has.
    fn outside(&self, before: &World, after: &World) -> Vec<Class> {
        let ours = |a: IpAddr| {
            [before, after]
                .into_iter()
                .any(|w| w.holder(a) != End::Outside || w.pools().any(|(_, p)| p.cidr.contains(a)))
        };
        let rest = ELSEWHERE.iter().filter_map(|a| a.parse().ok());
        let edges = self.nets.iter().flat_map(|n| {
            let next = Family::bits_of(n.last()).checked_add(1);
            let past = next.filter(|b| n.family() == Family::V6 || *b <= u128::from(u32::MAX));
            [Some(n.addr()), past.map(|b| n.family().addr(b))]
                .into_iter()
                .flatten()
        });
        let has = |f: Family| {
            after.pools().any(|(_, p)| p.cidr.family() == f)
                || after
                    .workloads()
                    .any(|(_, w)| w.nets.iter().any(|n| n.family() == f))
        };
        let mut found: BTreeMap<(Family, Vec<usize>), IpAddr> = BTreeMap::new();
        for edge in rest.chain(edges).filter(|a| has(Family::of(*a))) {
            let family = Family::of(edge);
            // Not the network's own address, if there is another.
            let start = Family::bits_of(edge);
            let near = (0..64u128).map(|n| family.addr(start.saturating_add((n + 1) % 64)));
            let within = self.within(edge);
            if found.contains_key(&(family, within.clone())) || found.len() >= MOST_OUTSIDE {
                continue;
            }
            let mut free = near.filter(|a| self.within(*a) == within && !ours(*a));
            if let Some(a) = free.next() {
                found.insert((family, within), a);
            }
        }
        found
            .into_iter()
            .map(|((_, within), a)| self.outside_class(&within, a))
            .collect()
    }

    fn outside_class(&self, within: &[usize], at: IpAddr) -> Class {
        let nets = within.iter().map(|i| self.nets[*i]);
        let name = match nets.filter(|n| n.len() > 0).max_by_key(|n| n.len()) {
            Some(net) => format!("outside {net}"),
            None => format!("outside ({} elsewhere)", Family::of(at)),
        };
        Class {
            name,
            namespace: None,
            members: Vec::new(),
            common: BTreeSet::new(),
            samples: vec![Sample {
                end: End::Outside,
                addresses: vec![at],
            }],
            own: Labels::default(),
            profiles: Vec::new(),
            ports: Vec::new(),
        }
    }
}

/// A world by key and by address.
struct Lookup<'w> {
    world: &'w World,
    workloads: BTreeMap<&'w WorkloadKey, &'w WorkloadEndpoint>,
    /// The services behind which an address is.
    services: BTreeMap<IpAddr, BTreeSet<String>>,
    /// How host endpoints look, by node.
    hosts: BTreeMap<Arc<str>, String>,
}

impl<'w> Lookup<'w> {
    fn new(world: &'w World, hosts: BTreeMap<Arc<str>, String>) -> Self {
        let mut services: BTreeMap<IpAddr, BTreeSet<String>> = BTreeMap::new();
        for (_, s) in world.slices() {
            let name = format!("{}/{} {:?}", s.service.namespace, s.service.name, s.ports);
            for a in s.endpoints.iter().flat_map(|e| &e.addresses) {
                services.entry(*a).or_default().insert(name.clone());
            }
        }
        Self {
            world,
            workloads: world.workloads().collect(),
            services,
            hosts,
        }
    }

    fn behind(&self, addresses: &[IpAddr]) -> BTreeSet<&String> {
        addresses
            .iter()
            .filter_map(|a| self.services.get(a))
            .flatten()
            .collect()
    }
}

fn labels_of(expr: &Expr, out: &mut BTreeSet<String>) {
    match expr {
        Expr::Eq(l, _)
        | Expr::Ne(l, _)
        | Expr::In(l, _)
        | Expr::NotIn(l, _)
        | Expr::Contains(l, _)
        | Expr::StartsWith(l, _)
        | Expr::EndsWith(l, _)
        | Expr::Has(l) => _ = out.insert(l.to_string()),
        Expr::Not(e) => labels_of(e, out),
        Expr::And(all) | Expr::Or(all) => all.iter().for_each(|e| labels_of(e, out)),
        Expr::All | Expr::Global => {}
    }
}

/// Whether a policy is about what is of the class.
pub(super) fn selects(world: &World, policy: &Policy, class: &Class) -> bool {
    let pod = class
        .samples
        .iter()
        .any(|s| matches!(s.end, End::Workload(_)));
    pod && policy
        .selector
        .matches(&world.labels(&class.own, &class.profiles))
}

/// Whether a policy is about any host endpoint.
pub(super) fn selects_hosts(world: &World, policy: &Policy) -> bool {
    let mut all = world.hosts();
    all.any(|(_, h)| {
        policy
            .selector
            .matches(&world.labels(&h.labels, &h.profiles))
    })
}
