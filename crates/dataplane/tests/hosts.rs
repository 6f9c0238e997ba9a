//! Host endpoints and what else hangs around pods' policy, with real packets.

mod support;

use dataplane::State;
use desired::*;
use model::{Action, TierAction};
use net::{Family, Protocol};
use netlink::netns::NetNs;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Duration;
use support::state::*;
use support::*;

const A4: &str = "10.65.0.2";
const A6: &str = "fd00:65::2";
const B4: &str = "10.65.0.3";
const B6: &str = "fd00:65::3";
const HOST: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
const OUTSIDE: [&str; 2] = ["192.0.2.2", "2001:db8::2"];

fn ip(s: &str) -> IpAddr {
    s.parse().expect("an address")
}

fn add_pod(d: &mut Desired, name: &str, interface: &str, addresses: &[&str]) {
    let nets: Vec<String> = addresses
        .iter()
        .map(|a| format!("{a}/{}", Family::of(ip(a)).bits()))
        .collect();
    let nets: Vec<&str> = nets.iter().map(String::as_str).collect();
    let mut w = workload(interface, &nets);
    w.tiers.push(tier("default", TierAction::Deny, &["open"]));
    for n in &w.nets {
        d.routes.insert(*n, RouteTarget::Workload(iface(interface)));
    }
    d.workloads.insert(workload_key(name), Arc::new(w));
}

fn set_policy(d: &mut Desired, name: &str, ingress: Vec<Rule>, egress: Vec<Rule>) {
    d.policies
        .insert(policy_key(name), Arc::new(policy(ingress, egress)));
}

/// Two pods that may do everything.
fn open() -> Desired {
    let mut d = Desired {
        globals: Some(Arc::new(Globals::default())),
        ..Desired::default()
    };
    set_policy(
        &mut d,
        "open",
        vec![rule(Action::Allow)],
        vec![rule(Action::Allow)],
    );
    add_pod(&mut d, "a", "cali-a", &[A4, A6]);
    add_pod(&mut d, "b", "cali-b", &[B4, B6]);
    d
}

fn globals(d: &mut Desired, f: impl FnOnce(&mut Globals)) {
    let mut g = d.globals.as_deref().cloned().unwrap_or_default();
    f(&mut g);
    d.globals = Some(Arc::new(g));
}

fn host(interface: HostMatch) -> HostPolicy {
    HostPolicy {
        interface,
        tiers: vec![],
        forward: vec![],
        untracked: vec![],
        pre_dnat: vec![],
        profiles: vec![],
        dscp: None,
    }
}

fn uplink() -> HostPolicy {
    host(HostMatch::Interface(iface("uplink")))
}

fn set_host(d: &mut Desired, name: &str, h: HostPolicy) {
    d.hosts.insert(Arc::from(name), Arc::new(h));
}

fn deny_tier(names: &[&str]) -> Vec<TierPolicies> {
    vec![tier("default", TierAction::Deny, names)]
}

fn pass_tier(names: &[&str]) -> Vec<TierPolicies> {
    vec![tier("default", TierAction::Pass, names)]
}

/// A listener that echoes, in the namespace of a node.
fn serve(node: &Node, port: u16) {
    let listener = node
        .ns
        .run(move || TcpListener::bind(("::", port)))
        .expect("enter")
        .expect("listen");
    std::thread::spawn(move || {
        for mut s in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut s.try_clone().expect("a socket"), &mut s);
            });
        }
    });
}

/// A node with two pods, and a machine outside that knows the way to them.
struct World {
    node: Node,
    outside: Node,
    a: Pod,
    b: Pod,
}

