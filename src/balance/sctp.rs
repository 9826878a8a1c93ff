//! SCTP state as IPVS tracks it: from the first chunk of the packets that pass, seen from one side or
//! from both. Each rule says what changes; a state that no rule names stays.

use super::{
    State::{
        self, SctpClosed as Closed, SctpCookie as Cookie, SctpCookieEchoed as CookieEchoed,
        SctpCookieReplied as CookieReplied, SctpCookieSent as CookieSent,
        SctpCookieWait as CookieWait, SctpEstablished as Established, SctpInit as Init,
        SctpInit1 as Init1, SctpNone as Nothing, SctpRejected as Rejected,
        SctpShutdownAckSent as ShutdownAckSent, SctpShutdownReceived as ShutdownReceived,
        SctpShutdownSent as ShutdownSent,
    },
    tcp::Direction,
};

/// What a packet says, by the type of its first chunk. RFC 9260 §3.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// DATA, SACK, HEARTBEAT and whatever has no meaning for the state.
    Data,
    /// INIT.
    Init,
    /// INIT ACK.
    InitAck,
    /// COOKIE ECHO.
    CookieEcho,
    /// COOKIE ACK.
    CookieAck,
    /// SHUTDOWN.
    Shutdown,
    /// SHUTDOWN ACK.
    ShutdownAck,
    /// SHUTDOWN COMPLETE.
    ShutdownComplete,
    /// ERROR.
    Error,
    /// ABORT.
    Abort,
}

impl Event {
    /// What a packet says whose first chunk has this type.
    pub const fn of(chunk: u8) -> Self {
        match chunk {
            1 => Self::Init,
            2 => Self::InitAck,
            6 => Self::Abort,
            7 => Self::Shutdown,
            8 => Self::ShutdownAck,
            9 => Self::Error,
            10 => Self::CookieEcho,
            11 => Self::CookieAck,
            14 => Self::ShutdownComplete,
            _ => Self::Data,
        }
    }
}

/// The state after a packet that says `event`. States of other protocols stay as they are.
pub const fn next(direction: Direction, event: Event, state: State) -> State {
    if !is_sctp(state) {
        return state;
    }
    match direction {
        Direction::In => from_client(event, state),
        Direction::Out => from_real_server(event, state),
        Direction::InOnly => from_client_alone(event, state),
    }
}

const fn is_sctp(state: State) -> bool {
    state as u8 >= Nothing as u8
}

const fn from_client(event: Event, state: State) -> State {
    match (event, state) {
        (Event::Data, Nothing) => Established,
        (Event::Init, Nothing) => Init1,
        (Event::Init, Init1 | Rejected | Closed) => Init,
        (Event::InitAck, Nothing | Init1 | Init) => CookieWait,
        (Event::InitAck, CookieWait) => Cookie,
        (Event::CookieEcho, Nothing | CookieSent) => CookieReplied,
        (Event::CookieEcho | Event::ShutdownAck, Init1) => Init,
        (Event::CookieAck, Nothing | CookieEchoed) => Established,
        (Event::Shutdown, Nothing | Established) => ShutdownReceived,
        (Event::ShutdownAck, Nothing | ShutdownSent | ShutdownAckSent) => Closed,
        (Event::ShutdownComplete, Nothing | Init1 | Init | ShutdownAckSent) => Closed,
        (Event::Error, Nothing | CookieEchoed) => Closed,
        (Event::Abort, CookieWait) => Rejected,
        (Event::Abort, _) => Closed,
        (_, stays) => stays,
    }
}

const fn from_real_server(event: Event, state: State) -> State {
    match (event, state) {
        (Event::Data, Nothing) => Established,
        (Event::Init, Established) => Established,
        (Event::Init, _) => CookieWait,
        (Event::InitAck, Nothing | Init1 | Init) => CookieSent,
        (
            Event::CookieEcho,
            Nothing | Init1 | Init | CookieSent | CookieReplied | CookieWait | Cookie,
        ) => CookieEchoed,
        (
            Event::CookieAck,
            Nothing | Init1 | Init | CookieSent | CookieReplied | CookieWait | Cookie
            | CookieEchoed,
        ) => Established,
        (Event::Shutdown, ShutdownReceived | ShutdownAckSent | Rejected | Closed) => state,
        (Event::Shutdown, _) => ShutdownSent,
        (
            Event::ShutdownAck,
            Nothing | Init1 | Init | CookieSent | CookieReplied | ShutdownSent | ShutdownReceived,
        ) => ShutdownAckSent,
        (Event::ShutdownComplete, Nothing) => Closed,
        (Event::Error, Nothing | Init1 | Init | CookieSent | CookieReplied) => Closed,
        (Event::Abort, Init1) => Rejected,
        (Event::Abort, _) => Closed,
        (_, stays) => stays,
    }
}

