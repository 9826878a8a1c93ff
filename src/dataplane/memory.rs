//! Frames in memory: what tests and benches run a worker on.

use std::{io, time::Duration};

use super::io::{BURST, FrameAccount, FrameBuf, PacketIo};
use crate::addr::PortId;

/// Bytes of a frame's memory, as an AF_XDP chunk has.
const FRAME_SIZE: usize = 2048;
/// Bytes in front of a received frame, as XDP leaves them.
const HEADROOM: u16 = 256;
/// Bytes that a received frame can have.
const ROOM: usize = FRAME_SIZE - HEADROOM as usize;

/// A frame of a [`MemoryIo`]: two words, as a descriptor of AF_XDP is.
#[derive(Debug)]
pub struct MemoryFrame {
    memory: Box<[u8; FRAME_SIZE]>,
    place: Place,
}

const _: () = assert!(size_of::<MemoryFrame>() == 16, "moved in two registers");

/// Where a frame's bytes are in its memory, from bit 0 on and up to bit 16 on; at bit 32 the port that it came in on or,
/// once it is transmitted, left on. One word, as it is moved as one: a part that was stored alone would have the move
/// wait, which would be counted as the worker's.
#[derive(Clone, Copy, Debug)]
struct Place(u64);

impl Place {
    const fn new(start: u16, end: u16, port: PortId) -> Self {
        Self(start as u64 | (end as u64) << 16 | (port.0 as u64) << 32)
    }

    #[expect(clippy::cast_possible_truncation, reason = "the lowest part")]
    const fn start(self) -> u16 {
        self.0 as u16
    }

    #[expect(clippy::cast_possible_truncation, reason = "the part at bit 16")]
    const fn end(self) -> u16 {
        (self.0 >> 16) as u16
    }

    #[expect(clippy::cast_possible_truncation, reason = "the part at bit 32")]
    const fn port(self) -> PortId {
        PortId((self.0 >> 32) as u8)
    }
}

impl MemoryFrame {
    /// Makes the frame hold the `len` bytes of `bytes`, which fit in behind the headroom, as
    /// received on `ingress`.
    fn load(&mut self, ingress: PortId, bytes: &[u8], len: u16) {
        self.place = Place::new(HEADROOM, HEADROOM + len, ingress);
        self.bytes_mut().copy_from_slice(bytes);
    }
}

impl FrameBuf for MemoryFrame {
    #[inline]
    fn bytes(&self) -> &[u8] {
        &self.memory[usize::from(self.place.start())..usize::from(self.place.end())]
    }

    #[inline]
    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[usize::from(self.place.start())..usize::from(self.place.end())]
    }

    #[inline]
    fn grow_front(&mut self, by: usize) -> bool {
        let by = u16::try_from(by).ok();
        match by.and_then(|by| self.place.start().checked_sub(by)) {
            Some(start) => {
                self.place = Place::new(start, self.place.end(), self.place.port());
                true
            }
            None => false,
        }
    }

    #[inline]
    fn truncate(&mut self, len: usize) {
        let (start, had) = (self.place.start(), self.place.end());
        let end = usize::from(start).saturating_add(len);
        let end = u16::try_from(end).map_or(had, |end| had.min(end));
        self.place = Place::new(start, end, self.place.port());
    }

    fn resize(&mut self, len: usize) -> bool {
        let end = usize::from(self.place.start()).saturating_add(len);
        match u16::try_from(end) {
            Ok(end) if usize::from(end) <= FRAME_SIZE => {
                self.place = Place::new(self.place.start(), end, self.place.port());
                true
            }
            _ => false,
        }
    }

    #[inline]
    fn ingress(&self) -> PortId {
        self.place.port()
    }
}

/// A queue of fixed length, first in, first out.
#[derive(Debug)]
struct Ring {
    /// A power of two of them.
    slots: Box<[Option<MemoryFrame>]>,
    /// Frames that were ever taken out, and put in.
    taken: usize,
    put: usize,
}

impl Ring {
    /// A ring with room for at least `frames`.
    fn new(frames: usize) -> Self {
        let slots = (0..frames.next_power_of_two()).map(|_| None).collect();
        Self {
            slots,
            taken: 0,
            put: 0,
        }
    }

