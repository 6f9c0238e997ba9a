//! Tiers, policies, profiles: what they decide about one packet of one endpoint.

use crate::rule::Effective;
use crate::words;
use crate::{
    Consulted, Decision, Direction, Effect, Packet, PolicyTrail, RuleTrail, TierTrail, World,
};
use model::{
    Action, Policy, PolicyKey, PolicyKind, ProfileId, Rule, StagedAction, Tier, TierAction,
};
use std::sync::Arc;

/// Which policies are asked at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// All but those that are for untracked or pre-DNAT alone.
    Normal,
    /// Of those, the ones with `applyOnForward`.
    Forward,
    /// `doNotTrack`.
    Untracked,
    /// `preDNAT`.
    PreDnat,
}

impl Class {
    fn has(self, p: &Policy) -> bool {
        match self {
            Self::Normal => !p.untracked && !p.pre_dnat,
            Self::Forward => !p.untracked && !p.pre_dnat && p.apply_on_forward,
            Self::Untracked => p.untracked,
            Self::PreDnat => p.pre_dnat && !p.untracked,
        }
    }

    /// Whether the end of a tier drops. Untracked and pre-DNAT tiers pass.
    fn tiers_end(self) -> bool {
        matches!(self, Self::Normal | Self::Forward)
    }
}

/// Which staged policies count as enforced.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Staged<'a> {
    None,
    All,
    Only(&'a PolicyKey),
}

/// The world, with a choice of policies.
pub(crate) struct Judge<'a> {
    pub world: &'a World,
    /// The key under which a policy is enforced, the one it is known by, and the policy.
    policies: Vec<(PolicyKey, &'a PolicyKey, &'a Policy)>,
    /// Whether to keep what was asked.
    pub detail: bool,
}

/// What policies said.
pub(crate) struct Ruling {
    /// `None`: nothing decided.
    pub decided: Option<(Effect, Decision)>,
    /// Whether any policy was about the endpoint.
    pub any: bool,
    pub consulted: Vec<Consulted>,
}

/// The kind that a staged one would be.
fn enforced_kind(kind: PolicyKind) -> PolicyKind {
    match kind {
        PolicyKind::StagedGlobalNetworkPolicy => PolicyKind::GlobalNetworkPolicy,
        PolicyKind::StagedNetworkPolicy => PolicyKind::NetworkPolicy,
        PolicyKind::StagedKubernetesNetworkPolicy => PolicyKind::KubernetesNetworkPolicy,
        kind => kind,
    }
}

impl World {
    /// The same with staged policies enforced: each in the place of the enforced one of its name,
    /// beside the others, or taking it away.
    pub fn with_staged_enforced(&self) -> World {
        let judge = Judge::new(self, Staged::All, false);
        let policies = judge.policies.iter().map(|(key, _, p)| {
            let staged = StagedAction::Set;
            (
                key.clone(),
                Policy {
                    staged,
                    ..(*p).clone()
                },
            )
        });
        World {
            policies: policies.collect(),
            ..self.clone()
        }
    }
}

impl<'a> Judge<'a> {
    pub(crate) fn new(world: &'a World, staged: Staged<'_>, detail: bool) -> Self {
        let enforced = world.policies.iter().filter(|(k, _)| !k.kind.is_staged());
        let mut policies: Vec<_> = enforced.map(|(k, p)| (k.clone(), k, p)).collect();
        let counts = |k: &PolicyKey| match staged {
            Staged::None => false,
            Staged::All => true,
            Staged::Only(one) => one == k,
        };
        for (k, p) in world
            .policies
            .iter()
            .filter(|(k, _)| k.kind.is_staged() && counts(k))
        {
            let key = PolicyKey {
                kind: enforced_kind(k.kind),
                ..k.clone()
            };
            match p.staged {
                StagedAction::Ignore => {}
                StagedAction::Delete => policies.retain(|(e, ..)| *e != key),
                StagedAction::Set | StagedAction::Learn => {
                    policies.retain(|(e, ..)| *e != key);
                    policies.push((key, k, p));
                }
            }
        }
        Self {
            world,
            policies,
            detail,
        }
    }

    /// Tiers in order: by number, then name; those that do not exist go last.
    fn tiers(&self) -> Vec<(Arc<str>, Option<Tier>)> {
        let known = self.world.tiers.iter().map(|(n, t)| (n.clone(), Some(*t)));
        let unknown = self.policies.iter().map(|(.., p)| &p.tier);
        let unknown = unknown.filter(|n| !self.world.tiers.contains_key(*n));
        let mut all: Vec<_> = known.chain(unknown.map(|n| (n.clone(), None))).collect();
        let number = |t: &Option<Tier>| match t {
            Some(t) => order(t.order, Tier::DEFAULT_ORDER),
            None => f64::INFINITY,
        };
        all.sort_by(|(an, a), (bn, b)| {
            let exists_first = a.is_none().cmp(&b.is_none());
            exists_first
                .then(number(a).total_cmp(&number(b)))
                .then_with(|| an.cmp(bn))
        });
        all.dedup_by(|a, b| a.0 == b.0);
        all
    }

