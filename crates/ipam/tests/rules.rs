//! Each rule of assignment and release, through the public face, for both families where
//! the rule knows families.

#[allow(dead_code, reason = "each test uses its part")]
mod memory;

use ipam::{
    Affinity, AffinityRelease, AssignIp, Assigned, Assignment, AutoAssign, AutoAssigned, Block,
    Config, Error, Handle, IntendedUse, Ipam, Owner, Pool, Problem, Refusal, ReleaseArgs,
    ReleaseOption, Reservations,
};
use jiff::Timestamp;
use memory::{Memory, finish};
use net::{Cidr, Family};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

fn c(s: &str) -> Cidr {
    s.parse().expect("test CIDR")
}

fn a(s: &str) -> IpAddr {
    s.parse().expect("test address")
}

/// A cluster: change a field, then ask.
struct Lab {
    ipam: Ipam<Arc<Memory>>,
    pools: Vec<Pool>,
    reserved: Reservations,
    now: Timestamp,
    intended: IntendedUse,
    explicit: Option<Vec<String>>,
    max_blocks: Option<u32>,
    known: Vec<Cidr>,
}

/// A pool of a few small blocks of either family.
fn pool(family: Family, name: &str, third: u8, blocks: u8) -> Pool {
    match family {
        Family::V4 => Pool {
            block_size: 30,
            ..Pool::new(name, c(&format!("10.0.{third}.0/{}", 30 - blocks)))
        },
        Family::V6 => Pool {
            block_size: 126,
            ..Pool::new(name, c(&format!("fd00:{third}::/{}", 126 - blocks)))
        },
    }
}

fn lab(pools: Vec<Pool>) -> Lab {
    let now = "2026-01-01T00:00:00Z".parse().expect("time");
    Lab {
        ipam: Ipam::new(Arc::new(Memory::new(1, now))),
        pools,
        reserved: Reservations::default(),
        now,
        intended: IntendedUse::Workload,
        explicit: None,
        max_blocks: None,
        known: vec![],
    }
}

impl Lab {
    fn pass(&mut self, seconds: i64) {
        self.now += jiff::SignedDuration::from_secs(seconds);
        self.ipam.store().lock().now = self.now;
    }

    fn config(&self, config: Config) {
        self.ipam.store().lock().cooldown = i64::from(config.ip_cooldown_seconds);
        finish(self.ipam.set_config(&config)).expect("legal");
    }

    fn common<'a>(
        &'a self,
        owner: &'a Owner,
        handle: &'a str,
        attrs: &'a BTreeMap<String, String>,
    ) -> Assignment<'a> {
        let (pools, reservations) = (self.pools.as_slice(), &self.reserved);
        Assignment {
            handle,
            attrs,
            owner,
            pools,
            reservations,
            config: None,
            now: self.now,
        }
    }

    fn both(&self, host: &str, handle: &str, count_v4: usize, count_v6: usize) -> AutoAssigned {
        let owner = Owner::host(host);
        let attrs = BTreeMap::from([("node".to_owned(), host.to_owned())]);
        finish(self.ipam.auto_assign(&AutoAssign {
            common: self.common(&owner, handle, &attrs),
            count_v4,
            count_v6,
            pools_v4: self.explicit.as_deref(),
            pools_v6: self.explicit.as_deref(),
            intended_use: self.intended,
            max_blocks: self.max_blocks,
            known_blocks: &self.known,
            seed: 7,
        }))
    }

    /// Assigns in the family of the first pool.
    fn take(&self, host: &str, handle: &str, count: usize) -> (Vec<Assigned>, Option<Error>) {
        match self.pools[0].cidr.family() {
            Family::V4 => {
                let g = self.both(host, handle, count, 0).v4;
                (g.ips, g.error)
            }
            Family::V6 => {
                let g = self.both(host, handle, 0, count).v6;
                (g.ips, g.error)
            }
        }
    }

    fn exact(&self, host: &str, handle: &str, address: IpAddr) -> Result<Assigned, Error> {
        let owner = Owner::host(host);
        let attrs = BTreeMap::new();
        let common = self.common(&owner, handle, &attrs);
        finish(self.ipam.assign_ip(&AssignIp {
            common,
            address,
            intended_use: Some(self.intended),
        }))
    }

    fn args(&self) -> ReleaseArgs<'_> {
        ReleaseArgs {
            pools: &self.pools,
            config: None,
            now: self.now,
        }
    }

    fn drop_handle(&self, handle: &str) -> Result<Vec<IpAddr>, Error> {
        finish(self.ipam.release_by_handle(handle, &self.args()))
    }

    fn problems(&self) -> Vec<Problem> {
        finish(self.ipam.snapshot(self.now))
            .expect("listing")
            .check(&self.pools)
            .problems
    }
}

