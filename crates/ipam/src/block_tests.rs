//! Tests of the block steps and of the stored form.

use super::*;
use serde_json::json;

fn c(s: &str) -> Cidr {
    s.parse().expect("test CIDR")
}

fn a(s: &str) -> IpAddr {
    s.parse().expect("test address")
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_767_225_600 + second).expect("in range")
}

fn attrs(pod: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("pod".to_owned(), pod.to_owned())])
}

fn block(cidr: &str) -> Block {
    Block::new(c(cidr), &Owner::host("n1"), at(0), 0).expect("small")
}

fn addrs(taken: &[Assigned]) -> Vec<String> {
    taken.iter().map(|t| t.address.to_string()).collect()
}

fn json_of(b: &Block) -> Value {
    serde_json::from_slice(&b.encode()).expect("JSON")
}

#[test]
fn the_stored_form_is_the_shared_one() {
    let mut b = block("10.0.0.0/30");
    let none = Reservations::default();
    b.take(2, "net.x", &attrs("web"), &none);
    let seq = 1_767_225_600_000_000_000_u64;
    let want = json!({
        "cidr": "10.0.0.0/30",
        "affinity": "host:n1",
        "affinity_claim_time": "2026-01-01T00:00:00Z",
        "allocations": [0, 0, null, null],
        "unallocated": [2, 3],
        "attributes": [{"handle_id": "net.x", "secondary": {"pod": "web"}}],
        "sequenceNumber": seq,
        "sequenceNumberForAllocation": {"0": seq, "1": seq},
        "deleted": false,
    });
    assert_eq!(json_of(&b), want);
    assert_eq!(Block::decode(&b.encode()), Ok(b));
}

