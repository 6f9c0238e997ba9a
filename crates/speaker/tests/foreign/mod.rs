//! Speakers that are not ours, in namespaces of their own: FRR, GoBGP, ExaBGP, and a peer that
//! sends whatever octets a test gives it.
//!
//! Promises: each ends with its value; what it says of routes is read from its own tools.
#![allow(unreachable_pub, reason = "a module of test programs")]
#![allow(dead_code, reason = "each test file uses some of it")]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests are tests"
)]

pub mod ours;
pub mod raw;

use crate::support::{PATIENCE, until};
use netlink::netns::NetNs;
use serde_json::Value;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Stdio};

/// A program with files of its own, ended with its value.
#[derive(Debug)]
struct Daemon {
    child: Child,
    dir: tempfile::TempDir,
    ns: NetNs,
    program: &'static str,
    args: Vec<String>,
}

impl Daemon {
    fn new(ns: &NetNs, dir: tempfile::TempDir, program: &'static str, args: Vec<String>) -> Self {
        let ns = ns.try_clone().unwrap();
        let child = spawn(&ns, &dir, program, &args);
        Self {
            child,
            dir,
            ns,
            program,
            args,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// At once, without a word to anybody.
    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn again(&mut self, more: &[&str]) {
        self.args.extend(more.iter().map(|a| (*a).to_owned()));
        self.child = spawn(&self.ns, &self.dir, self.program, &self.args);
    }

    /// What a tool of it prints, if it succeeds.
    fn tool(&self, program: &str, args: &[&str]) -> Option<String> {
        let out = self.ns.command(program).unwrap().args(args).output();
        let out = out.unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        out.status.success().then_some(text)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(20)..].join("\n");
            eprintln!("{} said last:\n{last}", self.program);
        }
    }
}

fn spawn(ns: &NetNs, dir: &tempfile::TempDir, program: &str, args: &[String]) -> Child {
    let log = File::options()
        .create(true)
        .append(true)
        .open(dir.path().join("log"))
        .unwrap();
    let mut command = ns.command(program).unwrap();
    command.args(args).stdin(Stdio::null());
    command.stdout(log.try_clone().unwrap()).stderr(log);
    command.spawn().unwrap()
}

/// What a speaker holds of a route, in one form for all of them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Seen {
    pub path: Vec<u32>,
    pub hop: String,
    pub med: Option<u32>,
    pub local_pref: Option<u32>,
    pub communities: Vec<String>,
    pub large: Vec<String>,
    pub originator: Option<String>,
    pub clusters: Vec<String>,
}

fn number(v: &Value) -> Option<u32> {
    v.as_u64().and_then(|n| u32::try_from(n).ok())
}

fn list(v: &Value) -> impl Iterator<Item = &Value> {
    v.as_array().into_iter().flatten()
}

fn text(v: &Value) -> String {
    v.as_str().unwrap_or_default().to_owned()
}

fn words(v: &Value) -> Vec<String> {
    let each = v.as_str().unwrap_or_default().split_whitespace();
    let mut all: Vec<String> = each.map(str::to_owned).collect();
    all.sort();
    all
}

/// `ipv4` or `ipv6`, as most tools say it.
fn family(prefix: &str) -> &'static str {
    if prefix.contains(':') { "ipv6" } else { "ipv4" }
}

/// FRR's bgpd, without zebra.
#[derive(Debug)]
pub struct Frr(Daemon);

impl Frr {
    /// With a configuration; `at` is where it listens.
    pub fn start(ns: &NetNs, at: &str, config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let mut args = ["-Z", "-n", "-S", "-P", "0"].map(str::to_owned).to_vec();
        let more = [("-f", path("conf")), ("-i", path("pid"))];
        for (flag, value) in more {
            args.extend([flag.to_owned(), value]);
        }
        for at in at.split_whitespace() {
            args.extend(["-l".to_owned(), at.to_owned()]);
        }
        args.extend(["--vty_socket".to_owned(), dir.path().display().to_string()]);
        std::fs::write(path("conf"), config).unwrap();
        let this = Self(Daemon::new(ns, dir, "/usr/lib/frr/bgpd", args));
        this.answers();
        this
    }

