//! The loop: events in, one apply for all that came together, reports out.
//!
//! Promises: one apply is links and tunnels, then rules and sets in one transaction, then
//! the workloads' interfaces, then routes, then reports. The
//! loop waits for nothing but events and its own deadlines.
//! Never: begins before the state is complete; ends because the kernel refuses something.

use crate::connections::{Answer, Connections};
use crate::handle::Command;
use crate::links::{Change, Links, tunnel_name};
use crate::routes::{Claims, Routes, Standing};
use crate::rules::Rules;
use crate::{Error, Faults, Handle, Options, Pending, Report, State};
use desired::{Delta, WorkloadPolicy};
use model::WorkloadKey;
use net::Family;
use netlink::netns::{NetNs, Worker};
use nftables::conntrack::Conntrack;
use nftables::{Notice, TableFamily};
use render::{Changes, Renderer};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedReceiver;

/// First pause before what failed is tried again; it doubles up to [`BACKOFF_MAX`].
const BACKOFF: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// Events taken into one apply at most, so that a flood cannot hold an apply up.
const GATHER: usize = 4096;

/// All that can happen to the loop.
#[derive(Debug)]
enum Event {
    Command(Command),
    Link(link::Event),
    Route(route::Event),
    Rules(Notice),
    Arp(Notice),
    Connections(Answer),
    Tick,
}

#[derive(Debug)]
pub(crate) struct Cycle {
    handle: Handle,
    inbox: UnboundedReceiver<Command>,
    external: bool,
    resync: Duration,
    renderer: Renderer,
    rules: Rules,
    /// The table of family `arp`.
    arp: Rules,
    links: Links,
    link_events: link::Monitor,
    routes: Routes,
    route_events: route::Monitor,
    claims: Claims,
    in_sync: bool,
    /// Workloads whose reports may have changed.
    touched: BTreeSet<WorkloadKey>,
    /// Addresses whose connections are to be forgotten.
    flush: BTreeSet<IpAddr>,
    connections: Connections,
    backoff: Duration,
    retry_at: Option<Instant>,
    resync_at: Instant,
}

impl Cycle {
    /// Opens all sockets. Reads, and writes nothing.
    pub(crate) fn open(
        handle: Handle,
        inbox: UnboundedReceiver<Command>,
        options: Options,
        ns: &NetNs,
        faults: Option<Faults>,
    ) -> Result<Self, Error> {
        let worker = Worker::new(ns)?;
        let metrics = handle.metrics().clone();
        let (rules, arp, connections) = worker.run(move || {
            let of = |family| Rules::open(family, options.table.clone(), metrics.clone());
            let (mut rules, arp) = (of(TableFamily::Inet)?, of(TableFamily::Arp)?);
            if let Some(f) = faults {
                rules.inject(f.0);
            }
            Ok::<_, netlink::NetlinkError>((rules, arp, Conntrack::open()?))
        })?;
        // Listening begins before reading, so that nothing is missed in between.
        let link_events = link::Monitor::open_in(ns)?;
        let route_events = route::Monitor::open_in(ns)?;
        let mut links = Links::new(link::Handle::open_in(ns)?, worker);
        links.read()?;
        let mut renderer = Renderer::new();
        // Nothing is rendered before the first delta.
        if let Some(now) = links.moved() {
            drop(renderer.interfaces(now));
        }
        let routes = Routes::new(route::Handle::open_in(ns)?, options.route_grace);
        Ok(Self {
            handle,
            inbox,
            external: options.remove_external_routes,
            resync: options.resync,
            renderer,
            rules,
            arp,
            links,
            link_events,
            routes,
            route_events,
            claims: Claims::default(),
            in_sync: false,
            touched: BTreeSet::new(),
            flush: BTreeSet::new(),
            connections: Connections::start(connections).map_err(Error::Thread)?,
            backoff: BACKOFF,
            retry_at: None,
            resync_at: Instant::now() + options.resync,
        })
    }

    pub(crate) async fn run(mut self) -> Result<(), Error> {
        loop {
            let mut event = Some(self.next().await?);
            let mut worth = false;
            for _ in 0..GATHER {
                match event {
                    Some(Event::Command(Command::Stop)) => return Ok(()),
                    Some(e) => worth |= self.take(e)?,
                    None => break,
                }
                event = self.waiting()?;
            }
            if worth && self.in_sync {
                self.apply();
            }
        }
    }

    async fn next(&mut self) -> Result<Event, Error> {
        let deadlines = [self.retry_at, self.routes.deadline(), Some(self.resync_at)];
        let wake = deadlines
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(self.resync_at);
        Ok(tokio::select! {
            c = self.inbox.recv() => Event::Command(c.unwrap_or(Command::Stop)),
            e = self.link_events.next() => Event::Link(e?),
            e = self.route_events.next() => Event::Route(e?),
            n = self.rules.changed(), if self.in_sync => Event::Rules(n?),
            n = self.arp.changed(), if self.in_sync => Event::Arp(n?),
            Some(a) = self.connections.answer() => Event::Connections(a),
            () = tokio::time::sleep_until(wake.into()) => Event::Tick,
        })
    }

