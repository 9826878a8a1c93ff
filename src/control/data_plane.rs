//! The data plane as control holds it: opened, published to, steered, stopped.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use super::{
    api::{NamedCount, SteeringCounts},
    queue_watch::QueueWatch,
};
use crate::{
    addr::PortId,
    balance::ServiceTable,
    dataplane::{
        af_packet::AfPacket,
        af_xdp::{AfXdp, Level, Opened, Options},
        io::{FrameAccount, PacketIo},
        publish::{Publisher, Reader},
        worker::{Worker, WorkerOptions},
    },
    stats::{IoDrop, IoDrops, WorkerStats},
    sys::{
        clock,
        device::{self, InterfaceSpec},
        limits, packet_socket, random,
        steer::{self, Steering},
        waker::Waker,
        xsk,
    },
    time::Instant,
};

pub use crate::dataplane::af_xdp::XdpWish;

/// How packets are to come and go (`--io`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IoWish {
    /// AF_XDP, or AF_PACKET where the kernel refuses XDP.
    #[default]
    Auto,
    /// AF_XDP or nothing.
    AfXdp,
    /// AF_PACKET.
    AfPacket,
}

/// What the data plane is opened with.
pub(super) struct DataPlaneOptions {
    pub(super) io: IoWish,
    pub(super) xdp: XdpWish,
    pub(super) connections: usize,
    /// Steered from the first packet on.
    pub(super) steered: Vec<steer::Service>,
}

/// One worker with its sockets, and the steering program that feeds it.
pub(super) struct DataPlane {
    steering: Steering,
    publisher: Publisher,
    stats: Arc<WorkerStats>,
    drops: Arc<IoDrops>,
    /// How each port's packets are got.
    levels: Vec<Level>,
    queues: QueueWatch,
    waker: Waker,
    stop: Arc<AtomicBool>,
    worker: Option<thread::JoinHandle<io::Result<FrameAccount>>>,
    report: Vec<String>,
    connections: usize,
}

