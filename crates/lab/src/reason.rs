//! Why policy lets a flow through, or does not.
//!
//! Promises: read straight from the resources, rule by rule, with no index and no cache; the
//! answer names the policy and rule that decides, or the tier at whose end it is dropped.
//!
//! Never: looks at the kernel. A crate of its own will take its place.

use model::{
    Action, Entity, LabelSource, Labels, NetworkSet, NetworkSetKey, Policy, PolicyKey, Profile,
    ProfileId, Rule, Tier, TierAction, Update, WorkloadEndpoint, WorkloadKey,
};
use net::{Cidr, Family, Protocol};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// All that policy depends on.
#[derive(Debug, Default)]
pub(crate) struct World {
    tiers: BTreeMap<Arc<str>, Tier>,
    policies: BTreeMap<PolicyKey, Policy>,
    profiles: BTreeMap<ProfileId, Profile>,
    workloads: BTreeMap<WorkloadKey, WorkloadEndpoint>,
    sets: BTreeMap<NetworkSetKey, NetworkSet>,
}

/// One end of a flow.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Side<'a> {
    /// Its address.
    pub addr: IpAddr,
    /// Namespace and name, if it is a pod.
    pub pod: Option<(&'a str, &'a str)>,
    /// The node, if it is one.
    pub node: Option<&'a str>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reason {
    /// Whether policy lets it through.
    pub allowed: bool,
    /// Where and why.
    pub text: String,
}

/// What a packet shows to a rule.
struct Packet {
    source: IpAddr,
    destination: IpAddr,
    protocol: Protocol,
    port: u16,
    icmp: Option<(u8, u8)>,
}

#[derive(Clone, Copy, PartialEq)]
enum Direction {
    Ingress,
    Egress,
}

/// An endpoint's labels, own before inherited.
struct Effective<'a> {
    own: &'a Labels,
    inherited: Vec<&'a Labels>,
}

impl LabelSource for Effective<'_> {
    fn label(&self, key: &str) -> Option<&str> {
        self.own
            .label(key)
            .or_else(|| self.inherited.iter().find_map(|l| l.label(key)))
    }
}

impl World {
    /// Takes one thing in.
    pub(crate) fn learn(&mut self, update: Update) {
        match update {
            Update::Tier(k, Some(v)) => _ = self.tiers.insert(k, v),
            Update::Policy(k, Some(v)) => _ = self.policies.insert(k, v),
            Update::Profile(k, Some(v)) => _ = self.profiles.insert(k, v),
            Update::Workload(k, Some(v)) => _ = self.workloads.insert(k, v),
            Update::NetworkSet(k, Some(v)) => _ = self.sets.insert(k, v),
            _ => {}
        }
    }

    /// Whether policy lets a flow through, and what decides. `port` is 0 for ICMP.
    pub(crate) fn explain(
        &self,
        from: Side<'_>,
        to: Side<'_>,
        protocol: Protocol,
        port: u16,
        icmp: Option<(u8, u8)>,
    ) -> Reason {
        let v6 = Family::of(to.addr) == Family::V6;
        let echo = if v6 { (128, 0) } else { (8, 0) };
        let is_icmp = protocol == Protocol::ICMP || protocol == Protocol::ICMPV6;
        let packet = Packet {
            source: from.addr,
            destination: to.addr,
            protocol: if is_icmp && v6 {
                Protocol::ICMPV6
            } else {
                protocol
            },
            port,
            icmp: is_icmp.then(|| icmp.unwrap_or(echo)),
        };
        let mut text = Vec::new();
        for (side, direction) in [(from, Direction::Egress), (to, Direction::Ingress)] {
            let Some((key, endpoint)) = self.workload(side) else {
                continue;
            };
            // A node always reaches its own pods, or it could not check their health.
            if direction == Direction::Ingress && from.node == Some(&*key.node) {
                text.push(format!(
                    "ingress to {}: a node reaches its own pods",
                    key.workload
                ));
                continue;
            }
            let (allowed, why) = self.decide(endpoint, direction, &packet);
            let way = if direction == Direction::Egress {
                "egress of"
            } else {
                "ingress to"
            };
            let line = format!("{way} {}: {why}", key.workload);
            if !allowed {
                return Reason {
                    allowed,
                    text: line,
                };
            }
            text.push(line);
        }
        if text.is_empty() {
            text.push("no policy governs either end".to_owned());
        }
        Reason {
            allowed: true,
            text: text.join("; "),
        }
    }

