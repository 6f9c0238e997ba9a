//! Tables, as `get` prints them.
//!
//! Promises: a row has as many cells as its kind has columns.

use crate::kinds::bgp::BgpPeerSpec;
use crate::kinds::endpoint::WorkloadEndpoint;
use crate::kinds::kube::LabelSelector;
use crate::kinds::node::Node;
use crate::kinds::policy::PolicySpec;
use crate::kinds::service::Service;
use crate::resource::{Resource, ResourceKind};
use std::fmt::Display;

/// The headings of a kind's table.
pub const fn columns(kind: ResourceKind, wide: bool) -> &'static [&'static str] {
    use ResourceKind as K;
    match (kind, wide) {
        (K::IpPool, false) => &["NAME", "CIDR", "SELECTOR"],
        (K::IpPool, true) => &[
            "NAME",
            "CIDR",
            "NAT",
            "IPIPMODE",
            "VXLANMODE",
            "DISABLED",
            "DISABLEBGPEXPORT",
            "SELECTOR",
            "ASSIGNMENTMODE",
        ],
        (K::IpReservation, true) => &["NAME", "CIDRS"],
        (K::Node, true) => &["NAME", "ASN", "IPV4", "IPV6"],
        (K::WorkloadEndpoint, false) => &["WORKLOAD", "NODE", "NETWORKS", "INTERFACE"],
        (K::WorkloadEndpoint, true) => &[
            "NAME",
            "WORKLOAD",
            "NODE",
            "NETWORKS",
            "INTERFACE",
            "PROFILES",
            "NATS",
        ],
        (K::HostEndpoint, false) => &["NAME", "NODE"],
        (K::HostEndpoint, true) => &["NAME", "NODE", "INTERFACE", "IPS", "PROFILES"],
        (K::Profile, true) => &["NAME", "LABELS"],
        (K::Tier, _) => &["NAME", "ORDER"],
        (
            K::NetworkPolicy
            | K::GlobalNetworkPolicy
            | K::StagedNetworkPolicy
            | K::StagedGlobalNetworkPolicy,
            wide,
        ) => {
            if wide {
                &["NAME", "TIER", "ORDER", "SELECTOR"]
            } else {
                &["NAME", "TIER"]
            }
        }
        (K::StagedKubernetesNetworkPolicy, true) => &["NAME", "PODSELECTOR"],
        (K::BgpPeer, _) => &["NAME", "PEERIP", "NODE", "ASN"],
        (K::BgpFilter, _) => &[
            "NAME",
            "NUMEXPORTV4",
            "NUMIMPORTV4",
            "NUMEXPORTV6",
            "NUMIMPORTV6",
        ],
        (K::CalicoNodeStatus, false) => &["NAME", "NODE"],
        (K::CalicoNodeStatus, true) => &["NAME", "NODE", "CLASSES"],
        (K::ClusterNetworkPolicy, _) => &["NAME", "TIER", "PRIORITY"],
        (K::Service, false) => &["NAME", "TYPE", "CLUSTER-IP", "PORTS"],
        (K::Service, true) => &["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORTS"],
        (K::Secret, _) => &["NAME", "TYPE", "DATA"],
        (K::EndpointSlice, _) => &["NAME", "ADDRESSTYPE", "PORTS", "ENDPOINTS"],
        (K::NetworkSet | K::GlobalNetworkSet, true) => &["NAME", "NETS"],
        (K::IpamConfiguration, false) => &["NAME", "STRICTAFFINITY", "AUTOALLOCATEBLOCKS"],
        (K::IpamConfiguration, true) => &[
            "NAME",
            "STRICTAFFINITY",
            "AUTOALLOCATEBLOCKS",
            "MAXBLOCKSPERHOST",
        ],
        (K::BgpConfiguration, _) => &["NAME", "LOGSEVERITY", "MESHENABLED", "ASNUMBER"],
        (K::ClusterInformation, _) => &[
            "NAME",
            "CLUSTERGUID",
            "CLUSTERTYPE",
            "CALICOVERSION",
            "DATASTOREREADY",
        ],
        (K::BlockAffinity, _) => &["NAME", "NODE", "CIDR", "STATE"],
        (K::IpamBlock, _) => &["NAME", "CIDR", "AFFINITY"],
        (K::Pod, false) => &["NAME", "STATUS", "NODE"],
        (K::Pod, true) => &["NAME", "STATUS", "IP", "NODE"],
        (K::KubeNetworkPolicy, _) => &["NAME", "POD-SELECTOR"],
        _ => &["NAME"],
    }
}

/// A resource's row under [`columns`], for a cluster with the AS number that clusters have by default.
pub fn row(resource: &Resource, wide: bool) -> Vec<String> {
    row_with_asn(resource, wide, net::Asn(64512))
}

