//! What follows from a world, by the simplest means: no index, no memory, every thing
//! against every other.

use super::{ME, World};
use calc::NatExclusions;
use desired::*;
use model::{Encap, LabelSource, Labels, PolicyKey, ProfileId, Selector, TierAction, WorkloadKey};
use net::{Cidr, Family, IfName, Mac, Protocol};
use sha1::Digest as _;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

struct Both<'a>(&'a Labels, Vec<&'a Labels>);

impl LabelSource for Both<'_> {
    fn label(&self, key: &str) -> Option<&str> {
        let inherited = || self.1.iter().find_map(|l| l.label(key));
        self.0.label(key).or_else(inherited)
    }
}

impl World {
    fn selects(&self, s: &Selector, labels: &Labels, profiles: &[ProfileId]) -> bool {
        let parents = profiles.iter().filter_map(|p| self.profiles.get(p));
        s.matches(&Both(labels, parents.map(|p| &p.labels).collect()))
    }

    /// Members of a selector's set, outermost only.
    pub fn nets(&self, s: &Selector) -> BTreeSet<Member> {
        let mut all: Vec<Cidr> = Vec::new();
        for w in self.workloads.values() {
            if self.selects(s, &w.labels, &w.profiles) {
                all.extend(&w.nets);
            }
        }
        for h in self.hosts.values() {
            if self.selects(s, &h.labels, &h.profiles) {
                all.extend(h.expected_ips.iter().map(|a| Cidr::host(*a)));
            }
        }
        for n in self.network_sets.values() {
            if self.selects(s, &n.labels, &n.profiles) {
                all.extend(&n.nets);
            }
        }
        outermost(&all).into_iter().map(Member::Net).collect()
    }

    /// Members of a named port's set.
    pub fn ports(&self, s: &Selector, protocol: Option<Protocol>, name: &str) -> BTreeSet<Member> {
        let mut out = BTreeSet::new();
        let workloads = self.workloads.values();
        let workloads = workloads.map(|w| (&w.labels, &w.profiles, &w.ports, w.nets.clone()));
        let hosts = self.hosts.values().map(|h| {
            let nets = h.expected_ips.iter().map(|a| Cidr::host(*a)).collect();
            (&h.labels, &h.profiles, &h.ports, nets)
        });
        for (labels, profiles, ports, nets) in workloads.chain(hosts) {
            if !self.selects(s, labels, profiles) {
                continue;
            }
            for p in ports.iter().filter(|p| &*p.name == name) {
                if protocol.is_none_or(|x| x == p.protocol) {
                    out.extend(nets.iter().map(|n| Member::Port {
                        addr: n.addr(),
                        protocol: p.protocol,
                        port: p.port,
                    }));
                }
            }
        }
        out
    }

    fn active(&self) -> BTreeMap<&WorkloadKey, (&model::WorkloadEndpoint, IfName)> {
        let mut taken = BTreeSet::new();
        let local = self.workloads.iter().filter(|(k, _)| &*k.node == ME);
        local
            .filter(|(_, w)| !w.nets.is_empty())
            .filter_map(|(k, w)| w.interface.map(|i| (k, (w, i))))
            .filter(|(_, (_, i))| taken.insert(*i))
            .collect()
    }

    /// Policies that something local needs.
    fn needed_policies(&self) -> BTreeSet<&PolicyKey> {
        let needed = |p: &model::Policy| {
            let active = self.active();
            let hosts = self.hosts.values().filter(|h| &*h.node == ME);
            p.on_every_node
                || active
                    .values()
                    .any(|(w, _)| self.selects(&p.selector, &w.labels, &w.profiles))
                || hosts
                    .into_iter()
                    .filter(|h| applies_to(h).is_some())
                    .any(|h| self.selects(&p.selector, &h.labels, &h.profiles))
        };
        let enforced = self.policies.iter().filter(|(k, _)| !k.kind.is_staged());
        enforced
            .filter(|(_, p)| needed(p))
            .map(|(k, _)| k)
            .collect()
    }

