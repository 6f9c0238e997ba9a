//! The thread: sockets in, steps out.
//!
//! Promises: subscribes before it reads; reads anew when notifications were lost or a link changed,
//! since then the kernel drops routes without a word.

use super::answers::{Answers, LOOPBACK};
use super::table::Table;
use super::{Input, Local, MOST, Order, Policy, Report};
use crate::engine::Kernel;
use crate::handle::Reporter;
use crate::hops::{self, Way};
use bgp::rib::HopState;
use net::{Cidr, Family, IfIndex, IfName};
use netlink::NetlinkError;
use route::{Kind, Plan, Proto, Route, Seen};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

/// So many prefixes are written at a time.
const SLICE: usize = 2048;
/// So many notifications may wait; then the kernel keeps them, and in the end says that it has lost
/// some.
const BACKLOG: usize = 64 << 10;
/// Links change in bursts: the tables are read once behind them.
const CALM: Duration = Duration::from_millis(30);
/// After peers have told all they have, what they told may still wait for a way to its next hop, or for
/// its turn: what a run before has left goes only then.
const GRACE: Duration = Duration::from_secs(2);
/// A route that is refused from now on, as when its pool gets a tunnel, stays this long for the one that
/// the dataplane makes in its place: it first needs the device, its address and the far end's.
const HAND_OVER: Duration = Duration::from_secs(3);
/// What failed is tried again after this, then after twice as long, and so on.
const RETRY: Duration = Duration::from_millis(500);
const RETRY_MOST: Duration = Duration::from_secs(30);
/// So many troubles are told by name.
const TOLD: usize = 8;
/// The device for IP in IP (Calico's name, and the kernel's for the first).
const TUNNEL: &str = "tunl0";

/// Who listens to the kernel; ends with its value.
pub(super) struct Watch {
    ended: Arc<AtomicBool>,
    backlog: Arc<AtomicUsize>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

impl Watch {
    /// Subscribes to routes and links; not to what `writer` does.
    fn open(to: &Sender<Input>, own: u8, writer: &route::Handle) -> Result<Self, NetlinkError> {
        let watch = Self {
            ended: Arc::default(),
            backlog: Arc::default(),
        };
        let mut routes = route::Monitor::open()?;
        routes.ignore(writer)?;
        // Nobody else should write routes of our number; one that is new is met when all are read.
        let echo = move |e: &route::Event| matches!(e, route::Event::Route(r) if r.proto.0 == own);
        watch.spawn(to.clone(), move |until| {
            Ok(routes
                .next_before(until)?
                .filter(|e| !echo(e))
                .map(Input::Route))
        });
        let mut links = link::Monitor::open()?;
        watch.spawn(to.clone(), move |until| {
            Ok(links.next_before(until)?.map(Input::Link))
        });
        Ok(watch)
    }

    fn spawn(
        &self,
        to: Sender<Input>,
        mut next: impl FnMut(Instant) -> Result<Option<Input>, NetlinkError> + Send + 'static,
    ) {
        let (ended, backlog) = (self.ended.clone(), self.backlog.clone());
        std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                if backlog.load(Ordering::Relaxed) > BACKLOG {
                    // The other side catches up meanwhile; the kernel keeps what comes.
                    std::thread::park_timeout(CALM);
                    continue;
                }
                match next(Instant::now() + Duration::from_secs(2)) {
                    Ok(None) => {}
                    Ok(Some(input)) => {
                        backlog.fetch_add(1, Ordering::Relaxed);
                        if to.send(input).is_err() {
                            return;
                        }
                    }
                    Err(e) => {
                        tracing::error!(error = %e, "cannot follow the kernel; trying on");
                        std::thread::park_timeout(Duration::from_secs(1));
                        let lost = Input::Route(route::Event::Resync);
                        backlog.fetch_add(1, Ordering::Relaxed);
                        if to.send(lost).is_err() {
                            return;
                        }
                    }
                }
            }
        });
    }
}

