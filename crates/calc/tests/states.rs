//! Labels, tiers, members and routes: states, and every way through them.

mod support;

use desired::{Desired, Member, RouteTarget};
use model::*;
use net::{Family, Protocol};
use std::collections::BTreeSet;
use support::expand::*;
use support::vocabulary::*;
use support::{ME, Run};

/// `tier[policy policy] ...` for traffic towards the workload.
fn ingress(d: &Desired, name: &str) -> String {
    let tiers = d.workloads[&wkey(ME, name)].tiers.iter().map(|t| {
        let names: Vec<&str> = t.ingress.iter().map(|k| &*k.name).collect();
        format!("{}[{}]", t.name, names.join(" "))
    });
    tiers.collect::<Vec<_>>().join(" ")
}

fn tier(name: &str, order: Option<f64>) -> Update {
    let default_action = TierAction::Deny;
    Update::Tier(
        name.into(),
        Some(Tier {
            order,
            default_action,
        }),
    )
}

#[test]
fn only_what_a_local_endpoint_needs_is_active() {
    let web = || workload("cali1", "10.0.0.1/32 fd00::1/128", "app=web", "kns.a");
    let peer = || remote("b/peer", workload("caliX", "10.0.9.1/32", "app=peer", ""));
    let allow = |selector: &str| {
        let mut p = policy("default", None, selector);
        p.ingress = vec![from("app == 'peer'")];
        pol("allow", p)
    };
    expand(&[
        state(
            "policy for nobody here",
            vec![peer(), allow("app == 'peer'")],
            |d| {
                assert!(d.policies.is_empty() && d.sets.is_empty() && d.workloads.is_empty());
            },
        ),
        state(
            "policy for a local pod",
            vec![peer(), local("a/web", web()), allow("app == 'web'")],
            |d| {
                assert_eq!(members(d, "app == 'peer'"), ["10.0.9.1/32"]);
                assert_eq!(ingress(d, "a/web"), "default[allow]");
                assert!(
                    d.profiles["kns.a"].ingress.is_empty(),
                    "a missing profile denies"
                );
            },
        ),
        state(
            "the peer is gone",
            vec![local("a/web", web()), allow("app == 'web'")],
            |d| {
                assert_eq!(members(d, "app == 'peer'"), Vec::<String>::new());
            },
        ),
        state(
            "asked for on every node",
            vec![peer(), {
                let mut p = policy("default", None, "app == 'nobody'");
                p.ingress = vec![from("app == 'peer'")];
                p.on_every_node = true;
                pol("hinted", p)
            }],
            |d| {
                assert_eq!(d.policies.len(), 1);
                assert_eq!(members(d, "app == 'peer'"), ["10.0.9.1/32"]);
            },
        ),
        state(
            "for a host endpoint",
            vec![
                peer(),
                Update::Host("eth0".into(), Some(host(ME, "192.0.2.1", "app=web", ""))),
                allow("app == 'web'"),
            ],
            |d| {
                assert_eq!(
                    (d.policies.len(), d.sets.len(), d.workloads.len()),
                    (1, 1, 0)
                )
            },
        ),
    ]);
}

#[test]
fn tiers_and_policies_sort() {
    let w = || local("a/web", workload("cali1", "10.0.0.1/32", "app=web", ""));
    let p = |name: &str, t: &str, order| pol(name, policy(t, order, "app == 'web'"));
    let policies = || {
        vec![
            w(),
            p("z", "default", Some(1.0)),
            p("y", "default", None),
            p("x", "default", Some(1.0)),
            p("m", "missing", None),
            p("s", "second", None),
            p("f", "first", None),
            p("u", "unordered", None),
        ]
    };
    let with = |more: Vec<Update>| policies().into_iter().chain(more).collect::<Vec<_>>();
    expand(&[
        state("no tier is known", policies(), |d| {
            assert_eq!(
                ingress(d, "a/web"),
                "default[x z y] first[f] missing[m] second[s] unordered[u]"
            );
        }),
        state(
            "ordered",
            with(vec![
                tier("first", Some(-1.0)),
                tier("second", Some(999_999.0)),
                tier("default", Some(1_000_000.0)),
                tier("unordered", None),
            ]),
            |d| {
                assert_eq!(
                    ingress(d, "a/web"),
                    "first[f] second[s] default[x z y] unordered[u] missing[m]"
                )
            },
        ),
        state(
            "swapped, and a staged and an untracked one beside",
            with(vec![
                tier("first", Some(5.0)),
                tier("second", Some(4.0)),
                tier("default", Some(1_000_000.0)),
                tier("unordered", None),
                Update::Policy(
                    PolicyKey {
                        kind: PolicyKind::StagedGlobalNetworkPolicy,
                        ..gnp("staged")
                    },
                    Some(policy("first", None, "all()")),
                ),
                pol(
                    "raw",
                    Policy {
                        untracked: true,
                        ..policy("first", None, "all()")
                    },
                ),
            ]),
            |d| {
                assert_eq!(
                    ingress(d, "a/web"),
                    "second[s] first[f] default[x z y] unordered[u] missing[m]"
                )
            },
        ),
    ]);
}

