//! The rule-match table: one policy on shop/db with one Allow rule, so that what the rule
//! does not match is dropped at the end of the tier.

use crate::support::*;
use model::{
    Action, EndpointSlice, Icmp, Rule, ServiceRef, SliceEndpoint, SliceKey, SlicePort, Update,
};
use net::{Family, Protocol};
use std::sync::Arc;
use verdict::{Decision, Field, Flow, Side, Verdict};

const DB: &str = "shop/db";
const FRONT: &str = "shop/front";

struct Case<'a> {
    name: &'a str,
    rule: Rule,
    flow: Flow,
    matches: bool,
}

fn with(change: impl FnOnce(&mut Rule)) -> Rule {
    rule(Action::Allow, change)
}

fn cluster() -> Cluster {
    let mut c = Cluster::new();
    c.set(
        "offices",
        &["203.0.113.0/24", "2001:db8::/32"],
        "site=office",
    );
    c.set("shop/partners", &["198.51.100.0/24"], "site=partner");
    c.set("whole", &["0.0.0.0/1", "128.0.0.0/1"], "site=world");
    c.host("hep-n2", "n2", Some("eth7"), &["192.168.0.99"]);
    c
}

#[track_caller]
fn check(c: &Cluster, cases: Vec<Case<'_>>) {
    for case in cases {
        let mut c = Cluster(c.0.clone());
        c.global("only", policy("app == 'db'", Some(vec![case.rule]), None));
        let answer = c.ask(&case.flow);
        let want = if case.matches {
            Verdict::Allow
        } else {
            Verdict::Deny
        };
        assert_eq!(answer.verdict, want, "{}: {answer:#}", case.name);
        let stage = answer.paths[0].deciding().unwrap();
        match case.matches {
            true => assert!(
                matches!(stage.decision, Decision::Rule { index: 0, .. }),
                "{}",
                case.name
            ),
            false => assert!(
                matches!(stage.decision, Decision::EndOfTier { .. }),
                "{}",
                case.name
            ),
        }
    }
}

fn case(name: &str, rule: Rule, flow: Flow, matches: bool) -> Case<'_> {
    Case {
        name,
        rule,
        flow,
        matches,
    }
}

fn udp(c: &Cluster, from: &str, to: &str, port: u16) -> Flow {
    Flow {
        protocol: UDP,
        ..c.flow(from, to, port)
    }
}

fn icmp(c: &Cluster, from: &str, to: &str, kind: u8, code: u8) -> Flow {
    let tcp = c.flow(from, to, 0);
    let mut flow = Flow::new(tcp.from, tcp.source, tcp.to, Protocol::ICMP, 0);
    flow.icmp = Some((kind, code));
    flow
}

fn v6(c: &Cluster, from: &str, port: u16) -> Flow {
    let to = c.end(DB, Family::V6).1.to_string();
    c.flow(from, &to, port)
}

#[test]
fn nothing_given_matches_everything() {
    let c = cluster();
    check(
        &c,
        vec![
            case("tcp", allow(), c.flow(FRONT, DB, 80), true),
            case("udp", allow(), udp(&c, FRONT, DB, 80), true),
            case("icmp", allow(), icmp(&c, FRONT, DB, 8, 0), true),
            case("v6", allow(), v6(&c, FRONT, 80), true),
        ],
    );
}

#[test]
fn ip_version() {
    let c = cluster();
    let four = || with(|r| r.family = Some(Family::V4));
    let six = || with(|r| r.family = Some(Family::V6));
    check(
        &c,
        vec![
            case("4 on v4", four(), c.flow(FRONT, DB, 80), true),
            case("4 on v6", four(), v6(&c, FRONT, 80), false),
            case("6 on v4", six(), c.flow(FRONT, DB, 80), false),
            case("6 on v6", six(), v6(&c, FRONT, 80), true),
        ],
    );
}