/// The thread's state.
pub(super) struct Run {
    inputs: Receiver<Input>,
    reports: Reporter,
    waiting: Arc<AtomicUsize>,
    reads: Arc<AtomicU64>,
    watch: Watch,
    routes: route::Handle,
    links: link::Handle,
    table: Table,
    answers: Answers,
    names: HashMap<IfIndex, (IfName, bool)>,
    policy: Policy,
    locals: BTreeMap<Cidr, Local>,
    /// Prefixes of others that have changed.
    touched: BTreeSet<Cidr>,
    /// When the tables are to be read anew.
    reread: Option<Instant>,
    /// When what a run before has left and nobody has told goes.
    leave: [Option<Instant>; 2],
    /// When what waits for the routes of others goes even so.
    hand_over: Option<Instant>,
    /// What could not be written; why, for some. With a link all routes can fail at once.
    failures: BTreeSet<Cidr>,
    reasons: BTreeMap<Cidr, String>,
    retry: Option<(Instant, Duration)>,
    trouble: Option<String>,
    /// Routes wait for the tunnel device, and that was told.
    lacks_tunnel: bool,
    /// What is written; kept for its memory.
    plan: Plan,
    /// Changes that were taken in and still count as waiting.
    owed: usize,
    stop: bool,
}

impl Run {
    pub(super) fn open(
        settings: &Kernel,
        (to, inputs): (&Sender<Input>, Receiver<Input>),
        reports: Reporter,
        (waiting, reads): (Arc<AtomicUsize>, Arc<AtomicU64>),
    ) -> Result<Self, NetlinkError> {
        let routes = route::Handle::open()?;
        let watch = Watch::open(to, settings.protocol, &routes)?;
        Ok(Self {
            inputs,
            reports,
            waiting,
            reads,
            watch,
            routes,
            links: link::Handle::open()?,
            table: Table::new(Proto(settings.protocol), RandomState::new().hash_one(0)),
            answers: Answers::new(Proto(settings.protocol)),
            names: HashMap::new(),
            policy: Policy::default(),
            locals: BTreeMap::new(),
            touched: BTreeSet::new(),
            reread: None,
            leave: [None; 2],
            hand_over: None,
            failures: BTreeSet::new(),
            reasons: BTreeMap::new(),
            retry: None,
            trouble: None,
            lacks_tunnel: false,
            plan: Plan::default(),
            owed: 0,
            stop: false,
        })
    }

    pub(super) fn run(mut self) {
        self.read_all(Instant::now());
        let found = Family::BOTH.map(|f| self.table.adopted(f));
        self.reports.report(Report::Ready(found));
        self.settle();
        while !self.stop {
            self.take_inputs();
            let now = Instant::now();
            if self.reread.is_some_and(|t| t <= now) {
                self.read_all(now);
            }
            if self.retry.is_some_and(|(t, _)| t <= now) {
                self.try_again();
            }
            for (leave, family) in self.leave.iter_mut().zip(Family::BOTH) {
                if leave.take_if(|t| *t <= now).is_some() {
                    self.table.converge(family);
                }
            }
            if self.hand_over.take_if(|t| *t <= now).is_some() {
                self.table.hand_over();
            }
            self.settle();
            self.answer(now);
            self.write();
        }
    }

    /// What has come in; waits if there is nothing else to do.
    fn take_inputs(&mut self) {
        let [v4, v6] = self.leave;
        let retry = self.retry.map(|(t, _)| t);
        let due = [
            self.reread,
            retry,
            self.answers.due(),
            v4,
            v6,
            self.hand_over,
        ];
        let due = due.into_iter().flatten().min();
        let mut next = if self.table.waiting() > 0 {
            self.inputs.try_recv().ok()
        } else {
            let most = Duration::from_secs(3600);
            let wait = due.map_or(most, |t| t.saturating_duration_since(Instant::now()));
            match self.inputs.recv_timeout(wait) {
                Ok(input) => Some(input),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => {
                    self.stop = true;
                    None
                }
            }
        };
        // Bounded, so that what comes in all the time does not keep routes from being written.
        for _ in 0..SLICE {
            let Some(input) = next else { return };
            match input {
                Input::Order(order) => self.follow(order),
                Input::Route(event) => self.route_event(event),
                Input::Link(event) => self.link_event(event),
            }
            next = self.inputs.try_recv().ok();
        }
        if let Some(Input::Order(order)) = next {
            self.follow(order);
        }
    }

