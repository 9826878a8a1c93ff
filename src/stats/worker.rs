//! The counters of one worker.

use std::{fmt, iter::repeat_with, sync::Arc};

use super::{Counter, DropReason, ReplyReason, StageTimes, Totals};

/// Real servers that can exist at a time, over all virtual servers: slots of per-real counters.
///
/// Room for 10,000 virtual servers with 10 each, and for as many again that drain after a reload, on the way to the
/// next power of two. Two cache lines each are 32 MiB a worker, of which only the slots in use take memory.
pub const MAX_REALS: usize = 262_144;

/// What one worker counted for the real server in one slot. Two cache lines; packets from clients touch
/// the first only.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct RealCounters {
    /// Which holder of the slot the numbers belong to; 0 before the first. A slot whose epoch is
    /// not the current real server's holds the numbers of a former one.
    pub epoch: Counter,
    /// Connections in the states that IPVS counts as active.
    pub active: Counter,
    /// All other connections (persistence templates are none).
    pub inactive: Counter,
    /// Persistence templates that lead to this real server.
    pub templates: Counter,
    /// Connections scheduled so far.
    pub connections: Counter,
    /// Packets from clients.
    pub packets: Counter,
    /// Bytes from clients, counted from the IP header.
    pub bytes: Counter,
    /// Fills the line.
    _spare: Counter,
    /// Packets to clients; seen with NAT only.
    pub packets_out: Counter,
    /// Bytes to clients, counted from the IP header; seen with NAT only.
    pub bytes_out: Counter,
    /// Fills the line. Without a gap between two slots the compiler asks for zeroed memory instead of writing zeros,
    /// and what nobody uses is never touched.
    _rest: [Counter; 6],
}

impl RealCounters {
    /// Makes the slot count for the holder with this epoch, from zero when it had another.
    #[inline]
    pub fn claim(&self, epoch: u32) {
        if self.epoch.get() != u64::from(epoch) {
            for counter in [
                &self.active,
                &self.inactive,
                &self.templates,
                &self.connections,
                &self.packets,
                &self.bytes,
                &self.packets_out,
                &self.bytes_out,
            ] {
                counter.set(0);
            }
            self.epoch.set(u64::from(epoch));
        }
    }

    /// Whether the slot counts for the holder with this epoch.
    #[inline]
    pub fn is_for(&self, epoch: u32) -> bool {
        self.epoch.get() == u64::from(epoch)
    }

    /// What went through so far.
    pub fn totals(&self) -> Totals {
        Totals {
            connections: self.connections.get(),
            packets_in: self.packets.get(),
            packets_out: self.packets_out.get(),
            bytes_in: self.bytes.get(),
            bytes_out: self.bytes_out.get(),
        }
    }
}

/// Everything one worker counts. Written by that worker only.
#[derive(Debug)]
#[repr(align(64))]
pub struct WorkerStats {
    /// Frames received.
    pub frames_in: Counter,
    /// Bytes received, Ethernet headers included.
    pub bytes_in: Counter,
    /// Frames handed to a transmit ring: forwarded ones and replies.
    pub frames_out: Counter,
    /// Frames handed over to other workers.
    pub handed_over: Counter,
    /// Frames taken over from other workers; they are not in `frames_in`.
    pub taken_over: Counter,
    /// How long the stages take.
    pub times: StageTimes,
    /// Frames beyond those received: second fragments of packets that were too large for their way.
    pub cut: Counter,
    /// Connections in the table.
    pub connections: Counter,
    /// Persistence templates in the table.
    pub templates: Counter,
    /// How often the sweep has passed by every entry.
    pub sweeps: Counter,
    /// Connections and templates that made room for new ones before their time.
    pub evicted: Counter,
    /// Packets forwarded without an entry, as there was no room for their flow and its scheduler is a hash.
    pub unstored: Counter,
    drops: [Counter; DropReason::COUNT],
    replies: [Counter; ReplyReason::COUNT],
    reals: Box<[RealCounters]>,
}

impl WorkerStats {
    /// All zero, with room for [`MAX_REALS`] real servers.
    pub fn new() -> Self {
        Self {
            frames_in: Counter::default(),
            bytes_in: Counter::default(),
            frames_out: Counter::default(),
            cut: Counter::default(),
            handed_over: Counter::default(),
            taken_over: Counter::default(),
            times: StageTimes::default(),
            connections: Counter::default(),
            templates: Counter::default(),
            sweeps: Counter::default(),
            evicted: Counter::default(),
            unstored: Counter::default(),
            drops: std::array::from_fn(|_| Counter::default()),
            replies: std::array::from_fn(|_| Counter::default()),
            reals: repeat_with(RealCounters::default).take(MAX_REALS).collect(),
        }
    }

