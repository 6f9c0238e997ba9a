//! Where a lab keeps its files, and how one knows whether it lives.
//!
//! Promises: a lab lives exactly as long as somebody holds the lock on its directory; a
//! directory without a holder is removed by the next command; nobody else's directory is
//! ever used or removed.
//!
//! Never: trusts a process number.

use rustix::fs::FlockOperation;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The fabric's router: its name among ends, and its directory.
pub(crate) const ROUTER: &str = "router";

/// What can be wrong with the directory.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    /// A lab of that name lives.
    #[error(
        "lab {0:?} is already running: `manx lab down --name {0}` ends it, --name starts another \
         beside it"
    )]
    Running(String),
    /// None does.
    #[error("lab {0:?} is not running: start it with `manx lab up --name {0}`")]
    NotRunning(String),
    /// Somebody else's.
    #[error(
        "{path} belongs to user {owner}, not to you: set XDG_RUNTIME_DIR to a directory of yours"
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// Socket paths have 107 bytes at most.
    #[error("{0} is too long for the sockets of a lab: set MANX_LAB_DIR to a shorter directory")]
    TooLong(PathBuf),
    /// The file system refuses.
    #[error("{operation} {path}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

fn failed<'a>(
    operation: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> StateError + 'a {
    move |source| StateError::Io {
        operation,
        path: path.to_owned(),
        source,
    }
}

/// The directory of one lab.
#[derive(Debug, Clone)]
pub(crate) struct Dir(PathBuf);

impl Dir {
    /// At a path.
    pub(crate) fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The directory itself.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The control socket.
    pub(crate) fn control(&self) -> PathBuf {
        self.0.join("control.sock")
    }

    /// The store, of all nodes and of the callers.
    pub(crate) fn store(&self) -> PathBuf {
        self.0.join("store.db")
    }

    /// The specification, for callers.
    pub(crate) fn spec(&self) -> PathBuf {
        self.0.join("spec.json")
    }

    /// What the holder says.
    pub(crate) fn log(&self) -> PathBuf {
        self.0.join("holder.log")
    }

    /// A node's own directory.
    pub(crate) fn node(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Where the BGP speaker of a node, or of the router, has its control sockets.
    pub(crate) fn bgp(&self, name: &str) -> PathBuf {
        match name {
            ROUTER => self.node(ROUTER),
            node => self.node(node).join("run"),
        }
    }

    /// A node's agent socket, for its CNI plugin.
    pub(crate) fn agent_socket(&self, node: &str) -> PathBuf {
        self.node(node).join("run/manx.sock")
    }
}

/// The directory of all labs of this user.
fn base() -> PathBuf {
    if let Some(dir) = std::env::var_os("MANX_LAB_DIR").filter(|d| !d.is_empty()) {
        return dir.into();
    }
    let uid = rustix::process::getuid().as_raw();
    let above = std::env::var_os("XDG_RUNTIME_DIR").filter(|d| Path::new(d).is_dir());
    PathBuf::from(above.unwrap_or_else(|| "/tmp".into())).join(format!("manx-lab-{uid}"))
}

/// All labs of this user, and the lock that protects coming and going.
pub(crate) struct Labs {
    base: PathBuf,
    _guard: File,
}

impl Labs {
    /// Opens the directory of all labs, made if missing, and removes what dead ones left.
    ///
    /// # Errors
    /// If it is not ours, or cannot be made.
    pub(crate) fn open() -> Result<Self, StateError> {
        let base = base();
        match fs::DirBuilder::new().mode(0o700).create(&base) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed("make directory", &base)(e));
            }
            _ => {}
        }
        let meta = fs::symlink_metadata(&base).map_err(failed("read directory", &base))?;
        if !meta.is_dir() || meta.uid() != rustix::process::getuid().as_raw() {
            return Err(StateError::Foreign {
                path: base,
                owner: meta.uid(),
            });
        }
        if base.as_os_str().len() > 40 {
            // name of 40, `/node-100/run/manx.sock`
            return Err(StateError::TooLong(base));
        }
        let guard = lock_file(&base.join(".lock"))?;
        rustix::fs::flock(&guard, FlockOperation::LockExclusive)
            .map_err(|e| failed("lock", &base)(e.into()))?;
        let labs = Self {
            base,
            _guard: guard,
        };
        labs.sweep()?;
        Ok(labs)
    }

    /// The names of those that live.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub(crate) fn names(&self) -> Result<Vec<String>, StateError> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.base).map_err(failed("read directory", &self.base))? {
            let entry = entry.map_err(failed("read directory", &self.base))?;
            if entry.path().is_dir() {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    fn sweep(&self) -> Result<(), StateError> {
        for name in self.names()? {
            let path = self.base.join(name);
            if let Some(_lock) = try_lock(&path)? {
                fs::remove_dir_all(&path).map_err(failed("remove what a dead lab left,", &path))?;
            }
        }
        Ok(())
    }

    /// Makes the directory of a new lab and locks it.
    ///
    /// # Errors
    /// If a lab of that name lives.
    pub(crate) fn create(&self, name: &str) -> Result<(Dir, File), StateError> {
        let path = self.base.join(name);
        match fs::DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                return Err(StateError::Running(name.to_owned()));
            }
            Err(e) => return Err(failed("make directory", &path)(e)),
        }
        let lock = try_lock(&path)?.ok_or_else(|| StateError::Running(name.to_owned()))?;
        Ok((Dir(path), lock))
    }

    /// The directory of a lab that lives.
    ///
    /// # Errors
    /// If none of that name does.
    pub(crate) fn find(&self, name: &str) -> Result<Dir, StateError> {
        let path = self.base.join(name);
        if path.is_dir() {
            Ok(Dir(path))
        } else {
            Err(StateError::NotRunning(name.to_owned()))
        }
    }
}

fn lock_file(path: &Path) -> Result<File, StateError> {
    fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(failed("open", path))
}

/// The lock on a lab's directory, unless its holder has it.
fn try_lock(dir: &Path) -> Result<Option<File>, StateError> {
    let path = dir.join("lock");
    let file = lock_file(&path)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(e) => Err(failed("lock", &path)(e.into())),
    }
}
