//! Forwarding: the virtual servers, the ways to their real servers and to clients, the data plane, and what
//! is published and steered.
//!
//! Order is make-before-break. What is new in the table is steered once every worker has the table; what
//! leaves it is steered no more before.

mod client_ways;
pub mod data_plane;
mod fast;
mod frame_watch;
mod interfaces;
mod local_way;
mod next_hops;
mod outages;
pub mod placement;
mod ports;
mod sampling;
mod services;
mod steering;
mod stop;
pub(super) mod takeover;
mod view;
mod workers;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, mpsc},
    time::Duration,
};

pub(super) use self::view::{View, Voice};
use self::{
    client_ways::ClientWays,
    data_plane::{Calls, DataPlane, DataPlaneOptions},
    interfaces::port_info,
    local_way::LocalWay,
    next_hops::NextHops,
    outages::Outages,
    ports::Ports,
    sampling::Sampling,
    services::{Applied, Services, way},
};
use super::{engine::Options, log::Level, pace::Pace};
use crate::{
    addr::PortId,
    balance::{Hop, TableBuilder},
    check::Health,
    config::{Config, Diff, FastPath},
    lvs::ServiceId,
    sys::{
        instance_lock::InterfaceLock,
        monitor,
        netlink::{Link, netdev::XdpFeatures},
        scheduling,
        steer::Steered,
    },
    time::Instant,
};

/// How often lasting problems and drained real servers are looked for, and old tables freed.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// Least time between two looks at all addresses of this host: a MASTER adds its VIPs one by one.
const ADDRESSES: Duration = Duration::from_millis(100);
/// How soon addresses that the kernel did not tell are asked for again.
const ADDRESSES_AGAIN: Duration = Duration::from_secs(1);
/// How often several workers are told of each other's connections: their schedulers and thresholds lag by
/// as much.
const COMPARE: Duration = Duration::from_millis(100);
/// Least time between two tables: thousands of checks can change their minds in a second.
const PUBLISH_PERIOD: Duration = Duration::from_millis(10);
/// How soon it is looked again whether every worker has a table: they take it at their next turn.
const ADOPTION: Duration = Duration::from_millis(1);
/// Least time between two looks at what the data plane's interfaces are to be: routes may change all the time.
const LOOK: Duration = Duration::from_millis(100);
/// Neighbours that workers ask for and that are looked up in one turn: some 20 µs each.
const ASKED_PER_TURN: usize = 64;
/// How often it is looked again whether an interface is free that another process has.
const LOCK_AGAIN: Duration = Duration::from_secs(1);
/// How often steering that the kernel refused is tried again.
const STEER_AGAIN: Duration = Duration::from_secs(1);

/// What is steered, compared with what should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Steering {
    /// It is as it should be.
    Settled,
    /// Once every worker has the table that was published last.
    AfterAdoption,
    /// The kernel refused something, which is tried again then.
    Again(Instant),
}

/// A data plane that a thread opens.
struct Opening {
    answer: mpsc::Receiver<Result<DataPlane, String>>,
    /// What it is to steer.
    steered: Vec<Steered>,
}

