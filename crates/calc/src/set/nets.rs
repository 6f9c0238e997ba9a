//! The prefixes of a set with their counts, single addresses apart from wider ones.
//!
//! Promises: knows the canonical cover, and says what each change does to it. Where there are only
//! single addresses, which is nearly everywhere, a change is one look-up.
//!
//! Never: says that a prefix came which another one covers.

use net::{Cidr, CoverSet};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::IpAddr;

/// Counted prefixes.
#[derive(Debug, Default)]
pub(super) struct Nets {
    hosts: BTreeMap<IpAddr, u32>,
    wide: CoverSet,
}

impl Nets {
    /// Adds one occurrence of a prefix, or takes one away; `change` hears what came into the cover
    /// (`true`) and what went.
    pub(super) fn count(&mut self, net: Cidr, add: bool, change: &mut impl FnMut(Cidr, bool)) {
        if !net.is_host() {
            self.count_wide(net, add, change);
            return;
        }
        let news = match self.hosts.entry(net.addr()) {
            Entry::Vacant(e) if add => {
                e.insert(1);
                true
            }
            Entry::Vacant(_) => false,
            Entry::Occupied(mut e) if add => {
                *e.get_mut() += 1;
                false
            }
            Entry::Occupied(mut e) => {
                *e.get_mut() -= 1;
                *e.get() == 0 && {
                    e.remove();
                    true
                }
            }
        };
        if news && !self.is_covered(net.addr()) {
            change(net, add);
        }
    }

    fn is_covered(&self, addr: IpAddr) -> bool {
        !self.wide.is_empty() && self.wide.contains(addr)
    }

    fn count_wide(&mut self, net: Cidr, add: bool, change: &mut impl FnMut(Cidr, bool)) {
        let mut changes: Vec<(Cidr, bool)> = Vec::new();
        let note = |c, on| changes.push((c, on));
        if add {
            self.wide.add(net, note);
        } else {
            self.wide.remove(net, note);
        }
        for (c, on) in &changes {
            change(*c, *on);
        }
        if !changes.contains(&(net, add)) {
            return;
        }
        // What else changed is inside, in order: it covered what it covers before an addition,
        // and does so after a removal.
        let inside: Vec<Cidr> = changes
            .iter()
            .filter(|(c, _)| *c != net)
            .map(|(c, _)| *c)
            .collect();
        let within = self.hosts.range(net.addr()..).map(|(a, _)| *a);
        for addr in within.take_while(|a| net.contains(*a)) {
            let next = inside.partition_point(|c| c.addr() <= addr);
            let covered = next > 0 && inside[next - 1].contains(addr);
            if !covered {
                change(Cidr::host(addr), !add);
            }
        }
    }

    /// The canonical cover, in order.
    pub(super) fn cover(&self) -> Vec<Cidr> {
        let hosts = self.hosts.keys().filter(|a| !self.is_covered(**a));
        let mut out: Vec<Cidr> = hosts.map(|a| Cidr::host(*a)).collect();
        if !self.wide.is_empty() {
            out.extend(self.wide.cover());
            out.sort_unstable();
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const NETS: [&str; 12] = [
        "0.0.0.0/0",
        "10.0.0.0/8",
        "10.0.0.0/24",
        "10.0.0.0/25",
        "10.0.0.0/32",
        "10.0.0.1/32",
        "10.0.0.200/32",
        "10.1.0.0/32",
        "255.255.255.255/32",
        "::/0",
        "fd00::/64",
        "fd00::1/128",
    ];

    proptest! {
        #[test]
        fn changes_add_up_to_the_cover(ops in prop::collection::vec((0..NETS.len(), any::<bool>()), 0..60)) {
            let net = |i: usize| NETS[i].parse::<Cidr>().expect("a CIDR");
            let mut counts = [0u32; NETS.len()];
            let (mut nets, mut said) = (Nets::default(), BTreeSet::new());
            for (i, add) in ops {
                if add {
                    counts[i] += 1;
                } else if counts[i] > 0 {
                    counts[i] -= 1;
                } else {
                    continue;
                }
                nets.count(net(i), add, &mut |c, on| {
                    assert!(if on { said.insert(c) } else { said.remove(&c) }, "{c} {on}");
                });
                let there: Vec<Cidr> = (0..NETS.len()).filter(|i| counts[*i] > 0).map(net).collect();
                let outer = there.iter().filter(|c| !there.iter().any(|o| o != *c && o.covers(**c)));
                let outer: BTreeSet<Cidr> = outer.copied().collect();
                prop_assert_eq!(&said, &outer);
                prop_assert_eq!(nets.cover(), outer.into_iter().collect::<Vec<_>>());
            }
        }
    }
}
