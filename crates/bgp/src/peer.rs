//! What is configured of a peer.
//!
//! Promises: plain data with the defaults that Calico's users have. Never: changes by
//! itself.

use crate::caps::Role;
use crate::policy::Policy;
use crate::types::{PeerKind, PerFamily};
use net::{Asn, IfName};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Which address a peer is told as the next hop (RFC 4271, section 5.1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum NextHopMode {
    /// Ourselves to another AS, except where the next hop is on the link that the session
    /// runs over, or a route of our own names it; unchanged within the AS.
    #[default]
    Auto,
    /// Always ourselves.
    Own,
    /// Unchanged, also to another AS. Routes of our own still have ourselves.
    Keep,
}

/// Which paths a peer that takes several is sent (RFC 7911).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum AddPathSend {
    /// The best alone; ADD-PATH is not offered.
    #[default]
    No,
    /// This many, best first.
    Best(u16),
    /// All.
    All,
}

/// A limit on what a peer announces, for one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PrefixLimit {
    /// The most paths that are taken.
    pub max: u32,
    /// From how many on the caller is warned, once a session.
    pub warn_at: u32,
    /// What is done beyond.
    pub action: LimitAction,
}

/// What is done when a peer announces too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LimitAction {
    /// The caller is told.
    Warn,
    /// What is beyond is not taken.
    Discard,
    /// The session ends with Cease (RFC 4486), and starts anew after this time, if any.
    Teardown(Option<Duration>),
}

/// Graceful restart towards a peer (RFC 4724), and what is beyond it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Restart {
    /// How long the peer shall keep our routes, and the most that we keep its.
    pub time: Duration,
    /// How long its stale routes may stay once it is back and until its End-of-RIB.
    pub stale_time: Duration,
    /// Also after NOTIFICATION and an expired hold timer (RFC 8538).
    pub notification: bool,
    /// Keep routes for so long after `time` (RFC 9494); `None` does not offer it.
    pub long_lived: Option<Duration>,
}

impl Default for Restart {
    fn default() -> Self {
        Self {
            time: Duration::from_secs(120),
            stale_time: Duration::from_secs(360),
            notification: true,
            long_lived: Some(Duration::from_secs(3600)),
        }
    }
}

/// The timers of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Timers {
    /// The hold time that we offer, in seconds: 0 or at least 3.
    pub hold: u16,
    /// The time between KEEPALIVEs, in seconds, at most a third of the hold time; `None` is
    /// a third.
    pub keepalive: Option<u16>,
    /// How long a connection is tried before it is tried anew, and how long one that was refused
    /// is waited with at most: the first after 250 ms, doubling. Up to a quarter less at random.
    pub connect_retry: Duration,
    /// How long we wait for the peer's OPEN before we send ours; zero does not wait.
    pub delay_open: Duration,
    /// How long we wait before we connect again after a session or a connection has ended
    /// without an error of anybody's. The peer may connect meanwhile.
    pub reconnect: Duration,
    /// How long the first error keeps the session down; doubles with each.
    pub error_wait_min: Duration,
    /// How long errors keep it down at most.
    pub error_wait_max: Duration,
    /// After how long without one errors are forgotten.
    pub error_forget: Duration,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            hold: 240,
            keepalive: None,
            connect_retry: Duration::from_secs(5),
            delay_open: Duration::ZERO,
            reconnect: Duration::from_millis(500),
            error_wait_min: Duration::from_secs(5),
            error_wait_max: Duration::from_secs(30),
            error_forget: Duration::from_secs(300),
        }
    }
}

/// A peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerConfig {
    /// Its address: the last but one tie-breaker, and for people.
    pub addr: IpAddr,
    /// Its AS; `None` takes any other than ours.
    pub asn: Option<Asn>,
    /// Our AS towards it, where that is not the router's own.
    pub local_asn: Option<Asn>,
    /// We wait for it to connect.
    pub passive: bool,
    /// Down by an operator, with what to tell the peer (RFC 9003).
    pub shutdown: Option<String>,
    /// The families to carry.
    pub families: PerFamily<bool>,
    /// IPv4 routes may have IPv6 next hops (RFC 8950).
    pub v4_over_v6: bool,
    /// Messages of up to 65535 octets are offered (RFC 8654).
    pub extended_messages: bool,
    /// Timers.
    pub timers: Timers,
    /// We reflect its routes (RFC 4456). Within the AS only.
    pub client: bool,
    /// The next hop that it is told.
    pub next_hop: NextHopMode,
    /// Ourselves as next hop, where that is not the session's own address; a family whose
    /// addresses the session does not have needs it.
    pub own_address: PerFamily<Option<IpAddr>>,
    /// The prefix length of the link that a session with a neighbour runs over; `None` is
    /// several hops away. Decides what is "on the link" for [`NextHopMode::Auto`].
    pub link: Option<u8>,
    /// The interface of the session, for link-local addresses.
    pub interface: Option<IfName>,
    /// How often our own AS may be in a path that it announces.
    pub allow_own_asn: u8,
    /// Its AS must be the first in a path that it announces (RFC 4271, section 6.3).
    pub enforce_first_asn: bool,
    /// Paths with AS_SET are taken (RFC 9774 wants them refused).
    pub allow_as_sets: bool,
    /// GRACEFUL_SHUTDOWN sets LOCAL_PREF to 0 (RFC 8326, section 4.2).
    pub graceful_shutdown: bool,
    /// What is taken from it.
    pub import: Arc<Policy>,
    /// What it is told.
    pub export: Arc<Policy>,
    /// How much is taken from it.
    pub limit: PerFamily<Option<PrefixLimit>>,
    /// Several paths are taken from it.
    pub add_path_receive: bool,
    /// Several paths are sent to it.
    pub add_path_send: AddPathSend,
    /// Graceful restart; `None` does not offer it.
    pub restart: Option<Restart>,
    /// Our role towards it (RFC 9234).
    pub role: Option<Role>,
    /// It must have a role too.
    pub strict_role: bool,
}

impl PeerConfig {
    /// A peer with the defaults.
    pub fn new(addr: IpAddr, asn: Asn) -> Self {
        let v4 = addr.is_ipv4();
        Self {
            addr,
            asn: Some(asn),
            local_asn: None,
            passive: false,
            shutdown: None,
            families: PerFamily { v4, v6: !v4 },
            v4_over_v6: false,
            extended_messages: false,
            timers: Timers::default(),
            client: false,
            next_hop: NextHopMode::Auto,
            own_address: PerFamily::default(),
            link: None,
            interface: None,
            allow_own_asn: 0,
            enforce_first_asn: false,
            allow_as_sets: true,
            graceful_shutdown: true,
            import: Arc::default(),
            export: Arc::default(),
            limit: PerFamily::default(),
            add_path_receive: false,
            add_path_send: AddPathSend::No,
            restart: None,
            role: None,
            strict_role: false,
        }
    }

    /// Our AS towards it.
    pub fn our_asn(&self, router: Asn) -> Asn {
        self.local_asn.unwrap_or(router)
    }

    /// What a speaker of AS `theirs` is to us.
    pub fn kind(&self, router: Asn, theirs: Asn) -> PeerKind {
        if theirs == self.our_asn(router) {
            PeerKind::Internal
        } else {
            PeerKind::External
        }
    }
}
