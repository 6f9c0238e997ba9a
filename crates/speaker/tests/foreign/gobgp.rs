//! GoBGP.

use super::{Seen, Side, Stranger, US, carried, family, list, med, number, text};
use crate::support::program::Program;
use crate::support::until;
use netlink::netns::NetNs;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Mutex;

/// GoBGP.
#[derive(Debug)]
pub struct GoBgp {
    program: Program,
    side: Side,
    told: Mutex<BTreeMap<String, bool>>,
}

fn neighbor(side: &Side, us: &str) -> String {
    let mut out = format!(
        "[[neighbors]]\n [neighbors.config]\n  neighbor-address = \"{us}\"\n  peer-as = 64512\n"
    );
    if let Some(key) = side.key {
        let _ = writeln!(out, "  auth-password = \"{key}\"");
    }
    out += " [neighbors.timers.config]\n  connect-retry = 1\n  idle-hold-time-after-reset = 1\n";
    if side.near {
        out += " [neighbors.ttl-security.config]\n  enabled = true\n  ttl-min = 255\n";
    }
    if side.passive {
        out += " [neighbors.transport.config]\n  passive-mode = true\n";
    }
    if let Some(time) = side.restart {
        let _ = write!(
            out,
            " [neighbors.graceful-restart.config]\n  enabled = true\n  restart-time = {time}\n  \
             deferral-time = 5\n  notification-enabled = true\n  long-lived-enabled = {}\n",
            side.long_lived.is_some()
        );
    }
    let _ = write!(
        out,
        " [[neighbors.afi-safis]]\n  [neighbors.afi-safis.config]\n   \
         afi-safi-name = \"{}-unicast\"\n",
        carried(side, us)
    );
    if side.restart.is_some() {
        out += "  [neighbors.afi-safis.mp-graceful-restart.config]\n   enabled = true\n";
    }
    if let Some(time) = side.long_lived {
        let _ = write!(
            out,
            "  [neighbors.afi-safis.long-lived-graceful-restart.config]\n   enabled = true\n   \
             restart-time = {time}\n"
        );
    }
    if side.several {
        out += "  [neighbors.afi-safis.add-paths.config]\n   receive = true\n   send-max = 8\n";
    }
    out
}

fn config(side: &Side) -> String {
    let mut out = format!(
        "[global.config]\n as = {}\n router-id = \"10.0.0.2\"\n \
         local-address-list = [\"10.0.0.2\", \"fd00::2\"]\n",
        side.asn
    );
    out += &US.map(|us| neighbor(side, us)).concat();
    for (at, asn) in &side.feeders {
        let _ = write!(
            out,
            "[[neighbors]]\n [neighbors.config]\n  neighbor-address = \"{at}\"\n  \
             peer-as = {asn}\n [neighbors.transport.config]\n  passive-mode = true\n"
        );
    }
    out
}

impl GoBgp {
    /// With a configuration of its own.
    pub fn with(ns: &NetNs, side: &Side, config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("conf");
        std::fs::write(&file, config).unwrap();
        let file = file.display().to_string();
        let args = ["-f", &file, "-t", "toml", "--api-hosts", "127.0.0.1:50051"];
        let args = args.map(str::to_owned).to_vec();
        let program = Program::start(ns, dir, "/usr/bin/gobgpd", args);
        let this = Self {
            program,
            side: side.clone(),
            told: Mutex::default(),
        };
        this.answers();
        this
    }

    fn answers(&self) {
        until("GoBGP answers", || self.try_ask("global"), Option::is_some);
    }

    fn try_ask(&self, command: &str) -> Option<String> {
        let args: Vec<&str> = command.split_whitespace().collect();
        self.program
            .tool("gobgp", &[&["-p", "50051"], &*args].concat())
    }

    /// Does a command of `gobgp`; what it says.
    #[track_caller]
    pub fn ask(&self, command: &str) -> String {
        self.try_ask(command).unwrap()
    }

    fn json(&self, command: &str) -> Value {
        let said = self.try_ask(&format!("{command} -j")).unwrap_or_default();
        serde_json::from_str(&said).unwrap_or_default()
    }

    /// What it knows of a peer.
    pub fn neighbor(&self, addr: &str) -> Value {
        let all = self.json("neighbor");
        let found = list(&all).find(|n| n["conf"]["neighbor_address"] == addr);
        found.cloned().unwrap_or_default()
    }
}