/// The virtual servers and what carries their packets.
pub(super) struct Forwarding {
    services: Services,
    hops: NextHops,
    /// The way to real servers on this host.
    local_way: LocalWay,
    /// Real addresses that are this host's own, as the table has it.
    on_host: BTreeSet<IpAddr>,
    /// The ways to clients, where anything for them passes here.
    ways: Option<ClientWays>,
    /// Routers that lead to clients.
    routers: BTreeSet<IpAddr>,
    ports: Ports,
    builder: TableBuilder,
    data_plane: Option<DataPlane>,
    /// Where there is to be a fast path.
    fast_path: FastPath,
    /// What XDP can do on each interface; `None`: the kernel does not say.
    features: Option<XdpFeatures>,
    /// Counts how often what is steered was set.
    steerings: u64,
    /// The interfaces that exist.
    links: BTreeMap<u32, Link>,
    /// Those that the data plane is to have, with the locks that say so to other processes.
    wanted: BTreeMap<u32, Result<InterfaceLock, String>>,
    /// The data plane may have to have others, or they may be other than they were.
    interfaces_changed: bool,
    look: Pace,
    /// A data plane that is being opened.
    opening: Option<Opening>,
    /// Workers ask for more neighbours than one turn may look up.
    asked: bool,
    /// When interfaces that another process has are tried again.
    locks_at: Option<Instant>,
    /// The addresses of this host may have changed.
    addresses: Pace,
    /// The addresses of this host.
    locals: BTreeSet<IpAddr>,
    /// Interfaces with an address of a virtual server that no VRRP instance manages.
    unmanaged: BTreeSet<u32>,
    /// Real addresses that there is no lasting way to, as the table has it.
    unreachable: BTreeSet<IpAddr>,
    /// Virtual servers of which the table does not say what it should.
    stale: BTreeSet<ServiceId>,
    /// Those that are to leave the table.
    leaving: Vec<ServiceId>,
    /// Something else in the table is not what it should be.
    changed: bool,
    environment_changed: bool,
    publishing: Pace,
    steering: Steering,
    /// What was last set to be steered.
    steered: Vec<Steered>,
    /// Virtual servers that a table which not every worker has yet has changed.
    unadopted: BTreeSet<ServiceId>,
    /// What the kernel refused at the last attempt.
    refused: Vec<String>,
    sampling: Sampling,
    housekeeping_at: Instant,
    /// When several workers are told of each other's connections next.
    compare_at: Instant,
    outages: Outages,
}

impl Forwarding {
    /// Nothing is forwarded yet.
    pub(super) fn new(now: Instant, features: Option<XdpFeatures>) -> Self {
        Self {
            services: Services::new(),
            hops: NextHops::new(),
            local_way: LocalWay::default(),
            on_host: BTreeSet::new(),
            ways: None,
            routers: BTreeSet::new(),
            ports: Ports::default(),
            builder: TableBuilder::new(),
            data_plane: None,
            fast_path: FastPath::Off,
            features,
            steerings: 0,
            links: BTreeMap::new(),
            wanted: BTreeMap::new(),
            interfaces_changed: true,
            look: Pace::new(LOOK),
            opening: None,
            asked: false,
            locks_at: None,
            addresses: Pace::new(ADDRESSES),
            locals: BTreeSet::new(),
            unmanaged: BTreeSet::new(),
            unreachable: BTreeSet::new(),
            stale: BTreeSet::new(),
            leaving: Vec::new(),
            changed: false,
            environment_changed: true,
            publishing: Pace::new(PUBLISH_PERIOD),
            steering: Steering::Settled,
            steered: Vec::new(),
            unadopted: BTreeSet::new(),
            refused: Vec::new(),
            sampling: Sampling::new(now),
            housekeeping_at: now + HOUSEKEEPING,
            compare_at: now,
            outages: Outages::default(),
        }
    }

    /// Whether `diff` can be applied.
    ///
    /// # Errors
    /// A sentence: why not.
    pub(super) fn check(&self, diff: &Diff, new: &Config) -> Result<(), String> {
        self.services.check(diff, new)
    }

    /// Takes over what differs in `new`. What the health checks are to be told of.
    pub(super) fn apply(&mut self, diff: &Diff, new: &Config, view: &mut View<'_>) -> Applied {
        let now = view.voice.now;
        let applied = self.services.apply(now, diff, new, &mut self.hops);
        self.stale.extend(&applied.changed);
        self.leaving.extend(&applied.removed);
        self.environment_changed = true;
        if self.ways.is_none() && self.services.sends_to_clients() {
            self.ways = Some(ClientWays::new(now));
        }
        // Which interfaces have addresses of virtual servers may be another matter now.
        self.addresses.want(now);
        // And which virtual addresses and real servers are behind which.
        self.interfaces_changed = true;
        if self.data_plane.is_none() && self.opening.is_none() {
            // No worker has them.
            let leaving = std::mem::take(&mut self.leaving);
            leaving.iter().for_each(|id| self.builder.remove(*id));
            self.services.forget(&leaving, &mut self.hops);
            return applied;
        }
        // No more what is not wanted any more; what is new waits for the table.
        self.unadopted.extend(&applied.changed);
        self.publishing.want(now);
        self.steer(&mut view.voice);
        applied
    }

