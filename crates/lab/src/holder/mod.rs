//! The process that a lab lives in.
//!
//! Promises: it is process 1 of its pid namespace: when it ends, the agents, the pods'
//! namespaces and the fabric end; it says once whether the lab is ready, and then serves the
//! control socket until it is told to end, or until its caller is gone, if it was asked to
//! care.
//!
//! Never: keeps anything outside the lab's directory and its own namespaces.

pub(crate) mod bgp;
mod children;
mod cni;
mod control;
mod exec;
mod fabric;
mod kubelet;
mod node;
mod probe;
pub(crate) mod router;
mod sctp;
mod servers;
mod services;
mod settle;
mod sniff;
mod sockets;
pub(crate) mod spawn;

use crate::args::HolderArgs;
use crate::protocol::{SessionStatus, Status};
use crate::state::Dir;
use datastore::Store;
use fabric::{Fabric, Place};
use kubelet::Kubelet;
use net::Family;
use netlink::netns::NetNs;
use node::Node;
use scenario::End;
use scenario::Flow;
use scenario::plan::{FamilySet, Plan, Spec};
use servers::Servers;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longer than an agent needs on a busy machine.
const NODE_PATIENCE: Duration = Duration::from_secs(30);
/// A call that found nobody is made again within five seconds; a few of them, and time to be busy.
const SESSION_PATIENCE: Duration = Duration::from_secs(20);