    fn follow(&mut self, order: Order) {
        match order {
            Order::Routes(changes) => {
                self.owed += changes.len();
                changes.into_iter().for_each(|c| self.table.change(c));
            }
            Order::Hops(hops) => {
                for (addr, used) in hops {
                    self.table.track(addr, used);
                }
            }
            Order::Policy(policy) => {
                if policy.ignored != self.policy.ignored {
                    self.touched.extend(self.table.ways.prefixes());
                }
                if policy.statics != self.policy.statics {
                    self.table.set_statics(policy.statics.iter().copied());
                }
                self.table.set_peers(policy.peers.iter().copied());
                if self.table.set_refuse(policy.refuse.clone()) {
                    self.hand_over = Some(Instant::now() + HAND_OVER);
                }
                self.table.set_tunnelled(policy.tunnelled.clone());
                let answers = policy.answers.iter();
                answers.for_each(|a| self.table.ways.address(*a, true));
                self.answers.want(policy.answers.clone(), Instant::now());
                self.policy = policy;
            }
            Order::Converged(family) if self.table.adopted(family) => {
                self.leave[usize::from(family == Family::V6)] = Some(Instant::now() + GRACE);
            }
            Order::Converged(family) => self.table.converge(family),
            Order::Forget => {
                self.table.forget();
                self.policy.statics.clear();
                self.policy.peers.clear();
                self.answers.want(BTreeSet::new(), Instant::now());
            }
            Order::Stop => self.stop = true,
        }
    }

    fn route_event(&mut self, event: route::Event) {
        self.watch.backlog.fetch_sub(1, Ordering::Relaxed);
        let main = |r: &Route| r.key.table == route::Table::MAIN;
        if let route::Event::Gone(r) = &event {
            self.answers.gone(r, Instant::now());
        }
        match event {
            route::Event::Route(r) if main(&r) && !self.table.is_ours(&r) => {
                self.touch(r.key.dst);
                self.table.ways.insert(r);
            }
            route::Event::Gone(r) if main(&r) && self.table.is_ours(&r) => self.table.gone(&r),
            route::Event::Gone(r) if main(&r) => {
                self.touch(r.key.dst);
                self.table.ways.remove(&r);
            }
            route::Event::Resync => self.reread_soon(),
            _ => {}
        }
    }

    fn touch(&mut self, prefix: Cidr) {
        self.touched.insert(prefix);
        self.table.doubt(prefix);
        self.table.met(prefix);
        if self.failures.contains(&prefix) {
            self.table.again(prefix);
        }
    }

    fn link_event(&mut self, event: link::Event) {
        self.watch.backlog.fetch_sub(1, Ordering::Relaxed);
        match event {
            link::Event::Link(l) => {
                let new = (l.name, l.up);
                let old = self.names.insert(l.index, new);
                if old != Some(new) {
                    self.link_changed();
                }
                match old {
                    Some((name, up)) if name != l.name || up && !l.up => self.link_left(l.index),
                    _ => {}
                }
            }
            link::Event::LinkGone { index, .. } => {
                self.names.remove(&index);
                self.link_changed();
                self.link_left(index);
            }
            link::Event::Address(_, a) => {
                self.table.ways.address(a.addr, true);
                self.table.doubt(Cidr::host(a.addr));
            }
            link::Event::AddressGone(_, a) => match a.addr {
                // IPv4 routes go along without a word.
                IpAddr::V4(_) => self.reread_soon(),
                // Every pod's interface has the same.
                IpAddr::V6(addr) if addr.is_unicast_link_local() => {}
                IpAddr::V6(_) => {
                    self.table.ways.address(a.addr, false);
                    self.table.doubt(Cidr::host(a.addr));
                }
            },
            link::Event::Resync => self.reread_soon(),
            _ => {}
        }
    }

    /// A link is new, up, down, gone or renamed: what was refused for want of it may do now.
    fn link_changed(&mut self) {
        self.find_tunnel();
        if !self.failures.is_empty() {
            self.retry = Some((Instant::now() + CALM, RETRY));
        }
    }

