//! What a route is, and which routes are ours.
//!
//! Promises: two routes that the kernel cannot tell apart are equal after
//! [`Route::normal`]; ownership is a function of the route alone.
//!
//! Never: does I/O.

use net::{Cidr, Family, IfIndex};
use smallvec::{SmallVec, smallvec};
use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

/// The metric that an IPv6 route gets when it asks for 0 (`IP6_RT_PRIO_USER`).
pub const METRIC_V6: u32 = 1024;

/// A routing table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Table(pub u32);

impl Table {
    /// Where ordinary routes live.
    pub const MAIN: Self = Self(libc::RT_TABLE_MAIN as u32);
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::MAIN {
            f.write_str("main")
        } else {
            self.0.fmt(f)
        }
    }
}

/// Who installed a route, `RTPROT_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Proto(pub u8);

impl Proto {
    /// The kernel itself, for connected prefixes.
    pub const KERNEL: Self = Self(2);
    /// What installers of workload routes use by default (`RTPROT_BOOT`).
    pub const BOOT: Self = Self(3);
    /// An administrator.
    pub const STATIC: Self = Self(4);
    /// The BIRD routing daemon.
    pub const BIRD: Self = Self(12);
    /// Ours: tunnel and block routes. The number Calico uses.
    pub const OURS: Self = Self(80);
}

/// What the kernel does with a packet that matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Forward through the hops.
    Unicast,
    /// Deliver to this host.
    Local,
    /// Drop in silence.
    Blackhole,
    /// Answer "host unreachable".
    Unreachable,
    /// Answer "administratively prohibited".
    Prohibit,
    /// As if this table had no match: go on with the next rule.
    Throw,
    /// Another `RTN_*`, never made by us.
    Other(u8),
}

impl Kind {
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Unicast => libc::RTN_UNICAST,
            Self::Local => libc::RTN_LOCAL,
            Self::Blackhole => libc::RTN_BLACKHOLE,
            Self::Unreachable => libc::RTN_UNREACHABLE,
            Self::Prohibit => libc::RTN_PROHIBIT,
            Self::Throw => libc::RTN_THROW,
            Self::Other(n) => n,
        }
    }

    pub(crate) const fn from_number(n: u8) -> Self {
        match n {
            libc::RTN_UNICAST => Self::Unicast,
            libc::RTN_LOCAL => Self::Local,
            libc::RTN_BLACKHOLE => Self::Blackhole,
            libc::RTN_UNREACHABLE => Self::Unreachable,
            libc::RTN_PROHIBIT => Self::Prohibit,
            libc::RTN_THROW => Self::Throw,
            n => Self::Other(n),
        }
    }
}

/// How far a destination is. IPv6 has no such thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// Beyond a gateway.
    Universe,
    /// On the link.
    Link,
    /// On this host.
    Host,
    /// Another number.
    Other(u8),
}

impl Scope {
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Universe => libc::RT_SCOPE_UNIVERSE,
            Self::Link => libc::RT_SCOPE_LINK,
            Self::Host => libc::RT_SCOPE_HOST,
            Self::Other(n) => n,
        }
    }

    pub(crate) const fn from_number(n: u8) -> Self {
        match n {
            libc::RT_SCOPE_UNIVERSE => Self::Universe,
            libc::RT_SCOPE_LINK => Self::Link,
            libc::RT_SCOPE_HOST => Self::Host,
            n => Self::Other(n),
        }
    }
}

/// One way on. Several share the traffic by weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hop {
    /// Interface. The kernel finds it from the gateway if unset, and always shows it.
    pub dev: Option<IfIndex>,
    /// Next router, of either family; `None` if the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// The gateway is on the link even if no route says so.
    pub onlink: bool,
    /// Share of the traffic, 1 to 256; 1 if it is the only hop.
    pub weight: u16,
}

impl Hop {
    /// Straight onto a link.
    pub const fn dev(dev: IfIndex) -> Self {
        Self {
            dev: Some(dev),
            gateway: None,
            onlink: false,
            weight: 1,
        }
    }

    /// Through a router on a link.
    pub const fn via(gateway: IpAddr, dev: IfIndex) -> Self {
        Self {
            dev: Some(dev),
            gateway: Some(gateway),
            onlink: false,
            weight: 1,
        }
    }

    /// Through a router that is on the link whatever the routes say.
    pub const fn onlink(gateway: IpAddr, dev: IfIndex) -> Self {
        Self {
            dev: Some(dev),
            gateway: Some(gateway),
            onlink: true,
            weight: 1,
        }
    }
}

/// What makes a route one and not another, to the kernel and to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteKey {
    /// Table.
    pub table: Table,
    /// Destination.
    pub dst: Cidr,
    /// Metric (priority): the lowest wins.
    pub metric: u32,
}

