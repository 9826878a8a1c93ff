//! States of a table entry, whatever its protocol, and how long it may idle in each.

use std::time::Duration;

use crate::time::Tick;

/// Defines the states with their names and IPVS's timeouts in seconds.
macro_rules! states {
    ($($(#[$doc:meta])* $variant:ident => $name:literal, $seconds:literal;)+) => {
        /// The state of an entry: a connection's as IPVS tracks it for its protocol, or a template's.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum State {
            $($(#[$doc])* $variant,)+
        }

        impl State {
            /// Every state, in the order of their numbers.
            pub const ALL: [Self; [$($seconds),+].len()] = [$(Self::$variant),+];

            /// The name as `ipvsadm -Lnc` shows it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// How long a connection may idle in each state by default, in seconds.
            const SECONDS: [u32; Self::ALL.len()] = [$($seconds),+];
        }
    };
}

states! {
    /// TCP: nothing seen yet.
    #[default]
    None => "NONE", 2;
    /// TCP.
    Established => "ESTABLISHED", 900;
    /// TCP.
    SynSent => "SYN_SENT", 120;
    /// TCP: the client asked for a connection and has not shown that it hears the answer.
    SynRecv => "SYN_RECV", 60;
    /// TCP.
    FinWait => "FIN_WAIT", 120;
    /// TCP.
    TimeWait => "TIME_WAIT", 120;
    /// TCP.
    Close => "CLOSE", 10;
    /// TCP.
    CloseWait => "CLOSE_WAIT", 60;
    /// TCP.
    LastAck => "LAST_ACK", 30;
    /// TCP.
    Listen => "LISTEN", 120;
    /// TCP.
    SynAck => "SYNACK", 120;
    /// A persistence template. Its timeout is its virtual server's, not one of [`Timeouts`].
    Template => "NONE", 0;
    /// UDP, which has one state.
    Udp => "UDP", 300;
    /// SCTP: nothing seen yet.
    SctpNone => "NONE", 2;
    /// SCTP: the client's first INIT was seen.
    SctpInit1 => "INIT1", 4;
    /// SCTP: INIT was seen again, or in the middle of something.
    SctpInit => "INIT", 61;
    /// SCTP: INIT ACK was sent by the real server.
    SctpCookieSent => "C-SENT", 61;
    /// SCTP: COOKIE ECHO was answered.
    SctpCookieReplied => "C-REPLIED", 61;
    /// SCTP: INIT from the real server, waiting for INIT ACK.
    SctpCookieWait => "C-WAIT", 61;
    /// SCTP: INIT ACK came from the client.
    SctpCookie => "COOKIE", 61;
    /// SCTP: COOKIE ECHO was sent by the real server.
    SctpCookieEchoed => "C-ECHOED", 61;
    /// SCTP.
    SctpEstablished => "ESTABLISHED", 900;
    /// SCTP: SHUTDOWN was sent by the real server.
    SctpShutdownSent => "S-SENT", 61;
    /// SCTP: SHUTDOWN came from the client.
    SctpShutdownReceived => "S-RECEIVED", 61;
    /// SCTP: SHUTDOWN ACK.
    SctpShutdownAckSent => "S-ACK-SENT", 61;
    /// SCTP: refused.
    SctpRejected => "REJECTED", 4;
    /// SCTP.
    SctpClosed => "CLOSED", 61;
}

impl State {
    /// Whether IPVS counts a connection in this state as active (`ActiveConn`), not `InActConn`.
    #[inline]
    pub const fn is_active(self) -> bool {
        matches!(
            self,
            Self::Established
                | Self::SynSent
                | Self::SynRecv
                | Self::SynAck
                | Self::SctpEstablished
        )
    }

    /// Whether the connection is not established yet: what a flood of first packets leaves behind.
    #[inline]
    pub const fn is_half_open(self) -> bool {
        matches!(
            self,
            Self::None
                | Self::SynSent
                | Self::SynRecv
                | Self::SynAck
                | Self::SctpNone
                | Self::SctpInit1
                | Self::SctpInit
                | Self::SctpCookieSent
                | Self::SctpCookieReplied
                | Self::SctpCookieWait
                | Self::SctpCookie
                | Self::SctpCookieEchoed
        )
    }

    /// Whether neither side has anything more to say.
    #[inline]
    pub const fn is_finished(self) -> bool {
        matches!(
            self,
            Self::TimeWait | Self::Close | Self::SctpRejected | Self::SctpClosed
        )
    }

    /// Whether one side has nothing more to say, or the connection is over but for an answer that
    /// never passes here: where a direct-routed connection stays once its client has closed it.
    #[inline]
    pub const fn is_closing(self) -> bool {
        matches!(
            self,
            Self::FinWait
                | Self::CloseWait
                | Self::LastAck
                | Self::Listen
                | Self::SctpShutdownSent
                | Self::SctpShutdownReceived
                | Self::SctpShutdownAckSent
        )
    }

    /// Whether packets pass freely in both directions: TCP's and SCTP's established state, and UDP.
    #[inline]
    pub const fn is_established(self) -> bool {
        matches!(self, Self::Established | Self::Udp | Self::SctpEstablished)
    }
}

/// How long a connection may idle in each state before it is forgotten. The clock restarts with
/// every packet.
///
/// Defaults are those of IPVS in seconds: TCP `NONE` 2, `ESTABLISHED` 900, `SYN_SENT` 120, `SYN_RECV`
/// 60, `FIN_WAIT` 120, `TIME_WAIT` 120, `CLOSE` 10, `CLOSE_WAIT` 60, `LAST_ACK` 30, `LISTEN` 120,
/// `SYNACK` 120; UDP 300; SCTP `ESTABLISHED` 900, `INIT1` and `REJECTED` 4, all else 61.
/// keepalived's `lvs_timeouts` changes TCP's `ESTABLISHED` and `FIN_WAIT`, and UDP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    ticks: [u32; State::ALL.len()],
}

impl Timeouts {
    /// Sets the timeout of `state`. Rounded up to a [`Tick`], at least one and at most a year;
    /// templates have their own.
    #[must_use]
    pub fn with(mut self, state: State, timeout: Duration) -> Self {
        self.ticks[state as usize] = ticks(timeout);
        self
    }

    /// The timeout of `state` in ticks.
    #[inline]
    pub const fn ticks(&self, state: State) -> u32 {
        self.ticks[state as usize]
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            ticks: State::SECONDS.map(|s| s * Tick::PER_SECOND),
        }
    }
}

/// A year: half the range of a [`Tick`] would still tell before from after.
const MAX_TIMEOUT: Duration = Duration::from_secs(31_536_000);

/// `timeout` in ticks, rounded up, at least one and at most a year's.
pub(super) fn ticks(timeout: Duration) -> u32 {
    let nanos = timeout.min(MAX_TIMEOUT).as_nanos();
    let ticks = nanos.div_ceil(u128::from(Tick::NANOS)).max(1);
    u32::try_from(ticks).unwrap_or(u32::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_index_their_timeouts() {
        for (n, state) in State::ALL.iter().enumerate() {
            assert_eq!(*state as usize, n);
        }
        let timeouts = Timeouts::default();
        assert_eq!(timeouts.ticks(State::Established), 9000);
        assert_eq!(timeouts.ticks(State::LastAck), 300);
        let set = timeouts.with(State::FinWait, Duration::from_millis(1_001));
        assert_eq!(set.ticks(State::FinWait), 11);
    }

    #[test]
    fn timeouts_stay_in_range() {
        assert_eq!(ticks(Duration::ZERO), 1);
        assert_eq!(ticks(Duration::MAX), 315_360_000);
    }

    #[test]
    fn active_are_the_states_that_ipvs_counts() {
        let active: Vec<_> = State::ALL
            .iter()
            .filter(|s| s.is_active())
            .map(|s| s.name())
            .collect();
        assert_eq!(
            active,
            [
                "ESTABLISHED",
                "SYN_SENT",
                "SYN_RECV",
                "SYNACK",
                "ESTABLISHED"
            ],
            "TCP's, and SCTP's established"
        );
    }
}
