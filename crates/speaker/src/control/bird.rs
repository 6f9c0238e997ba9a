//! BIRD's language, as version 1.6 speaks it, so that calicoctl, probes and birdc understand.
//!
//! Promises: reply codes, columns and words that programs look at are BIRD's; what we do not have is
//! refused as BIRD refuses what it does not know. One socket speaks of one family.

use super::Server;
use super::lookup;
use super::peers::{PeerReport, id_of, name_of};
use super::report::capabilities;
use crate::engine::View;
use bgp::attr::{Attributes, Origin};
use bgp::rib::PeerId;
use bgp::router::{Audience, PathReport, PathStatus};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use net::{Cidr, Family};
use std::collections::HashMap;
use std::io::{self, Write};
use std::time::{Duration, SystemTime};

/// The version whose language this is, and ours behind it.
const VERSION: &str = concat!("v1.6.8+manx", env!("CARGO_PKG_VERSION"));
/// Reply codes.
const HELLO: u16 = 1;
const STATUS_OK: u16 = 13;
const COUNT: u16 = 14;
const RESTARTING: u16 = 24;
const BIRD_VERSION: u16 = 1000;
const PROTOCOLS: u16 = 1002;
const PROTOCOL_DETAILS: u16 = 1006;
const ROUTE: u16 = 1007;
const ROUTE_TYPE: u16 = 1008;
const UPTIME: u16 = 1011;
const BFD: u16 = 1020;
const ATTRIBUTES: u16 = 1012;
const PROTOCOL_HEAD: u16 = 2002;
const NO_NETWORK: u16 = 8001;
const NO_PROTOCOL: u16 = 8003;
const SYNTAX: u16 = 9001;

/// Says that we are there.
///
/// # Errors
/// When the client is gone.
pub(super) fn hello(out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{HELLO:04} BIRD {VERSION} ready.")
}

/// An answer being written: lines of one code after another say the code once.
struct Reply<'a, W> {
    out: &'a mut W,
    last: Option<u16>,
}

impl<W: Write> Reply<'_, W> {
    fn line(&mut self, code: u16, text: &str) -> io::Result<()> {
        if self.last.replace(code) == Some(code) {
            writeln!(self.out, " {text}")
        } else {
            writeln!(self.out, "{code:04}-{text}")
        }
    }

    fn end(&mut self, code: u16, text: &str) -> io::Result<()> {
        writeln!(self.out, "{code:04} {text}")
    }
}

/// Answers a command.
///
/// # Errors
/// When the client or the speaker is gone.
pub(super) fn answer(
    server: &Server,
    family: Family,
    command: &str,
    out: &mut impl Write,
) -> io::Result<()> {
    let mut to = Reply { out, last: None };
    let words: Vec<&str> = command.trim_end_matches(';').split_whitespace().collect();
    match words.as_slice() {
        [] => to.end(SYNTAX, "syntax error"),
        ["show", "status"] => server.bird_status(family, &mut to),
        ["show", "protocols"] => server.bird_protocols(family, None, false, &mut to),
        ["show", "protocols", "all"] => server.bird_protocols(family, None, true, &mut to),
        ["show", "protocols", "all", name] | ["show", "protocols", name, "all"] => {
            server.bird_protocols(family, Some(name), true, &mut to)
        }
        ["show", "protocols", name] => server.bird_protocols(family, Some(name), false, &mut to),
        ["show", "bfd", "sessions"] => server.bird_bfd(family, &mut to),
        ["show", "route", rest @ ..] => match Wanted::parse(rest) {
            Ok(wanted) => server.bird_routes(family, wanted, &mut to),
            Err(why) => to.end(SYNTAX, &why),
        },
        _ => to.end(
            SYNTAX,
            "syntax error; known are: show status, show protocols [all] [NAME], show bfd sessions, show route \
             [[for] PREFIX] [all] [primary] [count] [protocol NAME] [export NAME]",
        ),
    }
}

/// A time as BIRD shows it: of the last 20 hours the hour, else the day.
fn shown(at: SystemTime, now: SystemTime) -> String {
    let recent = now.duration_since(at).unwrap_or_default() < Duration::from_secs(20 * 3600);
    local(at, if recent { "%H:%M:%S" } else { "%Y-%m-%d" })
}

