//! Where packets go: routes, tunnels, translation, and the node-wide settings.

use net::{Cidr, Family, IfName, Mac, PortRange, Protocol};
use std::net::IpAddr;

/// How a destination is reached from this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteTarget {
    /// A local workload, over the host side of its link.
    Workload(IfName),
    /// A local block: what no more specific route takes is dropped here, so that it cannot
    /// loop through the default route.
    Blackhole,
    /// Unencapsulated through a node on a shared segment.
    Direct {
        /// The node's address.
        via: IpAddr,
    },
    /// Through the VXLAN device of the destination's family.
    Vxlan {
        /// Tunnel address of the node behind.
        via: IpAddr,
    },
}

/// The far end of a VXLAN tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vtep {
    /// Its address inside the tunnel.
    pub tunnel: IpAddr,
    /// MAC of its tunnel device.
    pub mac: Mac,
    /// Address of its node, where packets are sent.
    pub host: IpAddr,
}

/// This node's VXLAN device of one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    /// `vxlan.calico` or `vxlan-v6.calico`.
    pub device: IfName,
    /// The network identifier, 4096 by default.
    pub vni: u32,
    /// UDP port, 4789 by default.
    pub port: u16,
    /// Its address inside the tunnel; none until one is allocated, and then
    /// nothing is sent through it.
    pub address: Option<IpAddr>,
    /// Its MAC.
    pub mac: Mac,
    /// Address of this node, the outer source.
    pub host: IpAddr,
    /// Its MTU; `None` is found from the parent.
    pub mtu: Option<u32>,
}

/// What becomes of a pod's packets to its own host that policy let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HostAction {
    /// Dropped.
    #[default]
    Drop,
    /// Left to the rules of others.
    Return,
    /// Accepted.
    Accept,
}

/// Whether pods may ask for further source addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Spoofing {
    /// No: only their own.
    #[default]
    Disabled,
    /// Those that their annotation names.
    Any,
}

/// Translation of what leaves the pools.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Nat {
    /// Sources to be translated: pools with natOutgoing; none overlap.
    pub sources: Vec<Cidr>,
    /// Destinations that are not: all pools, and, when configured, all nodes; none overlap.
    pub exclude: Vec<Cidr>,
    /// Translate to this instead of the address of the outgoing interface (IPv4 only).
    pub address: Option<IpAddr>,
    /// Only these source ports.
    pub ports: Option<PortRange>,
    /// Only what leaves by this interface; `+` at the end stands for any rest.
    pub interface: Option<String>,
}

/// What becomes of what policy denies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DenyAction {
    /// Silence.
    #[default]
    Drop,
    /// A TCP reset, or ICMP "administratively prohibited".
    Reject,
}

/// A port of the host that host policy never closes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failsafe {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The port.
    pub port: u16,
    /// Only with this other side.
    pub net: Option<Cidr>,
}

/// A unit of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Per {
    /// A second.
    #[default]
    Second,
    /// A minute.
    Minute,
    /// An hour.
    Hour,
    /// A day.
    Day,
}

/// How many lines the Log action may write: a rule each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogRate {
    /// Lines.
    pub packets: u32,
    /// In this time.
    pub per: Per,
    /// More at once, after silence.
    pub burst: u32,
}

/// What becomes of packets to a service's address that nobody translated: they would go round
/// between this node and its router.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ServiceLoop {
    /// Dropped.
    #[default]
    Drop,
    /// Answered with an error.
    Reject,
    /// Left alone.
    Disabled,
}

