//! Policies and profiles, and who uses them how.
//!
//! Promises: a chain is there for each flavour that somebody uses, and for the plain one
//! while nobody does; the sets of its long lists come and go with it.
//! Never: knows an endpoint but by its key.

use crate::changes::TableEdit;
use crate::name::Direction;
use crate::policy::{self, Owner, Rendered, Shape, Shapes};
use crate::role::Flavour;
use desired::{Globals, PolicyRules, ProfileRules, Rule};
use model::{PolicyKey, ProfileId, WorkloadKey};
use nftables::SetName;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Who jumps to a policy or a profile.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum User {
    Workload(WorkloadKey),
    /// A host endpoint, by name.
    Host(Arc<str>),
}

/// The rules of both directions.
pub(crate) trait Book {
    fn rules(&self, d: Direction) -> &[Rule];
}

impl Book for PolicyRules {
    fn rules(&self, d: Direction) -> &[Rule] {
        match d {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }
}

impl Book for ProfileRules {
    fn rules(&self, d: Direction) -> &[Rule] {
        match d {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }
}

/// A policy or profile as it stands.
#[derive(Debug)]
struct Entry<R> {
    rules: Option<Arc<R>>,
    shapes: Shapes,
    /// Who jumps there, and how.
    users: BTreeMap<User, BTreeSet<Flavour>>,
    /// How many users each flavour has.
    flavours: BTreeMap<Flavour, usize>,
    /// What is in the table: chains, each with the sets of its own.
    live: BTreeMap<(Flavour, Direction), Vec<SetName>>,
}

impl<R> Default for Entry<R> {
    fn default() -> Self {
        Self {
            rules: None,
            shapes: Shapes::default(),
            users: BTreeMap::new(),
            flavours: BTreeMap::new(),
            live: BTreeMap::new(),
        }
    }
}

impl<R: Book> Entry<R> {
    fn idle(&self) -> bool {
        self.rules.is_none() && self.users.is_empty()
    }

    /// All chains that there are to be.
    fn wanted(&self) -> BTreeSet<(Flavour, Direction)> {
        if self.rules.is_none() {
            return BTreeSet::new();
        }
        let both = |f: Flavour| f.directions().iter().map(move |d| (f, *d));
        let nobody = self.flavours.is_empty().then_some(Flavour::Plain);
        let flavours = self.flavours.keys().copied().chain(nobody);
        flavours.flat_map(both).collect()
    }

    /// Brings the chains to what they are to be. True if users must look again.
    fn render(&mut self, owner: Owner<'_>, g: &Globals, out: &mut Vec<TableEdit>) -> bool {
        let before = self.shapes;
        self.shapes = Shapes::default();
        let wanted = self.wanted();
        let mut live = BTreeMap::new();
        for (flavour, d) in &wanted {
            let rules = self.rules.as_deref().map_or(&[][..], |r| r.rules(*d));
            let made = policy::chain(owner, rules, *flavour, *d, g);
            self.shapes.set(*d, made.shape);
            let old = self.live.remove(&(*flavour, *d));
            let sets = put(owner, *flavour, *d, made, old, out);
            live.extend(sets.map(|sets| ((*flavour, *d), sets)));
        }
        for ((flavour, d), sets) in std::mem::replace(&mut self.live, live) {
            out.push(TableEdit::RemoveChain(owner.chain(flavour, d)));
            out.extend(sets.into_iter().map(TableEdit::RemoveSet));
        }
        self.shapes != before
    }
}

/// Writes a chain and its sets over what is there. Gives the sets, when there is a chain.
fn put(
    owner: Owner<'_>,
    flavour: Flavour,
    d: Direction,
    made: Rendered,
    old: Option<Vec<SetName>>,
    out: &mut Vec<TableEdit>,
) -> Option<Vec<SetName>> {
    let name = owner.chain(flavour, d);
    let names: Vec<SetName> = made.sets.keys().cloned().collect();
    let was_there = old.is_some();
    let gone = old.into_iter().flatten().filter(|s| !names.contains(s));
    out.extend(gone.map(TableEdit::RemoveSet));
    for (set, (kind, elements)) in made.sets {
        out.push(TableEdit::Set(set, kind, elements));
    }
    match made.chain {
        Some(chain) => out.push(TableEdit::Chain(name, chain)),
        None if was_there => {
            out.push(TableEdit::RemoveChain(name));
            return None;
        }
        None => return None,
    }
    Some(names)
}

/// All policies and profiles that anybody here needs.
#[derive(Debug, Default)]
pub(crate) struct Library {
    policies: BTreeMap<PolicyKey, Entry<PolicyRules>>,
    profiles: BTreeMap<ProfileId, Entry<ProfileRules>>,
    /// Those to be rendered.
    dirty_policies: BTreeSet<PolicyKey>,
    dirty_profiles: BTreeSet<ProfileId>,
}

/// What an endpoint needs of the library.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    pub(crate) policies: BTreeMap<PolicyKey, BTreeSet<Flavour>>,
    pub(crate) profiles: BTreeMap<ProfileId, BTreeSet<Flavour>>,
}

impl Library {
    pub(crate) fn set_policy(&mut self, key: &PolicyKey, rules: Option<Arc<PolicyRules>>) {
        self.policies.entry(key.clone()).or_default().rules = rules;
        self.dirty_policies.insert(key.clone());
    }

