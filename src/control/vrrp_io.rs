//! What the VRRP machine wants, done: adverts by raw sockets, addresses by netlink, gratuitous ARP.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    io,
    net::{IpAddr, Ipv4Addr},
    os::fd::AsRawFd,
    time::SystemTime,
};

use mio::{Interest, Registry, Token, unix::SourceFd};

use super::{
    announcements::Announcements,
    api::{InstanceStatus, NamedCount},
    log::Log,
    put_back::{Missing, PutBacks},
    repeats::SendReports,
};
use crate::{
    addr::IpPrefix,
    config,
    sys::{
        instance_lock::{VridFamily, VridLock},
        link_socket::LinkSocket,
        netlink::{Added, AddressOptions, Link, Netlink, Scope},
        vrrp_socket::VrrpSocket,
    },
    time::Instant,
    vrrp::{Action, GarpSettings, InstanceId, RejectReason, Router, Settings, State, Transport},
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

/// What is needed to carry something out, and to say so.
pub(super) struct Env<'a> {
    pub(super) now: Instant,
    pub(super) wall: SystemTime,
    pub(super) netlink: &'a mut Netlink,
    pub(super) log: &'a mut Log,
}

impl Env<'_> {
    fn say(&mut self, text: impl std::fmt::Display) {
        self.log.line(self.wall, text);
    }
}

/// A virtual address, and where it goes while this router is MASTER.
#[derive(Clone, Debug)]
pub(super) struct Vip {
    pub(super) ifindex: u32,
    pub(super) prefix: IpPrefix,
    device: String,
    options: AddressOptions,
    no_track: bool,
}

/// An instance, beside what the router knows of it.
struct Instance {
    interface: String,
    vips: Vec<Vip>,
    shown: Vec<String>,
    /// Whether the addresses are, or may be, on their interfaces. Follows the state when that has
    /// been carried out.
    holds: bool,
    _lock: VridLock,
}

/// An interface that adverts or gratuitous ARP leave by.
struct Port {
    link: Link,
    adverts: Option<VrrpSocket>,
    arp: LinkSocket,
}

/// The VRRP instances of this host with their sockets and addresses.
pub(super) struct VrrpIo {
    router: Router,
    instances: BTreeMap<InstanceId, Instance>,
    ports: BTreeMap<u32, Port>,
    announcements: Announcements,
    put_backs: PutBacks,
    advert_reports: SendReports<(InstanceId, Ipv4Addr)>,
    arp_reports: SendReports<u32>,
}

impl VrrpIo {
    /// Opens sockets for every instance of `config`, and removes virtual addresses that an earlier
    /// run left on the interfaces. Nothing takes part yet: [`Self::start`] follows when the data
    /// plane is ready.
    ///
    /// # Errors
    /// A sentence that names the instance and what is wrong.
    pub(super) fn open(
        config: &config::Config,
        env: &mut Env<'_>,
        registry: &Registry,
        first_token: usize,
    ) -> Result<Self, String> {
        let mut this = Self {
            router: Router::new(),
            instances: BTreeMap::new(),
            ports: BTreeMap::new(),
            announcements: Announcements::new(config.global.vrrp_garp_interval),
            put_backs: PutBacks::default(),
            advert_reports: SendReports::new(),
            arp_reports: SendReports::new(),
        };
        for instance in &config.vrrp_instances {
            this.add(config, instance, env)
                .map_err(|error| format!("({}) {error}", instance.name))?;
        }
        for (offset, port) in this.ports.values().enumerate() {
            if let Some(socket) = &port.adverts {
                let token = Token(first_token + offset);
                registry
                    .register(
                        &mut SourceFd(&socket.as_raw_fd()),
                        token,
                        Interest::READABLE,
                    )
                    .map_err(|error| format!("{}: {error}", port.link.name))?;
            }
        }
        Ok(this)
    }

