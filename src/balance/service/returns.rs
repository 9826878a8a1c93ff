//! Whose packets are answers that get a virtual server's address: those of real servers behind NAT.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv4Addr},
};

use rapidhash::fast::SeedableState;

use crate::lvs::{RealId, ServiceId};

/// What answers come from: address, IP protocol number, and port; 0: any.
pub(super) type Source = (IpAddr, u8, u16);

/// Who answers from somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Answerer {
    pub(super) service: ServiceId,
    pub(super) real: RealId,
}

/// Real servers by what they answer from. Looked at for every packet from a client, so a
/// key is one word, or three, as in `Lookup`.
#[derive(Clone, Debug, Default)]
pub(super) struct Returns {
    /// The addresses of them all, with the protocols.
    hosts: HashSet<(IpAddr, u8), SeedableState<'static>>,
    v4: HashMap<u64, Answerer, SeedableState<'static>>,
    v6: HashMap<(u128, u32), Answerer, SeedableState<'static>>,
    /// How many answer from every port.
    any_port: usize,
}

impl Returns {
    /// The real server that answers from this address and port.
    // Always: the caller knows the family.
    #[inline(always)]
    pub(super) fn find(&self, addr: IpAddr, protocol: u8, port: u16) -> Option<Answerer> {
        // No closures, which would be calls: most packets are no answers.
        match self.get(addr, tail(protocol, port)) {
            None if self.any_port > 0 => self.get(addr, tail(protocol, 0)),
            found => found,
        }
    }

    // Always: the caller knows the family.
    #[inline(always)]
    fn get(&self, addr: IpAddr, tail: u32) -> Option<Answerer> {
        match addr {
            IpAddr::V4(addr) => self.v4.get(&word(addr, tail)),
            IpAddr::V6(addr) => self.v6.get(&(addr.to_bits(), tail)),
        }
        .copied()
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Whether anything answers from this address by this protocol.
    pub(super) fn has_host(&self, addr: IpAddr, protocol: u8) -> bool {
        self.hosts.contains(&(addr, protocol))
    }

    /// The real server that has this very source.
    pub(super) fn holder(&self, (addr, protocol, port): Source) -> Option<Answerer> {
        self.get(addr, tail(protocol, port))
    }

    /// Answers from `source` are those of this real server, or nobody's, from now on. `is_host` says
    /// whether anything answers from its address and protocol then.
    pub(super) fn set(&mut self, source: Source, by: Option<Answerer>, is_host: bool) {
        let (addr, protocol, port) = source;
        let (before, key) = (self.holder(source), tail(protocol, port));
        match (addr, by) {
            (IpAddr::V4(addr), Some(by)) => _ = self.v4.insert(word(addr, key), by),
            (IpAddr::V4(addr), None) => _ = self.v4.remove(&word(addr, key)),
            (IpAddr::V6(addr), Some(by)) => _ = self.v6.insert((addr.to_bits(), key), by),
            (IpAddr::V6(addr), None) => _ = self.v6.remove(&(addr.to_bits(), key)),
        }
        if port == 0 {
            self.any_port += usize::from(by.is_some());
            self.any_port -= usize::from(before.is_some());
        }
        if is_host {
            self.hosts.insert((addr, protocol));
        } else {
            self.hosts.remove(&(addr, protocol));
        }
    }
}

#[inline]
fn word(addr: Ipv4Addr, tail: u32) -> u64 {
    u64::from(addr.to_bits()) << 32 | u64::from(tail)
}

/// Protocol and port of a real server's answers.
#[inline]
fn tail(protocol: u8, port: u16) -> u32 {
    u32::from(port) << 16 | u32::from(protocol)
}
