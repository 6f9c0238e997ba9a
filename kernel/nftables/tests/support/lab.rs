//! Two pods behind a router, and what goes between them.

use super::*;
use std::io::Read as _;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// A router with two pods behind `cali1` and `cali2`. The namespaces live as long as this.
pub struct Lab {
    pub router: NetNs,
    pub a: NetNs,
    pub b: NetNs,
}

/// Runs a script in the namespace.
pub fn sh(ns: &NetNs, script: &str) {
    let out = ns
        .command("sh")
        .unwrap()
        .args(["-ec", script])
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "{script}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
}

impl Lab {
    pub fn new() -> Self {
        let lab = Self {
            router: NetNs::new().unwrap(),
            a: NetNs::new().unwrap(),
            b: NetNs::new().unwrap(),
        };
        // No path of a namespace: it is handed over as a file descriptor of this process.
        let inodes = std::process::id();
        // A link-local address that is still being checked answers for nobody.
        for ns in [&lab.router, &lab.a, &lab.b] {
            sh(ns, "echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad");
        }
        for (n, ns) in [(1, &lab.a), (2, &lab.b)] {
            use std::os::fd::{AsFd, AsRawFd};
            let fd = ns.as_fd().as_raw_fd();
            sh(
                &lab.router,
                &format!(
                    "ip link add cali{n} type veth peer name eth0 netns /proc/{inodes}/fd/{fd}
                 ip addr add 10.0.{n}.254/24 dev cali{n}
                 ip addr add fd00:{n}::fe/64 dev cali{n} nodad
                 ip link set cali{n} up"
                ),
            );
            sh(
                ns,
                &format!(
                    "ip link set lo up; ip link set eth0 up
                 ip addr add 10.0.{n}.1/24 dev eth0
                 ip addr add fd00:{n}::1/64 dev eth0 nodad
                 ip route add default via 10.0.{n}.254
                 ip route add default via fd00:{n}::fe"
                ),
            );
        }
        sh(
            &lab.router,
            "ip link set lo up
            echo 1 > /proc/sys/net/ipv4/ip_forward
            echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
            for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 > $f; done",
        );
        lab
    }

    pub fn program(&self, table: &mut Table) {
        let table = &mut *table;
        self.router
            .run(move || Sys::open(table_name()).unwrap().sync(table).unwrap())
            .unwrap();
    }

    /// Packets counted by each rule of a chain.
    pub fn counts(&self, name: &str) -> Vec<u64> {
        rules(&self.router, name)
            .iter()
            .filter_map(|r| {
                r.split("counter packets ")
                    .nth(1)?
                    .split(' ')
                    .next()?
                    .parse()
                    .ok()
            })
            .collect()
    }

    pub fn wait_for(&self, what: &str, mut ok: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(5);
        while !ok(self) {
            assert!(
                Instant::now() < deadline,
                "never: {what}\n{}",
                listing(&self.router)
            );
            std::thread::yield_now();
        }
    }
}

/// A server in the namespace.
pub fn serve(ns: &NetNs, addr: &str) -> (TcpListener, SocketAddr) {
    let addr: SocketAddr = addr.parse().unwrap();
    (ns.run(|| TcpListener::bind(addr).unwrap()).unwrap(), addr)
}

/// One connection with an answer; the peer as the server saw it.
pub fn exchange(client: &NetNs, (server, addr): &(TcpListener, SocketAddr)) -> Option<IpAddr> {
    let limit = Duration::from_millis(300);
    let mut c = client
        .run(|| TcpStream::connect_timeout(addr, limit).ok())
        .unwrap()?;
    let (mut s, peer) = server.accept().unwrap();
    c.write_all(b"?").unwrap();
    let mut b = [0];
    s.read_exact(&mut b).unwrap();
    s.write_all(b"!").unwrap();
    c.read_exact(&mut b).unwrap();
    Some(peer.ip())
}
