//! Reading and changing routes; the only part of this room with a socket.
//!
//! Promises: a table is read whole or not at all; every step of a plan is tried.
//!
//! Never: decides anything.

mod encode;

use crate::plan::{Actual, Op, Plan};
use crate::value::{Event, Ownership, Route, Table};
use net::Family;
use netlink::netns::NetNs;
use netlink::wire::Message;
use netlink::{Cause, Errno, EventSocket, NetlinkError, Protocol, Received, Socket};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Instant;

const RTNLGRP_IPV4_ROUTE: u32 = 7;
const RTNLGRP_IPV6_ROUTE: u32 = 11;

/// A step of a plan that failed. It stays in the next plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The step.
    pub op: Op,
    /// Why.
    pub error: NetlinkError,
}

/// What comes of a table that is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// Reading begins, or begins anew.
    Begin,
    /// A route.
    Route(Route),
}

/// Access to the routes of one namespace. Calls block while the kernel works, about two
/// microseconds per route; cut a long plan if other work must go on in between.
#[derive(Debug)]
pub struct Handle(Socket);

impl Handle {
    /// For the calling thread's namespace.
    ///
    /// # Errors
    /// If the kernel gives no socket.
    pub fn open() -> Result<Self, NetlinkError> {
        Socket::open(Protocol::Route).map(Self)
    }

    /// For `ns`; the calling thread stays where it is.
    ///
    /// # Errors
    /// As [`Handle::open`], or if the namespace cannot be entered.
    pub fn open_in(ns: &NetNs) -> Result<Self, NetlinkError> {
        Socket::open_in(Protocol::Route, ns).map(Self)
    }

    /// All routes of a table and family, whoever made them.
    ///
    /// # Errors
    /// If the kernel does not answer in full.
    pub fn list(&mut self, table: Table, family: Family) -> Result<Vec<Route>, NetlinkError> {
        let mut all = Vec::new();
        self.visit(table, family, |seen| match seen {
            Seen::Begin => all.clear(),
            Seen::Route(r) => all.push(r),
        })?;
        Ok(all)
    }

    /// The same one by one, for tables that are too large to be held twice: after [`Seen::Begin`]
    /// each route as the kernel tells it; another `Begin` says that the table changed meanwhile and
    /// what came before does not count.
    ///
    /// # Errors
    /// If the kernel does not answer in full; then nothing counts.
    pub fn visit(
        &mut self,
        table: Table,
        family: Family,
        mut each: impl FnMut(Seen),
    ) -> Result<(), NetlinkError> {
        let wanted = |r: &Route| r.key.table == table && r.family() == family;
        let read = self.0.visit(
            format_args!("list IPv{} routes of table {table}", family_digit(family)),
            encode::list(table, family),
            |seen| match seen {
                netlink::Seen::Begin => each(Seen::Begin),
                netlink::Seen::Entry(f) => {
                    if let Some(r) = encode::parse(f).filter(wanted) {
                        each(Seen::Route(r));
                    }
                }
            },
        );
        match read {
            // A table in which nothing was ever installed does not exist.
            Err(e) if e.is(Errno::ENOENT) => Ok(()),
            other => other,
        }
    }

