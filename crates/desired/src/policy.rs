//! Endpoints with the policies, rules and sets that they need.

use model::{Action, Icmp, PolicyKey, ProfileId, Qos, TierAction};
use net::{Cidr, Family, IfName, Mac, PortRange, Protocol};
use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// Names a set by what it holds, so that equal sets are one: `s:<hash>` for a selector,
/// `n:<hash>` for a selector and a named port, `svc:` and `svcnoport:` for services.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SetId(pub Arc<str>);

impl fmt::Display for SetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a set's members are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SetKind {
    /// Prefixes of both families.
    Nets,
    /// Address, protocol and port, of both families.
    Ports,
}

/// One member of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Member {
    /// Of a [`SetKind::Nets`].
    Net(Cidr),
    /// Of a [`SetKind::Ports`].
    Port {
        /// The address.
        addr: IpAddr,
        /// The protocol.
        protocol: Protocol,
        /// The port.
        port: u16,
    },
}

impl Member {
    /// Which family's half of the set it belongs to.
    pub const fn family(&self) -> Family {
        match self {
            Self::Net(c) => c.family(),
            Self::Port { addr, .. } => Family::of(*addr),
        }
    }
}

/// A whole set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Members {
    /// What they are.
    pub kind: SetKind,
    /// All of them; no two overlap.
    pub members: BTreeSet<Member>,
}

/// One side of a rule. Everything given must hold; within a list any one.
/// Empty lists state nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Entity {
    /// Prefixes, of both families maybe.
    pub nets: Vec<Cidr>,
    /// Prefixes that must not match.
    pub not_nets: Vec<Cidr>,
    /// [`SetKind::Nets`] sets that must all match.
    pub sets: Vec<SetId>,
    /// [`SetKind::Nets`] sets none of which may match.
    pub not_sets: Vec<SetId>,
    /// Ports by number. Together with `port_sets` one list: any of either.
    pub ports: Vec<PortRange>,
    /// [`SetKind::Ports`] sets, for named ports: any of them, or of `ports`.
    pub port_sets: Vec<SetId>,
    /// Ports that must not match.
    pub not_ports: Vec<PortRange>,
    /// [`SetKind::Ports`] sets none of which may match.
    pub not_port_sets: Vec<SetId>,
}

/// One rule, its selectors replaced by sets.
///
/// A list of nets that held entries of one family only makes the rule absent for the
/// other family; that is the renderer's part, since the list says it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rule {
    /// What to do.
    pub action: Action,
    /// Only this family.
    pub family: Option<Family>,
    /// Only this protocol.
    pub protocol: Option<Protocol>,
    /// Every protocol but this.
    pub not_protocol: Option<Protocol>,
    /// Only this ICMP message.
    pub icmp: Option<Icmp>,
    /// Not this ICMP message, type and code together.
    pub not_icmp: Option<Icmp>,
    /// Where packets come from.
    pub source: Entity,
    /// Where packets go to.
    pub destination: Entity,
    /// For people: annotations of the rule.
    pub annotations: Vec<(Arc<str>, Arc<str>)>,
}

/// The rules of a policy that some local endpoint needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyRules {
    /// Its tier, for names in logs.
    pub tier: Arc<str>,
    /// Towards endpoints.
    pub ingress: Vec<Rule>,
    /// From endpoints.
    pub egress: Vec<Rule>,
}

/// The rules of a profile that some local endpoint has.
///
/// A profile that does not exist is here too, with no rules: it denies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProfileRules {
    /// Towards endpoints.
    pub ingress: Vec<Rule>,
    /// From endpoints.
    pub egress: Vec<Rule>,
}

/// The policies of one tier that select an endpoint, in order, staged ones left out. A
/// tier is listed for an endpoint only when at least one direction is not empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TierPolicies {
    /// The tier.
    pub name: Arc<str>,
    /// At its end, in each direction that has policies.
    pub default_action: TierAction,
    /// For traffic towards the endpoint.
    pub ingress: Vec<PolicyKey>,
    /// For traffic from it.
    pub egress: Vec<PolicyKey>,
}

/// A local workload endpoint and everything that governs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadPolicy {
    /// Host side of its link.
    pub interface: IfName,
    /// MAC of the workload's side, when known.
    pub mac: Option<Mac>,
    /// Its addresses.
    pub nets: Vec<Cidr>,
    /// Floating addresses: (inside, outside).
    pub nats: Vec<(IpAddr, IpAddr)>,
    /// Further sources that it may send from.
    pub allowed_sources: Vec<Cidr>,
    /// Tiers in order.
    pub tiers: Vec<TierPolicies>,
    /// Profiles in order, after the tiers.
    pub profiles: Vec<ProfileId>,
    /// Traffic limits.
    pub qos: Qos,
}
