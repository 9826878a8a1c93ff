//! Schedulers: how a virtual server picks a real server for a new connection (`lb_algo`).
//!
//! A [`Picker`] is prebuilt and immutable, part of the service table that all workers share. What
//! changes from pick to pick is in a [`SchedulerState`], of which every worker has its own: where
//! it is in each list, which real servers are over their threshold, which destinations `lblc`
//! remembers. With several workers each walks a list by itself. The state outlives the table: on
//! an unchanged list it goes on where it was, on a changed one it does what IPVS does.
//!
//! The picks are those of an IPVS that was set up from the same file, through every change. Its
//! list has the real server that was added last at the front, and so has ours: one that a changed
//! configuration adds comes to the front, and so does one that it takes out and brings back. Who
//! has the same file places clients of `sh` and `dh` alike.
//!
//! A real server that fails its checks leaves the list, so that `sh` and `dh` share its clients
//! out, and comes back to the place that it had: every client has the real server of before the
//! failure again. IPVS cannot tell one that was there before from a new one and puts it at the
//! front, which leaves half of all clients elsewhere, from none to all by which one it was, and
//! two boxes of which only one saw the failure in disagreement until both are set up anew.
//!
//! Where else a rule of IPVS is not followed, the family's page says so: [`turn`] (several changes
//! at once), [`locality`] (bounded memory), [`draw`] (a draw without its bias), and [`maglev`] for
//! table sizes that IPVS does not have.

mod draw;
mod hash;
mod least;
mod loads;
mod locality;
mod maglev;
mod overload;
mod state;
mod turn;

use std::net::IpAddr;

use rapidhash::v3::rapidhash_v3;

use self::{
    draw::Draw,
    hash::SourceHash,
    loads::Loads,
    locality::Localities,
    maglev::Maglev,
    overload::{Flags, Overloads},
    turn::{Cursor, Laps, Stamp},
};
pub use self::{
    loads::{Load, Others},
    maglev::MaglevTables,
    overload::Limits,
    state::SchedulerState,
};
use super::RealRef;
pub use crate::lvs::{MaglevSize, Scheduler};
use crate::{addr::Endpoint, stats::WorkerStats, time::Tick};

/// One real server of a virtual server, as the list of its scheduler is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The real server.
    pub real: RealRef,
    /// Its address and port: what `mh` places it by.
    pub endpoint: Endpoint,
    /// Its weight; 0 when it takes no new connections.
    pub weight: u32,
    /// Its weight, or the last one that was not 0: `mh` keeps its place by it.
    pub last_weight: u32,
    /// Its thresholds.
    pub limits: Limits,
    /// Whether it is in the list at all: it is not while its checks fail.
    pub listed: bool,
}

/// What a pick looks at besides the list.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The client's address.
    pub client: IpAddr,
    /// The client's port.
    pub client_port: u16,
    /// The destination address.
    pub vip: IpAddr,
    /// Now.
    pub tick: Tick,
    /// What this worker counted.
    pub stats: &'a WorkerStats,
}

/// One real server in the list, as a pick looks at it.
#[derive(Clone, Copy, Debug)]
struct Choice {
    real: RealRef,
    weight: u32,
    limits: Limits,
}

/// What a worker knows about the real servers at the moment of a pick.
#[derive(Clone, Copy)]
struct View<'a> {
    loads: Loads<'a>,
    flags: Flags<'a>,
}

impl View<'_> {
    /// Whether a real server gets new connections.
    #[inline]
    fn is_open(&self, choice: &Choice) -> bool {
        choice.weight > 0 && !self.is_over(choice)
    }

    /// Whether a real server has reached its threshold and not yet come down again.
    #[inline]
    fn is_over(&self, choice: &Choice) -> bool {
        choice.limits.upper != 0
            && (self.flags).update(choice.real, choice.limits, self.load(choice).total())
    }

    #[inline]
    fn load(&self, choice: &Choice) -> Load {
        self.loads.of(choice.real)
    }
}

/// A scheduler with its list.
#[derive(Debug)]
pub struct Picker {
    owner: u64,
    stamp: Stamp,
    /// Those that are in the list, the one that was added last in front.
    choices: Box<[Choice]>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// For each position the next one that takes connections; empty when none does.
    Rr(Box<[u32]>),
    Wrr(Laps),
    Lc,
    Wlc,
    Sed,
    Nq,
    Fo,
    Ovf,
    Sh(SourceHash),
    Dh(hash::Buckets),
    Mh(Maglev),
    Lblc,
    Lblcr,
    Twos(Draw),
}

