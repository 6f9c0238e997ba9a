//! What matches and statements hold: code points, address types, times, log targets, answers.
//!
//! Promises: a value that exists can be programmed.
//! Never: knows a rule.

use crate::value::ValueError;

/// A differentiated services code point (RFC 2474 section 3): six bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Dscp(u8);

impl Dscp {
    /// From 0 to 63.
    ///
    /// # Errors
    /// [`ValueError::Dscp`].
    pub const fn new(value: u8) -> Result<Self, ValueError> {
        if value < 64 {
            Ok(Self(value))
        } else {
            Err(ValueError::Dscp(value))
        }
    }

    /// The number.
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// What the routing tables say of an address (`RTN_*` of `rtnetlink.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
#[expect(missing_docs, reason = "the names are the kernel's")]
pub enum AddrType {
    Unicast = 1,
    Local = 2,
    Broadcast = 3,
    Anycast = 4,
    Multicast = 5,
    Blackhole = 6,
    Unreachable = 7,
    Prohibit = 8,
}

/// What an ARP packet is (RFC 826).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names are the protocol's")]
pub enum ArpOp {
    Request = 1,
    Reply = 2,
}

/// Per what time a rate is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Per {
    /// A second.
    Second,
    /// 60 seconds.
    Minute,
    /// 3,600 seconds.
    Hour,
    /// 86,400 seconds.
    Day,
}

impl Per {
    pub(crate) const ALL: [Self; 4] = [Self::Second, Self::Minute, Self::Hour, Self::Day];

    /// Its length in seconds.
    pub const fn seconds(self) -> u64 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3_600,
            Self::Day => 86_400,
        }
    }
}

/// Syslog level of a kernel log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are syslog's")]
pub enum Level {
    Emerg = 0,
    Alert = 1,
    Crit = 2,
    Err = 3,
    Warn = 4,
    Notice = 5,
    Info = 6,
    Debug = 7,
}

/// Where a log statement writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LogTo {
    /// The kernel log. Says nothing from inside a network namespace unless
    /// `net.netfilter.nf_log_all_netns` is set.
    Kernel(Level),
    /// An nfnetlink_log group.
    Group(u16),
    /// The same, saying how much of each packet is wanted and how often.
    GroupWith {
        /// The group.
        group: u16,
        /// Bytes of each packet; 0 is all of it.
        snaplen: u32,
        /// Records that the kernel gathers before it sends them; 0 leaves it to the reader.
        threshold: u16,
    },
}

/// How a rejected packet is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reject {
    /// A TCP reset; holds for TCP packets only.
    TcpReset,
    /// ICMP or ICMPv6 "administratively prohibited".
    AdminProhibited,
    /// ICMP or ICMPv6 "port unreachable".
    PortUnreachable,
}
