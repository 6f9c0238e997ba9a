//! What users write, as resources or as errors with a place.

use api::{DocProblem, Resource};

/// Each document as `Kind(name)@line` or as the error's text.
fn outcome(text: &str) -> Vec<String> {
    api::parse_documents(text, "f.yaml")
        .into_iter()
        .map(|r| match r {
            Ok((r, p)) => format!("{r}@{}", p.line),
            Err(e) => e.to_string(),
        })
        .collect()
}

#[track_caller]
fn check(text: &str, expected: &[&str]) {
    assert_eq!(outcome(text), expected, "{text}");
}

#[test]
fn several_documents_and_empty_ones() {
    check("", &[]);
    check("# nothing\n---\n---\n# here\n", &[]);
    check(
        "# a pool\n---\napiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata:\n  name: a\nspec:\n  cidr: 10.0.0.0/8\n---\n\napiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: t}\n...\n",
        &["IPPool(a)@3", "Tier(t)@11"],
    );
    check(
        "%YAML 1.2\n--- {apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: t}}\n",
        &["Tier(t)@2"],
    );
    check(
        "\u{feff}apiVersion: v1\r\nkind: Namespace\r\nmetadata:\r\n  name: n\r\n---\r\n",
        &["Namespace(n)@1"],
    );
}

#[test]
fn markers_inside_scalars_cut_nothing() {
    check(
        "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: n\n  annotations:\n    a: |\n      ---\n      x\n    b: ---x\n",
        &["Namespace(n)@1"],
    );
}

#[test]
fn json_and_lists() {
    check(
        r#"{"apiVersion":"projectcalico.org/v3","kind":"Tier","metadata":{"name":"t"}}"#,
        &["Tier(t)@1"],
    );
    check(
        "{\n\t\"apiVersion\": \"v1\",\n\t\"kind\": \"Namespace\",\n\t\"metadata\": {\"name\": \"n\"}\n}\n",
        &["Namespace(n)@1"],
    );
    let list = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: projectcalico.org/v3\n  kind: Tier\n  metadata: {name: a}\n- apiVersion: projectcalico.org/v3\n  kind: Elephant\n- apiVersion: networking.k8s.io/v1\n  kind: NetworkPolicy\n  metadata: {name: b, namespace: n}\n";
    let mixed = &[
        "Tier(a)@1",
        "f.yaml:1:1: resource type 'Elephant' is not supported (apiVersion projectcalico.org/v3)",
        "NetworkPolicy(n/b)@1",
    ];
    check(list, mixed);
    check(&list.replace("kind: List", "kind: TierList"), mixed);
    check(
        "- apiVersion: v1\n  kind: Namespace\n  metadata: {name: n}\n",
        &["Namespace(n)@1"],
    );
}

#[test]
fn what_was_meant_is_said() {
    let of = |version: &str, kind: &str| {
        outcome(&format!(
            "apiVersion: {version}\nkind: {kind}\nmetadata: {{name: x}}\n"
        ))
    };
    let unsupported = |version: &str, kind: &str, hint: &str| {
        format!(
            "f.yaml:1:1: resource type '{kind}' is not supported (apiVersion {version}); {hint}"
        )
    };
    for (version, kind, hint) in [
        (
            "projectcalico.org/v1",
            "GlobalNetworkPolicy",
            "there is kind GlobalNetworkPolicy of apiVersion projectcalico.org/v3",
        ),
        (
            "projectcalico.org/v3",
            "GlobalNetworkPolcy",
            "there is kind GlobalNetworkPolicy of apiVersion projectcalico.org/v3",
        ),
        (
            "policy.networking.k8s.io/v1alpha1",
            "AdminNetworkPolicy",
            "ClusterNetworkPolicy of policy.networking.k8s.io/v1alpha2 takes its place",
        ),
    ] {
        assert_eq!(of(version, kind), [unsupported(version, kind, hint)]);
    }
}

#[test]
fn faults_are_in_words_of_those_who_write_files() {
    let policy = |spec: &str| {
        format!(
            "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {{name: x}}\nspec: {spec}\n"
        )
    };
    let deep = format!("{}1{}", "{a: ".repeat(500), "}".repeat(500));
    for (text, said) in [
        (policy("{order: ten}"), "f.yaml:4:15: expected a number"),
        (
            policy("{order: .nan}"),
            "f.yaml:4:15: expected a finite number",
        ),
        (
            policy("{ingress: [{action: Allow, destination: {ports: 80}}]}"),
            "f.yaml:4:55: expected a list",
        ),
        (
            policy("{ingress: [1]}"),
            "f.yaml:4:18: expected fields with values",
        ),
        (
            policy("{tier: a, tier: b}"),
            "f.yaml:4:17: duplicate mapping key: tier",
        ),
        (policy(&deep), "nested too deeply"),
    ] {
        let found = outcome(&text).join("\n");
        assert!(found.ends_with(said), "{said:?} of {found:?}");
    }
}

