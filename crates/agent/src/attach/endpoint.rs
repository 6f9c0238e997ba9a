//! The endpoint as stored: annotations of a Pod, or a WorkloadEndpoint of its own for
//! containers that Kubernetes does not run.
//!
//! Promises: an endpoint is written and removed only for the container that it names; who comes
//! late with an older container's DEL changes nothing.

use super::AttachError;
use super::identity::{Identity, NO_NAMESPACE, Workload};
use crate::resources::{Change, Resources};
use api::kinds::endpoint::{Profile, WorkloadEndpoint};
use api::kinds::kube::{Pod, PodIp};
use api::kinds::policy::{EntityRule, Rule};
use api::{ObjectMeta, Resource, ResourceKind};
use cni::protocol::Request;
use model::WorkloadKey;
use net::{Cidr, Family, Mac};
use std::net::IpAddr;
use std::sync::Arc;

const POD_IP: &str = "cni.projectcalico.org/podIP";
const POD_IPS: &str = "cni.projectcalico.org/podIPs";
const CONTAINER_ID: &str = "cni.projectcalico.org/containerID";

/// Whether the cluster lets its datastore be used. One that was never initialised is not ready.
pub(super) async fn datastore_ready(resources: &Resources) -> Result<bool, AttachError> {
    let found = resources
        .get(ResourceKind::ClusterInformation, None, "default")
        .await?;
    Ok(match found {
        Some((Resource::ClusterInformation(c), _)) => c.spec.datastore_ready.unwrap_or(false),
        _ => false,
    })
}

/// The pod ranges that Kubernetes gave this node.
pub(super) async fn pod_cidrs(
    resources: &Resources,
    node: &str,
) -> Result<Vec<String>, AttachError> {
    let mut out = Vec::new();
    if let Some((Resource::KubeNode(n), _)) =
        resources.get(ResourceKind::KubeNode, None, node).await?
    {
        out.extend(n.spec.pod_cidrs);
        if out.is_empty() && !n.spec.pod_cidr.is_empty() {
            out.push(n.spec.pod_cidr);
        }
    }
    if out.is_empty()
        && let Some((Resource::Node(n), _)) = resources.get(ResourceKind::Node, None, node).await?
    {
        out.extend(n.status.unwrap_or_default().pod_cidrs);
    }
    Ok(out)
}

/// Writes the endpoint with its addresses.
pub(super) async fn write(
    resources: &Resources,
    request: &Request,
    id: &Identity,
    workload: &Workload,
    addresses: &[IpAddr],
    mac: Mac,
) -> Result<(), AttachError> {
    match (workload, &id.pod) {
        (Workload::Pod { pod, .. }, Some((namespace, name))) => {
            let uid = pod.metadata.uid.clone();
            let mut gone = false;
            let change = |old: Option<Resource>| match old {
                Some(Resource::Pod(mut p)) if p.metadata.uid == uid => {
                    set_addresses(&mut p, addresses, &id.container_id);
                    Change::Write(p.into())
                }
                _ => {
                    gone = true;
                    Change::Nothing
                }
            };
            resources
                .change(ResourceKind::Pod, Some(namespace), name, change)
                .await?;
            if gone {
                return Err(AttachError::NoPod {
                    namespace: namespace.clone(),
                    name: name.clone(),
                });
            }
            Ok(())
        }
        _ => write_own(resources, request, id, addresses, mac).await,
    }
}

fn set_addresses(p: &mut Pod, addresses: &[IpAddr], container: &str) {
    let texts: Vec<String> = addresses
        .iter()
        .map(|a| format!("{a}/{}", Family::of(*a).bits()))
        .collect();
    let notes = &mut p.metadata.annotations;
    notes.insert(
        POD_IP.to_owned(),
        texts.first().cloned().unwrap_or_default(),
    );
    notes.insert(POD_IPS.to_owned(), texts.join(","));
    notes.insert(CONTAINER_ID.to_owned(), container.to_owned());
    // A sandbox that replaces another must not be known by its predecessor's addresses.
    p.status.pod_ip = addresses
        .first()
        .map(ToString::to_string)
        .unwrap_or_default();
    p.status.pod_ips = addresses
        .iter()
        .map(|a| PodIp { ip: a.to_string() })
        .collect();
}

