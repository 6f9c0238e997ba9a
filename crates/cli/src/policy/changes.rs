//! Which connections two worlds decide differently.

use crate::policy::classes::{self, Class, Sample as One};
use crate::policy::ports::{Cuts, Sample, words};
use model::{Policy, PolicyKey, Update};
use net::{Family, Protocol};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use verdict::{Effect, End, Explanation, Flow, Target, Verdict, World};

/// Most pairs of classes that are compared: minutes of work.
const MOST_PAIRS: usize = 200_000;

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

/// Whom a policy selects: classes by name, and whether any host endpoint.
#[derive(Default)]
struct Selected {
    classes: BTreeSet<String>,
    hosts: bool,
}

type Selecting = BTreeMap<PolicyKey, Selected>;

fn selecting(world: &World, all: &[Class]) -> Selecting {
    let of = |p: &Policy| Selected {
        classes: all
            .iter()
            .filter(|c| classes::selects(world, p, c))
            .map(|c| c.name.clone())
            .collect(),
        hosts: classes::selects_hosts(world, p),
    };
    world.policies().map(|(k, p)| (k.clone(), of(p))).collect()
}

/// Two worlds and who lives in them.
pub(super) struct Comparison {
    pub classes: Vec<Class>,
    before: World,
    after: World,
    /// Of each of them, who is selected.
    selecting: [Selecting; 2],
    policies_alone: bool,
    /// Whether rules tell families apart.
    families: bool,
    /// Whether there are host endpoints.
    hosts: bool,
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
        let hosts = [&before, &after]
            .into_iter()
            .any(|w| w.hosts().next().is_some());
        let selecting = [&before, &after].map(|w| selecting(w, &classes));
        Self {
            selecting,
            classes,
            before,
            after,
            policies_alone,
            families,
            hosts,
        }
    }

    /// All changes, by what they do and whom they reach; `None` if there is too much to compare.
    pub(super) fn changes(&self) -> Option<Vec<Change>> {
        let touched = self.touched();
        let n = self.classes.len();
        let pairs = (0..n).flat_map(|from| (0..n).map(move |to| (from, to)));
        if pairs
            .filter(|(from, to)| touched.concerns(*from, *to))
            .count()
            > MOST_PAIRS
        {
            return None;
        }
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
        Some(out)
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

    /// What changes between two classes, in words, with the reason. Ends on one node and on
    /// two are told apart where host endpoints might.
    fn pair(&self, a: &Class, b: &Class, same: bool) -> Vec<Found> {
        let worlds = self.worlds(a, b);
        let all = self.cuts(a, b, &worlds).samples();
        let pods = !a.is_outside() && !b.is_outside() && a.is_node() == b.is_node();
        let [near, far] = [true, false].map(|near| {
            let (from, to) = ends(a, b, same, near)?;
            Some(self.between(&worlds, from, to, &all))
        });
        match (near, far) {
            (Some(near), Some(far)) if pods && self.hosts && near != far => {
                let on = |found: Vec<Found>, text: &str| {
                    let each = found.into_iter();
                    let said = each.map(|(o, what, why)| (o, format!("{what} ({text})"), why));
                    said.collect::<Vec<_>>()
                };
                [on(near, "on one node"), on(far, "between nodes")].concat()
            }
            // A node always reaches its own pods, so that it is the others that matter.
            (near, far) => far.or(near).unwrap_or_default(),
        }
    }

    fn between(&self, worlds: &Worlds, from: &One, to: &One, all: &[Sample]) -> Vec<Found> {
        let both = |x: &One, f: Family| x.addresses.iter().any(|a| Family::of(*a) == f);
        let mut families = Family::BOTH.to_vec();
        families.retain(|f| both(from, *f) && both(to, *f));
        let asked = if self.families { families.len() } else { 1 };
        let mut each = Vec::new();
        for family in families.iter().take(asked) {
            let mut by: BTreeMap<(bool, String), Vec<Sample>> = BTreeMap::new();
            for sample in all {
                let Some(flow) = flow(from, to, *family, *sample) else {
                    continue;
                };
                let both = [&worlds.before, &worlds.after];
                let verdicts = both.map(|w| verdict(w, &flow, from, to));
                if verdicts[0] != verdicts[1] {
                    let opened = verdicts[1] == Verdict::Allow;
                    let reason = worlds.reason(&flow, opened);
                    by.entry((opened, reason)).or_default().push(*sample);
                }
            }
            let said = by.into_iter();
            let said = said.map(|((opened, why), chosen)| (opened, words(&chosen, all), why));
            each.push((*family, said.collect::<Vec<Found>>()));
        }
        match each.as_slice() {
            [] => Vec::new(),
            [(_, first), rest @ ..] if rest.iter().all(|(_, r)| r == first) => first.clone(),
            _ => {
                let of = |(family, found): (Family, Vec<Found>)| {
                    let said = found.into_iter();
                    said.map(move |(o, what, why)| (o, format!("{what} ({family})"), why))
                };
                each.into_iter().flat_map(of).collect()
            }
        }
    }

    /// The places where rules of either end divide what is sent.
    fn cuts(&self, a: &Class, b: &Class, worlds: &Worlds) -> Cuts {
        let mut cuts = Cuts::default();
        let named: Vec<_> = a.ports.iter().chain(&b.ports).cloned().collect();
        for world in [&worlds.before, &worlds.after] {
            for (_, p) in world.policies() {
                for rule in p.ingress.iter().chain(&p.egress) {
                    cuts.rule(rule, &named);
                    for e in [&rule.source, &rule.destination] {
                        let slices = world.slices();
                        let slices = slices.filter(|(_, s)| Some(&s.service) == e.service.as_ref());
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

    /// What of the worlds bears on flows between two classes.
    fn worlds(&self, a: &Class, b: &Class) -> Worlds {
        let samples = a.samples.iter().chain(&b.samples);
        let addresses: Vec<IpAddr> = samples.flat_map(|s| s.addresses.clone()).collect();
        let narrowed = |world: &World, selecting: &Selecting| {
            world.narrowed(&addresses, |k| {
                !k.kind.is_staged()
                    && selecting.get(k).is_some_and(|of| {
                        of.hosts || of.classes.contains(&a.name) || of.classes.contains(&b.name)
                    })
            })
        };
        Worlds {
            before: narrowed(&self.before, &self.selecting[0]),
            after: narrowed(&self.after, &self.selecting[1]),
        }
    }
}

/// Two worlds, as far as they matter to two ends.
struct Worlds {
    before: World,
    after: World,
}

impl Worlds {
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

/// Opened, what is sent, and why.
type Found = (bool, String, String);

/// One of each, on one node or not; of one class two different ones.
fn ends<'c>(a: &'c Class, b: &'c Class, same: bool, near: bool) -> Option<(&'c One, &'c One)> {
    let mut pairs = a
        .samples
        .iter()
        .flat_map(|x| b.samples.iter().map(move |y| (x, y)));
    pairs.find(|(x, y)| {
        (!same || x.end != y.end) && near == (x.node().is_some() && x.node() == y.node())
    })
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
