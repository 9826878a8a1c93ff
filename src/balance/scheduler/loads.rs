//! How many connections a real server has, as far as one worker can tell.

use std::{
    fmt,
    iter::repeat_with,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use crate::{
    balance::RealRef,
    stats::{MAX_REALS, WorkerStats},
};

/// Connections of one real server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Those in the states that IPVS counts as active.
    pub active: u64,
    /// All others; persistence templates are none.
    pub inactive: u64,
}

impl Load {
    /// All of them: what thresholds are about.
    #[inline]
    pub const fn total(self) -> u64 {
        self.active.saturating_add(self.inactive)
    }

    /// What `lc` and its kin compare: an active connection weighs as much as 256 others.
    #[inline]
    pub(super) const fn overhead(self) -> u64 {
        self.active
            .saturating_mul(256)
            .saturating_add(self.inactive)
    }

    /// What one worker counted for a real server.
    #[inline]
    fn counted(stats: &WorkerStats, real: RealRef) -> Self {
        let counters = stats.real(real.id.0);
        if !counters.is_for(real.epoch.get()) {
            return Self::default();
        }
        Self {
            active: counters.active.get(),
            inactive: counters.inactive.get(),
        }
    }

    const fn plus(self, other: Self) -> Self {
        Self {
            active: self.active.saturating_add(other.active),
            inactive: self.inactive.saturating_add(other.inactive),
        }
    }

    const fn minus(self, other: Self) -> Self {
        Self {
            active: self.active.saturating_sub(other.active),
            inactive: self.inactive.saturating_sub(other.inactive),
        }
    }
}

/// What the other workers had at the last sum: control fills one for each worker, that worker
/// reads it.
///
/// A worker's own counts are always exact; those of the others lag by the time between two sums.
/// In that time every worker sees a real server that went idle as idle, and a threshold can be
/// exceeded by what the other workers gave the real server meanwhile. The only worker has none of
/// these and pays nothing. 4 MiB, of which only the slots in use take memory.
pub struct Others(Box<[Cell]>);

/// Each word is the real server's epoch above a count, so that the two are never torn apart.
#[derive(Default)]
struct Cell {
    active: AtomicU64,
    inactive: AtomicU64,
}

impl Others {
    /// Nobody has anything.
    pub fn new() -> Self {
        Self(repeat_with(Cell::default).take(MAX_REALS).collect())
    }

    /// Sums up what `workers` counted for each of `reals`, and tells every worker what the others
    /// have. Called by control, several times a second.
    pub fn refresh<'a>(
        workers: impl IntoIterator<Item = (&'a WorkerStats, &'a Self)> + Clone,
        reals: impl IntoIterator<Item = RealRef>,
    ) {
        for real in reals {
            let all = workers
                .clone()
                .into_iter()
                .map(|(stats, _)| Load::counted(stats, real))
                .fold(Load::default(), Load::plus);
            for (stats, others) in workers.clone() {
                others.set(real, all.minus(Load::counted(stats, real)));
            }
        }
    }

    fn set(&self, real: RealRef, load: Load) {
        let Some(cell) = self.0.get(real.id.0 as usize) else {
            return;
        };
        let word = |count: u64| u64::from(real.epoch.get()) << 32 | count.min(u64::from(u32::MAX));
        cell.active.store(word(load.active), Relaxed);
        cell.inactive.store(word(load.inactive), Relaxed);
    }

    #[inline]
    fn of(&self, real: RealRef) -> Load {
        let Some(cell) = self.0.get(real.id.0 as usize) else {
            return Load::default();
        };
        let count = |word: &AtomicU64| {
            let word = word.load(Relaxed);
            if word >> 32 == u64::from(real.epoch.get()) {
                word & u64::from(u32::MAX)
            } else {
                0
            }
        };
        Load {
            active: count(&cell.active),
            inactive: count(&cell.inactive),
        }
    }
}

impl Default for Others {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Others {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Others").finish_non_exhaustive()
    }
}

/// Connections of real servers: this worker's and, when there are any, the others'.
#[derive(Clone, Copy)]
pub(super) struct Loads<'a> {
    own: &'a WorkerStats,
    others: Option<&'a Others>,
}

impl<'a> Loads<'a> {
    #[inline]
    pub(super) const fn new(own: &'a WorkerStats, others: Option<&'a Others>) -> Self {
        Self { own, others }
    }

    #[inline]
    pub(super) fn of(&self, real: RealRef) -> Load {
        let own = Load::counted(self.own, real);
        match self.others {
            None => own,
            Some(others) => own.plus(others.of(real)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::balance::RealId;

    fn real(id: u32, epoch: u32) -> RealRef {
        RealRef {
            id: RealId(id),
            epoch: NonZeroU32::new(epoch).unwrap(),
        }
    }

    #[test]
    fn every_worker_sees_all_connections_once_after_a_sum() {
        let stats = [WorkerStats::new(), WorkerStats::new(), WorkerStats::new()];
        let others = [Others::new(), Others::new(), Others::new()];
        for (n, stats) in (1..).zip(&stats) {
            stats.real(7).claim(3);
            stats.real(7).active.set(n);
            stats.real(7).inactive.set(10 * n);
        }
        // The third worker still counts for a former holder of the slot.
        stats[2].real(7).claim(2);
        stats[2].real(7).active.set(500);
        Others::refresh(stats.iter().zip(&others), [real(7, 3)]);
        let seen = |w: usize, real| Loads::new(&stats[w], Some(&others[w])).of(real);
        for worker in 0..3 {
            let load = seen(worker, real(7, 3));
            assert_eq!((load.active, load.inactive), (3, 30), "worker {worker}");
        }
        assert_eq!(seen(0, real(7, 4)), Load::default(), "a later holder");
        assert_eq!(seen(0, real(8, 3)), Load::default(), "another slot");
        stats[0].real(7).active.add(5);
        assert_eq!(seen(0, real(7, 3)).active, 8, "its own are exact at once");
        assert_eq!(seen(1, real(7, 3)).active, 3, "the others' at the next sum");
    }
}