    /// The tiers of what has these labels, of the policies that `wanted` says.
    fn tiers_of(&self, labels: &Labels, profiles: &[ProfileId], hook: Hook) -> Vec<TierPolicies> {
        let mut applying: Vec<(&PolicyKey, &model::Policy)> = self
            .policies
            .iter()
            .filter(|(k, p)| {
                !k.kind.is_staged() && hook.has(p) && self.selects(&p.selector, labels, profiles)
            })
            .collect();
        applying.sort_by(|(ka, a), (kb, b)| match (a.order, b.order) {
            (Some(x), Some(y)) if x != y => x.partial_cmp(&y).expect("numbers"),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            _ => ka.tie_break().cmp(&kb.tie_break()),
        });
        let mut names: Vec<&Arc<str>> = applying.iter().map(|(_, p)| &p.tier).collect();
        names.sort();
        names.dedup();
        let order = |n: &Arc<str>| match (self.tiers.get(n), &**n) {
            (Some(t), _) => t.order.unwrap_or(1_000_000.0),
            (None, "kube-admin") => 1000.0,
            (None, "default") => 1_000_000.0,
            (None, "kube-baseline") => 10_000_000.0,
            (None, _) => f64::INFINITY,
        };
        let action = |n: &Arc<str>| match (self.tiers.get(n), &**n) {
            (_, _) if matches!(hook, Hook::Untracked | Hook::PreDnat) => TierAction::Pass,
            (Some(t), _) => t.default_action,
            (None, "kube-admin" | "kube-baseline") => TierAction::Pass,
            (None, _) => TierAction::Deny,
        };
        names.sort_by(|a, b| order(a).partial_cmp(&order(b)).expect("numbers"));
        let tiers = names.into_iter().map(|name| {
            let of = |ingress: bool| {
                let here = applying.iter().filter(|(_, p)| p.tier == *name);
                here.filter(|(_, p)| {
                    if ingress {
                        p.applies_ingress
                    } else {
                        p.applies_egress
                    }
                })
                .map(|(k, _)| (*k).clone())
                .collect::<Vec<_>>()
            };
            TierPolicies {
                name: name.clone(),
                default_action: action(name),
                ingress: of(true),
                egress: if hook == Hook::PreDnat {
                    Vec::new()
                } else {
                    of(false)
                },
            }
        });
        tiers
            .filter(|t| !t.ingress.is_empty() || !t.egress.is_empty())
            .collect()
    }

    /// Holds a whole state against this world.
    pub fn check(&self, d: &Desired) {
        let active = self.active();
        let keys: Vec<_> = active.keys().copied().collect();
        assert_eq!(
            d.workloads.keys().collect::<Vec<_>>(),
            keys,
            "local workloads"
        );
        let mut profiles: BTreeSet<&ProfileId> = BTreeSet::new();
        for (k, (w, interface)) in &active {
            let got = &d.workloads[*k];
            assert_eq!(
                got.tiers,
                self.tiers_of(&w.labels, &w.profiles, Hook::Normal),
                "policies of {k}"
            );
            assert_eq!(
                (got.interface, &got.nets, &got.nats, got.mac),
                (*interface, &w.nets, &w.nats, w.mac)
            );
            assert_eq!(got.profiles, each_once(&w.profiles));
            profiles.extend(&w.profiles);
        }
        profiles.extend(self.check_hosts(d));
        assert_eq!(
            d.profiles.keys().collect::<BTreeSet<_>>(),
            profiles,
            "profiles"
        );
        let policies = self.needed_policies();
        assert_eq!(
            d.policies.keys().collect::<BTreeSet<_>>(),
            policies,
            "policies"
        );
        let mut sets = Sets::default();
        let nothing: &[model::Rule] = &[];
        for k in policies {
            let (p, got) = (&self.policies[k], &d.policies[k]);
            sets.rules(
                if p.applies_ingress {
                    &p.ingress
                } else {
                    nothing
                },
                &got.ingress,
            );
            sets.rules(
                if p.applies_egress { &p.egress } else { nothing },
                &got.egress,
            );
            assert_eq!(got.tier, p.tier);
        }
        for id in profiles {
            let got = &d.profiles[id];
            let allow = [model::Rule::any(model::Action::Allow)];
            let missing = if &**id == "projectcalico-default-allow" {
                &allow
            } else {
                nothing
            };
            let p = self.profiles.get(id);
            sets.rules(p.map_or(missing, |p| &p.ingress), &got.ingress);
            sets.rules(p.map_or(missing, |p| &p.egress), &got.egress);
        }
        self.check_sets(&sets, d);
        assert_eq!(d.routes, self.routes(), "routes");
        assert_eq!(d.vteps, self.vteps(), "tunnel ends");
        self.check_globals(d.globals.as_ref().expect("settings are always there"));
    }

