//! Policies, Calico's and Kubernetes', in the model.

use crate::{defaulted, update, v3};
use api::ResourceKind as K;
use model::{Action, Entity, Policy, PolicyKey, PolicyKind, Rule, Update};

fn policy(text: &str) -> (PolicyKey, Policy) {
    match update(text) {
        Update::Policy(k, Some(p)) => (k, p),
        u => panic!("{u:?}"),
    }
}

/// `sel=.. nets=.. -nets=.. -sel=.. ports=..` of one side, without what is empty.
fn entity(e: &Entity) -> String {
    fn list<T: ToString>(name: &str, items: &[T]) -> Option<String> {
        let texts: Vec<_> = items.iter().map(ToString::to_string).collect();
        (!texts.is_empty()).then(|| format!("{name}={}", texts.join(",")))
    }
    let one = |name: &str, v: Option<String>| v.map(|v| format!("{name}={v}"));
    [
        one("sel", e.selector.as_ref().map(ToString::to_string)),
        one("-sel", e.not_selector.as_ref().map(ToString::to_string)),
        list("nets", &e.nets),
        list("-nets", &e.not_nets),
        list("ports", &e.ports),
        list("names", &e.named_ports),
        list("-ports", &e.not_ports),
        list("-names", &e.not_named_ports),
        one(
            "svc",
            e.service
                .as_ref()
                .map(|s| format!("{}/{}", s.namespace, s.name)),
        ),
    ]
    .into_iter()
    .flatten()
    .collect::<Vec<_>>()
    .join(" ")
}

fn show(r: &Rule) -> String {
    let protocol = r
        .protocol
        .map_or_else(|| "any".to_owned(), |p| p.to_string());
    format!(
        "{:?} {protocol} [{}] -> [{}]",
        r.action,
        entity(&r.source),
        entity(&r.destination)
    )
}

const OWN: &str = "projectcalico.org/namespace == \"prod\"";
const K8S: &str = "projectcalico.org/orchestrator == \"k8s\"";

#[track_caller]
fn kube(spec: &str, selector: &str, directions: (bool, bool), rules: &[&str]) {
    let text = format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p, namespace: prod}}\nspec: {spec}"
    );
    let (key, p) = policy(&text);
    let expected = PolicyKey {
        kind: PolicyKind::KubernetesNetworkPolicy,
        namespace: Some("prod".into()),
        name: "p".into(),
    };
    assert_eq!(key, expected);
    assert_eq!((&*p.tier, p.order), ("default", Some(1000.0)));
    let selector = selector.replace("OWN", OWN).replace("K8S", K8S);
    assert_eq!(p.selector.as_str(), selector, "{spec}");
    assert_eq!((p.applies_ingress, p.applies_egress), directions, "{spec}");
    let shown: Vec<_> = p.ingress.iter().chain(&p.egress).map(show).collect();
    let rules: Vec<_> = rules
        .iter()
        .map(|r| r.replace("OWN", OWN).replace("K8S", K8S))
        .collect();
    assert_eq!(shown, rules, "{spec}");
}

#[test]
fn kubernetes_subjects_and_types() {
    let all = "(K8S && OWN)";
    kube("{podSelector: {}}", all, (true, false), &[]);
    kube("{podSelector: {}, ingress: []}", all, (true, false), &[]);
    kube(
        "{podSelector: {}, egress: [{}]}",
        all,
        (true, true),
        &["Allow any [] -> []"],
    );
    kube(
        "{podSelector: {}, policyTypes: [Egress]}",
        all,
        (false, true),
        &[],
    );
    kube(
        "{podSelector: {}, policyTypes: [Ingress, Egress]}",
        all,
        (true, true),
        &[],
    );
    kube(
        "{podSelector: {}, ingress: [{}]}",
        all,
        (true, false),
        &["Allow any [] -> []"],
    );
    kube(
        "{podSelector: {}, ingress: [{from: [], ports: []}]}",
        all,
        (true, false),
        &["Allow any [] -> []"],
    );
    kube(
        "{podSelector: {matchLabels: {b: '2', a: '1'}, matchExpressions: [{key: c, operator: In, values: [y, x]}, {key: d, operator: NotIn, values: [z]}, {key: e, operator: Exists}, {key: f, operator: DoesNotExist}]}}",
        "(K8S && a == \"1\" && b == \"2\" && c in {\"x\", \"y\"} && d not in {\"z\"} && has(e) && !has(f) && OWN)",
        (true, false),
        &[],
    );
}

