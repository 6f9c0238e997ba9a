//! Sessions with FRR's bgpd. Wants root and `frr`.

mod foreign;
mod support;

use bgp::peer::AddPathSend;
use bgp::router::Event;
use foreign::ours::{
    coloured, counter, events, everything, held, impatient, in_use, learned, tune,
};
use foreign::raw::{Opening, Raw, hex, update};
use foreign::{Frr, Seen};
use model::{FilterOperation, SecretKey, Update};
use net::{Asn, Family};
use std::time::Instant;
use support::{Ours, Wire, block, config, peer, peer_with, run, settings, until, world};

const AT: &str = "10.0.0.2 fd00::2";
const US: [&str; 2] = ["10.0.0.1", "fd00::1"];

/// Its side of sessions of both families with us; what it tells carries all that there is.
fn conf(asn: u32, of_router: &str, per_neighbor: &str, v4: &str, v6: &str) -> String {
    let each = |line: &dyn Fn(&str) -> String| US.map(line).concat();
    let neighbors = each(&|a| {
        let more = per_neighbor.replace('@', &format!("neighbor {a}"));
        format!(
            " neighbor {a} remote-as 64512\n neighbor {a} timers connect 1\n \
             neighbor {a} advertisement-interval 0\n{more}"
        )
    });
    format!(
        "route-map attrs permit 10\n set community 65001:7 65001:8\n \
         set large-community 65001:1:2\n set metric 77\n set as-path prepend 65010 65011\n\
         route-map attrs6 permit 10\n set community 65001:7 65001:8\n \
         set large-community 65001:1:2\n set metric 77\n set as-path prepend 65010 65011\n \
         set ipv6 next-hop global fd00::2\n\
         router bgp {asn}\n bgp router-id 10.0.0.2\n no bgp ebgp-requires-policy\n \
         no bgp network import-check\n no bgp default ipv4-unicast\n{of_router}{neighbors} \
         address-family ipv4 unicast\n  neighbor 10.0.0.1 activate\n  \
         network 192.0.2.0/24 route-map attrs\n{v4} exit-address-family\n \
         address-family ipv6 unicast\n  neighbor fd00::1 activate\n  \
         network 2001:db8::/48 route-map attrs6\n{v6} exit-address-family\n"
    )
}

fn plain(asn: u32) -> String {
    conf(asn, "", "", "", "")
}

fn peers(asn: u32) -> Vec<Update> {
    let mut all = world();
    all.push(config(coloured));
    all.push(everything(
        "all",
        vec![FilterOperation::Prepend(vec![Asn(64999)])],
    ));
    let filter = |p: &mut model::BgpPeer| p.filters = vec!["all".into()];
    all.push(peer_with("four", "10.0.0.2", asn, filter));
    all.push(peer_with("six", "fd00::2", asn, filter));
    all
}

fn up(config: &str, updates: Vec<Update>) -> (Wire, Frr, Ours) {
    let wire = Wire::new();
    let frr = Frr::start(&wire.there, AT, config);
    let ours = Ours::start(&wire.here, settings(), updates);
    ours.established(2);
    (wire, frr, ours)
}

fn both_ways(asn: u32) {
    let (_wire, frr, ours) = up(&plain(asn), peers(asn));
    let external = asn != 64512;
    for (prefix, hop) in [("192.0.2.0/24", "10.0.0.2"), ("2001:db8::/48", "fd00::2")] {
        let mut path = vec![65010, 65011];
        if external {
            path.insert(0, asn);
        }
        let expected = Seen {
            path,
            hop: hop.into(),
            med: Some(77),
            local_pref: (!external).then_some(100),
            communities: vec!["65001:7".into(), "65001:8".into()],
            large: vec!["65001:1:2".into()],
            ..Seen::default()
        };
        assert_eq!(learned(&ours, prefix), expected, "{prefix}");
    }
    for (prefix, hop) in [("172.16.1.0/26", US[0]), ("fd10::40/122", US[1])] {
        let seen = frr.learns(prefix);
        let expected = Seen {
            path: if external {
                vec![64512, 64999]
            } else {
                vec![64999]
            },
            hop: hop.into(),
            local_pref: (!external).then_some(2_147_482_623),
            // The filter accepts, so that what Calico does to its own routes is skipped.
            ..Seen::default()
        };
        let seen = Seen {
            // FRR shows 0 for none.
            med: seen.med.filter(|m| *m != 0),
            ..seen
        };
        assert_eq!(seen, expected, "{prefix}");
    }
    // Without the filter the cluster's own configuration speaks.
    for (name, at) in [("four", "10.0.0.2"), ("six", "fd00::2")] {
        ours.update(peer(name, at, asn));
    }
    for prefix in ["172.16.1.0/26", "fd10::40/122"] {
        let coloured = until(
            "its communities",
            || frr.paths(prefix),
            |p| p.first().is_some_and(|p| !p.communities.is_empty()),
        );
        assert_eq!(coloured[0].communities, ["64512:7"]);
        assert_eq!(coloured[0].large, ["64512:1:2"]);
        let path: &[u32] = if external { &[64512] } else { &[] };
        assert_eq!(coloured[0].path, path);
    }
    and_away(&frr, &ours, asn);
}

