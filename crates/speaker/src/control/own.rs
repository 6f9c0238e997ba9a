//! Our own language: a question in JSON on a line, answers in JSON, a line each, then `{"end":true}` or
//! `{"error":"..."}`.
//!
//! Promises: an answer that ends without its last line is not whole, and whoever reads it knows.

use super::report::{self, FaultJson, PeerJson, RouteJson, Side};
use super::{Server, lookup, peers};
use net::Family;
use serde::{Deserialize, Serialize};
use std::io::{self, Write};

/// What can be asked.
#[derive(Debug, Deserialize)]
#[serde(tag = "ask", rename_all = "camelCase", deny_unknown_fields)]
enum Question {
    /// The speaker.
    Status,
    /// Its peers, or one by name or address.
    Peers { peer: Option<String> },
    /// Routes: of a prefix all there is to say, else the best of each prefix, or what a peer tells or is
    /// told.
    Routes(Routes),
    /// What was malformed lately.
    Faults,
    /// All tables (RFC 6396): a line that says so, then pieces, each after its length in four octets, the
    /// last of length 0.
    Dump,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Routes {
    /// A prefix, or an address for the prefix that it lies in.
    prefix: Option<String>,
    /// A peer by name or address.
    peer: Option<String>,
    /// `in` or `out`.
    direction: Option<Direction>,
    /// 4 or 6.
    family: Option<u8>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Direction {
    In,
    Out,
}

#[derive(Serialize)]
struct Failed<'a> {
    error: &'a str,
}

/// Why a question has no answer.
enum Refused {
    /// The client is gone.
    Io(io::Error),
    /// It cannot be answered.
    Why(String),
}

impl From<io::Error> for Refused {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

fn line(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}

/// Answers a question.
///
/// # Errors
/// When the client or the speaker is gone.
pub(super) fn answer(server: &Server, question: &str, out: &mut impl Write) -> io::Result<()> {
    let asked = serde_json::from_str(question).map_err(|e| Refused::Why(e.to_string()));
    match asked.and_then(|q| server.reply(q, out)) {
        Ok(()) => out.write_all(b"{\"end\":true}\n"),
        Err(Refused::Io(e)) => Err(e),
        Err(Refused::Why(error)) => line(out, &Failed { error: &error }),
    }
}

impl Server {
    fn reply(&self, question: Question, out: &mut impl Write) -> Result<(), Refused> {
        match question {
            Question::Status => {
                let started = self.history.started();
                let look = move |v: &crate::View<'_>| report::status(v, started);
                let status = self.speaker.look(look).map_err(Self::gone)?;
                line(out, &status.map_err(Refused::Why)?)?;
            }
            Question::Peers { peer } => {
                let wanted = peer.as_deref();
                let all = self.peers()?;
                let mut some = false;
                for p in all.iter().filter(|p| is_called(p, wanted)) {
                    some = true;
                    line(out, &PeerJson::from(p))?;
                }
                if let (false, Some(name)) = (some, wanted) {
                    return Err(Refused::Why(no_peer(name, &all)));
                }
            }
            Question::Routes(asked) => self.routes(&asked, out)?,
            Question::Faults => {
                for noted in self.history.noted() {
                    line(out, &FaultJson::from(&noted))?;
                }
            }
            Question::Dump => {
                out.write_all(b"{\"dump\":\"mrt\"}\n")?;
                self.dump(out)?;
            }
        }
        Ok(())
    }

    /// All peers.
    pub(super) fn peers(&self) -> io::Result<Vec<peers::PeerReport>> {
        let history = self.history.clone();
        let look = move |v: &crate::View<'_>| peers::collect(v, &history);
        self.speaker.look(look).map_err(Self::gone)
    }

    fn routes(&self, asked: &Routes, out: &mut impl Write) -> Result<(), Refused> {
        let peer = match &asked.peer {
            None => None,
            Some(name) => {
                let all = self.peers()?;
                let known = all.iter().find(|p| is_called(p, Some(name)));
                let known = known.map(|p| p.name.clone());
                // Our own routes are nobody's, and yet asked for.
                let own = (name == "local").then(|| name.clone());
                Some(
                    known
                        .or(own)
                        .ok_or_else(|| Refused::Why(no_peer(name, &all)))?,
                )
            }
        };
        let side = match asked.direction {
            Some(Direction::In) => Side::In,
            Some(Direction::Out) => Side::Out,
            None => Side::Both,
        };
        if let Some(text) = &asked.prefix {
            return self.route(text, peer, side, out);
        }
        let families: &[Family] = match asked.family {
            None => &Family::BOTH,
            Some(4) => &[Family::V4],
            Some(6) => &[Family::V6],
            Some(n) => {
                return Err(Refused::Why(format!(
                    "there is no family {n}: ask for 4 or 6"
                )));
            }
        };
        let plain = peer.is_none() && side == Side::Both;
        for &family in families {
            let peer = peer.clone();
            let select = move |v: &crate::View<'_>, prefix| match plain {
                true => RouteJson::best(v, prefix),
                false => RouteJson::explained(v, prefix, peer.as_deref(), side),
            };
            self.walk(family, select, |r| line(out, &r))?;
        }
        Ok(())
    }

    fn route(
        &self,
        text: &str,
        peer: Option<String>,
        side: Side,
        out: &mut impl Write,
    ) -> Result<(), Refused> {
        let Some(what) = lookup::parse(text) else {
            return Err(Refused::Why(format!(
                "{text:?} is neither a prefix nor an address"
            )));
        };
        let exact = text.contains('/');
        let look = move |v: &crate::View<'_>| {
            let prefix = match (exact, v.router) {
                (true, _) => Some(what),
                (false, Some(router)) => lookup::covering(router, what),
                (false, None) => None,
            };
            prefix.and_then(|p| RouteJson::explained(v, p, peer.as_deref(), side))
        };
        match self.speaker.look(look).map_err(Self::gone)? {
            Some(route) => Ok(line(out, &route)?),
            None => Err(Refused::Why(format!("there is no such route to {text}"))),
        }
    }
}

/// Whether a peer is the one that is asked for; any is without a name.
fn is_called(p: &peers::PeerReport, name: Option<&str>) -> bool {
    let resource = p.peer.resource.as_deref();
    name.is_none_or(|n| p.name == n || p.peer.address.to_string() == n || resource == Some(n))
}

fn no_peer(name: &str, all: &[peers::PeerReport]) -> String {
    let known: Vec<&str> = all.iter().map(|p| p.name.as_str()).take(8).collect();
    match known.as_slice() {
        [] => format!("there is no peer {name}, nor any other"),
        known => format!(
            "there is no peer {name}; of {} there are {}{}",
            all.len(),
            known.join(", "),
            if all.len() > known.len() { ", ..." } else { "" }
        ),
    }
}
