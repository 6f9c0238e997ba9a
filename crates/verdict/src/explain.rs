//! The answer: a verdict and everything that was asked for it, in order.

use crate::{End, Flow, Packet};
use model::{Action, PolicyKey, ProfileId, TierAction, WorkloadKey};
use std::net::IpAddr;
use std::sync::Arc;

/// What happens to a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    /// It gets through.
    Allow,
    /// It is dropped.
    Deny,
    /// Some of the backends of a service get it, others do not.
    Mixed,
}

impl Verdict {
    /// `allow`, `deny` or `mixed`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Mixed => "mixed",
        }
    }
}

/// Which way, seen from the endpoint that is policed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// Towards it.
    Ingress,
    /// From it.
    Egress,
}

impl Direction {
    /// `ingress` or `egress`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

/// Which side of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// `source`
    Source,
    /// `destination`
    Destination,
}

impl Side {
    /// `source` or `destination`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
        }
    }
}

/// The whole answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// What was asked.
    pub flow: Flow,
    /// As enforced.
    pub verdict: Verdict,
    /// One way to each possible receiver: one, or for a service one for each backend.
    pub paths: Vec<Path>,
    /// What if staged policies were enforced; `None` when there are none.
    pub staged: Option<StagedAnswer>,
    /// What is legal but perhaps not meant (a rule names a service that does not exist), and what
    /// had to be assumed.
    pub notes: Vec<String>,
}

/// What the verdict were if staged policies were enforced.
#[derive(Debug, Clone, PartialEq)]
pub struct StagedAnswer {
    /// With all of them.
    pub verdict: Verdict,
    /// The ways with all of them.
    pub paths: Vec<Path>,
    /// Those that would change the verdict were they alone enforced, and to what.
    pub changed_by: Vec<(PolicyKey, Verdict)>,
}

/// The way to one receiver.
#[derive(Debug, Clone, PartialEq)]
pub struct Path {
    /// Who gets it.
    pub to: End,
    /// At which address and port, after destination NAT.
    pub destination: (IpAddr, u16),
    /// Whether it gets there.
    pub allowed: bool,
    /// The source address that the receiver sees (or would see).
    pub seen_source: IpAddr,
    /// The places where something was decided, in order; the last one decides if it denies.
    pub stages: Vec<Stage>,
    /// What could be changed for the opposite verdict; each line stands for itself.
    pub remedies: Vec<String>,
}

impl Path {
    /// The stage that decides: the one that denies, or else the last where a rule, a
    /// profile or a failsafe allowed.
    pub fn deciding(&self) -> Option<&Stage> {
        self.stages
            .iter()
            .find(|s| s.effect == Effect::Deny)
            .or_else(|| self.stages.iter().rfind(|s| s.effect == Effect::Allow))
    }
}

/// What a stage does to the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Effect {
    /// It was judged and goes on.
    Allow,
    /// It is dropped here.
    Deny,
    /// Nothing here is about it; it goes on.
    Pass,
}

/// One place on the way.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    /// On which node.
    pub node: Arc<str>,
    /// Where there.
    pub place: Place,
    /// The packet as it looked there.
    pub packet: Packet,
    /// What comes of it.
    pub effect: Effect,
    /// Why.
    pub decision: Decision,
    /// What was asked, in order.
    pub consulted: Vec<Consulted>,
}

/// A place where packets are judged.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Place {
    /// May a workload send from this address?
    Source(WorkloadKey),
    /// Policy of the workload that sends or gets the packet.
    Workload(WorkloadKey, Direction),
    /// What workloads may do to their own node: `defaultEndpointToHostAction`.
    ToHost(WorkloadKey),
    /// The way from a node to its own workload.
    OwnWorkload(WorkloadKey),
    /// Untracked policy of a host endpoint.
    Untracked(Arc<str>, Direction),
    /// Untracked policy for the answers: they go without connection tracking too.
    UntrackedReply(Arc<str>, Direction),
    /// Pre-DNAT policy of a host endpoint.
    PreDnat(Arc<str>),
    /// Policy of a host endpoint for the node's own processes.
    Host(Arc<str>, Direction),
    /// Policy of a host endpoint for what the node forwards.
    Forward(Arc<str>, Direction),
    /// What would come back: addresses of services that nothing translated.
    ServiceLoop,
    /// The backends of a service.
    Service(model::ServiceRef),
}

