//! The daemon: starts everything in its order, runs the loop, and stops in the reverse order.
//!
//! One turn of the loop: adverts first, then what is due, then everything else that happened; a new
//! table is published at the end if anything changed. Nothing in it waits but the poll.

mod answers;
mod start;
mod ways;

pub(super) use start::lock_path;

use std::{
    collections::BTreeSet,
    net::IpAddr,
    path::PathBuf,
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime},
};

use hdrhistogram::Histogram;
use mio::{Events, Poll, Registry, Token};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook_mio::v1_0::Signals;

use super::{
    admin::AdminSocket,
    client_ways::ClientWays,
    data_plane::{DataPlane, IoWish, XdpWish, raise_limits},
    enquiries::Enquiries,
    interfaces::Interfaces,
    last_will,
    log::Log,
    next_hops::NextHops,
    outages::Outages,
    pace::Pace,
    placement::CpuList,
    probes::TcpProbes,
    sampling::Sampling,
    services::{PortInfo, Services},
    vrrp_io::{Env, VrrpIo},
};
use crate::{
    balance::{MaglevTables, ServiceTable},
    check::{Action, Health, Probe},
    config::Config,
    stats::WorkerStats,
    sys::{
        clock,
        guardian::Guardian,
        instance_lock::InterfaceLock,
        limits,
        monitor::{self, Monitor},
        netlink::{Link, Netlink},
    },
    time::Instant,
};

const SIGNALS: Token = Token(0);
const MONITOR: Token = Token(1);
const WORKERS: Token = Token(2);
const GUARDIAN: Token = Token(3);
const FIRST_ADMIN: usize = 16;
const FIRST_VRRP: usize = FIRST_ADMIN + AdminSocket::TOKENS;
/// Above every interface index that a socket could be registered by.
const FIRST_PROBE: usize = 1 << 16;

/// Events taken from one poll; more wait for the next turn, after the adverts.
const EVENTS_PER_TURN: usize = 256;
/// Probes started in one turn: some 30 µs each.
const PROBES_PER_TURN: usize = 64;
/// Netlink notifications handled in one turn.
const NOTIFICATIONS_PER_TURN: usize = 256;
/// How often old tables are freed and lasting problems looked for.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// Least time between two looks at all addresses of this host: a MASTER adds its VIPs one by one.
const ADDRESSES: Duration = Duration::from_millis(100);
/// How often several workers are told of each other's connections: their schedulers and thresholds lag by
/// as much.
const COMPARE: Duration = Duration::from_millis(100);
/// Least time between two tables: thousands of checks can change their minds in a second, and a
/// table of 10,000 real servers takes 1 to 4 ms to build.
const PUBLISH_PERIOD: Duration = Duration::from_millis(10);

/// What `xvs run` is told beside the configuration.
#[derive(Clone, Debug)]
pub struct Options {
    /// The control socket; a lock file is beside it.
    pub socket: PathBuf,
    /// How packets are to come and go.
    pub io: IoWish,
    /// How far to go with XDP.
    pub xdp: XdpWish,
    /// Connections that the workers' tables have room for, together.
    pub connections: usize,
    /// How many workers; `None`: one for each queue of the interface that has most, at most one for each
    /// processor.
    pub workers: Option<u32>,
    /// The processors of the workers, in their order.
    pub cpus: Option<CpuList>,
    /// Whether the workers do the drivers' receive work, instead of interrupts.
    pub busy_poll: bool,
    /// How long a worker without packets goes on looking before it sleeps.
    pub spin: Duration,
}

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// A sentence: what could not be set up, or what ended while it ran.
pub fn run(config: &Config, options: &Options) -> Result<(), String> {
    if config.vrrp_instances.is_empty() && config.virtual_servers.is_empty() {
        return Err(
            "the configuration has neither a vrrp_instance nor a virtual_server".to_owned(),
        );
    }
    let mut log = Log::new();
    if let Some(folder) = options.socket.parent() {
        std::fs::create_dir_all(folder)
            .map_err(|error| format!("creating {}: {error}", folder.display()))?;
    }
    let missing = limits::capabilities_missing().unwrap_or_default();
    if !missing.is_empty() {
        return Err(format!(
            "missing capabilities: {}; run as root",
            missing.join(", ")
        ));
    }
    for note in raise_limits() {
        log.line(clock::wall(), note);
    }
    let lock_path = lock_path(&options.socket);
    let lock = start::lock(&lock_path)?;
    // Before any thread and any large memory: the guardian is a copy of this process.
    let guardian = Guardian::spawn(last_will::execute)
        .map_err(|error| format!("starting the guardian: {error}"))?;
    let engine = Engine::start(config, options, log, guardian, lock_path)?;
    let outcome = engine.run();
    drop(lock);
    outcome
}

