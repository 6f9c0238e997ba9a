//! Host endpoints: which one, and which of its policies where.

use crate::support::*;
use model::{Action, Encap, Policy, Rule, Update};
use verdict::{Decision, Flow, Place};

fn ingress(rules: Vec<Rule>) -> Policy {
    policy("kind == 'host'", Some(rules), None)
}

fn egress(rules: Vec<Rule>) -> Policy {
    policy("kind == 'host'", None, Some(rules))
}

fn forward(p: Policy) -> Policy {
    Policy {
        apply_on_forward: true,
        ..p
    }
}

fn pre_dnat(rules: Vec<Rule>) -> Policy {
    Policy {
        pre_dnat: true,
        ..forward(ingress(rules))
    }
}

fn untracked(ingress: Vec<Rule>, egress: Vec<Rule>) -> Policy {
    Policy {
        untracked: true,
        ..forward(policy("kind == 'host'", Some(ingress), Some(egress)))
    }
}

/// One host endpoint of n1.
fn with(interface: &str) -> Cluster {
    let mut c = Cluster::new();
    c.host("h", "n1", Some(interface), &[]);
    c
}

fn decision(e: &verdict::Explanation) -> String {
    e.paths[0].deciding().unwrap().decision.to_string()
}

#[test]
fn with_nothing_only_failsafes() {
    for interface in ["eth0", "*"] {
        let c = with(interface);
        c.denies("8.8.8.8", "n1", 80);
        c.denies("n1", "8.8.8.8", 80);
        assert_eq!(
            decision(&c.allows("8.8.8.8", "n1", 22)),
            "failsafe port tcp:22 allows it"
        );
        c.allows("8.8.8.8", "n1", 6443);
        c.allows("n1", "8.8.8.8", 2379);
        c.denies("n1", "8.8.8.8", 22);
        let dns = Flow {
            protocol: UDP,
            ..c.flow("n1", "8.8.8.8", 53)
        };
        c.allows_flow(&dns);
        // Pods go past it, and the node reaches its own.
        c.allows("shop/front", "shop/near", 80);
        c.allows("shop/front", "shop/db", 80);
        c.allows("8.8.8.8", "shop/front", 80);
        c.allows("n1", "shop/front", 80);
        // The other node has none.
        c.allows("8.8.8.8", "n2", 80);
    }
}

#[test]
fn failsafes_as_configured() {
    let mut c = with("*");
    c.felix(
        "default",
        &[
            (
                "failsafeinboundhostports",
                "tcp:10.0.0.0/8:80,udp:2001:db8::/32:9,443",
            ),
            ("failsafeoutboundhostports", "none"),
        ],
    );
    c.denies("8.8.8.8", "n1", 80);
    c.allows("10.9.9.9", "n1", 80);
    c.allows("8.8.8.8", "n1", 443);
    c.denies("8.8.8.8", "n1", 22);
    c.denies("n1", "8.8.8.8", 2379);
    let six = c.flow("2001:db8::7", "fd00::1", 9);
    c.allows_flow(&Flow {
        protocol: UDP,
        ..six
    });
}

#[test]
fn a_failsafe_wins_over_policy() {
    let mut c = with("*");
    c.global("no", ingress(vec![deny()]));
    c.allows("8.8.8.8", "n1", 22);
    c.global("no", pre_dnat(vec![deny()]));
    c.allows("8.8.8.8", "n1", 22);
    c.denies("8.8.8.8", "n1", 80);
}

#[test]
fn normal_policy_and_profiles() {
    let mut c = with("*");
    c.global("web", ingress(vec![to_port("80")]));
    c.allows("8.8.8.8", "n1", 80);
    c.denies("8.8.8.8", "n1", 81);
    c.global("out", egress(vec![to_port("443")]));
    c.allows("n1", "8.8.8.8", 443);
    c.denies("n1", "8.8.8.8", 444);
}

