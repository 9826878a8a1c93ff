//! The data plane as control holds it: opened, published to, steered, stopped.

use std::{net::IpAddr, sync::Arc, time::Duration};

use super::{
    api::{NamedCount, SteeringCounts},
    frame_watch::FrameWatch,
    placement::{CpuList, Placement},
    queue_watch::QueueWatch,
    workers::{Start, Workers},
};
use crate::{
    addr::PortId,
    balance::{RealRef, ServiceTable},
    dataplane::{
        af_packet::AfPacket,
        af_xdp::{AfXdp, Level, Opened, Options},
        enquiry::Asking,
        io::{FrameAccount, PacketIo},
        publish::Publisher,
        worker::WorkerOptions,
    },
    stats::{AllStats, IoDrop, IoDrops},
    sys::{
        affinity,
        busy_poll::Deferral,
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
    /// Over all workers.
    pub(super) connections: usize,
    /// How many workers; `None`: as there are queues and processors.
    pub(super) workers: Option<u32>,
    /// The processors of the workers.
    pub(super) cpus: Option<CpuList>,
    /// Whether the workers do the drivers' receive work.
    pub(super) busy_poll: bool,
    /// How long a worker without packets goes on looking before it sleeps.
    pub(super) spin: Duration,
    /// Steered from the first packet on.
    pub(super) steered: Vec<steer::Match>,
}

/// How workers call control.
pub(super) struct Calls {
    /// When one of them ends, for whatever reason.
    pub(super) ended: Box<dyn Fn() + Send + Sync>,
    /// When one of them has asked for something, see [`DataPlane::asked`], or answered, see
    /// [`DataPlane::enquiries`].
    pub(super) asked: Box<dyn Fn() + Send + Sync>,
}

/// The workers with their sockets, and the steering program that feeds them.
pub(super) struct DataPlane {
    steering: Steering,
    publisher: Publisher,
    workers: Workers,
    /// What each worker counts, then what the kernel does.
    drops: Vec<Arc<IoDrops>>,
    kernel_drops: IoDrops,
    /// How each port's packets are got.
    levels: Vec<Level>,
    queues: QueueWatch,
    frames: FrameWatch,
    report: Vec<String>,
    connections: usize,
    deferrals: Vec<Deferral>,
}

impl DataPlane {
    /// Opens `interfaces`, in port order, and starts the workers with `table`.
    ///
    /// # Errors
    /// A sentence that says what to do.
    pub(super) fn open(
        interfaces: &[InterfaceSpec],
        options: DataPlaneOptions,
        table: ServiceTable,
        calls: Calls,
    ) -> Result<Self, String> {
        let seed = || {
            random::seed()
                .map_err(|error| format!("drawing the seeds of the connection tables: {error}"))
        };
        let allowed = affinity::allowed_cpus().unwrap_or_default();
        let queues = interfaces
            .iter()
            .filter_map(|spec| device::queues(spec).ok());
        let place =
            |queues, workers| Placement::new(queues, workers, options.cpus.as_ref(), &allowed);
        let placement = place(queues.max().unwrap_or(1), options.workers)?;
        let begin = Begin {
            interfaces: interfaces.to_vec(),
            seeds: [seed()?, seed()?],
            table,
            connections: options.connections,
            spin: options.spin,
            calls,
        };
        let wish = Options {
            wish: options.xdp,
            matches: options.steered,
            busy_poll: options.busy_poll,
        };
        let asked = placement.0.len();
        let af_packet = |note: Option<String>, begin: Begin| {
            let placement = place(1, None)?;
            let wakers = wakers(&placement)?;
            let opened = AfPacket::open(interfaces, &wish.matches, wakers[0].clone());
            let mut notes: Vec<String> = note.into_iter().collect();
            if wish.busy_poll {
                notes.push("no busy polling: AF_PACKET has none".to_owned());
            }
            if asked > 1 {
                notes.push(format!(
                    "one worker instead of {asked}, as an AF_PACKET socket gets the packets of all queues"
                ));
            }
            begin.with(
                opened.map_err(|error| error.to_string())?,
                &placement,
                wakers,
                notes,
            )
        };
        if options.io == IoWish::AfPacket {
            return af_packet(None, begin);
        }
        let wakers = wakers(&placement)?;
        let opened = near(placement.0.first().copied().flatten(), || {
            AfXdp::open(interfaces, &wish, &wakers)
        });
        match opened {
            Ok(opened) => begin.with(opened, &placement, wakers, Vec::new()),
            Err(error) if options.io == IoWish::Auto && error.is_xdp_refusal() => {
                let note = format!("AF_XDP was refused: {error}");
                af_packet(Some(note), begin)
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// Several workers, which are to be told of each other's connections from time to time.
    pub(super) fn has_several(&self) -> bool {
        self.workers.stats().len() > 1
    }

    /// Tells each worker what the others have of these real servers' connections.
    pub(super) fn compare(&self, reals: impl IntoIterator<Item = RealRef>) {
        self.workers.compare(reals);
    }

    /// A neighbour whose MAC address a worker needs, and the port that it is behind.
    pub(super) fn asked(&self) -> Option<(PortId, IpAddr)> {
        self.publisher.asked()
    }

    /// How frames come and go, one line an interface.
    pub(super) fn report(&self) -> &[String] {
        &self.report
    }

    /// Connections that the tables have room for, together.
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
        let workers = self.drops.iter().map(|drops| &**drops);
        let all: Vec<&IoDrops> = workers.chain([&self.kernel_drops]).collect();
        IoDrops::occurred(&all).map(named).collect()
    }

    /// Asks the kernel what it counted for each socket.
    fn count_kernel_drops(&self) {
        let (mut xsk, mut only_empty) = (xsk::XskStatistics::default(), 0);
        for (port, level) in self.ports() {
            for socket in self.steering.sockets(port) {
                if level == Level::AfPacket {
                    // Reading them makes them zero.
                    let dropped = packet_socket::dropped(socket).unwrap_or(0);
                    self.kernel_drops.of(IoDrop::PacketSocketFull).add(dropped);
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
            self.kernel_drops.of(what).set(count);
        }
    }

    /// What to tell of interfaces that have other queues now than at start, and of what comes in on them.
    pub(super) fn interface_news(&mut self, now: Instant) -> Vec<String> {
        let mut news = self.frames.unfinished();
        for (port, _) in self.ports().filter(|(_, level)| *level < Level::AfPacket) {
            let mut counted = xsk::XskStatistics::default();
            let sockets = self.steering.sockets(port).iter();
            for one in sockets.filter_map(|socket| xsk::statistics(socket).ok()) {
                counted += one;
            }
            news.extend(self.frames.oversized(port, counted));
        }
        self.report.extend(news.iter().cloned());
        if self.queues.is_due(now) {
            // The kernel's count of an AF_PACKET socket has 32 bits: it is not to come round unseen.
            self.count_kernel_drops();
            news.extend(self.queues.look(|spec| device::queues(spec).ok()));
        }
        news
    }

    fn ports(&self) -> impl Iterator<Item = (PortId, Level)> + use<> {
        let ports = self.levels.clone().into_iter().zip(0..);
        ports.map(|(level, port)| (PortId(port), level))
    }

    /// The workers' counters.
    pub(super) fn stats(&self) -> AllStats<'_> {
        AllStats(self.workers.stats())
    }

    /// The ways to ask the workers about connections, with their counters.
    pub(super) fn enquiries(&mut self) -> (&mut [Asking], AllStats<'_>) {
        (self.publisher.enquiries(), AllStats(self.workers.stats()))
    }

    /// Ends the sleep of the workers, so that they see what they are asked.
    pub(super) fn wake(&self) {
        self.workers.wake();
    }

    /// The number of the next table.
    pub(super) fn next_generation(&self) -> u64 {
        self.publisher.generation() + 1
    }

    /// Makes `table` the one that the workers forward by, each from its next turn on.
    pub(super) fn publish(&mut self, table: ServiceTable) {
        self.publisher.publish(table);
        self.workers.wake();
    }

    /// Frees the tables that all workers have left.
    pub(super) fn collect(&mut self) {
        self.publisher.collect();
    }

    /// The steering program's tables.
    pub(super) const fn steering(&mut self) -> &mut Steering {
        &mut self.steering
    }

    /// Whether a worker has ended without being asked to.
    pub(super) fn has_ended(&self) -> bool {
        self.workers.has_ended()
    }

    /// Stops the workers and says where their frames are.
    ///
    /// # Errors
    /// Why one ended before it was asked to.
    pub(super) fn stop(&mut self) -> Result<FrameAccount, String> {
        self.workers.stop()
    }

    /// Detaches the steering program: the host sees all packets again.
    ///
    /// # Errors
    /// What an interface said.
    pub(super) fn detach(&mut self) -> Result<(), String> {
        self.deferrals.iter().for_each(Deferral::end);
        self.steering.detach().map_err(|error| error.to_string())
    }
}

/// What workers begin with, whatever carries their frames.
struct Begin {
    interfaces: Vec<InterfaceSpec>,
    seeds: [u64; 2],
    table: ServiceTable,
    connections: usize,
    spin: Duration,
    calls: Calls,
}

impl Begin {
    fn with<Io>(
        self,
        opened: Opened<Io>,
        placement: &Placement,
        wakers: Vec<Waker>,
        notes: Vec<String>,
    ) -> Result<DataPlane, String>
    where
        Io: PacketIo + Send + 'static,
    {
        let mut publisher = Publisher::with_call(self.table, self.calls.asked);
        let [hash_seed, division_seed] = self.seeds;
        let start = Start {
            placement,
            wakers,
            options: WorkerOptions {
                connections: self.connections,
                hash_seed,
                spin: self.spin,
            },
            division_seed,
            ended: Arc::from(self.calls.ended),
        };
        let workers = Workers::start(opened.io, &mut publisher, start)?;
        let mut report: Vec<String> = opened.report.iter().map(ToString::to_string).collect();
        let about = [&opened.notes, workers.notes(), &notes].concat().join("; ");
        report.push(format!("{placement}; {about}"));
        // An AF_PACKET socket gets the packets of all queues.
        let names: Vec<String> = opened
            .report
            .iter()
            .map(|it| it.interface.clone())
            .collect();
        let served = self.interfaces.into_iter().zip(&opened.report);
        let served = served
            .filter(|(_, report)| report.level != Level::AfPacket)
            .map(|(spec, report)| (spec, report.queues));
        Ok(DataPlane {
            queues: QueueWatch::new(served.collect()),
            frames: FrameWatch::new(names, opened.finished),
            levels: opened.report.iter().map(|report| report.level).collect(),
            steering: opened.steering,
            publisher,
            workers,
            drops: opened.drops,
            kernel_drops: IoDrops::default(),
            report,
            connections: self.connections,
            deferrals: opened.deferrals,
        })
    }
}

/// A waker for each worker.
fn wakers(placement: &Placement) -> Result<Vec<Waker>, String> {
    let wakers = placement.0.iter().map(|_| Waker::new());
    let wakers: Result<_, _> = wakers.collect();
    wakers.map_err(|error| format!("creating an eventfd: {error}"))
}

/// Calls `open` on a thread that is tied to `cpu`: the kernel takes memory for the frames from the node of
/// who asks for it first.
fn near<T: Send>(cpu: Option<usize>, open: impl FnOnce() -> T + Send) -> T {
    let Some(cpu) = cpu else { return open() };
    let open = || {
        // Elsewhere it works as well, if more slowly.
        let _ = affinity::pin_current_thread(cpu);
        open()
    };
    let thread = std::thread::scope(|scope| scope.spawn(open).join());
    thread.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
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
