//! What others may watch: sessions, what peers announce before and after policy, what is used.
//!
//! Promises: what a watcher has still to be told is a mark for each path, never a message, and the
//! marks are bounded; whoever comes late is told the tables as they are then, in pieces of the
//! size that it asks for. Never: encodes, or holds anything up for a watcher.

use super::{ConnId, Router};
use crate::attr::Attributes;
use crate::error::Notification;
use crate::fsm::{Event as Fsm, Side};
use crate::rib::{AttrId, NetId, PeerId, Rib, Source};
use crate::types::{Nlri, PathId, PerFamily, RouterId};
use crate::wire;
use bytes::Bytes;
use net::{Asn, Cidr, Family};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

/// So many paths may wait to be told before a watcher is given up.
const MARKS: usize = 1 << 21;

/// Names a watcher, for the life of the router.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MonitorId(u64);

/// Whose routes are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watched {
    /// The peer; [`PeerId::LOCAL`] is ourselves, for the routes in use.
    pub peer: PeerId,
    /// Its address; `0.0.0.0` is ourselves.
    pub addr: IpAddr,
    /// Its AS.
    pub asn: Asn,
    /// Its identifier in this session.
    pub router_id: RouterId,
}

/// Which routes are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// As the peer sent them.
    Received,
    /// After the import policy, without those that it refuses.
    Accepted,
    /// In use.
    Used,
}

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// We sent this NOTIFICATION, a whole message.
    Sent(Bytes),
    /// The peer sent this NOTIFICATION, a whole message.
    Received(Bytes),
    /// By an event of ours without a NOTIFICATION.
    Silent,
    /// The connection was lost.
    Lost,
    /// The peer is no longer configured.
    Removed,
}

/// What a watcher is told.
#[derive(Debug)]
pub enum Told<'a> {
    /// A session is up; its routes follow.
    Up {
        /// Of whom.
        who: Watched,
        /// Its connection.
        conn: ConnId,
        /// Our address.
        local: IpAddr,
        /// Our OPEN, a whole message.
        sent: &'a Bytes,
        /// Its OPEN, a whole message.
        received: &'a Bytes,
    },
    /// A session is over: none of its routes is there any more.
    Down {
        /// Of whom.
        who: Watched,
        /// How.
        how: &'a Ended,
    },
    /// Routes that share their attributes.
    Routes {
        /// Whose.
        who: Watched,
        /// Which of them.
        stage: Stage,
        /// What they carry; `None`: they are gone, if they ever were there.
        attributes: Option<&'a Attributes>,
        /// To where; all of one family.
        nlri: &'a [Nlri],
        /// Whether the path ids mean something.
        add_path: bool,
    },
    /// All routes of the family that were there at first have been told.
    EndOfRib {
        /// Whose.
        who: Watched,
        /// Which.
        family: Family,
    },
}

/// How much there is still to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// Nothing, for now.
    Nothing,
    /// Some.
    Some,
    /// More than is kept: the watcher has to be let go, and may begin anew.
    TooMuch,
}

/// How far the first telling of a peer's routes is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Walk {
    /// It has not begun.
    #[default]
    Due,
    /// What is before the place of the walk has been told.
    Under,
    /// All has been told.
    Done,
}

/// A session that the watcher knows of.
#[derive(Debug, Clone, Copy)]
struct Known {
    who: Watched,
    serial: u64,
    add_path: PerFamily<bool>,
    walk: PerFamily<Walk>,
}

/// A path that has changed: prefix, peer, path id.
type Mark = (u32, u16, u32);

/// What there is to tell of one family.
#[derive(Debug, Default)]
struct Pending {
    marks: BTreeSet<Mark>,
    /// Marks before this one wait for the next pass.
    from: Mark,
    passes: u64,
    /// Where the walk is, while one is under way.
    walk: Option<u32>,
    /// Some peer's routes are due for a walk.
    due: bool,
    /// Whose end is to be told once the passes are beyond this.
    ends: Vec<(PeerId, u64)>,
}

/// One watcher.
#[derive(Debug)]
pub(super) struct Monitor {
    id: MonitorId,
    /// What it knows, by [`PeerId::index`].
    known: Vec<Option<Known>>,
    /// Peers whose session may be another than it knows.
    unsettled: BTreeSet<PeerId>,
    pending: PerFamily<Pending>,
    /// Nothing is noted for it any more.
    over: bool,
}

