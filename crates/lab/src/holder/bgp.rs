//! The fabric's router as a BGP speaker: `manx speaker`, and the file that it follows.
//!
//! Promises: it is this very program, run as somebody would who has a border of their own; its file
//! names each node of the plan that has not been deleted; what is said of sessions is the speaker's
//! own word.
//!
//! Never: speaks BGP itself; writes a route.

use crate::holder::children::Children;
use crate::holder::node::{last_words, passes};
use crate::protocol::SessionStatus;
use crate::state::{Dir, ROUTER};
use net::{Asn, Cidr, Family};
use netlink::NetlinkError;
use netlink::netns::NetNs;
use scenario::plan::{FABRIC_V4, FABRIC_V6, FamilySet, Plan};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write as _};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The router's AS: one of those for private use (RFC 6996), next to the nodes' default.
pub(crate) const ROUTER_AS: u32 = 64500;
/// A cluster's AS unless its BGPConfiguration says another.
const CLUSTER_AS: Asn = Asn(64512);
const RESTART_FIRST: Duration = Duration::from_millis(200);
const RESTART_LAST: Duration = Duration::from_secs(5);
/// How often a speaker is asked for the state of its sessions: it tells nobody by itself.
const ASK_EVERY: Duration = Duration::from_millis(5);
/// For an answer of a speaker that is busy.
const PATIENCE: Duration = Duration::from_secs(5);

/// The addresses that the router has beside those towards the nodes: who it is.
const LOOPBACK: [&str; 2] = ["172.18.0.1", "fd00:18::1"];

/// The router's own address of a family, on its `lo`.
///
/// # Panics
/// Never: the addresses are constants.
pub(super) fn loopback(family: Family) -> IpAddr {
    let text = LOOPBACK[usize::from(family == Family::V6)];
    text.parse().expect("a constant address")
}

/// What BGP has in a new lab whose fabric learns the ways to pods: each node speaks with the router
/// at the end of its own link, and with no other node.
pub(crate) fn objects(plan: &Plan) -> Vec<Value> {
    let mut all = vec![json!({
        "apiVersion": api::V3, "kind": "BGPConfiguration", "metadata": {"name": "default"},
        "spec": {"nodeToNodeMeshEnabled": false},
    })];
    for node in &plan.nodes {
        for gateway in &node.gateways {
            let family = Family::of(gateway.addr).to_string().to_lowercase();
            all.push(json!({
                "apiVersion": api::V3, "kind": "BGPPeer",
                "metadata": {"name": format!("{ROUTER}-{}-{family}", node.name)},
                "spec": {
                    "node": node.name,
                    "peerIP": gateway.addr,
                    "asNumber": ROUTER_AS,
                    // All nodes are of one AS, and hear of each other through another.
                    "numAllowedLocalASNumbers": 1,
                },
            }));
        }
    }
    all
}

/// What the router has to know of the cluster, as the one who configures it would.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Cluster {
    /// The cluster's AS, where its configuration says one.
    pub asn: Option<Asn>,
    /// Nodes with an AS of their own.
    pub node_asns: BTreeMap<String, Asn>,
    /// Nodes that were taken out of the cluster.
    pub deleted: BTreeSet<String>,
    /// Pools that travel in tunnels: their blocks are not for the fabric.
    pub tunnelled: BTreeSet<Cidr>,
}

/// The router's file, as JSON documents.
pub(super) fn file(plan: &Plan, families: FamilySet, cluster: &Cluster) -> String {
    let mut bgp = json!({"asNumber": ROUTER_AS});
    for family in families.iter() {
        let (field, len) = match family {
            Family::V4 => ("ipv4Address", 32),
            Family::V6 => ("ipv6Address", 128),
        };
        bgp[field] = format!("{}/{len}", loopback(family)).into();
    }
    let mut all = vec![
        object("Node", ROUTER, json!({"bgp": bgp})),
        object(
            "BGPConfiguration",
            "default",
            json!({"nodeToNodeMeshEnabled": false}),
        ),
        filter(&cluster.tunnelled),
    ];
    for node in plan
        .nodes
        .iter()
        .filter(|n| !cluster.deleted.contains(&n.name))
    {
        let own = cluster.node_asns.get(&node.name).copied();
        let asn = own.or(cluster.asn).unwrap_or(CLUSTER_AS);
        for i in &node.addresses {
            let family = Family::of(i.addr).to_string().to_lowercase();
            let spec = json!({
                "peerIP": i.addr, "asNumber": asn.0, "sourceAddress": "None", "filters": ["fabric"],
            });
            all.push(object("BGPPeer", &format!("{}-{family}", node.name), spec));
        }
    }
    let mut text = String::new();
    for o in all {
        let _ = writeln!(text, "---\n{o}");
    }
    text
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": api::V3, "kind": kind, "metadata": {"name": name}, "spec": spec})
}