    /// An event that is there already.
    fn waiting(&mut self) -> Result<Option<Event>, Error> {
        if let Ok(c) = self.inbox.try_recv() {
            return Ok(Some(Event::Command(c)));
        }
        if let Some(e) = self.link_events.try_next()? {
            return Ok(Some(Event::Link(e)));
        }
        if let Some(e) = self.route_events.try_next()? {
            return Ok(Some(Event::Route(e)));
        }
        Ok(self.connections.try_answer().map(Event::Connections))
    }

    /// Takes note of an event; true if there may be something to do.
    fn take(&mut self, event: Event) -> Result<bool, Error> {
        match event {
            Event::Command(Command::Delta(delta)) => self.delta(delta),
            Event::Command(Command::InSync) => self.in_sync = true,
            Event::Command(Command::Stop) => {}
            Event::Link(e) => {
                let worth = self.link(&e)?;
                return Ok(self.rebind() || worth);
            }
            Event::Connections(Answer::Done(addresses)) => {
                self.routes.released(&addresses);
                return Ok(self.routes.is_dirty());
            }
            Event::Connections(Answer::Failed(addresses, why)) => {
                self.routes.stuck(&addresses, &why);
            }
            Event::Route(e) => {
                self.routes.event(e, &self.links, Instant::now());
                return Ok(self.routes.is_dirty());
            }
            Event::Rules(Notice::Quiet) | Event::Arp(Notice::Quiet) => return Ok(false),
            Event::Rules(_) => {
                self.repairing();
                self.rules.reread();
            }
            Event::Arp(_) => {
                self.repairing();
                self.arp.reread();
            }
            Event::Tick => self.tick()?,
        }
        Ok(true)
    }

    fn repairing(&self) {
        self.handle.metrics().nft_repairs.inc();
        tracing::warn!("somebody else changed our table: repairing");
    }

    fn delta(&mut self, delta: Delta) {
        self.handle.metrics().deltas.inc();
        let changes = self.renderer.apply(&delta);
        self.touched.extend(delta.workloads.into_keys());
        self.absorb(changes);
        if delta.globals.is_some() {
            self.claim();
        }
    }

    /// Tells the renderer who has which address, when that may have changed. True if it matters.
    fn rebind(&mut self) -> bool {
        let Some(now) = self.links.moved() else {
            return false;
        };
        let changes = self.renderer.interfaces(now);
        let matters = changes != Changes::default();
        self.absorb(changes);
        matters
    }

    fn absorb(&mut self, changes: Changes) {
        for edit in changes.table {
            self.rules.edit(edit);
        }
        for edit in changes.arp {
            self.arp.edit(edit);
        }
        for (name, interface) in changes.interfaces {
            self.links.want(name, interface);
        }
        if let Some(node) = changes.node {
            self.links.want_node(node);
        }
        for family in changes.tunnels {
            self.links.want_tunnel(family);
        }
        for (dst, route) in changes.routes {
            self.routes.want(dst, route);
        }
        self.flush.extend(changes.flush);
    }

    /// Has connections forgotten; until then the address has no new holder.
    fn forget(&mut self, addresses: Vec<IpAddr>) {
        addresses.iter().for_each(|a| self.routes.hold(*a));
        self.connections.forget(addresses);
    }

    fn claim(&mut self) {
        let g = self.renderer.globals();
        let named = Family::BOTH
            .into_iter()
            .filter_map(|f| g.tunnel(f))
            .map(|t| t.device);
        let claims = Claims {
            prefixes: g.interface_prefixes.clone(),
            workload: g.workload_route_protocol,
            external: self.external,
            tunnels: named.chain(Family::BOTH.map(tunnel_name)).collect(),
        };
        if claims != self.claims {
            self.claims = claims.clone();
            self.routes.claim(claims);
        }
    }

    fn link(&mut self, event: &link::Event) -> Result<bool, Error> {
        let change = self.links.event(event);
        match change {
            Change::None => return Ok(false),
            Change::Down(index, name) => {
                self.routes.interface_down(index);
                self.touched.extend(self.renderer.owner(name).cloned());
            }
            Change::Up(name) => {
                self.routes.retry();
                self.touched.extend(self.renderer.owner(name).cloned());
            }
            Change::AddressLost => {
                self.routes.reread();
                self.routes.retry();
            }
            Change::Other => self.routes.retry(),
            Change::Resync => {
                self.links.read()?;
                self.routes.reread();
                self.routes.retry();
                self.touched.extend(self.handle.keys());
            }
        }
        Ok(true)
    }

