//! Network namespaces: made, found, entered, told apart.
//!
//! Promises: the calling thread never changes namespace; a namespace lives as long as a
//! [`NetNs`], a process in it or a bind mount holds it, and no longer.
//!
//! Never: touches the namespace that it is called from; runs a program by itself.

use crate::{Errno, NetlinkError};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::thread;

/// Identity of a namespace: device and inode of its nsfs file. Unique while it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetNsId {
    dev: u64,
    ino: u64,
}

impl NetNsId {
    /// The inode, the number in `net:[4026531840]`.
    pub const fn inode(self) -> u64 {
        self.ino
    }
}

/// A handle that keeps a network namespace alive.
#[derive(Debug)]
pub struct NetNs {
    fd: OwnedFd,
    id: NetNsId,
}

impl NetNs {
    /// Makes a new, empty namespace, known to nobody else: only `lo`, and that down.
    ///
    /// # Errors
    /// Without `CAP_SYS_ADMIN`, or when the kernel is out of room.
    pub fn new() -> Result<Self, NetlinkError> {
        let made = on_thread("make a network namespace", || {
            // SAFETY: concerns this short-lived thread alone.
            if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
                return Err(Errno::last());
            }
            File::open("/proc/thread-self/ns/net").map_err(Errno::from)
        })?;
        made.map_err(|e| NetlinkError::system("make a network namespace", e))
            .and_then(|f| Self::from_fd(f.into()))
    }

    /// The namespace of the calling thread.
    ///
    /// # Errors
    /// If `/proc` is not mounted.
    pub fn current() -> Result<Self, NetlinkError> {
        Self::open("/proc/thread-self/ns/net")
    }

    /// The namespace behind a path such as `/run/netns/x`, or what the container runtime
    /// gives as `CNI_NETNS`.
    ///
    /// # Errors
    /// If there is no such file, or it is not a network namespace.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, NetlinkError> {
        let path = path.as_ref();
        let name = format_args!("open network namespace {}", path.display()).to_string();
        let file = File::open(path).map_err(|e| NetlinkError::system(&name, e))?;
        Self::check(file.into(), &name)
    }

    /// The namespace of a process.
    ///
    /// # Errors
    /// If the process is gone or not ours to look at.
    pub fn of_pid(pid: u32) -> Result<Self, NetlinkError> {
        Self::open(format!("/proc/{pid}/ns/net"))
    }

    /// From a descriptor that was handed over.
    ///
    /// # Errors
    /// If it does not refer to a network namespace.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, NetlinkError> {
        Self::check(fd, "use a descriptor as network namespace")
    }

    fn check(fd: OwnedFd, name: &str) -> Result<Self, NetlinkError> {
        // NS_GET_NSTYPE of ioctl_ns(2): _IO(0xb7, 3).
        // SAFETY: the ioctl takes no argument.
        let kind = unsafe { libc::ioctl(fd.as_raw_fd(), 0xb703) };
        if kind != libc::CLONE_NEWNET {
            let e = if kind < 0 {
                Errno::last()
            } else {
                Errno::EINVAL
            };
            return Err(NetlinkError::system(
                format_args!("{name}: not a network namespace"),
                e,
            ));
        }
        let file = File::from(fd);
        let meta = file.metadata().map_err(|e| NetlinkError::system(name, e))?;
        Ok(Self {
            id: NetNsId {
                dev: meta.dev(),
                ino: meta.ino(),
            },
            fd: file.into(),
        })
    }

    /// Its identity, for comparison.
    pub const fn id(&self) -> NetNsId {
        self.id
    }

    /// A second handle.
    ///
    /// # Errors
    /// If the process is out of descriptors.
    pub fn try_clone(&self) -> Result<Self, NetlinkError> {
        let fd = self
            .fd
            .try_clone()
            .map_err(|e| NetlinkError::system("copy a namespace handle", e))?;
        Ok(Self { fd, id: self.id })
    }

    /// Runs `f` on a thread of its own inside the namespace and waits for it. A panic in
    /// `f` continues in the caller. Costs a thread, some tens of microseconds; for many
    /// calls take a [`Worker`].
    ///
    /// # Errors
    /// If the namespace cannot be entered.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T, NetlinkError> {
        on_thread("enter a network namespace", || self.enter().map(|()| f()))?
            .map_err(|e| NetlinkError::system(format_args!("enter {self}"), e))
    }

    /// Moves the calling thread. Private: a thread that wanders breaks everyone's promises.
    fn enter(&self) -> Result<(), Errno> {
        // SAFETY: a descriptor of a network namespace; concerns the calling thread alone.
        match unsafe { libc::setns(self.fd.as_raw_fd(), libc::CLONE_NEWNET) } {
            0 => Ok(()),
            _ => Err(Errno::last()),
        }
    }

    /// A command that will run inside the namespace; the rest of its environment is the
    /// caller's.
    ///
    /// # Errors
    /// If the process is out of descriptors.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Result<Command, NetlinkError> {
        let inside = self.try_clone()?;
        let mut command = Command::new(program);
        // SAFETY: setns is async-signal-safe and allocates nothing.
        unsafe {
            command.pre_exec(move || {
                inside
                    .enter()
                    .map_err(|e| io::Error::from_raw_os_error(e.0))
            });
        }
        Ok(command)
    }

    /// Gives the namespace a name in the file system, which keeps it alive until
    /// [`unbind`]. The file is made; its directory must exist.
    ///
    /// # Errors
    /// If the file exists, or mounting is not allowed.
    pub fn bind(&self, path: impl AsRef<Path>) -> Result<(), NetlinkError> {
        let path = path.as_ref();
        let name = format_args!("bind {self} to {}", path.display()).to_string();
        File::create_new(path).map_err(|e| NetlinkError::system(&name, e))?;
        let source = format!("/proc/thread-self/fd/{}", self.fd.as_raw_fd());
        rustix::mount::mount_bind(source.as_str(), path).map_err(|e| {
            let _ = std::fs::remove_file(path);
            NetlinkError::system(&name, Errno(e.raw_os_error()))
        })
    }
}

