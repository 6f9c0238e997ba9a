//! A cluster that a test can hold in its hand.
#![allow(unreachable_pub, reason = "the other modules are its public")]

use api::{Resource, ResourceKind};
use datastore::{Client, Delete};
use link::{Address, Changes, Veth, VethEnd};
use net::{Cidr, Family, IfName};
use netlink::netns::NetNs;
use route::{Hop, Proto, Route, Table};
use serde_json::{Value, json};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long anything may take at most, on a machine with much else to do.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// The program under test.
pub const MANX: &str = env!("CARGO_BIN_EXE_manx");

/// Of every network configuration here.
pub const NETWORK: &str = "k8s-pod-network";

/// All versions that are spoken.
pub const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// Between two questions.
#[expect(
    clippy::disallowed_methods,
    reason = "what a process in another namespace does tells nobody here"
)]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Asks until it holds.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < end, "in time: {what}");
        pause(Duration::from_millis(3));
    }
}

/// Waits for an end that must come.
#[track_caller]
pub fn ended(child: &mut Child) -> ExitStatus {
    let mut status = None;
    until("the process ends", || {
        status = child.try_wait().expect("our child");
        status.is_some()
    });
    status.expect("just seen")
}

/// What a program prints, run inside a namespace; its success as well.
pub fn output(ns: &NetNs, program: &str, args: &[&str]) -> (bool, String) {
    let out = ns
        .command(program)
        .expect("namespace")
        .args(args)
        .output()
        .expect("it runs");
    let text = [out.stdout, out.stderr].concat();
    (
        out.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

/// What a program prints that has to succeed.
#[track_caller]
pub fn run(ns: &NetNs, line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (ok, text) = output(ns, words[0], &words[1..]);
    assert!(ok, "{line}: {text}");
    text
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn name(text: &str) -> IfName {
    text.parse().expect("an interface name")
}

/// A store, a segment that joins nodes, and the plugins' directory.
pub struct Cluster {
    pub dir: TempDir,
    pub client: Client,
    runtime: tokio::runtime::Runtime,
    pub fabric: NetNs,
    containers: AtomicUsize,
    env: Vec<(String, String)>,
}

impl Cluster {
    /// With IPv4, a namespace `default` and a pool that the first agent makes.
    pub fn new() -> Self {
        Self::with(&[("CALICO_IPV4POOL_CIDR", "10.65.0.0/16")])
    }

    /// With both families.
    pub fn dual() -> Self {
        Self::with(&[
            ("CALICO_IPV4POOL_CIDR", "10.65.0.0/16"),
            ("CALICO_IPV6POOL_CIDR", "fd00:65::/64"),
            ("DUAL", "1"),
        ])
    }

    fn with(env: &[(&str, &str)]) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("mx")
            .tempdir()
            .expect("a directory");
        fs::create_dir(dir.path().join("bin")).expect("a directory");
        for plugin in ["calico", "calico-ipam"] {
            let link = dir.path().join("bin").join(plugin);
            std::os::unix::fs::symlink(MANX, link).expect("a link");
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let store = {
            let _in = runtime.enter();
            datastore::open(Some(&dir.path().join("store.db"))).expect("a store")
        };
        let fabric = NetNs::new().expect("root, to make namespaces");
        let mut links = link::Handle::open_in(&fabric).expect("socket");
        links
            .create_bridge(&VethEnd::named(name("br0")))
            .expect("a bridge");
        let index = links.index_of(name("br0")).expect("it");
        links.set_up(index, true).expect("up");
        let own = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
        let new = Self {
            dir,
            client: Client::new(store),
            runtime,
            fabric,
            containers: AtomicUsize::new(0),
            env: env.iter().map(own).collect(),
        };
        new.apply(
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}}),
        );
        new
    }

    pub fn block_on<T>(&self, f: impl Future<Output = T>) -> T {
        self.runtime.block_on(f)
    }

    /// Creates or replaces an object.
    #[track_caller]
    pub fn apply(&self, object: Value) -> Resource {
        let text = object.to_string();
        let (resource, _) = api::parse_documents(&text, "test")
            .remove(0)
            .expect("an object");
        self.block_on(self.client.apply(resource))
            .expect("it is stored")
    }

    pub fn get(&self, kind: ResourceKind, namespace: &str, name: &str) -> Option<Resource> {
        let namespace = Some(namespace).filter(|n| !n.is_empty());
        match self.block_on(self.client.get(kind, namespace, name)) {
            Ok(r) => Some(r),
            Err(e) if e.is_not_found() => None,
            Err(e) => panic!("{e}"),
        }
    }

    #[track_caller]
    pub fn delete(&self, kind: ResourceKind, namespace: &str, name: &str) {
        let namespace = Some(namespace).filter(|n| !n.is_empty());
        self.block_on(self.client.delete(kind, namespace, name, Delete::default()))
            .expect("it was there");
    }

    /// A pod of namespace `default`.
    pub fn pod(&self, name: &str, node: &Node, labels: Value, annotations: Value) {
        self.pod_in("default", name, node, labels, annotations);
    }

    pub fn pod_in(&self, ns: &str, name: &str, node: &Node, labels: Value, annotations: Value) {
        self.apply(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": ns, "labels": labels, "annotations": annotations},
            "spec": {"nodeName": node.name, "containers": [{"name": "c", "image": "i"}]},
        }));
    }

    pub fn annotation(&self, pod: &str, key: &str) -> Option<String> {
        let pod = self.get(ResourceKind::Pod, "default", pod)?;
        let key = format!("cni.projectcalico.org/{key}");
        pod.meta().annotations.get(&key).cloned()
    }

    /// A policy for all nodes; `spec` as the resource has it.
    pub fn policy(&self, name: &str, spec: Value) {
        self.apply(json!({
            "apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy",
            "metadata": {"name": name}, "spec": spec,
        }));
    }

    /// A node on the segment, with its agent not started.
    pub fn node(&self, number: u8) -> Node {
        let ns = self.host(&format!("n{number}"), number);
        let node_name = format!("n{number}");
        let dir = self.dir.path().join(&node_name);
        fs::create_dir(&dir).expect("a directory");
        let text = |p: PathBuf| p.display().to_string();
        let mut env: Vec<(String, String)> = [
            ("DATASTORE_TYPE", "embedded".to_owned()),
            ("MANX_STORE", text(self.dir.path().join("store.db"))),
            ("NODENAME", node_name.clone()),
            ("IP", format!("172.18.0.{number}/24")),
            ("MANX_SOCKET", text(dir.join("s"))),
            ("MANX_LIB_DIR", text(dir.join("lib"))),
            ("MANX_BGP_DIR", text(dir.join("bgp"))),
            ("FELIX_HEALTHENABLED", "true".to_owned()),
            ("FELIX_PROMETHEUSMETRICSENABLED", "true".to_owned()),
            ("PATH", std::env::var("PATH").unwrap_or_default()),
        ]
        .map(|(k, v)| (k.to_owned(), v))
        .into();
        env.extend(self.env.iter().cloned());
        if env.iter().any(|(k, _)| k == "DUAL") {
            env.push(("IP6".to_owned(), format!("fd00:18::{number:x}/64")));
        }
        Node {
            name: node_name,
            ns,
            env,
            bin: self.dir.path().join("bin"),
            log: dir.join("log"),
            socket: dir.join("s"),
            networks: dir.join("networks"),
            agent: None,
        }
    }

    /// A node with its agent at work.
    pub fn started(&self, number: u8) -> Node {
        let mut node = self.node(number);
        node.start();
        node
    }

    /// A namespace on the segment, 172.18.0.`number` and fd00:18::`number`.
    pub fn host(&self, port: &str, number: u8) -> NetNs {
        let ns = NetNs::new().expect("root");
        ns.run(|| {
            let v6 = |k: &str, v| link::Sysctl::conf(Family::V6, "default", k, v);
            link::sysctl::write(&[v6("accept_dad", 0), v6("disable_ipv6", 0)])
        })
        .expect("enter")
        .expect("sysctls");
        let mut fabric = link::Handle::open_in(&self.fabric).expect("socket");
        let veth = Veth {
            here: VethEnd::named(name(port)),
            there: VethEnd::named(name("eth0")),
            queues: 1,
            up: true,
        };
        fabric.create_veth(&veth, Some(&ns)).expect("a veth pair");
        let outer = fabric.index_of(name(port)).expect("it");
        let bridge = fabric.index_of(name("br0")).expect("it");
        fabric.set_master(outer, Some(bridge)).expect("bridged");
        let mut inside = link::Handle::open_in(&ns).expect("socket");
        let lo = inside.index_of(name("lo")).expect("lo");
        inside.set_up(lo, true).expect("up");
        let eth0 = inside.index_of(name("eth0")).expect("eth0");
        let addresses = [
            Address::subnet(ip(&format!("172.18.0.{number}")), 24),
            Address::subnet(ip(&format!("fd00:18::{number:x}")), 64),
        ];
        let change = Changes {
            up: Some(true),
            addresses: &addresses,
            ..Changes::default()
        };
        inside.change(eth0, &change).expect("set up");
        let mut routes = route::Handle::open_in(&ns).expect("socket");
        for gateway in ["172.18.0.254", "fd00:18::fe"] {
            let gateway = ip(gateway);
            let hop = Hop::onlink(gateway, eth0);
            let any = Cidr::any(Family::of(gateway));
            let route = Route::unicast(Table::MAIN, any, hop, Proto::STATIC);
            routes.install(&route, true).expect("a route");
        }
        ns
    }

    pub fn container(&self) -> Container {
        let n = self.containers.fetch_add(1, Ordering::Relaxed);
        let ns = NetNs::new().expect("root");
        Container {
            // As runtimes do: hexadecimal, and different from the first digits on.
            id: format!("{n:04x}{:060x}", n + 0xc0ffee),
            ns,
        }
    }

    /// A pod of namespace `default` with its sandbox, attached.
    #[track_caller]
    pub fn attached(&self, node: &Node, name: &str, labels: Value) -> Attached {
        self.pod(name, node, labels, json!({}));
        let container = self.container();
        let result = node.add_pod(&container, name).expect("it is attached");
        Attached::new(name, container, &result)
    }

    /// `manx ipam check`, which must find nothing wrong.
    #[track_caller]
    pub fn ipam_check(&self) {
        let store = self.dir.path().join("store.db");
        let out = Command::new(MANX)
            .args(["ipam", "check", "--fail", "--show-problem-ips"])
            .env("DATASTORE_TYPE", "embedded")
            .env("MANX_STORE", store)
            .output()
            .expect("it runs");
        let text = String::from_utf8_lossy(&out.stdout);
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "ipam check: {text}{said}");
    }

    /// All handles that hold addresses.
    pub fn handles(&self) -> Vec<String> {
        let store = self.client.store();
        let listed = self.block_on(store.list("/calico/ipam/v2/handle/"));
        let keys = listed.expect("a list").entries.into_iter().map(|e| e.key);
        let last = |k: String| k.rsplit('/').next().unwrap_or_default().to_owned();
        keys.map(last).collect()
    }

    /// No address assigned, no endpoint stored, and nothing of a pod on the node.
    #[track_caller]
    pub fn nothing_left(&self, node: &Node) {
        assert_eq!(self.handles(), [""; 0], "handles");
        let listed = self.block_on(self.client.list(ResourceKind::WorkloadEndpoint, None));
        let used: Vec<Resource> = listed
            .expect("a list")
            .resources
            .into_iter()
            .filter(
                |r| matches!(r, Resource::WorkloadEndpoint(w) if !w.spec.ip_networks.is_empty()),
            )
            .collect();
        assert!(used.is_empty(), "{used:?}");
        self.ipam_check();
        node.no_pods();
    }
}

