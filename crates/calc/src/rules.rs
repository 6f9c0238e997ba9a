//! Rules with sets in the place of selectors, named ports, services, nodes and domain names.
//!
//! Promises: the rule matches what it matched before. A positive selector is folded into
//! the sets of named ports beside it; a negative one stays a set of its own.
//!
//! Never: decides which rules are needed.

use crate::members::{Members, SetIndex};
use crate::set::SetSpec;
use desired::{Entity, Rule, SetId};
use model::Selector;
use net::Protocol;
use std::sync::Arc;

/// Rules in terms of sets, and the references to the sets that they hold.
#[derive(Debug, Default)]
pub(crate) struct Compiler {
    /// References to give back when the rules go.
    pub(crate) sets: Vec<SetIndex>,
}

impl Compiler {
    /// Compiles some rules, acquiring the sets that they need.
    pub(crate) fn rules(&mut self, rules: &[model::Rule], members: &mut Members) -> Vec<Rule> {
        rules.iter().map(|r| self.rule(r, members)).collect()
    }

    fn rule(&mut self, rule: &model::Rule, members: &mut Members) -> Rule {
        Rule {
            action: rule.action,
            family: rule.family,
            protocol: rule.protocol,
            not_protocol: rule.not_protocol,
            icmp: rule.icmp,
            not_icmp: rule.not_icmp,
            source: self.entity(&rule.source, rule.protocol, false, members),
            destination: self.entity(&rule.destination, rule.protocol, true, members),
            annotations: rule.annotations.clone(),
        }
    }

    fn entity(
        &mut self,
        e: &model::Entity,
        protocol: Option<Protocol>,
        destination: bool,
        members: &mut Members,
    ) -> Entity {
        let mut out = Entity {
            nets: e.nets.clone(),
            not_nets: e.not_nets.clone(),
            ports: e.ports.clone(),
            not_ports: e.not_ports.clone(),
            ..Entity::default()
        };
        // Where only named ports are listed, the selector is in each of their sets.
        let only_named = e.ports.is_empty() && !e.named_ports.is_empty();
        if let Some(selector) = e.selector.as_ref().filter(|_| !only_named) {
            let set = self.acquire(SetSpec::Selector(selector.clone()), members);
            out.sets.push(set);
        }
        if let Some(selector) = &e.not_selector {
            let set = self.acquire(SetSpec::Selector(selector.clone()), members);
            out.not_sets.push(set);
        }
        let folded = e.selector.clone().unwrap_or_else(Selector::all);
        let mut named = |names: &[Arc<str>]| -> Vec<SetId> {
            let spec = |name: &Arc<str>| SetSpec::NamedPort {
                selector: folded.clone(),
                protocol,
                name: name.clone(),
            };
            names
                .iter()
                .map(|n| self.acquire(spec(n), members))
                .collect()
        };
        out.port_sets = named(&e.named_ports);
        out.not_port_sets = named(&e.not_named_ports);
        if let Some(service) = &e.service {
            if destination {
                let set = self.acquire(SetSpec::ServicePorts(service.clone()), members);
                out.port_sets.push(set);
            } else {
                let set = self.acquire(SetSpec::ServiceNets(service.clone()), members);
                out.sets.push(set);
            }
        }
        if let Some(selector) = &e.nodes {
            let set = self.acquire(SetSpec::Nodes(selector.clone()), members);
            out.sets.push(set);
        }
        if !e.domains.is_empty() {
            let mut names = e.domains.clone();
            names.sort_unstable();
            names.dedup();
            let set = self.acquire(SetSpec::Domains(names.into()), members);
            out.sets.push(set);
        }
        out
    }

    fn acquire(&mut self, spec: SetSpec, members: &mut Members) -> SetId {
        let (set, id) = members.acquire_set(spec);
        self.sets.push(set);
        id
    }
}
