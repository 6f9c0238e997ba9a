//! What peers and the kernel are told, and when.
//!
//! Promises: a change marks a prefix; messages are made when somebody can take them, from
//! what is so then, so that a prefix that changes often costs one message; a member whose
//! queue is full holds the others up for a bounded time only. Never: keeps a queue of
//! routes.

use super::peers::{Conn, Peer, Size};
use super::sweep::{Job, Which};
use super::{ConnId, Event, Output, Router};
use crate::attr::{Attributes, NextHop};
use crate::export::{ExportKey, Group, Member};
use crate::fsm::Side;
use crate::message::{RefreshSubtype, RouteRefresh};
use crate::peer::AddPathSend;
use crate::rib::{Bits, Changed, NetId, PathFlags, PeerId, Rib, Table};
use crate::types::{AfiSafi, ClusterId, PeerKind, PerFamily};
use crate::wire;
use bytes::Bytes;
use net::{Cidr, Family, IfName};
use smallvec::SmallVec;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// A next hop that came into use, or went out of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextHopUse {
    /// The address.
    pub addr: IpAddr,
    /// Whether routes use it now.
    pub used: bool,
}

/// What is best for a prefix now.
#[derive(Debug)]
pub struct RouteChange<'a> {
    /// The destination.
    pub prefix: Cidr,
    /// The route; `None`: there is none any more.
    pub route: Option<BestRoute<'a>>,
}

/// The route in use.
#[derive(Debug)]
pub struct BestRoute<'a> {
    /// Where the best path came from; [`PeerId::LOCAL`] is ourselves.
    pub peer: PeerId,
    /// What the best path carries.
    pub attributes: &'a Attributes,
    /// Its preference, see [`LocalRoute`](super::LocalRoute).
    pub preference: u16,
    /// Where to send packets: the best path's first, then those of equal paths.
    pub next_hops: SmallVec<[(NextHop, Option<IfName>); 2]>,
    /// Its peer is restarting.
    pub stale: bool,
}

/// So many slices are told in one round, of all groups together.
const ROUND: u32 = 8;

#[derive(Debug)]
pub(super) struct Outbound {
    groups: Vec<Group>,
    routes: PerFamily<Bits>,
    routes_told: bool,
    cluster: ClusterId,
    limit: usize,
}

impl Outbound {
    pub(super) fn new(cluster: ClusterId, limit: usize) -> Self {
        Self {
            groups: Vec::new(),
            routes: PerFamily::default(),
            routes_told: false,
            cluster,
            limit,
        }
    }

    pub(super) const fn configure(&mut self, cluster: ClusterId, limit: usize) {
        self.cluster = cluster;
        self.limit = limit;
    }

    /// Every route is told anew.
    pub(super) fn all_routes(&mut self, rib: &Rib) {
        for family in Family::BOTH {
            for net in rib.tables[family].iter() {
                self.routes[family].insert(net.0);
            }
        }
    }

    /// A prefix has changed.
    #[inline]
    pub(super) fn mark(&mut self, family: Family, net: NetId, changed: Changed, multipath: u16) {
        if !changed.any {
            return;
        }
        if changed.best || multipath > 1 {
            self.routes[family].insert(net.0);
        }
        for g in &mut self.groups {
            let all = g.key.paths != AddPathSend::No;
            if g.key.family == family && (changed.best || all) {
                g.dirty.insert(net.0);
            }
        }
    }

    /// Whether anybody has to be told of the prefix.
    pub(super) fn knows(&self, family: Family, net: NetId) -> bool {
        self.routes[family].contains(net.0)
            || self
                .groups
                .iter()
                .any(|g| g.key.family == family && g.knows(net))
    }

    pub(super) fn deadline(&self, patience: Duration) -> Option<Instant> {
        let since = self.groups.iter().filter_map(|g| g.blocked_since);
        since.min().map(|t| t + patience)
    }

    fn heap_size(&self) -> usize {
        let groups: usize = self.groups.iter().map(Group::heap_size).sum();
        groups + self.routes.v4.heap_size() + self.routes.v6.heap_size()
    }

