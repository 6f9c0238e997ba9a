//! Speakers that are not ours, in namespaces of their own: BIRD, FRR, GoBGP, ExaBGP, and a peer
//! that sends whatever octets a test gives it.
//!
//! Promises: each ends with its value; what it says of routes is read from its own tools. [`cases`]
//! has what is asked of every one of them.
#![allow(unreachable_pub, reason = "a module of test programs")]
#![allow(dead_code, unused_imports, reason = "each test file uses some of it")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests are tests"
)]

pub mod bird;
pub mod cases;
pub mod exabgp;
pub mod flow;
pub mod frr;
pub mod gobgp;
pub mod ours;
pub mod raw;

pub use bird::Bird;
pub use exabgp::ExaBgp;
pub use frr::Frr;
pub use gobgp::GoBgp;

use crate::support::{PATIENCE, until};
use netlink::netns::NetNs;
use serde_json::Value;

/// How long anything is waited for.
pub const DEADLINE: std::time::Duration = PATIENCE;

/// Our addresses and theirs, by family; the names of our resources for them.
pub const US: [&str; 2] = ["10.0.0.1", "fd00::1"];
pub const THEM: [(&str, &str); 2] = [("four", "10.0.0.2"), ("six", "fd00::2")];
/// What they tell in most cases.
pub const THEIRS: [&str; 2] = ["192.0.2.0/24", "2001:db8::/48"];
/// What we tell in most cases.
pub const OURS: [&str; 2] = ["172.16.1.0/26", "fd10::40/122"];

/// Tests of one speaker: each is a case that every speaker is asked.
#[macro_export]
macro_rules! asked {
    ($who:ty: $($case:ident),+ $(,)?) => {
        $(#[test] fn $case() { foreign::cases::$case::<$who>(); })+
    };
}

/// Their side of a session of each family with us, as AS 64512.
#[derive(Debug, Clone, Default)]
pub struct Side {
    /// Their AS.
    pub asn: u32,
    /// The key of both sessions.
    pub key: Option<&'static str>,
    /// What comes must have come one hop.
    pub near: bool,
    /// They wait for us.
    pub passive: bool,
    /// Graceful restart, with the time to come back in seconds.
    pub restart: Option<u32>,
    /// Long-lived graceful restart, in seconds.
    pub long_lived: Option<u32>,
    /// Several paths, both ways.
    pub several: bool,
    /// Long messages.
    pub extended: bool,
    /// IPv6 routes over IPv4 and the other way around, instead of each over its own.
    pub crossed: bool,
    /// Their role, and whether they insist on ours.
    pub role: Option<(&'static str, bool)>,
    /// Peers of one's own making: where, which AS. They call.
    pub feeders: Vec<(&'static str, u16)>,
    /// Learned routes are in the kernel, where the speaker can.
    pub kernel: bool,
}

impl Side {
    /// One that waits for us, so that no second connection can come later.
    pub fn quiet(asn: u32) -> Self {
        Self {
            passive: true,
            ..Self::of(asn)
        }
    }

    pub fn of(asn: u32) -> Self {
        Self {
            asn,
            ..Self::default()
        }
    }

    /// Their own address as the next hop of a route.
    fn hop(&self, prefix: &str) -> &'static str {
        match prefix.contains(':') || self.crossed {
            true => THEM[1].1,
            false => THEM[0].1,
        }
    }
}

/// What a speaker holds of a route, in one form for all of them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Seen {
    pub path: Vec<u32>,
    pub hop: String,
    /// Some show 0 where there is none; so 0 is none.
    pub med: Option<u32>,
    pub local_pref: Option<u32>,
    pub communities: Vec<String>,
    pub large: Vec<String>,
    pub extended: Vec<String>,
    pub originator: Option<String>,
    pub clusters: Vec<String>,
}

/// A speaker of somebody else's.
pub trait Stranger: Sized {
    /// Whether it writes what it learns to the kernel, when [`Side::kernel`] asks for it.
    const IN_KERNEL: bool = false;

    /// Starts it, and waits until it answers.
    fn start(ns: &NetNs, side: &Side) -> Self;

    /// Tells a route of its own: plain, or with all attributes that there are
    /// ([`cases::attributes`]).
    fn tell(&self, prefix: &str, coloured: bool);
    /// Takes it back.
    fn untell(&self, prefix: &str);

    /// Every path to a prefix that is from somebody else.
    fn paths(&self, prefix: &str) -> Vec<Seen>;
    /// Whether a path to a prefix has a community.
    fn carries(&self, prefix: &str, community: &str) -> bool {
        let has = |p: &Seen| p.communities.iter().any(|c| c == community);
        self.paths(prefix).iter().any(has)
    }
    /// How many IPv4 routes it has of us.
    fn count(&self) -> Option<usize>;
    /// What it knows of its session at this address of ours, as text.
    fn session(&self, us: &str) -> String;
    fn is_up(&self, us: &str) -> bool;

    /// Ends all sessions, and calls again.
    fn reset(&self);
    /// Ends the session at this address of ours, with words if it can.
    fn end(&self, us: &str, words: &str);
    /// Asks us to tell IPv4 again; `false`: it cannot.
    fn refresh(&self) -> bool;

    /// At once, without a word.
    fn kill(&mut self);
    /// After [`Stranger::kill`], as one that restarts gracefully.
    fn recover(&mut self);

    #[track_caller]
    fn established(&self) {
        let up = || US.map(|us| self.is_up(us));
        until("their sessions", up, |s| *s == [true; 2]);
    }

    #[track_caller]
    fn learns(&self, prefix: &str) -> Seen {
        until("a route there", || self.paths(prefix), |p| !p.is_empty())[0].clone()
    }

    #[track_caller]
    fn forgets(&self, prefix: &str) {
        until("no route there", || self.paths(prefix), Vec::is_empty);
    }
}

fn number(v: &Value) -> Option<u32> {
    v.as_u64().and_then(|n| u32::try_from(n).ok())
}

/// 0 is none.
fn med(v: &Value) -> Option<u32> {
    number(v).filter(|m| *m != 0)
}

fn list(v: &Value) -> impl Iterator<Item = &Value> {
    v.as_array().into_iter().flatten()
}

fn text(v: &Value) -> String {
    v.as_str().unwrap_or_default().to_owned()
}

fn words(v: &Value) -> Vec<String> {
    let each = v.as_str().unwrap_or_default().split_whitespace();
    let mut all: Vec<String> = each.map(str::to_owned).collect();
    all.sort();
    all
}

/// `ipv4` or `ipv6`, as most tools say it.
pub fn family(prefix: &str) -> &'static str {
    if prefix.contains(':') { "ipv6" } else { "ipv4" }
}

/// Which family's routes go over the session at this address of ours.
fn carried(side: &Side, us: &str) -> &'static str {
    match (side.crossed, us.contains(':')) {
        (false, true) | (true, false) => "ipv6",
        (false, false) | (true, true) => "ipv4",
    }
}
