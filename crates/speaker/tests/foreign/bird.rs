//! BIRD as one stranger among others.

use super::{Seen, Side, Stranger, US, carried, family};
use crate::support;
use netlink::netns::NetNs;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Mutex;

const ID: &str = "10.0.0.2";

/// BIRD 2; what it tells is in its configuration, which is written anew.
#[derive(Debug)]
pub struct Bird {
    pub bird: support::Bird,
    side: Side,
    told: Mutex<BTreeMap<String, bool>>,
}

fn session(side: &Side, us: &str) -> String {
    let six = us.contains(':');
    let (name, them) = if six {
        ("m6", "fd00::2")
    } else {
        ("m4", "10.0.0.2")
    };
    let mut more = String::new();
    let mut say = |words: String| {
        let _ = write!(more, " {words};");
    };
    if let Some(key) = side.key {
        say(format!("password \"{key}\""));
    }
    if side.near {
        say("ttl security on".into());
    }
    if side.passive {
        say("passive".into());
    }
    if let Some(time) = side.restart {
        say(format!("graceful restart on; graceful restart time {time}"));
    }
    if let Some(time) = side.long_lived {
        say(format!(
            "long lived graceful restart on; long lived stale time {time}"
        ));
    }
    if side.extended {
        say("enable extended messages on".into());
    }
    if let Some((role, strict)) = side.role {
        let role = role.replace('-', "_");
        let strict = if strict { "on" } else { "off" };
        say(format!("local role {role}; require roles {strict}"));
    }
    let mut channel = String::new();
    if side.several {
        channel += " add paths on;";
    }
    if side.crossed {
        channel += if six {
            " extended next hop on;"
        } else {
            " next hop address fd00::2;"
        };
    }
    // The MED of a route of its own it tells another AS only if a filter says so.
    let own = match side.feeders.is_empty() {
        true => "if source != RTS_STATIC then reject;",
        false => "",
    };
    let export = format!(
        "export filter {{ {own} if source = RTS_STATIC && (65001,7) ~ bgp_community then \
         bgp_med = 77; accept; }}"
    );
    format!(
        "protocol bgp {name} {{ local {them} as {}; neighbor {us} as 64512; debug {{ packets }}; \
         connect delay time 1; connect retry time 1; error wait time 1, 2;{more} \
         {} {{ import all; {export};{channel} }}; }}\n",
        side.asn,
        carried(side, us)
    )
}

fn config(side: &Side, told: &BTreeMap<String, bool>) -> String {
    let mut out = US.map(|us| session(side, us)).concat();
    for (i, (at, asn)) in side.feeders.iter().enumerate() {
        let _ = writeln!(
            out,
            "protocol bgp f{i} {{ local 10.0.0.2 as {}; neighbor {at} as {asn}; passive; \
             enable extended messages {}; ipv4 {{ import all; export none; }}; }}",
            side.asn,
            if side.extended { "on" } else { "off" }
        );
    }
    for f in ["ipv4", "ipv6"] {
        let mut routes = String::new();
        for (prefix, coloured) in told.iter().filter(|(p, _)| family(p) == f) {
            let with = match coloured {
                true => {
                    "bgp_community.add((65001,7)); bgp_community.add((65001,8)); \
                     bgp_large_community.add((65001,1,2)); bgp_ext_community.add((rt,65001,9)); \
                     bgp_path.prepend(65011); bgp_path.prepend(65010);"
                }
                false => "",
            };
            let _ = write!(routes, "route {prefix} blackhole {{ {with} }}; ");
        }
        let _ = writeln!(out, "protocol static s{f} {{ {f}; {routes} }}");
        if side.kernel {
            let _ = writeln!(
                out,
                "protocol kernel k{f} {{ persist; graceful restart; \
                 {f} {{ import none; export where source = RTS_BGP; }}; }}"
            );
        }
    }
    out
}

