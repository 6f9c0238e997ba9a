//! The way of a packet through nodes: every place where it is judged or rewritten, in order.
//!
//! Hooks and their order are those of the standard dataplane: source check, untracked, pre-DNAT,
//! translation, then either the node itself or what it forwards, then source NAT.

use crate::host::{Bound, Interface};
use crate::judge::{Class, Judge, Ruling};
use crate::nat::{Leg, Tunnel};
use crate::{Decision, Direction, Effect, End, Flow, Packet, Path, Place, Stage};
use model::WorkloadKey;
use net::{Family, Protocol};
use std::net::IpAddr;
use std::sync::Arc;

/// ICMPv6 that a workload may always send to its node: multicast listening, router and neighbour
/// discovery.
const DISCOVERY: [u8; 6] = [130, 131, 132, 133, 135, 136];

/// IP in IP.
const IPIP: Protocol = Protocol(4);

/// The destination port of an answer whose real one the kernel picks.
const SOME_EPHEMERAL: u16 = 50000;

pub(crate) struct Walk<'j, 'a> {
    judge: &'j Judge<'a>,
    leg: &'j Leg,
    packet: Packet,
    stages: Vec<Stage>,
    /// Denied somewhere: the rest of the way is walked for the addresses alone.
    dropped: bool,
    /// Accepted on this node by untracked or pre-DNAT policy.
    accepted: bool,
    /// Not tracked on this node, so not translated either.
    untracked: bool,
    /// What had to be assumed.
    pub assumed: Vec<String>,
}

/// A stage before it has a packet.
struct Judged {
    place: Place,
    effect: Effect,
    decision: Decision,
    consulted: Vec<crate::Consulted>,
}

/// The packet that the flow starts with.
pub(crate) fn first_packet(flow: &Flow, leg: &Leg) -> Packet {
    let echo = match flow.protocol {
        Protocol::ICMP => Some((8, 0)),
        Protocol::ICMPV6 => Some((128, 0)),
        _ => None,
    };
    Packet {
        source: flow.source,
        source_port: flow.source_port,
        destination: leg.original.0,
        protocol: flow.protocol,
        port: leg.original.1,
        icmp: echo.map(|e| flow.icmp.unwrap_or(e)),
    }
}

/// Walks the whole way. Beside it what was assumed.
pub(crate) fn walk(judge: &Judge<'_>, flow: &Flow, leg: &Leg) -> (Path, Vec<String>) {
    let mut w = Walk {
        judge,
        leg,
        packet: first_packet(flow, leg),
        stages: Vec::new(),
        dropped: false,
        accepted: false,
        untracked: false,
        assumed: Vec::new(),
    };
    match &flow.from {
        End::Workload(key) => w.workload_sends(key),
        End::Node(node) => w.node_sends(node),
        End::Outside => match &leg.enters_at {
            Some(node) => w.arrive(node, Interface::Uplink(leg.original.0)),
            None => w.assumed.push("no node is on the way".to_owned()),
        },
    }
    let path = Path {
        to: judge.world.holder(w.packet.destination),
        destination: (w.packet.destination, w.packet.port),
        allowed: !w.dropped,
        seen_source: w.packet.source,
        stages: w.stages,
        remedies: Vec::new(),
    };
    (path, w.assumed)
}

impl Walk<'_, '_> {
    fn workload_sends(&mut self, key: &WorkloadKey) {
        let node = &key.node;
        self.source(key);
        self.pre_dnat(node, Interface::Workload);
        self.rewrite(node);
        match self.holder() {
            End::Node(n) if n == *node => self.own_node_gets(key),
            _ => self.forward(node, Interface::Workload, Some(key)),
        }
    }

