//! Update groups.
//!
//! Promises: what the members were told is held once for all of them; a batch of changes is
//! encoded once and cut for each member only where it is the source of a route. Never:
//! encodes while a member's queue is full; the router splits who is slow off.

use super::rules::{Blocked, ExportKey, Reader};
use crate::peer::AddPathSend;
use crate::policy::{Answer, Verdict};
use crate::rib::{AttrId, Bits, NetId, Path, PathFlags, PeerId, Rib, SourceId};
use crate::types::{ClusterId, Nlri, PathId};
use crate::wire::{AttributeBlock, write_withdrawals};
use bytes::Bytes;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use std::time::Instant;

/// The most prefixes of one batch.
const BATCH: usize = 8192;

/// A peer within a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// The peer.
    pub peer: PeerId,
    /// It waits for End-of-RIB.
    pub end_of_rib: bool,
    /// It waits for the end of a refresh (RFC 7313).
    pub end_of_refresh: bool,
}

/// Peers that are told the same.
#[derive(Debug)]
pub struct Group {
    /// What makes them equal.
    pub key: ExportKey,
    /// The peers.
    pub members: Vec<Member>,
    /// Prefixes that have to be looked at.
    pub dirty: Bits,
    /// It has begun to tell, so nobody who was told nothing can join.
    pub started: bool,
    /// Since when some member's queue is full.
    pub blocked_since: Option<Instant>,
    /// Another group may be told the same, and has not been looked for since this one was
    /// made or changed.
    pub seeks: bool,
    /// Paths that have not changed are to be told too.
    again: bool,
    told: Told,
}

/// What the members were told of each prefix.
#[derive(Debug, Clone)]
enum Told {
    /// One path: its source's number plus one, in pages; 0 is nothing.
    One(Vec<Option<Box<Page>>>),
    /// Several.
    Many(FxHashMap<u32, SmallVec<[ToldPath; 2]>>),
}

const PAGE: usize = 4096;

type Page = [u16; PAGE];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ToldPath {
    source: SourceId,
    peer: PeerId,
    attributes: AttrId,
}

/// Who of a group gets a part of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// All but this one, which may be no member.
    Except(PeerId),
    /// This one alone, if it is a member.
    Only(PeerId),
}

/// Encoded messages for a group, and who gets which.
#[derive(Debug, Default)]
pub struct Batch {
    octets: Bytes,
    /// Where each part ends, and whom it is for.
    parts: Vec<(usize, Audience)>,
    /// Prefixes that nobody may know any more.
    pub vacant: Vec<NetId>,
    /// Whether anything was looked at.
    pub busy: bool,
}

impl Batch {
    /// What one member gets, as few pieces as can be.
    pub fn for_member(&self, peer: PeerId, mut put: impl FnMut(Bytes)) {
        let mut from = 0;
        let mut open = None;
        for &(end, audience) in &self.parts {
            let gets = match audience {
                Audience::Except(p) => p != peer,
                Audience::Only(p) => p == peer,
            };
            match (gets, open) {
                (true, None) => open = Some(from),
                (false, Some(start)) => {
                    put(self.octets.slice(start..from));
                    open = None;
                }
                _ => {}
            }
            from = end;
        }
        if let Some(start) = open {
            put(self.octets.slice(start..from));
        }
    }

    /// Whether there is nothing for anybody.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }
}

/// Changes of one batch, before they are written.
#[derive(Default)]
struct Changes {
    /// Whom not to tell, and what is gone.
    gone: Vec<(Audience, u32, PathId)>,
    /// Which outcome, its source, and what is announced.
    news: Vec<(u32, PeerId, u32, PathId)>,
    outcomes: Vec<Option<AttributeBlock>>,
    by_route: FxHashMap<(AttrId, PeerId, bool), u32>,
    by_answer: FxHashMap<(AttrId, PeerId, bool, Answer), u32>,
}

impl Group {
    /// A group without members that has told nothing. All prefixes below `end` are looked at.
    pub fn new(key: ExportKey, end: u32) -> Self {
        let mut dirty = Bits::default();
        dirty.fill(end);
        let told = match key.paths {
            AddPathSend::No => Told::One(Vec::new()),
            AddPathSend::Best(_) | AddPathSend::All => Told::Many(FxHashMap::default()),
        };
        Self {
            key,
            members: Vec::new(),
            dirty,
            started: false,
            blocked_since: None,
            seeks: true,
            again: false,
            told,
        }
    }

    /// A group of the same state with these members, who leave this one.
    pub fn split(&mut self, rib: &mut Rib, leave: impl Fn(&Member) -> bool) -> Self {
        let (gone, stay) = self.members.iter().partition(|m| leave(m));
        self.members = stay;
        if let Told::Many(all) = &self.told {
            for t in all.values().flatten() {
                rib.attributes.retain(t.attributes);
            }
        }
        Self {
            key: self.key.clone(),
            members: gone,
            dirty: self.dirty.clone(),
            started: true,
            blocked_since: None,
            seeks: true,
            again: self.again,
            told: self.told.clone(),
        }
    }

