//! ADD and DEL of pods, beside the reference plugins `bridge` and `host-local`.
//!
//! Promises: the same sandboxes, the same way to start a plugin, in turns. Manx removes interfaces a
//! moment after DEL has returned; nothing else is measured until they are gone, and what that
//! costs back to back is a row of its own.

use crate::Setting;
use crate::cluster::{Cluster, Sandbox, plain_settings, up};
use crate::measure::{in_version, ratio_row};
use crate::objects;
use crate::plugin::{Call, Reply, Spawner};
use crate::report::{Row, Section};
use crate::say;
use crate::stats::{Samples, number};
use anyhow::Result;
use api::ResourceKind;
use netlink::netns::NetNs;
use serde_json::json;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How many at once.
const BATCH: usize = 50;
const PLUGINS: &str = "/usr/lib/cni";
const AIM: f64 = 0.5;

/// The reference plugins on a node of their own.
struct Bridge {
    ns: NetNs,
    conf: Vec<u8>,
    serial: u64,
}

impl Bridge {
    fn new(setting: &Setting) -> Result<Self> {
        let ns = NetNs::new()?;
        plain_settings(&ns)?;
        up(&mut link::Handle::open_in(&ns)?, "lo")?;
        let conf = json!({
            "cniVersion": "1.0.0", "name": "reference", "type": "bridge", "bridge": "cni0",
            "isGateway": true, "ipMasq": false,
            "ipam": {"type": "host-local", "subnet": "10.88.0.0/16",
                "routes": [{"dst": "0.0.0.0/0"}], "dataDir": setting.dir.join("host-local")},
        });
        Ok(Self {
            ns,
            conf: conf.to_string().into_bytes(),
            serial: 0,
        })
    }

    fn call(&mut self, sandbox: &Sandbox) -> Call {
        self.serial += 1;
        Call {
            program: PathBuf::from(PLUGINS).join("bridge"),
            id: format!("{:064x}", self.serial),
            netns: sandbox.path.clone(),
            args: String::new(),
            path: PLUGINS.into(),
            conf: self.conf.clone(),
        }
    }
}

/// Durations of one side.
#[derive(Default)]
struct Times {
    add: Vec<Duration>,
    del: Vec<Duration>,
    both: Vec<Duration>,
}

impl Times {
    fn take(&mut self, add: Duration, del: Duration) {
        self.add.push(add);
        self.del.push(del);
        self.both.push(add + del);
    }
}

/// Measures.
///
/// # Errors
/// When a plugin fails.
pub(crate) fn run(setting: &Setting) -> Result<Section> {
    let mut out = Section::new("CNI ADD and DEL");
    let mut manx = Cluster::start(&setting.manx, &setting.dir, 1)?;
    let mut bridge = Bridge::new(setting)?;
    let sandboxes: Vec<Sandbox> = (0..BATCH)
        .map(|n| Sandbox::new(&format!("pod-{n}")))
        .collect::<Result<_>>()?;
    for n in 0..BATCH {
        let pod = objects::pod("default", &format!("pod-{n}"), "node-1", &[("app", "web")]);
        manx.store.put(ResourceKind::Pod, &pod)?;
    }
    one_at_a_time(setting, &mut manx, &mut bridge, &sandboxes[0], &mut out)?;
    at_once(setting, &mut manx, &mut bridge, &sandboxes, &mut out)?;
    back_to_back(setting, &mut manx, &mut bridge, &sandboxes[..20], &mut out)?;
    stages(setting, &mut manx, &sandboxes[0], &mut out)?;
    Ok(out)
}

fn one_at_a_time(
    setting: &Setting,
    manx: &mut Cluster,
    bridge: &mut Bridge,
    sandbox: &Sandbox,
    out: &mut Section,
) -> Result<()> {
    let (mut ours, mut theirs) = (Times::default(), Times::default());
    let idle = manx.nodes[0].links()?;
    // The first of each is not counted: blocks, bridges and caches come into being.
    for round in 0..=setting.rounds(150, 40) {
        let call = manx.call(0, "calico", "pod-0", sandbox);
        let a = Spawner::new(&manx.nodes[0].ns).each(&call, &["ADD", "DEL"])?;
        manx.nodes[0].settle(idle)?;
        let call = bridge.call(sandbox);
        let b = Spawner::new(&bridge.ns).each(&call, &["ADD", "DEL"])?;
        if round > 0 {
            ours.take(a[0].took, a[1].took);
            theirs.take(b[0].took, b[1].took);
        }
    }
    say!("cni: one at a time done");
    rows("one at a time", ours, theirs, out);
    Ok(())
}

fn rows(how: &str, ours: Times, theirs: Times, out: &mut Section) {
    let ms = Samples::millis;
    let row =
        |what: &str, a, b, aim| ratio_row(&format!("{what}, {how}"), &ms(a), &ms(b), "ms", aim);
    out.rows
        .push(row("ADD + DEL", ours.both, theirs.both, Some(AIM)));
    out.rows.push(row("ADD", ours.add, theirs.add, None));
    out.rows.push(row("DEL", ours.del, theirs.del, None));
}

