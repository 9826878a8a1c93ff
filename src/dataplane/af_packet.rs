//! Packet I/O over AF_PACKET, where XDP is refused or not wished for.
//!
//! The kernel copies each of the balancer's packets to us and then, by the ingress filter, drops its
//! own. Frames are buffers of ours, made once; a frame's token owns its buffer.

use std::{
    collections::VecDeque,
    io, mem,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use super::{
    af_xdp::notes_on,
    io::{BURST, FrameAccount, FrameBuf, PacketIo},
    ports::{Attempt, Backend, InterfaceReport, Level, OpenPort},
};
use crate::{
    addr::PortId,
    stats::{IoDrop, IoDrops},
    sys::{
        device::InterfaceSpec,
        open_error::OpenError,
        packet_socket::{self, EXCESS, PacketSocket, Received},
        poll::PollSet,
        steer::Hook,
        waker::Waker,
        xsk::XskStatistics,
    },
    wire::{ethernet, partial, segment::Segments, vlan},
};

/// Frames in all. The kernel queues in memory of its own, so these are only those in hand: a burst,
/// and what waits for a neighbour.
const FRAMES: usize = 2048;
/// Frames that a packet usually makes whose sender left it to a card to cut it: 64 KiB by 1448.
const USUAL_SEGMENTS: usize = 46;
/// Bytes before a received packet: room for an outer header, and for the VLAN tag put back.
const HEADROOM: usize = 128;
/// Bytes of a frame beside its IP packet: Ethernet and two VLAN tags.
const LINK_OVERHEAD: usize = 14 + 2 * vlan::TAG_LEN;
/// Smallest packet buffer, so that a small MTU at start is no trap later.
const SMALLEST_MTU: u32 = 1500;

/// A frame in the holder's hands.
#[derive(Debug)]
pub struct PacketFrame {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    port: PortId,
}

impl PacketFrame {
    /// A frame without a packet.
    const fn empty(buffer: Box<[u8]>, port: PortId) -> Self {
        Self {
            buffer,
            start: HEADROOM,
            end: HEADROOM,
            port,
        }
    }
}

/// Bytes of a buffer on interfaces of this MTU. Another frame's buffer may have to hold a whole packet
/// with its outer header behind its own headroom, when that is cut in two.
const fn buffer_size(mtu: u32) -> usize {
    HEADROOM + HEADROOM + mtu as usize + LINK_OVERHEAD
}

/// Opens and closes interfaces over AF_PACKET.
pub struct PacketBackend {
    /// Bytes of an IP packet that every buffer holds.
    largest: u32,
}

/// An interface's socket, and what was transmitted on it since the last flush, up to [`BURST`].
pub struct PacketPort {
    port: PortId,
    socket: PacketSocket,
    queued: Vec<PacketFrame>,
}

/// Packet I/O over AF_PACKET: the sockets of the one worker.
pub struct AfPacket {
    /// In the order in which they came; with room for all that there can be.
    ports: Vec<PacketPort>,
    /// Frames that could not be sent since the last flush.
    refused: u64,
    poll: PollSet,
    free: Vec<Box<[u8]>>,
    /// What was just received, the last packet first.
    arrived: Vec<(Box<[u8]>, Received)>,
    /// A packet that is cut.
    whole: Vec<u8>,
    /// Frames that were cut from packets and had no room in a burst.
    waiting: VecDeque<PacketFrame>,
    in_hand: u64,
    /// The socket to ask first next time, so that none starves.
    next: usize,
    drops: Arc<IoDrops>,
    receive_errors: u64,
}

impl PacketBackend {
    /// The two halves, the one that opens interfaces and the worker's, which `waker` wakes. Buffers are made for
    /// packets of up to `mtu` bytes, the largest of the interfaces that there are.
    pub fn new(mtu: u32, waker: Waker) -> (Self, AfPacket) {
        let largest = mtu.max(SMALLEST_MTU);
        let size = buffer_size(largest);
        let buffer = || vec![0; size].into_boxed_slice();
        let io = AfPacket {
            ports: Vec::with_capacity(PortId::COUNT),
            refused: 0,
            poll: PollSet::new(waker, PortId::COUNT),
            free: (0..FRAMES).map(|_| buffer()).collect(),
            arrived: Vec::with_capacity(BURST),
            whole: Vec::with_capacity(size + EXCESS),
            waiting: VecDeque::with_capacity(FRAMES),
            in_hand: 0,
            next: 0,
            drops: Arc::new(IoDrops::default()),
            receive_errors: 0,
        };
        (Self { largest }, io)
    }
}

impl Backend for PacketBackend {
    type Part = PacketPort;

    const HOOK: Hook = Hook::Ingress;

    fn open(&self, attempt: Attempt<'_>) -> Result<OpenPort<PacketPort>, OpenError> {
        let (spec, properties, program) = (attempt.spec, attempt.properties, attempt.program);
        let socket = PacketSocket::open(spec, properties.mac, program)?;
        program
            .set_socket(0, socket.as_fd())
            .map_err(|e| OpenError::from_errno(&spec.name, "set up AF_PACKET", e))?;
        let mut notes = program.attach(None)?.notes;
        notes.extend(notes_on(program, properties, Level::AfPacket, self.largest));
        Ok(OpenPort {
            parts: vec![PacketPort {
                port: attempt.port,
                socket,
                queued: Vec::with_capacity(BURST),
            }],
            report: InterfaceReport {
                interface: spec.name.clone(),
                level: Level::AfPacket,
                queues: 1,
                notes,
            },
            deferral: None,
        })
    }

    /// The kernel copies: it has nothing of ours.
    fn is_released(&self, _: &InterfaceSpec, _: u32) -> bool {
        true
    }

    fn is_unbound(&self, socket: &OwnedFd) -> bool {
        packet_socket::is_unbound(socket)
    }

    /// Asking makes the kernel's count zero.
    fn count(&self, socket: &OwnedFd, drops: &IoDrops) -> Option<XskStatistics> {
        let dropped = packet_socket::dropped(socket).unwrap_or(0);
        drops.of(IoDrop::PacketSocketFull).add(dropped);
        Some(XskStatistics::default())
    }
}

impl AfPacket {
    /// What goes wrong below the worker.
    pub const fn drops(&self) -> &Arc<IoDrops> {
        &self.drops
    }

    fn place(&self, port: PortId) -> Option<usize> {
        self.ports.iter().position(|one| one.port == port)
    }

    fn watch_sockets(&mut self) {
        self.poll.clear();
        for port in &self.ports {
            self.poll.add(port.socket.as_fd());
        }
    }

    /// Takes up to `limit` packets from one socket.
    fn receive_from(&mut self, index: usize, burst: &mut Vec<PacketFrame>, limit: usize) {
        // Each may turn out to be many.
        let limit = limit.min(self.free.len() / USUAL_SEGMENTS);
        let at = self.free.len().saturating_sub(limit);
        let PacketPort { port, socket, .. } = &mut self.ports[index];
        let port = *port;
        let Ok(got) = socket.receive(&mut self.free[at..], HEADROOM) else {
            self.receive_errors += 1;
            self.count_errors();
            return;
        };
        let count = got.len();
        // The first packet is in the last buffer.
        self.arrived.extend(
            self.free
                .drain(self.free.len() - count..)
                .zip(got.iter().rev().copied()),
        );
        for number in 0..count {
            // Each is there, as it was just filled.
            let Some((buffer, received)) = self.arrived.pop() else {
                break;
            };
            let room = buffer.len() - HEADROOM;
            let mut frame = PacketFrame {
                buffer,
                start: HEADROOM,
                end: HEADROOM + received.len.min(room),
                port,
            };
            if let (false, Some(size)) = (received.truncated, received.segment_size) {
                self.whole.clear();
                self.whole.extend_from_slice(frame.bytes());
                let excess = self.ports[index].socket.excess(number);
                self.whole
                    .extend_from_slice(&excess[..received.len.saturating_sub(room)]);
                self.free.push(frame.buffer);
                self.cut(&received, size, port, burst);
                continue;
            }
            let dropped = if received.truncated || received.len > room {
                IoDrop::PacketOversized
            } else if received.unfinished_checksum && !partial::finish(frame.bytes_mut()) {
                IoDrop::PacketUnfinishedChecksum
            } else {
                frame.restore_tag(&received);
                self.take_in(frame, burst);
                continue;
            };
            self.drops.of(dropped).add(1);
            self.free.push(frame.buffer);
        }
    }

    /// Makes frames of the packet in `whole`, each with `size` bytes of its payload.
    fn cut(&mut self, received: &Received, size: u16, port: PortId, burst: &mut Vec<PacketFrame>) {
        let whole = std::mem::take(&mut self.whole);
        let mut segments = Segments::of(&whole, size);
        let mut lost = segments.is_none();
        while let Some(segments) = segments.as_mut().filter(|segments| !segments.is_done()) {
            let Some(buffer) = self.free.pop() else {
                lost = true;
                break;
            };
            let mut frame = PacketFrame::empty(buffer, port);
            let room = frame.buffer.get_mut(HEADROOM..).unwrap_or_default();
            let Some(length) = segments.write_next(room) else {
                self.free.push(frame.buffer);
                lost = true;
                break;
            };
            frame.end = HEADROOM + length;
            frame.restore_tag(received);
            self.take_in(frame, burst);
        }
        self.drops.of(IoDrop::PacketOversized).add(lost.into());
        self.whole = whole;
    }

    /// Gives a received frame to the worker, now or as soon as it takes more.
    fn take_in(&mut self, frame: PacketFrame, burst: &mut Vec<PacketFrame>) {
        if burst.len() < BURST && self.waiting.is_empty() {
            self.in_hand += 1;
            burst.push(frame);
        } else {
            self.waiting.push_back(frame);
        }
    }

    /// Sends what is queued for one socket; what the kernel does not take is dropped.
    fn send_queued(&mut self, index: usize) {
        let PacketPort { socket, queued, .. } = &mut self.ports[index];
        let mut done = 0;
        while done < queued.len() {
            let (what, refused) = match socket.send(&queued[done..]) {
                Ok(sent) if sent > 0 => {
                    done += sent;
                    continue;
                }
                // Later ones would fare no better now.
                Err(e) if is_full(&e) => (IoDrop::PacketSendFull, queued.len() - done),
                Ok(_) | Err(_) => (IoDrop::PacketSendRefused, 1),
            };
            self.drops.of(what).add(refused as u64);
            self.refused += refused as u64;
            done += refused;
        }
        self.in_hand -= queued.len() as u64;
        self.free.extend(queued.drain(..).map(|frame| frame.buffer));
    }

    fn count_errors(&self) {
        let errors = self.receive_errors + self.poll.errors();
        self.drops.of(IoDrop::SocketErrors).set(errors);
    }
}

impl PacketFrame {
    /// Puts the VLAN tag back that the kernel took off.
    fn restore_tag(&mut self, received: &Received) {
        let Some((tpid, tci)) = received.vlan else {
            return;
        };
        // There is room: nothing has used the headroom yet.
        if self.end - self.start < ethernet::ADDRESSES_LEN || !self.grow_front(vlan::TAG_LEN) {
            return;
        }
        let bytes = self.bytes_mut();
        bytes.copy_within(vlan::TAG_LEN..vlan::TAG_LEN + ethernet::ADDRESSES_LEN, 0);
        bytes[ethernet::ADDRESSES_LEN..ethernet::ADDRESSES_LEN + 2]
            .copy_from_slice(&tpid.to_be_bytes());
        bytes[ethernet::ADDRESSES_LEN + 2..ethernet::ADDRESSES_LEN + 4]
            .copy_from_slice(&tci.to_be_bytes());
    }
}

impl AsRef<[u8]> for PacketFrame {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

impl FrameBuf for PacketFrame {
    fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[self.start..self.end]
    }

    fn grow_front(&mut self, by: usize) -> bool {
        let Some(start) = self.start.checked_sub(by) else {
            return false;
        };
        self.start = start;
        true
    }

    fn truncate(&mut self, len: usize) {
        self.end = self.end.min(self.start + len);
    }

    fn resize(&mut self, len: usize) -> bool {
        let end = self.start.saturating_add(len);
        let fits = end <= self.buffer.len();
        if fits {
            self.end = end;
        }
        fits
    }

    fn ingress(&self) -> PortId {
        self.port
    }
}

impl PacketIo for AfPacket {
    type Frame = PacketFrame;
    /// There is one worker only, as there is one socket an interface.
    type Parted = PacketFrame;
    type Part = PacketPort;

    fn open(&mut self, part: PacketPort) -> PortId {
        let port = part.port;
        self.ports.push(part);
        self.watch_sockets();
        port
    }

    fn close(&mut self, port: PortId) -> Option<PacketPort> {
        let index = self.place(port)?;
        self.send_queued(index);
        let part = self.ports.remove(index);
        self.next = 0;
        self.watch_sockets();
        Some(part)
    }

    /// The kernel has none.
    fn recover(&mut self, _: PortId) {}

    fn is_open(&self, port: PortId) -> bool {
        self.place(port).is_some()
    }

    /// Nothing to do: the kernel copies, and keeps no frame.
    fn reclaim(&mut self) {}

    fn receive(&mut self, burst: &mut Vec<PacketFrame>) {
        let room = BURST.saturating_sub(burst.len()).min(self.waiting.len());
        burst.extend(self.waiting.drain(..room));
        self.in_hand += room as u64;
        if !self.waiting.is_empty() {
            return;
        }
        let count = self.ports.len();
        let start = self.next;
        for step in 0..count {
            let room = BURST.saturating_sub(burst.len());
            if room == 0 {
                self.next = (start + step) % count;
                return;
            }
            self.receive_from((start + step) % count, burst, room);
        }
        self.next = (start + 1) % count.max(1);
    }

    fn transmit(&mut self, egress: PortId, frame: PacketFrame) -> Result<(), PacketFrame> {
        let Some(index) = self.place(egress) else {
            return Err(frame);
        };
        if self.ports[index].queued.len() == BURST {
            self.send_queued(index);
        }
        self.ports[index].queued.push(frame);
        Ok(())
    }

    fn flush(&mut self) -> u64 {
        for index in 0..self.ports.len() {
            self.send_queued(index);
        }
        mem::take(&mut self.refused)
    }

    fn release(&mut self, frame: PacketFrame) {
        self.in_hand -= 1;
        self.free.push(frame.buffer);
    }

    fn part(&mut self, frame: PacketFrame) -> PacketFrame {
        self.in_hand -= 1;
        frame
    }

    fn take_over(&mut self, parted: PacketFrame) -> PacketFrame {
        self.in_hand += 1;
        parted
    }

    fn carrier(&self, _egress: PortId) -> Option<u32> {
        None
    }

    fn blank(&mut self, ingress: PortId) -> Option<PacketFrame> {
        let buffer = self.free.pop()?;
        self.in_hand += 1;
        Some(PacketFrame::empty(buffer, ingress))
    }

    fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        if self.waiting.is_empty() {
            self.poll.wait(timeout)?;
        }
        self.count_errors();
        Ok(())
    }

    fn account(&mut self) -> FrameAccount {
        FrameAccount {
            whole: FRAMES as u64,
            spare: 0,
            total: FRAMES as u64,
            in_kernel: self.waiting.len() as u64,
            in_rings: self.waiting.len() as u64,
            free: self.free.len() as u64,
            in_hand: self.in_hand,
        }
    }
}

