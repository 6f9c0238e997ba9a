//! `ipam check`: what is assigned against what is used.
//!
//! Promises: an address that comes or goes while it looks is no problem: what looks like one is
//! looked at twice.

use super::report::{Allocation, LeakedHandle, Report};
use super::{json, pools};
use crate::args::CheckArgs;
use crate::cluster::{Cluster, host};
use crate::run::Console;
use crate::{CliError, version};
use api::{Resource, ResourceKind};
use ipam::{Pool, Problem, Snapshot};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;

/// How many nodes are listed by their number of addresses.
const TOP: usize = 20;

/// Who uses which address.
#[derive(Default)]
struct Users {
    by_address: BTreeMap<IpAddr, BTreeSet<String>>,
    nodes: usize,
    workloads: usize,
    /// How many are stored objects that cannot be read.
    bad: Vec<String>,
}

/// What a look at the cluster gave.
pub(super) struct Findings {
    snapshot: Snapshot,
    pools: Vec<Pool>,
    users: Users,
    allocations: BTreeMap<IpAddr, Vec<Allocation>>,
    leaked: Vec<Allocation>,
    /// Used, in a pool, not assigned.
    unassigned: BTreeSet<IpAddr>,
    /// Used, in no pool.
    foreign: BTreeSet<IpAddr>,
    /// Used by several.
    shared: BTreeSet<IpAddr>,
    leaked_handles: BTreeMap<String, u64>,
    /// Named by a block, and not there.
    missing_handles: BTreeSet<String>,
    /// Contradictions between blocks, affinities and handles.
    contradictions: BTreeSet<String>,
    /// What the next operation mends.
    unfinished: Vec<String>,
}

fn users(cluster: &Cluster) -> Result<Users, CliError> {
    let mut out = Users::default();
    let mut add = |address: &str, who: String| {
        if let Some(a) = host(address) {
            out.by_address.entry(a).or_default().insert(who);
        }
    };
    let nodes = cluster.list(ResourceKind::Node, None)?;
    for r in &nodes.items {
        let Resource::Node(n) = r else { continue };
        let none = api::kinds::node::NodeWireguardSpec::default();
        let wireguard = n.spec.wireguard.as_ref().unwrap_or(&none);
        let ipip = n.spec.bgp.as_ref().map_or("", |b| &b.ipv4_ipip_tunnel_addr);
        for address in [
            &n.spec.ipv4_vxlan_tunnel_addr,
            &n.spec.ipv6_vxlan_tunnel_addr,
            &wireguard.interface_ipv4_address,
            &wireguard.interface_ipv6_address,
            ipip,
        ] {
            out.nodes += usize::from(host(address).is_some());
            add(address, format!("Node({})", n.metadata.name));
        }
    }
    let workloads = cluster.list(ResourceKind::WorkloadEndpoint, None)?;
    for r in &workloads.items {
        let Resource::WorkloadEndpoint(w) = r else {
            continue;
        };
        for network in &w.spec.ip_networks {
            out.workloads += usize::from(host(network).is_some());
            let who = format!("Workload({}/{})", w.metadata.namespace, w.metadata.name);
            add(network, who);
        }
    }
    out.bad.extend(
        nodes
            .bad
            .iter()
            .chain(&workloads.bad)
            .map(ToString::to_string),
    );
    Ok(out)
}

/// Looks once. IPAM is read first: an address is assigned before it is used, and used no more
/// before it is released.
fn look(cluster: &Cluster) -> Result<Findings, CliError> {
    let snapshot = cluster.snapshot()?;
    let pools = pools(cluster)?;
    let users = users(cluster)?;
    let mut f = Findings {
        allocations: allocations(&snapshot, &users),
        leaked: Vec::new(),
        unassigned: BTreeSet::new(),
        foreign: BTreeSet::new(),
        shared: BTreeSet::new(),
        leaked_handles: BTreeMap::new(),
        missing_handles: BTreeSet::new(),
        contradictions: BTreeSet::new(),
        unfinished: Vec::new(),
        snapshot,
        pools,
        users,
    };
    f.leaked = f
        .allocations
        .values()
        .flatten()
        .filter(|a| a.is_leaked())
        .cloned()
        .collect();
    for (address, who) in &f.users.by_address {
        if who.len() > 1 {
            f.shared.insert(*address);
        }
        let assigned = f
            .allocations
            .get(address)
            .is_some_and(|a| a.iter().any(|a| !a.cooling_down));
        if !assigned && f.pools.iter().any(|p| p.cidr.contains(*address)) {
            f.unassigned.insert(*address);
        } else if !assigned {
            f.foreign.insert(*address);
        }
    }
    f.contradictions.extend(f.users.bad.iter().cloned());
    for problem in f.snapshot.check(&f.pools).problems {
        match problem {
            Problem::LeakedHandle { id, rev } => {
                f.leaked_handles.insert(id, rev);
            }
            Problem::UnderCount { id, .. } if !f.snapshot.handles.contains_key(&id) => {
                f.missing_handles.insert(id);
            }
            p @ (Problem::OverCount { .. } | Problem::Unfinished { .. }) => {
                f.unfinished.push(p.to_string())
            }
            p => {
                f.contradictions.insert(p.to_string());
            }
        }
    }
    Ok(f)
}

