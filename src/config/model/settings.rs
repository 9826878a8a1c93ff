//! `xvs`, and how long connections may idle: what keepalived has no keyword for, because IPVS has
//! it as a sysctl, netfilter does it, or nobody does.

use std::{fmt, net::IpAddr, time::Duration};

use super::super::defaults;
use crate::{
    addr::{IpPrefix, L4Proto},
    lvs::MaglevSize,
};

/// What the block `xvs` says.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// `mark`: what marks packets. As with iptables all rules are looked at, in this order, and
    /// the last one that fits counts.
    pub marks: Vec<MarkRule>,
    /// The settings that IPVS has as sysctls.
    pub ipvs: Ipvs,
    /// `reset_on_failure`: whether TCP connections of a real server that fails or is removed are
    /// reset at once. Default false: they stay with it.
    pub reset_on_failure: bool,
    /// `cut_removed`: whether the connections of a real server that a reload removes are cut. Default false: it
    /// drains, that is, it keeps them until they end.
    pub cut_removed: bool,
    /// `udp_move`: whether UDP flows move at once when their real server fails. Default true.
    pub udp_move: bool,
    /// `tunnel_source`: networks of this host's, at most one a family, from which each flow in a tunnel (TUN)
    /// takes an outer source address of its own, so that the real server's receive queues share the
    /// work. Default none: the address on the way there.
    pub tunnel_source: Vec<IpPrefix>,
    /// `maglev_table_size`: entries of the table of `lb_algo mh`, a prime. Default
    /// [`defaults::MAGLEV_TABLE_SIZE`].
    pub maglev_table_size: MaglevSize,
    /// `workers`: forwarding threads, 1 to [`defaults::MOST_WORKERS`]. `None`: one a queue.
    pub workers: Option<u16>,
    /// `cpus`: what workers are pinned to, in rising order. None: the choice is free.
    pub cpus: Vec<u16>,
    /// `busy_poll`: whether workers ask their queue for packets without a pause. Default false.
    pub busy_poll: bool,
    /// `spin_us`: how long a worker without packets goes on looking before it sleeps, in microseconds, up to a
    /// second. Default [`defaults::SPIN`].
    pub spin: Duration,
    /// `fast_path`: whether packets of established connections are forwarded by the steering program itself. Default
    /// [`FastPath::Auto`].
    pub fast_path: FastPath,
}

/// `fast_path`: where the steering program forwards packets itself, beside what the interfaces allow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FastPath {
    /// Where the kernel says that it can, and no card writes into the workers' frames.
    #[default]
    Auto,
    /// Also where the kernel does not say (before Linux 6.3), and beside zero-copy.
    On,
    /// Nowhere.
    Off,
}

impl FastPath {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Auto, Self::On, Self::Off];
    /// The words that the configuration has for them.
    pub const WORDS: &[&str] = &["auto", "on", "off"];

    /// Its word.
    pub const fn word(self) -> &'static str {
        Self::WORDS[self as usize]
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            marks: Vec::new(),
            ipvs: Ipvs::default(),
            reset_on_failure: false,
            cut_removed: false,
            udp_move: true,
            tunnel_source: Vec::new(),
            maglev_table_size: defaults::MAGLEV_TABLE_SIZE,
            workers: None,
            cpus: Vec::new(),
            busy_poll: false,
            spin: defaults::SPIN,
            fast_path: FastPath::Auto,
        }
    }
}

/// The sysctls of IPVS (`net.ipv4.vs.*`) under their names, with its defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipvs {
    /// `conn_reuse_mode`, bits 0 and 1: whether a SYN on a closed connection is scheduled anew;
    /// with bit 1 also in FIN_WAIT where only the client's side is seen. Default
    /// [`defaults::CONN_REUSE_MODE`].
    pub conn_reuse_mode: u8,
    /// `expire_nodest_conn`: whether a connection whose real server is gone ends with its next
    /// packet. Default true, other than IPVS's, which drops its packets.
    pub expire_nodest_conn: bool,
    /// `expire_quiescent_template`: whether persistence ends when the real server has weight 0.
    /// Default false.
    pub expire_quiescent_template: bool,
    /// `sloppy_tcp`: whether any TCP segment but a RST makes a connection. Default false: a SYN
    /// does.
    pub sloppy_tcp: bool,
    /// `sloppy_sctp`: whether any SCTP packet makes a connection. Default false: an INIT does.
    pub sloppy_sctp: bool,
    /// `pmtu_disc`: whether DF is copied to the outer header of TUN. Default true.
    pub pmtu_disc: bool,
    /// `schedule_icmp`: whether an ICMP error about no known connection is scheduled. Default
    /// false.
    pub schedule_icmp: bool,
    /// `nat_icmp_send`: whether a NAT reply that belongs to no connection is answered by port
    /// unreachable. Default false.
    pub nat_icmp_send: bool,
}