/// Nodes are told all but the links of the fabric; of them everything is taken but what lies in those
/// links, or in tunnels.
fn filter(tunnelled: &BTreeSet<Cidr>) -> Value {
    let within = |cidr: &dyn std::fmt::Display| json!({"action": "Reject", "matchOperator": "In", "cidr": cidr.to_string()});
    let rules = |family: Family, also: bool| {
        let fabric = match family {
            Family::V4 => FABRIC_V4,
            Family::V6 => FABRIC_V6,
        };
        let pools = tunnelled.iter().filter(|c| also && c.family() == family);
        let mut rules: Vec<Value> = pools.map(|c| within(c)).collect();
        rules.push(within(&fabric));
        rules.push(json!({"action": "Accept"}));
        rules
    };
    object(
        "BGPFilter",
        "fabric",
        json!({
            "importV4": rules(Family::V4, true), "importV6": rules(Family::V6, true),
            "exportV4": rules(Family::V4, false), "exportV6": rules(Family::V6, false),
        }),
    )
}

/// The running speaker.
#[derive(Debug)]
pub(super) struct Speaker {
    home: PathBuf,
    plan: Plan,
    families: FamilySet,
}

impl Speaker {
    /// Writes the first file and keeps the speaker running, on a thread of its own.
    ///
    /// # Errors
    /// If the directory cannot be made or there can be no thread.
    pub(super) fn start(
        ns: NetNs,
        plan: &Plan,
        families: FamilySet,
        dir: &Dir,
        children: Arc<Children>,
        exe: PathBuf,
    ) -> io::Result<Arc<Self>> {
        let speaker = Arc::new(Self {
            home: dir.node(ROUTER),
            plan: plan.clone(),
            families,
        });
        fs::create_dir_all(&speaker.home)?;
        speaker.write(&Cluster::default())?;
        let this = Arc::clone(&speaker);
        std::thread::Builder::new()
            .name(ROUTER.to_owned())
            .spawn(move || {
                let mut pause = RESTART_FIRST;
                loop {
                    let began = Instant::now();
                    if let Err(e) = this.run_once(&ns, &children, &exe) {
                        eprintln!("the router's speaker: {e}");
                    }
                    if began.elapsed() > RESTART_LAST {
                        pause = RESTART_FIRST;
                    }
                    // Nothing to wait for: this is the pause before the next try.
                    std::thread::park_timeout(pause);
                    pause = (pause * 2).min(RESTART_LAST);
                }
            })?;
        Ok(speaker)
    }

    fn run_once(&self, ns: &NetNs, children: &Children, exe: &Path) -> io::Result<()> {
        let log = self.home.join("speaker.log");
        let log: File = OpenOptions::new().create(true).append(true).open(log)?;
        let mut command = ns.command(exe).map_err(io::Error::other)?;
        command
            .args(["speaker", "--kernel", "--node", ROUTER, "--file"])
            .arg(self.path())
            .arg("--socket")
            .arg(&self.home)
            .env_clear()
            .envs(std::env::vars_os().filter(|(k, _)| passes(&k.to_string_lossy())))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let started = children.spawn(&mut command)?;
        drop(command);
        let _ = started.ended.recv();
        Ok(())
    }

    fn path(&self) -> PathBuf {
        self.home.join("router.yaml")
    }

    /// The control socket that `manx bgp` asks.
    pub(super) fn socket(&self) -> PathBuf {
        self.home.join("bgp.ctl")
    }

