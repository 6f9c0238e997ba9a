//! Rulesets in nft's own syntax, for people and golden tests.
//!
//! Promises: same value, same text; `nft -f` takes what a [`Ruleset`] prints; different rules
//! print differently (a rule's identity is taken from its text, see [`crate::RuleId`]).
//! Never: reads anything.

use crate::value::*;
use net::{Cidr, Family, PortRange};
use std::fmt::{self, Display, Formatter, Write};

const fn ip(f: Family) -> &'static str {
    match f {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

const fn addr_type(f: Family) -> &'static str {
    match f {
        Family::V4 => "ipv4_addr",
        Family::V6 => "ipv6_addr",
    }
}

const fn not(negate: bool) -> &'static str {
    if negate { "!= " } else { "" }
}

const fn addr_field(s: Side) -> &'static str {
    match s {
        Side::Source => "saddr",
        Side::Destination => "daddr",
    }
}

const fn port_field(s: Side) -> &'static str {
    match s {
        Side::Source => "sport",
        Side::Destination => "dport",
    }
}

/// Prefixes print as nft does: a host without its length.
struct Net(Cidr);

impl Display for Net {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.0.is_host() {
            write!(f, "{}", self.0.addr())
        } else {
            write!(f, "{}", self.0)
        }
    }
}

struct Ports(PortRange);

impl Display for Ports {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.0.first() == self.0.last() {
            write!(f, "{}", self.0.first())
        } else {
            write!(f, "{}-{}", self.0.first(), self.0.last())
        }
    }
}

/// One item bare, several in braces.
fn list<T: Display>(f: &mut Formatter<'_>, items: impl ExactSizeIterator<Item = T>) -> fmt::Result {
    let many = items.len() > 1;
    if many {
        f.write_str("{ ")?;
    }
    for (i, item) in items.enumerate() {
        if i > 0 {
            f.write_str(", ")?;
        }
        item.fmt(f)?;
    }
    if many { f.write_str(" }") } else { Ok(()) }
}

impl Display for Text {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Display for CtState {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (s, name) in Self::NAMES {
            if self.bits() & s.bits() != 0 {
                if !first {
                    f.write_char(',')?;
                }
                f.write_str(name)?;
                first = false;
            }
        }
        Ok(())
    }
}

fn interface(f: &mut Formatter<'_>, key: &str, pattern: &IfPattern, negate: bool) -> fmt::Result {
    let n = not(negate);
    match pattern {
        IfPattern::Exact(i) => write!(f, "{key} {n}\"{i}\""),
        IfPattern::Prefix(i) => write!(f, "{key} {n}\"{i}*\""),
        IfPattern::InSet(s) => write!(f, "{key} {n}@{s}"),
    }
}

fn icmp(
    f: &mut Formatter<'_>,
    family: Family,
    kind: u8,
    code: Option<u8>,
    negate: bool,
) -> fmt::Result {
    let proto = match family {
        Family::V4 => "icmp",
        Family::V6 => "icmpv6",
    };
    match code {
        None => write!(f, "{proto} type {}{kind}", not(negate)),
        Some(code) if !negate => write!(f, "{proto} type {kind} {proto} code {code}"),
        // Type and code are the first two bytes: comparing both at once is NOT(both equal),
        // which no pair of comparisons in one rule can say.
        Some(code) => write!(
            f,
            "meta l4proto {} @th,0,16 != 0x{kind:02x}{code:02x}",
            l4(family)
        ),
    }
}

const fn l4(family: Family) -> &'static str {
    match family {
        Family::V4 => "icmp",
        Family::V6 => "ipv6-icmp",
    }
}

