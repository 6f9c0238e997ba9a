//! Tiers, policies and profiles: who is asked, in which order, and what the end means.

use crate::support::*;
use model::{Action, Policy, PolicyKind, Profile, TierAction, Update};
use verdict::{Decision, Explanation};

const DB: &str = "shop/db";
const FRONT: &str = "shop/front";

fn ingress(rules: Vec<model::Rule>) -> Policy {
    policy("app == 'db'", Some(rules), None)
}

fn decided(e: &Explanation) -> String {
    e.paths[0].deciding().unwrap().decision.to_string()
}

#[test]
fn without_policy_the_profile_decides() {
    let c = Cluster::new();
    let e = c.allows(FRONT, DB, 80);
    assert_eq!(
        decided(&e),
        "no policy decides; profile kns.shop rule 0 allows it"
    );
}

#[test]
fn without_policy_and_profile_it_is_closed() {
    let mut c = Cluster::new();
    c.edit(DB, |w| w.profiles.clear());
    let e = c.denies(FRONT, DB, 80);
    assert_eq!(
        decided(&e),
        "no policy decides, and it has no profile: denied"
    );
}

#[test]
fn a_profile_that_does_not_exist_is_closed() {
    let mut c = Cluster::new();
    c.edit(DB, |w| w.profiles = vec!["gone".into(), "kns.shop".into()]);
    assert!(decided(&c.denies(FRONT, DB, 80)).starts_with("profile gone does not exist"));
    c.edit(DB, |w| w.profiles = vec!["kns.shop".into(), "gone".into()]);
    c.allows(FRONT, DB, 80);
}

#[test]
fn profiles_in_order_and_rules_in_order() {
    let mut c = Cluster::new();
    let rules = |rules| {
        Some(Profile {
            ingress: rules,
            ..Profile::default()
        })
    };
    c.0.update(Update::Profile("none".into(), rules(vec![])));
    c.0.update(Update::Profile(
        "no".into(),
        rules(vec![rule(Action::Log, |_| {}), deny(), allow()]),
    ));
    c.edit(DB, |w| {
        w.profiles = vec!["none".into(), "no".into(), "kns.shop".into()]
    });
    let e = c.denies(FRONT, DB, 80);
    assert_eq!(
        decided(&e),
        "no policy decides; profile no rule 1 denies it"
    );
    c.edit(DB, |w| w.profiles = vec!["none".into()]);
    c.denies(FRONT, DB, 80);
}

#[test]
fn the_end_of_a_tier_denies_those_selected_in_that_direction() {
    let mut c = Cluster::new();
    c.global("p", ingress(vec![to_port("81")]));
    let e = c.denies(FRONT, DB, 80);
    assert_eq!(
        decided(&e),
        "no policy of tier default allows it: GlobalNetworkPolicy(p)"
    );
    // Not selected, and selected for the other direction alone.
    c.allows(FRONT, "shop/near", 80);
    c.allows(DB, FRONT, 80);
}

#[test]
fn a_direction_without_rules_is_closed() {
    let mut c = Cluster::new();
    c.global("p", ingress(vec![]));
    c.denies(FRONT, DB, 80);
    c.global("p", policy("app == 'front'", None, Some(vec![])));
    c.denies(FRONT, DB, 80);
    c.allows(DB, FRONT, 80);
}

#[test]
fn rules_in_order_first_decides() {
    let mut c = Cluster::new();
    c.global("p", ingress(vec![to_port("80"), deny()]));
    c.allows(FRONT, DB, 80);
    c.denies(FRONT, DB, 81);
    c.global("p", ingress(vec![deny(), to_port("80")]));
    let e = c.denies(FRONT, DB, 80);
    assert_eq!(
        decided(&e),
        "rule 0 of GlobalNetworkPolicy(p) in tier default denies it"
    );
}

