//! Policy, several paths, refreshes, limits, next hops.

use crate::net::Net;
use crate::routes::{c, own};
use bgp::attr::{Community, NextHop};
use bgp::decision::Step;
use bgp::export::Blocked;
use bgp::peer::{AddPathSend, LimitAction, NextHopMode, PrefixLimit};
use bgp::policy::{Condition, Operation, Policy, PrefixMatch, SourceKind, Term, Verdict};
use bgp::rib::HopState;
use bgp::router::{Event, PathStatus, Refusal};
use bgp::{Asn, Cidr, Family};
use std::sync::Arc;
use std::time::Duration;

const UP: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(2);

fn term(
    name: &str,
    conditions: Vec<Condition>,
    operations: Vec<Operation>,
    verdict: Option<Verdict>,
) -> Term {
    Term {
        name: name.into(),
        conditions,
        operations,
        verdict,
    }
}

fn policy(terms: Vec<Term>) -> Arc<Policy> {
    Arc::new(Policy {
        terms,
        default: Verdict::Accept,
    })
}

fn inside(p: &str) -> Condition {
    Condition::Prefix(PrefixMatch::inside(c(p)))
}

fn announce(net: &mut Net, n: usize, p: Cidr) {
    net.with(n, |r, _| r.announce(p, own(p)));
}

#[test]
fn import_policy_changes_refuses_and_can_be_changed_without_a_refresh() {
    let mut net = Net::new(1);
    let (a, b) = (net.router(1), net.router(2));
    let mark = Community::new(1, 42);
    net.peer(a, b, |n, p| {
        if n == a {
            p.import = policy(vec![
                term(
                    "no tens",
                    vec![inside("10.0.0.0/8")],
                    vec![],
                    Some(Verdict::Reject),
                ),
                term(
                    "mark",
                    vec![inside("0.0.0.0/0")],
                    vec![
                        Operation::AddCommunity(mark),
                        Operation::SetLocalPref(300),
                        Operation::SetPreference(250),
                    ],
                    None,
                ),
            ]);
        }
    });
    net.until(UP, "up", Net::all_up);
    let (ten, eleven) = (c("10.1.0.0/16"), c("11.1.0.0/16"));
    announce(&mut net, b, ten);
    announce(&mut net, b, eleven);
    net.run(SOON);
    let r = &net.nodes[a].router;
    assert!(r.best(ten).is_none());
    let why = r.explain(ten).expect("kept");
    assert_eq!(
        why.paths[0].status,
        PathStatus::Refused(Refusal::Policy(Some("no tens".into())))
    );
    let best = r.best(eleven).expect("taken");
    assert!(best.attributes.communities.contains(mark));
    assert_eq!(
        (best.attributes.local_pref, best.preference),
        (Some(300), 250)
    );
    let path = &r.explain(eleven).expect("there").paths[0];
    let received = path.received.as_ref().expect("it was changed");
    assert!(received.communities.is_empty() && received.local_pref.is_none());

    let updates = r.peers().next().expect("one").counters.updates;
    let id = net.peer_id(a, b);
    let mut config = net.nodes[a].router.peer_config(id).expect("there").clone();
    config.import = Arc::default();
    net.with(a, |r, now| r.configure_peer(id, config, now));
    let r = &net.nodes[a].router;
    assert!(r.best(ten).is_some() && r.peers().next().expect("one").counters.updates == updates);
    assert!(
        r.best(eleven)
            .expect("there")
            .attributes
            .communities
            .is_empty()
    );
}