struct Engine {
    poll: Poll,
    signals: Signals,
    netlink: Netlink,
    monitor: Monitor,
    log: Log,
    guardian: Guardian,
    lock_path: PathBuf,
    will: Vec<u8>,
    vrrp: VrrpIo,
    interfaces: Interfaces,
    services: Services,
    health: Health,
    probes: TcpProbes,
    hops: NextHops,
    /// The ways to clients, where anything for them passes here.
    ways: Option<ClientWays>,
    ports: Vec<PortInfo>,
    maglev: MaglevTables,
    /// The addresses of this host may have changed.
    addresses: Pace,
    /// The addresses of this host that the steering program knows.
    locals: BTreeSet<IpAddr>,
    interface_locks: Vec<InterfaceLock>,
    data_plane: Option<DataPlane>,
    admin: Option<AdminSocket>,
    admin_registry: Rc<Registry>,
    enquiries: Enquiries,
    /// Notifications wait that no event will tell of.
    notified: bool,
    /// The table in use is not what it should be.
    stale: bool,
    publishing: Pace,
    sampling: Sampling,
    housekeeping_at: Instant,
    /// When several workers are told of each other's connections next.
    compare_at: Instant,
    /// How late VRRP timers were served, in microseconds.
    lateness: Histogram<u64>,
    outages: Outages,
    stopping: bool,
    failure: Option<String>,
}

impl Engine {
    fn build_table(&mut self, generation: u64) -> Result<ServiceTable, String> {
        let specs = self.services.specs(&self.health, &self.hops, &self.ports);
        let routes = match &mut self.ways {
            Some(ways) => ways.table(&self.ports),
            None => Arc::default(),
        };
        let environment = self.services.environment(&self.ports, routes);
        ServiceTable::build_with(generation, &specs, environment, &mut self.maglev)
            .map_err(|error| error.to_string())
    }

    fn run(mut self) -> Result<(), String> {
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        let mut more = false;
        while !self.stopping {
            more = self.turn(more, &mut events);
        }
        self.stop()
    }

    /// One turn. Whether work is left that needs no event to go on.
    fn turn(&mut self, more: bool, events: &mut Events) -> bool {
        let timeout = if more {
            Some(Duration::ZERO)
        } else {
            self.timeout()
        };
        if let Err(error) = self.poll.poll(events, timeout)
            && error.kind() != std::io::ErrorKind::Interrupted
        {
            self.fail(format!("waiting for events: {error}"));
            return false;
        }
        let (now, wall) = (clock::now(), clock::wall());
        if let Some(due) = self.vrrp.poll_timeout().filter(|due| *due <= now) {
            let late = u64::try_from((now - due).as_micros()).unwrap_or(u64::MAX);
            self.lateness.saturating_record(late);
        }
        let more = self.drive_vrrp(now, wall);
        for event in events.iter() {
            match event.token() {
                SIGNALS => self.handle_signals(),
                MONITOR => self.notified = true,
                // What they ask for is looked up below in any case.
                WORKERS if self.data_plane.as_ref().is_some_and(DataPlane::has_ended) => {
                    self.fail("a worker has ended".to_owned());
                }
                WORKERS => {}
                GUARDIAN if !self.guardian.is_alive() => {
                    self.say(
                        "the guardian has ended: a crash now would leave the virtual addresses",
                    );
                }
                GUARDIAN => {}
                token if self.probes.owns(token) => self.probes.handle_event(token),
                Token(token) if token >= FIRST_VRRP => {}
                _ => self.with_admin(|admin, registry, answer| {
                    admin.handle_event(now, registry, event, answer);
                }),
            }
        }
        if self.notified {
            self.notified = self.handle_notifications(now, wall);
        }
        let more = more | self.notified | self.drive_checks(now, wall);
        self.drive_next_hops(now, wall);
        self.drive_enquiries(now);
        if self.admin_timeout().is_some_and(|at| at <= now) {
            self.with_admin(|admin, registry, answer| admin.handle_timeout(now, registry, answer));
        }
        if now >= self.housekeeping_at {
            self.housekeeping_at = now + HOUSEKEEPING;
            self.keep_house(wall);
        }
        self.sample_rates(now);
        if now >= self.compare_at {
            self.compare_at = now + COMPARE;
            if let Some(data_plane) = &self.data_plane {
                data_plane.compare(self.services.counted());
            }
        }
        self.publish(now);
        more
    }

