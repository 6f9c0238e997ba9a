//! The renderer: keeps of the desired state what later steps need.
//!
//! Promises: the edits of all steps add up to what one step to the same state would give.
//! Never: keeps the members of sets.

use crate::changes::{Changes, Interface, NodeSysctl, Route, RouteVia, TableEdit};
use crate::endpoint::{self, Stack};
use crate::features::{self, Floating, Sets};
use crate::hosts::{self, Hosts, Interfaces};
use crate::library::{Library, Needs, User};
use crate::name::{self, fixed_set};
use crate::role::{Flavour, Role};
use crate::stacks::Stacks;
use crate::{ROUTE_PROTOCOL, arp, base};
use desired::{
    Delta, Globals, HostPolicy, Member, RouteTarget, SetChange, SetId, SetKind, Spoofing, Tunnel,
    Vtep, WorkloadPolicy,
};
use model::{PolicyKey, WorkloadKey};
use net::{Cidr, CoverSet, Family, IfName};
use nftables::{Chain, ChainName, Element, Verdict};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// What an interface has in the table now.
#[derive(Debug, Default)]
struct Live {
    /// The stack that it goes through, by direction.
    stacks: [Option<ChainName>; 2],
    sources: bool,
    /// Addresses for which the host does not answer there.
    own: BTreeSet<Element>,
}

/// What a step touched, before it is rendered.
#[derive(Debug, Default)]
struct Touched {
    interfaces: BTreeSet<IfName>,
    routes: BTreeSet<Cidr>,
    /// Host endpoints, or what they stand on.
    hosts: bool,
    /// Sets of settings and of what few workloads ask for.
    features: bool,
}

/// Turns steps of the desired state into steps of the kernel's.
#[derive(Debug, Default)]
pub struct Renderer {
    globals: Arc<Globals>,
    started: bool,
    base: BTreeMap<ChainName, Chain>,
    library: Library,
    workloads: BTreeMap<WorkloadKey, Arc<WorkloadPolicy>>,
    /// Who claims an interface; the first one has it.
    claims: BTreeMap<IfName, BTreeSet<WorkloadKey>>,
    live: BTreeMap<IfName, Live>,
    stacks: Stacks,
    hosts: Hosts,
    sets: Sets,
    /// Workloads that ask for more than policy.
    special: BTreeSet<WorkloadKey>,
    floating: Floating,
    routes: BTreeMap<Cidr, RouteTarget>,
    vteps: BTreeMap<(Arc<str>, Family), Vtep>,
    vxlan_hosts: [CoverSet; 2],
    /// Rules ask for addresses of domain names.
    answers: bool,
}

const fn slot(f: Family) -> usize {
    match f {
        Family::V4 => 0,
        Family::V6 => 1,
    }
}

impl Renderer {
    /// One that has rendered nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The settings in force.
    pub fn globals(&self) -> &Globals {
        &self.globals
    }

    /// The tunnel device of a family, while it is to exist.
    pub fn tunnel(&self, family: Family) -> Option<&Tunnel> {
        self.globals.tunnel(family)
    }

    /// The far ends of the tunnel of a family.
    pub fn vteps(&self, family: Family) -> impl Iterator<Item = &Vtep> {
        self.vteps
            .iter()
            .filter(move |((_, f), _)| *f == family)
            .map(|(_, v)| v)
    }

    /// Whose interface it is; of several that claim it the first.
    pub fn owner(&self, interface: IfName) -> Option<&WorkloadKey> {
        self.claims.get(&interface).and_then(BTreeSet::first)
    }

    /// A workload as it was last rendered.
    pub fn workload(&self, key: &WorkloadKey) -> Option<&Arc<WorkloadPolicy>> {
        self.workloads.get(key)
    }

