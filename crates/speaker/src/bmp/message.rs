//! Messages to monitoring stations (RFC 7854, RFC 9069).
//!
//! Promises: whole messages; AS numbers in four octets, whatever the session has. Never: keeps
//! anything.

use bgp::attr::Attributes;
use bgp::caps::{Capability, Encoding};
use bgp::message::Open;
use bgp::router::{Ended, Stage, Watched};
use bgp::types::{AfiSafi, Nlri, PerFamily};
use bgp::wire::{self, AttributeBlock};
use net::Family;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

const ROUTE_MONITORING: u8 = 0;
const STATISTICS_REPORT: u8 = 1;
const PEER_DOWN: u8 = 2;
const PEER_UP: u8 = 3;
const INITIATION: u8 = 4;
const TERMINATION: u8 = 5;

/// V: the peer's address is of IPv6 (RFC 7854, section 4.2).
const FLAG_V6: u8 = 0x80;
/// L: after the import policy.
const FLAG_POST_POLICY: u8 = 0x40;
/// The type of an ordinary peer.
const GLOBAL: u8 = 0;
/// The type of the Loc-RIB (RFC 9069, section 4.1).
const LOC_RIB: u8 = 3;

/// Appends one message whose body `write` appends.
fn message(kind: u8, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend([3, 0, 0, 0, 0, kind]);
    write(out);
    // No message comes near 2^32 octets.
    let length = u32::try_from(out.len() - at).unwrap_or(u32::MAX);
    out[at + 1..at + 5].copy_from_slice(&length.to_be_bytes());
}

/// Appends a field of type, length and value.
fn field(kind: u16, value: &[u8], out: &mut Vec<u8>) {
    let value = &value[..value.len().min(usize::from(u16::MAX))];
    out.extend(kind.to_be_bytes());
    out.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend(value);
}

/// An address in sixteen octets, one of IPv4 in the last four.
fn address(a: IpAddr, out: &mut Vec<u8>) {
    match a {
        IpAddr::V4(a) => {
            out.extend([0; 12]);
            out.extend(a.octets());
        }
        IpAddr::V6(a) => out.extend(a.octets()),
    }
}

/// The header that says whose it is (RFC 7854, section 4.2).
fn peer(who: &Watched, stage: Stage, at: SystemTime, out: &mut Vec<u8>) {
    let v6 = if who.addr.is_ipv6() { FLAG_V6 } else { 0 };
    let (kind, flags) = match stage {
        Stage::Received => (GLOBAL, v6),
        Stage::Accepted => (GLOBAL, v6 | FLAG_POST_POLICY),
        Stage::Used => (LOC_RIB, 0),
    };
    out.extend([kind, flags]);
    // Peers are told apart by their addresses.
    out.extend([0; 8]);
    address(who.addr, out);
    out.extend(who.asn.0.to_be_bytes());
    out.extend(who.router_id.0.to_be_bytes());
    let since = at.duration_since(SystemTime::UNIX_EPOCH);
    let since = since.unwrap_or(Duration::ZERO);
    out.extend(u32::try_from(since.as_secs()).unwrap_or(0).to_be_bytes());
    out.extend(since.subsec_micros().to_be_bytes());
}

/// The first message (section 4.3).
pub(super) fn initiation(name: &str, description: &str, out: &mut Vec<u8>) {
    message(INITIATION, out, |o| {
        field(1, description.as_bytes(), o);
        field(2, name.as_bytes(), o);
    });
}

/// The last message: ended by an operator (section 4.5).
pub(super) fn termination(out: &mut Vec<u8>) {
    message(TERMINATION, out, |o| field(1, &[0, 0], o));
}

/// A session is up (section 4.10).
pub(super) fn up(
    who: &Watched,
    local: SocketAddr,
    remote_port: u16,
    opens: [&[u8]; 2],
    at: SystemTime,
    out: &mut Vec<u8>,
) {
    message(PEER_UP, out, |o| {
        peer(who, Stage::Received, at, o);
        address(local.ip(), o);
        o.extend(local.port().to_be_bytes());
        o.extend(remote_port.to_be_bytes());
        o.extend(opens[0]);
        o.extend(opens[1]);
    });
}

/// The Loc-RIB is told from now on (RFC 9069, section 5.3). The two OPENs say how its routes
/// are written.
pub(super) fn up_used(who: &Watched, at: SystemTime, out: &mut Vec<u8>) {
    let mut capabilities: Vec<Capability> = Family::BOTH
        .into_iter()
        .map(|f| Capability::MultiProtocol(AfiSafi::unicast(f)))
        .collect();
    capabilities.push(Capability::FourOctetAs(who.asn));
    let open = Open {
        asn: who.asn,
        hold_time: 0,
        router_id: who.router_id,
        capabilities,
    };
    let mut octets = Vec::new();
    // It has three capabilities, and fits.
    let _ = wire::write_open(&open, &mut octets);
    message(PEER_UP, out, |o| {
        peer(who, Stage::Used, at, o);
        o.extend([0; 20]);
        o.extend(&octets);
        o.extend(&octets);
        field(3, b"global", o);
    });
}