    fn workload(&self, side: Side<'_>) -> Option<(&WorkloadKey, &WorkloadEndpoint)> {
        let (namespace, name) = side.pod?;
        let workload = format!("{namespace}/{name}");
        self.workloads
            .iter()
            .find(|(k, _)| *k.workload == *workload)
    }

    fn effective<'a>(&'a self, own: &'a Labels, profiles: &[ProfileId]) -> Effective<'a> {
        let inherited = profiles
            .iter()
            .filter_map(|p| self.profiles.get(p))
            .map(|p| &p.labels);
        Effective {
            own,
            inherited: inherited.collect(),
        }
    }

    fn decide(
        &self,
        endpoint: &WorkloadEndpoint,
        direction: Direction,
        packet: &Packet,
    ) -> (bool, String) {
        let labels = self.effective(&endpoint.labels, &endpoint.profiles);
        for (name, tier) in self.tiers_in_order() {
            let policies = self.applicable(name, &labels, direction);
            if policies.is_empty() {
                continue;
            }
            let mut passed = false;
            'policies: for (key, policy) in &policies {
                let rules = match direction {
                    Direction::Ingress => &policy.ingress,
                    Direction::Egress => &policy.egress,
                };
                for (i, rule) in rules
                    .iter()
                    .enumerate()
                    .filter(|(_, r)| self.matches(r, packet))
                {
                    let place = format!("rule {} of {} in tier {name:?}", i + 1, show(key));
                    match rule.action {
                        Action::Allow => return (true, format!("{place} allows it")),
                        Action::Deny => return (false, format!("{place} denies it")),
                        Action::Pass => {
                            passed = true;
                            break 'policies;
                        }
                        Action::Log => {}
                    }
                }
            }
            if !passed && tier.default_action == TierAction::Deny {
                let names: Vec<String> = policies.iter().map(|(k, _)| show(k)).collect();
                let list = names.join(", ");
                return (
                    false,
                    format!("no policy of tier {name:?} allows it (policies: {list})"),
                );
            }
        }
        self.decide_by_profiles(endpoint, direction, packet)
    }

    fn decide_by_profiles(
        &self,
        endpoint: &WorkloadEndpoint,
        direction: Direction,
        packet: &Packet,
    ) -> (bool, String) {
        for id in &endpoint.profiles {
            let Some(profile) = self.profiles.get(id) else {
                continue;
            };
            let rules = match direction {
                Direction::Ingress => &profile.ingress,
                Direction::Egress => &profile.egress,
            };
            for rule in rules.iter().filter(|r| self.matches(r, packet)) {
                match rule.action {
                    Action::Allow => {
                        return (true, format!("no policy applies; profile {id} allows it"));
                    }
                    Action::Deny => {
                        return (false, format!("no policy applies; profile {id} denies it"));
                    }
                    Action::Pass | Action::Log => {}
                }
            }
        }
        (
            false,
            "no policy applies, and no profile allows it".to_owned(),
        )
    }

    fn tiers_in_order(&self) -> Vec<(&Arc<str>, &Tier)> {
        let mut tiers: Vec<_> = self.tiers.iter().collect();
        let order = |t: &Tier| t.order.unwrap_or(Tier::DEFAULT_ORDER);
        tiers.sort_by(|a, b| order(a.1).total_cmp(&order(b.1)).then_with(|| a.0.cmp(b.0)));
        tiers
    }

    fn applicable(
        &self,
        tier: &str,
        labels: &Effective<'_>,
        direction: Direction,
    ) -> Vec<(&PolicyKey, &Policy)> {
        let governs = |p: &Policy| match direction {
            Direction::Ingress => p.applies_ingress,
            Direction::Egress => p.applies_egress,
        };
        let mut found: Vec<_> = self
            .policies
            .iter()
            .filter(|(k, p)| {
                *p.tier == *tier
                    && !k.kind.is_staged()
                    && !p.untracked
                    && !p.pre_dnat
                    && governs(p)
                    && p.selector.matches(labels)
            })
            .collect();
        let order = |p: &Policy| p.order.unwrap_or(f64::INFINITY);
        found.sort_by(|a, b| {
            let by_order = order(a.1).total_cmp(&order(b.1));
            by_order.then_with(|| a.0.tie_break().cmp(&b.0.tie_break()))
        });
        found
    }

    fn matches(&self, r: &Rule, p: &Packet) -> bool {
        let icmp = |want: &model::Icmp, (t, c): (u8, u8)| {
            want.icmp_type.is_none_or(|w| w == t) && want.code.is_none_or(|w| w == c)
        };
        r.family.is_none_or(|f| f == Family::of(p.destination))
            && r.protocol.is_none_or(|want| want == p.protocol)
            && r.not_protocol.is_none_or(|not| not != p.protocol)
            && r.icmp.as_ref().is_none_or(|want| p.icmp.is_some_and(|got| icmp(want, got)))
            && r.not_icmp.as_ref().is_none_or(|not| !p.icmp.is_some_and(|got| icmp(not, got)))
            // A probe's own port is any: a rule that asks for one is not met.
            && self.entity_matches(&r.source, p.source, None, p.protocol)
            && self.entity_matches(&r.destination, p.destination, Some(p.port), p.protocol)
    }

    fn entity_matches(
        &self,
        e: &Entity,
        addr: IpAddr,
        port: Option<u16>,
        protocol: Protocol,
    ) -> bool {
        let numbered =
            |ranges: &[net::PortRange]| port.is_some_and(|p| ranges.iter().any(|r| r.contains(p)));
        let named = |names: &[Arc<str>]| {
            port.is_some_and(|p| names.iter().any(|n| self.has_port(addr, n, protocol, p)))
        };
        let ports_given = !e.ports.is_empty() || !e.named_ports.is_empty();
        let within = |nets: &[Cidr]| nets.iter().any(|n| n.contains(addr));
        e.service.is_none()
            && (e.nets.is_empty() || within(&e.nets))
            && !within(&e.not_nets)
            && e.selector.as_ref().is_none_or(|s| self.selected(s, addr))
            && e.not_selector
                .as_ref()
                .is_none_or(|s| !self.selected(s, addr))
            && (!ports_given || numbered(&e.ports) || named(&e.named_ports))
            && !numbered(&e.not_ports)
            && !named(&e.not_named_ports)
    }

    /// Whether an endpoint or network set with this address is selected.
    fn selected(&self, selector: &model::Selector, addr: IpAddr) -> bool {
        let workloads = self
            .workloads
            .values()
            .map(|w| (&w.nets, &w.labels, &w.profiles));
        let sets = self
            .sets
            .values()
            .map(|s| (&s.nets, &s.labels, &s.profiles));
        workloads.chain(sets).any(|(nets, labels, profiles)| {
            nets.iter().any(|n| n.contains(addr))
                && selector.matches(&self.effective(labels, profiles))
        })
    }

    fn has_port(&self, addr: IpAddr, name: &str, protocol: Protocol, port: u16) -> bool {
        self.workloads
            .values()
            .filter(|w| w.nets.iter().any(|n| n.contains(addr)))
            .any(|w| {
                w.ports
                    .iter()
                    .any(|p| *p.name == *name && p.protocol == protocol && p.port == port)
            })
    }
}

