//! Whatever was there before and whatever is wanted: what is becomes what is wanted, touching
//! only what differs. Against the pure model and against the kernel.
#![allow(clippy::unwrap_used)]

mod support;
use nftables::*;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use support::*;

/// A rule that uses what the mask of wanted things has.
fn small_rule(n: u8, chains: &[ChainName], sets: &BTreeMap<SetName, Set>) -> Rule {
    let counter = vec![Statement::Counter];
    let pick = usize::from(n / 8);
    let port = |p: &[&str]| Match::Ports {
        side: Side::Destination,
        ports: ports(p),
        negate: false,
    };
    match n % 8 {
        0 => rule(vec![], counter, None),
        1 if !chains.is_empty() => rule(
            vec![],
            vec![],
            Some(Verdict::Jump(chains[pick % chains.len()].clone())),
        ),
        2 => rule(
            vec![port(&["80", "443", "8000:8100"])],
            counter,
            Some(Verdict::Accept),
        ),
        3 => {
            let nets = nets(&["10.0.0.0/8", "192.168.0.0/16"]);
            rule(
                vec![Match::Addr {
                    side: Side::Source,
                    nets,
                    negate: pick % 2 == 0,
                }],
                counter,
                None,
            )
        }
        4 if !sets.is_empty() => {
            let (name, s) = sets.iter().nth(pick % sets.len()).unwrap();
            let name = name.clone();
            let negate = false;
            match s.kind {
                SetKind::Addr(family) | SetKind::Net(family) => rule(
                    vec![Match::AddrInSet {
                        side: Side::Source,
                        family,
                        set: name,
                        negate,
                    }],
                    counter,
                    None,
                ),
                SetKind::IfNameVerdict => rule(
                    vec![],
                    vec![Statement::VMap {
                        key: VMapKey::IifName,
                        map: name,
                    }],
                    None,
                ),
                SetKind::IfName => rule(
                    vec![Match::IifName {
                        pattern: IfPattern::InSet(name),
                        negate,
                    }],
                    counter,
                    None,
                ),
                _ => rule(vec![], vec![], None),
            }
        }
        _ => Rule {
            comment: Text::new(&format!("rule {n}")),
            ..rule(vec![], counter, None)
        },
    }
}

fn small_set(kind: u8, members: &[u8], targets: &[ChainName]) -> Set {
    let family = if kind & 8 == 0 { V4 } else { V6 };
    let low = if family == V4 {
        0x0a00_0000u128
    } else {
        0xfd << 120
    };
    let (kind, elements): (_, BTreeSet<Element>) = match kind % 4 {
        0 => (
            SetKind::Addr(family),
            members
                .iter()
                .map(|m| Element::Addr(family.addr(low + u128::from(*m))))
                .collect(),
        ),
        1 => {
            let mut cover = net::CoverSet::new();
            for m in members {
                let bits = if *m == 0 {
                    0
                } else {
                    low + (u128::from(*m) << 8)
                };
                let len = [0, 8, 12, 16, 22, 23, 24, family.bits()][usize::from(m % 8)];
                let len = if family == V6 && (9..128).contains(&len) {
                    96 + len
                } else {
                    len
                };
                cover.add(net::Cidr::new(family.addr(bits), len).unwrap(), |_, _| {});
            }
            (
                SetKind::Net(family),
                cover.cover().into_iter().map(Element::Net).collect(),
            )
        }
        2 => (
            SetKind::IfName,
            members
                .iter()
                .map(|m| Element::IfName(ifname(&format!("c{m}"))))
                .collect(),
        ),
        _ => {
            let by_key: BTreeMap<u8, Verdict> = members
                .iter()
                .map(|m| {
                    let n = usize::from(*m);
                    let v = match targets.get(n % (targets.len() + 2)) {
                        Some(c) => Verdict::Goto(c.clone()),
                        None => Verdict::Drop,
                    };
                    (m % 16, v)
                })
                .collect();
            let all = by_key.into_iter();
            (
                SetKind::IfNameVerdict,
                all.map(|(k, v)| Element::IfNameVerdict(ifname(&format!("c{k}")), v))
                    .collect(),
            )
        }
    };
    Set { kind, elements }
}

