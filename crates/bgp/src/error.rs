//! What can be wrong with what a peer sent: NOTIFICATION codes, RFC 7606 classes.
//!
//! Promises: each fault names the attribute, the problem and what is to be done about it.
//! Never: decides what happens to the session; that is the state machine's.

use crate::types::AfiSafi;
use std::fmt;

/// Code and subcode of a NOTIFICATION. Unknown pairs are kept as they came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Code {
    /// The error code (RFC 4271, section 4.5).
    pub code: u8,
    /// The subcode; 0 is "unspecific".
    pub subcode: u8,
}

/// The named pairs, and how they print.
macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = ($code:literal, $sub:literal, $text:literal);)*) => {
        impl Code {
            $($(#[$doc])* pub const $name: Self = Self { code: $code, subcode: $sub };)*

            /// The words of the RFCs for it; `None` for a subcode without a name.
            pub const fn name(self) -> Option<&'static str> {
                match (self.code, self.subcode) {
                    $(($code, $sub) => Some($text),)*
                    _ => None,
                }
            }
        }
    };
}

codes! {
    /// The marker is not all ones (RFC 4271, section 6.1).
    NOT_SYNCHRONISED = (1, 1, "connection not synchronised");
    /// The length does not fit the type or the session; data: the length field.
    BAD_MESSAGE_LENGTH = (1, 2, "bad message length");
    /// No such message; data: the type.
    BAD_MESSAGE_TYPE = (1, 3, "bad message type");
    /// The OPEN cannot be parsed (RFC 4271, section 6.2; RFC 9072, section 2).
    OPEN_UNSPECIFIC = (2, 0, "malformed OPEN");
    /// Data: the greatest version that we speak, two octets.
    UNSUPPORTED_VERSION = (2, 1, "unsupported version number");
    /// Not the AS that is expected, or AS 0 (RFC 7607).
    BAD_PEER_AS = (2, 2, "bad peer AS");
    /// Zero, or our own within our AS (RFC 6286).
    BAD_IDENTIFIER = (2, 3, "bad BGP identifier");
    /// An optional parameter other than capabilities.
    UNSUPPORTED_PARAMETER = (2, 4, "unsupported optional parameter");
    /// One or two seconds, or refused for its value.
    UNACCEPTABLE_HOLD_TIME = (2, 6, "unacceptable hold time");
    /// Data: the capabilities that are missed (RFC 5492, section 5).
    UNSUPPORTED_CAPABILITY = (2, 7, "unsupported capability");
    /// The roles do not pair up (RFC 9234, section 4.2).
    ROLE_MISMATCH = (2, 11, "role mismatch");
    /// The attributes do not fit the message, or MP attributes are repeated.
    MALFORMED_ATTRIBUTES = (3, 1, "malformed attribute list");
    /// Data: the attribute.
    UNRECOGNISED_WELL_KNOWN = (3, 2, "unrecognised well-known attribute");
    /// Data: the type of the attribute.
    MISSING_WELL_KNOWN = (3, 3, "missing well-known attribute");
    /// Data: the attribute.
    ATTRIBUTE_FLAGS = (3, 4, "attribute flags error");
    /// Data: the attribute.
    ATTRIBUTE_LENGTH = (3, 5, "attribute length error");
    /// Data: the attribute.
    INVALID_ORIGIN = (3, 6, "invalid ORIGIN");
    /// Data: the attribute.
    INVALID_NEXT_HOP = (3, 8, "invalid NEXT_HOP");
    /// Data: the attribute.
    OPTIONAL_ATTRIBUTE = (3, 9, "optional attribute error");
    /// A prefix of an impossible length.
    INVALID_NETWORK = (3, 10, "invalid network field");
    /// An AS_PATH that cannot be parsed.
    MALFORMED_AS_PATH = (3, 11, "malformed AS_PATH");
    /// Nothing was heard for the hold time.
    HOLD_TIMER_EXPIRED = (4, 0, "hold timer expired");
    /// A state machine error in a state without a subcode (RFC 4271, section 6.6).
    FSM = (5, 0, "finite state machine error");
    /// Data: the type of the message (RFC 6608).
    FSM_OPEN_SENT = (5, 1, "unexpected message in OpenSent");
    /// Data: the type of the message (RFC 6608).
    FSM_OPEN_CONFIRM = (5, 2, "unexpected message in OpenConfirm");
    /// Data: the type of the message (RFC 6608).
    FSM_ESTABLISHED = (5, 3, "unexpected message in Established");
    /// The session ends for no stated reason.
    CEASE = (6, 0, "cease");
    /// Data: AFI, SAFI and the limit (RFC 4486).
    MAX_PREFIXES = (6, 1, "maximum number of prefixes reached");
    /// Data: a communication (RFC 9003).
    ADMIN_SHUTDOWN = (6, 2, "administrative shutdown");
    /// The peer is no longer configured.
    PEER_DECONFIGURED = (6, 3, "peer de-configured");
    /// Data: a communication (RFC 9003).
    ADMIN_RESET = (6, 4, "administrative reset");
    /// Connections from this peer are not wanted now.
    CONNECTION_REJECTED = (6, 5, "connection rejected");
    /// A parameter of the session has changed.
    CONFIG_CHANGE = (6, 6, "other configuration change");
    /// The other connection of a collision lives (RFC 4271, section 6.8).
    COLLISION = (6, 7, "connection collision resolution");
    /// Too little of something is left.
    OUT_OF_RESOURCES = (6, 8, "out of resources");
    /// Ends the session without graceful restart; data: the NOTIFICATION that is
    /// meant (RFC 8538).
    HARD_RESET = (6, 9, "hard reset");
    /// BFD found the path down (RFC 9384).
    BFD_DOWN = (6, 10, "BFD down");
    /// Data: the whole ROUTE-REFRESH (RFC 7313, section 5).
    REFRESH_LENGTH = (7, 1, "invalid ROUTE-REFRESH length");
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name} ({}/{})", self.code, self.subcode),
            None => write!(f, "code {}/{}", self.code, self.subcode),
        }
    }
}