    /// Replaces the file; the speaker follows.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn write(&self, cluster: &Cluster) -> io::Result<()> {
        let new = self.home.join("router.yaml.new");
        fs::write(&new, file(&self.plan, self.families, cluster))?;
        fs::rename(new, self.path())
    }

    /// Waits until it speaks.
    ///
    /// # Errors
    /// With the end of its log.
    pub(super) fn wait_begun(&self, deadline: Instant) -> io::Result<()> {
        while !speaks(&self.socket()) {
            if Instant::now() >= deadline {
                let why = format!("the router's speaker does not begin{}", self.last_words());
                return Err(io::Error::other(why));
            }
            std::thread::park_timeout(ASK_EVERY);
        }
        Ok(())
    }

    /// Waits until the session with each node of its file is up; gives how many there are.
    ///
    /// # Errors
    /// Names each session that is not up at the deadline, and why.
    pub(super) fn wait_up(&self, deadline: Instant) -> Result<usize, String> {
        loop {
            let sessions = self.sessions();
            let down: Vec<String> = match &sessions {
                Ok(all) => all.iter().filter(|s| !s.is_up()).map(describe).collect(),
                Err(why) => vec![why.clone()],
            };
            match sessions {
                Ok(all) if down.is_empty() => return Ok(all.len()),
                _ if Instant::now() >= deadline => {
                    return Err(format!("BGP is not up everywhere: {}", down.join("; ")));
                }
                _ => std::thread::park_timeout(ASK_EVERY),
            }
        }
    }

    /// The end of its log.
    pub(super) fn last_words(&self) -> String {
        last_words(&self.home.join("speaker.log"))
    }

    /// Its sessions as it sees them, with the nodes' names.
    ///
    /// # Errors
    /// Why it does not answer.
    pub(super) fn sessions(&self) -> Result<Vec<SessionStatus>, String> {
        let node_of = |a: IpAddr| {
            let has = |n: &&scenario::plan::NodePlan| n.addresses.iter().any(|i| i.addr == a);
            self.plan.nodes.iter().find(has).map(|n| n.name.clone())
        };
        sessions(ROUTER, &self.socket(), node_of)
    }
}

/// A session that is not up, for people.
fn describe(s: &SessionStatus) -> String {
    let why = match s.reason.as_str() {
        "" => String::new(),
        why => format!(" ({why})"),
    };
    let (speaker, peer, address) = (&s.speaker, &s.peer, s.address);
    format!("{speaker} with {peer} {address} is {}{why}", s.state)
}

/// One line of the answer about peers.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    end: Option<bool>,
    error: Option<String>,
    address: Option<IpAddr>,
    state: Option<String>,
    last_error: Option<String>,
    paths: Option<u32>,
}

/// Whether a speaker has begun: who calls it finds it listening.
fn speaks(socket: &Path) -> bool {
    let ask = || -> io::Result<String> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"{\"ask\":\"status\"}\n")?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        Ok(line)
    };
    ask().is_ok_and(|line| line.contains("\"routerId\""))
}

/// Asks a speaker for its sessions.
///
/// # Errors
/// Why there is no whole answer.
pub(super) fn sessions(
    speaker: &str,
    socket: &Path,
    node_of: impl Fn(IpAddr) -> Option<String>,
) -> Result<Vec<SessionStatus>, String> {
    let fail = |e: io::Error| format!("{speaker} does not answer at {}: {e}", socket.display());
    let mut stream = UnixStream::connect(socket).map_err(fail)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(fail)?;
    stream.write_all(b"{\"ask\":\"peers\"}\n").map_err(fail)?;
    let mut all = Vec::new();
    for line in BufReader::new(stream).lines() {
        let line = line.map_err(fail)?;
        let said: Line =
            serde_json::from_str(&line).map_err(|e| format!("{speaker} says {line:?}: {e}"))?;
        if let Some(error) = said.error {
            return Err(format!("{speaker}: {error}"));
        }
        if said.end == Some(true) {
            return Ok(all);
        }
        let Some(address) = said.address else {
            continue;
        };
        all.push(SessionStatus {
            speaker: speaker.to_owned(),
            peer: node_of(address).unwrap_or_default(),
            address,
            state: said.state.unwrap_or_default(),
            reason: said.last_error.unwrap_or_default(),
            routes: said.paths.unwrap_or_default(),
        });
    }
    Err(format!("{speaker} ended before its answer did"))
}

