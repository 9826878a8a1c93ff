//! The VRRP room: what the machine wants, done. Adverts by raw sockets, addresses by netlink,
//! gratuitous ARP; as the configuration says that is applied, now and at each reload alike.
//!
//! [`Vrrp`] is made empty. [`Vrrp::check`] finds what a configuration asks for that cannot be,
//! [`Vrrp::apply`] makes of what runs what the configuration says, and [`Vrrp::start`] lets it take part
//! once the data plane is ready. What becomes of interfaces is told by the `handle_*`; what follows from
//! all of it is carried out by [`Vrrp::carry_out`].

mod addresses;
mod announcements;
mod apply;
mod host;
mod interfaces;
pub(super) mod last_will;
mod put_back;
mod said;
mod status;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    time::{Duration, SystemTime},
};

use mio::Registry;

use self::{
    addresses::{Addresses, Place, Vip},
    announcements::Announcements,
    host::Host,
    interfaces::Interface,
};
use super::{
    log::{Level, Log},
    repeats::Reports,
};
use crate::{
    sys::{instance_lock::VridLock, netlink::Netlink},
    time::Instant,
    vrrp::{Action, InstanceId, Router, Settings, State, Transport},
    wire::arp,
};

/// Packets taken from one interface before the next one has its turn.
const BURST: usize = 64;
/// Packets taken from all interfaces before timers and the rest of the loop have their turn. More
/// than a socket holds, so that after a stall no timer fires that a waiting advert would have
/// stopped; but bounded, so that a flood stops no timer for ever.
const PACKETS_PER_TURN: usize = 4096;
/// An advert is at most 20 + 8 + 255 * 4 + 8 bytes; what is longer is cut and refused by length.
const MAX_PACKET: usize = 2048;
/// How long until what could not be opened or locked is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// What is needed to carry something out, and to say so.
pub(super) struct Env<'a, H = Netlink> {
    pub(super) now: Instant,
    pub(super) wall: SystemTime,
    pub(super) host: &'a mut H,
    pub(super) log: &'a mut Log,
}

/// Called with addresses before they are put on the first interface (true), and after they were taken
/// off the last one (false).
type Take<'a, H> = dyn FnMut(&mut Env<'_, H>, &BTreeSet<IpAddr>, bool) + 'a;

/// An instance, beside what the router knows of it.
struct Instance {
    name: String,
    /// The number of its interface.
    interface: u32,
    /// As configured: without the address that the interface has by itself.
    settings: Settings,
    vips: Vec<Vip>,
    /// Whether its addresses are to be on their interfaces. Follows the state when that has been
    /// carried out.
    holds: bool,
    /// What it has claimed.
    held: BTreeMap<Place, Vip>,
    /// What it should claim may be something else now.
    unsettled: bool,
    /// `None` while there is no interface, or another process has the virtual router.
    lock: Option<VridLock>,
    /// Why the lock was refused.
    refused: Option<String>,
    /// Only its goodbye is left to be carried out.
    removed: bool,
}

impl Instance {
    /// The interfaces that it needs, its own first. Some may come up twice.
    fn interfaces(&self) -> impl Iterator<Item = u32> + '_ {
        let vips = self.vips.iter().map(|vip| vip.interface);
        std::iter::once(self.interface).chain(vips)
    }

    fn is_on(&self, number: u32) -> bool {
        self.interfaces().any(|on| on == number)
    }

    /// The group that its adverts go to.
    const fn group(&self) -> Option<Ipv4Addr> {
        match self.settings.transport {
            Transport::Multicast { group } => Some(group),
            Transport::Unicast { .. } => None,
        }
    }
}

/// The VRRP instances of this host with their sockets and addresses.
pub(super) struct Vrrp {
    router: Router,
    instances: BTreeMap<InstanceId, Instance>,
    /// By the number that the router knows them by.
    interfaces: BTreeMap<u32, Interface>,
    next_interface: u32,
    addresses: Addresses,
    announcements: Announcements,
    advert_reports: Reports<(InstanceId, Ipv4Addr)>,
    arp_reports: Reports<u32>,
    /// Where sockets are registered, and the token of the first one.
    registry: Registry,
    first_token: usize,
    started: bool,
    /// When to try again what could not be opened or locked.
    retry_at: Option<Instant>,
    /// What the guardian is to do may have changed.
    changed: bool,
}

