//! The daemon: starts everything in its order, runs the loop, and stops in the reverse order.
//!
//! One turn of the loop: adverts first, then what is due, then everything else that happened; a new
//! table is published at the end if anything changed. Nothing in it waits but the poll.
//!
//! Each part (forwarding, checks, VRRP, the control socket, the reader of the configuration) is driven
//! alike: `handle_*` with what happened, `drive` when something is due, `poll_timeout` for when that is.

mod address_log;
mod answers;
mod apply;
mod herald;
mod priorities;
mod reload;
mod reload_file;
mod signals;
mod start;
mod token;

pub use self::{herald::Started, signals::number as signal_number};
pub(super) use start::lock_path;

use std::{
    collections::BTreeSet,
    path::PathBuf,
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime},
};

use hdrhistogram::Histogram;
use mio::{Events, Poll, Registry};
use signal_hook_mio::v1_0::Signals;

use self::{
    address_log::AddressLog, herald::Herald, priorities::Priorities, reload::Reload, token::Part,
};
use super::{
    admin::{AdminSocket, Ticket, enquiries::Enquiries},
    checks::Checks,
    dump::Dumps,
    forwarding::{
        Forwarding, View, Voice,
        data_plane::{IoWish, XdpWish, raise_limits},
        placement::CpuList,
    },
    identity::Identity,
    load::Source,
    lock_file::{self, LockFile},
    log::{self, Level, Line, Log, Room},
    pid_files::PidFiles,
    reload_time::ReloadTime,
    repeats::{Repeats, Reports},
    scripts::{self, Stops},
    vrrp::{Env, Vrrp, last_will},
};
use crate::{
    config::{Config, FastPath},
    sys::{
        clock,
        guardian::Guardian,
        instance_lock::InstanceLock,
        limits,
        monitor::{self, Monitor},
        netlink::Netlink,
        notify::Manager,
    },
    time::Instant,
};

/// Events taken from one poll; more wait for the next turn, after the adverts.
const EVENTS_PER_TURN: usize = 256;
/// Netlink notifications handled in one turn.
const NOTIFICATIONS_PER_TURN: usize = 256;
/// How often it is looked whether files are where they should be, and whether lines of the log were lost.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// What `xvs run` is told beside the configuration.
#[derive(Clone, Debug)]
pub struct Options {
    /// The configuration, to be read anew for a reload.
    pub source: Source,
    /// The control socket; a lock file is beside it, and what signals ask for is written there.
    pub socket: PathBuf,
    /// What tells this daemon from others on the machine.
    pub identity: Identity,
    /// Files to hold the process id while it runs, mode 0644. Default none.
    pub pid_files: Vec<PathBuf>,
    /// Whether virtual addresses stay when it is told to stop, and no other router is told that it stops
    /// (keepalived's `-V`). Default false.
    pub keep_addresses: bool,
    /// Whether established connections on the fast path go on when it stops: keepalived's `--dont-release-ipvs`. The
    /// steering program stays then, and drops what else is the virtual servers'.
    pub keep_forwarding: bool,
    /// Whether each address that comes to an interface or goes from one is logged (keepalived's `-a`). Default false.
    pub log_addresses: bool,
    /// Whether SIGINT does nothing, for a debugger. Default false.
    pub ignore_sigint: bool,
    /// Lines that the log begins with: what there is to say about the configuration.
    pub remarks: Vec<Line>,
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
    /// Where the steering program forwards established connections itself.
    pub fast_path: FastPath,
    /// What to say, and where to.
    pub log: log::Options,
}