#[test]
fn export_policy_decides_per_prefix_and_source_and_is_explained() {
    let mut net = Net::new(2);
    let (a, b, from) = (net.router(1), net.router(2), net.router(3));
    let mark = Community::new(1, 7);
    net.peer(a, from, |_, _| {});
    net.peer(a, b, |n, p| {
        if n == a {
            p.export = policy(vec![
                term(
                    "mark ours",
                    vec![Condition::Source(SourceKind::Local)],
                    vec![
                        Operation::AddCommunity(mark),
                        Operation::Prepend(vec![Asn(1), Asn(1)]),
                    ],
                    None,
                ),
                term(
                    "pools",
                    vec![inside("10.0.0.0/8")],
                    vec![],
                    Some(Verdict::Accept),
                ),
                term("rest", vec![], vec![], Some(Verdict::Reject)),
            ]);
        }
    });
    net.until(UP, "up", Net::all_up);
    let (ours, theirs, other) = (c("10.1.0.0/16"), c("10.2.0.0/16"), c("11.0.0.0/16"));
    announce(&mut net, a, ours);
    announce(&mut net, a, other);
    announce(&mut net, from, theirs);
    net.run(SOON);
    let path = |net: &Net, p| {
        let best = net.nodes[b].router.best(p)?;
        let asns: Vec<u32> = best.attributes.as_path.asns().map(|a| a.0).collect();
        Some((asns, best.attributes.communities.contains(mark)))
    };
    assert_eq!(path(&net, ours), Some((vec![1, 1, 1], true)));
    assert_eq!(path(&net, theirs), Some((vec![1, 3], false)));
    assert_eq!(path(&net, other), None);
    let to_b = net.peer_id(a, b);
    let why = net.nodes[a].router.explain(other).expect("there");
    let export = why.exports.iter().find(|e| e.peer == to_b).expect("a peer");
    assert_eq!(export.route, Err(Blocked::Policy(Some("rest".into()))));

    // Another policy withdraws what it refuses now and announces what it does not.
    let mut config = net.nodes[a]
        .router
        .peer_config(to_b)
        .expect("there")
        .clone();
    config.export = policy(vec![term(
        "no tens",
        vec![inside("10.0.0.0/8")],
        vec![],
        Some(Verdict::Reject),
    )]);
    net.with(a, |r, now| r.configure_peer(to_b, config, now));
    net.run(SOON);
    assert_eq!(
        [ours, theirs, other].map(|p| path(&net, p).is_some()),
        [false, false, true]
    );
}

#[test]
fn several_paths_are_sent_to_who_takes_them() {
    for (send, expect) in [
        (AddPathSend::All, 3),
        (AddPathSend::Best(2), 2),
        (AddPathSend::No, 1),
    ] {
        let mut net = Net::new(3);
        let (rr, client) = (net.router(1), net.router(1));
        net.peer(rr, client, |n, p| {
            p.client = n == rr;
            p.add_path_receive = n == client;
            p.add_path_send = if n == rr { send } else { AddPathSend::No };
        });
        let sources: Vec<usize> = (2..5).map(|asn| net.router(asn)).collect();
        for &s in &sources {
            net.peer(rr, s, |_, _| {});
        }
        net.until(UP, "up", Net::all_up);
        let p = c("10.1.0.0/16");
        for &s in &sources {
            announce(&mut net, s, p);
        }
        net.run(SOON);
        let paths = |net: &Net| {
            net.nodes[client]
                .router
                .explain(p)
                .map_or(0, |e| e.paths.len())
        };
        assert_eq!(paths(&net), expect, "{send:?}");
        net.with(sources[0], |r, _| r.withdraw(p));
        net.run(SOON);
        assert_eq!(paths(&net), expect.min(2), "{send:?}");
        for &s in &sources {
            net.with(s, |r, _| r.withdraw(p));
        }
        net.run(SOON);
        assert_eq!(paths(&net), 0, "{send:?}");
        assert_eq!(net.nodes[rr].router.size().known, 0);
    }
}

#[test]
fn equal_paths_share_the_traffic() {
    let mut net = Net::new(4);
    let a = net.router_with(1, |c| c.multipath = 8);
    let sources: Vec<usize> = (2..5).map(|asn| net.router(asn)).collect();
    for &s in &sources {
        net.peer(a, s, |_, _| {});
    }
    net.until(UP, "up", Net::all_up);
    let p = c("10.1.0.0/16");
    for &s in &sources {
        announce(&mut net, s, p);
    }
    net.run(SOON);
    let mut addrs: Vec<_> = sources.iter().map(|&s| net.nodes[s].addr).collect();
    let sorted = |net: &Net| {
        let mut hops = net.nodes[a].kernel[&p].clone();
        hops.sort();
        hops
    };
    assert_eq!(sorted(&net), addrs);
    net.with(sources[1], |r, _| r.withdraw(p));
    net.run(SOON);
    addrs.remove(1);
    assert_eq!(sorted(&net), addrs);
}

