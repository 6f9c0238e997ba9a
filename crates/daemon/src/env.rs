//! Environment variables, read through a function so that tests need no process.

use std::fmt::Display;
use std::str::FromStr;

/// A variable whose value cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("environment variable {name}={value:?}: {reason}")]
pub struct EnvError {
    /// The variable.
    pub name: &'static str,
    /// What it is set to.
    pub value: String,
    /// Why that cannot be.
    pub reason: String,
}

/// Where variables come from.
pub trait Env {
    /// The variable's value; empty counts as unset.
    fn var(&self, name: &str) -> Option<String>;

    /// The variable, read by `read`.
    ///
    /// # Errors
    /// Names the variable and its value.
    fn read<T>(
        &self,
        name: &'static str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, EnvError>
    where
        Self: Sized,
    {
        let Some(value) = self.var(name) else {
            return Ok(None);
        };
        match read(&value) {
            Ok(v) => Ok(Some(v)),
            Err(reason) => Err(EnvError {
                name,
                value,
                reason,
            }),
        }
    }

    /// The variable, parsed.
    ///
    /// # Errors
    /// Names the variable and its value.
    fn parse<T: FromStr<Err: Display>>(&self, name: &'static str) -> Result<Option<T>, EnvError>
    where
        Self: Sized,
    {
        self.read(name, |v| v.parse().map_err(|e: T::Err| e.to_string()))
    }
}

/// The environment of this process.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcessEnv;

impl Env for ProcessEnv {
    fn var(&self, name: &str) -> Option<String> {
        let value = std::env::var(name).ok()?;
        let value = value.trim();
        (!value.is_empty()).then(|| value.to_owned())
    }
}

/// Given variables, for tests and for programs that run others.
impl Env for &[(&str, &str)] {
    fn var(&self, name: &str) -> Option<String> {
        let (_, value) = self.iter().rev().find(|(n, _)| *n == name)?;
        let value = value.trim();
        (!value.is_empty()).then(|| value.to_owned())
    }
}

/// Yes or no, in any of the spellings that Calico takes.
///
/// # Errors
/// When it is neither.
pub fn yes_or_no(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "y" | "t" | "on" => Ok(true),
        "false" | "0" | "no" | "n" | "f" | "off" => Ok(false),
        _ => Err("neither true nor false".to_owned()),
    }
}
