//! The speakers under test, each with the configuration that says the same in its own language.
//!
//! Promises: one of them runs at a time, in the namespace that it is given; it has ended when its handle
//! is dropped.

use anyhow::{Context, Result, bail};
use netlink::netns::NetNs;
use serde_json::json;
use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// The address of the speaker under test, and its router id.
pub(crate) const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// Its AS.
pub(crate) const ASN: u16 = 65000;
const START_TIME: Duration = Duration::from_secs(30);
/// A daemon that starts has no way to call back.
const ASK_EVERY: Duration = Duration::from_millis(10);

/// A program that speaks BGP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Daemon {
    Manx,
    Bird,
    Frr,
    Gobgp,
}

impl Daemon {
    pub(crate) const PEERS: [Self; 3] = [Self::Bird, Self::Frr, Self::Gobgp];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Manx => "manx",
            Self::Bird => "BIRD",
            Self::Frr => "FRR",
            Self::Gobgp => "GoBGP",
        }
    }

    fn program(self, manx: &Path) -> PathBuf {
        match self {
            Self::Manx => manx.to_owned(),
            Self::Bird => "/usr/sbin/bird".into(),
            Self::Frr => "/usr/lib/frr/bgpd".into(),
            Self::Gobgp => "/usr/bin/gobgpd".into(),
        }
    }

    /// Whether it can be run here.
    pub(crate) fn installed(self, manx: &Path) -> bool {
        self.program(manx).exists()
    }
}

/// What a peer is to the speaker under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// External; is told nothing.
    Feeder,
    /// External; is told everything.
    Monitor,
    /// Internal; its routes are reflected, and it is told everything.
    Client,
}

/// A peer of the speaker under test.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    pub addr: Ipv4Addr,
    pub asn: u16,
    pub role: Role,
}

/// What it has to do.
#[derive(Debug, Clone)]
pub(crate) struct Task {
    pub peers: Vec<Peer>,
    /// Learned routes go to the kernel's table.
    pub kernel: bool,
}

