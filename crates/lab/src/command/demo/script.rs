//! What the walk-through does, step by step.
//!
//! Promises: the steps of `examples/walkthrough/README.md`, with its files.
//!
//! Never: goes on silently where a claim does not hold.

use super::Demo;
use crate::command::{Failure, say};
use crate::protocol::Verdict;
use net::{Cidr, Protocol};
use scenario::Flow;
use scenario::{End, Port};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

/// A file of the walk-through: its path and its text.
pub(super) type File = (&'static str, &'static str);

macro_rules! file {
    ($name:literal) => {
        (
            concat!("examples/walkthrough/", $name),
            include_str!(concat!("../../../../../examples/walkthrough/", $name)),
        )
    };
}

const DEFAULT_POOL: File = file!("01-default-pool.yaml");
const POOL_BY_POD: File = file!("02-pool-by-pod.yaml");
const POOL_BY_NAMESPACE: File = file!("03-pool-by-namespace.yaml");
const FIXED: File = file!("04-fixed-address.yaml");
const TWO: File = file!("04-two-addresses.yaml");
const ACROSS: File = file!("05-across-pools.yaml");
const SHOP: File = file!("06-shop.yaml");
const GLOBAL_POLICY: File = file!("06-global-policy.yaml");
const NETWORK_POLICIES: File = file!("06-network-policies.yaml");
const VXLAN: File = file!("07-vxlan.yaml");
const CROSS_SUBNET: File = file!("07-cross-subnet.yaml");

const QUICK: Duration = Duration::from_millis(500);
const TWO_REFUSED: &str =
    "cannot have more than one IPv4 address for \"cni.projectcalico.org/ipAddrs\" annotation";

/// All steps.
pub(super) fn tell(d: &mut Demo) -> Result<(), Failure> {
    default_pool(d)?;
    pool_by_pod(d)?;
    pool_by_namespace(d)?;
    fixed_address(d)?;
    across_pools(d)?;
    policies(d)?;
    encapsulation(d)
}

fn within(addr: IpAddr, pool: &str) -> bool {
    pool.parse::<Cidr>().is_ok_and(|c| c.contains(addr))
}

fn block(addr: IpAddr, len: u8) -> Option<Cidr> {
    Cidr::new(addr, len)
}

fn default_pool(d: &mut Demo) -> Result<(), Failure> {
    d.title("1. A default pool: each node gives its pods addresses of its own blocks");
    d.apply(DEFAULT_POOL)?;
    let mut blocks = BTreeSet::new();
    for n in 1..=3 {
        let (ip, node) = d.pod("default", &format!("client-{n}"))?;
        say!("  client-{n} on {node}: {ip}");
        blocks.extend(block(ip, 24));
        d.claim(
            within(ip, "10.233.64.0/18"),
            &format!("{ip} is of the default pool"),
        );
    }
    d.claim(
        blocks.len() == 3,
        "three nodes have three blocks of 256 addresses",
    );
    let text = d.cli(&["ipam", "show", "--show-blocks"])?;
    let shown = blocks.iter().all(|b| text.contains(&b.to_string()));
    d.claim(shown, "ipam show has these blocks");
    Ok(())
}

fn pool_by_pod(d: &mut Demo) -> Result<(), Failure> {
    d.title("2. A pool that pods ask for");
    d.apply(POOL_BY_POD)?;
    let (ip, _) = d.pod("default", "chosen")?;
    d.claim(
        within(ip, "10.200.64.0/24"),
        &format!("chosen has {ip}, of my.ippool-1"),
    );
    let mut blocks = BTreeSet::new();
    for n in 1..=3 {
        let (ip, node) = d.pod("default", &format!("web-{n}"))?;
        let block = block(ip, 26).filter(|_| within(ip, "10.200.64.0/24"));
        let shown = block.map_or("no block of the pool".to_owned(), |b| b.to_string());
        say!("  web-{n} on {node}: {ip} of {shown}");
        blocks.extend(block);
    }
    d.claim(
        blocks.len() == 3,
        "three replicas on three nodes: three blocks of 64 addresses",
    );
    Ok(())
}

fn pool_by_namespace(d: &mut Demo) -> Result<(), Failure> {
    d.title("3. A pool for a namespace");
    d.apply(POOL_BY_NAMESPACE)?;
    for name in ["ny", "la"] {
        let (ip, node) = d.pod("america", name)?;
        let text = format!("america/{name} on {node} has {ip}, of america-ippool");
        d.claim(within(ip, "10.200.66.0/24"), &text);
    }
    Ok(())
}

fn fixed_address(d: &mut Demo) -> Result<(), Failure> {
    d.title("4. An address chosen by hand; two of them are refused");
    d.apply(FIXED)?;
    let (ip, _) = d.pod("default", "fixed")?;
    d.claim(
        ip.to_string() == "10.233.65.177",
        &format!("fixed has {ip}"),
    );
    d.apply(TWO)?;
    let status = d.handle().status()?;
    let greedy = status.pods.iter().find(|p| p.name == "greedy");
    let refused = greedy.is_some_and(|p| p.phase == "Pending" && p.reason.contains(TWO_REFUSED));
    d.claim(refused, "the pod's status says why");
    d.delete(TWO)
}

