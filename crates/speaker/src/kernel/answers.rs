//! Addresses that workloads call, as routes of the local table: the node answers at them on every
//! interface, and they are addresses of none, so that nobody takes them for the node's.
//!
//! Promises: what is ours is told by type, table and protocol alone; where another has made an address
//! local it is left to him, and made anew when his is gone; what cannot be written is said and tried
//! again. A run before is followed, not flushed.
//!
//! Never: touches a route of others.

use net::{Cidr, Family, IfIndex};
use netlink::NetlinkError;
use route::{Hop, Kind, Proto, Route, Scope, Table};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Where the kernel keeps what it delivers to itself (`RT_TABLE_LOCAL`).
const LOCAL: Table = Table(libc::RT_TABLE_LOCAL as u32);
/// What failed is tried again after this, then after twice as long, and so on.
const RETRY: Duration = Duration::from_millis(500);
const RETRY_MOST: Duration = Duration::from_secs(30);
/// The interface of what stays on the host.
pub(super) const LOOPBACK: &str = "lo";
/// Several changes come together.
const CALM: Duration = Duration::from_millis(30);

/// What is wanted, and what stands in the way.
#[derive(Debug)]
pub(super) struct Answers {
    proto: Proto,
    /// `None` until the resources are known: nothing is removed before.
    wanted: Option<BTreeSet<IpAddr>>,
    due: Option<Instant>,
    wait: Duration,
    failed: Vec<String>,
}

impl Answers {
    pub(super) const fn new(proto: Proto) -> Self {
        Self {
            proto,
            wanted: None,
            due: None,
            wait: RETRY,
            failed: Vec::new(),
        }
    }

    /// These addresses and no others.
    pub(super) fn want(&mut self, wanted: BTreeSet<IpAddr>, now: Instant) {
        if self.wanted.as_ref() != Some(&wanted) {
            self.wanted = Some(wanted);
            self.due = Some(now);
        }
    }

    /// The addresses that are wanted.
    pub(super) fn wanted(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.wanted.iter().flatten().copied()
    }

    /// When there is something to do.
    pub(super) const fn due(&self) -> Option<Instant> {
        self.due
    }

    /// A route has gone from the kernel.
    pub(super) fn gone(&mut self, r: &Route, now: Instant) {
        if r.key.table == LOCAL && self.wanted().any(|a| Cidr::host(a) == r.key.dst) {
            self.doubt(now);
        }
    }

    /// Routes may have gone without a word.
    pub(super) fn doubt(&mut self, now: Instant) {
        if self.wanted().next().is_some() {
            let soon = now + CALM;
            self.due = Some(self.due.map_or(soon, |t| t.min(soon)));
        }
    }

    /// What stands in the way.
    pub(super) fn troubles(&self) -> &[String] {
        &self.failed
    }

    /// Does what is due; whether something else stands in the way now.
    pub(super) fn settle(
        &mut self,
        routes: &mut route::Handle,
        lo: Option<IfIndex>,
        now: Instant,
    ) -> bool {
        let (Some(_), Some(wanted)) = (self.due.take_if(|t| *t <= now), &self.wanted) else {
            return false;
        };
        let mut failed = Vec::new();
        for family in Family::BOTH {
            let mine = wanted.iter().copied();
            let mine = mine.filter(|a| Family::of(*a) == family).collect();
            match routes.list(LOCAL, family) {
                Ok(there) => {
                    for (verb, r) in steps(&there, &mine, self.proto, lo) {
                        if let Err(e) = verb.apply(routes, &r) {
                            let at = r.key.dst.addr();
                            failed.push(format!("{} workloads at {at}: {e}", verb.word()));
                        }
                    }
                }
                Err(e) => failed.push(format!("answer workloads at {mine:?}: {e}")),
            }
        }
        if lo.is_none() && !wanted.is_empty() {
            failed.push(format!(
                "answer workloads at {wanted:?}: there is no interface {LOOPBACK}"
            ));
        }
        self.wait = if failed.is_empty() {
            RETRY
        } else {
            self.due = Some(now + self.wait);
            (self.wait * 2).min(RETRY_MOST)
        };
        std::mem::replace(&mut self.failed, failed) != self.failed
    }
}

