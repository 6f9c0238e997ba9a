//! Members take little room. A program of its own: others' memory is not counted.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;
use net::{Cidr, Family};
use nftables::*;
use std::time::Instant;
use support::*;

fn host(f: Family, n: u32) -> Element {
    let low = if f == V4 { 10 << 24 } else { 0xfd << 120 };
    Element::Net(Cidr::host(f.addr(low + u128::from(n))))
}

fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|l| l.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A set of 50,000 members costs what its members cost, whatever was done to it.
#[test]
fn a_large_set_is_small() {
    let mut table = Table::new(table_name());
    let all = || (0..50_000).map(|n| host(V4, n * 3));
    let before = resident();
    table.set_set(&set("s"), SetKind::Net(V4), all()).unwrap();
    for n in 0..200 {
        let plan = table.plan();
        table.committed(&plan, &Receipt::default()).unwrap();
        let (a, d) = (host(V4, n * 3 + 1), host(V4, n * 3));
        table.set_elems(&set("s"), [a], [d]).unwrap();
    }
    let dump = table.actual();
    table.adopt(dump);
    let grown = resident().saturating_sub(before);
    // 250 kB of members; allocators keep some of what passed through.
    assert!(grown < 4096, "{grown} kB");
}

/// By hand, since it fills a kernel with a million members.
#[test]
#[ignore = "takes memory and time; prints figures"]
fn ten_thousand_sets() {
    in_ns(|_| {
        let mut sys = Sys::open(table_name()).unwrap();
        let mut table = Table::new(table_name());
        let before = resident();
        let mut count = 0;
        for s in 0..10_000u32 {
            let family = if s % 2 == 0 { V4 } else { V6 };
            // Most are small, some have a thousand.
            let n = if s % 20 == 0 { 1000 } else { s % 100 };
            count += n;
            let members = (0..n).map(|m| host(family, (m * 7919 + s) % (1 << 20)));
            table
                .set_set(&set(&format!("s{s}")), SetKind::Net(family), members)
                .unwrap();
        }
        println!("{count} members wanted: {} kB", resident() - before);
        let at = Instant::now();
        sys.sync(&mut table).unwrap();
        println!(
            "programmed in {:?}: {} kB",
            at.elapsed(),
            resident() - before
        );
        let at = Instant::now();
        table.adopt(sys.read().unwrap());
        assert!(table.plan().is_empty());
        println!(
            "read and compared in {:?}: {} kB",
            at.elapsed(),
            resident() - before
        );
        let at = Instant::now();
        table
            .set_elems(&set("s9999"), [host(V6, 1 << 21)], [])
            .unwrap();
        sys.sync(&mut table).unwrap();
        println!("one member in {:?}", at.elapsed());
    });
}
