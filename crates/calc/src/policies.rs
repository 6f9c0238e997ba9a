//! Which policies apply to the local endpoints, in which order; and the rules that are
//! therefore needed.
//!
//! Promises: endpoints with equal labels and profiles share one sorted list; a policy
//! or profile and the sets of its rules are active only while a local endpoint needs them
//! (or the policy asks to be on every node). An edit of a tier touches only the lists
//! that have it. Staged policies are never looked at.
//!
//! Never: knows an endpoint by more than its label set.

use crate::labels::{Index, LabelSetId, SelectorId};
use crate::members::{Members, SetIndex};
use crate::rules::Compiler;
use desired::{Delta, PolicyRules, ProfileRules, TierPolicies};
use model::{Labels, Policy, PolicyKey, Profile, ProfileId, Tier, TierAction};
use rustc_hash::{FxHashMap, FxHashSet};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Where a policy stands within its tier, and which directions it governs.
#[derive(Debug, PartialEq)]
struct Rank {
    order: f64,
    tie: String,
    key: PolicyKey,
    tier: Arc<str>,
    ingress: bool,
    egress: bool,
    /// Untracked and pre-DNAT policies are for host endpoints alone.
    on_workloads: bool,
}

impl Rank {
    fn new(key: &PolicyKey, policy: &Policy) -> Self {
        Self {
            order: order(policy.order, f64::INFINITY),
            tie: key.tie_break(),
            key: key.clone(),
            tier: policy.tier.clone(),
            ingress: policy.applies_ingress,
            egress: policy.applies_egress,
            on_workloads: !policy.untracked && !policy.pre_dnat,
        }
    }

    fn position(&self, other: &Self) -> Ordering {
        self.order
            .total_cmp(&other.order)
            .then_with(|| self.tie.cmp(&other.tie))
    }
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

#[derive(Debug)]
struct PolicyState {
    policy: Arc<Policy>,
    selector: SelectorId,
    rank: Arc<Rank>,
    /// Local label sets that it matches.
    users: usize,
}

/// What the outside knows of a policy or profile, and the sets held for it.
#[derive(Debug)]
struct Active<T> {
    rules: Arc<T>,
    sets: Vec<SetIndex>,
}

/// Matching policies by tier, each list in order.
type Lists = FxHashMap<Arc<str>, Vec<Arc<Rank>>>;

/// A tier with its list: name, the tier if it is there, policies.
type Listed<'a> = (Arc<str>, Option<Tier>, &'a [Arc<Rank>]);

#[derive(Debug, Default)]
struct ProfileState {
    profile: Option<Arc<Profile>>,
    /// Local endpoints that list it.
    users: usize,
}

