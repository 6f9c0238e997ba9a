//! Workload endpoints, which pods are, and the addresses that are written to pods.

use super::{Client, ClientError, Listed, RETRIES};
use api::convert::{split_workload_name, to_workload_endpoint};
use api::{Resource, ResourceKind};
use std::net::IpAddr;

const POD_IP: &str = "cni.projectcalico.org/podIP";
const POD_IPS: &str = "cni.projectcalico.org/podIPs";
const CONTAINER_ID: &str = "cni.projectcalico.org/containerID";

/// The endpoint that a pod is; `None` for pods that are none.
fn endpoint(pod: &Resource) -> Option<Resource> {
    match pod {
        Resource::Pod(p) => to_workload_endpoint(p).ok().map(Resource::from),
        _ => None,
    }
}

impl Client {
    /// A workload endpoint that follows from a pod.
    pub(super) async fn pod_endpoint(
        &self,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Option<Resource>, ClientError> {
        let Some([_, orchestrator, pod, _]) = split_workload_name(name) else {
            return Ok(None);
        };
        if orchestrator != "k8s" {
            return Ok(None);
        }
        let found = self
            .entry("get", ResourceKind::Pod, namespace, &pod)
            .await?;
        let same = |e: &Resource| e.meta().name == name;
        Ok(found.and_then(|(r, _)| endpoint(&r)).filter(same))
    }

    /// The workload endpoints that follow from pods.
    pub(super) async fn pod_endpoints(
        &self,
        namespace: Option<&str>,
        into: &mut Listed,
    ) -> Result<(), ClientError> {
        let pods = self.list_stored(ResourceKind::Pod, namespace).await?;
        into.resources
            .extend(pods.resources.iter().filter_map(endpoint));
        into.bad.extend(pods.bad);
        Ok(())
    }

    /// Writes a pod's addresses and container to its annotations, tried again when
    /// others change the pod meanwhile.
    ///
    /// # Errors
    /// `NotFound` when the pod does not exist, or has another `uid` than the one given:
    /// it is another pod of that name.
    pub async fn set_pod_addresses(
        &self,
        namespace: &str,
        pod: &str,
        uid: Option<&str>,
        addresses: &[IpAddr],
        container: &str,
    ) -> Result<Resource, ClientError> {
        let texts: Vec<_> = addresses
            .iter()
            .map(|a| net::Cidr::host(*a).to_string())
            .collect();
        self.annotate(namespace, pod, uid, |annotations| {
            let first = texts.first().cloned().unwrap_or_default();
            annotations.insert(POD_IP.to_owned(), first);
            annotations.insert(POD_IPS.to_owned(), texts.join(","));
            annotations.insert(CONTAINER_ID.to_owned(), container.to_owned());
            true
        })
        .await
    }

    /// Says that a pod's network is gone, if `container` was the last one it had.
    ///
    /// # Errors
    /// As [`Client::set_pod_addresses`].
    pub async fn clear_pod_addresses(
        &self,
        namespace: &str,
        pod: &str,
        uid: Option<&str>,
        container: &str,
    ) -> Result<Resource, ClientError> {
        self.annotate(namespace, pod, uid, |annotations| {
            let ours = annotations.get(CONTAINER_ID).is_none_or(|c| c == container);
            if ours {
                annotations.insert(POD_IP.to_owned(), String::new());
                annotations.insert(POD_IPS.to_owned(), String::new());
            }
            ours
        })
        .await
    }

    /// `change` says whether it changed anything.
    async fn annotate(
        &self,
        namespace: &str,
        pod: &str,
        uid: Option<&str>,
        change: impl Fn(&mut api::StringMap) -> bool,
    ) -> Result<Resource, ClientError> {
        let kind = ResourceKind::Pod;
        let gone = || ClientError::not_found(kind, Some(namespace), pod);
        let mut tries = 0;
        loop {
            let found = self.entry("update", kind, Some(namespace), pod).await?;
            let (mut resource, entry) = found.ok_or_else(gone)?;
            if uid.is_some_and(|u| u != resource.meta().uid) {
                return Err(gone());
            }
            if !change(&mut resource.meta_mut().annotations) {
                return Ok(resource);
            }
            match self.replace(resource, &entry).await {
                Err(e) if e.is_conflict() && tries < RETRIES => tries += 1,
                done => return done,
            }
        }
    }
}
