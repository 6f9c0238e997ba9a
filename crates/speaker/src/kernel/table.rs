//! Learned routes as they should be in the kernel and as they are there.
//!
//! Promises: pure; a route changes in place, and where its metric changes the new one is there before
//! the old one goes; a route whose next hop has lost its way stays until the router says what is best
//! now; what was there before a restart stays until it is told anew or its time is over.

mod next;
mod steps;

use super::counted::Counted;
use super::rows::{Held, RowId, Rows};
use crate::hops::{Way, Ways};
use net::{Cidr, Family, IfIndex};
use peering::Tunnelled;
use route::{Hop, Proto, Route};
use rustc_hash::FxHashSet;
use smallvec::SmallVec;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

/// The metric of routes to peers through a gateway that was configured; as BIRD gives its static
/// ones.
const STATIC_METRIC: u32 = 32;
/// The metric of routes that are refused by now and wait for somebody else's: behind all others, so that
/// whoever takes over finds the place free, in IPv6 too, where one metric is one route.
const BEHIND: u32 = u32::MAX - 1;

/// A next hop of a learned route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Gate {
    pub addr: IpAddr,
    /// On whose link a link-local address is: the peer that told it.
    pub beside: Option<IpAddr>,
}

impl Gate {
    /// By its address alone.
    pub(crate) const fn of(addr: IpAddr) -> Self {
        Self { addr, beside: None }
    }

    /// Whether its address has a meaning on one link alone.
    pub(crate) fn is_link_local(&self) -> bool {
        matches!(self.addr, IpAddr::V6(a) if a.is_unicast_link_local())
    }
}

/// Next hops of a learned route.
pub(crate) type NextHops = SmallVec<[Gate; 1]>;

/// What is best for a prefix now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub prefix: Cidr,
    /// Next hops and metric; `None`: nothing that was learned.
    pub want: Option<(NextHops, u32)>,
}

/// What many routes have alike: where they are to lead.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Want {
    gates: NextHops,
    metric: u32,
    over: Over,
}

/// Whether it is through the tunnel device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Over {
    Plain,
    Tunnel,
    /// Except to next hops in this subnet.
    TunnelBut(Cidr),
}

/// What many routes have alike in the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Form {
    metric: u32,
    hops: SmallVec<[Hop; 1]>,
}

impl Form {
    fn of(r: &Route) -> Self {
        Self {
            metric: r.key.metric,
            hops: r.hops.clone(),
        }
    }
}

/// A next hop that is looked up.
#[derive(Debug, Default)]
struct Tracked {
    by_router: bool,
    by_statics: u32,
    /// It is a peer, whose link shows where link-local next hops are.
    by_peers: bool,
    /// The router has begun to use it and was not told of its way.
    untold: bool,
    way: Option<Way>,
}

/// The kernel's routes.
#[derive(Debug)]
pub(crate) struct Table {
    proto: Proto,
    pub ways: Ways,
    rows: Rows,
    wants: Counted<Want>,
    /// The form of each want as things are, 0 for none; a user of it.
    formed: Vec<u32>,
    forms: Counted<Form>,
    tracked: BTreeMap<IpAddr, Tracked>,
    unsure: BTreeSet<IpAddr>,
    statics: BTreeMap<Cidr, u32>,
    refuse: Vec<Cidr>,
    /// Refused since a moment: they stay until somebody else's route is there, or are given up.
    handed: BTreeSet<Cidr>,
    tunnelled: Vec<Tunnelled>,
    tunnel: Option<IfIndex>,
    dirty: VecDeque<RowId>,
    strays: Vec<Route>,
    converged: [bool; 2],
}

fn at(family: Family) -> usize {
    usize::from(family == Family::V6)
}

