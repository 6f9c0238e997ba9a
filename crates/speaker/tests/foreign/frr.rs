//! FRR's bgpd, without zebra.

use super::{Seen, Side, Stranger, US, carried, family, list, med, number, text, words};
use crate::support::program::Program;
use crate::support::until;
use netlink::netns::NetNs;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Mutex;

/// FRR's bgpd.
#[derive(Debug)]
pub struct Frr {
    program: Program,
    side: Side,
    told: Mutex<BTreeMap<String, bool>>,
}

const MAPS: &str = "\
route-map coloured permit 10
 set community 65001:7 65001:8
 set large-community 65001:1:2
 set extcommunity rt 65001:9
 set metric 77
 set as-path prepend 65010 65011
 set ipv6 next-hop global fd00::2
route-map plain permit 10
 set ipv6 next-hop global fd00::2
";

fn config(side: &Side, told: &BTreeMap<String, bool>) -> String {
    let mut router = String::new();
    let mut families = [String::new(), String::new()];
    if let Some(time) = side.restart {
        let _ = write!(
            router,
            " bgp graceful-restart\n bgp graceful-restart preserve-fw-state\n \
             bgp graceful-restart restart-time {time}\n \
             bgp graceful-restart select-defer-time 5\n"
        );
    }
    if let Some(time) = side.long_lived {
        let _ = writeln!(router, " bgp long-lived-graceful-restart stale-time {time}");
    }
    for us in US {
        let mut say = |words: &str| {
            let _ = writeln!(router, " neighbor {us} {words}");
        };
        say("remote-as 64512");
        say("timers connect 1");
        say("advertisement-interval 0");
        if let Some(key) = side.key {
            say(&format!("password {key}"));
        }
        if side.near {
            say("ttl-security hops 1");
        }
        if side.passive {
            say("passive");
        }
        if side.crossed {
            say("capability extended-nexthop");
        }
        if let Some((role, strict)) = side.role {
            let strict = if strict { " strict-mode" } else { "" };
            say(&format!("local-role {role}{strict}"));
        }
        let inside = &mut families[usize::from(carried(side, us) == "ipv6")];
        let _ = writeln!(inside, "  neighbor {us} activate");
        if side.crossed {
            // Over IPv4 it would tell its IPv4 address as one of IPv6.
            let _ = writeln!(inside, "  neighbor {us} route-map plain out");
        }
        if side.several {
            let _ = writeln!(inside, "  neighbor {us} addpath-tx-all-paths");
        }
    }
    for (at, asn) in &side.feeders {
        let _ = writeln!(
            router,
            " neighbor {at} remote-as {asn}\n neighbor {at} passive"
        );
        let _ = writeln!(families[0], "  neighbor {at} activate");
    }
    for (prefix, coloured) in told {
        let inside = &mut families[usize::from(family(prefix) == "ipv6")];
        let _ = writeln!(inside, "  {}", network(prefix, *coloured));
    }
    format!(
        "{MAPS}router bgp {}\n bgp router-id 10.0.0.2\n no bgp ebgp-requires-policy\n \
         no bgp network import-check\n no bgp default ipv4-unicast\n{router} \
         address-family ipv4 unicast\n{} exit-address-family\n \
         address-family ipv6 unicast\n{} exit-address-family\n",
        side.asn, families[0], families[1]
    )
}

fn network(prefix: &str, coloured: bool) -> String {
    let map = if coloured { "coloured" } else { "plain" };
    format!("network {prefix} route-map {map}")
}

impl Frr {
    /// With a configuration of its own.
    pub fn with(ns: &NetNs, side: &Side, listen: &[&str], config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let mut args = ["-Z", "-n", "-S", "-P", "0"].map(str::to_owned).to_vec();
        let more = [("-f", path("conf")), ("-i", path("pid"))];
        for (flag, value) in more {
            args.extend([flag.to_owned(), value]);
        }
        for at in listen {
            args.extend(["-l".to_owned(), (*at).to_owned()]);
        }
        args.extend(["--vty_socket".to_owned(), dir.path().display().to_string()]);
        std::fs::write(path("conf"), config).unwrap();
        let program = Program::start(ns, dir, "/usr/lib/frr/bgpd", args);
        let this = Self {
            program,
            side: side.clone(),
            told: Mutex::default(),
        };
        this.answers();
        this
    }