fn local(at: SystemTime, format: &str) -> String {
    let at = Timestamp::try_from(at).unwrap_or(Timestamp::UNIX_EPOCH);
    at.to_zoned(TimeZone::system()).strftime(format).to_string()
}

/// Which routes are asked for, and how much of them.
#[derive(Debug, Clone, Default)]
struct Wanted {
    prefix: Option<Cidr>,
    /// The one that it lies in, not itself.
    covering: bool,
    all: bool,
    primary: bool,
    count: bool,
    protocol: Option<String>,
    export: Option<String>,
}

impl Wanted {
    fn parse(words: &[&str]) -> Result<Self, String> {
        let mut out = Self::default();
        let mut words = words.iter();
        let name = |w: Option<&&str>| w.map(|w| (*w).trim_matches('"').to_owned());
        while let Some(word) = words.next() {
            match *word {
                "all" => out.all = true,
                "primary" => out.primary = true,
                "count" | "stats" => out.count = true,
                "protocol" => out.protocol = Some(name(words.next()).ok_or("syntax error")?),
                "export" => out.export = Some(name(words.next()).ok_or("syntax error")?),
                // There is one table, by this name.
                "table" => match words.next() {
                    Some(&"master") => {}
                    _ => return Err("syntax error, the table is called master".to_owned()),
                },
                "for" => {
                    let what = words.next().and_then(|w| lookup::parse(w));
                    out.prefix = Some(what.ok_or("syntax error, an address is missing")?);
                    out.covering = true;
                }
                word => {
                    let prefix = lookup::parse(word);
                    out.prefix = Some(prefix.ok_or_else(|| format!("syntax error at {word:?}"))?);
                }
            }
        }
        Ok(out)
    }
}