impl Ipvs {
    /// Every sysctl by its name, with its value.
    pub(in crate::config) fn values(&self) -> [(&'static str, u8); 8] {
        let Self {
            conn_reuse_mode,
            expire_nodest_conn,
            expire_quiescent_template,
            sloppy_tcp,
            sloppy_sctp,
            pmtu_disc,
            schedule_icmp,
            nat_icmp_send,
        } = *self;
        [
            ("conn_reuse_mode", conn_reuse_mode),
            ("expire_nodest_conn", expire_nodest_conn.into()),
            (
                "expire_quiescent_template",
                expire_quiescent_template.into(),
            ),
            ("sloppy_tcp", sloppy_tcp.into()),
            ("sloppy_sctp", sloppy_sctp.into()),
            ("pmtu_disc", pmtu_disc.into()),
            ("schedule_icmp", schedule_icmp.into()),
            ("nat_icmp_send", nat_icmp_send.into()),
        ]
    }
}

impl Default for Ipvs {
    fn default() -> Self {
        Self {
            conn_reuse_mode: defaults::CONN_REUSE_MODE,
            expire_nodest_conn: true,
            expire_quiescent_template: false,
            sloppy_tcp: false,
            sloppy_sctp: false,
            pmtu_disc: true,
            schedule_icmp: false,
            nat_icmp_send: false,
        }
    }
}

/// `mark N { ... }`: packets that get a mark, as `iptables -t mangle -A PREROUTING ... -j MARK
/// --set-mark N` gives it. Every line that is there must fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkRule {
    /// The mark, not 0.
    pub mark: u32,
    /// `protocol`. `None`: any.
    pub protocol: Option<L4Proto>,
    /// `destination`.
    pub destination: AddressSet,
    /// `destination_port`. `None`: any. Only with a protocol.
    pub destination_port: Option<PortRange>,
    /// `source`, of the destination's family. `None`: any.
    pub source: Option<IpPrefix>,
    /// `source_port`. `None`: any. Only with a protocol.
    pub source_port: Option<PortRange>,
    /// `interface`: where the packet comes in. `None`: anywhere.
    pub interface: Option<String>,
}

/// Addresses of one family. Displayed as the configuration writes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AddressSet {
    /// A network, without bits behind the prefix; a single address has full length.
    Prefix(IpPrefix),
    /// From `first` to `last`, both included; `last` is the higher one.
    Range {
        /// The lowest address.
        first: IpAddr,
        /// The highest address.
        last: IpAddr,
    },
}

impl AddressSet {
    /// One of the addresses: the lowest.
    pub const fn first(&self) -> IpAddr {
        match self {
            Self::Prefix(prefix) => prefix.addr(),
            Self::Range { first, .. } => *first,
        }
    }

    /// The lowest and the highest of the addresses.
    pub fn bounds(&self) -> (IpAddr, IpAddr) {
        match self {
            Self::Prefix(prefix) => (prefix.addr(), prefix.last()),
            Self::Range { first, last } => (*first, *last),
        }
    }
}

impl fmt::Display for AddressSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix(prefix) => prefix.fmt(f),
            Self::Range { first, last } => write!(f, "{first}-{last}"),
        }
    }
}

