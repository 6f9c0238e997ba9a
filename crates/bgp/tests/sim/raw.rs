//! A router and one peer of AS 2 that is no router: it says what it is told to, octet by octet.

use bgp::attr::{AsPath, Attributes, NextHop};
use bgp::caps::{Capability, Encoding};
use bgp::message::{Open, RefreshSubtype, RouteRefresh};
use bgp::peer::PeerConfig;
use bgp::rib::PeerId;
use bgp::router::{Config, ConnId, Router};
use bgp::types::{AfiSafi, RouterId};
use bgp::{Asn, Cidr, Family, wire};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

/// A peer of AS 2 that says what it is told to.
pub struct Raw {
    pub r: Router,
    pub id: PeerId,
    pub now: Instant,
    /// What it can do beside IPv4, four-octet AS numbers and refreshes.
    pub more: Vec<Capability>,
}

impl Raw {
    /// A router of AS 1 that looks at so many prefixes in one go, and waits for the peer.
    pub fn new(slice: u32, change: impl FnOnce(&mut PeerConfig)) -> Self {
        Self::with(|c| c.slice = slice, change)
    }

    /// A router of AS 1 that waits for the peer.
    pub fn with(own: impl FnOnce(&mut Config), change: impl FnOnce(&mut PeerConfig)) -> Self {
        let now = Instant::now();
        let mut config = Config::new(Asn(1), RouterId(1), 3);
        own(&mut config);
        let mut r = Router::new(config, now);
        let mut peer = PeerConfig::new(Ipv4Addr::new(10, 0, 0, 2).into(), Asn(2));
        peer.passive = true;
        change(&mut peer);
        let id = r.add_peer(peer, now);
        Self {
            r,
            id,
            now,
            more: Vec::new(),
        }
    }

    /// It calls, and the session is up.
    pub fn up(&mut self) -> ConnId {
        let local = Ipv4Addr::new(10, 0, 0, 1).into();
        let conn = self.r.accepted(self.id, local, self.now);
        let conn = conn.unwrap_or_else(|| panic!("it is waited for"));
        let mut capabilities = vec![
            Capability::MultiProtocol(AfiSafi::IPV4_UNICAST),
            Capability::FourOctetAs(Asn(2)),
            Capability::RouteRefresh,
            Capability::EnhancedRouteRefresh,
        ];
        capabilities.extend(self.more.iter().cloned());
        let open = Open {
            asn: Asn(2),
            hold_time: 0,
            router_id: RouterId(2),
            capabilities,
        };
        let mut octets = Vec::new();
        assert!(wire::write_open(&open, &mut octets).is_ok());
        wire::write_keepalive(&mut octets);
        self.r.received(conn, &octets, self.now);
        conn
    }

    /// It announces routes with its AS as their path.
    pub fn tell(&mut self, conn: ConnId, routes: impl Iterator<Item = Cidr>) {
        self.tell_path(conn, [Asn(2)], routes);
    }

    /// It announces routes with any path.
    pub fn tell_path(
        &mut self,
        conn: ConnId,
        path: impl IntoIterator<Item = Asn>,
        routes: impl Iterator<Item = Cidr>,
    ) {
        let how = Encoding {
            four_octet_as: true,
            ..Encoding::default()
        };
        let hop: IpAddr = Ipv4Addr::new(10, 0, 0, 2).into();
        let mut a = Attributes::new(NextHop::from(hop));
        a.as_path = AsPath::sequence(path);
        let block = wire::AttributeBlock::new(Family::V4, &a, &how);
        let block = block.unwrap_or_else(|e| panic!("{e}"));
        let mut out = Vec::new();
        block.write_all(routes.map(Into::into), &mut out);
        self.r.received(conn, &out, self.now);
    }

    /// It has told all.
    pub fn end(&mut self, conn: ConnId) {
        let mut end = Vec::new();
        wire::write_end_of_rib(Family::V4, &mut end);
        self.r.received(conn, &end, self.now);
    }

    /// It asks for a refresh, or marks where one begins or ends.
    pub fn mark(&mut self, conn: ConnId, subtype: RefreshSubtype) {
        let family = AfiSafi::IPV4_UNICAST;
        let mut out = Vec::new();
        wire::write_refresh(RouteRefresh { family, subtype }, &mut out);
        self.r.received(conn, &out, self.now);
    }

    /// What is due at once is done.
    pub fn finish(&mut self) {
        while self.r.deadline().is_some_and(|at| at <= self.now) {
            self.r.tick(self.now);
        }
    }
}