impl Vrrp {
    /// No instances. Sockets will be registered with `registry`, by tokens from `first_token` on, one for
    /// each interface name that was ever configured.
    pub(super) fn new(registry: Registry, first_token: usize) -> Self {
        Self {
            router: Router::new(),
            instances: BTreeMap::new(),
            interfaces: BTreeMap::new(),
            next_interface: 0,
            addresses: Addresses::new(),
            announcements: Announcements::new(Duration::ZERO),
            advert_reports: Reports::new(),
            arp_reports: Reports::new(),
            registry,
            first_token,
            started: false,
            retry_at: None,
            changed: false,
        }
    }

    /// Lets every instance take part.
    pub(super) fn start(&mut self, now: Instant) {
        self.started = true;
        let ids: Vec<InstanceId> = self.router.instances().collect();
        for id in ids {
            self.router.start(id, now);
        }
    }

    /// Reads what has arrived. Whether more may be waiting: then come back without sleeping.
    pub(super) fn receive(&mut self, env: &mut Env<'_, impl Host>) -> bool {
        let mut buffer = [0; MAX_PACKET];
        let Self {
            router, interfaces, ..
        } = self;
        let sockets = interfaces.iter().filter_map(|(number, interface)| {
            interface.link.as_ref()?;
            let sockets = interface.sockets.as_ref()?;
            Some((*number, &interface.name, sockets))
        });
        take_in_turn(sockets.collect(), |(number, name, sockets)| {
            match sockets.receive(&mut buffer) {
                Ok(Some(packet)) => {
                    router.handle_packet(env.now, *number, packet);
                    true
                }
                Ok(None) => false,
                // The interface went down, say; the link event that follows is acted upon.
                Err(error) => {
                    env.say(
                        Level::Error,
                        format_args!("receiving adverts on {name}: {error}"),
                    );
                    false
                }
            }
        })
    }

    /// Does what is due.
    pub(super) fn handle_timeout(&mut self, env: &mut Env<'_, impl Host>) {
        self.router.handle_timeout(env.now);
        for ifindex in self.addresses.take_due(env.now) {
            self.handle_addresses(env, ifindex);
        }
        self.retry(env);
        self.announce(env);
    }