    /// Frames dropped for `reason`.
    pub const fn drops(&self, reason: DropReason) -> &Counter {
        &self.drops[reason.index()]
    }

    /// Frames dropped, whatever the reason.
    pub fn dropped(&self) -> u64 {
        self.drops.iter().map(Counter::get).sum()
    }

    /// Frames turned into an answer for `reason`.
    pub const fn replies(&self, reason: ReplyReason) -> &Counter {
        &self.replies[reason.index()]
    }

    /// The counters of the real server in `slot`. A slot of [`MAX_REALS`] or more, which no table
    /// is built with, shares the last one.
    #[inline]
    pub fn real(&self, slot: u32) -> &RealCounters {
        &self.reals[(slot as usize).min(MAX_REALS - 1)]
    }
}

/// What goes through without a worker seeing it.
pub trait Below: fmt::Debug {
    /// What went through a real server so far, by its slot and which holder of it it is. No connection begins there.
    fn totals(&self, slot: u32, epoch: u32) -> Totals;
}

/// The counters of all workers, and of what they do not see, read as one.
#[derive(Clone, Copy, Debug)]
pub struct AllStats<'a> {
    workers: &'a [Arc<WorkerStats>],
    below: Option<&'a dyn Below>,
}

impl<'a> AllStats<'a> {
    /// Those of these workers, and of what goes through below them.
    pub const fn new(workers: &'a [Arc<WorkerStats>], below: Option<&'a dyn Below>) -> Self {
        Self { workers, below }
    }

    /// The workers, by their number.
    pub const fn workers(self) -> &'a [Arc<WorkerStats>] {
        self.workers
    }

    /// The sum of one number over the workers.
    pub fn sum(self, number: impl Fn(&WorkerStats) -> u64) -> u64 {
        self.workers.iter().map(|stats| number(stats)).sum()
    }

    /// The sum of one number of a real server, by its slot and which holder of it it is.
    pub fn real(self, slot: u32, epoch: u32, number: impl Fn(&RealCounters) -> &Counter) -> u64 {
        let counters = self.workers.iter().map(|stats| stats.real(slot));
        let own = counters.filter(|counters| counters.is_for(epoch));
        own.map(|counters| number(counters).get()).sum()
    }

    /// What went through a real server so far, by its slot and which holder of it it is.
    pub fn totals(self, slot: u32, epoch: u32) -> Totals {
        let counters = self.workers.iter().map(|stats| stats.real(slot));
        let own = counters.filter(|counters| counters.is_for(epoch));
        let below = self.below.map(|below| below.totals(slot, epoch));
        own.map(RealCounters::totals).chain(below).sum()
    }
}

impl Default for WorkerStats {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_holder_of_a_slot_starts_at_zero() {
        let stats = WorkerStats::new();
        let real = stats.real(7);
        real.claim(1);
        real.active.add(3);
        real.claim(1);
        assert_eq!(real.active.get(), 3);
        real.claim(2);
        assert_eq!(
            (real.active.get(), real.is_for(2), real.is_for(1)),
            (0, true, false)
        );
    }

    #[test]
    fn a_sum_is_of_all_workers_and_of_one_holder_of_a_slot() {
        let workers = [(), (), ()].map(|()| Arc::new(WorkerStats::new()));
        for (worker, n) in workers.iter().zip(1..) {
            worker.frames_in.add(n);
            worker.real(7).claim(if n == 2 { 5 } else { 6 });
            worker.real(7).active.add(10 * n);
        }
        let all = AllStats::new(&workers, None);
        assert_eq!(all.sum(|stats| stats.frames_in.get()), 6);
        assert_eq!(all.real(7, 6, |real| &real.active), 40);
        assert_eq!(all.real(7, 5, |real| &real.active), 20);
        for (worker, n) in workers.iter().zip(1..) {
            worker.real(7).connections.add(n);
            worker.real(7).packets.add(10 * n);
            worker.real(7).packets_out.add(100 * n);
            worker.real(7).bytes.add(1000 * n);
            worker.real(7).bytes_out.add(10_000 * n);
        }
        let totals = Totals {
            connections: 4,
            packets_in: 40,
            packets_out: 400,
            bytes_in: 4000,
            bytes_out: 40_000,
        };
        assert_eq!(all.totals(7, 6), totals);
    }

    #[test]
    fn a_real_server_has_its_own_line() {
        assert_eq!(size_of::<RealCounters>(), 128);
    }
}
