//! One set: what it is of, its members with their counts, and what the outside knows of them.
//!
//! Promises: additions and removals that cancel out between two flushes are not said.
//!
//! Never: says a member twice, or the loss of one that was never said.

mod nets;

use crate::labels::SelectorId;
use crate::members::Item;
use desired::{Member, SetChange, SetId, SetKind};
use model::{Selector, ServiceRef};
use net::{Cidr, Protocol};
use nets::Nets;
use rustc_hash::FxHashMap;
use sha1::{Digest as _, Sha1};
use std::collections::hash_map::Entry;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

/// What a set is of. Equal descriptions have equal IDs.
#[derive(Debug, Clone)]
pub(crate) enum SetSpec {
    /// The addresses of what a selector matches.
    Selector(Selector),
    /// Those of its ports that have a name.
    NamedPort {
        selector: Selector,
        /// `None` for TCP, UDP and SCTP alike.
        protocol: Option<Protocol>,
        name: Arc<str>,
    },
    /// The addresses of a service's endpoints.
    ServiceNets(ServiceRef),
    /// The same with the service's ports.
    ServicePorts(ServiceRef),
    /// The addresses of the nodes whose labels match.
    Nodes(Selector),
    /// What domain names resolved to; sorted, each once.
    Domains(Arc<[Arc<str>]>),
}

/// A name from the hash of a description.
fn hashed(prefix: &str, description: &str) -> String {
    let hash = Sha1::digest(description.as_bytes());
    let mut out = String::with_capacity(prefix.len() + 40);
    out.push_str(prefix);
    for b in hash {
        write!(out, "{b:02x}").expect("strings take everything");
    }
    out
}

impl SetSpec {
    /// The name of the set.
    pub(crate) fn id(&self) -> SetId {
        let text = match self {
            Self::Selector(s) => s.id(),
            Self::NamedPort {
                selector,
                protocol,
                name,
            } => {
                let protocol = protocol.map_or_else(|| "any".to_owned(), |p| p.0.to_string());
                hashed("n:", &format!("n:{protocol}:{name}:{selector}"))
            }
            Self::ServiceNets(s) => format!("svcnoport:{}/{}", s.namespace, s.name),
            Self::ServicePorts(s) => format!("svc:{}/{}", s.namespace, s.name),
            Self::Nodes(s) => hashed("nodes:", &format!("nodes:{s}")),
            Self::Domains(names) => hashed("d:", &names.join("\n")),
        };
        SetId(text.into())
    }

    /// What must match for a labelled thing to be in it; `None` when none ever is.
    pub(crate) fn selector(&self) -> Option<&Selector> {
        match self {
            Self::Selector(selector) | Self::NamedPort { selector, .. } => Some(selector),
            Self::ServiceNets(_) | Self::ServicePorts(_) | Self::Nodes(_) | Self::Domains(_) => {
                None
            }
        }
    }

    /// What its members are.
    fn kind(&self) -> SetKind {
        match self {
            Self::NamedPort { .. } | Self::ServicePorts(_) => SetKind::Ports,
            Self::Selector(_) | Self::ServiceNets(_) | Self::Nodes(_) | Self::Domains(_) => {
                SetKind::Nets
            }
        }
    }
}

/// Members with their counts.
#[derive(Debug)]
enum Counted {
    Nets(Nets),
    Ports(FxHashMap<Member, u32>),
}

impl Counted {
    fn members(&self) -> Vec<Member> {
        match self {
            Self::Nets(nets) => nets.cover().into_iter().map(Member::Net).collect(),
            Self::Ports(counts) => {
                let mut out: Vec<Member> = counts.keys().copied().collect();
                out.sort_unstable();
                out
            }
        }
    }

    fn net(&mut self, net: Cidr, add: bool, change: &mut impl FnMut(Member, bool)) {
        if let Self::Nets(nets) = self {
            nets.count(net, add, &mut |c, on| change(Member::Net(c), on));
        }
    }

    fn port(&mut self, member: Member, add: bool, change: &mut impl FnMut(Member, bool)) {
        let Self::Ports(counts) = self else {
            return;
        };
        match counts.entry(member) {
            Entry::Occupied(mut e) if add => *e.get_mut() += 1,
            Entry::Occupied(mut e) => {
                *e.get_mut() -= 1;
                if *e.get() == 0 {
                    e.remove();
                    change(member, false);
                }
            }
            Entry::Vacant(e) if add => {
                e.insert(1);
                change(member, true);
            }
            Entry::Vacant(_) => {}
        }
    }
}

