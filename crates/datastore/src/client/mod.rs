//! Resources over a store: checked, stamped, and with the errors that users know.
//!
//! Promises: nothing invalid is stored; an update of a given version never overwrites
//! another one; identity (uid, creation time) stays with an object for its life.
//!
//! Never: changes an object that it was not asked to change.

mod check;
pub(crate) mod codec;
mod error;
mod pods;
mod profiles;

pub use error::ClientError;
pub use pods::keep_written;

use crate::{Entry, Precondition, Revision, Store, StoreError};
use api::{BadObject, Resource, ResourceKind, parse_key};
use error::object;
use std::sync::Arc;

/// How often a change is tried again on the newer state, as Calico does.
const RETRIES: usize = 5;

/// Resources over a store. Clones share it.
#[derive(Debug, Clone)]
pub struct Client {
    store: Arc<dyn Store>,
}

/// What a listing found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Listed {
    /// By namespace and name.
    pub resources: Vec<Resource>,
    /// What is stored and cannot be read.
    pub bad: Vec<BadObject>,
    /// As of when.
    pub revision: Revision,
}

/// What has to hold for a deletion.
#[derive(Debug, Clone, Copy, Default)]
pub struct Delete<'a> {
    /// Only this version.
    pub resource_version: Option<&'a str>,
    /// Only this object, not another one of that name.
    pub uid: Option<&'a str>,
}

