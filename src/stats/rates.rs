//! What went through a real server so far, and how fast: IPVS's counts and its estimator.

use std::{
    iter::Sum,
    ops::{Add, AddAssign},
    time::Duration,
};

/// What IPVS counts for a virtual or real server, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Connections scheduled.
    pub connections: u64,
    /// Packets from clients.
    pub packets_in: u64,
    /// Packets to clients; seen with NAT only.
    pub packets_out: u64,
    /// Bytes from clients, counted from the IP header.
    pub bytes_in: u64,
    /// Bytes to clients, counted from the IP header; seen with NAT only.
    pub bytes_out: u64,
}

impl Add for Totals {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            connections: self.connections + other.connections,
            packets_in: self.packets_in + other.packets_in,
            packets_out: self.packets_out + other.packets_out,
            bytes_in: self.bytes_in + other.bytes_in,
            bytes_out: self.bytes_out + other.bytes_out,
        }
    }
}

impl Sum for Totals {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Add::add)
    }
}

/// Each of [`Totals`] in a second, as estimated, to the nearest whole number and down from the half.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Connections (`CPS`).
    pub connections: u64,
    /// Packets from clients (`InPPS`).
    pub packets_in: u64,
    /// Packets to clients (`OutPPS`).
    pub packets_out: u64,
    /// Bytes from clients (`InBPS`).
    pub bytes_in: u64,
    /// Bytes to clients (`OutBPS`).
    pub bytes_out: u64,
}

/// Averages in fixed point: connections and packets a second times 2^10, bytes a second times 2^5. They add
/// up without the error of rounding each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Averages {
    connections: u64,
    packets_in: u64,
    packets_out: u64,
    bytes_in: u64,
    bytes_out: u64,
}

/// An average's bits behind the point.
const COUNT_BITS: u32 = 10;
const BYTE_BITS: u32 = 5;

impl AddAssign for Averages {
    fn add_assign(&mut self, other: Self) {
        self.connections += other.connections;
        self.packets_in += other.packets_in;
        self.packets_out += other.packets_out;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
    }
}

impl Averages {
    /// As whole numbers.
    pub const fn rates(&self) -> Rates {
        const fn count(average: u64) -> u64 {
            (average + (1 << (COUNT_BITS - 1)) - 1) >> COUNT_BITS
        }
        const fn bytes(average: u64) -> u64 {
            (average + (1 << (BYTE_BITS - 1)) - 1) >> BYTE_BITS
        }
        Rates {
            connections: count(self.connections),
            packets_in: count(self.packets_in),
            packets_out: count(self.packets_out),
            bytes_in: bytes(self.bytes_in),
            bytes_out: bytes(self.bytes_out),
        }
    }
}

/// Estimates the rates of one real server as IPVS does: every two seconds the average moves by a quarter
/// towards what the last two seconds had.
#[derive(Clone, Copy, Debug, Default)]
pub struct Estimator {
    last: Totals,
    averages: Averages,
}

impl Estimator {
    /// Time from one sample to the next.
    pub const PERIOD: Duration = Duration::from_secs(2);

    /// What there is by now went through before: no rate of it.
    pub const fn begin_at(&mut self, now: Totals) {
        self.last = now;
    }

    /// Takes what there is by now, [`Self::PERIOD`] after the last time. Numbers that went back, as another
    /// real server has the slot, count from zero.
    pub fn sample(&mut self, now: Totals) {
        /// Seconds of a period, as a power of two.
        const SECONDS: u32 = 1;
        let Self { last, averages } = self;
        let follow = |average: &mut u64, now: u64, last: u64, bits: u32| {
            let grown = now.checked_sub(last).unwrap_or(now);
            let rate = grown.saturating_mul(1 << (bits - SECONDS));
            // The quarter of a negative distance is rounded down, too.
            *average = if rate >= *average {
                *average + ((rate - *average) >> 2)
            } else {
                *average - (*average - rate).div_ceil(4)
            };
        };
        let of = &mut *averages;
        for (average, now, last, bits) in [
            (
                &mut of.connections,
                now.connections,
                last.connections,
                COUNT_BITS,
            ),
            (
                &mut of.packets_in,
                now.packets_in,
                last.packets_in,
                COUNT_BITS,
            ),
            (
                &mut of.packets_out,
                now.packets_out,
                last.packets_out,
                COUNT_BITS,
            ),
            (&mut of.bytes_in, now.bytes_in, last.bytes_in, BYTE_BITS),
            (&mut of.bytes_out, now.bytes_out, last.bytes_out, BYTE_BITS),
        ] {
            follow(average, now, last, bits);
        }
        *last = now;
    }

