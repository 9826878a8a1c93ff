//! What the control socket speaks: one JSON request a line, one JSON response a line.
//!
//! `echo '{"command":"list"}' | socat - UNIX-CONNECT:/run/xvs/control.sock` works as well as the
//! `xvs` subcommands do. Fields are only ever added.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// Where the control socket is unless `--socket` says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/xvs/control.sock";

/// A question to the running daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Request {
    /// The virtual and real servers, as `ipvsadm -Ln` lists them.
    List,
    /// The connections, as `ipvsadm -Lnc` lists them. Answered within some two seconds.
    Connections(ConnectionQuery),
    /// The VRRP instances.
    Vrrp,
    /// Read the configuration file anew and apply it, as SIGHUP does. Answered when that is done.
    Reload,
}

/// The answer: what was asked for, or why not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Response {
    /// To [`Request::List`].
    List(Box<ServiceList>),
    /// To [`Request::Connections`].
    Connections(ConnectionList),
    /// To [`Request::Vrrp`].
    Vrrp(VrrpStatus),
    /// To [`Request::Reload`], when it was applied.
    Reload(ReloadReport),
    /// The request was not understood or not allowed.
    Error(String),
}

/// What a reload did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadReport {
    /// What is different now, a line each; none when the configuration is the same.
    pub changes: Vec<String>,
    /// What there is to say about the configuration, a finding each.
    pub findings: Vec<String>,
}

/// Connections to show unless a query says otherwise.
pub const DEFAULT_CONNECTIONS: u32 = 10_000;
/// Connections that are shown at most: some 20 MB.
pub const MAX_CONNECTIONS: u32 = 100_000;

/// Which connections and persistence templates to show: those that fit all that is said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConnectionQuery {
    /// The client's address, or `ADDR/LEN` for those of a network.
    pub client: Option<String>,
    /// The virtual address.
    pub vip: Option<IpAddr>,
    /// The virtual port.
    pub vport: Option<u16>,
    /// The real server's address.
    pub real: Option<IpAddr>,
    /// The name of the state, as it is shown.
    pub state: Option<String>,
    /// `TCP`, `UDP` or `SCTP`; `IP` for the templates of a firewall mark.
    pub protocol: Option<String>,
    /// How many to show at most, up to [`MAX_CONNECTIONS`]; [`DEFAULT_CONNECTIONS`] if absent.
    pub limit: Option<u32>,
}

/// Connections and persistence templates, in no order. While packets come, one may be missing or there twice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionList {
    /// How many fit the query; more than are shown if the limit was reached.
    pub matching: u64,
    /// The numbers of the workers whose tables were not looked through in time.
    pub late_workers: Vec<usize>,
    /// The connections.
    pub connections: Vec<ConnectionStatus>,
}

/// A connection or a persistence template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionStatus {
    /// `TCP`, `UDP` or `SCTP`; `IP` of a template for a firewall mark.
    pub protocol: String,
    /// How long it would live without another packet, in milliseconds.
    pub expires_ms: u64,
    /// The state, in ipvsadm's words. That of a template is `NONE`, or `ASSURED` once a connection that it led
    /// was established for some packets.
    pub state: String,
    /// The client; of a template its network, and port 0.
    pub client: SocketAddr,
    /// Where it connected to; of a template for a firewall mark the mark, in the first four bytes.
    pub virtual_server: SocketAddr,
    /// The real server; absent when it has left the configuration.
    pub real_server: Option<SocketAddr>,
    /// The number of the worker that has it.
    pub worker: usize,
}

/// The virtual servers and the state of the data plane below them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceList {
    /// How frames come and go, one line an interface: level reached and why not a better one.
    pub io: Vec<String>,
    /// Connections that the tables of all workers have room for, together.
    pub connection_table_size: u64,
    /// What is in it.
    #[serde(default)]
    pub table: TableCounts,
    /// What the steering program decided, summed over the interfaces.
    pub steering: SteeringCounts,
    /// What the kernel refused to steer or to leave to the host; it is tried again every second.
    #[serde(default)]
    pub steering_refused: Vec<String>,
    /// Frames by their fate in the workers since the start.
    pub frames: FrameCounts,
    /// Dropped frames by the name of the reason; reasons that never occurred are left out.
    pub drops: Vec<NamedCount>,
    /// Frames turned into answers of our own (resets, ICMP errors) by the name of the reason; as `drops`.
    #[serde(default)]
    pub replies: Vec<NamedCount>,
    /// What was lost or went wrong between the interfaces and the workers, by name; what never
    /// occurred is left out.
    #[serde(default)]
    pub io_drops: Vec<NamedCount>,
    /// The workers, by their number.
    #[serde(default)]
    pub workers: Vec<WorkerCounts>,
    /// How long the stages of the workers' turns take, in the order of a turn.
    #[serde(default)]
    pub timing: Vec<StageTiming>,
    /// The virtual servers, in the order of the configuration.
    pub services: Vec<ServiceStatus>,
}