/// Withdrawn one by one, both ways, under the same sessions; then back.
fn and_away(frr: &Frr, ours: &Ours, asn: u32) {
    let since = ours.since();
    let v4 = "address-family ipv4 unicast";
    let v6 = "address-family ipv6 unicast";
    frr.configure(asn, &[v4, "no network 192.0.2.0/24"]);
    frr.configure(asn, &[v6, "no network 2001:db8::/48"]);
    ours.forgets("192.0.2.0/24");
    ours.forgets("2001:db8::/48");
    for _ in 0..3 {
        frr.configure(asn, &[v4, "network 192.0.2.0/24 route-map attrs"]);
        ours.learns("192.0.2.0/24");
        frr.configure(asn, &[v4, "no network 192.0.2.0/24"]);
        ours.forgets("192.0.2.0/24");
    }
    for prefix in ["172.16.1.0/26", "fd10::40/122"] {
        ours.update(block(prefix, None));
        frr.forgets(prefix);
        ours.update(block(prefix, Some("a")));
        frr.learns(prefix);
    }
    assert_eq!(ours.since(), since);
}

#[test]
fn another_as_and_we_tell_each_other_all_attributes() {
    both_ways(65001);
}

#[test]
fn within_the_as_all_attributes_pass() {
    both_ways(64512);
}

#[test]
fn keys_are_needed_and_can_be_mended() {
    let wire = Wire::new();
    let more = " @ password right\n";
    let frr = Frr::start(&wire.there, AT, &conf(65001, "", more, "", ""));
    let key = SecretKey {
        name: "bgp".into(),
        key: "key".into(),
    };
    let mut all = world();
    for (name, at) in [("four", "10.0.0.2"), ("six", "fd00::2")] {
        let key = key.clone();
        all.push(peer_with(name, at, 65001, |p| p.password = Some(key)));
    }
    let ours = Ours::start(&wire.here, settings(), all);
    let down = |what: &str| {
        let states = ours.states();
        let up = |s: &bgp::fsm::State| *s == bgp::fsm::State::Established;
        assert!(!states.iter().any(|(_, s)| up(s)), "{what}: {states:?}");
    };
    // Without a key nothing is spoken; whatever FRR sends is refused by the kernel.
    until("it is said", || ours.errors(), |e| e.len() == 2);
    ours.handle
        .key(key.clone(), Some(b"wrong".to_vec()))
        .unwrap();
    tune(&ours, impatient);
    let refused = || {
        let of = |n| counter(n, "TCPMD5Failure");
        (of(&wire.here), of(&wire.there))
    };
    until("wrong signatures", refused, |(a, b)| *a > 0 && *b > 0);
    down("a wrong key");
    ours.handle.key(key, Some(b"right".to_vec())).unwrap();
    tune(&ours, impatient);
    ours.established(2);
    learned(&ours, "192.0.2.0/24");
    learned(&ours, "2001:db8::/48");
    frr.learns("172.16.1.0/26");
}

#[test]
fn packets_must_have_come_one_hop() {
    let wire = Wire::new();
    // Without the line FRR sends to another AS with a TTL of 1.
    let frr = Frr::start(&wire.there, AT, &plain(65001));
    let mut all = world();
    for (name, at) in [("four", "10.0.0.2"), ("six", "fd00::2")] {
        all.push(peer_with(name, at, 65001, |p| p.ttl_security = Some(1)));
    }
    let ours = Ours::start(&wire.here, settings(), all);
    tune(&ours, impatient);
    until(
        "packets from afar",
        || counter(&wire.here, "TCPMinTTLDrop"),
        |n| *n > 1,
    );
    let states = ours.states();
    let up = |(_, s): &(String, bgp::fsm::State)| *s == bgp::fsm::State::Established;
    assert!(!states.iter().any(up), "{states:?}");
    // FRR changes nothing about connections that it has.
    drop(frr);
    let near = " @ ttl-security hops 1\n";
    let _frr = Frr::start(&wire.there, AT, &conf(65001, "", near, "", ""));
    ours.established(2);
    learned(&ours, "192.0.2.0/24");
    learned(&ours, "2001:db8::/48");
}

