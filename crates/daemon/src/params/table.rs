//! The table: names and defaults are Calico's.

use super::value::{
    AllowAction, ClusterRoutes, DenyAction, HostAction, LoopPrevention, NatExclusions,
    NftablesMode, ProtoPort, Rate, RouteSource, Spoofing, TableRange, Toggle, Value, Vni,
};
use super::{Row, When};
use net::{Cidr, PortRange};
use std::net::IpAddr;
use std::time::Duration;
use tracing::level_filters::LevelFilter;

/// Reads a default, where the empty text is what `none` is.
fn default_of<T: Value>(name: &str, text: &str) -> T {
    let value = if text.is_empty() {
        T::none()
    } else {
        T::read(text).ok()
    };
    // A test resolves the empty configuration, so a bad row never gets far.
    value.unwrap_or_else(|| panic!("the table's default of {name} is not a value of its type"))
}

fn assign<T: Value>(field: &mut T, text: &str) -> Result<(), String> {
    if text.eq_ignore_ascii_case("none")
        && let Some(none) = T::none()
    {
        *field = none;
        return Ok(());
    }
    *field = T::read(text)?;
    Ok(())
}

macro_rules! params {
    ($( $(#[doc = $doc:literal])+ $field:ident: $t:ty = $default:literal, $name:literal, $when:ident; )*) => {
        /// The values in effect, typed.
        #[derive(Debug, Clone, PartialEq)]
        pub struct FelixParams { $( $(#[doc = $doc])+ pub $field: $t, )* }

        impl Default for FelixParams {
            fn default() -> Self {
                Self { $( $field: default_of($name, $default), )* }
            }
        }

        /// Every parameter, grouped as documentation has them.
        pub static ROWS: &[Row] = &[ $( Row {
            name: $name,
            form: <$t as Value>::FORM,
            default: $default,
            when: When::$when,
            doc: concat!($($doc),+),
        }, )* ];

        impl FelixParams {
            /// Sets one parameter from text; `None` when there is none of that name.
            pub(super) fn set(&mut self, name: &str, text: &str) -> Option<(&'static str, Result<(), String>)> {
                $( if name.eq_ignore_ascii_case($name) {
                    return Some(($name, assign(&mut self.$field, text)));
                } )*
                None
            }

            /// The parameters that differ and take effect only at the next start.
            pub fn needs_restart(&self, new: &Self) -> Vec<&'static str> {
                let mut names = Vec::new();
                $( if When::$when == When::Restart && self.$field != new.$field {
                    names.push($name);
                } )*
                names
            }
        }
    };
}

params! {
    /// Whether IPv6 is handled.
    ipv6_support: bool = "true", "Ipv6Support", Restart;
    /// What host sides of pods' links begin with.
    interface_prefix: Vec<String> = "cali", "InterfacePrefix", Restart;
    /// Interfaces never looked at; /regex/ or exact.
    interface_exclude: Vec<String> = "kube-ipvs0", "InterfaceExclude", Restart;
    /// Packets from a pod to its own host, after policy.
    endpoint_to_host: HostAction = "Drop", "DefaultEndpointToHostAction", Live;
    /// Ports of hosts that stay open for incoming connections.
    failsafe_inbound: Vec<ProtoPort> = "udp:68,tcp:22,tcp:179,tcp:2379,tcp:2380,tcp:5473,tcp:6443,tcp:6666,tcp:6667", "FailsafeInboundHostPorts", Live;
    /// Ports that hosts can always connect to.
    failsafe_outbound: Vec<ProtoPort> = "udp:53,udp:67,tcp:179,tcp:2379,tcp:2380,tcp:5473,tcp:6443,tcp:6666,tcp:6667", "FailsafeOutboundHostPorts", Live;
    /// Packets to service addresses that nobody serves.
    service_loop_prevention: LoopPrevention = "Drop", "ServiceLoopPrevention", Live;
    /// Whether pods may send from addresses that they are annotated with.
    workload_source_spoofing: Spoofing = "Disabled", "WorkloadSourceSpoofing", Live;
    /// Source ports that masquerading takes.
    nat_port_range: Option<PortRange> = "", "NATPortRange", Live;
    /// IPv4 address to masquerade as, instead of the outgoing interface's.
    nat_outgoing_address: Option<IpAddr> = "", "NATOutgoingAddress", Live;
    /// What is not masqueraded.
    nat_outgoing_exclusions: NatExclusions = "IPPoolsOnly", "NATOutgoingExclusions", Live;
    /// Only what leaves by this interface is masqueraded; `+` at the end is any rest.
    nat_interface: String = "", "IptablesNATOutgoingInterfaceFilter", Live;
    /// Pods may send VXLAN themselves.
    allow_vxlan_from_workloads: bool = "false", "AllowVXLANPacketsFromWorkloads", Live;
    /// Pods may send IPIP themselves.
    allow_ipip_from_workloads: bool = "false", "AllowIPIPPacketsFromWorkloads", Live;
    /// Floating addresses of pods.
    floating_ips: Toggle = "Disabled", "FloatingIPs", Live;
    /// What log lines of rules begin with.
    log_prefix: String = "calico-packet", "LogPrefix", Live;
    /// How often each rule writes a log line; unset: always.
    log_rate: Option<Rate> = "", "LogActionRateLimit", Live;
    /// How many lines more at once, after silence.
    log_burst: u32 = "5", "LogActionRateLimitBurst", Live;
    /// Where flows are reported to; empty: nowhere.
    flow_logs_server: String = "", "FlowLogsGoldmaneServer", Live;
    /// Whether flows are reported on a local socket.
    flow_logs_local: Toggle = "Disabled", "FlowLogsLocalReporter", Live;
    /// Packets of no known connection are not dropped for that.
    disable_conntrack_invalid_check: bool = "false", "DisableConntrackInvalidCheck", Live;
    /// Where the CNI plugin finds what is ready.
    endpoint_status_path: String = "/var/run/calico", "EndpointStatusPathPrefix", Restart;
    /// How long the dataplane may take before it counts as hung.
    dataplane_watchdog_timeout: Duration = "90", "DataplaneWatchdogTimeout", Live;
    /// Further hosts that may send tunnelled packets.
    external_nodes: Vec<Cidr> = "", "ExternalNodesCIDRList", Live;

    /// Whether nftables is used.
    nftables_mode: NftablesMode = "Auto", "NFTablesMode", Restart;
    /// How often the whole ruleset is compared with the kernel's; 0 is never.
    nftables_refresh_interval: Duration = "180", "NFTablesRefreshInterval", Live;
    /// Packets that policy allows, when forwarded or received.
    nftables_filter_allow: AllowAction = "Accept", "NFTablesFilterAllowAction", Live;
    /// Packets that policy allows before routing.
    nftables_mangle_allow: AllowAction = "Accept", "NFTablesMangleAllowAction", Live;
    /// Packets that policy denies.
    nftables_filter_deny: DenyAction = "Drop", "NFTablesFilterDenyAction", Live;
    /// Bits of the packet mark that are ours.
    nftables_mark_mask: u32 = "0xffff0000", "NFTablesMarkMask", Restart;

    /// Whether the host forwards packets.
    ip_forwarding: Toggle = "Enabled", "IPForwarding", Live;
    /// How often routes are compared with the kernel's; 0 is never.
    route_refresh_interval: Duration = "90", "RouteRefreshInterval", Live;
    /// How often interfaces are compared with the kernel's; 0 is never.
    interface_refresh_interval: Duration = "90", "InterfaceRefreshInterval", Live;
    /// How long the kernel may take to answer.
    netlink_timeout: Duration = "10", "NetlinkTimeoutSecs", Live;
    /// Where routes to other nodes come from.
    route_source: RouteSource = "CalicoIPAM", "RouteSource", Restart;
    /// Routing tables that may be used.
    route_table_ranges: Vec<TableRange> = "1-250", "RouteTableRanges", Restart;
    /// No routes are programmed.
    route_sync_disabled: bool = "false", "RouteSyncDisabled", Restart;
    /// Source address hint of routes to pods.
    device_route_source: Option<IpAddr> = "", "DeviceRouteSourceAddress", Live;
    /// Source address hint of routes to pods, IPv6.
    device_route_source_v6: Option<IpAddr> = "", "DeviceRouteSourceAddressIPv6", Live;
    /// Protocol number of routes to pods.
    device_route_protocol: u8 = "3", "DeviceRouteProtocol", Restart;
    /// Others' routes to pods' interfaces are removed.
    remove_external_routes: bool = "true", "RemoveExternalRoutes", Live;
    /// Which routes between nodes are programmed here.
    program_cluster_routes: ClusterRoutes = "EnabledIPIPOnly", "ProgramClusterRoutes", Restart;
    /// Metric of IPv4 routes.
    ipv4_route_priority: u32 = "1024", "IPv4NormalRoutePriority", Live;
    /// Metric of IPv6 routes.
    ipv6_route_priority: u32 = "1024", "IPv6NormalRoutePriority", Live;
    /// IPIP device; unset: when a pool asks for it.
    ipip_enabled: Option<bool> = "", "IpInIpEnabled", Live;
    /// MTU of the IPIP device; 0 is detected.
    ipip_mtu: u32 = "0", "IpInIpMtu", Live;
    /// VXLAN devices; unset: when a pool asks for them.
    vxlan_enabled: Option<bool> = "", "VXLANEnabled", Live;
    /// MTU of the IPv4 VXLAN device; 0 is detected.
    vxlan_mtu: u32 = "0", "VXLANMTU", Live;
    /// MTU of the IPv6 VXLAN device; 0 is detected.
    vxlan_mtu_v6: u32 = "0", "VXLANMTUV6", Live;
    /// UDP port of VXLAN.
    vxlan_port: u16 = "4789", "VXLANPort", Live;
    /// VXLAN network.
    vxlan_vni: Vni = "4096", "VXLANVNI", Live;
    /// Interfaces whose MTU counts when it is detected.
    mtu_iface_pattern: String = "^((en|wl|ww|sl|ib)[Pcopsvx].*|(eth|wlan|wwan).*)", "MTUIfacePattern", Restart;

    /// Whether health is served.
    health_enabled: bool = "false", "HealthEnabled", Restart;
    /// Where health is served.
    health_host: String = "localhost", "HealthHost", Restart;
    /// Where health is served.
    health_port: u16 = "9099", "HealthPort", Restart;
    /// Whether metrics are served.
    metrics_enabled: bool = "false", "PrometheusMetricsEnabled", Restart;
    /// Where metrics are served; empty is every address.
    metrics_host: String = "", "PrometheusMetricsHost", Restart;
    /// Where metrics are served.
    metrics_port: u16 = "9091", "PrometheusMetricsPort", Restart;
    /// What is logged to standard error.
    log_severity: LevelFilter = "Info", "LogSeverityScreen", Live;
}
