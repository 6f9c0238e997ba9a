//! `apply`, `create`, `replace`, `delete`, `validate`: many resources, one verdict each.
//!
//! Promises: one refused resource or unreadable document never stops the others; each refusal
//! is reported, and any of them makes the command fail. What others need (namespaces, tiers, filters) is
//! written first and deleted last, wherever it stands in the files.

use crate::args::{ConfirmIn, CreateArgs, DeleteArgs, FileArgs, Namespace, WriteArgs};
use crate::cluster::{Cluster, ObjectError};
use crate::confirm::Guard;
use crate::run::Console;
use crate::source::Document;
use crate::{CliError, kinds, risk, source};
use api::kinds::pool::IpPool;
use api::{Resource, ResourceKind};
use datastore::pending::Intent;

/// How messages name what is done.
#[derive(Debug, Clone, Copy)]
struct Verb {
    now: &'static str,
    past: &'static str,
}

const APPLY: Verb = Verb {
    now: "apply",
    past: "applied",
};
const CREATE: Verb = Verb {
    now: "create",
    past: "created",
};
const REPLACE: Verb = Verb {
    now: "replace",
    past: "replaced",
};
const DELETE: Verb = Verb {
    now: "delete",
    past: "deleted",
};
const VALIDATE: Verb = Verb {
    now: "validate",
    past: "validated",
};

pub(crate) fn apply(
    args: &WriteArgs,
    cluster: &Cluster,
    console: &mut Console<'_>,
) -> Result<(), CliError> {
    let batch = Batch::read(&args.files, console)?;
    batch.prepare(cluster)?;
    batch.guarded(APPLY, &args.confirm, cluster, console, |r| {
        named(&r.to_string(), cluster.apply(r)).map(Done::Wrote)
    })
}

pub(crate) fn create(
    args: &CreateArgs,
    cluster: &Cluster,
    console: &mut Console<'_>,
) -> Result<(), CliError> {
    let batch = Batch::read(&args.files, console)?;
    batch.prepare(cluster)?;
    batch.guarded(CREATE, &args.confirm, cluster, console, |r| {
        let object = r.to_string();
        match cluster.create(r) {
            Err(e) if args.skip_exists && e.is_already_exists() => Ok(Done::Nothing),
            done => named(&object, done).map(Done::Wrote),
        }
    })
}

pub(crate) fn replace(
    args: &WriteArgs,
    cluster: &Cluster,
    console: &mut Console<'_>,
) -> Result<(), CliError> {
    let batch = Batch::read(&args.files, console)?;
    batch.guarded(REPLACE, &args.confirm, cluster, console, |r| {
        named(&r.to_string(), cluster.update(r)).map(Done::Wrote)
    })
}

pub(crate) fn delete(
    args: &DeleteArgs,
    cluster: &Cluster,
    console: &mut Console<'_>,
) -> Result<(), CliError> {
    let mut batch = match &args.named.kind {
        None => Batch::read(&args.files, console)?,
        Some(word) => {
            let kind = kinds::by_word(word)?;
            if args.named.names.is_empty() {
                let text = format!(
                    "resource name must be specified: which {} is to be deleted?",
                    kind.name()
                );
                return Err(CliError::Usage(text));
            }
            let named = args.named.names.iter().map(|name| {
                let mut r = kind.empty();
                name.clone_into(&mut r.meta_mut().name);
                in_namespace(&mut r, &args.files.namespace);
                r
            });
            Batch {
                resources: named.collect(),
                ..Batch::default()
            }
        }
    };
    batch.resources.reverse();
    batch.guarded(DELETE, &args.confirm, cluster, console, |r| {
        match cluster.delete(&r) {
            Ok(()) => Ok(Done::Deleted(r)),
            Err(CliError::Object(e)) if args.skip_not_exists && e.is_not_found() => {
                Ok(Done::Nothing)
            }
            Err(CliError::Object(e)) => named(&r.to_string(), Err(e)).map(Done::Wrote),
            Err(e) => Err(format!("{r}: {}", e.full())),
        }
    })
}

pub(crate) fn validate(args: &FileArgs, console: &mut Console<'_>) -> Result<(), CliError> {
    let batch = Batch::read(args, console)?;
    let mut pools: Vec<IpPool> = Vec::new();
    batch.run(VALIDATE, console, |mut r| {
        api::default(&mut r);
        let of_it = |e: api::Invalid| format!("{r}: {e}");
        api::validate(&r).map_err(of_it)?;
        if let Resource::IpPool(p) = &r {
            if let Some(e) = api::pool_overlap(p, &pools) {
                return Err(of_it(e));
            }
            pools.push(p.clone());
        }
        Ok(())
    })
}

/// What a refusal is printed as: some errors name their object, the others get it in front.
fn named(object: &str, done: Result<Resource, ObjectError>) -> Result<Resource, String> {
    use ObjectError as E;
    done.map_err(|e| match &e {
        E::NoNamespace(_) => format!("{object}: {e}; create it first (kind: Namespace)"),
        E::Conflict { .. } => format!(
            "{e}; it was changed since it was read: get it again, or leave out resourceVersion"
        ),
        E::NotFound { .. } | E::AlreadyExists { .. } | E::Unsupported { .. } => e.to_string(),
        e => format!("{object}: {e}"),
    })
}

/// Refuses what Calico's agents take for the image of a Kubernetes policy.
fn writable(verb: Verb, r: &Resource) -> Result<(), String> {
    if r.kind() == ResourceKind::NetworkPolicy && r.meta().name.starts_with("knp.default.") {
        return Err(format!(
            "operation {} is not supported on {r}: it follows from a Kubernetes NetworkPolicy; change that one \
             (kind networkpolicy.networking.k8s.io)",
            verb.now
        ));
    }
    Ok(())
}

