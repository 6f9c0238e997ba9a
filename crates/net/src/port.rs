//! Transport ports and protocol numbers.

use crate::ParseError;
use std::fmt;
use std::str::FromStr;

/// An IP protocol number. Names are those that policy knows; others print as numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Protocol(pub u8);

impl Protocol {
    /// ICMP for IPv4.
    pub const ICMP: Self = Self(1);
    /// TCP.
    pub const TCP: Self = Self(6);
    /// UDP.
    pub const UDP: Self = Self(17);
    /// ICMP for IPv6.
    pub const ICMPV6: Self = Self(58);
    /// SCTP.
    pub const SCTP: Self = Self(132);
    /// UDP-Lite.
    pub const UDPLITE: Self = Self(136);

    const NAMES: [(Self, &'static str); 6] = [
        (Self::TCP, "TCP"),
        (Self::UDP, "UDP"),
        (Self::ICMP, "ICMP"),
        (Self::ICMPV6, "ICMPv6"),
        (Self::SCTP, "SCTP"),
        (Self::UDPLITE, "UDPLite"),
    ];

    /// Whether rules may match ports with it: TCP, UDP and SCTP.
    pub const fn has_ports(self) -> bool {
        matches!(self, Self::TCP | Self::UDP | Self::SCTP)
    }

    /// The name that policy uses, when it has one.
    pub fn name(self) -> Option<&'static str> {
        Self::NAMES
            .iter()
            .find(|(p, _)| *p == self)
            .map(|(_, n)| *n)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(n) => f.pad(n),
            None => self.0.fmt(f),
        }
    }
}

/// Parses a name in any case, or a number from 0 to 255.
impl FromStr for Protocol {
    type Err = ParseError;

    fn from_str(s: &str) -> Result<Self, ParseError> {
        if let Some((p, _)) = Self::NAMES.iter().find(|(_, n)| n.eq_ignore_ascii_case(s)) {
            return Ok(*p);
        }
        if s.bytes().all(|b| b.is_ascii_digit()) {
            return s
                .parse()
                .map(Self)
                .map_err(|_| ParseError::new("protocol", s));
        }
        Err(ParseError::new("protocol", s))
    }
}

/// Ports from `first` to `last`, both inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// A range; `None` when it is the wrong way round.
    pub const fn new(first: u16, last: u16) -> Option<Self> {
        if first <= last {
            Some(Self { first, last })
        } else {
            None
        }
    }

    /// One port.
    pub const fn one(port: u16) -> Self {
        Self {
            first: port,
            last: port,
        }
    }

    /// The lowest port inside.
    pub const fn first(self) -> u16 {
        self.first
    }

    /// The highest port inside.
    pub const fn last(self) -> u16 {
        self.last
    }

    /// Whether `port` is inside.
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }

    /// Sorts ranges and joins those that touch or overlap.
    pub fn merge(mut ranges: Vec<Self>) -> Vec<Self> {
        ranges.sort_unstable();
        let mut out: Vec<Self> = Vec::with_capacity(ranges.len());
        for r in ranges {
            match out.last_mut() {
                Some(l) if u32::from(r.first) <= u32::from(l.last) + 1 => {
                    l.last = l.last.max(r.last)
                }
                _ => out.push(r),
            }
        }
        out
    }
}

/// Prints `80` or `80:90`, as policy writes it.
impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            self.first.fmt(f)
        } else {
            write!(f, "{}:{}", self.first, self.last)
        }
    }
}

/// Parses `80` or `80:90`.
impl FromStr for PortRange {
    type Err = ParseError;

    fn from_str(s: &str) -> Result<Self, ParseError> {
        let bad = || ParseError::new("port range", s);
        let (a, b) = s.split_once(':').unwrap_or((s, s));
        let first = a.parse().map_err(|_| bad())?;
        let last = b.parse().map_err(|_| bad())?;
        Self::new(first, last).ok_or_else(bad)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_by_name_and_number() {
        assert_eq!("tcp".parse(), Ok(Protocol::TCP));
        assert_eq!(
            "ICMPV6".parse::<Protocol>().map(|p| p.to_string()),
            Ok("ICMPv6".to_owned())
        );
        assert_eq!(
            "47".parse::<Protocol>().map(|p| p.to_string()),
            Ok("47".to_owned())
        );
        for bad in ["", "256", "-1", "GRE"] {
            assert!(bad.parse::<Protocol>().is_err(), "{bad}");
        }
    }

    #[test]
    fn ranges_merge_to_the_fewest() {
        let r = |s: &str| s.parse::<PortRange>().expect("test range");
        let merged = PortRange::merge(vec![
            r("80"),
            r("90:100"),
            r("81:89"),
            r("443"),
            r("65535"),
            r("443:444"),
        ]);
        assert_eq!(merged, vec![r("80:100"), r("443:444"), r("65535")]);
        assert!("90:80".parse::<PortRange>().is_err());
    }
}
