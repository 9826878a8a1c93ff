//! `xvs run`, and keepalived: the daemon.

use std::{
    path::{Path, PathBuf, absolute},
    process::ExitCode,
};

use clap::{Args, ValueEnum};

use super::{FAILED, USAGE, arguments::ConfigFile, check, fail, keepalived, tell};
use crate::{
    config,
    control::{
        engine,
        forwarding::{
            data_plane::{IoWish, XdpWish},
            placement::CpuList,
        },
        identity::Identity,
        launch::{self, Launch},
        load::Source,
        log::{self, Destination, Level, Line, SYSLOG_SOCKET},
    },
};

/// Shown below the help.
pub(super) const EXIT_STATUS: &str = "\
Exit status:
  0  stopped as it was told to; in the background: it has started
  1  the start has failed, or what it needs has ended while it ran
  2  the command line is wrong, or the configuration cannot be read or must not be used: a new attempt would end alike

Signals:
  TERM, INT     stop
  HUP           read the configuration anew
  USR1          write the state, for people, to keepalived.data beside the control socket, or where
                state_dump_file says
  USR2          write the statistics of VRRP to keepalived.stats there, or where stats_dump_file says
  SIGRTMIN+2    write the state of VRRP to keepalived.json there, or where json_dump_file says
  SIGRTMAX-1    set the statistics of VRRP to zero";

/// What the program was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// `xvs run`.
    Xvs,
    /// `keepalived`.
    Keepalived,
}

/// What the daemon can be told.
#[derive(Debug, Args)]
pub(super) struct Run {
    #[command(flatten)]
    pub(super) config: ConfigFile,
    /// Do not start with a configuration that has warnings, nor reload one
    #[arg(long)]
    strict: bool,
    /// How packets come and go: af-xdp, or af-packet where the kernel refuses XDP
    #[arg(long, value_enum, default_value_t = Io::Auto)]
    io: Io,
    /// How far to go with AF_XDP; auto takes the best that the interfaces allow
    #[arg(long, value_enum, default_value_t = XdpMode::Auto)]
    xdp_mode: XdpMode,
    /// Connections that the workers' tables have room for together; 48 bytes each, allocated at the start
    #[arg(long, value_name = "N", default_value_t = 1 << 20)]
    #[arg(value_parser = clap::value_parser!(u32).range(1024..=1 << 27))]
    connections: u32,
    /// Forwarding threads: worker q serves queue q of every interface. Default: one for each queue of the
    /// interface that has most, at most one for each processor; AF_PACKET has one
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    workers: Option<u32>,
    /// Processors of the workers, in their order, as in 0-3,8. Default: the first ones that xvs may run on;
    /// a lone worker is tied only where the control thread has more than one other
    #[arg(long, value_name = "LIST")]
    cpus: Option<CpuList>,
    /// Let the workers do the network drivers' receive work instead of interrupts; changes
    /// napi_defer_hard_irqs and gro_flush_timeout of the interfaces until xvs stops
    #[arg(long)]
    busy_poll: bool,
    /// Log to these places instead; a file: --log-file
    #[arg(long, value_enum, value_name = "PLACE", value_delimiter = ',')]
    log_to: Vec<Place>,
    /// Leave lines out that matter less: error, warning, notice, info, debug [default: info, with --log-detail: debug]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<Level>,
    /// Log JSON objects
    #[arg(long)]
    log_json: bool,
    /// The socket of the syslog daemon
    #[arg(long, value_name = "PATH", default_value = SYSLOG_SOCKET)]
    syslog_socket: PathBuf,
    #[command(flatten)]
    pub(super) keepalived: keepalived::Options,
}

