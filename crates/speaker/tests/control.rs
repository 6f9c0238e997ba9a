//! Control sockets, metrics and followed files, of two speakers on one loopback in a namespace of
//! their own. Wants root.
#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use bgp::types::RouterId;
use daemon::Metrics;
use netlink::netns::NetNs;
use serde_json::Value;
use speaker::{Content, Control, Handle, Settings};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use support::{PATIENCE, run, until};

/// What a speaker of AS 65000 + `me` follows, with a peer 65000 + `other` of each family.
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
apiVersion: v1
kind: Secret
metadata: {{name: k}}
stringData: {{p: secret}}
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {{name: four}}
spec:
  peerIP: 10.0.0.{other}
  asNumber: 6500{other}
  password: {{secretKeyRef: {{name: k, key: p}}}}
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {{name: six}}
spec: {{peerIP: 'fd00::{other}', asNumber: 6500{other}, node: n{me}}}
"
    )
}

/// A speaker with its sockets.
struct One {
    handle: Handle,
    content: Content,
    control: Option<Control>,
    dir: tempfile::TempDir,
}

impl One {
    fn start(ns: &NetNs, me: u8, other: u8, statics: &[&str]) -> Self {
        let mut settings = Settings::new(format!("n{me}"), RouterId(1), me.into());
        settings.statics = statics.iter().map(|s| (s.parse().unwrap(), None)).collect();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_owned();
        let start = move || {
            let (handle, _) = Handle::start(settings).unwrap();
            let control = Control::start(&handle, &path).unwrap();
            (handle, control)
        };
        let (handle, control) = ns.run(start).unwrap();
        let content = Content::parse(&resources(me, other), "file").unwrap();
        content.follow(&Content::default(), &handle).unwrap();
        handle.synced().unwrap();
        Self {
            handle,
            content,
            control: Some(control),
            dir,
        }
    }