    /// All chains that judge a workload's traffic: its own, and those it jumps to.
    pub fn chains(&self, key: &WorkloadKey) -> Vec<ChainName> {
        let Some(w) = self.workloads.get(key) else {
            return Vec::new();
        };
        let mut out: Vec<ChainName> = Vec::new();
        if let Some(live) = self.live.get(&w.interface) {
            let stacks = live.stacks.iter().flatten();
            out.extend(stacks.flat_map(|first| self.stacks.chains(first)).cloned());
        }
        for role in Role::WORKLOAD {
            let (d, flavour) = (role.direction(), Flavour::Plain);
            let policies = w.tiers.iter().flat_map(|t| role.policies(t));
            out.extend(policies.map(|p| name::policy(p, flavour, d)));
            out.extend(w.profiles.iter().map(|p| name::profile(p, flavour, d)));
        }
        out
    }

    /// Takes note of what addresses the node's interfaces have now: host endpoints may ask for
    /// them. Interfaces are there or not; up or down does not matter.
    pub fn interfaces(&mut self, now: Interfaces) -> Changes {
        let mut out = Changes::default();
        if self.hosts.set_interfaces(now) && self.started {
            let touched = Touched {
                hosts: true,
                ..Touched::default()
            };
            self.render(&touched, &mut out);
        }
        out
    }

    /// The interfaces that host endpoints have, but for those that only `*` takes.
    pub fn host_interfaces(&self) -> BTreeMap<IfName, Arc<str>> {
        self.hosts.bound()
    }

    /// Goes one step on.
    pub fn apply(&mut self, delta: &Delta) -> Changes {
        let mut out = Changes::default();
        let mut touched = Touched::default();
        if !self.started || delta.globals.is_some() {
            self.set_globals(delta.globals.clone(), &mut touched, &mut out);
        }
        for (id, change) in &delta.sets {
            set(id, change, &mut out.table);
        }
        for (key, rules) in &delta.policies {
            self.library.set_policy(key, rules.clone());
        }
        for (id, rules) in &delta.profiles {
            self.library.set_profile(id, rules.clone());
        }
        for (name, host) in &delta.hosts {
            self.set_host(name, host.clone());
            touched.hosts = true;
        }
        for (key, workload) in &delta.workloads {
            self.set_workload(key, workload.clone(), &mut touched, &mut out.flush);
        }
        for (dst, target) in &delta.routes {
            match target {
                Some(t) => drop(self.routes.insert(*dst, t.clone())),
                None => drop(self.routes.remove(dst)),
            }
            touched.routes.insert(*dst);
        }
        if let Some(names) = &delta.domains {
            let asked = !names.is_empty();
            touched.features |= std::mem::replace(&mut self.answers, asked) != asked;
        }
        self.set_vteps(&delta.vteps, &mut out);
        self.render(&touched, &mut out);
        out
    }

