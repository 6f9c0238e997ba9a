//! Where each kind is stored, and in which form.
//!
//! IPAM's configuration lies among IPAM's keys and has a form of its own there; other
//! resources are what the api crate encodes.

use super::ClientError;
use super::error::object;
use crate::Entry;
use api::kinds::ipam::IpamConfiguration;
use api::{BadObject, Resource, ResourceKey, ResourceKind, decode, encode, key};
use bytes::Bytes;

/// The only name of IPAM's configuration.
const DEFAULT: &str = "default";

/// The key of a resource.
///
/// # Errors
/// For the kinds that only the ipam crate reads and writes.
pub(crate) fn location(
    operation: &'static str,
    kind: ResourceKind,
    namespace: Option<&str>,
    name: &str,
) -> Result<String, ClientError> {
    match kind {
        ResourceKind::IpamConfiguration if name == DEFAULT => Ok(ipam::config_key()),
        ResourceKind::IpamConfiguration => Err(ClientError::not_found(kind, None, name)),
        ResourceKind::IpamBlock | ResourceKind::IpamHandle | ResourceKind::BlockAffinity => {
            Err(ClientError::Unsupported {
                operation,
                object: object(kind, namespace, name),
                reason: "addresses are managed with the ipam commands".to_owned(),
            })
        }
        _ => Ok(key(kind, namespace, name)),
    }
}

/// A stored entry as a resource.
pub(crate) fn read(
    kind: ResourceKind,
    namespace: Option<&str>,
    name: &str,
    entry: &Entry,
) -> Result<Resource, BadObject> {
    let revision = entry.revision.to_string();
    if kind == ResourceKind::IpamConfiguration {
        let config = ipam::Config::decode(&entry.value).map_err(|e| BadObject {
            object: entry.key.clone(),
            reason: e.to_string(),
        })?;
        return Ok(from_config(config, revision));
    }
    let at = ResourceKey {
        kind,
        namespace,
        name,
    };
    decode(&at, &entry.value, Some(&revision))
}

/// A resource as it is stored.
pub(crate) fn write(resource: &Resource, old: Option<&Entry>) -> Result<Bytes, ClientError> {
    match resource {
        Resource::IpamConfiguration(r) => {
            // Fields of other versions stay.
            let old = old.and_then(|e| ipam::Config::decode(&e.value).ok());
            Ok(to_config(r, old.unwrap_or_default()).encode().into())
        }
        r => Ok(encode(r)?.into()),
    }
}

fn from_config(config: ipam::Config, revision: String) -> Resource {
    let mut r = IpamConfiguration::default();
    DEFAULT.clone_into(&mut r.metadata.name);
    r.metadata.resource_version = revision;
    r.spec.strict_affinity = config.strict_affinity;
    r.spec.auto_allocate_blocks = Some(config.auto_allocate_blocks);
    r.spec.max_blocks_per_host = i64::from(config.max_blocks_per_host);
    r.spec.kube_virt_vm_address_persistence =
        config.kubevirt_vm_address_persistence.unwrap_or_default();
    r.spec.ip_cooldown_seconds =
        (config.ip_cooldown_seconds > 0).then_some(i64::from(config.ip_cooldown_seconds));
    r.into()
}

fn to_config(r: &IpamConfiguration, old: ipam::Config) -> ipam::Config {
    let persistence = &r.spec.kube_virt_vm_address_persistence;
    // Validation has refused what does not fit.
    let count = |n: i64| u32::try_from(n).unwrap_or(0);
    ipam::Config {
        strict_affinity: r.spec.strict_affinity,
        auto_allocate_blocks: r.spec.auto_allocate_blocks.unwrap_or(true),
        max_blocks_per_host: count(r.spec.max_blocks_per_host),
        kubevirt_vm_address_persistence: (!persistence.is_empty()).then(|| persistence.clone()),
        ip_cooldown_seconds: count(r.spec.ip_cooldown_seconds.unwrap_or(0)),
        extra: old.extra,
    }
}
