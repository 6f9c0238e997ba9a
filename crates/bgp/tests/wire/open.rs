//! OPENs, their capabilities, and what two of them agree on.

use crate::bytes::{hex, message};
use bgp::caps::{
    AddPath, Capability, Decoding, ExtendedNextHop, GracefulRestart, LongLived, Negotiated,
    RestartFamily, Role,
};
use bgp::error::{Code, Notification};
use bgp::message::{Message, Open};
use bgp::types::{AfiSafi, PeerKind, RouterId};
use bgp::wire::{read, write_open};
use bgp::{Asn, Family};

fn open(capabilities: Vec<Capability>) -> Open {
    Open {
        asn: Asn(65000),
        hold_time: 240,
        router_id: RouterId(0x0a00_0001),
        capabilities,
    }
}

fn parse(body: &[u8]) -> Result<Open, Notification> {
    match read(&message(1, body), &Decoding::default()) {
        Ok(Message::Open(o)) => Ok(o),
        Ok(other) => panic!("an OPEN was expected: {other:?}"),
        Err(e) => Err(e.notification),
    }
}

fn written(o: &Open) -> Vec<u8> {
    let mut out = Vec::new();
    write_open(o, &mut out).unwrap();
    out
}

const FIXED: &str = "04 fde8 00f0 0a000001";

#[test]
fn without_capabilities() {
    let bytes = hex(&format!("{FIXED} 00"));
    let o = parse(&bytes).unwrap();
    assert_eq!(o, open(vec![]));
    assert_eq!(written(&o), message(1, &bytes));
    assert!(o.carries(Family::V4) && !o.carries(Family::V6));
}

#[test]
fn every_capability() {
    let v4 = AfiSafi::IPV4_UNICAST;
    let v6 = AfiSafi::IPV6_UNICAST;
    let table: Vec<(&str, Capability)> = vec![
        ("01 04 0001 00 01", Capability::MultiProtocol(v4)),
        ("02 00", Capability::RouteRefresh),
        (
            "05 06 0001 0001 0002",
            Capability::ExtendedNextHop(vec![ExtendedNextHop::V4_OVER_V6]),
        ),
        ("06 00", Capability::ExtendedMessage),
        ("09 01 03", Capability::Role(Role::Customer)),
        (
            "40 0a c078 0001 01 80 0002 01 00",
            Capability::GracefulRestart(GracefulRestart {
                restarting: true,
                notification: true,
                time: 120,
                families: vec![
                    RestartFamily {
                        family: v4,
                        forwarding: true,
                    },
                    RestartFamily {
                        family: v6,
                        forwarding: false,
                    },
                ],
            }),
        ),
        ("41 04 00010000", Capability::FourOctetAs(Asn(65536))),
        (
            "45 08 0001 01 03 0002 01 01",
            Capability::AddPath(vec![
                AddPath {
                    family: v4,
                    receive: true,
                    send: true,
                },
                AddPath {
                    family: v6,
                    receive: true,
                    send: false,
                },
            ]),
        ),
        ("46 00", Capability::EnhancedRouteRefresh),
        (
            "47 07 0001 01 80 000e10",
            Capability::LongLivedGracefulRestart(vec![LongLived {
                family: v4,
                forwarding: true,
                stale_time: 3600,
            }]),
        ),
        (
            "49 05 03 726f62 00",
            Capability::Fqdn {
                host: "rob".into(),
                domain: String::new(),
            },
        ),
        (
            "4b 05 04 4d616e78",
            Capability::SoftwareVersion("Manx".into()),
        ),
        (
            "80 00",
            Capability::Unknown {
                code: 128,
                value: [].into(),
            },
        ),
    ];
    for (bytes, capability) in &table {
        let caps = hex(bytes);
        let len = caps.len();
        let body = hex(&format!("{FIXED} {:02x} 02 {len:02x} {bytes}", len + 2));
        let o = parse(&body).unwrap_or_else(|e| panic!("{capability:?}: {e}"));
        assert_eq!(o.capabilities, std::slice::from_ref(capability));
        let mut again = open(vec![capability.clone()]);
        again.asn = o.asn;
        let own = written(&again);
        assert_eq!(own[29..], body[10..], "{capability:?}");
        // Cut short it is never taken for something else.
        for end in 0..caps.len() {
            let cut = &body[..body.len() - (caps.len() - end)];
            assert!(parse(cut).is_err(), "{capability:?} cut to {end}");
        }
    }
}

#[test]
fn four_octet_as_wins_over_the_short_field() {
    let o = parse(&hex("04 5ba0 00f0 0a000001 08 02 06 41 04 00010000")).unwrap();
    assert_eq!(o.asn, Asn(65536));
    let bytes = written(&o);
    assert_eq!(bytes[20..22], [0x5b, 0xa0]);
}

