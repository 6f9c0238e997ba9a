//! The table and its sources.

use super::*;
use std::path::Path;
use std::time::Duration;
use tracing::level_filters::LevelFilter;

fn env(pairs: &[(&str, &str)]) -> Layer {
    Layer::from_variables(
        pairs
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned())),
    )
}

fn global(pairs: &[(&str, &str)]) -> Layer {
    Layer::new(Source::Global, pairs.iter().copied())
}

#[test]
fn defaults_are_calicos() {
    let r = FelixParams::resolve(&[]);
    assert_eq!((r.errors.len(), r.unknown.len()), (0, 0));
    let p = r.params;
    assert_eq!(p.interface_prefix, ["cali"]);
    assert_eq!(p.endpoint_to_host, HostAction::Drop);
    assert_eq!(
        (p.vxlan_port, p.vxlan_vni, p.vxlan_enabled),
        (4789, Vni(4096), None)
    );
    assert_eq!(p.nftables_mark_mask, 0xffff_0000);
    assert_eq!(p.failsafe_inbound.len(), 9);
    assert_eq!((p.health_port, p.metrics_port), (9099, 9091));
    assert_eq!(p.dataplane_watchdog_timeout, Duration::from_secs(90));
}

#[test]
fn later_sources_win_in_any_order_given() {
    let at = |source, v: &str| Layer::new(source, [("vxlanport", v)]);
    let layers = [
        env(&[("felix_VxlanPort", "6")]),
        at(Source::File("f".into()), "5"),
        at(Source::Node("node.a".into()), "4"),
        at(Source::Selector("rack".into()), "3"),
        at(Source::Global, "2"),
    ];
    for n in 0..layers.len() {
        let p = FelixParams::resolve(&layers[n..]).params;
        assert_eq!(usize::from(p.vxlan_port), 6 - n);
    }
}

#[test]
fn what_cannot_be_names_its_source_and_leaves_the_lower_one() {
    let r = FelixParams::resolve(&[
        global(&[("vxlanvni", "77"), ("nosuch", "1")]),
        env(&[
            ("FELIX_VXLANVNI", "99999999"),
            ("FELIX_LOGSEVERITYSCREEN", "loud"),
            ("PATH", "x"),
        ]),
    ]);
    assert_eq!(r.params.vxlan_vni, Vni(77));
    assert_eq!(r.params.log_severity, LevelFilter::INFO);
    let texts: Vec<_> = r.errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            r#"parameter LogSeverityScreen = "loud" from environment: not a log level; ignored"#,
            r#"parameter VXLANVNI = "99999999" from environment: not a number from 0 to 16777215; ignored"#,
        ]
    );
    assert_eq!(r.unknown, [("nosuch".to_owned(), Source::Global)]);
}

#[test]
fn empty_is_nothing_and_none_unsets() {
    let r = FelixParams::resolve(&[
        global(&[
            ("natportrange", "1000:2000"),
            (
                "failsafeinboundhostports",
                "tcp:10.0.0.0/8:22, udp:[fe80::/10]:5, 80",
            ),
            ("vxlanenabled", "true"),
        ]),
        env(&[
            ("FELIX_NATPORTRANGE", ""),
            ("FELIX_VXLANENABLED", "none"),
            ("FELIX_FAILSAFEOUTBOUNDHOSTPORTS", "None"),
            ("FELIX_IPV6SUPPORT", "none"),
        ]),
    ]);
    let p = r.params;
    assert_eq!(
        p.nat_port_range.map(|r| (r.first(), r.last())),
        Some((1000, 2000))
    );
    assert_eq!(p.vxlan_enabled, None);
    assert!(p.failsafe_outbound.is_empty());
    let shown: Vec<_> = p
        .failsafe_inbound
        .iter()
        .map(|f| {
            format!(
                "{}:{:?}:{}",
                f.protocol,
                f.net.map(|n| n.to_string()),
                f.port
            )
        })
        .collect();
    assert_eq!(shown.len(), 3);
    assert!(
        shown[0].contains("10.0.0.0/8") && shown[1].contains("fe80::/10"),
        "{shown:?}"
    );
    assert_eq!(r.errors.len(), 1, "a bool cannot be unset");
}

#[test]
fn durations_in_every_spelling() {
    for (text, millis) in [
        ("90", 90_000),
        ("0.5", 500),
        ("90s", 90_000),
        ("1m30s", 90_000),
        ("1h", 3_600_000),
        ("500ms", 500),
        ("0", 0),
    ] {
        let p = FelixParams::resolve(&[global(&[("routerefreshinterval", text)])]).params;
        assert_eq!(
            p.route_refresh_interval,
            Duration::from_millis(millis),
            "{text}"
        );
    }
    for bad in ["-1", "1x", "s", "1m30", "NaN", "1e300"] {
        let r = FelixParams::resolve(&[global(&[("routerefreshinterval", bad)])]);
        assert_eq!(r.errors.len(), 1, "{bad}");
    }
}

#[test]
fn the_file_has_one_section_that_counts() {
    let text = "# c\n[other]\nVXLANPort = 1\n[global]\n; c\nVXLANPort = 99\nLogPrefix=a = b\n";
    let layer = parse_config_file(text, Path::new("/etc/calico/felix.cfg")).expect("valid");
    let p = FelixParams::resolve(&[layer]).params;
    assert_eq!((p.vxlan_port, p.log_prefix.as_str()), (99, "a = b"));
    let e = parse_config_file("[global]\nVXLANPort\n", Path::new("f.cfg")).expect_err("line 2");
    assert!(e.to_string().starts_with("f.cfg:2: "), "{e}");
}

#[test]
fn what_needs_a_restart_is_told() {
    let a = FelixParams::default();
    let r = FelixParams::resolve(&[env(&[
        ("FELIX_HEALTHPORT", "1"),
        ("FELIX_LOGSEVERITYSCREEN", "debug"),
    ])]);
    assert_eq!(a.needs_restart(&r.params), ["HealthPort"]);
}

#[test]
fn names_are_unique_and_listed() {
    let mut names: Vec<_> = ROWS.iter().map(|r| r.name.to_ascii_lowercase()).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), ROWS.len());
    let text = listing();
    assert!(
        text.contains("VXLANPort: 0-65535\n    UDP port of VXLAN. Default: 4789.\n"),
        "{text}"
    );
}
