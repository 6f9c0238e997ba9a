//! Which connections two worlds decide differently.

use crate::policy::classes::{self, Class, Sample as One};
use crate::policy::ports::{Cuts, Sample, words};
use model::{Policy, Update};
use net::{Family, Protocol};
use std::collections::{BTreeMap, BTreeSet};
use verdict::{Effect, End, Explanation, Flow, Target, Verdict, World};

/// Some connections that open or close.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Change {
    /// Opened, else closed.
    pub opened: bool,
    /// To whom.
    pub to: usize,
    /// What is sent.
    pub what: String,
    /// What decides afterwards.
    pub reason: String,
    /// From whom, all with the same.
    pub from: Vec<usize>,
}

/// Two worlds and who lives in them.
pub(super) struct Comparison {
    pub classes: Vec<Class>,
    before: World,
    after: World,
    policies_alone: bool,
    families: bool,
}

impl Comparison {
    /// `policies_alone`: nothing but policies differs.
    pub(super) fn new(before: &World, after: &World, policies_alone: bool) -> Self {
        let classes = classes::of(before, after);
        let asked: BTreeSet<_> = classes
            .iter()
            .flat_map(|c| &c.samples)
            .map(|s| &s.end)
            .collect();
        let reduced = |world: &World| {
            let mut out = world.clone();
            for (key, _) in world.workloads() {
                if !asked.contains(&End::Workload(key.clone())) {
                    out.update(Update::Workload(key.clone(), None));
                }
            }
            out
        };
        let (before, after) = (reduced(before), reduced(after));
        let families = [&before, &after].into_iter().any(tells_families);
        Self {
            classes,
            before,
            after,
            policies_alone,
            families,
        }
    }

    /// All changes, by what they do and whom they reach.
    pub(super) fn changes(&self) -> Vec<Change> {
        let touched = self.touched();
        let mut found: BTreeMap<(bool, usize, String, String), Vec<usize>> = BTreeMap::new();
        for (from, a) in self.classes.iter().enumerate() {
            for (to, b) in self.classes.iter().enumerate() {
                if (a.is_outside() && b.is_outside()) || !touched.concerns(from, to) {
                    continue;
                }
                for (opened, what, reason) in self.pair(a, b, from == to) {
                    found
                        .entry((opened, to, what, reason))
                        .or_default()
                        .push(from);
                }
            }
        }
        let change = |((opened, to, what, reason), from)| Change {
            opened,
            to,
            what,
            reason,
            from,
        };
        let mut out: Vec<Change> = found.into_iter().map(change).collect();
        out.sort_by_key(|c| (!c.opened, c.to));
        out
    }

    /// Whom changed policies select: nobody else's connections change by them.
    fn touched(&self) -> Touched {
        let mut out = Touched::default();
        if !self.policies_alone {
            out.all = true;
            return out;
        }
        let [was, is] =
            [&self.before, &self.after].map(|w| w.policies().collect::<BTreeMap<_, _>>());
        for (key, policy) in was.iter().chain(&is) {
            if key.kind.is_staged() || was.get(*key) == is.get(*key) {
                continue;
            }
            out.all |= classes::selects_hosts(&self.after, policy);
            for (i, class) in self.classes.iter().enumerate() {
                if classes::selects(&self.after, policy, class) {
                    let sides = [
                        (policy.applies_egress, &mut out.egress),
                        (policy.applies_ingress, &mut out.ingress),
                    ];
                    for (_, set) in sides.into_iter().filter(|(applies, _)| *applies) {
                        set.insert(i);
                    }
                }
            }
        }
        out
    }

    /// What changes between two classes, in words, with the reason.
    fn pair(&self, a: &Class, b: &Class, same: bool) -> Vec<(bool, String, String)> {
        let Some((from, to)) = ends(a, b, same) else {
            return Vec::new();
        };
        let all = self.cuts(a, b).samples();
        let both = |x: &One, f: Family| x.addresses.iter().any(|a| Family::of(*a) == f);
        let families: Vec<Family> = Family::BOTH
            .into_iter()
            .filter(|f| both(from, *f) && both(to, *f))
            .collect();
        let asked = if self.families { families.len() } else { 1 };
        let mut out = Vec::new();
        for family in families.iter().take(asked) {
            let mut by: BTreeMap<(bool, String), Vec<Sample>> = BTreeMap::new();
            for sample in &all {
                let Some(flow) = flow(from, to, *family, *sample) else {
                    continue;
                };
                let verdicts = [&self.before, &self.after].map(|w| verdict(w, &flow, from, to));
                if verdicts[0] != verdicts[1] {
                    let opened = verdicts[1] == Verdict::Allow;
                    let reason = self.reason(&flow, opened);
                    by.entry((opened, reason)).or_default().push(*sample);
                }
            }
            for ((opened, reason), chosen) in by {
                let what = words(&chosen, &all);
                let what = match families.len() > 1 && asked > 1 {
                    true => format!("{what} ({family})"),
                    false => what,
                };
                out.push((opened, what, reason));
            }
        }
        out
    }