fn blocks_of(ips: &[Assigned]) -> Vec<Cidr> {
    let mut out: Vec<Cidr> = ips.iter().map(|i| i.block).collect();
    out.dedup();
    out
}

#[test]
fn a_host_fills_its_block_before_it_claims_another() {
    for f in Family::BOTH {
        let lab = lab(vec![pool(f, "p", 0, 3)]);
        let (first, _) = lab.take("n1", "h1", 2);
        let (second, _) = lab.take("n1", "h2", 2);
        let (third, _) = lab.take("n1", "h3", 1);
        assert_eq!(blocks_of(&first), blocks_of(&second));
        assert_ne!(blocks_of(&second), blocks_of(&third));
        let affinities = finish(lab.ipam.affinities(&Owner::host("n1"), f)).expect("listing");
        assert_eq!(affinities.len(), 2);
        assert_eq!(lab.problems(), []);
    }
}

#[test]
fn a_warm_assignment_costs_few_storage_calls() {
    let mut lab = lab(vec![pool(Family::V4, "p", 0, 3)]);
    let first = lab.take("n1", "h1", 1).0[0];
    let count = |lab: &Lab, handle| {
        lab.ipam.store().count_calls();
        assert!(lab.take("n1", handle, 1).1.is_none());
        lab.ipam.store().count_calls()
    };
    // Configuration, affinities, block, handle, block.
    assert_eq!(count(&lab, "h2"), 5);
    // Configuration, block, handle, block.
    lab.known = vec![first.block];
    assert_eq!(count(&lab, "h3"), 4);
    lab.ipam.store().count_calls();
    let config = Config::default();
    let args = ReleaseArgs {
        config: Some(&config),
        ..lab.args()
    };
    assert_eq!(
        finish(lab.ipam.release_by_handle("h3", &args)).map(|v| v.len()),
        Ok(1)
    );
    assert_eq!(lab.ipam.store().count_calls(), 4);
}

#[test]
fn without_strict_affinity_full_hosts_borrow_and_with_it_they_do_not() {
    for f in Family::BOTH {
        for strict in [false, true] {
            let lab = lab(vec![pool(f, "p", 0, 1)]);
            lab.config(Config {
                strict_affinity: strict,
                ..Config::default()
            });
            lab.take("n1", "h1", 3);
            assert_eq!(lab.take("n2", "h2", 4).0.len(), 4);
            let (ips, error) = lab.take("n2", "h3", 2);
            let borrowed = finish(lab.ipam.snapshot(lab.now))
                .expect("listing")
                .borrowed();
            let got = usize::from(!strict);
            assert_eq!((ips.len(), borrowed.len()), (got, got));
            let error = error.expect("the pool has seven").to_string();
            let says = format!(
                "Assigned {got} out of 2 requested {f} addresses; No IPs available in pools: ["
            );
            assert!(error.starts_with(&says), "{error}");
            assert_eq!(lab.problems(), []);
        }
    }
}

#[test]
fn the_block_limit_stops_claims_and_borrowing() {
    let mut lab = lab(vec![pool(Family::V4, "p", 0, 4)]);
    lab.take("n2", "other", 1);
    lab.max_blocks = Some(2);
    let (ips, error) = lab.take("n1", "h", 10);
    assert_eq!(ips.len(), 8);
    let error = error.expect("limited");
    assert!(
        matches!(
            error,
            Error::BlockLimit {
                owned: 2,
                limit: 2,
                ..
            }
        ),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .starts_with("cannot allocate new block due to per host block limit")
    );
    lab.max_blocks = None;
    lab.config(Config {
        strict_affinity: true,
        max_blocks_per_host: 3,
        ..Config::default()
    });
    assert_eq!(lab.take("n1", "h2", 10).0.len(), 4);
}