/// Gives the router its own addresses.
///
/// # Errors
/// The kernel's refusal.
pub(super) fn address(links: &mut link::Handle, families: FamilySet) -> Result<(), NetlinkError> {
    let lo = links.index_of("lo".parse().expect("a name"))?;
    for family in families.iter() {
        links.add_address(lo, &link::Address::host(loopback(family)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::parse_documents;
    use scenario::plan::{Encapsulation, Spec, Topology};

    fn plan() -> Plan {
        let spec = Spec {
            name: "t".to_owned(),
            nodes: 2,
            topology: Topology::Routed,
            families: FamilySet { v4: true, v6: true },
            hosts: Vec::new(),
            default_pools: true,
            encapsulation: Encapsulation::None,
            wireguard: false,
        };
        spec.plan().unwrap()
    }

    #[test]
    fn objects_are_valid() {
        let all = objects(&plan());
        assert_eq!(all.len(), 5);
        for o in all {
            for parsed in parse_documents(&o.to_string(), "t") {
                parsed.unwrap();
            }
        }
    }

    #[test]
    fn the_file_says_who_is_in_the_cluster() {
        let families = FamilySet { v4: true, v6: true };
        let peers = |c: &Cluster| -> Vec<String> {
            parse_documents(&file(&plan(), families, c), "t")
                .into_iter()
                .map(|p| serde_json::to_value(p.unwrap().0).unwrap())
                .filter(|v| v["kind"] == "BGPPeer")
                .map(|v| format!("{} {}", v["spec"]["peerIP"], v["spec"]["asNumber"]))
                .collect()
        };
        assert_eq!(
            peers(&Cluster::default()),
            [
                "\"172.18.1.10\" 64512",
                "\"fd00:18:0:1::a\" 64512",
                "\"172.18.2.10\" 64512",
                "\"fd00:18:0:2::a\" 64512",
            ]
        );
        let other = Cluster {
            asn: Some(Asn(65000)),
            node_asns: BTreeMap::from([("node-2".to_owned(), Asn(65002))]),
            deleted: BTreeSet::from(["node-1".to_owned()]),
            tunnelled: BTreeSet::from(["10.9.0.0/16".parse().unwrap()]),
        };
        assert_eq!(
            peers(&other),
            ["\"172.18.2.10\" 65002", "\"fd00:18:0:2::a\" 65002"]
        );
        assert!(file(&plan(), families, &other).contains("\"10.9.0.0/16\""));
    }

    #[test]
    fn what_a_speaker_says_is_taken_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bgp.ctl");
        let server = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let up = r#"{"address":"172.18.1.10","state":"Established","paths":2}"#;
        let down = r#"{"address":"172.18.2.10","state":"Active","lastError":"Connection refused"}"#;
        let answers = [
            format!("{up}\n{down}\n{{\"end\":true}}\n"),
            format!("{up}\n"),
            "{\"error\":\"BGP is not spoken\"}\n".to_owned(),
        ];
        let serving = std::thread::spawn(move || {
            for answer in answers {
                let (mut client, _) = server.accept().unwrap();
                let mut asked = String::new();
                BufReader::new(&client).read_line(&mut asked).unwrap();
                assert_eq!(asked, "{\"ask\":\"peers\"}\n");
                client.write_all(answer.as_bytes()).unwrap();
            }
        });
        let node = |a: IpAddr| (a.to_string() == "172.18.2.10").then(|| "node-2".to_owned());
        let ask = || sessions(ROUTER, &path, node);
        let both = ask().unwrap();
        assert_eq!((both[0].is_up(), both[0].routes), (true, 2));
        assert_eq!(
            describe(&both[1]),
            "router with node-2 172.18.2.10 is Active (Connection refused)"
        );
        assert_eq!(ask().unwrap_err(), "router ended before its answer did");
        assert_eq!(ask().unwrap_err(), "router: BGP is not spoken");
        serving.join().unwrap();
        assert!(ask().unwrap_err().contains("does not answer at"));
    }
}
