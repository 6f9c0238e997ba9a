//! Objects of files into the store of a lab, and out of it.
//!
//! Promises: every document is tried, a bad one hides no other; what is applied goes through
//! the same validation as `manx apply`; by default the command returns when the pods concerned
//! run or are gone.
//!
//! Never: talks to a node.

use crate::args::FileArgs;
use crate::command::handle::{Handle, unexpected};
use crate::command::{Failure, note, say};
use crate::holder::bgp;
use crate::holder::router::learns;
use crate::protocol::{PodRef, PodStatus, Request, Response};
use crate::state::Dir;
use api::{Resource, ResourceKind, parse_documents};
use datastore::{Client, ClientError, Delete, Store};
use net::Family;
use scenario::cluster::UPLINK;
use scenario::in_order;
use scenario::plan::Spec;
use serde_json::json;
use std::io::Read;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use verdict::World;

/// Others write to a pod a few times when it starts, and then no more.
const RELABEL_TRIES: u32 = 10;

/// The store of a lab, with a runtime to use it on.
pub(super) struct Objects {
    client: Client,
    store: Arc<dyn Store>,
    runtime: tokio::runtime::Runtime,
}

impl Objects {
    /// Opens the store.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub(super) fn open(dir: &Dir) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let store: Arc<dyn Store> = Arc::new(datastore::embedded::Store::open(dir.store())?);
        Ok(Self {
            client: Client::new(Arc::clone(&store)),
            store,
            runtime,
        })
    }

    /// Creates or replaces an object.
    ///
    /// # Errors
    /// What the client says.
    pub(super) fn apply(&self, r: Resource) -> Result<Resource, ClientError> {
        self.runtime.block_on(self.client.apply(r))
    }

    /// Deletes an object; false if it was not there.
    ///
    /// # Errors
    /// What the client says.
    pub(super) fn delete(&self, r: &Resource) -> Result<bool, ClientError> {
        let (kind, namespace, name) = (r.kind(), r.namespace(), r.meta().name.as_str());
        self.runtime.block_on(async {
            if kind == ResourceKind::IpPool {
                match self.client.disable_pool(name).await {
                    Err(e) if e.is_not_found() => return Ok(false),
                    disabled => drop(disabled?),
                }
            }
            match self
                .client
                .delete(kind, namespace, name, Delete::default())
                .await
            {
                Ok(_) => Ok(true),
                Err(e) if e.is_not_found() => Ok(false),
                Err(e) => Err(e),
            }
        })
    }

    /// All that policy depends on, as stored now, and which addresses the nodes of `spec` have on
    /// their uplinks.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub(super) fn world(&self, spec: &Spec) -> Result<World, Failure> {
        let mut world = World::default();
        let prefixes = ["/calico/resources/v3/", "/registry/"];
        self.runtime
            .block_on(self.store.list_each(&prefixes, &mut |e| {
                // A bad object counts as absent, as it does for the agents.
                world.extend(api::updates_for_key(&e.key, Some(&e.value)).unwrap_or_default());
            }))?;
        // Nobody stores it, and every cluster has it.
        world.extend(api::updates(&api::default_allow_profile().into()).unwrap_or_default());
        let plan = spec.plan().map_err(|e| Failure::input(e.to_string()))?;
        for n in &plan.nodes {
            let addresses = n.addresses.iter().map(|i| i.addr).collect();
            world.set_interface(&n.name, UPLINK, addresses);
        }
        Ok(world)
    }

    /// Stores a pool that nothing uses, whose range then shows up on every node, in place of the
    /// one before. Gives the range.
    ///
    /// # Errors
    /// If the store refuses.
    pub(super) fn mark(&self, number: u32, family: Option<Family>) -> Result<String, Failure> {
        let cidr = match family {
            Some(Family::V6) => format!("fd00:ffff:{:x}::/122", number * 2),
            // 198.18.0.0/15 is for benchmarks (RFC 2544); every second /26, so that none touch.
            _ => {
                let n = number % 512 * 2;
                format!("198.{}.{}.{}/26", 18 + n / 1024, n / 4 % 256, n % 4 * 64)
            }
        };
        let name = |n: u32| format!("lab-marker-{n}");
        let pool = json!({
            "apiVersion": api::V3, "kind": "IPPool", "metadata": {"name": name(number)},
            "spec": {"cidr": cidr, "disabled": true, "allowedUses": ["Workload"]},
        });
        for parsed in parse_documents(&pool.to_string(), "the lab's marker") {
            let (r, _) = parsed.map_err(|e| Failure::new(e.to_string()))?;
            self.apply(r)?;
        }
        let before = self.runtime.block_on(self.client.delete(
            ResourceKind::IpPool,
            None,
            &name(number - 1),
            Delete::default(),
        ));
        match before {
            Err(e) if !e.is_not_found() => Err(e.into()),
            _ => Ok(cidr),
        }
    }

    /// Gives a pod that runs other labels.
    ///
    /// # Errors
    /// If it is not there, or others keep changing it.
    pub(super) fn relabel(&self, wanted: &Resource) -> Result<(), Failure> {
        let meta = wanted.meta();
        for _ in 0..RELABEL_TRIES {
            let found = self
                .client
                .get(wanted.kind(), wanted.namespace(), &meta.name);
            let mut found = self.runtime.block_on(found)?;
            if found.meta().labels == meta.labels {
                return Ok(());
            }
            found.meta_mut().labels.clone_from(&meta.labels);
            match self.runtime.block_on(self.client.update(found)) {
                // The kubelet or the agent wrote in between.
                Err(e) if e.is_conflict() => {}
                done => return Ok(done.map(drop)?),
            }
        }
        Err(Failure::new(format!("{wanted}: others keep changing it")))
    }

    /// Deletes all objects of such kinds but what a new lab has; gives the pods that must go.
    ///
    /// # Errors
    /// If the store refuses.
    pub(super) fn reset(
        &self,
        spec: &Spec,
        kinds: fn(ResourceKind) -> bool,
    ) -> Result<Vec<PodRef>, Failure> {
        let base: Vec<Resource> = base(spec)?;
        let mut pods = Vec::new();
        // Policies before their tiers, what is in namespaces before these.
        let rank = |k: &ResourceKind| match k {
            ResourceKind::Pod => 0,
            ResourceKind::Namespace | ResourceKind::Tier => 2,
            _ => 1,
        };
        let mut all: Vec<ResourceKind> = ResourceKind::ALL.to_vec();
        all.retain(|k| kinds(*k));
        all.sort_by_key(rank);
        for kind in all {
            let listed = self.runtime.block_on(self.client.list(kind, None))?;
            for r in listed.resources {
                let same = |b: &&Resource| b.kind() == kind && b.meta().name == r.meta().name;
                match base.iter().find(same) {
                    Some(b) => _ = self.apply(b.clone())?,
                    None if is_fixed(&r) => {}
                    None => {
                        pods.extend(gone(&r));
                        self.delete(&r)?;
                    }
                }
            }
        }
        Ok(pods)
    }
}