#[test]
fn refreshes_tell_all_again_under_the_same_session() {
    let (_wire, frr, ours) = up(&plain(65001), peers(65001));
    frr.learns("172.16.1.0/26");
    learned(&ours, "192.0.2.0/24");
    let since = ours.since();
    let stat = |name: &'static str| {
        let n = frr.neighbor(US[0]);
        n["messageStats"][name].as_u64()
    };
    let before = stat("updatesRecv");
    frr.ask(&["clear bgp ipv4 unicast 10.0.0.1 soft in"]);
    until(
        "its request",
        || stat("routeRefreshSent"),
        |n| *n >= Some(1),
    );
    until("all again", || stat("updatesRecv"), |n| *n > before);
    frr.learns("172.16.1.0/26");

    let updates = |ours: &Ours| {
        let look = |v: &speaker::View<'_>| {
            let each = v.router.into_iter().flat_map(bgp::router::Router::peers);
            each.map(|p| p.counters.updates).sum::<u64>()
        };
        ours.handle.look(look).unwrap()
    };
    let before = updates(&ours);
    let ask = |r: &mut bgp::router::Router, now| {
        let peers: Vec<_> = r.peers().map(|p| p.peer).collect();
        for id in peers {
            for family in Family::BOTH {
                r.request_refresh(id, family, now);
            }
        }
    };
    ours.handle.act(ask).unwrap();
    until(
        "our request",
        || stat("routeRefreshRecv"),
        |n| *n >= Some(1),
    );
    until("all again", || updates(&ours), |n| *n >= before + 2);
    learned(&ours, "192.0.2.0/24");
    learned(&ours, "2001:db8::/48");
    assert_eq!(ours.since(), since);
}

/// A route with these attributes from a peer of one's own making: ORIGIN, a path, a next hop.
fn told(asn: u16, hop: [u8; 4], routes: &str) -> Vec<u8> {
    let mut attributes = hex("40 01 01 00 40 02 06 02 01 0000");
    attributes.extend(asn.to_be_bytes());
    attributes.extend(hex("40 03 04"));
    attributes.extend(hop);
    update(&[], &attributes, &hex(routes))
}

#[test]
fn several_paths_to_a_prefix_go_both_ways() {
    let wire = Wire::new();
    let here: [(&str, u16); 2] = [("10.0.0.21", 65021), ("10.0.0.22", 65022)];
    let there: [(&str, u16); 2] = [("10.0.0.31", 65031), ("10.0.0.32", 65032)];
    for (at, _) in here.iter().chain(&there) {
        run(&wire.there, "ip", &format!("addr add {at}/24 dev eth0"));
    }
    let mut all = peers(65001);
    for (at, asn) in here {
        all.push(peer(at, at, asn.into()));
    }
    let ours = Ours::start(&wire.here, settings(), all);
    tune(&ours, |c| {
        impatient(c);
        c.add_path_receive = true;
        c.add_path_send = AddPathSend::All;
    });
    let passive =
        there.map(|(at, asn)| format!(" neighbor {at} remote-as {asn}\n neighbor {at} passive\n"));
    let active = there.map(|(at, _)| format!("  neighbor {at} activate\n"));
    let v4 = active.concat() + "  neighbor 10.0.0.1 addpath-tx-all-paths\n";
    let frr = Frr::start(
        &wire.there,
        AT,
        &conf(65001, &passive.concat(), "", &v4, ""),
    );
    frr.established(US[0]);
    let mut raw = Vec::new();
    for (i, (at, asn)) in (1..).zip(here) {
        let open = Opening::new(asn, [10, 0, 0, 20 + i]);
        let mut r = Raw::establish(&wire.there, at, US[0], &open);
        r.send(&told(asn, [10, 0, 0, 20 + i], "18 c63364"));
        raw.push(r);
    }
    for (i, (at, asn)) in (1..).zip(there) {
        let open = Opening::new(asn, [10, 0, 0, 30 + i]);
        let mut r = Raw::establish(&wire.there, at, "10.0.0.2", &open);
        r.send(&told(asn, [10, 0, 0, 30 + i], "18 cb0071"));
        raw.push(r);
    }
    // We tell both of ours.
    let two = until(
        "both paths there",
        || frr.paths("198.51.100.0/24"),
        |p| p.len() == 2,
    );
    let mut ends: Vec<u32> = two.iter().filter_map(|p| p.path.last().copied()).collect();
    ends.sort_unstable();
    assert_eq!(ends, [65021, 65022], "{two:?}");
    // FRR tells both of its.
    let paths = |prefix: &'static str| {
        let prefix = support::cidr(prefix);
        let look = move |v: &speaker::View<'_>| {
            let all = v.router?.explain(prefix)?.paths;
            let mut ends: Vec<_> = all
                .iter()
                .map(|p| p.attributes.as_path.to_string())
                .collect();
            ends.sort();
            Some(ends)
        };
        ours.handle.look(look).unwrap()
    };
    until(
        "both paths here",
        || paths("203.0.113.0/24"),
        |p| p.as_deref() == Some(&["65001 65031".to_owned(), "65001 65032".to_owned()]),
    );
    // One goes; the other stays.
    raw[0].send(&update(&hex("18 c63364"), &[], &[]));
    let one = until(
        "one path there",
        || frr.paths("198.51.100.0/24"),
        |p| p.len() == 1,
    );
    assert_eq!(one[0].path.last(), Some(&65022));
    drop(raw.remove(2));
    until(
        "one path here",
        || paths("203.0.113.0/24"),
        |p| p.as_deref() == Some(&["65001 65032".to_owned()]),
    );
}

