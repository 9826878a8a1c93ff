//! The tables of the steering program: what is wanted in them, what the kernel has, and how the second
//! becomes the first.
//!
//! An entry counts as the kernel's from its write to its delete, each when the kernel said yes. Several
//! items may need one entry (the fragments of an address that has many virtual servers), so those that
//! want it are counted, and it goes with the last. What the kernel refuses is not forgotten: the item
//! stays in the queue for the next [`Tables::reconcile`].

use std::{collections::hash_map, error, ffi::CStr, fmt, io, mem};

use rapidhash::{RapidHashMap, RapidHashSet};

use super::{
    abi::{Features, MAX_RULES},
    entries::{Entry, Form, Item, rule_value},
    matching::{MatchRule, Steered},
};
use crate::{
    addr::MacAddr,
    sys::{
        bpf::{Map, Object, Plain},
        open_error::OpenError,
    },
};

/// The maps that all interfaces' instances share, by their name in the object: those of [`Entry`] in
/// the order of [`slot`], and two more.
pub(super) const NAMES: [&CStr; 8] = [
    c"stations",
    c"locals",
    c"tunnels",
    c"returns",
    c"services",
    c"prefixes",
    c"rules",
    c"features",
];
const RULES: usize = 6;
const FEATURES: usize = 7;

/// The value of every entry: that it is there is all there is to say.
const PRESENT: u32 = 1;
/// Refusals that are told one by one: a full table would bring thousands.
const MAX_REFUSALS: usize = 16;

/// What came of an attempt to make the kernel's tables what they should be.
#[derive(Debug, Default)]
#[must_use]
pub struct Reconciled {
    /// What the kernel refused, the first few of it.
    pub refused: Vec<Refusal>,
    /// How much is still to be added or removed; with 0 the kernel has what is wanted.
    pub pending: usize,
}

impl Reconciled {
    /// Fails with the first refusal, for who cannot go on without.
    ///
    /// # Errors
    /// The first refusal.
    pub fn complete(self) -> Result<(), Refusal> {
        self.refused.into_iter().next().map_or(Ok(()), Err)
    }
}

/// A change of the tables that the kernel refused.
#[derive(Debug)]
pub struct Refusal {
    /// What was to be done: "start steering tcp 192.0.2.1:80".
    pub action: String,
    /// What the kernel said.
    pub source: io::Error,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let full = if is_full(&self.source) {
            "the kernel's table is full: "
        } else {
            ""
        };
        write!(f, "{}: {full}{}", self.action, self.source)
    }
}

impl error::Error for Refusal {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Whether there is no place for another entry in a table, of a hash or a trie.
fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::E2BIG | libc::ENOSPC))
}

/// A map of the kernel, or what a test has for one.
pub(super) trait Table {
    /// Sets the value of `key`, which is made if there is none.
    fn set(&self, key: &[u8], value: &[u8]) -> io::Result<()>;
    /// Removes `key`; that there is none is not an error.
    fn remove(&self, key: &[u8]) -> io::Result<()>;
}

impl Table for Map {
    fn set(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        Self::set(self, key, value)
    }

    fn remove(&self, key: &[u8]) -> io::Result<()> {
        Self::remove(self, key)
    }
}

/// The maps, what is wanted in them, and what is in them.
pub(super) struct Tables<T = Map> {
    maps: [T; NAMES.len()],
    /// All that is wanted, and all that is not any more and has not left yet.
    items: RapidHashMap<Item, Standing>,
    /// Items that are wanted, but for stations.
    wanted: usize,
    stations: RapidHashMap<u32, Vec<MacAddr>>,
    entries: RapidHashMap<Entry, Place>,
    /// Items that may not be in the kernel as they should be, each once.
    queue: Vec<Item>,
    /// The rules that are walked; the place is the index in the map.
    rules: [Option<MatchRule>; MAX_RULES],
    /// How many entries there are in the kernel for each bit of `features.flags`.
    flags: [u32; u32::BITS as usize],
    /// As it was written last.
    features: Features,
    /// Numbers the calls of [`Self::set`].
    round: u32,
}

struct Standing {
    is_wanted: bool,
    is_queued: bool,
    /// The call that wanted it last.
    round: u32,
}

/// An entry that is wanted, or in the kernel.
#[derive(Default)]
struct Place {
    /// Wanted items that need it.
    users: u32,
    is_there: bool,
    /// Of an entry for fragments: entries in the kernel that are not to be without it.
    ports: u32,
}

