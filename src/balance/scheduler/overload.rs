//! Thresholds: a real server that has too many connections gets no new ones for a while.
//!
//! IPVS has a flag (`IP_VS_DEST_F_OVERLOAD`) that it sets when the total is at the upper threshold or
//! above, and clears when the total is below the lower one, or below three quarters of the upper one
//! when there is no lower one. It looks at each connection that comes or goes and at each change of
//! the thresholds. Here it is brought up to date when a pick asks for it and at a new connection:
//! between two new connections the total only falls, so that gives the same.

use std::cell::Cell;

use crate::{balance::RealRef, stats::MAX_REALS};

/// keepalived `uthreshold` and `lthreshold` of a real server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Connections, active and inactive, from which on it gets no new ones; 0 is no limit, the
    /// default.
    pub upper: u32,
    /// Connections below which it gets new ones again; 0, the default, is three quarters of
    /// `upper`.
    pub lower: u32,
}

impl Limits {
    /// Whether so few connections let a real server have new ones again.
    #[inline]
    const fn release_at(self, total: u64) -> bool {
        if self.lower == 0 {
            total.saturating_mul(4) < self.upper as u64 * 3
        } else {
            total < self.lower as u64
        }
    }
}

/// The flags of one worker: for each slot of a real server the epoch of the holder that is over,
/// or 0. Memory is touched only where a threshold is.
#[derive(Debug)]
pub(super) struct Overloads(Box<[u32]>);

impl Overloads {
    pub(super) fn new() -> Self {
        Self(vec![0; MAX_REALS].into())
    }

    /// The flags, to look at and to change while looking.
    #[inline]
    pub(super) fn flags(&mut self) -> Flags<'_> {
        Flags(Cell::from_mut(&mut *self.0).as_slice_of_cells())
    }
}

/// The flags of one worker during a pick.
#[derive(Clone, Copy)]
pub(super) struct Flags<'a>(&'a [Cell<u32>]);

impl Flags<'_> {
    /// Brings the flag of a real server with an upper threshold up to its `total` of connections.
    /// Whether it is set.
    #[inline]
    pub(super) fn update(self, real: RealRef, limits: Limits, total: u64) -> bool {
        let Some(flag) = self.0.get(real.id.0 as usize) else {
            return false;
        };
        let epoch = real.epoch.get();
        let over =
            total >= u64::from(limits.upper) || (flag.get() == epoch && !limits.release_at(total));
        flag.set(if over { epoch } else { 0 });
        over
    }

    /// The same with a new connection in the total, which IPVS looks at before and after.
    pub(super) fn connected(self, real: RealRef, limits: Limits, total: u64) {
        self.update(real, limits, total.saturating_sub(1));
        self.update(real, limits, total);
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::balance::RealId;

    const REAL: RealRef = RealRef {
        id: RealId(3),
        epoch: NonZeroU32::MIN,
    };

    /// Opens and closes connections as told; the totals at which the flag was set.
    fn over(limits: Limits, totals: &[u64]) -> Vec<u64> {
        let mut flags = Overloads::new();
        let mut before = 0;
        let mut seen = Vec::new();
        for total in totals {
            if *total > before {
                flags.flags().connected(REAL, limits, *total);
            }
            before = *total;
            if flags.flags().update(REAL, limits, *total) {
                seen.push(*total);
            }
        }
        seen
    }

    #[test]
    fn it_is_over_from_the_upper_threshold_until_below_the_lower() {
        let limits = Limits { upper: 3, lower: 2 };
        assert_eq!(over(limits, &[1, 2, 3, 4, 3, 2, 1, 2, 3]), [3, 4, 3, 2, 3]);
    }

    #[test]
    fn without_a_lower_threshold_three_quarters_of_the_upper_count() {
        let limits = Limits { upper: 8, lower: 0 };
        assert_eq!(over(limits, &[7, 8, 7, 6, 5, 6, 7, 8]), [8, 7, 6, 8]);
    }

    #[test]
    fn a_fall_that_nobody_saw_counts_when_a_persistent_client_comes() {
        let limits = Limits { upper: 8, lower: 3 };
        let mut flags = Overloads::new();
        flags.flags().connected(REAL, limits, 8);
        flags.flags().connected(REAL, limits, 3);
        assert!(!flags.flags().update(REAL, limits, 3), "it had been at 2");
        flags.flags().connected(REAL, limits, 8);
        flags.flags().connected(REAL, limits, 4);
        assert!(flags.flags().update(REAL, limits, 4), "it had been at 3");
    }

    #[test]
    fn changed_thresholds_count_at_once() {
        let mut flags = Overloads::new();
        let mut is_over =
            |upper, lower, total| flags.flags().update(REAL, Limits { upper, lower }, total);
        assert!(is_over(2, 1, 2));
        assert!(is_over(4, 1, 2), "raised: not below the lower one yet");
        assert!(!is_over(4, 3, 2));
        assert!(is_over(1, 0, 2), "lowered");
    }

    #[test]
    fn the_flag_is_not_the_next_holders() {
        let limits = Limits { upper: 3, lower: 1 };
        let mut flags = Overloads::new();
        assert!(flags.flags().update(REAL, limits, 3));
        let next = RealRef {
            epoch: NonZeroU32::new(2).unwrap(),
            ..REAL
        };
        assert!(!flags.flags().update(next, limits, 2));
    }
}