#[test]
fn one_parameter_for_each_capability_is_the_same() {
    let each = hex(&format!("{FIXED} 0c 02 02 02 00 02 06 41 04 0000fde8"));
    let one = hex(&format!("{FIXED} 0a 02 08 02 00 41 04 0000fde8"));
    assert_eq!(parse(&each).unwrap(), parse(&one).unwrap());
}

/// RFC 4271, section 6.2; RFC 6286; RFC 7607.
#[test]
fn what_an_open_may_not_say() {
    for (bytes, code, data) in [
        (
            "03 fde8 00f0 0a000001 00",
            Code::UNSUPPORTED_VERSION,
            "0004",
        ),
        (
            "05 fde8 00f0 0a000001 00",
            Code::UNSUPPORTED_VERSION,
            "0004",
        ),
        ("04 0000 00f0 0a000001 00", Code::BAD_PEER_AS, ""),
        (
            "04 fde8 00f0 0a000001 08 02 06 41 04 00000000",
            Code::BAD_PEER_AS,
            "",
        ),
        ("04 fde8 0001 0a000001 00", Code::UNACCEPTABLE_HOLD_TIME, ""),
        ("04 fde8 0002 0a000001 00", Code::UNACCEPTABLE_HOLD_TIME, ""),
        ("04 fde8 00f0 00000000 00", Code::BAD_IDENTIFIER, "00000000"),
        // Authentication, long gone.
        (
            "04 fde8 00f0 0a000001 02 01 00",
            Code::UNSUPPORTED_PARAMETER,
            "",
        ),
        // Lengths that do not fit.
        ("04 fde8 00f0 0a000001 01", Code::OPEN_UNSPECIFIC, ""),
        ("04 fde8 00f0 0a000001 00 02", Code::OPEN_UNSPECIFIC, ""),
        ("04 fde8 00f0 0a000001 02 02 01", Code::OPEN_UNSPECIFIC, ""),
        (
            "04 fde8 00f0 0a000001 03 02 01 02",
            Code::OPEN_UNSPECIFIC,
            "",
        ),
        // Capabilities of impossible lengths.
        (
            "04 fde8 00f0 0a000001 07 02 05 01 03 000101",
            Code::OPEN_UNSPECIFIC,
            "",
        ),
        (
            "04 fde8 00f0 0a000001 07 02 05 41 03 000101",
            Code::OPEN_UNSPECIFIC,
            "",
        ),
        (
            "04 fde8 00f0 0a000001 05 02 03 40 01 00",
            Code::OPEN_UNSPECIFIC,
            "",
        ),
    ] {
        let n = parse(&hex(bytes)).unwrap_err();
        assert_eq!((n.code, &*n.data), (code, &*hex(data)), "{bytes}");
    }
    assert_eq!(
        parse(&hex("04 fde8 0000 0a000001 00")).unwrap().hold_time,
        0
    );
    assert_eq!(
        parse(&hex("04 fde8 0003 0a000001 00")).unwrap().hold_time,
        3
    );
}

/// RFC 9072.
#[test]
fn long_parameters() {
    let many: Vec<_> = (0..40)
        .map(|n| Capability::Unknown {
            code: 200 + n % 50,
            value: vec![n; 20].into(),
        })
        .collect();
    let o = open(many);
    let bytes = written(&o);
    assert_eq!(bytes[28..30], [255, 255]);
    assert_eq!(parse(&bytes[19..]).unwrap(), o);
    // The short length may be anything but zero; the long form may be used needlessly.
    let mut other = bytes;
    other[28] = 7;
    assert_eq!(parse(&other[19..]).unwrap(), o);
    other[28] = 0;
    assert_eq!(parse(&other[19..]).unwrap_err().code, Code::OPEN_UNSPECIFIC);
    let short = hex(&format!("{FIXED} ff ff 0005 02 0002 02 00"));
    assert_eq!(
        parse(&short).unwrap().capabilities,
        [Capability::RouteRefresh]
    );
    // Too long for an OPEN.
    let value: Box<[u8]> = vec![0; 255].into();
    let huge = open(vec![Capability::Unknown { code: 200, value }; 16]);
    let mut out = Vec::new();
    assert!(write_open(&huge, &mut out).is_err());
    assert!(out.is_empty());
}

#[test]
fn texts_that_do_not_parse_are_kept() {
    for bytes in ["49 03 05 6161", "4b 02 05 61", "4b 03 02 fffe", "49 00"] {
        let caps = hex(bytes);
        let len = caps.len();
        let body = hex(&format!("{FIXED} {:02x} 02 {len:02x} {bytes}", len + 2));
        let o = parse(&body).unwrap();
        let [Capability::Unknown { code, value }] = &*o.capabilities else {
            panic!("{bytes}: {o:?}");
        };
        assert_eq!((*code, &**value), (caps[0], &caps[2..]));
        assert_eq!(written(&o), message(1, &body));
    }
}