    /// Holds the host endpoints against this world; gives the profiles that they need.
    fn check_hosts(&self, d: &Desired) -> BTreeSet<&ProfileId> {
        let mut want = BTreeMap::new();
        let mut profiles = BTreeSet::new();
        for (name, h) in self.hosts.iter().filter(|(_, h)| &*h.node == ME) {
            let Some(interface) = applies_to(h) else {
                continue;
            };
            let at = |hook| self.tiers_of(&h.labels, &h.profiles, hook);
            let untracked = if interface == HostMatch::Any {
                Vec::new()
            } else {
                at(Hook::Untracked)
            };
            profiles.extend(&h.profiles);
            let policy = HostPolicy {
                interface,
                tiers: at(Hook::Normal),
                forward: at(Hook::Forward),
                untracked,
                pre_dnat: at(Hook::PreDnat),
                profiles: each_once(&h.profiles),
                dscp: h.dscp,
            };
            want.insert(name.clone(), Arc::new(policy));
        }
        assert_eq!(d.hosts, want, "host endpoints");
        profiles
    }

    /// What stands behind a service: addresses, and these with ports.
    fn service(&self, s: &model::ServiceRef) -> (BTreeSet<Member>, BTreeSet<Member>) {
        let (mut nets, mut ports) = (Vec::new(), BTreeSet::new());
        for slice in self.slices.values().filter(|x| x.service == *s) {
            for addr in slice.endpoints.iter().flat_map(|e| &e.addresses) {
                nets.push(Cidr::host(*addr));
                for p in &slice.ports {
                    if let Some(port) = p.port {
                        ports.insert(Member::Port {
                            addr: *addr,
                            protocol: p.protocol,
                            port,
                        });
                    }
                }
            }
        }
        (outer_members(&nets), ports)
    }

    fn node_addresses(&self, s: &Selector) -> BTreeSet<Member> {
        let mut all = Vec::new();
        for n in self.nodes.values().filter(|n| s.matches(&n.labels)) {
            all.extend([n.ipv4, n.ipv6].into_iter().flatten().map(|a| a.addr));
            all.extend([n.vxlan_v4, n.vxlan_v6, n.ipip_v4].into_iter().flatten());
            all.extend(&n.addresses);
        }
        outer_members(&all.into_iter().map(Cidr::host).collect::<Vec<_>>())
    }

    fn domain_addresses(&self, names: &BTreeSet<Arc<str>>) -> BTreeSet<Member> {
        let asked = |name: &str| {
            names.iter().any(|n| match n.strip_prefix('*') {
                Some(suffix) => name.ends_with(suffix),
                None => **n == *name,
            })
        };
        let found = self.domains.iter().filter(|(name, _)| asked(name));
        let all: Vec<Cidr> = found
            .flat_map(|(_, a)| a.iter())
            .map(|a| Cidr::host(*a))
            .collect();
        outer_members(&all)
    }

    fn check_sets(&self, sets: &Sets, d: &Desired) {
        let mut want = BTreeMap::new();
        for (id, spec) in &sets.0 {
            let members = match spec {
                Spec::Nets(s) => self.nets(s),
                Spec::Ports(s, protocol, name) => self.ports(s, *protocol, name),
                Spec::Service(s, SetKind::Nets) => self.service(s).0,
                Spec::Service(s, SetKind::Ports) => self.service(s).1,
                Spec::Nodes(s) => self.node_addresses(s),
                Spec::Domains(names) => self.domain_addresses(names),
            };
            let kind = match spec {
                Spec::Service(_, kind) => *kind,
                Spec::Nets(_) | Spec::Nodes(_) | Spec::Domains(_) => SetKind::Nets,
                Spec::Ports(..) => SetKind::Ports,
            };
            want.insert(id.clone(), Members { kind, members });
        }
        assert_eq!(d.sets, want, "sets");
        let mut names: BTreeSet<Arc<str>> = BTreeSet::new();
        for spec in sets.0.values() {
            if let Spec::Domains(n) = spec {
                names.extend(n.iter().cloned());
            }
        }
        assert!(
            d.domains.iter().eq(names.iter()),
            "domains: {:?} for {names:?}",
            d.domains
        );
    }

