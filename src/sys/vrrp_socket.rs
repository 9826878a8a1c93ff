//! VRRP on the wire: raw IPv4 packets of protocol 112 on one interface.

use std::{
    io::{self, Read},
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::{AsFd, AsRawFd, RawFd},
};

use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};

use crate::sys::{netlink::Link, sockopt};

/// IP protocol number of VRRP (RFC 9568 §5.1.1.4).
const VRRP: i32 = 112;

/// `TC_PRIO_CONTROL`: adverts go before everything else that the host queues.
const PRIORITY: u32 = 7;

/// The TTL of multicast adverts (RFC 9568 §5.1.1.3). A packet that is handed in has its own; this
/// one is for completeness of the socket's state.
const TTL: u32 = 255;

/// Holds a burst of adverts of 1,000 instances while the control thread is busy.
const RECEIVE_BUFFER: i32 = 1 << 20;

/// A raw socket that sends and receives whole IPv4 VRRP packets on one interface, to a multicast
/// group and to unicast peers alike. Never blocks; register its descriptor for readability.
#[derive(Debug)]
pub struct VrrpSocket {
    socket: Socket,
}

impl VrrpSocket {
    /// The IPv4 multicast group of VRRP (RFC 9568 §5.1.1.2).
    pub const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);

    /// Opens the socket on `link`, a member of `group` there ([`Self::GROUP`], or keepalived
    /// `vrrp_mcast_group4`); `None` for an interface that has unicast peers only.
    ///
    /// Needs `CAP_NET_RAW`. The interface need not be up. It belongs to this very interface: one
    /// that is deleted and created again under the same name needs a new socket.
    pub fn open(link: &Link, group: Option<Ipv4Addr>) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(VRRP)))?;
        socket.set_nonblocking(true)?;
        socket.bind_device(Some(link.name.as_bytes()))?;
        socket.set_header_included_v4(true)?;
        socket.set_priority(PRIORITY)?;
        // Only groups that this socket has joined itself, not those of others on the host.
        socket.set_multicast_all_v4(false)?;
        socket.set_multicast_loop_v4(false)?;
        socket.set_multicast_ttl_v4(TTL)?;
        sockopt::grow_receive_buffer(socket.as_fd(), RECEIVE_BUFFER)?;
        let this = Self { socket };
        if let Some(group) = group {
            this.join(link, group)?;
        }
        Ok(this)
    }

    /// Joins another group on the same interface. One that was joined before is no error.
    pub fn join(&self, link: &Link, group: Ipv4Addr) -> io::Result<()> {
        let interface = InterfaceIndexOrAddress::Index(link.index);
        match self.socket.join_multicast_v4_n(&group, &interface) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(()),
            joined => joined,
        }
    }

    /// Leaves a group that was joined on this interface.
    pub fn leave(&self, link: &Link, group: Ipv4Addr) -> io::Result<()> {
        let interface = InterfaceIndexOrAddress::Index(link.index);
        self.socket.leave_multicast_v4_n(&group, &interface)
    }

    /// Sends a whole packet, IPv4 header included, to `destination`: the group or a peer.
    ///
    /// The kernel fills in the total length and the header checksum, and the identification where
    /// it is 0; all else goes out as it is. `WouldBlock` when the queue is full.
    pub fn send_to(&self, destination: Ipv4Addr, packet: &[u8]) -> io::Result<()> {
        let destination = SocketAddrV4::new(destination, 0);
        let sent = self.socket.send_to(packet, &destination.into())?;
        debug_assert_eq!(sent, packet.len(), "a raw socket sends all or nothing");
        Ok(())
    }

    /// The next packet that arrived, IPv4 header included, or `None` when there is none.
    /// A packet that is longer than `buffer` is cut to its length.
    pub fn recv<'b>(&self, buffer: &'b mut [u8]) -> io::Result<Option<&'b [u8]>> {
        loop {
            match (&self.socket).read(buffer) {
                Ok(length) => return Ok(Some(&buffer[..length])),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl AsRawFd for VrrpSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}
