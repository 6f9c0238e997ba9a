//! What the CNI plugins ask for, done.
//!
//! Promises: ADD returns when the endpoint's rules and routes are in the kernel, or fails
//! with nothing left behind; each operation may be repeated, and two runtimes that ask for
//! one container at once are served one after the other; DEL succeeds whatever is
//! already gone, and frees the container's addresses and nobody else's.
//!
//! Never: decides what the rules are.

mod addresses;
mod endpoint;
mod identity;
mod locks;
mod pools;
mod reaper;
mod wire;

use crate::resources::{ResourceError, Resources};
use addresses::{Addresses, Held};
use cni::error::{CniError, code};
use cni::protocol::{Answer, Op, Request};
use cni::result::{CniResult, Interface, IpConfig, RouteConfig};
use dataplane::{Handle as Dataplane, Report, State, WaitError};
use identity::{Identity, Workload};
use locks::Locks;
use net::{Cidr, Family, IfName};
use netlink::NetlinkError;
use netlink::netns::NetNs;
use reaper::Reaper;
use std::collections::HashMap;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;
use wire::{WireError, Wiring};

pub(crate) use addresses::Allocator;
pub(crate) use pools::{KnownPool, known};

/// How long an endpoint may take to be programmed before ADD gives up. A runtime tries again.
const PROGRAM_TIMEOUT: Duration = Duration::from_secs(20);