fn world(state: Desired) -> World {
    let node = Node::numbered(1, state);
    let outside = Node::numbered(
        2,
        Desired {
            globals: Some(Arc::new(Globals::default())),
            ..Desired::default()
        },
    );
    node.join(&outside);
    for (net, via) in [("10.65.0.0/24", HOST[0]), ("203.0.113.0/24", HOST[0])] {
        outside.ip(&["route", "add", net, "via", via]);
    }
    outside.ip(&["-6", "route", "add", "fd00:65::/64", "via", HOST[1]]);
    for port in [22, PORT, OTHER_PORT] {
        serve(&node, port);
        serve(&outside, port);
    }
    let a = Pod::new(&node, "cali-a", &[A4, A6]);
    let b = Pod::new(&node, "cali-b", &[B4, B6]);
    node.programmed(&workload_key("a"));
    node.programmed(&workload_key("b"));
    World {
        node,
        outside,
        a,
        b,
    }
}

fn reaches(from: &Node, to: &str, port: u16) -> bool {
    connect(&from.ns, ip(to), port).is_some()
}

/// Why a connection cannot be made.
fn refusal(from: &Node, to: &str, port: u16) -> Option<ErrorKind> {
    let addr = SocketAddr::new(ip(to), port);
    let open = move || TcpStream::connect_timeout(&addr, Duration::from_millis(400));
    from.ns.run(open).expect("enter").err().map(|e| e.kind())
}

fn settle(node: &Node, text: &str) {
    until(text, || {
        node.nft(&["list", "table", "inet", "manx"]).contains(text)
    });
}

fn settle_without(node: &Node, text: &str) {
    until(&format!("no {text}"), || {
        !node.nft(&["list", "table", "inet", "manx"]).contains(text)
    });
}

#[test]
fn own_traffic_of_a_named_host_endpoint() {
    let mut w = world(open());
    for to in HOST {
        until("before", || reaches(&w.outside, to, PORT));
    }
    let mut held = connect(&w.outside.ns, ip(HOST[0]), PORT).expect("open");
    w.node.change(|d| set_host(d, "uplink", uplink()));
    settle(&w.node, "jump fh-");
    for (to, back) in HOST.into_iter().zip(OUTSIDE) {
        assert!(!reaches(&w.outside, to, PORT), "closed: {to}");
        until("failsafe: {to}", || reaches(&w.outside, to, 22));
        assert!(!ping(&w.outside.ns, ip(to)));
        assert!(!reaches(&w.node, back, PORT), "out is closed: {back}");
    }
    assert!(echo(&mut held), "what was established goes on");
    // Pods are not its business, in either direction; the host reaches its own.
    for (pod, back) in [B4, B6].into_iter().zip(OUTSIDE) {
        until("forwarded to {pod}", || reaches(&w.outside, pod, PORT));
        until("forwarded to {back}", || w.a.reaches(ip(back), PORT));
        until("the host to {pod}", || reaches(&w.node, pod, PORT));
    }
    w.node.change(|d| {
        let rules = vec![tcp(Action::Allow, &["8080"])];
        set_policy(d, "web", rules.clone(), rules);
        let mut h = uplink();
        h.tiers = deny_tier(&["web"]);
        set_host(d, "uplink", h);
    });
    for (to, back) in HOST.into_iter().zip(OUTSIDE) {
        until("let in", || reaches(&w.outside, to, PORT));
        assert!(!reaches(&w.outside, to, OTHER_PORT));
        until("let out", || reaches(&w.node, back, PORT));
        assert!(!reaches(&w.node, back, OTHER_PORT));
    }
    w.node.change(|d| d.hosts.clear());
    settle_without(&w.node, "from-host");
    until("a connection", || reaches(&w.outside, HOST[0], OTHER_PORT));
    assert!(
        !w.node.rules().contains("hook output"),
        "no hook that nobody needs"
    );
}