/// Runs the daemon until it is told to stop. `started` is called once it elects and forwards; before that, it is a
/// failed start if this returns.
///
/// # Errors
/// A sentence: what could not be set up, or what ended while it ran. It is in the log, too, unless that is
/// standard error, where the caller says it.
pub fn run(config: Config, options: &Options, started: Started) -> Result<(), String> {
    let tell = |why: &String| {
        let mut elsewhere = options.log.clone();
        let stderr = &log::Destination::Stderr;
        elsewhere.destinations.retain(|place| place != stderr);
        let now = (clock::now(), clock::wall());
        Log::new(&elsewhere).say(now, Room::Control, Level::Error, why);
    };
    let (lock, signals, stops, _pid_files) = claim(options).inspect_err(tell)?;
    let mut last = config.global.scripts.clone();
    let mut remarks = scripts::remarks(&last);
    let (lines, interrupted) = scripts::startup(&last, stops);
    remarks.extend(lines);
    let outcome = if interrupted {
        Err("told to stop before it had started: startup_script was killed".to_owned())
    } else {
        set_up(config, options, (lock, signals), &remarks, started)
    };
    // Whatever the first script has prepared, and however far the start has come.
    let mut lock_file = None;
    let outcome = outcome.inspect_err(tell).and_then(|engine| {
        let ended = engine.run();
        last.clone_from(&ended.config.global.scripts);
        lock_file = Some(ended.lock_file);
        ended.outcome
    });
    scripts::shutdown(&last, options.ignore_sigint, &options.log);
    drop(lock_file);
    outcome
}

/// What an engine leaves.
struct Ended {
    outcome: Result<(), String>,
    /// What ran at the end.
    config: Arc<Config>,
    /// Given up last: then nothing of it is left.
    lock_file: LockFile,
}

/// Makes sure that this is the only one, and that it may run at all.
fn claim(options: &Options) -> Result<(InstanceLock, Signals, Stops, PidFiles), String> {
    if let Some(folder) = options.socket.parent() {
        lock_file::make_folder(folder)
            .map_err(|error| format!("creating {}: {error}", folder.display()))?;
    }
    let missing = limits::capabilities_missing().unwrap_or_default();
    if !missing.is_empty() {
        return Err(format!(
            "missing capabilities: {}; run as root",
            missing.join(", ")
        ));
    }
    let lock = start::lock(&lock_path(&options.socket))?;
    // Whoever reads the process id may send one.
    let failed = |error| format!("catching signals: {error}");
    let signals = signals::catch().map_err(failed)?;
    let stops = Stops::notice(options.ignore_sigint).map_err(failed)?;
    let pid_folder = options.identity.pid_folder();
    if options
        .pid_files
        .iter()
        .any(|file| file.starts_with(&pid_folder))
    {
        lock_file::make_folder(&pid_folder)
            .map_err(|error| format!("creating {}: {error}", pid_folder.display()))?;
    }
    let pid_files = PidFiles::write(&options.pid_files)?;
    Ok((lock, signals, stops, pid_files))
}

fn set_up(
    config: Config,
    options: &Options,
    (lock, signals): (InstanceLock, Signals),
    remarks: &[Line],
    started: Started,
) -> Result<Engine, String> {
    let notes = raise_limits();
    // Before any thread and any large memory: the guardian is a copy of this process.
    let guardian = Guardian::spawn(|state| last_will::execute(state, &options.log))
        .map_err(|error| format!("starting the guardian: {error}"))?;
    let manager = Manager::from_env();
    // After the guardian: a log may have a thread.
    let mut log = Log::new(&options.log);
    let now = (clock::now(), clock::wall());
    for note in notes {
        log.say(now, Room::Control, Level::Warning, note);
    }
    let manager = manager.unwrap_or_else(|error| {
        let text = format_args!("the service manager is not told anything: NOTIFY_SOCKET: {error}");
        log.say(now, Room::Control, Level::Warning, text);
        None
    });
    for Line { level, text } in options.remarks.iter().chain(remarks) {
        log.say_each(now, Room::Control, *level, text);
    }
    let herald = Herald::new(clock::now(), manager, started);
    Engine::start(config, options, log, guardian, lock, (herald, signals))
}

