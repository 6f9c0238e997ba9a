//! What must happen to a packet, straight from the resources.
//!
//! Promises: reads like the definition of each field, walks everything in order, and
//! says what it consulted; shares no code with calculation or rendering. The answer is about
//! the first packet of a new connection and a dataplane that is up to date.
//!
//! Never: indexes, caches, does I/O.

mod answer;
mod explain;
mod flow;
mod host;
mod judge;
mod nat;
mod notes;
mod remedy;
mod rule;
mod settings;
mod show;
mod walk;
mod words;
mod world;

pub use explain::{
    Consulted, Decision, Direction, Effect, Explanation, Field, Mismatch, Path, Place, PolicyTrail,
    RuleTrail, Side, Stage, StagedAnswer, TierTrail, Verdict,
};
pub use flow::{End, Flow, Packet, Target};
pub use world::{NoAddress, World};
