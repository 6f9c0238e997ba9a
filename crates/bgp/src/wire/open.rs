//! Reading an OPEN (RFC 4271, sections 4.2 and 6.2; RFC 9072).
//!
//! Promises: refuses what is wrong in itself. Never: knows whom we expect; that is
//! [`Open::check_peer`].

use super::capability;
use crate::caps::Capability;
use crate::error::{Code, Notification, SessionError};
use crate::message::Open;
use crate::types::RouterId;
use net::Asn;

/// The only version of the protocol.
pub(super) const VERSION: u8 = 4;
/// The optional parameter that holds capabilities (RFC 5492, section 4).
pub(super) const PARAMETER_CAPABILITIES: u8 = 2;
/// In the place of a parameter's type: parameters have two-octet lengths (RFC 9072).
pub(super) const EXTENDED: u8 = 255;

pub(super) fn read(body: &[u8]) -> Result<Open, SessionError> {
    let Some((fixed, parameters)) = body.split_first_chunk::<10>() else {
        return Err(Code::OPEN_UNSPECIFIC.into());
    };
    let &[version, as1, as2, h1, h2, i1, i2, i3, i4, params_len] = fixed;
    if version != VERSION {
        let greatest = u16::from(VERSION).to_be_bytes();
        return Err(Notification::new(Code::UNSUPPORTED_VERSION, greatest).into());
    }
    let mut capabilities = Vec::new();
    read_parameters(params_len, parameters, &mut capabilities)?;
    let short = Asn(u16::from_be_bytes([as1, as2]).into());
    let long = capabilities.iter().find_map(|c| match c {
        Capability::FourOctetAs(asn) => Some(*asn),
        _ => None,
    });
    let open = Open {
        asn: long.unwrap_or(short),
        hold_time: u16::from_be_bytes([h1, h2]),
        router_id: RouterId(u32::from_be_bytes([i1, i2, i3, i4])),
        capabilities,
    };
    // RFC 7607, section 2.
    if short == Asn(0) || open.asn == Asn(0) {
        return Err(Code::BAD_PEER_AS.into());
    }
    if matches!(open.hold_time, 1 | 2) {
        return Err(Code::UNACCEPTABLE_HOLD_TIME.into());
    }
    if open.router_id.0 == 0 {
        return Err(Notification::new(Code::BAD_IDENTIFIER, [0; 4]).into());
    }
    Ok(open)
}

fn read_parameters(
    len: u8,
    octets: &[u8],
    capabilities: &mut Vec<Capability>,
) -> Result<(), SessionError> {
    let malformed = || SessionError::from(Code::OPEN_UNSPECIFIC);
    let (extended, mut rest) = match octets {
        // Whatever the short length says, as long as it is not zero (RFC 9072, section 2).
        [EXTENDED, l1, l2, rest @ ..] if len != 0 => {
            if rest.len() != usize::from(u16::from_be_bytes([*l1, *l2])) {
                return Err(malformed());
            }
            (true, rest)
        }
        _ if octets.len() != usize::from(len) => return Err(malformed()),
        _ => (false, octets),
    };
    while !rest.is_empty() {
        let (kind, size, after) = match (rest, extended) {
            ([kind, l1, l2, after @ ..], true) => (*kind, u16::from_be_bytes([*l1, *l2]), after),
            ([kind, l, after @ ..], false) => (*kind, u16::from(*l), after),
            _ => return Err(malformed()),
        };
        let Some((value, after)) = after.split_at_checked(usize::from(size)) else {
            return Err(malformed());
        };
        rest = after;
        if kind != PARAMETER_CAPABILITIES {
            return Err(Code::UNSUPPORTED_PARAMETER.into());
        }
        capability::read_all(value, capabilities).map_err(|_| malformed())?;
    }
    Ok(())
}