    fn find_tunnel(&mut self) {
        self.table.set_tunnel(self.named(TUNNEL));
    }

    fn named(&self, name: &str) -> Option<IfIndex> {
        let found = self.names.iter().find(|(_, n)| n.0.as_str() == name);
        found.map(|(index, _)| *index)
    }

    /// Answers where workloads call.
    fn answer(&mut self, now: Instant) {
        if self.answers.due().is_some() {
            let lo = self.named(LOOPBACK);
            if self.answers.settle(&mut self.routes, lo, now) {
                self.tell_troubles();
            }
        }
    }

    /// The kernel has taken the IPv4 routes of a link along without a word. Of one that carries none
    /// of ours, such as a pod's, they are simple to tell; else the tables are read anew.
    fn link_left(&mut self, index: IfIndex) {
        self.answers.doubt(Instant::now());
        let plain = !self.table.uses(index);
        match self.table.ways.lost(index).filter(|_| plain) {
            Some(gone) => {
                for r in gone {
                    self.touch(r.key.dst);
                    self.table.ways.remove(&r);
                }
            }
            None => self.reread_soon(),
        }
    }

    fn reread_soon(&mut self) {
        self.reread.get_or_insert(Instant::now() + CALM);
    }

    /// Reads links, addresses and routes.
    fn read_all(&mut self, now: Instant) {
        self.reread = None;
        self.trouble = None;
        if let Err(e) = self.read() {
            tracing::warn!(error = %e, "cannot read the kernel's routes; trying on");
            self.trouble = Some(e.to_string());
            self.reread = Some(now + Duration::from_secs(1));
            self.tell_troubles();
        }
    }

