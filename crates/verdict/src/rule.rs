//! Does a packet match a rule? One function for each field, in the words of its definition.

use crate::{Field, Packet, Side, World};
use model::{Entity, Icmp, LabelSource, Labels, NamedPort, ProfileId, Rule, Selector, ServiceRef};
use net::{Cidr, Family, PortRange, Protocol};
use std::net::IpAddr;
use std::sync::Arc;

/// The source ports that the kernel picks from (`net.ipv4.ip_local_port_range`).
const EPHEMERAL: (u16, u16) = (32768, 60999);

const FIELDS: [Field; 22] = {
    use Field as F;
    const S: Side = Side::Source;
    const D: Side = Side::Destination;
    [
        F::IpVersion,
        F::Protocol,
        F::NotProtocol,
        F::Icmp,
        F::NotIcmp,
        F::Ports(D),
        F::NotPorts(D),
        F::Ports(S),
        F::NotPorts(S),
        F::Nets(S),
        F::NotNets(S),
        F::Selector(S),
        F::NotSelector(S),
        F::Services(S),
        F::Nodes(S),
        F::Nets(D),
        F::NotNets(D),
        F::Selector(D),
        F::NotSelector(D),
        F::Services(D),
        F::Nodes(D),
        F::Domains,
    ]
};

/// Labels of an endpoint or set: its own, and those of its profiles.
pub(crate) struct Effective<'a> {
    own: &'a Labels,
    inherited: Vec<&'a Labels>,
}

impl LabelSource for Effective<'_> {
    fn label(&self, key: &str) -> Option<&str> {
        let inherited = || self.inherited.iter().find_map(|l| l.label(key));
        self.own.label(key).or_else(inherited)
    }
}

/// Something that selectors find by an address.
pub(crate) struct Holder<'a> {
    /// For people.
    pub name: String,
    pub labels: Effective<'a>,
    pub ports: &'a [NamedPort],
}

impl World {
    pub(crate) fn effective<'a>(&'a self, own: &'a Labels, from: &[ProfileId]) -> Effective<'a> {
        let profiles = from.iter().filter_map(|p| self.profiles.get(p));
        Effective {
            own,
            inherited: profiles.map(|p| &p.labels).collect(),
        }
    }