#[test]
fn a_host_endpoint_follows_its_address() {
    let mut w = world(open());
    w.node.change(|d| {
        let h = host(HostMatch::Addresses(vec![ip("198.51.100.1"), ip(HOST[0])]));
        set_host(d, "z", h);
    });
    settle(&w.node, "\"uplink\" : jump fh-");
    assert!(!reaches(&w.outside, HOST[0], PORT));
    // The first by name has it.
    w.node.change(|d| {
        let mut h = uplink();
        h.profiles = vec![Arc::from("allow")];
        let open = ProfileRules {
            ingress: vec![rule(Action::Allow)],
            egress: vec![rule(Action::Allow)],
        };
        d.profiles.insert(Arc::from("allow"), Arc::new(open));
        set_host(d, "a", h);
    });
    until("the other's policy", || reaches(&w.outside, HOST[0], PORT));
    w.node.change(|d| drop(d.hosts.remove("a")));
    w.node.change(|d| d.profiles.clear());
    settle(&w.node, "\"uplink\" : jump fh-");
    w.node.ip(&["addr", "del", "192.0.2.1/24", "dev", "uplink"]);
    settle_without(&w.node, "\"uplink\" : jump fh-");
    until("open", || reaches(&w.outside, HOST[1], PORT));
    w.node.ip(&["link", "add", "other", "type", "bridge"]);
    w.node
        .ip(&["addr", "add", "198.51.100.1/24", "dev", "other"]);
    settle(&w.node, "\"other\" : jump fh-");
    w.node.ip(&["link", "set", "other", "name", "renamed"]);
    settle(&w.node, "\"renamed\" : jump fh-");
    settle_without(&w.node, "\"other\" : jump fh-");
    w.node.ip(&["link", "del", "renamed"]);
    settle_without(&w.node, "from-host");
}

#[test]
fn forwarded_traffic_of_host_endpoints() {
    let mut w = world(open());
    let allow_in = |port: &str| vec![tcp(Action::Allow, &[port])];
    w.node.change(|d| {
        set_policy(d, "fwd", allow_in("8080"), allow_in("9090"));
        let mut h = uplink();
        h.forward = deny_tier(&["fwd"]);
        set_host(d, "uplink", h);
    });
    settle(&w.node, "jump fhfw-");
    for (pod, back) in [B4, B6].into_iter().zip(OUTSIDE) {
        until("let through to {pod}", || reaches(&w.outside, pod, PORT));
        assert!(!reaches(&w.outside, pod, OTHER_PORT), "not that port");
        until("out to {back}", || w.a.reaches(ip(back), OTHER_PORT));
        assert!(!w.a.reaches(ip(back), PORT), "not that port");
        until("pods of the node alone", || {
            w.a.reaches(ip(pod), OTHER_PORT)
        });
    }
    // `*` is asked about pods too, but not about the host and its own.
    w.node.change(|d| {
        let mut h = host(HostMatch::Any);
        h.forward = deny_tier(&["fwd"]);
        d.hosts.clear();
        set_host(d, "all", h);
    });
    settle(&w.node, "goto fhfw-");
    settle_without(&w.node, "\"uplink\" : jump");
    for (pod, back) in [B4, B6].into_iter().zip(OUTSIDE) {
        until("its port", || w.a.reaches(ip(pod), PORT));
        assert!(!w.a.reaches(ip(pod), OTHER_PORT), "pod to pod");
        until("host to its own pod", || reaches(&w.node, pod, OTHER_PORT));
        assert!(!w.a.reaches(ip(back), PORT), "allowed in and not out");
        assert!(!reaches(&w.outside, pod, OTHER_PORT));
    }
    until("a connection", || w.b.reaches(ip(A4), PORT));
}

/// What kube-proxy does for a node port and for a service.
const TRANSLATION: &str = "table ip kp {
    chain pre { type nat hook prerouting priority -100; tcp dport 30080 dnat to 10.65.0.3:8080; }
    chain out { type nat hook output priority -100;
        ip daddr 198.51.100.1 tcp dport 80 dnat to 192.0.2.2:8080; }
}";

fn load(ns: &NetNs, text: &str) {
    use std::io::Write;
    let mut nft = ns
        .command("nft")
        .expect("namespace")
        .args(["-f", "-"])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .expect("nft");
    let mut pipe = nft.stdin.take().expect("piped");
    pipe.write_all(text.as_bytes()).expect("nft reads");
    drop(pipe);
    assert!(nft.wait().expect("nft ends").success());
}