    pub(super) fn groups(&self) -> &[Group] {
        &self.groups
    }

    pub(super) const fn cluster(&self) -> ClusterId {
        self.cluster
    }
}

impl Router {
    /// Takes at least one and about `max` octets to send; the caller writes them in order,
    /// all, and polls again afterwards, since more is made as queues empty. `false`: nothing
    /// is left, [`Output::Send`] will be told when there is.
    pub fn pull(&mut self, conn: ConnId, max: usize, out: &mut Vec<Bytes>, now: Instant) -> bool {
        let Some(peer) = self.current(conn) else {
            return false;
        };
        let c = peer.conn_mut(conn.side);
        let mut taken = 0;
        while taken < max {
            let Some(octets) = c.queue.pop_front() else {
                break;
            };
            taken += octets.len();
            out.push(octets);
        }
        c.queued -= taken;
        let more = !c.queue.is_empty();
        c.told = more;
        c.send_hold = more.then(|| now + send_hold_time(c));
        peer.counters.octets_sent += taken as u64;
        more
    }

    /// Tells what is best for up to `max` prefixes for which that may have changed since
    /// they were last told. `false`: that was all, [`Output::Routes`] will be told when
    /// there is more.
    pub fn take_routes(&mut self, max: usize, mut tell: impl FnMut(RouteChange<'_>)) -> bool {
        let mut left = max;
        for family in Family::BOTH {
            if self.restarting[family].is_some() {
                continue;
            }
            let mut from = 0;
            while let Some(n) = self.out.routes[family].next(from) {
                if left == 0 {
                    return true;
                }
                left -= 1;
                from = n + 1;
                self.out.routes[family].remove(n);
                tell(RouteChange {
                    prefix: self.rib.tables[family].prefix(NetId(n)),
                    route: self.best_route(family, NetId(n)),
                });
                self.try_forget(family, NetId(n));
            }
        }
        self.out.routes_told = false;
        false
    }

    /// What is best for a prefix.
    pub fn best(&self, prefix: Cidr) -> Option<BestRoute<'_>> {
        let net = self.rib.tables[prefix.family()].find(prefix)?;
        self.best_route(prefix.family(), net)
    }

    /// All prefixes with a route in use, in no order.
    pub fn routes(&self, family: Family) -> impl Iterator<Item = (Cidr, BestRoute<'_>)> + '_ {
        let table = &self.rib.tables[family];
        table
            .iter()
            .filter_map(move |net| Some((table.prefix(net), self.best_route(family, net)?)))
    }

    /// How much there is.
    pub fn size(&self) -> Size {
        let tables = &self.rib.tables;
        let both = |f: fn(&Table) -> usize| f(&tables.v4) + f(&tables.v6);
        Size {
            prefixes: both(|t| t.iter().count()),
            known: both(Table::nets),
            paths: both(Table::paths_len),
            attributes: self.rib.attributes.len(),
            groups: self.out.groups.len(),
            octets: self.rib.heap_size() + self.out.heap_size(),
        }
    }

    fn best_route(&self, family: Family, net: NetId) -> Option<BestRoute<'_>> {
        let max = usize::from(self.config.multipath);
        let paths = self.rib.multipath(family, net, max);
        let best = *paths.first()?;
        let set = self.rib.attributes.get(best.attributes);
        let mut next_hops: SmallVec<[(NextHop, Option<IfName>); 2]> = SmallVec::new();
        for p in &paths {
            let set = self.rib.attributes.get(p.attributes);
            let hop = self.rib.attributes.hops.get(set.hop);
            let hop = (
                set.attributes.next_hop,
                set.meta.interface.or(hop.state.interface),
            );
            if !next_hops.contains(&hop) {
                next_hops.push(hop);
            }
        }
        Some(BestRoute {
            peer: self.rib.sources.get(best.source).peer,
            attributes: &set.attributes,
            preference: set.meta.preference,
            next_hops,
            stale: best.flags.has(PathFlags::STALE),
        })
    }

