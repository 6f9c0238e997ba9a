//! What a node announces of its own, and what it does not believe.

use crate::world::World;
use model::{Encap, Service, ServiceRef};
use net::{Cidr, Family};
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

/// The node label that keeps service addresses from being announced by it.
const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// Who programs routes between nodes into the kernel for pools without encapsulation and with
/// IP in IP: `programClusterRoutes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Programs {
    /// BGP does, for pools without encapsulation.
    pub plain: bool,
    /// BGP does, for IP in IP.
    pub ipip: bool,
}

/// What this node announces of its own; each is a dead end in its kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Own {
    /// Its blocks, host-sized ones left out.
    pub blocks: BTreeSet<Cidr>,
    /// Ranges and addresses of services.
    pub services: BTreeSet<Cidr>,
}

/// Which learned routes reach the kernel's table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// Nothing inside of these does: service addresses, and pools that others program.
    pub refuse: Vec<Cidr>,
    /// What is inside of these does through the IP in IP device.
    pub tunnelled: Vec<Tunnelled>,
}

/// A pool with IP in IP whose routes BGP programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnelled {
    /// The pool.
    pub range: Cidr,
    /// This node's subnet, where next hops inside of it are reached without the tunnel
    /// (`ipipMode: CrossSubnet`).
    pub except: Option<Cidr>,
}

impl World {
    pub(crate) fn is_reflector(&self) -> bool {
        let me = self.nodes.get(&self.me);
        me.is_some_and(|n| n.route_reflector_cluster.is_some())
    }

    /// `programClusterRoutes` of BGPConfiguration.
    pub(crate) fn programs(&self) -> Programs {
        let text = self
            .config()
            .and_then(|c| c.program_cluster_routes.as_deref());
        let (plain, ipip) = match text {
            Some("Disabled") => (false, false),
            Some("EnabledIPIPOnly") => (false, true),
            Some("Enabled") => (true, true),
            _ => (true, false),
        };
        Programs { plain, ipip }
    }

    /// What the node announces of its own.
    pub(crate) fn own(&self) -> Own {
        let whole = |c: &&Cidr| !c.is_host();
        Own {
            blocks: self.blocks.keys().filter(whole).copied().collect(),
            services: self.service_routes(),
        }
    }

    /// What is not believed.
    pub(crate) fn kernel(&self) -> Kernel {
        let programs = self.programs();
        let mut refuse = BTreeSet::new();
        if let Some(c) = self.config() {
            let lists = [
                &c.service_cluster,
                &c.service_external,
                &c.service_load_balancer,
            ];
            refuse.extend(lists.into_iter().flatten().copied());
        }
        let mut tunnelled = Vec::new();
        let here = self.nodes.get(&self.me).and_then(|n| n.ipv4);
        for pool in self.pools.values() {
            let ours = match (pool.vxlan, pool.ipip) {
                (Encap::Never, Encap::Never) => programs.plain,
                (Encap::Never, _) => programs.ipip,
                _ => false,
            };
            if !ours {
                refuse.insert(pool.cidr);
            } else if pool.ipip != Encap::Never {
                let near = here.filter(|_| pool.ipip == Encap::CrossSubnet);
                tunnelled.push(Tunnelled {
                    range: pool.cidr,
                    except: near.map(|a| a.subnet),
                });
            }
        }
        Kernel {
            refuse: refuse.into_iter().collect(),
            tunnelled,
        }
    }

    fn service_routes(&self) -> BTreeSet<Cidr> {
        let mut out = BTreeSet::new();
        let (Some(config), Some(node)) = (self.config(), self.nodes.get(&self.me)) else {
            return out;
        };
        if model::LabelSource::label(&node.labels, EXCLUDED) == Some("true") {
            return out;
        }
        let aggregate = config.aggregate_load_balancer.unwrap_or(true);
        let wide = |c: &&Cidr| !c.is_host();
        out.extend(&config.service_cluster);
        out.extend(config.service_external.iter().filter(wide));
        if aggregate {
            out.extend(config.service_load_balancer.iter().filter(wide));
        }
        let ready = self.ready_services();
        let nothing = [[false; 2]; 2];
        for (key, service) in &self.services {
            let ready = ready.get(key).unwrap_or(&nothing);
            self.service_hosts(service, aggregate, ready, &mut out);
        }
        out
    }

    /// Single addresses of one service.
    fn service_hosts(
        &self,
        service: &Service,
        aggregate: bool,
        [here, anywhere]: &[[bool; 2]; 2],
        out: &mut BTreeSet<Cidr>,
    ) {
        let Some(config) = self.config().filter(|_| !service.cluster_ips.is_empty()) else {
            return;
        };
        let of = |ready: &[bool; 2], ip| match Family::of(ip) {
            Family::V4 => ready[0],
            Family::V6 => ready[1],
        };
        let inside = |ranges: &[Cidr], ip: IpAddr| ranges.iter().any(|r| r.contains(ip));
        let host = |ranges: &[Cidr], ip: IpAddr| ranges.contains(&Cidr::host(ip));
        for &ip in &service.external_ips {
            let told = match service.external_local {
                true => inside(&config.service_external, ip) && of(here, ip),
                false => host(&config.service_external, ip),
            };
            if told {
                out.insert(Cidr::host(ip));
            }
        }
        for &ip in &service.load_balancer_ips {
            let ranges = &config.service_load_balancer;
            let told = match (service.external_local, aggregate) {
                (true, _) => inside(ranges, ip) && of(here, ip),
                (false, true) => host(ranges, ip),
                // Without aggregation each node tells those that it can serve.
                (false, false) => inside(ranges, ip) && of(anywhere, ip),
            };
            if told {
                out.insert(Cidr::host(ip));
            }
        }
        if service.external_local {
            for &ip in &service.cluster_ips {
                if inside(&config.service_cluster, ip) && of(here, ip) {
                    out.insert(Cidr::host(ip));
                }
            }
        }
    }

    /// In which families each service has something ready: here, and anywhere.
    fn ready_services(&self) -> ReadyServices<'_> {
        let mut out = ReadyServices::new();
        for s in self.slices.values() {
            let [here, anywhere] = out.entry(&s.service).or_default();
            for i in 0..2 {
                here[i] |= s.here[i];
                anywhere[i] |= s.anywhere[i];
            }
        }
        out
    }
}

type ReadyServices<'a> = HashMap<&'a ServiceRef, [[bool; 2]; 2]>;
