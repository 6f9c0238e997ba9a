//! Endpoints, nodes and network sets.

use super::{Check, names};
use crate::annotations;
use crate::kinds::endpoint::{HostEndpoint, WorkloadEndpoint};
use crate::kinds::node::Node;
use crate::kinds::sets::NetworkSetSpec;
use crate::meta::ObjectMeta;
use crate::wire::NumOrString;
use net::{Cidr, Family, Mac, Protocol};
use std::net::IpAddr;

fn protocol(c: &mut Check, field: &str, p: &NumOrString) {
    if !p
        .to_string()
        .parse::<Protocol>()
        .is_ok_and(Protocol::has_ports)
    {
        c.fail(field, p, "must be TCP, UDP or SCTP");
    }
}

fn port(c: &mut Check, field: &str, port: u16) {
    if port == 0 {
        c.fail(field, port, "must be between 1 and 65535");
    }
}

fn profiles(c: &mut Check, list: &[String]) {
    for (i, p) in list.iter().enumerate() {
        if !names::is_subdomain(p) {
            c.fail(format!("spec.profiles[{i}]"), p, "invalid profile name");
        }
    }
}

pub(super) fn host(c: &mut Check, r: &HostEndpoint) {
    let s = &r.spec;
    if let Some(d) = r.metadata.annotations.get(annotations::DSCP)
        && crate::convert::dscp(d).is_none()
    {
        let field = format!("metadata.annotations[{}]", annotations::DSCP);
        c.fail(field, d, "must be 0-63, DF, EF, AFxy or CSn");
    }
    if !s.node.is_empty() && !names::is_subdomain(&s.node) {
        c.fail("spec.node", &s.node, "invalid node name");
    }
    if s.node.is_empty() {
        c.fail("spec.node", "", "node must be specified");
    }
    if s.interface_name.is_empty() && s.expected_ips.is_empty() {
        let reason = "at least one of interfaceName or expectedIPs must be specified";
        c.fail("spec.interfaceName", "", reason);
    }
    let name = s.interface_name.as_str();
    if !name.is_empty() && name != "*" && !names::is_interface(name) {
        c.fail("spec.interfaceName", name, "invalid interface name");
    }
    for (i, ip) in s.expected_ips.iter().enumerate() {
        if ip.parse::<IpAddr>().is_err() {
            c.fail(format!("spec.expectedIPs[{i}]"), ip, "invalid IP address");
        }
    }
    profiles(c, &s.profiles);
    for (i, p) in s.ports.iter().enumerate() {
        if !names::is_word(&p.name, 128) {
            c.fail(
                format!("spec.ports[{i}].name"),
                &p.name,
                "invalid port name",
            );
        }
        protocol(c, &format!("spec.ports[{i}].protocol"), &p.protocol);
        port(c, &format!("spec.ports[{i}].port"), p.port);
    }
}

pub(super) fn workload(c: &mut Check, r: &WorkloadEndpoint) {
    let s = &r.spec;
    match crate::convert::split_workload_name(&r.metadata.name) {
        None => {
            let reason =
                "name must be <node>-<orchestrator>-<workload>-<endpoint>, each '-' within doubled";
            c.fail("metadata.name", &r.metadata.name, reason);
        }
        Some([node, orchestrator, _, endpoint]) => {
            for (field, part, given) in [
                ("spec.node", node, &s.node),
                ("spec.orchestrator", orchestrator, &s.orchestrator),
                ("spec.endpoint", endpoint, &s.endpoint),
            ] {
                if part != *given {
                    c.fail(
                        field,
                        given,
                        format!("does not agree with the name, which says {part:?}"),
                    );
                }
            }
        }
    }
    if !s.interface_name.is_empty() && s.interface_name.parse::<net::IfName>().is_err() {
        c.fail(
            "spec.interfaceName",
            &s.interface_name,
            "invalid interface name",
        );
    }
    if !s.mac.is_empty() && s.mac.parse::<Mac>().is_err() {
        c.fail("spec.mac", &s.mac, "invalid MAC address");
    }
    for (i, n) in s.ip_networks.iter().enumerate() {
        if !n.parse::<Cidr>().is_ok_and(Cidr::is_host) {
            c.fail(
                format!("spec.ipNetworks[{i}]"),
                n,
                "must be a /32 or a /128",
            );
        }
    }
    let own = |inside: &str| {
        inside.parse().is_ok_and(|ip: IpAddr| {
            s.ip_networks
                .iter()
                .any(|n| n.parse().is_ok_and(|c: Cidr| c.contains(ip)))
        })
    };
    for (i, n) in s.ip_nats.iter().enumerate() {
        if n.external_ip.parse::<IpAddr>().is_err() {
            c.fail(
                format!("spec.ipNATs[{i}].externalIP"),
                &n.external_ip,
                "invalid IP address",
            );
        }
        if !own(&n.internal_ip) {
            let field = format!("spec.ipNATs[{i}].internalIP");
            c.fail(
                field,
                &n.internal_ip,
                "must be one of the endpoint's own addresses",
            );
        }
    }
    c.ip("spec.ipv4Gateway", &s.ipv4_gateway);
    c.ip("spec.ipv6Gateway", &s.ipv6_gateway);
    for (i, n) in s.allow_spoofed_source_prefixes.iter().enumerate() {
        c.net(&format!("spec.allowSpoofedSourcePrefixes[{i}]"), n);
    }
    profiles(c, &s.profiles);
    for (i, p) in s.ports.iter().enumerate() {
        if !p.name.is_empty() && !names::is_word(&p.name, 128) {
            c.fail(
                format!("spec.ports[{i}].name"),
                &p.name,
                "invalid port name",
            );
        }
        protocol(c, &format!("spec.ports[{i}].protocol"), &p.protocol);
        port(c, &format!("spec.ports[{i}].port"), p.port);
        c.ip(&format!("spec.ports[{i}].hostIP"), &p.host_ip);
    }
    if let Some(d) = s.qos_controls.as_ref().and_then(|q| q.dscp.as_ref())
        && crate::convert::dscp(&d.to_string()).is_none()
    {
        c.fail(
            "spec.qosControls.dscp",
            d,
            "must be 0-63, DF, EF, AFxy or CSn",
        );
    }
}

