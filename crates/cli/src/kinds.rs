//! The words that users have for kinds, and the columns of their tables.

use crate::CliError;
use api::kinds::kube::Pod;
use api::{Resource, ResourceKind};

/// The kind that a word of the command line means. `kind.group` tells Kubernetes' kinds
/// from Calico's of the same name.
///
/// # Errors
/// Names the word and every kind that there is.
pub(crate) fn by_word(word: &str) -> Result<ResourceKind, CliError> {
    let found = match word.split_once('.') {
        None => ResourceKind::from_word(word),
        Some((plain, group)) => ResourceKind::ALL.iter().copied().find(|k| {
            let info = k.info();
            let of = info
                .api_version
                .split_once('/')
                .map_or("k8s.io", |(g, _)| g);
            let named = info.kind.eq_ignore_ascii_case(plain)
                || info.plural.eq_ignore_ascii_case(plain)
                || info.aliases.iter().any(|a| a.eq_ignore_ascii_case(plain));
            named && of.eq_ignore_ascii_case(group)
        }),
    };
    found.ok_or_else(|| CliError::UnknownKind {
        word: word.to_owned(),
        known: known(),
    })
}

/// Every kind, in the word that means it and nothing else.
fn known() -> String {
    let words = ResourceKind::ALL.iter().map(|k| match k {
        ResourceKind::KubeNode => "kubenode".to_owned(),
        ResourceKind::KubeNetworkPolicy => "networkpolicy.networking.k8s.io".to_owned(),
        ResourceKind::ClusterNetworkPolicy => {
            "clusternetworkpolicy.policy.networking.k8s.io".to_owned()
        }
        k => k.name().to_lowercase(),
    });
    words.collect::<Vec<_>>().join(", ")
}

/// Headings of a kind's table.
pub(crate) fn columns(kind: ResourceKind, wide: bool) -> &'static [&'static str] {
    match (kind, wide) {
        // What somebody looks for who waits for a pod's network.
        (ResourceKind::Pod, false) => &["NAME", "IP", "NODE", "PHASE", "REASON"],
        (ResourceKind::Pod, true) => &["NAME", "IP", "NODE", "PHASE", "REASON", "MESSAGE"],
        (ResourceKind::KubeNode, true) => &["NAME", "ADDRESSES", "PODCIDRS"],
        _ => api::columns(kind, wide),
    }
}

/// A resource's row under [`columns`].
pub(crate) fn row(r: &Resource, wide: bool, asn: net::Asn) -> Vec<String> {
    match r {
        Resource::Pod(p) => pod(p, wide),
        Resource::KubeNode(n) if wide => {
            let addresses: Vec<&str> = n
                .status
                .addresses
                .iter()
                .map(|a| a.address.as_str())
                .collect();
            let mut cidrs = n.spec.pod_cidrs.clone();
            if cidrs.is_empty() && !n.spec.pod_cidr.is_empty() {
                cidrs.push(n.spec.pod_cidr.clone());
            }
            vec![
                n.metadata.name.clone(),
                addresses.join(","),
                cidrs.join(","),
            ]
        }
        r => api::row_with_asn(r, wide, asn),
    }
}

fn pod(p: &Pod, wide: bool) -> Vec<String> {
    // The first condition that does not hold says why the pod is not ready.
    let failing = p
        .status
        .conditions
        .iter()
        .find(|c| c.status == "False" && !c.reason.is_empty());
    let either = |own: &str, of: fn(&api::kinds::kube::PodCondition) -> &String| {
        if own.is_empty() {
            failing.map(of).cloned().unwrap_or_default()
        } else {
            own.to_owned()
        }
    };
    let mut cells = vec![
        p.metadata.name.clone(),
        addresses(p).join(","),
        p.spec.node_name.clone(),
        p.status.phase.clone(),
        either(&p.status.reason, |c| &c.reason),
    ];
    if wide {
        cells.push(either(&p.status.message, |c| &c.message));
    }
    cells
}

/// The addresses that a pod has, from its status, else from what the CNI plugin noted.
pub(crate) fn addresses(p: &Pod) -> Vec<String> {
    let listed: Vec<String> = p.status.pod_ips.iter().map(|i| i.ip.clone()).collect();
    if !listed.is_empty() {
        return listed;
    }
    if !p.status.pod_ip.is_empty() {
        return vec![p.status.pod_ip.clone()];
    }
    let noted = |name: &str| {
        p.metadata
            .annotations
            .get(&format!("cni.projectcalico.org/{name}"))
    };
    let text = noted("podIPs")
        .or_else(|| noted("podIP"))
        .map_or("", String::as_str);
    // Noted as host prefixes.
    let bare = |t: &str| t.trim().split('/').next().unwrap_or_default().to_owned();
    text.split(',')
        .map(bare)
        .filter(|t| !t.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_groups() {
        let kind = |w| by_word(w).ok();
        assert_eq!(
            kind("networkpolicies.networking.k8s.io"),
            Some(ResourceKind::KubeNetworkPolicy)
        );
        assert_eq!(
            kind("np.projectcalico.org"),
            Some(ResourceKind::NetworkPolicy)
        );
        for (word, expected) in [
            ("sgnp", ResourceKind::StagedGlobalNetworkPolicy),
            ("spol", ResourceKind::StagedNetworkPolicy),
            ("skpols", ResourceKind::StagedKubernetesNetworkPolicy),
            ("clusternetworkpolicies", ResourceKind::ClusterNetworkPolicy),
            ("bp", ResourceKind::BgpPeer),
            ("bgpfs", ResourceKind::BgpFilter),
            (
                "kubecontrollersconfig",
                ResourceKind::KubeControllersConfiguration,
            ),
            ("nodestatus", ResourceKind::CalicoNodeStatus),
            ("svc", ResourceKind::Service),
            ("secrets", ResourceKind::Secret),
            ("endpointslices", ResourceKind::EndpointSlice),
            (
                "endpointslice.discovery.k8s.io",
                ResourceKind::EndpointSlice,
            ),
        ] {
            assert_eq!(kind(word), Some(expected), "{word}");
        }
        assert_eq!(kind("nodes.k8s.io"), Some(ResourceKind::KubeNode));
        assert_eq!(kind("knp"), Some(ResourceKind::KubeNetworkPolicy));
        let e = by_word("elephants").expect_err("no such kind").full();
        assert!(
            e.starts_with("resource type 'elephants' is not supported; use one of ippool, "),
            "{e}"
        );
    }

    #[test]
    fn every_known_word_means_its_kind() {
        for (word, kind) in known().split(", ").zip(ResourceKind::ALL) {
            assert_eq!(by_word(word).ok(), Some(*kind), "{word}");
        }
    }
}