struct Engine {
    poll: Poll,
    signals: Signals,
    netlink: Netlink,
    monitor: Monitor,
    log: Log,
    guardian: Guardian,
    will: Vec<u8>,
    /// What runs.
    config: Arc<Config>,
    options: Options,
    vrrp: Vrrp,
    forwarding: Forwarding,
    checks: Checks,
    reload: Reload,
    reload_time: ReloadTime,
    dumps: Dumps,
    /// Present if changes of addresses are logged.
    address_log: Option<AddressLog>,
    herald: Herald,
    /// Who has asked for the reload that is under way.
    reloaders: Vec<Ticket>,
    /// Who has asked for one more while it is.
    next_reloaders: Vec<Ticket>,
    admin: Option<AdminSocket>,
    admin_registry: Rc<Registry>,
    enquiries: Enquiries,
    /// Has the control thread look at what other threads have to say.
    waker: Arc<mio::Waker>,
    /// Notifications wait that no event will tell of.
    notified: bool,
    /// How late VRRP timers were served, in microseconds.
    lateness: Histogram<u64>,
    priorities: Priorities,
    /// What is said about notifications that were lost.
    overflows: Repeats,
    /// What is said about what goes on failing.
    reports: Reports<Trouble>,
    /// Which interfaces there are could not be found out.
    unseen: bool,
    /// When it is looked next whether files are where they should be.
    files_at: Instant,
    stopping: bool,
    failure: Option<String>,
    lock_file: LockFile,
}

/// What can go on failing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Trouble {
    DataPlane,
    Guardian,
    Links,
}