/// What is done with a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Add,
    Remove,
}

impl Verb {
    const fn word(self) -> &'static str {
        match self {
            Self::Add => "answer",
            Self::Remove => "answer no more",
        }
    }

    fn apply(self, routes: &mut route::Handle, r: &Route) -> Result<(), NetlinkError> {
        match self {
            Self::Add => routes.install(r, false),
            Self::Remove => routes.delete(r),
        }
    }
}

/// The route by which the kernel answers at an address.
fn answer(at: IpAddr, lo: IfIndex, proto: Proto) -> Route {
    Route {
        kind: Kind::Local,
        scope: Scope::Host,
        ..Route::unicast(LOCAL, Cidr::host(at), Hop::dev(lo), proto)
    }
    .normal()
}

/// From what is in the local table to what is wanted, of one family.
fn steps(
    there: &[Route],
    wanted: &BTreeSet<IpAddr>,
    proto: Proto,
    lo: Option<IfIndex>,
) -> Vec<(Verb, Route)> {
    let ours = |r: &&Route| r.proto == proto && r.kind == Kind::Local;
    let whole = |r: &Route| r.key.dst == Cidr::host(r.key.dst.addr());
    let unwanted = |r: &&Route| !whole(r) || !wanted.contains(&r.key.dst.addr());
    let gone = there.iter().filter(ours).filter(unwanted).cloned();
    let new = wanted.iter().filter_map(|at| {
        let r = answer(*at, lo?, proto);
        // Of several routes of a key the kernel would look at one: whoever came first has it.
        let answered = |o: &Route| o.key == r.key && o.kind == Kind::Local;
        (!there.iter().any(answered)).then_some((Verb::Add, r))
    });
    gone.map(|r| (Verb::Remove, r)).chain(new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Proto = Proto(12);

    fn lo() -> IfIndex {
        IfIndex::new(1).expect("not 0")
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn said(there: &[Route], wanted: &[&str]) -> Vec<String> {
        let wanted = wanted.iter().map(|a| ip(a)).collect();
        let all = steps(there, &wanted, OURS, Some(lo()));
        let say = |(v, r): (Verb, Route)| format!("{v:?} {}", r.key.dst);
        all.into_iter().map(say).collect()
    }

    #[test]
    fn what_is_there_is_left_and_what_is_not_wanted_goes() {
        for (a, b) in [("169.254.7.7", "169.254.7.8"), ("fd07::7", "fd07::8")] {
            let whole = |t: &str| format!("{}", Cidr::host(ip(t)));
            assert_eq!(said(&[], &[a]), [format!("Add {}", whole(a))]);
            let there = [answer(ip(a), lo(), OURS)];
            assert!(said(&there, &[a]).is_empty());
            let moved = [format!("Remove {}", whole(a)), format!("Add {}", whole(b))];
            assert_eq!(said(&there, &[b]), moved);
            assert_eq!(said(&there, &[]), moved[..1]);
        }
    }

    #[test]
    fn what_others_have_is_neither_removed_nor_doubled() {
        let theirs = answer(ip("169.254.7.7"), lo(), Proto::KERNEL);
        assert!(said(std::slice::from_ref(&theirs), &["169.254.7.7"]).is_empty());
        assert!(said(std::slice::from_ref(&theirs), &[]).is_empty());
        // The kernel's own for IPv6 has another metric, and may go without a word.
        let six = answer(ip("fd07::7"), lo(), Proto::KERNEL);
        let six = Route {
            key: route::RouteKey {
                metric: 0,
                ..six.key
            },
            ..six
        };
        assert_eq!(said(&[six], &["fd07::7"]), ["Add fd07::7/128"]);
    }
}
