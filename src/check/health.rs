//! Everything together: what control drives.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use crate::time::Instant;

use super::{
    checker::{Checker, Judgement},
    event::Event,
    pool::Pool,
    set::{Action, CheckSet},
    settings::{
        CheckerId, CheckerSettings, Deferral, Member, ProbeResult, ServiceName, VirtualSettings,
    },
};
use crate::lvs::{RealId, ServiceId};

/// How long no probe may have lacked a descriptor before the shortage is said to be over. A
/// multiple of the pause between two attempts, so that it is not declared over between them.
const SHORTAGE_OVER_AFTER: Duration = Duration::from_secs(10);

/// The health of all real servers: checkers, pools, and what happened to them.
///
/// Control's turn: `handle_result` and `handle_deferral` for what came back, `handle_timeout`,
/// then `poll_action` (as many as the turn may take) and `poll_event` (all), then sleep until
/// `poll_timeout`.
#[derive(Debug)]
pub struct Health {
    set: CheckSet,
    groups: BTreeMap<ServiceId, Group>,
    events: VecDeque<Event>,
    /// Checkers whose probe could not be started, and of which that was said.
    deferred: BTreeSet<CheckerId>,
    shortage: Option<Shortage>,
}

/// A virtual server: its pool, and the checkers of each real server.
#[derive(Debug)]
struct Group {
    pool: Pool,
    checkers: BTreeMap<RealId, Vec<CheckerId>>,
}

/// This machine has no descriptors left.
#[derive(Clone, Copy, Debug)]
struct Shortage {
    deferred: u64,
    over_at: Instant,
}

impl Health {
    /// Nothing to check yet. `seed` decides the random waits.
    pub fn new(seed: u64) -> Self {
        Self {
            set: CheckSet::new(seed),
            groups: BTreeMap::new(),
            events: VecDeque::new(),
            deferred: BTreeSet::new(),
            shortage: None,
        }
    }

    /// Checks a virtual server from now on, or takes its new settings.
    ///
    /// What is known about a checker is kept when its real server has one that asks the same
    /// question; any other starts anew, with its real server as it was meanwhile: up, unless it was
    /// down or `alpha` says that it is. A real server whose number is another than before is known
    /// by its endpoint.
    pub fn set(&mut self, now: Instant, settings: &VirtualSettings) {
        let old = self.groups.remove(&settings.id);
        let group = self.build(now, settings, old);
        self.groups.insert(settings.id, group);
    }

    /// Checks a virtual server no more.
    pub fn remove(&mut self, vs: ServiceId) {
        let group = self.groups.remove(&vs);
        for id in group.into_iter().flat_map(Group::into_checkers) {
            self.forget(id);
        }
    }

    /// Makes the probes that are due by `now` available to [`Self::poll_action`].
    pub fn handle_timeout(&mut self, now: Instant) {
        self.set.handle_timeout(now);
        if let Some(shortage) = self.shortage.filter(|shortage| shortage.over_at <= now) {
            self.shortage = None;
            self.events.push_back(Event::ProbesResumed {
                deferred: shortage.deferred,
            });
        }
    }

    /// Takes the result of a probe. One of a checker that is gone is ignored.
    pub fn handle_result(&mut self, now: Instant, id: CheckerId, result: ProbeResult) {
        let was_up = self.set.get(id).is_some_and(Checker::is_up);
        let Some((real, outcome)) = self.set.handle_result(now, id, &result) else {
            return;
        };
        self.deferred.remove(&id);
        let Some((name, settings)) = self.name_of(real).zip(self.set.get(id)) else {
            return;
        };
        let settings = settings.settings();
        let decided = matches!(outcome.judgement, Judgement::Down { .. });
        let error = result.err();
        if let Some(error) = error.clone()
            && (decided || (was_up && settings.log_all_failures))
        {
            self.events
                .push_back(Event::ProbeFailed { real, name, error });
        }
        match outcome.judgement {
            Judgement::Up => self.events.push_back(Event::CheckerUp { real, name }),
            Judgement::Down { retries } => self.events.push_back(Event::CheckerDown {
                real,
                name,
                keyword: settings.probe.keyword(),
                retries,
            }),
            Judgement::Unchanged | Judgement::Retry => {}
        }
        let up = error.is_none();
        if let Some(group) = self.groups.get_mut(&real.vs) {
            if outcome.flipped {
                group
                    .pool
                    .handle_checker(now, real.real, up, &mut self.events);
            }
            group.pool.note_probe(real.real, error);
        }
    }

    /// A probe could not be started: it is delayed, and its real server is left as it was.
    pub fn handle_deferral(&mut self, now: Instant, id: CheckerId, reason: Deferral) {
        let Some(real) = self.set.handle_deferral(now, id, reason) else {
            return;
        };
        if reason == Deferral::Descriptors {
            let deferred = self.shortage.map_or(0, |shortage| shortage.deferred);
            if deferred == 0 {
                self.events.push_back(Event::ProbesPaused);
            }
            self.shortage = Some(Shortage {
                deferred: deferred + 1,
                over_at: now + SHORTAGE_OVER_AFTER,
            });
        } else if self.deferred.insert(id)
            && let Some(name) = self.name_of(real)
        {
            self.events
                .push_back(Event::ProbeDeferred { real, name, reason });
        }
    }

