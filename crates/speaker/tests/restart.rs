//! Restarts of either side while packets flow through learned routes: none is lost. Wants root,
//! `bird` and `ping`.

mod support;

use model::Update;
use netlink::netns::NetNs;
use speaker::Kernel;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use support::{Bird, Ours, Wire, connect, peer, run, sessions, settings, statics, until, world};

const ID: &str = "10.0.0.2";
/// Set in the process that is only a speaker.
const CHILD: &str = "MANX_TEST_SPEAKER";

fn peers() -> Vec<Update> {
    let mut all = world();
    all.push(peer("four", "10.0.0.2", 65001));
    all.push(peer("six", "fd00::2", 65001));
    all
}

/// Not a test: the speaker that gets killed.
#[test]
#[ignore = "started by the others, as a process of its own"]
fn child() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let here = NetNs::current().unwrap_or_else(|e| panic!("{e}"));
    let _ours = Ours::start(&here, settings().with_kernel(Kernel::default()), peers());
    // Until whoever has started it ends.
    let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
}

/// A speaker as a process; killed with its value.
struct Process(Child);

impl Process {
    fn start(ns: &NetNs) -> Self {
        let this = std::env::current_exe().unwrap_or_else(|e| panic!("{e}"));
        let mut command = ns.command(this).unwrap_or_else(|e| panic!("{e}"));
        command
            .args(["--exact", "child", "--ignored"])
            .env(CHILD, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Self(command.spawn().unwrap_or_else(|e| panic!("{e}")))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A pod behind us, an address behind BIRD, and routes in both kernels.
struct Path {
    wire: Wire,
    pod: NetNs,
}

fn path() -> (Path, Bird) {
    let wire = Wire::new();
    let pod = NetNs::new().unwrap_or_else(|e| panic!("{e}"));
    connect(
        (&wire.here, "cali1", &["172.16.1.1/26", "fd10::41/122"]),
        (&pod, "eth0", &["172.16.1.5/26", "fd10::45/122"]),
    );
    run(&pod, "ip", "route add default via 172.16.1.1");
    run(&pod, "ip", "-6 route add default via fd10::41");
    for ns in [&wire.here, &wire.there] {
        run(ns, "sysctl", "-q net.ipv4.ip_forward=1");
        run(ns, "sysctl", "-q net.ipv6.conf.all.forwarding=1");
    }
    run(&wire.there, "ip", "addr add 192.0.2.1/32 dev lo");
    run(&wire.there, "ip", "addr add 2001:db8::1/128 dev lo");
    let kernel = |f: &str| {
        format!(
            "protocol kernel k{f} {{ persist; graceful restart; \
             ipv{f} {{ import none; export where source = RTS_BGP; }}; }}\n"
        )
    };
    let own = sessions(65001, 64512, "graceful restart on;")
        + &kernel("4")
        + &kernel("6")
        + &statics(&["192.0.2.0/24", "2001:db8::/48"]);
    let bird = Bird::start(&wire.there, ID, &own);
    (Path { wire, pod }, bird)
}

impl Path {
    fn works(&self) {
        for to in ["192.0.2.1", "2001:db8::1"] {
            let once = || self.ping(to).args(["-c", "1", "-W", "1"]).output();
            let _ = until("a way", once, |o| {
                o.as_ref().is_ok_and(|o| o.status.success())
            });
        }
    }

    fn ping(&self, to: &str) -> Command {
        let mut command = self.pod.command("ping").unwrap_or_else(|e| panic!("{e}"));
        command.arg("-n").arg(to);
        command
    }

    /// Packets of both families, fifty a second, while something happens. None is lost.
    fn nothing_is_lost<T>(&self, meanwhile: impl FnOnce() -> T) -> T {
        let flows = ["192.0.2.1", "2001:db8::1"].map(|to| {
            let mut command = self.ping(to);
            command.args(["-q", "-i", "0.02"]).stdout(Stdio::piped());
            command.spawn().unwrap_or_else(|e| panic!("{e}"))
        });
        let kept = meanwhile();
        // And what is tidied up behind it.
        let more = self
            .ping("192.0.2.1")
            .args(["-q", "-i", "0.1", "-c", "20"])
            .output();
        assert!(more.is_ok_and(|o| o.status.success()));
        for flow in flows {
            let pid = i32::try_from(flow.id()).unwrap_or_else(|e| panic!("{e}"));
            // SAFETY: a child of ours that has not been waited for.
            unsafe { libc::kill(pid, libc::SIGINT) };
            let said = flow.wait_with_output().unwrap_or_else(|e| panic!("{e}"));
            let said = String::from_utf8_lossy(&said.stdout).into_owned();
            let line = said.lines().find(|l| l.contains("packets transmitted"));
            let numbers: Vec<u32> = line
                .unwrap_or_else(|| panic!("{said}"))
                .split([' ', ','])
                .filter_map(|w| w.parse().ok())
                .collect();
            // The last may still be under way.
            assert!(numbers[0] > 5 && numbers[0] - numbers[1] <= 1, "{said}");
        }
        kept
    }
}

#[test]
fn we_are_killed_and_start_again() {
    let (path, bird) = path();
    let ours = Process::start(&path.wire.here);
    path.works();
    let _again = path.nothing_is_lost(|| {
        drop(ours);
        until(
            "the loss is seen there",
            || bird.ask("show protocols all m4"),
            |s| !s.contains("Established"),
        );
        let again = Process::start(&path.wire.here);
        bird.established("m4");
        bird.established("m6");
        again
    });
}

#[test]
fn bird_is_killed_and_starts_again() {
    let (path, mut bird) = path();
    let settings = settings().with_kernel(Kernel {
        absent: Duration::from_secs(3),
        ..Kernel::default()
    });
    let ours = Ours::start(&path.wire.here, settings, peers());
    path.works();
    ours.established(2);
    path.nothing_is_lost(|| {
        bird.kill();
        until(
            "the loss is seen here",
            || ours.since(),
            |s| s.iter().all(|(_, t)| t.is_none()),
        );
        assert!(
            ours.best("192.0.2.0/24")
                .is_some_and(|b| b.contains("stale: true"))
        );
        bird.recover();
        ours.established(2);
        until(
            "fresh again",
            || ours.best("192.0.2.0/24"),
            |b| b.as_ref().is_some_and(|b| b.contains("stale: false")),
        );
    });
}
