//! What pods and namespaces ask for by annotation.
//!
//! Promises: the CNI plugin's errors in the words that users know; unknown annotations are nobody's business.

use crate::kinds::endpoint::QosControls;
use crate::meta::StringMap;
use crate::wire::NumOrString;
use model::{AddPath, Beyond, Bfd, BfdHops, MaxPrefixes};
use net::{Cidr, Family};
use std::net::IpAddr;
use std::time::Duration;

/// Prefix of the annotations that the CNI plugin reads.
pub const CNI: &str = "cni.projectcalico.org/";

/// What packets are marked with that leave the cluster: of pods, and of host endpoints.
pub const DSCP: &str = "qos.projectcalico.org/dscp";

/// How a BGPPeer's path is watched by BFD, and, on the default BGPConfiguration, those of the mesh.
pub const BFD: &str = "manx.io/bfd";

/// Which way several paths to a prefix go between us and a BGPPeer (RFC 7911).
pub const ADD_PATH: &str = "manx.io/add-path";

/// How many prefixes are taken of a BGPPeer, and what is done beyond.
pub const MAX_PREFIXES: &str = "manx.io/max-prefixes";

/// Prefix of the annotations that limit a pod's traffic.
const QOS: &str = "qos.projectcalico.org/";

/// What a pod asks for, its namespace's wishes under its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CniRequest {
    /// These addresses, taken from IPAM.
    pub ip_addrs: Vec<IpAddr>,
    /// These addresses, whatever IPAM thinks.
    pub ip_addrs_no_ipam: Vec<IpAddr>,
    /// Only from these pools, names or CIDRs.
    pub ipv4_pools: Vec<String>,
    /// Only from these pools, names or CIDRs.
    pub ipv6_pools: Vec<String>,
    /// Only these families; empty is as configured.
    pub families: Vec<Family>,
    /// Addresses that others reach it by.
    pub floating_ips: Vec<IpAddr>,
    /// Further addresses that it may send from.
    pub allowed_source_prefixes: Vec<Cidr>,
    /// Of its interface.
    pub hw_addr: Option<net::Mac>,
}

/// An annotation that cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnnotationError {
    /// It is there, and says nothing.
    #[error("annotation {0:?} specified but empty")]
    Empty(String),
    /// It is no JSON list of texts.
    #[error("failed to parse '{value}' as JSON: annotation {annotation:?}")]
    NotAList {
        /// In full.
        annotation: String,
        /// As it stands.
        value: String,
    },
    /// Not an address.
    #[error("invalid IP format: {0}")]
    BadIp(String),
    /// Not a prefix.
    #[error("invalid CIDR {value:?} in annotation {annotation:?}")]
    BadCidr {
        /// In full.
        annotation: String,
        /// As it stands.
        value: String,
    },
    /// Neither `IPv4` nor `IPv6`.
    #[error("invalid IP family {value:?} in annotation {annotation:?}")]
    BadFamily {
        /// In full.
        annotation: String,
        /// As it stands.
        value: String,
    },
    /// Not a MAC address.
    #[error("failed to parse MAC address {value:?} in annotation {annotation:?}")]
    BadMac {
        /// In full.
        annotation: String,
        /// As it stands.
        value: String,
    },
    /// Two of one family.
    #[error("cannot have more than one {family} address for {annotation:?} annotation")]
    TooMany {
        /// In full.
        annotation: String,
        /// Which family.
        family: Family,
    },
    /// They contradict each other.
    #[error("can't have both annotations: 'ipAddrs' and 'ipAddrsNoIpam' in use at the same time")]
    Both,
}

/// Reads a pod's annotations and those of its namespace, for pools and families.
///
/// # Errors
/// The first annotation that cannot be followed.
pub fn cni_request(pod: &StringMap, namespace: &StringMap) -> Result<CniRequest, AnnotationError> {
    let inherited = |name| own(pod, name).or_else(|| own(namespace, name));
    let list =
        |found: Option<(String, &str)>| found.map_or(Ok(Vec::new()), |(a, v)| strings(&a, v));
    let addresses = |name: &str| match own(pod, name) {
        None => Ok(Vec::new()),
        Some((a, v)) => {
            let texts = strings(&a, v)?;
            texts
                .iter()
                .map(|t| t.parse().map_err(|_| AnnotationError::BadIp(t.clone())))
                .collect()
        }
    };
    let one_each = |name: &str| {
        let ips: Vec<IpAddr> = addresses(name)?;
        for family in Family::BOTH {
            if ips.iter().filter(|i| Family::of(**i) == family).count() > 1 {
                return Err(AnnotationError::TooMany {
                    annotation: format!("{CNI}{name}"),
                    family,
                });
            }
        }
        Ok(ips)
    };
    if own(pod, "ipAddrs").is_some() && own(pod, "ipAddrsNoIpam").is_some() {
        return Err(AnnotationError::Both);
    }
    Ok(CniRequest {
        ip_addrs: one_each("ipAddrs")?,
        ip_addrs_no_ipam: one_each("ipAddrsNoIpam")?,
        ipv4_pools: list(inherited("ipv4pools"))?,
        ipv6_pools: list(inherited("ipv6pools"))?,
        families: list(inherited("ipFamilies"))?
            .iter()
            .map(|f| family(f))
            .collect::<Result<_, _>>()?,
        floating_ips: addresses("floatingIPs")?,
        allowed_source_prefixes: list(own(pod, "allowedSourcePrefixes"))?
            .iter()
            .map(|c| {
                c.parse().map_err(|_| AnnotationError::BadCidr {
                    annotation: format!("{CNI}allowedSourcePrefixes"),
                    value: c.clone(),
                })
            })
            .collect::<Result<_, _>>()?,
        hw_addr: match own(pod, "hwAddr") {
            None => None,
            Some((annotation, v)) => Some(v.parse().map_err(|_| AnnotationError::BadMac {
                annotation,
                value: v.to_owned(),
            })?),
        },
    })
}

