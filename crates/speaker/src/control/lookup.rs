//! Reading tables while they are in use.
//!
//! Promises: the speaker is held up for [`SHARE`] at a time and goes on in between, however large its
//! tables are; what comes and goes meanwhile may be told or not.

use super::Server;
use crate::engine::View;
use bgp::router::Router;
use net::{Cidr, Family};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// For so long the speaker does nothing else.
const SHARE: Duration = Duration::from_millis(5);
/// The clock is read after so many prefixes.
const STRIDE: usize = 16;

impl Server {
    /// Looks at every prefix with a path, in order, and hands on what `select` finds.
    pub(super) fn walk<T: Send + 'static>(
        &self,
        family: Family,
        select: impl Fn(&View<'_>, Cidr) -> Option<T> + Send + Sync + 'static,
        mut emit: impl FnMut(T) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut prefixes = Vec::new();
        let mut from = Some(0);
        while let Some(at) = from {
            let some = move |v: &View<'_>| some_prefixes(v, family, at);
            let (found, next) = self.speaker.look(some).map_err(Self::gone)?;
            prefixes.extend(found);
            from = next;
        }
        prefixes.sort_unstable();
        let (prefixes, select) = (Arc::new(prefixes), Arc::new(select));
        let mut at = 0;
        while at < prefixes.len() {
            let (all, select) = (prefixes.clone(), select.clone());
            let some = move |v: &View<'_>| {
                let begun = Instant::now();
                let mut found = Vec::new();
                let mut next = at;
                while next < all.len() {
                    found.extend(select(v, all[next]));
                    next += 1;
                    if next.is_multiple_of(STRIDE) && begun.elapsed() > SHARE {
                        break;
                    }
                }
                (next, found)
            };
            let (next, found) = self.speaker.look(some).map_err(Self::gone)?;
            found.into_iter().try_for_each(&mut emit)?;
            at = next;
        }
        Ok(())
    }
}

/// A share of the prefixes of a family, and where the next begins.
fn some_prefixes(v: &View<'_>, family: Family, from: u32) -> (Vec<Cidr>, Option<u32>) {
    let begun = Instant::now();
    let mut found = Vec::new();
    for (at, prefix) in v.router.into_iter().flat_map(|r| r.prefixes(family, from)) {
        if found.len() % 1024 == 1023 && begun.elapsed() > SHARE {
            return (found, Some(at));
        }
        found.push(prefix);
    }
    (found, None)
}

/// The longest prefix with a path that an address or a prefix lies in.
pub(super) fn covering(router: &Router, what: Cidr) -> Option<Cidr> {
    let at = |len| Cidr::new(what.addr(), len).filter(|p| router.best(*p).is_some());
    (0..=what.len()).rev().find_map(at)
}

/// An address or a prefix.
pub(super) fn parse(text: &str) -> Option<Cidr> {
    let addr = |t: &str| t.parse::<IpAddr>().ok().map(Cidr::host);
    text.parse().ok().or_else(|| addr(text))
}