impl Display for Match {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::IifName { pattern, negate } => interface(f, "iifname", pattern, *negate),
            Self::OifName { pattern, negate } => interface(f, "oifname", pattern, *negate),
            Self::NfProto(family) => write!(f, "meta nfproto ipv{}", family.number()),
            Self::L4Proto { proto, negate } => {
                write!(f, "meta l4proto {}{}", not(*negate), proto.0)
            }
            Self::Addr { side, nets, negate } => {
                write!(
                    f,
                    "{} {} {}",
                    ip(nets.family()),
                    addr_field(*side),
                    not(*negate)
                )?;
                list(f, nets.as_slice().iter().map(|c| Net(*c)))
            }
            Self::AddrInSet {
                side,
                family,
                set,
                negate,
            } => {
                write!(
                    f,
                    "{} {} {}@{set}",
                    ip(*family),
                    addr_field(*side),
                    not(*negate)
                )
            }
            Self::AddrPortInSet {
                side,
                family,
                set,
                negate,
            } => write!(
                f,
                "{} {} . meta l4proto . th {} {}@{set}",
                ip(*family),
                addr_field(*side),
                port_field(*side),
                not(*negate)
            ),
            Self::NetPairInSet {
                family,
                set,
                negate,
            } => {
                let p = ip(*family);
                write!(f, "{p} saddr . {p} daddr {}@{set}", not(*negate))
            }
            Self::Ports {
                side,
                ports,
                negate,
            } => {
                write!(f, "th {} {}", port_field(*side), not(*negate))?;
                list(f, ports.as_slice().iter().map(|r| Ports(*r)))
            }
            Self::Icmp {
                family,
                kind,
                code,
                negate,
            } => icmp(f, *family, *kind, *code, *negate),
            Self::CtState {
                states,
                negate: false,
            } => write!(f, "ct state {states}"),
            Self::CtState {
                states,
                negate: true,
            } => {
                write!(f, "ct state & 0x{:x} == 0", states.bits())
            }
            Self::CtDnat { negate } => {
                write!(
                    f,
                    "ct status & dnat {} 0",
                    if *negate { "==" } else { "!=" }
                )
            }
            Self::Mark {
                mask: u32::MAX,
                value,
                negate,
            } => {
                write!(f, "meta mark {}0x{value:08x}", not(*negate))
            }
            Self::Mark {
                mask,
                value,
                negate,
            } => {
                let op = if *negate { "!=" } else { "==" };
                write!(f, "meta mark & 0x{mask:08x} {op} 0x{value:08x}")
            }
            Self::FibLocal { side, negate } => {
                write!(f, "fib {} type {}local", addr_field(*side), not(*negate))
            }
            Self::RpfMissing => f.write_str("fib saddr . mark . iif oif missing"),
            Self::IfAddrInSet {
                interface,
                side,
                family,
                set,
                negate,
            } => write!(
                f,
                "{interface} . {} {} {}@{set}",
                ip(*family),
                addr_field(*side),
                not(*negate)
            ),
            Self::Dscp {
                family,
                dscp,
                negate,
            } => write!(f, "{} dscp {}{dscp}", ip(*family), not(*negate)),
            Self::CtOriginalAddr { side, nets, negate } => {
                write!(
                    f,
                    "ct original {} {} {}",
                    ip(nets.family()),
                    addr_field(*side),
                    not(*negate)
                )?;
                list(f, nets.as_slice().iter().map(|c| Net(*c)))
            }
            Self::CtOriginalPorts {
                side,
                ports,
                negate,
            } => {
                let field = match side {
                    Side::Source => "proto-src",
                    Side::Destination => "proto-dst",
                };
                write!(f, "ct original {field} {}", not(*negate))?;
                list(f, ports.as_slice().iter().map(|r| Ports(*r)))
            }
            Self::FibType { side, kind, negate } => write!(
                f,
                "fib {} type {}{}",
                addr_field(*side),
                not(*negate),
                *kind as u32
            ),
            Self::ArpOperation(op) => write!(f, "arp operation {}", *op as u16),
            Self::ArpSenderInSet {
                interface,
                set,
                negate,
            } => write!(f, "{interface} . arp saddr ip {}@{set}", not(*negate)),
        }
    }
}

impl Display for VMapKey {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::IifName => "iifname",
            Self::OifName => "oifname",
        })
    }
}

impl Display for Dscp {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:02x}", self.get())
    }
}

impl Display for TableFamily {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inet => "inet",
            Self::Arp => "arp",
        })
    }
}

/// As nft says it of a limit that holds above the rate.
impl Display for Rate {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (n, per, burst) = (self.packets(), self.per(), self.burst());
        write!(f, "{n}/{per} burst {burst} packets")
    }
}