    fn answers(&self) {
        until(
            "FRR answers",
            || self.try_ask(&["show version"]),
            Option::is_some,
        );
    }

    fn try_ask(&self, commands: &[&str]) -> Option<String> {
        let dir = self.0.dir.path().display().to_string();
        let mut args = vec!["--vty_socket", &dir];
        for c in commands {
            args.extend(["-c", c]);
        }
        self.0.tool("vtysh", &args)
    }

    /// Does these commands; what it says.
    #[track_caller]
    pub fn ask(&self, commands: &[&str]) -> String {
        self.try_ask(commands).unwrap()
    }

    /// Changes its configuration within `router bgp`.
    #[track_caller]
    pub fn configure(&self, asn: u32, commands: &[&str]) {
        let router = format!("router bgp {asn}");
        let mut all = vec!["configure terminal", &router];
        all.extend(commands);
        self.ask(&all);
    }

    fn json(&self, command: &str) -> Value {
        let said = self.try_ask(&[command]).unwrap_or_default();
        serde_json::from_str(&said).unwrap_or_default()
    }

    /// Every path to a prefix.
    pub fn paths(&self, prefix: &str) -> Vec<Seen> {
        let f = family(prefix);
        let all = self.json(&format!("show bgp {f} unicast {prefix} json"));
        list(&all["paths"]).map(frr_path).collect()
    }

    /// What it knows of a peer.
    pub fn neighbor(&self, addr: &str) -> Value {
        self.json(&format!("show bgp neighbors {addr} json"))[addr].clone()
    }

    /// How many routes it has of a peer.
    pub fn count(&self, f: &str, addr: &str) -> Option<u64> {
        let all = self.json(&format!("show bgp {f} unicast summary json"));
        all["peers"][addr]["pfxRcd"].as_u64()
    }

    #[track_caller]
    pub fn established(&self, addr: &str) {
        until(
            "FRR's session",
            || self.neighbor(addr),
            |n| n["bgpState"] == "Established",
        );
    }

    #[track_caller]
    pub fn learns(&self, prefix: &str) -> Seen {
        until("a route in FRR", || self.paths(prefix), |p| !p.is_empty())[0].clone()
    }

    #[track_caller]
    pub fn forgets(&self, prefix: &str) {
        until("no route in FRR", || self.paths(prefix), Vec::is_empty);
    }

    pub fn kill(&mut self) {
        self.0.kill();
    }

    /// After [`Frr::kill`].
    pub fn recover(&mut self) {
        self.0.again(&[]);
        self.answers();
    }
}

fn frr_path(p: &Value) -> Seen {
    let path = text(&p["aspath"]["string"]);
    Seen {
        path: path
            .split_whitespace()
            .filter_map(|a| a.parse().ok())
            .collect(),
        // A global address comes before the link-local one.
        hop: text(&p["nexthops"][0]["ip"]),
        med: number(&p["metric"]),
        local_pref: number(&p["locPrf"]),
        communities: words(&p["community"]["string"]),
        large: words(&p["largeCommunity"]["string"]),
        originator: p["originatorId"].as_str().map(str::to_owned),
        clusters: list(&p["clusterList"]["list"]).map(text).collect(),
    }
}

/// GoBGP.
#[derive(Debug)]
pub struct GoBgp(Daemon);

impl GoBgp {
    pub fn start(ns: &NetNs, config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("conf");
        std::fs::write(&file, config).unwrap();
        let file = file.display().to_string();
        let args = ["-f", &file, "-t", "toml", "--api-hosts", "127.0.0.1:50051"];
        let args = args.map(str::to_owned).to_vec();
        let this = Self(Daemon::new(ns, dir, "/usr/bin/gobgpd", args));
        this.answers();
        this
    }

