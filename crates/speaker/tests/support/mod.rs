//! Speakers on one wire, in namespaces of their own: ours, what it is told, and BIRD.
//!
//! Promises: nothing outlives its value; what is waited for has a deadline, and what was seen last is
//! shown when it passes.
#![allow(unreachable_pub, reason = "a module of test programs")]
#![allow(dead_code, unused_imports, reason = "each test file uses some of it")]
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

pub mod bird;
pub mod program;

pub use bird::{Bird, sessions, statics};

use bgp::fsm::State;
use bgp::types::RouterId;
use model::{
    AllowedUses, BgpConfig, BgpPeer, BgpRemote, Block, Encap, IpPool, Labels, NextHopMode, Node,
    NodeAddress, Selector, Update,
};
use net::{Asn, Cidr};
use netlink::netns::NetNs;
use speaker::{Handle, Settings};
use std::fmt::Debug;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Whatever is waited for comes sooner than this on a machine that is busy.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Asks until there is an answer that will do.
#[track_caller]
pub fn until<T: Debug>(what: &str, mut ask: impl FnMut() -> T, enough: impl Fn(&T) -> bool) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let seen = ask();
        if enough(&seen) {
            return seen;
        }
        assert!(Instant::now() < deadline, "{what}: last seen: {seen:#?}");
        // Other programs are asked: there is no event to wait for but the next look.
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

pub fn cidr(text: &str) -> Cidr {
    text.parse().unwrap()
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Runs a program inside a namespace; its output.
#[track_caller]
pub fn run(ns: &NetNs, program: &str, args: &str) -> String {
    let mut command = ns.command(program).unwrap();
    let out = command.args(args.split_whitespace()).output().unwrap();
    assert!(
        out.status.success(),
        "{program} {args}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// Two namespaces and a wire: `10.0.0.1` and `fd00::1` here, `10.0.0.2` and `fd00::2` there.
pub struct Wire {
    pub here: NetNs,
    pub there: NetNs,
}

impl Wire {
    pub fn new() -> Self {
        let (here, there) = (NetNs::new().unwrap(), NetNs::new().unwrap());
        run(&here, "ip", "link set lo up");
        run(&there, "ip", "link set lo up");
        connect(
            (&here, "eth0", &["10.0.0.1/24", "fd00::1/64"]),
            (&there, "eth0", &["10.0.0.2/24", "fd00::2/64"]),
        );
        Self { here, there }
    }
}

/// One end of a wire: where, its name, its addresses.
pub type End<'a> = (&'a NetNs, &'a str, &'a [&'a str]);

/// A wire between two namespaces.
pub fn connect(one: End<'_>, other: End<'_>) {
    let mut veths = link::Handle::open_in(one.0).unwrap();
    let veth = link::Veth {
        here: link::VethEnd::named(one.1.parse().unwrap()),
        there: link::VethEnd::named(other.1.parse().unwrap()),
        queues: 1,
        up: false,
    };
    veths.create_veth(&veth, Some(other.0)).unwrap();
    for (ns, dev, addresses) in [one, other] {
        for a in addresses {
            let nodad = if a.contains(':') { "nodad" } else { "" };
            run(ns, "ip", &format!("addr add {a} dev {dev} {nodad}"));
        }
        run(ns, "ip", &format!("link set {dev} up"));
    }
}

/// Our speaker as node `a`, ended with its value, without a word.
pub struct Ours {
    pub handle: Handle,
    thread: Option<std::thread::JoinHandle<std::io::Result<()>>>,
}

impl Ours {
    /// With these resources.
    pub fn start(ns: &NetNs, settings: Settings, updates: Vec<Update>) -> Self {
        let (handle, thread) = ns.run(|| Handle::start(settings)).unwrap().unwrap();
        for u in updates {
            handle.update(u).unwrap();
        }
        handle.synced().unwrap();
        Self {
            handle,
            thread: Some(thread),
        }
    }

    /// Says who its peers are, and how far.
    pub fn states(&self) -> Vec<(String, State)> {
        let look = |v: &speaker::View<'_>| {
            let state = |id| v.router?.peer_status(id).map(|s| s.state);
            v.ids
                .iter()
                .filter_map(|(id, at)| Some((v.plan.peers[*at].name(), state(*id)?)))
                .collect()
        };
        self.handle.look(look).unwrap()
    }

    #[track_caller]
    pub fn established(&self, peers: usize) {
        until(
            "our sessions",
            || (self.states(), self.errors()),
            |(s, _)| {
                let up = s.iter().filter(|(_, s)| *s == State::Established);
                up.count() == peers
            },
        );
    }

    /// When each session came up, of those that are.
    pub fn since(&self) -> Vec<(String, Option<Instant>)> {
        let look = |v: &speaker::View<'_>| {
            let since = |id| v.router?.peer_status(id).map(|s| s.since);
            v.ids
                .iter()
                .filter_map(|(id, at)| Some((v.plan.peers[*at].name(), since(*id)?)))
                .collect()
        };
        self.handle.look(look).unwrap()
    }

    /// Why sessions ended last, and what stands in the way.
    pub fn errors(&self) -> Vec<String> {
        let look = |v: &speaker::View<'_>| {
            let mut out: Vec<String> = v.troubles.to_vec();
            out.extend(v.plan.faults.iter().cloned());
            let peers = v.router.into_iter().flat_map(bgp::router::Router::peers);
            out.extend(peers.filter_map(|p| p.last_error));
            out
        };
        self.handle.look(look).unwrap()
    }

    /// The best route to a prefix: next hops and the whole of its attributes as text.
    pub fn best(&self, prefix: &str) -> Option<String> {
        let prefix = cidr(prefix);
        let look = move |v: &speaker::View<'_>| {
            let best = v.router?.best(prefix)?;
            Some(format!("{best:?}"))
        };
        self.handle.look(look).unwrap()
    }

    #[track_caller]
    pub fn learns(&self, prefix: &str) {
        until("a route here", || self.best(prefix), Option::is_some);
    }

    #[track_caller]
    pub fn forgets(&self, prefix: &str) {
        until("no route here", || self.best(prefix), Option::is_none);
    }

    /// Hands in one resource more.
    pub fn update(&self, update: Update) {
        self.handle.update(update).unwrap();
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        let _ = self.handle.stop();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            if !std::thread::panicking() {
                ended.unwrap().unwrap();
            }
        }
    }
}

