//! What is steered to the workers, reconciled with what the kernel takes.

use rapidhash::RapidHashSet;

use super::{super::log::Level, Forwarding, STEER_AGAIN, Steering, Voice, data_plane::DataPlane};
use crate::sys::steer::{Reconciled, Steered};

impl Forwarding {
    /// What is to be steered now. Own addresses come first: what is sent to them is never an answer to a client.
    pub(super) fn wanted_steering(&mut self) -> Vec<Steered> {
        let locals = self.locals.iter().map(|addr| Steered::Local(*addr));
        let mut wanted: Vec<Steered> = locals.collect();
        wanted.extend(self.services.steer(&self.leaving));
        wanted
    }

    /// Has what is wanted steered, and nothing else. What is new of virtual servers that not every worker knows yet
    /// waits until they do.
    pub(super) fn steer(&mut self, voice: &mut Voice<'_>) {
        if self.is_adopted() {
            self.unadopted.clear();
        }
        self.steering = Steering::Settled;
        let mut wanted = self.wanted_steering();
        // Most reloads change nothing of it, and to look up each of a hundred thousand takes long.
        let waits = !self.unadopted.is_empty() && wanted != self.steered;
        if waits {
            let unknown = self.leaving.iter().chain(&self.unadopted).copied();
            let known = self.services.steer(&unknown.collect::<Vec<_>>());
            let known: RapidHashSet<Steered> = known.into_iter().collect();
            let steered: RapidHashSet<&Steered> = self.steered.iter().collect();
            let is_local = |what: &Steered| matches!(what, Steered::Local(_));
            wanted.retain(|what| is_local(what) || known.contains(what) || steered.contains(what));
        }
        self.steerings += 1;
        if let Some(table) = self.data_plane.as_mut().and_then(DataPlane::fast_table) {
            self.narrow_fast(&table);
        }
        self.set_steering(wanted, voice);
        self.widen_fast();
        if waits && self.data_plane.is_some() {
            self.steering = Steering::AfterAdoption;
        }
    }

    pub(super) fn set_steering(&mut self, wanted: Vec<Steered>, voice: &mut Voice<'_>) {
        let Some(data_plane) = &mut self.data_plane else {
            self.steering = Steering::Settled;
            return;
        };
        let steering = data_plane.steering();
        let done = if wanted == self.steered {
            steering.reconcile()
        } else {
            steering.set(&wanted)
        };
        self.steered = wanted;
        self.note_steering(done, voice);
    }

    /// What the kernel refused is tried again, and said when it is news.
    pub(super) fn note_steering(&mut self, done: Reconciled, voice: &mut Voice<'_>) {
        let refused: Vec<String> = done.refused.iter().map(ToString::to_string).collect();
        if refused != self.refused {
            for line in &refused {
                voice.say(Level::Error, line);
            }
            if refused.is_empty() {
                voice.say(Level::Notice, "the kernel steers all that it should");
            }
            self.refused = refused;
        }
        // What waits for the table is not forgotten for what else there was to do.
        if self.steering != Steering::AfterAdoption {
            self.steering = match done.pending {
                0 => Steering::Settled,
                _ => Steering::Again(voice.now + STEER_AGAIN),
            };
        }
    }

    /// Whether packets of what is configured reach the workers, or there is nothing to forward: every worker has a
    /// table, and the kernel was told what to steer.
    pub(in crate::control) fn is_ready(&self) -> bool {
        let opened = |data_plane: &DataPlane| {
            data_plane.is_adopted() && self.steering != Steering::AfterAdoption
        };
        self.data_plane
            .as_ref()
            .map_or_else(|| self.services.is_empty(), opened)
    }

    /// What the kernel refused to steer, or to leave to the host; it is tried again all the time.
    pub(in crate::control) fn refused(&self) -> &[String] {
        &self.refused
    }
}
