//! Ports as few as can tell all apart: one of each stretch that rules do not divide.

use model::{NamedPort, Rule};
use net::{PortRange, Protocol};
use std::collections::BTreeSet;

/// Ports that failsafes single out, as far as nobody configured others.
const FAILSAFE: [u16; 12] = [
    22, 53, 67, 68, 179, 2379, 2380, 4789, 5473, 6443, 6666, 6667,
];

/// What can be sent, divided by the rules of two ends.
#[derive(Debug, Default)]
pub(super) struct Cuts {
    /// First port of each stretch.
    starts: BTreeSet<u16>,
    sctp: bool,
    /// Protocols without ports that rules name.
    others: BTreeSet<Protocol>,
}

/// One thing to send, that stands for a stretch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Sample {
    pub protocol: Protocol,
    /// First and last; 0 and 0 without ports.
    pub ports: (u16, u16),
}

impl Cuts {
    pub(super) fn rule(&mut self, rule: &Rule, named: &[NamedPort]) {
        for e in [&rule.source, &rule.destination] {
            for r in e.ports.iter().chain(&e.not_ports) {
                self.range(*r);
            }
            for p in named {
                if e.named_ports.contains(&p.name) || e.not_named_ports.contains(&p.name) {
                    self.range(PortRange::one(p.port));
                }
            }
        }
        for p in [rule.protocol, rule.not_protocol].into_iter().flatten() {
            match p {
                Protocol::TCP | Protocol::UDP | Protocol::ICMP | Protocol::ICMPV6 => {}
                Protocol::SCTP => self.sctp = true,
                p => _ = self.others.insert(p),
            }
        }
    }

    pub(super) fn failsafes(&mut self) {
        FAILSAFE.iter().for_each(|p| self.range(PortRange::one(*p)));
    }

    /// Every number that slices give a service's endpoints.
    pub(super) fn one(&mut self, port: u16) {
        self.range(PortRange::one(port));
    }

    fn range(&mut self, r: PortRange) {
        self.starts.insert(r.first());
        self.starts.extend(r.last().checked_add(1));
    }

    /// One of each, ICMP last.
    pub(super) fn samples(&self) -> Vec<Sample> {
        let mut starts: Vec<u16> = self.starts.iter().copied().filter(|p| *p > 1).collect();
        starts.insert(0, 1);
        let with_ports = [Protocol::TCP, Protocol::UDP]
            .into_iter()
            .chain(self.sctp.then_some(Protocol::SCTP));
        let mut out = Vec::new();
        for protocol in with_ports {
            for (i, first) in starts.iter().enumerate() {
                let last = starts.get(i + 1).map_or(u16::MAX, |next| next - 1);
                out.push(Sample {
                    protocol,
                    ports: (*first, last),
                });
            }
        }
        let others = self.others.iter().copied().chain([Protocol::ICMP]);
        out.extend(others.map(|protocol| Sample {
            protocol,
            ports: (0, 0),
        }));
        out
    }
}

/// Samples in words: neighbours joined, all of a protocol by its name, all at all as `everything`.
pub(super) fn words(chosen: &[Sample], all: &[Sample]) -> String {
    if chosen.len() == all.len() {
        return "everything".to_owned();
    }
    let mut protocols: Vec<Protocol> = chosen.iter().map(|s| s.protocol).collect();
    protocols.dedup();
    let each = protocols.iter().map(|p| {
        let of = |list: &[Sample]| list.iter().filter(|s| s.protocol == *p).count();
        if of(chosen) == of(all) {
            return p.to_string();
        }
        let own = chosen.iter().filter(|s| s.protocol == *p).map(|s| s.ports);
        let mut joined: Vec<(u16, u16)> = Vec::new();
        for (first, last) in own {
            match joined.last_mut() {
                Some(before) if before.1.checked_add(1) == Some(first) => before.1 = last,
                _ => joined.push((first, last)),
            }
        }
        let text: Vec<String> = joined
            .iter()
            .map(|(a, b)| {
                if a == b {
                    a.to_string()
                } else {
                    format!("{a}-{b}")
                }
            })
            .collect();
        format!("{p} {}", text.join(", "))
    });
    each.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Action;

    #[test]
    fn stretches_and_their_words() {
        let mut cuts = Cuts::default();
        let mut rule = Rule::any(Action::Allow);
        rule.destination.ports = vec!["80".parse().unwrap(), "90:99".parse().unwrap()];
        cuts.rule(&rule, &[]);
        let all = cuts.samples();
        let tcp: Vec<_> = all
            .iter()
            .filter(|s| s.protocol == Protocol::TCP)
            .map(|s| s.ports)
            .collect();
        assert_eq!(tcp, [(1, 79), (80, 80), (81, 89), (90, 99), (100, 65535)]);
        assert_eq!(words(&all, &all), "everything");
        assert_eq!(words(&all[..5], &all), "TCP");
        assert_eq!(words(&all[1..3], &all), "TCP 80-89");
        assert_eq!(
            words(&[all[1], all[3], all[5]], &all),
            "TCP 80, 90-99; UDP 1-79"
        );
    }
}
