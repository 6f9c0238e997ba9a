//! Random networks through random trouble; afterwards every router holds what a plain
//! computation says.
//!
//! `BGP_SIM_SEED=n` runs one seed, `BGP_SIM_SEEDS=n` the first n.

use crate::model::{Link, Model};
use crate::net::{Net, Rng};
use crate::routes::own;
use bgp::peer::{AddPathSend, Restart};
use bgp::policy::{Condition, Operation, Policy, PrefixMatch, Term, Verdict};
use bgp::router::{Config, Restarting};
use bgp::types::PerFamily;
use bgp::{Asn, Cidr, Family};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

fn prefixes() -> Vec<Cidr> {
    let v4 = (0..6u128).map(|i| Family::V4.addr(10 << 24 | i << 16));
    let v6 = (0..3u128).map(|i| Family::V6.addr(0xfd01 << 112 | i << 64));
    let v4 = v4.map(|a| Cidr::new(a, 16).expect("fits"));
    v4.chain(v6.map(|a| Cidr::new(a, 64).expect("fits")))
        .collect()
}

/// One AS: its routers, and how they are joined.
fn inside(
    net: &mut Net,
    links: &mut BTreeMap<(usize, usize), Link>,
    asn: u32,
    seed: &mut Rng,
) -> Vec<usize> {
    let size = 1 + seed.below(4);
    let routers: Vec<usize> = (0..size).map(|_| net.router(asn)).collect();
    let reflected = size > 2 && seed.chance(50);
    for (i, &a) in routers.iter().enumerate() {
        for &b in &routers[..i] {
            // The first reflects for all others, which do not talk to each other.
            if reflected && b != routers[0] {
                continue;
            }
            join(net, links, (b, a), reflected, seed);
        }
    }
    routers
}

fn join(
    net: &mut Net,
    links: &mut BTreeMap<(usize, usize), Link>,
    (a, b): (usize, usize),
    client: bool,
    seed: &mut Rng,
) {
    let passive = match seed.below(4) {
        0 => Some(a),
        1 => Some(b),
        _ => None,
    };
    let restart = seed.chance(60);
    let long = seed.chance(50);
    let prepend = if seed.chance(20) {
        1 + seed.below(2)
    } else {
        0
    };
    let several = seed.chance(10) && client;
    let outside = net.nodes[a].router.config().asn != net.nodes[b].router.config().asn;
    let delay = seed.chance(10);
    let extended = seed.chance(30);
    net.peer(a, b, |n, p| {
        p.passive = passive == Some(n);
        p.client = client && n == a;
        p.extended_messages = extended;
        p.timers.hold = 9;
        if delay {
            p.timers.delay_open = Duration::from_millis(30);
        }
        p.restart = restart.then(|| Restart {
            time: Duration::from_secs(30),
            stale_time: Duration::from_secs(60),
            notification: long,
            long_lived: long.then_some(Duration::from_secs(40)),
        });
        if several {
            p.add_path_receive = n == b;
            p.add_path_send = if n == a {
                AddPathSend::Best(1)
            } else {
                AddPathSend::No
            };
        }
    });
    let prepend = if outside { prepend } else { 0 };
    let link = Link {
        client,
        prepend,
        ..Link::default()
    };
    links.insert((a, b), link);
    links.insert((b, a), Link::default());
    configure(net, (a, b), &links[&(a, b)]);
}

/// Gives a router the policies of a link.
fn configure(net: &mut Net, (a, b): (usize, usize), link: &Link) {
    let asn = net.nodes[a].router.config().asn;
    let id = net.peer_id(a, b);
    let mut config = net.nodes[a].router.peer_config(id).expect("there").clone();
    config.export = policy(link.hidden, vec![asn; link.prepend]);
    config.import = policy(link.unwanted, vec![]);
    net.with(a, |r, now| r.configure_peer(id, config, now));
}

fn policy(refuse: Option<Cidr>, prepend: Vec<Asn>) -> Arc<Policy> {
    let refuse = refuse.map(|p| Term {
        name: "refuse".into(),
        conditions: vec![Condition::Prefix(PrefixMatch::exactly(p))],
        operations: vec![],
        verdict: Some(Verdict::Reject),
    });
    let prepend = (!prepend.is_empty()).then(|| Term {
        name: "prepend".into(),
        conditions: vec![],
        operations: vec![Operation::Prepend(prepend)],
        verdict: None,
    });
    Arc::new(Policy {
        terms: refuse.into_iter().chain(prepend).collect(),
        default: Verdict::Accept,
    })
}

