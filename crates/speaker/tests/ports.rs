//! Several speakers at one address. Wants root and `bird`.

mod support;

use model::BgpRemote;
use support::{Bird, Ours, Wire, peer, peer_with, run, settings, statics, until, world};

/// BIRD of an AS at a port, with IPv4 routes of its own; it calls, too.
fn bird(wire: &Wire, id: &str, asn: u32, port: u16, route: &str) -> Bird {
    let session = format!(
        "protocol bgp m {{ local 10.0.0.2 port {port} as {asn}; neighbor 10.0.0.1 as 64512; \
         connect delay time 1; connect retry time 1; error wait time 1, 2; \
         ipv4 {{ import all; export where source = RTS_STATIC; }}; }}\n"
    );
    Bird::start(&wire.there, id, &(session + &statics(&[route])))
}

#[test]
fn each_is_called_at_its_port_and_none_is_taken_for_another() {
    let wire = Wire::new();
    let nft = |args: &str| run(&wire.here, "nft", args);
    // At first only they can call.
    nft("add table ip held");
    nft("add chain ip held out { type filter hook output priority 0 ; }");
    nft("add rule ip held out tcp dport { 179, 1179 } drop");
    let mut all = world();
    all.push(peer("one", "10.0.0.2", 65001));
    all.push(peer_with("two", "10.0.0.2", 65002, |p| {
        if let BgpRemote::Address { port, .. } = &mut p.remote {
            *port = Some(1179);
        }
    }));
    let ours = Ours::start(&wire.here, settings(), all);
    let one = bird(&wire, "10.0.0.2", 65001, 179, "192.0.2.0/24");
    let two = bird(&wire, "10.0.0.3", 65002, 1179, "198.51.100.0/24");
    for there in [&one, &two] {
        // Which of the two calls cannot be seen: nobody is told that he is of a wrong AS.
        until(
            "a call that is refused",
            || there.ask("show protocols m"),
            |s| s.contains("Socket"),
        );
        let log = there.log();
        assert!(!log.contains("Bad peer AS"), "{log}");
    }
    nft("delete table ip held");
    ours.established(2);
    let best = |p| until("a route", || ours.best(p), Option::is_some);
    assert!(best("192.0.2.0/24").is_some_and(|b| b.contains("65001")));
    assert!(best("198.51.100.0/24").is_some_and(|b| b.contains("65002")));
    for there in [&one, &two] {
        until(
            "our block there",
            || there.route("172.16.1.0/26"),
            |s| s.contains("BGP.next_hop"),
        );
        let log = there.log();
        assert!(!log.contains("Bad peer AS"), "{log}");
    }
    // One that goes leaves the other alone.
    drop(one);
    ours.forgets("192.0.2.0/24");
    ours.learns("198.51.100.0/24");
    ours.update(model::Update::BgpPeer("one".into(), None));
    ours.established(1);
}
