//! The renderer: keeps of the desired state what later steps need.
//!
//! Promises: the edits of all steps add up to what one step to the same state would give.
//! Never: keeps the members of sets.

use crate::changes::{Changes, Interface, NodeSysctl, Route, RouteVia, TableEdit};
use crate::name::{self, Direction, fixed, fixed_set};
use crate::policy::{self, Owner, Shape, Shapes};
use crate::stacks::Stacks;
use crate::{ROUTE_PROTOCOL, base, endpoint};
use desired::{
    Delta, Globals, Member, PolicyRules, ProfileRules, RouteTarget, SetChange, SetId, SetKind,
    Spoofing, Tunnel, Vtep, WorkloadPolicy,
};
use model::{PolicyKey, ProfileId, WorkloadKey};
use net::{Cidr, CoverSet, Family, IfName};
use nftables::{Chain, ChainName, Element, SetName, Verdict};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// A policy or profile as it stands.
#[derive(Debug)]
struct Rules<R> {
    rules: Option<Arc<R>>,
    shapes: Shapes,
    /// Workloads that jump there.
    users: BTreeSet<WorkloadKey>,
}

impl<R> Default for Rules<R> {
    fn default() -> Self {
        Self {
            rules: None,
            shapes: Shapes::default(),
            users: BTreeSet::new(),
        }
    }
}

impl<R> Rules<R> {
    fn idle(&self) -> bool {
        self.rules.is_none() && self.users.is_empty()
    }
}

/// What an interface has in the table now.
#[derive(Debug, Default)]
struct Live {
    /// The stack that it goes through, by direction.
    stacks: [Option<ChainName>; 2],
    sources: bool,
}

/// What a step touched, before it is rendered.
#[derive(Debug, Default)]
struct Touched {
    policies: BTreeSet<PolicyKey>,
    profiles: BTreeSet<ProfileId>,
    interfaces: BTreeSet<IfName>,
    routes: BTreeSet<Cidr>,
}