/// One pass over the queue.
#[derive(Default)]
struct Pass {
    done: Reconciled,
    /// Tables that have no place left: not asked again in vain, which takes the kernel longest.
    full: [bool; NAMES.len()],
    /// Whether a table may have places again.
    is_freed: bool,
}

impl Tables {
    /// The tables of a loaded object, empty.
    pub(super) fn of(object: &Object) -> Result<Self, OpenError> {
        let [a, b, c, d, e, f, g, h] = NAMES.map(|name| object.map(name));
        Ok(Self::new([a?, b?, c?, d?, e?, f?, g?, h?]))
    }

    /// Makes an object that is not loaded yet use these tables.
    pub(super) fn share_with(&self, object: &mut Object) -> Result<(), OpenError> {
        for (name, map) in NAMES.iter().zip(&self.maps) {
            object.share(name, map)?;
        }
        Ok(())
    }
}

impl<T: Table> Tables<T> {
    fn new(maps: [T; NAMES.len()]) -> Self {
        Self {
            maps,
            items: RapidHashMap::default(),
            wanted: 0,
            stations: RapidHashMap::default(),
            entries: RapidHashMap::default(),
            queue: Vec::new(),
            rules: [None; MAX_RULES],
            flags: [0; u32::BITS as usize],
            features: Features {
                flags: 0,
                zero: 0,
                rules: 0,
            },
            round: 0,
        }
    }

    /// From now on just `wanted` is wanted.
    pub(super) fn set(&mut self, wanted: &[Steered]) -> Reconciled {
        self.round = self.round.wrapping_add(1);
        let mut distinct = 0;
        for steered in wanted {
            distinct += usize::from(self.want(Item::Steered(*steered)));
        }
        // As a rule nothing went, and nothing need be looked for.
        if distinct < self.wanted {
            let gone = self.items.iter().filter(|(item, standing)| {
                standing.is_wanted
                    && standing.round != self.round
                    && matches!(item, Item::Steered(_))
            });
            for item in gone.map(|(item, _)| *item).collect::<Vec<_>>() {
                self.drop_wish(item);
            }
        }
        self.reconcile()
    }

    /// From now on `added` is wanted too, and `removed` is not.
    pub(super) fn change(&mut self, added: &[Steered], removed: &[Steered]) -> Reconciled {
        self.round = self.round.wrapping_add(1);
        for steered in added {
            self.want(Item::Steered(*steered));
        }
        for steered in removed {
            self.drop_wish(Item::Steered(*steered));
        }
        self.reconcile()
    }

    /// From now on just `macs` are the stations of an interface.
    pub(super) fn set_stations(&mut self, ifindex: u32, macs: &[MacAddr]) -> Reconciled {
        for mac in macs {
            self.want(Item::Station { ifindex, mac: *mac });
        }
        let former = if macs.is_empty() {
            self.stations.remove(&ifindex)
        } else {
            self.stations.insert(ifindex, macs.to_vec())
        };
        for mac in former.unwrap_or_default() {
            if !macs.contains(&mac) {
                self.drop_wish(Item::Station { ifindex, mac });
            }
        }
        self.reconcile()
    }

    /// Tries again what was refused.
    pub(super) fn reconcile(&mut self) -> Reconciled {
        let mut pass = Pass::default();
        let mut queue = mem::take(&mut self.queue);
        if !queue.is_empty() || self.needed() != self.features {
            queue.sort_by_key(Item::rank);
            self.bring(&mut queue, &mut pass);
            if pass.is_freed && pass.full.contains(&true) {
                pass.full = Default::default();
                // What is told of the first time has another chance now.
                pass.done.refused.clear();
                self.bring(&mut queue, &mut pass);
            }
            pass.done.pending =
                queue.len() + usize::from(queue.is_empty() && self.needed() != self.features);
            self.queue = queue;
        }
        pass.done
    }

    /// What is wanted, and not in the kernel yet.
    pub(super) fn missing(&self) -> impl Iterator<Item = &Steered> {
        self.queue.iter().filter_map(|item| match item {
            Item::Steered(steered) if self.items.get(item)?.is_wanted => Some(steered),
            _ => None,
        })
    }