/// Looks, and once more where there was something: what is left is in both.
pub(super) fn findings(cluster: &Cluster) -> Result<Findings, CliError> {
    let mut f = look(cluster)?;
    if f.problems() == 0 {
        return Ok(f);
    }
    let again = look(cluster)?;
    f.leaked
        .retain(|a| again.leaked.iter().any(|b| a.identity() == b.identity()));
    f.unassigned.retain(|a| again.unassigned.contains(a));
    f.foreign.retain(|a| again.foreign.contains(a));
    f.shared.retain(|a| again.shared.contains(a));
    f.leaked_handles
        .retain(|id, rev| again.leaked_handles.get(id) == Some(rev));
    f.missing_handles
        .retain(|id| again.missing_handles.contains(id));
    f.contradictions
        .retain(|c| again.contradictions.contains(c));
    Ok(f)
}

fn allocations(snapshot: &Snapshot, users: &Users) -> BTreeMap<IpAddr, Vec<Allocation>> {
    let mut out: BTreeMap<IpAddr, Vec<Allocation>> = BTreeMap::new();
    for block in &snapshot.blocks {
        for (address, a) in block.held() {
            let of = |k: &str| a.get(k).unwrap_or_default().to_owned();
            let node = of("node");
            let owners: Vec<String> = users
                .by_address
                .get(&address)
                .into_iter()
                .flatten()
                .cloned()
                .collect();
            out.entry(address).or_default().push(Allocation {
                ip: address.to_string(),
                handle: a.handle().unwrap_or_default().to_owned(),
                sequence_number: block.sequence_of(address),
                pod: of("pod"),
                namespace: of("namespace"),
                kind: of("type"),
                creation_timestamp: of("timestamp"),
                // Windows keeps some addresses of each block for itself.
                in_use: !owners.is_empty() || a.handle() == Some(ipam::WINDOWS_RESERVED_HANDLE),
                borrowed: !node.is_empty() && !block.is_owned_by(&ipam::Owner::host(node.as_str())),
                cooling_down: false,
                node,
                owners,
            });
        }
        for (address, _) in block.cooling() {
            let ip = address.to_string();
            out.entry(address).or_default().push(Allocation {
                ip,
                cooling_down: true,
                ..Allocation::default()
            });
        }
    }
    out
}

impl Findings {
    fn problems(&self) -> usize {
        self.leaked.len()
            + self.unassigned.len()
            + self.foreign.len()
            + self.shared.len()
            + self.leaked_handles.len()
            + self.missing_handles.len()
            + self.contradictions.len()
    }

    /// Assigned and used by nobody.
    pub(super) fn leaked(&self) -> &[Allocation] {
        &self.leaked
    }

    /// Handles without addresses, and the revision of each.
    pub(super) const fn leaked_handles(&self) -> &BTreeMap<String, u64> {
        &self.leaked_handles
    }

    fn words(&self) -> Vec<String> {
        let mut out: Vec<String> = self.leaked.iter().map(leak).collect();
        out.extend(
            self.foreign
                .iter()
                .map(|a| format!("{a} is used and in no IP pool{}", self.by(a))),
        );
        out.extend(
            self.unassigned
                .iter()
                .map(|a| format!("{a} is used and not assigned{}", self.by(a))),
        );
        out.extend(
            self.shared
                .iter()
                .map(|a| format!("{a} is used more than once{}", self.by(a))),
        );
        out.extend(
            self.leaked_handles
                .keys()
                .map(|id| format!("handle {id} has no addresses")),
        );
        out.extend(
            self.missing_handles
                .iter()
                .map(|id| format!("handle {id} is named by a block and does not exist")),
        );
        out.extend(self.contradictions.iter().cloned());
        out
    }