/// A speaker that runs.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    /// Starts one and waits until it accepts connections.
    ///
    /// # Errors
    /// With the end of its log when it does not come up.
    pub(crate) fn start(
        daemon: Daemon,
        manx: &Path,
        dir: &Path,
        ns: &NetNs,
        task: &Task,
    ) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let log = dir.join("log");
        let file = fs::File::create(&log)?;
        let program = daemon.program(manx);
        let program = program.to_str().context("a path that is text")?;
        let mut command = ns.command(program)?;
        command.args(arguments(daemon, dir, task)?);
        command.stdin(Stdio::null());
        command.stdout(file.try_clone()?).stderr(file);
        let child = command
            .spawn()
            .with_context(|| format!("start {program}"))?;
        let mut this = Self { child, log };
        let began = Instant::now();
        let at = SocketAddr::from((ADDRESS, 179));
        loop {
            let reached = ns.run(|| TcpStream::connect_timeout(&at, ASK_EVERY))?;
            if reached.is_ok() {
                return Ok(this);
            }
            if let Some(end) = this.child.try_wait()? {
                bail!("{} ended at once ({end}): {}", daemon.name(), this.tail());
            }
            if began.elapsed() > START_TIME {
                bail!("{} does not listen: {}", daemon.name(), this.tail());
            }
            crate::pause(ASK_EVERY);
        }
    }

    fn tail(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(5)..].join(" | ")
    }

    /// The most resident memory that it ever had, in MB.
    ///
    /// # Errors
    /// When it is gone.
    pub(crate) fn peak(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find(|l| l.starts_with("VmHWM:"));
        let kb = line.and_then(|l| l.split_whitespace().nth(1)?.parse::<f64>().ok());
        Ok(kb.context("VmHWM of a running process")? / 1024.0)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn arguments(daemon: Daemon, dir: &Path, task: &Task) -> Result<Vec<String>> {
    let file = dir.join("conf");
    let path = |name: &str| dir.join(name).display().to_string();
    let conf = file.display().to_string();
    let (text, args): (String, Vec<String>) = match daemon {
        Daemon::Manx => {
            let kernel = if task.kernel {
                "--kernel"
            } else {
                "--no-kernel"
            };
            let args = [
                "speaker",
                "--file",
                &conf,
                "--node",
                "dut",
                "--socket",
                &path("run"),
                kernel,
            ];
            (manx(task), args.map(str::to_owned).to_vec())
        }
        Daemon::Bird => {
            let args = ["-f", "-c", &conf, "-s", &path("ctl"), "-P", &path("pid")];
            (bird(task), args.map(str::to_owned).to_vec())
        }
        Daemon::Frr => {
            let args = [
                "-Z",
                "-n",
                "-S",
                "-f",
                &conf,
                "-i",
                &path("pid"),
                "--vty_socket",
                &dir.display().to_string(),
                "-P",
                "0",
                "-l",
                "10.0.0.1",
            ];
            (frr(task), args.map(str::to_owned).to_vec())
        }
        Daemon::Gobgp => {
            let args = [
                "-f",
                &conf,
                "-t",
                "toml",
                "--api-hosts",
                "127.0.0.1:50051",
                "-l",
                "warn",
            ];
            (gobgp(task), args.map(str::to_owned).to_vec())
        }
    };
    fs::write(&file, text)?;
    Ok(args)
}

fn manx(task: &Task) -> String {
    let reflects = task.peers.iter().any(|p| p.role == Role::Client);
    let mut bgp = json!({"ipv4Address": format!("{ADDRESS}/8"), "asNumber": u32::from(ASN)});
    if reflects {
        bgp["routeReflectorClusterID"] = json!(ADDRESS.to_string());
    }
    let v3 = |kind: &str, name: &str, spec: serde_json::Value| {
        json!({"apiVersion": "projectcalico.org/v3", "kind": kind,
            "metadata": {"name": name}, "spec": spec})
    };
    let mut objects = vec![
        v3("Node", "dut", json!({"bgp": bgp})),
        v3(
            "BGPConfiguration",
            "default",
            json!({"nodeToNodeMeshEnabled": false, "asNumber": u32::from(ASN)}),
        ),
        v3(
            "BGPFilter",
            "all",
            json!({"exportV4": [{"action": "Accept"}]}),
        ),
        v3(
            "BGPFilter",
            "none",
            json!({"exportV4": [{"action": "Reject"}]}),
        ),
    ];
    for (i, p) in task.peers.iter().enumerate() {
        let filter = match p.role {
            Role::Feeder => "none",
            Role::Monitor | Role::Client => "all",
        };
        let spec = json!({"peerIP": p.addr.to_string(), "asNumber": u32::from(p.asn),
            "filters": [filter]});
        objects.push(v3("BGPPeer", &format!("peer-{i}"), spec));
    }
    let text: Vec<String> = objects.iter().map(ToString::to_string).collect();
    // JSON is YAML.
    text.join("\n---\n")
}

fn bird(task: &Task) -> String {
    let mut out =
        format!("log stderr {{ fatal, error }};\nrouter id {ADDRESS};\nprotocol device {{}}\n");
    if task.kernel {
        out += "protocol kernel { ipv4 { export all; import none; }; }\n";
    }
    for (i, p) in task.peers.iter().enumerate() {
        let (export, client) = match p.role {
            Role::Feeder => ("none", ""),
            Role::Monitor => ("all", ""),
            Role::Client => ("all", "rr client; rr cluster id 10.0.0.1;"),
        };
        let _ = writeln!(
            out,
            "protocol bgp p{i} {{ local {ADDRESS} as {ASN}; neighbor {} as {}; passive; {client} \
             ipv4 {{ import all; export {export}; }}; }}",
            p.addr, p.asn
        );
    }
    out
}

fn frr(task: &Task) -> String {
    let mut out = format!(
        "router bgp {ASN}\n bgp router-id {ADDRESS}\n no bgp ebgp-requires-policy\n \
         no bgp default ipv4-unicast\n bgp cluster-id {ADDRESS}\n"
    );
    for p in &task.peers {
        let _ = writeln!(out, " neighbor {} remote-as {}", p.addr, p.asn);
        let _ = writeln!(out, " neighbor {} passive", p.addr);
    }
    out += " address-family ipv4 unicast\n";
    for p in &task.peers {
        let _ = writeln!(out, "  neighbor {} activate", p.addr);
        match p.role {
            Role::Feeder => drop(writeln!(out, "  neighbor {} route-map NONE out", p.addr)),
            Role::Monitor => {}
            Role::Client => drop(writeln!(
                out,
                "  neighbor {} route-reflector-client",
                p.addr
            )),
        }
    }
    out += " exit-address-family\nroute-map NONE deny 10\n";
    out
}

fn gobgp(task: &Task) -> String {
    let mut out = format!(
        "[global.config]\n as = {ASN}\n router-id = \"{ADDRESS}\"\n local-address-list = [\"{ADDRESS}\"]\n\
         [global.apply-policy.config]\n export-policy-list = [\"quiet\"]\n \
         default-export-policy = \"accept-route\"\n"
    );
    for p in &task.peers {
        let _ = writeln!(
            out,
            "[[neighbors]]\n [neighbors.config]\n  neighbor-address = \"{}\"\n  peer-as = {}\n \
             [neighbors.transport.config]\n  passive-mode = true\n \
             [[neighbors.afi-safis]]\n  [neighbors.afi-safis.config]\n   afi-safi-name = \"ipv4-unicast\"",
            p.addr, p.asn
        );
        if p.role == Role::Client {
            let _ = writeln!(
                out,
                " [neighbors.route-reflector.config]\n  route-reflector-client = true\n  \
                 route-reflector-cluster-id = \"{ADDRESS}\""
            );
        }
    }
    let feeders: Vec<String> = task
        .peers
        .iter()
        .filter(|p| p.role == Role::Feeder)
        .map(|p| format!("\"{}\"", p.addr))
        .collect();
    let feeders = match feeders.is_empty() {
        true => "\"192.0.2.1\"".to_owned(),
        false => feeders.join(", "),
    };
    let _ = writeln!(
        out,
        "[[defined-sets.neighbor-sets]]\n neighbor-set-name = \"feeders\"\n \
         neighbor-info-list = [{feeders}]\n\
         [[policy-definitions]]\n name = \"quiet\"\n [[policy-definitions.statements]]\n  name = \"one\"\n  \
         [policy-definitions.statements.conditions.match-neighbor-set]\n   neighbor-set = \"feeders\"\n  \
         [policy-definitions.statements.actions]\n   route-disposition = \"reject-route\""
    );
    out
}
