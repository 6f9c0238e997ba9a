//! Nodes on a segment, each the real agent in a namespace of its own, over one store.
//!
//! Promises: an agent is started as a DaemonSet would start it and has ended when its handle is
//! dropped; a cluster that is made can attach pods.
//!
//! Never: does the agent's work for it.

use crate::objects;
use crate::plugin::{Call, Reply, Spawner};
use crate::store::Store;
use anyhow::{Context, Result, bail, ensure};
use api::ResourceKind;
use link::{Address, Changes, Sysctl, Veth, VethEnd};
use net::{Family, IfIndex, IfName};
use netlink::netns::NetNs;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

const HEALTH_PORT: u16 = 9099;
const METRICS_PORT: u16 = 9091;
/// A starting agent is asked this often: it has no way to call back.
const ASK_EVERY: Duration = Duration::from_millis(5);
const START_TIME: Duration = Duration::from_secs(60);
const STOP_TIME: Duration = Duration::from_secs(5);

/// A name of an interface that is known to be short.
pub(crate) fn ifname(text: &str) -> IfName {
    text.parse().expect("names here are short")
}

/// Brings a link up and gives its number.
///
/// # Errors
/// As the kernel says.
pub(crate) fn up(links: &mut link::Handle, name: &str) -> Result<IfIndex> {
    let index = links.index_of(ifname(name))?;
    links.set_up(index, true)?;
    Ok(index)
}

/// What a namespace gets whatever the machine's own settings are, which a new one copies.
///
/// # Errors
/// As the kernel says.
pub(crate) fn plain_settings(ns: &NetNs) -> Result<()> {
    let mut all = Vec::new();
    for dev in ["all", "default"] {
        all.push(Sysctl::conf(Family::V4, dev, "rp_filter", 0));
        all.push(Sysctl::conf(Family::V6, dev, "disable_ipv6", 0));
        all.push(Sysctl::conf(Family::V6, dev, "accept_dad", 0));
    }
    ns.run(|| link::sysctl::write(&all))??;
    Ok(())
}

/// A namespace as a runtime makes it for a pod: `lo` is up, and it has a path.
#[derive(Debug)]
pub(crate) struct Sandbox {
    /// The namespace.
    pub ns: NetNs,
    /// Its path.
    pub path: PathBuf,
}

impl Sandbox {
    /// Makes one.
    ///
    /// # Errors
    /// As the kernel says.
    pub(crate) fn new(name: &str) -> Result<Self> {
        let ns = NetNs::new()?;
        plain_settings(&ns)?;
        up(&mut link::Handle::open_in(&ns)?, "lo")?;
        let path = PathBuf::from(format!("/run/netns/{name}"));
        ns.bind(&path)?;
        Ok(Self { ns, path })
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // All of /run goes with the run.
        let _ = netlink::netns::unbind(&self.path);
    }
}

/// The segment between nodes.
#[derive(Debug)]
pub(crate) struct Segment {
    links: link::Handle,
    bridge: IfIndex,
    nodes: u8,
}

impl Segment {
    /// An empty one.
    ///
    /// # Errors
    /// As the kernel says.
    pub(crate) fn new() -> Result<Self> {
        let ns = NetNs::new()?;
        plain_settings(&ns)?;
        let mut links = link::Handle::open_in(&ns)?;
        links.create_bridge(&VethEnd::named(ifname("br0")))?;
        let bridge = up(&mut links, "br0")?;
        Ok(Self {
            links,
            bridge,
            nodes: 0,
        })
    }