    /// When there is something to do next.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let next = [
            self.router.poll_timeout(),
            self.addresses.poll_timeout(),
            self.announcements.poll_timeout(),
            self.retry_at,
        ];
        next.into_iter().flatten().min()
    }

    /// The addresses of an interface changed: a MASTER's address that is missing is put back (unless
    /// it is `no_track`), and adverts follow the interface's own address.
    pub(super) fn handle_addresses(&mut self, env: &mut Env<'_, impl Host>, ifindex: u32) {
        let present = match env.host.addresses(ifindex) {
            Ok(present) => present,
            Err(error) => return env.say(Level::Error, error),
        };
        let number = self.number_at(ifindex);
        let interface = number.and_then(|number| self.interfaces.get(&number));
        let usable = interface.is_some_and(Interface::is_usable);
        for address in self.addresses.reconcile(env, ifindex, &present, usable) {
            if let Some(address) = v4(address) {
                self.announcements.add(ifindex, address, 1);
            }
        }
        if let Some(number) = number {
            self.learn_primary(env, number);
        }
        self.announce(env);
    }

    /// Orderly stop: priority 0 is sent and addresses are removed, once carried out.
    pub(super) fn stop(&mut self, now: Instant) {
        self.router.handle_stop(now);
    }

    /// Carries out what is wanted, in its order: what is new on interfaces first, what is to go last.
    /// Whether the last will may be another afterwards.
    pub(super) fn carry_out<H: Host>(
        &mut self,
        env: &mut Env<'_, H>,
        take: &mut Take<'_, H>,
    ) -> bool {
        let instances = self.instances.iter_mut();
        let unsettled = instances
            .filter_map(|(id, instance)| std::mem::take(&mut instance.unsettled).then_some(*id));
        let unsettled: Vec<InstanceId> = unsettled.collect();
        for id in &unsettled {
            let added = self.claim(env, *id, take);
            self.announce_added(env, *id, &added);
        }
        while let Some((id, action)) = self.router.poll_action() {
            match action {
                Action::Send {
                    destination,
                    packet,
                } => self.send(env, id, destination, &packet),
                Action::AddAddresses => {
                    self.set_holds(id, true);
                    self.claim(env, id, take);
                }
                Action::RemoveAddresses => {
                    self.set_holds(id, false);
                    self.release(env, id, take);
                }
                Action::GratuitousArp { rounds, first } => {
                    self.queue_announcements(env, id, rounds, first);
                }
                Action::Entered { .. } => self.changed = true,
                Action::Log(line) => env.tell(&line),
            }
        }
        for id in &unsettled {
            self.release(env, *id, take);
        }
        self.forget();
        std::mem::take(&mut self.changed)
    }

    /// Whether [`Self::carry_out`] will put addresses on interfaces: the guardian must know of them before.
    pub(super) fn is_about_to_add(&self) -> bool {
        let mut instances = self.instances.values();
        self.router.is_about_to_add()
            || instances.any(|instance| instance.holds && instance.unsettled)
    }

    fn set_holds(&mut self, id: InstanceId, holds: bool) {
        if let Some(instance) = self.instances.get_mut(&id) {
            instance.holds = holds;
        }
    }

    /// Where the addresses of an instance go, those without an interface left out.
    fn places(&self, instance: &Instance) -> BTreeMap<Place, Vip> {
        let vips = instance.vips.iter();
        vips.filter_map(|vip| {
            let ifindex = self.link(vip.interface)?.index;
            Some(((ifindex, vip.prefix), vip.clone()))
        })
        .collect()
    }

    /// Puts on what an instance should have and has not claimed yet, and tells what that is.
    fn claim<H: Host>(
        &mut self,
        env: &mut Env<'_, H>,
        id: InstanceId,
        take: &mut Take<'_, H>,
    ) -> Vec<Place> {
        let Some(instance) = self.instances.get(&id).filter(|instance| instance.holds) else {
            return Vec::new();
        };
        let mut wanted = self.places(instance);
        wanted.retain(|place, vip| instance.held.get(place) != Some(vip));
        if wanted.is_empty() {
            return Vec::new();
        }
        self.changed = true;
        let places: Vec<Place> = wanted.keys().copied().collect();
        let addresses = places.iter().map(|(_, prefix)| prefix.addr());
        let news: BTreeSet<IpAddr> = addresses
            .filter(|address| !self.addresses.has(*address))
            .collect();
        take(env, &news, true);
        let Some(instance) = self.instances.get_mut(&id) else {
            return Vec::new();
        };
        for (place, vip) in &wanted {
            let holder = (id, instance.name.as_str());
            self.addresses.claim(env, holder, place.0, vip);
        }
        instance.held.extend(wanted);
        places
    }

    /// Takes off what an instance has claimed and should not have.
    fn release<H: Host>(&mut self, env: &mut Env<'_, H>, id: InstanceId, take: &mut Take<'_, H>) {
        let Some(instance) = self.instances.get(&id) else {
            return;
        };
        let wanted = if instance.holds {
            self.places(instance)
        } else {
            BTreeMap::new()
        };
        let Some(instance) = self.instances.get_mut(&id) else {
            return;
        };
        let held = instance.held.keys().copied();
        let gone: Vec<Place> = held.filter(|place| !wanted.contains_key(place)).collect();
        if gone.is_empty() {
            return;
        }
        self.changed = true;
        for place in &gone {
            instance.held.remove(place);
            self.addresses.release(env, id, *place);
        }
        let addresses = gone.iter().map(|(_, prefix)| prefix.addr());
        let gone: BTreeSet<IpAddr> = addresses
            .filter(|address| !self.addresses.has(*address))
            .collect();
        take(env, &gone, false);
    }

    /// Lets go of instances that have been removed, of interfaces that nobody needs, and of what
    /// belonged to interfaces that have another name now.
    fn forget(&mut self) {
        self.instances.retain(|_, instance| !instance.removed);
        let Self {
            router,
            instances,
            interfaces,
            ..
        } = self;
        interfaces.retain(|number, interface| {
            if interface.link.is_none() {
                interface.sockets = None;
            }
            let used = instances.values().any(|instance| instance.is_on(*number));
            if !used {
                router.forget_link(*number);
            }
            used
        });
    }

    fn send(
        &mut self,
        env: &mut Env<'_, impl Host>,
        id: InstanceId,
        destination: Ipv4Addr,
        packet: &[u8],
    ) {
        let Some(instance) = self.instances.get(&id) else {
            return;
        };
        let Some(interface) = self.interfaces.get(&instance.interface) else {
            return;
        };
        let Some(sockets) = &interface.sockets else {
            return;
        };
        let sent = sockets.send_advert(destination, packet);
        let (name, device) = (&instance.name, &interface.name);
        let what = format_args!("({name}) sending an advert to {destination} on {device}");
        let place = (id, destination);
        if let Some(line) = self
            .advert_reports
            .note(env.now, place, sent.as_ref().copied(), what)
        {
            env.say(line.level, line);
        }
    }

    fn queue_announcements(
        &mut self,
        env: &mut Env<'_, impl Host>,
        id: InstanceId,
        rounds: u8,
        first: bool,
    ) {
        let Some(instance) = self.instances.get(&id) else {
            return;
        };
        let vips = instance.vips.iter();
        let places = vips.filter_map(|vip| {
            let link = self.interfaces.get(&vip.interface)?.link.as_ref()?;
            Some((link.index, vip))
        });
        for (ifindex, vip) in places {
            announce(&mut self.announcements, env, (ifindex, vip), rounds, first);
        }
        self.announce(env);
    }

    /// Announces addresses that a MASTER has got in addition.
    fn announce_added(&mut self, env: &mut Env<'_, impl Host>, id: InstanceId, added: &[Place]) {
        let Some(instance) = self.instances.get(&id) else {
            return;
        };
        let rounds = instance.settings.garp.master_repeat;
        for place in added {
            if let Some(vip) = instance.held.get(place) {
                announce(&mut self.announcements, env, (place.0, vip), rounds, true);
            }
        }
        self.announce(env);
    }

    /// Sends the gratuitous ARP that is due.
    fn announce(&mut self, env: &mut Env<'_, impl Host>) {
        let Self {
            interfaces,
            addresses,
            announcements,
            arp_reports,
            ..
        } = self;
        // One that was held when this was queued may have been given up since.
        let held = |ifindex, address| addresses.has_on(ifindex, IpAddr::V4(address));
        while let Some((ifindex, address)) = announcements.next(env.now, held) {
            let mut interfaces = interfaces.values_mut();
            let interface = interfaces.find_map(|Interface { link, sockets, .. }| {
                let link = link.as_ref().filter(|link| link.index == ifindex)?;
                Some((link, sockets.as_mut()?))
            });
            let Some((link, sockets)) = interface else {
                continue;
            };
            // The address of now: it may have changed since this was queued.
            let Some(mac) = link.mac else { continue };
            let sent = sockets.send_frame(&arp::gratuitous(mac, address));
            let what = format_args!("gratuitous ARP on {}", link.name);
            if let Some(line) = arp_reports.note(env.now, ifindex, sent.as_ref().copied(), what) {
                env.say(line.level, line);
            }
        }
    }

    /// The interfaces that virtual addresses live on.
    pub(super) fn vip_interfaces(&self) -> impl Iterator<Item = u32> + '_ {
        let vips = self.instances.values().flat_map(|instance| &instance.vips);
        vips.filter_map(|vip| Some(self.link(vip.interface)?.index))
    }

    fn is_master(&self, id: InstanceId) -> bool {
        let status = self.router.status(id);
        status.is_some_and(|status| status.state == State::Master)
    }
}

