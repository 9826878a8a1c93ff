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

/// Frames that wait for the same kind of thing, first come, first looked at.
#[derive(Debug)]
struct Queue<F> {
    frames: VecDeque<Parked<F>>,
    /// What tells by being another one that what they wait for may have come: its value when they were looked at
    /// last.
    seen: u64,
    /// Frames at the front that are still to be looked at for that.
    due: usize,
}

/// The frames of one worker that wait.
#[derive(Debug)]
pub(super) struct Parking<F> {
    /// For a MAC address, and whatever else a table may bring.
    for_hops: Queue<F>,
    for_fragments: Queue<F>,
}

impl<F> Queue<F> {
    fn new(room: usize) -> Self {
        Self {
            frames: VecDeque::with_capacity(room),
            seen: 0,
            due: 0,
        }
    }

    /// The next frame to look at again. What changes meanwhile counts once all have been looked at.
    fn next(&mut self, version: u64) -> Option<Parked<F>> {
        if self.due == 0 && self.seen != version {
            self.seen = version;
            self.due = self.frames.len();
        }
        self.due = self.due.checked_sub(1)?;
        self.frames.pop_front()
    }

    fn expired(&mut self, now: Tick) -> Option<Parked<F>> {
        let at = self
            .frames
            .iter()
            .position(|parked| has_waited(parked.reason, parked.since, now))?;
        self.due -= usize::from(at < self.due);
        self.frames.remove(at)
    }
}

impl<F> Parking<F> {
    /// Gives the frames for which `is_meant` holds to `each`; the others go on waiting.
    pub(super) fn remove(&mut self, is_meant: impl Fn(&F) -> bool, mut each: impl FnMut(F)) {
        for queue in [&mut self.for_hops, &mut self.for_fragments] {
            let due = std::mem::take(&mut queue.due);
            for at in 0..queue.frames.len() {
                let Some(parked) = queue.frames.pop_front() else {
                    break;
                };
                if is_meant(&parked.frame) {
                    each(parked.frame);
                } else {
                    queue.due += usize::from(at < due);
                    queue.frames.push_back(parked);
                }
            }
        }
    }

    pub(super) fn new() -> Self {
        Self {
            for_hops: Queue::new(ROOM),
            for_fragments: Queue::new(FRAGMENTS),
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
        let all = self.for_hops.frames.len() + self.for_fragments.frames.len();
        let (queue, room) = match reason {
            DropReason::FragmentUnknown => (&mut self.for_fragments, FRAGMENTS),
            _ => (&mut self.for_hops, ROOM),
        };
        if all == ROOM || queue.frames.len() == room || has_waited(reason, since, now) {
            return Err(frame);
        }
        queue.frames.push_back(Parked {
            frame,
            reason,
            since,
        });
        Ok(())
    }

    /// Whether nobody waits.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.for_hops.frames.is_empty() && self.for_fragments.frames.is_empty()
    }

    /// The next frame for which what it waits for may have come, and since when it waits: all that wait for a MAC
    /// address with each new table, those that wait for a first fragment with each that was seen. `version` is the
    /// table's generation, and how many first fragments there were.
    pub(super) fn take(&mut self, version: (u64, u64)) -> Option<(F, Tick)> {
        let parked = self
            .for_hops
            .next(version.0)
            .or_else(|| self.for_fragments.next(version.1))?;
        Some((parked.frame, parked.since))
    }

    /// A frame that has waited long enough, and what for.
    pub(super) fn expired(&mut self, now: Tick) -> Option<(F, DropReason)> {
        let parked = self
            .for_hops
            .expired(now)
            .or_else(|| self.for_fragments.expired(now))?;
        Some((parked.frame, parked.reason))
    }

    /// Any frame, and what it waits for: when the worker ends.
    pub(super) fn give_up(&mut self) -> Option<(F, DropReason)> {
        let hops = self.for_hops.frames.pop_front();
        let parked = hops.or_else(|| self.for_fragments.frames.pop_front())?;
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
        // What is parked again while the others are looked at is not looked at with them.
        assert_eq!(parking.take((1, 0)), Some((1, NOW)));
        assert!(parking.park(1, DropReason::NoNextHop, NOW, NOW).is_ok());
        assert_eq!(parking.take((1, 0)), None);
        // A first fragment brings no MAC address, nor a table a first fragment.
        assert_eq!(parking.take((1, 1)), Some((2, NOW)));
        assert_eq!(parking.take((1, 2)), None);
        assert_eq!(parking.take((2, 2)), Some((1, NOW)));
        assert!(parking.is_empty());
    }

    #[test]
    fn one_that_has_waited_long_enough_is_not_missed_among_those_to_look_at() {
        let mut parking = Parking::new();
        let late = NOW.plus_secs(3);
        assert!(parking.park(1, DropReason::NoNextHop, NOW, NOW).is_ok());
        for n in 2..5 {
            assert!(parking.park(n, DropReason::NoNextHop, late, late).is_ok());
        }
        assert_eq!(parking.take((1, 0)), Some((1, NOW)));
        assert!(parking.park(1, DropReason::NoNextHop, NOW, NOW).is_ok());
        assert_eq!(parking.expired(late), Some((1, DropReason::NoNextHop)));
        assert_eq!(parking.take((1, 0)), Some((2, late)));
        assert_eq!(parking.take((1, 0)), Some((3, late)));
        assert!(parking.park(3, DropReason::NoNextHop, late, late).is_ok());
        assert_eq!(parking.take((1, 0)), Some((4, late)));
        assert_eq!(parking.take((1, 0)), None);
    }

    #[test]
    fn what_is_taken_out_leaves_the_order_and_what_is_still_to_be_looked_at() {
        let mut parking = Parking::new();
        for frame in 0..6 {
            let parked = parking.park(frame, DropReason::NoNextHop, NOW, NOW);
            assert!(parked.is_ok());
        }
        // A change: the first two are looked at, and wait on.
        for frame in 0..2 {
            let (looked_at, since) = parking.take((2, 0)).unwrap();
            assert_eq!(looked_at, frame);
            assert!(
                parking
                    .park(frame, DropReason::NoNextHop, since, NOW)
                    .is_ok()
            );
        }
        let mut out = Vec::new();
        parking.remove(|frame| frame % 3 == 0, |frame| out.push(frame));
        assert_eq!(out, [3, 0]);
        let left = std::iter::from_fn(|| parking.take((2, 0)));
        assert_eq!(left.map(|(frame, _)| frame).collect::<Vec<_>>(), [2, 4, 5]);
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