    /// The virtual servers as they are.
    pub(super) const fn services(&self) -> &Services {
        &self.services
    }

    /// The data plane, once there is one.
    pub(super) const fn data_plane(&self) -> Option<&DataPlane> {
        self.data_plane.as_ref()
    }

    /// The same, to be asked something.
    pub(super) const fn data_plane_mut(&mut self) -> Option<&mut DataPlane> {
        self.data_plane.as_mut()
    }

    /// The virtual servers, for `xvs list`.
    pub(super) fn status(
        &self,
        health: &Health,
        data_plane: &DataPlane,
    ) -> Vec<super::api::ServiceStatus> {
        (self.services).status(health, &self.hops, &self.ports, data_plane.stats())
    }

    /// Starts the workers and waits until they are there; see [`Self::begin_to_open`].
    ///
    /// # Errors
    /// A sentence that says what to do.
    pub(super) fn open(
        &mut self,
        options: &Options,
        calls: Calls,
        with: (&Health, &BTreeSet<u32>),
        view: &mut View<'_>,
    ) -> Result<(), String> {
        self.begin_to_open(options, calls, with, view)?;
        let Some(opening) = self.opening.take() else {
            return Ok(());
        };
        let opened = opening.answer.recv();
        let data_plane = opened.map_err(|_| "opening the data plane ended".to_owned())??;
        self.take_over(data_plane, opening.steered, view);
        Ok(())
    }

    /// Whether a data plane is being opened.
    pub(super) const fn is_opening(&self) -> bool {
        self.opening.is_some()
    }

    /// Takes the data plane that was being opened, once it is.
    ///
    /// # Errors
    /// Why it could not be opened.
    pub(super) fn finish_to_open(&mut self, view: &mut View<'_>) -> Result<(), String> {
        let Some(opening) = self.opening.take() else {
            return Ok(());
        };
        match opening.answer.try_recv() {
            Ok(opened) => self.take_over(opened?, opening.steered, view),
            Err(mpsc::TryRecvError::Empty) => self.opening = Some(opening),
            Err(mpsc::TryRecvError::Disconnected) => {
                return Err("opening the data plane ended".to_owned());
            }
        }
        Ok(())
    }

    fn take_over(&mut self, data_plane: DataPlane, steered: Vec<Steered>, view: &mut View<'_>) {
        self.steered = steered;
        self.services.resume(data_plane.stats());
        self.data_plane = Some(data_plane);
        // As its own program has made them.
        self.learn_features(view);
        self.choose_fast_silently();
        for line in self.data_plane.iter().flat_map(DataPlane::report) {
            view.say(Level::Info, format_args!("packet I/O: {line}"));
        }
        self.take_ports(view);
        // What has changed while it was being opened.
        self.unadopted.extend(&self.stale);
        self.interfaces_changed = true;
        self.steer(&mut view.voice);
    }