/// Name of a WorkloadEndpoint: segments joined by dashes, dashes inside them doubled.
fn own_name(id: &Identity) -> String {
    api::convert::workload_name(&id.key.node, "cni", &id.container_id, &id.key.endpoint)
}

async fn write_own(
    resources: &Resources,
    request: &Request,
    id: &Identity,
    addresses: &[IpAddr],
    mac: Mac,
) -> Result<(), AttachError> {
    ensure_profile(resources, &request.conf.name).await?;
    let name = own_name(id);
    let networks: Vec<String> = addresses
        .iter()
        .map(|a| Cidr::host(*a).to_string())
        .collect();
    let change = |old: Option<Resource>| {
        let mut wep = match old {
            Some(Resource::WorkloadEndpoint(w)) => w,
            _ => {
                let mut metadata = ObjectMeta::namespaced(NO_NAMESPACE, name.clone());
                metadata.uid = uuid::Uuid::new_v4().to_string();
                metadata.creation_timestamp = Some(
                    jiff::Timestamp::now()
                        .strftime("%Y-%m-%dT%H:%M:%SZ")
                        .to_string(),
                );
                WorkloadEndpoint {
                    metadata,
                    ..WorkloadEndpoint::default()
                }
            }
        };
        let labels = &mut wep.metadata.labels;
        labels.insert(
            "projectcalico.org/namespace".to_owned(),
            NO_NAMESPACE.to_owned(),
        );
        labels.insert(
            "projectcalico.org/orchestrator".to_owned(),
            "cni".to_owned(),
        );
        let spec = &mut wep.spec;
        spec.orchestrator = "cni".to_owned();
        spec.node = id.key.node.to_string();
        spec.container_id.clone_from(&id.container_id);
        spec.endpoint = id.key.endpoint.to_string();
        spec.interface_name = id.interface.to_string();
        spec.mac = mac.to_string();
        spec.ip_networks.clone_from(&networks);
        spec.profiles = vec![request.conf.name.clone()];
        Change::Write(wep.into())
    };
    resources
        .change(
            ResourceKind::WorkloadEndpoint,
            Some(NO_NAMESPACE),
            &name,
            change,
        )
        .await?;
    Ok(())
}

/// The profile of a network's containers: they reach each other, and may go anywhere.
async fn ensure_profile(resources: &Resources, network: &str) -> Result<(), AttachError> {
    let change = |old: Option<Resource>| {
        if old.is_some() {
            return Change::Nothing;
        }
        let allow = |selector: String| Rule {
            action: "Allow".to_owned(),
            source: EntityRule {
                selector,
                ..EntityRule::default()
            },
            ..Rule::default()
        };
        let mut profile = Profile {
            metadata: ObjectMeta::named(network),
            ..Profile::default()
        };
        profile
            .spec
            .labels_to_apply
            .insert(network.to_owned(), String::new());
        profile.spec.ingress = vec![allow(format!("has({network})"))];
        profile.spec.egress = vec![allow(String::new())];
        Change::Write(profile.into())
    };
    resources
        .change(ResourceKind::Profile, None, network, change)
        .await?;
    Ok(())
}

/// Removes the endpoint if it is this container's. Whether the link is this container's too,
/// as far as the store knows: true as well where nothing is stored.
pub(super) async fn remove(resources: &Resources, id: &Identity) -> Result<bool, AttachError> {
    let mut ours = true;
    match &id.pod {
        Some((namespace, name)) => {
            let change = |old: Option<Resource>| {
                let Some(Resource::Pod(mut p)) = old else {
                    ours = true;
                    return Change::Nothing;
                };
                let holder = p.metadata.annotations.get(CONTAINER_ID).map(String::as_str);
                ours = holder.is_none_or(|c| c.is_empty() || c == id.container_id);
                if holder != Some(id.container_id.as_str()) {
                    return Change::Nothing;
                }
                set_addresses(&mut p, &[], "");
                Change::Write(p.into())
            };
            resources
                .change(ResourceKind::Pod, Some(namespace), name, change)
                .await?;
        }
        None => {
            let change = |old: Option<Resource>| match old {
                Some(Resource::WorkloadEndpoint(w)) if w.spec.container_id == id.container_id => {
                    Change::Delete
                }
                _ => Change::Nothing,
            };
            resources
                .change(
                    ResourceKind::WorkloadEndpoint,
                    Some(NO_NAMESPACE),
                    &own_name(id),
                    change,
                )
                .await?;
        }
    }
    Ok(ours)
}

