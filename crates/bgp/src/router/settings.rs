//! What is configured of the router itself.
//!
//! Promises: plain data. Never: changes by itself.

use crate::attr::Attributes;
use crate::types::{ClusterId, PerFamily, RouterId};
use net::{Asn, IfName};
use std::time::Duration;

/// The router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Our AS.
    pub asn: Asn,
    /// Who we are.
    pub router_id: RouterId,
    /// Our cluster as a reflector; `None` is the router id.
    pub cluster_id: Option<ClusterId>,
    /// How many equal paths are used at once; 1 uses the best alone.
    pub multipath: u16,
    /// Next hops are unreachable until [`next_hops`](super::Router::next_hops) says
    /// otherwise; without, all are reachable at no cost.
    pub track_next_hops: bool,
    /// We have just restarted, with the routes of before still in the kernel (RFC 4724).
    pub restarting: Option<Restarting>,
    /// How long a peer that does not read may hold up others that are told the same.
    pub slow_peer: Duration,
    /// How many octets may wait for one connection before no more are made for it.
    pub queue_limit: usize,
    /// How many prefixes are looked at in one go where a change concerns all of them, and an
    /// eighth of how many are told before there is time for other things.
    pub slice: u32,
    /// The source of jitter, and what keeps peers from choosing keys that collide: a secret
    /// random number.
    pub seed: u64,
}

impl Config {
    /// A router with the defaults.
    pub const fn new(asn: Asn, router_id: RouterId, seed: u64) -> Self {
        Self {
            asn,
            router_id,
            cluster_id: None,
            multipath: 1,
            track_next_hops: false,
            restarting: None,
            slow_peer: Duration::from_secs(1),
            queue_limit: 512 << 10,
            slice: 8192,
            seed,
        }
    }

    /// Our cluster as a reflector (RFC 4456, section 7).
    pub fn cluster(&self) -> ClusterId {
        self.cluster_id.unwrap_or(self.router_id.into())
    }
}

/// Our own restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restarting {
    /// The families in which packets were forwarded all along: F of our first OPEN to each peer.
    /// Without it the peer lets go what it has kept of ours before it hears it again.
    pub forwarding: PerFamily<bool>,
    /// The families of which learned routes of before are still used. The others are chosen and
    /// told at once.
    pub kept: PerFamily<bool>,
    /// How long we wait for the End-of-RIB of all peers before routes are chosen and told
    /// (RFC 4724, section 4.1, Selection_Deferral_Timer). Those that need not send one are waited for
    /// five seconds at most after their session came up.
    pub deferral: Duration,
    /// How long we wait for peers with which there is no session: the dead ones must not
    /// hold up all others.
    pub absent: Duration,
}

/// A route of our own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalRoute {
    /// What it carries. A next hop of `0.0.0.0` or `::` is ourselves.
    pub attributes: Attributes,
    /// Against learned routes to the same prefix, which have 100 unless import policy says
    /// otherwise; 200 is BIRD's for static routes.
    pub preference: u16,
    /// Its interface, for policy.
    pub interface: Option<IfName>,
}

/// The preference of learned routes.
pub(super) const LEARNED: u16 = 100;
