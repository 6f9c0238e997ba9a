//! Paths watched by BFD, with BIRD, with FRR, and with a far end that does as a test says. Wants root,
//! `bird`, `frr` and `nft`.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod support;

use bfd::{Config, Diagnostic, Packet, Session, State};
use bgp::router::Event;
use model::{Bfd, BfdHops, BgpPeer, NodeAddress, Update};
use net::Cidr;
use netlink::netns::NetNs;
use speaker::{BfdReport, Kernel};
use std::collections::BTreeMap;
use std::fs::Permissions;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use support::{
    Bird, Ours, PATIENCE, Wire, connect, ip, node, peer_with, run, sessions, settings, until, world,
};

const ID: &str = "10.0.0.2";
const MS: Duration = Duration::from_millis(1);
/// With 300 ms and 3 a dead path is to be found within it, where BGP's hold time is 90 s.
const SOON: Duration = Duration::from_secs(2);

/// Slow enough for a machine that is busy, where no speed is asked for.
const STEADY: Bfd = Bfd {
    min_tx: Duration::from_millis(500),
    min_rx: Duration::from_millis(500),
    multiplier: 20,
    hops: None,
};

fn watched(how: Bfd) -> impl Fn(&mut BgpPeer) + Copy {
    move |p| p.bfd = Some(how)
}

/// Our node with its subnets, so that neighbours are known to be near.
fn near() -> Update {
    let mut n = node("10.0.0.1", "fd00::1");
    let on = |addr: &str, subnet: &str| {
        Some(NodeAddress {
            addr: ip(addr),
            subnet: subnet.parse::<Cidr>().unwrap(),
        })
    };
    n.ipv4 = on("10.0.0.1", "10.0.0.0/24");
    n.ipv6 = on("fd00::1", "fd00::/64");
    Update::Node("a".into(), Some(n))
}

fn with(asn: u32, ends: [&str; 2], change: impl Fn(&mut BgpPeer) + Copy) -> Vec<Update> {
    let mut all = world();
    all.push(near());
    all.push(peer_with("four", ends[0], asn, change));
    all.push(peer_with("six", ends[1], asn, change));
    all
}

const ENDS: [&str; 2] = ["10.0.0.2", "fd00::2"];

/// What is known of the path to each peer, by address.
fn paths(ours: &Ours) -> BTreeMap<String, Option<BfdReport>> {
    let look = |v: &speaker::View<'_>| {
        let each = v.plan.peers.iter();
        each.map(|p| (p.address.to_string(), v.bfd.report(p)))
            .collect()
    };
    ours.handle.look(look).unwrap()
}

fn states(ours: &Ours) -> Vec<State> {
    let all = paths(ours);
    all.values().flatten().map(|r| r.state).collect()
}

#[track_caller]
fn up(ours: &Ours, n: usize) {
    let all = vec![State::Up; n];
    let ask = || (states(ours), ours.errors());
    until("paths that are up", ask, |(s, _)| *s == all);
}

fn dropped(ours: &Ours, reason: &'static str) -> u64 {
    let look = move |v: &speaker::View<'_>| v.bfd.dropped().get(reason).copied();
    ours.handle.look(look).unwrap().unwrap_or_default()
}

/// When sessions ended, by name.
fn ends_of(ours: &Ours) -> Receiver<(String, Instant)> {
    let (tell, told) = channel();
    let up = bgp::fsm::State::Established;
    let watch = move |name: &str, event: &Event| match event {
        Event::State { from, to, .. } if *from == up && *to != up => {
            tell.send((name.to_owned(), Instant::now())).is_ok()
        }
        _ => true,
    };
    ours.handle.watch(watch).unwrap();
    told
}

/// Cuts every packet of a namespace; what was under way is gone when it returns.
fn cut(ns: &NetNs) {
    run(ns, "nft", "add table inet cut");
    for hook in ["input", "forward", "output"] {
        let chain = format!(
            "add chain inet cut {hook} {{ type filter hook {hook} priority -300 ; policy drop ; }}"
        );
        run(ns, "nft", &chain);
    }
}

fn mend(ns: &NetNs) {
    run(ns, "nft", "delete table inet cut");
}

