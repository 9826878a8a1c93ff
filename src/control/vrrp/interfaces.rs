//! The interfaces that the configuration names, whatever becomes of them.
//!
//! The name in the configuration is what counts, as with keepalived: an interface that is renamed is
//! not it any more, and one that is made anew under the name is. What is open belongs to one interface of
//! the kernel, so for another one everything is opened anew: sockets, and the locks of the instances.

use std::{collections::BTreeSet, net::Ipv4Addr};

use mio::Token;

use super::{
    super::log::Level,
    Env, RETRY, Vrrp,
    addresses::remove_leftovers,
    host::{Host, Sockets},
    v4,
};
use crate::{
    sys::{
        instance_lock::{VridFamily, VridLock},
        netlink::Link,
    },
    time::Instant,
    vrrp::LinkState,
};

/// An interface of the configuration.
pub(super) struct Interface {
    pub(super) name: String,
    /// As it was last seen; `None` while there is none of this name.
    pub(super) link: Option<Link>,
    /// `None` while there is no interface, or it could not be opened. After a change of name they are
    /// kept until the goodbyes are sent.
    pub(super) sockets: Option<Box<dyn Sockets>>,
    /// Why it could not be opened.
    pub(super) error: Option<String>,
    /// The host's own address on it.
    pub(super) primary: Option<Ipv4Addr>,
}

impl Interface {
    pub(super) fn is_usable(&self) -> bool {
        self.link.as_ref().is_some_and(Link::is_usable)
    }
}

fn state_of(link: &Link) -> LinkState {
    if link.is_usable() {
        LinkState::Up
    } else {
        LinkState::Down
    }
}

impl Vrrp {
    /// The number of the interface called `name`. It is opened later, by [`Self::refresh`].
    pub(super) fn number(&mut self, name: &str, env: &mut Env<'_, impl Host>) -> u32 {
        if let Some(number) = self.number_of(name) {
            return number;
        }
        let link = env.host.link(name).unwrap_or_else(|error| {
            env.say(Level::Error, error);
            None
        });
        let number = self.next_interface;
        self.next_interface += 1;
        let state = link.as_ref().map_or(LinkState::Missing, state_of);
        self.router.handle_link(env.now, number, state);
        self.interfaces.insert(
            number,
            Interface {
                name: name.to_owned(),
                link,
                sockets: None,
                error: None,
                primary: None,
            },
        );
        number
    }

    fn number_of(&self, name: &str) -> Option<u32> {
        let mut all = self.interfaces.iter();
        all.find(|(_, interface)| interface.name == name)
            .map(|(number, _)| *number)
    }

    /// The number of the interface that has this index now.
    pub(super) fn number_at(&self, ifindex: u32) -> Option<u32> {
        let mut all = self.interfaces.iter();
        all.find(|(_, interface)| {
            let link = interface.link.as_ref();
            link.is_some_and(|link| link.index == ifindex)
        })
        .map(|(number, _)| *number)
    }

    /// An interface of the host is new or changed.
    pub(in crate::control) fn handle_link(&mut self, env: &mut Env<'_, impl Host>, link: &Link) {
        let before = self.number_at(link.index);
        let before = before.filter(|number| self.interfaces[number].name != link.name);
        if let Some(number) = before {
            let name = &self.interfaces[&number].name;
            env.say(
                Level::Warning,
                format_args!("{name} was renamed to {}", link.name),
            );
            self.lose(env.now, number, LinkState::Renamed);
        }
        let Some(number) = self.number_of(&link.name) else {
            return;
        };
        let former = self.interfaces[&number].link.clone();
        match former {
            Some(former) if former.index == link.index => self.renew(env, number, &former, link),
            Some(_) => {
                env.say(
                    Level::Notice,
                    format_args!("{} is another interface now", link.name),
                );
                self.lose(env.now, number, LinkState::Missing);
                self.gain(env, number, link);
            }
            None => {
                env.say(Level::Notice, format_args!("{} is there", link.name));
                self.gain(env, number, link);
            }
        }
    }

