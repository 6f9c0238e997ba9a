//! `manx lab random`: random policy in one standing cluster, the oracle against real packets.
//!
//! Promises: the seed of each case is told, and gives the same case again; what differs is
//! made small, in the same cluster, and saved as a scenario file; exit 1 if anything differed.
//!
//! Never: says who is right.

use crate::args::RandomArgs;
use crate::command::objects::Objects;
use crate::command::test::{Lab, check, is_policy};
use crate::command::{Failure, note, say};
use crate::protocol::Checked;
use api::{Resource, ResourceKind};
use scenario::random::{self, With};
use scenario::{Check, Step};
use serde_json::Value;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// For an answer to be as the oracle says; everything has settled before.
const DEADLINE: Duration = Duration::from_secs(1);

/// `manx lab random`.
pub(super) fn run(a: &RandomArgs) -> Result<ExitCode, Failure> {
    let began = Instant::now();
    let mut standing = Standing::start()?;
    say!("seeds from {}", a.seed);
    let (mut done, mut flows, mut bad) = (0, 0, 0);
    for seed in a.seed..a.seed.saturating_add(a.cases) {
        if a.time.is_some_and(|t| began.elapsed() >= t) {
            break;
        }
        if std::io::stderr().is_terminal() {
            eprint!("\r\u{1b}[K[{done}/{}] seed {seed}", a.cases);
        }
        let with = With {
            hosts: a.hosts && seed % 3 == 0,
            ..With::default()
        };
        let doc = random::case(seed, with);
        let results = standing
            .case(&doc)
            .map_err(|f| Failure::new(format!("seed {seed}: {}", f.message)))?;
        done += 1;
        flows += results.len();
        let Some((wrong, _)) = results.into_iter().find(|(_, r)| !r.ok) else {
            continue;
        };
        bad += 1;
        tell(&mut standing, a, seed, &random::only(&doc, &wrong))?;
    }
    if std::io::stderr().is_terminal() {
        eprint!("\r\u{1b}[K");
    }
    say!(
        "{done} cases, {flows} flows, {bad} cases with another answer, in {:.0} s",
        began.elapsed().as_secs_f64()
    );
    Ok(ExitCode::from(u8::from(bad > 0)))
}

/// Makes a failing case small and saves it.
fn tell(standing: &mut Standing, a: &RandomArgs, seed: u64, doc: &Value) -> Result<(), Failure> {
    let until = Instant::now() + a.shrink;
    let small = random::shrink(doc, &mut |d| {
        Instant::now() < until && matches!(standing.first_wrong(d), Ok(Some(_)))
    });
    let Some((check, result)) = standing.first_wrong(&small)? else {
        note!("seed {seed}: an answer differed once and does not again");
        return Ok(());
    };
    let text = random::text(&random::with_one_check(&small, &check));
    let file = a.save.join(format!("random-{seed}.yaml"));
    std::fs::write(&file, &text).map_err(|e| Failure::new(format!("{}: {e}", file.display())))?;
    let word = if check.allow { "allow" } else { "deny" };
    say!(
        "seed {seed}: {} -> {} {}: the oracle says {word}, packets {}; saved as {}",
        check.flow.from,
        check.flow.to,
        check.flow.port,
        result.outcome.verdict,
        file.display()
    );
    say!("{}", text.trim_end());
    Ok(())
}

/// A cluster that serves one case after the other.
struct Standing {
    lab: Lab,
    objects: Objects,
}

impl Standing {
    fn start() -> Result<Self, Failure> {
        let (scenario, _, _) = random::judge(&random::base()).map_err(Failure::new)?;
        let mut spec = scenario.spec;
        spec.name = format!("random-{}", std::process::id());
        let mut lab = Lab::start(spec)?;
        let objects = Objects::open(&lab.handle().dir)?;
        lab.change(&Step {
            name: "base".to_owned(),
            apply: scenario.objects,
            delete: Vec::new(),
            checks: Vec::new(),
        })?;
        Ok(Self { lab, objects })
    }

    /// Brings the cluster to a scenario and sends its packets.
    fn case(&mut self, doc: &Value) -> Result<Vec<(Check, Checked)>, Failure> {
        let (scenario, _, checks) = random::judge(doc).map_err(Failure::new)?;
        let kinds = |k| is_policy(k) && !matches!(k, ResourceKind::Pod | ResourceKind::Namespace);
        self.objects.reset(&self.lab.handle().spec, kinds)?;
        for r in &scenario.objects {
            match r {
                Resource::Pod(_) => self.objects.relabel(r)?,
                _ => _ = self.objects.apply(r.clone())?,
            }
        }
        for r in scenario.steps.iter().flat_map(|s| &s.apply) {
            self.objects.apply(r.clone())?;
        }
        if !self.lab.settle()? {
            return Err(Failure::new("the nodes do not settle"));
        }
        let handle = self.lab.handle();
        let results = check(handle, checks.clone(), DEADLINE, true)?;
        Ok(checks.into_iter().zip(results).collect())
    }

    fn first_wrong(&mut self, doc: &Value) -> Result<Option<(Check, Checked)>, Failure> {
        if !random::fits_base(doc) {
            return Ok(None);
        }
        let results = self.case(doc)?;
        Ok(results.into_iter().find(|(_, r)| !r.ok))
    }
}
