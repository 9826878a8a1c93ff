//! The data plane as control holds it: opened, published to, steered, stopped.

use std::{cell::RefCell, net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use super::{
    super::api::{NamedCount, SteeringCounts},
    fast::{self, Candidate, Fast},
    frame_watch::FrameWatch,
    placement::{CpuList, Placement},
    takeover::{self, Connections, Heirs, Takeover},
    workers::{Start, Workers},
};
use crate::{
    addr::{MacAddr, PortId},
    balance::{RealRef, ServiceTable},
    config,
    dataplane::{
        af_packet::PacketBackend,
        af_xdp::{AfXdp, XdpBackend},
        enquiry::Asking,
        io::{FrameAccount, PacketIo},
        ports::{
            Backend, Level, PortControl, PortNews, PortState, PortStatus, Ports, orders::Inbox,
        },
        publish::Publisher,
        worker::WorkerOptions,
    },
    stats::{AllStats, Below, IoDrops},
    sys::{
        affinity,
        device::{self, InterfaceSpec},
        limits,
        open_error::OpenError,
        random,
        steer::{self, FastSizes, Hook, PortProgram, Steering},
        waker::Waker,
        xsk,
    },
    time::Instant,
};

pub use crate::dataplane::af_xdp::XdpWish;

/// How long a start waits for the workers to take the interfaces, which they do before anything else.
const READY_PATIENCE: Duration = Duration::from_secs(1);
/// Queues that are reckoned with when no interface is there at the start, so that none can be asked: as many as
/// the smaller network cards have. More of them than there are workers for are divided among the workers.
const QUEUES_UNSEEN: u32 = 4;

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
pub(in crate::control) struct DataPlaneOptions {
    pub(in crate::control) io: IoWish,
    pub(in crate::control) xdp: XdpWish,
    /// Over all workers.
    pub(in crate::control) connections: usize,
    /// How many workers; `None`: as there are queues and processors.
    pub(in crate::control) workers: Option<u32>,
    /// The processors of the workers.
    pub(in crate::control) cpus: Option<CpuList>,
    /// Whether the workers do the drivers' receive work.
    pub(in crate::control) busy_poll: bool,
    /// How long a worker without packets goes on looking before it sleeps.
    pub(in crate::control) spin: Duration,
    /// How large the fast path is to be; `None`: there is to be none.
    pub(in crate::control) fast: Option<FastSizes>,
    /// Steered from the first packet on.
    pub(in crate::control) steered: Vec<steer::Steered>,
    /// Interfaces that are there and that it is not to have.
    pub(in crate::control) others: Vec<InterfaceSpec>,
    /// Who gets the connections that a previous run left.
    pub(in crate::control::forwarding) heirs: Heirs,
    /// Where it left them, and this one is to leave them.
    pub(in crate::control) folder: PathBuf,
}

/// How workers call control.
pub(in crate::control) struct Calls {
    /// When one of them ends, for whatever reason.
    pub(in crate::control) ended: Arc<dyn Fn() + Send + Sync>,
    /// When one of them has asked for something, see [`DataPlane::asked`], or answered, see
    /// [`DataPlane::enquiries`].
    pub(in crate::control) asked: Arc<dyn Fn() + Send + Sync>,
}

/// The workers with their sockets, and the steering program that feeds them.
pub(in crate::control) struct DataPlane {
    ports: Box<dyn PortControl>,
    publisher: Publisher,
    workers: Workers,
    /// What each worker counts.
    drops: Vec<Arc<IoDrops>>,
    frames: FrameWatch,
    fast: Option<Fast>,
    /// What of it was said last.
    fast_said: Option<String>,
    /// What is to know beside the interfaces.
    about: String,
    connections: usize,
    /// Where connections are left for the next run.
    folder: PathBuf,
}

impl DataPlane {
    /// Starts the workers with `table` and opens those of `interfaces` that are there, from port 0 on in this
    /// order; the others wait, as later with [`Self::set_interfaces`]. There may be none.
    ///
    /// Waits for the kernel: nothing may depend on the control thread yet.
    ///
    /// # Errors
    /// A sentence that says what to do: an interface that is there cannot be opened, or the kernel refuses all of it.
    pub(in crate::control) fn open(
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
        let queues: Vec<u32> = interfaces
            .iter()
            .filter_map(|spec| device::queues(spec).ok())
            .collect();
        let most = queues.iter().copied().max().unwrap_or(QUEUES_UNSEEN);
        let place =
            |queues, workers| Placement::new(queues, workers, options.cpus.as_ref(), &allowed);
        let placement = place(most, options.workers)?;
        let asked = placement.0.len();
        let mut notes = Vec::new();
        let begin = Begin {
            interfaces,
            steered: &options.steered,
            seeds: [seed()?, seed()?],
            fast: options
                .fast
                .map(|sizes| Ok::<_, String>((sizes, [seed()?, seed()?])))
                .transpose()?,
            no_fast: RefCell::default(),
            takeover: Takeover::find(interfaces, options.folder.clone(), options.heirs),
            folder: options.folder,
            others: options.others,
            connections: options.connections,
            spin: options.spin,
            ended: calls.ended,
            asked: calls.asked,
        };
        if options.io != IoWish::AfPacket {
            let wakers = wakers(&placement)?;
            let all = queues.iter().fold(0_u32, |sum, n| sum.saturating_add(*n));
            let made = XdpBackend::new(options.xdp, options.busy_poll, all, &wakers);
            let opened = made.and_then(|(backend, ios)| {
                let note = backend.note();
                let drops = ios.iter().map(|io| Arc::clone(io.drops())).collect();
                let ports = begin.ports(backend, &placement, &wakers, &table)?;
                Ok((ports, ios, drops, note))
            });
            match opened {
                Ok(((ports, inboxes, connections), ios, drops, note)) => {
                    let finished = ios.iter().filter_map(AfXdp::finished).collect();
                    let ios = ios.into_iter().zip(inboxes).collect();
                    let from = (table, connections);
                    let opened =
                        begin.with(ports, ios, drops, from, (&placement, wakers), &[note])?;
                    return Ok(Self {
                        frames: FrameWatch::new(finished),
                        ..opened
                    });
                }
                Err(error) if options.io == IoWish::Auto && error.is_xdp_refusal() => {
                    notes.push(format!("AF_XDP was refused: {error}"));
                }
                Err(error) => return Err(error.to_string()),
            }
        }
        if options.busy_poll {
            notes.push("no busy polling: AF_PACKET has none".to_owned());
        }
        if asked > 1 {
            notes.push(format!(
                "one worker instead of {asked}, as an AF_PACKET socket gets the packets of all queues"
            ));
        }
        let placement = place(1, None)?;
        let wakers = wakers(&placement)?;
        let properties = interfaces
            .iter()
            .filter_map(|spec| device::properties(spec).ok());
        let largest = properties.map(|properties| properties.mtu).max();
        let (backend, io) = PacketBackend::new(largest.unwrap_or(0), wakers[0].clone());
        let (ports, inboxes, connections) = begin
            .ports(backend, &placement, &wakers, &table)
            .map_err(|error| error.to_string())?;
        let drops = vec![Arc::clone(io.drops())];
        let ios = [io].into_iter().zip(inboxes).collect();
        let from = (table, connections);
        begin.with(ports, ios, drops, from, (&placement, wakers), &notes)
    }

    /// From now on these interfaces are wanted, all of which exist now: they are opened, renamed, and those that
    /// are not among them are closed. Also when anything has happened to one of them: it is looked at then.
    ///
    /// A port that is gone is used again only after a table was published that does not name it.
    pub(in crate::control) fn set_interfaces(&mut self, now: Instant, wanted: &[InterfaceSpec]) {
        let newest = self.publisher.generation();
        self.ports.set_interfaces(now, wanted, newest);
    }

    /// Does what is due with the interfaces, to be called at [`Self::poll_timeout`] and when workers call
    /// ([`Calls::asked`]). What there is to say, a line each; then [`Self::ports`] may be others.
    pub(in crate::control) fn handle_timeout(&mut self, now: Instant) -> Vec<PortNews> {
        let (newest, oldest) = (self.publisher.generation(), self.publisher.oldest_in_use());
        self.ports.handle_timeout(now, newest, oldest)
    }

    /// When something is due with the interfaces.
    pub(in crate::control) fn poll_timeout(&self) -> Option<Instant> {
        self.ports.poll_timeout()
    }

    /// The interfaces that are wanted, and how it stands with them.
    pub(in crate::control) fn ports(&self) -> Vec<PortStatus> {
        self.ports.ports()
    }

    /// Several workers, which are to be told of each other's connections from time to time.
    pub(in crate::control) fn has_several(&self) -> bool {
        self.workers.stats().len() > 1
    }

    /// Tells each worker what the others have of these real servers' connections.
    pub(in crate::control) fn compare(&self, reals: impl IntoIterator<Item = RealRef>) {
        self.workers.compare(reals);
    }

    /// A neighbour whose MAC address a worker needs, and the port that it is behind.
    pub(in crate::control) fn asked(&self) -> Option<(PortId, IpAddr)> {
        self.publisher.asked()
    }

    /// How frames come and go, one line an interface.
    pub(in crate::control) fn report(&self) -> Vec<String> {
        let ports = self.ports();
        let lines = ports.iter().map(ToString::to_string);
        let known = self.frames.lines();
        let fast = self.fast_said.iter().cloned();
        (lines.chain(known).chain(fast))
            .chain([self.about.clone()])
            .collect()
    }

    /// What to tell of what comes in on interfaces.
    pub(in crate::control) fn frame_news(&mut self) -> Vec<String> {
        let mut open = Vec::new();
        for status in self.ports() {
            let PortState::Open(port, report) = &status.state else {
                continue;
            };
            if report.level == Level::AfPacket {
                continue;
            }
            let mut counted = xsk::XskStatistics::default();
            let program = self.ports.steering().port(*port);
            let sockets = program.map_or(&[][..], PortProgram::sockets);
            for one in sockets
                .iter()
                .filter_map(|socket| xsk::statistics(socket).ok())
            {
                counted += one;
            }
            open.push((*port, status.spec, counted));
        }
        self.frames.look(open)
    }

    /// Decides by `wish`, and what XDP can do on each (`None`: the kernel does not say), which interfaces have a part in the
    /// fast path, and has their programs use it. Those that take frames from it, and what there is to say about it that
    /// is news.
    pub(in crate::control) fn choose_fast(
        &mut self,
        wish: config::FastPath,
        mac: impl Fn(u32) -> Option<MacAddr>,
        features: impl Fn(u32) -> Option<u64>,
    ) -> (Vec<PortId>, Option<String>) {
        if self.fast.is_none() {
            return (Vec::new(), None);
        }
        let mut candidates = Vec::new();
        let mut specs = Vec::new();
        for status in self.ports() {
            if let PortState::Open(port, report) = status.state {
                candidates.push(Candidate {
                    port,
                    level: report.level,
                    features: features(status.spec.ifindex),
                });
                specs.push(status.spec);
            }
        }
        let parts = fast::parts(wish, &candidates);
        let mut said = Vec::new();
        for (part, spec) in parts.iter().zip(&specs) {
            let own = mac(spec.ifindex).filter(|_| part.looks);
            let program = self.ports.steering().port_mut(part.port);
            let done = program.map_or(Ok(()), |program| program.set_fast(own));
            said.push(match (part.takes, done) {
                (_, Err(error)) => format!("{spec} no, {error}"),
                (Ok(()), _) => format!("{spec} yes"),
                (Err(why), _) => format!("{spec} no, {why}"),
            });
        }
        let said = format!("fast path: {}", said.join("; "));
        let is_news = !specs.is_empty() && self.fast_said.as_ref() != Some(&said);
        let news = is_news.then(|| said.clone());
        self.fast_said = news.clone().or_else(|| self.fast_said.take());
        let takers = parts.iter().filter(|part| part.takes.is_ok());
        (takers.map(|part| part.port).collect(), news)
    }

    /// The fast path, if there is one.
    pub(in crate::control::forwarding) const fn fast(&mut self) -> Option<&mut Fast> {
        self.fast.as_mut()
    }

    /// The table that the fast path goes by.
    pub(in crate::control::forwarding) fn fast_table(&mut self) -> Option<ServiceTable> {
        self.fast.as_ref()?.table()
    }

    /// Fits the size of the fast path to the connections that there are.
    pub(in crate::control) fn fit_fast(&mut self) {
        let stats = self.stats();
        let connections = stats.sum(|worker| worker.connections.get());
        let sweeps = stats.workers().iter().map(|worker| worker.sweeps.get());
        let sweeps: Vec<u64> = sweeps.collect();
        if let Some(fast) = &mut self.fast {
            fast.fit(connections, &sweeps);
        }
    }

    /// Connections that the tables have room for, together.
    pub(in crate::control) const fn connections(&self) -> usize {
        self.connections
    }

    /// What the steering program decided, over all interfaces that there were.
    pub(in crate::control) fn steering_counts(&self) -> SteeringCounts {
        let counts = self.ports.steering_counts();
        SteeringCounts {
            steered: counts.steered,
            passed: counts.passed,
            dropped: counts.dropped,
            forwarded: counts.forwarded,
        }
    }

    /// What was lost or went wrong below the worker since the start, as far as it occurred.
    pub(in crate::control) fn io_drops(&self) -> Vec<NamedCount> {
        let named = |(name, count): (&str, u64)| NamedCount {
            name: name.to_owned(),
            count,
        };
        let workers = self.drops.iter().map(|drops| &**drops);
        let all: Vec<&IoDrops> = workers.chain([self.ports.kernel_drops()]).collect();
        IoDrops::occurred(&all).map(named).collect()
    }

    /// The workers' counters.
    pub(in crate::control) fn stats(&self) -> AllStats<'_> {
        AllStats::new(self.workers.stats(), below(self.fast.as_ref()))
    }

    /// The ways to ask the workers about connections, with their counters.
    pub(in crate::control) fn enquiries(&mut self) -> (&mut [Asking], AllStats<'_>) {
        (
            self.publisher.enquiries(),
            AllStats::new(self.workers.stats(), below(self.fast.as_ref())),
        )
    }

    /// Ends the sleep of the workers, so that they see what they are asked.
    pub(in crate::control) fn wake(&self) {
        self.workers.wake();
    }

    /// The number of the next table.
    pub(in crate::control) fn next_generation(&self) -> u64 {
        self.publisher.generation() + 1
    }

    /// Makes `table` the one that the workers forward by, each from its next turn on.
    pub(in crate::control) fn publish(&mut self, table: ServiceTable) {
        self.publisher.publish(table);
        self.workers.wake();
    }

    /// Whether every worker uses the table that was published last.
    pub(in crate::control) fn is_adopted(&self) -> bool {
        self.publisher.is_adopted()
    }

    /// Frees the tables that all workers have left.
    pub(in crate::control) fn collect(&mut self) {
        self.publisher.collect();
    }

    /// The steering program's tables.
    pub(in crate::control) fn steering(&mut self) -> &mut Steering {
        self.ports.steering()
    }

    /// Whether a worker has ended without being asked to.
    pub(in crate::control) fn has_ended(&self) -> bool {
        self.workers.has_ended()
    }

    /// Stops the workers and says where their frames are.
    ///
    /// # Errors
    /// Why one ended before it was asked to.
    pub(in crate::control) fn stop(&mut self) -> Result<FrameAccount, String> {
        self.workers.stop()
    }

    /// Keeps what went through these real servers, so that their counters go on in the next run.
    pub(in crate::control) fn keep(&self, reals: impl IntoIterator<Item = RealRef>) {
        let Some(fast) = &self.fast else {
            return;
        };
        let workers = AllStats::new(self.workers.stats(), None);
        for real in reals {
            fast.keep(real, workers.totals(real.id.0, real.epoch.get()));
        }
    }

    /// Leaves the connections on the fast path for the next run; whether there are any.
    ///
    /// # Errors
    /// Why the next run will have none: what the file system answered.
    pub(in crate::control) fn leave(&self) -> Result<bool, String> {
        let Some(fast) = &self.fast else {
            return Ok(false);
        };
        if self.stats().sum(|worker| worker.connections.get()) == 0 {
            return Ok(false);
        }
        takeover::leave(&self.folder, |folder| fast.save(folder))
            .map(|()| true)
            .map_err(|error| format!("{}: {error}", self.folder.display()))
    }

    /// Detaches the steering program: the host sees all packets again.
    ///
    /// # Errors
    /// What an interface said.
    pub(in crate::control) fn detach(&mut self) -> Result<(), String> {
        self.ports.detach().map_err(|error| error.to_string())
    }
}

