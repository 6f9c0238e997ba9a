//! Route reflection (RFC 4456) among speakers of every kind. Wants root, `frr`, `gobgpd`, `exabgp`.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod foreign;
mod support;

use bgp::types::RouterId;
use foreign::ours::{everything, impatient, learned, tune};
use foreign::{ExaBgp, Frr, GoBgp, Seen, Side, Stranger};
use model::Update;
use netlink::netns::NetNs;
use speaker::Settings;
use support::{Ours, block, config, connect, node, peer_with, pool, run, settings};

/// A wire that many hang on: the first has `10.0.0.1`, the others the numbers from 2 on.
struct Segment {
    hub: NetNs,
    others: Vec<NetNs>,
}

impl Segment {
    fn new(others: u8) -> Self {
        let hub = NetNs::new().unwrap();
        run(&hub, "ip", "link set lo up");
        run(&hub, "ip", "link add br0 type bridge");
        run(&hub, "ip", "addr add 10.0.0.1/24 dev br0");
        run(&hub, "ip", "link set br0 up");
        let plug = |n: u8| {
            let ns = NetNs::new().unwrap();
            run(&ns, "ip", "link set lo up");
            let (port, at) = (format!("p{n}"), format!("10.0.0.{n}/24"));
            connect((&hub, &port, &[]), (&ns, "eth0", &[&at]));
            run(&hub, "ip", &format!("link set {port} master br0"));
            ns
        };
        let others = (2..2 + others).map(plug).collect();
        Self { hub, others }
    }
}

/// Node `a` with these neighbours within the AS.
fn hub(cluster: Option<&str>, neighbours: &[&str]) -> Vec<Update> {
    let mut a = node("10.0.0.1", "");
    a.route_reflector_cluster = cluster.map(Into::into);
    let mut all = vec![
        config(|_| {}),
        Update::Node("a".into(), Some(a)),
        pool("four", "172.16.0.0/16"),
        block("172.16.1.0/26", Some("a")),
        everything("all", Vec::new()),
    ];
    all.extend(
        neighbours
            .iter()
            .map(|at| peer_with(at, at, 64512, |p| p.filters = vec!["all".into()])),
    );
    all
}

/// Node `b` at `10.0.0.5`, which knows the reflector alone.
fn client(ns: &NetNs) -> Ours {
    let updates = vec![
        config(|_| {}),
        Update::Node("b".into(), Some(node("10.0.0.5", ""))),
        pool("four", "172.16.0.0/16"),
        block("172.16.2.0/26", Some("b")),
        peer_with("reflector", "10.0.0.1", 64512, |_| {}),
    ];
    Ours::start(ns, Settings::new("b", RouterId(0x0a00_0005), 8), updates)
}

fn frr_client() -> &'static str {
    "router bgp 64512\n bgp router-id 10.0.0.2\n no bgp network import-check\n \
     neighbor 10.0.0.1 remote-as 64512\n neighbor 10.0.0.1 timers connect 1\n \
     address-family ipv4 unicast\n  network 192.0.2.0/24\n exit-address-family\n"
}

fn gobgp_client() -> &'static str {
    "[global.config]\n as = 64512\n router-id = \"10.0.0.3\"\n[[neighbors]]\n \
     [neighbors.config]\n  neighbor-address = \"10.0.0.1\"\n  peer-as = 64512\n"
}

/// What a client holds of another's route.
fn reflected(hop: &str, cluster: &str) -> Seen {
    Seen {
        hop: hop.into(),
        local_pref: Some(100),
        originator: Some(hop.into()),
        clusters: vec![cluster.into()],
        ..Seen::default()
    }
}