/// What is never seen, the real server's chunks, is taken as sent when the client answers it.
const fn from_client_alone(event: Event, state: State) -> State {
    match (event, state) {
        (Event::Data, Nothing | CookieWait) => Established,
        (Event::Init, Nothing) => Init1,
        (Event::Init, Init1 | CookieSent | CookieReplied | CookieWait | Rejected | Closed) => Init,
        (Event::InitAck, Nothing | Init1 | Init | CookieSent | CookieReplied | CookieWait) => {
            CookieEchoed
        }
        (Event::CookieEcho, Nothing | Init1 | Init | CookieSent | CookieReplied | CookieWait) => {
            Established
        }
        (Event::CookieAck, Nothing | CookieSent | CookieReplied | Cookie | CookieEchoed) => {
            Established
        }
        (Event::Shutdown, Nothing | Established) => ShutdownReceived,
        (Event::ShutdownAck, Nothing | Established | ShutdownSent | ShutdownAckSent) => Closed,
        (Event::ShutdownAck, Init1) => Init,
        (
            Event::ShutdownComplete,
            Nothing | Init1 | Init | CookieSent | CookieReplied | ShutdownReceived
            | ShutdownAckSent,
        ) => Closed,
        (Event::Error, Nothing) => Closed,
        (Event::Abort, CookieWait) => Rejected,
        (Event::Abort, _) => Closed,
        (_, stays) => stays,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(direction: Direction, chunks: &[u8]) -> Vec<&'static str> {
        let mut state = Nothing;
        let step = |chunk: &u8| {
            state = next(direction, Event::of(*chunk), state);
            state.name()
        };
        chunks.iter().map(step).collect()
    }

    #[test]
    fn an_association_seen_from_one_side_is_established_by_its_cookie_and_closed() {
        // INIT, COOKIE ECHO, DATA, SHUTDOWN, SHUTDOWN COMPLETE.
        assert_eq!(
            walk(Direction::InOnly, &[1, 10, 0, 7, 14]),
            [
                "INIT1",
                "ESTABLISHED",
                "ESTABLISHED",
                "S-RECEIVED",
                "CLOSED"
            ]
        );
        // The real server shuts it down: the client answers with SHUTDOWN ACK.
        assert_eq!(
            walk(Direction::InOnly, &[1, 10, 8]),
            ["INIT1", "ESTABLISHED", "CLOSED"]
        );
    }

    #[test]
    fn an_association_seen_from_both_sides_goes_through_every_step() {
        let chunks = [
            (Direction::In, 1, "INIT1"),
            (Direction::Out, 2, "C-SENT"),
            (Direction::In, 10, "C-REPLIED"),
            (Direction::Out, 11, "ESTABLISHED"),
            (Direction::In, 0, "ESTABLISHED"),
            (Direction::Out, 7, "S-SENT"),
            (Direction::In, 8, "CLOSED"),
            (Direction::Out, 14, "CLOSED"),
        ];
        let mut state = Nothing;
        for (direction, chunk, name) in chunks {
            state = next(direction, Event::of(chunk), state);
            assert_eq!(state.name(), name, "{direction:?} {chunk}");
        }
    }

    #[test]
    fn an_abort_ends_it_from_any_state() {
        for direction in [Direction::In, Direction::Out, Direction::InOnly] {
            for state in State::ALL.into_iter().filter(|s| is_sctp(*s)) {
                let after = next(direction, Event::Abort, state);
                assert!(after.is_finished(), "{direction:?} {state:?} {after:?}");
            }
        }
    }

    #[test]
    fn other_protocols_states_are_not_touched() {
        for state in State::ALL.into_iter().filter(|s| !is_sctp(*s)) {
            assert_eq!(next(Direction::In, Event::Abort, state), state);
        }
    }
}
