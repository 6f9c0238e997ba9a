//! The stacks in the table, and how many interfaces go through each.
//!
//! Promises: a stack is there while something goes through it.
//! Never: knows what is in a stack.

use crate::TableEdit;
use nftables::{Chain, ChainName};
use std::collections::BTreeMap;

#[derive(Debug)]
struct Stack {
    users: usize,
    /// All of its chains, the one to enter first.
    chains: Vec<ChainName>,
}

/// Stacks by the chain to enter.
#[derive(Debug, Default)]
pub(crate) struct Stacks(BTreeMap<ChainName, Stack>);

impl Stacks {
    /// One more goes through a stack, which is made if it is not there.
    pub(crate) fn enter(
        &mut self,
        first: &ChainName,
        make: impl FnOnce() -> Vec<(ChainName, Chain)>,
        out: &mut Vec<TableEdit>,
    ) {
        if let Some(s) = self.0.get_mut(first) {
            s.users += 1;
            return;
        }
        let made = make();
        let chains = made.iter().map(|(n, _)| n.clone()).collect();
        self.0.insert(first.clone(), Stack { users: 1, chains });
        out.extend(made.into_iter().map(|(n, c)| TableEdit::Chain(n, c)));
    }

    /// One less goes through a stack, which goes with the last.
    pub(crate) fn leave(&mut self, first: &ChainName, out: &mut Vec<TableEdit>) {
        let Some(s) = self.0.get_mut(first) else {
            return;
        };
        s.users -= 1;
        if s.users == 0
            && let Some(s) = self.0.remove(first)
        {
            out.extend(s.chains.into_iter().map(TableEdit::RemoveChain));
        }
    }

    /// All chains of a stack.
    pub(crate) fn chains(&self, first: &ChainName) -> &[ChainName] {
        self.0.get(first).map_or(&[], |s| &s.chains)
    }
}
