//! From what peers and we announce to the tables.
//!
//! Promises: what a policy or a loop refuses stays in the table, marked, so that a change
//! of policy needs no refresh; the same announcement twice changes nothing. Never: chooses
//! between paths.

use super::settings::{LEARNED, LocalRoute};
use super::sweep::{Job, Which};
use super::{Event, Router};
use crate::attr::{Attributes, Community};
use crate::caps::Role;
use crate::error::Notification;
use crate::message::Announcement;
use crate::peer::{LimitAction, PeerConfig, PrefixLimit};
use crate::policy::{Answer, Operation, Question, SourceKind, Verdict};
use crate::rib::{AttrId, HopState, Meta, NetId, Path, PathFlags, PeerId, Source, SourceId};
use crate::types::{AfiSafi, PathId, PeerKind};
use crate::wire::NlriBlock;
use net::{Asn, Cidr, Family};
use rustc_hash::FxHashSet;
use smallvec::SmallVec;
use std::fmt;
use std::net::IpAddr;
use std::time::Instant;

/// Why a path that a peer announced is not used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Our AS is in its path (RFC 4271, section 9.1.2).
    OwnAs,
    /// We brought it into the AS ourselves (RFC 4456, section 8).
    OwnOriginator,
    /// It has passed our cluster (RFC 4456, section 8).
    OwnCluster,
    /// Its next hop is ourselves (RFC 4271, section 6.3).
    OwnNextHop,
    /// Its path does not start with the peer's AS (RFC 4271, section 6.3).
    FirstAs,
    /// Its path has a set (RFC 9774).
    AsSet,
    /// Only for customers, and leaked (RFC 9234, section 5).
    Leak,
    /// The import policy says so: the term.
    Policy(Option<Box<str>>),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OwnAs => f.write_str("our AS is in its path"),
            Self::OwnOriginator => f.write_str("we are its ORIGINATOR_ID"),
            Self::OwnCluster => f.write_str("our cluster is in its CLUSTER_LIST"),
            Self::OwnNextHop => f.write_str("its next hop is ourselves"),
            Self::FirstAs => f.write_str("its path does not start with the peer's AS"),
            Self::AsSet => f.write_str("its path has an AS_SET"),
            Self::Leak => f.write_str("leaked: it is only for customers (OTC)"),
            Self::Policy(Some(term)) => write!(f, "import policy: {term}"),
            Self::Policy(None) => f.write_str("import policy: by default"),
        }
    }
}

/// What importing asks about the session that a path came over.
#[derive(Clone, Copy)]
pub(super) struct Heard<'a> {
    pub(super) config: &'a PeerConfig,
    pub(super) kind: PeerKind,
    pub(super) asn: Asn,
    pub(super) local: Option<IpAddr>,
}

impl Router {
    /// Announces a route of our own, or changes it.
    pub fn announce(&mut self, prefix: Cidr, route: LocalRoute) {
        let meta = Meta {
            received: None,
            preference: route.preference,
            interface: route.interface,
        };
        let source = self.rib.sources.acquire(Source {
            peer: PeerId::LOCAL,
            path_id: PathId::NONE,
        });
        let attributes = self.rib.attributes.intern(route.attributes, meta);
        let family = prefix.family();
        let net = self.rib.tables[family].find_or_add(prefix);
        let path = Path::new(attributes, source, PathFlags::default());
        let changed = self.rib.set(family, net, path);
        self.out.mark(family, net, changed, self.config.multipath);
        if changed.best {
            self.watch_best(family, net);
        }
        self.rib.attributes.release(attributes);
        self.rib.sources.release(source);
    }

    /// Withdraws a route of our own.
    pub fn withdraw(&mut self, prefix: Cidr) {
        let local = Source {
            peer: PeerId::LOCAL,
            path_id: PathId::NONE,
        };
        let Some(net) = self.rib.tables[prefix.family()].find(prefix) else {
            return;
        };
        if let Some(source) = self.rib.sources.find(local) {
            self.remove_path(prefix.family(), net, source);
        }
    }

