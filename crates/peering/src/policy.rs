//! Route policy: BGPFilters and what Calico does around them.
//!
//! Promises: terms stand in the order in which Calico's own configuration asks; each has a name that
//! an operator finds among the resources.

use crate::peers::Peer;
use crate::routes::Own;
use crate::world::World;
use bgp::attr::{Community, LargeCommunity};
use bgp::policy::{
    Condition, Glob, Operation, Policy, PrefixMatch, PrefixRelation, SourceKind, Term, Verdict,
};
use bgp::types::PeerKind;
use model::{CidrMatch, FilterOperation, FilterRule};
use net::{Cidr, Family};

/// LOCAL_PREF and kernel metric add up to this: a smaller metric is a greater preference.
pub const METRIC_BASE: u32 = 2_147_483_647;
/// The metric of pod routes unless configured.
pub(crate) const NORMAL_PRIORITY: u32 = 1024;
/// Above what is learned by default: routes that are elevated for a moment.
const ELEVATED: u16 = 200;

fn term(name: impl Into<Box<str>>, conditions: Vec<Condition>, verdict: Verdict) -> Term {
    Term {
        name: name.into(),
        conditions,
        operations: Vec::new(),
        verdict: Some(verdict),
    }
}

fn community(c: model::Community) -> Condition {
    match c {
        model::Community::Standard(a, b) => Condition::Community(standard(a, b)),
        model::Community::Large(a, b, c) => Condition::LargeCommunity(large(a, b, c)),
    }
}

fn add(c: model::Community) -> Operation {
    match c {
        model::Community::Standard(a, b) => Operation::AddCommunity(standard(a, b)),
        model::Community::Large(a, b, c) => Operation::AddLargeCommunity(large(a, b, c)),
    }
}

fn standard(a: u16, b: u16) -> Community {
    Community(u32::from(a) << 16 | u32::from(b))
}

fn large(global: u32, local1: u32, local2: u32) -> LargeCommunity {
    LargeCommunity {
        global: net::Asn(global),
        local1,
        local2,
    }
}

fn filter_term(name: String, rule: &FilterRule) -> Term {
    let mut conditions = Vec::new();
    if let Some((cidr, how)) = rule.cidr {
        conditions.push(Condition::Prefix(PrefixMatch {
            cidr,
            relation: match how {
                CidrMatch::Equal => PrefixRelation::Equal,
                CidrMatch::NotEqual => PrefixRelation::NotEqual,
                CidrMatch::In => PrefixRelation::In,
                CidrMatch::NotIn => PrefixRelation::NotIn,
            },
            lengths: rule.lengths.map(|(least, most)| {
                let most = most.unwrap_or(cidr.family().bits());
                least.map_or(cidr.len(), |l| l.max(cidr.len()))..=most
            }),
        }));
    }
    if rule.from_remote_peers {
        conditions.push(Condition::Source(SourceKind::Peer));
    }
    if let Some(glob) = &rule.interface {
        conditions.push(Condition::Interface(Glob((**glob).into())));
    }
    if let Some(external) = rule.external {
        conditions.push(Condition::Peer(match external {
            true => PeerKind::External,
            false => PeerKind::Internal,
        }));
    }
    conditions.extend(rule.communities.iter().map(|c| community(*c)));
    if !rule.as_path_prefix.is_empty() {
        conditions.push(Condition::AsPathPrefix(rule.as_path_prefix.clone()));
    }
    if let Some(p) = rule.priority {
        let pref = METRIC_BASE.saturating_sub(p);
        conditions.push(Condition::LocalPref(pref..=pref));
    }
    Term {
        name: name.into(),
        conditions,
        operations: rule.operations.iter().map(operation).collect(),
        verdict: Some(match rule.accept {
            true => Verdict::Accept,
            false => Verdict::Reject,
        }),
    }
}

fn operation(o: &FilterOperation) -> Operation {
    match o {
        FilterOperation::AddCommunity(c) => add(*c),
        FilterOperation::Prepend(path) => Operation::Prepend(path.clone()),
        FilterOperation::SetPriority(p) => Operation::SetLocalPref(METRIC_BASE.saturating_sub(*p)),
    }
}

fn filters(direction: &str, rules: &[(String, FilterRule)]) -> Vec<Term> {
    rules
        .iter()
        .map(|(name, r)| filter_term(format!("{name} {direction}"), r))
        .collect()
}

/// What is taken from a peer: its filters, then everything; a route that was elevated where it
/// comes from goes before the others here too.
pub(crate) fn import(world: &World, peer: &Peer) -> Policy {
    let normal = METRIC_BASE - priority(world, Family::of(peer.address));
    let mut terms = filters("import", &peer.import);
    terms.push(Term {
        name: "elevated priority".into(),
        conditions: vec![Condition::LocalPref(normal + 1..=u32::MAX)],
        operations: vec![Operation::SetPreference(ELEVATED)],
        verdict: Some(Verdict::Accept),
    });
    Policy {
        terms,
        default: Verdict::Accept,
    }
}

