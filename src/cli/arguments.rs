//! What the `xvs` command line may say.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use clap::{Args, Parser, Subcommand};

use super::{check::Check, list::View, run::Run};
use crate::control::api::{ConnectionQuery, DEFAULT_CONNECTIONS, MAX_CONNECTIONS};

/// Where keepalived looks for its configuration, and so do we.
const DEFAULT_CONFIG: &str = "/etc/keepalived/keepalived.conf";

/// Shown below the help.
const EXIT_STATUS: &str = "Exit status: 0 done, 1 the work failed, 2 the command line is wrong or a file cannot be \
                           read; `check` and `run` say more with --help";

/// keepalived and IPVS in one program: VRRP, health checks and layer-4 load balancing over AF_XDP.
#[derive(Debug, Parser)]
#[command(name = "xvs", version, arg_required_else_help = true)]
#[command(after_help = EXIT_STATUS)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) command: Command,
    /// The control socket: where `run` listens, and whom the others ask [default: /run/xvs/control.sock, in
    /// netns/NAME there for a network namespace and in instance/NAME for an instance]
    #[arg(long, global = true, value_name = "PATH")]
    pub(super) socket: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run in the foreground: elect, check, forward. Logs one line an event to standard error
    #[command(after_help = super::run::EXIT_STATUS)]
    Run(Box<Run>),
    /// Say what is wrong with a configuration, and whether a box would start with it
    ///
    /// What there is to say goes to standard error, what was asked for to standard output. Needs no root, and none
    /// of the interfaces, users and scripts that the configuration names.
    #[command(after_help = super::check::EXIT_STATUS)]
    Check(Check),
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
pub(super) struct List {
    #[command(flatten)]
    pub(super) query: Query,
    #[command(flatten)]
    pub(super) view: ListView,
    /// With --stats and --rate: print numbers with all their digits, not in K, M, G and T
    #[arg(long)]
    pub(super) exact: bool,
    #[command(flatten)]
    pub(super) conns: ConnFilter,
}

/// What to show instead of schedulers, weights and connections.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(super) struct ListView {
    /// Show how packets to TUN real servers are wrapped, too: ipip, gue:PORT or gre, and whether with a
    /// checksum (+c) or without one (-c)
    #[arg(long)]
    pub(super) tun_info: bool,
    /// Show what went through since the start: connections, packets and bytes (IP headers included) from
    /// clients (In) and to clients (Out; with NAT only, as the answers of others do not pass here)
    #[arg(long)]
    pub(super) stats: bool,
    /// Show the same in a second, renewed every 2 s: an average in which a change shows by a quarter of
    /// itself after 2 s, by two thirds after 8 s
    #[arg(long)]
    pub(super) rate: bool,
    /// Show how long the stages of the workers' turns take, in nanoseconds a packet
    #[arg(long)]
    pub(super) timing: bool,
    /// List the connections and persistence templates as `ipvsadm -Lnc` does, but sorted: protocol, time to
    /// live without another packet (minutes:seconds), state, client, virtual server, real server (- when it
    /// has left the configuration). A template has port 0 for the client's, and is NONE or ASSURED
    #[arg(long)]
    pub(super) conns: bool,
}

/// Which connections to list.
#[derive(Debug, Args)]
#[command(next_help_heading = "With --conns")]
pub(super) struct ConnFilter {
    /// Of clients with this address or in this network only; a template has its client's network
    #[arg(long, requires = "conns", value_name = "ADDR[/LEN]")]
    pub(super) client: Option<String>,
    /// To this virtual address only, and this port if there is one; [ADDR]:PORT for IPv6
    #[arg(long, requires = "conns", value_name = "ADDR[:PORT]", value_parser = parse_vip)]
    pub(super) vip: Option<(IpAddr, Option<u16>)>,
    /// With this real server only
    #[arg(long, requires = "conns", value_name = "ADDR")]
    pub(super) real: Option<IpAddr>,
    /// In the state with this name only, as it is shown
    #[arg(long, requires = "conns", value_name = "NAME")]
    pub(super) state: Option<String>,
    /// Of this protocol only: tcp, udp, sctp, or ip for the templates of a firewall mark
    #[arg(long, requires = "conns", value_name = "NAME")]
    pub(super) protocol: Option<String>,
    /// List so many at most; it is said when there are more. 0 just counts them
    #[arg(long, requires = "conns", value_name = "N", default_value_t = DEFAULT_CONNECTIONS)]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=i64::from(MAX_CONNECTIONS)))]
    pub(super) limit: u32,
}

impl ConnFilter {
    pub(super) fn query(&self) -> ConnectionQuery {
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
    pub(super) const fn view(&self) -> View {
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
pub(super) struct Query {
    /// Print JSON for programs
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ConfigFile {
    /// The configuration file, in keepalived's format
    #[arg(
        short = 'f',
        long = "file",
        visible_alias = "use-file",
        value_name = "FILE"
    )]
    #[arg(default_value = DEFAULT_CONFIG)]
    pub(super) file: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keepalived_s_options_are_run_s_too() {
        let words = "xvs run -f /k.conf -nlDdG -S 0 -P --io af-packet --socket /s";
        let parsed = Arguments::try_parse_from(words.split(' '));
        let parsed = parsed.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(parsed.socket, Some("/s".into()));
        let Command::Run(run) = parsed.command else {
            panic!("{parsed:?}")
        };
        assert_eq!(run.config.file.to_str(), Some("/k.conf"));
        assert!(run.keepalived.dont_fork && run.keepalived.dump_conf);
    }

    #[test]
    fn addresses_of_connections_are_read_with_and_without_port() {
        let vip = |text: &str| parse_vip(text).ok();
        let address = |text: &str| text.parse().unwrap();
        assert_eq!(vip("10.0.0.1"), Some((address("10.0.0.1"), None)));
        assert_eq!(vip("10.0.0.1:80"), Some((address("10.0.0.1"), Some(80))));
        assert_eq!(vip("[fd00::1]:80"), Some((address("fd00::1"), Some(80))));
        assert_eq!(vip("fd00::1"), Some((address("fd00::1"), None)));
        assert_eq!(vip("web"), None);
    }
}
