//! Whose interface a CNI call is about.
//!
//! Promises: names are Calico's: the handle `<network>.<container>`, the interface from the
//! pod's name, the endpoint's v1 identity.

use super::AttachError;
use crate::resources::Resources;
use api::kinds::kube::{Namespace, Pod};
use api::{Resource, ResourceKind};
use cni::protocol::Request;
use model::WorkloadKey;
use net::IfName;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Namespace of endpoints that have none.
pub(super) const NO_NAMESPACE: &str = "default";

/// What the container is.
#[derive(Debug, Clone)]
pub(crate) enum Workload {
    /// A Kubernetes pod.
    Pod {
        /// The pod as stored.
        pod: Box<Pod>,
        /// Its namespace as stored.
        namespace: Box<Namespace>,
    },
    /// Any other container.
    Container,
}

/// Names of one attachment.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// Namespace and name of the pod, when Kubernetes runs it.
    pub pod: Option<(String, String)>,
    /// Handle of its addresses.
    pub handle: String,
    /// Host side of its link.
    pub interface: IfName,
    /// The endpoint.
    pub key: WorkloadKey,
}

/// First of the prefixes, and 11 characters of the container's ID.
fn interface_name(prefix: &str, suffix: &str) -> Result<IfName, AttachError> {
    let name = format!("{prefix}{}", &suffix[..suffix.len().min(11)]);
    name.parse()
        .map_err(|_| AttachError::InterfacePrefix(prefix.to_owned()))
}

/// The interface of a pod, as its endpoint names it.
///
/// # Errors
/// When the prefix leaves no room in an interface name.
pub(crate) fn pod_interface(
    prefix: &str,
    namespace: &str,
    pod: &str,
) -> Result<IfName, AttachError> {
    api::convert::interface_name(prefix, namespace, pod)
        .parse()
        .map_err(|_| AttachError::InterfacePrefix(prefix.to_owned()))
}

impl Identity {
    /// From a call's arguments.
    ///
    /// # Errors
    /// When an interface prefix is too long.
    pub(crate) fn of(
        request: &Request,
        node: &Arc<str>,
        prefix: &str,
    ) -> Result<Self, AttachError> {
        let arg = |n: &str| request.args.get(n).map(String::as_str).unwrap_or_default();
        let pod = (arg("K8S_POD_NAMESPACE"), arg("K8S_POD_NAME"));
        let pod = Some(pod).filter(|(namespace, name)| !namespace.is_empty() && !name.is_empty());
        let (network, container) = (&request.conf.name, &request.container_id);
        Self::named(network, container, &request.ifname, pod, node, prefix)
    }

    /// From the names themselves; `pod` is namespace and name.
    ///
    /// # Errors
    /// When an interface prefix is too long.
    pub(crate) fn named(
        network: &str,
        container: &str,
        ifname: &str,
        pod: Option<(&str, &str)>,
        node: &Arc<str>,
        prefix: &str,
    ) -> Result<Self, AttachError> {
        let key = |orchestrator: &str, workload: String, endpoint: &str| WorkloadKey {
            node: node.clone(),
            orchestrator: Arc::from(orchestrator),
            workload: Arc::from(workload),
            endpoint: Arc::from(endpoint),
        };
        let (interface, key) = match pod {
            // Calico's endpoint of a pod is `eth0`, whatever the runtime calls the interface.
            Some((namespace, name)) => (
                pod_interface(prefix, namespace, name)?,
                key("k8s", format!("{namespace}/{name}"), "eth0"),
            ),
            None => (
                interface_name(prefix, container)?,
                key("cni", format!("{NO_NAMESPACE}/{container}"), ifname),
            ),
        };
        Ok(Self {
            container_id: container.to_owned(),
            pod: pod.map(|(namespace, name)| (namespace.to_owned(), name.to_owned())),
            handle: format!("{network}.{container}"),
            interface,
            key,
        })
    }

    /// Reads the pod and its namespace.
    ///
    /// # Errors
    /// When either is missing, in Kubernetes' words.
    pub(crate) async fn workload(&self, resources: &Resources) -> Result<Workload, AttachError> {
        let Some((namespace, name)) = &self.pod else {
            return Ok(Workload::Container);
        };
        let found = resources
            .get(ResourceKind::Namespace, None, namespace)
            .await?;
        let Some((Resource::Namespace(ns), _)) = found else {
            return Err(AttachError::NoNamespace(namespace.clone()));
        };
        match resources
            .get(ResourceKind::Pod, Some(namespace), name)
            .await?
        {
            Some((Resource::Pod(pod), _)) => Ok(Workload::Pod {
                pod: Box::new(pod),
                namespace: Box::new(ns),
            }),
            _ => Err(AttachError::NoPod {
                namespace: namespace.clone(),
                name: name.clone(),
            }),
        }
    }

    /// What the allocator stores with the addresses.
    pub(crate) fn attributes(&self, now: jiff::Timestamp) -> BTreeMap<String, String> {
        let mut out = BTreeMap::from([
            ("node".to_owned(), self.key.node.to_string()),
            ("timestamp".to_owned(), now.to_string()),
        ]);
        if let Some((namespace, name)) = &self.pod {
            out.insert("namespace".to_owned(), namespace.clone());
            out.insert("pod".to_owned(), name.clone());
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interface_is_named_as_calico_names_it() {
        // SHA-1 of "default.nginx".
        let name = pod_interface("cali", "default", "nginx").expect("fits");
        assert_eq!(name.as_str().len(), 15);
        assert!(name.as_str().starts_with("cali"));
        assert_ne!(
            name,
            pod_interface("cali", "default", "nginx2").expect("fits")
        );
        assert!(pod_interface("much-too-long", "a", "b").is_err());
    }
}
