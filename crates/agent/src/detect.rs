//! Which of the node's addresses is its own: `IP_AUTODETECTION_METHOD`.
//!
//! Promises: the choice is a function of the interfaces as given; when nothing fits, the
//! error names the method, each interface that was considered and why it was not taken.
//!
//! Never: reads an interface itself.

use daemon::node::Detection;
use model::NodeAddress;
use net::{Cidr, Family};
use regex_lite::Regex;
use std::net::IpAddr;

/// An interface with its addresses, as far as detection looks at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Interface {
    /// Its name.
    pub name: String,
    /// Whether it is up.
    pub up: bool,
    /// Global addresses with their prefix length.
    pub addresses: Vec<(IpAddr, u8)>,
}

/// Interfaces that belong to container systems, not to the node.
const EXCLUDED: &str = "^(docker|cbr|dummy|podman|virbr|lxcbr|veth|lo|cali|tunl|flannel|kube-ipvs|cni|vxlan|wireguard|br-|nodelocaldns)";

/// Why no address could be chosen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DetectError {
    /// A pattern that is none.
    #[error("IP autodetection: {pattern:?} is no pattern of interface names: {reason}")]
    Pattern {
        /// As given.
        pattern: String,
        /// What is wrong.
        reason: String,
    },
    /// No interface fits.
    #[error("no {family} address found by {method:?}; looked at: {seen}")]
    NothingFits {
        /// The family.
        family: Family,
        /// The method.
        method: Detection,
        /// Each interface with its addresses.
        seen: String,
    },
}

/// Chooses an address. `source_towards` answers for [`Method::CanReach`] which of our addresses
/// the kernel would send from, `internal_ips` are the Kubernetes node's.
///
/// # Errors
/// When nothing fits.
pub(crate) fn choose(
    method: &Detection,
    family: Family,
    interfaces: &[Interface],
    source_towards: impl Fn(&str) -> Option<IpAddr>,
    internal_ips: &[IpAddr],
) -> Result<NodeAddress, DetectError> {
    let excluded = pattern(EXCLUDED)?;
    let usable = |i: &&Interface| i.up;
    let own = |i: &&Interface| i.up && !excluded.is_match(&i.name);
    let first = |i: &Interface| i.addresses.iter().copied().find(|(a, _)| fits(family, *a));
    let any = |i: &Interface| matches_any(i, internal_ips, family);
    let found = match method {
        Detection::FirstFound => interfaces.iter().filter(own).find_map(first),
        Detection::Interface(patterns) => patterns
            .iter()
            .map(|p| pattern(p))
            .collect::<Result<Vec<_>, _>>()?
            .iter()
            .find_map(|re| {
                interfaces
                    .iter()
                    .filter(usable)
                    .filter(|i| re.is_match(&i.name))
                    .find_map(first)
            }),
        Detection::SkipInterface(patterns) => {
            let skip = patterns
                .iter()
                .map(|p| pattern(p))
                .collect::<Result<Vec<_>, _>>()?;
            interfaces
                .iter()
                .filter(own)
                .filter(|i| !skip.iter().any(|re| re.is_match(&i.name)))
                .find_map(first)
        }
        Detection::Cidr(cidrs) => interfaces
            .iter()
            .filter(usable)
            .flat_map(|i| i.addresses.iter().copied())
            .find(|(a, _)| fits(family, *a) && cidrs.iter().any(|c| c.contains(*a))),
        Detection::CanReach(to) => source_towards(to)
            .filter(|a| fits(family, *a))
            .map(|a| (a, prefix_of(interfaces, a))),
        Detection::KubernetesInternalIp => interfaces.iter().find_map(any).or_else(|| {
            internal_ips
                .iter()
                .find(|a| fits(family, **a))
                .map(|a| (*a, family.bits()))
        }),
    };
    found
        .map(|(addr, len)| node_address(addr, len))
        .ok_or_else(|| DetectError::NothingFits {
            family,
            method: method.clone(),
            seen: describe(interfaces),
        })
}

fn pattern(text: &str) -> Result<Regex, DetectError> {
    Regex::new(text).map_err(|e| DetectError::Pattern {
        pattern: text.to_owned(),
        reason: e.to_string(),
    })
}