    /// Wants an item; whether this is the first time in this round.
    fn want(&mut self, item: Item) -> bool {
        let standing = match self.items.entry(item) {
            hash_map::Entry::Occupied(known) => {
                let standing = known.into_mut();
                if standing.is_wanted {
                    return mem::replace(&mut standing.round, self.round) != self.round;
                }
                standing
            }
            hash_map::Entry::Vacant(new) => new.insert(Standing {
                is_wanted: false,
                is_queued: false,
                round: 0,
            }),
        };
        standing.is_wanted = true;
        standing.round = self.round;
        if !mem::replace(&mut standing.is_queued, true) {
            self.queue.push(item);
        }
        self.wanted += usize::from(matches!(item, Item::Steered(_)));
        if let Form::Entries(entries) = item.form() {
            for entry in entries {
                self.entries.entry(entry).or_default().users += 1;
            }
        }
        true
    }

    fn drop_wish(&mut self, item: Item) {
        let Some(standing) = self.items.get_mut(&item).filter(|known| known.is_wanted) else {
            return;
        };
        standing.is_wanted = false;
        if !mem::replace(&mut standing.is_queued, true) {
            self.queue.push(item);
        }
        self.wanted -= usize::from(matches!(item, Item::Steered(_)));
        if let Form::Entries(entries) = item.form() {
            for entry in entries {
                if let Some(place) = self.entries.get_mut(&entry) {
                    place.users -= 1;
                }
            }
        }
    }

    /// Adds, then removes. What could not be done is left in the queue.
    fn bring(&mut self, queue: &mut Vec<Item>, pass: &mut Pass) {
        let mut left = RapidHashSet::default();
        for item in queue.iter() {
            if self.is_wanted(item) && !self.add(item, pass) {
                left.insert(*item);
            }
        }
        // Only now does the program look for them. Before that nothing may go that they replace.
        if !self.write_features(pass) {
            return;
        }
        for item in queue.iter().rev() {
            if !self.is_wanted(item) && !self.remove(item, pass) {
                left.insert(*item);
            }
        }
        // Rules end here.
        if !self.write_features(pass) {
            left.extend(queue.iter().filter(|item| !self.is_wanted(item)));
        }
        queue.retain(|item| {
            if left.contains(item) {
                return true;
            }
            match self.items.entry(*item) {
                hash_map::Entry::Occupied(known) if !known.get().is_wanted => drop(known.remove()),
                hash_map::Entry::Occupied(mut known) => known.get_mut().is_queued = false,
                hash_map::Entry::Vacant(_) => {}
            }
            false
        });
    }

    fn is_wanted(&self, item: &Item) -> bool {
        self.items.get(item).is_some_and(|known| known.is_wanted)
    }

    /// Whether the item is in the kernel now.
    fn add(&mut self, item: &Item, pass: &mut Pass) -> bool {
        let done = match item.form() {
            Form::Entries(entries) => {
                let done = entries.iter().try_for_each(|entry| self.put(entry, pass));
                if done.is_err() {
                    // Alone they would only keep fragments from the host. If this is refused as well, they
                    // go with the item.
                    for fragments in entries.iter().filter(|entry| entry.is_for_fragments()) {
                        let _ = self.take(fragments, Needed::ByPorts, pass);
                    }
                }
                done
            }
            Form::Walked(rule) => self.put_rule(&rule, pass),
            Form::Void => Err(Some(io::Error::new(
                io::ErrorKind::InvalidInput,
                "source and destination of a rule are of different families",
            ))),
        };
        pass.note("start steering", item, done)
    }

    /// Whether what only the item needed is in the kernel no more.
    fn remove(&mut self, item: &Item, pass: &mut Pass) -> bool {
        let done = match item.form() {
            // In reverse: the fragments of an address last.
            Form::Entries(entries) => entries
                .iter()
                .rev()
                .try_for_each(|entry| self.take(entry, Needed::ByUsers, pass)),
            Form::Walked(rule) => {
                for place in self.rules.iter_mut().filter(|place| **place == Some(rule)) {
                    *place = None;
                }
                pass.is_freed = true;
                Ok(())
            }
            Form::Void => Ok(()),
        };
        pass.note("stop steering", item, done)
    }

    /// Puts an entry into its map, if it is not there. Without an error of its own it failed as others
    /// did before.
    fn put(&mut self, entry: &Entry, pass: &mut Pass) -> Result<(), Option<io::Error>> {
        let place = self.entries.entry(*entry).or_default();
        if place.is_there {
            return Ok(());
        }
        let table = slot(entry);
        if pass.full[table] {
            return Err(None);
        }
        if let Err(error) = self.maps[table].set(entry.key(), PRESENT.bytes()) {
            pass.full[table] = is_full(&error);
            return Err(Some(error));
        }
        place.is_there = true;
        self.count(entry, 1);
        Ok(())
    }

