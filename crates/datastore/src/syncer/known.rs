//! What each entry of the store led to: just enough to take it back.
//!
//! Fifty thousand pods are a few megabytes: an entry whose meaning follows from its key
//! has nothing beside it, a pod the number of its node.

use model::{Update, WorkloadKey};
use std::collections::HashMap;
use std::sync::Arc;

/// What an entry led to.
#[derive(Debug)]
enum Meaning {
    /// Nothing.
    Nothing,
    /// Nothing, since it is bad.
    Bad,
    /// What its key alone says.
    ByKey,
    /// The workload endpoint of the pod that the key names, on a node.
    Pod(u32),
    /// Retractions, each with nothing in it but a model key.
    #[expect(clippy::box_collection, reason = "rare, and a word less in each entry")]
    Others(Box<Vec<Update>>),
}

/// The entries of the store, each with what it led to.
#[derive(Debug, Default)]
pub(super) struct Known {
    entries: HashMap<Box<str>, Meaning>,
    nodes: Vec<Arc<str>>,
    node_numbers: HashMap<Arc<str>, u32>,
}

/// The key of a pod's endpoint, if `key` is of a pod.
fn pod_endpoint(key: &str, node: Arc<str>) -> Option<WorkloadKey> {
    Some(WorkloadKey {
        node,
        orchestrator: "k8s".into(),
        workload: key.strip_prefix("/registry/pods/")?.into(),
        endpoint: "eth0".into(),
    })
}

impl Known {
    pub(super) fn is_bad(&self, key: &str) -> bool {
        matches!(self.entries.get(key), Some(Meaning::Bad))
    }

    /// Notes that the entry, if it is still stored, leads to `updates` now, and gives
    /// the retractions of what it led to and does not any more.
    pub(super) fn replace(
        &mut self,
        key: &str,
        stored: bool,
        updates: &[Update],
        bad: bool,
    ) -> Vec<Update> {
        let before = self.retractions(key);
        let now: Vec<Update> = updates.iter().map(api::absent).collect();
        if stored {
            let meaning = if bad {
                Meaning::Bad
            } else {
                self.meaning(key, &now)
            };
            match self.entries.get_mut(key) {
                Some(m) => *m = meaning,
                None => drop(self.entries.insert(key.into(), meaning)),
            }
        } else {
            self.entries.remove(key);
        }
        before.into_iter().filter(|u| !now.contains(u)).collect()
    }

    /// Everything that takes back what the entry led to.
    fn retractions(&self, key: &str) -> Vec<Update> {
        match self.entries.get(key) {
            None | Some(Meaning::Nothing | Meaning::Bad) => Vec::new(),
            Some(Meaning::ByKey) => by_key(key),
            Some(Meaning::Pod(n)) => {
                let node = Arc::clone(&self.nodes[*n as usize]);
                let endpoint = pod_endpoint(key, node);
                endpoint
                    .map(|k| Update::Workload(k, None))
                    .into_iter()
                    .collect()
            }
            Some(Meaning::Others(updates)) => updates.as_ref().clone(),
        }
    }

    fn meaning(&mut self, key: &str, now: &[Update]) -> Meaning {
        match now {
            [] => Meaning::Nothing,
            [Update::Workload(k, _)]
                if pod_endpoint(key, Arc::clone(&k.node)).as_ref() == Some(k) =>
            {
                Meaning::Pod(self.number_of(&k.node))
            }
            _ if by_key(key) == now => Meaning::ByKey,
            _ => Meaning::Others(Box::new(now.to_vec())),
        }
    }

    /// Numbers are never given back: nodes are few beside pods.
    fn number_of(&mut self, node: &Arc<str>) -> u32 {
        if let Some(n) = self.node_numbers.get(node) {
            return *n;
        }
        let n = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        self.nodes.push(Arc::clone(node));
        self.node_numbers.insert(Arc::clone(node), n);
        n
    }

    /// Takes one entry over from an earlier state, which this has begun to replace.
    pub(super) fn move_from(&mut self, before: &mut Self, key: &str) {
        if let Some((key, meaning)) = before.entries.remove_entry(key) {
            let meaning = self.translate(before, meaning);
            self.entries.insert(key, meaning);
        }
    }

    /// Takes over what this has not itself.
    pub(super) fn add_missing(&mut self, mut before: Self) {
        for (key, meaning) in std::mem::take(&mut before.entries) {
            if !self.entries.contains_key(&key) {
                let meaning = self.translate(&before, meaning);
                self.entries.insert(key, meaning);
            }
        }
    }

    fn translate(&mut self, of: &Self, meaning: Meaning) -> Meaning {
        match meaning {
            Meaning::Pod(n) => Meaning::Pod(self.number_of(&of.nodes[n as usize])),
            other => other,
        }
    }

    pub(super) fn keys(&self) -> Vec<Box<str>> {
        self.entries.keys().cloned().collect()
    }

    /// Gives back what growing by doubling took too much.
    pub(super) fn shrink(&mut self) {
        self.entries.shrink_to_fit();
    }

    pub(super) fn memory(&self) -> usize {
        let slot = size_of::<(Box<str>, Meaning)>() + 1;
        let others: usize = self
            .entries
            .iter()
            .map(|(k, m)| {
                let extra = match m {
                    Meaning::Others(u) => u.len() * size_of::<Update>(),
                    _ => 0,
                };
                // Allocators round up to 16 bytes, and keep 8 of their own.
                (k.len() + 8).next_multiple_of(16) + extra
            })
            .sum();
        self.entries.capacity() * slot + others
    }
}

fn by_key(key: &str) -> Vec<Update> {
    // Deletion cannot be bad; if it were, nothing follows from the key.
    api::updates_for_key(key, None).unwrap_or_default()
}