    /// Makes messages as far as queues allow, and tells of what else has changed.
    pub(super) fn flush(&mut self, now: Instant) {
        let mut i = 0;
        while i < self.out.groups.len() {
            if self.restarting[self.out.groups[i].key.family].is_none() {
                self.flush_group(i, now);
            }
            i += 1;
            if self.spent() {
                // The others are first when there is time again.
                self.out.groups.rotate_left(i);
                break;
            }
        }
        self.merge_groups();
        for (addr, used) in self.rib.attributes.hops.take_changed() {
            self.outputs
                .push_back(Output::NextHop(NextHopUse { addr, used }));
        }
        let routes = self
            .out
            .routes
            .iter()
            .any(|(f, bits)| !bits.is_empty() && self.restarting[f].is_none());
        if routes && !self.out.routes_told {
            self.out.routes_told = true;
            self.outputs.push_back(Output::Routes);
        }
    }

    /// Whether enough was told for one round.
    const fn spent(&self) -> bool {
        self.told >= self.config.slice.saturating_mul(ROUND)
    }

    /// Whether there is more to tell than there was time for.
    pub(super) fn has_more(&self) -> bool {
        self.spent() && self.out.groups.iter().any(|g| !g.is_settled())
    }

    fn flush_group(&mut self, i: usize, now: Instant) {
        let limit = self.out.limit;
        while !self.out.groups[i].is_settled() {
            if self.spent() {
                return;
            }
            let peers = &self.peers;
            let full = |m: &Member| queue(peers, m.peer).is_some_and(|q| q >= limit);
            let group = &mut self.out.groups[i];
            let slow = group.members.iter().filter(|m| full(m)).count();
            if slow == group.members.len() {
                // Nobody waits for anybody; the next pull brings us back here.
                group.blocked_since = None;
                return;
            }
            if slow > 0 {
                let since = *group.blocked_since.get_or_insert(now);
                if now.duration_since(since) < self.config.slow_peer {
                    return;
                }
                let slow = group.split(&mut self.rib, full);
                group.blocked_since = None;
                self.out.groups.push(slow);
                continue;
            }
            group.blocked_since = None;
            let family = group.key.family;
            let before = group.dirty.len();
            let batch = group.produce(&mut self.rib, self.out.cluster);
            let looked_at = before - group.dirty.len();
            self.told += u32::try_from(looked_at).unwrap_or(u32::MAX);
            let members: SmallVec<[PeerId; 8]> = group.members.iter().map(|m| m.peer).collect();
            if !batch.is_empty() {
                for peer in members {
                    self.queue_up(peer, now, |put| batch.for_member(peer, put));
                }
            }
            for net in &batch.vacant {
                self.try_forget(family, *net);
            }
        }
        self.finish_members(i, now);
    }

    fn queue_up(&mut self, id: PeerId, now: Instant, fill: impl FnOnce(&mut dyn FnMut(Bytes))) {
        let Some(side) = self.session_side(id) else {
            return;
        };
        if let Some(peer) = self.peer_mut(id) {
            let conn = peer.conn_mut(side);
            fill(&mut |octets| conn.push(octets));
        }
        self.tell_queue(id, side, now);
    }

    fn session_side(&self, id: PeerId) -> Option<Side> {
        self.peer(id)?.session.as_ref().map(|s| s.side)
    }

    /// Everything has been told: the marks that members wait for follow.
    fn finish_members(&mut self, i: usize, now: Instant) {
        let group = &mut self.out.groups[i];
        group.started = true;
        group.settled();
        let family = group.key.family;
        let mut waiting: SmallVec<[Member; 4]> = SmallVec::new();
        for m in &mut group.members {
            if m.end_of_rib || m.end_of_refresh {
                waiting.push(*m);
                m.end_of_rib = false;
                m.end_of_refresh = false;
            }
        }
        for m in waiting {
            let mut octets = Vec::new();
            if m.end_of_rib {
                wire::write_end_of_rib(family, &mut octets);
            }
            if m.end_of_refresh {
                wire::write_refresh(mark(family, RefreshSubtype::End), &mut octets);
            }
            self.queue_up(m.peer, now, |put| put(octets.into()));
        }
    }

