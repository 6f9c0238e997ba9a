//! Programs of others in a namespace, with files of their own.
//!
//! Promises: each ends with its value; after a test that failed it shows what it wrote last.

use netlink::netns::NetNs;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

/// A program, its folder, its log.
#[derive(Debug)]
pub struct Program {
    child: Child,
    dir: tempfile::TempDir,
    ns: NetNs,
    path: &'static str,
    args: Vec<String>,
}

impl Program {
    /// Starts it; the folder is its own from now on.
    pub fn start(
        ns: &NetNs,
        dir: tempfile::TempDir,
        path: &'static str,
        args: Vec<String>,
    ) -> Self {
        let ns = ns.try_clone().unwrap();
        let child = spawn(&ns, dir.path(), path, &args);
        Self {
            child,
            dir,
            ns,
            path,
            args,
        }
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What it has written down.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.file("log")).unwrap_or_default()
    }

    /// At once, without a word to anybody.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again after [`Program::kill`], with more arguments.
    pub fn again(&mut self, more: &[&str]) {
        let more = more.iter().map(|a| (*a).to_owned());
        let args: Vec<String> = self.args.iter().cloned().chain(more).collect();
        self.child = spawn(&self.ns, self.dir.path(), self.path, &args);
    }

    /// What a tool of it prints, if it succeeds.
    pub fn tool(&self, tool: &str, args: &[&str]) -> Option<String> {
        let out = self.ns.command(tool).unwrap().args(args).output();
        let out = out.unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        out.status.success().then_some(text)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(20)..].join("\n");
            eprintln!("{} said last:\n{last}", self.path);
        }
    }
}

fn spawn(ns: &NetNs, dir: &Path, path: &str, args: &[String]) -> Child {
    let log = File::options()
        .create(true)
        .append(true)
        .open(dir.join("log"));
    let log = log.unwrap();
    let mut command = ns.command(path).unwrap();
    command.args(args).stdin(Stdio::null());
    command.stdout(log.try_clone().unwrap()).stderr(log);
    command.spawn().unwrap()
}
