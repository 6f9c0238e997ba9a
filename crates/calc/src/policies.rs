//! Which policies apply to the local endpoints, in which order; and the rules that are
//! therefore needed.
//!
//! Promises: the policies of a selector are kept in order, and endpoints that the same selectors
//! match share what follows; a policy or profile and the sets of its rules are active only
//! while a local endpoint needs them (or the policy asks to be on every node). An edit of a
//! tier touches only the endpoints that have it. Staged policies are never looked at.
//!
//! Never: knows an endpoint by more than its label set.

use crate::labels::{Index, LabelSetId, SelectorId};
use crate::members::{Members, SetIndex};
use crate::rules::Compiler;
use crate::stored::{Shelf, Stored};
use desired::{Delta, PolicyRules, ProfileRules, TierPolicies};
use model::{Action, Labels, Policy, PolicyKey, Profile, ProfileId, Tier, TierAction};
use rustc_hash::{FxHashMap, FxHashSet};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Where on an endpoint's way policies are evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hook {
    /// Workloads, and what hosts themselves end or start.
    Normal,
    /// What passes through a host.
    Forward,
    /// Before connection tracking.
    Untracked,
    /// Before destination NAT.
    PreDnat,
}

/// Where a policy stands within its tier, and what it governs.
#[derive(Debug, PartialEq)]
struct Rank {
    tier: Arc<str>,
    order: f64,
    key: PolicyKey,
    ingress: bool,
    egress: bool,
    /// Never [`Hook::Forward`], which is besides.
    hook: Hook,
    forward: bool,
}

impl Rank {
    fn new(key: &PolicyKey, policy: &Policy) -> Self {
        Self {
            order: order(policy.order, f64::INFINITY),
            key: key.clone(),
            tier: policy.tier.clone(),
            ingress: policy.applies_ingress,
            egress: policy.applies_egress,
            hook: if policy.untracked {
                Hook::Untracked
            } else if policy.pre_dnat {
                Hook::PreDnat
            } else {
                Hook::Normal
            },
            forward: policy.apply_on_forward,
        }
    }

    /// Whether it is evaluated at a hook, towards endpoints or from them.
    fn governs(&self, hook: Hook, ingress: bool) -> bool {
        let there = match hook {
            Hook::Forward => self.forward && self.hook == Hook::Normal,
            own => self.hook == own,
        };
        let direction = if ingress {
            self.ingress
        } else {
            self.egress && hook != Hook::PreDnat
        };
        there && direction
    }

    /// By tier's name, then as the tier evaluates them.
    fn position(&self, other: &Self) -> Ordering {
        let tier = if Arc::ptr_eq(&self.tier, &other.tier) {
            Ordering::Equal
        } else {
            self.tier.cmp(&other.tier)
        };
        tier.then_with(|| self.order.total_cmp(&other.order))
            .then_with(|| tie_break(&self.key, &other.key))
    }
}

/// Compares as [`PolicyKey::tie_break`]'s texts do, mostly without writing them.
fn tie_break(a: &PolicyKey, b: &PolicyKey) -> Ordering {
    let shorter = a.name.len().min(b.name.len());
    let (x, y) = (a.name.as_bytes(), b.name.as_bytes());
    let names = x[..shorter].cmp(&y[..shorter]);
    names.then_with(|| {
        if a == b {
            Ordering::Equal
        } else {
            a.tie_break().cmp(&b.tie_break())
        }
    })
}

/// An order that sorts totally: one zero, and what is no number sorts as if unstated.
fn order(stated: Option<f64>, unstated: f64) -> f64 {
    stated.filter(|o| !o.is_nan()).unwrap_or(unstated) + 0.0
}

/// Tiers by order; one that is not there comes after all that are.
fn tier_position(a: Option<Tier>, b: Option<Tier>) -> Ordering {
    let stated = |t: Tier| order(t.order, Tier::DEFAULT_ORDER);
    match (a, b) {
        (Some(a), Some(b)) => stated(a).total_cmp(&stated(b)),
        (a, b) => b.is_some().cmp(&a.is_some()),
    }
}

