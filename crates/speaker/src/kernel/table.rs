//! Learned routes as they should be in the kernel and as they are there.
//!
//! Promises: pure; a route changes in place, and where its metric changes the new one is there before
//! the old one goes; a route whose next hop has lost its way stays until the router says what is best
//! now; what was there before a restart stays until it is told anew or its time is over.

use crate::hops::{Way, Ways, union};
use net::{Cidr, Family, PrefixMap};
use route::{Hop, Op, Proto, Route, Table as Number};
use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::SmallVec;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

/// The metric of routes to peers through a gateway that was configured; as BIRD gives its static
/// ones.
const STATIC_METRIC: u32 = 32;

/// Next hops of a learned route.
pub(crate) type NextHops = SmallVec<[IpAddr; 2]>;

/// What is best for a prefix now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub prefix: Cidr,
    /// Next hops and metric; `None`: nothing that was learned.
    pub want: Option<(NextHops, u32)>,
}

/// A set of next hops that routes share.
#[derive(Debug)]
struct Set {
    addresses: NextHops,
    hops: Arc<[Hop]>,
    users: u32,
}

#[derive(Debug, Default)]
struct Held {
    /// Set of next hops, and metric.
    want: Option<(u32, u32)>,
    /// Metric and hops in the kernel.
    has: Option<(u32, Arc<[Hop]>)>,
    /// It was there before us, and nobody has told it yet.
    adopted: bool,
    dirty: bool,
}

/// A next hop that is looked up.
#[derive(Debug, Default)]
struct Tracked {
    by_router: bool,
    by_statics: u32,
    way: Option<Way>,
}

/// What is to become of a prefix.
enum Target {
    Nothing,
    /// As it is, for now.
    Keep,
    Route(u32, Arc<[Hop]>),
}

/// The kernel's routes.
#[derive(Debug)]
pub(crate) struct Table {
    proto: Proto,
    pub ways: Ways,
    ours: PrefixMap<Held>,
    sets: Vec<Set>,
    free: Vec<u32>,
    by_addresses: FxHashMap<NextHops, u32>,
    tracked: BTreeMap<IpAddr, Tracked>,
    unsure: BTreeSet<IpAddr>,
    statics: BTreeMap<Cidr, u32>,
    refuse: Vec<Cidr>,
    dirty: VecDeque<Cidr>,
    strays: Vec<Route>,
    converged: [bool; 2],
}

fn at(family: Family) -> usize {
    usize::from(family == Family::V6)
}

impl Table {
    pub(crate) fn new(proto: Proto) -> Self {
        Self {
            proto,
            ways: Ways::default(),
            ours: PrefixMap::new(),
            sets: Vec::new(),
            free: Vec::new(),
            by_addresses: FxHashMap::default(),
            tracked: BTreeMap::new(),
            unsure: BTreeSet::new(),
            statics: BTreeMap::new(),
            refuse: Vec::new(),
            dirty: VecDeque::new(),
            strays: Vec::new(),
            converged: [false; 2],
        }
    }

    /// Whether routes of a family were there before us.
    pub(crate) fn adopted(&self, family: Family) -> bool {
        let of = |(c, h): (Cidr, &Held)| c.family() == family && h.adopted;
        self.ours.iter().any(of)
    }

    /// How many prefixes wait to be written.
    pub(crate) fn waiting(&self) -> usize {
        self.dirty.len() + self.strays.len()
    }

    /// Whether a route is one of ours.
    pub(crate) fn is_ours(&self, r: &Route) -> bool {
        r.proto == self.proto
    }

    fn mark(&mut self, prefix: Cidr) {
        if let Some(held) = self.ours.get_mut(prefix)
            && !held.dirty
        {
            held.dirty = true;
            self.dirty.push_back(prefix);
        }
    }

    fn held_mut(&mut self, prefix: Cidr) -> &mut Held {
        if self.ours.get(prefix).is_none() {
            self.ours.insert(prefix, Held::default());
        }
        self.ours.get_mut(prefix).expect("inserted if absent")
    }