type Seed = (
    Vec<(u8, Vec<u8>)>,
    Vec<Vec<u8>>,
    [Option<(bool, Vec<u8>)>; 2],
);

fn seeds() -> impl Strategy<Value = Seed> {
    let members = prop::collection::vec(any::<u8>(), 0..12);
    let rules = || prop::collection::vec(0u8..48, 0..8);
    let chain = prop::option::of((any::<bool>(), rules()));
    (
        prop::collection::vec((0u8..16, members), 0..4),
        prop::collection::vec(rules(), 0..4),
        [chain.clone(), chain],
    )
}

/// Chains `leaf*` hold no jumps, chains `base*` are entered from hooks; no loops.
fn ruleset((sets, leaves, bases): &Seed) -> Ruleset {
    let mut out = Ruleset::new(table_name());
    let names: Vec<_> = (0..leaves.len())
        .map(|i| chain(&format!("leaf{i}")))
        .collect();
    for (i, (kind, members)) in sets.iter().enumerate() {
        out.sets
            .insert(set(&format!("s{i}")), small_set(*kind, members, &names));
    }
    let plain: BTreeMap<_, _> = out
        .sets
        .iter()
        .filter(|(_, s)| s.kind != SetKind::IfNameVerdict)
        .map(|(n, s)| (n.clone(), s.clone()))
        .collect();
    for (name, rules) in names.iter().zip(leaves) {
        let rules = rules.iter().map(|n| small_rule(*n, &[], &plain)).collect();
        out.chains.insert(name.clone(), Chain { base: None, rules });
    }
    for (i, b) in bases.iter().enumerate() {
        let Some((flag, rules)) = b else { continue };
        let policy = if *flag { Policy::Accept } else { Policy::Drop };
        let priority = if rules.len() % 3 == 0 { 10 } else { 0 };
        let at = Base {
            policy,
            priority,
            ..base(Hook::Forward)
        };
        let rules = rules
            .iter()
            .map(|n| small_rule(*n, &names, &out.sets))
            .collect();
        out.chains.insert(
            chain(&format!("base{i}")),
            Chain {
                base: Some(at),
                rules,
            },
        );
    }
    out
}

/// Whether a dump says the same as a ruleset.
fn same(dump: &Dump, want: &Ruleset) {
    let names = |d: &mut dyn Iterator<Item = String>| d.collect::<Vec<_>>();
    assert_eq!(
        names(&mut dump.chains.keys().cloned()),
        names(&mut want.chains.keys().map(ToString::to_string))
    );
    for (name, c) in &want.chains {
        let live = &dump.chains[name.as_str()];
        assert_eq!(
            live.base,
            c.base.map_or(LiveBase::None, LiveBase::At),
            "{name}"
        );
        let ids: Vec<_> = c.rules.iter().map(|r| Some(RuleId::of(r))).collect();
        assert_eq!(
            live.rules.iter().map(|r| r.id).collect::<Vec<_>>(),
            ids,
            "{name}"
        );
    }
    assert_eq!(
        names(&mut dump.sets.keys().cloned()),
        names(&mut want.sets.keys().map(ToString::to_string))
    );
    for (name, s) in &want.sets {
        let live = &dump.sets[name.as_str()];
        assert!(!live.alien, "{name}");
        assert_eq!(live.kind, Some(s.kind), "{name}");
        assert_eq!(
            live.elements.iter().collect::<BTreeSet<_>>(),
            s.elements,
            "{name}"
        );
    }
}

/// What a kernel would give back: the next handles.
fn receipt(plan: &Plan, next: &mut u64) -> Receipt {
    let mut r = Receipt::default();
    for (i, op) in plan.ops.iter().enumerate() {
        if matches!(op, Op::AddRule { .. }) {
            *next += 1;
            r.handles.insert(i, *next);
        }
    }
    r
}