/// Removes the endpoint, whichever container it is for: a new one takes its place.
pub(super) async fn clear(resources: &Resources, id: &Identity) -> Result<(), AttachError> {
    let (kind, namespace, name) = match &id.pod {
        Some((namespace, name)) => (ResourceKind::Pod, namespace.as_str(), name.clone()),
        None => (ResourceKind::WorkloadEndpoint, NO_NAMESPACE, own_name(id)),
    };
    let change = |old: Option<Resource>| match old {
        Some(Resource::Pod(mut p)) => {
            set_addresses(&mut p, &[], "");
            Change::Write(p.into())
        }
        Some(_) => Change::Delete,
        None => Change::Nothing,
    };
    resources
        .change(kind, Some(namespace), &name, change)
        .await?;
    Ok(())
}

/// The stored addresses of this container; `None` where the endpoint is missing or another's.
pub(super) async fn find(
    resources: &Resources,
    id: &Identity,
) -> Result<Option<Vec<IpAddr>>, AttachError> {
    let texts: Vec<String> = match &id.pod {
        Some((namespace, name)) => match resources
            .get(ResourceKind::Pod, Some(namespace), name)
            .await?
        {
            Some((Resource::Pod(p), _))
                if p.metadata.annotations.get(CONTAINER_ID) == Some(&id.container_id) =>
            {
                p.metadata
                    .annotations
                    .get(POD_IPS)
                    .into_iter()
                    .flat_map(|l| l.split(','))
                    .map(str::to_owned)
                    .collect()
            }
            _ => return Ok(None),
        },
        None => match resources
            .get(
                ResourceKind::WorkloadEndpoint,
                Some(NO_NAMESPACE),
                &own_name(id),
            )
            .await?
        {
            Some((Resource::WorkloadEndpoint(w), _)) if w.spec.container_id == id.container_id => {
                w.spec.ip_networks
            }
            _ => return Ok(None),
        },
    };
    Ok(Some(
        texts
            .iter()
            .filter_map(|t| t.parse::<Cidr>().ok())
            .map(Cidr::addr)
            .collect(),
    ))
}

/// Every endpoint of this node whose container is known, as seen from one network.
pub(super) async fn of_network(
    resources: &Resources,
    node: &Arc<str>,
    network: &str,
    prefix: &str,
) -> Result<Vec<Identity>, AttachError> {
    let bad = |e: api::BadObject| tracing::warn!(error = %e, "stored object is bad");
    let mut out = Vec::new();
    for r in resources.list(ResourceKind::Pod, bad).await? {
        let Resource::Pod(p) = r else { continue };
        let container = p
            .metadata
            .annotations
            .get(CONTAINER_ID)
            .filter(|c| !c.is_empty());
        let (Some(container), true) = (container, *p.spec.node_name == **node) else {
            continue;
        };
        let (namespace, name) = (p.metadata.namespace.clone(), p.metadata.name.clone());
        out.push(Identity {
            container_id: container.clone(),
            handle: format!("{network}.{container}"),
            interface: super::identity::pod_interface(prefix, &namespace, &name)?,
            key: WorkloadKey {
                node: node.clone(),
                orchestrator: Arc::from("k8s"),
                workload: Arc::from(format!("{namespace}/{name}")),
                endpoint: Arc::from("eth0"),
            },
            pod: Some((namespace, name)),
        });
    }
    for r in resources.list(ResourceKind::WorkloadEndpoint, bad).await? {
        let Resource::WorkloadEndpoint(w) = r else {
            continue;
        };
        // The profile is named after the network, so it tells whose containers these are.
        let mine = *w.spec.node == **node
            && w.spec.orchestrator == "cni"
            && w.spec.profiles.iter().any(|p| p == network);
        let (true, Ok(interface)) = (mine, w.spec.interface_name.parse()) else {
            continue;
        };
        out.push(Identity {
            handle: format!("{network}.{}", w.spec.container_id),
            interface,
            key: WorkloadKey {
                node: node.clone(),
                orchestrator: Arc::from("cni"),
                workload: Arc::from(format!("{NO_NAMESPACE}/{}", w.spec.container_id)),
                endpoint: Arc::from(w.spec.endpoint.as_str()),
            },
            pod: None,
            container_id: w.spec.container_id,
        });
    }
    Ok(out)
}
