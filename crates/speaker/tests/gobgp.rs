//! Sessions with GoBGP. Wants root and `gobgpd`.

mod foreign;
mod support;

use bgp::peer::AddPathSend;
use foreign::ours::{
    coloured, counter, events, everything, held, impatient, in_use, learned, tune,
};
use foreign::raw::{Opening, Raw, hex, update};
use foreign::{GoBgp, Seen};
use model::{FilterOperation, SecretKey, Update};
use net::{Asn, Family};
use std::time::Instant;
use support::{Ours, Wire, block, config, peer, peer_with, run, settings, until, world};

const US: [&str; 2] = ["10.0.0.1", "fd00::1"];
const THEM: [(&str, &str); 2] = [("four", "10.0.0.2"), ("six", "fd00::2")];

/// Its side of sessions of both families; what is told of a neighbour and of a family besides.
fn conf(asn: u32, neighbor: &str, family: &str) -> String {
    let mut out = format!(
        "[global.config]\n as = {asn}\n router-id = \"10.0.0.2\"\n \
         local-address-list = [\"10.0.0.2\", \"fd00::2\"]\n"
    );
    for (us, f) in US.into_iter().zip(["ipv4", "ipv6"]) {
        out += &format!(
            "[[neighbors]]\n [neighbors.config]\n  neighbor-address = \"{us}\"\n  \
             peer-as = 64512\n{neighbor}\n [neighbors.timers.config]\n  connect-retry = 1\n  \
             idle-hold-time-after-reset = 1\n [[neighbors.afi-safis]]\n  \
             [neighbors.afi-safis.config]\n   afi-safi-name = \"{f}-unicast\"\n{family}"
        );
    }
    out
}

/// Routes of its own, with all that there is.
fn tell(gobgp: &GoBgp) {
    for (prefix, hop, f) in [
        ("192.0.2.0/24", "10.0.0.2", "ipv4"),
        ("2001:db8::/48", "fd00::2", "ipv6"),
    ] {
        gobgp.ask(&format!(
            "global rib add {prefix} nexthop {hop} med 77 community 65001:7,65001:8 \
             large-community 65001:1:2 aspath 65010,65011 -a {f}"
        ));
    }
}

fn peers(asn: u32) -> Vec<Update> {
    let mut all = world();
    all.push(config(coloured));
    let prepend = FilterOperation::Prepend(vec![Asn(64999)]);
    all.push(everything("all", vec![prepend]));
    let filter = |p: &mut model::BgpPeer| p.filters = vec!["all".into()];
    all.extend(THEM.map(|(name, at)| peer_with(name, at, asn, filter)));
    all
}

fn up(config: &str, updates: Vec<Update>) -> (Wire, GoBgp, Ours) {
    let wire = Wire::new();
    let gobgp = GoBgp::start(&wire.there, config);
    let ours = Ours::start(&wire.here, settings(), updates);
    tune(&ours, impatient);
    ours.established(2);
    (wire, gobgp, ours)
}

fn both_ways(asn: u32) {
    let (_wire, gobgp, ours) = up(&conf(asn, "", ""), peers(asn));
    tell(&gobgp);
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
        let path = if external {
            vec![64512, 64999]
        } else {
            vec![64999]
        };
        let expected = Seen {
            path,
            hop: hop.into(),
            local_pref: (!external).then_some(2_147_482_623),
            ..Seen::default()
        };
        assert_eq!(gobgp.learns(prefix), expected, "{prefix}");
    }
    // Without the filter the cluster's own configuration speaks.
    ours_as_configured(&gobgp, &ours, asn);
    and_away(&gobgp, &ours);
}

fn ours_as_configured(gobgp: &GoBgp, ours: &Ours, asn: u32) {
    for (name, at) in THEM {
        ours.update(peer(name, at, asn));
    }
    for prefix in ["172.16.1.0/26", "fd10::40/122"] {
        let coloured = until(
            "its communities",
            || gobgp.paths(prefix),
            |p| p.first().is_some_and(|p| !p.communities.is_empty()),
        );
        assert_eq!(coloured[0].communities, ["64512:7"]);
        assert_eq!(coloured[0].large, ["64512:1:2"]);
        let path: &[u32] = if asn == 64512 { &[] } else { &[64512] };
        assert_eq!(coloured[0].path, path);
    }
}

