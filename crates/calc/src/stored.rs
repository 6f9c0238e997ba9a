//! Rules as they are kept while nobody needs them compiled.
//!
//! Promises: what is taken off the shelf equals what was put on it. Equal lists of rules are one;
//! a side of a rule costs what it states, and selectors are kept as text that many share. Most
//! of a cluster's policies are never needed here, and most profiles say the same.
//!
//! Never: looks at what rules mean.

use crate::interner::{Interner, Word};
use model::{Action, Entity, Icmp, Rule, Selector, ServiceRef};
use net::{Cidr, Family, PortRange, Protocol};
use rustc_hash::FxHashSet;
use std::sync::Arc;

/// One field of a side.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Field {
    Nets(Box<[Cidr]>),
    NotNets(Box<[Cidr]>),
    Selector(Word),
    NotSelector(Word),
    Ports(Box<[PortRange]>),
    NamedPorts(Box<[Arc<str>]>),
    NotPorts(Box<[PortRange]>),
    NotNamedPorts(Box<[Arc<str>]>),
    Service(Box<ServiceRef>),
    Nodes(Word),
    Domains(Box<[Arc<str>]>),
}

/// What a side states; equal ones are the same.
type Side = Arc<[Field]>;

/// What few rules have.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
struct Rare {
    annotations: Vec<(Arc<str>, Arc<str>)>,
    not_protocol: Option<Protocol>,
    icmp: Option<Icmp>,
    not_icmp: Option<Icmp>,
}

/// One rule.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct StoredRule {
    source: Side,
    destination: Side,
    rare: Option<Box<Rare>>,
    action: Action,
    family: Option<Family>,
    protocol: Option<Protocol>,
}

/// A list of rules on the shelf; equal ones are the same.
pub(crate) type Stored = Arc<[StoredRule]>;

/// Every list that is kept.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    words: Interner,
    sides: FxHashSet<Side>,
    lists: FxHashSet<Stored>,
    scratch: Vec<Field>,
}

fn fields(words: &mut Interner, e: Entity, out: &mut Vec<Field>) {
    let mut list = |empty: bool, field: Field| {
        if !empty {
            out.push(field);
        }
    };
    list(e.nets.is_empty(), Field::Nets(e.nets.into()));
    list(e.not_nets.is_empty(), Field::NotNets(e.not_nets.into()));
    list(e.ports.is_empty(), Field::Ports(e.ports.into()));
    list(
        e.named_ports.is_empty(),
        Field::NamedPorts(e.named_ports.into()),
    );
    list(e.not_ports.is_empty(), Field::NotPorts(e.not_ports.into()));
    list(
        e.not_named_ports.is_empty(),
        Field::NotNamedPorts(e.not_named_ports.into()),
    );
    list(e.domains.is_empty(), Field::Domains(e.domains.into()));
    let mut word = |s: Selector| words.acquire(s.as_str());
    out.extend(e.selector.map(|s| Field::Selector(word(s))));
    out.extend(e.not_selector.map(|s| Field::NotSelector(word(s))));
    out.extend(e.nodes.map(|s| Field::Nodes(word(s))));
    out.extend(e.service.map(|s| Field::Service(Box::new(s))));
}

fn take_side(words: &Interner, side: &[Field]) -> Entity {
    let selector = |word: Word| {
        Selector::parse(words.text(word)).expect("the canonical text of a selector parses")
    };
    let mut e = Entity::default();
    for field in side {
        match field {
            Field::Nets(v) => e.nets = v.to_vec(),
            Field::NotNets(v) => e.not_nets = v.to_vec(),
            Field::Ports(v) => e.ports = v.to_vec(),
            Field::NamedPorts(v) => e.named_ports = v.to_vec(),
            Field::NotPorts(v) => e.not_ports = v.to_vec(),
            Field::NotNamedPorts(v) => e.not_named_ports = v.to_vec(),
            Field::Domains(v) => e.domains = v.to_vec(),
            Field::Selector(w) => e.selector = Some(selector(*w)),
            Field::NotSelector(w) => e.not_selector = Some(selector(*w)),
            Field::Nodes(w) => e.nodes = Some(selector(*w)),
            Field::Service(s) => e.service = Some((**s).clone()),
        }
    }
    e
}

