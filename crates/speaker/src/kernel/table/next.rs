//! Where next hops lead, and so the routes through them.

use super::*;
use crate::hops::union;

impl Table {
    pub(super) fn acquire(&mut self, want: Want) -> u32 {
        let (id, new) = self.wants.acquire(want);
        if new {
            let at = id as usize;
            if self.formed.len() <= at {
                self.formed.resize(at + 1, 0);
            }
            self.formed[at] = self.form_of(id);
        }
        id
    }

    pub(super) fn release(&mut self, id: u32) {
        if self.wants.release(id) {
            let form = std::mem::take(&mut self.formed[id as usize]);
            self.forms.release(form);
        }
    }

    /// The form that a want has now, with a user more; 0 while there is no way.
    fn form_of(&mut self, id: u32) -> u32 {
        let Some(want) = self.wants.get(id) else {
            return 0;
        };
        let hops = self.hops_of(want);
        let metric = want.metric;
        if hops.is_empty() {
            return 0;
        }
        self.forms.acquire(Form { metric, hops }).0
    }

    fn hops_of(&self, want: &Want) -> SmallVec<[Hop; 1]> {
        if let Some(gate) = tunnelled(want) {
            let known = self.way(gate.addr).is_some();
            let dev = self.tunnel.filter(|_| known);
            return dev.map(|d| Hop::onlink(gate.addr, d)).into_iter().collect();
        }
        union(want.gates.iter().flat_map(|g| self.through(g)))
    }

    fn way(&self, addr: IpAddr) -> Option<&Way> {
        self.tracked.get(&addr)?.way.as_ref()
    }

    fn through(&self, gate: &Gate) -> SmallVec<[Hop; 1]> {
        let Some(way) = self.way(gate.addr) else {
            return SmallVec::new();
        };
        if !gate.is_link_local() {
            return way.hops.clone();
        }
        // Of several links the one of the peer that told it.
        let devs = match gate.beside.and_then(|p| self.link_of(p)) {
            Some(dev) => SmallVec::from_iter([Hop::via(gate.addr, dev)]),
            None => way.hops.clone(),
        };
        if devs.len() == 1 {
            devs
        } else {
            SmallVec::new()
        }
    }

    /// The link that a peer is on.
    fn link_of(&self, peer: IpAddr) -> Option<IfIndex> {
        let way = self.way(peer).filter(|w| w.metric == 0)?;
        crate::hops::interface(way)
    }

    /// The links that peers are on, as ways to a link-local address.
    fn beside_peers(&self, addr: IpAddr) -> Option<Way> {
        let peers = self.tracked.iter().filter(|(_, t)| t.by_peers);
        let links = peers.filter_map(|(a, _)| self.link_of(*a));
        let links = links.filter(|d| self.ways.on_link(addr, *d));
        let hops = union(links.map(|d| Hop::via(addr, d)));
        (!hops.is_empty()).then_some(Way { hops, metric: 0 })
    }

    /// The tracked next hops inside of a prefix may lead elsewhere now.
    pub(crate) fn doubt(&mut self, prefix: Cidr) {
        let inside = self.tracked.range(prefix.addr()..=prefix.last());
        self.unsure.extend(inside.map(|(a, _)| *a));
    }

    /// All tracked next hops may lead elsewhere now.
    pub(crate) fn doubt_all(&mut self) {
        self.unsure.extend(self.tracked.keys());
    }

    /// A next hop that the router uses, or uses no more.
    pub(crate) fn track(&mut self, addr: IpAddr, used: bool) {
        if addr.is_unspecified() {
            return;
        }
        let tracked = self.tracked.entry(addr).or_default();
        // The way may be known, as that to a peer is: the router has not heard of it.
        tracked.untold |= used && !tracked.by_router;
        tracked.by_router = used;
        self.tracked_changed(addr);
    }

    fn tracked_changed(&mut self, addr: IpAddr) {
        let used = |t: &Tracked| t.by_router || t.by_peers || t.by_statics > 0;
        if self.tracked.get(&addr).is_some_and(used) {
            self.unsure.insert(addr);
        } else {
            self.tracked.remove(&addr);
            self.unsure.remove(&addr);
        }
    }