    fn socket(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What BIRD's socket of a family answers, its greeting left out.
    fn bird(&self, socket: &str, command: &str) -> String {
        bird(&self.socket(socket), command)
    }

    fn ask(&self, question: &str) -> Vec<Value> {
        let mut stream = UnixStream::connect(self.socket("bgp.ctl")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        writeln!(stream, "{question}").unwrap();
        let mut out = Vec::new();
        for line in BufReader::new(stream).lines() {
            let value: Value = serde_json::from_str(&line.unwrap()).unwrap();
            if value.get("end").is_some() {
                break;
            }
            let last = value.get("error").is_some();
            out.push(value);
            if last {
                break;
            }
        }
        out
    }

    fn follow(&mut self, text: &str) {
        let content = Content::parse(text, "file").unwrap();
        content.follow(&self.content, &self.handle).unwrap();
        self.content = content;
    }
}

impl Drop for One {
    fn drop(&mut self) {
        let _ = self.handle.stop();
    }
}

fn bird(socket: &Path, command: &str) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    writeln!(stream, "{command}").unwrap();
    let mut out = String::new();
    for (i, line) in BufReader::new(stream).lines().enumerate() {
        let line = line.unwrap();
        if i == 0 {
            assert!(line.starts_with("0001 BIRD v1.6.8"), "{line}");
            continue;
        }
        out += &line;
        out.push('\n');
        // The last line of an answer has a blank behind its code.
        let code = line.as_bytes().first().is_some_and(u8::is_ascii_digit);
        if code && line.as_bytes()[4] == b' ' {
            break;
        }
    }
    out
}

/// Times out of the way.
fn timeless(text: &str) -> String {
    let is_time = |w: &str| w.len() == 8 && w.as_bytes()[2] == b':' && w.as_bytes()[5] == b':';
    let word = |w: &str| {
        let bare = w.trim_end_matches(']');
        match is_time(bare) {
            true => w.replace(bare, "hh:mm:ss"),
            false => w.to_owned(),
        }
    };
    let line = |l: &str| l.split(' ').map(word).collect::<Vec<_>>().join(" ") + "\n";
    text.lines().map(line).collect()
}

fn two() -> (NetNs, One, One) {
    two_with(&["192.0.2.0/24", "2001:db8:2::/48"])
}

/// Of which the second tells of these.
fn two_with(theirs: &[&str]) -> (NetNs, One, One) {
    let ns = NetNs::new().unwrap();
    run(&ns, "ip", "link set lo up");
    for a in ["10.0.0.1/32", "10.0.0.2/32", "fd00::1/128", "fd00::2/128"] {
        run(&ns, "ip", &format!("addr add {a} dev lo"));
    }
    let a = One::start(&ns, 1, 2, &["192.0.1.0/24", "2001:db8:1::/48"]);
    let b = One::start(&ns, 2, 1, theirs);
    for (socket, prefix) in [
        ("bird.ctl", "192.0.2.0/24"),
        ("bird6.ctl", "2001:db8:2::/48"),
    ] {
        let route = format!("show route {prefix}");
        until(
            "a route",
            || a.bird(socket, &route),
            |s| s.starts_with("1007"),
        );
    }
    for (socket, prefix) in [
        ("bird.ctl", "192.0.1.0/24"),
        ("bird6.ctl", "2001:db8:1::/48"),
    ] {
        let route = format!("show route {prefix}");
        until(
            "a route",
            || b.bird(socket, &route),
            |s| s.starts_with("1007"),
        );
    }
    (ns, a, b)
}

#[test]
fn bird_s_words() {
    let (_ns, a, _b) = two();
    assert_eq!(
        timeless(&a.bird("bird.ctl", "show protocols")),
        "\
2002-name     proto    table    state  since       info
1002-static1  Static   master   up     hh:mm:ss    
 Global_10_0_0_2 BGP      master   up     hh:mm:ss    Established   
0000 
"
    );
    assert!(
        a.bird("bird6.ctl", "show protocols")
            .contains("\n Node_fd00__2 BGP      master   up "),
    );
    assert_eq!(
        timeless(&a.bird("bird.ctl", "show route all")),
        "\
1007-192.0.1.0/24       blackhole [static1 hh:mm:ss] * (200)
1008-\tType: static unicast univ
1007-192.0.2.0/24       via 10.0.0.2 [Global_10_0_0_2 hh:mm:ss] * (100) [AS65002i]
1008-\tType: BGP unicast univ
1012-\tBGP.origin: IGP
 \tBGP.as_path: 65002
 \tBGP.next_hop: 10.0.0.2
0000 
"
    );
    assert_eq!(
        timeless(&a.bird("bird6.ctl", "show route for 2001:db8:2::7")),
        "1007-2001:db8:2::/48    via fd00::2 [Node_fd00__2 hh:mm:ss] * (100) [AS65002i]\n0000 \n"
    );
    let one = |command: &str| a.bird("bird.ctl", command);
    assert_eq!(one("show route 10.9.9.0/24"), "8001 Network not in table\n");
    assert_eq!(one("show protocols x"), "8003 No protocols match\n");
    assert_eq!(
        one("show route count"),
        "0014 2 of 2 routes for 2 networks\n"
    );
    assert!(one("show route protocol static1").contains("192.0.1.0/24"));
    let told = until(
        "it is told",
        || one("show route export Global_10_0_0_2"),
        |s| s.starts_with("1007"),
    );
    assert!(
        told.contains("192.0.1.0/24") && !told.contains("192.0.2.0/24"),
        "{told}"
    );
    assert!(one("configure").starts_with("9001 syntax error"));
    let status = one("show status");
    assert!(status.starts_with("1000-BIRD v1.6.8"), "{status}");
    assert!(status.contains("\n1011-Router ID is 10.0.0.1\n Current server time is "));
    assert!(
        status.ends_with("\n0013 Daemon is up and running\n"),
        "{status}"
    );
    let details = one("show protocols all Global_10_0_0_2");
    assert!(
        details.contains("     Neighbor ID:      10.0.0.2\n"),
        "{details}"
    );
}

#[test]
fn a_session_whose_password_is_gone_says_so() {
    let (_ns, mut a, _b) = two();
    let of = |a: &One| a.ask(r#"{"ask":"peers","peer":"four"}"#)[0].clone();
    let text = resources(1, 2);
    let secret = |d: &&str| d.contains("kind: Secret");
    let without: Vec<&str> = text.split("---\n").filter(|d| !secret(d)).collect();
    a.follow(&without.join("---\n"));
    let down = until("it is down", || of(&a), |p| p["state"] == "Idle");
    let why = "its password is in secret k (p), which does not exist: the session stays down until it does";
    assert_eq!(down["lastError"], why, "{down:#?}");
    let birds = a.bird("bird.ctl", "show protocols");
    assert!(birds.contains(why), "{birds}");
    a.follow(&text);
    until("it is back", || of(&a), |p| p["state"] == "Established");
}

#[test]
fn a_maximum_of_prefixes_is_held_and_shown() {
    let (_ns, mut a, _b) = two_with(&["192.0.2.0/24", "192.0.3.0/24", "2001:db8:2::/48"]);
    let of = |a: &One, name: &str| {
        let question = format!(r#"{{"ask":"peers","peer":"{name}"}}"#);
        a.ask(&question)[0].clone()
    };
    let four = |a: &One| of(a, "four");
    until("both prefixes", || four(&a), |p| p["paths"] == 2);
    let with = |max: &str| {
        let named = format!("{{name: four, annotations: {{manx.io/max-prefixes: '{max}'}}}}");
        resources(1, 2).replace("{name: four}", &named)
    };
    // Over a limit that ends it the session goes, though nothing new was told.
    a.follow(&with("1"));
    let seen = until("it is away", || four(&a), |p| p["state"] != "Established");
    assert_eq!(seen["maxPrefixes"]["count"], 1, "{seen:#?}");
    assert_eq!(seen["maxPrefixes"]["beyond"], "reset");
    let why = seen["lastError"].as_str().unwrap();
    assert!(why.contains("maximum number of prefixes reached"), "{why}");
    assert_eq!(of(&a, "six")["state"], "Established");
    // For the rest of a minute it would not be let in; for another limit it is.
    let begun = std::time::Instant::now();
    a.follow(&with("1,discard"));
    let seen = until("it is back", || four(&a), |p| p["paths"] == 1);
    assert!(begun.elapsed() < std::time::Duration::from_secs(50));
    assert_eq!(seen["state"], "Established");
    let why = "it has reached its maximum of 1 prefixes: no more are taken";
    assert_eq!(seen["lastError"], why);
    a.follow(&with("1,warn"));
    // What was not taken is asked for.
    let why = "it has told of 2 prefixes, and its maximum is 1";
    until(
        "all are taken",
        || four(&a),
        |p| p["paths"] == 2 && p["lastError"] == why,
    );
}

#[test]
fn our_own_words() {
    let (_ns, a, mut b) = two();
    let peers = a.ask(r#"{"ask":"peers","peer":"four"}"#);
    assert_eq!(peers.len(), 1);
    assert_eq!(peers[0]["state"], "Established");
    assert_eq!(peers[0]["password"], true);
    assert_eq!(peers[0]["paths"], 1);
    let route = &a.ask(r#"{"ask":"routes","prefix":"192.0.2.9"}"#)[0];
    assert_eq!(route["prefix"], "192.0.2.0/24");
    assert_eq!(route["paths"][0]["status"], "best");
    assert_eq!(route["exports"][0]["why"], "the peer told it to us");
    let out = a.ask(r#"{"ask":"routes","peer":"10.0.0.2","direction":"out","family":4}"#);
    let told: Vec<_> = out.iter().map(|r| &r["exports"][0]["told"]).collect();
    assert_eq!(told, [&Value::Bool(true), &Value::Bool(false)]);
    let error = |q: &str| a.ask(q)[0]["error"].as_str().unwrap_or_default().to_owned();
    assert!(error(r#"{"ask":"peers","peer":"x"}"#).starts_with("there is no peer x; of 2"));
    assert!(error(r#"{"ask":"routes","prefix":"x"}"#).contains("neither a prefix"));
    assert!(!error("?").is_empty());
    // A session that ends is remembered, and its neighbour is not touched.
    let text = resources(2, 1);
    let without: Vec<&str> = text
        .split("---\n")
        .filter(|d| !d.contains("name: six"))
        .collect();
    b.follow(&without.join("---\n"));
    until(
        "it ended",
        || a.ask(r#"{"ask":"faults"}"#),
        |f| !f.is_empty(),
    );
    let ended = &a.ask(r#"{"ask":"faults"}"#)[0];
    assert_eq!(ended["peer"], "Node_fd00__2");
    assert_eq!(ended["then"], "session ended by the peer");
    let peers = a.ask(r#"{"ask":"peers"}"#);
    assert_eq!(peers[0]["flaps"], 0, "{peers:#?}");
    assert_eq!(peers[1]["flaps"], 1, "{peers:#?}");
    let view = |h: &Handle, after| {
        h.look(move |v| speaker::readiness(v, std::time::Duration::from_secs(after)))
            .unwrap()
    };
    let why = "BGP not established with fd00::2 (1 of 2 are)".to_owned();
    assert_eq!(view(&a.handle, 1), Err(why));
    assert_eq!(view(&a.handle, 3600), Ok(()));
    assert_eq!(view(&b.handle, 1), Ok(()));
}

#[test]
fn tables_are_dumped_whole() {
    let (_ns, a, _b) = two();
    let mut stream = UnixStream::connect(a.socket("bgp.ctl")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    writeln!(stream, r#"{{"ask":"dump"}}"#).unwrap();
    let mut from = BufReader::new(stream);
    let mut line = String::new();
    from.read_line(&mut line).unwrap();
    assert_eq!(line, "{\"dump\":\"mrt\"}\n");
    let mut records = Vec::new();
    loop {
        let mut length = [0; 4];
        from.read_exact(&mut length).unwrap();
        let mut record = vec![0; u32::from_be_bytes(length) as usize];
        from.read_exact(&mut record).unwrap();
        if record.is_empty() {
            break;
        }
        assert_eq!(
            u32::from_be_bytes(record[8..12].try_into().unwrap()) as usize,
            record.len() - 12
        );
        records.push((record[7], record));
    }
    let kinds: Vec<u8> = records.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [1, 2, 2, 4, 4]);
    let read: Vec<String> = records.iter().flat_map(|(_, r)| read_mrt(r)).collect();
    assert_eq!(
        read,
        [
            "collector 10.0.0.1 with 0.0.0.0 65001, 10.0.0.2 65002, fd00::2 65002",
            "192.0.1.0/24 of 0: path , IGP",
            "192.0.2.0/24 of 1: 10.0.0.2 path 65002, IGP",
            "2001:db8:1::/48 of 0: :: path , IGP",
            "2001:db8:2::/48 of 2: fd00::2 path 65002, IGP",
        ]
    );
}

/// What another's parser makes of a record.
fn read_mrt(record: &[u8]) -> Vec<String> {
    use bgpkit_parser::models::{MrtMessage, TableDumpV2Message};
    let read = bgpkit_parser::parse_mrt_record(&mut &*record).unwrap();
    let MrtMessage::TableDumpV2Message(table) = read.message else {
        panic!("{read:?}");
    };
    match table {
        TableDumpV2Message::PeerIndexTable(index) => {
            let peer = |id: u16| {
                let p = index.get_peer_by_id(&id).unwrap();
                format!("{} {}", p.peer_ip, p.peer_asn)
            };
            let peers: Vec<String> = (0..3).map(peer).collect();
            let all = peers.join(", ");
            vec![format!("collector {} with {all}", index.collector_bgp_id)]
        }
        TableDumpV2Message::RibAfi(rib) => {
            let entry = |e: &bgpkit_parser::models::RibEntry| {
                let a = &e.attributes;
                let reach = a.get_reachable_nlri().and_then(|n| n.next_hop);
                let hop = a.next_hop().or_else(|| Some(reach?.addr()));
                let hop = hop.map(|h| h.to_string()).filter(|h| h != "0.0.0.0");
                let path = a.as_path().map(ToString::to_string).unwrap_or_default();
                format!(
                    "{} of {}: {}path {path}, {}",
                    rib.prefix,
                    e.peer_index,
                    hop.map(|h| h + " ").unwrap_or_default(),
                    a.origin()
                )
            };
            rib.rib_entries.iter().map(entry).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn lists_have_what_is_refused_too() {
    let (_ns, mut a, _b) = two();
    let refusing = resources(1, 2).replace(
        "  asNumber: 65002\n",
        "  asNumber: 65002\n  filters: [no]\n",
    ) + "---\napiVersion: projectcalico.org/v3\nkind: BGPFilter\nmetadata: {name: no}\n\
           spec: {importV4: [{action: Reject, matchOperator: In, cidr: 192.0.2.0/23}]}\n";
    a.follow(&refusing);
    let listed = until(
        "it is refused",
        || a.ask(r#"{"ask":"routes","family":4}"#),
        |all| all.len() == 2 && all[1]["paths"][0]["status"] == "refused",
    );
    assert_eq!(listed[0]["paths"][0]["status"], "best");
    assert_eq!(listed[1]["prefix"], "192.0.2.0/24");
    let why = listed[1]["paths"][0]["why"].as_str().unwrap();
    assert!(why.contains("BGPFilter(no) rule 0"), "{why}");
    let inward = a.ask(r#"{"ask":"routes","peer":"10.0.0.2","direction":"in"}"#);
    assert_eq!(inward.len(), 1, "{inward:?}");
    assert!(inward[0].get("exports").is_none());
    let outward = a.ask(r#"{"ask":"routes","peer":"10.0.0.2","direction":"out"}"#);
    assert_eq!(outward.len(), 1, "{outward:?}");
    assert_eq!(outward[0]["exports"].as_array().unwrap().len(), 1);
    assert!(!a.bird("bird.ctl", "show route").contains("192.0.2.0"));
}

#[test]
fn what_is_counted() {
    let (_ns, a, _b) = two();
    let metrics = Metrics::default();
    a.control.as_ref().unwrap().register(&a.handle, &metrics);
    let page = metrics.text();
    for line in [
        "manx_bgp_prefixes 4\n",
        "manx_bgp_peer_up{peer=\"Global_10_0_0_2\",as=\"65002\"} 1\n",
        "manx_bgp_peer_paths{peer=\"Node_fd00__2\",as=\"65002\"} 1\n",
        "manx_bgp_peer_flaps_total{peer=\"Node_fd00__2\",as=\"65002\"} 0\n",
    ] {
        assert!(page.contains(line), "{line}{page}");
    }
}

/// The path of IPv6 alone is watched, from both ends.
#[test]
fn paths_that_are_watched() {
    const HOW: &str = "annotations: {manx.io/bfd: 'min-rx=500ms,min-tx=500ms,multiplier=20'}";
    let (ns, mut a, mut b) = two();
    for (one, me, other) in [(&mut a, 1, 2), (&mut b, 2, 1)] {
        let all = resources(me, other);
        one.follow(&all.replace("{name: six}", &format!("{{name: six, {HOW}}}")));
    }
    let shown = || timeless(&a.bird("bird6.ctl", "show bfd sessions"));
    let said = until("the path", shown, |s| s.contains("0.500   10.000"));
    assert_eq!(
        said,
        "\
1020-bfd1:
 IP address                Interface  State      Since       Interval  Timeout
 fd00::2                   ---        Up         hh:mm:ss       0.500   10.000
0000 
"
    );
    let four = a.bird("bird.ctl", "show bfd sessions");
    assert!(four.contains("There is no BFD protocol running"), "{four}");
    let metrics = Metrics::default();
    a.control.as_ref().unwrap().register(&a.handle, &metrics);
    let page = metrics.text();
    let number = |name: &str| {
        let rest = page.lines().find_map(|l| l.strip_prefix(name));
        let n = rest.and_then(|r| r.strip_prefix("{peer=\"Node_fd00__2\"} "));
        n.unwrap_or_else(|| panic!("{name}: {page}"))
            .parse::<u64>()
            .unwrap()
    };
    assert_eq!(number("manx_bfd_up"), 1);
    assert_eq!(number("manx_bfd_ups_total"), 1);
    assert_eq!(number("manx_bfd_failures_total"), 0);
    // To come up takes one at least, and the times that were asked for another.
    assert!(number("manx_bfd_packets_received_total") >= 2);
    assert!(number("manx_bfd_packets_sent_total") >= 2);
    assert!(!page.contains("Global_10_0_0_2\"} "), "{page}");
    // As if it came from afar: by its TTL.
    let sent = ns.run(|| std::net::UdpSocket::bind("[fd00::2]:0")?.send_to(&[0], "[fd00::1]:3784"));
    assert_eq!(sent.unwrap().unwrap(), 1);
    let dropped = "manx_bfd_packets_dropped_total{reason=\"ttl\"} 1\n";
    let page = || metrics.text();
    let _ = until("a packet from afar", page, |p| p.contains(dropped));
}

#[test]
fn a_socket_that_is_served_is_not_taken_and_one_that_is_left_is() {
    let (ns, mut a, _b) = two();
    let dir = a.dir.path().to_owned();
    let taken = Control::start(&a.handle, &dir).unwrap_err().to_string();
    assert!(taken.contains("another speaker serves it"), "{taken}");
    a.control.take().unwrap().stop();
    assert!(!a.socket("bird.ctl").exists());
    // As one that was killed leaves it.
    drop(std::os::unix::net::UnixListener::bind(a.socket("bird.ctl")).unwrap());
    let handle = a.handle.clone();
    let again = ns
        .run(move || Control::start(&handle, &dir))
        .unwrap()
        .unwrap();
    assert!(a.bird("bird.ctl", "show status").contains("0013"));
    again.stop();
}

#[test]
fn an_address_that_comes_late_is_listened_on_then() {
    let ns = NetNs::new().unwrap();
    run(&ns, "ip", "link set lo up");
    run(&ns, "ip", "addr add 10.0.0.1/32 dev lo");
    let a = One::start(&ns, 1, 2, &[]);
    let troubles = |a: &One| a.handle.look(|v| v.troubles.to_vec()).unwrap();
    until("a trouble", || troubles(&a), |t| !t.is_empty());
    assert!(troubles(&a)[0].contains("listen on [fd00::1]:179"));
    run(&ns, "ip", "addr add fd00::1/128 dev lo");
    until("no trouble", || troubles(&a), Vec::is_empty);
    let calls = || {
        ns.run(|| std::net::TcpStream::connect("[fd00::1]:179").is_ok())
            .unwrap()
    };
    assert!(calls());
}