/// What nobody stores, or nobody may delete.
fn is_fixed(r: &Resource) -> bool {
    let name = &r.meta().name;
    match r.kind() {
        ResourceKind::Tier => api::builtin_tiers()
            .iter()
            .any(|t| t.metadata.name == *name),
        ResourceKind::Profile => ["kns.", "ksa.", "projectcalico-"]
            .iter()
            .any(|p| name.starts_with(p)),
        _ => false,
    }
}

fn base(spec: &Spec) -> Result<Vec<Resource>, Failure> {
    let mut all = Vec::new();
    let mut values = scenario::cluster::base_objects(spec);
    if learns(spec) {
        let plan = spec.plan().map_err(|e| Failure::input(e.to_string()))?;
        values.extend(bgp::objects(&plan));
    }
    for value in values {
        for parsed in parse_documents(&value.to_string(), "the lab's own objects") {
            let (r, _) = parsed.map_err(|e| Failure::new(e.to_string()))?;
            all.push(r);
        }
    }
    Ok(all)
}

/// What every lab has before its first node starts: what a cluster has, the namespaces that
/// Kubernetes makes, and pools.
pub(super) fn prepare(dir: &Dir, spec: &Spec) -> Result<(), Failure> {
    let objects = Objects::open(dir)?;
    objects
        .runtime
        .block_on(datastore::init(&objects.store, &["k8s".to_owned()]))?;
    for r in base(spec)? {
        objects.apply(r)?;
    }
    Ok(())
}

