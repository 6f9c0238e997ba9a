//! Reading an UPDATE (RFC 4271, sections 4.3 and 6.3; RFC 4760; RFC 7606).
//!
//! Promises: the strongest fault decides what becomes of the whole message (RFC 7606,
//! section 3(h)), and no route is taken of which the peer may have meant something else.
//! Never: gives up at the first fault while more of the message can be read.

use super::attribute::{EXTENDED_LENGTH, Parts, Raw, Reach, Unreach, family_of};
use super::nlri::NlriBlock;
use crate::attr::{NextHop, code};
use crate::caps::Decoding;
use crate::error::{Code, Fault, FaultClass, Notification, Problem, SessionError};
use crate::message::{Announcement, Update};
use net::Family;

pub(super) fn read<'a>(body: &'a [u8], how: &Decoding) -> Result<Update<'a>, SessionError> {
    let fields = Fields::split(body).ok_or(Code::MALFORMED_ATTRIBUTES)?;
    let v4 = how.families.v4;
    let prefixes = |octets| {
        let octets = if v4 { octets } else { &[][..] };
        NlriBlock::new(Family::V4, how.add_path.v4, octets).map_err(|problem| {
            let fault = Fault {
                attribute: None,
                problem,
                class: FaultClass::SessionReset,
                raw: octets.into(),
            };
            reset(fault)
        })
    };
    let withdrawn = prefixes(fields.withdrawn)?;
    let nlri = prefixes(fields.nlri)?;
    let mut walk = Walk {
        how,
        parts: Parts::default(),
        seen: [0; 4],
        faults: Vec::new(),
        classic: !fields.nlri.is_empty(),
    };
    walk.attributes(fields.attributes);
    walk.missing();
    if let Some(fault) = walk.strongest() {
        return Err(fault);
    }
    Ok(walk.finish(&fields, withdrawn, nlri))
}

/// The three variable fields.
struct Fields<'a> {
    withdrawn: &'a [u8],
    attributes: &'a [u8],
    nlri: &'a [u8],
}

impl<'a> Fields<'a> {
    /// `None` when the lengths exceed the message (RFC 7606, section 3(b)).
    fn split(body: &'a [u8]) -> Option<Self> {
        let (withdrawn, rest) = sized(body)?;
        let (attributes, nlri) = sized(rest)?;
        Some(Self {
            withdrawn,
            attributes,
            nlri,
        })
    }
}

/// A field behind its two-octet length, and the rest.
fn sized(octets: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = octets.split_first_chunk()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))
}

/// The attributes of one UPDATE, while they are read.
struct Walk<'a, 'h> {
    how: &'h Decoding,
    parts: Parts<'a>,
    /// A bit for each type that has come.
    seen: [u64; 4],
    faults: Vec<Fault>,
    /// Whether there are prefixes outside of the attributes.
    classic: bool,
}

