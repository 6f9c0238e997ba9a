//! Small states for the tests of this crate.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use desired::*;
use model::{Action, PolicyKey, PolicyKind, Qos, TierAction, WorkloadKey};
use net::{Cidr, IfName, PortRange, Protocol};
use nftables::{Ruleset, TableName};
use render::{Changes, Renderer};
use std::collections::BTreeMap;
use std::sync::Arc;

pub fn cidr(s: &str) -> Cidr {
    s.parse().expect("a CIDR")
}

pub fn iface(s: &str) -> IfName {
    s.parse().expect("an interface name")
}

pub fn set_id(s: &str) -> SetId {
    SetId(Arc::from(s))
}

pub fn policy_key(name: &str) -> PolicyKey {
    PolicyKey {
        kind: PolicyKind::NetworkPolicy,
        namespace: Some(Arc::from("default")),
        name: Arc::from(name),
    }
}

pub fn workload_key(name: &str) -> WorkloadKey {
    WorkloadKey {
        node: Arc::from("node1"),
        orchestrator: Arc::from("k8s"),
        workload: Arc::from(format!("default/{name}")),
        endpoint: Arc::from("eth0"),
    }
}

/// A rule that matches everything.
pub fn rule(action: Action) -> Rule {
    Rule {
        action,
        family: None,
        protocol: None,
        not_protocol: None,
        icmp: None,
        not_icmp: None,
        source: Entity::default(),
        destination: Entity::default(),
        annotations: Vec::new(),
    }
}

pub fn tcp(action: Action, ports: &[&str]) -> Rule {
    let mut r = rule(action);
    r.protocol = Some(Protocol::TCP);
    r.destination.ports = ports
        .iter()
        .map(|p| p.parse::<PortRange>().expect("a port"))
        .collect();
    r
}

pub fn policy(ingress: Vec<Rule>, egress: Vec<Rule>) -> PolicyRules {
    PolicyRules {
        tier: Arc::from("default"),
        ingress,
        egress,
    }
}

pub fn tier(name: &str, default_action: TierAction, policies: &[&str]) -> TierPolicies {
    let keys: Vec<PolicyKey> = policies.iter().map(|p| policy_key(p)).collect();
    TierPolicies {
        name: Arc::from(name),
        default_action,
        ingress: keys.clone(),
        egress: keys,
    }
}

pub fn workload(interface: &str, nets: &[&str]) -> WorkloadPolicy {
    WorkloadPolicy {
        interface: iface(interface),
        mac: Some("02:00:00:00:00:01".parse().expect("a MAC")),
        nets: nets.iter().map(|n| cidr(n)).collect(),
        nats: Vec::new(),
        allowed_sources: Vec::new(),
        tiers: Vec::new(),
        profiles: Vec::new(),
        qos: Qos::default(),
    }
}

/// One pod behind `cali1` under the given policies in tier default, and their rules.
pub fn one_pod(policies: &[(&str, PolicyRules)]) -> Desired {
    let mut d = Desired {
        globals: Some(Arc::new(Globals::default())),
        ..Desired::default()
    };
    let mut w = workload("cali1", &["10.65.0.2/32", "fd00:65::2/128"]);
    let names: Vec<&str> = policies.iter().map(|(n, _)| *n).collect();
    if !names.is_empty() {
        w.tiers.push(tier("default", TierAction::Deny, &names));
    }
    for (n, p) in policies {
        d.policies.insert(policy_key(n), Arc::new(p.clone()));
    }
    d.workloads.insert(workload_key("web"), Arc::new(w));
    d
}

pub fn nets(members: &[&str]) -> Members {
    Members {
        kind: SetKind::Nets,
        members: members.iter().map(|m| Member::Net(cidr(m))).collect(),
    }
}

pub fn ports(members: &[(&str, Protocol, u16)]) -> Members {
    let member = |m: &(&str, Protocol, u16)| Member::Port {
        addr: m.0.parse().expect("an address"),
        protocol: m.1,
        port: m.2,
    };
    Members {
        kind: SetKind::Ports,
        members: members.iter().map(member).collect(),
    }
}

fn differ<K: Ord + Clone, V: Clone + PartialEq>(
    old: &BTreeMap<K, V>,
    new: &BTreeMap<K, V>,
) -> BTreeMap<K, Option<V>> {
    let gone = old
        .keys()
        .filter(|k| !new.contains_key(*k))
        .map(|k| (k.clone(), None));
    let set = new
        .iter()
        .filter(|(k, v)| old.get(*k) != Some(*v))
        .map(|(k, v)| (k.clone(), Some(v.clone())));
    gone.chain(set).collect()
}

/// The step from state to state.
pub fn delta(old: &Desired, new: &Desired) -> Delta {
    let mut sets = BTreeMap::new();
    for id in old.sets.keys().filter(|i| !new.sets.contains_key(*i)) {
        sets.insert(id.clone(), SetChange::Remove);
    }
    for (id, m) in &new.sets {
        let change = match old.sets.get(id) {
            Some(o) if o == m => continue,
            Some(o) if o.kind == m.kind => SetChange::Update {
                added: m.members.difference(&o.members).copied().collect(),
                removed: o.members.difference(&m.members).copied().collect(),
            },
            _ => SetChange::Create {
                kind: m.kind,
                members: m.members.iter().copied().collect(),
            },
        };
        sets.insert(id.clone(), change);
    }
    Delta {
        sets,
        policies: differ(&old.policies, &new.policies),
        profiles: differ(&old.profiles, &new.profiles),
        workloads: differ(&old.workloads, &new.workloads),
        hosts: differ(&old.hosts, &new.hosts),
        domains: (old.domains != new.domains).then(|| new.domains.clone()),
        routes: differ(&old.routes, &new.routes),
        vteps: differ(&old.vteps, &new.vteps),
        globals: if old.globals == new.globals {
            None
        } else {
            new.globals.clone()
        },
    }
}

pub fn empty() -> Ruleset {
    Ruleset::new(TableName::new("manx").expect("a name"))
}

/// What a renderer makes of a whole state at once.
pub fn render(state: &Desired) -> (Ruleset, Changes) {
    assert_eq!(
        state.faults(),
        Vec::<String>::new(),
        "the state itself is sound"
    );
    let mut out = empty();
    let changes = Renderer::new().apply(&delta(&Desired::default(), state));
    changes.table.iter().for_each(|e| e.apply(&mut out));
    (out, changes)
}
