//! TCP state as IPVS tracks it: from the flags of the segments that pass, seen from one side or
//! from both.

use super::State;
use crate::wire::tcp::Flags;

use self::State::{
    Close as CL, CloseWait as CW, Established as ES, FinWait as FW, LastAck as LA, Listen as LI,
    SynRecv as SR, SynSent as SS, TimeWait as TW,
};

/// Which way a segment goes, and whether the other way is seen at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client, where answers pass here too (NAT).
    In,
    /// From the real server (NAT).
    Out,
    /// From the client, where answers take another way (DR, TUN).
    InOnly,
}

/// What a segment says, by the first of its flags in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// RST.
    Reset,
    /// SYN.
    Open,
    /// FIN.
    Finish,
    /// ACK.
    Acknowledge,
    /// None of them.
    Nothing,
}

impl Event {
    /// What a segment with these flags says.
    #[inline]
    pub const fn of(flags: Flags) -> Self {
        if flags.contains(Flags::RST) {
            Self::Reset
        } else if flags.contains(Flags::SYN) {
            Self::Open
        } else if flags.contains(Flags::FIN) {
            Self::Finish
        } else if flags.contains(Flags::ACK) {
            Self::Acknowledge
        } else {
            Self::Nothing
        }
    }
}

/// States that TCP has: the numbers of [`State`] below this.
const STATES: usize = 11;

/// One direction: a row an event, a column a state.
type Table = [[State; STATES]; 5];

//                      NO  ES  SS  SR  FW  TW  CL  CW  LA  LI  SA
const IN: Table = [
    /* RST */ [CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, SR],
    /* SYN */ [SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR],
    /* FIN */ [CL, CW, SS, TW, TW, TW, CL, CW, LA, LI, TW],
    /* ACK */ [ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES],
    /* --- */ [CL, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL],
];
const OUT: Table = [
    /* RST */ [CL, CL, SS, CL, CL, TW, CL, CL, CL, CL, CL],
    /* SYN */ [SS, ES, SS, SR, SS, SS, SS, SS, SS, LI, SR],
    /* FIN */ [TW, FW, SS, TW, FW, TW, CL, TW, LA, LI, TW],
    /* ACK */ [ES, ES, SS, ES, FW, TW, CL, CW, LA, ES, ES],
    /* --- */ [CL, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL],
];
const IN_ONLY: Table = [
    /* RST */ [CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL],
    /* SYN */ [SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR],
    /* FIN */ [CL, FW, SS, TW, FW, TW, CL, CW, LA, LI, TW],
    /* ACK */ [ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES],
    /* --- */ [CL, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL],
];

/// The state after a segment that says `event`. States of other protocols stay as they are.
#[inline]
pub const fn next(direction: Direction, event: Event, state: State) -> State {
    let table = match direction {
        Direction::In => &IN,
        Direction::Out => &OUT,
        Direction::InOnly => &IN_ONLY,
    };
    if (state as usize) < STATES {
        table[event as usize][state as usize]
    } else {
        state
    }
}

#[cfg(test)]
mod tests {
    use super::{
        Direction::*,
        Event::*,
        State::{None as NO, SynAck as SA},
        *,
    };

    const TCP: [State; STATES] = [NO, ES, SS, SR, FW, TW, CL, CW, LA, LI, SA];

    /// The rules of IPVS in words: (event, what changes, what becomes of all the rest).
    fn rule(direction: Direction, event: Event, state: State) -> State {
        match (direction, event) {
            (_, Nothing) => CL,
            (In | InOnly, Open) => match state {
                ES | SS => ES,
                _ => SR,
            },
            (InOnly, Finish) if state == ES || state == FW => FW,
            (In | InOnly, Finish) => match state {
                ES => CW,
                SR | FW | SA => TW,
                NO => CL,
                stays => stays,
            },
            (In | InOnly, Acknowledge) => match state {
                NO | SR | SA => ES,
                LA => CL,
                stays => stays,
            },
            (InOnly, Reset) if state == SA => CL,
            (In | InOnly, Reset) => match state {
                SR | LA | LI => state,
                SA => SR,
                _ => CL,
            },
            (Out, Open) => match state {
                ES | SR | LI => state,
                SA => SR,
                _ => SS,
            },
            (Out, Finish) => match state {
                ES => FW,
                NO | SR | CW | SA => TW,
                stays => stays,
            },
            (Out, Acknowledge) => match state {
                NO | SR | LI | SA => ES,
                stays => stays,
            },
            (Out, Reset) => match state {
                SS | TW => state,
                _ => CL,
            },
        }
    }

    #[test]
    fn the_table_is_the_rules() {
        for direction in [In, Out, InOnly] {
            for event in [Reset, Open, Finish, Acknowledge, Nothing] {
                for state in TCP {
                    assert_eq!(
                        next(direction, event, state),
                        rule(direction, event, state),
                        "{direction:?} {event:?} in {state:?}"
                    );
                }
                assert_eq!(next(direction, event, State::Template), State::Template);
            }
        }
    }

    #[test]
    fn flags_have_an_order() {
        let flags = |bits: &[Flags]| bits.iter().fold(Flags::default(), |a, b| a.union(*b));
        for (bits, event) in [
            (
                flags(&[Flags::RST, Flags::SYN, Flags::FIN, Flags::ACK]),
                Reset,
            ),
            (flags(&[Flags::SYN, Flags::FIN, Flags::ACK]), Open),
            (flags(&[Flags::FIN, Flags::ACK]), Finish),
            (Flags::ACK, Acknowledge),
            (Flags(0x08), Nothing),
        ] {
            assert_eq!(Event::of(bits), event);
        }
    }

    /// What a connection goes through, told as its segments.
    fn walk(segments: &[(Direction, Event)]) -> Vec<State> {
        let mut state = NO;
        let step = |&(direction, event): &(Direction, Event)| {
            state = next(direction, event, state);
            state
        };
        segments.iter().map(step).collect()
    }

    #[test]
    fn whole_connections_end_as_in_ipvs() {
        let client_closes = [
            (In, Open),
            (Out, Open),
            (In, Acknowledge),
            (In, Finish),
            (Out, Finish),
            (In, Acknowledge),
        ];
        assert_eq!(walk(&client_closes), [SR, SR, ES, CW, TW, TW]);
        let server_closes = [
            (In, Open),
            (Out, Open),
            (In, Acknowledge),
            (Out, Finish),
            (In, Acknowledge),
            (In, Finish),
        ];
        assert_eq!(walk(&server_closes), [SR, SR, ES, FW, FW, TW]);
        let direct_routing = [
            (InOnly, Open),
            (InOnly, Acknowledge),
            (InOnly, Finish),
            (InOnly, Acknowledge),
            (InOnly, Open),
        ];
        assert_eq!(walk(&direct_routing), [SR, ES, FW, FW, SR]);
    }
}
