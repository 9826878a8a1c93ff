//! One AF_PACKET socket: the fallback where XDP is refused.
//!
//! We make the socket and set it up, pnet_datalink binds it. Its receiver and sender are of no use
//! here. The receiver hides what recvmsg(2) says beside the bytes, and we need all of it: the VLAN tag
//! that the kernel took off the packet (PACKET_AUXDATA), whether the checksum is finished, whether the
//! packet was cut (MSG_TRUNC) and into which segments it is to be cut (PACKET_VNET_HDR). And both take one packet a call, the sender with a pselect(2) before
//! it, where recvmmsg(2) and sendmmsg(2) take a burst.

use std::{
    io, mem,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd},
    ptr,
};

use pnet_datalink::{Config, NetworkInterface};

use super::{device::InterfaceSpec, open_error::OpenError, steer::PortProgram};
use crate::addr::MacAddr;

/// Packets taken or sent in one call.
pub const BATCH: usize = 64;
/// Bytes that the kernel may queue for us: 10 ms of full-sized packets at 6 Gbit/s.
const RECEIVE_BUFFER: libc::c_int = 8 << 20;
/// Words for the control message of one packet: a header, an auxdata (20 bytes), padding.
const CONTROL_WORDS: usize = 8;

/// Bytes beyond a buffer that a packet may have: what a sender leaves to a card to cut, or what was merged, has up to
/// 64 KiB.
pub const EXCESS: usize = 1 << 16;
/// `struct virtio_net_hdr`, which the kernel puts before each packet and wants before each: flags, kind of segments,
/// then in the machine's order the length of the headers, the size of segments, and where the checksum is.
const VNET_HEADER_LEN: usize = 10;
const VNET_KIND: usize = 1;
const VNET_HEADERS: usize = 2;
const VNET_SIZE: usize = 4;
/// VIRTIO_NET_HDR_GSO_NONE, and VIRTIO_NET_HDR_GSO_ECN, which may be set beside a kind.
const KIND_NONE: u8 = 0;
const KIND_ECN: u8 = 0x80;

/// What the kernel said about one received packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Bytes of the packet that are there: in the buffer, and from its end on in [`PacketSocket::excess`].
    pub len: usize,
    /// The packet was larger than both.
    pub truncated: bool,
    /// Bytes of the payload in each of the segments that the packet is to be cut into, if it is.
    pub segment_size: Option<u16>,
    /// The VLAN tag that was taken off: TPID and TCI, host byte order.
    pub vlan: Option<(u16, u16)>,
    /// The L4 checksum holds only the pseudo-header's sum: the sender left the rest to a network
    /// card that there never was.
    pub unfinished_checksum: bool,
}

/// The socket of one interface.
pub struct PacketSocket {
    fd: OwnedFd,
    received: Vec<Received>,
    headers: Vec<libc::mmsghdr>,
    /// Of each packet: its virtio header, what is in the caller's buffer, what is in `excess`.
    segments: Vec<[libc::iovec; 3]>,
    controls: Vec<[u64; CONTROL_WORDS]>,
    vnet: Vec<[u8; VNET_HEADER_LEN]>,
    /// [`EXCESS`] bytes for each packet of a batch. Memory that no large packet came for is not touched.
    excess: Vec<u8>,
}

// SAFETY: the raw pointers are in `headers` and `segments`, and are written before each use in
// `receive` and `send`; between calls nobody follows them.
unsafe impl Send for PacketSocket {}