fn own<'a>(map: &'a StringMap, name: &str) -> Option<(String, &'a str)> {
    let key = format!("{CNI}{name}");
    map.get(&key).map(|v| (key.clone(), v.as_str()))
}

fn family(text: &str) -> Result<Family, AnnotationError> {
    match text.to_ascii_lowercase().as_str() {
        "ipv4" => Ok(Family::V4),
        "ipv6" => Ok(Family::V6),
        _ => Err(AnnotationError::BadFamily {
            annotation: format!("{CNI}ipFamilies"),
            value: text.to_owned(),
        }),
    }
}

fn strings(annotation: &str, value: &str) -> Result<Vec<String>, AnnotationError> {
    let list = list_of(value).ok_or_else(|| AnnotationError::NotAList {
        annotation: annotation.to_owned(),
        value: value.to_owned(),
    })?;
    if list.is_empty() {
        Err(AnnotationError::Empty(annotation.to_owned()))
    } else {
        Ok(list)
    }
}

/// Reads [`ADD_PATH`]: `receive`, `send` or `both`.
///
/// # Errors
/// Why it cannot be followed.
pub fn add_path(text: &str) -> Result<AddPath, String> {
    let (receive, send) = match text.trim() {
        "receive" => (true, false),
        "send" => (false, true),
        "both" => (true, true),
        other => return Err(format!("must be receive, send or both, not {other:?}")),
    };
    Ok(AddPath { receive, send })
}

/// Reads [`MAX_PREFIXES`]: `10000`, or with what is done beyond, as in `10000,discard`.
///
/// # Errors
/// Why it cannot be followed.
pub fn max_prefixes(text: &str) -> Result<MaxPrefixes, String> {
    let (count, beyond) = match text.split_once(',') {
        Some((count, beyond)) => (count, Some(beyond.trim())),
        None => (text, None),
    };
    let count = count.trim();
    // Digits alone: the number parser would take a sign.
    let digits = count.bytes().all(|b| b.is_ascii_digit());
    let read = count.parse().ok().filter(|n| digits && *n > 0);
    Ok(MaxPrefixes {
        count: read.ok_or_else(|| {
            format!(
                "must be a number of prefixes between 1 and {}, alone or with ,warn or ,discard or \
                 ,reset; {count:?} is no such number",
                u32::MAX
            )
        })?,
        beyond: match beyond {
            None => Beyond::default(),
            Some("warn") => Beyond::Warn,
            Some("discard") => Beyond::Discard,
            Some("reset") => Beyond::Reset,
            Some(other) => {
                return Err(format!(
                    "what is done beyond must be warn, discard or reset, not {other:?}"
                ));
            }
        },
    })
}

/// Reads [`BFD`]: `true`, `false`, or what differs from the default of 300 ms and 3, as in
/// `min-rx=50ms,min-tx=50ms,multiplier=5,hops=single`.
///
/// # Errors
/// Why it cannot be followed.
pub fn bfd(text: &str) -> Result<Option<Bfd>, String> {
    match text.trim() {
        "true" => return Ok(Some(Bfd::default())),
        "false" => return Ok(None),
        _ => {}
    }
    let mut out = Bfd::default();
    for part in text.split(',') {
        let (name, value) = part.split_once('=').ok_or_else(|| {
            format!(
                "must be true, false, or min-rx=TIME,min-tx=TIME,multiplier=N,hops=single|multi; \
                 {:?} is none of it",
                part.trim()
            )
        })?;
        let value = value.trim();
        match name.trim() {
            "min-rx" => out.min_rx = bfd_time("min-rx", value)?,
            "min-tx" => out.min_tx = bfd_time("min-tx", value)?,
            "multiplier" => {
                let n = value.parse().ok().filter(|n| *n > 0);
                out.multiplier =
                    n.ok_or_else(|| format!("multiplier {value:?} must be between 1 and 255"))?;
            }
            "hops" => {
                out.hops = Some(match value {
                    "single" => BfdHops::Single,
                    "multi" => BfdHops::Multi,
                    _ => return Err(format!("hops {value:?} must be single or multi")),
                });
            }
            other => {
                return Err(format!(
                    "knows min-rx, min-tx, multiplier and hops, not {other:?}"
                ));
            }
        }
    }
    Ok(Some(out))
}