/// Turns steps of the desired state into steps of the kernel's.
#[derive(Debug, Default)]
pub struct Renderer {
    globals: Arc<Globals>,
    started: bool,
    base: BTreeMap<ChainName, Chain>,
    policies: BTreeMap<PolicyKey, Rules<PolicyRules>>,
    profiles: BTreeMap<ProfileId, Rules<ProfileRules>>,
    workloads: BTreeMap<WorkloadKey, Arc<WorkloadPolicy>>,
    /// Who claims an interface; the first one has it.
    claims: BTreeMap<IfName, BTreeSet<WorkloadKey>>,
    live: BTreeMap<IfName, Live>,
    stacks: Stacks,
    routes: BTreeMap<Cidr, RouteTarget>,
    vteps: BTreeMap<(Arc<str>, Family), Vtep>,
    vxlan_hosts: [CoverSet; 2],
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
        for d in Direction::BOTH {
            for t in &w.tiers {
                let policies = match d {
                    Direction::Ingress => &t.ingress,
                    Direction::Egress => &t.egress,
                };
                out.extend(policies.iter().map(|p| name::policy(p, d)));
            }
            out.extend(w.profiles.iter().map(|p| name::profile(p, d)));
        }
        out
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
            self.policies.entry(key.clone()).or_default().rules = rules.clone();
            touched.policies.insert(key.clone());
        }
        for (id, rules) in &delta.profiles {
            self.profiles.entry(id.clone()).or_default().rules = rules.clone();
            touched.profiles.insert(id.clone());
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
        self.set_vteps(&delta.vteps, &mut out);
        self.render(&touched, &mut out);
        out
    }

    fn set_globals(&mut self, new: Option<Arc<Globals>>, t: &mut Touched, out: &mut Changes) {
        let first = !std::mem::replace(&mut self.started, true);
        let new = new.unwrap_or_else(|| self.globals.clone());
        let old = std::mem::replace(&mut self.globals, new.clone());
        if first {
            for map in [Direction::Ingress.map(), Direction::Egress.map()] {
                let kind = nftables::SetKind::IfNameVerdict;
                out.table
                    .push(TableEdit::Set(fixed_set(map), kind, Vec::new()));
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
        if first || old.log_prefix != new.log_prefix {
            t.policies.extend(self.policies.keys().cloned());
            t.profiles.extend(self.profiles.keys().cloned());
        }
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
        nat_sets(&new, if first { None } else { Some(&old) }, &mut out.table);
        self.set_base(&new, &mut out.table);
    }

    fn set_base(&mut self, g: &Globals, out: &mut Vec<TableEdit>) {
        let new = base::chains(g);
        for name in base::NAMES.map(fixed) {
            match (self.base.get(&name), new.get(&name)) {
                (old, Some(chain)) if old != Some(chain) => {
                    out.push(TableEdit::Chain(name, chain.clone()));
                }
                (Some(_), None) => out.push(TableEdit::RemoveChain(name)),
                _ => {}
            }
        }
        self.base = new;
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
        if let Some(old) = old {
            let kept = |c: &Cidr| new.as_ref().is_some_and(|n| n.nets.contains(c));
            flush.extend(old.nets.iter().filter(|c| !kept(c)).map(|c| c.addr()));
            self.unlink(key, &old, t);
            t.interfaces.insert(old.interface);
        }
        let Some(w) = new else { return };
        self.claims
            .entry(w.interface)
            .or_default()
            .insert(key.clone());
        t.interfaces.insert(w.interface);
        for p in w
            .tiers
            .iter()
            .flat_map(|t| t.ingress.iter().chain(&t.egress))
        {
            self.policies
                .entry(p.clone())
                .or_default()
                .users
                .insert(key.clone());
        }
        for p in &w.profiles {
            self.profiles
                .entry(p.clone())
                .or_default()
                .users
                .insert(key.clone());
        }
    }

    fn unlink(&mut self, key: &WorkloadKey, old: &WorkloadPolicy, t: &mut Touched) {
        if let Some(claims) = self.claims.get_mut(&old.interface) {
            claims.remove(key);
            if claims.is_empty() {
                self.claims.remove(&old.interface);
            }
        }
        for p in old
            .tiers
            .iter()
            .flat_map(|t| t.ingress.iter().chain(&t.egress))
        {
            if let Some(r) = self.policies.get_mut(p) {
                r.users.remove(key);
                if r.idle() {
                    t.policies.insert(p.clone());
                }
            }
        }
        for p in &old.profiles {
            if let Some(r) = self.profiles.get_mut(p) {
                r.users.remove(key);
                if r.idle() {
                    t.profiles.insert(p.clone());
                }
            }
        }
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
        let mut users: BTreeSet<WorkloadKey> = BTreeSet::new();
        for key in &t.policies {
            let Some(r) = self.policies.get_mut(key) else {
                continue;
            };
            let owner = |rules: &PolicyRules| {
                Owner::Policy(key, &rules.tier).chain_pair(rules, &self.globals)
            };
            let before = r.shapes;
            let chains = r.rules.as_deref().map(owner);
            r.shapes = edit_rules(chains, before, |d| name::policy(key, d), &mut out.table);
            if r.shapes != before {
                users.extend(r.users.iter().cloned());
            }
            if r.idle() {
                self.policies.remove(key);
            }
        }
        for id in &t.profiles {
            let Some(r) = self.profiles.get_mut(id) else {
                continue;
            };
            let owner =
                |rules: &ProfileRules| Owner::Profile(id).profile_pair(rules, &self.globals);
            let before = r.shapes;
            let chains = r.rules.as_deref().map(owner);
            r.shapes = edit_rules(chains, before, |d| name::profile(id, d), &mut out.table);
            if r.shapes != before {
                users.extend(r.users.iter().cloned());
            }
            if r.idle() {
                self.profiles.remove(id);
            }
        }
        interfaces.extend(
            users
                .iter()
                .filter_map(|u| self.workloads.get(u))
                .map(|w| w.interface),
        );
        for interface in interfaces {
            self.render_interface(interface, t.interfaces.contains(&interface), out);
        }
        for dst in &t.routes {
            out.routes.insert(*dst, self.route(*dst));
        }
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
        for (slot, d) in live.stacks.iter_mut().zip(Direction::BOTH) {
            let policies = &self.policies;
            let profiles = &self.profiles;
            let policy = |k: &PolicyKey| policies.get(k).map_or(Shape::Empty, |r| r.shapes.get(d));
            let profile = |k: &str| profiles.get(k).map_or(Shape::Empty, |r| r.shapes.get(d));
            let id = endpoint::stack_id(&w, d, policy, profile);
            let first = name::stack(&id, d, 0);
            if slot.as_ref() == Some(&first) {
                continue;
            }
            let make = || endpoint::chains(&id, &w, d, policy, profile);
            self.stacks.enter(&first, make, &mut out.table);
            let old = slot.replace(first.clone());
            out.table.push(TableEdit::Elements {
                set: fixed_set(d.map()),
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
        self.live.insert(interface, live);
        if whole {
            out.interfaces
                .insert(interface, Some(self.interface(key, &w)));
        }
    }

    fn close(&mut self, interface: IfName, live: Live, out: &mut Changes) {
        for (first, d) in live.stacks.into_iter().zip(Direction::BOTH) {
            let Some(first) = first else { continue };
            out.table.push(TableEdit::Elements {
                set: fixed_set(d.map()),
                add: Vec::new(),
                remove: vec![entry(interface, &first)],
            });
            self.stacks.leave(&first, &mut out.table);
        }
        if live.sources {
            close_sources(interface, &mut out.table);
        }
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
        let target = self.routes.get(&dst)?;
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
                via: RouteVia::Interface(*interface),
                protocol: g.workload_route_protocol,
                metric: g.workload_route_metric[slot(family)],
            }),
            RouteTarget::Blackhole => ours(RouteVia::Blackhole),
            RouteTarget::Direct { via } => ours(RouteVia::Gateway(*via)),
            RouteTarget::Vxlan { via } => {
                // Without an address of its own the device sends nothing.
                let t = g.tunnel(family).filter(|t| t.address.is_some())?;
                ours(RouteVia::Onlink {
                    via: *via,
                    device: t.device,
                })
            }
        }
    }
}

type Pair = [(Option<Chain>, Shape); 2];

impl Owner<'_> {
    fn chain_pair(&self, r: &PolicyRules, g: &Globals) -> Pair {
        [
            policy::chain(self, &r.ingress, Direction::Ingress, &g.log_prefix),
            policy::chain(self, &r.egress, Direction::Egress, &g.log_prefix),
        ]
    }

    fn profile_pair(&self, r: &ProfileRules, g: &Globals) -> Pair {
        [
            policy::chain(self, &r.ingress, Direction::Ingress, &g.log_prefix),
            policy::chain(self, &r.egress, Direction::Egress, &g.log_prefix),
        ]
    }
}

