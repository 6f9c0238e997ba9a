//! Pools.

use super::Check;
use crate::error::Invalid;
use crate::kinds::pool::{IpPool, IpPoolSpec};
use net::{Cidr, Family};

const MODES: [&str; 3] = ["Never", "Always", "CrossSubnet"];

/// Ranges that belong to links, not to networks.
const LINK_LOCAL: [(&str, &str); 2] = [
    (
        "169.254.0.0/16",
        "IP pool range overlaps with IPv4 Link Local range 169.254.0.0/16",
    ),
    (
        "fe80::/10",
        "IP pool range overlaps with IPv6 Link Local range fe80::/10",
    ),
];

pub(super) fn check(c: &mut Check, s: &IpPoolSpec) {
    let cidr = cidr(c, s);
    if let Some(cidr) = cidr {
        block_size(c, s, cidr);
    }
    c.one_of("spec.ipipMode", &s.ipip_mode, &MODES);
    c.one_of("spec.vxlanMode", &s.vxlan_mode, &MODES);
    c.one_of(
        "spec.assignmentMode",
        &s.assignment_mode,
        &["Automatic", "Manual"],
    );
    c.selector("spec.nodeSelector", &s.node_selector);
    if !s.namespace_selector.is_empty() {
        c.selector("spec.namespaceSelector", &s.namespace_selector);
    }
    for (i, u) in s.allowed_uses.iter().enumerate() {
        let known = ["Workload", "Tunnel", "LoadBalancer"];
        if !known.contains(&u.as_str()) {
            let field = format!("spec.allowedUses[{i}]");
            c.fail(field, u, format!("must be one of {}", known.join(", ")));
        }
    }
    let on = |mode: &str| !matches!(mode, "" | "Never");
    let (ipip, vxlan) = (on(&s.ipip_mode), on(&s.vxlan_mode));
    if ipip && vxlan {
        c.fail(
            "spec.ipipMode",
            &s.ipip_mode,
            "ipipMode and vxlanMode cannot both be enabled",
        );
    }
    if ipip && cidr.is_some_and(|c| c.family() == Family::V6) {
        c.fail(
            "spec.ipipMode",
            &s.ipip_mode,
            "IPIP is not supported on an IPv6 IP pool",
        );
    }
    uses(c, s, ipip || vxlan);
}

fn cidr(c: &mut Check, s: &IpPoolSpec) -> Option<Cidr> {
    let Ok(cidr) = s.cidr.parse::<Cidr>() else {
        c.fail("spec.cidr", &s.cidr, "invalid CIDR");
        return None;
    };
    if Cidr::parse_strict(&s.cidr).is_err() {
        c.fail("spec.cidr", &s.cidr, "IPPool CIDR must be strictly masked");
    }
    for (range, reason) in LINK_LOCAL {
        if range.parse().is_ok_and(|r: Cidr| r.overlaps(cidr)) {
            c.fail("spec.cidr", &s.cidr, reason);
        }
    }
    Some(cidr)
}

fn block_size(c: &mut Check, s: &IpPoolSpec, cidr: Cidr) {
    let size = match s.block_size {
        None | Some(0) => i64::from(crate::convert::default_block_size(cidr.family())),
        Some(n) => n,
    };
    let (low, high) = match cidr.family() {
        Family::V4 => (20, 32),
        Family::V6 => (116, 128),
    };
    if !(low..=high).contains(&size) {
        let reason = format!(
            "block size must be between {low} and {high} for {}",
            cidr.family()
        );
        c.fail("spec.blockSize", size, reason);
    } else if !s.disabled && i64::from(cidr.len()) > size {
        let reason = "IP pool size is too small for use with Calico IPAM. It must be equal to or greater \
                      than the block size.";
        c.fail("spec.cidr", &s.cidr, reason);
    }
}

fn uses(c: &mut Check, s: &IpPoolSpec, encapsulated: bool) {
    let uses = |what| s.allowed_uses.iter().any(|u| u == what);
    let all = s.allowed_uses.join(",");
    if uses("LoadBalancer") {
        if encapsulated {
            c.fail(
                "spec.allowedUses",
                &all,
                "a LoadBalancer pool cannot have IPIP or VXLAN enabled",
            );
        }
        if uses("Workload") || uses("Tunnel") {
            c.fail(
                "spec.allowedUses",
                &all,
                "LoadBalancer cannot be combined with other uses",
            );
        }
        if s.disable_bgp_export {
            c.fail(
                "spec.disableBGPExport",
                true,
                "must be false on a LoadBalancer pool",
            );
        }
        if !matches!(s.node_selector.as_str(), "" | "all()") {
            c.fail(
                "spec.nodeSelector",
                &s.node_selector,
                "must be all() on a LoadBalancer pool",
            );
        }
    }
    if uses("Tunnel") && !s.namespace_selector.is_empty() {
        let reason = "cannot be set on a pool with the allowed use Tunnel";
        c.fail("spec.namespaceSelector", &s.namespace_selector, reason);
    }
}

pub(super) fn update(c: &mut Check, old: &IpPoolSpec, new: &IpPoolSpec) {
    let same = |a: &str, b: &str| match (a.parse::<Cidr>(), b.parse::<Cidr>()) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    };
    if !same(&old.cidr, &new.cidr) {
        c.fail("spec.cidr", &new.cidr, "IPPool CIDR cannot be modified");
    }
    let size = |s: &IpPoolSpec| {
        s.block_size.filter(|n| *n != 0).or_else(|| {
            let family = s.cidr.parse::<Cidr>().ok()?.family();
            Some(crate::convert::default_block_size(family).into())
        })
    };
    if size(old) != size(new) {
        let value = new.block_size.unwrap_or(0);
        c.fail(
            "spec.blockSize",
            value,
            "IPPool BlockSize cannot be modified",
        );
    }
}

/// Whether a new pool shares addresses with others; of several, each is named. A pool never
/// overlaps with the one of its own name.
pub fn pool_overlap<'a>(
    new: &IpPool,
    existing: impl IntoIterator<Item = &'a IpPool>,
) -> Option<Invalid> {
    let cidr: Cidr = new.spec.cidr.parse().ok()?;
    let mut c = Check::default();
    for old in existing {
        let other: Option<Cidr> = old.spec.cidr.parse().ok();
        if old.metadata.name != new.metadata.name && other.is_some_and(|o| o.overlaps(cidr)) {
            let reason = format!(
                "IPPool({}) CIDR overlaps with IPPool({}) CIDR {}",
                new.metadata.name, old.metadata.name, old.spec.cidr
            );
            c.fail("IPPool.Spec.CIDR", &new.spec.cidr, reason);
        }
    }
    c.finish().err()
}
