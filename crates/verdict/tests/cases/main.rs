//! Verdicts that were reasoned out by hand, field by field and path by path.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod hosts;
mod nat;
mod paths;
mod rules;
mod staged;
mod support;
mod tiers;
mod words;
