//! Waiting until every node enforces what is stored.
//!
//! Promises: when it says so, each agent has programmed all that was stored before a marker: the
//! marker is a disabled pool, whose range shows up in the agent's table like any pool's, and
//! agents take changes in the order of the store.
//!
//! Never: takes the agent's word: it reads the kernel.

use crate::holder::node::Node;
use net::Cidr;
use nftables::{Element, Sys, TableName};
use std::sync::Arc;
use std::time::Instant;

/// The agent's table.
const TABLE: &str = "manx";

/// Waits until all nodes have the marker's range, or gives the names of those that have not by
/// the deadline.
pub(super) fn wait(nodes: &[Arc<Node>], marker: Cidr, deadline: Instant) -> Vec<String> {
    std::thread::scope(|s| {
        let asked: Vec<_> = nodes
            .iter()
            .map(|n| s.spawn(move || (n.name.clone(), has(n, marker, deadline))))
            .collect();
        let answers = asked.into_iter().filter_map(|t| t.join().ok());
        answers
            .filter_map(|(name, done)| match done {
                Ok(true) => None,
                Ok(false) => Some(name),
                Err(e) => Some(format!("{name} ({e})")),
            })
            .collect()
    })
}

fn has(node: &Node, marker: Cidr, deadline: Instant) -> Result<bool, String> {
    let table = TableName::new(TABLE).map_err(|e| e.to_string())?;
    let opened = node.ns.run(|| Sys::open(table));
    let mut sys = opened
        .and_then(std::convert::identity)
        .map_err(|e| e.to_string())?;
    loop {
        let dump = sys.read().map_err(|e| e.to_string())?;
        let of_pools = dump
            .sets
            .iter()
            .filter(|(n, _)| n.starts_with("nat-exclude"));
        let covers = |e: Element| matches!(e, Element::Net(n) if n.covers(marker));
        if of_pools
            .into_iter()
            .flat_map(|(_, s)| s.elements.iter())
            .any(covers)
        {
            return Ok(true);
        }
        // An agent that keeps no table will not show anything later either.
        let nothing = !dump.awake && dump.chains.is_empty();
        if nothing || Instant::now() >= deadline {
            return Ok(false);
        }
        sys.changed_by(deadline).map_err(|e| e.to_string())?;
    }
}
