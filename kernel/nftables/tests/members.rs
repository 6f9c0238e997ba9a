//! Members in bulk and one by one come to the same.
#![allow(clippy::unwrap_used)]

mod support;
use net::{Cidr, Protocol};
use nftables::*;
use proptest::prelude::*;
use std::collections::BTreeSet;
use support::*;

/// A member of each kind for a number; of maps some share a key.
fn member(kind: SetKind, n: u32) -> Element {
    let v4 = |n: u32| V4.addr(u128::from(0x0a00_0000 + n));
    let v6 = |n: u32| V6.addr((0xfd << 120) | u128::from(n));
    let addr = |f| if f == V4 { v4(n) } else { v6(n) };
    let name = |n: u32| ifname(&format!("c{n}"));
    match kind {
        SetKind::Addr(f) => Element::Addr(addr(f)),
        SetKind::Net(f) => Element::Net(Cidr::host(addr(f))),
        SetKind::AddrProtoPort(f) => Element::AddrProtoPort(addr(f), Protocol::TCP, 7),
        SetKind::NetPair(f) => Element::NetPair(Cidr::host(addr(f)), Cidr::any(f)),
        SetKind::NetProtoPorts(f) => {
            Element::NetProtoPorts(Cidr::host(addr(f)), Protocol::UDP, range("1:9"))
        }
        SetKind::IfName => Element::IfName(name(n)),
        SetKind::IfNameVerdict => {
            let to = chain(&format!("to{}", n % 3));
            Element::IfNameVerdict(name(n / 3), Verdict::Goto(to))
        }
        SetKind::IfNameAddr(f) => Element::IfNameAddr(name(n), addr(f)),
        SetKind::AddrToAddr(V4) => Element::AddrToAddr(v4(n / 3), v4(n % 3)),
        SetKind::AddrToAddr(V6) => Element::AddrToAddr(v6(n / 3), v6(n % 3)),
        SetKind::IfNameOverRate => {
            Element::IfNameOverRate(name(n / 3), Rate::new(1 + n % 3, Per::Day, 5))
        }
        SetKind::IfNameOverCount => Element::IfNameOverCount(name(n / 3), n % 3),
    }
}

fn kinds() -> impl Strategy<Value = SetKind> {
    let both = [V4, V6].into_iter().flat_map(|f| {
        [
            SetKind::Addr(f),
            SetKind::Net(f),
            SetKind::AddrProtoPort(f),
            SetKind::NetPair(f),
            SetKind::NetProtoPorts(f),
            SetKind::IfNameAddr(f),
            SetKind::AddrToAddr(f),
        ]
    });
    let one = [
        SetKind::IfName,
        SetKind::IfNameVerdict,
        SetKind::IfNameOverRate,
        SetKind::IfNameOverCount,
    ];
    prop::sample::select(both.chain(one).collect::<Vec<_>>())
}

