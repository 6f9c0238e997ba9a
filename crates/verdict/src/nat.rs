//! Addresses that change on the way: services, floating addresses, outgoing NAT, tunnels.

use crate::{End, Flow, Target, World};
use model::{Encap, EndpointSlice, IpPool, Service, ServicePort, ServiceRef};
use net::{Cidr, Family};
use std::net::IpAddr;
use std::sync::Arc;

/// What becomes of the destination.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Leg {
    /// As the sender addresses it.
    pub original: (IpAddr, u16),
    /// As the receiver gets it.
    pub destination: (IpAddr, u16),
    /// On which node it is rewritten; `None`: nowhere, or outside.
    pub rewritten_at: Option<Arc<str>>,
    /// Where it comes in from outside.
    pub enters_at: Option<Arc<str>>,
    /// The sender becomes the node that it came in at, so that answers come back there.
    pub masquerade: bool,
}

/// All that may become of it.
pub(crate) enum Legs {
    /// One, or one for each backend.
    To(Vec<Leg>),
    /// Nothing stands behind the service.
    NoBackend(ServiceRef),
    /// It cannot be sent.
    Nowhere(String),
}

/// How a client came to a service.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Cluster,
    External,
    NodePort,
}

impl World {
    /// Where the flow may go.
    pub(crate) fn legs(&self, flow: &Flow) -> Legs {
        let start = match &flow.from {
            End::Workload(k) => Some(k.node.clone()),
            End::Node(n) => Some(n.clone()),
            End::Outside => None,
        };
        let to = match &flow.to {
            Target::Address(a) => (*a, flow.port),
            Target::Service(s) => {
                let Some(service) = self.services.get(s) else {
                    return Legs::Nowhere(format!(
                        "there is no service {}/{}",
                        s.namespace, s.name
                    ));
                };
                let of_family = |a: &&IpAddr| Family::of(**a) == flow.family();
                match service.cluster_ips.iter().find(of_family) {
                    Some(a) => (*a, flow.port),
                    None => return self.headless(s, flow),
                }
            }
        };
        if Family::of(to.0) != flow.family() {
            return Legs::Nowhere(format!("{} is not of the family of {}", to.0, flow.source));
        }
        if let Some(original) = flow.original {
            let at = start
                .or_else(|| self.node_behind(original.0))
                .or_else(|| self.node_behind(to.0));
            return Legs::To(vec![Leg {
                original,
                destination: to,
                rewritten_at: at.clone(),
                enters_at: at,
                masquerade: false,
            }]);
        }
        if let Some(found) = self.service_at(to, flow) {
            return self.backends(found, to, flow, start.as_ref());
        }
        if let Some((inside, node)) = self.floating(to.0) {
            return Legs::To(vec![Leg {
                original: to,
                destination: (inside, to.1),
                rewritten_at: Some(node.clone()),
                enters_at: Some(node),
                masquerade: false,
            }]);
        }
        Legs::To(vec![self.straight(to)])
    }

    fn straight(&self, to: (IpAddr, u16)) -> Leg {
        Leg {
            original: to,
            destination: to,
            rewritten_at: None,
            enters_at: self.node_behind(to.0),
            masquerade: false,
        }
    }

    /// The node that an address leads to: its own, or that of the workload.
    pub(crate) fn node_behind(&self, at: IpAddr) -> Option<Arc<str>> {
        match self.holder(at) {
            End::Workload(k) => Some(k.node),
            End::Node(n) => Some(n),
            End::Outside => None,
        }
    }

