//! Throughput and rates between pods, beside plain veth and routes; and with a thousand policies beside
//! none.
//!
//! Promises: the same topology, links, settings and MTU on both sides; short slices in turns, whose
//! order changes from round to round; the figure is the median of the rounds' own ratios.

use crate::Setting;
use crate::cluster::{Cluster, Pod, ifname};
use crate::objects;
use crate::plain::Plain;
use crate::report::{Row, Section};
use crate::say;
use crate::stats::{Samples, number};
use crate::traffic::{Ends, Kind, installed};
use anyhow::{Context, Result, ensure};
use api::ResourceKind;
use netlink::netns::NetNs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

const POLICIES: u16 = 1000;
const PORT: u16 = 5201;
const AIM_PLAIN: f64 = 0.97;
const AIM_POLICY: f64 = 0.95;
const PATIENCE: Duration = Duration::from_secs(20);

/// The three that take turns.
const SIDES: usize = 3;
const PLAIN: usize = 0;
const MANX: usize = 1;
const GUARDED: usize = 2;

struct World {
    cluster: Cluster,
    plain: Plain,
    client: Pod,
    /// On the client's node and on the other: without policy, and with all of them.
    free: [Pod; 2],
    guarded: [Pod; 2],
}

/// Measures.
///
/// # Errors
/// When a connection fails that should not.
pub(crate) fn run(setting: &Setting) -> Result<Section> {
    let world = build(setting)?;
    let mut out = Section::new("Between pods");
    out.note(
        "Peer of the first rows: the same links, routes and settings without any rule and without \
         connection tracking. Peer of the rows with policies: Manx without policy.",
    );
    let rounds = setting.rounds(16, 4);
    let time = Duration::from_millis(if setting.quick { 150 } else { 250 });
    for (hops, where_) in ["one node", "two nodes"].into_iter().enumerate() {
        for kind in Kind::ALL {
            let runs = turns(&world, hops, rounds, |ends| ends.slice(kind, time))?;
            rows(
                &mut out,
                &format!("{}, {where_}", kind.name()),
                kind.unit(),
                &runs,
                kind != Kind::Connect,
            );
        }
        say!("path: {where_} done");
    }
    if installed("iperf3") {
        for (hops, where_) in ["one node", "two nodes"].into_iter().enumerate() {
            let runs = turns(&world, hops, setting.rounds(4, 1), |ends| ends.iperf(1))?;
            rows(
                &mut out,
                &format!("iperf3, {where_}"),
                "Gbit/s",
                &runs,
                true,
            );
        }
    } else {
        out.note("iperf3 is not installed: not measured with it.");
    }
    out.note(format!(
        "With {POLICIES} policies: each lets another label in on another port; the one that lets the \
         client in is the last. An established connection is accepted before any of them; a new one \
         is looked up. Rows of connections have no aim: they show what a new one costs."
    ));
    drop(world.cluster);
    Ok(out)
}

fn build(setting: &Setting) -> Result<World> {
    let mut cluster = Cluster::start(&setting.manx, &setting.dir, 2)?;
    for n in 0..POLICIES {
        let (from, port) = match n {
            n if n + 1 == POLICIES => ("client".to_owned(), PORT),
            n => (format!("app-{n}"), 10_000 + n),
        };
        let name = format!("policy-{n:04}");
        let policy = objects::allow("default", &name, ("role", "guarded"), ("app", &from), port);
        cluster
            .store
            .put(ResourceKind::KubeNetworkPolicy, &policy)?;
    }
    let client = cluster.attach(0, "client", &[("app", "client")])?;
    let free = [
        cluster.attach(0, "near", &[("app", "server")])?,
        cluster.attach(1, "far", &[("app", "server")])?,
    ];
    let guarded = [
        cluster.attach(0, "near-guarded", &[("app", "server"), ("role", "guarded")])?,
        cluster.attach(1, "far-guarded", &[("app", "server"), ("role", "guarded")])?,
    ];
    let eth0 = link::Handle::open_in(&client.sandbox.ns)?.by_name(ifname("eth0"))?;
    let plain = Plain::new(eth0.context("the client has an eth0")?.mtu)?;
    for pod in free.iter().chain(&guarded) {
        reach(&client.sandbox.ns, &pod.sandbox.ns, pod.addr)?;
    }
    for pod in &plain.pods[1..] {
        reach(&plain.pods[0].sandbox.ns, &pod.sandbox.ns, pod.addr)?;
    }
    say!("path: clusters are up");
    Ok(World {
        cluster,
        plain,
        client,
        free,
        guarded,
    })
}

/// Waits until a connection comes through.
fn reach(client: &NetNs, server: &NetNs, addr: Ipv4Addr) -> Result<()> {
    let to = SocketAddr::from((addr, PORT));
    let _listener = server.run(|| TcpListener::bind(to))??;
    let began = Instant::now();
    loop {
        match client.run(|| TcpStream::connect_timeout(&to, Duration::from_millis(200)))? {
            Ok(_) => return Ok(()),
            Err(e) => ensure!(began.elapsed() < PATIENCE, "no way to {to}: {e}"),
        }
    }
}

/// Runs all sides in turns; the figures by side and round.
fn turns(
    world: &World,
    hops: usize,
    rounds: usize,
    measure: impl Fn(&Ends<'_>) -> Result<f64>,
) -> Result<[Vec<f64>; SIDES]> {
    let plain = &world.plain.pods;
    let pair = |client, server, addr| Ends {
        client,
        server,
        addr,
        port: PORT,
    };
    let to = |p: &Pod| (p.addr, hops);
    let ends = [
        pair(
            &plain[0].sandbox.ns,
            &plain[1 + hops].sandbox.ns,
            plain[1 + hops].addr,
        ),
        pair(
            &world.client.sandbox.ns,
            &world.free[hops].sandbox.ns,
            to(&world.free[hops]).0,
        ),
        pair(
            &world.client.sandbox.ns,
            &world.guarded[hops].sandbox.ns,
            to(&world.guarded[hops]).0,
        ),
    ];
    let mut runs: [Vec<f64>; SIDES] = Default::default();
    for round in 0..rounds {
        for turn in 0..SIDES {
            let side = if round % 2 == 0 {
                turn
            } else {
                SIDES - 1 - turn
            };
            runs[side].push(measure(&ends[side])?);
        }
    }
    Ok(runs)
}

fn rows(out: &mut Section, what: &str, unit: &'static str, runs: &[Vec<f64>; SIDES], aims: bool) {
    let pairs = [
        (what.to_owned(), MANX, PLAIN, AIM_PLAIN),
        (
            format!("{what}, {POLICIES} policies"),
            GUARDED,
            MANX,
            AIM_POLICY,
        ),
    ];
    for (what, ours, peer, least) in pairs {
        let ratios = Samples::new(
            runs[ours]
                .iter()
                .zip(&runs[peer])
                .map(|(a, b)| a / b)
                .collect(),
        );
        let (ours, peer) = (
            Samples::new(runs[ours].clone()),
            Samples::new(runs[peer].clone()),
        );
        let spread = |s: &Samples| {
            format!(
                "{} {unit} ({} / {})",
                number(s.median()),
                number(s.min()),
                number(s.max())
            )
        };
        let figure = ratios.median();
        out.rows.push(Row {
            what,
            aim: if aims {
                format!("at least {least} of the peer")
            } else {
                String::new()
            },
            ours: spread(&ours),
            peer: spread(&peer),
            figure,
            unit: "",
            met: aims.then_some(figure >= least),
        });
    }
}
