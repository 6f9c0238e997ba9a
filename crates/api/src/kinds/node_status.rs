//! What a node reports of itself, when somebody asks for it.

use crate::meta::ObjectMeta;
use crate::wire::record;

record! {
    /// A request for a node's state, and the answer.
    pub struct CalicoNodeStatus {
        /// Name, labels and the like.
        pub metadata: ObjectMeta,
        /// What the user asks for.
        pub spec: CalicoNodeStatusSpec,
        /// What the node answers.
        pub status: Option<CalicoNodeStatusStatus>,
    }
}

record! {
    /// Spec of a [`CalicoNodeStatus`].
    pub struct CalicoNodeStatusSpec {
        /// Of which node.
        pub node: String,
        /// `Agent`, `BGP`, `Routes`.
        pub classes: Vec<String>,
        /// 0 (never) to 86400.
        pub update_period_seconds: Option<i64>,
    }
}

record! {
    /// Status of a [`CalicoNodeStatus`].
    pub struct CalicoNodeStatusStatus {
        /// RFC 3339; `null` before the first answer.
        pub last_updated: Option<String>,
        /// The BGP daemons.
        pub agent: AgentStatus,
        /// The sessions.
        pub bgp: BgpStatus,
        /// The routes.
        pub routes: RoutesStatus,
    }
}

record! {
    /// The BGP daemons of a node.
    pub struct AgentStatus {
        /// Of IPv4.
        pub bird_v4: DaemonStatus,
        /// Of IPv6.
        pub bird_v6: DaemonStatus,
    }
}

record! {
    /// A BGP daemon.
    pub struct DaemonStatus {
        /// `Ready` or `NotReady`.
        pub state: String,
        /// Of the program.
        pub version: String,
        /// Its identity.
        #[serde(rename = "routerID")]
        pub router_id: String,
        /// As the daemon says it.
        pub last_boot_time: String,
        /// As the daemon says it.
        pub last_reconfiguration_time: String,
    }
}

record! {
    /// The sessions of a node.
    pub struct BgpStatus {
        /// Each IPv4 session.
        pub peers_v4: Vec<PeerStatus>,
        /// Each IPv6 session.
        pub peers_v6: Vec<PeerStatus>,
        always {
            /// How many are up.
            pub number_established_v4: i64,
            /// How many are not.
            pub number_not_established_v4: i64,
            /// How many are up.
            pub number_established_v6: i64,
            /// How many are not.
            pub number_not_established_v6: i64,
        }
    }
}

record! {
    /// A session.
    pub struct PeerStatus {
        /// The other side.
        #[serde(rename = "peerIP")]
        pub peer_ip: String,
        /// `NodeMesh`, `NodePeer` or `GlobalPeer`.
        #[serde(rename = "type")]
        pub kind: String,
        /// RFC 4271's word.
        pub state: String,
        /// As the daemon says it.
        pub since: String,
    }
}

record! {
    /// The routes of a node.
    pub struct RoutesStatus {
        /// Each IPv4 route.
        pub routes_v4: Vec<RouteStatus>,
        /// Each IPv6 route.
        pub routes_v6: Vec<RouteStatus>,
    }
}

record! {
    /// A route.
    pub struct RouteStatus {
        /// `FIB` or `RIB`.
        #[serde(rename = "type")]
        pub kind: String,
        /// The prefix.
        pub destination: String,
        /// The next hop.
        pub gateway: String,
        /// Where it leaves.
        pub interface: String,
        /// Where it comes from.
        pub learned_from: LearnedFrom,
    }
}

record! {
    /// Where a route comes from.
    pub struct LearnedFrom {
        /// `Kernel`, `Static`, `Direct`, `NodeMesh` or `BGPPeer`.
        pub source_type: String,
        /// From which peer.
        #[serde(rename = "peerIP")]
        pub peer_ip: String,
    }
}
