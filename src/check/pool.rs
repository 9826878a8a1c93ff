//! The pool of one virtual server: which real servers carry traffic, quorum and sorry server.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::time::Instant;

use super::{
    event::{Event, QuorumChange},
    settings::{Member, ProbeError, RealSettings, ServiceName, SorryServer, VirtualSettings},
};
use crate::{
    addr::Endpoint,
    lvs::{RealId, ServiceId},
};

/// The pool of one virtual server.
///
/// keepalived's rules. A real server is up while none of its checkers has failed, and up real
/// servers are in the pool. The quorum is gained when the weights of those that are up reach
/// `quorum + hysteresis`, lost when they are 0 or below `quorum - hysteresis`, and kept in between.
/// While it is lost the sorry server, if there is one, stands in for all real servers; without one
/// they stay. With `inhibit_on_failure` a real server never leaves the pool: its weight becomes 0.
#[derive(Debug)]
pub struct Pool {
    id: ServiceId,
    name: ServiceName,
    quorum: u32,
    hysteresis: u32,
    sorry: Option<SorryServer>,
    reals: BTreeMap<RealId, RealView>,
    /// Sum of the weights of the real servers that are up.
    alive: u64,
    quorum_up: bool,
    sorry_active: bool,
}

/// A real server as its pool sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RealView {
    /// None of its checkers has failed.
    pub up: bool,
    /// Since when that has been so: the last change, or when it was first configured.
    pub since: Instant,
    /// Why its latest failed probe failed; `None` once it is up and a probe has passed.
    pub error: Option<ProbeError>,
    name: ServiceName,
    weight: u32,
    inhibit: bool,
    failed: u32,
}

impl Pool {
    /// A pool that starts: `failed` says how many checkers of a real server count as failed now
    /// (those with `alpha`).
    pub fn new(
        now: Instant,
        settings: &VirtualSettings,
        failed: impl Fn(RealId) -> u32,
        events: &mut VecDeque<Event>,
    ) -> Self {
        let mut pool = Self {
            id: settings.id,
            name: settings.name,
            quorum: 1,
            hysteresis: 0,
            sorry: None,
            reals: BTreeMap::new(),
            alive: 0,
            quorum_up: false,
            sorry_active: false,
        };
        pool.replace(now, settings, failed, events);
        pool.settle(true, events);
        pool
    }

    /// Takes the settings of a reload. Real servers with a known id keep their history.
    pub fn reconfigure(
        &mut self,
        now: Instant,
        settings: &VirtualSettings,
        failed: impl Fn(RealId) -> u32,
        events: &mut VecDeque<Event>,
    ) {
        self.replace(now, settings, failed, events);
        self.settle(false, events);
    }

    /// Gives real servers that are known by their endpoints the numbers that they have in `told`: from which
    /// to which.
    pub(super) fn renumber(
        &mut self,
        told: &[RealSettings],
    ) -> impl Iterator<Item = (RealId, RealId)> + use<> {
        let known = self.reals.iter();
        let known: HashMap<Endpoint, RealId> =
            known.map(|(id, real)| (real.name.endpoint, *id)).collect();
        let former = |real: &RealSettings| Some((*known.get(&real.endpoint)?, real.id));
        let moves = told.iter().filter_map(former);
        let moves: Vec<_> = moves.filter(|(from, to)| from != to).collect();
        let taken = moves
            .iter()
            .filter_map(|(from, to)| Some((*to, self.reals.remove(from)?)));
        let taken: Vec<_> = taken.collect();
        self.reals.extend(taken);
        moves.into_iter()
    }

    /// A checker of `id` went up, or failed. Only changes may be told.
    pub fn handle_checker(
        &mut self,
        now: Instant,
        id: RealId,
        up: bool,
        events: &mut VecDeque<Event>,
    ) {
        let Some(real) = self.reals.get_mut(&id) else {
            return;
        };
        real.failed = match up {
            true => real.failed.saturating_sub(1),
            false => real.failed + 1,
        };
        if real.up == (real.failed == 0) {
            return;
        }
        real.up = !real.up;
        real.since = now;
        let weight = u64::from(real.weight);
        if real.up {
            self.alive += weight;
        } else {
            self.alive -= weight;
        }
        events.push_back(real.transition(self.id, id, self.name));
        self.settle(false, events);
    }

    /// A probe of `id` failed, or passed while nothing was wrong any more.
    pub fn note_probe(&mut self, id: RealId, error: Option<ProbeError>) {
        if let Some(real) = self.reals.get_mut(&id)
            && (error.is_some() || real.up)
        {
            real.error = error;
        }
    }

    /// Whether the quorum is met.
    pub const fn quorum_up(&self) -> bool {
        self.quorum_up
    }

    /// The real servers in the order of their numbers.
    pub fn reals(&self) -> impl Iterator<Item = (RealId, &RealView)> {
        self.reals.iter().map(|(id, real)| (*id, real))
    }

    /// The real server with this number.
    pub fn real(&self, id: RealId) -> Option<&RealView> {
        self.reals.get(&id)
    }

    /// Whether the real server is a member of the virtual server at all, if only with weight 0.
    pub fn in_pool(&self, id: RealId) -> bool {
        self.reals
            .get(&id)
            .is_some_and(|real| real.inhibit || self.serves(real))
    }

    /// The weight that counts now: 0 for one that may get no new connections.
    pub fn weight(&self, id: RealId) -> u32 {
        self.reals
            .get(&id)
            .filter(|real| self.serves(real))
            .map_or(0, |real| real.weight)
    }