    pub(crate) fn set_profile(&mut self, id: &ProfileId, rules: Option<Arc<ProfileRules>>) {
        self.profiles.entry(id.clone()).or_default().rules = rules;
        self.dirty_profiles.insert(id.clone());
    }

    /// How a policy looks to who jumps there.
    pub(crate) fn policy(&self, key: &PolicyKey, d: Direction) -> Shape {
        let entry = self.policies.get(key);
        entry.map_or(Shape::Empty, |e| e.shapes.get(d))
    }

    /// How a profile looks to who jumps there.
    pub(crate) fn profile(&self, id: &str, d: Direction) -> Shape {
        let entry = self.profiles.get(id);
        entry.map_or(Shape::Empty, |e| e.shapes.get(d))
    }

    /// All of them are to be rendered anew.
    pub(crate) fn touch(&mut self) {
        self.dirty_policies.extend(self.policies.keys().cloned());
        self.dirty_profiles.extend(self.profiles.keys().cloned());
    }

    /// The user needs these, instead of those that it needed.
    pub(crate) fn replace(&mut self, user: &User, old: &Needs, new: Needs) {
        for key in old.policies.keys() {
            if !new.policies.contains_key(key) {
                let e = self.policies.entry(key.clone()).or_default();
                relink(e, user, None).then(|| self.dirty_policies.insert(key.clone()));
            }
        }
        for id in old.profiles.keys() {
            if !new.profiles.contains_key(id) {
                let e = self.profiles.entry(id.clone()).or_default();
                relink(e, user, None).then(|| self.dirty_profiles.insert(id.clone()));
            }
        }
        for (key, flavours) in new.policies {
            let e = self.policies.entry(key.clone()).or_default();
            relink(e, user, Some(flavours)).then(|| self.dirty_policies.insert(key));
        }
        for (id, flavours) in new.profiles {
            let e = self.profiles.entry(id.clone()).or_default();
            relink(e, user, Some(flavours)).then(|| self.dirty_profiles.insert(id));
        }
    }

    /// Renders what is dirty. Gives the users that must look again.
    pub(crate) fn render(&mut self, g: &Globals, out: &mut Vec<TableEdit>) -> BTreeSet<User> {
        let mut users = BTreeSet::new();
        for key in std::mem::take(&mut self.dirty_policies) {
            let Some(e) = self.policies.get_mut(&key) else {
                continue;
            };
            let tier = e.rules.as_deref().map(|r| r.tier.clone());
            let owner = Owner::Policy(&key, tier.as_deref().unwrap_or_default());
            if e.render(owner, g, out) {
                users.extend(e.users.keys().cloned());
            }
            if e.idle() {
                self.policies.remove(&key);
            }
        }
        for id in std::mem::take(&mut self.dirty_profiles) {
            let Some(e) = self.profiles.get_mut(&id) else {
                continue;
            };
            if e.render(Owner::Profile(&id), g, out) {
                users.extend(e.users.keys().cloned());
            }
            if e.idle() {
                self.profiles.remove(&id);
            }
        }
        users
    }
}

/// Notes how a user uses an entry. True if other chains are to be there now.
fn relink<R: Book>(e: &mut Entry<R>, user: &User, how: Option<BTreeSet<Flavour>>) -> bool {
    let before = e.wanted();
    for f in how.iter().flatten() {
        *e.flavours.entry(*f).or_default() += 1;
    }
    let old = match how {
        Some(flavours) => e.users.insert(user.clone(), flavours),
        None => e.users.remove(user),
    };
    for f in old.into_iter().flatten() {
        if let Some(n) = e.flavours.get_mut(&f) {
            *n -= 1;
            if *n == 0 {
                e.flavours.remove(&f);
            }
        }
    }
    e.idle() || e.wanted() != before
}