/// Ports from `first` to `last`, both included, `last` not below `first`; 1 to 65,535.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortRange {
    /// The lowest port.
    pub first: u16,
    /// The highest port.
    pub last: u16,
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            return self.first.fmt(f);
        }
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// Makes the enum of states, so that variant, keyword and default stand on one line.
macro_rules! timeouts {
    ($($(#[$doc:meta])* $variant:ident, $name:literal, $seconds:literal;)*) => {
        /// A state of a connection that has a timeout of its own; the states are IPVS's.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Timeout {
            $($(#[$doc])* $variant,)*
        }

        impl Timeout {
            /// Every state.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The keyword in `timeouts`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// What IPVS starts with.
            pub const fn default_time(self) -> Duration {
                match self {
                    $(Self::$variant => Duration::from_secs($seconds),)*
                }
            }
        }
    };
}

timeouts! {
    /// TCP `NONE`: 2 s.
    TcpNone, "tcp_none", 2;
    /// TCP `ESTABLISHED` (also `lvs_timeouts tcp`): 900 s.
    TcpEstablished, "tcp_established", 900;
    /// TCP `SYN_SENT`: 120 s.
    TcpSynSent, "tcp_syn_sent", 120;
    /// TCP `SYN_RECV`: 60 s.
    TcpSynRecv, "tcp_syn_recv", 60;
    /// TCP `FIN_WAIT` (also `lvs_timeouts tcpfin`): 120 s.
    TcpFinWait, "tcp_fin_wait", 120;
    /// TCP `TIME_WAIT`: 120 s.
    TcpTimeWait, "tcp_time_wait", 120;
    /// TCP `CLOSE`: 10 s.
    TcpClose, "tcp_close", 10;
    /// TCP `CLOSE_WAIT`: 60 s.
    TcpCloseWait, "tcp_close_wait", 60;
    /// TCP `LAST_ACK`: 30 s.
    TcpLastAck, "tcp_last_ack", 30;
    /// TCP `LISTEN`: 120 s.
    TcpListen, "tcp_listen", 120;
    /// TCP `SYNACK`: 120 s.
    TcpSynAck, "tcp_synack", 120;
    /// UDP (also `lvs_timeouts udp`): 300 s.
    Udp, "udp", 300;
    /// SCTP `NONE`: 2 s.
    SctpNone, "sctp_none", 2;
    /// SCTP `INIT1`: 4 s.
    SctpInit1, "sctp_init1", 4;
    /// SCTP `INIT`: 61 s, SCTP's longest retransmission time and one more.
    SctpInit, "sctp_init", 61;
    /// SCTP `COOKIE_SENT`: 61 s.
    SctpCookieSent, "sctp_cookie_sent", 61;
    /// SCTP `COOKIE_REPLIED`: 61 s.
    SctpCookieReplied, "sctp_cookie_replied", 61;
    /// SCTP `COOKIE_WAIT`: 61 s.
    SctpCookieWait, "sctp_cookie_wait", 61;
    /// SCTP `COOKIE`: 61 s.
    SctpCookie, "sctp_cookie", 61;
    /// SCTP `COOKIE_ECHOED`: 61 s.
    SctpCookieEchoed, "sctp_cookie_echoed", 61;
    /// SCTP `ESTABLISHED`: 900 s.
    SctpEstablished, "sctp_established", 900;
    /// SCTP `SHUTDOWN_SENT`: 61 s.
    SctpShutdownSent, "sctp_shutdown_sent", 61;
    /// SCTP `SHUTDOWN_RECEIVED`: 61 s.
    SctpShutdownReceived, "sctp_shutdown_received", 61;
    /// SCTP `SHUTDOWN_ACK_SENT`: 61 s.
    SctpShutdownAckSent, "sctp_shutdown_ack_sent", 61;
    /// SCTP `REJECTED`: 4 s.
    SctpRejected, "sctp_rejected", 4;
    /// SCTP `CLOSED`: 61 s.
    SctpClosed, "sctp_closed", 61;
}

/// How long a connection may idle in each state: whole seconds, 1 s to 31 days.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts([Duration; Timeout::ALL.len()]);

impl Timeouts {
    /// The time of a state.
    pub const fn get(&self, state: Timeout) -> Duration {
        self.0[state as usize]
    }

    /// Sets the time of a state.
    pub const fn set(&mut self, state: Timeout, time: Duration) {
        self.0[state as usize] = time;
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        let mut all = Self([Duration::ZERO; Timeout::ALL.len()]);
        for state in Timeout::ALL {
            all.set(*state, state.default_time());
        }
        all
    }
}
