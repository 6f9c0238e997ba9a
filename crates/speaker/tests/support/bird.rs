//! BIRD, asked through its socket.
//!
//! Promises: it ends with its value.

use super::program::Program;
use super::{PATIENCE, until};
use netlink::netns::NetNs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

/// A BIRD, ended with its value.
#[derive(Debug)]
pub struct Bird(Program);

impl Bird {
    /// Starts one with a configuration, to which the router id and what every BIRD needs are added.
    pub fn start(ns: &NetNs, id: &str, config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        std::fs::write(at("bird.conf"), head(id, config)).unwrap();
        let mut args = vec!["-f".to_owned()];
        for (flag, name) in [("-c", "bird.conf"), ("-s", "bird.ctl"), ("-P", "bird.pid")] {
            args.extend([flag.to_owned(), at(name)]);
        }
        let this = Self(Program::start(ns, dir, "/usr/sbin/bird", args));
        this.answers();
        this
    }

    fn answers(&self) {
        let ask = || self.try_ask("show status");
        until("BIRD answers", ask, Option::is_some);
    }

    fn socket(&self) -> PathBuf {
        self.0.file("bird.ctl")
    }

    fn try_ask(&self, command: &str) -> Option<String> {
        let mut stream = UnixStream::connect(self.socket()).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        writeln!(stream, "{command}").ok()?;
        let mut out = String::new();
        for line in BufReader::new(stream).lines().skip(1) {
            let line = line.ok()?;
            let last = line.as_bytes().get(4) == Some(&b' ')
                && matches!(line.as_bytes().first(), Some(b'0' | b'8' | b'9'))
                && !line.starts_with("0016");
            out.push_str(&line);
            out.push('\n');
            if last {
                return Some(out);
            }
        }
        None
    }

    /// What BIRD answers.
    #[track_caller]
    pub fn ask(&self, command: &str) -> String {
        self.try_ask(command).unwrap()
    }

    /// What BIRD has of a prefix, with all attributes.
    pub fn route(&self, prefix: &str) -> String {
        self.ask(&format!("show route all {prefix}"))
    }

    /// What it has written down.
    pub fn log(&self) -> String {
        self.0.log()
    }

    /// Takes another configuration.
    pub fn configure(&self, id: &str, config: &str) {
        std::fs::write(self.0.file("bird.conf"), head(id, config)).unwrap();
        let said = self.ask("configure");
        assert!(said.contains("Reconfigur"), "{said}");
    }

    /// Ends it at once, without a word to anybody.
    pub fn kill(&mut self) {
        self.0.kill();
    }

    /// Starts it again after [`Bird::kill`], as one that recovers.
    pub fn recover(&mut self) {
        let _ = std::fs::remove_file(self.socket());
        self.0.again(&["-R"]);
        self.answers();
    }

    #[track_caller]
    pub fn established(&self, protocol: &str) {
        until(
            "BIRD's session",
            || self.ask(&format!("show protocols {protocol}")),
            |s| s.contains("Established"),
        );
    }
}

fn head(id: &str, config: &str) -> String {
    format!("router id {id};\nlog stderr all;\nprotocol device {{ scan time 1; }}\n{config}\n")
}

/// BIRD's side of a session for both families with us as AS `theirs`; BIRD is of AS `own`.
pub fn sessions(own: u32, theirs: u32, more: &str) -> String {
    [("4", "10.0.0"), ("6", "fd00:")]
        .map(|(f, net)| {
            let (us, them) = match f {
                "4" => (format!("{net}.1"), format!("{net}.2")),
                _ => (format!("{net}:1"), format!("{net}:2")),
            };
            format!(
                "protocol bgp m{f} {{ local {them} as {own}; neighbor {us} as {theirs}; \
                 connect delay time 1; connect retry time 1; error wait time 1, 2; {more}
                 ipv{f} {{ import all; export where source = RTS_STATIC; }}; }}\n"
            )
        })
        .concat()
}

/// Routes that BIRD has of its own.
pub fn statics(routes: &[&str]) -> String {
    let of = |f: &str, six: bool| {
        let each = routes.iter().filter(|r| r.contains(':') == six);
        let each: String = each.map(|r| format!("route {r} blackhole; ")).collect();
        format!("protocol static s{f} {{ ipv{f}; {each} }}\n")
    };
    of("4", false) + &of("6", true)
}