#[test]
fn labels_are_inherited_and_shadowed() {
    let profile = |l: &str| Profile {
        labels: labels(l),
        ..Profile::default()
    };
    let kns = |l: &str| Update::Profile("kns.a".into(), Some(profile(l)));
    let ksa = |l: &str| Update::Profile("ksa.a.s".into(), Some(profile(l)));
    let user = || {
        let mut p = policy("default", None, "app == 'web'");
        p.ingress = vec![from("team == 'red'")];
        vec![
            local("a/web", workload("cali1", "10.0.0.1/32", "app=web", "")),
            pol("p", p),
            remote(
                "a/own",
                workload("", "10.0.9.1/32", "team=blue", "kns.a ksa.a.s"),
            ),
            remote(
                "a/inherits",
                workload("", "10.0.9.2/32", "", "kns.a ksa.a.s"),
            ),
        ]
    };
    let with = |more: Vec<Update>| user().into_iter().chain(more).collect::<Vec<_>>();
    expand(&[
        state("no profile", user(), |d| {
            assert!(members(d, "team == 'red'").is_empty())
        }),
        state(
            "from the first",
            with(vec![kns("team=red"), ksa("team=blue")]),
            |d| {
                assert_eq!(members(d, "team == 'red'"), ["10.0.9.2/32"]);
            },
        ),
        state(
            "the first shadows the second",
            with(vec![kns("team=blue"), ksa("team=red")]),
            |d| {
                assert!(members(d, "team == 'red'").is_empty());
            },
        ),
        state("from the second", with(vec![ksa("team=red")]), |d| {
            assert_eq!(members(d, "team == 'red'"), ["10.0.9.2/32"]);
        }),
    ]);
}

#[test]
fn members_are_counted_and_covered() {
    let user = || {
        let mut p = policy("default", None, "app == 'web'");
        p.ingress = vec![from("app == 'db'")];
        vec![
            local("a/web", workload("cali1", "10.0.0.1/32", "app=web", "")),
            pol("p", p),
        ]
    };
    let with = |more: Vec<Update>| user().into_iter().chain(more).collect::<Vec<_>>();
    let nets = |name: &str, n: &str| Update::NetworkSet(setkey(name), Some(netset(n, "app=db")));
    let db = |name: &str| remote(name, workload("", "10.0.9.1/32", "app=db", ""));
    expand(&[
        state(
            "two of one address",
            with(vec![db("a/1"), db("a/2")]),
            |d| {
                assert_eq!(members(d, "app == 'db'"), ["10.0.9.1/32"]);
            },
        ),
        state("one of them", with(vec![db("a/2")]), |d| {
            assert_eq!(members(d, "app == 'db'"), ["10.0.9.1/32"]);
        }),
        state(
            "covered",
            with(vec![
                db("a/2"),
                nets("n", "10.0.0.0/8 10.0.9.0/24 192.0.2.0/24"),
            ]),
            |d| {
                assert_eq!(members(d, "app == 'db'"), ["10.0.0.0/8", "192.0.2.0/24"]);
            },
        ),
        state(
            "by everything",
            with(vec![db("a/2"), nets("n", "10.0.0.0/8 0.0.0.0/0 ::/0")]),
            |d| {
                assert_eq!(members(d, "app == 'db'"), ["0.0.0.0/0", "::/0"]);
            },
        ),
        state(
            "uncovered",
            with(vec![
                nets("n", "10.0.9.0/24 192.0.2.0/24"),
                nets("m", "10.0.9.0/25"),
            ]),
            |d| {
                assert_eq!(members(d, "app == 'db'"), ["10.0.9.0/24", "192.0.2.0/24"]);
            },
        ),
    ]);
}

