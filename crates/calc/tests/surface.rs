//! Host endpoints, services, nodes, domain names, staged policies and what always holds: states, and
//! every way through them.

mod support;

use calc::NodeConfig;
use desired::{Desired, Failsafe, HostMatch, HostPolicy, LogRate, Per, TierPolicies};
use model::*;
use net::Protocol;
use std::sync::Arc;
use support::expand::*;
use support::vocabulary::*;
use support::{ME, Run};

/// `tier[in | out]Action ...`.
fn text(tiers: &[TierPolicies]) -> String {
    let one = |t: &TierPolicies| {
        let names = |l: &[PolicyKey]| l.iter().map(|k| &*k.name).collect::<Vec<_>>().join(" ");
        let (ingress, egress) = (names(&t.ingress), names(&t.egress));
        format!("{}[{ingress}|{egress}]{:?}", t.name, t.default_action)
    };
    tiers.iter().map(one).collect::<Vec<_>>().join(" ")
}

fn on_host<'a>(d: &'a Desired, name: &str) -> &'a HostPolicy {
    &d.hosts[name]
}

fn on_pod(d: &Desired, name: &str) -> String {
    text(&d.workloads[&wkey(ME, name)].tiers)
}

fn hep(name: &str, interface: &str, ips: &str, profiles: &str) -> Update {
    let mut h = host(ME, ips, "role=host", profiles);
    h.interface = (!interface.is_empty()).then(|| interface.into());
    Update::Host(name.into(), Some(h))
}

fn both_ways(tier: &str, selector: &str) -> Policy {
    let mut p = policy(tier, None, selector);
    p.applies_egress = true;
    p
}

/// One policy of each sort on everything, in the default tier.
fn all_sorts() -> Vec<Update> {
    let with = |change: fn(&mut Policy)| {
        let mut p = both_ways("default", "all()");
        change(&mut p);
        p
    };
    vec![
        pol("normal", with(|_| {})),
        pol("forward", with(|p| p.apply_on_forward = true)),
        pol(
            "raw",
            with(|p| (p.untracked, p.apply_on_forward) = (true, true)),
        ),
        pol(
            "nat",
            with(|p| (p.pre_dnat, p.apply_on_forward) = (true, true)),
        ),
        local("a/web", workload("cali1", "10.0.0.1/32", "app=web", "")),
    ]
}

#[test]
fn each_hook_of_a_host_has_its_policies_and_workloads_have_the_normal_ones() {
    fn every_hook(h: &HostPolicy) -> [String; 4] {
        [&h.tiers, &h.forward, &h.untracked, &h.pre_dnat].map(|t| text(t))
    }
    let with = |more: Vec<Update>| all_sorts().into_iter().chain(more).collect::<Vec<_>>();
    expand(&[
        state("no host endpoint", all_sorts(), |d| {
            assert_eq!(
                on_pod(d, "a/web"),
                "default[forward normal|forward normal]Deny"
            );
            // What matches is active, though nothing here evaluates it.
            assert_eq!((d.hosts.len(), d.policies.len()), (0, 4));
        }),
        state(
            "by name",
            with(vec![hep("h", "eth0", "192.0.2.1", "")]),
            |d| {
                let h = on_host(d, "h");
                assert_eq!(
                    every_hook(h),
                    [
                        "default[forward normal|forward normal]Deny",
                        "default[forward|forward]Deny",
                        "default[raw|raw]Pass",
                        "default[nat|]Pass",
                    ]
                );
                assert_eq!(
                    h.interface,
                    HostMatch::Interface("eth0".parse().expect("a name"))
                );
                assert_eq!(
                    on_pod(d, "a/web"),
                    "default[forward normal|forward normal]Deny"
                );
            },
        ),
        state(
            "by address",
            with(vec![hep("h", "", "192.0.2.9 192.0.2.1", "")]),
            |d| {
                let want = HostMatch::Addresses(vec![ip("192.0.2.1"), ip("192.0.2.9")]);
                assert_eq!(on_host(d, "h").interface, want);
            },
        ),
        state("all interfaces", with(vec![hep("h", "*", "", "")]), |d| {
            let h = on_host(d, "h");
            assert_eq!((&h.interface, h.untracked.len()), (&HostMatch::Any, 0));
            assert_eq!(text(&h.pre_dnat), "default[nat|]Pass");
        }),
        state("by nothing", with(vec![hep("h", "", "", "")]), |d| {
            assert!(d.hosts.is_empty());
        }),
        state(
            "of another node",
            with(vec![Update::Host(
                "h".into(),
                Some(host("n1", "192.0.2.1", "", "")),
            )]),
            |d| assert!(d.hosts.is_empty()),
        ),
    ]);
}