    fn answers(&self) {
        until("GoBGP answers", || self.try_ask("global"), Option::is_some);
    }

    fn try_ask(&self, command: &str) -> Option<String> {
        let args: Vec<&str> = command.split_whitespace().collect();
        self.0.tool("gobgp", &[&["-p", "50051"], &*args].concat())
    }

    /// Does a command of `gobgp`; what it says.
    #[track_caller]
    pub fn ask(&self, command: &str) -> String {
        self.try_ask(command).unwrap()
    }

    fn json(&self, command: &str) -> Value {
        let said = self.try_ask(&format!("{command} -j")).unwrap_or_default();
        serde_json::from_str(&said).unwrap_or_default()
    }

    /// Every path to a prefix.
    pub fn paths(&self, prefix: &str) -> Vec<Seen> {
        let f = family(prefix);
        let all = self.json(&format!("global rib {prefix} -a {f}"));
        list(&all[prefix]).map(gobgp_path).collect()
    }

    /// What it knows of a peer.
    pub fn neighbor(&self, addr: &str) -> Value {
        let all = self.json("neighbor");
        let found = list(&all).find(|n| n["conf"]["neighbor_address"] == addr);
        found.cloned().unwrap_or_default()
    }

    /// How many prefixes a peer has told it.
    pub fn count(&self, f: &str, addr: &str) -> Option<usize> {
        let all = self.json(&format!("neighbor {addr} adj-in -a {f}"));
        all.as_object().map(serde_json::Map::len)
    }

    #[track_caller]
    pub fn established(&self, addr: &str) {
        until(
            "GoBGP's session",
            || self.neighbor(addr)["state"].clone(),
            // `ESTABLISHED` of its API.
            |s| s["session_state"] == 6,
        );
    }

    #[track_caller]
    pub fn learns(&self, prefix: &str) -> Seen {
        until("a route in GoBGP", || self.paths(prefix), |p| !p.is_empty())[0].clone()
    }

    #[track_caller]
    pub fn forgets(&self, prefix: &str) {
        until("no route in GoBGP", || self.paths(prefix), Vec::is_empty);
    }

    pub fn kill(&mut self) {
        self.0.kill();
    }

    /// After [`GoBgp::kill`], as one that restarts gracefully.
    pub fn recover(&mut self) {
        self.0.again(&["-r"]);
        self.answers();
    }
}

fn gobgp_path(p: &Value) -> Seen {
    let mut out = Seen::default();
    for a in list(&p["attrs"]) {
        match a["type"].as_u64() {
            Some(2) => {
                let segments = list(&a["as_paths"]);
                let asns = segments.flat_map(|s| list(&s["asns"]));
                out.path = asns.filter_map(number).collect();
            }
            Some(3) => out.hop = text(&a["nexthop"]),
            Some(14) => out.hop = text(&a["nexthop"]),
            Some(4) => out.med = number(&a["metric"]),
            Some(5) => out.local_pref = number(&a["value"]),
            Some(8) => {
                let pair = |n: u32| format!("{}:{}", n >> 16, n & 0xffff);
                out.communities = list(&a["communities"])
                    .filter_map(number)
                    .map(pair)
                    .collect();
            }
            Some(9) => out.originator = a["value"].as_str().map(str::to_owned),
            Some(10) => out.clusters = list(&a["value"]).map(text).collect(),
            Some(32) => {
                let of =
                    |v: &Value| format!("{}:{}:{}", v["ASN"], v["LocalData1"], v["LocalData2"]);
                out.large = list(&a["value"]).map(of).collect();
            }
            _ => {}
        }
    }
    out
}

/// ExaBGP: it has no table; what it hears is a line of JSON each.
#[derive(Debug)]
pub struct ExaBgp {
    daemon: Daemon,
    commands: File,
}