/// Addresses that come into sets together, and ports that each of them serves.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) addresses: Box<[IpAddr]>,
    pub(crate) ports: Box<[(Protocol, u16)]>,
}

/// A set that rules refer to.
#[derive(Debug)]
pub(crate) struct SetState {
    pub(crate) id: SetId,
    pub(crate) spec: SetSpec,
    pub(crate) selector: Option<SelectorId>,
    /// How many rules refer to it.
    pub(crate) refs: u32,
    /// Whether the outside knows it.
    pub(crate) emitted: bool,
    counted: Counted,
    /// Members that came (`true`) and went since the last flush, one after another.
    pending: Vec<(Member, bool)>,
}

impl SetState {
    /// A set with one reference, which the outside does not know yet.
    pub(crate) fn new(id: SetId, spec: SetSpec, selector: Option<SelectorId>) -> Self {
        Self {
            id,
            counted: match spec.kind() {
                SetKind::Nets => Counted::Nets(Nets::default()),
                SetKind::Ports => Counted::Ports(FxHashMap::default()),
            },
            spec,
            selector,
            refs: 1,
            emitted: false,
            pending: Vec::new(),
        }
    }

    /// Adds the members that an item brings, or takes them out. Says whether the outside has
    /// to hear of it.
    pub(crate) fn contribute(&mut self, item: &Item, add: bool) -> bool {
        let (emitted, pending) = (self.emitted, &mut self.pending);
        let mut change = |member, on| {
            if emitted {
                pending.push((member, on));
            }
        };
        if let SetSpec::NamedPort { protocol, name, .. } = &self.spec {
            for member in named(item, *protocol, name) {
                self.counted.port(member, add, &mut change);
            }
        } else {
            for net in &item.nets {
                self.counted.net(*net, add, &mut change);
            }
        }
        !self.pending.is_empty()
    }

    /// The same for addresses with ports.
    pub(crate) fn contribute_group(&mut self, group: &Group, add: bool) -> bool {
        let (emitted, pending) = (self.emitted, &mut self.pending);
        let mut change = |member, on| {
            if emitted {
                pending.push((member, on));
            }
        };
        for addr in &group.addresses {
            match self.spec.kind() {
                SetKind::Nets => self.counted.net(Cidr::host(*addr), add, &mut change),
                SetKind::Ports => {
                    for (protocol, port) in &group.ports {
                        let member = Member::Port {
                            addr: *addr,
                            protocol: *protocol,
                            port: *port,
                        };
                        self.counted.port(member, add, &mut change);
                    }
                }
            }
        }
        !self.pending.is_empty()
    }

    /// What the outside has to hear.
    pub(crate) fn flush(&mut self) -> Option<SetChange> {
        if !self.emitted {
            self.emitted = true;
            return Some(SetChange::Create {
                kind: self.spec.kind(),
                members: self.counted.members(),
            });
        }
        let mut pending = std::mem::take(&mut self.pending);
        // A member comes and goes in turns: an even number of times is nothing.
        pending.sort_by_key(|(member, _)| *member);
        let (mut added, mut removed) = (Vec::new(), Vec::new());
        for of_one in pending.chunk_by(|a, b| a.0 == b.0) {
            if of_one.len() % 2 == 1 {
                let (member, on) = of_one[0];
                if on { &mut added } else { &mut removed }.push(member);
            }
        }
        let some = !added.is_empty() || !removed.is_empty();
        some.then_some(SetChange::Update { added, removed })
    }
}

/// The ports of an item that have a name, at each of its addresses.
fn named<'a>(
    item: &'a Item,
    protocol: Option<Protocol>,
    name: &'a str,
) -> impl Iterator<Item = Member> + 'a {
    let ports = item.ports.iter().flat_map(|p| p.iter()).filter(move |p| {
        *p.name == *name
            && protocol.map_or_else(|| p.protocol.has_ports(), |want| want == p.protocol)
    });
    ports.flat_map(|p| {
        let hosts = item.nets.iter().filter(|n| n.is_host());
        hosts.map(|n| Member::Port {
            addr: n.addr(),
            protocol: p.protocol,
            port: p.port,
        })
    })
}