impl Display for Per {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Second => "second",
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
        })
    }
}

impl Display for Level {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Emerg => "emerg",
            Self::Alert => "alert",
            Self::Crit => "crit",
            Self::Err => "err",
            Self::Warn => "warn",
            Self::Notice => "notice",
            Self::Info => "info",
            Self::Debug => "debug",
        })
    }
}

fn nat(
    f: &mut Formatter<'_>,
    verb: &str,
    addr: std::net::IpAddr,
    ports: Option<PortRange>,
) -> fmt::Result {
    let family = ip(Family::of(addr));
    match ports {
        None => write!(f, "{verb} {family} to {addr}"),
        Some(p) if addr.is_ipv6() => write!(f, "{verb} {family} to [{addr}]:{}", Ports(p)),
        Some(p) => write!(f, "{verb} {family} to {addr}:{}", Ports(p)),
    }
}

impl Display for Statement {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Counter => f.write_str("counter"),
            Self::Log { prefix, to } => {
                f.write_str("log")?;
                if !prefix.is_empty() {
                    write!(f, " prefix \"{prefix}\"")?;
                }
                match to {
                    LogTo::Kernel(level) => write!(f, " level {level}"),
                    LogTo::Group(group) => write!(f, " group {group}"),
                    LogTo::GroupWith {
                        group,
                        snaplen,
                        threshold,
                    } => {
                        write!(f, " group {group}")?;
                        if *snaplen > 0 {
                            write!(f, " snaplen {snaplen}")?;
                        }
                        if *threshold > 0 {
                            write!(f, " queue-threshold {threshold}")?;
                        }
                        Ok(())
                    }
                }
            }
            Self::Limit {
                rate,
                per,
                burst,
                over,
            } => {
                let over = if *over { "over " } else { "" };
                write!(f, "limit rate {over}{rate}/{per} burst {burst} packets")
            }
            Self::SetMark {
                mask: u32::MAX,
                value,
            } => write!(f, "meta mark set 0x{value:08x}"),
            Self::SetMark { mask, value } => {
                write!(
                    f,
                    "meta mark set meta mark & 0x{:08x} | 0x{:08x}",
                    !mask,
                    value & mask
                )
            }
            Self::Notrack => f.write_str("notrack"),
            Self::Masquerade {
                fully_random,
                ports,
            } => {
                f.write_str("masquerade")?;
                if let Some(p) = ports {
                    write!(f, " to :{}", Ports(*p))?;
                }
                if *fully_random {
                    f.write_str(" fully-random")
                } else {
                    Ok(())
                }
            }
            Self::Snat { addr, ports } => nat(f, "snat", *addr, *ports),
            Self::Dnat { addr, port } => nat(f, "dnat", *addr, port.map(PortRange::one)),
            Self::VMap { key, map } => write!(f, "{key} vmap @{map}"),
            Self::CtCount { over } => write!(f, "ct count over {over}"),
            Self::SetDscp { family, dscp } => write!(f, "{} dscp set {dscp}", ip(*family)),
            Self::DnatMap { family, map } => {
                let p = ip(*family);
                write!(f, "dnat {p} to {p} daddr map @{map}")
            }
            Self::SnatMap { family, map } => {
                let p = ip(*family);
                write!(f, "snat {p} to {p} saddr map @{map}")
            }
            Self::Reject(Reject::TcpReset) => f.write_str("reject with tcp reset"),
            Self::Reject(Reject::AdminProhibited) => {
                f.write_str("reject with icmpx admin-prohibited")
            }
            Self::Reject(Reject::PortUnreachable) => {
                f.write_str("reject with icmpx port-unreachable")
            }
        }
    }
}

impl Display for Verdict {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Return => f.write_str("return"),
            Self::Jump(c) => write!(f, "jump {c}"),
            Self::Goto(c) => write!(f, "goto {c}"),
        }
    }
}

impl Display for Rule {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut gap = "";
        for m in &self.matches {
            write!(f, "{gap}{m}")?;
            gap = " ";
        }
        for s in &self.statements {
            write!(f, "{gap}{s}")?;
            gap = " ";
        }
        if let Some(v) = &self.verdict {
            write!(f, "{gap}{v}")?;
            gap = " ";
        }
        if !self.comment.is_empty() {
            write!(f, "{gap}comment \"{}\"", self.comment)?;
        }
        Ok(())
    }
}