/// A namespace with an agent.
pub struct Node {
    pub name: String,
    pub ns: NetNs,
    pub env: Vec<(String, String)>,
    bin: PathBuf,
    log: PathBuf,
    pub socket: PathBuf,
    networks: PathBuf,
    agent: Option<Child>,
}

impl Node {
    pub fn set(&mut self, key: &str, value: &str) {
        self.env.retain(|(k, _)| k != key);
        self.env.push((key.to_owned(), value.to_owned()));
    }

    /// The agent as a command.
    pub fn command(&self) -> Command {
        let mut command = self.ns.command(MANX).expect("namespace");
        command.args(["node", "run"]);
        self.environment(&mut command);
        command
    }

    /// Gives a command the agent's environment and log.
    pub fn environment(&self, command: &mut Command) {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .expect("a log");
        let copy = log.try_clone().expect("a descriptor");
        command
            .env_clear()
            .envs(self.env.iter().map(|(k, v)| (k, v)))
            .stdin(Stdio::null())
            .stdout(copy)
            .stderr(log);
    }

    pub fn spawn(&mut self, command: &mut Command) {
        self.agent = Some(command.spawn().expect("it starts"));
    }

    /// Starts the agent and waits until it serves.
    #[track_caller]
    pub fn start(&mut self) {
        let mut command = self.command();
        self.spawn(&mut command);
        self.ready();
    }

