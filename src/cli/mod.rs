//! The command line: `xvs run`, `check`, `list`, `vrrp`, `reload`, `cleanup`.
//!
//! Exit status: 0 done (warnings allowed), 1 the configuration has errors or the work failed, 2 the
//! command line is wrong or the configuration cannot be read.

mod client;
mod conns;
mod list;
mod timing;
mod vrrp;

use std::{
    io::Write,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand, ValueEnum};

use self::list::View;
use crate::{
    config::{self, Config},
    control::{
        api::{
            ConnectionQuery, DEFAULT_CONNECTIONS, DEFAULT_SOCKET, MAX_CONNECTIONS, Request,
            Response,
        },
        cleanup, engine,
        forwarding::{
            data_plane::{IoWish, XdpWish},
            placement::CpuList,
        },
        origin::Origin,
    },
};

/// Where keepalived looks for its configuration, and so do we.
const DEFAULT_CONFIG: &str = "/etc/keepalived/keepalived.conf";

/// The configuration has errors, or the work failed.
const FAILED: u8 = 1;
/// The command line is wrong, or the configuration cannot be read.
const USAGE: u8 = 2;

/// keepalived and IPVS in one program: VRRP, health checks and layer-4 load balancing over AF_XDP.
#[derive(Debug, Parser)]
#[command(name = "xvs", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// The control socket: where `run` listens, and whom the others ask
    #[arg(long, global = true, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run in the foreground: elect, check, forward. Logs one line an event to standard error
    Run(Run),
    /// Read a configuration; print its diagnostics, and what is effective
    Check(ConfigFile),
    /// List the virtual and real servers of the running daemon as `ipvsadm -Ln` does
    ///
    /// Real servers that are out of the pool are not listed; --json has them. A virtual server with several
    /// addresses (virtual_server_group) has a line for each line of the group, where IPVS has an entry for
    /// each address, and its real servers once below them; their numbers are those of all of them together.
    List(List),
    /// Show the VRRP instances of the running daemon: state, priority, since when
    Vrrp(Query),
    /// Have the running daemon read its configuration file anew and apply what is different, as SIGHUP does
    ///
    /// Prints what is different, a line each. When the file has errors, what runs stays as it is, the errors
    /// are printed, and the exit status is 1.
    Reload(Query),
    /// Remove the steering program and the virtual addresses that a crash left behind
    Cleanup(ConfigFile),
}

#[derive(Debug, Args)]
struct Run {
    #[command(flatten)]
    config: ConfigFile,
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

#[derive(Debug, Args)]
struct List {
    #[command(flatten)]
    query: Query,
    #[command(flatten)]
    view: ListView,
    /// With --stats and --rate: print numbers with all their digits, not in K, M, G and T
    #[arg(long)]
    exact: bool,
    #[command(flatten)]
    conns: ConnFilter,
}

/// What to show instead of schedulers, weights and connections.
#[derive(Debug, Args)]
#[group(multiple = false)]
struct ListView {
    /// Show how packets to TUN real servers are wrapped, too: ipip, gue:PORT or gre, and whether with a
    /// checksum (+c) or without one (-c)
    #[arg(long)]
    tun_info: bool,
    /// Show what went through since the start: connections, packets and bytes (IP headers included) from
    /// clients (In) and to clients (Out; with NAT only, as the answers of others do not pass here)
    #[arg(long)]
    stats: bool,
    /// Show the same in a second, renewed every 2 s: an average in which a change shows by a quarter of
    /// itself after 2 s, by two thirds after 8 s
    #[arg(long)]
    rate: bool,
    /// Show how long the stages of the workers' turns take, in nanoseconds a packet
    #[arg(long)]
    timing: bool,
    /// List the connections and persistence templates as `ipvsadm -Lnc` does, but sorted: protocol, time to
    /// live without another packet (minutes:seconds), state, client, virtual server, real server (- when it
    /// has left the configuration). A template has port 0 for the client's, and is NONE or ASSURED
    #[arg(long)]
    conns: bool,
}

/// Which connections to list.
#[derive(Debug, Args)]
#[command(next_help_heading = "With --conns")]
struct ConnFilter {
    /// Of clients with this address or in this network only; a template has its client's network
    #[arg(long, requires = "conns", value_name = "ADDR[/LEN]")]
    client: Option<String>,
    /// To this virtual address only, and this port if there is one; [ADDR]:PORT for IPv6
    #[arg(long, requires = "conns", value_name = "ADDR[:PORT]", value_parser = parse_vip)]
    vip: Option<(IpAddr, Option<u16>)>,
    /// With this real server only
    #[arg(long, requires = "conns", value_name = "ADDR")]
    real: Option<IpAddr>,
    /// In the state with this name only, as it is shown
    #[arg(long, requires = "conns", value_name = "NAME")]
    state: Option<String>,
    /// Of this protocol only: tcp, udp, sctp, or ip for the templates of a firewall mark
    #[arg(long, requires = "conns", value_name = "NAME")]
    protocol: Option<String>,
    /// List so many at most; it is said when there are more. 0 just counts them
    #[arg(long, requires = "conns", value_name = "N", default_value_t = DEFAULT_CONNECTIONS)]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=i64::from(MAX_CONNECTIONS)))]
    limit: u32,
}

impl ConnFilter {
    fn query(&self) -> ConnectionQuery {
        ConnectionQuery {
            client: self.client.clone(),
            vip: self.vip.map(|(addr, _)| addr),
            vport: self.vip.and_then(|(_, port)| port),
            real: self.real,
            state: self.state.clone(),
            protocol: self.protocol.clone(),
            limit: Some(self.limit),
        }
    }
}

/// Reads `ADDR`, `ADDR:PORT` or `[ADDR]:PORT`.
fn parse_vip(text: &str) -> Result<(IpAddr, Option<u16>), &'static str> {
    if let Ok(addr) = text.parse() {
        return Ok((addr, None));
    }
    let whole: Result<SocketAddr, _> = text.parse();
    let whole = whole.map_err(|_| "neither ADDR nor ADDR:PORT nor [ADDR]:PORT")?;
    Ok((whole.ip(), Some(whole.port())))
}

