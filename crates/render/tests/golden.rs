//! Rulesets as text: one file a state, reviewed by eye, accepted by `nft`.
//! `BLESS=1` writes the files anew.

mod support;

use desired::*;
use model::{Action, Icmp, TierAction};
use net::{Family, Protocol};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use support::*;

/// `nft -c` in a namespace of its own.
fn accepted(text: &str) -> Result<(), String> {
    let mut nft = Command::new("unshare")
        .args(["-Urn", "nft", "-c", "-f", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("unshare and nft are there");
    nft.stdin
        .take()
        .expect("piped")
        .write_all(text.as_bytes())
        .expect("nft reads");
    let out = nft.wait_with_output().expect("nft ends");
    if out.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&out.stderr).into_owned())
    }
}

#[track_caller]
fn check(name: &str, state: &Desired) {
    let text = render(state).0.to_string();
    if let Err(e) = accepted(&text) {
        panic!("{name}: nft refuses:\n{e}\n{text}");
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&file, &text).expect("write the golden file");
        return;
    }
    let golden = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(golden == text, "{name} differs (BLESS=1 accepts):\n{text}");
}

#[test]
fn nothing_at_all() {
    check("empty.nft", &Desired::default());
}

#[test]
fn deny_all() {
    check(
        "deny-all.nft",
        &one_pod(&[("deny", policy(vec![], vec![]))]),
    );
}

#[test]
fn no_policy_goes_to_the_profiles() {
    let mut d = one_pod(&[]);
    let id: Arc<str> = Arc::from("kns.default");
    let rules = ProfileRules {
        ingress: vec![rule(Action::Allow)],
        egress: vec![rule(Action::Allow)],
    };
    d.profiles.insert(id.clone(), Arc::new(rules));
    let missing: Arc<str> = Arc::from("ksa.default.missing");
    d.profiles.insert(missing.clone(), Arc::default());
    for w in d.workloads.values_mut() {
        Arc::make_mut(w).profiles = vec![id.clone(), missing.clone()];
    }
    check("profile.nft", &d);
}

#[test]
fn allow_by_selector() {
    let mut r = tcp(Action::Allow, &["80", "8080:8090"]);
    r.source.sets.push(set_id("s:frontend"));
    let mut deny = rule(Action::Deny);
    deny.source.not_sets.push(set_id("s:backend"));
    let mut d = one_pod(&[("web", policy(vec![r, deny], vec![rule(Action::Allow)]))]);
    d.sets.insert(
        set_id("s:frontend"),
        nets(&["10.65.1.0/24", "fd00:65::7/128"]),
    );
    d.sets.insert(set_id("s:backend"), nets(&[]));
    check("selector.nft", &d);
}

#[test]
fn named_and_numeric_ports_are_one_list() {
    let mut r = tcp(Action::Allow, &["80"]);
    r.destination.port_sets.push(set_id("n:http"));
    r.source.not_ports.push("1:1023".parse().expect("range"));
    let mut log = r.clone();
    log.action = Action::Log;
    let mut not = rule(Action::Deny);
    not.destination.not_port_sets.push(set_id("n:http"));
    let mut d = one_pod(&[("web", policy(vec![log, r, not], vec![]))]);
    d.sets.insert(
        set_id("n:http"),
        ports(&[
            ("10.65.0.2", Protocol::TCP, 8080),
            ("fd00:65::2", Protocol::TCP, 8080),
        ]),
    );
    check("named-ports.nft", &d);
}

#[test]
fn ports_without_a_protocol() {
    let mut r = rule(Action::Allow);
    r.destination.ports.push("53".parse().expect("port"));
    check(
        "ports-any-protocol.nft",
        &one_pod(&[("dns", policy(vec![], vec![r]))]),
    );
}

#[test]
fn tiers_that_pass() {
    let mut d = one_pod(&[("last", policy(vec![rule(Action::Allow)], vec![]))]);
    let mut pass = tcp(Action::Pass, &["443"]);
    pass.source.nets.push(cidr("192.0.2.0/24"));
    let first = policy(vec![pass.clone(), tcp(Action::Deny, &["22"])], vec![]);
    d.policies.insert(policy_key("first"), Arc::new(first));
    d.policies.insert(
        policy_key("plain"),
        Arc::new(policy(vec![tcp(Action::Allow, &["1"])], vec![])),
    );
    for w in d.workloads.values_mut() {
        let w = Arc::make_mut(w);
        w.tiers
            .insert(0, tier("admin", TierAction::Pass, &["first", "plain"]));
        w.tiers
            .insert(1, tier("security", TierAction::Deny, &["first"]));
        for t in &mut w.tiers {
            t.egress.clear();
        }
    }
    check("pass.nft", &d);
}

