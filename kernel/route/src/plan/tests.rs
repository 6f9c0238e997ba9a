//! The plan against a model of the kernel's table.

use super::*;
use crate::value::{Hop, Kind, Proto, Table};
use net::{Cidr, IfIndex};
use proptest::prelude::*;
use std::net::IpAddr;

/// What the kernel would hold of ours after the plan; foreign keys refuse additions.
fn replay(plan: &Plan, actual: &Actual) -> Vec<Route> {
    let mut table = actual.ours.clone();
    for op in &plan.ops {
        match op {
            Op::Add(r) => {
                assert!(
                    !table.iter().any(|t| t.key == r.key),
                    "EEXIST for an own route: {r}"
                );
                if !actual.foreign.contains(&r.key) {
                    table.push(r.clone());
                }
            }
            Op::Replace(r) => {
                assert!(
                    !actual.foreign.contains(&r.key),
                    "would hit a foreign route: {r}"
                );
                let old = table
                    .iter_mut()
                    .find(|t| t.key == r.key)
                    .expect("something to replace");
                *old = r.clone();
            }
            Op::Delete(r) => {
                let i = table
                    .iter()
                    .position(|t| t == r)
                    .expect("something to delete");
                table.remove(i);
            }
        }
    }
    table.sort();
    table
}

prop_compose! {
    fn any_route()(
        v6: bool, n in 0u8..4, metric in 0u32..2, kind in 0u8..5, dev in 1u32..3, proto in 0u8..2,
    ) -> Route {
        let dst: Cidr = if v6 { format!("fd00:{n}::/64") } else { format!("10.0.{n}.0/24") }
            .parse().unwrap();
        let gw: IpAddr = if v6 { "fe80::1" } else { "192.0.2.1" }.parse().unwrap();
        let dev = IfIndex::new(dev).unwrap();
        let proto = if proto == 0 { Proto::OURS } else { Proto::BOOT };
        let r = match kind {
            0 => Route::unicast(Table::MAIN, dst, Hop::dev(dev), proto),
            1 => Route::unicast(Table::MAIN, dst, Hop::via(gw, dev), proto),
            2 => Route::unicast(Table::MAIN, dst, Hop::onlink(gw, dev), proto),
            3 => Route::dead_end(Table::MAIN, dst, Kind::Throw, proto),
            _ => Route::dead_end(Table::MAIN, dst, Kind::Blackhole, proto),
        };
        r.with_metric(metric)
    }
}

fn routes(max: usize) -> impl Strategy<Value = Vec<Route>> {
    prop::collection::btree_set(any_route(), 0..max).prop_map(|s| s.into_iter().collect())
}

proptest! {
    #[test]
    fn every_state_leads_to_the_desired_one(
        ours in routes(8), want in routes(8), theirs in routes(2),
    ) {
        let want: BTreeMap<_, _> = want.into_iter().map(|r| (r.key, r)).collect();
        let foreign = theirs.iter().map(|r| r.key).collect();
        let actual = Actual { ours, foreign };
        let after = replay(&plan(&actual, want.values()), &actual);
        let mut expected: Vec<_> = want
            .into_values()
            .filter(|r| actual.ours.contains(r) || !actual.foreign.contains(&r.key))
            .collect();
        expected.sort();
        prop_assert_eq!(&after, &expected);
        let again = plan(&Actual { ours: after, foreign: BTreeSet::new() }, &expected);
        prop_assert!(again.ops.is_empty(), "{again:?}");
    }

    #[test]
    fn order_of_input_does_not_matter(ours in routes(8), want in routes(8)) {
        let want: BTreeMap<_, _> = want.into_iter().map(|r| (r.key, r)).collect();
        let actual = Actual { ours: ours.clone(), foreign: BTreeSet::new() };
        let forward = plan(&actual, want.values());
        let backward = plan(&actual, want.values().rev());
        prop_assert_eq!(forward, backward);
    }

    #[test]
    fn what_leans_comes_after_what_carries(want in routes(8)) {
        let ops = plan(&Actual::default(), &want).ops;
        let first = ops.iter().position(|o| o.route().leans()).unwrap_or(ops.len());
        prop_assert!(ops[first..].iter().all(|o| o.route().leans()));
    }
}

#[test]
fn a_changed_hop_is_one_replacement() {
    let dst: Cidr = "10.1.0.0/26".parse().unwrap();
    let dev = IfIndex::new(3).unwrap();
    let hop = |s: &str| Hop::onlink(s.parse().unwrap(), dev);
    let old = Route::unicast(Table::MAIN, dst, hop("10.9.0.1"), Proto::OURS);
    let new = Route::unicast(Table::MAIN, dst, hop("10.9.0.2"), Proto::OURS);
    let actual = Actual {
        ours: vec![old],
        foreign: BTreeSet::new(),
    };
    assert_eq!(plan(&actual, [&new]).ops, [Op::Replace(new.clone())]);
}

#[test]
fn ipv6_metric_0_is_not_a_difference() {
    let dst: Cidr = "fd00::/122".parse().unwrap();
    let kernel = Route::dead_end(Table::MAIN, dst, Kind::Blackhole, Proto::OURS).with_metric(1024);
    let mut want = kernel.clone();
    want.key.metric = 0;
    let actual = Actual {
        ours: vec![kernel],
        foreign: BTreeSet::new(),
    };
    assert!(plan(&actual, [&want]).ops.is_empty());
}
