//! Starting: everything that can fail without harm first, what the kernel keeps last.

use std::{
    os::fd::{AsFd, AsRawFd},
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use hdrhistogram::Histogram;
use mio::{Interest, Poll, Token, unix::SourceFd};
use signal_hook_mio::v1_0::Signals;

use super::{
    super::{
        admin::{AdminSocket, enquiries::Enquiries},
        checks::Checks,
        dump::Dumps,
        forwarding::Forwarding,
        lock_file::LockFile,
        log::{Level, Log, Room},
        reload_time::ReloadTime,
        repeats::{Repeats, Reports},
        vrrp::Vrrp,
    },
    Engine, HOUSEKEEPING, Options,
    address_log::AddressLog,
    herald::Herald,
    priorities::Priorities,
    reload::{Places, Reload},
    token::Part,
};
use crate::{
    config::{self, Config},
    sys::{
        clock,
        guardian::Guardian,
        instance_lock::{InstanceLock, LockError},
        monitor::Monitor,
        netlink::{Netlink, netdev::XdpFeatures},
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
        config: Config,
        options: &Options,
        mut log: Log,
        guardian: Guardian,
        lock: InstanceLock,
        (herald, mut signals): (Herald, Signals),
    ) -> Result<Self, String> {
        let failed = |what: &str| {
            let what = what.to_owned();
            move |error: std::io::Error| format!("{what}: {error}")
        };
        let poll = Poll::new().map_err(failed("creating the poll"))?;
        let registry = poll.registry();
        registry
            .register(&mut signals, Part::Signals.token(), Interest::READABLE)
            .map_err(failed("catching signals"))?;
        // Subscribed before anything is asked, so that no change falls in between.
        let monitor = Monitor::open().map_err(failed("subscribing to netlink"))?;
        let descriptor = monitor.as_raw_fd();
        registry
            .register(
                &mut SourceFd(&descriptor),
                Part::Kernel.token(),
                Interest::READABLE,
            )
            .map_err(failed("subscribing to netlink"))?;
        let features = XdpFeatures::open();
        if let Ok(Some(features)) = &features {
            let descriptor = features.as_raw_fd();
            registry
                .register(
                    &mut SourceFd(&descriptor),
                    Token(Part::Kernel.first() + 1),
                    Interest::READABLE,
                )
                .map_err(failed("subscribing to generic netlink"))?;
        }
        let descriptor = guardian.as_fd().as_raw_fd();
        registry
            .register(
                &mut SourceFd(&descriptor),
                Part::Guardian.token(),
                Interest::READABLE,
            )
            .map_err(failed("watching the guardian"))?;
        let netlink = Netlink::open().map_err(|error| error.to_string())?;
        let (now, wall) = (clock::now(), clock::wall());
        let text = format_args!("Starting {}", options.log.ident.program());
        log.say((now, wall), Room::Control, Level::Notice, text);
        let features = features.unwrap_or_else(|error| {
            log.say((now, wall), Room::Control, Level::Warning, error);
            None
        });
        // One for all that other threads have to say: a poll has only one.
        let waker =
            mio::Waker::new(registry, Part::Threads.token()).map_err(failed("creating a waker"))?;
        let waker = Arc::new(waker);
        let vrrp_registry = registry.try_clone().map_err(failed("cloning the poll"))?;
        let probe_registry = registry.try_clone().map_err(failed("cloning the poll"))?;
        let admin_registry = registry.try_clone().map_err(failed("cloning the poll"))?;
        let admin = AdminSocket::open(&options.socket, registry, Part::Admin.first())
            .map_err(|error| format!("{}: {error}", options.socket.display()))?;
        let call = Arc::clone(&waker);
        let call: Arc<dyn Fn() + Send + Sync> = Arc::new(move || drop(call.wake()));
        let folder = options.socket.parent().unwrap_or_else(|| Path::new("."));
        let places = Places {
            folder: folder.to_owned(),
            usual: options.identity.run_file("keepalived", "reload"),
        };
        let mut engine = Self {
            poll,
            signals,
            netlink,
            monitor,
            log,
            guardian,
            will: Vec::new(),
            config: Arc::default(),
            options: options.clone(),
            vrrp: Vrrp::new(vrrp_registry, Part::Vrrp.first()),
            forwarding: Forwarding::new(now, features),
            checks: Checks::new(probe_registry, Part::Checks.first()),
            dumps: Dumps::new(
                folder.to_owned(),
                options.identity.name(),
                Arc::clone(&call),
            ),
            reload: Reload::new(options.source.clone(), places, Arc::clone(&call)),
            reload_time: ReloadTime::new(call),
            address_log: None,
            herald,
            reloaders: Vec::new(),
            next_reloaders: Vec::new(),
            admin: Some(admin),
            admin_registry: Rc::new(admin_registry),
            enquiries: Enquiries::default(),
            waker,
            // The first read shows that there is nothing, and arms the event.
            notified: true,
            priorities: Priorities::default(),
            lateness: Histogram::new(LATENESS_DIGITS).map_err(|error| error.to_string())?,
            overflows: Repeats::default(),
            reports: Reports::new(),
            unseen: false,
            files_at: now + HOUSEKEEPING,
            stopping: false,
            failure: None,
            lock_file: LockFile::new(lock),
        };
        if options.log_addresses {
            let links = engine.netlink.links().map_err(|error| error.to_string())?;
            engine.address_log = Some(AddressLog::new(&links));
        }
        let config = Arc::new(config);
        let diff = config::diff(&engine.config, &config);
        engine.apply(now, wall, config, &diff)?;
        if engine.forwarding.services().is_empty() {
            engine.say(
                Level::Info,
                "no virtual_server is configured: nothing to forward",
            );
        } else {
            // Last: a start that fails leaves nothing attached.
            engine.open_data_plane()?;
        }
        // After what has threads of its own was started, before an advert can be late.
        engine.set_priorities();
        let (now, wall) = (clock::now(), clock::wall());
        engine.vrrp.start(now);
        engine.carry_out(now, wall);
        engine.follow_files();
        Ok(engine)
    }
}
