//! The places where stacks of policies hang, and how a policy acts there.
//!
//! Promises: what a place needs is said once, here.
//! Never: renders anything.

use crate::name::Direction;
use desired::{DenyAction, Globals, HostPolicy, TierPolicies};
use model::PolicyKey;
use nftables::SetName;

/// A place in the packet path where endpoints' policies are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// Towards a workload.
    ToWorkload,
    /// From a workload.
    FromWorkload,
    /// From a host endpoint's interface to the host itself.
    HostIn,
    /// From the host itself out of a host endpoint's interface.
    HostOut,
    /// The same for what was translated to another destination on its way out: seen after it is
    /// routed anew.
    Translated,
    /// In by a host endpoint's interface and through the host.
    ForwardIn,
    /// Through the host and out of a host endpoint's interface.
    ForwardOut,
    /// In by a host endpoint's interface, before tracking.
    RawIn,
    /// From the host itself out of a host endpoint's interface, before tracking.
    RawOut,
    /// In by a host endpoint's interface, before destinations are translated.
    PreDnat,
}

impl Role {
    /// Those of workloads.
    pub(crate) const WORKLOAD: [Self; 2] = [Self::ToWorkload, Self::FromWorkload];

    /// Those of host endpoints.
    pub(crate) const HOST: [Self; 8] = [
        Self::HostIn,
        Self::HostOut,
        Self::Translated,
        Self::ForwardIn,
        Self::ForwardOut,
        Self::RawIn,
        Self::RawOut,
        Self::PreDnat,
    ];

    /// Which of a policy's lists of rules count.
    pub(crate) const fn direction(self) -> Direction {
        match self {
            Self::ToWorkload | Self::HostIn | Self::ForwardIn | Self::RawIn | Self::PreDnat => {
                Direction::Ingress
            }
            _ => Direction::Egress,
        }
    }

    /// What the names of its chains begin with: the reference's, as far as it has them.
    pub(crate) const fn prefix(self, g: &Globals) -> &'static str {
        match self {
            Self::ToWorkload => "tw",
            Self::FromWorkload => "fw",
            Self::HostIn => "fh",
            Self::HostOut => "th",
            // Where nobody is answered there is nothing that postrouting could not do.
            Self::Translated => match g.deny {
                DenyAction::Drop => "th",
                DenyAction::Reject => "thq",
            },
            Self::ForwardIn => "fhfw",
            Self::ForwardOut => "thfw",
            Self::RawIn => "fhu",
            Self::RawOut => "thu",
            Self::PreDnat => "fhd",
        }
    }

    /// The map from interface to the stack to enter.
    pub(crate) const fn map(self) -> &'static str {
        match self {
            Self::ToWorkload => "to-workload",
            Self::FromWorkload => "from-workload",
            Self::HostIn => "from-host",
            Self::HostOut => "to-host",
            Self::Translated => "to-host-translated",
            Self::ForwardIn => "from-host-forward",
            Self::ForwardOut => "to-host-forward",
            Self::RawIn => "from-host-raw",
            Self::RawOut => "to-host-raw",
            Self::PreDnat => "from-host-dnat",
        }
    }

    /// The interfaces that have a stack there: what comes out of none is denied. The stack of a
    /// host endpoint says where it ends that a packet may go on.
    pub(crate) fn judged(self) -> SetName {
        SetName::new(&format!("{}-only", self.map())).expect("literals in this crate are names")
    }

    /// How policies act there.
    pub(crate) const fn flavour(self, g: &Globals) -> Flavour {
        match self {
            Self::RawIn | Self::RawOut => Flavour::Untracked,
            Self::PreDnat => Flavour::PreDnat,
            Self::Translated => match g.deny {
                DenyAction::Drop => Flavour::Plain,
                DenyAction::Reject => Flavour::Quiet,
            },
            _ => Flavour::Plain,
        }
    }

    /// Whether profiles follow the tiers, and what nobody allowed is denied.
    pub(crate) const fn closes(self) -> bool {
        matches!(
            self,
            Self::ToWorkload | Self::FromWorkload | Self::HostIn | Self::HostOut | Self::Translated
        )
    }

    /// Whether a tier may deny at its end.
    pub(crate) const fn tiers_deny(self) -> bool {
        !matches!(self, Self::RawIn | Self::RawOut | Self::PreDnat)
    }

    /// The tiers of a host endpoint that are asked there.
    pub(crate) fn tiers(self, h: &HostPolicy) -> &[TierPolicies] {
        match self {
            Self::ForwardIn | Self::ForwardOut => &h.forward,
            Self::RawIn | Self::RawOut => &h.untracked,
            Self::PreDnat => &h.pre_dnat,
            _ => &h.tiers,
        }
    }

    /// The policies of a tier that are asked there.
    pub(crate) fn policies(self, t: &TierPolicies) -> &[PolicyKey] {
        match self.direction() {
            Direction::Ingress => &t.ingress,
            Direction::Egress => &t.egress,
        }
    }
}

/// How a policy's verdicts are carried out: each flavour that is in use has chains of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Flavour {
    /// Allow ends the base chain, Deny the packet.
    Plain,
    /// Allow also keeps the packet from being tracked, and from what follows.
    Untracked,
    /// Allow also keeps it from what follows at the host.
    PreDnat,
    /// Deny answers nobody: the hook cannot.
    Quiet,
}

impl Flavour {
    /// The directions in which it is used.
    pub(crate) const fn directions(self) -> &'static [Direction] {
        match self {
            Self::Plain | Self::Untracked => &Direction::BOTH,
            Self::PreDnat => &[Direction::Ingress],
            Self::Quiet => &[Direction::Egress],
        }
    }

    /// What names of chains have after the direction.
    pub(crate) const fn letter(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Untracked => "u",
            Self::PreDnat => "d",
            Self::Quiet => "q",
        }
    }
}
