//! From a flow to its answer: every way, with staged policies and without.

use crate::judge::{Judge, Staged};
use crate::nat::Legs;
use crate::walk::walk;
use crate::{
    Decision, Effect, End, Explanation, Flow, Path, Place, Stage, StagedAnswer, Verdict, World,
};
use crate::{notes, remedy};
use model::{PolicyKey, StagedAction};

impl World {
    /// What happens to a new connection, and why.
    pub fn explain(&self, flow: &Flow) -> Explanation {
        let judge = Judge::new(self, Staged::None, true);
        let (mut paths, mut said) = self.paths(&judge, flow);
        for path in &mut paths {
            path.remedies = remedy::remedies(&judge, path);
            said.extend(notes::about(&judge, path));
        }
        let mut notes: Vec<String> = Vec::new();
        for note in said {
            if !notes.contains(&note) {
                notes.push(note);
            }
        }
        let verdict = verdict_of(&paths);
        Explanation {
            flow: flow.clone(),
            verdict,
            staged: self.staged(flow, verdict),
            paths,
            notes,
        }
    }

    /// What happens to a new connection. The same as [`World::explain`] says, without why.
    pub fn verdict(&self, flow: &Flow) -> Verdict {
        let judge = Judge::new(self, Staged::None, false);
        verdict_of(&self.paths(&judge, flow).0)
    }

    fn paths(&self, judge: &Judge<'_>, flow: &Flow) -> (Vec<Path>, Vec<String>) {
        match self.legs(flow) {
            Legs::To(legs) => {
                let walked = legs.iter().map(|leg| walk(judge, flow, leg));
                let (paths, notes): (Vec<_>, Vec<_>) = walked.unzip();
                (paths, notes.into_iter().flatten().collect())
            }
            Legs::NoBackend(service) => (vec![no_backend(flow, service)], Vec::new()),
            Legs::Nowhere(why) => (Vec::new(), vec![why]),
        }
    }

    fn staged(&self, flow: &Flow, enforced: Verdict) -> Option<StagedAnswer> {
        let mut staged = self.policies.iter();
        let counts = |p: &model::Policy| p.staged != StagedAction::Ignore;
        if !staged.any(|(k, p)| k.kind.is_staged() && counts(p)) {
            return None;
        }
        let with_all = Judge::new(self, Staged::All, true);
        let paths = self.paths(&with_all, flow).0;
        let alone = |key: &PolicyKey| {
            let judge = Judge::new(self, Staged::Only(key), false);
            verdict_of(&self.paths(&judge, flow).0)
        };
        let each = self.policies.keys().filter(|k| k.kind.is_staged());
        let changed = each
            .map(|k| (k.clone(), alone(k)))
            .filter(|(_, v)| *v != enforced);
        Some(StagedAnswer {
            verdict: verdict_of(&paths),
            changed_by: changed.collect(),
            paths,
        })
    }
}

/// Nowhere to go is closed.
fn verdict_of(paths: &[Path]) -> Verdict {
    let allowed = paths.iter().filter(|p| p.allowed).count();
    match (allowed, paths.len()) {
        (0, _) => Verdict::Deny,
        (a, n) if a == n => Verdict::Allow,
        _ => Verdict::Mixed,
    }
}

fn no_backend(flow: &Flow, service: model::ServiceRef) -> Path {
    let node = match &flow.from {
        End::Workload(k) => k.node.clone(),
        End::Node(n) => n.clone(),
        End::Outside => "".into(),
    };
    let destination = match &flow.to {
        crate::Target::Address(a) => *a,
        crate::Target::Service(_) => flow.source,
    };
    let leg = crate::nat::Leg {
        original: (destination, flow.port),
        destination: (destination, flow.port),
        rewritten_at: None,
        enters_at: None,
        masquerade: false,
    };
    let stage = Stage {
        node,
        place: Place::Service(service),
        packet: crate::walk::first_packet(flow, &leg),
        effect: Effect::Deny,
        decision: Decision::NoBackend,
        consulted: Vec::new(),
    };
    Path {
        to: End::Outside,
        destination: leg.destination,
        allowed: false,
        seen_source: flow.source,
        stages: vec![stage],
        remedies: Vec::new(),
    }
}
