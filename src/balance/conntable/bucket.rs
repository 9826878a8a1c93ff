//! One cache line of the table: eight entries as far as a search or a sweep has to see them.

use crate::{balance::State, time::Tick};

/// Entries of a bucket.
pub(super) const WAYS: usize = 8;

/// The tag of an entry that holds nothing.
pub(super) const FREE: u16 = 0;

/// Packets after which an established connection is believed to be one. It takes a client that
/// never hears an answer two, a SYN and a guess, to be taken for established; IPVS forgets those of
/// at most eight under pressure (`todrop_entry`).
pub(super) const ASSURED: u8 = 9;

/// Eight entries' tags, times, states and packet counts. One cache line: finding out that a flow is not
/// here, that an entry has expired or may make room takes no other memory.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub struct Bucket {
    /// 16 bits of the flow's hash; [`FREE`] where there is no entry.
    pub(super) tags: [u16; WAYS],
    /// When the last packet came; of a template, when it will expire.
    pub(super) seen: [Tick; WAYS],
    pub(super) states: [State; WAYS],
    /// How many packets came, up to [`ASSURED`]; of a template: [`ASSURED`] once a connection that
    /// it led got there.
    pub(super) packets: [u8; WAYS],
}

const _: () = assert!(size_of::<Bucket>() == 64, "a bucket is one cache line");

impl Bucket {
    /// The entries with this tag.
    #[inline]
    pub(super) fn with_tag(&self, tag: u16) -> Ways {
        let [a, b, c, d, e, f, g, h] = self.tags;
        let front = equal_lanes([a, b, c, d], tag);
        let back = equal_lanes([e, f, g, h], tag);
        Ways(front | back >> 1)
    }
}

/// The top bit of each 16-bit lane, the first tag's lowest, whose tag is `tag`: four comparisons at
/// once, in a machine word.
#[inline]
const fn equal_lanes(tags: [u16; 4], tag: u16) -> u64 {
    const LOW: u64 = 0x7fff_7fff_7fff_7fff;
    let [a, b, c, d] = tags;
    let word = a as u64 | (b as u64) << 16 | (c as u64) << 32 | (d as u64) << 48;
    let differ = word ^ (tag as u64 * 0x0001_0001_0001_0001);
    // Adding carries into a lane's top bit unless the rest of the lane is zero, never out of it.
    !(((differ & LOW) + LOW) | differ | LOW)
}

/// A set of entries of one bucket. Bit 15 of each 16-bit lane stands for one of the first four,
/// bit 14 for one of the others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ways(u64);

impl Ways {
    /// All of them.
    const ALL: u64 = 0xc000_c000_c000_c000;

    /// How many there are.
    #[inline]
    pub(super) const fn count(self) -> u32 {
        self.0.count_ones()
    }

    /// The others.
    #[inline]
    pub(super) const fn inverted(self) -> Self {
        Self(self.0 ^ Self::ALL)
    }

    /// One of them, without taking it out.
    #[inline]
    pub(super) const fn first(self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let bit = self.0.trailing_zeros() as usize;
        let back = (bit & 1) ^ 1;
        Some(bit / 16 + 4 * back)
    }
}

impl Iterator for Ways {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        let way = self.first()?;
        self.0 &= self.0 - 1;
        Some(way)
    }
}
