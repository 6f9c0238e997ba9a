//! The state machine of one connection (RFC 4271, section 8), as data.
//!
//! Promises: [`step`] is a total function of state and event, and each row reads like the
//! paragraph of section 8.2.2 that it comes from; the actions of a transition are in the
//! order in which they are to be done. Never: does any of it; holds timers or sockets.
//!
//! A peer has two of these machines, one for the connection that we open and one for those
//! that it opens, so that both may be under way at once until a collision is resolved
//! (section 6.8) or one of them is Established.

mod collision;
mod table;

pub use collision::{Side, keep};
pub use table::step;

use crate::error::Code;
use std::fmt;

/// The states of RFC 4271, section 8.2.2. Ordered by progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum State {
    /// Refuses connections, and tries none.
    #[default]
    Idle,
    /// Waits for the connection that it has asked for.
    Connect,
    /// Waits for a connection, or for the time to ask for one.
    Active,
    /// Waits for the peer's OPEN.
    OpenSent,
    /// Waits for the peer's KEEPALIVE.
    OpenConfirm,
    /// Carries routes.
    Established,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "Idle",
            Self::Connect => "Connect",
            Self::Active => "Active",
            Self::OpenSent => "OpenSent",
            Self::OpenConfirm => "OpenConfirm",
            Self::Established => "Established",
        })
    }
}

/// The events of RFC 4271, section 8.1, by their numbers there. Those that differ only in
/// what they are called (2 and 8, 16 and 17 apart from their direction) keep one name each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// 1, 3, 6: start, and open the connection.
    Start,
    /// 4, 5, 7: start, and leave it to the peer to connect.
    StartPassive,
    /// 2, 8: stop, by an operator or by rule.
    Stop,
    /// 9.
    ConnectRetryTimerExpires,
    /// 10.
    HoldTimerExpires,
    /// 11.
    KeepaliveTimerExpires,
    /// 12.
    DelayOpenTimerExpires,
    /// 13.
    IdleHoldTimerExpires,
    /// 16, 17: the connection stands, and OPEN is sent at once.
    TcpConnected,
    /// 16, 17 with DelayOpen: the connection stands, and we wait for the peer's OPEN.
    TcpConnectedDelay,
    /// 18.
    TcpFails,
    /// 19.
    Open,
    /// 20: with the DelayOpenTimer running.
    OpenDelayed,
    /// 21.
    HeaderError,
    /// 22.
    OpenError,
    /// 23: a collision, and this connection goes.
    CollisionDump,
    /// 24.
    NotificationVersionError,
    /// 25.
    Notification,
    /// 26.
    Keepalive,
    /// 27.
    Update,
    /// 28.
    UpdateError,
    /// 29 (RFC 9687): the peer has taken nothing for too long.
    SendHoldTimerExpires,
    /// A ROUTE-REFRESH (RFC 2918): taken as UPDATE is.
    RouteRefresh,
}

/// What a transition does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Sets ConnectRetryCounter to zero.
    ZeroRetries,
    /// Adds one to ConnectRetryCounter.
    CountRetry,
    /// Starts the ConnectRetryTimer with its value.
    StartConnectRetry,
    /// Stops the ConnectRetryTimer and sets it to zero.
    StopConnectRetry,
    /// Asks for a connection to the peer.
    Initiate,
    /// Drops the connection, after what is queued as last word.
    Drop,
    /// Sends an OPEN.
    SendOpen,
    /// Sends a KEEPALIVE.
    SendKeepalive,
    /// Sends this NOTIFICATION.
    Notify(Code),
    /// Sends the NOTIFICATION that came with the event.
    NotifyGiven,
    /// Starts the DelayOpenTimer.
    StartDelayOpen,
    /// Stops the DelayOpenTimer.
    StopDelayOpen,
    /// Starts the HoldTimer with its large value (4 minutes are suggested).
    StartHoldLarge,
    /// Sets the HoldTimer to the negotiated value and starts the KeepaliveTimer; with a
    /// negotiated value of zero neither runs.
    StartNegotiated,
    /// Starts the HoldTimer anew, unless the negotiated value is zero.
    RestartHold,
    /// Starts the KeepaliveTimer anew, unless the negotiated value is zero.
    RestartKeepalive,
    /// Stops the HoldTimer, the KeepaliveTimer and the DelayOpenTimer.
    StopSession,
    /// The session is up: routes may flow.
    Up,
    /// The session is down: its routes go, or turn stale (RFC 4724).
    Down,
    /// Hands the message to the tables.
    Deliver,
    /// Runs the peer's damping (DampPeerOscillations): a start after the IdleHoldTimer.
    IdleHold,
}

/// What [`step`] gives: the next state, and what to do on the way, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    /// The next state.
    pub next: State,
    /// What to do, in order.
    pub actions: &'static [Action],
}
