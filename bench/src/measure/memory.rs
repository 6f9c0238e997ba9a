//! The agent's memory in a large cluster.
//!
//! Promises: pods of the node are attached by the plugin; what is elsewhere is in the store as other
//! nodes would have left it; the agent is looked at in the life in which it attached the pods and in
//! the next, which begins with everything there.

use crate::Setting;
use crate::cluster::{Cluster, Pod};
use crate::measure::limit_row;
use crate::objects;
use crate::report::Section;
use crate::say;
use crate::stats::{Samples, number};
use crate::store::Store;
use anyhow::Result;
use api::ResourceKind;
use serde_json::json;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

const ENDPOINTS: u32 = 50_000;
const LOCAL: u32 = 100;
const POLICIES: u32 = 1000;
/// Of them on the namespace of the local pods.
const ON_LOCAL: u32 = 150;
/// Of these with peers from all namespaces.
const WIDE: u32 = 50;
const NAMESPACES: u32 = 50;
const NODES: u32 = 500;
const APPS: u32 = 50;
const AIM_MB: f64 = 50.0;

/// Megabytes that a process has.
struct Memory {
    rss: f64,
    anon: f64,
    peak: f64,
}

/// Whom the policies here let in from all namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Peers {
    /// A fifth of all pods of the cluster.
    Some,
    /// Each pod of the cluster, so that all of them are members of sets in this node's kernel.
    All,
}

/// Measures.
///
/// # Errors
/// When the cluster does not come up.
pub(crate) fn run(setting: &Setting) -> Result<Section> {
    let mut out = Section::new("Memory of the agent");
    out.note(format!(
        "{ENDPOINTS} pods on {NODES} nodes in {NAMESPACES} namespaces, {LOCAL} of them here; {POLICIES} \
         policies, {ON_LOCAL} on pods here, {WIDE} of these with peers from all namespaces. A first life \
         of the agent attaches the pods, a second begins with them."
    ));
    lives(setting, Peers::Some, &mut out)?;
    lives(setting, Peers::All, &mut out)?;
    Ok(out)
}

/// Two lives of an agent, and their rows.
fn lives(setting: &Setting, peers: Peers, out: &mut Section) -> Result<()> {
    let dir = setting.dir.join(format!("{peers:?}"));
    std::fs::create_dir_all(&dir)?;
    let mut cluster = Cluster::prepare(&setting.manx, &dir, 1)?;
    let began = Instant::now();
    fill(&cluster.store, peers)?;
    let filled = began.elapsed();
    let first_start = cluster.nodes[0].start()?;
    let mut pods: Vec<Pod> = Vec::new();
    let began = Instant::now();
    for n in 0..LOCAL {
        let labels = [
            ("app", format!("app-{}", n % 20)),
            ("tier", "front".to_owned()),
        ];
        let labels = labels.each_ref().map(|(k, v)| (*k, v.as_str()));
        pods.push(cluster.attach(0, &format!("local-{n}"), &labels)?);
    }
    let attached = began.elapsed();
    let first = settled(&cluster)?;
    cluster.nodes[0].stop();
    let second_start = cluster.nodes[0].start()?;
    let second = settled(&cluster)?;
    say!("memory: {peers:?} peers done");
    let both = |f: fn(&Memory) -> f64| Samples::new(vec![f(&first), f(&second)]);
    let (who, aim) = match peers {
        Peers::Some => ("a fifth of all pods in sets here", Some(AIM_MB)),
        Peers::All => ("all pods in sets here", None),
    };
    let mut row = |what: &str, figures: &Samples, aim| {
        out.rows.push(limit_row(
            &format!("{what}, {who}"),
            figures,
            figures.max(),
            "MB",
            aim,
        ));
    };
    row(
        "resident memory, the larger of two lives",
        &both(|m| m.rss),
        aim,
    );
    row("of that anonymous", &both(|m| m.anon), None);
    row("peak", &both(|m| m.peak), None);
    out.note(format!(
        "With {who}: first life {} MB resident, second {} MB; from start to ready {:.2} s, and {:.2} s with \
         {LOCAL} pods; {LOCAL} pods were attached in {:.2} s; the store was filled in {:.1} s.",
        number(first.rss),
        number(second.rss),
        first_start.as_secs_f64(),
        second_start.as_secs_f64(),
        attached.as_secs_f64(),
        filled.as_secs_f64()
    ));
    Ok(())
}

/// Waits until the figure has stayed the same for a second, ten at most.
fn settled(cluster: &Cluster) -> Result<Memory> {
    let node = &cluster.nodes[0];
    let mut last = (node.status("VmRSS")?, Instant::now());
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(10) && last.1.elapsed() < Duration::from_secs(1) {
        crate::pause(Duration::from_millis(50));
        let now = node.status("VmRSS")?;
        if now != last.0 {
            last = (now, Instant::now());
        }
    }
    let mb = |field| node.status(field).map(|kb| kb as f64 * 1024.0 / 1e6);
    Ok(Memory {
        rss: mb("VmRSS")?,
        anon: mb("RssAnon")?,
        peak: mb("VmHWM")?,
    })
}

fn fill(store: &Store, peers: Peers) -> Result<()> {
    let ns = |n: u32| {
        if n == 0 {
            "default".to_owned()
        } else {
            format!("team-{n}")
        }
    };
    for n in 1..NAMESPACES {
        store.put(ResourceKind::Namespace, &objects::namespace(&ns(n)))?;
    }
    for n in 0..NODES {
        let ip = Ipv4Addr::from(u32::from(Ipv4Addr::new(172, 30, 1, 0)) + n);
        store.put(
            ResourceKind::Node,
            &objects::node(&format!("other-{n}"), ip),
        )?;
    }
    // Addresses of one block are on one node.
    let elsewhere = ENDPOINTS - LOCAL;
    for b in 0..elsewhere.div_ceil(64) {
        let (key, block) = objects::block(b, &format!("other-{}", b % NODES));
        store.put_raw(&key, &block)?;
    }
    for n in 0..elsewhere {
        let node = format!("other-{}", n / 64 % NODES);
        let app = format!("app-{}", n % APPS);
        let tier = if n % 3 == 0 { "front" } else { "back" };
        let labels = [
            ("app", app.as_str()),
            ("tier", tier),
            ("pod-template-hash", "5d9c7b8f4"),
        ];
        let ns = ns(n / APPS % NAMESPACES);
        let pod = objects::running(
            &ns,
            &format!("pod-{n}"),
            &node,
            objects::elsewhere(n),
            &labels,
        );
        store.put(ResourceKind::Pod, &pod)?;
    }
    for n in 0..POLICIES {
        let (ns, apps) = match n {
            n if n < ON_LOCAL => ("default".to_owned(), 20),
            n => (ns(1 + n % (NAMESPACES - 1)), APPS),
        };
        let (to, from) = (
            format!("app-{}", n % apps),
            format!("app-{}", (n * 7 + 3) % APPS),
        );
        let port = 8000 + u16::try_from(n).unwrap_or_default();
        let name = format!("allow-{n}");
        let mut policy = objects::allow(&ns, &name, ("app", &to), ("app", &from), port);
        if n < WIDE {
            let apps = if peers == Peers::All { APPS } else { APPS / 5 };
            policy["spec"]["ingress"][0]["from"][0] = json!({
                "namespaceSelector": {},
                "podSelector": {"matchLabels": {"app": format!("app-{}", n % apps)}},
            });
        }
        store.put(ResourceKind::KubeNetworkPolicy, &policy)?;
    }
    Ok(())
}
