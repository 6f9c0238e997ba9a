//! Why a route is used, and who is told of it.
//!
//! Promises: the same functions that decide give the reasons; nothing is remembered for
//! the sake of an answer. Never: changes anything.

use super::Router;
use super::import::Refusal;
use crate::attr::Attributes;
use crate::decision::{self, Fate, Step};
use crate::export::{Blocked, Reader};
use crate::rib::{NetId, Path, PathFlags, PeerId};
use crate::types::PathId;
use crate::wire::AttributeBlock;
use net::{Cidr, Family};

/// All there is to say about a prefix.
#[derive(Debug, Clone)]
pub struct Explanation {
    /// The prefix.
    pub prefix: Cidr,
    /// Every path to it, the one in use first.
    pub paths: Vec<PathReport>,
    /// What each peer with a session is told.
    pub exports: Vec<ExportReport>,
}

/// A path, and what became of it.
#[derive(Debug, Clone)]
pub struct PathReport {
    /// Where it came from; [`PeerId::LOCAL`] is ourselves.
    pub peer: PeerId,
    /// The peer's path id.
    pub path_id: PathId,
    /// What it carries, after the import policy.
    pub attributes: Attributes,
    /// What the peer sent, where that is something else.
    pub received: Option<Attributes>,
    /// What became of it.
    pub status: PathStatus,
    /// Its peer is away, or has not told it again yet.
    pub stale: bool,
}

/// What became of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathStatus {
    /// In use.
    Best,
    /// As good as the best up to the tie-breakers: the step that put it second.
    Equal(Step),
    /// Not in use: the step that it lost at.
    Lost(Step),
    /// Not taken.
    Refused(Refusal),
}

/// What a peer is told of a prefix.
#[derive(Debug, Clone)]
pub struct ExportReport {
    /// The peer.
    pub peer: PeerId,
    /// Whether it has been told of it, as far as messages were made.
    pub told: bool,
    /// The attributes that it is told, or why it is not told.
    pub route: Result<Attributes, Blocked>,
}

/// Who is asked about: what each of many peers is told takes far longer to say than what there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Every peer.
    All,
    /// This one.
    Only(PeerId),
    /// Nobody.
    Nobody,
}

impl Router {
    /// Every path to a prefix with the reason why it is used or not, and what each peer is
    /// told of it and why. `None`: nobody has announced it.
    pub fn explain(&self, prefix: Cidr) -> Option<Explanation> {
        self.explain_to(prefix, Audience::All)
    }

    /// The same, with what some peers are told.
    pub fn explain_to(&self, prefix: Cidr, audience: Audience) -> Option<Explanation> {
        let family = prefix.family();
        let net = self.rib.tables[family].find(prefix)?;
        let (candidates, seen) = self.rib.candidates(family, net);
        let fates = decision::decide(&seen);
        let paths = self.rib.tables[family]
            .paths(net)
            .map(|p| {
                let fate = candidates.iter().position(|c| c.source == p.source);
                self.report(prefix, p, fate.map(|i| fates[i]))
            })
            .collect();
        let exports = self
            .peers
            .iter()
            .flatten()
            .filter(|peer| match audience {
                Audience::All => true,
                Audience::Only(id) => peer.id == id,
                Audience::Nobody => false,
            })
            .filter_map(|peer| self.export_report(peer.id, prefix, net))
            .collect();
        Some(Explanation {
            prefix,
            paths,
            exports,
        })
    }

    /// All prefixes with a path, refused ones too, from the number `from` on, each with its
    /// number. In no order of prefixes; one that is announced meanwhile may be missed.
    pub fn prefixes(&self, family: Family, from: u32) -> impl Iterator<Item = (u32, Cidr)> + '_ {
        let table = &self.rib.tables[family];
        let nets = (from..table.end()).map(NetId);
        let there = nets.filter(|net| table.first(*net).is_some());
        there.map(|net| (net.0, table.prefix(net)))
    }

    fn report(&self, prefix: Cidr, path: Path, fate: Option<Fate>) -> PathReport {
        let source = self.rib.sources.get(path.source);
        let set = self.rib.attributes.get(path.attributes);
        let received = set
            .meta
            .received
            .map(|r| self.rib.attributes.get(r).attributes.clone());
        let status = match fate {
            Some(Fate::Best) => PathStatus::Best,
            Some(Fate::Equal(step)) => PathStatus::Equal(step),
            Some(Fate::Lost(step)) => PathStatus::Lost(step),
            None => {
                let a = received.as_ref().unwrap_or(&set.attributes);
                PathStatus::Refused(self.refusal(source.peer, prefix, a))
            }
        };
        PathReport {
            peer: source.peer,
            path_id: source.path_id,
            attributes: set.attributes.clone(),
            received,
            status,
            stale: path.flags.has(PathFlags::STALE),
        }
    }

    /// Why a path was refused, by asking again.
    fn refusal(&self, id: PeerId, prefix: Cidr, received: &Attributes) -> Refusal {
        let Some(heard) = self.heard(id) else {
            return Refusal::Policy(None);
        };
        let question = heard.question(prefix, received);
        let answer = heard.config.import.ask(&question);
        let (_, _, refusal) = self.judge(&heard, received, &answer);
        refusal.unwrap_or(Refusal::Policy(None))
    }

    fn export_report(&self, id: PeerId, prefix: Cidr, net: NetId) -> Option<ExportReport> {
        let family = prefix.family();
        let key = self.export_key(id, family)?;
        let best = self.rib.tables[family].best(net)?;
        let reader = Reader {
            rib: &self.rib,
            key: &key,
            cluster: self.out.cluster(),
        };
        let route = || {
            if self.rib.sources.get(best.source).peer == id {
                return Err(Blocked::Source);
            }
            reader.may(best)?;
            let answer = reader.ask(prefix, best);
            let a = reader.attributes(best, &answer)?;
            AttributeBlock::new(family, &a, &key.encoding)?;
            Ok(a)
        };
        let told = self.out.groups().iter().any(|g| {
            g.key.family == family && g.members.iter().any(|m| m.peer == id) && g.has_told(net, id)
        });
        Some(ExportReport {
            peer: id,
            told,
            route: route(),
        })
    }
}