    /// Starts the workers, on the interfaces that virtual addresses live on and real servers are behind, as far
    /// as there are any. By a thread that ends with it: the kernel takes up to a second, and a MASTER has adverts
    /// to send meanwhile.
    ///
    /// # Errors
    /// A sentence that says what to do.
    pub(super) fn begin_to_open(
        &mut self,
        options: &Options,
        calls: Calls,
        (health, vip_interfaces): (&Health, &BTreeSet<u32>),
        view: &mut View<'_>,
    ) -> Result<(), String> {
        // All of it: the interfaces to open follow from it, and no advert is due yet.
        while self
            .hops
            .poll_timeout()
            .is_some_and(|due| due <= view.voice.now)
        {
            if let (_, Some(error)) = self.hops.handle_timeout(view.voice.now, view.netlink) {
                view.say(Level::Error, error);
            }
        }
        for line in LocalWay::sweep(view.netlink) {
            view.say(Level::Warning, line);
        }
        let links = view.netlink.links().map_err(|error| error.to_string())?;
        self.handle_links(&links);
        self.drive_local_way(view);
        self.learn_addresses(view);
        let interfaces = self.choose_interfaces(vip_interfaces);
        if let Some(held) = self.wanted.values().find_map(|lock| lock.as_ref().err()) {
            return Err(held.clone());
        }
        if interfaces.is_empty() {
            view.say(
                Level::Warning,
                "no interface has a virtual address or leads to a real server: waiting for one",
            );
        }
        for (port, spec) in (0..=u8::MAX).zip(&interfaces) {
            let link = self.links.get(&spec.ifindex);
            self.ports.set(PortId(port), link.map(port_info));
        }
        self.learn_addresses(view);
        self.drive_client_ways(view);
        self.take_hops();
        self.fill_table(health, view);
        let table = self.builder.build(1);
        let steered = self.wanted_steering();
        self.fast_path = options.fast_path;
        let wishes = DataPlaneOptions {
            io: options.io,
            xdp: options.xdp,
            connections: options.connections,
            workers: options.workers,
            cpus: options.cpus.clone(),
            busy_poll: options.busy_poll,
            spin: options.spin,
            fast: (options.fast_path != FastPath::Off)
                .then(|| fast::sizes(options.connections, self.services.real_count())),
            steered: steered.clone(),
            others: self.interfaces_beside(&interfaces),
            heirs: fast::heirs(&table, &self.services),
            folder: takeover::folder(&options.socket),
        };
        let (sender, answer) = mpsc::channel();
        let open = move || {
            let asked = calls.asked.clone();
            // Nobody listens any more when the daemon stops.
            let _ = sender.send(DataPlane::open(&interfaces, wishes, table, calls));
            asked();
        };
        scheduling::spawn("xvs-open".to_owned(), open)
            .map_err(|error| format!("starting a thread to open the data plane: {error}"))?;
        self.opening = Some(Opening { answer, steered });
        Ok(())
    }

    /// This host has, or is about to lose, the addresses `vips` of a VRRP instance.
    pub(super) fn hold(
        &mut self,
        on: bool,
        vips: impl Iterator<Item = IpAddr>,
        voice: &mut Voice<'_>,
    ) {
        self.services.hold(on, vips);
        self.steer(voice);
    }

    /// Whether a worker has ended without being asked to.
    pub(super) fn has_ended(&self) -> bool {
        self.data_plane.as_ref().is_some_and(DataPlane::has_ended)
    }

    /// Takes a notification of the kernel.
    pub(super) fn handle_notification(&mut self, now: Instant, event: &monitor::Event) {
        match event {
            monitor::Event::Neighbour(neighbour) => {
                self.hops.handle_neighbour(neighbour);
                if let Some(ways) = &mut self.ways {
                    self.changed |= ways.handle_neighbour(neighbour);
                }
            }
            monitor::Event::NeighbourRemoved(neighbour) => {
                if let Some(ways) = &mut self.ways {
                    self.changed |= ways.handle_neighbour_removed(neighbour);
                }
            }
            monitor::Event::Address(_) | monitor::Event::AddressRemoved(_) => {
                self.routes_changed(now);
                self.addresses.want(now);
            }
            monitor::Event::RouteChanged => self.routes_changed(now),
            monitor::Event::Link(_) | monitor::Event::LinkRemoved(_) => self.routes_changed(now),
            monitor::Event::Overflow => {
                self.hops.handle_overflow(now);
                self.routes_changed(now);
                self.addresses.want(now);
            }
        }
    }

    /// An interface exists, as it is now.
    pub(super) fn handle_link(&mut self, link: &Link) {
        self.links.insert(link.index, link.clone());
        self.interfaces_changed = true;
    }

    /// An interface is gone.
    pub(super) fn handle_link_removed(&mut self, ifindex: u32) {
        self.links.remove(&ifindex);
        self.interfaces_changed = true;
    }

    /// These interfaces exist, and no others.
    pub(super) fn handle_links(&mut self, links: &[Link]) {
        let links = links.iter().map(|link| (link.index, link.clone()));
        self.links = links.collect();
        self.interfaces_changed = true;
    }

    /// Health checks have changed their minds about these virtual servers.
    pub(super) fn handle_health(&mut self, changed: impl IntoIterator<Item = ServiceId>) {
        self.stale.extend(changed);
    }