    fn service_at(
        &self,
        (at, port): (IpAddr, u16),
        flow: &Flow,
    ) -> Option<(&ServiceRef, &Service, &ServicePort, Way)> {
        let is_node = matches!(self.holder(at), End::Node(_));
        self.services.iter().find_map(|(key, s)| {
            let way = if s.cluster_ips.contains(&at) {
                Way::Cluster
            } else if s.external_ips.contains(&at) || s.load_balancer_ips.contains(&at) {
                Way::External
            } else if is_node {
                Way::NodePort
            } else {
                return None;
            };
            let wanted = |p: &&ServicePort| match way {
                Way::NodePort => p.node_port == Some(port),
                Way::Cluster | Way::External => p.port == port,
            };
            let mut ports = s.ports.iter().filter(|p| p.protocol == flow.protocol);
            ports.find(wanted).map(|p| (key, s, p, way))
        })
    }

    fn slices_of<'a>(&'a self, service: &'a ServiceRef) -> impl Iterator<Item = &'a EndpointSlice> {
        self.slices.values().filter(move |s| s.service == *service)
    }

    /// A headless service is the addresses behind it, with no translation.
    fn headless(&self, service: &ServiceRef, flow: &Flow) -> Legs {
        let ready = self
            .slices_of(service)
            .flat_map(|s| &s.endpoints)
            .filter(|e| e.ready);
        let addresses = ready.flat_map(|e| &e.addresses).copied();
        let own = addresses.filter(|a| Family::of(*a) == flow.family());
        let legs: Vec<Leg> = own.map(|a| self.straight((a, flow.port))).collect();
        match legs.is_empty() {
            true => Legs::NoBackend(service.clone()),
            false => Legs::To(legs),
        }
    }

    /// The ready endpoints behind a port. With a policy of Local, those on the node where the
    /// address is translated.
    fn backends(
        &self,
        (key, service, port, way): (&ServiceRef, &Service, &ServicePort, Way),
        original: (IpAddr, u16),
        flow: &Flow,
        start: Option<&Arc<str>>,
    ) -> Legs {
        let outside = start.is_none();
        // Those inside reach external addresses as they reach the cluster's.
        let local = match way {
            Way::Cluster => service.internal_local,
            Way::External | Way::NodePort => service.external_local && outside,
        };
        let entered = match way {
            Way::NodePort => self.node_behind(original.0),
            Way::Cluster | Way::External => None,
        };
        let mut legs = Vec::new();
        for slice in self.slices_of(key) {
            let of_port =
                |p: &&model::SlicePort| p.name == port.name && p.protocol == port.protocol;
            let Some(number) = slice.ports.iter().find(of_port).and_then(|p| p.port) else {
                continue;
            };
            for endpoint in slice.endpoints.iter().filter(|e| e.ready) {
                for a in endpoint
                    .addresses
                    .iter()
                    .filter(|a| Family::of(**a) == flow.family())
                {
                    let home = endpoint.node.clone().or_else(|| self.node_behind(*a));
                    // A node port is translated where the packet is, from inside too: a pod
                    // that addresses another node's port sends the packet there.
                    let own = start.filter(|_| way != Way::NodePort).or(entered.as_ref());
                    let at = own.cloned().or_else(|| home.clone());
                    if local && home != at {
                        continue;
                    }
                    legs.push(Leg {
                        original,
                        destination: (*a, number),
                        rewritten_at: at.clone(),
                        enters_at: at,
                        masquerade: outside && !local
                            || way == Way::NodePort
                                && start.is_some_and(|s| Some(s) != entered.as_ref()),
                    });
                }
            }
        }
        match legs.is_empty() {
            true => Legs::NoBackend(key.clone()),
            false => Legs::To(legs),
        }
    }

    /// The inside of a floating address and the node of its workload; of several, the
    /// first by key. Only where the node has floating addresses enabled.
    fn floating(&self, at: IpAddr) -> Option<(IpAddr, Arc<str>)> {
        let enabled = self
            .workloads
            .iter()
            .filter(|(k, _)| self.settings(&k.node).floating());
        enabled.into_iter().find_map(|(k, w)| {
            let (inside, _) = w.nats.iter().find(|(_, outside)| *outside == at)?;
            Some((*inside, k.node.clone()))
        })
    }