/// The interfaces, and each worker's end of what it is told of them.
type Opened<B> = (Ports<B>, Vec<Inbox<<B as Backend>::Part>>, Connections);

/// What workers begin with, whatever carries their frames.
struct Begin<'a> {
    interfaces: &'a [InterfaceSpec],
    steered: &'a [steer::Steered],
    seeds: [u64; 2],
    fast: Option<(FastSizes, [u64; 2])>,
    /// Why there is no fast path although there was to be one.
    no_fast: RefCell<Option<String>>,
    /// What a previous run left.
    takeover: Takeover,
    others: Vec<InterfaceSpec>,
    folder: PathBuf,
    connections: usize,
    spin: Duration,
    ended: Arc<dyn Fn() + Send + Sync>,
    asked: Arc<dyn Fn() + Send + Sync>,
}

impl Begin<'_> {
    /// Loads the steering program and opens the interfaces that are there. What a previous run left is in its tables
    /// before.
    fn ports<B: Backend>(
        &self,
        backend: B,
        placement: &Placement,
        wakers: &[Waker],
        table: &ServiceTable,
    ) -> Result<Opened<B>, OpenError> {
        let steering = self.load(B::HOOK)?;
        let path = steering.fast_path().map(Arc::as_ref);
        let connections = self.takeover.connections(table, path);
        let first = placement.0.first().copied().flatten();
        let asked = Arc::clone(&self.asked);
        let (mut ports, inboxes) = Ports::new(backend, steering, wakers, first, asked);
        ports.open_now(self.interfaces)?;
        Ok((ports, inboxes, connections))
    }

    /// Loads the steering program, without the fast path where that is refused: packets go on by the workers then.
    fn load(&self, hook: Hook) -> Result<Steering, OpenError> {
        let why = match self.fast {
            None => return Steering::load(hook, self.steered),
            Some(_) if hook != Hook::Xdp => "AF_PACKET has none".to_owned(),
            fast => match Steering::load_with(hook, self.steered, fast) {
                Ok(steering) => return Ok(steering),
                Err(error) => error.to_string(),
            },
        };
        let steering = Steering::load(hook, self.steered)?;
        self.no_fast.replace(Some(format!("no fast path: {why}")));
        Ok(steering)
    }

    /// Starts the workers.
    fn with<B, Io>(
        self,
        mut ports: Ports<B>,
        ios: Vec<(Io, Inbox<B::Part>)>,
        drops: Vec<Arc<IoDrops>>,
        (table, connections): (ServiceTable, Connections),
        (placement, wakers): (&Placement, Vec<Waker>),
        notes: &[String],
    ) -> Result<DataPlane, String>
    where
        B: Backend,
        Io: PacketIo<Part = B::Part> + Send + 'static,
    {
        let asked = self.asked;
        let before = self.takeover.totals();
        let inherited = (connections.all, table.clone());
        let mut publisher = Publisher::with_call(table, move || asked());
        let [hash_seed, division_seed] = self.seeds;
        let fast = ports.steering().fast_path().cloned();
        let start = Start {
            placement,
            wakers,
            options: WorkerOptions {
                connections: self.connections,
                hash_seed,
                spin: self.spin,
            },
            division_seed,
            fast: fast.clone(),
            inherited,
            ended: self.ended,
        };
        let workers = match Workers::start(ios, &mut publisher, start) {
            Ok(workers) => workers,
            Err(error) => {
                ports.undo();
                return Err(error);
            }
        };
        ports.wait_until_taken(READY_PATIENCE);
        let no_fast: Vec<String> = self.no_fast.take().into_iter().collect();
        let taken = (self.takeover).finish(&self.others, connections.orphans, workers.inherited());
        let taken: Vec<String> = taken.into_iter().collect();
        let about = [notes, &no_fast, workers.notes(), &taken]
            .concat()
            .join("; ");
        Ok(DataPlane {
            ports: Box::new(ports),
            publisher,
            workers,
            drops,
            frames: FrameWatch::new(Vec::new()),
            fast: fast.map(|path| Fast::new(path, before)),
            fast_said: None,
            about: format!("{placement}; {about}"),
            connections: self.connections,
            folder: self.folder,
        })
    }
}

fn below(fast: Option<&Fast>) -> Option<&dyn Below> {
    fast.map(|fast| fast as &dyn Below)
}

/// A waker for each worker.
fn wakers(placement: &Placement) -> Result<Vec<Waker>, String> {
    let wakers = placement.0.iter().map(|_| Waker::new());
    let wakers: Result<_, _> = wakers.collect();
    wakers.map_err(|error| format!("creating an eventfd: {error}"))
}

/// Lifts the limits that the data plane and thousands of checks need; what cannot be lifted is said.
pub(in crate::control) fn raise_limits() -> Vec<String> {
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