    /// The places where rules of either end divide what is sent.
    fn cuts(&self, a: &Class, b: &Class) -> Cuts {
        let mut cuts = Cuts::default();
        let named: Vec<_> = a.ports.iter().chain(&b.ports).cloned().collect();
        for world in [&self.before, &self.after] {
            for (_, p) in world.policies().filter(|(k, _)| !k.kind.is_staged()) {
                let of_hosts = classes::selects_hosts(world, p);
                let out = of_hosts || classes::selects(world, p, a);
                let into = of_hosts || classes::selects(world, p, b);
                let egress = p.egress.iter().filter(|_| out);
                for rule in egress.chain(p.ingress.iter().filter(|_| into)) {
                    cuts.rule(rule, &named);
                    for e in [&rule.source, &rule.destination] {
                        let slices = world
                            .slices()
                            .filter(|(_, s)| Some(&s.service) == e.service.as_ref());
                        let ports = slices.flat_map(|(_, s)| &s.ports).filter_map(|p| p.port);
                        ports.for_each(|p| cuts.one(p));
                    }
                }
            }
        }
        if a.is_node() || b.is_node() {
            cuts.failsafes();
        }
        cuts
    }

    /// What decides afterwards where it was decided otherwise before.
    fn reason(&self, flow: &Flow, opened: bool) -> String {
        let after = self.after.explain(flow);
        let denied = |e: &Explanation| {
            let stages = e.paths.iter().flat_map(|p| &p.stages);
            stages
                .into_iter()
                .find(|s| s.effect == Effect::Deny)
                .cloned()
        };
        let place = match opened {
            false => denied(&after).map(|s| s.place),
            true => denied(&self.before.explain(flow)).map(|s| s.place),
        };
        let mut stages = after.paths.iter().flat_map(|p| &p.stages);
        let found = place.and_then(|p| stages.find(|s| s.place == p));
        found.map(|s| s.decision.to_string()).unwrap_or_default()
    }
}

#[derive(Default)]
struct Touched {
    all: bool,
    egress: BTreeSet<usize>,
    ingress: BTreeSet<usize>,
}

impl Touched {
    fn concerns(&self, from: usize, to: usize) -> bool {
        self.all || self.egress.contains(&from) || self.ingress.contains(&to)
    }
}

/// One of each; of one class two different ones. A node and a pod of another node, if there are:
/// a node always reaches its own pods.
fn ends<'c>(a: &'c Class, b: &'c Class, same: bool) -> Option<(&'c One, &'c One)> {
    let node = |x: &'c One| match &x.end {
        End::Workload(k) => Some(&k.node),
        End::Node(n) => Some(n),
        End::Outside => None,
    };
    let pairs = a
        .samples
        .iter()
        .flat_map(|x| b.samples.iter().map(move |y| (x, y)));
    let mut pairs: Vec<_> = pairs.filter(|(x, y)| !same || x.end != y.end).collect();
    if a.is_node() != b.is_node() {
        pairs.sort_by_key(|(x, y)| node(x).is_some() && node(x) == node(y));
    }
    pairs.first().copied()
}

fn flow(from: &One, to: &One, family: Family, sample: Sample) -> Option<Flow> {
    let of = |x: &One| {
        x.addresses
            .iter()
            .copied()
            .find(|a| Family::of(*a) == family)
    };
    let (source, target) = (of(from)?, of(to)?);
    let protocol: Protocol = sample.protocol;
    Some(Flow::new(
        from.end.clone(),
        source,
        Target::Address(target),
        protocol,
        sample.ports.0,
    ))
}

/// Who does not exist yet, or no more, is not reached.
fn verdict(world: &World, flow: &Flow, from: &One, to: &One) -> Verdict {
    let exists = |x: &One| match &x.end {
        End::Workload(k) => world.workloads().any(|(w, _)| w == k),
        End::Node(n) => world.nodes().any(|(w, _)| w == n),
        End::Outside => true,
    };
    match exists(from) && exists(to) {
        true => world.verdict(flow),
        false => Verdict::Deny,
    }
}

/// Whether any rule is of one family.
fn tells_families(world: &World) -> bool {
    let tells = |p: &Policy| {
        p.ingress.iter().chain(&p.egress).any(|r| {
            let nets = |e: &model::Entity| {
                !e.nets.is_empty() || !e.not_nets.is_empty() || e.service.is_some()
            };
            r.family.is_some() || r.icmp.is_some() || nets(&r.source) || nets(&r.destination)
        })
    };
    world.policies().any(|(_, p)| tells(p)) || world.network_sets().next().is_some()
}
