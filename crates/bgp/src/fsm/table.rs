//! The table of RFC 4271, section 8.2.2.
//!
//! Promises: every pair of state and event has a row. Never: looks at anything else.

use super::Action::{
    CountRetry, Deliver, Down, Drop, IdleHold, Initiate, Notify, NotifyGiven, RestartHold,
    RestartKeepalive, SendKeepalive, SendOpen, StartConnectRetry, StartDelayOpen, StartHoldLarge,
    StartNegotiated, StopConnectRetry, StopDelayOpen, StopSession, Up, ZeroRetries,
};
use super::State::{Active, Connect, Established, Idle, OpenConfirm, OpenSent};
use super::{Action, Event as E, State, Transition};
use crate::error::Code;

/// "Send Hold Timer Expired" (RFC 9687, section 6).
const SEND_HOLD_TIMER_EXPIRED: Code = Code {
    code: 8,
    subcode: 0,
};

/// What follows from an event in a state.
///
/// [`Action::NotifyGiven`] and [`Action::Deliver`] speak of what came with the event: the
/// NOTIFICATION that the codec wants, the message.
pub const fn step(state: State, event: E) -> Transition {
    match state {
        Idle => idle(event),
        Connect => connect(event),
        Active => active(event),
        OpenSent => open_sent(event),
        OpenConfirm => open_confirm(event),
        Established => established(event),
    }
}

const fn to(next: State, actions: &'static [Action]) -> Transition {
    Transition { next, actions }
}

/// "In this state, BGP FSM refuses all incoming BGP connections for this peer."
const fn idle(event: E) -> Transition {
    match event {
        E::Start => to(Connect, &[ZeroRetries, StartConnectRetry, Initiate]),
        E::StartPassive => to(Active, &[ZeroRetries]),
        // A start that damping has put off; the counter stands (8.2.2: Idle, events 6, 7).
        E::IdleHoldTimerExpires => to(Connect, &[StartConnectRetry, Initiate]),
        // A connection in Idle is one that nobody waits for.
        E::TcpConnected | E::TcpConnectedDelay => to(Idle, &[Drop]),
        _ => to(Idle, &[]),
    }
}

/// "In this state, BGP FSM is waiting for the TCP connection to be completed."
const fn connect(event: E) -> Transition {
    match event {
        E::Start | E::StartPassive | E::IdleHoldTimerExpires => to(Connect, &[]),
        E::Stop => to(Idle, &[Drop, ZeroRetries, StopConnectRetry, StopSession]),
        E::ConnectRetryTimerExpires => {
            to(Connect, &[Drop, StopDelayOpen, StartConnectRetry, Initiate])
        }
        E::DelayOpenTimerExpires => to(OpenSent, &[SendOpen, StartHoldLarge]),
        E::TcpConnectedDelay => to(Connect, &[StopConnectRetry, StartDelayOpen]),
        E::TcpConnected => to(OpenSent, &[StopConnectRetry, SendOpen, StartHoldLarge]),
        // With the DelayOpenTimer running the RFC goes to Active, without it to Idle by way
        // of damping. We go to Active either way: the retry timer is the damping there.
        E::TcpFails => to(Active, &[Drop, StopDelayOpen, StartConnectRetry]),
        E::OpenDelayed => to(
            OpenConfirm,
            &[
                StopConnectRetry,
                StopDelayOpen,
                SendOpen,
                SendKeepalive,
                StartNegotiated,
            ],
        ),
        E::HeaderError | E::OpenError => to(
            Idle,
            &[
                NotifyGiven,
                Drop,
                StopConnectRetry,
                StopSession,
                CountRetry,
                IdleHold,
            ],
        ),
        E::CollisionDump => to(Idle, &[Drop, StopConnectRetry, StopSession]),
        E::NotificationVersionError
        | E::HoldTimerExpires
        | E::SendHoldTimerExpires
        | E::KeepaliveTimerExpires
        | E::Open
        | E::Notification
        | E::Keepalive
        | E::Update
        | E::UpdateError
        | E::RouteRefresh => to(
            Idle,
            &[Drop, StopConnectRetry, StopSession, CountRetry, IdleHold],
        ),
    }
}

