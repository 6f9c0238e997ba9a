//! The cluster behind a command: its store, opened as configured, and what is done to resources
//! beyond one write.
//!
//! Promises: a store that does not exist is not made by a command that only looks; a pool
//! that is deleted leaves no affinity behind, a node none of what was only there because of it.

use crate::args::GlobalArgs;
use crate::{CliError, version};
use api::kinds::config::ClusterInformation;
use api::{BadObject, Resource, ResourceKind};
use daemon::StoreConfig;
use daemon::env::ProcessEnv;
use datastore::pending::Pendings;
use datastore::{Client, Delete, IpamStore, Store};
use ipam::{Ipam, ReleaseArgs, ReleaseOption};
use jiff::Timestamp;
use net::{Asn, Cidr};
use std::collections::BTreeSet;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use datastore::ClientError as ObjectError;

/// The AS number of clusters that do not say theirs.
const DEFAULT_ASN: Asn = Asn(64512);

/// Whether a command may make the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// A store that does not exist is as good as an empty one.
    Existing,
    /// Makes the store, and in it what every cluster has.
    Create,
}

/// An open store.
pub(crate) struct Cluster {
    runtime: tokio::runtime::Runtime,
    store: Arc<dyn Store>,
    client: Client,
    /// The store's file, when it does not exist.
    pub(crate) missing: Option<std::path::PathBuf>,
}

/// What a release found.
pub(crate) struct Released {
    /// Freed now.
    pub(crate) freed: Vec<IpAddr>,
    /// Held by nobody.
    pub(crate) unallocated: Vec<IpAddr>,
}

/// All of a kind.
pub(crate) struct Listing {
    pub(crate) items: Vec<Resource>,
    pub(crate) bad: Vec<BadObject>,
    pub(crate) revision: String,
}

impl Cluster {
    /// Opens the configured store, if this version may work on it.
    pub(crate) fn open(global: &GlobalArgs, access: Access) -> Result<Self, CliError> {
        let cluster = Self::open_any_version(global, access)?;
        if !global.allow_version_mismatch
            && let Some(information) = cluster.information()?
            && let Some(other) = version::mismatch(&information.spec)
        {
            return Err(CliError::Version {
                client: version::CLIENT.to_owned(),
                cluster: other,
            });
        }
        Ok(cluster)
    }

