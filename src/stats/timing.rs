//! How long the stages of a worker's turn take.

use super::{Counter, Stage};

/// Buckets of a histogram of times: up to 2^18 ns a packet, beyond which only a worker that was
/// interrupted is.
pub const TIME_BUCKETS: usize = 20;

/// A histogram for each stage: nanoseconds a packet, over the bursts that were timed.
#[derive(Debug, Default)]
pub struct StageTimes {
    counts: [[Counter; TIME_BUCKETS]; Stage::COUNT],
}

impl StageTimes {
    /// Counts a burst that took so many nanoseconds a packet in `stage`. Only the owner may call this.
    pub fn record(&self, stage: Stage, nanos: u64) {
        let bits = (u64::BITS - nanos.leading_zeros()) as usize;
        self.counts[stage.index()][bits.min(TIME_BUCKETS - 1)].add(1);
    }

    /// How many bursts took so long in `stage`: the first bucket is of those below 1 ns a packet, bucket
    /// n of those from 2^(n-1) to below 2^n, the last of all above.
    pub fn buckets(&self, stage: Stage) -> [u64; TIME_BUCKETS] {
        self.counts[stage.index()].each_ref().map(Counter::get)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_fall_into_the_bucket_of_their_power_of_two() {
        let times = StageTimes::default();
        for nanos in [0, 1, 2, 3, 4, 7, 8, 1 << 18, u64::MAX] {
            times.record(Stage::Decide, nanos);
        }
        let mut expected = [0; TIME_BUCKETS];
        expected[..5].copy_from_slice(&[1, 1, 2, 2, 1]);
        expected[TIME_BUCKETS - 1] = 2;
        assert_eq!(times.buckets(Stage::Decide), expected);
        assert_eq!(times.buckets(Stage::Receive), [0; TIME_BUCKETS]);
    }
}
