//! Named states with what must follow from them, and every way to get through a list of them:
//! forwards, backwards, at once, one thing at a time, through nothing, with everything said
//! twice.

use super::vocabulary::*;
use super::{ME, Run, World};
use desired::{Desired, Member};
use model::*;

/// A state, and what must hold of what follows.
pub struct State {
    name: &'static str,
    world: World,
    expect: fn(&Desired),
}

pub fn state(name: &'static str, updates: Vec<Update>, expect: fn(&Desired)) -> State {
    let mut world = World::default();
    for u in &updates {
        world.update(u);
    }
    State {
        name,
        world,
        expect,
    }
}

/// When a run flushes.
#[derive(Clone, Copy)]
pub enum Flush {
    EachUpdate,
    EachState,
    AtEnd,
}

/// A walk through states; `single` makes a state of every update on the way, `twice` says all
/// things two times, `backwards` reverses the updates of a step.
pub fn walk(states: &[&State], flush: Flush, twice: bool, backwards: bool) {
    let mut run = Run::default();
    let mut at = World::default();
    for s in states {
        let mut updates = at.towards(&s.world);
        if backwards {
            updates.reverse();
        }
        for u in updates {
            for _ in 0..if twice { 2 } else { 1 } {
                run.calc.update(u.clone());
                if matches!(flush, Flush::EachUpdate) {
                    run.flush();
                }
            }
            at.update(&u);
            if matches!(flush, Flush::EachUpdate) {
                at.check(&run.desired);
            }
        }
        if matches!(flush, Flush::EachState | Flush::EachUpdate) {
            run.flush();
            (s.expect)(&run.desired);
            assert_eq!(run.desired, s.world.fresh(), "{}", s.name);
        }
    }
    run.flush();
    if let Some(last) = states.last() {
        (last.expect)(&run.desired);
        last.world.check(&run.desired);
        assert_eq!(run.desired, last.world.fresh(), "at the end, {}", last.name);
    }
}

/// Every expansion of a list of states.
pub fn expand(states: &[State]) {
    let nothing = state("nothing", Vec::new(), |d| {
        assert!(d.workloads.is_empty() && d.sets.is_empty())
    });
    let forwards: Vec<&State> = states.iter().collect();
    let reversed: Vec<&State> = states.iter().rev().collect();
    let through_nothing: Vec<&State> = states.iter().flat_map(|s| [&nothing, s]).collect();
    let squashed: Vec<&State> = states.last().into_iter().collect();
    let and_gone: Vec<&State> = states.iter().chain([&nothing]).collect();
    for list in [forwards, reversed, through_nothing, squashed, and_gone] {
        for flush in [Flush::EachUpdate, Flush::EachState, Flush::AtEnd] {
            for (twice, backwards) in [(false, false), (true, false), (false, true)] {
                walk(&list, flush, twice, backwards);
            }
        }
    }
}

pub fn local(name: &str, w: WorkloadEndpoint) -> Update {
    Update::Workload(wkey(ME, name), Some(w))
}

pub fn remote(name: &str, w: WorkloadEndpoint) -> Update {
    Update::Workload(wkey("n1", name), Some(w))
}

pub fn pol(name: &str, p: Policy) -> Update {
    Update::Policy(gnp(name), Some(p))
}

/// Of a selector's set, as text.
pub fn members(d: &Desired, selector: &str) -> Vec<String> {
    set_members(d, &sel(selector).id())
}

/// Of the set of this name, as text.
pub fn set_members(d: &Desired, id: &str) -> Vec<String> {
    let texts = d.sets[&desired::SetId(id.into())]
        .members
        .iter()
        .map(|m| match m {
            Member::Net(c) => c.to_string(),
            Member::Port {
                addr,
                protocol,
                port,
            } => format!("{addr} {protocol} {port}"),
        });
    texts.collect()
}