#[test]
fn named_ports_become_sets_with_the_selector_folded_in() {
    let server = |name: &str, net: &str, l: &str| {
        let mut w = workload("", net, l, "");
        w.ports = vec![
            port("http", Protocol::TCP, 8080),
            port("http", Protocol::UDP, 8081),
            port("x", Protocol::TCP, 1),
        ];
        remote(name, w)
    };
    let rule = |protocol: Option<Protocol>| {
        let mut r = Rule::any(Action::Allow);
        r.protocol = protocol;
        r.destination.selector = Some(sel("app == 'db'"));
        r.destination.named_ports = words("http");
        let mut p = policy("default", None, "app == 'web'");
        (p.applies_ingress, p.applies_egress, p.egress) = (false, true, vec![r]);
        vec![
            local("a/web", workload("cali1", "10.0.0.1/32", "app=web", "")),
            pol("p", p),
            server("a/db", "10.0.9.1/32 fd00::9/128", "app=db"),
            server("a/other", "10.0.9.2/32", "app=other"),
        ]
    };
    fn only_set(d: &Desired) -> Vec<String> {
        assert_eq!(d.sets.len(), 1, "the selector needs no set of its own");
        let rules = &d.policies[&gnp("p")];
        assert!(rules.ingress.is_empty() && rules.egress[0].destination.sets.is_empty());
        let id = &rules.egress[0].destination.port_sets[0];
        assert!(id.0.starts_with("n:"));
        let texts = d.sets[id].members.iter().map(|m| match m {
            Member::Port {
                addr,
                protocol,
                port,
            } => format!("{addr} {protocol} {port}"),
            Member::Net(c) => panic!("{c} among ports"),
        });
        texts.collect()
    }
    expand(&[
        state("TCP", rule(Some(Protocol::TCP)), |d| {
            assert_eq!(only_set(d), ["10.0.9.1 TCP 8080", "fd00::9 TCP 8080"]);
        }),
        state("of any protocol", rule(None), |d| {
            let all = [
                "10.0.9.1 TCP 8080",
                "10.0.9.1 UDP 8081",
                "fd00::9 TCP 8080",
                "fd00::9 UDP 8081",
            ];
            assert_eq!(only_set(d), all);
        }),
    ]);
}

#[test]
fn one_interface_one_workload() {
    let w = |name: &str, ip: &str| local(name, workload("cali1", ip, "app=web", ""));
    let p = || pol("p", policy("default", None, "app == 'web'"));
    fn active(d: &Desired) -> Vec<&str> {
        d.workloads.keys().map(|k| &*k.workload).collect()
    }
    fn routed(d: &Desired) -> Vec<String> {
        d.routes.keys().map(ToString::to_string).collect()
    }
    expand(&[
        state(
            "two claim it",
            vec![p(), w("a/1", "10.0.0.1"), w("a/2", "10.0.0.2")],
            |d| {
                assert_eq!(
                    (active(d), routed(d)),
                    (vec!["a/1"], vec!["10.0.0.1/32".to_owned()])
                );
            },
        ),
        state("the first is gone", vec![p(), w("a/2", "10.0.0.2")], |d| {
            assert_eq!(
                (active(d), routed(d)),
                (vec!["a/2"], vec!["10.0.0.2/32".to_owned()])
            );
        }),
        state(
            "a lower one comes",
            vec![p(), w("a/0", "10.0.0.2"), w("a/2", "10.0.0.2")],
            |d| {
                assert_eq!(
                    (active(d), routed(d)),
                    (vec!["a/0"], vec!["10.0.0.2/32".to_owned()])
                );
            },
        ),
        state(
            "the first has no address",
            vec![p(), w("a/0", ""), w("a/2", "10.0.0.2")],
            |d| {
                assert_eq!((active(d), d.policies.len()), (vec!["a/2"], 1));
            },
        ),
        state(
            "none has",
            vec![
                p(),
                w("a/0", ""),
                local("a/2", workload("", "10.0.0.2", "app=web", "")),
            ],
            |d| {
                assert!(active(d).is_empty() && routed(d).is_empty() && d.policies.is_empty());
            },
        ),
    ]);
}

/// Destination and way, one a line.
fn routes(d: &Desired) -> BTreeSet<String> {
    let texts = d.routes.iter().map(|(c, t)| match t {
        RouteTarget::Workload(i) => format!("{c} dev {i}"),
        RouteTarget::Blackhole => format!("{c} blackhole"),
        RouteTarget::Direct { via } => format!("{c} direct {via}"),
        RouteTarget::Vxlan { via } => format!("{c} vxlan {via}"),
    });
    texts.collect()
}

fn all_routes(d: &Desired, want: &[&str]) {
    assert_eq!(routes(d), want.iter().map(|s| (*s).to_owned()).collect());
}

