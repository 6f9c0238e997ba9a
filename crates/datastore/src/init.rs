//! What every cluster has: its information and the built-in tiers.

use crate::{Client, ClientError, Store};
use api::kinds::config::ClusterInformation;
use api::{ObjectMeta, Resource, ResourceKind};
use std::sync::Arc;

/// Makes sure that a store has what every cluster has: the ClusterInformation `default`
/// (an identity, `datastoreReady`, and `cluster_type` among its types) and the three
/// built-in tiers. What is there stays as it is. Any number of processes may do this at once.
///
/// # Errors
/// The store's, or an object that is there and cannot be read.
pub async fn init(store: &Arc<dyn Store>, cluster_type: &[String]) -> Result<(), ClientError> {
    let client = Client::new(Arc::clone(store));
    for tier in api::builtin_tiers() {
        match client.create(tier.into()).await {
            Ok(_) => {}
            Err(e) if e.is_already_exists() => {}
            Err(e) => return Err(e),
        }
    }
    loop {
        match information(&client, cluster_type).await {
            // Somebody else did the same: look at what became of it.
            Err(e) if e.is_already_exists() || e.is_conflict() => {}
            done => return done,
        }
    }
}

async fn information(client: &Client, cluster_type: &[String]) -> Result<(), ClientError> {
    let kind = ResourceKind::ClusterInformation;
    let mut found = match client.get(kind, None, "default").await {
        Ok(r) => r,
        Err(e) if e.is_not_found() => {
            let mut info = ClusterInformation {
                metadata: ObjectMeta::named("default"),
                ..ClusterInformation::default()
            };
            info.spec.cluster_guid = uuid::Uuid::new_v4().simple().to_string();
            info.spec.datastore_ready = Some(true);
            info.spec.cluster_type = merged("", cluster_type);
            return client.create(info.into()).await.map(drop);
        }
        Err(e) => return Err(e),
    };
    let Resource::ClusterInformation(info) = &mut found else {
        return Ok(());
    };
    let before = info.spec.clone();
    info.spec.cluster_type = merged(&info.spec.cluster_type, cluster_type);
    if info.spec.cluster_guid.is_empty() {
        info.spec.cluster_guid = uuid::Uuid::new_v4().simple().to_string();
    }
    // Unset means that nobody decided; "no" is somebody's lock.
    info.spec.datastore_ready.get_or_insert(true);
    if info.spec == before {
        return Ok(());
    }
    client.update(found).await.map(drop)
}

/// The types that are there and those that are missing, in that order.
fn merged(present: &str, wanted: &[String]) -> String {
    let mut all: Vec<&str> = present.split(',').filter(|t| !t.is_empty()).collect();
    for t in wanted {
        if !all.contains(&t.as_str()) {
            all.push(t);
        }
    }
    all.join(",")
}