    fn node_sends(&mut self, node: &Arc<str>) {
        let here = self.leg.rewritten_at.as_ref() == Some(node);
        let to = if here {
            self.leg.destination.0
        } else {
            self.packet.destination
        };
        let own = |k: &WorkloadKey| k.node == *node;
        match self.judge.world.holder(to) {
            End::Workload(key) if own(&key) => {
                self.rewrite(node);
                self.pass(
                    node,
                    Place::OwnWorkload(key),
                    Effect::Allow,
                    Decision::OwnNode,
                );
            }
            End::Node(n) if n == *node => {
                self.untracked(node, Interface::Loopback, Direction::Egress);
                self.rewrite(node);
                self.host(node, Interface::Loopback, Direction::Egress);
                self.arrive(node, Interface::Loopback);
            }
            _ => {
                let next = self.next_node(to, node);
                let tunnel = next
                    .as_ref()
                    .and_then(|n| self.judge.world.tunnel(node, n, to));
                let out = self.out(node, tunnel.as_ref());
                self.untracked(node, out, Direction::Egress);
                self.rewrite(node);
                self.host(node, out, Direction::Egress);
                if let Some(own) = tunnel.as_ref().and_then(|t| t.address) {
                    self.packet.source = own;
                }
                self.travel(node, next, tunnel);
            }
        }
    }

    /// Comes in at an interface of a node.
    fn arrive(&mut self, node: &Arc<str>, interface: Interface) {
        (self.accepted, self.untracked) = (false, false);
        self.untracked(node, interface, Direction::Ingress);
        self.pre_dnat(node, interface);
        self.rewrite(node);
        match self.holder() {
            End::Node(n) if n == *node => self.host(node, interface, Direction::Ingress),
            _ => self.forward(node, interface, None),
        }
    }

    /// Goes through a node, from a local workload or from an interface.
    fn forward(&mut self, node: &Arc<str>, from: Interface, sender: Option<&WorkloadKey>) {
        self.host_forward(node, from, Direction::Ingress);
        if let Some(key) = sender {
            self.workload(key, Direction::Egress);
        }
        let to = self.packet.destination;
        if let End::Workload(key) = self.holder()
            && key.node == *node
        {
            self.workload(&key, Direction::Ingress);
            self.service_loop(node);
            self.translate_source(node, sender, None);
            return;
        }
        let next = self.next_node(to, node);
        let tunnel = next
            .as_ref()
            .and_then(|n| self.judge.world.tunnel(node, n, to));
        let out = self.out(node, tunnel.as_ref());
        self.host_forward(node, out, Direction::Egress);
        self.service_loop(node);
        self.translate_source(node, sender, tunnel.as_ref());
        self.travel(node, next, tunnel);
    }

    /// From a node to the next one.
    fn travel(&mut self, from: &Arc<str>, next: Option<Arc<str>>, tunnel: Option<Tunnel>) {
        let Some(next) = next else { return };
        match tunnel {
            None => self.arrive(&next, Interface::Uplink(self.packet.destination)),
            Some(t) => {
                self.encapsulated(from, &next, &t);
                self.arrive(&next, Interface::Tunnel(t.device));
            }
        }
    }

    /// Untracked and pre-DNAT policy of uplinks meet the packets that carry others; the rest lets
    /// tunnels between nodes through.
    fn encapsulated(&mut self, from: &Arc<str>, to: &Arc<str>, tunnel: &Tunnel) {
        let world = self.judge.world;
        let family = Family::of(self.packet.destination);
        let ends = (
            world.main_address(from, family),
            world.main_address(to, family),
        );
        let (Some(source), Some(destination)) = ends else {
            return;
        };
        let outer = Packet {
            source,
            source_port: None,
            destination,
            protocol: if tunnel.vxlan { Protocol::UDP } else { IPIP },
            port: if tunnel.vxlan {
                world.settings(from).vxlan_port()
            } else {
                0
            },
            icmp: None,
        };
        let inner = std::mem::replace(&mut self.packet, outer);
        // Tunnels are not asked for answers: each way is a packet of its own.
        self.raw(from, Interface::Uplink(source), Direction::Egress);
        self.accepted = false;
        self.raw(to, Interface::Uplink(destination), Direction::Ingress);
        self.pre_dnat(to, Interface::Uplink(destination));
        self.packet = inner;
    }

    fn holder(&self) -> End {
        self.judge.world.holder(self.packet.destination)
    }

    /// The node that gets it next, if one does.
    fn next_node(&self, to: IpAddr, here: &Arc<str>) -> Option<Arc<str>> {
        let rewritten = to == self.leg.destination.0;
        let elsewhere = self.leg.rewritten_at.clone().filter(|_| !rewritten);
        let next = elsewhere.or_else(|| self.judge.world.node_behind(to));
        next.filter(|n| n != here)
    }