    fn vxlan_on(&self, f: Family) -> bool {
        let mut pools = self.pools.values();
        let wanted = pools.any(|p| p.cidr.family() == f && p.vxlan != Encap::Never);
        match f {
            Family::V4 => self.config.vxlan.unwrap_or(wanted),
            Family::V6 => wanted && self.config.ipv6,
        }
    }

    fn host_of(&self, node: &str, f: Family) -> Option<model::NodeAddress> {
        let n = self.nodes.get(node)?;
        if f == Family::V4 { n.ipv4 } else { n.ipv6 }
    }

    fn tunnel_of(&self, node: &str, f: Family) -> Option<IpAddr> {
        let n = self.nodes.get(node)?;
        if f == Family::V4 {
            n.vxlan_v4
        } else {
            n.vxlan_v6
        }
    }

    fn mac_of(&self, node: &str, f: Family) -> Mac {
        let published = self.nodes.get(node).and_then(|n| {
            if f == Family::V4 {
                n.vxlan_mac_v4
            } else {
                n.vxlan_mac_v6
            }
        });
        published.unwrap_or_else(|| {
            let name = if f == Family::V4 {
                node.to_owned()
            } else {
                format!("{node}-v6")
            };
            let h = sha1::Sha1::digest(name.as_bytes());
            Mac([0x66, h[0], h[1], h[2], h[3], h[4]])
        })
    }

    fn pool_of(&self, c: Cidr) -> Option<&model::IpPool> {
        let covering = self.pools.iter().filter(|(_, p)| p.cidr.covers(c));
        covering
            .min_by_key(|(name, p)| (std::cmp::Reverse(p.cidr.len()), (*name).clone()))
            .map(|(_, p)| p)
    }

    fn remote(&self, c: Cidr, node: &str, encap: (Encap, Encap)) -> Option<RouteTarget> {
        let f = c.family();
        let via = self.host_of(node, f)?.addr;
        let near = self
            .host_of(ME, f)
            .is_some_and(|me| me.subnet.contains(via));
        let direct = RouteTarget::Direct { via };
        match encap {
            (Encap::CrossSubnet, _) if near => Some(direct),
            (Encap::Always | Encap::CrossSubnet, _) => {
                let able = self.vxlan_on(f)
                    && self.host_of(ME, f).is_some()
                    && self.tunnel_of(ME, f).is_some();
                let via = self.tunnel_of(node, f)?;
                able.then_some(RouteTarget::Vxlan { via })
            }
            (Encap::Never, Encap::Always) => None,
            (Encap::Never, _) => (near && self.config.program_direct_routes).then_some(direct),
        }
    }

    fn routes(&self) -> BTreeMap<Cidr, RouteTarget> {
        let mut out: BTreeMap<Cidr, RouteTarget> = BTreeMap::new();
        // The weakest first, so that the stronger one overwrites, with or without a route.
        let mut set = |c: Cidr, t: Option<RouteTarget>| match t {
            Some(t) => drop(out.insert(c, t)),
            None => drop(out.remove(&c)),
        };
        for (name, n) in self.nodes.iter().rev() {
            for c in &n.pod_cidrs {
                let remote = &**name != ME && self.pool_of(*c).is_none();
                let target = remote.then(|| self.remote(*c, name, (Encap::Never, Encap::Never)));
                set(*c, target.flatten());
            }
        }
        let through = |c: Cidr, node: &str| {
            let p = self.pool_of(c)?;
            self.remote(c, node, (p.vxlan, p.ipip))
        };
        for (c, b) in &self.blocks {
            match &b.node {
                Some(n) if &**n == ME => set(*c, (!c.is_host()).then_some(RouteTarget::Blackhole)),
                Some(n) => set(*c, through(*c, n)),
                None => {}
            }
        }
        let mut borrowed: Vec<(Cidr, Cidr, &str)> = Vec::new();
        for (c, b) in &self.blocks {
            borrowed.extend(
                b.borrowed
                    .iter()
                    .map(|x| (Cidr::host(x.addr), *c, &*x.node)),
            );
        }
        borrowed.sort();
        for (c, _, node) in borrowed.into_iter().rev() {
            set(c, if node == ME { None } else { through(c, node) });
        }
        for (_, (w, interface)) in self.active().into_iter().rev() {
            for c in &w.nets {
                set(*c, Some(RouteTarget::Workload(interface)));
            }
        }
        out
    }

