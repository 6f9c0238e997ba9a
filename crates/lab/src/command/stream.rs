//! A stream of datagrams that counts what is lost.
//!
//! Promises: what was sent, what was answered, and the longest silence.
//!
//! Never: sends: the holder does.

use crate::command::handle::{Handle, unexpected};
use crate::command::{Failure, say};
use crate::protocol::{Connection, Request, Response, StreamReport};
use net::Protocol;
use scenario::Flow;
use scenario::report::millis;
use scenario::{End, Port};
use std::process::ExitCode;
use std::time::Duration;

/// One that runs while its owner does something else.
pub(super) struct Stream(Connection);

impl Stream {
    /// Starts to send.
    ///
    /// # Errors
    /// If the lab cannot be asked.
    pub(super) fn start(
        handle: &Handle,
        from: End,
        to: End,
        port: Port,
        length: Duration,
        interval: Duration,
    ) -> Result<Self, Failure> {
        let connection = handle.connect()?;
        let flow = Flow {
            from,
            to,
            port,
            family: None,
        };
        connection.send(&Request::Stream {
            flow,
            for_ms: u64::try_from(length.as_millis()).unwrap_or(u64::MAX),
            interval_us: u64::try_from(interval.as_micros()).unwrap_or(u64::MAX),
        })?;
        Ok(Self(connection))
    }

    /// Ends it, and counts.
    ///
    /// # Errors
    /// If it could not be sent at all.
    pub(super) fn stop(self) -> Result<StreamReport, Failure> {
        self.0.socket().shutdown(std::net::Shutdown::Write)?;
        self.finish()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// As [`Stream::stop`].
    pub(super) fn finish(mut self) -> Result<StreamReport, Failure> {
        match self.0.receive()? {
            Some(Response::Stream(report)) => Ok(report),
            Some(other) => Err(unexpected(&other)),
            None => Err(Failure::new("the lab ended before it answered")),
        }
    }
}

/// A report in words.
pub(super) fn words(r: &StreamReport) -> String {
    format!(
        "{} sent, {} answered, {} lost; longest silence {}",
        r.sent,
        r.received,
        r.sent - r.received,
        millis(r.longest_gap_us)
    )
}

/// `manx lab probe --for`.
pub(super) fn run(
    handle: &Handle,
    from: End,
    to: End,
    port: Port,
    length: Duration,
    interval: Duration,
) -> Result<ExitCode, Failure> {
    if port.protocol != Protocol::UDP {
        return Err(Failure::input(format!(
            "--for counts datagrams: PORT is 1 to 65535 /UDP, not {port}"
        )));
    }
    let report =
        Stream::start(handle, from.clone(), to.clone(), port, length, interval)?.finish()?;
    say!("{from} -> {to} {port}: {}", words(&report));
    let all = report.sent == report.received;
    Ok(if all {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}