/// Writes the chains of a policy or profile and says what shapes they have now.
fn edit_rules(
    chains: Option<Pair>,
    before: Shapes,
    name: impl Fn(Direction) -> ChainName,
    out: &mut Vec<TableEdit>,
) -> Shapes {
    let mut shapes = Shapes::default();
    let none = || [(None, Shape::Empty), (None, Shape::Empty)];
    for (d, (chain, shape)) in Direction::BOTH.into_iter().zip(chains.unwrap_or_else(none)) {
        shapes.set(d, shape);
        match chain {
            Some(chain) => out.push(TableEdit::Chain(name(d), chain)),
            None if before.get(d) != Shape::Empty => out.push(TableEdit::RemoveChain(name(d))),
            None => {}
        }
    }
    shapes
}

fn entry(interface: IfName, first: &ChainName) -> Element {
    Element::IfNameVerdict(interface, Verdict::Goto(first.clone()))
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

/// Sets of sources and exclusions, present while they have members.
fn nat_sets(new: &Globals, old: Option<&Globals>, out: &mut Vec<TableEdit>) {
    type Named = fn(Family) -> SetName;
    type Nets = fn(&Globals) -> &Vec<Cidr>;
    let both: [(Named, Nets); 2] = [
        (name::nat_sources, |g| &g.nat.sources),
        (name::nat_exclude, |g| &g.nat.exclude),
    ];
    for (set, nets) in both {
        for f in Family::BOTH {
            let of = |g: &Globals| -> Vec<Element> {
                let own = nets(g).iter().filter(|c| c.family() == f);
                own.map(|c| Element::Net(*c)).collect()
            };
            let (was, is) = (old.map(of).unwrap_or_default(), of(new));
            if was == is {
                continue;
            }
            out.push(if is.is_empty() {
                TableEdit::RemoveSet(set(f))
            } else {
                TableEdit::Set(set(f), nftables::SetKind::Net(f), is)
            });
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
