//! The control packet (RFC 5880, section 4.1).

use std::fmt;
use std::time::Duration;
use thiserror::Error;

const LEN: usize = 24;

/// State of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Held down by an operator.
    AdminDown,
    /// Down.
    Down,
    /// The other side is heard, and does not hear us yet.
    Init,
    /// Both hear each other.
    Up,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AdminDown => "AdminDown",
            Self::Down => "Down",
            Self::Init => "Init",
            Self::Up => "Up",
        })
    }
}

impl State {
    const fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::AdminDown,
            1 => Self::Down,
            2 => Self::Init,
            _ => Self::Up,
        }
    }

    const fn bits(self) -> u8 {
        match self {
            Self::AdminDown => 0,
            Self::Down => 1,
            Self::Init => 2,
            Self::Up => 3,
        }
    }
}

/// Why a session last left Up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Diagnostic {
    /// No reason.
    #[default]
    None,
    /// Nothing was heard for the detection time.
    Expired,
    /// The other side said that it is down.
    NeighbourDown,
    /// An operator took it down.
    AdminDown,
    /// Another of the codes of section 4.1.
    Other(u8),
}

impl Diagnostic {
    const fn from_bits(bits: u8) -> Self {
        match bits & 0x1f {
            0 => Self::None,
            1 => Self::Expired,
            3 => Self::NeighbourDown,
            7 => Self::AdminDown,
            n => Self::Other(n),
        }
    }

    const fn bits(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Expired => 1,
            Self::NeighbourDown => 3,
            Self::AdminDown => 7,
            Self::Other(n) => n & 0x1f,
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("no reason"),
            Self::Expired => f.write_str("nothing heard for the detection time"),
            Self::NeighbourDown => f.write_str("the neighbour said that it is down"),
            Self::AdminDown => f.write_str("taken down by an operator"),
            Self::Other(n) => write!(f, "diagnostic {n}"),
        }
    }
}

/// A control packet. Times have a grain of a microsecond and at most 2^32 of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// Why the sender last left Up.
    pub diagnostic: Diagnostic,
    /// The sender's state.
    pub state: State,
    /// It wants an answer to changed times.
    pub poll: bool,
    /// It is that answer.
    pub fin: bool,
    /// The sender's forwarding does not share its control plane's fate.
    pub independent: bool,
    /// The sender wants no periodic packets.
    pub demand: bool,
    /// The receiver may miss so many before it calls the session down.
    pub multiplier: u8,
    /// How the sender knows the session; never 0.
    pub mine: u32,
    /// How the receiver knows it; 0 before it is known.
    pub yours: u32,
    /// The sender wants to send as often.
    pub min_tx: Duration,
    /// The sender can receive as often.
    pub min_rx: Duration,
    /// The sender can answer echoes as often; zero is never.
    pub min_echo_rx: Duration,
}

/// Why bytes are no packet to act on (section 6.8.6): it is discarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PacketError {
    /// Fewer bytes than a packet has, or than it says.
    #[error("packet of {0} bytes is cut short")]
    Short(usize),
    /// Another version than 1.
    #[error("version {0}, not 1")]
    Version(u8),
    /// A length field that is impossible.
    #[error("length field of {0}")]
    Length(u8),
    /// A detection multiplier of zero.
    #[error("detection multiplier of 0")]
    Multiplier,
    /// The bit that is for the future.
    #[error("multipoint bit is set")]
    Multipoint,
    /// A sender that does not say who it is.
    #[error("discriminator of 0")]
    Discriminator,
    /// Section 6.7: authentication where none is configured.
    #[error("authentication is not configured")]
    Authentication,
    /// A discriminator of 0 for us in a state that knows us.
    #[error("no discriminator of ours in state {0}")]
    NotOurs(State),
}

impl PacketError {
    /// The reason in a word, for counters.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Short(_) => "short",
            Self::Version(_) => "version",
            Self::Length(_) => "length",
            Self::Multiplier => "multiplier",
            Self::Multipoint => "multipoint",
            Self::Discriminator => "discriminator",
            Self::Authentication => "authentication",
            Self::NotOurs(_) => "state",
        }
    }
}

fn micros(t: Duration) -> [u8; 4] {
    u32::try_from(t.as_micros())
        .unwrap_or(u32::MAX)
        .to_be_bytes()
}

impl Packet {
    /// The bytes.
    pub fn encode(&self) -> [u8; LEN] {
        let mut out = [0; LEN];
        out[0] = 1 << 5 | self.diagnostic.bits();
        out[1] = self.state.bits() << 6
            | u8::from(self.poll) << 5
            | u8::from(self.fin) << 4
            | u8::from(self.independent) << 3
            | u8::from(self.demand) << 1;
        out[2] = self.multiplier;
        out[3] = LEN as u8;
        out[4..8].copy_from_slice(&self.mine.to_be_bytes());
        out[8..12].copy_from_slice(&self.yours.to_be_bytes());
        out[12..16].copy_from_slice(&micros(self.min_tx));
        out[16..20].copy_from_slice(&micros(self.min_rx));
        out[20..24].copy_from_slice(&micros(self.min_echo_rx));
        out
    }

    /// Reads and checks what needs no session (section 6.8.6, up to the lookup).
    ///
    /// # Errors
    /// Why it is to be discarded.
    pub fn decode(bytes: &[u8]) -> Result<Self, PacketError> {
        let Some(b) = bytes.first_chunk::<LEN>() else {
            return Err(PacketError::Short(bytes.len()));
        };
        let word = |at: usize| u32::from_be_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]);
        let time = |at: usize| Duration::from_micros(word(at).into());
        if b[0] >> 5 != 1 {
            return Err(PacketError::Version(b[0] >> 5));
        }
        let authenticated = b[1] & 1 << 2 != 0;
        if usize::from(b[3]) < if authenticated { LEN + 2 } else { LEN } {
            return Err(PacketError::Length(b[3]));
        }
        if usize::from(b[3]) > bytes.len() {
            return Err(PacketError::Short(bytes.len()));
        }
        if b[2] == 0 {
            return Err(PacketError::Multiplier);
        }
        if b[1] & 1 != 0 {
            return Err(PacketError::Multipoint);
        }
        let packet = Self {
            diagnostic: Diagnostic::from_bits(b[0]),
            state: State::from_bits(b[1] >> 6),
            poll: b[1] & 1 << 5 != 0,
            fin: b[1] & 1 << 4 != 0,
            independent: b[1] & 1 << 3 != 0,
            demand: b[1] & 1 << 1 != 0,
            multiplier: b[2],
            mine: word(4),
            yours: word(8),
            min_tx: time(12),
            min_rx: time(16),
            min_echo_rx: time(20),
        };
        if packet.mine == 0 {
            return Err(PacketError::Discriminator);
        }
        if packet.yours == 0 && !matches!(packet.state, State::Down | State::AdminDown) {
            return Err(PacketError::NotOurs(packet.state));
        }
        if authenticated {
            return Err(PacketError::Authentication);
        }
        Ok(packet)
    }
}