    /// All workloads, host endpoints and network sets that have the address. Host endpoints have
    /// their expected addresses only.
    pub(crate) fn holders(&self, at: IpAddr) -> Vec<Holder<'_>> {
        let within = |nets: &[Cidr]| nets.iter().any(|n| n.contains(at));
        let mut out = Vec::new();
        for (key, w) in self.workloads.iter().filter(|(_, w)| within(&w.nets)) {
            out.push(Holder {
                name: key.workload.to_string(),
                labels: self.effective(&w.labels, &w.profiles),
                ports: &w.ports,
            });
        }
        for (name, h) in self
            .hosts
            .iter()
            .filter(|(_, h)| h.expected_ips.contains(&at))
        {
            out.push(Holder {
                name: format!("host endpoint {name}"),
                labels: self.effective(&h.labels, &h.profiles),
                ports: &h.ports,
            });
        }
        for (key, s) in self.sets.iter().filter(|(_, s)| within(&s.nets)) {
            let namespace = key
                .namespace
                .as_ref()
                .map(|n| format!("{n}/"))
                .unwrap_or_default();
            out.push(Holder {
                name: format!("network set {namespace}{}", key.name),
                labels: self.effective(&s.labels, &s.profiles),
                ports: &[],
            });
        }
        out
    }

    /// Every field of the rule that the packet does not match, in a fixed order. None: the
    /// rule matches.
    pub(crate) fn mismatches(&self, rule: &Rule, packet: &Packet) -> impl Iterator<Item = Field> {
        FIELDS.into_iter().filter(|f| !self.holds(*f, rule, packet))
    }

    /// Whether the packet is as one field of the rule wants it; a field that is not given holds.
    fn holds(&self, field: Field, rule: &Rule, packet: &Packet) -> bool {
        let of = |side: Side| match side {
            Side::Source => (&rule.source, packet.source),
            Side::Destination => (&rule.destination, packet.destination),
        };
        match field {
            Field::IpVersion => rule
                .family
                .is_none_or(|f| f == Family::of(packet.destination)),
            Field::Protocol => rule.protocol.is_none_or(|p| protocol_is(p, packet)),
            Field::NotProtocol => rule.not_protocol.is_none_or(|p| !protocol_is(p, packet)),
            Field::Icmp => rule.icmp.is_none_or(|i| icmp_is(i, packet)),
            Field::NotIcmp => rule.not_icmp.is_none_or(|i| !icmp_is(i, packet)),
            Field::Nets(side) => {
                let (e, at) = of(side);
                e.nets.is_empty() || e.nets.iter().any(|n| n.contains(at))
            }
            Field::NotNets(side) => {
                let (e, at) = of(side);
                outside_of(&e.not_nets, at)
            }
            Field::Selector(side) => {
                let (e, at) = of(side);
                e.selector.as_ref().is_none_or(|s| self.selects(s, at))
            }
            Field::NotSelector(side) => {
                let (e, at) = of(side);
                e.not_selector.as_ref().is_none_or(|s| !self.selects(s, at))
            }
            Field::Ports(side) => self.ports_match(side, of(side).0, packet),
            Field::NotPorts(side) => self.not_ports_match(side, of(side).0, packet),
            Field::Services(side) => {
                let service = of(side).0.service.as_ref();
                service.is_none_or(|s| self.serves(s, side, packet))
            }
            Field::Nodes(side) => {
                let (e, at) = of(side);
                e.nodes.as_ref().is_none_or(|s| self.is_node(s, at))
            }
            Field::Domains => {
                let wanted = &rule.destination.domains;
                let at = packet.destination;
                wanted.is_empty() || wanted.iter().any(|d| self.resolves(d, at))
            }
        }
    }

    /// Whether anything with that address is selected.
    pub(crate) fn selects(&self, selector: &Selector, at: IpAddr) -> bool {
        self.holders(at).iter().any(|h| selector.matches(&h.labels))
    }

    /// Numbers and names are one list: any of them will do.
    fn ports_match(&self, side: Side, e: &Entity, packet: &Packet) -> bool {
        (e.ports.is_empty() && e.named_ports.is_empty())
            || numbered(&e.ports, side, packet)
            || self.named(&e.named_ports, e.selector.as_ref(), side, packet)
    }

    fn not_ports_match(&self, side: Side, e: &Entity, packet: &Packet) -> bool {
        // A number says something about protocols with ports only.
        (e.not_ports.is_empty() || packet.protocol.has_ports())
            && !numbered(&e.not_ports, side, packet)
            && !self.named(&e.not_named_ports, e.selector.as_ref(), side, packet)
    }

    /// Whether an endpoint that has the address, and that the selector beside the name
    /// selects, gives one of the names to this port and protocol.
    fn named(
        &self,
        names: &[Arc<str>],
        of: Option<&Selector>,
        side: Side,
        packet: &Packet,
    ) -> bool {
        let (at, port) = match side {
            Side::Source => (packet.source, packet.source_port),
            Side::Destination => (packet.destination, Some(packet.port)),
        };
        let is = |p: &NamedPort| {
            names.contains(&p.name) && p.protocol == packet.protocol && Some(p.port) == port
        };
        let gives =
            |h: &Holder<'_>| of.is_none_or(|s| s.matches(&h.labels)) && h.ports.iter().any(is);
        !names.is_empty() && self.holders(at).iter().any(gives)
    }

    /// Source side: an address of the service's endpoints. Destination side: with a port and
    /// protocol of theirs. Ready or not; a port without number is none.
    fn serves(&self, service: &ServiceRef, side: Side, packet: &Packet) -> bool {
        let slices = self.slices.values().filter(|s| s.service == *service);
        slices.into_iter().any(|slice| {
            let at = |a: IpAddr| slice.endpoints.iter().any(|e| e.addresses.contains(&a));
            let port = slice
                .ports
                .iter()
                .any(|p| p.protocol == packet.protocol && p.port == Some(packet.port));
            match side {
                Side::Source => at(packet.source),
                Side::Destination => at(packet.destination) && port,
            }
        })
    }

    fn is_node(&self, selector: &Selector, at: IpAddr) -> bool {
        let selected = self
            .nodes
            .iter()
            .filter(|(_, n)| selector.matches(&n.labels));
        let family = Family::of(at);
        selected
            .into_iter()
            .any(|(name, _)| self.node_addresses(name, family).any(|a| a == at))
    }

    /// `name` is that name; `*.name` is every name below it.
    fn resolves(&self, pattern: &str, at: IpAddr) -> bool {
        let is = |name: &str| match pattern.strip_prefix('*') {
            Some(suffix) => name.len() > suffix.len() && name.ends_with(suffix),
            None => name == pattern,
        };
        self.domains
            .iter()
            .any(|(name, addresses)| is(name) && addresses.contains(&at))
    }
}

/// ICMP is IPv4's alone, ICMPv6 is IPv6's.
fn protocol_is(wanted: Protocol, packet: &Packet) -> bool {
    let own_family = match wanted {
        Protocol::ICMP => packet.destination.is_ipv4(),
        Protocol::ICMPV6 => packet.destination.is_ipv6(),
        _ => true,
    };
    own_family && wanted == packet.protocol
}

/// Type and code, as far as given, both.
fn icmp_is(wanted: Icmp, packet: &Packet) -> bool {
    packet.icmp.is_some_and(|(t, c)| {
        wanted.icmp_type.is_none_or(|w| w == t) && wanted.code.is_none_or(|w| w == c)
    })
}

/// A list that speaks of the other family alone makes the rule absent for this one.
fn outside_of(nets: &[Cidr], at: IpAddr) -> bool {
    let mut own = nets
        .iter()
        .filter(|n| n.family() == Family::of(at))
        .peekable();
    nets.is_empty() || (own.peek().is_some() && !own.any(|n| n.contains(at)))
}

fn numbered(ranges: &[PortRange], side: Side, packet: &Packet) -> bool {
    let contains = |p: u16| ranges.iter().any(|r| r.contains(p));
    packet.protocol.has_ports()
        && match (side, packet.source_port) {
            (Side::Destination, _) => contains(packet.port),
            (Side::Source, Some(p)) => contains(p),
            (Side::Source, None) => {
                let merged = PortRange::merge(ranges.to_vec());
                let (first, last) = EPHEMERAL;
                merged
                    .iter()
                    .any(|r| r.first() <= first && last <= r.last())
            }
        }
}
