//! `xvs list --timing`: how long the stages of the workers' turns take a packet.

use std::fmt::Write as _;

use crate::control::api::{StageTiming, TimeBucket};

/// One line a stage: how many bursts were timed, and below how many nanoseconds a packet so many percent
/// of them stayed. The bounds are powers of two.
pub(super) fn render(timing: &[StageTiming]) -> String {
    let mut text =
        "Stage         Timed    50 %    90 %    99 %  at most (ns a packet)\n".to_owned();
    for StageTiming { stage, buckets } in timing {
        let timed: u64 = buckets.iter().map(|bucket| bucket.bursts).sum();
        // Writing to a String cannot fail.
        let _ = write!(text, "{stage:<10} {timed:>8}");
        for percent in [50, 90, 99, 100] {
            let _ = write!(text, " {:>7}", bound(buckets, timed, percent));
        }
        text.push('\n');
    }
    text
}

/// What so many percent of the bursts stayed below.
fn bound(buckets: &[TimeBucket], timed: u64, percent: u64) -> String {
    let mut left = (timed * percent).div_ceil(100);
    for bucket in buckets {
        if left <= bucket.bursts && left > 0 {
            return bucket
                .below_ns
                .map_or_else(|| "more".to_owned(), |below| below.to_string());
        }
        left = left.saturating_sub(bucket.bursts);
    }
    "-".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_below_what_most_bursts_stayed() {
        let bucket = |below_ns, bursts| TimeBucket { below_ns, bursts };
        let timing = [
            StageTiming {
                stage: "receive".to_owned(),
                buckets: vec![bucket(Some(16), 50), bucket(Some(32), 45), bucket(None, 5)],
            },
            StageTiming {
                stage: "classify".to_owned(),
                buckets: vec![],
            },
        ];
        assert_eq!(
            render(&timing),
            "Stage         Timed    50 %    90 %    99 %  at most (ns a packet)\n\
             receive         100      16      32    more    more\n\
             classify          0       -       -       -       -\n"
        );
    }
}