/// A path that is cut ends the BGP sessions of both families soon, and says so.
#[track_caller]
fn dies_and_is_back(ours: &Ours, at: &NetNs) {
    ours.established(2);
    up(ours, 2);
    // Both poll for other times than the slow ones of the beginning, and have an answer.
    until(
        "the times that were asked for",
        || paths(ours),
        |p| {
            let fast = |r: &BfdReport| r.interval == 300 * MS && r.detection == Some(900 * MS);
            p.values().flatten().filter(|r| fast(r)).count() == 2
        },
    );
    let ended = ends_of(ours);
    cut(at);
    let since = Instant::now();
    let mut names = Vec::new();
    while names.len() < 2 {
        let (name, when) = ended.recv_timeout(PATIENCE).unwrap();
        let took = when.saturating_duration_since(since);
        assert!(took < SOON, "{name}: {took:?}");
        names.push(name);
    }
    let errors = ours.errors();
    let said = |e: &String| e.starts_with("sent: BFD down (6/10): ");
    assert_eq!(errors.iter().filter(|e| said(e)).count(), 2, "{errors:?}");
    mend(at);
    ours.established(2);
    up(ours, 2);
    let failures = |r: &BfdReport| (r.failures, r.ups) >= (1, 2);
    assert!(paths(ours).values().flatten().all(failures));
}

#[test]
fn bird_near_by() {
    let wire = Wire::new();
    let conf = "protocol bfd { interface \"*\" { interval 300 ms; multiplier 3; }; }\n".to_owned();
    let bird = Bird::start(
        &wire.there,
        ID,
        &(conf + &sessions(65001, 64512, "bfd on;")),
    );
    let ours = Ours::start(
        &wire.here,
        settings(),
        with(65001, ENDS, watched(Bfd::default())),
    );
    ours.established(2);
    up(&ours, 2);
    let said = until(
        "BIRD's paths",
        || bird.ask("show bfd sessions"),
        |s| s.matches(" Up ").count() == 2,
    );
    assert!(
        said.contains("10.0.0.1") && said.contains("fd00::1"),
        "{said}"
    );
    let near = |r: &BfdReport| r.single_hop && r.remote_state == State::Up;
    assert!(paths(&ours).values().flatten().all(near));
    dies_and_is_back(&ours, &wire.there);
    nobody_watches_any_more(&ours, || {
        let up = bird.ask("show bfd sessions").matches(" Up ").count();
        up == 0
    });
    bird.established("m4");
    bird.established("m6");
}

/// BGP without BFD, on both sides: these strangers end a session once, as for a failure, when ours is
/// taken away.
#[track_caller]
fn nobody_watches_any_more(ours: &Ours, gone: impl Fn() -> bool) {
    for (name, at) in [("four", ENDS[0]), ("six", ENDS[1])] {
        ours.update(peer_with(name, at, 65001, |_| {}));
    }
    until("the far end's paths that are down", gone, |gone| *gone);
    assert_eq!(states(ours), []);
    ours.established(2);
}

#[test]
fn bird_behind_a_router() {
    let [here, mid, there] = [0; 3].map(|_| NetNs::new().unwrap());
    connect(
        (&here, "eth0", &["10.0.0.1/24", "fd00::1/64"]),
        (&mid, "eth0", &["10.0.0.254/24", "fd00::fe/64"]),
    );
    connect(
        (&mid, "eth1", &["10.1.0.254/24", "fd01::fe/64"]),
        (&there, "eth0", &["10.1.0.2/24", "fd01::2/64"]),
    );
    run(
        &mid,
        "sysctl",
        "-qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1",
    );
    for (ns, four, six, n) in [(&here, "10.1", "fd01", "0"), (&there, "10.0", "fd00", "1")] {
        run(
            ns,
            "ip",
            &format!("route add {four}.0.0/24 via 10.{n}.0.254"),
        );
        run(ns, "ip", &format!("-6 route add {six}::/64 via fd0{n}::fe"));
    }
    let conf = sessions(65001, 64512, "multihop; bfd on;")
        .replace("local 10.0.0.2", "local 10.1.0.2")
        .replace("local fd00::2", "local fd01::2");
    let bfd = "protocol bfd { multihop { interval 300 ms; multiplier 3; }; }\n";
    let _bird = Bird::start(&there, ID, &format!("{bfd}{conf}"));
    let ends = ["10.1.0.2", "fd01::2"];
    let ours = Ours::start(
        &here,
        settings(),
        with(65001, ends, watched(Bfd::default())),
    );
    ours.established(2);
    up(&ours, 2);
    assert!(paths(&ours).values().flatten().all(|r| !r.single_hop));
    dies_and_is_back(&ours, &mid);
}

