//! AS paths on the wire, with AS numbers of four octets or of two (RFC 6793).
//!
//! Promises: a path is checked before it becomes an [`AsPath`]; what a peer with two-octet
//! numbers sends becomes the path that was meant. Never: trusts a count in a segment.

use crate::attr::{AsPath, Segment, SegmentKind};
use crate::error::Problem;
use crate::types::AS_TRANS;
use net::Asn;

/// Checks an AS_PATH (RFC 7606, section 7.2; RFC 7607) and takes it.
///
/// `confed`: segments of a confederation are allowed (RFC 5065, section 5.3).
pub(super) fn read(octets: &[u8], four_octet: bool, confed: bool) -> Result<AsPath, Problem> {
    let size = if four_octet { 4 } else { 2 };
    let mut path = AsPath::default();
    let mut rest = octets;
    while let Some((&[kind, count], after)) = rest.split_first_chunk() {
        let kind = SegmentKind::from_u8(kind).ok_or(Problem::Segment)?;
        let (asns, after) = after
            .split_at_checked(usize::from(count) * size)
            .filter(|(asns, _)| !asns.is_empty())
            .ok_or(Problem::Segment)?;
        if kind.is_confed() && !confed {
            return Err(Problem::Confederation);
        }
        if asns.chunks_exact(size).any(|a| a.iter().all(|&o| o == 0)) {
            return Err(Problem::ZeroAs);
        }
        if !four_octet {
            path.push(kind, asns.chunks_exact(2).map(short));
        }
        rest = after;
    }
    if !rest.is_empty() {
        return Err(Problem::Segment);
    }
    Ok(if four_octet {
        AsPath::from_checked(octets)
    } else {
        path
    })
}

fn short(octets: &[u8]) -> Asn {
    Asn(octets.iter().fold(0, |n, &o| n << 8 | u32::from(o)))
}

/// Checks an AS4_PATH (RFC 6793, section 6). Segments of a confederation are left out,
/// the rest stands.
pub(super) fn read_as4(octets: &[u8]) -> Result<AsPath, Problem> {
    if octets.len() < 6 || !octets.len().is_multiple_of(2) {
        return Err(Problem::Segment);
    }
    Ok(read(octets, true, true)?.without_confed())
}

/// The path that was meant (RFC 6793, section 4.2.3): the first ASes of `path`, which
/// speakers with two-octet numbers have added, then `as4`. An `as4` that is longer than
/// `path` is ignored.
pub(super) fn merge(path: &AsPath, as4: &AsPath) -> AsPath {
    let Some(mut missing) = path.hops().checked_sub(as4.hops()) else {
        return path.clone();
    };
    let mut merged = AsPath::default();
    for s in path.segments() {
        match s.kind {
            // They are in front of, or next to, what is kept.
            SegmentKind::ConfedSequence | SegmentKind::ConfedSet => {}
            _ if missing == 0 => break,
            SegmentKind::Set => {
                missing -= 1;
            }
            SegmentKind::Sequence => {
                let take = missing.min(s.len());
                missing -= take;
                merged.push(s.kind, s.asns().take(take));
                continue;
            }
        }
        merged.push(s.kind, s.asns());
    }
    merged.append(as4.segments());
    merged
}

/// Whether some AS number does not fit two octets, so that AS4_PATH is needed.
pub(super) fn needs_as4(path: &AsPath) -> bool {
    path.asns().any(|a| a.0 > 0xffff)
}

/// Writes an AS_PATH with two-octet numbers.
pub(super) fn write_short(path: &AsPath, out: &mut Vec<u8>) {
    for s in path.segments() {
        out.extend_from_slice(&[s.kind as u8, count(s)]);
        for asn in s.asns() {
            out.extend_from_slice(&to_short(asn));
        }
    }
}

fn count(s: Segment<'_>) -> u8 {
    u8::try_from(s.len()).unwrap_or(u8::MAX)
}

/// The number, or AS_TRANS for one that does not fit.
pub(super) fn to_short(asn: Asn) -> [u8; 2] {
    let fits = u16::try_from(asn.0).or(u16::try_from(AS_TRANS.0));
    fits.unwrap_or_default().to_be_bytes()
}
