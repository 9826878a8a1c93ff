//! The seam between a worker and whatever carries its frames: AF_XDP, AF_PACKET or memory.
//!
//! A frame is a token: it is not `Copy` or `Clone`, and every call takes or returns it by value, so
//! the compiler keeps each one in exactly one place. Backends are chosen by generics, not `dyn`.

use std::{io, iter::Sum, time::Duration};

use crate::addr::PortId;

/// Frames handled in one turn of a worker. Large enough to amortise ring accesses and prefetches,
/// small enough that a burst's metadata stays in L1.
pub const BURST: usize = 64;

/// A frame in the worker's hands, from the destination MAC address to the end of the payload.
pub trait FrameBuf {
    /// The bytes as they lie on the wire (no FCS).
    fn bytes(&self) -> &[u8];
    /// The bytes, to be rewritten in place.
    fn bytes_mut(&mut self) -> &mut [u8];
    /// Grows the frame by `by` bytes at its front, from the headroom; `false` when there is too
    /// little headroom, and then nothing changed. The new bytes are unspecified.
    #[must_use]
    fn grow_front(&mut self, by: usize) -> bool;
    /// Cuts the frame off behind its first `len` bytes; a shorter frame stays as it is.
    fn truncate(&mut self, len: usize);
    /// Makes the frame have `len` bytes; `false` when it cannot have so many, and then nothing changed. Bytes that it
    /// did not have before are unspecified.
    #[must_use]
    fn resize(&mut self, len: usize) -> bool;
    /// The port that the frame came in on.
    fn ingress(&self) -> PortId;
}

/// Where a worker's frames are, for the conservation check: `total == in_kernel + free + in_hand`, by
/// counts that are kept as frames move. What the rings hold is asked of them, and shows whether the counts
/// are true once traffic has ended. Workers that share their frames share `whole` and `spare`; their sum
/// is complete when no frame is on its way between two of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameAccount {
    /// Frames that exist, over all workers that share them.
    pub whole: u64,
    /// Free frames that any of them may take.
    pub spare: u64,
    /// Frames that this worker is answerable for.
    pub total: u64,
    /// Frames in a ring or in flight in the kernel.
    pub in_kernel: u64,
    /// Those of `in_kernel` that the rings show; the others are where only the kernel sees them: in the
    /// driver's receive ring, or being sent. A frame that moves meanwhile may show in two rings at
    /// once, as the kernel fills the next ring before it gives up the place in the last.
    pub in_rings: u64,
    /// Frames in the backend's free list.
    pub free: u64,
    /// Frames received or taken over and not yet transmitted, released or handed over.
    pub in_hand: u64,
}

impl FrameAccount {
    /// Whether every frame is accounted for that this worker, or all whose sum this is, has.
    pub const fn is_conserved(&self) -> bool {
        self.total == self.in_kernel + self.free + self.in_hand
    }

    /// Whether this is the account of all frames that there are, each is accounted for, and none is with a
    /// worker or between two: so it must be when all have ended.
    pub const fn is_settled(&self) -> bool {
        self.is_conserved() && self.in_hand == 0 && self.whole == self.total + self.spare
    }
}

/// The account of several workers that share their frames.
impl Sum for FrameAccount {
    fn sum<I: Iterator<Item = Self>>(accounts: I) -> Self {
        accounts.fold(Self::default(), |sum, one| Self {
            whole: one.whole,
            spare: one.spare,
            total: sum.total + one.total,
            in_kernel: sum.in_kernel + one.in_kernel,
            in_rings: sum.in_rings + one.in_rings,
            free: sum.free + one.free,
            in_hand: sum.in_hand + one.in_hand,
        })
    }
}

/// A source and sink of frames, owned by one worker.
pub trait PacketIo {
    /// The token for one frame.
    type Frame: FrameBuf + Send;

    /// A frame between two workers.
    type Parted: Send;

    /// What a worker has of an interface.
    type Part: Send;

    /// Receives from and transmits on one more interface from now on; which port it is. It was not open.
    fn open(&mut self, part: Self::Part) -> PortId;

