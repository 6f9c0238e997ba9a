//! Reading and writing capabilities (RFC 5492).
//!
//! Promises: what is read and written again is the same, known or not. Never: refuses an
//! unknown capability, or one that is for people to read only.

use crate::caps::{
    AddPath, Capability, ExtendedNextHop, GracefulRestart, LongLived, RestartFamily, Role, code,
};
use crate::types::AfiSafi;
use net::Asn;

/// Capabilities that do not fit their lengths: the OPEN is malformed.
pub(super) struct Malformed;

/// Reads the value of one parameter: capabilities one after the other.
pub(super) fn read_all(mut octets: &[u8], out: &mut Vec<Capability>) -> Result<(), Malformed> {
    while let [code, len, rest @ ..] = octets {
        let (value, rest) = rest.split_at_checked(usize::from(*len)).ok_or(Malformed)?;
        out.push(read(*code, value)?);
        octets = rest;
    }
    if octets.is_empty() {
        Ok(())
    } else {
        Err(Malformed)
    }
}

fn read(code: u8, value: &[u8]) -> Result<Capability, Malformed> {
    let unknown = || Capability::Unknown {
        code,
        value: value.into(),
    };
    Ok(match (code, value) {
        (code::MULTI_PROTOCOL, &[a, b, _, safi]) => {
            Capability::MultiProtocol(afi_safi([a, b, safi]))
        }
        (code::ROUTE_REFRESH, []) => Capability::RouteRefresh,
        (code::EXTENDED_MESSAGE, []) => Capability::ExtendedMessage,
        (code::ENHANCED_ROUTE_REFRESH, []) => Capability::EnhancedRouteRefresh,
        (code::ROLE, &[role]) => Capability::Role(Role::from_u8(role)),
        (code::FOUR_OCTET_AS, &[a, b, c, d]) => {
            Capability::FourOctetAs(Asn(u32::from_be_bytes([a, b, c, d])))
        }
        (code::EXTENDED_NEXT_HOP, v) => Capability::ExtendedNextHop(items(v, next_hop)?),
        (code::GRACEFUL_RESTART, [head, tail, rest @ ..]) => {
            Capability::GracefulRestart(restart(*head, *tail, items(rest, restart_family)?))
        }
        (code::ADD_PATH, v) => {
            let list = items(v, |i: [u8; 4]| add_path(i))?;
            Capability::AddPath(list.into_iter().flatten().collect())
        }
        (code::LONG_LIVED_GRACEFUL_RESTART, v) => {
            Capability::LongLivedGracefulRestart(items(v, long_lived)?)
        }
        (code::FQDN, v) => fqdn(v).unwrap_or_else(unknown),
        (code::SOFTWARE_VERSION, [len, text @ ..]) if usize::from(*len) == text.len() => {
            std::str::from_utf8(text).map_or_else(
                |_| unknown(),
                |text| Capability::SoftwareVersion(text.to_owned()),
            )
        }
        // Known by their codes, but of no length that they can have.
        (
            code::MULTI_PROTOCOL
            | code::ROUTE_REFRESH
            | code::EXTENDED_MESSAGE
            | code::ENHANCED_ROUTE_REFRESH
            | code::ROLE
            | code::FOUR_OCTET_AS
            | code::GRACEFUL_RESTART,
            _,
        ) => return Err(Malformed),
        _ => unknown(),
    })
}

/// A value that is a list of items of one size.
fn items<const N: usize, T>(
    octets: &[u8],
    item: impl Fn([u8; N]) -> T,
) -> Result<Vec<T>, Malformed> {
    let (chunks, rest) = octets.as_chunks::<N>();
    if rest.is_empty() {
        Ok(chunks.iter().map(|&c| item(c)).collect())
    } else {
        Err(Malformed)
    }
}

const fn afi_safi([a, b, safi]: [u8; 3]) -> AfiSafi {
    AfiSafi {
        afi: u16::from_be_bytes([a, b]),
        safi,
    }
}

const fn next_hop([a, b, _, safi, c, d]: [u8; 6]) -> ExtendedNextHop {
    ExtendedNextHop {
        routes: afi_safi([a, b, safi]),
        next_hop_afi: u16::from_be_bytes([c, d]),
    }
}

const fn restart(head: u8, tail: u8, families: Vec<RestartFamily>) -> GracefulRestart {
    GracefulRestart {
        restarting: head & 0x80 != 0,
        notification: head & 0x40 != 0,
        time: u16::from_be_bytes([head & 0x0f, tail]),
        families,
    }
}

const fn restart_family([a, b, safi, flags]: [u8; 4]) -> RestartFamily {
    RestartFamily {
        family: afi_safi([a, b, safi]),
        forwarding: flags & 0x80 != 0,
    }
}

/// Another value than the three is ignored for its family (RFC 7911, section 4).
const fn add_path([a, b, safi, mode]: [u8; 4]) -> Option<AddPath> {
    if mode == 0 || mode > 3 {
        return None;
    }
    Some(AddPath {
        family: afi_safi([a, b, safi]),
        receive: mode & 1 != 0,
        send: mode & 2 != 0,
    })
}

