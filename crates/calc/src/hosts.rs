//! Local host endpoints: what they need is active, so that it is there when they are
//! programmed.
//!
//! Promises: a policy that matches only a host endpoint is active.
//!
//! Never: says anything of a host endpoint itself; the contract has no place for it yet.

use crate::labels::LabelSetId;
use crate::policies::Policies;
use model::{HostEndpoint, ProfileId};
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// All host endpoints of this node.
#[derive(Debug, Default)]
pub(crate) struct Hosts {
    joined: FxHashMap<Arc<str>, (LabelSetId, Vec<ProfileId>)>,
}

impl Hosts {
    /// Takes the new state of an endpoint; `None` when it is gone or another node's.
    pub(crate) fn update(
        &mut self,
        name: &Arc<str>,
        endpoint: Option<&HostEndpoint>,
        policies: &mut Policies,
    ) {
        let new = endpoint.map(|e| {
            let labels = policies.join(&e.labels, &e.profiles);
            (labels, e.profiles.clone())
        });
        let old = match new {
            Some(new) => self.joined.insert(name.clone(), new),
            None => self.joined.remove(name),
        };
        if let Some((labels, profiles)) = old {
            policies.leave(labels, &profiles);
        }
    }
}
