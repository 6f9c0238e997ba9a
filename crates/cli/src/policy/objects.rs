//! The resources that a question is about, and the world that they make.
//!
//! Promises: objects of files are defaulted and validated as `apply` does; what a cluster always
//! has, and files usually leave out, is assumed and said.

use crate::args::{Namespace, Sources};
use crate::cluster::Cluster;
use crate::run::Console;
use crate::{CliError, source, write};
use api::kinds::kube::{Pod, PodIp};
use api::{Resource, ResourceKind};
use net::Cidr;
use std::collections::{BTreeMap, BTreeSet};
use verdict::World;

/// Where pods without an address are put when there is no pool.
const SOME_POOL: &str = "10.244.0.0/16";

/// The node of pods that are on none, when there is no node.
const SOME_NODE: &str = "unscheduled";

/// Kinds that verdicts do not depend on.
const NOT_ASKED: [ResourceKind; 5] = [
    ResourceKind::IpamBlock,
    ResourceKind::IpamHandle,
    ResourceKind::BlockAffinity,
    ResourceKind::IpamConfiguration,
    ResourceKind::CalicoNodeStatus,
];

type Id = (ResourceKind, String, String);

fn id(r: &Resource) -> Id {
    let namespace = r.namespace().unwrap_or_default().to_owned();
    (r.kind(), namespace, r.meta().name.clone())
}

/// Resources by what they are.
#[derive(Debug, Clone, Default)]
pub(crate) struct Objects {
    all: BTreeMap<Id, Resource>,
    notes: BTreeSet<String>,
}

impl Objects {
    /// Those of a store. What it cannot read is absent, and noted.
    pub(crate) fn of_store(cluster: &Cluster) -> Result<Self, CliError> {
        let mut out = Self::default();
        if let Some(path) = &cluster.missing {
            out.notes
                .insert(format!("there is no store {} yet", path.display()));
        }
        for kind in ResourceKind::ALL.iter().filter(|k| !NOT_ASKED.contains(k)) {
            let listed = match cluster.list(*kind, None) {
                Ok(listed) => listed,
                Err(crate::cluster::ObjectError::Unsupported { .. }) => continue,
                Err(e) => return Err(e.into()),
            };
            out.notes
                .extend(listed.bad.iter().map(|b| format!("left out: {b}")));
            for r in listed.items {
                out.put(r);
            }
        }
        Ok(out)
    }

    /// Those of files, each valid.
    pub(crate) fn of_files(
        sources: &Sources,
        namespace: &Namespace,
        console: &mut Console<'_>,
    ) -> Result<Self, CliError> {
        let mut out = Self::default();
        let mut refused = Vec::new();
        for document in source::read(sources, console.input)? {
            match document {
                Ok((mut r, at)) => {
                    write::in_namespace(&mut r, namespace);
                    api::default(&mut r);
                    match api::validate(&r) {
                        Ok(()) => out.put(r),
                        Err(e) => refused.push(format!("{at}: {r}: {e}")),
                    }
                }
                Err(e) => refused.push(e.to_string()),
            }
        }
        match refused.is_empty() {
            false => Err(CliError::BadInput(refused.join("\n"))),
            true if out.all.is_empty() && !sources.skip_empty => Err(CliError::NoResources),
            true => Ok(out),
        }
    }

    pub(crate) fn put(&mut self, r: Resource) {
        self.all.insert(id(&r), r);
    }

    /// With others in the place of those of the same kind and name, as `apply` does it: what nodes wrote
    /// to a pod stays.
    pub(crate) fn with(&self, others: &Self) -> Self {
        let mut out = self.clone();
        for (k, v) in &others.all {
            let mut new = v.clone();
            if let Some(old) = self.all.get(k) {
                datastore::keep_written(old, &mut new);
            }
            out.all.insert(k.clone(), new);
        }
        out
    }

    /// Without those of the same kind and name.
    ///
    /// # Errors
    /// Names those that are not there.
    pub(crate) fn without(&self, others: &Self) -> Result<Self, CliError> {
        let mut out = self.clone();
        let absent = others
            .all
            .iter()
            .filter(|(k, _)| out.all.remove(k).is_none());
        let absent: Vec<String> = absent.map(|(_, r)| format!("{r} does not exist")).collect();
        match absent.is_empty() {
            true => Ok(out),
            false => Err(CliError::Refused(absent.join("\n"))),
        }
    }

    /// Whether a staged policy is among them.
    pub(crate) fn has_staged(&self) -> bool {
        use ResourceKind as K;
        let staged = [
            K::StagedNetworkPolicy,
            K::StagedGlobalNetworkPolicy,
            K::StagedKubernetesNetworkPolicy,
        ];
        self.all.keys().any(|(kind, ..)| staged.contains(kind))
    }

