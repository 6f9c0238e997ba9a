//! From a stored policy to packets: a store, an agent without its attachments, and a kernel.
//!
//! A node with two pods, and beyond it a machine that is name server and everything else. Each
//! is a namespace of its own.

use super::*;
use crate::config::Configuration;
use crate::engine::{Engine, World};
use dataplane::{Dataplane, Options};
use datastore::{Store, Syncer};
use netlink::netns::NetNs;
use simple_dns::rdata::{A, AAAA, CNAME, RData};
use simple_dns::{CLASS, Name, Packet, QCLASS, QTYPE, Question, ResourceRecord, TYPE};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::thread;
use tokio::sync::oneshot;

const DEADLINE: Duration = Duration::from_secs(20);
/// Of the pods default/one and default/two.
const INTERFACES: [&str; 2] = ["calid65259db43f", "cali46a553c7aae"];
const SERVERS: [&str; 2] = ["192.0.2.53", "2001:db8::53"];

/// What the name server says, with seconds.
const ZONE: [(&str, u32, &str); 9] = [
    ("api.example.org", 300, "cdn.example.net"),
    ("cdn.example.net", 300, "198.51.100.7"),
    ("cdn.example.net", 300, "2001:db8:7::7"),
    ("short.example.org", 0, "198.51.100.8"),
    ("short.example.org", 0, "2001:db8:7::8"),
    ("1.wild.example.org", 300, "198.51.100.9"),
    ("1.wild.example.org", 300, "2001:db8:7::9"),
    ("unnamed.example.org", 300, "198.51.100.10"),
    ("unnamed.example.org", 300, "2001:db8:7::10"),
];

const OBJECTS: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: default}
---
apiVersion: v1
kind: Pod
metadata:
  name: one
  namespace: default
  labels: {app: client}
  annotations: {cni.projectcalico.org/podIPs: "10.65.0.1/32,fd00:65::1/128"}
spec: {nodeName: n1, containers: []}
status: {phase: Running}
---
apiVersion: v1
kind: Pod
metadata:
  name: two
  namespace: default
  labels: {app: other}
  annotations: {cni.projectcalico.org/podIPs: "10.65.0.2/32,fd00:65::2/128"}
spec: {nodeName: n1, containers: []}
status: {phase: Running}
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: names}
spec:
  tier: Admin
  priority: 5
  subject: {pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: client}}}}
  egress:
  - {name: names, action: Accept, to: [{domainNames: [api.example.org, short.example.org, "*.wild.example.org"]}]}
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: rest}
spec:
  tier: Admin
  priority: 6
  subject: {namespaces: {}}
  egress:
  - {name: dns, action: Accept, to: [{networks: [192.0.2.53/32, "2001:db8::53/128"]}], protocols: [{udp: {destinationPort: {number: 53}}}, {udp: {destinationPort: {number: 5353}}}]}
  - {name: pods, action: Accept, to: [{networks: [10.65.0.0/24]}]}
  - {name: rest, action: Deny, to: [{networks: [0.0.0.0/0, "::/0"]}]}
"#;

