//! The language, by example and by property.

use super::*;
use crate::Labels;
use proptest::prelude::*;

fn s(text: &str) -> Selector {
    Selector::parse(text).unwrap_or_else(|e| panic!("{e}"))
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::new(pairs.iter().copied())
}

#[test]
fn canonical_text() {
    for (text, canonical) in [
        ("", "all()"),
        (" \t ", "all()"),
        ("all( )", "all()"),
        ("a=='b'", "a == \"b\""),
        ("a == '\"'", "a == '\"'"),
        ("a in {'c','a','a',}", "a in {\"a\", \"c\"}"),
        ("a notin {}", "a not in {}"),
        ("a not  in{\"x\"}", "a not in {\"x\"}"),
        ("!!has(a)", "has(a)"),
        ("! has( a )&&b!='c'", "(!has(a) && b != \"c\")"),
        (
            "has(a) || has(b) && has(c)",
            "(has(a) || (has(b) && has(c)))",
        ),
        (
            "(has(a) || has(b)) && has(c)",
            "((has(a) || has(b)) && has(c))",
        ),
        (
            "a starts with 'x' && a endswith 'y' && a contains 'z'",
            "(a starts with \"x\" && a ends with \"y\" && a contains \"z\")",
        ),
        ("all == 'x'", "all == \"x\""),
        ("has == 'x'", "has == \"x\""),
        ("in in {'in'}", "in in {\"in\"}"),
        (
            "projectcalico.org/name == 'x'",
            "projectcalico.org/name == \"x\"",
        ),
    ] {
        assert_eq!(s(text).as_str(), canonical, "{text}");
        assert_eq!(s(canonical).as_str(), canonical);
    }
}

#[test]
fn errors_point_at_the_column() {
    for (text, column, message) in [
        ("has(a", 6, "expected )"),
        ("a", 2, "expected operator after label"),
        ("a == ", 6, "expected a quoted string"),
        ("a == 'x", 6, "unterminated string"),
        ("a == 'x' b", 10, "unexpected content at end of selector"),
        ("a == 'x' &&", 12, "unexpected end of selector"),
        ("a in 'x'", 6, "expected {"),
        ("a in {'x' 'y'}", 11, "expected , or }"),
        ("a = 'x'", 3, "expected operator after label"),
        ("é == 'x'", 1, "expected a label, a function or ("),
        ("a == 'é' ?", 10, "unexpected content at end of selector"),
        ("()", 2, "expected a label, a function or ("),
    ] {
        let e = Selector::parse(text).expect_err(text);
        assert_eq!((e.column, e.message.as_str()), (column, message), "{text}");
    }
    assert!(Selector::parse(&format!("{} == 'x'", "l".repeat(513))).is_err());
    assert!(Selector::parse(&"(".repeat(100_000)).is_err());
}

#[test]
fn absent_labels() {
    let none = labels(&[]);
    assert!(
        s("a != 'x'").matches(&none)
            && s("a not in {'x'}").matches(&none)
            && s("a not in {}").matches(&none)
    );
    assert!(
        !s("a == ''").matches(&none)
            && !s("a in {''}").matches(&none)
            && !s("a contains ''").matches(&none)
    );
    assert!(s("a contains ''").matches(&labels(&[("a", "")])));
    assert!(
        s("global()").matches(&none) && !s("global()").matches(&labels(&[(NAMESPACE_LABEL, "x")]))
    );
}

#[test]
fn own_labels_shadow_inherited_ones() {
    let own = labels(&[("a", "1")]);
    let parent = labels(&[("a", "2"), ("b", "3")]);
    let both = (&own, &parent);
    assert!(s("a == '1' && b == '3'").matches(&both) && !s("a == '2'").matches(&both));
}

#[test]
fn combining() {
    assert_eq!(
        s("has(a)").and(&s("has(b) && has(c)")).as_str(),
        "(has(a) && has(b) && has(c))"
    );
    assert_eq!(s("all()").and(&s("has(b)")).as_str(), "has(b)");
    assert_eq!(
        s("a == 'x' || has(b)").prefixed("pcns.").as_str(),
        "(pcns.a == \"x\" || has(pcns.b))"
    );
    assert_eq!(s("!has(a)").negate(), s("has(a)"));
    assert!(s("has(a) || !global()").has_global());
}

fn expr() -> impl Strategy<Value = Expr> {
    let label = || {
        prop::sample::select(vec!["a", "b", "x/y", "in", "not", "all"]).prop_map(Arc::<str>::from)
    };
    let value =
        || prop::sample::select(vec!["", "1", "2", "a b", "\"", "}"]).prop_map(Arc::<str>::from);
    let set = move || {
        prop::collection::btree_set(value(), 0..3).prop_map(|v| v.into_iter().collect::<Vec<_>>())
    };
    let leaf = prop_oneof![
        (label(), value()).prop_map(|(l, v)| Expr::Eq(l, v)),
        (label(), value()).prop_map(|(l, v)| Expr::Ne(l, v)),
        (label(), set()).prop_map(|(l, v)| Expr::In(l, v)),
        (label(), set()).prop_map(|(l, v)| Expr::NotIn(l, v)),
        (label(), value()).prop_map(|(l, v)| Expr::Contains(l, v)),
        (label(), value()).prop_map(|(l, v)| Expr::StartsWith(l, v)),
        (label(), value()).prop_map(|(l, v)| Expr::EndsWith(l, v)),
        label().prop_map(Expr::Has),
        Just(Expr::All),
        Just(Expr::Global),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            inner
                .clone()
                .prop_filter("printed once", |e| !matches!(e, Expr::Not(_)))
                .prop_map(|e| Expr::Not(Box::new(e))),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Expr::And),
            prop::collection::vec(inner, 2..4).prop_map(Expr::Or),
        ]
    })
}

proptest! {
    /// The canonical text reads back as the same expression, so the two never disagree.
    #[test]
    fn canonical_text_reads_back(e in expr()) {
        let sel = Selector::from_expr(e.clone());
        let back = s(sel.as_str());
        prop_assert_eq!(back.expr(), &e);
        prop_assert_eq!(back.as_str(), sel.as_str());
    }

    /// No text makes the parser panic, and errors point into it.
    #[test]
    fn any_text_is_met_with_an_answer(text in ".{0,60}") {
        if let Err(e) = Selector::parse(&text) {
            prop_assert!(e.column >= 1 && e.column <= text.chars().count() + 1);
        }
    }
}