    /// Puts in a frame; the caller sees to it that there is room.
    #[inline]
    fn push(&mut self, frame: MemoryFrame) {
        let at = self.put & (self.slots.len() - 1);
        self.slots[at] = Some(frame);
        self.put += 1;
    }

    #[inline]
    fn pop(&mut self) -> Option<MemoryFrame> {
        let at = self.taken & (self.slots.len() - 1);
        let frame = self.slots[at].take()?;
        self.taken += 1;
        Some(frame)
    }

    /// Takes out again what was put in last.
    fn take_back(&mut self) -> Option<MemoryFrame> {
        let last = self.put.checked_sub(1).filter(|last| *last >= self.taken)?;
        self.put = last;
        self.slots[last & (self.slots.len() - 1)].take()
    }

    #[inline]
    const fn len(&self) -> usize {
        self.put - self.taken
    }
}

/// A backend whose wire is two queues: what was injected is received, what is transmitted is kept
/// until it is collected.
#[derive(Debug)]
pub struct MemoryIo {
    free: Vec<MemoryFrame>,
    received: Ring,
    transmitted: Ring,
    /// Frames that may be in `transmitted`.
    ring: usize,
    refusing: usize,
    begun: u64,
    /// Frames let go of, less those taken over.
    parted: i64,
    in_hand: u64,
    /// For each port, the worker that transmits on it for this one.
    carriers: Vec<Option<u32>>,
    /// Ports that were closed; all others are open.
    closed: Vec<PortId>,
    waits: u64,
}

impl MemoryIo {
    /// A backend with `frames` frames, and transmit rings of `ring`.
    pub fn new(frames: usize, ring: usize) -> Self {
        let vacant = || MemoryFrame {
            memory: Box::new([0; FRAME_SIZE]),
            place: Place::new(HEADROOM, HEADROOM, PortId(0)),
        };
        Self {
            free: (0..frames).map(|_| vacant()).collect(),
            received: Ring::new(frames),
            transmitted: Ring::new(frames),
            ring,
            refusing: 0,
            begun: frames as u64,
            parted: 0,
            in_hand: 0,
            carriers: Vec::new(),
            closed: Vec::new(),
            waits: 0,
        }
    }

    /// Leaves what is to be transmitted on `egress` to another worker.
    pub fn leave_to(&mut self, egress: PortId, worker: u32) {
        let port = usize::from(egress.0);
        if self.carriers.len() <= port {
            self.carriers.resize(port + 1, None);
        }
        self.carriers[port] = Some(worker);
    }

    /// How often the worker wanted to sleep. It was woken at once.
    pub const fn waits(&self) -> u64 {
        self.waits
    }

    /// Puts a frame on the wire to `ingress`; `false` when no frame is free or it does not fit.
    pub fn inject(&mut self, ingress: PortId, bytes: &[u8]) -> bool {
        let Some(len) = u16::try_from(bytes.len())
            .ok()
            .filter(|_| bytes.len() <= ROOM)
        else {
            return false;
        };
        let Some(mut frame) = self.free.pop() else {
            return false;
        };
        frame.load(ingress, bytes, len);
        self.received.push(frame);
        true
    }

    /// Takes the next transmitted frame off the wire: where it left, and its bytes.
    pub fn collect(&mut self) -> Option<(PortId, Vec<u8>)> {
        let frame = self.transmitted.pop()?;
        let (egress, bytes) = (frame.place.port(), frame.bytes().to_vec());
        self.free.push(frame);
        Some((egress, bytes))
    }

    /// Has the next flush refuse so many of the frames that were transmitted last, as the kernel does
    /// when an interface is down.
    pub const fn refuse(&mut self, frames: usize) {
        self.refusing = frames;
    }

    /// Takes every transmitted frame off the wire unseen. How many there were.
    pub fn discard(&mut self) -> usize {
        let frames = self.transmitted.len();
        while let Some(frame) = self.transmitted.pop() {
            self.free.push(frame);
        }
        frames
    }
}

impl PacketIo for MemoryIo {
    type Frame = MemoryFrame;
    type Parted = MemoryFrame;
    /// There is nothing to have but its number.
    type Part = PortId;

    fn open(&mut self, part: PortId) -> PortId {
        self.closed.retain(|port| *port != part);
        part
    }

