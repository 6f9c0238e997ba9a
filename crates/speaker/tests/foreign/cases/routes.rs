//! Routes and their attributes, both ways.

use super::*;
use crate::foreign::ours::{learned, paths, refresh, status};
use crate::foreign::raw::message;
use crate::foreign::{OURS, THEM, family};
use crate::support::{block, peer};
use bgp::caps::{Negotiated, Role};
use bgp::peer::AddPathSend;
use net::Family;

fn both_ways<S: Stranger>(asn: u32) {
    let (_wire, them, ours) = up::<S>(&Side::quiet(asn));
    let external = asn != 64512;
    for (prefix, (_, at)) in THEIRS.into_iter().zip(THEM) {
        them.tell(prefix, true);
        assert_eq!(learned(&ours, prefix), attributes(asn, at), "{prefix}");
    }
    for (prefix, us) in OURS.into_iter().zip(US) {
        let expected = Seen {
            path: if external {
                vec![64512, 64999]
            } else {
                vec![64999]
            },
            hop: us.into(),
            // The filter accepts, so that what Calico does to its own routes is skipped.
            local_pref: (!external).then_some(2_147_482_623),
            ..Seen::default()
        };
        let mut seen = them.learns(prefix);
        if external {
            // BIRD shows the preference of its own.
            seen.local_pref = None;
        }
        assert_eq!(seen, expected, "{prefix}");
    }
    as_configured(&them, &ours, asn);
    and_away(&them, &ours);
}

/// Without the filter the cluster's own configuration speaks.
fn as_configured<S: Stranger>(them: &S, ours: &Ours, asn: u32) {
    for (name, at) in THEM {
        ours.update(peer(name, at, asn));
    }
    for prefix in OURS {
        let coloured = until(
            "its communities",
            || them.paths(prefix),
            |p| p.first().is_some_and(|p| !p.communities.is_empty()),
        );
        assert_eq!(coloured[0].communities, ["64512:7"]);
        assert_eq!(coloured[0].large, ["64512:1:2"]);
        let path: &[u32] = if asn == 64512 { &[] } else { &[64512] };
        assert_eq!(coloured[0].path, path);
    }
}

/// Withdrawn one by one, both ways, under the same sessions; then back.
fn and_away<S: Stranger>(them: &S, ours: &Ours) {
    let since = ours.since();
    them.untell(THEIRS[1]);
    ours.forgets(THEIRS[1]);
    for _ in 0..3 {
        them.untell(THEIRS[0]);
        ours.forgets(THEIRS[0]);
        them.tell(THEIRS[0], false);
        ours.learns(THEIRS[0]);
    }
    for prefix in OURS {
        ours.update(block(prefix, None));
        them.forgets(prefix);
        ours.update(block(prefix, Some("a")));
        them.learns(prefix);
    }
    assert_eq!(ours.since(), since);
}

pub fn another_as_and_we_tell_each_other_all_attributes<S: Stranger>() {
    both_ways::<S>(65001);
}

pub fn within_the_as_all_attributes_pass<S: Stranger>() {
    both_ways::<S>(64512);
}

/// Communities of every kind from a third speaker pass through us as they are, and so does what we
/// do not know.
pub fn communities_of_others_pass_through<S: Stranger>() {
    const ONE: (&str, u16) = ("10.0.0.21", 65021);
    let side = Side::of(65001);
    let wire = wire(&side);
    run(&wire.there, "ip", "addr add 10.0.0.21/24 dev eth0");
    let them = S::start(&wire.there, &side);
    let ours = Ours::start(&wire.here, settings(), peers(65001, |_| {}));
    ours.update(peer("one", ONE.0, ONE.1.into()));
    tune(&ours, impatient);
    ours.established(2);
    let mut one = feeder(&wire, ONE, US[0]);
    let more = "c0 08 08 fde80001 fde80002 c0 10 08 0002fde900000009 \
                c0 20 0c 0000fde9 00000001 00000002 c0 63 04 01020304";
    let all = octets(ONE.1, ONE.0, more);
    one.send(&update(&[], &all, &hex("18 c63364")));
    let seen = them.learns("198.51.100.0/24");
    assert_eq!(seen.path, [64512, 64999, 65021]);
    assert_eq!(seen.communities, ["65000:1", "65000:2"]);
    assert_eq!(seen.large, ["65001:1:2"]);
    assert_eq!(seen.extended, ["rt:65001:9"]);
    // Without them, under the same session.
    one.send(&update(&[], &octets(ONE.1, ONE.0, ""), &hex("18 c63364")));
    let without = until(
        "none of them",
        || them.paths("198.51.100.0/24"),
        |p| p.first().is_some_and(|p| p.communities.is_empty()),
    );
    assert_eq!((without[0].large.len(), without[0].extended.len()), (0, 0));
}

