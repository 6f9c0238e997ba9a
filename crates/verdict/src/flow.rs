//! The question: who sends what to whom.

use model::{ServiceRef, WorkloadKey};
use net::{Family, Protocol};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// Who is at one end of a flow.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum End {
    /// A workload endpoint.
    Workload(WorkloadKey),
    /// A process of a node's own network namespace.
    Node(Arc<str>),
    /// Something that is neither, beyond the nodes.
    Outside,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Workload(k) if &*k.orchestrator == "k8s" && &*k.endpoint == "eth0" => {
                write!(f, "pod {}", k.workload)
            }
            Self::Workload(k) => write!(f, "workload {} {}", k.workload, k.endpoint),
            Self::Node(n) => write!(f, "node {n}"),
            Self::Outside => f.write_str("outside"),
        }
    }
}

/// Where the sender addresses its packets to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// An address of a pod, a node, a service, or outside.
    Address(IpAddr),
    /// A service, at its first cluster address of the source's family; what stands behind it, if
    /// it is headless.
    Service(ServiceRef),
}

/// A new connection, by its first packet.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Who sends.
    pub from: End,
    /// The source address that it uses.
    pub source: IpAddr,
    /// The source port. `None` is one that the kernel picks (32768 to 60999): a rule that wants
    /// a source port matches only if it wants all of these.
    pub source_port: Option<u16>,
    /// To where.
    pub to: Target,
    /// With what.
    pub protocol: Protocol,
    /// The destination port as the sender uses it, of a service its own; 0 for protocols without.
    pub port: u16,
    /// ICMP type and code; an echo request where it is `None` and the protocol is ICMP.
    pub icmp: Option<(u8, u8)>,
    /// What the sender addressed if something that no resource tells of rewrote it to `to` and
    /// `port`: pre-DNAT policy sees this.
    pub original: Option<(IpAddr, u16)>,
}

impl Flow {
    /// A flow with a source port that the kernel picks, and an echo request for ICMP. ICMP is that
    /// of the source's family.
    pub fn new(from: End, source: IpAddr, to: Target, protocol: Protocol, port: u16) -> Self {
        let is_icmp = protocol == Protocol::ICMP || protocol == Protocol::ICMPV6;
        let protocol = match (is_icmp, Family::of(source)) {
            (false, _) => protocol,
            (true, Family::V4) => Protocol::ICMP,
            (true, Family::V6) => Protocol::ICMPV6,
        };
        Self {
            from,
            source,
            source_port: None,
            to,
            protocol,
            port,
            icmp: None,
            original: None,
        }
    }

    /// Its family.
    pub fn family(&self) -> Family {
        Family::of(self.source)
    }
}

/// What a packet shows to a rule, at one place on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Packet {
    /// Source address.
    pub source: IpAddr,
    /// Source port; `None` as in [`Flow::source_port`].
    pub source_port: Option<u16>,
    /// Destination address.
    pub destination: IpAddr,
    /// Protocol.
    pub protocol: Protocol,
    /// Destination port; 0 for protocols without.
    pub port: u16,
    /// ICMP type and code.
    pub icmp: Option<(u8, u8)>,
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} -> ", self.protocol, self.source)?;
        match (self.protocol.has_ports(), self.icmp) {
            (true, _) => match self.destination {
                IpAddr::V4(a) => write!(f, "{a}:{}", self.port),
                IpAddr::V6(a) => write!(f, "[{a}]:{}", self.port),
            },
            (false, Some((t, c))) => write!(f, "{} type {t} code {c}", self.destination),
            (false, None) => write!(f, "{}", self.destination),
        }
    }
}
