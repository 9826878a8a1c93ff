//! What the schedulers of one worker remember from pick to pick.

use std::sync::Arc;

use super::{Ask, Cursor, Limits, Loads, Localities, Others, Overloads, Picker, View};
use crate::{
    balance::{MAX_SERVICES, RealRef, ServiceId},
    stats::WorkerStats,
};

/// What the schedulers of one worker remember from pick to pick. Allocated once; memory that no
/// scheduler in use needs is never touched.
#[derive(Debug)]
pub struct SchedulerState {
    cursors: Box<[Cursor]>,
    overloads: Overloads,
    localities: Localities,
    random: fastrand::Rng,
    others: Option<Arc<Others>>,
}

impl SchedulerState {
    /// Nothing was picked yet. `seed` is drawn at start.
    pub fn new(seed: u64) -> Self {
        Self {
            cursors: vec![Cursor::default(); MAX_SERVICES].into(),
            overloads: Overloads::new(),
            localities: Localities::new(seed),
            random: fastrand::Rng::with_seed(seed),
            others: None,
        }
    }

    /// From now on the connections of other workers count too.
    pub fn see(&mut self, others: Arc<Others>) {
        self.others = Some(others);
    }

    /// The real server for the next new connection of the virtual server in the slot `service`;
    /// `None` when none takes any.
    #[inline]
    pub fn pick(&mut self, service: ServiceId, picker: &Picker, ask: &Ask<'_>) -> Option<RealRef> {
        let view = View {
            loads: Loads::new(ask.stats, self.others.as_deref()),
            flags: self.overloads.flags(),
        };
        let cursor = self.cursors.get_mut(service.0 as usize)?;
        let at = picker.pick(cursor, &mut self.localities, &mut self.random, ask, view)?;
        Some(picker.choices.get(at)?.real)
    }

    /// A new connection to a real server is in the table and counted in `stats`.
    #[inline]
    pub fn connected(&mut self, real: RealRef, limits: Limits, stats: &WorkerStats) {
        if limits.upper != 0 {
            let load = Loads::new(stats, self.others.as_deref()).of(real);
            self.overloads.flags().connected(real, limits, load.total());
        }
    }

    /// Lets the scheduler of a virtual server see a change of its list at once, as IPVS does. A
    /// worker's schedulers see only the last change before a pick.
    #[cfg(test)]
    pub(in crate::balance) fn follow(&mut self, service: ServiceId, picker: &Picker) {
        picker.adopt(&mut self.cursors[service.0 as usize]);
    }
}
