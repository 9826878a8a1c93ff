//! What a checker and a pool are told: ids, settings with units, and the outcome of a probe.

use std::{fmt, net::SocketAddr, time::Duration};

use crate::{
    addr::{Endpoint, L4Proto},
    lvs::{RealId, ServiceId},
};

/// One real server of one virtual server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    /// The virtual server.
    pub vs: ServiceId,
    /// The real server in it.
    pub real: RealId,
}

/// One checker. Numbers are not used twice, so that the result of a probe that was under way
/// when its checker was removed is recognised as stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CheckerId(pub u32);

/// Address, protocol and port as keepalived writes them in its log: `[10.0.0.1]:tcp:80`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceName {
    /// Address and port.
    pub endpoint: Endpoint,
    /// The protocol of the virtual server.
    pub protocol: L4Proto,
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Endpoint { addr, port } = self.endpoint;
        write!(f, "[{addr}]:{}:{port}", self.protocol.name())
    }
}

/// A virtual server as far as health checking is concerned (keepalived `virtual_server`).
#[derive(Clone, Debug)]
pub struct VirtualSettings {
    /// Its number.
    pub id: ServiceId,
    /// Its name in messages.
    pub name: ServiceName,
    /// Sum of the weights of working real servers that is enough (keepalived `quorum`).
    /// At least 1, the default; more than all weights together is reduced to their sum.
    pub quorum: u32,
    /// How far above the quorum the sum must be to gain it, and below to lose it (keepalived
    /// `hysteresis`). Default 0; `quorum` or more is reduced to one less.
    pub hysteresis: u32,
    /// Takes the place of the real servers while the quorum is lost (keepalived `sorry_server`).
    pub sorry: Option<SorryServer>,
    /// The real servers.
    pub reals: Vec<RealSettings>,
}

/// The sorry server of a virtual server. It is not checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SorryServer {
    /// Its name in messages.
    pub name: ServiceName,
    /// Stay in the pool with weight 0 while it is not needed (keepalived
    /// `sorry_server_inhibit`). Default off.
    pub inhibit: bool,
}

/// A real server as far as health checking is concerned (keepalived `real_server`).
#[derive(Clone, Debug)]
pub struct RealSettings {
    /// Its slot number.
    pub id: RealId,
    /// Address and port; messages add the protocol of the virtual server.
    pub endpoint: Endpoint,
    /// Weight while it works, 0 to 2,147,483,647 (keepalived `weight`). Default 1.
    pub weight: u32,
    /// Keep it in the pool with weight 0 when it fails, rather than remove it (keepalived
    /// `inhibit_on_failure`). Default off.
    pub inhibit: bool,
    /// Its checkers. It is up when none of them has failed; without any it is always up.
    pub checkers: Vec<CheckerSettings>,
}

/// One checker: what it probes, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckerSettings {
    /// What is probed.
    pub probe: Probe,
    /// Failures after the first that are needed to bring a working checker down (keepalived
    /// `retry`). Default 1.
    pub retry: u32,
    /// From the end of a failed probe to the next try (keepalived `delay_before_retry`).
    /// Default 1 s.
    pub delay_before_retry: Duration,
    /// From the end of a cycle to the next one (keepalived `delay_loop`). Default 60 s.
    pub delay_loop: Duration,
    /// Upper end of the random wait before the first probe (keepalived `warmup`). Default:
    /// the shorter of one second and `delay_loop`.
    pub warmup: Option<Duration>,
    /// Failed until a probe passes (keepalived `alpha`). Default off: working until one fails.
    pub alpha: bool,
    /// Report every failed probe, not only the one that brings the checker down (keepalived
    /// `log_all_failures`). Default off.
    pub log_all_failures: bool,
}

/// What a checker does to find out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// keepalived `TCP_CHECK`: passes when the connection is established in time.
    Tcp(TcpProbe),
}

impl Probe {
    /// keepalived's word for this kind of checker.
    pub const fn keyword(&self) -> &'static str {
        match self {
            Self::Tcp(_) => "TCP_CHECK",
        }
    }

    /// Whether both ask the same question, if with different patience: what one has found out
    /// is then true for the other.
    pub fn asks_the_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp(a), Self::Tcp(b)) => {
                (a.target, a.bind, a.mark) == (b.target, b.bind, b.mark)
            }
        }
    }
}

/// Where and how to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpProbe {
    /// The address and port to connect to (keepalived `connect_ip`, `connect_port`). Default:
    /// those of the real server.
    pub target: SocketAddr,
    /// Source address and port (keepalived `bindto`, `bind_port`). Default: the kernel's choice;
    /// port 0 leaves only the port to the kernel.
    pub bind: Option<SocketAddr>,
    /// Time for the connection to be established (keepalived `connect_timeout`). Default 5 s.
    pub timeout: Duration,
    /// Socket mark (keepalived `fwmark`). Default none.
    pub mark: Option<u32>,
}

/// How a probe ended.
pub type ProbeResult = Result<(), ProbeError>;

/// Why a probe did not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeError {
    /// Nothing was decided within the checker's timeout.
    Timeout,
    /// The connection was not established; the text says why.
    Connect(Box<str>),
}

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout => f.write_str("timed out"),
            Self::Connect(text) => f.write_str(text),
        }
    }
}

/// Why a probe could not even be started. None of these says anything about the real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deferral {
    /// This machine has no descriptor, memory or slot left: every probe waits a moment.
    Descriptors,
    /// The source address is not on this machine, or its ports are used up: this probe waits.
    Address,
    /// A socket option was refused (a mark without the right to set it): this probe waits.
    Setup,
}

impl fmt::Display for Deferral {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Descriptors => "no free descriptors",
            Self::Address => "no source address or port",
            Self::Setup => "socket option refused",
        })
    }
}