impl Picker {
    /// Prepares `scheduler` over `entries` in the order in which they were added to the virtual
    /// server. `owner` tells one virtual server's state from another's and is not 0.
    pub fn new(owner: u64, scheduler: Scheduler, entries: &[Entry]) -> Self {
        Self::build(owner, scheduler, entries, &mut MaglevTables::default())
    }

    /// As [`Self::new`], with the tables of `mh` that are known.
    pub(super) fn build(
        owner: u64,
        scheduler: Scheduler,
        entries: &[Entry],
        known: &mut MaglevTables,
    ) -> Self {
        let newest_first = entries.iter().rev().filter(|entry| entry.listed);
        let list: Vec<Entry> = newest_first.copied().collect();
        let list = list.as_slice();
        let kind = match scheduler {
            Scheduler::Rr => Kind::Rr(turn::next_eligible(list)),
            Scheduler::Wrr => Kind::Wrr(Laps::new(list)),
            Scheduler::Lc => Kind::Lc,
            Scheduler::Wlc => Kind::Wlc,
            Scheduler::Sed => Kind::Sed,
            Scheduler::Nq => Kind::Nq,
            Scheduler::Fo => Kind::Fo,
            Scheduler::Ovf => Kind::Ovf,
            Scheduler::Sh { port, fallback } => Kind::Sh(SourceHash::new(list, port, fallback)),
            Scheduler::Dh => Kind::Dh(hash::by_destination(list)),
            Scheduler::Mh {
                port,
                fallback,
                size,
            } => Kind::Mh(Maglev::new(list, size, (port, fallback), known)),
            Scheduler::Lblc => Kind::Lblc,
            Scheduler::Lblcr => Kind::Lblcr,
            Scheduler::Twos => Kind::Twos(Draw::new(list)),
        };
        let choice = |entry: &Entry| Choice {
            real: entry.real,
            weight: entry.weight,
            limits: entry.limits,
        };
        Self {
            owner: owner ^ rapidhash_v3(scheduler.name().as_bytes()),
            stamp: Stamp::of(list),
            choices: list.iter().map(choice).collect(),
            kind,
        }
    }

    /// Whether it picks by a hash of the packet alone, so that a flow needs no entry to keep its
    /// real server.
    pub const fn is_hash(&self) -> bool {
        matches!(self.kind, Kind::Sh(_) | Kind::Dh(_) | Kind::Mh(_))
    }

    /// The position in the list of the real server for the next new connection; `None` when none
    /// takes any.
    #[inline]
    fn pick(
        &self,
        cursor: &mut Cursor,
        localities: &mut Localities,
        random: &mut fastrand::Rng,
        ask: &Ask<'_>,
        view: View<'_>,
    ) -> Option<usize> {
        let choices = &self.choices;
        match &self.kind {
            Kind::Rr(next) => {
                self.adopt(cursor);
                turn::next(choices, next, cursor, view)
            }
            Kind::Wrr(laps) => {
                self.adopt(cursor);
                laps.next(choices, cursor, view)
            }
            Kind::Lc => least::lc(choices, view),
            Kind::Wlc => least::wlc(choices, view),
            Kind::Sed => least::sed(choices, view),
            Kind::Nq => least::nq(choices, view),
            Kind::Fo => least::fo(choices, view),
            Kind::Ovf => least::ovf(choices, view),
            Kind::Sh(table) => table.pick(choices, ask, view),
            Kind::Dh(buckets) => hash::pick_by_destination(buckets, choices, ask.vip, view),
            Kind::Mh(table) => table.pick(choices, ask, view),
            Kind::Lblc => localities.lblc(self.owner, choices, ask, view),
            Kind::Lblcr => localities.lblcr(self.owner, choices, ask, view),
            Kind::Twos(draw) => draw.pick(choices, random, view),
        }
    }

    /// Takes over a cursor that was last used with another list, or by another virtual server.
    #[inline]
    fn adopt(&self, cursor: &mut Cursor) {
        if cursor.is_of(self.owner, self.stamp) {
            return;
        }
        match &self.kind {
            Kind::Rr(_) => cursor.relocate(self.owner, &self.choices),
            Kind::Wrr(laps) => laps.restart(cursor, self.owner),
            _ => {}
        }
        cursor.claim(self.owner, self.stamp);
    }
}

/// A position as it is stored; lists are bounded by `MAX_REALS`.
fn index(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