#[test]
fn routes_of_one_that_was_killed_stay_until_it_tells_anew() {
    let gr = " bgp graceful-restart\n bgp graceful-restart preserve-fw-state\n \
              bgp graceful-restart select-defer-time 5\n";
    let (_wire, mut frr, ours) = up(&conf(65001, gr, "", "", ""), peers(65001));
    tune(&ours, impatient);
    let prefixes = ["192.0.2.0/24", "2001:db8::/48"];
    let first = prefixes.map(|p| learned(&ours, p));
    let seen = events(&ours);
    frr.kill();
    for p in prefixes {
        until(
            "stale routes",
            || held(&ours, p),
            |h| h.as_ref().is_some_and(|h| h.stale),
        );
    }
    frr.recover();
    ours.established(2);
    assert_eq!(prefixes.map(|p| learned(&ours, p)), first);
    frr.learns("172.16.1.0/26");
    // At no time were they gone.
    let all = seen.lock().unwrap();
    let ends = all
        .iter()
        .filter(|(_, e)| matches!(e, Event::EndOfRib { .. }));
    assert!(ends.count() >= 2, "{all:?}");
}

#[test]
fn both_call_at_once_and_one_session_remains() {
    let (_wire, frr, ours) = up(&plain(65001), peers(65001));
    tune(&ours, impatient);
    for round in 0..4 {
        let before = Instant::now();
        let reset = move |r: &mut bgp::router::Router, now| {
            let peers: Vec<_> = r.peers().map(|p| p.peer).collect();
            for id in peers {
                r.reset_peer(id, "again", now);
            }
        };
        // Now one, now the other goes first.
        if round % 2 == 0 {
            ours.handle.act(reset).unwrap();
            frr.ask(&["clear bgp *"]);
        } else {
            frr.ask(&["clear bgp *"]);
            ours.handle.act(reset).unwrap();
        }
        until(
            "new sessions",
            || (ours.since(), ours.errors()),
            |(s, _)| s.len() == 2 && s.iter().all(|(_, t)| t.is_some_and(|t| t > before)),
        );
        learned(&ours, "192.0.2.0/24");
        learned(&ours, "2001:db8::/48");
        for (us, prefix) in US.into_iter().zip(["172.16.1.0/26", "fd10::40/122"]) {
            frr.established(us);
            frr.learns(prefix);
        }
    }
}

const MANY: u32 = 50_000;

#[test]
fn a_large_table_comes_and_goes() {
    let wire = Wire::new();
    run(&wire.there, "ip", "addr add 10.0.0.21/24 dev eth0");
    let frr = Frr::start(&wire.there, AT, &plain(65001));
    let mut all = peers(65001);
    all.push(peer_with("feeder", "10.0.0.21", 65021, |p| {
        p.restart = Some(0)
    }));
    let ours = Ours::start(&wire.here, settings(), all);
    frr.established(US[0]);
    let mut feeder = Raw::establish(
        &wire.there,
        "10.0.0.21",
        US[0],
        &Opening::new(65021, [10, 0, 0, 21]),
    );
    let all: Vec<u32> = (0..MANY).collect();
    for some in all.chunks(500) {
        let route = |n: &u32| format!("18 {:06x}", 0x14_0000 + n);
        let routes: String = some.iter().map(route).collect();
        feeder.send(&told(65021, [10, 0, 0, 21], &routes));
    }
    let whole = MANY as usize;
    until(
        "all here",
        || in_use(&ours, Family::V4),
        |n| *n >= whole + 2,
    );
    let sent = u64::from(MANY) + 1;
    until(
        "all there",
        || frr.count("ipv4", US[0]),
        |n| *n == Some(sent),
    );
    // A part by name, the rest by the end of the session.
    for some in all[..10_000].chunks(500) {
        let route = |n: &u32| format!("18 {:06x}", 0x14_0000 + n);
        let routes: String = some.iter().map(route).collect();
        feeder.send(&update(&hex(&routes), &[], &[]));
    }
    until(
        "part of it there",
        || frr.count("ipv4", US[0]),
        |n| *n == Some(sent - 10_000),
    );
    drop(feeder);
    until("none here", || in_use(&ours, Family::V4), |n| *n == 2);
    until("none there", || frr.count("ipv4", US[0]), |n| *n == Some(1));
}