    /// A namespace with an `eth0` on the segment, and its address.
    ///
    /// # Errors
    /// As the kernel says.
    pub(crate) fn attach(&mut self) -> Result<(NetNs, Ipv4Addr)> {
        self.nodes += 1;
        let addr = Ipv4Addr::new(172, 30, 0, 10 + self.nodes);
        let ns = NetNs::new()?;
        plain_settings(&ns)?;
        let port = ifname(&format!("node{}", self.nodes));
        let there = VethEnd::named(ifname("eth0"));
        let veth = Veth {
            here: VethEnd::named(port),
            there,
            queues: 1,
            up: true,
        };
        self.links.create_veth(&veth, Some(&ns))?;
        let port = self.links.index_of(port)?;
        self.links.set_master(port, Some(self.bridge))?;
        let mut inside = link::Handle::open_in(&ns)?;
        up(&mut inside, "lo")?;
        let eth0 = up(&mut inside, "eth0")?;
        let addresses = [Address::subnet(IpAddr::V4(addr), 24)];
        inside.change(
            eth0,
            &Changes {
                addresses: &addresses,
                ..Changes::default()
            },
        )?;
        Ok((ns, addr))
    }
}

/// A node with its agent.
#[derive(Debug)]
pub(crate) struct Node {
    /// Its name.
    pub name: String,
    /// Its network.
    pub ns: NetNs,
    home: PathBuf,
    manx: PathBuf,
    agent: Option<Child>,
    env: Vec<(String, String)>,
}