#[test]
fn an_allow_all_profile_opens() {
    let mut c = with("*");
    let mut host = model::HostEndpoint {
        node: "n1".into(),
        interface: Some("*".into()),
        expected_ips: Vec::new(),
        labels: labels("kind=host"),
        profiles: vec!["projectcalico-default-allow".into()],
        ports: Vec::new(),
        dscp: None,
    };
    c.0.update(Update::Host("h".into(), Some(host.clone())));
    assert!(decision(&c.denies("8.8.8.8", "n1", 80)).contains("does not exist"));
    c.namespace("x", "a=b");
    host.profiles = vec!["kns.x".into()];
    c.0.update(Update::Host("h".into(), Some(host)));
    c.allows("8.8.8.8", "n1", 80);
    c.allows("n1", "8.8.8.8", 80);
}

#[test]
fn between_nodes_both_are_asked() {
    let mut c = with("*");
    c.host("h2", "n2", Some("*"), &[]);
    c.global("out", policy("hep == 'h'", None, Some(vec![allow()])));
    let e = c.denies("n1", "n2", 80);
    assert!(matches!(&e.paths[0].deciding().unwrap().place, Place::Host(h, _) if &**h == "h2"));
    c.global("in", policy("hep == 'h2'", Some(vec![allow()]), None));
    c.allows("n1", "n2", 80);
    c.allows("shop/front", "n2", 80);
}

#[test]
fn pods_to_their_own_node_do_not_meet_host_ingress() {
    let mut c = with("*");
    c.global("no", ingress(vec![deny()]));
    c.felix("default", &[("defaultendpointtohostaction", "Accept")]);
    c.allows("shop/front", "n1", 80);
    // But pre-DNAT policy of `*` they do.
    c.global("no", pre_dnat(vec![deny()]));
    c.denies("shop/front", "n1", 80);
    c.allows("shop/db", "n2", 80);
}

#[test]
fn a_named_one_is_of_its_interface_alone() {
    let mut c = with("eth0");
    c.global("no", pre_dnat(vec![deny()]));
    c.felix("default", &[("defaultendpointtohostaction", "Accept")]);
    c.allows("shop/front", "n1", 80);
    let e = c.denies("8.8.8.8", "n1", 80);
    assert_eq!(
        e.notes,
        ["interface eth0 of host endpoint h is taken to be the uplink of node n1"]
    );
    // Known interfaces need no assumption.
    c.0.set_interface("n1", "eth0", vec![ip("192.168.0.1")]);
    assert!(c.denies("8.8.8.8", "n1", 80).notes.is_empty());
    c.0.set_interface("n1", "eth0", vec![ip("172.16.0.1")]);
    c.0.set_interface("n1", "eth1", vec![ip("192.168.0.1")]);
    c.allows("8.8.8.8", "n1", 80);
    c.denies("8.8.8.8", "172.16.0.1", 80);
}

#[test]
fn expected_addresses_find_the_interface() {
    let mut c = Cluster::new();
    c.host("h", "n1", None, &["192.168.0.1"]);
    c.denies("8.8.8.8", "n1", 80);
    c.host("h", "n1", None, &["172.16.0.9"]);
    c.allows("8.8.8.8", "n1", 80);
    // A named one with other addresses is of another interface.
    c.host("h", "n1", Some("eth1"), &["172.16.0.9"]);
    c.allows("8.8.8.8", "n1", 80);
    c.host("h", "n1", Some("eth1"), &["192.168.0.1"]);
    c.denies("8.8.8.8", "n1", 80);
}

#[test]
fn of_several_the_first_by_name_and_exact_before_any() {
    let mut c = Cluster::new();
    c.host("b", "n1", Some("eth0"), &[]);
    c.host("a", "n1", None, &["192.168.0.1"]);
    c.host("0", "n1", Some("*"), &[]);
    c.global("open", policy("hep == 'a'", Some(vec![allow()]), None));
    c.allows("8.8.8.8", "n1", 80);
    c.global(
        "open",
        policy("hep in {'b', '0'}", Some(vec![allow()]), None),
    );
    c.denies("8.8.8.8", "n1", 80);
}

