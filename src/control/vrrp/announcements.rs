//! Gratuitous ARP that waits for its turn: one frame each `vrrp_garp_interval` on an interface.

use std::{
    collections::{BTreeMap, VecDeque, btree_map::Entry},
    net::Ipv4Addr,
    time::Duration,
};

use crate::time::Instant;

/// What is to be announced, by interface. An address waits once, however often it is asked for, so
/// that sets which come faster than they can be sent do not pile up.
#[derive(Debug)]
pub(super) struct Announcements {
    interval: Duration,
    ports: BTreeMap<u32, Queue>,
}

#[derive(Debug)]
struct Queue {
    /// Rounds that each waiting address has left, at least 1.
    left: BTreeMap<Ipv4Addr, u8>,
    /// The same addresses, the next one first.
    turn: VecDeque<Ipv4Addr>,
    free_at: Instant,
}

impl Announcements {
    /// Nothing to announce, and `interval` between two frames on an interface.
    pub(super) const fn new(interval: Duration) -> Self {
        Self {
            interval,
            ports: BTreeMap::new(),
        }
    }

    /// From now on `interval` is between two frames on an interface.
    pub(super) const fn set_interval(&mut self, interval: Duration) {
        self.interval = interval;
    }

    /// Asks for `rounds` frames; those that the address has left already are among them.
    pub(super) fn add(&mut self, ifindex: u32, address: Ipv4Addr, rounds: u8) {
        if rounds == 0 {
            return;
        }
        let queue = self.ports.entry(ifindex).or_insert_with(|| Queue {
            left: BTreeMap::new(),
            turn: VecDeque::new(),
            free_at: Instant::ZERO,
        });
        match queue.left.entry(address) {
            Entry::Vacant(vacant) => {
                vacant.insert(rounds);
                queue.turn.push_back(address);
            }
            Entry::Occupied(mut left) => {
                let left = left.get_mut();
                *left = rounds.max(*left);
            }
        }
    }

    /// The next frame that may be sent now. An address that is not `wanted` any more is dropped
    /// with all its rounds.
    pub(super) fn next(
        &mut self,
        now: Instant,
        mut wanted: impl FnMut(u32, Ipv4Addr) -> bool,
    ) -> Option<(u32, Ipv4Addr)> {
        for (&ifindex, queue) in &mut self.ports {
            while queue.free_at <= now
                && let Some(address) = queue.turn.pop_front()
            {
                let left = queue.left.remove(&address).unwrap_or(1);
                if !wanted(ifindex, address) {
                    continue;
                }
                if left > 1 {
                    queue.left.insert(address, left - 1);
                    queue.turn.push_back(address);
                }
                queue.free_at = now + self.interval;
                return Some((ifindex, address));
            }
        }
        None
    }

    /// When the next frame may be sent.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let waiting = self.ports.values().filter(|queue| !queue.turn.is_empty());
        waiting.map(|queue| queue.free_at).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
    const B: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }

    fn due(queue: &mut Announcements, now: Instant) -> Vec<(u32, Ipv4Addr)> {
        std::iter::from_fn(|| queue.next(now, |_, _| true)).collect()
    }

    #[test]
    fn without_an_interval_all_rounds_go_at_once_round_by_round() {
        let mut queue = Announcements::new(Duration::ZERO);
        queue.add(2, A, 2);
        queue.add(2, B, 3);
        queue.add(3, A, 0);
        assert_eq!(queue.poll_timeout(), Some(Instant::ZERO));
        assert_eq!(
            due(&mut queue, at(0)),
            [(2, A), (2, B), (2, A), (2, B), (2, B)]
        );
        assert_eq!(queue.poll_timeout(), None);
    }

    #[test]
    fn each_interface_has_a_pace_of_its_own() {
        let mut queue = Announcements::new(Duration::from_millis(100));
        for ifindex in [2, 3] {
            queue.add(ifindex, A, 1);
            queue.add(ifindex, B, 1);
        }
        assert_eq!(due(&mut queue, at(1000)), [(2, A), (3, A)]);
        assert_eq!(queue.poll_timeout(), Some(at(1100)));
        assert_eq!(due(&mut queue, at(1099)), []);
        assert_eq!(due(&mut queue, at(1130)), [(2, B), (3, B)]);
        queue.add(2, A, 1);
        assert_eq!(
            queue.poll_timeout(),
            Some(at(1230)),
            "also when it was idle"
        );
    }

    #[test]
    fn sets_that_come_faster_than_they_are_sent_do_not_pile_up() {
        let mut queue = Announcements::new(Duration::from_secs(1));
        for second in 0..1000 {
            queue.add(2, A, 5);
            queue.add(2, B, 5);
            due(&mut queue, at(second * 1000));
        }
        let rest = (1000..2000).map(|second| due(&mut queue, at(second * 1000)).len());
        let rest: usize = rest.sum();
        assert!((5..=10).contains(&rest), "{rest} frames were left");
        assert_eq!(queue.poll_timeout(), None);
    }

    #[test]
    fn what_is_not_held_any_more_costs_no_time() {
        let mut queue = Announcements::new(Duration::from_secs(1));
        queue.add(2, A, 5);
        queue.add(2, B, 1);
        let wanted = |_, address| address == B;
        assert_eq!(queue.next(at(0), wanted), Some((2, B)));
        assert_eq!(queue.poll_timeout(), None);
    }
}
