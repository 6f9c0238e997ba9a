//! What people read.

use crate::support::*;
use model::{PolicyKind, ServiceRef};

#[test]
fn a_denied_flow_in_short() {
    let mut c = Cluster::new();
    let mut r = to_port("5432");
    r.source.selector = Some(selector("app == 'back'"));
    r.annotations = vec![("name".into(), "back end".into())];
    c.put(
        PolicyKind::NetworkPolicy,
        "shop/db",
        policy("app == 'db'", Some(vec![r]), None),
    );
    let e = c.denies("shop/front", "shop/db", 5432);
    assert_eq!(e.to_string(), "\
deny: pod shop/front (10.0.1.11) -> 10.0.2.21, TCP 5432
  on n1: egress of pod shop/front: no policy decides; profile kns.shop rule 0 allows it
  on n2: ingress to pod shop/db: no policy of tier default allows it: NetworkPolicy(shop/db)
    to change this: rule 0 of NetworkPolicy(shop/db) would allow it but for shop/front: not app == \"back\": its label app is \"front\"
    or: in NetworkPolicy(shop/db): ingress rule Allow TCP port 5432 from 10.0.1.11
  note: rule 0 of NetworkPolicy(shop/db) names source selector app == \"back\", which selects nothing
");
}

#[test]
fn everything_that_was_asked() {
    let mut c = Cluster::new();
    c.put(
        PolicyKind::NetworkPolicy,
        "shop/db",
        policy("app == 'db'", Some(vec![to_port("1"), allow()]), None),
    );
    let e = c.allows("shop/front", "shop/db", 5432);
    assert_eq!(
        format!("{e:#}"),
        "\
allow: pod shop/front (10.0.1.11) -> 10.0.2.21, TCP 5432
  on n1: source address of pod shop/front: the address is its own
    packet TCP 10.0.1.11 -> 10.0.2.21:5432
  on n1: egress of pod shop/front: no policy decides; profile kns.shop rule 0 allows it
    packet TCP 10.0.1.11 -> 10.0.2.21:5432
    profile kns.shop
      rule 0: matches and allows it
  on n2: ingress to pod shop/db: rule 1 of NetworkPolicy(shop/db) in tier default allows it
    packet TCP 10.0.1.11 -> 10.0.2.21:5432
    tier default (denies at its end)
      NetworkPolicy(shop/db)
        rule 0 (Allow): no match: destination.ports is 1; here 5432
        rule 1: matches and allows it
    to change this: rule 1 of NetworkPolicy(shop/db) would have to go, or a deny come before it
"
    );
}

#[test]
fn what_does_not_exist_is_noted() {
    let mut c = Cluster::new();
    let mut r = allow();
    r.destination.service = Some(ServiceRef {
        namespace: "shop".into(),
        name: "gone".into(),
    });
    let mut named = allow();
    named.destination.named_ports = vec!["http".into()];
    c.global("p", policy("app == 'front'", None, Some(vec![r, named])));
    let e = c.denies("shop/front", "shop/db", 80);
    assert_eq!(
        e.notes,
        [
            "rule 0 of GlobalNetworkPolicy(p) names service shop/gone, which does not exist",
            "rule 1 of GlobalNetworkPolicy(p) names port \"http\", which no endpoint has",
        ]
    );
}

#[test]
fn a_missing_profile_tells_what_to_do() {
    let mut c = Cluster::new();
    c.edit("shop/db", |w| w.profiles = vec!["kns.gone".into()]);
    let e = c.denies("shop/front", "shop/db", 80);
    assert_eq!(
        e.paths[0].remedies,
        ["create namespace gone: profile kns.gone is made from it"]
    );
}