fn across_pools(d: &mut Demo) -> Result<(), Failure> {
    d.title("5. Pods of different pools on different nodes reach each other, as they are");
    d.apply(ACROSS)?;
    let flows = d.flows(&["default", "america"], Port::new(Protocol::TCP, 80))?;
    d.matrix(flows, QUICK)?;
    let (from, to) = ("default/client-1", "america/la");
    d.shell(&format!(
        "manx lab capture --for 500ms & manx lab probe {from} {to} ICMP --ttl"
    ));
    let flow = Flow {
        from: from.parse().map_err(Failure::new)?,
        to: to.parse().map_err(Failure::new)?,
        port: Port::ECHO,
        family: None,
    };
    let mut outcomes = Vec::new();
    let lines = d.capture_during(|| {
        outcomes = super::send(d.handle(), vec![flow], QUICK)?;
        Ok(())
    })?;
    for l in &lines {
        say!("  fabric: {l}");
    }
    let outcome = outcomes.pop();
    let open = outcome.as_ref().is_some_and(|o| o.verdict == Verdict::Open);
    d.claim(open, &format!("{from} reaches {to}"));
    let ttl = outcome.and_then(|o| o.ttl);
    let shown = ttl.map_or("none".to_owned(), |t| t.to_string());
    d.claim(
        ttl == Some(62),
        &format!("two routers on the way: ttl {shown}"),
    );
    let ((a, _), (b, _)) = (d.pod("default", "client-1")?, d.pod("america", "la")?);
    let plain = lines
        .iter()
        .any(|l| l.starts_with(&format!("{a} > {b} ttl")));
    d.claim(
        plain,
        "on the fabric the packets have the pods' own addresses",
    );
    Ok(())
}

const OPEN_TO_ALL: [(&str, &str, &str, bool); 4] = [
    ("shop/front", "shop/db", "5432", true),
    ("partner/web", "shop/db", "5432", true),
    ("ops/admin", "shop/db", "22", true),
    ("host/banned", "shop/front", "80", true),
];

const ONLY_SYSTEM: [(&str, &str, &str, bool); 5] = [
    ("ops/admin", "shop/db", "22", true),
    ("shop/front", "shop/db", "5432", false),
    ("partner/web", "shop/front", "80", false),
    ("host/outside", "shop/front", "80", false),
    ("shop/front", "ops/admin", "443", true),
];

const OPENED: [(&str, &str, &str, bool); 12] = [
    ("shop/front", "shop/db", "5432", true),
    ("shop/front", "shop/db", "5433", false),
    ("shop/cache", "shop/db", "5432", false),
    ("partner/web", "shop/front", "80", true),
    ("partner/web", "shop/front", "81", false),
    ("partner/batch", "shop/cache", "6385", true),
    ("partner/batch", "shop/cache", "6391", false),
    ("partner/web", "shop/cache", "6385", false),
    ("host/outside", "shop/front", "80", true),
    ("host/banned", "shop/front", "80", false),
    ("ops/admin", "shop/cache", "22", true),
    ("default/client-1", "shop/front", "80", false),
];

fn policies(d: &mut Demo) -> Result<(), Failure> {
    d.title("6. Policy: Calico's and Kubernetes'");
    d.apply(SHOP)?;
    let names = ["shop", "partner", "ops"];
    let port = Port::new(Protocol::TCP, 80);
    say!("without a policy:");
    d.matrix(d.flows(&names, port)?, QUICK)?;
    d.expect("everything is open", &OPEN_TO_ALL)?;
    d.apply(GLOBAL_POLICY)?;
    d.expect("only the system's namespaces may enter", &ONLY_SYSTEM)?;
    d.matrix(d.flows(&names, port)?, QUICK)?;
    d.apply(NETWORK_POLICIES)?;
    d.expect(
        "open by pod, namespace, both, address, named port and range",
        &OPENED,
    )?;
    d.matrix(d.flows(&names, port)?, QUICK)?;
    d.delete(NETWORK_POLICIES)?;
    d.expect("without them it is as before", &ONLY_SYSTEM)?;
    d.delete(GLOBAL_POLICY)?;
    d.expect(
        "and without the other everything is open again",
        &OPEN_TO_ALL,
    )
}

fn encapsulation(d: &mut Demo) -> Result<(), Failure> {
    d.title("7. Encapsulation changes while pods talk");
    let before = d.routes("node-1")?;
    let tunnelled =
        |routes: &[String]| routes.iter().any(|r| r.contains("dev vxlan.calico onlink"));
    d.claim(!tunnelled(&before), "no route leads into a tunnel");
    let dead_end = before.iter().any(|r| r.starts_with("blackhole 10.233."));
    d.claim(dead_end, "what no pod has, ends at its block");
    let stream = d.stream("default/client-1", "default/client-2")?;
    d.apply(VXLAN)?;
    // The stream itself, inside the tunnel: to the port that it uses.
    let inside = |l: &str| l.contains("VXLAN vni 4096") && l.contains("> 7000");
    let line = d.seen_on_fabric(inside)?;
    if let Some(line) = &line {
        say!("  fabric: {line}");
    }
    d.claim(line.is_some(), "the pods' packets travel in VXLAN");
    let during = d.routes("node-1")?;
    d.claim(
        tunnelled(&during),
        "routes to other nodes' blocks lead into vxlan.calico",
    );
    d.expect(
        "pods still reach each other",
        &[("default/client-1", "america/la", "80", true)],
    )?;
    d.apply(CROSS_SUBNET)?;
    let plain = |l: &str| !l.contains("VXLAN") && l.contains("> 7000");
    let line = d.seen_on_fabric(plain)?;
    if let Some(line) = &line {
        say!("  fabric: {line}");
    }
    d.claim(
        line.is_some(),
        "on one subnet they travel as they are again",
    );
    let after = d.routes("node-1")?;
    d.claim(!tunnelled(&after), "no route leads into the tunnel");
    let end = End::pod("default", "client-2");
    let report = d.stop(stream)?;
    let (lost, silence) = (report.sent - report.received, report.longest_gap_us / 1000);
    // Two ends cannot switch in one instant, but they must not lose each other for long.
    let text =
        format!("{lost} datagrams to {end} were lost in two switches, in {silence} ms at most");
    d.claim(silence < 250, &text);
    Ok(())
}
