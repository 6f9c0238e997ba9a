//! What a lab looks like: `status`, `routes`, `capture`.
//!
//! Promises: the same facts for people and, as JSON, for programs.
//!
//! Never: changes anything.

use crate::args::CaptureArgs;
use crate::command::handle::Handle;
use crate::command::{Failure, note, say, target};
use crate::protocol::{Request, SessionStatus, Status};
use std::process::ExitCode;

/// `manx lab status`.
pub(super) fn status(name: &str, json: bool) -> Result<ExitCode, Failure> {
    let status = Handle::find(name)?.status()?;
    if json {
        say!("{}", serde_json::to_string_pretty(&status)?);
    } else {
        say!("{}", text(&status).trim_end());
    }
    let fine =
        status.nodes.iter().all(|n| n.ready) && status.pods.iter().all(|p| p.phase == "Running");
    Ok(if fine {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}

fn text(s: &Status) -> String {
    let mut rows = vec![
        ["NODE", "READY", "ADDRESSES", "RESTARTS", "REASON"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for n in &s.nodes {
        rows.push(vec![
            n.name.clone(),
            if n.ready { "yes" } else { "no" }.to_owned(),
            n.addresses.join(","),
            n.restarts.to_string(),
            n.reason.replace('\n', "; "),
        ]);
    }
    let mut out = format!("lab {:?}, {}\n\n{}", s.name, s.topology, table(&rows));
    if !s.hosts.is_empty() {
        let mut rows = vec![vec!["HOST".to_owned(), "ADDRESSES".to_owned()]];
        for (name, addresses) in &s.hosts {
            let list: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            rows.push(vec![name.clone(), list.join(",")]);
        }
        out.push_str(&format!("\n{}", table(&rows)));
    }
    if !s.pods.is_empty() {
        let mut rows = vec![
            ["NAMESPACE", "POD", "PHASE", "IP", "NODE", "REASON"]
                .map(str::to_owned)
                .to_vec(),
        ];
        for p in &s.pods {
            let ips: Vec<String> = p.ips.iter().map(ToString::to_string).collect();
            rows.push(vec![
                p.namespace.clone(),
                p.name.clone(),
                p.phase.clone(),
                ips.join(","),
                p.node.clone(),
                p.reason.replace('\n', "; "),
            ]);
        }
        out.push_str(&format!("\n{}", table(&rows)));
    }
    if !s.sessions.is_empty() {
        out.push_str(&format!("\n{}", table(&sessions(&s.sessions))));
    }
    for w in &s.warnings {
        out.push_str(&format!("\nwarning: {w}\n"));
    }
    out
}

fn sessions(all: &[SessionStatus]) -> Vec<Vec<String>> {
    let head = ["BGP OF", "PEER", "ADDRESS", "STATE", "ROUTES", "REASON"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for s in all {
        rows.push(vec![
            s.speaker.clone(),
            s.peer.clone(),
            s.address.to_string(),
            s.state.clone(),
            s.routes.to_string(),
            // Of one that is up, it tells of something that is over.
            if s.is_up() {
                String::new()
            } else {
                s.reason.clone()
            },
        ]);
    }
    rows
}

/// Columns as wide as their widest cell; empty cells are dashes.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let cell = |r: &Vec<String>, c: usize| match r.get(c) {
        Some(text) if !text.is_empty() => text.clone(),
        _ => "-".to_owned(),
    };
    let widths: Vec<usize> = (0..columns)
        .map(|c| rows.iter().map(|r| cell(r, c).len()).max().unwrap_or(0))
        .collect();
    let mut out = String::new();
    for r in rows {
        let mut line = String::new();
        for (c, w) in widths.iter().enumerate() {
            line.push_str(&format!("{:w$}  ", cell(r, c)));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// `manx lab routes`.
pub(super) fn routes(name: &str, text: &str) -> Result<ExitCode, Failure> {
    let handle = Handle::find(name)?;
    let target = target(&handle, text)?;
    handle.lines(&Request::Routes(target), |line| say!("{line}"))?;
    Ok(ExitCode::SUCCESS)
}

/// `manx lab capture`.
pub(super) fn capture(name: &str, a: &CaptureArgs) -> Result<ExitCode, Failure> {
    let handle = Handle::find(name)?;
    let for_ms = u64::try_from(a.for_.as_millis()).unwrap_or(u64::MAX);
    let mut seen = 0;
    handle.lines(
        &Request::Capture {
            count: a.count,
            for_ms,
        },
        |line| {
            seen += 1;
            say!("{line}");
        },
    )?;
    note!("{seen} packets on the fabric");
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_line_up() {
        let rows = [
            vec!["A".to_owned(), "LONG".to_owned()],
            vec!["abc".to_owned(), String::new()],
        ];
        assert_eq!(table(&rows), "A    LONG\nabc  -\n");
    }
}
