//! A configuration, applied: the instances that run become those that it says.
//!
//! An instance is known by its interface and its VRID, as keepalived knows it: under another name it is
//! the same one and stays elected, on another interface or with another VRID it is another one, which
//! starts as BACKUP while the old one gives way. What is the same is left alone: no timer is
//! restarted and nothing is sent.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{super::log::Level, Env, Instance, Vrrp, addresses::Vip, host::Host, v4};
use crate::{
    addr::IpPrefix,
    config::{self, Config, VrrpInstance},
    sys::{
        instance_lock::{LockError, VridFamily, VridLock},
        netlink::{AddressOptions, Scope},
        vrrp_socket::VrrpSocket,
    },
    vrrp::{GarpSettings, InstanceId, Settings, Transport},
};

/// What an instance is known by. VRIDs of IPv4 only: those of IPv6 are others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Identity {
    interface: String,
    vrid: u8,
}

impl Identity {
    fn of(instance: &VrrpInstance) -> Self {
        Self {
            interface: instance.interface.clone(),
            vrid: instance.virtual_router_id,
        }
    }
}

impl Vrrp {
    /// Whether `config` can be applied. Nothing has changed afterwards.
    ///
    /// # Errors
    /// A sentence that names the instance and what is wrong: an interface that does not exist and was
    /// not there before (unless `dynamic_interfaces` says that it will come), or a virtual router that
    /// another process has.
    pub(in crate::control) fn check(
        &self,
        config: &Config,
        env: &mut Env<'_, impl Host>,
    ) -> Result<(), String> {
        let mut seen = BTreeSet::new();
        for instance in &config.vrrp_instances {
            let failed = |error: String| format!("({}) {error}", instance.name);
            let identity = Identity::of(instance);
            let settings = settings(config, instance);
            settings
                .check()
                .map_err(|error| failed(error.to_string()))?;
            self.check_interfaces(config, instance, env)
                .map_err(failed)?;
            let is_new = self.id_of(&identity).is_none();
            if is_new && let Ok(Some(link)) = env.host.link(&instance.interface) {
                // Let go of at once. Should somebody take it meanwhile, the instance waits in FAULT.
                VridLock::acquire(&link, VridFamily::V4, identity.vrid)
                    .map_err(|error: LockError| failed(error.to_string()))?;
            }
            if !seen.insert(identity) {
                return Err(failed(format!(
                    "virtual_router_id {} is used twice on {}",
                    instance.virtual_router_id, instance.interface
                )));
            }
        }
        Ok(())
    }

    fn check_interfaces(
        &self,
        config: &Config,
        instance: &VrrpInstance,
        env: &mut Env<'_, impl Host>,
    ) -> Result<(), String> {
        if config.global.dynamic_interfaces {
            return Ok(());
        }
        let addresses = addresses(instance).map(|address| &address.dev);
        for name in std::iter::once(&instance.interface).chain(addresses) {
            let mut known = self.interfaces.values();
            // One that has gone while this ran is waited for.
            if known.any(|interface| interface.name == *name) {
                continue;
            }
            if env.host.link(name)?.is_none() {
                return Err(format!(
                    "interface {name} does not exist; dynamic_interfaces in global_defs lets xvs wait for it"
                ));
            }
        }
        Ok(())
    }

    fn id_of(&self, identity: &Identity) -> Option<InstanceId> {
        let mut known = self.instances.iter();
        known
            .find(|(_, instance)| !instance.removed && self.identity(instance) == *identity)
            .map(|(id, _)| *id)
    }

    fn identity(&self, instance: &Instance) -> Identity {
        Identity {
            interface: instance.settings.interface_name.clone(),
            vrid: instance.settings.vrid,
        }
    }

    /// Makes of the instances that run those of `config`, which [`check`](Self::check) has seen:
    /// what is new is started, then what is gone is stopped. What that means for addresses is carried out by
    /// [`carry_out`](Self::carry_out). What cannot be opened or is not there is waited for in FAULT.
    pub(in crate::control) fn apply(&mut self, config: &Config, env: &mut Env<'_, impl Host>) {
        self.announcements
            .set_interval(config.global.vrrp_garp_interval);
        let known = self.instances.iter();
        let known = known.filter(|(_, instance)| !instance.removed);
        let mut gone: BTreeMap<Identity, InstanceId> = known
            .map(|(id, instance)| (self.identity(instance), *id))
            .collect();
        let mut added = Vec::new();
        let mut touched = BTreeSet::new();
        for instance in &config.vrrp_instances {
            match gone.remove(&Identity::of(instance)) {
                Some(id) => self.change(config, instance, id, env, &mut touched),
                None => added.extend(self.add(config, instance, env, &mut touched)),
            }
        }
        for number in touched {
            self.refresh(env, number);
        }
        if self.started {
            for id in added {
                self.router.start(id, env.now);
            }
            // An address owner takes over before the former instance lets go.
            self.router.handle_timeout(env.now);
        }
        for id in gone.into_values() {
            if let Some(instance) = self.instances.get_mut(&id) {
                instance.removed = true;
            }
            self.router.remove(id, env.now);
            self.changed = true;
        }
    }