/// A resource's row under [`columns`]. An AS number that a node takes from the cluster
/// is `cluster_asn` in parentheses.
pub fn row_with_asn(resource: &Resource, wide: bool, cluster_asn: net::Asn) -> Vec<String> {
    let name = || resource.meta().name.clone();
    let with = |cells: Vec<String>| {
        let mut row = vec![name()];
        row.extend(cells);
        row
    };
    match resource {
        Resource::IpPool(r) => {
            let s = &r.spec;
            let mode = |m: &str| {
                if m.is_empty() {
                    "Never".to_owned()
                } else {
                    m.to_owned()
                }
            };
            let selector = if s.node_selector.is_empty() {
                "all()"
            } else {
                &s.node_selector
            };
            let mut cells = vec![s.cidr.clone()];
            if wide {
                cells.extend([
                    s.nat_outgoing.to_string(),
                    mode(&s.ipip_mode),
                    mode(&s.vxlan_mode),
                ]);
                cells.extend([s.disabled.to_string(), s.disable_bgp_export.to_string()]);
            }
            cells.push(selector.to_owned());
            if wide {
                let manual = s.assignment_mode == "Manual";
                cells.push(if manual { "Manual" } else { "Automatic" }.to_owned());
            }
            with(cells)
        }
        Resource::IpReservation(r) if wide => with(vec![joined(&r.spec.reserved_cidrs)]),
        Resource::Node(r) if wide => with(node(r, cluster_asn)),
        Resource::WorkloadEndpoint(r) => {
            let mut cells = workload(r, wide);
            if wide {
                cells.insert(0, name());
            }
            cells
        }
        Resource::HostEndpoint(r) => {
            let s = &r.spec;
            let mut cells = vec![s.node.clone()];
            if wide {
                cells.extend([
                    s.interface_name.clone(),
                    joined(&s.expected_ips),
                    joined(&s.profiles),
                ]);
            }
            with(cells)
        }
        Resource::Profile(r) if wide => with(vec![joined(
            r.spec
                .labels_to_apply
                .iter()
                .map(|(k, v)| format!("{k}={v}")),
        )]),
        // None counts as this, and is shown so.
        Resource::Tier(r) => with(vec![
            r.spec
                .order
                .map_or(model::Tier::DEFAULT_ORDER, |o| o.0)
                .to_string(),
        ]),
        Resource::NetworkPolicy(r) => with(policy(&r.spec, wide)),
        Resource::GlobalNetworkPolicy(r) => with(policy(&r.spec, wide)),
        Resource::StagedNetworkPolicy(r) => with(policy(&r.spec, wide)),
        Resource::StagedGlobalNetworkPolicy(r) => with(policy(&r.spec, wide)),
        Resource::StagedKubernetesNetworkPolicy(r) if wide => {
            with(vec![label_selector(r.spec.pod_selector.as_ref())])
        }
        Resource::BgpPeer(r) => with(bgp_peer(&r.spec)),
        Resource::BgpFilter(r) => {
            let s = &r.spec;
            let lists = [&s.export_v4, &s.import_v4, &s.export_v6, &s.import_v6];
            with(lists.map(|l| l.len().to_string()).into())
        }
        Resource::CalicoNodeStatus(r) => {
            let mut cells = vec![r.spec.node.clone()];
            if wide {
                cells.push(joined(&r.spec.classes));
            }
            with(cells)
        }
        Resource::ClusterNetworkPolicy(r) => {
            let priority = r.spec.priority.map(|n| n.to_string());
            with(vec![r.spec.tier.clone(), priority.unwrap_or_default()])
        }
        Resource::Service(r) => with(service(r, wide)),
        Resource::Secret(r) => {
            let kind = r.rest.get("type").and_then(|t| t.as_str());
            with(vec![
                kind.unwrap_or("Opaque").to_owned(),
                r.data.len().to_string(),
            ])
        }
        Resource::EndpointSlice(r) => {
            let ports = r.ports.iter().filter_map(|p| p.port);
            let addresses = r.endpoints.iter().flat_map(|e| &e.addresses);
            with(vec![
                r.address_type.clone(),
                joined(ports),
                joined(addresses),
            ])
        }
        Resource::NetworkSet(r) if wide => with(vec![joined(&r.spec.nets)]),
        Resource::GlobalNetworkSet(r) if wide => with(vec![joined(&r.spec.nets)]),
        Resource::IpamConfiguration(r) => {
            let s = &r.spec;
            let auto = s.auto_allocate_blocks.unwrap_or(true);
            let mut cells = vec![s.strict_affinity.to_string(), auto.to_string()];
            if wide {
                cells.push(s.max_blocks_per_host.to_string());
            }
            with(cells)
        }
        Resource::BgpConfiguration(r) => {
            let s = &r.spec;
            let mesh = s
                .node_to_node_mesh_enabled
                .map_or_else(String::new, |b| b.to_string());
            let asn = s.as_number.map_or_else(String::new, |n| n.0.to_string());
            with(vec![s.log_severity_screen.clone(), mesh, asn])
        }
        Resource::ClusterInformation(r) => {
            let s = &r.spec;
            let ready = s
                .datastore_ready
                .map_or_else(String::new, |b| b.to_string());
            let texts = [&s.cluster_guid, &s.cluster_type, &s.calico_version];
            with(texts.into_iter().cloned().chain([ready]).collect())
        }
        Resource::BlockAffinity(r) => with(vec![
            r.spec.node.clone(),
            r.spec.cidr.clone(),
            r.spec.state.clone(),
        ]),
        Resource::IpamBlock(r) => with(vec![
            r.spec.cidr.clone(),
            r.spec.affinity.clone().unwrap_or_default(),
        ]),
        Resource::Pod(r) => {
            let mut cells = vec![r.status.phase.clone()];
            if wide {
                cells.push(r.status.pod_ip.clone());
            }
            cells.push(r.spec.node_name.clone());
            with(cells)
        }
        Resource::KubeNetworkPolicy(r) => with(vec![label_selector(r.spec.pod_selector.as_ref())]),
        _ => with(Vec::new()),
    }
}