    /// Policies of a tier that are about the endpoint in that direction, in order.
    fn applicable(
        &self,
        tier: &str,
        labels: &Effective<'_>,
        direction: Direction,
        class: Class,
    ) -> Vec<&(PolicyKey, &'a PolicyKey, &'a Policy)> {
        let governs = |p: &Policy| match direction {
            Direction::Ingress => p.applies_ingress,
            Direction::Egress => p.applies_egress,
        };
        let is = |p: &Policy| {
            *p.tier == *tier && class.has(p) && governs(p) && p.selector.matches(labels)
        };
        let mut found: Vec<_> = self.policies.iter().filter(|(.., p)| is(p)).collect();
        found.sort_by(|(ak, _, a), (bk, _, b)| {
            let by_number = order(a.order, f64::INFINITY).total_cmp(&order(b.order, f64::INFINITY));
            by_number.then_with(|| ak.tie_break().cmp(&bk.tie_break()))
        });
        found
    }

    /// Asks all tiers in order.
    pub(crate) fn by_tiers(
        &self,
        labels: &Effective<'_>,
        direction: Direction,
        class: Class,
        packet: &Packet,
    ) -> Ruling {
        let mut ruling = Ruling {
            decided: None,
            any: false,
            consulted: Vec::new(),
        };
        for (name, tier) in self.tiers() {
            let policies = self.applicable(&name, labels, direction, class);
            if policies.is_empty() {
                continue;
            }
            ruling.any = true;
            let mut trail = TierTrail {
                exists: tier.is_some(),
                default_action: tier.unwrap_or_default().default_action,
                tier: name.clone(),
                policies: Vec::new(),
            };
            let mut passed = false;
            for (_, key, policy) in &policies {
                let (hit, rules) = self.by_rules(rules_of(policy, direction), packet);
                trail.policies.push(PolicyTrail {
                    policy: (*key).clone(),
                    rules,
                });
                let Some((index, rule)) = hit else { continue };
                passed = rule.action == Action::Pass;
                if let Some(effect) = effect_of(rule.action) {
                    let decision = Decision::Rule {
                        tier: name.clone(),
                        policy: (*key).clone(),
                        index,
                        name: name_of(rule),
                        action: rule.action,
                    };
                    ruling.decided = Some((effect, decision));
                }
                break;
            }
            let ends = trail.default_action == TierAction::Deny && class.tiers_end();
            ruling.consulted.push(Consulted::Tier(trail));
            if ruling.decided.is_none() && !passed && ends {
                let keys = policies.iter().map(|(_, k, _)| (*k).clone()).collect();
                let decision = Decision::EndOfTier {
                    tier: name,
                    policies: keys,
                };
                ruling.decided = Some((Effect::Deny, decision));
            }
            if ruling.decided.is_some() {
                break;
            }
        }
        ruling
    }

    /// Tiers, then profiles in order, then no.
    pub(crate) fn by_tiers_and_profiles(
        &self,
        labels: &Effective<'_>,
        profiles: &[ProfileId],
        direction: Direction,
        packet: &Packet,
    ) -> Ruling {
        let mut ruling = self.by_tiers(labels, direction, Class::Normal, packet);
        for id in profiles {
            if ruling.decided.is_some() {
                return ruling;
            }
            let Some(profile) = self.world.profiles.get(id) else {
                ruling.consulted.push(Consulted::Profile(id.clone(), None));
                ruling.decided = Some((Effect::Deny, Decision::MissingProfile(id.clone())));
                return ruling;
            };
            let rules = match direction {
                Direction::Ingress => &profile.ingress,
                Direction::Egress => &profile.egress,
            };
            let (hit, trail) = self.by_rules(rules, packet);
            ruling
                .consulted
                .push(Consulted::Profile(id.clone(), Some(trail)));
            if let Some((index, rule)) = hit
                && let Some(effect) = effect_of(rule.action)
            {
                let (profile, action) = (id.clone(), rule.action);
                ruling.decided = Some((
                    effect,
                    Decision::Profile {
                        profile,
                        index,
                        action,
                    },
                ));
            }
        }
        if ruling.decided.is_none() {
            let decision = Decision::NoProfileAllows(profiles.to_vec());
            ruling.decided = Some((Effect::Deny, decision));
        }
        ruling
    }

    /// The first rule that matches and does more than log.
    fn by_rules<'r>(
        &self,
        rules: &'r [Rule],
        packet: &Packet,
    ) -> (Option<(usize, &'r Rule)>, Vec<RuleTrail>) {
        let mut trail = Vec::new();
        for (index, rule) in rules.iter().enumerate() {
            let failed = self.world.mismatches(rule, packet).next();
            if self.detail {
                trail.push(RuleTrail {
                    index,
                    action: rule.action,
                    name: name_of(rule),
                    mismatch: failed.map(|f| words::mismatch(self.world, rule, packet, f)),
                });
            }
            if failed.is_none() && rule.action != Action::Log {
                return (Some((index, rule)), trail);
            }
        }
        (None, trail)
    }
}

pub(crate) fn rules_of(policy: &Policy, direction: Direction) -> &[Rule] {
    match direction {
        Direction::Ingress => &policy.ingress,
        Direction::Egress => &policy.egress,
    }
}

fn effect_of(action: Action) -> Option<Effect> {
    match action {
        Action::Allow => Some(Effect::Allow),
        Action::Deny => Some(Effect::Deny),
        Action::Pass | Action::Log => None,
    }
}

/// The annotation `name`: what ClusterNetworkPolicy calls its rules, and what people write.
fn name_of(rule: &Rule) -> Option<Arc<str>> {
    let named = rule.annotations.iter().find(|(k, _)| &**k == "name");
    named.map(|(_, v)| v.clone())
}

/// What is no number counts as not given, and -0 as 0.
fn order(given: Option<f64>, default: f64) -> f64 {
    given.filter(|o| !o.is_nan()).unwrap_or(default) + 0.0
}
