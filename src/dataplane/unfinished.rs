//! Frames whose checksums a sender left to a card that there never was, on AF_XDP: XDP is not told of it.
//!
//! On every port that the kernel copies frames from, the first frame of a run is looked at. One whose sum is
//! unfinished has all of the port's frames looked at for a while, which each further one prolongs: so a port where
//! there are none pays for one look a burst, and zero-copy ports, whose frames came by a wire, for nothing.

use std::sync::Arc;

use super::io::FrameBuf;
use crate::{addr::PortId, stats::Counter, wire::partial};

/// Ports that a [`PortId`] can name.
const PORTS: usize = 256;
/// Frames of a port that are looked at after one with an unfinished checksum: some seconds of a busy veth, less than
/// a millisecond's work.
const LOOKS: u32 = 1 << 16;

/// Checksums that one worker finished, by port.
#[derive(Debug)]
pub struct FinishedSums(Box<[Counter]>);

impl FinishedSums {
    fn new() -> Self {
        Self((0..PORTS).map(|_| Counter::default()).collect())
    }

    /// How many of frames that came in on `port`.
    pub fn of(&self, port: PortId) -> u64 {
        self.0[usize::from(port.0)].get()
    }
}

/// Finishes checksums, for one worker.
#[derive(Debug)]
pub(super) struct Finisher {
    /// For each port, frames that are still to be looked at.
    looks: Box<[u32]>,
    finished: Arc<FinishedSums>,
}

impl Finisher {
    pub(super) fn new() -> Self {
        Self {
            looks: vec![0; PORTS].into(),
            finished: Arc::new(FinishedSums::new()),
        }
    }

    /// What it has done, for control.
    pub(super) fn finished(&self) -> Arc<FinishedSums> {
        Arc::clone(&self.finished)
    }

    /// Finishes what is unfinished among frames that were just received.
    #[inline]
    pub(super) fn finish<F: FrameBuf>(&mut self, frames: &mut [F]) {
        let mut last = None;
        for frame in frames {
            let port = frame.ingress();
            let looks = &mut self.looks[usize::from(port.0)];
            if *looks > 0 || last.replace(port) != Some(port) {
                *looks = looks.saturating_sub(1);
                if partial::finish_if_unfinished(frame.bytes_mut()) {
                    *looks = LOOKS;
                    self.finished.0[usize::from(port.0)].add(1);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        dataplane::{
            io::{BURST, PacketIo},
            memory::{MemoryFrame, MemoryIo},
        },
        wire::partial::tests::unfinished,
    };

    /// Has the finisher look at one burst of these frames. What they are then.
    fn received(finisher: &mut Finisher, frames: &[(PortId, &[u8])]) -> Vec<Vec<u8>> {
        let mut io = MemoryIo::new(frames.len(), 1);
        for (port, bytes) in frames {
            assert!(io.inject(*port, bytes));
        }
        let mut burst: Vec<MemoryFrame> = Vec::with_capacity(BURST);
        io.receive(&mut burst);
        finisher.finish(&mut burst);
        burst.iter().map(|frame| frame.bytes().to_vec()).collect()
    }

    #[test]
    fn from_the_first_unfinished_checksum_on_all_of_the_port_are_finished() {
        let (front, back) = (PortId(0), PortId(1));
        let (partial, whole) = unfinished(false, true, b"to a veth");
        let mut finisher = Finisher::new();
        let burst = [(front, &whole[..]), (back, &partial), (back, &partial)];
        assert_eq!(received(&mut finisher, &burst), [&whole[..]; 3]);
        // Not the first of its run, but of a port that is known by now.
        let burst = [(back, &whole[..]), (back, &partial), (front, &whole)];
        assert_eq!(received(&mut finisher, &burst), [&whole[..]; 3]);
        let finished = finisher.finished();
        assert_eq!((finished.of(front), finished.of(back)), (0, 3));
    }

    #[test]
    fn a_port_is_left_alone_again_when_long_none_came() {
        let port = PortId(7);
        let (partial, whole) = unfinished(true, false, b"now and then");
        let mut finisher = Finisher::new();
        assert_eq!(received(&mut finisher, &[(port, &partial)]), [&whole[..]]);
        for _ in 0..LOOKS {
            received(&mut finisher, &[(port, &whole)]);
        }
        let burst = [(port, &whole[..]), (port, &partial)];
        assert_eq!(received(&mut finisher, &burst), [&whole[..], &partial]);
        assert_eq!(received(&mut finisher, &[(port, &partial)]), [&whole[..]]);
    }
}