impl Client {
    /// Over a store.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// The store.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// One resource; `namespace` counts for namespaced kinds only.
    ///
    /// # Errors
    /// `NotFound`, `Bad`, or the store's.
    pub async fn get(
        &self,
        kind: ResourceKind,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Resource, ClientError> {
        if let Some((resource, _)) = self.entry("get", kind, namespace, name).await? {
            return Ok(resource);
        }
        let derived = match kind {
            ResourceKind::WorkloadEndpoint => self.pod_endpoint(namespace, name).await?,
            ResourceKind::Profile => self.derived_profile(name).await?,
            _ => None,
        };
        derived.ok_or_else(|| ClientError::not_found(kind, namespace, name))
    }

    /// All of a kind, or those of one namespace. Workload endpoints are those that are stored and
    /// those that pods are; profiles those that are stored, those that namespaces and service
    /// accounts are, and the one that is built in.
    ///
    /// # Errors
    /// The store's. What cannot be read is in the listing, by name.
    pub async fn list(
        &self,
        kind: ResourceKind,
        namespace: Option<&str>,
    ) -> Result<Listed, ClientError> {
        let mut listed = self.list_stored(kind, namespace).await?;
        match kind {
            ResourceKind::WorkloadEndpoint => self.pod_endpoints(namespace, &mut listed).await?,
            ResourceKind::Profile => self.derived_profiles(&mut listed).await?,
            _ => return Ok(listed),
        }
        let place = |r: &Resource| (r.meta().namespace.clone(), r.meta().name.clone());
        listed.resources.sort_by_cached_key(place);
        Ok(listed)
    }

    async fn list_stored(
        &self,
        kind: ResourceKind,
        namespace: Option<&str>,
    ) -> Result<Listed, ClientError> {
        let mut listed = Listed::default();
        if kind == ResourceKind::IpamConfiguration {
            let found = self.entry("list", kind, None, "default").await?;
            listed.resources.extend(found.map(|(r, _)| r));
            return Ok(listed);
        }
        codec::location("list", kind, namespace, "")?;
        let prefix = api::list_prefix(kind, namespace);
        let (resources, bad) = (&mut listed.resources, &mut listed.bad);
        let mut take = |entry: Entry| {
            let read = match parse_key(&entry.key) {
                Some(at) => codec::read(kind, at.namespace, at.name, &entry),
                None => Err(BadObject {
                    object: entry.key.clone(),
                    reason: "its key is of no resource".to_owned(),
                }),
            };
            match read {
                Ok(r) => resources.push(r),
                Err(e) => bad.push(e),
            }
        };
        listed.revision = self.store.list_each(&[&prefix], &mut take).await?;
        Ok(listed)
    }

    /// The resource and its entry, if it is stored.
    pub(crate) async fn entry(
        &self,
        operation: &'static str,
        kind: ResourceKind,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Option<(Resource, Entry)>, ClientError> {
        let key = codec::location(operation, kind, namespace, name)?;
        let Some(entry) = self.store.get(&key).await? else {
            return Ok(None);
        };
        let resource = codec::read(kind, namespace, name, &entry)?;
        Ok(Some((resource, entry)))
    }

    /// Stores a new resource: fills in defaults, uid and creation time. Gives it as stored.
    ///
    /// # Errors
    /// `AlreadyExists`, `Invalid`, `NoNamespace`, `Unsupported`, or the store's.
    pub async fn create(&self, mut resource: Resource) -> Result<Resource, ClientError> {
        api::default(&mut resource);
        api::validate(&resource)?;
        let (kind, name) = (resource.kind(), resource.meta().name.clone());
        let namespace = resource.namespace().map(str::to_owned);
        let key = codec::location("create", kind, namespace.as_deref(), &name)?;
        let exists = || ClientError::already_exists(kind, namespace.as_deref(), &name);
        if self.store.get(&key).await?.is_some() {
            // Before anything that its second coming would break, such as overlap.
            return Err(exists());
        }
        self.check_write("create", &resource, None).await?;
        let meta = resource.meta_mut();
        meta.resource_version.clear();
        meta.uid = uuid::Uuid::new_v4().to_string();
        meta.creation_timestamp = Some(now());
        let value = codec::write(&resource, None)?;
        match self.store.put(&key, value, Precondition::Absent).await {
            Ok(revision) => {
                resource.meta_mut().resource_version = revision.to_string();
                Ok(resource)
            }
            Err(StoreError::Conflict { .. }) => Err(exists()),
            Err(e) => Err(e.into()),
        }
    }

    /// Replaces a resource; only the version that it names, if it names one.
    ///
    /// # Errors
    /// `NotFound`, `Conflict`, `Invalid`, `Unsupported`, or the store's.
    pub async fn update(&self, resource: Resource) -> Result<Resource, ClientError> {
        let version = resource.meta().resource_version.clone();
        let mut tries = 0;
        loop {
            match self.update_once(resource.clone(), &version).await {
                // Without a version to hold on to, the newest one is replaced.
                Err(e) if e.is_conflict() && version.is_empty() && tries < RETRIES => tries += 1,
                done => return done,
            }
        }
    }

    async fn update_once(
        &self,
        mut resource: Resource,
        version: &str,
    ) -> Result<Resource, ClientError> {
        api::default(&mut resource);
        api::validate(&resource)?;
        let (kind, name) = (resource.kind(), resource.meta().name.clone());
        let namespace = resource.namespace().map(str::to_owned);
        let found = self
            .entry("update", kind, namespace.as_deref(), &name)
            .await?;
        let Some((old, entry)) = found else {
            // What is no version at all is a mistake, not a conflict.
            self.check_write("update", &resource, None).await?;
            return Err(ClientError::not_found(kind, namespace.as_deref(), &name));
        };
        let uid = &resource.meta().uid;
        let another = !uid.is_empty() && !old.meta().uid.is_empty() && *uid != old.meta().uid;
        if another || !version.is_empty() && version != entry.revision.to_string() {
            return Err(ClientError::Conflict {
                object: resource.to_string(),
            });
        }
        if version.is_empty() {
            pods::keep_written(&old, &mut resource);
        }
        api::validate_update(&old, &resource)?;
        self.check_write("update", &resource, Some(&old)).await?;
        let meta = resource.meta_mut();
        meta.uid.clone_from(&old.meta().uid);
        meta.creation_timestamp
            .clone_from(&old.meta().creation_timestamp);
        self.replace(resource, &entry).await
    }

    /// Writes over exactly that entry.
    async fn replace(&self, mut resource: Resource, old: &Entry) -> Result<Resource, ClientError> {
        let value = codec::write(&resource, Some(old))?;
        let at = Precondition::Revision(old.revision);
        match self.store.put(&old.key, value, at).await {
            Ok(revision) => {
                resource.meta_mut().resource_version = revision.to_string();
                Ok(resource)
            }
            Err(StoreError::Conflict { .. } | StoreError::NotFound { .. }) => {
                Err(ClientError::Conflict {
                    object: resource.to_string(),
                })
            }
            Err(e) => Err(e.into()),
        }
    }

    /// Creates a resource, or replaces the one that is there.
    ///
    /// # Errors
    /// As [`Client::create`] and [`Client::update`], after some conflicts.
    pub async fn apply(&self, resource: Resource) -> Result<Resource, ClientError> {
        let mut tries = 0;
        loop {
            let done = match self.update(resource.clone()).await {
                Err(e) if e.is_not_found() => self.create(resource.clone()).await,
                done => done,
            };
            match done {
                // Deleted or created by others in between.
                Err(e) if (e.is_already_exists() || e.is_not_found()) && tries < RETRIES => {
                    tries += 1;
                }
                done => return done,
            }
        }
    }

    /// Deletes a resource and gives what it was last. For a pool, its addresses are to
    /// be released first (see [`Client::disable_pool`]).
    ///
    /// # Errors
    /// `NotFound`, `Conflict`, `Unsupported`, or the store's.
    pub async fn delete(
        &self,
        kind: ResourceKind,
        namespace: Option<&str>,
        name: &str,
        only: Delete<'_>,
    ) -> Result<Resource, ClientError> {
        let conflict = || ClientError::Conflict {
            object: object(kind, namespace, name),
        };
        let mut tries = 0;
        loop {
            let Some((old, entry)) = self.entry("delete", kind, namespace, name).await? else {
                // What is not stored, such as a pod's endpoint, has its own reason.
                let derived = self.get(kind, namespace, name).await?;
                return Err(ClientError::Unsupported {
                    operation: "delete",
                    object: derived.to_string(),
                    reason: "it is not stored, it follows from another object".to_owned(),
                });
            };
            let version = entry.revision.to_string();
            if only.resource_version.is_some_and(|v| v != version)
                || only.uid.is_some_and(|u| u != old.meta().uid)
            {
                return Err(conflict());
            }
            self.check_delete(&old).await?;
            let at = Precondition::Revision(entry.revision);
            match self.store.delete(&entry.key, at).await {
                Ok(_) => return Ok(old),
                Err(StoreError::Conflict { .. }) if tries < RETRIES => tries += 1,
                Err(StoreError::Conflict { .. }) => return Err(conflict()),
                Err(StoreError::NotFound { .. }) => {
                    return Err(ClientError::not_found(kind, namespace, name));
                }
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// The first step of a pool's deletion: it gives no more addresses. After it, and
    /// half a second for those who read it before, its affinities are released and
    /// the pool is deleted.
    ///
    /// # Errors
    /// As [`Client::update`].
    pub async fn disable_pool(&self, name: &str) -> Result<Resource, ClientError> {
        let mut tries = 0;
        loop {
            let mut pool = self.get(ResourceKind::IpPool, None, name).await?;
            if let Resource::IpPool(p) = &mut pool {
                if p.spec.disabled {
                    return Ok(pool);
                }
                p.spec.disabled = true;
            }
            match self.update(pool).await {
                Err(e) if e.is_conflict() && tries < RETRIES => tries += 1,
                done => return done,
            }
        }
    }
}

/// Now, as Kubernetes writes it: to the second, in UTC.
fn now() -> String {
    let now = jiff::Timestamp::now();
    let whole = jiff::Timestamp::from_second(now.as_second()).unwrap_or(now);
    whole.to_string()
}
