//! The node's settings: what configuration states, and what follows from pools and from the
//! node itself.
//!
//! Promises: [`NodeConfig::default`] is what Calico does when nothing is configured.
//!
//! Never: reads a FelixConfiguration; the agent resolves which of them counts.

use desired::{
    DenyAction, Failsafe, Globals, HostAction, LogRate, Nat, ServiceLoop, Spoofing, Tunnel,
};
use net::{Cidr, Family, PortRange};
use std::net::IpAddr;

/// Destinations that natOutgoing leaves alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NatExclusions {
    /// All pools but those only for load balancers (`IPPoolsOnly`).
    #[default]
    Pools,
    /// The nodes' own addresses too (`IPPoolsAndHostIPs`).
    PoolsAndHosts,
}

/// The resolved Felix parameters that calculation needs: one value each, whatever layer
/// of configuration it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeConfig {
    /// `interfacePrefix`: workload interfaces begin so. Never empty.
    pub interface_prefixes: Vec<String>,
    /// `defaultEndpointToHostAction`.
    pub endpoint_to_host: HostAction,
    /// `workloadSourceSpoofing`.
    pub spoofing: Spoofing,
    /// `disableConntrackInvalidCheck`.
    pub allow_invalid: bool,
    /// `allowVXLANPacketsFromWorkloads`.
    pub allow_vxlan_from_workloads: bool,
    /// `allowIPIPPacketsFromWorkloads`.
    pub allow_ipip_from_workloads: bool,
    /// `ipv6Support`.
    pub ipv6: bool,
    /// `vxlanVNI`.
    pub vxlan_vni: u32,
    /// `vxlanPort`, UDP.
    pub vxlan_port: u16,
    /// `vxlanMTU` and `vxlanMTUV6`, in [`Family`] order; `None` is found from the parent.
    pub vxlan_mtu: [Option<u32>; 2],
    /// `vxlanEnabled`: forces IPv4's VXLAN on or off; `None` goes by the pools, as IPv6's
    /// always does.
    pub vxlan: Option<bool>,
    /// `externalNodesList`: addresses outside the cluster that send VXLAN to this node.
    pub external_nodes: Vec<Cidr>,
    /// `natOutgoingExclusions`.
    pub nat_exclusions: NatExclusions,
    /// `natPortRange`.
    pub nat_ports: Option<PortRange>,
    /// `natOutgoingAddress`.
    pub nat_address: Option<IpAddr>,
    /// `deviceRouteProtocol`: protocol number of workload routes.
    pub workload_route_protocol: u8,
    /// `ipv4NormalRoutePriority` and `ipv6NormalRoutePriority`, in [`Family`] order.
    pub workload_route_metric: [u32; 2],
    /// `natOutgoingInterfaceFilter` (`iptablesNATOutgoingInterfaceFilter`): only what leaves there
    /// is translated.
    pub nat_interface: Option<String>,
    /// `logPrefix`.
    pub log_prefix: String,
    /// `logActionRateLimit` with `logActionRateLimitBurst`.
    pub log_rate: Option<LogRate>,
    /// Whether flow logs go anywhere: `flowLogsGoldmaneServer` is set or `flowLogsLocalReporter`
    /// is on.
    pub flow_logs: bool,
    /// `nftablesFilterDenyAction`.
    pub deny: DenyAction,
    /// `failsafeInboundHostPorts`; empty for none.
    pub failsafe_in: Vec<Failsafe>,
    /// `failsafeOutboundHostPorts`; empty for none.
    pub failsafe_out: Vec<Failsafe>,
    /// `serviceLoopPrevention`.
    pub service_loop: ServiceLoop,
    /// `floatingIPs`.
    pub floating_ips: bool,
    /// Whether the calculation routes pools without encapsulation between nodes of one
    /// subnet; off where BGP does it.
    pub program_direct_routes: bool,
}

impl Default for NodeConfig {
    fn default() -> Self {
        let g = Globals::default();
        Self {
            interface_prefixes: g.interface_prefixes,
            endpoint_to_host: g.endpoint_to_host,
            spoofing: g.spoofing,
            allow_invalid: g.allow_invalid,
            allow_vxlan_from_workloads: g.allow_vxlan_from_workloads,
            allow_ipip_from_workloads: g.allow_ipip_from_workloads,
            ipv6: g.ipv6,
            vxlan_vni: 4096,
            vxlan_port: g.vxlan_port,
            vxlan_mtu: [None; 2],
            vxlan: None,
            external_nodes: Vec::new(),
            nat_exclusions: NatExclusions::default(),
            nat_ports: None,
            nat_address: None,
            workload_route_protocol: g.workload_route_protocol,
            workload_route_metric: g.workload_route_metric,
            nat_interface: None,
            log_prefix: g.log_prefix,
            log_rate: g.log_rate,
            flow_logs: g.nflog,
            deny: g.deny,
            failsafe_in: g.failsafe_in,
            failsafe_out: g.failsafe_out,
            service_loop: g.service_loop,
            floating_ips: g.floating_ips,
            program_direct_routes: true,
        }
    }
}

impl NodeConfig {
    /// Whether VXLAN of a family is wanted, where `pools` says whether some pool asks for it.
    pub(crate) fn vxlan_on(&self, family: Family, pools: bool) -> bool {
        match family {
            Family::V4 => self.vxlan.unwrap_or(pools),
            Family::V6 => self.ipv6 && pools,
        }
    }

    /// The settings, given what follows from resources.
    pub(crate) fn globals(&self, found: Found) -> Globals {
        Globals {
            interface_prefixes: self.interface_prefixes.clone(),
            endpoint_to_host: self.endpoint_to_host,
            spoofing: self.spoofing,
            allow_invalid: self.allow_invalid,
            allow_vxlan_from_workloads: self.allow_vxlan_from_workloads,
            allow_ipip_from_workloads: self.allow_ipip_from_workloads,
            vxlan_port: self.vxlan_port,
            ipv6: self.ipv6,
            workload_route_protocol: self.workload_route_protocol,
            workload_route_metric: self.workload_route_metric,
            tunnels: found.tunnels,
            external_vxlan: cover(&self.external_nodes),
            nat: Nat {
                sources: found.nat_sources,
                exclude: found.nat_exclude,
                address: self.nat_address,
                ports: self.nat_ports,
                interface: self.nat_interface.clone(),
            },
            log_prefix: self.log_prefix.clone(),
            log_rate: self.log_rate,
            nflog: self.flow_logs,
            deny: self.deny,
            failsafe_in: self.failsafe_in.clone(),
            failsafe_out: self.failsafe_out.clone(),
            service_loop: self.service_loop,
            service_cidrs: found.service_cidrs,
            floating_ips: self.floating_ips,
            nodes: found.nodes,
            dscp_exclude: found.dscp_exclude,
        }
    }
}

/// What resources say of the settings; lists of prefixes are canonical covers.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) tunnels: [Option<Tunnel>; 2],
    pub(crate) nat_sources: Vec<Cidr>,
    pub(crate) nat_exclude: Vec<Cidr>,
    pub(crate) service_cidrs: Vec<Cidr>,
    pub(crate) nodes: Vec<Cidr>,
    pub(crate) dscp_exclude: Vec<Cidr>,
}

/// The outermost of some prefixes, in order.
pub(crate) fn cover(nets: &[Cidr]) -> Vec<Cidr> {
    let mut sorted = nets.to_vec();
    sorted.sort_unstable();
    let mut out: Vec<Cidr> = Vec::new();
    for c in sorted {
        if !out.last().is_some_and(|l| l.covers(c)) {
            out.push(c);
        }
    }
    out
}
