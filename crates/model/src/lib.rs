//! What the cluster's resources mean, once parsed, defaulted and validated.
//!
//! Promises: a value of these types is legal (selectors parse, rules are
//! consistent, names are names), carries no text that still has to be interpreted, and
//! says nothing of how it was stored.
//!
//! Never: serialises, does I/O, knows a datastore, a kernel or a clock.

mod bgp;
mod endpoint;
mod labels;
mod node;
mod policy;
mod pool;
pub mod selector;
mod service;
mod update;

pub use bgp::{
    AddPath, Beyond, Bfd, BfdHops, BgpConfig, BgpFilter, BgpPeer, BgpRemote, CidrMatch, Community,
    FilterOperation, FilterRule, MaxPrefixes, NextHopMode, PrefixCommunities, Secret, SecretKey,
    SecretRef,
};
pub use endpoint::{
    EndpointKey, HostEndpoint, NamedPort, NetworkSet, NetworkSetKey, Profile, ProfileId, Qos,
    WorkloadEndpoint, WorkloadKey,
};
pub use labels::{LabelSource, Labels};
pub use node::{FelixConfig, Node, NodeAddress};
pub use policy::{
    Action, Entity, Icmp, Policy, PolicyKey, PolicyKind, Rule, ServiceRef, StagedAction, Tier,
    TierAction,
};
pub use pool::{AllowedUses, Block, Borrowed, Encap, IpPool};
pub use selector::{Selector, SelectorError};
pub use service::{EndpointSlice, Service, ServicePort, SliceEndpoint, SliceKey, SlicePort};
pub use update::Update;
