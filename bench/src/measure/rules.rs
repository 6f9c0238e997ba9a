//! The ruleset at scale: 2,000 sets of 100 members, 2,000 chains of 10 rules, all of them reached.
//!
//! Promises: both sides program the same ruleset from nothing, in turns, each into a new namespace; the
//! peer's text is on disk before its clock starts.

use crate::Setting;
use crate::measure::{limit_row, ratio_row};
use crate::report::Section;
use crate::say;
use crate::stats::Samples;
use anyhow::{Context, Result, bail, ensure};
use net::{Cidr, Family, IfName, PortRange, Protocol};
use netlink::netns::NetNs;
use nftables::{
    Base, Chain, ChainName, Element, Hook, Kind, Match, Policy, PortList, Rule, Ruleset, Set,
    SetKind, SetName, Side, Statement, Sys, Table, TableName, Text, VMapKey, Verdict,
};
use std::path::Path;
use std::time::{Duration, Instant};

const SETS: u32 = 2000;
const MEMBERS: u32 = 100;
const RULES: u32 = 10;

/// Of `nft -f` on the same ruleset.
const AIM_PROGRAM: f64 = 0.5;
const AIM_CHECK_MS: f64 = 300.0;
const AIM_MEMBER_MS: f64 = 0.5;
const AIM_RULE_MS: f64 = 1.0;

/// Measures.
///
/// # Errors
/// When the kernel or `nft` refuses the ruleset.
pub(crate) fn run(setting: &Setting) -> Result<Section> {
    let mut out = Section::new("nftables at scale");
    let ruleset = ruleset()?;
    let file = setting.dir.join("ruleset.nft");
    std::fs::write(&file, ruleset.to_string()).context("write the ruleset as text")?;
    let mut t = Times::default();
    for n in 0..setting.rounds(9, 5) {
        if n % 2 == 0 {
            t.peer.push(peer(&file)?);
            ours(&ruleset, &mut t)?;
        } else {
            ours(&ruleset, &mut t)?;
            t.peer.push(peer(&file)?);
        }
    }
    say!("rules: done");
    let (program, peer) = (
        Samples::millis(t.program.iter().copied()),
        Samples::millis(t.peer.iter().copied()),
    );
    out.rows.push(ratio_row(
        "all of it, from nothing",
        &program,
        &peer,
        "ms",
        Some(AIM_PROGRAM),
    ));
    let mut row = |what: &str, times: &[Duration], aim| {
        let s = Samples::millis(times.iter().copied());
        out.rows.push(limit_row(what, &s, s.median(), "ms", aim));
    };
    row("of that the kernel's work and ours in it", &t.apply, None);
    row(
        "read it all, compare, find nothing to do",
        &t.check,
        Some(AIM_CHECK_MS),
    );
    row(
        "one member of a set in or out",
        &t.member,
        Some(AIM_MEMBER_MS),
    );
    row(
        "one rule replaced, its neighbours untouched",
        &t.rule,
        Some(AIM_RULE_MS),
    );
    row("the same in a chain that nothing leads to", &t.unused, None);
    out.note(format!(
        "{SETS} sets of {MEMBERS} members (half of them IPv4 prefixes, a quarter each of IPv6 prefixes and of \
         address, protocol and port), {SETS} chains of {RULES} rules with a set, a port, a counter and a \
         verdict, led to by one map of interface names from the forward hook. The peer is `nft -f` on the \
         same ruleset as text. For each change of a rule the kernel validates every rule that can be \
         reached, {} here; nothing that user space does makes that less.",
        SETS * RULES
    ));
    Ok(out)
}

#[derive(Default)]
struct Times {
    peer: Vec<Duration>,
    program: Vec<Duration>,
    apply: Vec<Duration>,
    check: Vec<Duration>,
    member: Vec<Duration>,
    rule: Vec<Duration>,
    unused: Vec<Duration>,
}

