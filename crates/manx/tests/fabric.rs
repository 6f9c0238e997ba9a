//! A routed fabric that learns the ways to pods by BGP, from the lab's command line to packets: pods are
//! reached from outside at their own addresses, ways come and go with what they lead to, and neither an
//! agent nor the router that is killed costs a packet. Wants root; each lab has namespaces of its own.
#![expect(clippy::unwrap_used, reason = "tests")]

use serde_json::Value;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const MANX: &str = env!("CARGO_BIN_EXE_manx");
/// How long anything may take at most, on a machine with much else to do.
const DEADLINE: Duration = Duration::from_secs(40);

fn text(out: &Output) -> String {
    let all = [&out.stdout[..], &out.stderr[..]].concat();
    String::from_utf8_lossy(&all).into_owned()
}

#[track_caller]
#[expect(
    clippy::disallowed_methods,
    reason = "other processes are asked again and again, with a deadline"
)]
fn until(what: &str, ask: impl Fn() -> String, enough: impl Fn(&str) -> bool) -> String {
    let end = Instant::now() + DEADLINE;
    loop {
        let seen = ask();
        if enough(&seen) {
            return seen;
        }
        assert!(Instant::now() < end, "{what}: last seen: {seen}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A lab, gone at the end.
struct Lab {
    dir: PathBuf,
}

impl Lab {
    /// A directory for one.
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("mf").tempdir_in("/tmp");
        let dir = dir.unwrap().keep();
        Self { dir }
    }

    /// Both families, a router, a host outside, and pools whose pods go out as they are.
    fn routed(nodes: &str) -> Self {
        let lab = Self::new();
        lab.ok(&[
            "up",
            "--nodes",
            nodes,
            "--topology",
            "routed",
            "--families",
            "ipv4,ipv6",
            "--no-default-pools",
            "--host",
            "out=203.0.113.7,fd00:99::7",
        ]);
        lab.apply(
            "{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: public}, \
             spec: {cidr: 198.51.100.0/24, blockSize: 28, natOutgoing: false}}\n---\n\
             {apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: public-v6}, \
             spec: {cidr: \"2001:db8:65::/64\", natOutgoing: false}}\n",
        );
        lab
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut c = Command::new(MANX);
        c.args(args)
            .env("MANX_LAB_DIR", &self.dir)
            .env("DATASTORE_TYPE", "embedded")
            .env("MANX_STORE", self.dir.join("lab/store.db"));
        c
    }

    fn lab(&self, args: &[&str]) -> (bool, String) {
        let out = self.command(&[&["lab"], args].concat()).output().unwrap();
        (out.status.success(), text(&out))
    }

    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        let (ok, text) = self.lab(args);
        assert!(ok, "{args:?}: {text}");
        text
    }

    fn file(&self, yaml: &str) -> String {
        let path = self.dir.join("f.yaml");
        std::fs::write(&path, yaml).unwrap();
        path.display().to_string()
    }

    #[track_caller]
    fn apply(&self, yaml: &str) {
        let file = self.file(yaml);
        self.ok(&["apply", "-f", &file]);
    }

    #[track_caller]
    fn delete(&self, yaml: &str) {
        let file = self.file(yaml);
        self.ok(&["delete", "-f", &file]);
    }

    fn pod(name: &str, node: &str, more: &str) -> String {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, labels: {{app: {name}}}{more}}}, \
             spec: {{nodeName: {node}}}}}\n---\n"
        )
    }

    #[track_caller]
    fn json(&self, args: &[&str]) -> Value {
        let out = self.command(&[&["lab"], args].concat()).output().unwrap();
        serde_json::from_slice(&out.stdout)
            .unwrap_or_else(|e| panic!("{args:?}: {e}: {}", text(&out)))
    }

    /// The addresses of a pod of `default`, IPv4 first.
    fn addresses(&self, pod: &str) -> Vec<String> {
        let status = self.json(&["status", "-o", "json"]);
        let pods = status["pods"].as_array().unwrap();
        let pod = pods.iter().find(|p| p["name"] == pod).unwrap();
        let ips = pod["ips"].as_array().unwrap().iter();
        ips.map(|i| i.as_str().unwrap().to_owned()).collect()
    }

    /// What became of one packet, and whose it seemed to be.
    fn probe(&self, from: &str, to: &str, port: &str) -> (String, String) {
        let r = self.json(&["probe", from, to, port, "--json"]);
        let word = |k: &str| r[0][k].as_str().unwrap_or_default().to_owned();
        (word("verdict"), word("source"))
    }

    fn routes(&self, of: &str) -> String {
        self.ok(&["routes", of])
    }

    fn sessions(&self) -> Vec<(String, String)> {
        let status = self.json(&["status", "-o", "json"]);
        let word = |s: &Value, k: &str| s[k].as_str().unwrap().to_owned();
        let all = status["sessions"].as_array().unwrap().iter();
        all.map(|s| (word(s, "peer"), word(s, "state"))).collect()
    }

    /// The process whose command line and environment have these; its number is of the host.
    #[track_caller]
    fn process(&self, command: &str, environment: &str) -> rustix::process::Pid {
        let dir = self.dir.display().to_string();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let read = |f: &str| {
                let bytes = std::fs::read(entry.path().join(f)).unwrap_or_default();
                String::from_utf8_lossy(&bytes).replace('\0', " ")
            };
            let (line, vars) = (read("cmdline"), read("environ"));
            let ours = line.contains(&dir) || vars.contains(&dir);
            if ours && line.contains(command) && vars.contains(environment) {
                let pid = entry.file_name().to_string_lossy().parse().unwrap();
                return rustix::process::Pid::from_raw(pid).unwrap();
            }
        }
        panic!("no {command:?} with {environment:?}");
    }

    /// Sends datagrams from one end to another while something happens, and counts.
    #[track_caller]
    fn under_traffic(&self, flows: &[(&str, &str)], seconds: u32, happens: impl FnOnce()) {
        let length = format!("{seconds}s");
        let started: Vec<_> = flows
            .iter()
            .map(|(from, to)| {
                let args = ["lab", "probe", from, to, "7000/UDP", "--for", &length];
                let all = [&args[..], &["--interval", "2ms"]].concat();
                let mut c = self.command(&all);
                c.stdout(Stdio::piped()).stderr(Stdio::piped());
                c.spawn().unwrap()
            })
            .collect();
        happens();
        for child in started {
            let said = text(&child.wait_with_output().unwrap());
            assert!(said.contains(" 0 lost"), "{said}");
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let (ok, said) = self.lab(&["down"]);
        if !ok && !std::thread::panicking() {
            panic!("{said}");
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn open_from(source: &str) -> (String, String) {
    ("open".to_owned(), source.to_owned())
}

fn is_dropped(seen: &(String, String)) -> bool {
    seen.0 == "dropped"
}

#[test]
fn pods_are_reached_from_outside_at_their_own_addresses() {
    let lab = Lab::routed("3");
    let six = lab.sessions();
    assert_eq!(six.len(), 6, "{six:?}");
    assert!(six.iter().all(|s| s.1 == "Established"), "{six:?}");
    lab.apply(&(Lab::pod("a", "node-1", "") + &Lab::pod("b", "node-2", "")));

    // No route of the router's to pods but what nodes have told it.
    for r in lab.routes("router").lines() {
        let pods = r.starts_with("198.51.100.") || r.starts_with("2001:db8:65:");
        assert!(!pods || r.contains("proto bird"), "{r}");
    }
    let (a, b) = (lab.addresses("a"), lab.addresses("b"));
    for family in 0..2 {
        let out = ["203.0.113.7", "fd00:99::7"][family];
        let [a, b] = [&a[family], &b[family]];
        let to = |ip: &str| format!("ip/{ip}");
        // Whoever has the address answers; nobody listens there but for ICMP.
        for (from, ip) in [("default/a", b), ("host/out", a), ("host/out", b)] {
            assert_eq!(lab.probe(from, &to(ip), "ICMP").0, "open", "{from} {ip}");
        }
        assert_eq!(lab.probe("default/a", &to(out), "ICMP").0, "open");
    }
    assert_eq!(lab.probe("default/a", "default/b", "80"), open_from(&a[0]));
    assert_eq!(
        lab.probe("host/out", "default/b", "80"),
        open_from("203.0.113.7")
    );
    assert_eq!(lab.probe("default/b", "host/out", "80"), open_from(&b[0]));

    // As a person looks.
    let bgp = |of: &str, args: &[&str]| {
        let all = [&["exec", of, "--", MANX, "bgp"][..], args].concat();
        lab.ok(&all)
    };
    assert_eq!(bgp("router", &["peers"]).matches("Established").count(), 6);
    assert_eq!(bgp("node-1", &["peers"]).matches("Established").count(), 2);
    let why = bgp("node-1", &["routes", &b[0]]);
    assert!(why.contains("64500 64512") && why.contains("best"), "{why}");
}

#[test]
fn policy_sees_the_address_outside() {
    let lab = Lab::routed("2");
    lab.apply(&Lab::pod("a", "node-2", ""));
    let addresses = lab.addresses("a");
    let both = || -> Vec<(String, String)> {
        let to = |i: usize| format!("ip/{}", addresses[i]);
        (0..2)
            .map(|i| lab.probe("host/out", &to(i), "ICMP"))
            .collect()
    };
    assert!(both().iter().all(|s| s.0 == "open"));
    let policy = |nets: &str| {
        format!(
            "{{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {{name: p}}, spec: \
             {{selector: app == 'a', ingress: [{{action: Allow, source: {{nets: [{nets}]}}}}]}}}}"
        )
    };
    let seen = |want: fn(&(String, String)) -> bool| {
        let ask = || if both().iter().all(want) { "yes" } else { "no" }.to_owned();
        until("policy is in force", ask, |s| s == "yes");
    };
    lab.apply(&policy("192.0.2.0/24"));
    seen(is_dropped);
    let v4 = "{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: v6}, spec: \
              {selector: app == 'a', ingress: [{action: Allow, source: {nets: ['fd00:99::/64']}}]}}";
    lab.apply(&policy("203.0.113.7/32"));
    lab.apply(v4);
    seen(|s| s.0 == "open");
    assert_eq!(
        lab.probe("host/out", "default/a", "80"),
        open_from("203.0.113.7")
    );
}

#[test]
fn ways_go_with_what_they_lead_to() {
    let lab = Lab::routed("2");
    lab.apply(&Lab::pod("a", "node-1", ""));
    let block = lab.addresses("a")[0].clone();
    // In the block of node-1, on node-2: announced by itself.
    let host = block.rsplit_once('.').unwrap();
    let last: u8 = host.1.parse().unwrap();
    let borrowed = format!(
        "{}.{}",
        host.0,
        if last % 16 == 15 { last - 1 } else { last + 1 }
    );
    let fixed = format!(
        ", annotations: {{\"cni.projectcalico.org/ipAddrs\": '[\"{borrowed}\", \"2001:db8:65::77\"]'}}"
    );
    let b = Lab::pod("b", "node-2", &fixed);
    lab.apply(&b);
    let has = |routes: &str| {
        routes
            .lines()
            .any(|l| l.starts_with(&format!("{borrowed} via 172.18.2.10")))
    };
    assert!(has(&lab.routes("router")), "{}", lab.routes("router"));
    assert_eq!(
        lab.probe("host/out", "default/b", "80"),
        open_from("203.0.113.7")
    );
    lab.delete(b.trim_end_matches("---\n"));
    until(
        "the address is withdrawn",
        || lab.routes("router"),
        |r| !has(r),
    );

    // The block goes when its pool does.
    let of_pool = |r: &str| r.lines().any(|l| l.starts_with("198.51.100."));
    assert!(of_pool(&lab.routes("router")));
    lab.delete(Lab::pod("a", "node-1", "").trim_end_matches("---\n"));
    let out = lab
        .command(&["delete", "ippool", "public"])
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", text(&out));
    until(
        "the blocks are withdrawn",
        || lab.routes("router"),
        |r| !of_pool(r),
    );
}

#[test]
fn a_node_that_leaves_takes_its_ways_along() {
    let lab = Lab::routed("2");
    lab.apply(&(Lab::pod("a", "node-1", "") + &Lab::pod("b", "node-2", "")));
    let through = |r: &str, node: u8| {
        let via = [
            format!("via 172.18.{node}.10"),
            format!("via fd00:18:0:{node}::a"),
        ];
        via.map(|v| {
            r.lines()
                .any(|l| l.contains(&v) && l.contains("proto bird"))
        })
    };
    assert_eq!(through(&lab.routes("router"), 2), [true, true]);
    let out = lab.command(&["delete", "node", "node-2"]).output().unwrap();
    assert!(out.status.success(), "{}", text(&out));
    let gone = |r: &str| through(r, 2) == [false, false];
    until("its ways are gone", || lab.routes("router"), gone);
    assert_eq!(through(&lab.routes("router"), 1), [true, true]);
    let peers = || format!("{:?}", lab.sessions());
    until("nobody is expected there", peers, |s| !s.contains("node-2"));
    assert_eq!(
        lab.probe("host/out", "default/a", "80"),
        open_from("203.0.113.7")
    );
}

#[test]
fn an_agent_or_a_router_that_is_killed_costs_no_packet() {
    let lab = Lab::routed("2");
    lab.apply(&(Lab::pod("a", "node-1", "") + &Lab::pod("b", "node-2", "")));
    let flows = [
        ("host/out", "default/b"),
        ("default/b", "host/out"),
        ("default/a", "default/b"),
    ];
    let up = |s: &str| s.matches("Established").count() == 4;
    let peers = || format!("{:?}", lab.sessions());
    until("all sessions", peers, up);
    let log = lab.dir.join("lab/router/speaker.log");
    let said = || std::fs::read_to_string(&log).unwrap();
    let sessions = |s: &str| s.matches("to=Established").count();

    let before = sessions(&said());
    lab.under_traffic(&flows, 8, || {
        let agent = lab.process("node run", "NODENAME=node-2 ");
        rustix::process::kill_process(agent, rustix::process::Signal::KILL).unwrap();
        // Both families, anew.
        until("it speaks again", said, |s| sessions(s) >= before + 2);
    });
    until("all sessions again", peers, up);

    let before = sessions(&said());
    lab.under_traffic(&flows, 8, || {
        let router = lab.process("speaker --kernel", "");
        rustix::process::kill_process(router, rustix::process::Signal::KILL).unwrap();
        until("the router speaks again", said, |s| {
            sessions(s) >= before + 4
        });
    });
    until("all sessions once more", peers, up);
    assert_eq!(
        lab.probe("host/out", "default/b", "80"),
        open_from("203.0.113.7")
    );
}

/// A file of examples/bgp, which docs/bgp.md applies.
fn example(name: &str) -> String {
    format!("{}/../../examples/bgp/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_page_about_bgp_holds_for_one_segment() {
    let lab = Lab::new();
    lab.ok(&["up", "--nodes", "3"]);
    lab.ok(&["apply", "-f", &example("pods.yaml")]);
    let up = || {
        lab.sessions()
            .iter()
            .filter(|s| s.1 == "Established")
            .count()
            .to_string()
    };
    assert_eq!((up().as_str(), lab.sessions().len()), ("6", 6));

    lab.ok(&["apply", "-f", &example("mesh-password.yaml")]);
    let signed = || lab.ok(&["exec", "node-2", "--", MANX, "bgp", "peers", "-o", "yaml"]);
    let all = |s: &str| s.matches("password: true").count() == 2;
    until("sessions have the password", signed, all);
    until("they are up with it", up, |s| s == "6");

    let exec = |args: &[&str]| lab.ok(&[&["exec", "node-1", "--", MANX][..], args].concat());
    exec(&["label", "nodes", "node-1", "route-reflector=true"]);
    let cluster = r#"{"spec":{"bgp":{"routeReflectorClusterID":"244.0.0.1"}}}"#;
    exec(&["patch", "node", "node-1", "-p", cluster]);
    lab.ok(&["apply", "-f", &example("reflectors.yaml")]);
    until("nodes speak with the reflector alone", up, |s| s == "4");
    let probe = || lab.probe("default/client", "default/web", "80").0;
    until("pods reach each other by what it passes on", probe, |s| {
        s == "open"
    });
    let (ok, said) = lab.lab(&["routes", "node-2"]);
    assert!(
        ok && said.contains("via 172.18.0.11 dev eth0 proto bird"),
        "{said}"
    );
}

#[test]
fn the_page_about_bgp_holds_for_services_and_filters() {
    let lab = Lab::new();
    let host = "office=203.0.113.7";
    lab.ok(&["up", "--nodes", "3", "--topology", "routed", "--host", host]);
    lab.ok(&[
        "apply",
        "-f",
        &example("pods.yaml"),
        &example("service.yaml"),
    ]);
    let routes = || lab.routes("router");
    let alone = "198.51.100.80 via 172.18.1.10";
    until("the node of the endpoint tells of it", routes, |r| {
        r.contains(alone) && r.contains("198.51.100.0/24 nexthop")
    });
    let probe = || lab.probe("host/office", "ip/198.51.100.80", "80").0;
    until("the service answers outside", probe, |s| s == "open");

    lab.ok(&["apply", "-f", &example("filter.yaml")]);
    let exec = |args: &[&str]| lab.ok(&[&["exec", "node-1", "--", MANX][..], args].concat());
    let named = r#"{"spec":{"filters":["no-services"]}}"#;
    exec(&["patch", "bgppeer", "router-node-1-ipv4", "-p", named]);
    until("the filter holds", routes, |r| {
        !r.contains(alone) && r.contains("198.51.100.0/24 nexthop via 172.18.2.10")
    });
    let why = exec(&["bgp", "routes", "198.51.100.80/32"]);
    assert!(
        why.contains("BGPFilter(no-services) rule 0 export"),
        "{why}"
    );
    let flaps = exec(&["bgp", "peers", "-o", "yaml"]);
    assert!(flaps.contains("flaps: 0"), "{flaps}");

    let apart = example("reflector-apart.yaml");
    let out = lab
        .command(&["speaker", "--file", &apart, "--check"])
        .output();
    let out = out.unwrap();
    assert!(
        out.status.success() && out.stdout.is_empty(),
        "{}",
        text(&out)
    );
}

/// BIRD in a pod, until it is dropped.
struct Router {
    bird: std::process::Child,
}

impl Router {
    fn start(lab: &Lab, pod: &str) -> Self {
        let control = lab.dir.join("bird.ctl").display().to_string();
        let conf = example("router-in-a-pod.conf");
        let args = [
            "lab", "exec", pod, "--", "bird", "-f", "-c", &conf, "-s", &control,
        ];
        let bird = lab.command(&args).spawn().unwrap();
        Self { bird }
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        let _ = self.bird.kill();
        let _ = self.bird.wait();
    }
}

#[test]
fn a_router_in_a_pod_speaks_with_its_node_until_the_pod_goes() {
    let lab = Lab::new();
    lab.ok(&["up", "--nodes", "2"]);
    let yaml = std::fs::read_to_string(example("router-in-a-pod.yaml")).unwrap();
    let (felix, rest): (Vec<_>, Vec<_>) = yaml
        .split("---\n")
        .partition(|d| d.contains("kind: FelixConfiguration"));
    lab.apply(&rest.join("---\n"));
    // The node answers there, but what its pods send to it is dropped, as with Calico.
    let local = |node: &str| lab.ok(&["exec", node, "--", "ip", "route", "show", "table", "local"]);
    let answers = |r: &str| r.contains("local 169.254.7.7 dev lo proto bird");
    until("the node answers", || local("node-1"), answers);
    assert!(!answers(&local("node-2")));
    let probe = || lab.probe("default/router", "ip/169.254.7.7", "179").0;
    assert_eq!(probe(), "dropped");
    lab.apply(felix[0]);
    until("it may be reached", probe, |v| v == "open");

    let router = Router::start(&lab, "default/router");
    let address = lab.addresses("router")[0].clone();
    let told = |r: &str, via: &str| {
        let start = format!("10.123.0.0/26 via {via}");
        r.lines().any(|l| l.starts_with(&start))
    };
    let routes = |node: &'static str| {
        let lab = &lab;
        move || lab.routes(node)
    };
    until("its node has learned", routes("node-1"), |r| {
        told(r, &address)
    });
    until("so has the other", routes("node-2"), |r| {
        told(r, "172.18.0.11")
    });
    let peers = lab.ok(&["exec", "node-1", "--", MANX, "bgp", "peers", "-o", "yaml"]);
    assert!(peers.contains("count: 100"), "{peers}");

    let pod = yaml.rsplit("---\n").next().unwrap();
    lab.delete(pod);
    for node in ["node-1", "node-2"] {
        until("it is forgotten", routes(node), |r| {
            !r.contains("10.123.0.")
        });
    }
    until(
        "nobody calls there now",
        || local("node-1"),
        |r| !answers(r),
    );
    drop(router);
}
