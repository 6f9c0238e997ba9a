//! What there is to say about peers.

use super::history::History;
use crate::bfd::BfdReport;
use crate::engine::View;
use bgp::fsm::State;
use bgp::rib::PeerId;
use bgp::router::PeerStatus;
use model::Beyond;
use net::Family;
use peering::Peer;
use std::time::{Duration, SystemTime};

/// A peer of the plan, and its session.
#[derive(Debug, Clone)]
pub(crate) struct PeerReport {
    /// Its name in tables and sockets.
    pub name: String,
    /// What asks for it.
    pub peer: Peer,
    /// Its session; `None`: it stays down, for one of the speaker's troubles.
    pub status: Option<PeerStatus>,
    /// What keeps it down or its routes out, if that is no error of a session.
    pub trouble: Option<String>,
    /// What watches the path to it; `None`: nothing does.
    pub bfd: Option<BfdReport>,
    /// Since when it is up, or not.
    pub since: SystemTime,
    /// Sessions that have ended.
    pub flaps: u64,
    /// Faults by class: discarded, withdrawn, family dropped, session ended.
    pub faults: [u64; 4],
    /// Sessions that ended with a NOTIFICATION: of ours, of its own.
    pub notified: [u64; 2],
}

impl PeerReport {
    /// What is wrong now, or went wrong last: with bringing a session up at all, with what it tells of, or
    /// with the session.
    pub(crate) fn error(&self) -> Option<&str> {
        let of_session = self.status.as_ref().and_then(|s| s.last_error.as_deref());
        self.trouble.as_deref().or(of_session)
    }

    /// Its state.
    pub(crate) fn state(&self) -> State {
        self.status.as_ref().map_or(State::Idle, |s| s.state)
    }

    /// Whether it carries routes.
    pub(crate) fn is_up(&self) -> bool {
        self.state() == State::Established
    }

    /// The family of its address.
    pub(crate) fn family(&self) -> Family {
        Family::of(self.peer.address)
    }
}

/// The number in the router of each peer of the plan, if it has one.
fn ids(view: &View<'_>) -> Vec<Option<PeerId>> {
    let mut out = vec![None; view.plan.peers.len()];
    for (id, at) in view.ids {
        out[*at] = Some(*id);
    }
    out
}

/// What a peer is called, by its number in the router.
pub(crate) fn name_of(view: &View<'_>, id: PeerId) -> Option<String> {
    let (_, at) = view.ids.iter().find(|(i, _)| *i == id)?;
    Some(view.plan.peers[*at].name())
}

/// The number in the router of the peer that is called so.
pub(crate) fn id_of(view: &View<'_>, name: &str) -> Option<PeerId> {
    let called = |(_, at): &&(PeerId, usize)| view.plan.peers[*at].name() == name;
    view.ids.iter().find(called).map(|(id, _)| *id)
}

/// What there is to say of a peer that tells of more than is wanted, while its session goes on.
fn too_many(peer: &Peer, status: &PeerStatus) -> Option<String> {
    let max = peer.max_prefixes?;
    let (paths, count) = (status.paths[Family::of(peer.address)], max.count);
    match max.beyond {
        Beyond::Warn if paths > count => Some(format!(
            "it has told of {paths} prefixes, and its maximum is {count}"
        )),
        Beyond::Discard if paths >= count => Some(format!(
            "it has reached its maximum of {count} prefixes: no more are taken"
        )),
        _ => None,
    }
}

/// All peers of the plan, in its order.
pub(crate) fn collect(view: &View<'_>, history: &History) -> Vec<PeerReport> {
    let ids = ids(view);
    let report = |(i, peer): (usize, &Peer)| {
        let id = ids[i];
        let name = peer.name();
        let past = history.of(&name);
        let of_it = |t: &String| Some(t.strip_prefix(&name)?.strip_prefix(": ")?.to_owned());
        let status = id.and_then(|id| view.router?.peer_status(id));
        PeerReport {
            peer: peer.clone(),
            trouble: match id {
                Some(_) => status.as_ref().and_then(|s| too_many(peer, s)),
                None => view.troubles.iter().find_map(of_it),
            },
            status,
            bfd: view.bfd.report(peer),
            since: past.since,
            flaps: past.flaps,
            faults: past.faults,
            notified: past.notified,
            name,
        }
    };
    view.plan.peers.iter().enumerate().map(report).collect()
}

/// After so long one session is enough.
const SETTLED: Duration = Duration::from_secs(90);

/// Whether a node's BGP is as it should be, as Calico's readiness probe asks it: in the beginning every
/// session has to be up and no restart under way, later one session is enough. `running` is for how long
/// the node has been running. A node that has nobody to speak with is ready.
///
/// # Errors
/// With what is missing, in one line.
pub fn readiness(view: &View<'_>, running: Duration) -> Result<(), String> {
    let Some(router) = view.router else {
        return Err("BGP is not spoken: the node is unknown or has no address".to_owned());
    };
    for family in Family::BOTH {
        if router.is_restarting(family) {
            return Err(format!("graceful restart of {family} is under way"));
        }
    }
    let ids = ids(view);
    let up = |i: usize| {
        let status = ids[i].and_then(|id| router.peer_status(id));
        status.is_some_and(|s| s.state == State::Established)
    };
    // Workloads come and go; no probe of the node waits for them.
    let wanted = view.plan.peers.iter().enumerate();
    let wanted = wanted.filter(|(_, p)| p.origin != peering::PeerOrigin::LocalWorkload);
    let (there, missing): (Vec<_>, Vec<_>) = wanted.partition(|(i, _)| up(*i));
    if missing.is_empty() || (running > SETTLED && !there.is_empty()) {
        return Ok(());
    }
    let names: Vec<String> = missing.iter().map(|(_, p)| p.address.to_string()).collect();
    Err(format!(
        "BGP not established with {} ({} of {} are)",
        names.join(", "),
        there.len(),
        there.len() + missing.len()
    ))
}
