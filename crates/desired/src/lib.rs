//! What one node's kernel should hold, in terms of neither resources nor
//! kernel objects: the contract between calculation and programming.
//!
//! Promises: a [`Delta`] is the difference between two whole states, so that applying
//! every delta from the beginning gives the state ([`Desired`]) and nothing depends on
//! how changes were batched. Within one state nothing dangles: every set that a rule
//! names, every policy and profile that an endpoint names, is there. Members of one
//! set never overlap.
//!
//! Never: says how any of it is programmed.

mod delta;
mod host;
mod policy;
mod route;

pub use delta::{ANSWERS_GROUP, Delta, Desired, SetChange};
pub use host::{HostMatch, HostPolicy};
pub use policy::{
    Entity, Member, Members, PolicyRules, ProfileRules, Rule, SetId, SetKind, TierPolicies,
    WorkloadPolicy,
};
pub use route::{
    DenyAction, Failsafe, Globals, HostAction, LogRate, Nat, Per, RouteTarget, ServiceLoop,
    Spoofing, Tunnel, Vtep,
};