#[test]
fn policy_before_translation_sees_the_port_that_was_asked_for() {
    let mut w = world(open());
    load(&w.node.ns, TRANSLATION);
    until("the node port", || reaches(&w.outside, HOST[0], 30080));
    let mut before = uplink();
    before.pre_dnat = pass_tier(&["ports"]);
    before.pre_dnat[0].egress.clear();
    w.node.change(|d| {
        set_policy(d, "ports", vec![tcp(Action::Deny, &["30080"])], vec![]);
        before.profiles = vec![Arc::from("allow")];
        let all = ProfileRules {
            ingress: vec![rule(Action::Allow)],
            egress: vec![rule(Action::Allow)],
        };
        d.profiles.insert(Arc::from("allow"), Arc::new(all));
        set_host(d, "uplink", before.clone());
    });
    settle(&w.node, "jump fhd-");
    assert!(!reaches(&w.outside, HOST[0], 30080));
    until("failsafe", || reaches(&w.outside, HOST[0], 22));
    until("the pod's own port is open", || {
        reaches(&w.outside, B4, PORT)
    });
    // What it allows needs no more of the host's policy.
    w.node.change(|d| {
        let only = vec![tcp(Action::Allow, &["30080", "9090"]), rule(Action::Deny)];
        set_policy(d, "ports", only, vec![]);
        before.profiles.clear();
        set_host(d, "uplink", before);
        d.profiles.clear();
    });
    until("the node port", || reaches(&w.outside, HOST[0], 30080));
    until("an own port", || reaches(&w.outside, HOST[0], OTHER_PORT));
    assert!(!reaches(&w.outside, HOST[0], PORT));
    assert!(!reaches(&w.outside, B4, PORT), "denied before translation");
}

#[test]
fn translated_connections_of_the_host_are_seen_as_they_leave() {
    let mut w = world(open());
    load(&w.node.ns, TRANSLATION);
    w.node
        .ip(&["route", "add", "198.51.100.0/24", "dev", "uplink"]);
    let service = "198.51.100.1";
    until("before", || reaches(&w.node, service, 80));
    for deny in [DenyAction::Drop, DenyAction::Reject] {
        w.node.change(|d| {
            globals(d, |g| g.deny = deny);
            set_policy(d, "out", vec![], vec![tcp(Action::Allow, &["80"])]);
            let mut h = uplink();
            h.tiers = deny_tier(&["out"]);
            set_host(d, "uplink", h);
        });
        until("the backend's port counts", || {
            !reaches(&w.node, service, 80)
        });
        w.node.change(|d| {
            set_policy(d, "out", vec![], vec![tcp(Action::Allow, &["8080"])]);
        });
        until("let out", || reaches(&w.node, service, 80));
        assert!(!reaches(&w.node, OUTSIDE[0], OTHER_PORT));
    }
}

#[test]
fn untracked_policy_keeps_connections_out_of_the_table() {
    let mut w = world(open());
    load(
        &w.node.ns,
        "table inet probe { chain in { type filter hook input priority 10;
            tcp dport 8080 ct state untracked counter comment \"free\"
            tcp dport 22 ct state established counter comment \"held\"
 }
 }",
    );
    w.node.change(|d| {
        let mut both = tcp(Action::Allow, &["8080"]);
        both.destination.ports.clear();
        let mut back = both.clone();
        both.destination.ports = vec!["8080".parse().expect("a port")];
        back.source.ports = vec!["8080".parse().expect("a port")];
        set_policy(
            d,
            "fast",
            vec![both.clone(), rule(Action::Deny)],
            vec![back],
        );
        let mut h = uplink();
        h.untracked = pass_tier(&["fast"]);
        set_host(d, "uplink", h);
    });
    settle(&w.node, "jump fhu-");
    for to in HOST {
        until("untracked", || reaches(&w.outside, to, PORT));
        until("failsafe: {to}", || reaches(&w.outside, to, 22));
        assert!(!reaches(&w.outside, to, OTHER_PORT), "denied: {to}");
    }
    let seen = w.node.nft(&["list", "table", "inet", "probe"]);
    for line in seen.lines().filter(|l| l.contains("counter")) {
        assert!(!line.contains("packets 0"), "{line}");
    }
    until("pods are as before", || w.a.reaches(ip(B4), PORT));
}

