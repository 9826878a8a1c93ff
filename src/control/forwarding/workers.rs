//! The threads of the workers: started, each on its processor, woken, and stopped together.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
};

use super::placement::Placement;
use crate::{
    balance::{Inherited, Others, Ownership, RealRef, ServiceTable},
    dataplane::{
        handover::handovers,
        io::{FrameAccount, PacketIo},
        ports::orders::Inbox,
        publish::Publisher,
        worker::{Worker, WorkerOptions},
    },
    stats::WorkerStats,
    sys::{affinity, clock, scheduling, steer::FastPath, waker::Waker},
};

/// What workers are started with.
pub(super) struct Start<'a> {
    /// For each the processor that it is tied to; as many as there are to be at most.
    pub(super) placement: &'a Placement,
    /// One each.
    pub(super) wakers: Vec<Waker>,
    /// For all together, and the seed of the tables.
    pub(super) options: WorkerOptions,
    /// Seed of the division of flows.
    pub(super) division_seed: u64,
    /// What they hand established flows down to, if there is any.
    pub(super) fast: Option<Arc<FastPath>>,
    /// Connections of a previous run, each with the worker that had it, and the table that their real servers are in.
    pub(super) inherited: (Vec<(Inherited, u8)>, ServiceTable),
    /// Called when one of them ends, for whatever reason.
    pub(super) ended: Arc<dyn Fn() + Send + Sync>,
}

/// Running workers.
pub(super) struct Workers {
    stats: Vec<Arc<WorkerStats>>,
    /// What each is told of the others; empty when there is one.
    others: Vec<Arc<Others>>,
    wakers: Vec<Waker>,
    stop: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
    notes: Vec<String>,
    inherited: usize,
    /// Waits for their end.
    join: Option<Box<dyn FnOnce() -> Result<FrameAccount, String> + Send>>,
}

/// What a worker says once it is ready.
struct Ready {
    number: usize,
    stats: Arc<WorkerStats>,
    /// Whether its table is in huge pages.
    huge: bool,
    /// Connections of a previous run that it took over.
    inherited: usize,
    tied: io::Result<()>,
}

impl Workers {
    /// Starts a thread for each of `ios`, which opens and closes interfaces as its inbox says. Each makes its own tables, so that they are where its processor
    /// is.
    ///
    /// # Errors
    /// What the kernel refused.
    pub(super) fn start<Io>(
        ios: Vec<(Io, Inbox<Io::Part>)>,
        publisher: &mut Publisher,
        start: Start<'_>,
    ) -> Result<Self, String>
    where
        Io: PacketIo + Send + 'static,
    {
        let wakers = start.wakers;
        let count = ios.len();
        let mut ends = handovers(&wakers, start.division_seed).into_iter();
        let (stop, ended) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let options = WorkerOptions {
            connections: start.options.connections.div_ceil(count.max(1)),
            ..start.options
        };
        let others: Vec<Arc<Others>> = (0..count)
            .filter(|_| count > 1)
            .map(|_| Arc::default())
            .collect();
        let mut inherited = divide(start.inherited, count, start.division_seed).into_iter();
        let (sender, ready) = mpsc::channel();
        let mut threads = Vec::with_capacity(count);
        let mut failure = None;
        for (number, (io, inbox)) in ios.into_iter().enumerate() {
            let reader = publisher.reader();
            let handover = ends.next();
            let seen = others.get(number).cloned();
            let cpu = start.placement.0.get(number).copied().flatten();
            let (stop, sender) = (Arc::clone(&stop), sender.clone());
            let (ended, call) = (Arc::clone(&ended), Arc::clone(&start.ended));
            let fast = start.fast.clone();
            let inherited = inherited.next().unwrap_or_default();
            let run = move || {
                let _ended = CallOnDrop(move || {
                    ended.store(true, Ordering::Relaxed);
                    call();
                });
                let tied = cpu.map_or(Ok(()), affinity::pin_current_thread);
                let stats = Arc::new(WorkerStats::new());
                let mut worker =
                    Worker::new(io, reader, Arc::clone(&stats), options).with_inbox(inbox);
                if let Some(handover) = handover {
                    worker = worker.with_handover(handover);
                }
                if let Some(others) = seen {
                    worker = worker.with_others(others);
                }
                if let Some(fast) = fast {
                    worker = worker.with_fast_path(fast, number);
                }
                let huge = worker.use_huge_pages();
                let taken = worker.inherit(&inherited, clock::now());
                drop(inherited);
                // Nobody listens when the start of another one has failed.
                let _ = sender.send(Ready {
                    number,
                    stats,
                    huge,
                    inherited: taken,
                    tied,
                });
                drop(sender);
                worker.run(clock::now, &stop)?;
                Ok(worker)
            };
            match scheduling::spawn(format!("xvs-worker-{number}"), run) {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    failure = Some(format!("starting a worker thread: {error}"));
                    break;
                }
            }
        }
        drop(sender);
        let mut told: Vec<Ready> = ready.iter().collect();
        told.sort_by_key(|ready| ready.number);
        let mut workers = Self {
            notes: notes(&told),
            inherited: told.iter().map(|ready| ready.inherited).sum(),
            stats: told.into_iter().map(|ready| ready.stats).collect(),
            others,
            wakers,
            stop,
            ended,
            join: Some(Box::new(move || join(threads))),
        };
        if failure.is_none() && workers.stats.len() < count {
            failure = Some("a worker ended at its start".to_owned());
        }
        match failure {
            None => Ok(workers),
            Some(failure) => {
                // Why else it failed is of no matter.
                let _ = workers.stop();
                Err(failure)
            }
        }
    }

    /// The counters of each.
    pub(super) fn stats(&self) -> &[Arc<WorkerStats>] {
        &self.stats
    }

    /// Tells each what the others have of these real servers' connections.
    pub(super) fn compare(&self, reals: impl IntoIterator<Item = RealRef>) {
        if !self.others.is_empty() {
            let workers = self.stats.iter().zip(&self.others);
            Others::refresh(workers.map(|(stats, others)| (&**stats, &**others)), reals);
        }
    }

    /// What to know of them, a line each.
    pub(super) fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Connections of a previous run that they took over.
    pub(super) const fn inherited(&self) -> usize {
        self.inherited
    }

    /// Ends the sleep of each.
    pub(super) fn wake(&self) {
        self.wakers.iter().for_each(Waker::wake);
    }

    /// Whether any of them has ended, without being asked to unless they were stopped.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// Stops them, and says where all their frames are.
    ///
    /// # Errors
    /// Why one of them ended before it was asked to.
    pub(super) fn stop(&mut self) -> Result<FrameAccount, String> {
        self.stop.store(true, Ordering::Relaxed);
        self.wake();
        match self.join.take() {
            Some(join) => join(),
            None => Err("the workers have ended".to_owned()),
        }
    }
}

