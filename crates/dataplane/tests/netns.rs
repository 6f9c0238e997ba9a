//! The loop against the real kernel: rules that hold packets, routes that carry them.

mod support;

use dataplane::{Pending, State};
use desired::*;
use model::{Action, TierAction};
use net::{Family, IfName};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use support::state::*;
use support::*;

const A4: &str = "10.65.0.2";
const A6: &str = "fd00:65::2";
const B4: &str = "10.65.0.3";
const B6: &str = "fd00:65::3";

fn ip(s: &str) -> IpAddr {
    s.parse().expect("an address")
}

fn add_pod(d: &mut Desired, name: &str, interface: &str, addresses: &[&str], policies: &[&str]) {
    let nets: Vec<String> = addresses
        .iter()
        .map(|a| format!("{a}/{}", Family::of(ip(a)).bits()))
        .collect();
    let nets: Vec<&str> = nets.iter().map(String::as_str).collect();
    let mut w = workload(interface, &nets);
    if !policies.is_empty() {
        w.tiers.push(tier("default", TierAction::Deny, policies));
    }
    for n in &w.nets {
        d.routes.insert(*n, RouteTarget::Workload(iface(interface)));
    }
    d.workloads.insert(workload_key(name), Arc::new(w));
}

fn remove_pod(d: &mut Desired, name: &str) {
    if let Some(w) = d.workloads.remove(&workload_key(name)) {
        d.routes.retain(|n, _| !w.nets.contains(n));
    }
}

fn set_policy(d: &mut Desired, name: &str, ingress: Vec<Rule>, egress: Vec<Rule>) {
    d.policies
        .insert(policy_key(name), Arc::new(policy(ingress, egress)));
}

/// Pod a may send all; pod b takes what policy `b` says.
fn two_pods(ingress: Vec<Rule>) -> Desired {
    let mut d = Desired {
        globals: Some(Arc::new(Globals::default())),
        ..Desired::default()
    };
    set_policy(&mut d, "a", vec![], vec![rule(Action::Allow)]);
    set_policy(&mut d, "b", ingress, vec![]);
    add_pod(&mut d, "a", "cali-a", &[A4, A6], &["a"]);
    add_pod(&mut d, "b", "cali-b", &[B4, B6], &["b"]);
    d
}

struct Pair {
    node: Node,
    a: Pod,
    b: Pod,
}

fn pair(ingress: Vec<Rule>) -> Pair {
    let node = Node::new(two_pods(ingress));
    let a = Pod::new(&node, "cali-a", &[A4, A6]);
    let b = Pod::new(&node, "cali-b", &[B4, B6]);
    node.programmed(&workload_key("a"));
    node.programmed(&workload_key("b"));
    Pair { node, a, b }
}

fn applied(node: &Node, name: &str) {
    node.programmed(&workload_key(name));
}

#[test]
fn policy_is_held_and_a_change_flips_it() {
    let Pair { mut node, a, b } = pair(vec![]);
    for to in [B4, B6] {
        assert!(!a.reaches(ip(to), PORT), "denied by default: {to}");
        assert!(!a.ping(ip(to)));
    }
    node.change(|d| set_policy(d, "b", vec![tcp(Action::Allow, &["8080"])], vec![]));
    for to in [B4, B6] {
        until("allowed", || a.reaches(ip(to), PORT));
        assert!(!a.reaches(ip(to), OTHER_PORT), "only that port: {to}");
        assert!(!a.ping(ip(to)), "only TCP: {to}");
    }
    assert!(!b.reaches(ip(A4), PORT), "b may send nothing");
    node.change(|d| set_policy(d, "b", vec![rule(Action::Allow)], vec![]));
    for to in [B4, B6] {
        until("all allowed", || a.ping(ip(to)));
        assert!(a.reaches(ip(to), OTHER_PORT));
    }
    node.change(|d| set_policy(d, "b", vec![], vec![]));
    for to in [B4, B6] {
        until("denied again", || !a.reaches(ip(to), PORT));
    }
}