    fn add(
        &mut self,
        config: &Config,
        instance: &VrrpInstance,
        env: &mut Env<'_, impl Host>,
        touched: &mut BTreeSet<u32>,
    ) -> Option<InstanceId> {
        let vips = self.vips(instance, env);
        let interface = self.number(&instance.interface, env);
        let mut settings = settings(config, instance);
        settings.interface = interface;
        settings.further_interfaces = further(interface, &vips);
        if self.started {
            // It is for what comes up together with the machine.
            settings.startup_delay = Duration::ZERO;
        }
        let id = match self.router.add(settings.clone(), env.now) {
            Ok(id) => id,
            Err(error) => {
                let text = format_args!("({}) {error}", instance.name);
                env.say(Level::Error, text);
                return None;
            }
        };
        let instance = Instance {
            name: instance.name.clone(),
            interface,
            settings,
            vips,
            holds: false,
            held: BTreeMap::new(),
            unsettled: false,
            lock: None,
            refused: None,
            removed: false,
        };
        touched.extend(instance.interfaces());
        self.instances.insert(id, instance);
        Some(id)
    }

    fn change(
        &mut self,
        config: &Config,
        instance: &VrrpInstance,
        id: InstanceId,
        env: &mut Env<'_, impl Host>,
        touched: &mut BTreeSet<u32>,
    ) {
        let vips = self.vips(instance, env);
        let Some(former) = self.instances.get_mut(&id) else {
            return;
        };
        let mut settings = settings(config, instance);
        settings.interface = former.interface;
        settings.further_interfaces = further(former.interface, &vips);
        settings.startup_delay = former.settings.startup_delay;
        if former.vips == vips && former.settings == settings {
            return;
        }
        self.changed = true;
        touched.extend(former.interfaces());
        former.name.clone_from(&instance.name);
        former.unsettled |= former.vips != vips;
        former.vips = vips;
        touched.extend(former.interfaces());
        if former.settings == settings {
            return;
        }
        former.settings = settings.clone();
        if !settings.primary_fixed {
            let interface = self.interfaces.get(&former.interface);
            settings.primary = interface.and_then(|interface| interface.primary);
        }
        if let Err(error) = self.router.update(id, settings, env.now) {
            let text = format_args!("({}) {error}", instance.name);
            env.say(Level::Error, text);
        }
    }

    fn vips(&mut self, instance: &VrrpInstance, env: &mut Env<'_, impl Host>) -> Vec<Vip> {
        addresses(instance)
            .map(|address| Vip {
                interface: self.number(&address.dev, env),
                device: address.dev.clone(),
                prefix: address.prefix,
                options: options(address),
                no_track: address.no_track,
            })
            .collect()
    }
}

/// All virtual addresses, those in adverts first.
fn addresses(instance: &VrrpInstance) -> impl Iterator<Item = &config::VirtualAddress> {
    let listed = instance.virtual_ipaddress.iter();
    listed.chain(&instance.virtual_ipaddress_excluded)
}

/// The interfaces of tracked addresses that are not the instance's own, each once.
fn further(own: u32, vips: &[Vip]) -> Vec<(u32, String)> {
    let tracked = vips
        .iter()
        .filter(|vip| !vip.no_track && vip.interface != own);
    let further: BTreeMap<u32, String> = tracked
        .map(|vip| (vip.interface, vip.device.clone()))
        .collect();
    further.into_iter().collect()
}

fn options(address: &config::VirtualAddress) -> AddressOptions {
    AddressOptions {
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
    }
}

/// What the configuration says of an instance. Its interfaces have no numbers yet, and its source
/// address is only there where it is configured.
fn settings(config: &Config, instance: &VrrpInstance) -> Settings {
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
            0,
            instance.virtual_router_id,
            instance.source.and_then(v4),
        )
    }
}
