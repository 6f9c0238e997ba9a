//! The environment of a node: who it is, which address it has, which pools to begin with.
//!
//! Never: looks at interfaces or files; those who do take the methods from here.

use crate::env::{Env, EnvError, yes_or_no};
use net::{Asn, Cidr, Family};
use sha2::{Digest, Sha256};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

/// How a node's address is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Detection {
    /// First usable address of the first usable interface.
    FirstFound,
    /// The address that packets to there leave from: an address or a name.
    CanReach(String),
    /// First usable address of the first interface that one of these patterns matches.
    Interface(Vec<String>),
    /// First usable address of an interface that none of these patterns matches.
    SkipInterface(Vec<String>),
    /// First address inside one of these.
    Cidr(Vec<Cidr>),
    /// The address that Kubernetes knows the node by.
    KubernetesInternalIp,
}

impl Detection {
    /// Reads `IP_AUTODETECTION_METHOD`.
    ///
    /// # Errors
    /// Says what could be written.
    pub fn parse(text: &str) -> Result<Self, String> {
        let list = |s: &str| -> Vec<String> {
            s.split(',')
                .map(|p| p.trim().to_owned())
                .filter(|p| !p.is_empty())
                .collect()
        };
        let (method, argument) = text.split_once('=').unwrap_or((text, ""));
        let given = |what: &str| {
            if list(argument).is_empty() {
                Err(format!("{method}= wants {what}"))
            } else {
                Ok(list(argument))
            }
        };
        match method {
            "" | "first-found" => Ok(Self::FirstFound),
            "kubernetes-internal-ip" => Ok(Self::KubernetesInternalIp),
            "can-reach" => {
                given("an address or a name").map(|_| Self::CanReach(argument.trim().to_owned()))
            }
            "interface" => given("patterns of interface names").map(Self::Interface),
            "skip-interface" => given("patterns of interface names").map(Self::SkipInterface),
            "cidr" => given("CIDRs")?
                .iter()
                .map(|c| c.parse().map_err(|_| format!("{c:?} is not a CIDR")))
                .collect::<Result<_, _>>()
                .map(Self::Cidr),
            _ => Err(
                "not one of first-found, can-reach=, interface=, skip-interface=, cidr=, \
                      kubernetes-internal-ip"
                    .to_owned(),
            ),
        }
    }
}

/// Which address of a family the node has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddressChoice {
    /// As stored, detected when nothing is.
    Stored,
    /// Detected anew at each start.
    Autodetect,
    /// None of this family.
    None,
    /// This one; the length of its subnet when given.
    Fixed(IpAddr, Option<u8>),
}

impl AddressChoice {
    fn parse(text: &str, family: Family) -> Result<Self, String> {
        match text {
            "autodetect" => return Ok(Self::Autodetect),
            "none" => return Ok(Self::None),
            _ => {}
        }
        let bad = || format!("not autodetect, none or an IPv{} address", family.number());
        let (addr, len) = match text.split_once('/') {
            Some((a, l)) => (a, Some(l.parse::<u8>().map_err(|_| bad())?)),
            None => (text, None),
        };
        let addr: IpAddr = addr.parse().map_err(|_| bad())?;
        if Family::of(addr) != family || len.is_some_and(|l| l > family.bits()) {
            return Err(bad());
        }
        Ok(Self::Fixed(addr, len))
    }
}

/// Encapsulation of a first pool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PoolEncap {
    /// None.
    #[default]
    Never,
    /// Always.
    Always,
    /// Between subnets.
    CrossSubnet,
}

impl PoolEncap {
    /// As the resource spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Never => "Never",
            Self::Always => "Always",
            Self::CrossSubnet => "CrossSubnet",
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "never" | "off" => Ok(Self::Never),
            "always" => Ok(Self::Always),
            "crosssubnet" | "cross-subnet" => Ok(Self::CrossSubnet),
            _ => Err("not one of Never, Always, CrossSubnet".to_owned()),
        }
    }
}

/// The pool to make when a family has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstPool {
    /// Its range; `None` is Calico's choice: 192.168.0.0/16, or a random `fd00::/8` /48.
    pub cidr: Option<Cidr>,
    /// `false` when the variable says `none`: make no pool.
    pub wanted: bool,
    /// IPIP; never for IPv6.
    pub ipip: PoolEncap,
    /// VXLAN.
    pub vxlan: PoolEncap,
    /// Length of blocks.
    pub block_size: u8,
    /// Which nodes take from it.
    pub node_selector: String,
    /// Masquerade what leaves all pools.
    pub nat_outgoing: bool,
    /// Not exported.
    pub disable_bgp_export: bool,
}

/// Who carries routes between nodes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Backend {
    /// BGP.
    #[default]
    Bgp,
    /// VXLAN alone.
    Vxlan,
    /// Somebody else.
    None,
}