    /// Groups that have told all there is to the same kind of peers have told the same.
    fn merge_groups(&mut self) {
        let mut i = 0;
        while i < self.out.groups.len() {
            let groups = &mut self.out.groups;
            let settled = |g: &Group| g.started && g.is_settled();
            if !groups[i].seeks || !settled(&groups[i]) {
                i += 1;
                continue;
            }
            let twin = (0..groups.len()).find(|&j| j != i && groups[j].key == groups[i].key);
            match twin {
                Some(j) if settled(&groups[j]) => {
                    let (keep, gone) = (i.min(j), i.max(j));
                    let gone = groups.swap_remove(gone);
                    groups[keep].members.extend(&gone.members);
                    groups[keep].seeks = true;
                    gone.dissolve(&mut self.rib);
                    i = 0;
                }
                // It will be found when it has settled too.
                Some(_) => i += 1,
                None => {
                    groups[i].seeks = false;
                    i += 1;
                }
            }
        }
    }

    /// Puts a peer whose session has come up into the groups that tell it.
    pub(super) fn join_groups(&mut self, id: PeerId) {
        let member = Member {
            peer: id,
            end_of_rib: true,
            end_of_refresh: false,
        };
        for family in Family::BOTH {
            let Some(key) = self.export_key(id, family) else {
                continue;
            };
            let fresh = |g: &&mut Group| !g.started && g.key == key;
            match self.out.groups.iter_mut().find(fresh) {
                Some(group) => group.members.push(member),
                None => {
                    let mut group = Group::new(key, self.rib.tables[family].end());
                    group.members.push(member);
                    self.out.groups.push(group);
                }
            }
        }
    }

    /// Takes a peer out of its groups.
    pub(super) fn leave_groups(&mut self, id: PeerId) {
        let mut i = 0;
        while i < self.out.groups.len() {
            let group = &mut self.out.groups[i];
            group.members.retain(|m| m.peer != id);
            if !group.members.is_empty() {
                i += 1;
                continue;
            }
            let gone = self.out.groups.swap_remove(i);
            let family = gone.key.family;
            gone.dissolve(&mut self.rib);
            self.sweep(family, Job::Forget);
        }
    }

    /// Splits a peer off its group and tells it everything anew, by the key that holds now.
    pub(super) fn tell_anew(&mut self, id: PeerId, family: Family) {
        let Some(key) = self.export_key(id, family) else {
            return;
        };
        let groups = &mut self.out.groups;
        let Some(i) = groups
            .iter()
            .position(|g| g.key.family == family && g.members.iter().any(|m| m.peer == id))
        else {
            return;
        };
        if groups[i].members.len() > 1 {
            let alone = groups[i].split(&mut self.rib, |m| m.peer == id);
            groups.push(alone);
        }
        let at = if groups[i].members.iter().any(|m| m.peer == id) {
            i
        } else {
            groups.len() - 1
        };
        groups[at].key = key;
        groups[at].retell(self.rib.tables[family].end());
    }

    /// The peer wants everything again (RFC 2918, RFC 7313).
    pub(super) fn tell_again(&mut self, id: PeerId, family: Family, now: Instant) {
        self.tell_anew(id, family);
        let enhanced = self
            .peer(id)
            .and_then(|p| p.session.as_ref())
            .is_some_and(|s| s.negotiated.enhanced_refresh);
        if !enhanced {
            return;
        }
        let mut octets = Vec::new();
        wire::write_refresh(mark(family, RefreshSubtype::Begin), &mut octets);
        self.queue_up(id, now, |put| put(octets.into()));
        for g in &mut self.out.groups {
            for m in &mut g.members {
                if g.key.family == family && m.peer == id {
                    m.end_of_refresh = true;
                }
            }
        }
    }