    fn set_globals(&mut self, new: Option<Arc<Globals>>, t: &mut Touched, out: &mut Changes) {
        let first = !std::mem::replace(&mut self.started, true);
        let new = new.unwrap_or_else(|| self.globals.clone());
        let old = std::mem::replace(&mut self.globals, new.clone());
        if first {
            out.arp.extend(arp::begin());
            for role in Role::WORKLOAD {
                let (map, kind) = (fixed_set(role.map()), nftables::SetKind::IfNameVerdict);
                out.table.push(TableEdit::Set(map, kind, Vec::new()));
            }
            for f in Family::BOTH {
                let kind = nftables::SetKind::Net(f);
                out.table
                    .push(TableEdit::Set(name::vxlan_hosts(f), kind, Vec::new()));
            }
        }
        if first || old.ipv6 != new.ipv6 {
            out.node = Some(NodeSysctl { ipv6: new.ipv6 });
        }
        let told = |g: &Globals| (g.log_prefix.clone(), g.log_rate, g.nflog, g.deny);
        if told(&old) != told(&new) {
            self.library.touch();
            t.interfaces.extend(self.claims.keys().copied());
        }
        if old.deny != new.deny {
            // Another flavour is asked for where nobody can be answered.
            for (name, h) in self.hosts.iter() {
                let user = User::Host(name.clone());
                let before = hosts::needs(h, &old);
                self.library.replace(&user, &before, hosts::needs(h, &new));
            }
        }
        t.hosts = true;
        t.features = true;
        if old.spoofing != new.spoofing || old.ipv6 != new.ipv6 {
            t.interfaces.extend(self.claims.keys().copied());
        }
        if old.spoofing != new.spoofing {
            let map = fixed_set(base::SOURCES);
            out.table.push(match new.spoofing {
                Spoofing::Any => TableEdit::Set(map, nftables::SetKind::IfNameVerdict, Vec::new()),
                Spoofing::Disabled => TableEdit::RemoveSet(map),
            });
            if new.spoofing == Spoofing::Disabled {
                for (interface, live) in &mut self.live {
                    if std::mem::take(&mut live.sources) {
                        out.table
                            .push(TableEdit::RemoveChain(name::sources(*interface)));
                    }
                }
            }
        }
        if old.ipv6 != new.ipv6
            || old.workload_route_metric != new.workload_route_metric
            || old.workload_route_protocol != new.workload_route_protocol
            || old.tunnels != new.tunnels
        {
            t.routes.extend(self.routes.keys().copied());
            t.routes
                .extend(self.floating.keys().map(|a| Cidr::host(*a)));
        }
        for f in Family::BOTH {
            if old.tunnel(f) != new.tunnel(f) || (first && new.tunnel(f).is_none()) {
                out.tunnels.insert(f);
            }
        }
        let mut hosts = HostEdits::default();
        let gone: Vec<Cidr> = if first {
            Vec::new()
        } else {
            old.external_vxlan.clone()
        };
        hosts.change(&mut self.vxlan_hosts, &new.external_vxlan, &gone);
        hosts.finish(&mut out.table);
    }

    /// Brings the base chains to what settings and uses ask for.
    fn set_base(&mut self, out: &mut Vec<TableEdit>) {
        let new = base::chains(&self.globals, self.hosts.uses(), &self.sets, self.answers);
        for name in self.base.keys().filter(|n| !new.contains_key(*n)) {
            out.push(TableEdit::RemoveChain(name.clone()));
        }
        for (name, chain) in &new {
            if self.base.get(name) != Some(chain) {
                out.push(TableEdit::Chain(name.clone(), chain.clone()));
            }
        }
        self.base = new;
    }

    fn set_host(&mut self, name: &Arc<str>, new: Option<Arc<HostPolicy>>) {
        let g = self.globals.clone();
        let after = new.as_deref().map(|h| hosts::needs(h, &g));
        let old = self.hosts.set(name, new);
        let before = old.as_deref().map(|h| hosts::needs(h, &g));
        self.library.replace(
            &User::Host(name.clone()),
            &before.unwrap_or_default(),
            after.unwrap_or_default(),
        );
    }

    fn set_workload(
        &mut self,
        key: &WorkloadKey,
        new: Option<Arc<WorkloadPolicy>>,
        t: &mut Touched,
        flush: &mut BTreeSet<IpAddr>,
    ) {
        let old = match &new {
            Some(w) => self.workloads.insert(key.clone(), w.clone()),
            None => self.workloads.remove(key),
        };
        let special = new.as_deref().is_some_and(features::concerns);
        let was_special = match special {
            true => !self.special.insert(key.clone()),
            false => self.special.remove(key),
        };
        t.features |= special || was_special;
        let user = User::Workload(key.clone());
        let before = old.as_deref().map(needs).unwrap_or_default();
        let after = new.as_deref().map(needs).unwrap_or_default();
        self.library.replace(&user, &before, after);
        if let Some(old) = old {
            let kept = |c: &Cidr| new.as_ref().is_some_and(|n| n.nets.contains(c));
            flush.extend(old.nets.iter().filter(|c| !kept(c)).map(|c| c.addr()));
            if let Some(claims) = self.claims.get_mut(&old.interface) {
                claims.remove(key);
                // Another may have its interface from now on.
                t.features |= !claims.is_empty() && !self.special.is_empty();
                if claims.is_empty() {
                    self.claims.remove(&old.interface);
                }
            }
            t.interfaces.insert(old.interface);
        }
        let Some(w) = new else { return };
        let claims = self.claims.entry(w.interface).or_default();
        // Another may lose its interface.
        t.features |= !claims.is_empty() && !self.special.is_empty();
        claims.insert(key.clone());
        t.interfaces.insert(w.interface);
    }

