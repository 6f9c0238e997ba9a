//! What is told of peers and routes as JSON.
//!
//! Promises: names of fields stay; what there is nothing to say of is absent.

use super::history::{Noted, What};
use super::peers::{PeerReport, id_of, name_of};
use crate::bfd::BfdReport;
use crate::bmp::StationStatus;
use crate::engine::View;
use bgp::attr::Attributes;
use bgp::rib::PeerId;
use bgp::router::{Audience, Explanation, PathStatus};
use jiff::Timestamp;
use net::{Cidr, Family};
use serde::Serialize;
use std::time::SystemTime;

/// As RFC 3339 writes it, in whole seconds.
pub(super) fn time(at: SystemTime) -> String {
    let whole = |t: Timestamp| Timestamp::from_second(t.as_second()).ok();
    let at = Timestamp::try_from(at).ok().and_then(whole);
    at.map(|t| t.to_string()).unwrap_or_default()
}

/// The speaker.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Status {
    #[serde(rename = "as")]
    asn: u32,
    router_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<String>,
    started: String,
    now: String,
    restarting: Vec<&'static str>,
    peers: usize,
    established: usize,
    prefixes: usize,
    paths: usize,
    attributes: usize,
    octets: usize,
    faults: Vec<String>,
    troubles: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stations: Vec<StationJson>,
}

/// A monitoring station.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct StationJson {
    station: String,
    /// `up`, or `away`.
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    sessions: u64,
    octets_sent: u64,
    unsent: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<String>,
}

impl From<&StationStatus> for StationJson {
    fn from(s: &StationStatus) -> Self {
        Self {
            station: s.station.to_string(),
            state: if s.since.is_some() { "up" } else { "away" },
            since: s.since.map(time),
            sessions: s.sessions,
            octets_sent: s.octets_sent,
            unsent: s.unsent,
            last_error: s.last_error.clone(),
        }
    }
}

const fn family(f: Family) -> &'static str {
    match f {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}

/// What there is to say about the speaker; `Err`: why it does not speak.
pub(super) fn status(v: &View<'_>, started: SystemTime) -> Result<Status, String> {
    let Some(router) = v.router else {
        let more = v.troubles.iter().chain(&v.plan.faults);
        let more: String = more.map(|t| format!("; {t}")).collect();
        return Err(format!(
            "BGP is not spoken: the node is unknown or has no address{more}"
        ));
    };
    let size = router.size();
    let up = |s: &bgp::router::PeerStatus| s.state == bgp::fsm::State::Established;
    Ok(Status {
        asn: router.config().asn.0,
        router_id: router.config().router_id.to_string(),
        cluster: router.config().cluster_id.map(|c| c.to_string()),
        started: time(started),
        now: time(SystemTime::now()),
        restarting: Family::BOTH
            .into_iter()
            .filter(|f| router.is_restarting(*f))
            .map(family)
            .collect(),
        peers: v.plan.peers.len(),
        established: router.peers().filter(up).count(),
        prefixes: size.prefixes,
        paths: size.paths,
        attributes: size.attributes,
        octets: size.octets,
        faults: v.plan.faults.clone(),
        troubles: v.troubles.to_vec(),
        stations: v.stations.iter().map(Into::into).collect(),
    })
}

/// A peer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PeerJson {
    name: String,
    #[serde(rename = "type")]
    origin: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<String>,
    address: String,
    port: u16,
    #[serde(rename = "as")]
    asn: u32,
    local_as: u32,
    state: String,
    since: String,
    passive: bool,
    client: bool,
    password: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl_security: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_prefixes: Option<MaxPrefixesJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    router_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bfd: Option<BfdJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<String>,
    families: Vec<&'static str>,
    capabilities: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hold_time: Option<u16>,
    paths: u32,
    messages_received: u64,
    updates_received: u64,
    octets_sent: u64,
    sessions: u64,
    flaps: u64,
    faults: u64,
    notifications_sent: u64,
    notifications_received: u64,
}

/// How many prefixes are taken of a peer.
#[derive(Debug, Serialize)]
struct MaxPrefixesJson {
    count: u32,
    /// `warn`, `discard` or `reset`.
    beyond: &'static str,
}

/// What watches the path to a peer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct BfdJson {
    state: String,
    since: String,
    /// `single` or `multi`.
    hops: &'static str,
    /// Why it last went down.
    #[serde(skip_serializing_if = "Option::is_none")]
    diagnostic: Option<String>,
    remote_state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_diagnostic: Option<String>,
    discriminator: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_discriminator: Option<u32>,
    interval: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    detection_time: Option<String>,
    ups: u64,
    failures: u64,
    packets_received: u64,
    packets_sent: u64,
}

