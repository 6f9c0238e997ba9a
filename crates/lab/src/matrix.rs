//! Who reaches whom, as a table.
//!
//! Promises: one row a sender, one column a receiver, the same text on a terminal and in a
//! file; colour is added by style, and the caller's stream drops it where it is not wanted.
//!
//! Never: prints by itself.

use crate::protocol::{Outcome, Verdict};
use anstyle::{AnsiColor, Style};
use std::fmt::Write;

/// One cell: from, to, and what became of it.
pub(crate) struct Cell {
    /// The sender.
    pub from: String,
    /// The receiver.
    pub to: String,
    /// What became of it.
    pub outcome: Outcome,
}

const fn style(v: &Verdict) -> Style {
    let colour = match v {
        Verdict::Open => AnsiColor::Green,
        Verdict::Failed(_) => AnsiColor::Yellow,
        _ => AnsiColor::Red,
    };
    colour.on_default()
}

/// A word with the colour of its verdict.
pub(crate) fn word(v: &Verdict) -> String {
    let style = style(v);
    format!("{style}{}{style:#}", v.word())
}

/// The table, senders and receivers in the order in which they first appear.
pub(crate) fn render(cells: &[Cell]) -> String {
    let mut rows: Vec<&str> = Vec::new();
    let mut columns: Vec<&str> = Vec::new();
    for c in cells {
        if !rows.contains(&c.from.as_str()) {
            rows.push(&c.from);
        }
        if !columns.contains(&c.to.as_str()) {
            columns.push(&c.to);
        }
    }
    columns.sort_by_key(|c| rows.iter().position(|r| r == c).unwrap_or(usize::MAX));
    let first = rows
        .iter()
        .map(|r| r.len())
        .chain(["FROM \\ TO".len()])
        .max()
        .unwrap_or(0);
    let mut out = format!("{:first$}", "FROM \\ TO");
    for c in &columns {
        _ = write!(out, "  {:w$}", c, w = width(c));
    }
    trim(&mut out);
    for r in &rows {
        _ = write!(out, "{r:first$}");
        for c in &columns {
            let cell = cells.iter().find(|x| x.from == **r && x.to == **c);
            let w = width(c);
            match cell {
                Some(cell) => {
                    let v = &cell.outcome.verdict;
                    let pad = w - v.word().len();
                    _ = write!(out, "  {}{:pad$}", word(v), "");
                }
                None => _ = write!(out, "  {:w$}", "-"),
            }
        }
        trim(&mut out);
    }
    out
}

fn width(column: &str) -> usize {
    column.len().max("unreachable".len())
}

fn trim(out: &mut String) {
    out.truncate(out.trim_end_matches(' ').len());
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(from: &str, to: &str, verdict: Verdict) -> Cell {
        let outcome = Outcome {
            verdict,
            ..Outcome::failed("")
        };
        Cell {
            from: from.to_owned(),
            to: to.to_owned(),
            outcome,
        }
    }

    #[test]
    fn rows_are_senders() {
        let cells = [
            cell("a/x", "b/y", Verdict::Open),
            cell("b/y", "a/x", Verdict::Dropped),
            cell("host/out", "a/x", Verdict::Refused),
        ];
        let plain = anstream::adapter::strip_str(&render(&cells)).to_string();
        assert_eq!(
            plain,
            "FROM \\ TO  a/x          b/y\n\
             a/x        -            open\n\
             b/y        dropped      -\n\
             host/out   refused      -\n"
        );
        assert!(render(&cells).contains("\u{1b}[32mopen\u{1b}[0m"));
    }
}
