//! What a ruleset is made of: chains, rules, matches and statements.
//!
//! Promises: a value that exists can be programmed (names fit, lists are non-empty, of one
//! family and free of overlaps), and equal values are equal rules.
//! Never: knows a policy, a handle or a socket.

pub use crate::field::*;
pub use crate::set::*;
use net::{Cidr, Family, IfName, PortRange, Protocol};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// A value that the kernel, or the text form, could not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// A chain, set or table name that is empty, too long, or not an identifier.
    #[error(
        "invalid {what} name {text:?}: 1 to {max} of letters, digits, `_`, `-`, `.`, `/`, a letter or `_` first"
    )]
    Name {
        /// `chain`, `set` or `table`.
        what: &'static str,
        /// The text as given.
        text: String,
        /// The longest name allowed, in bytes.
        max: usize,
    },
    /// A list that must have members has none.
    #[error("empty list of {0}")]
    Empty(&'static str),
    /// A list of prefixes has both IPv4 and IPv6.
    #[error("prefixes {0} and {1} are of two families")]
    MixedFamilies(Cidr, Cidr),
    /// An element does not fit the kind of its set.
    #[error("element {element} does not fit set {set} of {kind}")]
    WrongElement {
        /// The set.
        set: SetName,
        /// Its kind.
        kind: SetKind,
        /// The element, as text.
        element: String,
    },
    /// A differentiated services code point of more than six bits.
    #[error("DSCP {0} is not from 0 to 63")]
    Dscp(u8),
    /// The set was never declared, or was removed.
    #[error("no set {0}")]
    UnknownSet(SetName),
}

/// Longest chain, set or table name in bytes. The kernel takes 255 (`NFT_NAME_MAXLEN`),
/// kernels before 4.14 took 31; 127 keeps listings readable and leaves room for all that
/// render makes up.
pub const NAME_MAX: usize = 127;

fn identifier(what: &'static str, s: &str) -> Result<Arc<str>, ValueError> {
    let first = |b: u8| b.is_ascii_alphabetic() || b == b'_';
    let rest = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'/');
    let mut bytes = s.bytes();
    let ok = s.len() <= NAME_MAX && bytes.next().is_some_and(first) && bytes.all(rest);
    if !ok {
        return Err(ValueError::Name {
            what,
            text: s.to_owned(),
            max: NAME_MAX,
        });
    }
    Ok(Arc::from(s))
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        ///
        /// A clone costs a reference count.
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks length and characters.
            ///
            /// # Errors
            /// [`ValueError::Name`].
            pub fn new(s: &str) -> Result<Self, ValueError> {
                identifier($what, s).map(Self)
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = ValueError;
            fn from_str(s: &str) -> Result<Self, ValueError> {
                Self::new(s)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// The name of a table.
    TableName,
    "table"
);
name!(
    /// The name of a chain.
    ChainName,
    "chain"
);
name!(
    /// The name of a set or map; the two share one name space.
    SetName,
    "set"
);

/// Longest comment and log prefix in bytes: nft's comments and the kernel's
/// `NF_LOG_PREFIXLEN` are 128 with the final NUL.
pub const TEXT_MAX: usize = 127;

/// Text shown to people beside a rule or in a log line: at most [`TEXT_MAX`] bytes, printable,
/// without double quotes or backslashes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Text(Arc<str>);

impl Text {
    /// Makes any text fit: control characters become spaces, `"` and `\` become `'`, and what is
    /// too long is cut at a character boundary.
    pub fn new(s: &str) -> Self {
        let mut out = String::with_capacity(s.len().min(TEXT_MAX));
        for c in s.chars() {
            let c = match c {
                '"' | '\\' => '\'',
                c if c.is_control() => ' ',
                c => c,
            };
            if out.len() + c.len_utf8() > TEXT_MAX {
                break;
            }
            out.push(c);
        }
        Self(out.into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<&str> for Text {
    fn from(s: &str) -> Self {
        Self::new(s)
    }
}

/// What a base chain is for (`type` in nft).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Verdicts on packets.
    Filter,
    /// First packet of each connection; masquerade, SNAT and DNAT.
    Nat,
    /// Output only: re-routes when mark or header changed.
    Route,
}

/// Where in the packet path a base chain hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hook {
    /// Arrived, before the routing decision.
    Prerouting,
    /// For this machine.
    Input,
    /// Routed through.
    Forward,
    /// Made by this machine.
    Output,
    /// About to leave.
    Postrouting,
}

/// What happens to packets at the end of a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Policy {
    /// They go on to the next hook function.
    Accept,
    /// They are dropped.
    Drop,
}

/// A chain's place in the packet path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Base {
    /// What it is for.
    pub kind: Kind,
    /// Where it hangs.
    pub hook: Hook,
    /// Order among the chains of a hook, lowest first: raw is -300, mangle -150,
    /// dstnat -100, filter 0, srcnat 100.
    pub priority: i32,
    /// The verdict at its end.
    pub policy: Policy,
}