/// A session is over (section 4.9).
pub(super) fn down(who: &Watched, how: &Ended, at: SystemTime, out: &mut Vec<u8>) {
    let (reason, data): (u8, &[u8]) = match how {
        Ended::Sent(octets) => (1, octets),
        // No event of the state machine is told.
        Ended::Silent => (2, &[0, 0]),
        Ended::Received(octets) => (3, octets),
        Ended::Lost => (4, &[]),
        Ended::Removed => (5, &[]),
    };
    message(PEER_DOWN, out, |o| {
        peer(who, Stage::Received, at, o);
        o.push(reason);
        o.extend(data);
    });
}

/// Routes of one family, as whom they are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Routes<'a> {
    pub who: &'a Watched,
    pub stage: Stage,
    /// `None`: they are gone.
    pub attributes: Option<&'a Attributes>,
    pub nlri: &'a [Nlri],
    /// Path ids are written.
    pub add_path: bool,
}

/// Routes (section 4.6), in as many messages as it takes. Returns how many of them could not be
/// written, for attributes that no message holds.
pub(super) fn routes(r: &Routes<'_>, at: SystemTime, out: &mut Vec<u8>) -> usize {
    let Some(family) = r.nlri.first().map(|n| n.prefix.family()) else {
        return 0;
    };
    let mut how = Encoding {
        four_octet_as: true,
        extended_message: false,
        v4_over_v6: true,
        add_path: PerFamily::from_fn(|_| r.add_path),
    };
    let mut nlri = r.nlri.iter().copied().peekable();
    let mut update = Vec::new();
    let block = match r.attributes {
        None => None,
        Some(a) => {
            let block = AttributeBlock::new(family, a, &how).or_else(|_| {
                // AS numbers may have grown, and what is longer than a message was came in one
                // of a session with longer ones (RFC 8654).
                how.extended_message = true;
                AttributeBlock::new(family, a, &how)
            });
            let Ok(block) = block else {
                return r.nlri.len();
            };
            Some(block)
        }
    };
    loop {
        update.clear();
        let written = match &block {
            Some(block) => block.write(&mut nlri, &mut update),
            None => wire::write_withdrawal(family, &how, &mut nlri, &mut update),
        };
        if written == 0 {
            return nlri.count();
        }
        message(ROUTE_MONITORING, out, |o| {
            peer(r.who, r.stage, at, o);
            o.extend(&update);
        });
    }
}

/// The mark that all routes have been told.
pub(super) fn end_of_rib(
    who: &Watched,
    stage: Stage,
    family: Family,
    at: SystemTime,
    out: &mut Vec<u8>,
) {
    message(ROUTE_MONITORING, out, |o| {
        peer(who, stage, at, o);
        wire::write_end_of_rib(family, o);
    });
}

/// What is counted of a peer, or of the Loc-RIB.
#[derive(Debug, Clone, Copy)]
pub(super) struct Statistics {
    /// Routes there are.
    pub routes: PerFamily<u64>,
    /// UPDATEs whose routes were withdrawn for a fault; `None` of the Loc-RIB.
    pub treated_as_withdraw: Option<u32>,
}

/// A report (section 4.8; RFC 9069, section 5.5).
pub(super) fn statistics(who: &Watched, s: &Statistics, at: SystemTime, out: &mut Vec<u8>) {
    let (stage, all, each) = match s.treated_as_withdraw {
        Some(_) => (Stage::Received, 7, 9),
        None => (Stage::Used, 8, 10),
    };
    message(STATISTICS_REPORT, out, |o| {
        peer(who, stage, at, o);
        let count = 3 + u32::from(s.treated_as_withdraw.is_some());
        o.extend(count.to_be_bytes());
        field(all, &(s.routes.v4 + s.routes.v6).to_be_bytes(), o);
        for (family, n) in s.routes.iter() {
            let AfiSafi { afi, safi } = AfiSafi::unicast(family);
            let mut value = afi.to_be_bytes().to_vec();
            value.push(safi);
            value.extend(n.to_be_bytes());
            field(each, &value, o);
        }
        if let Some(n) = s.treated_as_withdraw {
            field(11, &n.to_be_bytes(), o);
        }
    });
}