impl Monitor {
    fn known(&self, peer: PeerId) -> Option<&Known> {
        self.known.get(peer.index())?.as_ref()
    }

    fn left(&self) -> Left {
        let busy =
            |p: &Pending| !p.marks.is_empty() || p.walk.is_some() || p.due || !p.ends.is_empty();
        if self.over {
            Left::TooMuch
        } else if !self.unsettled.is_empty() || busy(&self.pending.v4) || busy(&self.pending.v6) {
            Left::Some
        } else {
            Left::Nothing
        }
    }

    /// A path has changed.
    pub(super) fn mark(&mut self, family: Family, net: NetId, peer: PeerId, path: PathId) {
        let Some(known) = self.known(peer).filter(|_| !self.over) else {
            return;
        };
        let told = match known.walk[family] {
            Walk::Due => false,
            Walk::Under => self.pending[family].walk.is_none_or(|at| net.0 < at),
            Walk::Done => true,
        };
        if told {
            self.pending[family].marks.insert((net.0, peer.0, path.0));
            self.over = self.pending.v4.marks.len() + self.pending.v6.marks.len() > MARKS;
        }
    }

    /// A session came up or went down.
    pub(super) fn unsettle(&mut self, peer: PeerId) {
        self.unsettled.insert(peer);
    }

    /// The peer has sent all of its initial routes.
    pub(super) fn complete(&mut self, family: Family, peer: PeerId) {
        if self
            .known(peer)
            .is_some_and(|k| k.walk[family] == Walk::Done)
        {
            let p = &mut self.pending[family];
            // What is marked now is told by the end of the pass after this one.
            p.ends.push((peer, p.passes + 1));
        }
    }

    /// Whether it has to be told of the prefix.
    pub(super) fn knows(&self, family: Family, net: NetId) -> bool {
        let of_net = (net.0, 0, 0)..=(net.0, u16::MAX, u32::MAX);
        self.pending[family].marks.range(of_net).next().is_some()
    }

    /// The next marks, at most so many, in the order of prefixes from where it was left.
    fn take_marks(&mut self, family: Family, most: usize) -> Vec<Mark> {
        let p = &mut self.pending[family];
        let taken: Vec<Mark> = p.marks.range(p.from..).take(most).copied().collect();
        for mark in &taken {
            p.marks.remove(mark);
        }
        match taken.last() {
            Some(&last) if taken.len() == most => p.from = last,
            _ => {
                p.from = Mark::default();
                p.passes += 1;
                if p.marks.is_empty() {
                    p.passes += 1;
                }
            }
        }
        taken
    }

    /// Those whose end can be told now.
    fn take_ends(&mut self, family: Family) -> Vec<Watched> {
        let p = &mut self.pending[family];
        let passes = p.passes;
        let ripe: Vec<PeerId> = p
            .ends
            .extract_if(.., |(_, at)| *at < passes)
            .map(|e| e.0)
            .collect();
        ripe.into_iter()
            .filter_map(|peer| Some(self.known(peer)?.who))
            .collect()
    }
}

/// One path to tell.
struct Entry {
    peer: PeerId,
    stage: Stage,
    attributes: Option<AttrId>,
    nlri: Nlri,
}

/// Reads paths out of the tables.
struct Reader<'a> {
    rib: &'a Rib,
    family: Family,
    out: Vec<Entry>,
}