    /// Waits until the agent serves.
    #[track_caller]
    pub fn ready(&mut self) {
        let end = Instant::now() + DEADLINE;
        while UnixStream::connect(&self.socket).is_err() {
            let agent = self.agent.as_mut().expect("it was started");
            if let Some(status) = agent.try_wait().expect("our child") {
                panic!("the agent ended with {status}: {}", self.log());
            }
            assert!(Instant::now() < end, "agent ready: {}", self.log());
            pause(Duration::from_millis(3));
        }
    }

    pub fn pid(&self) -> u32 {
        self.agent.as_ref().expect("it runs").id()
    }

    /// As the kernel's memory killer does.
    pub fn kill(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            agent.kill().expect("our child");
            agent.wait().expect("our child");
        }
    }

    /// As a service manager does; how it ended.
    #[track_caller]
    pub fn stop(&mut self) -> ExitStatus {
        let mut agent = self.agent.take().expect("it runs");
        let pid = rustix::process::Pid::from_child(&agent);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("our child");
        ended(&mut agent)
    }

    pub fn log(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    /// What the agent said since this was called last.
    pub fn forget_log(&self) {
        File::create(&self.log).expect("a log");
    }

    /// A configuration of the `calico` plugin.
    pub fn conf(&self, version: &str) -> Value {
        json!({
            "cniVersion": version, "name": NETWORK, "type": "calico",
            "agent_socket": self.socket, "ipam": {"type": "calico-ipam"},
        })
    }

    /// The same with `host-local`.
    pub fn host_local(&self, ipam: Value) -> Value {
        let mut conf = self.conf("1.0.0");
        conf["ipam"] = ipam;
        conf["ipam"]["type"] = json!("host-local");
        conf["ipam"]["dataDir"] = json!(self.networks);
        conf
    }

    /// Files that `host-local` keeps for addresses.
    pub fn host_local_files(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.networks.join(NETWORK)) else {
            return Vec::new();
        };
        let names = entries.map(|e| {
            e.expect("an entry")
                .file_name()
                .into_string()
                .expect("text")
        });
        let mut all: Vec<String> = names.filter(|n| n.parse::<IpAddr>().is_ok()).collect();
        all.sort();
        all
    }

    /// Calls a plugin as a runtime does.
    pub fn call(&self, call: &Call<'_>) -> Result<Value, CniError> {
        let mut child = call.start(self);
        let mut stdin = child.stdin.take().expect("piped");
        // One that does not read says why by itself.
        let _ = stdin.write_all(call.conf.to_string().as_bytes());
        drop(stdin);
        let out = child.wait_with_output().expect("our child");
        let text = String::from_utf8_lossy(&out.stdout);
        if out.status.success() {
            return Ok(if text.is_empty() {
                Value::Null
            } else {
                serde_json::from_str(&text).expect("a result")
            });
        }
        let v: Value = serde_json::from_str(&text).unwrap_or_else(|_| {
            panic!(
                "{}: {text}{}",
                call.command,
                String::from_utf8_lossy(&out.stderr)
            )
        });
        let field = |k: &str| v[k].as_str().unwrap_or_default().to_owned();
        Err(CniError {
            code: v["code"].as_u64().unwrap_or_default(),
            msg: field("msg"),
            details: field("details"),
            version: field("cniVersion"),
        })
    }

    pub fn add(&self, c: &Container) -> Result<Value, CniError> {
        self.call(&Call::new("ADD", c, self.conf("1.0.0")))
    }

    pub fn del(&self, c: &Container) -> Result<Value, CniError> {
        self.call(&Call::new("DEL", c, self.conf("1.0.0")))
    }

    pub fn add_pod(&self, c: &Container, pod: &str) -> Result<Value, CniError> {
        self.call(&Call::new("ADD", c, self.conf("1.0.0")).pod("default", pod))
    }

    pub fn del_pod(&self, c: &Container, pod: &str) -> Result<Value, CniError> {
        self.call(&Call::new("DEL", c, self.conf("1.0.0")).pod("default", pod))
    }

    /// All interfaces of pods, and those that await removal.
    pub fn pod_links(&self) -> Vec<String> {
        let links = link::Handle::open_in(&self.ns)
            .and_then(|mut h| h.links())
            .expect("links");
        let names = links.into_iter().map(|l| l.name.to_string());
        names.filter(|n| n.starts_with("cali")).collect()
    }

    /// Routes to pods of this node.
    pub fn pod_routes(&self) -> Vec<String> {
        let text = run(&self.ns, "ip route") + &run(&self.ns, "ip -6 route");
        let pods = text
            .lines()
            .filter(|l| l.contains("dev cali") && !l.starts_with("fe80:"));
        pods.map(str::to_owned).collect()
    }

    pub fn rules(&self) -> String {
        output(&self.ns, "nft", &["-s", "list", "table", "inet", "manx"]).1
    }

    /// Names of pods' interfaces in the rules.
    pub fn pods_in_rules(&self) -> Vec<String> {
        let rules = self.rules();
        let quoted = rules.split('"').filter(|w| w.starts_with("cali"));
        let pods = quoted.filter(|w| w.len() == 15 && !w.contains('*'));
        pods.map(str::to_owned).collect()
    }

    /// Waits until the kernel holds nothing of any pod.
    #[track_caller]
    pub fn no_pods(&self) {
        until("no link of a pod", || self.pod_links().is_empty());
        until("no route to a pod", || self.pod_routes().is_empty());
        until("no pod in the rules", || self.pods_in_rules().is_empty());
    }

    /// One HTTP answer: its status, its text.
    pub fn http(&self, port: u16, path: &str) -> Option<(u16, String)> {
        let at = SocketAddr::new(ip("127.0.0.1"), port);
        let mut s = self
            .ns
            .run(move || TcpStream::connect(at))
            .expect("enter")
            .ok()?;
        s.set_read_timeout(Some(DEADLINE)).expect("a socket");
        write!(
            s,
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        .ok()?;
        let mut text = String::new();
        s.read_to_string(&mut text).ok()?;
        let status = text.split_whitespace().nth(1)?.parse().ok()?;
        Some((status, text.split_once("\r\n\r\n")?.1.to_owned()))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- log of {}:\n{}", self.name, self.log());
        }
    }
}