    /// Everything that was told or is there is to be told again; it is below `end`.
    pub fn retell(&mut self, end: u32) {
        self.dirty.fill(end);
        self.again = true;
        self.seeks = true;
    }

    /// Everything has been told.
    pub fn settled(&mut self) {
        self.again = false;
    }

    /// Lets go of what it holds in the tables, at its end.
    pub fn dissolve(self, rib: &mut Rib) {
        if let Told::Many(all) = self.told {
            for t in all.into_values().flatten() {
                rib.attributes.release(t.attributes);
            }
        }
    }

    /// The octets that it holds.
    pub fn heap_size(&self) -> usize {
        self.dirty.heap_size()
            + match &self.told {
                Told::One(pages) => {
                    pages.capacity() * size_of::<usize>()
                        + pages.iter().flatten().count() * size_of::<Page>()
                }
                Told::Many(all) => {
                    all.capacity() * (size_of::<(u32, SmallVec<[ToldPath; 2]>)>() + 1)
                }
            }
    }

    /// Whether all that is to be told has been.
    pub fn is_settled(&self) -> bool {
        self.dirty.is_empty()
    }

    /// Whether members were told of the prefix and not yet of its end.
    pub fn knows(&self, net: NetId) -> bool {
        self.dirty.contains(net.0)
            || match &self.told {
                Told::One(pages) => one(pages, net.0) != 0,
                Told::Many(all) => all.contains_key(&net.0),
            }
    }

    /// Whether the peer was told of the prefix, as far as messages were written.
    pub fn has_told(&self, net: NetId, peer: PeerId) -> bool {
        match &self.told {
            Told::One(pages) => {
                let source = one(pages, net.0);
                source != 0 && source - 1 != peer.0
            }
            Told::Many(all) => all
                .get(&net.0)
                .is_some_and(|t| t.iter().any(|t| t.peer != peer)),
        }
    }

    /// Looks at the next prefixes and writes what the members have to know.
    pub fn produce(&mut self, rib: &mut Rib, cluster: ClusterId) -> Batch {
        self.started = true;
        let mut nets: Vec<u32> = Vec::with_capacity(self.dirty.len().min(BATCH));
        let mut from = 0;
        while nets.len() < BATCH {
            let Some(n) = self.dirty.next(from) else {
                break;
            };
            self.dirty.remove(n);
            nets.push(n);
            from = n + 1;
        }
        let mut changes = Changes::default();
        let mut batch = Batch {
            busy: !nets.is_empty(),
            ..Batch::default()
        };
        let by_prefix = self.key.policy.reads_prefix();
        for &n in &nets {
            let net = NetId(n);
            match &mut self.told {
                Told::One(pages) => {
                    let reader = Reader {
                        rib,
                        key: &self.key,
                        cluster,
                    };
                    look_at_one(&reader, pages, net, by_prefix, &mut changes);
                }
                Told::Many(all) => {
                    let again = self.again;
                    let group = (&self.key, cluster, again);
                    look_at_many(rib, group, all, net, by_prefix, &mut changes);
                }
            }
            if rib.tables[self.key.family].is_vacant(net) {
                batch.vacant.push(net);
            }
        }
        self.write(rib, changes, &mut batch);
        batch
    }

    fn write(&self, rib: &Rib, mut changes: Changes, batch: &mut Batch) {
        let family = self.key.family;
        let table = &rib.tables[family];
        let mut out = Vec::new();
        let nlri = |net: u32, path_id| Nlri {
            prefix: table.prefix(NetId(net)),
            path_id,
        };
        changes.gone.sort_by_key(|(audience, ..)| match audience {
            Audience::Except(p) => (0, p.0),
            Audience::Only(p) => (1, p.0),
        });
        for run in changes.gone.chunk_by(|a, b| a.0 == b.0) {
            let routes = run.iter().map(|&(_, net, id)| nlri(net, id));
            write_withdrawals(family, &self.key.encoding, routes, &mut out);
            batch.parts.push((out.len(), run[0].0));
        }
        changes
            .news
            .sort_by_key(|&(outcome, source, ..)| (outcome, source));
        for run in changes.news.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
            let (outcome, source, ..) = run[0];
            if let Some(block) = &changes.outcomes[outcome as usize] {
                block.write_all(run.iter().map(|&(_, _, net, id)| nlri(net, id)), &mut out);
                batch.parts.push((out.len(), Audience::Except(source)));
            }
        }
        batch.octets = out.into();
    }
}

#[inline]
fn one(pages: &[Option<Box<Page>>], net: u32) -> u16 {
    match pages.get(net as usize / PAGE) {
        Some(Some(page)) => page[net as usize % PAGE],
        _ => 0,
    }
}