/// Takes away a name given by [`NetNs::bind`]. The namespace ends with its last user.
///
/// # Errors
/// If the path is not there or may not be unmounted.
pub fn unbind(path: impl AsRef<Path>) -> Result<(), NetlinkError> {
    let path = path.as_ref();
    let name = format_args!("unbind {}", path.display()).to_string();
    let flags = rustix::mount::UnmountFlags::DETACH | rustix::mount::UnmountFlags::NOFOLLOW;
    match rustix::mount::unmount(path, flags) {
        // A file that is no mount is what a crash between create and mount leaves.
        Ok(()) | Err(rustix::io::Errno::INVAL) => {}
        Err(e) => return Err(NetlinkError::system(&name, Errno(e.raw_os_error()))),
    }
    std::fs::remove_file(path).map_err(|e| NetlinkError::system(&name, e))
}

impl fmt::Display for NetNs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "net:[{}]", self.id.ino)
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl PartialEq for NetNs {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for NetNs {}

fn on_thread<T: Send>(name: &str, f: impl FnOnce() -> T + Send) -> Result<T, NetlinkError> {
    thread::scope(|s| {
        let handle = thread::Builder::new()
            .name("netns".to_owned())
            // A page of netlink messages is all that lives there.
            .stack_size(512 << 10)
            .spawn_scoped(s, f)
            .map_err(|e| NetlinkError::system(name, e))?;
        handle
            .join()
            .map_or_else(|panic| std::panic::resume_unwind(panic), Ok)
    })
}

type Job = Box<dyn FnOnce() + Send>;

/// A thread that stays inside a namespace and runs what it is given, one after the other.
/// Ends when dropped.
#[derive(Debug)]
pub struct Worker {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Worker {
    /// Starts the thread inside `ns`.
    ///
    /// # Errors
    /// If there can be no thread, or it cannot enter.
    pub fn new(ns: &NetNs) -> Result<Self, NetlinkError> {
        let ns = ns.try_clone()?;
        let (jobs, inbox) = mpsc::channel::<Job>();
        let (entered, verdict) = mpsc::sync_channel(1);
        let thread = thread::Builder::new()
            .name("netns".to_owned())
            .spawn(move || {
                let ok = ns.enter();
                let failed = ok.is_err();
                let _ = entered
                    .send(ok.map_err(|e| NetlinkError::system(format_args!("enter {ns}"), e)));
                // The thread itself keeps the namespace alive from here on.
                drop(ns);
                if !failed {
                    inbox.into_iter().for_each(|job| job());
                }
            })
            .map_err(|e| NetlinkError::system("start a namespace thread", e))?;
        let started = verdict
            .recv()
            .map_err(|_| NetlinkError::malformed("start a namespace thread"));
        started.flatten()?;
        Ok(Self {
            jobs: Some(jobs),
            thread: Some(thread),
        })
    }

    /// Runs `f` inside and waits for its result. A panic in `f` continues in the caller and
    /// leaves the worker usable.
    pub fn run<T: Send + 'static>(&self, f: impl FnOnce() -> T + Send + 'static) -> T {
        let (tx, rx) = mpsc::sync_channel(1);
        let job: Job = Box::new(move || {
            let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
            let _ = tx.send(caught);
        });
        self.jobs
            .as_ref()
            .and_then(|jobs| jobs.send(job).ok())
            .expect("the thread ends only when the worker is dropped");
        match rx.recv().expect("each job answers, panicking or not") {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
