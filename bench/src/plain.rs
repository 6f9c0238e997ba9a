//! The peer of Manx's data path: the same pods, links, routes and settings, without any rules.
//!
//! Promises: what a pod's link is made of is what the agent makes: /32 address, permanent gateway
//! neighbour, proxy ARP, fixed MAC, the same MTU; no table of nftables exists in it, but for the one
//! that the caller wants.
//!
//! Never: runs an agent.

use crate::cluster::{Pod, Sandbox, Segment, ifname, up};
use anyhow::{Context, Result, ensure};
use link::{Address, Changes, Sysctl, Veth, VethEnd};
use net::{Cidr, Family, IfIndex, Mac};
use netlink::netns::NetNs;
use route::{Hop, Proto, Route, Table};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Stdio;

const HOST_MAC: Mac = Mac([0xee; 6]);
const GATEWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1));

/// Two nodes, with two pods on the first and one on the second.
#[derive(Debug)]
pub(crate) struct Plain {
    /// The pods: client, its neighbour, and the one across.
    pub pods: [Pod; 3],
    _nodes: [NetNs; 2],
    _segment: Segment,
}

impl Plain {
    /// Makes it; pods' links have the given MTU. With `rules`, both nodes have these, in the language
    /// of `nft`, which is asked to load them.
    ///
    /// # Errors
    /// As the kernel or `nft` says.
    pub(crate) fn new(name: &str, mtu: u32, rules: Option<&str>) -> Result<Self> {
        let mut segment = Segment::new()?;
        let (one, one_addr) = segment.attach()?;
        let (two, two_addr) = segment.attach()?;
        for ns in [&one, &two] {
            let forward = Sysctl {
                path: "ipv4/ip_forward".to_owned(),
                value: "1".to_owned(),
            };
            ns.run(|| link::sysctl::write(&[forward]))??;
            if let Some(rules) = rules {
                load(ns, rules)?;
            }
        }
        let at = |n: u8| Ipv4Addr::new(10, 99, n, 2);
        let pods = [
            pod(&one, &format!("{name}-0"), at(0), mtu)?,
            pod(&one, &format!("{name}-1"), at(1), mtu)?,
            pod(&two, &format!("{name}-2"), at(2), mtu)?,
        ];
        for n in 0..2 {
            across(&two, at(n), one_addr)?;
        }
        across(&one, at(2), two_addr)?;
        Ok(Self {
            pods,
            _nodes: [one, two],
            _segment: segment,
        })
    }
}

fn load(ns: &NetNs, rules: &str) -> Result<()> {
    let mut nft = ns
        .command("nft")?
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .spawn()?;
    nft.stdin
        .take()
        .context("nft reads")?
        .write_all(rules.as_bytes())?;
    let end = nft.wait()?;
    ensure!(end.success(), "nft: {end}");
    Ok(())
}

fn unicast(dst: Cidr, hop: Hop) -> Route {
    Route::unicast(Table::MAIN, dst, hop, Proto::STATIC)
}

fn across(node: &NetNs, to: Ipv4Addr, via: Ipv4Addr) -> Result<()> {
    let eth0 = link::Handle::open_in(node)?.index_of(ifname("eth0"))?;
    // The node's agent routes whole blocks.
    let block = Cidr::new(IpAddr::V4(to), 26).unwrap_or(Cidr::host(IpAddr::V4(to)));
    let mut routes = route::Handle::open_in(node)?;
    routes.install(&unicast(block, Hop::onlink(IpAddr::V4(via), eth0)), true)?;
    Ok(())
}

fn pod(node: &NetNs, name: &str, addr: Ipv4Addr, mtu: u32) -> Result<Pod> {
    let sandbox = Sandbox::new(name)?;
    let host = ifname(&format!("cali{name}"));
    let mut links = link::Handle::open_in(node)?;
    let end = |name, mac| VethEnd {
        name,
        mac,
        mtu: Some(mtu),
    };
    let veth = Veth {
        here: end(host, Some(HOST_MAC)),
        there: end(ifname("eth0"), None),
        queues: 1,
        up: false,
    };
    links.create_veth(&veth, Some(&sandbox.ns))?;
    let settings = link::host_end_sysctls(host, Family::V4);
    node.run(|| link::sysctl::write(&settings))??;
    inside(&sandbox.ns, addr)?;
    let dev = up(&mut links, host.as_str())?;
    let mut routes = route::Handle::open_in(node)?;
    routes.install(&unicast(Cidr::host(IpAddr::V4(addr)), Hop::dev(dev)), true)?;
    Ok(Pod { sandbox, addr })
}

fn inside(ns: &NetNs, addr: Ipv4Addr) -> Result<()> {
    let mut links = link::Handle::open_in(ns)?;
    let dev: IfIndex = links.index_of(ifname("eth0"))?;
    let addresses = [Address::host(IpAddr::V4(addr))];
    let neighbours = [(GATEWAY, HOST_MAC)];
    let all = Changes {
        up: Some(true),
        addresses: &addresses,
        neighbours: &neighbours,
        ..Changes::default()
    };
    links.change(dev, &all)?;
    let mut routes = route::Handle::open_in(ns)?;
    routes.install(&unicast(Cidr::host(GATEWAY), Hop::dev(dev)), true)?;
    routes.install(
        &unicast(Cidr::any(Family::V4), Hop::onlink(GATEWAY, dev)),
        true,
    )?;
    Ok(())
}
