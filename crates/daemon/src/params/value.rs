//! How each type of parameter is written.

use net::{Cidr, PortRange, Protocol};
use std::net::IpAddr;
use std::time::Duration;
use tracing::level_filters::LevelFilter;

/// A type that parameters have.
pub(crate) trait Value: Sized {
    /// What to write, for people.
    const FORM: &'static str;

    /// Reads it.
    fn read(text: &str) -> Result<Self, String>;

    /// What `none` means; by default it cannot be said.
    fn none() -> Option<Self> {
        None
    }
}

impl Value for bool {
    const FORM: &'static str = "true|false";
    fn read(text: &str) -> Result<Self, String> {
        crate::env::yes_or_no(text)
    }
}

macro_rules! number {
    ($($t:ty => $form:literal;)*) => { $(
        impl Value for $t {
            const FORM: &'static str = $form;
            fn read(text: &str) -> Result<Self, String> {
                let read = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
                    Some(hex) => Self::from_str_radix(hex, 16),
                    None => text.parse(),
                };
                read.map_err(|_| format!("not a number from {} to {}", Self::MIN, Self::MAX))
            }
        }
    )* };
}
number! {
    u8 => "0-255";
    u16 => "0-65535";
    u32 => "number";
}

impl Value for String {
    const FORM: &'static str = "text";
    fn read(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }
    fn none() -> Option<Self> {
        Some(Self::new())
    }
}

impl<T: Value> Value for Option<T> {
    const FORM: &'static str = T::FORM;
    fn read(text: &str) -> Result<Self, String> {
        T::read(text).map(Some)
    }
    fn none() -> Option<Self> {
        Some(None)
    }
}

/// Parts at commas; blanks around them do not count.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|p| !p.is_empty())
}

macro_rules! list {
    ($($t:ty => $form:literal;)*) => { $(
        impl Value for Vec<$t> {
            const FORM: &'static str = $form;
            fn read(text: &str) -> Result<Self, String> {
                parts(text).map(<$t>::read).collect()
            }
            fn none() -> Option<Self> {
                Some(Self::new())
            }
        }
    )* };
}
list! {
    String => "text, ...";
    Cidr => "CIDR, ...";
    PortRange => "port|first:last, ...";
    ProtoPort => "[protocol:[net:]]port, ...";
    TableRange => "first-last, ...";
}

impl Value for IpAddr {
    const FORM: &'static str = "address";
    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| "not an IP address".to_owned())
    }
}

impl Value for Cidr {
    const FORM: &'static str = "CIDR";
    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|e| format!("{e}"))
    }
}

impl Value for PortRange {
    const FORM: &'static str = "port|first:last";
    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|e| format!("{e}"))
    }
}

/// A number that VXLAN can carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vni(pub u32);

impl Value for Vni {
    const FORM: &'static str = "0-16777215";
    fn read(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(n) if n < 1 << 24 => Ok(Self(n)),
            _ => Err("not a number from 0 to 16777215".to_owned()),
        }
    }
}

/// Numbers of routing tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableRange {
    /// First.
    pub first: u32,
    /// Last.
    pub last: u32,
}

impl Value for TableRange {
    const FORM: &'static str = "first-last";
    fn read(text: &str) -> Result<Self, String> {
        let range = text
            .split_once('-')
            .and_then(|(a, b)| Some((a.trim().parse().ok()?, b.trim().parse().ok()?)));
        match range {
            Some((first, last)) if 0 < first && first <= last && last - first < 65_535 => {
                Ok(Self { first, last })
            }
            _ => Err("not a range of routing tables, such as 1-250".to_owned()),
        }
    }
}

/// A port that stays open whatever policy says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProtoPort {
    /// Of which protocol.
    pub protocol: Protocol,
    /// The port.
    pub port: u16,
    /// Only to and from here.
    pub net: Option<Cidr>,
}

impl Value for ProtoPort {
    const FORM: &'static str = "[protocol:[net:]]port";
    fn read(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not protocol:port or protocol:net:port");
        let (rest, port) = match text.rsplit_once(':') {
            Some((rest, port)) => (rest, port),
            None => ("tcp", text),
        };
        let (protocol, net) = match rest.split_once(':') {
            Some((protocol, net)) => (protocol, Some(net)),
            None => (rest, None),
        };
        let net = match net {
            Some(n) => {
                let n = n.trim_start_matches('[').trim_end_matches(']');
                Some(n.parse().map_err(|_| bad())?)
            }
            None => None,
        };
        Ok(Self {
            protocol: protocol.parse().map_err(|_| bad())?,
            port: port.trim().parse().map_err(|_| bad())?,
            net,
        })
    }
}

/// So many in a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub count: u32,
    /// In which time: 1, 60, 3600 or 86400 seconds.
    pub seconds: u32,
}