    fn timeout(&self) -> Option<Duration> {
        let several = self.data_plane.as_ref().filter(|it| it.has_several());
        let next = [
            several.map(|_| self.compare_at),
            self.vrrp.poll_timeout(),
            self.health.poll_timeout(),
            self.probes.poll_timeout(),
            self.hops.poll_timeout(),
            self.ways.as_ref().and_then(ClientWays::poll_timeout),
            self.addresses.poll_timeout(),
            self.admin_timeout(),
            self.enquiries.poll_timeout(),
            self.publishing.poll_timeout(),
            Some(self.housekeeping_at),
            Some(self.sampling.poll_timeout()),
        ];
        let now = clock::now();
        next.into_iter().flatten().min().map(|at| at - now)
    }

    /// Adverts in, timers, and what follows from both.
    fn drive_vrrp(&mut self, now: Instant, wall: SystemTime) -> bool {
        let mut env = Env {
            now,
            wall,
            netlink: &mut self.netlink,
            log: &mut self.log,
        };
        let more = self.vrrp.receive(&mut env);
        self.vrrp.handle_timeout(&mut env);
        self.carry_out(now, wall);
        more
    }

    fn carry_out(&mut self, now: Instant, wall: SystemTime) {
        if self.vrrp.is_about_to_add() {
            self.leave_will();
        }
        let Self {
            vrrp,
            services,
            data_plane,
            netlink,
            log,
            ..
        } = self;
        let mut env = Env {
            now,
            wall,
            netlink,
            log,
        };
        let changed = vrrp.carry_out(&mut env, &mut |env, vips, on| {
            let change = services.hold(on, vips.iter().map(|vip| vip.prefix.addr()));
            let Some(data_plane) = data_plane else { return };
            let steering = data_plane.steering();
            for what in &change.added {
                if let Err(error) = steering.add(what) {
                    env.log
                        .line(env.wall, format_args!("start steering {what}: {error}"));
                }
            }
            for what in &change.removed {
                if let Err(error) = steering.remove(what) {
                    env.log
                        .line(env.wall, format_args!("stop steering {what}: {error}"));
                }
            }
        });
        if changed {
            self.leave_will();
        }
    }

    /// Tells the guardian what is to be undone should this process die now.
    fn leave_will(&mut self) {
        let will = last_will::write(&self.vrrp, &self.lock_path);
        if will != self.will {
            if let Err(error) = self.guardian.update(&will) {
                self.say(format_args!("the guardian cannot be told: {error}"));
            }
            self.will = will;
        }
    }

    fn handle_signals(&mut self) {
        let pending: Vec<i32> = self.signals.pending().collect();
        for signal in pending {
            match signal {
                SIGTERM | SIGINT => self.stopping = true,
                SIGHUP => self.say("SIGHUP: this version cannot reload; restart to apply changes"),
                _ => self.say("SIGUSR1, SIGUSR2: use `xvs list --json` and `xvs vrrp --json`"),
            }
        }
    }

    fn handle_notifications(&mut self, now: Instant, wall: SystemTime) -> bool {
        let mut touched = Vec::new();
        let mut more = true;
        for _ in 0..NOTIFICATIONS_PER_TURN {
            match self.monitor.poll_event() {
                Ok(Some(event)) => self.handle_notification(now, event, &mut touched),
                Ok(None) => {
                    more = false;
                    break;
                }
                Err(error) => {
                    self.say(format_args!("netlink notifications: {error}"));
                    more = false;
                    break;
                }
            }
        }
        touched.sort_unstable();
        touched.dedup();
        // The address that adverts come from may be another.
        let changed = !touched.is_empty();
        for ifindex in touched {
            let mut env = Env {
                now,
                wall,
                netlink: &mut self.netlink,
                log: &mut self.log,
            };
            self.vrrp.handle_addresses(&mut env, ifindex);
        }
        self.carry_out(now, wall);
        if changed {
            self.leave_will();
        }
        more
    }