/// Where the identifier of the node's BGP comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RouterId {
    /// The node's IPv4 address; of a node without one the name, as with [`RouterId::Hash`].
    #[default]
    Address,
    /// The node's name, see [`hashed_router_id`].
    Hash,
    /// It is this.
    Fixed(Ipv4Addr),
}

impl RouterId {
    fn parse(text: &str) -> Result<Self, String> {
        if text == "hash" {
            return Ok(Self::Hash);
        }
        match text.parse::<Ipv4Addr>() {
            Ok(a) if !a.is_unspecified() => Ok(Self::Fixed(a)),
            _ => Err("neither hash nor an IPv4 address".to_owned()),
        }
    }
}

/// The identifier that Calico derives from a node's name: the first four octets of its SHA-256,
/// below 224.
pub fn hashed_router_id(node: &str) -> Ipv4Addr {
    let [mut a, b, c, d, ..] = <[u8; 32]>::from(Sha256::digest(node.as_bytes()));
    if a > 223 {
        a -= 32;
    }
    Ipv4Addr::new(a, b, c, d)
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeEnv {
    /// `NODENAME`; else see [`NodeEnv::name`].
    pub node_name: Option<String>,
    /// `CALICO_NODENAME_FILE`: where the name is left for the CNI plugin.
    pub node_name_file: PathBuf,
    /// `HOSTNAME`.
    pub host_name: Option<String>,
    /// `IP`.
    pub ipv4: AddressChoice,
    /// `IP6`.
    pub ipv6: AddressChoice,
    /// `IP_AUTODETECTION_METHOD`.
    pub ipv4_detection: Detection,
    /// `IP6_AUTODETECTION_METHOD`.
    pub ipv6_detection: Detection,
    /// `AUTODETECT_POLL_INTERVAL`: how often a detected address is looked at again.
    pub detection_interval: Duration,
    /// `DISABLE_NODE_IP_CHECK`: addresses of two nodes may be one.
    pub ip_check_disabled: bool,
    /// `AS`.
    pub asn: Option<Asn>,
    /// `CALICO_NETWORKING_BACKEND`.
    pub backend: Backend,
    /// `CALICO_ROUTER_ID`.
    pub router_id: RouterId,
    /// `NAMESPACE`: where the secrets of BGP are.
    pub namespace: String,
    /// `CLUSTER_TYPE`, apart at commas.
    pub cluster_type: Vec<String>,
    /// `WAIT_FOR_DATASTORE`.
    pub wait_for_datastore: bool,
    /// `NO_DEFAULT_POOLS`.
    pub no_default_pools: bool,
    /// `CALICO_IPV4POOL_...`.
    pub pool_v4: FirstPool,
    /// `CALICO_IPV6POOL_...`.
    pub pool_v6: FirstPool,
    /// `CALICO_K8S_NODE_REF`.
    pub kubernetes_node: Option<String>,
}

impl NodeEnv {
    /// Reads the environment.
    ///
    /// # Errors
    /// Every variable that cannot be read; never empty.
    pub fn load(env: &impl Env) -> Result<Self, Vec<EnvError>> {
        let mut r = Reader {
            env,
            errors: Vec::new(),
        };
        let backend = |v: &str| match v {
            "bird" => Ok(Backend::Bgp),
            "vxlan" => Ok(Backend::Vxlan),
            "none" => Ok(Backend::None),
            _ => Err("not one of bird, vxlan, none".to_owned()),
        };
        let seconds = crate::params::duration;
        let csv = |v: &str| -> Result<Vec<String>, String> {
            Ok(v.split(',')
                .map(|p| p.trim().to_owned())
                .filter(|p| !p.is_empty())
                .collect())
        };
        let asn = |v: &str| v.parse::<Asn>().map_err(|e| e.to_string());
        let me = Self {
            node_name: env.var("NODENAME"),
            node_name_file: env
                .var("CALICO_NODENAME_FILE")
                .map_or_else(|| "/var/lib/calico/nodename".into(), PathBuf::from),
            host_name: env.var("HOSTNAME"),
            ipv4: r.or("IP", AddressChoice::Stored, |v| {
                AddressChoice::parse(v, Family::V4)
            }),
            ipv6: r.or("IP6", AddressChoice::None, |v| {
                AddressChoice::parse(v, Family::V6)
            }),
            ipv4_detection: r.or(
                "IP_AUTODETECTION_METHOD",
                Detection::FirstFound,
                Detection::parse,
            ),
            ipv6_detection: r.or(
                "IP6_AUTODETECTION_METHOD",
                Detection::FirstFound,
                Detection::parse,
            ),
            detection_interval: r.or("AUTODETECT_POLL_INTERVAL", Duration::from_secs(60), seconds),
            ip_check_disabled: r.or("DISABLE_NODE_IP_CHECK", false, yes_or_no),
            asn: r.or("AS", None, |v| asn(v).map(Some)),
            backend: r.or("CALICO_NETWORKING_BACKEND", Backend::Bgp, backend),
            router_id: r.or("CALICO_ROUTER_ID", RouterId::Address, RouterId::parse),
            namespace: env
                .var("NAMESPACE")
                .unwrap_or_else(|| "kube-system".to_owned()),
            cluster_type: r.or("CLUSTER_TYPE", Vec::new(), csv),
            wait_for_datastore: r.or("WAIT_FOR_DATASTORE", false, yes_or_no),
            no_default_pools: r.or("NO_DEFAULT_POOLS", false, yes_or_no),
            pool_v4: first_pool(&mut r, Family::V4, &POOL_V4),
            pool_v6: first_pool(&mut r, Family::V6, &POOL_V6),
            kubernetes_node: env.var("CALICO_K8S_NODE_REF"),
        };
        if r.errors.is_empty() {
            Ok(me)
        } else {
            Err(r.errors)
        }
    }

    /// The node's name: `NODENAME`, else what `file` holds (the text of
    /// [`NodeEnv::node_name_file`]), else `HOSTNAME`, else the system's own, the
    /// last two in lower case. `None` when all are empty.
    pub fn name(&self, file: Option<&str>, system: &str) -> Option<String> {
        let given = |s: &str| {
            let s = s.trim();
            (!s.is_empty()).then(|| s.to_owned())
        };
        let lower = |s: &str| given(&s.to_lowercase());
        self.node_name
            .as_deref()
            .and_then(given)
            .or_else(|| file.and_then(given))
            .or_else(|| self.host_name.as_deref().and_then(lower))
            .or_else(|| lower(system))
    }
}

/// Reads on after an error, so that all are told at once.
struct Reader<'a, E> {
    env: &'a E,
    errors: Vec<EnvError>,
}