    /// What is known of next hops now: `None` for the metric is unreachable. Next hops that
    /// no route uses are passed over.
    pub fn next_hops(&mut self, states: impl IntoIterator<Item = (IpAddr, HopState)>) {
        let hops = &mut self.rib.attributes.hops;
        let changed: FxHashSet<_> = states
            .into_iter()
            .filter_map(|(addr, state)| hops.set(addr, state))
            .collect();
        if changed.is_empty() {
            return;
        }
        for family in Family::BOTH {
            self.sweep(family, Job::Hops(changed.clone()));
        }
    }

    /// Routes that a peer has announced; `false` when that ended its session.
    pub(super) fn announced(&mut self, id: PeerId, a: Announcement<'_>, now: Instant) -> bool {
        let family = a.nlri.family();
        let Some((from, add_path)) = self.from(id, family) else {
            return false;
        };
        let by_prefix = from.config.import.reads_prefix();
        let limited = from.config.limit[family].is_some();
        let mut known: SmallVec<[(Answer, AttrId, PathFlags); 2]> = SmallVec::new();
        let single = Source {
            peer: id,
            path_id: PathId::NONE,
        };
        let single = self.rib.sources.acquire(single);
        let mut fits = true;
        for nlri in a.nlri {
            let (attributes, flags) = match known.first() {
                Some(&(_, attributes, flags)) if !by_prefix => (attributes, flags),
                _ => self.judged(id, nlri.prefix, &a.attributes, &mut known),
            };
            let source = if add_path {
                let path_id = nlri.path_id;
                self.rib.sources.acquire(Source { peer: id, path_id })
            } else {
                single
            };
            let net = self.rib.tables[family].find_or_add(nlri.prefix);
            fits = !limited || self.within_limit(id, family, net, source, now);
            if fits {
                let path = Path::new(attributes, source, flags);
                self.set_path(id, family, net, path);
            } else {
                self.try_forget(family, net);
            }
            if add_path {
                self.rib.sources.release(source);
            }
            if !fits && self.peer(id).is_none_or(|p| p.session.is_none()) {
                break;
            }
            fits = true;
        }
        for (_, attributes, _) in known {
            self.rib.attributes.release(attributes);
        }
        self.rib.sources.release(single);
        fits
    }

