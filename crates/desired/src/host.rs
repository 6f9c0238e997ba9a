//! Host endpoints of this node and what governs them.

use crate::TierPolicies;
use model::ProfileId;
use net::IfName;
use std::net::IpAddr;

/// Which interfaces a host endpoint is about. What has addresses is the programmer's knowledge:
/// calculation knows no interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostMatch {
    /// The interface of this name, be it there or not.
    Interface(IfName),
    /// The interfaces that hold one of these addresses.
    Addresses(Vec<IpAddr>),
    /// `*`: every interface, workloads' too, that no other host endpoint takes.
    Any,
}

/// A host endpoint of this node. Of several that match one interface, the first by name counts.
///
/// Each list of tiers holds what that hook evaluates and nothing else: a policy that is untracked
/// or before DNAT is in that list alone, and what applies on forward is in `forward` and in
/// `tiers`. Tiers end with [`TierPolicies::default_action`] in `tiers` and `forward`; in
/// `untracked` and `pre_dnat` they always end with "go on", and `pre_dnat` has no egress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPolicy {
    /// Where it applies.
    pub interface: HostMatch,
    /// Traffic that the host itself ends or starts. Undecided: the profiles, then denied.
    pub tiers: Vec<TierPolicies>,
    /// Traffic that passes through. No tier at all: let through; undecided after tiers whose
    /// action is Pass: let through too.
    pub forward: Vec<TierPolicies>,
    /// Before connection tracking, in both directions; what they allow is not tracked.
    pub untracked: Vec<TierPolicies>,
    /// Before destination NAT, towards the host only.
    pub pre_dnat: Vec<TierPolicies>,
    /// Profiles in order, after `tiers`.
    pub profiles: Vec<ProfileId>,
    /// DSCP of what the host sends off the cluster.
    pub dscp: Option<u8>,
}
