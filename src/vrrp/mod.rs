//! The VRRP machine: RFC 3768 with keepalived's habits (2.x), without sockets, netlink or clock.
//!
//! A [`Router`] owns the instances of one host. Control hands it what happened, each time with
//! the time of now (`handle_*`), sleeps until [`Router::poll_timeout`], and carries out what
//! [`Router::poll_action`] gives, in that order.
//!
//! Two rules for the caller. Received packets are handed in *before* [`Router::handle_timeout`]:
//! after a late wake-up the adverts that wait in the socket say whether the master is really
//! silent. And an action that fails (a send on an interface that just went down) is logged and
//! counted by the caller, not reported back: the next link event says what there is to know.
//!
//! What differs from keepalived 2.2.7, on purpose:
//! - An advert from 0.0.0.0 or from an impossible source is refused; keepalived obeys it.
//! - Adverts leave on a fixed grid, armed from the previous deadline, so that intervals do not drift.
//! - A MASTER that hears another router's valid advert for its VRID (priority 0 included) announces
//!   its addresses again, so that clients follow after a partition heals; at most once a second.
//! - An answer to a foreign advert is sent at most [`ANSWERS_PER_INTERVAL`] times an interval.
//! - Each kind of message about a received advert is logged once per sender, then only counted.
//! - An advert with other addresses than ours is logged, counted and obeyed, as by newer releases.
//! - A MASTER whose link goes down sends no goodbye: it would not leave the host. One that stops for
//!   another reason, the link of a virtual address say, sends it.
//! - Two address owners: the one with the lower address becomes BACKUP, keeping priority 255.
//!
//! Version 3, IPv6, AH, sync groups and trackers are not here yet.

#![forbid(unsafe_code)]

mod event;
mod instance;
mod links;
mod notices;
mod receive;
mod router;
mod settings;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;
mod timers;

pub use event::{Event, FaultReason, LogLine};
pub use instance::{ANSWERS_PER_INTERVAL, GARP_ANSWER_SPACING};
pub use links::LinkState;
pub use receive::RejectReason;
pub use router::{Action, InstanceId, Reception, Router, Status};
pub use settings::{GarpSettings, Settings, SettingsError, Transport};

use std::fmt;

/// The state of an instance. keepalived numbers them 0 to 3 in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not started, waiting for the startup delay, or stopped. Adverts are ignored.
    Init,
    /// Another router answers for the addresses; RFC 9568 calls it Backup too.
    Backup,
    /// This router answers for the addresses; RFC 9568 calls it Active.
    Master,
    /// An interface is missing or down or has no address, see [`FaultReason`]. Adverts are ignored.
    Fault,
}

impl State {
    /// keepalived's name, upper case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Init => "INIT",
            Self::Backup => "BACKUP",
            Self::Master => "MASTER",
            Self::Fault => "FAULT",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What an instance has counted since it was added, or since it was told to count anew. keepalived shows these in its
/// statistics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Adverts accepted.
    pub adverts_received: u64,
    /// Adverts sent, priority 0 included; one however many unicast peers got it.
    pub adverts_sent: u64,
    /// Times that the instance became MASTER.
    pub became_master: u64,
    /// Times that it stopped being MASTER.
    pub released_master: u64,
    /// Accepted adverts of priority 0.
    pub priority_zero_received: u64,
    /// Priority 0 adverts sent.
    pub priority_zero_sent: u64,
    /// Accepted adverts whose addresses are not the configured ones.
    pub address_list_mismatches: u64,
    /// Sets of gratuitous ARP asked for.
    pub garp_sets: u64,
    /// Answers to foreign adverts that were left out because of the limit.
    pub answers_suppressed: u64,
    /// Adverts that were sent later than half an interval after their time.
    pub late_adverts: u64,
    rejected: [u64; RejectReason::COUNT],
}

impl Counters {
    /// Packets refused for `reason`.
    pub const fn rejected(&self, reason: RejectReason) -> u64 {
        self.rejected[reason as usize]
    }

    fn reject(&mut self, reason: RejectReason) {
        self.rejected[reason as usize] += 1;
    }
}
