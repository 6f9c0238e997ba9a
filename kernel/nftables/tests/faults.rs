//! What goes wrong between us and the kernel: refusals, lost answers, lost notices, others.
#![allow(clippy::unwrap_used)]

mod support;
use netlink::Errno;
use nftables::*;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use support::*;

fn port(n: u16) -> Rule {
    let m = Match::Ports {
        side: Side::Destination,
        ports: PortList::from(net::PortRange::one(n)),
        negate: false,
    };
    rule(vec![m], vec![Statement::Counter], None)
}

fn plain(rules: Vec<Rule>) -> Chain {
    Chain { base: None, rules }
}

fn go(to: &str) -> Rule {
    rule(vec![], vec![], Some(Verdict::Goto(chain(to))))
}

fn to(i: &str, c: &str) -> Element {
    Element::IfNameVerdict(ifname(i), Verdict::Goto(chain(c)))
}

fn counting(sys: &mut Sys) -> Arc<AtomicUsize> {
    let n = Arc::new(AtomicUsize::new(0));
    let seen = n.clone();
    sys.inject(move |_| {
        seen.fetch_add(1, Ordering::Relaxed);
        None
    });
    n
}

/// Many endpoints, some of whose policies the kernel refuses: the others get theirs, in few
/// transactions, and the map leads to no chain that is not there.
#[test]
fn many_bad_objects_are_left_out_at_once() {
    in_ns(|ns| {
        let mut sys = Sys::open(table_name()).unwrap();
        let mut table = Table::new(table_name());
        let mut map = Vec::new();
        for n in 0..60 {
            let lost = go("missing");
            let rules = if n % 3 == 0 {
                vec![port(n), lost]
            } else {
                vec![port(n)]
            };
            table.set_chain(&chain(&format!("policy-{n}")), plain(rules));
            let jump = rule(
                vec![],
                vec![],
                Some(Verdict::Jump(chain(&format!("policy-{n}")))),
            );
            table.set_chain(&chain(&format!("stack-{n}")), plain(vec![jump]));
            map.push(to(&format!("cali{n}"), &format!("stack-{n}")));
        }
        table
            .set_set(&set("dispatch"), SetKind::IfNameVerdict, map.clone())
            .unwrap();
        let vmap = Statement::VMap {
            key: VMapKey::IifName,
            map: set("dispatch"),
        };
        let forward = Chain {
            base: Some(base(Hook::Forward)),
            rules: vec![rule(vec![], vec![vmap], None)],
        };
        table.set_chain(&chain("forward"), forward);

        let transactions = counting(&mut sys);
        let refusals = sys.sync_each(&mut table).unwrap();
        let told: BTreeSet<_> = refusals.iter().map(ToString::to_string).collect();
        let want = (0..60).filter(|n| n % 3 == 0);
        let want: BTreeSet<_> = want
            .map(|n| format!("add rule to chain policy-{n}: goto missing: ENOENT"))
            .collect();
        assert_eq!(told, want);
        assert!(transactions.load(Ordering::Relaxed) <= 3);
        assert_eq!(rules(ns, "forward"), ["iifname vmap @dispatch"]);
        let shown = listing(ns);
        for n in 0..60 {
            let there = shown.contains(&format!("\"cali{n}\" : goto stack-{n}"));
            assert_eq!(there, n % 3 != 0, "{n}: {shown}");
        }
        assert!(table.is_dirty());

        // What was missing comes, and all of it with it.
        table.set_chain(&chain("missing"), plain(vec![]));
        assert!(sys.sync_each(&mut table).unwrap().is_empty());
        assert!(!table.is_dirty());
        assert_eq!(sys.read().unwrap(), table.actual());

        // An endpoint whose new policy is refused keeps the one that it has.
        table.set_chain(&chain("worse"), plain(vec![go("nowhere")]));
        table
            .set_elems(&set("dispatch"), [to("cali1", "worse")], [])
            .unwrap();
        table
            .set_elems(&set("dispatch"), [to("cali99", "stack-2")], [])
            .unwrap();
        assert_eq!(sys.sync_each(&mut table).unwrap().len(), 1);
        let shown = listing(ns);
        assert!(shown.contains("\"cali1\" : goto stack-1"), "{shown}");
        assert!(shown.contains("\"cali99\" : goto stack-2"), "{shown}");
    });
}