impl From<&BfdReport> for BfdJson {
    fn from(r: &BfdReport) -> Self {
        let why = |d: bfd::Diagnostic| (d != bfd::Diagnostic::None).then(|| d.to_string());
        Self {
            state: r.state.to_string(),
            since: time(r.since()),
            hops: if r.single_hop { "single" } else { "multi" },
            diagnostic: why(r.diagnostic),
            remote_state: r.remote_state.to_string(),
            remote_diagnostic: why(r.remote_diagnostic),
            discriminator: r.discriminator,
            remote_discriminator: r.remote_discriminator,
            interval: format!("{:?}", r.interval),
            detection_time: r.detection.map(|t| format!("{t:?}")),
            ups: r.ups,
            failures: r.failures,
            packets_received: r.received,
            packets_sent: r.sent,
        }
    }
}

/// What both sides understand, in BIRD's words.
pub(super) fn capabilities(n: &bgp::caps::Negotiated) -> Vec<&'static str> {
    let any = |p: bgp::types::PerFamily<bool>| p.v4 || p.v6;
    [
        (n.route_refresh, "refresh"),
        (n.enhanced_refresh, "enhanced-refresh"),
        (n.graceful_restart.is_some(), "restart-aware"),
        (!n.long_lived.is_empty(), "llgr-aware"),
        (n.encoding.four_octet_as, "AS4"),
        (any(n.decoding.add_path), "add-path-rx"),
        (any(n.encoding.add_path), "add-path-tx"),
        (n.encoding.extended_message, "ext-messages"),
    ]
    .into_iter()
    .filter_map(|(has, name)| has.then_some(name))
    .collect()
}

impl From<&PeerReport> for PeerJson {
    fn from(r: &PeerReport) -> Self {
        let s = r.status.as_ref();
        let n = s.and_then(|s| s.negotiated.as_ref());
        let counters = s.map(|s| s.counters).unwrap_or_default();
        Self {
            name: r.name.clone(),
            origin: r.peer.origin.shown(),
            resource: r.peer.resource.as_deref().map(str::to_owned),
            address: r.peer.address.to_string(),
            port: r.peer.port,
            asn: r.peer.asn.0,
            local_as: r.peer.local_asn.0,
            state: r.state().to_string(),
            since: time(r.since),
            passive: r.peer.passive,
            client: r.peer.client,
            password: r.peer.password.is_some(),
            ttl_security: r.peer.ttl_security,
            max_prefixes: r.peer.max_prefixes.map(|m| MaxPrefixesJson {
                count: m.count,
                beyond: m.beyond.word(),
            }),
            router_id: s.and_then(|s| s.router_id).map(|id| id.to_string()),
            bfd: r.bfd.as_ref().map(Into::into),
            last_error: r.error().map(str::to_owned),
            families: Family::BOTH
                .into_iter()
                .filter(|f| n.is_some_and(|n| n.carries(*f)))
                .map(family)
                .collect(),
            capabilities: n.map(capabilities).unwrap_or_default(),
            hold_time: n.map(|n| n.hold_time),
            paths: s.map_or(0, |s| s.paths.v4 + s.paths.v6),
            messages_received: counters.received,
            updates_received: counters.updates,
            octets_sent: counters.octets_sent,
            sessions: counters.sessions,
            flaps: r.flaps,
            faults: r.faults.iter().sum(),
            notifications_sent: r.notified[0],
            notifications_received: r.notified[1],
        }
    }
}

/// Attributes of a route.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AttributesJson {
    next_hop: String,
    as_path: String,
    origin: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    local_pref: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    med: Option<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    communities: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    large_communities: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ext_communities: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    originator_id: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cluster_list: Vec<String>,
}

impl From<&Attributes> for AttributesJson {
    fn from(a: &Attributes) -> Self {
        fn texts<T: ToString>(all: impl Iterator<Item = T>) -> Vec<String> {
            all.map(|one| one.to_string()).collect()
        }
        let rare = a.rare();
        Self {
            next_hop: a.next_hop.to_string(),
            as_path: a.as_path.to_string(),
            origin: a.origin.to_string(),
            local_pref: a.local_pref,
            med: a.med,
            communities: texts(a.communities.iter()),
            large_communities: texts(a.large_communities.iter()),
            ext_communities: texts(rare.ext_communities.iter()),
            originator_id: rare.originator_id.map(|id| id.to_string()),
            cluster_list: texts(rare.cluster_list.iter()),
        }
    }
}

/// A prefix, with its paths and who is told of it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RouteJson {
    prefix: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    paths: Vec<PathJson>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    exports: Vec<ExportJson>,
}

/// A path, and what became of it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PathJson {
    peer: String,
    /// `best`, `equal`, `lost` or `refused`.
    status: &'static str,
    /// Why it is not the best.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    stale: bool,
    #[serde(skip_serializing_if = "is_zero")]
    path_id: u32,
    #[serde(flatten)]
    attributes: AttributesJson,
    /// What the peer sent, where that is something else.
    #[serde(skip_serializing_if = "Option::is_none")]
    received: Option<AttributesJson>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
const fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// What a peer is told.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ExportJson {
    peer: String,
    told: bool,
    /// Why it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    #[serde(flatten)]
    attributes: Option<AttributesJson>,
}

/// Which side of a prefix is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// What came in.
    In,
    /// What goes out.
    Out,
    /// Both.
    Both,
}

/// Ourselves, as the source of a route.
const OWN: &str = "local";

impl RouteJson {
    /// Of an explanation what concerns a peer, or all of it; `None`: nothing does.
    fn of(v: &View<'_>, e: &Explanation, peer: Option<&str>, side: Side) -> Option<Self> {
        let name = |id: PeerId| match id {
            PeerId::LOCAL => OWN.to_owned(),
            id => name_of(v, id).unwrap_or_else(|| id.to_string()),
        };
        let wanted = |n: &String| peer.is_none_or(|p| p == n);
        let paths = e.paths.iter().filter(|_| side != Side::Out);
        let paths = paths
            .map(|p| (name(p.peer), p))
            .filter(|(n, _)| wanted(n))
            .map(|(peer, p)| {
                let (status, why) = fate(&p.status);
                PathJson {
                    peer,
                    status,
                    why,
                    stale: p.stale,
                    path_id: p.path_id.0,
                    attributes: (&p.attributes).into(),
                    received: p.received.as_ref().map(Into::into),
                }
            });
        let exports = e.exports.iter().filter(|_| side != Side::In);
        let exports = exports
            .map(|x| (name(x.peer), x))
            .filter(|(n, _)| wanted(n))
            .map(|(peer, x)| ExportJson {
                peer,
                told: x.told,
                why: x.route.as_ref().err().map(ToString::to_string),
                attributes: x.route.as_ref().ok().map(Into::into),
            });
        let out = Self {
            prefix: e.prefix.to_string(),
            paths: paths.collect(),
            exports: exports.collect(),
        };
        (!out.paths.is_empty() || !out.exports.is_empty()).then_some(out)
    }

    /// The best path of a prefix alone; where none can be used, all of them with the reasons.
    pub(super) fn best(v: &View<'_>, prefix: Cidr) -> Option<Self> {
        let router = v.router?;
        let Some(best) = router.best(prefix) else {
            let explained = router.explain_to(prefix, Audience::Nobody)?;
            return Self::of(v, &explained, None, Side::In);
        };
        let peer = name_of(v, best.peer).unwrap_or_else(|| OWN.to_owned());
        Some(Self {
            prefix: prefix.to_string(),
            paths: vec![PathJson {
                peer,
                status: "best",
                why: None,
                stale: best.stale,
                path_id: 0,
                attributes: best.attributes.into(),
                received: None,
            }],
            exports: Vec::new(),
        })
    }

    /// All that there is to say of a prefix.
    pub(super) fn explained(
        v: &View<'_>,
        prefix: Cidr,
        peer: Option<&str>,
        side: Side,
    ) -> Option<Self> {
        let audience = match (side, peer) {
            (Side::In, _) => Audience::Nobody,
            (_, None) => Audience::All,
            // Our own routes have a name, but nobody is told by it.
            (_, Some(name)) => id_of(v, name).map_or(Audience::Nobody, Audience::Only),
        };
        let explained = v.router?.explain_to(prefix, audience)?;
        Self::of(v, &explained, peer, side)
    }
}

fn fate(s: &PathStatus) -> (&'static str, Option<String>) {
    match s {
        PathStatus::Best => ("best", None),
        PathStatus::Equal(step) => ("equal", Some(step.to_string())),
        PathStatus::Lost(step) => ("lost", Some(step.to_string())),
        PathStatus::Refused(why) => ("refused", Some(why.to_string())),
    }
}

/// A malformed message, or one that ended a session.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FaultJson {
    time: String,
    peer: String,
    what: String,
    /// What was done about it.
    then: &'static str,
    /// The attribute, or the data of the NOTIFICATION, in hexadecimal.
    octets: String,
}

impl From<&Noted> for FaultJson {
    fn from(n: &Noted) -> Self {
        use bgp::error::FaultClass;
        let hex = |o: &[u8]| o.iter().map(|b| format!("{b:02x}")).collect();
        let (what, then, octets) = match &n.what {
            What::Fault(f) => {
                let then = match f.class {
                    FaultClass::AttributeDiscard => "attribute discarded",
                    FaultClass::TreatAsWithdraw => "routes withdrawn",
                    FaultClass::DisableFamily => "family dropped",
                    FaultClass::SessionReset => "session ended",
                };
                (f.to_string(), then, hex(&f.raw))
            }
            What::Ended { sent, what } => {
                let then = match sent {
                    true => "session ended by us",
                    false => "session ended by the peer",
                };
                (what.to_string(), then, hex(&what.data))
            }
        };
        Self {
            time: time(n.at),
            peer: n.peer.clone(),
            what,
            then,
            octets,
        }
    }
}
