//! States of a table entry and how long it may idle in each.

use std::time::Duration;

use crate::time::Tick;

/// The state of an entry: a TCP connection's as IPVS tracks it, or a template's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum State {
    /// Nothing seen yet (IPVS `NONE`).
    #[default]
    None,
    /// `ESTABLISHED`.
    Established,
    /// `SYN_SENT`.
    SynSent,
    /// `SYN_RECV`: the client asked for a connection and has not shown that it hears the answer.
    SynRecv,
    /// `FIN_WAIT`.
    FinWait,
    /// `TIME_WAIT`.
    TimeWait,
    /// `CLOSE`.
    Close,
    /// `CLOSE_WAIT`.
    CloseWait,
    /// `LAST_ACK`.
    LastAck,
    /// `LISTEN`.
    Listen,
    /// `SYNACK`.
    SynAck,
    /// A persistence template. Its timeout is its virtual server's, not one of [`Timeouts`].
    Template,
}

impl State {
    /// Every state, in the order of their numbers.
    pub const ALL: [Self; 12] = [
        Self::None,
        Self::Established,
        Self::SynSent,
        Self::SynRecv,
        Self::FinWait,
        Self::TimeWait,
        Self::Close,
        Self::CloseWait,
        Self::LastAck,
        Self::Listen,
        Self::SynAck,
        Self::Template,
    ];

    /// The name as `ipvsadm -Lnc` shows it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None | Self::Template => "NONE",
            Self::Established => "ESTABLISHED",
            Self::SynSent => "SYN_SENT",
            Self::SynRecv => "SYN_RECV",
            Self::FinWait => "FIN_WAIT",
            Self::TimeWait => "TIME_WAIT",
            Self::Close => "CLOSE",
            Self::CloseWait => "CLOSE_WAIT",
            Self::LastAck => "LAST_ACK",
            Self::Listen => "LISTEN",
            Self::SynAck => "SYNACK",
        }
    }

    /// Whether IPVS counts a connection in this state as active (`ActiveConn`), not `InActConn`.
    #[inline]
    pub const fn is_active(self) -> bool {
        matches!(
            self,
            Self::Established | Self::SynSent | Self::SynRecv | Self::SynAck
        )
    }

    /// Whether the connection is not established yet: what a SYN flood leaves behind.
    #[inline]
    pub const fn is_half_open(self) -> bool {
        matches!(
            self,
            Self::None | Self::SynSent | Self::SynRecv | Self::SynAck
        )
    }

    /// Whether neither side has anything more to say.
    #[inline]
    pub const fn is_finished(self) -> bool {
        matches!(self, Self::TimeWait | Self::Close)
    }

    /// Whether one side has nothing more to say, or the connection is over but for an answer that
    /// never passes here: where a direct-routed connection stays once its client has closed it.
    #[inline]
    pub const fn is_closing(self) -> bool {
        matches!(
            self,
            Self::FinWait | Self::CloseWait | Self::LastAck | Self::Listen
        )
    }
}

/// How long a connection may idle in each state before it is forgotten. The clock restarts with
/// every packet.
///
/// Defaults are those of IPVS in seconds: `NONE` 2, `ESTABLISHED` 900, `SYN_SENT` 120, `SYN_RECV`
/// 60, `FIN_WAIT` 120, `TIME_WAIT` 120, `CLOSE` 10, `CLOSE_WAIT` 60, `LAST_ACK` 30, `LISTEN` 120,
/// `SYNACK` 120. `ipvsadm --set` changes `ESTABLISHED` and `FIN_WAIT`.
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
        let seconds = [2, 900, 120, 60, 120, 120, 10, 60, 30, 120, 120, 0];
        Self {
            ticks: seconds.map(|s| s * Tick::PER_SECOND),
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
        assert_eq!(active, ["ESTABLISHED", "SYN_SENT", "SYN_RECV", "SYNACK"]);
    }
}
