//! Work that follows changes: at once after a quiet time, and then not again for a while.

use std::time::Duration;

use crate::time::Instant;

/// Gathers changes so that the work that they ask for begins at most once in a period.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    period: Duration,
    wanted: Option<Instant>,
    /// From when on the work may begin again.
    free_at: Instant,
}

impl Pace {
    pub(super) const fn new(period: Duration) -> Self {
        Self {
            period,
            wanted: None,
            free_at: Instant::ZERO,
        }
    }

    /// Something changed.
    pub(super) fn want(&mut self, now: Instant) {
        let soonest = self.free_at.max(now);
        self.wanted.get_or_insert(soonest);
    }

    /// Whether the work is to be done now, for everything that has changed so far.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let due = self.wanted.is_some_and(|at| at <= now);
        if due {
            self.wanted = None;
            self.free_at = now + self.period;
        }
        due
    }

    /// When [`Self::take`] will say so.
    pub(super) const fn poll_timeout(&self) -> Option<Instant> {
        self.wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn the_first_change_acts_at_once_and_the_next_ones_together_a_period_later() {
        let mut pace = Pace::new(Duration::from_millis(100));
        assert!(!pace.take(at(1000)));
        assert_eq!(pace.poll_timeout(), None);

        pace.want(at(1000));
        assert_eq!(pace.poll_timeout(), Some(at(1000)));
        assert!(pace.take(at(1000)));
        assert!(!pace.take(at(1000)), "once");

        pace.want(at(1020));
        pace.want(at(1090));
        assert_eq!(pace.poll_timeout(), Some(at(1100)));
        assert!(!pace.take(at(1099)));
        assert!(pace.take(at(1103)));
        assert_eq!(pace.poll_timeout(), None);

        pace.want(at(1300));
        assert!(pace.take(at(1300)), "it was quiet for long enough");
    }
}
