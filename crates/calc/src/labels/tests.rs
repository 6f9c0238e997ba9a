//! The index against evaluating everything.

use super::*;
use model::LabelSource;
use proptest::prelude::*;
use std::collections::BTreeMap;

const SELECTORS: [&str; 16] = [
    "all()",
    "global()",
    "a == 'x'",
    "a != 'x'",
    "a in {'x', 'y'}",
    "a not in {'x', 'y'}",
    "has(a)",
    "!has(a)",
    "a == 'x' && b == 'y'",
    "a == 'x' || b == 'y'",
    "has(b) && !(a == 'y')",
    "b contains 'y'",
    "b starts with 'y' || b ends with 'x'",
    "c == 'x' && a in {}",
    "projectcalico.org/namespace == 'x' && has(c)",
    "(a == 'x' || has(c)) && (b == 'x' || !has(b))",
];

#[derive(Debug, Clone)]
enum Op {
    Add(BTreeMap<&'static str, &'static str>, Vec<&'static str>),
    Drop(usize),
    Profile(&'static str, Option<BTreeMap<&'static str, &'static str>>),
    Select(usize),
    Deselect(usize),
}

fn labels() -> impl Strategy<Value = BTreeMap<&'static str, &'static str>> {
    let key = prop::sample::select(vec!["a", "b", "c", "projectcalico.org/namespace"]);
    prop::collection::btree_map(key, prop::sample::select(vec!["x", "y", "xy"]), 0..3)
}

fn op() -> impl Strategy<Value = Op> {
    let profile = prop::sample::select(vec!["p", "q", "r"]);
    prop_oneof![
        3 => (labels(), prop::collection::vec(profile.clone(), 0..3)).prop_map(|(l, p)| Op::Add(l, p)),
        2 => any::<usize>().prop_map(Op::Drop),
        2 => (profile, prop::option::of(labels())).prop_map(|(p, l)| Op::Profile(p, l)),
        3 => (0..SELECTORS.len()).prop_map(Op::Select),
        2 => any::<usize>().prop_map(Op::Deselect),
    ]
}

fn model_labels(l: &BTreeMap<&'static str, &'static str>) -> Labels {
    Labels::new(l.iter().map(|(k, v)| (*k, *v)))
}

#[derive(Default)]
struct Model {
    held: Vec<(LabelSetId, Labels, Vec<ProfileId>)>,
    profiles: BTreeMap<ProfileId, Labels>,
    selected: Vec<(SelectorId, Selector)>,
}

impl Model {
    fn matches(&self, selector: &Selector, labels: &Labels, profiles: &[ProfileId]) -> bool {
        let parents: Vec<Labels> = profiles
            .iter()
            .filter_map(|p| self.profiles.get(p).cloned())
            .collect();
        struct Both<'a>(&'a Labels, &'a [Labels]);
        impl LabelSource for Both<'_> {
            fn label(&self, key: &str) -> Option<&str> {
                self.0.label(key).or_else(|| self.1.label(key))
            }
        }
        selector.matches(&Both(labels, &parents))
    }

    fn check(&self, index: &Index) {
        for (sid, selector) in &self.selected {
            for (lid, labels, profiles) in &self.held {
                let want = self.matches(selector, labels, profiles);
                assert_eq!(
                    index.matches(*lid).contains(sid),
                    want,
                    "{selector} {labels:?}"
                );
                assert_eq!(
                    index.matching(*sid).contains(lid),
                    want,
                    "{selector} {labels:?}"
                );
            }
        }
    }
}

fn step(op: Op, index: &mut Index, model: &mut Model) {
    match op {
        Op::Add(l, p) => {
            let labels = model_labels(&l);
            let profiles: Vec<ProfileId> = p.iter().map(|p| Arc::from(*p)).collect();
            let (id, new) = index.acquire_labels(&labels, &profiles);
            assert_eq!(new, !model.held.iter().any(|h| h.0 == id));
            model.held.push((id, labels, profiles));
        }
        Op::Drop(i) if !model.held.is_empty() => {
            let (id, ..) = model.held.swap_remove(i % model.held.len());
            index.release_labels(id);
        }
        Op::Profile(p, l) => {
            let labels = l.as_ref().map(model_labels);
            let before: BTreeMap<LabelSetId, Vec<SelectorId>> = model
                .held
                .iter()
                .map(|h| (h.0, index.matches(h.0).to_vec()))
                .collect();
            let changes = index.set_profile(&Arc::from(p), labels.as_ref());
            for c in &changes {
                assert_ne!(before[&c.set].contains(&c.selector), c.matches);
            }
            let differing: usize = before
                .iter()
                .map(|(id, old)| {
                    let now = index.matches(*id);
                    old.iter().filter(|s| !now.contains(s)).count()
                        + now.iter().filter(|s| !old.contains(s)).count()
                })
                .sum();
            assert_eq!(differing, changes.len());
            match labels {
                Some(l) => drop(model.profiles.insert(p.into(), l)),
                None => drop(model.profiles.remove(p)),
            }
        }
        Op::Select(i) => {
            let selector = Selector::parse(SELECTORS[i]).expect("a test selector");
            let id = index.acquire_selector(&selector);
            model.selected.push((id, selector));
        }
        Op::Deselect(i) if !model.selected.is_empty() => {
            let (id, _) = model.selected.swap_remove(i % model.selected.len());
            index.release_selector(id);
        }
        Op::Drop(_) | Op::Deselect(_) => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn matches_what_evaluating_everything_matches_and_forgets_all(ops in prop::collection::vec(op(), 0..60)) {
        let mut index = Index::default();
        let mut model = Model::default();
        for op in ops {
            step(op, &mut index, &mut model);
            model.check(&index);
        }
        for (id, ..) in model.held {
            index.release_labels(id);
        }
        for (id, _) in model.selected {
            index.release_selector(id);
        }
        for p in model.profiles.keys() {
            index.set_profile(p, None);
        }
        prop_assert!(index.is_empty());
    }
}
