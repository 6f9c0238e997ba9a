//! BIRD's own clients, `birdc` and `birdcl`, at our control sockets. Wants root and `bird`.
#![expect(clippy::unwrap_used, reason = "tests")]

mod foreign;
mod support;

use foreign::ours::{learned, peers};
use foreign::{Bird, Side, Stranger, THEIRS};
use speaker::Control;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use support::{Ours, Wire, settings};

/// What a client prints of one command, and whether it is content.
fn once(client: &str, socket: &Path, command: &str) -> (String, bool) {
    let mut args = Command::new(client);
    let out = args.arg("-s").arg(socket).args(command.split(' '));
    let out = out.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    (said, out.status.success())
}

/// A conversation: each line is typed when the answer to the one before has come; `quit` ends it.
fn typed(client: &str, socket: &Path, lines: &[(&str, &str)]) {
    let mut command = Command::new(client);
    command.arg("-s").arg(socket).stdin(Stdio::piped());
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let (mut to, mut from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut said = String::new();
    for (line, answer) in lines {
        writeln!(to, "{line}").unwrap();
        let mut heard = String::new();
        while !heard.contains(answer) {
            let mut more = [0; 4096];
            let n = from.read(&mut more).unwrap();
            assert_ne!(n, 0, "{client}: {said}{heard}");
            heard += &String::from_utf8_lossy(&more[..n]);
        }
        said += &heard;
    }
    writeln!(to, "quit").unwrap();
    // Its input stays open: that it ends is for the word to do.
    assert!(child.wait().unwrap().success());
    drop(to);
}

/// Two speakers, a route each way, and the folder of our sockets.
fn served() -> (Wire, Bird, Ours, Control, tempfile::TempDir) {
    let wire = Wire::new();
    let them = Bird::start(&wire.there, &Side::quiet(65001));
    let ours = Ours::start(&wire.here, settings(), peers(65001, |_| {}));
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(&ours.handle, dir.path()).unwrap();
    ours.established(2);
    for prefix in THEIRS {
        them.tell(prefix, true);
        learned(&ours, prefix);
    }
    (wire, them, ours, control, dir)
}

#[test]
fn what_bird_s_clients_print() {
    let (_wire, _them, _ours, _control, dir) = served();
    let (four, six) = (dir.path().join("bird.ctl"), dir.path().join("bird6.ctl"));
    for client in ["birdc", "birdcl"] {
        let ask = |socket: &Path, command: &str| {
            let (said, content) = once(client, socket, command);
            assert!(content, "{client} {command}: {said}");
            assert!(
                said.starts_with("BIRD v1.6.8"),
                "{client} {command}: {said}"
            );
            said
        };
        let said = ask(&four, "show protocols");
        assert!(
            said.contains("\nname     proto    table    state  since"),
            "{said}"
        );
        let row = said.lines().find(|l| l.starts_with("Global_10_0_0_2 "));
        let row: Vec<&str> = row.unwrap().split_whitespace().collect();
        assert_eq!(&row[1..4], ["BGP", "master", "up"], "{said}");
        assert_eq!(row.last(), Some(&"Established"), "{said}");
        assert!(!said.contains("fd00"), "{said}");
        assert!(ask(&six, "show protocols").contains("\nGlobal_fd00__2 BGP "));

        let said = ask(&four, "show protocols all");
        for line in [
            "    Neighbor AS:      65001",
            "    Neighbor ID:      10.0.0.2",
        ] {
            assert!(said.contains(line), "{said}");
        }

        let said = ask(&four, "show status");
        assert!(said.contains("\nRouter ID is 10.0.0.1\n"), "{said}");
        assert!(said.ends_with("Daemon is up and running\n"), "{said}");

        let said = ask(&four, "show route");
        let is = |l: &&str| l.starts_with("192.0.2.0/24 ") && l.contains("via 10.0.0.2");
        assert!(
            said.lines()
                .find(is)
                .is_some_and(|l| l.contains("AS65011i")),
            "{said}"
        );
        assert!(said.contains("\n172.16.1.0/26 "), "{said}");
        let said = ask(&six, "show route all 2001:db8::/48");
        assert!(
            said.contains("\tBGP.as_path: 65001 65010 65011\n"),
            "{said}"
        );

        // What the client does not know it does not even ask; the rest is ours to refuse.
        let (said, _) = once(client, &four, "frobnicate");
        assert!(said.contains("No such command"), "{client}: {said}");
        let (said, _) = once(client, &four, "show memory");
        assert!(
            said.contains("syntax error; known are: show status"),
            "{client}: {said}"
        );
    }
}

#[test]
fn a_conversation_ends_with_quit() {
    let (_wire, _them, _ours, _control, dir) = served();
    let socket = dir.path().join("bird.ctl");
    let lines = [
        ("show route count", "2 of 2 routes for 2 networks"),
        ("configure check", "syntax error; known are: show status"),
        ("show status", "Daemon is up and running"),
    ];
    for client in ["birdc", "birdcl"] {
        typed(client, &socket, &lines);
    }
}
