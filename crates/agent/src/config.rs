//! Which configuration counts on this node: all layers of the store, the node's file and the
//! environment, resolved into the parts that calculation and process take.
//!
//! Promises: the same layers give the same answer; a bad value is told once with its name, value and
//! source, and the next lower layer counts.

use calc::{NatExclusions, NodeConfig};
use daemon::FelixParams;
use daemon::node::Backend;
use daemon::params::{self, Layer, Source};
use desired::{DenyAction, Failsafe, HostAction, LogRate, Per, ServiceLoop, Spoofing};
use model::{FelixConfig, Labels, Node, Selector};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The layers that this process has of its own, and what was said of bad values already.
#[derive(Debug)]
pub(crate) struct Configuration {
    node: Arc<str>,
    /// Where BGP is spoken it brings the routes that need no encapsulation.
    backend: Backend,
    own: Vec<Layer>,
    told: BTreeSet<String>,
    params: FelixParams,
}

impl Configuration {
    /// From the node's file and environment.
    pub(crate) fn new(node: Arc<str>, backend: Backend, own: Vec<Layer>) -> Self {
        let params = FelixParams::resolve(&own).params;
        let mut new = Self {
            node,
            backend,
            own,
            told: BTreeSet::new(),
            params,
        };
        new.resolve(&BTreeMap::new(), None);
        new
    }

    /// The parameters in force.
    pub(crate) fn params(&self) -> &FelixParams {
        &self.params
    }

    /// Takes the store's layers as they are now.
    pub(crate) fn resolve(
        &mut self,
        stored: &BTreeMap<Arc<str>, FelixConfig>,
        node: Option<&Node>,
    ) {
        let mut layers = self.own.clone();
        layers.extend(self.stored_layers(stored, node));
        let found = FelixParams::resolve(&layers);
        for e in &found.errors {
            let text = e.to_string();
            if self.told.insert(text.clone()) {
                tracing::warn!("{text}");
            }
        }
        let restart = self.params.needs_restart(&found.params);
        if !restart.is_empty() && node.is_some() {
            tracing::info!(
                parameters = restart.join(", "),
                "changed parameters take effect when the node's agent starts again"
            );
        }
        self.params = found.params;
    }

    fn stored_layers(
        &self,
        stored: &BTreeMap<Arc<str>, FelixConfig>,
        node: Option<&Node>,
    ) -> Vec<Layer> {
        let mut out = Vec::new();
        let mut selected: Option<(&Arc<str>, &FelixConfig)> = None;
        let nobody = Labels::default();
        let labels = node.map_or(&nobody, |n| &n.labels);
        for (name, config) in stored {
            if &**name == "default" {
                out.push(Layer::new(Source::Global, &config.values));
            } else if let Some(of) = name.strip_prefix("node.") {
                if of == &*self.node {
                    out.push(Layer::new(Source::Node(name.to_string()), &config.values));
                }
            } else if let Some(text) = &config.node_selector
                && Selector::parse(text).is_ok_and(|s| s.matches(labels))
                && selected.is_none_or(|(n, c)| (config.created, name) < (c.created, n))
            {
                selected = Some((name, config));
            }
        }
        out.extend(selected.map(|(n, c)| Layer::new(Source::Selector(n.to_string()), &c.values)));
        out
    }