#[test]
fn a_set_gains_and_loses_members() {
    let mut allow = tcp(Action::Allow, &["8080"]);
    allow.source.sets.push(set_id("s:clients"));
    let mut state = two_pods(vec![allow]);
    state.sets.insert(set_id("s:clients"), nets(&[]));
    let mut node = Node::new(state);
    let a = Pod::new(&node, "cali-a", &[A4, A6]);
    let _b = Pod::new(&node, "cali-b", &[B4, B6]);
    applied(&node, "a");
    applied(&node, "b");
    assert!(!a.reaches(ip(B4), PORT), "an empty set matches nobody");
    node.change(|d| drop(d.sets.insert(set_id("s:clients"), nets(&["10.65.0.0/28"]))));
    until("a member", || a.reaches(ip(B4), PORT));
    assert!(!a.reaches(ip(B6), PORT), "not of the other family");
    node.change(|d| {
        drop(
            d.sets
                .insert(set_id("s:clients"), nets(&["fd00:65::2/128"])),
        )
    });
    until("a member", || a.reaches(ip(B6), PORT));
    assert!(!a.reaches(ip(B4), PORT), "no longer");
}

#[test]
fn pods_and_their_host() {
    let Pair { mut node, a, .. } = pair(vec![]);
    let server = node
        .ns
        .run(|| std::net::TcpListener::bind("192.0.2.1:8080"))
        .expect("enter")
        .expect("listen");
    std::thread::spawn(move || {
        for s in server.incoming().flatten() {
            std::thread::spawn(move || {
                let mut s = s;
                let _ = std::io::copy(&mut s.try_clone().expect("a socket"), &mut s);
            });
        }
    });
    assert!(!a.reaches(ip("192.0.2.1"), PORT), "pod to host is dropped");
    assert!(
        support::connect(&node.ns, ip(B4), PORT).is_some(),
        "host to pod is never held"
    );
    assert!(support::ping(&node.ns, ip(B6)));
    let open = Globals {
        endpoint_to_host: HostAction::Accept,
        ..Globals::default()
    };
    node.change(|d| d.globals = Some(Arc::new(open)));
    until("accepted", || a.reaches(ip("192.0.2.1"), PORT));
}

#[test]
fn a_source_that_is_not_its_own_goes_nowhere() {
    let Pair { node, a, b } = pair(vec![rule(Action::Allow)]);
    let _ = &b;
    for (from, to, bits) in [("10.65.0.99", B4, "32"), ("fd00:65::99", B6, "128")] {
        output(
            &a.ns,
            "ip",
            &[
                "addr",
                "add",
                &format!("{from}/{bits}"),
                "dev",
                "eth0",
                "nodad",
            ][..if bits == "32" { 5 } else { 6 }],
        );
        let mut ping = a.ns.command("ping").expect("namespace");
        let out = ping
            .args(["-c1", "-W1", "-n", "-I", from, to])
            .output()
            .expect("ping");
        assert!(!out.status.success(), "spoofed from {from}");
        assert!(a.ping(ip(to)), "from its own");
    }
    let text = node.nft(&["list", "chain", "inet", "manx", "raw-prerouting"]);
    let counted = text
        .lines()
        .filter(|l| l.contains("drop") && !l.contains("packets 0"));
    assert_eq!(counted.count(), 2, "both families counted: {text}");
}