    /// The route that packets to `to` take now, of whatever table; `None` if there is no way.
    ///
    /// # Errors
    /// If the kernel refuses for another reason, or its answer cannot be read.
    pub fn lookup(&mut self, to: IpAddr) -> Result<Option<Route>, NetlinkError> {
        let name = format_args!("look up the route to {to}");
        match self.0.query(name, encode::lookup(to), encode::parse) {
            Ok(r) => Ok(Some(r)),
            Err(e) if e.is(Errno::ENETUNREACH) || e.is(Errno::EHOSTUNREACH) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// What a plan needs to know of a table and family.
    ///
    /// # Errors
    /// If the kernel does not answer in full.
    pub fn read(
        &mut self,
        table: Table,
        family: Family,
        ownership: &Ownership,
    ) -> Result<Actual, NetlinkError> {
        let mut actual = Actual::default();
        for r in self.list(table, family)? {
            if ownership.owns(&r) {
                actual.ours.push(r);
            } else {
                actual.foreign.insert(r.key);
            }
        }
        Ok(actual)
    }

    /// Does the steps in order. All are tried; those that fail are returned.
    pub fn apply(&mut self, plan: &Plan) -> Vec<Failure> {
        let mut failures = Vec::new();
        self.run(&plan.ops, &mut failures);
        failures
    }

    fn run(&mut self, ops: &[Op], failures: &mut Vec<Failure>) {
        let mut left = ops.iter();
        let next = |m: &mut Message| left.next().map(|op| write(m, op)).is_some();
        let refused = |at: usize, cause| failures.extend(failure(&ops[at], cause));
        self.0.stream(next, refused);
    }

    /// Installs one route; an own one of the same key is replaced if `replace`.
    ///
    /// # Errors
    /// `EEXIST` if the key is taken and `replace` is not set; else the kernel's refusal.
    pub fn install(&mut self, r: &Route, replace: bool) -> Result<(), NetlinkError> {
        let op = if replace {
            Op::Replace(r.clone())
        } else {
            Op::Add(r.clone())
        };
        self.one(&op)
    }

    /// Removes one route; absent is as good.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn delete(&mut self, r: &Route) -> Result<(), NetlinkError> {
        self.one(&Op::Delete(r.clone()))
    }

    fn one(&mut self, op: &Op) -> Result<(), NetlinkError> {
        let mut failures = Vec::new();
        self.run(std::slice::from_ref(op), &mut failures);
        failures.pop().map_or(Ok(()), |f| Err(f.error))
    }
}

const fn family_digit(family: Family) -> u8 {
    match family {
        Family::V4 => 4,
        Family::V6 => 6,
    }
}

fn write(m: &mut Message, op: &Op) {
    const CREATE: i32 = libc::NLM_F_CREATE;
    match op {
        Op::Add(r) => encode::change(m, libc::RTM_NEWROUTE, CREATE | libc::NLM_F_EXCL, r),
        Op::Replace(r) => encode::change(m, libc::RTM_NEWROUTE, CREATE | libc::NLM_F_REPLACE, r),
        Op::Delete(r) => encode::change(m, libc::RTM_DELROUTE, 0, r),
    }
}

fn failure(op: &Op, cause: Cause) -> Option<Failure> {
    let (verb, r) = match op {
        Op::Add(r) => ("add", r),
        Op::Replace(r) => ("replace", r),
        Op::Delete(r) => ("remove", r),
    };
    let error = NetlinkError {
        operation: format!("{verb} route {r}"),
        cause,
    };
    let gone = [Errno::ESRCH, Errno::ENODEV, Errno::ENOENT]
        .into_iter()
        .any(|e| error.is(e));
    let done = matches!(op, Op::Delete(_)) && gone;
    (!done).then(|| Failure {
        op: op.clone(),
        error,
    })
}

/// A stream of [`Event`]s: routes of all tables of one namespace.
///
/// The kernel drops the IPv4 routes of an interface that goes down, or loses an address,
/// without a word: read the table again on such link events.
#[derive(Debug)]
pub struct Monitor {
    socket: EventSocket,
    waiting: VecDeque<Event>,
}

impl Monitor {
    /// Subscribes in the calling thread's namespace. Open first, then read the tables.
    ///
    /// # Errors
    /// If the kernel gives no socket.
    pub fn open() -> Result<Self, NetlinkError> {
        EventSocket::open(Protocol::Route, &[RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE])
            .map(Self::over)
    }

    /// Subscribes in `ns`.
    ///
    /// # Errors
    /// As [`Monitor::open`], or if the namespace cannot be entered.
    pub fn open_in(ns: &NetNs) -> Result<Self, NetlinkError> {
        EventSocket::open_in(
            Protocol::Route,
            &[RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE],
            ns,
        )
        .map(Self::over)
    }

    /// Sees no more of what `writer` changes: it knows itself, and a large change of one's own does
    /// not overrun the queue. What the kernel does by itself, such as when a link goes, is seen. One
    /// writer at most.
    ///
    /// # Errors
    /// If the kernel takes no filter.
    pub fn ignore(&mut self, writer: &Handle) -> Result<(), NetlinkError> {
        self.socket.ignore(&writer.0)
    }

    const fn over(socket: EventSocket) -> Self {
        Self {
            socket,
            waiting: VecDeque::new(),
        }
    }

    /// The next event, if one waits.
    ///
    /// # Errors
    /// If the socket fails; an overrun is no error but [`Event::Resync`].
    pub fn try_next(&mut self) -> Result<Option<Event>, NetlinkError> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Ok(Some(event));
            }
            let waiting = &mut self.waiting;
            let read = self.socket.try_next(|f| {
                waiting.extend(encode::parse(f).map(|r| {
                    if f.kind == libc::RTM_NEWROUTE {
                        Event::Route(r)
                    } else {
                        Event::Gone(r)
                    }
                }));
            });
            match read? {
                Received::Some => {}
                Received::Nothing => return Ok(None),
                Received::Overrun => return Ok(Some(Event::Resync)),
            }
        }
    }

    /// The next event, awaited on a tokio runtime with I/O. Cancel-safe.
    ///
    /// # Errors
    /// As [`Monitor::try_next`].
    pub async fn next(&mut self) -> Result<Event, NetlinkError> {
        loop {
            if let Some(event) = self.try_next()? {
                return Ok(event);
            }
            self.socket.readable().await?;
        }
    }

    /// The next event, or `None` at the deadline, for plain threads.
    ///
    /// # Errors
    /// As [`Monitor::try_next`].
    pub fn next_before(&mut self, deadline: Instant) -> Result<Option<Event>, NetlinkError> {
        loop {
            if let Some(event) = self.try_next()? {
                return Ok(Some(event));
            }
            if !self.socket.wait(deadline) {
                return Ok(None);
            }
        }
    }
}