#[test]
fn protocol() {
    let c = cluster();
    let is = |p| with(|r| r.protocol = Some(p));
    let odd = Flow {
        protocol: Protocol(47),
        ..c.flow(FRONT, DB, 0)
    };
    check(
        &c,
        vec![
            case("tcp is tcp", is(TCP), c.flow(FRONT, DB, 80), true),
            case("udp is not tcp", is(TCP), udp(&c, FRONT, DB, 80), false),
            case("by number", is(Protocol(47)), odd.clone(), true),
            case("other number", is(Protocol(50)), odd, false),
            case(
                "icmp on v4",
                is(Protocol::ICMP),
                icmp(&c, FRONT, DB, 8, 0),
                true,
            ),
            case(
                "icmp is not tcp",
                is(Protocol::ICMP),
                c.flow(FRONT, DB, 80),
                false,
            ),
        ],
    );
    let six = Flow {
        protocol: Protocol::ICMPV6,
        ..v6(&c, FRONT, 0)
    };
    let four_in_six = Flow {
        protocol: Protocol::ICMP,
        ..v6(&c, FRONT, 0)
    };
    check(
        &c,
        vec![
            case("icmpv6 on v6", is(Protocol::ICMPV6), six.clone(), true),
            case("icmp is not icmpv6", is(Protocol::ICMP), six, false),
            case("icmp implies IPv4", is(Protocol::ICMP), four_in_six, false),
        ],
    );
}

#[test]
fn not_protocol() {
    let c = cluster();
    let not = |p| with(|r| r.not_protocol = Some(p));
    check(
        &c,
        vec![
            case("not tcp, tcp", not(TCP), c.flow(FRONT, DB, 80), false),
            case("not tcp, udp", not(TCP), udp(&c, FRONT, DB, 80), true),
            case("not icmp, v6", not(Protocol::ICMP), v6(&c, FRONT, 80), true),
            case(
                "not icmp, icmp",
                not(Protocol::ICMP),
                icmp(&c, FRONT, DB, 8, 0),
                false,
            ),
        ],
    );
}

#[test]
fn icmp_and_not_icmp() {
    let c = cluster();
    let want = |t, code| Icmp {
        icmp_type: Some(t),
        code,
    };
    let is = |t, code| {
        with(|r| {
            r.protocol = Some(Protocol::ICMP);
            r.icmp = Some(want(t, code));
        })
    };
    let not = |t, code| {
        with(|r| {
            r.protocol = Some(Protocol::ICMP);
            r.not_icmp = Some(want(t, code));
        })
    };
    let ask = |t, code| icmp(&c, FRONT, DB, t, code);
    check(
        &c,
        vec![
            case("type", is(8, None), ask(8, 5), true),
            case("other type", is(8, None), ask(13, 0), false),
            case("type and code", is(3, Some(4)), ask(3, 4), true),
            case("other code", is(3, Some(4)), ask(3, 3), false),
            case("not type", not(8, None), ask(8, 1), false),
            case("not type, other", not(8, None), ask(0, 0), true),
            // Both equal, not either: where the peer's nftables backend is wrong.
            case("not both, both", not(3, Some(4)), ask(3, 4), false),
            case("not both, code differs", not(3, Some(4)), ask(3, 1), true),
            case("not both, type differs", not(3, Some(4)), ask(8, 4), true),
        ],
    );
    let without_protocol = with(|r| r.not_icmp = Some(want(8, None)));
    check(
        &c,
        vec![case(
            "not icmp says nothing of tcp",
            without_protocol,
            c.flow(FRONT, DB, 80),
            true,
        )],
    );
}