impl List {
    const fn view(&self) -> View {
        let exact = self.exact;
        match self.view {
            ListView { stats: true, .. } => View::Totals { exact },
            ListView { rate: true, .. } => View::Rates { exact },
            ListView { tun_info: true, .. } => View::TunnelInfo,
            _ => View::Plain,
        }
    }
}

#[derive(Debug, Args)]
struct Query {
    /// Print JSON for programs
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ConfigFile {
    /// The configuration file, in keepalived's format
    #[arg(short = 'f', long = "file", value_name = "FILE", default_value = DEFAULT_CONFIG)]
    file: PathBuf,
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    // clap prints its own messages and exits with 2 on a wrong command line.
    let Arguments { command, socket } = Arguments::parse();
    match command {
        Command::Run(run) => run_daemon(&run, socket),
        Command::Check(config) => check(&config),
        Command::List(list) => show_list(&list, &socket),
        Command::Vrrp(query) => show_vrrp(&query, &socket),
        Command::Reload(query) => reload(&query, &socket),
        Command::Cleanup(config) => clean_up(&config, &socket),
    }
}

fn run_daemon(run: &Run, socket: PathBuf) -> ExitCode {
    let origin = Origin::new(run.config.file.clone());
    let config = match read(&origin) {
        Ok(config) => config,
        Err(status) => return status,
    };
    let options = engine::Options {
        origin,
        socket,
        io: match run.io {
            Io::Auto => IoWish::Auto,
            Io::AfXdp => IoWish::AfXdp,
            Io::AfPacket => IoWish::AfPacket,
        },
        xdp: match run.xdp_mode {
            XdpMode::Auto => XdpWish::Auto,
            XdpMode::ZeroCopy => XdpWish::ZeroCopy,
            XdpMode::Native => XdpWish::Native,
            XdpMode::Generic => XdpWish::Generic,
        },
        connections: run.connections as usize,
        // What is said here goes before what the file says.
        workers: run
            .workers
            .or_else(|| config.settings.workers.map(u32::from)),
        cpus: run
            .cpus
            .clone()
            .or_else(|| CpuList::new(&config.settings.cpus)),
        busy_poll: run.busy_poll || config.settings.busy_poll,
        spin: config.settings.spin,
    };
    match engine::run(config, &options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => fail(FAILED, &message),
    }
}

fn check(config: &ConfigFile) -> ExitCode {
    match read(&Origin::new(config.file.clone())) {
        Ok(config) => print(&config::effective(&config)),
        Err(status) => status,
    }
}

fn clean_up(config: &ConfigFile, socket: &Path) -> ExitCode {
    // A file that has been broken since does not keep the steering program on the interfaces.
    let config = read(&Origin::new(config.file.clone()));
    let cleaned = match cleanup::cleanup(config.as_ref().ok(), socket) {
        Ok(cleaned) => cleaned,
        Err(message) => return fail(FAILED, &message),
    };
    for line in &cleaned.removed {
        print(&format!("{line}\n"));
    }
    for line in &cleaned.left {
        tell(&format!("xvs: left as it is: {line}\n"));
    }
    match config {
        Err(status) => {
            tell("xvs: virtual addresses were not looked for: see above\n");
            status
        }
        Ok(_) if !cleaned.left.is_empty() => ExitCode::from(FAILED),
        Ok(_) if cleaned.removed.is_empty() => print("nothing was left behind\n"),
        Ok(_) => ExitCode::SUCCESS,
    }
}

/// Reads a configuration and prints what there is to say about it. The status to exit with, if it
/// must not be used.
fn read(origin: &Origin) -> Result<Config, ExitCode> {
    let parsed = match origin.read() {
        Ok(parsed) => parsed,
        Err(error) => {
            let file = origin.file().display();
            return Err(fail(USAGE, &format!("{file}: {error}")));
        }
    };
    tell(&parsed.report());
    if parsed.has_errors() {
        Err(ExitCode::from(FAILED))
    } else {
        Ok(parsed.config)
    }
}

fn show_connections(list: &List, socket: &Path) -> ExitCode {
    let query = list.conns.query();
    let mut found = match client::ask(socket, Request::Connections(query)) {
        Ok(Response::Connections(found)) => found,
        other => return fail_to_ask(other),
    };
    conns::sort(&mut found);
    let status = if list.query.json {
        print_json(&found)
    } else {
        print(&conns::render(&found.connections))
    };
    tell(&conns::remarks(&found));
    status
}

fn show_list(list: &List, socket: &Path) -> ExitCode {
    if list.view.conns {
        return show_connections(list, socket);
    }
    match client::ask(socket, Request::List) {
        Ok(Response::List(found)) if list.query.json && list.view.timing => {
            print_json(&found.timing)
        }
        Ok(Response::List(found)) if list.query.json => print_json(&found),
        Ok(Response::List(found)) if list.view.timing => print(&timing::render(&found.timing)),
        Ok(Response::List(found)) => print(&list::render(&found, list.view())),
        other => fail_to_ask(other),
    }
}

fn show_vrrp(query: &Query, socket: &Path) -> ExitCode {
    match client::ask(socket, Request::Vrrp) {
        Ok(Response::Vrrp(status)) if query.json => print_json(&status),
        Ok(Response::Vrrp(status)) => print(&vrrp::render(&status.instances)),
        other => fail_to_ask(other),
    }
}

fn reload(query: &Query, socket: &Path) -> ExitCode {
    match client::ask(socket, Request::Reload) {
        Ok(Response::Reload(done)) if query.json => print_json(&done),
        Ok(Response::Reload(done)) => {
            for finding in &done.findings {
                tell(&format!("{finding}\n"));
            }
            if done.changes.is_empty() {
                return print("nothing is different\n");
            }
            print(&(done.changes.join("\n") + "\n"))
        }
        other => fail_to_ask(other),
    }
}

/// Says why there is no answer to show.
fn fail_to_ask(answer: Result<Response, String>) -> ExitCode {
    match answer {
        Ok(Response::Error(message)) | Err(message) => fail(FAILED, &message),
        Ok(_) => fail(FAILED, "the daemon has answered something else"),
    }
}

fn print_json(value: &impl serde::Serialize) -> ExitCode {
    match serde_json::to_string_pretty(value) {
        Ok(text) => print(&(text + "\n")),
        Err(error) => fail(FAILED, &error.to_string()),
    }
}

/// Prints to standard output. A reader that has gone away (`| head`) is no failure.
fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            fail(FAILED, &error.to_string())
        }
        _ => ExitCode::SUCCESS,
    }
}

fn fail(status: u8, message: &str) -> ExitCode {
    tell(&format!("xvs: {message}\n"));
    ExitCode::from(status)
}

/// Writes to standard error. Where nobody listens there is nobody to tell.
fn tell(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}
