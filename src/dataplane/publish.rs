//! From control to the workers: one immutable table, replaced as a whole.
//!
//! A worker holds the table it uses and compares generations once a turn, which is one load of a
//! line that hardly ever changes. It takes the new table at its next turn, drops its old one and
//! says so; control keeps every table until all workers have said so, and is thus the one who
//! frees it.

use std::{
    fmt,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use crossbeam::{queue::ArrayQueue, utils::CachePadded};

use super::enquiry::{self, Answering, Asking};
use crate::{
    addr::PortId,
    balance::{Balancer, Listing, ServiceTable, Turn},
    stats::WorkerStats,
    time::Instant,
};

/// What a [`Ticket`] says when its reader is gone: no table is in use.
const GONE: u64 = u64::MAX;

/// Control's end.
#[derive(Debug)]
pub struct Publisher {
    shared: Arc<Shared>,
    readers: Vec<Arc<CachePadded<AtomicU64>>>,
    enquiries: Vec<Asking>,
    retired: Vec<Arc<ServiceTable>>,
}

#[derive(Debug)]
struct Shared {
    generation: CachePadded<AtomicU64>,
    table: ArcSwap<ServiceTable>,
    asked: ArrayQueue<(PortId, IpAddr)>,
    call: Call,
}

/// How a worker tells control that it has asked for something, or answered.
struct Call(Box<dyn Fn() + Send + Sync>);

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Call")
    }
}

/// Neighbours that workers may ask for between two looks at them. What has no room is asked for
/// again by the next packet.
const ASKED: usize = 1024;

impl Publisher {
    /// Publishes `table` as the first one.
    pub fn new(table: ServiceTable) -> Self {
        Self::with_call(table, || ())
    }

    /// The same; a worker uses `call` when it has asked for something, see [`Self::asked`],
    /// or answered, see [`Self::enquiries`].
    pub fn with_call(table: ServiceTable, call: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            shared: Arc::new(Shared {
                generation: CachePadded::new(AtomicU64::new(table.generation())),
                table: ArcSwap::from_pointee(table),
                asked: ArrayQueue::new(ASKED),
                call: Call(Box::new(call)),
            }),
            readers: Vec::new(),
            enquiries: Vec::new(),
            retired: Vec::new(),
        }
    }

    /// A worker's end.
    pub fn reader(&mut self) -> Reader {
        let table = self.shared.table.load_full();
        let seen = Arc::new(CachePadded::new(AtomicU64::new(table.generation())));
        self.readers.push(Arc::clone(&seen));
        let (asking, answering) = enquiry::ends();
        self.enquiries.push(asking);
        Reader {
            table,
            shared: Arc::clone(&self.shared),
            answering,
            ticket: Ticket(seen),
        }
    }

    /// Makes `table` visible to every worker by its next turn. Its generation is not below that of
    /// the table before; a worker notices a table by its generation.
    pub fn publish(&mut self, table: ServiceTable) {
        let generation = table.generation();
        self.retired.push(self.shared.table.swap(Arc::new(table)));
        self.shared.generation.store(generation, Ordering::Release);
        self.collect();
    }

    /// A neighbour whose MAC address some worker needs, and the port that it is behind.
    pub fn asked(&self) -> Option<(PortId, IpAddr)> {
        self.shared.asked.pop()
    }

    /// The ways to ask about connections, one for each reader in the order in which they were made.
    pub fn enquiries(&mut self) -> &mut [Asking] {
        &mut self.enquiries
    }

    /// Frees the tables that no worker uses any more. To be called from time to time after
    /// [`Self::publish`], until [`Self::is_adopted`].
    pub fn collect(&mut self) {
        let oldest = self.oldest_in_use();
        self.retired.retain(|table| table.generation() >= oldest);
        self.readers
            .retain(|seen| seen.load(Ordering::Acquire) != GONE);
    }

    /// Whether every worker uses the table that was published last.
    pub fn is_adopted(&self) -> bool {
        self.oldest_in_use() >= self.generation()
    }

    /// The generation of the table that was published last.
    pub fn generation(&self) -> u64 {
        self.shared.generation.load(Ordering::Relaxed)
    }

    /// Tables that wait for a worker before they can be freed.
    pub const fn retired(&self) -> usize {
        self.retired.len()
    }

    /// The generation of the oldest table that a worker uses; as high as can be when there is no worker.
    pub fn oldest_in_use(&self) -> u64 {
        self.readers
            .iter()
            .map(|seen| seen.load(Ordering::Acquire))
            .min()
            .unwrap_or(GONE)
    }
}