#[test]
fn kubernetes_peers() {
    let all = "(K8S && OWN)";
    let from = |peer: &str, rule: &str| {
        kube(
            &format!("{{podSelector: {{}}, ingress: [{{from: [{peer}]}}]}}"),
            all,
            (true, false),
            &[rule],
        );
    };
    from("{podSelector: {}}", "Allow any [sel=(OWN && K8S)] -> []");
    from(
        "{podSelector: {matchLabels: {a: '1'}}}",
        "Allow any [sel=(OWN && K8S && a == \"1\")] -> []",
    );
    from(
        "{namespaceSelector: {}}",
        "Allow any [sel=(has(projectcalico.org/namespace) && K8S)] -> []",
    );
    from(
        "{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: x}}}",
        "Allow any [sel=(pcns.kubernetes.io/metadata.name == \"x\" && K8S)] -> []",
    );
    from(
        "{namespaceSelector: {matchExpressions: [{key: n, operator: Exists}]}, podSelector: {matchLabels: {a: '1'}}}",
        "Allow any [sel=(has(pcns.n) && K8S && a == \"1\")] -> []",
    );
    from(
        "{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}",
        "Allow any [nets=10.0.0.0/8 -nets=10.1.0.0/16] -> []",
    );
    kube(
        "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 'fd00::/8'}}, {podSelector: {}}], ports: [{port: 53, protocol: UDP}, {port: 53}]}]}",
        all,
        (false, true),
        &[
            "Allow TCP [] -> [nets=fd00::/8 ports=53]",
            "Allow TCP [] -> [sel=(OWN && K8S) ports=53]",
            "Allow UDP [] -> [nets=fd00::/8 ports=53]",
            "Allow UDP [] -> [sel=(OWN && K8S) ports=53]",
        ],
    );
}

#[test]
fn kubernetes_ports() {
    let ports = |ports: &str, rules: &[&str]| {
        kube(
            &format!("{{podSelector: {{}}, ingress: [{{ports: [{ports}]}}]}}"),
            "(K8S && OWN)",
            (true, false),
            rules,
        );
    };
    ports("{port: 80}", &["Allow TCP [] -> [ports=80]"]);
    ports(
        "{port: 81}, {port: 80}, {port: 90, endPort: 95}, {port: 82}",
        &["Allow TCP [] -> [ports=80:82,90:95]"],
    );
    ports(
        "{port: http}, {port: 80}, {port: http}",
        &["Allow TCP [] -> [ports=80 names=http]"],
    );
    ports("{protocol: UDP}", &["Allow UDP [] -> []"]);
    ports("{}", &["Allow TCP [] -> []"]);
    ports("{port: 80}, {}", &["Allow TCP [] -> []"]);
    ports(
        "{protocol: SCTP, port: 1}, {protocol: UDP, port: 2}",
        &["Allow SCTP [] -> [ports=1]", "Allow UDP [] -> [ports=2]"],
    );
}

#[test]
fn what_cannot_be_converted_allows_nothing() {
    let bad = |rule: &str| {
        kube(
            &format!("{{podSelector: {{}}, ingress: [{rule}, {{ports: [{{port: 1}}]}}]}}"),
            "(K8S && OWN)",
            (true, false),
            &["Allow TCP [] -> [ports=1]"],
        );
    };
    bad("{from: [{ipBlock: {cidr: nonsense}}]}");
    bad("{from: [{podSelector: {matchExpressions: [{key: a, operator: Is}]}}]}");
    bad("{ports: [{port: 9, endPort: 8}]}");
    let r = defaulted(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: prod}\nspec: {podSelector: {matchExpressions: [{key: a, operator: Is}]}}",
    );
    let e = api::updates(&r).expect_err("no selector").to_string();
    assert!(
        e.starts_with("NetworkPolicy(prod/p): spec.podSelector: "),
        "{e}"
    );
}

#[track_caller]
fn calico(kind: K, spec: &str, selector: &str, rules: &[&str]) {
    let (_, p) = policy(&v3(
        kind,
        &format!(
            "metadata: {{name: p, namespace: {}}}\nspec: {spec}",
            if kind.namespaced() { "prod" } else { "" }
        ),
    ));
    assert_eq!(p.selector.as_str(), selector.replace("OWN", OWN), "{spec}");
    let shown: Vec<_> = p.ingress.iter().chain(&p.egress).map(show).collect();
    let rules: Vec<_> = rules.iter().map(|r| r.replace("OWN", OWN)).collect();
    assert_eq!(shown, rules, "{spec}");
}