/// "In this state, BGP FSM is trying to acquire a peer by listening for, and accepting, a
/// TCP connection."
const fn active(event: E) -> Transition {
    match event {
        E::Start | E::StartPassive | E::IdleHoldTimerExpires => to(Active, &[]),
        E::Stop => to(Idle, &[Drop, ZeroRetries, StopConnectRetry, StopSession]),
        E::ConnectRetryTimerExpires => to(Connect, &[StartConnectRetry, Initiate]),
        E::DelayOpenTimerExpires => to(OpenSent, &[StopConnectRetry, SendOpen, StartHoldLarge]),
        E::TcpConnectedDelay => to(Active, &[StopConnectRetry, StartDelayOpen]),
        E::TcpConnected => to(OpenSent, &[StopConnectRetry, SendOpen, StartHoldLarge]),
        E::TcpFails => to(
            Idle,
            &[Drop, StopSession, StopConnectRetry, CountRetry, IdleHold],
        ),
        E::OpenDelayed => to(
            OpenConfirm,
            &[
                StopConnectRetry,
                StopDelayOpen,
                SendOpen,
                SendKeepalive,
                StartNegotiated,
            ],
        ),
        E::HeaderError | E::OpenError => to(
            Idle,
            &[
                NotifyGiven,
                Drop,
                StopConnectRetry,
                StopSession,
                CountRetry,
                IdleHold,
            ],
        ),
        E::CollisionDump => to(Idle, &[Drop, StopConnectRetry, StopSession]),
        E::NotificationVersionError
        | E::HoldTimerExpires
        | E::SendHoldTimerExpires
        | E::KeepaliveTimerExpires
        | E::Open
        | E::Notification
        | E::Keepalive
        | E::Update
        | E::UpdateError
        | E::RouteRefresh => to(
            Idle,
            &[Drop, StopConnectRetry, StopSession, CountRetry, IdleHold],
        ),
    }
}

/// "In this state, BGP FSM waits for an OPEN message from its peer."
const fn open_sent(event: E) -> Transition {
    match event {
        E::Start | E::StartPassive | E::IdleHoldTimerExpires => to(OpenSent, &[]),
        E::Stop => to(
            Idle,
            &[
                NotifyGiven,
                Drop,
                ZeroRetries,
                StopConnectRetry,
                StopSession,
            ],
        ),
        // RFC 9687, section 4.3: nothing can be said to a peer that takes nothing.
        E::SendHoldTimerExpires => to(
            Idle,
            &[
                Notify(SEND_HOLD_TIMER_EXPIRED),
                Drop,
                StopConnectRetry,
                StopSession,
                CountRetry,
                IdleHold,
            ],
        ),
        E::HoldTimerExpires => to(
            Idle,
            &[
                Notify(Code::HOLD_TIMER_EXPIRED),
                Drop,
                StopConnectRetry,
                StopSession,
                CountRetry,
                IdleHold,
            ],
        ),
        E::TcpFails => to(Active, &[Drop, StopSession, StartConnectRetry]),
        E::Open => to(
            OpenConfirm,
            &[
                StopDelayOpen,
                StopConnectRetry,
                SendKeepalive,
                StartNegotiated,
            ],
        ),
        E::HeaderError | E::OpenError => to(
            Idle,
            &[
                NotifyGiven,
                Drop,
                StopConnectRetry,
                StopSession,
                CountRetry,
                IdleHold,
            ],
        ),
        E::CollisionDump => to(
            Idle,
            &[Notify(Code::COLLISION), Drop, StopConnectRetry, StopSession],
        ),
        // The peer speaks another version: no fault of ours, so nothing is counted.
        E::NotificationVersionError => to(Idle, &[Drop, StopConnectRetry, StopSession, IdleHold]),
        // The RFC answers a NOTIFICATION here with a state machine error; a peer that
        // resolves a collision or shuts down sends one all the same, so it is taken for
        // what it says.
        E::Notification => to(
            Idle,
            &[Drop, StopConnectRetry, StopSession, CountRetry, IdleHold],
        ),
        E::ConnectRetryTimerExpires
        | E::KeepaliveTimerExpires
        | E::DelayOpenTimerExpires
        | E::TcpConnected
        | E::TcpConnectedDelay
        | E::OpenDelayed
        | E::Keepalive
        | E::Update
        | E::UpdateError
        | E::RouteRefresh => to(
            Idle,
            &[
                Notify(Code::FSM_OPEN_SENT),
                Drop,
                StopConnectRetry,
                StopSession,
                CountRetry,
                IdleHold,
            ],
        ),
    }
}