#[test]
fn what_is_denied_is_answered_when_asked_for() {
    let mut w = world(open());
    w.node.change(|d| {
        globals(d, |g| g.deny = DenyAction::Reject);
        set_policy(
            d,
            "open",
            vec![tcp(Action::Allow, &["8080"])],
            vec![rule(Action::Allow)],
        );
        let mut h = uplink();
        h.pre_dnat = pass_tier(&["ports"]);
        h.pre_dnat[0].egress.clear();
        h.untracked = pass_tier(&["raw"]);
        set_policy(d, "ports", vec![tcp(Action::Deny, &["31000"])], vec![]);
        set_policy(d, "raw", vec![tcp(Action::Deny, &["32000"])], vec![]);
        set_host(d, "uplink", h);
    });
    settle(&w.node, "jump fh-");
    let refused = Some(ErrorKind::ConnectionRefused);
    for (to, pod) in HOST.into_iter().zip([B4, B6]) {
        for port in [OTHER_PORT, 31000, 32000] {
            until("answered", || refusal(&w.outside, to, port) == refused);
        }
        assert_eq!(refusal(&w.outside, pod, OTHER_PORT), refused);
        until("a connection", || reaches(&w.outside, pod, PORT));
    }
    until("a connection", || w.a.reaches(ip(B4), PORT));
}

#[test]
fn limits_of_a_pod() {
    let mut w = world(open());
    w.node.change(|d| {
        let b = d.workloads.get_mut(&workload_key("b")).expect("it");
        Arc::make_mut(b).qos.ingress_connections = Some(2);
    });
    settle(&w.node, "ingress-connections");
    let first = w.a.patient(ip(B4), PORT);
    let mut second = w.a.patient(ip(B6), PORT);
    until("the third is refused", || {
        refusal(&w.outside, B4, PORT) == Some(ErrorKind::ConnectionRefused)
    });
    until("only towards it", || w.b.reaches(ip(A4), PORT));
    assert!(echo(&mut second));
    drop((first, second));
    w.node.change(|d| {
        let b = d.workloads.get_mut(&workload_key("b")).expect("it");
        Arc::make_mut(b).qos = model::Qos {
            ingress_packets: Some((5, 5)),
            ..model::Qos::default()
        };
    });
    settle(&w.node, "ingress-rate");
    let ten = |to: &str| {
        let mut ping = w.a.ns.command("ping").expect("namespace");
        let out = ping.args(["-c20", "-i0.01", "-W1", "-q", to]).output();
        String::from_utf8_lossy(&out.expect("ping").stdout).into_owned()
    };
    let text = ten(B4);
    assert!(!text.contains(" 0% packet loss"), "{text}");
    assert!(!text.contains("100% packet loss"), "{text}");
    until("a connection", || {
        w.b.reaches(ip(A4), PORT) || w.b.reaches(ip(A4), PORT)
    });
    w.node.change(|d| {
        let b = d.workloads.get_mut(&workload_key("b")).expect("it");
        Arc::make_mut(b).qos = model::Qos::default();
    });
    settle_without(&w.node, "ingress-rate");
    assert!(ten(B4).contains(" 0% packet loss"));
}