/// FRR's zebra, bgpd and bfdd; they speak with each other through the first.
struct Frr {
    programs: Vec<Child>,
    dir: tempfile::TempDir,
    ns: NetNs,
}

impl Frr {
    fn start(ns: &NetNs, bgp: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ns = ns.try_clone().unwrap();
        let folder = dir.path().to_path_buf();
        let at = |name: &str| folder.join(name).display().to_string();
        // They give up being root.
        std::fs::set_permissions(&folder, Permissions::from_mode(0o777)).unwrap();
        std::fs::write(at("bgpd.conf"), bgp).unwrap();
        for name in ["zebra.conf", "bfdd.conf"] {
            std::fs::write(at(name), "").unwrap();
        }
        let start = |name: &str, more: &[&str]| {
            let log = std::fs::File::create(at(&format!("{name}.log"))).unwrap();
            let mut command = ns.command(format!("/usr/lib/frr/{name}")).unwrap();
            command.args(["-P", "0", "-z", &at("zserv")]);
            command.args(["-f", &at(&format!("{name}.conf"))]);
            command.args(["-i", &at(&format!("{name}.pid"))]);
            command.args(["--vty_socket", &at(".")]).args(more);
            command
                .stdin(Stdio::null())
                .stdout(log.try_clone().unwrap());
            command.stderr(log).spawn().unwrap()
        };
        let mut this = Self {
            programs: vec![start("zebra", &[])],
            dir,
            ns: ns.try_clone().unwrap(),
        };
        until(
            "zebra",
            || std::path::Path::new(&at("zserv")).exists(),
            |there| *there,
        );
        this.programs
            .push(start("bfdd", &["--bfdctl", &at("bfdctl")]));
        until(
            "bfdd",
            || std::path::Path::new(&at("bfdctl")).exists(),
            |there| *there,
        );
        this.programs.push(start("bgpd", &["-n"]));
        this
    }

    /// How many paths are up.
    fn up(&self) -> usize {
        let said = self.ask("show bfd peers brief json");
        said.matches("\"up\"").count()
    }

    fn ask(&self, command: &str) -> String {
        let dir = self.dir.path().display().to_string();
        let mut vtysh = self.ns.command("vtysh").unwrap();
        let out = vtysh.args(["--vty_socket", &dir, "-c", command]).output();
        String::from_utf8_lossy(&out.unwrap().stdout).into_owned()
    }
}

impl Drop for Frr {
    fn drop(&mut self) {
        for p in self.programs.iter_mut().rev() {
            let _ = p.kill();
            let _ = p.wait();
        }
        if std::thread::panicking() {
            for name in ["zebra", "bfdd", "bgpd"] {
                let log = std::fs::read_to_string(self.dir.path().join(format!("{name}.log")));
                eprintln!("{name}: {}", log.unwrap_or_default());
            }
        }
    }
}

/// FRR's side of both sessions.
fn frr_conf(more: &str) -> String {
    let each = |line: &str| {
        let both = ["10.0.0.1", "fd00::1"];
        both.map(|a| format!(" neighbor {a} {line}\n")).concat()
    };
    format!(
        "router bgp 65001\n bgp router-id 10.0.0.2\n no bgp ebgp-requires-policy\n \
         no bgp default ipv4-unicast\n{more}{}{}{} address-family ipv4 unicast\n  \
         neighbor 10.0.0.1 activate\n exit-address-family\n address-family ipv6 unicast\n  \
         neighbor fd00::1 activate\n exit-address-family\n",
        each("remote-as 64512"),
        each("timers connect 1"),
        each("bfd 3 300 300"),
    )
}