/// Each side asks the other to tell all again, if it can; sessions stay.
pub fn refreshes_tell_all_again_under_the_same_session<S: Stranger>() {
    let (_wire, them, ours) = up::<S>(&Side::quiet(65001));
    for p in THEIRS {
        them.tell(p, true);
    }
    let first = THEIRS.map(|p| learned(&ours, p));
    for p in OURS {
        them.learns(p);
    }
    let since = ours.since();
    let updates = || THEM.map(|(_, at)| status(&ours, at).counters.updates);
    let before = updates();
    let seen = crate::foreign::ours::events(&ours);
    refresh(&ours);
    until("all again", updates, |n| {
        n[0] > before[0] && n[1] > before[1]
    });
    assert_eq!(THEIRS.map(|p| learned(&ours, p)), first);
    let sent = || status(&ours, THEM[0].1).counters.octets_sent;
    let before = sent();
    if them.refresh() {
        // More than the KEEPALIVEs of the time that this takes.
        until("all again there", sent, |n| *n >= before + 60);
        for p in OURS {
            them.learns(p);
        }
    }
    let seen = seen.lock().unwrap();
    assert_eq!(ours.since(), since, "{seen:?}");
}

/// RFC 7313: begin and end are marked both ways, and what is not told again goes.
pub fn refreshes_are_marked<S: Stranger>() {
    let (_wire, them, ours) = up::<S>(&Side::quiet(65001));
    for p in THEIRS {
        them.tell(p, false);
    }
    for p in THEIRS {
        learned(&ours, p);
    }
    let agreed = |n: Option<Negotiated>| n.is_some_and(|n| n.enhanced_refresh);
    for (_, at) in THEM {
        assert!(agreed(status(&ours, at).negotiated), "{at}");
    }
    let marks = || {
        let c = status(&ours, THEM[0].1).counters;
        c.received - c.updates
    };
    let before = marks();
    refresh(&ours);
    until("begin and end", marks, |n| *n >= before + 2);
    assert!(them.refresh());
    let said = || them.session(US[0]);
    until("marks there", said, |s| {
        s.contains("Got BEGIN-OF-RR") && s.contains("Got END-OF-RR")
    });
    assert_eq!(them.paths(OURS[0]).len(), 1);
    ours.established(2);
}

/// Several paths to a prefix go both ways (RFC 7911), and go one by one.
pub fn several_paths_to_a_prefix_go_both_ways<S: Stranger>() {
    let here: [(&str, u16); 2] = [("10.0.0.21", 65021), ("10.0.0.22", 65022)];
    let there: [(&str, u16); 2] = [("10.0.0.31", 65031), ("10.0.0.32", 65032)];
    let side = Side {
        several: true,
        feeders: there.to_vec(),
        ..Side::of(65001)
    };
    let wire = wire(&side);
    for (at, _) in here {
        run(&wire.there, "ip", &format!("addr add {at}/24 dev eth0"));
    }
    let mut all = peers(65001, |_| {});
    all.extend(here.map(|(at, asn)| peer(at, at, asn.into())));
    let ours = Ours::start(&wire.here, settings(), all);
    tune(&ours, |c| {
        impatient(c);
        c.add_path_receive = true;
        c.add_path_send = AddPathSend::All;
    });
    let them = S::start(&wire.there, &side);
    them.established();
    let tell = |who: (&str, u16), to: &str, route: &str| {
        let mut raw = feeder(&wire, who, to);
        raw.send(&update(&[], &octets(who.1, who.0, ""), &hex(route)));
        raw
    };
    let mut to_us = here.map(|who| tell(who, US[0], "18 c63364"));
    let to_them = there.map(|who| tell(who, THEM[0].1, "18 cb0071"));
    let told = || them.paths("198.51.100.0/24");
    let two = until("both paths there", told, |p| p.len() == 2);
    let mut ends: Vec<u32> = two.iter().filter_map(|p| p.path.last().copied()).collect();
    ends.sort_unstable();
    assert_eq!(ends, [65021, 65022], "{two:?}");
    let held = || paths(&ours, "203.0.113.0/24");
    until("both paths here", held, |p| {
        *p == ["65001 65031", "65001 65032"]
    });
    // One goes; the other stays.
    to_us[0].send(&update(&hex("18 c63364"), &[], &[]));
    let one = until("one path there", told, |p| p.len() == 1);
    assert_eq!(one[0].path.last(), Some(&65022));
    let [first, _second] = to_them;
    drop(first);
    until("one path here", held, |p| *p == ["65001 65032"]);
}