    fn answers(&self) {
        let ask = || self.try_ask(&["show version"]);
        until("FRR answers", ask, Option::is_some);
    }

    fn try_ask(&self, commands: &[&str]) -> Option<String> {
        let dir = self.program.dir().display().to_string();
        let mut args = vec!["--vty_socket", &dir];
        for c in commands {
            args.extend(["-c", c]);
        }
        self.program.tool("vtysh", &args)
    }

    /// Does these commands; what it says.
    #[track_caller]
    pub fn ask(&self, commands: &[&str]) -> String {
        self.try_ask(commands).unwrap()
    }

    /// Changes its configuration within `router bgp`.
    #[track_caller]
    fn configure(&self, commands: &[&str]) {
        let router = format!("router bgp {}", self.side.asn);
        let mut all = vec!["configure terminal", &router];
        all.extend(commands);
        self.ask(&all);
    }

    fn json(&self, command: &str) -> Value {
        let said = self.try_ask(&[command]).unwrap_or_default();
        serde_json::from_str(&said).unwrap_or_default()
    }

    /// What it knows of a peer.
    pub fn neighbor(&self, addr: &str) -> Value {
        self.json(&format!("show bgp neighbors {addr} json"))[addr].clone()
    }

    fn of_family(&self, prefix: &str, command: &str) {
        let inside = format!("address-family {} unicast", family(prefix));
        self.configure(&[&inside, command]);
    }
}

impl Stranger for Frr {
    fn start(ns: &NetNs, side: &Side) -> Self {
        let none = BTreeMap::new();
        Self::with(ns, side, &["10.0.0.2", "fd00::2"], &config(side, &none))
    }

    fn tell(&self, prefix: &str, coloured: bool) {
        self.told
            .lock()
            .unwrap()
            .insert(prefix.to_owned(), coloured);
        self.of_family(prefix, &network(prefix, coloured));
    }

    fn untell(&self, prefix: &str) {
        self.told.lock().unwrap().remove(prefix);
        self.of_family(prefix, &format!("no network {prefix}"));
    }

    fn paths(&self, prefix: &str) -> Vec<Seen> {
        let f = family(prefix);
        let all = self.json(&format!("show bgp {f} unicast {prefix} json"));
        let other = list(&all["paths"]).filter(|p| p["local"] != true);
        other.map(seen).collect()
    }

    fn count(&self) -> Option<usize> {
        let all = self.json("show bgp ipv4 unicast summary json");
        let n = all["peers"][US[0]]["pfxRcd"].as_u64()?;
        usize::try_from(n).ok()
    }

    fn session(&self, us: &str) -> String {
        format!("{:#}", self.neighbor(us))
    }

    fn is_up(&self, us: &str) -> bool {
        self.neighbor(us)["bgpState"] == "Established"
    }

    fn reset(&self) {
        self.ask(&["clear bgp *"]);
    }

    fn end(&self, us: &str, words: &str) {
        self.configure(&[&format!("neighbor {us} shutdown message {words}")]);
    }

    fn refresh(&self) -> bool {
        self.ask(&["clear bgp ipv4 unicast 10.0.0.1 soft in"]);
        true
    }

    fn kill(&mut self) {
        self.program.kill();
    }

    fn recover(&mut self) {
        let config = config(&self.side, &self.told.lock().unwrap());
        std::fs::write(self.program.file("conf"), config).unwrap();
        self.program.again(&[]);
        self.answers();
    }
}

fn seen(p: &Value) -> Seen {
    let path = text(&p["aspath"]["string"]);
    let extended = words(&p["extendedCommunity"]["string"]);
    Seen {
        path: path
            .split_whitespace()
            .filter_map(|a| a.parse().ok())
            .collect(),
        // A global address comes before the link-local one.
        hop: text(&p["nexthops"][0]["ip"]),
        med: med(&p["metric"]),
        local_pref: number(&p["locPrf"]),
        communities: list(&p["community"]["list"]).map(text).collect(),
        large: words(&p["largeCommunity"]["string"]),
        extended: extended.iter().map(|c| c.to_lowercase()).collect(),
        originator: p["originatorId"].as_str().map(str::to_owned),
        clusters: list(&p["clusterList"]["list"]).map(text).collect(),
    }
}
