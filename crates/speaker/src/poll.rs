//! Waiting for sockets and for a call from another thread.

use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use rustix::fd::AsFd;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

/// So many are told of in one wait; the rest in the next.
const AT_ONCE: usize = 256;

/// Names what was registered.
pub(crate) type Token = u64;

/// The token of [`Waker`].
pub(crate) const WOKEN: Token = u64::MAX;

/// What a socket is ready for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ready {
    pub token: Token,
    pub readable: bool,
    pub writable: bool,
}

/// Interrupts a wait from another thread.
#[derive(Debug, Clone)]
pub(crate) struct Waker(Arc<OwnedFd>);

impl Waker {
    /// Ends the current wait, or the next.
    pub(crate) fn wake(&self) {
        // It fails only when the counter is full, and then the wait ends anyway.
        let _ = rustix::io::write(&*self.0, &1_u64.to_ne_bytes());
    }

    /// Takes all calls so far.
    pub(crate) fn clear(&self) {
        let _ = rustix::io::read(&*self.0, &mut [0; 8]);
    }
}

/// An epoll instance.
#[derive(Debug)]
pub(crate) struct Poll {
    epoll: OwnedFd,
}

impl Poll {
    /// A new one, and what wakes it.
    ///
    /// # Errors
    /// When descriptors have run out.
    pub(crate) fn new() -> io::Result<(Self, Waker)> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let data = epoll::EventData::new_u64(WOKEN);
        epoll::add(&epoll, &wake, data, epoll::EventFlags::IN)?;
        Ok((Self { epoll }, Waker(Arc::new(wake))))
    }

    fn flags(write: bool) -> epoll::EventFlags {
        match write {
            true => epoll::EventFlags::IN | epoll::EventFlags::OUT,
            false => epoll::EventFlags::IN,
        }
    }

    /// Begins to watch a socket for reading, and for writing where asked.
    ///
    /// # Errors
    /// As the kernel says.
    pub(crate) fn add(&self, fd: impl AsFd, token: Token, write: bool) -> io::Result<()> {
        let data = epoll::EventData::new_u64(token);
        Ok(epoll::add(&self.epoll, fd, data, Self::flags(write))?)
    }

    /// Changes whether writing is watched for.
    ///
    /// # Errors
    /// As the kernel says.
    pub(crate) fn change(&self, fd: impl AsFd, token: Token, write: bool) -> io::Result<()> {
        let data = epoll::EventData::new_u64(token);
        Ok(epoll::modify(&self.epoll, fd, data, Self::flags(write))?)
    }

    /// Waits, at most for a time.
    ///
    /// # Errors
    /// As the kernel says; a signal is none.
    pub(crate) fn wait(&self, most: Option<Duration>, out: &mut Vec<Ready>) -> io::Result<()> {
        out.clear();
        let most = most.map(|d| Timespec {
            tv_sec: i64::try_from(d.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: d.subsec_nanos().into(),
        });
        let mut room = [const { MaybeUninit::<epoll::Event>::uninit() }; AT_ONCE];
        let events = match epoll::wait(&self.epoll, &mut room[..], most.as_ref()) {
            Ok((events, _)) => events,
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(e) => return Err(e.into()),
        };
        for e in events {
            let flags = e.flags;
            let gone = flags.intersects(epoll::EventFlags::HUP | epoll::EventFlags::ERR);
            out.push(Ready {
                token: e.data.u64(),
                readable: gone || flags.contains(epoll::EventFlags::IN),
                writable: gone || flags.contains(epoll::EventFlags::OUT),
            });
        }
        Ok(())
    }
}
