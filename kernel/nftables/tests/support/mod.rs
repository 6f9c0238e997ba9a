//! A namespace of its own for each test, and nft as an independent reader.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

pub mod lab;

use net::{Cidr, Family, IfName, PortRange};
use netlink::netns::NetNs;
use nftables::*;
use std::io::Write;
use std::process::{Output, Stdio};

/// Names short enough to write in a test.
pub fn chain(s: &str) -> ChainName {
    ChainName::new(s).unwrap()
}
pub fn set(s: &str) -> SetName {
    SetName::new(s).unwrap()
}
pub fn ifname(s: &str) -> IfName {
    s.parse().unwrap()
}
pub fn cidr(s: &str) -> Cidr {
    s.parse().unwrap()
}
pub fn ip(s: &str) -> std::net::IpAddr {
    s.parse().unwrap()
}
pub fn nets(s: &[&str]) -> NetList {
    NetList::new(s.iter().map(|c| cidr(c)).collect()).unwrap()
}
pub fn ports(s: &[&str]) -> PortList {
    PortList::new(s.iter().map(|p| p.parse().unwrap()).collect()).unwrap()
}
pub fn range(s: &str) -> PortRange {
    s.parse().unwrap()
}
pub const V4: Family = Family::V4;
pub const V6: Family = Family::V6;

pub fn table_name() -> TableName {
    TableName::new("manx").unwrap()
}

/// Runs a test in a new namespace.
pub fn in_ns(f: impl FnOnce(&NetNs) + Send) {
    let ns = NetNs::new().unwrap();
    ns.run(|| f(&ns)).unwrap();
}

/// Runs nft in the namespace, with `input` as its standard input.
pub fn nft_try(ns: &NetNs, args: &[&str], input: &str) -> Output {
    let mut child = ns
        .command("nft")
        .unwrap()
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
}

/// The same; must succeed.
pub fn nft(ns: &NetNs, args: &[&str], input: &str) -> String {
    let out = nft_try(ns, args, input);
    let err = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "nft {args:?}: {err}\n{input}");
    String::from_utf8(out.stdout).unwrap()
}

/// The table as nft prints it.
pub fn listing(ns: &NetNs) -> String {
    nft(ns, &["list", "table", "inet", "manx"], "")
}

/// The rules of one chain as nft prints them, counters at zero packets or not shown as such.
pub fn rules(ns: &NetNs, name: &str) -> Vec<String> {
    let text = nft(ns, &["-nn", "list", "chain", "inet", "manx", name], "");
    text.lines()
        .map(str::trim)
        .filter(|l| {
            !l.is_empty() && *l != "}" && !l.starts_with("table ") && !l.starts_with("chain ")
        })
        .filter(|l| !l.starts_with("type "))
        .map(str::to_owned)
        .collect()
}

/// Puts a ruleset into a table: what is not in it goes.
pub fn want(table: &mut Table, ruleset: &Ruleset) {
    let now = table.desired();
    now.chains
        .keys()
        .filter(|c| !ruleset.chains.contains_key(c))
        .for_each(|c| table.remove_chain(c));
    now.sets
        .keys()
        .filter(|s| !ruleset.sets.contains_key(s))
        .for_each(|s| table.remove_set(s));
    for (name, chain) in &ruleset.chains {
        table.set_chain(name, chain.clone());
    }
    for (name, set) in &ruleset.sets {
        table
            .set_set(name, set.kind, set.elements.iter().cloned())
            .unwrap();
    }
}

pub fn base(hook: Hook) -> Base {
    Base {
        kind: Kind::Filter,
        hook,
        priority: 0,
        policy: Policy::Accept,
    }
}

pub fn rule(matches: Vec<Match>, statements: Vec<Statement>, verdict: Option<Verdict>) -> Rule {
    Rule {
        matches,
        statements,
        verdict,
        comment: Text::default(),
    }
}
