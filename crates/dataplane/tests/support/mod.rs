//! A node and its pods as network namespaces, with real packets.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

#[path = "../../../render/tests/support/mod.rs"]
pub mod state;

use dataplane::{Dataplane, Handle, Options, Report, State};
use desired::Desired;
use link::{Address, Changes, Veth, VethEnd};
use model::WorkloadKey;
use net::{Cidr, Family, IfName};
use netlink::netns::NetNs;
use route::{Hop, Proto, Route, Table};
use state::{delta, iface};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub const PORT: u16 = 8080;
pub const OTHER_PORT: u16 = 9090;

/// How long anything may take at most.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// Between two questions.
#[expect(
    clippy::disallowed_methods,
    reason = "nothing tells a prober that a packet would pass"
)]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Asks until it holds.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < end, "in time: {what}");
        pause(Duration::from_millis(2));
    }
}

/// The output of a program inside a namespace.
#[track_caller]
pub fn output(ns: &NetNs, program: &str, args: &[&str]) -> String {
    let out = ns
        .command(program)
        .expect("namespace")
        .args(args)
        .output()
        .expect("it runs");
    assert!(
        out.status.success(),
        "{program} {args:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// A running dataplane, ended on drop.
pub struct Running {
    pub handle: Handle,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.handle.stop();
        if let Some(t) = self.thread.take() {
            t.join().expect("the loop ends well");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.handle.stop();
        if let Some(t) = self.thread.take() {
            let _ = t.join();
        }
    }
}

pub struct Node {
    pub ns: NetNs,
    pub state: Desired,
    pub running: Option<Running>,
    grace: Duration,
    /// Whether transactions fail now and then.
    pub faulty: Arc<AtomicBool>,
    /// How often they did.
    pub failed: Arc<AtomicUsize>,
}

/// What goes wrong with one transaction of a few.
fn faults(
    on: Arc<AtomicBool>,
    failed: Arc<AtomicUsize>,
) -> impl FnMut(&nftables::Plan) -> Option<nftables::Fault> + Send {
    use nftables::Fault;
    let mut n: usize = 0;
    move |plan| {
        n += 1;
        if !on.load(Ordering::Relaxed) || !n.is_multiple_of(2) {
            return None;
        }
        failed.fetch_add(1, Ordering::Relaxed);
        let errno = netlink::Errno::ENOMEM;
        let at = n.wrapping_mul(7919) % plan.ops.len().max(1);
        Some(match n / 2 % 5 {
            0 | 1 => Fault::Refuse {
                index: Some(at),
                errno,
            },
            2 => Fault::Refuse { index: None, errno },
            3 => Fault::LoseAnswer,
            _ => Fault::LoseNotices,
        })
    }
}

impl Node {
    pub fn new(state: Desired) -> Self {
        Self::numbered(1, state)
    }

    /// With the addresses 192.0.2.n and 2001:db8::n on its bridge `uplink`.
    pub fn numbered(n: u8, state: Desired) -> Self {
        let ns = NetNs::new().expect("root");
        let mut links = link::Handle::open_in(&ns).expect("socket");
        let lo = links.by_name(iface("lo")).expect("links").expect("lo");
        links.set_up(lo.index, true).expect("up");
        // A way out: the kernel answers for the pods' gateway only where it has a route.
        links
            .create_bridge(&VethEnd::named(iface("uplink")))
            .expect("a bridge");
        let uplink = links.index_of(iface("uplink")).expect("it");
        let address = |a: String, len| Address::subnet(a.parse().expect("an address"), len);
        let addresses = [
            address(format!("192.0.2.{n}"), 24),
            address(format!("2001:db8::{n}"), 64),
        ];
        let up = Changes {
            up: Some(true),
            addresses: &addresses,
            ..Changes::default()
        };
        links.change(uplink, &up).expect("set up");
        output(
            &ns,
            "ip",
            &["route", "add", "default", "via", "192.0.2.254"],
        );
        let mut node = Self {
            ns,
            state: Desired::default(),
            running: None,
            grace: Duration::from_secs(10),
            faulty: Arc::default(),
            failed: Arc::default(),
        };
        node.start();
        node.set(state);
        node.handle().in_sync().expect("it runs");
        node
    }

    /// One segment with another node.
    pub fn join(&self, other: &Self) {
        let mut here = link::Handle::open_in(&self.ns).expect("socket");
        let mut there = link::Handle::open_in(&other.ns).expect("socket");
        let veth = Veth {
            here: VethEnd::named(iface("wire")),
            there: VethEnd::named(iface("wire")),
            queues: 1,
            up: false,
        };
        here.create_veth(&veth, Some(&other.ns))
            .expect("a veth pair");
        for links in [&mut here, &mut there] {
            let wire = links.index_of(iface("wire")).expect("it");
            let bridge = links.index_of(iface("uplink")).expect("it");
            links.set_master(wire, Some(bridge)).expect("bridged");
            links.set_up(wire, true).expect("up");
        }
    }

    pub fn with_grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    pub fn handle(&self) -> &Handle {
        &self.running.as_ref().expect("it runs").handle
    }

    /// Starts the loop; hands nothing in.
    pub fn start(&mut self) {
        let options = Options {
            netns: Some(self.ns.try_clone().expect("a descriptor")),
            route_grace: self.grace,
            ..Options::default()
        };
        let mut dataplane = Dataplane::new(options).expect("a namespace");
        dataplane.inject(faults(self.faulty.clone(), self.failed.clone()));
        let handle = dataplane.handle();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime
                .block_on(dataplane.run())
                .expect("the loop ends well");
        });
        self.running = Some(Running {
            handle,
            thread: Some(thread),
        });
    }

    /// Ends the loop and begins another, that is given the same state.
    pub fn restart(&mut self) {
        self.running.take().expect("it runs").stop();
        self.start();
        self.handle()
            .apply(delta(&Desired::default(), &self.state))
            .expect("it runs");
        self.handle().in_sync().expect("it runs");
    }

    /// Goes to another state.
    pub fn set(&mut self, state: Desired) {
        let step = delta(&self.state, &state);
        self.state = state;
        self.handle().apply(step).expect("it runs");
    }

    pub fn change(&mut self, f: impl FnOnce(&mut Desired)) {
        let mut state = self.state.clone();
        f(&mut state);
        self.set(state);
    }

    #[track_caller]
    pub fn wait(&self, key: &WorkloadKey, what: &str, holds: impl Fn(Option<&Report>) -> bool) {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        let handle = self.handle().clone();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        if let Err(e) = runtime.block_on(handle.wait_for(key, deadline, holds)) {
            panic!("{what}: {e}");
        }
    }

    #[track_caller]
    pub fn programmed(&self, key: &WorkloadKey) {
        self.wait(key, "programmed", |r| {
            r.is_some_and(|r| r.state == State::Programmed)
        });
    }

    #[track_caller]
    pub fn removed(&self, key: &WorkloadKey) {
        self.wait(key, "removed", |r| r.is_none());
    }

    pub fn nft(&self, args: &[&str]) -> String {
        output(&self.ns, "nft", args)
    }

    pub fn ip(&self, args: &[&str]) -> String {
        output(&self.ns, "ip", args)
    }

    /// The rules without their counters, with their handles.
    pub fn rules(&self) -> String {
        let text = self.nft(&["-a", "-s", "list", "table", "inet", "manx"]);
        // Elements of hashed sets come in any order.
        let mut lines: Vec<&str> = text.lines().filter(|l| !l.contains("elements")).collect();
        lines.retain(|l| !l.contains(": jump"));
        lines.join("\n")
    }
}

