//! From the words of a command line to a flow.

use crate::CliError;
use crate::args::WhyArgs;
use net::{Family, Protocol};
use scenario::End as Word;
use std::net::IpAddr;
use verdict::{End, Flow, Target, World};

/// What is sent.
struct Sent {
    protocol: Protocol,
    port: u16,
    icmp: Option<(u8, u8)>,
}

/// The flow that is asked about.
pub(super) fn flow(args: &WhyArgs, world: &World) -> Result<Flow, CliError> {
    let (from, to) = (word(&args.from)?, word(&args.to)?);
    let (from, own) = sender(&from, world)?;
    let families = match args.family {
        Some(n) => Family::from_number(n).into_iter().collect(),
        None => Family::BOTH.to_vec(),
    };
    let source = |f| {
        own.map_or_else(|| world.address(&from, f), Some)
            .filter(|a| Family::of(*a) == f)
    };
    let pairs = families
        .iter()
        .find_map(|f| Some((source(*f)?, target(&to, world, *f)?)));
    let (source, target) = pairs.ok_or_else(|| absent(args, &to, world))?;
    let sent = sent(args, &to, &target, world)?;
    let mut flow = Flow::new(from, source, target, sent.protocol, sent.port);
    flow.icmp = sent.icmp;
    flow.source_port = args.source_port;
    Ok(flow)
}

/// An end as written; an address may stand alone.
fn word(text: &str) -> Result<Word, CliError> {
    if let Ok(address) = text.parse() {
        return Ok(Word::Ip(address));
    }
    match text.parse::<Word>() {
        Ok(Word::Host(_) | Word::AnyPod | Word::Fabric) | Err(_) => Err(CliError::Usage(format!(
            "'{text}' is no end: write namespace/pod, node/NAME, service/NAMESPACE/NAME or ip/ADDRESS"
        ))),
        Ok(word) => Ok(word),
    }
}

fn sender(from: &Word, world: &World) -> Result<(End, Option<IpAddr>), CliError> {
    match from {
        Word::Ip(a) => Ok((world.holder(*a), Some(*a))),
        Word::Service { .. } => Err(CliError::Usage(
            "a service does not send: name one of its pods".to_owned(),
        )),
        word => Ok((end(word, world)?, None)),
    }
}

/// A pod or node that exists.
fn end(word: &Word, world: &World) -> Result<End, CliError> {
    let (found, kind) = match word {
        Word::Pod { namespace, name } => (world.pod(&format!("{namespace}/{name}")), "pod"),
        Word::Node(name) => {
            let known = world.nodes().any(|(n, _)| **n == **name);
            (known.then(|| End::Node(name.as_str().into())), "node")
        }
        _ => (None, "end"),
    };
    found.ok_or_else(|| {
        let others = match word {
            Word::Pod { namespace, .. } => pods_of(world, namespace),
            _ => world.nodes().map(|(n, _)| n.to_string()).collect(),
        };
        let hint = match others.is_empty() {
            true => String::new(),
            false => format!(": there are {}", some(&others)),
        };
        let name = match word {
            Word::Node(name) => name.clone(),
            word => word.to_string(),
        };
        CliError::Usage(format!("there is no {kind} {name} with an address{hint}"))
    })
}

fn pods_of(world: &World, namespace: &str) -> Vec<String> {
    let names = world.workloads().map(|(k, _)| k.workload.to_string());
    let in_it = |n: &String| n.split_once('/').is_some_and(|(ns, _)| ns == namespace);
    let own: Vec<String> = names.filter(in_it).collect();
    match own.is_empty() {
        true => world
            .workloads()
            .map(|(k, _)| k.workload.to_string())
            .collect(),
        false => own,
    }
}

/// The first few of many.
fn some(all: &[String]) -> String {
    const FEW: usize = 8;
    let mut all = all.to_vec();
    all.sort();
    let shown = all.iter().take(FEW).cloned().collect::<Vec<_>>().join(", ");
    match all.len() > FEW {
        true => format!("{shown} and {} more", all.len() - FEW),
        false => shown,
    }
}

fn target(to: &Word, world: &World, family: Family) -> Option<Target> {
    match to {
        Word::Ip(a) => (Family::of(*a) == family).then_some(Target::Address(*a)),
        Word::Service { namespace, name } => {
            let key = service_key(namespace, name);
            let (_, s) = world.services().find(|(k, _)| **k == key)?;
            let reachable =
                s.cluster_ips.is_empty() || s.cluster_ips.iter().any(|a| Family::of(*a) == family);
            reachable.then_some(Target::Service(key))
        }
        word => world
            .address(&end(word, world).ok()?, family)
            .map(Target::Address),
    }
}

fn service_key(namespace: &str, name: &str) -> model::ServiceRef {
    model::ServiceRef {
        namespace: namespace.into(),
        name: name.into(),
    }
}

