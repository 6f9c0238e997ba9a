//! Which of two connections between the same speakers lives.
//!
//! Promises: both speakers come to the same answer. Never: closes anything.

use crate::types::RouterId;
use net::Asn;

/// Who opened a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// We did.
    Ours,
    /// The peer did.
    Theirs,
}

impl Side {
    /// The other one.
    pub const fn other(self) -> Self {
        match self {
            Self::Ours => Self::Theirs,
            Self::Theirs => Self::Ours,
        }
    }
}

/// The connection that lives: that of the speaker with the greater identifier (RFC 4271,
/// section 6.8), or, between equal ones, with the greater AS number (RFC 6286,
/// section 2.3). Each speaker is its identifier and its AS.
pub fn keep(ours: (RouterId, Asn), theirs: (RouterId, Asn)) -> Side {
    if ours < theirs {
        Side::Theirs
    } else {
        Side::Ours
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_speakers_keep_the_same_connection() {
        let speaker = |id, asn| (RouterId(id), Asn(asn));
        for (a, b) in [
            (speaker(1, 9), speaker(2, 1)),
            // Equal identifiers in different ASes (RFC 6286, section 2.3).
            (speaker(5, 1), speaker(5, 2)),
            // As unsigned numbers (RFC 4271, section 6.8).
            (speaker(0x7fff_ffff, 1), speaker(0x8000_0000, 1)),
        ] {
            // b is the greater: what it opened lives.
            assert_eq!(keep(a, b), Side::Theirs);
            assert_eq!(keep(b, a), Side::Ours);
        }
    }
}