#[test]
fn a_block_from_elsewhere_keeps_what_we_do_not_know() {
    let text = json!({
        "cidr": "fd00::/126", "affinity": null, "hostAffinity": "old",
        "allocations": [0, null, null, null], "unallocated": [3, 1, 1, 0, 9],
        "attributes": [{
            "handle_id": "x\r\neth0", "secondary": {"vmi-name": "v", "odd": "1"},
            "alternateOwnerAttrs": {"pod": "p2"}, "future": {"k": [1]},
        }],
        "sequenceNumber": 18_446_744_073_709_551_000_u64,
        "sequenceNumberForAllocation": null, "strictAffinity": false, "future": 1,
    });
    let b = Block::decode(text.to_string().as_bytes()).expect("valid");
    assert_eq!(b.affinity(), Some("host:old"));
    assert_eq!(b.sequence(), 18_446_744_073_709_551_000);
    let held: Vec<_> = b.held_by("x").map(|h| h.address).collect();
    assert_eq!(held, [a("fd00::")]);
    let v = json_of(&b);
    // 0 is held, 1 was listed twice, 2 was lost, 9 is not of the block.
    assert_eq!(v["unallocated"], json!([3, 1, 2]));
    assert_eq!(v["attributes"], text["attributes"]);
    assert_eq!(
        (&v["future"], &v["strictAffinity"]),
        (&json!(1), &json!(false))
    );
    assert_eq!(v.get("hostAffinity"), None);

    for bad in [
        json!({"cidr": "10.0.0.0/30", "allocations": [null]}),
        json!({"cidr": "10.0.0.1/30", "allocations": [null, null, null, null]}),
        json!({"cidr": "10.0.0.0/32", "allocations": [0]}),
        json!({"cidr": "10.0.0.0/32", "allocations": [-1], "attributes": [{}]}),
        json!([]),
    ] {
        assert!(Block::decode(bad.to_string().as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn freed_addresses_are_used_last() {
    let none = Reservations::default();
    let mut b = block("10.0.0.0/30");
    assert_eq!(
        addrs(&b.take(2, "x", &attrs("p"), &none)),
        ["10.0.0.0", "10.0.0.1"]
    );
    b.release(&[ReleaseOption::any(a("10.0.0.0"))], at(1), 0)
        .expect("held");
    let got = b.take(9, "y", &attrs("q"), &none);
    assert_eq!(addrs(&got), ["10.0.0.2", "10.0.0.3", "10.0.0.0"]);
    assert!(b.take(1, "z", &attrs("r"), &none).is_empty());
}

#[test]
fn cool_down_holds_addresses_back_in_order_of_release() {
    let none = Reservations::default();
    let mut b = block("fd00::/126");
    b.take(3, "x", &attrs("p"), &none);
    b.release(&[ReleaseOption::any(a("fd00::2"))], at(10), 30)
        .expect("held");
    b.release(&[ReleaseOption::any(a("fd00::"))], at(11), 30)
        .expect("held");
    assert_eq!(
        (
            b.free(&none),
            b.cooling().count(),
            b.is_unused(),
            b.is_empty()
        ),
        (1, 2, false, false)
    );
    assert!(matches!(
        b.take_exact(a("fd00::"), "y", &attrs("q")),
        Err(Error::CoolingDown { .. })
    ));
    // Already free: not an error, and not freed again.
    let again = b
        .release(&[ReleaseOption::any(a("fd00::"))], at(12), 30)
        .expect("no error");
    assert_eq!(
        (again.freed.len(), again.unallocated),
        (0, vec![a("fd00::")])
    );
    b.collect(at(39), 30);
    assert_eq!(b.free(&none), 1);
    b.collect(at(60), 30);
    assert_eq!(
        addrs(&b.take(9, "y", &attrs("q"), &none)),
        ["fd00::3", "fd00::2", "fd00::"]
    );
    assert_eq!(json_of(&b)["attributes"].as_array().map(Vec::len), Some(2));
}

#[test]
fn part_of_a_second_never_shortens_a_cool_down() {
    let mut b = block("10.0.0.0/32");
    b.take(1, "x", &attrs("p"), &Reservations::default());
    let late = at(10) + jiff::SignedDuration::from_millis(900);
    b.release(&[ReleaseOption::any(a("10.0.0.0"))], late, 5)
        .expect("held");
    b.collect(at(15), 5);
    assert_eq!(b.free(&Reservations::default()), 0);
    b.collect(at(16), 5);
    assert_eq!(b.free(&Reservations::default()), 1);
}

#[test]
fn reserved_addresses_are_passed_over_but_can_be_asked_for() {
    let reserved = Reservations::new([c("10.0.0.0/31")]);
    let mut b = block("10.0.0.0/30");
    assert_eq!(b.free(&reserved), 2);
    assert_eq!(
        addrs(&b.take(4, "x", &attrs("p"), &reserved)),
        ["10.0.0.2", "10.0.0.3"]
    );
    assert!(b.take_exact(a("10.0.0.1"), "x", &attrs("p")).is_ok());
    let e = b
        .take_exact(a("10.0.0.1"), "y", &attrs("p"))
        .expect_err("in use");
    assert_eq!(e.to_string(), "address 10.0.0.1 is already assigned to x");
    assert!(matches!(
        b.take_exact(a("10.0.1.1"), "y", &attrs("p")),
        Err(Error::OutsidePools(_))
    ));
}

#[test]
fn a_release_that_speaks_of_an_older_assignment_changes_nothing() {
    let none = Reservations::default();
    let mut b = block("10.0.0.0/31");
    let first = b.take(1, "x", &attrs("p"), &none)[0];
    b.touch();
    b.release_handle("x", at(1), 0);
    b.touch();
    b.take(2, "y", &attrs("q"), &none);
    let before = b.clone();
    let stale = ReleaseOption {
        sequence: Some(first.sequence),
        ..ReleaseOption::any(first.address)
    };
    let fine = ReleaseOption::any(a("10.0.0.1"));
    assert!(matches!(
        b.release(&[fine.clone(), stale], at(2), 0),
        Err(Error::BadSequenceNumber { .. })
    ));
    let other = ReleaseOption {
        handle: Some("x".into()),
        ..ReleaseOption::any(first.address)
    };
    assert!(matches!(
        b.release(&[fine.clone(), other], at(2), 0),
        Err(Error::BadHandle { .. })
    ));
    assert_eq!(b, before);
    let done = b.release(&[fine.clone(), fine], at(2), 0).expect("held");
    assert_eq!(done.by_handle, BTreeMap::from([("y".to_owned(), 1)]));
}

#[test]
fn numbers_do_not_repeat_in_a_block_that_is_made_anew() {
    let old = block("10.0.0.0/30");
    let new = Block::new(old.cidr(), &Owner::host("n2"), at(-5), old.sequence()).expect("small");
    assert!(new.sequence() > old.sequence());
    assert_eq!(
        Block::new(c("10.0.0.0/16"), &Owner::host("n"), at(0), 0),
        None
    );
}

#[test]
fn what_windows_keeps_does_not_count_as_use() {
    let mut b = block("10.0.0.0/30");
    b.take(
        1,
        "Windows-Reserved-IPAM-Handle",
        &attrs("p"),
        &Reservations::default(),
    );
    assert!(b.is_unused() && b.is_empty());
}

#[test]
fn keys_round_trip() {
    for (cidr, key) in [
        (
            "10.0.0.64/26",
            "/calico/ipam/v2/assignment/ipv4/block/10.0.0.64-26",
        ),
        (
            "fd00:1::40/122",
            "/calico/ipam/v2/assignment/ipv6/block/fd00:1::40-122",
        ),
    ] {
        assert_eq!(Block::key(c(cidr)), key);
        assert_eq!(Block::parse_key(key), Some(c(cidr)));
    }
    assert_eq!(
        Block::parse_key("/calico/ipam/v2/assignment/ipv6/block/10.0.0.64-26"),
        None
    );
}