fn sh(ns: &NetNs, script: &str) -> String {
    let mut command = ns.command("sh").unwrap();
    let out = command.args(["-ec", script]).output().unwrap();
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{script}: {stderr}");
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// Both ends of a pair, by a descriptor and not by a name.
fn veth(here: &NetNs, name: &str, there: &NetNs) {
    let (process, fd) = (std::process::id(), there.as_fd().as_raw_fd());
    sh(
        here,
        &format!(
            "ip link add {name} address ee:ee:ee:ee:ee:ee type veth peer name eth0 netns /proc/{process}/fd/{fd}
             echo 0 > /proc/sys/net/ipv6/conf/{name}/accept_dad; ip link set {name} up"
        ),
    );
    sh(
        there,
        "ip link set lo up; echo 0 > /proc/sys/net/ipv6/conf/eth0/accept_dad; ip link set eth0 up",
    );
}

struct Lab {
    node: NetNs,
    pods: [NetNs; 2],
    store: Arc<dyn Store>,
    dir: tempfile::TempDir,
}

impl Lab {
    fn new() -> Self {
        let [node, one, two, outside] = [(); 4].map(|()| NetNs::new().unwrap());
        veth(&node, "uplink", &outside);
        sh(
            &node,
            "ip link set lo up
             ip addr add 192.0.2.1/24 dev uplink; ip -6 addr add 2001:db8::1/64 dev uplink nodad
             ip route add default via 192.0.2.53; ip -6 route add default via 2001:db8::53
             echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding",
        );
        sh(
            &outside,
            "ip addr add 192.0.2.53/24 dev eth0; ip -6 addr add 2001:db8::53/64 dev eth0 nodad
             ip route add local 198.51.100.0/24 dev lo; ip -6 route add local 2001:db8:7::/64 dev lo
             ip route add 10.65.0.0/24 via 192.0.2.1; ip -6 route add fd00:65::/64 via 2001:db8::1",
        );
        for (n, interface, pod) in [(1, INTERFACES[0], &one), (2, INTERFACES[1], &two)] {
            veth(&node, interface, pod);
            sh(
                pod,
                &format!(
                    "ip addr add 10.65.0.{n}/32 dev eth0; ip -6 addr add fd00:65::{n}/128 dev eth0 nodad
                     ip route add 169.254.1.1 dev eth0; ip route add default via 169.254.1.1 dev eth0
                     ip -6 route add default via fe80::ecee:eeff:feee:eeee dev eth0"
                ),
            );
        }
        serve(&outside);
        let store = datastore::open(None).unwrap();
        let client = datastore::Client::new(store.clone());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        for document in api::parse_documents(OBJECTS, "objects") {
            let (resource, _) = document.unwrap();
            runtime.block_on(client.apply(resource)).unwrap();
        }
        // Threads keep what they serve in; here it ends.
        drop(outside);
        Self {
            node,
            pods: [one, two],
            store,
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn agent(&self) -> Agent {
        let (stop, stopped) = oneshot::channel::<()>();
        let (ns, store) = (self.node.try_clone().unwrap(), self.store.clone());
        let dir = self.dir.path().to_owned();
        let work = move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let options = Options::default();
                let plane = Dataplane::new(options).unwrap();
                let handle = plane.handle();
                let limits = Limits {
                    least: Duration::from_secs(1),
                    grace: Duration::from_secs(1),
                    ..Limits::default()
                };
                let (learner, learned) = Learner::with_limits(dir, Metrics::default(), limits);
                let engine = Engine::new(
                    "n1".into(),
                    handle.clone(),
                    None,
                    Configuration::new("n1".into(), daemon::node::Backend::None, Vec::new()),
                    Box::new(|_| ()),
                    watch::channel(World::default()).0,
                    crate::metrics::Metrics::default(),
                    learned,
                );
                let plane = tokio::spawn(plane.run());
                let engine = tokio::spawn(engine.run(Syncer::new(store)));
                let learner = tokio::spawn(learner.run());
                let _ = stopped.await;
                engine.abort();
                learner.abort();
                handle.stop();
                plane.await.unwrap().unwrap();
            });
        };
        Agent {
            stop: Some(stop),
            thread: Some(thread::spawn(move || ns.run(work).unwrap())),
        }
    }

    /// What the name server says to a pod, as addresses.
    fn ask(&self, pod: usize, server: &str, name: &str) -> Option<Vec<IpAddr>> {
        let to = SocketAddr::new(server.parse().unwrap(), 53);
        let any = if to.is_ipv4() { "0.0.0.0" } else { "::" };
        let socket = self.pods[pod]
            .run(|| UdpSocket::bind((any, 0)).unwrap())
            .unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        let mut query = Packet::new_query(1);
        let class = QCLASS::CLASS(CLASS::IN);
        let kind = QTYPE::TYPE(TYPE::A);
        let name = Name::new_unchecked(name);
        query
            .questions
            .push(Question::new(name, kind, class, false));
        socket.send_to(&query.build_bytes_vec().unwrap(), to).ok()?;
        let mut buffer = [0; 1500];
        let n = socket.recv(&mut buffer).ok()?;
        let found = addresses(&Packet::parse(&buffer[..n]).unwrap());
        Some(found)
    }

    /// Asks until there is an answer: rules and neighbours take their time once.
    #[track_caller]
    fn resolve(&self, pod: usize, server: &str, name: &str) -> IpAddr {
        let end = Instant::now() + DEADLINE;
        let v4 = !server.contains(':');
        loop {
            if let Some(found) = self.ask(pod, server, name) {
                return found.into_iter().find(|a| a.is_ipv4() == v4).unwrap();
            }
            assert!(Instant::now() < end, "no answer\n{}", self.rules());
        }
    }

    fn connect(&self, pod: usize, to: IpAddr, limit: Duration) -> Option<TcpStream> {
        let to = SocketAddr::new(to, 80);
        let open = || TcpStream::connect_timeout(&to, limit).ok();
        self.pods[pod].run(open).unwrap()
    }

    fn closed(&self, pod: usize, to: IpAddr) -> bool {
        self.connect(pod, to, Duration::from_millis(250)).is_none()
    }

    fn rules(&self) -> String {
        sh(&self.node, "nft list ruleset")
    }
}