    fn tick(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            self.rules.retry();
            self.arp.retry();
            self.links.retry();
            self.routes.retry();
        }
        if self.resync_at <= now {
            self.resync_at = now + self.resync;
            self.handle.metrics().resyncs.inc();
            self.links.read()?;
            self.rebind();
            self.rules.reread();
            self.arp.reread();
            self.routes.reread();
        }
        Ok(())
    }

    fn apply(&mut self) {
        let begin = Instant::now();
        if let Err(e) = self.links.sync_node() {
            tracing::warn!(error = %e, "cannot set the node's sysctls");
        }
        self.routes.leave_tunnels(&self.links);
        if self.links.sync_tunnels(&self.renderer) {
            self.routes.retry();
        }
        for rules in [&mut self.rules, &mut self.arp] {
            if rules.is_dirty() {
                rules.sync();
            }
        }
        let interfaces = self.links.sync_workloads();
        let owners = interfaces.iter().filter_map(|i| self.renderer.owner(*i));
        self.touched.extend(owners.cloned());
        let mut failed = false;
        let left: Vec<IpAddr> = std::mem::take(&mut self.flush).into_iter().collect();
        left.iter().for_each(|a| self.routes.hold(*a));
        match self.routes.sync(&self.links, begin) {
            Ok(stale) => self.forget(stale),
            Err(e) => {
                tracing::warn!(error = %e, "cannot read routes");
                self.routes.reread();
                failed = true;
            }
        }
        let rules = self.rules.dirty() + self.arp.dirty();
        let dirty = rules + self.links.dirty() + self.routes.dirty();
        failed |= dirty > 0;
        // After the routes: what left may not begin a connection anew.
        self.connections.forget(left);
        self.report(dirty > 0);
        self.schedule(failed);
        let m = self.handle.metrics();
        m.dirty.set(i64::try_from(dirty).unwrap_or(i64::MAX));
        m.in_sync.set(1);
        if failed {
            m.apply_failures.inc();
        }
        m.apply_time.observe(begin.elapsed().as_secs_f64());
    }

    /// What failed comes again after a pause that grows.
    fn schedule(&mut self, failed: bool) {
        if !failed {
            self.retry_at = None;
            self.backoff = BACKOFF;
        } else if self.retry_at.is_none() {
            self.retry_at = Some(Instant::now() + self.backoff);
            self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
        }
    }

    fn report(&mut self, all: bool) {
        let mut touched = std::mem::take(&mut self.touched);
        if all {
            touched.extend(self.handle.keys());
        } else {
            touched.extend(self.handle.unprogrammed());
        }
        let mut news = BTreeMap::new();
        for key in touched {
            let Some(report) = self.handle.report(&key) else {
                continue;
            };
            match self.renderer.workload(&key) {
                // A later delta about it waits in the inbox: this answer is not for it.
                Some(w) if !std::sync::Arc::ptr_eq(w, &report.workload) => {}
                Some(w) => {
                    let state = self.state(&key, w);
                    if report.state != state && report.state != State::Removing {
                        news.insert(key, Some((w.clone(), state)));
                    }
                }
                None if report.state == State::Removing && self.is_gone(&report) => {
                    news.insert(key, None);
                }
                None => {}
            }
        }
        if news.is_empty() {
            return;
        }
        self.handle.settle(news);
    }

    fn is_gone(&self, report: &Report) -> bool {
        self.rules.error().is_none()
            && report
                .workload
                .nets
                .iter()
                .all(|c| !self.routes.lingers(*c))
    }

    fn state(&self, key: &WorkloadKey, w: &WorkloadPolicy) -> State {
        let interface = w.interface;
        match self.renderer.owner(interface) {
            Some(owner) if owner != key => {
                return State::Failed(format!("interface {interface} belongs to {owner}"));
            }
            _ => {}
        }
        if let Some(e) = self.rules.error() {
            return State::Failed(e.to_owned());
        }
        if let Some(e) = self
            .renderer
            .chains(key)
            .iter()
            .find_map(|c| self.rules.refusal(c))
        {
            return State::Failed(e.to_owned());
        }
        match self.links.get(interface) {
            None => return State::Pending(Pending::NoInterface),
            Some(l) if !l.up => return State::Pending(Pending::InterfaceDown),
            Some(_) => {}
        }
        if let Some(e) = self.links.failure(interface) {
            return State::Failed(e.to_owned());
        }
        if !self.links.is_done(interface) {
            return State::Pending(Pending::Apply);
        }
        for net in &w.nets {
            match self.routes.standing(*net, interface) {
                Some(Standing::Failed(e)) => return State::Failed(e),
                Some(Standing::Waiting) => return State::Pending(Pending::Apply),
                Some(Standing::Done) | None => {}
            }
        }
        State::Programmed
    }
}