#[test]
fn a_bad_document_does_not_hide_the_good_ones() {
    let found = outcome(
        "kind: Tier\napiVersion: projectcalico.org/v3\nmetadata: {name: a}\n---\nkind: [\n---\nkind: Tier\napiVersion: projectcalico.org/v3\nmetadata: {name: b}\n",
    );
    assert_eq!(found.len(), 3);
    assert_eq!(
        (found[0].as_str(), found[2].as_str()),
        ("Tier(a)@1", "Tier(b)@7")
    );
    assert!(
        found[1].starts_with("f.yaml:5:") || found[1].starts_with("f.yaml:6:"),
        "{}",
        found[1]
    );
}

#[test]
fn faults_are_placed() {
    let at = |text: &str| {
        let e = api::parse_documents(text, "f").remove(0).expect_err(text);
        (e.position.line, e.problem)
    };
    let (line, problem) = at(
        "\n\napiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata:\n  name: a\nspec:\n  natOutgoing: maybe\n",
    );
    assert!(
        line == 8 && matches!(&problem, DocProblem::Malformed(_)),
        "{line} {problem}"
    );

    let (line, _) = at("---\nmetadata:\n  name: 'x\n");
    assert!(line >= 3, "{line}");
    assert_eq!(at("metadata: {}"), (1, DocProblem::Untyped("kind")));
    assert_eq!(at("kind: Tier"), (1, DocProblem::Untyped("apiVersion")));
    assert!(matches!(at("just words"), (1, DocProblem::Malformed(_))));
    let rule = "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: a}\nspec:\n  ingress:\n  - action: Allow\n    destination:\n      ports: [70000]\n";
    let (line, problem) = at(rule);
    assert!(problem.to_string().contains("70000"), "{problem}");
    assert!(line >= 6, "{line}");
}

#[test]
fn unknown_fields_are_named_with_their_path() {
    let unknown = "field in document is not recognized or is in the wrong location: ";
    let gnp = "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata:\n  name: a\n  colour: red\nspec:\n  ingress:\n  - action: Allow\n  - action: Deny\n    source: {net: [10.0.0.0/8]}\n  prednat: true\n";
    check(
        gnp,
        &[&format!(
            "f.yaml:1:1: {unknown}metadata.colour, spec.ingress[1].source.net, spec.prednat"
        )],
    );
    let np = "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: a, namespace: n}\nspec: {doNotTrack: true, namespaceSelector: all()}\n";
    check(
        np,
        &[&format!(
            "f.yaml:1:1: {unknown}spec.doNotTrack, spec.namespaceSelector"
        )],
    );
    let felix = "apiVersion: projectcalico.org/v3\nkind: FelixConfiguration\nmetadata: {name: default}\nspec: {vxlanMTU: 1410, vxlanMtu: 1}\n";
    check(felix, &[&format!("f.yaml:1:1: {unknown}spec.vxlanMtu")]);
    let list = "kind: List\nitems:\n- {apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: a}, spec: {older: 1}}\n";
    check(list, &[&format!("f.yaml:1:1: {unknown}spec.older")]);
}

#[test]
fn spellings_that_go_reads() {
    let Resource::GlobalNetworkPolicy(p) = crate::one(
        "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata:\n  name: a\n  labels:\n    version: 1.10\n    on: true\nspec:\n  order: 10\n  ingress:\n  egress: null\n  types: []\n",
    ) else {
        panic!("kind")
    };
    assert_eq!(p.metadata.labels["version"], "1.10");
    assert_eq!(p.metadata.labels["on"], "true");
    assert!(p.spec.ingress.is_empty() && p.spec.egress.is_empty());
    let Resource::Node(n) = crate::one(
        "apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {name: a}\nspec: {bgp: {asNumber: '1.10', ipv4Address: 10.0.0.1/24}}\n",
    ) else {
        panic!("kind")
    };
    assert_eq!(
        n.spec.bgp.and_then(|b| b.as_number).map(|n| n.0),
        Some(net::Asn(65546))
    );
}