    /// The part that calculation takes.
    pub(crate) fn node_config(&self) -> NodeConfig {
        let p = &self.params;
        NodeConfig {
            interface_prefixes: p.interface_prefix.clone(),
            endpoint_to_host: match p.endpoint_to_host {
                params::HostAction::Drop => HostAction::Drop,
                params::HostAction::Accept => HostAction::Accept,
                params::HostAction::Return => HostAction::Return,
            },
            spoofing: match p.workload_source_spoofing {
                params::Spoofing::Disabled => Spoofing::Disabled,
                params::Spoofing::Any => Spoofing::Any,
            },
            allow_invalid: p.disable_conntrack_invalid_check,
            allow_vxlan_from_workloads: p.allow_vxlan_from_workloads,
            allow_ipip_from_workloads: p.allow_ipip_from_workloads,
            ipv6: p.ipv6_support,
            vxlan_vni: p.vxlan_vni.0,
            vxlan_port: p.vxlan_port,
            vxlan_mtu: [p.vxlan_mtu, p.vxlan_mtu_v6].map(|m| (m > 0).then_some(m)),
            vxlan: p.vxlan_enabled,
            external_nodes: p.external_nodes.clone(),
            nat_exclusions: match p.nat_outgoing_exclusions {
                params::NatExclusions::IPPoolsOnly => NatExclusions::Pools,
                params::NatExclusions::IPPoolsAndHostIPs => NatExclusions::PoolsAndHosts,
            },
            nat_ports: p.nat_port_range,
            nat_address: p.nat_outgoing_address,
            workload_route_protocol: p.device_route_protocol,
            workload_route_metric: [p.ipv4_route_priority, p.ipv6_route_priority],
            nat_interface: Some(&p.nat_interface).filter(|i| !i.is_empty()).cloned(),
            log_prefix: p.log_prefix.clone(),
            log_rate: p.log_rate.map(|r| log_rate(r, p.log_burst)),
            flow_logs: !p.flow_logs_server.is_empty()
                || p.flow_logs_local == params::Toggle::Enabled,
            deny: match p.nftables_filter_deny {
                params::DenyAction::Drop => DenyAction::Drop,
                params::DenyAction::Reject => DenyAction::Reject,
            },
            failsafe_in: failsafes(&p.failsafe_inbound),
            failsafe_out: failsafes(&p.failsafe_outbound),
            service_loop: match p.service_loop_prevention {
                params::LoopPrevention::Drop => ServiceLoop::Drop,
                params::LoopPrevention::Reject => ServiceLoop::Reject,
                params::LoopPrevention::Disabled => ServiceLoop::Disabled,
            },
            floating_ips: p.floating_ips == params::Toggle::Enabled,
            program_direct_routes: self.backend != Backend::Bgp
                || matches!(
                    p.program_cluster_routes,
                    params::ClusterRoutes::Enabled | params::ClusterRoutes::EnabledNoEncapOnly
                ),
        }
    }
}

fn log_rate(rate: params::Rate, burst: u32) -> LogRate {
    LogRate {
        packets: rate.count,
        per: match rate.seconds {
            ..=1 => Per::Second,
            2..=60 => Per::Minute,
            61..=3600 => Per::Hour,
            _ => Per::Day,
        },
        burst,
    }
}