impl Reader<'_> {
    fn push(
        &mut self,
        peer: PeerId,
        stage: Stage,
        prefix: Cidr,
        path_id: PathId,
        a: Option<AttrId>,
    ) {
        self.out.push(Entry {
            peer,
            stage,
            attributes: a,
            nlri: Nlri { prefix, path_id },
        });
    }

    /// What became of a path that is marked.
    fn marked(&mut self, (net, peer, path_id): Mark) {
        let (net, peer, path_id) = (NetId(net), PeerId(peer), PathId(path_id));
        let rib = self.rib;
        let table = &rib.tables[self.family];
        let prefix = table.prefix(net);
        if peer == PeerId::LOCAL {
            let best = table.best(net).map(|p| p.attributes);
            return self.push(peer, Stage::Used, prefix, PathId::NONE, best);
        }
        let source = rib.sources.find(Source { peer, path_id });
        let path = source.and_then(|s| table.get(net, s));
        let received = path.map(|p| {
            let set = rib.attributes.get(p.attributes);
            set.meta.received.unwrap_or(p.attributes)
        });
        let accepted = path.filter(|p| p.is_candidate()).map(|p| p.attributes);
        self.push(peer, Stage::Received, prefix, path_id, received);
        self.push(peer, Stage::Accepted, prefix, path_id, accepted);
    }

    /// All paths to a prefix of peers that `wants` picks.
    fn all(&mut self, net: NetId, wants: impl Fn(PeerId) -> bool) {
        let rib = self.rib;
        let table = &rib.tables[self.family];
        let mut paths = table.paths(net).peekable();
        if paths.peek().is_none() {
            return;
        }
        let prefix = table.prefix(net);
        if let (true, Some(best)) = (wants(PeerId::LOCAL), table.best(net)) {
            let best = Some(best.attributes);
            self.push(PeerId::LOCAL, Stage::Used, prefix, PathId::NONE, best);
        }
        for path in paths {
            let Source { peer, path_id } = rib.sources.get(path.source);
            if peer == PeerId::LOCAL || !wants(peer) {
                continue;
            }
            let set = rib.attributes.get(path.attributes);
            let received = Some(set.meta.received.unwrap_or(path.attributes));
            self.push(peer, Stage::Received, prefix, path_id, received);
            if path.is_candidate() {
                self.push(
                    peer,
                    Stage::Accepted,
                    prefix,
                    path_id,
                    Some(path.attributes),
                );
            }
        }
    }

    /// Tells what was read, as few times as it can be.
    fn tell(mut self, known: &[Option<Known>], tell: &mut impl FnMut(Told<'_>)) {
        let key = |e: &Entry| (e.peer, e.stage, e.attributes);
        self.out.sort_by_key(key);
        let mut nlri = Vec::new();
        for run in self.out.chunk_by(|a, b| key(a) == key(b)) {
            let first = &run[0];
            let Some(of) = known.get(first.peer.index()).and_then(Option::as_ref) else {
                continue;
            };
            nlri.clear();
            nlri.extend(run.iter().map(|e| e.nlri));
            let set = first.attributes.map(|a| self.rib.attributes.get(a));
            tell(Told::Routes {
                who: of.who,
                stage: first.stage,
                attributes: set.map(|s| &s.attributes),
                nlri: &nlri,
                add_path: of.add_path[self.family],
            });
        }
    }
}

impl Router {
    /// Begins to watch: everything that is there is told first.
    pub fn monitor(&mut self) -> MonitorId {
        self.monitors_made += 1;
        let id = MonitorId(self.monitors_made);
        let own = Known {
            who: self.identity(),
            serial: 0,
            add_path: PerFamily::default(),
            walk: PerFamily::default(),
        };
        let mut pending = PerFamily::<Pending>::default();
        pending.v4.due = true;
        pending.v6.due = true;
        self.monitors.push(Monitor {
            id,
            known: vec![Some(own)],
            unsettled: self.peers.iter().flatten().map(|p| p.id).collect(),
            pending,
            over: false,
        });
        id
    }

    /// Ourselves, as whom the routes in use are told.
    pub fn identity(&self) -> Watched {
        Watched {
            peer: PeerId::LOCAL,
            addr: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            asn: self.config.asn,
            router_id: self.config.router_id,
        }
    }

    /// Lets a watcher go, with at most so many of its marks; `false`: it is gone.
    pub fn unmonitor(&mut self, id: MonitorId, most: usize) -> bool {
        let Some(at) = self.monitors.iter().position(|m| m.id == id) else {
            return false;
        };
        self.monitors[at].over = true;
        for family in Family::BOTH {
            self.monitors[at].pending[family].from = Mark::default();
            let gone = self.monitors[at].take_marks(family, most);
            self.let_go(family, &gone);
        }
        let left = |m: &Monitor| !(m.pending.v4.marks.is_empty() && m.pending.v6.marks.is_empty());
        let some = left(&self.monitors[at]);
        if !some {
            self.monitors.swap_remove(at);
        }
        some
    }

