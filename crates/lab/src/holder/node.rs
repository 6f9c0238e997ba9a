//! A node: a namespace in which the real agent runs.
//!
//! Promises: the agent is this very program, told where it is by the environment that a
//! container would have; when it ends it is started again, as a DaemonSet would; pods do not
//! notice.
//!
//! Never: does the agent's work for it.

use crate::holder::children::{Children, Started};
use crate::holder::fabric::Place;
use crate::protocol::NodeStatus;
use crate::state::Dir;
use net::Family;
use netlink::netns::NetNs;
use scenario::plan::{Encapsulation, NodePlan, Spec};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const HEALTH_PORT: u16 = 9099;
/// How often a starting agent is asked whether it is ready: it has no way to call back.
const ASK_EVERY: Duration = Duration::from_millis(4);
const RESTART_FIRST: Duration = Duration::from_millis(200);
const RESTART_LAST: Duration = Duration::from_secs(5);

/// A running node.
#[derive(Debug)]
pub(super) struct Node {
    /// Its name.
    pub name: String,
    /// Its network.
    pub ns: NetNs,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The same with prefix lengths.
    pub subnets: Vec<String>,
    /// What the agent and programs run by `exec` see.
    pub env: BTreeMap<String, String>,
    /// The control socket of its BGP speaker, if it has one.
    pub bgp: PathBuf,
    log: PathBuf,
    life: Mutex<Life>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Life {
    was_ready: bool,
    restarts: u32,
    ended: Option<String>,
}

impl Node {
    /// Makes the node's directory and what the agent is told.
    ///
    /// # Errors
    /// If a directory cannot be made.
    pub(super) fn new(spec: &Spec, dir: &Dir, plan: &NodePlan, place: Place) -> io::Result<Self> {
        let home = dir.node(&plan.name);
        for sub in ["run", "lib", "cni/net.d", "cni/cache"] {
            fs::create_dir_all(home.join(sub))?;
        }
        Ok(Self {
            name: plan.name.clone(),
            ns: place.ns,
            addresses: place.addresses,
            subnets: plan.addresses.iter().map(ToString::to_string).collect(),
            env: environment(spec, dir, plan),
            bgp: dir.bgp(&plan.name).join("bgp.ctl"),
            log: home.join("node.log"),
            life: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the agent running, on a thread of its own.
    ///
    /// # Errors
    /// If there can be no thread.
    pub(super) fn supervise(
        self: &Arc<Self>,
        children: Arc<Children>,
        exe: PathBuf,
    ) -> io::Result<()> {
        let node = Arc::clone(self);
        std::thread::Builder::new()
            .name(self.name.clone())
            .spawn(move || {
                let mut pause = RESTART_FIRST;
                loop {
                    let began = Instant::now();
                    let end = node.run_once(&children, &exe);
                    if began.elapsed() > RESTART_LAST {
                        pause = RESTART_FIRST;
                    }
                    {
                        let mut life = node.life();
                        life.ended = Some(end);
                        node.changed.notify_all();
                    }
                    // Nothing to wait for: this is the pause before the next try.
                    std::thread::park_timeout(pause);
                    pause = (pause * 2).min(RESTART_LAST);
                    let mut life = node.life();
                    life.restarts += 1;
                    life.ended = None;
                }
            })?;
        Ok(())
    }

    fn run_once(&self, children: &Children, exe: &Path) -> String {
        let agent = match self.start(children, exe) {
            Ok(agent) => agent,
            Err(e) => return format!("cannot start {}: {e}", exe.display()),
        };
        let mut ready = false;
        loop {
            let wait = if ready {
                Duration::from_secs(3600)
            } else {
                ASK_EVERY
            };
            match agent.ended.recv_timeout(wait) {
                Ok(status) => return describe(status),
                Err(RecvTimeoutError::Disconnected) => return "was lost".to_owned(),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if !ready && self.readiness().is_ok() {
                ready = true;
                self.life().was_ready = true;
                self.changed.notify_all();
            }
        }
    }

    fn start(&self, children: &Children, exe: &Path) -> io::Result<Started> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)?;
        let mut command = self.ns.command(exe).map_err(io::Error::other)?;
        command
            .args(["node", "run"])
            .env_clear()
            .envs(std::env::vars_os().filter(|(k, _)| passes(&k.to_string_lossy())))
            .envs(&self.env)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        children.spawn(&mut command)
    }

    /// Asks the agent whether it is ready.
    ///
    /// # Errors
    /// Why it is not.
    pub(super) fn readiness(&self) -> Result<(), String> {
        self.ns.run(ask_health).map_err(|e| e.to_string())?
    }

    /// Waits until the agent was ready once.
    ///
    /// # Errors
    /// What became of it instead, with the end of its log.
    pub(super) fn wait_ready(&self, deadline: Instant) -> Result<(), String> {
        let mut life = self.life();
        loop {
            if life.was_ready {
                return Ok(());
            }
            // One that ended at once is not going to do better.
            if let Some(end) = &life.ended {
                return Err(format!(
                    "the agent of {} {end}{}",
                    self.name,
                    self.last_words()
                ));
            }
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                drop(life);
                let why = self.readiness().err().unwrap_or_default();
                return Err(format!(
                    "the agent of {} is not ready: {why}{}",
                    self.name,
                    self.last_words()
                ));
            };
            life = self
                .changed
                .wait_timeout(life, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn last_words(&self) -> String {
        last_words(&self.log)
    }

    /// As it is now.
    pub(super) fn status(&self) -> NodeStatus {
        let ready = self.readiness();
        let life = self.life();
        let reason = match (&life.ended, &ready) {
            (Some(end), _) => format!("the agent {end}"),
            (None, Err(why)) => why.clone(),
            (None, Ok(())) => String::new(),
        };
        NodeStatus {
            name: self.name.clone(),
            addresses: self.subnets.clone(),
            ready: ready.is_ok(),
            reason,
            restarts: life.restarts,
            log: self.log.display().to_string(),
        }
    }
}

/// The last lines of a log, to go behind an error.
pub(super) fn last_words(log: &Path) -> String {
    let log = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    let last = &lines[lines.len().saturating_sub(5)..];
    if last.is_empty() {
        String::new()
    } else {
        format!("\n  {}", last.join("\n  "))
    }
}

/// What of the caller's environment an agent sees: nothing that would change where it
/// stores or what it is called.
pub(super) fn passes(name: &str) -> bool {
    matches!(
        name,
        "PATH" | "HOME" | "LANG" | "TERM" | "RUST_LOG" | "RUST_BACKTRACE"
    ) || name.starts_with("FELIX_")
        || name.starts_with("MANX_AGENT_")
}

/// Who tells nodes the ways to each other's pods: BGP where nothing travels in tunnels, as with
/// Calico's own set-ups.
const fn backend(spec: &Spec) -> &'static str {
    match spec.encapsulation {
        Encapsulation::None | Encapsulation::Ipip | Encapsulation::IpipCrossSubnet => "bird",
        Encapsulation::Vxlan | Encapsulation::VxlanCrossSubnet => "vxlan",
    }
}

fn environment(spec: &Spec, dir: &Dir, plan: &NodePlan) -> BTreeMap<String, String> {
    let home = dir.node(&plan.name);
    let text = |s: &str| s.to_owned();
    let mut env = BTreeMap::from([
        (text("DATASTORE_TYPE"), text("embedded")),
        (text("MANX_STORE"), dir.store().display().to_string()),
        (text("NODENAME"), plan.name.clone()),
        (
            text("MANX_SOCKET"),
            dir.agent_socket(&plan.name).display().to_string(),
        ),
        (text("MANX_LIB_DIR"), home.join("lib").display().to_string()),
        (
            text("CALICO_NODENAME_FILE"),
            home.join("lib/nodename").display().to_string(),
        ),
        (text("CALICO_NETWORKING_BACKEND"), text(backend(spec))),
        (
            text("MANX_BGP_DIR"),
            dir.bgp(&plan.name).display().to_string(),
        ),
        (
            text("MANX_BGP_SOCKET"),
            dir.bgp(&plan.name).join("bgp.ctl").display().to_string(),
        ),
        (text("CLUSTER_TYPE"), text("k8s,lab")),
        // The lab makes the pools itself, before the first node starts.
        (text("NO_DEFAULT_POOLS"), text("true")),
        (text("FELIX_HEALTHENABLED"), text("true")),
        (text("FELIX_HEALTHPORT"), HEALTH_PORT.to_string()),
        (text("FELIX_IPV6SUPPORT"), spec.families.v6.to_string()),
        (text("IP"), text("none")),
        (text("IP6"), text("none")),
    ]);
    for i in &plan.addresses {
        let name = match Family::of(i.addr) {
            Family::V4 => "IP",
            Family::V6 => "IP6",
        };
        env.insert(text(name), i.to_string());
    }
    env
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit status {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

/// `GET /readiness` of the agent in the calling thread's namespace.
fn ask_health() -> Result<(), String> {
    let agent = SocketAddr::from((Ipv4Addr::LOCALHOST, HEALTH_PORT));
    let patience = Duration::from_secs(1);
    let fail = |e: io::Error| format!("no answer from its health port: {e}");
    let mut stream = TcpStream::connect_timeout(&agent, patience).map_err(fail)?;
    stream.set_read_timeout(Some(patience)).map_err(fail)?;
    stream
        .write_all(b"GET /readiness HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .map_err(fail)?;
    let mut answer = String::new();
    // A server may close with data unread; what came counts.
    let _ = stream.take(64 << 10).read_to_string(&mut answer);
    let status = answer.split_whitespace().nth(1).unwrap_or_default();
    if status.starts_with('2') {
        return Ok(());
    }
    let body = answer
        .split_once("\r\n\r\n")
        .map_or("", |(_, body)| body)
        .trim();
    Err(if body.is_empty() {
        format!("readiness answers {status:?}")
    } else {
        body.to_owned()
    })
}

/// Opens a node's CNI log for appending.
///
/// # Errors
/// If it cannot be opened.
pub(super) fn cni_log(dir: &Dir, node: &str) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(dir.node(node).join("cni.log"))
}
