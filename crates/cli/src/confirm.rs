//! `--confirm`: changes that are taken back unless somebody says in time that they are good; and
//! `confirm`, which says so.
//!
//! Promises: the promise to take everything back is stored before the first change is made, and it is
//! the cluster's agents that keep it: a connection that is lost, or this program killed, changes
//! nothing about it.
//!
//! Never: waits for the deadline itself.

use crate::args::interval;
use crate::cluster::Cluster;
use crate::run::Console;
use crate::{CliError, table};
use api::Resource;
use clap::Args;
use datastore::Revision;
use datastore::pending::{self, Change, Intent, Pending, PendingError, Pendings, State};
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;
use std::time::Duration;

/// The flag of commands that change resources.
#[derive(Debug, Clone, Default, Args)]
pub struct ConfirmIn {
    /// Take everything back after this time (such as 60s or 5m), unless `manx confirm` comes first
    ///
    /// The agents of the cluster do it, so it also happens when the change has cut off this
    /// connection.
    #[arg(long = "confirm", value_name = "TIME", value_parser = timeout)]
    pub timeout: Option<Duration>,
}

/// Arguments of `confirm`.
#[derive(Debug, Clone, Default, Args)]
pub struct ConfirmArgs {
    /// Which change, as the command printed it; may be left out when only one waits
    #[arg(value_name = "ID", conflicts_with = "list")]
    pub id: Option<String>,
    /// Show what waits, and what was taken back in the last day
    #[arg(long, conflicts_with = "rollback")]
    pub list: bool,
    /// Take it back now instead
    #[arg(long)]
    pub rollback: bool,
}

fn timeout(text: &str) -> Result<Duration, String> {
    let time = interval(text)?;
    if (Duration::from_secs(1)..=Duration::from_secs(7 * 24 * 3600)).contains(&time) {
        Ok(time)
    } else {
        Err("must be between 1s and 168h".to_owned())
    }
}

/// A command's changes, while they are made.
pub(crate) struct Guard {
    pendings: Pendings,
    id: String,
    timeout: SignedDuration,
    /// What happened, by key: the version that an object has now, `None` if it was deleted.
    done: BTreeMap<String, Option<Revision>>,
}

impl Guard {
    /// Stores the promise, if one is asked for. After an error nothing may be changed.
    pub(crate) fn arm(
        confirm: &ConfirmIn,
        cluster: &Cluster,
        command: &str,
        intents: Vec<Intent>,
    ) -> Result<Option<Self>, CliError> {
        let Some(timeout) = confirm.timeout else {
            return Ok(None);
        };
        for intent in &intents {
            if let Intent::Delete(r) = intent
                && !pending::can_restore(r.kind())
            {
                return Err(CliError::Usage(format!(
                    "{r}: its deletion takes more along than can be brought back; delete it without --confirm"
                )));
            }
        }
        let timeout = SignedDuration::try_from(timeout).unwrap_or(SignedDuration::MAX);
        let (pendings, id) = (cluster.pendings(), pending::new_id());
        let armed = pendings.arm(&id, command, intents, Timestamp::now(), timeout);
        cluster.wait_for(armed)?;
        Ok(Some(Self {
            pendings,
            id,
            timeout,
            done: BTreeMap::new(),
        }))
    }

    /// A resource is stored so now.
    pub(crate) fn wrote(guard: &mut Option<Self>, r: &Resource) {
        if let Some(g) = guard {
            let version = r.meta().resource_version.parse().ok().map(Revision);
            g.done.insert(r.key(), version);
        }
    }

    /// A resource is gone now.
    pub(crate) fn deleted(guard: &mut Option<Self>, r: &Resource) {
        if let Some(g) = guard {
            g.done.insert(r.key(), None);
        }
    }