    fn add(
        &mut self,
        config: &config::Config,
        instance: &config::VrrpInstance,
        env: &mut Env<'_>,
    ) -> Result<(), String> {
        let link = self.port(&instance.interface, env)?;
        let lock = VridLock::acquire(&link, VridFamily::V4, instance.virtual_router_id)
            .map_err(|error| error.to_string())?;
        let addresses = instance.virtual_ipaddress.iter();
        let mut vips = Vec::new();
        for address in addresses.chain(&instance.virtual_ipaddress_excluded) {
            let device = self.port(&address.dev, env)?;
            vips.push(vip(address, &device));
        }
        remove_leftovers(&instance.name, &vips, env);
        let own: Vec<Ipv4Addr> = vips
            .iter()
            .filter_map(|vip| v4(vip.prefix.addr()))
            .collect();
        let primary = match instance.source {
            Some(source) => v4(source),
            None => env
                .netlink
                .primary_v4(link.index, &own)
                .map_err(|e| e.to_string())?,
        };
        let settings = settings(config, instance, link.index, primary);
        self.open_adverts(&link, &settings.transport)?;
        let id = self
            .router
            .add(settings, env.now)
            .map_err(|error| error.to_string())?;
        self.router
            .handle_link(env.now, link.index, link.is_usable());
        let shown = vips.iter().map(|vip| vip.prefix.to_string()).collect();
        let interface = instance.interface.clone();
        self.instances.insert(
            id,
            Instance {
                interface,
                vips,
                shown,
                holds: false,
                _lock: lock,
            },
        );
        Ok(())
    }

    /// The interface `name`, opened for gratuitous ARP at first mention.
    fn port(&mut self, name: &str, env: &mut Env<'_>) -> Result<Link, String> {
        let link = env
            .netlink
            .link_by_name(name)
            .map_err(|error| error.to_string())?;
        let link = link.ok_or_else(|| format!("interface {name} does not exist"))?;
        if let Entry::Vacant(vacant) = self.ports.entry(link.index) {
            let arp = LinkSocket::open(&link)
                .map_err(|error| format!("opening a packet socket on {name}: {error}"))?;
            vacant.insert(Port {
                link: link.clone(),
                adverts: None,
                arp,
            });
        }
        Ok(link)
    }

    fn open_adverts(&mut self, link: &Link, transport: &Transport) -> Result<(), String> {
        let Some(port) = self.ports.get_mut(&link.index) else {
            return Ok(());
        };
        let group = match transport {
            Transport::Multicast { group } => Some(*group),
            Transport::Unicast { .. } => None,
        };
        let failed = |error: io::Error| format!("opening a VRRP socket on {}: {error}", link.name);
        match (&port.adverts, group) {
            (None, _) => port.adverts = Some(VrrpSocket::open(link, group).map_err(failed)?),
            (Some(socket), Some(group)) => socket.join(link, group).map_err(failed)?,
            (Some(_), None) => {}
        }
        Ok(())
    }

    /// Lets every instance take part.
    pub(super) fn start(&mut self, now: Instant) {
        let ids: Vec<InstanceId> = self.router.instances().collect();
        for id in ids {
            self.router.start(id, now);
        }
    }

    /// Reads what has arrived. Whether more may be waiting: then come back without sleeping.
    pub(super) fn receive(&mut self, env: &mut Env<'_>) -> bool {
        let mut buffer = [0; MAX_PACKET];
        let Self { router, ports, .. } = self;
        let sockets = ports.values().filter_map(|port| {
            let socket = port.adverts.as_ref()?;
            Some((&port.link, socket))
        });
        take_in_turn(sockets.collect(), |(link, socket)| {
            match socket.recv(&mut buffer) {
                Ok(Some(packet)) => {
                    router.handle_packet(env.now, link.index, packet);
                    true
                }
                Ok(None) => false,
                // The interface went down, say; the link event that follows is acted upon.
                Err(error) => {
                    env.say(format_args!("receiving adverts on {}: {error}", link.name));
                    false
                }
            }
        })
    }

