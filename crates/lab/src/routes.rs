//! Routes as `ip route` prints them.
//!
//! Promises: one line a route, in the kernel's order of destinations.
//!
//! Never: reads or changes them.

use net::{Family, IfIndex};
use route::{Kind, METRIC_V6, Proto, Route, Scope};
use std::collections::HashMap;
use std::fmt::Write;

/// The lines, with `names` for the interfaces.
pub(crate) fn lines(mut routes: Vec<Route>, names: &HashMap<IfIndex, String>) -> Vec<String> {
    routes.sort_by_key(|r| (r.family(), r.key.dst.len() != 0, r.key.dst, r.key.metric));
    routes.iter().map(|r| line(r, names)).collect()
}

fn line(r: &Route, names: &HashMap<IfIndex, String>) -> String {
    let mut s = String::new();
    match r.kind {
        Kind::Unicast => {}
        Kind::Local => s.push_str("local "),
        Kind::Blackhole => s.push_str("blackhole "),
        Kind::Unreachable => s.push_str("unreachable "),
        Kind::Prohibit => s.push_str("prohibit "),
        Kind::Throw => s.push_str("throw "),
        Kind::Other(n) => _ = write!(s, "type-{n} "),
    }
    let dst = r.key.dst;
    if dst.len() == 0 {
        s.push_str("default");
    } else if dst.is_host() {
        _ = write!(s, "{}", dst.addr());
    } else {
        _ = write!(s, "{dst}");
    }
    for hop in &r.hops {
        if r.hops.len() > 1 {
            s.push_str(" nexthop");
        }
        if let Some(gateway) = hop.gateway {
            _ = write!(s, " via {gateway}");
        }
        if let Some(dev) = hop.dev {
            let unknown = format!("if{dev}");
            _ = write!(s, " dev {}", names.get(&dev).unwrap_or(&unknown));
        }
        if hop.onlink {
            s.push_str(" onlink");
        }
    }
    match r.proto {
        // What `ip` leaves out, too.
        Proto::BOOT => {}
        Proto::KERNEL => s.push_str(" proto kernel"),
        Proto::STATIC => s.push_str(" proto static"),
        Proto::BIRD => s.push_str(" proto bird"),
        Proto(n) => _ = write!(s, " proto {n}"),
    }
    match r.scope {
        Scope::Link => s.push_str(" scope link"),
        Scope::Host => s.push_str(" scope host"),
        _ => {}
    }
    if let Some(src) = r.src {
        _ = write!(s, " src {src}");
    }
    if r.key.metric != 0 && !(r.family() == Family::V6 && r.key.metric == METRIC_V6) {
        _ = write!(s, " metric {}", r.key.metric);
    }
    s
}

#[cfg(test)]
mod tests {
    use super::*;
    use route::{Hop, Table};

    #[test]
    fn as_ip_route_shows_them() {
        let eth0 = IfIndex::new(2).unwrap();
        let vxlan = IfIndex::new(3).unwrap();
        let names = HashMap::from([
            (eth0, "eth0".to_owned()),
            (vxlan, "vxlan.calico".to_owned()),
        ]);
        let main = Table::MAIN;
        let c = |s: &str| s.parse().unwrap();
        let a = |s: &str| s.parse().unwrap();
        let routes = vec![
            Route::dead_end(main, c("10.233.64.0/24"), Kind::Blackhole, Proto::OURS),
            Route::unicast(
                main,
                c("10.233.65.0/24"),
                Hop::onlink(a("10.233.65.0"), vxlan),
                Proto::OURS,
            ),
            Route::unicast(main, c("10.233.64.5/32"), Hop::dev(vxlan), Proto::BOOT),
            Route::unicast(
                main,
                c("0.0.0.0/0"),
                Hop::via(a("172.18.0.1"), eth0),
                Proto::STATIC,
            ),
        ];
        assert_eq!(
            lines(routes, &names),
            [
                "default via 172.18.0.1 dev eth0 proto static",
                "blackhole 10.233.64.0/24 proto 80",
                "10.233.64.5 dev vxlan.calico scope link",
                "10.233.65.0/24 via 10.233.65.0 dev vxlan.calico onlink proto 80",
            ]
        );
    }
}