/// Why no pair of addresses was found.
fn absent(args: &WhyArgs, to: &Word, world: &World) -> CliError {
    match to {
        Word::Pod { .. } | Word::Node(_) => {
            if let Err(e) = end(to, world) {
                return e;
            }
        }
        Word::Service { namespace, name } => {
            let key = service_key(namespace, name);
            if !world.services().any(|(k, _)| *k == key) {
                let all: Vec<String> = world
                    .services()
                    .map(|(k, _)| format!("{}/{}", k.namespace, k.name))
                    .collect();
                let hint = if all.is_empty() {
                    String::new()
                } else {
                    format!(": there are {}", some(&all))
                };
                return CliError::Usage(format!("there is no service {namespace}/{name}{hint}"));
            }
        }
        _ => {}
    }
    let family = args
        .family
        .map(|f| format!(" of IPv{f}"))
        .unwrap_or_default();
    CliError::Usage(format!(
        "{} and {} have no addresses{family} in common",
        args.from, args.to
    ))
}

fn sent(args: &WhyArgs, to: &Word, target: &Target, world: &World) -> Result<Sent, CliError> {
    let plain = |protocol, port| Sent {
        protocol,
        port,
        icmp: None,
    };
    let given = match args.protocol.as_deref().map(str::parse::<Protocol>) {
        Some(Err(_)) => {
            let text = args.protocol.as_deref().unwrap_or_default();
            return Err(CliError::Usage(format!("'{text}' is no protocol")));
        }
        Some(Ok(p)) => Some(p),
        None => None,
    };
    let Some(port) = args.port.as_deref() else {
        return match given {
            Some(p) if !p.has_ports() => Ok(plain(p, 0)),
            _ => match target {
                Target::Service(s) => first_port(s, world),
                Target::Address(_) => None,
            }
            .ok_or_else(|| {
                CliError::Usage(format!(
                    "which port of {to}? Add one, such as 80, 53/UDP or a port's name; or icmp"
                ))
            }),
        };
    };
    let spelled = match given {
        Some(p) if !port.contains('/') => format!("{port}/{p}"),
        _ => port.to_owned(),
    };
    match spelled.parse::<scenario::Port>() {
        Ok(p) => Ok(Sent {
            protocol: p.protocol,
            port: p.number,
            icmp: p.icmp,
        }),
        Err(e) => named(port, given, target, world).ok_or_else(|| {
            let names = port_names(target, world);
            let hint = match names.is_empty() {
                true => String::new(),
                false => format!("; {to} names {}", some(&names)),
            };
            CliError::Usage(format!("{e}{hint}"))
        }),
    }
}

/// A service's first port.
fn first_port(service: &model::ServiceRef, world: &World) -> Option<Sent> {
    let (_, s) = world.services().find(|(k, _)| *k == service)?;
    let p = s.ports.first()?;
    Some(Sent {
        protocol: p.protocol,
        port: p.port,
        icmp: None,
    })
}

/// The names that the pod or the service gives its ports.
fn port_names(to: &Target, world: &World) -> Vec<String> {
    match to {
        Target::Address(a) => {
            let at = |w: &&model::WorkloadEndpoint| w.nets.iter().any(|n| n.contains(*a));
            let found = world.workloads().find(|(_, w)| at(w));
            let ports = found.into_iter().flat_map(|(_, w)| &w.ports);
            ports.map(|p| p.name.to_string()).collect()
        }
        Target::Service(s) => {
            let found = world.services().find(|(k, _)| *k == s);
            let ports = found.into_iter().flat_map(|(_, s)| &s.ports);
            let names = ports.map(|p| p.name.to_string());
            names.filter(|n| !n.is_empty()).collect()
        }
    }
}

/// A port by the name that the pod or the service gives it.
fn named(name: &str, protocol: Option<Protocol>, to: &Target, world: &World) -> Option<Sent> {
    let wanted = |p: Protocol| protocol.is_none_or(|w| w == p);
    let found = match to {
        Target::Address(a) => {
            let at = |w: &&model::WorkloadEndpoint| w.nets.iter().any(|n| n.contains(*a));
            let (_, w) = world.workloads().find(|(_, w)| at(w))?;
            let p = w
                .ports
                .iter()
                .find(|p| *p.name == *name && wanted(p.protocol))?;
            (p.protocol, p.port)
        }
        Target::Service(s) => {
            let (_, s) = world.services().find(|(k, _)| *k == s)?;
            let p = s
                .ports
                .iter()
                .find(|p| *p.name == *name && wanted(p.protocol))?;
            (p.protocol, p.port)
        }
    };
    Some(Sent {
        protocol: found.0,
        port: found.1,
        icmp: None,
    })
}
