//! What a lab is made of, and which address is whose.
//!
//! Promises: pure; the same specification gives the same addresses; no two ends share one.
//!
//! Never: does I/O.

use net::{Cidr, Family};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// How the nodes are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Topology {
    /// One segment for all nodes.
    #[default]
    Flat,
    /// One subnet for each node, joined by a router.
    Routed,
}

impl FromStr for Topology {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "flat" => Ok(Self::Flat),
            "routed" => Ok(Self::Routed),
            _ => Err(format!("topology {s:?} is neither flat nor routed")),
        }
    }
}

impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flat => "flat",
            Self::Routed => "routed",
        })
    }
}

/// Which families a lab has; at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FamilySet {
    /// IPv4.
    pub v4: bool,
    /// IPv6.
    pub v6: bool,
}

impl FamilySet {
    /// IPv4 alone.
    pub const V4: Self = Self {
        v4: true,
        v6: false,
    };

    /// From `ipv4`, `ipv6` or both with a comma.
    ///
    /// # Errors
    /// Names the word that is neither.
    pub fn parse(s: &str) -> Result<Self, String> {
        Self::from_names(s.split(','))
    }

    /// From the names.
    ///
    /// # Errors
    /// If there is none, or one that is neither `ipv4` nor `ipv6`.
    pub fn from_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut set = Self {
            v4: false,
            v6: false,
        };
        for name in names {
            match name.trim() {
                "ipv4" => set.v4 = true,
                "ipv6" => set.v6 = true,
                other => return Err(format!("family {other:?} is neither ipv4 nor ipv6")),
            }
        }
        if set.v4 || set.v6 {
            Ok(set)
        } else {
            Err("no family: ipv4, ipv6 or both".to_owned())
        }
    }

    /// Whether `family` is in it.
    pub const fn has(self, family: Family) -> bool {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }

    /// Those in it, IPv4 first.
    pub fn iter(self) -> impl Iterator<Item = Family> {
        Family::BOTH.into_iter().filter(move |f| self.has(*f))
    }
}

/// How packets travel between nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Encapsulation {
    /// As they are.
    #[default]
    None,
    /// In VXLAN.
    #[serde(rename = "VXLAN")]
    Vxlan,
    /// In VXLAN between subnets.
    #[serde(rename = "VXLANCrossSubnet")]
    VxlanCrossSubnet,
    /// In IP.
    #[serde(rename = "IPIP")]
    Ipip,
    /// In IP between subnets.
    #[serde(rename = "IPIPCrossSubnet")]
    IpipCrossSubnet,
}

impl Encapsulation {
    /// `vxlanMode` and `ipipMode` of a pool.
    pub const fn modes(self) -> (&'static str, &'static str) {
        match self {
            Self::None => ("Never", "Never"),
            Self::Vxlan => ("Always", "Never"),
            Self::VxlanCrossSubnet => ("CrossSubnet", "Never"),
            Self::Ipip => ("Never", "Always"),
            Self::IpipCrossSubnet => ("Never", "CrossSubnet"),
        }
    }
}

impl FromStr for Encapsulation {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        Ok(match s {
            "None" => Self::None,
            "VXLAN" => Self::Vxlan,
            "VXLANCrossSubnet" => Self::VxlanCrossSubnet,
            "IPIP" => Self::Ipip,
            "IPIPCrossSubnet" => Self::IpipCrossSubnet,
            _ => {
                return Err(format!(
                    "encapsulation {s:?} is none of None, VXLAN, VXLANCrossSubnet, IPIP, \
                     IPIPCrossSubnet"
                ));
            }
        })
    }
}

/// A machine outside the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostSpec {
    /// Its name.
    pub name: String,
    /// Its addresses, at least one.
    pub addresses: Vec<IpAddr>,
}

impl FromStr for HostSpec {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let (name, list) = s
            .split_once('=')
            .ok_or("a host is NAME=ADDRESS[,ADDRESS]")?;
        let addresses = list
            .split(',')
            .map(|a| a.parse().map_err(|_| format!("{a:?} is no IP address")))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            name: name.to_owned(),
            addresses,
        })
    }
}