    fn vteps(&self) -> BTreeMap<(Arc<str>, Family), Vtep> {
        let mut out = BTreeMap::new();
        for name in self.nodes.keys().filter(|n| &***n != ME) {
            for f in Family::BOTH.into_iter().filter(|f| self.vxlan_on(*f)) {
                if let (Some(tunnel), Some(host)) = (self.tunnel_of(name, f), self.host_of(name, f))
                {
                    let mac = self.mac_of(name, f);
                    out.insert(
                        (name.clone(), f),
                        Vtep {
                            tunnel,
                            mac,
                            host: host.addr,
                        },
                    );
                }
            }
        }
        out
    }

    fn check_globals(&self, g: &Globals) {
        for f in Family::BOTH {
            let want = self
                .host_of(ME, f)
                .filter(|_| self.vxlan_on(f))
                .map(|host| {
                    (
                        host.addr,
                        self.tunnel_of(ME, f),
                        self.mac_of(ME, f),
                        self.config.vxlan_vni,
                    )
                });
            assert_eq!(g.tunnel(f).map(|t| (t.host, t.address, t.mac, t.vni)), want);
        }
        let pools = self.pools.values();
        let sources: Vec<Cidr> = pools
            .clone()
            .filter(|p| p.nat_outgoing)
            .map(|p| p.cidr)
            .collect();
        assert_eq!(g.nat.sources, outermost(&sources));
        let inside: Vec<Cidr> = pools
            .filter(|p| p.uses.workload || p.uses.tunnel)
            .map(|p| p.cidr)
            .collect();
        let hosts = self.nodes.values().flat_map(|n| [n.ipv4, n.ipv6]).flatten();
        let mut nodes: Vec<Cidr> = hosts.map(|a| Cidr::host(a.addr)).collect();
        nodes.extend(&self.config.external_nodes);
        let mut exclude = inside.clone();
        if self.config.nat_exclusions == NatExclusions::PoolsAndHosts {
            exclude.extend(&nodes);
        }
        assert_eq!(g.nat.exclude, outermost(&exclude));
        assert_eq!(g.nodes, outermost(&nodes));
        let mut near = inside;
        if let Some(n) = self.nodes.get(ME) {
            let own = [n.ipv4, n.ipv6].into_iter().flatten().map(|a| a.addr);
            near.extend(own.chain(n.addresses.iter().copied()).map(Cidr::host));
        }
        assert_eq!(g.dscp_exclude, outermost(&near));
        let ranges = self.bgp.get("default").map_or_else(Vec::new, |b| {
            let lists = [
                &b.service_cluster,
                &b.service_external,
                &b.service_load_balancer,
            ];
            lists.into_iter().flatten().copied().collect()
        });
        assert_eq!(g.service_cidrs, outermost(&ranges));
        let c = &self.config;
        assert_eq!(
            (g.deny, g.log_rate, g.nflog, g.service_loop, g.floating_ips),
            (
                c.deny,
                c.log_rate,
                c.flow_logs,
                c.service_loop,
                c.floating_ips
            )
        );
        assert_eq!(
            (&g.failsafe_in, &g.failsafe_out),
            (&c.failsafe_in, &c.failsafe_out)
        );
        assert_eq!(g.nat.interface, c.nat_interface);
    }
}

/// Where policies are evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hook {
    Normal,
    Forward,
    Untracked,
    PreDnat,
}

impl Hook {
    fn has(self, p: &model::Policy) -> bool {
        match self {
            Self::Normal => !p.untracked && !p.pre_dnat,
            Self::Forward => p.apply_on_forward && !p.untracked && !p.pre_dnat,
            Self::Untracked => p.untracked,
            Self::PreDnat => p.pre_dnat && !p.untracked,
        }
    }
}

fn applies_to(h: &model::HostEndpoint) -> Option<HostMatch> {
    match &h.interface {
        Some(name) if &**name == "*" => Some(HostMatch::Any),
        Some(name) => Some(HostMatch::Interface(name.parse().ok()?)),
        None => {
            let all: BTreeSet<IpAddr> = h.expected_ips.iter().copied().collect();
            (!all.is_empty()).then(|| HostMatch::Addresses(all.into_iter().collect()))
        }
    }
}