#[test]
fn what_cannot_be_reached_is_not_used_and_nearer_is_better() {
    let mut net = Net::new(5);
    let a = net.router_with(1, |c| c.track_next_hops = true);
    let (x, y) = (net.router(2), net.router(3));
    net.peer(a, x, |_, _| {});
    net.peer(a, y, |_, _| {});
    net.until(UP, "up", Net::all_up);
    let p = c("10.1.0.0/16");
    announce(&mut net, x, p);
    announce(&mut net, y, p);
    net.run(SOON);
    let (at_x, at_y) = (net.nodes[x].addr, net.nodes[y].addr);
    let best = |net: &Net| {
        net.nodes[a]
            .router
            .best(p)
            .map(|b| b.attributes.next_hop.addr())
    };
    assert_eq!(best(&net), None);
    let hop = |metric| HopState {
        metric,
        interface: None,
    };
    net.with(a, |r, _| r.next_hops([(at_y, hop(Some(10)))]));
    assert_eq!(best(&net), Some(at_y));
    net.with(a, |r, _| r.next_hops([(at_x, hop(Some(20)))]));
    assert_eq!(best(&net), Some(at_y));
    let why = net.nodes[a].router.explain(p).expect("there");
    assert!(
        why.paths
            .iter()
            .any(|p| p.status == PathStatus::Lost(Step::IgpMetric))
    );
    net.with(a, |r, _| r.next_hops([(at_y, hop(None))]));
    assert_eq!(best(&net), Some(at_x));
    assert_eq!(net.nodes[a].kernel[&p], vec![at_x]);
}

#[test]
fn a_refresh_brings_everything_again_and_clears_what_is_gone() {
    let mut net = Net::new(6);
    let (a, b, other) = (net.router(1), net.router(2), net.router(3));
    net.peer(a, b, |_, _| {});
    net.peer(b, other, |_, _| {});
    net.until(UP, "up", Net::all_up);
    let p = c("10.1.0.0/16");
    announce(&mut net, b, p);
    net.run(SOON);
    let updates = |net: &Net, n: usize| {
        net.nodes[n]
            .router
            .peers()
            .next()
            .expect("one")
            .counters
            .updates
    };
    let (before, bystander) = (updates(&net, a), updates(&net, other));
    let id = net.peer_id(a, b);
    assert!(net.with(a, |r, now| r.request_refresh(id, Family::V4, now)));
    net.run(SOON);
    assert!(updates(&net, a) > before && updates(&net, other) == bystander);
    assert!(net.nodes[a].router.best(p).is_some());
    // Afterwards both peers are told the same by one group again.
    assert_eq!(net.nodes[b].router.size().groups, 2, "one for each family");
}

#[test]
fn too_many_prefixes_end_the_session_or_are_left_out() {
    for (action, up, taken) in [
        (
            LimitAction::Teardown(Some(Duration::from_secs(1000))),
            false,
            0,
        ),
        (LimitAction::Discard, true, 10),
        (LimitAction::Warn, true, 20),
    ] {
        let mut net = Net::new(7);
        let (a, b) = (net.router(1), net.router(2));
        net.peer(a, b, |n, p| {
            if n == a {
                p.limit.v4 = Some(PrefixLimit {
                    max: 10,
                    warn_at: 8,
                    action,
                });
            }
        });
        net.until(UP, "up", Net::all_up);
        for i in 0..20 {
            announce(&mut net, b, c(&format!("10.{i}.0.0/16")));
        }
        net.run(Duration::from_secs(20));
        assert_eq!(net.all_up(), up, "{action:?}");
        assert_eq!(net.nodes[a].router.size().paths, taken, "{action:?}");
        let near = |e: &&Event| matches!(e, Event::NearLimit { .. });
        assert_eq!(
            net.nodes[a].events.iter().filter(near).count(),
            1,
            "{action:?}"
        );
        net.run(Duration::from_secs(1500));
        let again = net.nodes[a]
            .router
            .peers()
            .next()
            .expect("one")
            .counters
            .sessions;
        assert_eq!(again > 1, !up, "{action:?}");
    }
}

