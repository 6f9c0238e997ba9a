//! Health: named components that report, and what follows from their reports.
//!
//! Promises: a component that falls silent for longer than its timeout is neither live
//! nor ready; whatever is not well is named with its reason.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What a component says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// It does its work, or can still come to; else the process should be started anew.
    pub live: bool,
    /// It is where it should be.
    pub ready: bool,
    /// Why not, or a remark. One line.
    pub reason: String,
}

impl Report {
    /// Live and ready.
    pub fn ready() -> Self {
        Self {
            live: true,
            ready: true,
            reason: String::new(),
        }
    }

    /// Live, not ready.
    pub fn not_ready(reason: impl Into<String>) -> Self {
        Self {
            live: true,
            ready: false,
            reason: reason.into(),
        }
    }

    /// Broken for good.
    pub fn dead(reason: impl Into<String>) -> Self {
        Self {
            live: false,
            ready: false,
            reason: reason.into(),
        }
    }
}

#[derive(Debug)]
struct Component {
    report: Report,
    at: Instant,
    /// `None`: it reports when something changes.
    timeout: Option<Duration>,
}

/// The components of a process. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Health {
    components: Arc<Mutex<BTreeMap<String, Component>>>,
}

/// What a probe is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Every component is.
    pub ok: bool,
    /// A line each, what is not well first named with its reason.
    pub text: String,
}

/// By which a component reports. Dropping it takes the component off the list.
#[derive(Debug)]
pub struct Reporter {
    health: Health,
    name: String,
}

impl Reporter {
    /// Reports, at `now`.
    pub fn report(&self, now: Instant, report: Report) {
        if let Some(c) = self.health.lock().get_mut(&self.name) {
            c.report = report;
            c.at = now;
        }
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.health.lock().remove(&self.name);
    }
}

impl Health {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Component>> {
        // Each change is one assignment: nothing half done can be left.
        self.components
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a component, live and not yet ready. With a timeout it has to report
    /// at least that often. Of two of one name the later counts.
    pub fn register(
        &self,
        name: impl Into<String>,
        timeout: Option<Duration>,
        now: Instant,
    ) -> Reporter {
        let name = name.into();
        let component = Component {
            report: Report::not_ready("starting"),
            at: now,
            timeout,
        };
        self.lock().insert(name.clone(), component);
        Reporter {
            health: self.clone(),
            name,
        }
    }

    /// Whether every component is alive.
    pub fn liveness(&self, now: Instant) -> Verdict {
        self.verdict(now, |r| r.live, "live")
    }

    /// Whether every component is ready. The text lists what is not.
    pub fn readiness(&self, now: Instant) -> Verdict {
        self.verdict(now, |r| r.ready, "ready")
    }

    fn verdict(&self, now: Instant, is: impl Fn(&Report) -> bool, word: &str) -> Verdict {
        let (mut bad, mut good, mut ok) = (String::new(), String::new(), true);
        for (name, c) in self.lock().iter() {
            let silent = now.saturating_duration_since(c.at);
            let late = c.timeout.is_some_and(|t| silent > t);
            let (out, not) = if is(&c.report) && !late {
                (&mut good, "")
            } else {
                ok = false;
                (&mut bad, "not ")
            };
            // Writing to a String does not fail.
            let _ = write!(out, "{name}: {not}{word}");
            if late {
                let _ = write!(out, ": no report for {}s", silent.as_secs());
            } else if !c.report.reason.is_empty() {
                let _ = write!(out, ": {}", c.report.reason);
            }
            out.push('\n');
        }
        Verdict {
            ok,
            text: bad + &good,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_all_are_and_named_when_not() {
        let t0 = Instant::now();
        let h = Health::default();
        let a = h.register("dataplane", Some(Duration::from_secs(90)), t0);
        let b = h.register("datastore", None, t0);
        let v = h.readiness(t0);
        assert!(!v.ok);
        assert_eq!(
            v.text,
            "dataplane: not ready: starting\ndatastore: not ready: starting\n"
        );
        assert!(h.liveness(t0).ok);
        a.report(t0, Report::ready());
        b.report(t0, Report::not_ready("snapshot incomplete"));
        let v = h.readiness(t0);
        assert_eq!(
            v.text,
            "datastore: not ready: snapshot incomplete\ndataplane: ready\n"
        );
        b.report(t0, Report::ready());
        assert!(h.readiness(t0).ok);
        b.report(t0, Report::dead("the thread panicked"));
        let v = h.liveness(t0);
        assert!(
            !v.ok
                && v.text
                    .starts_with("datastore: not live: the thread panicked\n")
        );
        drop(b);
        assert!(h.liveness(t0).ok, "gone from the list");
    }

    #[test]
    fn silence_is_not_health() {
        let t0 = Instant::now();
        let h = Health::default();
        let quiet = h.register("loop", Some(Duration::from_secs(10)), t0);
        let _calm = {
            let r = h.register("file", None, t0);
            r.report(t0, Report::ready());
            r
        };
        quiet.report(t0, Report::ready());
        assert!(h.readiness(t0 + Duration::from_secs(10)).ok);
        let later = t0 + Duration::from_secs(11);
        assert!(!h.readiness(later).ok);
        let v = h.liveness(later);
        assert_eq!(v.text, "loop: not live: no report for 11s\nfile: live\n");
        quiet.report(later, Report::ready());
        assert!(h.liveness(later).ok);
    }
}
