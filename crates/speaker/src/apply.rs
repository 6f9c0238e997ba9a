//! From the plan to the router, by differences.
//!
//! Promises: a session is touched only when something about it has changed, and reset only when it
//! cannot go on as changed; a session whose key is not known stays down.

use crate::engine::{At, Engine, Settings, answers};
use crate::sockets::{self, Protection};
use bgp::attr::Attributes;
use bgp::peer::{AddPathSend, LimitAction, NextHopMode, PeerConfig, PrefixLimit, Restart, Timers};
use bgp::policy::Policy;
use bgp::rib::PeerId;
use bgp::router::{Config, LocalRoute, Restarting, Router};
use bgp::types::{ClusterId, PerFamily, RouterId};
use model::{Beyond, MaxPrefixes, Secret, SecretKey};
use net::{Cidr, Family};
use peering::{METRIC_BASE, Peer, Plan, Speaker};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Routes of our own count before learned ones.
const OWN_PREFERENCE: u16 = 200;
/// Connected networks count before all, other routes of the kernel behind all; as in BIRD.
const CONNECTED_PREFERENCE: u16 = 240;
const KERNEL_PREFERENCE: u16 = 10;

/// A session that has ended over its maximum of prefixes is tried again after this.
const AGAIN: Duration = Duration::from_secs(60);

/// A session that the router has.
struct Session {
    id: PeerId,
    peer: Peer,
    config: PeerConfig,
    how: Protection,
}

/// What was last followed.
pub(crate) struct Applied {
    pub(crate) plan: Plan,
    sessions: BTreeMap<(IpAddr, u16), Session>,
    names: HashMap<PeerId, String>,
    /// By name.
    secrets: HashMap<Arc<str>, Secret>,
    announced: BTreeMap<Cidr, LocalRoute>,
}

impl Applied {
    pub(crate) fn new(plan: Plan) -> Self {
        Self {
            plan,
            sessions: BTreeMap::new(),
            names: HashMap::new(),
            secrets: HashMap::new(),
            announced: BTreeMap::new(),
        }
    }

    /// Takes what a secret holds; whether that is news.
    pub(crate) fn set_secret(&mut self, name: Arc<str>, value: Option<Secret>) -> bool {
        match value {
            Some(v) => self.secrets.insert(name, v.clone()) != Some(v),
            None => self.secrets.remove(&name).is_some(),
        }
    }

    /// Takes what one key of a secret holds; whether that is news.
    pub(crate) fn set_key(&mut self, key: SecretKey, value: Option<Vec<u8>>) -> bool {
        let keys = &mut self.secrets.entry(key.name).or_default().0;
        match value {
            Some(v) => keys.insert(key.key, v.as_slice().into()).as_deref() != Some(&v),
            None => keys.remove(&key.key).is_some(),
        }
    }

    /// The number of each peer of the plan in the router.
    pub(crate) fn ids(&self) -> Vec<(PeerId, usize)> {
        let at = |p: &Peer| self.sessions.get(&(p.address, p.port));
        let each = self.plan.peers.iter().enumerate();
        each.filter_map(|(i, p)| Some((at(p)?.id, i))).collect()
    }

    /// The number in the router of the peer at an address and port.
    pub(crate) fn id_at(&self, address: IpAddr, port: u16) -> Option<PeerId> {
        self.sessions.get(&(address, port)).map(|s| s.id)
    }

    pub(crate) fn name_of(&self, id: PeerId) -> &str {
        self.names
            .get(&id)
            .map_or("a peer that is gone", String::as_str)
    }

    /// How to call a peer.
    pub(crate) fn dial(&self, id: PeerId, to: IpAddr) -> (SocketAddr, Option<IpAddr>, Protection) {
        let session = self.sessions.values().find(|s| s.id == id);
        match session {
            Some(s) => (
                SocketAddr::new(to, s.peer.port),
                s.peer.source,
                s.how.clone(),
            ),
            None => (SocketAddr::new(to, 179), None, Protection::default()),
        }
    }

