//! The network configuration that a runtime hands over on standard input.

use crate::VERSIONS;
use crate::error::{CniError, code};
use crate::result::CniResult;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Where the agent listens unless the configuration or `MANX_SOCKET` says otherwise.
pub const DEFAULT_SOCKET: &str = "/var/run/calico/manx.sock";

/// The configuration of one plugin in a chain, Calico's keys. Keys that mean nothing here
/// (etcd and Kubernetes credentials are the agent's business) are accepted and kept.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct NetConf {
    /// Version of the specification; the result is printed in it.
    #[serde(rename = "cniVersion", default)]
    pub cni_version: String,
    /// Name of the network; part of the address handle `<name>.<container>`.
    #[serde(default)]
    pub name: String,
    /// The plugin's name.
    #[serde(rename = "type", default)]
    pub plugin: String,
    /// MTU of the pod's link; absent or 0 is the agent's choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Name of the node; the agent knows its own, and refuses another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodename: Option<String>,
    /// Where the agent listens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_socket: Option<String>,
    /// Address management.
    #[serde(default)]
    pub ipam: Ipam,
    /// Features that must be switched on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feature_control: Option<FeatureControl>,
    /// Settings of the container's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_settings: Option<ContainerSettings>,
    /// Add default routes to those of `ipam.routes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include_default_routes: Option<bool>,
    /// How many transmit queues the link has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_queues: Option<u32>,
    /// What the runtime passes on for declared capabilities.
    #[serde(
        rename = "runtimeConfig",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub runtime_config: Option<Value>,
    /// The result so far.
    #[serde(
        rename = "prevResult",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub prev_result: Option<Value>,
    /// GC: what is to stay.
    #[serde(
        rename = "cni.dev/valid-attachments",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub valid_attachments: Option<Vec<Attachment>>,
    /// Everything else, kept for plugins that are called from here.
    #[serde(flatten)]
    pub rest: BTreeMap<String, Value>,
}

/// A container's interface that is in use.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Attachment {
    /// The container.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// Its interface.
    pub ifname: String,
}

/// `ipam` of the configuration.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Ipam {
    /// `calico-ipam`, or a plugin to be called, such as `host-local`.
    #[serde(rename = "type", default)]
    pub plugin: String,
    /// `"true"` or `"false"`; IPv4 is on unless off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assign_ipv4: Option<String>,
    /// `"true"` or `"false"`; IPv6 is off unless on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assign_ipv6: Option<String>,
    /// Pools to take from, by name or CIDR.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ipv4_pools: Vec<String>,
    /// Pools to take from, by name or CIDR.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ipv6_pools: Vec<String>,
    /// For `host-local`: a CIDR, `usePodCidr` or `usePodCidrIPv6`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet: Option<String>,
    /// Routes of the container instead of the default ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
    /// Everything else.
    #[serde(flatten)]
    pub rest: BTreeMap<String, Value>,
}

/// A route of the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Where to.
    pub dst: String,
    /// Through what; ignored, a pod has one way out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gw: Option<String>,
}

/// Features that are off unless switched on.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct FeatureControl {
    /// Addresses that no pool manages.
    #[serde(default)]
    pub ip_addrs_no_ipam: bool,
    /// Floating addresses.
    #[serde(default)]
    pub floating_ips: bool,
}

/// Settings of the container's namespace.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct ContainerSettings {
    /// The container may forward.
    #[serde(default)]
    pub allow_ip_forwarding: bool,
}

impl NetConf {
    /// Reads a configuration and checks what does not need the agent.
    ///
    /// # Errors
    /// Code 6 when it is not JSON or a key has the wrong type (named), 1 for a version
    /// that is not spoken, 7 for a name that is none.
    pub fn parse(text: &[u8]) -> Result<Self, CniError> {
        let conf: Self = serde_json::from_slice(text).map_err(|e| explain(text, &e))?;
        if !VERSIONS.contains(&conf.version()) {
            return Err(CniError::new(
                code::INCOMPATIBLE_VERSION,
                format!(
                    "unsupported CNI version {:?}: this plugin speaks {}",
                    conf.cni_version,
                    VERSIONS.join(", ")
                ),
            )
            .details("set cniVersion in the network configuration to one of them"));
        }
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        if conf.name.is_empty() || !conf.name.bytes().all(legal) {
            return Err(CniError::new(
                code::INVALID_CONFIG,
                format!(
                    "invalid network name {:?}: it takes letters, digits, '_', '.' and '-'",
                    conf.name
                ),
            ));
        }
        for (key, value) in [
            ("assign_ipv4", &conf.ipam.assign_ipv4),
            ("assign_ipv6", &conf.ipam.assign_ipv6),
        ] {
            if value.as_ref().is_some_and(|v| v != "true" && v != "false") {
                return Err(CniError::new(
                    code::INVALID_CONFIG,
                    format!("ipam.{key} is {value:?}: it takes \"true\" or \"false\""),
                ));
            }
        }
        Ok(conf)
    }