#[test]
fn log_goes_on() {
    let mut c = Cluster::new();
    c.global("p", ingress(vec![rule(Action::Log, |_| {}), allow()]));
    assert!(decided(&c.allows(FRONT, DB, 80)).starts_with("rule 1 of"));
    c.global("p", ingress(vec![rule(Action::Log, |_| {})]));
    c.denies(FRONT, DB, 80);
}

#[test]
fn policies_by_order_then_name_without_order_last() {
    let mut c = Cluster::new();
    let ordered = |order, rules| Policy {
        order,
        ..ingress(rules)
    };
    c.global("b", ordered(Some(1.0), vec![deny()]));
    c.global("a", ordered(Some(2.0), vec![allow()]));
    c.denies(FRONT, DB, 80);
    c.global("b", ordered(Some(2.0), vec![deny()]));
    c.allows(FRONT, DB, 80);
    c.global("a", ordered(None, vec![allow()]));
    c.denies(FRONT, DB, 80);
    c.global("b", ordered(Some(f64::NAN), vec![deny()]));
    c.allows(FRONT, DB, 80);
    c.global("a", ordered(Some(0.0), vec![allow()]));
    c.global("b", ordered(Some(-0.0), vec![deny()]));
    c.allows(FRONT, DB, 80);
}

#[test]
fn equal_order_is_by_name_namespace_kind() {
    let mut c = Cluster::new();
    // "a" of a namespace comes before "b" of none; of one name, the global one's empty
    // namespace comes first.
    c.put(PolicyKind::NetworkPolicy, "shop/a", ingress(vec![allow()]));
    c.global("b", ingress(vec![deny()]));
    c.allows(FRONT, DB, 80);
    c.global("a", ingress(vec![deny()]));
    c.denies(FRONT, DB, 80);
}

#[test]
fn tiers_by_order_then_name() {
    let mut c = Cluster::new();
    let in_tier = |tier: &str, rules| Policy {
        tier: tier.into(),
        ..ingress(rules)
    };
    c.tier("x", Some(5.0), TierAction::Deny);
    c.tier("y", Some(6.0), TierAction::Deny);
    c.global("px", in_tier("x", vec![deny()]));
    c.global("py", in_tier("y", vec![allow()]));
    c.denies(FRONT, DB, 80);
    c.tier("x", Some(7.0), TierAction::Deny);
    c.allows(FRONT, DB, 80);
    c.tier("x", Some(6.0), TierAction::Deny);
    c.denies(FRONT, DB, 80);
    // Without an order it counts as 1,000,000: after the default tier by name.
    c.tier("x", None, TierAction::Deny);
    c.global("pd", in_tier("default", vec![allow()]));
    c.0.update(Update::Policy(
        key(PolicyKind::GlobalNetworkPolicy, "py"),
        None,
    ));
    c.allows(FRONT, DB, 80);
}

#[test]
fn allow_in_an_early_tier_is_final() {
    let mut c = Cluster::new();
    c.tier("first", Some(1.0), TierAction::Deny);
    c.global(
        "early",
        Policy {
            tier: "first".into(),
            ..ingress(vec![to_port("80")])
        },
    );
    c.global("late", ingress(vec![deny()]));
    c.allows(FRONT, DB, 80);
    c.denies(FRONT, DB, 81);
}

#[test]
fn pass_skips_the_rest_of_the_tier() {
    let mut c = Cluster::new();
    c.tier("first", Some(1.0), TierAction::Deny);
    let first = |order, rules| Policy {
        tier: "first".into(),
        order: Some(order),
        ..ingress(rules)
    };
    c.global("p1", first(1.0, vec![rule(Action::Pass, |_| {})]));
    c.global("p2", first(2.0, vec![deny()]));
    // Nothing else: profiles.
    assert!(decided(&c.allows(FRONT, DB, 80)).contains("profile kns.shop"));
    c.global("d", ingress(vec![to_port("80")]));
    c.allows(FRONT, DB, 80);
    c.denies(FRONT, DB, 81);
}

