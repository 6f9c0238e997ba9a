//! What every stranger is asked. A case is generic over who is asked; a test file names the cases of
//! its speaker.
//!
//! Promises: what is asserted is the same for all; what a speaker cannot do is left out by its file.

mod away;
mod routes;
mod session;
mod tables;

pub use away::*;
pub use routes::*;
pub use session::*;
pub use tables::*;

use super::ours::{impatient, peers, tune};
use super::raw::{Opening, Raw, hex, update};
use super::{Seen, Side, Stranger, THEIRS, US};
use crate::support::{Ours, Wire, run, settings, until};
use netlink::netns::NetNs;

/// Both sides, with all sessions up.
fn up<S: Stranger>(side: &Side) -> (Wire, S, Ours) {
    let wire = wire(side);
    let them = S::start(&wire.there, side);
    let ours = Ours::start(&wire.here, settings(), peers(side.asn, |_| {}));
    tune(&ours, impatient);
    ours.established(2);
    them.established();
    (wire, them, ours)
}

/// A wire on which their feeders have their addresses: on our side, since a speaker may not take
/// its own address for a peer's.
fn wire(side: &Side) -> Wire {
    let wire = Wire::new();
    for (at, _) in &side.feeders {
        run(&wire.here, "ip", &format!("addr add {at}/24 dev eth0"));
    }
    wire
}

/// What [`Stranger::tell`] tells of a coloured route, as we hold it.
fn attributes(asn: u32, hop: &str) -> Seen {
    let external = asn != 64512;
    let own = external.then_some(asn);
    Seen {
        path: own.into_iter().chain([65010, 65011]).collect(),
        hop: hop.into(),
        med: Some(77),
        local_pref: (!external).then_some(100),
        communities: vec!["65001:7".into(), "65001:8".into()],
        large: vec!["65001:1:2".into()],
        extended: vec!["rt:65001:9".into()],
        ..Seen::default()
    }
}

/// ORIGIN, a path of one AS and a next hop; more attributes as hexadecimal text.
fn octets(asn: u16, hop: &str, more: &str) -> Vec<u8> {
    let hop: std::net::Ipv4Addr = hop.parse().unwrap();
    let mut out = hex("40 01 01 00 40 02 06 02 01 0000");
    out.extend(asn.to_be_bytes());
    out.extend(hex("40 03 04"));
    out.extend(hop.octets());
    out.extend(hex(more));
    out
}

/// A peer of one's own making with a session at an address of ours or theirs.
fn feeder(wire: &Wire, (at, asn): (&str, u16), to: &str) -> Raw {
    let id: std::net::Ipv4Addr = at.parse().unwrap();
    Raw::insist(behind(wire, to), at, to, &Opening::new(asn, id.octets()))
}

/// Where those live who call an address.
fn behind<'a>(wire: &'a Wire, to: &str) -> &'a NetNs {
    if US.contains(&to) {
        &wire.there
    } else {
        &wire.here
    }
}