impl Display for Kind {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Filter => "filter",
            Self::Nat => "nat",
            Self::Route => "route",
        })
    }
}

impl Display for Hook {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
        })
    }
}

impl Display for Policy {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accept => "accept",
            Self::Drop => "drop",
        })
    }
}

impl Display for Base {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self {
            kind,
            hook,
            priority,
            policy,
        } = self;
        write!(
            f,
            "type {kind} hook {hook} priority {priority}; policy {policy};"
        )
    }
}

/// The type and flags as nft declares them.
impl Display for SetKind {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addr(x) => write!(f, "type {};", addr_type(*x)),
            Self::Net(x) => write!(f, "type {}; flags interval;", addr_type(*x)),
            Self::AddrProtoPort(x) => {
                write!(f, "type {} . inet_proto . inet_service;", addr_type(*x))
            }
            Self::NetPair(x) => write!(f, "type {0} . {0}; flags interval;", addr_type(*x)),
            Self::IfName => f.write_str("type ifname;"),
            Self::IfNameVerdict => f.write_str("type ifname : verdict;"),
            Self::NetProtoPorts(x) => write!(
                f,
                "type {} . inet_proto . inet_service; flags interval;",
                addr_type(*x)
            ),
            Self::IfNameAddr(x) => write!(f, "type ifname . {};", addr_type(*x)),
            Self::AddrToAddr(x) => write!(f, "type {0} : {0};", addr_type(*x)),
            // What members would have that do not say: there are none.
            Self::IfNameOverRate => write!(f, "type ifname; limit rate over {};", Rate::TEMPLATE),
            Self::IfNameOverCount => f.write_str("type ifname; ct count over 1;"),
        }
    }
}

impl Display for Element {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addr(a) => a.fmt(f),
            Self::Net(n) => Net(*n).fmt(f),
            Self::AddrProtoPort(a, proto, port) => write!(f, "{a} . {} . {port}", proto.0),
            Self::NetPair(a, b) => write!(f, "{} . {}", Net(*a), Net(*b)),
            Self::IfName(i) => write!(f, "\"{i}\""),
            Self::IfNameVerdict(i, v) => write!(f, "\"{i}\" : {v}"),
            Self::NetProtoPorts(n, proto, ports) => {
                write!(f, "{} . {} . {}", Net(*n), proto.0, Ports(*ports))
            }
            Self::IfNameAddr(i, a) => write!(f, "\"{i}\" . {a}"),
            Self::AddrToAddr(a, b) => write!(f, "{a} : {b}"),
            Self::IfNameOverRate(i, rate) => write!(f, "\"{i}\" limit rate over {rate}"),
            Self::IfNameOverCount(i, n) => write!(f, "\"{i}\" ct count over {n}"),
        }
    }
}

impl Display for Ruleset {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "table {} {} {{", self.family, self.table)?;
        for (name, set) in &self.sets {
            let word = match set.kind {
                SetKind::IfNameVerdict | SetKind::AddrToAddr(_) => "map",
                _ => "set",
            };
            writeln!(f, "\t{word} {name} {{")?;
            let text = set.kind.to_string();
            for line in text.split_inclusive("; ") {
                writeln!(f, "\t\t{}", line.trim_end().trim_end_matches(';'))?;
            }
            if !set.elements.is_empty() {
                f.write_str("\t\telements = {")?;
                for e in &set.elements {
                    write!(f, "\n\t\t\t{e},")?;
                }
                f.write_str("\n\t\t}\n")?;
            }
            f.write_str("\t}\n\n")?;
        }
        for (name, chain) in &self.chains {
            writeln!(f, "\tchain {name} {{")?;
            if let Some(base) = &chain.base {
                writeln!(f, "\t\t{base}")?;
            }
            for rule in &chain.rules {
                writeln!(f, "\t\t{rule}")?;
            }
            f.write_str("\t}\n\n")?;
        }
        f.write_str("}\n")
    }
}