    fn acquire(&mut self, addresses: NextHops) -> u32 {
        if let Some(&id) = self.by_addresses.get(&addresses) {
            self.sets[id as usize].users += 1;
            return id;
        }
        let set = Set {
            hops: self.hops_of(&addresses),
            addresses: addresses.clone(),
            users: 1,
        };
        let id = match self.free.pop() {
            Some(id) => {
                self.sets[id as usize] = set;
                id
            }
            None => {
                self.sets.push(set);
                u32::try_from(self.sets.len() - 1).expect("fewer sets than routes")
            }
        };
        self.by_addresses.insert(addresses, id);
        id
    }

    fn release(&mut self, id: u32) {
        let set = &mut self.sets[id as usize];
        set.users -= 1;
        if set.users == 0 {
            self.by_addresses.remove(&set.addresses);
            self.free.push(id);
        }
    }

    fn hops_of(&self, addresses: &[IpAddr]) -> Arc<[Hop]> {
        let ways = addresses.iter().filter_map(|a| self.tracked.get(a));
        let hops = ways.filter_map(|t| t.way.as_ref()).flat_map(|w| &w.hops);
        union(hops.copied()).as_slice().into()
    }

    /// The tracked next hops inside of a prefix may lead elsewhere now.
    pub(crate) fn doubt(&mut self, prefix: Cidr) {
        let inside = self.tracked.range(prefix.addr()..=prefix.last());
        self.unsure.extend(inside.map(|(a, _)| *a));
    }

    /// All tracked next hops may lead elsewhere now.
    pub(crate) fn doubt_all(&mut self) {
        self.unsure.extend(self.tracked.keys());
    }

    /// What the router says now.
    pub(crate) fn change(&mut self, change: Change) {
        let new = change
            .want
            .map(|(hops, metric)| (self.acquire(hops), metric));
        if new.is_none() && self.ours.get(change.prefix).is_none() {
            return;
        }
        let held = self.held_mut(change.prefix);
        let old = std::mem::replace(&mut held.want, new);
        held.adopted &= new.is_none();
        if let Some((id, _)) = old {
            self.release(id);
        }
        if old.map(|o| o.0) != new.map(|n| n.0) {
            self.doubt(change.prefix);
        }
        self.mark(change.prefix);
    }

    /// A next hop that the router uses, or uses no more.
    pub(crate) fn track(&mut self, addr: IpAddr, used: bool) {
        if addr.is_unspecified() {
            return;
        }
        self.tracked.entry(addr).or_default().by_router = used;
        self.tracked_changed(addr);
    }

    fn tracked_changed(&mut self, addr: IpAddr) {
        let used = |t: &Tracked| t.by_router || t.by_statics > 0;
        if self.tracked.get(&addr).is_some_and(used) {
            self.unsure.insert(addr);
        } else {
            self.tracked.remove(&addr);
            self.unsure.remove(&addr);
        }
    }

    /// Peers that are reached through a gateway that was configured.
    pub(crate) fn set_statics(&mut self, wanted: impl IntoIterator<Item = (IpAddr, IpAddr)>) {
        let old = std::mem::take(&mut self.statics);
        for (peer, gateway) in wanted {
            let prefix = Cidr::host(peer);
            self.tracked.entry(gateway).or_default().by_statics += 1;
            self.unsure.insert(gateway);
            let id = self.acquire(SmallVec::from_iter([gateway]));
            self.held_mut(prefix);
            if let Some(before) = self.statics.insert(prefix, id) {
                self.release(before);
            }
            self.mark(prefix);
            self.doubt(prefix);
        }
        for (prefix, id) in old {
            for a in self.sets[id as usize].addresses.clone() {
                if let Some(t) = self.tracked.get_mut(&a) {
                    t.by_statics = t.by_statics.saturating_sub(1);
                }
                self.tracked_changed(a);
            }
            self.release(id);
            self.mark(prefix);
            self.doubt(prefix);
        }
    }

    /// Prefixes inside of which nothing is written.
    pub(crate) fn set_refuse(&mut self, refuse: Vec<Cidr>) {
        if self.refuse == refuse {
            return;
        }
        let old = std::mem::replace(&mut self.refuse, refuse);
        let changed: Vec<_> = old.into_iter().chain(self.refuse.iter().copied()).collect();
        for range in changed {
            let inside: Vec<_> = self.ours.within(range).map(|(c, _)| c).collect();
            inside.into_iter().for_each(|c| self.mark(c));
            self.doubt(range);
        }
    }

