//! Stored objects into the model: what calculation is fed with.
//!
//! Promises: an object that validation accepts converts; one that does not convert is named with the
//! cause, and the caller treats it as absent. The updates of an object depend on nothing but the object.
//! Never: looks at a second object.

mod bgp;
mod block;
mod cluster_policy;
mod config;
mod endpoint;
mod kube_policy;
mod lean;
mod node;
mod pod;
mod policy;
mod pool;
mod secret;
mod service;

pub use endpoint::{namespace_profile, service_account_profile};
pub use kube_policy::to_v3 as kube_policy_to_v3;
pub use node::{from_kube as kube_node_to_node, to_annotations as node_annotations};
pub use pod::{
    NoEndpoint, interface_name, split_workload_name, to_workload_endpoint, workload_name,
};

pub(crate) use bgp::{community, peer_address};
pub(crate) use cluster_policy::is_domain;
pub(crate) use config::{go_duration, text as felix_text};
pub(crate) use endpoint::dscp;
pub(crate) use policy::{action, types};
pub(crate) use pool::default_block_size;
pub(crate) use secret::secret_value;

use crate::error::BadObject;
use crate::kind::{ResourceKey, parse_key};
use crate::kinds::endpoint::Profile;
use crate::kinds::policy::{Rule, Tier, TierSpec};
use crate::meta::ObjectMeta;
use crate::resource::{Resource, ResourceKind};
use crate::stored;
use crate::wire::Number;
use model::{NetworkSetKey, PolicyKey, PolicyKind, SecretRef, ServiceRef, SliceKey, Update};
use std::fmt::Display;
use std::sync::Arc;

/// Where blocks lie in the etcd layout, for either family.
const BLOCKS: &str = "/calico/ipam/v2/assignment/";

/// The cause of a failed conversion, before the object's name is known.
type Cause = String;

/// Takes what went wrong with one field as the cause.
fn cause(field: &str) -> impl Fn(&dyn Display) -> Cause + '_ {
    move |e| format!("{field}: {e}")
}

/// What conversion has to be told, since objects do not say it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversion {
    /// How the host sides of pods' links begin: the first of FELIX_INTERFACEPREFIX.
    pub interface_prefix: Arc<str>,
}

impl Default for Conversion {
    fn default() -> Self {
        Self {
            interface_prefix: "cali".into(),
        }
    }
}

/// What one entry of the store means for calculation, in a cluster with the usual configuration.
///
/// # Errors
/// As [`Conversion::updates_for_key`].
pub fn updates_for_key(key: &str, value: Option<&[u8]>) -> Result<Vec<Update>, BadObject> {
    Conversion::default().updates_for_key(key, value)
}

/// What a resource means for calculation, in a cluster with the usual configuration. Kinds that mean
/// nothing to it give no updates.
///
/// # Errors
/// When the object cannot be used. It then counts as absent.
pub fn updates(resource: &Resource) -> Result<Vec<Update>, BadObject> {
    Conversion::default().updates(resource)
}

/// What every cluster has without anybody storing it.
pub fn builtin_updates() -> Vec<Update> {
    updates(&default_allow_profile().into()).unwrap_or_default()
}

impl Conversion {
    /// What one entry of the store means for calculation.
    ///
    /// With `value` `None` the entry was deleted: the updates say so, as far as the key tells what it
    /// was. It does not for workloads, whose model key has the node in it, nor does an `Err` say what
    /// was there before; so the caller remembers what each entry led to, and retracts with
    /// [`absent`] what no longer comes. Keys of other things give no updates.
    ///
    /// # Errors
    /// When the object cannot be used. It then counts as absent.
    pub fn updates_for_key(
        &self,
        key: &str,
        value: Option<&[u8]>,
    ) -> Result<Vec<Update>, BadObject> {
        let bad = |reason| BadObject {
            object: key.to_owned(),
            reason,
        };
        if let Some(rest) = key.strip_prefix(BLOCKS) {
            return block::updates(rest, value).map_err(bad);
        }
        let Some(at) = parse_key(key) else {
            return Ok(Vec::new());
        };
        let Some(bytes) = value else {
            return Ok(deleted(&at));
        };
        if at.kind == ResourceKind::Pod {
            let pod = lean::Pod::read(bytes, &at).map_err(|e| bad(e.to_string()))?;
            return Ok(pod::updates(&pod, &self.interface_prefix));
        }
        self.updates(&stored::decode(&at, bytes, None)?)
    }

    /// What a resource means for calculation. Kinds that mean nothing to it give no updates.
    ///
    /// # Errors
    /// When the object cannot be used. It then counts as absent.
    pub fn updates(&self, resource: &Resource) -> Result<Vec<Update>, BadObject> {
        let converted = match resource {
            Resource::Pod(r) => Ok(pod::updates(&lean::Pod::from(r), &self.interface_prefix)),
            r => stored_updates(r),
        };
        converted.map_err(|reason| BadObject {
            object: resource.to_string(),
            reason,
        })
    }
}

