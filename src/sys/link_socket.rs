//! Sends whole Ethernet frames on one interface: gratuitous ARP, later unsolicited NA.

use std::{
    io,
    os::fd::{AsRawFd, IntoRawFd},
    time::Duration,
};

use pnet_datalink::{Channel, ChannelType, Config, DataLinkSender, NetworkInterface};
use socket2::{Domain, Socket, Type};

use crate::sys::netlink::Link;

/// An `AF_PACKET` socket that only sends.
///
/// pnet's channel would bind to every protocol and so be handed a copy of every frame of the
/// interface. It is given a socket, and a protocol number, of 0 instead: the kernel then never
/// hooks it into the receive path, and sending costs nothing but sending.
pub struct LinkSocket {
    sender: Box<dyn DataLinkSender>,
}

impl LinkSocket {
    /// Opens a sender on `link`. Needs `CAP_NET_RAW`. It belongs to this very interface: one that
    /// is deleted and created again under the same name needs a new socket.
    pub fn open(link: &Link) -> io::Result<Self> {
        let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
        let interface = NetworkInterface {
            name: link.name.clone(),
            description: String::new(),
            index: link.index,
            mac: link.mac.map(|mac| mac.0.into()),
            ips: Vec::new(),
            flags: 0,
        };
        let config = Config {
            channel_type: ChannelType::Layer3(0),
            // The control thread never waits for a transmit queue.
            write_timeout: Some(Duration::ZERO),
            // Nothing is received, so nothing is allocated for it.
            read_buffer_size: 0,
            write_buffer_size: 0,
            promiscuous: false,
            socket_fd: Some(socket.as_raw_fd()),
            ..Config::default()
        };
        // pnet closes the descriptor that it is given, on success and on failure.
        let _owned_by_pnet = socket.into_raw_fd();
        match pnet_datalink::channel(&interface, config)? {
            Channel::Ethernet(sender, _receiver) => Ok(Self { sender }),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Sends one frame, headers included. Never waits: `TimedOut` when the queue of the interface
    /// is full, `ENETDOWN` when the interface is down.
    pub fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        self.sender
            .send_to(frame, None)
            .unwrap_or_else(|| Err(io::ErrorKind::Unsupported.into()))
    }
}