/// A container: its namespace, reachable by a path for as long as it lives.
pub struct Container {
    pub id: String,
    pub ns: NetNs,
}

impl Container {
    pub fn netns(&self) -> String {
        use std::os::fd::AsFd;
        let fd = self.ns.as_fd().as_raw_fd();
        format!("/proc/{}/fd/{fd}", std::process::id())
    }

    /// Host side of its link, where Kubernetes does not run it.
    pub fn host_interface(&self) -> String {
        format!("cali{}", &self.id[..11])
    }
}

/// A pod at work.
pub struct Attached {
    pub name: String,
    pub container: Container,
    pub addresses: Vec<IpAddr>,
    pub host_interface: String,
}

impl Attached {
    pub fn new(name: &str, container: Container, result: &Value) -> Self {
        Self {
            name: name.to_owned(),
            container,
            addresses: addresses(result),
            host_interface: text(&result["interfaces"][0]["name"]),
        }
    }

    pub fn ns(&self) -> &NetNs {
        &self.container.ns
    }

    pub fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.addresses[0], port)
    }
}

/// Addresses of a result, in order.
pub fn addresses(result: &Value) -> Vec<IpAddr> {
    let list = result["ips"].as_array().expect("ips");
    list.iter()
        .map(|i| {
            let text = i["address"].as_str().expect("an address");
            ip(text.split('/').next().expect("one part"))
        })
        .collect()
}