    /// Opens the configured store, whoever set it up.
    pub(crate) fn open_any_version(global: &GlobalArgs, access: Access) -> Result<Self, CliError> {
        let config = StoreConfig::load(global.config.as_deref(), &ProcessEnv)?;
        let mut missing = None;
        let store: Arc<dyn Store> = match config {
            StoreConfig::Memory => Arc::new(datastore::memory::Store::new()),
            StoreConfig::Embedded { path } if access == Access::Existing && !path.exists() => {
                missing = Some(path);
                Arc::new(datastore::memory::Store::new())
            }
            StoreConfig::Embedded { path } => Arc::new(datastore::embedded::Store::open(path)?),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()?;
        let client = Client::new(Arc::clone(&store));
        Ok(Self {
            runtime,
            store,
            client,
            missing,
        })
    }

    pub(crate) fn wait_for<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Changes that wait for confirmation.
    pub(crate) fn pendings(&self) -> Pendings {
        Pendings::new(Arc::clone(&self.store))
    }

    /// Lets time pass.
    pub(crate) fn pause(&self, time: Duration) {
        self.wait_for(async { tokio::time::sleep(time).await });
    }

    /// Makes what every cluster has, where it is not there yet.
    pub(crate) fn init(&self) -> Result<(), ObjectError> {
        self.wait_for(datastore::init(&self.store, &[]))
    }

    pub(crate) fn get(
        &self,
        kind: ResourceKind,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Resource, ObjectError> {
        self.wait_for(self.client.get(kind, namespace, name))
    }

    pub(crate) fn list(
        &self,
        kind: ResourceKind,
        namespace: Option<&str>,
    ) -> Result<Listing, ObjectError> {
        let listed = self.wait_for(self.client.list(kind, namespace))?;
        Ok(Listing {
            items: listed.resources,
            bad: listed.bad,
            revision: listed.revision.to_string(),
        })
    }

    pub(crate) fn create(&self, resource: Resource) -> Result<Resource, ObjectError> {
        check_configuration(&resource)?;
        self.wait_for(self.client.create(resource))
    }

    pub(crate) fn update(&self, resource: Resource) -> Result<Resource, ObjectError> {
        check_configuration(&resource)?;
        self.wait_for(self.client.update(resource))
    }

    /// Creates or replaces; writes nothing where that would change nothing, so that applying
    /// the same files again wakes nobody up.
    pub(crate) fn apply(&self, resource: Resource) -> Result<Resource, ObjectError> {
        if let Ok(old) = self.get(resource.kind(), resource.namespace(), &resource.meta().name) {
            let mut new = resource.clone();
            api::default(&mut new);
            if new.meta().resource_version.is_empty() {
                datastore::keep_written(&old, &mut new);
            }
            let (meta, of) = (new.meta_mut(), old.meta());
            for (mine, theirs) in [
                (&mut meta.uid, &of.uid),
                (&mut meta.resource_version, &of.resource_version),
            ] {
                if mine.is_empty() {
                    mine.clone_from(theirs);
                }
            }
            meta.creation_timestamp.clone_from(&of.creation_timestamp);
            if new == old && api::validate(&new).is_ok() {
                return Ok(old);
            }
        }
        check_configuration(&resource)?;
        self.wait_for(self.client.apply(resource))
    }

    /// Deletes, and what has to go with it.
    pub(crate) fn delete(&self, resource: &Resource) -> Result<(), CliError> {
        let (kind, name) = (resource.kind(), &resource.meta().name);
        match kind {
            ResourceKind::IpPool => self.delete_pool(name),
            ResourceKind::Node => {
                self.get(kind, None, name)?;
                self.clear_node(name)?;
                self.delete_one(kind, None, name)
            }
            _ => self.delete_one(kind, resource.namespace(), name),
        }
    }

    fn delete_one(
        &self,
        kind: ResourceKind,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<(), CliError> {
        self.wait_for(self.client.delete(kind, namespace, name, Delete::default()))?;
        Ok(())
    }

    /// A disabled pool gives no new blocks, but somebody who read it before may claim one until it is
    /// gone: so what was claimed meanwhile is released once more behind it.
    fn delete_pool(&self, name: &str) -> Result<(), CliError> {
        let pool = self.wait_for(self.client.disable_pool(name))?;
        let Resource::IpPool(p) = &pool else {
            return Ok(());
        };
        let cidr: Option<Cidr> = p.spec.cidr.parse().ok();
        self.release_affinities(cidr)?;
        self.delete_one(ResourceKind::IpPool, None, name)?;
        self.release_affinities(cidr)
    }

    fn release_affinities(&self, pool: Option<Cidr>) -> Result<(), CliError> {
        let Some(cidr) = pool else { return Ok(()) };
        for (_, outcome) in self.wait_for(self.ipam().release_pool_affinities(cidr))? {
            outcome?;
        }
        Ok(())
    }

    /// What exists only because of a node: its stored endpoints and their addresses, its tunnel
    /// addresses, its blocks, its own configurations. Pods are not touched: they are Kubernetes'.
    fn clear_node(&self, node: &str) -> Result<(), CliError> {
        let mut addresses = BTreeSet::new();
        for r in self.list(ResourceKind::WorkloadEndpoint, None)?.items {
            let Resource::WorkloadEndpoint(w) = &r else {
                continue;
            };
            if w.spec.node == node && w.spec.orchestrator != "k8s" {
                addresses.extend(w.spec.ip_networks.iter().filter_map(|n| host(n)));
                self.delete_one(
                    ResourceKind::WorkloadEndpoint,
                    r.namespace(),
                    &w.metadata.name,
                )?;
            }
        }
        for r in self.list(ResourceKind::HostEndpoint, None)?.items {
            let Resource::HostEndpoint(h) = &r else {
                continue;
            };
            if h.spec.node == node {
                self.delete_one(ResourceKind::HostEndpoint, None, &h.metadata.name)?;
            }
        }
        for kind in [
            ResourceKind::FelixConfiguration,
            ResourceKind::BgpConfiguration,
        ] {
            match self.delete_one(kind, None, &format!("node.{node}")) {
                Err(CliError::Object(e)) if e.is_not_found() => {}
                done => done?,
            }
        }
        self.clear_addresses(node, &addresses)
    }

    fn clear_addresses(&self, node: &str, addresses: &BTreeSet<IpAddr>) -> Result<(), CliError> {
        let now = Timestamp::now();
        let snapshot = self.wait_for(self.ipam().snapshot(now))?;
        let mut options = Vec::new();
        for block in &snapshot.blocks {
            for (address, a) in block.held().filter(|(_, a)| a.get("node") == Some(node)) {
                let tunnel = a.get("type").is_some_and(|t| t.ends_with("TunnelAddress"));
                if tunnel || addresses.contains(&address) {
                    options.push(ReleaseOption {
                        address,
                        handle: a.handle().map(str::to_owned),
                        sequence: Some(block.sequence_of(address)),
                    });
                }
            }
        }
        // Who is not there any more has nothing left to release: that is what is wanted.
        self.release(&options)?;
        let owner = ipam::Owner::host(node);
        for (_, outcome) in self.wait_for(self.ipam().release_host_affinities(&owner, now))? {
            outcome?;
        }
        Ok(())
    }

    /// Releases addresses; fails unless each is free then.
    pub(crate) fn release(&self, options: &[ReleaseOption]) -> Result<Released, CliError> {
        let args = ReleaseArgs {
            pools: &[],
            config: None,
            now: Timestamp::now(),
        };
        let mut outcome = self.wait_for(self.ipam().release_ips(options, &args))?;
        match outcome.failed.pop() {
            Some((_, e)) => Err(e.into()),
            None => Ok(Released {
                freed: outcome.freed,
                unallocated: outcome.unallocated,
            }),
        }
    }

    /// Empties a handle.
    pub(crate) fn release_handle(&self, id: &str) -> Result<(), CliError> {
        let args = ReleaseArgs {
            pools: &[],
            config: None,
            now: Timestamp::now(),
        };
        match self.wait_for(self.ipam().release_by_handle(id, &args)) {
            Ok(_) | Err(ipam::Error::UnknownHandle(_)) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    fn ipam(&self) -> Ipam<IpamStore> {
        Ipam::new(IpamStore::new(Arc::clone(&self.store)))
    }

    /// Everything that address management has stored.
    pub(crate) fn snapshot(&self) -> Result<ipam::Snapshot, CliError> {
        Ok(self.wait_for(self.ipam().snapshot(Timestamp::now()))?)
    }

    /// How addresses are assigned.
    pub(crate) fn ipam_config(&self) -> Result<ipam::Config, CliError> {
        Ok(self.wait_for(self.ipam().config())?)
    }

    /// The cluster's own description, if there is one.
    pub(crate) fn information(&self) -> Result<Option<ClusterInformation>, CliError> {
        match self.get(ResourceKind::ClusterInformation, None, "default") {
            Ok(Resource::ClusterInformation(i)) => Ok(Some(i)),
            Ok(_) => Ok(None),
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// The AS number of nodes that have none of their own.
    pub(crate) fn default_asn(&self) -> Result<Asn, CliError> {
        match self.get(ResourceKind::BgpConfiguration, None, "default") {
            Ok(Resource::BgpConfiguration(b)) => Ok(b.spec.as_number.map_or(DEFAULT_ASN, |n| n.0)),
            Ok(_) => Ok(DEFAULT_ASN),
            Err(e) if e.is_not_found() => Ok(DEFAULT_ASN),
            Err(e) => Err(e.into()),
        }
    }
}

/// The address of a host prefix, or of a bare address.
pub(crate) fn host(text: &str) -> Option<IpAddr> {
    text.split('/').next()?.parse().ok()
}

/// What the allocator refuses of its configuration, beyond what each field may be.
fn check_configuration(r: &Resource) -> Result<(), ObjectError> {
    let Resource::IpamConfiguration(c) = r else {
        return Ok(());
    };
    let count = |n: i64| u32::try_from(n).unwrap_or(0);
    let config = ipam::Config {
        strict_affinity: c.spec.strict_affinity,
        auto_allocate_blocks: c.spec.auto_allocate_blocks.unwrap_or(true),
        max_blocks_per_host: count(c.spec.max_blocks_per_host),
        ip_cooldown_seconds: count(c.spec.ip_cooldown_seconds.unwrap_or(0)),
        ..ipam::Config::default()
    };
    config.validate().map_err(|reason| {
        let (field, value) = if config.max_blocks_per_host > 0 && !config.strict_affinity {
            (
                "spec.maxBlocksPerHost",
                config.max_blocks_per_host.to_string(),
            )
        } else {
            ("spec.strictAffinity", config.strict_affinity.to_string())
        };
        let reason = reason.to_owned();
        api::Invalid {
            violations: vec![api::Violation {
                field: field.to_owned(),
                value,
                reason,
            }],
        }
        .into()
    })
}
