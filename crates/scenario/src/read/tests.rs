//! Scenario files as people write them, good and bad.

use super::*;
use crate::FamilyName;

fn nothing(path: &Path) -> io::Result<String> {
    Err(io::Error::new(
        io::ErrorKind::NotFound,
        path.display().to_string(),
    ))
}

const GOOD: &str = r#"
name: only the front end reaches the database
nodes: 2
topology: routed
families: [ipv4, ipv6]
settings: {encapsulation: VXLANCrossSubnet}
objects:
  - {apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: web}}}
pods:
  - {namespace: shop, name: front, node: node-1, labels: {app: front}}
  - {namespace: shop, name: db, node: node-2, labels: {app: db}, serviceAccount: default,
     annotations: {}, ports: [{name: sql, containerPort: 5432, protocol: TCP}]}
  - {name: other}
hosts:
  - {name: outside, addresses: [203.0.113.7]}
steps:
  - name: closed
    apply:
      - apiVersion: networking.k8s.io/v1
        kind: NetworkPolicy
        metadata: {namespace: shop, name: deny}
        spec: {podSelector: {}}
    expect:
      - {from: shop/front, to: shop/db, port: 5432, protocol: TCP, verdict: allow}
      - {from: "*", to: shop/db, port: 80, verdict: deny}
      - {from: host/outside, to: ip/10.0.0.9, protocol: ICMP, verdict: deny, source: node}
  - delete:
      - {apiVersion: v1, kind: Pod, metadata: {name: other}}
    expect:
      - {from: "*", to: "*", protocol: UDP, port: 53, verdict: allow}
"#;

#[test]
fn a_good_file() {
    let s = parse(GOOD, "x.yaml", &nothing).unwrap();
    assert_eq!(s.name, "only the front end reaches the database");
    assert_eq!(s.spec.topology, Topology::Routed);
    assert_eq!(s.spec.encapsulation, Encapsulation::VxlanCrossSubnet);
    assert!(s.spec.default_pools);
    let kinds: Vec<_> = s
        .objects
        .iter()
        .map(|o| (o.kind().name(), o.meta().name.as_str()))
        .collect();
    assert_eq!(
        kinds,
        [
            ("Namespace", "shop"),
            ("Namespace", "default"),
            ("Pod", "front"),
            ("Pod", "db"),
            ("Pod", "other")
        ]
    );
    let closed = &s.steps[0];
    // Each for two families; * is front and other; an address has its own family.
    assert_eq!(closed.checks.len(), 2 + 2 * 2 + 1);
    assert_eq!(closed.checks[0].flow.port, Port::new(Protocol::TCP, 5432));
    assert_eq!(closed.checks[1].flow.family, Some(FamilyName::V6));
    assert_eq!(closed.checks[6].source, Some(SourceIs::Node));
    let second = &s.steps[1];
    assert_eq!(second.name, "step 2");
    // front and db, both ways, two families.
    assert_eq!(second.checks.len(), 4);
}

#[test]
fn own_pools_take_the_encapsulation_of_the_settings() {
    let text = r"
settings: {encapsulation: VXLAN}
objects:
  - {apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: a}, spec: {cidr: 10.1.0.0/16}}
  - {apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: b}, spec: {cidr: 10.2.0.0/16, vxlanMode: Never}}
";
    let s = parse(text, "x", &nothing).unwrap();
    assert!(!s.spec.default_pools);
    let modes: Vec<_> = s
        .objects
        .iter()
        .map(|o| serde_json::to_value(o).unwrap()["spec"]["vxlanMode"].clone())
        .collect();
    assert_eq!(modes, [json!("Always"), json!("Never")]);
}

#[test]
fn bad_files_are_refused_with_their_line() {
    let with = |step: &str| {
        format!("nodes: 1\npods:\n  - {{name: a}}\n  - {{name: b}}\nsteps:\n  - {step}\n")
    };
    let expect = |e: &str| with(&format!("expect:\n      - {{{e}}}"));
    for (text, line, words) in [
        ("nodes: [".to_owned(), 1, ""),
        ("nodes: two\n".to_owned(), 1, ""),
        ("bogus: 1\n".to_owned(), 1, "bogus"),
        ("nodes: 0\n".to_owned(), 0, "0 nodes"),
        ("families: [ipv5]\n".to_owned(), 0, "ipv5"),
        (
            expect("from: default/a, to: default/zz, port: 80, verdict: deny"),
            7,
            "no pod default/zz",
        ),
        (
            expect("from: node/node-2, to: default/b, port: 80, verdict: deny"),
            7,
            "no node \"node-2\"",
        ),
        (
            expect("from: host/x, to: default/b, port: 80, verdict: deny"),
            7,
            "no host \"x\"",
        ),
        (
            expect("from: default/a, to: default/b, port: 80, verdict: maybe"),
            7,
            "maybe",
        ),
        (
            expect("from: default/a, to: default/b, verdict: deny"),
            7,
            "port is missing",
        ),
        (
            expect("from: default/a, to: default/b, protocol: ICMP, port: 1, verdict: deny"),
            7,
            "ICMP has no ports",
        ),
        (
            expect("from: default/a, to: default/b, protocol: GRE, verdict: deny"),
            7,
            "GRE",
        ),
        (
            expect("from: ip/10.0.0.1, to: default/b, port: 80, verdict: deny"),
            7,
            "cannot send",
        ),
        (
            with("apply:\n      - {apiVersion: v9, kind: Gizmo, metadata: {name: x}}"),
            7,
            "Gizmo",
        ),
        (
            with("apply:\n      - {apiVersion: v1, kind: Namespace, metadata: {name: x, nome: y}}"),
            7,
            "nome",
        ),
    ] {
        let e = parse(&text, "x.yaml", &nothing)
            .map(|s| s.name)
            .expect_err(&text);
        assert_eq!(e.line, line, "{e}\n{text}");
        assert!(e.message.contains(words), "{e}\n{text}");
        assert!(e.to_string().starts_with("x.yaml"), "{e}");
    }
}

#[test]
fn words_are_words() {
    let text = r"
objects:
  - {apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {namespace: shop, name: n}, spec: {selector: all()}}
pods:
  - {namespace: shop, name: y, labels: {on: off}}
";
    let s = parse(text, "x", &nothing).unwrap();
    let names: Vec<_> = s.objects.iter().map(|o| o.meta().name.as_str()).collect();
    assert!(names.contains(&"n") && names.contains(&"y"), "{names:?}");
}
