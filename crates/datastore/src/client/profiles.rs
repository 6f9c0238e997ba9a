//! Profiles that nobody stores: what namespaces and service accounts are, and the one that is built in.

use super::{Client, ClientError, Listed};
use api::convert::{namespace_profile, service_account_profile};
use api::{Resource, ResourceKind};

/// The profile that a namespace or service account is.
fn profile(of: &Resource) -> Option<Resource> {
    match of {
        Resource::Namespace(n) => Some(namespace_profile(n).into()),
        Resource::ServiceAccount(a) => Some(service_account_profile(a).into()),
        _ => None,
    }
}

impl Client {
    /// A profile that follows from another object, or from nothing.
    pub(super) async fn derived_profile(
        &self,
        name: &str,
    ) -> Result<Option<Resource>, ClientError> {
        let built_in: Resource = api::default_allow_profile().into();
        if built_in.meta().name == name {
            return Ok(Some(built_in));
        }
        let found = if let Some(namespace) = name.strip_prefix("kns.") {
            self.entry("get", ResourceKind::Namespace, None, namespace)
                .await?
        } else if let Some((ns, account)) = name
            .strip_prefix("ksa.")
            .and_then(|rest| rest.split_once('.'))
        {
            // Names of namespaces have no dots.
            let kind = ResourceKind::ServiceAccount;
            self.entry("get", kind, Some(ns), account).await?
        } else {
            None
        };
        Ok(found.and_then(|(r, _)| profile(&r)))
    }

    /// The profiles that follow from other objects, and the one that is built in. One that is stored
    /// under the same name is shown instead, for it is what agents read last.
    pub(super) async fn derived_profiles(&self, into: &mut Listed) -> Result<(), ClientError> {
        let mut derived = vec![api::default_allow_profile().into()];
        for kind in [ResourceKind::Namespace, ResourceKind::ServiceAccount] {
            let listed = self.list_stored(kind, None).await?;
            derived.extend(listed.resources.iter().filter_map(profile));
            into.bad.extend(listed.bad);
        }
        let stored: std::collections::BTreeSet<String> = (into.resources.iter())
            .map(|r| r.meta().name.clone())
            .collect();
        derived.retain(|r| !stored.contains(&r.meta().name));
        into.resources.extend(derived);
        Ok(())
    }
}
