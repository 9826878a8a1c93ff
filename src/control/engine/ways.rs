//! What this host has and how it reaches others, as far as packets to clients and packets of its own
//! need it.

use std::{collections::BTreeSet, net::IpAddr, time::SystemTime};

use super::{DataPlane, Engine};
use crate::{
    sys::{
        netlink::{Address, Scope},
        steer,
    },
    time::Instant,
};

impl Engine {
    /// Routes may have changed.
    pub(super) fn routes_changed(&mut self, now: Instant) {
        self.hops.handle_routes(now);
        if let Some(ways) = &mut self.ways {
            ways.handle_routes(now);
        }
    }

    /// Looks up the ways to clients that may have changed, and those that workers ask for.
    pub(super) fn drive_client_ways(&mut self, now: Instant, wall: SystemTime) {
        let Some(ways) = &mut self.ways else {
            return;
        };
        let mut failed = None;
        if ways.poll_timeout().is_some_and(|at| at <= now) {
            match ways.handle_timeout(now, &self.ports, &mut self.netlink) {
                Ok((changed, routers)) => {
                    self.stale |= changed;
                    // Asked about all the time, so that they are known before they are needed.
                    for router in routers {
                        self.hops.track(now, router);
                    }
                }
                Err(error) => failed = Some(error),
            }
        }
        while let Some((port, ip)) = self.data_plane.as_ref().and_then(DataPlane::asked) {
            if let Some(port) = self.ports.get(usize::from(port.0)) {
                match ways.ask(now, port, ip, &mut self.netlink) {
                    Ok(changed) => self.stale |= changed,
                    Err(error) => failed = failed.or(Some(error)),
                }
            }
        }
        if let Some(error) = failed {
            self.log.line(wall, error);
        }
    }

    /// Looks up the addresses of this host: packets to them are never answers to clients, and packets of
    /// our own come from them.
    pub(super) fn learn_addresses(&mut self) {
        let links = match self.netlink.links() {
            Ok(links) => links,
            Err(error) => return self.say(error),
        };
        let mut all = BTreeSet::new();
        for link in links {
            match self.netlink.addresses(link.index) {
                Ok(addresses) => {
                    all.extend(addresses.iter().map(|address| address.prefix.addr()));
                    self.learn_port(link.index, &addresses);
                }
                Err(error) => self.say(error),
            }
        }
        self.steer_locals(all);
    }

    fn learn_port(&mut self, ifindex: u32, addresses: &[Address]) {
        let Some(port) = self.ports.iter_mut().find(|port| port.ifindex == ifindex) else {
            return;
        };
        let mut ranked: Vec<&Address> = addresses.iter().collect();
        ranked.sort_by_key(|address| rank(address, self.vrrp.manages(address.prefix.addr())));
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
            self.stale = true;
        }
    }

    /// Tells the steering program the addresses of this host.
    fn steer_locals(&mut self, all: BTreeSet<IpAddr>) {
        let known = std::mem::replace(&mut self.locals, all);
        let Some(data_plane) = &mut self.data_plane else {
            return;
        };
        let local = |addr: &IpAddr| steer::Steered::Local(*addr);
        let added: Vec<_> = self.locals.difference(&known).map(local).collect();
        let removed: Vec<_> = known.difference(&self.locals).map(local).collect();
        let done = data_plane.steering().change(&added, &removed);
        for refusal in done.refused {
            self.say(format_args!("{refusal}"));
        }
    }
}

/// Which of several addresses packets of our own come from: not a VIP, which may leave; the widest scope.
fn rank(address: &Address, is_vip: bool) -> (bool, bool, bool) {
    let narrow = address.scope != Scope::Global;
    (is_vip, narrow, address.secondary)
}
