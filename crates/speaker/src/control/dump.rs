//! All tables, to a client (RFC 6396).

use super::Server;
use super::peers::name_of;
use crate::engine::View;
use crate::mrt::{self, Entry, IndexPeer};
use bgp::rib::PeerId;
use bgp::router::{Audience, PathStatus};
use net::{Asn, Cidr, Family};
use std::collections::HashMap;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::time::SystemTime;

/// Seconds since 1970, as far as four octets go.
fn seconds(at: SystemTime) -> u32 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH);
    u32::try_from(since.unwrap_or_default().as_secs()).unwrap_or(u32::MAX)
}

fn piece(out: &mut impl Write, octets: &[u8]) -> io::Result<()> {
    let length = u32::try_from(octets.len()).map_err(io::Error::other)?;
    out.write_all(&length.to_be_bytes())?;
    out.write_all(octets)
}

impl Server {
    /// Writes the index of peers and a record for each prefix, then a piece of length 0. The first of
    /// the index is ourselves.
    pub(super) fn dump(&self, out: &mut impl Write) -> io::Result<()> {
        let now = SystemTime::now();
        let look = |v: &View<'_>| v.router.map(|r| (r.config().router_id.0, r.config().asn));
        let own = self.speaker.look(look).map_err(Self::gone)?;
        let (id, asn) = own.unwrap_or((0, Asn(0)));
        let mut index = vec![IndexPeer {
            id,
            address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            asn,
        }];
        let mut places = HashMap::new();
        for p in self.peers()? {
            let place = u16::try_from(index.len()).unwrap_or(u16::MAX);
            places.insert(p.name, (place, seconds(p.since)));
            let id = p.status.and_then(|s| s.router_id);
            index.push(IndexPeer {
                id: id.map_or(0, |id| id.0),
                address: p.peer.address,
                asn: p.peer.asn,
            });
        }
        let at = seconds(now);
        piece(out, &mrt::index(at, id, "master", &index))?;
        let started = seconds(self.history.started());
        let mut sequence = 0;
        for family in Family::BOTH {
            let places = places.clone();
            let select = move |v: &View<'_>, p| entries(v, p, &places, started);
            self.walk(family, select, |(prefix, entries)| {
                let record = mrt::prefix(at, sequence, prefix, &entries);
                sequence = sequence.wrapping_add(1);
                piece(out, &record)
            })?;
        }
        piece(out, &[])
    }
}

/// The paths to a prefix that are not refused; of peers that came since the index was made, none.
fn entries(
    v: &View<'_>,
    prefix: Cidr,
    places: &HashMap<String, (u16, u32)>,
    started: u32,
) -> Option<(Cidr, Vec<Entry>)> {
    let explained = v.router?.explain_to(prefix, Audience::Nobody)?;
    let taken = explained
        .paths
        .into_iter()
        .filter(|p| !matches!(p.status, PathStatus::Refused(_)));
    let entries = taken.filter_map(|p| {
        let (peer, since) = match p.peer {
            PeerId::LOCAL => (0, started),
            id => *places.get(&name_of(v, id)?)?,
        };
        Some(Entry {
            peer,
            since,
            attributes: p.attributes,
        })
    });
    let entries: Vec<Entry> = entries.collect();
    (!entries.is_empty()).then_some((prefix, entries))
}