/// A chain: rules in order, entered from the packet path (`base`) or by a jump.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Chain {
    /// Set for a chain that hangs in the packet path.
    pub base: Option<Base>,
    /// Its rules, first one first.
    pub rules: Vec<Rule>,
}

/// One rule: where all matches hold, the statements run in order, then the verdict.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Rule {
    /// All must hold, tested in this order.
    pub matches: Vec<Match>,
    /// Run in order; a [`Statement::Limit`] may end the rule.
    pub statements: Vec<Statement>,
    /// What happens to the packet; `None` goes on with the next rule.
    pub verdict: Option<Verdict>,
    /// For people; part of the rule's identity.
    pub comment: Text,
}

/// Source or destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// Where the packet comes from.
    Source,
    /// Where it goes.
    Destination,
}

/// Which interfaces a match holds for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IfPattern {
    /// The interface of this name.
    Exact(IfName),
    /// All interfaces whose names begin so (`cali*`).
    Prefix(IfName),
    /// Members of a set of kind [`SetKind::IfName`], [`SetKind::IfNameOverRate`] or
    /// [`SetKind::IfNameOverCount`].
    InSet(SetName),
}

/// Prefixes of one family, at least one, sorted, none inside another.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetList(Vec<Cidr>);

impl NetList {
    /// Sorts, and drops what another prefix covers.
    ///
    /// # Errors
    /// When there is none, or they are of two families.
    pub fn new(mut nets: Vec<Cidr>) -> Result<Self, ValueError> {
        nets.sort_unstable();
        let first = *nets.first().ok_or(ValueError::Empty("prefixes"))?;
        if let Some(other) = nets.iter().find(|n| n.family() != first.family()) {
            return Err(ValueError::MixedFamilies(first, *other));
        }
        let mut out: Vec<Cidr> = Vec::with_capacity(nets.len());
        for n in nets {
            if !out.last().is_some_and(|l| l.covers(n)) {
                out.push(n);
            }
        }
        Ok(Self(out))
    }

    /// The prefixes in order.
    pub fn as_slice(&self) -> &[Cidr] {
        &self.0
    }

    /// The family of all of them.
    pub fn family(&self) -> Family {
        self.0.first().map_or(Family::V4, |c| c.family())
    }
}

impl From<Cidr> for NetList {
    fn from(c: Cidr) -> Self {
        Self(vec![c])
    }
}

/// Port ranges, at least one, sorted, neither overlapping nor touching.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortList(Vec<PortRange>);

impl PortList {
    /// Sorts and merges.
    ///
    /// # Errors
    /// When there is none.
    pub fn new(ports: Vec<PortRange>) -> Result<Self, ValueError> {
        if ports.is_empty() {
            return Err(ValueError::Empty("ports"));
        }
        Ok(Self(PortRange::merge(ports)))
    }

    /// The ranges in order.
    pub fn as_slice(&self) -> &[PortRange] {
        &self.0
    }
}

impl From<PortRange> for PortList {
    fn from(r: PortRange) -> Self {
        Self(vec![r])
    }
}

/// Connection-tracking states, a union of the constants (`NF_CT_STATE_BIT`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CtState(u32);

impl CtState {
    /// Not a valid packet of any connection.
    pub const INVALID: Self = Self(1);
    /// Of a connection that has seen both directions.
    pub const ESTABLISHED: Self = Self(2);
    /// Belongs to another connection (ICMP errors, helpers).
    pub const RELATED: Self = Self(4);
    /// Begins a connection.
    pub const NEW: Self = Self(8);
    /// Exempted by [`Statement::Notrack`].
    pub const UNTRACKED: Self = Self(64);