    /// The averages now.
    pub const fn averages(&self) -> Averages {
        self.averages
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The estimator of IPVS, literally: averages are kept as counts a second times 1024 and bytes a second
    /// times 32, signed arithmetic with arithmetic shifts.
    fn literal(samples: &[u64], scale: i128) -> Vec<u64> {
        let (mut last, mut average) = (0_i128, 0_i128);
        let mut shown = Vec::new();
        for sample in samples {
            let sample = i128::from(*sample);
            let rate = (sample - last) * (scale / 2);
            last = sample;
            average += (rate - average) >> 2;
            shown.push(u64::try_from((average + scale / 2 - 1) / scale).unwrap());
        }
        shown
    }

    fn totals(n: u64) -> Totals {
        Totals {
            connections: n,
            packets_in: 2 * n,
            packets_out: 3 * n,
            bytes_in: 4 * n,
            bytes_out: 5 * n,
        }
    }

    proptest! {
        #[test]
        fn rates_are_those_of_the_literal_formula(steps in prop::collection::vec(0_u64..1 << 40, 1..40)) {
            let mut sum = 0;
            let sums: Vec<u64> = steps.iter().map(|step| { sum += step; sum }).collect();
            let times = |n: u64| sums.iter().map(|sum| n * sum).collect::<Vec<u64>>();
            let mut estimator = Estimator::default();
            for (n, sum) in sums.iter().enumerate() {
                estimator.sample(totals(*sum));
                let expected = Rates {
                    connections: literal(&times(1), 1024)[n],
                    packets_in: literal(&times(2), 1024)[n],
                    packets_out: literal(&times(3), 1024)[n],
                    bytes_in: literal(&times(4), 32)[n],
                    bytes_out: literal(&times(5), 32)[n],
                };
                prop_assert_eq!(estimator.averages().rates(), expected);
            }
        }
    }

    #[test]
    fn a_steady_rate_is_approached_and_quiet_forgotten() {
        let mut estimator = Estimator::default();
        let shown: Vec<u64> = (1..=30)
            .map(|n| {
                estimator.sample(totals(2000 * n));
                estimator.averages().rates().connections
            })
            .collect();
        // A quarter of 1000 a second, then a quarter of what is left.
        assert_eq!(shown[..4], [250, 437, 578, 684]);
        assert_eq!(shown[29], 1000);
        for _ in 0..60 {
            estimator.sample(totals(60_000));
        }
        assert_eq!(estimator.averages().rates(), Rates::default());
    }

    /// What IPVS of Linux 6.1 showed for a connection of six packets and four answers, two to four seconds
    /// after them.
    #[test]
    fn rates_are_those_that_ipvs_showed() {
        let mut estimator = Estimator::default();
        let totals = Totals {
            connections: 2,
            packets_in: 6,
            packets_out: 4,
            bytes_in: 328,
            bytes_out: 236,
        };
        estimator.sample(totals);
        estimator.sample(totals);
        let shown = Rates {
            connections: 0,
            packets_in: 1,
            packets_out: 0,
            bytes_in: 31,
            bytes_out: 22,
        };
        assert_eq!(estimator.averages().rates(), shown);
    }

    #[test]
    fn counts_that_begin_anew_are_no_huge_rate() {
        let mut estimator = Estimator::default();
        estimator.sample(totals(1 << 40));
        let before = estimator.averages().rates().connections;
        estimator.sample(totals(8));
        assert!(estimator.averages().rates().connections < before);
    }

    #[test]
    fn averages_are_added_before_they_are_rounded() {
        let mut estimator = Estimator::default();
        // A quarter of a connection a second.
        estimator.sample(totals(2));
        assert_eq!(estimator.averages().rates().connections, 0);
        let mut sum = Averages::default();
        for _ in 0..4 {
            sum += estimator.averages();
        }
        assert_eq!(sum.rates().connections, 1);
    }
}
