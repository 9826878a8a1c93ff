//! When which real servers' rates are estimated: each every two seconds, a share of them at a time.

use std::ops::Range;

use crate::{stats::Estimator, time::Instant};

/// Real servers whose counters are looked at in one turn of the loop. Each costs two cache lines of another
/// processor for each worker.
const SHARE: usize = 512;

/// Shares of a period at most; with more real servers than fit, the shares are larger. To find the first of a
/// share costs a walk over the virtual servers.
const MAX_SHARES: usize = 20;

/// Says when and for whom the next sample is due.
#[derive(Debug)]
pub(super) struct Sampling {
    /// The first of the next share.
    next: usize,
    due: Instant,
}

impl Sampling {
    /// The first share is due a period after `now`.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            next: 0,
            due: now + Estimator::PERIOD,
        }
    }

    /// The numbers of those of `count` real servers whose samples are due. They are counted only if some are:
    /// this is asked at every turn of the loop.
    pub(super) fn take(
        &mut self,
        now: Instant,
        count: impl FnOnce() -> usize,
    ) -> Option<Range<usize>> {
        if now < self.due {
            return None;
        }
        let count = count();
        let size = SHARE.max(count.div_ceil(MAX_SHARES));
        let shares = u32::try_from(count.div_ceil(size).max(1)).unwrap_or(u32::MAX);
        let step = Estimator::PERIOD / shares;
        let end = (self.next + size).min(count);
        let share = self.next..end;
        self.next = if end == count { 0 } else { end };
        // After a standstill there is nothing to make up for.
        self.due = if now - self.due < step {
            self.due + step
        } else {
            now + step
        };
        Some(share)
    }

    /// When [`Self::take`] has something.
    pub(super) const fn poll_timeout(&self) -> Instant {
        self.due
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Who is sampled when, in milliseconds, over some periods.
    fn samples(count: usize) -> Vec<Vec<u64>> {
        let mut sampling = Sampling::new(Instant::ZERO);
        let mut times = vec![Vec::new(); count];
        while sampling.poll_timeout() < Instant::ZERO + Estimator::PERIOD * 5 {
            let now = sampling.poll_timeout();
            assert_eq!(
                sampling.take(Instant::from_nanos(now.as_nanos() - 1), || panic!(
                    "nothing is due"
                )),
                None
            );
            for n in sampling.take(now, || count).unwrap() {
                times[n].push(now.as_nanos() / 1_000_000);
            }
        }
        times
    }

    #[test]
    fn each_is_sampled_once_in_a_period_and_few_at_a_time() {
        for count in [0, 1, SHARE, SHARE + 1, 10_000, 100_001] {
            let times = samples(count);
            for own in &times {
                assert_eq!(own.len(), 4, "{count}: {own:?}");
                assert!(
                    own.windows(2).all(|pair| pair[1] - pair[0] == 2000),
                    "{own:?}"
                );
            }
            let mut moments: Vec<u64> = times.into_iter().flatten().collect();
            moments.sort_unstable();
            let most = moments.chunk_by(|a, b| a == b).map(<[u64]>::len).max();
            assert!(most.unwrap_or(0) <= SHARE.max(count.div_ceil(MAX_SHARES)));
            moments.dedup();
            assert!(moments.len() <= 4 * MAX_SHARES, "{count}: {moments:?}");
        }
    }

    #[test]
    fn a_standstill_is_not_made_up_for() {
        let mut sampling = Sampling::new(Instant::ZERO);
        let late = Instant::ZERO + Duration::from_secs(60);
        assert_eq!(sampling.take(late, || 3), Some(0..3));
        assert_eq!(sampling.take(late, || 3), None);
        assert_eq!(sampling.poll_timeout(), late + Estimator::PERIOD);
    }
}