#[derive(Debug, Clone)]
enum Step {
    Set(SetKind, Vec<u32>),
    Change(Vec<u32>, Vec<u32>),
    /// A plan is made; the next step comes before the news that it took effect.
    Plan,
    Commit,
    /// The kernel is read, and has these instead.
    Adopt(Vec<u32>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let few = || prop::collection::vec(0u32..120, 0..8);
    let many = || prop::collection::vec(0u32..120, 0..90);
    let some = || prop_oneof![few(), many()];
    let step = prop_oneof![
        1 => (kinds(), some()).prop_map(|(k, m)| Step::Set(k, m)),
        6 => (some(), some()).prop_map(|(a, d)| Step::Change(a, d)),
        2 => Just(Step::Plan),
        2 => Just(Step::Commit),
        1 => some().prop_map(Step::Adopt),
    ];
    prop::collection::vec(step, 1..24)
}

/// The same, said as plainly as can be.
fn change(model: &mut BTreeSet<Element>, add: &[Element], del: &[Element]) {
    for e in del {
        model.remove(e);
    }
    for e in add {
        if e.key().is_some() {
            model.retain(|m| m.key() != e.key());
        }
        model.insert(e.clone());
    }
}

fn elements(table: &Table) -> BTreeSet<Element> {
    let name = set("s");
    let wanted = table.desired();
    wanted
        .sets
        .get(&name)
        .map_or_else(BTreeSet::new, |s| s.elements.clone())
}

/// What the kernel would hold after a plan, member by member; it refuses what it would.
fn carry_out(plan: &Plan, live: &mut BTreeSet<Element>) {
    for op in &plan.ops {
        match op {
            Op::DeleteSet { .. } => live.clear(),
            Op::DeleteElements { elements, .. } => {
                elements
                    .iter()
                    .for_each(|e| assert!(live.remove(&e), "{e} is not there"));
            }
            Op::AddElements { elements, .. } => elements.iter().for_each(|e| {
                let other = e
                    .key()
                    .and_then(|k| live.iter().find(|l| l.key() == Some(k.clone())));
                assert!(other.is_none(), "{e} beside {other:?}");
                assert!(live.insert(e));
            }),
            _ => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn many_at_once_are_as_many_one_by_one(steps in steps()) {
        let mut table = Table::new(table_name());
        let mut kind = SetKind::Net(V4);
        table.set_set(&set("s"), kind, []).unwrap();
        let (mut model, mut live) = (BTreeSet::new(), BTreeSet::new());
        let mut sent: Option<Plan> = None;
        let all = |k, m: &[u32]| m.iter().map(|n| member(k, *n)).collect::<Vec<_>>();
        for step in steps.into_iter().chain([Step::Commit, Step::Plan, Step::Commit]) {
            match step {
                Step::Set(k, m) => {
                    kind = k;
                    model.clear();
                    change(&mut model, &all(k, &m), &[]);
                    table.set_set(&set("s"), k, all(k, &m)).unwrap();
                }
                Step::Change(a, d) => {
                    let (a, d) = (all(kind, &a), all(kind, &d));
                    change(&mut model, &a, &d);
                    table.set_elems(&set("s"), a, d).unwrap();
                }
                Step::Plan if sent.is_none() => sent = Some(table.plan()),
                Step::Plan => {}
                Step::Commit => if let Some(plan) = sent.take() {
                    carry_out(&plan, &mut live);
                    table.committed(&plan, &Receipt::default()).unwrap();
                    let known = table.actual();
                    let known: BTreeSet<_> = known.sets["s"].elements.iter().collect();
                    prop_assert_eq!(&known, &live);
                },
                Step::Adopt(m) => {
                    sent = None;
                    live.clear();
                    change(&mut live, &all(kind, &m), &[]);
                    let mut dump = table.actual();
                    dump.awake = true;
                    let s = dump.sets.entry("s".to_owned()).or_default();
                    s.kind = Some(kind);
                    s.elements = Members::collect(kind, live.iter().cloned());
                    table.adopt(dump);
                }
            }
            prop_assert_eq!(&elements(&table), &model);
        }
        prop_assert_eq!(&live, &model);
        prop_assert!(!table.is_dirty());
    }

    #[test]
    fn members_are_a_set(kind in kinds(), list in prop::collection::vec(0u32..200, 0..100), gone in 0u32..200) {
        let all: Vec<_> = list.iter().map(|n| member(kind, *n)).collect();
        let mut model = BTreeSet::new();
        change(&mut model, &all, &[]);
        let mut members = Members::collect(kind, all.iter().cloned());
        prop_assert_eq!(members.iter().collect::<BTreeSet<_>>(), model.clone());
        prop_assert_eq!(members.len(), model.len());
        let e = member(kind, gone);
        prop_assert_eq!(members.contains(&e), model.contains(&e));
        prop_assert_eq!(members.remove(&e), model.remove(&e));
        prop_assert_eq!(&members, &Members::collect(kind, model.into_iter().rev()));
        let other = if kind == SetKind::IfName { SetKind::Addr(V4) } else { SetKind::IfName };
        prop_assert!(!members.insert(&member(other, 1)));
    }
}
