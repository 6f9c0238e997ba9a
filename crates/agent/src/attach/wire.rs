//! The link between a pod and its node.
//!
//! Promises: the pair is made with its far end inside the container's namespace, under its
//! final name; when any step fails nothing of it is left. Blocking, and quick: run it off
//! the loop.
//!
//! Never: knows an address pool, a policy or the store.

use link::{Address, Changes, Sysctl, Veth, VethEnd};
use net::{Cidr, Family, IfIndex, IfName, Mac};
use netlink::NetlinkError;
use netlink::netns::NetNs;
use route::{Hop, Proto, Route, Table};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// MAC of every host end: pods have one neighbour, whichever node they run on.
pub(crate) const HOST_MAC: Mac = Mac([0xee; 6]);
/// What pods send IPv4 through. No interface has it: the host answers by proxy ARP.
pub(crate) const GATEWAY_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1));
/// What pods send IPv6 through: the link-local address that follows from [`HOST_MAC`].
pub(crate) const GATEWAY_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(
    0xfe80, 0, 0, 0, 0xecee, 0xeeff, 0xfeee, 0xeeee,
));

/// What a pod's link should be.
#[derive(Debug, Clone)]
pub(crate) struct Wiring {
    /// Name of the host end.
    pub host: IfName,
    /// Name of the container's end.
    pub container: IfName,
    /// MAC of the container's end; random when absent.
    pub mac: Option<Mac>,
    /// MTU of both ends.
    pub mtu: u32,
    /// Transmit queues of both ends.
    pub queues: u32,
    /// Addresses of the container.
    pub addresses: Vec<IpAddr>,
    /// Destinations that the container reaches through the link.
    pub routes: Vec<Cidr>,
    /// The container may forward.
    pub forwarding: bool,
}

/// What was made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wired {
    /// MAC of the container's end.
    pub mac: Mac,
}

/// A step that failed, and where.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    /// The kernel refused.
    #[error(transparent)]
    Kernel(#[from] NetlinkError),
    /// The interface went away while it was being set up.
    #[error("interface {0} vanished while it was being set up; the runtime will try again")]
    Vanished(IfName),
    /// The container already has an interface of that name that is not ours to replace.
    #[error(
        "container already has an interface {0}; delete the old one first or use another CNI_IFNAME"
    )]
    Taken(IfName),
}

/// Makes the link. The host's name must be free.
///
/// # Errors
/// With nothing left behind.
pub(crate) fn wire(ns: &NetNs, w: &Wiring) -> Result<Wired, WireError> {
    let mut here = link::Handle::open()?;
    let end = |name, mac| VethEnd {
        name,
        mac,
        mtu: Some(w.mtu),
    };
    let veth = Veth {
        here: end(w.host, Some(HOST_MAC)),
        there: end(w.container, w.mac),
        queues: w.queues,
        up: false,
    };
    let mut made = here.create_veth(&veth, Some(ns));
    if made.is_err() && occupied(ns, w.container) {
        // Maybe by the far end of a link that is done with and waits for its removal.
        here.delete_doomed()?;
        made = here.create_veth(&veth, Some(ns));
    }
    made.map_err(|e| match occupied(ns, w.container) {
        true => WireError::Taken(w.container),
        false => e.into(),
    })?;
    let made = raise(&mut here, ns, w);
    if made.is_err() {
        // The error at hand is the one to tell; a pair that stays is replaced by the next attempt.
        let _ = here.delete(w.host);
    }
    made
}

fn occupied(ns: &NetNs, name: IfName) -> bool {
    link::Handle::open_in(ns)
        .and_then(|mut h| h.by_name(name))
        .is_ok_and(|l| l.is_some())
}

fn raise(here: &mut link::Handle, ns: &NetNs, w: &Wiring) -> Result<Wired, WireError> {
    // IPv6's settings must stand before the link is up, so that its link-local address, the
    // pods' gateway, is usable at once.
    let families = families(&w.addresses);
    let settings: Vec<Sysctl> = families
        .iter()
        .flat_map(|f| link::host_end_sysctls(w.host, *f))
        .collect();
    link::sysctl::write(&settings)?;
    let host = here.by_name(w.host)?.ok_or(WireError::Vanished(w.host))?;
    let inside = w.clone();
    let mac = ns.run(move || configure(&inside))??;
    here.set_up(host.index, true)?;
    let _ = inside_up(ns, w)?;
    Ok(Wired { mac })
}