fn announce(
    announcements: &mut Announcements,
    env: &mut Env<'_, impl Host>,
    (ifindex, vip): (u32, &Vip),
    rounds: u8,
    first: bool,
) {
    let (device, address) = (&vip.device, vip.prefix.addr());
    if first {
        env.say(
            Level::Debug,
            format_args!("Sending gratuitous ARP on {device} for {address}"),
        );
    }
    if let Some(address) = v4(address) {
        announcements.add(ifindex, address, rounds);
    }
}

/// Calls `take` for each source in turn, [`BURST`] times at most, again and again until it has
/// returned false (there is nothing more) for each, or true [`PACKETS_PER_TURN`] times. Whether
/// something may be left.
fn take_in_turn<S>(mut sources: Vec<S>, mut take: impl FnMut(&S) -> bool) -> bool {
    let mut left = PACKETS_PER_TURN;
    while left > 0 && !sources.is_empty() {
        sources.retain(|source| {
            for _ in 0..BURST.min(left) {
                if !take(source) {
                    return false;
                }
                left -= 1;
            }
            true
        });
    }
    !sources.is_empty()
}

fn v4(addr: IpAddr) -> Option<Ipv4Addr> {
    match addr {
        IpAddr::V4(addr) => Some(addr),
        IpAddr::V6(_) => None,
    }
}

#[cfg(test)]
mod tests;