#[test]
fn a_restart_changes_nothing_and_loses_nothing() {
    let Pair { mut node, a, .. } = pair(vec![rule(Action::Allow)]);
    let before = (
        node.rules(),
        node.ip(&["-d", "route"]),
        node.ip(&["-6", "route"]),
    );
    let mut held = a.patient(ip(B4), PORT);
    let stop = Arc::new(AtomicBool::new(false));
    let prober = std::thread::spawn({
        let stop = stop.clone();
        move || {
            let mut n = 0;
            while !stop.load(Ordering::Relaxed) {
                assert!(a.reaches(ip(B4), PORT), "new connections go on");
                assert!(echo(&mut held), "the old one too");
                n += 1;
            }
            (n, a)
        }
    });
    for _ in 0..3 {
        node.restart();
        applied(&node, "a");
        applied(&node, "b");
    }
    stop.store(true, Ordering::Relaxed);
    let (n, a) = prober.join().expect("no probe fails");
    assert!(n > 3, "probes ran all along");
    let after = (
        node.rules(),
        node.ip(&["-d", "route"]),
        node.ip(&["-6", "route"]),
    );
    assert_eq!(before, after, "same handles: nothing was written");
    assert_eq!(node.handle().metrics().nft_commits.get(), 0);
    // While it is down policy holds, and what changed meanwhile is made good.
    node.running.take().expect("it runs").stop();
    assert!(a.reaches(ip(B4), PORT));
    set_policy(&mut node.state, "b", vec![], vec![]);
    node.start();
    let whole = delta(&Desired::default(), &node.state);
    node.handle().apply(whole).expect("it runs");
    assert!(
        a.reaches(ip(B4), PORT),
        "nothing is written before it is in sync"
    );
    node.handle().in_sync().expect("it runs");
    until("denied", || !a.reaches(ip(B4), PORT));
}

#[test]
fn an_interface_that_vanishes_and_returns() {
    let Pair { mut node, a, b } = pair(vec![rule(Action::Allow)]);
    let key = workload_key("b");
    node.ip(&["link", "del", "cali-b"]);
    node.wait(&key, "no interface", |r| {
        r.is_some_and(|r| r.state == State::Pending(Pending::NoInterface))
    });
    b.plug(&node);
    node.programmed(&key);
    until("reachable again", || {
        a.reaches(ip(B4), PORT) && a.reaches(ip(B6), PORT)
    });
    node.ip(&["link", "set", "cali-b", "down"]);
    node.wait(&key, "down", |r| {
        r.is_some_and(|r| r.state == State::Pending(Pending::InterfaceDown))
    });
    node.ip(&["link", "set", "cali-b", "up"]);
    node.programmed(&key);
    until("reachable again", || a.reaches(ip(B4), PORT));
    node.change(|d| remove_pod(d, "b"));
    node.removed(&key);
    assert!(
        !node.rules().contains("cali-b"),
        "nothing is left: {}",
        node.rules()
    );
    assert!(!node.ip(&["route"]).contains(B4));
    assert!(!a.reaches(ip(B4), PORT));
}

#[test]
fn connections_of_a_removed_pod_are_forgotten() {
    let Pair { mut node, a, .. } = pair(vec![rule(Action::Allow)]);
    let mut held = a.patient(ip(B4), PORT);
    assert!(echo(&mut held));
    node.change(|d| {
        remove_pod(d, "b");
        // Its address goes to another, which lets nobody in.
        set_policy(d, "c", vec![], vec![]);
        add_pod(d, "c", "cali-c", &[B4], &["c"]);
    });
    let c = Pod::new(&node, "cali-c", &[B4]);
    applied(&node, "c");
    assert!(!echo(&mut held), "not established any more");
    drop(c);
}

#[test]
fn what_others_change_is_repaired() {
    let Pair { node, a, .. } = pair(vec![]);
    let before = node.nft(&["-s", "list", "table", "inet", "manx"]);
    let entry = before
        .split("\"cali-b\" : jump tw-")
        .nth(1)
        .expect("an entry");
    let chain = format!("tw-{}", entry.split_whitespace().next().expect("a name"));
    let begin = Instant::now();
    node.nft(&["flush", "chain", "inet", "manx", &chain]);
    node.nft(&["insert", "rule", "inet", "manx", "forward-to", "accept"]);
    until("repaired", || {
        node.nft(&["-s", "list", "table", "inet", "manx"]) == before
    });
    assert!(begin.elapsed() < Duration::from_secs(1), "within a second");
    assert!(!a.reaches(ip(B4), PORT));
    node.nft(&["delete", "table", "inet", "manx"]);
    until("all of it", || {
        let all = node.nft(&["-s", "list", "ruleset"]);
        all.contains(&chain) && node.nft(&["-s", "list", "table", "inet", "manx"]) == before
    });
    assert!(node.handle().metrics().nft_repairs.get() >= 2);
    node.ip(&["route", "del", B4]);
    until("the route", || node.ip(&["route"]).contains(B4));
}

