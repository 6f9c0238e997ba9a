//! What the kernel said no to, and in which words.
//!
//! Promises: every failure names the operation and its object, the errno by name,
//! and the kernel's extended-ack text where there is one.

use std::fmt;

/// A kernel error number (positive), `errno(3)`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Errno(pub i32);

macro_rules! names {
    ($($name:ident)*) => {
        /// The symbolic name, such as `EEXIST`; `None` for one that netlink does not use.
        pub const fn name(self) -> Option<&'static str> {
            match self.0 {
                $(libc::$name => Some(stringify!($name)),)*
                _ => None,
            }
        }
        $(#[doc = concat!("`", stringify!($name), "` of errno(3).")]
        pub const $name: Self = Self(libc::$name);)*
    };
}

impl Errno {
    names! {
        EPERM ENOENT EINTR EIO ENXIO EBADF EAGAIN ENOMEM EACCES EFAULT EBUSY EEXIST EXDEV ENODEV
        EINVAL ENFILE EMFILE ENOSPC EROFS ERANGE ENAMETOOLONG EOPNOTSUPP EAFNOSUPPORT EADDRINUSE
        EADDRNOTAVAIL ENETDOWN ENETUNREACH ENOBUFS ENOTCONN ETIMEDOUT EHOSTUNREACH EALREADY
        EMSGSIZE EPROTONOSUPPORT EPROTO ESRCH E2BIG EOVERFLOW EDOM ENOTDIR ENOTUNIQ ESTALE
    }

    /// The errno of the last failed libc call of this thread.
    pub(crate) fn last() -> Self {
        Self(
            std::io::Error::last_os_error()
                .raw_os_error()
                .unwrap_or(libc::EIO),
        )
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "errno {}", self.0),
        }
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<std::io::Error> for Errno {
    fn from(e: std::io::Error) -> Self {
        Self(e.raw_os_error().unwrap_or(libc::EIO))
    }
}

/// Why an operation failed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// The kernel refused the request, perhaps with an explanation (`NLMSGERR_ATTR_MSG`).
    Refused {
        /// The error number.
        errno: Errno,
        /// The extended-ack text.
        message: Option<String>,
    },
    /// A system call around the request failed: no socket, no namespace, no file.
    System(Errno),
    /// The answer was cut short or is not netlink.
    Malformed,
    /// A dump changed under our feet on every attempt (`NLM_F_DUMP_INTR`).
    Unsteady,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused {
                errno,
                message: None,
            } => errno.fmt(f),
            Self::Refused {
                errno,
                message: Some(m),
            } => write!(f, "{errno} ({m})"),
            Self::System(errno) => errno.fmt(f),
            Self::Malformed => f.write_str("malformed answer from the kernel"),
            Self::Unsteady => f.write_str("the table kept changing while it was read"),
        }
    }
}

/// A failed netlink or namespace operation: what was tried on which object, and why it failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{operation}: {cause}")]
pub struct NetlinkError {
    /// Operation and object, such as `add route 10.0.0.0/26`.
    pub operation: String,
    /// The reason.
    pub cause: Cause,
}

impl NetlinkError {
    /// A request that the kernel refused with `errno` and no more words.
    pub fn refused(operation: impl fmt::Display, errno: Errno) -> Self {
        Self {
            operation: operation.to_string(),
            cause: Cause::Refused {
                errno,
                message: None,
            },
        }
    }

    /// A failed system call.
    pub fn system(operation: impl fmt::Display, errno: impl Into<Errno>) -> Self {
        Self {
            operation: operation.to_string(),
            cause: Cause::System(errno.into()),
        }
    }

    /// An answer that cannot be read.
    pub fn malformed(operation: impl fmt::Display) -> Self {
        Self {
            operation: operation.to_string(),
            cause: Cause::Malformed,
        }
    }

    /// The error number, if the kernel gave one.
    pub const fn errno(&self) -> Option<Errno> {
        match &self.cause {
            Cause::Refused { errno, .. } | Cause::System(errno) => Some(*errno),
            Cause::Malformed | Cause::Unsteady => None,
        }
    }

    /// True if the kernel answered with this error number.
    pub fn is(&self, errno: Errno) -> bool {
        self.errno() == Some(errno)
    }
}