fn show(key: &PolicyKey) -> String {
    match &key.namespace {
        Some(ns) => format!("{} {ns}/{}", key.kind.name(), key.name),
        None => format!("{} {}", key.kind.name(), key.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{PolicyKind, Selector};

    fn pod(world: &mut World, ns: &str, name: &str, ip: &str, labels: &[(&str, &str)]) {
        let mut all: Vec<(String, String)> = labels
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        all.push(("projectcalico.org/namespace".to_owned(), ns.to_owned()));
        let key = WorkloadKey {
            node: "node-1".into(),
            orchestrator: "k8s".into(),
            workload: format!("{ns}/{name}").into(),
            endpoint: "eth0".into(),
        };
        let endpoint = WorkloadEndpoint {
            interface: None,
            mac: None,
            nets: vec![ip.parse().unwrap()],
            nats: Vec::new(),
            labels: Labels::new(all),
            profiles: vec![format!("kns.{ns}").into()],
            ports: Vec::new(),
            allowed_sources: Vec::new(),
            qos: model::Qos::default(),
        };
        world.learn(Update::Workload(key, Some(endpoint)));
        let open = Profile {
            ingress: vec![Rule::any(Action::Allow)],
            egress: vec![Rule::any(Action::Allow)],
            labels: Labels::new([("pcns.team", "web")]),
        };
        world.learn(Update::Profile(format!("kns.{ns}").into(), Some(open)));
    }

    fn deny_all(selector: &str, ingress: Vec<Rule>) -> Policy {
        Policy {
            tier: "default".into(),
            order: Some(1000.0),
            selector: Selector::parse(selector).unwrap(),
            applies_ingress: true,
            applies_egress: false,
            ingress,
            egress: Vec::new(),
            untracked: false,
            pre_dnat: false,
            apply_on_forward: false,
            on_every_node: false,
            staged: model::StagedAction::Set,
        }
    }

    fn side<'a>(ip: &str, pod: &'a str) -> Side<'a> {
        Side {
            addr: ip.parse().unwrap(),
            pod: pod.split_once('/'),
            node: None,
        }
    }

    #[test]
    fn the_deciding_policy_is_named() {
        let mut w = World::default();
        w.learn(Update::Tier("default".into(), Some(Tier::default())));
        pod(&mut w, "shop", "front", "10.0.0.1", &[("app", "front")]);
        pod(&mut w, "shop", "db", "10.0.0.2", &[("app", "db")]);
        let ask = |w: &World, port| {
            w.explain(
                side("10.0.0.1", "shop/front"),
                side("10.0.0.2", "shop/db"),
                Protocol::TCP,
                port,
                None,
            )
        };
        assert!(ask(&w, 80).allowed);
        let key = PolicyKey {
            kind: PolicyKind::NetworkPolicy,
            namespace: Some("shop".into()),
            name: "db".into(),
        };
        let mut rule = Rule::any(Action::Allow);
        rule.protocol = Some(Protocol::TCP);
        rule.source.selector =
            Some(Selector::parse("app == 'front' && pcns.team == 'web'").unwrap());
        rule.destination.ports = vec!["5432".parse().unwrap()];
        w.learn(Update::Policy(
            key,
            Some(deny_all("app == 'db'", vec![rule])),
        ));
        assert_eq!(
            ask(&w, 80),
            Reason {
                allowed: false,
                text: "ingress to shop/db: no policy of tier \"default\" allows it \
                       (policies: NetworkPolicy shop/db)"
                    .to_owned()
            }
        );
        let yes = ask(&w, 5432);
        assert!(yes.allowed);
        assert!(
            yes.text
                .ends_with("rule 1 of NetworkPolicy shop/db in tier \"default\" allows it")
        );
        // The other way there is no policy.
        let back = w.explain(
            side("10.0.0.2", "shop/db"),
            side("10.0.0.1", "shop/front"),
            Protocol::ICMP,
            0,
            None,
        );
        assert!(back.allowed);
    }
}