#[test]
fn the_profile_that_allows_all_is_there_even_where_nobody_wrote_it() {
    const NAME: &str = "projectcalico-default-allow";
    let written = Update::Profile(NAME.into(), Some(Profile::default()));
    fn allows(d: &Desired) -> (usize, usize) {
        let p = &d.profiles[NAME];
        let all =
            |rules: &[desired::Rule]| rules.iter().filter(|r| r.action == Action::Allow).count();
        (all(&p.ingress), all(&p.egress))
    }
    expand(&[
        state("nobody wrote it", vec![hep("h", "*", "", NAME)], |d| {
            assert_eq!(allows(d), (1, 1));
            assert_eq!(on_host(d, "h").profiles, [Arc::from(NAME)]);
        }),
        state(
            "somebody emptied it",
            vec![hep("h", "*", "", NAME), written],
            |d| {
                assert_eq!(allows(d), (0, 0));
            },
        ),
        state(
            "another one is missing",
            vec![hep("h", "*", "", "mine")],
            |d| {
                assert!(
                    d.profiles["mine"].ingress.is_empty() && d.profiles["mine"].egress.is_empty()
                );
            },
        ),
    ]);
}

#[test]
fn predefined_tiers_hold_and_staged_policies_do_not() {
    let staged = |name: &str, tier: &str| {
        let key = PolicyKey {
            kind: PolicyKind::StagedGlobalNetworkPolicy,
            ..gnp(name)
        };
        Update::Policy(key, Some(policy(tier, None, "all()")))
    };
    let pod = || local("a/web", workload("cali1", "10.0.0.1/32", "app=web", ""));
    let p = |tier: &str| pol(tier, policy(tier, None, "all()"));
    let predefined = || {
        vec![
            pod(),
            p("kube-baseline"),
            p("default"),
            p("kube-admin"),
            p("nobody's"),
        ]
    };
    expand(&[
        state("none is in the datastore", predefined(), |d| {
            assert_eq!(
                on_pod(d, "a/web"),
                "kube-admin[kube-admin|]Pass default[default|]Deny kube-baseline[kube-baseline|]Pass \
                 nobody's[nobody's|]Deny"
            );
        }),
        state(
            "one is, and differs",
            [
                predefined(),
                vec![Update::Tier(
                    "kube-admin".into(),
                    Some(Tier {
                        order: Some(2_000_000.0),
                        default_action: TierAction::Deny,
                    }),
                )],
            ]
            .concat(),
            |d| {
                assert_eq!(
                    on_pod(d, "a/web"),
                    "default[default|]Deny kube-admin[kube-admin|]Deny \
                     kube-baseline[kube-baseline|]Pass nobody's[nobody's|]Deny"
                );
            },
        ),
        state(
            "only staged",
            vec![pod(), staged("s", "default"), staged("t", "t")],
            |d| {
                assert_eq!(on_pod(d, "a/web"), "");
                assert!(d.policies.is_empty() && d.sets.is_empty());
            },
        ),
        state(
            "one of them is enforced",
            vec![
                pod(),
                staged("s", "t"),
                pol("s", policy("t", None, "all()")),
            ],
            |d| {
                assert_eq!(on_pod(d, "a/web"), "t[s|]Deny");
            },
        ),
    ]);
}

