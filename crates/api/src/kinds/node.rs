//! Calico's own Node resource.

use crate::meta::ObjectMeta;
use crate::wire::{AsNumber, record};

record! {
    /// A machine of the cluster.
    pub struct Node {
        /// Name, labels and the like.
        pub metadata: ObjectMeta,
        /// What is known of it.
        pub spec: NodeSpec,
        /// What its agent reports.
        pub status: Option<NodeStatus>,
    }
}

record! {
    /// Spec of a [`Node`].
    pub struct NodeSpec {
        /// Addresses for pod traffic and BGP.
        pub bgp: Option<NodeBgpSpec>,
        /// Address of `vxlan.calico`.
        #[serde(rename = "ipv4VXLANTunnelAddr")]
        pub ipv4_vxlan_tunnel_addr: String,
        /// MAC of `vxlan.calico`.
        #[serde(rename = "vxlanTunnelMACAddr")]
        pub vxlan_tunnel_mac_addr: String,
        /// Address of `vxlan-v6.calico`.
        #[serde(rename = "ipv6VXLANTunnelAddr")]
        pub ipv6_vxlan_tunnel_addr: String,
        /// MAC of `vxlan-v6.calico`.
        #[serde(rename = "vxlanTunnelMACAddrV6")]
        pub vxlan_tunnel_mac_addr_v6: String,
        /// What the orchestrators call it.
        pub orch_refs: Vec<OrchRef>,
        /// Addresses of the WireGuard devices.
        pub wireguard: Option<NodeWireguardSpec>,
        /// Every address it is known by.
        pub addresses: Vec<NodeAddress>,
        /// Its interfaces and their addresses.
        pub interfaces: Vec<NodeInterface>,
    }
}

record! {
    /// BGP of a [`Node`].
    pub struct NodeBgpSpec {
        /// When it is not the cluster's.
        pub as_number: Option<AsNumber>,
        /// With its subnet, as `192.0.2.1/24`.
        pub ipv4_address: String,
        /// With its subnet.
        pub ipv6_address: String,
        /// Address of `tunl0`.
        #[serde(rename = "ipv4IPIPTunnelAddr")]
        pub ipv4_ipip_tunnel_addr: String,
        /// Set on route reflectors: the cluster ID, in the shape of an IPv4 address.
        #[serde(rename = "routeReflectorClusterID")]
        pub route_reflector_cluster_id: String,
    }
}

record! {
    /// What an orchestrator calls a [`Node`].
    pub struct OrchRef {
        /// Its name there.
        pub node_name: String,
        /// `k8s` or another.
        pub orchestrator: String,
    }
}

record! {
    /// WireGuard of a [`Node`].
    pub struct NodeWireguardSpec {
        /// Address of `wireguard.cali`.
        #[serde(rename = "interfaceIPv4Address")]
        pub interface_ipv4_address: String,
        /// Address of `wg-v6.cali`.
        #[serde(rename = "interfaceIPv6Address")]
        pub interface_ipv6_address: String,
    }
}

record! {
    /// One address of a [`Node`].
    pub struct NodeAddress {
        /// Bare or with its subnet.
        pub address: String,
        /// `CalicoNodeIP`, `InternalIP` or `ExternalIP`.
        #[serde(rename = "type")]
        pub kind: String,
    }
}

record! {
    /// One interface of a [`Node`].
    pub struct NodeInterface {
        /// Its name.
        pub name: String,
        /// Its addresses.
        pub addresses: Vec<String>,
    }
}

record! {
    /// Status of a [`Node`].
    pub struct NodeStatus {
        /// Base64.
        pub wireguard_public_key: String,
        /// Base64.
        #[serde(rename = "wireguardPublicKeyV6")]
        pub wireguard_public_key_v6: String,
        /// What Kubernetes gave it.
        #[serde(rename = "podCIDRs")]
        pub pod_cidrs: Vec<String>,
    }
}