#[test]
fn routes_of_others_stay_and_strangers_have_their_grace() {
    let mut node = Node::new(two_pods(vec![]));
    node.running.take().expect("it runs").stop();
    let mut node = node.with_grace(Duration::from_millis(300));
    node.start();
    let whole = delta(&Desired::default(), &node.state);
    node.handle().apply(whole).expect("it runs");
    node.handle().in_sync().expect("it runs");
    let _a = Pod::new(&node, "cali-a", &[A4, A6]);
    node.wait(&workload_key("a"), "programmed", |r| {
        r.is_some_and(|r| r.state == State::Programmed)
    });
    node.ip(&["route", "add", "198.51.100.0/24", "dev", "uplink"]);
    let begin = Instant::now();
    node.ip(&[
        "route",
        "add",
        "10.65.0.77/32",
        "dev",
        "cali-a",
        "proto",
        "boot",
    ]);
    assert!(node.ip(&["route"]).contains("10.65.0.77"));
    until("the stranger goes", || {
        !node.ip(&["route"]).contains("10.65.0.77")
    });
    assert!(
        begin.elapsed() >= Duration::from_millis(250),
        "after its grace"
    );
    assert!(node.ip(&["route"]).contains("198.51.100.0/24"), "not ours");
    node.change(|d| {
        d.routes
            .extend([(cidr("10.65.0.0/26"), RouteTarget::Blackhole)])
    });
    until("a blackhole", || {
        node.ip(&["route"])
            .contains("blackhole 10.65.0.0/26 proto 80")
    });
    node.change(|d| d.routes.retain(|n, _| *n != cidr("10.65.0.0/26")));
    until("it goes", || !node.ip(&["route"]).contains("blackhole"));
}

#[test]
fn one_bad_object_does_not_stop_the_others() {
    // Overlapping members break the contract; the kernel refuses them.
    let mut allow = tcp(Action::Allow, &["8080"]);
    allow.source.sets.push(set_id("s:bad"));
    let mut state = two_pods(vec![rule(Action::Allow)]);
    set_policy(&mut state, "bad", vec![allow], vec![]);
    add_pod(&mut state, "c", "cali-c", &["10.65.0.4"], &["bad"]);
    state
        .sets
        .insert(set_id("s:bad"), nets(&["10.0.0.0/8", "10.65.0.0/16"]));
    let mut node = Node::new(state);
    let a = Pod::new(&node, "cali-a", &[A4, A6]);
    let _b = Pod::new(&node, "cali-b", &[B4, B6]);
    let _c = Pod::new(&node, "cali-c", &["10.65.0.4"]);
    applied(&node, "a");
    applied(&node, "b");
    a.patient(ip(B4), PORT);
    node.wait(&workload_key("c"), "failed", |r| {
        r.is_some_and(|r| matches!(r.state, State::Failed(_)))
    });
    assert!(!a.reaches(ip("10.65.0.4"), PORT), "closed");
    node.change(|d| drop(d.sets.insert(set_id("s:bad"), nets(&["10.0.0.0/8"]))));
    applied(&node, "c");
    a.patient(ip("10.65.0.4"), PORT);
}

