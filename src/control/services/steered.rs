//! Which packets the steering program gives to the workers now.

use std::{
    collections::{BTreeSet, HashSet},
    net::IpAddr,
};

use crate::{config::Config, sys::steer};

/// What is steered, and by which addresses that is decided.
#[derive(Debug, Default)]
pub(super) struct Steered {
    /// The addresses of all VRRP instances.
    managed: BTreeSet<IpAddr>,
    /// Those that this host has now.
    held: BTreeSet<IpAddr>,
    now: HashSet<steer::Steered>,
}

/// What the steering program is to be told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::control) struct Change {
    /// First to be added, in this order.
    pub(in crate::control) added: Vec<steer::Steered>,
    /// Then to be removed.
    pub(in crate::control) removed: Vec<steer::Steered>,
}

impl Steered {
    /// Nothing is steered, and no address of `config`'s VRRP instances is held.
    pub(super) fn new(config: &Config) -> Self {
        let instances = config.vrrp_instances.iter();
        let vips = instances.flat_map(|instance| {
            let own = instance.virtual_ipaddress.iter();
            own.chain(&instance.virtual_ipaddress_excluded)
        });
        Self {
            managed: vips.map(|vip| vip.prefix.addr()).collect(),
            ..Self::default()
        }
    }

    pub(super) fn hold(&mut self, on: bool, vips: impl Iterator<Item = IpAddr>) {
        for vip in vips {
            if on {
                self.held.insert(vip);
            } else {
                self.held.remove(&vip);
            }
        }
    }

    /// Whether VRRP decides when this host has any of these addresses.
    pub(super) fn is_managed(&self, bounds: (IpAddr, IpAddr)) -> bool {
        self.managed.iter().any(|vip| within(*vip, bounds))
    }

    /// Whether packets to these addresses are for this host now: VRRP gave it one of them, or has no
    /// say.
    pub(super) fn is_held(&self, bounds: (IpAddr, IpAddr)) -> bool {
        self.held.iter().any(|vip| within(*vip, bounds)) || !self.is_managed(bounds)
    }

    /// From now on `wanted` is steered.
    pub(super) fn change(&mut self, wanted: Vec<steer::Steered>) -> Change {
        let all: HashSet<steer::Steered> = wanted.iter().copied().collect();
        let removed = self.now.difference(&all).copied().collect();
        let mut added = Vec::new();
        for what in wanted {
            if self.now.insert(what) {
                added.push(what);
            }
        }
        self.now = all;
        Change { added, removed }
    }
}

/// Whether an address lies between two others, both included.
pub(super) fn within(addr: IpAddr, (first, last): (IpAddr, IpAddr)) -> bool {
    addr.is_ipv4() == first.is_ipv4() && first <= addr && addr <= last
}