/// "In this state, BGP waits for a KEEPALIVE or NOTIFICATION message."
const fn open_confirm(event: E) -> Transition {
    match event {
        E::Start | E::StartPassive | E::IdleHoldTimerExpires => to(OpenConfirm, &[]),
        E::Stop => to(
            Idle,
            &[
                NotifyGiven,
                Drop,
                ZeroRetries,
                StopConnectRetry,
                StopSession,
            ],
        ),
        // RFC 9687, section 4.3: nothing can be said to a peer that takes nothing.
        E::SendHoldTimerExpires => to(
            Idle,
            &[
                Notify(SEND_HOLD_TIMER_EXPIRED),
                Drop,
                StopConnectRetry,
                StopSession,
                CountRetry,
                IdleHold,
            ],
        ),
        E::HoldTimerExpires => to(
            Idle,
            &[
                Notify(Code::HOLD_TIMER_EXPIRED),
                Drop,
                StopConnectRetry,
                StopSession,
                CountRetry,
                IdleHold,
            ],
        ),
        E::KeepaliveTimerExpires => to(OpenConfirm, &[SendKeepalive, RestartKeepalive]),
        E::TcpFails | E::Notification => to(
            Idle,
            &[Drop, StopConnectRetry, StopSession, CountRetry, IdleHold],
        ),
        E::NotificationVersionError => to(Idle, &[Drop, StopConnectRetry, StopSession, IdleHold]),
        E::HeaderError | E::OpenError => to(
            Idle,
            &[
                NotifyGiven,
                Drop,
                StopConnectRetry,
                StopSession,
                CountRetry,
                IdleHold,
            ],
        ),
        E::CollisionDump => to(
            Idle,
            &[Notify(Code::COLLISION), Drop, StopConnectRetry, StopSession],
        ),
        E::Keepalive => to(Established, &[RestartHold, Up]),
        E::ConnectRetryTimerExpires
        | E::DelayOpenTimerExpires
        | E::TcpConnected
        | E::TcpConnectedDelay
        | E::Open
        | E::OpenDelayed
        | E::Update
        | E::UpdateError
        | E::RouteRefresh => to(
            Idle,
            &[
                Notify(Code::FSM_OPEN_CONFIRM),
                Drop,
                StopConnectRetry,
                StopSession,
                CountRetry,
                IdleHold,
            ],
        ),
    }
}

