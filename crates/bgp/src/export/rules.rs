//! Whether and how a route is told to the peers of a group.
//!
//! Promises: a function of the route, its source and the [`ExportKey`]; each refusal has a
//! name. Never: looks at a single peer; what differs within a group is who the source is.

use crate::attr::{Attributes, Community, NextHop};
use crate::caps::{Encoding, Role};
use crate::error::EncodeError;
use crate::peer::{AddPathSend, NextHopMode};
use crate::policy::{Answer, Policy, Question, SourceKind, Verdict};
use crate::rib::{Neighbour, Path, PathFlags, PeerId, Rib};
use crate::types::{ClusterId, PeerKind, RouterId};
use net::{Asn, Cidr, Family};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// All that a route's export depends on. Peers with equal keys are told the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportKey {
    /// The routes.
    pub family: Family,
    /// How messages are written.
    pub encoding: Encoding,
    /// What the peers are to us.
    pub kind: PeerKind,
    /// Clients of ours as a reflector.
    pub client: bool,
    /// Our AS towards them.
    pub our_asn: Asn,
    /// The next hop that they are told.
    pub next_hop: NextHopMode,
    /// Ourselves as a next hop; `None` when we have no address that fits.
    pub own: Option<NextHop>,
    /// The link that the session runs over, where it is one hop.
    pub link: Option<Cidr>,
    /// The export policy.
    pub policy: Arc<Policy>,
    /// Our role towards them.
    pub role: Option<Role>,
    /// They know long-lived graceful restart.
    pub long_lived: bool,
    /// Which paths they get.
    pub paths: AddPathSend,
}

/// Why a route is not told to a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Blocked {
    /// The peer told it to us.
    Source,
    /// It carries NO_ADVERTISE (RFC 1997).
    NoAdvertise,
    /// It carries NO_EXPORT or NO_EXPORT_SUBCONFED and the peer is outside (RFC 1997).
    NoExport,
    /// From within the AS to within the AS, and neither is a client (RFC 4456).
    NotReflected,
    /// Marked as only for customers (RFC 9234).
    OnlyToCustomers,
    /// Stale, and the peer does not know what that means (RFC 9494, section 4.3).
    Stale,
    /// The export policy says so: the term.
    Policy(Option<Box<str>>),
    /// There is no next hop that the peer could take.
    NextHop,
    /// The attributes fill a message.
    TooLong,
}

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source => f.write_str("the peer told it to us"),
            Self::NoAdvertise => f.write_str("it carries NO_ADVERTISE"),
            Self::NoExport => f.write_str("it carries NO_EXPORT"),
            Self::NotReflected => {
                f.write_str("learned within the AS, and neither side is a client")
            }
            Self::OnlyToCustomers => f.write_str("it is only for customers (OTC)"),
            Self::Stale => f.write_str("it is stale, and the peer would not know"),
            Self::Policy(Some(term)) => write!(f, "export policy: {term}"),
            Self::Policy(None) => f.write_str("export policy: by default"),
            Self::NextHop => f.write_str("no address of ours fits as a next hop"),
            Self::TooLong => f.write_str("its attributes fill a message"),
        }
    }
}

impl From<EncodeError> for Blocked {
    fn from(e: EncodeError) -> Self {
        match e {
            EncodeError::NextHop(_) => Self::NextHop,
            EncodeError::AttributesTooLong { .. } | EncodeError::MessageTooLong { .. } => {
                Self::TooLong
            }
        }
    }
}

/// Reads routes out of the tables for a group.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    /// The tables.
    pub rib: &'a Rib,
    /// For whom.
    pub key: &'a ExportKey,
    /// Our cluster (RFC 4456).
    pub cluster: ClusterId,
}