    fn set_vteps(
        &mut self,
        changes: &BTreeMap<(Arc<str>, Family), Option<Vtep>>,
        out: &mut Changes,
    ) {
        let mut hosts = HostEdits::default();
        for (key, vtep) in changes {
            let old = match vtep {
                Some(v) => self.vteps.insert(key.clone(), v.clone()),
                None => self.vteps.remove(key),
            };
            if old.as_ref() == vtep.as_ref() {
                continue;
            }
            out.tunnels.insert(key.1);
            let host = |v: &Vtep| Cidr::host(v.host);
            let add: Vec<Cidr> = vtep.iter().map(host).collect();
            let remove: Vec<Cidr> = old.iter().map(host).collect();
            hosts.change(&mut self.vxlan_hosts, &add, &remove);
        }
        hosts.finish(&mut out.table);
    }

    fn render(&mut self, t: &Touched, out: &mut Changes) {
        let mut interfaces = t.interfaces.clone();
        let mut hosts = t.hosts;
        let globals = self.globals.clone();
        for user in self.library.render(&globals, &mut out.table) {
            match user {
                User::Workload(key) => {
                    interfaces.extend(self.workloads.get(&key).map(|w| w.interface));
                }
                User::Host(_) => hosts = true,
            }
        }
        for interface in interfaces {
            self.render_interface(interface, t.interfaces.contains(&interface), out);
        }
        if hosts {
            let (library, stacks) = (&self.library, &mut self.stacks);
            self.hosts.render(&globals, library, stacks, &mut out.table);
        }
        let mut routes = t.routes.clone();
        if t.features || hosts {
            routes.extend(self.set_features(&globals, out));
            self.set_base(&mut out.table);
        }
        for dst in &routes {
            out.routes.insert(*dst, self.route(*dst));
        }
    }

    /// Brings the sets of features to what they are to be; gives the destinations whose
    /// routes may be others now.
    fn set_features(&mut self, g: &Globals, out: &mut Changes) -> BTreeSet<Cidr> {
        let mine = |key: &WorkloadKey, w: &WorkloadPolicy| {
            self.claims.get(&w.interface).and_then(BTreeSet::first) == Some(key)
        };
        let special: Vec<(&WorkloadKey, &Arc<WorkloadPolicy>)> = self
            .special
            .iter()
            .filter_map(|k| self.workloads.get_key_value(k))
            .filter(|(k, w)| mine(k, w))
            .collect();
        let floating = features::floating(g, &special);
        let workloads: Vec<Arc<WorkloadPolicy>> =
            special.into_iter().map(|(_, w)| w.clone()).collect();
        let host_dscp = !self.hosts.uses().dscp.is_empty();
        let sets = features::sets(g, &floating, &workloads, host_dscp);
        features::differ(&self.sets, &sets, &mut out.table);
        self.sets = sets;
        let old = std::mem::replace(&mut self.floating, floating);
        // What is open with the old holder of an outside address is not for the new one.
        let left = old.iter().filter(|(a, f)| self.floating.get(a) != Some(f));
        out.flush.extend(left.map(|(a, _)| *a));
        let all = old.keys().chain(self.floating.keys());
        all.filter(|a| old.get(a).map(|f| f.0) != self.floating.get(a).map(|f| f.0))
            .map(|a| Cidr::host(*a))
            .collect()
    }

