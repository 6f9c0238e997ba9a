//! Which host endpoint an interface has.

use crate::{Direction, World};
use model::HostEndpoint;
use net::Family;
use std::net::IpAddr;
use std::sync::Arc;

/// An interface of a node, as far as it can be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interface {
    /// The one towards other machines, or that has the address.
    Uplink(IpAddr),
    /// A tunnel device, by name.
    Tunnel(&'static str),
    /// That of a local workload.
    Workload,
    /// `lo`.
    Loopback,
}

/// A host endpoint that was found, and whether that took an assumption.
pub(crate) struct Bound<'a> {
    pub name: &'a Arc<str>,
    pub endpoint: &'a HostEndpoint,
    pub assumed: bool,
}

impl World {
    /// The host endpoint of an interface: of those by its name, or without a name by its
    /// addresses, the first by name. If there is none, the first of those for `*`: but not for what
    /// goes to local workloads, and never for untracked policy.
    pub(crate) fn bound(
        &self,
        node: &str,
        interface: Interface,
        direction: Direction,
        untracked: bool,
    ) -> Option<Bound<'_>> {
        let mut own = self.hosts.iter().filter(|(_, h)| *h.node == *node);
        let exact = own.find_map(|(name, endpoint)| {
            let assumed = self.is_of(endpoint, node, interface)?;
            Some(Bound {
                name,
                endpoint,
                assumed,
            })
        });
        let skipped = interface == Interface::Workload && direction == Direction::Egress;
        if exact.is_some() || untracked || skipped {
            return exact;
        }
        let is = |h: &HostEndpoint| *h.node == *node && h.interface.as_deref() == Some("*");
        let (name, endpoint) = self.hosts.iter().find(|(_, h)| is(h))?;
        Some(Bound {
            name,
            endpoint,
            assumed: false,
        })
    }

    /// Whether it is of exactly this interface (not by `*`); true inside if that is assumed.
    fn is_of(&self, h: &HostEndpoint, node: &str, interface: Interface) -> Option<bool> {
        let wanted = h.interface.as_deref();
        match interface {
            Interface::Workload => None,
            Interface::Loopback => (wanted == Some("lo")).then_some(false),
            Interface::Tunnel(device) => match wanted {
                Some(name) => (name == device).then_some(false),
                None => {
                    let n = self.nodes.get(node)?;
                    let address = match device {
                        "tunl0" => n.ipip_v4,
                        "vxlan.calico" => n.vxlan_v4,
                        _ => n.vxlan_v6,
                    };
                    address
                        .is_some_and(|a| h.expected_ips.contains(&a))
                        .then_some(false)
                }
            },
            Interface::Uplink(at) => self.is_uplink(h, node, at),
        }
    }

    fn is_uplink(&self, h: &HostEndpoint, node: &str, at: IpAddr) -> Option<bool> {
        let told = self.interfaces.get(node);
        let main = || self.main_address(node, Family::of(at));
        let known = told.and_then(|all| {
            let has = |a: IpAddr| all.iter().find(|(_, addresses)| addresses.contains(&a));
            has(at).or_else(|| has(main()?))
        });
        match (h.interface.as_deref(), known) {
            (Some("*"), _) => None,
            (Some(name), Some((is, _))) => (*name == **is).then_some(false),
            (None, Some((_, has))) => h
                .expected_ips
                .iter()
                .any(|e| has.contains(e))
                .then_some(false),
            (name, None) => {
                // One interface with all the main addresses is taken for granted.
                let own = Family::BOTH
                    .into_iter()
                    .filter_map(|f| self.main_address(node, f));
                let expected = own.chain([at]).any(|a| h.expected_ips.contains(&a));
                let holds = expected || (name.is_some() && h.expected_ips.is_empty());
                holds.then_some(name.is_some())
            }
        }
    }

    /// The node's main address of a family.
    pub(crate) fn main_address(&self, node: &str, family: Family) -> Option<IpAddr> {
        let n = self.nodes.get(node)?;
        let main = match family {
            Family::V4 => n.ipv4,
            Family::V6 => n.ipv6,
        };
        main.map(|a| a.addr)
    }
}