#[test]
fn pass_in_the_last_tier_goes_to_profiles() {
    let mut c = Cluster::new();
    c.global("d", ingress(vec![rule(Action::Pass, |_| {})]));
    assert!(decided(&c.allows(FRONT, DB, 80)).contains("profile kns.shop"));
    c.edit(DB, |w| w.profiles.clear());
    c.denies(FRONT, DB, 80);
}

#[test]
fn a_tier_that_passes_at_its_end() {
    let mut c = Cluster::new();
    let admin = |rules| Policy {
        tier: "kube-admin".into(),
        ..ingress(rules)
    };
    c.put(
        PolicyKind::KubernetesClusterNetworkPolicy,
        "a",
        admin(vec![to_port("81")]),
    );
    c.allows(FRONT, DB, 80);
    c.global("d", ingress(vec![to_port("82")]));
    c.denies(FRONT, DB, 80);
    c.allows(FRONT, DB, 81);
    c.allows(FRONT, DB, 82);
}

#[test]
fn the_baseline_is_reached_only_by_what_nothing_decided() {
    let mut c = Cluster::new();
    let base = Policy {
        tier: "kube-baseline".into(),
        ..ingress(vec![deny()])
    };
    c.put(PolicyKind::KubernetesClusterNetworkPolicy, "b", base);
    c.denies(FRONT, DB, 80);
    c.global("d", ingress(vec![to_port("80")]));
    c.allows(FRONT, DB, 80);
}

#[test]
fn a_tier_that_does_not_exist_is_last_and_denies() {
    let mut c = Cluster::new();
    let lost = Policy {
        tier: "lost".into(),
        ..ingress(vec![to_port("80")])
    };
    c.global("l", lost);
    c.allows(FRONT, DB, 80);
    let e = c.denies(FRONT, DB, 81);
    assert!(
        e.notes.iter().any(|n| n.contains("there is no tier lost")),
        "{e}"
    );
    c.global("d", ingress(vec![deny()]));
    c.denies(FRONT, DB, 80);
}

#[test]
fn both_ends_must_allow() {
    let mut c = Cluster::new();
    c.global(
        "out",
        policy("app == 'front'", None, Some(vec![to_port("80")])),
    );
    c.global("in", ingress(vec![to_port("80"), to_port("81")]));
    c.allows(FRONT, DB, 80);
    let e = c.denies(FRONT, DB, 81);
    assert_eq!(e.paths[0].deciding().unwrap().node.as_ref(), "n1");
    assert!(matches!(
        &e.paths[0].deciding().unwrap().decision,
        Decision::EndOfTier { .. }
    ));
}

#[test]
fn policies_for_hosts_alone_are_not_asked_for_pods() {
    let mut c = Cluster::new();
    c.global(
        "u",
        Policy {
            untracked: true,
            apply_on_forward: true,
            ..ingress(vec![deny()])
        },
    );
    c.global(
        "d",
        Policy {
            pre_dnat: true,
            apply_on_forward: true,
            ..ingress(vec![deny()])
        },
    );
    assert!(decided(&c.allows(FRONT, DB, 80)).contains("profile"));
    // Whether it also holds for forwarded traffic of hosts makes no difference to a pod.
    c.global(
        "f",
        Policy {
            apply_on_forward: true,
            ..ingress(vec![deny()])
        },
    );
    c.denies(FRONT, DB, 80);
}

#[test]
fn a_policy_selects_by_inherited_labels() {
    let mut c = Cluster::new();
    c.global("p", policy("pcns.team == 'web'", Some(vec![]), None));
    c.denies("other/job", DB, 80);
    c.allows(FRONT, "other/job", 80);
    // An own label shadows an inherited one.
    c.edit(DB, |w| w.labels = labels("pcns.team=none"));
    c.allows("other/job", DB, 80);
}
