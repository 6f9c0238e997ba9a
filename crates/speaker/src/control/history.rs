//! What has happened, as far as the router itself does not remember it.
//!
//! Promises: bounded; whoever notes it is never held up for long.

use crate::handle::Handle;
use bgp::error::{Code, Fault, FaultClass, Notification};
use bgp::fsm::State;
use bgp::router::Event;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// So many malformed messages are remembered.
const FAULTS: usize = 128;
/// Of each at most so many octets.
const OCTETS: usize = 4096;

/// A malformed message, or one that ended a session.
#[derive(Debug, Clone)]
pub(crate) struct Noted {
    /// When.
    pub at: SystemTime,
    /// Whose.
    pub peer: String,
    /// What it was.
    pub what: What,
}

/// What was wrong.
#[derive(Debug, Clone)]
pub(crate) enum What {
    /// A fault of an UPDATE, with what was done about it.
    Fault(Fault),
    /// The session ended with it.
    Ended {
        /// Whether we said it.
        sent: bool,
        /// What was said.
        what: Notification,
    },
}

/// What has happened to a peer.
#[derive(Debug, Clone)]
pub(crate) struct Past {
    /// Since when it is up, or not.
    pub since: SystemTime,
    /// Sessions that have ended.
    pub flaps: u64,
    /// Faults of its UPDATEs, by class: discarded, withdrawn, family dropped, session ended.
    pub faults: [u64; 4],
    /// Sessions that ended with a NOTIFICATION: of ours, of its own.
    pub notified: [u64; 2],
}

/// All of it; clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct History(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    started: SystemTime,
    peers: HashMap<String, Past>,
    noted: VecDeque<Noted>,
}

impl History {
    /// Nothing yet.
    pub(crate) fn new(now: SystemTime) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            started: now,
            peers: HashMap::new(),
            noted: VecDeque::new(),
        })))
    }

    /// Notes what a speaker does from now on.
    pub(crate) fn watch(speaker: &Handle) -> Self {
        let history = Self::new(SystemTime::now());
        let weak = Arc::downgrade(&history.0);
        // One that has ended has nothing more to tell.
        let _ = speaker.watch(move |peer, event| match weak.upgrade() {
            Some(inner) => {
                Self(inner).note(peer, event, SystemTime::now());
                true
            }
            None => false,
        });
        history
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Counts and lists: nothing half done can be left.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Since when things are noted.
    pub(crate) fn started(&self) -> SystemTime {
        self.lock().started
    }

    /// What has happened to a peer.
    pub(crate) fn of(&self, peer: &str) -> Past {
        let inner = self.lock();
        inner.peers.get(peer).cloned().unwrap_or(Past {
            since: inner.started,
            flaps: 0,
            faults: [0; 4],
            notified: [0; 2],
        })
    }

    /// What was wrong, oldest first.
    pub(crate) fn noted(&self) -> Vec<Noted> {
        self.lock().noted.iter().cloned().collect()
    }

    /// Notes an event.
    pub(crate) fn note(&self, peer: &str, event: &Event, at: SystemTime) {
        let mut inner = self.lock();
        let started = inner.started;
        let past = |inner: &mut Inner, f: &mut dyn FnMut(&mut Past)| {
            let past = inner.peers.entry(peer.to_owned()).or_insert(Past {
                since: started,
                flaps: 0,
                faults: [0; 4],
                notified: [0; 2],
            });
            f(past);
        };
        match event {
            Event::State { from, to, .. } => {
                let up = |s: &State| *s == State::Established;
                let known = inner.peers.contains_key(peer);
                past(&mut inner, &mut |p| {
                    if up(from) != up(to) || !known {
                        p.since = at;
                    }
                    p.flaps += u64::from(up(from) && !up(to));
                });
            }
            Event::Faults { what, .. } => {
                for fault in what {
                    past(&mut inner, &mut |p| p.faults[class(fault.class)] += 1);
                    let mut kept = fault.clone();
                    if kept.raw.len() > OCTETS {
                        kept.raw = kept.raw[..OCTETS].into();
                    }
                    inner.keep(peer, at, What::Fault(kept));
                }
            }
            // Of two connections one had to go; no session has ended.
            Event::Notified { what, .. } if what.code == Code::COLLISION => {}
            Event::Notified { sent, what, .. } => {
                past(&mut inner, &mut |p| p.notified[usize::from(!*sent)] += 1);
                let ended = What::Ended {
                    sent: *sent,
                    what: what.clone(),
                };
                inner.keep(peer, at, ended);
            }
            _ => {}
        }
    }
}

/// Its place in [`Past::faults`].
const fn class(c: FaultClass) -> usize {
    match c {
        FaultClass::AttributeDiscard => 0,
        FaultClass::TreatAsWithdraw => 1,
        FaultClass::DisableFamily => 2,
        FaultClass::SessionReset => 3,
    }
}

impl Inner {
    fn keep(&mut self, peer: &str, at: SystemTime, what: What) {
        if self.noted.len() == FAULTS {
            self.noted.pop_front();
        }
        self.noted.push_back(Noted {
            at,
            peer: peer.to_owned(),
            what,
        });
    }
}