fn build(seed: u64) -> (Net, Model) {
    let mut rng = Rng(seed.wrapping_mul(77));
    let mut net = Net::new(seed);
    // Few prefixes: with small slices changes of the table are under way while others come.
    net.slice = [None, Some(1), Some(2), Some(5)][rng.below(4)];
    let mut links = BTreeMap::new();
    let ases = 1 + rng.below(4) as u32;
    let mut all: Vec<Vec<usize>> = Vec::new();
    for asn in 1..=ases {
        let routers = inside(&mut net, &mut links, asn, &mut rng);
        if let Some(before) = all.last() {
            // A chain, so that everybody hears of everything, and some more.
            let a = before[rng.below(before.len())];
            let b = routers[rng.below(routers.len())];
            join(&mut net, &mut links, (a, b), false, &mut rng);
            let far = &all[rng.below(all.len())];
            let a = far[rng.below(far.len())];
            let b = routers[rng.below(routers.len())];
            if !links.contains_key(&(a, b)) && rng.chance(60) {
                join(&mut net, &mut links, (a, b), false, &mut rng);
            }
        }
        all.push(routers);
    }
    let model = Model {
        asn: net.nodes.iter().map(|n| n.router.config().asn.0).collect(),
        id: net
            .nodes
            .iter()
            .map(|n| n.router.config().router_id.0)
            .collect(),
        addr: net.nodes.iter().map(|n| n.addr).collect(),
        own: vec![BTreeMap::new(); net.nodes.len()],
        links,
    };
    (net, model)
}

fn trouble(net: &mut Net, model: &mut Model, rng: &mut Rng, prefixes: &[Cidr]) {
    let n = rng.below(net.nodes.len());
    let links: Vec<_> = model.links.keys().copied().collect();
    match rng.below(15) {
        0..=3 => {
            let p = prefixes[rng.below(prefixes.len())];
            let med = rng.below(3) as u32;
            let mut route = own(p);
            route.attributes.med = (med > 0).then_some(med);
            model.own[n].insert(p, med);
            if !net.nodes[n].dead {
                net.with(n, |r, _| r.announce(p, route));
            }
        }
        4 | 5 => {
            let p = prefixes[rng.below(prefixes.len())];
            model.own[n].remove(&p);
            if !net.nodes[n].dead {
                net.with(n, |r, _| r.withdraw(p));
            }
        }
        6 if !links.is_empty() => {
            let (a, b) = links[rng.below(links.len())];
            for end in net.connections(a, b) {
                net.cut(end);
            }
        }
        7 if !links.is_empty() => {
            let (a, b) = links[rng.below(links.len())];
            for end in net.connections(a, b) {
                net.silence(end);
            }
            if rng.chance(50) {
                net.down.insert((a.min(b), a.max(b)));
            }
        }
        8 if !links.is_empty() && !net.nodes[n].dead => {
            let (a, b) = links[rng.below(links.len())];
            let id = net.peer_id(a, b);
            if !net.nodes[a].dead {
                let family = Family::BOTH[rng.below(2)];
                net.with(a, |r, now| r.request_refresh(id, family, now));
            }
        }
        9 if !links.is_empty() => {
            let (a, b) = links[rng.below(links.len())];
            let id = net.peer_id(a, b);
            if !net.nodes[a].dead {
                net.with(a, |r, now| r.reset_peer(id, "again", now));
            }
        }
        10 => net.down.clear(),
        11 if rng.chance(40) => restart(net, model, n, rng),
        12 | 13 if !links.is_empty() => {
            let (a, b) = links[rng.below(links.len())];
            let mut pick = || rng.chance(50).then(|| prefixes[rng.below(prefixes.len())]);
            let (hidden, unwanted) = (pick(), pick());
            if !net.nodes[a].dead {
                let link = model.links.get_mut(&(a, b)).expect("a link");
                link.hidden = hidden;
                link.unwanted = unwanted;
                configure(net, (a, b), &link.clone());
            }
        }
        14 if !links.is_empty() => {
            let (a, b) = links[rng.below(links.len())];
            let id = net.peer_id(a, b);
            if !net.nodes[a].dead {
                let old = net.nodes[a].router.peer_config(id).expect("there").clone();
                let mut config = old.clone();
                config.shutdown = Some("maintenance".into());
                net.with(a, |r, now| r.configure_peer(id, config, now));
                net.run(Duration::from_millis(rng.below(3000) as u64));
                net.with(a, |r, now| r.configure_peer(id, old, now));
            }
        }
        _ => {}
    }
}