fn joined<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    items
        .into_iter()
        .map(|i| i.to_string())
        .collect::<Vec<_>>()
        .join(",")
}

/// `k=v` of each label, and the further requirements as Kubernetes' tools print them.
fn label_selector(s: Option<&LabelSelector>) -> String {
    let Some(s) = s else { return String::new() };
    let labels = s.match_labels.iter().map(|(k, v)| format!("{k}={v}"));
    let further = s.match_expressions.iter().map(|e| {
        let values = e.values.join(",");
        match e.operator.as_str() {
            "Exists" => e.key.clone(),
            "DoesNotExist" => format!("!{}", e.key),
            "NotIn" => format!("{} notin ({values})", e.key),
            _ => format!("{} in ({values})", e.key),
        }
    });
    joined(labels.chain(further))
}

fn bgp_peer(s: &BgpPeerSpec) -> Vec<String> {
    let node = match (s.node.as_str(), s.node_selector.as_str()) {
        ("", "") => "(global)",
        ("", selector) => selector,
        (node, _) => node,
    };
    // A number that is not given prints as 0 there, and scripts know it.
    let asn = s.as_number.map_or(0, |n| n.0.0);
    vec![s.peer_ip.clone(), node.to_owned(), asn.to_string()]
}

fn service(r: &Service, wide: bool) -> Vec<String> {
    let s = &r.spec;
    let kind = if s.kind.is_empty() {
        "ClusterIP"
    } else {
        &s.kind
    };
    let mut cells = vec![kind.to_owned(), s.cluster_ip.clone()];
    if wide {
        let balanced = r.status.load_balancer.ingress.iter().map(|i| &i.ip);
        cells.push(joined(balanced.chain(&s.external_ips)));
    }
    cells.push(joined(s.ports.iter().map(|p| {
        let protocol = if p.protocol.is_empty() {
            "TCP"
        } else {
            &p.protocol
        };
        format!("{}/{protocol}", p.port)
    })));
    cells
}

fn node(r: &Node, cluster_asn: net::Asn) -> Vec<String> {
    let none = crate::kinds::node::NodeBgpSpec::default();
    let bgp = r.spec.bgp.as_ref().unwrap_or(&none);
    let asn = bgp
        .as_number
        .map_or_else(|| format!("({cluster_asn})"), |n| n.0.to_string());
    vec![asn, bgp.ipv4_address.clone(), bgp.ipv6_address.clone()]
}

fn policy(s: &PolicySpec, wide: bool) -> Vec<String> {
    let mut cells = vec![if s.tier.is_empty() {
        "default".to_owned()
    } else {
        s.tier.clone()
    }];
    if wide {
        cells.push(s.order.map_or_else(String::new, |o| o.to_string()));
        cells.push(s.selector.clone());
    }
    cells
}

fn workload(r: &WorkloadEndpoint, wide: bool) -> Vec<String> {
    let s = &r.spec;
    let workload = [&s.pod, &s.workload, &s.container_id]
        .into_iter()
        .find(|w| !w.is_empty());
    let mut cells = vec![
        workload.cloned().unwrap_or_default(),
        s.node.clone(),
        joined(&s.ip_networks),
        s.interface_name.clone(),
    ];
    if wide {
        cells.push(joined(&s.profiles));
        cells.push(joined(
            s.ip_nats
                .iter()
                .map(|n| format!("{}={}", n.external_ip, n.internal_ip)),
        ));
    }
    cells
}
