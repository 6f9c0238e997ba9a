//! What monitoring stations are told, read by another's parser: two speakers and a station on one
//! loopback in a namespace of their own. Wants root.
#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use bgp::attr::Attributes;
use bgp::router::LocalRoute;
use bgp::types::RouterId;
use bgpkit_parser::bmp::messages::{
    BmpMessage, BmpMessageBody, PeerDownReason, PerPeerFlags, StatType, StatsData,
};
use bgpkit_parser::models::{BgpMessage, BgpUpdateMessage};
use bytes::Bytes;
use netlink::netns::NetNs;
use speaker::{Content, Handle, Settings};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};
use support::{PATIENCE, run, until};

/// A node of AS 65000 + `me` with a peer 65000 + `other`, of which two prefixes are refused.
fn resources(me: u8, other: u8) -> String {
    format!(
        "\
apiVersion: projectcalico.org/v3
kind: Node
metadata: {{name: n{me}}}
spec: {{bgp: {{ipv4Address: 10.0.0.{me}/24, ipv6Address: 'fd00::{me}/64', asNumber: 6500{me}}}}}
---
apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata: {{name: default}}
spec: {{nodeToNodeMeshEnabled: false, bindMode: NodeIP}}
---
apiVersion: projectcalico.org/v3
kind: BGPFilter
metadata: {{name: refuse}}
spec:
  importV4: [{{action: Reject, matchOperator: Equal, cidr: 192.0.2.0/24}}]
  exportV4: [{{action: Accept, matchOperator: In, cidr: 11.0.0.0/8}}]
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {{name: four}}
spec: {{peerIP: 10.0.0.{other}, asNumber: 6500{other}, filters: [refuse]}}
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {{name: six}}
spec: {{peerIP: 'fd00::{other}', asNumber: 6500{other}}}
"
    )
}

/// A speaker, ended with its value.
struct One(Handle, Option<std::thread::JoinHandle<std::io::Result<()>>>);

impl One {
    fn start(ns: &NetNs, me: u8, other: u8, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings::new(format!("n{me}"), RouterId(1), me.into());
        change(&mut settings);
        let (handle, thread) = ns.run(|| Handle::start(settings)).unwrap().unwrap();
        let content = Content::parse(&resources(me, other), "file").unwrap();
        content.follow(&Content::default(), &handle).unwrap();
        handle.synced().unwrap();
        Self(handle, Some(thread))
    }

    fn announce(&self, prefixes: Vec<String>) {
        let act = move |r: &mut bgp::router::Router, _| {
            for p in &prefixes {
                r.announce(p.parse().unwrap(), local());
            }
        };
        self.0.act(act).unwrap();
    }

    fn withdraw(&self, prefixes: Vec<String>) {
        let act = move |r: &mut bgp::router::Router, _| {
            for p in &prefixes {
                r.withdraw(p.parse().unwrap());
            }
        };
        self.0.act(act).unwrap();
    }
}

impl Drop for One {
    fn drop(&mut self) {
        let _ = self.0.stop();
        if let Some(thread) = self.1.take() {
            let _ = thread.join();
        }
    }
}

/// A route of a speaker's own.
fn local() -> LocalRoute {
    let mut attributes = Attributes::new(IpAddr::from(Ipv4Addr::UNSPECIFIED).into());
    attributes.local_pref = Some(100);
    LocalRoute {
        attributes,
        preference: 200,
        interface: None,
    }
}

fn loopback() -> NetNs {
    let ns = NetNs::new().unwrap();
    run(&ns, "ip", "link set lo up");
    for a in [
        "10.0.0.1/32",
        "10.0.0.2/32",
        "10.0.0.9/32",
        "fd00::1/128",
        "fd00::2/128",
    ] {
        run(&ns, "ip", &format!("addr add {a} dev lo"));
    }
    ns
}