/// Withdrawn one by one, both ways, under the same sessions; then back.
fn and_away(gobgp: &GoBgp, ours: &Ours) {
    let since = ours.since();
    gobgp.ask("global rib del 2001:db8::/48 -a ipv6");
    ours.forgets("2001:db8::/48");
    for _ in 0..3 {
        gobgp.ask("global rib del 192.0.2.0/24 -a ipv4");
        ours.forgets("192.0.2.0/24");
        gobgp.ask("global rib add 192.0.2.0/24 nexthop 10.0.0.2 -a ipv4");
        ours.learns("192.0.2.0/24");
    }
    for prefix in ["172.16.1.0/26", "fd10::40/122"] {
        ours.update(block(prefix, None));
        gobgp.forgets(prefix);
        ours.update(block(prefix, Some("a")));
        gobgp.learns(prefix);
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
fn keys_and_hops_hold_and_a_wrong_key_does_not() {
    let wire = Wire::new();
    let more = "  auth-password = \"right\"\n [neighbors.ttl-security.config]\n  \
                enabled = true\n  ttl-min = 255\n";
    let gobgp = GoBgp::start(&wire.there, &conf(65001, more, ""));
    tell(&gobgp);
    let key = SecretKey {
        name: "bgp".into(),
        key: "key".into(),
    };
    let mut all = world();
    for (name, at) in THEM {
        let key = key.clone();
        all.push(peer_with(name, at, 65001, |p| {
            p.password = Some(key);
            p.ttl_security = Some(1);
        }));
    }
    let ours = Ours::start(&wire.here, settings(), all);
    ours.handle
        .key(key.clone(), Some(b"wrong".to_vec()))
        .unwrap();
    tune(&ours, impatient);
    let refused = || counter(&wire.there, "TCPMD5Failure");
    until("wrong signatures", refused, |n| *n > 0);
    let states = ours.states();
    let up = |(_, s): &(String, bgp::fsm::State)| *s == bgp::fsm::State::Established;
    assert!(!states.iter().any(up), "{states:?}");
    ours.handle.key(key, Some(b"right".to_vec())).unwrap();
    tune(&ours, impatient);
    ours.established(2);
    learned(&ours, "192.0.2.0/24");
    learned(&ours, "2001:db8::/48");
    gobgp.learns("172.16.1.0/26");
    gobgp.learns("fd10::40/122");
    assert_eq!(counter(&wire.here, "TCPMinTTLDrop"), 0);
}

/// What GoBGP calls a soft reset of what comes in asks nobody anything: so we ask alone.
#[test]
fn refreshes_tell_all_again_under_the_same_session() {
    let (_wire, gobgp, ours) = up(&conf(65001, "", ""), peers(65001));
    tell(&gobgp);
    gobgp.learns("172.16.1.0/26");
    learned(&ours, "192.0.2.0/24");
    let since = ours.since();
    let updates = |ours: &Ours| {
        let look = |v: &speaker::View<'_>| {
            let each = v.router.into_iter().flat_map(bgp::router::Router::peers);
            each.map(|p| p.counters.updates).sum::<u64>()
        };
        ours.handle.look(look).unwrap()
    };
    let before = updates(&ours);
    let ask = |r: &mut bgp::router::Router, now: Instant| {
        let peers: Vec<_> = r.peers().map(|p| p.peer).collect();
        for id in peers {
            for family in Family::BOTH {
                r.request_refresh(id, family, now);
            }
        }
    };
    ours.handle.act(ask).unwrap();
    until("all again", || updates(&ours), |n| *n >= before + 2);
    learned(&ours, "192.0.2.0/24");
    learned(&ours, "2001:db8::/48");
    assert_eq!(ours.since(), since);
}

/// A route from a peer of one's own making: ORIGIN, a path, a next hop.
fn told(asn: u16, hop: [u8; 4], routes: &str) -> Vec<u8> {
    let mut attributes = hex("40 01 01 00 40 02 06 02 01 0000");
    attributes.extend(asn.to_be_bytes());
    attributes.extend(hex("40 03 04"));
    attributes.extend(hop);
    update(&[], &attributes, &hex(routes))
}

/// GoBGP's side of a session with a peer of one's own making.
fn passive(at: &str, asn: u16) -> String {
    format!(
        "[[neighbors]]\n [neighbors.config]\n  neighbor-address = \"{at}\"\n  peer-as = {asn}\n \
         [neighbors.transport.config]\n  passive-mode = true\n"
    )
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
    all.extend(here.map(|(at, asn)| peer(at, at, asn.into())));
    let ours = Ours::start(&wire.here, settings(), all);
    tune(&ours, |c| {
        impatient(c);
        c.add_path_receive = true;
        c.add_path_send = AddPathSend::All;
    });
    let paths = "  [neighbors.afi-safis.add-paths.config]\n   receive = true\n   send-max = 8\n";
    let others = there.map(|(at, asn)| passive(at, asn)).concat();
    let gobgp = GoBgp::start(&wire.there, &(conf(65001, "", paths) + &others));
    gobgp.established(US[0]);
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
    let two = until(
        "both paths there",
        || gobgp.paths("198.51.100.0/24"),
        |p| p.len() == 2,
    );
    let mut ends: Vec<u32> = two.iter().filter_map(|p| p.path.last().copied()).collect();
    ends.sort_unstable();
    assert_eq!(ends, [65021, 65022], "{two:?}");
    let paths = || {
        let prefix = support::cidr("203.0.113.0/24");
        let look = move |v: &speaker::View<'_>| {
            let all = v.router?.explain(prefix)?.paths;
            let path = |p: &bgp::router::PathReport| p.attributes.as_path.to_string();
            let mut ends: Vec<_> = all.iter().map(path).collect();
            ends.sort();
            Some(ends)
        };
        ours.handle.look(look).unwrap()
    };
    until("both paths here", paths, |p| {
        p.as_deref() == Some(&["65001 65031".to_owned(), "65001 65032".to_owned()])
    });
    raw[0].send(&update(&hex("18 c63364"), &[], &[]));
    let one = until(
        "one path there",
        || gobgp.paths("198.51.100.0/24"),
        |p| p.len() == 1,
    );
    assert_eq!(one[0].path.last(), Some(&65022));
    drop(raw.remove(2));
    until("one path here", paths, |p| {
        p.as_deref() == Some(&["65001 65032".to_owned()])
    });
}

