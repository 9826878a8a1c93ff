//! `mh`: Maglev hashing. A table that every box fills alike from the same real servers, so that a
//! client keeps its real server when another box takes over, and most clients keep theirs when a
//! real server comes or goes.
//!
//! Every real server has an order of its own in which it wants the slots of the table, and its
//! share of them follows the last weight that was not 0: a weight of 0 moves nobody, its slots are
//! only not served. Who gets which is settled in one of two ways, by the size of the table:
//!
//! - At IPVS's sizes ([`MaglevSize::IPVS`]) the table is IPVS's, slot by slot: they take turns in
//!   the order of the list, with as many free slots in a row as the weight says; fixed keys,
//!   addresses folded to 32 bits. A box with IPVS that has the same file answers alike.
//! - At any other size, so by default, the order of the list does not matter, shares are exact to
//!   a slot, and fewer clients move: see [`fill`].

use std::{
    cmp::Reverse,
    collections::HashMap,
    hash::Hasher,
    net::IpAddr,
    sync::{Arc, Weak},
};

use rapidhash::v3::rapidhash_v3;
use siphasher::sip::SipHasher13;

use super::{Ask, Choice, Entry, MaglevSize, View, hash::fold, index, turn::gcd};

/// IPVS's keys; fixed, so that all boxes agree. The second places real servers only.
const KEYS: [u64; 2] = [2_654_435_761, 2_654_446_892];

/// How many slots besides its own a client is offered before the list is counted through. With
/// half of the slots not served, one client in 2^64 gets there.
const OFFERS: u64 = 64;

/// A table with the flags of its scheduler.
#[derive(Debug)]
pub(super) struct Maglev {
    /// For each slot the position in the list; empty when no real server has ever had a weight.
    pub(super) slots: Arc<[u16]>,
    ipvs: bool,
    port: bool,
    fallback: bool,
}

impl Maglev {
    pub(super) fn new(
        list: &[Entry],
        size: MaglevSize,
        (port, fallback): (bool, bool),
        known: &mut MaglevTables,
    ) -> Self {
        Self {
            slots: known.table(list, size),
            ipvs: size.is_of_ipvs(),
            port,
            fallback,
        }
    }

    #[inline]
    pub(super) fn pick(&self, choices: &[Choice], ask: &Ask<'_>, view: View<'_>) -> Option<usize> {
        let port = if self.port { ask.client_port } else { 0 };
        if self.ipvs {
            self.pick_as_ipvs(choices, ask.client, port, view)
        } else {
            self.pick_spread(choices, ask.client, port, view)
        }
    }

    fn pick_as_ipvs(
        &self,
        choices: &[Choice],
        client: IpAddr,
        port: u16,
        view: View<'_>,
    ) -> Option<usize> {
        let size = u32::try_from(self.slots.len()).ok()?;
        let slot = |offset| folded(KEYS[0], client, port, offset).checked_rem(size);
        let home = slot(0)?;
        let first = self.open_at(home, choices, view);
        let any_open = || choices.iter().any(|c| view.is_open(c));
        if first.is_some() || !self.fallback || !any_open() {
            return first;
        }
        (0..size)
            .filter_map(|offset| slot((offset + home) % size))
            .find_map(|slot| self.open_at(slot, choices, view))
    }

    fn pick_spread(
        &self,
        choices: &[Choice],
        client: IpAddr,
        port: u16,
        view: View<'_>,
    ) -> Option<usize> {
        let hash = whole(KEYS[0], client, port);
        let home = self.slot_of(hash);
        let first = self.open_at(home, choices, view);
        if first.is_some() || !self.fallback {
            return first;
        }
        // Steps of the golden ratio: each falls into the largest gap between those before.
        (1..=OFFERS)
            .map(|n| self.slot_of(hash.wrapping_add(n.wrapping_mul(0x9e37_79b9_7f4a_7c15))))
            .find_map(|slot| self.open_at(slot, choices, view))
            .or_else(|| count_through(choices, hash, view))
    }

    /// The slot of a hash, by its high bits.
    #[inline]
    fn slot_of(&self, hash: u64) -> u32 {
        let slot = (u128::from(hash) * self.slots.len() as u128) >> 64;
        u32::try_from(slot).unwrap_or_default()
    }

    #[inline]
    fn open_at(&self, slot: u32, choices: &[Choice], view: View<'_>) -> Option<usize> {
        let at = usize::from(*self.slots.get(slot as usize)?);
        choices.get(at).filter(|c| view.is_open(c)).map(|_| at)
    }
}