fn cluster(vxlan: Option<Encap>) -> Vec<Update> {
    let n = |name: &str, v4, tunnel| Update::Node(name.into(), Some(node(v4, tunnel)));
    let b = |range: &str, owner, borrowed| {
        Update::Block(cidr(range), Some(block(range, owner, borrowed)))
    };
    let mut out = vec![
        n(ME, "192.168.0.1/24", "10.0.0.0"),
        n("near", "192.168.0.2/24", "10.0.0.64"),
        n("far", "192.168.1.3/24", "10.0.0.128"),
        n("blind", "", ""),
        b("10.0.0.0/26", ME, "10.0.0.7@far 10.0.0.8@near"),
        b("10.0.0.64/26", "near", "10.0.0.70@me 10.0.0.71@me"),
        b("10.0.0.128/26", "far", ""),
        b("10.0.0.192/26", "blind", ""),
        b("10.0.1.1/32", ME, ""),
        b("10.0.1.2/32", "near", ""),
        local(
            "a/web",
            workload("cali1", "10.0.0.1/32 10.0.0.70/32", "app=web", ""),
        ),
    ];
    out.extend(vxlan.map(|v| Update::Pool("p".into(), Some(pool("10.0.0.0/16", v)))));
    out
}

#[test]
fn routes_follow_pools_blocks_and_nodes() {
    const LOCAL: [&str; 2] = ["10.0.0.1/32 dev cali1", "10.0.0.70/32 dev cali1"];
    expand(&[
        state("no pool", cluster(None), |d| {
            all_routes(d, &["10.0.0.0/26 blackhole", LOCAL[0], LOCAL[1]]);
        }),
        state("always VXLAN", cluster(Some(Encap::Always)), |d| {
            all_routes(
                d,
                &[
                    "10.0.0.0/26 blackhole",
                    LOCAL[0],
                    LOCAL[1],
                    "10.0.0.7/32 vxlan 10.0.0.128",
                    "10.0.0.8/32 vxlan 10.0.0.64",
                    "10.0.0.64/26 vxlan 10.0.0.64",
                    "10.0.0.128/26 vxlan 10.0.0.128",
                    "10.0.1.2/32 vxlan 10.0.0.64",
                ],
            );
            assert_eq!(d.vteps.len(), 2);
            let g = d.globals.as_ref().expect("settings");
            let t = g.tunnel(Family::V4).expect("a tunnel");
            assert_eq!(
                (t.address, t.host),
                (Some(ip("10.0.0.0")), ip("192.168.0.1"))
            );
        }),
        state(
            "VXLAN across subnets",
            cluster(Some(Encap::CrossSubnet)),
            |d| {
                all_routes(
                    d,
                    &[
                        "10.0.0.0/26 blackhole",
                        LOCAL[0],
                        LOCAL[1],
                        "10.0.0.7/32 vxlan 10.0.0.128",
                        "10.0.0.8/32 direct 192.168.0.2",
                        "10.0.0.64/26 direct 192.168.0.2",
                        "10.0.0.128/26 vxlan 10.0.0.128",
                        "10.0.1.2/32 direct 192.168.0.2",
                    ],
                );
            },
        ),
        state("no encapsulation", cluster(Some(Encap::Never)), |d| {
            all_routes(
                d,
                &[
                    "10.0.0.0/26 blackhole",
                    LOCAL[0],
                    LOCAL[1],
                    "10.0.0.8/32 direct 192.168.0.2",
                    "10.0.0.64/26 direct 192.168.0.2",
                    "10.0.1.2/32 direct 192.168.0.2",
                ],
            );
            assert!(d.vteps.is_empty());
            assert_eq!(d.globals.as_ref().expect("settings").tunnels, [None, None]);
        }),
        state(
            "no tunnel address of our own",
            [
                cluster(Some(Encap::Always)),
                vec![Update::Node(ME.into(), Some(node("192.168.0.1/24", "")))],
            ]
            .concat(),
            |d| all_routes(d, &["10.0.0.0/26 blackhole", LOCAL[0], LOCAL[1]]),
        ),
    ]);
}

#[test]
fn pod_ranges_of_nodes_are_routed_where_no_pool_governs() {
    let n = |name: &str, v4, ranges: &str| {
        let pod_cidrs = ranges.split_whitespace().map(cidr).collect();
        Update::Node(
            name.into(),
            Some(Node {
                pod_cidrs,
                ..node(v4, "")
            }),
        )
    };
    let nodes = || {
        vec![
            n(ME, "192.168.0.1/24", "10.244.0.0/24"),
            n("near", "192.168.0.2/24", "10.244.1.0/24"),
            n("far", "192.168.1.3/24", "10.244.2.0/24"),
        ]
    };
    expand(&[
        state("no pool", nodes(), |d| {
            all_routes(d, &["10.244.1.0/24 direct 192.168.0.2"])
        }),
        state(
            "a pool governs",
            [
                nodes(),
                vec![Update::Pool(
                    "p".into(),
                    Some(pool("10.244.0.0/16", Encap::Never)),
                )],
            ]
            .concat(),
            |d| all_routes(d, &[]),
        ),
    ]);
}