#[test]
fn routes_of_one_that_was_killed_stay_until_it_tells_anew() {
    let neighbor = " [neighbors.graceful-restart.config]\n  enabled = true\n  \
                    restart-time = 60\n  deferral-time = 5\n";
    let family = "  [neighbors.afi-safis.mp-graceful-restart.config]\n   enabled = true\n";
    let (_wire, mut gobgp, ours) = up(&conf(65001, neighbor, family), peers(65001));
    tell(&gobgp);
    let prefixes = ["192.0.2.0/24", "2001:db8::/48"];
    let first = prefixes.map(|p| learned(&ours, p));
    let seen = events(&ours);
    gobgp.kill();
    for p in prefixes {
        until(
            "stale routes",
            || held(&ours, p),
            |h| h.as_ref().is_some_and(|h| h.stale),
        );
    }
    gobgp.recover();
    // Before it has been told all, it tells nothing itself (RFC 4724, section 4.1).
    tell(&gobgp);
    ours.established(2);
    assert_eq!(prefixes.map(|p| learned(&ours, p)), first);
    gobgp.learns("172.16.1.0/26");
    let all = seen.lock().unwrap();
    let stale = all
        .iter()
        .filter(|(_, e)| matches!(e, bgp::router::Event::Stale { .. }));
    assert_eq!(stale.count(), 2, "{all:?}");
}

/// A call of GoBGP's comes after ten seconds, whatever it is configured with: so the two never call
/// each other at once.
#[test]
fn it_calls_where_we_wait() {
    let wire = Wire::new();
    let ours = Ours::start(&wire.here, settings(), peers(65001));
    tune(&ours, |c| c.passive = true);
    let gobgp = GoBgp::start(&wire.there, &conf(65001, "", ""));
    ours.established(2);
    tell(&gobgp);
    learned(&ours, "192.0.2.0/24");
    learned(&ours, "2001:db8::/48");
    gobgp.learns("172.16.1.0/26");
    gobgp.learns("fd10::40/122");
}

const MANY: u32 = 50_000;

/// The `n`th prefix of a large table.
fn nth(n: u32) -> String {
    format!("18 {:06x}", 0x14_0000 + n)
}

#[test]
fn a_large_table_comes_and_goes() {
    let wire = Wire::new();
    run(&wire.there, "ip", "addr add 10.0.0.21/24 dev eth0");
    let feeds = passive("10.0.0.21", 65021);
    let _gobgp = GoBgp::start(&wire.there, &(conf(65001, "", "") + &feeds));
    let ours = Ours::start(&wire.here, settings(), peers(65001));
    ours.established(2);
    let open = Opening::new(65021, [10, 0, 0, 21]);
    let mut feeder = Raw::establish(&wire.there, "10.0.0.21", "10.0.0.2", &open);
    let all: Vec<u32> = (0..MANY).collect();
    for some in all.chunks(500) {
        let routes: String = some.iter().map(|n| nth(*n)).collect();
        feeder.send(&told(65021, [10, 0, 0, 21], &routes));
    }
    let whole = MANY as usize;
    let have = || in_use(&ours, Family::V4);
    until("all here", have, |n| *n == whole + 1);
    for some in all[..10_000].chunks(500) {
        let routes: String = some.iter().map(|n| nth(*n)).collect();
        feeder.send(&update(&hex(&routes), &[], &[]));
    }
    until("part of it here", have, |n| *n == whole + 1 - 10_000);
    drop(feeder);
    until("none here", have, |n| *n == 1);
}
