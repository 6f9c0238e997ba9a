//! How the ends of a connection are named, on the command line and in scenario files.
//!
//! Promises: one parser and one spelling for both.
//!
//! Never: knows whether such an end exists.

use net::Protocol;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// One end.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum End {
    /// `namespace/name`.
    Pod {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// `node/name`.
    Node(String),
    /// `host/name`: a machine outside the cluster.
    Host(String),
    /// `ip/address`: whatever answers there.
    Ip(IpAddr),
    /// `service/namespace/name`.
    Service {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// `*`: every pod but the other end.
    AnyPod,
    /// `fabric`: the segment or router between the nodes, for `exec` and `routes`.
    Fabric,
}

impl End {
    /// A pod.
    pub fn pod(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self::Pod {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl FromStr for End {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let bad = || {
            format!(
                "{s:?} is no end: namespace/pod, node/NAME, host/NAME, ip/ADDRESS, \
                 service/NAMESPACE/NAME or *"
            )
        };
        if s == "*" {
            return Ok(Self::AnyPod);
        }
        let parts: Vec<&str> = s.split('/').collect();
        if parts.iter().any(|p| p.is_empty()) {
            return Err(bad());
        }
        Ok(match parts.as_slice() {
            ["node", name] => Self::Node((*name).to_owned()),
            ["host", name] => Self::Host((*name).to_owned()),
            ["ip", addr] => Self::Ip(
                addr.parse()
                    .map_err(|_| format!("{addr:?} is no IP address"))?,
            ),
            ["service", namespace, name] => Self::Service {
                namespace: (*namespace).to_owned(),
                name: (*name).to_owned(),
            },
            [namespace, name] => Self::pod(*namespace, *name),
            _ => return Err(bad()),
        })
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod { namespace, name } => write!(f, "{namespace}/{name}"),
            Self::Node(name) => write!(f, "node/{name}"),
            Self::Host(name) => write!(f, "host/{name}"),
            Self::Ip(addr) => write!(f, "ip/{addr}"),
            Self::Service { namespace, name } => write!(f, "service/{namespace}/{name}"),
            Self::AnyPod => f.write_str("*"),
            Self::Fabric => f.write_str("fabric"),
        }
    }
}

impl TryFrom<String> for End {
    type Error = String;

    fn try_from(s: String) -> Result<Self, String> {
        if s == "fabric" {
            Ok(Self::Fabric)
        } else {
            s.parse()
        }
    }
}

impl From<End> for String {
    fn from(e: End) -> Self {
        e.to_string()
    }
}

/// What is sent: a protocol, and where it has ports, to which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Port {
    /// TCP, UDP, SCTP or ICMP; ICMP stands for ICMPv6 too.
    pub protocol: Protocol,
    /// 0 for ICMP.
    pub number: u16,
    /// ICMP: type and code to send instead of an echo request.
    pub icmp: Option<(u8, u8)>,
}

impl Port {
    /// An echo request.
    pub const ECHO: Self = Self {
        protocol: Protocol::ICMP,
        number: 0,
        icmp: None,
    };

    /// A port of TCP, UDP or SCTP.
    pub const fn new(protocol: Protocol, number: u16) -> Self {
        Self {
            protocol,
            number,
            icmp: None,
        }
    }
}

impl FromStr for Port {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let bad = || format!("{s:?} is no port: 80, 80/TCP, 53/UDP, 5000/SCTP or ICMP");
        if let Some(rest) = s.strip_prefix("ICMP:").or_else(|| s.strip_prefix("icmp:")) {
            let (t, c) = rest.split_once(':').unwrap_or((rest, "0"));
            let icmp = Some((t.parse().map_err(|_| bad())?, c.parse().map_err(|_| bad())?));
            return Ok(Self { icmp, ..Self::ECHO });
        }
        if s.eq_ignore_ascii_case("icmp") {
            return Ok(Self::ECHO);
        }
        let (number, protocol) = s.split_once('/').unwrap_or((s, "TCP"));
        let protocol: Protocol = protocol.parse().map_err(|_| bad())?;
        let number: u16 = number.parse().map_err(|_| bad())?;
        if !protocol.has_ports() || number == 0 {
            return Err(bad());
        }
        Ok(Self::new(protocol, number))
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.icmp {
            Some((t, c)) => write!(f, "ICMP:{t}:{c}"),
            None if self.protocol == Protocol::ICMP => f.write_str("ICMP"),
            None => write!(f, "{}/{}", self.number, self.protocol),
        }
    }
}

impl TryFrom<String> for Port {
    type Error = String;

    fn try_from(s: String) -> Result<Self, String> {
        s.parse()
    }
}

impl From<Port> for String {
    fn from(p: Port) -> Self {
        p.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_and_ports_round_trip() {
        for s in [
            "shop/front",
            "node/node-1",
            "host/outside",
            "ip/10.0.0.9",
            "ip/fd00::9",
            "service/a/b",
            "*",
        ] {
            assert_eq!(s.parse::<End>().map(|e| e.to_string()), Ok(s.to_owned()));
        }
        for bad in ["", "front", "a/b/c", "ip/x", "a/", "/b"] {
            assert!(bad.parse::<End>().is_err(), "{bad}");
        }
        for s in ["80/TCP", "53/UDP", "5000/SCTP", "ICMP", "ICMP:13:0"] {
            assert_eq!(s.parse::<Port>().map(|p| p.to_string()), Ok(s.to_owned()));
        }
        assert_eq!("80".parse(), Ok(Port::new(Protocol::TCP, 80)));
        for bad in ["", "0", "65536", "80/ICMP", "x/TCP", "80/XYZ"] {
            assert!(bad.parse::<Port>().is_err(), "{bad}");
        }
    }
}