    fn render_interface(&mut self, interface: IfName, whole: bool, out: &mut Changes) {
        let found = self
            .owner(interface)
            .and_then(|k| self.workloads.get(k).map(|w| (k.clone(), w.clone())));
        let Some((key, w)) = found else {
            if let Some(live) = self.live.remove(&interface) {
                self.close(interface, live, out);
            }
            return;
        };
        let mut live = self.live.remove(&interface).unwrap_or_default();
        for (slot, role) in live.stacks.iter_mut().zip(Role::WORKLOAD) {
            let (library, d) = (&self.library, role.direction());
            let stack = Stack {
                role,
                globals: &self.globals,
                tiers: &w.tiers,
                profiles: &w.profiles,
                policy: |k: &PolicyKey| library.policy(k, d),
                profile: |k: &str| library.profile(k, d),
            };
            let first = stack.first();
            if slot.as_ref() == Some(&first) {
                continue;
            }
            self.stacks.enter(&first, || stack.chains(), &mut out.table);
            let old = slot.replace(first.clone());
            out.table.push(TableEdit::Elements {
                set: fixed_set(role.map()),
                add: vec![entry(interface, &first)],
                remove: old.iter().map(|old| entry(interface, old)).collect(),
            });
            if let Some(old) = old {
                self.stacks.leave(&old, &mut out.table);
            }
        }
        if self.globals.spoofing == Spoofing::Any {
            live.sources = edit_sources(interface, &w, live.sources, &mut out.table);
        }
        let own = arp::members(&w);
        out.arp.extend(arp::exchange(&live.own, &own));
        live.own = own;
        self.live.insert(interface, live);
        if whole {
            out.interfaces
                .insert(interface, Some(self.interface(key, &w)));
        }
    }

    fn close(&mut self, interface: IfName, live: Live, out: &mut Changes) {
        for (first, role) in live.stacks.iter().zip(Role::WORKLOAD) {
            let Some(first) = first else { continue };
            out.table.push(TableEdit::Elements {
                set: fixed_set(role.map()),
                add: Vec::new(),
                remove: vec![entry(interface, first)],
            });
            self.stacks.leave(first, &mut out.table);
        }
        if live.sources {
            close_sources(interface, &mut out.table);
        }
        out.arp.extend(arp::exchange(&live.own, &BTreeSet::new()));
        out.interfaces.insert(interface, None);
    }

    fn interface(&self, owner: WorkloadKey, w: &WorkloadPolicy) -> Interface {
        let v4 = |c: &&Cidr| c.family() == Family::V4;
        let mac = w.mac.into_iter();
        Interface {
            owner,
            ipv6: self.globals.ipv6,
            spoofing: self.globals.spoofing == Spoofing::Any && !w.allowed_sources.is_empty(),
            neighbours: mac
                .flat_map(|m| w.nets.iter().filter(v4).map(move |c| (c.addr(), m)))
                .collect(),
        }
    }

    /// The route to a destination, when there is to be one now.
    fn route(&self, dst: Cidr) -> Option<Route> {
        let outside = || {
            let (interface, _) = self.floating.get(&dst.addr()).filter(|_| dst.is_host())?;
            Some(RouteTarget::Workload(*interface))
        };
        let target = self.routes.get(&dst).cloned().or_else(outside)?;
        let family = dst.family();
        let g = &*self.globals;
        if family == Family::V6 && !g.ipv6 {
            return None;
        }
        let ours = |via| {
            Some(Route {
                via,
                protocol: ROUTE_PROTOCOL,
                metric: 0,
            })
        };
        match target {
            RouteTarget::Workload(interface) => Some(Route {
                via: RouteVia::Interface(interface),
                protocol: g.workload_route_protocol,
                metric: g.workload_route_metric[slot(family)],
            }),
            RouteTarget::Blackhole => ours(RouteVia::Blackhole),
            RouteTarget::Direct { via } => ours(RouteVia::Gateway(via)),
            RouteTarget::Vxlan { via } => {
                // Without an address of its own the device sends nothing.
                let t = g.tunnel(family).filter(|t| t.address.is_some())?;
                ours(RouteVia::Onlink {
                    via,
                    device: t.device,
                })
            }
        }
    }
}

/// What a workload needs of the library.
fn needs(w: &WorkloadPolicy) -> Needs {
    let plain = || BTreeSet::from([Flavour::Plain]);
    let policies = w
        .tiers
        .iter()
        .flat_map(|t| t.ingress.iter().chain(&t.egress));
    Needs {
        policies: policies.map(|p| (p.clone(), plain())).collect(),
        profiles: w.profiles.iter().map(|p| (p.clone(), plain())).collect(),
    }
}