#[test]
fn forwarded_traffic_meets_apply_on_forward_alone() {
    for interface in ["eth0", "*"] {
        let mut c = with(interface);
        c.global("no", ingress(vec![deny()]));
        c.global("no2", egress(vec![deny()]));
        c.allows("8.8.8.8", "shop/front", 80);
        c.allows("shop/front", "8.8.8.8", 80);
        c.global("no", forward(ingress(vec![to_port("443")])));
        c.denies("8.8.8.8", "shop/front", 80);
        c.allows("8.8.8.8", "shop/front", 443);
        c.allows("shop/near", "8.8.8.8", 443);
        c.global("no2", forward(egress(vec![to_port("443")])));
        c.denies("shop/front", "8.8.8.8", 80);
        c.allows("shop/front", "8.8.8.8", 443);
        c.denies("shop/front", "shop/db", 80);
        // And it holds for the node itself all the same; 22 is failsafe there, not when forwarded.
        c.denies("8.8.8.8", "n1", 80);
        c.allows("8.8.8.8", "n1", 22);
        c.denies("8.8.8.8", "shop/front", 22);
    }
}

#[test]
fn forward_without_a_decision_goes_on() {
    let mut c = with("*");
    c.global("p", forward(ingress(vec![rule(Action::Pass, |_| {})])));
    c.allows("8.8.8.8", "shop/front", 80);
    // Towards the node itself there would have to be a profile.
    c.denies("8.8.8.8", "n1", 80);
}

#[test]
fn forward_policy_of_any_interface_meets_pods_of_one_node() {
    let mut c = with("*");
    c.global("no", forward(ingress(vec![to_port("443")])));
    c.denies("shop/front", "shop/near", 80);
    c.allows("shop/front", "shop/near", 443);
    // Egress of `*` is not asked for what goes to a local pod.
    c.global("no", forward(egress(vec![])));
    c.allows("shop/front", "shop/near", 80);
    c.denies("shop/front", "shop/db", 80);
    // A named one's is not asked at all.
    let mut c = with("eth0");
    c.global("no", forward(ingress(vec![])));
    c.allows("shop/front", "shop/near", 80);
}

#[test]
fn node_to_own_pod_whatever_forwards() {
    let mut c = with("*");
    c.global("no", forward(policy("all()", Some(vec![]), Some(vec![]))));
    c.allows("n1", "shop/front", 80);
}

#[test]
fn tunnels_hide_forwarded_packets_from_named_uplinks() {
    let mut c = with("eth0");
    c.global("no", forward(egress(vec![])));
    c.denies("shop/front", "shop/db", 80);
    c.pool(
        "main",
        model::IpPool {
            vxlan: Encap::Always,
            ..pool("10.0.0.0/16")
        },
    );
    c.allows("shop/front", "shop/db", 80);
    c.host("t", "n1", Some("vxlan.calico"), &[]);
    c.denies("shop/front", "shop/db", 80);
    let mut c = with("*");
    c.global("no", forward(egress(vec![])));
    c.pool(
        "main",
        model::IpPool {
            ipip: Encap::Always,
            ..pool("10.0.0.0/16")
        },
    );
    c.denies("shop/front", "shop/db", 80);
}

#[test]
fn tunnels_between_nodes_need_no_policy() {
    let mut c = with("eth0");
    c.host("h2", "n2", Some("eth0"), &[]);
    c.pool(
        "main",
        model::IpPool {
            ipip: Encap::Always,
            ..pool("10.0.0.0/16")
        },
    );
    c.allows("shop/front", "shop/db", 80);
    // Pre-DNAT policy sees the packets that carry others.
    c.global("no", pre_dnat(vec![to_port("80")]));
    c.allows("shop/front", "shop/db", 80);
    c.global(
        "no",
        pre_dnat(vec![rule(Action::Deny, |r| {
            r.protocol = Some(net::Protocol(4))
        })]),
    );
    c.denies("shop/front", "shop/db", 80);
}