impl Table {
    /// Empty. `seed` keeps peers from choosing prefixes that collide.
    pub(crate) fn new(proto: Proto, seed: u64) -> Self {
        Self {
            proto,
            ways: Ways::default(),
            rows: Rows::new(seed),
            wants: Counted::new(),
            formed: Vec::new(),
            forms: Counted::new(),
            tracked: BTreeMap::new(),
            unsure: BTreeSet::new(),
            statics: BTreeMap::new(),
            refuse: Vec::new(),
            handed: BTreeSet::new(),
            tunnelled: Vec::new(),
            tunnel: None,
            dirty: VecDeque::new(),
            strays: Vec::new(),
            converged: [false; 2],
        }
    }

    /// Whether routes of a family were there before us.
    pub(crate) fn adopted(&self, family: Family) -> bool {
        self.rows.all(family).any(|id| self.rows.get(id).adopted)
    }

    /// How many prefixes wait to be written.
    pub(crate) fn waiting(&self) -> usize {
        let due = |r: &&Route| self.converged[at(r.family())];
        self.dirty.len() + self.strays.iter().filter(due).count()
    }

    /// Whether a route is one of ours.
    pub(crate) fn is_ours(&self, r: &Route) -> bool {
        r.proto == self.proto
    }

    /// Whether routes lead through an interface, ours.
    pub(crate) fn uses(&self, dev: IfIndex) -> bool {
        let through = |f: &Form| f.hops.iter().any(|h| h.dev == Some(dev));
        self.forms.iter().any(|(_, f)| through(f))
    }

    fn mark(&mut self, id: RowId) {
        let held = self.rows.get(id);
        if !held.dirty {
            self.rows.set(
                id,
                Held {
                    dirty: true,
                    ..held
                },
            );
            self.dirty.push_back(id);
        }
    }

    /// What the router says now.
    pub(crate) fn change(&mut self, change: Change) {
        let prefix = change.prefix;
        let id = match &change.want {
            Some(_) => self.rows.insert(prefix),
            None => match self.rows.find(prefix) {
                Some(id) => id,
                None => return,
            },
        };
        let new = match change.want {
            Some((gates, metric)) => {
                let over = self.over(prefix);
                self.acquire(Want {
                    gates,
                    metric,
                    over,
                })
            }
            None => 0,
        };
        self.want(id, prefix, new);
    }

    /// Gives a row another want, of which it becomes a user.
    fn want(&mut self, id: RowId, prefix: Cidr, new: u32) {
        let held = self.rows.get(id);
        let now = Held {
            want: new,
            adopted: held.adopted && new == 0,
            ..held
        };
        self.rows.set(id, now);
        if held.want != new {
            self.doubt(prefix);
        }
        self.release(held.want);
        self.mark(id);
    }

    /// Peers have told all that they have: what is left of before goes.
    pub(crate) fn converge(&mut self, family: Family) {
        self.converged[at(family)] = true;
        let left = |id: &RowId| self.rows.get(*id).adopted;
        let left: Vec<_> = self.rows.all(family).filter(left).collect();
        for id in left {
            self.disown(id);
        }
    }

    fn disown(&mut self, id: RowId) {
        let held = self.rows.get(id);
        let now = Held {
            adopted: false,
            ..held
        };
        self.rows.set(id, now);
        self.mark(id);
    }

    /// Nothing is spoken any more: no learned route is wanted.
    pub(crate) fn forget(&mut self) {
        for family in Family::BOTH {
            let all: Vec<_> = self.rows.all(family).collect();
            for id in all {
                let prefix = self.rows.prefix(id);
                self.want(id, prefix, 0);
                self.disown(id);
            }
        }
        self.set_statics([]);
        self.tracked.clear();
        self.unsure.clear();
    }

