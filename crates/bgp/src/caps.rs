//! Capabilities, and what two speakers agree on (RFC 5492).
//!
//! Promises: capabilities that we do not know are kept as they came; [`Negotiated`] is a
//! function of the two OPENs alone. Never: decides what we offer; that is configuration.

use crate::message::Open;
use crate::types::{AfiSafi, PeerKind, PerFamily};
use net::{Asn, Family};

/// Capability codes (IANA, "Capability Codes").
pub mod code {
    /// RFC 4760.
    pub const MULTI_PROTOCOL: u8 = 1;
    /// RFC 2918.
    pub const ROUTE_REFRESH: u8 = 2;
    /// RFC 8950.
    pub const EXTENDED_NEXT_HOP: u8 = 5;
    /// RFC 8654.
    pub const EXTENDED_MESSAGE: u8 = 6;
    /// RFC 9234.
    pub const ROLE: u8 = 9;
    /// RFC 4724.
    pub const GRACEFUL_RESTART: u8 = 64;
    /// RFC 6793.
    pub const FOUR_OCTET_AS: u8 = 65;
    /// RFC 7911.
    pub const ADD_PATH: u8 = 69;
    /// RFC 7313.
    pub const ENHANCED_ROUTE_REFRESH: u8 = 70;
    /// RFC 9494.
    pub const LONG_LIVED_GRACEFUL_RESTART: u8 = 71;
    /// draft-walton-bgp-hostname-capability.
    pub const FQDN: u8 = 73;
    /// draft-abraitis-bgp-version-capability.
    pub const SOFTWARE_VERSION: u8 = 75;
}

/// One capability of an OPEN.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Capability {
    /// Routes of this family are carried (RFC 4760, section 8).
    MultiProtocol(AfiSafi),
    /// ROUTE-REFRESH is understood (RFC 2918).
    RouteRefresh,
    /// Next hops of another family are understood (RFC 8950, section 4).
    ExtendedNextHop(Vec<ExtendedNextHop>),
    /// Messages of up to 65535 octets are understood (RFC 8654).
    ExtendedMessage,
    /// The speaker's role towards the peer (RFC 9234, section 4.1).
    Role(Role),
    /// The speaker can restart without loss of routes (RFC 4724, section 3).
    GracefulRestart(GracefulRestart),
    /// Four-octet AS numbers are understood; the speaker's (RFC 6793, section 3).
    FourOctetAs(Asn),
    /// Several paths to a prefix (RFC 7911, section 4).
    AddPath(Vec<AddPath>),
    /// A refresh is marked with its begin and its end (RFC 7313).
    EnhancedRouteRefresh,
    /// Routes can be kept for long when the speaker is away (RFC 9494, section 4.1).
    LongLivedGracefulRestart(Vec<LongLived>),
    /// The speaker's name, for people.
    Fqdn {
        /// The host's name.
        host: String,
        /// The domain; may be empty.
        domain: String,
    },
    /// The speaker's software, for people.
    SoftwareVersion(String),
    /// One that we do not know, or of a form that we do not know.
    Unknown {
        /// Its code.
        code: u8,
        /// Its value.
        value: Box<[u8]>,
    },
}

/// For which routes which next hops are understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ExtendedNextHop {
    /// The routes.
    pub routes: AfiSafi,
    /// The AFI of the next hops.
    pub next_hop_afi: u16,
}

impl ExtendedNextHop {
    /// IPv6 next hops for IPv4 unicast routes.
    pub const V4_OVER_V6: Self = Self {
        routes: AfiSafi::IPV4_UNICAST,
        next_hop_afi: 2,
    };
}

/// A speaker's role towards its peer (RFC 9234, section 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Gives transit to the peer.
    Provider,
    /// A route server.
    RouteServer,
    /// A client of a route server.
    RouteServerClient,
    /// Gets transit from the peer.
    Customer,
    /// Neither.
    Peer,
    /// A value that nobody has defined.
    Other(u8),
}

impl Role {
    /// The value on the wire.
    pub const fn to_u8(self) -> u8 {
        match self {
            Self::Provider => 0,
            Self::RouteServer => 1,
            Self::RouteServerClient => 2,
            Self::Customer => 3,
            Self::Peer => 4,
            Self::Other(n) => n,
        }
    }

    /// From the value on the wire.
    pub const fn from_u8(n: u8) -> Self {
        match n {
            0 => Self::Provider,
            1 => Self::RouteServer,
            2 => Self::RouteServerClient,
            3 => Self::Customer,
            4 => Self::Peer,
            n => Self::Other(n),
        }
    }

    /// Whether the two may have a session (RFC 9234, section 4.2, table 2).
    pub const fn pairs_with(self, peer: Self) -> bool {
        matches!(
            (self, peer),
            (Self::Provider, Self::Customer)
                | (Self::Customer, Self::Provider)
                | (Self::RouteServer, Self::RouteServerClient)
                | (Self::RouteServerClient, Self::RouteServer)
                | (Self::Peer, Self::Peer)
        )
    }
}

/// How a speaker restarts (RFC 4724, section 3; RFC 8538, section 2).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct GracefulRestart {
    /// R: it has just restarted, and need not be waited for.
    pub restarting: bool,
    /// N: also after a NOTIFICATION or an expired hold timer.
    pub notification: bool,
    /// How long it may be away, in seconds; twelve bits.
    pub time: u16,
    /// The families whose routes it keeps.
    pub families: Vec<RestartFamily>,
}

