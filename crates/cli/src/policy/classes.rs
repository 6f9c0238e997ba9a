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
use verdict::{End, World};

/// Most classes of addresses outside.
const MOST_OUTSIDE: usize = 100;

/// Addresses that stand for the rest of the world.
const ELSEWHERE: [&str; 2] = ["192.0.2.77", "2001:db8:ffff::77"];

/// Some ends that are alike.
#[derive(Debug, Clone)]
pub(super) struct Class {
    /// For people.
    pub name: String,
    /// All of them, by name; of outside none.
    pub members: Vec<String>,
    /// One or two that are asked for all: two, so that a class can talk to itself.
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

impl Class {
    pub(super) fn is_outside(&self) -> bool {
        self.samples.iter().all(|s| s.end == End::Outside)
    }

    pub(super) fn is_node(&self) -> bool {
        self.samples.iter().any(|s| matches!(s.end, End::Node(_)))
    }
}

/// What rules of two worlds look at.
struct Seen {
    labels: BTreeSet<String>,
    nets: Vec<Cidr>,
}

/// All classes: pods, nodes, outside.
pub(super) fn of(before: &World, after: &World) -> Vec<Class> {
    let mut seen = Seen {
        labels: BTreeSet::new(),
        nets: Vec::new(),
    };
    for w in [before, after] {
        seen.look(w);
    }
    seen.nets.sort_unstable();
    seen.nets.dedup();
    let mut out = seen.pods(before, after);
    out.extend(seen.nodes(before, after));
    out.extend(seen.outside(before, after));
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
    }

    /// Which prefixes an address lies in.
    fn within(&self, at: IpAddr) -> Vec<usize> {
        let nets = self.nets.iter().enumerate();
        nets.filter(|(_, n)| n.contains(at))
            .map(|(i, _)| i)
            .collect()
    }

    fn values(&self, labels: &impl LabelSource) -> Vec<Option<String>> {
        self.labels
            .iter()
            .map(|l| labels.label(l).map(str::to_owned))
            .collect()
    }

    /// How host endpoints of a node look to selectors.
    fn hosts(&self, world: &World, node: &str) -> Vec<(Option<String>, Vec<Option<String>>)> {
        let own = world.hosts().filter(|(_, h)| *h.node == *node);
        let seen = own.map(|(_, h)| {
            let labels = world.labels(&h.labels, &h.profiles);
            (
                h.interface.as_deref().map(str::to_owned),
                self.values(&labels),
            )
        });
        seen.collect()
    }

    fn pods(&self, before: &World, after: &World) -> Vec<Class> {
        let keys: BTreeSet<_> = [before, after]
            .into_iter()
            .flat_map(World::workloads)
            .map(|(k, _)| k)
            .collect();
        let worlds = [before, after].map(Lookup::new);
        let mut found: BTreeMap<String, Class> = BTreeMap::new();
        for key in keys {
            let looks = worlds.each_ref().map(|l| {
                let w = *l.workloads.get(key)?;
                let addresses: Vec<IpAddr> = w.nets.iter().map(|n| n.addr()).collect();
                let within: Vec<_> = addresses.iter().map(|a| self.within(*a)).collect();
                let labels = l.world.labels(&w.labels, &w.profiles);
                let families: Vec<Family> = addresses.iter().map(|a| Family::of(*a)).collect();
                let look = (
                    (self.values(&labels), &w.profiles, &w.ports),
                    (
                        within,
                        families,
                        l.behind(&addresses),
                        self.hosts(l.world, &key.node),
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
                    name: self.pod_name(namespace, &w.labels),
                    members: Vec::new(),
                    samples: Vec::new(),
                    own: w.labels.clone(),
                    profiles: w.profiles.clone(),
                    ports: w.ports.clone(),
                });
            class.members.push(key.workload.to_string());
            if class.samples.len() < 2 {
                let end = End::Workload(key.clone());
                class.samples.push(Sample {
                    end,
                    addresses: addresses.clone(),
                });
            }
        }
        let mut out: Vec<Class> = found.into_values().collect();
        for c in &mut out {
            match c.members.as_slice() {
                [one] => c.name.clone_from(one),
                all => c.name = format!("{} ({} pods)", c.name, all.len()),
            }
        }
        out.sort_by(|a, b| (&a.name, &a.members).cmp(&(&b.name, &b.members)));
        out
    }

    /// The namespace, and those of its labels that rules look at.
    fn pod_name(&self, namespace: &str, own: &Labels) -> String {
        let shown = own
            .iter()
            .filter(|(k, _)| self.labels.contains(*k) && !k.starts_with("projectcalico.org/"));
        let shown: Vec<String> = shown.map(|(k, v)| format!("{k}={v}")).collect();
        match shown.is_empty() {
            true => format!("{namespace}/*"),
            false => format!("{namespace}/* {}", shown.join(",")),
        }
    }

    fn nodes(&self, before: &World, after: &World) -> Vec<Class> {
        let mut found: BTreeMap<String, Class> = BTreeMap::new();
        for (name, node) in after.nodes() {
            let end = End::Node(name.clone());
            let own = |f: Family| after.address(&end, f);
            let addresses: Vec<IpAddr> = Family::BOTH.into_iter().filter_map(own).collect();
            if addresses.is_empty() {
                continue;
            }
            let within: Vec<_> = addresses.iter().map(|a| self.within(*a)).collect();
            let hosts = [before, after].map(|w| self.hosts(w, name));
            let look = format!("{:?}", (self.values(&node.labels), within, hosts));
            let class = found.entry(look).or_insert_with(|| Class {
                name: format!("node/{name}"),
                members: Vec::new(),
                samples: Vec::new(),
                own: Labels::default(),
                profiles: Vec::new(),
                ports: Vec::new(),
            });
            class.members.push(name.to_string());
            if class.samples.len() < 2 {
                class.samples.push(Sample { end, addresses });
            }
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
            members: Vec::new(),
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
}

impl<'w> Lookup<'w> {
    fn new(world: &'w World) -> Self {
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