#[test]
fn dscp_of_what_leaves() {
    let mut w = world(open());
    load(
        &w.outside.ns,
        "table inet probe { chain in { type filter hook input priority 0;
            ip saddr 10.65.0.2 ip dscp 46 counter comment \"pod4\"
            ip6 saddr fd00:65::2 ip6 dscp 46 counter comment \"pod6\"
            ip saddr 192.0.2.1 ip dscp 10 counter comment \"host4\"
            ip saddr 10.65.0.3 ip dscp != 0 counter comment \"none\"
 }
 }",
    );
    load(
        &w.b.ns,
        "table inet probe { chain in { type filter hook input priority 0;
            ip dscp != 0 counter comment \"inside\"
 }
 }",
    );
    w.node.change(|d| {
        let a = d.workloads.get_mut(&workload_key("a")).expect("it");
        Arc::make_mut(a).qos.dscp = Some(46);
        globals(d, |g| g.dscp_exclude = vec![cidr("10.65.0.0/16")]);
        let mut h = uplink();
        h.dscp = Some(10);
        h.profiles = vec![Arc::from("allow")];
        let all = ProfileRules {
            ingress: vec![rule(Action::Allow)],
            egress: vec![rule(Action::Allow)],
        };
        d.profiles.insert(Arc::from("allow"), Arc::new(all));
        set_host(d, "uplink", h);
    });
    settle(&w.node, "chain mark-dscp");
    for to in OUTSIDE {
        until("out", || w.a.reaches(ip(to), PORT));
        until("out", || w.b.reaches(ip(to), PORT));
        until("a connection", || reaches(&w.node, to, PORT));
    }
    until("a connection", || w.a.reaches(ip(B4), PORT));
    let seen = w.outside.nft(&["list", "table", "inet", "probe"]);
    for line in seen.lines().filter(|l| l.contains("counter")) {
        let nothing = line.contains("packets 0 ");
        assert_eq!(nothing, line.contains("none"), "{line}");
    }
    let seen = output(&w.b.ns, "nft", &["list", "table", "inet", "probe"]);
    assert!(seen.contains("packets 0 "), "{seen}");
}

#[test]
fn floating_addresses() {
    let mut w = world(open());
    w.node.change(|d| {
        globals(d, |g| g.floating_ips = true);
        for (name, inside) in [("a", A4), ("b", B4)] {
            let p = d.workloads.get_mut(&workload_key(name)).expect("it");
            Arc::make_mut(p).nats = vec![(ip(inside), ip("203.0.113.1"))];
        }
    });
    settle(&w.node, "floating4");
    let outside = "203.0.113.1";
    until("from outside", || reaches(&w.outside, outside, PORT));
    until("from another pod", || w.b.reaches(ip(outside), PORT));
    until("from itself", || w.a.reaches(ip(outside), PORT));
    until("from the host", || reaches(&w.node, outside, PORT));
    until("a route", || {
        w.node.ip(&["route"]).contains("203.0.113.1 dev cali-a")
    });
    // The other claimant has it next; what was open with the first ends.
    let mut held = connect(&w.outside.ns, ip(outside), PORT).expect("open");
    w.node.change(|d| {
        let p = d.workloads.get_mut(&workload_key("a")).expect("it");
        Arc::make_mut(p).nats.clear();
    });
    until("a route", || {
        w.node.ip(&["route"]).contains("203.0.113.1 dev cali-b")
    });
    until("again", || reaches(&w.outside, outside, PORT));
    until("not with another pod", || !echo(&mut held));
    w.node.change(|d| globals(d, |g| g.floating_ips = false));
    settle_without(&w.node, "floating");
    until("no route", || !w.node.ip(&["route"]).contains(outside));
    assert!(!reaches(&w.outside, outside, PORT));
}

#[test]
fn services_that_nobody_serves_and_ip_in_ip() {
    let mut w = world(open());
    w.node.change(|d| {
        globals(d, |g| {
            g.service_cidrs = vec![cidr("10.96.0.0/12")];
            g.service_loop = ServiceLoop::Reject;
            g.nodes = vec![cidr("192.0.2.7/32")];
        });
    });
    settle(&w.node, "services4");
    let out = {
        let addr = SocketAddr::new(ip("10.96.0.1"), 80);
        let open = move || TcpStream::connect_timeout(&addr, Duration::from_millis(400));
        w.a.ns.run(open).expect("enter").err().map(|e| e.kind())
    };
    assert_eq!(out, Some(ErrorKind::ConnectionRefused));
    until("a connection", || w.a.reaches(ip(B4), PORT));
    let text = w.node.nft(&["list", "chain", "inet", "manx", "input"]);
    assert!(text.contains("ip saddr @ipip-hosts4"), "{text}");
}