impl Server {
    fn bird_status<W: Write>(&self, family: Family, to: &mut Reply<'_, W>) -> io::Result<()> {
        let look = move |v: &View<'_>| {
            let id = v.router.map(|r| r.config().router_id.to_string());
            let restarting = v.router.is_some_and(|r| r.is_restarting(family));
            let missing = v
                .plan
                .peers
                .iter()
                .filter(|p| Family::of(p.address) == family);
            (id, restarting, missing.count())
        };
        let (id, restarting, sessions) = self.speaker.look(look).map_err(Self::gone)?;
        let stamp = |at| local(at, "%Y-%m-%d %H:%M:%S");
        let (now, started) = (SystemTime::now(), self.history.started());
        to.line(BIRD_VERSION, &format!("BIRD {VERSION}"))?;
        let id = id.unwrap_or_else(|| "0.0.0.0".to_owned());
        to.line(UPTIME, &format!("Router ID is {id}"))?;
        to.line(UPTIME, &format!("Current server time is {}", stamp(now)))?;
        to.line(UPTIME, &format!("Last reboot on {}", stamp(started)))?;
        to.line(
            UPTIME,
            &format!("Last reconfiguration on {}", stamp(started)),
        )?;
        if restarting {
            let up = self.peers()?;
            let up = up
                .iter()
                .filter(|p| p.family() == family && p.is_up())
                .count();
            to.line(RESTARTING, "Graceful restart recovery in progress")?;
            let left = sessions.saturating_sub(up);
            to.line(
                RESTARTING,
                &format!("  Waiting for {left} protocols to recover"),
            )?;
        }
        to.end(STATUS_OK, "Daemon is up and running")
    }

    fn bird_protocols<W: Write>(
        &self,
        family: Family,
        name: Option<&str>,
        details: bool,
        to: &mut Reply<'_, W>,
    ) -> io::Result<()> {
        let wanted = name.map(|n| n.trim_matches('"'));
        let is = |n: &str| wanted.is_none_or(|w| glob(w, n));
        let (now, started) = (SystemTime::now(), self.history.started());
        let peers = self.peers()?;
        let peers: Vec<_> = peers
            .iter()
            .filter(|p| p.family() == family && is(&p.name))
            .collect();
        let own = is(STATIC);
        if peers.is_empty() && !own {
            return to.end(NO_PROTOCOL, "No protocols match");
        }
        let row = |name: &str, proto: &str, state: &str, since, info: &str| {
            let (table, since) = ("master", shown(since, now));
            format!("{name:<8} {proto:<8} {table:<8} {state:<5}  {since:<10}  {info}")
        };
        to.line(
            PROTOCOL_HEAD,
            "name     proto    table    state  since       info",
        )?;
        if own {
            to.line(PROTOCOLS, &row(STATIC, "Static", "up", started, ""))?;
            if details {
                to.line(PROTOCOL_DETAILS, "")?;
            }
        }
        for p in peers {
            let state = if p.is_up() { "up" } else { "start" };
            to.line(PROTOCOLS, &row(&p.name, "BGP", state, p.since, &info(p)))?;
            if details {
                for line in self::details(p) {
                    to.line(PROTOCOL_DETAILS, &line)?;
                }
                to.line(PROTOCOL_DETAILS, "")?;
            }
        }
        to.end(0, "")
    }

    fn bird_bfd<W: Write>(&self, family: Family, to: &mut Reply<'_, W>) -> io::Result<()> {
        let now = SystemTime::now();
        let peers = self.peers()?;
        let of_family = peers.iter().filter(|p| p.family() == family);
        let watched: Vec<_> = of_family
            .filter_map(|p| Some((p, p.bfd.as_ref()?)))
            .collect();
        if watched.is_empty() {
            return to.end(NO_PROTOCOL, "There is no BFD protocol running");
        }
        let row = |ip: &str, state: &str, since: &str, interval: &str, timeout: &str| {
            let interface = if ip == HEAD { "Interface" } else { "---" };
            format!("{ip:<25} {interface:<10} {state:<10} {since:<10}  {interval:>8} {timeout:>8}")
        };
        to.line(BFD, "bfd1:")?;
        to.line(BFD, &row(HEAD, "State", "Since", "Interval", "Timeout"))?;
        for (p, bfd) in watched {
            let seconds =
                |t: Option<Duration>| format!("{:.3}", t.unwrap_or_default().as_secs_f64());
            let (interval, timeout) = (seconds(Some(bfd.interval)), seconds(bfd.detection));
            let (ip, since) = (p.peer.address.to_string(), shown(bfd.since(), now));
            let state = bfd.state.to_string();
            to.line(BFD, &row(&ip, &state, &since, &interval, &timeout))?;
        }
        to.end(0, "")
    }

    fn bird_routes<W: Write>(
        &self,
        family: Family,
        wanted: Wanted,
        to: &mut Reply<'_, W>,
    ) -> io::Result<()> {
        let now = SystemTime::now();
        let peers = self.peers()?;
        let known = |n: &String| *n == STATIC || peers.iter().any(|p| p.name == *n);
        let named = wanted.protocol.iter().chain(&wanted.export);
        if let Some(unknown) = named.into_iter().find(|n| !known(n)) {
            return to.end(SYNTAX, &format!("{unknown} is not a protocol"));
        }
        let since: HashMap<String, String> = peers
            .iter()
            .map(|p| (p.name.clone(), shown(p.since, now)))
            .collect();
        let table = Table {
            wanted: wanted.clone(),
            since,
            own: shown(self.history.started(), now),
        };
        let Some(what) = wanted.prefix else {
            let (mut routes, mut nets) = (0, 0);
            let select = move |v: &View<'_>, prefix| table.rows(v, prefix);
            self.walk(family, select, |rows| {
                nets += 1;
                routes += rows.iter().filter(|(code, _)| *code == ROUTE).count();
                if wanted.count {
                    return Ok(());
                }
                rows.iter()
                    .try_for_each(|(code, text)| to.line(*code, text))
            })?;
            return match wanted.count {
                true => to.end(
                    COUNT,
                    &format!("{routes} of {routes} routes for {nets} networks"),
                ),
                false => to.end(0, ""),
            };
        };
        if what.family() != family {
            return to.end(SYNTAX, &format!("{what} is of the other family's socket"));
        }
        let look = move |v: &View<'_>| {
            let prefix = match wanted.covering {
                true => lookup::covering(v.router?, what)?,
                false => what,
            };
            table.rows(v, prefix)
        };
        match self.speaker.look(look).map_err(Self::gone)? {
            None => to.end(NO_NETWORK, "Network not in table"),
            Some(rows) => {
                rows.iter()
                    .try_for_each(|(code, text)| to.line(*code, text))?;
                to.end(0, "")
            }
        }
    }
}

/// The first column of sessions of BFD.
const HEAD: &str = "IP address";

/// Our own routes, as Calico's configuration of BIRD calls them.
const STATIC: &str = "static1";