/// What is in the workers' connection tables, and what happened to them since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableCounts {
    /// Connections now.
    pub connections: u64,
    /// Persistence templates now.
    pub templates: u64,
    /// Entries that made room for others before their time.
    pub evicted: u64,
    /// Packets forwarded without an entry, as there was no room and their scheduler is a hash.
    pub unstored: u64,
}

/// Packets by the decision of the steering program, since it was attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SteeringCounts {
    /// Given to the workers.
    pub steered: u64,
    /// Left to the host.
    pub passed: u64,
    /// The workers', but no socket took them.
    pub dropped: u64,
    /// Forwarded by the program itself, on the fast path; in none of the others.
    #[serde(default)]
    pub forwarded: u64,
}

/// Frames that the workers handled since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameCounts {
    /// Received.
    pub received: u64,
    /// Sent on to a real server.
    pub forwarded: u64,
    /// Answered by the balancer itself (a reset for a connection that nobody knows).
    pub replied: u64,
    /// Dropped, each for a named reason.
    pub dropped: u64,
}

/// What one worker did since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerCounts {
    /// Frames received by it.
    pub received: u64,
    /// Frames sent by it, answers included.
    pub sent: u64,
    /// Frames dropped by it.
    pub dropped: u64,
    /// Frames that it handed over to other workers.
    pub handed_over: u64,
    /// Frames that it took over from other workers.
    pub taken_over: u64,
    /// Connections in its table now.
    pub connections: u64,
}

/// How long one stage of a turn took a packet, over the bursts that were timed (one in 1024).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageTiming {
    /// `receive`, `classify`, `decide`, `rewrite` or `transmit`.
    pub stage: String,
    /// The histogram, in ascending order; where there were none, the bucket is left out.
    pub buckets: Vec<TimeBucket>,
}

/// Timed bursts that took about as long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeBucket {
    /// Less than so many nanoseconds a packet, and not less than half of it; absent for the last, of those
    /// that took longer than all others.
    pub below_ns: Option<u64>,
    /// How many.
    pub bursts: u64,
}

/// A counter with its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedCount {
    /// The name, in kebab case.
    pub name: String,
    /// How often.
    pub count: u64,
}

/// What of a virtual server is one entry of IPVS, or would be one for each address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum MatchStatus {
    /// An address.
    Address {
        /// `TCP`, `UDP` or `SCTP`.
        protocol: String,
        /// The address.
        address: IpAddr,
        /// The port; 0: every port.
        port: u16,
    },
    /// Addresses from one to another.
    Range {
        /// `TCP`, `UDP` or `SCTP`.
        protocol: String,
        /// The lowest address.
        first: IpAddr,
        /// The highest address.
        last: IpAddr,
        /// The port; 0: every port.
        port: u16,
    },
    /// The addresses of a network.
    Prefix {
        /// `TCP`, `UDP` or `SCTP`.
        protocol: String,
        /// The network.
        address: IpAddr,
        /// How many leading bits of an address make it one of the network.
        length: u8,
        /// The port; 0: every port.
        port: u16,
    },
    /// Packets with a firewall mark, whatever their protocol.
    Mark {
        /// The mark.
        mark: u32,
        /// Whether it is the IPv6 packets, not the IPv4 ones.
        ipv6: bool,
    },
}

impl MatchStatus {
    /// The port that clients connect to; 0: every port.
    pub const fn port(&self) -> u16 {
        match self {
            Self::Address { port, .. } | Self::Range { port, .. } | Self::Prefix { port, .. } => {
                *port
            }
            Self::Mark { .. } => 0,
        }
    }

    /// Whether the packets are IPv6's.
    pub const fn is_ipv6(&self) -> bool {
        match self {
            Self::Address { address, .. } | Self::Prefix { address, .. } => address.is_ipv6(),
            Self::Range { first, .. } => first.is_ipv6(),
            Self::Mark { ipv6, .. } => *ipv6,
        }
    }
}

/// What went through since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficTotals {
    /// Connections.
    pub connections: u64,
    /// Packets from clients.
    pub packets_in: u64,
    /// Packets to clients; with NAT only, as no others pass here.
    pub packets_out: u64,
    /// Bytes from clients, IP headers included.
    pub bytes_in: u64,
    /// Bytes to clients, IP headers included; with NAT only.
    pub bytes_out: u64,
}

/// What goes through in a second: averages over some eight seconds, renewed every two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficRates {
    /// New connections.
    pub connections: u64,
    /// Packets from clients.
    pub packets_in: u64,
    /// Packets to clients; with NAT only.
    pub packets_out: u64,
    /// Bytes from clients, IP headers included.
    pub bytes_in: u64,
    /// Bytes to clients, IP headers included; with NAT only.
    pub bytes_out: u64,
}