/// A NOTIFICATION: the last message of a session (RFC 4271, section 4.5).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Notification {
    /// What is wrong.
    pub code: Code,
    /// What the RFCs want beside the code, often the offending bytes.
    pub data: Box<[u8]>,
}

impl Notification {
    /// One with data.
    pub fn new(code: Code, data: impl Into<Box<[u8]>>) -> Self {
        Self {
            code,
            data: data.into(),
        }
    }

    /// A Cease that tells the peer's operator why (RFC 9003). `text` is cut, at a
    /// character, to the 255 octets that fit; an empty one leaves no data.
    pub fn shutdown(code: Code, text: &str) -> Self {
        let mut end = text.len().min(255);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        if end == 0 {
            return Self::from(code);
        }
        let mut data = Vec::with_capacity(1 + end);
        data.push(u8::try_from(end).unwrap_or(u8::MAX));
        data.extend_from_slice(&text.as_bytes()[..end]);
        Self::new(code, data)
    }

    /// The communication of an administrative shutdown or reset, for people to read:
    /// not UTF-8 or not there is `None` (RFC 9003, section 2).
    pub fn communication(&self) -> Option<&str> {
        if !matches!(self.code, Code::ADMIN_SHUTDOWN | Code::ADMIN_RESET) {
            return None;
        }
        let (&len, rest) = self.data.split_first()?;
        std::str::from_utf8(rest.get(..usize::from(len))?)
            .ok()
            .filter(|s| !s.is_empty())
    }

    /// Wraps it so that the peer drops our routes at once (RFC 8538, section 3).
    pub fn hard(self) -> Self {
        let mut data = vec![self.code.code, self.code.subcode];
        data.extend_from_slice(&self.data);
        Self::new(Code::HARD_RESET, data)
    }

    /// What a hard reset carries; `None` when it is none or carries nothing.
    pub fn inner(&self) -> Option<Self> {
        match (&*self.data, self.code) {
            ([code, subcode, data @ ..], Code::HARD_RESET) => Some(Self::new(
                Code {
                    code: *code,
                    subcode: *subcode,
                },
                data,
            )),
            _ => None,
        }
    }
}

impl From<Code> for Notification {
    fn from(code: Code) -> Self {
        Self::new(code, [])
    }
}