#[test]
fn pre_dnat_allow_is_final_for_the_node() {
    let mut c = with("*");
    c.global("no", ingress(vec![deny()]));
    c.global("pre", pre_dnat(vec![to_port("80")]));
    c.allows("8.8.8.8", "n1", 80);
    // Its tiers pass at their end.
    let e = c.denies("8.8.8.8", "n1", 81);
    assert!(matches!(
        e.paths[0].deciding().unwrap().place,
        Place::Host(..)
    ));
    // Forward policy of the way in is skipped, the pod's own is not.
    c.global("no", forward(ingress(vec![deny()])));
    c.allows("8.8.8.8", "shop/front", 80);
    c.global("pod", policy("app == 'front'", Some(vec![]), None));
    c.denies("8.8.8.8", "shop/front", 80);
}

#[test]
fn untracked_needs_both_ways() {
    let mut c = with("eth0");
    c.global("u", untracked(vec![to_port("80")], vec![]));
    let e = c.denies("8.8.8.8", "n1", 80);
    assert_eq!(
        e.paths[0].deciding().unwrap().decision,
        Decision::InvalidReply
    );
    let from_80 = rule(Action::Allow, |r| {
        r.protocol = Some(TCP);
        r.source.ports = vec!["80".parse().unwrap()];
    });
    c.global("u", untracked(vec![to_port("80")], vec![from_80]));
    let e = c.allows("8.8.8.8", "n1", 80);
    assert_eq!(e.paths[0].stages.len(), 2, "{e:#}");
    // What it does not decide goes to normal policy.
    c.denies("8.8.8.8", "n1", 81);
    c.global("n", ingress(vec![to_port("81")]));
    c.allows("8.8.8.8", "n1", 81);
}

#[test]
fn untracked_deny_and_failsafe() {
    let mut c = with("eth0");
    c.global("n", ingress(vec![allow()]));
    c.global("u", untracked(vec![deny()], vec![]));
    c.denies("8.8.8.8", "n1", 80);
    c.allows("8.8.8.8", "n1", 22);
    c.denies("8.8.8.8", "shop/front", 80);
}

#[test]
fn untracked_udp_answers_are_new_to_normal_policy() {
    let mut c = with("eth0");
    let ntp = rule(Action::Allow, |r| {
        r.protocol = Some(UDP);
        r.destination.ports = vec!["123".parse().unwrap()];
    });
    c.global("u", untracked(vec![ntp], vec![]));
    let flow = Flow {
        protocol: UDP,
        ..c.flow("8.8.8.8", "n1", 123)
    };
    c.denies_flow(&flow);
    c.global(
        "out",
        egress(vec![rule(Action::Allow, |r| r.protocol = Some(UDP))]),
    );
    c.allows_flow(&flow);
}

#[test]
fn any_interface_has_no_untracked_policy() {
    let mut c = with("*");
    c.global("u", untracked(vec![deny()], vec![deny()]));
    c.global("n", ingress(vec![allow()]));
    c.allows("8.8.8.8", "n1", 80);
}

#[test]
fn untracked_egress() {
    let mut c = with("eth0");
    c.global("u", untracked(vec![], vec![to_port("80")]));
    c.denies("n1", "8.8.8.8", 80);
    let from_80 = rule(Action::Allow, |r| {
        r.protocol = Some(TCP);
        r.source.ports = vec!["80".parse().unwrap()];
    });
    c.global("u", untracked(vec![from_80], vec![to_port("80")]));
    c.allows("n1", "8.8.8.8", 80);
    c.denies("n1", "8.8.8.8", 81);
}

#[test]
fn a_forwarded_untracked_connection_has_no_answers() {
    let mut c = with("eth0");
    c.global("u", untracked(vec![to_port("80")], vec![allow()]));
    c.denies("8.8.8.8", "shop/front", 80);
    c.allows("8.8.8.8", "shop/front", 81);
}

#[test]
fn loopback_is_one_of_all_interfaces() {
    let mut c = with("*");
    c.denies("n1", "n1", 80);
    c.allows("n2", "n2", 80);
    c.global("in", ingress(vec![allow()]));
    c.global("out", egress(vec![allow()]));
    c.allows("n1", "n1", 80);
    let c = with("eth0");
    c.allows("n1", "n1", 80);
}
