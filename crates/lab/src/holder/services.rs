//! What a cluster has beside Manx for its services: an endpoint controller, and on every node a
//! service proxy.
//!
//! Promises: services get the addresses and node ports that an API server would give them, those
//! with a selector the EndpointSlices of the pods that they select; every node translates cluster
//! addresses, external addresses and node ports to pods, in an nf_tables table of the proxy's own,
//! at the hooks and priorities of kube-proxy. A node sends all of a service port to one of its
//! endpoints: the one of its own number, counted round.
//!
//! Never: touches Manx's table, or lets a packet through or drops one.

use crate::holder::kubelet::Kubelet;
use crate::holder::node::Node;
use crate::holder::servers::Servers;
use api::{Resource, ResourceKind};
use datastore::{Client, Event, Store};
use model::{EndpointSlice, Service, ServicePort, ServiceRef, Update};
use net::{Cidr, Family, PortRange, Protocol};
use nftables::{
    Base, Chain, ChainName, Hook, Kind, Match, NetList, Policy, PortList, Rule, Side, Statement,
    Sys, Table, TableName,
};
use scenario::Port;
use scenario::plan::FamilySet;
use scenario::services::{self as made, Allocator, PodAt};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The proxy's table; Manx must leave it alone.
const TABLE: &str = "service-proxy";
/// As kube-proxy marks what it will masquerade.
const MASQUERADE: u32 = 0x4000;

/// Controller and proxies of a lab.
pub(super) struct Services {
    client: Client,
    store: Arc<dyn Store>,
    families: FamilySet,
    runtime: tokio::runtime::Handle,
    kubelet: Arc<Kubelet>,
    servers: Arc<Servers>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    proxies: Vec<Proxy>,
    known: Known,
}

struct Proxy {
    node: Arc<Node>,
    index: usize,
    /// Opened with the first service: most labs have none.
    table: Option<(Sys, Table)>,
}

/// All services, as the proxies need them.
type Known = BTreeMap<ServiceRef, (Service, Vec<EndpointSlice>)>;