/// One of those that take connections, the same for the same hash.
#[cold]
fn count_through(choices: &[Choice], hash: u64, view: View<'_>) -> Option<usize> {
    let open = || choices.iter().enumerate().filter(|(_, c)| view.is_open(c));
    let nth = hash.checked_rem(open().count() as u64)?;
    open().nth(usize::try_from(nth).ok()?).map(|(at, _)| at)
}

/// The tables in use. Filling one takes milliseconds, and most changes of a configuration or of the
/// network leave it as it was.
#[derive(Debug, Default)]
pub struct MaglevTables(HashMap<u64, Weak<[u16]>>);

impl MaglevTables {
    /// The table of these real servers: the one in use, or a new one.
    fn table(&mut self, list: &[Entry], size: MaglevSize) -> Arc<[u16]> {
        let name = name(list, size);
        let known = self.0.get(&name).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let slots: Arc<[u16]> = if size.is_of_ipvs() {
                fill_as_ipvs(list, size.slots()).into()
            } else {
                fill(list, size.slots()).into()
            };
            self.0.retain(|_, table| table.strong_count() > 0);
            self.0.insert(name, Arc::downgrade(&slots));
            slots
        })
    }
}

/// A number that differs when tables do.
fn name(list: &[Entry], size: MaglevSize) -> u64 {
    let mut bytes = Vec::with_capacity(4 + list.len() * 23);
    bytes.extend(size.slots().to_ne_bytes());
    for entry in list {
        match entry.endpoint.addr {
            IpAddr::V4(addr) => bytes.extend(addr.to_ipv6_mapped().octets()),
            IpAddr::V6(addr) => bytes.extend(addr.octets()),
        }
        bytes.extend(entry.endpoint.port.to_ne_bytes());
        bytes.extend(entry.last_weight.to_ne_bytes());
        bytes.push(u8::from(entry.endpoint.addr.is_ipv4()));
    }
    rapidhash_v3(&bytes)
}

/// The order in which a real server wants the slots.
struct Wishes {
    next: u32,
    skip: u32,
}

impl Wishes {
    fn new(offset: u64, skip: u64, size: u32) -> Self {
        let within = |hash: u64, size: u32| u32::try_from(hash % u64::from(size)).unwrap_or(0);
        Self {
            next: within(offset, size),
            skip: within(skip, size - 1) + 1,
        }
    }

    /// To the next slot of a table of `size`.
    #[inline]
    const fn go_on(&mut self, size: u32) {
        self.next += self.skip;
        if self.next >= size {
            self.next -= size;
        }
    }

    /// Takes the first free slot on the list for `position`. There must be a free one.
    fn take(&mut self, slots: &mut [Option<u16>], position: u16) {
        let size = index(slots.len());
        while slots.get(self.next as usize).is_some_and(Option::is_some) {
            self.go_on(size);
        }
        if let Some(slot) = slots.get_mut(self.next as usize) {
            *slot = Some(position);
        }
    }
}

/// The real servers that take part, with their positions in the list.
fn placed(list: &[Entry]) -> impl Iterator<Item = (u16, &Entry)> {
    (0..=u16::MAX).zip(list).filter(|(_, e)| e.last_weight > 0)
}

/// IPVS's table.
fn fill_as_ipvs(list: &[Entry], size: u32) -> Box<[u16]> {
    let weights = || placed(list).map(|(_, e)| e.last_weight);
    let Some(heaviest) = weights().max() else {
        return Box::default();
    };
    let divisor = weights().fold(0, gcd).max(1);
    let bits = |n: u32| u32::BITS - n.leading_zeros();
    let shift = bits(heaviest / divisor).saturating_sub(bits(size) / 2);
    let mut servers: Vec<(u16, u32, Wishes)> = placed(list)
        .map(|(at, entry)| {
            let hash = |key| u64::from(folded(key, entry.endpoint.addr, entry.endpoint.port, 0));
            let turns = ((entry.last_weight / divisor) >> shift).max(1);
            (at, turns, Wishes::new(hash(KEYS[0]), hash(KEYS[1]), size))
        })
        .collect();
    let mut slots = vec![None; size as usize];
    let mut free = size;
    while free > 0 {
        for (at, turns, wishes) in &mut servers {
            for _ in 0..(*turns).min(free) {
                wishes.take(&mut slots, *at);
                free -= 1;
            }
        }
    }
    slots.into_iter().flatten().collect()
}