    fn handle_notification(&mut self, now: Instant, event: monitor::Event, touched: &mut Vec<u32>) {
        match event {
            monitor::Event::Link(link) => {
                self.handle_link(now, &link);
                touched.push(link.index);
            }
            monitor::Event::LinkRemoved(link) => self.handle_link_removed(now, &link),
            monitor::Event::Address(address) | monitor::Event::AddressRemoved(address) => {
                touched.push(address.ifindex);
                self.routes_changed(now);
                self.addresses.want(now);
            }
            monitor::Event::Neighbour(neighbour) => {
                self.stale |= self.hops.handle_neighbour(&neighbour);
                if let Some(ways) = &mut self.ways {
                    self.stale |= ways.handle_neighbour(&neighbour);
                }
            }
            monitor::Event::NeighbourRemoved(neighbour) => {
                if let Some(ways) = &mut self.ways {
                    self.stale |= ways.handle_neighbour_removed(&neighbour);
                }
            }
            monitor::Event::RouteChanged => self.routes_changed(now),
            monitor::Event::Overflow => {
                self.say("netlink notifications were lost: looking everything up again");
                self.hops.handle_overflow(now);
                self.routes_changed(now);
                self.addresses.want(now);
                match self.netlink.links() {
                    Ok(links) => {
                        for link in self.interfaces.absent(&links) {
                            self.handle_link_removed(now, &link);
                        }
                        for link in links {
                            self.handle_link(now, &link);
                            touched.push(link.index);
                        }
                    }
                    Err(error) => self.say(error),
                }
            }
        }
    }

    fn handle_link_removed(&mut self, now: Instant, link: &Link) {
        if self.interfaces.is_lost(link) {
            self.say(format_args!(
                "{} is gone: what belongs to it is lost, restart xvs when it is back",
                link.name
            ));
        }
        self.link_changed(now, link, false);
    }

    fn handle_link(&mut self, now: Instant, link: &Link) {
        if self.interfaces.is_replacement(link) {
            self.fail(format!(
                "{} is another interface than before: xvs must be started anew for it",
                link.name
            ));
            return;
        }
        self.link_changed(now, link, link.is_usable());
    }

    fn link_changed(&mut self, now: Instant, link: &Link, usable: bool) {
        self.vrrp.handle_link(now, link, usable);
        self.routes_changed(now);
        let port = self
            .ports
            .iter_mut()
            .find(|port| port.ifindex == link.index);
        let (Some(port), Some(mac)) = (port, link.mac) else {
            return;
        };
        if (port.mtu, port.mac) == (link.mtu, mac) {
            return;
        }
        port.mtu = link.mtu;
        if let Some(ways) = &mut self.ways {
            ways.handle_port();
        }
        self.stale = true;
        if port.mac == mac {
            return;
        }
        let former = std::mem::replace(&mut port.mac, mac);
        let Some(data_plane) = &mut self.data_plane else {
            return;
        };
        let steering = data_plane.steering();
        let done = steering
            .add_station(link.index, mac)
            .and_then(|()| steering.remove_station(link.index, former));
        if let Err(error) = done {
            self.say(format_args!(
                "steering the new address of {}: {error}",
                link.name
            ));
        }
    }

    /// Probes' results, checkers' timers, and what they change. Whether more probes are to start.
    fn drive_checks(&mut self, now: Instant, wall: SystemTime) -> bool {
        self.probes.handle_timeout(now);
        self.take_results(now);
        self.health.handle_timeout(now);
        let mut left = PROBES_PER_TURN;
        while left > 0
            && let Some(Action::Probe {
                checker,
                probe: Probe::Tcp(probe),
                ..
            }) = self.health.poll_action()
        {
            left -= 1;
            if let Err(error) = self.probes.start(now, checker, &probe) {
                self.health.handle_deferral(now, checker, error.deferral());
            }
        }
        // Some are known at once: a refused connection to an address of this host.
        self.take_results(now);
        while let Some(event) = self.health.poll_event() {
            self.log.line(wall, event);
            self.stale = true;
        }
        left == 0
    }

