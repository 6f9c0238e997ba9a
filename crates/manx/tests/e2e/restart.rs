//! The agent is not in the data path.

use crate::probe::*;
use crate::support::*;
use serde_json::json;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// Longer than any packet takes, shorter than the test.
const LOST: Duration = Duration::from_secs(5);

/// What the traffic did so far.
#[derive(Default)]
struct Flows {
    stop: AtomicBool,
    kept: AtomicUsize,
    fresh: AtomicUsize,
    stream: AtomicUsize,
    forbidden: AtomicUsize,
}

impl Flows {
    fn going(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn count(&self) -> [usize; 4] {
        [&self.kept, &self.fresh, &self.stream, &self.forbidden].map(|c| c.load(Ordering::Relaxed))
    }

    /// Waits until every flow has gone on for a while.
    #[track_caller]
    fn go_on(&self, what: &str) {
        let before = self.count();
        until(what, || {
            let all = self.count().into_iter().zip(before);
            all.into_iter().all(|(now, then)| now >= then + 50) || !self.going()
        });
    }
}

/// Stops the flows when the test ends, however it ends.
struct Stop<'a>(&'a Flows);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

fn pair() -> (Cluster, Node, [Attached; 4]) {
    let cluster = Cluster::new();
    let node = cluster.started(1);
    serve_to(&cluster, "role in {'client'}");
    let pods = ["client", "server", "stranger", "late"]
        .map(|role| cluster.attached(&node, role, json!({"role": role})));
    (cluster, node, pods)
}

fn serve_to(cluster: &Cluster, clients: &str) {
    cluster.policy(
        "serve",
        json!({
            "selector": "role == 'server'",
            "ingress": [{"action": "Allow", "source": {"selector": clients}}],
        }),
    );
}

/// One exchange after the other over one socket, a thousand a second at most; returns on loss.
fn keep_asking(flows: &Flows, from: &Attached, to: SocketAddr) {
    let socket = udp(from.ns(), to);
    while flows.going() {
        let n = flows.kept.load(Ordering::Relaxed);
        assert!(
            exchange(&socket, &format!("kept {n}"), LOST),
            "lost: kept {n}"
        );
        flows.kept.fetch_add(1, Ordering::Relaxed);
        pause(Duration::from_millis(1));
    }
}

/// The same, each from a port of its own.
fn begin_anew(flows: &Flows, from: &Attached, to: SocketAddr) {
    while flows.going() {
        let n = flows.fresh.load(Ordering::Relaxed);
        let socket = udp(from.ns(), to);
        assert!(
            exchange(&socket, &format!("fresh {n}"), LOST),
            "lost: fresh {n}"
        );
        flows.fresh.fetch_add(1, Ordering::Relaxed);
        pause(Duration::from_millis(1));
    }
}

fn stream_on(flows: &Flows, from: &Attached, to: SocketAddr) {
    let mut stream = connect(from.ns(), to).expect("allowed");
    while flows.going() {
        assert!(says(&mut stream, "manx"), "the stream broke");
        flows.stream.fetch_add(1, Ordering::Relaxed);
        pause(Duration::from_millis(1));
    }
}

fn try_in_vain(flows: &Flows, from: &Attached, to: SocketAddr) {
    let kept = udp(from.ns(), to);
    while flows.going() {
        // Refusals count as answers that are none.
        let _ = kept.send(b"forbidden");
        let _ = udp(from.ns(), to).send(b"forbidden");
        flows.forbidden.fetch_add(1, Ordering::Relaxed);
        pause(Duration::from_millis(1));
    }
}

#[test]
fn traffic_does_not_notice() {
    let (cluster, mut node, [client, server, stranger, late]) = pair();
    let echo = Echo::start(server.ns(), 7000);
    echo_streams(server.ns(), 7001);
    let flows = Flows::default();
    std::thread::scope(|s| {
        let _stop = Stop(&flows);
        let threads = [
            s.spawn(|| keep_asking(&flows, &client, server.at(7000))),
            s.spawn(|| begin_anew(&flows, &client, server.at(7000))),
            s.spawn(|| stream_on(&flows, &client, server.at(7001))),
            s.spawn(|| try_in_vain(&flows, &stranger, server.at(7000))),
        ];
        flows.go_on("all flows begin");
        for _ in 0..3 {
            node.kill();
            flows.go_on("traffic without an agent");
            node.start();
            flows.go_on("traffic under a new agent");
        }
        let before = node.rules();
        assert!(node.stop().success(), "asked to stop: {}", node.log());
        assert!(!node.socket.exists(), "plugins are told the truth");
        assert_eq!(node.rules(), before, "what is programmed stays");
        flows.go_on("traffic after a clean stop");
        node.start();
        until("nothing is rewritten", || node.rules() == before);
        flows.go_on("traffic at last");
        drop(_stop);
        for t in threads {
            t.join().expect("no packet lost");
        }
    });
    assert!(!echo.saw("forbidden"), "something got through");

    // What changes while nobody looks takes effect at the start. On a port of its own: connections
    // that were allowed go on, and a new one may have the ports of an old.
    let other = Echo::start(server.ns(), 7002);
    is_shut(late.ns(), &node, server.at(7002), &other, "too early");
    node.kill();
    serve_to(&cluster, "role in {'late'}");
    is_shut(late.ns(), &node, server.at(7002), &other, "still shut");
    assert!(reaches(client.ns(), server.at(7002), "still open"));
    node.start();
    soon(late.ns(), server.at(7002), "the new policy is in force");
    is_shut(client.ns(), &node, server.at(7002), &other, "no longer");
    for p in [&client, &server, &stranger, &late] {
        node.del_pod(&p.container, &p.name).expect("detached");
    }
    cluster.nothing_left(&node);
}

/// A pod that went while there was no agent is taken out of the kernel at the start.
#[test]
fn what_went_meanwhile_is_cleared() {
    let (cluster, mut node, [client, server, stranger, late]) = pair();
    node.kill();
    cluster.delete(api::ResourceKind::Pod, "default", "late");
    run(&node.ns, &format!("ip link del {}", late.host_interface));
    node.start();
    until("its rules are gone", || {
        !node.pods_in_rules().contains(&late.host_interface)
    });
    node.del_pod(&late.container, "late").expect("detached");
    for p in [&client, &server, &stranger] {
        node.del_pod(&p.container, &p.name).expect("detached");
    }
    cluster.nothing_left(&node);
}