impl<'a> Walk<'a, '_> {
    fn attributes(&mut self, mut rest: &'a [u8]) {
        while !rest.is_empty() {
            let Some((raw, after)) = split_attribute(rest) else {
                self.overrun(rest);
                return;
            };
            rest = after;
            self.attribute(raw);
        }
    }

    fn attribute(&mut self, raw: Raw<'a>) {
        let (word, bit) = (usize::from(raw.kind >> 6), 1 << (raw.kind & 63));
        if self.seen[word] & bit != 0 {
            // RFC 7606, section 3(g).
            let class = match raw.kind {
                code::MP_REACH_NLRI | code::MP_UNREACH_NLRI => FaultClass::SessionReset,
                _ => FaultClass::AttributeDiscard,
            };
            self.fault(Some(raw.kind), Problem::Repeated, class, raw.whole);
            return;
        }
        self.seen[word] |= bit;
        if let Err((problem, class)) = self.parts.take(raw, self.how) {
            // Without prefixes for it, its address means nothing (RFC 4760, section 3);
            // some speakers send zeros.
            let idle = raw.kind == code::NEXT_HOP && !self.classic;
            let class = match problem {
                Problem::NextHop if idle => FaultClass::AttributeDiscard,
                _ => class,
            };
            self.fault(Some(raw.kind), problem, class, raw.whole);
        }
    }

    /// What is left is no attribute: none of the rest can be read (RFC 7606, section 4).
    /// Where it may hold prefixes, they are lost (section 3(j)).
    fn overrun(&mut self, rest: &'a [u8]) {
        let kind = rest.get(1).copied();
        let class = match kind {
            Some(code::MP_REACH_NLRI | code::MP_UNREACH_NLRI) => FaultClass::SessionReset,
            _ => FaultClass::TreatAsWithdraw,
        };
        self.fault(kind, Problem::Overrun, class, rest);
    }

    fn fault(&mut self, attribute: Option<u8>, problem: Problem, class: FaultClass, raw: &[u8]) {
        self.faults.push(Fault {
            attribute,
            problem,
            class,
            raw: raw.into(),
        });
    }

    /// Whether routes are announced, of whatever family.
    fn announces(&self) -> bool {
        self.classic
            || match self.parts.reach {
                Some(Reach::Carried(_, nlri)) => !nlri.is_empty(),
                Some(Reach::PassedOver) => true,
                None => false,
            }
    }

    fn has(&self, kind: u8) -> bool {
        self.seen[usize::from(kind >> 6)] & 1 << (kind & 63) != 0
    }

    /// Mandatory attributes (RFC 7606, section 3(d)). One that came and was malformed has
    /// its fault already.
    fn missing(&mut self) {
        if !self.announces() {
            return;
        }
        let mandatory = [
            (code::ORIGIN, true),
            (code::AS_PATH, true),
            (code::NEXT_HOP, self.classic && self.how.families.v4),
        ];
        for (kind, needed) in mandatory {
            if needed && !self.has(kind) {
                let class = FaultClass::TreatAsWithdraw;
                self.fault(Some(kind), Problem::Missing, class, &[]);
            }
        }
    }

    /// The end of the session, where some fault demands it.
    fn strongest(&mut self) -> Option<SessionError> {
        let worst = self.faults.iter().map(|f| f.class).max()?;
        let disables = |f: &&Fault| f.class == FaultClass::DisableFamily;
        let several = self.faults.iter().filter(disables).count() > 1;
        // Without prefixes, whatever was to be withdrawn may have been among what could
        // not be read (RFC 7606, section 5.2).
        let others = (0..=u8::MAX).any(|k| k != code::MP_UNREACH_NLRI && self.has(k))
            || self.faults.iter().any(|f| f.problem == Problem::Overrun);
        let blind = worst == FaultClass::TreatAsWithdraw && others && !self.announces();
        if worst < FaultClass::SessionReset && !blind && !several {
            return None;
        }
        let at = self.faults.iter().position(|f| f.class == worst)?;
        let mut fault = self.faults.swap_remove(at);
        fault.class = FaultClass::SessionReset;
        Some(reset(fault))
    }

    fn finish(
        &mut self,
        fields: &Fields<'a>,
        withdrawn: NlriBlock<'a>,
        nlri: NlriBlock<'a>,
    ) -> Update<'a> {
        let mut update = Update {
            end_of_rib: self.end_of_rib(fields),
            disable: self.disabled(),
            ..Update::default()
        };
        let unreach = match self.parts.unreach {
            Some(Unreach::Carried(block)) => Some(block),
            _ => None,
        };
        let (hop, reach) = match self.parts.reach {
            Some(Reach::Carried(hop, block)) => (hop, Some(block)),
            _ => (None, None),
        };
        let full = |b: &NlriBlock<'_>| !b.is_empty();
        update
            .withdrawn
            .extend([withdrawn].into_iter().filter(full));
        update.withdrawn.extend(unreach.filter(full));
        let doomed = self
            .faults
            .iter()
            .any(|f| f.class == FaultClass::TreatAsWithdraw);
        update.faults = std::mem::take(&mut self.faults);
        if doomed {
            update.withdrawn.extend(reach.filter(full));
            update.withdrawn.extend([nlri].into_iter().filter(full));
            return update;
        }
        let classic = self.parts.next_hop.map(NextHop::V4);
        let reach = hop.zip(reach.filter(full));
        let classic = classic.zip(Some(nlri).filter(full));
        let first = match reach.or(classic) {
            Some((hop, nlri)) => Announcement {
                attributes: self.parts.attributes(hop),
                nlri,
            },
            None => return update,
        };
        if let (Some(_), Some((hop, nlri))) = (reach, classic) {
            let mut attributes = first.attributes.clone();
            attributes.next_hop = hop;
            update.announced.push(Announcement { attributes, nlri });
        }
        update.announced.push(first);
        update
    }

    /// The family that an empty UPDATE is about (RFC 4724, section 2).
    fn end_of_rib(&self, fields: &Fields<'_>) -> Option<Family> {
        if !fields.withdrawn.is_empty() || !fields.nlri.is_empty() || !self.faults.is_empty() {
            return None;
        }
        if fields.attributes.is_empty() {
            return self.how.families.v4.then_some(Family::V4);
        }
        let Some(Unreach::Carried(block)) = self.parts.unreach else {
            return None;
        };
        let alone = (0..=u8::MAX).all(|k| k == code::MP_UNREACH_NLRI || !self.has(k));
        (alone && block.is_empty()).then_some(block.family())
    }

    fn disabled(&self) -> Option<Family> {
        let fault = self
            .faults
            .iter()
            .find(|f| f.class == FaultClass::DisableFamily)?;
        family_of(split_attribute(&fault.raw)?.0.value)
    }
}

