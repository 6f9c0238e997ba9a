//! What a route carries when it leaves: to another AS, and to others of ours.

use crate::net::Net;
use crate::routes::{c, own};
use bgp::Asn;
use bgp::attr::{AsPath, Attributes, Community, ExtCommunity};
use bgp::export::Blocked;
use bgp::policy::{Operation, Policy, Term, Verdict};
use bgp::router::{PathStatus, Refusal};
use bgp::types::{ClusterId, RouterId};
use std::sync::Arc;
use std::time::Duration;

const UP: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(2);
/// A route target, and the same for within the AS.
const TARGET: ExtCommunity = ExtCommunity([0, 2, 0, 1, 0, 0, 0, 7]);
const INNER: ExtCommunity = ExtCommunity([0x40, 2, 0, 1, 0, 0, 0, 7]);

/// What `from` tells `to`, or why it does not.
fn tells(net: &Net, from: usize, to: usize, p: &str) -> Result<Attributes, Blocked> {
    let explained = net.nodes[from].router.explain(c(p));
    let id = net.peer_id(from, to);
    let all = explained.map(|e| e.exports).unwrap_or_default();
    let report = all.into_iter().find(|r| r.peer == id);
    report.map_or(Err(Blocked::Source), |r| r.route)
}

/// With all that can be lost on the way.
fn laden(p: &str) -> bgp::router::LocalRoute {
    let mut route = own(c(p));
    let a = &mut route.attributes;
    a.local_pref = Some(300);
    a.med = Some(7);
    a.as_path = AsPath::sequence([Asn(9)]).prepend_confed(Asn(65100));
    a.edit_rare(|r| {
        r.aigp = Some(5);
        r.ext_communities = [TARGET, INNER].into_iter().collect();
    });
    route
}

/// A client, its reflector, another reflector, whose client is the last; a router of AS 2 beside each
/// reflector.
struct Reflected {
    net: Net,
    src: usize,
    one: usize,
    two: usize,
    last: usize,
    out: usize,
}

fn reflected() -> Reflected {
    let mut net = Net::new(21);
    let [src, one, two, last] = [(); 4].map(|()| net.router(1));
    let out = net.router(2);
    net.peer(src, one, |n, p| p.client = n == one);
    net.peer(one, two, |_, _| {});
    net.peer(two, last, |n, p| p.client = n == two);
    net.peer(one, out, |n, p| {
        let prepend = Term {
            name: "longer".into(),
            conditions: Vec::new(),
            operations: vec![Operation::Prepend(vec![Asn(8)])],
            verdict: Some(Verdict::Accept),
        };
        if n == one {
            p.export = Arc::new(Policy {
                terms: vec![prepend],
                default: Verdict::Reject,
            });
        }
    });
    net.peer(two, out, |_, _| {});
    net.until(UP, "up", Net::all_up);
    Reflected {
        net,
        src,
        one,
        two,
        last,
        out,
    }
}

#[test]
fn what_is_ours_alone_does_not_leave_the_as() {
    let Reflected {
        mut net,
        src,
        one,
        two,
        out,
        ..
    } = reflected();
    let p = "10.1.0.0/16";
    net.with(src, |r, _| r.announce(c(p), laden(p)));
    net.run(SOON);
    let here = net.nodes[one]
        .router
        .best(c(p))
        .map(|b| b.attributes.clone());
    let here = here.unwrap_or_else(|| panic!("reflected"));
    assert_eq!((here.local_pref, here.rare().aigp), (Some(300), Some(5)));
    assert!(here.as_path.has_confed());
    let told = tells(&net, one, out, p).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((told.local_pref, told.med), (None, None));
    // Our AS stands first, then what the policy puts in.
    let path: Vec<u32> = told.as_path.asns().map(|a| a.0).collect();
    assert_eq!(path, [1, 8, 9]);
    assert!(!told.as_path.has_confed());
    let rare = told.rare();
    assert_eq!((rare.originator_id, rare.cluster_list.len()), (None, 0));
    assert_eq!(rare.aigp, None);
    let kept: Vec<ExtCommunity> = rare.ext_communities.iter().collect();
    assert_eq!(kept, [TARGET]);
    // Of a route that was reflected, its way through the AS does not leave either.
    let seen = |n: usize| net.nodes[n].router.best(c(p)).map(|b| b.attributes.clone());
    let there = seen(two).unwrap_or_else(|| panic!("reflected"));
    assert!(there.rare().originator_id.is_some() && !there.rare().cluster_list.is_empty());
    let told = tells(&net, two, out, p).unwrap_or_else(|e| panic!("{e}"));
    let rare = told.rare();
    assert_eq!((rare.originator_id, rare.cluster_list.len()), (None, 0));
    // The other side sees the same, and nothing to complain of.
    assert_eq!(seen(out).map(|a| a.as_path), Some(told.as_path));
    let faults = |e: &bgp::router::Event| matches!(e, bgp::router::Event::Faults { .. });
    assert!(!net.nodes[out].events.iter().any(faults));
}

