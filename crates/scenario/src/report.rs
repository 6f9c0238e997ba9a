//! What a run of a scenario came to, for people and for programs.
//!
//! Promises: one form for both ways of running; `--json` is the serialised [`Report`].
//!
//! Never: prints by itself.

use crate::check::Check;
use net::Family;
use serde::Serialize;
use std::fmt::{self, Write};

/// One file's result, as `--json` prints it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The scenario's name; empty if it was not read.
    pub name: String,
    /// The file, as given.
    pub file: String,
    /// Checks that held.
    pub passed: usize,
    /// Checks that did not, and a cluster that could not be brought so far.
    pub failed: usize,
    /// All checks, in order.
    pub checks: Vec<CheckReport>,
    /// Why it ended early.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The file itself is wrong: exit status 2.
    #[serde(skip)]
    pub unusable: bool,
}

/// One check's result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    /// The step's name.
    pub step: String,
    /// The sender.
    pub from: String,
    /// The receiver.
    pub to: String,
    /// 0 for ICMP.
    pub port: u16,
    /// TCP, UDP, SCTP or ICMP.
    pub protocol: String,
    /// `allow` or `deny`; with `source`, also from which address.
    pub expected: String,
    /// What was seen.
    pub got: String,
    /// What decides, by policy.
    pub why: String,
    /// Whether it held.
    #[serde(skip)]
    pub ok: bool,
    /// In which family.
    #[serde(skip)]
    pub family: Option<Family>,
    /// How long it took, in microseconds, if packets were sent.
    #[serde(skip)]
    pub micros: Option<u64>,
}

impl CheckReport {
    /// Of a check.
    pub fn new(step: &str, check: &Check, ok: bool, got: String, why: String) -> Self {
        let mut expected = if check.allow { "allow" } else { "deny" }.to_owned();
        if let Some(source) = check.source {
            expected.push_str(&format!(" from {source}"));
        }
        Self {
            step: step.to_owned(),
            from: check.flow.from.to_string(),
            to: check.flow.to.to_string(),
            port: check.flow.port.number,
            protocol: check.flow.port.protocol.to_string(),
            expected,
            got,
            why,
            ok,
            family: check.flow.family.map(Family::from),
            micros: None,
        }
    }
}

/// Whether to colour a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// For a terminal.
    Yes,
    /// For anything else.
    No,
}

impl Colour {
    fn red(self, text: &str) -> String {
        match self {
            Self::Yes => format!("\u{1b}[31m{text}\u{1b}[0m"),
            Self::No => text.to_owned(),
        }
    }
}

impl Report {
    /// Before its first check.
    pub fn new(name: impl Into<String>, file: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            file: file.into(),
            passed: 0,
            failed: 0,
            checks: Vec::new(),
            error: None,
            unusable: false,
        }
    }

    /// Of a file that cannot be used. `error` names it.
    pub fn unusable(name: impl Into<String>, file: impl Into<String>, error: String) -> Self {
        Self {
            error: Some(error),
            unusable: true,
            ..Self::new(name, file)
        }
    }

    /// Takes a result in.
    pub fn push(&mut self, check: CheckReport) {
        if check.ok {
            self.passed += 1;
        } else {
            self.failed += 1;
        }
        self.checks.push(check);
    }

    /// For people, without the error, which belongs on another stream: each step in a line and
    /// under it what did not hold and why. With `all_steps` false, only steps with failures.
    pub fn text(&self, colour: Colour, all_steps: bool) -> String {
        let mut out = String::new();
        // Writing to a text cannot fail.
        let _ = self.write(&mut out, colour, all_steps);
        out
    }

    fn write(&self, out: &mut String, colour: Colour, all_steps: bool) -> fmt::Result {
        writeln!(out, "{}: {}", self.file, self.name)?;
        let both = [Family::V4, Family::V6]
            .iter()
            .all(|f| self.checks.iter().any(|c| c.family == Some(*f)));
        for step in self.checks.chunk_by(|a, b| a.step == b.step) {
            let good = step.iter().filter(|c| c.ok).count();
            if all_steps || good < step.len() {
                write!(out, "  {}: {good} of {}", step[0].step, step.len())?;
                if let Some(slowest) = step.iter().filter_map(|c| c.micros).max() {
                    write!(out, " in {}", millis(slowest))?;
                }
                out.push('\n');
            }
            for c in step.iter().filter(|c| !c.ok) {
                c.write(out, colour, both)?;
            }
        }
        Ok(())
    }
}

impl CheckReport {
    fn write(&self, out: &mut String, colour: Colour, family: bool) -> fmt::Result {
        write!(
            out,
            "    {} {} -> {} ",
            colour.red("FAILED"),
            self.from,
            self.to
        )?;
        match self.port {
            0 => out.push_str(&self.protocol),
            port => write!(out, "{port}/{}", self.protocol)?,
        }
        if let Some(f) = self.family.filter(|_| family) {
            write!(out, " ({f})")?;
        }
        write!(out, ": expected {}, got {}", self.expected, self.got)?;
        if let Some(micros) = self.micros {
            write!(out, " after {}", millis(micros))?;
        }
        out.push('\n');
        for line in self.why.lines() {
            writeln!(out, "      {line}")?;
        }
        Ok(())
    }
}

/// Milliseconds with as many digits as mean something.
pub fn millis(micros: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let ms = micros as f64 / 1000.0;
    if ms < 10.0 {
        format!("{ms:.2} ms")
    } else {
        format!("{ms:.0} ms")
    }
}

/// The sum over files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Total {
    /// Checks that held.
    pub passed: usize,
    /// Checks that did not.
    pub failed: usize,
    /// Some file could not be used.
    pub unusable: bool,
}

impl Total {
    /// Takes a file's result in.
    pub fn add(&mut self, r: &Report) {
        self.passed += r.passed;
        self.failed += r.failed;
        self.unusable |= r.unusable;
    }

    /// 0 if all held, 1 if something did not, 2 if a file could not be used.
    pub const fn exit(self) -> u8 {
        match (self.unusable, self.failed) {
            (true, _) => 2,
            (false, 0) => 0,
            (false, _) => 1,
        }
    }
}

impl fmt::Display for Total {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}
