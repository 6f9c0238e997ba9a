//! Shorthand for resources.

use model::*;
use net::{Cidr, Protocol};
use std::net::IpAddr;
use std::sync::Arc;

pub fn cidr(s: &str) -> Cidr {
    s.parse().expect("a test CIDR")
}

pub fn ip(s: &str) -> IpAddr {
    s.parse().expect("a test address")
}

pub fn sel(s: &str) -> Selector {
    Selector::parse(s).expect("a test selector")
}

/// `"a=x b=y"`.
pub fn labels(s: &str) -> Labels {
    Labels::new(
        s.split_whitespace()
            .map(|p| p.split_once('=').expect("key=value")),
    )
}

pub fn words(s: &str) -> Vec<Arc<str>> {
    s.split_whitespace().map(Arc::from).collect()
}

pub fn wkey(node: &str, name: &str) -> WorkloadKey {
    WorkloadKey {
        node: node.into(),
        orchestrator: "k8s".into(),
        workload: name.into(),
        endpoint: "eth0".into(),
    }
}

/// A workload with an interface (or `""`), addresses, labels and profiles.
pub fn workload(interface: &str, nets: &str, l: &str, profiles: &str) -> WorkloadEndpoint {
    WorkloadEndpoint {
        interface: interface.parse().ok(),
        mac: None,
        nets: nets.split_whitespace().map(cidr).collect(),
        nats: Vec::new(),
        labels: labels(l),
        profiles: words(profiles),
        ports: Vec::new(),
        allowed_sources: Vec::new(),
        qos: Qos::default(),
    }
}

pub fn port(name: &str, protocol: Protocol, port: u16) -> NamedPort {
    NamedPort {
        name: name.into(),
        protocol,
        port,
    }
}

pub fn host(node: &str, ips: &str, l: &str, profiles: &str) -> HostEndpoint {
    HostEndpoint {
        node: node.into(),
        interface: None,
        expected_ips: ips.split_whitespace().map(ip).collect(),
        labels: labels(l),
        profiles: words(profiles),
        ports: Vec::new(),
        dscp: None,
    }
}

pub fn gnp(name: &str) -> PolicyKey {
    PolicyKey {
        kind: PolicyKind::GlobalNetworkPolicy,
        namespace: None,
        name: name.into(),
    }
}

/// Allows everything towards what it selects.
pub fn policy(tier: &str, order: Option<f64>, selector: &str) -> Policy {
    Policy {
        tier: tier.into(),
        order,
        selector: sel(selector),
        applies_ingress: true,
        applies_egress: false,
        ingress: vec![Rule::any(Action::Allow)],
        egress: Vec::new(),
        untracked: false,
        pre_dnat: false,
        apply_on_forward: false,
        on_every_node: false,
        staged: StagedAction::Set,
    }
}

/// A rule that allows TCP from a selector.
pub fn from(selector: &str) -> Rule {
    let mut r = Rule::any(Action::Allow);
    r.protocol = Some(Protocol::TCP);
    r.source.selector = Some(sel(selector));
    r
}

pub fn netset(nets: &str, l: &str) -> NetworkSet {
    NetworkSet {
        nets: nets.split_whitespace().map(cidr).collect(),
        labels: labels(l),
        profiles: Vec::new(),
    }
}

pub fn setkey(name: &str) -> NetworkSetKey {
    NetworkSetKey {
        namespace: None,
        name: name.into(),
    }
}

pub fn pool(range: &str, vxlan: Encap) -> IpPool {
    IpPool {
        cidr: cidr(range),
        block_size: 26,
        vxlan,
        ipip: Encap::Never,
        nat_outgoing: false,
        disabled: false,
        deleting: false,
        allocatable: true,
        disable_bgp_export: false,
        node_selector: Selector::all(),
        namespace_selector: None,
        manual: false,
        uses: AllowedUses {
            workload: true,
            tunnel: true,
            load_balancer: false,
        },
    }
}

/// `borrowed` is `"address@node ..."`.
pub fn block(range: &str, node: &str, borrowed: &str) -> Block {
    let one = |s: &str| {
        let (addr, node) = s.split_once('@').expect("address@node");
        Borrowed {
            addr: ip(addr),
            node: node.into(),
        }
    };
    Block {
        cidr: cidr(range),
        node: (!node.is_empty()).then(|| node.into()),
        borrowed: borrowed.split_whitespace().map(one).collect(),
    }
}

/// An address with its subnet's length; `""` is none.
pub fn address(s: &str) -> Option<NodeAddress> {
    let (addr, _) = s.split_once('/')?;
    Some(NodeAddress {
        addr: ip(addr),
        subnet: cidr(s),
    })
}

pub fn node(v4: &str, tunnel: &str) -> Node {
    Node {
        ipv4: address(v4),
        vxlan_v4: tunnel.parse().ok(),
        ..Node::default()
    }
}