    /// Leaves an interface, and gives back what there was of it. The frames that the kernel has of it stay its
    /// own until [`Self::recover`]. `None` when the port is not open.
    fn close(&mut self, port: PortId) -> Option<Self::Part>;

    /// Takes back the frames that the kernel had of a port that was closed: it has let go of them.
    fn recover(&mut self, port: PortId);

    /// Whether an interface has this port.
    fn is_open(&self, port: PortId) -> bool;

    /// Takes back frames whose transmission is complete and hands the kernel empty ones to fill.
    fn reclaim(&mut self);

    /// Appends received frames to `burst` until it holds [`BURST`] or none is waiting. Never
    /// allocates: `burst` has capacity [`BURST`].
    fn receive(&mut self, burst: &mut Vec<Self::Frame>);

    /// Queues `frame` for transmission on `egress`; gives it back when the ring is full.
    ///
    /// # Errors
    /// The frame itself, when it could not be queued.
    fn transmit(&mut self, egress: PortId, frame: Self::Frame) -> Result<(), Self::Frame>;

    /// Has the kernel send what [`Self::transmit`] queued: for a ring one wake-up, and only where the
    /// kernel asked for it. How many of the frames that `transmit` took since the last call the kernel
    /// refused: those were not sent, and are free again.
    fn flush(&mut self) -> u64;

    /// Has the kernel try again what a busy device did not take at the last flush. For a worker that has nothing to do
    /// and does not sleep; [`Self::wait`] does it, too.
    fn nudge(&mut self) {}

    /// Gives back a frame that is not transmitted.
    fn release(&mut self, frame: Self::Frame);

    /// Lets go of a frame that another worker on the same frames is to take over.
    fn part(&mut self, frame: Self::Frame) -> Self::Parted;

    /// Takes over a frame that another worker on the same frames has let go of.
    fn take_over(&mut self, parted: Self::Parted) -> Self::Frame;

    /// The number of the worker that transmits on `egress` for this one, which cannot: an interface may
    /// have fewer queues than there are workers. `None` when this one can, or there is no such port.
    fn carrier(&self, egress: PortId) -> Option<u32>;

    /// A free frame without bytes, as if received on `ingress`, for a packet that must be made of nothing: the second
    /// fragment of one that is cut. `None` when none is free.
    fn blank(&mut self, ingress: PortId) -> Option<Self::Frame>;

    /// Sleeps until a frame may be waiting, the worker's waker fired, or `timeout` passed.
    ///
    /// # Errors
    /// What the poll reported; an interrupted poll is not an error.
    fn wait(&mut self, timeout: Duration) -> io::Result<()>;

    /// Where every frame is now.
    fn account(&mut self) -> FrameAccount;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_that_cannot_be_is_told_from_one_that_can() {
        let good = FrameAccount {
            whole: 100,
            spare: 0,
            total: 100,
            in_kernel: 60,
            in_rings: 58,
            free: 40,
            in_hand: 0,
        };
        assert!(good.is_conserved() && good.is_settled());
        let bad = FrameAccount { free: 39, ..good };
        assert!(!bad.is_conserved() && !bad.is_settled(), "{bad:?}");
        let held = FrameAccount {
            free: 39,
            in_hand: 1,
            ..good
        };
        assert!(held.is_conserved() && !held.is_settled());
    }

    #[test]
    fn of_workers_that_share_frames_only_all_together_are_settled() {
        let one = FrameAccount {
            whole: 200,
            spare: 20,
            total: 110,
            in_kernel: 60,
            in_rings: 60,
            free: 50,
            in_hand: 0,
        };
        let other = FrameAccount {
            total: 70,
            free: 10,
            ..one
        };
        assert!(one.is_conserved() && other.is_conserved() && !one.is_settled());
        let sum: FrameAccount = [one, other].into_iter().sum();
        assert!(sum.is_settled(), "{sum:?}");
        assert_eq!((sum.in_kernel, sum.in_rings, sum.free), (120, 120, 60));
        // One is between the two.
        let less = FrameAccount {
            total: 69,
            free: 9,
            ..other
        };
        let sum: FrameAccount = [one, less].into_iter().sum();
        assert!(sum.is_conserved() && !sum.is_settled(), "{sum:?}");
    }
}