pub fn text(v: &Value) -> String {
    v.as_str().unwrap_or_default().to_owned()
}

/// What a plugin says when it fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CniError {
    pub code: u64,
    pub msg: String,
    pub details: String,
    pub version: String,
}

/// One call of a plugin.
#[derive(Clone)]
pub struct Call<'a> {
    pub command: &'static str,
    pub container: &'a Container,
    pub conf: Value,
    pub args: String,
    pub netns: String,
    pub ifname: &'static str,
}

impl<'a> Call<'a> {
    pub fn new(command: &'static str, container: &'a Container, conf: Value) -> Self {
        Self {
            command,
            container,
            conf,
            args: "IgnoreUnknown=1".to_owned(),
            netns: container.netns(),
            ifname: "eth0",
        }
    }

    pub fn pod(mut self, namespace: &str, pod: &str) -> Self {
        self.args = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={pod}");
        self
    }

    pub fn previous(mut self, result: &Value) -> Self {
        self.conf["prevResult"] = result.clone();
        self
    }

    /// Starts the plugin, which waits for its configuration.
    pub fn start(&self, node: &Node) -> Child {
        let kind = text(&self.conf["type"]);
        let dirs = [node.bin.as_path(), Path::new("/usr/lib/cni")];
        let found = dirs.iter().map(|d| d.join(&kind)).find(|p| p.exists());
        let program = found.unwrap_or_else(|| panic!("plugin {kind} is installed"));
        let path = std::env::join_paths(dirs).expect("paths");
        let mut command = node.ns.command(program).expect("namespace");
        command
            .env_clear()
            .env("PATH", std::env::var("PATH").unwrap_or_default())
            .env("CNI_COMMAND", self.command)
            .env("CNI_PATH", path)
            .env("CNI_ARGS", &self.args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if !matches!(self.command, "GC" | "STATUS" | "VERSION") {
            command
                .env("CNI_CONTAINERID", &self.container.id)
                .env("CNI_NETNS", &self.netns)
                .env("CNI_IFNAME", self.ifname);
        }
        command.spawn().expect("it starts")
    }
}