/// Why a lab could not be built.
#[derive(Debug, thiserror::Error)]
enum BuildError {
    #[error("read the lab's plan: {0}")]
    Spec(#[from] serde_json::Error),
    #[error(transparent)]
    Plan(#[from] scenario::plan::PlanError),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("build the fabric: {0}")]
    Network(#[from] netlink::NetlinkError),
    #[error("open the store: {0}")]
    Store(#[from] datastore::StoreError),
    #[error("{0}")]
    Node(String),
}

/// A lab that runs.
struct Lab {
    spec: Spec,
    dir: Dir,
    fabric: Arc<NetNs>,
    hosts: Vec<Place>,
    router: router::Router,
    nodes: Vec<Arc<Node>>,
    kubelet: Arc<Kubelet>,
    servers: Arc<Servers>,
    services: Arc<services::Services>,
    children: Arc<children::Children>,
    runtime: tokio::runtime::Runtime,
    warnings: Vec<String>,
}

/// Becomes the holder. Returns when the lab cannot be built; ends the process otherwise.
pub(crate) fn run(args: HolderArgs) -> ExitCode {
    // SAFETY: the caller made these descriptors for us and told us their numbers.
    let (mut ready, lock) = unsafe {
        (
            File::from_raw_fd(args.ready_fd),
            OwnedFd::from_raw_fd(args.lock_fd),
        )
    };
    // SAFETY: as above.
    let lifeline = args.lifeline_fd.map(|fd| unsafe { File::from_raw_fd(fd) });
    for fd in [Some(args.ready_fd), Some(args.lock_fd), args.lifeline_fd]
        .into_iter()
        .flatten()
    {
        // The agents must not hold the lab's lock.
        // SAFETY: plain system call on a descriptor that is ours.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    die_politely();
    let dir = Dir::at(args.state);
    let built = build(&dir, &args.spec, lifeline, &mut ready);
    let (lab, listener) = match built {
        Ok(built) => built,
        Err(e) => {
            let _ = writeln!(ready, "error {}", e.to_string().replace('\n', "\u{1}"));
            return ExitCode::FAILURE;
        }
    };
    let _ = writeln!(ready, "ready");
    drop(ready);
    control::serve(&Arc::new(lab), &listener);
    drop(lock);
    ExitCode::SUCCESS
}

/// Process 1 of a namespace ignores signals that it has no handler for.
fn die_politely() {
    extern "C" fn end(_: libc::c_int) {
        // SAFETY: _exit is async-signal-safe; the kernel ends all else.
        unsafe { libc::_exit(0) }
    }
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        // SAFETY: the handler does nothing but end the process.
        unsafe {
            libc::signal(
                signal,
                end as extern "C" fn(libc::c_int) as libc::sighandler_t,
            )
        };
    }
}

/// Ends the lab when the caller is gone, however that happened, and takes its directory
/// along: nobody else would.
fn hold_on(mut lifeline: File, dir: Dir) -> io::Result<()> {
    std::thread::Builder::new()
        .name("lifeline".to_owned())
        .spawn(move || {
            let _ = lifeline.read(&mut [0]);
            // SAFETY: as process 1 of its own pid namespace, "everybody" is the lab; _exit ends
            // the rest.
            unsafe {
                if libc::getpid() == 1 {
                    libc::kill(-1, libc::SIGKILL);
                }
                let _ = std::fs::remove_dir_all(dir.path());
                libc::_exit(0)
            }
        })?;
    Ok(())
}

fn build(
    dir: &Dir,
    spec: &str,
    lifeline: Option<File>,
    ready: &mut File,
) -> Result<(Lab, UnixListener), BuildError> {
    let spec: Spec = serde_json::from_str(spec)?;
    let exe = std::env::current_exe()?;
    // Before any thread exists.
    spawn::settle(dir)?;
    if let Some(lifeline) = lifeline {
        hold_on(lifeline, dir.clone())?;
    }
    let plan = spec.plan()?;
    let children = children::Children::new()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let store: Arc<dyn Store> = Arc::new(datastore::embedded::Store::open(dir.store())?);
    let fabric = Fabric::build(&spec, &plan)?;
    let fabric_ns = Arc::new(fabric.ns);
    let cni = Arc::new(cni::Runtime::new(dir, &exe)?);
    // Before the nodes: who calls and finds nobody has to call again.
    let speaker = start_speaker(&spec, &plan, &fabric_ns, dir, &children, &exe)?;
    let nodes = start_nodes(&spec, &plan, dir, fabric.nodes, &children, &cni, &exe)?;
    let servers = Arc::new(Servers::new(runtime.handle().clone()));
    let kubelet = Kubelet::start(
        nodes.clone(),
        Arc::clone(&children),
        Arc::clone(&cni),
        Arc::clone(&servers),
        Arc::clone(&store),
        runtime.handle().clone(),
    )?;
    let services = services::Services::start(
        &nodes,
        Arc::clone(&store),
        spec.families,
        runtime.handle().clone(),
        Arc::clone(&kubelet),
        Arc::clone(&servers),
    );
    let router = router::Router::start(
        &fabric_ns,
        &plan,
        speaker,
        if router::meshed(&spec) {
            nodes.clone()
        } else {
            Vec::new()
        },
        Arc::clone(&store),
        runtime.handle(),
    )?;
    wait_for(&nodes, ready)?;
    wait_for_sessions(&router, ready)?;
    let listener = UnixListener::bind(dir.control())?;
    let warnings = cni
        .missing
        .iter()
        .map(|p| format!("the reference plugin {p} is not installed: pods run without it"))
        .collect();
    let lab = Lab {
        spec,
        dir: dir.clone(),
        fabric: fabric_ns,
        hosts: fabric.hosts,
        router,
        nodes,
        kubelet,
        servers,
        services,
        children,
        runtime,
        warnings,
    };
    Ok((lab, listener))
}

fn start_nodes(
    spec: &Spec,
    plan: &Plan,
    dir: &Dir,
    places: Vec<Place>,
    children: &Arc<children::Children>,
    cni: &cni::Runtime,
    exe: &Path,
) -> Result<Vec<Arc<Node>>, BuildError> {
    let mut nodes = Vec::new();
    for (plan, place) in plan.nodes.iter().zip(places) {
        let node = Arc::new(Node::new(spec, dir, plan, place)?);
        cni.configure(&node, spec.families)?;
        nodes.push(node);
    }
    for node in &nodes {
        node.supervise(Arc::clone(children), exe.to_owned())?;
    }
    Ok(nodes)
}

fn wait_for(nodes: &[Arc<Node>], ready: &mut File) -> Result<(), BuildError> {
    let deadline = Instant::now() + NODE_PATIENCE;
    for node in nodes {
        node.wait_ready(deadline).map_err(BuildError::Node)?;
        let _ = writeln!(ready, "progress {} is ready", node.name);
    }
    Ok(())
}

/// Starts the router's speaker where the fabric is to learn the ways to pods, and waits until it
/// answers.
fn start_speaker(
    spec: &Spec,
    plan: &Plan,
    fabric: &NetNs,
    dir: &Dir,
    children: &Arc<children::Children>,
    exe: &Path,
) -> Result<Option<Arc<bgp::Speaker>>, BuildError> {
    if !router::learns(spec) {
        return Ok(None);
    }
    bgp::address(&mut link::Handle::open_in(fabric)?, spec.families)?;
    let ns = fabric.try_clone()?;
    let children = Arc::clone(children);
    let speaker = bgp::Speaker::start(ns, plan, spec.families, dir, children, exe.to_owned())?;
    speaker.wait_begun(Instant::now() + NODE_PATIENCE)?;
    Ok(Some(speaker))
}

/// Waits until the router's sessions with all nodes are up.
fn wait_for_sessions(router: &router::Router, ready: &mut File) -> Result<(), BuildError> {
    let Some(speaker) = &router.speaker else {
        return Ok(());
    };
    let deadline = Instant::now() + SESSION_PATIENCE;
    let up = speaker
        .wait_up(deadline)
        .map_err(|why| BuildError::Node(format!("{why}{}", speaker.last_words())))?;
    let _ = writeln!(ready, "progress BGP: {up} sessions of the router are up");
    Ok(())
}

/// One end, found.
struct Found {
    ns: Option<Arc<NetNs>>,
    addresses: Vec<IpAddr>,
    node_addresses: Vec<IpAddr>,
    node: Option<Arc<Node>>,
    label: String,
}

impl Lab {
    fn find(&self, end: &End) -> Result<Found, String> {
        let shared = |ns: &NetNs| ns.try_clone().map(Arc::new).map_err(|e| e.to_string());
        let node = |name: &str| self.nodes.iter().find(|n| n.name == name).cloned();
        let label = end.to_string();
        match end {
            End::Node(name) => {
                let node = node(name).ok_or_else(|| format!("there is no node {name:?}"))?;
                Ok(Found {
                    ns: Some(shared(&node.ns)?),
                    addresses: node.addresses.clone(),
                    node_addresses: node.addresses.clone(),
                    node: Some(node),
                    label,
                })
            }
            End::Host(name) => {
                let host = self.hosts.iter().find(|h| h.name == *name);
                let host = host.ok_or_else(|| format!("there is no host {name:?}"))?;
                let (ns, addresses) = (Some(shared(&host.ns)?), host.addresses.clone());
                Ok(Found {
                    ns,
                    addresses,
                    node_addresses: Vec::new(),
                    node: None,
                    label,
                })
            }
            End::Pod { namespace, name } => {
                let sandbox = self.kubelet.sandbox(namespace, name);
                let sandbox = sandbox.ok_or_else(|| format!("pod {label} is not running"))?;
                let node = node(&sandbox.node);
                Ok(Found {
                    ns: Some(shared(&sandbox.ns)?),
                    addresses: sandbox.ips.clone(),
                    node_addresses: node.map(|n| n.addresses.clone()).unwrap_or_default(),
                    node: None,
                    label,
                })
            }
            End::Ip(addr) => Ok(Found {
                ns: None,
                addresses: vec![*addr],
                node_addresses: Vec::new(),
                node: None,
                label,
            }),
            End::Fabric => Ok(Found {
                ns: Some(Arc::clone(&self.fabric)),
                addresses: Vec::new(),
                node_addresses: Vec::new(),
                node: None,
                label,
            }),
            End::Service { namespace, name } => {
                let addresses = self.services.addresses(namespace, name);
                let addresses = addresses.ok_or_else(|| format!("there is no {label}"))?;
                if addresses.is_empty() {
                    return Err(format!("{label} has no cluster address"));
                }
                Ok(Found {
                    ns: None,
                    addresses,
                    node_addresses: Vec::new(),
                    node: None,
                    label,
                })
            }
            End::AnyPod => Err("* is more than one end".to_owned()),
        }
    }

    fn resolve(&self, flow: &Flow) -> Result<probe::Resolved, String> {
        let from = self.find(&flow.from)?;
        let to = self.find(&flow.to)?;
        let sender = from
            .ns
            .ok_or_else(|| format!("{} is nobody's: it cannot send", flow.from))?;
        let family = flow.family.map(Family::from);
        let fits = |a: &&IpAddr| {
            let f = Family::of(**a);
            family.is_none_or(|want| want == f)
                && from.addresses.iter().any(|own| Family::of(*own) == f)
        };
        let address = to.addresses.iter().find(fits).copied().ok_or_else(|| {
            let family = family.map_or("common".to_owned(), |f| f.to_string());
            format!("{} and {} have no {family} address", flow.from, flow.to)
        })?;
        // Behind a node port it is a pod that answers.
        let behind = matches!(flow.to, End::Node(_))
            && self
                .services
                .is_node_port(flow.port.protocol, flow.port.number);
        Ok(probe::Resolved {
            from: sender,
            from_addresses: from.addresses,
            from_node: from.node_addresses,
            to: to.ns.filter(|_| !behind),
            address,
            label: to.label,
            port: flow.port,
        })
    }

    fn families(&self) -> FamilySet {
        self.spec.families
    }

    /// BGP sessions: as the router sees them if it speaks, else as the nodes do; and who does not
    /// answer.
    fn sessions(&self) -> (Vec<SessionStatus>, Vec<String>) {
        let mut asked = Vec::new();
        match &self.router.speaker {
            Some(speaker) => asked.push(speaker.sessions()),
            None if router::meshed(&self.spec) => {
                let name = |a| {
                    let has = |n: &&Arc<Node>| n.addresses.contains(&a);
                    self.nodes.iter().find(has).map(|n| n.name.clone())
                };
                let speaking = self.nodes.iter().filter(|n| n.bgp.exists());
                asked.extend(speaking.map(|n| bgp::sessions(&n.name, &n.bgp, name)));
            }
            None => {}
        }
        let (mut all, mut silent) = (Vec::new(), Vec::new());
        for answer in asked {
            match answer {
                Ok(some) => all.extend(some),
                Err(why) => silent.push(why),
            }
        }
        (all, silent)
    }

    fn status(&self) -> Status {
        let nodes = std::thread::scope(|s| {
            let asked: Vec<_> = self.nodes.iter().map(|n| s.spawn(|| n.status())).collect();
            asked.into_iter().filter_map(|t| t.join().ok()).collect()
        });
        let (sessions, silent) = self.sessions();
        let warnings = [self.warnings.clone(), silent].concat();
        Status {
            name: self.spec.name.clone(),
            topology: format!("{:?}", self.spec.topology).to_lowercase(),
            nodes,
            hosts: self
                .hosts
                .iter()
                .map(|h| (h.name.clone(), h.addresses.clone()))
                .collect(),
            pods: self.kubelet.statuses(),
            sessions,
            warnings,
        }
    }
}