    /// From now on the time runs. Says how to confirm.
    pub(crate) fn settle(
        guard: Option<Self>,
        cluster: &Cluster,
        console: &mut Console<'_>,
    ) -> Result<(), CliError> {
        let Some(g) = guard else { return Ok(()) };
        let key = |c: &Change| api::key(c.kind, c.namespace.as_deref(), &c.name);
        let done = |c: &Change| g.done.get(&key(c)).copied();
        let now = Timestamp::now();
        let settled = g.pendings.settle(&g.id, now, g.timeout, done);
        let Some(p) = cluster.wait_for(settled)? else {
            return console.print("Nothing was changed: nothing to confirm\n");
        };
        let (count, id) = (p.changes.len(), &p.id);
        let what = if count == 1 {
            "change is"
        } else {
            "changes are"
        };
        console.print(&format!(
            "{count} {what} taken back {} unless you confirm:\n  manx confirm {id}\n",
            when(&p, now)
        ))
    }
}

/// The moment, and how far ahead it is.
fn when(p: &Pending, now: Timestamp) -> String {
    let left = p.deadline.duration_since(now).as_secs_f64().round();
    if left < 0.0 {
        format!("at {:.0} ({}s ago)", p.deadline, -left)
    } else {
        format!("at {:.0} (in {left}s)", p.deadline)
    }
}

pub(crate) fn run(
    args: &ConfirmArgs,
    cluster: &Cluster,
    console: &mut Console<'_>,
) -> Result<(), CliError> {
    let pendings = cluster.pendings();
    if args.list {
        return list(&pendings, cluster, console);
    }
    let id = match &args.id {
        Some(id) => id.clone(),
        None => only(&pendings, cluster)?,
    };
    if !args.rollback {
        let p = cluster.wait_for(pendings.confirm(&id))?;
        let count = p.changes.len();
        return console.print(&format!("Confirmed {id}: {count} change(s) stay\n"));
    }
    let now = Timestamp::now();
    let p = cluster.wait_for(pendings.roll_back(&id, now, "manx confirm"))?;
    console.print(&outcomes(&p))
}

fn outcomes(p: &Pending) -> String {
    let by = p.by.as_deref().unwrap_or("nobody yet");
    let mut text = format!("Taken back {} by {by}\n", p.id);
    for (object, outcome) in &p.outcomes {
        text.push_str(&format!("  {object}: {outcome}\n"));
    }
    text
}

/// The one that waits.
fn only(pendings: &Pendings, cluster: &Cluster) -> Result<String, CliError> {
    let (all, _) = cluster.wait_for(pendings.list())?;
    let waiting: Vec<_> = (all.iter())
        .filter(|p| p.state == State::Pending)
        .map(|p| p.id.as_str())
        .collect();
    match waiting.as_slice() {
        [] => Err(CliError::Usage(
            "no change waits for confirmation".to_owned(),
        )),
        [one] => Ok((*one).to_owned()),
        many => Err(CliError::Usage(format!(
            "several changes wait; say which: {}",
            many.join(", ")
        ))),
    }
}

fn list(pendings: &Pendings, cluster: &Cluster, console: &mut Console<'_>) -> Result<(), CliError> {
    let (all, bad) = cluster.wait_for(pendings.list())?;
    for e in bad {
        console.note(&format!("warning: {e}"))?;
    }
    let now = Timestamp::now();
    let heads = ["ID", "COMMAND", "STATE", "DEADLINE", "OBJECTS"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    let mut ended = String::new();
    for p in &all {
        let state = match p.state {
            State::Pending if p.is_due(now) => "overdue".to_owned(),
            State::Pending => "waits".to_owned(),
            State::RollingBack => "being taken back".to_owned(),
            State::RolledBack => "taken back".to_owned(),
        };
        let objects: Vec<String> = p.changes.iter().map(Change::object).collect();
        let deadline = match p.state {
            State::Pending => when(p, now),
            _ => format!("at {:.0}", p.deadline),
        };
        rows.push(vec![
            p.id.clone(),
            p.command.clone(),
            state,
            deadline,
            objects.join(","),
        ]);
        if p.state == State::RolledBack {
            ended.push_str(&outcomes(p));
        }
    }
    if all.iter().any(|p| p.is_due(now)) {
        let note = "note: what is overdue no agent has taken back yet: is one running? (manx node); or take it back with manx confirm --rollback ID";
        console.note(note)?;
    }
    console.print(&table::columns(&rows))?;
    console.print(&ended)
}

impl From<PendingError> for CliError {
    fn from(e: PendingError) -> Self {
        Self::Refused(e.to_string())
    }
}