impl DataPlane {
    /// Opens `interfaces`, in port order, and starts the worker with `table`. `ended` is called
    /// when the worker ends, for whatever reason.
    ///
    /// # Errors
    /// A sentence that says what to do.
    pub(super) fn open(
        interfaces: &[InterfaceSpec],
        options: DataPlaneOptions,
        table: ServiceTable,
        ended: impl FnOnce() + Send + 'static,
    ) -> Result<Self, String> {
        let waker = Waker::new().map_err(|error| format!("creating an eventfd: {error}"))?;
        let wish = Options {
            wish: options.xdp,
            services: options.steered,
        };
        let hash_seed = random::seed()
            .map_err(|error| format!("drawing the seed of the connection table: {error}"))?;
        let start = Start {
            interfaces: interfaces.to_vec(),
            hash_seed,
            table,
            connections: options.connections,
            waker: waker.clone(),
            ended: Box::new(ended),
        };
        let af_packet = |note: Option<String>, start: Start| {
            let opened = AfPacket::open(interfaces, &wish.services, start.waker.clone());
            start.worker(opened.map_err(|error| error.to_string())?, note)
        };
        if options.io == IoWish::AfPacket {
            return af_packet(None, start);
        }
        match AfXdp::open(interfaces, &wish, waker) {
            Ok(opened) => start.worker(opened, None),
            Err(error) if options.io == IoWish::Auto && error.is_xdp_refusal() => {
                af_packet(Some(error.to_string()), start)
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// How frames come and go, one line an interface.
    pub(super) fn report(&self) -> &[String] {
        &self.report
    }

    /// Connections that the table has room for.
    pub(super) const fn connections(&self) -> usize {
        self.connections
    }

    /// What the steering program decided, over all interfaces. An interface that is gone has
    /// nothing to say.
    pub(super) fn steering_counts(&self) -> SteeringCounts {
        let ports = self.ports().map(|(port, _)| port);
        let counters = ports.filter_map(|port| self.steering.counters(port).ok());
        counters.fold(SteeringCounts::default(), |sum, port| SteeringCounts {
            steered: sum.steered + port.steered,
            passed: sum.passed + port.passed,
            dropped: sum.dropped + port.dropped,
        })
    }

    /// What was lost or went wrong below the worker since the start, as far as it occurred.
    pub(super) fn io_drops(&self) -> Vec<NamedCount> {
        self.count_kernel_drops();
        let named = |(name, count): (&str, u64)| NamedCount {
            name: name.to_owned(),
            count,
        };
        self.drops.occurred().map(named).collect()
    }

    /// Asks the kernel what it counted for each socket.
    fn count_kernel_drops(&self) {
        let (mut xsk, mut only_empty) = (xsk::XskStatistics::default(), 0);
        for (port, level) in self.ports() {
            for socket in self.steering.sockets(port) {
                if level == Level::AfPacket {
                    // Reading them makes them zero.
                    let dropped = packet_socket::dropped(socket).unwrap_or(0);
                    self.drops.of(IoDrop::PacketSocketFull).add(dropped);
                } else if let Ok(one) = xsk::statistics(socket) {
                    xsk += one;
                    only_empty += one.rx_fill_ring_empty.saturating_sub(one.rx_dropped);
                } else {
                    // A sum without it would go back.
                    return;
                }
            }
        }
        for (what, count) in [
            (IoDrop::XskRxDropped, xsk.rx_dropped),
            (IoDrop::XskRxRingFull, xsk.rx_ring_full),
            (IoDrop::XskFillRingEmpty, only_empty),
            (IoDrop::XskInvalidDescriptors, xsk.invalid_descriptors),
        ] {
            self.drops.of(what).set(count);
        }
    }

    /// What to tell of interfaces that have other queues now than at start.
    pub(super) fn queue_news(&mut self, now: Instant) -> Vec<String> {
        if !self.queues.is_due(now) {
            return Vec::new();
        }
        // The kernel's count of an AF_PACKET socket has 32 bits: it is not to come round unseen.
        self.count_kernel_drops();
        self.queues.look(|spec| device::queues(spec).ok())
    }

    fn ports(&self) -> impl Iterator<Item = (PortId, Level)> {
        let ports = self.levels.iter().zip(0..);
        ports.map(|(level, port)| (PortId(port), *level))
    }

    /// The worker's counters.
    pub(super) fn stats(&self) -> &WorkerStats {
        &self.stats
    }

    /// The number of the next table.
    pub(super) fn next_generation(&self) -> u64 {
        self.publisher.generation() + 1
    }

    /// Makes `table` the one that the worker forwards by, from its next turn on.
    pub(super) fn publish(&mut self, table: ServiceTable) {
        self.publisher.publish(table);
        self.waker.wake();
    }

    /// Frees the tables that the worker has left.
    pub(super) fn collect(&mut self) {
        self.publisher.collect();
    }

    /// The steering program's tables.
    pub(super) const fn steering(&mut self) -> &mut Steering {
        &mut self.steering
    }

    /// Whether the worker has ended without being asked to.
    pub(super) fn has_ended(&self) -> bool {
        self.worker
            .as_ref()
            .is_none_or(thread::JoinHandle::is_finished)
    }

    /// Stops the worker and says where its frames are.
    ///
    /// # Errors
    /// Why the worker ended before it was asked to.
    pub(super) fn stop(&mut self) -> Result<FrameAccount, String> {
        self.stop.store(true, Ordering::Relaxed);
        self.waker.wake();
        let Some(worker) = self.worker.take() else {
            return Err("the worker has ended".to_owned());
        };
        match worker.join() {
            Ok(Ok(account)) => Ok(account),
            Ok(Err(error)) => Err(format!("the worker cannot wait for frames: {error}")),
            Err(_) => Err("the worker panicked".to_owned()),
        }
    }

    /// Detaches the steering program: the host sees all packets again.
    ///
    /// # Errors
    /// What an interface said.
    pub(super) fn detach(&mut self) -> Result<(), String> {
        self.steering.detach().map_err(|error| error.to_string())
    }
}

/// What a worker is started with, whatever carries its frames.
struct Start {
    interfaces: Vec<InterfaceSpec>,
    hash_seed: u64,
    table: ServiceTable,
    connections: usize,
    waker: Waker,
    ended: Box<dyn FnOnce() + Send>,
}

impl Start {
    fn worker<Io>(self, opened: Opened<Io>, note: Option<String>) -> Result<DataPlane, String>
    where
        Io: PacketIo + Send + 'static,
    {
        let mut publisher = Publisher::new(self.table);
        let reader = publisher.reader();
        let stats = Arc::new(WorkerStats::new());
        let stop = Arc::new(AtomicBool::new(false));
        let run = {
            let (stats, stop) = (Arc::clone(&stats), Arc::clone(&stop));
            let (io, ended) = (opened.io, self.ended);
            let options = WorkerOptions {
                connections: self.connections,
                hash_seed: self.hash_seed,
            };
            move || {
                let _ended = CallOnDrop(Some(ended));
                run_worker(io, reader, stats, &stop, options)
            }
        };
        let worker = thread::Builder::new()
            .name("xvs-worker-0".to_owned())
            .spawn(run)
            .map_err(|error| format!("starting the worker thread: {error}"))?;
        let mut report: Vec<String> = opened.report.iter().map(ToString::to_string).collect();
        report.extend(note.map(|note| format!("AF_XDP was refused: {note}")));
        // An AF_PACKET socket gets the packets of all queues.
        let served = self.interfaces.into_iter().zip(&opened.report);
        let served = served
            .filter(|(_, report)| report.level != Level::AfPacket)
            .map(|(spec, report)| (spec, report.queues));
        Ok(DataPlane {
            queues: QueueWatch::new(served.collect()),
            levels: opened.report.iter().map(|report| report.level).collect(),
            steering: opened.steering,
            publisher,
            stats,
            drops: opened.drops,
            waker: self.waker,
            stop,
            worker: Some(worker),
            report,
            connections: self.connections,
        })
    }
}

fn run_worker<Io: PacketIo>(
    io: Io,
    reader: Reader,
    stats: Arc<WorkerStats>,
    stop: &AtomicBool,
    options: WorkerOptions,
) -> io::Result<FrameAccount> {
    let mut worker = Worker::new(io, reader, stats, options);
    worker.run(clock::now, stop)?;
    Ok(worker.account())
}

/// Calls when it is dropped, so that a panicking thread is noticed too.
struct CallOnDrop(Option<Box<dyn FnOnce() + Send>>);

impl Drop for CallOnDrop {
    fn drop(&mut self) {
        if let Some(call) = self.0.take() {
            call();
        }
    }
}

/// Lifts the limits that the data plane and thousands of checks need; what cannot be lifted is said.
pub(super) fn raise_limits() -> Vec<String> {
    /// Descriptors: some 4,096 probes, sockets and maps.
    const DESCRIPTORS: u64 = 65_536;
    let memlock = limits::raise_memlock()
        .err()
        .map(|error| format!("RLIMIT_MEMLOCK: {error}"));
    let nofile = limits::raise_nofile(DESCRIPTORS)
        .err()
        .map(|error| format!("RLIMIT_NOFILE: {error}"));
    memlock.into_iter().chain(nofile).collect()
}