/// A speaker for node `a` without a kernel.
pub fn settings() -> Settings {
    Settings::new("a", RouterId(0x0a00_0001), 7)
}

pub fn node(v4: &str, v6: &str) -> Node {
    let at = |text: &str| {
        (!text.is_empty()).then(|| NodeAddress {
            addr: ip(text),
            subnet: Cidr::host(ip(text)),
        })
    };
    Node {
        ipv4: at(v4),
        ipv6: at(v6),
        labels: Labels::new(std::iter::empty::<(&str, &str)>()),
        ..Node::default()
    }
}

pub fn peer(name: &str, at: &str, asn: u32) -> Update {
    peer_with(name, at, asn, |_| {})
}

pub fn peer_with(name: &str, at: &str, asn: u32, change: impl FnOnce(&mut BgpPeer)) -> Update {
    let mut peer = BgpPeer {
        node: None,
        node_selector: None,
        remote: BgpRemote::Address {
            ip: ip(at),
            port: None,
            asn: Some(Asn(asn)),
        },
        local_asn: None,
        next_hop: NextHopMode::Auto,
        password: None,
        use_node_ip: true,
        restart: None,
        keepalive: None,
        allowed_local_as: None,
        ttl_security: None,
        reachable_by: None,
        filters: Vec::new(),
        reverse: true,
        bfd: None,
        add_path: model::AddPath::default(),
        max_prefixes: None,
    };
    change(&mut peer);
    Update::BgpPeer(name.into(), Some(peer))
}

pub fn block(text: &str, node: Option<&str>) -> Update {
    let range = cidr(text);
    let block = node.map(|n| Block {
        cidr: range,
        node: Some(n.into()),
        borrowed: Vec::new(),
    });
    Update::Block(range, block)
}

pub fn pool(name: &str, text: &str) -> Update {
    let range = cidr(text);
    let pool = IpPool {
        cidr: range,
        block_size: 26,
        vxlan: Encap::Never,
        ipip: Encap::Never,
        nat_outgoing: false,
        disabled: false,
        deleting: false,
        allocatable: true,
        disable_bgp_export: false,
        node_selector: Selector::parse("all()").unwrap(),
        namespace_selector: None,
        manual: false,
        uses: AllowedUses {
            workload: true,
            tunnel: true,
            load_balancer: false,
        },
    };
    Update::Pool(name.into(), Some(pool))
}

pub fn config(change: impl FnOnce(&mut BgpConfig)) -> Update {
    let mut config = BgpConfig {
        mesh: Some(false),
        ..BgpConfig::default()
    };
    change(&mut config);
    Update::BgpConfig("default".into(), Some(config))
}

/// Node `a` of AS 64512 with a block of each family, without a mesh.
pub fn world() -> Vec<Update> {
    vec![
        config(|_| {}),
        Update::Node("a".into(), Some(node("10.0.0.1", "fd00::1"))),
        pool("four", "172.16.0.0/16"),
        pool("six", "fd10::/64"),
        block("172.16.1.0/26", Some("a")),
        block("fd10::40/122", Some("a")),
    ]
}