struct Agent {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(t) = self.thread.take() {
            let ended = t.join();
            assert!(ended.is_ok() || thread::panicking());
        }
    }
}

fn addresses(p: &Packet<'_>) -> Vec<IpAddr> {
    let one = |r: &ResourceRecord<'_>| match &r.rdata {
        RData::A(a) => Some(IpAddr::V4(a.address.into())),
        RData::AAAA(a) => Some(IpAddr::V6(a.address.into())),
        _ => None,
    };
    p.answers.iter().filter_map(one).collect()
}

/// The zone's answer: the name, and what its aliases lead to.
fn reply(query: &[u8]) -> Vec<u8> {
    let query = Packet::parse(query).unwrap();
    let mut out = Packet::new_reply(query.id());
    let mut at = query.questions[0].qname.to_string();
    out.questions = query.questions;
    loop {
        let mut next = None;
        for (owner, ttl, to) in ZONE.iter().filter(|(o, ..)| *o == at) {
            let data = match to.parse() {
                Ok(IpAddr::V4(a)) => RData::A(A {
                    address: a.to_bits(),
                }),
                Ok(IpAddr::V6(a)) => RData::AAAA(AAAA {
                    address: a.to_bits(),
                }),
                Err(_) => {
                    next = Some((*to).to_owned());
                    RData::CNAME(CNAME(Name::new_unchecked(to)))
                }
            };
            let owner = Name::new_unchecked(owner);
            out.answers
                .push(ResourceRecord::new(owner, CLASS::IN, *ttl, data));
        }
        match next {
            Some(n) => at = n,
            None => return out.build_bytes_vec_compressed().unwrap(),
        }
    }
}

/// Answers questions, and echoes on port 80 of every address.
fn serve(outside: &NetNs) {
    for (server, port) in SERVERS.iter().flat_map(|s| [(*s, 53), (*s, 5353)]) {
        let socket = outside
            .run(|| UdpSocket::bind((server, port)).unwrap())
            .unwrap();
        thread::spawn(move || {
            let mut buffer = [0; 1500];
            while let Ok((n, from)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(&reply(&buffer[..n]), from);
            }
        });
    }
    let listener = outside
        .run(|| TcpListener::bind(("::", 80)).unwrap())
        .unwrap();
    thread::spawn(move || {
        for s in listener.incoming() {
            let Ok(mut s) = s else { return };
            thread::spawn(move || {
                let mut buffer = [0; 16];
                while let Ok(n @ 1..) = s.read(&mut buffer) {
                    let _ = s.write_all(&buffer[..n]);
                }
            });
        }
    });
}

fn alive(s: &mut TcpStream) -> bool {
    let mut b = [0; 2];
    s.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    s.write_all(b"ok").is_ok() && s.read_exact(&mut b).is_ok() && &b == b"ok"
}

#[test]
fn an_answer_opens_its_addresses_to_whom_a_rule_lets_there() {
    let w = Lab::new();
    let _agent = w.agent();
    for server in SERVERS {
        // A name that no rule has opens nothing.
        let unnamed = w.resolve(0, server, "unnamed.example.org");
        assert!(w.closed(0, unnamed));
        for name in ["api.example.org", "1.wild.example.org"] {
            let closed: IpAddr = match (name, server) {
                ("api.example.org", "192.0.2.53") => "198.51.100.7",
                ("api.example.org", _) => "2001:db8:7::7",
                (_, "192.0.2.53") => "198.51.100.9",
                _ => "2001:db8:7::9",
            }
            .parse()
            .unwrap();
            // The first family's answer has the other's addresses too.
            if server == SERVERS[0] {
                assert!(w.closed(0, closed), "{name} before it was asked");
            }
            let to = w.resolve(0, server, name);
            assert_eq!(to, closed);
            let began = Instant::now();
            let short = Duration::from_millis(4);
            let mut opened = None;
            while opened.is_none() && began.elapsed() < Duration::from_secs(5) {
                opened = w.connect(0, to, short);
            }
            println!("{name} by {server}: open after {:?}", began.elapsed());
            assert!(alive(&mut opened.expect(name)), "{name}");
            // One whose rules do not have the name gets nothing, even if it asks itself.
            assert_eq!(w.resolve(1, server, name), to);
            assert!(w.closed(1, to), "{name}");
        }
    }
}

