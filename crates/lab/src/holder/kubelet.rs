//! Kubelet and scheduler for all nodes: pods of the store become sandboxes, and sandboxes of
//! pods that are gone are taken down.
//!
//! Promises: a pod runs when the CNI chain has succeeded, and says so in its status with its
//! addresses; a failure is in the pod's status in the plugin's words, and is tried again; one
//! pod's trouble delays no other.
//!
//! Never: gives a pod an address or a route itself.

use crate::holder::children::Children;
use crate::holder::cni::{self, Attachment, Runtime};
use crate::holder::node::Node;
use crate::holder::servers::Servers;
use crate::protocol::{PodRef, PodStatus};
use api::kinds::kube::{Pod, PodCondition, PodIp};
use api::{Resource, ResourceKind};
use datastore::{Entry, Event, Precondition, Revision, Store, StoreError};
use net::Protocol;
use netlink::netns::{self, NetNs};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Namespace and name.
pub(super) type PodKey = (String, String);

const WORKERS: usize = 8;
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LAST: Duration = Duration::from_secs(5);
/// After so many failures a caller that waits is told.
const TELL_AFTER: u32 = 3;
const FAILED: &str = "FailedCreatePodSandBox";

/// A running pod's namespace.
#[derive(Debug)]
pub(super) struct Sandbox {
    /// The pod's UID.
    pub uid: String,
    /// Its node.
    pub node: String,
    /// Its network.
    pub ns: NetNs,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    attachment: Option<Attachment>,
    path: Option<PathBuf>,
}

#[derive(Debug, Clone)]
struct Wanted {
    pod: Arc<Pod>,
    /// All that should make us look again; not the status and what is written back.
    essence: String,
}

#[derive(Debug, Default)]
struct Inner {
    synced: bool,
    wanted: BTreeMap<PodKey, Wanted>,
    have: HashMap<PodKey, Arc<Sandbox>>,
    announced: HashSet<PodKey>,
    troubles: HashMap<PodKey, (String, u32)>,
    due: HashMap<PodKey, Instant>,
    busy: HashSet<PodKey>,
    next_node: usize,
}

/// The state of all pods.
#[derive(Debug)]
pub(super) struct Kubelet {
    nodes: Vec<Arc<Node>>,
    children: Arc<Children>,
    cni: Arc<Runtime>,
    servers: Arc<Servers>,
    store: Arc<dyn Store>,
    runtime: tokio::runtime::Handle,
    inner: Mutex<Inner>,
    changed: Condvar,
}