    /// Whether it is an address that services are reached by.
    pub(crate) fn service_like(&self, at: IpAddr) -> bool {
        let mut all = self.services.values().flat_map(|s| {
            s.cluster_ips
                .iter()
                .chain(&s.external_ips)
                .chain(&s.load_balancer_ips)
        });
        all.any(|a| *a == at) || matches!(self.holder(at), End::Node(_))
    }

    /// The pool that an address lies in.
    pub(crate) fn pool_of(&self, at: IpAddr) -> Option<&IpPool> {
        let pools = self.pools.values().filter(|p| p.cidr.contains(at));
        pools.max_by_key(|p| p.cidr.len())
    }

    /// `natOutgoing`: what the source becomes when a workload's packet leaves the pools.
    pub(crate) fn nat_outgoing(&self, node: &str, source: IpAddr, to: IpAddr) -> Option<IpAddr> {
        let settings = self.settings(node);
        let family = Family::of(source);
        let masqueraded = self
            .pools
            .values()
            .any(|p| p.nat_outgoing && p.cidr.contains(source));
        let for_workloads = |p: &IpPool| p.uses.workload || p.uses.tunnel;
        let inside = self
            .pools
            .values()
            .any(|p| for_workloads(p) && p.cidr.contains(to));
        let is_node = || matches!(self.holder(to), End::Node(_));
        if !masqueraded || inside || (settings.nat_spares_hosts() && is_node()) {
            return None;
        }
        let own = settings.nat_address().filter(|a| Family::of(*a) == family);
        own.or_else(|| self.node_addresses(node, family).next())
    }

    /// The tunnel device by which a node reaches an address of another, and the device's own
    /// address. Only addresses of workloads, of a pool with encapsulation.
    pub(crate) fn tunnel(&self, from: &str, to: &str, at: IpAddr) -> Option<Tunnel> {
        let pool = self.pool_of(at)?;
        if !matches!(self.holder(at), End::Workload(_)) {
            return None;
        }
        let family = Family::of(at);
        let needed = |e: Encap| match e {
            Encap::Never => false,
            Encap::Always => true,
            Encap::CrossSubnet => !self.same_subnet(from, to, family),
        };
        let (no_vxlan, no_ipip) = self.settings(from).encapsulation_off();
        let node = self.nodes.get(from);
        if needed(pool.vxlan) && !no_vxlan {
            return Some(match family {
                Family::V4 => Tunnel {
                    device: "vxlan.calico",
                    address: node?.vxlan_v4,
                    vxlan: true,
                },
                Family::V6 => Tunnel {
                    device: "vxlan-v6.calico",
                    address: node?.vxlan_v6,
                    vxlan: true,
                },
            });
        }
        (needed(pool.ipip) && !no_ipip && family == Family::V4).then(|| Tunnel {
            device: "tunl0",
            address: node.and_then(|n| n.ipip_v4),
            vxlan: false,
        })
    }

    fn same_subnet(&self, a: &str, b: &str, family: Family) -> bool {
        let main = |name: &str| {
            let node = self.nodes.get(name)?;
            match family {
                Family::V4 => node.ipv4,
                Family::V6 => node.ipv6,
            }
        };
        match (main(a), main(b)) {
            (Some(a), Some(b)) => a.subnet == b.subnet || a.subnet.contains(b.addr),
            _ => false,
        }
    }

    /// The range of services that an address lies in: `serviceClusterIPs` and the like of the
    /// default BGPConfiguration.
    pub(crate) fn service_range(&self, at: IpAddr) -> Option<Cidr> {
        let config = self.bgp.get("default")?;
        let all = [
            &config.service_cluster,
            &config.service_external,
            &config.service_load_balancer,
        ];
        all.into_iter().flatten().find(|c| c.contains(at)).copied()
    }
}

/// A tunnel device.
pub(crate) struct Tunnel {
    pub device: &'static str,
    /// What the host's own packets have as source.
    pub address: Option<IpAddr>,
    pub vxlan: bool,
}
