//! What the book says, step by step.

use super::*;

fn names(list: &[&str]) -> Vec<Arc<str>> {
    list.iter().map(|n| Arc::from(*n)).collect()
}

fn answer(name: &str, addresses: &[&str], ttl: u32) -> Answer {
    let addresses = addresses.iter().map(|a| (a.parse().unwrap(), ttl));
    Answer {
        name: name.to_owned(),
        addresses: addresses.collect(),
    }
}

/// `name=address,address` or `name gone`, in order.
fn said(updates: Vec<Update>) -> Vec<String> {
    let mut all: Vec<String> = updates
        .into_iter()
        .map(|u| match u {
            Update::Domain(n, Some(a)) => {
                let a: Vec<String> = a.iter().map(ToString::to_string).collect();
                format!("{n}={}", a.join(","))
            }
            Update::Domain(n, None) => format!("{n} gone"),
            other => panic!("{other:?}"),
        })
        .collect();
    all.sort();
    all
}

const NOTHING: [&str; 0] = [];

fn seconds(s: u64) -> Duration {
    Duration::from_secs(s)
}

#[test]
fn only_watched_names_are_learned() {
    let mut b = Book::new(Limits::default());
    let t = Instant::now();
    assert_eq!(
        said(b.learn(&answer("a.x", &["192.0.2.1"], 60), t)),
        NOTHING
    );
    b.watch(&names(&["a.x", "*.b.x"]));
    let learn = |b: &mut Book, name| said(b.learn(&answer(name, &["192.0.2.1"], 60), t));
    assert_eq!(learn(&mut b, "a.x"), ["a.x=192.0.2.1"]);
    assert_eq!(learn(&mut b, "1.b.x"), ["1.b.x=192.0.2.1"]);
    assert_eq!(learn(&mut b, "2.1.b.x"), ["2.1.b.x=192.0.2.1"]);
    for other in ["b.x", "bb.x", "xa.x", "c.a.x", "x", "ab.x"] {
        assert_eq!(learn(&mut b, other), NOTHING, "{other}");
    }
    assert_eq!(b.size(), (3, 3));
    assert_eq!(
        said(b.watch(&names(&["2.1.b.x"]))),
        ["1.b.x gone", "a.x gone"]
    );
    assert_eq!(said(b.watch(&[])), ["2.1.b.x gone"]);
    assert_eq!(b.size(), (0, 0));
}

#[test]
fn addresses_gather_and_expire_one_by_one() {
    let mut b = Book::new(Limits::default());
    b.watch(&names(&["a"]));
    let t = Instant::now();
    assert_eq!(b.next(), None);
    let first = answer("a", &["192.0.2.1"], 100);
    assert_eq!(said(b.learn(&first, t)), ["a=192.0.2.1"]);
    // The next answer of a name with many addresses; the first is still in use.
    let second = answer("a", &["192.0.2.2", "fd00::1"], 200);
    assert_eq!(said(b.learn(&second, t)), ["a=192.0.2.1,192.0.2.2,fd00::1"]);
    // Heard again: longer, and nothing new to say.
    assert_eq!(said(b.learn(&first, t + seconds(50))), NOTHING);
    assert_eq!(said(b.expire(t + seconds(179))), NOTHING);
    assert_eq!(said(b.expire(t + seconds(180))), ["a=192.0.2.2,fd00::1"]);
    assert_eq!(b.next(), Some(t + seconds(230)));
    assert_eq!(said(b.expire(t + seconds(230))), ["a gone"]);
    assert_eq!(b.next(), None);
    assert_eq!(b.size(), (0, 0));
}

#[test]
fn times_have_a_floor_and_a_ceiling() {
    for (ttl, held) in [(0, 60), (29, 60), (31, 61), (u32::MAX, 86_430)] {
        let mut b = Book::new(Limits::default());
        b.watch(&names(&["a"]));
        let t = Instant::now();
        b.learn(&answer("a", &["192.0.2.1"], ttl), t);
        let end = t + seconds(held);
        assert_eq!(said(b.expire(end - seconds(1))), NOTHING, "{ttl}");
        assert_eq!(said(b.expire(end)), ["a gone"], "{ttl}");
    }
    // A shorter answer takes nothing back from a longer one.
    let mut b = Book::new(Limits::default());
    b.watch(&names(&["a"]));
    let t = Instant::now();
    b.learn(&answer("a", &["192.0.2.1"], 300), t);
    b.learn(&answer("a", &["192.0.2.1"], 1), t);
    assert_eq!(said(b.expire(t + seconds(329))), NOTHING);
}

#[test]
fn a_pattern_has_its_own_bounds() {
    let mut b = Book::new(Limits {
        names: 2,
        addresses: 2,
        ..Limits::default()
    });
    b.watch(&names(&["*.p", "*.q", "kept.p"]));
    let t = Instant::now();
    let mut learn = |name| said(b.learn(&answer(name, &["192.0.2.1"], 60), t));
    learn("kept.p");
    learn("1.q");
    learn("1.p");
    learn("2.p");
    assert_eq!(learn("1.p"), NOTHING);
    // The one not heard of for longest goes, and none of another's.
    assert_eq!(learn("3.p"), ["2.p gone", "3.p=192.0.2.1"]);
    assert_eq!(learn("4.p"), ["1.p gone", "4.p=192.0.2.1"]);
    assert_eq!(b.size(), (4, 4));
    // Of addresses that which ends first goes.
    b.learn(&answer("1.q", &["192.0.2.2"], 900), t);
    let third = b.learn(&answer("1.q", &["192.0.2.3"], 90), t);
    assert_eq!(said(third), ["1.q=192.0.2.2,192.0.2.3"]);
}