#[test]
fn answers_through_a_service_are_read_as_the_pod_sees_them() {
    let w = Lab::new();
    let _agent = w.agent();
    // What a service proxy does, to a port that is not 53.
    sh(
        &w.node,
        "nft 'add table inet services
         add chain inet services c { type nat hook prerouting priority -100; }
         add rule inet services c ip daddr 10.96.0.10 udp dport 53 dnat ip to 192.0.2.53:5353
         add rule inet services c ip6 daddr fd00:96::10 udp dport 53 dnat ip6 to [2001:db8::53]:5353'",
    );
    for server in ["10.96.0.10", "fd00:96::10"] {
        let to = w.resolve(0, server, "api.example.org");
        assert!(w.connect(0, to, Duration::from_secs(5)).is_some(), "{to}");
    }
}

#[test]
fn what_expired_is_closed_to_new_connections() {
    let w = Lab::new();
    let _agent = w.agent();
    for server in SERVERS {
        let to = w.resolve(0, server, "short.example.org");
        // As programs do: the first packet may be lost, the second comes a second later.
        let mut held = w.connect(0, to, Duration::from_secs(5)).expect("open");
        let end = Instant::now() + DEADLINE;
        while !w.closed(0, to) {
            assert!(Instant::now() < end, "{to} stays open\n{}", w.rules());
        }
        assert!(alive(&mut held), "what is established goes on");
    }
}

#[test]
fn a_pod_cannot_answer_what_nobody_asked() {
    let w = Lab::new();
    let _agent = w.agent();
    let victim: SocketAddr = "10.65.0.1:4000".parse().unwrap();
    w.resolve(0, SERVERS[0], "unnamed.example.org");
    w.resolve(1, SERVERS[0], "unnamed.example.org");
    let spoofer = w.pods[1]
        .run(|| UdpSocket::bind("10.65.0.2:53").unwrap())
        .unwrap();
    let receiver = w.pods[0].run(|| UdpSocket::bind(victim).unwrap()).unwrap();
    for s in [&spoofer, &receiver] {
        s.set_read_timeout(Some(DEADLINE)).unwrap();
    }
    let mut query = Packet::new_query(1);
    let (kind, class) = (QTYPE::TYPE(TYPE::A), QCLASS::CLASS(CLASS::IN));
    let name = Name::new_unchecked("1.wild.example.org");
    query
        .questions
        .push(Question::new(name, kind, class, false));
    let lie = reply(&query.build_bytes_vec().unwrap());
    let mut buffer = [0; 1500];
    // Once as the first packet, then on a connection that is established, but begun by the liar.
    for _ in 0..3 {
        spoofer.send_to(&lie, victim).unwrap();
        let (n, from) = receiver.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..n], lie);
        receiver.send_to(b"why?", from).unwrap();
        spoofer.recv(&mut buffer).unwrap();
    }
    // Copies come in order: when this is known, the lies would be.
    let to = w.resolve(0, SERVERS[0], "api.example.org");
    assert!(w.connect(0, to, Duration::from_secs(5)).is_some());
    assert!(w.closed(0, "198.51.100.9".parse().unwrap()));
}

#[test]
fn what_was_known_stays_open_while_the_agent_starts_anew() {
    let w = Lab::new();
    let first = w.agent();
    let to = w.resolve(0, SERVERS[0], "api.example.org");
    assert!(w.connect(0, to, Duration::from_secs(5)).is_some());
    let file = w.dir.path().join(FILE);
    let end = Instant::now() + DEADLINE;
    while !std::fs::read_to_string(&file).is_ok_and(|t| t.contains("198.51.100.7")) {
        assert!(Instant::now() < end, "the file is written");
        thread::yield_now();
    }
    drop(first);
    assert!(!w.closed(0, to), "while no agent is there");
    let _second = w.agent();
    // New names are learned when the second has taken over; the old one is open all the time.
    let new = w.resolve(0, SERVERS[0], "1.wild.example.org");
    let end = Instant::now() + DEADLINE;
    loop {
        assert!(
            !w.closed(0, to),
            "while the second agent starts\n{}",
            w.rules()
        );
        if !w.closed(0, new) {
            break;
        }
        w.resolve(0, SERVERS[0], "1.wild.example.org");
        assert!(Instant::now() < end, "the second agent learns");
    }
    assert!(!w.closed(0, to), "and afterwards");
}