proptest! {
    #![proptest_config(Config::with_cases(300))]

    #[test]
    fn replayed_on_what_is_a_plan_gives_what_is_wanted(steps in prop::collection::vec(seeds(), 1..5)) {
        let mut table = Table::new(table_name());
        let mut handle = 0;
        for seed in &steps {
            let r = ruleset(seed);
            want(&mut table, &r);
            prop_assert_eq!(&table.desired(), &r);
            let plan = table.plan();
            let stayed: BTreeSet<u64> = table.actual().chains.values()
                .flat_map(|c| &c.rules).map(|r| r.handle).collect();
            let gone: BTreeSet<u64> = plan.ops.iter().filter_map(|op| match op {
                Op::DeleteRule { handle, .. } => Some(*handle),
                _ => None,
            }).collect();
            // Rules are placed before rules that stay.
            for op in &plan.ops {
                if let Op::AddRule { before: Some(b), .. } = op {
                    prop_assert!(stayed.contains(b) && !gone.contains(b));
                }
            }
            let receipt = receipt(&plan, &mut handle);
            table.committed(&plan, &receipt).unwrap();
            same(&table.actual(), &r);
            prop_assert!(table.plan().is_empty() && !table.is_dirty());
            // A restart that finds this has nothing to do.
            let mut other = Table::new(table_name());
            want(&mut other, &r);
            other.adopt(table.actual());
            prop_assert!(other.plan().is_empty());
        }
    }

    /// What is wanted while a plan is on its way is neither lost nor undone.
    #[test]
    fn wishes_during_a_commit_stay_dirty(a in seeds(), b in seeds(), c in seeds()) {
        let mut table = Table::new(table_name());
        let mut handle = 0;
        for (first, second) in [(&a, &b), (&b, &c), (&c, &a)] {
            want(&mut table, &ruleset(first));
            let plan = table.plan();
            want(&mut table, &ruleset(second));
            let r = receipt(&plan, &mut handle);
            table.committed(&plan, &r).unwrap();
            same(&table.actual(), &ruleset(first));
            prop_assert_eq!(&table.desired(), &ruleset(second));
            let plan = table.plan();
            let r = receipt(&plan, &mut handle);
            table.committed(&plan, &r).unwrap();
            same(&table.actual(), &ruleset(second));
        }
    }
}

#[test]
fn the_kernel_agrees_with_the_model() {
    in_ns(|_| {
        let mut sys = Sys::open(table_name()).unwrap();
        let mut table = Table::new(table_name());
        let mut runner = TestRunner::new(Config {
            failure_persistence: None,
            ..Config::with_cases(150)
        });
        let sys = std::cell::RefCell::new((&mut sys, &mut table));
        runner
            .run(&seeds(), |seed| {
                let (sys, table) = &mut *sys.borrow_mut();
                let r = ruleset(&seed);
                want(table, &r);
                sys.sync(table).unwrap();
                let dump = sys.read().unwrap();
                same(&dump, &r);
                prop_assert_eq!(dump, table.actual());
                Ok(())
            })
            .unwrap();
    });
}

fn counted(n: u16) -> Rule {
    let ports = PortList::from(net::PortRange::one(n));
    let m = Match::Ports {
        side: Side::Destination,
        ports,
        negate: false,
    };
    rule(vec![m], vec![Statement::Counter], None)
}

fn handles(ns: &netlink::netns::NetNs) -> Vec<String> {
    let text = nft(ns, &["-a", "list", "chain", "inet", "manx", "c"], "");
    text.lines()
        .filter(|l| l.contains("counter"))
        .map(|l| l.split("handle ").nth(1).unwrap().to_owned())
        .collect()
}