/// Whether a name fits a pattern of BIRD's, with `*` and `?`.
fn glob(pattern: &str, name: &str) -> bool {
    let (mut p, mut n) = (pattern.chars(), name.chars());
    loop {
        match p.next() {
            None => return n.next().is_none(),
            Some('*') => {
                let rest = p.as_str();
                let mut tails = name.len() - n.as_str().len()..=name.len();
                return tails.any(|i| name.get(i..).is_some_and(|t| glob(rest, t)));
            }
            Some('?') if n.next().is_some() => {}
            Some(c) if n.next() == Some(c) => {}
            _ => return false,
        }
    }
}

/// BGP's state and, while it is not up, why.
fn info(p: &PeerReport) -> String {
    let error = p.error().filter(|_| !p.is_up());
    format!(
        "{:<13} {}",
        p.state().to_string(),
        error.unwrap_or_default()
    )
}

fn details(p: &PeerReport) -> Vec<String> {
    let mut out = vec![
        format!(
            "  Description:    {}",
            p.peer.resource.as_deref().unwrap_or(p.peer.origin.shown())
        ),
        "  Preference:     100".to_owned(),
    ];
    if let Some(s) = &p.status {
        let paths = s.paths[p.family()];
        out.push(format!("  Routes:         {paths} imported"));
    }
    out.push(format!("  BGP state:          {}", p.state()));
    out.push(format!("    Neighbor address: {}", p.peer.address));
    out.push(format!("    Neighbor AS:      {}", p.peer.asn));
    let Some(s) = &p.status else {
        return out;
    };
    if let Some(n) = s.negotiated.as_ref() {
        if let Some(id) = s.router_id {
            out.push(format!("    Neighbor ID:      {id}"));
        }
        let capabilities = capabilities(n).join(" ");
        out.push(format!("    Neighbor caps:    {capabilities}"));
        let kind = if p.peer.external() {
            "external"
        } else {
            "internal"
        };
        let role = if p.peer.client {
            " route-reflector"
        } else {
            ""
        };
        let four = if n.encoding.four_octet_as { " AS4" } else { "" };
        out.push(format!("    Session:          {kind}{role}{four}"));
        if let Some(source) = p.peer.source {
            out.push(format!("    Source address:   {source}"));
        }
        out.push(format!("    Hold timer:       {}", n.hold_time));
    }
    if let Some(bfd) = &p.bfd {
        out.push(format!("    BFD:              {}", bfd.state));
    }
    if let Some(error) = p.error().filter(|_| !p.is_up()) {
        out.push(format!("    Last error:       {error}"));
    }
    out
}

/// What turns a prefix into lines.
struct Table {
    wanted: Wanted,
    /// Since when each peer's session is up.
    since: HashMap<String, String>,
    /// Since when we announce our own.
    own: String,
}

impl Table {
    /// The lines of a prefix, with their codes; `None`: nothing is to be shown.
    fn rows(&self, v: &View<'_>, prefix: Cidr) -> Option<Vec<(u16, String)>> {
        let router = v.router?;
        let audience = match &self.wanted.export {
            Some(peer) => Audience::Only(id_of(v, peer)?),
            None => Audience::Nobody,
        };
        let explained = router.explain_to(prefix, audience)?;
        // Only the one that is asked about is in it.
        if self.wanted.export.is_some() && !explained.exports.iter().any(|x| x.told) {
            return None;
        }
        let best = router.best(prefix);
        let mut out = Vec::new();
        for path in &explained.paths {
            let is_best = path.status == PathStatus::Best;
            if matches!(path.status, PathStatus::Refused(_))
                || ((self.wanted.primary || self.wanted.export.is_some()) && !is_best)
            {
                continue;
            }
            let name = match path.peer {
                PeerId::LOCAL => STATIC.to_owned(),
                id => name_of(v, id).unwrap_or_else(|| "?".to_owned()),
            };
            if self.wanted.protocol.as_deref().is_some_and(|p| p != name) {
                continue;
            }
            // The interface is known of what is in use.
            let next_hop = path.attributes.next_hop;
            let device = best.as_ref().and_then(|b| {
                let used = b.next_hops.iter().find(|(hop, _)| *hop == next_hop);
                used.and_then(|(_, device)| *device)
            });
            let first = out.is_empty();
            let peer = v.ids.iter().find(|(id, _)| *id == path.peer);
            let from = peer.map(|(_, i)| v.plan.peers[*i].address);
            let net = if first {
                prefix.to_string()
            } else {
                String::new()
            };
            let device = device.map(|d| d.to_string());
            out.push((ROUTE, self.row(&net, &name, path, from, device.as_deref())));
            if self.wanted.all {
                let local = path.peer == PeerId::LOCAL;
                let kind = if local {
                    "static unicast"
                } else {
                    "BGP unicast"
                };
                out.push((ROUTE_TYPE, format!("\tType: {kind} univ")));
                if !local {
                    let lines = attributes(&path.attributes);
                    out.extend(lines.into_iter().map(|l| (ATTRIBUTES, l)));
                }
            }
        }
        (!out.is_empty()).then_some(out)
    }

