//! ClusterNetworkPolicy and the staged policies in the model.

use crate::{defaulted, update, v3};
use api::ResourceKind as K;
use model::{Action, Policy, PolicyKey, PolicyKind, Rule, StagedAction, Update};

const K8S: &str = "projectcalico.org/orchestrator == \"k8s\"";

fn policy(text: &str) -> (PolicyKey, Policy) {
    match update(text) {
        Update::Policy(k, Some(p)) => (k, p),
        u => panic!("{u:?}"),
    }
}

fn cluster(spec: &str) -> Policy {
    let text = v3(
        K::ClusterNetworkPolicy,
        &format!("metadata: {{name: p}}\nspec: {spec}"),
    );
    let (key, p) = policy(&text);
    let expected = PolicyKey {
        kind: PolicyKind::KubernetesClusterNetworkPolicy,
        namespace: None,
        name: "p".into(),
    };
    assert_eq!(key, expected);
    p
}

const TO_ALL: &str = "tier: Admin, priority: 7, subject: {namespaces: {}}";

fn egress(rules: &str) -> Vec<Rule> {
    cluster(&format!("{{{TO_ALL}, egress: [{rules}]}}")).egress
}

fn ports(r: &Rule) -> String {
    let d = &r.destination;
    let protocol = r
        .protocol
        .map_or_else(|| "any".to_owned(), |p| p.to_string());
    let numbers = d.ports.iter().map(ToString::to_string);
    let names = d.named_ports.iter().map(ToString::to_string);
    let all: Vec<_> = numbers.chain(names).collect();
    format!("{protocol} {}", all.join(","))
}

#[test]
fn tiers_subjects_and_directions() {
    let p = cluster(
        "{tier: Baseline, priority: 7, subject: {pods: {namespaceSelector: {matchLabels: {team: a}}, podSelector: {matchLabels: {app: b}}}}, ingress: [{action: Pass, name: to-me, from: [{namespaces: {}}]}]}",
    );
    assert_eq!((&*p.tier, p.order), ("kube-baseline", Some(7.0)));
    assert_eq!(
        p.selector.as_str(),
        format!("({K8S} && app == \"b\" && pcns.team == \"a\")")
    );
    assert_eq!((p.applies_ingress, p.applies_egress), (true, false));
    let [r] = p.ingress.as_slice() else {
        panic!("{p:?}")
    };
    assert_eq!(r.action, Action::Pass);
    assert_eq!(r.annotations, [("name".into(), "to-me".into())]);
    let everybody = format!("(has(projectcalico.org/namespace) && {K8S})");
    assert_eq!(
        r.source.selector.as_ref().map(ToString::to_string),
        Some(everybody)
    );
    let none = cluster(&format!("{{{TO_ALL}}}"));
    assert_eq!((none.applies_ingress, none.applies_egress), (false, false));
    assert_eq!(
        none.selector.as_str(),
        format!("({K8S} && has(projectcalico.org/namespace))")
    );
}

#[test]
fn egress_peers() {
    let rules = egress(
        "{action: Accept, to: [{nodes: {matchLabels: {role: control}}}, {networks: [10.0.0.0/8, 'fd00::/8']}, {domainNames: ['*.Example.COM.', example.org]}, {pods: {podSelector: {matchLabels: {a: b}}}}]}",
    );
    let [nodes, networks, domains, pods] = rules.as_slice() else {
        panic!("{rules:?}")
    };
    let text = |s: &Option<model::Selector>| s.as_ref().map(ToString::to_string);
    assert_eq!(
        text(&nodes.destination.nodes).as_deref(),
        Some("role == \"control\"")
    );
    assert_eq!(networks.destination.nets.len(), 2);
    assert_eq!(
        domains.destination.domains,
        ["*.example.com".into(), "example.org".into()]
    );
    assert_eq!(
        text(&pods.destination.selector),
        Some(format!(
            "(has(projectcalico.org/namespace) && {K8S} && a == \"b\")"
        ))
    );
    assert!(rules.iter().all(|r| r.action == Action::Allow));
}