/// A virtual server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The virtual address; the lowest of the first match where there are several, and unspecified when
    /// that is a mark.
    pub address: IpAddr,
    /// The virtual port, of the first match; 0: every port.
    pub port: u16,
    /// What it takes, in the order of the configuration.
    #[serde(default)]
    pub matches: Vec<MatchStatus>,
    /// The `virtual_server_group` that the matches are from; absent when they are its own.
    #[serde(default)]
    pub group: Option<String>,
    /// `lb_algo`, as in the configuration.
    pub scheduler: String,
    /// The scheduler's flags, in ipvsadm's words: `sh-fallback`, `mh-port` and so on.
    #[serde(default)]
    pub flags: Vec<String>,
    /// `ops`: each packet is scheduled by itself.
    #[serde(default)]
    pub one_packet: bool,
    /// `persistence_timeout` in seconds; absent without persistence.
    pub persistence_timeout: Option<u32>,
    /// `persistence_granularity` as a prefix length; absent when it is a single host.
    pub persistence_granularity: Option<u8>,
    /// What went through all of its real servers since the start.
    #[serde(default)]
    pub totals: TrafficTotals,
    /// What goes through all of its real servers.
    #[serde(default)]
    pub rates: TrafficRates,
    /// Whether the sum of weights of real servers that are up meets the quorum.
    pub quorum_met: bool,
    /// Whether the steering program sends this virtual server's packets to the workers now.
    pub steered: bool,
    /// The real servers, in the order of the configuration.
    pub reals: Vec<RealStatus>,
}

/// A real server of a virtual server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RealStatus {
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// How packets reach it, in ipvsadm's words: `Route` (DR), `Masq` (NAT), `Tunnel` (TUN).
    pub forward: String,
    /// How packets are wrapped, in ipvsadm's words: `ipip`, `gue:6080:-c`, `gre:+c`; absent unless they go
    /// through a tunnel.
    #[serde(default)]
    pub tunnel: Option<String>,
    /// The weight that the scheduler uses now: 0 while inhibited.
    pub weight: u32,
    /// Whether no check of it is failed.
    pub up: bool,
    /// Whether the scheduler may see it; a real server out of the pool keeps its connections. One
    /// that is up is not in the pool while packets have no way to it, see `reason`.
    pub in_pool: bool,
    /// Active connections: established or being set up, as IPVS counts them.
    pub active: u64,
    /// All other connections.
    pub inactive: u64,
    /// Connections since the start.
    pub connections: u64,
    /// Packets from clients since the start.
    pub packets_in: u64,
    /// Bytes from clients since the start, IP headers included.
    pub bytes_in: u64,
    /// Packets to clients since the start; with NAT only, as no others pass here.
    #[serde(default)]
    pub packets_out: u64,
    /// Bytes to clients since the start, IP headers included; with NAT only.
    #[serde(default)]
    pub bytes_out: u64,
    /// What goes through it.
    #[serde(default)]
    pub rates: TrafficRates,
    /// The MAC address that its packets are sent to; absent while it is not resolved.
    pub next_hop: Option<String>,
    /// Why it is down, in the words of the check that failed last, or why packets cannot be sent
    /// to it.
    pub reason: Option<String>,
}

/// The VRRP instances, and how punctual the loop that drives them is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VrrpStatus {
    /// The instances, in the order of the configuration.
    pub instances: Vec<InstanceStatus>,
    /// How late VRRP timers were served.
    pub timer_lateness: Lateness,
}

/// How late something was done, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lateness {
    /// How often it was done.
    pub count: u64,
    /// The median.
    pub p50_us: u64,
    /// The 99th percentile.
    pub p99_us: u64,
    /// The longest.
    pub max_us: u64,
}

/// A VRRP instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceStatus {
    /// Its name in the configuration.
    pub name: String,
    /// The interface that its adverts use.
    pub interface: String,
    /// The virtual router id, 1 to 255.
    pub vrid: u8,
    /// `INIT`, `BACKUP`, `MASTER` or `FAULT`.
    pub state: String,
    /// Why it is in `FAULT`; absent in other states.
    pub reason: Option<String>,
    /// What it should have and has not, with the reason: an address that the kernel refuses. It is
    /// tried again as long as it is missing.
    #[serde(default)]
    pub problems: Vec<String>,
    /// The priority in effect, 1 to 255.
    pub priority: u8,
    /// Seconds since it entered this state.
    pub for_seconds: u64,
    /// When it entered this state, RFC 3339 in UTC.
    pub since: String,
    /// The address of the master whose adverts it follows; absent on the master itself.
    pub master: Option<IpAddr>,
    /// The priority that this master has announced last, 1 to 255; 0 where there is none, and on the master itself.
    #[serde(default)]
    pub master_priority: u8,
    /// The virtual addresses, with prefix lengths.
    pub addresses: Vec<String>,
    /// Those that are on their interfaces now: `ADDRESS/LEN dev INTERFACE`.
    #[serde(default)]
    pub held: Vec<String>,
    /// Adverts received and sent, state changes, and each kind of rejected advert.
    pub counters: Vec<NamedCount>,
}
