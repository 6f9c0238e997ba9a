//! Packets between a pod behind us and addresses behind a stranger.
//!
//! Promises: what is lost is counted.

use super::{OURS, Side, Stranger, THEIRS, US};
use crate::support::{Wire, connect, run, until};
use netlink::netns::NetNs;
use std::process::{Command, Stdio};

const BEHIND: [&str; 2] = ["192.0.2.1", "2001:db8::1"];

/// A pod behind us, an address of each family behind them, and routes in both kernels.
pub struct Path {
    pub wire: Wire,
    pod: NetNs,
}

impl Path {
    /// With somebody who restarts gracefully. Who writes no routes has them from us.
    pub fn with<S: Stranger>() -> (Self, S) {
        Self::beside(Some(60))
    }

    /// With somebody who is told so much of graceful restart ([`Side::restart`]).
    pub fn beside<S: Stranger>(restart: Option<u32>) -> (Self, S) {
        let wire = Wire::new();
        let pod = NetNs::new().unwrap();
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
        for (at, len) in BEHIND.into_iter().zip([32, 128]) {
            run(&wire.there, "ip", &format!("addr add {at}/{len} dev lo"));
        }
        if !S::IN_KERNEL {
            for (prefix, us) in OURS.into_iter().zip(US) {
                run(&wire.there, "ip", &format!("route add {prefix} via {us}"));
            }
        }
        let them = S::start(
            &wire.there,
            &Side {
                restart,
                kernel: true,
                ..Side::of(65001)
            },
        );
        for p in THEIRS {
            them.tell(p, false);
        }
        (Self { wire, pod }, them)
    }

    /// Waits for a first answer of each family.
    #[track_caller]
    pub fn works(&self) {
        for to in BEHIND {
            let once = || self.ping(to).args(["-c", "1", "-W", "1"]).output();
            let _ = until("a way", once, |o| {
                o.as_ref().is_ok_and(|o| o.status.success())
            });
        }
    }

    fn ping(&self, to: &str) -> Command {
        let mut command = self.pod.command("ping").unwrap();
        command.arg("-n").arg(to);
        command
    }

    /// Packets of both families, fifty a second, while something happens. None is lost.
    #[track_caller]
    pub fn nothing_is_lost<T>(&self, meanwhile: impl FnOnce() -> T) -> T {
        let flows = BEHIND.map(|to| {
            let mut command = self.ping(to);
            command.args(["-q", "-i", "0.02"]).stdout(Stdio::piped());
            command.spawn().unwrap()
        });
        let kept = meanwhile();
        // And what is tidied up behind it.
        let mut more = self.ping(BEHIND[0]);
        let more = more.args(["-q", "-i", "0.1", "-c", "20"]).output();
        assert!(more.is_ok_and(|o| o.status.success()));
        for flow in flows {
            let pid = i32::try_from(flow.id()).unwrap();
            // SAFETY: a child of ours that has not been waited for.
            unsafe { libc::kill(pid, libc::SIGINT) };
            let said = flow.wait_with_output().unwrap();
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
