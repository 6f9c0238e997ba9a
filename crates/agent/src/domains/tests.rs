//! The file between two agents.

use super::*;

fn said(updates: &[Update]) -> Vec<String> {
    let mut all: Vec<String> = updates.iter().map(|u| format!("{u:?}")).collect();
    all.sort();
    all
}

#[test]
fn the_next_agent_knows_what_has_not_expired() {
    let (t, wall) = (Instant::now(), UNIX_EPOCH + Duration::from_secs(2_000_000));
    let at = |s| t + Duration::from_secs(s);
    let ip = |a: &str| a.parse::<IpAddr>().unwrap();
    let mut old = Book::new(Limits::default());
    old.watch(&["a.x".into(), "*.p".into()]);
    let long = [(ip("192.0.2.1"), at(500)), (ip("fd00::1"), at(100))];
    let all = [
        old.hear("a.x", long.into_iter()),
        old.hear("1.p", [(ip("192.0.2.2"), at(50))].into_iter()),
    ];
    assert_eq!(all.concat().len(), 2);
    let text = keep(&old, t, wall);

    let mut same = Book::new(Limits::default());
    let known = restore(&mut same, &text, t, wall).unwrap();
    assert_eq!(said(&known), said(&all.concat()));
    assert_eq!(keep(&same, t, wall), text);

    // A minute later, by a clock of its own.
    let later = t + Duration::from_secs(9_999);
    let mut next = Book::new(Limits::default());
    let known = restore(&mut next, &text, later, wall + Duration::from_secs(60)).unwrap();
    assert_eq!(known.len(), 1);
    assert_eq!(next.size(), (1, 2));
    assert_eq!(next.next(), Some(later + Duration::from_secs(40)));
    assert_eq!(next.expire(later + Duration::from_secs(440)).len(), 1);
    assert_eq!(next.size(), (0, 0));

    // A clock that went back keeps nothing for ever.
    let mut back = Book::new(Limits::default());
    restore(&mut back, &text, t, UNIX_EPOCH).unwrap();
    assert_eq!(back.expire(t + Duration::from_secs(90_000)).len(), 2);
}

#[test]
fn another_file_is_nothing() {
    for text in [
        "",
        "[]",
        "{}",
        r#"{"names":[],"watched":[]}"#,
        r#"{"names":{"a":1},"watched":["a"]}"#,
    ] {
        let mut b = Book::new(Limits::default());
        assert!(restore(&mut b, text, Instant::now(), SystemTime::now()).is_none());
    }
}
