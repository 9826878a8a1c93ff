//! The health checks: what they want probed, and what came of it.

pub mod probes;
mod said;

use std::{collections::BTreeSet, time::SystemTime};

use mio::{Registry, Token};

use self::probes::TcpProbes;
use super::log::Log;
use crate::{
    check::{Action, Health, MAX_PROBES, Probe, VirtualSettings},
    lvs::ServiceId,
    time::Instant,
};

/// Probes started in one turn: some 30 µs each.
const PROBES_PER_TURN: usize = 64;

/// The checkers of all real servers, and the probes under way.
pub(super) struct Checks {
    health: Health,
    probes: TcpProbes,
}

impl Checks {
    /// Nothing is checked yet. Probes are registered by tokens from `first_token` on.
    pub(super) fn new(registry: Registry, first_token: usize) -> Self {
        Self {
            health: Health::new(fastrand::u64(..)),
            probes: TcpProbes::new(registry, first_token, MAX_PROBES),
        }
    }

    /// Which real servers carry traffic.
    pub(super) const fn health(&self) -> &Health {
        &self.health
    }

    /// Checks a virtual server from now on, or takes its new settings.
    pub(super) fn set(&mut self, now: Instant, settings: &VirtualSettings) {
        self.health.set(now, settings);
    }

    /// Checks a virtual server no more.
    pub(super) fn remove(&mut self, id: ServiceId) {
        self.health.remove(id);
    }

    /// Something happened to a probe.
    pub(super) fn handle_event(&mut self, token: Token) {
        self.probes.handle_event(token);
    }

    /// Probes' results, checkers' timers, and the probes that are due. Whether more are to start.
    pub(super) fn drive(&mut self, now: Instant) -> bool {
        self.probes.handle_timeout(now);
        self.take_results(now);
        self.health.handle_timeout(now);
        let mut left = PROBES_PER_TURN;
        while left > 0
            && let Some(action) = self.health.poll_action()
        {
            left -= 1;
            let Action::Probe { checker, probe, .. } = action;
            let started = match &probe {
                Probe::Tcp(probe) => self.probes.start(now, checker, probe),
            };
            if let Err(error) = started {
                self.health.handle_deferral(now, checker, error.deferral());
            }
        }
        // Some are known at once: a refused connection to an address of this host.
        self.take_results(now);
        left == 0
    }

    fn take_results(&mut self, now: Instant) {
        while let Some((checker, result)) = self.probes.poll_result() {
            self.health.handle_result(now, checker, result);
        }
    }

    /// What happened, told to `log`; the virtual servers that it happened to.
    pub(super) fn take_events(
        &mut self,
        at: (Instant, SystemTime),
        log: &mut Log,
    ) -> BTreeSet<ServiceId> {
        let mut concerned = BTreeSet::new();
        while let Some(event) = self.health.poll_event() {
            said::tell(log, at, &event);
            concerned.extend(event.virtual_server());
        }
        concerned
    }

    /// When [`Self::drive`] has something to do next.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let next = [self.health.poll_timeout(), self.probes.poll_timeout()];
        next.into_iter().flatten().min()
    }
}