impl ExaBgp {
    /// With what stands within `neighbor`, for each.
    pub fn start(ns: &NetNs, neighbors: &[(&str, String)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let fifo = dir.path().join("commands");
        let mode = rustix::fs::Mode::RWXU;
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        // For both, so that opening waits for nobody.
        let commands = File::options().read(true).write(true).open(&fifo).unwrap();
        let mut config = format!(
            "process out {{ run /bin/sh {}; encoder json; }}\n\
             process in {{ run /bin/cat {}; encoder text; }}\n",
            path("write"),
            path("commands"),
        );
        // It takes the end of a program's output for its death: so the shell stays.
        std::fs::write(path("write"), format!("cat >> {}\n:\n", path("heard"))).unwrap();
        for (addr, inside) in neighbors {
            config += &format!(
                "neighbor {addr} {{ {inside}\n api {{ processes [ out in ]; neighbor-changes; \
                 receive {{ parsed; update; notification; }} }} }}\n"
            );
        }
        std::fs::write(path("conf"), config).unwrap();
        let mut args = vec![
            "exabgp_daemon_user=root".to_owned(),
            "exabgp_api_cli=false".to_owned(),
            "exabgp_api_ack=false".to_owned(),
            "exabgp_log_destination=stdout".to_owned(),
            "exabgp".to_owned(),
        ];
        args.push(path("conf"));
        Self {
            daemon: Daemon::new(ns, dir, "/usr/bin/env", args),
            commands,
        }
    }

    /// `announce route ...`, `withdraw route ...`.
    pub fn say(&self, command: &str) {
        writeln!(&self.commands, "{command}").unwrap();
    }

    /// All that it has heard and seen.
    pub fn heard(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.daemon.path("heard")).unwrap_or_default();
        let each = text.lines().filter_map(|l| serde_json::from_str(l).ok());
        each.collect()
    }

    /// Waits for a line, of those from a number on.
    #[track_caller]
    pub fn hears(&self, what: &str, from: usize, is: impl Fn(&Value) -> bool) -> Value {
        let find = || {
            let all = self.heard();
            let found = all.iter().skip(from).find(|v| is(v)).cloned();
            (found, all.last().cloned())
        };
        until(what, find, |(f, _)| f.is_some()).0.unwrap()
    }

    /// The announcement of a prefix, from a line on.
    #[track_caller]
    pub fn learns(&self, prefix: &str, from: usize) -> Seen {
        let told = |v: &Value| {
            let message = &v["neighbor"]["message"]["update"];
            let f = format!("{} unicast", family(prefix));
            let hops = message["announce"][&f].as_object()?;
            let is = |n: &Value| n["nlri"] == prefix;
            let hop = hops.iter().find(|(_, l)| list(l).any(is))?.0;
            Some(exabgp_path(&message["attribute"], hop))
        };
        let line = self.hears("a route in ExaBGP", from, |v| told(v).is_some());
        told(&line).unwrap()
    }

    /// The withdrawal of a prefix, from a line on.
    #[track_caller]
    pub fn forgets(&self, prefix: &str, from: usize) {
        self.hears("no route in ExaBGP", from, |v| {
            let message = &v["neighbor"]["message"]["update"];
            let f = format!("{} unicast", family(prefix));
            list(&message["withdraw"][&f]).any(|n| n["nlri"] == prefix)
        });
    }
}

fn exabgp_path(a: &Value, hop: &str) -> Seen {
    let joined = |v: &Value| {
        let each = list(v).map(|n| n.to_string().trim_matches('"').to_owned());
        each.collect::<Vec<_>>().join(":")
    };
    Seen {
        path: list(&a["as-path"]).filter_map(number).collect(),
        hop: hop.to_owned(),
        med: number(&a["med"]),
        local_pref: number(&a["local-preference"]),
        communities: list(&a["community"]).map(joined).collect(),
        large: list(&a["large-community"]).map(joined).collect(),
        originator: a["originator-id"].as_str().map(str::to_owned),
        clusters: list(&a["cluster-list"]).map(text).collect(),
    }
}

/// How long anything is waited for.
pub const DEADLINE: std::time::Duration = PATIENCE;