    pub(crate) const NAMES: [(Self, &'static str); 5] = [
        (Self::INVALID, "invalid"),
        (Self::ESTABLISHED, "established"),
        (Self::RELATED, "related"),
        (Self::NEW, "new"),
        (Self::UNTRACKED, "untracked"),
    ];

    /// The kernel's bits.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Either of the two.
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl std::ops::BitOr for CtState {
    type Output = Self;
    fn bitor(self, o: Self) -> Self {
        self.or(o)
    }
}

/// One condition on a packet. A match on an address holds only for packets of that family,
/// negated or not. A match on ports looks at the first four bytes after the IP header, whatever
/// they are: put the protocol before it. [`Match::Icmp`] holds only for packets of that
/// protocol, negated or not.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Match {
    /// The interface it came in by.
    IifName {
        /// Which.
        pattern: IfPattern,
        /// Any other instead.
        negate: bool,
    },
    /// The interface it leaves by; not known before the routing decision.
    OifName {
        /// Which.
        pattern: IfPattern,
        /// Any other instead.
        negate: bool,
    },
    /// IPv4 or IPv6.
    NfProto(Family),
    /// The transport protocol.
    L4Proto {
        /// Which.
        proto: Protocol,
        /// Any other instead.
        negate: bool,
    },
    /// Address inside one of these.
    Addr {
        /// Which address of the packet.
        side: Side,
        /// The prefixes.
        nets: NetList,
        /// Outside all of them instead.
        negate: bool,
    },
    /// Address in a named set of kind [`SetKind::Addr`] or [`SetKind::Net`].
    AddrInSet {
        /// Which address of the packet.
        side: Side,
        /// The family of the set.
        family: Family,
        /// The set.
        set: SetName,
        /// Not in it instead.
        negate: bool,
    },
    /// (address, protocol, port) in a named set of kind [`SetKind::AddrProtoPort`] or
    /// [`SetKind::NetProtoPorts`].
    AddrPortInSet {
        /// Which address and port of the packet.
        side: Side,
        /// The family of the set.
        family: Family,
        /// The set.
        set: SetName,
        /// Not in it instead.
        negate: bool,
    },
    /// (source, destination) in a named set of kind [`SetKind::NetPair`].
    NetPairInSet {
        /// The family of the set.
        family: Family,
        /// The set.
        set: SetName,
        /// Not in it instead.
        negate: bool,
    },
    /// Port in one of these ranges.
    Ports {
        /// Which port of the packet.
        side: Side,
        /// The ranges.
        ports: PortList,
        /// In none of them instead.
        negate: bool,
    },
    /// ICMP or ICMPv6 type, and code.
    Icmp {
        /// ICMP for IPv4, ICMPv6 for IPv6.
        family: Family,
        /// The type.
        kind: u8,
        /// The code; any when `None`.
        code: Option<u8>,
        /// Any other combination instead: NOT (type and code both equal).
        negate: bool,
    },
    /// In one of these states.
    CtState {
        /// The states.
        states: CtState,
        /// In none of them instead.
        negate: bool,
    },
    /// The connection's destination was rewritten. Holds only for packets of a connection,
    /// negated or not: never for invalid or untracked ones.
    CtDnat {
        /// It was not, instead.
        negate: bool,
    },
    /// `mark & mask == value`.
    Mark {
        /// The bits that count.
        mask: u32,
        /// What they must be.
        value: u32,
        /// Anything else instead.
        negate: bool,
    },
    /// The address is one of this machine's.
    FibLocal {
        /// Which address of the packet.
        side: Side,
        /// It is not, instead.
        negate: bool,
    },
    /// The route back to the source, with the packet's mark, does not leave by the interface it
    /// came from. In the prerouting hook.
    RpfMissing,
    /// (interface, address) in a named set of kind [`SetKind::IfNameAddr`].
    IfAddrInSet {
        /// Which interface.
        interface: VMapKey,
        /// Which address of the packet.
        side: Side,
        /// The family of the set.
        family: Family,
        /// The set.
        set: SetName,
        /// Not in it instead.
        negate: bool,
    },
    /// The differentiated services code point of the IP header.
    Dscp {
        /// Of IPv4 or of IPv6 packets; others never match, negated or not.
        family: Family,
        /// Which.
        dscp: Dscp,
        /// Any other instead.
        negate: bool,
    },
    /// Address, as it was in the connection's first packet before any translation, inside one
    /// of these. Holds only for packets of a connection of that family, negated or not.
    CtOriginalAddr {
        /// Which address of the connection.
        side: Side,
        /// The prefixes.
        nets: NetList,
        /// Outside all of them instead.
        negate: bool,
    },
    /// Port, as it was in the connection's first packet before any translation, in one of
    /// these ranges. Holds only for packets of a connection, negated or not.
    CtOriginalPorts {
        /// Which port of the connection.
        side: Side,
        /// The ranges.
        ports: PortList,
        /// In none of them instead.
        negate: bool,
    },
    /// What the routing tables say of the address.
    FibType {
        /// Which address of the packet.
        side: Side,
        /// What they must say; [`AddrType::Local`] is [`Match::FibLocal`].
        kind: AddrType,
        /// Anything else instead.
        negate: bool,
    },
    /// What the ARP packet is. Tables of [`TableFamily::Arp`] only.
    ArpOperation(ArpOp),
    /// (interface, sender's IPv4 address) of the ARP packet in a named set of kind
    /// [`SetKind::IfNameAddr`]. Tables of [`TableFamily::Arp`] only.
    ArpSenderInSet {
        /// Which interface.
        interface: VMapKey,
        /// The set.
        set: SetName,
        /// Not in it instead.
        negate: bool,
    },
}

/// Which interface of a packet a map or a set is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum VMapKey {
    /// The interface the packet came in by.
    IifName,
    /// The interface it leaves by.
    OifName,
}