fn set_one(pages: &mut Vec<Option<Box<Page>>>, net: u32, source: u16) {
    let at = net as usize / PAGE;
    if at >= pages.len() {
        if source == 0 {
            return;
        }
        pages.resize_with(at + 1, || None);
    }
    let page = match &mut pages[at] {
        Some(page) => page,
        None if source == 0 => return,
        empty => empty.insert(Box::new([0; PAGE])),
    };
    page[net as usize % PAGE] = source;
}

fn look_at_one(
    reader: &Reader<'_>,
    pages: &mut Vec<Option<Box<Page>>>,
    net: NetId,
    by_prefix: bool,
    changes: &mut Changes,
) {
    let before = one(pages, net.0);
    let best = reader.rib.tables[reader.key.family].best(net);
    let route = best.and_then(|p| changes.outcome(reader, net, p, by_prefix));
    match route {
        Some((outcome, source)) => {
            changes.news.push((outcome, source, net.0, PathId::NONE));
            // Who is the source now was told the route of the source before.
            if before != 0 && before - 1 != source.0 {
                let only = Audience::Only(source);
                changes.gone.push((only, net.0, PathId::NONE));
            }
            set_one(pages, net.0, source.0 + 1);
        }
        None if before != 0 => {
            let but = Audience::Except(PeerId(before - 1));
            changes.gone.push((but, net.0, PathId::NONE));
            set_one(pages, net.0, 0);
        }
        None => {}
    }
}

fn look_at_many(
    rib: &mut Rib,
    (key, cluster, again): (&ExportKey, ClusterId, bool),
    all: &mut FxHashMap<u32, SmallVec<[ToldPath; 2]>>,
    net: NetId,
    by_prefix: bool,
    changes: &mut Changes,
) {
    let max = match key.paths {
        AddPathSend::Best(n) => usize::from(n),
        AddPathSend::All | AddPathSend::No => usize::MAX,
    };
    let mut before = all.remove(&net.0).unwrap_or_default();
    let mut after = SmallVec::new();
    for path in rib.ranked(key.family, net, max) {
        let reader = Reader { rib, key, cluster };
        let Some((outcome, peer)) = changes.outcome(&reader, net, path, by_prefix) else {
            continue;
        };
        let told = ToldPath {
            source: path.source,
            peer,
            attributes: path.attributes,
        };
        let id = PathId(path.source.0 + 1);
        let known = before.iter().position(|t| t.source == path.source);
        // One source's number may have gone to another peer since.
        let same = known.map(|i| before.swap_remove(i));
        rib.attributes.retain(path.attributes);
        if again || same != Some(told) {
            changes.news.push((outcome, peer, net.0, id));
        }
        if let Some(old) = same {
            if old.peer != peer {
                changes.gone.push((Audience::Only(peer), net.0, id));
            }
            rib.attributes.release(old.attributes);
        }
        after.push(told);
    }
    for old in before {
        let id = PathId(old.source.0 + 1);
        changes.gone.push((Audience::Except(old.peer), net.0, id));
        rib.attributes.release(old.attributes);
    }
    if !after.is_empty() {
        all.insert(net.0, after);
    }
}

impl Changes {
    /// The number of the attributes that a path is told with, and its source; `None` when
    /// it is not told.
    #[inline]
    fn outcome(
        &mut self,
        reader: &Reader<'_>,
        net: NetId,
        path: Path,
        by_prefix: bool,
    ) -> Option<(u32, PeerId)> {
        let source = reader.rib.sources.get(path.source).peer;
        let route = (
            path.attributes,
            source,
            path.flags.has(PathFlags::LONG_STALE),
        );
        if let (false, Some(&known)) = (by_prefix, self.by_route.get(&route)) {
            return self.outcomes[known as usize]
                .is_some()
                .then_some((known, source));
        }
        let prefix = reader.rib.tables[reader.key.family].prefix(net);
        let answer = reader.ask(prefix, path);
        if answer.verdict == Verdict::Reject && by_prefix {
            return None;
        }
        let (a, s, l) = route;
        let outcomes = &mut self.outcomes;
        let known = *self
            .by_answer
            .entry((a, s, l, answer.clone()))
            .or_insert_with(|| {
                outcomes.push(encode(reader, path, &answer).ok());
                u32::try_from(outcomes.len() - 1).expect("no more than a batch")
            });
        if !by_prefix {
            self.by_route.insert(route, known);
        }
        self.outcomes[known as usize]
            .is_some()
            .then_some((known, source))
    }
}

fn encode(reader: &Reader<'_>, path: Path, answer: &Answer) -> Result<AttributeBlock, Blocked> {
    reader.may(path)?;
    let attributes = reader.attributes(path, answer)?;
    let key = reader.key;
    Ok(AttributeBlock::new(key.family, &attributes, &key.encoding)?)
}