/// One of two nodes with a tunnel of each family, and one pod.
fn tunnelled(n: u8) -> Desired {
    let other = 3 - n;
    let mac = |n: u8| format!("66:00:00:00:00:{n:02x}").parse().expect("a MAC");
    let end = |f: Family, n: u8| match f {
        Family::V4 => (ip(&format!("10.65.{n}.1")), ip(&format!("192.0.2.{n}"))),
        Family::V6 => (
            ip(&format!("fd00:65:{n}::1")),
            ip(&format!("2001:db8::{n}")),
        ),
    };
    let tunnel = |f: Family, device: &str| {
        let (address, host) = end(f, n);
        Some(Tunnel {
            device: iface(device),
            vni: 4096,
            port: 4789,
            address: Some(address),
            mac: mac(n),
            host,
            mtu: None,
        })
    };
    let g = Globals {
        tunnels: [
            tunnel(Family::V4, "vxlan.calico"),
            tunnel(Family::V6, "vxlan-v6.calico"),
        ],
        ..Globals::default()
    };
    let mut d = Desired {
        globals: Some(Arc::new(g)),
        ..Desired::default()
    };
    set_policy(
        &mut d,
        "all",
        vec![rule(Action::Allow)],
        vec![rule(Action::Allow)],
    );
    let addresses = [format!("10.65.{n}.2"), format!("fd00:65:{n}::2")];
    add_pod(
        &mut d,
        "pod",
        "cali-p",
        &[&addresses[0], &addresses[1]],
        &["all"],
    );
    for (f, block) in [
        (Family::V4, format!("10.65.{other}.0/26")),
        (Family::V6, format!("fd00:65:{other}::/122")),
    ] {
        let (tunnel, host) = end(f, other);
        d.routes
            .insert(cidr(&block), RouteTarget::Vxlan { via: tunnel });
        let vtep = Vtep {
            tunnel,
            mac: mac(other),
            host,
        };
        d.vteps.insert((Arc::from(format!("node{other}")), f), vtep);
    }
    d
}

#[test]
fn pods_of_two_nodes_through_the_tunnel() {
    let one = Node::numbered(1, tunnelled(1));
    let mut two = Node::numbered(2, tunnelled(2));
    one.join(&two);
    let a = Pod::new(&one, "cali-p", &["10.65.1.2", "fd00:65:1::2"]);
    let _b = Pod::new(&two, "cali-p", &["10.65.2.2", "fd00:65:2::2"]);
    one.programmed(&workload_key("pod"));
    two.programmed(&workload_key("pod"));
    for to in ["10.65.2.2", "fd00:65:2::2"] {
        a.patient(ip(to), PORT);
        let from_host = || support::connect(&one.ns, ip(to), PORT).is_some();
        until(
            &format!("the host reaches {to} with its tunnel's address"),
            from_host,
        );
    }
    let before = (
        two.rules(),
        two.ip(&["-d", "link", "show", "type", "vxlan"]),
    );
    two.restart();
    two.programmed(&workload_key("pod"));
    let after = (
        two.rules(),
        two.ip(&["-d", "link", "show", "type", "vxlan"]),
    );
    assert_eq!(before, after, "devices and rules are as they were");
    a.patient(ip("10.65.2.2"), PORT);
    // What others take from the tunnel comes back.
    two.ip(&["neigh", "flush", "dev", "vxlan.calico", "nud", "permanent"]);
    until("the far end again", || {
        two.ip(&["neigh", "show", "dev", "vxlan.calico"])
            .contains("10.65.1.1")
    });
    // A node that is not known may send nothing.
    two.change(|d| d.vteps.clear());
    until("closed", || {
        !a.reaches(ip("10.65.2.2"), PORT) && !a.reaches(ip("fd00:65:2::2"), PORT)
    });
    two.change(|d| d.globals = Some(Arc::new(Globals::default())));
    until("no devices", || {
        two.ip(&["link", "show", "type", "vxlan"]).is_empty()
    });
    until("no routes", || !two.ip(&["route"]).contains("10.65.1.0/26"));
}

