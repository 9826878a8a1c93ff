//! Starting: everything that can fail without harm first, what the kernel keeps last.

use std::{
    collections::BTreeSet,
    os::fd::{AsFd, AsRawFd},
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use hdrhistogram::Histogram;
use mio::{Interest, Poll, unix::SourceFd};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook_mio::v1_0::Signals;

use super::{
    super::{
        admin::AdminSocket,
        client_ways::ClientWays,
        data_plane::{Calls, DataPlane, DataPlaneOptions},
        enquiries::Enquiries,
        interfaces::Interfaces,
        lock_file::LockFile,
        log::Log,
        next_hops::NextHops,
        outages::Outages,
        pace::Pace,
        probes::TcpProbes,
        repeats::Repeats,
        sampling::Sampling,
        services::{PortInfo, Services},
        vrrp_io::{Env, VrrpIo},
    },
    ADDRESSES, Engine, FIRST_ADMIN, FIRST_PROBE, FIRST_VRRP, GUARDIAN, HOUSEKEEPING, MONITOR,
    Options, PUBLISH_PERIOD, SIGNALS, WORKERS,
};
use crate::{
    balance::MaglevTables,
    check::{Health, MAX_PROBES},
    config::Config,
    sys::{
        clock,
        device::InterfaceSpec,
        guardian::Guardian,
        instance_lock::{InstanceLock, InterfaceLock, LockError},
        monitor::Monitor,
        netlink::{Link, Netlink},
        steer,
    },
};

/// Significant decimal digits of the lateness histogram: values within 1 %.
const LATENESS_DIGITS: u8 = 2;
/// How long a start waits for the guardian of an engine that just died.
const PREDECESSOR: Duration = Duration::from_secs(1);
/// How often it looks meanwhile.
const PREDECESSOR_POLL: Duration = Duration::from_millis(10);

pub(in crate::control) fn lock_path(socket: &Path) -> PathBuf {
    let mut name = socket.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

/// The lock of this engine. The guardian of one that just died has it for some milliseconds.
pub(super) fn lock(path: &Path) -> Result<InstanceLock, String> {
    let deadline = clock::now() + PREDECESSOR;
    loop {
        match InstanceLock::acquire(path) {
            Ok(lock) => return Ok(lock),
            // A holder that cannot be named is one that comes or goes.
            Err(LockError::Held { holder, .. })
                if clock::now() < deadline
                    && holder.as_ref().is_none_or(|holder| {
                        holder
                            .name
                            .as_deref()
                            .is_none_or(|name| name == "xvs-guardian")
                    }) =>
            {
                std::thread::sleep(PREDECESSOR_POLL);
            }
            Err(held @ LockError::Held { .. }) => {
                return Err(format!("another xvs is running: {held}"));
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}

impl Engine {
    pub(super) fn start(
        config: &Config,
        options: &Options,
        mut log: Log,
        guardian: Guardian,
        lock: InstanceLock,
    ) -> Result<Self, String> {
        let failed = |what: &str| {
            let what = what.to_owned();
            move |error: std::io::Error| format!("{what}: {error}")
        };
        let poll = Poll::new().map_err(failed("creating the poll"))?;
        let registry = poll.registry();
        let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2])
            .map_err(failed("catching signals"))?;
        registry
            .register(&mut signals, SIGNALS, Interest::READABLE)
            .map_err(failed("catching signals"))?;
        // Subscribed before anything is asked, so that no change falls in between.
        let monitor = Monitor::open().map_err(failed("subscribing to netlink"))?;
        let descriptor = monitor.as_raw_fd();
        registry
            .register(&mut SourceFd(&descriptor), MONITOR, Interest::READABLE)
            .map_err(failed("subscribing to netlink"))?;
        let descriptor = guardian.as_fd().as_raw_fd();
        registry
            .register(&mut SourceFd(&descriptor), GUARDIAN, Interest::READABLE)
            .map_err(failed("watching the guardian"))?;
        let mut netlink = Netlink::open().map_err(|error| error.to_string())?;
        let (now, wall) = (clock::now(), clock::wall());
        log.line(
            wall,
            format_args!("xvs {} starting", env!("CARGO_PKG_VERSION")),
        );
        let mut env = Env {
            now,
            wall,
            netlink: &mut netlink,
            log: &mut log,
        };
        let vrrp = VrrpIo::open(config, &mut env, registry, FIRST_VRRP)?;
        let mut interfaces = Interfaces::default();
        vrrp.links().for_each(|link| interfaces.watch(link));
        let services = Services::new(config);
        let mut hops = NextHops::new();
        services
            .real_addresses()
            .for_each(|address| hops.track(now, address));
        // All of it: the interfaces to open follow from it, and no advert is due yet.
        while hops.poll_timeout().is_some_and(|due| due <= now) {
            if let (_, Some(error)) = hops.handle_timeout(now, &mut netlink) {
                log.line(wall, error);
            }
        }
        let mut health = Health::new(fastrand::u64(..));
        for settings in services.check_settings() {
            health.set(now, &settings);
        }
        let probe_registry = registry.try_clone().map_err(failed("cloning the poll"))?;
        let admin_registry = registry.try_clone().map_err(failed("cloning the poll"))?;
        let probes = TcpProbes::new(probe_registry, FIRST_PROBE, MAX_PROBES);
        let mut engine = Self {
            poll,
            signals,
            netlink,
            monitor,
            log,
            guardian,
            will: Vec::new(),
            vrrp,
            interfaces,
            services,
            health,
            probes,
            hops,
            ways: None,
            ports: Vec::new(),
            maglev: MaglevTables::default(),
            addresses: Pace::new(ADDRESSES),
            locals: BTreeSet::new(),
            interface_locks: Vec::new(),
            data_plane: None,
            admin: None,
            admin_registry: Rc::new(admin_registry),
            enquiries: Enquiries::default(),
            // The first read shows that there is nothing, and arms the event.
            notified: true,
            stale: false,
            publishing: Pace::new(PUBLISH_PERIOD),
            sampling: Sampling::new(now),
            housekeeping_at: now + HOUSEKEEPING,
            compare_at: now,
            lateness: Histogram::new(LATENESS_DIGITS).map_err(|error| error.to_string())?,
            overflows: Repeats::default(),
            outages: Outages::default(),
            stopping: false,
            failure: None,
            lock_file: LockFile::new(lock),
        };
        let admin = AdminSocket::open(&options.socket, engine.poll.registry(), FIRST_ADMIN)
            .map_err(|error| format!("{}: {error}", options.socket.display()))?;
        engine.admin = Some(admin);
        // Last: a start that fails leaves nothing attached.
        engine.open_data_plane(config, options)?;
        let (now, wall) = (clock::now(), clock::wall());
        engine.vrrp.start(now);
        engine.carry_out(now, wall);
        Ok(engine)
    }

    /// Opens the interfaces that virtual addresses live on and that real servers are behind.
    fn open_data_plane(&mut self, config: &Config, options: &Options) -> Result<(), String> {
        if config.virtual_servers.is_empty() {
            self.say("no virtual_server is configured: nothing to forward");
            return Ok(());
        }
        let interfaces = self.data_plane_interfaces()?;
        interfaces
            .iter()
            .for_each(|link| self.interfaces.watch(link));
        self.ports = interfaces
            .iter()
            .map(|link| PortInfo {
                name: link.name.clone(),
                ifindex: link.index,
                mac: link.mac.unwrap_or_default(),
                mtu: link.mtu,
                v4: None,
                v6: None,
            })
            .collect();
        self.learn_addresses();
        if self.services.sends_to_clients() {
            self.ways = Some(ClientWays::new(clock::now()));
            self.drive_client_ways(clock::now(), clock::wall());
        }
        let specs: Vec<InterfaceSpec> = interfaces
            .iter()
            .map(|link| InterfaceSpec {
                name: link.name.clone(),
                ifindex: link.index,
            })
            .collect();
        for link in &interfaces {
            let lock = InterfaceLock::acquire(link.index, &link.name);
            self.interface_locks
                .push(lock.map_err(|error| error.to_string())?);
        }
        let table = self.build_table(1)?;
        // One for all that workers have to say: a poll has only one.
        let waker = mio::Waker::new(self.poll.registry(), WORKERS)
            .map_err(|error| format!("creating a waker: {error}"))?;
        let ended = Arc::new(waker);
        let asked = Arc::clone(&ended);
        let wishes = DataPlaneOptions {
            io: options.io,
            xdp: options.xdp,
            connections: options.connections,
            workers: options.workers,
            cpus: options.cpus.clone(),
            busy_poll: options.busy_poll,
            spin: options.spin,
            // Own addresses first: what is sent to them is never an answer to a client.
            steered: self
                .locals
                .iter()
                .map(|addr| steer::Match::Local(*addr))
                .chain(self.services.steer().added)
                .collect(),
        };
        let calls = Calls {
            // The loop notices at its next housekeeping if this fails.
            ended: Box::new(move || drop(ended.wake())),
            asked: Box::new(move || drop(asked.wake())),
        };
        let data_plane = DataPlane::open(&specs, wishes, table, calls)?;
        for line in data_plane.report() {
            self.log
                .line(clock::wall(), format_args!("packet I/O: {line}"));
        }
        self.data_plane = Some(data_plane);
        Ok(())
    }

    fn data_plane_interfaces(&mut self) -> Result<Vec<Link>, String> {
        let mut wanted: Vec<u32> = self.vrrp.vip_interfaces().collect();
        wanted.extend(self.hops.interfaces());
        let links = self.netlink.links().map_err(|error| error.to_string())?;
        for link in &links {
            let addresses = self
                .netlink
                .addresses(link.index)
                .map_err(|error| error.to_string())?;
            if addresses
                .iter()
                .any(|address| self.services.has_unmanaged(address.prefix.addr()))
            {
                wanted.push(link.index);
            }
        }
        let interfaces: Vec<Link> = links
            .into_iter()
            .filter(|link| !link.loopback && wanted.contains(&link.index))
            .collect();
        if interfaces.is_empty() {
            return Err("no interface has a virtual address or leads to a real server".to_owned());
        }
        Ok(interfaces)
    }
}