#[test]
fn log_with_specifiers() {
    let mut d = one_pod(&[(
        "web",
        policy(vec![rule(Action::Log), rule(Action::Allow)], vec![]),
    )]);
    let g = Globals {
        log_prefix: "%t|%k|%n|%p|%x 100%".to_owned(),
        ..Globals::default()
    };
    d.globals = Some(Arc::new(g));
    check("log.nft", &d);
}

#[test]
fn icmp_and_its_negation() {
    let mut echo = rule(Action::Allow);
    echo.protocol = Some(Protocol::ICMP);
    echo.icmp = Some(Icmp {
        icmp_type: Some(8),
        code: None,
    });
    let mut not = rule(Action::Allow);
    not.protocol = Some(Protocol::ICMP);
    not.not_icmp = Some(Icmp {
        icmp_type: Some(3),
        code: Some(4),
    });
    let mut six = rule(Action::Allow);
    six.protocol = Some(Protocol::ICMPV6);
    six.not_icmp = Some(Icmp {
        icmp_type: Some(128),
        code: None,
    });
    let mut any = rule(Action::Allow);
    any.not_icmp = Some(Icmp {
        icmp_type: Some(8),
        code: Some(0),
    });
    let mut other = rule(Action::Allow);
    other.not_protocol = Some(Protocol::SCTP);
    check(
        "icmp.nft",
        &one_pod(&[("icmp", policy(vec![echo, not, six, any, other], vec![]))]),
    );
}

#[test]
fn nets_of_both_families() {
    let with = |f: fn(&mut Rule)| {
        let mut r = rule(Action::Allow);
        f(&mut r);
        r
    };
    let rules = vec![
        with(|r| {
            r.source.nets = vec![cidr("10.0.0.0/8"), cidr("192.168.0.0/16"), cidr("fd00::/8")]
        }),
        with(|r| r.source.nets = vec![cidr("203.0.113.7/32")]),
        // The IPv6 half is absent: its list has nothing left.
        with(|r| {
            r.source.nets = vec![cidr("10.0.0.0/8"), cidr("fd00::/8")];
            r.destination.not_nets = vec![cidr("10.1.0.0/16")];
        }),
        // Nothing lies outside of everything: absent.
        with(|r| r.source.not_nets = vec![cidr("0.0.0.0/0")]),
        with(|r| r.source.nets = vec![cidr("0.0.0.0/0")]),
        with(|r| r.family = Some(Family::V6)),
    ];
    check("nets.nft", &one_pod(&[("nets", policy(rules, vec![]))]));
}

fn tunnel(address: &str, host: &str, device: &str) -> Tunnel {
    Tunnel {
        device: iface(device),
        vni: 4096,
        port: 4789,
        address: Some(address.parse().expect("an address")),
        mac: "66:00:00:00:00:01".parse().expect("a MAC"),
        host: host.parse().expect("an address"),
        mtu: None,
    }
}

#[test]
fn vxlan_guard_and_host_traffic() {
    let mut d = one_pod(&[]);
    let g = Globals {
        tunnels: [
            Some(tunnel("10.65.0.1", "192.0.2.1", "vxlan.calico")),
            Some(tunnel("fd00:65::1", "2001:db8::1", "vxlan-v6.calico")),
        ],
        external_vxlan: vec![cidr("198.51.100.0/24")],
        ..Globals::default()
    };
    d.globals = Some(Arc::new(g));
    let vtep = Vtep {
        tunnel: "10.65.1.1".parse().expect("an address"),
        mac: "66:00:00:00:00:02".parse().expect("a MAC"),
        host: "192.0.2.2".parse().expect("an address"),
    };
    d.vteps.insert((Arc::from("node2"), Family::V4), vtep);
    check("vxlan.nft", &d);
}

#[test]
fn nat_outgoing() {
    let mut d = one_pod(&[]);
    let mut g = Globals::default();
    g.nat.sources = vec![cidr("10.65.0.0/16"), cidr("fd00:65::/64")];
    g.nat.exclude = vec![
        cidr("10.65.0.0/16"),
        cidr("10.66.0.0/16"),
        cidr("fd00:65::/64"),
    ];
    d.globals = Some(Arc::new(g.clone()));
    check("nat.nft", &d);
    g.nat.ports = Some("32768:65535".parse().expect("a range"));
    g.nat.address = Some("192.0.2.9".parse().expect("an address"));
    d.globals = Some(Arc::new(g));
    check("nat-ports.nft", &d);
}

