//! The desired state of each node, as calculated, and what it means for a packet.
//!
//! Written from the contract's words alone: it shares nothing with the renderer.

use calc::{Calc, Settings};
use desired::{Desired, Entity, Member, Rule, SetId, TierPolicies};
use model::{Action, ProfileId, TierAction, WorkloadKey};
use net::{Cidr, Family, Protocol};
use scenario::Cluster;
use std::collections::BTreeMap;
use std::net::IpAddr;
use verdict::{End, Flow, Path};

/// All nodes.
pub(crate) struct State {
    nodes: BTreeMap<String, Desired>,
}

/// What a rule looks at.
struct Packet {
    source: IpAddr,
    destination: IpAddr,
    protocol: Protocol,
    port: u16,
    icmp: Option<(u8, u8)>,
}

#[derive(Clone, Copy, PartialEq)]
enum Way {
    Ingress,
    Egress,
}

impl State {
    /// Calculates each node of a cluster.
    ///
    /// # Errors
    /// What breaks the contract.
    pub(crate) fn of(cluster: &Cluster) -> Result<Self, String> {
        let mut nodes = BTreeMap::new();
        let updates = cluster.updates();
        for node in &cluster.plan().nodes {
            let mut calc = Calc::new(Settings {
                node: node.name.as_str().into(),
            });
            updates.iter().cloned().for_each(|u| calc.update(u));
            let mut desired = Desired::default();
            desired.apply(&calc.flush())?;
            let faults = desired.faults();
            if !faults.is_empty() {
                return Err(format!("{}: {}", node.name, faults.join("; ")));
            }
            nodes.insert(node.name.clone(), desired);
        }
        Ok(Self { nodes })
    }

    /// Whether a flow gets to where a path leads. Translation is taken from the path: calculation
    /// has no part in it.
    pub(crate) fn lets_through(&self, flow: &Flow, path: &Path) -> bool {
        let v6 = flow.family() == Family::V6;
        let is_icmp = matches!(flow.protocol, Protocol::ICMP | Protocol::ICMPV6);
        let echo = if v6 { (128, 0) } else { (8, 0) };
        let packet = Packet {
            source: flow.source,
            destination: path.destination.0,
            protocol: flow.protocol,
            port: path.destination.1,
            icmp: is_icmp.then(|| flow.icmp.unwrap_or(echo)),
        };
        if path
            .stages
            .iter()
            .any(|s| matches!(s.decision, verdict::Decision::NoBackend))
        {
            return false;
        }
        if let End::Workload(key) = &flow.from {
            if !self.workload(key, Way::Egress, &packet) {
                return false;
            }
            // The default of what workloads may do to their own node.
            if path.to == End::Node(key.node.clone()) {
                return false;
            }
        }
        match (&path.to, &flow.from) {
            (End::Workload(to), End::Node(from)) if to.node == *from => true,
            (End::Workload(to), _) => self.workload(to, Way::Ingress, &packet),
            _ => true,
        }
    }

    fn workload(&self, key: &WorkloadKey, way: Way, packet: &Packet) -> bool {
        let Some(node) = self.nodes.get(&*key.node) else {
            return false;
        };
        let Some(w) = node.workloads.get(key) else {
            return false;
        };
        match tiers(node, &w.tiers, way, packet) {
            Some(allowed) => allowed,
            None => profiles(node, &w.profiles, way, packet),
        }
    }
}

fn tiers(node: &Desired, tiers: &[TierPolicies], way: Way, p: &Packet) -> Option<bool> {
    'tiers: for tier in tiers {
        let policies = if way == Way::Ingress {
            &tier.ingress
        } else {
            &tier.egress
        };
        if policies.is_empty() {
            continue;
        }
        for key in policies {
            let policy = node.policies.get(key).expect("a state has no faults");
            let rules = if way == Way::Ingress {
                &policy.ingress
            } else {
                &policy.egress
            };
            match first(node, rules, p) {
                Some(Action::Allow) => return Some(true),
                Some(Action::Deny) => return Some(false),
                Some(Action::Pass) => continue 'tiers,
                _ => {}
            }
        }
        if tier.default_action == TierAction::Deny {
            return Some(false);
        }
    }
    None
}

fn profiles(node: &Desired, ids: &[ProfileId], way: Way, p: &Packet) -> bool {
    for id in ids {
        let profile = node.profiles.get(id).expect("a state has no faults");
        let rules = if way == Way::Ingress {
            &profile.ingress
        } else {
            &profile.egress
        };
        match first(node, rules, p) {
            Some(Action::Allow) => return true,
            Some(Action::Deny) => return false,
            _ => {}
        }
    }
    false
}

/// The first rule that matches and is not only a note.
fn first(node: &Desired, rules: &[Rule], p: &Packet) -> Option<Action> {
    let matching = rules.iter().filter(|r| matches(node, r, p));
    matching
        .map_while(|r| Some(r.action))
        .find(|a| *a != Action::Log)
}

fn matches(node: &Desired, r: &Rule, p: &Packet) -> bool {
    let family = Family::of(p.source);
    let is_message = |want: &model::Icmp| {
        p.icmp.is_some_and(|(t, c)| {
            want.icmp_type.is_none_or(|w| w == t) && want.code.is_none_or(|w| w == c)
        })
    };
    r.family.is_none_or(|f| f == family)
        && r.protocol.is_none_or(|w| w == p.protocol)
        && r.not_protocol.is_none_or(|w| w != p.protocol)
        && r.icmp.as_ref().is_none_or(is_message)
        && !r.not_icmp.as_ref().is_some_and(is_message)
        // The source port is one that a kernel picks.
        && entity(node, &r.source, family, p.source, None, p.protocol)
        && entity(node, &r.destination, family, p.destination, Some(p.port), p.protocol)
}

/// A list with entries of the other family alone leaves no rule for this one.
fn absent(nets: &[Cidr], family: Family) -> bool {
    !nets.is_empty() && nets.iter().all(|n| n.family() != family)
}

fn entity(
    node: &Desired,
    e: &Entity,
    family: Family,
    addr: IpAddr,
    port: Option<u16>,
    protocol: Protocol,
) -> bool {
    if absent(&e.nets, family) || absent(&e.not_nets, family) {
        return false;
    }
    let within = |nets: &[Cidr]| nets.iter().any(|n| n.contains(addr));
    let in_set = |id: &SetId| {
        let set = node.sets.get(id).expect("a state has no faults");
        set.members.iter().any(|m| match m {
            Member::Net(n) => n.contains(addr),
            Member::Port {
                addr: a,
                protocol: q,
                port: n,
            } => *a == addr && *q == protocol && Some(*n) == port,
        })
    };
    let has_ports = protocol.has_ports();
    let numbered = |list: &[net::PortRange]| match port {
        Some(p) => has_ports && list.iter().any(|r| r.contains(p)),
        None => {
            has_ports
                && list
                    .iter()
                    .any(|r| r.first() <= 32_768 && r.last() >= 60_999)
        }
    };
    let any_port = e.ports.is_empty() && e.port_sets.is_empty();
    (e.nets.is_empty() || within(&e.nets))
        && !within(&e.not_nets)
        && e.sets.iter().all(in_set)
        && !e.not_sets.iter().any(in_set)
        && (any_port || numbered(&e.ports) || e.port_sets.iter().any(in_set))
        && !numbered(&e.not_ports)
        && !e.not_port_sets.iter().any(in_set)
}