#[test]
fn a_thousand_policies_on_one_endpoint() {
    let mut d = two_pods(vec![]);
    let names: Vec<String> = (0..1000).map(|i| format!("p{i}")).collect();
    for (i, n) in names.iter().enumerate() {
        let last = i == names.len() - 1;
        let port = if last {
            "8080".to_owned()
        } else {
            (10_000 + i).to_string()
        };
        set_policy(&mut d, n, vec![tcp(Action::Allow, &[&port])], vec![]);
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    add_pod(&mut d, "b", "cali-b", &[B4, B6], &names);
    let node = Node::new(d);
    let a = Pod::new(&node, "cali-a", &[A4, A6]);
    let _b = Pod::new(&node, "cali-b", &[B4, B6]);
    applied(&node, "b");
    applied(&node, "a");
    a.patient(ip(B4), PORT);
    assert!(!a.reaches(ip(B4), OTHER_PORT), "none allows");
}

/// `cargo test -- --ignored --nocapture latency`: from the hand-over of a delta until the
/// kernel has it.
#[test]
#[ignore = "a measurement"]
fn latency_with_100_endpoints_and_200_policies() {
    let mut d = Desired {
        globals: Some(Arc::new(Globals::default())),
        ..Desired::default()
    };
    let names: Vec<String> = (0..200).map(|i| format!("p{i}")).collect();
    for (i, n) in names.iter().enumerate() {
        let port = (1000 + i).to_string();
        let mut from = tcp(Action::Allow, &[&port]);
        from.source.sets.push(set_id("s:all"));
        set_policy(
            &mut d,
            n,
            vec![from, tcp(Action::Deny, &["22"])],
            vec![rule(Action::Allow)],
        );
    }
    d.sets.insert(set_id("s:all"), nets(&["10.65.0.0/16"]));
    let mut interfaces: BTreeSet<IfName> = BTreeSet::new();
    for i in 0..100 {
        let mine: Vec<&str> = (0..10).map(|k| names[(i * 2 + k) % 200].as_str()).collect();
        let interface = format!("cali{i}");
        let address = format!("10.65.{}.{}", i / 250, i % 250 + 2);
        add_pod(&mut d, &format!("pod{i}"), &interface, &[&address], &mine);
        interfaces.insert(iface(&interface));
    }
    let mut node = Node::new(d);
    let mut links = link::Handle::open_in(&node.ns).expect("socket");
    for name in interfaces {
        links
            .create_bridge(&link::VethEnd::named(name))
            .expect("a device");
        let index = links.index_of(name).expect("it");
        links.set_up(index, true).expect("up");
    }
    for i in 0..100 {
        applied(&node, &format!("pod{i}"));
    }
    let timed = |node: &mut Node, what: &str, f: &mut dyn FnMut(&mut Desired, u16)| {
        let mut times = Vec::new();
        for i in 0..20 {
            let mut state = node.state.clone();
            f(&mut state, i);
            let step = delta(&node.state, &state);
            node.state = state;
            let before = node.handle().metrics().nft_commits.get();
            let begin = Instant::now();
            node.handle().apply(step).expect("it runs");
            while node.handle().metrics().nft_commits.get() == before {
                std::hint::spin_loop();
            }
            times.push(begin.elapsed());
            pause(Duration::from_millis(20));
        }
        times.sort();
        println!("{what}: median {:?}, worst {:?}", times[10], times[19]);
    };
    timed(&mut node, "one rule of one policy", &mut |d, i| {
        let port = (2000 + i).to_string();
        set_policy(d, "p7", vec![tcp(Action::Allow, &[&port])], vec![]);
    });
    timed(&mut node, "one member of one set", &mut |d, i| {
        let net = format!("192.0.2.{i}/32");
        d.sets
            .insert(set_id("s:all"), nets(&["10.65.0.0/16", &net]));
    });
    timed(&mut node, "a new endpoint", &mut |d, i| {
        let address = format!("10.66.0.{}", i + 1);
        add_pod(
            d,
            &format!("new{i}"),
            &format!("calinew{i}"),
            &[&address],
            &["p1", "p2", "p3"],
        );
    });
}