/// Whether a later try may succeed: the socket's or the device's queue is full.
fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    ) || error.raw_os_error() == Some(libc::ENOBUFS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame_of(bytes: &[u8]) -> PacketFrame {
        let mut buffer = vec![0xa5; HEADROOM + 256].into_boxed_slice();
        buffer[HEADROOM..HEADROOM + bytes.len()].copy_from_slice(bytes);
        PacketFrame {
            buffer,
            start: HEADROOM,
            end: HEADROOM + bytes.len(),
            port: PortId(0),
        }
    }

    #[test]
    fn a_whole_packet_in_its_tunnel_fits_into_another_frame() {
        for mtu in [SMALLEST_MTU, 1600, 9000] {
            let empty = || {
                let buffer = vec![0; buffer_size(mtu)].into_boxed_slice();
                PacketFrame::empty(buffer, PortId(0))
            };
            let mut whole = empty();
            assert!(whole.resize(mtu as usize + LINK_OVERHEAD));
            assert!(whole.grow_front(HEADROOM));
            assert!(empty().resize(whole.bytes().len()));
        }
    }

    #[test]
    fn a_stripped_tag_is_put_back_where_it_was() {
        let mut frame = frame_of(b"ddddddsssssstt-payload");
        frame.restore_tag(&Received {
            vlan: Some((0x88a8, 0x2064)),
            ..Received::default()
        });
        assert_eq!(frame.bytes(), b"ddddddssssss\x88\xa8\x20\x64tt-payload");
        let mut plain = frame_of(b"ddddddsssssstt");
        plain.restore_tag(&Received::default());
        assert_eq!(plain.bytes(), b"ddddddsssssstt");
    }

    #[test]
    fn a_frame_grows_into_its_headroom_and_no_further() {
        let mut frame = frame_of(b"payload");
        assert!(frame.grow_front(HEADROOM));
        assert!(frame.bytes().ends_with(b"payload"));
        assert_eq!(frame.bytes().len(), HEADROOM + 7);
        assert!(!frame.grow_front(1));
        assert_eq!(frame.bytes().len(), HEADROOM + 7);
    }
}