/// Where the log can go.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Place {
    Stderr,
    Syslog,
    Journal,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Io {
    Auto,
    AfXdp,
    AfPacket,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum XdpMode {
    Auto,
    ZeroCopy,
    Native,
    Generic,
}

/// Does what the daemon was told to do, in the end: run.
pub(super) fn run(options: &Run, socket: Option<&Path>, name: Name) -> ExitCode {
    let keepalived = &options.keepalived;
    if let Some(status) = keepalived.answer() {
        return status;
    }
    let remarks = keepalived.remarks(name);
    remarks
        .iter()
        .for_each(|line| tell(&format!("xvs: {line}\n")));
    let source = options.source(name);
    if let Some(file) = &keepalived.config_test {
        return check::test(&source, file.as_deref());
    }
    let parsed = match source.read() {
        Ok(parsed) => parsed,
        Err(error) => return fail(USAGE, &format!("{}: {error}", source.file().display())),
    };
    tell(&parsed.report());
    if let Some(why) = source.refusal(&parsed) {
        return fail(USAGE, &format!("{}: {why}", source.file().display()));
    }
    let of_file = &parsed.config;
    let identity = keepalived.identity(&parsed.config);
    let umask = of_file.global.files.umask.map(|mask| mask.0.into());
    // What is said on the command line goes before what the file says.
    let launch = Launch {
        namespace: identity.namespace.clone(),
        umask: keepalived.umask.or(umask),
        daemonise: keepalived.daemonises(name),
    };
    let usual = identity.socket();
    let socket = socket.unwrap_or(&usual);
    let mut engine = options.engine(&parsed.config, source, (socket, name), identity);
    if !engine.log.destinations.contains(&Destination::Stderr) {
        // Nobody may have seen them.
        engine.remarks.extend(remarks.into_iter().map(info));
        engine
            .remarks
            .extend(parsed.diagnostics.iter().map(Line::from));
    }
    if keepalived.dump_conf {
        let effective = config::effective(&parsed.config);
        let lines = effective.lines().map(str::to_owned);
        engine.remarks.extend(lines.map(info));
    }
    match launch::run(parsed.config, &engine, &launch) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => fail(FAILED, &message),
    }
}

impl Run {
    fn source(&self, name: Name) -> Source {
        let file = &self.config.file;
        let mut source = Source::of(if self.keepalived.daemonises(name) {
            wherever_we_go(file)
        } else {
            file.clone()
        });
        if let Some(id) = &self.keepalived.config_id {
            source.origin = source.origin.with_id(id.clone());
        }
        if self.keepalived.all_config {
            source.origin = source.origin.with_all_files();
        }
        source.strict = self.strict;
        source.half = self.keepalived.half();
        source
    }

    /// What the engine is told.
    fn engine(
        &self,
        config: &config::Config,
        source: Source,
        (socket, name): (&Path, Name),
        identity: Identity,
    ) -> engine::Options {
        let settings = &config.settings;
        let mut log = self.log(socket, name, &identity);
        for place in &mut log.destinations {
            if let Destination::File(file) = place {
                *file = wherever_we_go(file);
            }
        }
        let pid_files = self.keepalived.pid_files(name, &identity);
        engine::Options {
            source,
            socket: wherever_we_go(socket),
            identity,
            pid_files: pid_files.iter().map(|file| wherever_we_go(file)).collect(),
            keep_addresses: self.keepalived.dont_release_vrrp,
            keep_forwarding: self.keepalived.dont_release_ipvs,
            log_addresses: self.keepalived.address_monitoring,
            ignore_sigint: self.keepalived.ignore_sigint,
            remarks: Vec::new(),
            io: match self.io {
                Io::Auto => IoWish::Auto,
                Io::AfXdp => IoWish::AfXdp,
                Io::AfPacket => IoWish::AfPacket,
            },
            xdp: match self.xdp_mode {
                XdpMode::Auto => XdpWish::Auto,
                XdpMode::ZeroCopy => XdpWish::ZeroCopy,
                XdpMode::Native => XdpWish::Native,
                XdpMode::Generic => XdpWish::Generic,
            },
            connections: self.connections as usize,
            workers: self.workers.or_else(|| settings.workers.map(u32::from)),
            cpus: self.cpus.clone().or_else(|| CpuList::new(&settings.cpus)),
            busy_poll: self.busy_poll || settings.busy_poll,
            spin: settings.spin,
            fast_path: settings.fast_path,
            log,
        }
    }

    fn log(&self, socket: &Path, name: Name, identity: &Identity) -> log::Options {
        let keepalived = &self.keepalived;
        let mut destinations = keepalived.destinations(name, socket);
        if !self.log_to.is_empty() {
            destinations.retain(|place| matches!(place, Destination::File(_)));
            destinations.extend(self.log_to.iter().map(|place| match place {
                Place::Stderr => Destination::Stderr,
                Place::Syslog => Destination::Syslog,
                Place::Journal => Destination::Journal,
            }));
        }
        log::Options {
            destinations,
            facility: keepalived.facility(),
            ident: keepalived.ident(name, identity),
            level: self.log_level.unwrap_or_else(|| keepalived.level()),
            json: self.log_json,
            syslog_socket: wherever_we_go(&self.syslog_socket),
        }
    }
}

const fn info(text: String) -> Line {
    Line {
        level: Level::Info,
        text,
    }
}

/// The same file for a process that works in another folder.
fn wherever_we_go(file: &Path) -> PathBuf {
    absolute(file).unwrap_or_else(|_| file.to_owned())
}