#[test]
fn nets_and_not_nets() {
    let c = cluster();
    let nets = |list: &[&str]| list.iter().map(|n| n.parse().unwrap()).collect::<Vec<_>>();
    let from = |list: &[&str]| with(|r| r.source.nets = nets(list));
    let to = |list: &[&str]| with(|r| r.destination.nets = nets(list));
    let not_from = |list: &[&str]| with(|r| r.source.not_nets = nets(list));
    let not_to = |list: &[&str]| with(|r| r.destination.not_nets = nets(list));
    let four = || c.flow(FRONT, DB, 80);
    check(
        &c,
        vec![
            case("inside", from(&["10.0.1.0/24"]), four(), true),
            case("outside", from(&["10.0.2.0/24"]), four(), false),
            case(
                "any of several",
                from(&["192.0.2.0/24", "10.0.1.11/32"]),
                four(),
                true,
            ),
            case("destination", to(&["10.0.2.21/32"]), four(), true),
            case("other destination", to(&["10.0.2.22/32"]), four(), false),
            case("everything", from(&["0.0.0.0/0"]), four(), true),
            case(
                "only of the other family",
                from(&["fd10::/16"]),
                four(),
                false,
            ),
            case(
                "of both families",
                from(&["fd10::/16", "10.0.0.0/8"]),
                four(),
                true,
            ),
            case("not inside", not_from(&["10.0.1.0/24"]), four(), false),
            case("not elsewhere", not_from(&["10.0.2.0/24"]), four(), true),
            case(
                "not one of several",
                not_from(&["10.9.0.0/16", "10.0.1.11/32"]),
                four(),
                false,
            ),
            case(
                "not this destination",
                not_to(&["10.0.2.21/32"]),
                four(),
                false,
            ),
            case(
                "not another destination",
                not_to(&["10.9.0.0/16"]),
                four(),
                true,
            ),
            case("negated catch-all", not_from(&["0.0.0.0/0"]), four(), false),
            case(
                "negated, other family alone",
                not_from(&["fd10::/16"]),
                four(),
                false,
            ),
            case(
                "negated, both families",
                not_from(&["fd10::/16", "10.9.0.0/16"]),
                four(),
                true,
            ),
        ],
    );
    let hole = with(|r| {
        r.source.nets = nets(&["10.0.0.0/8"]);
        r.source.not_nets = nets(&["10.0.1.11/32"]);
    });
    check(
        &c,
        vec![
            case("in the hole", hole.clone(), four(), false),
            case("beside the hole", hole, c.flow("shop/near", DB, 80), true),
            case("v6 inside", from(&["fd10::/16"]), v6(&c, FRONT, 80), true),
            case(
                "v6, list of v4",
                from(&["10.0.0.0/8"]),
                v6(&c, FRONT, 80),
                false,
            ),
        ],
    );
}

#[test]
fn selectors() {
    let c = cluster();
    let from = |s: &str| with(|r| r.source.selector = Some(selector(s)));
    let to = |s: &str| with(|r| r.destination.selector = Some(selector(s)));
    let not_from = |s: &str| with(|r| r.source.not_selector = Some(selector(s)));
    let four = || c.flow(FRONT, DB, 80);
    let outside = || c.flow("203.0.113.9", DB, 80);
    let stranger = || c.flow("8.8.8.8", DB, 80);
    check(
        &c,
        vec![
            case("own label", from("app == 'front'"), four(), true),
            case("other value", from("app == 'back'"), four(), false),
            case(
                "inherited from the namespace",
                from("pcns.team == 'web'"),
                four(),
                true,
            ),
            case(
                "of another namespace",
                from("pcns.team == 'web'"),
                c.flow("other/job", DB, 80),
                false,
            ),
            case("network set", from("site == 'office'"), outside(), true),
            case(
                "network set, not its label",
                from("site == 'home'"),
                outside(),
                false,
            ),
            case(
                "set inherits its namespace's",
                from("pcns.team == 'web' && has(site)"),
                c.flow("198.51.100.1", DB, 80),
                true,
            ),
            case("all() is only what is known", from("all()"), four(), true),
            case("nobody", from("!has(app) && !has(site)"), four(), false),
            case(
                "absent label, unknown address",
                from("app != 'x' && !has(site)"),
                stranger(),
                false,
            ),
            case(
                "two halves are everything",
                from("site == 'world'"),
                stranger(),
                true,
            ),
            case("destination", to("app == 'db'"), four(), true),
            case("wrong destination", to("app == 'front'"), four(), false),
            case("not selected", not_from("app == 'front'"), four(), false),
            case(
                "not selected, other",
                not_from("app == 'front'"),
                c.flow("shop/near", DB, 80),
                true,
            ),
            case(
                "negated empty set",
                not_from("app == 'nobody'"),
                four(),
                true,
            ),
            case("positive empty set", from("app == 'nobody'"), four(), false),
            case(
                "not selected, unknown address",
                not_from("has(app)"),
                stranger(),
                true,
            ),
            case(
                "host endpoint by its expected address",
                from("kind == 'host'"),
                c.flow("192.168.0.99", DB, 80),
                true,
            ),
            case(
                "v6 of the same pod",
                from("app == 'front'"),
                v6(&c, FRONT, 80),
                true,
            ),
        ],
    );
}