/// IPv6 routes over a session of IPv4, and IPv4 routes with next hops of IPv6 (RFC 8950).
pub fn each_family_goes_over_the_other<S: Stranger>() {
    let side = Side {
        crossed: true,
        ..Side::quiet(65001)
    };
    let wire = wire(&side);
    let ours = Ours::start(&wire.here, settings(), peers(65001, |_| {}));
    tune(&ours, |c| {
        impatient(c);
        let six = c.addr.is_ipv6();
        c.families.v4 = six;
        c.families.v6 = !six;
        c.v4_over_v6 = six;
        c.own_address.v6 = (!six).then(|| crate::support::ip(US[1]));
    });
    let them = S::start(&wire.there, &side);
    them.established();
    ours.established(2);
    for prefix in THEIRS {
        them.tell(prefix, true);
        assert_eq!(
            learned(&ours, prefix),
            attributes(65001, "fd00::2"),
            "{prefix}"
        );
    }
    for prefix in OURS {
        let seen = them.learns(prefix);
        assert_eq!(seen.hop, US[1], "{prefix} of {}", family(prefix));
        assert_eq!(seen.path, [64512, 64999]);
    }
    let since = ours.since();
    for prefix in THEIRS {
        them.untell(prefix);
        ours.forgets(prefix);
    }
    // A change of our blocks is one of policy, and would undo what no resource can say.
    for prefix in OURS {
        let withdraw = |r: &mut bgp::router::Router, _| r.withdraw(crate::support::cidr(prefix));
        ours.handle.act(withdraw).unwrap();
        them.forgets(prefix);
    }
    assert_eq!(ours.since(), since);
}

/// A route whose attributes fill more than 4096 octets goes both ways (RFC 8654).
pub fn long_messages_go_both_ways<S: Stranger>() {
    const HERE: (&str, u16) = ("10.0.0.21", 65021);
    const THERE: (&str, u16) = ("10.0.0.31", 65031);
    let side = Side {
        extended: true,
        feeders: vec![THERE],
        ..Side::of(65001)
    };
    let wire = wire(&side);
    run(&wire.there, "ip", "addr add 10.0.0.21/24 dev eth0");
    let mut all = peers(65001, |_| {});
    all.push(peer("one", HERE.0, HERE.1.into()));
    let ours = Ours::start(&wire.here, settings(), all);
    tune(&ours, |c| {
        impatient(c);
        c.extended_messages = true;
    });
    let them = S::start(&wire.there, &side);
    them.established();
    ours.established(2);
    let many: String = (0..1100).map(|n| format!("fde9{n:04x}")).collect();
    let more = format!("d0 08 {:04x} {many}", 4 * 1100);
    let tell = |who: (&str, u16), to: &str, route: &str| {
        let id: std::net::Ipv4Addr = who.0.parse().unwrap();
        let mut can = hex("0104 0001 0001 0200 0600 4104 0000");
        can.extend(who.1.to_be_bytes());
        let open = Opening::with(who.1, id.octets(), &can);
        let mut raw = Raw::insist(behind(&wire, to), who.0, to, &open);
        let long = update(&[], &octets(who.1, who.0, &more), &hex(route));
        assert!(long.len() > 4096);
        raw.send(&long);
        raw
    };
    let mut one = tell(HERE, US[0], "18 c63364");
    let _other = tell(THERE, THEM[0].1, "18 cb0071");
    them.learns("198.51.100.0/24");
    for last in ["65001:0", "65001:1099"] {
        assert!(them.carries("198.51.100.0/24", last), "{last}");
    }
    assert_eq!(learned(&ours, "203.0.113.0/24").communities.len(), 1100);
    one.send(&message(
        crate::foreign::raw::UPDATE,
        &hex("0004 18c63364 0000"),
    ));
    them.forgets("198.51.100.0/24");
    ours.established(3);
}

/// Roles that pair up are a session, others are refused on both sides (RFC 9234).
pub fn roles_pair_up_or_there_is_no_session<S: Stranger>() {
    let side = Side {
        role: Some(("customer", true)),
        ..Side::of(65001)
    };
    let wire = wire(&side);
    let them = S::start(&wire.there, &side);
    let ours = Ours::start(&wire.here, settings(), peers(65001, |_| {}));
    let be = |role: Option<Role>| {
        tune(&ours, move |c| {
            impatient(c);
            c.role = role;
        });
    };
    be(Some(Role::Provider));
    ours.established(2);
    let peer = status(&ours, THEM[0].1)
        .negotiated
        .and_then(|n| n.peer_role);
    assert_eq!(peer, Some(Role::Customer));
    them.learns(OURS[0]);
    for wrong in [Some(Role::Peer), None] {
        be(wrong);
        let why = || THEM.map(|(_, at)| status(&ours, at).last_error);
        until("refused", why, |w| {
            let of = |w: &Option<String>| w.as_ref().is_some_and(|w| w.contains("role"));
            w.iter().all(of)
        });
        assert!(!US.iter().any(|us| them.is_up(us)));
        ours.established(0);
    }
    be(Some(Role::Provider));
    ours.established(2);
    // A route that came from a customer without OTC goes to nobody but customers: it has OTC there.
    them.tell(THEIRS[0], false);
    learned(&ours, THEIRS[0]);
    assert_eq!(crate::foreign::ours::in_use(&ours, Family::V4), 2);
}