impl fmt::Display for RouteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} metric {} in table {}",
            self.dst, self.metric, self.table
        )
    }
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Route {
    /// Identity.
    pub key: RouteKey,
    /// What happens.
    pub kind: Kind,
    /// Who installed it.
    pub proto: Proto,
    /// Scope.
    pub scope: Scope,
    /// Source address for packets that this host itself sends.
    pub src: Option<IpAddr>,
    /// Ways on; none unless `kind` is unicast or local.
    pub hops: SmallVec<[Hop; 1]>,
}

impl Route {
    /// A route through one hop. Scope follows: link without a gateway, else universe.
    pub fn unicast(table: Table, dst: Cidr, hop: Hop, proto: Proto) -> Self {
        let scope = if hop.gateway.is_some() {
            Scope::Universe
        } else {
            Scope::Link
        };
        let key = RouteKey {
            table,
            dst,
            metric: 0,
        };
        Self {
            key,
            kind: Kind::Unicast,
            proto,
            scope,
            src: None,
            hops: smallvec![hop],
        }
        .normal()
    }

    /// A route that ends here: blackhole, unreachable, prohibit, throw.
    pub fn dead_end(table: Table, dst: Cidr, kind: Kind, proto: Proto) -> Self {
        let key = RouteKey {
            table,
            dst,
            metric: 0,
        };
        let scope = Scope::Universe;
        Self {
            key,
            kind,
            proto,
            scope,
            src: None,
            hops: SmallVec::new(),
        }
        .normal()
    }

    /// The same with another metric.
    pub fn with_metric(mut self, metric: u32) -> Self {
        self.key.metric = metric;
        self.normal()
    }

    /// The same with a preferred source address.
    pub const fn with_src(mut self, src: IpAddr) -> Self {
        self.src = Some(src);
        self
    }

    /// As the kernel will show it: IPv6 has no scope, and metric 0 means 1024; dead ends
    /// have no hops; hops are a set; a lone hop's weight says nothing.
    #[must_use]
    pub fn normal(mut self) -> Self {
        if self.family() == Family::V6 {
            self.scope = Scope::Universe;
            if self.key.metric == 0 {
                self.key.metric = METRIC_V6;
            }
        }
        if !matches!(self.kind, Kind::Unicast | Kind::Local | Kind::Other(_)) {
            self.hops.clear();
        }
        self.hops.sort_unstable();
        if let [only] = self.hops.as_mut_slice() {
            only.weight = 1;
        }
        self
    }

    /// Family of the destination.
    pub const fn family(&self) -> Family {
        self.key.dst.family()
    }

    /// True if some hop needs another route to find its gateway.
    pub(crate) fn leans(&self) -> bool {
        self.hops.iter().any(|h| h.gateway.is_some() && !h.onlink)
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kind != Kind::Unicast {
            write!(f, "{:?} ", self.kind)?;
        }
        self.key.dst.fmt(f)?;
        for h in &self.hops {
            if let Some(g) = h.gateway {
                write!(f, " via {g}")?;
            }
            if let Some(d) = h.dev {
                write!(f, " dev {d}")?;
            }
        }
        if self.key.metric != 0 {
            write!(f, " metric {}", self.key.metric)?;
        }
        if self.key.table != Table::MAIN {
            write!(f, " table {}", self.key.table)?;
        }
        Ok(())
    }
}

/// One ground on which a route is ours. All that is given must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Claim {
    /// Installed by this protocol; `None` for any but the kernel's own.
    pub proto: Option<Proto>,
    /// Every hop leaves through one of these interfaces (and there is a hop); `None` for any.
    pub devices: Option<BTreeSet<IfIndex>>,
}

/// Which routes are ours: those that any claim covers. Decided from the route alone, so it
/// holds before the datastore is read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ownership {
    /// The claims.
    pub claims: Vec<Claim>,
}

impl Ownership {
    /// All routes that protocol `proto` installed.
    pub fn of_proto(proto: Proto) -> Self {
        Self::default().and_proto(proto)
    }

    /// Also all routes of `proto`.
    #[must_use]
    pub fn and_proto(mut self, proto: Proto) -> Self {
        self.claims.push(Claim {
            proto: Some(proto),
            devices: None,
        });
        self
    }

    /// Also routes through these interfaces, of one protocol or of any but the kernel's.
    #[must_use]
    pub fn and_devices(mut self, devices: BTreeSet<IfIndex>, proto: Option<Proto>) -> Self {
        self.claims.push(Claim {
            proto,
            devices: Some(devices),
        });
        self
    }

    /// True if the route is ours.
    pub fn owns(&self, r: &Route) -> bool {
        self.claims.iter().any(|c| {
            let proto = c.proto.map_or(r.proto != Proto::KERNEL, |p| p == r.proto);
            let devices = c.devices.as_ref().is_none_or(|set| {
                !r.hops.is_empty()
                    && r.hops
                        .iter()
                        .all(|h| h.dev.is_some_and(|d| set.contains(&d)))
            });
            proto && devices
        })
    }
}

/// Something that changed in the namespace's routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A route is new or different.
    Route(Route),
    /// A route is gone.
    Gone(Route),
    /// Notifications were lost: read the tables again.
    Resync,
}
