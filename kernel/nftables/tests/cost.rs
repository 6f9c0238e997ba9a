//! What changes cost at size. Prints microseconds; run by hand with
//! `cargo test --release -p nftables --test cost -- --ignored --nocapture`.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;
use nftables::*;
use std::time::Instant;
use support::*;

fn timed<T>(what: &str, f: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let out = f();
    println!("{:>9} us  {what}", start.elapsed().as_micros());
    out
}

fn policy_rule(i: usize) -> Rule {
    let ports = Match::Ports {
        side: Side::Destination,
        ports: ports(&[&(1000 + i).to_string()]),
        negate: false,
    };
    let peers = Match::AddrInSet {
        side: Side::Source,
        family: V4,
        set: set("peers"),
        negate: false,
    };
    rule(
        vec![peers, ports],
        vec![Statement::Counter],
        Some(Verdict::Accept),
    )
}

fn policy(rules: usize) -> Chain {
    Chain {
        base: None,
        rules: (0..rules).map(policy_rule).collect(),
    }
}

fn peers(n: u32) -> Vec<Element> {
    (0..n)
        .map(|i| Element::Addr(V4.addr(u128::from(0x0a00_0000 + i))))
        .collect()
}

fn go(jump: bool, to: String) -> Rule {
    let to = chain(&to);
    rule(
        vec![],
        vec![],
        Some(if jump {
            Verdict::Jump(to)
        } else {
            Verdict::Goto(to)
        }),
    )
}

/// Endpoints dispatched by a map, each jumping to `per` of `policies` chains.
fn cluster(endpoints: usize, policies: usize, per: usize, dispatches: usize) -> Ruleset {
    let mut r = Ruleset::new(table_name());
    r.sets.insert(
        set("peers"),
        Set {
            kind: SetKind::Addr(V4),
            elements: peers(10_000).into_iter().collect(),
        },
    );
    for p in 0..policies {
        r.chains.insert(chain(&format!("policy-{p}")), policy(5));
    }
    let mut map = std::collections::BTreeSet::new();
    for e in 0..endpoints {
        let mut rules: Vec<_> = (0..per)
            .map(|p| go(true, format!("policy-{}", (e * 7 + p) % policies)))
            .collect();
        rules.push(rule(vec![], vec![Statement::Counter], Some(Verdict::Drop)));
        r.chains
            .insert(chain(&format!("ep-{e}")), Chain { base: None, rules });
        map.insert(Element::IfNameVerdict(
            ifname(&format!("cali{e}")),
            Verdict::Goto(chain(&format!("ep-{e}"))),
        ));
    }
    r.sets.insert(
        set("dispatch"),
        Set {
            kind: SetKind::IfNameVerdict,
            elements: map,
        },
    );
    for (d, hook) in [Hook::Forward, Hook::Input, Hook::Output]
        .into_iter()
        .enumerate()
        .take(dispatches)
    {
        let key = if hook == Hook::Output {
            VMapKey::OifName
        } else {
            VMapKey::IifName
        };
        let vmap = Statement::VMap {
            key,
            map: set("dispatch"),
        };
        let rules = vec![rule(vec![], vec![vmap], None)];
        r.chains.insert(
            chain(&format!("base{d}")),
            Chain {
                base: Some(base(hook)),
                rules,
            },
        );
    }
    r
}

/// Endpoints that share the chain of their stack of policies, as replicas do.
fn shared(endpoints: usize, policies: usize, per: usize, stacks: usize) -> Ruleset {
    let mut r = cluster(stacks, policies, per, 3);
    let map = (0..endpoints).map(|e| {
        let to = chain(&format!("ep-{}", e % stacks));
        Element::IfNameVerdict(ifname(&format!("cali{e}")), Verdict::Goto(to))
    });
    let map = Set {
        kind: SetKind::IfNameVerdict,
        elements: map.collect(),
    };
    r.sets.insert(set("dispatch"), map);
    r
}

fn measure(name: &str, r: &Ruleset) {
    in_ns(|_| {
        println!("--- {name}: {} chains", r.chains.len());
        let mut sys = Sys::open(table_name()).unwrap();
        let mut table = Table::new(table_name());
        want(&mut table, r);
        let plan = timed("plan of everything", || table.plan());
        let receipt = timed("apply everything", || sys.apply(&plan).unwrap());
        timed("take note", || table.committed(&plan, &receipt).unwrap());
        let step = |table: &mut Table, sys: &mut Sys, what: &str| {
            let start = Instant::now();
            let plan = table.plan();
            let planned = start.elapsed().as_micros();
            let receipt = sys.apply(&plan).unwrap();
            let applied = start.elapsed().as_micros();
            table.committed(&plan, &receipt).unwrap();
            let all = start.elapsed().as_micros();
            assert!(table.plan().is_empty());
            println!(
                "{all:>9} us  {what} (plan {planned}, apply {}, note {})",
                applied - planned,
                all - applied
            );
        };
        for i in 0..3u128 {
            table
                .set_elems(&set("peers"), [Element::Addr(V4.addr(0x0b00_0000 + i))], [])
                .unwrap();
            step(&mut table, &mut sys, "one element added");
            let mut c = r.chains[&chain("policy-0")].clone();
            c.rules[2] = policy_rule(9000 + i as usize);
            table.set_chain(&chain("policy-0"), c);
            step(&mut table, &mut sys, "one rule replaced");
            let mut c = r.chains[&chain("policy-1")].clone();
            c.rules[2] = rule(
                vec![],
                vec![
                    Statement::Counter,
                    Statement::SetMark {
                        mask: 1 << i,
                        value: 0,
                    },
                ],
                None,
            );
            table.set_chain(&chain("policy-1"), c);
            step(
                &mut table,
                &mut sys,
                "one rule replaced by one without verdict or lookup",
            );
            let name = chain(&format!("new{i}"));
            table.set_chain(&name, policy(5));
            step(&mut table, &mut sys, "unused chain of 5 rules added");
            let e = Element::IfNameVerdict(ifname(&format!("calix{i}")), Verdict::Goto(name));
            table.set_elems(&set("dispatch"), [e.clone()], []).unwrap();
            step(&mut table, &mut sys, "endpoint put into the map");
            table.set_elems(&set("dispatch"), [], [e]).unwrap();
            step(&mut table, &mut sys, "endpoint taken out of the map");
        }
        let dump = timed("read everything", || sys.read().unwrap());
        timed("adopt it", || table.adopt(dump));
        assert!(table.plan().is_empty());
        timed("delete the table", || sys.delete_table().unwrap());
    });
}

#[test]
#[ignore = "prints figures, proves nothing"]
fn figures() {
    measure("1,000 chains x 5 rules, none used", &{
        let mut r = cluster(0, 1000, 0, 0);
        r.chains.insert(
            chain("base0"),
            Chain {
                base: Some(base(Hook::Forward)),
                rules: vec![],
            },
        );
        r
    });
    measure(
        "200 endpoints x 10 of 100 policies, 1 hook",
        &cluster(200, 100, 10, 1),
    );
    measure(
        "1,000 endpoints x 10 of 1,000 policies, 1 hook",
        &cluster(1000, 1000, 10, 1),
    );
    measure(
        "1,000 endpoints x 10 of 1,000 policies, 3 hooks",
        &cluster(1000, 1000, 10, 3),
    );
    measure(
        "1,000 endpoints of 50 stacks x 10 of 500 policies, 3 hooks",
        &shared(1000, 500, 10, 50),
    );
}