fn slice(name: &str, service: &str, addresses: &str, ports: &[(Protocol, Option<u16>)]) -> Update {
    let endpoint = |a: &str| SliceEndpoint {
        addresses: vec![ip(a.trim_start_matches('!'))],
        node: None,
        ready: !a.starts_with('!'),
    };
    let port = |(protocol, port): &(Protocol, Option<u16>)| SlicePort {
        name: "p".into(),
        protocol: *protocol,
        port: *port,
    };
    let value = EndpointSlice {
        service: ServiceRef {
            namespace: "a".into(),
            name: service.into(),
        },
        endpoints: addresses.split_whitespace().map(endpoint).collect(),
        ports: ports.iter().map(port).collect(),
    };
    let key = SliceKey {
        namespace: "a".into(),
        name: name.into(),
    };
    Update::EndpointSlice(key, Some(value))
}

#[test]
fn services_are_what_stands_behind_them() {
    const TCP80: (Protocol, Option<u16>) = (Protocol::TCP, Some(80));
    let user = || {
        let db = ServiceRef {
            namespace: "a".into(),
            name: "db".into(),
        };
        let mut p = both_ways("default", "app == 'web'");
        let (mut to, mut from) = (Rule::any(Action::Allow), Rule::any(Action::Allow));
        to.destination.service = Some(db.clone());
        from.source.service = Some(db);
        (p.ingress, p.egress) = (vec![from], vec![to]);
        vec![
            pol("p", p),
            local("a/web", workload("cali1", "10.0.0.1/32", "app=web", "")),
        ]
    };
    let with = |more: Vec<Update>| user().into_iter().chain(more).collect::<Vec<_>>();
    expand(&[
        state("no slice", user(), |d| {
            assert!(set_members(d, "svc:a/db").is_empty());
            assert!(set_members(d, "svcnoport:a/db").is_empty());
            let rules = &d.policies[&gnp("p")];
            assert_eq!(&*rules.egress[0].destination.port_sets[0].0, "svc:a/db");
            assert_eq!(&*rules.ingress[0].source.sets[0].0, "svcnoport:a/db");
        }),
        state(
            "two slices share an endpoint, one is not ready, one port has no number",
            with(vec![
                slice(
                    "x",
                    "db",
                    "10.0.9.1 !10.0.9.2",
                    &[TCP80, (Protocol::UDP, None)],
                ),
                slice("y", "db", "10.0.9.1", &[TCP80]),
                slice("z", "other", "10.0.9.7", &[TCP80]),
                slice("v6", "db", "fd00::9", &[(Protocol::UDP, Some(53))]),
            ]),
            |d| {
                let want = ["10.0.9.1 TCP 80", "10.0.9.2 TCP 80", "fd00::9 UDP 53"];
                assert_eq!(set_members(d, "svc:a/db"), want);
                let want = ["10.0.9.1/32", "10.0.9.2/32", "fd00::9/128"];
                assert_eq!(set_members(d, "svcnoport:a/db"), want);
            },
        ),
        state(
            "one of them went to another service",
            with(vec![
                slice("x", "other", "10.0.9.1 10.0.9.2", &[TCP80]),
                slice("y", "db", "10.0.9.1", &[TCP80]),
            ]),
            |d| assert_eq!(set_members(d, "svc:a/db"), ["10.0.9.1 TCP 80"]),
        ),
    ]);
}

