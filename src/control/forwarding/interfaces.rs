//! The interfaces of the data plane: which it is to have, which it has, and what is known of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{
    super::log::Level,
    ADDRESSES_AGAIN, Forwarding, LOCK_AGAIN, View,
    ports::{PortInfo, Ports},
};
use crate::{
    dataplane::ports::{PortNews, PortState},
    sys::{
        device::InterfaceSpec,
        instance_lock::InterfaceLock,
        netlink::{Address, Link, Scope},
    },
};

impl Forwarding {
    /// The interfaces that the data plane is to have: those that virtual addresses live on and real servers
    /// are behind, and those that it has, for as long as they exist. A route that is gone for a moment, as when
    /// the interface is down, is no reason to close it.
    pub(super) fn choose_interfaces(
        &mut self,
        vip_interfaces: &BTreeSet<u32>,
    ) -> Vec<InterfaceSpec> {
        let all = vip_interfaces.iter().chain(&self.unmanaged).copied();
        let needed: BTreeSet<u32> = all.chain(self.hops.interfaces()).collect();
        self.wanted.retain(|ifindex, lock| {
            let exists = self.links.contains_key(ifindex);
            exists && (lock.is_ok() || needed.contains(ifindex))
        });
        for (ifindex, link) in &self.links {
            let known = self.wanted.get(ifindex);
            if link.loopback || !(needed.contains(ifindex) || known.is_some()) {
                continue;
            }
            if known.is_none_or(Result::is_err) {
                let lock = InterfaceLock::acquire(link.index, &link.name);
                let lock = lock.map_err(|error| error.to_string());
                self.wanted.insert(*ifindex, lock);
            }
        }
        let held = self.wanted.iter().filter(|(_, lock)| lock.is_ok());
        let links = held.filter_map(|(ifindex, _)| self.links.get(ifindex));
        links
            .map(|link| InterfaceSpec {
                name: link.name.clone(),
                ifindex: link.index,
            })
            // It has the lock of its own.
            .chain(self.local_way.interface(&self.links))
            .collect()
    }

    /// The other interfaces that are there, on which a previous run may have left something.
    pub(super) fn interfaces_beside(&self, chosen: &[InterfaceSpec]) -> Vec<InterfaceSpec> {
        let is_chosen = |link: &Link| chosen.iter().any(|spec| spec.ifindex == link.index);
        let others = (self.links.values())
            .filter(|link| !link.loopback && link.mac.is_some() && !is_chosen(link));
        let spec = |link: &Link| InterfaceSpec {
            name: link.name.clone(),
            ifindex: link.index,
        };
        others.map(spec).collect()
    }

    /// Makes the way to real servers on this host when there is one.
    pub(super) fn drive_local_way(&mut self, view: &mut View<'_>) {
        let needed = self.hops.has_local();
        let (now, links) = (view.voice.now, &mut self.links);
        if let Some(line) = self.local_way.drive(now, needed, links, view.netlink) {
            view.say(Level::Error, line);
        }
        let hop = self.local_way.hop();
        self.interfaces_changed |= self.hops.set_local(hop);
    }

    /// Tells the data plane the interfaces that it is to have, if those may be others than before.
    pub(super) fn drive_interfaces(&mut self, vip_interfaces: &BTreeSet<u32>, view: &mut View<'_>) {
        let now = view.voice.now;
        if self.locks_at.is_some_and(|at| at <= now) {
            self.interfaces_changed = true;
        }
        if self.data_plane.is_none() {
            return;
        }
        if std::mem::take(&mut self.interfaces_changed) {
            self.look.want(now);
        }
        if !self.look.take(now) {
            return;
        }
        let refused = |all: &BTreeMap<u32, Result<InterfaceLock, String>>| -> BTreeSet<String> {
            let errors = all.values().filter_map(|lock| lock.as_ref().err());
            errors.cloned().collect()
        };
        let known = refused(&self.wanted);
        let interfaces = self.choose_interfaces(vip_interfaces);
        let now_refused = refused(&self.wanted);
        for error in now_refused.difference(&known) {
            view.say(Level::Error, error);
        }
        self.locks_at = (!now_refused.is_empty()).then(|| now + LOCK_AGAIN);
        if let Some(data_plane) = &mut self.data_plane {
            data_plane.set_interfaces(now, &interfaces);
        }
        self.take_ports(view);
    }