#[test]
fn selector_and_nets_must_both_match() {
    let c = cluster();
    let both = |net: &str| {
        with(|r| {
            r.source.selector = Some(selector("app == 'front'"));
            r.source.nets = vec![net.parse().unwrap()];
        })
    };
    let but = with(|r| {
        r.source.selector = Some(selector("has(app)"));
        r.source.not_selector = Some(selector("app == 'front'"));
    });
    check(
        &c,
        vec![
            case("both", both("10.0.1.0/24"), c.flow(FRONT, DB, 80), true),
            case(
                "selector alone",
                both("10.9.0.0/16"),
                c.flow(FRONT, DB, 80),
                false,
            ),
            case(
                "net alone",
                both("10.0.1.0/24"),
                c.flow("shop/near", DB, 80),
                false,
            ),
            case(
                "selected, and not selected",
                but.clone(),
                c.flow("shop/near", DB, 80),
                true,
            ),
            case("selected, and excepted", but, c.flow(FRONT, DB, 80), false),
        ],
    );
}

#[test]
fn ports_by_number() {
    let c = cluster();
    let ports = |list: &[&str]| list.iter().map(|p| p.parse().unwrap()).collect::<Vec<_>>();
    let to = |list: &[&str]| {
        with(|r| {
            r.protocol = Some(TCP);
            r.destination.ports = ports(list);
        })
    };
    let not_to = |list: &[&str]| {
        with(|r| {
            r.protocol = Some(TCP);
            r.destination.not_ports = ports(list);
        })
    };
    let from = |list: &[&str]| {
        with(|r| {
            r.protocol = Some(TCP);
            r.source.ports = ports(list);
        })
    };
    let not_from = |list: &[&str]| {
        with(|r| {
            r.protocol = Some(TCP);
            r.source.not_ports = ports(list);
        })
    };
    let at = |p| c.flow(FRONT, DB, p);
    let sent_from = |p| Flow {
        source_port: Some(p),
        ..at(80)
    };
    check(
        &c,
        vec![
            case("one", to(&["80"]), at(80), true),
            case("another", to(&["80"]), at(81), false),
            case("first of a range", to(&["8000:8010"]), at(8000), true),
            case("last of a range", to(&["8000:8010"]), at(8010), true),
            case("past a range", to(&["8000:8010"]), at(8011), false),
            case("any of a list", to(&["1", "2", "3:5", "80"]), at(80), true),
            case("not", not_to(&["80"]), at(80), false),
            case("not another", not_to(&["80"]), at(81), true),
            case("none of several", not_to(&["79", "80:90"]), at(85), false),
            case("other protocol", to(&["80"]), udp(&c, FRONT, DB, 80), false),
            case("source port", from(&["1234"]), sent_from(1234), true),
            case("other source port", from(&["1234"]), sent_from(1235), false),
            case("source port unknown", from(&["40000"]), at(80), false),
            case(
                "every port the kernel picks",
                from(&["1024:65535"]),
                at(80),
                true,
            ),
            case(
                "not a source port",
                not_from(&["1234"]),
                sent_from(1234),
                false,
            ),
            case(
                "not a source port, unknown",
                not_from(&["40000"]),
                at(80),
                true,
            ),
            case(
                "not any that the kernel picks",
                not_from(&["1:65535"]),
                at(80),
                false,
            ),
        ],
    );
    let sixteen: Vec<String> = (1..=16).map(|n| (n * 100).to_string()).collect();
    let sixteen: Vec<&str> = sixteen.iter().map(String::as_str).collect();
    check(
        &c,
        vec![
            case("last of sixteen", to(&sixteen), at(1600), true),
            case("none of sixteen", not_to(&sixteen), at(1600), false),
        ],
    );
}

