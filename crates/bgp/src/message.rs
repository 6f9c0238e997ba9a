//! Messages as values.
//!
//! Promises: an [`Update`] that exists has been through RFC 7606: what its routes say
//! stands, what it withdraws is to be withdrawn. Never: holds bytes that were not checked.

use crate::attr::Attributes;
use crate::caps::{AddPath, Capability, GracefulRestart, LongLived, Role};
use crate::error::{Code, Fault, Notification};
use crate::types::{AfiSafi, PeerKind, RouterId};
use crate::wire::NlriBlock;
use net::{Asn, Family};
use smallvec::SmallVec;

/// A message from a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message<'a> {
    /// The first message of each side.
    Open(Open),
    /// Routes.
    Update(Update<'a>),
    /// The last message of a session.
    Notification(Notification),
    /// Nothing, in time.
    Keepalive,
    /// A wish for routes, or a mark within the answer to one.
    RouteRefresh(RouteRefresh),
}

impl Message<'_> {
    /// The type on the wire.
    pub const fn kind(&self) -> MessageKind {
        match self {
            Self::Open(_) => MessageKind::Open,
            Self::Update(_) => MessageKind::Update,
            Self::Notification(_) => MessageKind::Notification,
            Self::Keepalive => MessageKind::Keepalive,
            Self::RouteRefresh(_) => MessageKind::RouteRefresh,
        }
    }
}

/// The type of a message, with its value on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MessageKind {
    /// RFC 4271, section 4.2.
    Open = 1,
    /// RFC 4271, section 4.3.
    Update = 2,
    /// RFC 4271, section 4.5.
    Notification = 3,
    /// RFC 4271, section 4.4.
    Keepalive = 4,
    /// RFC 2918, section 3.
    RouteRefresh = 5,
}

impl MessageKind {
    /// From the value on the wire.
    pub const fn from_u8(n: u8) -> Option<Self> {
        match n {
            1 => Some(Self::Open),
            2 => Some(Self::Update),
            3 => Some(Self::Notification),
            4 => Some(Self::Keepalive),
            5 => Some(Self::RouteRefresh),
            _ => None,
        }
    }
}

/// An OPEN (RFC 4271, section 4.2).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Open {
    /// The speaker's AS: that of the four-octet capability where there is one.
    pub asn: Asn,
    /// Its wish for the hold time, in seconds: 0 or at least 3.
    pub hold_time: u16,
    /// Who it is; never 0.
    pub router_id: RouterId,
    /// What it can do, in its order.
    pub capabilities: Vec<Capability>,
}

impl Open {
    /// Whether routes of the family are offered: by capability, or IPv4 by the absence of
    /// any (RFC 4760, section 8).
    pub fn carries(&self, family: Family) -> bool {
        let mut any = false;
        for c in &self.capabilities {
            if let Capability::MultiProtocol(f) = c {
                if *f == AfiSafi::unicast(family) {
                    return true;
                }
                any = true;
            }
        }
        !any && family == Family::V4
    }

    /// Whether four-octet AS numbers are offered.
    pub fn has_four_octet(&self) -> bool {
        self.capabilities
            .iter()
            .any(|c| matches!(c, Capability::FourOctetAs(_)))
    }

    /// What is offered about several paths for a family. A family that is repeated counts
    /// as it comes last (RFC 7911, section 4, leaves it open).
    pub fn add_path(&self, family: Family) -> Option<AddPath> {
        let lists = self.capabilities.iter().rev().filter_map(|c| match c {
            Capability::AddPath(list) => Some(list),
            _ => None,
        });
        lists
            .flat_map(|l| l.iter().rev())
            .find(|a| a.family == AfiSafi::unicast(family))
            .copied()
    }

    /// The offer of graceful restart; the last where there are several (RFC 4724,
    /// section 3).
    pub fn graceful_restart(&self) -> Option<&GracefulRestart> {
        self.capabilities.iter().rev().find_map(|c| match c {
            Capability::GracefulRestart(g) => Some(g),
            _ => None,
        })
    }