    /// Does what is due.
    pub(super) fn handle_timeout(&mut self, env: &mut Env<'_>) {
        self.router.handle_timeout(env.now);
        for ifindex in self.put_backs.take_due(env.now) {
            self.handle_addresses(env, ifindex);
        }
        self.announce(env);
    }

    /// When there is something to do next.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let next = [
            self.router.poll_timeout(),
            self.put_backs.poll_timeout(),
            self.announcements.poll_timeout(),
        ];
        next.into_iter().flatten().min()
    }

    /// An interface changed, or came up, or is gone (`usable` false).
    pub(super) fn handle_link(&mut self, now: Instant, link: &Link, usable: bool) {
        let Some(port) = self.ports.get_mut(&link.index) else {
            return;
        };
        let former = std::mem::replace(&mut port.link, link.clone());
        self.router.handle_link(now, link.index, usable);
        if link.mac == former.mac {
            return;
        }
        for (id, instance) in &self.instances {
            if instance.vips.iter().any(|vip| vip.ifindex == link.index) {
                self.router.handle_new_mac(*id);
            }
        }
    }

    /// The addresses of an interface changed: a MASTER's address that is missing is put back (unless
    /// it is `no_track`), and adverts follow the interface's own address.
    pub(super) fn handle_addresses(&mut self, env: &mut Env<'_>, ifindex: u32) {
        let Some(port) = self.ports.get(&ifindex) else {
            return;
        };
        let present = match env.netlink.addresses(ifindex) {
            Ok(present) => present,
            Err(error) => return env.say(error),
        };
        let is_there = |vip: &Vip| present.iter().any(|a| a.prefix.addr() == vip.prefix.addr());
        let mut own = Vec::new();
        for (id, instance) in &self.instances {
            let on_port = instance.vips.iter().filter(|vip| vip.ifindex == ifindex);
            let status = self.router.status(*id);
            let master = status.is_some_and(|status| status.state == State::Master);
            for vip in on_port {
                let address = vip.prefix.addr();
                own.extend(v4(address));
                let tracked = master && !vip.no_track;
                if !tracked || !port.link.is_usable() || is_there(vip) {
                    continue;
                }
                let name = status.map_or("", |status| status.name);
                match self.put_backs.missing(env.now, ifindex, address) {
                    Missing::Wait => continue,
                    Missing::Restore => {}
                    Missing::RestoreAndSay(unsaid) => say_put_back(name, vip, unsaid, env),
                }
                add(name, vip, env);
                if let Some(address) = v4(address) {
                    self.announcements.add(ifindex, address, 1);
                }
            }
        }
        match env.netlink.primary_v4(ifindex, &own) {
            Ok(primary) => self.router.handle_primary(env.now, ifindex, primary),
            Err(error) => env.say(error),
        }
        self.announce(env);
    }

    /// Orderly stop: priority 0 is sent and addresses are removed, once carried out.
    pub(super) fn stop(&mut self, now: Instant) {
        self.router.handle_stop(now);
    }

    /// Carries out what the router wants, in its order. `take` is called with the addresses of an
    /// instance before they are added (true) and after they were removed (false).
    pub(super) fn carry_out(
        &mut self,
        env: &mut Env<'_>,
        take: &mut dyn FnMut(&mut Env<'_>, &[Vip], bool),
    ) -> bool {
        let mut changed = false;
        while let Some((id, action)) = self.router.poll_action() {
            let Some(instance) = self.instances.get_mut(&id) else {
                continue;
            };
            let name = self
                .router
                .status(id)
                .map_or("", |status| status.name)
                .to_owned();
            match action {
                Action::Send {
                    destination,
                    packet,
                } => self.send(env, id, destination, &packet),
                Action::AddAddresses => {
                    take(env, &instance.vips, true);
                    instance.holds = true;
                    instance.vips.iter().for_each(|vip| add(&name, vip, env));
                }
                Action::RemoveAddresses => {
                    instance.vips.iter().for_each(|vip| remove(&name, vip, env));
                    instance.holds = false;
                    take(env, &instance.vips, false);
                }
                Action::GratuitousArp { rounds, first } => {
                    self.queue_announcements(env, id, rounds, first);
                }
                Action::Entered { .. } => changed = true,
                Action::Log(line) => env.say(line),
            }
        }
        changed
    }

    fn send(&mut self, env: &mut Env<'_>, id: InstanceId, destination: Ipv4Addr, packet: &[u8]) {
        let Some(status) = self.router.status(id) else {
            return;
        };
        let Some(port) = self.ports.get(&status.interface) else {
            return;
        };
        let Some(socket) = &port.adverts else { return };
        let sent = socket.send_to(destination, packet);
        let (name, device) = (status.name, &port.link.name);
        let what = format_args!("({name}) sending an advert to {destination} on {device}");
        let line = self
            .advert_reports
            .note(env.now, (id, destination), &sent, what);
        if let Some(line) = line {
            env.say(line);
        }
    }

    fn queue_announcements(&mut self, env: &mut Env<'_>, id: InstanceId, rounds: u8, first: bool) {
        let Some(instance) = self.instances.get(&id) else {
            return;
        };
        for vip in &instance.vips {
            let (device, address) = (&vip.device, vip.prefix.addr());
            if first {
                env.say(format_args!(
                    "Sending gratuitous ARP on {device} for {address}"
                ));
            }
            if let Some(address) = v4(address) {
                self.announcements.add(vip.ifindex, address, rounds);
            }
        }
        self.announce(env);
    }

    /// Sends the gratuitous ARP that is due.
    fn announce(&mut self, env: &mut Env<'_>) {
        let Self {
            router,
            instances,
            ports,
            announcements,
            arp_reports,
            ..
        } = self;
        // One that was MASTER when this was queued may have given way since.
        let held = |ifindex, address| {
            let masters = instances.iter().filter(|(id, _)| is_master(router, **id));
            let mut vips = masters.flat_map(|(_, instance)| &instance.vips);
            vips.any(|vip| vip.ifindex == ifindex && vip.prefix.addr() == IpAddr::V4(address))
        };
        while let Some((ifindex, address)) = announcements.next(env.now, held) {
            let Some(port) = ports.get_mut(&ifindex) else {
                continue;
            };
            // The address of now: it may have changed since this was queued.
            let Some(mac) = port.link.mac else { continue };
            let sent = port.arp.send(&arp::gratuitous(mac, address));
            let what = format_args!("gratuitous ARP on {}", port.link.name);
            if let Some(line) = arp_reports.note(env.now, ifindex, &sent, what) {
                env.say(line);
            }
        }
    }

    /// The interfaces that sockets of this are bound to.
    pub(super) fn links(&self) -> impl Iterator<Item = &Link> {
        self.ports.values().map(|port| &port.link)
    }

    /// The interfaces that virtual addresses live on.
    pub(super) fn vip_interfaces(&self) -> impl Iterator<Item = u32> + '_ {
        self.instances
            .values()
            .flat_map(|instance| &instance.vips)
            .map(|vip| vip.ifindex)
    }

    /// Whether an instance of this host manages `address`.
    pub(super) fn manages(&self, address: IpAddr) -> bool {
        let mut vips = self.instances.values().flat_map(|instance| &instance.vips);
        vips.any(|vip| vip.prefix.addr() == address)
    }

    /// Whether [`Self::carry_out`] will add addresses: the guardian must know of them before.
    pub(super) fn is_about_to_add(&self) -> bool {
        self.router.is_about_to_add()
    }

    /// What the guardian must do when this process dies: the priority 0 adverts of each MASTER, and
    /// all addresses that are on the interfaces or about to be.
    pub(super) fn last_will(&self) -> (Vec<FinalAdvert>, Vec<(u32, IpPrefix)>) {
        let mut adverts = Vec::new();
        let mut addresses = Vec::new();
        for (id, instance) in &self.instances {
            let Some(status) = self.router.status(*id) else {
                continue;
            };
            let master = status.state == State::Master;
            if master || instance.holds {
                addresses.extend(instance.vips.iter().map(|vip| (vip.ifindex, vip.prefix)));
            }
            if !master {
                continue;
            }
            let packets = self.router.priority_zero(*id).into_iter();
            adverts.extend(packets.map(|(destination, packet)| FinalAdvert {
                ifindex: status.interface,
                destination,
                packet,
            }));
        }
        (adverts, addresses)
    }

    /// The instances, for `xvs vrrp`.
    pub(super) fn status(&self, now: Instant, wall: SystemTime) -> Vec<InstanceStatus> {
        let instances = self.instances.iter();
        instances
            .filter_map(|(id, instance)| {
                let status = self.router.status(*id)?;
                let elapsed = now - status.since;
                let since = wall.checked_sub(elapsed).unwrap_or(SystemTime::UNIX_EPOCH);
                let master = status.master.filter(|_| status.state == State::Backup);
                Some(InstanceStatus {
                    name: status.name.to_owned(),
                    interface: instance.interface.clone(),
                    vrid: status.vrid,
                    state: status.state.to_string(),
                    reason: status.fault.map(|fault| fault.on(&instance.interface)),
                    priority: status.priority,
                    for_seconds: elapsed.as_secs(),
                    since: humantime::format_rfc3339_seconds(since).to_string(),
                    master: master.map(IpAddr::V4),
                    addresses: instance.shown.clone(),
                    counters: counters(status.counters),
                })
            })
            .collect()
    }
}