#[test]
fn the_host_does_not_answer_for_a_pods_own_address() {
    let mut w = world(open());
    let arp = |node: &Node| node.nft(&["list", "table", "arp", "manx"]);
    until("the address", || {
        arp(&w.node).contains("\"cali-a\" . 10.65.0.2")
    });
    // Asked about a pod's address while the route to it leads elsewhere, it would.
    w.node.running.take().expect("it runs").stop();
    w.node.ip(&["route", "del", A4]);
    w.a.ns
        .run(|| std::fs::write("/proc/sys/net/ipv4/conf/eth0/arp_accept", "0"))
        .expect("enter")
        .expect("a sysctl");
    let asks = |address: &str| {
        let mut ping = w.a.ns.command("ping").expect("namespace");
        let out = ping.args(["-c1", "-W1", "-I", "eth0", address]).output();
        drop(out.expect("ping"));
        output(&w.a.ns, "ip", &["neigh", "show", address])
    };
    output(
        &w.a.ns,
        "ip",
        &["addr", "del", "10.65.0.2/32", "dev", "eth0"],
    );
    output(
        &w.a.ns,
        "ip",
        &["addr", "add", "10.65.0.77/32", "dev", "eth0"],
    );
    output(
        &w.a.ns,
        "ip",
        &["route", "add", "10.65.0.0/24", "dev", "eth0"],
    );
    let own = asks(A4);
    assert!(!own.contains("ee:ee:ee:ee:ee:ee"), "its own: {own}");
    w.node.nft(&["delete", "table", "arp", "manx"]);
    until("so it would be without", || {
        asks(A4).contains("ee:ee:ee:ee:ee:ee")
    });
    until("another's", || asks(B4).contains("ee:ee:ee:ee:ee:ee"));
    w.node.start();
    let whole = delta(&Desired::default(), &w.node.state);
    w.node.handle().apply(whole).expect("it runs");
    w.node.handle().in_sync().expect("it runs");
    until("there again", || {
        w.node.nft(&["list", "tables"]).contains("arp manx")
    });
    w.node.nft(&["delete", "table", "arp", "manx"]);
    until("repaired", || {
        let tables = w.node.nft(&["list", "tables"]);
        tables.contains("arp manx") && arp(&w.node).contains("10.65.0.2")
    });
    w.node
        .change(|d| drop(d.workloads.remove(&workload_key("a"))));
    until("gone", || !arp(&w.node).contains("10.65.0.2"));
}

#[test]
fn counters_survive_their_neighbours() {
    let mut w = world(open());
    let one = |port: &str, note: &str| {
        let mut r = tcp(Action::Allow, &[port]);
        // A name keeps nothing from becoming one rule with others; another action does.
        r.annotations = vec![(Arc::from("name"), Arc::from(note))];
        r
    };
    let rules = |first: Option<Rule>| {
        let deny = tcp(Action::Deny, &["1"]);
        let tail = [one("8080", "web\nsite"), deny, one("9090", "\u{2603}")];
        first.into_iter().chain(tail).collect::<Vec<_>>()
    };
    w.node
        .change(|d| set_policy(d, "open", rules(None), vec![rule(Action::Allow)]));
    settle(&w.node, "name=web site");
    until("let in", || w.a.reaches(ip(B4), PORT));
    let counted = |node: &Node| -> u64 {
        let text = node.nft(&["list", "chain", "inet", "manx", "pi-np-default/open"]);
        let line = text.lines().find(|l| l.contains("name=web site"));
        let count = line.and_then(|l| l.split("packets ").nth(1)?.split(' ').next());
        count.and_then(|n| n.parse().ok()).expect("a counter")
    };
    let before = counted(&w.node);
    assert!(before > 0);
    let deny = tcp(Action::Deny, &["2"]);
    w.node
        .change(|d| set_policy(d, "open", rules(Some(deny)), vec![rule(Action::Allow)]));
    settle(&w.node, "dport 2 ");
    assert_eq!(counted(&w.node), before, "the counter went on");
    w.node.restart();
    w.node.programmed(&workload_key("b"));
    assert_eq!(counted(&w.node), before, "and over a restart");
}