impl<E: Env> Reader<'_, E> {
    fn or<T>(
        &mut self,
        name: &'static str,
        default: T,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> T {
        match self.env.read(name, read) {
            Ok(v) => v.unwrap_or(default),
            Err(e) => {
                self.errors.push(e);
                default
            }
        }
    }
}

struct PoolNames {
    cidr: &'static str,
    ipip: &'static str,
    vxlan: &'static str,
    block_size: &'static str,
    node_selector: &'static str,
    nat_outgoing: &'static str,
    disable_bgp_export: &'static str,
}

macro_rules! pool_names {
    ($prefix:literal) => {
        PoolNames {
            cidr: concat!($prefix, "CIDR"),
            ipip: concat!($prefix, "IPIP"),
            vxlan: concat!($prefix, "VXLAN"),
            block_size: concat!($prefix, "BLOCK_SIZE"),
            node_selector: concat!($prefix, "NODE_SELECTOR"),
            nat_outgoing: concat!($prefix, "NAT_OUTGOING"),
            disable_bgp_export: concat!($prefix, "DISABLE_BGP_EXPORT"),
        }
    };
}

const POOL_V4: PoolNames = pool_names!("CALICO_IPV4POOL_");
const POOL_V6: PoolNames = pool_names!("CALICO_IPV6POOL_");

