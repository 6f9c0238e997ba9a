//! ExaBGP: it has no table, and says each message that it hears as a line of JSON.

use super::{Seen, Side, Stranger, US, carried, family, list, med, number, text};
use crate::support::program::Program;
use crate::support::until;
use netlink::netns::NetNs;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard};

/// ExaBGP, and the table out of what it has heard.
#[derive(Debug)]
pub struct ExaBgp {
    program: Program,
    commands: File,
    side: Side,
    told: Mutex<BTreeMap<String, bool>>,
    heard: Mutex<Heard>,
}

/// What has been heard so far.
#[derive(Debug, Default)]
struct Heard {
    /// How far it has been read.
    at: u64,
    /// By session, prefix and number of the path.
    table: BTreeMap<(String, String, String), Seen>,
    /// The state of each session as it says it.
    states: BTreeMap<String, String>,
    /// NOTIFICATIONs, as they were said.
    ends: Vec<String>,
}

/// What stands within `neighbor` for both families.
fn neighbors(side: &Side, told: &BTreeMap<String, bool>) -> Vec<(&'static str, String)> {
    let both = US.into_iter().zip(["10.0.0.2", "fd00::2"]);
    both.map(|(us, them)| (us, neighbor(side, told, us, them)))
        .collect()
}

fn neighbor(side: &Side, told: &BTreeMap<String, bool>, us: &str, them: &str) -> String {
    let mut inside = String::new();
    if let Some(key) = side.key {
        let _ = write!(inside, "md5-password {key}; ");
    }
    if side.near {
        inside += "outgoing-ttl 255; incoming-ttl 255; ";
    }
    let f = carried(side, us);
    let mut can = "route-refresh enable; ".to_owned();
    if side.several {
        can += "add-path send/receive; ";
        let _ = write!(inside, "add-path {{ {f} unicast; }} ");
    }
    if let Some(time) = side.restart {
        let _ = write!(can, "graceful-restart {time}; ");
    }
    let extended = if side.extended { "enable" } else { "disable" };
    let _ = write!(can, "extended-message {extended}; ");
    if side.crossed {
        can += "nexthop enable; ";
        inside += "nexthop { ipv4 unicast ipv6; } ";
    }
    let own = told.iter().filter(|(p, _)| family(p) == f);
    let own: String = own.map(|(p, c)| route(p, *c, side) + "; ").collect();
    format!(
        "router-id 10.0.0.2; local-address {them}; local-as {}; peer-as 64512; {inside} \
         family {{ {f} unicast; }} capability {{ {can} }} static {{ {own} }}",
        side.asn
    )
}

/// The whole of its configuration, and the program that writes down what it hears.
fn write(dir: &Path, neighbors: &[(&str, String)]) {
    let path = |name: &str| dir.join(name).display().to_string();
    let mut out = format!(
        "process out {{ run /bin/sh {}; encoder json; }}\n\
         process in {{ run /bin/cat {}; encoder text; }}\n",
        path("write"),
        path("commands"),
    );
    for (us, inside) in neighbors {
        let _ = writeln!(
            out,
            "neighbor {us} {{ {inside} api {{ processes [ out in ]; neighbor-changes; \
             receive {{ parsed; update; notification; }} }} }}"
        );
    }
    std::fs::write(path("conf"), out).unwrap();
    // It takes the end of a program's output for its death: so the shell stays.
    std::fs::write(path("write"), format!("cat >> {}\n:\n", path("heard"))).unwrap();
}

impl ExaBgp {
    /// With what stands within `neighbor`, for each address of ours.
    pub fn with(ns: &NetNs, side: &Side, neighbors: &[(&str, String)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let fifo = dir.path().join("commands");
        let mode = rustix::fs::Mode::RWXU;
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        // For both, so that opening waits for nobody.
        let commands = File::options().read(true).write(true).open(&fifo).unwrap();
        write(dir.path(), neighbors);
        let mut args = [
            "exabgp_daemon_user=root",
            "exabgp_api_cli=false",
            "exabgp_api_ack=false",
            "exabgp_log_destination=stdout",
            "exabgp",
        ]
        .map(str::to_owned)
        .to_vec();
        args.push(path("conf"));
        Self {
            program: Program::start(ns, dir, "/usr/bin/env", args),
            commands,
            side: side.clone(),
            told: Mutex::default(),
            heard: Mutex::default(),
        }
    }

    /// `announce route ...`, `withdraw route ...`.
    pub fn say(&self, command: &str) {
        writeln!(&self.commands, "{command}").unwrap();
    }

    /// All that it has heard up to now.
    fn heard(&self) -> MutexGuard<'_, Heard> {
        let mut heard = self.heard.lock().unwrap();
        let Ok(mut file) = File::open(self.program.file("heard")) else {
            return heard;
        };
        let mut more = String::new();
        file.seek(SeekFrom::Start(heard.at)).unwrap();
        file.read_to_string(&mut more).unwrap();
        // What is behind the last end of a line is not whole yet.
        let whole = more.rfind('\n').map_or(0, |n| n + 1);
        heard.at += whole as u64;
        for line in more[..whole].lines() {
            if let Ok(v) = serde_json::from_str(line) {
                heard.take(&v);
            }
        }
        heard
    }
}

