//! What is counted, for Prometheus.
//!
//! Promises: a page is made from one look at the speaker, which waits for one round of it at most; a
//! speaker that has ended gives no numbers rather than old ones.

use crate::bfd::BfdReport;
use crate::bmp::StationStatus;
use crate::control::{History, PeerReport, collect_peers};
use crate::handle::Handle;
use bgp::router::Size;
use daemon::Metrics;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use std::collections::BTreeMap;
use std::fmt;

/// Adds them to a registry.
pub(crate) fn register(speaker: &Handle, history: &History, to: &Metrics) {
    let collected = Box::new(Collected {
        speaker: speaker.clone(),
        history: history.clone(),
    });
    to.register(|registry| registry.register_collector(collected));
}

#[derive(Debug)]
struct Collected {
    speaker: Handle,
    history: History,
}

/// One number of each peer.
struct OfPeer {
    name: &'static str,
    help: &'static str,
    counts: bool,
    of: fn(&PeerReport) -> u64,
}

const OF_PEERS: [OfPeer; 9] = [
    OfPeer {
        name: "manx_bgp_peer_up",
        help: "Whether the session is established",
        counts: false,
        of: |p| u64::from(p.is_up()),
    },
    OfPeer {
        name: "manx_bgp_peer_paths",
        help: "Paths that the peer has announced, refused ones too",
        counts: false,
        of: |p| {
            p.status
                .as_ref()
                .map_or(0, |s| u64::from(s.paths.v4) + u64::from(s.paths.v6))
        },
    },
    OfPeer {
        name: "manx_bgp_peer_messages_received",
        help: "Messages from the peer",
        counts: true,
        of: |p| p.status.as_ref().map_or(0, |s| s.counters.received),
    },
    OfPeer {
        name: "manx_bgp_peer_updates_received",
        help: "UPDATE messages from the peer",
        counts: true,
        of: |p| p.status.as_ref().map_or(0, |s| s.counters.updates),
    },
    OfPeer {
        name: "manx_bgp_peer_octets_sent",
        help: "Octets sent to the peer",
        counts: true,
        of: |p| p.status.as_ref().map_or(0, |s| s.counters.octets_sent),
    },
    OfPeer {
        name: "manx_bgp_peer_sessions",
        help: "Sessions that came up",
        counts: true,
        of: |p| p.status.as_ref().map_or(0, |s| s.counters.sessions),
    },
    OfPeer {
        name: "manx_bgp_peer_flaps",
        help: "Established sessions that ended",
        counts: true,
        of: |p| p.flaps,
    },
    OfPeer {
        name: "manx_bgp_peer_faults",
        help: "Faults of UPDATE messages from the peer (RFC 7606)",
        counts: true,
        of: |p| p.faults.iter().sum(),
    },
    OfPeer {
        name: "manx_bgp_peer_notifications",
        help: "Sessions that ended with a NOTIFICATION, of either side",
        counts: true,
        of: |p| p.notified.iter().sum(),
    },
];

/// One number of the speaker.
struct OfAll {
    name: &'static str,
    help: &'static str,
    of: fn(&Size) -> usize,
}

const OF_ALL: [OfAll; 4] = [
    OfAll {
        name: "manx_bgp_prefixes",
        help: "Prefixes with a path",
        of: |s| s.prefixes,
    },
    OfAll {
        name: "manx_bgp_paths",
        help: "Paths, refused ones too",
        of: |s| s.paths,
    },
    OfAll {
        name: "manx_bgp_attributes",
        help: "Distinct sets of attributes",
        of: |s| s.attributes,
    },
    OfAll {
        name: "manx_bgp_table_octets",
        help: "Octets that the tables take",
        of: |s| s.octets,
    },
];

impl Collector for Collected {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let history = self.history.clone();
        let looked = self.speaker.look(move |v| {
            let size = v.router.map(bgp::router::Router::size);
            let troubles = v.troubles.len() + v.plan.faults.len();
            let dropped = v.bfd.dropped();
            (
                v.stations.to_vec(),
                collect_peers(v, &history),
                size.unwrap_or_default(),
                troubles,
                dropped,
            )
        });
        let Ok((stations, peers, size, troubles, dropped)) = looked else {
            return Ok(());
        };
        for m in &OF_ALL {
            gauge(&mut encoder, m.name, m.help, (m.of)(&size))?;
        }
        let help = "Resources that cannot be followed, and what else stands in the way";
        gauge(&mut encoder, "manx_bgp_troubles", help, troubles)?;
        for m in &OF_PEERS {
            let kind = match m.counts {
                true => MetricType::Counter,
                false => MetricType::Gauge,
            };
            let mut family = encoder.encode_descriptor(m.name, m.help, None, kind)?;
            for p in &peers {
                let labels = [("peer", p.name.clone()), ("as", p.peer.asn.to_string())];
                let one = family.encode_family(&labels)?;
                match m.counts {
                    true => ConstCounter::new((m.of)(p)).encode(one)?,
                    false => ConstGauge::new(signed((m.of)(p))).encode(one)?,
                }
            }
        }
        watched(&mut encoder, &peers, &dropped)?;
        monitored(&mut encoder, &stations)
    }
}

