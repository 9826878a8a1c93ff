//! Frames from one worker to another: what has an owner goes there, what leaves by an interface on which
//! this worker has no queue goes to one that has.
//!
//! There is a bounded ring for each pair of workers, with one producer and one consumer. One inbox a worker
//! that all others put into (crossbeam's `ArrayQueue`) would be one ring to look at instead of all, which is
//! a load from the own cache for each and turn; but a frame costs 20 to 27 ns to put in and take out of that
//! one on one processor and 47 ns between two, and 5 to 7 ns and 17 ns with `rtrb`. Frames are collected
//! during a burst and put in together, with one wake-up for a worker that sleeps.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering, fence},
    },
};

use crossbeam::utils::CachePadded;
use rtrb::{Consumer, Producer, RingBuffer};

use super::io::BURST;
use crate::{addr::PortId, balance::Ownership, sys::waker::Waker};

/// Frames of one worker that may wait for all others together: a quarter of those that it has for one
/// queue, so that those who are slow do not keep its fill ring empty.
const UNDER_WAY: usize = 1024;

/// Frames that may wait for one worker from one other, where there are so many workers. At least a burst:
/// no worker hands over more at once.
pub const fn ring_size(workers: usize) -> usize {
    let share = UNDER_WAY / if workers > 1 { workers - 1 } else { 1 };
    if share > BURST { share } else { BURST }
}

/// Frames from others that a worker takes in one turn: half of a burst, so that neither they nor its own
/// queues starve.
pub(super) const SHARE: usize = BURST / 2;

/// What is to be done with a frame by the worker that it is handed to.
#[derive(Debug)]
pub(super) enum Purpose {
    /// To be decided on. So many workers have looked for its flow before.
    Decide {
        /// [`Purpose::OWNED`] when it comes to its owner.
        hops: u16,
    },
    /// To be transmitted as it is.
    Transmit(PortId),
}

impl Purpose {
    /// More hops than workers: the frame goes no further.
    pub(super) const OWNED: u16 = u16::MAX;
}

/// A frame on its way.
#[derive(Debug)]
pub(super) struct Handoff<P> {
    pub(super) parted: P,
    pub(super) purpose: Purpose,
}

/// How one worker is woken.
struct Sleeper {
    /// Whether it sleeps or is about to.
    asleep: CachePadded<AtomicBool>,
    waker: Waker,
}

/// The way to one other worker.
struct Outlet<P> {
    ring: Producer<Handoff<P>>,
    /// What this burst has for it, with room for a whole one.
    kept: Vec<Handoff<P>>,
}

/// One worker's end of the hand-over.
pub struct Handover<P> {
    sleepers: Arc<[Sleeper]>,
    number: u32,
    ownership: Ownership,
    /// To each worker; that to itself is never used.
    outlets: Box<[Outlet<P>]>,
    /// From each worker.
    inlets: Box<[Consumer<Handoff<P>>]>,
    /// The one to look at first next time, so that none starves.
    first: usize,
}

impl<P> fmt::Debug for Handover<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handover")
            .field("number", &self.number)
            .field("ownership", &self.ownership)
            .finish_non_exhaustive()
    }
}

/// The ends of all workers, in their order; each of `wakers` wakes one. Empty with fewer than two: one
/// worker has nobody to hand over to. `seed` is drawn at start.
pub fn handovers<P>(wakers: &[Waker], seed: u64) -> Vec<Handover<P>> {
    let Some(workers) = u32::try_from(wakers.len()).ok().filter(|n| *n > 1) else {
        return Vec::new();
    };
    let size = ring_size(wakers.len());
    let sleeper = |waker: &Waker| Sleeper {
        asleep: CachePadded::default(),
        waker: waker.clone(),
    };
    let sleepers: Arc<[Sleeper]> = wakers.iter().map(sleeper).collect();
    let mut inlets: Vec<Vec<_>> = wakers.iter().map(|_| Vec::new()).collect();
    let mut outlets = |_| {
        let outlet = |inlets: &mut Vec<_>| {
            let (ring, inlet) = RingBuffer::new(size);
            inlets.push(inlet);
            Outlet {
                ring,
                kept: Vec::with_capacity(BURST),
            }
        };
        inlets.iter_mut().map(outlet).collect()
    };
    let outlets: Vec<Box<[_]>> = (0..workers).map(&mut outlets).collect();
    let ends = outlets.into_iter().zip(inlets).zip(0..);
    let end = |((outlets, inlets), number): ((_, Vec<_>), _)| Handover {
        sleepers: Arc::clone(&sleepers),
        number,
        ownership: Ownership::new(workers, seed),
        outlets,
        inlets: inlets.into(),
        first: 0,
    };
    ends.map(end).collect()
}

impl<P> Handover<P> {
    /// The number of this worker.
    pub(super) const fn number(&self) -> u32 {
        self.number
    }

    /// Whose is what.
    pub(super) const fn ownership(&self) -> Ownership {
        self.ownership
    }

    /// The next worker, in a round of all.
    pub(super) const fn next(&self) -> u32 {
        (self.number + 1) % self.ownership.workers()
    }

    /// Gives frames that others handed over to `take`, at most `most`.
    pub(super) fn take(&mut self, most: usize, mut take: impl FnMut(Handoff<P>)) {
        let (late, early) = self.inlets.split_at_mut(self.first);
        let mut inlets = early.iter_mut().chain(late);
        let mut left = most;
        while left > 0
            && let Some(inlet) = inlets.next()
        {
            while left > 0
                && let Ok(handoff) = inlet.pop()
            {
                left -= 1;
                take(handoff);
            }
        }
        self.first = (self.first + 1) % self.inlets.len();
    }