#[test]
fn twenty_blocks_is_the_limit_that_nobody_set() {
    let lab = lab(vec![pool(Family::V4, "p", 0, 6)]);
    assert_eq!(lab.take("n1", "h", 100).0.len(), 80);
}

#[test]
fn without_auto_allocation_only_claimed_blocks_serve() {
    let lab = lab(vec![pool(Family::V6, "p", 0, 3)]);
    lab.config(Config {
        strict_affinity: true,
        auto_allocate_blocks: false,
        ..Config::default()
    });
    assert!(lab.take("n1", "h", 1).0.is_empty());
    let block = lab.pools[0].cidr.subnet(126, 3).expect("inside");
    assert_eq!(
        finish(lab.ipam.claim_affinity(&Owner::host("n1"), block, lab.now)),
        Ok(true)
    );
    assert_eq!(
        finish(lab.ipam.claim_affinity(&Owner::host("n2"), block, lab.now)),
        Ok(false)
    );
    let (ips, _) = lab.take("n1", "h", 5);
    assert_eq!((ips.len(), blocks_of(&ips)), (4, vec![block]));
}

#[test]
fn reserved_addresses_and_blocks_are_never_given_out() {
    for f in Family::BOTH {
        let mut lab = lab(vec![pool(f, "p", 0, 2)]);
        let cidr = lab.pools[0].cidr;
        let at = |i| cidr.nth(i).expect("inside");
        // All of the first block, in halves, and one address of the second.
        let half = Cidr::new(at(0), f.bits() - 1).expect("fits");
        let other = Cidr::new(at(2), f.bits() - 1).expect("fits");
        lab.reserved = Reservations::new([half, other, Cidr::host(at(5))]);
        let (ips, error) = lab.take("n1", "h", 16);
        assert_eq!(ips.len(), 11);
        assert!(ips.iter().all(|i| !lab.reserved.contains(i.address)) && error.is_some());
        let all = finish(lab.ipam.snapshot(lab.now)).expect("listing");
        let u = &all.usage(&lab.pools, &lab.reserved)[0];
        assert_eq!(
            (u.total, u.in_use, u.reserved, u.free, u.blocks.len()),
            (16, 11, 5, 0, 3)
        );
        // Asking for one by name is the operator's right.
        assert!(lab.exact("n1", "x", at(5)).is_ok());
    }
}