/// A worker's end.
#[derive(Debug)]
pub struct Reader {
    // Fields are dropped in this order: the table is let go before the ticket says so.
    table: Arc<ServiceTable>,
    shared: Arc<Shared>,
    answering: Answering,
    ticket: Ticket,
}

/// Where a reader says which generation it uses.
#[derive(Debug)]
struct Ticket(Arc<CachePadded<AtomicU64>>);

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.store(GONE, Ordering::Release);
    }
}

impl Reader {
    /// Takes over a newer table, if there is one.
    #[inline]
    pub fn refresh(&mut self) {
        if self.shared.generation.load(Ordering::Relaxed) != self.table.generation() {
            self.adopt();
        }
    }

    #[cold]
    fn adopt(&mut self) {
        self.table = self.shared.table.load_full();
        self.ticket
            .0
            .store(self.table.generation(), Ordering::Release);
    }

    /// Asks control for the MAC address of a neighbour. It comes with a new table, if at all.
    #[cold]
    pub fn ask(&self, port: PortId, neighbour: IpAddr) {
        let first = self.shared.asked.is_empty();
        // What has no room is asked for again by a later packet.
        let _ = self.shared.asked.push((port, neighbour));
        if first {
            self.call();
        }
    }

    /// Tells control that there is something for it.
    #[cold]
    pub fn call(&self) {
        (self.shared.call.0)();
    }

    /// Whether control wants to know about connections.
    #[inline]
    pub fn is_asked(&self) -> bool {
        self.answering.is_asked()
    }

    /// Looks at some `buckets` of the connections for control, and tells it when that was what it wanted.
    #[cold]
    pub fn answer(
        &mut self,
        balancer: &Balancer,
        stats: &WorkerStats,
        now: Instant,
        buckets: usize,
    ) {
        let table = &*self.table;
        let turn = Turn {
            tick: now.tick(),
            timeouts: table.timeouts(),
            stats,
        };
        let step = |listing: &mut Listing| listing.advance(balancer, table, turn, buckets);
        if self.answering.go_on(now, step) {
            self.call();
        }
    }

    /// The table in use.
    #[inline]
    pub fn table(&self) -> &ServiceTable {
        &self.table
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::Environment;

    fn table(generation: u64) -> ServiceTable {
        ServiceTable::build(generation, &[], Environment::default()).unwrap()
    }

    #[test]
    fn control_frees_a_table_after_every_worker_has_left_it() {
        let mut publisher = Publisher::new(table(1));
        let (mut fast, mut slow) = (publisher.reader(), publisher.reader());
        let first = Arc::downgrade(&fast.table);
        publisher.publish(table(2));
        fast.refresh();
        assert_eq!(
            (fast.table().generation(), slow.table().generation()),
            (2, 1)
        );
        publisher.collect();
        assert!(!publisher.is_adopted());
        assert_eq!(publisher.retired(), 1);
        slow.refresh();
        assert!(publisher.is_adopted());
        assert_eq!(first.strong_count(), 1, "only control still has it");
        publisher.collect();
        assert_eq!((publisher.retired(), first.strong_count()), (0, 0));
    }

    #[test]
    fn a_worker_may_skip_a_generation() {
        let mut publisher = Publisher::new(table(1));
        let mut reader = publisher.reader();
        publisher.publish(table(2));
        publisher.publish(table(3));
        assert_eq!(publisher.retired(), 2);
        reader.refresh();
        publisher.collect();
        assert_eq!((reader.table().generation(), publisher.retired()), (3, 0));
    }

    #[test]
    fn a_worker_that_is_gone_holds_nothing_up() {
        let mut publisher = Publisher::new(table(1));
        let reader = publisher.reader();
        publisher.publish(table(2));
        drop(reader);
        publisher.collect();
        assert!(publisher.is_adopted());
        assert_eq!((publisher.retired(), publisher.readers.len()), (0, 0));
    }
}
