//! The ports of packets that come in fragments: only the first fragment has them.
//!
//! A bounded table of one worker: what has no room makes its oldest neighbour go. Nothing is
//! reassembled, so a fragment costs no memory and leaves as it came.

use rapidhash::v3::{RapidSecrets, rapidhash_v3_seeded};

use crate::time::Tick;

/// Packets whose fragments may be under way at a time. At the limit of one a millisecond for four
/// seconds; 128 KiB of memory.
const PACKETS: usize = 4096;
/// Places that a packet may be in.
const WAYS: usize = 4;
/// How long after its first fragment a packet is waited for. Linux `ipfrag_time`.
const LIFETIME: u32 = 30 * Tick::PER_SECOND;

/// What the fragments of one packet have in common. RFC 791 §3.2, RFC 8200 §4.5.
#[derive(Clone, Copy, Debug)]
pub struct FragmentKey<A> {
    /// Source and destination as they lie in the header.
    pub addresses: A,
    /// Identification.
    pub id: u32,
    /// Protocol.
    pub protocol: u8,
}

/// A packet. Its key is kept as a hash of 96 bits under a secret: nobody can find two that
/// collide, and by chance it happens once in 10^21 packets.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    hash: u64,
    check: u32,
    ports: [u8; 4],
    seen: Tick,
    /// Whether there is one.
    used: bool,
}

/// The table.
#[derive(Debug)]
pub struct Fragments {
    entries: Box<[Entry]>,
    secrets: [RapidSecrets; 2],
    inserted: u64,
}

impl Fragments {
    /// An empty table; `seed` is drawn at start.
    pub fn new(seed: u64) -> Self {
        Self {
            entries: vec![Entry::default(); PACKETS].into(),
            secrets: [seed, seed.rotate_left(32) ^ 0x6672_6167].map(RapidSecrets::seed),
            inserted: 0,
        }
    }

    /// The first fragment of a packet has these ports.
    pub fn insert<A: AsRef<[u8]>>(&mut self, key: &FragmentKey<A>, ports: [u8; 4], now: Tick) {
        let (hash, check) = self.hashes(key);
        let ways = self.ways(hash);
        let same = |entry: &Entry| entry.used && entry.hash == hash && entry.check == check;
        let age = |entry: &Entry| {
            if entry.used {
                now.since(entry.seen)
            } else {
                u32::MAX
            }
        };
        let entry = match ways.iter().position(same) {
            Some(at) => ways.get_mut(at),
            None => ways.iter_mut().max_by_key(|entry| age(entry)),
        };
        if let Some(entry) = entry {
            // One that is seen again, as it waited itself, is news to nobody.
            let known = same(entry) && entry.ports == ports && now.since(entry.seen) < LIFETIME;
            let news = u64::from(!known);
            *entry = Entry {
                hash,
                check,
                ports,
                seen: now,
                used: true,
            };
            self.inserted += news;
        }
    }

    /// The ports of the packet that a later fragment is of.
    pub fn find<A: AsRef<[u8]>>(&mut self, key: &FragmentKey<A>, now: Tick) -> Option<[u8; 4]> {
        let (hash, check) = self.hashes(key);
        let entry = self
            .ways(hash)
            .iter()
            .find(|entry| entry.used && entry.hash == hash && entry.check == check)?;
        (now.since(entry.seen) < LIFETIME).then_some(entry.ports)
    }

    /// How often [`Self::insert`] told something new.
    pub const fn inserted(&self) -> u64 {
        self.inserted
    }

    #[expect(clippy::cast_possible_truncation, reason = "bits of a hash")]
    fn ways(&mut self, hash: u64) -> &mut [Entry] {
        let at = hash as usize % (PACKETS / WAYS) * WAYS;
        &mut self.entries[at..at + WAYS]
    }

    #[expect(clippy::cast_possible_truncation, reason = "bits of a hash")]
    fn hashes<A: AsRef<[u8]>>(&self, key: &FragmentKey<A>) -> (u64, u32) {
        let addresses = key.addresses.as_ref();
        let mut bytes = [0; 40];
        let (place, rest) = bytes.split_at_mut(32);
        for (to, from) in place.iter_mut().zip(addresses) {
            *to = *from;
        }
        rest[..4].copy_from_slice(&key.id.to_ne_bytes());
        rest[4] = key.protocol;
        // Eight bytes of IPv4 addresses are no IPv6 packet's.
        rest[5] = u8::from(addresses.len() > 8);
        let [hash, check] = [0, 1].map(|n: usize| rapidhash_v3_seeded(&bytes, &self.secrets[n]));
        (hash, check as u32)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn key(addresses: [u8; 8], id: u32) -> FragmentKey<[u8; 8]> {
        FragmentKey {
            addresses,
            id,
            protocol: 17,
        }
    }

    #[test]
    fn ports_are_remembered_for_half_a_minute() {
        let mut table = Fragments::new(1);
        let start = Tick::from_raw(u32::MAX - 3);
        table.insert(&key([1; 8], 7), [1, 2, 3, 4], start);
        let later = |seconds| start.plus_secs(seconds);
        assert_eq!(table.find(&key([1; 8], 7), later(29)), Some([1, 2, 3, 4]));
        assert_eq!(table.find(&key([1; 8], 7), later(30)), None);
        assert_eq!(table.find(&key([1; 8], 8), start), None);
        assert_eq!(table.find(&key([2; 8], 7), start), None);
        let mut six = [0; 32];
        six[..8].fill(1);
        let six = FragmentKey {
            addresses: six,
            id: 7,
            protocol: 17,
        };
        assert_eq!(table.find(&six, start), None);
        table.insert(&key([1; 8], 7), [9; 4], later(1));
        assert_eq!(table.find(&key([1; 8], 7), later(1)), Some([9; 4]));
    }

    #[test]
    fn a_full_table_forgets_the_oldest() {
        let mut table = Fragments::new(2);
        let ids = 0..4 * u32::try_from(PACKETS).unwrap();
        for id in ids.clone() {
            table.insert(&key([3; 8], id), [0; 4], Tick::from_raw(id / 100));
        }
        let now = Tick::from_raw(ids.end / 100);
        let known: Vec<u32> = ids
            .clone()
            .filter(|id| table.find(&key([3; 8], *id), now).is_some())
            .collect();
        assert!(known.len() > PACKETS * 9 / 10, "{}", known.len());
        let recent = known.iter().filter(|id| **id > ids.end / 2).count();
        assert!(recent > known.len() * 9 / 10, "{recent} of {}", known.len());
    }

    proptest! {
        #[test]
        fn what_it_says_is_what_was_said_last(
            said in prop::collection::vec((0_u8..4, 0_u32..50, any::<[u8; 4]>()), 0..200),
        ) {
            let mut table = Fragments::new(3);
            let mut model = HashMap::new();
            for (host, id, ports) in said {
                table.insert(&key([host; 8], id), ports, Tick::default());
                model.insert((host, id), ports);
            }
            for ((host, id), ports) in model {
                prop_assert_eq!(table.find(&key([host; 8], id), Tick::default()), Some(ports));
            }
        }
    }
}
