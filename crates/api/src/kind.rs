//! The one table of kinds: what each is called, where it lives in the store.
//!
//! Promises: a key built here parses back to the same kind, namespace and name.
//! Never: knows a store; IPAM's own etcd keys are the ipam crate's.

use crate::resource::ResourceKind;

/// What is fixed about a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KindInfo {
    /// As `kind:` spells it.
    pub kind: &'static str,
    /// As `apiVersion:` spells it.
    pub api_version: &'static str,
    /// As URLs, keys and users spell many of them.
    pub plural: &'static str,
    /// What else users call it.
    pub aliases: &'static [&'static str],
    /// Whether it lives in a namespace.
    pub namespaced: bool,
    /// Where it is stored in the etcd layout, with a final `/`.
    pub prefix: &'static str,
}

/// `apiVersion` of Calico's kinds.
pub const V3: &str = "projectcalico.org/v3";

macro_rules! v3 {
    ($kind:literal, $plural:literal, $ns:literal, [$($alias:literal),*]) => {
        KindInfo {
            kind: $kind,
            api_version: V3,
            plural: $plural,
            aliases: &[$($alias),*],
            namespaced: $ns,
            prefix: concat!("/calico/resources/v3/projectcalico.org/", $plural, "/"),
        }
    };
}

macro_rules! kube {
    ($kind:literal, $version:literal, $plural:literal, $at:literal, $ns:literal, [$($alias:literal),*]) => {
        KindInfo {
            kind: $kind,
            api_version: $version,
            plural: $plural,
            aliases: &[$($alias),*],
            namespaced: $ns,
            prefix: concat!("/registry/", $at, "/"),
        }
    };
}