    /// Peers have told all that they have: what is left of before goes.
    pub(crate) fn converge(&mut self, family: Family) {
        self.converged[at(family)] = true;
        let left: Vec<_> = self
            .ours
            .iter()
            .filter(|(c, h)| c.family() == family && h.adopted)
            .map(|(c, _)| c)
            .collect();
        for c in left {
            self.held_mut(c).adopted = false;
            self.mark(c);
        }
    }

    /// Nothing is spoken any more: no learned route is wanted.
    pub(crate) fn forget(&mut self) {
        let all: Vec<_> = self.ours.iter().map(|(c, _)| c).collect();
        for prefix in all {
            self.change(Change { prefix, want: None });
            self.held_mut(prefix).adopted = false;
            self.mark(prefix);
        }
        for (addr, _) in std::mem::take(&mut self.tracked) {
            self.unsure.remove(&addr);
        }
        self.set_statics([]);
    }

    /// Looks up what is unsure. Next hops whose way is another now, with that.
    pub(crate) fn settle(&mut self) -> Vec<(IpAddr, Option<Way>)> {
        let mut moved = Vec::new();
        for addr in std::mem::take(&mut self.unsure) {
            let way = self.resolve(addr);
            if let Some(t) = self.tracked.get_mut(&addr)
                && t.way != way
            {
                t.way.clone_from(&way);
                moved.push((addr, way));
            }
        }
        if !moved.is_empty() {
            let moved: FxHashSet<IpAddr> = moved.iter().map(|(a, _)| *a).collect();
            self.sets_moved(&moved);
        }
        moved
    }

    fn resolve(&self, addr: IpAddr) -> Option<Way> {
        let learned = |a: IpAddr| {
            self.ours
                .covering(Cidr::host(a))
                .filter(|(c, _)| !self.refused(*c))
                .filter_map(|(c, h)| {
                    let id = self.statics.get(&c).copied().or(h.want.map(|w| w.0))?;
                    Some((c, self.sets[id as usize].addresses.clone()))
                })
                .collect()
        };
        self.ways.resolve(addr, &learned)
    }

    fn sets_moved(&mut self, moved: &FxHashSet<IpAddr>) {
        let mut changed = FxHashSet::default();
        for id in 0..self.sets.len() {
            let set = &self.sets[id];
            if set.users == 0 || !set.addresses.iter().any(|a| moved.contains(a)) {
                continue;
            }
            let hops = self.hops_of(&set.addresses);
            if *hops != *set.hops {
                self.sets[id].hops = hops;
                changed.insert(id as u32);
            }
        }
        if changed.is_empty() {
            return;
        }
        let uses = |c: Cidr, h: &Held| {
            let by = |id: Option<u32>| id.is_some_and(|id| changed.contains(&id));
            by(h.want.map(|w| w.0)) || by(self.statics.get(&c).copied())
        };
        let hit: Vec<_> = self
            .ours
            .iter()
            .filter(|(c, h)| uses(*c, h))
            .map(|(c, _)| c)
            .collect();
        hit.into_iter().for_each(|c| self.mark(c));
    }

    fn refused(&self, prefix: Cidr) -> bool {
        self.refuse.iter().any(|r| r.covers(prefix))
    }

    fn target(&self, prefix: Cidr, held: &Held) -> Target {
        let (id, metric) = match (self.statics.get(&prefix), held.want) {
            (Some(id), _) => (*id, STATIC_METRIC),
            (None, Some(want)) if !self.refused(prefix) => want,
            (None, None) if held.adopted => return Target::Keep,
            _ => return Target::Nothing,
        };
        let hops = &self.sets[id as usize].hops;
        if hops.is_empty() {
            return Target::Keep;
        }
        Target::Route(metric, hops.clone())
    }

    fn route(&self, prefix: Cidr, metric: u32, hops: &[Hop]) -> Route {
        let mut hops = hops.iter().copied();
        let first = hops.next().unwrap_or(Hop {
            dev: None,
            gateway: None,
            onlink: false,
            weight: 1,
        });
        let mut r = Route::unicast(Number::MAIN, prefix, first, self.proto);
        r.hops.extend(hops);
        r.with_metric(metric)
    }