    /// What import asks about a peer, with or without a session.
    pub(super) fn heard(&self, id: PeerId) -> Option<Heard<'_>> {
        let peer = self.peer(id)?;
        Some(Heard {
            config: &peer.config,
            kind: self.rib.neighbours[id.index()].kind,
            asn: peer.asn.or(peer.config.asn).unwrap_or(self.config.asn),
            local: peer.session.as_ref().map(|s| s.local),
        })
    }

    /// The same while the session listens to the family, and whether it has path ids.
    fn from(&self, id: PeerId, family: Family) -> Option<(Heard<'_>, bool)> {
        let session = self.peer(id)?.session.as_ref()?;
        if session.disabled[family] {
            return None;
        }
        let add_path = session.negotiated.decoding.add_path[family];
        Some((self.heard(id)?, add_path))
    }

    /// The attributes and flags that a path gets; held by `known` until it is let go.
    pub(super) fn judged(
        &mut self,
        id: PeerId,
        prefix: Cidr,
        received: &Attributes,
        known: &mut SmallVec<[(Answer, AttrId, PathFlags); 2]>,
    ) -> (AttrId, PathFlags) {
        let from = self
            .heard(id)
            .expect("paths are judged for peers that are there");
        let answer = from.config.import.ask(&from.question(prefix, received));
        if let Some((_, attributes, flags)) = known.iter().find(|k| k.0 == answer) {
            return (*attributes, *flags);
        }
        let (meta, changed, refused) = self.judge(&from, received, &answer);
        let attributes = self.intern_judged(received.clone(), meta, changed);
        let flags = match refused {
            Some(_) => PathFlags::REJECTED,
            None => PathFlags::default(),
        };
        known.push((answer, attributes, flags));
        (attributes, flags)
    }

    fn intern_judged(
        &mut self,
        received: Attributes,
        meta: Meta,
        changed: Option<Attributes>,
    ) -> AttrId {
        let sets = &mut self.rib.attributes;
        let plain = Meta {
            preference: LEARNED,
            ..Meta::default()
        };
        match changed {
            None if meta == plain => sets.intern(received, meta),
            changed => {
                let changed = changed.unwrap_or_else(|| received.clone());
                let received = sets.intern(received, plain);
                let meta = Meta {
                    received: Some(received),
                    ..meta
                };
                let id = sets.intern(changed, meta);
                sets.release(received);
                id
            }
        }
    }

    /// What becomes of a path: its other properties, its attributes where they change, and
    /// why it is refused, if it is.
    pub(super) fn judge(
        &self,
        from: &Heard<'_>,
        received: &Attributes,
        answer: &Answer,
    ) -> (Meta, Option<Attributes>, Option<Refusal>) {
        let mut meta = Meta {
            preference: LEARNED,
            ..Meta::default()
        };
        if let Some(refusal) = self.refuses(from, received) {
            return (meta, None, Some(refusal));
        }
        if answer.verdict == Verdict::Reject {
            let term = from.config.import.name_of(answer).map(Into::into);
            return (meta, None, Some(Refusal::Policy(term)));
        }
        let mut changed = from.standing_changes(received);
        for op in from.config.import.operations(answer) {
            match op {
                Operation::SetPreference(n) => meta.preference = *n,
                op => op.apply(changed.get_or_insert_with(|| received.clone())),
            }
        }
        (meta, changed, None)
    }

    /// The rules that no policy can change.
    fn refuses(&self, from: &Heard<'_>, a: &Attributes) -> Option<Refusal> {
        let config = from.config;
        // Towards this peer we are of no other AS than the session's, as with BIRD: a path through
        // the router's own is longer, and within the AS it loses by its LOCAL_PREF.
        let own = a.as_path.count(config.our_asn(self.config.asn));
        if own > usize::from(config.allow_own_asn) {
            return Some(Refusal::OwnAs);
        }
        let rare = a.rare();
        if rare.originator_id == Some(self.config.router_id) {
            return Some(Refusal::OwnOriginator);
        }
        if rare.cluster_list.contains(&self.cluster()) {
            return Some(Refusal::OwnCluster);
        }
        if from.local == Some(a.next_hop.addr()) {
            return Some(Refusal::OwnNextHop);
        }
        if !config.allow_as_sets && a.as_path.has_sets() {
            return Some(Refusal::AsSet);
        }
        if from.kind != PeerKind::External {
            return None;
        }
        if config.enforce_first_asn && a.as_path.first() != Some(from.asn) {
            return Some(Refusal::FirstAs);
        }
        let leaked = match (config.role, rare.otc) {
            (Some(Role::Provider | Role::RouteServer), Some(_)) => true,
            (Some(Role::Peer), Some(asn)) => asn != from.asn,
            _ => false,
        };
        leaked.then_some(Refusal::Leak)
    }

    #[inline]
    pub(super) fn set_path(&mut self, id: PeerId, family: Family, net: NetId, path: Path) {
        let before = self.rib.tables[family].paths_len();
        let changed = self.rib.set(family, net, path);
        let added = self.rib.tables[family].paths_len() > before;
        if let (true, Some(peer)) = (added, self.peer_mut(id)) {
            peer.paths[family] += 1;
        }
        self.out.mark(family, net, changed, self.config.multipath);
        if changed.any && !self.monitors.is_empty() {
            let source = self.rib.sources.get(path.source);
            self.watch_path(family, net, source, changed.best);
        }
    }

    /// Routes that a peer has withdrawn.
    pub(super) fn withdrawn(&mut self, id: PeerId, block: NlriBlock<'_>) {
        let family = block.family();
        for nlri in block {
            let source = Source {
                peer: id,
                path_id: nlri.path_id,
            };
            let Some(net) = self.rib.tables[family].find(nlri.prefix) else {
                continue;
            };
            if let Some(source) = self.rib.sources.find(source) {
                self.remove_path(family, net, source);
            }
        }
    }

    pub(super) fn remove_path(&mut self, family: Family, net: NetId, source: SourceId) {
        let of = self.rib.sources.get(source);
        let changed = self.rib.remove(family, net, source);
        if !changed.any {
            return;
        }
        self.watch_path(family, net, of, changed.best);
        if let Some(peer) = self.peer_mut(of.peer) {
            peer.paths[family] -= 1;
        }
        self.out.mark(family, net, changed, self.config.multipath);
        self.try_forget(family, net);
    }

    /// Forgets a prefix that has no path and that nobody has to be told of.
    pub(super) fn try_forget(&mut self, family: Family, net: NetId) {
        let watched = |r: &Self| r.monitors.iter().any(|m| m.knows(family, net));
        if self.rib.tables[family].is_vacant(net) && !self.out.knows(family, net) && !watched(self)
        {
            self.rib.tables[family].forget(net);
        }
    }

    /// Removes the paths of a peer that `which` picks.
    pub(super) fn purge(&mut self, id: PeerId, family: Family, which: Which) {
        self.sweep(family, Job::Purge(id, which));
    }

    /// Decides anew about all that a peer has announced, since what it is has changed.
    pub(super) fn reconsider_peer(&mut self, id: PeerId) {
        for family in Family::BOTH {
            self.sweep(family, Job::Peer(id));
        }
    }

    /// Applies the import policy anew to what a peer has announced.
    pub(super) fn import_again(&mut self, id: PeerId) {
        for family in Family::BOTH {
            self.sweep(family, Job::Import(id));
        }
    }

    /// Whether one more path may come in; does what is configured if not.
    fn within_limit(
        &mut self,
        id: PeerId,
        family: Family,
        net: NetId,
        source: SourceId,
        now: Instant,
    ) -> bool {
        if self.rib.tables[family].get(net, source).is_some() {
            return true;
        }
        let Some(peer) = self.peer_mut(id) else {
            return false;
        };
        let (Some(limit), Some(session)) = (peer.config.limit[family], &mut peer.session) else {
            return true;
        };
        let paths = peer.paths[family] + 1;
        let warn = paths >= limit.warn_at && !std::mem::replace(&mut session.warned[family], true);
        if paths < limit.warn_at {
            session.warned[family] = false;
        }
        if warn {
            self.event(Event::NearLimit {
                peer: id,
                family,
                paths,
            });
        }
        if paths <= limit.max || limit.action == LimitAction::Warn {
            return true;
        }
        self.exceeded(id, family, limit, now);
        false
    }

    /// A peer has told of too much: its session ends, if that is what is to be done.
    pub(super) fn exceeded(
        &mut self,
        id: PeerId,
        family: Family,
        limit: PrefixLimit,
        now: Instant,
    ) {
        if let LimitAction::Teardown(again) = limit.action {
            self.event(Event::OverLimit { peer: id, family });
            self.over_limit(id, family, limit.max, again, now);
        }
    }

    fn over_limit(
        &mut self,
        id: PeerId,
        family: Family,
        max: u32,
        again: Option<std::time::Duration>,
        now: Instant,
    ) {
        let AfiSafi { afi, safi } = AfiSafi::unicast(family);
        let mut data = afi.to_be_bytes().to_vec();
        data.push(safi);
        data.extend_from_slice(&max.to_be_bytes());
        let why = Notification::new(crate::error::Code::MAX_PREFIXES, data);
        self.stop(id, why, now);
        if let Some(peer) = self.peer_mut(id) {
            match again {
                Some(wait) => peer.refuse_until = Some(now + wait),
                None => peer.halted = true,
            }
        }
        self.schedule(id);
    }
}

impl Heard<'_> {
    /// The question to the import policy.
    pub(super) const fn question<'a>(
        &self,
        prefix: Cidr,
        attributes: &'a Attributes,
    ) -> Question<'a> {
        Question {
            prefix,
            attributes,
            source: SourceKind::Peer,
            peer: self.kind,
            interface: self.config.interface,
        }
    }

    /// What is changed before policy: OTC is set (RFC 9234, section 5), GRACEFUL_SHUTDOWN
    /// heeded (RFC 8326, section 4.2).
    fn standing_changes(&self, a: &Attributes) -> Option<Attributes> {
        if self.kind != PeerKind::External {
            return None;
        }
        let marks = matches!(
            self.config.role,
            Some(Role::Customer | Role::Peer | Role::RouteServerClient)
        ) && a.rare().otc.is_none();
        let drains =
            self.config.graceful_shutdown && a.communities.contains(Community::GRACEFUL_SHUTDOWN);
        if !marks && !drains {
            return None;
        }
        let mut a = a.clone();
        if marks {
            let asn = self.asn;
            a.edit_rare(|r| r.otc = Some(asn));
        }
        if drains {
            a.local_pref = Some(0);
        }
        Some(a)
    }
}