impl ResourceKind {
    /// The kind's row of the table.
    pub const fn info(self) -> &'static KindInfo {
        match self {
            Self::IpPool => &v3!("IPPool", "ippools", false, ["ipp", "ipps", "pool", "pools"]),
            Self::IpReservation => &v3!(
                "IPReservation",
                "ipreservations",
                false,
                ["reservation", "reservations"]
            ),
            Self::Node => &v3!("Node", "nodes", false, ["no", "nos"]),
            Self::WorkloadEndpoint => &v3!(
                "WorkloadEndpoint",
                "workloadendpoints",
                true,
                ["wep", "weps"]
            ),
            Self::HostEndpoint => &v3!("HostEndpoint", "hostendpoints", false, ["hep", "heps"]),
            Self::Profile => &v3!("Profile", "profiles", false, ["pro", "pros"]),
            Self::Tier => &v3!("Tier", "tiers", false, []),
            Self::NetworkPolicy => &v3!(
                "NetworkPolicy",
                "networkpolicies",
                true,
                [
                    "policy",
                    "np",
                    "pol",
                    "policies",
                    "pols",
                    "nps",
                    "cnp",
                    "caliconetworkpolicy"
                ]
            ),
            Self::GlobalNetworkPolicy => &v3!(
                "GlobalNetworkPolicy",
                "globalnetworkpolicies",
                false,
                ["gnp", "gnps", "cgnp"]
            ),
            Self::StagedNetworkPolicy => &v3!(
                "StagedNetworkPolicy",
                "stagednetworkpolicies",
                true,
                [
                    "stagedpolicy",
                    "stagedpolicies",
                    "snp",
                    "spol",
                    "spols",
                    "scnp"
                ]
            ),
            Self::StagedGlobalNetworkPolicy => &v3!(
                "StagedGlobalNetworkPolicy",
                "stagedglobalnetworkpolicies",
                false,
                ["sgnp", "sgnps"]
            ),
            Self::StagedKubernetesNetworkPolicy => &v3!(
                "StagedKubernetesNetworkPolicy",
                "stagedkubernetesnetworkpolicies",
                true,
                [
                    "stagedkubernetespolicy",
                    "stagedkubernetespolicies",
                    "sknp",
                    "skpol",
                    "skpols"
                ]
            ),
            Self::NetworkSet => &v3!("NetworkSet", "networksets", true, ["netset", "netsets"]),
            Self::GlobalNetworkSet => &v3!(
                "GlobalNetworkSet",
                "globalnetworksets",
                false,
                ["gnetset", "gnetsets", "gns"]
            ),
            Self::IpamConfiguration => &v3!(
                "IPAMConfiguration",
                "ipamconfigurations",
                false,
                ["ipamconfig", "ipamconfigs"]
            ),
            Self::BlockAffinity => &v3!(
                "BlockAffinity",
                "blockaffinities",
                false,
                ["affinity", "affinities"]
            ),
            Self::IpamBlock => &v3!("IPAMBlock", "ipamblocks", false, []),
            Self::IpamHandle => &v3!("IPAMHandle", "ipamhandles", false, []),
            Self::FelixConfiguration => &v3!(
                "FelixConfiguration",
                "felixconfigurations",
                false,
                ["felixconfig", "felixconfigs"]
            ),
            Self::BgpConfiguration => &v3!(
                "BGPConfiguration",
                "bgpconfigurations",
                false,
                ["bgpconfig", "bgpconfigs"]
            ),
            Self::BgpPeer => &v3!("BGPPeer", "bgppeers", false, ["bgpp", "bgpps", "bp", "bps"]),
            Self::BgpFilter => &v3!(
                "BGPFilter",
                "bgpfilters",
                false,
                ["bgpf", "bgpfs", "bf", "bfs"]
            ),
            Self::KubeControllersConfiguration => &v3!(
                "KubeControllersConfiguration",
                "kubecontrollersconfigurations",
                false,
                ["kubecontrollersconfig", "kubecontrollersconfigs", "kcc"]
            ),
            Self::CalicoNodeStatus => &v3!(
                "CalicoNodeStatus",
                "caliconodestatuses",
                false,
                ["nodestatus", "nodestatuses"]
            ),
            Self::ClusterInformation => &v3!(
                "ClusterInformation",
                "clusterinformations",
                false,
                ["clusterinfo", "clusterinfos"]
            ),
            Self::Namespace => &kube!("Namespace", "v1", "namespaces", "namespaces", false, ["ns"]),
            Self::ServiceAccount => &kube!(
                "ServiceAccount",
                "v1",
                "serviceaccounts",
                "serviceaccounts",
                true,
                ["sa"]
            ),
            Self::Pod => &kube!("Pod", "v1", "pods", "pods", true, ["po"]),
            Self::KubeNode => &kube!(
                "Node",
                "v1",
                "nodes",
                "minions",
                false,
                ["kubenode", "kubenodes", "knode"]
            ),
            Self::KubeNetworkPolicy => &kube!(
                "NetworkPolicy",
                "networking.k8s.io/v1",
                "networkpolicies",
                "networkpolicies",
                true,
                [
                    "kubernetesnetworkpolicy",
                    "kubernetesnetworkpolicies",
                    "knp"
                ]
            ),
            Self::ClusterNetworkPolicy => &kube!(
                "ClusterNetworkPolicy",
                "policy.networking.k8s.io/v1alpha2",
                "clusternetworkpolicies",
                "policy.networking.k8s.io/clusternetworkpolicies",
                false,
                [
                    "kcnp",
                    "kcnps",
                    "kubernetesclusternetworkpolicy",
                    "kubernetesclusternetworkpolicies"
                ]
            ),
            Self::Service => &kube!(
                "Service",
                "v1",
                "services",
                "services/specs",
                true,
                ["svc", "svcs"]
            ),
            Self::EndpointSlice => &kube!(
                "EndpointSlice",
                "discovery.k8s.io/v1",
                "endpointslices",
                "endpointslices",
                true,
                []
            ),
            Self::Secret => &kube!("Secret", "v1", "secrets", "secrets", true, []),
        }
    }

    /// As `kind:` spells it.
    pub const fn name(self) -> &'static str {
        self.info().kind
    }

    /// Whether it lives in a namespace.
    pub const fn namespaced(self) -> bool {
        self.info().namespaced
    }

    /// Where all of the kind are stored, with a final `/`.
    pub const fn prefix(self) -> &'static str {
        self.info().prefix
    }

    /// Whether it is Kubernetes' kind, not Calico's.
    pub const fn is_kube(self) -> bool {
        matches!(
            self,
            Self::Namespace
                | Self::ServiceAccount
                | Self::Pod
                | Self::KubeNode
                | Self::KubeNetworkPolicy
                | Self::ClusterNetworkPolicy
                | Self::Service
                | Self::EndpointSlice
                | Self::Secret
        )
    }

    /// The kind that a user's word means, in any case: kind, plural or alias. Where Calico
    /// and Kubernetes share a word, Calico's kind is meant.
    pub fn from_word(word: &str) -> Option<Self> {
        let is = |k: &Self| {
            let i = k.info();
            i.kind.eq_ignore_ascii_case(word)
                || i.plural.eq_ignore_ascii_case(word)
                || i.aliases.iter().any(|a| a.eq_ignore_ascii_case(word))
        };
        Self::ALL.iter().copied().find(is)
    }

    /// The kind of a document, by its `apiVersion` and `kind`. CRD storage's group and its
    /// spelling `IPAMConfig` are understood too.
    pub fn from_type(api_version: &str, kind: &str) -> Option<Self> {
        let (version, kind) = match (api_version, kind) {
            ("crd.projectcalico.org/v1", "IPAMConfig") => (V3, "IPAMConfiguration"),
            ("crd.projectcalico.org/v1", k) => (V3, k),
            (v, k) => (v, k),
        };
        Self::ALL
            .iter()
            .copied()
            .find(|k| k.info().kind == kind && k.info().api_version == version)
    }
}

/// Where an object is stored, in the etcd layout; Kubernetes' objects lie where its own API
/// server puts them. `namespace` counts only for namespaced kinds.
///
/// ```
/// use api::{ResourceKind, key};
/// let k = key(ResourceKind::NetworkPolicy, Some("prod"), "web");
/// assert_eq!(k, "/calico/resources/v3/projectcalico.org/networkpolicies/prod/web");
/// ```
pub fn key(kind: ResourceKind, namespace: Option<&str>, name: &str) -> String {
    format!("{}{name}", list_prefix(kind, namespace))
}

