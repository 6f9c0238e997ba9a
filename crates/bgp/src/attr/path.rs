//! The AS path, kept as the wire has it with four-octet numbers.
//!
//! Promises: what is inside is well formed (checked when it is made), neighbouring
//! sequences that fit one segment are one, and paths of up to five hops need no
//! allocation. Never: holds an empty segment.

use net::Asn;
use smallvec::SmallVec;
use std::fmt;

/// The most ASes of one segment; its count is one octet.
const SEGMENT_MAX: usize = 255;

/// What a segment says of its members (RFC 4271, section 4.3; RFC 5065, section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SegmentKind {
    /// Passed, in no particular order (deprecated by RFC 9774).
    Set = 1,
    /// Passed, the latest first.
    Sequence = 2,
    /// Member ASes of the local confederation passed, the latest first.
    ConfedSequence = 3,
    /// Member ASes of the local confederation passed, in no particular order.
    ConfedSet = 4,
}

impl SegmentKind {
    /// The value on the wire.
    pub const fn from_u8(n: u8) -> Option<Self> {
        match n {
            1 => Some(Self::Set),
            2 => Some(Self::Sequence),
            3 => Some(Self::ConfedSequence),
            4 => Some(Self::ConfedSet),
            _ => None,
        }
    }

    /// Whether it is one of a confederation.
    pub const fn is_confed(self) -> bool {
        matches!(self, Self::ConfedSequence | Self::ConfedSet)
    }
}

/// One segment of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment<'a> {
    /// What it says.
    pub kind: SegmentKind,
    octets: &'a [u8],
}

impl<'a> Segment<'a> {
    /// Its members.
    pub fn asns(self) -> AsnIter<'a> {
        AsnIter(self.octets.chunks_exact(4))
    }

    /// How many members it has, at least one.
    #[expect(clippy::len_without_is_empty, reason = "no segment is empty")]
    pub const fn len(self) -> usize {
        self.octets.len() / 4
    }

    /// Its share of the path's length: a set counts one, a confederation's none.
    const fn hops(self) -> usize {
        match self.kind {
            SegmentKind::Sequence => self.len(),
            SegmentKind::Set => 1,
            SegmentKind::ConfedSequence | SegmentKind::ConfedSet => 0,
        }
    }
}

/// The members of a segment.
#[derive(Debug, Clone)]
pub struct AsnIter<'a>(std::slice::ChunksExact<'a, u8>);

impl Iterator for AsnIter<'_> {
    type Item = Asn;

    fn next(&mut self) -> Option<Asn> {
        let octets = self.0.next()?.try_into().ok()?;
        Some(Asn(u32::from_be_bytes(octets)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl ExactSizeIterator for AsnIter<'_> {}

/// The segments of a path.
#[derive(Debug, Clone)]
pub struct Segments<'a>(&'a [u8]);

impl<'a> Iterator for Segments<'a> {
    type Item = Segment<'a>;

    fn next(&mut self) -> Option<Segment<'a>> {
        let (&[kind, count], rest) = self.0.split_first_chunk()?;
        let (octets, rest) = rest.split_at_checked(usize::from(count) * 4)?;
        self.0 = rest;
        Some(Segment {
            kind: SegmentKind::from_u8(kind)?,
            octets,
        })
    }
}

/// The ASes that a route has passed.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct AsPath {
    octets: SmallVec<[u8; 24]>,
}

impl AsPath {
    /// A path of one sequence, the latest AS first.
    pub fn sequence(asns: impl IntoIterator<Item = Asn>) -> Self {
        let mut path = Self::default();
        path.push(SegmentKind::Sequence, asns);
        path
    }

    /// Whether it is the path of a route that starts in the local AS.
    pub fn is_empty(&self) -> bool {
        self.octets.is_empty()
    }

