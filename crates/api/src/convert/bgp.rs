//! BGPConfiguration, BGPPeer and BGPFilter.
//!
//! Facts: a name in a prefix's communities stands for the community of that name; `peerIP` may
//! carry a port; `keepOriginalNextHop` is an old word for `nextHopMode: Keep`.

use super::{Cause, cause, go_duration, policy::parse_selector};
use crate::annotations::{self, ADD_PATH, BFD, MAX_PREFIXES};
use crate::kinds::bgp::{
    BgpFilter, BgpFilterOperation, BgpFilterRule, BgpPassword, BgpPeer, BgpPeerSpec,
};
use crate::kinds::config::{BgpConfiguration, BgpConfigurationSpec, CidrBlock};
use crate::meta::ObjectMeta;
use crate::wire::AsNumber;
use model::{
    AddPath, Bfd, BgpConfig, BgpRemote, CidrMatch, Community, FilterOperation, FilterRule,
    MaxPrefixes, NextHopMode, PrefixCommunities, SecretKey, Selector, Update,
};
use net::{Asn, Cidr};
use std::net::{IpAddr, SocketAddr};

/// `aa:nn` (RFC 1997) or `aa:nn:mm` (RFC 8092).
pub(crate) fn community(text: &str) -> Option<Community> {
    // Digits alone: the number parser would take a sign.
    let digits = |p: &str| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit());
    let parts: Vec<&str> = text.split(':').collect();
    if !parts.iter().all(|p| digits(p)) {
        return None;
    }
    match parts.as_slice() {
        [a, n] => Some(Community::Standard(a.parse().ok()?, n.parse().ok()?)),
        [a, n, m] => Some(Community::Large(
            a.parse().ok()?,
            n.parse().ok()?,
            m.parse().ok()?,
        )),
        _ => None,
    }
}

/// `address`, `v4:port` or `[v6]:port`.
pub(crate) fn peer_address(text: &str) -> Option<(IpAddr, Option<u16>)> {
    if let Ok(ip) = text.parse() {
        return Some((ip, None));
    }
    let s: SocketAddr = text.parse().ok()?;
    (s.port() != 0).then_some((s.ip(), Some(s.port())))
}

/// A text that may be absent.
fn some(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// Whole seconds, rounded.
fn seconds(field: &str, text: &str) -> Result<Option<u32>, Cause> {
    let Some(text) = some(text) else {
        return Ok(None);
    };
    let whole = go_duration(text).filter(|s| (0.0..=f64::from(u32::MAX)).contains(s));
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "compared with the bounds above"
    )]
    whole
        .map(|s| Some(s.round() as u32))
        .ok_or_else(|| format!("{field}: {text:?} is no duration such as 90s"))
}

fn secret(p: Option<&BgpPassword>) -> Option<SecretKey> {
    let r = p?.secret_key_ref.as_ref()?;
    Some(SecretKey {
        name: r.name.as_str().into(),
        key: r.key.as_str().into(),
    })
}

/// 0 is "not set", as Calico reads it.
fn asn(n: Option<AsNumber>) -> Option<Asn> {
    n.map(|n| n.0).filter(|n| *n != Asn(0))
}

fn cidr(field: &str, text: &str) -> Result<Cidr, Cause> {
    text.parse().map_err(|e| cause(field)(&e))
}

/// One without a prefix says nothing, as with Calico, whose schema lets it be left out.
fn blocks(field: &str, list: &[CidrBlock]) -> Result<Vec<Cidr>, Cause> {
    let stated = list.iter().filter(|b| !b.cidr.is_empty());
    stated.map(|b| cidr(field, &b.cidr)).collect()
}

fn number(field: &str, n: Option<i64>) -> Result<Option<u32>, Cause> {
    n.map(|n| u32::try_from(n).map_err(|_| format!("{field}: {n} is out of range")))
        .transpose()
}

fn add_path(meta: &ObjectMeta) -> Result<AddPath, Cause> {
    let read = |text: &str| {
        annotations::add_path(text).map_err(|e| format!("metadata.annotations[{ADD_PATH}]: {e}"))
    };
    Ok(meta
        .annotations
        .get(ADD_PATH)
        .map(|t| read(t))
        .transpose()?
        .unwrap_or_default())
}

fn max_prefixes(meta: &ObjectMeta) -> Result<Option<MaxPrefixes>, Cause> {
    let read = |text: &str| {
        annotations::max_prefixes(text)
            .map_err(|e| format!("metadata.annotations[{MAX_PREFIXES}]: {e}"))
    };
    let text = meta.annotations.get(MAX_PREFIXES);
    text.map(|t| read(t)).transpose()
}

fn bfd(meta: &ObjectMeta) -> Result<Option<Bfd>, Cause> {
    let read = |text: &str| {
        annotations::bfd(text).map_err(|e| format!("metadata.annotations[{BFD}]: {e}"))
    };
    let found = meta.annotations.get(BFD);
    Ok(found.map(|t| read(t)).transpose()?.flatten())
}