fn at_once(
    setting: &Setting,
    manx: &mut Cluster,
    bridge: &mut Bridge,
    sandboxes: &[Sandbox],
    out: &mut Section,
) -> Result<()> {
    let (mut ours, mut theirs) = (Times::default(), Times::default());
    let (mut our_walls, mut their_walls) = (Vec::new(), Vec::new());
    let mut gone = Vec::new();
    let idle = manx.nodes[0].links()?;
    for round in 0..=setting.rounds(8, 3) {
        let calls: Vec<Call> = sandboxes
            .iter()
            .enumerate()
            .map(|(n, s)| manx.call(0, "calico", &format!("pod-{n}"), s))
            .collect();
        let (a, wall) = batch(&manx.nodes[0].ns, &calls, round, &mut ours)?;
        let settled = manx.nodes[0].settle(idle)?;
        let calls: Vec<Call> = sandboxes.iter().map(|s| bridge.call(s)).collect();
        let (b, their_wall) = batch(&bridge.ns, &calls, round, &mut theirs)?;
        debug_assert_eq!(a, b);
        if round > 0 {
            our_walls.push(wall);
            their_walls.push(their_wall);
            gone.push(settled);
        }
    }
    say!("cni: {BATCH} at once done");
    rows(
        &format!("{BATCH} at once, each from the start of its batch"),
        ours,
        theirs,
        out,
    );
    let (a, b) = (Samples::millis(our_walls), Samples::millis(their_walls));
    out.rows.push(ratio_row(
        &format!("{BATCH} ADDs, then {BATCH} DELs, wall time"),
        &a,
        &b,
        "ms",
        Some(AIM),
    ));
    out.note(format!(
        "After {BATCH} DELs have returned, the last interface is gone in {}: DEL leaves the removal to a \
         batch.",
        Samples::millis(gone).text("ms")
    ));
    Ok(())
}

/// ADDs, then DELs, each all at once; how many, and how long both took.
fn batch(ns: &NetNs, calls: &[Call], round: usize, times: &mut Times) -> Result<(usize, Duration)> {
    let spawner = Spawner::new(ns);
    let add = spawner.together(calls, "ADD")?;
    let del = spawner.together(calls, "DEL")?;
    let longest = |r: &[Reply]| r.iter().map(|r| r.after).max().unwrap_or_default();
    if round > 0 {
        add.iter()
            .zip(&del)
            .for_each(|(a, d)| times.take(a.after, d.after));
    }
    Ok((add.len(), longest(&add) + longest(&del)))
}

/// Pods one after the other without a pause, until the last interface is gone. Each has a sandbox of
/// its own, as from a runtime.
fn back_to_back(
    setting: &Setting,
    manx: &mut Cluster,
    bridge: &mut Bridge,
    sandboxes: &[Sandbox],
    out: &mut Section,
) -> Result<()> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let idle = manx.nodes[0].links()?;
    let share = u32::try_from(sandboxes.len())?;
    for _ in 0..setting.rounds(5, 2) {
        let began = Instant::now();
        for (n, sandbox) in sandboxes.iter().enumerate() {
            let call = manx.call(0, "calico", &format!("pod-{n}"), sandbox);
            Spawner::new(&manx.nodes[0].ns).each(&call, &["ADD", "DEL"])?;
        }
        manx.nodes[0].settle(idle)?;
        ours.push(began.elapsed() / share);
        let began = Instant::now();
        for sandbox in sandboxes {
            let call = bridge.call(sandbox);
            Spawner::new(&bridge.ns).each(&call, &["ADD", "DEL"])?;
        }
        theirs.push(began.elapsed() / share);
    }
    let (a, b) = (Samples::millis(ours), Samples::millis(theirs));
    out.rows.push(ratio_row(
        "ADD + DEL, 20 pods without a pause until the last interface is gone, each",
        &a,
        &b,
        "ms",
        None,
    ));
    Ok(())
}

/// Where the time goes, from outside: calls that go ever further.
fn stages(
    setting: &Setting,
    manx: &mut Cluster,
    sandbox: &Sandbox,
    out: &mut Section,
) -> Result<()> {
    let rounds = setting.rounds(60, 20);
    let mut shell = Vec::new();
    let (mut version, mut status) = (Vec::new(), Vec::new());
    let (mut assign, mut release) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let mut call = manx.call(0, "calico", "pod-0", sandbox);
        let none = Call {
            program: "/bin/true".into(),
            ..call.clone()
        };
        let spawner = Spawner::new(&manx.nodes[0].ns);
        shell.push(spawner.one(&none, "VERSION")?.took);
        version.push(spawner.one(&call, "VERSION")?.took);
        call.conf = in_version(&call.conf, "1.1.0");
        status.push(spawner.one(&call, "STATUS")?.took);
        let call = manx.call(0, "calico-ipam", "pod-0", sandbox);
        let both = Spawner::new(&manx.nodes[0].ns).each(&call, &["ADD", "DEL"])?;
        assign.push(both[0].took);
        release.push(both[1].took);
    }
    let m = |v| Samples::millis(v).median();
    let (shell, version, status) = (m(shell), m(version), m(status));
    let (assign, release) = (m(assign), m(release));
    let row = |what: &str| out.rows.iter().find(|r| r.what == what);
    let of = |r: Option<&Row>| r.and_then(|r| r.ours.split(' ').next()?.parse::<f64>().ok());
    let add = of(row("ADD, one at a time")).unwrap_or(f64::NAN);
    let del = of(row("DEL, one at a time")).unwrap_or(f64::NAN);
    let n = number;
    out.note(format!(
        "Where ADD's {} ms go (medians, by calls that go ever further): spawning and reaping any process \
         {}; loading the plugin and parsing {} (VERSION takes {}); socket, agent and one read of the \
         store {} (STATUS takes {}); assigning an address {} (calico-ipam ADD takes {}); veth, endpoint's \
         write, calculation, rules and routes, answer: the other {}.",
        n(add),
        n(shell),
        n(version - shell),
        n(version),
        n(status - version),
        n(status),
        n(assign - status),
        n(assign),
        n(add - assign),
    ));
    out.note(format!(
        "Where DEL's {} ms go: process, socket, agent as above {}; releasing the address {} (calico-ipam \
         DEL takes {}); endpoint's write, link out of the way: the other {}.",
        n(del),
        n(status),
        n(release - status),
        n(release),
        n(del - release),
    ));
    Ok(())
}
