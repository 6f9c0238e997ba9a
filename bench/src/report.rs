//! The table of results.
//!
//! Promises: an aim that is missed says so in its own row; every figure comes with its spread and its
//! peer of the same run.
//!
//! Never: rounds a miss away.

use crate::stats::number;
use std::fmt::Write as _;

/// One aim and how it went.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    /// What was measured.
    pub what: String,
    /// What it should be, in words.
    pub aim: String,
    /// Manx's figure with its spread.
    pub ours: String,
    /// The peer's, where there is one.
    pub peer: String,
    /// The number that the aim is about.
    pub figure: f64,
    /// Its unit; empty for a ratio.
    pub unit: &'static str,
    /// Whether that is good enough; `None` where the row is for information.
    pub met: Option<bool>,
}

/// One measure: its rows and what explains them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Section {
    /// Heading.
    pub title: String,
    /// The rows.
    pub rows: Vec<Row>,
    /// Lines below the table.
    pub notes: Vec<String>,
}

impl Section {
    /// An empty one.
    pub(crate) fn new(title: &str) -> Self {
        Self {
            title: title.to_owned(),
            ..Self::default()
        }
    }

    /// Adds a line of explanation.
    pub(crate) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// As Markdown.
    pub(crate) fn markdown(&self) -> String {
        let mut out = format!("## {}\n\n", self.title);
        if !self.rows.is_empty() {
            out += "| measure | aim | Manx | peer | result | met |\n| --- | --- | --- | --- | --- | --- |\n";
        }
        for r in &self.rows {
            let met = match r.met {
                Some(true) => "yes",
                Some(false) => "**no**",
                None => "",
            };
            let figure = format!("{} {}", number(r.figure), r.unit);
            let _ = writeln!(
                out,
                "| {} | {} | {} | {} | {} | {met} |",
                r.what,
                r.aim,
                r.ours,
                r.peer,
                figure.trim_end()
            );
        }
        if !self.notes.is_empty() {
            out += "\n";
        }
        for n in &self.notes {
            let _ = writeln!(out, "- {n}");
        }
        out
    }

    /// Aims that were missed.
    pub(crate) fn missed(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|r| r.met == Some(false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_miss_is_told() {
        let mut s = Section::new("CNI");
        s.rows.push(Row {
            what: "ADD".to_owned(),
            aim: "at most 0.5".to_owned(),
            ours: "4 ms".to_owned(),
            peer: "7 ms".to_owned(),
            figure: 4.0 / 7.0,
            unit: "",
            met: Some(false),
        });
        s.note("time goes to the kernel");
        let text = s.markdown();
        assert!(
            text.contains("| ADD | at most 0.5 | 4 ms | 7 ms | 0.571 | **no** |"),
            "{text}"
        );
        assert!(text.ends_with("- time goes to the kernel\n"));
        assert_eq!(s.missed().count(), 1);
    }
}