/// The kernel says that it will not have the whole, and not why: it is found out.
#[test]
fn an_unnamed_refusal_is_traced_to_its_object() {
    in_ns(|ns| {
        let mut sys = Sys::open(table_name()).unwrap();
        let mut table = Table::new(table_name());
        for n in 0..20 {
            table.set_chain(&chain(&format!("c{n}")), plain(vec![port(n)]));
            let members = [Element::Addr(V4.addr(u128::from(n)))];
            let name = set(&format!("s{n}"));
            table.set_set(&name, SetKind::Addr(V4), members).unwrap();
        }
        let bad = ["chain c7", "chain c8", "set s3"];
        sys.inject(move |plan| {
            let objects = plan.ops.iter().filter_map(Op::object);
            let mut names = objects.map(|o| o.to_string());
            names
                .any(|n| bad.contains(&n.as_str()))
                .then_some(Fault::Refuse {
                    index: None,
                    errno: Errno::ENOMEM,
                })
        });
        let refusals = sys.sync_each(&mut table).unwrap();
        let mut told: Vec<_> = refusals.iter().map(ToString::to_string).collect();
        told.sort();
        assert_eq!(
            told,
            [
                "change chain c7: ENOMEM",
                "change chain c8: ENOMEM",
                "change set s3: ENOMEM"
            ]
        );
        let shown = listing(ns);
        for n in 0..20 {
            let (c, s) = (format!("chain c{n} {{"), format!("set s{n} {{"));
            assert_eq!(shown.contains(&c), n != 7 && n != 8, "{shown}");
            assert_eq!(shown.contains(&s), n != 3, "{shown}");
        }
        sys.inject(|_| None);
        assert!(sys.sync_each(&mut table).unwrap().is_empty());
        assert_eq!(sys.read().unwrap(), table.actual());
        assert!(!table.is_dirty());
    });
}

/// A state of a few chains and sets that depends on a number.
fn state(n: u16, table: &mut Table) {
    for i in 0..4 {
        let name = chain(&format!("c{i}"));
        if (n >> i) & 3 == 1 {
            table.remove_chain(&name);
        } else {
            let rules = (0..(n + i) % 5).map(|r| port(r + n % 7)).collect();
            table.set_chain(&name, plain(rules));
        }
        let name = set(&format!("s{i}"));
        if (n >> i) & 3 == 2 {
            table.remove_set(&name);
        } else {
            // Some of more, some of fewer than what is treated one by one.
            let count = if i == 0 { 100 } else { 10 };
            let members = (0..count).map(|m| {
                let at = u128::from((m * (n % 3 + 1)) % 150);
                Element::Net(net::Cidr::host(V4.addr(0x0a00_0000 + at)))
            });
            table.set_set(&name, SetKind::Net(V4), members).unwrap();
        }
    }
}

/// Whatever goes wrong with whichever transaction, the next attempts end where they should.
#[test]
fn every_fault_is_got_over() {
    in_ns(|_| {
        let refuse = |index| Fault::Refuse {
            index,
            errno: Errno::ENOMEM,
        };
        let faults = [
            refuse(None),
            refuse(Some(0)),
            refuse(Some(1)),
            Fault::Socket(Errno::EINTR),
            Fault::Socket(Errno::ENOBUFS),
            Fault::LoseAnswer,
            Fault::LoseNotices,
        ];
        for (f, fault) in faults.into_iter().enumerate() {
            for at in 0..4 {
                let mut sys = Sys::open(table_name()).unwrap();
                let mut table = Table::new(table_name());
                table.adopt(sys.read().unwrap());
                let mut n = 0;
                // This transaction and every fourth after it.
                sys.inject(move |_| {
                    n += 1;
                    (n % 4 == at).then_some(fault)
                });
                for step in 0..6u16 {
                    state(step * 37 + f as u16 * 11 + at, &mut table);
                    let mut attempts = 0;
                    while table.is_dirty() {
                        // Errors leave the table dirty, and nothing else.
                        let _ = sys.sync_each(&mut table);
                        attempts += 1;
                        assert!(attempts < 10, "{fault:?} at {at}, step {step}");
                    }
                    sys.inject(|_| None);
                    assert!(!sys.sync(&mut table).unwrap());
                    assert_eq!(sys.read().unwrap(), table.actual(), "{fault:?}");
                    let wanted = table.desired();
                    let live = table.actual();
                    assert_eq!(wanted.chains.len(), live.chains.len());
                    for (name, s) in &wanted.sets {
                        let live: BTreeSet<_> = live.sets[name.as_str()].elements.iter().collect();
                        assert_eq!(live, s.elements, "{fault:?} {name}");
                    }
                    let mut n = 0;
                    sys.inject(move |_| {
                        n += 1;
                        (n % 4 == at).then_some(fault)
                    });
                }
            }
        }
    });
}