/// All that the holder needs to know to build a lab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// Its name.
    pub name: String,
    /// How many nodes.
    pub nodes: u8,
    /// How they are joined.
    pub topology: Topology,
    /// Families of nodes and pods.
    pub families: FamilySet,
    /// Machines outside.
    pub hosts: Vec<HostSpec>,
    /// The lab makes the default pools.
    pub default_pools: bool,
    /// Their encapsulation.
    pub encapsulation: Encapsulation,
    /// The nodes encrypt with WireGuard.
    pub wireguard: bool,
}

/// An address with the prefix it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interface {
    /// The address.
    pub addr: IpAddr,
    /// Length of its prefix.
    pub len: u8,
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}

/// One node's place on the fabric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodePlan {
    /// `node-1` and so on.
    pub name: String,
    /// Its addresses, one a family.
    pub addresses: Vec<Interface>,
    /// The fabric's side of its subnets: its default gateways.
    pub gateways: Vec<Interface>,
}

impl NodePlan {
    /// The node as its agent writes it, with the addresses that it has.
    pub fn object(&self) -> serde_json::Value {
        let mut bgp = serde_json::Map::new();
        for i in &self.addresses {
            let field = match Family::of(i.addr) {
                Family::V4 => "ipv4Address",
                Family::V6 => "ipv6Address",
            };
            bgp.insert(field.to_owned(), i.to_string().into());
        }
        serde_json::json!({
            "apiVersion": api::V3,
            "kind": "Node",
            "metadata": {"name": self.name},
            "spec": {"bgp": bgp},
        })
    }
}

/// One outside host's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPlan {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// The whole address plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Nodes in order.
    pub nodes: Vec<NodePlan>,
    /// Hosts in order.
    pub hosts: Vec<HostPlan>,
}

/// The fabric's IPv4 range; a routed fabric has a /24 of it for each node.
pub const FABRIC_V4: &str = "172.18.0.0/16";
/// The fabric's IPv6 range; a routed fabric has a /64 of it for each node.
pub const FABRIC_V6: &str = "fd00:18::/48";
/// The default pools, the ranges that most documentation uses.
pub const POOL_V4: &str = "10.244.0.0/16";
/// As [`POOL_V4`].
pub const POOL_V6: &str = "fd00:10:244::/64";

/// What the specification asks for that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Two hosts of one name.
    #[error("host {0:?} is there twice")]
    HostTwice(String),
    /// Not a name.
    #[error("host {0:?}: a name is 1 to 30 of a-z, 0-9 and -")]
    HostName(String),
    /// A host without addresses.
    #[error("host {0:?} has no address")]
    NoAddress(String),
    /// An address that something else has.
    #[error("host {host:?}: address {addr} lies in the lab's own range {range}")]
    Taken {
        /// The host.
        host: String,
        /// Its address.
        addr: IpAddr,
        /// Whose it is.
        range: Cidr,
    },
    /// An address of two hosts.
    #[error("address {0} is of two hosts")]
    AddressTwice(IpAddr),
}

impl Spec {
    /// Who has which address.
    ///
    /// # Errors
    /// Names the host that cannot be placed.
    pub fn plan(&self) -> Result<Plan, PlanError> {
        let nodes = (1..=self.nodes).map(|n| self.node(n)).collect();
        let mut hosts: Vec<HostPlan> = Vec::new();
        for h in &self.hosts {
            hosts.push(place(h, &hosts)?);
        }
        Ok(Plan { nodes, hosts })
    }

    fn node(&self, n: u8) -> NodePlan {
        let mut plan = NodePlan {
            name: format!("node-{n}"),
            addresses: Vec::new(),
            gateways: Vec::new(),
        };
        for family in self.families.iter() {
            let (whole, len) = range(family);
            // A flat fabric is subnet 0; node n has subnet n of a routed one.
            let (subnet, host) = match self.topology {
                Topology::Flat => (0, 10 + u128::from(n)),
                Topology::Routed => (u128::from(n), 10),
            };
            let subnet = whole
                .subnet(len, subnet)
                .expect("the range holds 256 of them");
            let at = |i| Interface {
                addr: subnet.nth(i).expect("below 254"),
                len,
            };
            plan.addresses.push(at(host));
            plan.gateways.push(at(1));
        }
        plan
    }
}

