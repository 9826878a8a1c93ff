//! The host as VRRP uses it: links, addresses and sockets. A trait, so that what VRRP does with them
//! is tested without a kernel.

use std::{collections::BTreeSet, io, net::Ipv4Addr, os::fd::AsRawFd as _};

use mio::{Interest, Registry, Token, unix::SourceFd};

use crate::{
    addr::IpPrefix,
    sys::{
        link_socket::LinkSocket,
        netlink::{Added, Address, AddressOptions, Link, Netlink, Removed},
        vrrp_socket::VrrpSocket,
    },
};

/// What the kernel is asked and told. Errors are sentences for the log.
pub(in crate::control) trait Host {
    /// The interface of this name.
    fn link(&mut self, name: &str) -> Result<Option<Link>, String>;
    /// The addresses of an interface; none when it is gone.
    fn addresses(&mut self, ifindex: u32) -> Result<Vec<Address>, String>;
    /// The host's own IPv4 address on an interface, not one of `vips`.
    fn primary_v4(&mut self, ifindex: u32, vips: &[Ipv4Addr]) -> Result<Option<Ipv4Addr>, String>;
    /// Adds an address. One that is there already is no error.
    fn add_address(
        &mut self,
        ifindex: u32,
        prefix: IpPrefix,
        options: &AddressOptions,
    ) -> Result<Added, String>;
    /// Removes an address. One that is not there, or whose interface is gone, is no error.
    fn remove_address(&mut self, ifindex: u32, prefix: IpPrefix) -> Result<Removed, String>;
    /// Opens what is needed to announce addresses on an interface.
    fn open(&mut self, link: &Link) -> io::Result<Box<dyn Sockets>>;
}

/// What is open on one interface. It belongs to that very interface: for one that is made anew under the
/// same name it must be opened anew.
pub(in crate::control) trait Sockets {
    /// Begins to send and hear adverts, as a member of exactly these groups. The poll tells of what
    /// arrives.
    fn listen(
        &mut self,
        link: &Link,
        groups: &BTreeSet<Ipv4Addr>,
        poll: (&Registry, Token),
    ) -> io::Result<()>;
    /// The next advert that arrived, IPv4 header included.
    fn receive<'b>(&self, buffer: &'b mut [u8]) -> io::Result<Option<&'b [u8]>>;
    /// Sends an advert, IPv4 header included.
    fn send_advert(&self, destination: Ipv4Addr, packet: &[u8]) -> io::Result<()>;
    /// Sends an Ethernet frame.
    fn send_frame(&mut self, frame: &[u8]) -> io::Result<()>;
}

impl Host for Netlink {
    fn link(&mut self, name: &str) -> Result<Option<Link>, String> {
        self.link_by_name(name).map_err(|error| error.to_string())
    }

    fn addresses(&mut self, ifindex: u32) -> Result<Vec<Address>, String> {
        Self::addresses(self, ifindex).map_err(|error| error.to_string())
    }

    fn primary_v4(&mut self, ifindex: u32, vips: &[Ipv4Addr]) -> Result<Option<Ipv4Addr>, String> {
        Self::primary_v4(self, ifindex, vips).map_err(|error| error.to_string())
    }

    fn add_address(
        &mut self,
        ifindex: u32,
        prefix: IpPrefix,
        options: &AddressOptions,
    ) -> Result<Added, String> {
        Self::add_address(self, ifindex, prefix, options).map_err(|error| error.to_string())
    }

    fn remove_address(&mut self, ifindex: u32, prefix: IpPrefix) -> Result<Removed, String> {
        self.del_address(ifindex, prefix)
            .map_err(|error| error.to_string())
    }

    fn open(&mut self, link: &Link) -> io::Result<Box<dyn Sockets>> {
        Ok(Box::new(RawSockets {
            frames: LinkSocket::open(link)?,
            adverts: None,
        }))
    }
}

/// The kernel's sockets.
struct RawSockets {
    frames: LinkSocket,
    /// Only where an instance has this interface.
    adverts: Option<(VrrpSocket, BTreeSet<Ipv4Addr>)>,
}

impl Sockets for RawSockets {
    fn listen(
        &mut self,
        link: &Link,
        groups: &BTreeSet<Ipv4Addr>,
        (registry, token): (&Registry, Token),
    ) -> io::Result<()> {
        if self.adverts.is_none() {
            let socket = VrrpSocket::open(link, None)?;
            registry.register(
                &mut SourceFd(&socket.as_raw_fd()),
                token,
                Interest::READABLE,
            )?;
            self.adverts = Some((socket, BTreeSet::new()));
        }
        let Some((socket, joined)) = &mut self.adverts else {
            return Ok(());
        };
        for group in groups {
            if !joined.contains(group) {
                socket.join(link, *group)?;
                joined.insert(*group);
            }
        }
        for group in &*joined - groups {
            socket.leave(link, group)?;
            joined.remove(&group);
        }
        Ok(())
    }

    fn receive<'b>(&self, buffer: &'b mut [u8]) -> io::Result<Option<&'b [u8]>> {
        match &self.adverts {
            Some((socket, _)) => socket.recv(buffer),
            None => Ok(None),
        }
    }

    fn send_advert(&self, destination: Ipv4Addr, packet: &[u8]) -> io::Result<()> {
        match &self.adverts {
            Some((socket, _)) => socket.send_to(destination, packet),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    fn send_frame(&mut self, frame: &[u8]) -> io::Result<()> {
        self.frames.send(frame)
    }
}