fn families(addresses: &[IpAddr]) -> Vec<Family> {
    Family::BOTH
        .into_iter()
        .filter(|f| addresses.iter().any(|a| Family::of(*a) == *f))
        .collect()
}

/// Runs inside the container's namespace: addresses, neighbours, settings.
fn configure(w: &Wiring) -> Result<Mac, WireError> {
    let mut links = link::Handle::open()?;
    let dev = links
        .by_name(w.container)?
        .ok_or(WireError::Vanished(w.container))?;
    let settings: Vec<Sysctl> = families(&w.addresses)
        .iter()
        .flat_map(|f| link::pod_end_sysctls(w.container, *f, w.forwarding))
        .collect();
    link::sysctl::write(&settings)?;
    let addresses: Vec<Address> = w.addresses.iter().map(|a| Address::host(*a)).collect();
    // The gateway's MAC never changes, so nobody need ask for it: the first packet leaves at once.
    let neighbours: Vec<(IpAddr, Mac)> = families(&w.addresses)
        .iter()
        .map(|f| (gateway(*f), HOST_MAC))
        .collect();
    let change = Changes {
        up: Some(true),
        addresses: &addresses,
        neighbours: &neighbours,
        ..Changes::default()
    };
    links.change(dev.index, &change)?;
    let mut routes = route::Handle::open()?;
    for r in pod_routes(dev.index, &w.routes) {
        routes.install(&r, true)?;
    }
    dev.mac.ok_or(WireError::Vanished(w.container))
}

const fn gateway(family: Family) -> IpAddr {
    match family {
        Family::V4 => GATEWAY_V4,
        Family::V6 => GATEWAY_V6,
    }
}

/// The routes of a pod: its gateway on the link, and everything else through it.
fn pod_routes(dev: IfIndex, wanted: &[Cidr]) -> Vec<Route> {
    let mut out = Vec::new();
    if wanted.iter().any(|c| c.family() == Family::V4) {
        out.push(Route::unicast(
            Table::MAIN,
            Cidr::host(GATEWAY_V4),
            Hop::dev(dev),
            Proto::BOOT,
        ));
    }
    out.extend(wanted.iter().map(|c| {
        Route::unicast(
            Table::MAIN,
            *c,
            Hop::onlink(gateway(c.family()), dev),
            Proto::BOOT,
        )
    }));
    out
}

/// The container's end must still be there, and up.
fn inside_up(ns: &NetNs, w: &Wiring) -> Result<IfIndex, WireError> {
    let found = link::Handle::open_in(ns)?.by_name(w.container)?;
    found
        .filter(|l| l.up)
        .map(|l| l.index)
        .ok_or(WireError::Vanished(w.container))
}

/// What differs between a container's link and what ADD made, for CHECK; empty when nothing does.
///
/// # Errors
/// When the namespace cannot be looked into.
pub(crate) fn differences(
    ns: &NetNs,
    host: IfName,
    container: IfName,
    addresses: &[IpAddr],
    wanted: &[Cidr],
) -> Result<Vec<String>, WireError> {
    let mut out = Vec::new();
    match link::Handle::open()?.by_name(host)? {
        None => out.push(format!("interface {host} is missing on the node")),
        Some(l) if !l.up => out.push(format!("interface {host} is down on the node")),
        Some(_) => {}
    }
    let mut inside = link::Handle::open_in(ns)?;
    let Some(dev) = inside.by_name(container)? else {
        out.push(format!("interface {container} is missing in the container"));
        return Ok(out);
    };
    if !dev.up {
        out.push(format!("interface {container} is down in the container"));
    }
    let have = inside.addresses(Some(dev.index))?;
    let missing = addresses
        .iter()
        .filter(|a| !have.iter().any(|(_, h)| h.addr == **a));
    out.extend(missing.map(|a| format!("address {a} is missing on {container}")));
    let mut routes = route::Handle::open_in(ns)?;
    for family in families(addresses) {
        let have = routes.list(Table::MAIN, family)?;
        let via = |r: &Route| {
            r.hops
                .iter()
                .any(|h| h.gateway == Some(gateway(family)) && h.dev == Some(dev.index))
        };
        let mut missing = wanted
            .iter()
            .filter(|c| c.family() == family)
            .filter(|c| !have.iter().any(|r| r.key.dst == **c && via(r)));
        out.extend(missing.by_ref().map(|c| {
            format!(
                "the route to {c} through {} on {container} is missing",
                gateway(family)
            )
        }));
    }
    Ok(out)
}
