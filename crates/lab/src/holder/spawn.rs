//! How a holder comes into being, and what it does to its namespaces first.
//!
//! Promises: the holder is process 1 of a pid namespace of its own, so that everything it
//! starts ends with it; its mounts, network, host name and IPC are its own; as an ordinary
//! user it is root of a user namespace and of nothing else.
//!
//! Never: changes a mount or a network that others see.

use crate::state::Dir;
use rustix::mount::{MountFlags, MountPropagationFlags};
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What the caller keeps of the new process.
pub(crate) struct Spawned {
    /// Its process number, as the caller sees it.
    pub pid: i32,
    /// Lines of progress, then `ready` or `error ...`.
    pub ready: File,
    /// The lab ends when this closes, if it was asked to.
    pub lifeline: Option<OwnedFd>,
}

/// Starts this program again as the holder of a lab.
///
/// # Errors
/// If the kernel refuses a namespace; the text says which permission is missing.
pub(crate) fn spawn(dir: &Dir, lock: &File, spec: &str, lifeline: bool) -> io::Result<Spawned> {
    let exe = std::env::current_exe()?;
    let log = File::create(dir.log())?;
    let null = File::open("/dev/null")?;
    let (ready_in, ready_out) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let life = if lifeline {
        Some(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?)
    } else {
        None
    };
    let mut args = vec![
        "manx".to_owned(),
        "lab".to_owned(),
        "holder".to_owned(),
        format!("--ready-fd={}", ready_out.as_raw_fd()),
        format!("--lock-fd={}", lock.as_raw_fd()),
        format!("--spec={spec}"),
        format!("--state={}", dir.path().display()),
    ];
    let mut keep = vec![ready_out.as_raw_fd(), lock.as_raw_fd()];
    if let Some((read, _)) = &life {
        args.push(format!("--lifeline-fd={}", read.as_raw_fd()));
        keep.push(read.as_raw_fd());
    }
    let image = Image {
        exe: CString::new(exe.as_os_str().as_bytes())?,
        args: args
            .into_iter()
            .map(CString::new)
            .collect::<Result<_, _>>()?,
        maps: user_maps(),
        log: log.as_raw_fd(),
        null: null.as_raw_fd(),
        keep,
    };
    let pid = image.start()?;
    Ok(Spawned {
        pid,
        ready: File::from(ready_in),
        lifeline: life.map(|(_, write)| write),
    })
}

/// Everything that the child needs, made before it exists: between clone and exec it may
/// not allocate.
struct Image {
    exe: CString,
    args: Vec<CString>,
    maps: Option<[(CString, Vec<u8>); 3]>,
    log: RawFd,
    null: RawFd,
    keep: Vec<RawFd>,
}

/// An ordinary user needs a user namespace, and maps itself to root in it.
fn user_maps() -> Option<[(CString, Vec<u8>); 3]> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    if uid.is_root() {
        return None;
    }
    Some([
        (c"/proc/self/setgroups".to_owned(), b"deny".to_vec()),
        (
            c"/proc/self/uid_map".to_owned(),
            format!("0 {} 1", uid.as_raw()).into_bytes(),
        ),
        (
            c"/proc/self/gid_map".to_owned(),
            format!("0 {} 1", gid.as_raw()).into_bytes(),
        ),
    ])
}

impl Image {
    fn start(&self) -> io::Result<i32> {
        let mut argv: Vec<*const libc::c_char> = self.args.iter().map(|a| a.as_ptr()).collect();
        argv.push(std::ptr::null());
        let mut flags = libc::CLONE_NEWPID
            | libc::CLONE_NEWNS
            | libc::CLONE_NEWNET
            | libc::CLONE_NEWUTS
            | libc::CLONE_NEWIPC
            | libc::SIGCHLD;
        if self.maps.is_some() {
            flags |= libc::CLONE_NEWUSER;
        }
        // SAFETY: without CLONE_VM this is a fork; the child makes only system calls on
        // memory made ready above, and ends in exec or _exit.
        let pid = unsafe { libc::syscall(libc::SYS_clone, libc::c_long::from(flags), 0, 0, 0, 0) };
        match pid {
            -1 => {
                let e = io::Error::last_os_error();
                let hint = match e.raw_os_error() {
                    Some(libc::EPERM) => ": run as root, or allow user namespaces",
                    Some(libc::ENOSPC | libc::EUSERS) => {
                        ": /proc/sys/user/max_*_namespaces is reached"
                    }
                    _ => "",
                };
                Err(io::Error::new(
                    e.kind(),
                    format!("make namespaces for the lab: {e}{hint}"),
                ))
            }
            0 => {
                // SAFETY: in the child, see above.
                unsafe { self.become_holder(&argv) }
            }
            pid => Ok(i32::try_from(pid).unwrap_or(i32::MAX)),
        }
    }

    /// # Safety
    /// Only in a fresh child.
    unsafe fn become_holder(&self, argv: &[*const libc::c_char]) -> ! {
        // SAFETY: plain system calls on valid descriptors and NUL-terminated texts.
        unsafe {
            for (path, text) in self.maps.iter().flatten() {
                let fd = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
                if libc::write(fd, text.as_ptr().cast(), text.len()) < 0 {
                    libc::_exit(120);
                }
                libc::close(fd);
            }
            libc::setsid();
            libc::dup2(self.null, 0);
            libc::dup2(self.log, 1);
            libc::dup2(self.log, 2);
            for fd in &self.keep {
                libc::fcntl(*fd, libc::F_SETFD, 0);
            }
            libc::execv(self.exe.as_ptr(), argv.as_ptr());
            libc::_exit(121)
        }
    }
}

/// Gives the holder its own view: private mounts, its own `/proc`, an empty `/run` and empty
/// CNI state. Call before any other thread exists.
///
/// # Errors
/// Names the mount that failed.
pub(crate) fn settle(dir: &Dir) -> io::Result<()> {
    let named = |what: &'static str| {
        move |e: rustix::io::Errno| {
            let e = io::Error::from(e);
            io::Error::new(e.kind(), format!("{what}: {e}"))
        }
    };
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).map_err(named("make mounts private"))?;
    let safe = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    // Where /proc is partly covered (some containers), a user namespace may not mount a
    // whole one; the old one still answers for the calling process.
    let _ = rustix::mount::mount("proc", "/proc", "proc", safe, None);
    // The state directory may itself lie below /run.
    let state = File::open(dir.path())?;
    let tmpfs = |at: &Path| rustix::mount::mount("tmpfs", at, "tmpfs", safe, Some(c"mode=755"));
    tmpfs(Path::new("/run")).map_err(named("mount an empty /run"))?;
    if dir.path().starts_with("/run") {
        std::fs::create_dir_all(dir.path())?;
        let source = format!("/proc/self/fd/{}", state.as_raw_fd());
        rustix::mount::mount_bind(source.as_str(), dir.path())
            .map_err(named("bring back the lab's directory"))?;
    }
    std::fs::create_dir("/run/netns")?;
    // What plugins keep must not meet what the machine's own runtime keeps.
    for at in ["/var/lib/cni", "/var/lib/calico", "/var/run/calico"] {
        if Path::new(at).is_dir() {
            tmpfs(Path::new(at)).map_err(named("cover the state of CNI plugins"))?;
        }
    }
    let _ = rustix::system::sethostname(b"manx-lab");
    Ok(())
}