/// A tier that holds even where the datastore does not have it.
fn predefined(name: &str) -> Option<Tier> {
    let (order, default_action) = match name {
        "kube-admin" => (1000.0, TierAction::Pass),
        "default" => (Tier::DEFAULT_ORDER, TierAction::Deny),
        "kube-baseline" => (10_000_000.0, TierAction::Pass),
        _ => return None,
    };
    Some(Tier {
        order: Some(order),
        default_action,
    })
}

#[derive(Debug)]
struct PolicyState {
    selector: SelectorId,
    rank: Arc<Rank>,
    on_every_node: bool,
    /// Empty in directions that it does not govern: they would never be met.
    ingress: Stored,
    egress: Stored,
}

/// The policies of a selector.
#[derive(Debug, Default)]
struct Applied {
    /// Sorted by position.
    ranks: Vec<Arc<Rank>>,
    /// Local label sets that it matches.
    users: usize,
}

/// What the outside knows of a policy or profile, and the sets held for it.
#[derive(Debug)]
struct Active<T> {
    rules: Arc<T>,
    sets: Vec<SetIndex>,
}

/// Lists that were resolved already: endpoints that the same selectors match have the same.
#[derive(Debug, Default)]
pub(crate) struct Resolved(FxHashMap<Box<[SelectorId]>, Vec<TierPolicies>>);

#[derive(Debug, Default)]
struct ProfileState {
    /// Towards endpoints, and from them.
    rules: Option<(Stored, Stored)>,
    /// Local endpoints that list it.
    users: usize,
}

/// Policies, tiers, profiles and the label sets of local endpoints.
#[derive(Debug, Default)]
pub(crate) struct Policies {
    index: Index,
    shelf: Shelf,
    policies: BTreeMap<PolicyKey, PolicyState>,
    applied: FxHashMap<SelectorId, Applied>,
    tiers: FxHashMap<Arc<str>, Tier>,
    tier_names: FxHashSet<Arc<str>>,
    profiles: FxHashMap<ProfileId, ProfileState>,
    active_policies: FxHashMap<PolicyKey, Active<PolicyRules>>,
    active_profiles: FxHashMap<ProfileId, Active<ProfileRules>>,
    dirty_policies: FxHashSet<PolicyKey>,
    dirty_profiles: FxHashSet<ProfileId>,
    dirty_labels: BTreeSet<LabelSetId>,
}

impl Policies {
    /// Takes the new state of a policy.
    pub(crate) fn update(&mut self, key: PolicyKey, policy: Option<Policy>) {
        if key.kind.is_staged() {
            return;
        }
        let Some(policy) = policy else {
            if let Some(old) = self.policies.remove(&key) {
                self.detach(&old);
                self.mark(&key, &old);
                self.forget(old);
            }
            return;
        };
        let mut policy = policy;
        policy.tier = self.tier_name(policy.tier);
        // All is acquired before the old one gives back, so that what is equal stays.
        let mut rank = Arc::new(Rank::new(&key, &policy));
        let selector = self.index.acquire_selector(&policy.selector);
        let mut store = |governs, rules| self.shelf.put(if governs { rules } else { Vec::new() });
        let mut new = PolicyState {
            selector,
            rank: rank.clone(),
            on_every_node: policy.on_every_node,
            ingress: store(policy.applies_ingress, policy.ingress),
            egress: store(policy.applies_egress, policy.egress),
        };
        match self.policies.remove(&key) {
            Some(old) if old.selector == selector && old.rank == rank => {
                rank = old.rank.clone();
                if old.on_every_node != new.on_every_node
                    || !Arc::ptr_eq(&old.ingress, &new.ingress)
                    || !Arc::ptr_eq(&old.egress, &new.egress)
                {
                    self.mark(&key, &new);
                }
                new.rank = rank;
                self.forget(old);
            }
            old => {
                self.attach(selector, &rank);
                self.mark(&key, &new);
                if let Some(old) = old {
                    self.detach(&old);
                    self.forget(old);
                }
            }
        }
        self.policies.insert(key, new);
    }