/// The table for other sizes than IPVS's. All walk through their orders at the pace of their
/// weights, take what is free on their way, and stop when they have their share.
///
/// Maglev's own rule, to go on to the next free slot in every turn, makes the last slots a race
/// whose outcome changes with any real server: of 100, one less moves 1.6 times its share. A walk
/// that does not wait for a free slot gives nearly every slot to who wants it most: 1.3 times.
fn fill(list: &[Entry], size: u32) -> Box<[u16]> {
    let mut placed: Vec<(u16, &Entry)> = placed(list).collect();
    placed.sort_by_key(|(_, entry)| (entry.endpoint.addr, entry.endpoint.port));
    let mut walkers: Vec<Walker> = placed
        .iter()
        .zip(shares(&placed, size))
        .map(|((at, entry), share)| {
            let hash = |key| whole(key, entry.endpoint.addr, entry.endpoint.port);
            Walker {
                position: *at,
                weight: entry.last_weight,
                credit: 0,
                share,
                wishes: Wishes::new(hash(KEYS[0]), hash(KEYS[1]), size),
            }
        })
        .collect();
    let mut slots = vec![None; size as usize];
    // So that a weight too small for a share has a slot all the same.
    for walker in &mut walkers {
        walker.wishes.take(&mut slots, walker.position);
        walker.share = walker.share.saturating_sub(1);
    }
    let mut free = slots.iter().filter(|slot| slot.is_none()).count();
    let fastest = |walkers: &[Walker]| walkers.iter().map(|w| u64::from(w.weight)).max();
    while free > 0 {
        walkers.retain(|walker| walker.share > 0);
        let Some(pace) = fastest(&walkers) else {
            break;
        };
        let mut all_walk = true;
        while all_walk && free > 0 {
            for walker in &mut walkers {
                walker.credit += u64::from(walker.weight);
                if walker.credit >= pace {
                    walker.credit -= pace;
                    let took = walker.share > 0 && walker.step(&mut slots);
                    free -= usize::from(took);
                    all_walk &= walker.share > 0;
                }
            }
        }
    }
    slots.into_iter().flatten().collect()
}

/// How many slots each has by its weight: rounded down, and one more for those that lost most by
/// that, until all slots are given.
fn shares(placed: &[(u16, &Entry)], size: u32) -> Vec<u32> {
    let weight = |entry: &Entry| u64::from(entry.last_weight);
    let total: u64 = placed.iter().map(|(_, entry)| weight(entry)).sum();
    let slots = |entry: &Entry| weight(entry) * u64::from(size);
    let whole = |entry: &Entry| slots(entry).checked_div(total).map(u32::try_from);
    let lost = |entry: &Entry| slots(entry).checked_rem(total);
    let mut shares: Vec<u32> = placed
        .iter()
        .map(|(_, entry)| whole(entry).and_then(Result::ok).unwrap_or_default())
        .collect();
    let left = size - shares.iter().sum::<u32>();
    let mut by_loss: Vec<(&mut u32, _)> = shares
        .iter_mut()
        .zip(placed.iter().map(|(_, entry)| lost(entry)))
        .collect();
    by_loss.sort_by_key(|(_, lost)| Reverse(*lost));
    for (share, _) in by_loss.into_iter().take(left as usize) {
        *share += 1;
    }
    shares
}

/// A real server on its walk.
struct Walker {
    position: u16,
    weight: u32,
    /// Its pace adds up here; a step costs as much as the fastest pace.
    credit: u64,
    /// Slots that it is still to have.
    share: u32,
    wishes: Wishes,
}

impl Walker {
    /// Takes the next slot of its order if that is free. Whether it was.
    fn step(&mut self, slots: &mut [Option<u16>]) -> bool {
        let slot = slots.get_mut(self.wishes.next as usize);
        let free = slot.filter(|slot| slot.is_none());
        let took = free.map(|slot| *slot = Some(self.position)).is_some();
        self.share -= u32::from(took);
        self.wishes.go_on(index(slots.len()));
        took
    }
}

/// IPVS's hash of an address and a port, which it adds up.
fn folded(key: u64, addr: IpAddr, port: u16, offset: u32) -> u32 {
    let value = fold(addr)
        .wrapping_add(u32::from(port))
        .wrapping_add(offset);
    low(sip(key, &value.to_le_bytes()))
}

/// A hash of an address and a port that tells all of them apart.
fn whole(key: u64, addr: IpAddr, port: u16) -> u64 {
    let mut bytes = [0; 18];
    bytes[16..].copy_from_slice(&port.to_be_bytes());
    match addr {
        IpAddr::V4(addr) => {
            bytes[12..16].copy_from_slice(&addr.octets());
            sip(key, &bytes[12..])
        }
        IpAddr::V6(addr) => {
            bytes[..16].copy_from_slice(&addr.octets());
            sip(key, &bytes)
        }
    }
}

/// The kernel's `hsiphash` on 64-bit machines is SipHash-1-3.
#[inline]
fn sip(key: u64, bytes: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(key, key);
    hasher.write(bytes);
    hasher.finish()
}

#[expect(clippy::cast_possible_truncation, reason = "IPVS keeps the low half")]
const fn low(hash: u64) -> u32 {
    hash as u32
}