    /// Learns which ports are open, and what they are.
    pub(super) fn take_ports(&mut self, view: &mut View<'_>) {
        let fast = self.choose_fast(view);
        let Some(data_plane) = &self.data_plane else {
            return;
        };
        let mut ports = Ports::default();
        for status in data_plane.ports() {
            if let PortState::Open(port, _) = status.state
                && let Some(link) = self.links.get(&status.spec.ifindex)
            {
                let known = self.ports.get(port).filter(|it| it.ifindex == link.index);
                let (v4, v6) = known.map_or((None, None), |known| (known.v4, known.v6));
                ports.set(
                    port,
                    Some(PortInfo {
                        v4,
                        v6,
                        fast: fast.contains(&port),
                        ..port_info(link)
                    }),
                );
            }
        }
        if ports == self.ports {
            return;
        }
        let former = std::mem::replace(&mut self.ports, ports);
        let both = former.iter().chain(self.ports.iter());
        let touched: BTreeSet<u32> = both.map(|(_, port)| port.ifindex).collect();
        for ifindex in touched {
            self.hops.handle_interface(ifindex);
        }
        self.environment_changed = true;
        if let Some(ways) = &mut self.ways {
            ways.handle_port();
            self.changed = true;
        }
        self.addresses.want(view.voice.now);
    }

    /// Interfaces of the data plane that were opened, closed, or wait.
    pub(super) fn drive_ports(&mut self, view: &mut View<'_>) {
        let Some(data_plane) = &mut self.data_plane else {
            return;
        };
        let news = data_plane.handle_timeout(view.voice.now);
        for PortNews { text, trouble } in &news {
            let level = if *trouble {
                Level::Warning
            } else {
                Level::Notice
            };
            view.say(level, format_args!("packet I/O: {text}"));
        }
        if !news.is_empty() {
            self.take_ports(view);
        }
    }

    /// Looks up the addresses of this host: packets to them are never answers to clients, and packets of
    /// our own come from them.
    pub(super) fn learn_addresses(&mut self, view: &mut View<'_>) {
        let mut all = BTreeSet::new();
        let mut unmanaged = BTreeSet::new();
        let links: Vec<(u32, bool)> = self
            .links
            .values()
            .map(|link| (link.index, link.loopback))
            .collect();
        for (ifindex, loopback) in links {
            match view.netlink.addresses(ifindex) {
                Ok(addresses) => {
                    let mut addrs = addresses.iter().map(|address| address.prefix.addr());
                    all.extend(addrs.clone());
                    if !loopback && addrs.any(|addr| self.services.has_unmanaged(addr)) {
                        unmanaged.insert(ifindex);
                    }
                    self.learn_port(ifindex, &addresses);
                }
                Err(error) => {
                    // Half of the addresses would be worse than those of before.
                    view.say(Level::Error, error);
                    self.addresses.want(view.voice.now + ADDRESSES_AGAIN);
                    return;
                }
            }
        }
        self.interfaces_changed |= unmanaged != self.unmanaged;
        self.unmanaged = unmanaged;
        if all != self.locals {
            self.locals = all;
            self.steer(&mut view.voice);
        }
    }

    pub(super) fn learn_port(&mut self, ifindex: u32, addresses: &[Address]) {
        let Some(port) = self.ports.with_mut(ifindex) else {
            return;
        };
        let mut ranked: Vec<&Address> = addresses.iter().collect();
        let is_vip = |address: &Address| self.services.manages(address.prefix.addr());
        ranked.sort_by_key(|address| rank(address, is_vip(address)));
        let mut own = ranked.iter().map(|address| address.prefix.addr());
        let v4 = own.clone().find_map(|addr| match addr {
            IpAddr::V4(addr) => Some(addr),
            IpAddr::V6(_) => None,
        });
        let v6 = own.find_map(|addr| match addr {
            IpAddr::V6(addr) => Some(addr),
            IpAddr::V4(_) => None,
        });
        if (port.v4, port.v6) != (v4, v6) {
            (port.v4, port.v6) = (v4, v6);
            self.environment_changed = true;
        }
    }
}

pub(super) fn port_info(link: &Link) -> PortInfo {
    PortInfo {
        name: link.name.clone(),
        ifindex: link.index,
        mac: link.mac.unwrap_or_default(),
        mtu: link.mtu,
        v4: None,
        v6: None,
        fast: false,
    }
}

/// Which of several addresses packets of our own come from: not a VIP, which may leave; the widest scope.
fn rank(address: &Address, is_vip: bool) -> (bool, bool, bool) {
    let narrow = address.scope != Scope::Global;
    (is_vip, narrow, address.secondary)
}