    fn by(&self, address: &IpAddr) -> String {
        let who = self.users.by_address.get(address);
        who.map_or(String::new(), |w| {
            format!(" by {}", w.iter().cloned().collect::<Vec<_>>().join(", "))
        })
    }

    /// The report, for `ipam release` and for programs.
    fn report(&self, cluster: &Cluster) -> Result<Report, CliError> {
        let information = cluster.information()?.unwrap_or_default();
        let leaked: BTreeSet<_> = self.leaked.iter().map(Allocation::identity).collect();
        // An address that was not leaked at the second look is in use, whoever by.
        let settled = |a: &Allocation| {
            let mut a = a.clone();
            a.in_use |= a.is_leaked() && !leaked.contains(&a.identity());
            a
        };
        let entry = |(ip, all): (&IpAddr, &Vec<Allocation>)| {
            (ip.to_string(), all.iter().map(settled).collect())
        };
        Ok(Report {
            version: version::CLIENT.to_owned(),
            cluster_guid: information.spec.cluster_guid,
            datastore_locked: information.spec.datastore_ready == Some(false),
            cluster_information_revision: information.metadata.resource_version,
            cluster_type: information.spec.cluster_type,
            allocations: self.allocations.iter().map(entry).collect(),
            leaked_handles: self
                .leaked_handles
                .iter()
                .map(|(id, rev)| LeakedHandle {
                    id: id.clone(),
                    uid: None,
                    revision: rev.to_string(),
                })
                .collect(),
            problems: self.words(),
        })
    }
}

fn leak(a: &Allocation) -> String {
    let mut what = format!("{} leaked", a.ip);
    for (name, value) in [
        ("handle", &a.handle),
        ("node", &a.node),
        ("namespace", &a.namespace),
        ("pod", &a.pod),
        ("type", &a.kind),
        ("since", &a.creation_timestamp),
    ] {
        if !value.is_empty() {
            let _ = write!(what, " {name}={value}");
        }
    }
    what
}

pub(crate) fn run(
    args: &CheckArgs,
    cluster: &Cluster,
    console: &mut Console<'_>,
) -> Result<(), CliError> {
    let f = findings(cluster)?;
    let on_stdout = args
        .output
        .as_deref()
        .is_some_and(|p| p == Path::new("json") || p == Path::new("-"));
    match &args.output {
        Some(_) if on_stdout => console.print(&json(&f.report(cluster)?))?,
        Some(path) => {
            console.print(&text(&f, args))?;
            let failed = |source| CliError::Write {
                path: path.clone(),
                source,
            };
            std::fs::write(path, json(&f.report(cluster)?)).map_err(failed)?;
        }
        None => console.print(&text(&f, args))?,
    }
    let n = f.problems();
    if args.fail && n > 0 {
        Err(CliError::Found(format!("ipam check found {n} problems")))
    } else {
        Ok(())
    }
}

/// One thing that is looked for.
struct Section {
    /// Empty where the one before it goes on.
    heading: &'static str,
    found: String,
    details: Vec<String>,
}

/// In the order and words of calicoctl's.
fn text(f: &Findings, args: &CheckArgs) -> String {
    let mut out = String::from("Checking IPAM for inconsistencies...\n\n");
    inventory(f, args, &mut out);
    for s in address_sections(f).into_iter().chain(handle_sections(f)) {
        if !s.heading.is_empty() {
            let _ = writeln!(out, "{}", s.heading);
        }
        if args.show_problem_ips || args.show_all_ips {
            for detail in s.details {
                let _ = writeln!(out, "  {detail}");
            }
        }
        let _ = writeln!(out, "{}", s.found);
    }
    let _ = writeln!(out, "Check complete; found {} problems.", f.problems());
    out
}