/// Whose routes, and which of them.
type Table = (String, &'static str);

/// What a station has been told.
#[derive(Debug, Default)]
struct Seen {
    began: bool,
    ended: bool,
    up: BTreeSet<String>,
    downs: Vec<(String, PeerDownReason, Vec<u8>)>,
    routes: BTreeMap<Table, BTreeSet<String>>,
    complete: BTreeSet<(Table, bool)>,
    next_hops: BTreeSet<String>,
    reports: BTreeMap<String, BTreeMap<u16, u64>>,
}

impl Seen {
    fn take(&mut self, message: BmpMessage) {
        // Nothing may come before the first message, nor after the last.
        assert!(!self.ended);
        let who = message.per_peer_header.map(|h| {
            let stage = match h.peer_flags {
                PerPeerFlags::LocalRibPeerFlags(_) => "used",
                PerPeerFlags::PeerFlags(f) if f.is_post_policy() => "accepted",
                PerPeerFlags::PeerFlags(_) => "received",
            };
            (h.peer_ip.to_string(), stage, h)
        });
        match message.message_body {
            BmpMessageBody::InitiationMessage(m) => {
                assert!(!std::mem::replace(&mut self.began, true));
                let says = |t: &str| m.tlvs.iter().any(|v| v.info.starts_with(t));
                assert!(says("n1") && says("Manx "), "{m:?}");
            }
            BmpMessageBody::TerminationMessage(_) => self.ended = true,
            BmpMessageBody::PeerUpNotification(m) => {
                assert!(self.began);
                let (who, stage, header) = who.unwrap();
                let BgpMessage::Open(theirs) = &m.received_open else {
                    panic!("{m:?}");
                };
                let BgpMessage::Open(ours) = &m.sent_open else {
                    panic!("{m:?}");
                };
                assert_eq!(theirs.bgp_identifier, header.peer_bgp_id);
                assert_eq!(ours.bgp_identifier.to_string(), "10.0.0.1");
                if stage == "used" {
                    self.up.insert("used".to_owned());
                    return;
                }
                assert_eq!(header.peer_asn.to_u32(), 65002);
                assert_eq!(u32::from(theirs.asn), 65002);
                assert_eq!(u32::from(ours.asn), 65001);
                assert!(m.local_port == 179 || m.remote_port == 179, "{m:?}");
                assert!(["10.0.0.1", "fd00::1"].contains(&m.local_addr.to_string().as_str()));
                assert!(self.up.insert(who));
            }
            BmpMessageBody::PeerDownNotification(m) => {
                let (who, ..) = who.unwrap();
                assert!(self.up.remove(&who));
                self.routes.retain(|(w, _), _| *w != who);
                self.complete.retain(|((w, _), _)| *w != who);
                self.downs.push((who, m.reason, m.data.unwrap_or_default()));
            }
            BmpMessageBody::RouteMonitoring(m) => {
                let (who, stage, _) = who.unwrap();
                let name = if stage == "used" { "used" } else { &who };
                assert!(self.up.contains(name), "routes of {who} before it is up");
                let BgpMessage::Update(update) = m.bgp_message else {
                    panic!("{m:?}");
                };
                self.update((who, stage), &update);
            }
            BmpMessageBody::StatsReport(m) => {
                let (who, ..) = who.unwrap();
                assert_eq!(m.stats_count as usize, m.counters.len());
                // Those of IPv6 have numbers of their own here.
                let counts = m.counters.iter().map(|c| {
                    let kind = u16::from(c.stat_type);
                    match c.stat_data {
                        StatsData::Counter(n) => (kind, n.into()),
                        StatsData::Gauge(n) | StatsData::AfiSafiGauge(1, 1, n) => (kind, n),
                        StatsData::AfiSafiGauge(2, 1, n) => (kind + 600, n),
                        _ => panic!("{c:?}"),
                    }
                });
                self.reports.insert(who, counts.collect());
            }
            BmpMessageBody::RouteMirroring(m) => panic!("{m:?}"),
        }
    }

    fn update(&mut self, table: Table, update: &BgpUpdateMessage) {
        let text = |p: &bgpkit_parser::models::NetworkPrefix| p.prefix.to_string();
        let reach = update.attributes.get_reachable_nlri();
        let unreach = update.attributes.get_unreachable_nlri();
        let gone = update.withdrawn_prefixes.iter();
        let gone = gone.chain(unreach.into_iter().flat_map(|n| &n.prefixes));
        let come = update.announced_prefixes.iter();
        let come = come.chain(reach.into_iter().flat_map(|n| &n.prefixes));
        let (gone, come): (Vec<_>, Vec<_>) = (gone.map(text).collect(), come.map(text).collect());
        if gone.is_empty() && come.is_empty() {
            let six = unreach.is_some();
            assert!(self.complete.insert((table, six)), "an end is told once");
            return;
        }
        let hop = update.attributes.next_hop();
        let hop = hop.or_else(|| Some(reach?.next_hop?.addr()));
        self.next_hops
            .extend(hop.map(|h| h.to_string()).filter(|_| !come.is_empty()));
        let of = self.routes.entry(table).or_default();
        for p in gone {
            of.remove(&p);
        }
        of.extend(come);
    }

    fn routes(&self, who: &str, stage: &'static str) -> Vec<&str> {
        let of = self.routes.get(&(who.to_owned(), stage));
        of.into_iter().flatten().map(String::as_str).collect()
    }

    fn is_complete(&self, who: &str, stage: &'static str, six: bool) -> bool {
        self.complete.contains(&((who.to_owned(), stage), six))
    }
}

/// A station's end of a connection.
struct Station {
    stream: TcpStream,
    kept: Vec<u8>,
    seen: Seen,
    /// Who is asked when what is waited for does not come.
    witnesses: Vec<Handle>,
}

impl Station {
    fn listen(ns: &NetNs) -> TcpListener {
        let listener = ns
            .run(|| TcpListener::bind("10.0.0.9:11019"))
            .unwrap()
            .unwrap();
        listener.set_nonblocking(true).unwrap();
        listener
    }

    #[track_caller]
    fn accept(listener: &TcpListener, speakers: &[&One]) -> Self {
        let (stream, _) = until("a call", || listener.accept().ok(), Option::is_some).unwrap();
        stream.set_nonblocking(false).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        Self {
            stream,
            kept: Vec::new(),
            seen: Seen::default(),
            witnesses: speakers.iter().map(|s| s.0.clone()).collect(),
        }
    }

    /// Reads until it has seen enough; `false`: the connection has ended.
    #[track_caller]
    fn read_until(&mut self, what: &str, enough: impl Fn(&Seen) -> bool) -> bool {
        let deadline = Instant::now() + PATIENCE;
        let mut more = [0; 1 << 16];
        loop {
            self.parse();
            if enough(&self.seen) {
                return true;
            }
            if Instant::now() > deadline {
                let look = |v: &speaker::View<'_>| {
                    let peers = v.router.into_iter().flat_map(bgp::router::Router::peers);
                    peers.collect::<Vec<_>>()
                };
                let peers: Vec<_> = self.witnesses.iter().map(|h| h.look(look)).collect();
                panic!("{what}: {:#?} {peers:#?}", self.seen);
            }
            match self.stream.read(&mut more) {
                Ok(0) => return false,
                Ok(n) => self.kept.extend(&more[..n]),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(e) => panic!("{what}: {e}"),
            }
        }
    }

    fn parse(&mut self) {
        let mut all = Bytes::from(std::mem::take(&mut self.kept));
        while let Some(head) = all.get(1..5) {
            let len = u32::from_be_bytes(head.try_into().unwrap()) as usize;
            if all.len() < len {
                break;
            }
            let mut one = all.split_to(len);
            let message = bgpkit_parser::parse_bmp_msg(&mut one).unwrap();
            assert!(one.is_empty());
            self.seen.take(message);
        }
        self.kept = all.to_vec();
    }
}