    /// Tells a watcher what is next: of sessions, of changes and of the first telling at most
    /// about `most` each.
    pub fn watch(&mut self, id: MonitorId, most: usize, mut tell: impl FnMut(Told<'_>)) -> Left {
        let Some(at) = self.monitors.iter().position(|m| m.id == id) else {
            return Left::TooMuch;
        };
        if self.monitors[at].left() != Left::Some {
            return self.monitors[at].left();
        }
        // Apart from the router, so that both can be used.
        let mut monitor = self.monitors.swap_remove(at);
        self.tell_sessions(&mut monitor, most, &mut tell);
        let mut told = [Vec::new(), Vec::new()];
        for (family, told) in Family::BOTH.into_iter().zip(&mut told) {
            *told = monitor.take_marks(family, most);
            let mut reader = Reader {
                rib: &self.rib,
                family,
                out: Vec::new(),
            };
            told.iter().for_each(|m| reader.marked(*m));
            reader.tell(&monitor.known, &mut tell);
            self.walk(&mut monitor, family, most, &mut tell);
            for who in monitor.take_ends(family) {
                tell(Told::EndOfRib { who, family });
            }
        }
        let left = monitor.left();
        self.monitors.push(monitor);
        for (family, told) in Family::BOTH.into_iter().zip(&told) {
            self.let_go(family, told);
        }
        left
    }

    /// Prefixes that only marks have kept are forgotten.
    fn let_go(&mut self, family: Family, marks: &[Mark]) {
        for run in marks.chunk_by(|a, b| a.0 == b.0) {
            self.try_forget(family, NetId(run[0].0));
        }
    }

    /// What a watcher is told of, and how many paths there are of each family.
    pub fn watched(
        &self,
        id: MonitorId,
    ) -> impl Iterator<Item = (Watched, PerFamily<u32>, u64)> + '_ {
        let monitor = self.monitors.iter().find(move |m| m.id == id);
        let known = monitor.into_iter().flat_map(|m| m.known.iter().flatten());
        known.filter_map(|k| {
            let peer = self.peer(k.who.peer)?;
            Some((k.who, peer.paths, peer.counters.treated_as_withdraw))
        })
    }

    /// How many prefixes have a route in use. Its cost is that of the table.
    pub fn used(&self, family: Family) -> usize {
        let table = &self.rib.tables[family];
        table
            .iter()
            .filter(|net| table.best(*net).is_some())
            .count()
    }