#[test]
fn within_the_as_a_route_keeps_what_it_has_and_where_it_was() {
    let Reflected {
        mut net,
        src,
        one,
        two,
        last,
        ..
    } = reflected();
    let p = "10.1.0.0/16";
    net.with(src, |r, _| r.announce(c(p), laden(p)));
    net.run(SOON);
    let id = |n: usize| net.nodes[n].router.config().router_id;
    let cluster = |n: usize| ClusterId::from(id(n));
    let first = tells(&net, one, two, p).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(first.rare().originator_id, Some(id(src)));
    assert_eq!(&*first.rare().cluster_list, [cluster(one)]);
    // The second reflector leaves the first one's word, and adds itself.
    let second = tells(&net, two, last, p).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(second.rare().originator_id, Some(id(src)));
    assert_eq!(&*second.rare().cluster_list, [cluster(two), cluster(one)]);
    for a in [first, second] {
        assert_eq!((a.local_pref, a.med), (Some(300), Some(7)));
        assert_eq!(a.rare().aigp, Some(5));
        assert_eq!(a.rare().ext_communities.iter().count(), 2);
        assert!(a.as_path.has_confed());
    }
    // One's own route is nobody's reflection.
    let q = "10.2.0.0/16";
    net.with(two, |r, _| r.announce(c(q), own(c(q))));
    net.run(SOON);
    let told = tells(&net, two, last, q).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(told.rare().originator_id, None);
    assert_eq!(
        (told.local_pref, told.rare().cluster_list.len()),
        (Some(100), 0)
    );
}

#[test]
fn a_reflector_tells_clients_all_and_others_what_clients_say() {
    // A reflector with two clients and two that are none.
    let mut net = Net::new(22);
    let rr = net.router(1);
    let all: Vec<usize> = (0..4).map(|_| net.router(1)).collect();
    for (i, &n) in all.iter().enumerate() {
        net.peer(rr, n, |at, p| p.client = at == rr && i < 2);
    }
    net.until(UP, "up", Net::all_up);
    for (i, &n) in all.iter().enumerate() {
        let p = c(&format!("10.{i}.0.0/16"));
        net.with(n, |r, _| r.announce(p, own(p)));
    }
    net.run(SOON);
    for (i, &n) in all.iter().enumerate() {
        for (j, &other) in all.iter().enumerate().filter(|(j, _)| *j != i) {
            let wanted = i < 2 || j < 2;
            let p = c(&format!("10.{j}.0.0/16"));
            let has = net.nodes[n].router.best(p).is_some();
            assert_eq!(has, wanted, "{i} of {j}");
            if !wanted {
                let why = tells(&net, rr, n, &format!("10.{j}.0.0/16"));
                assert_eq!(why.err(), Some(Blocked::NotReflected), "{other}");
            }
        }
    }
}

#[test]
fn communities_that_keep_a_route_in() {
    let mut net = Net::new(23);
    let (a, b) = (net.router(1), net.router(1));
    let (out, next) = (net.router(2), net.router(1));
    net.peer(a, b, |n, p| p.client = n == b);
    net.peer(b, out, |_, _| {});
    net.peer(b, next, |_, _| {});
    net.until(UP, "up", Net::all_up);
    for (i, community, outside, inside) in [
        (1, Community::NO_EXPORT, Some(Blocked::NoExport), None),
        (
            2,
            Community::NO_EXPORT_SUBCONFED,
            Some(Blocked::NoExport),
            None,
        ),
        (
            3,
            Community::NO_ADVERTISE,
            Some(Blocked::NoAdvertise),
            Some(Blocked::NoAdvertise),
        ),
        (4, Community(1 << 16 | 7), None, None),
    ] {
        let p = format!("10.{i}.0.0/16");
        let mut route = own(c(&p));
        route.attributes.communities.insert(community);
        // A route of one's own is for others, whatever it carries, but for the last.
        net.with(b, |r, _| r.announce(c(&p), route));
        net.run(SOON);
        assert_eq!(tells(&net, b, out, &p).err(), outside, "{community}");
        assert_eq!(tells(&net, b, next, &p).err(), inside, "{community}");
        let has = |n: usize| net.nodes[n].router.best(c(&p)).is_some();
        assert_eq!((has(out), has(next)), (outside.is_none(), inside.is_none()));
    }
}

#[test]
fn a_route_that_we_brought_in_is_not_taken_back() {
    // A client of two reflectors of different clusters hears of its own route again.
    let mut net = Net::new(24);
    let [client, one, two] = [(); 3].map(|()| net.router(1));
    net.peer(client, one, |n, p| p.client = n == one);
    net.peer(one, two, |_, _| {});
    net.peer(two, client, |n, p| p.client = n == two);
    net.until(UP, "up", Net::all_up);
    let p = c("10.1.0.0/16");
    // It prefers what it hears, so that the reflector has nothing better than the reflection.
    net.with(client, |r, _| r.announce(p, own(p)));
    net.run(SOON);
    // The second reflector is told of it by the first alone.
    let id = net.peer_id(client, two);
    net.with(client, |r, now| {
        let mut config = r
            .peer_config(id)
            .cloned()
            .unwrap_or_else(|| panic!("there"));
        config.export = Arc::new(Policy {
            terms: Vec::new(),
            default: Verdict::Reject,
        });
        r.configure_peer(id, config, now);
    });
    net.run(SOON);
    let explained = net.nodes[client].router.explain(p);
    let paths = explained.map(|e| e.paths).unwrap_or_default();
    let back = paths.iter().find(|r| r.peer == id);
    let back = back.unwrap_or_else(|| panic!("it comes back: {paths:#?}"));
    assert_eq!(back.status, PathStatus::Refused(Refusal::OwnOriginator));
    let own_id: RouterId = net.nodes[client].router.config().router_id;
    assert_eq!(back.attributes.rare().originator_id, Some(own_id));
}