#[test]
fn a_changed_rule_leaves_its_neighbours() {
    in_ns(|ns| {
        let mut sys = Sys::open(table_name()).unwrap();
        let mut table = Table::new(table_name());
        let put = |table: &mut Table, ports: &[u16]| {
            let rules = ports.iter().map(|p| counted(*p)).collect();
            table.set_chain(&chain("c"), Chain { base: None, rules });
        };
        put(&mut table, &[1, 2, 3, 4, 5]);
        sys.sync(&mut table).unwrap();
        let before = handles(ns);
        put(&mut table, &[1, 2, 30, 31, 4, 5, 6]);
        sys.sync(&mut table).unwrap();
        let after = handles(ns);
        assert_eq!((&before[..2], &before[3..]), (&after[..2], &after[4..6]));
        assert_ne!(before[2], after[2]);
        let shown: Vec<_> = rules(ns, "c")
            .iter()
            .map(|r| r.split(' ').nth(2).unwrap().to_owned())
            .collect();
        assert_eq!(shown, ["1", "2", "30", "31", "4", "5", "6"]);

        // A new process finds all as wanted.
        let mut table = Table::new(table_name());
        put(&mut table, &[1, 2, 30, 31, 4, 5, 6]);
        let mut sys = Sys::open(table_name()).unwrap();
        table.adopt(sys.read().unwrap());
        assert!(table.plan().is_empty());
        assert_eq!(handles(ns), after);
    });
}

#[test]
fn a_refused_operation_changes_nothing_and_is_named() {
    in_ns(|ns| {
        let mut sys = Sys::open(table_name()).unwrap();
        let mut table = Table::new(table_name());
        table.set_chain(
            &chain("c"),
            Chain {
                base: None,
                rules: vec![counted(1)],
            },
        );
        sys.sync(&mut table).unwrap();
        let before = listing(ns);

        table
            .set_set(
                &set("s"),
                SetKind::Addr(V4),
                [Element::Addr(ip("10.0.0.1"))],
            )
            .unwrap();
        let lost = rule(vec![], vec![], Some(Verdict::Jump(chain("missing"))));
        table.set_chain(
            &chain("c"),
            Chain {
                base: None,
                rules: vec![counted(2), lost],
            },
        );
        let err = sys.sync(&mut table).unwrap_err();
        assert_eq!(err.to_string(), "add rule to chain c: jump missing: ENOENT");
        assert_eq!(listing(ns), before);
        assert!(table.is_dirty());

        table.set_chain(&chain("missing"), Chain::default());
        sys.sync(&mut table).unwrap();
        assert_eq!(rules(ns, "c")[1], "jump missing");
        assert!(!table.is_dirty());
    });
}

#[test]
fn one_bad_object_does_not_stop_the_others() {
    in_ns(|ns| {
        let mut sys = Sys::open(table_name()).unwrap();
        let mut table = Table::new(table_name());
        let jump = |to: &str| rule(vec![], vec![], Some(Verdict::Jump(chain(to))));
        table.set_chain(
            &chain("good"),
            Chain {
                base: None,
                rules: vec![counted(1)],
            },
        );
        table.set_chain(
            &chain("bad"),
            Chain {
                base: None,
                rules: vec![jump("missing")],
            },
        );
        // Overlapping prefixes, which the kernel refuses, and a rule that relies on them.
        let overlap = ["10.0.0.0/8", "10.1.0.0/16"].map(|c| Element::Net(cidr(c)));
        table
            .set_set(&set("overlap"), SetKind::Net(V4), overlap)
            .unwrap();
        let set_name = set("overlap");
        let m = Match::AddrInSet {
            side: Side::Source,
            family: V4,
            set: set_name,
            negate: false,
        };
        let relies = rule(vec![m], vec![], Some(Verdict::Accept));
        table.set_chain(
            &chain("relies"),
            Chain {
                base: None,
                rules: vec![relies],
            },
        );

        let refusals = sys.sync_each(&mut table).unwrap();
        let words: Vec<_> = refusals.iter().map(ToString::to_string).collect();
        assert_eq!(
            words,
            [
                "add 2 elements to set overlap: EEXIST",
                "add rule to chain bad: jump missing: ENOENT"
            ]
        );
        assert_eq!(rules(ns, "good"), ["th dport 1 counter packets 0 bytes 0"]);
        let shown = listing(ns);
        assert!(
            !shown.contains("relies") && !shown.contains("bad"),
            "{shown}"
        );
        assert!(table.is_dirty());

        table.set_chain(&chain("missing"), Chain::default());
        table
            .set_elems(&set("overlap"), [], [Element::Net(cidr("10.1.0.0/16"))])
            .unwrap();
        assert!(sys.sync_each(&mut table).unwrap().is_empty());
        assert!(!table.is_dirty());
        assert_eq!(sys.read().unwrap(), table.actual());
    });
}