impl Value for Rate {
    const FORM: &'static str = "1-9999/second|minute|hour|day";
    fn read(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not such as 10/minute");
        let (count, unit) = text.split_once('/').ok_or_else(bad)?;
        let seconds = match unit.trim().to_ascii_lowercase().as_str() {
            "second" => 1,
            "minute" => 60,
            "hour" => 3600,
            "day" => 86400,
            _ => return Err(bad()),
        };
        match count.trim().parse() {
            Ok(count @ 1..=9999) => Ok(Self { count, seconds }),
            _ => Err(bad()),
        }
    }
}

impl Value for Duration {
    const FORM: &'static str = "seconds|duration";
    fn read(text: &str) -> Result<Self, String> {
        let bad = || "not a duration: seconds, or such as 90s, 1m30s, 500ms".to_owned();
        if let Ok(seconds) = text.parse::<f64>() {
            return Self::try_from_secs_f64(seconds).map_err(|_| bad());
        }
        let (mut total, mut rest) = (Self::ZERO, text);
        while !rest.is_empty() {
            let digits = rest
                .find(|c: char| !c.is_ascii_digit() && c != '.')
                .ok_or_else(bad)?;
            let (number, tail) = rest.split_at(digits);
            let end = tail
                .find(|c: char| c.is_ascii_digit() || c == '.')
                .unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(end);
            let scale = match unit {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" => 1e-6,
                "ns" => 1e-9,
                _ => return Err(bad()),
            };
            let number: f64 = number.parse().map_err(|_| bad())?;
            let part = Self::try_from_secs_f64(number * scale).map_err(|_| bad())?;
            total = total.checked_add(part).ok_or_else(bad)?;
            rest = tail;
        }
        if text.is_empty() {
            Err(bad())
        } else {
            Ok(total)
        }
    }
}

impl Value for LevelFilter {
    const FORM: &'static str = "Trace|Debug|Info|Warning|Error|Fatal";
    fn read(text: &str) -> Result<Self, String> {
        Ok(match text.to_ascii_lowercase().as_str() {
            "trace" => Self::TRACE,
            "debug" => Self::DEBUG,
            "info" => Self::INFO,
            "warning" | "warn" => Self::WARN,
            "error" | "fatal" | "panic" | "critical" => Self::ERROR,
            _ => return Err("not a log level".to_owned()),
        })
    }
    fn none() -> Option<Self> {
        Some(Self::OFF)
    }
}

macro_rules! choice {
    ($($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $v:ident),* } $form:literal;)*) => { $(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$vdoc])* $v),* }

        impl Value for $name {
            const FORM: &'static str = $form;
            fn read(text: &str) -> Result<Self, String> {
                $(if text.eq_ignore_ascii_case(stringify!($v)) {
                    return Ok(Self::$v);
                })*
                Err(concat!("not one of ", $form).to_owned())
            }
        }
    )* };
}
choice! {
    /// What happens to packets from a pod to its own host, when policy lets them.
    HostAction {
        /// Dropped.
        Drop,
        /// Let in.
        Accept,
        /// Left to the host's own rules.
        Return
    } "Drop|Accept|Return";
    /// What happens to packets that policy allows.
    AllowAction {
        /// Final.
        Accept,
        /// Left to the host's own rules.
        Return
    } "Accept|Return";
    /// What happens to packets that policy denies.
    DenyAction {
        /// Nothing is said.
        Drop,
        /// The sender is told.
        Reject
    } "Drop|Reject";
    /// What happens to packets for a service address that nobody serves.
    LoopPrevention {
        /// Dropped.
        Drop,
        /// Refused.
        Reject,
        /// They may loop.
        Disabled
    } "Drop|Reject|Disabled";
    /// On, off.
    Toggle {
        /// On.
        Enabled,
        /// Off.
        Disabled
    } "Enabled|Disabled";
    /// Whether nftables is used.
    NftablesMode {
        /// As kube-proxy does.
        Auto,
        /// Yes.
        Enabled,
        /// No.
        Disabled
    } "Auto|Enabled|Disabled";
    /// What is not masqueraded.
    NatExclusions {
        /// Traffic to pools.
        IPPoolsOnly,
        /// And to the cluster's hosts.
        IPPoolsAndHostIPs
    } "IPPoolsOnly|IPPoolsAndHostIPs";
    /// Where routes to other nodes come from.
    RouteSource {
        /// Blocks.
        CalicoIPAM,
        /// Endpoints.
        WorkloadIPs
    } "CalicoIPAM|WorkloadIPs";
    /// Who may send from foreign addresses.
    Spoofing {
        /// Nobody.
        Disabled,
        /// Whoever is annotated so.
        Any
    } "Disabled|Any";
    /// Which routes between nodes the agent programs itself.
    ClusterRoutes {
        /// All.
        Enabled,
        /// None.
        Disabled,
        /// Those into IPIP.
        EnabledIPIPOnly,
        /// Those without encapsulation.
        EnabledNoEncapOnly
    } "Enabled|Disabled|EnabledIPIPOnly|EnabledNoEncapOnly";
}
