//! Results, in one shape inside and in the shape of each version outside.

use crate::error::{CniError, code};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The result of ADD in the shape of 1.1.0.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CniResult {
    /// Interfaces that were made: the host's first, then the container's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<Interface>,
    /// Addresses.
    #[serde(default)]
    pub ips: Vec<IpConfig>,
    /// Routes of the container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<RouteConfig>,
    /// Name resolution, passed through.
    #[serde(default)]
    pub dns: Value,
}

/// An interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its MAC.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mac: String,
    /// Its MTU (1.1.0).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Path of the namespace that it is in; empty is the host.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sandbox: String,
}

/// An address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpConfig {
    /// With its prefix length.
    pub address: String,
    /// Its gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// Index into `interfaces`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<u32>,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteConfig {
    /// Where to.
    pub dst: String,
    /// Through what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gw: Option<String>,
}

impl CniResult {
    /// The printed form for a version: `ips[].version` before 1.0.0, interface MTU from 1.1.0 on.
    pub fn to_value(&self, version: &str) -> Value {
        let mut v = serde_json::to_value(self).unwrap_or_default();
        v["cniVersion"] = json!(version);
        if v["dns"].is_null() {
            v["dns"] = json!({});
        }
        if version.starts_with("0.")
            && let Some(ips) = v.get_mut("ips").and_then(Value::as_array_mut)
        {
            for ip in ips {
                let six = ip["address"].as_str().is_some_and(|a| a.contains(':'));
                ip["version"] = json!(if six { "6" } else { "4" });
            }
        }
        if version != "1.1.0"
            && let Some(interfaces) = v.get_mut("interfaces").and_then(Value::as_array_mut)
        {
            for i in interfaces.iter_mut().filter_map(Value::as_object_mut) {
                i.remove("mtu");
            }
        }
        v
    }

    /// Reads a result of any version.
    ///
    /// # Errors
    /// Code 6 when it has another shape.
    pub fn from_value(v: &Value) -> Result<Self, CniError> {
        serde_json::from_value(v.clone()).map_err(|e| {
            CniError::new(code::DECODE, format!("prevResult is not a CNI result: {e}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_has_its_shape() {
        let r = CniResult {
            interfaces: vec![Interface {
                name: "eth0".into(),
                mtu: Some(1450),
                ..Interface::default()
            }],
            ips: vec![IpConfig {
                address: "fd00::1/128".into(),
                gateway: None,
                interface: Some(0),
            }],
            ..CniResult::default()
        };
        let old = r.to_value("0.3.1");
        assert_eq!(old["ips"][0]["version"], "6");
        assert!(old["interfaces"][0].get("mtu").is_none());
        let new = r.to_value("1.1.0");
        assert!(new["ips"][0].get("version").is_none());
        assert_eq!(new["interfaces"][0]["mtu"], 1450);
        assert_eq!(CniResult::from_value(&old).expect("reads back").ips, r.ips);
        assert!(CniResult::from_value(&json!({"ips": 4})).is_err());
        let bare = CniResult::default().to_value("1.0.0");
        assert!(
            bare.get("interfaces").is_none(),
            "of an IPAM plugin: {bare}"
        );
    }
}