    /// The peer that calls from an address. Where several speakers share it, which of them calls
    /// cannot be seen: one that is waited for may, the others are called at their ports.
    pub(crate) fn caller(&self, from: IpAddr) -> Option<(PeerId, Protection)> {
        let from = from.to_canonical();
        let of_address = || self.sessions.range((from, 0)..=(from, u16::MAX));
        let alone = of_address().nth(1).is_none();
        let mut may = of_address().filter(|(_, s)| alone || s.peer.passive);
        let (_, s) = may.next().filter(|_| may.next().is_none())?;
        Some((s.id, s.how.clone()))
    }

    /// How a peer is protected; what is missing is said.
    fn protection(&self, peer: &Peer) -> Result<Protection, String> {
        let key = match &peer.password {
            None => None,
            Some(at) => match self.secrets.get(&at.name).and_then(|s| s.0.get(&at.key)) {
                Some(key) if key.len() <= sockets::MAX_KEY => Some(key.to_vec()),
                Some(key) => {
                    return Err(format!(
                        "{}: the password in secret {} ({}) has {} octets, and at most {} can be used",
                        peer.name(),
                        at.name,
                        at.key,
                        key.len(),
                        sockets::MAX_KEY
                    ));
                }
                None => {
                    return Err(format!(
                        "{}: its password is in secret {} ({}), which does not exist: the session \
                         stays down until it does",
                        peer.name(),
                        at.name,
                        at.key
                    ));
                }
            },
        };
        Ok(Protection {
            key,
            hops: peer.ttl_security,
        })
    }
}

fn config_of(peer: &Peer, import: Arc<Policy>, export: Arc<Policy>) -> PeerConfig {
    let mut c = PeerConfig::new(peer.address, peer.asn);
    c.local_asn = Some(peer.local_asn);
    c.passive = peer.passive;
    c.timers = Timers {
        keepalive: peer.keepalive.and_then(|s| u16::try_from(s).ok()),
        ..Timers::default()
    };
    c.client = peer.client;
    c.next_hop = match peer.next_hop {
        model::NextHopMode::Auto => NextHopMode::Auto,
        model::NextHopMode::Own => NextHopMode::Own,
        model::NextHopMode::Keep => NextHopMode::Keep,
    };
    c.allow_own_asn = u8::try_from(peer.allowed_local_as).unwrap_or(u8::MAX);
    c.restart = Some(Restart {
        time: Duration::from_secs(peer.restart.into()),
        ..Restart::default()
    });
    c.add_path_receive = peer.add_path.receive;
    if peer.add_path.send {
        c.add_path_send = AddPathSend::All;
    }
    let family = Family::of(peer.address);
    c.limit[family] = peer.max_prefixes.map(limit_of);
    c.import = import;
    c.export = export;
    c
}

/// The router's word for a maximum of prefixes.
fn limit_of(max: MaxPrefixes) -> PrefixLimit {
    let (warn_at, action) = match max.beyond {
        Beyond::Warn => (max.count.saturating_add(1), LimitAction::Warn),
        Beyond::Discard => (most_of(max.count), LimitAction::Discard),
        Beyond::Reset => (most_of(max.count), LimitAction::Teardown(Some(AGAIN))),
    };
    PrefixLimit {
        max: max.count,
        warn_at,
        action,
    }
}

/// Three quarters, rounded up: from there on the log says that the maximum is near.
const fn most_of(count: u32) -> u32 {
    count - count / 4
}

/// Equal policies are one, so that their peers are told from one queue.
#[derive(Default)]
struct Policies(Vec<Arc<Policy>>);

impl Policies {
    fn share(&mut self, policy: Policy) -> Arc<Policy> {
        if let Some(known) = self.0.iter().find(|p| ***p == policy) {
            return known.clone();
        }
        let new = Arc::new(policy);
        self.0.push(new.clone());
        new
    }
}

/// The router's own settings.
fn router_config(speaker: &Speaker, settings: &Settings) -> Config {
    let id = match (settings.router_id, speaker.addresses[0]) {
        (Some(id), _) => id,
        (None, Some(IpAddr::V4(a))) => RouterId::from(a),
        _ => settings.fallback_id,
    };
    let mut config = Config::new(speaker.asn, id, settings.seed);
    config.cluster_id = speaker.cluster.as_deref().and_then(cluster_id);
    config.multipath = 16;
    config
}