#[test]
fn nodes_are_all_their_addresses() {
    let user = || {
        let mut p = policy("default", None, "app == 'web'");
        p.ingress[0].source.nodes = Some(sel("rack == 'a'"));
        vec![
            pol("p", p),
            local(
                "a/web",
                workload("cali1", "10.0.0.1/32", "app=web", "rack=a"),
            ),
        ]
    };
    let n = |name: &str, rack: &str| {
        let value = Node {
            ipv6: address("2001:db8::1/64"),
            ipip_v4: Some(ip("10.0.0.64")),
            addresses: vec![ip("203.0.113.1"), ip("192.168.0.1")],
            labels: labels(rack),
            ..node("192.168.0.1/24", "10.0.0.65")
        };
        Update::Node(name.into(), Some(value))
    };
    fn of(d: &Desired) -> Vec<String> {
        let rule = &d.policies[&gnp("p")].ingress[0];
        assert!(rule.source.sets[0].0.starts_with("nodes:"));
        set_members(d, &rule.source.sets[0].0)
    }
    let with = |more: Vec<Update>| user().into_iter().chain(more).collect::<Vec<_>>();
    expand(&[
        state("none", user(), |d| assert!(of(d).is_empty())),
        state("one", with(vec![n("x", "rack=a"), n("y", "rack=b")]), |d| {
            let want = [
                "10.0.0.64/32",
                "10.0.0.65/32",
                "192.168.0.1/32",
                "203.0.113.1/32",
                "2001:db8::1/128",
            ];
            assert_eq!(of(d), want);
        }),
        state(
            "it went to another rack",
            with(vec![n("x", "rack=b")]),
            |d| {
                assert!(of(d).is_empty());
            },
        ),
    ]);
}

#[test]
fn domains_are_what_their_names_resolved_to() {
    let user = |names: &str| {
        let mut p = both_ways("default", "app == 'web'");
        let mut rule = Rule::any(Action::Allow);
        rule.destination.domains = words(names);
        p.egress = vec![rule];
        vec![
            pol("p", p),
            local("a/web", workload("cali1", "10.0.0.1/32", "app=web", "")),
        ]
    };
    let name = |name: &str, found: &str| {
        let all: Vec<_> = found.split_whitespace().map(ip).collect();
        Update::Domain(name.into(), Some(all.into()))
    };
    let known = || {
        vec![
            name("a.x", "192.0.2.1 2001:db8::1"),
            name("deep.b.x", "192.0.2.2 192.0.2.1"),
            name("x", "192.0.2.3"),
            name("notx", "192.0.2.4"),
        ]
    };
    fn of(d: &Desired) -> Vec<String> {
        let rule = &d.policies[&gnp("p")].egress[0];
        assert!(rule.destination.sets[0].0.starts_with("d:"));
        set_members(d, &rule.destination.sets[0].0)
    }
    fn asked(d: &Desired) -> String {
        d.domains.join(" ")
    }
    expand(&[
        state("nobody asks", known(), |d| assert_eq!(asked(d), "")),
        state("nothing is known", user("x *.x"), |d| {
            assert_eq!((of(d).len(), asked(d)), (0, "*.x x".to_owned()));
        }),
        state("below", [user("*.x"), known()].concat(), |d| {
            assert_eq!(of(d), ["192.0.2.1/32", "192.0.2.2/32", "2001:db8::1/128"]);
            assert_eq!(asked(d), "*.x");
        }),
        state(
            "a name and its pattern",
            [user("x a.x *.x"), known()].concat(),
            |d| {
                let want = [
                    "192.0.2.1/32",
                    "192.0.2.2/32",
                    "192.0.2.3/32",
                    "2001:db8::1/128",
                ];
                assert_eq!(of(d), want);
                assert_eq!(asked(d), "*.x a.x x");
            },
        ),
        state("a name alone", [user("deep.b.x"), known()].concat(), |d| {
            assert_eq!(of(d), ["192.0.2.1/32", "192.0.2.2/32"]);
        }),
    ]);
}