/// Splits off the first attribute; `None` when it runs past the end.
fn split_attribute(octets: &[u8]) -> Option<(Raw<'_>, &[u8])> {
    let (&[flags, kind], rest) = octets.split_first_chunk()?;
    let (value, after) = if flags & EXTENDED_LENGTH == 0 {
        let (&len, rest) = rest.split_first()?;
        rest.split_at_checked(usize::from(len))?
    } else {
        sized(rest)?
    };
    let whole = &octets[..octets.len() - after.len()];
    let raw = Raw {
        flags,
        kind,
        value,
        whole,
    };
    Some((raw, after))
}

/// The NOTIFICATION that RFC 4271, section 6.3, and RFC 4760, section 7, have for a fault.
fn reset(fault: Fault) -> SessionError {
    let mp = matches!(
        fault.attribute,
        Some(code::MP_REACH_NLRI | code::MP_UNREACH_NLRI)
    );
    let (code, data) = match fault.problem {
        Problem::Overrun | Problem::Repeated => (Code::MALFORMED_ATTRIBUTES, &[][..]),
        Problem::Flags(_) => (Code::ATTRIBUTE_FLAGS, &*fault.raw),
        _ if mp => (Code::OPTIONAL_ATTRIBUTE, &*fault.raw),
        Problem::Length(_) => (Code::ATTRIBUTE_LENGTH, &*fault.raw),
        Problem::Unrecognised => (Code::UNRECOGNISED_WELL_KNOWN, &*fault.raw),
        Problem::Missing => (Code::MISSING_WELL_KNOWN, fault.attribute.as_slice()),
        Problem::Value(_) => (Code::INVALID_ORIGIN, &*fault.raw),
        Problem::NextHop => (Code::INVALID_NEXT_HOP, &*fault.raw),
        Problem::Prefix => (Code::INVALID_NETWORK, &[][..]),
        Problem::Segment | Problem::Confederation | Problem::ZeroAs => {
            (Code::MALFORMED_AS_PATH, &[][..])
        }
        Problem::NotForPeer => (Code::OPTIONAL_ATTRIBUTE, &*fault.raw),
    };
    // With its header the attribute may be longer than what is left in a NOTIFICATION.
    let data = &data[..data.len().min(super::header::SHORT_MAX - 21)];
    SessionError {
        notification: Notification::new(code, data),
        fault: Some(Box::new(fault)),
    }
}