pub(super) fn node(c: &mut Check, r: &Node) {
    let s = &r.spec;
    if let Some(b) = &s.bgp {
        if *b == crate::kinds::node::NodeBgpSpec::default() {
            c.fail("spec.bgp", "", "Spec.BGP should not be empty");
        }
        for (field, text, family) in [
            ("spec.bgp.ipv4Address", &b.ipv4_address, Family::V4),
            ("spec.bgp.ipv6Address", &b.ipv6_address, Family::V6),
        ] {
            if !text.is_empty() && !text.parse::<Cidr>().is_ok_and(|c| c.family() == family) {
                c.fail(field, text, format!("invalid {family} address or CIDR"));
            }
        }
        c.ip("spec.bgp.ipv4IPIPTunnelAddr", &b.ipv4_ipip_tunnel_addr);
        let id = &b.route_reflector_cluster_id;
        if !id.is_empty() && id.parse::<std::net::Ipv4Addr>().is_err() {
            c.fail(
                "spec.bgp.routeReflectorClusterID",
                id,
                "must have the form of an IPv4 address",
            );
        }
    }
    c.ip("spec.ipv4VXLANTunnelAddr", &s.ipv4_vxlan_tunnel_addr);
    c.ip("spec.ipv6VXLANTunnelAddr", &s.ipv6_vxlan_tunnel_addr);
    for (field, mac) in [
        ("spec.vxlanTunnelMACAddr", &s.vxlan_tunnel_mac_addr),
        ("spec.vxlanTunnelMACAddrV6", &s.vxlan_tunnel_mac_addr_v6),
    ] {
        if !mac.is_empty() && mac.parse::<Mac>().is_err() {
            c.fail(field, mac, "invalid MAC address");
        }
    }
    if let Some(w) = &s.wireguard {
        c.ip(
            "spec.wireguard.interfaceIPv4Address",
            &w.interface_ipv4_address,
        );
        c.ip(
            "spec.wireguard.interfaceIPv6Address",
            &w.interface_ipv6_address,
        );
    }
    for (i, a) in s.addresses.iter().enumerate() {
        if a.address.parse::<Cidr>().is_err() {
            c.fail(
                format!("spec.addresses[{i}].address"),
                &a.address,
                "invalid IP address",
            );
        }
        let known = ["CalicoNodeIP", "InternalIP", "ExternalIP"];
        c.one_of(&format!("spec.addresses[{i}].type"), &a.kind, &known);
    }
    for (i, o) in s.orch_refs.iter().enumerate() {
        if o.orchestrator.is_empty() {
            c.fail(
                format!("spec.orchRefs[{i}].orchestrator"),
                "",
                "orchestrator must be specified",
            );
        }
    }
}

pub(super) fn set(c: &mut Check, meta: &ObjectMeta, s: &NetworkSetSpec) {
    let forbidden = model::selector::NAMESPACE_LABEL;
    if let Some(v) = meta.labels.get(forbidden) {
        c.fail(
            "metadata.labels",
            v,
            format!("{forbidden} is not a valid label name"),
        );
    }
    for (i, n) in s.nets.iter().enumerate() {
        c.net(&format!("spec.nets[{i}]"), n);
    }
}