    /// Does what is due.
    pub(super) fn drive(
        &mut self,
        (health, vip_interfaces): (&Health, &BTreeSet<u32>),
        view: &mut View<'_>,
    ) {
        let now = view.voice.now;
        self.drive_client_ways(view);
        if self.addresses.take(now) {
            self.learn_addresses(view);
        }
        if self.hops.poll_timeout().is_some_and(|at| at <= now)
            && let (_, Some(error)) = self.hops.handle_timeout(now, view.netlink)
        {
            view.say(Level::Error, error);
        }
        self.drive_local_way(view);
        self.drive_interfaces(vip_interfaces, view);
        self.drive_ports(view);
        self.take_hops();
        if now >= self.housekeeping_at {
            self.housekeeping_at = now + HOUSEKEEPING;
            self.keep_house(view);
        }
        if let Some(data_plane) = &self.data_plane {
            let count = || self.services.real_count();
            if let Some(share) = self.sampling.take(now, count) {
                let sampled = self.services.estimate(share, data_plane.stats());
                data_plane.keep(sampled);
            }
            if now >= self.compare_at {
                self.compare_at = now + COMPARE;
                data_plane.compare(self.services.counted());
            }
        }
        self.publish(health, view);
        match self.steering {
            Steering::AfterAdoption if self.is_adopted() => self.steer(&mut view.voice),
            Steering::Again(at) if at <= now => {
                let done = self.data_plane.as_mut().map(|it| it.steering().reconcile());
                self.note_steering(done.unwrap_or_default(), &mut view.voice);
            }
            _ => {}
        }
    }

