//! Packet I/O over AF_PACKET, where XDP is refused or not wished for.
//!
//! The kernel copies each of the balancer's packets to us and then, by the ingress filter, drops its
//! own. Frames are buffers of ours, made once; a frame's token owns its buffer.

use std::{
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
        packet_socket::{self, PacketSocket, Received},
        poll::PollSet,
        steer::Hook,
        waker::Waker,
        xsk::XskStatistics,
    },
    wire::{
        checksum, ethernet,
        ipv4::{self, Ipv4},
        ipv6::{self, Ipv6},
        tcp, udp, vlan,
    },
};

/// Frames in all. The kernel queues in memory of its own, so these are only those in hand: a burst,
/// and what waits for a neighbour.
const FRAMES: usize = 2048;
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
    /// Buffers of received packets that were dropped, on their way back to `free`.
    dropped: Vec<Box<[u8]>>,
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
        let buffer = || vec![0; buffer_size(largest)].into_boxed_slice();
        let io = AfPacket {
            ports: Vec::with_capacity(PortId::COUNT),
            refused: 0,
            poll: PollSet::new(waker, PortId::COUNT),
            free: (0..FRAMES).map(|_| buffer()).collect(),
            dropped: Vec::with_capacity(BURST),
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
        let at = self.free.len().saturating_sub(limit);
        let PacketPort { port, socket, .. } = &mut self.ports[index];
        let Ok(got) = socket.receive(&mut self.free[at..], HEADROOM) else {
            self.receive_errors += 1;
            self.count_errors();
            return;
        };
        for received in got {
            // The first packet is in the last buffer; each is there, as it was just filled.
            let Some(buffer) = self.free.pop() else {
                break;
            };
            let mut frame = PacketFrame {
                buffer,
                start: HEADROOM,
                end: HEADROOM + received.len,
                port: *port,
            };
            let dropped = if received.truncated {
                IoDrop::PacketOversized
            } else if received.unfinished_checksum && !finish_checksum(frame.bytes_mut()) {
                IoDrop::PacketUnfinishedChecksum
            } else {
                frame.restore_tag(received);
                self.in_hand += 1;
                burst.push(frame);
                continue;
            };
            self.drops.of(dropped).add(1);
            self.dropped.push(frame.buffer);
        }
        self.free.append(&mut self.dropped);
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
        self.poll.wait(timeout)?;
        self.count_errors();
        Ok(())
    }

    fn account(&mut self) -> FrameAccount {
        FrameAccount {
            whole: FRAMES as u64,
            spare: 0,
            total: FRAMES as u64,
            in_kernel: 0,
            in_rings: 0,
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

/// Finishes the checksum of a TCP or UDP packet whose checksum field holds the sum of the
/// pseudo-header only; `false` when the frame holds no such packet. This is what the sender left to
/// its network card (NETIF_F_HW_CSUM), and no card was passed on the way here.
fn finish_checksum(frame: &mut [u8]) -> bool {
    let Some((ether_type, network)) = vlan::network_layer(frame) else {
        return false;
    };
    let Some(packet) = frame.get_mut(network..) else {
        return false;
    };
    let place = match ether_type {
        ethernet::TYPE_IPV4 => {
            Ipv4::quoted(packet).map(|ip| (ip.protocol(), ip.header_len(), ip.total_len()))
        }
        // A sender leaves no packet with extension headers to its card.
        ethernet::TYPE_IPV6 => {
            Ipv6::quoted(packet).map(|ip| (ip.next_header(), ipv6::HEADER_LEN, ip.total_len()))
        }
        _ => None,
    };
    let Some((protocol, header, total)) = place else {
        return false;
    };
    let field = match protocol {
        ipv4::PROTOCOL_TCP => tcp::CHECKSUM_OFFSET,
        udp::PROTOCOL => udp::CHECKSUM_OFFSET,
        _ => return false,
    };
    let Some(segment) = packet.get_mut(header..total) else {
        return false;
    };
    // The sum includes what is in the field already. RFC 1071 §1.
    let sum = match checksum::compute(segment) {
        sum if protocol == udp::PROTOCOL => checksum::udp(sum),
        sum => sum,
    };
    let Some(place) = segment.get_mut(field..field + 2) else {
        return false;
    };
    place.copy_from_slice(&sum);
    true
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

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

    /// What the kernel hands over for a packet whose checksum is not finished, and the finished one.
    fn unfinished(six: bool, tcp: bool, payload: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let (source, target) = ([192, 0, 2, 7], [198, 51, 100, 1]);
        let (source6, target6) = ([0x21; 16], [0xfd; 16]);
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6]);
        let (builder, header, addresses) = if six {
            let addresses = [source6, target6].concat();
            (builder.ipv6(source6, target6, 64), 40, addresses)
        } else {
            let addresses = [source, target].concat();
            (builder.ipv4(source, target, 64), 20, addresses)
        };
        let mut whole = Vec::new();
        let (proto, field, segment_len) = if tcp {
            builder
                .tcp(4000, 80, 1, 1000)
                .write(&mut whole, payload)
                .unwrap();
            (6_u16, 16, 20 + payload.len())
        } else {
            builder.udp(4000, 80).write(&mut whole, payload).unwrap();
            (17, 6, 8 + payload.len())
        };
        let mut pseudo: u32 = u32::from(proto) + u32::try_from(segment_len).unwrap();
        for pair in addresses.chunks(2) {
            pseudo += u32::from(u16::from_be_bytes([pair[0], pair[1]]));
        }
        while pseudo > 0xffff {
            pseudo = (pseudo & 0xffff) + (pseudo >> 16);
        }
        let mut partial = whole.clone();
        let at = 14 + header + field;
        partial[at..at + 2].copy_from_slice(&u16::try_from(pseudo).unwrap().to_be_bytes());
        (partial, whole)
    }

    #[test]
    fn an_unfinished_checksum_is_finished_as_etherparse_computes_it() {
        for (six, tcp) in [(false, false), (false, true), (true, false), (true, true)] {
            for payload in [&b""[..], b"odd", b"even", &[0xff; 101]] {
                let (mut partial, whole) = unfinished(six, tcp, payload);
                assert_ne!(partial, whole);
                // Ethernet padding is not part of the sum.
                partial.extend([9; 3]);
                assert!(finish_checksum(&mut partial));
                assert_eq!(&partial[..whole.len()], whole, "{six} {tcp}, {payload:?}");
            }
        }
    }

    #[test]
    fn what_is_no_packet_is_not_finished() {
        let (whole, _) = unfinished(false, true, b"x");
        for len in 0..54 {
            assert!(!finish_checksum(&mut whole[..len].to_vec()), "{len} bytes");
        }
        let mut icmp = whole;
        icmp[23] = 1;
        assert!(!finish_checksum(&mut icmp));
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