    /// Prefixes inside of which nothing is written. Whether routes of ours now wait for those of others
    /// that are to take over: until they come, or [`hand_over`](Self::hand_over).
    pub(crate) fn set_refuse(&mut self, refuse: Vec<Cidr>) -> bool {
        if self.refuse == refuse {
            return false;
        }
        let old = std::mem::replace(&mut self.refuse, refuse);
        let both = old.iter().chain(&self.refuse).copied();
        let changed: BTreeSet<Cidr> = both
            .filter(|c| old.contains(c) != self.refuse.contains(c))
            .collect();
        let before = self.handed.len();
        for range in changed {
            for id in self.rows.within(range) {
                let prefix = self.rows.prefix(id);
                let was = old.iter().any(|r| r.covers(prefix));
                if !was && self.rows.get(id).has != 0 {
                    self.handed.insert(prefix);
                }
                self.mark(id);
            }
            self.doubt(range);
        }
        let more = self.handed.len() > before;
        let refuse = &self.refuse;
        let refused = |prefix: &Cidr| refuse.iter().any(|r| r.covers(*prefix));
        self.handed.retain(refused);
        more
    }

    /// The route of somebody else to a prefix is new, or has changed.
    pub(crate) fn met(&mut self, prefix: Cidr) {
        if self.handed.contains(&prefix) {
            self.again(prefix);
        }
    }

    /// What has waited for somebody else's routes goes.
    pub(crate) fn hand_over(&mut self) {
        for prefix in std::mem::take(&mut self.handed) {
            self.again(prefix);
        }
    }

    fn refused(&self, prefix: Cidr) -> bool {
        self.refuse.iter().any(|r| r.covers(prefix))
    }

    /// One of our routes is gone from the kernel, by whomever.
    pub(crate) fn gone(&mut self, r: &Route) {
        let Some(id) = self.rows.find(r.key.dst) else {
            return;
        };
        let held = self.rows.get(id);
        if self.forms.get(held.has) == Some(&Form::of(r)) {
            self.has(id, 0);
            self.mark(id);
        }
    }

    /// The kernel has another form of a row; a user of it is handed in.
    fn has(&mut self, id: RowId, form: u32) {
        let held = self.rows.get(id);
        self.rows.set(id, Held { has: form, ..held });
        self.forms.release(held.has);
    }

    /// All of our routes of a family are about to be [`seen`](Self::seen).
    pub(crate) fn look(&mut self, family: Family) {
        self.rows.unsee(family);
        self.strays.retain(|r| r.family() != family);
    }

    /// One of our routes, as the kernel has it.
    pub(crate) fn seen(&mut self, r: Route) {
        let prefix = r.key.dst;
        let new = self.rows.find(prefix).is_none();
        let id = self.rows.insert(prefix);
        let held = self.rows.get(id);
        let (form, _) = self.forms.acquire(Form::of(&r));
        if self.rows.see(id) || new {
            if held.has == form {
                self.forms.release(form);
                return;
            }
            let adopted = held.adopted || new && !self.converged[at(r.family())];
            self.rows.set(id, Held { adopted, ..held });
            self.has(id, form);
        } else {
            // One too many: that of the metric that is wanted is the one to keep.
            let metric = |form: u32| self.forms.get(form).map(|f| f.metric);
            let wanted = self.wants.get(held.want).map(|w| w.metric);
            let keep = wanted.is_some() && metric(held.has) != wanted && metric(form) == wanted;
            if keep {
                self.strays.extend(self.route(prefix, held.has));
                self.has(id, form);
            } else {
                self.strays.push(r);
                self.forms.release(form);
            }
        }
        self.mark(id);
    }

    /// All have been seen: those that were not are gone.
    pub(crate) fn looked(&mut self, family: Family) {
        for id in self.rows.unseen(family) {
            if self.rows.get(id).has != 0 {
                self.has(id, 0);
                self.mark(id);
            }
        }
    }

    fn route(&self, prefix: Cidr, form: u32) -> Option<Route> {
        let form = self.forms.get(form)?;
        let mut hops = form.hops.iter().copied();
        let mut r = Route::unicast(route::Table::MAIN, prefix, hops.next()?, self.proto);
        r.hops.extend(hops);
        Some(r.with_metric(form.metric))
    }
}

#[cfg(test)]
mod tests;
