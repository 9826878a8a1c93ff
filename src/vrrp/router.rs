//! All instances of a host: finds the one a packet or event is for, and queues what they want.

use std::{
    collections::{BTreeMap, VecDeque},
    net::Ipv4Addr,
};

use super::{
    Counters, FaultReason, LogLine, RejectReason, State,
    instance::Instance,
    links::{LinkState, Links},
    settings::{Settings, SettingsError},
};
use crate::{
    time::Instant,
    wire::vrrp::{self, Datagram},
};

/// An instance, for as long as it exists. Numbers are not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId(u32);

/// What an instance wants done, to be carried out in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send this packet by the instance's interface.
    Send {
        /// The group or a peer.
        destination: Ipv4Addr,
        /// The whole IPv4 packet, header included, checksums filled in.
        packet: Vec<u8>,
    },
    /// Put the virtual addresses (the excluded ones too) on their interfaces, now and whenever
    /// they are others or missing, until they are to be taken off. Those that are there already stay.
    AddAddresses,
    /// Take them off. Those that are not there are not missed.
    RemoveAddresses,
    /// Announce the virtual addresses by gratuitous ARP: in each round one frame an address,
    /// first those in adverts, then the excluded ones.
    GratuitousArp {
        /// Rounds, at least 1.
        rounds: u8,
        /// The addresses are new on this host (MASTER just now), which is worth a line; all further
        /// sets are only counted.
        first: bool,
    },
    /// The state has changed: run notify scripts, start or stop what depends on it. Comes after
    /// all other actions of the change. INIT means stopped.
    Entered {
        /// The state before.
        from: State,
        /// The state now.
        to: State,
    },
    /// Write this line.
    Log(LogLine),
}

/// What became of a received packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reception {
    /// It is an advert for this instance and was acted upon (or tolerated).
    Accepted(InstanceId),
    /// It was refused, counted, and changed nothing else.
    Rejected(RejectReason),
}

/// What there is to show of an instance.
#[derive(Clone, Debug)]
pub struct Status<'a> {
    /// Name of the instance.
    pub name: &'a str,
    /// The interface, as the settings gave it.
    pub interface: u32,
    /// Virtual router ID.
    pub vrid: u8,
    /// State.
    pub state: State,
    /// Why it is in FAULT, as of now; `None` in other states.
    pub fault: Option<FaultReason>,
    /// Effective priority: with the weights of the trackers.
    pub priority: u8,
    /// Priority as configured.
    pub base_priority: u8,
    /// When the state was entered.
    pub since: Instant,
    /// Address of the MASTER as far as known; our own while MASTER.
    pub master: Option<Ipv4Addr>,
    /// The priority that the MASTER has announced last; 0 where there is none, and while MASTER.
    pub master_priority: u8,
    /// The counters.
    pub counters: &'a Counters,
}

/// The VRRP instances of a host.
#[derive(Default)]
pub struct Router {
    instances: BTreeMap<InstanceId, Instance>,
    by_key: BTreeMap<(u32, u8), InstanceId>,
    next_id: u32,
    actions: VecDeque<(InstanceId, Action)>,
    links: Links,
    /// Packets that no instance could be blamed for.
    strays: Counters,
}

impl Router {
    /// A host without instances.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an instance in INIT. Tell about its interfaces
    /// ([`handle_link`](Self::handle_link)) if they are not up, then [`start`](Self::start) it.
    pub fn add(&mut self, settings: Settings, now: Instant) -> Result<InstanceId, SettingsError> {
        settings.check()?;
        let key = (settings.interface, settings.vrid);
        if let Some(other) = self.by_key.get(&key).and_then(|id| self.instances.get(id)) {
            return Err(SettingsError::Duplicate(other.settings.name.clone()));
        }
        let id = InstanceId(self.next_id);
        self.next_id += 1;
        self.by_key.insert(key, id);
        let mut instance = Instance::new(id, settings, now);
        instance.look_at(&self.links);
        self.instances.insert(id, instance);
        Ok(id)
    }

    /// Lets an instance take part: it goes to BACKUP (or FAULT), after the startup delay.
    pub fn start(&mut self, id: InstanceId, now: Instant) {
        if let Some(instance) = self.instances.get_mut(&id) {
            instance.start(now, &mut self.actions);
        }
    }

    /// Gives an instance new settings (a reload). Its state goes on, and a MASTER advertises at once.
    /// That its addresses are others is the caller's to carry out, who knows the excluded ones too.
    ///
    /// # Errors
    /// What cannot be, or what would make it another instance; nothing has changed then.
    pub fn update(
        &mut self,
        id: InstanceId,
        settings: Settings,
        now: Instant,
    ) -> Result<(), SettingsError> {
        settings.check()?;
        let instance = self.instances.get_mut(&id).ok_or(SettingsError::Unknown)?;
        let old = &instance.settings;
        if (old.interface, old.vrid) != (settings.interface, settings.vrid) {
            return Err(SettingsError::Moved);
        }
        instance.update(now, settings, &self.links, &mut self.actions);
        Ok(())
    }

    /// Stops an instance as [`handle_stop`](Self::handle_stop) does, and forgets it.
    pub fn remove(&mut self, id: InstanceId, now: Instant) {
        if let Some(mut instance) = self.instances.remove(&id) {
            let settings = &instance.settings;
            self.by_key.remove(&(settings.interface, settings.vrid));
            instance.say_goodbye(&mut self.actions);
            instance.finish(now, &mut self.actions);
        }
    }

