//! The network between the nodes: a segment or a router, and the outside hosts on it.
//!
//! Promises: all of it exists before a node starts; every end has exactly the addresses of
//! the plan; nothing leads out of the lab.
//!
//! Never: carries pod traffic that the product should have encapsulated: it knows the routes
//! to pods only where told (see `router`).

use link::{Address, Changes, Handle, Sysctl, Veth, VethEnd};
use net::{Cidr, Family, IfIndex, IfName};
use netlink::NetlinkError;
use netlink::netns::NetNs;
use route::{Hop, Proto, Route, Table};
use scenario::plan::{HostPlan, Interface, NodePlan, Plan, Spec, Topology};
use std::net::IpAddr;

/// A network namespace with a name.
#[derive(Debug)]
pub(super) struct Place {
    /// As the plan names it.
    pub name: String,
    /// The namespace.
    pub ns: NetNs,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// The finished fabric.
#[derive(Debug)]
pub(super) struct Fabric {
    /// The segment's or router's own namespace.
    pub ns: NetNs,
    /// The nodes, in order.
    pub nodes: Vec<Place>,
    /// The hosts, in order.
    pub hosts: Vec<Place>,
}

const BRIDGE: &str = "br0";
/// The next hop of every outside host, answered by the fabric.
const HOST_GATEWAY: [&str; 2] = ["169.254.1.1", "fe80::1"];

fn name(text: &str) -> IfName {
    text.parse().expect("names of the fabric are short")
}

impl Fabric {
    /// Builds it.
    ///
    /// # Errors
    /// If the kernel refuses a step.
    pub(super) fn build(spec: &Spec, plan: &Plan) -> Result<Self, NetlinkError> {
        let ns = NetNs::new()?;
        ns.run(|| link::sysctl::write(&router_sysctls()))??;
        let mut fabric = Handle::open_in(&ns)?;
        up(&mut fabric, "lo")?;
        let bridge = match spec.topology {
            Topology::Flat => Some(segment(&mut fabric, plan)?),
            Topology::Routed => None,
        };
        let mut nodes = Vec::new();
        for n in &plan.nodes {
            nodes.push(node(&mut fabric, bridge, n)?);
        }
        let mut routes = route::Handle::open_in(&ns)?;
        let mut hosts = Vec::new();
        for (i, h) in plan.hosts.iter().enumerate() {
            hosts.push(host(&mut fabric, &mut routes, i + 1, h)?);
        }
        Ok(Self { ns, nodes, hosts })
    }
}

/// Forwards, accepts answers by any way, and uses IPv6 addresses at once.
fn router_sysctls() -> Vec<Sysctl> {
    let mut all = vec![Sysctl {
        path: "ipv4/ip_forward".to_owned(),
        value: "1".to_owned(),
    }];
    for dev in ["all", "default"] {
        all.push(Sysctl::conf(Family::V4, dev, "rp_filter", 0));
        all.push(Sysctl::conf(Family::V4, dev, "send_redirects", 0));
        all.push(Sysctl::conf(Family::V6, dev, "forwarding", 1));
        all.push(Sysctl::conf(Family::V6, dev, "accept_dad", 0));
    }
    all
}

/// What the kernel's own defaults are, whatever the machine's are: a new namespace copies
/// IPv4 settings from the first.
fn end_sysctls() -> Vec<Sysctl> {
    let mut all = Vec::new();
    for dev in ["all", "default"] {
        all.push(Sysctl::conf(Family::V4, dev, "rp_filter", 0));
        all.push(Sysctl::conf(Family::V6, dev, "accept_dad", 0));
        all.push(Sysctl::conf(Family::V6, dev, "accept_ra", 0));
        all.push(Sysctl::conf(Family::V6, dev, "disable_ipv6", 0));
    }
    all
}

fn up(handle: &mut Handle, dev: &str) -> Result<IfIndex, NetlinkError> {
    let index = handle.index_of(name(dev))?;
    handle.set_up(index, true)?;
    Ok(index)
}

fn segment(fabric: &mut Handle, plan: &Plan) -> Result<IfIndex, NetlinkError> {
    fabric.create_bridge(&VethEnd::named(name(BRIDGE)))?;
    let index = fabric.index_of(name(BRIDGE))?;
    let addresses: Vec<Address> = plan
        .nodes
        .first()
        .map(|n| subnets(&n.gateways))
        .unwrap_or_default();
    fabric.change(
        index,
        &Changes {
            up: Some(true),
            addresses: &addresses,
            ..Changes::default()
        },
    )?;
    Ok(index)
}

fn subnets(list: &[Interface]) -> Vec<Address> {
    list.iter()
        .map(|i| Address::subnet(i.addr, i.len))
        .collect()
}

/// A namespace with `lo` and an `eth0` whose other end is `port` on the fabric.
fn attach(fabric: &mut Handle, port: &str) -> Result<(NetNs, Handle, IfIndex), NetlinkError> {
    let ns = NetNs::new()?;
    ns.run(|| link::sysctl::write(&end_sysctls()))??;
    let veth = Veth {
        here: VethEnd::named(name(port)),
        there: VethEnd::named(name("eth0")),
        queues: 1,
        up: true,
    };
    fabric.create_veth(&veth, Some(&ns))?;
    let mut inside = Handle::open_in(&ns)?;
    up(&mut inside, "lo")?;
    let eth0 = up(&mut inside, "eth0")?;
    Ok((ns, inside, eth0))
}

fn node(
    fabric: &mut Handle,
    bridge: Option<IfIndex>,
    plan: &NodePlan,
) -> Result<Place, NetlinkError> {
    let (ns, mut inside, eth0) = attach(fabric, &plan.name)?;
    let port = fabric.index_of(name(&plan.name))?;
    match bridge {
        Some(bridge) => fabric.set_master(port, Some(bridge))?,
        None => {
            let addresses = subnets(&plan.gateways);
            fabric.change(
                port,
                &Changes {
                    addresses: &addresses,
                    ..Changes::default()
                },
            )?;
        }
    }
    let addresses = subnets(&plan.addresses);
    inside.change(
        eth0,
        &Changes {
            addresses: &addresses,
            ..Changes::default()
        },
    )?;
    let mut routes = route::Handle::open_in(&ns)?;
    for g in &plan.gateways {
        add(
            &mut routes,
            Cidr::any(Family::of(g.addr)),
            Some(g.addr),
            eth0,
        )?;
    }
    let addresses = plan.addresses.iter().map(|i| i.addr).collect();
    Ok(Place {
        name: plan.name.clone(),
        ns,
        addresses,
    })
}

fn host(
    fabric: &mut Handle,
    routes: &mut route::Handle,
    number: usize,
    plan: &HostPlan,
) -> Result<Place, NetlinkError> {
    let port = format!("host{number}");
    let (ns, mut inside, eth0) = attach(fabric, &port)?;
    let port = fabric.index_of(name(&port))?;
    let addresses: Vec<Address> = plan.addresses.iter().map(|a| Address::host(*a)).collect();
    inside.change(
        eth0,
        &Changes {
            addresses: &addresses,
            ..Changes::default()
        },
    )?;
    let mut own = route::Handle::open_in(&ns)?;
    for family in Family::BOTH {
        let gateway: IpAddr = HOST_GATEWAY[usize::from(family == Family::V6)]
            .parse()
            .expect("a constant address");
        let len = if family == Family::V4 { 32 } else { 64 };
        fabric.add_address(port, &Address::subnet(gateway, len))?;
        for addr in plan.addresses.iter().filter(|a| Family::of(**a) == family) {
            add(routes, Cidr::host(*addr), None, port)?;
        }
        if plan.addresses.iter().any(|a| Family::of(*a) == family) {
            add(&mut own, Cidr::any(family), Some(gateway), eth0)?;
        }
    }
    Ok(Place {
        name: plan.name.clone(),
        ns,
        addresses: plan.addresses.clone(),
    })
}

/// Installs a route of the fabric's own: onto the link, or through a neighbour that is taken
/// to be there.
///
/// # Errors
/// The kernel's refusal.
pub(super) fn add(
    routes: &mut route::Handle,
    dst: Cidr,
    via: Option<IpAddr>,
    dev: IfIndex,
) -> Result<(), NetlinkError> {
    routes.install(&route_to(dst, via, dev), true)
}

/// Removes what [`add`] installed.
///
/// # Errors
/// The kernel's refusal.
pub(super) fn remove(
    routes: &mut route::Handle,
    dst: Cidr,
    via: IpAddr,
    dev: IfIndex,
) -> Result<(), NetlinkError> {
    routes.delete(&route_to(dst, Some(via), dev))
}

fn route_to(dst: Cidr, via: Option<IpAddr>, dev: IfIndex) -> Route {
    let hop = via.map_or(Hop::dev(dev), |gateway| Hop::onlink(gateway, dev));
    Route::unicast(Table::MAIN, dst, hop, Proto::STATIC)
}