    fn out(&self, node: &str, tunnel: Option<&Tunnel>) -> Interface {
        let family = Family::of(self.packet.destination);
        match (tunnel, self.judge.world.main_address(node, family)) {
            (Some(t), _) => Interface::Tunnel(t.device),
            (None, Some(own)) => Interface::Uplink(own),
            (None, None) => Interface::Uplink(self.packet.source),
        }
    }

    /// Destination NAT, where it happens; not for what is not tracked.
    fn rewrite(&mut self, node: &Arc<str>) {
        let here = self.leg.rewritten_at.as_ref() == Some(node);
        if here && self.untracked && self.leg.original != self.leg.destination {
            self.assumed.push(format!(
                "untracked on node {node}, so its destination {} is not translated",
                self.leg.original.0
            ));
        } else if here {
            (self.packet.destination, self.packet.port) = self.leg.destination;
        }
    }

    /// Source NAT, after all policy of the node.
    fn translate_source(
        &mut self,
        node: &Arc<str>,
        sender: Option<&WorkloadKey>,
        tunnel: Option<&Tunnel>,
    ) {
        let world = self.judge.world;
        let (source, to) = (self.packet.source, self.packet.destination);
        let own = || world.main_address(node, Family::of(source));
        let through = || tunnel.and_then(|t| t.address).or_else(own);
        let here = self.leg.rewritten_at.as_ref() == Some(node);
        let translated = here && self.leg.original.0 != self.leg.destination.0;
        let new = if translated && source == to {
            // To itself by way of a service or a floating address.
            match world.service_like(self.leg.original.0) {
                true => own(),
                false => Some(self.leg.original.0),
            }
        } else if translated && self.leg.masquerade {
            through()
        } else {
            sender.and_then(|_| world.nat_outgoing(node, source, to))
        };
        self.packet.source = new.unwrap_or(source);
    }

    fn pass(&mut self, node: &Arc<str>, place: Place, effect: Effect, decision: Decision) {
        self.push(
            node,
            Judged {
                place,
                effect,
                decision,
                consulted: Vec::new(),
            },
        );
    }

    fn push(&mut self, node: &Arc<str>, judged: Judged) {
        if self.dropped {
            return;
        }
        self.dropped = judged.effect == Effect::Deny;
        self.stages.push(Stage {
            node: node.clone(),
            place: judged.place,
            packet: self.packet,
            effect: judged.effect,
            decision: judged.decision,
            consulted: judged.consulted,
        });
    }

    /// Strict reverse path: a workload sends from its own addresses; from further ones where
    /// `workloadSourceSpoofing` is `Any`. Link-local addresses are never routed, and `::` is
    /// nobody's yet.
    fn source(&mut self, key: &WorkloadKey) {
        let from = self.packet.source;
        let Some(w) = self.judge.world.workloads.get(key) else {
            return;
        };
        let settings = self.judge.world.settings(&key.node);
        let unrouted = match from {
            IpAddr::V4(_) => false,
            IpAddr::V6(a) => a.is_unspecified() || a.is_unicast_link_local(),
        };
        let own = w.nets.iter().any(|n| n.contains(from))
            || settings.floating() && w.nats.iter().any(|(_, outside)| *outside == from);
        let further =
            settings.further_sources() && w.allowed_sources.iter().any(|n| n.contains(from));
        let (effect, decision) = match own || unrouted || further {
            true => (Effect::Pass, Decision::OwnSource),
            false => (Effect::Deny, Decision::Spoofed),
        };
        self.pass(&key.node, Place::Source(key.clone()), effect, decision);
    }

    fn workload(&mut self, key: &WorkloadKey, direction: Direction) {
        let world = self.judge.world;
        if self.dropped {
            return;
        }
        let place = Place::Workload(key.clone(), direction);
        let Some(w) = world.workloads.get(key) else {
            return self.pass(&key.node, place, Effect::Deny, Decision::UnknownWorkload);
        };
        if direction == Direction::Egress && self.injects(&key.node) {
            return self.pass(&key.node, place, Effect::Deny, Decision::Encapsulation);
        }
        let labels = world.effective(&w.labels, &w.profiles);
        let ruling =
            self.judge
                .by_tiers_and_profiles(&labels, &w.profiles, direction, &self.packet);
        self.rule(&key.node, place, ruling);
    }

