//! `--confirm` and `confirm`: what is kept, what is taken back, and what is said beforehand.

use crate::{Bench, wait};
use datastore::pending::Pendings;
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;

const HOST: &str = "apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: n1-eth0, labels: {role: front}}
spec: {node: n1, interfaceName: eth0, profiles: [projectcalico-default-allow]}
";

const CUT: &str = "apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: cut}
spec: {selector: role == 'front', ingress: [{action: Allow, protocol: TCP, destination: {ports: [443]}}]}
";

/// What is stored, without the revisions, and without the records themselves.
fn contents(b: &Bench) -> BTreeMap<String, Vec<u8>> {
    let entries = b.dump().into_iter();
    let own = entries.filter(|e| !e.key.starts_with("/manx/"));
    own.map(|e| (e.key, e.value.to_vec())).collect()
}

/// The id in what a command printed.
fn id(out: &str) -> String {
    let line = out.lines().find_map(|l| l.strip_prefix("  manx confirm "));
    line.unwrap_or_else(|| panic!("{out}")).to_owned()
}

fn pendings(b: &Bench) -> Pendings {
    Pendings::new(b.open().store().clone())
}

/// What agents do, at a time of the test's.
fn agents_at(b: &Bench, seconds: i64) -> usize {
    let p = pendings(b);
    let now = Timestamp::now() + SignedDuration::from_secs(seconds);
    let due = wait(p.due(now)).expect("due");
    for d in &due {
        wait(p.roll_back(&d.id, now, "node-1")).expect("taken back");
    }
    due.len()
}

#[test]
fn confirmed_changes_stay() {
    let b = Bench::new();
    b.apply(HOST);
    let out = b.ok_with(CUT, &["apply", "-f", "-", "--confirm", "60s"]);
    assert!(
        out.starts_with(
            "Successfully applied 1 'GlobalNetworkPolicy' resource(s)\n1 change is taken back at "
        ),
        "{out}"
    );
    assert!(out.contains("(in 60s) unless you confirm:\n"), "{out}");
    let id = id(&out);
    let list = b.ok(&["confirm", "--list"]);
    assert!(
        list.contains(&id) && list.contains("waits") && list.contains("GlobalNetworkPolicy(cut)"),
        "{list}"
    );
    assert_eq!(agents_at(&b, 50), 0, "not before its time");
    assert_eq!(
        b.ok(&["confirm"]),
        format!("Confirmed {id}: 1 change(s) stay\n")
    );
    assert_eq!(agents_at(&b, 100), 0);
    assert!(b.ok(&["get", "gnp", "cut"]).contains("cut"));
    assert_eq!(b.fails(&["confirm"]), "no change waits for confirmation\n");
    assert!(b.fails(&["confirm", &id]).contains("manx confirm --list"));
}

#[test]
fn unconfirmed_changes_are_taken_back() {
    let b = Bench::new();
    b.apply(CUT);
    b.apply(&HOST.replace("role: front", "role: back"));
    let before = contents(&b);
    let other = CUT.replace("name: cut", "name: other");
    let open = CUT.replace("443", "80");
    let file = b.file("both.yaml", &format!("{open}---\n{other}"));
    let confirm = ["--confirm", "1m"];
    for (args, input) in [
        (vec!["apply", "-f", &file], ""),
        (vec!["create", "-f", "-"], other.as_str()),
        (vec!["replace", "-f", "-"], open.as_str()),
        (vec!["delete", "gnp", "cut"], ""),
        (
            vec!["patch", "gnp", "cut", "-p", r#"{"spec":{"order":5}}"#],
            "",
        ),
    ] {
        let args: Vec<&str> = args.into_iter().chain(confirm).collect();
        b.ok_with(input, &args);
        assert_ne!(contents(&b), before, "{args:?}");
        assert_eq!(agents_at(&b, 61), 1, "{args:?}");
        assert_eq!(contents(&b), before, "{args:?}");
    }
    let list = b.ok(&["confirm", "--list"]);
    assert_eq!(list.matches("by node-1").count(), 5, "{list}");
    // By hand, at once.
    b.ok_with(&open, &["apply", "-f", "-", "--confirm", "1h"]);
    let out = b.ok(&["confirm", "--rollback"]);
    assert!(
        out.ends_with("by manx confirm\n  GlobalNetworkPolicy(cut): restored\n"),
        "{out}"
    );
    assert_eq!(contents(&b), before);
}

#[test]
fn only_what_was_done_is_promised() {
    let b = Bench::new();
    b.apply(CUT);
    // One refused, one unchanged: nothing waits.
    let bad = CUT.replace("role ==", "role =");
    let r = b.run_with(
        &format!("{CUT}---\n{}", bad.replace("name: cut", "name: bad")),
        &["apply", "-f", "-", "--confirm", "60s"],
    );
    assert!(!r.ok && r.out.ends_with("nothing to confirm\n"), "{r:?}");
    assert_eq!(b.fails(&["confirm"]), "no change waits for confirmation\n");
    // Two wait: which is meant has to be said.
    for order in ["1", "2"] {
        let changed = CUT.replace("spec: {", &format!("spec: {{order: {order}, "));
        b.ok_with(&changed, &["apply", "-f", "-", "--confirm", "60s"]);
    }
    assert!(b.fails(&["confirm"]).starts_with("several changes wait"));
    // What cannot be brought back is not begun.
    b.apply(crate::POOL);
    let before = b.dump();
    let e = b.fails(&["delete", "ippool", "main", "--confirm", "60s"]);
    assert!(e.contains("delete it without --confirm"), "{e}");
    assert_eq!(b.dump(), before);
}

#[test]
fn closing_a_host_is_warned_of() {
    let b = Bench::new();
    b.apply(HOST);
    let r = b.run_with(CUT, &["apply", "-f", "-"]);
    assert!(r.ok, "{r:?}");
    assert_eq!(
        r.err,
        "warning: GlobalNetworkPolicy(cut) applies to HostEndpoint(n1-eth0): node n1 drops what its rules do not allow, but for the failsafe ports\n\
         warning: to be safe, have it taken back unless you confirm it: --confirm 60s\n"
    );
    // With it, and where nothing is closed, there is nothing to say.
    b.ok_with(CUT, &["apply", "-f", "-", "--confirm", "60s"]);
    let elsewhere = CUT.replace("role == 'front'", "role == 'back'");
    b.ok_with(&elsewhere, &["apply", "-f", "-"]);
    let open = CUT.replace(
        "protocol: TCP, destination: {ports: [443]}",
        "source: {nets: []}",
    );
    b.ok_with(&open, &["apply", "-f", "-"]);
    let bare = HOST
        .replace(", profiles: [projectcalico-default-allow]", "")
        .replace("role: front", "role: none");
    let r = b.run_with(&bare, &["apply", "-f", "-"]);
    assert!(
        r.ok && r.err.contains("neither a policy nor a profile"),
        "{r:?}"
    );
    // A profile that does not exist denies.
    let misspelt = HOST
        .replace("projectcalico-default-allow", "projectcalico-allow")
        .replace("role: front", "role: none");
    let r = b.run_with(&misspelt, &["apply", "-f", "-"]);
    assert!(
        r.ok && r
            .err
            .contains("nor a profile that exists: node n1 drops everything"),
        "{r:?}"
    );
    // Nothing is said of what is refused.
    let nowhere = bare.replace("node: n1, ", "");
    let r = b.run_with(&nowhere, &["apply", "-f", "-"]);
    assert!(!r.ok && !r.err.contains("warning"), "{r:?}");
}