/// Why a stage did what it did.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// A rule of a policy.
    Rule {
        /// The tier.
        tier: Arc<str>,
        /// The policy; a staged one where that is evaluated as if enforced.
        policy: PolicyKey,
        /// Which rule of that direction, from 0.
        index: usize,
        /// Its name, if its annotations have one.
        name: Option<Arc<str>>,
        /// What it says: `Allow` or `Deny`.
        action: Action,
    },
    /// Policies of the tier select the endpoint and none of them decided.
    EndOfTier {
        /// The tier.
        tier: Arc<str>,
        /// Its policies that select the endpoint.
        policies: Vec<PolicyKey>,
    },
    /// No policy decided; a rule of a profile did.
    Profile {
        /// The profile.
        profile: ProfileId,
        /// Which rule of that direction, from 0.
        index: usize,
        /// What it says: `Allow` or `Deny`.
        action: Action,
    },
    /// No policy decided, and there is no such profile: closed until it appears.
    MissingProfile(ProfileId),
    /// No policy and no profile decided.
    NoProfileAllows(Vec<ProfileId>),
    /// Policies are about it and none decided: at this place it goes on.
    Undecided,
    /// A failsafe port, in the words of the configuration.
    Failsafe(String),
    /// There is no such workload: an unknown interface is closed.
    UnknownWorkload,
    /// A workload sends from an address that is not its own.
    Spoofed,
    /// The source is an address of the workload, or allowed beside them.
    OwnSource,
    /// A workload sends VXLAN or IP in IP and may not.
    Encapsulation,
    /// The ICMPv6 that neighbour discovery and multicast listening need.
    NeighbourDiscovery,
    /// `defaultEndpointToHostAction` says so; the text is its value.
    EndpointToHost(String),
    /// A node reaches its own workloads: it checks their health.
    OwnNode,
    /// The address is in this range of the BGPConfiguration and was not translated.
    ServiceLoop(net::Cidr),
    /// A service has nothing behind that port.
    NoBackend,
    /// The answer to an untracked packet belongs to no connection.
    InvalidReply,
}

/// What one tier, or the profiles, said.
#[derive(Debug, Clone, PartialEq)]
pub enum Consulted {
    /// A tier with a policy that selects the endpoint.
    Tier(TierTrail),
    /// A profile. Rules as far as they were asked; `None` when there is no such profile.
    Profile(ProfileId, Option<Vec<RuleTrail>>),
}

/// What a tier said.
#[derive(Debug, Clone, PartialEq)]
pub struct TierTrail {
    /// Its name.
    pub tier: Arc<str>,
    /// Whether there is such a tier: policies in one that does not exist are enforced, last.
    pub exists: bool,
    /// At its end.
    pub default_action: TierAction,
    /// Its policies that select the endpoint, in order, as far as they were asked.
    pub policies: Vec<PolicyTrail>,
}

/// What a policy said.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicyTrail {
    /// Which policy.
    pub policy: PolicyKey,
    /// Its rules of that direction, as far as they were asked.
    pub rules: Vec<RuleTrail>,
}

/// What a rule said.
#[derive(Debug, Clone, PartialEq)]
pub struct RuleTrail {
    /// Which rule of that direction, from 0.
    pub index: usize,
    /// What it does.
    pub action: Action,
    /// Its name, if its annotations have one.
    pub name: Option<Arc<str>>,
    /// The first thing that did not match; `None` if it matched.
    pub mismatch: Option<Mismatch>,
}

/// Why a rule did not match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// The field of the rule.
    pub field: Field,
    /// What it wants, in the words of the rule.
    pub wanted: String,
    /// What the packet has.
    pub got: String,
}

/// A field of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Field {
    /// `ipVersion`
    IpVersion,
    /// `protocol`
    Protocol,
    /// `notProtocol`
    NotProtocol,
    /// `icmp`
    Icmp,
    /// `notICMP`
    NotIcmp,
    /// `source.nets` or `destination.nets`
    Nets(Side),
    /// `notNets`
    NotNets(Side),
    /// `selector`, with namespaces and service accounts
    Selector(Side),
    /// `notSelector`
    NotSelector(Side),
    /// `ports`
    Ports(Side),
    /// `notPorts`
    NotPorts(Side),
    /// `services`
    Services(Side),
    /// The `nodes` peer
    Nodes(Side),
    /// The `domainNames` peer
    Domains,
}
