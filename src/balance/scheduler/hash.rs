//! `sh` and `dh`: IPVS's tables of 256 buckets over a multiplicative hash of an address.

use std::net::IpAddr;

use super::{Ask, Choice, Entry, View};

/// Buckets in a table, as Debian's kernels have (`CONFIG_IP_VS_SH_TAB_BITS` 8).
const BUCKETS: usize = 1 << BITS;
const BITS: u32 = 8;

/// For each bucket the position in the list; empty when the list is.
pub(super) type Buckets = Box<[u16]>;

/// `sh` with its table.
#[derive(Debug)]
pub(super) struct SourceHash {
    buckets: Buckets,
    port: bool,
    fallback: bool,
}

impl SourceHash {
    /// Real servers have as many buckets in a row as their weight says, at least one, in the order
    /// of the list; again from the front until every bucket has one. Weights of more than 256
    /// together leave the end of the list without any.
    pub(super) fn new(list: &[Entry], port: bool, fallback: bool) -> Self {
        Self {
            buckets: fill(list, |entry| entry.weight.max(1) as usize),
            port,
            fallback,
        }
    }

    #[inline]
    pub(super) fn pick(&self, choices: &[Choice], ask: &Ask<'_>, view: View<'_>) -> Option<usize> {
        let port = if self.port { ask.client_port } else { 0 };
        let home = bucket(fold(ask.client).wrapping_add(u32::from(port)));
        let at = |bucket: usize| self.buckets.get(bucket).map(|at| usize::from(*at));
        let open = |at: &usize| choices.get(*at).is_some_and(|c| view.is_open(c));
        let first = at(home)?;
        if open(&first) {
            return Some(first);
        }
        if !self.fallback {
            return None;
        }
        // IPVS starts as far behind the bucket as the bucket is behind the first.
        (0..BUCKETS)
            .filter_map(|offset| at((home + (home + offset) % BUCKETS) % BUCKETS))
            .find(open)
    }
}

/// The table of `dh`: real servers take buckets in turn.
pub(super) fn by_destination(list: &[Entry]) -> Buckets {
    fill(list, |_| 1)
}

/// `dh`: whose bucket it is, or none.
#[inline]
pub(super) fn pick_by_destination(
    buckets: &Buckets,
    choices: &[Choice],
    destination: IpAddr,
    view: View<'_>,
) -> Option<usize> {
    let at = usize::from(*buckets.get(bucket(fold(destination)))?);
    choices.get(at).filter(|c| view.is_open(c)).map(|_| at)
}

fn fill(list: &[Entry], turns: impl Fn(&Entry) -> usize) -> Buckets {
    let positions = (0..=u16::MAX).zip(list);
    let lap = positions.flat_map(|(at, entry)| std::iter::repeat_n(at, turns(entry).min(BUCKETS)));
    let lap: Vec<u16> = lap.take(BUCKETS).collect();
    lap.iter().copied().cycle().take(BUCKETS).collect()
}

/// An address in one word: an IPv6 address by the exclusive or of its four.
#[inline]
pub(super) fn fold(addr: IpAddr) -> u32 {
    match addr {
        IpAddr::V4(addr) => addr.to_bits(),
        IpAddr::V6(addr) => {
            let bits = addr.to_bits();
            let half = (bits >> 64) ^ bits;
            let word = (half >> 32) ^ half;
            u32::try_from(word & u128::from(u32::MAX)).unwrap_or_default()
        }
    }
}

/// The kernel's `hash_32`: the high bits of a product with the golden ratio.
#[inline]
const fn bucket(value: u32) -> usize {
    (value.wrapping_mul(0x61c8_8647) >> (u32::BITS - BITS)) as usize
}