    /// Takes an entry out of its map, unless it is needed.
    fn take(
        &mut self,
        entry: &Entry,
        needed: Needed,
        pass: &mut Pass,
    ) -> Result<(), Option<io::Error>> {
        let Some(place) = self.entries.get_mut(entry) else {
            return Ok(());
        };
        let is_needed = match needed {
            Needed::ByUsers => place.users > 0 || place.ports > 0,
            Needed::ByPorts => place.ports > 0,
        };
        if is_needed {
            return Ok(());
        }
        if place.is_there {
            self.maps[slot(entry)].remove(entry.key())?;
            place.is_there = false;
            pass.is_freed = true;
            self.count(entry, -1);
        }
        if self
            .entries
            .get(entry)
            .is_some_and(|place| place.users == 0)
        {
            self.entries.remove(entry);
        }
        Ok(())
    }

    /// Counts an entry that came or went.
    fn count(&mut self, entry: &Entry, change: i32) {
        let add = |count: &mut u32| *count = count.saturating_add_signed(change);
        if let Some(count) = self.flags.get_mut(entry.flag().trailing_zeros() as usize) {
            add(count);
        }
        if let Some(place) = entry
            .fragments()
            .and_then(|fragments| self.entries.get_mut(&fragments))
        {
            add(&mut place.ports);
        }
    }

    /// Puts a rule that is walked into its map, if it is not there; errors as those of [`Self::put`].
    fn put_rule(&mut self, rule: &MatchRule, pass: &mut Pass) -> Result<(), Option<io::Error>> {
        if self.rules.contains(&Some(*rule)) {
            return Ok(());
        }
        if pass.full[RULES] {
            return Err(None);
        }
        // Not one that the program still walks.
        let is_free = |(index, place): &(usize, &Option<MatchRule>)| {
            place.is_none() && self.features.rules >> index & 1 == 0
        };
        let Some((index, _)) = self.rules.iter().enumerate().find(is_free) else {
            pass.full[RULES] = true;
            return Err(Some(io::Error::other(format!(
                "there are {MAX_RULES} rules with sources or wide port ranges already, and no more fit"
            ))));
        };
        let key = u32::try_from(index).unwrap_or(u32::MAX);
        self.maps[RULES].set(key.bytes(), rule_value(rule).bytes())?;
        self.rules[index] = Some(*rule);
        Ok(())
    }

    /// Which tables the program is to look into.
    fn needed(&self) -> Features {
        let bit = |(i, count): (usize, &u32)| u32::from(*count > 0) << i;
        let flags = self.flags.iter().enumerate().map(bit).sum();
        let bit = |(i, rule): (usize, &Option<MatchRule>)| u64::from(rule.is_some()) << i;
        let rules = self.rules.iter().enumerate().map(bit).sum();
        Features {
            flags,
            zero: 0,
            rules,
        }
    }

    /// Tells the program which tables to look into, when that has changed; whether it knows.
    fn write_features(&mut self, pass: &mut Pass) -> bool {
        let needed = self.needed();
        if needed == self.features {
            return true;
        }
        match self.maps[FEATURES].set(0_u32.bytes(), needed.bytes()) {
            Ok(()) => {
                self.features = needed;
                true
            }
            Err(source) => {
                pass.refuse(
                    "tell the steering program which tables are in use".to_owned(),
                    source,
                );
                false
            }
        }
    }
}

/// By what an entry may be needed.
#[derive(Clone, Copy)]
enum Needed {
    /// By items, and by entries for ports in the kernel.
    ByUsers,
    /// By entries for ports in the kernel alone.
    ByPorts,
}

impl Pass {
    /// Whether it was done; if not, it is told.
    fn note(&mut self, what: &str, item: &Item, done: Result<(), Option<io::Error>>) -> bool {
        match done {
            Ok(()) => return true,
            Err(Some(source)) => self.refuse(format!("{what} {item}"), source),
            Err(None) => {}
        }
        false
    }

    fn refuse(&mut self, action: String, source: io::Error) {
        if self.done.refused.len() < MAX_REFUSALS {
            self.done.refused.push(Refusal { action, source });
        }
    }
}

/// The place of an entry's map in [`NAMES`].
const fn slot(entry: &Entry) -> usize {
    match entry {
        Entry::Station(_) => 0,
        Entry::Local(_) => 1,
        Entry::Tunnel(_) => 2,
        Entry::Return(_) => 3,
        Entry::Service(_) => 4,
        Entry::Prefix(_) => 5,
    }
}

#[cfg(test)]
mod tests;
