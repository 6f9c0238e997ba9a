//! Keys, TTL security, collisions, changes of configuration. Wants root and `bird`.

mod support;

use model::{BgpPeer, BgpRemote, SecretKey, Update};
use std::time::Instant;
use support::{
    Bird, Ours, Wire, block, config, peer, peer_with, sessions, settings, statics, until, world,
};

const ID: &str = "10.0.0.2";

fn secret() -> SecretKey {
    SecretKey {
        name: "bgp".into(),
        key: "password".into(),
    }
}

fn with(asn: u32, change: impl Fn(&mut BgpPeer) + Copy) -> Vec<Update> {
    let mut all = world();
    all.push(peer_with("four", "10.0.0.2", asn, change));
    all.push(peer_with("six", "fd00::2", asn, change));
    all
}

fn keyed(p: &mut BgpPeer) {
    p.password = Some(secret());
}

/// A port at which BIRD does not listen, so that it has to call.
fn called_only(p: &mut BgpPeer) {
    keyed(p);
    if let BgpRemote::Address { port, .. } = &mut p.remote {
        *port = Some(1179);
    }
}

#[test]
fn keys_protect_sessions_whoever_calls() {
    let key = "password \"s3cret\";";
    for (bird, ours) in [
        (format!("{key} passive;"), keyed as fn(&mut BgpPeer)),
        (key.to_owned(), called_only),
    ] {
        let wire = Wire::new();
        let bird = Bird::start(&wire.there, ID, &sessions(65001, 64512, &bird));
        let ours = Ours::start(&wire.here, settings(), with(65001, ours));
        // A key that is not known keeps sessions down, and is said.
        let said = until("a trouble", || ours.errors(), |e| !e.is_empty());
        assert!(said[0].contains("secret bgp"), "{said:?}");
        assert_eq!(ours.states(), []);
        let hand_in = |text: &str| ours.handle.key(secret(), Some(text.into())).is_ok();
        assert!(hand_in("s3cret"));
        ours.established(2);
        bird.established("m4");
        bird.established("m6");
        // Another key ends them, and the right one brings them back.
        assert!(hand_in("wrong"));
        until(
            "down there",
            || bird.ask("show protocols m4"),
            |s| !s.contains("Established"),
        );
        assert!(hand_in("s3cret"));
        ours.established(2);
    }
}

#[test]
fn a_wrong_key_is_no_session() {
    let wire = Wire::new();
    let own = sessions(65001, 64512, "").replacen(
        "connect delay",
        "password \"other\"; connect delay",
        1,
    );
    let bird = Bird::start(&wire.there, ID, &own);
    let mut all = world();
    all.push(peer_with("four", "10.0.0.2", 65001, keyed));
    all.push(peer("six", "fd00::2", 65001));
    let ours = Ours::start(&wire.here, settings(), all);
    assert!(ours.handle.key(secret(), Some("s3cret".into())).is_ok());
    bird.established("m6");
    until(
        "it has tried",
        || bird.ask("show protocols all m4"),
        |s| s.contains("Connect") || s.contains("Active"),
    );
    ours.established(1);
    assert!(!bird.ask("show protocols m4").contains("Established"));
}

#[test]
fn packets_from_afar_are_not_taken() {
    let wire = Wire::new();
    let own =
        sessions(65001, 64512, "").replacen("connect delay", "ttl security on; connect delay", 1);
    let bird = Bird::start(&wire.there, ID, &own);
    let ours = Ours::start(
        &wire.here,
        settings(),
        with(65001, |p| p.ttl_security = Some(1)),
    );
    // That of IPv6 does not send what we ask for.
    ours.established(1);
    bird.established("m4");
    let up = |s: &String| s.contains("Established");
    assert!(!up(&bird.ask("show protocols m6")));
    bird.configure(ID, &sessions(65001, 64512, "ttl security on;"));
    ours.established(2);
}

#[test]
fn two_that_call_each_other_agree_on_one_connection() {
    for id in ["10.0.0.2", "0.0.0.9"] {
        let wire = Wire::new();
        let bird = Bird::start(&wire.there, id, &sessions(65001, 64512, ""));
        let ours = Ours::start(&wire.here, settings(), with(65001, |_| {}));
        ours.established(2);
        for _ in 0..3 {
            let before = Instant::now();
            let reset = |r: &mut bgp::router::Router, now| {
                let ids: Vec<_> = r.peers().map(|p| p.peer).collect();
                ids.into_iter()
                    .for_each(|id| r.reset_peer(id, "again", now));
            };
            assert!(ours.handle.act(reset).is_ok());
            bird.ask("restart m4");
            until(
                "new sessions",
                || ours.since(),
                |s| s.iter().all(|(_, t)| t.is_some_and(|t| t > before)),
            );
        }
        bird.established("m4");
        bird.established("m6");
    }
}

#[test]
fn a_change_leaves_other_sessions_alone() {
    let wire = Wire::new();
    let own = sessions(65001, 64512, "") + &statics(&["192.0.2.0/24"]);
    let bird = Bird::start(&wire.there, ID, &own);
    let ours = Ours::start(&wire.here, settings(), with(65001, |_| {}));
    ours.established(2);
    let before = ours.since();
    let told = |p: &str| until("told", || bird.route(p), |s| s.contains("BGP.next_hop"));
    // What is told and taken changes without a session.
    ours.update(block("172.16.2.0/26", Some("a")));
    told("172.16.2.0/26");
    ours.update(config(|c| {
        c.service_cluster = vec![support::cidr("10.96.0.0/12")]
    }));
    told("10.96.0.0/12");
    ours.learns("192.0.2.0/24");
    let filter = model::BgpFilter {
        import: [vec![model::FilterRule::default()], Vec::new()],
        ..model::BgpFilter::default()
    };
    ours.update(Update::BgpFilter("none".into(), Some(filter)));
    let filtered = |p: &mut BgpPeer| p.filters = vec!["none".into()];
    ours.update(peer_with("four", "10.0.0.2", 65001, filtered));
    ours.forgets("192.0.2.0/24");
    // The same again is nothing.
    for u in with(65001, |_| {}) {
        ours.update(u);
    }
    ours.learns("192.0.2.0/24");
    assert_eq!(ours.since(), before);
    // One that goes takes nobody along.
    ours.update(Update::BgpPeer("four".into(), None));
    until(
        "gone there",
        || bird.ask("show protocols m4"),
        |s| !s.contains("Established"),
    );
    assert_eq!(ours.since(), before[1..]);
}

#[test]
fn an_end_with_words_is_told() {
    let wire = Wire::new();
    let bird = Bird::start(&wire.there, ID, &sessions(65001, 64512, ""));
    let ours = Ours::start(&wire.here, settings(), with(65001, |_| {}));
    ours.established(2);
    assert!(ours.handle.shut_down("moved to rack 7").is_ok());
    until(
        "the words there",
        || bird.ask("show protocols all m4"),
        |s| s.contains("Administrative shutdown"),
    );
    assert!(bird.log().contains("moved to rack 7"), "{}", bird.log());
}
