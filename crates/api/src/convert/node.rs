//! Nodes, Calico's own and Kubernetes' with Calico's annotations.

use super::{Cause, cause};
use crate::kinds::kube::KubeNode;
use crate::kinds::node::{Node, NodeAddress, NodeBgpSpec, NodeWireguardSpec, OrchRef};
use crate::meta::StringMap;
use crate::wire::AsNumber;
use model::{Labels, Update};
use net::Cidr;
use std::net::IpAddr;
use std::str::FromStr;

/// An address with or without the length of its subnet.
fn address(text: &str) -> Result<Option<model::NodeAddress>, net::ParseError> {
    if text.is_empty() {
        return Ok(None);
    }
    let subnet: Cidr = text.parse()?;
    let bare = text.split_once('/').map_or(text, |(a, _)| a);
    // The prefix parsed, so that its address does as well.
    Ok(bare
        .parse()
        .ok()
        .map(|addr| model::NodeAddress { addr, subnet }))
}

fn optional<T: FromStr<Err: std::fmt::Display>>(
    field: &str,
    text: &str,
) -> Result<Option<T>, Cause> {
    match text {
        "" => Ok(None),
        t => t
            .parse()
            .map(Some)
            .map_err(|e| format!("{field}: {t:?}: {e}")),
    }
}

pub(super) fn update(r: &Node) -> Result<Update, Cause> {
    let s = &r.spec;
    let none = NodeBgpSpec::default();
    let bgp = s.bgp.as_ref().unwrap_or(&none);
    let own = |field, text: &str| address(text).map_err(|e| cause(field)(&e));
    let cluster_id = bgp.route_reflector_cluster_id.as_str();
    let status = r.status.iter();
    let node = model::Node {
        ipv4: own("spec.bgp.ipv4Address", &bgp.ipv4_address)?,
        ipv6: own("spec.bgp.ipv6Address", &bgp.ipv6_address)?,
        // 0 is "not set", as everywhere.
        asn: bgp.as_number.map(|n| n.0).filter(|n| *n != net::Asn(0)),
        route_reflector_cluster: (!cluster_id.is_empty()).then(|| cluster_id.into()),
        vxlan_v4: optional("spec.ipv4VXLANTunnelAddr", &s.ipv4_vxlan_tunnel_addr)?,
        vxlan_v6: optional("spec.ipv6VXLANTunnelAddr", &s.ipv6_vxlan_tunnel_addr)?,
        vxlan_mac_v4: optional("spec.vxlanTunnelMACAddr", &s.vxlan_tunnel_mac_addr)?,
        vxlan_mac_v6: optional("spec.vxlanTunnelMACAddrV6", &s.vxlan_tunnel_mac_addr_v6)?,
        ipip_v4: optional("spec.bgp.ipv4IPIPTunnelAddr", &bgp.ipv4_ipip_tunnel_addr)?,
        addresses: addresses(&s.addresses),
        // What others than we write here is no reason to lose the node.
        pod_cidrs: status
            .flat_map(|s| &s.pod_cidrs)
            .filter_map(|c| c.parse().ok())
            .collect(),
        labels: Labels::new(
            r.metadata
                .labels
                .iter()
                .map(|(k, v)| (k.as_str(), v.as_str())),
        ),
    };
    Ok(Update::Node(r.metadata.name.as_str().into(), Some(node)))
}

/// Each address once; host names and the like among them are passed over.
fn addresses(list: &[NodeAddress]) -> Vec<IpAddr> {
    let mut out: Vec<IpAddr> = Vec::with_capacity(list.len());
    for a in list {
        let bare = a
            .address
            .split_once('/')
            .map_or(a.address.as_str(), |(a, _)| a);
        match bare.parse() {
            Ok(addr) if !out.contains(&addr) => out.push(addr),
            _ => {}
        }
    }
    out
}

