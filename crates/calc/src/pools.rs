//! Pools, reduced to what routes and translation need.
//!
//! Promises: a prefix is governed by the longest pool that covers it; of pools with the
//! same range, by the one whose name sorts first. Disabled and deleting pools go on
//! governing the addresses that they gave.
//!
//! Never: hands out addresses.

use crate::globals::cover;
use model::{Encap, IpPool};
use net::{Cidr, Family, PrefixMap};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A pool.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Pool {
    cidr: Cidr,
    pub(crate) vxlan: Encap,
    pub(crate) ipip: Encap,
    nat_outgoing: bool,
    load_balancers_only: bool,
}

impl From<&IpPool> for Pool {
    fn from(p: &IpPool) -> Self {
        Self {
            cidr: p.cidr,
            vxlan: p.vxlan,
            ipip: p.ipip,
            nat_outgoing: p.nat_outgoing,
            load_balancers_only: p.uses.load_balancer && !p.uses.workload && !p.uses.tunnel,
        }
    }
}

/// All pools by name and by range.
#[derive(Debug, Default)]
pub(crate) struct Pools {
    by_name: BTreeMap<Arc<str>, Pool>,
    by_range: PrefixMap<BTreeSet<Arc<str>>>,
}

impl Pools {
    /// Takes the new state of a pool. The ranges in which something changed.
    pub(crate) fn update(&mut self, name: &Arc<str>, pool: Option<&IpPool>) -> Vec<Cidr> {
        let new = pool.map(Pool::from);
        let old = match &new {
            Some(p) => self.by_name.insert(name.clone(), p.clone()),
            None => self.by_name.remove(name),
        };
        if old == new {
            return Vec::new();
        }
        let (gone, come) = (old.map(|p| p.cidr), new.map(|p| p.cidr));
        if let Some(cidr) = gone
            && let Some(names) = self.by_range.get_mut(cidr)
        {
            names.remove(name);
            if names.is_empty() {
                self.by_range.remove(cidr);
            }
        }
        if let Some(cidr) = come {
            if self.by_range.get(cidr).is_none() {
                self.by_range.insert(cidr, BTreeSet::new());
            }
            if let Some(names) = self.by_range.get_mut(cidr) {
                names.insert(name.clone());
            }
        }
        let mut touched: Vec<Cidr> = gone.into_iter().chain(come).collect();
        touched.dedup();
        touched
    }

    /// The pool that governs a prefix.
    pub(crate) fn of(&self, cidr: Cidr) -> Option<&Pool> {
        let (_, names) = self.by_range.covering(cidr).next()?;
        self.by_name.get(names.first()?)
    }

    /// Whether some pool of a family wants VXLAN.
    pub(crate) fn vxlan(&self, family: Family) -> bool {
        let mut pools = self.by_name.values();
        pools.any(|p| p.cidr.family() == family && p.vxlan != Encap::Never)
    }

    /// Sources to be translated on the way out.
    pub(crate) fn nat_sources(&self) -> Vec<Cidr> {
        let pools = self.by_name.values().filter(|p| p.nat_outgoing);
        cover(&pools.map(|p| p.cidr).collect::<Vec<_>>())
    }

    /// All pools but those only for load balancers, and some more.
    pub(crate) fn within_cluster(&self, more: &[Cidr]) -> Vec<Cidr> {
        let pools = self.by_name.values().filter(|p| !p.load_balancers_only);
        cover(
            &pools
                .map(|p| p.cidr)
                .chain(more.iter().copied())
                .collect::<Vec<_>>(),
        )
    }
}
