//! The virtual addresses that this host has: they decide what is steered to the workers.

use std::{collections::BTreeSet, net::IpAddr};

use crate::config::Config;

/// The addresses of the VRRP instances, and those of them that this host has.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// Those of all instances.
    managed: BTreeSet<IpAddr>,
    /// Those that this host has now.
    held: BTreeSet<IpAddr>,
}

impl Held {
    /// From now on the VRRP instances of `config` manage addresses.
    pub(super) fn manage(&mut self, config: &Config) {
        let instances = config.vrrp_instances.iter();
        let vips = instances.flat_map(|instance| {
            let own = instance.virtual_ipaddress.iter();
            own.chain(&instance.virtual_ipaddress_excluded)
        });
        self.managed = vips.map(|vip| vip.prefix.addr()).collect();
    }

    /// This host has, or has not any more, these addresses of an instance.
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
    pub(super) fn is_managed(&self, (first, last): (IpAddr, IpAddr)) -> bool {
        self.managed.range(first..=last).next().is_some()
    }

    /// Whether packets to these addresses are for this host now: VRRP gave it one of them, or has no
    /// say.
    pub(super) fn is_held(&self, (first, last): (IpAddr, IpAddr)) -> bool {
        self.held.range(first..=last).next().is_some() || !self.is_managed((first, last))
    }
}

/// Whether an address lies between two others, both included.
pub(super) fn within(addr: IpAddr, (first, last): (IpAddr, IpAddr)) -> bool {
    addr.is_ipv4() == first.is_ipv4() && first <= addr && addr <= last
}
