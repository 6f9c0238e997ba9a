//! Nodes, peers and worlds to ask about.
#![allow(dead_code, reason = "each test file uses some of it")]

use model::{
    BgpConfig, BgpPeer, BgpRemote, Labels, NextHopMode, Node, NodeAddress, Selector, Update,
};
use net::{Asn, Cidr};
use peering::World;

pub(crate) fn node(v4: &str, v6: &str, labels: &[(&str, &str)]) -> Node {
    let at = |text: &str| {
        (!text.is_empty()).then(|| {
            let addr = text.parse().expect("an address");
            NodeAddress {
                addr,
                subnet: Cidr::host(addr),
            }
        })
    };
    Node {
        ipv4: at(v4),
        ipv6: at(v6),
        labels: Labels::new(labels.iter().copied()),
        ..Node::default()
    }
}

pub(crate) fn reflector(mut n: Node, cluster: &str) -> Node {
    n.route_reflector_cluster = Some(cluster.into());
    n
}

pub(crate) fn peer(remote: BgpRemote) -> BgpPeer {
    BgpPeer {
        node: None,
        node_selector: None,
        remote,
        local_asn: None,
        next_hop: NextHopMode::Auto,
        password: None,
        use_node_ip: true,
        restart: None,
        keepalive: None,
        allowed_local_as: None,
        ttl_security: None,
        reachable_by: None,
        filters: Vec::new(),
        reverse: true,
        bfd: None,
        add_path: model::AddPath::default(),
        max_prefixes: None,
    }
}

pub(crate) fn at(ip: &str, asn: u32) -> BgpRemote {
    BgpRemote::Address {
        ip: ip.parse().expect("an address"),
        port: None,
        asn: Some(Asn(asn)),
    }
}

pub(crate) fn select(text: &str) -> Selector {
    Selector::parse(text).expect("a selector")
}

/// Three nodes; the plan is that of `a`.
pub(crate) fn world(extra: Vec<Update>) -> World {
    world_of("a", extra)
}

pub(crate) fn world_of(me: &str, extra: Vec<Update>) -> World {
    let mut w = World::new(me);
    for (name, n) in [
        ("a", node("10.0.0.1", "fd00::1", &[("rack", "1")])),
        ("b", node("10.0.0.2", "fd00::2", &[("rack", "1")])),
        ("c", node("10.0.0.10", "", &[("rack", "2")])),
    ] {
        w.update(Update::Node(name.into(), Some(n)));
    }
    for u in extra {
        w.update(u);
    }
    w
}

pub(crate) fn resource(name: &str, p: BgpPeer) -> Update {
    Update::BgpPeer(name.into(), Some(p))
}

pub(crate) fn config(c: BgpConfig) -> Update {
    Update::BgpConfig("default".into(), Some(c))
}

pub(crate) fn no_mesh() -> Update {
    config(BgpConfig {
        mesh: Some(false),
        ..BgpConfig::default()
    })
}
