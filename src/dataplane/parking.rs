//! Frames that wait a moment for what they need: the MAC address of their next hop, or the first
//! fragment of their packet.
//!
//! What comes first for a real server whose address is not resolved yet is so delayed, not lost. The
//! room is bounded, the wait too.

use std::collections::VecDeque;

use crate::{stats::DropReason, time::Tick};

/// Frames that may wait at a time: more than a kernel's neighbour queues 101 packets for, fewer than a
/// sixteenth of a queue's frames.
const ROOM: usize = 256;
/// Of these, fragments without a first one: they can be forged at will.
const FRAGMENTS: usize = 64;
/// How long a frame waits for a MAC address: three probes of a second, as the kernel makes.
const PATIENCE: u32 = 3 * Tick::PER_SECOND;
/// How long for a first fragment: fragments that overtake each other are milliseconds apart.
const FRAGMENT_PATIENCE: u32 = Tick::PER_SECOND / 2;

/// A frame that waits.
#[derive(Debug)]
struct Parked<F> {
    frame: F,
    reason: DropReason,
    since: Tick,
}

/// The frames of one worker that wait.
#[derive(Debug)]
pub(super) struct Parking<F> {
    frames: VecDeque<Parked<F>>,
    fragments: usize,
    /// What was true when the frames here were looked at last; when it changes they are again.
    seen: (u64, u64),
}

impl<F> Parking<F> {
    pub(super) fn new() -> Self {
        Self {
            frames: VecDeque::with_capacity(ROOM),
            fragments: 0,
            seen: (0, 0),
        }
    }

    /// Lets a frame wait for what `reason` says is missing, since `since`.
    ///
    /// # Errors
    /// The frame, when there is no room or it has waited long enough.
    pub(super) fn park(
        &mut self,
        frame: F,
        reason: DropReason,
        since: Tick,
        now: Tick,
    ) -> Result<(), F> {
        let is_fragment = reason == DropReason::FragmentUnknown;
        let full = self.frames.len() == ROOM || (is_fragment && self.fragments == FRAGMENTS);
        if full || has_waited(reason, since, now) {
            return Err(frame);
        }
        self.fragments += usize::from(is_fragment);
        self.frames.push_back(Parked {
            frame,
            reason,
            since,
        });
        Ok(())
    }

    /// Whether nobody waits.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// How many are to be looked at again: all, if what they wait for may have come, which `version`
    /// tells by being another one (the table's generation, and how many first fragments were seen).
    pub(super) fn retry(&mut self, version: (u64, u64)) -> usize {
        if self.seen == version {
            return 0;
        }
        self.seen = version;
        self.frames.len()
    }

    /// The frame that has waited longest, and since when.
    pub(super) fn take(&mut self) -> Option<(F, Tick)> {
        let parked = self.frames.pop_front()?;
        self.fragments -= usize::from(parked.reason == DropReason::FragmentUnknown);
        Some((parked.frame, parked.since))
    }

    /// A frame that has waited long enough, and what for.
    pub(super) fn expired(&mut self, now: Tick) -> Option<(F, DropReason)> {
        let at = self
            .frames
            .iter()
            .position(|parked| has_waited(parked.reason, parked.since, now))?;
        let parked = self.frames.remove(at)?;
        self.fragments -= usize::from(parked.reason == DropReason::FragmentUnknown);
        Some((parked.frame, parked.reason))
    }

    /// Any frame, and what it waits for: when the worker ends.
    pub(super) fn give_up(&mut self) -> Option<(F, DropReason)> {
        let parked = self.frames.pop_front()?;
        Some((parked.frame, parked.reason))
    }
}

const fn has_waited(reason: DropReason, since: Tick, now: Tick) -> bool {
    let patience = match reason {
        DropReason::FragmentUnknown => FRAGMENT_PATIENCE,
        _ => PATIENCE,
    };
    now.since(since) >= patience
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Tick = Tick::from_raw(u32::MAX - 1);

    #[test]
    fn frames_are_looked_at_again_when_something_changed() {
        let mut parking = Parking::new();
        assert!(parking.park(1, DropReason::NoNextHop, NOW, NOW).is_ok());
        assert!(
            parking
                .park(2, DropReason::FragmentUnknown, NOW, NOW)
                .is_ok()
        );
        assert_eq!(parking.retry((1, 0)), 2);
        assert_eq!(parking.retry((1, 0)), 0);
        assert_eq!(parking.retry((1, 1)), 2);
        assert_eq!(parking.take(), Some((1, NOW)));
        assert_eq!(parking.take(), Some((2, NOW)));
        assert!(parking.is_empty());
    }

    #[test]
    fn nobody_waits_for_ever_and_fragments_less() {
        let mut parking = Parking::new();
        assert!(parking.park(1, DropReason::NoNextHop, NOW, NOW).is_ok());
        assert!(
            parking
                .park(2, DropReason::FragmentUnknown, NOW, NOW)
                .is_ok()
        );
        assert_eq!(parking.expired(NOW), None);
        let soon = Tick::from_raw(NOW.raw().wrapping_add(FRAGMENT_PATIENCE));
        assert_eq!(
            parking.expired(soon),
            Some((2, DropReason::FragmentUnknown))
        );
        assert_eq!(parking.expired(soon), None);
        let late = NOW.plus_secs(3);
        assert_eq!(
            parking.park(3, DropReason::NoNextHop, NOW, late),
            Err(3),
            "it has waited before"
        );
        assert_eq!(parking.expired(late), Some((1, DropReason::NoNextHop)));
        assert!(parking.is_empty());
    }

    #[test]
    fn the_room_is_bounded_and_fragments_do_not_take_it_all() {
        let mut parking = Parking::new();
        let mut parked = |reason| {
            let frames = 0..2 * ROOM;
            frames
                .filter(|n| parking.park(*n, reason, NOW, NOW).is_ok())
                .count()
        };
        assert_eq!(parked(DropReason::FragmentUnknown), FRAGMENTS);
        assert_eq!(parked(DropReason::NoNextHop), ROOM - FRAGMENTS);
        let rest = std::iter::from_fn(|| parking.give_up()).count();
        assert_eq!(rest, ROOM);
    }
}