/// Where all objects of a kind are stored, or those of one namespace; ends with `/`.
pub fn list_prefix(kind: ResourceKind, namespace: Option<&str>) -> String {
    match namespace {
        Some(ns) if kind.namespaced() => format!("{}{ns}/", kind.prefix()),
        _ => kind.prefix().to_owned(),
    }
}

/// A store key, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResourceKey<'a> {
    /// The kind.
    pub kind: ResourceKind,
    /// The namespace, for namespaced kinds.
    pub namespace: Option<&'a str>,
    /// The name.
    pub name: &'a str,
}

/// Takes a store key apart; `None` when it is of no kind in the table.
pub fn parse_key(key: &str) -> Option<ResourceKey<'_>> {
    let (kind, rest) =
        if let Some(rest) = key.strip_prefix("/calico/resources/v3/projectcalico.org/") {
            let (plural, rest) = rest.split_once('/')?;
            let of = |k: &&ResourceKind| !k.is_kube() && k.info().plural == plural;
            (*ResourceKind::ALL.iter().find(of)?, rest)
        } else {
            let (at, rest) = key.strip_prefix("/registry/")?.split_once('/')?;
            match at {
                "pods" => (ResourceKind::Pod, rest),
                "namespaces" => (ResourceKind::Namespace, rest),
                "serviceaccounts" => (ResourceKind::ServiceAccount, rest),
                "networkpolicies" => (ResourceKind::KubeNetworkPolicy, rest),
                "minions" => (ResourceKind::KubeNode, rest),
                "endpointslices" => (ResourceKind::EndpointSlice, rest),
                "secrets" => (ResourceKind::Secret, rest),
                "services" => (ResourceKind::Service, rest.strip_prefix("specs/")?),
                "policy.networking.k8s.io" => {
                    let rest = rest.strip_prefix("clusternetworkpolicies/")?;
                    (ResourceKind::ClusterNetworkPolicy, rest)
                }
                _ => return None,
            }
        };
    let (namespace, name) = if kind.namespaced() {
        let (ns, name) = rest.split_once('/')?;
        (Some(ns), name)
    } else {
        (None, rest)
    };
    let whole = |s: &str| !s.is_empty() && !s.contains('/');
    (whole(name) && namespace.is_none_or(whole)).then_some(ResourceKey {
        kind,
        namespace,
        name,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_parse_back() {
        for &kind in ResourceKind::ALL {
            let ns = kind.namespaced().then_some("prod");
            let k = key(kind, ns, "a.b-c");
            assert_eq!(
                parse_key(&k),
                Some(ResourceKey {
                    kind,
                    namespace: ns,
                    name: "a.b-c"
                }),
                "{k}"
            );
            assert!(k.starts_with(&list_prefix(kind, ns)) && k.starts_with(kind.prefix()));
        }
        for bad in [
            "",
            "/registry/pods/x",
            "/registry/pods/x/",
            "/registry/pods//x",
            "/registry/pods/a/b/c",
            "/registry/configmaps/a/b",
            "/registry/services/endpoints/a/b",
            "/registry/policy.networking.k8s.io/adminnetworkpolicies/a",
            "/calico/resources/v3/projectcalico.org/tiers/",
            "/calico/resources/v3/projectcalico.org/pods/a/b",
            "/calico/ipam/v2/config",
        ] {
            assert_eq!(parse_key(bad), None, "{bad}");
        }
    }

    #[test]
    fn kinds_by_word_and_by_type() {
        for (word, kind) in [
            ("IPPools", ResourceKind::IpPool),
            ("pool", ResourceKind::IpPool),
            ("node", ResourceKind::Node),
            ("np", ResourceKind::NetworkPolicy),
            ("gnetset", ResourceKind::GlobalNetworkSet),
            ("po", ResourceKind::Pod),
        ] {
            assert_eq!(ResourceKind::from_word(word), Some(kind), "{word}");
        }
        assert_eq!(ResourceKind::from_word("elephant"), None);
        let np = |v| ResourceKind::from_type(v, "NetworkPolicy");
        assert_eq!(
            np("networking.k8s.io/v1"),
            Some(ResourceKind::KubeNetworkPolicy)
        );
        assert_eq!(
            np("projectcalico.org/v3"),
            Some(ResourceKind::NetworkPolicy)
        );
        assert_eq!(np("v1"), None);
    }

    #[test]
    fn no_word_means_two_of_calicos_kinds() {
        let mut seen = std::collections::BTreeMap::new();
        for k in ResourceKind::ALL.iter().filter(|k| !k.is_kube()) {
            let i = k.info();
            let lower = i.kind.to_lowercase();
            for w in i.aliases.iter().copied().chain([i.plural, &lower]) {
                assert_eq!(seen.insert(w.to_owned(), *k), None, "{w}");
            }
        }
    }
}