/// `nft -f`, from before its process exists to after its end.
fn peer(file: &Path) -> Result<Duration> {
    let ns = NetNs::new()?;
    let mut command = ns.command("nft")?;
    let began = Instant::now();
    let out = command.arg("-f").arg(file).output().context("run nft")?;
    let took = began.elapsed();
    ensure!(
        out.status.success(),
        "nft: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    Ok(took)
}

fn ours(ruleset: &Ruleset, t: &mut Times) -> Result<()> {
    NetNs::new()?.run(|| inside(ruleset, t))?
}

fn inside(ruleset: &Ruleset, t: &mut Times) -> Result<()> {
    // The agent has its values; they are not part of the work.
    let values = ruleset.clone();
    let began = Instant::now();
    let mut sys = Sys::open(ruleset.table.clone())?;
    let mut table = Table::new(ruleset.table.clone());
    table.adopt(sys.read()?);
    for (name, set) in values.sets {
        table.set_set(&name, set.kind, set.elements)?;
    }
    for (name, chain) in values.chains {
        table.set_chain(&name, chain);
    }
    let plan = table.plan();
    let at = Instant::now();
    let receipt = sys.apply(&plan)?;
    t.apply.push(at.elapsed());
    table.committed(&plan, &receipt)?;
    t.program.push(began.elapsed());
    drop(plan);

    for _ in 0..3 {
        let began = Instant::now();
        table.adopt(sys.read()?);
        ensure!(table.plan().is_empty(), "something is left to do");
        t.check.push(began.elapsed());
    }
    for n in 0..50 {
        let name = set_name(n * 7 % SETS)?;
        let e = [member(n * 7 % SETS, MEMBERS + 1)?];
        t.member.push(change(&mut sys, &mut table, |t| {
            Ok(t.set_elems(&name, e.clone(), [])?)
        })?);
        t.member.push(change(&mut sys, &mut table, |t| {
            Ok(t.set_elems(&name, [], e)?)
        })?);
    }
    for n in 0..50 {
        let name = chain_name(n)?;
        let mut chain = ruleset.chains[&name].clone();
        chain.rules[5] = rule(n, 5000)?;
        t.rule.push(change(&mut sys, &mut table, |t| {
            t.set_chain(&name, chain.clone());
            Ok(())
        })?);
    }
    let name = ChainName::new("unused")?;
    let mut chain = ruleset.chains[&chain_name(0)?].clone();
    change(&mut sys, &mut table, |t| {
        t.set_chain(&name, chain.clone());
        Ok(())
    })?;
    for n in 0..50 {
        chain.rules[5] = rule(n, 5000)?;
        t.unused.push(change(&mut sys, &mut table, |t| {
            t.set_chain(&name, chain.clone());
            Ok(())
        })?);
    }
    Ok(())
}

/// From the wish to the note that it is done.
fn change(
    sys: &mut Sys,
    table: &mut Table,
    wish: impl FnOnce(&mut Table) -> Result<()>,
) -> Result<Duration> {
    let began = Instant::now();
    wish(table)?;
    let plan = table.plan();
    let receipt = sys.apply(&plan)?;
    table.committed(&plan, &receipt)?;
    let took = began.elapsed();
    ensure!(!plan.is_empty(), "nothing changed");
    Ok(took)
}

fn set_name(n: u32) -> Result<SetName> {
    Ok(SetName::new(&format!("peers-{n}"))?)
}

fn chain_name(n: u32) -> Result<ChainName> {
    Ok(ChainName::new(&format!("policy-{n}"))?)
}

const fn set_kind(n: u32) -> SetKind {
    match n % 4 {
        0 | 1 => SetKind::Net(Family::V4),
        2 => SetKind::Net(Family::V6),
        _ => SetKind::AddrProtoPort(Family::V4),
    }
}

fn member(set: u32, n: u32) -> Result<Element> {
    // Pods of a policy stand here and there, not in a row.
    let spread = u128::from((set * 131 + n * 257) % (1 << 20)) << 2 | u128::from(n % 4);
    let v4 = Family::V4.addr((10 << 24) | spread);
    Ok(match set_kind(set) {
        SetKind::AddrProtoPort(_) => Element::AddrProtoPort(v4, Protocol::TCP, 8080),
        SetKind::Net(Family::V6) => {
            let addr = Family::V6.addr((0xfd << 120) | spread);
            Element::Net(Cidr::new(addr, 128).context("a host")?)
        }
        _ => Element::Net(Cidr::new(v4, 32).context("a host")?),
    })
}

fn rule(set: u32, port: u32) -> Result<Rule> {
    let port = u16::try_from(port)?;
    let (side, negate) = (Side::Source, false);
    let peers = match set_kind(set) {
        SetKind::Net(family) => Match::AddrInSet {
            side,
            family,
            set: set_name(set)?,
            negate,
        },
        SetKind::AddrProtoPort(family) => Match::AddrPortInSet {
            side,
            family,
            set: set_name(set)?,
            negate,
        },
        _ => bail!("no rule looks into such a set"),
    };
    Ok(Rule {
        matches: vec![
            Match::L4Proto {
                proto: Protocol::TCP,
                negate,
            },
            peers,
            Match::Ports {
                side: Side::Destination,
                ports: PortList::from(PortRange::one(port)),
                negate,
            },
        ],
        statements: vec![Statement::Counter],
        verdict: Some(Verdict::Accept),
        comment: Text::default(),
    })
}

fn ruleset() -> Result<Ruleset> {
    let mut r = Ruleset::new(TableName::new("manx-bench")?);
    let mut map = std::collections::BTreeSet::new();
    for n in 0..SETS {
        let elements = (0..MEMBERS).map(|m| member(n, m)).collect::<Result<_>>()?;
        r.sets.insert(
            set_name(n)?,
            Set {
                kind: set_kind(n),
                elements,
            },
        );
        let rules = (0..RULES)
            .map(|i| rule(n, 1000 + i))
            .collect::<Result<_>>()?;
        r.chains.insert(chain_name(n)?, Chain { base: None, rules });
        let interface: IfName = format!("cali{n}").parse()?;
        map.insert(Element::IfNameVerdict(
            interface,
            Verdict::Goto(chain_name(n)?),
        ));
    }
    let dispatch = SetName::new("dispatch")?;
    r.sets.insert(
        dispatch.clone(),
        Set {
            kind: SetKind::IfNameVerdict,
            elements: map,
        },
    );
    let vmap = Statement::VMap {
        key: VMapKey::OifName,
        map: dispatch,
    };
    let base = Base {
        kind: Kind::Filter,
        hook: Hook::Forward,
        priority: 0,
        policy: Policy::Accept,
    };
    r.chains.insert(
        ChainName::new("forward")?,
        Chain {
            base: Some(base),
            rules: vec![Rule {
                statements: vec![vmap],
                ..Rule::default()
            }],
        },
    );
    Ok(r)
}