    /// The next probe to start. May be left for the next turn: see [`CheckSet::poll_action`].
    pub fn poll_action(&mut self) -> Option<Action> {
        self.set.poll_action()
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Self::handle_timeout`] is to be called next; a time that has passed means now.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let shortage = self.shortage.map(|shortage| shortage.over_at);
        [self.set.poll_timeout(), shortage]
            .into_iter()
            .flatten()
            .min()
    }

    /// The pool of a virtual server.
    pub fn pool(&self, vs: ServiceId) -> Option<&Pool> {
        self.groups.get(&vs).map(|group| &group.pool)
    }

    /// The checkers of a real server.
    pub fn checkers(&self, real: Member) -> impl Iterator<Item = (CheckerId, &Checker)> {
        let ids = self
            .groups
            .get(&real.vs)
            .and_then(|group| group.checkers.get(&real.real));
        ids.into_iter()
            .flatten()
            .filter_map(|id| self.set.get(*id).map(|checker| (*id, checker)))
    }

    /// Probes under way, at most [`super::MAX_PROBES`].
    pub fn probing(&self) -> usize {
        self.set.probing()
    }

    fn name_of(&self, real: Member) -> Option<ServiceName> {
        let pool = &self.groups.get(&real.vs)?.pool;
        pool.real(real.real).map(|view| view.name())
    }

    fn build(&mut self, now: Instant, settings: &VirtualSettings, old: Option<Group>) -> Group {
        let mut activated = Vec::new();
        let (mut pool, mut known) = match old {
            Some(mut group) => {
                group.renumber(settings);
                (Some(group.pool), group.checkers)
            }
            None => (None, BTreeMap::new()),
        };
        let mut checkers = BTreeMap::new();
        for real in &settings.reals {
            let owner = Member {
                vs: settings.id,
                real: real.id,
            };
            let old = known.remove(&real.id).unwrap_or_default();
            let view = pool.as_ref().and_then(|pool: &Pool| pool.real(real.id));
            let down = view.is_some_and(|view| !view.up);
            let former = old.clone();
            let ids = self.match_checkers(now, (owner, down), &real.checkers, old);
            if ids.iter().any(|id| !former.contains(id)) {
                activated.push(Event::Activated {
                    real: owner,
                    name: ServiceName {
                        endpoint: real.endpoint,
                        ..settings.name
                    },
                    vs: settings.name,
                });
            }
            checkers.insert(real.id, ids);
        }
        for id in known.into_values().flatten() {
            self.forget(id);
        }
        let set = &self.set;
        let failed = |real: RealId| {
            let ids = checkers.get(&real).into_iter().flatten();
            let failed = ids.filter(|id| set.get(**id).is_some_and(|checker| !checker.is_up()));
            u32::try_from(failed.count()).unwrap_or(u32::MAX)
        };
        let pool = match pool.take() {
            Some(mut pool) => {
                pool.reconfigure(now, settings, failed, &mut self.events);
                pool
            }
            None => Pool::new(now, settings, failed, &mut self.events),
        };
        self.events.extend(activated);
        Group { pool, checkers }
    }

    /// Finds for each checker that is wanted the one that has asked the same question so far.
    fn match_checkers(
        &mut self,
        now: Instant,
        (owner, down): (Member, bool),
        wanted: &[CheckerSettings],
        mut old: Vec<CheckerId>,
    ) -> Vec<CheckerId> {
        let mut ids = Vec::with_capacity(wanted.len());
        for settings in wanted {
            let same = old.iter().position(|id| {
                let known = self.set.get(*id).map(|checker| &checker.settings().probe);
                known.is_some_and(|probe| probe.asks_the_same(&settings.probe))
            });
            ids.push(match same {
                Some(at) => {
                    let id = old.remove(at);
                    self.set.reconfigure(now, id, owner, settings.clone());
                    id
                }
                None => self.set.insert(now, owner, settings.clone(), down),
            });
        }
        for id in old {
            self.forget(id);
        }
        ids
    }

    fn forget(&mut self, id: CheckerId) {
        self.set.remove(id);
        self.deferred.remove(&id);
    }
}

impl Group {
    /// Gives real servers the numbers that they have in `settings`, where those are others than before.
    fn renumber(&mut self, settings: &VirtualSettings) {
        let moves = self.pool.renumber(&settings.reals);
        let taken = moves.map(|(from, to)| (to, self.checkers.remove(&from).unwrap_or_default()));
        let taken: Vec<_> = taken.collect();
        for (to, checkers) in taken {
            // With those of one that is gone, whose number it was: they are matched by what they ask.
            self.checkers.entry(to).or_default().extend(checkers);
        }
    }

    fn into_checkers(self) -> impl Iterator<Item = CheckerId> {
        self.checkers.into_values().flatten()
    }
}

#[cfg(test)]
mod tests;