#[test]
fn ports_by_name() {
    let c = cluster();
    let names = |list: &[&str]| {
        list.iter()
            .map(|n| Arc::from(*n))
            .collect::<Vec<Arc<str>>>()
    };
    let to = |protocol, list: &[&str]| {
        with(|r| {
            r.protocol = protocol;
            r.destination.named_ports = names(list);
        })
    };
    let not_to = |list: &[&str]| with(|r| r.destination.not_named_ports = names(list));
    check(
        &c,
        vec![
            case(
                "its number",
                to(Some(TCP), &["sql"]),
                c.flow(FRONT, DB, 5432),
                true,
            ),
            case(
                "another number",
                to(Some(TCP), &["sql"]),
                c.flow(FRONT, DB, 5433),
                false,
            ),
            case(
                "without a protocol",
                to(None, &["sql"]),
                c.flow(FRONT, DB, 5432),
                true,
            ),
            case(
                "name of another protocol",
                to(Some(TCP), &["dns"]),
                c.flow(FRONT, DB, 53),
                false,
            ),
            case(
                "its protocol",
                to(None, &["dns"]),
                udp(&c, FRONT, DB, 53),
                true,
            ),
            case(
                "either",
                to(None, &["dns", "sql"]),
                c.flow(FRONT, DB, 5432),
                true,
            ),
            case(
                "nobody has it",
                to(None, &["http"]),
                c.flow(FRONT, DB, 80),
                false,
            ),
            case("not", not_to(&["sql"]), c.flow(FRONT, DB, 5432), false),
            case(
                "not, another number",
                not_to(&["sql"]),
                c.flow(FRONT, DB, 80),
                true,
            ),
            case(
                "not what nobody has",
                not_to(&["http"]),
                c.flow(FRONT, DB, 80),
                true,
            ),
        ],
    );
    let mixed = with(|r| {
        r.protocol = Some(TCP);
        r.destination.ports = vec!["80".parse().unwrap()];
        r.destination.named_ports = names(&["sql"]);
    });
    let folded = with(|r| {
        r.protocol = Some(TCP);
        r.destination.selector = Some(selector("app == 'front'"));
        r.destination.named_ports = names(&["sql"]);
    });
    let source = with(|r| r.source.named_ports = names(&["sql"]));
    let sent = |p| Flow {
        source_port: Some(p),
        ..c.flow(FRONT, DB, 80)
    };
    check(
        &c,
        vec![
            case(
                "number beside a name",
                mixed.clone(),
                c.flow(FRONT, DB, 80),
                true,
            ),
            case(
                "name beside a number",
                mixed.clone(),
                c.flow(FRONT, DB, 5432),
                true,
            ),
            case("neither", mixed, c.flow(FRONT, DB, 81), false),
            case(
                "name of those selected only",
                folded,
                c.flow(FRONT, DB, 5432),
                false,
            ),
            case("source port by name", source.clone(), sent(5432), true),
            case("other source port", source, sent(5433), false),
        ],
    );
}

#[test]
fn numbers_say_nothing_where_there_are_no_ports() {
    let c = cluster();
    let to = with(|r| r.destination.ports = vec!["0:65535".parse().unwrap()]);
    let not = with(|r| r.destination.not_ports = vec!["1".parse().unwrap()]);
    let names = with(|r| r.destination.not_named_ports = vec!["sql".into()]);
    check(
        &c,
        vec![
            case("icmp has no port", to, icmp(&c, FRONT, DB, 8, 0), false),
            case(
                "icmp is not about another port",
                not,
                icmp(&c, FRONT, DB, 8, 0),
                false,
            ),
            case(
                "a name does not say a protocol",
                names,
                icmp(&c, FRONT, DB, 8, 0),
                true,
            ),
        ],
    );
}

fn slice(c: &mut Cluster, addresses: &[&str], ports: &[(Protocol, Option<u16>)], ready: bool) {
    let at = |a: &&str| SliceEndpoint {
        addresses: vec![ip(a)],
        node: None,
        ready,
    };
    let port = |(protocol, port): &(Protocol, Option<u16>)| SlicePort {
        name: "".into(),
        protocol: *protocol,
        port: *port,
    };
    let slice = EndpointSlice {
        service: ServiceRef {
            namespace: "shop".into(),
            name: "svc".into(),
        },
        endpoints: addresses.iter().map(at).collect(),
        ports: ports.iter().map(port).collect(),
    };
    let key = SliceKey {
        namespace: "shop".into(),
        name: "svc-1".into(),
    };
    c.0.update(Update::EndpointSlice(key, Some(slice)));
}

