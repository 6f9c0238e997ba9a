//! Questions about policy: why a flow gets through or does not, and what a change would change.
//!
//! Promises: answers come from `verdict`, of the resources of a store or of files; what had to be
//! assumed is said. Never: writes anything.

mod changes;
mod classes;
mod diff;
mod ends;
mod json;
mod objects;
mod ports;
mod why;

pub(crate) use diff::run as diff;
pub(crate) use why::run as why;

use crate::CliError;
use crate::run::Console;

/// The exit status of a question that could not be answered: 1 is an answer.
const NO_ANSWER: u8 = 2;

/// Tells why there is no answer.
fn answered(done: Result<(), CliError>, console: &mut Console<'_>) -> Result<(), CliError> {
    match done {
        Err(e) if !matches!(e, CliError::Status(_)) && !e.is_closed_pipe() => {
            console.note(&e.full())?;
            Err(CliError::Status(NO_ANSWER))
        }
        done => done,
    }
}