fn failsafes(ports: &[params::ProtoPort]) -> Vec<Failsafe> {
    let one = |p: &params::ProtoPort| Failsafe {
        protocol: p.protocol,
        port: p.port,
        net: p.net,
    };
    ports.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(
        name: &str,
        selector: Option<&str>,
        created: i64,
        pairs: &[(&str, &str)],
    ) -> (Arc<str>, FelixConfig) {
        let values = pairs
            .iter()
            .map(|(k, v)| (Arc::from(*k), Arc::from(*v)))
            .collect();
        (
            Arc::from(name),
            FelixConfig {
                values,
                node_selector: selector.map(Arc::from),
                created,
            },
        )
    }

    #[test]
    fn higher_layers_win_and_the_oldest_selector_counts() {
        let env = Layer::new(Source::Env, [("VXLANPort", "4790")]);
        let mut c = Configuration::new("n1".into(), Backend::Vxlan, vec![env]);
        let all = BTreeMap::from([
            stored(
                "default",
                None,
                1,
                &[("vxlanport", "1"), ("vxlanvni", "5"), ("logprefix", "a")],
            ),
            stored("young", Some("has(rack)"), 9, &[("vxlanvni", "9")]),
            stored(
                "old",
                Some("has(rack)"),
                3,
                &[("vxlanvni", "7"), ("logprefix", "b")],
            ),
            stored("elsewhere", Some("has(other)"), 1, &[("vxlanvni", "8")]),
            stored("node.n1", None, 5, &[("logprefix", "c"), ("vxlanmtu", "x")]),
            stored("node.n2", None, 5, &[("logprefix", "d")]),
        ]);
        let node = Node {
            labels: Labels::new([("rack", "1")]),
            ..Node::default()
        };
        c.resolve(&all, Some(&node));
        let n = c.node_config();
        assert_eq!(
            (
                n.vxlan_port,
                n.vxlan_vni,
                n.log_prefix.as_str(),
                n.vxlan_mtu[0]
            ),
            (4790, 7, "c", None)
        );
        c.resolve(&BTreeMap::new(), Some(&node));
        assert_eq!(
            (c.node_config().vxlan_port, c.node_config().vxlan_vni),
            (4790, 4096)
        );
    }

    #[test]
    fn parameters_of_host_policy_and_logs_reach_calculation() {
        let env = [
            ("FailsafeInboundHostPorts", "none"),
            ("FailsafeOutboundHostPorts", "udp:53,tcp:10.0.0.0/8:6443"),
            ("LogActionRateLimit", "10/minute"),
            ("NFTablesFilterDenyAction", "Reject"),
            ("ServiceLoopPrevention", "Disabled"),
            ("FloatingIPs", "Enabled"),
            ("FlowLogsLocalReporter", "Enabled"),
            ("IptablesNATOutgoingInterfaceFilter", "eth+"),
        ];
        let c = Configuration::new(
            "n1".into(),
            Backend::Vxlan,
            vec![Layer::new(Source::Env, env)],
        );
        let n = c.node_config();
        assert!(n.failsafe_in.is_empty() && n.flow_logs && n.floating_ips);
        let net = "10.0.0.0/8".parse().expect("a prefix");
        let out = n.failsafe_out.iter().map(|f| (f.protocol, f.port, f.net));
        let want = [
            (net::Protocol::UDP, 53, None),
            (net::Protocol::TCP, 6443, Some(net)),
        ];
        assert_eq!(out.collect::<Vec<_>>(), want);
        let rate = LogRate {
            packets: 10,
            per: Per::Minute,
            burst: 5,
        };
        assert_eq!(n.log_rate, Some(rate));
        assert_eq!(
            (n.deny, n.service_loop, n.nat_interface.as_deref()),
            (DenyAction::Reject, ServiceLoop::Disabled, Some("eth+"))
        );
        let n = Configuration::new("n1".into(), Backend::Vxlan, Vec::new()).node_config();
        let plain = NodeConfig::default();
        let sorted = |f: &[Failsafe]| {
            let mut out: Vec<_> = f.iter().map(|f| (f.protocol.0, f.port)).collect();
            out.sort_unstable();
            out
        };
        assert_eq!(sorted(&n.failsafe_in), sorted(&plain.failsafe_in));
        assert_eq!(sorted(&n.failsafe_out), sorted(&plain.failsafe_out));
        assert_eq!((n.log_rate, n.flow_logs), (None, false));
    }

    #[test]
    fn who_programs_routes_without_encapsulation() {
        let direct = |backend, value: &str| {
            let env = Layer::new(Source::Env, [("ProgramClusterRoutes", value)]);
            let c = Configuration::new("n1".into(), backend, vec![env]);
            c.node_config().program_direct_routes
        };
        for (value, beside_bgp) in [
            ("EnabledIPIPOnly", false),
            ("Disabled", false),
            ("EnabledNoEncapOnly", true),
            ("Enabled", true),
        ] {
            assert_eq!(direct(Backend::Bgp, value), beside_bgp, "{value}");
            // Nobody else would.
            assert!(direct(Backend::Vxlan, value) && direct(Backend::None, value));
        }
    }
}