/// A family within graceful restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RestartFamily {
    /// The family.
    pub family: AfiSafi,
    /// F: packets were forwarded all the while.
    pub forwarding: bool,
}

/// A family within ADD-PATH.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AddPath {
    /// The family.
    pub family: AfiSafi,
    /// Whether the speaker can receive several paths.
    pub receive: bool,
    /// Whether the speaker wants to send several paths.
    pub send: bool,
}

/// A family within long-lived graceful restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LongLived {
    /// The family.
    pub family: AfiSafi,
    /// F: packets were forwarded all the while.
    pub forwarding: bool,
    /// How long its routes may be kept, in seconds; 24 bits.
    pub stale_time: u32,
}

/// How UPDATEs to a peer are written. Peers with equal values can be sent the same bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Encoding {
    /// AS numbers take four octets.
    pub four_octet_as: bool,
    /// Messages of up to 65535 octets.
    pub extended_message: bool,
    /// IPv4 routes can have IPv6 next hops.
    pub v4_over_v6: bool,
    /// Prefixes carry path ids.
    pub add_path: PerFamily<bool>,
}

impl Encoding {
    /// The greatest UPDATE in octets, its header counted.
    pub const fn max_len(self) -> usize {
        if self.extended_message { 65535 } else { 4096 }
    }
}

/// How messages of a peer are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Decoding {
    /// Internal, external or of our confederation.
    pub peer: PeerKind,
    /// AS numbers take four octets.
    pub four_octet_as: bool,
    /// Messages of up to 65535 octets.
    pub extended_message: bool,
    /// IPv4 routes can have IPv6 next hops.
    pub v4_over_v6: bool,
    /// Prefixes carry path ids.
    pub add_path: PerFamily<bool>,
    /// The families that both carry; routes of others are passed over.
    pub families: PerFamily<bool>,
    /// Where RFC 7606 leaves the choice, drop the family and keep the session. Of use
    /// only where the session has another family to carry.
    pub disable_family: bool,
}

/// What two speakers agree on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Negotiated {
    /// The peer's AS.
    pub peer_asn: Asn,
    /// The lesser of the two hold times, in seconds; 0 is none.
    pub hold_time: u16,
    /// How its messages are read; has the families that both carry.
    pub decoding: Decoding,
    /// How messages to it are written.
    pub encoding: Encoding,
    /// Both understand ROUTE-REFRESH.
    pub route_refresh: bool,
    /// Both mark begin and end of a refresh.
    pub enhanced_refresh: bool,
    /// The peer's graceful restart, where both have it.
    pub graceful_restart: Option<GracefulRestart>,
    /// The peer's long-lived graceful restart, where both have both (RFC 9494,
    /// section 4.1: it means nothing without graceful restart).
    pub long_lived: Vec<LongLived>,
    /// The peer's role.
    pub peer_role: Option<Role>,
}

impl Negotiated {
    /// What `ours` and `theirs` have in common.
    pub fn new(ours: &Open, theirs: &Open, peer: PeerKind) -> Self {
        let (four_ours, four_theirs) = (ours.has_four_octet(), theirs.has_four_octet());
        let four_octet_as = four_ours && four_theirs;
        // These two a speaker may use as soon as the receiver offers them (RFC 8654,
        // section 3; RFC 8950, section 4); we do so only where we offer them too.
        let extended = |c: &Capability| *c == Capability::ExtendedMessage;
        let over = |c: &Capability| match c {
            Capability::ExtendedNextHop(list) => list.contains(&ExtendedNextHop::V4_OVER_V6),
            _ => false,
        };
        let sends = |open: &Open, f: Family| open.add_path(f).is_some_and(|a| a.send);
        let receives = |open: &Open, f: Family| open.add_path(f).is_some_and(|a| a.receive);
        let graceful_restart = ours
            .graceful_restart()
            .and(theirs.graceful_restart())
            .cloned();
        let long_lived = match (&graceful_restart, ours.long_lived(), theirs.long_lived()) {
            (Some(_), Some(_), Some(theirs)) => theirs.to_vec(),
            _ => Vec::new(),
        };
        Self {
            peer_asn: theirs.asn,
            hold_time: ours.hold_time.min(theirs.hold_time),
            decoding: Decoding {
                peer,
                four_octet_as,
                extended_message: ours.capabilities.iter().any(extended),
                v4_over_v6: ours.capabilities.iter().any(over),
                add_path: PerFamily::from_fn(|f| receives(ours, f) && sends(theirs, f)),
                families: PerFamily::from_fn(|f| ours.carries(f) && theirs.carries(f)),
                disable_family: false,
            },
            encoding: Encoding {
                four_octet_as,
                extended_message: both(ours, theirs, extended),
                v4_over_v6: both(ours, theirs, over),
                add_path: PerFamily::from_fn(|f| sends(ours, f) && receives(theirs, f)),
            },
            route_refresh: both(ours, theirs, |c| *c == Capability::RouteRefresh),
            enhanced_refresh: both(ours, theirs, |c| *c == Capability::EnhancedRouteRefresh),
            graceful_restart,
            long_lived,
            peer_role: theirs.role(),
        }
    }

    /// Whether routes of the family go over the session.
    pub fn carries(&self, family: Family) -> bool {
        self.decoding.families[family]
    }
}

fn both(a: &Open, b: &Open, has: impl Fn(&Capability) -> bool) -> bool {
    a.capabilities.iter().any(&has) && b.capabilities.iter().any(&has)
}
