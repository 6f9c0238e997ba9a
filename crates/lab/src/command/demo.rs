//! tmp
use crate::args::DemoArgs;
use crate::command::Failure;
use std::process::ExitCode;
pub(super) fn run(_name: &str, _a: &DemoArgs) -> Result<ExitCode, Failure> { Err(Failure::new("tmp")) }