    /// Whether the sorry server stands in for the real servers.
    pub const fn sorry_active(&self) -> bool {
        self.sorry_active
    }

    /// Whether the sorry server is a member, if only with weight 0.
    pub fn sorry_in_pool(&self) -> bool {
        self.sorry
            .is_some_and(|sorry| self.sorry_active || sorry.inhibit)
    }

    /// The name of the virtual server in messages.
    pub const fn name(&self) -> ServiceName {
        self.name
    }

    const fn serves(&self, real: &RealView) -> bool {
        real.up && !self.sorry_active
    }

    /// Takes settings over without a look at the quorum.
    fn replace(
        &mut self,
        now: Instant,
        settings: &VirtualSettings,
        failed: impl Fn(RealId) -> u32,
        events: &mut VecDeque<Event>,
    ) {
        self.name = settings.name;
        let mut known = std::mem::take(&mut self.reals);
        for told in &settings.reals {
            let failed = failed(told.id);
            let real = match known.remove(&told.id) {
                Some(real) => self.carry_over(now, real, told, failed, events),
                None => RealView::new(now, self.name, told, failed),
            };
            self.reals.insert(told.id, real);
        }
        let up = self.reals.values().filter(|real| real.up);
        self.alive = up.map(|real| u64::from(real.weight)).sum();
        let total = self.reals.values().map(|real| u64::from(real.weight)).sum();
        self.set_quorum(settings, total);
    }

    /// Gives a real server that was there before its new settings.
    fn carry_over(
        &self,
        now: Instant,
        old: RealView,
        told: &RealSettings,
        failed: u32,
        events: &mut VecDeque<Event>,
    ) -> RealView {
        let mut real = RealView::new(now, self.name, told, failed);
        real.error = old.error;
        if real.up == old.up {
            real.since = old.since;
        } else {
            events.push_back(real.transition(self.id, told.id, self.name));
        }
        if real.weight != old.weight {
            events.push_back(Event::Weight {
                real: Member {
                    vs: self.id,
                    real: told.id,
                },
                name: real.name,
                vs: self.name,
                from: old.weight,
                to: real.weight,
                up: real.up,
            });
        }
        real
    }

    /// Applies keepalived's limits: a quorum of 1 to all weights together, less hysteresis than
    /// quorum. Weights that are all 0 leave a quorum of 1, which is then never met (keepalived
    /// 2.2.7 gets a hysteresis of 4,294,967,295 there).
    fn set_quorum(&mut self, settings: &VirtualSettings, total: u64) {
        let total = u32::try_from(total).unwrap_or(u32::MAX);
        self.quorum = settings.quorum.min(total).max(1);
        self.hysteresis = settings.hysteresis.min(self.quorum - 1);
        self.sorry = settings.sorry;
    }

    /// Brings quorum and sorry server in line with the weights that are up.
    fn settle(&mut self, starting: bool, events: &mut VecDeque<Event>) {
        // `keep` is at least 1, so that "below it" includes "nothing is left".
        let gain = u64::from(self.quorum) + u64::from(self.hysteresis);
        let keep = u64::from(self.quorum - self.hysteresis);
        let change = if !self.quorum_up && self.alive >= gain {
            Some(QuorumChange::Gained)
        } else if self.quorum_up && self.alive < keep {
            Some(QuorumChange::Lost)
        } else if starting && !self.quorum_up && self.sorry.is_some() {
            Some(QuorumChange::StartedWithout)
        } else {
            None
        };
        if let Some(change) = change {
            self.quorum_up = change == QuorumChange::Gained;
            events.push_back(Event::Quorum {
                vs: self.id,
                name: self.name,
                change,
                quorum: self.quorum,
                hysteresis: self.hysteresis,
                weight: self.alive,
            });
        }
        self.settle_sorry(events);
    }

    fn settle_sorry(&mut self, events: &mut VecDeque<Event>) {
        let needed = !self.quorum_up && self.sorry.is_some();
        if needed == self.sorry_active {
            return;
        }
        self.sorry_active = needed;
        let (vs, name) = (self.id, self.name);
        if let Some(sorry) = self.sorry {
            events.push_back(Event::Sorry {
                vs,
                name,
                sorry: sorry.name,
                active: needed,
                inhibit: sorry.inhibit,
            });
        }
        events.push_back(Event::AliveMoved {
            vs,
            name,
            into: !needed,
        });
    }
}

impl RealView {
    fn new(now: Instant, vs: ServiceName, told: &RealSettings, failed: u32) -> Self {
        Self {
            up: failed == 0,
            since: now,
            error: None,
            name: ServiceName {
                endpoint: told.endpoint,
                protocol: vs.protocol,
            },
            weight: told.weight,
            inhibit: told.inhibit,
            failed,
        }
    }

    /// Its name in messages.
    pub const fn name(&self) -> ServiceName {
        self.name
    }

    /// The event that says what it now is.
    const fn transition(&self, vs: ServiceId, id: RealId, vs_name: ServiceName) -> Event {
        let real = Member { vs, real: id };
        let (name, inhibit) = (self.name, self.inhibit);
        if self.up {
            Event::RealUp {
                real,
                name,
                vs: vs_name,
                inhibit,
            }
        } else {
            Event::RealDown {
                real,
                name,
                vs: vs_name,
                inhibit,
            }
        }
    }
}

#[cfg(test)]
mod tests;