#[test]
fn subjects_of_calicos_policies() {
    calico(K::NetworkPolicy, "{}", "OWN", &[]);
    calico(
        K::NetworkPolicy,
        "{selector: a == 'b' || has(c)}",
        "((a == \"b\" || has(c)) && OWN)",
        &[],
    );
    calico(
        K::NetworkPolicy,
        "{serviceAccountSelector: r == 'x'}",
        "(pcsa.r == \"x\" && OWN)",
        &[],
    );
    calico(K::GlobalNetworkPolicy, "{}", "all()", &[]);
    calico(
        K::GlobalNetworkPolicy,
        "{selector: has(a), namespaceSelector: e == 'p'}",
        "(has(a) && pcns.e == \"p\")",
        &[],
    );
    calico(
        K::GlobalNetworkPolicy,
        "{namespaceSelector: all()}",
        "has(projectcalico.org/namespace)",
        &[],
    );
    calico(
        K::GlobalNetworkPolicy,
        "{serviceAccountSelector: all()}",
        "has(projectcalico.org/serviceaccount)",
        &[],
    );
}

#[test]
fn peers_of_calicos_rules() {
    let np = |source: &str, shown: &str| {
        calico(
            K::NetworkPolicy,
            &format!("{{ingress: [{{action: Allow, source: {{{source}}}}}]}}"),
            "OWN",
            &[&format!("Allow any [{shown}] -> []")],
        );
    };
    np("", "");
    np("nets: [10.0.0.0/8]", "nets=10.0.0.0/8");
    np("selector: a == 'b'", "sel=(OWN && a == \"b\")");
    np("notSelector: a == 'b'", "sel=OWN -sel=a == \"b\"");
    np(
        "namespaceSelector: all()",
        "sel=has(projectcalico.org/namespace)",
    );
    np(
        "namespaceSelector: global(), selector: has(a)",
        "sel=(!has(projectcalico.org/namespace) && has(a))",
    );
    np(
        "namespaceSelector: n == 'x', selector: has(a)",
        "sel=(pcns.n == \"x\" && has(a))",
    );
    np(
        "serviceAccounts: {names: [b, a], selector: r == 'x'}",
        "sel=(OWN && projectcalico.org/serviceaccount in {\"a\", \"b\"} && pcsa.r == \"x\")",
    );
    np("services: {name: s}", "svc=prod/s");
    calico(
        K::GlobalNetworkPolicy,
        "{egress: [{action: Deny, protocol: tcp, notProtocol: 6, destination: {selector: has(a), notPorts: [1, x], ports: ['2:3']}}]}",
        "all()",
        &["Deny TCP [] -> [sel=has(a) ports=2:3 -ports=1 -names=x]"],
    );
}

#[test]
fn types_follow_the_rules_when_not_given() {
    let types = |spec: &str| {
        // Stored by somebody who left them out, so without defaulting.
        let r = crate::one(&v3(
            K::GlobalNetworkPolicy,
            &format!("metadata: {{name: p}}\nspec: {{{spec}}}"),
        ));
        match api::updates(&r).expect("converts").remove(0) {
            Update::Policy(_, Some(p)) => (p.applies_ingress, p.applies_egress),
            u => panic!("{u:?}"),
        }
    };
    assert_eq!(types(""), (true, false));
    assert_eq!(types("ingress: [{action: Allow}]"), (true, false));
    assert_eq!(types("egress: [{action: Allow}]"), (false, true));
    assert_eq!(
        types("ingress: [{action: Allow}], egress: [{action: Allow}]"),
        (true, true)
    );
    assert_eq!(
        types("types: [Egress], ingress: [{action: Allow}]"),
        (false, true)
    );
}

#[test]
fn the_rest_of_a_policy() {
    let (key, p) = policy(&v3(
        K::GlobalNetworkPolicy,
        "metadata: {name: net.p}\nspec: {tier: net, order: 1.5, preDNAT: true, applyOnForward: true, performanceHints: [AssumeNeededOnEveryNode], ingress: [{action: pass, ipVersion: 4, metadata: {annotations: {why: because}}}]}",
    ));
    assert_eq!((key.namespace, &*key.name), (None, "net.p"));
    assert_eq!((&*p.tier, p.order), ("net", Some(1.5)));
    assert!(p.pre_dnat && p.apply_on_forward && !p.untracked && p.on_every_node);
    assert_eq!(p.ingress[0].action, Action::Pass);
    assert_eq!(p.ingress[0].family, Some(net::Family::V4));
    assert_eq!(p.ingress[0].annotations, [("why".into(), "because".into())]);
}
