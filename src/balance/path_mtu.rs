//! What routers have said about the largest packet that reaches a real server through its tunnel.
//!
//! An array of one worker, a word for each real server, of which only what is written to takes memory.

use std::sync::Arc;

use super::{Offload, RealId, RealRef};
use crate::{stats::MAX_REALS, time::Tick};

/// How long what a router said is believed. Linux `mtu_expires`; RFC 1191 §6.3.
const LIFETIME: u32 = 600 * Tick::PER_SECOND;

/// Largest packets on the ways to real servers, where they are smaller than the first hop's.
#[derive(Debug)]
pub struct PathMtus {
    /// MTU, then 16 bits of the real server's epoch, then when it was learnt; 0: nothing was.
    known: Box<[u64]>,
    /// Whether anything was ever learnt.
    any: bool,
    /// Who else is to go by it.
    below: Option<Arc<dyn Offload>>,
}

impl PathMtus {
    /// Nothing is known.
    pub fn new() -> Self {
        Self {
            known: vec![0; MAX_REALS].into(),
            any: false,
            below: None,
        }
    }

    /// From now on the fast path is told of it.
    pub fn offload_to(&mut self, below: Arc<dyn Offload>) {
        self.below = Some(below);
    }

    /// A router said that packets to `real` may have `mtu` bytes, outer headers included. It counts for ten
    /// minutes, or until another router asks for less.
    pub fn learn(&mut self, real: RealRef, mtu: u16, now: Tick) {
        let before = self.find(real, now);
        let mtu = before.map_or(mtu, |before| before.min(mtu));
        if let Some(word) = self.known.get_mut(real.id.0 as usize) {
            let high = u64::from(mtu) << 48 | u64::from(short(real)) << 32;
            *word = high | u64::from(now.raw());
            self.any = true;
            self.tell(real.id, mtu);
        }
    }

    /// The largest packet to `real`, if a router said so lately.
    #[inline]
    pub fn of(&mut self, real: RealRef, now: Tick) -> Option<u16> {
        if self.any {
            self.recall(real, now)
        } else {
            None
        }
    }

    /// What was learnt too long ago is forgotten, also by the fast path: packets that are too large for it by that come
    /// here.
    #[expect(clippy::cast_possible_truncation, reason = "a part of a word")]
    fn recall(&mut self, real: RealRef, now: Tick) -> Option<u16> {
        let found = self.find(real, now);
        let word = self.known.get_mut(real.id.0 as usize)?;
        let is_own = *word != 0 && (*word >> 32) as u16 == short(real);
        if is_own && found.is_none() {
            *word = 0;
            self.tell(real.id, 0);
        }
        found
    }

    fn tell(&self, real: RealId, mtu: u16) {
        if let Some(below) = &self.below {
            below.set_path_mtu(real, mtu);
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "parts of a word")]
    fn find(&self, real: RealRef, now: Tick) -> Option<u16> {
        let word = *self.known.get(real.id.0 as usize)?;
        let (mtu, epoch) = ((word >> 48) as u16, (word >> 32) as u16);
        let fresh = now.since(Tick::from_raw(word as u32)) < LIFETIME;
        (mtu > 0 && epoch == short(real) && fresh).then_some(mtu)
    }
}

impl Default for PathMtus {
    fn default() -> Self {
        Self::new()
    }
}

/// What tells one holder of a slot from the next.
#[expect(clippy::cast_possible_truncation, reason = "the low half")]
const fn short(real: RealRef) -> u16 {
    real.epoch.get() as u16
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::balance::RealId;

    #[test]
    fn what_a_router_said_counts_for_ten_minutes_and_one_real_server() {
        let mut paths = PathMtus::new();
        let real = |id, epoch| RealRef {
            id: RealId(id),
            epoch: NonZeroU32::new(epoch).unwrap(),
        };
        let start = Tick::from_raw(u32::MAX - 5);
        assert_eq!(paths.of(real(7, 1), start), None);
        paths.learn(real(7, 1), 1400, start);
        assert_eq!(paths.of(real(7, 1), start), Some(1400));
        assert_eq!(paths.of(real(8, 1), start), None);
        assert_eq!(paths.of(real(7, 2), start), None, "another has its slot");
        paths.learn(real(7, 1), 1480, start.plus_secs(300));
        assert_eq!(paths.of(real(7, 1), start.plus_secs(600)), Some(1400));
        assert_eq!(paths.of(real(7, 1), start.plus_secs(900)), None);
        paths.learn(real(7, 1), 1480, start.plus_secs(900));
        assert_eq!(paths.of(real(7, 1), start.plus_secs(900)), Some(1480));
        let last = u32::try_from(MAX_REALS).unwrap();
        paths.learn(real(last, 1), 1400, start);
        assert_eq!(paths.of(real(last, 1), start), None);
    }
}
