//! Values that cannot be programmed cannot be made; deltas mean what they say.
#![allow(clippy::unwrap_used)]

mod support;
use net::Protocol;
use nftables::*;
use support::*;

#[test]
fn names_are_identifiers_of_bounded_length() {
    for ok in [
        "a",
        "_x",
        "filter-FORWARD",
        "pi/ns.name_1",
        &"x".repeat(127),
    ] {
        assert_eq!(ChainName::new(ok).unwrap().as_str(), ok);
    }
    for bad in ["", "1a", "-a", "a b", "a\"b", "é", "a;b", &"x".repeat(128)] {
        assert!(SetName::new(bad).is_err(), "{bad}");
    }
}

#[test]
fn text_is_made_to_fit() {
    assert_eq!(Text::new("a\"b\\c\nd").as_str(), "a'b'c d");
    let long = Text::new(&"é".repeat(100));
    assert_eq!(long.as_str().len(), 126, "cut between characters");
}

#[test]
fn lists_are_canonical() {
    assert_eq!(
        nets(&["10.1.0.0/16", "10.0.0.0/8", "9.0.0.1/32"]),
        nets(&["9.0.0.1", "10.0.0.0/8"])
    );
    assert_eq!(ports(&["81", "80", "79:80"]), ports(&["79:81"]));
    assert_eq!(NetList::new(vec![]), Err(ValueError::Empty("prefixes")));
    assert!(matches!(
        NetList::new(vec![cidr("10.0.0.0/8"), cidr("fd00::/8")]),
        Err(ValueError::MixedFamilies(..))
    ));
    assert!(PortList::new(vec![]).is_err());
}

#[test]
fn deltas_say_what_is_wrong_and_change_nothing_then() {
    let mut t = Table::new(table_name());
    let s = set("s");
    let a = |x: &str| Element::Addr(ip(x));
    assert_eq!(
        t.set_elems(&s, [a("10.0.0.1")], []),
        Err(ValueError::UnknownSet(s.clone()))
    );
    let wrong = t
        .set_set(&s, SetKind::Addr(V4), [a("10.0.0.1"), a("fd00::1")])
        .unwrap_err();
    assert_eq!(
        wrong.to_string(),
        "element fd00::1 does not fit set s of type ipv4_addr;"
    );
    assert!(!t.is_dirty());
    t.set_set(&s, SetKind::Addr(V4), [a("10.0.0.1")]).unwrap();
    let other = Element::AddrProtoPort(ip("10.0.0.1"), Protocol::TCP, 80);
    assert!(t.set_elems(&s, [a("10.0.0.2"), other], []).is_err());
    assert_eq!(t.desired().sets[&s].elements.len(), 1);
}

#[test]
fn a_map_has_one_verdict_a_key() {
    in_ns(|ns| {
        let mut sys = Sys::open(table_name()).unwrap();
        let mut t = Table::new(table_name());
        let m = set("m");
        let e = |i: &str, v| Element::IfNameVerdict(ifname(i), v);
        let go = |c: &str| Verdict::Goto(chain(c));
        ["a", "b", "c"]
            .iter()
            .for_each(|c| t.set_chain(&chain(c), Chain::default()));
        t.set_set(
            &m,
            SetKind::IfNameVerdict,
            [e("x", go("a")), e("y", go("a"))],
        )
        .unwrap();
        sys.sync(&mut t).unwrap();
        // Another verdict replaces; the last of several counts; an old verdict deletes nothing.
        t.set_elems(&m, [e("x", go("b")), e("x", go("c"))], [e("y", go("b"))])
            .unwrap();
        let plan = t.plan();
        assert_eq!(plan.ops.len(), 2, "one out, one in: {plan:?}");
        sys.sync(&mut t).unwrap();
        assert!(listing(ns).contains("\"x\" : goto c"));
        assert!(listing(ns).contains("\"y\" : goto a"));
        // There and back is nothing to do.
        t.set_elems(&m, [e("x", go("b"))], []).unwrap();
        t.set_elems(&m, [e("x", go("c"))], []).unwrap();
        assert!(t.plan().is_empty());
        // The target goes in the same transaction as its last use.
        t.set_elems(&m, [], [e("x", go("c"))]).unwrap();
        t.remove_chain(&chain("c"));
        sys.sync(&mut t).unwrap();
        assert_eq!(sys.read().unwrap(), t.actual());
    });
}