/// `routeReflectorClusterID`: an IPv4 address as a name.
fn cluster_id(text: &str) -> Option<ClusterId> {
    let a: std::net::Ipv4Addr = text.parse().ok()?;
    Some(ClusterId(a.to_bits()))
}

impl Engine {
    /// Makes the router what the resources say.
    pub(crate) fn follow(&mut self, now: Instant) {
        let mut plan = self.world.plan();
        // They go the way of service addresses: announced as they are, dead ends here.
        plan.own.services.extend(self.settings.statics.keys());
        self.troubles.clear();
        let Some(speaker) = plan.speaker.clone() else {
            self.applied.plan = plan;
            self.silence(now);
            return;
        };
        let mut config = router_config(&speaker, &self.settings);
        config.track_next_hops = self.kernel.is_some();
        config.restarting = match &self.router {
            Some(r) => r.config().restarting.clone(),
            None => self.restarting(),
        };
        if self.router.as_ref().is_some_and(|r| *r.config() != config) {
            // Another AS or identifier is another speaker: every session starts anew.
            self.silence(now);
        }
        if self.listen(&self.listen_at(&speaker, &plan.peers)) {
            self.protect_all();
        }
        if self.router.is_none() {
            self.router = Some(Router::new(config, now));
        }
        self.kernel_follows(&plan);
        self.sessions(&plan, now);
        self.applied.plan = plan;
        self.watch_paths(now);
        self.announce_all();
    }

    /// Our own restart: where a run before has left routes, they are used until peers have told
    /// theirs (RFC 4724).
    fn restarting(&self) -> Option<Restarting> {
        let kernel = self.settings.kernel.as_ref()?;
        let [v4, v6] = self.adopted;
        (v4 || v6).then_some(Restarting {
            // The machine has been up: the ways to its own pods are no routes of BGP, and were
            // there all along in either family.
            forwarding: PerFamily { v4: true, v6: true },
            kept: PerFamily { v4, v6 },
            deferral: kernel.deferral,
            absent: kernel.absent,
        })
    }

    pub(crate) fn listen_at(&self, speaker: &Speaker, peers: &[Peer]) -> Vec<At> {
        let port = speaker.port;
        let usual = |at| At { at, early: false };
        if let Some(l) = &self.settings.listen {
            return l.iter().copied().map(usual).collect();
        }
        if !speaker.bind_node_ip {
            let all = [false, true].map(sockets::any);
            return all.map(|a| usual(SocketAddr::new(a, port))).to_vec();
        }
        let own: BTreeSet<IpAddr> = speaker.addresses.iter().flatten().copied().collect();
        let called = answers(peers).into_iter().filter(|a| !own.contains(a));
        let called = called.map(|a| At {
            at: SocketAddr::new(a, port),
            early: true,
        });
        let own = own.iter().map(|a| usual(SocketAddr::new(*a, port)));
        own.chain(called).collect()
    }

    /// Ends every session and listener.
    fn silence(&mut self, now: Instant) {
        let sessions = std::mem::take(&mut self.applied.sessions);
        for s in sessions.into_values() {
            self.remove(&s, now);
        }
        self.flush(now);
        self.stations.forget(now);
        self.router = None;
        self.forget_kernel();
        self.watch_paths(now);
        self.applied.announced.clear();
        self.listen(&[]);
    }

    fn sessions(&mut self, plan: &Plan, now: Instant) {
        let mut policies = Policies::default();
        let mut wanted = BTreeMap::new();
        for peer in &plan.peers {
            let how = match self.applied.protection(peer) {
                Ok(how) => how,
                Err(e) => {
                    self.troubles.push(e);
                    continue;
                }
            };
            let import = policies.share(self.world.import(peer));
            let export = policies.share(self.world.export(&plan.own, peer));
            let config = config_of(peer, import, export);
            wanted.insert((peer.address, peer.port), (peer, config, how));
        }
        let gone: Vec<_> = self
            .applied
            .sessions
            .keys()
            .filter(|k| !wanted.contains_key(*k))
            .copied()
            .collect();
        for key in gone {
            if let Some(s) = self.applied.sessions.remove(&key) {
                self.remove(&s, now);
            }
        }
        for (key, (peer, config, how)) in wanted {
            self.session(key, peer, config, how, now);
        }
    }

