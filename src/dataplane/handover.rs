//! Frames from one worker to another: what has an owner goes there, what leaves by an interface on which
//! this worker has no queue goes to one that has.
//!
//! A worker has one inbox, a bounded ring that all others put frames into. A ring for each pair would save
//! the producers' compare-and-swap, and cost each worker a look at all of them in every turn. Frames
//! are collected during a burst and put in together, with one wake-up for a worker that sleeps.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering, fence},
    },
};

use crossbeam::{queue::ArrayQueue, utils::CachePadded};

use super::io::BURST;
use crate::{addr::PortId, balance::Ownership, sys::waker::Waker};

/// Frames that wait for one worker: 0.5 ms at 2 Mpps. A worker that is further behind is overloaded, and a
/// quarter of one queue's frames is all that it can keep from the others.
pub const INBOX: usize = 1024;

/// Frames from its inbox that a worker takes in one turn: half of a burst, so that neither the inbox nor
/// its own queues starve.
pub(super) const SHARE: usize = BURST / 2;

/// What is to be done with a frame by the worker that it is handed to.
#[derive(Debug)]
pub(super) enum Errand {
    /// To be decided on. So many workers have looked for its flow before.
    Decide {
        /// [`Errand::OWNED`] when it comes to its owner.
        hops: u16,
    },
    /// To be transmitted as it is.
    Transmit(PortId),
}

impl Errand {
    /// More hops than workers: the frame goes no further.
    pub(super) const OWNED: u16 = u16::MAX;
}

/// A frame on its way.
#[derive(Debug)]
pub(super) struct Parcel<P> {
    pub(super) parted: P,
    pub(super) errand: Errand,
}

struct Inbox<P> {
    parcels: ArrayQueue<Parcel<P>>,
    /// Whether the worker sleeps or is about to.
    asleep: CachePadded<AtomicBool>,
    waker: Waker,
}

/// One worker's end of the hand-over.
pub struct Handover<P> {
    inboxes: Arc<[Inbox<P>]>,
    number: u32,
    ownership: Ownership,
    /// For each worker, what this one has for it, with room for a whole burst.
    outboxes: Box<[Vec<Parcel<P>>]>,
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
    let inbox = |waker: &Waker| Inbox {
        parcels: ArrayQueue::new(INBOX),
        asleep: CachePadded::default(),
        waker: waker.clone(),
    };
    let inboxes: Arc<[Inbox<P>]> = wakers.iter().map(inbox).collect();
    let end = |number| Handover {
        inboxes: Arc::clone(&inboxes),
        number,
        ownership: Ownership::new(workers, seed),
        outboxes: wakers.iter().map(|_| Vec::with_capacity(BURST)).collect(),
    };
    (0..workers).map(end).collect()
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

    /// Takes the next frame out of this worker's inbox.
    #[inline]
    pub(super) fn take(&mut self) -> Option<Parcel<P>> {
        self.inboxes.get(self.number as usize)?.parcels.pop()
    }

    /// Keeps a frame for worker `to` until [`Self::dispatch`].
    ///
    /// # Errors
    /// The frame, when there is no such worker.
    pub(super) fn put(&mut self, to: u32, parcel: Parcel<P>) -> Result<(), P> {
        match self.outboxes.get_mut(to as usize) {
            Some(outbox) => {
                outbox.push(parcel);
                Ok(())
            }
            None => Err(parcel.parted),
        }
    }

    /// Hands over what was kept, and wakes those who sleep. What finds an inbox full is given to
    /// `refused`. How many were handed over.
    pub(super) fn dispatch(&mut self, mut refused: impl FnMut(P)) -> u64 {
        let mut handed = 0;
        for (outbox, inbox) in self.outboxes.iter_mut().zip(&*self.inboxes) {
            if outbox.is_empty() {
                continue;
            }
            for parcel in outbox.drain(..) {
                match inbox.parcels.push(parcel) {
                    Ok(()) => handed += 1,
                    Err(parcel) => refused(parcel.parted),
                }
            }
            // Either this sees that the other is about to sleep, or the other sees the frame.
            fence(Ordering::SeqCst);
            if inbox.asleep.load(Ordering::Relaxed) && inbox.asleep.swap(false, Ordering::Relaxed) {
                inbox.waker.wake();
            }
        }
        handed
    }

    /// Calls `sleep`, which the waker ends, unless a frame is in the inbox.
    pub(super) fn doze<T>(&self, sleep: impl FnOnce() -> T) -> Option<T> {
        let inbox = self.inboxes.get(self.number as usize)?;
        inbox.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let slept = inbox.parcels.is_empty().then(sleep);
        inbox.asleep.store(false, Ordering::Relaxed);
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
    fn a_worker_that_dozes_off_misses_no_frame() {
        const ROUNDS: u32 = 20_000;
        const PATIENCE: Duration = Duration::from_secs(10);
        let wakers = [Waker::new().unwrap(), Waker::new().unwrap()];
        let ends = handovers::<u32>(&wakers, 1);
        let begin = clock::now();
        // A ball goes to and fro; each end sleeps without it.
        let players = ends.into_iter().zip(wakers).map(|(mut end, waker)| {
            thread::spawn(move || {
                let mut poll = PollSet::new(waker);
                let serve = |end: &mut Handover<u32>, ball| {
                    let errand = Errand::Decide { hops: 0 };
                    let parcel = Parcel {
                        parted: ball,
                        errand,
                    };
                    assert!(end.put(end.next(), parcel).is_ok());
                    assert_eq!(end.dispatch(|_| panic!("no room")), 1);
                };
                if end.number() == 0 {
                    serve(&mut end, 0);
                }
                let mut slept = 0_u32;
                loop {
                    if let Some(Parcel { parted: ball, .. }) = end.take() {
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
