//! Namespaces of our own, in which everything is measured.
//!
//! Promises: network, mounts, processes, host name and IPC of what runs inside are its own; all of it
//! ends with this program, however that ends.
//!
//! Never: changes what others on the machine see.

use anyhow::{Context, Result, ensure};
use rustix::mount::{MountFlags, MountPropagationFlags};
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus};

/// Tells the program that it is inside already.
pub(crate) const INSIDE: &str = "MANX_BENCH_INSIDE";

/// Runs this program again as process 1 of new namespaces and waits for it.
///
/// # Errors
/// Without the permission to make namespaces.
pub(crate) fn again(args: impl Iterator<Item = OsString>, dir: &Path) -> Result<ExitStatus> {
    let all = libc::CLONE_NEWPID
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC;
    // SAFETY: no other thread exists yet; what is shared no longer is this process's own affair.
    let done = unsafe { libc::unshare(all) };
    ensure!(
        done == 0,
        "make namespaces (run as root): {}",
        io::Error::last_os_error()
    );
    let mut command = Command::new(std::env::current_exe().context("find this program")?);
    command.args(args).env(INSIDE, dir);
    // SAFETY: prctl is async-signal-safe and allocates nothing.
    unsafe {
        command.pre_exec(
            || match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            },
        );
    }
    command.status().context("start the measuring process")
}

/// Gives the process its own view of mounts. Call before any other thread exists.
///
/// # Errors
/// Names the mount that failed.
pub(crate) fn settle() -> Result<()> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).context("make mounts private")?;
    let safe = MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount("proc", "/proc", "proc", safe, None).context("mount /proc")?;
    let sys = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    // A sysfs shows the interfaces of the namespace that it was mounted in.
    let _ = rustix::mount::mount("sysfs", "/sys", "sysfs", sys, None);
    for at in ["/run", "/var/lib/cni", "/var/lib/calico"] {
        if Path::new(at).is_dir() {
            rustix::mount::mount("tmpfs", at, "tmpfs", safe, Some(c"mode=755"))
                .with_context(|| format!("cover {at}"))?;
        }
    }
    std::fs::create_dir_all("/run/netns").context("make /run/netns")?;
    let _ = rustix::system::sethostname(b"manx-bench");
    // Where sessions are scheduled as groups, priorities count within one only.
    let _ = std::fs::write("/proc/self/autogroup", "-20");
    Ok(())
}