fn matches_any(i: &Interface, wanted: &[IpAddr], family: Family) -> Option<(IpAddr, u8)> {
    i.addresses
        .iter()
        .copied()
        .find(|(a, _)| fits(family, *a) && wanted.contains(a))
}

fn fits(family: Family, a: IpAddr) -> bool {
    let local = match a {
        IpAddr::V4(a) => a.is_loopback() || a.is_link_local() || a.is_unspecified(),
        IpAddr::V6(a) => a.is_loopback() || a.is_unicast_link_local() || a.is_unspecified(),
    };
    Family::of(a) == family && !local
}

fn prefix_of(interfaces: &[Interface], addr: IpAddr) -> u8 {
    let all = interfaces.iter().flat_map(|i| &i.addresses);
    all.copied()
        .find(|(a, _)| *a == addr)
        .map_or(Family::of(addr).bits(), |(_, l)| l)
}

/// An address with its subnet.
pub(crate) fn node_address(addr: IpAddr, len: u8) -> NodeAddress {
    NodeAddress {
        addr,
        subnet: Cidr::new(addr, len).unwrap_or(Cidr::host(addr)),
    }
}

fn describe(interfaces: &[Interface]) -> String {
    let one = |i: &Interface| {
        let addrs: Vec<String> = i
            .addresses
            .iter()
            .map(|(a, l)| format!("{a}/{l}"))
            .collect();
        format!(
            "{} ({}, {})",
            i.name,
            if i.up { "up" } else { "down" },
            if addrs.is_empty() {
                "no address".into()
            } else {
                addrs.join(" ")
            }
        )
    };
    if interfaces.is_empty() {
        "no interface at all".into()
    } else {
        interfaces.iter().map(one).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ifs() -> Vec<Interface> {
        let i = |name: &str, up, addrs: &[(&str, u8)]| Interface {
            name: name.into(),
            up,
            addresses: addrs
                .iter()
                .map(|(a, l)| (a.parse().expect("test address"), *l))
                .collect(),
        };
        vec![
            i("lo", true, &[("127.0.0.1", 8)]),
            i("docker0", true, &[("172.17.0.1", 16)]),
            i("eth9", false, &[("10.9.0.1", 24)]),
            i(
                "eth0",
                true,
                &[("169.254.3.4", 16), ("10.0.0.5", 24), ("fd00::5", 64)],
            ),
            i("eth1", true, &[("192.168.7.5", 20)]),
        ]
    }

    fn pick(text: &str, family: Family) -> Result<String, String> {
        let m = Detection::parse(text)?;
        let towards = |_: &str| Some("192.168.7.5".parse().expect("test address"));
        choose(
            &m,
            family,
            &ifs(),
            towards,
            &["10.0.0.5".parse().expect("test address")],
        )
        .map(|a| format!("{} {}", a.addr, a.subnet))
        .map_err(|e| e.to_string())
    }

    #[test]
    fn each_method_finds_its_address() {
        for (text, family, want) in [
            ("first-found", Family::V4, "10.0.0.5 10.0.0.0/24"),
            ("", Family::V6, "fd00::5 fd00::/64"),
            (
                "interface=eth9,eth1",
                Family::V4,
                "192.168.7.5 192.168.0.0/20",
            ),
            ("interface=docker.*", Family::V4, "172.17.0.1 172.17.0.0/16"),
            (
                "skip-interface=eth0",
                Family::V4,
                "192.168.7.5 192.168.0.0/20",
            ),
            ("cidr=172.16.0.0/12", Family::V4, "172.17.0.1 172.17.0.0/16"),
            (
                "can-reach=8.8.8.8",
                Family::V4,
                "192.168.7.5 192.168.0.0/20",
            ),
            ("kubernetes-internal-ip", Family::V4, "10.0.0.5 10.0.0.0/24"),
        ] {
            assert_eq!(pick(text, family).as_deref(), Ok(want), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_found_or_read_is_explained() {
        let e = pick("interface=bond0", Family::V4).expect_err("no such interface");
        assert!(
            e.contains("bond0") && e.contains("eth9 (down, 10.9.0.1/24)"),
            "{e}"
        );
        assert!(
            pick("interface=(", Family::V4)
                .expect_err("bad pattern")
                .contains("is no pattern")
        );
    }
}