/// What holds for the whole node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Globals {
    /// Workload interfaces begin so; `cali` by default. Never empty.
    pub interface_prefixes: Vec<String>,
    /// Pod to own host.
    pub endpoint_to_host: HostAction,
    /// Whether [`crate::WorkloadPolicy::allowed_sources`] counts.
    pub spoofing: Spoofing,
    /// Whether packets that connection tracking calls invalid go on.
    pub allow_invalid: bool,
    /// Whether pods may send VXLAN packets of their own.
    pub allow_vxlan_from_workloads: bool,
    /// Whether pods may send IP-in-IP packets of their own.
    pub allow_ipip_from_workloads: bool,
    /// UDP port of VXLAN, also where this node has no tunnel: pods are held to it.
    pub vxlan_port: u16,
    /// Whether IPv6 is programmed.
    pub ipv6: bool,
    /// Protocol number of workload routes, 3 (boot) by default.
    pub workload_route_protocol: u8,
    /// Metric of workload routes, 1024 by default, per family in [`Family`] order.
    pub workload_route_metric: [u32; 2],
    /// The tunnels that some pool asks for, in [`Family`] order.
    pub tunnels: [Option<Tunnel>; 2],
    /// Addresses, besides the VTEPs' hosts, that may send VXLAN to this node.
    pub external_vxlan: Vec<Cidr>,
    /// Translation.
    pub nat: Nat,
    /// Prefix of log lines; `calico-packet` by default. `%t`, `%k`, `%n` and `%p` stand for tier,
    /// kind, name, and namespace with name, of the policy.
    pub log_prefix: String,
    /// Limit of each rule's log lines.
    pub log_rate: Option<LogRate>,
    /// Whether each verdict is sent to NFLOG groups 1 (ingress) and 2 (egress) with the rule's
    /// identity: for flow logs.
    pub nflog: bool,
    /// What becomes of what policy denies.
    pub deny: DenyAction,
    /// Ports towards the host that its policy never closes.
    pub failsafe_in: Vec<Failsafe>,
    /// Ports from the host that its policy never closes.
    pub failsafe_out: Vec<Failsafe>,
    /// For packets to `service_cidrs` that are forwarded untranslated.
    pub service_loop: ServiceLoop,
    /// Ranges of service addresses that BGPConfiguration names; none overlap.
    pub service_cidrs: Vec<Cidr>,
    /// Whether [`crate::WorkloadPolicy::nats`] counts.
    pub floating_ips: bool,
    /// Addresses of all nodes, which may send IP in IP to this one; none overlap.
    pub nodes: Vec<Cidr>,
    /// Where DSCP marks do not go: all pools and this node's addresses; none overlap.
    pub dscp_exclude: Vec<Cidr>,
}

impl Globals {
    /// The tunnel of a family.
    pub fn tunnel(&self, family: Family) -> Option<&Tunnel> {
        self.tunnels[match family {
            Family::V4 => 0,
            Family::V6 => 1,
        }]
        .as_ref()
    }
}

fn failsafes(lists: &[(Protocol, &[u16])]) -> Vec<Failsafe> {
    let each = |&(protocol, ports): &(Protocol, &[u16])| {
        let one = move |&port| Failsafe {
            protocol,
            port,
            net: None,
        };
        ports.iter().map(one).collect::<Vec<_>>()
    };
    lists.iter().flat_map(each).collect()
}

impl Default for Globals {
    fn default() -> Self {
        Self {
            interface_prefixes: vec!["cali".to_owned()],
            endpoint_to_host: HostAction::Drop,
            spoofing: Spoofing::Disabled,
            allow_invalid: false,
            allow_vxlan_from_workloads: false,
            allow_ipip_from_workloads: false,
            vxlan_port: 4789,
            ipv6: true,
            workload_route_protocol: 3,
            workload_route_metric: [1024; 2],
            tunnels: [None, None],
            external_vxlan: Vec::new(),
            nat: Nat::default(),
            log_prefix: "calico-packet".to_owned(),
            log_rate: None,
            nflog: false,
            deny: DenyAction::Drop,
            failsafe_in: failsafes(&[
                (
                    Protocol::TCP,
                    &[22, 179, 2379, 2380, 5473, 6443, 6666, 6667],
                ),
                (Protocol::UDP, &[68]),
            ]),
            failsafe_out: failsafes(&[
                (Protocol::TCP, &[179, 2379, 2380, 5473, 6443, 6666, 6667]),
                (Protocol::UDP, &[53, 67]),
            ]),
            service_loop: ServiceLoop::Drop,
            service_cidrs: Vec::new(),
            floating_ips: false,
            nodes: Vec::new(),
            dscp_exclude: Vec::new(),
        }
    }
}