    /// Steps for up to `most` prefixes, as if they succeeded.
    pub(crate) fn steps(&mut self, most: usize) -> Vec<Op> {
        let mut ops = Vec::new();
        for _ in 0..most {
            let Some(prefix) = self.dirty.pop_front() else {
                break;
            };
            self.step(prefix, &mut ops);
        }
        let converged = self.converged;
        if converged.iter().any(|c| *c) {
            let gone = |r: &mut Route| converged[at(r.family())];
            ops.extend(self.strays.extract_if(.., gone).map(Op::Delete));
        }
        ops
    }

    fn step(&mut self, prefix: Cidr, ops: &mut Vec<Op>) {
        let Some(held) = self.ours.get(prefix) else {
            return;
        };
        let target = self.target(prefix, held);
        let old = held.has.clone();
        let gone =
            |(metric, hops): &(u32, Arc<[Hop]>)| Op::Delete(self.route(prefix, *metric, hops));
        let mut now = old.clone();
        match target {
            Target::Keep => {}
            Target::Nothing => {
                ops.extend(old.as_ref().map(gone));
                now = None;
            }
            Target::Route(metric, hops) => {
                let new = self.route(prefix, metric, &hops);
                match &old {
                    Some((m, h)) if *m == metric && **h == *hops => {}
                    Some((m, _)) if *m == metric && !self.ways.holds(prefix, metric) => {
                        ops.push(Op::Replace(new));
                    }
                    Some(o) if o.0 == metric => ops.extend([gone(o), Op::Add(new)]),
                    other => {
                        ops.push(Op::Add(new));
                        ops.extend(other.as_ref().map(gone));
                    }
                }
                now = Some((metric, hops));
            }
        }
        let idle = now.is_none() && held.want.is_none() && !self.statics.contains_key(&prefix);
        let held = self.held_mut(prefix);
        held.dirty = false;
        held.has = now;
        if idle {
            self.ours.remove(prefix);
        }
    }

    /// A step that did not succeed: what the kernel has is what it had, and it is to be tried again.
    pub(crate) fn failed(&mut self, op: &Op) -> Cidr {
        let r = op.route();
        let prefix = r.key.dst;
        let has = match op {
            Op::Delete(r) => Some((r.key.metric, r.hops.as_slice().into())),
            // A replacement that was refused: what was there is there, but not known any more.
            Op::Add(_) | Op::Replace(_) => None,
        };
        self.held_mut(prefix).has = has;
        prefix
    }

    /// Tries a prefix again.
    pub(crate) fn again(&mut self, prefix: Cidr) {
        self.mark(prefix);
    }

    /// One of our routes is gone from the kernel, by whomever.
    pub(crate) fn gone(&mut self, r: &Route) {
        let prefix = r.key.dst;
        if let Some(held) = self.ours.get_mut(prefix)
            && let Some((metric, hops)) = &held.has
            && (*metric, &**hops) == (r.key.metric, r.hops.as_slice())
        {
            held.has = None;
            self.mark(prefix);
        }
    }

    /// All of our routes of a family, as the kernel has them.
    pub(crate) fn seen(&mut self, family: Family, routes: impl IntoIterator<Item = Route>) {
        let mut before: FxHashMap<Cidr, (u32, Arc<[Hop]>)> = FxHashMap::default();
        let first = !self.converged[at(family)];
        let all: Vec<_> = self.ours.iter().map(|(c, _)| c).collect();
        for c in all.into_iter().filter(|c| c.family() == family) {
            if let Some(has) = self.held_mut(c).has.take() {
                before.insert(c, has);
            }
            self.mark(c);
        }
        self.strays.retain(|r| r.family() != family);
        let mut shared: FxHashMap<SmallVec<[Hop; 1]>, Arc<[Hop]>> = FxHashMap::default();
        for r in routes {
            let prefix = r.key.dst;
            let hops = shared
                .entry(r.hops.clone())
                .or_insert_with(|| r.hops.as_slice().into())
                .clone();
            let known = before.get(&prefix).map(|b| b.0);
            let new = self.ours.get(prefix).is_none();
            let held = self.held_mut(prefix);
            let better = held.has.is_none() || known == Some(r.key.metric);
            if !better {
                self.strays.push(r);
                continue;
            }
            if let Some((metric, hops)) = held.has.replace((r.key.metric, hops)) {
                let other = self.route(prefix, metric, &hops);
                self.strays.push(other);
            }
            if new {
                self.held_mut(prefix).adopted = first;
                self.mark(prefix);
            }
        }
    }
}

#[cfg(test)]
mod tests;
