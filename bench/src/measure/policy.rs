//! From a change written to the store to the first packet that the kernel treats by it.
//!
//! Promises: the clock starts before the write, which is part of the figure; each packet is a new
//! connection, judged by the rules; a verdict counts only if it stays.

use crate::Setting;
use crate::cluster::{Cluster, Pod};
use crate::measure::limit_row;
use crate::objects;
use crate::report::Section;
use crate::say;
use crate::stats::{Samples, number};
use crate::store::Store;
use crate::traffic::Shots;
use anyhow::{Context, Result, bail};
use api::ResourceKind;
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::sync::mpsc;
use std::time::{Duration, Instant};

const ENDPOINTS: u32 = 1000;
const LOCAL: u32 = 30;
const POLICIES: u32 = 200;
/// How many of them are about the pod that packets are sent to.
const ON_THE_POD: u32 = 20;
const PORT: u16 = 7000;
const AIM_MS: f64 = 10.0;

/// Time between two packets: the figures' resolution.
const PACE: Duration = Duration::from_micros(20);
/// A verdict counts as new when so many packets in a row agree.
const AGREE: usize = 40;
/// Packets that may still be under way.
const FLYING: usize = 5;
const PATIENCE: Duration = Duration::from_secs(5);

type Write = Box<dyn FnOnce(&Store) -> Result<()> + Send>;

/// Writes on a thread of its own, as an API server would.
struct Writer {
    jobs: mpsc::Sender<Write>,
    done: mpsc::Receiver<Result<(Instant, Instant)>>,
}

impl Writer {
    fn new(store: Store) -> Self {
        let (jobs, inbox) = mpsc::channel::<Write>();
        let (outbox, done) = mpsc::channel();
        std::thread::spawn(move || {
            for job in inbox {
                let began = Instant::now();
                let wrote = job(&store).map(|()| (began, Instant::now()));
                if outbox.send(wrote).is_err() {
                    return;
                }
            }
        });
        Self { jobs, done }
    }
}

/// One kind of change, both ways.
#[derive(Default)]
struct Flips {
    closed: Vec<Duration>,
    opened: Vec<Duration>,
}

struct Range {
    cluster: Cluster,
    writer: Writer,
    shots: Shots,
    client: Value,
    writes: Vec<Duration>,
    unsteady: usize,
    seed: u64,
    _pods: Vec<Pod>,
}

/// Measures.
///
/// # Errors
/// When the cluster does not come up, or a change is never enforced.
pub(crate) fn run(setting: &Setting) -> Result<Section> {
    let mut out = Section::new("From the store to the kernel");
    let mut range = build(setting)?;
    let rounds = setting.rounds(150, 40);
    // The first ones are not counted.
    for _ in 0..5 {
        range.policies(&mut Flips::default())?;
        range.labels(&mut Flips::default())?;
    }
    range.writes.clear();
    let before = range.inner();
    let (mut policies, mut labels) = (Flips::default(), Flips::default());
    for _ in 0..rounds {
        range.policies(&mut policies)?;
        range.labels(&mut labels)?;
    }
    let after = range.inner();
    say!("policy: {} changes enforced", rounds * 4);
    let mut row = |what: &str, times: Vec<Duration>| {
        let s = Samples::millis(times);
        out.rows.push(limit_row(
            what,
            &s,
            s.quantile(0.99),
            "ms (p99)",
            Some(AIM_MS),
        ));
    };
    row(
        "policy that denies written, first packet denied",
        policies.closed,
    );
    row("that policy deleted, first packet allowed", policies.opened);
    row(
        "label taken from the peer, first packet denied",
        labels.closed,
    );
    row(
        "label given to the peer, first packet allowed",
        labels.opened,
    );
    out.note(format!(
        "{ENDPOINTS} endpoints, {LOCAL} of them on the node; {POLICIES} policies, {ON_THE_POD} on the pod; \
         a packet each {} us, which is the resolution; {} of {} changes were followed by a packet that \
         still met the old verdict or was lost.",
        PACE.as_micros(),
        range.unsteady,
        rounds * 4
    ));
    let writes = Samples::millis(std::mem::take(&mut range.writes));
    let mut parts = vec![format!("the write itself {}", writes.text("ms"))];
    for ((what, after), (_, before)) in after.into_iter().zip(before) {
        let (sum, count) = (after.0 - before.0, after.1 - before.1);
        if count > 0.0 {
            parts.push(format!(
                "{what} {} ms in the mean of {count}",
                number(sum / count * 1e3)
            ));
        }
    }
    out.note(format!(
        "Where the time goes (the agent's own histograms): {}; the rest is the watch of the store and the \
         scheduler's.",
        parts.join(", ")
    ));
    Ok(out)
}

fn build(setting: &Setting) -> Result<Range> {
    let mut cluster = Cluster::prepare(&setting.manx, &setting.dir, 1)?;
    fill(&cluster.store)?;
    cluster.nodes[0].start()?;
    let mut pods = vec![
        cluster.attach(0, "server", &[("app", "server")])?,
        cluster.attach(0, "client", &[("app", "client"), ("trusted", "yes")])?,
    ];
    for n in 2..LOCAL {
        pods.push(cluster.attach(
            0,
            &format!("local-{n}"),
            &[("app", &format!("app-{}", n % 25))],
        )?);
    }
    let shots = Shots::new(
        (&pods[1].sandbox.ns, pods[1].addr),
        (&pods[0].sandbox.ns, pods[0].addr),
        PORT,
    )?;
    let client = cluster
        .store
        .get(ResourceKind::Pod, Some("default"), "client")?;
    let writer = Writer::new(Store::open(&cluster.file)?);
    let mut range = Range {
        cluster,
        writer,
        shots,
        client,
        writes: Vec::new(),
        unsteady: 0,
        seed: 1,
        _pods: pods,
    };
    range
        .wait_open()
        .context("the client is allowed to reach the server")?;
    Ok(range)
}

