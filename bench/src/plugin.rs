//! Calls of CNI plugins, timed from before the process exists to after its end.
//!
//! Promises: every plugin is started the same way, by `posix_spawn` from a thread that is in the node's
//! network already, so that what the caller costs is small and the same for all.
//!
//! Never: interprets a result.

use anyhow::{Context, Result, ensure};
use netlink::netns::NetNs;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Barrier, OnceLock};
use std::time::{Duration, Instant};

/// A plugin and what it is told.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// The plugin.
    pub program: PathBuf,
    /// `CNI_CONTAINERID`.
    pub id: String,
    /// `CNI_NETNS`.
    pub netns: PathBuf,
    /// `CNI_ARGS`.
    pub args: String,
    /// `CNI_PATH`.
    pub path: PathBuf,
    /// Standard input.
    pub conf: Vec<u8>,
}

/// What came of a call.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    /// Standard output.
    pub text: String,
    /// From before the start to after the end.
    pub took: Duration,
    /// From the start of the batch to after the end.
    pub after: Duration,
}

impl Call {
    fn run(&self, verb: &str, batch: Instant) -> Result<Reply> {
        let mut command = Command::new(&self.program);
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", &self.id)
            .env("CNI_NETNS", &self.netns)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", &self.path)
            .env("CNI_ARGS", &self.args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let began = Instant::now();
        let mut child = command
            .spawn()
            .with_context(|| format!("start {}", self.program.display()))?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that does not read its configuration will say why.
            let _ = stdin.write_all(&self.conf);
        }
        let mut text = String::new();
        if let Some(mut stdout) = child.stdout.take() {
            stdout.read_to_string(&mut text)?;
        }
        let end = child.wait()?;
        let (took, after) = (began.elapsed(), batch.elapsed());
        ensure!(
            end.success(),
            "{verb} by {}: {end}: {}",
            self.program.display(),
            text.trim()
        );
        Ok(Reply { text, took, after })
    }
}

/// Calls plugins in a node's network.
#[derive(Debug)]
pub(crate) struct Spawner<'a> {
    ns: &'a NetNs,
}

impl<'a> Spawner<'a> {
    /// For a node.
    pub(crate) const fn new(ns: &'a NetNs) -> Self {
        Self { ns }
    }

    /// Calls a plugin once.
    ///
    /// # Errors
    /// When it fails, with its words.
    pub(crate) fn one(&self, call: &Call, verb: &str) -> Result<Reply> {
        self.ns.run(|| call.run(verb, Instant::now()))?
    }

    /// Calls a plugin for each verb, one after the other.
    ///
    /// # Errors
    /// The first that fails.
    pub(crate) fn each(&self, call: &Call, verbs: &[&str]) -> Result<Vec<Reply>> {
        self.ns
            .run(|| verbs.iter().map(|v| call.run(v, Instant::now())).collect())?
    }

    /// Makes all calls at once: a thread each, which start together.
    ///
    /// # Errors
    /// The first that fails.
    pub(crate) fn together(&self, calls: &[Call], verb: &str) -> Result<Vec<Reply>> {
        let gate = Barrier::new(calls.len());
        let began = OnceLock::new();
        // Threads begin in the network of the one that starts them.
        self.ns.run(|| {
            std::thread::scope(|s| {
                let (gate, began) = (&gate, &began);
                let threads: Vec<_> = calls
                    .iter()
                    .map(|c| {
                        s.spawn(move || {
                            gate.wait();
                            c.run(verb, *began.get_or_init(Instant::now))
                        })
                    })
                    .collect();
                threads
                    .into_iter()
                    .map(|t| t.join().unwrap_or_else(|p| std::panic::resume_unwind(p)))
                    .collect()
            })
        })?
    }
}