fn first_pool<E: Env>(r: &mut Reader<'_, E>, family: Family, names: &PoolNames) -> FirstPool {
    let cidr = |v: &str| match v.parse::<Cidr>() {
        Ok(c) if c.family() == family => Ok(Some(c)),
        _ => Err(format!("not an IPv{} CIDR", family.number())),
    };
    // What Calico's own limits on the resource are.
    let (size, limits) = match family {
        Family::V4 => (26, 20..=32),
        Family::V6 => (122, 116..=128),
    };
    let block = |v: &str| match v.parse::<u8>() {
        Ok(n) if limits.contains(&n) => Ok(n),
        _ => Err(format!(
            "not a number from {} to {}",
            limits.start(),
            limits.end()
        )),
    };
    let ipip = |v: &str| match (PoolEncap::parse(v)?, family) {
        (PoolEncap::Never, _) => Ok(PoolEncap::Never),
        (e, Family::V4) => Ok(e),
        (_, Family::V6) => Err("there is no IPIP for IPv6".to_owned()),
    };
    let wanted = r.env.var(names.cidr).is_none_or(|v| v != "none");
    FirstPool {
        cidr: if wanted {
            r.or(names.cidr, None, cidr)
        } else {
            None
        },
        wanted,
        ipip: r.or(names.ipip, PoolEncap::Never, ipip),
        vxlan: r.or(names.vxlan, PoolEncap::Never, PoolEncap::parse),
        block_size: r.or(names.block_size, size, block),
        node_selector: r.or(
            names.node_selector,
            "all()".to_owned(),
            |v| Ok(v.to_owned()),
        ),
        nat_outgoing: r.or(names.nat_outgoing, family == Family::V4, yes_or_no),
        disable_bgp_export: r.or(names.disable_bgp_export, false, yes_or_no),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(pairs: &[(&str, &str)]) -> Result<NodeEnv, Vec<String>> {
        NodeEnv::load(&pairs).map_err(|e| e.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn an_empty_environment_is_valid() {
        let e = load(&[]).expect("valid");
        assert_eq!(
            (e.ipv4, e.ipv6),
            (AddressChoice::Stored, AddressChoice::None)
        );
        assert_eq!(e.ipv4_detection, Detection::FirstFound);
        assert_eq!((e.pool_v4.block_size, e.pool_v6.block_size), (26, 122));
        assert_eq!(
            (e.pool_v4.nat_outgoing, e.pool_v6.nat_outgoing),
            (true, false)
        );
        assert!(e.pool_v4.wanted && e.pool_v4.cidr.is_none());
        assert_eq!(e.node_name_file, PathBuf::from("/var/lib/calico/nodename"));
    }

    #[test]
    fn what_the_manifests_set() {
        let e = load(&[
            ("NODENAME", "n1"),
            ("IP", "10.1.2.3/24"),
            ("IP6", "autodetect"),
            ("IP_AUTODETECTION_METHOD", "interface=eth.*,en.*"),
            ("IP6_AUTODETECTION_METHOD", "cidr=fd00::/8, 2001:db8::/32"),
            ("AUTODETECT_POLL_INTERVAL", "2m"),
            ("AS", "64513"),
            ("CLUSTER_TYPE", "k8s,bgp"),
            ("CALICO_NETWORKING_BACKEND", "vxlan"),
            ("CALICO_ROUTER_ID", "hash"),
            ("NAMESPACE", "calico-system"),
            ("CALICO_IPV4POOL_CIDR", "10.244.0.0/16"),
            ("CALICO_IPV4POOL_IPIP", "Always"),
            ("CALICO_IPV4POOL_VXLAN", "Never"),
            ("CALICO_IPV6POOL_CIDR", "none"),
        ])
        .expect("valid");
        let fixed = AddressChoice::Fixed("10.1.2.3".parse().expect("address"), Some(24));
        assert_eq!((e.ipv4, e.ipv6), (fixed, AddressChoice::Autodetect));
        assert!(matches!(&e.ipv4_detection, Detection::Interface(p) if p.len() == 2));
        assert!(matches!(&e.ipv6_detection, Detection::Cidr(c) if c.len() == 2));
        assert_eq!(e.detection_interval, Duration::from_secs(120));
        assert_eq!((e.asn, e.backend), (Some(Asn(64513)), Backend::Vxlan));
        assert_eq!(e.cluster_type, ["k8s", "bgp"]);
        assert_eq!(
            (e.router_id, e.namespace.as_str()),
            (RouterId::Hash, "calico-system")
        );
        assert_eq!(
            (e.pool_v4.ipip, e.pool_v6.wanted),
            (PoolEncap::Always, false)
        );
    }

    #[test]
    fn an_identifier_from_a_name() {
        // printf node-1 | sha256sum: 35971be6
        assert_eq!(hashed_router_id("node-1"), Ipv4Addr::new(53, 151, 27, 230));
        let ids = (0..200).map(|n| hashed_router_id(&format!("node-{n}")));
        assert!(ids.clone().all(|i| i.octets()[0] < 224));
        assert_eq!(ids.collect::<std::collections::BTreeSet<_>>().len(), 200);
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        let errors = load(&[
            ("IP", "fd00::1"),
            ("IP_AUTODETECTION_METHOD", "guess"),
            ("IP6_AUTODETECTION_METHOD", "interface="),
            ("CALICO_IPV4POOL_BLOCK_SIZE", "33"),
            ("CALICO_IPV6POOL_IPIP", "Always"),
        ])
        .expect_err("invalid");
        assert_eq!(errors.len(), 5, "{errors:#?}");
        assert_eq!(
            errors[0],
            "environment variable IP=\"fd00::1\": not autodetect, none or an IPv4 address"
        );
    }

    #[test]
    fn who_the_node_is() {
        let name = |pairs, file, system| load(pairs).expect("valid").name(file, system);
        let all = &[("NODENAME", "A"), ("HOSTNAME", "B")];
        assert_eq!(name(all, Some("f"), "OS"), Some("A".to_owned()));
        assert_eq!(name(&all[1..], Some("F\n"), "OS"), Some("F".to_owned()));
        assert_eq!(name(&all[1..], None, "OS"), Some("b".to_owned()));
        assert_eq!(name(&[], Some(" "), "OS"), Some("os".to_owned()));
        assert_eq!(name(&[], None, ""), None);
    }
}