/// Harm to a table of some size, seen from notices and undone; other tables stay as they are.
#[test]
fn harm_is_undone_well_within_a_second() {
    in_ns(|ns| {
        let mut sys = Sys::open(table_name()).unwrap();
        let mut table = Table::new(table_name());
        for n in 0..300u32 {
            let rules = (1..6).map(port).collect();
            table.set_chain(&chain(&format!("c{n}")), plain(rules));
            let members = (0..20).map(|m| {
                let at = V4.addr(0x0a00_0000 + u128::from(m * 1000 + n));
                Element::Net(net::Cidr::host(at))
            });
            let name = set(&format!("s{n}"));
            table.set_set(&name, SetKind::Net(V4), members).unwrap();
        }
        sys.sync(&mut table).unwrap();
        let whole = sys.read().unwrap();
        let names = |d: &Dump| (d.chains.len(), d.sets.clone());
        nft(
            ns,
            &["-f", "-"],
            "table inet other { chain c { counter; }; }; table ip manx { set s { type mark; }; }",
        );
        let others = || {
            let t = nft(ns, &["list", "table", "inet", "other"], "");
            t + &nft(ns, &["list", "table", "ip", "manx"], "")
        };
        let before = others();
        for harm in [
            "flush chain inet manx c7",
            "delete element inet manx s3 { 10.0.0.3 }",
            "flush set inet manx s5",
            "delete chain inet manx c299",
            "insert rule inet manx c1 drop",
            "delete table inet manx",
        ] {
            nft(ns, &["-f", "-"], harm);
            let began = Instant::now();
            let deadline = began + Duration::from_secs(5);
            assert_eq!(sys.changed_by(deadline).unwrap(), Notice::Changed, "{harm}");
            table.adopt(sys.read().unwrap());
            assert!(sys.sync(&mut table).unwrap(), "{harm}");
            let took = began.elapsed();
            assert!(took < Duration::from_secs(1), "{harm}: {took:?}");
            let now = sys.read().unwrap();
            assert_eq!(names(&now), names(&whole), "{harm}");
            assert_eq!(now, table.actual(), "{harm}");
            assert_eq!(others(), before);
        }
    });
}

/// Another program at work on its own table, and one on ours, while ours changes in large steps.
#[test]
fn large_transactions_go_in_beside_the_work_of_others() {
    use std::sync::mpsc::{RecvTimeoutError, channel};
    in_ns(|ns| {
        let (stop, ended) = channel::<()>();
        let (begun, ready) = channel();
        // A thread begins in the namespace of the one that makes it.
        let other = std::thread::spawn(move || {
            begun.send(()).unwrap();
            let mut sys = Sys::open(TableName::new("other").unwrap()).unwrap();
            let mut table = Table::new(TableName::new("other").unwrap());
            let mut n = 0;
            // Some hundred changes a second, until the other end is dropped.
            let pause = Duration::from_millis(2);
            while ended.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                n += 1;
                table.set_chain(&chain("c"), plain(vec![port(n % 1000)]));
                sys.sync(&mut table).unwrap();
            }
            n
        });
        ready.recv().unwrap();
        let mut sys = Sys::open(table_name()).unwrap();
        let mut table = Table::new(table_name());
        for n in 0..12u32 {
            let members = (0..9000 + n).map(|m| {
                let at = V4.addr(0x0a00_0000 + u128::from(m * (n + 2)));
                Element::Net(net::Cidr::host(at))
            });
            table.set_set(&set("s"), SetKind::Net(V4), members).unwrap();
            let rules = (0..100).map(|r| port((n + r) as u16)).collect();
            table.set_chain(&chain("c"), plain(rules));
            if n % 4 == 3 {
                nft(ns, &["flush", "chain", "inet", "manx", "c"], "");
            }
            while table.is_dirty() {
                sys.sync(&mut table).unwrap();
            }
            // What was not heard is taken for a change, and nothing is ever taken for done.
            if sys.notices().unwrap() != Notice::Quiet {
                table.adopt(sys.read().unwrap());
                sys.sync(&mut table).unwrap();
            }
            assert_eq!(sys.read().unwrap(), table.actual(), "step {n}");
            assert!(!table.is_dirty());
        }
        drop(stop);
        assert!(other.join().unwrap() > 10, "others were at work too");
    });
}