/// The fabric's range of a family, and the length of its subnets.
fn range(family: Family) -> (Cidr, u8) {
    let (text, len) = match family {
        Family::V4 => (FABRIC_V4, 24),
        Family::V6 => (FABRIC_V6, 64),
    };
    (text.parse().expect("a constant prefix"), len)
}

fn place(host: &HostSpec, others: &[HostPlan]) -> Result<HostPlan, PlanError> {
    let name = &host.name;
    let fine = (1..=30).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !fine {
        return Err(PlanError::HostName(name.clone()));
    }
    if others.iter().any(|o| o.name == *name) {
        return Err(PlanError::HostTwice(name.clone()));
    }
    if host.addresses.is_empty() {
        return Err(PlanError::NoAddress(name.clone()));
    }
    for &addr in &host.addresses {
        let range = range(Family::of(addr)).0;
        if range.contains(addr) {
            return Err(PlanError::Taken {
                host: name.clone(),
                addr,
                range,
            });
        }
        if others.iter().any(|o| o.addresses.contains(&addr)) {
            return Err(PlanError::AddressTwice(addr));
        }
    }
    Ok(HostPlan {
        name: name.clone(),
        addresses: host.addresses.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(topology: Topology, families: FamilySet) -> Spec {
        Spec {
            name: "t".to_owned(),
            nodes: 3,
            topology,
            families,
            hosts: Vec::new(),
            default_pools: true,
            encapsulation: Encapsulation::None,
            wireguard: false,
        }
    }

    #[test]
    fn flat_nodes_share_a_subnet_and_routed_ones_do_not() {
        let both = FamilySet { v4: true, v6: true };
        let flat = spec(Topology::Flat, both).plan().expect("plan");
        let text: Vec<_> = flat.nodes[1]
            .addresses
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(text, ["172.18.0.12/24", "fd00:18::c/64"]);
        assert_eq!(flat.nodes[0].gateways, flat.nodes[2].gateways);
        let routed = spec(Topology::Routed, both).plan().expect("plan");
        let text: Vec<_> = routed.nodes[1]
            .addresses
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(text, ["172.18.2.10/24", "fd00:18:0:2::a/64"]);
        let subnet = |n: usize| {
            let i = routed.nodes[n].addresses[0];
            Cidr::new(i.addr, i.len)
        };
        assert_ne!(subnet(0), subnet(1));
    }

    #[test]
    fn a_hundred_nodes_have_a_hundred_addresses() {
        for topology in [Topology::Flat, Topology::Routed] {
            let plan = Spec {
                nodes: 100,
                ..spec(topology, FamilySet::V4)
            }
            .plan()
            .expect("plan");
            let mut all: Vec<_> = plan
                .nodes
                .iter()
                .flat_map(|n| n.addresses.iter().chain(&n.gateways))
                .map(|i| i.addr)
                .collect();
            all.sort();
            all.dedup();
            let gateways = if topology == Topology::Flat { 1 } else { 100 };
            assert_eq!(all.len(), 100 + gateways);
        }
    }

    #[test]
    fn hosts_that_cannot_be_placed_are_named() {
        let with = |hosts: &[&str]| {
            let hosts = hosts.iter().map(|h| h.parse().expect("host")).collect();
            Spec {
                hosts,
                ..spec(Topology::Flat, FamilySet::V4)
            }
            .plan()
            .map_err(|e| e.to_string())
        };
        assert!(with(&["a=203.0.113.7", "b=203.0.113.8,fd00:99::1"]).is_ok());
        assert_eq!(
            with(&["a=203.0.113.7", "a=203.0.113.8"]),
            Err("host \"a\" is there twice".into())
        );
        assert_eq!(
            with(&["a=172.18.0.11"]),
            Err("host \"a\": address 172.18.0.11 lies in the lab's own range 172.18.0.0/16".into())
        );
        assert!(with(&["a=203.0.113.7", "b=203.0.113.7"]).is_err());
        assert!(with(&["A/..=203.0.113.7"]).is_err());
        assert!("a=nonsense".parse::<HostSpec>().is_err());
    }

    #[test]
    fn families_by_name() {
        assert_eq!(
            FamilySet::parse("ipv4,ipv6"),
            Ok(FamilySet { v4: true, v6: true })
        );
        assert!(FamilySet::parse("").is_err());
        assert!(FamilySet::parse("ipv5").is_err());
    }
}