    /// An interface of the host is gone: deleted, or moved to another network namespace.
    pub(in crate::control) fn handle_link_removed(
        &mut self,
        env: &mut Env<'_, impl Host>,
        link: &Link,
    ) {
        if let Some(number) = self.number_at(link.index) {
            let name = &self.interfaces[&number].name;
            env.say(Level::Warning, format_args!("{name} is gone"));
            self.lose(env.now, number, LinkState::Missing);
        }
    }

    /// What was told of interfaces was not all. `links` are all that exist now. Those that seem to be
    /// the same may be others meanwhile, with the same index, so everything is opened anew.
    pub(in crate::control) fn handle_links(
        &mut self,
        env: &mut Env<'_, impl Host>,
        links: &[Link],
    ) {
        let known = self.interfaces.values();
        let known: Vec<Link> = known
            .filter_map(|interface| interface.link.clone())
            .collect();
        for link in &known {
            if links.iter().all(|other| other.index != link.index) {
                self.handle_link_removed(env, link);
            }
        }
        for link in links {
            self.handle_link(env, link);
        }
        for link in &known {
            let same = links.iter().find(|other| other.index == link.index);
            let number = self.number_at(link.index);
            if let (Some(same), Some(number)) = (same, number)
                && same.name == link.name
            {
                self.gain(env, number, same);
            }
        }
    }

    /// There is no interface of this name any more.
    fn lose(&mut self, now: Instant, number: u32, state: LinkState) {
        self.changed = true;
        if let Some(interface) = self.interfaces.get_mut(&number) {
            interface.link = None;
            interface.primary = None;
            interface.error = None;
            if state == LinkState::Missing {
                interface.sockets = None;
            }
        }
        for instance in self.instances.values_mut() {
            if instance.interface == number {
                instance.lock = None;
                instance.refused = None;
            }
            instance.unsettled |= instance.is_on(number);
        }
        self.router.handle_link(now, number, state);
        self.router.handle_primary(now, number, None);
        self.tell_obstacles(now, number);
    }

    /// There is an interface of this name that was not there before.
    fn gain(&mut self, env: &mut Env<'_, impl Host>, number: u32, link: &Link) {
        self.changed = true;
        if let Some(interface) = self.interfaces.get_mut(&number) {
            interface.link = Some(link.clone());
            interface.sockets = None;
        }
        for instance in self.instances.values_mut() {
            instance.unsettled |= instance.is_on(number);
        }
        self.refresh(env, number);
    }

    /// The interface is the same, in another state.
    fn renew(&mut self, env: &mut Env<'_, impl Host>, number: u32, former: &Link, link: &Link) {
        if let Some(interface) = self.interfaces.get_mut(&number) {
            interface.link = Some(link.clone());
        }
        self.router.handle_link(env.now, number, state_of(link));
        if link.mac == former.mac {
            return;
        }
        for (id, instance) in &self.instances {
            if instance.vips.iter().any(|vip| vip.interface == number) {
                self.router.handle_new_mac(*id);
            }
        }
    }

    /// Opens what the configuration asks for on an interface, as far as it is not open, and looks
    /// at its addresses.
    pub(super) fn refresh(&mut self, env: &mut Env<'_, impl Host>, number: u32) {
        let Some(link) = self.link(number).cloned() else {
            return;
        };
        let error = self.open(env, number, &link).err();
        if let Some(interface) = self.interfaces.get_mut(&number) {
            interface.error = error;
        }
        self.lock(&link, number);
        let vips = self.instances.values().flat_map(|instance| {
            let vips = instance.vips.iter();
            vips.map(|vip| (instance.name.as_str(), vip))
        });
        let vips = vips.filter(|(_, vip)| vip.interface == number);
        remove_leftovers(&self.addresses, env, link.index, vips);
        self.learn_primary(env, number);
        self.tell_obstacles(env.now, number);
        self.router.handle_link(env.now, number, state_of(&link));
        self.retry_at = self
            .is_hindered()
            .then(|| *self.retry_at.get_or_insert(env.now + RETRY));
    }

