//! Is the process alive, is it ready, and if not, why not.
//!
//! Promises: a component that promised to report in time and does not is not live; one that has
//! not reported yet is not ready; reasons name the component.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

#[derive(Debug, Clone, Default)]
struct Entry {
    ready: Option<Result<(), String>>,
    /// Within what time the component reports again, if it promised to.
    within: Option<Duration>,
    last: Option<Instant>,
}

/// All components of a process. A clone is the same.
#[derive(Debug, Clone, Default)]
pub struct Health {
    entries: Arc<Mutex<BTreeMap<&'static str, Entry>>>,
}

/// One component's way to report.
#[derive(Debug, Clone)]
pub struct Component {
    health: Health,
    name: &'static str,
}

/// An answer with its reasons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it holds of every component.
    pub good: bool,
    /// One line a component.
    pub text: String,
}

impl Health {
    /// Adds a component, which is not ready until it says so. With `within` it must report at
    /// least that often to count as alive.
    pub fn register(&self, name: &'static str, within: Option<Duration>, now: Instant) -> Component {
        self.lock().insert(name, Entry { ready: None, within, last: Some(now) });
        Component { health: self.clone(), name }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Entry>> {
        // Each change is one assignment, so a panic elsewhere leaves the map whole.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether every component that promised to report did.
    pub fn live(&self, now: Instant) -> Verdict {
        self.verdict(|e| match (e.within, e.last) {
            (Some(within), Some(last)) if now.saturating_duration_since(last) > within => {
                Err(format!("has not reported for {:.0?}, and promised to within {within:.0?}", now.saturating_duration_since(last)))
            }
            _ => Ok(()),
        })
    }

    /// Whether every component is ready.
    pub fn ready(&self) -> Verdict {
        self.verdict(|e| e.ready.clone().unwrap_or_else(|| Err("is starting".to_owned())))
    }

    fn verdict(&self, judge: impl Fn(&Entry) -> Result<(), String>) -> Verdict {
        let mut out = Verdict { good: true, text: String::new() };
        for (name, entry) in self.lock().iter() {
            // Writing to a String does not fail.
            let _ = match judge(entry) {
                Ok(()) => writeln!(out.text, "{name}: ok"),
                Err(why) => {
                    out.good = false;
                    writeln!(out.text, "{name}: {why}")
                }
            };
        }
        out
    }
}

impl Component {
    /// Reports: ready, or not and why.
    pub fn report(&self, ready: Result<(), String>, now: Instant) {
        if let Some(e) = self.health.lock().get_mut(self.name) {
            e.ready = Some(ready);
            e.last = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_only_when_all_are_and_live_only_in_time() {
        let health = Health::default();
        let start = Instant::now();
        let store = health.register("datastore", None, start);
        let plane = health.register("dataplane", Some(Duration::from_secs(90)), start);
        assert!(!health.ready().good && health.live(start).good);
        store.report(Ok(()), start);
        plane.report(Err("the kernel refused a table".to_owned()), start);
        let v = health.ready();
        assert!(!v.good && v.text.contains("dataplane: the kernel refused a table") && v.text.contains("datastore: ok"));
        plane.report(Ok(()), start);
        assert!(health.ready().good);
        let late = start + Duration::from_secs(91);
        assert!(!health.live(late).good && health.live(late).text.contains("dataplane: has not reported"));
    }
}