    /// The offer of long-lived graceful restart; the last where there are several.
    pub fn long_lived(&self) -> Option<&[LongLived]> {
        self.capabilities.iter().rev().find_map(|c| match c {
            Capability::LongLivedGracefulRestart(l) => Some(l.as_slice()),
            _ => None,
        })
    }

    /// The role.
    pub fn role(&self) -> Option<Role> {
        self.capabilities.iter().find_map(|c| match c {
            Capability::Role(r) => Some(*r),
            _ => None,
        })
    }

    /// Holds a peer's OPEN against what we know of it.
    ///
    /// # Errors
    /// The NOTIFICATION to send: another AS than `asn` (where one is configured), or our
    /// own identifier from within our AS (RFC 6286, section 2.2).
    pub fn check_peer(
        &self,
        asn: Option<Asn>,
        kind: PeerKind,
        ours: RouterId,
    ) -> Result<(), Notification> {
        if asn.is_some_and(|a| a != self.asn) {
            return Err(Code::BAD_PEER_AS.into());
        }
        if kind == PeerKind::Internal && self.router_id == ours {
            let id = self.router_id.0.to_be_bytes();
            return Err(Notification::new(Code::BAD_IDENTIFIER, id));
        }
        Ok(())
    }

    /// Holds a peer's roles against ours (RFC 9234, section 4.2).
    ///
    /// # Errors
    /// The NOTIFICATION to send: the roles do not pair up, the peer has several that
    /// differ, or none while `strict`.
    pub fn check_role(&self, ours: Option<Role>, strict: bool) -> Result<(), Notification> {
        let Some(ours) = ours else {
            return Ok(());
        };
        let mut theirs = self.capabilities.iter().filter_map(|c| match c {
            Capability::Role(r) => Some(*r),
            _ => None,
        });
        match theirs.next() {
            None if strict => Err(Code::ROLE_MISMATCH.into()),
            None => Ok(()),
            Some(first) if !ours.pairs_with(first) || theirs.any(|r| r != first) => {
                Err(Code::ROLE_MISMATCH.into())
            }
            Some(_) => Ok(()),
        }
    }
}

/// An UPDATE after RFC 7606. Withdraw first, then announce: a prefix that is in both is
/// announced (RFC 4271, section 4.3).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Update<'a> {
    /// Routes to withdraw, those of a treated-as-withdraw announcement among them.
    pub withdrawn: SmallVec<[NlriBlock<'a>; 2]>,
    /// Routes that are announced: mostly one, two where both families are in one message.
    pub announced: SmallVec<[Announcement<'a>; 1]>,
    /// The initial routes of this family are complete (RFC 4724, section 2).
    pub end_of_rib: Option<Family>,
    /// The family whose routes are to be dropped and that is to be heard no more. Only
    /// where [`Decoding::disable_family`](crate::caps::Decoding::disable_family) is set.
    pub disable: Option<Family>,
    /// What was wrong, if anything.
    pub faults: Vec<Fault>,
}

/// Routes that share their attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement<'a> {
    /// What they carry.
    pub attributes: Attributes,
    /// The prefixes.
    pub nlri: NlriBlock<'a>,
}

/// A ROUTE-REFRESH (RFC 2918, section 3; RFC 7313, section 3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RouteRefresh {
    /// Of which routes.
    pub family: AfiSafi,
    /// What about them.
    pub subtype: RefreshSubtype,
}

/// What a ROUTE-REFRESH says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefreshSubtype {
    /// All routes are wanted anew.
    Request,
    /// All routes follow: what is not among them by the end is gone.
    Begin,
    /// All routes have been sent.
    End,
    /// One that we do not know, to be ignored.
    Other(u8),
}

impl RefreshSubtype {
    /// The value on the wire.
    pub const fn to_u8(self) -> u8 {
        match self {
            Self::Request => 0,
            Self::Begin => 1,
            Self::End => 2,
            Self::Other(n) => n,
        }
    }

    /// From the value on the wire.
    pub const fn from_u8(n: u8) -> Self {
        match n {
            0 => Self::Request,
            1 => Self::Begin,
            2 => Self::End,
            n => Self::Other(n),
        }
    }
}