/// A router dies and comes back, knowing nothing but its configuration.
fn restart(net: &mut Net, model: &Model, n: usize, rng: &mut Rng) {
    if net.nodes[n].dead {
        return;
    }
    let kept = rng.chance(60);
    net.kill(n);
    let away = Duration::from_millis(rng.below(50_000) as u64);
    net.run(away);
    let old = net.nodes[n].router.config().clone();
    let restarting = kept.then(|| Restarting {
        forwarding: PerFamily { v4: true, v6: true },
        kept: PerFamily { v4: true, v6: true },
        deferral: Duration::from_secs(20),
        absent: Duration::from_secs(8),
    });
    // What of the kernel's routes is not told again is swept by who owns them.
    net.nodes[n].kernel.clear();
    net.revive(n, Config { restarting, ..old });
    for (&p, &med) in &model.own[n] {
        let mut route = own(p);
        route.attributes.med = (med > 0).then_some(med);
        net.with(n, |r, _| r.announce(p, route));
    }
}

fn one(seed: u64) {
    let (mut net, mut model) = build(seed);
    let mut rng = Rng(seed ^ 0x5eed);
    let prefixes = prefixes();
    for _ in 0..30 {
        trouble(&mut net, &mut model, &mut rng, &prefixes);
        let pause = [1, 50, 2000, 15_000][rng.below(4)];
        net.run(Duration::from_millis(rng.below(pause) as u64));
    }
    net.down.clear();
    // A connection that falls silent before OPEN costs the large hold time.
    net.until(Duration::from_secs(600), "sessions come back", Net::all_up);
    // Stale routes and refreshes are over by then, whatever was lost.
    net.run(Duration::from_secs(150));
    assert!(net.all_up(), "seed {seed}: sessions stay up");
    model.check(&net, &prefixes, &format!("seed {seed}"));
    // Nobody remembers prefixes that are gone.
    for (n, node) in net.nodes.iter().enumerate() {
        let size = node.router.size();
        assert_eq!(size.known, size.prefixes, "seed {seed}: router {n} forgets");
    }
}

#[test]
fn after_the_storm_everybody_holds_what_he_must() {
    let number = |name: &str| std::env::var(name).ok().and_then(|s| s.parse::<u64>().ok());
    if let Some(seed) = number("BGP_SIM_SEED") {
        return one(seed);
    }
    for seed in 0..number("BGP_SIM_SEEDS").unwrap_or(300) {
        let caught = std::panic::catch_unwind(|| one(seed));
        if let Err(e) = caught {
            eprintln!("BGP_SIM_SEED={seed} replays this");
            std::panic::resume_unwind(e);
        }
    }
}

/// Two reflectors that share no cluster, and hundreds of clients of both.
#[test]
fn hundreds_of_clients_and_a_reflector_that_dies() {
    const CLIENTS: usize = 200;
    let mut net = Net::new(1);
    net.chop = false;
    let mut rng = Rng(2);
    let mut links = BTreeMap::new();
    let reflectors = [net.router(1), net.router(1)];
    let link = |client| Link {
        client,
        ..Link::default()
    };
    let mut session = |net: &mut Net, a: usize, b: usize, client: bool| {
        net.peer(a, b, |n, p| {
            p.client = client && n == a;
            p.passive = n == a;
        });
        links.insert((a, b), link(client));
        links.insert((b, a), link(false));
    };
    session(&mut net, reflectors[0], reflectors[1], false);
    let mut own_routes = vec![BTreeMap::new(); CLIENTS + 2];
    let mut all = Vec::new();
    for i in 0..CLIENTS as u128 {
        let n = net.router(1);
        for r in reflectors {
            session(&mut net, r, n, true);
        }
        let addr = Family::V4.addr(10 << 24 | i << 8);
        let p = Cidr::new(addr, 24).expect("fits");
        own_routes[n].insert(p, 0);
        all.push((n, p));
    }
    for &(n, p) in &all {
        net.with(n, |r, _| r.announce(p, own(p)));
    }
    let model = Model {
        asn: vec![1; CLIENTS + 2],
        id: net
            .nodes
            .iter()
            .map(|n| n.router.config().router_id.0)
            .collect(),
        addr: net.nodes.iter().map(|n| n.addr).collect(),
        own: own_routes,
        links,
    };
    let some: Vec<Cidr> = (0..5).map(|_| all[rng.below(CLIENTS)].1).collect();
    net.until(Duration::from_secs(60), "up", Net::all_up);
    net.run(Duration::from_secs(1));
    model.check(&net, &some, "at first");
    let config = net.nodes[0].router.config().clone();
    net.kill(reflectors[0]);
    net.nodes[0].kernel.clear();
    net.run(Duration::from_secs(30));
    let reached = |net: &Net| {
        all.iter()
            .all(|(_, p)| net.nodes[2].router.best(*p).is_some())
    };
    assert!(reached(&net), "the other reflector serves them all");
    net.revive(reflectors[0], config);
    net.until(Duration::from_secs(60), "up again", Net::all_up);
    net.run(Duration::from_secs(1));
    model.check(&net, &some, "after the reflector's death");
    // Each family has one group for clients and one for the other reflector.
    assert!(net.nodes[0].router.size().groups <= 4);
}
