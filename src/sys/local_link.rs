//! A way from the data plane into this host's own stack.
//!
//! A packet that the balancer gives to a real server on this very host has left the stack by then: it was
//! steered past it. So it comes back by a veth pair of our own. One end, the port, is sent from and nothing
//! else; what is sent there comes in at the other end, like a packet from the wire, and the stack delivers it
//! to whoever listens on its address, which is the virtual server's. The answer leaves by the host's own
//! routes.
//!
//! The pair has an alias that says whose it is, and [`InterfaceLock`] says whether its owner lives: one that
//! a crash left is removed by the next start or by [`cleanup`].

use std::{fmt, io, net::Ipv4Addr};

use super::{
    device::InterfaceSpec,
    instance_lock::InterfaceLock,
    interface_conf,
    netlink::{self, AddressOptions, Netlink, Scope},
};
use crate::addr::{IpPrefix, MacAddr};

/// What `ip link` shows of both ends.
const ALIAS: &str = "xvs: packets to real servers on this host";
/// The address of the end that the stack has: without any, the stack drops what comes from elsewhere where sources
/// are checked (`rp_filter`), however loosely. RFC 7600 §4.8 has it for dummies.
const DUMMY: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);
/// Pairs of one network namespace that are looked for a free name: that many data planes.
const NAMES: u32 = 64;

/// A pair into this host's stack. It stays when this is dropped, so that a crash and a failed start
/// leave the same; [`Self::remove`] removes it.
#[derive(Debug)]
pub struct LocalLink {
    port: InterfaceSpec,
    host: u32,
    mac: MacAddr,
    /// Says that the pair has an owner.
    _lock: InterfaceLock,
}

/// Why there is no pair.
#[derive(Debug)]
pub enum Error {
    /// The kernel refused.
    Netlink(netlink::Error),
    /// The stack would not take packets from it: a setting below `/proc/sys/net`.
    Setting(io::Error),
    /// All names are taken, or it was removed at once.
    Taken,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Netlink(error) => error.fmt(f),
            Self::Setting(error) => write!(f, "letting packets in to this host: {error}"),
            Self::Taken => f.write_str("making a pair of interfaces: somebody else has its name"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Netlink(error) => Some(error),
            Self::Setting(error) => Some(error),
            Self::Taken => None,
        }
    }
}

impl From<netlink::Error> for Error {
    fn from(error: netlink::Error) -> Self {
        Self::Netlink(error)
    }
}

impl LocalLink {
    /// Makes a pair that takes IP packets of up to `mtu` bytes, and switches it on.
    ///
    /// # Errors
    /// What the kernel refused, and then there is no pair.
    pub fn create(netlink: &mut Netlink, mtu: u32) -> Result<Self, Error> {
        for number in 0..NAMES {
            let names = [format!("xvs{number}"), format!("xvs{number}-host")];
            let [port, host] = &names;
            if !netlink.add_veth([port, host], mtu)? {
                continue;
            }
            let found = netlink.link_by_name(port)?;
            let found = found.zip(netlink.link_by_name(host)?);
            let Some((port, (host, mac))) =
                found.and_then(|(port, host)| Some((port, (host.index, host.mac?))))
            else {
                return Err(Error::Taken);
            };
            let made = Self::own(netlink, &port, host, mac).and_then(|link| {
                link.prepare(netlink, &names)?;
                Ok(link)
            });
            if made.is_err() {
                // The first failure is the one to tell.
                let _ = netlink.del_link(port.index);
            }
            return made;
        }
        Err(Error::Taken)
    }

    fn own(
        netlink: &mut Netlink,
        port: &netlink::Link,
        host: u32,
        mac: MacAddr,
    ) -> Result<Self, Error> {
        // Before the alias, which invites to remove it.
        let lock = InterfaceLock::acquire(port.index, &port.name).map_err(|_| Error::Taken)?;
        for ifindex in [port.index, host] {
            netlink.set_alias(ifindex, ALIAS)?;
        }
        Ok(Self {
            port: InterfaceSpec {
                name: port.name.clone(),
                ifindex: port.index,
            },
            host,
            mac,
            _lock: lock,
        })
    }

    fn prepare(&self, netlink: &mut Netlink, [_, host]: &[String; 2]) -> Result<(), Error> {
        let options = AddressOptions {
            // Never the source of anything.
            scope: Scope::Host,
            no_prefix_route: true,
            ..AddressOptions::default()
        };
        netlink.add_address(self.host, IpPrefix::host(DUMMY.into()), &options)?;
        interface_conf::receive_from_anywhere(host).map_err(Error::Setting)?;
        // Nobody is asked for addresses here, and the host has none here to be asked for.
        for ifindex in [self.port.ifindex, self.host] {
            netlink.make_no_addresses(ifindex)?;
            netlink.set_up_without_arp(ifindex)?;
        }
        Ok(())
    }

    /// The end to send from.
    pub const fn port(&self) -> &InterfaceSpec {
        &self.port
    }

    /// Whom to send to: the Ethernet address of the end that the stack has.
    pub const fn mac(&self) -> MacAddr {
        self.mac
    }

    /// Takes IP packets of up to `mtu` bytes from now on.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn set_mtu(&self, netlink: &mut Netlink, mtu: u32) -> Result<(), Error> {
        for ifindex in [self.port.ifindex, self.host] {
            netlink.set_mtu(ifindex, mtu)?;
        }
        Ok(())
    }

    /// Removes the pair. That it is gone is no error.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn remove(self, netlink: &mut Netlink) -> Result<(), Error> {
        Ok(netlink.del_link(self.port.ifindex)?)
    }
}

/// Removes the pairs whose owners are gone. Says what it removed, a line each.
///
/// # Errors
/// What the kernel refused.
pub fn cleanup(netlink: &mut Netlink) -> Result<Vec<String>, Error> {
    let mut removed = Vec::new();
    for (ifindex, name) in netlink.links_with_alias(ALIAS)? {
        // The other end has a name that ends otherwise, and goes along; it has no lock.
        if name.ends_with("-host") {
            continue;
        }
        let Ok(_lock) = InterfaceLock::acquire(ifindex, &name) else {
            continue;
        };
        netlink.del_link(ifindex)?;
        removed.push(format!(
            "{name}: removed the pair of interfaces of a previous run"
        ));
    }
    Ok(removed)
}
