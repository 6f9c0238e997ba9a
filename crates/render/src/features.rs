//! Sets that depend on settings and on what few workloads ask for: translation, tunnels,
//! limits, floating addresses, DSCP.
//!
//! Promises: a set is there while it has members; its edits are differences.
//! Never: holds what a policy asks for.

use crate::changes::TableEdit;
use crate::name::{self, Direction, rates};
use desired::{Globals, ServiceLoop, WorkloadPolicy};
use model::WorkloadKey;
use net::{Cidr, Family, IfName};
use nftables::{Element, NetList, Per, Rate, SetKind, SetName};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// Sets with their members.
pub(crate) type Sets = BTreeMap<SetName, (SetKind, BTreeSet<Element>)>;

/// Whether a workload asks for any of it.
pub(crate) fn concerns(w: &WorkloadPolicy) -> bool {
    !w.nats.is_empty() || w.qos != model::Qos::default()
}

/// Who holds a floating address, and its address inside.
pub(crate) type Floating = BTreeMap<IpAddr, (IfName, IpAddr)>;

/// The floating addresses: of several workloads that claim one the first has it.
pub(crate) fn floating(
    g: &Globals,
    workloads: &[(&WorkloadKey, &Arc<WorkloadPolicy>)],
) -> Floating {
    let mut out = Floating::new();
    if !g.floating_ips {
        return out;
    }
    for (_, w) in workloads {
        for (inside, outside) in &w.nats {
            let family = Family::of(*outside);
            if family == Family::of(*inside) && (family == Family::V4 || g.ipv6) {
                out.entry(*outside).or_insert((w.interface, *inside));
            }
        }
    }
    out
}

fn nets(out: &mut Sets, name: fn(Family) -> SetName, of: &[Cidr]) {
    for f in Family::BOTH {
        let own = of.iter().filter(|c| c.family() == f);
        add(out, name(f), SetKind::Net(f), own.map(|c| Element::Net(*c)));
    }
}

fn add(out: &mut Sets, name: SetName, kind: SetKind, of: impl Iterator<Item = Element>) {
    let members: BTreeSet<Element> = of.collect();
    if !members.is_empty() {
        out.entry(name)
            .or_insert_with(|| (kind, BTreeSet::new()))
            .1
            .extend(members);
    }
}

/// All of these sets.
pub(crate) fn sets(
    g: &Globals,
    floating: &Floating,
    workloads: &[Arc<WorkloadPolicy>],
    host_dscp: bool,
) -> Sets {
    let mut out = Sets::new();
    nets(&mut out, name::nat_sources, &g.nat.sources);
    nets(&mut out, name::nat_exclude, &g.nat.exclude);
    nets(&mut out, name::ipip_hosts, &g.nodes);
    if g.service_loop != ServiceLoop::Disabled {
        nets(&mut out, name::services, &g.service_cidrs);
    }
    for w in workloads {
        limits(&mut out, w);
    }
    if dscp(&mut out, workloads) || host_dscp {
        nets(&mut out, name::dscp_exclude, &g.dscp_exclude);
    }
    translations(&mut out, floating);
    out
}

fn limits(out: &mut Sets, w: &WorkloadPolicy) {
    let q = &w.qos;
    for d in Direction::BOTH {
        let (packets, connections) = match d {
            Direction::Ingress => (q.ingress_packets, q.ingress_connections),
            Direction::Egress => (q.egress_packets, q.egress_connections),
        };
        let rate = packets.map(|(rate, burst)| Rate::new(rate, Per::Second, burst));
        let rate = rate.map(|r| Element::IfNameOverRate(w.interface, r));
        add(out, rates(d), SetKind::IfNameOverRate, rate.into_iter());
        let count = connections.map(|n| Element::IfNameOverCount(w.interface, n));
        add(
            out,
            name::connections(d),
            SetKind::IfNameOverCount,
            count.into_iter(),
        );
    }
}

/// Sources by DSCP. True if there are any.
fn dscp(out: &mut Sets, workloads: &[Arc<WorkloadPolicy>]) -> bool {
    let mut by: BTreeMap<(Family, u8), Vec<Cidr>> = BTreeMap::new();
    for w in workloads {
        for (value, net) in w
            .qos
            .dscp
            .into_iter()
            .flat_map(|v| w.nets.iter().map(move |n| (v, n)))
        {
            by.entry((net.family(), value)).or_default().push(*net);
        }
    }
    let any = !by.is_empty();
    for ((f, value), nets) in by {
        if let Ok(nets) = NetList::new(nets) {
            let members = nets.as_slice().iter().map(|c| Element::Net(*c));
            add(out, name::dscp(value, f), SetKind::Net(f), members);
        }
    }
    any
}

fn translations(out: &mut Sets, floating: &Floating) {
    let mut back: BTreeMap<IpAddr, IpAddr> = BTreeMap::new();
    for (outside, (_, inside)) in floating {
        let f = Family::of(*outside);
        let member = Element::AddrToAddr(*outside, *inside);
        let kind = SetKind::AddrToAddr(f);
        add(out, name::floating(f), kind, std::iter::once(member));
        // Of several outside addresses the first is the one to answer as.
        back.entry(*inside).or_insert(*outside);
    }
    for (inside, outside) in back {
        let f = Family::of(inside);
        let member = Element::AddrToAddr(inside, outside);
        let kind = SetKind::AddrToAddr(f);
        add(out, name::floating_back(f), kind, std::iter::once(member));
        let own = Element::NetPair(Cidr::host(inside), Cidr::host(inside));
        let kind = SetKind::NetPair(f);
        add(out, name::floating_self(f), kind, std::iter::once(own));
    }
}

/// The difference of two states of sets.
pub(crate) fn differ(old: &Sets, new: &Sets, out: &mut Vec<TableEdit>) {
    for name in old.keys().filter(|n| !new.contains_key(*n)) {
        out.push(TableEdit::RemoveSet(name.clone()));
    }
    for (name, (kind, members)) in new {
        match old.get(name) {
            None => {
                let members = members.iter().cloned().collect();
                out.push(TableEdit::Set(name.clone(), *kind, members));
            }
            Some((_, before)) if before != members => out.push(TableEdit::Elements {
                set: name.clone(),
                add: members.difference(before).cloned().collect(),
                remove: before.difference(members).cloned().collect(),
            }),
            Some(_) => {}
        }
    }
}
