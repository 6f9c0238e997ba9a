//! Workload endpoints, which pods are, and what nodes write to pods.

use super::{Client, ClientError, Listed};
use api::convert::{split_workload_name, to_workload_endpoint};
use api::kinds::kube::PodStatus;
use api::{Resource, ResourceKind};

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

/// What nodes write to a pod, a user's file that says nothing of it leaves as it is: status, node,
/// addresses. An API server would not let a user write them either.
pub fn keep_written(old: &Resource, new: &mut Resource) {
    let (Resource::Pod(old), Resource::Pod(new)) = (old, new) else {
        return;
    };
    if new.status == PodStatus::default() {
        new.status.clone_from(&old.status);
    }
    if new.spec.node_name.is_empty() {
        new.spec.node_name.clone_from(&old.spec.node_name);
    }
    for key in [POD_IP, POD_IPS, CONTAINER_ID] {
        if let Some(v) = old.metadata.annotations.get(key) {
            let notes = &mut new.metadata.annotations;
            notes.entry(key.to_owned()).or_insert_with(|| v.clone());
        }
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
}