    fn session(
        &mut self,
        key: (IpAddr, u16),
        peer: &Peer,
        config: PeerConfig,
        how: Protection,
        now: Instant,
    ) {
        let known = self.applied.sessions.get(&key);
        // What the sockets are made with cannot be changed under a session.
        let anew = known.is_some_and(|s| s.how != how || s.peer.source != peer.source);
        if anew && let Some(s) = self.applied.sessions.remove(&key) {
            self.remove(&s, now);
        }
        let known_passive = self.applied.sessions.get(&key).map(|s| s.peer.passive);
        let id = match self.applied.sessions.get(&key) {
            Some(s) => {
                if s.config != config
                    && let Some(router) = &mut self.router
                {
                    router.configure_peer(s.id, config.clone(), now);
                }
                s.id
            }
            None => {
                let Some(router) = &mut self.router else {
                    return;
                };
                router.add_peer(config.clone(), now)
            }
        };
        self.applied.names.insert(id, peer.name());
        let keep = known_passive == Some(peer.passive);
        let session = Session {
            id,
            peer: peer.clone(),
            config,
            how,
        };
        self.applied.sessions.insert(key, session);
        if !keep {
            self.protect_caller(peer.address);
        }
    }

    fn remove(&mut self, s: &Session, now: Instant) {
        if let Some(router) = &mut self.router {
            router.remove_peer(s.id, now);
        }
        self.applied.names.remove(&s.id);
        self.protect_caller(s.peer.address);
        // What it is told last goes out before its number is given anew.
        self.flush(now);
    }

    fn announce_all(&mut self) {
        let own = &self.applied.plan.own;
        let mut prefixes: BTreeSet<Cidr> = own.blocks.union(&own.services).copied().collect();
        prefixes.extend(self.locals.keys());
        prefixes.extend(self.applied.announced.keys());
        for prefix in prefixes {
            self.announce(prefix);
        }
    }

    /// Tells the router of a route of our own, or that there is none.
    pub(crate) fn announce(&mut self, prefix: Cidr) {
        let Some(router) = &mut self.router else {
            return;
        };
        let own = &self.applied.plan.own;
        let normal = self.world.normal_priority(prefix.family());
        let route = |priority: u32, preference, interface| {
            let any = sockets::any(prefix.family() == Family::V6);
            let mut attributes = Attributes::new(any.into());
            attributes.local_pref = Some(METRIC_BASE.saturating_sub(priority));
            LocalRoute {
                attributes,
                preference,
                interface,
            }
        };
        let wanted = if own.blocks.contains(&prefix) || own.services.contains(&prefix) {
            let mut route = route(normal, OWN_PREFERENCE, None);
            if let Some(Some(hop)) = self.settings.statics.get(&prefix) {
                route.attributes.next_hop = (*hop).into();
            }
            Some(route)
        } else {
            self.locals.get(&prefix).map(|l| {
                let preference = match l.connected {
                    true => CONNECTED_PREFERENCE,
                    false => KERNEL_PREFERENCE,
                };
                let metric = if l.metric == 0 { normal } else { l.metric };
                route(metric, preference, l.interface)
            })
        };
        if self.applied.announced.get(&prefix) == wanted.as_ref() {
            return;
        }
        match wanted {
            Some(wanted) => {
                self.applied.announced.insert(prefix, wanted.clone());
                router.announce(prefix, wanted);
            }
            None => {
                self.applied.announced.remove(&prefix);
                router.withdraw(prefix);
            }
        }
    }

    /// Sets on listeners what protects whoever may call from an address, if anybody.
    fn protect_caller(&mut self, address: IpAddr) {
        let how = self.applied.caller(address).map(|(_, how)| how);
        self.protect(address, &how.unwrap_or_default());
    }

    /// Sets every key on listeners that are new.
    fn protect_all(&mut self) {
        let keyed = self.applied.sessions.values();
        let keyed = keyed.filter(|s| s.how.key.is_some());
        let all: BTreeSet<IpAddr> = keyed.map(|s| s.peer.address).collect();
        for address in all {
            self.protect_caller(address);
        }
    }
}
