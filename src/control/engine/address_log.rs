//! Addresses that come to interfaces and go, for the log (keepalived's `-a`).

use std::collections::BTreeMap;

use crate::sys::{
    monitor::Event,
    netlink::{Address, Link},
};

/// Knows what interfaces are called, as the kernel tells it with addresses no more.
pub(super) struct AddressLog {
    names: BTreeMap<u32, String>,
}

impl AddressLog {
    /// These interfaces are there.
    pub(super) fn new(links: &[Link]) -> Self {
        let names = links.iter().map(|link| (link.index, link.name.clone()));
        Self {
            names: names.collect(),
        }
    }

    /// What to say of an event, in keepalived's words.
    pub(super) fn line(&mut self, event: &Event) -> Option<String> {
        match event {
            Event::Link(link) => {
                self.names.insert(link.index, link.name.clone());
                None
            }
            Event::LinkRemoved(link) => {
                self.names.remove(&link.index);
                None
            }
            Event::Address(address) => Some(self.about(address, "added to")),
            Event::AddressRemoved(address) => Some(self.about(address, "removed from")),
            Event::Neighbour(_)
            | Event::NeighbourRemoved(_)
            | Event::RouteChanged
            | Event::Overflow => None,
        }
    }

    fn about(&self, address: &Address, what: &str) -> String {
        let ip = address.prefix.addr();
        match self.names.get(&address.ifindex) {
            Some(name) => format!("Netlink reflector reports IP {ip} {what} {name}"),
            // One that came while notifications were lost.
            None => format!(
                "Netlink reflector reports IP {ip} {what} interface {}",
                address.ifindex
            ),
        }
    }
}