impl Kubelet {
    /// Starts to watch and to work.
    ///
    /// # Errors
    /// If there can be no thread.
    pub(super) fn start(
        nodes: Vec<Arc<Node>>,
        children: Arc<Children>,
        cni: Arc<Runtime>,
        servers: Arc<Servers>,
        store: Arc<dyn Store>,
        runtime: tokio::runtime::Handle,
    ) -> io::Result<Arc<Self>> {
        let (inner, changed) = (Mutex::default(), Condvar::new());
        let kubelet = Arc::new(Self {
            nodes,
            children,
            cni,
            servers,
            store,
            runtime,
            inner,
            changed,
        });
        let watcher = Arc::clone(&kubelet);
        kubelet.runtime.spawn(async move { watcher.watch().await });
        for n in 0..WORKERS {
            let worker = Arc::clone(&kubelet);
            let name = format!("kubelet-{n}");
            std::thread::Builder::new()
                .name(name)
                .spawn(move || worker.work())?;
        }
        Ok(kubelet)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn watch(&self) {
        loop {
            if let Err(e) = self.follow().await {
                eprintln!("watch pods: {e}");
                tokio::time::sleep(RETRY_FIRST).await;
            }
        }
    }

    async fn follow(&self) -> Result<(), StoreError> {
        let prefix = ResourceKind::Pod.prefix();
        let listing = self.store.list(prefix).await?;
        self.replace(listing.entries);
        let mut from = listing.revision;
        loop {
            let mut watch = self.store.watch(&[prefix], from).await?;
            loop {
                match watch.next().await {
                    Ok(events) => {
                        from = events.last().map_or(from, Event::revision);
                        for event in events {
                            match event {
                                Event::Put(e) => self.put(&e),
                                Event::Delete { key, .. } => self.gone(&key),
                            }
                        }
                    }
                    Err(e) if e.is_retryable() => break,
                    Err(e) => return Err(e),
                }
            }
        }
    }

    fn replace(&self, entries: Vec<Entry>) {
        let keys: HashSet<&str> = entries.iter().map(|e| e.key.as_str()).collect();
        let vanished: Vec<String> = self
            .lock()
            .wanted
            .keys()
            .map(|(ns, name)| api::key(ResourceKind::Pod, Some(ns), name))
            .filter(|k| !keys.contains(k.as_str()))
            .collect();
        vanished.iter().for_each(|k| self.gone(k));
        entries.iter().for_each(|e| self.put(e));
        self.lock().synced = true;
        self.changed.notify_all();
    }

    fn put(&self, entry: &Entry) {
        let (pod, at) = match decode(entry) {
            Ok(read) => read,
            Err(e) => {
                eprintln!("{e}");
                return self.gone(&entry.key);
            }
        };
        let finished = matches!(pod.status.phase.as_str(), "Succeeded" | "Failed");
        if finished || pod.metadata.deletion_timestamp.is_some() {
            return self.gone(&entry.key);
        }
        let essence = essence(&pod);
        let mut inner = self.lock();
        let same = inner.wanted.get(&at).is_some_and(|w| w.essence == essence);
        let running = inner.have.contains_key(&at);
        let unsaid = running && pod.status.phase != "Running";
        inner.wanted.insert(
            at.clone(),
            Wanted {
                pod: Arc::new(pod),
                essence,
            },
        );
        if !same || unsaid {
            inner.troubles.remove(&at);
            inner.due.insert(at, Instant::now());
        }
        drop(inner);
        self.changed.notify_all();
    }

    fn gone(&self, key: &str) {
        let Some(at) = pod_key(key) else { return };
        let mut inner = self.lock();
        inner.wanted.remove(&at);
        inner.troubles.remove(&at);
        inner.due.insert(at, Instant::now());
        drop(inner);
        self.changed.notify_all();
    }

    fn work(&self) {
        loop {
            let at = self.next();
            let again = self.settle(&at);
            let mut inner = self.lock();
            inner.busy.remove(&at);
            match again {
                Ok(()) => {
                    inner.troubles.remove(&at);
                }
                Err(why) => {
                    let tries = inner.troubles.get(&at).map_or(0, |t| t.1) + 1;
                    inner.troubles.insert(at.clone(), (why, tries));
                    let pause = (RETRY_FIRST * (1 << (tries - 1).min(10))).min(RETRY_LAST);
                    inner
                        .due
                        .entry(at)
                        .or_insert_with(|| Instant::now() + pause);
                }
            }
            drop(inner);
            self.changed.notify_all();
        }
    }

    /// Waits for a pod that is due and that nobody works on.
    fn next(&self) -> PodKey {
        let mut inner = self.lock();
        loop {
            let now = Instant::now();
            let free = inner.due.iter().filter(|(k, _)| !inner.busy.contains(*k));
            let first = free
                .min_by_key(|(_, at)| **at)
                .map(|(k, at)| (k.clone(), *at));
            let wait = match first {
                Some((key, at)) if at <= now => {
                    inner.due.remove(&key);
                    inner.busy.insert(key.clone());
                    return key;
                }
                Some((_, at)) => at - now,
                None => Duration::from_secs(3600),
            };
            inner = self
                .changed
                .wait_timeout(inner, wait)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Brings one pod from what it is to what it should be.
    fn settle(&self, at: &PodKey) -> Result<(), String> {
        let (wanted, have) = {
            let inner = self.lock();
            (
                inner.wanted.get(at).map(|w| Arc::clone(&w.pod)),
                inner.have.get(at).cloned(),
            )
        };
        let fits = |s: &Sandbox, p: &Pod| {
            s.uid == p.metadata.uid && (p.spec.node_name.is_empty() || s.node == p.spec.node_name)
        };
        if let Some(sandbox) = &have {
            match &wanted {
                Some(pod) if fits(sandbox, pod) => return self.announce(at, sandbox),
                _ => self.take_down(at, sandbox)?,
            }
        }
        let Some(pod) = wanted else { return Ok(()) };
        let node = self.schedule(at, &pod)?;
        let sandbox = match self.set_up(&pod, &node) {
            Ok(sandbox) => Arc::new(sandbox),
            Err(why) => {
                self.complain(at, &pod, &why)?;
                return Err(format!("{FAILED}: {why}"));
            }
        };
        self.serve(at, &pod, &sandbox);
        self.lock().have.insert(at.clone(), Arc::clone(&sandbox));
        self.announce(at, &sandbox)
    }

    /// The pod's node; one that has none gets the next in turn.
    fn schedule(&self, at: &PodKey, pod: &Pod) -> Result<Arc<Node>, String> {
        let mut name = pod.spec.node_name.clone();
        if name.is_empty() {
            let mut inner = self.lock();
            name.clone_from(&self.nodes[inner.next_node % self.nodes.len()].name);
            inner.next_node += 1;
            drop(inner);
            let uid = pod.metadata.uid.clone();
            name = self.edit(at, &uid, |p| {
                if p.spec.node_name.is_empty() {
                    p.spec.node_name.clone_from(&name);
                }
                p.spec.node_name.clone()
            })?;
        }
        let found = self.nodes.iter().find(|n| n.name == name);
        found
            .cloned()
            .ok_or_else(|| format!("Unschedulable: there is no node {name:?}"))
    }

    fn set_up(&self, pod: &Pod, node: &Node) -> Result<Sandbox, String> {
        let meta = &pod.metadata;
        let base = |ns, ips| Sandbox {
            uid: meta.uid.clone(),
            node: node.name.clone(),
            ns,
            ips,
            attachment: None,
            path: None,
        };
        if pod.spec.host_network {
            let ns = node.ns.try_clone().map_err(|e| e.to_string())?;
            return Ok(base(ns, node.addresses.clone()));
        }
        let ns = NetNs::new().map_err(|e| e.to_string())?;
        ns.run(|| {
            let mut h = link::Handle::open()?;
            let lo = h.index_of("lo".parse().expect("a name"))?;
            h.set_up(lo, true)
        })
        .and_then(std::convert::identity)
        .map_err(|e| e.to_string())?;
        let container_id = container_id().map_err(|e| format!("make a container ID: {e}"))?;
        let path = PathBuf::from(format!("/run/netns/cni-{}", &container_id[..16]));
        ns.bind(&path).map_err(|e| e.to_string())?;
        let attachment = Attachment {
            container_id,
            netns: path.clone(),
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
            uid: meta.uid.clone(),
            capabilities: capabilities(pod),
        };
        match self.cni.add(&self.children, node, &attachment) {
            Ok(result) => {
                let ips = cni::addresses(&result);
                let (attachment, path) = (Some(attachment), Some(path));
                Ok(Sandbox {
                    attachment,
                    path,
                    ..base(ns, ips)
                })
            }
            Err(e) => {
                // As runtimes do; if it fails too, the agent's own clean-up is what is left.
                if let Err(e) = self.cni.delete(&self.children, node, &attachment) {
                    eprintln!("{}/{}: {e}", meta.namespace, meta.name);
                }
                let _ = netns::unbind(&path);
                Err(e.to_string())
            }
        }
    }

    fn take_down(&self, at: &PodKey, sandbox: &Arc<Sandbox>) -> Result<(), String> {
        self.lock().announced.remove(at);
        if let Some(attachment) = &sandbox.attachment {
            let node = self.nodes.iter().find(|n| n.name == sandbox.node);
            let node = node.ok_or_else(|| format!("there is no node {:?}", sandbox.node))?;
            let deleted = self.cni.delete(&self.children, node, attachment);
            deleted.map_err(|e| format!("FailedKillPod: {e}"))?;
            // Sockets would keep the namespace alive; a node's are not the pod's.
            self.servers.forget(sandbox.ns.id());
        }
        if let Some(path) = &sandbox.path {
            netns::unbind(path).map_err(|e| e.to_string())?;
        }
        self.lock().have.remove(at);
        Ok(())
    }

    /// Opens the ports that the pod's containers say they listen on.
    fn serve(&self, at: &PodKey, pod: &Pod, sandbox: &Sandbox) {
        let label = format!("{}/{}", at.0, at.1);
        for port in pod.spec.containers.iter().flat_map(|c| &c.ports) {
            let named = if port.protocol.is_empty() {
                "TCP"
            } else {
                &port.protocol
            };
            let Ok(protocol) = named.parse::<Protocol>() else {
                continue;
            };
            for ip in &sandbox.ips {
                let port = scenario::Port::new(protocol, port.container_port);
                if let Err(e) = self.servers.ensure(&sandbox.ns, *ip, port, &label) {
                    eprintln!("{label}: listen on {port}: {e}");
                }
            }
        }
    }

    /// Writes the status of a pod that runs.
    fn announce(&self, at: &PodKey, sandbox: &Sandbox) -> Result<(), String> {
        let node = self.nodes.iter().find(|n| n.name == sandbox.node);
        let host_ip = node
            .and_then(|n| n.addresses.first())
            .map(ToString::to_string);
        self.edit(at, &sandbox.uid, |p| {
            if p.spec.node_name.is_empty() {
                p.spec.node_name.clone_from(&sandbox.node);
            }
            let s = &mut p.status;
            "Running".clone_into(&mut s.phase);
            s.reason.clear();
            s.message.clear();
            s.host_ip = host_ip.clone().unwrap_or_default();
            s.pod_ip = sandbox
                .ips
                .first()
                .map(ToString::to_string)
                .unwrap_or_default();
            s.pod_ips = sandbox
                .ips
                .iter()
                .map(|i| PodIp { ip: i.to_string() })
                .collect();
            for kind in ["Initialized", "Ready", "ContainersReady", "PodScheduled"] {
                condition(&mut s.conditions, kind, "True", "", "");
            }
        })?;
        self.lock().announced.insert(at.clone());
        self.changed.notify_all();
        Ok(())
    }

    /// Writes the status of a pod that cannot be set up.
    fn complain(&self, at: &PodKey, pod: &Pod, why: &str) -> Result<(), String> {
        let message = format!("Failed to create pod sandbox: {why}");
        self.edit(at, &pod.metadata.uid, |p| {
            let s = &mut p.status;
            "Pending".clone_into(&mut s.phase);
            FAILED.clone_into(&mut s.reason);
            message.clone_into(&mut s.message);
            condition(&mut s.conditions, "PodScheduled", "True", "", "");
            condition(&mut s.conditions, "Ready", "False", FAILED, &message);
        })
    }

    /// Changes a pod in the store, unless it is gone or another by now.
    fn edit<T: Default>(
        &self,
        at: &PodKey,
        uid: &str,
        change: impl Fn(&mut Pod) -> T,
    ) -> Result<T, String> {
        let key = api::key(ResourceKind::Pod, Some(&at.0), &at.1);
        let fail = |e: StoreError| e.to_string();
        loop {
            let read = self.runtime.block_on(self.store.get(&key)).map_err(fail)?;
            let Some(entry) = read else {
                return Ok(T::default());
            };
            let (mut pod, _) = decode(&entry)?;
            if pod.metadata.uid != uid {
                return Ok(T::default());
            }
            let before = pod.clone();
            let result = change(&mut pod);
            if pod == before {
                return Ok(result);
            }
            let value = api::encode(&Resource::Pod(pod)).map_err(|e| e.to_string())?;
            let at = Precondition::Revision(entry.revision);
            match self
                .runtime
                .block_on(self.store.put(&key, value.into(), at))
            {
                Ok(_) => return Ok(result),
                // Somebody else wrote in between, or deleted it: look again.
                Err(e) if e.is_conflict() || e.is_not_found() => {}
                Err(e) => return Err(fail(e)),
            }
        }
    }

    /// A running pod's sandbox.
    pub(super) fn sandbox(&self, namespace: &str, name: &str) -> Option<Arc<Sandbox>> {
        self.lock()
            .have
            .get(&(namespace.to_owned(), name.to_owned()))
            .cloned()
    }

    /// The running pod with an address, if it has a network of its own.
    pub(super) fn at(&self, addr: IpAddr) -> Option<(String, Arc<Sandbox>)> {
        let inner = self.lock();
        let mut have = inner.have.iter();
        let (key, sandbox) = have.find(|(_, s)| s.attachment.is_some() && s.ips.contains(&addr))?;
        Some((format!("{}/{}", key.0, key.1), Arc::clone(sandbox)))
    }

    /// All pods as they are now.
    pub(super) fn statuses(&self) -> Vec<PodStatus> {
        let inner = self.lock();
        let mut keys: Vec<&PodKey> = inner.wanted.keys().chain(inner.have.keys()).collect();
        keys.sort();
        keys.dedup();
        keys.into_iter().map(|k| status_of(&inner, k)).collect()
    }

    /// Waits until each of `pods` runs or is gone. What is not in time, or has failed a few
    /// times, is returned.
    pub(super) fn wait(&self, pods: &[PodRef], deadline: Instant) -> Vec<PodStatus> {
        let mut inner = self.lock();
        loop {
            let late: Vec<&PodRef> = pods.iter().filter(|p| !arrived(&inner, p)).collect();
            let hopeless = |p: &&PodRef| {
                let trouble = inner.troubles.get(&(p.namespace.clone(), p.name.clone()));
                trouble.is_some_and(|t| t.1 >= TELL_AFTER)
            };
            let left = deadline.checked_duration_since(Instant::now());
            if late.is_empty() || left.is_none() || late.iter().all(hopeless) {
                let key = |p: &PodRef| (p.namespace.clone(), p.name.clone());
                return late
                    .into_iter()
                    .map(|p| status_of(&inner, &key(p)))
                    .collect();
            }
            let wait = left.unwrap_or_default();
            inner = self
                .changed
                .wait_timeout(inner, wait)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

fn arrived(inner: &Inner, p: &PodRef) -> bool {
    let key = (p.namespace.clone(), p.name.clone());
    match &p.uid {
        Some(uid) => {
            inner.announced.contains(&key) && inner.have.get(&key).is_some_and(|s| s.uid == *uid)
        }
        None => {
            inner.synced
                && !inner.wanted.contains_key(&key)
                && !inner.have.contains_key(&key)
                && !inner.busy.contains(&key)
        }
    }
}

fn status_of(inner: &Inner, key: &PodKey) -> PodStatus {
    let (wanted, have) = (inner.wanted.get(key), inner.have.get(key));
    let phase = match (wanted, have) {
        (Some(w), Some(s)) if w.pod.metadata.uid == s.uid => "Running",
        (_, Some(_)) => "Terminating",
        (Some(_), None) => "Pending",
        (None, None) => "Absent",
    };
    let node = have
        .map(|s| s.node.clone())
        .or_else(|| wanted.map(|w| w.pod.spec.node_name.clone()));
    PodStatus {
        namespace: key.0.clone(),
        name: key.1.clone(),
        node: node.unwrap_or_default(),
        ips: have.map(|s| s.ips.clone()).unwrap_or_default(),
        phase: phase.to_owned(),
        reason: inner
            .troubles
            .get(key)
            .map(|t| t.0.clone())
            .unwrap_or_default(),
    }
}

fn pod_key(key: &str) -> Option<PodKey> {
    let at = api::parse_key(key)?;
    Some((at.namespace?.to_owned(), at.name.to_owned()))
}

fn decode(entry: &Entry) -> Result<(Pod, PodKey), String> {
    let at = api::parse_key(&entry.key).ok_or_else(|| format!("{}: no pod's key", entry.key))?;
    let Revision(revision) = entry.revision;
    match api::decode(&at, &entry.value, Some(&revision.to_string())) {
        Ok(Resource::Pod(pod)) => Ok((
            pod,
            (
                at.namespace.unwrap_or_default().to_owned(),
                at.name.to_owned(),
            ),
        )),
        Ok(other) => Err(format!("{other} is stored as a pod")),
        Err(e) => Err(e.to_string()),
    }
}

/// What makes a pod another pod to us; not its status and not what is written back to it.
fn essence(pod: &Pod) -> String {
    let mut annotations = pod.metadata.annotations.clone();
    for written in ["podIP", "podIPs", "containerID"] {
        annotations.remove(&format!("cni.projectcalico.org/{written}"));
    }
    json!([pod.metadata.uid, annotations, pod.spec]).to_string()
}

fn condition(list: &mut Vec<PodCondition>, kind: &str, status: &str, reason: &str, message: &str) {
    list.retain(|c| c.kind != kind);
    list.push(PodCondition {
        kind: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        ..PodCondition::default()
    });
}

/// 64 hex digits, as runtimes make them.
fn container_id() -> io::Result<String> {
    let mut id = String::new();
    for _ in 0..2 {
        id.push_str(std::fs::read_to_string("/proc/sys/kernel/random/uuid")?.trim());
    }
    Ok(id.replace('-', ""))
}

/// What the chain's capabilities are for: host ports, and limits from annotations.
fn capabilities(pod: &Pod) -> Map<String, Value> {
    let mut all = Map::new();
    let ports = pod
        .spec
        .containers
        .iter()
        .flat_map(|c| &c.ports)
        .filter(|p| p.host_port != 0);
    let mappings: Vec<Value> = ports
        .map(|p| {
            let protocol = if p.protocol.is_empty() {
                "tcp"
            } else {
                &p.protocol
            };
            json!({
                "hostPort": p.host_port,
                "containerPort": p.container_port,
                "protocol": protocol.to_lowercase(),
                "hostIP": p.host_ip,
            })
        })
        .collect();
    if !mappings.is_empty() {
        all.insert("portMappings".to_owned(), Value::Array(mappings));
    }
    let mut bandwidth = Map::new();
    for direction in ["ingress", "egress"] {
        let annotation = format!("kubernetes.io/{direction}-bandwidth");
        if let Some(rate) = pod
            .metadata
            .annotations
            .get(&annotation)
            .and_then(|t| quantity(t))
        {
            bandwidth.insert(format!("{direction}Rate"), json!(rate));
            // As kubelet: a burst that is never the limit.
            bandwidth.insert(format!("{direction}Burst"), json!(i32::MAX));
        }
    }
    if !bandwidth.is_empty() {
        all.insert("bandwidth".to_owned(), Value::Object(bandwidth));
    }
    all
}

/// A Kubernetes quantity as a whole number: `10M`, `1Gi`, `500k`.
fn quantity(text: &str) -> Option<u64> {
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let number: u64 = text[..split].parse().ok()?;
    let factor: u64 = match &text[split..] {
        "" => 1,
        "k" => 1000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::kinds::kube::{Container, ContainerPort};

    #[test]
    fn capabilities_from_ports_and_annotations() {
        let mut pod = Pod::default();
        let port = ContainerPort {
            host_port: 8080,
            container_port: 80,
            ..ContainerPort::default()
        };
        pod.spec.containers.push(Container {
            ports: vec![port],
            ..Container::default()
        });
        pod.metadata
            .annotations
            .insert("kubernetes.io/ingress-bandwidth".into(), "10M".into());
        assert_eq!(
            Value::Object(capabilities(&pod)),
            json!({
                "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": ""}],
                "bandwidth": {"ingressRate": 10_000_000, "ingressBurst": 2_147_483_647},
            })
        );
        assert_eq!(Value::Object(capabilities(&Pod::default())), json!({}));
    }

    #[test]
    fn what_is_written_back_is_not_news() {
        let mut pod = Pod::default();
        let before = essence(&pod);
        pod.status.phase = "Running".into();
        pod.metadata
            .annotations
            .insert("cni.projectcalico.org/podIP".into(), "10.0.0.1/32".into());
        assert_eq!(essence(&pod), before);
        pod.metadata
            .annotations
            .insert("cni.projectcalico.org/ipAddrs".into(), "[]".into());
        assert_ne!(essence(&pod), before);
    }
}