    fn open(
        &mut self,
        env: &mut Env<'_, impl Host>,
        number: u32,
        link: &Link,
    ) -> Result<(), String> {
        let failed = |what: &str| {
            let what = format!("opening {what} on {}", link.name);
            move |error: std::io::Error| format!("{what}: {error}")
        };
        let Some(interface) = self.interfaces.get_mut(&number) else {
            return Ok(());
        };
        let sockets = match &mut interface.sockets {
            Some(sockets) => sockets,
            none => none.insert(env.host.open(link).map_err(failed("a packet socket"))?),
        };
        let instances = self.instances.values();
        let mut on = instances
            .filter(|instance| instance.interface == number && !instance.removed)
            .peekable();
        if on.peek().is_none() {
            return Ok(());
        }
        let groups: BTreeSet<Ipv4Addr> = on.filter_map(|instance| instance.group()).collect();
        let token = Token(self.first_token + number as usize);
        sockets
            .listen(link, &groups, (&self.registry, token))
            .map_err(failed("a VRRP socket"))
    }

    /// Takes the virtual routers of an interface for this process.
    fn lock(&mut self, link: &Link, number: u32) {
        let instances = self.instances.values_mut();
        for instance in instances.filter(|instance| instance.interface == number) {
            if instance.lock.is_some() || instance.removed {
                continue;
            }
            match VridLock::acquire(link, VridFamily::V4, instance.settings.vrid) {
                Ok(lock) => {
                    instance.lock = Some(lock);
                    instance.refused = None;
                }
                Err(error) => instance.refused = Some(error.to_string()),
            }
        }
    }

    /// The address that adverts come from by an interface. Virtual ones are none of the host's own.
    pub(super) fn learn_primary(&mut self, env: &mut Env<'_, impl Host>, number: u32) {
        let Some(ifindex) = self.link(number).map(|link| link.index) else {
            return;
        };
        let instances = self.instances.values();
        let configured = instances.flat_map(|instance| &instance.vips);
        let configured = configured.filter(|vip| vip.interface == number);
        let configured = configured.map(|vip| vip.prefix);
        let still_there = self.addresses.places().filter(|(on, _)| *on == ifindex);
        let vips: Vec<Ipv4Addr> = configured
            .chain(still_there.map(|(_, prefix)| prefix))
            .filter_map(|prefix| v4(prefix.addr()))
            .collect();
        match env.host.primary_v4(ifindex, &vips) {
            Ok(primary) => {
                if let Some(interface) = self.interfaces.get_mut(&number) {
                    self.changed |= interface.primary != primary;
                    interface.primary = primary;
                }
                self.router.handle_primary(env.now, number, primary);
            }
            Err(error) => env.say(Level::Error, error),
        }
    }

    /// Tells the router what keeps the instances of an interface from taking part beside links and
    /// addresses.
    fn tell_obstacles(&mut self, now: Instant, number: u32) {
        let Self {
            router,
            instances,
            interfaces,
            ..
        } = self;
        for (id, instance) in instances.iter().filter(|(_, one)| one.is_on(number)) {
            let mut errors = instance
                .interfaces()
                .filter_map(|number| interfaces.get(&number)?.error.as_ref());
            let obstacle = instance.refused.as_ref().or_else(|| errors.next());
            router.set_obstacle(*id, now, obstacle.cloned());
        }
    }

    /// Whether something could not be opened, and is to be tried again.
    fn is_hindered(&self) -> bool {
        let mut interfaces = self.interfaces.values();
        let mut instances = self.instances.values();
        interfaces.any(|interface| interface.error.is_some())
            || instances.any(|instance| instance.refused.is_some())
    }

    /// Tries again what could not be opened.
    pub(super) fn retry(&mut self, env: &mut Env<'_, impl Host>) {
        if self.retry_at.is_none_or(|at| at > env.now) {
            return;
        }
        self.retry_at = None;
        let numbers: Vec<u32> = self.interfaces.keys().copied().collect();
        for number in numbers {
            let mut instances = self.instances.values();
            let refused = instances
                .any(|instance| instance.interface == number && instance.refused.is_some());
            if refused || self.interfaces[&number].error.is_some() {
                self.refresh(env, number);
            }
        }
    }

    pub(super) fn link(&self, number: u32) -> Option<&Link> {
        self.interfaces.get(&number)?.link.as_ref()
    }
}