/// Of the kinds that say everything themselves.
fn stored_updates(resource: &Resource) -> Result<Vec<Update>, Cause> {
    let one = |u: Result<Update, Cause>| u.map(|u| vec![u]);
    match resource {
        Resource::IpPool(r) => one(pool::update(r)),
        Resource::Node(r) => one(node::update(r)),
        Resource::KubeNode(r) => one(node::update(&node::from_kube(r))),
        Resource::WorkloadEndpoint(r) => endpoint::workload_updates(r),
        Resource::HostEndpoint(r) => one(endpoint::host_update(r)),
        Resource::Profile(r) => one(endpoint::profile_update(r)),
        Resource::Namespace(r) => Ok(vec![endpoint::namespace_update(&r.metadata)]),
        Resource::ServiceAccount(r) => Ok(vec![endpoint::service_account_update(&r.metadata)]),
        Resource::Tier(r) => one(policy::tier_update(r)),
        Resource::NetworkPolicy(r) => one(policy::network_policy_update(r)),
        Resource::GlobalNetworkPolicy(r) => one(policy::global_policy_update(r)),
        Resource::KubeNetworkPolicy(r) => one(kube_policy::update(r)),
        Resource::ClusterNetworkPolicy(r) => one(cluster_policy::update(r)),
        Resource::StagedNetworkPolicy(r) => one(policy::policy_update(
            PolicyKind::StagedNetworkPolicy,
            Some(&r.metadata.namespace),
            &r.metadata.name,
            &r.spec,
        )),
        Resource::StagedGlobalNetworkPolicy(r) => one(policy::policy_update(
            PolicyKind::StagedGlobalNetworkPolicy,
            None,
            &r.metadata.name,
            &r.spec,
        )),
        Resource::StagedKubernetesNetworkPolicy(r) => one(kube_policy::staged_update(r)),
        Resource::Service(r) => one(service::service_update(r)),
        Resource::EndpointSlice(r) => service::slice_updates(r),
        Resource::Secret(r) => one(secret::update(r)),
        Resource::BgpConfiguration(r) => one(bgp::config_update(r)),
        Resource::BgpPeer(r) => one(bgp::peer_update(r)),
        Resource::BgpFilter(r) => one(bgp::filter_update(r)),
        Resource::NetworkSet(r) => one(endpoint::set_update(
            &r.metadata,
            &r.spec,
            Some(&r.metadata.namespace),
        )),
        Resource::GlobalNetworkSet(r) => one(endpoint::set_update(&r.metadata, &r.spec, None)),
        Resource::FelixConfiguration(r) => one(config::felix_update(r)),
        Resource::ClusterInformation(r) => {
            Ok(vec![Update::Ready(r.spec.datastore_ready.unwrap_or(false))])
        }
        Resource::IpamBlock(r) => one(block::update(&r.spec)),
        Resource::IpReservation(_)
        | Resource::IpamConfiguration(_)
        | Resource::BlockAffinity(_)
        | Resource::IpamHandle(_)
        | Resource::KubeControllersConfiguration(_)
        | Resource::CalicoNodeStatus(_)
        | Resource::Pod(_) => Ok(Vec::new()),
    }
}

/// The same thing, gone: what retracts an update. The datastore's readiness is retracted to "not ready".
pub fn absent(update: &Update) -> Update {
    match update {
        Update::Workload(k, _) => Update::Workload(k.clone(), None),
        Update::Host(k, _) => Update::Host(k.clone(), None),
        Update::Profile(k, _) => Update::Profile(k.clone(), None),
        Update::Policy(k, _) => Update::Policy(k.clone(), None),
        Update::Tier(k, _) => Update::Tier(k.clone(), None),
        Update::NetworkSet(k, _) => Update::NetworkSet(k.clone(), None),
        Update::Pool(k, _) => Update::Pool(k.clone(), None),
        Update::Block(k, _) => Update::Block(*k, None),
        Update::Node(k, _) => Update::Node(k.clone(), None),
        Update::Felix(k, _) => Update::Felix(k.clone(), None),
        Update::Service(k, _) => Update::Service(k.clone(), None),
        Update::EndpointSlice(k, _) => Update::EndpointSlice(k.clone(), None),
        Update::BgpConfig(k, _) => Update::BgpConfig(k.clone(), None),
        Update::BgpPeer(k, _) => Update::BgpPeer(k.clone(), None),
        Update::BgpFilter(k, _) => Update::BgpFilter(k.clone(), None),
        Update::Secret(k, _) => Update::Secret(k.clone(), None),
        Update::Domain(k, _) => Update::Domain(k.clone(), None),
        Update::Ready(_) => Update::Ready(false),
    }
}