pub struct Pod {
    pub ns: NetNs,
    pub interface: IfName,
    pub addresses: Vec<IpAddr>,
}

impl Pod {
    /// A namespace tied to the node as the CNI plugin would do it, without routes on the
    /// node's side: those are the dataplane's.
    pub fn new(node: &Node, interface: &str, addresses: &[&str]) -> Self {
        let ns = NetNs::new().expect("root");
        let pod = Self {
            ns,
            interface: iface(interface),
            addresses: addresses
                .iter()
                .map(|a| a.parse().expect("an address"))
                .collect(),
        };
        pod.serve();
        pod.plug(node);
        pod
    }

    /// Makes the link.
    pub fn plug(&self, node: &Node) {
        let mut links = link::Handle::open_in(&node.ns).expect("socket");
        let mac = |s: &str| Some(s.parse().expect("a MAC"));
        let veth = Veth {
            here: VethEnd {
                name: self.interface,
                mac: mac("ee:ee:ee:ee:ee:ee"),
                mtu: None,
            },
            there: VethEnd {
                name: iface("eth0"),
                mac: mac("02:00:00:00:00:01"),
                mtu: None,
            },
            queues: 1,
            up: false,
        };
        links
            .create_veth(&veth, Some(&self.ns))
            .expect("a veth pair");
        let quick = link::host_end_sysctls(self.interface, Family::V6);
        node.ns
            .run(move || link::sysctl::write(&quick))
            .expect("enter")
            .expect("sysctls");
        let mut inside = link::Handle::open_in(&self.ns).expect("socket");
        let eth0 = inside.index_of(iface("eth0")).expect("eth0");
        let quick = link::pod_end_sysctls(iface("eth0"), Family::V6, false);
        self.ns
            .run(move || link::sysctl::write(&quick))
            .expect("enter")
            .expect("sysctls");
        let addresses: Vec<Address> = self.addresses.iter().map(|a| Address::host(*a)).collect();
        let change = Changes {
            up: Some(true),
            addresses: &addresses,
            ..Changes::default()
        };
        inside.change(eth0, &change).expect("set up");
        let index = links.index_of(self.interface).expect("host end");
        links.set_up(index, true).expect("up");
        let mut routes = route::Handle::open_in(&self.ns).expect("socket");
        let gateway: IpAddr = "169.254.1.1".parse().expect("an address");
        let dst = Cidr::host(gateway);
        let r = Route::unicast(Table::MAIN, dst, Hop::dev(eth0), Proto::BOOT);
        routes.install(&r, true).expect("a route");
        let any = Cidr::any(Family::V4);
        let r = Route::unicast(Table::MAIN, any, Hop::via(gateway, eth0), Proto::BOOT);
        routes.install(&r, true).expect("a route");
        let gateway: IpAddr = "fe80::ecee:eeff:feee:eeee".parse().expect("an address");
        let any = Cidr::any(Family::V6);
        let r = Route::unicast(Table::MAIN, any, Hop::via(gateway, eth0), Proto::BOOT);
        routes.install(&r, true).expect("a route");
    }