#[test]
fn frr_near_by_and_the_kernel_says_so() {
    let wire = Wire::new();
    let frr = Frr::start(&wire.there, &frr_conf(""));
    let mut all = world();
    for (name, at) in [("four", ENDS[0]), ("six", ENDS[1])] {
        all.push(peer_with(name, at, 65001, watched(Bfd::default())));
    }
    let kernel = Kernel {
        absent: Duration::ZERO,
        ..Kernel::default()
    };
    let ours = Ours::start(&wire.here, settings().with_kernel(kernel), all);
    ours.established(2);
    up(&ours, 2);
    assert!(paths(&ours).values().flatten().all(|r| r.single_hop));
    until("FRR's paths", || frr.up(), |n| *n == 2);
    dies_and_is_back(&ours, &wire.there);
    nobody_watches_any_more(&ours, || frr.up() == 0);
}

/// RFC 5882, section 4.3: FRR hears that our BFD shares our fate, and that it ends with us says nothing.
#[test]
fn frr_keeps_our_routes_while_we_restart() {
    let wire = Wire::new();
    let restart = " bgp graceful-restart\n bgp graceful-restart preserve-fw-state\n";
    let frr = Frr::start(&wire.there, &frr_conf(restart));
    let all = with(65001, ENDS, watched(Bfd::default()));
    let ours = Ours::start(&wire.here, settings(), all);
    ours.established(2);
    up(&ours, 2);
    until("FRR's paths", || frr.up(), |n| *n == 2);
    let routes = || {
        ["ipv4 unicast 172.16.1.0/26", "ipv6 unicast fd10::40/122"]
            .map(|what| frr.ask(&format!("show bgp {what} json")))
    };
    let told = |all: &[String; 2]| all.iter().all(|r| r.contains("\"nexthops\""));
    until("our routes", routes, told);
    drop(ours);
    until(
        "FRR's paths that are down, and our routes as those of before",
        || (frr.up(), routes()),
        |(up, all)| *up == 0 && all.iter().all(|r| r.contains("\"stale\":true")),
    );
}

/// What a far end is told to do.
enum Do {
    Ttl(u32),
    HoldDown(bool),
    Mute,
    End,
}

/// A far end of the test's own, near us, of the first family.
struct FarEnd {
    tell: Sender<Do>,
    heard: Arc<Mutex<Vec<Packet>>>,
    thread: Option<JoinHandle<()>>,
}

impl FarEnd {
    fn start(ns: &NetNs, ttl: u32) -> Self {
        let sockets = ns.run(|| {
            let to = UdpSocket::bind("10.0.0.2:3784").unwrap();
            (to, UdpSocket::bind("10.0.0.2:50000").unwrap())
        });
        let (incoming, outgoing) = sockets.unwrap();
        incoming.set_read_timeout(Some(10 * MS)).unwrap();
        outgoing.set_ttl(ttl).unwrap();
        let (tell, told) = channel();
        let heard: Arc<Mutex<Vec<Packet>>> = Arc::default();
        let notes = heard.clone();
        let thread = std::thread::spawn(move || far_end(&incoming, &outgoing, &told, &notes));
        Self {
            tell,
            heard,
            thread: Some(thread),
        }
    }

    fn last(&self) -> Option<Packet> {
        self.heard.lock().unwrap().last().copied()
    }

    fn does(&self, what: Do) {
        self.tell.send(what).unwrap();
    }
}

impl Drop for FarEnd {
    fn drop(&mut self) {
        let _ = self.tell.send(Do::End);
        if let Some(t) = self.thread.take() {
            let ended = t.join();
            assert!(ended.is_ok() || std::thread::panicking());
        }
    }
}

