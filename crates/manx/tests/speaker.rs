//! `manx speaker` as its users have it: files, signals, and what peers and `manx bgp` see of it. Wants
//! root; everything happens on the loopback of a namespace of its own.
#![expect(clippy::unwrap_used, reason = "tests")]

use netlink::netns::NetNs;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

const MANX: &str = env!("CARGO_BIN_EXE_manx");

fn run(ns: &NetNs, program: &str, args: &[&str]) -> (bool, String) {
    let out = ns.command(program).unwrap().args(args).output().unwrap();
    let text = [out.stdout, out.stderr].concat();
    (
        out.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

#[track_caller]
#[expect(
    clippy::disallowed_methods,
    reason = "other processes are asked again and again, with a deadline"
)]
fn until(what: &str, ask: impl Fn() -> String, enough: impl Fn(&str) -> bool) -> String {
    let deadline = Instant::now() + Duration::from_secs(40);
    loop {
        let seen = ask();
        if enough(&seen) {
            return seen;
        }
        assert!(Instant::now() < deadline, "{what}: last seen: {seen}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn file(me: u8, others: &[u8]) -> String {
    let peer = |o: &u8| {
        format!(
            "---\nkind: BGPPeer\napiVersion: projectcalico.org/v3\nmetadata: {{name: p{o}}}\n\
             spec: {{peerIP: 10.0.0.{o}, asNumber: 6500{o}}}\n"
        )
    };
    let peers: String = others.iter().map(peer).collect();
    format!(
        "kind: Node\napiVersion: projectcalico.org/v3\nmetadata: {{name: n{me}}}\n\
         spec: {{bgp: {{ipv4Address: 10.0.0.{me}/24, asNumber: 6500{me}}}}}\n---\n\
         kind: BGPConfiguration\napiVersion: projectcalico.org/v3\nmetadata: {{name: default}}\n\
         spec: {{nodeToNodeMeshEnabled: false, bindMode: NodeIP}}\n{peers}"
    )
}

/// A running `manx speaker`.
struct Speaker<'a> {
    ns: &'a NetNs,
    dir: tempfile::TempDir,
    child: Child,
}

impl<'a> Speaker<'a> {
    fn start(ns: &'a NetNs, me: u8, others: &[u8], more: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f.yaml"), file(me, others)).unwrap();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let child = ns
            .command(MANX)
            .unwrap()
            .arg("speaker")
            .args(["--file", dir.path().join("f.yaml").to_str().unwrap()])
            .args(["--socket", dir.path().to_str().unwrap()])
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { ns, dir, child }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.at("log")).unwrap()
    }

    fn bgp(&self, args: &[&str]) -> String {
        let socket = self.at("bgp.ctl");
        let all = [&["bgp"], args, &["--socket", socket.to_str().unwrap()]].concat();
        run(self.ns, MANX, &all).1
    }

    fn established(&self, address: &str) {
        let up = |s: &str| {
            let of = s.lines().find(|l| l.starts_with(address));
            of.is_some_and(|l| l.contains("Established"))
        };
        until("a session", || self.bgp(&["peers"]), up);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, signal).unwrap();
    }
}

impl Drop for Speaker<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn loopback() -> NetNs {
    let ns = NetNs::new().unwrap();
    assert!(run(&ns, "ip", &["link", "set", "lo", "up"]).0);
    for a in ["10.0.0.1/32", "10.0.0.2/32", "10.0.0.3/32"] {
        assert!(run(&ns, "ip", &["addr", "add", a, "dev", "lo"]).0);
    }
    ns
}

#[test]
fn a_file_is_followed_and_a_bad_one_is_not() {
    let ns = loopback();
    let a = Speaker::start(&ns, 1, &[2, 3], &["--static", "192.0.2.0/24"]);
    let b = Speaker::start(&ns, 2, &[1], &["--shutdown", "back at six"]);
    let c = Speaker::start(&ns, 3, &[1], &[]);
    a.established("10.0.0.2");
    a.established("10.0.0.3");
    let told = until(
        "a route",
        || b.bgp(&["routes", "192.0.2.9"]),
        |s| s.contains("best"),
    );
    assert!(told.starts_with("192.0.2.0/24\n"), "{told}");
    let (ok, status) = run(
        &ns,
        MANX,
        &["node", "status", "--socket", a.dir.path().to_str().unwrap()],
    );
    assert!(
        ok && status.contains("| 10.0.0.2     | global    | up    |"),
        "{status}"
    );

    // Refused whole, with place, field and reason.
    let bad = file(1, &[3]).replace("10.0.0.3", "10.0.0.333");
    std::fs::write(a.at("f.yaml"), bad).unwrap();
    let log = until("it is refused", || a.log(), |s| s.contains("refused"));
    assert!(
        log.contains("f.yaml:11:1: BGPPeer(p3): error with field spec.peerIP"),
        "{log}"
    );
    a.established("10.0.0.2");

    // One session goes, the other is not touched.
    std::fs::write(a.at("new"), file(1, &[3])).unwrap();
    std::fs::rename(a.at("new"), a.at("f.yaml")).unwrap();
    until(
        "it is gone",
        || a.bgp(&["peers"]),
        |s| !s.contains("10.0.0.2 "),
    );
    let yaml = a.bgp(&["peers", "p3", "-o", "yaml"]);
    assert!(
        yaml.contains("flaps: 0") && yaml.contains("sessions: 1"),
        "{yaml}"
    );

    std::fs::write(a.at("f.yaml"), file(1, &[2, 3])).unwrap();
    a.established("10.0.0.2");
    a.signal(rustix::process::Signal::HUP);
    until(
        "it is read again",
        || a.log(),
        |s| s.matches("is followed").count() >= 3,
    );
    // Told the end by one, not by the other.
    b.signal(rustix::process::Signal::TERM);
    until(
        "a word",
        || a.bgp(&["faults"]),
        |s| s.contains("back at six"),
    );
    c.signal(rustix::process::Signal::TERM);
    let gone = |s: &str| {
        !s.lines()
            .any(|l| l.starts_with("10.0.0.3") && l.contains("Established"))
    };
    until("it went", || a.bgp(&["peers"]), gone);
    assert!(!a.bgp(&["faults"]).contains("Global_10_0_0_3"));
}

#[test]
fn what_cannot_be_started_says_why() {
    let ns = loopback();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f.yaml");
    let path = path.to_str().unwrap();
    let (ok, said) = run(&ns, MANX, &["speaker", "--file", path]);
    assert!(
        !ok && said.starts_with(&format!("read {path}: No such file")),
        "{said}"
    );
    std::fs::write(path, file(1, &[])).unwrap();
    let (ok, said) = run(&ns, MANX, &["speaker", "--file", path, "--node", "x"]);
    assert!(
        !ok && said.contains("it has only n1, not Node(x): add that"),
        "{said}"
    );
    let (ok, said) = run(&ns, MANX, &["speaker", "--file", path, "--check"]);
    assert!(ok && said.is_empty(), "{said}");
}
