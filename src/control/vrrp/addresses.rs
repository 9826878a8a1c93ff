//! The virtual addresses that this host is to have now, and what the kernel made of it: one owner for
//! all instances, so that an address that two of them have goes when the last one lets go of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{
    super::{log::Level, repeats::Reports},
    Env,
    host::Host,
    put_back::{Missing, PutBacks},
};
use crate::{
    addr::IpPrefix,
    sys::netlink::{Address, AddressOptions, Removed},
    time::Instant,
    vrrp::InstanceId,
};

/// An address on an interface, by its index.
pub(super) type Place = (u32, IpPrefix);

/// A virtual address of the configuration, and where it goes while its instance is MASTER.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Vip {
    /// The interface, by its number in [`super::interfaces`].
    pub(super) interface: u32,
    /// The name of the interface.
    pub(super) device: String,
    pub(super) prefix: IpPrefix,
    pub(super) options: AddressOptions,
    /// Whether it is not put back when somebody takes it off.
    pub(super) no_track: bool,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Addresses {
    entries: BTreeMap<Place, Entry>,
    /// How many places an address has on an interface that instances hold.
    held: BTreeMap<(IpAddr, u32), usize>,
    put_backs: PutBacks,
    reports: Reports<Place>,
}

#[derive(Debug)]
struct Entry {
    vip: Vip,
    /// Name of the instance that last wanted it, for messages.
    instance: String,
    /// The instances that want it. None: it is to go, which the kernel refused so far.
    holders: BTreeSet<InstanceId>,
    /// Why it is not as it should be.
    refused: Option<String>,
}

impl Addresses {
    /// Nothing is held.
    pub(super) const fn new() -> Self {
        Self {
            entries: BTreeMap::new(),
            held: BTreeMap::new(),
            put_backs: PutBacks::new(),
            reports: Reports::new(),
        }
    }

    /// Whether an instance holds this address, on any interface.
    pub(super) fn has(&self, address: IpAddr) -> bool {
        let mut places = self.held.range((address, 0)..=(address, u32::MAX));
        places.next().is_some()
    }

    /// Whether an instance holds this address on this interface.
    pub(super) fn has_on(&self, ifindex: u32, address: IpAddr) -> bool {
        self.held.contains_key(&(address, ifindex))
    }

