//! Routes of the main table, from what is wanted to the kernel.
//!
//! Promises: only destinations that changed are looked at; what fails or waits for an
//! interface stays wanted; a route on a workload interface that nobody here asked for
//! is left for a grace period, since its maker may be ahead of the datastore.
//! Never: touches a route that is not ours.

use crate::links::Links;
use net::{Cidr, Family, IfIndex, IfName};
use netlink::{Errno, NetlinkError};
use render::RouteVia;
use route::{Event, Handle, Hop, Kind, Proto, Route, Table};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Which routes are ours besides those with our protocol number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Claims {
    /// Prefixes of workload interfaces.
    pub(crate) prefixes: Vec<String>,
    /// Protocol of workload routes.
    pub(crate) workload: u8,
    /// Whether any protocol on a workload interface is ours to remove.
    pub(crate) external: bool,
    /// Tunnel devices: everything there is ours.
    pub(crate) tunnels: BTreeSet<IfName>,
}

impl Claims {
    fn is_workload(&self, name: IfName) -> bool {
        self.prefixes.iter().any(|p| name.as_str().starts_with(p))
    }

    fn owns(&self, r: &Route, links: &Links) -> bool {
        if r.proto == Proto(render::ROUTE_PROTOCOL) {
            return true;
        }
        let ours = |name: IfName| {
            self.tunnels.contains(&name)
                || self.is_workload(name) && (self.external || r.proto == Proto(self.workload))
        };
        // Multicast and link-local routes of the kernel itself carry its own number.
        r.proto != Proto::KERNEL
            && r.kind == Kind::Unicast
            && !r.hops.is_empty()
            && r.hops
                .iter()
                .all(|h| h.dev.and_then(|d| links.name(d)).is_some_and(ours))
    }

    fn on_workload(&self, r: &Route, links: &Links) -> bool {
        r.hops.iter().any(|h| {
            h.dev
                .and_then(|d| links.name(d))
                .is_some_and(|n| self.is_workload(n))
        })
    }
}

/// How a destination stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The kernel has what is wanted.
    Done,
    /// It waits for an interface or the next apply.
    Waiting,
    /// The kernel refused it.
    Failed(String),
}

#[derive(Debug)]
pub(crate) struct Routes {
    handle: Handle,
    claims: Claims,
    grace: Duration,
    wanted: BTreeMap<Cidr, render::Route>,
    /// Our routes as the kernel holds them.
    held: BTreeMap<Cidr, Vec<Route>>,
    dirty: BTreeSet<Cidr>,
    waiting: BTreeSet<Cidr>,
    failed: BTreeMap<Cidr, String>,
    /// Routes that nobody asked for, and until when they stay.
    strangers: BTreeMap<Cidr, Instant>,
    /// Addresses whose old connections are being forgotten: a new holder waits.
    leaving: BTreeMap<IpAddr, Leaving>,
    read: bool,
}

/// An address that left.
#[derive(Debug, Default)]
struct Leaving {
    /// How often its connections are still to be forgotten.
    times: usize,
    /// Why that did not work so far.
    why: Option<String>,
}

impl Routes {
    pub(crate) fn new(handle: Handle, grace: Duration) -> Self {
        Self {
            handle,
            claims: Claims::default(),
            grace,
            wanted: BTreeMap::new(),
            held: BTreeMap::new(),
            dirty: BTreeSet::new(),
            waiting: BTreeSet::new(),
            failed: BTreeMap::new(),
            strangers: BTreeMap::new(),
            leaving: BTreeMap::new(),
            read: false,
        }
    }

    /// Sets what is ours. A change reads the kernel anew.
    pub(crate) fn claim(&mut self, claims: Claims) {
        self.claims = claims;
        self.read = false;
    }

    pub(crate) fn want(&mut self, dst: Cidr, route: Option<render::Route>) {
        match route {
            Some(r) => drop(self.wanted.insert(dst, r)),
            None => drop(self.wanted.remove(&dst)),
        }
        self.strangers.remove(&dst);
        self.dirty.insert(dst);
    }

    pub(crate) fn reread(&mut self) {
        self.read = false;
    }

    /// From now on nobody else gets a route for the address: until [`Routes::released`].
    pub(crate) fn hold(&mut self, address: IpAddr) {
        self.leaving.entry(address).or_default().times += 1;
        self.dirty.insert(Cidr::host(address));
    }

    /// The connections of these addresses are forgotten, as often as they stand here.
    pub(crate) fn released(&mut self, addresses: &[IpAddr]) {
        for a in addresses {
            let Some(l) = self.leaving.get_mut(a) else {
                continue;
            };
            l.times -= 1;
            if l.times == 0 {
                self.leaving.remove(a);
                self.dirty.insert(Cidr::host(*a));
            }
        }
    }