fn deleted(at: &ResourceKey<'_>) -> Vec<Update> {
    let name: Arc<str> = at.name.into();
    let namespace = || at.namespace.map(Arc::from);
    let policy = |kind, name| {
        Update::Policy(
            PolicyKey {
                kind,
                namespace: namespace(),
                name,
            },
            None,
        )
    };
    let update = match at.kind {
        ResourceKind::IpPool => Update::Pool(name, None),
        ResourceKind::Node | ResourceKind::KubeNode => Update::Node(name, None),
        ResourceKind::HostEndpoint => Update::Host(name, None),
        ResourceKind::Profile => Update::Profile(name, None),
        ResourceKind::Tier => Update::Tier(name, None),
        ResourceKind::NetworkPolicy => policy(PolicyKind::NetworkPolicy, name),
        ResourceKind::GlobalNetworkPolicy => policy(PolicyKind::GlobalNetworkPolicy, name),
        ResourceKind::KubeNetworkPolicy => policy(PolicyKind::KubernetesNetworkPolicy, name),
        ResourceKind::ClusterNetworkPolicy => {
            policy(PolicyKind::KubernetesClusterNetworkPolicy, name)
        }
        ResourceKind::StagedNetworkPolicy => policy(PolicyKind::StagedNetworkPolicy, name),
        ResourceKind::StagedGlobalNetworkPolicy => {
            policy(PolicyKind::StagedGlobalNetworkPolicy, name)
        }
        ResourceKind::StagedKubernetesNetworkPolicy => {
            policy(PolicyKind::StagedKubernetesNetworkPolicy, name)
        }
        ResourceKind::Service => Update::Service(
            ServiceRef {
                namespace: at.namespace.unwrap_or_default().into(),
                name,
            },
            None,
        ),
        ResourceKind::EndpointSlice => Update::EndpointSlice(
            SliceKey {
                namespace: at.namespace.unwrap_or_default().into(),
                name,
            },
            None,
        ),
        ResourceKind::Secret => Update::Secret(
            SecretRef {
                namespace: at.namespace.unwrap_or_default().into(),
                name,
            },
            None,
        ),
        ResourceKind::BgpConfiguration => Update::BgpConfig(name, None),
        ResourceKind::BgpPeer => Update::BgpPeer(name, None),
        ResourceKind::BgpFilter => Update::BgpFilter(name, None),
        ResourceKind::NetworkSet | ResourceKind::GlobalNetworkSet => Update::NetworkSet(
            NetworkSetKey {
                namespace: namespace(),
                name,
            },
            None,
        ),
        ResourceKind::FelixConfiguration => Update::Felix(name, None),
        ResourceKind::ClusterInformation => Update::Ready(false),
        ResourceKind::Namespace => Update::Profile(format!("kns.{name}").into(), None),
        ResourceKind::ServiceAccount => {
            let ns = at.namespace.unwrap_or_default();
            Update::Profile(format!("ksa.{ns}.{name}").into(), None)
        }
        ResourceKind::WorkloadEndpoint => {
            return endpoint::workload_key(at.namespace.unwrap_or_default(), at.name)
                .map(|k| Update::Workload(k, None))
                .into_iter()
                .collect();
        }
        ResourceKind::Pod
        | ResourceKind::IpReservation
        | ResourceKind::IpamConfiguration
        | ResourceKind::BlockAffinity
        | ResourceKind::IpamBlock
        | ResourceKind::IpamHandle
        | ResourceKind::KubeControllersConfiguration
        | ResourceKind::CalicoNodeStatus => return Vec::new(),
    };
    vec![update]
}

/// Name of the profile that allows everything.
pub(crate) const DEFAULT_ALLOW: &str = "projectcalico-default-allow";

/// The profile that allows everything; it exists in every cluster, nobody stores it.
pub fn default_allow_profile() -> Profile {
    let allow = || {
        vec![Rule {
            action: "Allow".to_owned(),
            ..Rule::default()
        }]
    };
    let mut p = Profile {
        metadata: ObjectMeta::named(DEFAULT_ALLOW),
        ..Profile::default()
    };
    "1".clone_into(&mut p.metadata.resource_version);
    p.spec.ingress = allow();
    p.spec.egress = allow();
    p
}

/// The tiers that exist in every cluster; whoever writes to a store first, writes them.
pub fn builtin_tiers() -> [Tier; 3] {
    [
        ("kube-admin", 1000.0, "Pass"),
        ("default", 1_000_000.0, "Deny"),
        ("kube-baseline", 10_000_000.0, "Pass"),
    ]
    .map(|(name, order, action)| Tier {
        metadata: ObjectMeta::named(name),
        spec: TierSpec {
            order: Some(Number(order)),
            default_action: action.to_owned(),
        },
        status: None,
    })
}