#[test]
fn what_others_do_to_the_table_is_noticed_and_repaired() {
    in_ns(|ns| {
        let mut sys = Sys::open(table_name()).unwrap();
        let mut table = Table::new(table_name());
        let jump = rule(vec![], vec![], Some(Verdict::Goto(chain("c"))));
        table.set_chain(
            &chain("c"),
            Chain {
                base: None,
                rules: vec![counted(1), counted(2)],
            },
        );
        table.set_chain(
            &chain("f"),
            Chain {
                base: Some(base(Hook::Forward)),
                rules: vec![jump],
            },
        );
        let nets = ["10.0.0.0/8", "11.0.0.0/8"].map(|c| Element::Net(cidr(c)));
        table.set_set(&set("s"), SetKind::Net(V4), nets).unwrap();
        sys.sync(&mut table).unwrap();
        let whole = sorted(&listing(ns));

        // Other tables do not concern us.
        nft(
            ns,
            &["-f", "-"],
            "table inet other { chain c { counter; }; }",
        );
        assert_eq!(sys.notices().unwrap(), Notice::Quiet);
        table.set_chain(&chain("d"), Chain::default());
        sys.sync(&mut table).unwrap();
        table.remove_chain(&chain("d"));
        sys.sync(&mut table).unwrap();

        let harm = [
            "flush chain inet manx c",
            "insert rule inet manx c drop",
            "delete element inet manx s { 10.0.0.0/8 }",
            "add element inet manx s { 12.0.0.0-12.0.0.5 }",
            "add set inet manx t { type mark; }",
            "add chain inet manx e",
            "delete table inet manx",
            "flush ruleset",
            "add table inet manx { flags dormant; }",
            "flush table inet manx",
            "chain inet manx f { policy drop; }",
            "delete table inet manx\nadd table inet manx\nadd chain inet manx c\nadd rule inet manx c drop\n",
        ];
        for text in harm {
            nft(ns, &["-f", "-"], text);
            let deadline = Instant::now() + Duration::from_secs(2);
            assert_eq!(sys.changed_by(deadline).unwrap(), Notice::Changed, "{text}");
            // A plan made in ignorance is not carried out.
            table
                .set_elems(&set("s"), [Element::Net(cidr("99.0.0.0/8"))], [])
                .unwrap();
            let blind = table.plan();
            assert!(
                matches!(sys.apply(&blind), Err(ApplyError::Changed(_))),
                "{text}"
            );
            table
                .set_elems(&set("s"), [], [Element::Net(cidr("99.0.0.0/8"))])
                .unwrap();
            table.adopt(sys.read().unwrap());
            assert!(sys.sync(&mut table).unwrap(), "{text}");
            assert_eq!(sorted(&listing(ns)), whole, "{text}");
            assert_eq!(sys.notices().unwrap(), Notice::Quiet);
        }
    });
}

fn sorted(text: &str) -> Vec<String> {
    let mut lines: Vec<_> = text.lines().map(|l| l.trim().to_owned()).collect();
    lines.sort();
    lines
}

