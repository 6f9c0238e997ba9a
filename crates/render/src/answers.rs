//! Copies of name servers' answers to workloads, from which the agent learns addresses.
//!
//! Promises: only answers to what somebody asked at port 53, as the asker sees them: after
//! policy and after translation. Nothing of it is there unless a rule names a domain.
//! Never: holds a packet up, or judges it.

use crate::base::{Prefixes, proto};
use desired::ANSWERS_GROUP;
use net::{PortRange, Protocol};
use nftables::{CtState, LogTo, Match, PortList, Rule, Side, Statement, Text};

/// Where name servers listen.
const DNS: u16 = 53;

/// The rules of the chain, one an interface prefix.
///
/// A packet in the first direction of a connection can have source port 53 too, and whoever
/// sends it could make up answers; what tells an answer is that the connection was opened
/// *to* 53 and *from* another port. An answer's ports are the reverse of the first packet's
/// once translation is undone, which is done before priority 300.
pub(crate) fn copies(p: &Prefixes) -> Vec<Rule> {
    let dns = || PortList::from(PortRange::one(DNS));
    let opened = |side, negate| Match::CtOriginalPorts {
        side,
        ports: dns(),
        negate,
    };
    let copy = |to: Match| Rule {
        matches: vec![
            to,
            proto(Protocol::UDP),
            Match::Ports {
                side: Side::Source,
                ports: dns(),
                negate: false,
            },
            Match::CtState {
                states: CtState::ESTABLISHED,
                negate: false,
            },
            opened(Side::Destination, false),
            opened(Side::Source, true),
        ],
        statements: vec![Statement::Log {
            prefix: Text::default(),
            to: LogTo::GroupWith {
                group: ANSWERS_GROUP,
                snaplen: 0,
                // The kernel gathers for a second otherwise.
                threshold: 1,
            },
        }],
        verdict: None,
        comment: Text::default(),
    };
    p.to().map(copy).collect()
}