    fn read(&mut self) -> Result<(), NetlinkError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let links = self.links.links()?;
        self.names = links.iter().map(|l| (l.index, (l.name, l.up))).collect();
        let addresses = self.links.addresses(None)?;
        self.table.ways.clear_addresses();
        for (_, a) in addresses {
            self.table.ways.address(a.addr, true);
        }
        for a in self.answers.wanted() {
            self.table.ways.address(a, true);
        }
        self.answers.doubt(Instant::now());
        self.find_tunnel();
        for family in Family::BOTH {
            self.touched.extend(self.table.ways.prefixes());
            let (table, touched) = (&mut self.table, &mut self.touched);
            // Never held whole: there may be a million.
            self.routes
                .visit(route::Table::MAIN, family, |seen| match seen {
                    Seen::Begin => {
                        table.ways.clear(family);
                        table.look(family);
                    }
                    Seen::Route(r) if table.is_ours(&r) => table.seen(r),
                    Seen::Route(r) => {
                        touched.insert(r.key.dst);
                        table.ways.insert(r);
                    }
                })?;
            self.table.looked(family);
        }
        self.table.doubt_all();
        Ok(())
    }

    /// Looks up what may have changed, and tells.
    fn settle(&mut self) {
        let moved = self.table.settle();
        if !moved.is_empty() {
            let states = moved.into_iter().map(|(a, w)| (a, self.state(w)));
            self.reports.report(Report::Hops(states.collect()));
        }
        let lacks = self.table.lacks_tunnel();
        if std::mem::replace(&mut self.lacks_tunnel, lacks) != lacks {
            self.tell_troubles();
        }
        let mut told = Vec::new();
        for prefix in std::mem::take(&mut self.touched) {
            let new = self.local(prefix);
            let old = match &new {
                Some(l) => self.locals.insert(prefix, l.clone()),
                None => self.locals.remove(&prefix),
            };
            if old != new {
                told.push((prefix, new));
            }
        }
        if !told.is_empty() {
            self.reports.report(Report::Locals(told));
        }
    }

    fn state(&self, way: Option<Way>) -> HopState {
        let interface = way.as_ref().and_then(hops::interface);
        HopState {
            metric: way.map(|w| w.metric),
            interface: interface.and_then(|i| self.names.get(&i)).map(|n| n.0),
        }
    }

    /// The route of others to a prefix that peers may be told.
    fn local(&self, prefix: Cidr) -> Option<Local> {
        if !is_ordinary(prefix) {
            return None;
        }
        let told = |r: &&Route| r.kind == Kind::Unicast && !self.is_ignored(r);
        let r = self.table.ways.routes_to(prefix).iter().find(told)?;
        Some(Local {
            metric: r.key.metric,
            interface: self.name_of(r),
            connected: r.proto == Proto::KERNEL,
        })
    }

    fn name_of(&self, r: &Route) -> Option<IfName> {
        let dev = r.hops.first()?.dev?;
        self.names.get(&dev).map(|n| n.0)
    }

    fn is_ignored(&self, r: &Route) -> bool {
        let Some(name) = self.name_of(r) else {
            return true;
        };
        let name = name.as_str();
        let matches = |pattern: &str| match pattern.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == pattern,
        };
        // Of pods' interfaces the kernel's own routes say nothing that others need.
        let pods = ["cali*", "kube-ipvs*", "lo"];
        let connected = r.proto == Proto::KERNEL && pods.into_iter().any(matches);
        connected || self.is_transit(r, name) || self.policy.ignored.iter().any(|p| matches(p))
    }

    /// The dataplane's own way to another node, whose speaker tells of it itself; those through
    /// tunnel devices are left to the export policy.
    fn is_transit(&self, r: &Route, name: &str) -> bool {
        let tunnel = name == "tunl0" || [".cali", ".calico"].iter().any(|t| name.ends_with(t));
        r.proto == Proto::OURS && !tunnel && r.hops.iter().any(|h| h.gateway.is_some())
    }

    /// Writes a slice.
    fn write(&mut self) {
        if self.table.waiting() > 0 {
            self.write_slice();
        }
        if self.owed > 0 && self.table.waiting() < MOST / 2 {
            self.waiting.fetch_sub(self.owed, Ordering::Relaxed);
            self.owed = 0;
            self.reports.report(Report::Room);
        }
    }

    fn write_slice(&mut self) {
        let ops = &mut self.plan.ops;
        ops.clear();
        let before = !self.failures.is_empty();
        let (failures, reasons) = (&mut self.failures, &mut self.reasons);
        self.table.steps(SLICE, ops, |prefix| {
            // Tried again, or wanted no more.
            if before && failures.remove(&prefix) {
                reasons.remove(&prefix);
            }
        });
        let failures = self.routes.apply(&self.plan);
        for f in failures {
            let prefix = self.table.failed(&f.op);
            self.failures.insert(prefix);
            if self.reasons.len() < TOLD {
                self.reasons.insert(prefix, f.error.to_string());
            }
        }
        if before || !self.failures.is_empty() {
            self.tell_troubles();
        }
        match (self.failures.is_empty(), self.retry) {
            (true, _) => self.retry = None,
            (false, None) => self.retry = Some((Instant::now() + RETRY, RETRY)),
            (false, Some(_)) => {}
        }
    }

    fn try_again(&mut self) {
        let after = self.retry.map_or(RETRY, |(_, d)| (d * 2).min(RETRY_MOST));
        self.retry = Some((Instant::now() + after, after));
        let failed = self.failures.iter();
        failed.for_each(|c| self.table.again(*c));
    }

    fn tell_troubles(&self) {
        let mut all: Vec<String> = self.trouble.iter().cloned().collect();
        if self.lacks_tunnel {
            all.push(format!(
                "there is no interface {TUNNEL}: routes of pools with IP in IP wait for it"
            ));
        }
        all.extend(self.answers.troubles().iter().cloned());
        all.extend(self.reasons.values().cloned());
        let more = self.failures.len() - self.reasons.len();
        if more > 0 {
            all.push(format!("{more} more routes are not in the kernel"));
        }
        self.reports.report(Report::Troubles(all));
    }
}

/// Neither of one link only nor of groups.
fn is_ordinary(prefix: Cidr) -> bool {
    match prefix.addr() {
        IpAddr::V4(a) => !a.is_link_local() && !a.is_multicast() && !a.is_loopback(),
        IpAddr::V6(a) => !a.is_unicast_link_local() && !a.is_multicast() && !a.is_loopback(),
    }
}