fn prefixes(n: u32) -> Vec<String> {
    (0..n)
        .map(|i| format!("{}/32", Ipv4Addr::from(0x0b00_0000 + i)))
        .collect()
}

#[test]
fn a_station_is_told_everything_and_what_changes() {
    let ns = loopback();
    let listener = Station::listen(&ns);
    let a = One::start(&ns, 1, 2, |s| {
        s.stations = vec!["10.0.0.9:11019".parse().unwrap()];
        s.statistics = Duration::from_millis(300);
        s.statics = [("198.51.100.0/24".parse().unwrap(), None)].into();
    });
    let b = One::start(&ns, 2, 1, |s| {
        let hop = |t: &str| Some(t.parse().unwrap());
        s.statics = [
            ("192.0.2.0/24".parse().unwrap(), None),
            ("192.0.3.0/24".parse().unwrap(), None),
            ("192.0.4.0/24".parse().unwrap(), hop("10.0.0.77")),
            ("2001:db8::/48".parse().unwrap(), hop("fd00::77")),
        ]
        .into();
    });
    let mut station = Station::accept(&listener, &[&a, &b]);
    let four = ["192.0.2.0/24", "192.0.3.0/24", "192.0.4.0/24"];
    let taken = ["192.0.3.0/24", "192.0.4.0/24"];
    station.read_until("all of it", |s| {
        s.is_complete("10.0.0.2", "received", false)
            && s.is_complete("10.0.0.2", "accepted", false)
            && s.is_complete("fd00::2", "accepted", true)
            && s.is_complete("0.0.0.0", "used", false)
            && s.routes("0.0.0.0", "used").len() == 4
    });
    let seen = &station.seen;
    assert_eq!(seen.routes("10.0.0.2", "received"), four);
    assert_eq!(seen.routes("10.0.0.2", "accepted"), taken);
    assert_eq!(seen.routes("fd00::2", "received"), ["2001:db8::/48"]);
    let used = [
        "192.0.3.0/24",
        "192.0.4.0/24",
        "198.51.100.0/24",
        "2001:db8::/48",
    ];
    assert_eq!(seen.routes("0.0.0.0", "used"), used);
    for hop in ["10.0.0.2", "10.0.0.77", "fd00::77"] {
        assert!(seen.next_hops.contains(hop), "{:?}", seen.next_hops);
    }
    // Changes.
    b.announce(prefixes(3000));
    b.withdraw(vec!["192.0.3.0/24".to_owned()]);
    station.read_until("changes", |s| {
        s.routes("10.0.0.2", "accepted").len() == 3001 && s.routes("0.0.0.0", "used").len() == 3003
    });
    assert_eq!(station.seen.routes("10.0.0.2", "received").len(), 3002);
    station.seen.reports.clear();
    station.read_until("reports", |s| s.reports.len() == 3);
    let reports = &station.seen.reports;
    let routes = u16::from(StatType::RoutesInAdjRibsIn);
    assert_eq!(reports["10.0.0.2"][&routes], 3002);
    assert_eq!(reports["10.0.0.2"][&9], 3002);
    assert_eq!(reports["fd00::2"][&609], 1);
    assert_eq!(reports["0.0.0.0"][&8], 3003);
    assert_eq!(reports["10.0.0.2"][&11], 0);
    // A station that goes and comes back is told all of it anew.
    drop(station);
    let mut station = Station::accept(&listener, &[&a, &b]);
    station.read_until("all of it again", |s| {
        s.is_complete("10.0.0.2", "accepted", false) && s.is_complete("0.0.0.0", "used", true)
    });
    assert_eq!(station.seen.routes("10.0.0.2", "received").len(), 3002);
    assert_eq!(station.seen.routes("0.0.0.0", "used").len(), 3003);
    // Sessions end in different ways.
    let reset = |r: &mut bgp::router::Router, now| {
        let peers: Vec<_> = r.peers().map(|p| p.peer).collect();
        for p in peers {
            let four = r.peer_config(p).is_some_and(|c| c.addr.is_ipv4());
            if four {
                r.reset_peer(p, "on purpose", now);
            }
        }
    };
    a.0.act(reset).unwrap();
    station.read_until("the end of a session, and the next", |s| {
        !s.downs.is_empty() && s.routes("10.0.0.2", "received").len() == 3002
    });
    let (who, reason, data) = &station.seen.downs[0];
    assert_eq!(who, "10.0.0.2");
    assert_eq!(
        *reason,
        PeerDownReason::LocalSystemClosedNotificationPduFollows
    );
    assert_eq!(data[18..21], [3, 6, 4]);
    b.0.shut_down("bye").unwrap();
    station.read_until("the end of both", |s| s.downs.len() == 3);
    for (_, reason, data) in &station.seen.downs[1..] {
        assert_eq!(
            *reason,
            PeerDownReason::RemoteSystemClosedNotificationPduFollows
        );
        // A hard reset (RFC 8538) around the shutdown.
        assert_eq!(data[18..23], [3, 6, 9, 6, 2]);
    }
    station.read_until("no more routes", |s| s.routes("0.0.0.0", "used").len() == 1);
    // What is configured no more.
    let status = |h: &Handle| h.look(|v| v.stations.to_vec()).unwrap();
    let told = &status(&a.0)[0];
    assert_eq!((told.sessions, told.unsent), (2, 0), "{told:?}");
    assert!(
        told.since.is_some() && told.octets_sent > 100_000,
        "{told:?}"
    );
    a.0.stop().unwrap();
    assert!(!station.read_until("the end", |_| false) && station.seen.ended);
}