    /// Who is spoken with.
    pub(crate) fn set_peers(&mut self, peers: impl IntoIterator<Item = IpAddr>) {
        let new: BTreeSet<IpAddr> = peers.into_iter().collect();
        let old = self.tracked.iter().filter(|(_, t)| t.by_peers);
        let old: BTreeSet<IpAddr> = old.map(|(a, _)| *a).collect();
        if old == new {
            return;
        }
        for addr in old.symmetric_difference(&new).copied() {
            self.tracked.entry(addr).or_default().by_peers = new.contains(&addr);
            self.tracked_changed(addr);
        }
        self.doubt_links();
    }

    /// Link-local next hops may be on other links now.
    fn doubt_links(&mut self) {
        let all = self
            .tracked
            .keys()
            .filter(|a| Gate::of(**a).is_link_local());
        self.unsure.extend(all);
    }

    /// Peers that are reached through a gateway that was configured.
    pub(crate) fn set_statics(&mut self, wanted: impl IntoIterator<Item = (IpAddr, IpAddr)>) {
        let old = std::mem::take(&mut self.statics);
        for (peer, addr) in wanted {
            let prefix = Cidr::host(peer);
            self.tracked.entry(addr).or_default().by_statics += 1;
            self.unsure.insert(addr);
            let want = self.acquire(Want {
                gates: SmallVec::from_iter([Gate::of(addr)]),
                metric: STATIC_METRIC,
                over: Over::Plain,
            });
            let id = self.rows.insert(prefix);
            if let Some(before) = self.statics.insert(prefix, want) {
                self.release(before);
            }
            self.mark(id);
            self.doubt(prefix);
        }
        for (prefix, id) in old {
            let gates = self.wants.get(id).map(|w| w.gates.clone());
            for gate in gates.unwrap_or_default() {
                if let Some(t) = self.tracked.get_mut(&gate.addr) {
                    t.by_statics = t.by_statics.saturating_sub(1);
                }
                self.tracked_changed(gate.addr);
            }
            self.release(id);
            if let Some(row) = self.rows.find(prefix) {
                self.mark(row);
            }
            self.doubt(prefix);
        }
    }

    /// Ranges whose routes lead through the tunnel device.
    pub(crate) fn set_tunnelled(&mut self, tunnelled: Vec<Tunnelled>) {
        if self.tunnelled == tunnelled {
            return;
        }
        let old = std::mem::replace(&mut self.tunnelled, tunnelled);
        let both = old.iter().chain(&self.tunnelled).cloned();
        let changed: Vec<_> = both
            .filter(|t| old.contains(t) != self.tunnelled.contains(t))
            .collect();
        for range in changed.into_iter().map(|t| t.range) {
            for id in self.rows.within(range) {
                let prefix = self.rows.prefix(id);
                let over = self.over(prefix);
                let want = self.wants.get(self.rows.get(id).want).cloned();
                if let Some(want) = want.filter(|w| w.over != over) {
                    let new = self.acquire(Want { over, ..want });
                    self.want(id, prefix, new);
                }
            }
        }
    }

    pub(super) fn over(&self, prefix: Cidr) -> Over {
        let by = self.tunnelled.iter().find(|t| t.range.covers(prefix));
        match by.map(|t| t.except) {
            None => Over::Plain,
            Some(None) => Over::Tunnel,
            Some(Some(subnet)) => Over::TunnelBut(subnet),
        }
    }

    /// The tunnel device, while there is one.
    pub(crate) fn set_tunnel(&mut self, dev: Option<IfIndex>) {
        if self.tunnel != dev {
            self.tunnel = dev;
            self.reform(|w| tunnelled(w).is_some());
        }
    }

    /// Whether routes wait for a tunnel device.
    pub(crate) fn lacks_tunnel(&self) -> bool {
        let waits = |(_, w): (u32, &Want)| tunnelled(w).is_some();
        self.tunnel.is_none() && !self.tunnelled.is_empty() && self.wants.iter().any(waits)
    }