pub(super) fn config_update(r: &BgpConfiguration) -> Result<Update, Cause> {
    let s = &r.spec;
    let peering = [
        &s.local_workload_peering_ipv4,
        &s.local_workload_peering_ipv6,
    ];
    let peering = peering.into_iter().filter(|t| !t.is_empty());
    let peering = peering.map(|t| {
        t.parse()
            .map_err(|e| format!("spec.localWorkloadPeering: {t:?}: {e}"))
    });
    let ignored = s.ignored_interfaces.iter().map(|i| i.as_str().into());
    let config = BgpConfig {
        mesh: s.node_to_node_mesh_enabled,
        asn: asn(s.as_number),
        listen_port: s.listen_port.filter(|p| *p != 0),
        bind_node_ip: some(&s.bind_mode).map(|m| m == "NodeIP"),
        service_cluster: blocks("spec.serviceClusterIPs", &s.service_cluster_ips)?,
        service_external: blocks("spec.serviceExternalIPs", &s.service_external_ips)?,
        service_load_balancer: blocks("spec.serviceLoadBalancerIPs", &s.service_load_balancer_ips)?,
        aggregate_load_balancer: some(&s.service_load_balancer_aggregation)
            .map(|a| a != "Disabled"),
        prefix_communities: prefix_communities(s)?,
        mesh_password: secret(s.node_mesh_password.as_ref()),
        mesh_restart: seconds("spec.nodeMeshMaxRestartTime", &s.node_mesh_max_restart_time)?,
        ignored_interfaces: (!s.ignored_interfaces.is_empty()).then(|| ignored.collect()),
        local_workload_peering: peering.collect::<Result<_, _>>()?,
        program_cluster_routes: some(&s.program_cluster_routes).map(Into::into),
        normal_priority: [
            number("spec.ipv4NormalRoutePriority", s.ipv4_normal_route_priority)?,
            number("spec.ipv6NormalRoutePriority", s.ipv6_normal_route_priority)?,
        ],
        mesh_bfd: bfd(&r.metadata)?,
    };
    Ok(Update::BgpConfig(
        r.metadata.name.as_str().into(),
        Some(config),
    ))
}

fn prefix_communities(s: &BgpConfigurationSpec) -> Result<Vec<PrefixCommunities>, Cause> {
    let named = |text: &str| {
        let by_name = || s.communities.iter().find(|c| c.name == text);
        community(text)
            .or_else(|| community(&by_name()?.value))
            .ok_or_else(|| {
                format!(
                    "spec.prefixAdvertisements: {text:?} is neither a community nor the name of one"
                )
            })
    };
    let one = |p: &crate::kinds::config::PrefixAdvertisement| {
        Ok(PrefixCommunities {
            cidr: cidr("spec.prefixAdvertisements", &p.cidr)?,
            communities: (p.communities.iter())
                .map(|c| named(c))
                .collect::<Result<_, Cause>>()?,
        })
    };
    let stated = s
        .prefix_advertisements
        .iter()
        .filter(|p| !p.cidr.is_empty());
    stated.map(one).collect()
}

pub(super) fn peer_update(r: &BgpPeer) -> Result<Update, Cause> {
    let s = &r.spec;
    let peer = model::BgpPeer {
        node: some(&s.node).map(Into::into),
        node_selector: selector("spec.nodeSelector", &s.node_selector)?,
        remote: remote(s)?,
        local_asn: asn(s.local_as_number),
        next_hop: match s.next_hop_mode.as_str() {
            "" if s.keep_original_next_hop => NextHopMode::Keep,
            "" | "Auto" => NextHopMode::Auto,
            "Self" => NextHopMode::Own,
            "Keep" => NextHopMode::Keep,
            other => {
                return Err(format!(
                    "spec.nextHopMode: {other:?} is none of Auto, Self, Keep"
                ));
            }
        },
        password: secret(s.password.as_ref()),
        use_node_ip: s.source_address != "None",
        restart: seconds("spec.maxRestartTime", &s.max_restart_time)?,
        keepalive: seconds("spec.keepaliveTime", &s.keepalive_time)?,
        allowed_local_as: number(
            "spec.numAllowedLocalASNumbers",
            s.num_allowed_local_as_numbers,
        )?,
        ttl_security: s.ttl_security.filter(|t| *t != 0),
        reachable_by: some(&s.reachable_by)
            .map(|t| {
                t.parse()
                    .map_err(|e| format!("spec.reachableBy: {t:?}: {e}"))
            })
            .transpose()?,
        filters: s.filters.iter().map(|f| f.as_str().into()).collect(),
        reverse: s.reverse_peering != "Manual",
        bfd: bfd(&r.metadata)?,
        add_path: add_path(&r.metadata)?,
        max_prefixes: max_prefixes(&r.metadata)?,
    };
    Ok(Update::BgpPeer(r.metadata.name.as_str().into(), Some(peer)))
}