/// The metric of normal routes of a family.
pub(crate) fn priority(world: &World, family: Family) -> u32 {
    let of = |c: &model::BgpConfig| c.normal_priority[usize::from(family == Family::V6)];
    world.config().and_then(of).unwrap_or(NORMAL_PRIORITY)
}

/// What a peer is told, in Calico's order; a filter that accepts skips all the rest.
pub(crate) fn export(world: &World, own: &Own, peer: &Peer) -> Policy {
    let family = Family::of(peer.address);
    let of_family = |c: &Cidr| c.family() == family;
    let mut terms = filters("export", &peer.export);
    for (name, pool) in &world.pools {
        if pool.disable_bgp_export && of_family(&pool.cidr) {
            let inside = vec![Condition::Prefix(PrefixMatch::inside(pool.cidr))];
            let name = format!("IPPool({name}) is not exported");
            terms.push(term(name, inside, Verdict::Reject));
        }
    }
    let device = |glob: &str| Condition::Interface(Glob(glob.into()));
    if !peer.external() {
        // IP in IP that BGP programs itself is BGP's own route.
        let tunnel = (!world.programs().ipip).then_some("tunl0");
        for glob in ["*.cali", "*.calico"].into_iter().chain(tunnel) {
            let name = format!("routes of {glob} stay within the node");
            terms.push(term(name, vec![device(glob)], Verdict::Reject));
        }
    }
    terms.push(term(
        "routes of bpf*.cali stay within the node",
        vec![device("bpf*.cali")],
        Verdict::Reject,
    ));
    terms.extend(communities(world, family));
    for block in own.blocks.iter().copied().filter(of_family) {
        terms.extend(block_terms(world, block));
    }
    let exactly = |c: &Cidr| PrefixMatch::exactly(*c);
    let statics: Vec<_> = own
        .services
        .iter()
        .filter(|c| of_family(c))
        .map(exactly)
        .collect();
    if !statics.is_empty() {
        let services = vec![Condition::AnyPrefix(statics)];
        terms.push(term(
            "service addresses of this node",
            services,
            Verdict::Accept,
        ));
    }
    let inside = |c: &Cidr| PrefixMatch::inside(*c);
    if world.is_reflector() {
        // The cluster's range where it tells that itself, the others in any case.
        let config = world.config();
        let stated = config
            .into_iter()
            .flat_map(|c| c.service_load_balancer.iter().chain(&c.service_external));
        let ranges = own.services.iter().chain(stated);
        let ranges: Vec<_> = ranges.filter(|c| of_family(c)).map(inside).collect();
        if !ranges.is_empty() {
            let name = "service addresses that a reflector passes on";
            terms.push(term(
                name,
                vec![Condition::AnyPrefix(ranges)],
                Verdict::Accept,
            ));
        }
    }
    for (name, pool) in world.pools.iter().filter(|(_, p)| of_family(&p.cidr)) {
        let inside = vec![Condition::Prefix(PrefixMatch::inside(pool.cidr))];
        terms.push(term(
            format!("inside IPPool({name})"),
            inside,
            Verdict::Accept,
        ));
    }
    Policy {
        terms,
        default: Verdict::Reject,
    }
}

/// `prefixAdvertisements`: of the node where its configuration has any, else of all.
fn communities(world: &World, family: Family) -> Vec<Term> {
    let has = |c: &&model::BgpConfig| !c.prefix_communities.is_empty();
    let (name, config) = match world.config_of(&world.me).filter(has) {
        Some(own) => (format!("node.{}", world.me), Some(own)),
        None => ("default".to_owned(), world.config()),
    };
    let lists = config.iter().flat_map(|c| &c.prefix_communities);
    lists
        .filter(|p| p.cidr.family() == family)
        .map(|p| Term {
            name: format!("BGPConfiguration({name}) communities of {}", p.cidr).into(),
            conditions: vec![Condition::Prefix(PrefixMatch::inside(p.cidr))],
            operations: p.communities.iter().map(|c| add(*c)).collect(),
            verdict: None,
        })
        .collect()
}

/// The block itself is told, and of what lies in it only what is elevated.
fn block_terms(world: &World, block: Cidr) -> [Term; 3] {
    let normal = METRIC_BASE - priority(world, block.family());
    let inside = Condition::Prefix(PrefixMatch::inside(block));
    let elevated = Condition::LocalPref(normal + 1..=u32::MAX);
    [
        term(
            format!("own block {block}"),
            vec![Condition::Prefix(PrefixMatch::exactly(block))],
            Verdict::Accept,
        ),
        term(
            format!("elevated, inside own block {block}"),
            vec![inside.clone(), elevated],
            Verdict::Accept,
        ),
        term(
            format!("inside own block {block}, which is announced whole"),
            vec![inside],
            Verdict::Reject,
        ),
    ]
}
