//! Whole labs on the real kernel, with stand-ins for the agent and the plugin.
//!
//! This program is everything at once: called with `lab` it is the lab's command, with
//! `node run` the stand-in of the agent, by the name `calico` that of the plugin, else the
//! tests. The stand-ins know one fixed address plan and no policy: what is tested here is the
//! lab. Every lab is made in a directory of its own and is gone at the end.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test program")]

mod standin;

use clap::Parser;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Output, Stdio};
use std::time::{Duration, Instant};

#[derive(Parser)]
enum Top {
    Lab(lab::Args),
}

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let called = args.next().unwrap_or_default();
    if Path::new(&called).file_name() == Some(OsStr::new("calico")) {
        return standin::plugin();
    }
    match args.next().as_deref().and_then(OsStr::to_str) {
        Some("lab") => {
            let Top::Lab(args) = Top::parse();
            lab::run(args)
        }
        Some("node") => standin::agent(),
        filter => tests(filter.filter(|f| !f.starts_with('-'))),
    }
}

type Test = (&'static str, fn());

const TESTS: &[Test] = &[
    (
        "pods_on_three_nodes_reach_each_other",
        pods_on_three_nodes_reach_each_other,
    ),
    ("what_is_closed_is_told_apart", what_is_closed_is_told_apart),
    ("a_refused_pod_says_why", a_refused_pod_says_why),
    ("pods_come_and_go", pods_come_and_go),
    (
        "a_killed_agent_comes_back_and_pods_do_not_notice",
        a_killed_agent_comes_back,
    ),
    ("a_killed_lab_leaves_nothing", a_killed_lab_leaves_nothing),
    (
        "a_killed_caller_takes_its_lab_along",
        a_killed_caller_takes_its_lab_along,
    ),
    ("only_one_lab_of_a_name", only_one_lab_of_a_name),
    (
        "routed_fabric_and_outside_hosts",
        routed_fabric_and_outside_hosts,
    ),
    (
        "an_agent_that_fails_is_quoted",
        an_agent_that_fails_is_quoted,
    ),
    ("services_lead_to_pods", services_lead_to_pods),
    ("scenarios_pass_and_fail", scenarios_pass_and_fail),
    ("an_ordinary_user_can_do_it", an_ordinary_user_can_do_it),
];

/// Runs the tests one after the other: they share two cores, and some measure.
fn tests(filter: Option<&str>) -> ExitCode {
    let (mut run, mut failed) = (0, 0);
    for (name, test) in TESTS
        .iter()
        .filter(|t| filter.is_none_or(|f| t.0.contains(f)))
    {
        let began = Instant::now();
        let result = std::panic::catch_unwind(test);
        let word = if result.is_ok() { "ok" } else { "FAILED" };
        eprintln!(
            "test {name} ... {word} ({:.2} s)",
            began.elapsed().as_secs_f64()
        );
        run += 1;
        failed += usize::from(result.is_err());
    }
    eprintln!("{run} run, {failed} failed");
    ExitCode::from(u8::from(failed > 0))
}

/// A directory for labs, and this program as `manx lab`.
struct Bench {
    dir: PathBuf,
    exe: PathBuf,
    uid: Option<u32>,
}

impl Bench {
    fn new() -> Self {
        // Short: sockets live in it.
        let dir = tempfile::Builder::new()
            .prefix("ml")
            .tempdir_in("/tmp")
            .unwrap()
            .keep();
        Self {
            dir,
            exe: std::env::current_exe().unwrap(),
            uid: None,
        }
    }

    fn command(&self, args: &[&str]) -> Command {
        use std::os::unix::process::CommandExt;
        let mut c = Command::new(&self.exe);
        c.arg("lab")
            .args(args)
            .env("MANX_LAB_DIR", self.dir.join("l"))
            .stdin(Stdio::null());
        if let Some(uid) = self.uid {
            c.uid(uid).gid(uid).current_dir("/");
        }
        c
    }

    fn lab(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Must succeed; gives standard output.
    fn ok(&self, args: &[&str]) -> String {
        let out = self.lab(args);
        let (stdout, stderr) = texts(&out);
        assert!(
            out.status.success(),
            "{args:?}: {}\n{stdout}\n{stderr}",
            out.status
        );
        stdout
    }

    /// Must fail with that status; gives standard output and error.
    fn fails(&self, code: i32, args: &[&str]) -> String {
        let out = self.lab(args);
        let (stdout, stderr) = texts(&out);
        assert_eq!(
            out.status.code(),
            Some(code),
            "{args:?}:\n{stdout}\n{stderr}"
        );
        stdout + &stderr
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.dir.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    fn pods(&self, pods: &[(&str, &str)]) -> String {
        let pod = |(name, node): &(&str, &str)| {
            format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: default, labels: \
                 {{app: {name}}}}}\nspec: {{nodeName: '{node}', containers: [{{name: c, ports: \
                 [{{containerPort: 80}}]}}]}}\n"
            )
        };
        let text: Vec<String> = pods.iter().map(pod).collect();
        self.file("pods.yaml", &text.join("---\n"))
    }

    fn status(&self) -> serde_json::Value {
        let out = self.lab(&["status", "-o", "json"]);
        serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {}", texts(&out).1))
    }

    /// Verdict words of `probe --json`.
    fn probe(&self, args: &[&str]) -> Vec<serde_json::Value> {
        let out = self.lab(&[&["probe", "--json"], args].concat());
        serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {}", texts(&out).1))
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = self.lab(&["down", "--all"]);
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn texts(out: &Output) -> (String, String) {
    (
        String::from_utf8_lossy(&out.stdout).into_owned(),
        String::from_utf8_lossy(&out.stderr).into_owned(),
    )
}

/// Processes whose command line or environment names the bench's directory.
fn processes_of(bench: &Bench) -> Vec<(u32, String)> {
    let needle = bench.dir.display().to_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        let read = |f: &str| {
            let bytes = std::fs::read(entry.path().join(f)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).replace('\0', " ")
        };
        let line = read("cmdline");
        if pid != std::process::id() && (line + &read("environ")).contains(&needle) {
            found.push((pid, read("cmdline")));
        }
    }
    found
}

fn holder_of(bench: &Bench) -> u32 {
    let all = processes_of(bench);
    let holder = all.iter().find(|p| p.1.contains("lab holder"));
    holder
        .unwrap_or_else(|| panic!("no holder among {all:?}"))
        .0
}

fn kill(pid: u32) {
    // SAFETY: a process that this test started.
    assert_eq!(
        unsafe { libc::kill(pid.try_into().unwrap(), libc::SIGKILL) },
        0
    );
}

/// Waits for something that happens by itself.
fn until(what: &str, mut f: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !f() {
        assert!(Instant::now() < deadline, "{what}: not in time");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

fn pods_on_three_nodes_reach_each_other() {
    let b = Bench::new();
    let began = Instant::now();
    b.ok(&["up", "--nodes", "3"]);
    let up = began.elapsed();
    let six = [
        ("a", "node-1"),
        ("b", "node-2"),
        ("c", "node-3"),
        ("d", ""),
        ("e", ""),
        ("f", ""),
    ];
    let file = b.pods(&six);
    b.ok(&["apply", "-f", &file]);
    eprintln!("  up {up:.2?}, six pods after {:.2?}", began.elapsed());
    let status = b.status();
    let pods = status["pods"].as_array().unwrap();
    assert_eq!(pods.len(), 6);
    assert!(
        pods.iter()
            .all(|p| p["phase"] == "Running" && !p["node"].as_str().unwrap().is_empty())
    );
    for port in ["80/TCP", "53/UDP", "5000/SCTP", "ICMP"] {
        let out = b.probe(&["*", "*", port]);
        assert_eq!(out.len(), 30);
        for r in &out {
            assert_eq!(r["verdict"], "open", "{r}");
            let from = r["from"].as_str().unwrap().split('/').nth(1).unwrap();
            let own = pods.iter().find(|p| p["name"] == from).unwrap()["ips"][0].clone();
            assert_eq!(
                r["source"], own,
                "the receiver sees the sender's own address: {r}"
            );
        }
    }
    // Two routers on the way between nodes.
    assert_eq!(b.probe(&["default/a", "default/b", "ICMP"])[0]["ttl"], 62);
    let text = b.ok(&["probe", "default/a", "default/b", "ICMP", "--ttl"]);
    assert!(
        text.contains("default/a -> default/b ICMP: open") && text.contains("ttl 62"),
        "{text}"
    );
    // A capture sees the pods' own addresses on the fabric.
    let mut capture = b.command(&["capture", "--count", "2", "--for", "5s"]);
    let capture = capture
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("a captured packet", || {
        b.ok(&["probe", "default/a", "default/b", "ICMP"]);
        ended(capture.id())
    });
    let seen = texts(&capture.wait_with_output().unwrap()).0;
    let ip = |name: &str| {
        let pod = pods.iter().find(|p| p["name"] == name).unwrap();
        pod["ips"][0].as_str().unwrap().to_owned()
    };
    let echo = format!("{} > {} ttl 63: ICMP echo request", ip("a"), ip("b"));
    assert!(seen.contains(&echo), "{echo}: {seen}");
    // Any program of the machine, in the pod's network.
    let addr = b.ok(&["exec", "a", "--", "ip", "-br", "addr", "show", "eth0"]);
    assert!(addr.contains(&format!("{}/32", ip("a"))), "{addr}");
    assert_eq!(
        b.lab(&["exec", "node-1", "--", "sh", "-c", "exit 7"])
            .status
            .code(),
        Some(7)
    );
    let routes = b.ok(&["routes", "node-1"]);
    assert!(
        routes.contains("10.244.2.0/24 via 172.18.0.12 dev eth0"),
        "{routes}"
    );
    b.ok(&["down"]);
    assert_eq!(processes_of(&b), []);
    assert!(!b.dir.join("l/lab").exists());
}

fn ended(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .is_none_or(|rest| rest.trim_start().starts_with('Z') || rest.is_empty())
}

fn what_is_closed_is_told_apart() {
    let b = Bench::new();
    b.ok(&["up", "--nodes", "2"]);
    let file = b.pods(&[("a", "node-1"), ("b", "node-2")]);
    b.ok(&["apply", "-f", &file]);
    let rules = "add table inet t; add chain inet t f { type filter hook forward priority 0; }; \
                 add rule inet t f tcp dport 81 drop; \
                 add rule inet t f tcp dport 82 reject with tcp reset; \
                 add rule inet t f tcp dport 83 reject with icmpx type admin-prohibited; \
                 add rule inet t f udp dport 84 drop; \
                 add rule inet t f sctp dport 85 drop";
    b.ok(&["exec", "node-2", "--", "nft", rules]);
    for (port, verdict) in [
        ("80/TCP", "open"),
        ("81/TCP", "dropped"),
        ("82/TCP", "refused"),
        ("83/TCP", "rejected"),
        ("53/UDP", "open"),
        ("84/UDP", "dropped"),
        ("5000/SCTP", "open"),
        ("85/SCTP", "dropped"),
        ("ICMP", "open"),
    ] {
        let r = b.probe(&["default/a", "default/b", port, "--timeout", "600ms"]);
        assert_eq!(r[0]["verdict"], verdict, "{port}: {}", r[0]);
    }
    let r = b.probe(&["default/a", "ip/10.244.2.200", "80", "--timeout", "600ms"]);
    assert_ne!(r[0]["verdict"], "open");
    let text = b.fails(
        1,
        &[
            "probe",
            "default/a",
            "default/b",
            "81",
            "--timeout",
            "300ms",
        ],
    );
    assert!(
        text.contains("dropped") && text.contains("policy would allow it"),
        "{text}"
    );
    let text = b.fails(1, &["probe", "default/a", "default/zz", "81"]);
    assert!(text.contains("default/zz is not running"), "{text}");
    let text = b.ok(&[
        "probe",
        "default/a",
        "default/b",
        "53/UDP",
        "--for",
        "300ms",
    ]);
    assert!(text.contains(" 0 lost"), "{text}");
}

fn a_refused_pod_says_why() {
    let b = Bench::new();
    b.ok(&["up", "--nodes", "1"]);
    let file = b.pods(&[("refused", "node-1"), ("good", "node-1")]);
    let text = b.fails(1, &["apply", "-f", &file]);
    assert!(text.contains("the stand-in refuses it"), "{text}");
    let status = b.status();
    let pod = |name: &str| {
        status["pods"]
            .as_array()
            .unwrap()
            .iter()
            .find(|p| p["name"] == name)
            .unwrap()
            .clone()
    };
    assert_eq!(pod("good")["phase"], "Running");
    assert_eq!(pod("refused")["phase"], "Pending");
    let reason = pod("refused")["reason"].as_str().unwrap().to_owned();
    assert!(
        reason.contains("FailedCreatePodSandBox") && reason.contains("refuses"),
        "{reason}"
    );
    // Input that cannot be used is 2, and hides nothing else.
    let bad = b.file("bad.yaml", "apiVersion: v1\nkind: Gizmo\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: fine}\n");
    let text = b.fails(2, &["apply", "-f", &bad]);
    assert!(
        text.contains("Gizmo") && text.contains("Namespace(fine) applied"),
        "{text}"
    );
    let text = b.fails(2, &["apply", "-f", "/does/not/exist"]);
    assert!(text.contains("/does/not/exist"), "{text}");
}

fn pods_come_and_go() {
    let b = Bench::new();
    b.ok(&["up", "--nodes", "2"]);
    let file = b.pods(&[("a", "node-1"), ("b", "node-2")]);
    for _ in 0..3 {
        b.ok(&["apply", "-f", &file]);
        // Again is no change.
        b.ok(&["apply", "-f", &file]);
        assert_eq!(b.probe(&["default/a", "default/b"])[0]["verdict"], "open");
        b.ok(&["delete", "-f", &file]);
        assert_eq!(b.status()["pods"].as_array().unwrap().len(), 0);
        let links = b.ok(&["exec", "node-1", "--", "ip", "-br", "link"]);
        assert!(!links.contains("cali"), "{links}");
    }
    let spaces = b.ok(&["exec", "node-1", "--", "ls", "/run/netns"]);
    assert_eq!(spaces, "");
}

fn agents(b: &Bench) -> Vec<u32> {
    processes_of(b)
        .into_iter()
        .filter(|p| p.1.contains("node run"))
        .map(|p| p.0)
        .collect()
}

fn a_killed_agent_comes_back() {
    let b = Bench::new();
    b.ok(&["up", "--nodes", "2"]);
    let file = b.pods(&[("a", "node-1"), ("b", "node-2")]);
    b.ok(&["apply", "-f", &file]);
    let before = agents(&b);
    assert_eq!(before.len(), 2);
    let mut stream = b.command(&[
        "probe",
        "default/a",
        "default/b",
        "53/UDP",
        "--for",
        "1500ms",
    ]);
    let stream = stream.stdout(Stdio::piped()).spawn().unwrap();
    for pid in &before {
        kill(*pid);
    }
    until("two new agents", || {
        agents(&b).iter().filter(|p| !before.contains(p)).count() == 2
            && b.status()["nodes"]
                .as_array()
                .unwrap()
                .iter()
                .all(|n| n["ready"] == true)
    });
    let text = texts(&stream.wait_with_output().unwrap()).0;
    assert!(text.contains(" 0 lost"), "{text}");
    assert!(
        b.status()["nodes"]
            .as_array()
            .unwrap()
            .iter()
            .all(|n| n["restarts"] == 1)
    );
}

fn mounts() -> String {
    std::fs::read_to_string("/proc/self/mountinfo").unwrap()
}

fn a_killed_lab_leaves_nothing() {
    let b = Bench::new();
    let before = mounts();
    b.ok(&["up", "--nodes", "2"]);
    let file = b.pods(&[("a", "node-1"), ("b", "node-2")]);
    b.ok(&["apply", "-f", &file]);
    assert_eq!(mounts(), before, "nothing is mounted outside");
    kill(holder_of(&b));
    until("no process", || processes_of(&b).is_empty());
    assert_eq!(mounts(), before);
    let text = b.fails(1, &["status"]);
    assert!(text.contains("is not running"), "{text}");
    assert!(
        !b.dir.join("l/lab").exists(),
        "what it left is removed by the next command"
    );
    // The name is free again.
    b.ok(&["up", "--nodes", "1"]);
}

fn a_killed_caller_takes_its_lab_along() {
    let b = Bench::new();
    let mut up = b.command(&["up", "--nodes", "1", "--foreground"]);
    let mut up: Child = up.stderr(Stdio::null()).spawn().unwrap();
    until("the lab", || b.lab(&["status"]).status.success());
    up.kill().unwrap();
    up.wait().unwrap();
    until("no process and no directory", || {
        processes_of(&b).is_empty() && !b.dir.join("l/lab").exists()
    });
}

fn only_one_lab_of_a_name() {
    let b = Bench::new();
    b.ok(&["up", "--nodes", "1"]);
    let text = b.fails(1, &["up", "--nodes", "1"]);
    assert!(text.contains("already running"), "{text}");
    b.ok(&["up", "--nodes", "1", "--name", "other"]);
    b.ok(&["down", "--name", "other"]);
    b.ok(&["status"]);
    let text = b.fails(1, &["down", "--name", "other"]);
    assert!(text.contains("is not running"), "{text}");
    let text = b.fails(2, &["up", "--name", "bad", "--host", "x=172.18.0.4"]);
    assert!(text.contains("lab's own range"), "{text}");
}

fn routed_fabric_and_outside_hosts() {
    let b = Bench::new();
    b.ok(&[
        "up",
        "--nodes",
        "2",
        "--topology",
        "routed",
        // The stand-in of the agent speaks no BGP.
        "--encapsulation",
        "VXLAN",
        "--families",
        "ipv4,ipv6",
        "--host",
        "out=203.0.113.7,fd00:99::7",
    ]);
    for (from, to, source) in [
        ("node/node-1", "node/node-2", "172.18.1.10"),
        ("node/node-1", "host/out", "172.18.1.10"),
        ("host/out", "node/node-2", "203.0.113.7"),
        ("host/out", "ip/172.18.1.10", "203.0.113.7"),
    ] {
        let port = if to.starts_with("ip/") { "ICMP" } else { "80" };
        let r = b.probe(&[from, to, port]);
        assert_eq!(r[0]["verdict"], "open", "{}", r[0]);
        if port == "80" {
            assert_eq!(r[0]["source"], source, "{}", r[0]);
        }
    }
    let r = b.probe(&["node/node-1", "ip/fd00:99::7", "ICMP"]);
    assert_eq!(
        (&r[0]["verdict"], &r[0]["ttl"]),
        (&"open".into(), &63.into()),
        "{}",
        r[0]
    );
    // Nothing leads out.
    for end in ["node-1", "fabric", "out"] {
        let links = b.ok(&["exec", end, "--", "ip", "-br", "link"]);
        assert!(!links.contains("@if") || !links.is_empty());
        let r = b.lab(&["exec", end, "--", "ip", "route", "get", "192.0.2.1"]);
        assert!(!texts(&r).0.contains("src 192"), "{links}");
    }
}

fn an_agent_that_fails_is_quoted() {
    let b = Bench::new();
    let out = b
        .command(&["up", "--nodes", "1"])
        .env("MANX_AGENT_FAIL", "1")
        .output()
        .unwrap();
    let text = texts(&out).1;
    assert_eq!(out.status.code(), Some(1), "{text}");
    assert!(
        text.contains("exit status 3") && text.contains("cannot find the moon"),
        "{text}"
    );
    assert_eq!(processes_of(&b), []);
    assert!(!b.dir.join("l/lab").exists());
}

fn services_lead_to_pods() {
    let b = Bench::new();
    b.ok(&["up", "--nodes", "2"]);
    let file = b.file(
        "web.yaml",
        "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {nodeName: node-1}}\n---\n\
         {apiVersion: v1, kind: Pod, metadata: {name: b, labels: {app: web}}, spec: {nodeName: node-2}}\n---\n\
         {apiVersion: v1, kind: Service, metadata: {name: web}, spec: {type: NodePort, \
         selector: {app: web}, ports: [{port: 80, targetPort: 8080, nodePort: 30080}]}}\n",
    );
    b.ok(&["apply", "-f", &file]);
    // The controller and the proxies follow on their own.
    until("the service leads to the pod", || {
        let r = b.lab(&[
            "probe",
            "default/a",
            "service/default/web",
            "80",
            "--timeout",
            "300ms",
        ]);
        r.status.success()
    });
    let r = b.probe(&["default/a", "service/default/web", "80"]);
    assert_eq!(r[0]["verdict"], "open", "{}", r[0]);
    assert_eq!(r[0]["address"], "10.96.0.11", "{}", r[0]);
    let r = b.probe(&["node/node-1", "node/node-2", "30080"]);
    assert_eq!(r[0]["verdict"], "open", "{}", r[0]);
    // A pod that reaches itself through its service comes from its node.
    let r = b.probe(&["default/b", "service/default/web", "80"]);
    assert_eq!(r[0]["verdict"], "open", "{}", r[0]);
    let why = b.ok(&["why", "default/a", "service/default/web", "80"]);
    assert!(why.starts_with("allow: "), "{why}");
    assert!(why.contains("profile kns.default"), "{why}");
    let text = b.fails(1, &["probe", "default/a", "service/default/none", "80"]);
    assert!(text.contains("there is no service/default/none"), "{text}");
}

fn scenarios_pass_and_fail() {
    let b = Bench::new();
    let good = b.file(
        "good.yaml",
        "name: open\npods:\n  - {name: a, node: node-1}\n  - {name: b, node: node-2}\nhosts:\n  - \
         {name: out, addresses: [203.0.113.7]}\nsteps:\n  - expect:\n      - {from: '*', to: '*', \
         port: 80, verdict: allow, source: pod}\n      - {from: default/a, to: default/b, \
         protocol: ICMP, verdict: allow}\n      - {from: node/node-1, to: host/out, port: 22, verdict: allow}\n      \
         - {from: default/a, to: default/b, protocol: ICMP, icmpType: 13, verdict: allow}\n",
    );
    let text = b.ok(&["test", &good]);
    assert!(text.ends_with("5 passed, 0 failed\n"), "{text}");
    let bad = b.file(
        "bad.yaml",
        "name: closed\npods:\n  - {name: a, node: node-1}\n  - {name: b, node: node-2}\nsteps:\n  - \
         expect:\n      - {from: default/a, to: default/b, port: 80, verdict: deny}\n",
    );
    let text = b.fails(1, &["test", &good, &bad, "--deadline", "1s"]);
    assert!(text.contains("expected deny, got open"), "{text}");
    assert!(text.contains("5 passed, 1 failed"), "{text}");
    let broken = b.file(
        "broken.yaml",
        "nodes: 1\nsteps:\n  - {expect: [{from: x, to: y, verdict: deny}]}\n",
    );
    let text = b.fails(2, &["test", &broken, &good]);
    assert!(
        text.contains("broken.yaml:3") && text.contains("5 passed, 0 failed"),
        "{text}"
    );
    let out = b.lab(&["test", "--json", &bad, "--deadline", "1s"]);
    let report: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(
        (&report["passed"], &report["failed"]),
        (&0.into(), &1.into())
    );
    let check = &report["checks"][0];
    assert_eq!(
        (&check["expected"], &check["got"]),
        (&"deny".into(), &"open".into())
    );
    assert_eq!(
        (&check["port"], &check["protocol"]),
        (&80.into(), &"TCP".into())
    );
    assert_eq!(processes_of(&b), []);
}

fn an_ordinary_user_can_do_it() {
    use std::os::unix::fs::{PermissionsExt, chown};
    let mut b = Bench::new();
    // Where anybody may read and run it.
    let exe = b.dir.join("manx-test");
    std::fs::copy(&b.exe, &exe).unwrap();
    std::fs::set_permissions(&exe, std::fs::Permissions::from_mode(0o755)).unwrap();
    chown(&b.dir, Some(65534), Some(65534)).unwrap();
    b.exe = exe;
    b.uid = Some(65534);
    b.ok(&["up", "--nodes", "2"]);
    let file = b.pods(&[("a", "node-1"), ("b", "node-2")]);
    b.ok(&["apply", "-f", &file]);
    for port in ["80/TCP", "5000/SCTP", "ICMP"] {
        let r = b.probe(&["default/a", "default/b", port]);
        assert_eq!(r[0]["verdict"], "open", "{}", r[0]);
    }
    assert_eq!(b.ok(&["exec", "a", "--", "id", "-u"]), "0\n");
    b.ok(&["down"]);
    assert_eq!(processes_of(&b), []);
}