#[test]
fn pools_are_chosen_by_selector_use_and_name() {
    let f = Family::V4;
    let mut lab = lab(vec![
        pool(f, "z", 0, 1),
        pool(f, "m", 1, 1),
        pool(f, "a", 2, 1),
    ]);
    lab.pools[2].node_selected = false;
    assert!(
        lab.pools[1]
            .cidr
            .contains(lab.take("n1", "h1", 1).0[0].address)
    );

    for (spoil, refusal) in [
        ((|p| p.disabled = true) as fn(&mut Pool), Refusal::Disabled),
        (|p| p.deleting = true, Refusal::Deleting),
        (|p| p.allocatable = false, Refusal::NotAllocatable),
        (|p| p.assignment_automatic = false, Refusal::Manual),
        (|p| p.node_selected = false, Refusal::NodeSelector),
        (|p| p.namespace_selected = false, Refusal::NamespaceSelector),
        (
            |p| p.allowed_uses = vec![IntendedUse::Tunnel],
            Refusal::Use(IntendedUse::Workload),
        ),
        (|p| p.block_size = 19, Refusal::BlockSize),
    ] {
        let mut one = self::lab(vec![pool(f, "only", 0, 1)]);
        spoil(&mut one.pools[0]);
        let error = one.take("n1", "h", 1).1.expect("refused");
        let Error::NoPools { refused, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!(refused[0].refusal, refusal);
        assert!(
            error
                .to_string()
                .starts_with("no configured Calico pools for node n1"),
            "{error}"
        );
        // By name, only selectors and assignment mode are passed over.
        one.explicit = Some(vec!["only".into()]);
        let (ips, error) = one.take("n1", "h", 1);
        match refusal {
            Refusal::Manual | Refusal::NodeSelector | Refusal::NamespaceSelector => {
                assert_eq!(ips.len(), 1)
            }
            _ => assert!(
                matches!(error, Some(Error::UnusablePool { reason, .. }) if reason == refusal)
            ),
        }
    }
}

#[test]
fn explicit_pools_are_used_in_their_order() {
    let f = Family::V6;
    let mut lab = lab(vec![
        pool(f, "a", 0, 0),
        pool(f, "b", 1, 0),
        pool(f, "c", 2, 0),
    ]);
    lab.explicit = Some(vec![lab.pools[2].cidr.to_string(), "a".into()]);
    let (ips, error) = lab.take("n1", "h", 9);
    assert_eq!(blocks_of(&ips), [lab.pools[2].cidr, lab.pools[0].cidr]);
    assert!(matches!(error, Some(Error::Exhausted { .. })));
    lab.explicit = Some(vec!["nope".into()]);
    let error = lab.take("n1", "h", 1).1.expect("unknown").to_string();
    assert!(
        error.starts_with("the given pool (nope) does not exist"),
        "{error}"
    );
}

#[test]
fn tunnels_take_from_pools_for_tunnels() {
    let f = Family::V4;
    let mut lab = lab(vec![pool(f, "a", 0, 1), pool(f, "b", 1, 1)]);
    lab.pools[0].allowed_uses = vec![IntendedUse::Workload];
    lab.intended = IntendedUse::Tunnel;
    let (ips, _) = lab.take("n1", "vxlan-tunnel-addr-n1", 1);
    assert!(lab.pools[1].cidr.contains(ips[0].address));
    let refused = lab.exact("n1", "x", lab.pools[0].cidr.addr());
    assert!(matches!(refused, Err(Error::UnusablePool { .. })));
}

#[test]
fn an_address_by_name() {
    for f in Family::BOTH {
        let mut lab = lab(vec![pool(f, "p", 0, 2)]);
        let ip = lab.pools[0].cidr.nth(6).expect("inside");
        // Neither the limit nor auto-allocation holds it back.
        lab.max_blocks = Some(1);
        lab.config(Config {
            strict_affinity: true,
            auto_allocate_blocks: false,
            ..Config::default()
        });
        let got = lab.exact("n1", "h1", ip).expect("free");
        assert_eq!((got.address, got.block.contains(ip)), (ip, true));
        let next = lab.pools[0].cidr.nth(7).expect("inside");
        assert!(matches!(
            lab.exact("n2", "h2", next),
            Err(Error::NotOwner { .. })
        ));
        lab.config(Config::default());
        assert!(lab.exact("n2", "h2", next).is_ok());
        let e = lab.exact("n1", "h1", ip).expect_err("in use").to_string();
        assert_eq!(e, format!("address {ip} is already assigned to h1"));
        let e = lab
            .exact("n1", "h1", a("192.0.2.1"))
            .expect_err("no pool")
            .to_string();
        assert_eq!(
            e,
            "the provided IP address 192.0.2.1 is not in a configured pool"
        );
        let (attribute, assigned) =
            finish(lab.ipam.assignment_attributes(ip, &[])).expect("assigned");
        assert_eq!((attribute.handle(), assigned), (Some("h1"), got));
        assert_eq!(lab.problems(), []);
    }
}

#[test]
fn cool_down_outlasts_release_and_owner() {
    for f in Family::BOTH {
        let mut lab = lab(vec![pool(f, "p", 0, 0)]);
        lab.config(Config {
            ip_cooldown_seconds: 60,
            ..Config::default()
        });
        lab.take("n1", "h", 4);
        assert_eq!(lab.drop_handle("h").map(|v| v.len()), Ok(4));
        lab.pass(59);
        assert!(lab.take("n1", "h2", 1).0.is_empty());
        // The node goes; what it freed still rests, on any node.
        let gone = finish(
            lab.ipam
                .release_host_affinities(&Owner::host("n1"), lab.now),
        )
        .expect("listing");
        assert_eq!(gone, [(lab.pools[0].cidr, Ok(AffinityRelease::Disowned))]);
        assert!(lab.take("n2", "h2", 1).0.is_empty());
        lab.pass(1);
        assert_eq!(lab.take("n2", "h2", 4).0.len(), 4);
        assert_eq!(lab.problems(), []);
    }
}

#[test]
fn an_unused_block_of_another_is_taken_over_after_a_minute() {
    let mut lab = lab(vec![pool(Family::V4, "p", 0, 0)]);
    lab.config(Config {
        strict_affinity: true,
        ..Config::default()
    });
    lab.take("n1", "h", 1);
    lab.drop_handle("h").expect("held");
    lab.pass(59);
    assert!(lab.take("n2", "h2", 1).0.is_empty());
    lab.pass(1);
    assert_eq!(lab.take("n2", "h2", 1).0.len(), 1);
    assert_eq!(
        finish(lab.ipam.affinities(&Owner::host("n1"), Family::V4)),
        Ok(vec![])
    );
    assert_eq!(lab.problems(), []);
    // In use, it stays.
    lab.pass(1000);
    assert!(lab.take("n1", "h3", 1).0.is_empty());
}

#[test]
fn blocks_of_one_address_work_for_both_families() {
    for f in Family::BOTH {
        let host = f.bits();
        let cidr = Cidr::new(pool(f, "p", 0, 0).cidr.addr(), host - 2).expect("fits");
        let lab = lab(vec![Pool {
            block_size: host,
            ..Pool::new("p", cidr)
        }]);
        assert_eq!(lab.take("n1", "h1", 3).0.len(), 3);
        assert_eq!(lab.take("n2", "h2", 3).0.len(), 1);
        lab.drop_handle("h1").expect("held");
        assert_eq!(lab.take("n2", "h3", 3).0.len(), 3);
        assert_eq!(lab.problems(), []);
    }
}

#[test]
fn half_of_a_dual_stack_request_can_be_undone() {
    let lab = lab(vec![
        pool(Family::V4, "p4", 0, 1),
        pool(Family::V6, "p6", 0, 0),
    ]);
    assert_eq!(lab.both("n1", "other", 0, 4).v6.ips.len(), 4);
    let got = lab.both("n1", "h", 1, 1);
    assert!(got.v4.is_complete() && !got.v6.is_complete() && got.v6.error.is_some());
    let undone = finish(lab.ipam.undo(&got, "h", &lab.args())).expect("store works");
    assert_eq!((undone.freed.len(), undone.failed.len()), (1, 0));
    assert_eq!(lab.drop_handle("h"), Err(Error::UnknownHandle("h".into())));
    // A second undo must not free what a later holder has.
    let again = lab
        .exact("n1", "later", got.v4.ips[0].address)
        .expect("free");
    let undone = finish(lab.ipam.undo(&got, "h", &lab.args())).expect("store works");
    assert!(undone.freed.is_empty() && undone.failed.len() == 1);
    assert_eq!(finish(lab.ipam.ips_by_handle("later")), Ok(vec![again]));
}

#[test]
fn release_reports_each_address_and_keeps_handles_right() {
    let lab = lab(vec![pool(Family::V4, "p", 0, 2)]);
    let (ips, _) = lab.take("n1", "h", 3);
    let any = |i: usize| ReleaseOption::any(ips[i].address);
    let wrong = ReleaseOption {
        handle: Some("other".into()),
        ..any(1)
    };
    let free = ReleaseOption::any(a("10.0.0.15"));
    let out =
        finish(lab.ipam.release_ips(&[any(0), any(0), free], &lab.args())).expect("store works");
    assert_eq!(
        (out.freed.len(), out.unallocated, out.failed),
        (1, vec![a("10.0.0.15")], vec![])
    );
    let out = finish(lab.ipam.release_ips(&[any(2), wrong], &lab.args())).expect("store works");
    assert!(out.freed.is_empty() && matches!(out.failed[0].1, Error::BadHandle { .. }));
    let h = lab.ipam.store().json(&Handle::key("h")).expect("still two");
    assert_eq!(h["block"][ips[0].block.to_string()], 2);
    lab.drop_handle("h\r\neth0").expect("held");
    assert_eq!(lab.ipam.store().json(&Handle::key("h")), None);
}

#[test]
fn a_pool_that_no_longer_selects_the_node_gets_its_empty_block_back() {
    let f = Family::V4;
    let mut lab = lab(vec![pool(f, "a", 0, 1), pool(f, "b", 1, 1)]);
    lab.take("n1", "h1", 1);
    lab.pools[0].node_selected = false;
    lab.take("n1", "h2", 1);
    assert_eq!(
        finish(lab.ipam.affinities(&Owner::host("n1"), f))
            .expect("listing")
            .len(),
        2
    );
    lab.drop_handle("h1").expect("held");
    lab.take("n1", "h3", 4);
    let left = finish(lab.ipam.affinities(&Owner::host("n1"), f)).expect("listing");
    assert!(
        left.iter().all(|(b, _)| lab.pools[1].cidr.covers(*b)),
        "{left:?}"
    );
}

#[test]
fn a_deleted_pool_takes_its_unused_blocks_along() {
    let mut lab = lab(vec![pool(Family::V4, "p", 0, 2)]);
    lab.config(Config {
        ip_cooldown_seconds: 600,
        ..Config::default()
    });
    lab.take("n1", "h1", 4);
    lab.take("n1", "h2", 1);
    lab.take("n2", "h3", 1);
    lab.drop_handle("h1").expect("held");
    lab.drop_handle("h3").expect("held");
    finish(
        lab.ipam
            .release_affinity(&Owner::host("n1"), lab.pools[0].cidr, true, lab.now),
    )
    .expect("absent");
    lab.ipam.store().lock().forgetting = true;
    finish(lab.ipam.release_pool_affinities(lab.pools[0].cidr)).expect("listing");
    let all = finish(lab.ipam.snapshot(lab.now)).expect("listing");
    assert_eq!((all.blocks.len(), all.affinities.len()), (1, 0));
    lab.pass(600);
    lab.drop_handle("h2").expect("held");
    lab.pass(600);
    assert_eq!(
        finish(lab.ipam.collect_ownerless(lab.now)).map(|v| v.len()),
        Ok(1)
    );
}

#[test]
fn blocks_of_another_size_are_never_claimed_over() {
    let mut lab = lab(vec![pool(Family::V4, "p", 0, 1)]);
    let (ips, _) = lab.take("n1", "h", 4);
    // The pool is made anew, with blocks half the size.
    lab.pools[0].block_size = 31;
    let (more, _) = lab.take("n2", "h2", 8);
    assert_eq!(more.len(), 4);
    assert!(more.iter().all(|m| !ips[0].block.contains(m.address)));
    assert!(matches!(
        lab.exact("n2", "h3", ips[3].address),
        Err(Error::InUse { .. })
    ));
    let out = finish(
        lab.ipam
            .release_ips(&[ReleaseOption::any(ips[3].address)], &lab.args()),
    );
    assert_eq!(out.expect("store works").freed, [ips[3].address]);
}

#[test]
fn what_others_left_half_done_is_finished() {
    let lab = lab(vec![pool(Family::V4, "p", 0, 0)]);
    let store = lab.ipam.store();
    store.lock().contradictory = true;
    let cidr = lab.pools[0].cidr;
    // Tombstones, a claim of unknown progress, and a handle that counts what is not there.
    let n1 = Owner::host("n1");
    let dead = Block::new(cidr, &Owner::host("n0"), lab.now, 0)
        .expect("small")
        .encode();
    let dead = String::from_utf8(dead)
        .expect("UTF-8")
        .replace("\"deleted\":false", "\"deleted\":true");
    store.put(&Block::key(cidr), &dead);
    store.put(
        &Affinity::key(&Owner::host("n0"), cidr),
        r#"{"state":"confirmed","deleted":"true"}"#,
    );
    store.put(&Affinity::key(&n1, cidr), "garbage");
    store.put(
        &Handle::key("h"),
        &format!(r#"{{"block":{{"{cidr}":3,"odd":1}},"deleted":true}}"#),
    );
    store.put(
        &Handle::key("crashed"),
        &format!(r#"{{"block":{{"{cidr}":3}},"deleted":false}}"#),
    );
    assert_eq!(lab.take("n1", "h", 1).0.len(), 1);
    let id = "crashed".to_owned();
    assert!(
        matches!(&lab.problems()[..], [Problem::LeakedHandle { id: found, .. }] if *found == id)
    );
    assert_eq!(lab.drop_handle("crashed"), Ok(vec![]));
    assert_eq!(lab.problems(), []);
}

#[test]
fn one_malformed_block_stops_nobody() {
    let lab = lab(vec![pool(Family::V4, "p", 0, 1)]);
    let bad = lab.pools[0].cidr.subnet(30, 0).expect("inside");
    let store = lab.ipam.store();
    store.put(
        &Block::key(bad),
        r#"{"cidr":"10.0.0.0/30","allocations":[7]}"#,
    );
    store.put(&Affinity::key(&Owner::host("n1"), bad), "");
    let (ips, error) = lab.take("n1", "h", 5);
    assert_eq!(
        (ips.len(), ips.iter().any(|i| bad.contains(i.address))),
        (4, false)
    );
    assert!(error.is_some());
    assert!(
        lab.problems()
            .iter()
            .any(|p| matches!(p, Problem::Malformed { .. }))
    );
    assert!(matches!(
        lab.exact("n1", "x", bad.addr()),
        Err(Error::BadObject { .. })
    ));
}

#[test]
fn the_check_names_what_contradicts() {
    let lab = lab(vec![pool(Family::V4, "p", 0, 1)]);
    let (ips, _) = lab.take("n1", "h", 1);
    let block = ips[0].block;
    let other = if block == c("10.0.0.0/30") {
        c("10.0.0.4/30")
    } else {
        c("10.0.0.0/30")
    };
    let n2 = Owner::host("n2");
    let store = lab.ipam.store();
    store.lock().contradictory = true;
    store.put(&Affinity::key(&n2, block), r#"{"state":"confirmed"}"#);
    store.put(&Affinity::key(&n2, other), r#"{"state":"pending"}"#);
    store.put(&Handle::key("h"), r#"{"block":{}}"#);
    let got = lab.problems();
    assert!(
        got.contains(&Problem::UnderCount {
            id: "h".into(),
            block,
            counted: 0,
            real: 1
        }),
        "{got:?}"
    );
    assert!(got.contains(&Problem::Unfinished {
        owner: n2.clone(),
        cidr: other
    }));
    assert!(
        got.iter()
            .any(|p| matches!(p, Problem::WrongOwner { owner, .. } if *owner == n2))
    );
    // The owner's next request clears both up.
    lab.take("n2", "x", 1);
    assert!(
        !lab.problems()
            .iter()
            .any(|p| matches!(p, Problem::WrongOwner { .. } | Problem::Unfinished { .. }))
    );
}

#[test]
fn names_that_cannot_be_keys_are_refused() {
    let lab = lab(vec![pool(Family::V4, "p", 0, 1)]);
    for (host, handle) in [
        ("", "h"),
        ("a/b", "h"),
        ("n", ""),
        ("n", "x/y"),
        ("n", "\r\n"),
    ] {
        assert!(
            matches!(lab.take(host, handle, 1).1, Some(Error::InvalidName { .. })),
            "{host:?} {handle:?}"
        );
    }
    assert!(lab.ipam.store().keys().is_empty());
}

#[test]
fn illegal_configurations_are_refused_and_defaults_never_stored() {
    let lab = lab(vec![]);
    assert_eq!(finish(lab.ipam.config()), Ok(Config::default()));
    assert!(lab.ipam.store().keys().is_empty());
    let bad = Config {
        auto_allocate_blocks: false,
        ..Config::default()
    };
    assert!(matches!(
        finish(lab.ipam.set_config(&bad)),
        Err(Error::InvalidConfig(_))
    ));
    let good = Config {
        strict_affinity: true,
        max_blocks_per_host: 4,
        ..Config::default()
    };
    lab.config(good.clone());
    assert_eq!(finish(lab.ipam.config()), Ok(good));
}