#[test]
fn a_station_that_does_not_read_holds_nobody_up() {
    const MANY: u32 = 100_000;
    let ns = loopback();
    let listener = Station::listen(&ns);
    let a = One::start(&ns, 1, 2, |s| {
        s.stations = vec!["10.0.0.9:11019".parse().unwrap()];
    });
    let b = One::start(&ns, 2, 1, |_| {});
    let mut station = Station::accept(&listener, &[&a, &b]);
    let held = |a: &One| {
        let look = |v: &speaker::View<'_>| v.router.map_or(0, |r| r.size().prefixes);
        a.0.look(look).unwrap()
    };
    let up = |a: &One| {
        let look = |v: &speaker::View<'_>| {
            let up = |p: &bgp::router::PeerStatus| p.state == bgp::fsm::State::Established;
            v.router.map_or(0, |r| r.peers().filter(up).count())
        };
        a.0.look(look).unwrap()
    };
    until("both sessions", || up(&a), |n| *n == 2);
    b.announce(prefixes(MANY));
    until("all is learned", || held(&a), |n| *n == MANY as usize);
    // It changes under the station's eyes, who still has not read a word.
    b.withdraw(prefixes(MANY / 2));
    until("half is gone", || held(&a), |n| *n == MANY as usize / 2);
    assert_eq!(up(&a), 2);
    station.read_until("what is left", |s| {
        s.routes("10.0.0.2", "received").len() == MANY as usize / 2
            && s.routes("0.0.0.0", "used").len() == MANY as usize / 2
            && s.is_complete("0.0.0.0", "used", false)
    });
    let rest: BTreeSet<String> = prefixes(MANY)
        .split_off(MANY as usize / 2)
        .into_iter()
        .collect();
    let told = &station.seen.routes[&("10.0.0.2".to_owned(), "accepted")];
    assert!(*told == rest, "{} of {}", told.len(), rest.len());
    drop(b);
}

#[test]
fn what_names_no_station_is_refused_with_the_reason() {
    for (text, why) in [
        ("10.0.0.1", "it has no port"),
        ("10.0.0.1:0", "its port is no number"),
        ("10.0.0.1:bmp", "its port is no number"),
        (":11019", "it has no host"),
        ("fd00::1:11019", "stands in brackets"),
        ("[10.0.0.1]:11019", "stands in brackets"),
        ("a b:11019", "neither an address nor a name"),
    ] {
        let said = text.parse::<speaker::Station>().unwrap_err().to_string();
        assert!(said.contains(why), "{text}: {said}");
    }
    for text in ["10.0.0.1:11019", "[fd00::1]:11019", "bmp.example.org:5000"] {
        assert_eq!(text.parse::<speaker::Station>().unwrap().to_string(), text);
    }
}