    fn row(
        &self,
        net: &str,
        name: &str,
        path: &PathReport,
        from: Option<std::net::IpAddr>,
        device: Option<&str>,
    ) -> String {
        let best = if path.status == PathStatus::Best {
            " *"
        } else {
            ""
        };
        let Some(from) = from else {
            return format!("{net:<18} blackhole [{name} {}]{best} (200)", self.own);
        };
        let a = &path.attributes;
        let hop = a.next_hop.addr();
        let via = match device {
            Some(device) => format!("via {hop} on {device}"),
            None => format!("via {hop}"),
        };
        let since = self.since.get(name).map_or("", String::as_str);
        let from = match from == hop {
            true => String::new(),
            false => format!(" from {from}"),
        };
        let origin = match a.origin {
            Origin::Igp => 'i',
            Origin::Egp => 'e',
            Origin::Incomplete => '?',
        };
        let asn = a.as_path.origin().map(|asn| format!("AS{asn}"));
        let asn = asn.unwrap_or_default();
        format!("{net:<18} {via} [{name} {since}{from}]{best} (100) [{asn}{origin}]")
    }
}

/// Attributes as `show route all` has them.
fn attributes(a: &Attributes) -> Vec<String> {
    let mut out = vec![
        format!("\tBGP.origin: {}", a.origin),
        format!("\tBGP.as_path: {}", a.as_path),
        format!("\tBGP.next_hop: {}", a.next_hop),
    ];
    if let Some(med) = a.med {
        out.push(format!("\tBGP.med: {med}"));
    }
    if let Some(preference) = a.local_pref {
        out.push(format!("\tBGP.local_pref: {preference}"));
    }
    if a.atomic_aggregate {
        out.push("\tBGP.atomic_aggr: ".to_owned());
    }
    let rare = a.rare();
    if let Some(by) = rare.aggregator {
        out.push(format!("\tBGP.aggregator: {} AS{}", by.id, by.asn));
    }
    if !a.communities.is_empty() {
        let all: Vec<String> = a
            .communities
            .iter()
            .map(|c| format!("({},{})", c.0 >> 16, c.0 & 0xffff))
            .collect();
        out.push(format!("\tBGP.community: {}", all.join(" ")));
    }
    if let Some(id) = rare.originator_id {
        out.push(format!("\tBGP.originator_id: {id}"));
    }
    if !rare.cluster_list.is_empty() {
        let all: Vec<String> = rare.cluster_list.iter().map(ToString::to_string).collect();
        out.push(format!("\tBGP.cluster_list: {}", all.join(" ")));
    }
    if !a.large_communities.is_empty() {
        let all: Vec<String> = a
            .large_communities
            .iter()
            .map(|c| format!("({}, {}, {})", c.global, c.local1, c.local2))
            .collect();
        out.push(format!("\tBGP.large_community: {}", all.join(" ")));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_patterns() {
        assert!(glob("Mesh_*", "Mesh_10_0_0_1"));
        assert!(glob("*_1", "Mesh_10_0_0_1"));
        assert!(glob("Mesh_1?_0_0_1", "Mesh_10_0_0_1"));
        assert!(!glob("Mesh", "Mesh_10_0_0_1"));
        assert!(!glob("?esh_", "Mesh_1"));
        assert!(glob("*", ""));
    }

    #[test]
    fn what_is_long_ago_is_a_day() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let hour = shown(now - Duration::from_secs(3600), now);
        assert_eq!((hour.len(), hour.matches(':').count()), (8, 2), "{hour}");
        let day = shown(now - Duration::from_secs(86400 * 30), now);
        assert_eq!(day, "2001-08-10");
    }
}