    /// What is on interfaces because of us, or may be.
    pub(super) fn places(&self) -> impl Iterator<Item = Place> + '_ {
        self.entries.keys().copied()
    }

    /// What is not as instance `id` wants it, with the kernel's reason.
    pub(super) fn refused(&self, id: InstanceId) -> impl Iterator<Item = &str> {
        let entries = self.entries.values();
        entries
            .filter(move |entry| entry.holders.contains(&id))
            .filter_map(|entry| entry.refused.as_deref())
    }

    /// Whether the kernel has made of a place what was asked of it.
    pub(super) fn is_given(&self, place: Place) -> bool {
        let entry = self.entries.get(&place);
        entry.is_some_and(|entry| entry.refused.is_none())
    }

    /// From now on instance `id`, called `name`, wants `vip` on the interface with this index.
    pub(super) fn claim(
        &mut self,
        env: &mut Env<'_, impl Host>,
        (id, name): (InstanceId, &str),
        ifindex: u32,
        vip: &Vip,
    ) {
        let place = (ifindex, vip.prefix);
        let former = self.entries.insert(
            place,
            Entry {
                vip: vip.clone(),
                instance: name.to_owned(),
                holders: BTreeSet::from([id]),
                refused: None,
            },
        );
        let Some(former) = former else {
            self.count(place, true);
            return self.put_on(env, place);
        };
        if former.holders.is_empty() {
            self.count(place, true);
        }
        if let Some(entry) = self.entries.get_mut(&place) {
            entry.holders.extend(former.holders);
            entry.refused = former.refused;
        }
        // The kernel has no way to change these. Off and on again is one moment.
        if former.vip.options != vip.options {
            let removed = env.host.remove_address(ifindex, vip.prefix).map(drop);
            self.note(env, place, removed);
        }
        self.put_on(env, place);
    }

    /// From now on instance `id` does not want this any more.
    pub(super) fn release(&mut self, env: &mut Env<'_, impl Host>, id: InstanceId, place: Place) {
        let Some(entry) = self.entries.get_mut(&place) else {
            return;
        };
        if entry.holders.remove(&id) && entry.holders.is_empty() {
            self.count(place, false);
            self.take_off(env, place);
        }
    }

    /// Makes an interface as it should be, which has `present` and is usable or not. What is missing
    /// and was put back: to be announced.
    pub(super) fn reconcile(
        &mut self,
        env: &mut Env<'_, impl Host>,
        ifindex: u32,
        present: &[Address],
        usable: bool,
    ) -> Vec<IpAddr> {
        let present: BTreeSet<IpPrefix> = present.iter().map(|address| address.prefix).collect();
        let mut restored = Vec::new();
        for place in self.places_of(ifindex) {
            let Some(entry) = self.entries.get_mut(&place) else {
                continue;
            };
            let is_there = present.contains(&place.1);
            let wanted = !entry.holders.is_empty();
            if wanted == is_there {
                if entry.refused.is_some() {
                    self.note(env, place, Ok(()));
                }
                if !wanted {
                    self.forget(place);
                }
                continue;
            }
            let tracked = !entry.vip.no_track || entry.refused.is_some();
            if wanted && !(usable && tracked) {
                continue;
            }
            let refused = entry.refused.is_some();
            match self.put_backs.missing(env.now, place) {
                Missing::Wait => continue,
                Missing::RestoreAndSay(unsaid) if wanted && !refused => entry.say(env, unsaid),
                Missing::Restore | Missing::RestoreAndSay(_) => {}
            }
            if wanted {
                self.put_on(env, place);
                let refused = self.entries.get(&place).map(|entry| &entry.refused);
                restored.extend((refused == Some(&None)).then(|| place.1.addr()));
            } else {
                self.take_off(env, place);
            }
        }
        restored
    }

    /// The interfaces to look at again now, for [`Self::reconcile`].
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<u32> {
        self.put_backs.take_due(now)
    }

    /// When there is something to look at again.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.put_backs.poll_timeout()
    }

    fn places_of(&self, ifindex: u32) -> Vec<Place> {
        let places = self.entries.keys();
        let places = places.filter(|(on, _)| *on == ifindex);
        places.copied().collect()
    }

    fn put_on(&mut self, env: &mut Env<'_, impl Host>, place: Place) {
        let Some(entry) = self.entries.get(&place) else {
            return;
        };
        let added = env.host.add_address(place.0, place.1, &entry.vip.options);
        self.note(env, place, added.map(drop));
    }

    fn take_off(&mut self, env: &mut Env<'_, impl Host>, place: Place) {
        let removed = env.host.remove_address(place.0, place.1);
        let done = removed.is_ok();
        self.note(env, place, removed.map(drop));
        if done {
            self.forget(place);
        }
    }

    fn forget(&mut self, place: Place) {
        self.entries.remove(&place);
        self.put_backs.forget(place);
    }

    /// Takes note of what the kernel said, and sees to it that a refusal is not the last word.
    fn note(&mut self, env: &mut Env<'_, impl Host>, place: Place, outcome: Result<(), String>) {
        let Some(entry) = self.entries.get_mut(&place) else {
            return;
        };
        let (prefix, Entry { vip, instance, .. }) = (place.1, &*entry);
        let what = format_args!("({instance}) {prefix} on {}", vip.device);
        let line = self
            .reports
            .note(env.now, place, outcome.as_ref().copied(), what);
        if let Some(line) = line {
            env.say(line.level, line);
        }
        entry.refused = outcome.err();
        if entry.refused.is_some() {
            self.put_backs.failed(env.now, place);
        }
    }

    fn count(&mut self, (ifindex, prefix): Place, held: bool) {
        let key = (prefix.addr(), ifindex);
        let count = self.held.entry(key).or_default();
        if held {
            *count += 1;
        } else {
            *count = count.saturating_sub(1);
        }
        if *count == 0 {
            self.held.remove(&key);
        }
    }
}

impl Entry {
    /// Says that it is put back; that many times it was not said.
    fn say(&self, env: &mut Env<'_, impl Host>, unsaid: u64) {
        let Self { vip, instance, .. } = self;
        let Vip { prefix, device, .. } = vip;
        let line = format!("({instance}) somebody removed {prefix} from {device}, putting it back");
        match unsaid {
            0 => env.say(Level::Warning, line),
            _ => env.say(
                Level::Warning,
                format_args!("{line} ({unsaid} more since this was last said)"),
            ),
        }
    }
}

/// Takes off what an earlier run left: those of `vips` that the interface has and nobody holds.
pub(super) fn remove_leftovers<'a>(
    addresses: &Addresses,
    env: &mut Env<'_, impl Host>,
    ifindex: u32,
    vips: impl Iterator<Item = (&'a str, &'a Vip)>,
) {
    let vips: Vec<_> = vips
        .filter(|(_, vip)| !addresses.entries.contains_key(&(ifindex, vip.prefix)))
        .collect();
    if vips.is_empty() {
        return;
    }
    let present = match env.host.addresses(ifindex) {
        Ok(present) => present,
        Err(error) => return env.say(Level::Error, error),
    };
    for (name, vip) in vips {
        let prefix = vip.prefix;
        if !present.iter().any(|address| address.prefix == prefix) {
            continue;
        }
        match env.host.remove_address(ifindex, prefix) {
            Ok(Removed::NotThere) => {}
            Ok(Removed::Removed) => env.say(
                Level::Notice,
                format_args!(
                    "({name}) removed {prefix} from {}: an earlier run left it",
                    vip.device
                ),
            ),
            Err(error) => env.say(Level::Error, format_args!("({name}) {error}")),
        }
    }
}