    /// One text for a tier that many policies name.
    fn tier_name(&mut self, name: Arc<str>) -> Arc<str> {
        if let Some(known) = self.tier_names.get(&name) {
            return known.clone();
        }
        if self.tier_names.len() >= 64 {
            let used = |n: &Arc<str>| Arc::strong_count(n) > 1;
            self.tier_names.retain(used);
        }
        self.tier_names.insert(name.clone());
        name
    }

    /// The outside may have to hear of a policy.
    fn mark(&mut self, key: &PolicyKey, state: &PolicyState) {
        if self.is_used(state) || self.active_policies.contains_key(key) {
            self.dirty_policies.insert(key.clone());
        }
    }

    fn is_used(&self, state: &PolicyState) -> bool {
        let applied = self.applied.get(&state.selector);
        state.on_every_node || applied.is_some_and(|a| a.users > 0)
    }

    /// Gives back what a policy held.
    fn forget(&mut self, state: PolicyState) {
        self.index.release_selector(state.selector);
        self.shelf.give_back(state.ingress);
        self.shelf.give_back(state.egress);
    }

    /// Puts a policy among those of its selector.
    fn attach(&mut self, selector: SelectorId, rank: &Arc<Rank>) {
        let matching = self.index.matching(selector);
        let applied = self.applied.entry(selector).or_default();
        let at = applied.ranks.partition_point(|r| r.position(rank).is_lt());
        applied.ranks.insert(at, rank.clone());
        applied.users = matching.len();
        self.dirty_labels.extend(matching);
    }

    fn detach(&mut self, state: &PolicyState) {
        let selector = state.selector;
        self.dirty_labels.extend(self.index.matching(selector));
        let Some(applied) = self.applied.get_mut(&selector) else {
            return;
        };
        // The new rank of the same policy may stand at the same place.
        let from = applied
            .ranks
            .partition_point(|r| r.position(&state.rank).is_lt());
        let here = applied.ranks[from..].iter();
        if let Some(i) = here.take(2).position(|r| Arc::ptr_eq(r, &state.rank)) {
            applied.ranks.remove(from + i);
        }
        if applied.ranks.is_empty() {
            self.applied.remove(&selector);
        }
    }

    /// A label set gained or lost a selector, and so all its policies.
    fn match_changed(&mut self, labels: LabelSetId, selector: SelectorId, matches: bool) {
        self.dirty_labels.insert(labels);
        let Some(applied) = self.applied.get_mut(&selector) else {
            return;
        };
        let before = applied.users;
        applied.users = if matches {
            before + 1
        } else {
            before.saturating_sub(1)
        };
        if (before == 0) != (applied.users == 0) {
            let keys = applied.ranks.iter().map(|r| r.key.clone());
            self.dirty_policies.extend(keys);
        }
    }

    /// Takes the new state of a tier.
    pub(crate) fn update_tier(&mut self, name: Arc<str>, tier: Option<Tier>) {
        let old = match tier {
            Some(tier) => self.tiers.insert(name.clone(), tier),
            None => self.tiers.remove(&name),
        };
        if old != tier {
            let has = |a: &&Applied| {
                let first = a.ranks.partition_point(|r| r.tier < name);
                a.users > 0 && a.ranks.get(first).is_some_and(|r| r.tier == name)
            };
            let using = self.applied.iter().filter(|(_, a)| has(a));
            let labels = using.flat_map(|(s, _)| self.index.matching(*s));
            self.dirty_labels.extend(labels);
        }
    }