/// The other endpoints and the policies.
fn fill(store: &Store) -> Result<()> {
    for n in 0..9_u8 {
        store.put(
            ResourceKind::Node,
            &objects::node(&format!("other-{n}"), Ipv4Addr::new(172, 30, 0, 100 + n)),
        )?;
    }
    for n in 0..ENDPOINTS - LOCAL {
        let (name, node) = (format!("pod-{n}"), format!("other-{}", n % 9));
        let app = format!("app-{}", n % 25);
        let pod = objects::running(
            "default",
            &name,
            &node,
            objects::elsewhere(n),
            &[("app", &app)],
        );
        store.put(ResourceKind::Pod, &pod)?;
    }
    for n in 0..POLICIES - 1 {
        let app = format!("app-{}", n % 25);
        let to = if n < ON_THE_POD - 1 {
            "server"
        } else {
            app.as_str()
        };
        let from = format!("app-{}", (n + 7) % 25);
        let port = 8000 + u16::try_from(n).unwrap_or_default();
        let policy = objects::allow(
            "default",
            &format!("allow-{n}"),
            ("app", to),
            ("app", &from),
            port,
        );
        store.put(ResourceKind::KubeNetworkPolicy, &policy)?;
    }
    let trusted = objects::allow(
        "default",
        "trusted",
        ("app", "server"),
        ("trusted", "yes"),
        PORT,
    );
    store.put(ResourceKind::KubeNetworkPolicy, &trusted)
}

impl Range {
    /// What the agent counts of its own work.
    fn inner(&self) -> Vec<(&'static str, (f64, f64))> {
        let h = |name| self.cluster.nodes[0].histogram(name);
        vec![
            ("calculation", h("felix_calc_graph_update_time_seconds")),
            (
                "one apply to the kernel",
                h("felix_int_dataplane_apply_time_seconds"),
            ),
            ("of that one nftables transaction", h("manx_nft_seconds")),
        ]
    }

    fn policies(&mut self, into: &mut Flips) -> Result<()> {
        let deny = objects::first(
            "default",
            "deny-client",
            "app == 'server'",
            "app == 'client'",
            "Deny",
        );
        let close = move |s: &Store| s.put(ResourceKind::NetworkPolicy, &deny);
        into.closed.push(self.change(Box::new(close), false)?);
        let open =
            |s: &Store| s.delete(ResourceKind::NetworkPolicy, Some("default"), "deny-client");
        into.opened.push(self.change(Box::new(open), true)?);
        Ok(())
    }

    fn labels(&mut self, into: &mut Flips) -> Result<()> {
        let (mut without, with) = (self.client.clone(), self.client.clone());
        without["metadata"]["labels"] = json!({"app": "client"});
        let close = move |s: &Store| s.put(ResourceKind::Pod, &without);
        into.closed.push(self.change(Box::new(close), false)?);
        let open = move |s: &Store| s.put(ResourceKind::Pod, &with);
        into.opened.push(self.change(Box::new(open), true)?);
        Ok(())
    }

    /// A pause of 2 to 10 ms, so that changes meet the agent at any moment of its own rhythm.
    fn gap(&mut self) {
        self.seed = self
            .seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        crate::pause(Duration::from_micros(2000 + (self.seed >> 33) % 8000));
    }

    /// Makes a change while packets are sent; from before the write to the first packet treated anew.
    fn change(&mut self, write: Write, open: bool) -> Result<Duration> {
        self.gap();
        self.shots.clear();
        for _ in 0..10 {
            self.shoot()?;
        }
        self.writer
            .jobs
            .send(write)
            .ok()
            .context("the writer lives")?;
        let limit = Instant::now() + PATIENCE;
        let mut wrote = None;
        loop {
            self.shoot()?;
            if wrote.is_none()
                && let Ok(done) = self.writer.done.try_recv()
            {
                wrote = Some(done?);
            }
            if let Some((began, ended)) = wrote
                && self.agrees(began, open)
            {
                // What is under way arrives within that.
                crate::pause(Duration::from_micros(200));
                self.shots.drain();
                self.writes.push(ended - began);
                return self.judge(began, open);
            }
            if Instant::now() > limit {
                bail!("a change was not enforced within {PATIENCE:?} (open: {open})");
            }
        }
    }

    fn shoot(&mut self) -> Result<()> {
        let next = Instant::now() + PACE;
        self.shots.shoot()?;
        while Instant::now() < next {
            std::hint::spin_loop();
        }
        Ok(())
    }

    fn agrees(&self, since: Instant, open: bool) -> bool {
        let n = self.shots.sent.len();
        let Some(from) = n.checked_sub(AGREE + FLYING) else {
            return false;
        };
        let last = from..n - FLYING;
        self.shots.sent[from] >= since && self.shots.arrived[last].iter().all(|a| *a == open)
    }

    fn judge(&mut self, since: Instant, open: bool) -> Result<Duration> {
        let all = self.shots.sent.iter().zip(&self.shots.arrived);
        let mut later = all
            .filter(|(at, _)| **at >= since)
            .skip_while(|(_, a)| **a != open);
        let first = *later.next().context("a packet was treated anew")?.0;
        self.unsteady += usize::from(later.any(|(_, a)| *a != open));
        Ok(first - since)
    }

    fn wait_open(&mut self) -> Result<()> {
        let began = Instant::now();
        while !self.agrees(began, true) {
            self.shoot()?;
            if began.elapsed() > PATIENCE {
                bail!("no packet arrives");
            }
        }
        Ok(())
    }
}
