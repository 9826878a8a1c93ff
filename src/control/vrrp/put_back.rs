//! Virtual addresses that somebody else takes off, and that are put back: at most once a second, so
//! that a program which fights for them costs neither the log nor the loop.

use std::{collections::BTreeMap, time::Duration};

use super::super::repeats::Repeats;
use crate::{addr::IpPrefix, time::Instant};

/// Least time between two times that an address is put back.
pub(super) const SPACING: Duration = Duration::from_secs(1);

/// What was put back, and what waits for it.
#[derive(Debug)]
pub(super) struct PutBacks {
    by_vip: BTreeMap<(u32, IpPrefix), PutBack>,
}

#[derive(Debug, Default)]
struct PutBack {
    again_at: Instant,
    waits: bool,
    repeats: Repeats,
}

/// What to do about an address that is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// Look again at [`PutBacks::poll_timeout`].
    Wait,
    /// Put it back, and say nothing.
    Restore,
    /// Put it back, and say so: that many times it was not said.
    RestoreAndSay(u64),
}

impl PutBacks {
    /// Nothing was ever missing.
    pub(super) const fn new() -> Self {
        Self {
            by_vip: BTreeMap::new(),
        }
    }

    /// The address is missing on this interface.
    pub(super) fn missing(&mut self, now: Instant, vip: (u32, IpPrefix)) -> Missing {
        let put_back = self.by_vip.entry(vip).or_default();
        if now < put_back.again_at {
            put_back.waits = true;
            return Missing::Wait;
        }
        put_back.waits = false;
        put_back.again_at = now + SPACING;
        match put_back.repeats.tell(now) {
            None => Missing::Restore,
            Some(unsaid) => Missing::RestoreAndSay(unsaid),
        }
    }

    /// The address could not be put on, or taken off, this interface: to be looked at again in a while.
    pub(super) fn failed(&mut self, now: Instant, vip: (u32, IpPrefix)) {
        let put_back = self.by_vip.entry(vip).or_default();
        put_back.waits = true;
        put_back.again_at = now + SPACING;
    }

    /// The address is none of ours on this interface any more.
    pub(super) fn forget(&mut self, vip: (u32, IpPrefix)) {
        self.by_vip.remove(&vip);
    }

    /// The interfaces to look at again now, each once.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<u32> {
        let mut due = Vec::new();
        for ((ifindex, _), put_back) in &mut self.by_vip {
            if put_back.waits && put_back.again_at <= now {
                put_back.waits = false;
                due.push(*ifindex);
            }
        }
        due.dedup();
        due
    }

    /// When there is something to look at again.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let waiting = self.by_vip.values().filter(|put_back| put_back.waits);
        waiting.map(|put_back| put_back.again_at).min()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    fn on_2(last: u8) -> (u32, IpPrefix) {
        let address = IpAddr::V4(Ipv4Addr::new(198, 51, 100, last));
        (2, IpPrefix::host(address))
    }

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(5000 + millis)
    }

    #[test]
    fn an_address_is_put_back_once_a_second_and_looked_at_again() {
        let mut put_backs = PutBacks::new();
        let first = put_backs.missing(at(0), on_2(1));
        assert_eq!(first, Missing::RestoreAndSay(0));
        assert_eq!(put_backs.poll_timeout(), None, "it need not vanish again");
        assert_eq!(put_backs.missing(at(1), on_2(1)), Missing::Wait);
        let other = put_backs.missing(at(1), on_2(2));
        assert_eq!(other, Missing::RestoreAndSay(0));
        assert_eq!(put_backs.missing(at(2), on_2(2)), Missing::Wait);
        assert_eq!(put_backs.poll_timeout(), Some(at(1000)));
        assert_eq!(put_backs.take_due(at(999)), [] as [u32; 0]);
        assert_eq!(put_backs.take_due(at(1001)), [2], "both, in one look");
        assert_eq!(put_backs.poll_timeout(), None);
        assert_eq!(put_backs.missing(at(1001), on_2(1)), Missing::Restore);
    }

    #[test]
    fn what_failed_is_looked_at_again_until_it_is_none_of_ours() {
        let mut put_backs = PutBacks::new();
        put_backs.failed(at(0), on_2(1));
        assert_eq!(put_backs.poll_timeout(), Some(at(1000)));
        assert_eq!(put_backs.missing(at(10), on_2(1)), Missing::Wait);
        assert_eq!(put_backs.take_due(at(1000)), [2]);
        let first = put_backs.missing(at(1000), on_2(1));
        assert_eq!(first, Missing::RestoreAndSay(0));
        put_backs.failed(at(1000), on_2(1));
        put_backs.forget(on_2(1));
        assert_eq!(put_backs.poll_timeout(), None);
    }

    #[test]
    fn a_fight_is_told_once_a_minute() {
        let mut put_backs = PutBacks::new();
        let (mut restored, mut said) = (0, Vec::new());
        // Taken off again a hundred times a second.
        for tick in 0..6_100 {
            match put_backs.missing(at(tick * 10), on_2(1)) {
                Missing::Wait => {}
                Missing::Restore => restored += 1,
                Missing::RestoreAndSay(unsaid) => {
                    restored += 1;
                    said.push(unsaid);
                }
            }
        }
        assert_eq!((restored, said), (61, vec![0, 59]));
    }
}