#[test]
fn services() {
    let service = |name: &str| ServiceRef {
        namespace: "shop".into(),
        name: name.into(),
    };
    let from = |name: &str| with(|r| r.source.service = Some(service(name)));
    let to = |name: &str| with(|r| r.destination.service = Some(service(name)));
    let mut c = cluster();
    slice(
        &mut c,
        &["10.0.1.11", "10.0.2.21"],
        &[(TCP, Some(5432))],
        true,
    );
    check(
        &c,
        vec![
            case(
                "source is behind it",
                from("svc"),
                c.flow(FRONT, DB, 1),
                true,
            ),
            case(
                "source is not",
                from("svc"),
                c.flow("shop/near", DB, 1),
                false,
            ),
            case(
                "destination and port",
                to("svc"),
                c.flow(FRONT, DB, 5432),
                true,
            ),
            case("another port", to("svc"), c.flow(FRONT, DB, 80), false),
            case(
                "another protocol",
                to("svc"),
                udp(&c, FRONT, DB, 5432),
                false,
            ),
            case(
                "no such service",
                to("nothing"),
                c.flow(FRONT, DB, 5432),
                false,
            ),
        ],
    );
    slice(&mut c, &["10.0.1.11", "10.0.2.21"], &[(TCP, None)], true);
    check(
        &c,
        vec![
            case(
                "a port without number is none",
                to("svc"),
                c.flow(FRONT, DB, 5432),
                false,
            ),
            case(
                "but its addresses count",
                from("svc"),
                c.flow(FRONT, DB, 1),
                true,
            ),
        ],
    );
    slice(&mut c, &["10.0.2.21"], &[(TCP, Some(5432))], false);
    check(
        &c,
        vec![case(
            "not ready counts",
            to("svc"),
            c.flow(FRONT, DB, 5432),
            true,
        )],
    );
}

#[test]
fn nodes_and_domains() {
    let mut c = cluster();
    c.0.update(Update::Domain(
        "api.example.com".into(),
        Some([ip("10.0.2.21")].into()),
    ));
    let nodes = |s: &str| with(|r| r.source.nodes = Some(selector(s)));
    let domain = |d: &str| with(|r| r.destination.domains = vec![d.into()]);
    check(
        &c,
        vec![
            case("a node", nodes("rack == 'r1'"), c.flow("n1", DB, 80), true),
            case(
                "another node",
                nodes("rack == 'r2'"),
                c.flow("n1", DB, 80),
                false,
            ),
            case(
                "a pod is no node",
                nodes("all()"),
                c.flow(FRONT, DB, 80),
                false,
            ),
            case(
                "name",
                domain("api.example.com"),
                c.flow(FRONT, DB, 80),
                true,
            ),
            case(
                "below",
                domain("*.example.com"),
                c.flow(FRONT, DB, 80),
                true,
            ),
            case(
                "not itself below itself",
                domain("*.api.example.com"),
                c.flow(FRONT, DB, 80),
                false,
            ),
            case(
                "no suffix of a word",
                domain("*.ample.com"),
                c.flow(FRONT, DB, 80),
                false,
            ),
            case(
                "other name",
                domain("www.example.com"),
                c.flow(FRONT, DB, 80),
                false,
            ),
        ],
    );
}

#[test]
fn a_mismatch_names_its_field() {
    let c = Cluster::new();
    let field = |rule: Rule| {
        let mut c = Cluster(c.0.clone());
        c.global("only", policy("app == 'db'", Some(vec![rule]), None));
        let answer = c.denies(FRONT, DB, 80);
        let stage = answer.paths[0].deciding().unwrap().clone();
        let verdict::Consulted::Tier(t) = &stage.consulted[0] else {
            panic!()
        };
        t.policies[0].rules[0].mismatch.clone().unwrap()
    };
    let m = field(to_port("81"));
    assert_eq!(
        (m.field, &*m.wanted, &*m.got),
        (Field::Ports(Side::Destination), "81", "80")
    );
    let m = field(with(|r| {
        r.source.selector = Some(selector("app == 'back' && pcns.team == 'web'"))
    }));
    assert_eq!(m.field, Field::Selector(Side::Source));
    assert_eq!(
        m.got,
        "shop/front (not app == \"back\": its label app is \"front\")"
    );
    let m = field(with(|r| r.protocol = Some(UDP)));
    assert_eq!((m.field, &*m.got), (Field::Protocol, "TCP"));
}