#[test]
fn another_limit_counts_at_once() {
    let mut net = Net::new(9);
    let (a, b) = (net.router(1), net.router(2));
    net.peer(a, b, |_, _| {});
    net.until(UP, "up", Net::all_up);
    for i in 0..20 {
        announce(&mut net, b, c(&format!("10.{i}.0.0/16")));
    }
    net.run(SOON);
    assert_eq!(net.nodes[a].router.size().paths, 20);
    let limit = |net: &mut Net, max, action| {
        net.with(a, |r, now| {
            let id = r.peers().next().expect("one").peer;
            let mut config = r.peer_config(id).expect("known").clone();
            config.limit.v4 = Some(PrefixLimit {
                max,
                warn_at: max,
                action,
            });
            r.configure_peer(id, config, now);
        });
        net.run(SOON);
    };
    // What was not taken comes with a limit that lets it.
    limit(&mut net, 20, LimitAction::Discard);
    for i in 20..30 {
        announce(&mut net, b, c(&format!("10.{i}.0.0/16")));
    }
    net.run(SOON);
    assert_eq!(net.nodes[a].router.size().paths, 20);
    limit(&mut net, 25, LimitAction::Discard);
    assert_eq!(net.nodes[a].router.size().paths, 25);
    limit(&mut net, 30, LimitAction::Warn);
    assert_eq!(net.nodes[a].router.size().paths, 30);
    // What was taken is kept, but for a limit that ends the session.
    limit(&mut net, 10, LimitAction::Discard);
    assert_eq!((net.all_up(), net.nodes[a].router.size().paths), (true, 30));
    limit(&mut net, 30, LimitAction::Teardown(None));
    assert!(net.all_up());
    limit(&mut net, 29, LimitAction::Teardown(None));
    net.run(Duration::from_secs(1500));
    assert!(!net.all_up());
    assert_eq!(net.nodes[a].router.size().paths, 0);
    // Neither for good nor for a while is longer than the limit that it is for.
    for wait in [None, Some(Duration::from_secs(100_000))] {
        limit(&mut net, 30, LimitAction::Teardown(wait));
        net.until(UP, "up again", Net::all_up);
        net.until(UP, "told again", |n| n.nodes[a].router.size().paths == 30);
        limit(
            &mut net,
            19,
            LimitAction::Teardown(Some(Duration::from_secs(100_000))),
        );
        net.run(Duration::from_secs(1500));
        assert!(!net.all_up());
    }
}

#[test]
fn next_hops_are_ourselves_kept_or_shared_as_configured() {
    use NextHopMode::{Auto, Keep, Own};
    for (mode, outside, link, own_hop) in [
        (Auto, true, None, true),
        (Keep, true, None, false),
        (Own, true, None, true),
        // On the shared link the neighbour can go there itself.
        (Auto, true, Some(8), false),
        (Auto, false, None, false),
        (Own, false, None, true),
    ] {
        let mut net = Net::new(8);
        let (src, mid) = (net.router(1), net.router(2));
        let to = net.router(if outside { 3 } else { 2 });
        net.peer(src, mid, |_, _| {});
        net.peer(mid, to, |n, p| {
            if n == mid {
                p.next_hop = mode;
                p.link = link;
            }
        });
        net.until(UP, "up", Net::all_up);
        let p = c("10.1.0.0/16");
        announce(&mut net, src, p);
        net.run(SOON);
        let hop = net.nodes[to]
            .router
            .best(p)
            .expect("told")
            .attributes
            .next_hop;
        let expect = net.nodes[if own_hop { mid } else { src }].addr;
        assert_eq!(
            hop,
            NextHop::from(expect),
            "{mode:?} outside {outside} link {link:?}"
        );
    }
}

#[test]
fn med_and_local_pref_stay_where_they_belong() {
    let mut net = Net::new(9);
    let (src, mid, inside, far) = (net.router(1), net.router(2), net.router(2), net.router(3));
    net.peer(src, mid, |_, _| {});
    net.peer(mid, inside, |_, _| {});
    net.peer(mid, far, |_, _| {});
    net.until(UP, "up", Net::all_up);
    let p = c("10.1.0.0/16");
    let mut route = own(p);
    route.attributes.med = Some(5);
    route.attributes.local_pref = Some(2_147_482_623);
    net.with(src, |r, _| r.announce(p, route));
    net.run(SOON);
    let has = |net: &Net, n: usize| {
        let a = net.nodes[n]
            .router
            .best(p)
            .expect("told")
            .attributes
            .clone();
        (a.med, a.local_pref)
    };
    assert_eq!(has(&net, mid), (Some(5), None));
    assert_eq!(has(&net, inside), (Some(5), Some(100)));
    assert_eq!(has(&net, far), (None, None));
}
