//! Names, labels and annotations.

use super::Check;
use crate::resource::{Resource, ResourceKind};

const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const MAX_NAME: usize = 253;
const MAX_ANNOTATIONS: usize = 256 << 10;

/// `[a-z0-9]([-a-z0-9]*[a-z0-9])?`
pub(super) fn is_label(s: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = s.as_bytes();
    edge(bytes.first())
        && edge(bytes.last())
        && bytes
            .iter()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

/// Labels joined by dots.
pub(super) fn is_subdomain(s: &str) -> bool {
    s.split('.').all(is_label)
}

/// What a policy may be called: one label, or two (a tier's name in front); a namespaced
/// one also what Kubernetes' and OpenStack's policies are converted to.
fn is_policy_name(s: &str, namespaced: bool) -> bool {
    let converted = ["knp.default.", "ossg.default."]
        .iter()
        .find_map(|p| s.strip_prefix(p));
    s.split('.').count() <= 2 && is_subdomain(s)
        || namespaced && converted.is_some_and(is_subdomain)
}

/// `^[a-zA-Z0-9_.-]{1,max}$`
pub(super) fn is_word(s: &str, max: usize) -> bool {
    (1..=max).contains(&s.len())
        && s.bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// What a host's interface may be called here.
pub(super) fn is_interface(s: &str) -> bool {
    is_word(s, 15)
}

pub(super) fn check(c: &mut Check, r: &Resource) {
    let kind = r.kind();
    let meta = r.meta();
    let name = meta.name.as_str();
    let fits = match kind {
        ResourceKind::NetworkPolicy | ResourceKind::StagedNetworkPolicy => {
            is_policy_name(name, true)
        }
        ResourceKind::GlobalNetworkPolicy | ResourceKind::StagedGlobalNetworkPolicy => {
            is_policy_name(name, false)
        }
        _ => is_subdomain(name),
    };
    if name.is_empty() {
        c.fail("metadata.name", name, "name must be specified");
    } else if !fits {
        let form = match kind {
            ResourceKind::NetworkPolicy | ResourceKind::StagedNetworkPolicy => {
                format!("^(({LABEL})(\\.{LABEL})?|((?:knp|ossg)\\.default\\.({SUBDOMAIN})))$")
            }
            ResourceKind::GlobalNetworkPolicy | ResourceKind::StagedGlobalNetworkPolicy => {
                format!("^({LABEL}\\.)?{LABEL}$")
            }
            _ => SUBDOMAIN.to_owned(),
        };
        let dots = match is_subdomain(name) {
            true => "; a policy's name has at most one dot",
            false => "",
        };
        let reason = format!(
            "name must consist of lower case alphanumeric characters, '-' or '.' (regex: {form}){dots}"
        );
        c.fail("metadata.name", name, reason);
    }
    if name.len() > MAX_NAME {
        let over = name.len() - MAX_NAME;
        c.fail(
            "metadata.name",
            name,
            format!("name is too long by {over} bytes"),
        );
    }
    if kind == ResourceKind::ClusterInformation && name != "default" {
        let text =
            "Cannot create a Cluster Information resource with a name other than \"default\"";
        c.fail("metadata.name", name, text);
    }
    if kind == ResourceKind::KubeControllersConfiguration && name != "default" {
        let text = "Cannot create a Kube Controllers Configuration resource with a name other than \"default\"";
        c.fail("metadata.name", name, text);
    }
    if kind == ResourceKind::IpamConfiguration && name != "default" {
        let text =
            "Cannot create an IPAM Configuration resource with a name other than \"default\"";
        c.fail("metadata.name", name, text);
    }
    if kind.namespaced() && !is_label(&meta.namespace) {
        let reason = if meta.namespace.is_empty() {
            "namespace must be specified"
        } else {
            "namespace must consist of lower case alphanumeric characters or '-'"
        };
        c.fail("metadata.namespace", &meta.namespace, reason);
    } else if !kind.namespaced() && !meta.namespace.is_empty() {
        c.fail(
            "metadata.namespace",
            &meta.namespace,
            "resource is not namespaced",
        );
    }
    let size: usize = meta
        .annotations
        .iter()
        .map(|(k, v)| k.len() + v.len())
        .sum();
    if size > MAX_ANNOTATIONS {
        let reason = format!(
            "total size of annotations is too large by {} bytes",
            size - MAX_ANNOTATIONS
        );
        c.fail("metadata.annotations", size, reason);
    }
    for key in meta.labels.keys() {
        let chars = key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'/' | b'-'));
        if key.is_empty() || key.len() > model::selector::MAX_LABEL || !chars {
            let reason = "label names have 1 to 512 characters of [A-Za-z0-9_./-]";
            c.fail("metadata.labels", key, reason);
        }
    }
}
