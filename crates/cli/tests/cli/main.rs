//! The command line as its users have it: arguments in, texts and an exit code out, against an
//! embedded store in a directory of its own.

mod addresses;
mod bgp;
mod confirm;
mod faults;
mod policy_test;
mod resources;
mod steady;
mod why;

use clap::Parser;
use std::path::PathBuf;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    global: cli::GlobalArgs,
    #[command(subcommand)]
    command: cli::Command,
}

/// A directory with a store and files.
struct Bench {
    dir: tempfile::TempDir,
}

/// What a command did.
#[derive(Debug, PartialEq, Eq)]
struct Ran {
    ok: bool,
    out: String,
    err: String,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("directory");
        let bench = Self { dir };
        bench.store_at(&bench.store());
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn store(&self) -> PathBuf {
        self.path("store.db")
    }

    /// Which store the commands use.
    fn store_at(&self, path: &std::path::Path) {
        let config = format!(
            "apiVersion: projectcalico.org/v3\nkind: CalicoAPIConfig\nmetadata:\nspec:\n  datastoreType: embedded\n  manxStore: {}\n",
            path.display()
        );
        std::fs::write(self.path("calicoctl.cfg"), config).expect("config");
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).expect("file");
        path.display().to_string()
    }

    fn run_with(&self, input: &str, args: &[&str]) -> Ran {
        let config = self.path("calicoctl.cfg").display().to_string();
        let line = ["manx", "--config", &config];
        let line = Line::try_parse_from(line.iter().chain(args)).expect("arguments");
        let (mut input, mut out, mut err) = (input.as_bytes(), Vec::new(), Vec::new());
        let mut console = cli::Console {
            input: &mut input,
            out: &mut out,
            err: &mut err,
        };
        let ok = cli::execute(line.command, &line.global, &mut console);
        let text = |b| String::from_utf8(b).expect("UTF-8");
        Ran {
            ok,
            out: text(out),
            err: text(err),
        }
    }

    fn run(&self, args: &[&str]) -> Ran {
        self.run_with("", args)
    }

    /// The output of a command that has to succeed and say nothing else.
    fn ok(&self, args: &[&str]) -> String {
        self.ok_with("", args)
    }

    fn ok_with(&self, input: &str, args: &[&str]) -> String {
        let r = self.run_with(input, args);
        assert!(r.ok && r.err.is_empty(), "{args:?}: {r:?}");
        r.out
    }

    /// The message of a command that has to fail.
    fn fails_with(&self, input: &str, args: &[&str]) -> String {
        let r = self.run_with(input, args);
        assert!(!r.ok && !r.err.is_empty(), "{args:?}: {r:?}");
        r.err
    }

    fn fails(&self, args: &[&str]) -> String {
        self.fails_with("", args)
    }

    fn apply(&self, text: &str) -> String {
        self.ok_with(text, &["apply", "-f", "-"])
    }

    fn open(&self) -> datastore::Client {
        datastore::Client::new(datastore::open(Some(&self.store())).expect("store"))
    }

    /// Everything that is stored, with revisions.
    fn dump(&self) -> Vec<datastore::Entry> {
        let client = self.open();
        wait(client.store().list("/")).expect("list").entries
    }
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    runtime.expect("runtime").block_on(future)
}

const POOL: &str = "apiVersion: projectcalico.org/v3
kind: IPPool
metadata:
  name: main
spec:
  cidr: 10.65.0.0/16
  natOutgoing: true
";