#[test]
fn we_reflect_between_clients_of_every_kind() {
    let wire = Segment::new(4);
    let [two, three, four, five] = &wire.others[..] else {
        unreachable!("four were asked for");
    };
    let frr = Frr::with(two, &Side::of(64512), &["10.0.0.2"], frr_client());
    let gobgp = GoBgp::with(three, &Side::of(64512), gobgp_client());
    let all = ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"];
    let ours = Ours::start(&wire.hub, settings(), hub(Some("10.0.0.1"), &all));
    tune(&ours, impatient);
    let inside = "router-id 10.0.0.4; local-address 10.0.0.4; local-as 64512; peer-as 64512;\n \
                  family { ipv4 unicast; } static { route 198.51.100.0/24 next-hop 10.0.0.4; }";
    let neighbors = [("10.0.0.1", inside.to_owned())];
    let exabgp = ExaBgp::with(four, &Side::of(64512), &neighbors);
    let b = client(five);
    ours.established(4);
    gobgp.ask("global rib add 203.0.113.0/24 nexthop 10.0.0.3 local-pref 100 -a ipv4");
    let routes = [
        ("192.0.2.0/24", "10.0.0.2"),
        ("203.0.113.0/24", "10.0.0.3"),
        ("198.51.100.0/24", "10.0.0.4"),
        ("172.16.2.0/26", "10.0.0.5"),
    ];
    for (prefix, hop) in routes {
        let mut expected = reflected(hop, "10.0.0.1");
        if hop == "10.0.0.5" {
            expected.local_pref = Some(2_147_482_623);
        }
        let mut all = Vec::new();
        if hop != "10.0.0.2" {
            all.push(frr.learns(prefix));
        }
        if hop != "10.0.0.3" {
            all.push(gobgp.learns(prefix));
        }
        if hop != "10.0.0.4" {
            all.push(exabgp.learns(prefix));
        }
        if hop != "10.0.0.5" {
            all.push(learned(&b, prefix));
        }
        for seen in all {
            assert_eq!(seen, expected, "{prefix}");
        }
    }
    // Its own route comes back to nobody.
    assert_eq!(frr.paths("192.0.2.0/24"), []);
    assert_eq!(gobgp.paths("203.0.113.0/24"), []);
    // What is the reflector's own is no reflection.
    let own = frr.learns("172.16.1.0/26");
    assert_eq!((own.originator, own.clusters.len()), (None, 0));
    // A client that goes takes its routes with it: ExaBGP did not offer graceful restart.
    drop(exabgp);
    frr.forgets("198.51.100.0/24");
    gobgp.forgets("198.51.100.0/24");
    b.forgets("198.51.100.0/24");
}

#[test]
fn we_are_a_client_of_another_reflector() {
    let wire = Segment::new(2);
    let [two, three] = &wire.others[..] else {
        unreachable!("two were asked for");
    };
    let config = "router bgp 64512\n bgp router-id 10.0.0.2\n bgp cluster-id 10.9.9.9\n \
                  neighbor 10.0.0.1 remote-as 64512\n neighbor 10.0.0.1 timers connect 1\n \
                  neighbor 10.0.0.3 remote-as 64512\n neighbor 10.0.0.3 timers connect 1\n \
                  address-family ipv4 unicast\n  neighbor 10.0.0.1 route-reflector-client\n  \
                  neighbor 10.0.0.3 route-reflector-client\n exit-address-family\n";
    let gobgp_of = gobgp_client().replace("10.0.0.1", "10.0.0.2");
    let gobgp = GoBgp::with(three, &Side::of(64512), &gobgp_of);
    gobgp.ask("global rib add 203.0.113.0/24 nexthop 10.0.0.3 local-pref 100 -a ipv4");
    let ours = Ours::start(&wire.hub, settings(), hub(None, &["10.0.0.2"]));
    tune(&ours, impatient);
    let frr = Frr::with(two, &Side::of(64512), &["10.0.0.2"], config);
    ours.established(1);
    let seen = learned(&ours, "203.0.113.0/24");
    assert_eq!(seen, reflected("10.0.0.3", "10.9.9.9"));
    let mut expected = reflected("10.0.0.1", "10.9.9.9");
    expected.local_pref = Some(2_147_482_623);
    assert_eq!(gobgp.learns("172.16.1.0/26"), expected);
    assert_eq!(frr.paths("172.16.1.0/26").len(), 1);
    gobgp.ask("global rib del 203.0.113.0/24 -a ipv4");
    ours.forgets("203.0.113.0/24");
}