/// One number of each path that BFD watches.
struct OfPath {
    name: &'static str,
    help: &'static str,
    counts: bool,
    of: fn(&BfdReport) -> u64,
}

const OF_PATHS: [OfPath; 5] = [
    OfPath {
        name: "manx_bfd_up",
        help: "Whether both ends of the path hear each other",
        counts: false,
        of: |b| u64::from(b.state == bfd::State::Up),
    },
    OfPath {
        name: "manx_bfd_ups",
        help: "How often the path came up",
        counts: true,
        of: |b| b.ups,
    },
    OfPath {
        name: "manx_bfd_failures",
        help: "How often the path was up and failed",
        counts: true,
        of: |b| b.failures,
    },
    OfPath {
        name: "manx_bfd_packets_received",
        help: "Packets from the far end",
        counts: true,
        of: |b| b.received,
    },
    OfPath {
        name: "manx_bfd_packets_sent",
        help: "Packets sent to the far end",
        counts: true,
        of: |b| b.sent,
    },
];

/// What is counted of BFD; nothing where nothing is watched.
fn watched(
    encoder: &mut DescriptorEncoder<'_>,
    peers: &[PeerReport],
    dropped: &BTreeMap<&'static str, u64>,
) -> fmt::Result {
    let paths = peers.iter().filter_map(|p| Some((p, p.bfd.as_ref()?)));
    let paths: Vec<_> = paths.collect();
    for m in OF_PATHS.iter().filter(|_| !paths.is_empty()) {
        let kind = match m.counts {
            true => MetricType::Counter,
            false => MetricType::Gauge,
        };
        let mut family = encoder.encode_descriptor(m.name, m.help, None, kind)?;
        for (p, bfd) in &paths {
            let labels = [("peer", p.name.clone())];
            let one = family.encode_family(&labels)?;
            match m.counts {
                true => ConstCounter::new((m.of)(bfd)).encode(one)?,
                false => ConstGauge::new(signed((m.of)(bfd))).encode(one)?,
            }
        }
    }
    if dropped.is_empty() {
        return Ok(());
    }
    let help = "Packets of BFD that were not taken, by reason";
    let counter = MetricType::Counter;
    let mut family = encoder.encode_descriptor("manx_bfd_packets_dropped", help, None, counter)?;
    for (reason, n) in dropped {
        let labels = [("reason", *reason)];
        let one = family.encode_family(&labels)?;
        ConstCounter::new(*n).encode(one)?;
    }
    Ok(())
}

/// One number of each monitoring station.
struct OfStation {
    name: &'static str,
    help: &'static str,
    counts: bool,
    of: fn(&StationStatus) -> u64,
}

const OF_STATIONS: [OfStation; 4] = [
    OfStation {
        name: "manx_bmp_station_up",
        help: "Whether the monitoring station is connected",
        counts: false,
        of: |s| u64::from(s.since.is_some()),
    },
    OfStation {
        name: "manx_bmp_station_sessions",
        help: "Connections with the station that came up",
        counts: true,
        of: |s| s.sessions,
    },
    OfStation {
        name: "manx_bmp_station_octets_sent",
        help: "Octets sent to the station",
        counts: true,
        of: |s| s.octets_sent,
    },
    OfStation {
        name: "manx_bmp_station_unsent",
        help: "Routes that no message to the station could hold",
        counts: true,
        of: |s| s.unsent,
    },
];

/// What is counted of monitoring stations; nothing where there is none.
fn monitored(encoder: &mut DescriptorEncoder<'_>, stations: &[StationStatus]) -> fmt::Result {
    for m in OF_STATIONS.iter().filter(|_| !stations.is_empty()) {
        let kind = match m.counts {
            true => MetricType::Counter,
            false => MetricType::Gauge,
        };
        let mut family = encoder.encode_descriptor(m.name, m.help, None, kind)?;
        for s in stations {
            let labels = [("station", s.station.to_string())];
            let one = family.encode_family(&labels)?;
            match m.counts {
                true => ConstCounter::new((m.of)(s)).encode(one)?,
                false => ConstGauge::new(signed((m.of)(s))).encode(one)?,
            }
        }
    }
    Ok(())
}

fn gauge(to: &mut DescriptorEncoder<'_>, name: &str, help: &str, n: usize) -> fmt::Result {
    let one = to.encode_descriptor(name, help, None, MetricType::Gauge)?;
    ConstGauge::new(signed(n as u64)).encode(one)
}

/// Gauges have a sign.
fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
