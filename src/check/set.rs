//! All checkers: their timers, the probes under way, and the bound on how many there are.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use crate::time::Instant;

use super::{
    checker::{Checker, Outcome},
    settings::{CheckerId, CheckerSettings, Deferral, Member, Probe, ProbeResult},
};

/// Probes under way at the same time, at most. Each costs a descriptor and a local port.
///
/// 4,096 stays well below the usual hard limit of descriptors (systemd's default is 524,288, an
/// old shell's 4,096 plus what is needed besides) and the 28,000 local ports, and at the default
/// timeout of 5 s it still lets 10,000 checks whose real servers are all silent go round within
/// 15 s, a quarter of the default `delay_loop`.
pub const MAX_PROBES: usize = 4_096;

/// How long no probe is started after one found no descriptor. Long enough that a machine that
/// has run out is not kept busy failing, short enough that no check is noticeably late for it.
const DESCRIPTOR_PAUSE: Duration = Duration::from_millis(100);

/// The longest wait of one checker whose own socket could not be set up: its source address may
/// be a VIP that arrives at any moment.
const SETUP_PAUSE: Duration = Duration::from_secs(1);

/// Something for control to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start this probe. Every one is answered exactly once, by a result or a deferral.
    Probe {
        /// Whose it is.
        checker: CheckerId,
        /// What to do.
        probe: Probe,
        /// When it was to start; the distance to now is how late the checks are.
        due: Instant,
    },
}

/// The checkers of all real servers.
///
/// A checker is in exactly one place: waiting for its time (`timers`), due but not started
/// (`ready`, oldest first), or under way (`probing`). Every step is O(log n).
#[derive(Debug)]
pub struct CheckSet {
    checkers: BTreeMap<CheckerId, Entry>,
    timers: BTreeSet<(Instant, CheckerId)>,
    ready: VecDeque<(Instant, CheckerId)>,
    /// Also holds probes whose checker was removed meanwhile: they still occupy a descriptor.
    probing: BTreeSet<CheckerId>,
    /// No probe starts before this.
    paused_until: Option<Instant>,
    next_id: u32,
    rng: fastrand::Rng,
}

#[derive(Debug)]
struct Entry {
    owner: Member,
    checker: Checker,
    /// When it is or was last due to start.
    due: Instant,
}

impl CheckSet {
    /// No checkers. `seed` decides the random waits.
    pub fn new(seed: u64) -> Self {
        Self {
            checkers: BTreeMap::new(),
            timers: BTreeSet::new(),
            ready: VecDeque::new(),
            probing: BTreeSet::new(),
            paused_until: None,
            next_id: 0,
            rng: fastrand::Rng::with_seed(seed),
        }
    }

    /// Adds a checker of `owner`, which is `down` now; its first probe is due after its first delay.
    pub fn insert(
        &mut self,
        now: Instant,
        owner: Member,
        settings: CheckerSettings,
        down: bool,
    ) -> CheckerId {
        let id = CheckerId(self.next_id);
        self.next_id = self.next_id.wrapping_add(1);
        let checker = Checker::new(settings, down);
        let due = now + checker.first_delay(&mut self.rng);
        self.timers.insert((due, id));
        let entry = Entry {
            owner,
            checker,
            due,
        };
        self.checkers.insert(id, entry);
        id
    }

    /// Removes a checker. The result of a probe under way will be ignored.
    pub fn remove(&mut self, id: CheckerId) {
        if let Some(entry) = self.checkers.remove(&id) {
            self.timers.remove(&(entry.due, id));
        }
    }

    /// Gives a checker new settings for the same probe target, and perhaps another owner; its timer runs on,
    /// but not beyond the new `delay_loop`.
    pub fn reconfigure(
        &mut self,
        now: Instant,
        id: CheckerId,
        owner: Member,
        settings: CheckerSettings,
    ) {
        let Some(entry) = self.checkers.get_mut(&id) else {
            return;
        };
        let latest = now + settings.delay_loop;
        if entry.checker.has_run() && entry.due > latest && self.timers.remove(&(entry.due, id)) {
            entry.due = latest;
            self.timers.insert((latest, id));
        }
        entry.owner = owner;
        entry.checker.reconfigure(settings);
    }

    /// Makes the probes that are due by `now` available to [`Self::poll_action`].
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.paused_until.is_some_and(|until| until <= now) {
            self.paused_until = None;
        }
        while let Some(&(due, id)) = self.timers.first().filter(|(due, _)| *due <= now) {
            self.timers.remove(&(due, id));
            self.ready.push_back((due, id));
        }
    }

    /// Takes the result of a probe. `None` when its checker is gone or none was under way.
    pub fn handle_result(
        &mut self,
        now: Instant,
        id: CheckerId,
        result: &ProbeResult,
    ) -> Option<(Member, Outcome)> {
        if !self.probing.remove(&id) {
            return None;
        }
        let entry = self.checkers.get_mut(&id)?;
        let outcome = entry.checker.handle_result(result, &mut self.rng);
        entry.due = now + outcome.next;
        self.timers.insert((entry.due, id));
        Some((entry.owner, outcome))
    }

    /// A probe could not be started: it is tried again soon, and its checker learns nothing.
    /// Returns whose it was.
    pub fn handle_deferral(
        &mut self,
        now: Instant,
        id: CheckerId,
        reason: Deferral,
    ) -> Option<Member> {
        if !self.probing.remove(&id) {
            return None;
        }
        if reason == Deferral::Descriptors {
            self.paused_until = Some(now + DESCRIPTOR_PAUSE);
        }
        let entry = self.checkers.get_mut(&id)?;
        if reason == Deferral::Descriptors {
            self.ready.push_front((entry.due, id));
        } else {
            entry.due = now + SETUP_PAUSE.min(entry.checker.settings().delay_loop);
            self.timers.insert((entry.due, id));
        }
        Some(entry.owner)
    }

    /// The next probe to start, if one is due and there is room for it.
    ///
    /// A caller may stop before `None` to bound its turn: [`Self::poll_timeout`] then names a
    /// time that has passed, so that it comes back at once.
    pub fn poll_action(&mut self) -> Option<Action> {
        if !self.may_start() {
            return None;
        }
        while let Some((due, id)) = self.ready.pop_front() {
            if let Some(entry) = self.checkers.get(&id) {
                self.probing.insert(id);
                return Some(Action::Probe {
                    checker: id,
                    probe: entry.checker.settings().probe.clone(),
                    due,
                });
            }
        }
        None
    }

    /// When [`Self::handle_timeout`] is to be called next; a time that has passed means now.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let timer = self.timers.first().map(|(due, _)| *due);
        let ready = self.ready.front().map(|(due, _)| *due);
        let start = match self.paused_until {
            Some(until) => ready.map(|_| until),
            None => ready.filter(|_| self.may_start()),
        };
        [timer, start].into_iter().flatten().min()
    }

    /// The checker with this number.
    pub fn get(&self, id: CheckerId) -> Option<&Checker> {
        self.checkers.get(&id).map(|entry| &entry.checker)
    }

    /// How many checkers there are.
    pub fn len(&self) -> usize {
        self.checkers.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.checkers.is_empty()
    }

    /// Probes under way.
    pub fn probing(&self) -> usize {
        self.probing.len()
    }

    fn may_start(&self) -> bool {
        self.paused_until.is_none() && self.probing.len() < MAX_PROBES
    }
}

#[cfg(test)]
mod tests;