/// RFC 7911, section 4: such a value is ignored for its family alone.
#[test]
fn add_path_with_an_odd_mode() {
    let body = hex(&format!("{FIXED} 0c 02 0a 45 08 0001 01 04 0002 01 02"));
    let o = parse(&body).unwrap();
    assert_eq!(o.add_path(Family::V4), None);
    assert!(o.add_path(Family::V6).unwrap().send);
}

#[test]
fn checks_against_what_is_expected() {
    let o = open(vec![]);
    let own = RouterId(1);
    assert!(
        o.check_peer(Some(Asn(65000)), PeerKind::Internal, own)
            .is_ok()
    );
    assert!(o.check_peer(None, PeerKind::External, own).is_ok());
    let e = o.check_peer(Some(Asn(1)), PeerKind::External, own);
    assert_eq!(e.unwrap_err().code, Code::BAD_PEER_AS);
    let e = o.check_peer(None, PeerKind::Internal, o.router_id);
    assert_eq!(e.unwrap_err().code, Code::BAD_IDENTIFIER);
    // Only within an AS must identifiers differ (RFC 6286).
    assert!(o.check_peer(None, PeerKind::External, o.router_id).is_ok());
}

/// RFC 9234, section 4.2.
#[test]
fn roles_must_pair_up() {
    let with = |roles: &[Role]| open(roles.iter().map(|&r| Capability::Role(r)).collect());
    let all = [
        Role::Provider,
        Role::RouteServer,
        Role::RouteServerClient,
        Role::Customer,
        Role::Peer,
        Role::Other(7),
    ];
    let mut allowed = 0;
    for ours in all {
        for theirs in all {
            let ok = with(&[theirs]).check_role(Some(ours), false).is_ok();
            assert_eq!(ok, ours.pairs_with(theirs));
            allowed += usize::from(ok);
        }
    }
    assert_eq!(allowed, 5);
    let code = |o: Open, strict| o.check_role(Some(Role::Peer), strict).map_err(|n| n.code);
    assert_eq!(code(with(&[]), false), Ok(()));
    assert_eq!(code(with(&[]), true), Err(Code::ROLE_MISMATCH));
    assert_eq!(code(with(&[Role::Peer, Role::Peer]), true), Ok(()));
    let two = with(&[Role::Peer, Role::Customer]);
    assert_eq!(code(two, false), Err(Code::ROLE_MISMATCH));
    assert_eq!(with(&[Role::Peer]).check_role(None, true), Ok(()));
}

#[test]
fn what_two_agree_on() {
    let add_path = |receive, send| {
        Capability::AddPath(vec![AddPath {
            family: AfiSafi::IPV4_UNICAST,
            receive,
            send,
        }])
    };
    let restart = |time| {
        Capability::GracefulRestart(GracefulRestart {
            time,
            ..GracefulRestart::default()
        })
    };
    let long = |stale_time| {
        Capability::LongLivedGracefulRestart(vec![LongLived {
            family: AfiSafi::IPV4_UNICAST,
            forwarding: false,
            stale_time,
        }])
    };
    let over = Capability::ExtendedNextHop(vec![ExtendedNextHop::V4_OVER_V6]);
    let ours = open(vec![
        Capability::MultiProtocol(AfiSafi::IPV4_UNICAST),
        Capability::MultiProtocol(AfiSafi::IPV6_UNICAST),
        Capability::RouteRefresh,
        Capability::EnhancedRouteRefresh,
        Capability::ExtendedMessage,
        Capability::FourOctetAs(Asn(65000)),
        add_path(true, false),
        restart(120),
        long(3600),
        over.clone(),
    ]);
    let theirs = Open {
        hold_time: 90,
        ..open(vec![
            Capability::MultiProtocol(AfiSafi::IPV4_UNICAST),
            Capability::RouteRefresh,
            Capability::FourOctetAs(Asn(65000)),
            add_path(true, true),
            restart(30),
            long(7200),
            over,
        ])
    };
    let n = Negotiated::new(&ours, &theirs, PeerKind::Internal);
    assert_eq!(n.hold_time, 90);
    assert!(n.carries(Family::V4) && !n.carries(Family::V6));
    assert!(n.route_refresh && !n.enhanced_refresh);
    assert!(n.decoding.four_octet_as && n.encoding.four_octet_as);
    assert!(n.decoding.v4_over_v6 && n.encoding.v4_over_v6);
    // They may use what we offer; we use it only where both do.
    assert!(n.decoding.extended_message && !n.encoding.extended_message);
    // They send and we receive, but we do not send.
    assert!(n.decoding.add_path.v4 && !n.encoding.add_path.v4);
    assert_eq!(n.graceful_restart.unwrap().time, 30);
    assert_eq!(n.long_lived[0].stale_time, 7200);
    // Long-lived graceful restart means nothing alone (RFC 9494, section 4.1).
    let alone = open(vec![long(7200)]);
    let n = Negotiated::new(&ours, &alone, PeerKind::Internal);
    assert!(n.graceful_restart.is_none() && n.long_lived.is_empty());
    assert!(!n.decoding.four_octet_as && n.carries(Family::V4));
}
