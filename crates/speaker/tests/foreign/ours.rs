//! Our side of a session with a stranger: how it is set up, what it holds, what it tells.

use super::{Seen, THEM};
use crate::support::{Ours, cidr, ip, peer_with, until, world};
use bgp::peer::PeerConfig;
use bgp::router::Event;
use model::{
    BgpConfig, BgpFilter, BgpPeer, Community, FilterOperation, FilterRule, PrefixCommunities,
    Update,
};
use net::Asn;
use netlink::netns::NetNs;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Communities on all that is ours.
pub fn coloured(config: &mut BgpConfig) {
    let communities = || vec![Community::Standard(64512, 7), Community::Large(64512, 1, 2)];
    config.prefix_communities = ["172.16.0.0/16", "fd10::/64"]
        .map(|p| PrefixCommunities {
            cidr: cidr(p),
            communities: communities(),
        })
        .to_vec();
}

/// A filter by which a peer is told all that is known, with these operations.
pub fn everything(name: &str, operations: Vec<FilterOperation>) -> Update {
    let rule = FilterRule {
        accept: true,
        operations,
        ..FilterRule::default()
    };
    let filter = BgpFilter {
        export: [vec![rule.clone()], vec![rule]],
        ..BgpFilter::default()
    };
    Update::BgpFilter(name.into(), Some(filter))
}

/// A route as we hold it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub seen: Seen,
    pub stale: bool,
}

/// The best route to a prefix in the form in which strangers' are compared.
pub fn held(ours: &Ours, prefix: &str) -> Option<Held> {
    let prefix = cidr(prefix);
    let look = move |v: &speaker::View<'_>| {
        let best = v.router?.best(prefix)?;
        let a = best.attributes;
        let seen = Seen {
            path: a.as_path.asns().map(|n| n.0).collect(),
            hop: a.next_hop.addr().to_string(),
            med: a.med.filter(|m| *m != 0),
            local_pref: a.local_pref,
            communities: a.communities.iter().map(|c| c.to_string()).collect(),
            large: a.large_communities.iter().map(|c| c.to_string()).collect(),
            extended: a
                .rare()
                .ext_communities
                .iter()
                .map(|c| c.to_string())
                .collect(),
            originator: a.rare().originator_id.map(|i| i.to_string()),
            clusters: a
                .rare()
                .cluster_list
                .iter()
                .map(ToString::to_string)
                .collect(),
        };
        Some(Held {
            seen,
            stale: best.stale,
        })
    };
    ours.handle.look(look).unwrap()
}

/// Waits for a route.
#[track_caller]
pub fn learned(ours: &Ours, prefix: &str) -> Seen {
    let ask = || held(ours, prefix).filter(|h| !h.stale);
    until("a fresh route here", ask, Option::is_some)
        .unwrap()
        .seen
}

/// How many prefixes of a family are in use.
pub fn in_use(ours: &Ours, family: net::Family) -> usize {
    let look = move |v: &speaker::View<'_>| v.router.map_or(0, |r| r.routes(family).count());
    ours.handle.look(look).unwrap()
}

/// The paths of AS numbers of every path to a prefix that may be used.
pub fn paths(ours: &Ours, prefix: &str) -> Vec<String> {
    let prefix = cidr(prefix);
    let look = move |v: &speaker::View<'_>| {
        let all = v.router.and_then(|r| r.explain(prefix));
        let all = all.map_or_else(Vec::new, |e| e.paths);
        let path = |p: &bgp::router::PathReport| p.attributes.as_path.to_string();
        let mut out: Vec<String> = all.iter().map(path).collect();
        out.sort();
        out
    };
    ours.handle.look(look).unwrap()
}

/// What one peer's session is like.
pub fn status(ours: &Ours, addr: &str) -> bgp::router::PeerStatus {
    let addr = ip(addr);
    let look = move |v: &speaker::View<'_>| {
        let r = v.router?;
        let mut all = r.peers();
        all.find(|p| r.peer_config(p.peer).is_some_and(|c| c.addr == addr))
    };
    ours.handle.look(look).unwrap().unwrap()
}

/// Ends all sessions with a word, and calls again.
pub fn reset(ours: &Ours) {
    let reset = |r: &mut bgp::router::Router, now| {
        let ids: Vec<_> = r.peers().map(|p| p.peer).collect();
        ids.into_iter()
            .for_each(|id| r.reset_peer(id, "again", now));
    };
    ours.handle.act(reset).unwrap();
}

/// Asks all peers to tell all again.
pub fn refresh(ours: &Ours) {
    let ask = |r: &mut bgp::router::Router, now: Instant| {
        let ids: Vec<_> = r.peers().map(|p| p.peer).collect();
        for id in ids {
            for family in net::Family::BOTH {
                r.request_refresh(id, family, now);
            }
        }
    };
    ours.handle.act(ask).unwrap();
}

/// What node `a` follows: peers of both families of an AS, changed, that are told all that is known
/// with one AS more in front.
pub fn peers(asn: u32, change: impl Fn(&mut BgpPeer)) -> Vec<Update> {
    let mut all = world();
    all.push(crate::support::config(coloured));
    let prepend = FilterOperation::Prepend(vec![Asn(64999)]);
    all.push(everything("all", vec![prepend]));
    all.extend(THEM.map(|(name, at)| {
        peer_with(name, at, asn, |p| {
            p.filters = vec!["all".into()];
            change(p);
        })
    }));
    all
}

/// Changes how the router speaks with every peer: what no resource can say.
pub fn tune(ours: &Ours, change: impl Fn(&mut PeerConfig) + Send + 'static) {
    let act = move |r: &mut bgp::router::Router, now: Instant| {
        let peers: Vec<_> = r.peers().map(|p| p.peer).collect();
        for id in peers {
            if let Some(mut config) = r.peer_config(id).cloned() {
                change(&mut config);
                r.configure_peer(id, config, now);
            }
        }
    };
    ours.handle.act(act).unwrap();
}

/// Calls again at once instead of after seconds, also after errors.
pub fn impatient(c: &mut PeerConfig) {
    c.timers.connect_retry = Duration::from_millis(200);
    c.timers.reconnect = Duration::from_millis(50);
    c.timers.error_wait_min = Duration::from_millis(50);
    c.timers.error_wait_max = Duration::from_millis(50);
}

/// All events from now on, each with the peer's name.
pub fn events(ours: &Ours) -> Arc<Mutex<Vec<(String, Event)>>> {
    let all: Arc<Mutex<Vec<(String, Event)>>> = Arc::default();
    let into = all.clone();
    ours.handle
        .watch(move |name, event| {
            into.lock().unwrap().push((name.to_owned(), event.clone()));
            true
        })
        .unwrap();
    all
}

/// A counter of the kernel's, of `TcpExt`.
pub fn counter(ns: &NetNs, name: &str) -> u64 {
    let text = ns
        .run(|| std::fs::read_to_string("/proc/thread-self/net/netstat"))
        .unwrap()
        .unwrap();
    let mut lines = text.lines().filter(|l| l.starts_with("TcpExt:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let mut both = names.split_whitespace().zip(values.split_whitespace());
    both.find(|(n, _)| *n == name).unwrap().1.parse().unwrap()
}