#[test]
fn protocols_and_ports() {
    let of = |protocols: &str| -> Vec<String> {
        let rules = egress(&format!(
            "{{action: Deny, to: [{{namespaces: {{}}}}], protocols: [{protocols}]}}"
        ));
        rules.iter().map(ports).collect()
    };
    assert_eq!(of(""), ["any "]);
    assert_eq!(
        of(
            "{tcp: {destinationPort: {number: 80}}}, {tcp: {destinationPort: {range: {start: 81, end: 90}}}}, {udp: {destinationPort: {number: 53}}}, {sctp: {}}"
        ),
        ["TCP 80:90", "UDP 53", "SCTP "]
    );
    assert_eq!(
        of("{tcp: {destinationPort: {number: 80}}}, {tcp: {}}"),
        ["TCP "]
    );
    assert_eq!(
        of("{destinationNamedPort: web}, {tcp: {destinationPort: {number: 80}}}"),
        ["any web", "TCP 80"]
    );
}

/// What newer versions of the API may send: no field that is known, or several.
#[test]
fn what_is_not_understood_closes() {
    for (action, peer, protocols) in [
        ("Accept", "{}", ""),
        ("Deny", "{}", ""),
        ("Pass", "{}", ""),
        ("Deny", "{namespaces: {}, networks: [10.0.0.0/8]}", ""),
        ("Pass", "{networks: [ten]}", ""),
        ("Deny", "{domainNames: [example.org]}", ""),
        ("Accept", "{domainNames: ['a b']}", ""),
        ("Accept", "{namespaces: {}}", "{}"),
        ("Deny", "{namespaces: {}}", "{}"),
        (
            "Pass",
            "{namespaces: {}}",
            "{tcp: {destinationPort: {number: 70000}}}",
        ),
        (
            "Deny",
            "{namespaces: {}}",
            "{tcp: {destinationPort: {range: {start: 9, end: 8}}}}",
        ),
        (
            "Pass",
            "{namespaces: {matchExpressions: [{key: a, operator: Near}]}}",
            "",
        ),
        ("Accept", "{namespaces: {matchLabels: {'a b': c}}}", ""),
    ] {
        let rules = egress(&format!(
            "{{action: {action}, to: [{peer}], protocols: [{protocols}]}}"
        ));
        let expected = match action {
            "Accept" => Vec::new(),
            _ => vec![Rule::any(Action::Deny)],
        };
        assert_eq!(rules, expected, "{action} {peer} {protocols}");
    }
    // An ingress rule has no such peer.
    let p = cluster(&format!(
        "{{{TO_ALL}, ingress: [{{action: Deny, from: [{{nodes: {{}}}}]}}]}}"
    ));
    assert_eq!(p.ingress, [Rule::any(Action::Deny)]);
    // A subject or tier that is not understood is no policy, and says so.
    for spec in [
        "{tier: Middle, priority: 1, subject: {namespaces: {}}}",
        "{tier: Admin, priority: 1, subject: {}}",
    ] {
        let r = defaulted(&v3(
            K::ClusterNetworkPolicy,
            &format!("metadata: {{name: p}}\nspec: {spec}"),
        ));
        assert!(api::updates(&r).is_err(), "{spec}");
    }
}

#[test]
fn staged_policies_carry_their_action() {
    let staged = |kind, ns: &str, spec: &str| {
        policy(&v3(
            kind,
            &format!("metadata: {{name: p{ns}}}\nspec: {spec}"),
        ))
    };
    let ns = ", namespace: prod";
    let (key, p) = staged(
        K::StagedNetworkPolicy,
        ns,
        "{selector: a == 'b', egress: [{action: Allow}]}",
    );
    assert_eq!(key.kind, PolicyKind::StagedNetworkPolicy);
    assert_eq!(p.staged, StagedAction::Set);
    assert_eq!((p.applies_ingress, p.applies_egress), (false, true));
    assert_eq!(
        p.selector.as_str(),
        "(a == \"b\" && projectcalico.org/namespace == \"prod\")"
    );
    let (key, p) = staged(
        K::StagedGlobalNetworkPolicy,
        "",
        "{stagedAction: Delete, tier: default}",
    );
    assert_eq!(key.kind, PolicyKind::StagedGlobalNetworkPolicy);
    assert_eq!(p.staged, StagedAction::Delete);
    let (key, p) = staged(
        K::StagedKubernetesNetworkPolicy,
        ns,
        "{stagedAction: Learn, podSelector: {}, ingress: [{}]}",
    );
    assert_eq!(key.kind, PolicyKind::StagedKubernetesNetworkPolicy);
    assert_eq!((p.staged, p.order), (StagedAction::Learn, Some(1000.0)));
    assert_eq!(
        p.selector.as_str(),
        format!("({K8S} && projectcalico.org/namespace == \"prod\")")
    );
    assert_eq!(p.ingress, [Rule::any(Action::Allow)]);
}