impl PacketSocket {
    /// Opens a socket on `spec`'s interface that gets just what `program`'s filter lets through, and
    /// nothing that this host sends.
    ///
    /// # Errors
    /// Missing CAP_NET_RAW, or what the kernel refused.
    pub fn open(
        spec: &InterfaceSpec,
        mac: MacAddr,
        program: &PortProgram,
    ) -> Result<Self, OpenError> {
        let refused = |e: io::Error| match e.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => OpenError::Privilege {
                action: "open an AF_PACKET socket",
                needs: "CAP_NET_RAW",
            },
            _ => OpenError::from_errno(&spec.name, "open an AF_PACKET socket", e),
        };
        let fd = new_socket().map_err(refused)?;
        if let Some(tap) = program.tap() {
            set_option(&fd, libc::SOL_SOCKET, libc::SO_ATTACH_BPF, tap).map_err(refused)?;
        }
        set_option(&fd, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1).map_err(refused)?;
        set_option(&fd, libc::SOL_PACKET, libc::PACKET_AUXDATA, 1).map_err(refused)?;
        set_option(&fd, libc::SOL_PACKET, libc::PACKET_VNET_HDR, 1).map_err(refused)?;
        // Beyond the limit with CAP_NET_ADMIN, up to it without.
        if set_option(&fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, RECEIVE_BUFFER).is_err() {
            set_option(&fd, libc::SOL_SOCKET, libc::SO_RCVBUF, RECEIVE_BUFFER).map_err(refused)?;
        }
        let ours = fd.try_clone().map_err(refused)?;
        let config = Config {
            promiscuous: false,
            socket_fd: Some(fd.into_raw_fd()),
            ..Config::default()
        };
        // Binds the socket, and closes its own descriptor of it as the channel is dropped.
        pnet_datalink::channel(&for_pnet(spec, mac), config).map_err(refused)?;
        // SAFETY: both are plain integers and pointers, for which zero is a value.
        let (header, segment): (libc::mmsghdr, libc::iovec) = unsafe { mem::zeroed() };
        Ok(Self {
            fd: ours,
            received: vec![Received::default(); BATCH],
            headers: vec![header; BATCH],
            segments: vec![[segment; 3]; BATCH],
            controls: vec![[0; CONTROL_WORDS]; BATCH],
            vnet: vec![[0; VNET_HEADER_LEN]; BATCH],
            excess: vec![0; BATCH * EXCESS],
        })
    }

    /// Receives up to [`BATCH`] packets, one into each of `buffers` from its byte `headroom` on, the
    /// first into the last buffer, so that they can be popped in order. Says what came; never waits.
    ///
    /// # Errors
    /// What recvmmsg(2) reported (the interface went down); nothing waiting is not an error.
    pub fn receive(
        &mut self,
        buffers: &mut [Box<[u8]>],
        headroom: usize,
    ) -> io::Result<&[Received]> {
        let wanted = buffers.len().min(BATCH);
        for (i, buffer) in buffers.iter_mut().rev().take(wanted).enumerate() {
            let room = buffer.get_mut(headroom..).unwrap_or_default();
            let excess = &mut self.excess[i * EXCESS..][..EXCESS];
            self.segments[i] = [filled(&mut self.vnet[i]), filled(room), filled(excess)];
            let header = &mut self.headers[i].msg_hdr;
            header.msg_iov = self.segments[i].as_mut_ptr();
            header.msg_iovlen = 3;
            header.msg_control = self.controls[i].as_mut_ptr().cast();
            header.msg_controllen = size_of::<[u64; CONTROL_WORDS]>();
            header.msg_flags = 0;
        }
        // SAFETY: the first `wanted` headers point at three segments each, which are the rest of a buffer
        // that is borrowed exclusively, and parts of ours that no other header points at, and at a control
        // area of the length said; all are alive for the call. A null timeout is none.
        let count = unsafe {
            libc::recvmmsg(
                self.fd.as_raw_fd(),
                self.headers.as_mut_ptr(),
                u32::try_from(wanted).unwrap_or(0),
                libc::MSG_DONTWAIT as _,
                ptr::null_mut(),
            )
        };
        let Ok(count) = usize::try_from(count) else {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(&[]),
                _ => Err(error),
            };
        };
        let all = self.received.iter_mut().zip(&self.headers);
        for ((received, header), vnet) in all.zip(&self.vnet).take(count) {
            // SAFETY: the kernel filled this header, whose control area is alive.
            *received = unsafe { describe(header) };
            received.len = received.len.saturating_sub(VNET_HEADER_LEN);
            received.segment_size = (vnet[VNET_KIND] & !KIND_ECN != KIND_NONE)
                .then(|| u16::from_ne_bytes([vnet[VNET_SIZE], vnet[VNET_SIZE + 1]]));
        }
        Ok(&self.received[..count])
    }

    /// What had no room in the buffer of the packet with this number of the last [`Self::receive`].
    pub fn excess(&self, number: usize) -> &[u8] {
        self.excess
            .get(number * EXCESS..)
            .and_then(|rest| rest.get(..EXCESS))
            .unwrap_or_default()
    }

    /// Sends the first of `packets`, at most [`BATCH`], and says how many; never waits. It may be fewer
    /// than there are: what is the matter with the next one is what the next call reports.
    ///
    /// # Errors
    /// What sendmmsg(2) reported of the first packet: EAGAIN or ENOBUFS when the socket or the device
    /// is full, EMSGSIZE, ENETDOWN.
    pub fn send<T: AsRef<[u8]>>(&mut self, packets: &[T]) -> io::Result<usize> {
        let wanted = packets.len().min(BATCH);
        for (i, packet) in packets.iter().take(wanted).enumerate() {
            let packet = packet.as_ref();
            // Nothing is left to do. All of it counts as headers: what does not, the kernel puts into pages of its own.
            let headers = u16::try_from(packet.len()).unwrap_or(0).to_ne_bytes();
            self.vnet[i] = [0; VNET_HEADER_LEN];
            self.vnet[i][VNET_HEADERS..VNET_HEADERS + 2].copy_from_slice(&headers);
            self.segments[i][0] = filled(&mut self.vnet[i]);
            self.segments[i][1] = libc::iovec {
                iov_base: packet.as_ptr().cast_mut().cast(),
                iov_len: packet.len(),
            };
            let header = &mut self.headers[i].msg_hdr;
            header.msg_iov = self.segments[i].as_mut_ptr();
            header.msg_iovlen = 2;
            header.msg_control = ptr::null_mut();
            header.msg_controllen = 0;
            header.msg_flags = 0;
        }
        // SAFETY: the first `wanted` headers point at two segments each, which are a header of ours and one of
        // `packets`; all are alive for the call, which only reads them.
        let count = unsafe {
            libc::sendmmsg(
                self.fd.as_raw_fd(),
                self.headers.as_mut_ptr(),
                u32::try_from(wanted).unwrap_or(0),
                libc::MSG_DONTWAIT as _,
            )
        };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Whether a socket of [`PacketSocket::open`] has lost its interface, which was deleted or went to another network
/// namespace. It does not come back to life with it.
pub fn is_unbound(socket: &OwnedFd) -> bool {
    // SAFETY: the structure is integers, for which zero is a value.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    let mut len = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).unwrap_or(0);
    // SAFETY: `address` is writable for `len` bytes, and both are alive for the call.
    let code =
        unsafe { libc::getsockname(socket.as_raw_fd(), (&raw mut address).cast(), &mut len) };
    // The kernel notes the loss as index -1.
    code == 0 && address.sll_ifindex <= 0
}

/// Packets that the kernel dropped as the socket's queue was full, since the last call.
///
/// # Errors
/// What getsockopt(2) reported.
pub fn dropped(socket: &OwnedFd) -> io::Result<u64> {
    let mut statistics = libc::tpacket_stats {
        tp_packets: 0,
        tp_drops: 0,
    };
    let mut len = option_len::<libc::tpacket_stats>();
    // SAFETY: `statistics` is writable for `len` bytes, and both are alive for the call.
    let code = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut statistics).cast(),
            &mut len,
        )
    };
    if code < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(statistics.tp_drops.into())
}