impl Shelf {
    /// Puts a list on the shelf, or finds its equal there.
    pub(crate) fn put(&mut self, rules: Vec<Rule>) -> Stored {
        let store = |r: Rule| {
            let rare = Rare {
                annotations: r.annotations,
                not_protocol: r.not_protocol,
                icmp: r.icmp,
                not_icmp: r.not_icmp,
            };
            StoredRule {
                source: self.put_side(r.source),
                destination: self.put_side(r.destination),
                rare: (rare != Rare::default()).then(|| Box::new(rare)),
                action: r.action,
                family: r.family,
                protocol: r.protocol,
            }
        };
        let rules: Vec<StoredRule> = rules.into_iter().map(store).collect();
        if let Some(known) = self.lists.get(&*rules).cloned() {
            self.give_back_sides(sides(&rules), rules);
            return known;
        }
        let new: Stored = rules.into();
        self.lists.insert(new.clone());
        new
    }

    fn put_side(&mut self, entity: Entity) -> Side {
        self.scratch.clear();
        fields(&mut self.words, entity, &mut self.scratch);
        if let Some(known) = self.sides.get(&*self.scratch).cloned() {
            release(&mut self.words, &self.scratch);
            return known;
        }
        let new: Side = self.scratch.drain(..).collect();
        self.sides.insert(new.clone());
        new
    }

    /// The rules of a list.
    pub(crate) fn take(&self, rules: &Stored) -> Vec<Rule> {
        let nothing = Rare::default();
        let take = |r: &StoredRule| {
            let rare = r.rare.as_deref().unwrap_or(&nothing);
            Rule {
                source: take_side(&self.words, &r.source),
                destination: take_side(&self.words, &r.destination),
                annotations: rare.annotations.clone(),
                action: r.action,
                family: r.family,
                protocol: r.protocol,
                not_protocol: rare.not_protocol,
                icmp: rare.icmp,
                not_icmp: rare.not_icmp,
            }
        };
        rules.iter().map(take).collect()
    }

    /// Gives a list back; the last one takes it off the shelf.
    pub(crate) fn give_back(&mut self, rules: Stored) {
        // One reference is the shelf's, one this.
        if Arc::strong_count(&rules) > 2 {
            return;
        }
        self.lists.remove(&*rules);
        self.give_back_sides(sides(&rules), rules);
    }

    /// Gives sides back after those who had them are gone; one may be there more than once.
    fn give_back_sides<T>(&mut self, sides: Vec<Side>, gone: T) {
        drop(gone);
        for side in sides {
            if Arc::strong_count(&side) == 2 {
                self.sides.remove(&*side);
                release(&mut self.words, &side);
            }
        }
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.lists.is_empty() && self.sides.is_empty() && self.words.is_empty()
    }
}

fn sides(rules: &[StoredRule]) -> Vec<Side> {
    let both = rules.iter().flat_map(|r| [&r.source, &r.destination]);
    both.cloned().collect()
}

fn release(words: &mut Interner, side: &[Field]) {
    for field in side {
        if let Field::Selector(w) | Field::NotSelector(w) | Field::Nodes(w) = field {
            words.release(*w);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sel(text: &str) -> Option<Selector> {
        Some(Selector::parse(text).expect("a legal selector"))
    }

    fn rule(selector: &str) -> Rule {
        let mut r = Rule::any(Action::Pass);
        r.family = Some(Family::V6);
        r.protocol = Some(Protocol::TCP);
        r.not_protocol = Some(Protocol::UDP);
        r.icmp = Some(Icmp {
            icmp_type: Some(1),
            code: None,
        });
        r.not_icmp = Some(Icmp {
            icmp_type: Some(2),
            code: Some(3),
        });
        r.annotations = vec![("k".into(), "v".into())];
        r.source = Entity {
            nets: vec!["10.0.0.0/8".parse().expect("a CIDR")],
            not_nets: vec!["10.1.0.0/16".parse().expect("a CIDR")],
            selector: sel(selector),
            not_selector: sel("b != 'x' && has(c)"),
            ports: vec![PortRange::one(1)],
            named_ports: vec!["http".into()],
            not_ports: vec![PortRange::one(2)],
            not_named_ports: vec!["dns".into()],
            service: Some(ServiceRef {
                namespace: "ns".into(),
                name: "s".into(),
            }),
            nodes: sel("rack in {'1', '2'}"),
            domains: vec!["*.x".into()],
        };
        r
    }

    #[test]
    fn what_is_taken_is_what_was_put_and_all_is_given_back() {
        let mut shelf = Shelf::default();
        let lists = [
            vec![],
            vec![rule("all()")],
            vec![rule("a == 'x'"), Rule::any(Action::Deny)],
        ];
        let mut held = Vec::new();
        for list in lists.iter().chain(&lists) {
            let stored = shelf.put(list.clone());
            assert_eq!(shelf.take(&stored), *list);
            held.push(stored);
        }
        assert!(Arc::ptr_eq(&held[1], &held[4]), "equal lists are one");
        for stored in held {
            shelf.give_back(stored);
        }
        assert!(shelf.is_empty());
    }
}