    /// Echoes on two ports, of both families, for as long as the test lives.
    fn serve(&self) {
        for port in [PORT, OTHER_PORT] {
            let listener = self
                .ns
                .run(move || TcpListener::bind(("::", port)))
                .expect("enter")
                .expect("listen");
            std::thread::spawn(move || {
                for s in listener.incoming() {
                    let Ok(mut s) = s else { return };
                    std::thread::spawn(move || {
                        let mut buffer = [0; 512];
                        while let Ok(n) = s.read(&mut buffer) {
                            if n == 0 || s.write_all(&buffer[..n]).is_err() {
                                return;
                            }
                        }
                    });
                }
            });
        }
    }

    /// A connection that has said one word both ways.
    pub fn connect(&self, to: IpAddr, port: u16) -> Option<TcpStream> {
        connect(&self.ns, to, port)
    }

    /// A connection that is allowed, once neighbours are found and the machine has time.
    #[track_caller]
    pub fn patient(&self, to: IpAddr, port: u16) -> TcpStream {
        let mut held = None;
        until(&format!("a connection to {to}"), || {
            held = self.connect(to, port);
            held.is_some()
        });
        held.expect("just found")
    }

    /// Whether TCP gets through, at once.
    pub fn reaches(&self, to: IpAddr, port: u16) -> bool {
        self.connect(to, port).is_some()
    }

    #[track_caller]
    pub fn ping(&self, to: IpAddr) -> bool {
        ping(&self.ns, to)
    }
}

pub fn connect(ns: &NetNs, to: IpAddr, port: u16) -> Option<TcpStream> {
    let addr = SocketAddr::new(to, port);
    let open = move || TcpStream::connect_timeout(&addr, Duration::from_millis(300));
    let mut s = ns.run(open).expect("enter").ok()?;
    echo(&mut s).then_some(s)
}

pub fn ping(ns: &NetNs, to: IpAddr) -> bool {
    let mut ping: Command = ns.command("ping").expect("namespace");
    let out = ping
        .args(["-c1", "-W1", "-n", &to.to_string()])
        .output()
        .expect("ping");
    out.status.success()
}

/// One word there and back.
pub fn echo(s: &mut TcpStream) -> bool {
    s.set_read_timeout(Some(Duration::from_millis(500)))
        .expect("a socket");
    let mut buffer = [0; 4];
    s.write_all(b"manx").is_ok() && s.read_exact(&mut buffer).is_ok() && &buffer == b"manx"
}
