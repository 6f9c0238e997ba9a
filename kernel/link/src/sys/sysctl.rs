//! Settings below `/proc/sys/net`, of the calling thread's namespace.
//!
//! Promises: paths never leave `/proc/sys/net`; a read-only `/proc/sys` is no failure where
//! the value is right already.
//!
//! Never: enters a namespace; for another one, call these inside `NetNs::run` or a `Worker`.

use crate::value::Sysctl;
use netlink::{Errno, NetlinkError};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};

/// Reads a setting, such as `ipv4/conf/eth0/forwarding`, without the final newline.
///
/// # Errors
/// If there is no such setting.
pub fn read(path: &str) -> Result<String, NetlinkError> {
    let file = locate(path)?;
    let text = fs::read_to_string(file).map_err(|e| failed("read", path, e))?;
    Ok(text.trim_end().to_owned())
}

/// Writes settings in order and stops at the first that fails.
///
/// # Errors
/// The first failure, with the name of the setting. A missing `ipv6` tree (IPv6 disabled on
/// the kernel command line) is an error too: the caller knows which families are wanted.
pub fn write(settings: &[Sysctl]) -> Result<(), NetlinkError> {
    settings.iter().try_for_each(write_one)
}

fn write_one(s: &Sysctl) -> Result<(), NetlinkError> {
    let file = locate(&s.path)?;
    let written = OpenOptions::new()
        .write(true)
        .open(file)
        .and_then(|mut f| f.write_all(s.value.as_bytes()));
    match written {
        Ok(()) => Ok(()),
        Err(e) if read(&s.path).is_ok_and(|now| now == s.value) => {
            // Containers often see /proc/sys read-only with the right values inside.
            let _ = e;
            Ok(())
        }
        Err(e) => Err(failed(
            &format!("set to {} the sysctl", s.value),
            &s.path,
            e,
        )),
    }
}

fn failed(verb: &str, path: &str, e: io::Error) -> NetlinkError {
    NetlinkError::system(format_args!("{verb} net/{path}"), e)
}

fn locate(path: &str) -> Result<PathBuf, NetlinkError> {
    if Path::new(path)
        .components()
        .all(|c| matches!(c, Component::Normal(_)))
    {
        Ok(Path::new("/proc/sys/net").join(path))
    } else {
        Err(NetlinkError::system(
            format_args!("find sysctl net/{path}"),
            Errno::EINVAL,
        ))
    }
}