#[test]
fn ports_of_hosts_have_names_too() {
    let user = |not: bool| {
        let mut rule = Rule::any(Action::Allow);
        let names = words("ssh");
        rule.destination.selector = Some(sel("role == 'host'"));
        if not {
            rule.destination.not_named_ports = names;
        } else {
            rule.destination.named_ports = names;
            rule.destination.ports = vec![net::PortRange::one(80)];
        }
        let mut p = both_ways("default", "app == 'web'");
        p.egress = vec![rule];
        let mut h = host("n1", "192.0.2.1 2001:db8::1", "role=host", "");
        h.ports = vec![
            port("ssh", Protocol::TCP, 22),
            port("ssh", Protocol::SCTP, 23),
        ];
        vec![
            pol("p", p),
            Update::Host("far".into(), Some(h)),
            local("a/web", workload("cali1", "10.0.0.1/32", "app=web", "")),
        ]
    };
    const ALL: [&str; 4] = [
        "192.0.2.1 TCP 22",
        "192.0.2.1 SCTP 23",
        "2001:db8::1 TCP 22",
        "2001:db8::1 SCTP 23",
    ];
    expand(&[
        state("of any protocol, or a number", user(false), |d| {
            let to = &d.policies[&gnp("p")].egress[0].destination;
            assert_eq!(
                (to.ports.len(), to.sets.len(), to.port_sets.len()),
                (1, 1, 1)
            );
            assert_eq!(set_members(d, &to.port_sets[0].0), ALL);
        }),
        state("not of that name", user(true), |d| {
            let to = &d.policies[&gnp("p")].egress[0].destination;
            assert_eq!((to.sets.len(), to.not_port_sets.len()), (1, 1));
            assert_eq!(set_members(d, &to.not_port_sets[0].0), ALL);
        }),
    ]);
}

#[test]
fn settings_say_what_is_configured_and_what_the_cluster_is() {
    let mut run = Run::default();
    run.calc.set_config(NodeConfig {
        failsafe_in: Vec::new(),
        failsafe_out: vec![Failsafe {
            protocol: Protocol::UDP,
            port: 53,
            net: Some(cidr("10.0.0.0/8")),
        }],
        log_rate: Some(LogRate {
            packets: 10,
            per: Per::Minute,
            burst: 5,
        }),
        external_nodes: vec![cidr("198.51.100.0/24")],
        nat_interface: Some("eth+".to_owned()),
        ..NodeConfig::default()
    });
    let bgp = BgpConfig {
        service_cluster: vec![cidr("10.96.0.0/12"), cidr("fd01::/108")],
        service_external: vec![cidr("10.96.3.0/24")],
        service_load_balancer: vec![cidr("192.0.2.0/24")],
        ..BgpConfig::default()
    };
    let other = BgpConfig {
        service_cluster: vec![cidr("1.0.0.0/8")],
        ..BgpConfig::default()
    };
    run.calc
        .update(Update::BgpConfig("default".into(), Some(bgp)));
    run.calc
        .update(Update::BgpConfig(format!("node.{ME}").into(), Some(other)));
    let mut me = node("192.168.0.1/24", "10.0.0.1");
    me.addresses = vec![ip("203.0.113.1")];
    run.calc.update(Update::Node(ME.into(), Some(me)));
    run.calc
        .update(Update::Node("n1".into(), Some(node("192.168.0.2/24", ""))));
    run.calc.update(Update::Pool(
        "p".into(),
        Some(pool("10.0.0.0/16", Encap::Never)),
    ));
    run.flush();
    let g = run.desired.globals.clone().expect("settings");
    let texts = |nets: &[net::Cidr]| nets.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        texts(&g.service_cidrs),
        ["10.96.0.0/12", "192.0.2.0/24", "fd01::/108"]
    );
    assert_eq!(
        texts(&g.nodes),
        ["192.168.0.1/32", "192.168.0.2/32", "198.51.100.0/24"]
    );
    assert_eq!(
        texts(&g.dscp_exclude),
        ["10.0.0.0/16", "192.168.0.1/32", "203.0.113.1/32"]
    );
    assert_eq!((g.failsafe_in.len(), g.failsafe_out.len()), (0, 1));
    assert_eq!(g.log_rate.map(|r| (r.packets, r.burst)), Some((10, 5)));
    assert_eq!(g.nat.interface.as_deref(), Some("eth+"));
    // A node's address is a setting's; its labels are not.
    run.calc
        .update(Update::Node("n1".into(), Some(node("192.168.0.3/24", ""))));
    assert!(run.flush().globals.is_some());
    let labelled = Node {
        labels: labels("a=b"),
        ..node("192.168.0.3/24", "")
    };
    run.calc.update(Update::Node("n1".into(), Some(labelled)));
    assert!(run.flush().is_empty());
}