    fn take_results(&mut self, now: Instant) {
        while let Some((checker, result)) = self.probes.poll_result() {
            self.health.handle_result(now, checker, result);
        }
    }

    fn drive_next_hops(&mut self, now: Instant, wall: SystemTime) {
        self.drive_client_ways(now, wall);
        if self.addresses.take(now) {
            self.learn_addresses();
        }
        if self.hops.poll_timeout().is_none_or(|at| at > now) {
            return;
        }
        let (changed, error) = self.hops.handle_timeout(now, &mut self.netlink);
        self.stale |= changed;
        if let Some(error) = error {
            self.log.line(wall, error);
        }
    }

    fn publish(&mut self, now: Instant) {
        if std::mem::take(&mut self.stale) {
            self.publishing.want(now);
        }
        if !self.publishing.take(now) {
            return;
        }
        let Some(generation) = self.data_plane.as_ref().map(DataPlane::next_generation) else {
            return;
        };
        match self.build_table(generation) {
            Ok(table) => {
                if let Some(data_plane) = &mut self.data_plane {
                    data_plane.publish(table);
                }
            }
            Err(error) => self.say(format_args!("the table is not renewed: {error}")),
        }
    }

    fn sample_rates(&mut self, now: Instant) {
        let share = self.sampling.take(now, self.services.real_count());
        if let (Some(share), Some(data_plane)) = (share, &self.data_plane) {
            self.services.estimate(share, data_plane.stats());
        }
    }

    fn keep_house(&mut self, wall: SystemTime) {
        let Some(data_plane) = &mut self.data_plane else {
            return;
        };
        data_plane.collect();
        for line in data_plane.interface_news(clock::now()) {
            self.log.line(wall, line);
        }
        if data_plane.has_ended() {
            self.fail("a worker has ended".to_owned());
        }
        let problems = self.services.unreachable(&self.hops, &self.ports);
        for report in self.outages.handle_tick(problems) {
            self.log.line(wall, report);
        }
    }

    /// Gives way to other routers, takes the addresses off, stops the workers, detaches the program.
    fn stop(mut self) -> Result<(), String> {
        let (now, wall) = (clock::now(), clock::wall());
        self.say("stopping");
        self.vrrp.stop(now);
        self.carry_out(now, wall);
        if let Some(mut data_plane) = self.data_plane.take() {
            match data_plane.stop() {
                Ok(account) => self.say_account(&data_plane, account),
                Err(error) => self.failure = self.failure.take().or(Some(error)),
            }
            if let Err(error) = data_plane.detach() {
                self.say(format_args!("detaching the steering program: {error}"));
            }
        }
        self.say("stopped");
        if let Err(error) = self.guardian.goodbye() {
            self.log
                .line(clock::wall(), format_args!("the guardian: {error}"));
        }
        self.failure.map_or(Ok(()), Err)
    }

    fn say_account(&mut self, data_plane: &DataPlane, account: crate::dataplane::io::FrameAccount) {
        let stats = data_plane.stats();
        let (received, cut, sent, dropped) = (
            stats.sum(|worker| worker.frames_in.get()),
            stats.sum(|worker| worker.cut.get()),
            stats.sum(|worker| worker.frames_out.get()),
            stats.sum(WorkerStats::dropped),
        );
        let kept = account.is_settled() && received + cut == sent + dropped;
        let verdict = if kept {
            "frames conserved"
        } else {
            "FRAMES LOST"
        };
        self.say(format_args!(
            "{verdict}: {received} received + {cut} cut off = {sent} sent + {dropped} dropped; {} in all = {} in the \
             kernel ({} in rings) + {} free + {} in hand",
            account.whole,
            account.in_kernel,
            account.in_rings,
            account.free + account.spare,
            account.in_hand
        ));
        if !kept {
            self.failure = Some("frames were lost".to_owned());
        }
    }

    fn fail(&mut self, why: String) {
        self.say(&why);
        self.failure = Some(why);
        self.stopping = true;
    }

    fn say(&mut self, text: impl std::fmt::Display) {
        self.log.line(clock::wall(), text);
    }
}
