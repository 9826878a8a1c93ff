//! Time as the pure layers see it: values that are handed in, never read from a clock.
//!
//! `sys::clock` is the only place that reads one. Nanoseconds since an arbitrary epoch
//! (`CLOCK_MONOTONIC` in the running daemon) serve the protocol machines; the connection table
//! stores the coarse [`Tick`].

#![forbid(unsafe_code)]

use std::{
    ops::{Add, Sub},
    time::Duration,
};

/// A point on the monotonic time line, in nanoseconds since an arbitrary epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The epoch itself.
    pub const ZERO: Self = Self(0);

    /// The instant `nanos` nanoseconds after the epoch.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the epoch.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The coarse tick that this instant lies in.
    #[expect(clippy::cast_possible_truncation, reason = "ticks wrap by design")]
    pub const fn tick(self) -> Tick {
        Tick((self.0 / Tick::NANOS) as u32)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    /// Saturates 584 years after the epoch.
    fn add(self, rhs: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

impl Sub for Instant {
    type Output = Duration;

    /// Zero when `rhs` is the later one.
    fn sub(self, rhs: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(rhs.0))
    }
}

/// Coarse time for connection records: tenths of a second, wrapping after 13.6 years.
///
/// A worker reads the clock once a burst and stamps every packet of the burst with one tick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tick(u32);

impl Tick {
    /// Length of one tick in nanoseconds.
    pub const NANOS: u64 = 100_000_000;
    /// Ticks in a second.
    pub const PER_SECOND: u32 = 10;

    /// The tick with this number.
    pub const fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    /// The number of this tick.
    pub const fn raw(self) -> u32 {
        self.0
    }

    /// Ticks from `earlier` to `self`, wrapping; at most half the range is meaningful.
    pub const fn since(self, earlier: Self) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }

    /// The tick `seconds` later.
    pub const fn plus_secs(self, seconds: u32) -> Self {
        Self(self.0.wrapping_add(seconds.wrapping_mul(Self::PER_SECOND)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_never_go_below_zero() {
        let early = Instant::from_nanos(5);
        let late = early + Duration::from_secs(2);
        assert_eq!(late - early, Duration::from_secs(2));
        assert_eq!(early - late, Duration::ZERO);
    }

    #[test]
    fn ticks_count_tenths_of_a_second_and_wrap() {
        let start = Instant::from_nanos(u64::from(u32::MAX) * Tick::NANOS);
        let later = start + Duration::from_millis(250);
        assert_eq!(later.tick().since(start.tick()), 2);
        assert_eq!(start.tick().plus_secs(3).since(start.tick()), 30);
    }
}