impl Services {
    /// Follows the store from now on.
    pub(super) fn start(
        nodes: &[Arc<Node>],
        store: Arc<dyn Store>,
        families: FamilySet,
        runtime: tokio::runtime::Handle,
        kubelet: Arc<Kubelet>,
        servers: Arc<Servers>,
    ) -> Arc<Self> {
        let proxies = nodes.iter().enumerate().map(|(index, node)| Proxy {
            node: Arc::clone(node),
            index,
            table: None,
        });
        let services = Arc::new(Self {
            client: Client::new(Arc::clone(&store)),
            store,
            families,
            runtime: runtime.clone(),
            kubelet,
            servers,
            state: Mutex::new(State {
                proxies: proxies.collect(),
                known: Known::new(),
            }),
        });
        let follower = Arc::clone(&services);
        runtime.spawn(async move {
            loop {
                if let Err(e) = follower.follow().await {
                    eprintln!("services: {e}");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        });
        services
    }

    async fn follow(self: &Arc<Self>) -> Result<(), String> {
        let prefixes = [
            ResourceKind::Service,
            ResourceKind::EndpointSlice,
            ResourceKind::Pod,
        ]
        .map(ResourceKind::prefix);
        let mut from = self
            .store
            .list_each(&prefixes, &mut |_| ())
            .await
            .map_err(|e| e.to_string())?;
        loop {
            let services = Arc::clone(self);
            tokio::task::spawn_blocking(move || services.settle())
                .await
                .map_err(|e| e.to_string())??;
            let mut watch = self
                .store
                .watch(&prefixes, from)
                .await
                .map_err(|e| e.to_string())?;
            let events = watch.next().await.map_err(|e| e.to_string())?;
            from = events.last().map_or(from, Event::revision);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cluster addresses of a service; `None` if there is no such service.
    pub(super) fn addresses(&self, namespace: &str, name: &str) -> Option<Vec<IpAddr>> {
        let key = ServiceRef {
            namespace: namespace.into(),
            name: name.into(),
        };
        let state = self.state();
        state.known.get(&key).map(|(s, _)| s.cluster_ips.clone())
    }

    /// Whether a port of the nodes leads to a service.
    pub(super) fn is_node_port(&self, protocol: Protocol, number: u16) -> bool {
        let state = self.state();
        let mut ports = state.known.values().flat_map(|(s, _)| &s.ports);
        ports.any(|p| p.protocol == protocol && p.node_port == Some(number))
    }

    /// Brings addresses, slices and proxies up to what is stored now, and lets the pods behind
    /// services answer. Blocks; not for tasks.
    ///
    /// # Errors
    /// What the store or the kernel refuses.
    pub(super) fn settle(&self) -> Result<(), String> {
        let mut state = self.state();
        let known = self.runtime.block_on(self.control())?;
        if known == state.known {
            return Ok(());
        }
        for p in &mut state.proxies {
            p.program(&known)
                .map_err(|e| format!("services on {}: {e}", p.node.name))?;
        }
        self.serve(&known);
        state.known = known;
        Ok(())
    }

    /// Opens the ports that services lead to.
    fn serve(&self, known: &Known) {
        for (service, slices) in known.values() {
            for port in &service.ports {
                for (addr, number, _) in Family::BOTH
                    .into_iter()
                    .flat_map(|f| endpoints(port, slices, f))
                {
                    let Some((label, sandbox)) = self.kubelet.at(addr) else {
                        continue;
                    };
                    let port = Port::new(port.protocol, number);
                    if let Err(e) = self.servers.ensure(&sandbox.ns, addr, port, &label) {
                        eprintln!("{label}: listen on {port}: {e}");
                    }
                }
            }
        }
    }

    async fn list(&self, kind: ResourceKind) -> Result<Vec<Resource>, String> {
        let listed = self.client.list(kind, None).await;
        Ok(listed.map_err(|e| e.to_string())?.resources)
    }

    /// The endpoint controller's part; gives what is then known of services.
    async fn control(&self) -> Result<Known, String> {
        let services = self.list(ResourceKind::Service).await?;
        let old = self.list(ResourceKind::EndpointSlice).await?;
        if services.is_empty() && old.is_empty() {
            return Ok(Known::new());
        }
        let values: Vec<Value> = services.iter().map(value).collect();
        let mut allocator = Allocator::default();
        values.iter().for_each(|v| allocator.note(v));
        let pods: Vec<(Value, String, Vec<IpAddr>)> = self
            .list(ResourceKind::Pod)
            .await?
            .iter()
            .filter_map(running)
            .collect();
        let at: Vec<PodAt<'_>> = pods
            .iter()
            .map(|(pod, node, ips)| PodAt { pod, node, ips })
            .collect();
        let mut complete = Vec::new();
        let mut slices: Vec<Resource> = Vec::new();
        for mut service in values {
            if allocator.complete(&mut service, self.families) {
                self.write(&service).await?;
            }
            for slice in made::slices(&service, &at) {
                slices.push(parse(&slice)?);
            }
            complete.push(parse(&service)?);
        }
        self.write_slices(&old, &slices).await?;
        let foreign = old.into_iter().filter(|o| !ours(o));
        Ok(known(&complete, &foreign.chain(slices).collect::<Vec<_>>()))
    }

    async fn write_slices(&self, old: &[Resource], new: &[Resource]) -> Result<(), String> {
        for slice in new {
            let before = old.iter().find(|o| same(o, slice));
            if before.is_none_or(|b| body(b) != body(slice)) {
                let applied = self.client.apply(slice.clone()).await;
                applied.map_err(|e| format!("{slice}: {e}"))?;
            }
        }
        for gone in old.iter().filter(|o| ours(o)) {
            if new.iter().any(|n| same(n, gone)) {
                continue;
            }
            let (kind, namespace, name) = (gone.kind(), gone.namespace(), &gone.meta().name);
            match self
                .client
                .delete(kind, namespace, name, datastore::Delete::default())
                .await
            {
                Err(e) if !e.is_not_found() => return Err(format!("{gone}: {e}")),
                _ => {}
            }
        }
        Ok(())
    }

    async fn write(&self, object: &Value) -> Result<(), String> {
        let r = parse(object)?;
        let shown = r.to_string();
        let written = self.client.apply(r).await;
        written.map(drop).map_err(|e| format!("{shown}: {e}"))
    }
}

fn value(r: &Resource) -> Value {
    serde_json::to_value(r).unwrap_or_default()
}

fn parse(object: &Value) -> Result<Resource, String> {
    match api::parse_documents(&object.to_string(), "the lab's services").pop() {
        Some(Ok((r, _))) => Ok(r),
        Some(Err(e)) => Err(e.to_string()),
        None => Err("an empty object".to_owned()),
    }
}

fn same(a: &Resource, b: &Resource) -> bool {
    a.namespace() == b.namespace() && a.meta().name == b.meta().name
}

/// Made by a controller such as this one, not by hand.
fn ours(r: &Resource) -> bool {
    r.meta()
        .labels
        .get(made::MANAGED_BY)
        .is_some_and(|m| m == made::MANAGER)
}

/// All of a slice but its metadata.
fn body(r: &Resource) -> Value {
    let mut v = value(r);
    if let Some(o) = v.as_object_mut() {
        o.remove("metadata");
    }
    v
}

/// A pod that has addresses: as JSON, its node and they.
fn running(r: &Resource) -> Option<(Value, String, Vec<IpAddr>)> {
    let Resource::Pod(p) = r else { return None };
    let ips: Vec<IpAddr> = p
        .status
        .pod_ips
        .iter()
        .filter_map(|i| i.ip.parse().ok())
        .collect();
    let runs = p.status.phase == "Running" && p.metadata.deletion_timestamp.is_none();
    (runs && !ips.is_empty()).then(|| (value(r), p.spec.node_name.clone(), ips))
}

fn known(services: &[Resource], slices: &[Resource]) -> Known {
    let mut out = Known::new();
    for u in services
        .iter()
        .flat_map(|s| api::updates(s).unwrap_or_default())
    {
        if let Update::Service(name, Some(s)) = u {
            out.insert(name, (s, Vec::new()));
        }
    }
    for u in slices
        .iter()
        .flat_map(|s| api::updates(s).unwrap_or_default())
    {
        if let Update::EndpointSlice(_, Some(s)) = u
            && let Some((_, list)) = out.get_mut(&s.service)
        {
            list.push(s);
        }
    }
    out
}

/// Where one port of a service leads, in a family: address, port, node.
fn endpoints(
    port: &ServicePort,
    slices: &[EndpointSlice],
    family: Family,
) -> Vec<(IpAddr, u16, Option<Arc<str>>)> {
    let mut out = Vec::new();
    for slice in slices {
        let to = slice
            .ports
            .iter()
            .find(|p| p.name == port.name && p.protocol == port.protocol);
        let Some(number) = to.and_then(|p| p.port) else {
            continue;
        };
        for e in slice.endpoints.iter().filter(|e| e.ready) {
            let of_family = e.addresses.iter().filter(|a| Family::of(**a) == family);
            out.extend(of_family.map(|a| (*a, number, e.node.clone())));
        }
    }
    out.sort();
    out.dedup();
    out
}

impl Proxy {
    fn program(&mut self, known: &Known) -> Result<(), String> {
        if self.table.is_none() {
            let name = TableName::new(TABLE).map_err(|e| e.to_string())?;
            let opened = self.node.ns.run(|| Sys::open(name.clone()));
            let sys = opened
                .and_then(std::convert::identity)
                .map_err(|e| e.to_string())?;
            self.table = Some((sys, Table::new(name)));
        }
        let destinations = self.destinations(known);
        let Some((sys, table)) = &mut self.table else {
            return Ok(());
        };
        let chains = [
            ("prerouting", Hook::Prerouting, -100, destinations.clone()),
            ("output", Hook::Output, -100, destinations),
            ("postrouting", Hook::Postrouting, 100, sources(known)),
        ];
        for (name, hook, priority, rules) in chains {
            let base = Base {
                kind: Kind::Nat,
                hook,
                priority,
                policy: Policy::Accept,
            };
            let name = ChainName::new(name).map_err(|e| e.to_string())?;
            table.set_chain(
                &name,
                Chain {
                    base: Some(base),
                    rules,
                },
            );
        }
        sys.sync(table).map(drop).map_err(|e| e.to_string())
    }

    /// Rules that give packets for a service another destination.
    fn destinations(&self, known: &Known) -> Vec<Rule> {
        let mut rules = Vec::new();
        for (service, slices) in known.values() {
            for port in &service.ports {
                for family in Family::BOTH {
                    let all = endpoints(port, slices, family);
                    self.of_port(service, port, family, &all, &mut rules);
                }
            }
        }
        rules
    }

    fn of_port(
        &self,
        service: &Service,
        port: &ServicePort,
        family: Family,
        all: &[(IpAddr, u16, Option<Arc<str>>)],
        rules: &mut Vec<Rule>,
    ) {
        let pick = |local: bool| {
            let here = |e: &&(IpAddr, u16, Option<Arc<str>>)| {
                !local || e.2.as_deref() == Some(self.node.name.as_str())
            };
            let usable: Vec<_> = all.iter().filter(here).collect();
            let n = self.index % usable.len().max(1);
            usable.get(n).map(|(a, p, _)| (*a, *p))
        };
        let of_family = |list: &[IpAddr]| -> Vec<IpAddr> {
            let fits = list.iter().filter(|a| Family::of(**a) == family);
            fits.copied().collect()
        };
        let to = |addr: IpAddr| Match::Addr {
            side: Side::Destination,
            nets: NetList::from(Cidr::host(addr)),
            negate: false,
        };
        if let Some(end) = pick(service.internal_local) {
            for ip in of_family(&service.cluster_ips) {
                rules.push(translate(
                    vec![to(ip)],
                    port.protocol,
                    port.port,
                    end,
                    false,
                ));
            }
        }
        let masquerade = !service.external_local;
        let Some(end) = pick(service.external_local) else {
            return;
        };
        let outside = [&service.external_ips[..], &service.load_balancer_ips[..]].concat();
        for ip in of_family(&outside) {
            rules.push(translate(
                vec![to(ip)],
                port.protocol,
                port.port,
                end,
                masquerade,
            ));
        }
        if let Some(number) = port.node_port {
            let here = vec![
                Match::NfProto(family),
                Match::FibLocal {
                    side: Side::Destination,
                    negate: false,
                },
            ];
            rules.push(translate(here, port.protocol, number, end, masquerade));
        }
    }
}

fn translate(
    mut matches: Vec<Match>,
    protocol: Protocol,
    port: u16,
    (addr, to): (IpAddr, u16),
    masquerade: bool,
) -> Rule {
    matches.push(Match::L4Proto {
        proto: protocol,
        negate: false,
    });
    matches.push(Match::Ports {
        side: Side::Destination,
        ports: PortList::from(PortRange::one(port)),
        negate: false,
    });
    let mark = masquerade.then_some(Statement::SetMark {
        mask: MASQUERADE,
        value: MASQUERADE,
    });
    let dnat = Statement::Dnat {
        addr,
        port: Some(to),
    };
    Rule {
        matches,
        statements: mark.into_iter().chain([dnat]).collect(),
        ..Rule::default()
    }
}

/// Rules that give packets another source: what came from outside, and what a pod sends to itself.
fn sources(known: &Known) -> Vec<Rule> {
    let masquerade = || Statement::Masquerade {
        fully_random: true,
        ports: None,
    };
    let mut rules = vec![Rule {
        matches: vec![Match::Mark {
            mask: MASQUERADE,
            value: MASQUERADE,
            negate: false,
        }],
        statements: vec![masquerade()],
        ..Rule::default()
    }];
    let mut own: Vec<IpAddr> = known
        .values()
        .flat_map(|(_, slices)| slices.iter().flat_map(|s| &s.endpoints))
        .flat_map(|e| e.addresses.iter().copied())
        .collect();
    own.sort();
    own.dedup();
    for addr in own {
        let is = |side| Match::Addr {
            side,
            nets: NetList::from(Cidr::host(addr)),
            negate: false,
        };
        rules.push(Rule {
            matches: vec![
                is(Side::Source),
                is(Side::Destination),
                Match::CtDnat { negate: false },
            ],
            statements: vec![masquerade()],
            ..Rule::default()
        });
    }
    rules
}
