//! In which order a host looks at the blocks of a pool.
//!
//! Hosts start at different places, so that they rarely want the same block; from there
//! each goes once around. Only the spread matters: compare-and-swap decides.

use crate::pool::Pool;
use crate::reserved::Reservations;
use net::{Cidr, Family};

/// 64-bit FNV-1a, mixed so that near names start far apart.
fn hash(parts: &[&[u8]]) -> u64 {
    let mut h = 0xcbf2_9ce4_8422_2325_u64;
    for b in parts.iter().flat_map(|p| p.iter()) {
        h = (h ^ u64::from(*b)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    h = (h ^ (h >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    h = (h ^ (h >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    h ^ (h >> 31)
}

/// Where `host` starts in a pool. Blocks of one address have no better owner, so there the
/// start differs from request to request, by `seed`.
pub(super) fn start(pool: &Pool, host: &str, seed: u64) -> u128 {
    let n = pool.cidr.subnets(pool.block_size).max(1);
    let h = if pool.block_size == pool.cidr.family().bits() {
        hash(&[&seed.to_le_bytes()])
    } else {
        hash(&[host.as_bytes()])
    };
    // Spread over pools with more than 2^64 blocks too.
    (u128::from(h) << 64 | u128::from(h.rotate_left(32))) % n
}

/// How far `cidr` is from the start of the walk; blocks sorted by it are in walking order.
pub(super) fn distance(pool: &Pool, start: u128, cidr: Cidr) -> u128 {
    let n = pool.cidr.subnets(pool.block_size).max(1);
    let i = index(pool, cidr);
    if i >= start {
        i - start
    } else {
        n - (start - i)
    }
}

fn index(pool: &Pool, cidr: Cidr) -> u128 {
    let shift = u32::from(pool.cidr.family().bits() - pool.block_size);
    let offset = pool.cidr.offset_of(cidr.addr()).unwrap_or(0);
    offset.checked_shr(shift).unwrap_or(0)
}

/// The first block from `start` on, once around, that is neither wholly reserved nor taken.
/// Reserved stretches are jumped over, so the work is in proportion to the blocks taken.
pub(super) fn first_free(
    pool: &Pool,
    start: u128,
    reserved: &Reservations,
    taken: impl Fn(Cidr) -> bool,
) -> Option<Cidr> {
    let n = pool.cidr.subnets(pool.block_size);
    let scan = |from: u128, to: u128| {
        let mut i = from;
        while i < to {
            let c = pool.cidr.subnet(pool.block_size, i)?;
            match reserved.covering_end(c) {
                Some(end) if Family::bits_of(end) >= Family::bits_of(pool.cidr.last()) => {
                    return None;
                }
                Some(end) => {
                    // The block in which the reserved stretch ends may have room behind it.
                    let end_block = index(pool, Cidr::host(end));
                    i = end_block.max(i + 1);
                }
                None if taken(c) => i += 1,
                None => return Some(c),
            }
        }
        None
    };
    scan(start, n).or_else(|| scan(0, start))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn c(s: &str) -> Cidr {
        s.parse().expect("test CIDR")
    }

    #[test]
    fn goes_once_around_and_jumps_over_reserved_stretches() {
        let pool = Pool::new("p", c("10.0.0.0/24"));
        let none = Reservations::default();
        let mut taken = vec![];
        while let Some(b) = first_free(&pool, 2, &none, |c| taken.contains(&c)) {
            taken.push(b);
        }
        let want: Vec<Cidr> = [
            "10.0.0.128/26",
            "10.0.0.192/26",
            "10.0.0.0/26",
            "10.0.0.64/26",
        ]
        .map(c)
        .to_vec();
        assert_eq!(taken, want);
        taken.sort_by_key(|b| distance(&pool, 2, *b));
        assert_eq!(taken, want);

        let huge = Pool::new("p6", c("fd00::/40"));
        let most = Reservations::new([c("fd00::/41")]);
        assert_eq!(
            first_free(&huge, 5, &most, |_| false),
            Some(c("fd00:0:80::/122"))
        );
        let part = Reservations::new([c("10.0.0.128/27"), c("10.0.0.0/25")]);
        assert_eq!(
            first_free(&pool, 0, &part, |_| false),
            Some(c("10.0.0.128/26"))
        );
        assert_eq!(
            first_free(&pool, 3, &Reservations::new([c("10.0.0.0/8")]), |_| false),
            None
        );
    }

    #[test]
    fn hosts_start_apart_and_single_addresses_by_seed() {
        let pool = Pool::new("p", c("10.0.0.0/16"));
        let starts: std::collections::BTreeSet<u128> = (0..100)
            .map(|i| start(&pool, &format!("node-{i}"), 0))
            .collect();
        assert!(starts.len() > 85, "{}", starts.len());
        let single = Pool {
            block_size: 32,
            ..pool
        };
        assert_ne!(start(&single, "n", 1), start(&single, "n", 2));
    }
}