    /// Takes the new state of a profile.
    pub(crate) fn update_profile(&mut self, id: &ProfileId, profile: Option<Profile>) {
        // Those of profiles that nothing here has are looked up when something comes that has them.
        if self.profiles.get(id).is_some_and(|s| s.users > 0) {
            let labels = profile.as_ref().map(|p| &p.labels);
            for c in self.index.set_profile(id, labels) {
                self.match_changed(c.set, c.selector, c.matches);
            }
        }
        let new = profile.map(|p| (self.shelf.put(p.ingress), self.shelf.put(p.egress)));
        let state = self.profiles.entry(id.clone()).or_default();
        let old = std::mem::replace(&mut state.rules, new);
        if state.users > 0 {
            self.dirty_profiles.insert(id.clone());
        } else if state.rules.is_none() {
            self.profiles.remove(id);
        }
        if let Some((ingress, egress)) = old {
            self.shelf.give_back(ingress);
            self.shelf.give_back(egress);
        }
    }

    /// A local endpoint with these labels and profiles is there; `members` knows what each profile
    /// gives to inherit.
    pub(crate) fn join(
        &mut self,
        labels: &Labels,
        profiles: &[ProfileId],
        members: &Members,
    ) -> LabelSetId {
        for p in profiles {
            let state = self.profiles.entry(p.clone()).or_default();
            state.users += 1;
            if state.users == 1 {
                self.dirty_profiles.insert(p.clone());
                // Nothing that is here has it, so nothing matches anew.
                self.index.set_profile(p, members.profile(p).as_ref());
            }
        }
        let (id, new) = self.index.acquire_labels(labels, profiles);
        if new {
            self.dirty_labels.insert(id);
            for selector in self.index.matches(id).to_vec() {
                self.match_changed(id, selector, true);
            }
        }
        id
    }

    /// It is gone again.
    pub(crate) fn leave(&mut self, id: LabelSetId, profiles: &[ProfileId]) {
        if self.index.is_last(id) {
            for selector in self.index.matches(id).to_vec() {
                self.match_changed(id, selector, false);
            }
            self.dirty_labels.remove(&id);
        }
        self.index.release_labels(id);
        for p in profiles {
            let Some(state) = self.profiles.get_mut(p) else {
                continue;
            };
            state.users -= 1;
            if state.users == 0 {
                self.dirty_profiles.insert(p.clone());
                self.index.set_profile(p, None);
                if state.rules.is_none() {
                    self.profiles.remove(p);
                }
            }
        }
    }

    /// The label sets whose lists changed since this was last asked.
    pub(crate) fn take_dirty_labels(&mut self) -> BTreeSet<LabelSetId> {
        std::mem::take(&mut self.dirty_labels)
    }

    /// The tiers and policies of the workloads with a label set, in order.
    pub(crate) fn resolve(&self, labels: LabelSetId, known: &mut Resolved) -> Vec<TierPolicies> {
        let selectors = self.index.matches(labels);
        if let Some(tiers) = known.0.get(selectors) {
            return tiers.clone();
        }
        let tiers = self.resolve_at(labels, Hook::Normal);
        known.0.insert(selectors.into(), tiers.clone());
        tiers
    }

    /// The same at any hook; only policies of that hook, and only tiers that have some.
    pub(crate) fn resolve_at(&self, labels: LabelSetId, hook: Hook) -> Vec<TierPolicies> {
        let selectors = self.index.matches(labels).iter();
        let mut ranks: Vec<&Rank> = selectors
            .filter_map(|s| self.applied.get(s))
            .flat_map(|a| a.ranks.iter().map(|r| &**r))
            .filter(|r| r.governs(hook, true) || r.governs(hook, false))
            .collect();
        // Each selector's are in order already, which this sort makes use of.
        ranks.sort_by(|a, b| a.position(b));
        let mut tiers: Vec<(Option<Tier>, &[&Rank])> = ranks
            .chunk_by(|a, b| a.tier == b.tier)
            .map(|list| (self.tier(&list[0].tier), list))
            .collect();
        // Stable, so by name where tiers are equal.
        tiers.sort_by(|a, b| tier_position(a.0, b.0));
        let keys = |list: &[&Rank], ingress: bool| -> Vec<PolicyKey> {
            let ranks = list.iter().filter(|r| r.governs(hook, ingress));
            ranks.map(|r| r.key.clone()).collect()
        };
        let resolved = tiers.into_iter().map(|(tier, list)| TierPolicies {
            name: list[0].tier.clone(),
            default_action: match hook {
                Hook::Normal | Hook::Forward => tier.map_or(TierAction::Deny, |t| t.default_action),
                Hook::Untracked | Hook::PreDnat => TierAction::Pass,
            },
            ingress: keys(list, true),
            egress: keys(list, false),
        });
        resolved.collect()
    }