#[test]
fn a_change_of_encapsulation_replaces_the_target_and_nothing_else() {
    let mut run = Run::default();
    for u in cluster(Some(Encap::CrossSubnet)) {
        run.calc.update(u);
    }
    run.flush();
    run.calc.update(Update::Pool(
        "p".into(),
        Some(pool("10.0.0.0/16", Encap::Always)),
    ));
    let delta = run.flush();
    let changed: Vec<String> = delta.routes.keys().map(ToString::to_string).collect();
    assert_eq!(changed, ["10.0.0.8/32", "10.0.0.64/26", "10.0.1.2/32"]);
    assert!(
        delta.routes.values().all(Option::is_some),
        "replaced, not removed"
    );
    assert!(delta.workloads.is_empty() && delta.sets.is_empty() && delta.vteps.is_empty());
}

#[test]
fn ipv6_takes_the_same_ways() {
    let n = |v6: &str, tunnel: &str| Node {
        ipv6: address(v6),
        vxlan_v6: tunnel.parse().ok(),
        ..Node::default()
    };
    let b = |range: &str, owner| Update::Block(cidr(range), Some(block(range, owner, "")));
    let world = |encap| {
        vec![
            Update::Node(ME.into(), Some(n("2001:db8::1/64", "fd00::1"))),
            Update::Node("near".into(), Some(n("2001:db8::2/64", "fd00::101"))),
            Update::Node("far".into(), Some(n("2001:db8:1::3/64", "fd00::201"))),
            b("fd00::/120", ME),
            b("fd00::100/120", "near"),
            b("fd00::200/120", "far"),
            local("a/web", workload("cali1", "fd00::5/128", "", "")),
            Update::Pool("p".into(), Some(pool("fd00::/64", encap))),
        ]
    };
    expand(&[
        state("always", world(Encap::Always), |d| {
            let want = [
                "fd00::/120 blackhole",
                "fd00::5/128 dev cali1",
                "fd00::100/120 vxlan fd00::101",
                "fd00::200/120 vxlan fd00::201",
            ];
            all_routes(d, &want);
            let g = d.globals.as_ref().expect("settings");
            let tunnel = g.tunnel(Family::V6).expect("a tunnel");
            assert_eq!(tunnel.device.as_str(), "vxlan-v6.calico");
        }),
        state("across subnets", world(Encap::CrossSubnet), |d| {
            let want = [
                "fd00::/120 blackhole",
                "fd00::5/128 dev cali1",
                "fd00::100/120 direct 2001:db8::2",
                "fd00::200/120 vxlan fd00::201",
            ];
            all_routes(d, &want);
        }),
    ]);
}

/// What a change reaches: one label of one remote pod is one member of one set.
#[test]
fn a_small_change_is_a_small_delta() {
    let mut run = Run::default();
    for i in 0..200 {
        let ip = format!("10.1.0.{i}/32");
        run.calc
            .update(remote(&format!("a/{i}"), workload("", &ip, "app=db", "")));
    }
    for i in 0..20 {
        let mut p = policy("default", Some(f64::from(i)), "app == 'web'");
        p.ingress = vec![from("app == 'db'")];
        run.calc.update(pol(&format!("p{i}"), p));
    }
    run.calc.update(local(
        "a/web",
        workload("cali1", "10.0.0.1/32", "app=web", ""),
    ));
    run.flush();
    run.calc
        .update(remote("a/7", workload("", "10.1.0.7/32", "app=other", "")));
    let delta = run.flush();
    assert_eq!(
        (
            delta.sets.len(),
            delta.policies.len(),
            delta.workloads.len()
        ),
        (1, 0, 0)
    );
    let Some(desired::SetChange::Update { added, removed }) = delta.sets.values().next() else {
        panic!("{:?}", delta.sets)
    };
    assert_eq!((added.len(), removed.len()), (0, 1));
    // And there and back again between two flushes is nothing.
    run.calc
        .update(remote("a/8", workload("", "10.1.0.8/32", "app=other", "")));
    run.calc
        .update(remote("a/8", workload("", "10.1.0.8/32", "app=db", "")));
    assert!(run.calc.flush().is_empty());
}
