//! Tiers, policies and profiles.

use super::{Check, ONLY_NAMESPACE_SELECTOR, kube, names, rule};
use crate::kinds::endpoint::ProfileSpec;
use crate::kinds::kube::{KubePolicySpec, LabelSelector};
use crate::kinds::policy::{PolicySpec, Tier};

/// The tiers that every cluster has, and the action that each must keep.
pub(super) const BUILT_IN_TIERS: [(&str, &str); 3] = [
    ("kube-admin", "Pass"),
    ("default", "Deny"),
    ("kube-baseline", "Pass"),
];

/// The orders that they must keep, in the same sequence.
const BUILT_IN_ORDERS: [f64; 3] = [1000.0, 1_000_000.0, 10_000_000.0];

const MAX_RULES: usize = 1024;

pub(super) fn tier(c: &mut Check, r: &Tier) {
    let name = &r.metadata.name;
    if name.contains('.') {
        c.fail("metadata.name", name, "tier name must not contain dots");
    }
    if name.len() > 63 {
        c.fail(
            "metadata.name",
            name,
            "tier name must not be longer than 63 characters",
        );
    }
    c.one_of(
        "spec.defaultAction",
        &r.spec.default_action,
        &["Deny", "Pass"],
    );
    if r.spec.order.is_some_and(|o| !o.0.is_finite()) {
        c.fail("spec.order", "", "order must be a finite number");
    }
    for ((built_in, action), order) in BUILT_IN_TIERS.iter().zip(BUILT_IN_ORDERS) {
        if name != built_in {
            continue;
        }
        if !r.spec.default_action.is_empty() && r.spec.default_action != *action {
            let reason = format!("The '{name}' tier must have default action '{action}'");
            c.fail("spec.defaultAction", &r.spec.default_action, reason);
        }
        let given = r.spec.order.map_or(model::Tier::DEFAULT_ORDER, |o| o.0);
        #[expect(clippy::float_cmp, reason = "a constant that must be kept exactly")]
        if given != order {
            c.fail(
                "spec.order",
                given,
                format!("{name} tier order must be {order}"),
            );
        }
    }
}

pub(super) fn profile(c: &mut Check, s: &ProfileSpec) {
    rules(c, &s.ingress, &s.egress, false);
    for key in s.labels_to_apply.keys() {
        let chars = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'/' | b'-');
        if key.is_empty() || !key.bytes().all(chars) {
            c.fail("spec.labelsToApply", key, "invalid label name");
        }
    }
}

fn rules(
    c: &mut Check,
    ingress: &[crate::kinds::policy::Rule],
    egress: &[crate::kinds::policy::Rule],
    namespaced: bool,
) {
    for (name, is_ingress, list) in [("ingress", true, ingress), ("egress", false, egress)] {
        c.at_most(&format!("spec.{name}"), "rules", list.len(), MAX_RULES);
        for (i, r) in list.iter().enumerate() {
            rule::check(c, &format!("spec.{name}[{i}]"), r, is_ingress, namespaced);
        }
    }
}

const NOTHING_BUT_TIER: &str =
    "Spec fields, except Tier, should all be zero-value if stagedAction is Delete";

/// The four policies of Calico's.
pub(super) fn check(c: &mut Check, s: &PolicySpec, global: bool, staged: bool) {
    for (field, why) in crate::parse::foreign_fields(s, global, staged) {
        c.fail(field, "", why);
    }
    if staged {
        c.one_of("spec.stagedAction", &s.staged_action, &STAGED_ACTIONS);
    }
    if !s.tier.is_empty() && (!names::is_label(&s.tier) || s.tier.len() > 63) {
        c.fail("spec.tier", &s.tier, "invalid tier name");
    }
    if staged && s.staged_action == "Delete" {
        let nothing = PolicySpec {
            staged_action: s.staged_action.clone(),
            tier: s.tier.clone(),
            ..PolicySpec::default()
        };
        if *s != nothing {
            c.fail("spec", "Delete", NOTHING_BUT_TIER);
        }
        return;
    }
    if s.order.is_some_and(|o| !o.0.is_finite()) {
        c.fail("spec.order", "", "order must be a finite number");
    }
    for (field, text) in [
        ("spec.selector", &s.selector),
        ("spec.serviceAccountSelector", &s.service_account_selector),
        ("spec.namespaceSelector", &s.namespace_selector),
    ] {
        let global = c.any_selector(field, text).is_some_and(|s| s.has_global());
        if global {
            c.fail(field, text, ONLY_NAMESPACE_SELECTOR);
        }
    }
    rules(c, &s.ingress, &s.egress, !global);
    for (i, t) in s.types.iter().enumerate() {
        c.one_of(&format!("spec.types[{i}]"), t, &["Ingress", "Egress"]);
        if s.types[..i].contains(t) {
            c.fail(format!("spec.types[{i}]"), t, "duplicate policy type");
        }
    }
    for (i, h) in s.performance_hints.iter().enumerate() {
        c.one_of(
            &format!("spec.performanceHints[{i}]"),
            h,
            &["AssumeNeededOnEveryNode"],
        );
    }
    if global {
        hosts(c, s);
    }
}

const STAGED_ACTIONS: [&str; 4] = ["Set", "Delete", "Learn", "Ignore"];

pub(super) fn staged_kube(c: &mut Check, s: &KubePolicySpec) {
    c.one_of("spec.stagedAction", &s.staged_action, &STAGED_ACTIONS);
    if s.staged_action != "Delete" {
        return kube::policy(c, s);
    }
    let nothing = KubePolicySpec {
        staged_action: s.staged_action.clone(),
        pod_selector: s.pod_selector.clone().map(|_| LabelSelector::default()),
        ..KubePolicySpec::default()
    };
    if *s != nothing {
        let reason = "Spec fields should all be zero-value if stagedAction is Delete";
        c.fail("spec", "Delete", reason);
    }
}

/// What is only for host endpoints, and only in global policies.
fn hosts(c: &mut Check, s: &PolicySpec) {
    if s.pre_dnat && s.do_not_track {
        c.fail(
            "spec.preDNAT",
            true,
            "preDNAT and doNotTrack cannot both be true",
        );
    }
    if s.pre_dnat && !s.egress.is_empty() {
        c.fail(
            "spec.preDNAT",
            true,
            "preDNAT policy cannot have any egress rules",
        );
    }
    if s.pre_dnat && s.types.iter().any(|t| t == "Egress") {
        c.fail(
            "spec.preDNAT",
            true,
            "preDNAT policy cannot have 'Egress' type",
        );
    }
    if (s.pre_dnat || s.do_not_track) && !s.apply_on_forward {
        let reason = "applyOnForward must be true if either preDNAT or doNotTrack is true";
        c.fail("spec.applyOnForward", false, reason);
    }
}