/// A jump although a stack decides all: a packet on its way while the table changes may meet
/// the new entry and find the new stack without rules. It comes back, to where what is
/// unknown is denied; from a goto it would come out at the end of the base chain.
fn entry(interface: IfName, first: &ChainName) -> Element {
    Element::IfNameVerdict(interface, Verdict::Jump(first.clone()))
}

fn source_entry(interface: IfName) -> Element {
    Element::IfNameVerdict(interface, Verdict::Jump(name::sources(interface)))
}

fn edit_sources(
    interface: IfName,
    w: &WorkloadPolicy,
    before: bool,
    out: &mut Vec<TableEdit>,
) -> bool {
    let Some(chain) = endpoint::sources(w) else {
        if before {
            close_sources(interface, out);
        }
        return false;
    };
    out.push(TableEdit::Chain(name::sources(interface), chain));
    if !before {
        out.push(TableEdit::Elements {
            set: fixed_set(base::SOURCES),
            add: vec![source_entry(interface)],
            remove: Vec::new(),
        });
    }
    true
}

fn close_sources(interface: IfName, out: &mut Vec<TableEdit>) {
    out.push(TableEdit::Elements {
        set: fixed_set(base::SOURCES),
        add: Vec::new(),
        remove: vec![source_entry(interface)],
    });
    out.push(TableEdit::RemoveChain(name::sources(interface)));
}

/// Net changes of the sets of VXLAN hosts.
#[derive(Default)]
struct HostEdits([BTreeMap<Cidr, i32>; 2]);

impl HostEdits {
    fn change(&mut self, sets: &mut [CoverSet; 2], add: &[Cidr], remove: &[Cidr]) {
        for (nets, gain) in [(add, true), (remove, false)] {
            for c in nets {
                let slot = slot(c.family());
                let net = &mut self.0[slot];
                let mut note =
                    |c, gained: bool| *net.entry(c).or_default() += if gained { 1 } else { -1 };
                if gain {
                    sets[slot].add(*c, &mut note);
                } else {
                    sets[slot].remove(*c, &mut note);
                }
            }
        }
    }

    fn finish(self, out: &mut Vec<TableEdit>) {
        for (family, net) in Family::BOTH.into_iter().zip(self.0) {
            let of = |sign: i32| -> Vec<Element> {
                net.iter()
                    .filter(|(_, n)| **n == sign)
                    .map(|(c, _)| Element::Net(*c))
                    .collect()
            };
            let (add, remove) = (of(1), of(-1));
            if !(add.is_empty() && remove.is_empty()) {
                out.push(TableEdit::Elements {
                    set: name::vxlan_hosts(family),
                    add,
                    remove,
                });
            }
        }
    }
}

fn set(id: &SetId, change: &SetChange, out: &mut Vec<TableEdit>) {
    for f in Family::BOTH {
        let set = name::set(id, f);
        let own = |members: &[Member]| -> Vec<Element> {
            members
                .iter()
                .filter(|m| m.family() == f)
                .map(element)
                .collect()
        };
        match change {
            SetChange::Create { kind, members } => {
                let kind = match kind {
                    SetKind::Nets => nftables::SetKind::Net(f),
                    SetKind::Ports => nftables::SetKind::AddrProtoPort(f),
                };
                out.push(TableEdit::Set(set, kind, own(members)));
            }
            SetChange::Update { added, removed } => {
                let (add, remove) = (own(added), own(removed));
                if !(add.is_empty() && remove.is_empty()) {
                    out.push(TableEdit::Elements { set, add, remove });
                }
            }
            SetChange::Remove => out.push(TableEdit::RemoveSet(set)),
        }
    }
}

fn element(m: &Member) -> Element {
    match *m {
        Member::Net(c) => Element::Net(c),
        Member::Port {
            addr,
            protocol,
            port,
        } => Element::AddrProtoPort(addr, protocol, port),
    }
}