#[test]
fn prefixes_give_way_within_one_transaction() {
    in_ns(|ns| {
        let mut sys = Sys::open(table_name()).unwrap();
        let mut table = Table::new(table_name());
        let steps: [&[&str]; 9] = [
            &["10.0.0.0/8"],
            &["10.1.0.0/16", "10.255.0.0/16"],
            &["10.0.0.0/8", "11.0.0.0/8"],
            &["0.0.0.0/0"],
            &["0.0.0.0/1", "128.0.0.0/1"],
            &["255.255.255.255/32", "0.0.0.0/32"],
            &["255.255.255.254/31", "0.0.0.0/31"],
            &[],
            &["0.0.0.0/0"],
        ];
        let lift = |c: &str| match cidr(c) {
            c if c.len() == 0 => net::Cidr::any(V6),
            c => {
                let high = net::Family::bits_of(c.addr()) << 96;
                let low = if c.is_host() && high != 0 {
                    (1 << 96) - 1
                } else {
                    0
                };
                let len = if c.is_host() { 128 } else { c.len() };
                net::Cidr::new(V6.addr(high | low), len).unwrap()
            }
        };
        for (i, step) in steps.iter().enumerate() {
            let v4: Vec<_> = step.iter().map(|c| Element::Net(cidr(c))).collect();
            let v6: Vec<_> = step.iter().map(|c| Element::Net(lift(c))).collect();
            let pairs: Vec<_> = step
                .iter()
                .map(|c| Element::NetPair(cidr(c), cidr("0.0.0.0/0")))
                .collect();
            table.set_set(&set("v4"), SetKind::Net(V4), v4).unwrap();
            table.set_set(&set("v6"), SetKind::Net(V6), v6).unwrap();
            table
                .set_set(&set("pairs"), SetKind::NetPair(V4), pairs)
                .unwrap();
            sys.sync(&mut table)
                .unwrap_or_else(|e| panic!("step {i}: {e}"));
            assert_eq!(sys.read().unwrap(), table.actual(), "step {i}");
            let shown = listing(ns);
            step.iter().for_each(|c| {
                let c = c.strip_suffix("/32").unwrap_or(c);
                assert!(shown.contains(c), "step {i}: {c} in {shown}");
            });
        }
    });
}

#[test]
fn a_task_wakes_for_changes_by_others_only() {
    in_ns(|ns| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut sys = Sys::open(table_name()).unwrap();
            let mut table = Table::new(table_name());
            table.set_chain(
                &chain("c"),
                Chain {
                    base: None,
                    rules: vec![counted(1)],
                },
            );
            sys.sync(&mut table).unwrap();
            let none = tokio::time::timeout(Duration::from_millis(20), sys.changed()).await;
            assert!(none.is_err(), "our own work is no change");
            nft(ns, &["flush", "chain", "inet", "manx", "c"], "");
            let limit = Duration::from_secs(5);
            let notice = tokio::time::timeout(limit, sys.changed())
                .await
                .unwrap()
                .unwrap();
            assert_eq!(notice, Notice::Changed);
            table.adopt(sys.read().unwrap());
            assert!(sys.sync(&mut table).unwrap());
            assert_eq!(rules(ns, "c").len(), 1);
        });
    });
}

/// A transaction far beyond the default socket buffers.
#[test]
fn a_large_table_goes_in_one_piece() {
    in_ns(|ns| {
        let mut sys = Sys::open(table_name()).unwrap();
        let mut table = Table::new(table_name());
        let many = (0..60_000u32)
            .map(|i| Element::Net(net::Cidr::new(V4.addr(u128::from(i << 8)), 25).unwrap()));
        table.set_set(&set("many"), SetKind::Net(V4), many).unwrap();
        for i in 0..500 {
            let rules = (1..6).map(counted).collect();
            table.set_chain(&chain(&format!("c{i}")), Chain { base: None, rules });
        }
        // Sets without names come between the rules, and take handles of their own.
        let listed = |n: u16| {
            let (a, b) = (n.to_string(), (n + 1000).to_string());
            let m = Match::Ports {
                side: Side::Source,
                ports: ports(&[&a, &b]),
                negate: false,
            };
            rule(vec![m], vec![Statement::Counter], None)
        };
        let listed = (1..200).map(|n| if n % 3 == 0 { counted(n) } else { listed(n) });
        let listed = Chain {
            base: None,
            rules: listed.collect(),
        };
        table.set_chain(&chain("c77"), listed);
        assert!(sys.sync(&mut table).unwrap());
        // Handles and all.
        assert_eq!(sys.read().unwrap(), table.actual());
        assert_eq!(rules(ns, "c499").len(), 5);
        table.remove_set(&set("many"));
        (0..500).for_each(|i| table.remove_chain(&chain(&format!("c{i}"))));
        assert!(sys.sync(&mut table).unwrap());
        assert_eq!(sys.read().unwrap(), table.actual());
        assert!(table.actual().chains.is_empty());
    });
}
