//! The next hops of all routes, and what is known of them.
//!
//! Promises: each address is there once while any route uses it. Never: resolves one; the
//! caller tells.

use net::IfName;
use std::collections::HashMap;
use std::net::IpAddr;

/// Names a next hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HopId(u32);

/// What is known of a next hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HopState {
    /// The metric of the way there (RFC 4271, section 9.1.2.2 e); `None` is unreachable.
    pub metric: Option<u32>,
    /// The interface of the way there.
    pub interface: Option<IfName>,
}

/// A next hop.
#[derive(Debug, Clone)]
pub struct Hop {
    /// Its address.
    pub addr: IpAddr,
    /// What is known of it.
    pub state: HopState,
    users: u32,
}

/// All next hops.
#[derive(Debug)]
pub struct Hops {
    slots: Vec<Hop>,
    free: Vec<u32>,
    index: HashMap<IpAddr, u32, rustc_hash::FxBuildHasher>,
    tracked: bool,
    /// Addresses that came into use or went out of it since the caller last looked.
    changed: Vec<(IpAddr, bool)>,
}

impl Hops {
    /// None. `tracked`: a next hop is unreachable until told otherwise; else all are
    /// reachable at no cost.
    pub fn new(tracked: bool) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            index: HashMap::default(),
            tracked,
            changed: Vec::new(),
        }
    }

    /// The next hop.
    pub fn get(&self, id: HopId) -> &Hop {
        &self.slots[id.0 as usize]
    }

    /// The next hop with this address.
    pub fn find(&self, addr: IpAddr) -> Option<HopId> {
        self.index.get(&addr).copied().map(HopId)
    }

    /// Adds a user of the address.
    pub(super) fn acquire(&mut self, addr: IpAddr) -> HopId {
        if let Some(&i) = self.index.get(&addr) {
            self.slots[i as usize].users += 1;
            return HopId(i);
        }
        let local = addr.is_unspecified();
        let metric = (local || !self.tracked).then_some(0);
        let hop = Hop {
            addr,
            state: HopState {
                metric,
                interface: None,
            },
            users: 1,
        };
        let i = match self.free.pop() {
            Some(i) => {
                self.slots[i as usize] = hop;
                i
            }
            None => {
                self.slots.push(hop);
                u32::try_from(self.slots.len() - 1).expect("fewer next hops than 2^32")
            }
        };
        self.index.insert(addr, i);
        if self.tracked && !local {
            self.changed.push((addr, true));
        }
        HopId(i)
    }

    /// Takes a user away.
    pub(super) fn release(&mut self, id: HopId) {
        let hop = &mut self.slots[id.0 as usize];
        hop.users -= 1;
        if hop.users == 0 {
            let addr = hop.addr;
            self.index.remove(&addr);
            self.free.push(id.0);
            if self.tracked && !addr.is_unspecified() {
                self.changed.push((addr, false));
            }
        }
    }

    /// Sets what is known; says which next hop that changed.
    pub fn set(&mut self, addr: IpAddr, state: HopState) -> Option<HopId> {
        let id = self.find(addr)?;
        let hop = &mut self.slots[id.0 as usize];
        (hop.state != state).then(|| {
            hop.state = state;
            id
        })
    }

    /// What came into use (`true`) or went out of it since the last call, in order.
    pub fn take_changed(&mut self) -> Vec<(IpAddr, bool)> {
        std::mem::take(&mut self.changed)
    }

    /// Whether [`Hops::take_changed`] has any.
    pub fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }
}
