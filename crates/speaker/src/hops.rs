//! Where next hops lead, by the routes that the kernel has from others and by those learned here.
//!
//! Promises: pure; the longest prefix decides, and of one prefix the kernel's own route before a
//! learned one; a learned route never shows the way to itself.

use net::{Cidr, Family, IfIndex, PrefixMap};
use route::{Hop, Kind, Route};
use smallvec::SmallVec;
use std::collections::HashSet;
use std::net::IpAddr;

/// Routes through routes: no deeper.
const DEPTH: usize = 4;

/// The way to a next hop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Way {
    /// Gateways on links.
    pub hops: SmallVec<[Hop; 1]>,
    /// 0 on the link, else the metric of the route that leads there.
    pub metric: u32,
}

/// Routes that are not ours, of the main table, and this host's addresses.
#[derive(Debug, Default)]
pub(crate) struct Ways {
    routes: PrefixMap<SmallVec<[Route; 1]>>,
    local: HashSet<IpAddr>,
}

/// Of one prefix IPv4 has a route for each metric, IPv6 also for each interface.
fn same(a: &Route, b: &Route) -> bool {
    let dev = |r: &Route| r.hops.first().and_then(|h| h.dev);
    a.key == b.key && (a.family() == Family::V4 || dev(a) == dev(b))
}

impl Ways {
    /// Takes a route in, or the change of one.
    pub(crate) fn insert(&mut self, r: Route) {
        let dst = r.key.dst;
        match self.routes.get_mut(dst) {
            None => drop(self.routes.insert(dst, SmallVec::from_iter([r]))),
            Some(all) => match all.iter_mut().find(|o| same(o, &r)) {
                Some(old) => *old = r,
                None => {
                    all.push(r);
                    all.sort_by_key(|r| r.key.metric);
                }
            },
        }
    }

    /// Forgets a route.
    pub(crate) fn remove(&mut self, r: &Route) {
        let dst = r.key.dst;
        if let Some(all) = self.routes.get_mut(dst) {
            all.retain(|o| !same(o, r));
            if all.is_empty() {
                self.routes.remove(dst);
            }
        }
    }

    /// Whether some other's route has this prefix and metric.
    pub(crate) fn holds(&self, dst: Cidr, metric: u32) -> bool {
        let all = self.routes.get(dst);
        all.is_some_and(|all| all.iter().any(|r| r.key.metric == metric))
    }

    /// The others' routes to a prefix, the preferred first.
    pub(crate) fn routes_to(&self, dst: Cidr) -> &[Route] {
        self.routes.get(dst).map_or(&[], SmallVec::as_slice)
    }

    /// Whether an address is on this link without a gateway.
    pub(crate) fn on_link(&self, addr: IpAddr, dev: IfIndex) -> bool {
        let straight = |h: &Hop| h.dev == Some(dev) && h.gateway.is_none();
        let mut all = self.routes.covering(Cidr::host(addr));
        all.any(|(_, routes)| routes.iter().any(|r| r.hops.iter().any(straight)))
    }

    /// The IPv4 routes that go with a link; `None` if one of them shares its traffic with other
    /// links, since then what the kernel leaves of it is to be looked at.
    pub(crate) fn lost(&self, dev: IfIndex) -> Option<Vec<Route>> {
        let through = |r: &&Route| r.hops.iter().any(|h| h.dev == Some(dev));
        let four = self.routes.within(Cidr::any(Family::V4));
        let all: Vec<&Route> = four.flat_map(|(_, r)| r).filter(through).collect();
        let alone = all.iter().all(|r| r.hops.len() == 1);
        alone.then(|| all.into_iter().cloned().collect())
    }