    /// The connections of these addresses could not be forgotten so far.
    pub(crate) fn stuck(&mut self, addresses: &[IpAddr], why: &str) {
        for a in addresses {
            if let Some(l) = self.leaving.get_mut(a) {
                l.why = Some(why.to_owned());
            }
        }
    }

    /// Whatever failed or waits is tried with the next apply.
    pub(crate) fn retry(&mut self) {
        self.dirty
            .extend(std::mem::take(&mut self.failed).into_keys());
        self.dirty.append(&mut self.waiting);
    }

    pub(crate) fn dirty(&self) -> usize {
        self.failed.len()
    }

    pub(crate) fn is_dirty(&self) -> bool {
        !self.read || !self.dirty.is_empty()
    }

    /// When the next stranger has had its time.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.strangers.values().min().copied()
    }

    /// How a wanted destination stands; `None` when it is not wanted over that interface.
    pub(crate) fn standing(&self, dst: Cidr, over: IfName) -> Option<Standing> {
        let r = self.wanted.get(&dst)?;
        if r.via != RouteVia::Interface(over) {
            return None;
        }
        Some(if let Some(e) = self.failed.get(&dst) {
            Standing::Failed(e.clone())
        } else if let Some(why) = self.stuck_because(dst) {
            Standing::Failed(format!("cannot forget its old connections: {why}"))
        } else if !self.read || self.waiting.contains(&dst) || self.dirty.contains(&dst) {
            Standing::Waiting
        } else {
            Standing::Done
        })
    }

    fn stuck_because(&self, dst: Cidr) -> Option<&str> {
        let leaving = self.leaving.get(&dst.addr()).filter(|_| dst.is_host())?;
        leaving
            .why
            .as_deref()
            .filter(|_| self.waiting.contains(&dst))
    }

    /// Whether something of a destination that nobody wants is still there.
    pub(crate) fn lingers(&self, dst: Cidr) -> bool {
        !self.wanted.contains_key(&dst)
            && (self.dirty.contains(&dst) || self.failed.contains_key(&dst))
    }

    /// The interface lost all its routes: IPv4 ones go without a word.
    pub(crate) fn interface_down(&mut self, index: IfIndex) {
        for (dst, routes) in &mut self.held {
            let before = routes.len();
            routes.retain(|r| r.hops.iter().all(|h| h.dev != Some(index)));
            if routes.len() != before {
                self.dirty.insert(*dst);
            }
        }
    }

    /// What the kernel says of its routes, our own doing included.
    pub(crate) fn event(&mut self, event: Event, links: &Links, now: Instant) {
        match event {
            Event::Resync => self.read = false,
            Event::Route(r) => {
                if r.key.table != Table::MAIN || !self.claims.owns(&r, links) {
                    return;
                }
                let dst = r.key.dst;
                let held = self.held.entry(dst).or_default();
                if held.contains(&r) {
                    return;
                }
                // The kernel does not tell a replacement from an addition.
                held.retain(|h| h.key != r.key);
                let on_workload = self.claims.on_workload(&r, links);
                held.push(r);
                if !self.wanted.contains_key(&dst) && on_workload {
                    self.strangers.entry(dst).or_insert(now + self.grace);
                } else {
                    self.dirty.insert(dst);
                }
            }
            Event::Gone(r) => {
                let dst = r.key.dst;
                if let Some(held) = self.held.get_mut(&dst) {
                    let before = held.len();
                    held.retain(|h| *h != r);
                    if held.len() != before && self.wanted.contains_key(&dst) {
                        self.dirty.insert(dst);
                    }
                    if held.is_empty() {
                        self.held.remove(&dst);
                        self.strangers.remove(&dst);
                    }
                }
            }
        }
    }

    fn read_all(&mut self, links: &Links, now: Instant) -> Result<(), NetlinkError> {
        let mut held: BTreeMap<Cidr, Vec<Route>> = BTreeMap::new();
        for family in Family::BOTH {
            for r in self.handle.list(Table::MAIN, family)? {
                if self.claims.owns(&r, links) {
                    held.entry(r.key.dst).or_default().push(r.normal());
                }
            }
        }
        self.dirty.extend(self.held.keys().copied());
        self.dirty.extend(self.wanted.keys().copied());
        for (dst, routes) in &held {
            let stranger = !self.wanted.contains_key(dst)
                && routes.iter().all(|r| self.claims.on_workload(r, links));
            if stranger {
                self.strangers.entry(*dst).or_insert(now + self.grace);
            }
            self.dirty.insert(*dst);
        }
        self.strangers.retain(|dst, _| held.contains_key(dst));
        self.held = held;
        self.read = true;
        Ok(())
    }

    /// Takes away what nobody wants any more and leads into a tunnel device. Before the device goes: that
    /// takes the kernel milliseconds, and what others have for these destinations is hidden until then.
    pub(crate) fn leave_tunnels(&mut self, links: &Links) {
        let tunnels = &self.claims.tunnels;
        let into = |r: &Route| {
            let mut names = r.hops.iter().filter_map(|h| links.name(h.dev?));
            names.any(|n| tunnels.contains(&n))
        };
        let unwanted = |d: &&Cidr| self.read && !self.wanted.contains_key(d);
        let mut actual = route::Actual::default();
        for dst in self.dirty.iter().filter(unwanted) {
            let held = self.held.get(dst).into_iter().flatten();
            actual.ours.extend(held.filter(|r| into(r)).cloned());
        }
        if actual.ours.is_empty() {
            return;
        }
        let failures = self.handle.apply(&route::plan(&actual, &[] as &[Route]));
        // What failed is still held and still unwanted: it comes again with the others.
        let failed = |r: &Route| failures.iter().any(|f| f.op.route() == r);
        for r in actual.ours.iter().filter(|r| !failed(r)) {
            if let Some(held) = self.held.get_mut(&r.key.dst) {
                held.retain(|h| h != r);
            }
        }
    }

    /// Writes what differs. Gives the host addresses whose routes on workload interfaces
    /// went although nobody asked: their connections are stale.
    pub(crate) fn sync(
        &mut self,
        links: &Links,
        now: Instant,
    ) -> Result<Vec<IpAddr>, NetlinkError> {
        if !self.read {
            self.read_all(links, now)?;
        }
        let expired: Vec<Cidr> = self
            .strangers
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(d, _)| *d)
            .collect();
        let stale = expired
            .iter()
            .filter(|d| d.is_host())
            .map(|d| d.addr())
            .collect();
        for dst in expired {
            self.strangers.remove(&dst);
            self.dirty.insert(dst);
        }
        let mut actual = route::Actual::default();
        let mut desired = Vec::new();
        let mut done: BTreeMap<Cidr, Option<Route>> = BTreeMap::new();
        for dst in std::mem::take(&mut self.dirty) {
            self.failed.remove(&dst);
            self.waiting.remove(&dst);
            if self.strangers.contains_key(&dst) {
                continue;
            }
            let held = self.held.get(&dst).map_or(&[][..], Vec::as_slice);
            let want = match self.wanted.get(&dst) {
                None => None,
                Some(r) => {
                    let found = resolve(dst, r, held, links);
                    let leaving = dst.is_host() && self.leaving.contains_key(&dst.addr());
                    let found = found.filter(|f| !leaving || held.contains(f));
                    if found.is_none() {
                        self.waiting.insert(dst);
                    }
                    found
                }
            };
            actual.ours.extend_from_slice(held);
            desired.extend(want.clone());
            done.insert(dst, want);
        }
        if done.is_empty() {
            return Ok(stale);
        }
        let plan = route::plan(&actual, &desired);
        for f in self.handle.apply(&plan) {
            let dst = f.op.route().key.dst;
            done.remove(&dst);
            if f.error.is(Errno::EEXIST) {
                // Ours after all, and unknown: look once; a foreign one is reported.
                self.read = self.failed.contains_key(&dst);
            }
            self.failed.insert(dst, f.error.to_string());
        }
        for (dst, want) in done {
            match want {
                Some(r) => drop(self.held.insert(dst, vec![r])),
                None => drop(self.held.remove(&dst)),
            }
        }
        Ok(stale)
    }
}

/// The route with the kernel's numbers; `None` while its interface is not there or down.
fn resolve(dst: Cidr, r: &render::Route, held: &[Route], links: &Links) -> Option<Route> {
    let proto = Proto(r.protocol);
    let up = |name: IfName| links.get(name).filter(|l| l.up).map(|l| l.index);
    let route = match &r.via {
        RouteVia::Blackhole => Route::dead_end(Table::MAIN, dst, Kind::Blackhole, proto),
        RouteVia::Interface(name) => Route::unicast(Table::MAIN, dst, Hop::dev(up(*name)?), proto),
        RouteVia::Onlink { via, device } => {
            Route::unicast(Table::MAIN, dst, Hop::onlink(*via, up(*device)?), proto)
        }
        RouteVia::Gateway(via) => {
            // The kernel finds the interface, and shows it ever after.
            let found = |h: &Route| match h.hops.as_slice() {
                [hop] if hop.gateway == Some(*via) && !hop.onlink => hop.dev,
                _ => None,
            };
            let hop = Hop {
                dev: held.iter().find_map(found),
                gateway: Some(*via),
                onlink: false,
                weight: 1,
            };
            Route::unicast(Table::MAIN, dst, hop, proto)
        }
    };
    Some(route.with_metric(r.metric))
}
