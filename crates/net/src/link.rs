//! Names and numbers of interfaces.

use crate::ParseError;
use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

/// An interface name as the kernel takes it: 1 to 15 bytes, no `/`, no white space,
/// not `.` or `..` (`dev_valid_name` in net/core/dev.c).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IfName {
    bytes: [u8; 15],
    len: u8,
}

impl IfName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.len)]).unwrap_or("")
    }
}

impl FromStr for IfName {
    type Err = ParseError;

    fn from_str(s: &str) -> Result<Self, ParseError> {
        let ok = (1..=15).contains(&s.len())
            && s != "."
            && s != ".."
            && !s
                .bytes()
                .any(|b| b == b'/' || b == b':' || b.is_ascii_whitespace() || b == 0 || b == 0x0b);
        if !ok {
            return Err(ParseError::new("interface name", s));
        }
        let mut bytes = [0; 15];
        bytes[..s.len()].copy_from_slice(s.as_bytes());
        #[expect(clippy::cast_possible_truncation, reason = "at most 15")]
        Ok(Self {
            bytes,
            len: s.len() as u8,
        })
    }
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

impl AsRef<str> for IfName {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

/// The kernel's number of an interface, unique within a network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IfIndex(pub NonZeroU32);

impl IfIndex {
    /// From a raw number; `None` for 0, which the kernel uses for "none".
    pub fn new(n: u32) -> Option<Self> {
        NonZeroU32::new(n).map(Self)
    }

    /// The raw number.
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for IfIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_the_kernel_takes() {
        for ok in ["a", "cali0123456789a", "vxlan.calico", "eth0@x"] {
            assert_eq!(
                ok.parse::<IfName>().map(|n| n.to_string()),
                Ok(ok.to_owned())
            );
        }
        for bad in ["", ".", "..", "a b", "a/b", "0123456789abcdef", "a:b"] {
            assert!(bad.parse::<IfName>().is_err(), "{bad}");
        }
    }
}