impl Reader<'_> {
    /// Where a path came from.
    pub fn source(&self, path: Path) -> (PeerId, &Neighbour) {
        let peer = self.rib.sources.get(path.source).peer;
        (peer, &self.rib.neighbours[peer.index()])
    }

    /// What the export policy says.
    pub fn ask(&self, prefix: Cidr, path: Path) -> Answer {
        let set = self.rib.attributes.get(path.attributes);
        let (peer, _) = self.source(path);
        let local = peer == PeerId::LOCAL;
        let hop = self.rib.attributes.hops.get(set.hop);
        self.key.policy.ask(&Question {
            prefix,
            attributes: &set.attributes,
            source: if local {
                SourceKind::Local
            } else {
                SourceKind::Peer
            },
            peer: self.key.kind,
            interface: set.meta.interface.or(hop.state.interface),
        })
    }

    /// The rules that come before policy.
    ///
    /// # Errors
    /// Why the route is not told.
    pub fn may(&self, path: Path) -> Result<(), Blocked> {
        let key = self.key;
        let a = &self.rib.attributes.get(path.attributes).attributes;
        let (peer, from) = self.source(path);
        let has = |c| a.communities.contains(c);
        if has(Community::NO_ADVERTISE) {
            return Err(Blocked::NoAdvertise);
        }
        let outside = key.kind != PeerKind::Internal;
        if outside && (has(Community::NO_EXPORT) || has(Community::NO_EXPORT_SUBCONFED)) {
            return Err(Blocked::NoExport);
        }
        let learned_inside = peer != PeerId::LOCAL && from.kind == PeerKind::Internal;
        if learned_inside && !outside && !from.client && !key.client {
            return Err(Blocked::NotReflected);
        }
        let upwards = matches!(
            key.role,
            Some(Role::Customer | Role::Peer | Role::RouteServerClient)
        );
        if outside && upwards && a.rare().otc.is_some() {
            return Err(Blocked::OnlyToCustomers);
        }
        let stale = path.flags.has(PathFlags::LONG_STALE) || has(Community::LLGR_STALE);
        if stale && !key.long_lived {
            return Err(Blocked::Stale);
        }
        Ok(())
    }

    /// The attributes as the peers are told them.
    ///
    /// # Errors
    /// Why the route is not told.
    pub fn attributes(&self, path: Path, answer: &Answer) -> Result<Attributes, Blocked> {
        if answer.verdict == Verdict::Reject {
            let term = self.key.policy.name_of(answer);
            return Err(Blocked::Policy(term.map(Into::into)));
        }
        let mut a = self.rib.attributes.get(path.attributes).attributes.clone();
        let (peer, from) = self.source(path);
        let local = peer == PeerId::LOCAL;
        match self.key.kind {
            PeerKind::Internal => self.inside(&mut a, path, local, from),
            PeerKind::External | PeerKind::Confederation => self.outside(&mut a, local, answer),
        }
        if self.key.kind == PeerKind::Internal {
            for op in self.key.policy.operations(answer) {
                op.apply(&mut a);
            }
        }
        a.next_hop = self.next_hop(a.next_hop, local)?;
        Ok(a)
    }

    /// To within the AS (RFC 4271, section 5.1.5; RFC 4456, section 8).
    fn inside(&self, a: &mut Attributes, path: Path, local: bool, from: &Neighbour) {
        a.local_pref = Some(a.local_pref.unwrap_or(100));
        if !local && from.kind == PeerKind::Internal {
            let source = self.rib.sources.get(path.source).peer;
            let id = RouterId(self.rib.neighbours[source.index()].router_id);
            a.edit_rare(|r| {
                r.originator_id.get_or_insert(id);
                let mut list = Vec::with_capacity(r.cluster_list.len() + 1);
                list.push(self.cluster);
                list.extend_from_slice(&r.cluster_list);
                r.cluster_list = list.into();
            });
        }
    }

    /// To another AS (RFC 4271, sections 5.1.2, 5.1.4, 5.1.5; RFC 4456, section 8;
    /// RFC 7311, section 3.4; RFC 9234, section 5). What the policy prepends stands behind
    /// our own AS.
    fn outside(&self, a: &mut Attributes, local: bool, answer: &Answer) {
        if !local {
            a.med = None;
        }
        for op in self.key.policy.operations(answer) {
            op.apply(a);
        }
        a.local_pref = None;
        a.as_path = a.as_path.without_confed().prepend(self.key.our_asn, 1);
        let downwards = matches!(
            self.key.role,
            Some(Role::Provider | Role::Peer | Role::RouteServer)
        );
        let rare = a.rare();
        let plain = rare.originator_id.is_none()
            && rare.cluster_list.is_empty()
            && rare.aigp.is_none()
            && rare.ext_communities.is_empty();
        if plain && !(downwards && rare.otc.is_none()) {
            return;
        }
        a.edit_rare(|r| {
            r.originator_id = None;
            r.cluster_list = Box::default();
            r.aigp = None;
            r.ext_communities.retain(|c| c.is_transitive());
            if downwards {
                r.otc.get_or_insert(self.key.our_asn);
            }
        });
    }

    /// RFC 4271, section 5.1.3; RFC 8950, section 4. A next hop that a route of our own names was
    /// named for peers.
    fn next_hop(&self, hop: NextHop, local: bool) -> Result<NextHop, Blocked> {
        let key = self.key;
        let unnamed = hop.addr().is_unspecified();
        let readable = match (key.family, hop.family()) {
            (Family::V4, Family::V6) => key.encoding.v4_over_v6,
            (Family::V6, Family::V4) => false,
            _ => true,
        };
        let on_link = |a: IpAddr| key.link.is_some_and(|l| l.contains(a));
        let keep = readable
            && !unnamed
            && match key.next_hop {
                NextHopMode::Own => false,
                NextHopMode::Keep => true,
                NextHopMode::Auto => local || key.kind == PeerKind::Internal || on_link(hop.addr()),
            };
        if keep {
            return Ok(hop);
        }
        key.own.ok_or(Blocked::NextHop)
    }
}