    /// Looks up what is unsure. Next hops whose way is another now, with that.
    pub(crate) fn settle(&mut self) -> Vec<(IpAddr, Option<Way>)> {
        let mut moved = Vec::new();
        let unsure = std::mem::take(&mut self.unsure);
        let (mut on_links, others): (Vec<_>, Vec<_>) = unsure
            .into_iter()
            .partition(|a| Gate::of(*a).is_link_local());
        let mut peers = false;
        for addr in others {
            let way = self.resolve(addr);
            if self.moved(addr, way, &mut moved) {
                peers |= self.tracked.get(&addr).is_some_and(|t| t.by_peers);
            }
        }
        if peers {
            let all = self
                .tracked
                .keys()
                .filter(|a| Gate::of(**a).is_link_local());
            on_links = all.copied().collect();
        }
        for addr in on_links {
            let way = self.beside_peers(addr);
            self.moved(addr, way, &mut moved);
        }
        if !moved.is_empty() {
            let moved: FxHashSet<IpAddr> = moved.iter().map(|(a, _)| *a).collect();
            let there = |a: IpAddr| moved.contains(&a);
            let by = |g: &Gate| there(g.addr) || g.beside.is_some_and(there);
            self.reform(|w| w.gates.iter().any(by));
        }
        moved
    }

    fn moved(
        &mut self,
        addr: IpAddr,
        way: Option<Way>,
        moved: &mut Vec<(IpAddr, Option<Way>)>,
    ) -> bool {
        match self.tracked.get_mut(&addr) {
            // Unreachable is what the router takes it for until it is told.
            Some(t) if t.way != way || t.untold && way.is_some() => {
                t.untold = false;
                t.way.clone_from(&way);
                moved.push((addr, way));
                true
            }
            _ => false,
        }
    }

    fn resolve(&self, addr: IpAddr) -> Option<Way> {
        let learned = |a: IpAddr| {
            let rows = self.rows.covering(a).into_iter();
            rows.filter_map(|id| {
                let prefix = self.rows.prefix(id);
                let own = self.statics.get(&prefix).copied();
                let want = own.unwrap_or(self.rows.get(id).want);
                let want = self.wants.get(want).filter(|_| !self.refused(prefix))?;
                Some((prefix, want.gates.iter().map(|g| g.addr).collect()))
            })
            .collect()
        };
        self.ways.resolve(addr, &learned)
    }

    /// Makes the forms of some wants anew, and marks the routes of those that have another.
    fn reform(&mut self, some: impl Fn(&Want) -> bool) {
        let ids: Vec<u32> = self
            .wants
            .iter()
            .filter(|(_, w)| some(w))
            .map(|(id, _)| id)
            .collect();
        let mut changed = FxHashSet::default();
        for id in ids {
            let new = self.form_of(id);
            let old = std::mem::replace(&mut self.formed[id as usize], new);
            self.forms.release(old);
            if old != new {
                changed.insert(id);
            }
        }
        if changed.is_empty() {
            return;
        }
        for family in Family::BOTH {
            let uses = |id: &RowId| changed.contains(&self.rows.get(*id).want);
            let hit: Vec<_> = self.rows.all(family).filter(uses).collect();
            hit.into_iter().for_each(|id| self.mark(id));
        }
        let statics = self.statics.iter().filter(|(_, id)| changed.contains(id));
        let statics: Vec<Cidr> = statics.map(|(c, _)| *c).collect();
        for id in statics
            .into_iter()
            .filter_map(|c| self.rows.find(c))
            .collect::<Vec<_>>()
        {
            self.mark(id);
        }
    }
}

/// The next hop at the far end of the tunnel; several next hops share the traffic without it, as
/// with Calico's BIRD.
fn tunnelled(want: &Want) -> Option<&Gate> {
    let [gate] = want.gates.as_slice() else {
        return None;
    };
    let through = match want.over {
        Over::Plain => false,
        Over::Tunnel => true,
        Over::TunnelBut(subnet) => !subnet.contains(gate.addr),
    };
    through.then_some(gate)
}
