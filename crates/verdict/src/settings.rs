//! What FelixConfigurations say for one node, as far as verdicts depend on it.
//!
//! A value that cannot be read counts as not set.

use crate::{Direction, Packet, World};
use model::{FelixConfig, Selector};
use net::{Cidr, Protocol};
use std::net::IpAddr;

/// The merged settings of one node: `default`, then the oldest that selects it, then `node.<name>`.
pub(crate) struct Settings<'a> {
    layers: Vec<&'a FelixConfig>,
}

/// A failsafe port.
pub(crate) struct Failsafe {
    protocol: Protocol,
    net: Option<Cidr>,
    port: u16,
    /// As the configuration spells it.
    pub text: String,
}

const FAILSAFE_IN: &str =
    "udp:68,tcp:22,tcp:179,tcp:2379,tcp:2380,tcp:5473,tcp:6443,tcp:6666,tcp:6667";
const FAILSAFE_OUT: &str =
    "udp:53,udp:67,tcp:179,tcp:2379,tcp:2380,tcp:5473,tcp:6443,tcp:6666,tcp:6667";

impl World {
    pub(crate) fn settings(&self, node: &str) -> Settings<'_> {
        let own = format!("node.{node}");
        let selects = |c: &FelixConfig| {
            let selector = c.node_selector.as_deref().map(Selector::parse);
            let labels = self
                .nodes
                .get(node)
                .map(|n| n.labels.clone())
                .unwrap_or_default();
            selector.is_some_and(|s| s.is_ok_and(|s| s.matches(&labels)))
        };
        let selected = self.felix.iter().filter(|(_, c)| selects(c));
        let oldest = selected.min_by_key(|(name, c)| (c.created, *name));
        let layers = [
            self.felix.get(own.as_str()),
            oldest.map(|(_, c)| c),
            self.felix.get("default"),
        ];
        Settings {
            layers: layers.into_iter().flatten().collect(),
        }
    }
}

impl Settings<'_> {
    fn text(&self, name: &str) -> Option<&str> {
        let set = |c: &&FelixConfig| c.values.contains_key(name);
        let value = self.layers.iter().find(|c| set(c))?.values.get(name)?;
        Some(value).map(|v| v.trim()).filter(|v| !v.is_empty())
    }

    fn is(&self, name: &str, value: &str) -> bool {
        self.text(name)
            .is_some_and(|v| v.eq_ignore_ascii_case(value))
    }

    fn port(&self, name: &str, default: u16) -> u16 {
        self.text(name)
            .and_then(|v| v.parse().ok())
            .unwrap_or(default)
    }

    /// `defaultEndpointToHostAction` as written; `Drop` unless said.
    pub(crate) fn endpoint_to_host(&self) -> &str {
        let known = |v: &&str| ["drop", "accept", "return"].contains(&v.to_lowercase().as_str());
        self.text("defaultendpointtohostaction")
            .filter(known)
            .unwrap_or("Drop")
    }

    /// `workloadSourceSpoofing: Any`.
    pub(crate) fn further_sources(&self) -> bool {
        self.is("workloadsourcespoofing", "any")
    }

    /// `floatingIPs: Enabled`.
    pub(crate) fn floating(&self) -> bool {
        self.is("floatingips", "enabled")
    }

    /// Whether workloads may send VXLAN, and IP in IP.
    pub(crate) fn may_encapsulate(&self) -> (bool, bool) {
        (
            self.is("allowvxlanpacketsfromworkloads", "true"),
            self.is("allowipippacketsfromworkloads", "true"),
        )
    }

    /// `vxlanPort`.
    pub(crate) fn vxlan_port(&self) -> u16 {
        self.port("vxlanport", 4789)
    }

    /// Whether VXLAN, and IP in IP, are switched off whatever pools say.
    pub(crate) fn encapsulation_off(&self) -> (bool, bool) {
        (
            self.is("vxlanenabled", "false"),
            self.is("ipinipenabled", "false"),
        )
    }

    /// `serviceLoopPrevention`, unless it is `Disabled`.
    pub(crate) fn prevents_loops(&self) -> bool {
        !self.is("serviceloopprevention", "disabled")
    }

    /// `natOutgoingExclusions: IPPoolsAndHostIPs`.
    pub(crate) fn nat_spares_hosts(&self) -> bool {
        self.is("natoutgoingexclusions", "ippoolsandhostips")
    }

    /// `natOutgoingAddress`.
    pub(crate) fn nat_address(&self) -> Option<IpAddr> {
        self.text("natoutgoingaddress")?.parse().ok()
    }

    /// `disableConntrackInvalidCheck`.
    pub(crate) fn accepts_invalid(&self) -> bool {
        self.is("disableconntrackinvalidcheck", "true")
    }

    /// The failsafe port that a packet of a host endpoint is for.
    pub(crate) fn failsafe(&self, direction: Direction, packet: &Packet) -> Option<Failsafe> {
        let (name, default, far) = match direction {
            Direction::Ingress => ("failsafeinboundhostports", FAILSAFE_IN, packet.source),
            Direction::Egress => (
                "failsafeoutboundhostports",
                FAILSAFE_OUT,
                packet.destination,
            ),
        };
        let text = self.text(name).unwrap_or(default);
        let list = failsafes(text)
            .or_else(|| failsafes(default))
            .unwrap_or_default();
        list.into_iter().find(|f| {
            f.protocol == packet.protocol
                && f.port == packet.port
                && f.net.is_none_or(|n| n.contains(far))
        })
    }
}

/// `none`, or `[protocol:[net:]]port` with commas; TCP unless said.
fn failsafes(text: &str) -> Option<Vec<Failsafe>> {
    if text.eq_ignore_ascii_case("none") {
        return Some(Vec::new());
    }
    let items = text.split(',').map(str::trim).filter(|t| !t.is_empty());
    items.map(failsafe).collect()
}

fn failsafe(text: &str) -> Option<Failsafe> {
    let (rest, port) = text.rsplit_once(':').unwrap_or(("tcp", text));
    let (protocol, net) = match rest.split_once(':') {
        Some((protocol, net)) => (protocol, Some(net.trim_matches(['[', ']']))),
        None => (rest, None),
    };
    Some(Failsafe {
        protocol: protocol.parse().ok()?,
        net: net.map(str::parse).transpose().ok()?,
        port: port.parse().ok()?,
        text: text.to_owned(),
    })
}