fn address_sections(f: &Findings) -> [Section; 4] {
    let with_users =
        |set: &BTreeSet<IpAddr>| set.iter().map(|a| format!("{a}{}", f.by(a))).collect();
    [
        Section {
            heading: "Scanning for IPs that are allocated but not actually in use...",
            found: format!(
                "Found {} IPs that are allocated in IPAM but not actually in use.",
                f.leaked.len()
            ),
            details: f.leaked.iter().map(leak).collect(),
        },
        Section {
            heading: "Scanning for IPs that are in use by a workload or node but not allocated in IPAM...",
            found: format!(
                "Found {} in-use IPs that are not in active IP pools.",
                f.foreign.len()
            ),
            details: with_users(&f.foreign),
        },
        Section {
            heading: "",
            found: format!(
                "Found {} in-use IPs that are in active IP pools but have no corresponding IPAM allocation.",
                f.unassigned.len()
            ),
            details: with_users(&f.unassigned),
        },
        Section {
            heading: "Scanning for IPs that are in use more than once...",
            found: format!(
                "Found {} IPs that are in use by more than one workload or node.\n",
                f.shared.len()
            ),
            details: with_users(&f.shared),
        },
    ]
}

fn handle_sections(f: &Findings) -> [Section; 3] {
    let harmless = f.unfinished.iter().map(|u| format!("{u} (harmless)"));
    let matched = f
        .snapshot
        .handles
        .len()
        .saturating_sub(f.leaked_handles.len());
    [
        Section {
            heading: "Scanning for IPAM handles with no matching IPs...",
            found: format!(
                "Found {} handles with no matching IPs (and {matched} handles with matches).",
                f.leaked_handles.len()
            ),
            details: f.leaked_handles.keys().cloned().collect(),
        },
        Section {
            heading: "Scanning for IPs with missing handle...",
            found: format!(
                "Found {} handles mentioned in blocks with no matching handle resource.",
                f.missing_handles.len()
            ),
            details: f.missing_handles.iter().cloned().collect(),
        },
        Section {
            heading: "Scanning for blocks, affinities and handles that contradict each other...",
            found: format!("Found {} contradictions.", f.contradictions.len()),
            details: f.contradictions.iter().cloned().chain(harmless).collect(),
        },
    ]
}

fn inventory(f: &Findings, args: &CheckArgs, out: &mut String) {
    let mut line = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    line("Loading all IPAM blocks...".to_owned());
    line(format!("Found {} IPAM blocks.", f.snapshot.blocks.len()));
    for b in &f.snapshot.blocks {
        line(format!(
            " IPAM block {} affinity={}:",
            b.cidr(),
            b.affinity().unwrap_or("<none>")
        ));
        if args.show_all_ips {
            for (address, a) in b.held() {
                let users = f.by(&address);
                let state = if users.is_empty() {
                    " not in use".to_owned()
                } else {
                    format!(" in use{users}")
                };
                line(format!(
                    "  {address} allocated; handle={}{state}",
                    a.handle().unwrap_or("<none>")
                ));
            }
        }
    }
    let held = f
        .allocations
        .values()
        .flatten()
        .filter(|a| !a.cooling_down)
        .count();
    line(format!("IPAM blocks record {held} allocations.\n"));
    line("Loading all IPAM pools...".to_owned());
    f.pools.iter().for_each(|p| line(format!("  {}", p.cidr)));
    line(format!("Found {} active IP pools.\n", f.pools.len()));
    line(format!(
        "Loading all nodes.\nFound {} node tunnel IPs.\n",
        f.users.nodes
    ));
    line(format!(
        "Loading all workload endpoints.\nFound {} workload IPs.",
        f.users.workloads
    ));
    line(format!(
        "Workloads and nodes are using {} IPs.\n",
        f.users.by_address.len()
    ));
    let mut by_node: BTreeMap<&str, usize> = BTreeMap::new();
    for a in f
        .allocations
        .values()
        .flatten()
        .filter(|a| !a.node.is_empty())
    {
        *by_node.entry(&a.node).or_default() += 1;
    }
    let mut top: Vec<(usize, &str)> = by_node.into_iter().map(|(n, c)| (c, n)).collect();
    top.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
    line(format!(
        "Loading all handles\nLooking for top (up to {TOP}) nodes by allocations..."
    ));
    top.iter()
        .take(TOP)
        .for_each(|(count, node)| line(format!("  {node} has {count} allocations")));
    let most = top.first().map_or(0, |t| t.0);
    let median = top.get(top.len() / 2).map_or(0, |t| t.0);
    line(format!(
        "Node with most allocations has {most}; median is {median}\n"
    ));
}
