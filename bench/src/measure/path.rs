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

/// Those that take turns.
const SIDES: usize = 4;
const PLAIN: usize = 0;
const MANX: usize = 1;
const GUARDED: usize = 2;
/// Not a peer, but what any filter that knows connections costs here.
const FLOOR: usize = 3;
const FLOOR_RULES: &str = "table inet floor { chain forward { type filter hook forward priority 0; \
                           ct state established,related accept; }; }";

struct World {
    cluster: Cluster,
    plain: Plain,
    floor: Plain,
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
        "The peer is the same links, routes and settings without any rule and without connection \
         tracking; of the rows with policies it is Manx without policy. Rows of \"connection tracking \
         alone\" are the peer with one rule that accepts what is established, in the column of Manx: what any \
         filter costs here that knows connections. Spread is (min / max).",
    );
    let rounds = setting.rounds(16, 4);
    let time = Duration::from_millis(if setting.quick { 150 } else { 250 });
    for (hops, where_) in ["one node", "two nodes"].into_iter().enumerate() {
        for kind in Kind::ALL {
            let runs = turns(&sides(&world, hops), rounds, |ends| ends.slice(kind, time))?;
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
            let runs = turns(&sides(&world, hops), setting.rounds(4, 1), |ends| {
                ends.iperf(1)
            })?;
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
    let mtu = eth0.context("the client has an eth0")?.mtu;
    let plain = Plain::new("plain", mtu, None)?;
    let rules = std::env::var("FLOOR_FILE")
        .ok()
        .and_then(|f| std::fs::read_to_string(f).ok());
    let floor = Plain::new("floor", mtu, Some(rules.as_deref().unwrap_or(FLOOR_RULES)))?;
    for pod in free.iter().chain(&guarded) {
        reach(&client.sandbox.ns, &pod.sandbox.ns, pod.addr)?;
    }
    for world in [&plain, &floor] {
        for pod in &world.pods[1..] {
            reach(&world.pods[0].sandbox.ns, &pod.sandbox.ns, pod.addr)?;
        }
    }
    say!("path: clusters are up");
    Ok(World {
        cluster,
        plain,
        floor,
        client,
        free,
        guarded,
    })
}

/// Waits until a connection comes through.
pub(crate) fn reach(client: &NetNs, server: &NetNs, addr: Ipv4Addr) -> Result<()> {
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
///
/// # Errors
/// The first that `measure` gives.
pub(crate) fn turns(
    ends: &[Ends<'_>],
    rounds: usize,
    measure: impl Fn(&Ends<'_>) -> Result<f64>,
) -> Result<Vec<Vec<f64>>> {
    let mut runs = vec![Vec::with_capacity(rounds); ends.len()];
    for round in 0..rounds {
        for turn in 0..ends.len() {
            let side = if round % 2 == 0 {
                turn
            } else {
                ends.len() - 1 - turn
            };
            runs[side].push(measure(&ends[side])?);
        }
    }
    Ok(runs)
}

fn sides(world: &World, hops: usize) -> [Ends<'_>; SIDES] {
    let sides: [(&Pod, &Pod); SIDES] = [
        (&world.plain.pods[0], &world.plain.pods[1 + hops]),
        (&world.client, &world.free[hops]),
        (&world.client, &world.guarded[hops]),
        (&world.floor.pods[0], &world.floor.pods[1 + hops]),
    ];
    sides.map(|(client, server)| Ends {
        client: &client.sandbox.ns,
        server: &server.sandbox.ns,
        addr: server.addr,
        port: PORT,
    })
}

fn rows(out: &mut Section, what: &str, unit: &'static str, runs: &[Vec<f64>], aims: bool) {
    let row = |what: String, ours: usize, peer: usize, least: Option<f64>| {
        let pairs = runs[ours].iter().zip(&runs[peer]);
        let figure = Samples::new(pairs.map(|(a, b)| a / b).collect()).median();
        let spread = |side: usize| {
            let s = Samples::new(runs[side].clone());
            let [median, min, max] = [s.median(), s.min(), s.max()].map(number);
            format!("{median} {unit} ({min} / {max})")
        };
        Row {
            what,
            aim: least.map_or(String::new(), |l| format!("at least {l} of the peer")),
            ours: spread(ours),
            peer: spread(peer),
            figure,
            unit: "",
            met: least.map(|l| figure >= l),
        }
    };
    let aim = |least| aims.then_some(least);
    let policies = format!("{what}, {POLICIES} policies");
    out.rows
        .push(row(what.to_owned(), MANX, PLAIN, aim(AIM_PLAIN)));
    out.rows.push(row(
        format!("{what}: the peer with connection tracking alone"),
        FLOOR,
        PLAIN,
        None,
    ));
    out.rows.push(row(policies, GUARDED, MANX, aim(AIM_POLICY)));
}
