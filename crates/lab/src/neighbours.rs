//! The machine's tables of neighbours, which all namespaces share.
//!
//! Promises: says how often they were full while something ran. The kernel has one table of each family for
//! all namespaces (`net.ipv4.neigh.default.gc_thresh3`, 1024 entries unless set); whoever fills it, in
//! whatever namespace, takes new neighbours from all, and their packets are dropped in silence.
//!
//! Never: changes a setting of the machine.

use net::Family;
use std::fmt;
use std::fs;

/// How often each table has been full since the machine started; `None` where it cannot be seen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Neighbours([Option<u64>; 2]);

impl Neighbours {
    /// As the kernel counts now.
    pub(crate) fn now() -> Self {
        let of = |family| {
            let name = match family {
                Family::V4 => "arp_cache",
                Family::V6 => "ndisc_cache",
            };
            full(&fs::read_to_string(format!("/proc/net/stat/{name}")).ok()?)
        };
        Self(Family::BOTH.map(of))
    }

    /// What to tell of the time since, if a table was full.
    pub(crate) fn since(self) -> Option<Full> {
        let mut times = [0; 2];
        for ((now, before), n) in Self::now().0.into_iter().zip(self.0).zip(&mut times) {
            *n = now?.saturating_sub(before?);
        }
        (times != [0; 2]).then_some(Full(times))
    }
}

/// How often a table was full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full([u64; 2]);

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all = Family::BOTH.into_iter().zip(self.0).filter(|(_, n)| *n > 0);
        let Some((family, times)) = all.next() else {
            return Ok(());
        };
        let setting = match family {
            Family::V4 => "net.ipv4.neigh.default.gc_thresh3",
            Family::V6 => "net.ipv6.neigh.default.gc_thresh3",
        };
        write!(
            f,
            "the kernel's table of {family} neighbours was full {times} times meanwhile, and packets \
             were lost for that. It is one for all namespaces of the machine: something else fills it, \
             or {setting} is too small"
        )
    }
}

/// The sum over all processors of the last column that the kernel names `table_fulls`.
fn full(stat: &str) -> Option<u64> {
    let mut lines = stat.lines();
    let column = lines
        .next()?
        .split_whitespace()
        .position(|c| c == "table_fulls")?;
    let each = |line: &str| u64::from_str_radix(line.split_whitespace().nth(column)?, 16).ok();
    lines.map(each).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_counts_for_each_processor() {
        let stat = "entries  allocs   unresolved_discards table_fulls\n\
                    0000000f 0000bfb3 00000000            0003095d\n\
                    0000000f 0000affa 00000000            00025e94\n";
        assert_eq!(full(stat), Some(0x3095d + 0x25e94));
        assert_eq!(full("entries allocs\n0f 0f\n"), None);
        assert_eq!(full(""), None);
    }

    #[test]
    fn the_setting_is_named() {
        assert!(
            Full([3, 0])
                .to_string()
                .contains("IPv4 neighbours was full 3 times")
        );
        assert!(Full([0, 1]).to_string().contains("net.ipv6.neigh"));
    }
}
