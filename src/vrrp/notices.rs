//! Who has been told what about received adverts: each kind of message once per sender, then
//! silence for a while. Bounded, because senders are free to invent themselves.

use std::{net::Ipv4Addr, time::Duration};

use super::receive::RejectReason;
use crate::time::Instant;

/// Senders remembered in each table, which bounds both memory and log lines: an attacker who
/// changes his address gets this many lines, and one that says that more are not logged.
const REMEMBERED: usize = 8;

/// What a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    Rejected(RejectReason),
    /// A MASTER heard a lower priority.
    LowerPriority,
    /// A BACKUP heard a lower priority and will preempt.
    Discarding,
    /// Priority 0 was heard.
    PriorityZero,
    /// The addresses are not ours.
    AddressList,
    /// Another address owner.
    Owner,
}

/// Whether to write a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tell {
    Say,
    /// Say that further senders are not logged, instead.
    SayFull,
    Hush,
}

/// One table of what was said.
#[derive(Clone, Debug)]
pub(super) struct Notices {
    quiet: Duration,
    said: Vec<(Notice, Ipv4Addr, Instant)>,
    full_until: Option<Instant>,
}

impl Notices {
    /// A table that repeats a message after `quiet`.
    pub(super) const fn new(quiet: Duration) -> Self {
        Self {
            quiet,
            said: Vec::new(),
            full_until: None,
        }
    }

    pub(super) fn tell(&mut self, now: Instant, notice: Notice, source: Ipv4Addr) -> Tell {
        self.said.retain(|(_, _, until)| *until > now);
        if self
            .said
            .iter()
            .any(|said| (said.0, said.1) == (notice, source))
        {
            return Tell::Hush;
        }
        if self.said.len() < REMEMBERED {
            self.said.push((notice, source, now + self.quiet));
            return Tell::Say;
        }
        if self.full_until.is_some_and(|until| until > now) {
            return Tell::Hush;
        }
        self.full_until = Some(now + self.quiet);
        Tell::SayFull
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sender_gets_one_line_and_a_crowd_gets_one_more() {
        let quiet = Duration::from_secs(60);
        let mut notices = Notices::new(quiet);
        let mut said = Vec::new();
        for round in 0..3 {
            for sender in 0..100_u32 {
                let now = Instant::ZERO + Duration::from_millis(round);
                said.push(notices.tell(now, Notice::LowerPriority, Ipv4Addr::from(sender)));
            }
        }
        let count = |what| said.iter().filter(|tell| **tell == what).count();
        assert_eq!(count(Tell::Say), REMEMBERED);
        assert_eq!(count(Tell::SayFull), 1);
        assert_eq!(notices.said.len(), REMEMBERED);
        let later = Instant::ZERO + quiet + Duration::from_millis(2);
        let again = notices.tell(later, Notice::LowerPriority, Ipv4Addr::from(7));
        assert_eq!(again, Tell::Say);
    }

    #[test]
    fn kinds_are_told_apart() {
        let mut notices = Notices::new(Duration::from_secs(1));
        let from = Ipv4Addr::new(10, 0, 0, 2);
        assert_eq!(
            notices.tell(Instant::ZERO, Notice::PriorityZero, from),
            Tell::Say
        );
        assert_eq!(
            notices.tell(Instant::ZERO, Notice::AddressList, from),
            Tell::Say
        );
        assert_eq!(
            notices.tell(Instant::ZERO, Notice::AddressList, from),
            Tell::Hush
        );
    }
}