    /// VXLAN or IP in IP from a workload that may not send it.
    fn injects(&self, node: &str) -> bool {
        let settings = self.judge.world.settings(node);
        let (vxlan, ipip) = settings.may_encapsulate();
        let is_vxlan =
            self.packet.protocol == Protocol::UDP && self.packet.port == settings.vxlan_port();
        (is_vxlan && !vxlan) || (self.packet.protocol == IPIP && !ipip)
    }

    /// A workload to its own node: its egress policy, then `defaultEndpointToHostAction`. Policy
    /// of the host endpoint is not asked.
    fn own_node_gets(&mut self, key: &WorkloadKey) {
        let discovery = self.packet.protocol == Protocol::ICMPV6
            && self
                .packet
                .icmp
                .is_some_and(|(t, _)| DISCOVERY.contains(&t));
        if discovery {
            let place = Place::Workload(key.clone(), Direction::Egress);
            return self.pass(
                &key.node,
                place,
                Effect::Allow,
                Decision::NeighbourDiscovery,
            );
        }
        self.workload(key, Direction::Egress);
        let action = self
            .judge
            .world
            .settings(&key.node)
            .endpoint_to_host()
            .to_owned();
        let effect = match action.eq_ignore_ascii_case("drop") {
            true => Effect::Deny,
            false => Effect::Allow,
        };
        let place = Place::ToHost(key.clone());
        self.pass(&key.node, place, effect, Decision::EndpointToHost(action));
    }

    /// A ruling as a stage. What nothing decided goes on.
    fn rule(&mut self, node: &Arc<str>, place: Place, ruling: Ruling) -> Effect {
        let (effect, decision) = ruling
            .decided
            .unwrap_or((Effect::Pass, Decision::Undecided));
        let consulted = ruling.consulted;
        self.push(
            node,
            Judged {
                place,
                effect,
                decision,
                consulted,
            },
        );
        effect
    }