impl fmt::Display for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.code.fmt(f)?;
        if let Some(text) = self.communication() {
            // What a peer sends must not drive the terminal of who reads it.
            write!(f, ": {:?}", text)?;
        } else if let Some(inner) = self.inner() {
            write!(f, ": {inner}")?;
        }
        Ok(())
    }
}

/// What is done about a malformed UPDATE, weakest first (RFC 7606, section 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FaultClass {
    /// The attribute is left out, the routes stand.
    AttributeDiscard,
    /// All routes of the UPDATE are withdrawn.
    TreatAsWithdraw,
    /// The family's routes are dropped and it is heard no more.
    DisableFamily,
    /// The session ends with a NOTIFICATION.
    SessionReset,
}

/// What is wrong with an attribute or a field of an UPDATE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Problem {
    /// The Optional and Transitive bits are not those of the attribute.
    #[error("its flags are {0:#04x}")]
    Flags(u8),
    /// A length that the attribute cannot have.
    #[error("its length is {0}")]
    Length(u16),
    /// The value is none of those that are defined.
    #[error("its value is {0}")]
    Value(u32),
    /// A segment is of an unknown type, empty or too long.
    #[error("a segment is malformed")]
    Segment,
    /// A confederation's segments from a peer outside, or none in front from another
    /// member (RFC 5065, section 5.3).
    #[error("its confederation segments are not those of such a peer")]
    Confederation,
    /// AS 0 (RFC 7607).
    #[error("it holds AS 0")]
    ZeroAs,
    /// It comes a second time.
    #[error("it is repeated")]
    Repeated,
    /// It is not for a peer of this kind.
    #[error("it is not for this kind of peer")]
    NotForPeer,
    /// A mandatory attribute is absent.
    #[error("it is missing")]
    Missing,
    /// A well-known attribute that we do not know.
    #[error("it claims to be well-known")]
    Unrecognised,
    /// The attribute, or its header, runs past the end of the attributes.
    #[error("it runs past the end of the attributes")]
    Overrun,
    /// The next hop is no address of a host, or has a length that the family does not.
    #[error("its next hop is malformed")]
    NextHop,
    /// A prefix has an impossible length or runs past the end.
    #[error("a prefix is malformed")]
    Prefix,
}

/// One fault of an UPDATE.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Fault {
    /// The type of the attribute; `None` for the fields outside the attributes.
    pub attribute: Option<u8>,
    /// What is wrong.
    pub problem: Problem,
    /// What is done about it.
    pub class: FaultClass,
    /// The attribute with its header, as received, cut where the message ends.
    pub raw: Box<[u8]>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.attribute {
            Some(t) => match crate::attr::type_name(t) {
                Some(name) => write!(f, "{name}: {}", self.problem),
                None => write!(f, "attribute {t}: {}", self.problem),
            },
            None => write!(f, "routes: {}", self.problem),
        }
    }
}

/// A message that ends the session.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{notification}{}", .fault.as_ref().map(|f| format!(": {f}")).unwrap_or_default())]
pub struct SessionError {
    /// What to send before closing.
    pub notification: Notification,
    /// The fault of the UPDATE behind it.
    pub fault: Option<Box<Fault>>,
}

impl From<Notification> for SessionError {
    fn from(notification: Notification) -> Self {
        Self {
            notification,
            fault: None,
        }
    }
}

impl From<Code> for SessionError {
    fn from(code: Code) -> Self {
        Notification::from(code).into()
    }
}

/// A message that cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The attributes leave no room for one prefix: the route must be withdrawn from
    /// this peer instead (RFC 4271, section 9.2; RFC 8654, section 4).
    #[error("attributes of {octets} octets leave no room for a prefix in {limit}")]
    AttributesTooLong {
        /// What the attributes take.
        octets: usize,
        /// The greatest message of the session.
        limit: usize,
    },
    /// An IPv6 next hop for IPv4 routes to a peer that did not ask for it (RFC 8950), or
    /// an IPv4 next hop for IPv6 routes.
    #[error("a next hop of this family cannot carry {0}")]
    NextHop(AfiSafi),
    /// A message that is longer than any may be.
    #[error("{octets} octets do not fit a message of {limit}")]
    MessageTooLong {
        /// What it takes.
        octets: usize,
        /// The greatest message.
        limit: usize,
    },
}