impl Node {
    /// Starts the agent and waits until it is ready; how long that took.
    ///
    /// # Errors
    /// What became of it instead, with the end of its log.
    pub(crate) fn start(&mut self) -> Result<Duration> {
        let log = File::options().create(true).append(true).open(self.log())?;
        let mut command = self.ns.command(&self.manx)?;
        command
            .args(["node", "run"])
            .env_clear()
            .envs(self.env.iter().map(|(k, v)| (k, v)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        for name in [
            "RUST_LOG",
            "RUST_BACKTRACE",
            "PATH",
            "MALLOC_ARENA_MAX",
            "GLIBC_TUNABLES",
        ] {
            if let Some(v) = std::env::var_os(name) {
                command.env(name, v);
            }
        }
        let began = Instant::now();
        self.agent = Some(
            command
                .spawn()
                .with_context(|| format!("start {}", self.manx.display()))?,
        );
        loop {
            let why = match self.ready() {
                Ok(()) => return Ok(began.elapsed()),
                Err(why) => why,
            };
            if let Some(end) = self
                .agent
                .as_mut()
                .map(Child::try_wait)
                .transpose()?
                .flatten()
            {
                bail!(
                    "the agent of {} ended with {end}{}",
                    self.name,
                    self.last_words()
                );
            }
            ensure!(
                began.elapsed() < START_TIME,
                "the agent of {} is not ready: {why:#}{}",
                self.name,
                self.last_words()
            );
            crate::pause(ASK_EVERY);
        }
    }

    fn ready(&self) -> Result<()> {
        let answer = self.http(HEALTH_PORT, "/readiness")?;
        let status = answer.split_whitespace().nth(1).unwrap_or_default();
        ensure!(status.starts_with('2'), "{answer}");
        Ok(())
    }

    fn http(&self, port: u16, path: &str) -> Result<String> {
        let ask = || -> Result<String> {
            let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let mut s = TcpStream::connect_timeout(&to, Duration::from_secs(1))?;
            s.set_read_timeout(Some(Duration::from_secs(2)))?;
            write!(
                s,
                "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            )?;
            let mut answer = String::new();
            // A server may close with data unread; what came counts.
            let _ = s.take(1 << 20).read_to_string(&mut answer);
            Ok(answer)
        };
        self.ns.run(ask)?
    }

    /// Sum and count of a histogram of the agent; zero where it has none.
    pub(crate) fn histogram(&self, name: &str) -> (f64, f64) {
        let text = self.http(METRICS_PORT, "/metrics").unwrap_or_default();
        let of = |part: &str| {
            let prefix = format!("{name}_{part}");
            let line = text.lines().find(|l| l.starts_with(&prefix));
            line.and_then(|l| l.split_whitespace().nth(1)?.parse().ok())
                .unwrap_or(0.0)
        };
        (of("sum"), of("count"))
    }

    fn log(&self) -> PathBuf {
        self.home.join("node.log")
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = &lines[lines.len().saturating_sub(5)..];
        if last.is_empty() {
            String::new()
        } else {
            format!("\n  {}", last.join("\n  "))
        }
    }

    /// A number of `/proc/<agent>/status`, in kB.
    ///
    /// # Errors
    /// When there is no agent or no such line.
    pub(crate) fn status(&self, field: &str) -> Result<u64> {
        let agent = self.agent.as_ref().context("the agent runs")?;
        let text = fs::read_to_string(format!("/proc/{}/status", agent.id()))?;
        let line = text.lines().find(|l| l.starts_with(&format!("{field}:")));
        let value = line.and_then(|l| l.split_whitespace().nth(1)?.parse().ok());
        value.with_context(|| format!("find {field} of the agent"))
    }

    /// Stops the agent and waits for its end.
    pub(crate) fn stop(&mut self) {
        let Some(mut agent) = self.agent.take() else {
            return;
        };
        if let Ok(pid) = i32::try_from(agent.id()) {
            // SAFETY: a child that was not waited for keeps its number.
            unsafe { libc::kill(pid, libc::SIGTERM) };
        }
        let began = Instant::now();
        while began.elapsed() < STOP_TIME {
            if !matches!(agent.try_wait(), Ok(None)) {
                return;
            }
            crate::pause(ASK_EVERY);
        }
        let _ = agent.kill();
        let _ = agent.wait();
    }

    /// How many interfaces the node has.
    ///
    /// # Errors
    /// As the kernel says.
    pub(crate) fn links(&self) -> Result<usize> {
        Ok(link::Handle::open_in(&self.ns)?.links()?.len())
    }

    /// Waits until no more than `links` interfaces are left, so that one measurement does not
    /// pay for the one before; how long that took.
    ///
    /// # Errors
    /// When that does not come about.
    pub(crate) fn settle(&self, links: usize) -> Result<Duration> {
        let began = Instant::now();
        let mut handle = link::Handle::open_in(&self.ns)?;
        while handle.links()?.len() > links {
            ensure!(
                began.elapsed() < Duration::from_secs(20),
                "interfaces of {} stay",
                self.name
            );
            crate::pause(Duration::from_millis(1));
        }
        Ok(began.elapsed())
    }

    fn socket(&self) -> PathBuf {
        self.home.join("manx.sock")
    }

    /// The plugin's configuration, as a conflist has it.
    pub(crate) fn conf(&self, kind: &str) -> Vec<u8> {
        let conf = json!({
            "cniVersion": "1.0.0", "name": "k8s-pod-network", "type": kind,
            "datastore_type": "embedded", "nodename": self.name,
            "agent_socket": self.socket(), "log_level": "info",
            "ipam": {"type": "calico-ipam", "assign_ipv4": "true", "assign_ipv6": "false"},
            "policy": {"type": "k8s"}, "kubernetes": {},
        });
        conf.to_string().into_bytes()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A pod that is attached.
#[derive(Debug)]
pub(crate) struct Pod {
    /// Its namespace.
    pub sandbox: Sandbox,
    /// Its address.
    pub addr: Ipv4Addr,
}

/// Nodes over one store.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// The store, to write to.
    pub store: Store,
    /// The nodes.
    pub nodes: Vec<Node>,
    /// Where the store is.
    pub file: PathBuf,
    bin: PathBuf,
    serial: u64,
    /// With it the nodes' own interfaces would go.
    _segment: Segment,
}

impl Cluster {
    /// A store with a pool and the namespace `default`, and nodes whose agents do not run yet.
    ///
    /// # Errors
    /// When the kernel or the store refuses a step.
    pub(crate) fn prepare(manx: &Path, dir: &Path, nodes: usize) -> Result<Self> {
        let file = dir.join("store.db");
        let store = Store::open(&file)?;
        store.put(ResourceKind::IpPool, &objects::pool())?;
        store.put(ResourceKind::Namespace, &objects::namespace("default"))?;
        let bin = dir.join("bin");
        fs::create_dir_all(&bin)?;
        for name in ["calico", "calico-ipam"] {
            std::os::unix::fs::symlink(manx, bin.join(name))?;
        }
        let mut segment = Segment::new()?;
        let mut made = Vec::new();
        for n in 1..=nodes {
            let (ns, addr) = segment.attach()?;
            made.push(node(manx, dir, &file, &format!("node-{n}"), ns, addr)?);
        }
        Ok(Self {
            store,
            nodes: made,
            file,
            bin,
            serial: 0,
            _segment: segment,
        })
    }

    /// The same with its agents ready.
    ///
    /// # Errors
    /// When an agent does not get ready.
    pub(crate) fn start(manx: &Path, dir: &Path, nodes: usize) -> Result<Self> {
        let mut cluster = Self::prepare(manx, dir, nodes)?;
        for n in &mut cluster.nodes {
            n.start()?;
        }
        Ok(cluster)
    }

    /// A call of the plugin for a pod in the namespace `default`.
    pub(crate) fn call(&mut self, node: usize, kind: &str, pod: &str, sandbox: &Sandbox) -> Call {
        self.serial += 1;
        let id = format!("{:064x}", self.serial);
        Call {
            program: self.bin.join(kind),
            args: format!(
                "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={pod};\
                 K8S_POD_INFRA_CONTAINER_ID={id};K8S_POD_UID={pod}"
            ),
            id,
            netns: sandbox.path.clone(),
            path: self.bin.clone(),
            conf: self.nodes[node].conf(kind),
        }
    }

    /// Writes a pod and attaches it.
    ///
    /// # Errors
    /// When the plugin fails, with its words.
    pub(crate) fn attach(
        &mut self,
        node: usize,
        name: &str,
        labels: &[(&str, &str)],
    ) -> Result<Pod> {
        let host = self.nodes[node].name.clone();
        self.store.put(
            ResourceKind::Pod,
            &objects::pod("default", name, &host, labels),
        )?;
        let sandbox = Sandbox::new(name)?;
        let call = self.call(node, "calico", name, &sandbox);
        let reply = Spawner::new(&self.nodes[node].ns).one(&call, "ADD")?;
        let addr = address(&reply).with_context(|| format!("attach {name}"))?;
        Ok(Pod { sandbox, addr })
    }
}

fn address(reply: &Reply) -> Result<Ipv4Addr> {
    let result: Value = serde_json::from_str(&reply.text)?;
    let text = result["ips"][0]["address"]
        .as_str()
        .context("a result has an address")?;
    Ok(text.split('/').next().unwrap_or_default().parse()?)
}

fn node(
    manx: &Path,
    dir: &Path,
    store: &Path,
    name: &str,
    ns: NetNs,
    addr: Ipv4Addr,
) -> Result<Node> {
    let home = dir.join(name);
    fs::create_dir_all(&home)?;
    let text = |p: PathBuf| p.display().to_string();
    let env = [
        ("DATASTORE_TYPE", "embedded".to_owned()),
        ("MANX_STORE", text(store.to_owned())),
        ("NODENAME", name.to_owned()),
        ("MANX_SOCKET", text(home.join("manx.sock"))),
        ("MANX_LIB_DIR", text(home.join("lib"))),
        ("CALICO_NODENAME_FILE", text(home.join("lib/nodename"))),
        ("CALICO_NETWORKING_BACKEND", "vxlan".to_owned()),
        ("CLUSTER_TYPE", "k8s,bench".to_owned()),
        ("NO_DEFAULT_POOLS", "true".to_owned()),
        ("FELIX_HEALTHENABLED", "true".to_owned()),
        ("FELIX_HEALTHPORT", HEALTH_PORT.to_string()),
        ("FELIX_PROMETHEUSMETRICSENABLED", "true".to_owned()),
        ("FELIX_PROMETHEUSMETRICSPORT", METRICS_PORT.to_string()),
        ("FELIX_IPV6SUPPORT", "false".to_owned()),
        ("IP", format!("{addr}/24")),
        ("IP6", "none".to_owned()),
    ];
    let env = env.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    Ok(Node {
        name: name.to_owned(),
        ns,
        home,
        manx: manx.to_owned(),
        agent: None,
        env,
    })
}