/// A route of its own, as it is written in a command and in a file.
fn route(prefix: &str, coloured: bool, side: &Side) -> String {
    let hop = side.hop(prefix);
    // It puts its own AS in front only where nothing is said of the path.
    let own = match side.asn {
        64512 => String::new(),
        asn => asn.to_string(),
    };
    let more = match coloured {
        true => format!(
            "med 77 as-path [ {own} 65010 65011 ] community [ 65001:7 65001:8 ] \
             large-community [ 65001:1:2 ] extended-community [ target:65001:9 ]"
        ),
        false => String::new(),
    };
    format!("route {prefix} next-hop {hop} {more}")
}

impl Heard {
    fn take(&mut self, line: &Value) {
        let from = text(&line["neighbor"]["address"]["peer"]);
        match line["type"].as_str() {
            Some("state") => {
                let state = text(&line["neighbor"]["state"]);
                if state != "up" {
                    self.table.retain(|(who, _, _), _| *who != from);
                }
                self.states.insert(from, state);
            }
            Some("notification") => self.ends.push(line.to_string()),
            Some("update") => self.update(&from, &line["neighbor"]["message"]["update"]),
            _ => {}
        }
    }

    fn update(&mut self, from: &str, update: &Value) {
        let key = |n: &Value| {
            (
                from.to_owned(),
                text(&n["nlri"]),
                text(&n["path-information"]),
            )
        };
        for f in ["ipv4 unicast", "ipv6 unicast"] {
            for n in list(&update["withdraw"][f]) {
                self.table.remove(&key(n));
            }
            let announced = update["announce"][f].as_object();
            for (hop, routes) in announced.into_iter().flatten() {
                let path = seen(&update["attribute"], hop);
                for n in list(routes) {
                    self.table.insert(key(n), path.clone());
                }
            }
        }
    }
}

impl Stranger for ExaBgp {
    fn start(ns: &NetNs, side: &Side) -> Self {
        Self::with(ns, side, &neighbors(side, &BTreeMap::new()))
    }

    fn tell(&self, prefix: &str, coloured: bool) {
        self.told
            .lock()
            .unwrap()
            .insert(prefix.to_owned(), coloured);
        let us = US[usize::from((family(prefix) == "ipv6") != self.side.crossed)];
        let route = route(prefix, coloured, &self.side);
        self.say(&format!("neighbor {us} announce {route}"));
    }

    fn untell(&self, prefix: &str) {
        self.told.lock().unwrap().remove(prefix);
        let us = US[usize::from((family(prefix) == "ipv6") != self.side.crossed)];
        let route = route(prefix, false, &self.side);
        self.say(&format!("neighbor {us} withdraw {route}"));
    }

    fn paths(&self, prefix: &str) -> Vec<Seen> {
        let heard = self.heard();
        let of = heard.table.iter().filter(|((_, p, _), _)| p == prefix);
        of.map(|(_, seen)| seen.clone()).collect()
    }

    fn count(&self) -> Option<usize> {
        let heard = self.heard();
        let of_us = heard.table.keys().filter(|(who, _, _)| who == US[0]);
        Some(of_us.count())
    }

    fn session(&self, us: &str) -> String {
        let heard = self.heard();
        format!("{:?} {:?}", heard.states.get(us), heard.ends)
    }

    fn is_up(&self, us: &str) -> bool {
        self.heard().states.get(us).is_some_and(|s| s == "up")
    }

    fn reset(&self) {
        for us in US {
            self.say(&format!("neighbor {us} teardown 4"));
        }
    }

    fn end(&self, us: &str, _words: &str) {
        self.say(&format!("neighbor {us} teardown 2"));
    }

    fn refresh(&self) -> bool {
        self.say("neighbor 10.0.0.1 announce route-refresh ipv4 unicast");
        true
    }

    fn kill(&mut self) {
        self.program.kill();
    }

    fn recover(&mut self) {
        *self.heard.lock().unwrap() = Heard::default();
        let neighbors = neighbors(&self.side, &self.told.lock().unwrap());
        write(self.program.dir(), &neighbors);
        let _ = std::fs::remove_file(self.program.file("heard"));
        self.program.again(&[]);
    }
}

fn seen(a: &Value, hop: &str) -> Seen {
    let joined = |v: &Value| {
        let each = list(v).map(|n| n.to_string().trim_matches('"').to_owned());
        each.collect::<Vec<_>>().join(":")
    };
    let target = |v: &Value| text(&v["string"]).replace("target:", "rt:");
    Seen {
        path: list(&a["as-path"]).filter_map(number).collect(),
        hop: hop.to_owned(),
        med: med(&a["med"]),
        local_pref: number(&a["local-preference"]),
        communities: list(&a["community"]).map(joined).collect(),
        large: list(&a["large-community"]).map(joined).collect(),
        extended: list(&a["extended-community"]).map(target).collect(),
        originator: a["originator-id"].as_str().map(str::to_owned),
        clusters: list(&a["cluster-list"]).map(text).collect(),
    }
}