/// Below, userspace cannot keep up; above, BGP's own hold time is as good.
fn bfd_time(name: &str, text: &str) -> Result<Duration, String> {
    let seconds = crate::convert::go_duration(text).filter(|s| (0.01..=60.0).contains(s));
    seconds
        .map(Duration::from_secs_f64)
        .ok_or_else(|| format!("{name} {text:?} must be a duration between 10ms and 60s"))
}

/// A JSON list of texts.
pub(crate) fn list_of(value: &str) -> Option<Vec<String>> {
    serde_json::from_str(value).ok()
}

/// A JSON list of addresses; those that are none are passed over.
pub(crate) fn addresses_of(value: &str) -> Option<Vec<IpAddr>> {
    list_of(value).map(|l| l.iter().filter_map(|t| t.parse().ok()).collect())
}

/// The limits that annotations ask for, clamped to what is possible; `None` when there are none. Values
/// that are no quantities are passed over.
pub(crate) fn qos<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Option<QosControls> {
    const K: u64 = 1000;
    const P: u64 = K.pow(5);
    let mut q = QosControls::default();
    for (key, value) in pairs {
        let kubernetes = key.strip_prefix("kubernetes.io/").map(|k| match k {
            "ingress-bandwidth" => "ingressBandwidth",
            "egress-bandwidth" => "egressBandwidth",
            _ => "",
        });
        let Some(name) = key.strip_prefix(QOS).or(kubernetes) else {
            continue;
        };
        if name == "dscp" {
            q.dscp = Some(NumOrString::from(value));
            continue;
        }
        let clamped = |low: u64, high: u64| quantity(value).map(|n| n.clamp(low, high));
        let (slot, wanted) = match name {
            "ingressBandwidth" => (&mut q.ingress_bandwidth, clamped(K, P)),
            "egressBandwidth" => (&mut q.egress_bandwidth, clamped(K, P)),
            "ingressBurst" => (&mut q.ingress_burst, clamped(K, 34_359_738_360)),
            "egressBurst" => (&mut q.egress_burst, clamped(K, 34_359_738_360)),
            "ingressPeakrate" => (&mut q.ingress_peakrate, clamped(1010, P / 100 * 101)),
            "egressPeakrate" => (&mut q.egress_peakrate, clamped(1010, P / 100 * 101)),
            "ingressMinburst" => (&mut q.ingress_minburst, clamped(K, 100 * K * K)),
            "egressMinburst" => (&mut q.egress_minburst, clamped(K, 100 * K * K)),
            "ingressPacketRate" => (&mut q.ingress_packet_rate, clamped(1, 10 * K)),
            "egressPacketRate" => (&mut q.egress_packet_rate, clamped(1, 10 * K)),
            "ingressPacketBurst" => (&mut q.ingress_packet_burst, clamped(1, 10 * K)),
            "egressPacketBurst" => (&mut q.egress_packet_burst, clamped(1, 10 * K)),
            "ingressMaxConnections" => (&mut q.ingress_max_connections, clamped(1, 4_294_967_295)),
            "egressMaxConnections" => (&mut q.egress_max_connections, clamped(1, 4_294_967_295)),
            _ => continue,
        };
        // The annotation of our own name beats Kubernetes' older one, whichever comes first.
        if let Some(n) = wanted.filter(|_| kubernetes.is_none() || *slot == 0) {
            *slot = n;
        }
    }
    for (rate, burst) in [
        (q.ingress_bandwidth, &mut q.ingress_burst),
        (q.egress_bandwidth, &mut q.egress_burst),
    ] {
        if rate > 0 && *burst == 0 {
            *burst = 4 << 30;
        }
    }
    for (rate, burst) in [
        (q.ingress_packet_rate, &mut q.ingress_packet_burst),
        (q.egress_packet_rate, &mut q.egress_packet_burst),
    ] {
        if rate > 0 && *burst == 0 {
            *burst = 5;
        }
    }
    (q != QosControls::default()).then_some(q)
}

/// A Kubernetes quantity, rounded down to a whole number.
fn quantity(text: &str) -> Option<u64> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let number: f64 = text[..digits].parse().ok()?;
    let unit = match &text[digits..] {
        "" => 1.0,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "Ki" => 1024.0,
        "Mi" => 1024.0_f64.powi(2),
        "Gi" => 1024.0_f64.powi(3),
        "Ti" => 1024.0_f64.powi(4),
        "Pi" => 1024.0_f64.powi(5),
        _ => return None,
    };
    let n = number * unit;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be within range, and callers clamp"
    )]
    (0.0..1e18).contains(&n).then_some(n as u64)
}