fn selector(field: &str, text: &str) -> Result<Option<Selector>, Cause> {
    some(text).map(|t| parse_selector(field, t)).transpose()
}

fn remote(s: &BgpPeerSpec) -> Result<BgpRemote, Cause> {
    if let Some(found) = selector("spec.localWorkloadSelector", &s.local_workload_selector)? {
        let asn = asn(s.as_number)
            .ok_or("spec.asNumber: is required when localWorkloadSelector is set")?;
        return Ok(BgpRemote::Workloads {
            selector: found,
            asn,
        });
    }
    if let Some(found) = selector("spec.peerSelector", &s.peer_selector)? {
        return Ok(BgpRemote::Nodes(found));
    }
    let (ip, port) = peer_address(&s.peer_ip).ok_or_else(|| {
        format!(
            "spec.peerIP: {:?} is neither an address nor address:port",
            s.peer_ip
        )
    })?;
    Ok(BgpRemote::Address {
        ip,
        port,
        asn: asn(s.as_number),
    })
}

pub(super) fn filter_update(r: &BgpFilter) -> Result<Update, Cause> {
    let s = &r.spec;
    let list = |name: &str, rules: &[BgpFilterRule]| -> Result<Vec<FilterRule>, Cause> {
        let one = |(i, r): (usize, &BgpFilterRule)| {
            filter_rule(r).map_err(|e| format!("spec.{name}[{i}].{e}"))
        };
        rules.iter().enumerate().map(one).collect()
    };
    let filter = model::BgpFilter {
        import: [
            list("importV4", &s.import_v4)?,
            list("importV6", &s.import_v6)?,
        ],
        export: [
            list("exportV4", &s.export_v4)?,
            list("exportV6", &s.export_v6)?,
        ],
    };
    Ok(Update::BgpFilter(
        r.metadata.name.as_str().into(),
        Some(filter),
    ))
}

fn filter_rule(r: &BgpFilterRule) -> Result<FilterRule, Cause> {
    let operator = match r.match_operator.as_str() {
        "" => None,
        "Equal" => Some(CidrMatch::Equal),
        "NotEqual" => Some(CidrMatch::NotEqual),
        "In" => Some(CidrMatch::In),
        "NotIn" => Some(CidrMatch::NotIn),
        other => {
            return Err(format!(
                "matchOperator: {other:?} is none of Equal, NotEqual, In, NotIn"
            ));
        }
    };
    let length = |n: Option<i64>| {
        n.map(|n| u8::try_from(n).map_err(|e| format!("prefixLength: {n}: {e}")))
            .transpose()
    };
    let communities = r.communities.iter().flat_map(|c| &c.values);
    let read = |t: &String| community(t).ok_or_else(|| format!("communities: {t:?} is none"));
    Ok(FilterRule {
        cidr: match (some(&r.cidr), operator) {
            (None, None) => None,
            (Some(c), Some(m)) => Some((cidr("cidr", c)?, m)),
            _ => return Err("cidr: cidr and matchOperator must both be set".to_owned()),
        },
        lengths: match &r.prefix_length {
            None => None,
            Some(p) => Some((length(p.min)?, length(p.max)?)),
        },
        from_remote_peers: match r.source.as_str() {
            "" => false,
            "RemotePeers" => true,
            other => return Err(format!("source: {other:?} is not RemotePeers")),
        },
        interface: some(&r.interface).map(Into::into),
        external: match r.peer_type.as_str() {
            "" => None,
            "eBGP" => Some(true),
            "iBGP" => Some(false),
            other => return Err(format!("peerType: {other:?} is neither eBGP nor iBGP")),
        },
        communities: communities.map(read).collect::<Result<_, _>>()?,
        as_path_prefix: r.as_path_prefix.iter().map(|n| n.0).collect(),
        priority: number("priority", r.priority)?,
        accept: match r.action.as_str() {
            "Accept" => true,
            "Reject" => false,
            other => return Err(format!("action: {other:?} is neither Accept nor Reject")),
        },
        operations: (r.operations.iter().enumerate())
            .map(|(i, o)| operation(o).map_err(|e| format!("operations[{i}]: {e}")))
            .collect::<Result<_, _>>()?,
    })
}

fn operation(o: &BgpFilterOperation) -> Result<FilterOperation, Cause> {
    match (&o.add_community, &o.prepend_as_path, &o.set_priority) {
        (Some(c), None, None) => community(&c.value)
            .map(FilterOperation::AddCommunity)
            .ok_or_else(|| format!("{:?} is no community", c.value)),
        (None, Some(p), None) => Ok(FilterOperation::Prepend(
            p.prefix.iter().map(|n| n.0).collect(),
        )),
        (None, None, Some(p)) => number("setPriority", p.value)?
            .map(FilterOperation::SetPriority)
            .ok_or_else(|| "setPriority: value is missing".to_owned()),
        _ => Err("exactly one operation must be set".to_owned()),
    }
}