    /// The segments, the latest first.
    pub fn segments(&self) -> Segments<'_> {
        Segments(&self.octets)
    }

    /// All ASes in it, whatever their segments.
    pub fn asns(&self) -> impl Iterator<Item = Asn> + '_ {
        self.segments().flat_map(Segment::asns)
    }

    /// The length that decides between routes: a set counts one, a confederation's
    /// segments nothing (RFC 4271, section 9.1.2.2; RFC 5065, section 5.3).
    pub fn hops(&self) -> usize {
        self.segments().map(Segment::hops).sum()
    }

    /// The neighbouring AS that gave the route to our AS: the first of the path, where
    /// that is a sequence, a confederation's segments skipped.
    pub fn neighbour(&self) -> Option<Asn> {
        let s = self.segments().find(|s| !s.kind.is_confed())?;
        match s.kind {
            SegmentKind::Sequence => s.asns().next(),
            _ => None,
        }
    }

    /// The first AS of all, of whatever segment: the peer's, from an honest eBGP peer.
    pub fn first(&self) -> Option<Asn> {
        self.segments().next()?.asns().next()
    }

    /// The AS that the route starts in: the last, where that is in a sequence.
    pub fn origin(&self) -> Option<Asn> {
        let s = self.segments().last()?;
        match s.kind {
            SegmentKind::Sequence => s.asns().last(),
            _ => None,
        }
    }

    /// How often `asn` is in it: once is a loop, unless it is allowed.
    pub fn count(&self, asn: Asn) -> usize {
        self.asns().filter(|&a| a == asn).count()
    }

    /// Whether its first ASes are these, all in sequences.
    pub fn starts_with(&self, asns: &[Asn]) -> bool {
        let mut own = self
            .segments()
            .take_while(|s| s.kind == SegmentKind::Sequence)
            .flat_map(Segment::asns);
        asns.iter().all(|&a| own.next() == Some(a))
    }

    /// Whether it has sets (RFC 9774 wants none).
    pub fn has_sets(&self) -> bool {
        let set = |k| matches!(k, SegmentKind::Set | SegmentKind::ConfedSet);
        self.segments().any(|s| set(s.kind))
    }

    /// Whether it has a confederation's segments.
    pub fn has_confed(&self) -> bool {
        self.segments().any(|s| s.kind.is_confed())
    }

    /// The path with `asn` before it `times` times (RFC 4271, section 5.1.2).
    #[must_use]
    pub fn prepend(&self, asn: Asn, times: usize) -> Self {
        self.prepend_as(SegmentKind::Sequence, asn, times)
    }

    /// The path with a member AS before it (RFC 5065, section 4).
    #[must_use]
    pub fn prepend_confed(&self, asn: Asn) -> Self {
        self.prepend_as(SegmentKind::ConfedSequence, asn, 1)
    }

    fn prepend_as(&self, kind: SegmentKind, asn: Asn, times: usize) -> Self {
        let mut path = Self::default();
        path.push(kind, std::iter::repeat_n(asn, times));
        path.append(self.segments());
        path
    }

    /// The path as it leaves the confederation (RFC 5065, section 4).
    #[must_use]
    pub fn without_confed(&self) -> Self {
        let mut path = Self::default();
        path.append(self.segments().filter(|s| !s.kind.is_confed()));
        path
    }

    /// Adds segments at the end.
    pub(crate) fn append<'a>(&mut self, segments: impl IntoIterator<Item = Segment<'a>>) {
        for s in segments {
            self.push(s.kind, s.asns());
        }
    }

    /// Adds ASes at the end; a sequence continues the sequence before it while that has
    /// room.
    pub fn push(&mut self, kind: SegmentKind, asns: impl IntoIterator<Item = Asn>) {
        let mut head = match kind {
            SegmentKind::Sequence | SegmentKind::ConfedSequence => self.last_head(kind),
            SegmentKind::Set | SegmentKind::ConfedSet => None,
        };
        for asn in asns {
            let at = match head {
                Some(at) if usize::from(self.octets[at + 1]) < SEGMENT_MAX => at,
                _ => {
                    self.octets.extend_from_slice(&[kind as u8, 0]);
                    self.octets.len() - 2
                }
            };
            self.octets[at + 1] += 1;
            self.octets.extend_from_slice(&asn.0.to_be_bytes());
            head = Some(at);
        }
    }

    /// Where the last segment starts, if it is of this kind.
    fn last_head(&self, kind: SegmentKind) -> Option<usize> {
        let last = self.segments().last().filter(|s| s.kind == kind)?;
        Some(self.octets.len() - last.octets.len() - 2)
    }

    /// Takes a value that a check has found well formed, of one segment or of several.
    pub(crate) fn from_checked(octets: &[u8]) -> Self {
        let one = octets
            .get(1)
            .is_none_or(|&n| octets.len() == 2 + usize::from(n) * 4);
        if one {
            return Self {
                octets: SmallVec::from_slice(octets),
            };
        }
        let mut path = Self::default();
        path.append(Segments(octets));
        path
    }

    /// The value of the attribute for a peer with four-octet AS numbers.
    pub fn as_octets(&self) -> &[u8] {
        &self.octets
    }

    pub(crate) fn heap_size(&self) -> usize {
        if self.octets.spilled() {
            self.octets.capacity()
        } else {
            0
        }
    }
}

/// As operators write it: `1 2 {3 4} (5 6) [7 8]`, the last two a confederation's.
impl fmt::Display for AsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, s) in self.segments().enumerate() {
            let (open, close) = match s.kind {
                SegmentKind::Sequence => ("", ""),
                SegmentKind::Set => ("{", "}"),
                SegmentKind::ConfedSequence => ("(", ")"),
                SegmentKind::ConfedSet => ("[", "]"),
            };
            if i > 0 {
                f.write_str(" ")?;
            }
            f.write_str(open)?;
            for (i, asn) in s.asns().enumerate() {
                if i > 0 {
                    f.write_str(" ")?;
                }
                asn.fmt(f)?;
            }
            f.write_str(close)?;
        }
        Ok(())
    }
}

impl fmt::Debug for AsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AsPath({self})")
    }
}
