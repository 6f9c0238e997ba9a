//! Tiers, policies and rules.

use crate::Selector;
use net::{Cidr, Family, PortRange, Protocol};
use std::fmt;
use std::sync::Arc;

/// What kind of resource a policy comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PolicyKind {
    /// `projectcalico.org/v3` GlobalNetworkPolicy.
    GlobalNetworkPolicy,
    /// `projectcalico.org/v3` NetworkPolicy.
    NetworkPolicy,
    /// `networking.k8s.io/v1` NetworkPolicy.
    KubernetesNetworkPolicy,
    /// `policy.networking.k8s.io` ClusterNetworkPolicy.
    KubernetesClusterNetworkPolicy,
    /// Staged: computed for `why`, never enforced.
    StagedGlobalNetworkPolicy,
    /// Staged, namespaced.
    StagedNetworkPolicy,
    /// Staged Kubernetes NetworkPolicy.
    StagedKubernetesNetworkPolicy,
}

impl PolicyKind {
    /// The kind as resources spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::GlobalNetworkPolicy => "GlobalNetworkPolicy",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::KubernetesNetworkPolicy => "KubernetesNetworkPolicy",
            Self::KubernetesClusterNetworkPolicy => "KubernetesClusterNetworkPolicy",
            Self::StagedGlobalNetworkPolicy => "StagedGlobalNetworkPolicy",
            Self::StagedNetworkPolicy => "StagedNetworkPolicy",
            Self::StagedKubernetesNetworkPolicy => "StagedKubernetesNetworkPolicy",
        }
    }

    /// Whether it is only computed, never enforced.
    pub const fn is_staged(self) -> bool {
        matches!(
            self,
            Self::StagedGlobalNetworkPolicy
                | Self::StagedNetworkPolicy
                | Self::StagedKubernetesNetworkPolicy
        )
    }
}

/// Which policy.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PolicyKey {
    /// Where it comes from.
    pub kind: PolicyKind,
    /// Its namespace; `None` for a global one.
    pub namespace: Option<Arc<str>>,
    /// Its name.
    pub name: Arc<str>,
}

impl PolicyKey {
    /// The text that breaks ties between policies of equal order:
    /// `name/namespace/kind`, as Calico compares them.
    pub fn tie_break(&self) -> String {
        format!(
            "{}/{}/{}",
            self.name,
            self.namespace.as_deref().unwrap_or(""),
            self.kind.name()
        )
    }
}

impl fmt::Display for PolicyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(ns) => write!(f, "{}({ns}/{})", self.kind.name(), self.name),
            None => write!(f, "{}({})", self.kind.name(), self.name),
        }
    }
}

/// What happens to an endpoint's traffic that reached the end of a tier undecided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TierAction {
    /// Drop it.
    #[default]
    Deny,
    /// Go on to the next tier.
    Pass,
}

/// A group of policies that is evaluated before or after others.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Tier {
    /// Lower goes first; `None` counts as 1,000,000.
    pub order: Option<f64>,
    /// At its end.
    pub default_action: TierAction,
}

impl Tier {
    /// The order of a tier that states none.
    pub const DEFAULT_ORDER: f64 = 1_000_000.0;
}

/// What a rule does with what it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// Let through: final.
    Allow,
    /// Drop: final.
    Deny,
    /// Skip the rest of the tier.
    Pass,
    /// Log and go on.
    Log,
}

/// ICMP type and, optionally, code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Icmp {
    /// The type; `None` matches each.
    pub icmp_type: Option<u8>,
    /// The code; never without a type.
    pub code: Option<u8>,
}

/// A service whose endpoints a rule matches.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceRef {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

/// One side of a rule: all that is given must hold, within a list any one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Entity {
    /// Prefixes; empty matches each address.
    pub nets: Vec<Cidr>,
    /// Prefixes that must not match.
    pub not_nets: Vec<Cidr>,
    /// The compiled selector: namespaces and service accounts are already in it.
    pub selector: Option<Selector>,
    /// A selector that must not match.
    pub not_selector: Option<Selector>,
    /// Ports by number.
    pub ports: Vec<PortRange>,
    /// Ports by name, of the endpoints on this side.
    pub named_ports: Vec<Arc<str>>,
    /// Ports that must not match, by number.
    pub not_ports: Vec<PortRange>,
    /// Ports that must not match, by name.
    pub not_named_ports: Vec<Arc<str>>,
    /// The endpoints of a service, with its ports on the destination side.
    pub service: Option<ServiceRef>,
    /// Addresses of the nodes whose labels match: the `nodes` peer of ClusterNetworkPolicy.
    pub nodes: Option<Selector>,
    /// Destination only: what these names resolved to, in lower case without the last dot,
    /// `*.` before a name for all below it: the `domainNames` peer of ClusterNetworkPolicy.
    pub domains: Vec<Arc<str>>,
}

/// One rule: everything that it states must match.
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
    /// Not this ICMP message: type and code together.
    pub not_icmp: Option<Icmp>,
    /// Where packets come from.
    pub source: Entity,
    /// Where packets go to.
    pub destination: Entity,
    /// Annotations of the rule, for people: `metadata.annotations`, sorted.
    pub annotations: Vec<(Arc<str>, Arc<str>)>,
}

impl Rule {
    /// A rule that matches everything.
    pub fn any(action: Action) -> Self {
        Self {
            action,
            family: None,
            protocol: None,
            not_protocol: None,
            icmp: None,
            not_icmp: None,
            source: Entity::default(),
            destination: Entity::default(),
            annotations: Vec::new(),
        }
    }
}

/// What a staged policy would do to the enforced one of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum StagedAction {
    /// Take its place, or be added.
    #[default]
    Set,
    /// Remove it.
    Delete,
    /// Like `Set`, written by a recommender.
    Learn,
    /// Nothing: it is left out of every evaluation.
    Ignore,
}

/// A policy of any kind.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// The tier it is in.
    pub tier: Arc<str>,
    /// Lower goes first within the tier; `None` goes last.
    pub order: Option<f64>,
    /// The compiled selector of the endpoints that it applies to.
    pub selector: Selector,
    /// It governs traffic towards the endpoint.
    pub applies_ingress: bool,
    /// It governs traffic from the endpoint.
    pub applies_egress: bool,
    /// Rules for traffic towards the endpoint.
    pub ingress: Vec<Rule>,
    /// Rules for traffic from the endpoint.
    pub egress: Vec<Rule>,
    /// Host endpoints only: before connection tracking, and without it.
    pub untracked: bool,
    /// Host endpoints only: before destination NAT.
    pub pre_dnat: bool,
    /// Host endpoints: on forwarded traffic too.
    pub apply_on_forward: bool,
    /// Keep it programmed where no endpoint needs it yet.
    pub on_every_node: bool,
    /// For staged kinds: what enforcing it would mean. `Set` for the others.
    pub staged: StagedAction,
}