    /// When [`Self::drive`] has something to do next.
    pub(super) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let data_plane = self.data_plane.as_ref();
        let several = data_plane.filter(|it| it.has_several());
        let steering = match self.steering {
            Steering::Settled => None,
            Steering::AfterAdoption => Some(now + ADOPTION),
            Steering::Again(at) => Some(at),
        };
        let next = [
            several.map(|_| self.compare_at),
            self.hops.poll_timeout(),
            self.ways.as_ref().and_then(ClientWays::poll_timeout),
            self.addresses.poll_timeout(),
            self.local_way.poll_timeout(),
            self.publishing.poll_timeout(),
            Some(self.housekeeping_at),
            data_plane.map(|_| self.sampling.poll_timeout()),
            self.look.poll_timeout(),
            data_plane.and_then(DataPlane::poll_timeout),
            self.locks_at,
            self.asked.then_some(now),
            steering,
        ];
        next.into_iter().flatten().min()
    }

    fn keep_house(&mut self, view: &mut View<'_>) {
        let Some(data_plane) = &mut self.data_plane else {
            return;
        };
        data_plane.collect();
        data_plane.fit_fast();
        for line in data_plane.frame_news() {
            view.say(Level::Warning, format_args!("packet I/O: {line}"));
        }
        // What could not be asked for when it was lost.
        self.handle_features(view);
        let data_plane = self.data_plane.as_ref();
        // Before that, workers may still give connections to what drains.
        let stats = data_plane.filter(|_| self.services.is_draining() && self.is_adopted());
        if let Some(stats) = stats.map(DataPlane::stats) {
            let drained = self.services.drain(stats, &mut self.hops);
            if !drained.is_empty() {
                self.stale.extend(&drained);
                self.unadopted.extend(drained);
                self.publishing.want(view.voice.now);
                self.steer(&mut view.voice);
            }
        }
        let is_open = |ifindex| self.ports.with(ifindex).is_some();
        let problems = self.hops.problems(is_open);
        let problems = problems.filter(|(address, _)| !self.routers.contains(address));
        for report in self.outages.handle_tick(problems) {
            view.say(report.level(), report);
        }
    }

    /// Routes may have changed.
    fn routes_changed(&mut self, now: Instant) {
        self.hops.handle_routes(now);
        self.interfaces_changed = true;
        if let Some(ways) = &mut self.ways {
            ways.handle_routes(now);
        }
    }

    /// Tells the table of next hops that are not what they were.
    fn take_hops(&mut self) {
        let mut turned = BTreeSet::new();
        let changed = self.hops.take_changed();
        self.interfaces_changed |= !changed.is_empty();
        for (address, id) in changed {
            let way = way(address, &self.hops, &self.ports);
            let hop = Hop {
                next: way.ok(),
                local: self.hops.hop(address).ok().and_then(|hop| hop.source),
            };
            self.changed |= self.builder.set_hop(id, hop);
            let lasts = way.is_err_and(next_hops::Problem::is_lasting);
            let differs = if lasts {
                self.unreachable.insert(address)
            } else {
                self.unreachable.remove(&address)
            };
            let moved = if self.hops.is_local(address) {
                self.on_host.insert(address)
            } else {
                self.on_host.remove(&address)
            };
            if differs || moved {
                turned.insert(address);
            }
        }
        if !turned.is_empty() {
            self.stale.extend(self.services.users(&turned));
        }
    }

    /// Looks up the ways to clients that may have changed, and those that workers ask for.
    fn drive_client_ways(&mut self, view: &mut View<'_>) {
        let Some(ways) = &mut self.ways else {
            return;
        };
        let now = view.voice.now;
        let mut failed = None;
        if ways.poll_timeout().is_some_and(|at| at <= now) {
            match ways.handle_timeout(now, &self.ports, view.netlink) {
                Ok(None) => {}
                Ok(Some((changed, routers))) => {
                    self.changed |= changed;
                    // Asked about all the time, so that they are known before they are needed.
                    for router in routers.difference(&self.routers) {
                        self.hops.track(now, *router);
                    }
                    for router in self.routers.difference(&routers) {
                        self.hops.untrack(*router);
                    }
                    self.routers = routers;
                }
                Err(error) => failed = Some(error),
            }
        }
        let asked = || self.data_plane.as_ref().and_then(DataPlane::asked);
        self.asked = false;
        let mut left = ASKED_PER_TURN;
        while let Some((port, ip)) = asked() {
            if left == 0 {
                // That one is asked for again by the next packet.
                self.asked = true;
                break;
            }
            left -= 1;
            if let Some(port) = self.ports.get(port) {
                match ways.ask(now, port, ip, view.netlink) {
                    Ok(changed) => self.changed |= changed,
                    Err(error) => failed = failed.or(Some(error)),
                }
            }
        }
        if let Some(error) = failed {
            view.say(Level::Error, error);
        }
    }

    fn is_adopted(&self) -> bool {
        let data_plane = self.data_plane.as_ref();
        data_plane.is_none_or(DataPlane::is_adopted)
            && self.publishing.poll_timeout().is_none()
            && self.stale.is_empty()
    }

    fn publish(&mut self, health: &Health, view: &mut View<'_>) {
        if self.data_plane.is_none() {
            return;
        }
        if self.changed || self.environment_changed || !self.stale.is_empty() {
            self.publishing.want(view.voice.now);
        }
        if !self.publishing.take(view.voice.now) {
            return;
        }
        self.fill_table(health, view);
        let Some(data_plane) = &self.data_plane else {
            return;
        };
        let table = self.builder.build(data_plane.next_generation());
        self.narrow_fast(&table);
        if let Some(data_plane) = &mut self.data_plane {
            data_plane.publish(table);
        }
        self.widen_fast();
    }

    /// Brings what the next table is built from up to date.
    fn fill_table(&mut self, health: &Health, view: &mut View<'_>) {
        let stale = std::mem::take(&mut self.stale);
        let specs: Vec<_> = stale
            .iter()
            .filter(|id| !self.leaving.contains(id))
            .filter_map(|id| self.services.spec(*id, health, &self.hops, &self.ports))
            .collect();
        let leaving = std::mem::take(&mut self.leaving);
        if let Err(error) = self.builder.apply(&leaving, &specs) {
            view.say(
                Level::Error,
                format_args!("not all of it goes into the table: {error}"),
            );
            leaving.iter().for_each(|id| self.builder.remove(*id));
            for spec in &specs {
                if let Err(error) = self.builder.set(spec) {
                    view.say(
                        Level::Error,
                        format_args!("virtual server not renewed: {error}"),
                    );
                }
            }
        }
        self.services.forget(&leaving, &mut self.hops);
        if std::mem::take(&mut self.environment_changed) {
            (self.builder).set_environment(self.services.environment(&self.ports));
        }
        let routes = match &mut self.ways {
            Some(ways) => ways.table(&self.ports),
            None => Arc::default(),
        };
        self.builder.set_routes(routes);
        self.changed = false;
    }
}
