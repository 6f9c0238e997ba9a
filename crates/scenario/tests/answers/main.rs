//! Two answers for random clusters: the oracle's, from the resources, and that of the desired state,
//! as calculated for each node and evaluated here.
//!
//! `SCENARIO_CASES` and `SCENARIO_SEED` change how many and from where; what differs is made
//! small and saved as a scenario file.

mod state;

use net::Family;
use scenario::Check;
use scenario::offline::Judge;
use scenario::random::{self, With};
use serde_json::Value;
use state::State;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .map_or(default, |t| t.parse().expect("a number"))
}

/// What the desired state says of a check, beside the oracle.
fn differs(judge: &Judge<'_>, state: &State, check: &Check) -> Option<String> {
    let (flow, answer) = judge.explain(&check.flow).ok()?;
    let mut wrong = Vec::new();
    for path in &answer.paths {
        let got = state.lets_through(&flow, path);
        if got != path.allowed {
            wrong.push(format!(
                "oracle {}, desired state {} for {} at {}:{}\n{answer}",
                word(path.allowed),
                word(got),
                path.to,
                path.destination.0,
                path.destination.1,
            ));
        }
    }
    wrong.into_iter().next()
}

const fn word(allowed: bool) -> &'static str {
    if allowed { "allows" } else { "denies" }
}

/// The first check of a document on which the answers differ.
fn first_difference(doc: &Value) -> Result<Option<(Check, String)>, String> {
    let (_, cluster, checks) = random::judge(doc)?;
    let (state, judge) = (State::of(&cluster)?, Judge::new(&cluster));
    Ok(checks
        .into_iter()
        .find_map(|c| differs(&judge, &state, &c).map(|why| (c, why))))
}

#[test]
fn the_oracle_and_the_desired_state_agree() {
    let (cases, seed) = (number("SCENARIO_CASES", 3000), number("SCENARIO_SEED", 1));
    let (mut flows, mut denied) = (0, 0);
    for seed in seed..seed + cases {
        let doc = random::case(seed, With::default());
        let (_, cluster, checks) = match random::judge(&doc) {
            Ok(judged) => judged,
            Err(e) => panic!("seed {seed}: {e}\n{}", random::text(&doc)),
        };
        let state = State::of(&cluster).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        let judge = Judge::new(&cluster);
        flows += checks.len();
        denied += checks.iter().filter(|c| !c.allow).count();
        let Some((check, _)) = checks
            .iter()
            .find_map(|c| differs(&judge, &state, c).map(|why| (c.clone(), why)))
        else {
            continue;
        };
        let small = random::shrink(&random::with_one_check(&doc, &check), &mut |d| {
            matches!(first_difference(d), Ok(Some(_)))
        });
        let (check, why) = first_difference(&small)
            .expect("it was read before")
            .expect("it still differs");
        let text = random::text(&random::with_one_check(&small, &check));
        let file = std::env::temp_dir().join(format!("scenario-{seed}.yaml"));
        let _ = std::fs::write(&file, &text);
        panic!("seed {seed}: {why}\n{text}\nsaved as {}", file.display());
    }
    // A generator that closes or opens everything compares nothing.
    assert!(
        denied * 5 > flows && denied * 5 < flows * 4,
        "{denied} of {flows} flows are denied"
    );
}

#[test]
fn the_same_seed_is_the_same_scenario() {
    let with = With::default();
    assert_eq!(random::case(7, with), random::case(7, with));
    assert_ne!(random::case(7, with), random::case(8, with));
    let families = [Family::V4, Family::V6];
    let (_, _, checks) = random::judge(&random::case(7, with)).expect("a scenario");
    for f in families {
        assert!(
            checks
                .iter()
                .any(|c| c.flow.family.map(Family::from) == Some(f))
        );
    }
}