/// Reads files; the good documents, and whether all were good.
pub(super) fn read(files: &[impl AsRef<Path>]) -> (Vec<Resource>, Vec<String>) {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for file in files {
        let file = file.as_ref();
        let text = if file == Path::new("-") {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map(|_| text)
        } else {
            std::fs::read_to_string(file)
        };
        let source = file.display().to_string();
        match text {
            Ok(text) => {
                for parsed in parse_documents(&text, &source) {
                    match parsed {
                        Ok((r, _)) => good.push(in_namespace(r)),
                        Err(e) => bad.push(e.to_string()),
                    }
                }
            }
            Err(e) => bad.push(format!("{source}: {e}")),
        }
    }
    (good, bad)
}

fn in_namespace(mut r: Resource) -> Resource {
    if r.kind().namespaced() && r.meta().namespace.is_empty() {
        "default".clone_into(&mut r.meta_mut().namespace);
    }
    r
}

/// `manx lab apply`.
pub(super) fn apply(name: &str, a: &FileArgs) -> Result<ExitCode, Failure> {
    let handle = Handle::find(name)?;
    let (good, mut bad) = read(&a.files);
    let objects = Objects::open(&handle.dir)?;
    let mut pods = Vec::new();
    for r in in_order(good) {
        let shown = r.to_string();
        match objects.apply(r) {
            Ok(applied) => {
                say!("{shown} applied");
                pods.extend(running(&applied));
            }
            Err(e) => bad.push(format!("{shown}: {e}")),
        }
    }
    finish(&handle, a, pods, bad)
}

/// `manx lab delete`.
pub(super) fn delete(name: &str, a: &FileArgs) -> Result<ExitCode, Failure> {
    let handle = Handle::find(name)?;
    let (good, mut bad) = read(&a.files);
    let objects = Objects::open(&handle.dir)?;
    let mut pods = Vec::new();
    for r in in_order(good).iter().rev() {
        match objects.delete(r) {
            Ok(true) => say!("{r} deleted"),
            Ok(false) => bad.push(format!("{r}: it is not there")),
            Err(e) => bad.push(format!("{r}: {e}")),
        }
        pods.extend(gone(r));
    }
    finish(&handle, a, pods, bad)
}

fn finish(
    handle: &Handle,
    a: &FileArgs,
    pods: Vec<PodRef>,
    bad: Vec<String>,
) -> Result<ExitCode, Failure> {
    for message in &bad {
        note!("error: {message}");
    }
    let late = if a.no_wait {
        Vec::new()
    } else {
        wait(handle, pods, a.timeout)?
    };
    for p in &late {
        note!(
            "error: pod {}/{} is {}: {}",
            p.namespace,
            p.name,
            p.phase,
            why_late(p)
        );
    }
    Ok(match (bad.is_empty(), late.is_empty()) {
        (true, true) => ExitCode::SUCCESS,
        (true, false) => ExitCode::from(1),
        (false, _) => ExitCode::from(2),
    })
}

/// Why a pod is late, for people.
pub(super) fn why_late(p: &PodStatus) -> &str {
    if p.reason.is_empty() {
        "not ready in time"
    } else {
        &p.reason
    }
}

/// The pod that must run now, if it is one.
pub(super) fn running(r: &Resource) -> Option<PodRef> {
    let pod = gone(r)?;
    Some(PodRef {
        uid: Some(r.meta().uid.clone()),
        ..pod
    })
}

/// The pod that must be gone now, if it is one.
pub(super) fn gone(r: &Resource) -> Option<PodRef> {
    let Resource::Pod(p) = r else { return None };
    let (namespace, name) = (p.metadata.namespace.clone(), p.metadata.name.clone());
    Some(PodRef {
        namespace,
        name,
        uid: None,
    })
}

/// Waits for pods; gives those that are late.
pub(super) fn wait(
    handle: &Handle,
    pods: Vec<PodRef>,
    timeout: Duration,
) -> Result<Vec<PodStatus>, Failure> {
    if pods.is_empty() {
        return Ok(Vec::new());
    }
    let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    match handle.ask(&Request::WaitPods { pods, timeout_ms })? {
        Response::Late(late) => Ok(late),
        other => Err(unexpected(&other)),
    }
}