    /// Asks a peer for all of its routes again (RFC 2918); `false` when it cannot.
    pub fn request_refresh(&mut self, id: PeerId, family: Family, now: Instant) -> bool {
        let session = self.peer(id).and_then(|p| p.session.as_ref());
        let can =
            session.is_some_and(|s| s.negotiated.route_refresh && s.negotiated.carries(family));
        if can {
            let mut octets = Vec::new();
            wire::write_refresh(mark(family, RefreshSubtype::Request), &mut octets);
            self.queue_up(id, now, |put| put(octets.into()));
        }
        can
    }

    /// All that the export to a peer depends on; `None` when it does not carry the family.
    pub(super) fn export_key(&self, id: PeerId, family: Family) -> Option<ExportKey> {
        let peer = self.peer(id)?;
        let session = peer.session.as_ref()?;
        let agreed = &session.negotiated;
        if !agreed.carries(family) {
            return None;
        }
        let config = &peer.config;
        let outside = session.kind != PeerKind::Internal;
        let mut encoding = agreed.encoding;
        let several = encoding.add_path[family];
        encoding.add_path = PerFamily::default();
        encoding.add_path[family] = several;
        Some(ExportKey {
            family,
            encoding,
            kind: session.kind,
            client: config.client && !outside,
            our_asn: config.our_asn(self.config.asn),
            next_hop: config.next_hop,
            own: own_address(peer, family, encoding.v4_over_v6),
            link: config.link.and_then(|len| Cidr::new(config.addr, len)),
            policy: config.export.clone(),
            role: config.role.filter(|_| outside),
            long_lived: agreed
                .long_lived
                .iter()
                .any(|l| l.family == AfiSafi::unicast(family)),
            paths: if several {
                config.add_path_send
            } else {
                AddPathSend::No
            },
        })
    }

    /// A refresh that we asked for, or that the peer began by itself, begins.
    pub(super) fn refresh_begins(&mut self, id: PeerId, family: Family, now: Instant) {
        // What comes next may follow at once: it is not to be marked, so all is before.
        self.sweep_through(id);
        let sources = &self.rib.sources;
        let table = &mut self.rib.tables[family];
        for i in 0..table.end() {
            table.set_flags(NetId(i), |p| match sources.get(p.source).peer == id {
                true => p.flags.with(PathFlags::UNCONFIRMED),
                false => p.flags,
            });
        }
        if let Some(peer) = self.peer_mut(id) {
            let patience = peer
                .config
                .restart
                .as_ref()
                .map_or(Duration::from_secs(360), |r| r.stale_time);
            peer.stale[family].refresh_until = Some(now + patience);
        }
    }

    /// What the refresh has not brought is gone.
    pub(super) fn refresh_ends(&mut self, id: PeerId, family: Family) {
        let Some(peer) = self.peer_mut(id) else {
            return;
        };
        if peer.stale[family].refresh_until.take().is_some() {
            self.purge(id, family, Which::Unconfirmed);
        }
    }

    pub(super) fn tell_restarted(&mut self, family: Family) {
        self.event(Event::Restarted { family });
    }
}

/// How long a peer may take nothing before the session ends (RFC 9687, section 5): twice
/// the hold time, and eight minutes at least.
pub(super) fn send_hold_time(conn: &Conn) -> Duration {
    let hold = conn.negotiated.as_ref().map_or(0, |n| n.hold_time);
    Duration::from_secs((2 * u64::from(hold)).max(480))
}

/// Ourselves as a next hop for a peer.
fn own_address(peer: &Peer, family: Family, v4_over_v6: bool) -> Option<NextHop> {
    let local = peer.session.as_ref()?.local;
    let fits = |a: IpAddr| Family::of(a) == family || family == Family::V4 && v4_over_v6;
    peer.config.own_address[family]
        .or(Some(local))
        .filter(|&a| fits(a))
        .map(NextHop::from)
}

fn queue(peers: &[Option<Box<Peer>>], id: PeerId) -> Option<usize> {
    let peer = peers.get(id.index())?.as_deref()?;
    let side = peer.session.as_ref()?.side;
    Some(peer.conn(side).queued)
}

const fn mark(family: Family, subtype: RefreshSubtype) -> RouteRefresh {
    RouteRefresh {
        family: AfiSafi::unicast(family),
        subtype,
    }
}
