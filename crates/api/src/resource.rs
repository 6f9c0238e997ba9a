//! Any resource, as one closed type.

use crate::kinds::bgp::{BgpFilter, BgpPeer};
use crate::kinds::cluster_policy::ClusterNetworkPolicy;
use crate::kinds::config::{BgpConfiguration, ClusterInformation, FelixConfiguration};
use crate::kinds::controllers::KubeControllersConfiguration;
use crate::kinds::endpoint::{HostEndpoint, Profile, WorkloadEndpoint};
use crate::kinds::ipam::{BlockAffinity, IpamBlock, IpamConfiguration, IpamHandle};
use crate::kinds::kube::{KubeNetworkPolicy, KubeNode, Namespace, Pod, Secret, ServiceAccount};
use crate::kinds::node::Node;
use crate::kinds::node_status::CalicoNodeStatus;
use crate::kinds::policy::{
    GlobalNetworkPolicy, NetworkPolicy, StagedGlobalNetworkPolicy, StagedKubernetesNetworkPolicy,
    StagedNetworkPolicy, Tier,
};
use crate::kinds::pool::{IpPool, IpReservation};
use crate::kinds::service::{EndpointSlice, Service};
use crate::kinds::sets::{GlobalNetworkSet, NetworkSet};
use crate::meta::ObjectMeta;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

macro_rules! resources {
    ($( $(#[$doc:meta])* $kind:ident, )*) => {
        /// The kinds that exist. [`ResourceKind::info`] is the table of what is fixed of each.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum ResourceKind {
            $( $(#[$doc])* $kind, )*
        }

        impl ResourceKind {
            /// Each kind, Calico's before Kubernetes'.
            pub const ALL: &'static [Self] = &[$( Self::$kind, )*];

            /// An object of the kind with nothing in it.
            pub fn empty(self) -> Resource {
                match self { $( Self::$kind => Resource::$kind($kind::default()), )* }
            }

            /// Reads an object of the kind, as stored: fields that are unknown are
            /// passed over (and kept, for Kubernetes' kinds).
            pub(crate) fn read<'de, D: Deserializer<'de>>(self, d: D) -> Result<Resource, D::Error> {
                let mut r = match self {
                    $( Self::$kind => Resource::$kind($kind::deserialize(d)?), )*
                };
                r.drop_type();
                Ok(r)
            }
        }

        /// A resource of any kind, in the form in which it is stored and shown.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Resource {
            $( $(#[$doc])* $kind($kind), )*
        }

        impl Resource {
            /// Its kind.
            pub const fn kind(&self) -> ResourceKind {
                match self { $( Self::$kind(_) => ResourceKind::$kind, )* }
            }

            /// Its metadata.
            pub const fn meta(&self) -> &ObjectMeta {
                match self { $( Self::$kind(r) => &r.metadata, )* }
            }

            /// Its metadata, to change.
            pub const fn meta_mut(&mut self) -> &mut ObjectMeta {
                match self { $( Self::$kind(r) => &mut r.metadata, )* }
            }
        }

        /// Writes `kind` and `apiVersion` first, then the object's own fields, in
        /// Calico's order; the stored form.
        impl Serialize for Resource {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                match self { $( Self::$kind(r) => typed(self.kind(), r).serialize(s), )* }
            }
        }

        $(
            impl From<$kind> for Resource {
                fn from(r: $kind) -> Self {
                    Self::$kind(r)
                }
            }
        )*
    };
}

resources! {
    /// `IPPool`
    IpPool,
    /// `IPReservation`
    IpReservation,
    /// Calico's `Node`
    Node,
    /// `WorkloadEndpoint`
    WorkloadEndpoint,
    /// `HostEndpoint`
    HostEndpoint,
    /// `Profile`
    Profile,
    /// `Tier`
    Tier,
    /// Calico's `NetworkPolicy`
    NetworkPolicy,
    /// `GlobalNetworkPolicy`
    GlobalNetworkPolicy,
    /// `StagedNetworkPolicy`
    StagedNetworkPolicy,
    /// `StagedGlobalNetworkPolicy`
    StagedGlobalNetworkPolicy,
    /// `StagedKubernetesNetworkPolicy`
    StagedKubernetesNetworkPolicy,
    /// `NetworkSet`
    NetworkSet,
    /// `GlobalNetworkSet`
    GlobalNetworkSet,
    /// `IPAMConfiguration`
    IpamConfiguration,
    /// `BlockAffinity`
    BlockAffinity,
    /// `IPAMBlock`
    IpamBlock,
    /// `IPAMHandle`
    IpamHandle,
    /// `FelixConfiguration`
    FelixConfiguration,
    /// `BGPConfiguration`
    BgpConfiguration,
    /// `BGPPeer`
    BgpPeer,
    /// `BGPFilter`
    BgpFilter,
    /// `KubeControllersConfiguration`
    KubeControllersConfiguration,
    /// `CalicoNodeStatus`
    CalicoNodeStatus,
    /// `ClusterInformation`
    ClusterInformation,
    /// Kubernetes' `Namespace`
    Namespace,
    /// Kubernetes' `ServiceAccount`
    ServiceAccount,
    /// Kubernetes' `Pod`
    Pod,
    /// Kubernetes' `Node`
    KubeNode,
    /// Kubernetes' `NetworkPolicy`
    KubeNetworkPolicy,
    /// Kubernetes' `ClusterNetworkPolicy`
    ClusterNetworkPolicy,
    /// Kubernetes' `Service`
    Service,
    /// Kubernetes' `EndpointSlice`
    EndpointSlice,
    /// Kubernetes' `Secret`
    Secret,
}

#[derive(Serialize)]
struct Typed<'a, T> {
    kind: &'static str,
    #[serde(rename = "apiVersion")]
    api_version: &'static str,
    #[serde(flatten)]
    object: &'a T,
}

const fn typed<T>(kind: ResourceKind, object: &T) -> Typed<'_, T> {
    let i = kind.info();
    Typed {
        kind: i.kind,
        api_version: i.api_version,
        object,
    }
}

impl Resource {
    /// The namespace it is in; `None` for global kinds.
    pub fn namespace(&self) -> Option<&str> {
        self.kind()
            .namespaced()
            .then_some(self.meta().namespace.as_str())
    }

    /// The key that it is stored under.
    pub fn key(&self) -> String {
        crate::kind::key(self.kind(), self.namespace(), &self.meta().name)
    }

    /// The kinds that keep unknown fields would keep these two as well, and write them twice.
    fn drop_type(&mut self) {
        let rest = match self {
            Self::Namespace(r) => &mut r.rest,
            Self::ServiceAccount(r) => &mut r.rest,
            Self::Pod(r) => &mut r.rest,
            Self::KubeNode(r) => &mut r.rest,
            Self::Service(r) => &mut r.rest,
            Self::EndpointSlice(r) => &mut r.rest,
            Self::Secret(r) => &mut r.rest,
            _ => return,
        };
        rest.remove("kind");
        rest.remove("apiVersion");
    }
}

/// Prints `Kind(namespace/name)` or `Kind(name)`, as error texts have it.
impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.meta().name;
        match self.namespace() {
            Some(ns) => write!(f, "{}({ns}/{name})", self.kind().name()),
            None => write!(f, "{}({name})", self.kind().name()),
        }
    }
}