#[test]
fn spoofing_and_other_settings() {
    let mut d = one_pod(&[]);
    for w in d.workloads.values_mut() {
        Arc::make_mut(w).allowed_sources = vec![cidr("172.16.0.0/12"), cidr("fd01::/16")];
    }
    let g = Globals {
        spoofing: Spoofing::Any,
        endpoint_to_host: HostAction::Accept,
        allow_invalid: true,
        allow_vxlan_from_workloads: true,
        allow_ipip_from_workloads: true,
        interface_prefixes: vec!["cali".to_owned(), "tap".to_owned()],
        ..Globals::default()
    };
    d.globals = Some(Arc::new(g));
    check("settings.nft", &d);
}

fn host_tier(names: &[&str]) -> Vec<TierPolicies> {
    vec![tier("default", TierAction::Deny, names)]
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

fn with_hosts(policies: &[(&str, PolicyRules)], hosts: Vec<(&str, HostPolicy)>) -> Desired {
    let mut d = Desired {
        globals: Some(Arc::new(Globals::default())),
        ..Desired::default()
    };
    for (n, p) in policies {
        d.policies.insert(policy_key(n), Arc::new(p.clone()));
    }
    for (n, h) in hosts {
        d.hosts.insert(Arc::from(n), Arc::new(h));
    }
    d
}

fn change(d: &mut Desired, f: impl FnOnce(&mut Globals)) {
    let mut g = d.globals.as_deref().cloned().unwrap_or_default();
    f(&mut g);
    d.globals = Some(Arc::new(g));
}

fn ssh() -> PolicyRules {
    policy(
        vec![tcp(Action::Allow, &["2222"])],
        vec![tcp(Action::Allow, &["443"])],
    )
}

#[test]
fn host_endpoint_of_an_interface() {
    let mut h = host(HostMatch::Interface(iface("eth0")));
    h.tiers = host_tier(&["ssh"]);
    let mut d = with_hosts(&[("ssh", ssh())], vec![("node1-eth0", h)]);
    let far = Failsafe {
        protocol: Protocol::UDP,
        port: 500,
        net: Some(cidr("198.51.100.0/24")),
    };
    change(&mut d, |g| {
        g.nodes = vec![cidr("192.0.2.2/32"), cidr("192.0.2.3/32")];
        g.failsafe_in.push(far);
    });
    check("host.nft", &d);
    change(&mut d, |g| {
        g.deny = DenyAction::Reject;
        g.allow_invalid = true;
    });
    check("host-reject.nft", &d);
}

#[test]
fn forwarded_traffic_of_host_endpoints() {
    let mut eth0 = host(HostMatch::Interface(iface("eth0")));
    eth0.forward = host_tier(&["ssh"]);
    let mut all = host(HostMatch::Any);
    all.forward = vec![tier("default", TierAction::Pass, &["ssh"])];
    let profile: Arc<str> = Arc::from("projectcalico-default-allow");
    all.profiles = vec![profile.clone()];
    // Has nothing to say of what is forwarded: `*` is not asked there.
    let mut eth1 = host(HostMatch::Interface(iface("eth1")));
    eth1.profiles = vec![profile.clone()];
    let mut d = with_hosts(
        &[("ssh", ssh())],
        vec![("a", eth0), ("b", eth1), ("z", all)],
    );
    let open = ProfileRules {
        ingress: vec![rule(Action::Allow)],
        egress: vec![rule(Action::Allow)],
    };
    d.profiles.insert(profile, Arc::new(open));
    check("host-forward.nft", &d);
}

#[test]
fn untracked_and_before_translation() {
    let mut eth0 = host(HostMatch::Interface(iface("eth0")));
    eth0.untracked = vec![tier("default", TierAction::Pass, &["fast"])];
    eth0.pre_dnat = vec![tier("default", TierAction::Pass, &["ports"])];
    for t in &mut eth0.pre_dnat {
        t.egress.clear();
    }
    let fast = policy(
        vec![tcp(Action::Allow, &["11211"]), rule(Action::Deny)],
        vec![tcp(Action::Pass, &["1"]), rule(Action::Allow)],
    );
    let ports = policy(
        vec![
            tcp(Action::Allow, &["30080"]),
            tcp(Action::Deny, &["30000:32767"]),
        ],
        vec![],
    );
    let d = with_hosts(&[("fast", fast), ("ports", ports)], vec![("a", eth0)]);
    check("host-raw.nft", &d);
}

#[test]
fn limits_of_a_workload() {
    let mut d = one_pod(&[]);
    for w in d.workloads.values_mut() {
        Arc::make_mut(w).qos = model::Qos {
            ingress_packets: Some((1000, 50)),
            egress_packets: Some((2000, 100)),
            ingress_connections: Some(10),
            egress_connections: Some(20),
            dscp: Some(46),
        };
    }
    change(&mut d, |g| {
        g.dscp_exclude = vec![cidr("10.65.0.0/16"), cidr("192.0.2.1/32")];
    });
    let mut eth0 = host(HostMatch::Interface(iface("eth0")));
    eth0.dscp = Some(10);
    d.hosts.insert(Arc::from("a"), Arc::new(eth0));
    check("limits.nft", &d);
}

#[test]
fn answers_of_name_servers() {
    let mut named = rule(Action::Allow);
    named.destination.sets.push(set_id("d:names"));
    let mut d = one_pod(&[("web", policy(vec![], vec![named]))]);
    d.sets.insert(set_id("d:names"), nets(&["192.0.2.7/32"]));
    d.domains = vec![Arc::from("*.example.org")].into();
    change(&mut d, |g| {
        g.interface_prefixes = vec!["cali".to_owned(), "tap".to_owned()];
    });
    check("answers.nft", &d);
}

#[test]
fn floating_addresses_and_services() {
    let mut d = one_pod(&[]);
    let ip = |s: &str| s.parse().expect("an address");
    for w in d.workloads.values_mut() {
        Arc::make_mut(w).nats = vec![
            (ip("10.65.0.2"), ip("203.0.113.1")),
            (ip("10.65.0.2"), ip("203.0.113.2")),
            (ip("fd00:65::2"), ip("2001:db8:f::1")),
        ];
    }
    // Comes later by name: the address is the other's.
    let mut second = workload("cali2", &["10.65.0.3/32"]);
    second.nats = vec![(ip("10.65.0.3"), ip("203.0.113.1"))];
    d.workloads.insert(workload_key("web2"), Arc::new(second));
    change(&mut d, |g| {
        g.floating_ips = true;
        g.service_cidrs = vec![cidr("10.96.0.0/12"), cidr("fd00:96::/112")];
        g.service_loop = ServiceLoop::Reject;
        g.nat.sources = vec![cidr("10.65.0.0/16")];
        g.nat.interface = Some("eth+".to_owned());
    });
    check("floating.nft", &d);
    let (_, changes) = render(&d);
    let over = |a: &str| changes.routes[&cidr(a)].as_ref().map(|r| r.via.clone());
    let first = Some(render::RouteVia::Interface(iface("cali1")));
    assert_eq!(over("203.0.113.1/32"), first);
    assert_eq!(over("2001:db8:f::1/128"), first);
    change(&mut d, |g| g.floating_ips = false);
    assert!(render(&d).1.routes.is_empty(), "off by default");
}

#[test]
fn records_of_verdicts() {
    let mut r = tcp(Action::Allow, &["80"]);
    r.annotations = vec![
        (Arc::from("name"), Arc::from("web\nfrom \"all\" ☃")),
        (Arc::from("owner"), Arc::from("x".repeat(200))),
    ];
    let same = tcp(Action::Allow, &["81"]);
    let mut log = rule(Action::Log);
    log.source.nets = vec![cidr("192.0.2.0/24")];
    let mut d = one_pod(&[("web", policy(vec![r, same, log], vec![rule(Action::Pass)]))]);
    change(&mut d, |g| {
        g.nflog = true;
        g.deny = DenyAction::Reject;
        g.log_rate = Some(LogRate {
            packets: 10,
            per: Per::Minute,
            burst: 20,
        });
        g.log_prefix = format!("%t {}", "x".repeat(200));
    });
    check("records.nft", &d);
}

#[test]
fn many_rules_are_few_look_ups() {
    let mut rules = Vec::new();
    for n in 0..300 {
        let mut from = tcp(Action::Allow, &["80"]);
        from.source.nets = vec![cidr(&format!("10.{}.{}.0/24", n / 100, n % 100))];
        rules.push(from);
    }
    for n in 0..300 {
        rules.push(tcp(Action::Allow, &[&(1000 + 2 * n).to_string()]));
    }
    let mut to = Vec::new();
    for n in 0..20 {
        let mut r = tcp(Action::Allow, &[&(1000 + n).to_string()]);
        r.destination.nets = vec![cidr(&format!("10.0.{n}.0/24")), cidr("fd00::/64")];
        to.push(r);
    }
    let d = one_pod(&[("many", policy(rules, to))]);
    let (table, _) = render(&d);
    let chain = |name: &str| &table.chains[&name.parse().expect("a name")].rules;
    assert_eq!(chain("pi-np-default/many").len(), 2);
    // One a family.
    assert_eq!(chain("po-np-default/many").len(), 2);
    let sizes: Vec<usize> = table
        .sets
        .iter()
        .filter(|(n, _)| n.as_str().starts_with('l'))
        .map(|(_, s)| s.elements.len())
        .collect();
    // One prefix of IPv6 has all ports, which are one range.
    assert_eq!(sizes.iter().sum::<usize>(), 300 + 20 + 1);
    if let Err(e) = accepted(&table.to_string()) {
        panic!("nft refuses:\n{e}");
    }
}