    /// All prefixes that others have routes to.
    pub(crate) fn prefixes(&self) -> impl Iterator<Item = Cidr> + '_ {
        self.routes.iter().map(|(c, _)| c)
    }

    /// Forgets the routes of a family, before they are read anew.
    pub(crate) fn clear(&mut self, family: Family) {
        let all: Vec<_> = self.prefixes().filter(|c| c.family() == family).collect();
        for c in all {
            self.routes.remove(c);
        }
    }

    /// Forgets this host's addresses, before they are read anew.
    pub(crate) fn clear_addresses(&mut self) {
        self.local.clear();
    }

    /// An address of this host, new or gone.
    pub(crate) fn address(&mut self, addr: IpAddr, here: bool) {
        match here {
            true => self.local.insert(addr),
            false => self.local.remove(&addr),
        };
    }

    /// The way to an address. `learned` gives the learned routes that cover an address, longest
    /// first, each with its next hops.
    pub(crate) fn resolve(
        &self,
        addr: IpAddr,
        learned: &impl Fn(IpAddr) -> Vec<(Cidr, SmallVec<[IpAddr; 2]>)>,
    ) -> Option<Way> {
        self.step(addr, learned, &mut Vec::new())
    }

    fn step(
        &self,
        addr: IpAddr,
        learned: &impl Fn(IpAddr) -> Vec<(Cidr, SmallVec<[IpAddr; 2]>)>,
        through: &mut Vec<Cidr>,
    ) -> Option<Way> {
        if self.local.contains(&addr) || through.len() > DEPTH {
            return None;
        }
        let learned_here = learned(addr);
        let mut learned_here = learned_here.iter().peekable();
        for (dst, routes) in self.routes.covering(Cidr::host(addr)) {
            while let Some((prefix, next)) = learned_here.next_if(|(p, _)| p.len() > dst.len()) {
                if let Some(way) = self.over(*prefix, next, learned, through) {
                    return Some(way);
                }
            }
            if let Some(answer) = own_way(routes, addr) {
                return answer;
            }
        }
        learned_here.find_map(|(prefix, next)| self.over(*prefix, next, learned, through))
    }

    /// Over a learned route.
    fn over(
        &self,
        prefix: Cidr,
        next: &[IpAddr],
        learned: &impl Fn(IpAddr) -> Vec<(Cidr, SmallVec<[IpAddr; 2]>)>,
        through: &mut Vec<Cidr>,
    ) -> Option<Way> {
        if through.contains(&prefix) {
            return None;
        }
        through.push(prefix);
        let ways: Vec<Way> = next
            .iter()
            .filter_map(|a| self.step(*a, learned, through))
            .collect();
        through.pop();
        let metric = ways.iter().map(|w| w.metric).min()?.saturating_add(1);
        let hops = union(ways.into_iter().flat_map(|w| w.hops));
        Some(Way { hops, metric })
    }
}

/// Each gateway once, none heavier than another.
pub(crate) fn union(hops: impl IntoIterator<Item = Hop>) -> SmallVec<[Hop; 1]> {
    let mut out: SmallVec<[Hop; 1]> = SmallVec::new();
    for h in hops {
        let h = Hop { weight: 1, ..h };
        if !out.contains(&h) {
            out.push(h);
        }
    }
    out.sort_unstable();
    out
}

/// What the routes of one prefix say: `None`, look further; `Some(None)`, there is no way.
fn own_way(routes: &[Route], addr: IpAddr) -> Option<Option<Way>> {
    let best = routes.iter().find(|r| r.kind != Kind::Throw)?;
    if best.kind != Kind::Unicast {
        return Some(None);
    }
    let on_link = best.hops.iter().any(|h| h.gateway.is_none());
    let hops = union(best.hops.iter().map(|h| Hop {
        gateway: h.gateway.or(Some(addr)),
        ..*h
    }));
    let metric = if on_link { 0 } else { best.key.metric.max(1) };
    Some(Some(Way { hops, metric }))
}

/// The interface of a way's first hop.
pub(crate) fn interface(way: &Way) -> Option<IfIndex> {
    way.hops.first().and_then(|h| h.dev)
}

#[cfg(test)]
mod tests {
    use super::*;
    use route::{Proto, Table};

    fn ip(s: &str) -> IpAddr {
        s.parse().expect("an address")
    }

    fn cidr(s: &str) -> Cidr {
        s.parse().expect("a prefix")
    }

    fn dev(n: u32) -> IfIndex {
        IfIndex::new(n).expect("not 0")
    }

    fn ways(routes: &[(&str, Hop)]) -> Ways {
        let mut w = Ways::default();
        for (dst, hop) in routes {
            w.insert(Route::unicast(Table::MAIN, cidr(dst), *hop, Proto::STATIC));
        }
        w
    }

