//! What if staged policies were enforced.

use crate::support::*;
use model::{Policy, PolicyKind, StagedAction};
use verdict::Verdict;

fn ingress(rules: Vec<model::Rule>) -> Policy {
    policy("app == 'db'", Some(rules), None)
}

fn staged(action: StagedAction, p: Policy) -> Policy {
    Policy {
        staged: action,
        ..p
    }
}

/// Enforced, with staged ones, and which of these change it.
fn both(c: &Cluster) -> (Verdict, Option<Verdict>, Vec<String>) {
    let e = c.explain("shop/front", "shop/db", 80);
    let changed = e
        .staged
        .iter()
        .flat_map(|s| &s.changed_by)
        .map(|(k, v)| format!("{k} {v}"));
    let staged = e.staged.as_ref().map(|s| s.verdict);
    // A world with them enforced says the same.
    let world = c.0.with_staged_enforced();
    let enforced = Cluster(world).explain("shop/front", "shop/db", 80);
    assert_eq!(enforced.verdict, staged.unwrap_or(e.verdict));
    assert_eq!(enforced.staged, None);
    (e.verdict, staged, changed.collect())
}

const GLOBAL: PolicyKind = PolicyKind::StagedGlobalNetworkPolicy;

#[test]
fn none_is_no_answer() {
    let c = Cluster::new();
    assert_eq!(both(&c), (Verdict::Allow, None, vec![]));
}

#[test]
fn set_is_added() {
    let mut c = Cluster::new();
    c.put(GLOBAL, "new", staged(StagedAction::Set, ingress(vec![])));
    let by = vec!["StagedGlobalNetworkPolicy(new) deny".to_owned()];
    assert_eq!(both(&c), (Verdict::Allow, Some(Verdict::Deny), by.clone()));
    c.put(GLOBAL, "new", staged(StagedAction::Learn, ingress(vec![])));
    assert_eq!(both(&c), (Verdict::Allow, Some(Verdict::Deny), by));
    c.put(GLOBAL, "new", staged(StagedAction::Ignore, ingress(vec![])));
    assert_eq!(both(&c), (Verdict::Allow, None, vec![]));
}

#[test]
fn set_takes_the_place_of_the_enforced_one() {
    let mut c = Cluster::new();
    c.global("p", ingress(vec![]));
    c.put(
        GLOBAL,
        "p",
        staged(StagedAction::Set, ingress(vec![to_port("80")])),
    );
    let by = vec!["StagedGlobalNetworkPolicy(p) allow".to_owned()];
    assert_eq!(both(&c), (Verdict::Deny, Some(Verdict::Allow), by));
    // Of another name it comes beside it.
    c.global("p", ingress(vec![deny()]));
    c.put(GLOBAL, "p", staged(StagedAction::Ignore, ingress(vec![])));
    c.put(
        GLOBAL,
        "q",
        staged(StagedAction::Set, ingress(vec![to_port("80")])),
    );
    assert_eq!(both(&c), (Verdict::Deny, Some(Verdict::Deny), vec![]));
}

#[test]
fn delete_removes_the_enforced_one_of_its_kind_and_name() {
    let mut c = Cluster::new();
    c.put(PolicyKind::NetworkPolicy, "shop/p", ingress(vec![]));
    let gone = || staged(StagedAction::Delete, ingress(vec![]));
    c.put(PolicyKind::StagedNetworkPolicy, "shop/p", gone());
    let by = vec!["StagedNetworkPolicy(shop/p) allow".to_owned()];
    assert_eq!(both(&c), (Verdict::Deny, Some(Verdict::Allow), by));
    c.put(
        PolicyKind::StagedNetworkPolicy,
        "shop/p",
        staged(StagedAction::Ignore, ingress(vec![])),
    );
    c.put(PolicyKind::StagedKubernetesNetworkPolicy, "shop/p", gone());
    assert_eq!(both(&c), (Verdict::Deny, Some(Verdict::Deny), vec![]));
    c.put(PolicyKind::StagedNetworkPolicy, "other/p", gone());
    assert_eq!(both(&c).1, Some(Verdict::Deny));
}

#[test]
fn a_tier_with_staged_policies_alone_is_not_there() {
    let mut c = Cluster::new();
    c.tier("first", Some(1.0), model::TierAction::Deny);
    let p = Policy {
        tier: "first".into(),
        ..ingress(vec![to_port("81")])
    };
    c.put(GLOBAL, "p", p);
    assert_eq!(both(&c).0, Verdict::Allow);
    assert_eq!(both(&c).1, Some(Verdict::Deny));
}

#[test]
fn only_together_they_change_it() {
    let mut c = Cluster::new();
    c.global("a", ingress(vec![]));
    c.put(PolicyKind::NetworkPolicy, "shop/b", ingress(vec![]));
    c.put(GLOBAL, "a", staged(StagedAction::Delete, ingress(vec![])));
    c.put(
        PolicyKind::StagedNetworkPolicy,
        "shop/b",
        staged(StagedAction::Delete, ingress(vec![])),
    );
    assert_eq!(both(&c), (Verdict::Deny, Some(Verdict::Allow), vec![]));
}
