//! The timers of one instance: a fixed table, so that none can be forgotten or doubled.

use std::time::Duration;

use crate::time::Instant;

/// What an instance waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    /// The end of the startup delay.
    Startup,
    /// Master_Down_Timer: the MASTER has been silent for too long. RFC 3768 §6.2.
    MasterDown,
    /// Adver_Timer: the next advert is due. RFC 3768 §6.2.
    Advert,
    /// The second set of gratuitous ARP after becoming MASTER.
    GarpSecond,
    /// The next periodic set.
    GarpRefresh,
    /// An answer to another router's advert that had to wait for the limit.
    GarpAnswer,
    /// The second answer to another router's advert.
    GarpAnswerSecond,
}

impl Timer {
    const COUNT: usize = Self::GarpAnswerSecond as usize + 1;
}

#[derive(Clone, Debug, Default)]
pub(super) struct Timers([Option<Instant>; Timer::COUNT]);

impl Timers {
    pub(super) fn set(&mut self, timer: Timer, at: Instant) {
        self.0[timer as usize] = Some(at);
    }

    pub(super) fn clear(&mut self, timer: Timer) {
        self.0[timer as usize] = None;
    }

    pub(super) fn clear_all(&mut self) {
        *self = Self::default();
    }

    /// Disarms `timer` and returns its deadline, if that has come.
    pub(super) fn take_due(&mut self, timer: Timer, now: Instant) -> Option<Instant> {
        self.0[timer as usize].take_if(|deadline| *deadline <= now)
    }

    pub(super) const fn get(&self, timer: Timer) -> Option<Instant> {
        self.0[timer as usize]
    }

    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.iter().flatten().min().copied()
    }
}

/// The first point after `now` on the grid of `period` that `deadline` lies on: what was missed
/// is left out, and the phase is kept.
pub(super) fn next_on_grid(deadline: Instant, period: Duration, now: Instant) -> Instant {
    let period = period.max(Duration::from_nanos(1));
    let missed = (now - deadline).as_nanos() / period.as_nanos();
    let nanos = (missed + 1) * period.as_nanos();
    deadline + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }

    #[test]
    fn a_timer_fires_once_and_not_early() {
        let mut timers = Timers::default();
        timers.set(Timer::Advert, at(100));
        timers.set(Timer::GarpSecond, at(50));
        assert_eq!(timers.next(), Some(at(50)));
        assert_eq!(timers.take_due(Timer::Advert, at(99)), None);
        assert_eq!(timers.take_due(Timer::Advert, at(101)), Some(at(100)));
        assert_eq!(timers.take_due(Timer::Advert, at(102)), None);
        assert_eq!(timers.next(), Some(at(50)));
    }

    #[test]
    fn the_grid_keeps_its_phase_and_skips_what_was_missed() {
        let second = Duration::from_secs(1);
        assert_eq!(next_on_grid(at(100), second, at(100)), at(1100));
        assert_eq!(next_on_grid(at(100), second, at(130)), at(1100));
        assert_eq!(next_on_grid(at(100), second, at(1100)), at(2100));
        assert_eq!(next_on_grid(at(100), second, at(4950)), at(5100));
    }
}