    fn tier(&self, name: &str) -> Option<Tier> {
        let known = self.tiers.get(name).copied();
        known.or_else(|| predefined(name))
    }

    /// Says which rules came, changed and went, acquiring and releasing their sets.
    pub(crate) fn flush(&mut self, members: &mut Members, delta: &mut Delta) {
        for key in std::mem::take(&mut self.dirty_policies) {
            let needed = self.policies.get(&key).filter(|s| self.is_used(s));
            let rules = needed.map(|s| compile_policy(s, &self.shelf, members));
            let change = replace(&mut self.active_policies, &key, rules, members);
            if let Some(change) = change {
                delta.policies.insert(key, change);
            }
        }
        for id in std::mem::take(&mut self.dirty_profiles) {
            let needed = self.profiles.get(&id).filter(|s| s.users > 0);
            let rules = needed.map(|s| compile_profile(&id, s, &self.shelf, members));
            let change = replace(&mut self.active_profiles, &id, rules, members);
            if let Some(change) = change {
                delta.profiles.insert(id, change);
            }
        }
    }
}

fn compile_policy(
    state: &PolicyState,
    shelf: &Shelf,
    members: &mut Members,
) -> (PolicyRules, Compiler) {
    let mut compiler = Compiler::default();
    let rules = PolicyRules {
        tier: state.rank.tier.clone(),
        ingress: compiler.rules(&shelf.take(&state.ingress), members),
        egress: compiler.rules(&shelf.take(&state.egress), members),
    };
    (rules, compiler)
}

/// The profile that allows everything; hosts' own endpoints have it.
const DEFAULT_ALLOW: &str = "projectcalico-default-allow";

/// One that is not there has no rules, and so denies; but the one that every cluster is built
/// with means what it says even where nobody wrote it down.
fn compile_profile(
    id: &str,
    state: &ProfileState,
    shelf: &Shelf,
    members: &mut Members,
) -> (ProfileRules, Compiler) {
    let mut compiler = Compiler::default();
    let (ingress, egress) = match &state.rules {
        Some((ingress, egress)) => (shelf.take(ingress), shelf.take(egress)),
        None if id == DEFAULT_ALLOW => {
            let allow = vec![model::Rule::any(Action::Allow)];
            (allow.clone(), allow)
        }
        None => (Vec::new(), Vec::new()),
    };
    let rules = ProfileRules {
        ingress: compiler.rules(&ingress, members),
        egress: compiler.rules(&egress, members),
    };
    (rules, compiler)
}

/// Puts new rules in the place of the old ones; says what the outside has to hear.
fn replace<K: Eq + std::hash::Hash + Clone, T: PartialEq>(
    active: &mut FxHashMap<K, Active<T>>,
    key: &K,
    new: Option<(T, Compiler)>,
    members: &mut Members,
) -> Option<Option<Arc<T>>> {
    let old = active.remove(key);
    let mut change = old.as_ref().map(|_| None);
    if let Some((rules, compiler)) = new {
        let same = old.as_ref().filter(|o| *o.rules == rules);
        let rules = if let Some(same) = same {
            change = None;
            same.rules.clone()
        } else {
            let rules = Arc::new(rules);
            change = Some(Some(rules.clone()));
            rules
        };
        active.insert(
            key.clone(),
            Active {
                rules,
                sets: compiler.sets,
            },
        );
    }
    // Only now, so that a set that both need is never without a reference.
    for set in old.into_iter().flat_map(|o| o.sets) {
        members.release_set(set);
    }
    change
}