    /// The version to speak: `0.2.0` where none is given, which is then refused.
    pub fn version(&self) -> &str {
        if self.cni_version.is_empty() {
            "0.2.0"
        } else {
            &self.cni_version
        }
    }

    /// Where the agent listens.
    pub fn socket(&self) -> String {
        self.agent_socket
            .clone()
            .or_else(|| std::env::var("MANX_SOCKET").ok().filter(|s| !s.is_empty()))
            .unwrap_or_else(|| DEFAULT_SOCKET.to_owned())
    }

    /// Whether another plugin gives the addresses.
    pub fn delegates_ipam(&self) -> bool {
        !matches!(self.ipam.plugin.as_str(), "" | "calico-ipam")
    }

    /// The previous result, in today's shape.
    ///
    /// # Errors
    /// When it is there and is none.
    pub fn previous(&self) -> Result<Option<CniResult>, CniError> {
        self.prev_result
            .as_ref()
            .map(CniResult::from_value)
            .transpose()
    }
}

/// serde names the type that it wanted but not the key; find it, since a person
/// has to mend it.
fn explain(text: &[u8], e: &serde_json::Error) -> CniError {
    let Ok(Value::Object(map)) = serde_json::from_slice::<Value>(text) else {
        return CniError::new(
            code::DECODE,
            format!("network configuration is not a JSON object: {e}"),
        );
    };
    let culprit = map.iter().find(|(k, v)| {
        let one = Value::Object([((*k).clone(), (*v).clone())].into_iter().collect());
        serde_json::from_value::<NetConf>(one).is_err()
    });
    match culprit {
        Some((k, v)) => {
            let inner = match (k.as_str(), v) {
                ("ipam", Value::Object(m)) => m
                    .iter()
                    .find(|(k, v)| {
                        let one =
                            Value::Object([((*k).clone(), (*v).clone())].into_iter().collect());
                        serde_json::from_value::<Ipam>(one).is_err()
                    })
                    .map_or(String::new(), |(k, _)| format!(".{k}")),
                _ => String::new(),
            };
            CniError::new(
                code::DECODE,
                format!("network configuration: {k}{inner} has the wrong type: {e}"),
            )
        }
        None => CniError::new(code::DECODE, format!("network configuration: {e}")),
    }
}

/// `CNI_ARGS`: `K8S_POD_NAME=x;K8S_POD_NAMESPACE=y;IgnoreUnknown=1`.
///
/// # Errors
/// Code 4 for a piece without `=`.
pub fn parse_args(text: &str) -> Result<BTreeMap<String, String>, CniError> {
    text.split(';')
        .filter(|p| !p.trim().is_empty())
        .map(|p| {
            p.split_once('=')
                .map(|(k, v)| (k.trim().to_owned(), v.to_owned()))
                .ok_or_else(|| {
                    CniError::new(
                        code::INVALID_ENVIRONMENT,
                        format!("CNI_ARGS: {p:?} is not of the form KEY=VALUE"),
                    )
                })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_type_is_named_by_its_key() {
        for (text, part) in [
            (
                r#"{"cniVersion":"1.0.0","name":"n","mtu":"x"}"#,
                "mtu has the wrong type",
            ),
            (
                r#"{"cniVersion":"1.0.0","name":"n","ipam":{"type":"calico-ipam","ipv4_pools":"p"}}"#,
                "ipam.ipv4_pools has the wrong type",
            ),
            (
                r#"{"cniVersion":"1.0.0","name":"n","ipam":{"assign_ipv4":"yes"}}"#,
                "ipam.assign_ipv4",
            ),
            ("[]", "not a JSON object"),
            (
                r#"{"cniVersion":"9.0.0","name":"n"}"#,
                "unsupported CNI version \"9.0.0\"",
            ),
            (r#"{"name":"n"}"#, "unsupported CNI version"),
            (
                r#"{"cniVersion":"1.0.0","name":"a b"}"#,
                "invalid network name",
            ),
        ] {
            let e = NetConf::parse(text.as_bytes()).expect_err(text);
            assert!(e.msg.contains(part), "{text}: {e}");
        }
    }

    #[test]
    fn unknown_keys_survive() {
        let c = NetConf::parse(br#"{"cniVersion":"0.3.1","name":"n","etcd_endpoints":"x","ipam":{"type":"host-local","ranges":[]}}"#)
            .expect("valid");
        let v = serde_json::to_value(&c).expect("serialises");
        assert_eq!(v["etcd_endpoints"], "x");
        assert!(v["ipam"]["ranges"].is_array() && c.delegates_ipam());
    }

    #[test]
    fn arguments() {
        let a = parse_args("IgnoreUnknown=1;K8S_POD_NAME=a=b;").expect("valid");
        assert_eq!(a["K8S_POD_NAME"], "a=b");
        assert!(parse_args("x").is_err());
    }
}