#[test]
fn a_refused_host_policy_is_closed() {
    let mut w = world(open());
    let mut bad = tcp(Action::Allow, &["8080"]);
    bad.source.sets.push(set_id("s:bad"));
    w.node.change(|d| {
        d.sets
            .insert(set_id("s:bad"), nets(&["192.0.0.0/8", "192.0.2.0/24"]));
        set_policy(d, "bad", vec![bad], vec![]);
        let mut h = uplink();
        h.tiers = deny_tier(&["bad"]);
        set_host(d, "uplink", h);
    });
    settle(&w.node, "the kernel refused this chain");
    assert!(!reaches(&w.outside, HOST[0], PORT));
    until("failsafe", || reaches(&w.outside, HOST[0], 22));
    w.node
        .change(|d| drop(d.sets.insert(set_id("s:bad"), nets(&["192.0.0.0/8"]))));
    until("mended", || reaches(&w.outside, HOST[0], PORT));
    let report = w
        .node
        .handle()
        .report(&workload_key("a"))
        .expect("a report");
    assert_eq!(report.state, State::Programmed);
}

/// Ways to write many rules that a packet to 8080 must pass.
fn many(kind: &str, n: u32) -> Vec<Rule> {
    let one = |i: u32| {
        let mut r = tcp(Action::Allow, &["7000"]);
        r.protocol = Some(Protocol::UDP);
        let net = format!("172.{}.{}.{}/32", 16 + i / 65536, i / 256 % 256, i % 256);
        let port = |n: u32| vec![n.to_string().parse().expect("a port")];
        match kind {
            "prefixes" => r.source.nets = vec![cidr(&net)],
            "ports" => r.destination.ports = port(20_000 + 2 * i),
            "targets" => {
                r.destination.ports = port(20_000 + i % 1000);
                r.destination.nets = vec![cidr(&net)];
            }
            _ => {
                // Nothing to fold: a walk.
                r.action = [Action::Deny, Action::Allow][(i % 2) as usize];
                r.destination.ports = port(20_000 + i);
            }
        }
        r
    };
    let mut last = tcp(Action::Allow, &["8080"]);
    last.protocol = Some(Protocol::UDP);
    (0..n).map(one).chain([last]).collect()
}

/// Processor time of this thread, in nanoseconds.
fn busy() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("schedstat");
    let first = text.split(' ').next().and_then(|n| n.parse().ok());
    first.expect("a number")
}

/// `cargo test -- --ignored --nocapture ten_thousand`: what a packet of no established
/// connection costs, from the sender's system call to the receiver's socket.
#[test]
#[ignore = "a measurement"]
fn ten_thousand_rules() {
    const PACKETS: u32 = 20_000;
    let mut w = world(open());
    let sink = w.b.ns.run(|| UdpSocket::bind(("0.0.0.0", PORT)));
    let _sink = sink.expect("enter").expect("a socket");
    for kind in ["prefixes", "ports", "targets", "walk"] {
        let mut costs: [Vec<u64>; 2] = Default::default();
        for _ in 0..9 {
            for (costs, n) in costs.iter_mut().zip([10, 10_000]) {
                let n = if kind == "walk" { n.min(1000) } else { n };
                w.node
                    .change(|d| set_policy(d, "open", many(kind, n), vec![rule(Action::Allow)]));
                w.node.programmed(&workload_key("b"));
                pause(Duration::from_millis(100));
                let cost = w.a.ns.run(move || {
                    let from = UdpSocket::bind("0.0.0.0:0").expect("a socket");
                    let begin = busy();
                    for _ in 0..PACKETS {
                        let _ = from.send_to(b"x", (B4, PORT));
                    }
                    busy() - begin
                });
                costs.push(cost.expect("enter") / u64::from(PACKETS));
            }
        }
        let [few, lots] = costs.map(|mut c| {
            c.sort_unstable();
            c[c.len() / 2]
        });
        println!("{kind}: {few} ns a packet with 10 rules, {lots} ns with many");
    }
}