impl Bird {
    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, bool>)) {
        let mut told = self.told.lock().unwrap();
        change(&mut told);
        self.bird.configure(ID, &config(&self.side, &told));
    }
}

impl Stranger for Bird {
    const IN_KERNEL: bool = true;

    fn start(ns: &NetNs, side: &Side) -> Self {
        let told = BTreeMap::new();
        Self {
            bird: support::Bird::start(ns, ID, &config(side, &told)),
            side: side.clone(),
            told: Mutex::new(told),
        }
    }

    fn tell(&self, prefix: &str, coloured: bool) {
        self.change(|t| {
            t.insert(prefix.to_owned(), coloured);
        });
    }

    fn untell(&self, prefix: &str) {
        self.change(|t| {
            t.remove(prefix);
        });
    }

    fn paths(&self, prefix: &str) -> Vec<Seen> {
        seen(&self.bird.route(prefix))
    }

    /// It shows but the beginning of a long list.
    fn carries(&self, prefix: &str, community: &str) -> bool {
        let pair = community.replace(':', ",");
        let ask = format!("show route {prefix} where ({pair}) ~ bgp_community");
        self.bird.ask(&ask).contains(prefix)
    }

    fn count(&self) -> Option<usize> {
        let said = self.bird.ask("show route protocol m4 count");
        let first = said.split([' ', '-']).nth(1)?;
        first.parse().ok()
    }

    fn session(&self, us: &str) -> String {
        let name = if us.contains(':') { "m6" } else { "m4" };
        self.bird.ask(&format!("show protocols all {name}")) + &self.bird.log()
    }

    fn is_up(&self, us: &str) -> bool {
        let name = if us.contains(':') { "m6" } else { "m4" };
        let said = self.bird.ask(&format!("show protocols {name}"));
        said.contains("Established")
    }

    fn reset(&self) {
        self.bird.ask("restart m4");
        self.bird.ask("restart m6");
    }

    fn end(&self, us: &str, words: &str) {
        let name = if us.contains(':') { "m6" } else { "m4" };
        self.bird.ask(&format!("disable {name} \"{words}\""));
    }

    fn refresh(&self) -> bool {
        self.bird.ask("reload in m4");
        true
    }

    fn kill(&mut self) {
        self.bird.kill();
    }

    fn recover(&mut self) {
        self.bird.recover();
    }
}

/// The paths of an answer that came over BGP.
fn seen(said: &str) -> Vec<Seen> {
    let mut out: Vec<Seen> = Vec::new();
    let mut of_bgp = false;
    let each = |v: &str| -> Vec<String> {
        let bare = v
            .replace(", ", ":")
            .replace(['(', ')'], "")
            .replace(',', ":");
        bare.split_whitespace().map(str::to_owned).collect()
    };
    for line in said.lines() {
        if let Some((_, kind)) = line.split_once("\tType: ") {
            of_bgp = kind.starts_with("BGP");
            if of_bgp {
                out.push(Seen::default());
            }
        }
        let Some((name, value)) = line.split_once(": ").filter(|_| of_bgp) else {
            continue;
        };
        let (Some(name), Some(path)) = (name.split("BGP.").nth(1), out.last_mut()) else {
            continue;
        };
        match name {
            "as_path" => {
                path.path = value
                    .split_whitespace()
                    .filter_map(|a| a.parse().ok())
                    .collect();
            }
            // A global address comes before the link-local one.
            "next_hop" => {
                path.hop = value
                    .split_whitespace()
                    .next()
                    .unwrap_or_default()
                    .to_owned();
            }
            "med" => path.med = value.parse().ok().filter(|m| *m != 0),
            "local_pref" => path.local_pref = value.parse().ok(),
            "community" => path.communities = each(value),
            "large_community" => path.large = each(value),
            "ext_community" => path.extended = each(value),
            "originator_id" => path.originator = Some(value.to_owned()),
            "cluster_list" => path.clusters = each(value),
            _ => {}
        }
    }
    out
}
