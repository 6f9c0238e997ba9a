//! What must hold of a label set for a selector to be worth evaluating.
//!
//! Promises: whatever a selector matches, one of its probes holds for. Of several
//! ways to probe, the one is chosen that brings label sets and selectors together least often.
//!
//! Never: says that a selector matches.

use super::Index;
use crate::interner::Word;
use model::selector::Expr;
use smallvec::SmallVec;

/// A property of a label set, own or inherited labels alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Probe {
    /// The label has this value.
    Pair(Word, Word),
    /// The label is there.
    Key(Word),
    /// Nothing is known.
    Any,
}

/// The same in the selector's own words.
#[derive(Clone, Copy)]
enum Spelled<'a> {
    Pair(&'a str, &'a str),
    Key(&'a str),
    Any,
}

/// How far label sets are counted: beyond this a probe is simply bad.
const ENOUGH: usize = 256;

/// Probes for an expression whose words are all known.
pub(super) fn choose(index: &Index, expr: &Expr) -> SmallVec<[Probe; 1]> {
    let (_, spelled) = plan(index, expr);
    let word = |text| index.words.find(text);
    let mut out: SmallVec<[Probe; 1]> = SmallVec::new();
    for s in spelled {
        let probe = match s {
            Spelled::Pair(k, v) => word(k).and_then(|k| Some(Probe::Pair(k, word(v)?))),
            Spelled::Key(k) => word(k).map(Probe::Key),
            Spelled::Any => None,
        };
        // Without a word nothing is known, which is always right.
        let probe = probe.unwrap_or(Probe::Any);
        if !out.contains(&probe) {
            out.push(probe);
        }
    }
    out
}

/// The cheapest probes, and what they cost.
fn plan<'a>(index: &Index, expr: &'a Expr) -> (usize, Vec<Spelled<'a>>) {
    let spelled = match expr {
        Expr::Eq(l, v) => vec![Spelled::Pair(l, v)],
        Expr::In(l, values) => values.iter().map(|v| Spelled::Pair(l, v)).collect(),
        Expr::Contains(l, _) | Expr::StartsWith(l, _) | Expr::EndsWith(l, _) | Expr::Has(l) => {
            vec![Spelled::Key(l)]
        }
        Expr::Ne(..) | Expr::NotIn(..) | Expr::All | Expr::Global | Expr::Not(_) => {
            vec![Spelled::Any]
        }
        Expr::And(parts) => {
            return parts
                .iter()
                .map(|p| plan(index, p))
                .min_by_key(|(cost, _)| *cost)
                .unwrap_or((ANY, vec![Spelled::Any]));
        }
        Expr::Or(parts) => {
            let mut all = (0usize, Vec::new());
            for (cost, probes) in parts.iter().map(|p| plan(index, p)) {
                all.0 = all.0.saturating_add(cost);
                all.1.extend(probes);
            }
            return all;
        }
    };
    let cost = spelled
        .iter()
        .map(|s| cost(index, *s))
        .fold(0, usize::saturating_add);
    (cost, spelled)
}

/// Dearer than anything that says something.
const ANY: usize = usize::MAX / 2;

/// Label sets that a probe brings now, and selectors that it will bring to each new label
/// set: without the latter, selectors that come before all label sets would crowd on
/// whatever they have in common.
fn cost(index: &Index, spelled: Spelled<'_>) -> usize {
    let words = &index.words;
    let probe = match spelled {
        Spelled::Any => return ANY,
        Spelled::Key(k) => words.find(k).map(Probe::Key),
        Spelled::Pair(k, v) => words
            .find(k)
            .and_then(|k| words.find(v).map(|v| Probe::Pair(k, v))),
    };
    let penalty = usize::from(matches!(spelled, Spelled::Key(_)));
    probe.map_or(0, |p| {
        index.probed(p).take(ENOUGH).count() + index.by_probe.get(&p).map_or(0, SmallVec::len)
    }) + penalty
}