/// Something done to a packet on the way to the verdict.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Statement {
    /// Counts packets and bytes.
    Counter,
    /// Writes a record of the packet and goes on.
    Log {
        /// What the record begins with.
        prefix: Text,
        /// Where it goes.
        to: LogTo,
    },
    /// Goes on with the rule only while within the rate; with `over`, only when above it.
    Limit {
        /// Packets per `per`.
        rate: u64,
        /// The time.
        per: Per,
        /// Packets allowed at once on top.
        burst: u32,
        /// Reversed.
        over: bool,
    },
    /// `mark = (mark & !mask) | value`.
    SetMark {
        /// The bits to change.
        mask: u32,
        /// Their new value; bits outside `mask` are ignored.
        value: u32,
    },
    /// Keeps the packet out of connection tracking; prerouting or output before priority -200.
    Notrack,
    /// Source becomes an address of the outgoing interface. Nat chains in postrouting.
    Masquerade {
        /// Source ports chosen at random.
        fully_random: bool,
        /// Source ports taken from here; TCP, UDP and the like only.
        ports: Option<PortRange>,
    },
    /// Source becomes this. Nat chains in postrouting or input. Packets of the other family
    /// are left alone.
    Snat {
        /// The new source.
        addr: IpAddr,
        /// Source ports taken from here.
        ports: Option<PortRange>,
    },
    /// Destination becomes this. Nat chains in prerouting or output. Packets of the other
    /// family are left alone.
    Dnat {
        /// The new destination.
        addr: IpAddr,
        /// The new port.
        port: Option<u16>,
    },
    /// Looks an interface up in a map of kind [`SetKind::IfNameVerdict`]; goes on when it is not
    /// there.
    VMap {
        /// Which interface.
        key: VMapKey,
        /// The map.
        map: SetName,
    },
    /// Counts the packet's connection at this rule, and goes on only while the rule has more
    /// than so many. Connections that end are forgotten. Put the state before it, so that only
    /// packets that begin a connection are held up.
    CtCount {
        /// How many are not too many.
        over: u32,
    },
    /// Writes the differentiated services code point; packets of the other family go no further
    /// in the rule.
    SetDscp {
        /// Of IPv4 or of IPv6 packets.
        family: Family,
        /// The new one.
        dscp: Dscp,
    },
    /// Destination becomes what a map of kind [`SetKind::AddrToAddr`] has for it. Nat chains in
    /// prerouting or output. Where the map has nothing the rule ends, and the next one follows.
    DnatMap {
        /// The family of the map; other packets are left alone.
        family: Family,
        /// The map.
        map: SetName,
    },
    /// Source becomes what a map of kind [`SetKind::AddrToAddr`] has for it. Nat chains in
    /// postrouting or input. Otherwise as [`Statement::DnatMap`].
    SnatMap {
        /// The family of the map; other packets are left alone.
        family: Family,
        /// The map.
        map: SetName,
    },
    /// Drops the packet and answers. Ends the rule; input, forward and output hooks, and
    /// prerouting.
    Reject(Reject),
}

/// What happens to a packet.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    /// It leaves this base chain; later ones still see it.
    Accept,
    /// It is gone.
    Drop,
    /// Back to after the jump; at the end of a base chain, its policy.
    Return,
    /// Go through this chain, then come back.
    Jump(ChainName),
    /// Go through this chain, and return to where this one would have.
    Goto(ChainName),
}