fn far_end(
    incoming: &UdpSocket,
    outgoing: &UdpSocket,
    told: &Receiver<Do>,
    heard: &Mutex<Vec<Packet>>,
) {
    let to: SocketAddr = "10.0.0.1:3784".parse().unwrap();
    let config = Config {
        min_tx: STEADY.min_tx,
        min_rx: STEADY.min_rx,
        multiplier: STEADY.multiplier,
        passive: false,
    };
    let mut session = Session::new(config, 77, Instant::now());
    let mut mute = false;
    let mut octets = [0; 64];
    loop {
        for what in told.try_iter() {
            match what {
                Do::Ttl(ttl) => outgoing.set_ttl(ttl).unwrap(),
                Do::HoldDown(down) => drop(session.hold_down(down, Instant::now(), 0)),
                Do::Mute => mute = true,
                Do::End => return,
            }
        }
        let mut out = Vec::new();
        if let Ok((n, from)) = incoming.recv_from(&mut octets) {
            assert_eq!(from.ip(), to.ip());
            assert!(from.port() >= 49152, "{from}");
            let packet = Packet::decode(&octets[..n]).unwrap();
            heard.lock().unwrap().push(packet);
            out.extend(session.received(&packet, Instant::now(), 0).answer);
        }
        let now = Instant::now();
        if session.deadline().is_some_and(|t| t <= now) {
            out.extend(session.tick(now, 0).packet);
        }
        for packet in out.iter().filter(|_| !mute) {
            // It may be cut off.
            let _ = outgoing.send_to(&packet.encode(), to);
        }
    }
}

/// BIRD speaks BGP, and BFD is the test's.
fn apart(ttl: u32) -> (Wire, Bird, FarEnd, Ours) {
    let wire = Wire::new();
    let bird = Bird::start(&wire.there, ID, &sessions(65001, 64512, ""));
    let far = FarEnd::start(&wire.there, ttl);
    let mut all = with(65001, ENDS, |_| {});
    all.push(peer_with("four", ENDS[0], 65001, watched(STEADY)));
    let ours = Ours::start(&wire.here, settings(), all);
    ours.established(2);
    (wire, bird, far, ours)
}

#[test]
fn what_comes_from_afar_is_not_heard_and_bgp_waits_for_nobody() {
    let (_wire, _bird, far, ours) = apart(254);
    // BGP is up without it.
    until("packets from afar", || dropped(&ours, "ttl"), |n| *n >= 3);
    assert_eq!(states(&ours), [State::Down]);
    let since = ours.since();
    far.does(Do::Ttl(255));
    up(&ours, 1);
    assert_eq!(ours.since(), since);
}

#[test]
fn what_an_operator_holds_down_leaves_bgp_alone() {
    let (_wire, _bird, far, ours) = apart(255);
    up(&ours, 1);
    let since = ours.since();
    far.does(Do::HoldDown(true));
    until("down here", || states(&ours), |s| *s == [State::Down]);
    let of = paths(&ours);
    let seen = of.values().flatten().next().unwrap();
    assert_eq!((seen.remote_state, seen.failures), (State::AdminDown, 0));
    far.does(Do::HoldDown(false));
    up(&ours, 1);
    // So does what is not watched any more, and we say so in time.
    ours.update(peer_with("four", ENDS[0], 65001, |_| {}));
    let told = until(
        "what it was told",
        || far.last(),
        |p| p.is_some_and(|p| p.state == State::AdminDown),
    );
    assert_eq!(told.map(|p| p.diagnostic), Some(Diagnostic::AdminDown));
    assert_eq!(states(&ours), []);
    assert_eq!(ours.since(), since);
    // And back.
    ours.update(peer_with("four", ENDS[0], 65001, watched(STEADY)));
    up(&ours, 1);
    assert_eq!(ours.since(), since);
}

#[test]
fn silence_alone_ends_the_session_of_its_own_path() {
    let (_wire, _bird, far, ours) = apart(255);
    let quick = Bfd {
        hops: Some(BfdHops::Single),
        ..STEADY
    };
    ours.update(peer_with("four", ENDS[0], 65001, watched(quick)));
    up(&ours, 1);
    let before: BTreeMap<_, _> = ours.since().into_iter().collect();
    let ended = ends_of(&ours);
    far.does(Do::Mute);
    let (name, _) = ended.recv_timeout(PATIENCE).unwrap();
    assert_eq!(name, "Global_10_0_0_2");
    // It comes back, although nobody watches with us; the other one has not noticed.
    ours.established(2);
    let after: BTreeMap<_, _> = ours.since().into_iter().collect();
    assert_eq!(after["Global_fd00__2"], before["Global_fd00__2"]);
    assert_ne!(after[&name], before[&name]);
}