/// Gives each worker the connections of a previous run that are its own: by what they are, or because it had them
/// before, which the network card's choice of a queue is likely to have in common.
fn divide(
    (all, table): (Vec<(Inherited, u8)>, ServiceTable),
    count: usize,
    seed: u64,
) -> Vec<Vec<Inherited>> {
    let mut lists = vec![Vec::new(); count];
    let workers = u32::try_from(count).unwrap_or(u32::MAX);
    let ownership = Ownership::new(workers.max(1), seed);
    for (one, worker) in all {
        let owner = one.owner(ownership, &table);
        let before = usize::from(worker) % count.max(1);
        let own = owner.map_or(before, |owner| owner as usize);
        if let Some(list) = lists.get_mut(own) {
            list.push(one);
        }
    }
    lists
}

fn notes(told: &[Ready]) -> Vec<String> {
    let size = if told.iter().all(|ready| ready.huge) {
        "huge"
    } else {
        "small"
    };
    let untied = told.iter().filter_map(|ready| {
        let error = ready.tied.as_ref().err()?;
        Some(format!(
            "worker {} is not tied to its processor: {error}",
            ready.number
        ))
    });
    std::iter::once(format!("connection tables in {size} pages"))
        .chain(untied)
        .collect()
}

fn join<Io: PacketIo>(
    threads: Vec<JoinHandle<io::Result<Worker<Io>>>>,
) -> Result<FrameAccount, String> {
    let mut workers = Vec::with_capacity(threads.len());
    let mut failure = None;
    // All of them, as the rest uses what the failed one does.
    for thread in threads {
        match thread.join() {
            Ok(Ok(worker)) => workers.push(worker),
            Ok(Err(error)) => {
                failure = Some(format!("a worker cannot wait for frames: {error}"));
            }
            Err(_) => failure = Some("a worker panicked".to_owned()),
        }
    }
    if let Some(failure) = failure {
        return Err(failure);
    }
    let now = clock::now();
    // What one hands on, another settles.
    while workers.iter_mut().any(|worker| worker.settle(now) > 0) {}
    Ok(workers.iter_mut().map(Worker::account).sum())
}

/// Calls when it is dropped, so that a panicking thread is noticed too.
struct CallOnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for CallOnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::atomic::AtomicUsize, time::Duration};

    use super::*;
    use crate::{
        addr::PortId,
        dataplane::{memory::MemoryIo, ports::orders},
        stats::{AllStats, DropReason},
    };

    fn start(ios: Vec<MemoryIo>, ended: &Arc<AtomicUsize>) -> Workers {
        let ended = Arc::clone(ended);
        let placement = Placement(vec![None; ios.len()]);
        let start = Start {
            placement: &placement,
            wakers: ios.iter().map(|_| Waker::new().unwrap()).collect(),
            options: WorkerOptions {
                connections: 4096,
                hash_seed: 1,
                spin: Duration::ZERO,
            },
            division_seed: 2,
            fast: None,
            inherited: (Vec::new(), ServiceTable::empty()),
            ended: Arc::new(move || {
                ended.fetch_add(1, Ordering::Relaxed);
            }),
        };
        let ios = ios.into_iter().map(|io| (io, orders::ends().1)).collect();
        Workers::start(ios, &mut Publisher::new(ServiceTable::empty()), start).unwrap()
    }

    #[test]
    fn workers_run_until_they_are_stopped_and_account_for_all_frames() {
        for count in 1..4 {
            let ended = Arc::new(AtomicUsize::new(0));
            let mut ios: Vec<_> = (0..count).map(|_| MemoryIo::new(64, 64)).collect();
            for io in &mut ios {
                assert!(io.inject(PortId(0), &[0; 60]));
            }
            let mut workers = start(ios, &ended);
            let dropped = |workers: &Workers| {
                AllStats::new(workers.stats(), None).sum(|s| s.drops(DropReason::EtherType).get())
            };
            while dropped(&workers) < count {
                std::thread::yield_now();
            }
            assert_eq!(workers.stats().len() as u64, count);
            assert!(!workers.has_ended());
            let account = workers.stop().unwrap();
            assert_eq!((account.total, account.free), (64 * count, 64 * count));
            assert!(workers.has_ended());
            assert_eq!(ended.load(Ordering::Relaxed) as u64, count);
            assert!(workers.stop().is_err(), "there is nothing to stop any more");
        }
    }
}
