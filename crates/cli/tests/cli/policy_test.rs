//! `manx policy test`: what it prints and how it exits.

use crate::Bench;
use std::path::Path;

/// The exit status, standard output and standard error.
fn run(args: &[&str]) -> (u8, String, String) {
    use clap::Parser;
    let line = crate::Line::try_parse_from(["manx", "policy", "test"].iter().chain(args))
        .expect("arguments");
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut console = cli::Console {
        input: &mut std::io::empty(),
        out: &mut out,
        err: &mut err,
    };
    let status = cli::status(line.command, &line.global, &mut console);
    let text = |b| String::from_utf8(b).expect("UTF-8");
    (status, text(out), text(err))
}

const SHOP: &str = "\
name: shop
pods:
  - {namespace: shop, name: front, node: node-1, labels: {app: front}}
  - {namespace: shop, name: db, node: node-2, labels: {app: db}}
steps:
  - name: closed
    apply:
      - {file: files/deny.yaml}
    expect:
      - {from: shop/front, to: shop/db, port: 80, verdict: EXPECTED}
      - {from: shop/db, to: shop/front, port: 80, verdict: allow}
";

fn shop(bench: &Bench, name: &str, expected: &str) -> String {
    std::fs::create_dir_all(bench.path("files")).expect("directory");
    bench.file(
        "files/deny.yaml",
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {namespace: shop, name: deny}\n\
         spec: {podSelector: {matchLabels: {app: db}}, policyTypes: [Ingress]}\n",
    );
    bench.file(name, &SHOP.replace("EXPECTED", expected))
}

#[test]
fn what_holds_is_counted_and_what_does_not_is_explained() {
    let bench = Bench::new();
    let good = shop(&bench, "good.yaml", "deny");
    let (status, out, err) = run(&[&good]);
    assert_eq!(
        (status, out.as_str(), err.as_str()),
        (0, "2 passed, 0 failed\n", "")
    );
    let bad = shop(&bench, "bad.yaml", "allow");
    let (status, out, err) = run(&[&bad, &good]);
    assert_eq!((status, err.as_str()), (1, ""));
    assert!(
        out.contains("shop/front -> shop/db 80/TCP: expected allow, got deny"),
        "{out}"
    );
    assert!(
        out.contains("no policy of tier default allows it: KubernetesNetworkPolicy(shop/deny)"),
        "{out}"
    );
    assert!(out.ends_with("3 passed, 1 failed\n"), "{out}");
    // A directory, with what files of it name.
    let dir = Path::new(&good)
        .parent()
        .expect("a directory")
        .display()
        .to_string();
    let (status, out, _) = run(&[&dir, "--json"]);
    assert_eq!(status, 1);
    let lines: Vec<serde_json::Value> = out
        .lines()
        .map(|l| serde_json::from_str(l).expect("JSON"))
        .collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(
        (&lines[0]["passed"], &lines[0]["failed"]),
        (&1.into(), &1.into())
    );
    let check = &lines[0]["checks"][0];
    assert_eq!(check["step"], "closed");
    assert_eq!(check["got"], "deny");
    assert_eq!(check["port"], 80);
    let fields: Vec<&String> = check.as_object().expect("an object").keys().collect();
    assert_eq!(
        fields,
        [
            "expected", "from", "got", "port", "protocol", "step", "to", "why"
        ]
    );
}

#[test]
fn a_bad_file_has_its_line_and_hides_no_other() {
    let bench = Bench::new();
    let good = shop(&bench, "good.yaml", "deny");
    let bad = bench.file(
        "zz.yaml",
        "pods: []\nsteps:\n  - expect:\n      - {from: a/b, to: a/c, port: 1, verdict: deny}\n",
    );
    let (status, out, err) = run(&[&bad, &good]);
    assert_eq!(status, 2);
    assert!(
        err.contains("zz.yaml:4: there is no pod a/b at this step"),
        "{err}"
    );
    assert!(out.ends_with("2 passed, 0 failed\n"), "{out}");
    let invalid = bench.file(
        "invalid.yaml",
        "steps:\n  - name: one\n    apply:\n      - {apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: UPPER}}\n",
    );
    let (status, _, err) = run(&[&invalid]);
    assert_eq!(status, 2);
    assert!(err.contains("step \"one\": Tier(UPPER)"), "{err}");
}

#[test]
fn nothing_checked_is_no_success() {
    let bench = Bench::new();
    let good = shop(&bench, "good.yaml", "deny");
    let empty = bench.file("empty.yaml", "");
    let (status, out, err) = run(&[&empty, &good]);
    assert_eq!((status, out.as_str()), (2, "2 passed, 0 failed\n"));
    assert_eq!(err, format!("error: {empty}: no step expects anything\n"));
    let dir = bench.path("none").display().to_string();
    std::fs::create_dir_all(&dir).expect("directory");
    let (status, _, err) = run(&[&dir]);
    assert_eq!(status, 2);
    assert!(
        err.contains("there is no scenario (.yaml, .yml) in"),
        "{err}"
    );
}

#[test]
fn the_examples_hold() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/scenarios");
    let (status, out, err) = run(&[&dir.display().to_string()]);
    assert_eq!(status, 0, "{out}\n{err}");
}