/// What `header` says of the packet that it received.
///
/// # Safety
/// recvmmsg(2) filled `header`, and its control area is still alive.
unsafe fn describe(header: &libc::mmsghdr) -> Received {
    let message = &header.msg_hdr;
    let mut received = Received {
        len: header.msg_len as usize,
        truncated: message.msg_flags & libc::MSG_TRUNC != 0,
        ..Received::default()
    };
    // SAFETY: the caller's promise; the macro checks the length.
    let first = unsafe { libc::CMSG_FIRSTHDR(message) };
    if first.is_null() {
        return received;
    }
    // SAFETY: not null, so it is a whole header within the control area.
    let (level, kind, len) =
        unsafe { ((*first).cmsg_level, (*first).cmsg_type, (*first).cmsg_len) };
    let auxdata_len = u32::try_from(size_of::<libc::tpacket_auxdata>()).unwrap_or(u32::MAX);
    // SAFETY: computes a length, and follows no pointer.
    let needed = unsafe { libc::CMSG_LEN(auxdata_len) } as usize;
    if level != libc::SOL_PACKET || kind != libc::PACKET_AUXDATA || len < needed {
        return received;
    }
    // SAFETY: the message is long enough to hold an auxdata, which any bytes are.
    let aux = unsafe {
        libc::CMSG_DATA(first)
            .cast::<libc::tpacket_auxdata>()
            .read_unaligned()
    };
    if aux.tp_status & libc::TP_STATUS_VLAN_VALID != 0 {
        // Kernels that do not say which tag it was knew only this one.
        let tpid = if aux.tp_status & libc::TP_STATUS_VLAN_TPID_VALID != 0 {
            aux.tp_vlan_tpid
        } else {
            TPID_8021Q
        };
        received.vlan = Some((tpid, aux.tp_vlan_tci));
    }
    received.unfinished_checksum = aux.tp_status & libc::TP_STATUS_CSUMNOTREADY != 0;
    received
}

/// A segment that is all of `bytes`.
const fn filled(bytes: &mut [u8]) -> libc::iovec {
    libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    }
}

/// IEEE 802.1Q's tag.
const TPID_8021Q: u16 = 0x8100;

/// A packet socket that gets nothing yet: no protocol, not bound.
fn new_socket() -> io::Result<OwnedFd> {
    // SAFETY: no pointers are passed.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was just created, so it is open and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn set_option(fd: &OwnedFd, level: i32, name: i32, value: libc::c_int) -> io::Result<()> {
    // SAFETY: `value` is an int, as these options take, and alive for the call.
    let code = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            option_len::<libc::c_int>(),
        )
    };
    if code < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn option_len<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<T>()).unwrap_or(libc::socklen_t::MAX)
}

/// The interface in pnet_datalink's words; it looks at the index and the address only.
fn for_pnet(spec: &InterfaceSpec, mac: MacAddr) -> NetworkInterface {
    let [a, b, c, d, e, f] = mac.0;
    NetworkInterface {
        name: spec.name.clone(),
        description: String::new(),
        index: spec.ifindex,
        mac: Some(pnet_datalink::MacAddr(a, b, c, d, e, f)),
        ips: Vec::new(),
        flags: 0,
    }
}
