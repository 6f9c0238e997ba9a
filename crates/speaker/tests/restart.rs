//! Restarts of either side while packets flow through learned routes: none is lost. Wants root,
//! `bird`, `frr`, `gobgpd`, `exabgp` and `ping`.

mod foreign;
mod support;

use foreign::flow::Path;
use foreign::ours::{held, learned};
use foreign::{Bird, ExaBgp, Frr, GoBgp, OURS, Stranger, THEIRS, US};
use model::Update;
use netlink::netns::NetNs;
use speaker::Kernel;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use support::{Ours, peer, run, settings, until, world};

/// Set in the process that is only a speaker.
const CHILD: &str = "MANX_TEST_SPEAKER";

fn peers() -> Vec<Update> {
    let mut all = world();
    all.push(peer("four", "10.0.0.2", 65001));
    all.push(peer("six", "fd00::2", 65001));
    all
}

/// Not a test: the speaker that gets killed.
#[test]
#[ignore = "started by the others, as a process of its own"]
fn child() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let here = NetNs::current().unwrap_or_else(|e| panic!("{e}"));
    let _ours = Ours::start(&here, settings().with_kernel(Kernel::default()), peers());
    // Until whoever has started it ends.
    let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
}

/// A speaker as a process; killed with its value.
struct Process(Child);

impl Process {
    fn start(ns: &NetNs) -> Self {
        let this = std::env::current_exe().unwrap_or_else(|e| panic!("{e}"));
        let mut command = ns.command(this).unwrap_or_else(|e| panic!("{e}"));
        command
            .args(["--exact", "child", "--ignored"])
            .env(CHILD, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Self(command.spawn().unwrap_or_else(|e| panic!("{e}")))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Routes of before that nobody tells any more, and whether they are there.
const FORMER: [(&str, &str); 2] = [
    ("203.0.113.0/24", "10.0.0.2"),
    ("2001:db8:9::/48", "fd00::2"),
];

fn former(ns: &NetNs) -> Vec<bool> {
    let all = run(ns, "ip", "-4 route show") + &run(ns, "ip", "-6 route show");
    let there = FORMER.map(|(p, _)| all.contains(p));
    there.to_vec()
}

fn we_are_killed<S: Stranger>(restart: Option<u32>) {
    let (path, them) = Path::beside::<S>(restart);
    let ours = Process::start(&path.wire.here);
    path.works();
    them.established();
    let kept = |p: &str| assert_eq!(them.paths(p).len(), 1, "{p}");
    let _again = path.nothing_is_lost(|| {
        drop(ours);
        let up = || US.map(|us| them.is_up(us));
        until("the loss is seen there", up, |u| *u == [false; 2]);
        for p in OURS {
            kept(p);
        }
        for (prefix, hop) in FORMER {
            let route = format!("route add {prefix} via {hop} proto bird");
            run(&path.wire.here, "ip", &route);
        }
        let again = Process::start(&path.wire.here);
        them.established();
        for p in OURS {
            kept(p);
        }
        // It is over when what nobody tells is gone.
        let there = || former(&path.wire.here);
        until("the rest goes", there, |f| *f == [false; 2]);
        again
    });
    for p in OURS {
        kept(p);
    }
}

fn they_are_killed<S: Stranger>() {
    let (path, mut them) = Path::with::<S>();
    let settings = settings().with_kernel(Kernel {
        absent: Duration::from_secs(3),
        ..Kernel::default()
    });
    let ours = Ours::start(&path.wire.here, settings, peers());
    path.works();
    ours.established(2);
    path.nothing_is_lost(|| {
        them.kill();
        let down = |s: &Vec<(String, Option<Instant>)>| s.iter().all(|(_, t)| t.is_none());
        until("the loss is seen here", || ours.since(), down);
        let is_stale = |p| held(&ours, p).is_some_and(|h| h.stale);
        assert!(THEIRS.into_iter().all(is_stale));
        them.recover();
        ours.established(2);
        for p in THEIRS {
            learned(&ours, p);
        }
    });
}

#[test]
fn we_are_killed_and_start_again_beside_bird() {
    we_are_killed::<Bird>(Some(60));
}

#[test]
fn we_are_killed_and_start_again_beside_gobgp() {
    we_are_killed::<GoBgp>(Some(60));
}

/// Its OPEN says that it restarts itself; its routes come a second after the session.
#[test]
fn we_are_killed_and_start_again_beside_frr() {
    we_are_killed::<Frr>(Some(60));
}

/// Unless told more, it only helps others that restart.
#[test]
fn we_are_killed_and_start_again_beside_frr_that_only_helps() {
    we_are_killed::<Frr>(None);
}

#[test]
fn bird_is_killed_and_starts_again() {
    they_are_killed::<Bird>();
}

#[test]
fn frr_is_killed_and_starts_again() {
    they_are_killed::<Frr>();
}

#[test]
fn gobgp_is_killed_and_starts_again() {
    they_are_killed::<GoBgp>();
}

#[test]
fn exabgp_is_killed_and_starts_again() {
    they_are_killed::<ExaBgp>();
}