const fn long_lived([a, b, safi, flags, t1, t2, t3]: [u8; 7]) -> LongLived {
    LongLived {
        family: afi_safi([a, b, safi]),
        forwarding: flags & 0x80 != 0,
        stale_time: u32::from_be_bytes([0, t1, t2, t3]),
    }
}

fn fqdn(value: &[u8]) -> Option<Capability> {
    let text = |v: &[u8]| Some(std::str::from_utf8(v).ok()?.to_owned());
    let (&len, rest) = value.split_first()?;
    let (host, rest) = rest.split_at_checked(usize::from(len))?;
    let (&len, domain) = rest.split_first()?;
    if domain.len() != usize::from(len) {
        return None;
    }
    Some(Capability::Fqdn {
        host: text(host)?,
        domain: text(domain)?,
    })
}

/// Writes capabilities one after the other. Of a list or a text that is longer than a
/// capability can be, as much is written as fits.
pub(super) fn write_all(capabilities: &[Capability], out: &mut Vec<u8>) {
    for c in capabilities {
        let at = out.len();
        out.extend_from_slice(&[0, 0]);
        out[at] = write(c, out);
        let len = out.len() - at - 2;
        debug_assert!(len <= 255, "capability {} takes {len} octets", out[at]);
        out.truncate(at + 2 + len.min(255));
        out[at + 1] = u8::try_from(len).unwrap_or(u8::MAX);
    }
}

/// Writes the value; returns the code.
fn write(capability: &Capability, out: &mut Vec<u8>) -> u8 {
    match capability {
        Capability::MultiProtocol(f) => {
            let [a, b] = f.afi.to_be_bytes();
            out.extend_from_slice(&[a, b, 0, f.safi]);
            code::MULTI_PROTOCOL
        }
        Capability::RouteRefresh => code::ROUTE_REFRESH,
        Capability::ExtendedNextHop(list) => {
            for i in list.iter().take(255 / 6) {
                let ([a, b], [c, d]) = (i.routes.afi.to_be_bytes(), i.next_hop_afi.to_be_bytes());
                out.extend_from_slice(&[a, b, 0, i.routes.safi, c, d]);
            }
            code::EXTENDED_NEXT_HOP
        }
        Capability::ExtendedMessage => code::EXTENDED_MESSAGE,
        Capability::Role(role) => {
            out.push(role.to_u8());
            code::ROLE
        }
        Capability::GracefulRestart(g) => {
            write_restart(g, out);
            code::GRACEFUL_RESTART
        }
        Capability::FourOctetAs(asn) => {
            out.extend_from_slice(&asn.0.to_be_bytes());
            code::FOUR_OCTET_AS
        }
        Capability::AddPath(list) => {
            for i in list.iter().take(255 / 4) {
                let [a, b] = i.family.afi.to_be_bytes();
                let mode = u8::from(i.receive) | u8::from(i.send) << 1;
                out.extend_from_slice(&[a, b, i.family.safi, mode]);
            }
            code::ADD_PATH
        }
        Capability::EnhancedRouteRefresh => code::ENHANCED_ROUTE_REFRESH,
        Capability::LongLivedGracefulRestart(list) => {
            for i in list.iter().take(255 / 7) {
                let ([a, b], [_, t1, t2, t3]) =
                    (i.family.afi.to_be_bytes(), i.stale_time.to_be_bytes());
                let flags = u8::from(i.forwarding) << 7;
                out.extend_from_slice(&[a, b, i.family.safi, flags, t1, t2, t3]);
            }
            code::LONG_LIVED_GRACEFUL_RESTART
        }
        Capability::Fqdn { host, domain } => {
            // Two lengths beside the two texts.
            let host = write_text(host, 253, out);
            write_text(domain, 253 - host, out);
            code::FQDN
        }
        Capability::SoftwareVersion(text) => {
            write_text(text, 254, out);
            code::SOFTWARE_VERSION
        }
        Capability::Unknown { code, value } => {
            out.extend_from_slice(&value[..value.len().min(255)]);
            *code
        }
    }
}

fn write_restart(g: &GracefulRestart, out: &mut Vec<u8>) {
    let [head, tail] = g.time.min(0xfff).to_be_bytes();
    let flags = u8::from(g.restarting) << 7 | u8::from(g.notification) << 6;
    out.extend_from_slice(&[flags | head, tail]);
    for i in g.families.iter().take(253 / 4) {
        let [a, b] = i.family.afi.to_be_bytes();
        out.extend_from_slice(&[a, b, i.family.safi, u8::from(i.forwarding) << 7]);
    }
}

/// A length and a text of at most `max` octets, cut at a character; returns its length.
fn write_text(text: &str, max: usize, out: &mut Vec<u8>) -> usize {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    out.push(u8::try_from(end).unwrap_or(u8::MAX));
    out.extend_from_slice(&text.as_bytes()[..end]);
    end
}