    /// Sessions that came or went since they were told.
    fn tell_sessions(&self, m: &mut Monitor, most: usize, tell: &mut impl FnMut(Told<'_>)) {
        for _ in 0..most {
            let Some(id) = m.unsettled.pop_first() else {
                return;
            };
            if id.index() >= m.known.len() {
                m.known.resize(id.index() + 1, None);
            }
            let peer = self.peer(id);
            let session = peer.and_then(|p| p.session.as_ref());
            let serial = session.map(|s| s.serial);
            let before = m.known[id.index()];
            if before.map(|k| k.serial) == serial {
                continue;
            }
            if let Some(k) = before {
                let ended = peer.and_then(|p| p.ended.as_ref());
                let how = ended.unwrap_or(&Ended::Removed);
                tell(Told::Down { who: k.who, how });
                m.known[id.index()] = None;
            }
            let (Some(peer), Some(session)) = (peer, session) else {
                continue;
            };
            let who = Watched {
                peer: id,
                addr: peer.config.addr,
                asn: session.negotiated.peer_asn,
                router_id: peer.router_id.unwrap_or(self.config.router_id),
            };
            let [sent, received] = &session.opens;
            tell(Told::Up {
                who,
                conn: peer.conn_id(session.side),
                local: session.local,
                sent,
                received,
            });
            m.known[id.index()] = Some(Known {
                who,
                serial: session.serial,
                add_path: session.negotiated.decoding.add_path,
                walk: PerFamily::default(),
            });
            for family in Family::BOTH {
                m.pending[family].due = true;
            }
        }
    }

    /// A piece of the first telling: of all peers together that it is due for, so that
    /// however many come, the table is gone through a few times only.
    fn walk(&self, m: &mut Monitor, family: Family, most: usize, tell: &mut impl FnMut(Told<'_>)) {
        if m.pending[family].walk.is_none() {
            if !m.pending[family].due {
                return;
            }
            self.begin_walk(m, family);
        }
        let Some(mut at) = m.pending[family].walk else {
            return;
        };
        let end = self.rib.tables[family].end();
        let known = &m.known;
        let under = |id: PeerId| {
            let known = known.get(id.index()).and_then(Option::as_ref);
            known.is_some_and(|k| k.walk[family] == Walk::Under)
        };
        let mut reader = Reader {
            rib: &self.rib,
            family,
            out: Vec::new(),
        };
        let mut looked = 0;
        // Absent prefixes cost next to nothing, many paths to one a lot.
        while at < end && looked < most * 4 && reader.out.len() < most {
            reader.all(NetId(at), under);
            at += 1;
            looked += 1;
        }
        reader.tell(&m.known, tell);
        m.pending[family].walk = Some(at);
        if at == end {
            m.pending[family].walk = None;
            self.walked(m, family, |w| w == Walk::Under);
        }
    }

    fn begin_walk(&self, m: &mut Monitor, family: Family) {
        m.pending[family].due = false;
        let mut some = false;
        for k in m.known.iter_mut().flatten() {
            let own = k.who.peer == PeerId::LOCAL;
            let paths = self.peer(k.who.peer).map_or(0, |p| p.paths[family]);
            if k.walk[family] == Walk::Due && (own || paths > 0) {
                k.walk[family] = Walk::Under;
                some = true;
            }
        }
        m.pending[family].walk = some.then_some(0);
        // Who has nothing is through with it.
        self.walked(m, family, |w| w == Walk::Due);
    }

    fn walked(&self, m: &mut Monitor, family: Family, which: impl Fn(Walk) -> bool) {
        let mut through = Vec::new();
        for k in m.known.iter_mut().flatten() {
            if which(k.walk[family]) {
                k.walk[family] = Walk::Done;
                through.push(k.who.peer);
            }
        }
        for id in through {
            let session = self.peer(id).and_then(|p| p.session.as_ref());
            let complete = session.is_none_or(|s| {
                // Who does not mark the end has no other than this.
                s.end_of_rib[family] || s.negotiated.graceful_restart.is_none()
            });
            let carried = session.is_none_or(|s| s.negotiated.carries(family));
            if complete && carried {
                m.complete(family, id);
            }
        }
    }

    /// Notes that a path has changed, for those who watch.
    #[inline]
    pub(super) fn watch_path(&mut self, family: Family, net: NetId, of: Source, best: bool) {
        for m in &mut self.monitors {
            if of.peer != PeerId::LOCAL {
                m.mark(family, net, of.peer, of.path_id);
            }
            if best {
                m.mark(family, net, PeerId::LOCAL, PathId::NONE);
            }
        }
    }

    /// Notes that the route in use has changed, for those who watch.
    #[inline]
    pub(super) fn watch_best(&mut self, family: Family, net: NetId) {
        for m in &mut self.monitors {
            m.mark(family, net, PeerId::LOCAL, PathId::NONE);
        }
    }

    /// Notes that a session came up or went down, for those who watch.
    pub(super) fn watch_session(&mut self, id: PeerId) {
        for m in &mut self.monitors {
            m.unsettle(id);
        }
    }

    /// Notes how a session ends that is about to.
    pub(super) fn note_end(
        &mut self,
        id: PeerId,
        side: Side,
        event: Fsm,
        given: Option<&Notification>,
    ) {
        let Some(peer) = self.peer_mut(id).filter(|p| p.session.is_some()) else {
            return;
        };
        let last = &peer.conn(side).last;
        let ended = match (event, given) {
            (Fsm::TcpFails, _) => Ended::Lost,
            (Fsm::Notification | Fsm::NotificationVersionError, Some(n)) => {
                let mut octets = Vec::new();
                wire::write_notification(n, &mut octets);
                Ended::Received(octets.into())
            }
            _ if !last.is_empty() => Ended::Sent(Bytes::copy_from_slice(last)),
            _ => Ended::Silent,
        };
        peer.ended = Some(ended);
        self.watch_session(id);
    }
}