    type Learned<'a> = &'a [(&'a str, &'a str)];

    /// Gateway, interface and metric, as `via@dev metric`.
    fn way(w: &Ways, to: &str, learned: Learned<'_>) -> Option<String> {
        let covering = |a: IpAddr| {
            let mut all: Vec<_> = learned
                .iter()
                .map(|(c, n)| (cidr(c), SmallVec::from_iter([ip(n)])))
                .filter(|(c, _)| c.contains(a))
                .collect();
            all.sort_by_key(|(c, _)| u8::MAX - c.len());
            all
        };
        let w = w.resolve(ip(to), &covering)?;
        let each = w.hops.iter().map(|h| {
            let (g, d) = (h.gateway.expect("a gateway"), h.dev.expect("a device"));
            format!("{g}@{}", d.get())
        });
        let each: Vec<_> = each.collect();
        Some(format!("{} {}", each.join("+"), w.metric))
    }

    fn plain() -> Ways {
        ways(&[
            ("0.0.0.0/0", Hop::via(ip("10.0.0.254"), dev(1))),
            ("10.0.0.0/24", Hop::dev(dev(1))),
            ("10.1.0.0/24", Hop::dev(dev(2))),
        ])
    }

    #[test]
    fn the_longest_prefix_decides() {
        let w = plain();
        assert_eq!(way(&w, "10.1.0.9", &[]).as_deref(), Some("10.1.0.9@2 0"));
        assert_eq!(way(&w, "9.9.9.9", &[]).as_deref(), Some("10.0.0.254@1 1"));
        assert_eq!(way(&w, "fd00::1", &[]), None);
    }

    #[test]
    fn a_learned_route_shows_the_way_to_another() {
        let w = plain();
        let learned: Learned<'_> = &[("10.9.0.0/24", "10.1.0.9")];
        assert_eq!(
            way(&w, "10.9.0.1", learned).as_deref(),
            Some("10.1.0.9@2 1")
        );
    }

    #[test]
    fn no_route_shows_the_way_to_itself_nor_two_in_a_ring() {
        let w = plain();
        let own: Learned<'_> = &[("10.1.0.9/32", "10.1.0.9")];
        assert_eq!(way(&w, "10.1.0.9", own).as_deref(), Some("10.1.0.9@2 1"));
        let ring: Learned<'_> = &[("10.1.0.9/32", "10.0.0.9"), ("10.0.0.9/32", "10.1.0.9")];
        assert_eq!(way(&w, "10.1.0.9", ring).as_deref(), Some("10.1.0.9@2 2"));
        let bare = Ways::default();
        assert_eq!(way(&bare, "10.1.0.9", ring), None);
    }

    #[test]
    fn dead_ends_and_ourselves_are_no_way() {
        let mut w = plain();
        let hole = Route::dead_end(
            Table::MAIN,
            cidr("10.1.0.0/28"),
            Kind::Blackhole,
            Proto::OURS,
        );
        w.insert(hole.clone());
        assert_eq!(way(&w, "10.1.0.9", &[]), None);
        w.remove(&hole);
        w.address(ip("10.1.0.9"), true);
        assert_eq!(way(&w, "10.1.0.9", &[]), None);
        w.address(ip("10.1.0.9"), false);
        assert_eq!(way(&w, "10.1.0.9", &[]).as_deref(), Some("10.1.0.9@2 0"));
    }

    #[test]
    fn routes_of_one_prefix_count_by_metric() {
        let mut w = plain();
        let back = Route::unicast(
            Table::MAIN,
            cidr("10.1.0.0/24"),
            Hop::via(ip("10.0.0.7"), dev(1)),
            Proto::STATIC,
        )
        .with_metric(50);
        w.insert(back);
        assert_eq!(way(&w, "10.1.0.9", &[]).as_deref(), Some("10.1.0.9@2 0"));
        let first = w.routes_to(cidr("10.1.0.0/24"))[0].clone();
        w.remove(&first);
        assert_eq!(way(&w, "10.1.0.9", &[]).as_deref(), Some("10.0.0.7@1 50"));
    }
}