/// Calico's view of a Kubernetes node: what the `projectcalico.org/...` annotations say; values
/// that cannot be are passed over, as if they were not there.
pub fn from_kube(k: &KubeNode) -> Node {
    let annotation = |name: &str| {
        k.metadata
            .annotations
            .get(&format!("projectcalico.org/{name}"))
            .map_or("", String::as_str)
    };
    fn good<T: FromStr>(text: &str) -> String {
        if text.parse::<T>().is_ok() {
            text.to_owned()
        } else {
            String::new()
        }
    }
    let bgp = NodeBgpSpec {
        as_number: annotation("ASNumber").parse().ok().map(AsNumber),
        ipv4_address: good::<Cidr>(annotation("IPv4Address")),
        ipv6_address: good::<Cidr>(annotation("IPv6Address")),
        ipv4_ipip_tunnel_addr: good::<IpAddr>(annotation("IPv4IPIPTunnelAddr")),
        route_reflector_cluster_id: good::<std::net::Ipv4Addr>(annotation(
            "RouteReflectorClusterID",
        )),
    };
    let wireguard = NodeWireguardSpec {
        interface_ipv4_address: good::<IpAddr>(annotation("IPv4WireguardInterfaceAddr")),
        interface_ipv6_address: good::<IpAddr>(annotation("IPv6WireguardInterfaceAddr")),
    };
    let mut node = Node {
        metadata: k.metadata.clone(),
        ..Node::default()
    };
    node.metadata
        .annotations
        .retain(|k, _| !k.starts_with("projectcalico.org/"));
    let s = &mut node.spec;
    let of = |address: &str, kind: &str| NodeAddress {
        address: address.to_owned(),
        kind: kind.to_owned(),
    };
    let calico = [&bgp.ipv4_address, &bgp.ipv6_address];
    s.addresses = calico
        .iter()
        .filter(|a| !a.is_empty())
        .map(|a| of(a, "CalicoNodeIP"))
        .collect();
    let wanted = |a: &&crate::kinds::kube::KubeNodeAddress| {
        matches!(a.kind.as_str(), "InternalIP" | "ExternalIP")
    };
    s.addresses.extend(
        k.status
            .addresses
            .iter()
            .filter(wanted)
            .map(|a| of(&a.address, &a.kind)),
    );
    s.orch_refs = vec![OrchRef {
        node_name: k.metadata.name.clone(),
        orchestrator: "k8s".to_owned(),
    }];
    s.ipv4_vxlan_tunnel_addr = good::<IpAddr>(annotation("IPv4VXLANTunnelAddr"));
    s.ipv6_vxlan_tunnel_addr = good::<IpAddr>(annotation("IPv6VXLANTunnelAddr"));
    s.vxlan_tunnel_mac_addr = good::<net::Mac>(annotation("VXLANTunnelMACAddr"));
    s.vxlan_tunnel_mac_addr_v6 = good::<net::Mac>(annotation("VXLANTunnelMACAddrV6"));
    s.interfaces = serde_json::from_str(annotation("Interfaces")).unwrap_or_default();
    s.bgp = (bgp != NodeBgpSpec::default()).then_some(bgp);
    s.wireguard = (wireguard != NodeWireguardSpec::default()).then_some(wireguard);
    let mut pod_cidrs = k.spec.pod_cidrs.clone();
    if pod_cidrs.is_empty() && !k.spec.pod_cidr.is_empty() {
        pod_cidrs.push(k.spec.pod_cidr.clone());
    }
    let status = crate::kinds::node::NodeStatus {
        wireguard_public_key: annotation("WireguardPublicKey").to_owned(),
        wireguard_public_key_v6: annotation("WireguardPublicKeyV6").to_owned(),
        pod_cidrs,
    };
    node.status = (status != crate::kinds::node::NodeStatus::default()).then_some(status);
    node
}

/// The annotations by which a Kubernetes node carries what Calico's node says; the inverse of
/// [`from_kube`]. An empty text means that the annotation is to go.
pub fn to_annotations(node: &Node) -> StringMap {
    let s = &node.spec;
    let bgp = s.bgp.clone().unwrap_or_default();
    let wireguard = s.wireguard.clone().unwrap_or_default();
    let status = node.status.clone().unwrap_or_default();
    let interfaces = if s.interfaces.is_empty() {
        None
    } else {
        serde_json::to_string(&s.interfaces).ok()
    };
    [
        ("IPv4Address", bgp.ipv4_address),
        ("IPv6Address", bgp.ipv6_address),
        (
            "ASNumber",
            bgp.as_number.map_or_else(String::new, |n| n.0.to_string()),
        ),
        ("RouteReflectorClusterID", bgp.route_reflector_cluster_id),
        ("IPv4IPIPTunnelAddr", bgp.ipv4_ipip_tunnel_addr),
        ("IPv4VXLANTunnelAddr", s.ipv4_vxlan_tunnel_addr.clone()),
        ("IPv6VXLANTunnelAddr", s.ipv6_vxlan_tunnel_addr.clone()),
        ("VXLANTunnelMACAddr", s.vxlan_tunnel_mac_addr.clone()),
        ("VXLANTunnelMACAddrV6", s.vxlan_tunnel_mac_addr_v6.clone()),
        (
            "IPv4WireguardInterfaceAddr",
            wireguard.interface_ipv4_address,
        ),
        (
            "IPv6WireguardInterfaceAddr",
            wireguard.interface_ipv6_address,
        ),
        ("WireguardPublicKey", status.wireguard_public_key),
        ("WireguardPublicKeyV6", status.wireguard_public_key_v6),
        ("Interfaces", interfaces.unwrap_or_default()),
    ]
    .into_iter()
    .map(|(name, value)| (format!("projectcalico.org/{name}"), value))
    .collect()
}