    /// Whether every difference to others is in a policy.
    pub(crate) fn differs_in_policies_alone(&self, others: &Self) -> bool {
        use ResourceKind as K;
        let differs = |a: &Self, b: &Self| {
            let other = a.all.iter().filter(|(k, r)| b.all.get(*k) != Some(r));
            let policy = |k: K| {
                matches!(
                    k,
                    K::NetworkPolicy
                        | K::GlobalNetworkPolicy
                        | K::KubeNetworkPolicy
                        | K::ClusterNetworkPolicy
                        | K::StagedNetworkPolicy
                        | K::StagedGlobalNetworkPolicy
                        | K::StagedKubernetesNetworkPolicy
                )
            };
            other.into_iter().any(|((k, ..), _)| !policy(*k))
        };
        !differs(self, others) && !differs(others, self)
    }

    /// What they come to, and what was assumed.
    pub(crate) fn world(&self) -> (World, Vec<String>) {
        let mut notes = self.notes.clone();
        let mut world = World::from_iter(api::builtin_updates());
        let tiers = api::builtin_tiers().map(Resource::from);
        let namespaces = self.missing_namespaces(&mut notes);
        let pods = self.placed_pods(&mut notes);
        let stored = self.all.iter().map(|(k, r)| pods.get(k).unwrap_or(r));
        for r in tiers.iter().chain(&namespaces).chain(stored) {
            match api::updates(r) {
                Ok(updates) => world.extend(updates),
                Err(e) => _ = notes.insert(format!("counts as absent: {e}")),
            }
        }
        (world, notes.into_iter().collect())
    }

    /// A pod runs in a namespace that exists: files leave that out.
    fn missing_namespaces(&self, notes: &mut BTreeSet<String>) -> Vec<Resource> {
        let pods = self.all.values().filter(|r| r.kind() == ResourceKind::Pod);
        let used: BTreeSet<&str> = pods.filter_map(Resource::namespace).collect();
        let known = |n: &str| {
            let key = (ResourceKind::Namespace, String::new(), n.to_owned());
            self.all.contains_key(&key)
        };
        let missing = used.into_iter().filter(|n| !known(n));
        let make = |name: &str| {
            notes.insert(format!(
                "namespace {name} is not given: taken to be without labels"
            ));
            let mut r = ResourceKind::Namespace.empty();
            let meta = r.meta_mut();
            name.clone_into(&mut meta.name);
            meta.labels
                .insert("kubernetes.io/metadata.name".to_owned(), name.to_owned());
            r
        };
        missing.map(make).collect()
    }

    /// Pods that have no address yet, with one.
    fn placed_pods(&self, notes: &mut BTreeSet<String>) -> BTreeMap<Id, Resource> {
        let waits = |p: &Pod| {
            let done = p.status.phase == "Succeeded" || p.status.phase == "Failed";
            let has = !p.status.pod_ip.is_empty() || !p.status.pod_ips.is_empty();
            let stated = ["podIP", "podIPs"].iter().any(|a| {
                p.metadata
                    .annotations
                    .contains_key(&format!("cni.projectcalico.org/{a}"))
            });
            !done && !has && !stated && !p.spec.host_network
        };
        let taken: BTreeSet<String> = self.all.values().flat_map(addresses).collect();
        let pool = self.all.values().find_map(pool);
        let cidr = pool.unwrap_or_else(|| SOME_POOL.parse().expect("a constant prefix"));
        let mut free = (10..cidr.size()).filter_map(|n| cidr.nth(n));
        let mut out = BTreeMap::new();
        for (key, r) in &self.all {
            let Resource::Pod(p) = r else { continue };
            if !waits(p) {
                continue;
            }
            let Some(address) = free.find(|a| !taken.contains(&a.to_string())) else {
                break;
            };
            let mut pod = p.clone();
            pod.status.pod_ip = address.to_string();
            pod.status.pod_ips = vec![PodIp {
                ip: address.to_string(),
            }];
            if pod.spec.node_name.is_empty() {
                pod.spec.node_name = self.some_node();
            }
            out.insert(key.clone(), Resource::Pod(pod));
        }
        if !out.is_empty() {
            notes.insert(format!(
                "{} pods have no address yet: taken from {cidr}",
                out.len()
            ));
        }
        out
    }

    fn some_node(&self) -> String {
        let is = |k: ResourceKind| k == ResourceKind::Node || k == ResourceKind::KubeNode;
        let mut nodes = self.all.values().filter(|r| is(r.kind()));
        nodes
            .next()
            .map_or_else(|| SOME_NODE.to_owned(), |r| r.meta().name.clone())
    }
}

/// The first pool for workloads that is in use.
fn pool(r: &Resource) -> Option<Cidr> {
    match r {
        Resource::IpPool(p) if !p.spec.disabled => p.spec.cidr.parse().ok(),
        _ => None,
    }
}

/// The addresses that pods have.
fn addresses(r: &Resource) -> Vec<String> {
    match r {
        Resource::Pod(p) => {
            let all = p.status.pod_ips.iter().map(|i| i.ip.clone());
            all.chain([p.status.pod_ip.clone()]).collect()
        }
        _ => Vec::new(),
    }
}