    fn bound(
        &mut self,
        node: &str,
        interface: Interface,
        direction: Direction,
        untracked: bool,
    ) -> Option<Bound<'_>> {
        if self.dropped {
            return None;
        }
        let found = self
            .judge
            .world
            .bound(node, interface, direction, untracked)?;
        if found.assumed {
            let name = found.endpoint.interface.as_deref().unwrap_or_default();
            self.assumed.push(format!(
                "interface {name} of host endpoint {} is taken to be the uplink of node {node}",
                found.name
            ));
        }
        Some(found)
    }

    fn untracked(&mut self, node: &Arc<str>, interface: Interface, direction: Direction) {
        if self.raw(node, interface, direction) {
            self.reply(node, interface, direction);
            (self.accepted, self.untracked) = (true, true);
        }
    }

    /// Untracked policy; true if it allows. Failsafe ports go past it.
    fn raw(&mut self, node: &Arc<str>, interface: Interface, direction: Direction) -> bool {
        let (judge, packet) = (self.judge, self.packet);
        let Some(b) = self.bound(node, interface, direction, true) else {
            return false;
        };
        if judge
            .world
            .settings(node)
            .failsafe(direction, &packet)
            .is_some()
        {
            return false;
        }
        let labels = judge
            .world
            .effective(&b.endpoint.labels, &b.endpoint.profiles);
        let ruling = judge.by_tiers(&labels, direction, Class::Untracked, &packet);
        let place = Place::Untracked(b.name.clone(), direction);
        ruling.any && self.rule(node, place, ruling) == Effect::Allow
    }

    /// The answer to an untracked packet is untracked too: it needs a rule of its own. If it
    /// has none, connection tracking meets an answer without a question.
    fn reply(&mut self, node: &Arc<str>, interface: Interface, direction: Direction) {
        let back = match direction {
            Direction::Ingress => Direction::Egress,
            Direction::Egress => Direction::Ingress,
        };
        let answer = Packet {
            source: self.packet.destination,
            source_port: Some(self.packet.port),
            destination: self.packet.source,
            protocol: self.packet.protocol,
            port: self.packet.source_port.unwrap_or(SOME_EPHEMERAL),
            icmp: self.packet.icmp.map(|(t, c)| (answer_of(t), c)),
        };
        let local =
            direction == Direction::Egress || matches!(self.holder(), End::Node(n) if n == *node);
        let question = std::mem::replace(&mut self.packet, answer);
        let (judge, packet) = (self.judge, self.packet);
        let settings = judge.world.settings(node);
        if let Some(b) = self.bound(node, interface, back, true) {
            let place = Place::UntrackedReply(b.name.clone(), back);
            let labels = judge
                .world
                .effective(&b.endpoint.labels, &b.endpoint.profiles);
            let ruling = judge.by_tiers(&labels, back, Class::Untracked, &packet);
            let failsafe = settings.failsafe(direction, &question).is_some();
            let new = packet.protocol == Protocol::UDP || settings.accepts_invalid();
            match (&ruling.decided, local) {
                (Some(_), true) => _ = self.rule(node, place, ruling),
                _ if failsafe => {}
                (None, true) if new => self.host(node, interface, back),
                (_, false) if new => {}
                _ => self.pass(node, place, Effect::Deny, Decision::InvalidReply),
            }
        }
        self.packet = question;
    }

    /// Policy that sees what the sender addressed. Failsafe ports go past it.
    fn pre_dnat(&mut self, node: &Arc<str>, interface: Interface) {
        let (judge, packet) = (self.judge, self.packet);
        if self.accepted {
            return;
        }
        let Some(b) = self.bound(node, interface, Direction::Ingress, false) else {
            return;
        };
        if judge
            .world
            .settings(node)
            .failsafe(Direction::Ingress, &packet)
            .is_some()
        {
            return;
        }
        let labels = judge
            .world
            .effective(&b.endpoint.labels, &b.endpoint.profiles);
        let ruling = judge.by_tiers(&labels, Direction::Ingress, Class::PreDnat, &packet);
        let place = Place::PreDnat(b.name.clone());
        if ruling.any && self.rule(node, place, ruling) == Effect::Allow {
            self.accepted = true;
        }
    }

    /// Policy for the node's own processes; without a host endpoint there is none.
    fn host(&mut self, node: &Arc<str>, interface: Interface, direction: Direction) {
        let (judge, packet) = (self.judge, self.packet);
        if self.accepted {
            return;
        }
        let Some(b) = self.bound(node, interface, direction, false) else {
            return;
        };
        let place = Place::Host(b.name.clone(), direction);
        if let Some(f) = judge.world.settings(node).failsafe(direction, &packet) {
            return self.pass(node, place, Effect::Allow, Decision::Failsafe(f.text));
        }
        let profiles = b.endpoint.profiles.clone();
        let labels = judge.world.effective(&b.endpoint.labels, &profiles);
        let ruling = judge.by_tiers_and_profiles(&labels, &profiles, direction, &packet);
        self.rule(node, place, ruling);
    }

    /// Policy for what the node forwards: that with `applyOnForward`; without any, all goes on.
    fn host_forward(&mut self, node: &Arc<str>, interface: Interface, direction: Direction) {
        let (judge, packet) = (self.judge, self.packet);
        if self.accepted && direction == Direction::Ingress {
            return;
        }
        let Some(b) = self.bound(node, interface, direction, false) else {
            return;
        };
        let labels = judge
            .world
            .effective(&b.endpoint.labels, &b.endpoint.profiles);
        let ruling = judge.by_tiers(&labels, direction, Class::Forward, &packet);
        let place = Place::Forward(b.name.clone(), direction);
        if ruling.any {
            self.rule(node, place, ruling);
        }
    }

    /// What is still addressed to a service when it leaves was translated by nothing, and
    /// would come back.
    fn service_loop(&mut self, node: &Arc<str>) {
        let world = self.judge.world;
        let range = world.service_range(self.packet.destination);
        if let Some(range) = range.filter(|_| world.settings(node).prevents_loops()) {
            self.pass(
                node,
                Place::ServiceLoop,
                Effect::Deny,
                Decision::ServiceLoop(range),
            );
        }
    }
}

fn answer_of(kind: u8) -> u8 {
    match kind {
        8 => 0,
        128 => 129,
        kind => kind,
    }
}