/// Why an attachment failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttachError {
    /// `datastoreReady` is off.
    #[error("Calico is currently not ready to process requests")]
    NotReady,
    /// There is no such pod.
    #[error("pods {name:?} not found in namespace {namespace:?}")]
    NoPod {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// There is no such namespace.
    #[error("namespaces {0:?} not found")]
    NoNamespace(String),
    /// Another node's configuration.
    #[error("the configuration is for node {asked:?} and this is {node:?}")]
    OtherNode {
        /// In the configuration.
        asked: String,
        /// Ours.
        node: String,
    },
    /// The pod runs elsewhere, so no rules for it would ever come here.
    #[error("pod {namespace}/{name} is assigned to node {there:?} and this is {node:?}")]
    PodElsewhere {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Where it runs; empty when it is not scheduled.
        there: String,
        /// Ours.
        node: String,
    },
    /// A prefix that leaves no room.
    #[error(
        "interface prefix {0:?} leaves no room for 11 more characters: shorten interfacePrefix to at most 4"
    )]
    InterfacePrefix(String),
    /// An annotation does not make sense.
    #[error("{0}")]
    Annotation(String),
    /// No address.
    #[error("{0}")]
    Addresses(String),
    /// The link could not be made.
    #[error("failed to set up the link of {object}: {source}")]
    Wire {
        /// The endpoint.
        object: String,
        /// Why.
        source: WireError,
    },
    /// The kernel does not hold the endpoint.
    #[error("failed to program {0}")]
    Program(#[from] WaitError),
    /// The kernel refuses the endpoint.
    #[error("failed to program {object}: {why}")]
    Refused {
        /// The endpoint.
        object: String,
        /// What the dataplane reports.
        why: String,
    },
    /// The endpoint could not be written or read.
    #[error(transparent)]
    Store(#[from] ResourceError),
    /// CHECK found differences.
    #[error("{object} is not as ADD left it: {}", .found.join("; "))]
    Different {
        /// The endpoint.
        object: String,
        /// What differs.
        found: Vec<String>,
    },
    /// The descriptor is no namespace.
    #[error("network namespace {path:?} of container {container}: {reason}")]
    Namespace {
        /// As the runtime names it.
        path: String,
        /// The container.
        container: String,
        /// What is wrong.
        reason: String,
    },
}

impl From<AttachError> for CniError {
    fn from(e: AttachError) -> Self {
        let code = match &e {
            AttachError::NotReady => code::TRY_AGAIN,
            AttachError::NoPod { .. } | AttachError::NoNamespace(_) => code::UNKNOWN_CONTAINER,
            AttachError::OtherNode { .. }
            | AttachError::PodElsewhere { .. }
            | AttachError::InterfacePrefix(_)
            | AttachError::Annotation(_) => code::INVALID_CONFIG,
            AttachError::Addresses(_) => code::IPAM,
            AttachError::Different { .. } => code::CHECK,
            AttachError::Namespace { .. } => code::INVALID_NETNS,
            _ => code::SETUP,
        };
        let details = match &e {
            AttachError::NotReady => {
                "set datastoreReady in ClusterInformation `default` (`calicoctl datastore migrate unlock`)"
            }
            AttachError::NoNamespace(_) => "create the namespace first",
            _ => "",
        };
        Self::new(code, e.to_string()).details(details)
    }
}

/// What stays the same from call to call.
#[derive(Debug)]
pub(crate) struct Attacher {
    /// This node's name.
    pub node: Arc<str>,
    /// The store.
    pub resources: Resources,
    /// Addresses.
    pub allocator: Allocator,
    /// Tells when an endpoint is programmed.
    pub dataplane: Dataplane,
    /// First of the interface prefixes.
    pub prefix: String,
    /// MTU of new links; the agent follows its uplinks with it.
    pub mtu: Arc<AtomicU32>,
    locks: Locks,
    reaper: Arc<Reaper>,
    /// Whose each link is, as far as this process made it: a DEL that comes late, for an older
    /// container of the same pod, must not take the new one's.
    wired: Mutex<HashMap<IfName, String>>,
}

impl Attacher {
    /// For a node.
    ///
    /// # Errors
    /// When the thread that removes links cannot be started.
    pub(crate) fn new(
        node: Arc<str>,
        resources: Resources,
        allocator: Allocator,
        dataplane: Dataplane,
        prefix: String,
        mtu: Arc<AtomicU32>,
    ) -> std::io::Result<Self> {
        let reaper = Arc::new(Reaper::start()?);
        Ok(Self {
            node,
            resources,
            allocator,
            dataplane,
            prefix,
            mtu,
            locks: Locks::default(),
            reaper,
            wired: Mutex::default(),
        })
    }

    /// Serves one request.
    pub(crate) async fn serve(&self, request: &Request, netns: Option<OwnedFd>) -> Answer {
        match self.answer(request, netns).await {
            Ok(answer) => answer,
            Err(e) => {
                tracing::warn!(
                    op = ?request.op, container = %request.container_id, network = %request.conf.name,
                    error = %e, "CNI request failed"
                );
                Answer::Error(e.into())
            }
        }
    }

    async fn answer(
        &self,
        request: &Request,
        netns: Option<OwnedFd>,
    ) -> Result<Answer, AttachError> {
        if let Some(asked) = request
            .conf
            .nodename
            .as_deref()
            .filter(|n| !n.is_empty() && **n != *self.node)
        {
            return Err(AttachError::OtherNode {
                asked: asked.to_owned(),
                node: self.node.to_string(),
            });
        }
        match request.op {
            // These are about no container, and wait for none.
            Op::Gc => return self.gc(request).await.map(|()| Answer::Done),
            Op::Status => return self.ready().await.map(|()| Answer::Done),
            Op::PodCidrs => return self.pod_cidrs().await,
            _ => {}
        }
        let id = Identity::of(request, &self.node, &self.prefix)?;
        let _turn = self.turn(&id).await;
        match request.op {
            Op::Add => self
                .add(request, &id, namespace(request, netns)?)
                .await
                .map(Answer::Result),
            Op::Check => self
                .check(request, &id, namespace(request, netns)?)
                .await
                .map(|()| Answer::Done),
            Op::IpamAdd => {
                self.ready().await?;
                let workload = id.workload(&self.resources).await?;
                let got = self.allocator.assign(request, &id, &workload).await?;
                Ok(Answer::Result(CniResult {
                    ips: got.list.iter().map(|a| ip(*a, None)).collect(),
                    ..CniResult::default()
                }))
            }
            Op::IpamDel => self.allocator.release(&id).await.map(|()| Answer::Done),
            Op::IpamCheck => {
                if self.allocator.held(&id.handle).await?.is_empty() {
                    let found = vec![format!("no address is assigned to handle {}", id.handle)];
                    return Err(AttachError::Different {
                        object: id.key.to_string(),
                        found,
                    });
                }
                Ok(Answer::Done)
            }
            Op::Del => self.del(&id).await.map(|()| Answer::Done),
            // Answered above.
            Op::Gc | Op::Status | Op::PodCidrs => Ok(Answer::Done),
        }
    }

    /// Waits until nobody else is busy with the container or with the interface, which an earlier
    /// container of the same pod shares. Always in this order, so that nobody waits in a circle.
    async fn turn(&self, id: &Identity) -> [OwnedMutexGuard<()>; 2] {
        let container = self
            .locks
            .hold(&format!("container {}", id.container_id))
            .await;
        let interface = self
            .locks
            .hold(&format!("interface {}", id.interface))
            .await;
        [container, interface]
    }

    async fn pod_cidrs(&self) -> Result<Answer, AttachError> {
        Ok(Answer::PodCidrs {
            node: self.node.to_string(),
            cidrs: endpoint::pod_cidrs(&self.resources, &self.node).await?,
        })
    }

    async fn ready(&self) -> Result<(), AttachError> {
        if endpoint::datastore_ready(&self.resources).await? {
            Ok(())
        } else {
            Err(AttachError::NotReady)
        }
    }

    async fn add(
        &self,
        request: &Request,
        id: &Identity,
        netns: NetNs,
    ) -> Result<CniResult, AttachError> {
        self.ready().await?;
        let workload = id.workload(&self.resources).await?;
        if let Workload::Pod { pod, .. } = &workload
            && pod.spec.node_name != *self.node
        {
            return Err(AttachError::PodElsewhere {
                namespace: pod.metadata.namespace.clone(),
                name: pod.metadata.name.clone(),
                there: pod.spec.node_name.clone(),
                node: self.node.to_string(),
            });
        }
        let got = match &request.delegated {
            Some(d) => Addresses::delegated(d)?,
            None => self.allocator.assign(request, id, &workload).await?,
        };
        let made = match self.wiring(request, id, &workload, &got) {
            Ok(wiring) => {
                self.establish(request, id, &workload, &got, netns, wiring)
                    .await
            }
            Err(e) => Err(e),
        };
        if made.is_err() {
            self.undo(id, &got).await;
        }
        made
    }

    /// Link, endpoint, kernel: in this order, since the endpoint's rules may stand before its link but
    /// its routes need it.
    async fn establish(
        &self,
        request: &Request,
        id: &Identity,
        workload: &Workload,
        got: &Addresses,
        netns: NetNs,
        wiring: Wiring,
    ) -> Result<CniResult, AttachError> {
        let object = id.key.to_string();
        let mtu = wiring.mtu;
        let failed = |source| AttachError::Wire {
            object: object.clone(),
            source,
        };
        self.clear_the_way(id, &got.list).await?;
        self.wired().insert(id.interface, id.container_id.clone());
        let make = move || wire::wire(&netns, &wiring);
        let wired = tokio::task::spawn_blocking(make)
            .await
            .map_err(|e| AttachError::Refused {
                object: object.clone(),
                why: e.to_string(),
            })?
            .map_err(failed)?;
        endpoint::write(&self.resources, request, id, workload, &got.list, wired.mac).await?;
        self.programmed(id, &got.list).await?;
        tracing::info!(endpoint = %id.key, interface = %id.interface, addresses = ?got.list, "endpoint attached");
        Ok(CniResult {
            interfaces: vec![
                Interface {
                    name: id.interface.to_string(),
                    mac: wire::HOST_MAC.to_string(),
                    ..Interface::default()
                },
                Interface {
                    name: request.ifname.clone(),
                    mac: wired.mac.to_string(),
                    mtu: Some(mtu),
                    sandbox: request.netns.clone(),
                },
            ],
            ips: got.list.iter().map(|a| ip(*a, Some(1))).collect(),
            routes: got
                .routes
                .iter()
                .map(|r| RouteConfig {
                    dst: r.to_string(),
                    gw: None,
                })
                .collect(),
            ..CniResult::default()
        })
    }

    /// What an earlier attempt, or an earlier container of the pod, left: endpoint first, and out of the
    /// kernel before the new link comes, since its report would be taken for the new one's; then
    /// the link with its far end, whose name may be the one that is wanted.
    async fn clear_the_way(&self, id: &Identity, addresses: &[IpAddr]) -> Result<(), AttachError> {
        let failed = |source: NetlinkError| AttachError::Wire {
            object: id.key.to_string(),
            source: source.into(),
        };
        let mut links = link::Handle::open().map_err(failed)?;
        let linked = links.by_name(id.interface).map_err(failed)?.is_some();
        let same = |r: Report| {
            r.workload.nets.len() == addresses.len()
                && r.workload
                    .nets
                    .iter()
                    .all(|n| addresses.contains(&n.addr()))
        };
        if !linked && !self.dataplane.report(&id.key).is_some_and(same) {
            return Ok(());
        }
        endpoint::clear(&self.resources, id).await?;
        self.dataplane
            .wait_removed(&id.key, Instant::now() + PROGRAM_TIMEOUT)
            .await?;
        let interface = id.interface;
        // The kernel takes its time for this one.
        let removed = tokio::task::spawn_blocking(move || links.delete(interface)).await;
        removed
            .map_err(|e| AttachError::Refused {
                object: id.key.to_string(),
                why: e.to_string(),
            })?
            .map_err(failed)
            .map(drop)
    }

    /// Waits until the dataplane holds the endpoint with just these addresses: an earlier one of the
    /// same pod does not count.
    async fn programmed(&self, id: &Identity, addresses: &[IpAddr]) -> Result<(), AttachError> {
        let mut refused = None;
        let wait = self
            .dataplane
            .wait_for(&id.key, Instant::now() + PROGRAM_TIMEOUT, |report| {
                let Some(r) = report else { return false };
                let same = r.workload.nets.len() == addresses.len()
                    && r.workload
                        .nets
                        .iter()
                        .all(|n| addresses.contains(&n.addr()));
                if same && let State::Failed(why) = &r.state {
                    refused = Some(why.clone());
                    return true;
                }
                same && r.state == State::Programmed && r.workload.interface == id.interface
            });
        wait.await?;
        refused.map_or(Ok(()), |why| {
            Err(AttachError::Refused {
                object: id.key.to_string(),
                why,
            })
        })
    }

    fn wiring(
        &self,
        request: &Request,
        id: &Identity,
        workload: &Workload,
        got: &Addresses,
    ) -> Result<Wiring, AttachError> {
        let mac = match workload {
            Workload::Pod { pod, .. } => pod
                .metadata
                .annotations
                .get("cni.projectcalico.org/hwAddr")
                .map(|text| {
                    text.parse().map_err(|e| {
                        AttachError::Annotation(format!(
                            "annotation cni.projectcalico.org/hwAddr: {e}"
                        ))
                    })
                })
                .transpose()?,
            Workload::Container => None,
        };
        Ok(Wiring {
            host: id.interface,
            container: request
                .ifname
                .parse()
                .map_err(|e| AttachError::Annotation(format!("CNI_IFNAME: {e}")))?,
            mac,
            mtu: request
                .conf
                .mtu
                .filter(|m| *m > 0)
                .unwrap_or_else(|| self.mtu.load(Ordering::Relaxed)),
            queues: request.conf.num_queues.unwrap_or(1).max(1),
            addresses: got.list.clone(),
            routes: got.routes.clone(),
            forwarding: request
                .conf
                .container_settings
                .is_some_and(|c| c.allow_ip_forwarding),
        })
    }

    /// Takes back what a failed ADD did. Failures here are logged and left to the runtime's DEL,
    /// which does the same.
    async fn undo(&self, id: &Identity, got: &Addresses) {
        if let Err(e) = endpoint::remove(&self.resources, id).await {
            tracing::warn!(endpoint = %id.key, error = %e, "a failed ADD left its endpoint; DEL will remove it");
        }
        if let Err(e) = self.unwire(id).await {
            tracing::warn!(endpoint = %id.key, error = %e, "a failed ADD left its link; DEL will remove it");
        }
        if got.assigned
            && let Err(e) = self.allocator.release_handle(&id.handle).await
        {
            tracing::warn!(endpoint = %id.key, error = %e, "a failed ADD left its addresses; DEL will release them");
        }
    }

    async fn del(&self, id: &Identity) -> Result<(), AttachError> {
        // Another container may have taken the pod's place; then link and endpoint are its.
        if endpoint::remove(&self.resources, id).await? {
            self.unwire(id).await?;
        }
        self.allocator.release(id).await?;
        tracing::info!(endpoint = %id.key, container = %id.container_id, "endpoint detached");
        Ok(())
    }

    fn wired(&self) -> MutexGuard<'_, HashMap<IfName, String>> {
        // Each change is one insert or remove: nothing half done can be left.
        self.wired.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn unwire(&self, id: &Identity) -> Result<(), AttachError> {
        if self
            .wired()
            .get(&id.interface)
            .is_some_and(|c| *c != id.container_id)
        {
            return Ok(());
        }
        let (interface, object, reaper) = (id.interface, id.key.to_string(), self.reaper.clone());
        tokio::task::spawn_blocking(move || reaper.bury(interface))
            .await
            .map_err(|e| AttachError::Refused {
                object: object.clone(),
                why: e.to_string(),
            })?
            .map_err(|e| AttachError::Wire {
                object,
                source: e.into(),
            })?;
        self.wired().remove(&id.interface);
        Ok(())
    }

    async fn check(
        &self,
        request: &Request,
        id: &Identity,
        netns: NetNs,
    ) -> Result<(), AttachError> {
        let previous = request
            .conf
            .previous()
            .map_err(|e| AttachError::Annotation(e.to_string()))?
            .unwrap_or_default();
        let addresses: Vec<IpAddr> = previous
            .ips
            .iter()
            .filter_map(|i| i.address.parse::<Cidr>().ok())
            .map(Cidr::addr)
            .collect();
        let mut found = Vec::new();
        match endpoint::find(&self.resources, id).await? {
            None => found.push("the endpoint is missing in the datastore".to_owned()),
            Some(have) => {
                found.extend(
                    addresses
                        .iter()
                        .filter(|a| !have.contains(a))
                        .map(|a| format!("the endpoint lacks address {a}")),
                );
            }
        }
        let container = request
            .ifname
            .parse()
            .map_err(|e| AttachError::Annotation(format!("CNI_IFNAME: {e}")))?;
        let routes = addresses::routes(&previous.routes, &addresses);
        let (host, list, object) = (id.interface, addresses, id.key.to_string());
        let differs = tokio::task::spawn_blocking(move || {
            wire::differences(&netns, host, container, &list, &routes)
        })
        .await
        .map_err(|e| AttachError::Refused {
            object: object.clone(),
            why: e.to_string(),
        })?;
        found.extend(differs.map_err(|source| AttachError::Wire {
            object: object.clone(),
            source,
        })?);
        match self.dataplane.report(&id.key).map(|r| r.state) {
            Some(State::Programmed) => {}
            Some(other) => found.push(format!("the endpoint is not in the kernel: {other}")),
            None => found.push("the endpoint is not in the kernel".to_owned()),
        }
        if found.is_empty() {
            Ok(())
        } else {
            Err(AttachError::Different { object, found })
        }
    }

    /// Releases what this node holds for containers that the runtime no longer knows. Goes on past
    /// what fails and reports the first failure.
    async fn gc(&self, request: &Request) -> Result<(), AttachError> {
        let Some(valid) = &request.conf.valid_attachments else {
            return Ok(());
        };
        let known = |container: &str| valid.iter().any(|a| a.container_id == container);
        let mut first = None;
        let mut keep = |r: Result<(), AttachError>| {
            if let Err(e) = r {
                first.get_or_insert(e);
            }
        };
        // Endpoints first: an address is free only when nothing uses it.
        let held = self.allocator.held_on(&self.node).await?;
        let endpoints = endpoint::of_network(
            &self.resources,
            &self.node,
            &request.conf.name,
            &self.prefix,
        );
        let mut gone = endpoints.await?;
        // A container whose addresses are another network's is that network's to remove.
        gone.retain(|id| {
            let network = |h: &Held| {
                h.handle
                    .strip_suffix(&id.container_id)
                    .map(|n| n.ends_with('.'))
            };
            let of = |h: &Held| network(h) == Some(true);
            held.iter().any(|h| h.handle == id.handle) || !held.iter().any(of)
        });
        // What an ADD that was cut short left has addresses, and perhaps a link.
        let prefix = format!("{}.", request.conf.name);
        for h in &held {
            let Some(container) = h.handle.strip_prefix(&prefix) else {
                continue;
            };
            if gone.iter().all(|id| id.container_id != container) {
                let pod = h
                    .pod
                    .as_ref()
                    .map(|(ns, name)| (ns.as_str(), name.as_str()));
                gone.push(Identity::named(
                    &request.conf.name,
                    container,
                    &request.ifname,
                    pod,
                    &self.node,
                    &self.prefix,
                )?);
            }
        }
        for id in gone.into_iter().filter(|id| !known(&id.container_id)) {
            tracing::info!(container = %id.container_id, endpoint = %id.key, "removing what the runtime no longer knows");
            let _turn = self.turn(&id).await;
            keep(self.del(&id).await);
        }
        first.map_or(Ok(()), Err)
    }
}

fn ip(addr: IpAddr, interface: Option<u32>) -> IpConfig {
    IpConfig {
        address: format!("{addr}/{}", Family::of(addr).bits()),
        gateway: None,
        interface,
    }
}

fn namespace(request: &Request, fd: Option<OwnedFd>) -> Result<NetNs, AttachError> {
    let failed = |reason: String| AttachError::Namespace {
        path: request.netns.clone(),
        container: request.container_id.clone(),
        reason,
    };
    let ns = NetNs::from_fd(fd.ok_or_else(|| failed("the plugin sent none".to_owned()))?)
        .map_err(|e| failed(e.to_string()))?;
    if NetNs::current().is_ok_and(|own| own == ns) {
        // Addresses, default routes and settings would be the node's own.
        return Err(failed("it is the node's own".to_owned()));
    }
    Ok(ns)
}