impl Engine {
    /// Runs until it is told to stop.
    fn run(mut self) -> Ended {
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
            let late = now - due;
            self.lateness
                .saturating_record(u64::try_from(late.as_micros()).unwrap_or(u64::MAX));
            if let Some(line) = self.priorities.note_lateness(late) {
                self.say_line(&line);
            }
        }
        let more = self.drive_vrrp(now, wall);
        for event in events.iter() {
            match Part::of(event.token()) {
                Some(Part::Signals) => self.handle_signals(),
                Some(Part::Kernel) => self.notified = true,
                // What they ask for is looked up below in any case.
                Some(Part::Threads) => {}
                Some(Part::Guardian) if !self.guardian.is_alive() => {
                    self.say(
                        Level::Error,
                        "the guardian has ended: a crash now would leave the virtual addresses",
                    );
                }
                Some(Part::Checks) => self.checks.handle_event(event.token()),
                Some(Part::Admin) => self.with_admin(|admin, registry, answer| {
                    admin.handle_event(now, registry, event, answer);
                }),
                // Its sockets are read at every turn.
                Some(Part::Guardian | Part::Vrrp) | None => {}
            }
        }
        if self.notified {
            self.notified = self.handle_notifications(now, wall);
        }
        let more = more | self.notified | self.drive_checks(now, wall);
        self.drive_reload_time();
        self.drive_reload(now, wall);
        self.drive_dumps();
        self.finish_to_open(now, wall);
        self.drive_enquiries(now);
        if self.admin_timeout().is_some_and(|at| at <= now) {
            self.with_admin(|admin, registry, answer| admin.handle_timeout(now, registry, answer));
        }
        if self.forwarding.has_ended() {
            self.fail("a worker has ended".to_owned());
            return false;
        }
        if let Some(line) = self.priorities.go_on() {
            self.say_line(&line);
        }
        if now >= self.files_at {
            self.files_at = now + HOUSEKEEPING;
            self.keep_files(now, wall);
            self.make_up_for(now, wall);
            self.tell_status();
        }
        let interfaces: BTreeSet<u32> = self.vrrp.vip_interfaces().collect();
        let ((forwarding, checks), mut view) = parts(self, now, wall);
        forwarding.drive((checks.health(), &interfaces), &mut view);
        self.tell_state(now);
        more
    }

    /// Tells whoever waits for it that it has started, and the watchdog that the loop turns.
    fn tell_state(&mut self, now: Instant) {
        if self.herald.is_waited_for() && self.forwarding.is_ready() {
            self.herald.ready(clock::now());
            self.tell_status();
        }
        self.herald.handle_timeout(now);
    }

    /// Tells how it goes.
    fn tell_status(&mut self) {
        let (masters, instances) = self.vrrp.masters();
        let servers = self.config.virtual_servers.len();
        self.herald.status(
            clock::now(),
            format!("MASTER of {masters} of {instances} VRRP instances, {servers} virtual servers"),
        );
    }

    fn timeout(&self) -> Option<Duration> {
        let now = clock::now();
        let next = [
            self.vrrp.poll_timeout(),
            self.checks.poll_timeout(),
            self.forwarding.poll_timeout(now),
            self.admin_timeout(),
            self.enquiries.poll_timeout(),
            self.herald.poll_timeout(),
            Some(self.files_at),
        ];
        next.into_iter().flatten().min().map(|at| at - now)
    }

    /// Adverts in, timers, and what follows from both.
    fn drive_vrrp(&mut self, now: Instant, wall: SystemTime) -> bool {
        let more = self.with_vrrp((now, wall), |vrrp, env| {
            let more = vrrp.receive(env);
            vrrp.handle_timeout(env);
            more
        });
        self.carry_out(now, wall);
        more
    }

    fn with_vrrp<T>(
        &mut self,
        (now, wall): (Instant, SystemTime),
        act: impl FnOnce(&mut Vrrp, &mut Env<'_>) -> T,
    ) -> T {
        let mut env = Env {
            now,
            wall,
            host: &mut self.netlink,
            log: &mut self.log,
        };
        act(&mut self.vrrp, &mut env)
    }

    fn carry_out(&mut self, now: Instant, wall: SystemTime) {
        if self.vrrp.is_about_to_add() {
            self.leave_will();
        }
        let Self {
            vrrp,
            forwarding,
            netlink,
            log,
            ..
        } = self;
        let mut env = Env {
            now,
            wall,
            host: netlink,
            log,
        };
        let changed = vrrp.carry_out(&mut env, &mut |env, vips, on| {
            let mut voice = Voice {
                now: env.now,
                wall: env.wall,
                log: env.log,
            };
            forwarding.hold(on, vips.iter().copied(), &mut voice);
        });
        if changed {
            self.leave_will();
        }
    }

    /// Tells the guardian what is to be undone should this process die now.
    fn leave_will(&mut self) {
        let will = last_will::write(&self.vrrp, self.lock_file.path());
        if will == self.will {
            return;
        }
        let told = self.guardian.update(&will);
        let what = "telling the guardian what to undo";
        if let Some(line) = self.reports.note(
            clock::now(),
            Trouble::Guardian,
            told.as_ref().copied(),
            what,
        ) {
            self.say_line(&line);
        }
        // Otherwise it is told at the next occasion, and looked for one every second.
        if told.is_ok() {
            self.will = will;
        }
    }

    fn handle_notifications(&mut self, now: Instant, wall: SystemTime) -> bool {
        let ((forwarding, _), mut view) = parts(self, now, wall);
        forwarding.handle_features(&mut view);
        let mut touched = BTreeSet::new();
        let mut more = true;
        for _ in 0..NOTIFICATIONS_PER_TURN {
            match self.monitor.poll_event() {
                Ok(Some(event)) => self.handle_notification((now, wall), &event, &mut touched),
                Ok(None) => {
                    more = false;
                    break;
                }
                Err(error) => {
                    self.say(Level::Error, format_args!("netlink notifications: {error}"));
                    more = false;
                    break;
                }
            }
        }
        // The address that adverts come from may be another.
        let changed = !touched.is_empty();
        for ifindex in touched {
            self.with_vrrp((now, wall), |vrrp, env| vrrp.handle_addresses(env, ifindex));
        }
        self.carry_out(now, wall);
        if changed {
            self.leave_will();
        }
        more
    }

    fn handle_notification(
        &mut self,
        (now, wall): (Instant, SystemTime),
        event: &monitor::Event,
        touched: &mut BTreeSet<u32>,
    ) {
        self.forwarding.handle_notification(now, event);
        if let Some(log) = &mut self.address_log
            && let Some(line) = log.line(event)
        {
            (self.log).say((now, wall), Room::Vrrp, Level::Info, line);
        }
        match event {
            monitor::Event::Link(link) => {
                self.with_vrrp((now, wall), |vrrp, env| vrrp.handle_link(env, link));
                self.forwarding.handle_link(link);
                touched.insert(link.index);
            }
            monitor::Event::LinkRemoved(link) => {
                self.with_vrrp((now, wall), |vrrp, env| vrrp.handle_link_removed(env, link));
                self.forwarding.handle_link_removed(link.index);
            }
            monitor::Event::Address(address) | monitor::Event::AddressRemoved(address) => {
                touched.insert(address.ifindex);
            }
            monitor::Event::Neighbour(_)
            | monitor::Event::NeighbourRemoved(_)
            | monitor::Event::RouteChanged => {}
            monitor::Event::Overflow => {
                if let Some(unsaid) = self.overflows.tell(now) {
                    let line = "netlink notifications were lost: looking everything up again";
                    match unsaid {
                        0 => self.say(Level::Warning, line),
                        _ => self.say(
                            Level::Warning,
                            format_args!("{line} ({unsaid} more since this was last said)"),
                        ),
                    }
                }
                touched.extend(self.look_at_links(now, wall));
            }
        }
    }

    /// Looks all interfaces up; what the kernel does not say now it is asked again in a second.
    fn look_at_links(&mut self, now: Instant, wall: SystemTime) -> Vec<u32> {
        let found = self.netlink.links();
        let outcome = found.as_ref().map(|_| ());
        let line = self
            .reports
            .note(now, Trouble::Links, outcome, "listing the interfaces");
        if let Some(line) = line {
            self.say_line(&line);
        }
        self.unseen = found.is_err();
        let links = found.unwrap_or_default();
        if !self.unseen {
            self.with_vrrp((now, wall), |vrrp, env| vrrp.handle_links(env, &links));
            self.forwarding.handle_links(&links);
        }
        links.iter().map(|link| link.index).collect()
    }

    /// Does again what the kernel or the guardian refused.
    fn make_up_for(&mut self, now: Instant, wall: SystemTime) {
        if self.unseen {
            for ifindex in self.look_at_links(now, wall) {
                self.with_vrrp((now, wall), |vrrp, env| vrrp.handle_addresses(env, ifindex));
            }
            self.carry_out(now, wall);
        }
        self.leave_will();
        self.open_late(now);
    }

    /// Probes' results, checkers' timers, and what they change. Whether more probes are to start.
    fn drive_checks(&mut self, now: Instant, wall: SystemTime) -> bool {
        let more = self.checks.drive(now);
        let concerned = self.checks.take_events((now, wall), &mut self.log);
        self.forwarding.handle_health(concerned);
        more
    }

    /// Gives way to other routers, takes the addresses off, stops the workers, detaches the program.
    fn stop(mut self) -> Ended {
        let (now, wall) = (clock::now(), clock::wall());
        self.herald.stopping(now);
        self.say(Level::Notice, "Stopping");
        if !self.options.keep_addresses {
            self.vrrp.stop(now);
            self.carry_out(now, wall);
        }
        let keeps = self.options.keep_forwarding;
        let ((forwarding, _), mut view) = parts(&mut self, now, wall);
        if let Err(error) = forwarding.stop(keeps, &mut view) {
            self.failure = self.failure.take().or(Some(error));
        }
        let program = self.options.log.ident.program();
        self.say(Level::Notice, format_args!("Stopped {program}"));
        if let Err(error) = self.guardian.goodbye() {
            let now = (clock::now(), clock::wall());
            let text = format_args!("the guardian: {error}");
            self.log.say(now, Room::Control, Level::Error, text);
        }
        self.log.finish(clock::now(), clock::wall());
        Ended {
            outcome: self.failure.map_or(Ok(()), Err),
            config: self.config,
            lock_file: self.lock_file,
        }
    }

    fn fail(&mut self, why: String) {
        self.say(Level::Error, &why);
        self.failure = Some(why);
        self.stopping = true;
    }

    #[track_caller]
    fn say(&mut self, level: Level, text: impl std::fmt::Display) {
        let now = (clock::now(), clock::wall());
        self.log.say(now, Room::Control, level, text);
    }

    #[track_caller]
    fn say_line(&mut self, line: &Line) {
        self.say(line.level, &line.text);
    }
}

/// Forwarding and the checks, with what they need of the rest.
fn parts(
    engine: &mut Engine,
    now: Instant,
    wall: SystemTime,
) -> ((&mut Forwarding, &Checks), View<'_>) {
    let voice = Voice {
        now,
        wall,
        log: &mut engine.log,
    };
    let view = View {
        voice,
        netlink: &mut engine.netlink,
    };
    ((&mut engine.forwarding, &engine.checks), view)
}