    /// Judges an IPv4 packet that was received on `interface`, header included. What follows the
    /// header's total length (Ethernet padding) is not looked at.
    pub fn handle_packet(&mut self, now: Instant, interface: u32, packet: &[u8]) -> Reception {
        let Some(datagram) = Datagram::parse(packet) else {
            return self.stray(RejectReason::Malformed);
        };
        if datagram.protocol != vrrp::PROTOCOL {
            return self.stray(RejectReason::Protocol);
        }
        let Some(vrid) = vrrp::vrid(datagram.payload) else {
            return self.stray(RejectReason::Malformed);
        };
        let id = self.by_key.get(&(interface, vrid));
        let Some(instance) = id.and_then(|id| self.instances.get_mut(id)) else {
            return self.stray(RejectReason::UnknownVrid);
        };
        instance.handle_datagram(now, &datagram, &mut self.actions)
    }

    /// Does what is due. Early and repeated calls are harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        for instance in self.instances.values_mut() {
            instance.handle_timeout(now, &mut self.actions);
        }
    }

    /// What became of an interface. They count as up until this says otherwise. Also for one that
    /// is there again, or in whose place there is another: whoever was MASTER is elected anew.
    pub fn handle_link(&mut self, now: Instant, interface: u32, state: LinkState) {
        self.links.set(interface, state);
        for instance in self.instances.values_mut() {
            let settings = &instance.settings;
            let mut further = settings.further_interfaces.iter();
            if settings.interface == interface || further.any(|(number, _)| *number == interface) {
                instance.handle_links(now, &self.links, &mut self.actions);
            }
        }
    }

    /// An interface has no instance any more, and its number is given up.
    pub fn forget_link(&mut self, interface: u32) {
        self.links.forget(interface);
    }

    /// Something beside interfaces and addresses keeps an instance from taking part, or nothing does
    /// any more. It is shown as the reason of FAULT.
    pub fn set_obstacle(&mut self, id: InstanceId, now: Instant, obstacle: Option<String>) {
        if let Some(instance) = self.instances.get_mut(&id) {
            instance.set_obstacle(now, obstacle, &mut self.actions);
        }
    }

    /// The interface has another first address, or none. Instances with a configured source
    /// address are not concerned.
    pub fn handle_primary(&mut self, now: Instant, interface: u32, primary: Option<Ipv4Addr>) {
        for instance in on_interface(&mut self.instances, interface) {
            instance.handle_primary(now, primary, &mut self.actions);
        }
    }

    /// An interface with virtual addresses of this instance has another link-layer address, which
    /// as MASTER it makes known.
    pub fn handle_new_mac(&mut self, id: InstanceId) {
        if let Some(instance) = self.instances.get_mut(&id) {
            instance.handle_new_mac(&mut self.actions);
        }
    }

    /// The trackers' weights add up to `weight`. The sum with the priority is held within 1 to
    /// 254; the address owner is immune.
    pub fn set_weight(&mut self, id: InstanceId, weight: i32) {
        if let Some(instance) = self.instances.get_mut(&id) {
            instance.set_weight(weight, &mut self.actions);
        }
    }

    /// Orderly stop: every MASTER sends priority 0, then addresses are removed. All instances
    /// end in INIT, and [`start`](Self::start) would begin again.
    pub fn handle_stop(&mut self, now: Instant) {
        for instance in self.instances.values_mut() {
            instance.say_goodbye(&mut self.actions);
        }
        for instance in self.instances.values_mut() {
            instance.finish(now, &mut self.actions);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.instances
            .values()
            .filter_map(Instance::poll_timeout)
            .min()
    }

    /// The next thing to do, oldest first. Ids of instances that have been removed may come up.
    pub fn poll_action(&mut self) -> Option<(InstanceId, Action)> {
        self.actions.pop_front()
    }

    /// Whether addresses are among what [`poll_action`](Self::poll_action) will want added: the last
    /// moment to prepare for it.
    pub fn is_about_to_add(&self) -> bool {
        let mut actions = self.actions.iter();
        actions.any(|(_, action)| matches!(action, Action::AddAddresses))
    }

    /// The priority 0 adverts by which an instance would give way now, for whoever has to send them
    /// when this process cannot any more. Nothing is counted or changed.
    pub fn priority_zero(&self, id: InstanceId) -> Vec<(Ipv4Addr, Vec<u8>)> {
        self.instances
            .get(&id)
            .map_or_else(Vec::new, |instance| instance.adverts(0))
    }

    /// What there is to show of one instance.
    pub fn status(&self, id: InstanceId) -> Option<Status<'_>> {
        self.instances.get(&id).map(|instance| Status {
            name: &instance.settings.name,
            interface: instance.settings.interface,
            vrid: instance.settings.vrid,
            state: instance.state,
            fault: instance.fault().filter(|_| instance.state == State::Fault),
            priority: instance.priority,
            base_priority: instance.settings.priority,
            since: instance.since,
            master: instance.master,
            master_priority: match instance.state {
                State::Backup if instance.master.is_some() => instance.master_priority,
                _ => 0,
            },
            counters: &instance.counters,
        })
    }

    /// Sets the counters of all instances to zero.
    pub fn clear_counters(&mut self) {
        for instance in self.instances.values_mut() {
            instance.counters = Counters::default();
        }
        self.strays = Counters::default();
    }

    /// All instances, in the order they were added.
    pub fn instances(&self) -> impl Iterator<Item = InstanceId> + '_ {
        self.instances.keys().copied()
    }

    /// Packets refused for a reason that concerns no instance.
    pub const fn strays(&self, reason: RejectReason) -> u64 {
        self.strays.rejected(reason)
    }

    fn stray(&mut self, reason: RejectReason) -> Reception {
        self.strays.reject(reason);
        Reception::Rejected(reason)
    }
}

fn on_interface(
    instances: &mut BTreeMap<InstanceId, Instance>,
    interface: u32,
) -> impl Iterator<Item = &mut Instance> {
    instances
        .values_mut()
        .filter(move |instance| instance.settings.interface == interface)
}