fn each_once(profiles: &[ProfileId]) -> Vec<ProfileId> {
    let mut seen = BTreeSet::new();
    let firsts = profiles.iter().filter(|p| seen.insert(*p));
    firsts.cloned().collect()
}

fn outer_members(all: &[Cidr]) -> BTreeSet<Member> {
    outermost(all).into_iter().map(Member::Net).collect()
}

fn outermost(all: &[Cidr]) -> Vec<Cidr> {
    let covered = |c: &Cidr| all.iter().any(|o| o != c && o.covers(*c));
    let out: BTreeSet<Cidr> = all.iter().filter(|c| !covered(c)).copied().collect();
    out.into_iter().collect()
}

#[derive(Debug, Clone, PartialEq)]
enum Spec {
    Nets(Selector),
    Ports(Selector, Option<Protocol>, Arc<str>),
    Service(model::ServiceRef, SetKind),
    Nodes(Selector),
    Domains(BTreeSet<Arc<str>>),
}

/// Which set is of what, as the rules say.
#[derive(Default)]
struct Sets(BTreeMap<SetId, Spec>);

impl Sets {
    fn note(&mut self, id: &SetId, spec: Spec) {
        if let Some(old) = self.0.insert(id.clone(), spec.clone()) {
            assert_eq!(old, spec, "{id} is of two things");
        }
    }

    fn rules(&mut self, from: &[model::Rule], to: &[Rule]) {
        assert_eq!(from.len(), to.len());
        for (m, d) in from.iter().zip(to) {
            assert_eq!(
                (
                    m.action,
                    m.family,
                    m.protocol,
                    m.not_protocol,
                    m.icmp,
                    m.not_icmp,
                    &m.annotations
                ),
                (
                    d.action,
                    d.family,
                    d.protocol,
                    d.not_protocol,
                    d.icmp,
                    d.not_icmp,
                    &d.annotations
                )
            );
            self.entity(&m.source, &d.source, m.protocol, false);
            self.entity(&m.destination, &d.destination, m.protocol, true);
        }
    }

    fn entity(
        &mut self,
        m: &model::Entity,
        d: &Entity,
        protocol: Option<Protocol>,
        destination: bool,
    ) {
        assert_eq!(
            (&m.nets, &m.not_nets, &m.ports, &m.not_ports),
            (&d.nets, &d.not_nets, &d.ports, &d.not_ports)
        );
        let mut sets = Vec::new();
        if let Some(s) = m
            .selector
            .as_ref()
            .filter(|_| m.named_ports.is_empty() || !m.ports.is_empty())
        {
            sets.push(Spec::Nets(s.clone()));
        }
        let folded = m.selector.clone().unwrap_or_else(Selector::all);
        let named = |n: &Arc<str>| Spec::Ports(folded.clone(), protocol, n.clone());
        let mut ports: Vec<Spec> = m.named_ports.iter().map(named).collect();
        if let Some(service) = &m.service {
            let (list, kind) = if destination {
                (&mut ports, SetKind::Ports)
            } else {
                (&mut sets, SetKind::Nets)
            };
            list.push(Spec::Service(service.clone(), kind));
            let there = if destination { &d.port_sets } else { &d.sets };
            let prefix = if destination { "svc" } else { "svcnoport" };
            let want = format!("{prefix}:{}/{}", service.namespace, service.name);
            assert!(there.iter().any(|s| *s.0 == *want), "{want} in {there:?}");
        }
        sets.extend(m.nodes.iter().cloned().map(Spec::Nodes));
        if !m.domains.is_empty() {
            sets.push(Spec::Domains(m.domains.iter().cloned().collect()));
        }
        let not_sets: Vec<Spec> = m.not_selector.iter().cloned().map(Spec::Nets).collect();
        let not_ports: Vec<Spec> = m.not_named_ports.iter().map(named).collect();
        for (specs, ids) in [
            (sets, &d.sets),
            (ports, &d.port_sets),
            (not_sets, &d.not_sets),
            (not_ports, &d.not_port_sets),
        ] {
            assert_eq!(specs.len(), ids.len());
            for (spec, id) in specs.into_iter().zip(ids) {
                if let Spec::Nets(s) = &spec {
                    assert_eq!(*id.0, s.id());
                }
                self.note(id, spec);
            }
        }
    }
}