    fn close(&mut self, port: PortId) -> Option<PortId> {
        let was_open = self.is_open(port);
        was_open.then(|| self.closed.push(port)).map(|()| port)
    }

    fn recover(&mut self, _: PortId) {}

    #[inline]
    fn is_open(&self, port: PortId) -> bool {
        !self.closed.contains(&port)
    }

    fn reclaim(&mut self) {}

    #[inline]
    fn receive(&mut self, burst: &mut Vec<MemoryFrame>) {
        let room = BURST.saturating_sub(burst.len());
        let before = burst.len();
        burst.extend((0..room).map_while(|_| self.received.pop()));
        self.in_hand += (burst.len() - before) as u64;
    }

    #[inline]
    fn transmit(&mut self, egress: PortId, mut frame: MemoryFrame) -> Result<(), MemoryFrame> {
        if self.transmitted.len() == self.ring
            || self.carrier(egress).is_some()
            || !self.is_open(egress)
        {
            return Err(frame);
        }
        frame.place = Place::new(frame.place.start(), frame.place.end(), egress);
        self.transmitted.push(frame);
        self.in_hand -= 1;
        Ok(())
    }

    fn flush(&mut self) -> u64 {
        let refused = std::mem::take(&mut self.refusing).min(self.transmitted.len());
        for _ in 0..refused {
            self.free.extend(self.transmitted.take_back());
        }
        refused as u64
    }

    fn release(&mut self, frame: MemoryFrame) {
        self.free.push(frame);
        self.in_hand -= 1;
    }

    fn part(&mut self, frame: MemoryFrame) -> MemoryFrame {
        self.in_hand -= 1;
        self.parted += 1;
        frame
    }

    fn take_over(&mut self, parted: MemoryFrame) -> MemoryFrame {
        self.in_hand += 1;
        self.parted -= 1;
        parted
    }

    #[inline]
    fn carrier(&self, egress: PortId) -> Option<u32> {
        self.carriers.get(usize::from(egress.0)).copied().flatten()
    }

    fn blank(&mut self, ingress: PortId) -> Option<MemoryFrame> {
        let mut frame = self.free.pop()?;
        frame.load(ingress, &[], 0);
        self.in_hand += 1;
        Some(frame)
    }

    fn wait(&mut self, _timeout: Duration) -> io::Result<()> {
        self.waits += 1;
        Ok(())
    }

    fn account(&mut self) -> FrameAccount {
        let in_rings = (self.received.len() + self.transmitted.len()) as u64;
        let total = self.begun.saturating_add_signed(-self.parted);
        FrameAccount {
            whole: total,
            spare: 0,
            total,
            in_kernel: in_rings,
            in_rings,
            free: self.free.len() as u64,
            in_hand: self.in_hand,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_go_round_and_are_accounted_for() {
        let mut io = MemoryIo::new(2, 1);
        assert!(io.inject(PortId(3), b"one") && io.inject(PortId(3), b"two"));
        assert!(!io.inject(PortId(3), b"no frame is left"));
        let mut burst = Vec::with_capacity(BURST);
        io.receive(&mut burst);
        assert_eq!(io.account().in_hand, 2);
        let two = burst.pop().unwrap();
        let mut one = burst.pop().unwrap();
        assert_eq!((one.bytes(), one.ingress()), (&b"one"[..], PortId(3)));
        assert!(one.grow_front(HEADROOM.into()) && !one.grow_front(1));
        one.truncate(4);
        assert_eq!(one.bytes().len(), 4);
        assert!(io.transmit(PortId(1), one).is_ok());
        let two = io.transmit(PortId(1), two).unwrap_err();
        io.release(two);
        assert!(io.account().is_conserved());
        let mut spare = io.blank(PortId(5)).unwrap();
        assert_eq!((spare.bytes().len(), spare.ingress()), (0, PortId(5)));
        assert!(!spare.resize(ROOM + 1) && spare.resize(ROOM) && spare.resize(3));
        assert_eq!(spare.bytes().len(), 3);
        assert!(io.blank(PortId(5)).is_none(), "the other is on the wire");
        io.release(spare);
        assert!(io.account().is_conserved());
        assert_eq!(io.collect().unwrap().0, PortId(1));
        assert_eq!(io.account().free, 2);
    }
}