/// "In the Established state, the BGP FSM can exchange UPDATE, NOTIFICATION, and KEEPALIVE
/// messages with its peer."
const fn established(event: E) -> Transition {
    match event {
        E::Start | E::StartPassive | E::IdleHoldTimerExpires => to(Established, &[]),
        E::Stop => to(
            Idle,
            &[
                NotifyGiven,
                Down,
                Drop,
                ZeroRetries,
                StopConnectRetry,
                StopSession,
            ],
        ),
        // RFC 9687, section 4.3: nothing can be said to a peer that takes nothing.
        E::SendHoldTimerExpires => to(
            Idle,
            &[
                Notify(SEND_HOLD_TIMER_EXPIRED),
                Down,
                Drop,
                StopConnectRetry,
                StopSession,
                CountRetry,
                IdleHold,
            ],
        ),
        E::HoldTimerExpires => to(
            Idle,
            &[
                Notify(Code::HOLD_TIMER_EXPIRED),
                Down,
                Drop,
                StopConnectRetry,
                StopSession,
                CountRetry,
                IdleHold,
            ],
        ),
        E::KeepaliveTimerExpires => to(Established, &[SendKeepalive, RestartKeepalive]),
        E::TcpFails | E::Notification | E::NotificationVersionError => to(
            Idle,
            &[
                Down,
                Drop,
                StopConnectRetry,
                StopSession,
                CountRetry,
                IdleHold,
            ],
        ),
        E::HeaderError | E::UpdateError => to(
            Idle,
            &[
                NotifyGiven,
                Down,
                Drop,
                StopConnectRetry,
                StopSession,
                CountRetry,
                IdleHold,
            ],
        ),
        E::CollisionDump => to(
            Idle,
            &[
                Notify(Code::COLLISION),
                Down,
                Drop,
                StopConnectRetry,
                StopSession,
            ],
        ),
        E::Keepalive => to(Established, &[RestartHold]),
        E::Update | E::RouteRefresh => to(Established, &[RestartHold, Deliver]),
        E::ConnectRetryTimerExpires
        | E::DelayOpenTimerExpires
        | E::TcpConnected
        | E::TcpConnectedDelay
        | E::Open
        | E::OpenDelayed
        | E::OpenError => to(
            Idle,
            &[
                Notify(Code::FSM_ESTABLISHED),
                Down,
                Drop,
                StopConnectRetry,
                StopSession,
                CountRetry,
                IdleHold,
            ],
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fsm::State;

    const STATES: [State; 6] = [Idle, Connect, Active, OpenSent, OpenConfirm, Established];
    const EVENTS: [E; 23] = [
        E::Start,
        E::StartPassive,
        E::Stop,
        E::ConnectRetryTimerExpires,
        E::HoldTimerExpires,
        E::SendHoldTimerExpires,
        E::KeepaliveTimerExpires,
        E::DelayOpenTimerExpires,
        E::IdleHoldTimerExpires,
        E::TcpConnected,
        E::TcpConnectedDelay,
        E::TcpFails,
        E::Open,
        E::OpenDelayed,
        E::HeaderError,
        E::OpenError,
        E::CollisionDump,
        E::NotificationVersionError,
        E::Notification,
        E::Keepalive,
        E::Update,
        E::UpdateError,
        E::RouteRefresh,
    ];

    /// What must be so of every row, whatever the RFC says in it.
    #[test]
    fn rules_of_all_rows() {
        for state in STATES {
            for event in EVENTS {
                let Transition { next, actions } = step(state, event);
                let has = |a: Action| actions.contains(&a);
                let at = |a: Action| actions.iter().position(|x| *x == a);
                let row = format!("{state} {event:?}");
                assert_eq!(has(Down), state == Established && next == Idle, "{row}");
                assert_eq!(
                    has(Up),
                    state == OpenConfirm && next == Established,
                    "{row}"
                );
                assert!(
                    !has(Deliver) || state == Established && next == Established,
                    "{row}"
                );
                let notifies = actions
                    .iter()
                    .position(|a| matches!(a, Notify(_) | NotifyGiven));
                if let Some(n) = notifies {
                    assert!(n < at(Drop).expect("a NOTIFICATION ends it"), "{row}");
                    assert_eq!(next, Idle, "{row}");
                }
                if state > Active && next == Idle {
                    assert!(
                        has(Drop) && has(StopSession) && has(StopConnectRetry),
                        "{row}"
                    );
                }
                if has(CountRetry) {
                    assert!(has(IdleHold), "{row}: an error damps");
                }
                if let (Some(down), Some(drop)) = (at(Down), at(Drop)) {
                    assert!(down < drop, "{row}");
                }
                assert!(
                    !has(SendOpen) || matches!(next, OpenSent | OpenConfirm),
                    "{row}"
                );
                assert_eq!(
                    has(Initiate),
                    next == Connect && has(StartConnectRetry),
                    "{row}"
                );
            }
        }
    }

    /// Nothing but an OPEN and a KEEPALIVE in their states leads to Established.
    #[test]
    fn the_one_way_up() {
        for state in STATES {
            for event in EVENTS {
                let next = step(state, event).next;
                if next > state && next != Connect && next != Active {
                    let expected = match (state, event) {
                        (Connect | Active, E::TcpConnected | E::DelayOpenTimerExpires) => OpenSent,
                        (Connect | Active, E::OpenDelayed) | (OpenSent, E::Open) => OpenConfirm,
                        (OpenConfirm, E::Keepalive) => Established,
                        _ => panic!("{state} {event:?} leads to {next}"),
                    };
                    assert_eq!(next, expected);
                }
            }
        }
    }

    /// Messages out of place are answered with the subcode of the state (RFC 6608).
    #[test]
    fn messages_out_of_place() {
        for (state, event, code) in [
            (OpenSent, E::Update, Code::FSM_OPEN_SENT),
            (OpenSent, E::Keepalive, Code::FSM_OPEN_SENT),
            (OpenConfirm, E::Open, Code::FSM_OPEN_CONFIRM),
            (OpenConfirm, E::Update, Code::FSM_OPEN_CONFIRM),
            (Established, E::Open, Code::FSM_ESTABLISHED),
        ] {
            let t = step(state, event);
            assert_eq!(
                (t.next, t.actions[0]),
                (Idle, Notify(code)),
                "{state} {event:?}"
            );
        }
    }
}