/// An advert of priority 0, ready to be sent by whoever outlives the engine.
pub(super) struct FinalAdvert {
    /// The interface that it leaves by. Not its name, which may change.
    pub(super) ifindex: u32,
    pub(super) destination: Ipv4Addr,
    pub(super) packet: Vec<u8>,
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

fn is_master(router: &Router, id: InstanceId) -> bool {
    let status = router.status(id);
    status.is_some_and(|status| status.state == State::Master)
}

fn v4(addr: IpAddr) -> Option<Ipv4Addr> {
    match addr {
        IpAddr::V4(addr) => Some(addr),
        IpAddr::V6(_) => None,
    }
}

fn vip(address: &config::VirtualAddress, device: &Link) -> Vip {
    Vip {
        ifindex: device.index,
        prefix: address.prefix,
        device: device.name.clone(),
        options: AddressOptions {
            label: address.label.clone(),
            scope: match address.scope {
                0 => Scope::Global,
                200 => Scope::Site,
                253 => Scope::Link,
                254 => Scope::Host,
                other => Scope::Other(other),
            },
            broadcast: address.broadcast,
            peer: address.peer.map(IpPrefix::addr),
            no_prefix_route: address.noprefixroute,
        },
        no_track: address.no_track,
    }
}

fn settings(
    config: &config::Config,
    instance: &config::VrrpInstance,
    interface: u32,
    primary: Option<Ipv4Addr>,
) -> Settings {
    let addresses = instance.virtual_ipaddress.iter();
    let rounds = |repeat: u32| u8::try_from(repeat).unwrap_or(u8::MAX);
    let garp = &instance.garp;
    let transport = match &instance.transport {
        config::Transport::Multicast { group } => Transport::Multicast {
            group: v4(*group).unwrap_or(VrrpSocket::GROUP),
        },
        config::Transport::Unicast {
            peers,
            ttl,
            check_source,
        } => Transport::Unicast {
            peers: peers.iter().filter_map(|peer| v4(peer.addr)).collect(),
            ttl: *ttl,
            check_source: *check_source,
        },
    };
    let password = match &instance.authentication {
        Some(config::Authentication::Pass(password)) => Some(*password.bytes()),
        _ => None,
    };
    Settings {
        priority: instance.priority,
        advert_interval: instance.advert_int,
        preempt: instance.preempt,
        preempt_delay: instance.preempt_delay,
        password,
        addresses: addresses.filter_map(|vip| v4(vip.prefix.addr())).collect(),
        interface_name: instance.interface.clone(),
        track_link: !instance.dont_track_primary,
        primary_fixed: instance.source.is_some(),
        transport,
        garp: GarpSettings {
            master_delay: garp.master_delay,
            master_repeat: rounds(garp.master_repeat),
            master_refresh: garp.master_refresh,
            master_refresh_repeat: rounds(garp.master_refresh_repeat),
            lower_prio_delay: garp.lower_prio_delay,
            lower_prio_repeat: rounds(garp.lower_prio_repeat),
        },
        down_timer_adverts: instance.down_timer_adverts,
        skip_check_addresses: instance.skip_check_adv_addr,
        startup_delay: config.global.vrrp_startup_delay,
        lower_prio_no_advert: instance.lower_prio_no_advert,
        higher_prio_send_advert: instance.higher_prio_send_advert,
        ..Settings::new(
            &instance.name,
            interface,
            instance.virtual_router_id,
            primary,
        )
    }
}

fn add(name: &str, vip: &Vip, env: &mut Env<'_>) {
    match env
        .netlink
        .add_address(vip.ifindex, vip.prefix, &vip.options)
    {
        Ok(Added::Added | Added::AlreadyThere) => {}
        Err(error) => env.say(format_args!("({name}) {error}")),
    }
}

fn say_put_back(name: &str, vip: &Vip, unsaid: u64, env: &mut Env<'_>) {
    let Vip { prefix, device, .. } = vip;
    let line = format!("({name}) somebody removed {prefix} from {device}, putting it back");
    match unsaid {
        0 => env.say(line),
        _ => env.say(format_args!(
            "{line} ({unsaid} more since this was last said)"
        )),
    }
}

fn remove(name: &str, vip: &Vip, env: &mut Env<'_>) {
    if let Err(error) = env.netlink.del_address(vip.ifindex, vip.prefix) {
        env.say(format_args!("({name}) {error}"));
    }
}

fn remove_leftovers(name: &str, vips: &[Vip], env: &mut Env<'_>) {
    use crate::sys::netlink::Removed;
    for vip in vips {
        match env.netlink.del_address(vip.ifindex, vip.prefix) {
            Ok(Removed::NotThere) => {}
            Ok(Removed::Removed) => env.say(format_args!(
                "({name}) removed {} from {}: an earlier run left it",
                vip.prefix, vip.device
            )),
            Err(error) => env.say(format_args!("({name}) {error}")),
        }
    }
}

fn counters(counters: &crate::vrrp::Counters) -> Vec<NamedCount> {
    let named = [
        ("adverts-received", counters.adverts_received),
        ("adverts-sent", counters.adverts_sent),
        ("became-master", counters.became_master),
        ("released-master", counters.released_master),
        ("priority-zero-received", counters.priority_zero_received),
        ("priority-zero-sent", counters.priority_zero_sent),
        ("late-adverts", counters.late_adverts),
        ("garp-sets", counters.garp_sets),
    ];
    let named = named
        .map(|(name, count)| (name.to_owned(), count))
        .into_iter();
    let rejected = RejectReason::ALL
        .iter()
        .map(|reason| {
            (
                format!("rejected-{}", reason.name()),
                counters.rejected(*reason),
            )
        })
        .filter(|(_, count)| *count > 0);
    named
        .chain(rejected)
        .map(|(name, count)| NamedCount { name, count })
        .collect()
}

#[cfg(test)]
mod tests;