impl Stranger for GoBgp {
    fn start(ns: &NetNs, side: &Side) -> Self {
        Self::with(ns, side, &config(side))
    }

    fn tell(&self, prefix: &str, coloured: bool) {
        self.told
            .lock()
            .unwrap()
            .insert(prefix.to_owned(), coloured);
        let (hop, f) = (self.side.hop(prefix), family(prefix));
        let more = match coloured {
            true => {
                "med 77 community 65001:7,65001:8 large-community 65001:1:2 rt 65001:9 \
                 aspath 65010,65011"
            }
            false => "",
        };
        self.ask(&format!(
            "global rib add {prefix} nexthop {hop} {more} -a {f}"
        ));
    }

    fn untell(&self, prefix: &str) {
        self.told.lock().unwrap().remove(prefix);
        self.ask(&format!("global rib del {prefix} -a {}", family(prefix)));
    }

    fn paths(&self, prefix: &str) -> Vec<Seen> {
        let f = family(prefix);
        let all = self.json(&format!("global rib {prefix} -a {f}"));
        let other = list(&all[prefix]).filter(|p| p["neighbor-ip"].is_string());
        other.map(seen).collect()
    }

    fn count(&self) -> Option<usize> {
        let all = self.json("global rib summary -a ipv4");
        usize::try_from(all["num_path"].as_u64().unwrap_or_default()).ok()
    }

    fn session(&self, us: &str) -> String {
        format!("{:#}\n{}", self.neighbor(us), self.program.log())
    }

    fn is_up(&self, us: &str) -> bool {
        // `ESTABLISHED` of its API.
        self.neighbor(us)["state"]["session_state"] == 6
    }

    /// After what it calls a reset it is idle for half a minute.
    fn reset(&self) {
        for us in US {
            self.ask(&format!("neighbor {us} disable"));
            self.ask(&format!("neighbor {us} enable"));
        }
    }

    fn end(&self, us: &str, words: &str) {
        let reason = format!("--reason={words}");
        let args = ["-p", "50051", "neighbor", us, "shutdown", &reason];
        self.program.tool("gobgp", &args).unwrap();
    }

    /// What it calls a soft reset of what comes in asks nobody anything.
    fn refresh(&self) -> bool {
        false
    }

    fn kill(&mut self) {
        self.program.kill();
    }

    fn recover(&mut self) {
        // What it has to tell it is told by commands, which must be done before it speaks.
        let quiet = config(&self.side).replace(
            "peer-as = 64512\n",
            "peer-as = 64512\n  admin-down = true\n",
        );
        std::fs::write(self.program.file("conf"), quiet).unwrap();
        self.program.again(&["-r"]);
        self.answers();
        let told = self.told.lock().unwrap().clone();
        for (prefix, coloured) in told {
            self.tell(&prefix, coloured);
        }
        for us in US {
            self.ask(&format!("neighbor {us} enable"));
        }
    }
}

fn seen(p: &Value) -> Seen {
    let mut out = Seen::default();
    for a in list(&p["attrs"]) {
        match a["type"].as_u64() {
            Some(2) => {
                let segments = list(&a["as_paths"]);
                let asns = segments.flat_map(|s| list(&s["asns"]));
                out.path = asns.filter_map(number).collect();
            }
            Some(3 | 14) => out.hop = text(&a["nexthop"]),
            Some(4) => out.med = med(&a["metric"]),
            Some(5) => out.local_pref = number(&a["value"]),
            Some(8) => {
                let pair = |n: u32| format!("{}:{}", n >> 16, n & 0xffff);
                let each = list(&a["communities"]).filter_map(number);
                out.communities = each.map(pair).collect();
            }
            Some(9) => out.originator = a["value"].as_str().map(str::to_owned),
            Some(10) => out.clusters = list(&a["value"]).map(text).collect(),
            Some(16) => {
                // Route targets alone are told.
                let of = |v: &Value| format!("rt:{}", text(&v["value"]));
                out.extended = list(&a["value"]).map(of).collect();
            }
            Some(32) => {
                let of =
                    |v: &Value| format!("{}:{}:{}", v["ASN"], v["LocalData1"], v["LocalData2"]);
                out.large = list(&a["value"]).map(of).collect();
            }
            _ => {}
        }
    }
    out
}