    /// Whether nothing that others have handed over waits to be taken.
    pub(super) fn is_drained(&self) -> bool {
        self.inlets.iter().all(Consumer::is_empty)
    }

    /// Keeps a frame for worker `to` until [`Self::dispatch`].
    ///
    /// # Errors
    /// The frame, when there is no such worker.
    pub(super) fn put(&mut self, to: u32, handoff: Handoff<P>) -> Result<(), P> {
        match self.outlets.get_mut(to as usize) {
            Some(outlet) => {
                outlet.kept.push(handoff);
                Ok(())
            }
            None => Err(handoff.parted),
        }
    }

    /// Hands over what was kept, and wakes those who sleep. What finds a ring full is given to `refused`.
    /// How many were handed over.
    pub(super) fn dispatch(&mut self, mut refused: impl FnMut(P)) -> u64 {
        let mut handed = 0;
        for (outlet, sleeper) in self.outlets.iter_mut().zip(&*self.sleepers) {
            if outlet.kept.is_empty() {
                continue;
            }
            let mut kept = outlet.kept.drain(..);
            let room = outlet.ring.slots().min(kept.len());
            if let Ok(chunk) = outlet.ring.write_chunk_uninit(room) {
                handed += chunk.fill_from_iter(kept.by_ref().take(room)) as u64;
            }
            kept.for_each(|handoff| refused(handoff.parted));
            // Either this sees that the other is about to sleep, or the other sees the frames.
            fence(Ordering::SeqCst);
            if sleeper.asleep.load(Ordering::Relaxed)
                && sleeper.asleep.swap(false, Ordering::Relaxed)
            {
                sleeper.waker.wake();
            }
        }
        handed
    }

    /// Calls `sleep`, which the waker ends, unless another worker has handed frames over.
    pub(super) fn doze<T>(&self, sleep: impl FnOnce() -> T) -> Option<T> {
        let sleeper = self.sleepers.get(self.number as usize)?;
        sleeper.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let slept = self.is_drained().then(sleep);
        sleeper.asleep.store(false, Ordering::Relaxed);
        slept
    }
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Duration};

    use super::*;
    use crate::sys::{clock, poll::PollSet};

    #[test]
    fn one_worker_has_nobody_to_hand_over_to() {
        assert!(handovers::<u32>(&[], 1).is_empty());
        assert!(handovers::<u32>(&[Waker::new().unwrap()], 1).is_empty());
    }

    #[test]
    fn those_who_hand_over_much_do_not_starve_the_others() {
        let wakers: Vec<_> = (0..4).map(|_| Waker::new().unwrap()).collect();
        let mut ends = handovers::<u32>(&wakers, 1);
        assert_eq!(ring_size(4), 341);
        let mut hand = |from: usize, count: u32| {
            for _ in 0..count {
                let purpose = Purpose::Decide { hops: 0 };
                let parted = u32::try_from(from).unwrap();
                assert!(ends[from].put(3, Handoff { parted, purpose }).is_ok());
            }
            let mut refused = 0;
            let handed = ends[from].dispatch(|_| refused += 1);
            assert_eq!(handed + refused, u64::from(count));
            refused
        };
        assert_eq!((hand(0, 400), hand(1, 400), hand(2, 5)), (59, 59, 0));
        let mut got = [0; 3];
        for _ in 0..4 {
            ends[3].take(SHARE, |handoff| got[handoff.parted as usize] += 1);
        }
        assert_eq!(got.iter().sum::<usize>(), 4 * SHARE);
        assert!(got[0] >= SHARE && got[1] >= SHARE, "{got:?}");
        assert_eq!(got[2], 5);
    }

    #[test]
    fn a_worker_that_dozes_off_misses_no_frame() {
        const ROUNDS: u32 = 20_000;
        const PATIENCE: Duration = Duration::from_secs(10);
        let wakers = [Waker::new().unwrap(), Waker::new().unwrap()];
        let ends = handovers::<u32>(&wakers, 1);
        let begin = clock::now();
        // A ball goes to and fro; each end sleeps without it.
        let players = ends.into_iter().zip(wakers).map(|(mut end, waker)| {
            thread::spawn(move || {
                let mut poll = PollSet::new(waker, 0);
                let serve = |end: &mut Handover<u32>, ball| {
                    let purpose = Purpose::Decide { hops: 0 };
                    let handoff = Handoff {
                        parted: ball,
                        purpose,
                    };
                    assert!(end.put(end.next(), handoff).is_ok());
                    assert_eq!(end.dispatch(|_| panic!("no room")), 1);
                };
                if end.number() == 0 {
                    serve(&mut end, 0);
                }
                let mut slept = 0_u32;
                loop {
                    let mut ball = None;
                    end.take(1, |handoff| ball = Some(handoff.parted));
                    if let Some(ball) = ball {
                        if ball < ROUNDS {
                            serve(&mut end, ball + 1);
                        }
                        if ball + 1 >= ROUNDS {
                            return slept;
                        }
                    } else if end.doze(|| poll.wait(PATIENCE)).is_some() {
                        slept += 1;
                        assert!(clock::now() - begin < PATIENCE, "a wake-up was lost");
                    }
                }
            })
        });
        let slept: Vec<u32> = players
            .collect::<Vec<_>>()
            .into_iter()
            .map(|player| player.join().unwrap())
            .collect();
        assert!(slept.iter().all(|slept| *slept > 0), "{slept:?}");
    }
}
