//! A lab that runs, as a caller sees it.
//!
//! Promises: every question is a fresh connection; an answer that is an error is one.
//!
//! Never: keeps state of its own.

use crate::command::Failure;
use crate::protocol::{Connection, Request, Response, Status};
use crate::state::{Dir, Labs};
use scenario::plan::Spec;
use std::os::fd::BorrowedFd;

/// A running lab.
#[derive(Debug, Clone)]
pub(super) struct Handle {
    /// Its directory.
    pub dir: Dir,
    /// What it is made of.
    pub spec: Spec,
}

/// An answer to another question.
pub(super) fn unexpected(response: &Response) -> Failure {
    match response {
        Response::Error(why) => Failure::new(why.clone()),
        other => Failure::new(format!("the lab gave an unexpected answer: {other:?}")),
    }
}

impl Handle {
    /// The lab of that name.
    ///
    /// # Errors
    /// If none runs.
    pub(super) fn find(name: &str) -> Result<Self, Failure> {
        Self::at(Labs::open()?.find(name)?)
    }

    /// The lab in a directory.
    ///
    /// # Errors
    /// If its specification cannot be read.
    pub(super) fn at(dir: Dir) -> Result<Self, Failure> {
        let path = dir.spec();
        let text = std::fs::read(&path).map_err(|e| {
            Failure::new(format!(
                "{}: {e}: is the lab still starting?",
                path.display()
            ))
        })?;
        Ok(Self {
            spec: serde_json::from_slice(&text)?,
            dir,
        })
    }

    /// A connection to its holder.
    ///
    /// # Errors
    /// If nobody listens.
    pub(super) fn connect(&self) -> Result<Connection, Failure> {
        let path = self.dir.control();
        Connection::open(&path).map_err(|e| {
            Failure::new(format!(
                "{}: {e}: is the lab still starting?",
                path.display()
            ))
        })
    }

    /// Asks.
    ///
    /// # Errors
    /// If there is no answer, or it is an error.
    pub(super) fn ask(&self, request: &Request) -> Result<Response, Failure> {
        self.ask_with(request, &[])
    }

    /// Asks, and hands descriptors over.
    ///
    /// # Errors
    /// As [`Handle::ask`].
    pub(super) fn ask_with(
        &self,
        request: &Request,
        fds: &[BorrowedFd<'_>],
    ) -> Result<Response, Failure> {
        let mut connection = self.connect()?;
        connection.send_with(request, fds)?;
        match connection.receive()? {
            Some(Response::Error(why)) => Err(Failure::new(why)),
            Some(response) => Ok(response),
            None => Err(Failure::new("the lab ended before it answered")),
        }
    }

    /// Asks for lines, and gives each to `line`.
    ///
    /// # Errors
    /// As [`Handle::ask`].
    pub(super) fn lines(
        &self,
        request: &Request,
        mut line: impl FnMut(String),
    ) -> Result<(), Failure> {
        let mut connection = self.connect()?;
        connection.send(request)?;
        loop {
            match connection.receive()? {
                Some(Response::Started) => {}
                Some(Response::Line(text)) => line(text),
                Some(Response::Done) => return Ok(()),
                Some(other) => return Err(unexpected(&other)),
                None => return Err(Failure::new("the lab ended before it answered")),
            }
        }
    }

    /// Its nodes and pods.
    ///
    /// # Errors
    /// As [`Handle::ask`].
    pub(super) fn status(&self) -> Result<Status, Failure> {
        match self.ask(&Request::Status)? {
            Response::Status(status) => Ok(status),
            other => Err(unexpected(&other)),
        }
    }
}
