//! Virtual addresses that somebody else takes off, and that are put back: at most once a second, so
//! that a program which fights for them costs neither the log nor the loop.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use super::repeats::Repeats;
use crate::time::Instant;

/// Least time between two times that an address is put back.
pub(super) const SPACING: Duration = Duration::from_secs(1);

/// What was put back, and what waits for it.
#[derive(Debug, Default)]
pub(super) struct PutBacks {
    by_vip: BTreeMap<(u32, IpAddr), PutBack>,
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
    /// The address is missing on this interface.
    pub(super) fn missing(&mut self, now: Instant, ifindex: u32, address: IpAddr) -> Missing {
        let put_back = self.by_vip.entry((ifindex, address)).or_default();
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
    use std::net::Ipv4Addr;

    use super::*;

    const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
    const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 2));

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(5000 + millis)
    }

    #[test]
    fn an_address_is_put_back_once_a_second_and_looked_at_again() {
        let mut put_backs = PutBacks::default();
        let first = put_backs.missing(at(0), 2, VIP);
        assert_eq!(first, Missing::RestoreAndSay(0));
        assert_eq!(put_backs.poll_timeout(), None, "it need not vanish again");
        assert_eq!(put_backs.missing(at(1), 2, VIP), Missing::Wait);
        assert_eq!(
            put_backs.missing(at(1), 2, OTHER),
            Missing::RestoreAndSay(0)
        );
        assert_eq!(put_backs.missing(at(2), 2, OTHER), Missing::Wait);
        assert_eq!(put_backs.poll_timeout(), Some(at(1000)));
        assert_eq!(put_backs.take_due(at(999)), [] as [u32; 0]);
        assert_eq!(put_backs.take_due(at(1001)), [2], "both, in one look");
        assert_eq!(put_backs.poll_timeout(), None);
        assert_eq!(put_backs.missing(at(1001), 2, VIP), Missing::Restore);
    }

    #[test]
    fn a_fight_is_told_once_a_minute() {
        let mut put_backs = PutBacks::default();
        let (mut restored, mut said) = (0, Vec::new());
        // Taken off again a hundred times a second.
        for tick in 0..6_100 {
            match put_backs.missing(at(tick * 10), 2, VIP) {
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