/// Policies, tiers, profiles and the label sets of local endpoints.
#[derive(Debug, Default)]
pub(crate) struct Policies {
    index: Index,
    policies: BTreeMap<PolicyKey, PolicyState>,
    by_selector: FxHashMap<SelectorId, Vec<Arc<Rank>>>,
    tiers: FxHashMap<Arc<str>, Tier>,
    lists: FxHashMap<LabelSetId, Lists>,
    by_tier: BTreeSet<(Arc<str>, LabelSetId)>,
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
                self.index.release_selector(old.selector);
                self.dirty_policies.insert(key);
            }
            return;
        };
        let known = self.policies.get(&key);
        if known.is_some_and(|o| *o.policy == policy) {
            return;
        }
        let old = self.policies.remove(&key);
        self.dirty_policies.insert(key.clone());
        // Acquired before the old one is released, so that an equal selector is kept.
        let selector = self.index.acquire_selector(&policy.selector);
        let rank = Rank::new(&key, &policy);
        let mut new = PolicyState {
            policy: Arc::new(policy),
            selector,
            rank: Arc::new(rank),
            users: 0,
        };
        if let Some(old) = old {
            if old.selector == selector && old.rank == new.rank {
                new.users = old.users;
                new.rank = old.rank;
                self.index.release_selector(selector);
                self.policies.insert(key, new);
                return;
            }
            self.detach(&old);
            self.index.release_selector(old.selector);
        }
        self.attach(&mut new);
        self.policies.insert(key, new);
    }

    /// Puts a policy into the lists of the label sets that it matches.
    fn attach(&mut self, state: &mut PolicyState) {
        self.by_selector
            .entry(state.selector)
            .or_default()
            .push(state.rank.clone());
        for labels in self.index.matching(state.selector) {
            self.list(labels, &state.rank);
            state.users += 1;
        }
    }

    fn detach(&mut self, state: &PolicyState) {
        if let Some(ranks) = self.by_selector.get_mut(&state.selector) {
            ranks.retain(|r| !Arc::ptr_eq(r, &state.rank));
            if ranks.is_empty() {
                self.by_selector.remove(&state.selector);
            }
        }
        for labels in self.index.matching(state.selector) {
            self.unlist(labels, &state.rank);
        }
    }

    fn list(&mut self, labels: LabelSetId, rank: &Arc<Rank>) {
        let lists = self.lists.entry(labels).or_default();
        let list = lists.entry(rank.tier.clone()).or_default();
        if list.is_empty() {
            self.by_tier.insert((rank.tier.clone(), labels));
        }
        if let Err(i) = list.binary_search_by(|r| r.position(rank)) {
            list.insert(i, rank.clone());
        }
        self.dirty_labels.insert(labels);
    }

    fn unlist(&mut self, labels: LabelSetId, rank: &Rank) {
        let Some(lists) = self.lists.get_mut(&labels) else {
            return;
        };
        if let Some(list) = lists.get_mut(&rank.tier) {
            if let Ok(i) = list.binary_search_by(|r| r.position(rank)) {
                list.remove(i);
            }
            if list.is_empty() {
                lists.remove(&rank.tier);
                self.by_tier.remove(&(rank.tier.clone(), labels));
            }
        }
        self.dirty_labels.insert(labels);
    }

    /// A label set gained or lost a selector, and so all its policies.
    fn match_changed(&mut self, labels: LabelSetId, selector: SelectorId, matches: bool) {
        for rank in self.by_selector.get(&selector).cloned().unwrap_or_default() {
            if matches {
                self.list(labels, &rank);
            } else {
                self.unlist(labels, &rank);
            }
            if let Some(state) = self.policies.get_mut(&rank.key) {
                state.users = if matches {
                    state.users + 1
                } else {
                    state.users.saturating_sub(1)
                };
                if state.users <= 1 {
                    self.dirty_policies.insert(rank.key.clone());
                }
            }
        }
    }

    /// Takes the new state of a tier.
    pub(crate) fn update_tier(&mut self, name: Arc<str>, tier: Option<Tier>) {
        let old = match tier {
            Some(tier) => self.tiers.insert(name.clone(), tier),
            None => self.tiers.remove(&name),
        };
        if old != tier {
            let (first, last) = (LabelSetId(0), LabelSetId(u32::MAX));
            let using = self.by_tier.range((name.clone(), first)..=(name, last));
            self.dirty_labels.extend(using.map(|(_, l)| *l));
        }
    }

    /// Takes the new state of a profile.
    pub(crate) fn update_profile(&mut self, id: &ProfileId, profile: Option<Profile>) {
        let labels = profile.as_ref().map(|p| &p.labels);
        for c in self.index.set_profile(id, labels) {
            self.match_changed(c.set, c.selector, c.matches);
        }
        let state = self.profiles.entry(id.clone()).or_default();
        state.profile = profile.map(|p| {
            // The labels are the index's now.
            Arc::new(Profile {
                labels: Labels::default(),
                ..p
            })
        });
        if state.users > 0 {
            self.dirty_profiles.insert(id.clone());
        } else if state.profile.is_none() {
            self.profiles.remove(id);
        }
    }

    /// A local endpoint with these labels and profiles is there.
    pub(crate) fn join(&mut self, labels: &Labels, profiles: &[ProfileId]) -> LabelSetId {
        let (id, new) = self.index.acquire_labels(labels, profiles);
        if new {
            self.dirty_labels.insert(id);
            for selector in self.index.matches(id).to_vec() {
                self.match_changed(id, selector, true);
            }
        }
        for p in profiles {
            let state = self.profiles.entry(p.clone()).or_default();
            state.users += 1;
            if state.users == 1 {
                self.dirty_profiles.insert(p.clone());
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
            self.lists.remove(&id);
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
                if state.profile.is_none() {
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
    pub(crate) fn resolve(&self, labels: LabelSetId) -> Vec<TierPolicies> {
        let Some(lists) = self.lists.get(&labels) else {
            return Vec::new();
        };
        let mut tiers: Vec<Listed<'_>> = lists
            .iter()
            .map(|(name, list)| (name.clone(), self.tiers.get(name).copied(), &**list))
            .collect();
        tiers.sort_unstable_by(|a, b| tier_position(a.1, b.1).then_with(|| a.0.cmp(&b.0)));
        let keys = |list: &[Arc<Rank>], wanted: fn(&Rank) -> bool| -> Vec<PolicyKey> {
            let ranks = list.iter().filter(|r| r.on_workloads && wanted(r));
            ranks.map(|r| r.key.clone()).collect()
        };
        let resolved = tiers.into_iter().map(|(name, tier, list)| TierPolicies {
            name,
            default_action: tier.map_or(TierAction::Deny, |t| t.default_action),
            ingress: keys(list, |r| r.ingress),
            egress: keys(list, |r| r.egress),
        });
        resolved
            .filter(|t| !t.ingress.is_empty() || !t.egress.is_empty())
            .collect()
    }

    /// Says which rules came, changed and went, acquiring and releasing their sets.
    pub(crate) fn flush(&mut self, members: &mut Members, delta: &mut Delta) {
        for key in std::mem::take(&mut self.dirty_policies) {
            let needed = self
                .policies
                .get(&key)
                .filter(|s| s.users > 0 || s.policy.on_every_node);
            let rules = needed.map(|s| compile_policy(&s.policy, members));
            let change = replace(&mut self.active_policies, &key, rules, members);
            if let Some(change) = change {
                delta.policies.insert(key, change);
            }
        }
        for id in std::mem::take(&mut self.dirty_profiles) {
            let needed = self.profiles.get(&id).filter(|s| s.users > 0);
            let rules = needed.map(|s| compile_profile(s.profile.as_deref(), members));
            let change = replace(&mut self.active_profiles, &id, rules, members);
            if let Some(change) = change {
                delta.profiles.insert(id, change);
            }
        }
    }
}

/// The rules of the directions that the policy governs; the others would never be met.
fn compile_policy(policy: &Policy, members: &mut Members) -> (PolicyRules, Compiler) {
    let mut compiler = Compiler::default();
    let mut rules = |governs: bool, rules: &[model::Rule]| {
        let rules = if governs { rules } else { &[] };
        compiler.rules(rules, members)
    };
    let rules = PolicyRules {
        tier: policy.tier.clone(),
        ingress: rules(policy.applies_ingress, &policy.ingress),
        egress: rules(policy.applies_egress, &policy.egress),
    };
    (rules, compiler)
}

/// One that is not there has no rules, and so denies.
fn compile_profile(profile: Option<&Profile>, members: &mut Members) -> (ProfileRules, Compiler) {
    let mut compiler = Compiler::default();
    let rules = profile.map_or_else(ProfileRules::default, |p| ProfileRules {
        ingress: compiler.rules(&p.ingress, members),
        egress: compiler.rules(&p.egress, members),
    });
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