/// Puts a resource that does not say its namespace into the one that is meant.
pub(crate) fn in_namespace(r: &mut Resource, namespace: &Namespace) {
    if r.kind().namespaced() && r.meta().namespace.is_empty() {
        namespace
            .namespace
            .as_deref()
            .unwrap_or("default")
            .clone_into(&mut r.meta_mut().namespace);
    }
}

/// What was done to a resource.
enum Done {
    /// It is stored so now.
    Wrote(Resource),
    /// It is gone.
    Deleted(Resource),
    /// It is as it was.
    Nothing,
}

/// What a command is to be done to.
#[derive(Default)]
struct Batch {
    resources: Vec<Resource>,
    /// Documents that are no resources.
    unreadable: Vec<String>,
    skip_empty: bool,
}

impl Batch {
    fn read(args: &FileArgs, console: &mut Console<'_>) -> Result<Self, CliError> {
        if args.sources.filename.is_empty() {
            return Err(CliError::Usage(
                "no file: name one with -f FILE, or -f - for standard input".to_owned(),
            ));
        }
        let documents = source::read(&args.sources, console.input)?;
        let mut out = Self {
            skip_empty: args.sources.skip_empty,
            ..Self::default()
        };
        for document in documents {
            out.add(document, &args.namespace);
        }
        let others_need_it = |r: &Resource| {
            matches!(
                r.kind(),
                ResourceKind::Namespace | ResourceKind::Tier | ResourceKind::BgpFilter
            )
        };
        out.resources.sort_by_key(|r| !others_need_it(r));
        Ok(out)
    }

    /// Makes what every cluster has, unless there is nothing to write anyway.
    fn prepare(&self, cluster: &Cluster) -> Result<(), CliError> {
        if self.resources.is_empty() {
            Ok(())
        } else {
            Ok(cluster.init()?)
        }
    }

    fn add(&mut self, document: Document, namespace: &Namespace) {
        match document {
            Ok((mut r, _)) => {
                in_namespace(&mut r, namespace);
                self.resources.push(r);
            }
            Err(e) => self.unreadable.push(e.to_string()),
        }
    }

    /// Does it to each, under a promise to take it all back if one is asked for.
    fn guarded(
        self,
        verb: Verb,
        confirm: &ConfirmIn,
        cluster: &Cluster,
        console: &mut Console<'_>,
        mut each: impl FnMut(Resource) -> Result<Done, String>,
    ) -> Result<(), CliError> {
        if confirm.timeout.is_none() {
            risk::warn(verb.now, &self.resources, cluster, console)?;
        }
        let intent = |r: &Resource| match verb.now {
            "delete" => Intent::Delete(r.clone()),
            _ => Intent::Write(r.clone()),
        };
        let intents = self.resources.iter().map(intent).collect();
        let mut guard = Guard::arm(confirm, cluster, verb.now, intents)?;
        let result = self.run(verb, console, |r| {
            match each(r)? {
                Done::Wrote(r) => Guard::wrote(&mut guard, &r),
                Done::Deleted(r) => Guard::deleted(&mut guard, &r),
                Done::Nothing => {}
            }
            Ok(())
        });
        // Also when some were refused: the others were done.
        Guard::settle(guard, cluster, console)?;
        result
    }

    fn run(
        self,
        verb: Verb,
        console: &mut Console<'_>,
        mut each: impl FnMut(Resource) -> Result<(), String>,
    ) -> Result<(), CliError> {
        let total = self.resources.len() + self.unreadable.len();
        if total == 0 {
            return if self.skip_empty {
                console.print("No resources specified\n")
            } else {
                Err(CliError::NoResources)
            };
        }
        if self.resources.is_empty() {
            return Err(CliError::BadInput(self.unreadable.join("\n")));
        }
        let one_kind = of_one_kind(&self.resources).filter(|_| self.unreadable.is_empty());
        let mut errors = self.unreadable;
        for r in self.resources {
            if let Err(e) = writable(verb, &r).and_then(|()| each(r)) {
                errors.push(e);
            }
        }
        let done = total - errors.len();
        if errors.is_empty() {
            let what = one_kind.map_or("resource(s)".to_owned(), |k| format!("'{k}' resource(s)"));
            return console.print(&format!("Successfully {} {done} {what}\n", verb.past));
        }
        // Errors in brackets, as they have always been, but each on a line of its own.
        let list = errors.join("\n ");
        if done == 0 {
            let what = match (one_kind, total) {
                (Some(k), 1) => format!("'{k}' resource"),
                (Some(k), _) => format!("any '{k}' resources"),
                (None, _) => "any resources".to_owned(),
            };
            return Err(CliError::Refused(format!(
                "failed to {} {what}: [{list}]",
                verb.now
            )));
        }
        let what = one_kind.map_or("resources".to_owned(), |k| format!("'{k}' resources"));
        console.print(&format!(
            "Partial success: {} {done} out of {total} {what}\n",
            verb.past
        ))?;
        Err(CliError::Refused(format!(
            "failed to {} {} resource(s): [{list}]",
            verb.now,
            errors.len()
        )))
    }
}

fn of_one_kind(resources: &[Resource]) -> Option<&'static str> {
    let first = resources.first()?.kind();
    resources
        .iter()
        .all(|r| r.kind() == first)
        .then(|| first.name())
}
